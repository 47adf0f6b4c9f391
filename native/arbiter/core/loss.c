/* SPDX-License-Identifier: Apache-2.0
 * Records of the log are missing, or not in order. Where they are missing, who had the card is not known, so nobody is
 * owed or charged for it more than by what everybody was due, and nobody is taken for one that has no work since it was
 * not seen.
 */
#include "state.h"

#define DISORDER 64           /* places that a record is moved at most, */
#define DISORDER_NS (20 * US) /* if it is earlier by more: an END and the next START may carry nearly the same time */
#define OFF_NS (500 * US) /* after a stop it is off the card */
#define MOST_UNREAD_NS (8 * MS) /* from one try to the next: a card that still does not answer has no turns to go on with */

void ac_close_interval(struct ac_card *c, uint64_t ts)
{
    if (!c->resident)
        return;
    if (ts > c->open_at)
        ac_charge(c, c->resident_tenant, ts - c->open_at);
    else if (c->resident_tenant >= 0)
        ac_refund(c, c->resident_tenant, c->open_at - ts);
    c->resident = false;
}

static bool may_have_had_it(const struct ac_card *c, int tenant, int but, int nor)
{
    const struct tenant *t = &c->tenant[tenant];
    return takes_turns(t) && t->n_groups && tenant != but && tenant != nor && t->slice_ns > 0;
}

/* Those who may have had a time of which records are missing, but for two. Returns the sum of their time slices. */
static uint64_t slices_of_unseen(const struct ac_card *c, int but, int nor)
{
    uint64_t sum = 0;
    for (int i = 0; i < c->n_tenants; i++)
        if (may_have_had_it(c, i, but, nor))
            sum += (uint64_t)c->tenant[i].slice_ns;
    return sum;
}

/* Card time that nobody knows whose it was: the turn's. In the hardware's turns each had what its time slice is, and in less
 * than one round these two did not: who was there before, and who is afterwards. */
void ac_charge_unknown(struct ac_card *c, uint64_t ns, int but, int nor)
{
    if (ns && !c->rotate && c->primary >= 0) {
        ac_charge(c, c->primary, ns);
        return;
    }
    uint64_t sum = slices_of_unseen(c, but, nor);
    if (ns > sum + sum / 8) {
        but = nor = -1;
        sum = slices_of_unseen(c, but, nor);
    }
    for (int i = 0; i < c->n_tenants && sum; i++)
        if (may_have_had_it(c, i, but, nor))
            ac_charge(c, i, ns * ((uint64_t)c->tenant[i].slice_ns / US) / (sum / US + 1));
}

/* It had what is told, but no more than its time slice, or `most` where it takes no turns of the hardware's. */
void ac_charge_at_most(struct ac_card *c, const struct group *g, uint64_t ns, uint64_t most, int but)
{
    most = c->rotate ? g->slice_on_us * US : most;
    ac_charge(c, g->tenant, ns < most ? ns : most);
    if (ns > most)
        ac_charge_unknown(c, ns - most, but, g->tenant);
}

/* When whoever is on the card was off it at the latest. */
static uint64_t end_of_slice(struct ac_card *c, uint64_t ts)
{
    const struct group *g = c->rotate ? ac_find_group(c, c->resident_pid, c->resident_context) : NULL;
    uint64_t end = g ? c->started_ts + g->slice_on_us * US : ts;
    return !g ? ts : end < c->open_at ? c->open_at : end < ts ? end : ts;
}

void ac_close_after_loss(struct ac_card *c, const struct group *next, uint64_t ts, int began)
{
    int had = c->resident_tenant;
    uint64_t end = end_of_slice(c, ts);
    ac_close_interval(c, end);
    if (ts > end && next)
        ac_charge_at_most(c, next, ts - end, AC_NEVER, had);
    else if (ts > end)
        ac_charge_unknown(c, ts - end, had, began);
}

