/* SPDX-License-Identifier: Apache-2.0
 * Turns on a card that shares its rounds with others (align.c): each gang has its slot, at the same moments on all its
 * cards; in what is left everybody else takes turns as in any round. A slot that its tenant does not use is theirs too.
 */
#include "state.h"

#define LATE_NS (5 * MS) /* at most, for the request of a latency tenant to end */

static struct slot *slot_of(struct ac_card *c, uint32_t gang)
{
    for (int i = 0; i < c->n_slots; i++)
        if (c->slot[i].gang == gang)
            return &c->slot[i];
    return NULL;
}

void ac_charge_slot(struct ac_card *c, int tenant, int64_t ns)
{
    struct slot *s = slot_of(c, c->tenant[tenant].gang);
    if (s && !(c->leftover && tenant == c->primary))
        s->held_ns += ns;
}

/* The slot of this moment, or NULL; *until: the next begin of one, or the end of the round. */
static const struct slot *slot_at(const struct ac_card *c, uint64_t now, uint64_t *until)
{
    *until = c->round_end;
    for (int i = 0; i < c->n_slots; i++) {
        const struct slot *s = &c->slot[i];
        if (s->part_ppm && now >= s->begin && now < s->end)
            return s;
        if (s->part_ppm && s->begin > now)
            *until = soonest(*until, s->begin);
    }
    return NULL;
}

static int rank_in(const struct ac_card *c, const struct slot *s)
{
    if (c->primary >= 0 && c->tenant[c->primary].candidate && c->tenant[c->primary].gang == s->gang)
        return c->primary;
    for (int i = 0; i < c->n_tenants; i++)
        if (c->tenant[i].used && c->tenant[i].candidate && c->tenant[i].gang == s->gang)
            return i;
    return -1;
}

/* Everybody without a slot reaches the same virtual time when so much more has been shared out. */
static void aim(struct ac_card *c, uint64_t ns)
{
    int64_t weight = 0, sum = 0, first = 0;
    for (int i = 0; i < c->n_tenants; i++) {
        const struct tenant *t = &c->tenant[i];
        if (!takes_turns(t))
            continue;
        first = weight ? first : t->vt;
        weight += weight_of(t);
        sum += weight_of(t) * ((t->vt - first) / 1000);
    }
    if (weight)
        c->round_vt = first + sum / weight * 1000 + (int64_t)ns * 1000 / weight;
}

static bool anybody_without_slot(const struct ac_card *c)
{
    for (int i = 0; i < c->n_tenants; i++)
        if (takes_turns(&c->tenant[i]))
            return true;
    return false;
}

static bool in_request(const struct ac_card *c)
{
    return c->resident && c->resident_tenant >= 0 && c->tenant[c->resident_tenant].prior;
}

/* What a round leaves between the slots, for those that have none. */
static void take_turns_until(struct ac_card *c, uint64_t until, bool sooner, uint64_t now)
{
    const struct tenant *p = c->primary >= 0 ? &c->tenant[c->primary] : NULL;
    if (p && takes_turns(p) && until < now + c->set.min_turn_ns)
        c->turn_end = until; /* too short for another */
    if (p && takes_turns(p) && now < c->turn_end && !sooner)
        return;
    if (c->aimed_at != until)
        aim(c, until - now);
    c->aimed_at = until;
    ac_begin_turn(c, ac_next_turn(c), now);
    if (c->turn_end + c->set.min_turn_ns > until)
        c->turn_end = until;
}

void ac_turn_in_slots(struct ac_card *c, bool sooner, uint64_t now)
{
    uint64_t until;
    bool valid = c->primary >= 0 && c->tenant[c->primary].used && c->tenant[c->primary].candidate;
    const struct slot *s = slot_at(c, now, &until);
    int rank = s ? rank_in(c, s) : -1;
    c->rotate = false;
    if (valid && (now >= c->round_end || (in_request(c) && now < c->turn_end + LATE_NS)))
        return; /* the next round begins for all its cards at once */
    if (rank >= 0 && (rank == c->primary || s->end > now + c->set.min_turn_ns)) {
        if (rank != c->primary || c->leftover)
            ac_begin_turn(c, rank, now);
        c->leftover = false;
        c->turn_end = s->end;
        return;
    }
    until = s ? s->end : until;
    if (anybody_without_slot(c)) {
        c->leftover = false;
        take_turns_until(c, until, sooner, now);
        return;
    }
    if (!valid)
        ac_begin_turn(c, ac_pick(c), now);
    c->leftover = true; /* nobody else wants it, and it is not held against whoever uses it */
    c->turn_end = until;
}
