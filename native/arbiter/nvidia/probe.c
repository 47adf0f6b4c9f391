/* SPDX-License-Identifier: Apache-2.0
 * flexai-nvprobe: what of the outside controls works with this machine's driver, one JSON line per check. `doctor` runs
 * it; its other commands show each control by itself on processes that the caller names.
 *
 *   flexai-nvprobe UUID                                 self-test
 *   flexai-nvprobe UUID find PID                        groups of a process, and what finding them took
 *   flexai-nvprobe UUID watch SECONDS                   who had the card
 *   flexai-nvprobe UUID limit PID MILLI PERIOD_MS SECONDS   duty cycle by stop and resume
 *   flexai-nvprobe UUID turns TURN_MS SECONDS PID:SHARE...  turns in order of card time over share
 *   flexai-nvprobe UUID cost PID N                      what each control call takes
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "card.h"

#define MAX_PIDS 64
static void *card;
static volatile sig_atomic_t ended;

struct tenant { uint32_t pid; double share; uint32_t handle[64]; int n; uint64_t held_ns; double turn; bool stopped; };
static struct tenant tenant[MAX_PIDS];
static int n_tenants;
static uint32_t resident;
static uint64_t since;
static uint64_t n_records, n_dropped;

static double now_s(void) { return (double)nvidia_now_ns() / 1e9; }
static void nap(double s)
{
    struct timespec t = {(time_t)s, (long)((s - (double)(time_t)s) * 1e9)};
    nanosleep(&t, NULL);
}
static void on_signal(int number) { ended = number; }

static void charge(uint64_t until)
{
    for (int i = 0; resident && i < n_tenants; i++)
        if (tenant[i].pid == resident && until > since)
            tenant[i].held_ns += until - since;
    since = until;
}

static void account(void)
{
    static struct cc_log_record record[8192];
    uint64_t dropped = 0, card_now = 0;
    int n = cc_nvidia.read_log(card, record, 8192, &dropped, &card_now);
    for (int i = 0; i < n; i++) {
        charge(record[i].ts_ns > since ? record[i].ts_ns : since);
        resident = record[i].kind == CC_LOG_START ? record[i].pid : 0;
    }
    if (card_now > since)
        charge(card_now);
    n_records += n > 0 ? (uint64_t)n : 0;
    n_dropped += dropped;
}

static int find(struct tenant *t)
{
    struct cc_group group[64];
    double at = now_s();
    int n = cc_nvidia.discover(card, t->pid, group, 64);
    printf("{\"check\": \"find\", \"pid\": %u, \"groups\": %d, \"channels\": %u, \"ms\": %.2f}\n", t->pid, n,
           n > 0 ? group[0].n_channels : 0, (now_s() - at) * 1e3);
    t->n = n < 0 ? 0 : n;
    for (int i = 0; i < t->n; i++)
        t->handle[i] = group[i].handle;
    return n > 0 ? 0 : 1;
}

static void set_stopped(struct tenant *t, bool stopped)
{
    int error = cc_nvidia.stop(card, t->handle, t->n, stopped);
    if (error)
        fprintf(stderr, "stop(%d) of %u: %s\n", stopped, t->pid, strerror(-error));
    t->stopped = stopped;
}

static void report(double took)
{
    double sum = 0;
    for (int i = 0; i < n_tenants; i++)
        sum += (double)tenant[i].held_ns;
    for (int i = 0; i < n_tenants; i++)
        printf("{\"check\": \"held\", \"pid\": %u, \"asked\": %g, \"of_time\": %.5f, \"of_use\": %.5f}\n", tenant[i].pid,
               tenant[i].share, (double)tenant[i].held_ns / 1e9 / took, sum > 0 ? (double)tenant[i].held_ns / sum : 0);
    printf("{\"check\": \"log\", \"seconds\": %.3f, \"records\": %llu, \"dropped\": %llu}\n", took,
           (unsigned long long)n_records, (unsigned long long)n_dropped);
}

static int watch(double seconds)
{
    double began = now_s();
    account();
    for (int i = 0; i < n_tenants; i++)
        tenant[i].held_ns = 0;
    began = now_s();
    while (now_s() - began < seconds && !ended) {
        nap(0.005);
        account();
    }
    report(now_s() - began);
    return 0;
}

static int limit(double milli, double period_ms, double seconds)
{
    struct tenant *t = &tenant[0];
    double began = now_s(), stopped_s = 0;
    long n = 0;
    account();
    t->held_ns = 0;
    while (now_s() - began < seconds && !ended) {
        double start = began + (double)n++ * period_ms / 1e3;
        set_stopped(t, false);
        double on = start + period_ms * milli / 1e6 - now_s();
        if (on > 0)
            nap(on);
        set_stopped(t, true);
        double at = now_s(), off = start + period_ms / 1e3 - at;
        if (off > 0)
            nap(off);
        stopped_s += now_s() - at;
        account();
    }
    double took = now_s() - began;
    set_stopped(t, false);
    t->share = milli / 10;
    printf("{\"check\": \"limit\", \"asked\": %g, \"not_stopped\": %.5f}\n", milli / 1000, 1 - stopped_s / took);
    report(took);
    return 0;
}

static int turns(double turn_ms, double seconds)
{
    double began = now_s();
    int current = -1;
    account();
    for (int i = 0; i < n_tenants; i++)
        tenant[i].held_ns = 0;
    while (now_s() - began < seconds && !ended) {
        int next = 0;
        for (int i = 1; i < n_tenants; i++)
            if ((double)tenant[i].held_ns / tenant[i].share < (double)tenant[next].held_ns / tenant[next].share)
                next = i;
        if (next != current) {
            if (tenant[next].stopped)
                set_stopped(&tenant[next], false);
            for (int i = 0; i < n_tenants; i++)
                if (i != next && !tenant[i].stopped)
                    set_stopped(&tenant[i], true);
            current = next;
        }
        nap(turn_ms / 1e3);
        account();
    }
    double took = now_s() - began;
    for (int i = 0; i < n_tenants; i++)
        set_stopped(&tenant[i], false);
    report(took);
    return 0;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static int cost(int n)
{
    static const char *const NAMES[] = {"set_timeslice", "get_timeslice", "preempt", "stop", "resume", "flush"};
    double ms[6][200];
    n = n > 200 ? 200 : n;
    for (int i = 0; i < n; i++)
        for (int k = 0; k < 6; k++) {
            uint32_t us = 0, handle = tenant[0].handle[0];
            double at = now_s();
            int error = k == 0   ? cc_nvidia.set_timeslice(card, handle, 2000)
                        : k == 1 ? cc_nvidia.get_timeslice(card, handle, &us)
                        : k == 2 ? cc_nvidia.preempt(card, handle)
                        : k == 3 ? cc_nvidia.stop(card, &handle, 1, 1)
                        : k == 4 ? cc_nvidia.stop(card, &handle, 1, 0)
                                 : (account(), 0);
            ms[k][i] = (now_s() - at) * 1e3;
            if (error && !i)
                printf("{\"check\": \"cost\", \"call\": \"%s\", \"error\": \"%s\"}\n", NAMES[k], strerror(-error));
        }
    for (int k = 0; k < 6; k++) {
        qsort(ms[k], (size_t)n, sizeof ms[k][0], by_value);
        printf("{\"check\": \"cost\", \"call\": \"%s\", \"p50_ms\": %.4f, \"p99_ms\": %.4f}\n", NAMES[k], ms[k][n / 2],
               ms[k][n * 99 / 100]);
    }
    return 0;
}

int main(int argc, char **argv)
{
    char why[256] = "";
    if (argc < 2) {
        fprintf(stderr, "usage: flexai-nvprobe UUID [find PID | watch S [PID...] | limit PID MILLI PERIOD_MS S | "
                        "turns TURN_MS S PID:SHARE... | cost PID N]\n");
        return 2;
    }
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    int error = cc_nvidia.open(&card, argv[1], why, sizeof why);
    printf("{\"check\": \"open\", \"ok\": %s, \"detail\": \"%s\"}\n", error ? "false" : "true", why);
    if (error)
        return 1;
    struct cc_capabilities caps;
    error = cc_nvidia.self_test(card, &caps);
    printf("{\"check\": \"self_test\", \"timeslice\": %d, \"stop\": %d, \"preempt\": %d, \"log\": %d, \"discover\": %d, "
           "\"detail\": \"%s\"}\n", caps.timeslice, caps.stop, caps.preempt, caps.log, caps.discover, caps.note);
    const char *command = argc > 2 ? argv[2] : "";
    int first = !strcmp(command, "find") || !strcmp(command, "limit") || !strcmp(command, "cost") ? 3
                : !strcmp(command, "watch") ? 4 : !strcmp(command, "turns") ? 5 : argc;
    bool many = first > 3;
    for (int i = first; i < argc && n_tenants < MAX_PIDS && (many || i == first); i++) {
        struct tenant *t = &tenant[n_tenants++];
        t->share = 1;
        if (sscanf(argv[i], "%u:%lf", &t->pid, &t->share) < 1 || find(t))
            return 1;
    }
    fflush(stdout);
    int result = 0;
    if (!strcmp(command, "watch"))
        result = watch(atof(argv[3]));
    else if (!strcmp(command, "limit") && argc == 7)
        result = limit(atof(argv[4]), atof(argv[5]), atof(argv[6]));
    else if (!strcmp(command, "turns"))
        result = turns(atof(argv[3]), atof(argv[4]));
    else if (!strcmp(command, "cost") && argc == 5)
        result = cost(atoi(argv[4]));
    cc_nvidia.close(card);
    return result;
}