void ac_charge_resident(struct ac_card *c, uint64_t ts)
{
    uint64_t end = c->lost ? end_of_slice(c, ts) : ts; /* what came after is shared out when we know more */
    ac_charge(c, c->resident_tenant, end - c->open_at);
    c->open_at = end;
}

void ac_charge_by_our_clock(struct ac_card *c, uint64_t from, uint64_t to)
{
    const struct group *g = c->resident && !c->rotate ? ac_find_group(c, c->resident_pid, c->resident_context) : NULL;
    uint64_t until = g && g->stopped && g->stopped_at < to ? g->stopped_at : to;
    if (!from || to < from)
        return;
    until = g && until > from ? until : from;
    if (g)
        ac_charge(c, g->tenant, until - from);
    ac_charge_unknown(c, to - until, -1, -1);
}

static const struct group *only_group_of_turn(const struct ac_card *c)
{
    const struct group *only = NULL;
    int n = 0;
    for (int i = 0; i < c->n_groups && c->primary >= 0 && c->tenant[c->primary].wants; i++)
        if (c->group[i].used && c->group[i].tenant == c->primary && !c->group[i].stopped && ++n)
            only = &c->group[i];
    return n == 1 ? only : NULL;
}

/* Alone on the card the one whose turn it is shows nothing: it is taken to be there from now on. */
static void take_turn_to_be_there(struct ac_card *c, uint64_t card_at, uint64_t at)
{
    const struct group *next = only_group_of_turn(c);
    if (!next)
        return;
    c->resident = true;
    c->resident_tenant = c->last_tenant = c->primary;
    c->resident_pid = next->id.pid;
    c->resident_context = next->id.context;
    c->open_at = c->started_ts = card_at;
    c->started_at = at;
}

void ac_leave_stopped(struct ac_card *c, uint64_t card_now, uint64_t now)
{
    const struct group *g = ac_find_group(c, c->resident_pid, c->resident_context);
    if (!c->resident || c->resident_tenant < 0 || c->rotate || !g || !g->stopped || now < g->stopped_at + OFF_NS)
        return;
    uint64_t ago = now - g->stopped_at, end = card_now > ago ? card_now - ago : 0;
    end = end > c->started_ts ? end : c->started_ts;
    ac_close_interval(c, end);
    ac_charge_unknown(c, card_now > end ? card_now - end : 0, -1, -1);
    take_turn_to_be_there(c, card_now, now);
}

static void charge_on(struct ac_card *c, uint64_t until)
{
    if (until <= c->known_at || !c->resident || c->resident_tenant < 0)
        return;
    ac_charge(c, c->resident_tenant, until - c->known_at);
    c->open_at += until - c->known_at;
    c->known_at = until;
}

void ac_charge_unread(struct ac_card *c, uint64_t now)
{
    const struct group *g = c->resident ? ac_find_group(c, c->resident_pid, c->resident_context) : NULL;
    bool left = g && g->stopped && g->stopped_at + OFF_NS < now;
    if (!c->rotate && c->known_at && c->unread_ns <= MOST_UNREAD_NS) {
        charge_on(c, left ? g->stopped_at : now);
        if (left)
            take_turn_to_be_there(c, c->open_at, g->stopped_at);
        else if (!c->resident) /* it was between two kernels */
            take_turn_to_be_there(c, c->card_at + (c->known_at - c->log_at), c->known_at);
        charge_on(c, now);
    }
    c->known_at = now;
}

void ac_records_lost(struct ac_card *c, uint64_t n, uint64_t now)
{
    c->usage.log_dropped += n;
    c->lost = true;
    c->lost_at = now;
}

/* Nearly always they are in order as they come. */
void ac_put_in_order(struct cc_log_record *records, int n)
{
    for (int i = 1; i < n; i++) {
        struct cc_log_record r = records[i];
        int at = i;
        for (; at > 0 && i - at < DISORDER && records[at - 1].ts_ns > r.ts_ns + DISORDER_NS; at--)
            records[at] = records[at - 1];
        records[at] = r;
    }
}
