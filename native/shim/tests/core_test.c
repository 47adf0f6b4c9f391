/* SPDX-License-Identifier: Apache-2.0
 *
 * The cores of the shim that need no driver (region, gate words, allocation table), for the sanitizers: many threads and
 * processes at once, and at the end the books must be right.
 *
 *   core_test DIR   with DIR/policy and DIR/ledger (one card of 64 MiB, lease backend)
 */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../gate_core.h"
#include "../region_core.h"
#include "../table.h"

#define WANT(condition)                                                                                                \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #condition);                              \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)
#define MIB (1ull << 20)
#define CAP (64 * MIB)

static struct fx_region region;
static const char *dir;
static uint32_t slot;

static void *charge_at_random(void *seed)
{
    unsigned state = (unsigned)(uintptr_t)seed;
    uint64_t held[64] = {0};
    for (int i = 0; i < 20000; i++) {
        uint64_t *at = &held[rand_r(&state) % 64];
        if (*at) {
            fx_refund(region.ledger, slot, 0, *at);
            *at = 0;
        } else {
            uint64_t bytes = (uint64_t)rand_r(&state) % (4 * MIB) + 1;
            if (fx_charge(region.ledger, slot, 0, bytes, CAP))
                *at = bytes;
        }
        WANT(__atomic_load_n(&region.ledger->charged_bytes[0], __ATOMIC_SEQ_CST) <= CAP);
    }
    for (int i = 0; i < 64; i++)
        if (held[i])
            fx_refund(region.ledger, slot, 0, held[i]);
    return NULL;
}

static uint32_t take_slot(void)
{
    uint32_t pid = (uint32_t)getpid();
    int taken = fx_slot_take(region.ledger, pid, fx_start_ticks(pid), fx_pid_ns(), fx_now_ns());
    WANT(taken >= 0);
    return (uint32_t)taken;
}

static void charges(void)
{
    for (int process = 0; process < 3; process++) {
        pid_t child = fork();
        if (child == 0) {
            pthread_t threads[4];
            slot = take_slot();
            for (uintptr_t i = 0; i < 4; i++)
                pthread_create(&threads[i], NULL, charge_at_random, (void *)(i + 4 * (uintptr_t)process + 1));
            for (int i = 0; i < 4; i++)
                pthread_join(threads[i], NULL);
            WANT(region.ledger->slot[slot].charged_bytes[0] == 0);
            _exit(0);
        }
    }
    int status;
    for (int i = 0; i < 3; i++)
        WANT(wait(&status) > 0 && status == 0);
    WANT(region.ledger->charged_bytes[0] == 0);
    WANT(region.ledger->peak_bytes[0] <= CAP);
    WANT(region.ledger->n_refused[0] > 0);
    WANT(fx_reap(region.ledger, dir, fx_pid_ns(), 0) == 3);
}

/* Killed at any moment, inside a charge too, and reaped by several at once: nothing is lost, nothing is given twice. */
static void deaths(void)
{
    for (int round = 0; round < 20; round++) {
        pid_t children[3];
        for (int i = 0; i < 3; i++)
            if ((children[i] = fork()) == 0) {
                slot = take_slot();
                for (;;)
                    charge_at_random((void *)(uintptr_t)(round * 3 + i + 1));
            }
        usleep(1000u + (unsigned)round * 500u);
        for (int i = 0; i < 3; i++)
            kill(children[i], SIGKILL);
        for (int i = 0; i < 3; i++)
            waitpid(children[i], NULL, 0);
        pid_t rival = fork();
        if (rival == 0) {
            fx_reap(region.ledger, dir, fx_pid_ns(), 0);
            _exit(0);
        }
        for (int tries = 0; tries < 1000 && fx_reap(region.ledger, dir, fx_pid_ns(), 0) != 0; tries++)
            usleep(100);
        waitpid(rival, NULL, 0);
        fx_reap(region.ledger, dir, fx_pid_ns(), 0);
        WANT(region.ledger->charged_bytes[0] == 0);
        for (int i = 0; i < FX_MAX_SLOTS; i++)
            WANT(region.ledger->slot[i].pid == 0);
    }
}

/* Any sequence of puts and takes against a plain array. */
static void table(void)
{
    static uint64_t truth[5000];
    unsigned state = 7;
    for (int i = 0; i < 200000; i++) {
        uint64_t key = (uint64_t)rand_r(&state) % 5000;
        struct fx_entry gone;
        if (rand_r(&state) % 2) {
            truth[key] = (uint64_t)i + 1;
            WANT(fx_table_put(FX_KIND_MEMORY, key << 21, 0, truth[key]));
        } else {
            WANT(fx_table_take(FX_KIND_MEMORY, key << 21, &gone) == (truth[key] != 0));
            WANT(truth[key] == 0 || gone.bytes == truth[key]);
            truth[key] = 0;
        }
        WANT(!fx_table_get(FX_KIND_ARRAY, key << 21));
    }
    uint64_t position = 0, n = 0, left = 0;
    while (fx_table_next(FX_KIND_MEMORY, &position))
        n++;
    for (int i = 0; i < 5000; i++)
        left += truth[i] != 0;
    WANT(n == left);
}

static struct fx_policy *writable;

static void *open_and_close(void *stop)
{
    for (uint32_t generation = 1; !__atomic_load_n((int *)stop, __ATOMIC_SEQ_CST); generation++) {
        __atomic_store_n(&writable->device[0].gate, generation << 1 | (generation & 1), __ATOMIC_SEQ_CST);
        __atomic_store_n(&writable->heartbeat_ns, fx_now_ns(), __ATOMIC_SEQ_CST);
        syscall(SYS_futex, &writable->device[0].gate, 1, 1 << 30, NULL, NULL, 0);
        usleep(50);
    }
    __atomic_store_n(&writable->device[0].gate, 1u, __ATOMIC_SEQ_CST);
    syscall(SYS_futex, &writable->device[0].gate, 1, 1 << 30, NULL, NULL, 0);
    return NULL;
}

static void *pass(void *nothing)
{
    (void)nothing;
    for (int i = 0; i < 500; i++)
        fx_gate_wait(region.policy, region.ledger, slot, 0);
    return NULL;
}

static void gate(void)
{
    pthread_t arbiter, threads[4];
    int stop = 0;
    slot = take_slot();
    uint32_t before = region.ledger->demand;
    pthread_create(&arbiter, NULL, open_and_close, &stop);
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, pass, NULL);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    __atomic_store_n(&stop, 1, __ATOMIC_SEQ_CST);
    pthread_join(arbiter, NULL);
    WANT(region.ledger->slot[slot].waiting == 0 && region.ledger->slot[slot].waiting_on[0] == 0);
    WANT(region.ledger->demand >= before);
    fx_slot_release(region.ledger, slot);
}

int main(int n, char **arguments)
{
    char why[768] = "", path[4096];
    WANT(n == 2);
    dir = arguments[1];
    if (fx_region_open(&region, dir, why, sizeof why) != 0) {
        fprintf(stderr, "%s\n", why);
        return 3;
    }
    snprintf(path, sizeof path, "%s/policy", dir);
    FILE *file = fopen(path, "r+");
    WANT(file);
    writable = mmap(NULL, sizeof *writable, PROT_READ | PROT_WRITE, MAP_SHARED, fileno(file), 0);
    fclose(file);
    struct fx_limits limits;
    WANT(fx_limits_read(region.policy, 0, &limits) && limits.memory_bytes == CAP);
    WANT(!fx_limits_read(region.policy, 1, &limits));
    charges();
    deaths();
    table();
    gate();
    puts("ok");
    return 0;
}
