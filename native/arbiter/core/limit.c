/* SPDX-License-Identifier: Apache-2.0
 * Hard limits: a bucket of card time for each tenant. At its end the tenant is stopped, and goes on when it is full.
 * Periods are whole parts of a second and begin at whole multiples of themselves, so that any second holds the same ones.
 */
#include "state.h"

#define LEAST_NS (250 * US) /* left in the bucket: a stop takes that long to take effect */
#define LEAST_ON_NS (2 * MS)

/* One stop and one resume in each, for every tenant that has a limit to be held to. */
static uint64_t period(const struct ac_card *c)
{
    if (c->backend != FX_BACKEND_HWSLICE)
        return c->set.period_ns;
    uint64_t n = 0, n_wanting = 0;
    for (int i = 0; i < c->n_tenants; i++) {
        const struct tenant *t = &c->tenant[i];
        bool wants = t->used && t->wants && t->n_groups && !t->suspended;
        n += wants && t->limit_milli < 1000;
        n_wanting += wants;
    }
    uint64_t with_readings = n_wanting > 1 ? 1500 : 1200; /* thousandths of what stops and resumes cost */
    uint64_t least = n * (ac_cost(c, AC_STOP) + ac_cost(c, AC_RESUME)) * with_readings / c->budget_ppm * 1000;
    if (n_wanting > 1 && !c->rotate && least < c->round_ns) /* among others it has one turn in each round */
        least = c->round_ns;
    return ac_second_part(least > c->set.period_ns ? least : c->set.period_ns);
}

/* What is in the bucket when a tenant goes on that has the card until its end: on and off times add up to the period. */
int64_t ac_full_bucket(const struct ac_card *c, const struct tenant *t)
{
    int64_t l = t->limit_milli, full = (int64_t)period(c) / 1000 * l / 1000 * (1000 - l);
    int64_t least = (int64_t)LEAST_ON_NS / 1000 * (1000 - l);
    return full > least ? full : least;
}

/* When the bucket is full; sooner or later by so much that the tenant comes half as near to where its periods begin. What
 * that changes of this off time it changes of the next on time in proportion. */
static uint64_t goes_on(const struct ac_card *c, const struct tenant *t, uint64_t now)
{
    int64_t missing = ac_full_bucket(c, t) - t->tokens_ns, part = (int64_t)period(c);
    int64_t full_at = (int64_t)now + (missing > 0 ? missing / t->limit_milli * 1000 : 0);
    int64_t late = (full_at - part / 4 * (t - c->tenant)) % part; /* they need not all begin at once */
    late = late > part / 2 ? late - part : late;
    int64_t at = full_at - late * (1000 - t->limit_milli) / 2000;
    return at > (int64_t)now ? (uint64_t)at : now;
}

uint64_t ac_bucket_lasts(const struct tenant *t)
{
    int64_t left = t->tokens_ns - (int64_t)LEAST_NS;
    return left > 0 ? (uint64_t)left * 1000 / (1000 - t->limit_milli) : 0;
}

bool ac_throttled(const struct ac_card *c, struct tenant *t, uint64_t now)
{
    if (t->limit_milli >= 1000)
        return false;
    if (t->throttled)
        return now < t->goes_on_at;
    if (t->tokens_ns >= (int64_t)LEAST_NS)
        return false;
    t->goes_on_at = goes_on(c, t, now);
    return true;
}
