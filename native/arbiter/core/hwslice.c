/* SPDX-License-Identifier: Apache-2.0
 * Shares by the card's own means: nothing in the tenants takes part.
 *
 * One tenant with work is runnable at a time, in turns: the next is resumed before the last is stopped, so that the card
 * never waits for us, and what each had is read from the log. Whoever has no work stays runnable, with a short time
 * slice: it is on the card as soon as it wakes, and is seen there. A tenant whose turns show gaps lets the others fill
 * them (a long time slice for it, the shortest for them). Beside a latency tenant the one with the turn has short time
 * slices, and turns change right after a request.
 */
#include <string.h>
#include "state.h"

#define SETTLE_NS (1500 * US)    /* after a change of turns, before it is judged */
#define GRACE_NS (1500 * US)     /* off the card although it could be on it: no work */
#define TRIAL_TURNS 64           /* between trials whether others should fill a tenant's turns */
#define DEFER_NS (500 * US)      /* between looks for the end of a request */
#define FIRST_RETRY_NS (5 * MS)
#define LAST_RETRY_NS (1000 * MS)

static bool waiting(const struct ac_card *c)
{
    for (int i = 0; i < c->n_tenants; i++)
        if (i != c->primary && c->tenant[i].used && c->tenant[i].candidate)
            return true;
    return false;
}

/* Somebody who may run now is held back for another's sake: it matters whether that one works. */
static bool others_want(const struct ac_card *c, int than)
{
    for (int i = 0; i < c->n_tenants; i++) {
        const struct tenant *t = &c->tenant[i];
        if (i != than && t->used && t->wants && t->n_groups && !t->suspended && !t->throttled)
            return true;
    }
    return false;
}

static bool latency_beside(const struct ac_card *c)
{
    for (int i = 0; i < c->n_tenants; i++)
        if (c->tenant[i].used && c->tenant[i].prior && c->tenant[i].n_groups)
            return true;
    return false;
}

/* The turn that ends showed how its tenant works. */
static void judge_turn(struct ac_card *c, uint64_t now)
{
    struct tenant *t = &c->tenant[c->primary];
    uint64_t wall = now - c->judged_from;
    if (!t->used || !c->judging || wall < 4 * MS)
        return;
    if (!c->fill) {
        if (t->turns_to_trial)
            t->turns_to_trial--;
        return;
    }
    uint64_t held = c->turn_held < wall ? c->turn_held : wall;
    uint64_t gap = (wall - held) / (c->turn_ends + 1);
    /* Short hops cost more in changes of the card than the others gain by filling them; each of them takes a turn before
     * the tenant is back. */
    uint64_t hop = 400 * US;
    for (int i = 0; i < c->n_tenants; i++)
        if (i != c->primary && c->tenant[i].used && c->tenant[i].candidate)
            hop += 300 * US;
    t->gappy = held * 100 < wall * 92 && gap > hop;
    t->turns_to_trial = TRIAL_TURNS;
}

static void begin_turn(struct ac_card *c, int tenant, uint64_t now)
{
    struct tenant *t = &c->tenant[tenant];
    bool others;
    if (c->primary >= 0)
        judge_turn(c, now);
    if (c->primary != tenant)
        t->usage.n_turns++;
    c->primary = tenant;
    others = waiting(c);
    c->turn_began = now;
    c->judging = false;
    c->turn_end = now + ac_turn_length(c, tenant, c->set.turn_ns * c->stretch_milli / 1000, c->set.min_turn_ns,
                                       c->set.max_turn_ns * c->stretch_milli / 1000);
    c->fill = others && !latency_beside(c) && (t->gappy || t->turns_to_trial == 0);
    if (c->fill && c->turn_end < now + c->set.turn_ns)
        c->turn_end = now + c->set.turn_ns; /* setting time slices must pay */
    c->settled_at = AC_NEVER;
    c->test_at = now + c->set.turn_ns * 9 / 20;
}

/* Is it time for another turn, as far as requests of latency tenants are concerned? */
static bool between_requests(struct ac_card *c, uint64_t now)
{
    if (!latency_beside(c))
        return now >= c->turn_end;
    uint64_t length = c->turn_end - c->turn_began;
    if (now >= c->turn_began + length * 13 / 10 + 5 * MS)
        return true;
    bool in_request = c->resident && c->resident_tenant >= 0 && c->tenant[c->resident_tenant].prior;
    if (now >= c->turn_end)
        return !in_request;
    return now >= c->turn_began + length * 7 / 10 && !in_request && c->last_latency_end + MS > now;
}

