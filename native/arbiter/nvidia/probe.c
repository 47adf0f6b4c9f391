/* SPDX-License-Identifier: Apache-2.0
 *
 * flexai-nvprobe: what NVIDIA's controls do on this machine, one JSON object a line, for `flexai doctor` and for people;
 * and the smallest policies over them (watch, limit, share), a proof of the controls that owes nothing to the arbiter.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include "probe.h"

#define MAX_TENANTS 16
#define MAX_TENANT_GROUPS 16
#define MAX_RECORDS 4096

struct tenant {
    uint32_t pid;
    double weight;
    uint32_t handles[MAX_TENANT_GROUPS];
    int n_groups, stopped;
    uint64_t used_ns, n_starts;
};
struct nv_card *card;
static struct tenant tenants[MAX_TENANTS];
static int n_tenants;
static uint64_t n_records, n_dropped, n_calls, call_ns, call_max_ns, card_now_ns;
static struct { uint32_t pid; uint64_t since_ns; int running; } resident;
volatile sig_atomic_t ending;

static void on_signal(int number) { (void)number; ending = 1; }

static void sleep_ns(int64_t ns)
{
    if (ns <= 0)
        return;
    struct timespec t = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
    nanosleep(&t, NULL);
}

int explain(const char *what, int error)
{
    fprintf(stderr, "flexai-nvprobe: %s: %s (driver status 0x%x)\n", what, strerror(-error), card ? card->rm.status : 0);
    return 1;
}

static int open_card(const char *wanted)
{
    char why[160];
    if (!nv_open(&nv_machine, &card, wanted, why, sizeof why))
        return 0;
    fprintf(stderr, "flexai-nvprobe: %s: %s\n", wanted[0] ? wanted : "first card", why);
    return 1;
}

static void print_text(const char *text)
{
    for (; *text; text++)
        if (*text == '"' || *text == '\\')
            printf("\\%c", *text);
        else if ((unsigned char)*text >= 0x20)
            putchar(*text);
}

static int check_card(const char *wanted)
{
    if (open_card(wanted))
        return 1;
    struct cc_capabilities caps;
    struct nv_check checks[16];
    int n = nv_self_test(card, &caps, checks, 16), failed = 0;
    for (int i = 0; i < n; i++) {
        printf("{\"card\":\"%s\",\"check\":\"%s\",\"ok\":%s,\"us\":%.1f,\"status\":%u,\"note\":\"", card->uuid, checks[i].name,
               checks[i].error ? "false" : "true", (double)checks[i].cost_ns / 1e3, checks[i].status);
        print_text(checks[i].note);
        printf("\"}\n");
        failed |= checks[i].error != 0;
    }
    printf("{\"card\":\"%s\",\"check\":\"capabilities\",\"ok\":%s,\"timeslice\":%d,\"stop\":%d,\"preempt\":%d,\"log\":%d,"
           "\"discover\":%d,\"clock\":\"%s\"}\n", card->uuid, failed ? "false" : "true", caps.timeslice, caps.stop,
           caps.preempt, caps.log, caps.discover, card->log.clock_is_guessed ? "guessed from records" : "card");
    nv_close(card);
    card = NULL;
    return failed;
}

static int check_all(const char *wanted)
{
    if (wanted[0])
        return check_card(wanted);
    struct nv_card_file files[NV_MAX_CARDS];
    int n = nv_machine.cards(NULL, files, NV_MAX_CARDS), failed = n <= 0;
    if (failed)
        fprintf(stderr, "flexai-nvprobe: no NVIDIA card: /proc/driver/nvidia/gpus is missing or empty\n");
    for (int i = 0; i < n; i++)
        failed |= check_card(files[i].uuid);
    return failed;
}

/* ---- tenants ---- */

