/* SPDX-License-Identifier: Apache-2.0
 * flexai-simcard: owns the model of this machine's simulated cards and shares it with every process. One thread; sleeps
 * until the next moment that somebody waits for. Late wake-ups lose no card time: the model is exact at any step.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include "daemon.h"
#include "order.h"

#define REFRESH_NS 50000000ull /* while work runs that nobody waits for, rings are brought up to date so often */

static uint64_t clock_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

static int usage(void)
{
    fprintf(stderr, "usage: flexai-simcard --socket PATH --cards h200:2[,a100:1...] [--context-mib N] [--context-ms N]\n"
                    "         a context takes so much memory and so long; 64 MiB and no time unless said\n"
                    "       flexai-simcard --socket PATH COMMAND    of a running one:\n"
                    "  show                      cards, figures and processes, a JSON object a line\n"
                    "  fail CARD [XID]           the card falls off the bus (79) or fails otherwise; contexts are lost\n"
                    "  recover CARD              it is good again\n"
                    "  refuse CALL ERRNO N       the next N control calls fail: timeslice stop resume preempt flush\n"
                    "                            park unpark\n"
                    "  place CARD BYTES PID      host memory of a program lands on the card, in nobody's account (HMM)\n"
                    "  undo CARD PID             a program resumes itself, as the real driver lets it\n"
                    "  lose-log CARD N           the next N records of the context-switch log are dropped\n");
    return 2;
}

/* A socket file left by one that was killed is replaced; a living one is an error. */
static int listen_at(const char *path)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof at.sun_path) {
        fprintf(stderr, "flexai-simcard: --socket %s: longer than %zu characters; choose a shorter --run-dir\n", path,
                sizeof at.sun_path - 1);
        return -1;
    }
    strcpy(at.sun_path, path);
    char lock[sizeof at.sun_path + 8];
    snprintf(lock, sizeof lock, "%s.lock", path);
    int held = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (held < 0 || flock(held, LOCK_EX | LOCK_NB) != 0) {
        fprintf(stderr, "flexai-simcard: %s: %s; another one runs there\n", lock, strerror(errno));
        return -1;
    }
    unlink(path);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof at) != 0 || listen(fd, 128) != 0) {
        fprintf(stderr, "flexai-simcard: %s: %s\n", path, strerror(errno));
        return -1;
    }
    chmod(path, 0666); /* any user's program may use a card; what only the owner may do is checked by request */
    return fd;
}

static void arm(int timer, struct sm_model *m)
{
    uint64_t at = sm_next_wake(m), refresh = sm_now(m) + REFRESH_NS;
    if (sm_busy(m) && at > refresh)
        at = refresh;
    struct itimerspec t = {0};
    if (at != SM_NEVER) {
        t.it_value.tv_sec = (time_t)(at / 1000000000ull);
        t.it_value.tv_nsec = (long)(at % 1000000000ull);
    }
    timerfd_settime(timer, TFD_TIMER_ABSTIME, &t, NULL);
}

int main(int argc, char **argv)
{
    const char *path = NULL, *cards = NULL;
    unsigned long context_mib = 0, context_ms = 0;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--socket") && i + 1 < argc)
            path = argv[++i];
        else if (!strcmp(argv[i], "--cards") && i + 1 < argc)
            cards = argv[++i];
        else if (!strcmp(argv[i], "--context-mib") && i + 1 < argc)
            context_mib = strtoul(argv[++i], NULL, 10);
        else if (!strcmp(argv[i], "--context-ms") && i + 1 < argc)
            context_ms = strtoul(argv[++i], NULL, 10);
        else if (argv[i][0] != '-' && path && !cards) {
            int status = order(path, argc - i, argv + i);
            return status == 2 ? usage() : status;
        } else
            return usage();
    }
    if (!path || !cards)
        return usage();
    signal(SIGPIPE, SIG_IGN);
    struct sm_model *m = sm_new(clock_ns());
    if (!m || sm_add_cards(m, cards) <= 0) {
        fprintf(stderr, "flexai-simcard: --cards %s: not MODEL:COUNT[,...]; models are", cards);
        const struct sm_card_spec *spec;
        for (size_t i = 0; (spec = sm_card_spec_at(i)); i++)
            fprintf(stderr, " %s", spec->name);
        fprintf(stderr, "\n");
        return 2;
    }
    sm_set_contexts(m, (uint64_t)context_mib << 20, context_ms * 1000000ull);
    int listener = listen_at(path);
    if (listener < 0)
        return 2;
    int poll = epoll_create1(EPOLL_CLOEXEC);
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct epoll_event in = {.events = EPOLLIN, .data.ptr = NULL}, tick = {.events = EPOLLIN, .data.ptr = &timer};
    if (poll < 0 || timer < 0 || epoll_ctl(poll, EPOLL_CTL_ADD, listener, &in) != 0 ||
        epoll_ctl(poll, EPOLL_CTL_ADD, timer, &tick) != 0) {
        fprintf(stderr, "flexai-simcard: %s\n", strerror(errno));
        return 1;
    }
    struct server server = {.model = m, .poll = poll};
    server_start(&server);
    printf("flexai-simcard: %d simulated cards (%s) at %s\n", sm_n_cards(m), cards, path);
    fflush(stdout);
    for (;;) {
        struct epoll_event events[64];
        int n = epoll_wait(poll, events, 64, -1);
        if (n < 0 && errno != EINTR)
            return 1;
        sm_advance(m, clock_ns());
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr == NULL)
                server_accept(&server, listener);
            else if (events[i].data.ptr == &timer) {
                uint64_t expired;
                if (read(timer, &expired, sizeof expired) < 0 && errno != EAGAIN)
                    return 1;
            } else if (events[i].data.u64 & EVENT_OF_CLIENT)
                server_client_died(&server, (struct client *)(uintptr_t)(events[i].data.u64 & ~(uint64_t)EVENT_OF_CLIENT));
            else
                server_read(&server, events[i].data.ptr);
        }
        server_sweep(&server);
        arm(timer, m);
    }
}
