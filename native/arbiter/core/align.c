/* SPDX-License-Identifier: Apache-2.0
 * Ranks of one job on several cards have their turns at the same moments: a rank that waits for one that is stopped on
 * another card gets nothing done. Cards that a gang connects, be it over others, have their rounds in common, and in each
 * round a gang has a slot that is the same on all its cards: the matrix of Ousterhout (1982), cards by time. A gang's part
 * is the least that it is due on any of its cards; those whose slots find no room take turns card by card as all others do.
 */
#include "align.h"

#define MAX_GANGS 64
#define KEPT_NS (1000 * MS) /* a shorter pause of a rank does not end the common rounds */
#define LATE_NS (5 * MS)    /* at most: a card whose log need not be read */

static bool has_turns(const struct ac_card *c, const struct tenant *t)
{
    return t->used && t->n_groups && !t->suspended && !t->prior && (t->wants || c->accrued_at < t->idle_since + KEPT_NS);
}

static bool has_owners(const struct ac_card *c)
{
    for (int i = 0; i < c->n_tenants; i++)
        if (c->tenant[i].class != FX_CLASS_BEST_EFFORT && has_turns(c, &c->tenant[i]))
            return true;
    return false;
}

/* What part of the card a gang is due; 0: it takes no turns here, or nobody else does. */
static uint64_t part_of(const struct ac_card *c, uint32_t gang)
{
    bool owners = has_owners(c);
    uint64_t own = 0, all = 0, limit_milli = 0;
    for (int i = 0; i < c->n_tenants; i++) {
        const struct tenant *t = &c->tenant[i];
        if (!has_turns(c, t) || (owners && t->class == FX_CLASS_BEST_EFFORT))
            continue;
        all += (uint64_t)weight_of(t);
        if (t->gang != gang || t->class == FX_CLASS_LATENCY)
            continue;
        own += (uint64_t)weight_of(t);
        limit_milli += t->limit_milli;
    }
    return own == all ? 0 : soonest(own * WHOLE_PPM / all, limit_milli * 1000);
}

/* Those that share two cards or more with others. */
static int find_gangs(struct ac_card *const *cards, int n_cards, struct gang *gangs)
{
    int n = 0;
    for (int k = 0; k < n_cards; k++)
        for (int i = 0; cards[k] && i < cards[k]->n_tenants; i++) {
            const struct tenant *t = &cards[k]->tenant[i];
            int g = 0;
            while (g < n && gangs[g].id != t->gang)
                g++;
            if (!t->used || !t->gang || g == MAX_GANGS || (g < n && gangs[g].cards >> k & 1))
                continue;
            uint64_t part_ppm = part_of(cards[k], t->gang);
            if (!part_ppm)
                continue;
            if (g == n)
                gangs[n++] = (struct gang){.id = t->gang, .part_ppm = WHOLE_PPM};
            gangs[g].cards |= 1u << k;
            gangs[g].part_ppm = soonest(gangs[g].part_ppm, part_ppm);
        }
    for (int g = 0; g < n; g++)
        if (!(gangs[g].cards & (gangs[g].cards - 1)))
            gangs[g--] = gangs[--n];
    return n;
}

static int64_t within(int64_t value, int64_t bound)
{
    return value > bound ? bound : value < -bound ? -bound : value;
}

static void end_slots(struct ac_card *c)
{
    for (int i = 0; i < c->n_tenants; i++) {
        if (c->tenant[i].in_slots)
            c->tenant[i].vt = c->round_vt; /* level: what it did not use on this card is not owed to it */
        c->tenant[i].in_slots = false;
    }
    c->n_slots = 0;
    c->leftover = false;
    c->reconsider = true;
}

