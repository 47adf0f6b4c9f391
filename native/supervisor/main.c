/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define KILL_AGAIN_MS 200

struct supervisor {
    struct sv_options options;
    struct sv_log log;
    struct sv_ending ending;
    pid_t child;
    int signals, output, report;
    bool child_gone, over_time;
    int64_t kill_at_ms;  /* monotonic; 0 = not decided */
    int64_t limit_at_ms; /* monotonic; 0 = none */
};

static int64_t clock_ms(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void say(const char *line) {
    /* The agent may be gone: nobody to tell, and nothing lost. */
    if (write(STDOUT_FILENO, line, strlen(line)) < 0)
        return;
}

/* Output of the command into the log, as much as there is now. */
static void drain(struct supervisor *s) {
    char bytes[65536];
    for (;;) {
        ssize_t n = read(s->output, bytes, sizeof bytes);
        if (n > 0) {
            sv_log_write(&s->log, bytes, (size_t)n);
        } else if (n < 0 && errno == EINTR) {
            continue;
        } else {
            if (n == 0) {
                close(s->output);
                s->output = -1;
            }
            return;
        }
    }
}

static void take_report(struct supervisor *s) {
    struct sv_failure failure;
    if (read(s->report, &failure, sizeof failure) == (ssize_t)sizeof failure) {
        s->ending.has_code = true;
        s->ending.code = sv_failure_describe(&s->options, &failure, s->ending.cause);
        sv_log_write(&s->log, s->ending.cause, strlen(s->ending.cause));
        sv_log_write(&s->log, "\n", 1);
    }
    close(s->report);
    s->report = -1;
}

/* Returns false when no descendant is left. */
static bool reap(struct supervisor *s) {
    for (;;) {
        int status = 0;
        pid_t pid = waitpid(-1, &status, WNOHANG);
        if (pid == 0 || (pid < 0 && errno == EINTR))
            return true;
        if (pid < 0)
            return false;
        if (pid != s->child)
            continue;
        s->child_gone = true;
        if (s->report >= 0)
            take_report(s);
        if (s->ending.cause[0])
            continue; /* it never became the command */
        if (WIFSIGNALED(status)) {
            s->ending.signal = WTERMSIG(status);
            snprintf(s->ending.cause, sizeof s->ending.cause, "signal %d", s->ending.signal);
        } else {
            s->ending.has_code = true;
            s->ending.code = WEXITSTATUS(status);
            snprintf(s->ending.cause, sizeof s->ending.cause, "exited");
        }
    }
}

static void take_signals(struct supervisor *s) {
    struct signalfd_siginfo info;
    while (read(s->signals, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo == SIGCHLD)
            continue;
        /* To everything the job runs: a shell that waits for its child does not pass signals on. */
        sv_descendants_signal(&s->options, (int)info.ssi_signo);
    }
}

static void check_time(struct supervisor *s, int64_t now_ms) {
    if (s->limit_at_ms && !s->over_time && now_ms >= s->limit_at_ms) {
        s->over_time = true;
        s->kill_at_ms = now_ms + s->options.grace_ms;
        sv_descendants_signal(&s->options, SIGTERM);
    }
    if (s->kill_at_ms && now_ms >= s->kill_at_ms) {
        sv_descendants_signal(&s->options, SIGKILL);
        s->kill_at_ms = now_ms + KILL_AGAIN_MS; /* something may have forked meanwhile */
    }
}

static int wait_ms(const struct supervisor *s, int64_t now_ms) {
    int64_t at_ms = s->kill_at_ms ? s->kill_at_ms : s->over_time ? 0 : s->limit_at_ms;
    if (!at_ms)
        return -1;
    int64_t left_ms = at_ms > now_ms ? at_ms - now_ms : 0;
    return left_ms > 3600000 ? 3600000 : (int)left_ms;
}

static void watch(struct supervisor *s) {
    for (;;) {
        struct pollfd polled[3] = {{s->signals, POLLIN, 0}, {s->output, POLLIN, 0}, {s->report, POLLIN, 0}};
        poll(polled, 3, wait_ms(s, clock_ms(CLOCK_MONOTONIC)));
        if (s->output >= 0 && polled[1].revents)
            drain(s);
        if (s->report >= 0 && polled[2].revents)
            take_report(s);
        take_signals(s);
        if (!reap(s))
            break;
        check_time(s, clock_ms(CLOCK_MONOTONIC));
    }
    if (s->output >= 0)
        drain(s);
}

static int finish(struct supervisor *s) {
    char why[SV_MESSAGE_BYTES];
    struct rusage usage;
    getrusage(RUSAGE_CHILDREN, &usage);
    s->ending.user_ms = (int64_t)usage.ru_utime.tv_sec * 1000 + usage.ru_utime.tv_usec / 1000;
    s->ending.system_ms = (int64_t)usage.ru_stime.tv_sec * 1000 + usage.ru_stime.tv_usec / 1000;
    s->ending.max_rss_kib = usage.ru_maxrss;
    s->ending.finished_at_ms = clock_ms(CLOCK_REALTIME);
    if (s->over_time)
        snprintf(s->ending.cause, sizeof s->ending.cause, "time limit");
    if (s->log.fd >= 0)
        fsync(s->log.fd);
    /* The record is what the job's end is known by; a full disk may get room again. */
    for (int attempt = 0; !sv_record_write(s->options.exit_file, &s->ending, why); attempt++) {
        if (attempt == 60)
            return 1;
        sleep(1);
    }
    return 0;
}

/* The token is ours and the command cannot be started: that is its end. */
static int give_up(struct supervisor *s, const char *why) {
    s->ending.has_code = true;
    s->ending.code = SV_EXIT_CANNOT_RUN;
    snprintf(s->ending.cause, sizeof s->ending.cause, "%s", why);
    return finish(s);
}

static void let_go_of_the_agent(void) {
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    dup2(null, 0);
    dup2(null, 1);
    dup2(null, 2);
    if (null > 2)
        close(null);
}

int main(int argc, char **argv) {
    static struct supervisor s = {.signals = -1, .output = -1, .report = -1};
    char why[SV_MESSAGE_BYTES] = "", line[SV_MESSAGE_BYTES + 16];
    if (!sv_options_parse(argc, argv, &s.options, why)) {
        snprintf(line, sizeof line, "failed %s\n", why);
        say(line);
        return 2;
    }
    umask(022);
    setsid();
    signal(SIGPIPE, SIG_IGN);
    sigset_t handled;
    sigemptyset(&handled);
    const int numbers[] = {SIGCHLD, SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGCONT, SIGWINCH};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        sigaddset(&handled, numbers[i]);
    sigprocmask(SIG_BLOCK, &handled, NULL);
    s.signals = signalfd(-1, &handled, SFD_CLOEXEC | SFD_NONBLOCK);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    prctl(PR_SET_DUMPABLE, 0);

    enum sv_token token = SV_TOKEN_ERROR;
    if (sv_join(s.options.self_join, s.options.n_self_join, why))
        token = sv_token_take(s.options.token_file, why);
    if (token != SV_TOKEN_TAKEN) {
        snprintf(line, sizeof line, token == SV_TOKEN_USED ? "used\n" : "failed %s\n", why);
        say(line);
        return token == SV_TOKEN_USED ? SV_EXIT_TOKEN_USED : 1;
    }
    s.ending.started_at_ms = clock_ms(CLOCK_REALTIME);
    snprintf(line, sizeof line, "began %d %" PRIu64 "\n", getpid(), sv_start_ticks(getpid()));

    char **environment = s.options.env_file ? sv_environment_read(s.options.env_file, why) : (char *[]){NULL};
    s.log.fd = -1;
    int output[2];
    if (!environment || !sv_log_open(&s.log, &s.options, why)) {
        say(line);
        return give_up(&s, why);
    }
    if (pipe2(output, O_CLOEXEC) || fcntl(output[0], F_SETFL, O_NONBLOCK)) {
        say(line);
        return give_up(&s, "cannot start: no pipe");
    }
    s.output = output[0];
    s.child = sv_child_start(&s.options, environment, output[1], &s.report);
    close(output[1]);
    say(line);
    let_go_of_the_agent();
    if (s.child < 0)
        return give_up(&s, "cannot start: no more processes");
    if (s.options.time_limit_ms)
        s.limit_at_ms = clock_ms(CLOCK_MONOTONIC) + s.options.time_limit_ms;
    watch(&s);
    return finish(&s);
}
