/* SPDX-License-Identifier: Apache-2.0
 * Who has no work. A tenant that could run and did not has none; one that is alone on the card emits nothing, whether it
 * works or not, and is preempted: a busy one comes back.
 */
#include "state.h"

#define LATEST_TEST_NS (100 * MS) /* it is made then, whatever it costs: who waits must not wait for ever */
#define LONG_GONE_NS (12 * MS)
#define AFTER_TEST_NS (10 * MS)
#define SHOWN_NS (30 * MS) /* whoever came on the card since need not be tested */
#define FILLED_GAP_NS (30 * MS)

/* Somebody who may run now is held back for another's sake: it matters whether that one works. */
bool ac_others_want(const struct ac_card *c, int than)
{
    for (int i = 0; i < c->n_tenants; i++) {
        const struct tenant *t = &c->tenant[i];
        bool known = t->n_groups || c->backend == FX_BACKEND_LEASE; /* which asks for no groups */
        if (i != than && !are_mates(c, i, than) && t->used && t->wants && known && !t->suspended && !t->throttled)
            return true;
    }
    return false;
}

/* The gaps of the one whose turn it is are used. */
static bool somebody_fills(const struct ac_card *c)
{
    for (int i = 0; (c->fill || c->guard) && i < c->n_tenants; i++) {
        const struct tenant *t = &c->tenant[i];
        if (i != c->primary && t->used && t->candidate && t->n_groups && t->runnable_since != AC_NEVER)
            return true;
    }
    return false;
}

/* How long a tenant with work may be off the card although it could be on it. */
static uint64_t grace(const struct ac_card *c, int tenant)
{
    if (tenant == c->primary && somebody_fills(c))
        return FILLED_GAP_NS; /* a gap: nothing is lost by it */
    if (c->rotate || c->guard || c->fill || ac_has_mates(c, tenant))
        return ac_slices_of_others(c, tenant) * 9 / 8 + 2 * GRACE_NS;
    uint64_t sum = GRACE_NS;
    for (int i = 0; i < c->n_tenants; i++)
        if (c->tenant[i].used && c->tenant[i].wants && c->tenant[i].runnable_since != AC_NEVER && i != c->primary)
            sum += GRACE_NS;
    const struct group *g = ac_on_card(c);
    if (g && g->tenant != tenant && g->slice_on_us > DEFAULT_SLICE_US) /* of the hardware's turns that were */
        sum += g->slice_on_us * US;
    if (c->resident && (c->resident_tenant < 0 || c->tenant[c->resident_tenant].class == FX_CLASS_LATENCY))
        sum += c->set.slice_latency_us * US; /* it waits for a time slice that is not ours to shorten */
    return sum;
}

/* Since when a tenant that may run has not, as far as that is its own doing. */
static uint64_t off_since(const struct ac_card *c, const struct tenant *t)
{
    uint64_t since = t->last_run > t->runnable_since ? t->last_run : t->runnable_since;
    since = since > c->last_first_end ? since : c->last_first_end;
    if (!c->rotate)
        return since;
    since = c->listed_at > since ? c->listed_at : since; /* the list began anew: who is late in it waits again */
    return c->lost_at > since ? c->lost_at : since;      /* and it may have been there, unseen */
}

/* In the hardware's turns: when somebody who has not come is overdue. */
uint64_t ac_idle_look(const struct ac_card *c, uint64_t now)
{
    uint64_t next = AC_NEVER;
    for (int i = 0; i < c->n_tenants; i++) {
        const struct tenant *t = &c->tenant[i];
        if (!t->used || !t->wants || t->runnable_since == AC_NEVER || (c->resident && c->resident_tenant == i))
            continue;
        uint64_t overdue_at = off_since(c, t) + grace(c, i);
        if (overdue_at > now)
            next = soonest(next, overdue_at + 50 * US);
    }
    return next;
}

