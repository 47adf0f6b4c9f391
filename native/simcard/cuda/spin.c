/* SPDX-License-Identifier: Apache-2.0
 * A kernel that waits for a peer, as a collective's does: flexai_spin(u32 *peer, u32 *own, u32 turn, u64 iterations) keeps
 * the card busy, in its context's time slices, until *peer >= turn, works, and then writes turn + 1 to *own. A thread of
 * ours looks at the word, every 20 us: a simulated kernel computes nothing.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "sim.h"

struct spin {
    struct sim_stream *stream;
    uint64_t seq;
    const volatile uint32_t *peer;
    volatile uint32_t *own;
    uint32_t turn;
};

static void *watch_peer(void *argument)
{
    const struct spin *spin = argument;
    struct sim_stream *s = spin->stream;
    const uint64_t seq = spin->seq; /* once the kernel is let go, advance_own may free it */
    CUresult error = sim_wait(s->index, seq - 1);
    while (!error && __atomic_load_n(spin->peer, __ATOMIC_ACQUIRE) < spin->turn) {
        nanosleep(&(struct timespec){0, 20000}, NULL);
        error = (CUresult)atomic_load_explicit(&s->ring->error, memory_order_acquire);
    }
    atomic_store_explicit(&s->ring->host_done, seq, memory_order_release);
    sim_done(s->index, seq);
    return NULL;
}

static void advance_own(void *argument)
{
    struct spin *spin = argument;
    __atomic_store_n(spin->own, spin->turn + 1, __ATOMIC_RELEASE);
    free(spin);
}

CUresult sim_spin(struct sim_stream *s, void **parameters)
{
    struct spin *spin = malloc(sizeof *spin);
    if (!s || !parameters || !spin) {
        free(spin);
        return s && parameters ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_ERROR_INVALID_VALUE;
    }
    uint64_t peer, own, iterations;
    *spin = (struct spin){.stream = s};
    memcpy(&peer, parameters[0], sizeof peer);
    memcpy(&own, parameters[1], sizeof own);
    memcpy(&spin->turn, parameters[2], sizeof spin->turn);
    memcpy(&iterations, parameters[3], sizeof iterations);
    spin->peer = (const volatile uint32_t *)(uintptr_t)peer;
    spin->own = (volatile uint32_t *)(uintptr_t)own;
    struct sm_entry wait = {.op = SM_OP_SPIN}, work = {.op = SM_OP_WORK, .amount = iterations, .n_kernels = 1};
    CUresult error = sim_push(s, &wait, &spin->seq);
    pthread_t thread;
    if (error || pthread_create(&thread, NULL, watch_peer, spin) != 0) {
        free(spin);
        return error ? error : CUDA_ERROR_OUT_OF_MEMORY;
    }
    pthread_detach(thread);
    error = sim_push(s, &work, NULL);
    return error ? error : sim_host(s, advance_own, spin);
}
