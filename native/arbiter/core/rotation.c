/* SPDX-License-Identifier: Apache-2.0
 * The hardware's own turns, for tenants that fill the card: all are runnable, with time slices in proportion to their
 * requests. It costs no control calls but a correction now and then, whoever falls idle is passed over at once, and
 * every change of the card shows in the log. Who gives the card up early and soon wants it back would lose its turn by
 * that, so it takes turns by stop and resume instead, and all with it; so do ranks that shall run at the same time.
 */
#include "state.h"

#define ROUNDS_A_TRIM 5
#define GAP_NS (83 * US)     /* from one context to the next, nobody's: measured on an H200 */
#define SWITCH_NS (180 * US) /* with what warming up costs */
#define LEAST_SLICE_NS (1 * MS)
#define LONGEST_ROUND_NS (145 * MS)
#define NEW_NS (1500 * US)  /* since the list's first came: as long it loses little by having its time slice once more */
#define FORCED_NS (2 * MS)  /* between calls of ours that are one act, and from one to what it did in the log */
#define SEEN_NS (500 * US)  /* after a call, who has the card is there by it */
#define HOPS 2
#define STAYED 3 /* time slices without a hop: it has none */
#define FOUND 4 /* times, each no later after the last than: */
#define FORGOTTEN_NS (2000 * MS)
#define SOON_NS (15 * MS)
#define PATIENT_PART 16
#define OLD_PART 32
#define OLD_ROUNDS 2 /* what is more than these is an old debt */

bool ac_can_rotate(const struct ac_card *c, int n_candidates)
{
    if (n_candidates < 2 || c->n_slots || ac_latency_beside(c) || ac_may_wake(c))
        return false;
    for (int i = 0; i < c->n_tenants; i++) {
        const struct tenant *t = &c->tenant[i];
        if (t->used && t->candidate && (t->yields || !t->n_groups || ac_has_mates(c, i)))
            return false;
    }
    return true;
}

/* As short as a loss of 1 % by changes of the card allows (1.3 % for many tenants), and no slice too short. */
static uint64_t round_length(const struct ac_card *c)
{
    uint64_t n = 0, weight = 0, least = UINT64_MAX;
    for (int i = 0; i < c->n_tenants; i++)
        if (c->tenant[i].used && c->tenant[i].candidate) {
            uint64_t w = (uint64_t)weight_of(&c->tenant[i]);
            n++;
            weight += w;
            least = w < least ? w : least;
        }
    uint64_t length = n <= 5 ? (20 * n + 10) * MS : (110 * MS > 14 * n * MS ? 110 * MS : 14 * n * MS);
    uint64_t fair = LEAST_SLICE_NS * weight / least;
    fair = fair < LONGEST_ROUND_NS ? fair : LONGEST_ROUND_NS;
    return ac_second_part(length > fair ? length : fair);
}

/* What the tenant is short of, against the mean of all. */
static int64_t owed(const struct ac_card *c, const struct tenant *t)
{
    int64_t weight = 0, sum = 0;
    for (int i = 0; i < c->n_tenants; i++)
        if (c->tenant[i].used && c->tenant[i].candidate) {
            weight += weight_of(&c->tenant[i]);
            sum += weight_of(&c->tenant[i]) * (c->tenant[i].vt / 1000 - t->vt / 1000);
        }
    return weight ? sum / weight * weight_of(t) : 0;
}

/* What is owed is made good over the next rounds, or little by little where it comes from a round of turns that did not end
 * and may go on, or from a time that is long over; what every time slice is exceeded by is known from the log. */
static void correct(struct ac_card *c, uint64_t now)
{
    int64_t weight = 0, n = 0;
    for (int i = 0; i < c->n_tenants; i++)
        if (c->tenant[i].used && c->tenant[i].candidate) {
            weight += weight_of(&c->tenant[i]);
            n++;
        }
    int64_t round = (int64_t)c->round_ns - n * (int64_t)GAP_NS;
    for (int i = 0; i < c->n_tenants; i++) {
        struct tenant *t = &c->tenant[i];
        if (!t->used || !t->candidate)
            continue;
        int64_t part = round * weight_of(t) / weight;
        int64_t due = owed(c, t), more = due * 3 / (4 * ROUNDS_A_TRIM * (int64_t)ac_rarer(c));
        t->owes_much = due > OLD_ROUNDS * round || -due > OLD_ROUNDS * round;
        int64_t most = t->owes_much ? part / OLD_PART : now < c->patient_until ? part / PATIENT_PART : INT64_MAX;
        more = more > most ? most : more < -most ? -most : more;
        int64_t want = part + more;
        want = want < part / 3 ? part / 3 : want > 2 * part ? 2 * part : want;
        t->slice_ns = want - t->over_ns * t->n_groups;
    }
}

