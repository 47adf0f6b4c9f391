/* SPDX-License-Identifier: Apache-2.0
 * Turns by stop and resume, in rounds: in each, everybody reaches the same virtual time, so that an error made in one is
 * made good in the next. A round is a whole part of a second: then any second holds the same turns, whenever it begins.
 * It is as long as the budget for control calls asks.
 */
#include "state.h"

#define GANG_HOP_NS (2 * MS) /* shorter gaps of a rank are not lent */
#define FIRST_TRIALS 2
#define BEGINS_NS (3000 * MS)
#define FIRST_TRIAL_NS (300 * MS) /* from the first to the second, twice as much to the next */
#define MOST_TAKEN_MILLI 900
#define LONGEST_RUN_NS (25 * MS)
#define LONG_ENOUGH_NS (50 * MS) /* to tell what watching costs */
#define SORTING_NS (300 * MS)

bool ac_waiting(const struct ac_card *c)
{
    for (int i = 0; i < c->n_tenants; i++)
        if (i != c->primary && c->tenant[i].used && c->tenant[i].candidate && !are_mates(c, i, c->primary))
            return true;
    return false;
}

bool ac_has_mates(const struct ac_card *c, int tenant)
{
    for (int i = 0; i < c->n_tenants; i++)
        if (c->tenant[i].used && c->tenant[i].candidate && are_mates(c, i, tenant))
            return true;
    return false;
}

bool ac_may_wake(const struct ac_card *c)
{
    for (int i = 0; i < c->n_tenants; i++) {
        const struct tenant *t = &c->tenant[i];
        if (t->used && t->n_groups && !t->wants && t->runnable_since != AC_NEVER && (is_owner(t) || c->borrowed))
            return true;
    }
    return false;
}

uint64_t ac_second_part(uint64_t least_ns)
{
    const uint64_t second = 1000 * MS;
    return least_ns && least_ns <= second ? second / (second / least_ns) : least_ns;
}

/* With those that share its turns. */
static int64_t turn_weight(const struct ac_card *c, int tenant)
{
    int64_t weight = weight_of(&c->tenant[tenant]);
    for (int i = 0; i < c->n_tenants; i++)
        if (c->tenant[i].used && c->tenant[i].candidate && are_mates(c, i, tenant))
            weight += weight_of(&c->tenant[i]);
    return weight;
}

static int64_t due(const struct ac_card *c, int tenant)
{
    return (c->round_vt - c->tenant[tenant].vt) * turn_weight(c, tenant) / 1000;
}

/* Card time of that much time, as far as latency tenants and lent gaps leave it. */
static uint64_t left_of(const struct ac_card *c, uint64_t time_ns)
{
    return time_ns / 1000 * (1000 - c->taken_milli);
}

/* How long it takes to have that much card time of what they leave. */
static int64_t time_for(const struct ac_card *c, int64_t card_ns)
{
    return card_ns * 1000 / (1000 - (int64_t)c->taken_milli);
}

/* What the last round left to those who take turns, as far as there are any who go first: their requests cost changes of
 * the card, too. */
static void measure_taken(struct ac_card *c)
{
    uint64_t free_ns = c->usage.busy_ns - c->unfree_ns;
    uint64_t wall = c->accrued_at - c->round_began, left = free_ns > c->free_was ? free_ns - c->free_was : 0;
    if (wall < c->round_ns / 4)
        return;
    uint32_t milli = ac_latency_beside(c) && left <= wall ? 1000 - (uint32_t)(left * 1000 / wall) : 0;
    c->taken_milli = milli < MOST_TAKEN_MILLI ? milli : MOST_TAKEN_MILLI;
    c->round_began = c->accrued_at;
    c->free_was = free_ns;
}

/* What is left of a turn that ended early waits for the next round unless it is much: a turn of its own costs as much as
 * a whole one. */
static bool is_due(const struct ac_card *c, int tenant, uint64_t weight)
{
    uint64_t third = left_of(c, c->round_ns) * (uint64_t)turn_weight(c, tenant) / weight / 3;
    return due(c, tenant) >= (int64_t)(third > c->set.min_turn_ns ? third : c->set.min_turn_ns);
}