/* A tenant that could run and did not has no work. */
static void find_idle(struct ac_card *c, uint64_t now)
{
    if (!c->log_fresh)
        return;
    c->log_fresh = false;
    uint64_t grace = GRACE_NS;
    for (int i = 0; i < c->n_tenants; i++)
        if (c->tenant[i].used && c->tenant[i].wants && c->tenant[i].runnable_since != AC_NEVER && i != c->primary)
            grace += GRACE_NS;
    if (c->resident && (c->resident_tenant < 0 || c->tenant[c->resident_tenant].class == FX_CLASS_LATENCY))
        grace += c->set.slice_latency_us * US; /* it waits for a time slice that is not ours to shorten */
    for (int i = 0; i < c->n_tenants; i++) {
        struct tenant *t = &c->tenant[i];
        if (!t->used || !t->wants || t->runnable_since == AC_NEVER || (c->resident && c->resident_tenant == i))
            continue;
        if (c->fill && i != c->primary && c->resident)
            continue; /* it may wait for a long time slice to end */
        uint64_t since = t->last_run > t->runnable_since ? t->last_run : t->runnable_since;
        if (i == c->primary && c->settled_at != AC_NEVER && c->settled_at > since)
            since = c->settled_at > GRACE_NS ? c->settled_at - GRACE_NS / 3 : since;
        else if (i == c->primary && c->settled_at == AC_NEVER)
            continue;
        if (now > since && now - since >= grace) {
            ac_sleeps(c, t);
            if (i == c->primary && !c->fill && t->turns_to_trial > 4)
                t->turns_to_trial = 4;
        }
    }
}

static void decide(struct ac_card *c, uint64_t now)
{
    find_idle(c, now);
    int n = ac_classify(c, now);
    if (n == 0) {
        c->primary = -1;
        c->fill = false;
    } else {
        bool valid = c->primary >= 0 && c->tenant[c->primary].used && c->tenant[c->primary].candidate;
        bool sooner = c->reconsider && now >= c->turn_began + c->set.min_turn_ns;
        if (!valid || (n > 1 && (sooner || between_requests(c, now)))) {
            ac_hold_back(c);
            int next = ac_pick(c);
            if (!valid || now >= c->turn_end || between_requests(c, now) || next != c->primary)
                begin_turn(c, next, now);
        }
        if (n == 1 && c->fill)
            c->fill = false;
    }
    if (c->primary < 0 || n < 2 || now >= c->turn_began + c->set.min_turn_ns)
        c->reconsider = false;

    bool beside = latency_beside(c);
    for (int i = 0; i < c->n_tenants; i++) {
        struct tenant *t = &c->tenant[i];
        if (!t->used || !t->n_groups)
            continue;
        bool free = !t->suspended && !t->throttled && now >= t->retry_at;
        bool runs = free && (t->prior || !t->wants || i == c->primary || (c->fill && t->candidate));
        t->stop_want = !runs;
        uint32_t us = t->prior              ? c->set.slice_latency_us
                      : beside              ? c->set.slice_beside_latency_us
                      : !c->fill            ? c->set.slice_us
                      : i == c->primary     ? c->set.slice_fill_long_us
                                            : c->set.slice_fill_short_us;
        if (t->n_groups > 1) /* every group of it earns a turn of the hardware's, and each change costs */
            us = us == c->set.slice_us ? 4 * us : us / (uint32_t)t->n_groups;
        t->slice_want_us = us < 100 ? 100 : us;
    }
}

/* While one is runnable at a time, any short time slice will do. */
static bool slice_differs(const struct ac_card *c, const struct group *g)
{
    const struct tenant *t = &c->tenant[g->tenant];
    if (!g->slice_us)
        return true;
    if (!c->fill && !t->prior && t->n_groups == 1 && g->slice_us <= t->slice_want_us)
        return false;
    return g->slice_us != t->slice_want_us;
}

static bool set_slice(struct ac_card *c, uint64_t now, bool before_resume, struct ac_action *a)
{
    for (int i = 0; i < c->n_groups; i++) {
        const struct group *g = &c->group[i];
        if (!g->used || now < g->retry_at || !slice_differs(c, g))
            continue;
        const struct tenant *t = &c->tenant[g->tenant];
        if (before_resume ? !(g->stopped && !t->stop_want && g->ran && c->fill) : g->stopped || t->stop_want)
            continue;
        *a = (struct ac_action){.kind = AC_TIMESLICE, .tenant = g->tenant, .value = t->slice_want_us, .n = 1};
        a->handles[0] = g->id.handle;
        return true;
    }
    return false;
}

