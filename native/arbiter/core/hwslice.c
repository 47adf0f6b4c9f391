/* SPDX-License-Identifier: Apache-2.0
 * Shares by the card's own means: nothing in the tenants takes part.
 *
 * Tenants that fill the card share it by the hardware's own turns, with time slices in proportion (rotation.c). Where one
 * does not, one tenant with work is runnable at a time (rounds.c): the next is resumed before the last is stopped, so
 * that the card never waits for us, and what each had is read from the log. Whoever has no work stays runnable, and those
 * beside it have short time slices: it is on the card as soon as it wakes, and is seen there. A tenant whose turns show
 * gaps lets the others fill them (a long time slice for it, the shortest for them). Beside a latency tenant the one with
 * the turn has short time slices, and turns change when no request is expected (requests.c). The same lends an owner's gaps
 * to best-effort tenants (lend.c).
 */
#include <errno.h>
#include <string.h>
#include "state.h"

#define FIRST_RETRY_NS (1 * MS)
#define LAST_RETRY_NS (1000 * MS)
#define FIRST_UNREAD_NS (1 * MS)
#define LAST_UNREAD_NS (20 * MS)

/* Somebody who was idle for long is owed its turn now; whoever paused for a moment waits for it. */
static bool somebody_woke(const struct ac_card *c)
{
    for (int i = 0; i < c->n_tenants; i++)
        if (i != c->primary && !are_mates(c, i, c->primary) && ac_goes_first(c, &c->tenant[i]))
            return true;
    return false;
}

static bool somebody_paused(const struct ac_card *c)
{
    for (int i = 0; i < c->n_tenants; i++)
        if (i != c->primary && takes_turns(&c->tenant[i]) && c->tenant[i].paused)
            return true;
    return false;
}

/* Which goes on at its time, and has its turn then. */
static bool somebody_throttled(const struct ac_card *c)
{
    for (int i = 0; i < c->n_tenants; i++)
        if (c->tenant[i].used && c->tenant[i].throttled && c->tenant[i].wants)
            return true;
    return false;
}

static void choose_turn(struct ac_card *c, int n, uint64_t now)
{
    bool valid = c->primary >= 0 && c->tenant[c->primary].used && c->tenant[c->primary].candidate;
    bool over = !valid || (n > 1 && ac_between_requests(c, now));
    bool settled = n > 1 && c->reconsider && now >= c->turn_began + c->set.min_turn_ns;
    bool sooner = settled && somebody_woke(c);
    if (n == 0) {
        c->primary = -1;
        c->fill = c->trial = c->guard = c->rotate = false;
    } else if (c->n_slots && n > 1) {
        ac_turn_in_slots(c, sooner, now);
    } else if (ac_can_rotate(c, n) && (c->rotate || over || (settled && somebody_paused(c)))) {
        ac_rotate(c, now);
    } else if (over || sooner) {
        c->rotate = false;
        int next = ac_next_turn(c);
        if (over || next != c->primary)
            ac_begin_turn(c, next, now);
    }
    if (c->trial && c->judging && c->log_at >= c->judged_from + ac_trial_ns(&c->tenant[c->primary]))
        ac_judge_turn(c, now);
    if (n == 1 && now >= c->turn_began + c->set.min_turn_ns && (c->lock_tokens_ns > 0 || somebody_throttled(c)))
        c->turn_end = now; /* who comes now need not wait for it */
    if (n == 1) {
        c->fill = c->trial = c->guard = c->rotate = false;
        c->leftover = c->n_slots > 0;
    }
    if (c->primary < 0 || n < 2 || (now >= c->turn_began + c->set.min_turn_ns && !somebody_paused(c)))
        c->reconsider = false;
}

/* Somebody who is in the way of the one that is let in. */
static bool others_run(const struct ac_card *c)
{
    for (int i = 0; i < c->n_groups; i++) {
        const struct group *g = &c->group[i];
        if (g->used && !g->stopped && g->tenant != c->lets_in && c->tenant[g->tenant].candidate)
            return true;
    }
    return false;
}

static bool runs(const struct ac_card *c, int i, uint64_t now)
{
    const struct tenant *t = &c->tenant[i];
    bool waits = c->lets_in >= 0 && c->lets_in != i && t->candidate;
    if (t->suspended || t->throttled || t->rank_at_limit || now < t->retry_at || waits)
        return false;
    if (t->prior || !t->wants || i == c->primary || are_mates(c, i, c->primary))
        return true;
    if (t->candidate && ((c->fill && !t->in_slots) || c->rotate))
        return true;
    bool as_is = c->guard && ac_stays(c, i, c->primary); /* the one with the turn keeps the card */
    bool comes = c->reconsider && t->paused && now < c->turn_began + c->set.min_turn_ns; /* it woke as the turn began */
    return (as_is || comes) && t->runnable_since != AC_NEVER;
}

