/* SPDX-License-Identifier: Apache-2.0
 * When the log must be read again, and when there is something to do. Reading is cheap but not free, so it is done when
 * it can say something: what is charged up to when is exact whenever it is read.
 */
#include "state.h"

#define LATEST_NS (100 * MS)

static uint64_t look_in_turns(const struct ac_card *c, uint64_t now)
{
    uint64_t next = now + LATEST_NS;
    bool latency = ac_latency_beside(c);
    /* Requests that go first ask for readings of their own; who wakes has the card at once, by short time slices; and nothing
     * is lost by a gap that others use. */
    if (latency || ac_may_wake(c) || c->fill)
        next = now + 2 * ac_look_pause(c);
    else if (c->guard)
        next = now + 4 * ac_look_pause(c);
    if (c->reconsider)
        next = soonest(next, ac_first_look(c, now));
    if (c->trial)
        next = soonest(next, now + TRIAL_NS / 4);
    if (c->settled_at != AC_NEVER && c->settled_at + SETTLE_NS > now)
        next = soonest(next, c->settled_at + SETTLE_NS);
    return soonest(next, c->turn_end > now ? c->turn_end : latency ? ac_next_opening(c, now) : now + DEFER_NS);
}

/* What is charged is exact whenever it is read; only who fell idle is found out by reading. */
static uint64_t look_in_rotation(const struct ac_card *c, uint64_t now)
{
    uint64_t pause = ac_look_pause(c), overdue_at = ac_idle_look(c, now);
    return soonest(now + 2 * pause * ac_rarer(c), overdue_at > now + pause ? overdue_at : now + pause);
}

/* A limit: when its tokens end, if it has the card all the time; sooner, so that a wrong guess is small. */
static uint64_t look_at_limit(const struct ac_card *c, int tenant, uint64_t now)
{
    const struct tenant *t = &c->tenant[tenant];
    if (t->limit_milli >= 1000 || t->throttled || t->runnable_since == AC_NEVER)
        return AC_NEVER;
    if (!t->n_groups) /* what it takes before it is found must be made good later */
        return c->n_processes ? now + 2 * ac_look_pause(c) : AC_NEVER;
    if (!t->wants && !(c->resident && c->resident_tenant == tenant))
        return now + ac_look_pause(c);
    uint64_t least = c->rotate ? 2 * MS : 250 * US; /* its turn there is short */
    uint64_t lasts = ac_bucket_lasts(t);
    return now + (lasts > least ? lasts : least);
}

void ac_plan_look(struct ac_card *c, uint64_t now)
{
    uint64_t next = AC_NEVER;
    bool contended = c->primary >= 0 && ac_waiting(c);
    if (c->rotate)
        next = look_in_rotation(c, now);
    else if (contended)
        next = look_in_turns(c, now);
    else if (c->n_groups || c->n_processes)
        next = now + (c->resident || c->primary >= 0 ? 4 * ac_look_pause(c) : 8 * ac_look_pause(c));
    for (int i = 0; i < c->n_tenants; i++)
        if (c->tenant[i].used)
            next = soonest(next, look_at_limit(c, i, now));
    if (c->n_tenants > 1 && c->n_groups && !contended && !c->rotate && c->resident)
        next = soonest(next, now + ac_look_pause(c)); /* another may wake */
    c->next_look = soonest(next, ac_watch_look(c, now));
}

static uint64_t wake_for_tenant(const struct ac_card *c, const struct tenant *t, uint64_t now)
{
    uint64_t wake = t->throttled ? t->goes_on_at : AC_NEVER;
    if (t->stop_want && t->frozen && ac_stops_at(c, t) > now)
        wake = soonest(wake, ac_stops_at(c, t));
    return t->retry_at > now ? soonest(wake, t->retry_at) : wake;
}

uint64_t ac_hwslice_wake(const struct ac_card *c, uint64_t now)
{
    uint64_t wake = soonest(ac_checks(c) ? soonest(c->next_look, c->check_at) : c->next_look, ac_rescue_wake(c, now));
    if (c->rotate) {
        wake = soonest(wake, c->trim_at > now ? c->trim_at : now + MS);
        wake = soonest(wake, c->cut_at);
    } else if (c->primary >= 0 && ac_waiting(c)) {
        wake = soonest(wake, c->turn_end > now ? c->turn_end : now + DEFER_NS);
        if (!c->fill && c->test_at > now && c->test_at + 6 * MS < c->turn_end)
            wake = soonest(wake, c->test_at);
        if (c->reconsider && c->turn_began + c->set.min_turn_ns > now)
            wake = soonest(wake, c->turn_began + c->set.min_turn_ns);
    } else if (c->primary >= 0 && ac_others_want(c, c->primary) && c->test_at > now) {
        wake = soonest(wake, c->test_at);
    }
    for (int i = 0; i < c->n_tenants; i++)
        if (c->tenant[i].used && c->tenant[i].n_groups)
            wake = soonest(wake, wake_for_tenant(c, &c->tenant[i], now));
    for (int i = 0; i < c->n_groups; i++)
        if (c->group[i].used && c->group[i].retry_at > now)
            wake = soonest(wake, c->group[i].retry_at);
    return wake;
}
