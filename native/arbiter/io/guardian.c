/* SPDX-License-Identifier: Apache-2.0
 * Nobody stays stopped because the arbiter is gone. Resumes what the journal names as soon as the arbiter has died, or
 * when it has not shown life for 100 ms. Its death is seen at once through a pidfd.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include "journal.h"

#define LATE_NS 100000000ull

static volatile sig_atomic_t over;

static void end(int signal)
{
    (void)signal;
    over = 1;
}

static uint64_t monotonic_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

int guardian_main(const char *run_dir, const struct cc_ops *ops)
{
    struct journal *j = NULL;
    struct pollfd arbiter = {.fd = -1, .events = POLLIN};
    uint32_t watched = 0;
    signal(SIGTERM, end);
    signal(SIGINT, end);
    guardian_leave(run_dir);
    mlockall(MCL_CURRENT);
    while (!over) {
        if (!j && !(j = journal_map(run_dir, false))) {
            poll(NULL, 0, 100);
            continue;
        }
        uint32_t pid = __atomic_load_n(&j->arbiter_pid, __ATOMIC_SEQ_CST);
        if (pid != watched) {
            if (arbiter.fd >= 0)
                close(arbiter.fd);
            arbiter.fd = pid ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
            watched = pid;
        }
        bool stopped = journal_holds(j);
        bool dead = pid && arbiter.fd < 0;
        if (arbiter.fd >= 0)
            dead = poll(&arbiter, 1, stopped ? 25 : 100) > 0;
        else
            poll(NULL, 0, stopped ? 10 : 100);
        uint64_t beat = __atomic_load_n(&j->heartbeat_ns, __ATOMIC_SEQ_CST), now = monotonic_ns();
        bool late = now > beat && now - beat > LATE_NS;
        if (!(dead || late) || !journal_holds(j)) {
            if (dead)
                poll(NULL, 0, 20);
            continue;
        }
        int n = journal_resume(j, ops, NULL);
        fprintf(stderr, "flexai-arbiter: guardian: the arbiter (pid %u) %s; resumed %d groups\n", pid,
                dead ? "is gone" : "shows no life", n);
        poll(NULL, 0, 20);
    }
    return 0;
}
