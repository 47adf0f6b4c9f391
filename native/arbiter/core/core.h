/* SPDX-License-Identifier: Apache-2.0
 *
 * The arbiter of one card: what is known goes in, one action at a time comes out. No clock, no I/O, no threads.
 *
 *     for (;;) {
 *         ... tell it what changed: ac_tenant_put, ac_group_put, ac_lease_seen ...
 *         ac_align(all cards of the node, n, now)
 *         while (ac_step(card, now, &action))
 *             ac_done(card, &action, result of doing it, now);   (for AC_READ_LOG: ac_log, then ac_done)
 *         sleep until ac_next_wake(card, now)
 *     }
 *
 * Card time is the currency. A tenant's virtual time is the card time that it had over its request; whoever has the
 * least comes next, so shares are exact over time whatever the lengths of turns, and an error is carried until it is
 * made good. Limits are token buckets of card time. Times are nanoseconds; `now` is CLOCK_MONOTONIC (or virtual), the
 * log's own clock is only compared with itself.
 */
#ifndef FLEXAI_ARBITER_CORE_H
#define FLEXAI_ARBITER_CORE_H
#include <stdbool.h>
#include <stdint.h>
#include "channel_control.h"
#include "flexai_region.h"

#define AC_MAX_TENANTS 64 /* of one card */
#define AC_MAX_GROUPS 256
#define AC_MAX_PROCESSES 512
#define AC_NEVER UINT64_MAX
#define AC_OUTSIDE (-1)
#define AC_RESCUE 1u

struct ac_settings {
    uint64_t turn_ns;       /* mean turn while several tenants want the card, if the budget allows it */
    uint64_t min_turn_ns;
    uint64_t max_turn_ns;   /* what a tenant may be put behind by one turn of another */
    uint64_t period_ns;     /* of a hard limit */
    uint64_t quantum_ns;    /* lease: mean turn */
    uint64_t look_ns;       /* between two readings of the log while somebody may wake */
    uint32_t slice_us;      /* most of a time slice while somebody may wake */
    uint32_t slice_beside_latency_us;
    uint32_t slice_latency_us;
    uint32_t slice_fill_long_us, slice_fill_short_us;
    uint32_t budget_ppm;    /* of the time, for control calls: they hold locks of the whole machine */
};
extern const struct ac_settings ac_default_settings;

enum ac_kind {
    AC_READ_LOG = 1,
    AC_STOP = 2,      /* handles[0..n) */
    AC_RESUME = 3,    /* the same; value = AC_RESCUE: not stopped by us */
    AC_TIMESLICE = 4, /* handles[0], value = microseconds */
    AC_PREEMPT = 5,   /* handles[0] */
    AC_DISCOVER = 6,  /* value = pid: it runs groups that we do not know, or is not known itself; n = 1: look at once,
                         however lately it was looked at */
    AC_GATE = 7,      /* tenant, value = 1 open, 0 closed */
    AC_WINDOW = 8,    /* tenant, value = microseconds of work that may be queued; 0 = no bound */
    AC_CHECK = 9,     /* handles[0]: what the card says its time slice is; ac_timeslice_seen, then ac_done */
    AC_FREEZE = 10,   /* tenant, value = 1: none of its processes shall run, since it undoes its stops; 0: all may. A result
                         above 0: nobody but us can let them run */
    AC_N_KINDS
};
struct ac_action {
    enum ac_kind kind;
    int tenant;
    uint32_t value;
    int n;
    uint32_t handles[AC_MAX_GROUPS];
};

/* Figures of one tenant; counters only grow. */
struct ac_usage {
    uint64_t held_ns, stopped_ns, borrowed_ns, wanted_ns, n_turns, n_stops, hostile;
    /* It was back at once when it was resumed although we had not stopped it: somebody else had. Or it was resumed though
     * none of its processes could run: somebody else did that, too. */
    uint64_t rescued;
    bool running, waiting, suspended, frozen;
    int n_groups;
};
struct ac_card_usage {
    uint64_t busy_ns, outside_ns, log_dropped, n_failed, lock_ns;
    uint64_t round_ns; /* in which everybody has a turn; 0 = nobody takes turns */
    uint64_t known_at; /* our time up to which the books are kept; 0 = up to now */
};

