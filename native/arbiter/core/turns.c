/* SPDX-License-Identifier: Apache-2.0
 * Who comes next, and for how long: the same for both policies.
 */
#include "state.h"

#define SAVED_NS (150 * MS) /* of card time, or a round's if that is longer */

/* One whose resume was refused keeps its turn if it is tried again so soon, on a card that answers otherwise: passed over, it
 * would wait for a whole one of each of the others. */
#define RETRIED_SOON_NS (4 * MS)

static bool may_run(const struct ac_card *c, int tenant, uint64_t now)
{
    const struct tenant *t = &c->tenant[tenant];
    bool soon = true;
    for (int i = 0; i < c->n_groups && now < t->retry_at; i++)
        if (c->group[i].used && c->group[i].tenant == tenant && now < c->group[i].retry_at)
            soon &= c->group[i].retry_ns <= RETRIED_SOON_NS && c->unread_ns <= RETRIED_SOON_NS;
    return t->used && !t->suspended && !t->throttled && !t->rank_at_limit && soon;
}

int ac_classify(struct ac_card *c, uint64_t now)
{
    bool owners = false;
    int n = 0;
    for (int i = 0; i < c->n_tenants; i++) {
        struct tenant *t = &c->tenant[i];
        if (!t->used)
            continue;
        t->throttled = ac_throttled(c, t, now);
        t->prior = may_run(c, i, now) && ((t->class == FX_CLASS_LATENCY && !t->spent) || i == c->lender);
        t->candidate = may_run(c, i, now) && t->wants && !(t->prior && c->backend == FX_BACKEND_HWSLICE);
        owners |= t->candidate && is_owner(t);
    }
    for (int i = 0; i < c->n_tenants; i++) {
        struct tenant *t = &c->tenant[i];
        if (owners && !is_owner(t))
            t->candidate = false;
        bool counted = false;
        for (int j = 0; t->gang && j < i; j++)
            counted |= c->tenant[j].used && c->tenant[j].candidate && are_mates(c, i, j);
        if (t->used && t->candidate && !counted)
            n++;
    }
    if (n && c->borrowed == owners) {
        c->borrowed = !owners;
        ac_round_anew(c);
    }
    return n;
}

/* Nobody is due more than its part of a round that begins now: the last was among others, or by other weights. What each
 * is ahead or behind of its like stays in its virtual time. */
void ac_round_anew(struct ac_card *c)
{
    int64_t lowest = INT64_MAX;
    for (int i = 0; i < c->n_tenants; i++)
        if (c->tenant[i].used && c->tenant[i].candidate)
            lowest = c->tenant[i].vt < lowest ? c->tenant[i].vt : lowest;
    if (lowest != INT64_MAX)
        c->round_vt = lowest;
}

int ac_pick(const struct ac_card *c)
{
    int best = -1;
    for (int i = 0; i < c->n_tenants; i++) {
        const struct tenant *t = &c->tenant[i];
        if (!t->used || !t->candidate)
            continue;
        if (best >= 0) {
            const struct tenant *b = &c->tenant[best];
            bool later = t->prior != b->prior ? b->prior : t->in_slots != b->in_slots ? t->in_slots : t->vt >= b->vt;
            if (later)
                continue;
        }
        best = i;
    }
    return best;
}

/* A tenant that cannot use what it is given must not save it up without bound. What one short turn of a tenant with a
 * small request puts the others behind is no saving. */
void ac_hold_back(struct ac_card *c)
{
    for (int i = 0; i < c->n_tenants; i++) {
        struct tenant *t = &c->tenant[i];
        const struct tenant *lowest = NULL;
        if (!takes_turns(t))
            continue;
        for (int j = 0; j < c->n_tenants; j++) {
            const struct tenant *o = &c->tenant[j];
            if (j != i && takes_turns(o) && (!lowest || o->vt < lowest->vt))
                lowest = o;
        }
        if (!lowest)
            continue;
        uint64_t own = c->round_ns > SAVED_NS ? c->round_ns : SAVED_NS;
        uint64_t turn = c->round_ns > c->set.max_turn_ns ? c->round_ns : c->set.max_turn_ns;
        int64_t bound = (int64_t)own * 1000 / weight_of(t) + (int64_t)turn * 1000 / weight_of(lowest);
        if (t->vt < lowest->vt - bound)
            t->vt = lowest->vt - bound;
    }
}

uint64_t ac_turn_length(const struct ac_card *c, int tenant, uint64_t mean, uint64_t shortest, uint64_t longest)
{
    uint64_t n = 0, sum = 0;
    for (int i = 0; i < c->n_tenants; i++)
        if (c->tenant[i].used && c->tenant[i].candidate) {
            n++;
            sum += (uint64_t)weight_of(&c->tenant[i]);
        }
    uint64_t length = sum ? mean * n / sum * (uint64_t)weight_of(&c->tenant[tenant]) : mean;
    return length < shortest ? shortest : length > longest ? longest : length;
}
