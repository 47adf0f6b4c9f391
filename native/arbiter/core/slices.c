/* SPDX-License-Identifier: Apache-2.0
 * Time slices: which one each tenant should have, and the calls that set it, at a moment at which that takes no turn from
 * anybody.
 */
#include "state.h"

#define MOST_FILL_16 48 /* the one whose gaps they are waits for them */
#define BEYOND_US 72     /* that a time slice lasts longer, until its end is acted on (H200) */

/* Who fills another's gaps does so by the hardware's turns, the shortest that are in proportion. */
static uint32_t fill_us(const struct ac_card *c, int tenant)
{
    int64_t least = weight_of(&c->tenant[tenant]);
    for (int i = 0; i < c->n_tenants; i++) {
        const struct tenant *t = &c->tenant[i];
        if (i != c->primary && t->used && t->candidate && t->n_groups && weight_of(t) < least)
            least = weight_of(t);
    }
    uint32_t times_16 = (uint32_t)(weight_of(&c->tenant[tenant]) * 16 / least);
    uint32_t shortest = c->set.slice_fill_short_us + BEYOND_US;
    return shortest * (times_16 < MOST_FILL_16 ? times_16 : MOST_FILL_16) / 16 - BEYOND_US;
}

/* The time slice that a tenant's groups should have: any in the range will do, since setting one costs. */
struct slice_range ac_slice_of(const struct ac_card *c, int tenant, bool beside, bool may_wake)
{
    const struct tenant *t = &c->tenant[tenant];
    uint32_t n = (uint32_t)t->n_groups; /* every group of it earns a turn of the hardware's */
    uint32_t turn_us = (uint32_t)((c->turn_end - c->turn_began) / US);
    if (tenant == c->lender)
        return (struct slice_range){c->set.slice_fill_long_us / n, c->set.slice_fill_long_us / n, US_MAX};
    if (c->lender >= 0)
        return (struct slice_range){0, c->set.slice_fill_short_us, c->set.slice_fill_short_us};
    if (t->prior)
        return (struct slice_range){c->set.slice_latency_us / n, c->set.slice_latency_us / n, c->set.slice_latency_us / n};
    if (beside)
        return (struct slice_range){0, c->set.slice_beside_latency_us, c->set.slice_beside_latency_us};
    if (c->rotate && t->candidate) {
        uint32_t us = (uint32_t)(t->slice_ns / (int64_t)US) / n;
        us = us < 100 ? 100 : us;
        uint32_t slack = us / (c->accrued_at < c->patient_until && !t->owes_much ? 12 : 64) + 50;
        return (struct slice_range){us - slack, us, us + slack};
    }
    if ((c->fill || c->guard) && tenant == c->primary && n == 1)
        return (struct slice_range){turn_us, turn_us > c->set.slice_fill_long_us ? turn_us : c->set.slice_fill_long_us, US_MAX};
    if (c->fill && tenant != c->primary) {
        uint32_t us = fill_us(c, tenant);
        return (struct slice_range){us, us, us};
    }
    if (t->candidate && ac_has_mates(c, tenant))
        return (struct slice_range){0, DEFAULT_SLICE_US, DEFAULT_SLICE_US};
    if (n > 1) /* they may wait for each other, so one does not keep the card for long; but changes between them cost */
        return (struct slice_range){0, 4 * c->set.slice_us, 4 * c->set.slice_us};
    if (t->wants && (may_wake || t->in_slots))
        return (struct slice_range){0, c->set.slice_us, c->set.slice_us};
    return (struct slice_range){0, 0, US_MAX};
}

static bool slice_differs(const struct ac_card *c, const struct group *g)
{
    const struct slice_range *range = &c->tenant[g->tenant].slice;
    uint32_t us = g->slice_us ? g->slice_us : DEFAULT_SLICE_US;
    return us < range->least_us || us > range->most_us;
}

static bool is_trim(const struct ac_card *c, const struct group *g)
{
    uint32_t want = c->tenant[g->tenant].slice.us;
    return g->slice_us > want / 2 && g->slice_us < 2 * want;
}

/* A time slice is set before its group is resumed if it can be, so that no turn begins with the last one's. */
bool ac_set_slice(struct ac_card *c, uint64_t now, bool before_resume, struct ac_action *a)
{
    for (int i = 0; i < c->n_groups; i++) {
        const struct group *g = &c->group[i];
        if (!g->used || now < g->retry_at || !slice_differs(c, g))
            continue;
        const struct tenant *t = &c->tenant[g->tenant];
        if (c->rotate && is_trim(c, g) && c->lock_tokens_ns < 0)
            continue; /* what is owed can wait */
        bool is_let_in = g->tenant == c->lets_in && !g->stopped; /* which begins it when the others are stopped */
        if (before_resume ? !is_let_in && !(g->stopped && !t->stop_want && g->ran) : g->stopped || t->stop_want)
            continue;
        if (c->rotate && !before_resume && now > c->looked_at + MS) { /* who has the card now? */
            *a = (struct ac_action){.kind = AC_READ_LOG};
            return true;
        }
        bool too_long = g->slice_us > 2 * t->slice.us;
        if (c->rotate && !before_resume && !too_long && ac_awaits_list(c, now))
            return false;
        *a = on_group(AC_TIMESLICE, g, t->slice.us);
        return true;
    }
    return false;
}

/* A time slice that has become too long would last until its end. */
bool ac_cut_short(struct ac_card *c, struct ac_action *a)
{
    struct group *g = ac_on_card(c);
    if (!g || g->slice_on_us <= 2 * (uint64_t)c->tenant[g->tenant].slice.most_us)
        return false;
    if (c->lock_tokens_ns < -LEAST_TOKENS_NS && !c->trial)
        return false;
    g->slice_on_us = real_us(g);
    *a = on_group(AC_PREEMPT, g, 0);
    return true;
}

/* Whoever stays on the card while others leave it begins a time slice then. */
bool ac_shorten(struct ac_card *c, uint64_t now, struct ac_action *a)
{
    bool stops = false;
    for (int i = 0; i < c->n_groups; i++) {
        const struct group *g = &c->group[i];
        const struct tenant *t = &c->tenant[g->tenant];
        if (!g->used || g->stopped || !t->stop_want)
            continue;
        if (t->throttled || t->suspended)
            return false; /* that comes first */
        stops = true;
    }
    for (int i = 0; stops && i < c->n_groups; i++) {
        const struct group *g = &c->group[i];
        const struct tenant *t = &c->tenant[g->tenant];
        if (!g->used || g->stopped || t->stop_want || now < g->retry_at || !slice_differs(c, g) || g->slice_us <= t->slice.most_us)
            continue;
        *a = on_group(AC_TIMESLICE, g, t->slice.us);
        return true;
    }
    return false;
}