/* Those who were idle. Whoever has the card has half a time slice at first: then what it had is neither ahead of its share
 * for long nor behind. The others were in the middle of a round of longer turns, if several took them. */
static void take_in(struct ac_card *c, uint64_t now)
{
    int n_others = 0;
    bool any = false;
    for (int i = 0; i < c->n_tenants; i++) {
        struct tenant *t = &c->tenant[i];
        const struct group *g = t->used && t->candidate && t->paused && !t->woken ? ac_on_card(c) : NULL;
        if (g && g->tenant == i)
            c->cut_at = now + g->slice_on_us * US / 2;
        if (!c->rotate && t->used && t->candidate && t->woken)
            c->lets_in = i; /* it would wait for the time slices of all that come before it in the list */
        any |= t->paused;
        n_others += t->used && t->candidate && !t->paused;
        t->woken = t->paused = false;
    }
    if (any && n_others > 1)
        c->patient_until = now + PATIENT_NS;
}

void ac_rotate(struct ac_card *c, uint64_t now)
{
    uint64_t length = round_length(c);
    bool anew = !c->rotate || length != c->round_ns;
    for (int i = 0; i < c->n_tenants; i++)
        anew |= c->tenant[i].used && c->tenant[i].candidate && !c->tenant[i].slice_ns;
    take_in(c, now);
    c->rotate = true;
    c->primary = -1;
    c->fill = c->trial = c->guard = c->reconsider = false;
    if (!anew && now < c->trim_at)
        return;
    c->round_ns = length;
    correct(c, now);
    c->trim_at = now + ROUNDS_A_TRIM * ac_rarer(c) * length;
    if (c->lets_in >= 0)
        c->cut_at = now + (uint64_t)c->tenant[c->lets_in].slice_ns / 2;
}

/* Whoever wakes has half a time slice at first: then what it had is neither ahead of its share for long nor behind. */
bool ac_halve(struct ac_card *c, uint64_t now, struct ac_action *a)
{
    const struct group *g = now >= c->cut_at && c->rotate && c->lock_tokens_ns > 0 ? ac_on_card(c) : NULL;
    bool still = g && c->started_at + g->slice_on_us * US / 2 < now + MS && c->started_at < c->cut_at;
    if (now >= c->cut_at)
        c->cut_at = AC_NEVER;
    if (!still)
        return false;
    *a = on_group(AC_PREEMPT, g, 0);
    return true;
}

/* The hardware began its list anew by a call of ours. */
void ac_forced(struct ac_card *c, uint64_t now)
{
    if (now > c->forced_at + FORCED_NS)
        c->forced_from = now;
    c->forced_at = now;
}

/* Soon after a time slice was set the first of the hardware's list has the card: it came then, or has its time slice once
 * more. Is it `g`, which has or had the card from `from` to `until`? */
void ac_list_began(struct ac_card *c, const struct group *g, uint64_t from, uint64_t until)
{
    uint64_t seen_at = c->listed_at + SEEN_NS;
    if (!c->unseen || until <= seen_at)
        return;
    c->unseen = false;
    if (!g || from > seen_at || !c->rotate || c->lost || g->slice_on_us * US < 2 * SEEN_NS)
        return;
    bool came = from + SEEN_NS >= c->forced_from;
    int seen = (int)(g - c->group);
    if (c->first < 0 || came || seen == c->first_seen) /* that it stayed may be since records are missing */
        c->first = seen;
    c->first_seen = seen;
}

/* A call that sets a time slice makes the hardware begin its list anew: whoever has the card loses the rest of its turn to
 * the list's first, or, being that, has it once more (H200, 580.159.04). Where the first has just come, both are little. */
bool ac_awaits_list(struct ac_card *c, uint64_t now)
{
    const struct group *g = ac_on_card(c), *first = c->first >= 0 ? &c->group[c->first] : NULL;
    if (!first || !first->used || first->stopped || !c->tenant[first->tenant].wants)
        return false;
    if (g == first && now < c->started_at + NEW_NS)
        return false;
    c->due_at = c->due_at ? c->due_at : now;
    if (now > c->due_at + 2 * c->round_ns)
        return false;
    uint64_t ends_at = g ? c->started_at + g->slice_on_us * US + SWITCH_NS : now;
    c->next_look = soonest(c->next_look, ends_at > now ? ends_at : now + MS);
    return true;
}