static int find_tenant(const char *text)
{
    struct tenant *t = &tenants[n_tenants];
    char *end;
    t->pid = (uint32_t)strtoul(text, &end, 10);
    t->weight = *end == ':' ? strtod(end + 1, NULL) : 1;
    if (n_tenants == MAX_TENANTS || !t->pid || !(t->weight > 0)) {
        fprintf(stderr, "flexai-nvprobe: %s: expected PID or PID:WEIGHT, at most %d\n", text, MAX_TENANTS);
        return 1;
    }
    struct cc_group groups[MAX_TENANT_GROUPS];
    uint64_t guesses = card->n_guesses, began = now();
    int n = nv_discover(card, t->pid, groups, MAX_TENANT_GROUPS);
    if (n < 0)
        return explain(text, n);
    printf("{\"pid\":%u,\"groups\":%d,\"guesses\":%llu,\"ms\":%.2f,\"channels\":[", t->pid, n,
           (unsigned long long)(card->n_guesses - guesses), (double)(now() - began) / 1e6);
    for (int i = 0; i < n; i++) {
        printf("%s%u", i ? "," : "", groups[i].n_channels);
        t->handles[i] = groups[i].handle;
    }
    const struct nv_group *first = n ? nv_group_of(card, groups[0].handle) : NULL;
    const struct nv_process *process = first ? &card->processes[first->process] : NULL;
    for (int i = 0; process && i < process->n_clients; i++)
        printf("%s%u", i ? "," : "],\"objects_end\":[", process->clients[i]->end);
    began = now();
    nv_discover(card, t->pid, groups, MAX_TENANT_GROUPS);
    printf("],\"again_ms\":%.2f}\n", (double)(now() - began) / 1e6);
    t->n_groups = n;
    n_tenants++;
    return 0;
}

static int find_tenants(char **texts, int n)
{
    for (int i = 0; i < n; i++)
        if (find_tenant(texts[i]))
            return 1;
    return 0;
}

static int set_stopped(struct tenant *t, int stopped)
{
    uint64_t began = now();
    int error = nv_stop(card, t->handles, t->n_groups, stopped);
    uint64_t took = now() - began;
    n_calls++;
    call_ns += took;
    call_max_ns = took > call_max_ns ? took : call_max_ns;
    t->stopped = stopped;
    return error;
}

static int gone(const struct tenant *t)
{
    const struct nv_group *group = t->n_groups ? nv_group_of(card, t->handles[0]) : NULL;
    return !group || nv_machine.process_ended(NULL, card->processes[group->process].pidfd);
}

static void resume_all(void)
{
    for (int i = 0; i < n_tenants; i++)
        if (tenants[i].stopped)
            set_stopped(&tenants[i], 0);
}

static struct tenant *tenant_of(uint32_t pid)
{
    for (int i = 0; i < n_tenants; i++)
        if (tenants[i].pid == pid)
            return &tenants[i];
    if (n_tenants == MAX_TENANTS)
        return NULL;
    tenants[n_tenants] = (struct tenant){.pid = pid};
    return &tenants[n_tenants++];
}

static void charge(uint64_t until_ns)
{
    struct tenant *t = resident.running ? tenant_of(resident.pid) : NULL;
    if (t && until_ns > resident.since_ns)
        t->used_ns += until_ns - resident.since_ns;
    if (until_ns > resident.since_ns)
        resident.since_ns = until_ns;
}

/* Read the log to its end and charge card time, an open interval up to the card's present. */
static int account(void)
{
    static struct cc_log_record records[MAX_RECORDS];
    int n;
    do {
        uint64_t dropped;
        n = nv_log_read(&card->log, &card->rm, card->subdevice, records, MAX_RECORDS, &dropped, &card_now_ns);
        if (n < 0)
            return n;
        n_records += (uint64_t)n;
        n_dropped += dropped;
        for (int i = 0; i < n; i++) {
            charge(records[i].ts_ns); /* whatever ran has left: any record closes the interval */
            resident.running = records[i].kind == CC_LOG_START;
            if (resident.running) {
                resident.pid = records[i].pid;
                resident.since_ns = records[i].ts_ns;
                struct tenant *t = tenant_of(resident.pid);
                if (t)
                    t->n_starts++;
            }
        }
    } while (n == MAX_RECORDS);
    charge(card_now_ns);
    return 0;
}

