/* SPDX-License-Identifier: Apache-2.0
 * What the parts of the core share. Nothing outside of core/ includes this.
 */
#ifndef FLEXAI_ARBITER_STATE_H
#define FLEXAI_ARBITER_STATE_H
#include "core.h"

#define US 1000ull
#define MS 1000000ull

struct tenant {
    bool used, suspended;
    uint32_t request_milli, limit_milli;
    enum fx_class class;
    int64_t vt;             /* card time over request, in ns of a tenant of 1000 */
    bool wants;             /* has work, as far as we know */
    uint64_t idle_since;    /* when it last had none */
    int n_groups;
    /* The limit: card time left; and for a latency tenant, card time left in which it goes first. */
    int64_t tokens_ns, priority_ns;
    bool throttled, spent;
    /* Decided: */
    bool prior, candidate, stop_want;
    uint32_t slice_want_us;
    uint64_t retry_at;      /* a resume failed: not before */
    uint64_t retry_ns;
    /* hwslice: what the log shows */
    uint64_t last_run;      /* our time of its last moment on the card */
    uint64_t runnable_since;/* AC_NEVER while stopped */
    uint64_t proved;        /* card time at which it was last known to work */
    bool lone_test;         /* a preempt test is under way that can correct its books */
    uint64_t lone_test_ns;  /* time between such tests */
    bool gappy;             /* others fill its turns */
    uint32_t turns_to_trial;
    /* lease */
    struct ac_lease_seen seen;
    bool open;
    uint32_t window_us, window_want_us;
    bool open_want;
    /* figures */
    struct ac_usage usage;
    uint64_t window_held;   /* held at the begin of the window in which borrowing is judged */
};

struct group {
    bool used, stopped, ran, solo, stop_unsure;
    int tenant;
    struct cc_group id;
    uint32_t slice_us;      /* as set; 0 = not known */
    uint64_t retry_at, retry_ns;
    uint64_t stopped_at;
};

enum phase { PHASE_NONE, PHASE_OPEN, PHASE_CLOSING };

struct ac_card {
    struct ac_settings set;
    enum fx_backend backend;
    uint64_t stretch_milli; /* of turns, so that control calls keep to their budget */
    struct tenant tenant[AC_MAX_TENANTS];
    struct group group[AC_MAX_GROUPS];
    struct process { uint32_t pid; int tenant; } process[AC_MAX_PROCESSES];
    int n_tenants, n_groups, n_processes; /* upper bounds of used places */
    uint64_t accrued_at, window_at;
    /* The log: who has the card */
    bool resident;          /* someone has, */
    int resident_tenant;    /* AC_OUTSIDE: none of ours */
    uint32_t resident_pid, resident_context;
    uint64_t open_at;       /* card time up to which it is charged */
    uint64_t last_ts;
    bool lost;              /* records were lost: the next END may close what we did not see begin */
    uint64_t alone_since;   /* our time at which another tenant than the one before came on the card */
    int last_tenant;
    uint64_t last_latency_end; /* our time */
    bool log_fresh;         /* a reading ended since the last decision */
    /* Turns */
    int primary;            /* -1 = none */
    bool fill, reconsider;
    uint64_t turn_began, turn_end, settled_at, next_look, test_at;
    bool judging;
    uint64_t judged_from, turn_held, turn_ends; /* what the one whose turn it is had, and how often it left the card */
    uint64_t next_lone_test;
    uint32_t discover[16];  /* pids whose groups we do not know */
    int n_discover;
    /* lease */
    enum phase phase;
    uint64_t phase_at, charged_at;
    struct ac_card_usage usage;
};

static inline int64_t weight_of(const struct tenant *t)
{
    return t->request_milli ? t->request_milli : 1;
}
/* Tokens at which a throttled tenant goes on: with it the on and off times add up to the period. */
static inline int64_t tokens_high(const struct ac_card *c, const struct tenant *t)
{
    int64_t l = t->limit_milli, high = (int64_t)c->set.period_ns / 1000 * l / 1000 * (1000 - l);
    int64_t least = (int64_t)(2 * MS) / 1000 * (1000 - l);
    return high > least ? high : least;
}

/* account.c */
void ac_charge(struct ac_card *c, int tenant, uint64_t ns);
void ac_accrue(struct ac_card *c, uint64_t now);
void ac_sleeps(struct ac_card *c, struct tenant *t);
void ac_wakes(struct ac_card *c, struct tenant *t);
/* turns.c: order and length of turns, the same for both policies */
int ac_pick(const struct ac_card *c);
uint64_t ac_turn_length(const struct ac_card *c, int tenant, uint64_t mean, uint64_t least, uint64_t most);
/* Who may have the card now; returns how many candidates there are. */
int ac_classify(struct ac_card *c, uint64_t now);
void ac_hold_back(struct ac_card *c);
/* hwslice.c */
bool ac_hwslice_step(struct ac_card *c, uint64_t now, struct ac_action *a);
void ac_hwslice_done(struct ac_card *c, const struct ac_action *a, int result, uint64_t now);
uint64_t ac_hwslice_wake(const struct ac_card *c, uint64_t now);
/* lease.c */
bool ac_lease_step(struct ac_card *c, uint64_t now, struct ac_action *a);
uint64_t ac_lease_wake(const struct ac_card *c, uint64_t now);
#endif