uint64_t ac_slices_of_others(const struct ac_card *c, int than)
{
    uint64_t sum = 0;
    for (int i = 0; i < c->n_groups; i++) {
        const struct group *g = &c->group[i];
        if (!g->used || g->stopped || g->tenant == than || !c->tenant[g->tenant].wants)
            continue;
        uint32_t us = g->slice_us ? g->slice_us : DEFAULT_SLICE_US;
        sum += (us > g->slice_on_us ? us : g->slice_on_us) * US + 2 * SWITCH_NS;
    }
    return sum;
}

/* Whether a call of ours ended its run, or made its time slice another meanwhile. */
static bool was_forced(const struct ac_card *c, uint64_t at)
{
    uint64_t from = c->rotate ? c->started_at : at;
    return from <= c->forced_at + FORCED_NS && at + FORCED_NS >= c->forced_from;
}

static bool had_its_slice(const struct group *g, uint64_t had_ns)
{
    return had_ns * 20 >= g->slice_on_us * US * 17;
}

/* By a call of ours, or by the end of a shorter time slice than it has by now. */
bool ac_had_to_leave(const struct ac_card *c, const struct group *g, uint64_t had_ns, uint64_t at)
{
    return was_forced(c, at) || (g->slice_on_us < real_us(g) / 2 && had_its_slice(g, had_ns));
}

void ac_gave_up(struct ac_card *c, const struct group *g, uint64_t had_ns, uint64_t at)
{
    struct tenant *t = &c->tenant[g->tenant];
    t->yielded_at = AC_NEVER;
    if (!(c->rotate || (c->guard && g->tenant == c->primary)) || !g->slice_us || g->stopped)
        return;
    bool forced = was_forced(c, at);
    int64_t over = (int64_t)had_ns - (int64_t)(g->slice_on_us * US), bound = (int64_t)(g->slice_on_us * US) / 4;
    /* Alone on the card it shows no hops, and of several contexts one may wait on the card for another. */
    bool counts = over < bound && t->n_groups == 1;
    t->since_ns = counts ? t->since_ns + had_ns : 0;
    t->had_all = c->rotate && (int64_t)(had_ns + 50 * US) >= (int64_t)(g->slice_on_us * US) + t->over_ns;
    if (had_its_slice(g, had_ns)) {
        /* In a shorter one than is its part anybody stays, and with long kernels through several. */
        if ((int64_t)(2 * g->slice_on_us * US) >= t->slice_ns && (!counts || t->since_ns > STAYED * g->slice_on_us * US))
            t->n_hops = 0;
        if (c->rotate && over < bound && !forced)
            t->over_ns = (3 * t->over_ns + over) / 4;
    } else if (!forced) {
        t->yielded_at = at;
        t->gave_up_ns = t->since_ns;
        t->since_ns = 0;
    }
}

void ac_came_back(struct ac_card *c, int tenant, uint64_t at)
{
    struct tenant *t = &c->tenant[tenant];
    if (t->yielded_at == AC_NEVER)
        return;
    uint64_t slices = ac_slices_of_others(c, tenant) * 5 / 4 + 5 * MS;
    bool soon = at < t->yielded_at + (slices > SOON_NS ? slices : SOON_NS);
    t->yielded_at = AC_NEVER;
    t->n_hops = soon ? t->n_hops + 1 : 0;
    if (soon) /* else it paused: what it had was no run between two hops */
        t->run_ns = t->gave_up_ns > t->run_ns * 3 / 4 ? t->gave_up_ns : t->run_ns * 3 / 4;
    if (t->n_hops < HOPS)
        return;
    t->n_hops = 0;
    if (t->yields) /* found already, by a record that was read at once with this one */
        return;
    t->yields = true;
    /* Whoever was found not to, and does again, has pauses that a trial is too short for. */
    t->n_found = at < t->found_at + FORGOTTEN_NS ? t->n_found + 1 : 1;
    t->found_at = at;
    t->turns_to_trial = t->n_found > FOUND ? TRIAL_TURNS : 0;
    c->reconsider = true;
}