/* What a tenant's regions show, lease only. */
struct ac_lease_seen {
    bool wants;     /* a thread waits at the gate, or work is queued */
    bool drained;   /* every live process has drained the last close */
    bool never_gate;/* a process uses collectives */
};

struct ac_card;
struct ac_card *ac_new(const struct ac_settings *settings, enum fx_backend backend, uint64_t now);
void ac_free(struct ac_card *card);

/* Add or change; `tenant` is the caller's number, below AC_MAX_TENANTS. False: no such place. */
bool ac_tenant_put(struct ac_card *card, int tenant, uint32_t request_milli, uint32_t limit_milli, enum fx_class class,
                   uint64_t now);
/* Tenants of one job, on this card and others, have the same gang: their ranks wait for each other. 0: none. */
void ac_tenant_gang(struct ac_card *card, int tenant, uint32_t gang);
/* What it weighs beside others who hold no compute of the card, 1..1000; 0: as little as can be. Of no meaning for a tenant
 * with a request. What it is owed, or owes, stays what it is in card time. */
void ac_tenant_borrows(struct ac_card *card, int tenant, uint32_t weight);
void ac_tenant_gone(struct ac_card *card, int tenant);
void ac_tenant_suspend(struct ac_card *card, int tenant, bool suspended);
/* Whose a process is: a tenant's, or AC_OUTSIDE. */
void ac_process_put(struct ac_card *card, int tenant, uint32_t pid);
bool ac_process_known(const struct ac_card *card, uint32_t pid);
void ac_process_gone(struct ac_card *card, uint32_t pid); /* its groups are forgotten too */
/* A group as found. False: no room, or it is known already. */
bool ac_group_put(struct ac_card *card, int tenant, const struct cc_group *group);
void ac_lease_seen(struct ac_card *card, int tenant, const struct ac_lease_seen *seen, uint64_t now);

/* New records of the log, which are put in order, and up to when they are complete. */
void ac_log(struct ac_card *card, struct cc_log_record *records, int n, uint64_t dropped, struct cc_moment told);

bool ac_step(struct ac_card *card, uint64_t now, struct ac_action *action);
void ac_done(struct ac_card *card, const struct ac_action *action, int result, uint64_t now);
uint64_t ac_next_wake(const struct ac_card *card, uint64_t now);

/* Before the cards of a node are stepped, and after: turns of gangs shall be at the same moments on all their cards. NULL
 * is a card whose turns are not ours. True: something changed, and they want another step. */
bool ac_align(struct ac_card *const *cards, int n_cards, uint64_t now);

/* Whose turn it is, or AC_OUTSIDE. */
int ac_turn_of(const struct ac_card *card);
/* The log is read at the next step: what is published shall be of now. */
void ac_look(struct ac_card *card);
/* Several tenants want the card now, or one is held to a limit: it takes control calls. */
bool ac_contended(const struct ac_card *card);
/* Control calls may take this many millionths of the time: less where many cards share one controller. */
void ac_budget(struct ac_card *card, uint32_t ppm);
/* What the card says that a group's time slice is. Other than we set: somebody changed it; counted, and set again. */
/* False: it is not what was set. */
bool ac_timeslice_seen(struct ac_card *card, uint32_t handle, uint32_t us);
/* Somebody else resumed everything: look again. */
void ac_all_resumed(struct ac_card *card, uint64_t now);
/* Every handle of a tenant (AC_OUTSIDE: of all) that is stopped or may be: what must be resumed when we let go of it. */
int ac_stopped(const struct ac_card *card, int tenant, uint32_t *handles, int max);
void ac_usage(const struct ac_card *card, int tenant, struct ac_usage *usage);
void ac_card_usage(const struct ac_card *card, struct ac_card_usage *usage);
#endif
