/* SPDX-License-Identifier: Apache-2.0
 * Tenants that act against control: the driver lets a process resume itself, set its own time slice, and stop whose
 * handles it guesses.
 */
#include "state.h"

#define PATIENCE 3         /* stops undone, before its processes are frozen */
#define UNDER_WAY_NS (3 * MS) /* a call of a process that was frozen meanwhile has ended by then */
#define FORGIVEN_NS (60000 * MS) /* after the last of them */
#define LIBRARY_US 2097u    /* 2048 of the driver's units (H200, 580.159.04) */
#define LIBRARY_TIMES 4
#define LATE_NS (5 * MS)   /* what clocks and calls may be off by: until then it may have been the stop's own delay */
#define UNDONE_NS (35 * MS) /* so that a stop that is undone is answered within 50 ms, as far as the budget goes */
#define CHECK_NS (40 * MS) /* so that a time slice that was changed is seen within 50 ms */

/* A longer time slice harms somebody only while others use the card, too. */
bool ac_checks(const struct ac_card *c)
{
    int n = 0;
    for (int i = 0; i < c->n_tenants; i++)
        n += c->tenant[i].used && c->tenant[i].n_groups;
    return n > 1 && (c->resident || c->primary >= 0 || c->rotate);
}

/* However dear the calls, they take no more than a fifth of the budget: who uses a longer time slice shows in the log, too. */
static uint64_t check_pause(const struct ac_card *c)
{
    uint64_t n = 0;
    for (int i = 0; i < c->n_groups; i++)
        n += c->group[i].used && !c->group[i].stopped && c->group[i].slice_us;
    uint64_t least = n * ac_cost(c, AC_CHECK) * 5 * 1000 / c->budget_ppm * 1000;
    return least > CHECK_NS ? least : CHECK_NS;
}

bool ac_overruns(struct ac_card *c, uint64_t now)
{
    const struct group *g = ac_on_card(c);
    if (!g || !g->slice_us || g->checked_at >= c->alone_since)
        return false;
    c->check_at = now;
    c->check_next = (int)(g - c->group);
    return true;
}

bool ac_check(struct ac_card *c, uint64_t now, struct ac_action *a)
{
    if (now < c->check_at || !ac_checks(c))
        return false;
    while (c->check_next < c->n_groups) {
        const struct group *g = &c->group[c->check_next++];
        if (!g->used || g->stopped || !g->slice_us || now < g->retry_at)
            continue;
        *a = on_group(AC_CHECK, g, 0);
        return true;
    }
    c->check_next = 0;
    c->check_at = now + check_pause(c);
    return false;
}

/* The log says that it ran at `at` of our time or later. If it was stopped long before, its process is looked at before it
 * is judged: it may have made a group that we do not know, for which this one is taken. */
void ac_ran(struct ac_card *c, struct group *g, uint64_t at)
{
    if (!g->stopped || g->stop_unsure || g->stopped_at == AC_NEVER || at <= g->stopped_at + LATE_NS)
        return;
    g->suspect_at = g->suspect ? g->suspect_at : at;
    g->suspect = true;
    ac_unknown_group(c, g->id.pid);
}

bool ac_suspected(const struct ac_card *c, uint32_t pid)
{
    for (int i = 0; i < c->n_groups; i++)
        if (c->group[i].used && c->group[i].id.pid == pid && c->group[i].suspect)
            return true;
    return false;
}

/* All its groups that there are, are known. If all of them are stopped, somebody undid that. */
void ac_judge(struct ac_card *c, uint32_t pid, uint64_t now)
{
    bool may_run = false;
    struct group *seen = NULL;
    for (int i = 0; i < c->n_groups; i++) {
        struct group *g = &c->group[i];
        if (!g->used || g->id.pid != pid)
            continue;
        may_run |= !g->stopped || g->stop_unsure;
        seen = g->suspect ? g : seen;
        g->suspect = false;
    }
    if (may_run || !seen)
        return;
    struct tenant *t = &c->tenant[seen->tenant];
    /* If none of its processes could run from before it was stopped until it was seen, somebody else did it, and it is not
     * to blame; nor for what it may have done as it was about to be resumed. */
    bool could_not = t->held_fast && (t->frozen || seen->suspect_at <= t->thawed_at + UNDER_WAY_NS);
    if (could_not && seen->stopped_at != AC_NEVER && seen->stopped_at >= t->frozen_at + UNDER_WAY_NS) {
        t->usage.rescued++;
    } else {
        t->usage.hostile++;
        t->n_defied = now < t->defied_at + FORGIVEN_NS ? t->n_defied + 1 : 1;
    }
    t->defied_at = now;
    for (int i = 0; i < c->n_groups; i++) /* which of them it was, the log need not know */
        if (c->group[i].used && c->group[i].id.pid == pid)
            c->group[i].stopped = c->group[i].again = false;
}

