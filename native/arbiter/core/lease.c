/* SPDX-License-Identifier: Apache-2.0
 * Shares by gates in the tenants: one tenant's work is in flight at a time.
 *
 * The holder's gate is open; at the end of its quantum it is closed, and the next opens when what was queued has drained,
 * so that the time charged is the time had. While nobody else waits the holder keeps the gate, unbounded, and nothing is
 * to be done. A holder that does not drain in bounded time (frozen, or its kernel is that long) is passed over.
 */
#include "state.h"

#define DRAIN_BOUND_NS (400 * MS)
#define POLL_NS (2 * MS)
#define WINDOW_US 2000u

static void charge_holder(struct ac_card *c, uint64_t now)
{
    uint64_t past = now > c->charged_at ? now - c->charged_at : 0;
    c->charged_at = now;
    if (c->primary < 0 || c->phase == PHASE_NONE)
        return;
    const struct tenant *t = &c->tenant[c->primary];
    if (t->wants || c->phase == PHASE_CLOSING)
        ac_charge(c, c->primary, past);
}

static bool others_wait(const struct ac_card *c)
{
    for (int i = 0; i < c->n_tenants; i++)
        if (i != c->primary && c->tenant[i].used && c->tenant[i].candidate)
            return true;
    return false;
}

static void close_holder(struct ac_card *c, uint64_t now)
{
    c->tenant[c->primary].open_want = false;
    c->tenant[c->primary].seen.drained = false;
    c->phase = PHASE_CLOSING;
    c->phase_at = now;
}

static void open_next(struct ac_card *c, int next, uint64_t now)
{
    ac_hold_back(c);
    c->primary = next;
    c->phase = PHASE_OPEN;
    c->phase_at = c->turn_began = now;
    c->turn_end = now + ac_turn_length(c, next, c->set.quantum_ns, 2 * MS, 2 * c->set.quantum_ns);
    c->tenant[next].open_want = true;
    c->tenant[next].usage.n_turns++;
}

static void decide(struct ac_card *c, uint64_t now)
{
    charge_holder(c, now);
    if (c->phase != PHASE_NONE && c->primary < 0)
        c->phase = PHASE_NONE;
    int n = ac_classify(c, now);
    struct tenant *h = c->primary >= 0 ? &c->tenant[c->primary] : NULL;
    if (c->phase == PHASE_CLOSING && (h->seen.drained || now >= c->phase_at + DRAIN_BOUND_NS)) {
        c->phase = PHASE_NONE;
        c->primary = -1;
    }
    if (c->phase == PHASE_OPEN) {
        bool others = others_wait(c);
        int next = others ? ac_pick(c) : c->primary;
        bool over = now >= c->turn_end || !h->candidate;
        bool first = next >= 0 && next != c->primary && c->tenant[next].prior && !h->prior;
        if (h->suspended || h->throttled || (others && (first || (over && next != c->primary))))
            close_holder(c, now);
        else if (over && others)
            open_next(c, c->primary, now);
    }
    if (c->phase == PHASE_NONE && n > 0)
        open_next(c, ac_pick(c), now);

    bool contended = c->phase == PHASE_OPEN && others_wait(c);
    for (int i = 0; i < c->n_tenants; i++) {
        struct tenant *t = &c->tenant[i];
        if (!t->used)
            continue;
        if (t->seen.never_gate && !t->suspended)
            t->open_want = true;
        else if (i != c->primary || c->phase != PHASE_OPEN)
            t->open_want = false;
        /* With a bound the shim counts what it queues, and so tells when it has no more. */
        t->window_want_us = t->seen.never_gate ? 0 : contended || t->limit_milli < 1000 ? WINDOW_US : 0;
    }
}

bool ac_lease_step(struct ac_card *c, uint64_t now, struct ac_action *a)
{
    decide(c, now);
    for (int i = 0; i < c->n_tenants; i++) {
        struct tenant *t = &c->tenant[i];
        if (!t->used)
            continue;
        *a = (struct ac_action){.tenant = i};
        if (t->window_us != t->window_want_us) {
            a->kind = AC_WINDOW;
            a->value = t->window_us = t->window_want_us;
            return true;
        }
        if (t->open != t->open_want) {
            if (t->open)
                t->usage.n_stops++;
            a->kind = AC_GATE;
            t->open = t->open_want;
            a->value = t->open;
            return true;
        }
    }
    return false;
}

uint64_t ac_lease_wake(const struct ac_card *c, uint64_t now)
{
    uint64_t wake = AC_NEVER;
    for (int i = 0; i < c->n_tenants; i++) {
        const struct tenant *t = &c->tenant[i];
        if (!t->used)
            continue;
        if (t->throttled)
            wake = soonest(wake, t->goes_on_at);
    }
    if (c->phase == PHASE_CLOSING)
        return soonest(wake, soonest(now + POLL_NS, c->phase_at + DRAIN_BOUND_NS));
    if (c->phase != PHASE_OPEN)
        return wake;
    const struct tenant *h = &c->tenant[c->primary];
    if (h->limit_milli < 1000) {
        uint64_t left = h->tokens_ns > (int64_t)(250 * US) ? (uint64_t)h->tokens_ns - 250 * US : 0;
        wake = soonest(wake, now + (h->wants ? (left < POLL_NS ? left + 50 * US : POLL_NS) : 2 * POLL_NS));
    }
    if (others_wait(c))
        wake = soonest(wake, soonest(c->turn_end > now ? c->turn_end : now + POLL_NS, now + POLL_NS));
    return wake;
}
