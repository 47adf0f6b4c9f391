/* SPDX-License-Identifier: Apache-2.0
 * Wakes the loop when a tenant's ledger says that something changed on its side: a thread that sleeps on all of their
 * futex words at once. Without futex_waitv (Linux 5.16) it looks at them every 2 ms.
 */
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include "arbiter.h"

#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449
#endif
#define MAX_WORDS 120 /* the kernel's limit is 128 */

struct word { /* struct futex_waitv, which older headers lack */
    uint64_t value, address;
    uint32_t flags, reserved;
};

static struct {
    pthread_mutex_t lock;
    int n;
    int ledger[MAX_WORDS]; /* own descriptors: the mapping below outlives the tenant's */
    uint32_t own;          /* a futex word of ours: the set changed */
    int event;
} set = {.lock = PTHREAD_MUTEX_INITIALIZER};

void demand_watch(const struct arbiter *a)
{
    pthread_mutex_lock(&set.lock);
    for (int i = 0; i < set.n; i++)
        close(set.ledger[i]);
    set.n = 0;
    for (int i = 0; i < FX_MAX_TENANTS && set.n < MAX_WORDS; i++) {
        const struct io_tenant *t = &a->tenant[i];
        bool gated = false;
        for (int k = 0; k < t->n_grants; k++)
            gated |= t->grant[k].card >= 0 && a->card[t->grant[k].card].backend == FX_BACKEND_LEASE;
        int fd = t->id[0] && gated && t->ledger >= 0 ? dup(t->ledger) : -1;
        if (fd >= 0)
            set.ledger[set.n++] = fd;
    }
    __atomic_add_fetch(&set.own, 1u, __ATOMIC_SEQ_CST);
    pthread_mutex_unlock(&set.lock);
    syscall(SYS_futex, &set.own, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static uint32_t read_word(int ledger, uint32_t otherwise)
{
    uint32_t value;
    bool all = pread(ledger, &value, sizeof value, (off_t)offsetof(struct fx_ledger, demand)) == (ssize_t)sizeof value;
    return all ? value : otherwise;
}

static void *watch(void *argument)
{
    static struct word words[MAX_WORDS + 1];
    static int ledger[MAX_WORDS];
    int n = 0;
    uint32_t own = 0;
    (void)argument;
    for (;;) {
        uint32_t now = __atomic_load_n(&set.own, __ATOMIC_SEQ_CST);
        if (now != own || !words[0].address) {
            for (int i = 0; i < n; i++) {
                munmap((void *)(uintptr_t)(words[i + 1].address - offsetof(struct fx_ledger, demand)), 4096);
                close(ledger[i]);
            }
            n = 0;
            pthread_mutex_lock(&set.lock);
            own = set.own;
            for (int i = 0; i < set.n; i++) {
                int fd = dup(set.ledger[i]);
                void *page = fd < 0 ? MAP_FAILED : mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
                if (page == MAP_FAILED) {
                    if (fd >= 0)
                        close(fd);
                    continue;
                }
                ledger[n++] = fd;
                words[n] = (struct word){.value = read_word(fd, 0), .flags = 2,
                                         .address = (uintptr_t)page + offsetof(struct fx_ledger, demand)};
            }
            pthread_mutex_unlock(&set.lock);
            eventfd_write(set.event, 1);
        }
        words[0] = (struct word){.value = own, .address = (uintptr_t)&set.own, .flags = 2};
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += 1;
        long rc = syscall(SYS_futex_waitv, words, n + 1, 0, &until, CLOCK_MONOTONIC);
        if (rc < 0 && errno != EAGAIN && errno != ETIMEDOUT && errno != EINTR)
            nanosleep(&(struct timespec){.tv_nsec = n ? 2000000 : 100000000}, NULL);
        bool changed = false;
        for (int i = 0; i < n; i++) {
            uint32_t value = read_word(ledger[i], (uint32_t)words[i + 1].value);
            changed |= value != words[i + 1].value;
            words[i + 1].value = value;
        }
        if (changed)
            eventfd_write(set.event, 1);
    }
    return NULL;
}

bool demand_start(struct arbiter *a)
{
    pthread_t thread;
    set.event = a->demand_event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (set.event < 0 || pthread_create(&thread, NULL, watch, NULL) != 0)
        return false;
    pthread_detach(thread);
    return true;
}