static bool stop_or_resume(struct ac_card *c, uint64_t now, bool stop, struct ac_action *a)
{
    a->kind = stop ? AC_STOP : AC_RESUME;
    a->tenant = -1;
    a->n = 0;
    for (int i = 0; i < c->n_groups; i++) {
        const struct group *g = &c->group[i];
        if (!g->used || now < g->retry_at || c->tenant[g->tenant].stop_want != stop || (g->stopped == stop && !g->stop_unsure))
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

static uint64_t soonest(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* Somebody without work may come back on the card at any moment. */
static bool may_wake(const struct ac_card *c)
{
    for (int i = 0; i < c->n_tenants; i++) {
        const struct tenant *t = &c->tenant[i];
        if (t->used && t->n_groups && !t->wants && t->runnable_since != AC_NEVER)
            return true;
    }
    return false;
}

/* How long until the log must be read again. */
static void plan_look(struct ac_card *c, uint64_t now)
{
    uint64_t next = AC_NEVER;
    bool busy = c->resident, contended = c->primary >= 0 && waiting(c);
    if (contended) {
        next = now + (may_wake(c) || c->fill || latency_beside(c) ? 1 : 4) * c->set.look_ns;
        if (c->settled_at != AC_NEVER && c->settled_at + SETTLE_NS > now)
            next = soonest(next, c->settled_at + SETTLE_NS);
        next = soonest(next, c->turn_end > now ? c->turn_end : now + DEFER_NS);
        if (latency_beside(c) && now >= c->turn_began + (c->turn_end - c->turn_began) * 7 / 10)
            next = soonest(next, now + DEFER_NS * 2);
    } else if (c->n_groups || c->n_processes) {
        next = now + (busy || c->primary >= 0 ? 4 * c->set.look_ns : 8 * c->set.look_ns);
    }
    for (int i = 0; i < c->n_tenants; i++) {
        const struct tenant *t = &c->tenant[i];
        if (!t->used || t->limit_milli >= 1000 || t->throttled || t->runnable_since == AC_NEVER)
            continue;
        if (!t->n_groups) { /* what it takes before it is found must be made good later */
            next = c->n_processes ? soonest(next, now + 2 * c->set.look_ns) : next;
            continue;
        }
        /* When its tokens end, if it has the card all the time; sooner, so that a wrong guess is small. */
        if (t->wants || (c->resident && c->resident_tenant == i)) {
            uint64_t left = t->tokens_ns > 0 ? (uint64_t)t->tokens_ns : 0;
            next = soonest(next, now + (left > 450 * US ? left - 200 * US : 250 * US));
        } else {
            next = soonest(next, now + c->set.look_ns);
        }
    }
    if (c->n_tenants > 1 && c->n_groups && !contended && next > now + c->set.look_ns && busy)
        next = now + c->set.look_ns; /* another may wake */
    c->next_look = next;
}

static bool test_idle(struct ac_card *c, uint64_t now, struct ac_action *a)
{
    int who = c->resident ? c->resident_tenant : -1;
    if (who < 0)
        return false;
    struct tenant *t = &c->tenant[who];
    bool contended = others_want(c, who);
    if (contended && c->primary != who)
        return false;
    if (contended ? !(c->test_at <= now && !c->fill && (now + 6 * MS < c->turn_end || !waiting(c)))
                  : !(now >= c->next_lone_test && now > c->alone_since + 50 * MS && t->limit_milli >= 1000 && t->wants))
        return false;
    for (int i = 0; i < c->n_groups; i++) {
        const struct group *g = &c->group[i];
        if (!g->used || g->tenant != who || g->stopped || g->id.context != c->resident_context || now < g->retry_at)
            continue;
        *a = (struct ac_action){.kind = AC_PREEMPT, .tenant = who, .n = 1};
        a->handles[0] = g->id.handle;
        if (contended) {
            c->test_at = now + c->set.turn_ns / 2;
        } else {
            t->lone_test_ns = t->lone_test_ns < 500 * MS ? t->lone_test_ns * 2 : 1000 * MS;
            c->next_lone_test = now + t->lone_test_ns;
            t->lone_test = true;
        }
        return true;
    }
    c->test_at = c->next_lone_test = now + 50 * MS;
    return false;
}

bool ac_hwslice_step(struct ac_card *c, uint64_t now, struct ac_action *a)
{
    if (c->n_discover) {
        *a = (struct ac_action){.kind = AC_DISCOVER, .value = c->discover[--c->n_discover]};
        return true;
    }
    if (now >= c->next_look) {
        *a = (struct ac_action){.kind = AC_READ_LOG};
        return true;
    }
    decide(c, now);
    /* Resume before stopping, so that the card never waits for us; but a limit that is reached comes first. */
    if (set_slice(c, now, true, a) || stop_or_resume(c, now, false, a) || stop_or_resume(c, now, true, a) ||
        set_slice(c, now, false, a))
        return true;
    if (c->settled_at == AC_NEVER && c->primary >= 0) {
        c->settled_at = now;
        plan_look(c, now);
    }
    if (test_idle(c, now, a))
        return true;
    return false;
}

static void failed(struct ac_card *c, struct group *g, enum ac_kind kind, int n, uint64_t now)
{
    c->usage.n_failed++;
    g->solo = n > 1; /* find out which one it was */
    if (n > 1)
        return;
    g->retry_ns = g->retry_ns ? (g->retry_ns * 2 < LAST_RETRY_NS ? g->retry_ns * 2 : LAST_RETRY_NS) : FIRST_RETRY_NS;
    g->retry_at = now + g->retry_ns;
    if (kind == AC_RESUME) { /* nobody else waits for a tenant that cannot be resumed */
        c->tenant[g->tenant].retry_at = g->retry_at;
    }
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
        plan_look(c, now);
        if (!c->judging && now >= c->settled_at) { /* the time it takes to change turns is not the tenant's */
            c->judging = true;
            c->judged_from = now;
            c->turn_held = c->turn_ends = 0;
        }
        if (result < 0) {
            c->usage.n_failed++;
            c->next_look = now + 20 * MS;
        }
        return;
    }
    if (a->kind == AC_PREEMPT) {
        if (result >= 0)
            c->next_look = soonest(c->next_look, now + 2 * MS);
        else
            c->usage.n_failed++;
        return;
    }
    if (a->kind != AC_STOP && a->kind != AC_RESUME && a->kind != AC_TIMESLICE)
        return;
    for (int i = 0; i < c->n_groups; i++) {
        struct group *g = &c->group[i];
        bool named = false;
        for (int j = 0; j < a->n && g->used; j++)
            named |= a->handles[j] == g->id.handle;
        if (!named)
            continue;
        if (result < 0) {
            failed(c, g, a->kind, a->n, now);
            /* Part of a long list may have been done. */
            g->stop_unsure |= a->kind != AC_TIMESLICE && a->n > 8;
            continue;
        }
        g->solo = g->stop_unsure = false;
        g->retry_at = g->retry_ns = 0;
        if (a->kind == AC_TIMESLICE) {
            g->slice_us = a->value;
            continue;
        }
        if (a->kind == AC_STOP && !g->stopped)
            c->tenant[g->tenant].usage.n_stops++;
        g->stopped = a->kind == AC_STOP;
        g->stopped_at = g->stopped ? now : AC_NEVER;
    }
    note_runnable(c, now);
}

uint64_t ac_hwslice_wake(const struct ac_card *c, uint64_t now)
{
    uint64_t wake = c->next_look;
    if (c->primary >= 0 && waiting(c)) {
        wake = soonest(wake, c->turn_end > now ? c->turn_end : now + DEFER_NS);
        if (!c->fill && c->test_at > now && c->test_at + 6 * MS < c->turn_end)
            wake = soonest(wake, c->test_at);
        if (c->reconsider)
            wake = soonest(wake, c->turn_began + c->set.min_turn_ns);
    } else if (c->primary >= 0 && others_want(c, c->primary) && c->test_at > now) {
        wake = soonest(wake, c->test_at);
    }
    for (int i = 0; i < c->n_tenants; i++) {
        const struct tenant *t = &c->tenant[i];
        if (!t->used || !t->n_groups)
            continue;
        if (t->throttled) {
            int64_t missing = tokens_high(c, t) - t->tokens_ns;
            uint64_t lead = 250 * US; /* a resume takes effect half way through its call */
            uint64_t wait = missing > 0 ? (uint64_t)missing / (t->limit_milli ? t->limit_milli : 1) * 1000 : 0;
            wake = soonest(wake, now + (wait > lead ? wait : lead));
        }
        if (t->retry_at > now)
            wake = soonest(wake, t->retry_at);
    }
    for (int i = 0; i < c->n_groups; i++)
        if (c->group[i].used && c->group[i].retry_at > now)
            wake = soonest(wake, c->group[i].retry_at);
    return wake;
}
