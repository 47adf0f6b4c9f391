/* SPDX-License-Identifier: Apache-2.0
 * Two processes that wait for each other on the card: a word each, in memory that both hold. They find each other by a
 * file; the first to come allocates. Memory of a card can be joined only by who may use that card: two jobs with a card
 * each meet in memory of the host, which both cards reach.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include "workload.h"

#define WORDS 64u /* from one rank's word to the other's: 256 bytes, no line of a cache in common */
#define PATIENCE_MS 60000

static struct meeting {
    uint32_t n_came, n_shared, n_joined, n_left, by_host;
    struct cuda_handle handle;
    int pid, file; /* of the first: two words of the host, which no filesystem need write back (a driver pins them) */
} *meeting;
static uint32_t rank, turn;
static uint64_t memory, own, peer;
static uint32_t *words;

static void await(const uint32_t *word, uint32_t value, const char *what)
{
    for (int ms = 0; __atomic_load_n(word, __ATOMIC_ACQUIRE) < value; ms++) {
        if (ms == PATIENCE_MS) {
            fprintf(stderr, "flexai-workload: spin-pair: the other process did not %s within a minute\n", what);
            exit(1);
        }
        nanosleep(&(struct timespec){0, 1000000}, NULL);
    }
}

static void map_words(void)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/fd/%d", meeting->pid, meeting->file);
    int file = rank ? open(path, O_RDWR | O_CLOEXEC) : meeting->file;
    void *at = file < 0 ? MAP_FAILED : mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (at == MAP_FAILED) {
        perror(path);
        exit(2);
    }
    words = at;
    memory = cuda_register(words, 4096);
}

void pair_open(const char *path, bool collective)
{
    int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    void *at = MAP_FAILED;
    if (file >= 0 && ftruncate(file, sizeof *meeting) == 0)
        at = mmap(NULL, sizeof *meeting, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (at == MAP_FAILED) {
        perror(path);
        exit(2);
    }
    meeting = at;
    rank = __atomic_fetch_add(&meeting->n_came, 1, __ATOMIC_SEQ_CST);
    if (rank > 1) {
        fprintf(stderr, "flexai-workload: %s: two processes have come by it already; name a new file\n", path);
        exit(2);
    }
    cuda_spin_make(collective);
    if (rank == 0) {
        memory = cuda_allocate(2ull << 20);
        if (!memory)
            exit(12);
        cuda_fill(memory, 0, 2 * WORDS);
        meeting->handle = cuda_share(memory);
        meeting->pid = getpid();
        meeting->file = memfd_create("spin-pair", MFD_CLOEXEC);
        if (meeting->file < 0 || ftruncate(meeting->file, 4096) != 0) {
            perror("flexai-workload: spin-pair: memfd_create");
            exit(2);
        }
        __atomic_store_n(&meeting->n_shared, 1, __ATOMIC_RELEASE);
    } else {
        await(&meeting->n_shared, 1, "share its memory");
        memory = cuda_join(meeting->handle);
        meeting->by_host = !memory;
    }
    __atomic_fetch_add(&meeting->n_joined, 1, __ATOMIC_SEQ_CST);
    await(&meeting->n_joined, 2, "come");
    if (meeting->by_host)
        map_words();
    own = memory + (rank ? 4ull * WORDS : 0);
    peer = memory + (rank ? 0 : 4ull * WORDS);
}

void pair_step(uint64_t iterations)
{
    cuda_spin(peer, own, turn, iterations);
    turn++;
}

/* Whoever ends first lets the other go on alone; who allocated stays until the other has let go. */
void pair_close(void)
{
    if (words)
        __atomic_store_n(&words[rank ? WORDS : 0], UINT32_MAX, __ATOMIC_RELEASE);
    else
        cuda_fill(own, UINT32_MAX, 1);
    if (rank && !words)
        cuda_leave(memory);
    __atomic_fetch_add(&meeting->n_left, 1, __ATOMIC_SEQ_CST);
    if (!rank)
        await(&meeting->n_left, 2, "end");
}