static void decide(struct ac_card *c, uint64_t now)
{
    ac_find_idle(c, now);
    ac_lend(c, now);
    int n = ac_classify(c, now);
    choose_turn(c, n, now);
    bool beside = ac_latency_beside(c), may_wake = ac_may_wake(c);
    if (!c->rotate || !others_run(c))
        c->lets_in = -1; /* which has the card by now, until its time slice is over */
    for (int i = 0; i < c->n_tenants; i++) {
        struct tenant *t = &c->tenant[i];
        if (!t->used || !t->n_groups)
            continue;
        t->stop_want = !runs(c, i, now);
        t->slice = ac_slice_of(c, i, beside, may_wake);
    }
}

static bool stop_or_resume(struct ac_card *c, uint64_t now, bool stop, struct ac_action *a)
{
    *a = (struct ac_action){.kind = stop ? AC_STOP : AC_RESUME, .tenant = -1};
    for (int i = 0; i < c->n_groups; i++) {
        const struct group *g = &c->group[i];
        if (!g->used || now < g->retry_at || c->tenant[g->tenant].stop_want != stop ||
            (g->stopped == stop && !g->stop_unsure && !(stop && g->again)) ||
            (stop && now < ac_stops_at(c, &c->tenant[g->tenant])))
            continue;
        if (g->solo && a->n)
            continue;
        a->handles[a->n++] = g->id.handle;
        a->tenant = g->tenant;
        if (g->solo)
            break;
    }
    return a->n > 0;
}

bool ac_hwslice_step(struct ac_card *c, uint64_t now, struct ac_action *a)
{
    if (c->n_discover) {
        uint32_t pid = c->discover[--c->n_discover];
        *a = (struct ac_action){.kind = AC_DISCOVER, .value = pid, .n = ac_suspected(c, pid)};
        return true;
    }
    if (now >= c->next_look) {
        *a = (struct ac_action){.kind = AC_READ_LOG};
        return true;
    }
    decide(c, now);
    /* Resume before stopping, so that the card never waits for us; but a limit that is reached comes first. */
    if (ac_freeze(c, true, a) || ac_set_slice(c, now, true, a) || stop_or_resume(c, now, false, a) || ac_freeze(c, false, a) ||
        ac_shorten(c, now, a) || stop_or_resume(c, now, true, a) || ac_set_slice(c, now, false, a) || ac_cut_short(c, a) ||
        ac_halve(c, now, a))
        return true;
    if (c->settled_at == AC_NEVER && c->primary >= 0) {
        c->settled_at = now;
        ac_plan_look(c, now);
    }
    return ac_make_room(c, now, a) || ac_rescue(c, now, a) || ac_test_idle(c, now, a) || ac_check(c, now, a);
}

/* What was refused is tried again after twice the time that it was waited for last; 0: it was not. */
static uint64_t longer(uint64_t was, uint64_t first, uint64_t last)
{
    return !was ? first : 2 * was < last ? 2 * was : last;
}

static void failed(struct ac_card *c, struct group *g, enum ac_kind kind, int n, uint64_t now)
{
    c->usage.n_failed++;
    g->solo = n > 1; /* find out which one it was */
    if (n > 1)
        return;
    g->retry_ns = longer(g->retry_ns, FIRST_RETRY_NS, LAST_RETRY_NS);
    g->retry_at = now + g->retry_ns;
    if (kind == AC_RESUME) { /* nobody else waits for a tenant that cannot be resumed */
        c->tenant[g->tenant].retry_at = g->retry_at;
    }
}

static bool names(const struct ac_action *a, const struct group *g)
{
    for (int i = 0; i < a->n && g->used; i++)
        if (a->handles[i] == g->id.handle)
            return true;
    return false;
}

/* Its process is ending, which may take a while: nothing of it can be controlled any more, and nothing need be. */
static void ending(struct ac_card *c, const struct ac_action *a, uint64_t now)
{
    for (int i = 0; i < c->n_groups; i++) {
        struct group *g = &c->group[i];
        if (!names(a, g))
            continue;
        g->retry_at = now + LAST_RETRY_NS;
        if (c->tenant[g->tenant].n_groups == 1)
            ac_sleeps(c, &c->tenant[g->tenant]);
    }
    c->next_look = 0; /* nobody waits for the end of its turn */
}