/* What the round left each slot short of its part of the time that was to be had. */
static void settle(struct ac_card *c, uint64_t now)
{
    uint64_t past = now - c->round_at, free = past > c->unfree_ns ? past - c->unfree_ns : 0;
    for (int i = 0; i < c->n_slots; i++) {
        struct slot *s = &c->slot[i];
        int64_t part = (int64_t)(free * s->part_ppm / WHOLE_PPM), most = (int64_t)(c->round_ns * s->part_ppm / WHOLE_PPM);
        s->due_ns = within(s->due_ns + part - s->held_ns, most);
        s->held_ns = 0;
    }
}

/* A gang's slot is longer by what all its ranks were short of: some leave gaps in theirs. */
static int64_t due_everywhere(struct ac_card *const *cards, int n_cards, const struct gang *g)
{
    int64_t least = INT64_MAX;
    for (int k = 0; k < n_cards; k++) {
        int64_t due = 0;
        for (int i = 0; (g->cards >> k & 1) && i < cards[k]->n_slots; i++)
            if (cards[k]->slot[i].gang == g->id)
                due = cards[k]->slot[i].due_ns;
        if (g->cards >> k & 1)
            least = due < least ? due : least;
    }
    return least;
}

/* What one rank alone was short of is made good little by little: all of them shall begin and end together. */
static void set_slots(struct ac_card *c, int card, const struct gang *gangs, int n, uint64_t end, uint64_t now)
{
    struct slot was[AC_MAX_SLOTS];
    int n_was = c->n_slots;
    for (int i = 0; i < n_was; i++)
        was[i] = c->slot[i];
    end_slots(c);
    for (int g = 0; g < n && c->n_slots < AC_MAX_SLOTS; g++) {
        if (!(gangs[g].cards >> card & 1))
            continue;
        struct slot *s = &c->slot[c->n_slots++];
        *s = (struct slot){.gang = gangs[g].id, .part_ppm = gangs[g].placed ? gangs[g].part_ppm : 0};
        int64_t length = (int64_t)gangs[g].length, alone = 0;
        for (int i = 0; i < n_was; i++)
            if (was[i].gang == s->gang && was[i].part_ppm && s->part_ppm)
                alone = within(was[i].due_ns - gangs[g].due_ns, length / 8); /* more is forgiven */
        s->due_ns = gangs[g].due_ns + alone;
        s->begin = now + gangs[g].begin;
        s->end = s->begin + (uint64_t)(length + within(alone, length / 40));
        for (int i = 0; i < c->n_tenants && s->part_ppm; i++)
            if (c->tenant[i].gang == s->gang && c->tenant[i].class != FX_CLASS_LATENCY)
                c->tenant[i].in_slots = true;
    }
    for (int i = 1; i < c->n_slots; i++)
        for (int k = i; k > 0 && c->slot[k].begin < c->slot[k - 1].begin; k--) {
            struct slot later = c->slot[k - 1];
            c->slot[k - 1] = c->slot[k];
            c->slot[k] = later;
        }
    c->round_at = now;
    c->round_end = end;
    c->unfree_ns = c->aimed_at = 0;
}

/* The next round of cards that are connected. */
static void begin_rounds(struct ac_card *const *cards, int n_cards, uint32_t some, struct gang *gangs, int n, uint64_t now)
{
    uint64_t cost = 0, budget = 0, least = 0, round_ns = 0;
    int64_t tokens_ns = 0;
    for (int k = 0; k < n_cards; k++)
        if (some >> k & 1) {
            uint64_t turns, left;
            settle(cards[k], now);
            cost += ac_round_cost(cards[k], &left, &turns);
            budget += left;
            tokens_ns += cards[k]->lock_tokens_ns;
            least = least > turns ? least : turns;
            round_ns = round_ns > cards[k]->round_ns ? round_ns : cards[k]->round_ns;
        }
    round_ns = ac_round_length(round_ns, cost, budget, least);
    for (int g = 0; g < n; g++)
        if (gangs[g].cards & some)
            gangs[g].due_ns = due_everywhere(cards, n_cards, &gangs[g]);
    /* What is due is made good where there is room; else it counts what one is owed more than another. */
    int64_t most_due = 0;
    for (int g = 0; g < n; g++)
        if ((gangs[g].cards & some) && gangs[g].due_ns > most_due)
            most_due = gangs[g].due_ns;
    int n_left = ac_place_all(gangs, n, some, round_ns, most_due);
    if (ac_place_all(gangs, n, some, round_ns, 0) > n_left)
        ac_place_all(gangs, n, some, round_ns, most_due);
    for (int k = 0; k < n_cards; k++)
        if (some >> k & 1) {
            cards[k]->round_ns = round_ns;
            set_slots(cards[k], k, gangs, n, now + round_ns, now);
            cards[k]->lock_tokens_ns = tokens_ns / __builtin_popcount(some); /* what the rounds of all leave is all cards' */
        }
}

