/* SPDX-License-Identifier: Apache-2.0
 * The process around the core: the agent's socket, tenants' regions and processes, cards, published figures, journal.
 */
#ifndef FLEXAI_ARBITER_IO_H
#define FLEXAI_ARBITER_IO_H
#include <stdbool.h>
#include <stdint.h>
#include "channel_control.h"
#include "core.h"
#include "flexai_arbiter.h"
#include "journal.h"

#define MS 1000000ull
#define MAX_PROCESSES 1024
#define MAX_HANDLES 256 /* of one card */

struct io_grant {
    struct fx_arb_grant asked;
    int card;      /* index, -1 = none */
    int number;    /* of this tenant in the card's core, -1 = none */
    int device;    /* index in the tenant's own numbering, -1 = not in its region */
    uint32_t gate; /* as last written: generation << 1 | open */
    struct ac_usage base; /* what earlier arbiters and backends counted */
};

struct io_tenant {
    char id[FX_TENANT_ID_BYTES]; /* "" = free */
    char job[FX_TENANT_ID_BYTES];
    uint32_t gang;               /* the same number for all tenants of its job */
    char dir[256], cgroup[256];
    uint32_t root_pid;
    bool suspended, synced, frozen;
    char freezer[JOURNAL_FILE_BYTES]; /* of its control group, while that is what freezes it; "" = signals do */
    int n_grants;
    struct io_grant grant[FX_MAX_DEVICES];
    struct fx_policy *policy;    /* mapped; NULL when there is no region */
    uint64_t policy_inode;
    int ledger;                  /* descriptor, -1 */
    const uint32_t *demand;      /* mapped page with the futex word; content is read by calls: the file is the tenant's */
    int n_slots;                 /* slots worth reading */
    uint64_t slots_at, region_at;
    uint64_t last_launches, launched_at;
    uint32_t n_processes;
};

#define WATCHED_THREADS 2

struct io_process {
    uint32_t pid;  /* 0 = free */
    uint64_t start_ticks;
    int pidfd, tenant;
    int thread[WATCHED_THREADS]; /* pidfds of threads beside the first; -1 = none */
    bool seen;
    uint64_t look_at, look_wait_ns;
    uint64_t asked_at, asked_wait_ns; /* looks that the log asked for */
    uint32_t n_asked;
};

struct io_card {
    char uuid[FX_UUID_BYTES]; /* "" = free */
    uint32_t preferred, backend;
    const struct cc_ops *ops; /* NULL: lease, or not open */
    void *cc;
    struct ac_card *core;
    int tenant[AC_MAX_TENANTS]; /* -1 = free */
    struct cc_group known[MAX_HANDLES];
    int n_known;
    int turn_of; /* tenant whose turn was last told, -1 = nobody */
    char note[128];
    uint64_t control_ns, n_control;
    struct { uint64_t n, ns, most_ns; } calls[AC_N_KINDS]; /* of each kind, since the card was opened */
    struct ac_card_usage base;
    uint64_t open_at;  /* when to try again; 0 = not wanted */
    int n_failed;      /* in a row */
};

struct arbiter {
    const char *run_dir;
    const struct cc_ops *ops;
    uint32_t epoch, n_gangs;
    int epoll, timer, listener, agent, demand_event;
    uint64_t processes_at, beat_at;
    struct io_card card[FX_MAX_DEVICES];
    struct io_tenant tenant[FX_MAX_TENANTS];
    struct io_process process[MAX_PROCESSES];
    int n_processes;
    struct journal *journal;
    uint32_t rescues;
    struct fx_usage *usage;
};

enum event_source { EVENT_TIMER = 1, EVENT_LISTENER, EVENT_AGENT, EVENT_DEMAND, EVENT_PROCESS };

uint64_t now_ns(void);
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* cards.c */
int card_named(struct arbiter *a, const char *uuid, uint32_t preferred, bool put);
void card_let_go(struct arbiter *a, int card, const char *reason);
void cards_step(struct arbiter *a);
uint64_t cards_wake(struct arbiter *a, uint64_t now);
int card_discover(struct arbiter *a, int card, int tenant, uint32_t pid); /* groups that it has there */
void card_process_dying(struct arbiter *a, int card, uint32_t pid);
void card_process_gone(struct arbiter *a, int card, uint32_t pid);
void cards_look(struct arbiter *a); /* what is published next shall be of now */
void cards_rescued(struct arbiter *a); /* has the guardian resumed anything? */
void cards_close(struct arbiter *a);
/* acts.c */
int card_carry_out(struct arbiter *a, int card, const struct ac_action *action);
int card_resume(struct arbiter *a, int card, const uint32_t *handles, int n);
void card_count_call(struct io_card *card, enum ac_kind kind, uint64_t ns);
void card_tell_calls(const struct io_card *card); /* what control cost here: the driver's locks were held for so long */
/* tenants.c */
int tenant_named(const struct arbiter *a, const char *id);
bool tenant_put(struct arbiter *a, const struct fx_arb_message *m, char *why, size_t n_why);
void tenant_gone(struct arbiter *a, int tenant);
void tenant_suspend(struct arbiter *a, int tenant, bool suspended);
void tenant_attach(struct arbiter *a, int tenant, int card);
void tenant_detach(struct arbiter *a, int tenant, int card);
void tenants_beat(struct arbiter *a, uint64_t now);
/* gates.c */
void gates_look(struct arbiter *a, uint64_t now);
void gate_set(struct arbiter *a, struct io_card *card, int number, bool open);
void gate_window(struct arbiter *a, struct io_card *card, int number, uint32_t us);
void gates_reset(struct io_tenant *t, struct io_grant *g, uint32_t backend, uint32_t epoch);
/* demand.c */
bool demand_start(struct arbiter *a);
void demand_watch(const struct arbiter *a); /* the set of tenants changed */
/* processes.c */
void processes_scan(struct arbiter *a, uint64_t now);
void processes_freeze(struct arbiter *a, int tenant, bool frozen);
void processes_gone(struct arbiter *a);
void processes_of_tenant_gone(struct arbiter *a, int tenant);
int process_tenant(const struct arbiter *a, uint32_t pid);
void process_look(struct arbiter *a, int card, uint32_t pid, bool at_once);
/* agent.c */
bool agent_listen(struct arbiter *a);
void agent_accept(struct arbiter *a);
void agent_read(struct arbiter *a);
/* usage.c */
bool usage_open(struct arbiter *a);
void usage_base(struct arbiter *a, const struct io_tenant *t, struct io_grant *g);
void usage_base_card(struct io_card *card);
/* What a core counted is added to the base before it goes. */
void usage_keep_grant(struct arbiter *a, struct io_grant *g);
void usage_keep_card(struct io_card *card);
void usage_publish(struct arbiter *a, uint64_t now);
/* timeline.c; false: there is no room for it, and nothing is told */
bool timeline_open(const struct arbiter *a);
void timeline_began(const struct arbiter *a, uint64_t now);
void timeline_log(const struct arbiter *a, int card, const struct cc_log_record *records, int n, uint64_t dropped,
                  struct cc_moment told);
void timeline_stops(const struct arbiter *a, int card, const uint32_t *handles, int n, bool stopped, uint64_t now);
void timeline_slice(const struct arbiter *a, int card, uint32_t handle, uint32_t us, uint64_t now);
void timeline_found(const struct arbiter *a, int card, int tenant, const struct cc_group *group, uint64_t now);
void timeline_gate(const struct arbiter *a, int card, int tenant, bool open, uint64_t now);
void timeline_turn(const struct arbiter *a, int card, int tenant, uint64_t now);
#endif