/* Whoever is on the card although it was stopped gave no sign if it undid that at once: it is stopped again, and only what
 * the log says then is held against it. An END that is missing looks the same, so it is asked more and more rarely. */
void ac_stayed(struct ac_card *c)
{
    struct group *g = c->resident ? ac_find_group(c, c->resident_pid, c->resident_context) : NULL;
    bool just_now = g && g->stopped_at != AC_NEVER && c->action_at <= g->stopped_at + LATE_NS;
    if (!g || !g->stopped || g->again || just_now || c->action_at < g->again_at)
        return;
    g->again = true;
    g->again_ns = g->again_ns ? (g->again_ns < 500 * MS ? 2 * g->again_ns : 1000 * MS) : 2 * LATE_NS;
    g->again_at = c->action_at + g->again_ns;
}

uint64_t ac_watch_look(const struct ac_card *c, uint64_t now)
{
    uint64_t next = AC_NEVER, pause = ac_look_pause(c), usual = UNDONE_NS > 2 * pause ? UNDONE_NS : 2 * pause;
    for (int i = 0; i < c->n_groups; i++) {
        const struct group *g = &c->group[i];
        if (!g->used || !g->stopped)
            continue;
        bool there = c->resident && c->resident_pid == g->id.pid && c->resident_context == g->id.context;
        next = soonest(next, now + (there && g->again_ns < UNDONE_NS ? LATE_NS : usual));
    }
    return next;
}

static bool is_defiant(const struct ac_card *c, const struct tenant *t)
{
    return t->n_defied >= PATIENCE && (t->frozen || c->accrued_at < t->defied_at + FORGIVEN_NS);
}

/* Whoever is known to undo its stops is frozen first: then it can undo none, and a stop that is undone all the same shows
 * that it was not it. */
uint64_t ac_stops_at(const struct ac_card *c, const struct tenant *t)
{
    if (!is_defiant(c, t))
        return 0;
    return t->frozen ? t->frozen_at + UNDER_WAY_NS : AC_NEVER;
}

/* Stopped again each time; whoever does it again and again has its processes frozen while it is stopped. */
bool ac_freeze(struct ac_card *c, bool thaw, struct ac_action *a)
{
    for (int i = 0; i < c->n_tenants; i++) {
        struct tenant *t = &c->tenant[i];
        bool want = t->used && t->n_groups && t->stop_want && is_defiant(c, t);
        if (!t->used || t->frozen == want || t->frozen != thaw)
            continue;
        t->frozen = want;
        *(want ? &t->frozen_at : &t->thawed_at) = c->accrued_at;
        *a = (struct ac_action){.kind = AC_FREEZE, .tenant = i, .value = want};
        return true;
    }
    return false;
}

bool ac_timeslice_seen(struct ac_card *c, uint32_t handle, uint32_t us)
{
    for (int i = 0; i < c->n_groups; i++) {
        struct group *g = &c->group[i];
        if (!g->used || g->id.handle != handle)
            continue;
        g->checked_at = c->accrued_at;
        if (!g->slice_us || g->slice_real_us == us)
            continue;
        /* The vendor's library sets its own when it makes contexts, in PyTorch seconds after the group was found. */
        if (g->ran && (us != LIBRARY_US || ++g->n_library_us > LIBRARY_TIMES))
            c->tenant[g->tenant].usage.hostile++;
        g->slice_us = 0;
        return false;
    }
    return true;
}
