/* SPDX-License-Identifier: Apache-2.0
 * flexai-arbiter: holds every tenant of this node to its share of each card. One thread, which sleeps until the next
 * moment at which something is to be done, and one that waits for the tenants' words.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>
#include "arbiter.h"

#define SCAN_NS (250 * MS)
#define BEAT_NS (100 * MS)
#define STOPPED_BEAT_NS (30 * MS) /* while something is stopped, so that the guardian does not take us for dead */

static volatile sig_atomic_t over;

static void end(int signal)
{
    (void)signal;
    over = 1;
}

uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

void say(const char *format, ...)
{
    char line[512];
    va_list list;
    va_start(list, format);
    vsnprintf(line, sizeof line, format, list);
    va_end(list);
    struct timespec t;
    struct tm day;
    clock_gettime(CLOCK_REALTIME, &t);
    char at[32];
    strftime(at, sizeof at, "%Y-%m-%d %H:%M:%S", localtime_r(&t.tv_sec, &day));
    fprintf(stderr, "%s,%03ld flexai-arbiter: %s\n", at, t.tv_nsec / 1000000, line);
}

static int usage_error(void)
{
    fprintf(stderr, "usage: flexai-arbiter --run-dir DIR [--simcard SOCKET] [--guardian]\n");
    return 2;
}

static void round_of_work(struct arbiter *a)
{
    uint64_t now = now_ns();
    cards_rescued(a);
    if (now >= a->processes_at) {
        a->processes_at = now + SCAN_NS;
        processes_scan(a, now);
    }
    gates_look(a, now_ns());
    cards_step(a);
    now = now_ns();
    __atomic_store_n(&a->journal->heartbeat_ns, now, __ATOMIC_SEQ_CST);
    if (now >= a->beat_at) {
        a->beat_at = now + BEAT_NS;
        tenants_beat(a, now);
        cards_look(a);
        usage_publish(a, now);
    }
}

static void sleep_until_next(struct arbiter *a)
{
    uint64_t now = now_ns(), wake = cards_wake(a, now);
    wake = a->processes_at < wake ? a->processes_at : wake;
    wake = a->beat_at < wake ? a->beat_at : wake;
    if (now + STOPPED_BEAT_NS < wake && journal_holds(a->journal))
        wake = now + STOPPED_BEAT_NS;
    if (wake < now + 50000)
        wake = now + 50000;
    struct itimerspec at = {.it_value = {(time_t)(wake / 1000000000u), (long)(wake % 1000000000u)}};
    timerfd_settime(a->timer, TFD_TIMER_ABSTIME, &at, NULL);
    struct epoll_event events[16];
    int n = epoll_wait(a->epoll, events, 16, 1000);
    for (int i = 0; i < n; i++) {
        uint64_t count;
        switch ((enum event_source)events[i].data.u64) {
        case EVENT_TIMER:
            (void)!read(a->timer, &count, sizeof count);
            break;
        case EVENT_DEMAND:
            (void)!read(a->demand_event, &count, sizeof count);
            break;
        case EVENT_LISTENER:
            agent_accept(a);
            break;
        case EVENT_AGENT:
            if (a->agent >= 0)
                agent_read(a);
            break;
        case EVENT_PROCESS:
            processes_gone(a);
            break;
        }
    }
}

static bool is_alone(const char *run_dir)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/arbiter.lock", run_dir);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600); /* held as long as we live */
    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0)
        return true;
    say("%s: %s; another arbiter runs there", path, strerror(errno));
    return false;
}

/* A process is watched by four descriptors: as many as we may have. */
static void raise_limits(void)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
}

static bool begin(struct arbiter *a)
{
    raise_limits();
    a->agent = a->listener = -1;
    for (int i = 0; i < FX_MAX_TENANTS; i++)
        a->tenant[i].ledger = -1;
    a->epoch = (uint32_t)(now_ns() >> 20) | 1u;
    a->epoll = epoll_create1(EPOLL_CLOEXEC);
    a->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    a->journal = journal_map(a->run_dir, true);
    if (a->epoll < 0 || a->timer < 0 || !a->journal || !usage_open(a)) {
        say("--run-dir %s: %s", a->run_dir, strerror(errno));
        return false;
    }
    /* Resume first, then look. */
    a->journal->heartbeat_ns = now_ns();
    int n = a->ops ? journal_resume(a->journal, a->ops, NULL) : 0;
    if (n)
        say("resumed %d groups that an earlier arbiter had stopped", n);
    a->rescues = a->journal->rescues;
    a->journal->heartbeat_ns = now_ns();
    a->journal->arbiter_pid = (uint32_t)getpid();
    struct epoll_event timer = {.events = EPOLLIN, .data.u64 = EVENT_TIMER};
    struct epoll_event demand = {.events = EPOLLIN, .data.u64 = EVENT_DEMAND};
    usage_publish(a, now_ns());
    if (timeline_open(a))
        timeline_began(a, now_ns());
    else
        say("--run-dir %s: no timeline: %s", a->run_dir, strerror(errno));
    return demand_start(a) && epoll_ctl(a->epoll, EPOLL_CTL_ADD, a->timer, &timer) == 0 &&
           epoll_ctl(a->epoll, EPOLL_CTL_ADD, a->demand_event, &demand) == 0 && agent_listen(a);
}

int main(int argc, char **argv)
{
    static struct arbiter a;
    bool guardian = false;
    const char *simcard = NULL;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--guardian"))
            guardian = true;
        else if (!strcmp(argv[i], "--run-dir") && i + 1 < argc)
            a.run_dir = argv[++i];
        else if (!strcmp(argv[i], "--simcard") && i + 1 < argc)
            simcard = argv[++i];
        else
            return usage_error();
    }
    if (!a.run_dir)
        return usage_error();
    signal(SIGPIPE, SIG_IGN);
    a.ops = &cc_nvidia;
    if (simcard) {
        setenv("FLEXAI_SIMCARD", simcard, 1);
        a.ops = &cc_simcard;
    }
    setpriority(PRIO_PROCESS, 0, -15); /* where we may: late is inexact */
    prctl(PR_SET_TIMERSLACK, 1000ul);
    if (guardian)
        return guardian_main(a.run_dir, a.ops);
    struct sigaction action = {.sa_handler = end};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    if (!is_alone(a.run_dir) || !begin(&a))
        return 1;
    mlockall(MCL_CURRENT); /* where we may; not what comes later, which a limit would then refuse us */
    say("ready at %s/arbiter.sock", a.run_dir);
    while (!over) {
        round_of_work(&a);
        sleep_until_next(&a);
    }
    cards_close(&a);
    usage_publish(&a, now_ns());
    a.journal->arbiter_pid = 0;
    return 0;
}
