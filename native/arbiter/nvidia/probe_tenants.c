/* SPDX-License-Identifier: Apache-2.0
 * Tenants of flexai-nvprobe: the groups of processes, stops, and who had the card by the driver's log.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include "probe.h"

#define MAX_RECORDS 4096

struct tenant tenants[MAX_TENANTS];
int n_tenants;
uint64_t card_now_ns;
static uint64_t n_records, n_dropped, n_calls, call_ns, call_max_ns;
static struct { uint32_t pid; uint64_t since_ns; int running; } resident;

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

int find_tenants(char **texts, int n)
{
    for (int i = 0; i < n; i++)
        if (find_tenant(texts[i]))
            return 1;
    return 0;
}

int set_stopped(struct tenant *t, int stopped)
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

int gone(const struct tenant *t)
{
    const struct nv_group *group = t->n_groups ? nv_group_of(card, t->handles[0]) : NULL;
    return !group || nv_machine.process_ended(NULL, card->processes[group->process].pidfd);
}

void resume_all(void)
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
int account(void)
{
    static struct cc_log_record records[MAX_RECORDS];
    int n;
    do {
        uint64_t dropped;
        struct cc_moment told;
        n = nv_log_read(&card->log, &card->rm, card->subdevice, records, MAX_RECORDS, &dropped, &told);
        if (n < 0)
            return n;
        card_now_ns = told.card_ns;
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

void print_summary(const char *name, uint64_t wall_ns)
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

int begin(void)
{
    int error = account();
    if (error)
        return explain("log", error);
    for (int i = 0; i < n_tenants; i++)
        tenants[i].used_ns = tenants[i].n_starts = 0;
    n_records = n_dropped = 0;
    return 0;
}

double mean_call_ns(void)
{
    return (double)call_ns / (double)n_calls;
}