static bool has_slots_of(const struct ac_card *c, int card, const struct gang *gangs, int n)
{
    int n_found = 0, n_here = 0;
    for (int g = 0; g < n; g++) {
        if (!(gangs[g].cards >> card & 1))
            continue;
        n_here++;
        for (int i = 0; i < c->n_slots; i++)
            n_found += c->slot[i].gang == gangs[g].id;
    }
    return n_found == c->n_slots && (n_here == n_found || n_found == AC_MAX_SLOTS);
}

static bool is_over(struct ac_card *const *cards, int n_cards, uint32_t some, const struct gang *gangs, int n, uint64_t now)
{
    const struct ac_card *first = cards[__builtin_ctz(some)];
    uint64_t end = first->round_end;
    bool as_planned = true, told = true; /* what the round was, by the log */
    for (int k = 0; k < n_cards; k++)
        if (some >> k & 1) {
            as_planned &= cards[k]->round_at == first->round_at && has_slots_of(cards[k], k, gangs, n);
            told &= cards[k]->log_at >= end;
        }
    return !as_planned || now >= end + LATE_NS || (now >= end && told);
}

/* A rank that is stopped at its limit stops all: they would wait for it, and use up theirs. */
static bool share_limits(struct ac_card *const *cards, int n_cards)
{
    bool changed = false;
    for (int k = 0; k < n_cards; k++)
        for (int i = 0; cards[k] && i < cards[k]->n_tenants; i++) {
            struct tenant *t = &cards[k]->tenant[i];
            bool at_limit = false;
            if (!t->used || !t->gang || t->limit_milli >= 1000)
                continue;
            for (int j = 0; j < n_cards; j++)
                for (int o = 0; cards[j] && o < cards[j]->n_tenants; o++) {
                    const struct tenant *other = &cards[j]->tenant[o];
                    at_limit |= other != t && other->used && other->gang == t->gang && other->throttled && other->n_groups;
                }
            changed |= t->rank_at_limit != at_limit;
            t->rank_at_limit = at_limit;
        }
    return changed;
}

bool ac_align(struct ac_card *const *cards, int n_cards, uint64_t now)
{
    struct gang gangs[MAX_GANGS];
    bool changed = share_limits(cards, n_cards);
    int n = find_gangs(cards, n_cards, gangs);
    uint32_t left = 0;
    for (int g = 0; g < n; g++)
        left |= gangs[g].cards;
    for (int k = 0; k < n_cards; k++)
        if (cards[k] && cards[k]->n_slots && !(left >> k & 1)) {
            end_slots(cards[k]);
            changed = true;
        }
    while (left) {
        uint32_t some = left & -left;
        for (int g = 0, joined = 0; g < n; g = joined ? 0 : g + 1) {
            joined = (gangs[g].cards & some) && (gangs[g].cards & ~some);
            some |= joined ? gangs[g].cards : 0;
        }
        if (is_over(cards, n_cards, some, gangs, n, now)) {
            begin_rounds(cards, n_cards, some, gangs, n, now);
            changed = true;
        }
        left &= ~some;
    }
    return changed;
}