static uint64_t weight_of_candidates(const struct ac_card *c)
{
    uint64_t weight = 0;
    for (int i = 0; i < c->n_tenants; i++)
        if (c->tenant[i].used && c->tenant[i].candidate)
            weight += (uint64_t)weight_of(&c->tenant[i]);
    return weight ? weight : 1;
}

/* What it costs to watch is so much of the time, however long turns are. */
static uint64_t left_for_turns(struct ac_card *c)
{
    uint64_t wall = c->accrued_at - c->watched_from, most = c->budget_ppm / 2;
    if (wall >= LONG_ENOUGH_NS) {
        uint64_t ppm = c->watch_spent_ns * 1000 / (wall / 1000);
        c->watch_ppm = (c->watch_ppm + (ppm < most ? ppm : most)) / 2;
        c->watch_spent_ns = 0;
        c->watched_from = c->accrued_at;
    }
    return c->budget_ppm - (c->watch_ppm < most ? c->watch_ppm : most);
}

uint64_t ac_round_cost(struct ac_card *c, uint64_t *budget_ppm, uint64_t *least_ns)
{
    uint64_t n = 0;
    for (int i = 0; i < c->n_tenants; i++)
        n += c->tenant[i].used && c->tenant[i].candidate;
    uint64_t usual = n * (ac_cost(c, AC_STOP) + ac_cost(c, AC_RESUME));
    /* Less where not everybody need be stopped. */
    uint64_t cost = c->round_spent_ns ? c->round_spent_ns : usual;
    cost = cost < 2 * usual ? cost : 2 * usual; /* not what a start or a trial cost */
    if (c->lender >= 0) /* turns end early, in any gap of an owner */
        cost = cost * 3 / 2;
    c->round_spent_ns = 0;
    *least_ns = n * c->set.turn_ns;
    *budget_ppm = left_for_turns(c);
    uint64_t last = c->last_spent_ns;
    c->last_spent_ns = cost;
    return cost > last ? cost : last; /* one cheap round is no reason for shorter ones */
}

static uint64_t least_round(uint64_t cost_ns, uint64_t budget_ppm, uint64_t least_ns)
{
    uint64_t ns = cost_ns * 1060 / budget_ppm * 1000;
    return ns > least_ns ? ns : least_ns;
}

/* Every change of length shifts all turns, so it is not made for little; but what a start cost must not stretch all that come. */
uint64_t ac_round_length(uint64_t now_ns, uint64_t cost_ns, uint64_t budget_ppm, uint64_t least_ns)
{
    uint64_t least = least_round(cost_ns, budget_ppm, least_ns);
    return least > now_ns * 16 / 15 || least * 4 < now_ns * 3 ? ac_second_part(least) : now_ns;
}

static void begin_round(struct ac_card *c)
{
    int64_t lowest = INT64_MAX;
    for (int i = 0; i < c->n_tenants; i++)
        if (c->tenant[i].used && c->tenant[i].candidate)
            lowest = c->tenant[i].vt < lowest ? c->tenant[i].vt : lowest;
    uint64_t least, budget, cost = ac_round_cost(c, &budget, &least), wall = c->accrued_at - c->round_began;
    /* Ranks that wait for each other have less of a turn than it lasts, and so do rounds last longer than they are. */
    if (wall > c->round_ns && wall < c->round_ns * 3 / 2)
        cost = cost * (c->round_ns / 1000) / (wall / 1000);
    measure_taken(c);
    /* Between requests turns begin when those allow it: the length is no part of a second anyway. */
    c->round_ns = ac_latency_beside(c) ? least_round(cost, budget, least)
                                       : ac_round_length(c->round_ns, cost, budget, least);
    if (c->round_vt < lowest)
        c->round_vt = lowest;
    c->round_vt += (int64_t)(left_of(c, c->round_ns) * 1000 / weight_of_candidates(c));
}

bool ac_goes_first(const struct ac_card *c, const struct tenant *t)
{
    bool short_of_share = t->paused && c->lock_tokens_ns > 0 && t->vt <= ac_level_of_others(c, t);
    return takes_turns(t) && (t->woken || short_of_share);
}