void ac_find_idle(struct ac_card *c, uint64_t now)
{
    if (!c->log_fresh)
        return;
    c->log_fresh = false;
    uint64_t told = c->log_at; /* who has come since is not known yet */
    for (int i = 0; i < c->n_tenants; i++) {
        struct tenant *t = &c->tenant[i];
        if (!t->used || !t->wants || t->runnable_since == AC_NEVER || (c->resident && c->resident_tenant == i))
            continue;
        if ((c->fill || c->guard) && i != c->primary && c->resident)
            continue; /* it may wait for a long time slice to end */
        if (c->lender >= 0 && c->resident && c->resident_tenant == c->lender)
            continue; /* so do they to whom its gaps are lent */
        uint64_t since = off_since(c, t);
        if (i == c->primary && c->settled_at != AC_NEVER && c->settled_at > since)
            since = c->settled_at > GRACE_NS ? c->settled_at - GRACE_NS / 3 : since;
        else if (i == c->primary && c->settled_at == AC_NEVER)
            continue;
        /* For one that is long gone the budget is overdrawn, as it is after several programs began: it will be back. */
        bool in_budget = c->lock_tokens_ns > 0, gone = c->rotate && t->yielded_at != AC_NEVER &&
                         told > t->yielded_at + (in_budget ? GRACE_NS : LONG_GONE_NS) && c->lock_tokens_ns > -LEAST_TOKENS_NS;
        if (!gone && (told <= since || told - since < grace(c, i)))
            continue;
        if (c->rotate && ac_overruns(c, now)) {
            c->next_look = soonest(c->next_look, now + MS);
            break;
        }
        if (!gone && ac_rescue_first(c, t, now))
            continue;
        ac_sleeps(c, t);
        if (!gone)
            t->yielded_at = AC_NEVER; /* else it may soon be back */
        if (i == c->primary && !c->fill && t->turns_to_trial > 4)
            t->turns_to_trial = 4;
    }
}

/* It comes on the card again and again: after requests that go first, or since its groups do in turn. */
static bool shows_itself(const struct ac_card *c, int tenant)
{
    return ac_latency_beside(c) || c->tenant[tenant].n_groups > 1;
}

/* It came on the card, so it works. */
void ac_proved(struct ac_card *c, int tenant, uint64_t at)
{
    if (tenant == c->primary && shows_itself(c, tenant) && at + SHOWN_NS > c->test_at)
        c->test_at = at + SHOWN_NS;
}

static bool due(const struct ac_card *c, int who, uint64_t now)
{
    const struct tenant *t = &c->tenant[who];
    if (!ac_others_want(c, who))
        return now >= c->next_lone_test && now > c->alone_since + 50 * MS && t->limit_milli >= 1000 && t->wants;
    if (c->primary != who || c->rotate || somebody_fills(c) || (c->lender >= 0 && !ac_waiting(c)))
        return false;
    bool waiting = ac_waiting(c), affordable = c->lock_tokens_ns >= LEAST_TOKENS_NS;
    if (!waiting || ac_rarer(c) == 1) /* else turns are long, and their ends tell */
        affordable |= now >= c->test_at + LATEST_TEST_NS;
    return c->test_at <= now && affordable && (!waiting || now + 6 * MS < c->turn_end);
}

bool ac_test_idle(struct ac_card *c, uint64_t now, struct ac_action *a)
{
    int who = c->resident ? c->resident_tenant : -1;
    if (who < 0 || !due(c, who, now))
        return false;
    struct tenant *t = &c->tenant[who];
    const struct group *g = ac_on_card(c);
    if (!g || now < g->retry_at) {
        c->test_at = c->next_lone_test = now + 50 * MS;
        return false;
    }
    if (shows_itself(c, who) && now > c->looked_at + MS) {
        *a = (struct ac_action){.kind = AC_READ_LOG};
        return true;
    }
    *a = on_group(AC_PREEMPT, g, 0);
    if (ac_others_want(c, who)) {
        c->test_at = now + AFTER_TEST_NS;
    } else {
        t->lone_test_ns = t->lone_test_ns < 500 * MS ? t->lone_test_ns * 2 : 1000 * MS;
        c->next_lone_test = now + t->lone_test_ns;
        t->lone_test = true;
    }
    return true;
}
