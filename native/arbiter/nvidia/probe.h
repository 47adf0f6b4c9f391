/* SPDX-License-Identifier: Apache-2.0
 * What the commands of flexai-nvprobe share.
 */
#ifndef FLEXAI_NVIDIA_PROBE_H
#define FLEXAI_NVIDIA_PROBE_H
#include <signal.h>
#include <time.h>
#include "nvidia.h"

#define MAX_TENANTS 16
#define MAX_TENANT_GROUPS 16

struct tenant {
    uint32_t pid;
    double weight;
    uint32_t handles[MAX_TENANT_GROUPS];
    int n_groups, stopped;
    uint64_t used_ns, n_starts;
};

extern struct nv_card *card;
extern volatile sig_atomic_t ending; /* a signal came */
extern struct tenant tenants[MAX_TENANTS];
extern int n_tenants;
extern uint64_t card_now_ns; /* the card's clock when its log was read last */

static inline uint64_t now(void)
{
    return nv_machine.now_ns(NULL);
}

static inline void sleep_ns(int64_t ns)
{
    if (ns <= 0)
        return;
    struct timespec t = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
    nanosleep(&t, NULL);
}

/* Says what failed, and why; answers the exit status. */
int explain(const char *what, int error);

/* probe_tenants.c: 0 or the exit status of what was said, of find_tenants and begin; else 0 or -errno. */
int find_tenants(char **texts, int n); /* each PID or PID:WEIGHT */
int set_stopped(struct tenant *t, int stopped);
int gone(const struct tenant *t);
void resume_all(void);
int account(void);
int begin(void); /* accounts from now on */
void print_summary(const char *name, uint64_t wall_ns);
double mean_call_ns(void); /* of set_stopped, which was called before */

/* The commands; each answers the exit status. */
int probe_watch(double seconds);
int probe_limit(double percent, double seconds, double period_ms);
int probe_share(double seconds, double turn_ms);
int probe_calls(int rounds);
int probe_slices(const char *text);
int memory_command(const char *wanted);
#endif