/* When the first who paused is short of its share. */
uint64_t ac_first_look(const struct ac_card *c, uint64_t now)
{
    uint64_t first = AC_NEVER, weight = weight_of_candidates(c);
    for (int i = 0; i < c->n_tenants; i++) {
        const struct tenant *t = &c->tenant[i];
        if (i == c->primary || !takes_turns(t) || !t->paused)
            continue;
        int64_t ahead = (t->vt - ac_level_of_others(c, t)) / 1000 * (int64_t)(weight - (uint64_t)weight_of(t));
        uint64_t least = ac_look_pause(c);
        first = soonest(first, now + (ahead > (int64_t)least ? (uint64_t)ahead : least));
    }
    return first;
}

/* Found to hop, beside one that turned out to fill the card after all: whether it does is tried before anybody has its turn. */
static int untried(const struct ac_card *c)
{
    int best = -1;
    for (int i = 0; i < c->n_tenants && c->accrued_at < c->sorting_until; i++) {
        const struct tenant *t = &c->tenant[i];
        if (takes_turns(t) && t->yields && !t->gappy && !t->turns_to_trial && (best < 0 || t->vt < c->tenant[best].vt))
            best = i;
    }
    return best;
}

int ac_next_turn(struct ac_card *c)
{
    int best = untried(c);
    if (best >= 0)
        return best;
    uint64_t weight = weight_of_candidates(c);
    ac_hold_back(c);
    for (int i = 0; i < c->n_tenants; i++) {
        const struct tenant *t = &c->tenant[i];
        if (ac_goes_first(c, t) && (best < 0 || t->vt < c->tenant[best].vt))
            best = i;
    }
    for (int rounds = 0; best < 0 && rounds < 64; rounds++) {
        for (int k = 1; k <= c->n_tenants && best < 0; k++) {
            int i = (c->last_primary + k) % c->n_tenants;
            if (takes_turns(&c->tenant[i]) && is_due(c, i, weight))
                best = i;
        }
        if (best < 0 && c->n_slots)
            break; /* the next round is for all its cards to begin */
        if (best < 0)
            begin_round(c);
    }
    return best >= 0 ? best : ac_pick(c);
}

/* What a tenant shows while it is made, or begins, is not how it goes on, and who is taken to yield keeps all from the
 * hardware's turns: so it is tried again soon, and at once when another turned out to fill the card. */
static void plan_trials(struct ac_card *c, struct tenant *t, bool fills_after_all, uint64_t now)
{
    if (!t->n_trials)
        t->first_trial_at = now;
    for (int i = 0; fills_after_all && i < c->n_tenants; i++)
        if (!c->tenant[i].in_slots && now < c->tenant[i].first_trial_at + BEGINS_NS)
            c->tenant[i].turns_to_trial = 0;
    t->turns_to_trial = TRIAL_TURNS;
    t->trial_at = AC_NEVER;
    if (t->n_trials < FIRST_TRIALS && !t->in_slots)
        t->trial_at = now + (FIRST_TRIAL_NS << t->n_trials++);
}

/* Two runs of those that it gave the card up after; but an owner's work between two pauses is no kernel, and whoever has the
 * card for longer than that at a time fills it. (A trial as long as the turn left such owners in turns for good.) */
uint64_t ac_trial_ns(const struct tenant *t)
{
    uint64_t run_ns = t->run_ns < LONGEST_RUN_NS ? t->run_ns : LONGEST_RUN_NS, two = run_ns * 9 / 4;
    return two > TRIAL_NS ? two : TRIAL_NS;
}