static void note_runnable(struct ac_card *c, uint64_t now)
{
    bool stopped[AC_MAX_TENANTS], any[AC_MAX_TENANTS];
    memset(stopped, 1, sizeof stopped);
    memset(any, 0, sizeof any);
    for (int i = 0; i < c->n_groups; i++)
        if (c->group[i].used) {
            any[c->group[i].tenant] = true;
            if (!c->group[i].stopped)
                stopped[c->group[i].tenant] = false;
        }
    for (int i = 0; i < c->n_tenants; i++) {
        struct tenant *t = &c->tenant[i];
        if (!t->used)
            continue;
        if (any[i] && stopped[i])
            t->runnable_since = AC_NEVER;
        else if (t->runnable_since == AC_NEVER)
            t->runnable_since = now;
    }
}

void ac_hwslice_done(struct ac_card *c, const struct ac_action *a, int result, uint64_t now)
{
    if (a->kind == AC_READ_LOG) {
        c->looked_at = now;
        ac_plan_look(c, now);
        if (!c->judging && now >= c->settled_at) { /* the time it takes to change turns is not the tenant's */
            c->judging = true;
            c->judged_from = now;
            c->turn_held = c->turn_ends = 0;
        }
        c->unread_ns = result < 0 ? longer(c->unread_ns, FIRST_UNREAD_NS, LAST_UNREAD_NS) : 0;
        if (result < 0) {
            c->usage.n_failed++;
            c->next_look = now + c->unread_ns;
        }
        return;
    }
    if (a->kind == AC_RESUME && a->value == AC_RESCUE) {
        ac_rescue_done(c, a->tenant, result, now);
        return;
    }
    if (result == -ESRCH) {
        ending(c, a, now);
        return;
    }
    if (a->kind == AC_PREEMPT || a->kind == AC_STOP || a->kind == AC_RESUME || (a->kind == AC_TIMESLICE && result >= 0))
        ac_forced(c, now);
    if (a->kind == AC_PREEMPT && a->value == AC_RESCUE)
        ac_room_made(c, now);
    if (a->kind == AC_PREEMPT) {
        if (result >= 0)
            c->next_look = soonest(c->next_look, now + 2 * MS);
        else
            c->usage.n_failed++;
        return;
    }
    if (a->kind == AC_FREEZE && a->value)
        c->tenant[a->tenant].held_fast = result > 0;
    if (a->kind == AC_DISCOVER && a->n)
        ac_judge(c, a->value, now);
    if (a->kind != AC_STOP && a->kind != AC_RESUME && a->kind != AC_TIMESLICE)
        return;
    for (int i = 0; i < c->n_groups; i++) {
        struct group *g = &c->group[i];
        if (!names(a, g))
            continue;
        if (result < 0) {
            failed(c, g, a->kind, a->n, now);
            /* Part of a long list may have been done; and nobody is suspected after a resume, whatever came of it. */
            g->stop_unsure |= a->kind != AC_TIMESLICE && a->n > 8;
            g->stopped_at = a->kind == AC_RESUME ? AC_NEVER : g->stopped_at;
            continue;
        }
        bool anew = a->kind == AC_RESUME || !g->again || g->stop_unsure || g->stopped_at == AC_NEVER;
        g->solo = g->stop_unsure = false;
        g->retry_at = g->retry_ns = 0;
        if (a->kind == AC_TIMESLICE) {
            g->slice_was_us = g->slice_us ? real_us(g) : DEFAULT_SLICE_US;
            g->slice_us = a->value;
            g->slice_real_us = result > 0 ? (uint32_t)result : a->value;
            g->slice_at = now;
            c->listed_at = now;
            c->unseen = true;
            c->due_at = 0;
            continue;
        }
        if (a->kind == AC_STOP && !g->stopped)
            c->tenant[g->tenant].usage.n_stops++;
        if (anew) {
            g->stopped_at = a->kind == AC_STOP ? now : AC_NEVER;
            g->again_at = g->again_ns = 0;
        }
        g->stopped = a->kind == AC_STOP;
        g->suspect = g->again = false;
    }
    if (a->kind == AC_STOP)
        c->next_look = soonest(c->next_look, ac_watch_look(c, now));
    note_runnable(c, now);
}