static double cpu_ms(void)
{
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1e3 +
           (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e3;
}

static void print_summary(const char *name, uint64_t wall_ns)
{
    uint64_t sum = 0;
    for (int i = 0; i < n_tenants; i++)
        sum += tenants[i].used_ns;
    printf("{\"run\":\"%s\",\"wall_ms\":%.1f,\"used_percent\":%.3f,\"records\":%llu,\"dropped\":%llu,\"calls\":%llu,"
           "\"call_mean_us\":%.1f,\"call_max_us\":%.1f,\"cpu_ms\":%.1f,\"tenants\":[", name, (double)wall_ns / 1e6,
           100.0 * (double)sum / (double)wall_ns, (unsigned long long)n_records, (unsigned long long)n_dropped,
           (unsigned long long)n_calls, n_calls ? (double)call_ns / (double)n_calls / 1e3 : 0.0,
           (double)call_max_ns / 1e3, cpu_ms());
    for (int i = 0; i < n_tenants; i++)
        printf("%s{\"pid\":%u,\"percent_of_time\":%.3f,\"percent_of_use\":%.3f,\"starts\":%llu}", i ? "," : "",
               tenants[i].pid, 100.0 * (double)tenants[i].used_ns / (double)wall_ns,
               sum ? 100.0 * (double)tenants[i].used_ns / (double)sum : 0.0, (unsigned long long)tenants[i].n_starts);
    printf("]}\n");
}

static int begin(void)
{
    int error = account();
    if (error)
        return explain("log", error);
    for (int i = 0; i < n_tenants; i++)
        tenants[i].used_ns = tenants[i].n_starts = 0;
    n_records = n_dropped = 0;
    return 0;
}

static int watch(double seconds)
{
    if (begin())
        return 1;
    uint64_t began = now(), end = began + (uint64_t)(seconds * 1e9), card_began = card_now_ns;
    int error = 0;
    while (!error && !ending && now() < end) {
        sleep_ns(20000000);
        error = account();
    }
    print_summary("watch", card_now_ns - card_began);
    return error ? explain("log", error) : 0;
}

/* A tenant's card time held to a part of the clock's: its next window is what it may have by the window's end, less
 * what it has had. */
static int limit(double percent, double seconds, double period_ms)
{
    struct tenant *t = &tenants[0];
    if (set_stopped(t, 1) || begin())
        return explain("stop", -EIO);
    uint64_t began = now(), end = began + (uint64_t)(seconds * 1e9), card_began = card_now_ns;
    double period_ns = period_ms * 1e6, part = percent / 100;
    int error = 0;
    while (!error && !ending && now() < end) {
        uint64_t turn = now();
        double elapsed = (double)(card_now_ns - card_began);
        double window = part * (elapsed + period_ns) - (double)t->used_ns;
        window = window < 0 ? 0 : window > period_ns ? period_ns : window;
        if (window > 0) {
            error = set_stopped(t, 0);
            /* A stop takes effect near the call's end: what calls cost has been learnt. */
            sleep_ns((int64_t)(window - (double)call_ns / (double)n_calls));
            int failed = set_stopped(t, 1);
            error = error ? error : failed;
        }
        sleep_ns((int64_t)(period_ns - (double)(now() - turn)));
        int failed = account();
        error = error ? error : failed;
    }
    uint64_t wall = card_now_ns - card_began;
    resume_all();
    print_summary("limit", wall);
    return error ? explain("limit", error) : 0;
}

/* One runnable at a time, the next the one with the least card time for its weight; the next is resumed before the last
 * is stopped, so that the card never waits for us. */
static int share(double seconds, double turn_ms)
{
    int n = n_tenants;
    for (int i = 0; i < n; i++)
        if (set_stopped(&tenants[i], 1))
            return explain("stop", -EIO);
    if (begin())
        return 1;
    uint64_t began = now(), end = began + (uint64_t)(seconds * 1e9), card_began = card_now_ns;
    struct tenant *current = NULL;
    int error = 0;
    while (!error && !ending && now() < end) {
        struct tenant *next = NULL;
        for (int i = 0; i < n; i++)
            if (!gone(&tenants[i]) &&
                (!next || (double)tenants[i].used_ns / tenants[i].weight < (double)next->used_ns / next->weight))
                next = &tenants[i];
        if (!next)
            break;
        if (next != current) {
            error = set_stopped(next, 0);
            if (!error && current)
                error = set_stopped(current, 1);
            current = next;
        }
        sleep_ns((int64_t)(turn_ms * 1e6));
        int failed = account();
        error = error ? error : failed;
    }
    uint64_t wall = card_now_ns - card_began;
    resume_all();
    print_summary("share", wall);
    return error ? explain("share", error) : 0;
}

/* ---- what calls cost ---- */

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static int time_calls(int rounds)
{
    static uint64_t took[10000];
    static const char *const names[] = {"set_timeslice", "get_timeslice", "preempt", "stop", "resume", "read_log"};
    struct tenant *t = &tenants[0];
    rounds = rounds > 10000 ? 10000 : rounds;
    for (int which = 0; which < 6; which++) {
        int error = 0;
        for (int i = 0; i < rounds && !error; i++) {
            uint32_t us;
            if (which == 4)
                error = nv_stop(card, t->handles, t->n_groups, 1);
            uint64_t began = now();
            switch (which) {
            case 0: error = nv_set_timeslice(card, t->handles[0], 2000); break;
            case 1: error = nv_get_timeslice(card, t->handles[0], &us); break;
            case 2: error = nv_preempt(card, t->handles[0]); break;
            case 3: error = nv_stop(card, t->handles, t->n_groups, 1); break;
            case 4: error = nv_stop(card, t->handles, t->n_groups, 0); break;
            default: error = account(); break;
            }
            took[i] = now() - began;
            if (which == 3)
                nv_stop(card, t->handles, t->n_groups, 0);
            sleep_ns(2000000);
        }
        if (error)
            return explain(names[which], error);
        qsort(took, (size_t)rounds, sizeof *took, by_value);
        printf("{\"call\":\"%s\",\"n\":%d,\"p50_us\":%.1f,\"p99_us\":%.1f,\"max_us\":%.1f}\n", names[which], rounds,
               (double)took[rounds / 2] / 1e3, (double)took[rounds * 99 / 100] / 1e3, (double)took[rounds - 1] / 1e3);
    }
    return 0;
}

static int slices(const char *text)
{
    for (int i = 0; i < n_tenants; i++)
        for (int g = 0; g < tenants[i].n_groups; g++) {
            uint32_t us = 0, asked = text ? (uint32_t)strtoul(text, NULL, 10) : 0;
            int error = asked ? nv_set_timeslice(card, tenants[i].handles[g], asked) : 0;
            if (!error)
                error = nv_get_timeslice(card, tenants[i].handles[g], &us);
            if (error)
                return explain("time slice", error);
            printf("{\"pid\":%u,\"group\":%d,\"timeslice_us\":%u}\n", tenants[i].pid, g, us);
        }
    return 0;
}

static int usage(void)
{
    fprintf(stderr,
            "usage: flexai-nvprobe [--card UUID] [check]            try every control; one JSON object a line\n"
            "       flexai-nvprobe discover PID...                  the process's compute groups\n"
            "       flexai-nvprobe watch SECONDS                    who had the card, by the driver's log\n"
            "       flexai-nvprobe limit PID PERCENT SECONDS [PERIOD_MS]\n"
            "       flexai-nvprobe share SECONDS TURN_MS PID:WEIGHT...\n"
            "       flexai-nvprobe stop PID... | resume PID...      a stop lasts until resumed\n"
            "       flexai-nvprobe timeslice PID [US]               read, or set and read\n"
            "       flexai-nvprobe calls PID [N]                    what each control costs\n"
            "       flexai-nvprobe memory                           the card's free memory until the end of input\n");
    return 2;
}

static int command(int n, char **words)
{
    const char *name = words[0];
    if (!strcmp(name, "watch") && n == 2)
        return watch(atof(words[1]));
    if (!strcmp(name, "discover") && n >= 2)
        return find_tenants(words + 1, n - 1);
    if (!strcmp(name, "limit") && n >= 4)
        return find_tenants(words + 1, 1) || limit(atof(words[2]), atof(words[3]), n > 4 ? atof(words[4]) : 30);
    if (!strcmp(name, "share") && n >= 4)
        return find_tenants(words + 3, n - 3) || share(atof(words[1]), atof(words[2]));
    if (!strcmp(name, "timeslice") && n >= 2)
        return find_tenants(words + 1, 1) || slices(n > 2 ? words[2] : NULL);
    if (!strcmp(name, "calls") && n >= 2)
        return find_tenants(words + 1, 1) || time_calls(n > 2 ? atoi(words[2]) : 200);
    if ((!strcmp(name, "stop") || !strcmp(name, "resume")) && n >= 2) {
        if (find_tenants(words + 1, n - 1))
            return 1;
        for (int i = 0; i < n_tenants; i++) {
            int error = set_stopped(&tenants[i], name[0] == 's');
            if (error)
                return explain(name, error);
        }
        return 0;
    }
    return usage();
}

int main(int n, char **words)
{
    const char *wanted = "";
    n--, words++;
    if (n >= 2 && !strcmp(words[0], "--card")) {
        wanted = words[1];
        n -= 2, words += 2;
    }
    if (n == 0 || !strcmp(words[0], "check"))
        return check_all(wanted);
    if (words[0][0] == '-')
        return usage();
    setvbuf(stdout, NULL, _IOLBF, 0);
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    if (n == 1 && !strcmp(words[0], "memory"))
        return memory_command(wanted);
    if (open_card(wanted))
        return 1;
    int rc = command(n, words);
    nv_close(card);
    return rc;
}