/* The turn, or the part of it that is a trial, showed how its tenant works. */
void ac_judge_turn(struct ac_card *c, uint64_t now)
{
    struct tenant *t = &c->tenant[c->primary];
    uint64_t wall = now - c->judged_from;
    if (!t->used || !c->judging || wall < 4 * MS)
        return;
    if (!c->fill) {
        if (t->turns_to_trial)
            t->turns_to_trial = now < t->trial_at ? t->turns_to_trial - 1 : 0;
        return;
    }
    if (c->trial && !c->turn_held) { /* another kept the card: it showed nothing */
        t->turns_to_trial = 1;
        c->fill = c->trial = false;
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
    uint64_t slices = ac_slices_of_others(c, c->primary); /* which are longer where requests differ much */
    hop = hop > slices ? hop : slices;
    if (t->in_slots) /* whoever it keeps waiting by that has other cards, too */
        hop = hop > GANG_HOP_NS ? hop : GANG_HOP_NS;
    bool was = t->yields;
    bool too_short = was && c->turn_ends < 2 && t->run_ns > TRIAL_NS && wall < ac_trial_ns(t);
    bool left = c->turn_ends > 0; /* else it was only late to come, and another's time slice is none of its doing */
    t->gappy = left && held * 100 < wall * 92 && gap > hop;
    t->yields = too_short || c->turn_ends > 1 || (left && held * 100 < wall * 97);
    plan_trials(c, t, was && !t->yields, now);
    c->fill = t->gappy; /* else the rest of the turn is its own, */
    c->trial = false;
    if (was && !t->yields)
        c->sorting_until = now + SORTING_NS;
    if (untried(c) >= 0)
        c->turn_end = now; /* which it gives up for that, and has in the next round */
}

/* Somebody else's turns are filled, for which the time slices of all others are short. */
static bool gaps_beside(const struct ac_card *c)
{
    for (int i = 0; i < c->n_tenants; i++)
        if (i != c->primary && c->tenant[i].used && c->tenant[i].candidate && c->tenant[i].gappy)
            return true;
    return false;
}

/* Whoever does not keep the card against the one whose turn it is, or for a moment only, need not be stopped for it. Ranks
 * of a gang have time slices that are short enough. */
bool ac_stays(const struct ac_card *c, int tenant, int primary)
{
    const struct tenant *t = &c->tenant[tenant];
    return takes_turns(t) ? t->yields && t->run_ns <= TRIAL_NS : t->used && t->candidate && takes_turns(&c->tenant[primary]);
}

static bool somebody_stays(const struct ac_card *c, int tenant)
{
    bool any = !c->n_slots;
    for (int i = 0; i < c->n_tenants; i++)
        any |= i != tenant && ac_stays(c, i, tenant);
    return any;
}

void ac_begin_turn(struct ac_card *c, int tenant, uint64_t now)
{
    struct tenant *t = &c->tenant[tenant];
    if (c->primary >= 0)
        ac_judge_turn(c, now);
    if (c->primary != tenant)
        t->usage.n_turns++;
    c->primary = c->last_primary = tenant;
    for (int i = 0; i < c->n_tenants; i++)
        if (i == tenant || are_mates(c, i, tenant))
            c->tenant[i].woken = c->tenant[i].paused = false;
    bool others = ac_waiting(c);
    c->turn_began = now;
    c->judging = false;
    int64_t length = time_for(c, due(c, tenant)), most = (int64_t)(c->round_ns > c->set.turn_ns ? c->round_ns : c->set.turn_ns);
    length = length > most ? most : length;
    length = length < (int64_t)c->set.min_turn_ns ? (int64_t)c->set.min_turn_ns : length;
    c->turn_end = now + (uint64_t)length;
    bool mates = ac_has_mates(c, tenant);
    bool hops = t->yields || t->in_slots; /* which has no turns of the hardware's to show it */
    c->fill = others && !mates && !ac_latency_beside(c) && hops && (t->gappy || t->turns_to_trial == 0);
    c->trial = c->fill && !t->gappy;
    c->guard = others && !mates && somebody_stays(c, tenant) && !ac_latency_beside(c) && !t->yields && t->n_groups == 1 &&
               !ac_may_wake(c) && !gaps_beside(c);
    if (c->fill && c->turn_end < now + c->set.turn_ns)
        c->turn_end = now + c->set.turn_ns; /* setting time slices must pay */
    c->settled_at = AC_NEVER;
    c->next_look = now + c->set.min_turn_ns; /* it is planned when the turns have changed: until then nothing new can be seen */
    c->test_at = now + c->set.turn_ns / 2;
}
