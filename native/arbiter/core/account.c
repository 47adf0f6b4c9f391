/* SPDX-License-Identifier: Apache-2.0
 * Who had the card, by the context-switch log, and what that costs them.
 *
 * Contract of the log: any END closes the engine's open interval; the END of a freed channel may carry no pid or be
 * missing; a context alone on the card emits nothing, whether it works or not.
 */
#include "state.h"

#define PAUSE_NS (100 * MS)
#define SHORT_NS (15 * MS)
#define WINDOW_NS (200 * MS) /* over which borrowing is judged */
#define STALL_NS (1000 * MS) /* while turns are taken we are back sooner: our clock leapt, and the turn goes on; or we stood */
#define LEAP_NS (20 * MS)    /* what clocks may be off by between two readings */

/* Ranks of one job share their turns, whoever of them has the card meanwhile. */
static void spend(struct ac_card *c, int tenant, int64_t ns)
{
    struct tenant *t = &c->tenant[tenant];
    int64_t weight = weight_of(t);
    for (int i = 0; t->gang && i < c->n_tenants; i++)
        if (are_mates(c, i, tenant) && c->tenant[i].used && c->tenant[i].wants)
            weight += weight_of(&c->tenant[i]);
    t->vt += ns * 1000 / weight;
    for (int i = 0; t->gang && i < c->n_tenants; i++)
        if (are_mates(c, i, tenant) && c->tenant[i].used && c->tenant[i].wants)
            c->tenant[i].vt += ns * 1000 / weight;
    if (t->in_slots)
        ac_charge_slot(c, tenant, ns);
}

void ac_charge(struct ac_card *c, int tenant, uint64_t ns)
{
    c->usage.busy_ns += ns;
    if (tenant < 0) {
        c->usage.outside_ns += ns;
        c->unfree_ns += ns;
        return;
    }
    struct tenant *t = &c->tenant[tenant];
    t->usage.held_ns += ns;
    spend(c, tenant, (int64_t)ns);
    c->unfree_ns += t->prior ? ns : 0;
    t->tokens_ns -= (int64_t)ns;
    if (t->class == FX_CLASS_LATENCY && ac_others_want(c, tenant)) /* what nobody else wanted is no use of the right to go first */
        t->priority_ns -= (int64_t)ns;
    if (tenant == c->primary)
        c->turn_held += ns;
    if (t->class == FX_CLASS_BEST_EFFORT)
        c->lent_ns += ns;
}

void ac_refund(struct ac_card *c, int tenant, uint64_t ns)
{
    struct tenant *t = &c->tenant[tenant];
    c->usage.busy_ns -= ns;
    t->usage.held_ns -= ns;
    spend(c, tenant, -(int64_t)ns);
    t->tokens_ns += (int64_t)ns;
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static bool is_level(const struct tenant *t, const struct tenant *but)
{
    return t != but && t->used && t->wants && !t->in_slots && !t->suspended && !t->throttled;
}

/* Where those who want the card are, but for one: by turns they are at their mean, whoever of them is ahead of another; of
 * the others the least is next. Where nobody wants it, as it was when somebody last did. Borrowers stand still while owners
 * work, so they tell nothing of these as long as others do, nor the reverse. */
int64_t ac_level_of_others(const struct ac_card *c, const struct tenant *but)
{
    int64_t lowest = INT64_MAX, weight = 0, sum = 0;
    bool like = false;
    for (int i = 0; i < c->n_tenants && but; i++)
        like |= is_level(&c->tenant[i], but) && is_owner(&c->tenant[i]) == is_owner(but);
    for (int i = 0; i < c->n_tenants; i++) {
        const struct tenant *o = &c->tenant[i];
        if (!is_level(o, but) || (like && is_owner(o) != is_owner(but)))
            continue;
        lowest = o->vt < lowest ? o->vt : lowest;
        weight += weight_of(o);
        sum += weight_of(o) * (o->vt / 1000);
    }
    if (!weight)
        return c->level_vt;
    return c->backend == FX_BACKEND_HWSLICE ? sum / weight * 1000 : lowest;
}

void ac_accrue(struct ac_card *c, uint64_t now)
{
    uint64_t past = now > c->accrued_at ? now - c->accrued_at : 0;
    bool window_over = now - c->window_at >= WINDOW_NS;
    uint64_t asked_milli = 0;
    for (int i = 0; i < c->n_tenants; i++)
        asked_milli += c->tenant[i].used ? c->tenant[i].request_milli : 0;
    if (past > STALL_NS && c->primary >= 0 && !c->rotate && !c->n_slots && ac_others_want(c, c->primary)) {
        c->turn_began += past;
        c->turn_end += past;
    }
    c->accrued_at = now;
    c->lock_tokens_ns = least(c->lock_tokens_ns + (int64_t)(past * c->budget_ppm / 1000000), (int64_t)c->budget_ppm * 500);
    for (int i = 0; i < c->n_tenants; i++) {
        struct tenant *t = &c->tenant[i];
        if (!t->used)
            continue;
        int64_t high = ac_full_bucket(c, t);
        int64_t cap = (int64_t)(60 * MS) / 1000 * t->limit_milli, slot = (int64_t)c->round_ns / 1000 * t->limit_milli;
        cap = t->in_slots && cap < slot ? slot : cap; /* it has its time in one piece */
        if (c->log_at && now > c->log_at) /* what it had since is not charged yet */
            cap += (int64_t)((now - c->log_at) / 1000 * t->limit_milli);
        t->tokens_ns = least(t->tokens_ns + (int64_t)(past / 1000 * t->limit_milli + past % 1000 * t->limit_milli / 1000),
                             cap > 2 * high ? cap : 2 * high);
        /* Where more is asked for than the card has, everybody's part is so much smaller: turns are by virtual time anyway. */
        uint64_t scaled_milli = asked_milli > 1000 ? t->request_milli * 1000ull / asked_milli : t->request_milli;
        int64_t priority_cap = (int64_t)(200 * MS / 1000 * scaled_milli);
        t->priority_ns = least(t->priority_ns + (int64_t)(past / 1000 * scaled_milli), priority_cap);
        t->spent = t->spent ? t->priority_ns < priority_cap / 10 : t->priority_ns < 0;
        if (t->wants) {
            t->usage.wanted_ns += past;
            if (c->backend == FX_BACKEND_LEASE ? !t->open : t->runnable_since == AC_NEVER)
                t->usage.stopped_ns += past;
        }
        if (window_over) {
            uint64_t had = t->usage.held_ns > t->window_held ? t->usage.held_ns - t->window_held : 0;
            uint64_t part = (now - c->window_at) / 1000 * scaled_milli;
            if (had > part)
                t->usage.borrowed_ns += had - part;
            t->window_held = t->usage.held_ns;
        }
    }
    c->level_vt = ac_level_of_others(c, NULL);
    if (window_over)
        c->window_at = now;
}

/* Found out later: since it last had the card, or might have. */
void ac_sleeps(struct ac_card *c, struct tenant *t)
{
    uint64_t since = t->runnable_since != AC_NEVER && t->runnable_since > t->last_run ? t->runnable_since : t->last_run;
    if (t->wants)
        t->idle_since = since < c->accrued_at ? since : c->accrued_at;
    t->wants = false;
}

/* An owner comes back: what it did not ask for while idle is not owed to it; a short pause is none. */
void ac_wakes(struct ac_card *c, struct tenant *t)
{
    if (t->wants)
        return;
    t->wants = true;
    c->reconsider = true;
    uint64_t slept = c->accrued_at > t->idle_since ? c->accrued_at - t->idle_since : 0;
    /* Its turn is the next after a pause in which it might have lent much; after a shorter one when it is short of its
     * share, as far as the budget for control goes. */
    t->woken |= slept >= PAUSE_NS;
    t->paused |= slept >= SHORT_NS;
    if (slept < PAUSE_NS)
        return;
    /* Whatever it did before, while it was made perhaps: two hops tell it from one that fills the card, a trial takes
     * several rounds. */
    t->yields = t->gappy;
    t->n_trials = 0;
    t->run_ns = t->since_ns = 0;
    ac_level(c, t);
}

/* It begins level with the others, a little ahead. What somebody had of an idle card is no debt to who comes after. */
void ac_level(const struct ac_card *c, struct tenant *t)
{
    int64_t credit = c->backend == FX_BACKEND_HWSLICE ? 0 : (int64_t)c->set.turn_ns * 1000 / weight_of(t) / 2;
    int64_t least_vt = ac_level_of_others(c, t) - credit;
    if (t->vt < least_vt)
        t->vt = least_vt;
}

void ac_unknown_group(struct ac_card *c, uint32_t pid)
{
    if (pid == 0 || pid == UINT32_MAX)
        return;
    for (int i = 0; i < c->n_discover; i++)
        if (c->discover[i] == pid)
            return;
    if (c->n_discover < 16)
        c->discover[c->n_discover++] = pid;
}

struct group *ac_find_group(struct ac_card *c, uint32_t pid, uint32_t context)
{
    struct group *unnamed = NULL, *only = NULL;
    int n = 0;
    for (int i = 0; i < c->n_groups; i++) {
        struct group *g = &c->group[i];
        if (!g->used || (g->id.pid != pid && pid != UINT32_MAX && pid))
            continue;
        if (context && g->id.context == context)
            return g;
        if (!g->id.context && g->id.pid == pid && !unnamed)
            unnamed = g;
        if (g->id.pid == pid) {
            only = g;
            n++;
        }
    }
    /* A driver's log may name a group differently from one time to the next (seen on an H200: a program's first context
     * is replaced). Of a program with one group the record can mean no other. */
    if (!unnamed && n == 1) {
        unnamed = only;
        ac_unknown_group(c, pid); /* unless it has a second one by now */
    }
    if (unnamed && context)
        unnamed->id.context = context;
    return unnamed;
}

struct group *ac_on_card(const struct ac_card *c)
{
    for (int i = 0; i < c->n_groups && c->resident; i++) {
        const struct group *g = &c->group[i];
        if (g->used && !g->stopped && g->tenant == c->resident_tenant && g->id.context == c->resident_context)
            return (struct group *)g;
    }
    return NULL;
}

static const struct process *find_process(const struct ac_card *c, uint32_t pid)
{
    for (int i = 0; i < c->n_processes; i++)
        if (c->process[i].pid == pid && pid)
            return &c->process[i];
    return NULL;
}

static void started(struct ac_card *c, const struct cc_log_record *r, uint64_t ts, uint64_t at, uint64_t earliest)
{
    struct group *g = ac_find_group(c, r->pid, r->context);
    const struct process *p = g ? NULL : find_process(c, r->pid);
    if (c->resident)
        ac_close_after_loss(c, NULL, ts, g ? g->tenant : -1); /* its END is missing */
    else if (c->lost && c->last_ts && ts > c->last_ts)
        ac_charge_unknown(c, ts - c->last_ts, c->last_tenant, g ? g->tenant : -1); /* who came and went meanwhile is not known */
    c->resident = true;
    c->resident_tenant = g ? g->tenant : p ? p->tenant : AC_OUTSIDE;
    if (c->resident_tenant != c->last_tenant) {
        c->alone_since = at;
        c->n_lent += c->lender >= 0 && c->last_tenant == c->lender;
    }
    c->last_tenant = c->resident_tenant;
    c->resident_pid = r->pid;
    c->resident_context = r->context;
    c->open_at = c->started_ts = ts;
    c->started_at = earliest;
    c->lost = false;
    if (g) {
        uint32_t us = at < g->slice_at ? g->slice_was_us : real_us(g);
        g->slice_on_us = us ? us : DEFAULT_SLICE_US;
        if (!g->ran) {
            g->ran = true;
            g->slice_us = 0; /* a time slice set before the first run was ignored */
        }
        ac_ran(c, g, earliest);
    } else if (!p || p->tenant >= 0) {
        ac_unknown_group(c, r->pid);
    }
    if (c->resident_tenant < 0)
        return;
    struct tenant *t = &c->tenant[c->resident_tenant];
    if (makes_requests(c, c->resident_tenant))
        ac_request_began(c, at);
    ac_is_back(c, c->resident_tenant, at);
    ac_came_back(c, c->resident_tenant, at);
    ac_wakes(c, t);
    t->usage.n_turns += c->rotate;
    t->last_run = at;
    t->proved = ts;
    t->lone_test = false; /* it came back: it works */
    ac_proved(c, c->resident_tenant, at);
}

static void ended(struct ac_card *c, const struct cc_log_record *r, uint64_t ts, uint64_t at, uint64_t earliest)
{
    if (!c->resident) {
        /* Its START was lost: it ran since the last thing we know, no longer than a time slice or so. */
        const struct group *g = ac_find_group(c, r->pid, r->context);
        if (c->lost && g && c->last_ts && ts > c->last_ts)
            ac_charge_at_most(c, g, ts - c->last_ts, 50 * MS, c->last_tenant);
        c->lost = false;
        return;
    }
    int tenant = c->resident_tenant;
    if (c->lost && r->context && r->context != c->resident_context) {
        ac_close_after_loss(c, ac_find_group(c, r->pid, r->context), ts, -1);
        return;
    }
    struct group *g = ac_find_group(c, c->resident_pid, c->resident_context);
    bool its_own = r->pid == c->resident_pid && r->context == c->resident_context;
    if (g && its_own && g->stopped && c->started_at > g->stopped_at) /* not what was under way when it was stopped */
        ac_ran(c, g, earliest);
    ac_list_began(c, g, c->started_at, at);
    uint64_t had_ns = ts > c->started_ts ? ts - c->started_ts : 0;
    ac_close_interval(c, ts);
    if (tenant < 0 || makes_requests(c, tenant))
        c->last_first_end = at;
    if (tenant < 0)
        return;
    if (g && had_ns)
        ac_gave_up(c, g, had_ns, at);
    struct tenant *t = &c->tenant[tenant];
    t->last_run = at;
    if (tenant == c->primary && c->fill && g && ac_had_to_leave(c, g, had_ns, at))
        c->judging = false; /* which showed nothing */
    else if (tenant == c->primary)
        c->turn_ends++;
    if (makes_requests(c, tenant))
        c->last_latency_end = at;
}

/* A test of a lone tenant ended its interval and it did not come back: it fell idle somewhere since the last proof. */
static void correct_idle(struct ac_card *c, uint64_t now)
{
    for (int i = 0; i < c->n_tenants; i++) {
        struct tenant *t = &c->tenant[i];
        if (!t->used || !t->lone_test || (c->resident && c->resident_tenant == i))
            continue;
        if (now - t->last_run < MS)
            continue;
        uint64_t since = c->last_ts > t->proved ? (c->last_ts - t->proved) / 2 : 0;
        uint64_t most = t->usage.held_ns - (t->window_held < t->usage.held_ns ? t->window_held : t->usage.held_ns);
        ac_refund(c, i, since < most ? since : most);
        t->lone_test = false;
        t->lone_test_ns = 50 * MS;
    }
}

enum leap { NO_LEAP, CARD_LEAPT, WE_LEAPT };

/* Both clocks have gone on since the last reading, by as much. */
static enum leap clock_leapt(struct ac_card *c, uint64_t card_now, uint64_t now)
{
    uint64_t ours = now > c->log_at ? now - c->log_at : 0;
    enum leap leap = !c->card_at                                                          ? NO_LEAP
                     : card_now < c->card_at || card_now - c->card_at > ours + LEAP_NS ? CARD_LEAPT
                     : card_now - c->card_at + LEAP_NS < ours                            ? WE_LEAPT
                                                                                         : NO_LEAP;
    c->card_at = card_now;
    return leap;
}

/* What was had since the last reading only our own clock tells. All that is counted from here is of the new time. */
static void begin_anew(struct ac_card *c, uint64_t card_now, uint64_t now)
{
    ac_charge_by_our_clock(c, c->known_at, now);
    c->last_ts = c->open_at = c->started_ts = card_now;
    for (int i = 0; i < c->n_tenants; i++)
        c->tenant[i].proved = card_now;
}

void ac_log(struct ac_card *c, struct cc_log_record *records, int n, uint64_t dropped, struct cc_moment told)
{
    uint64_t card_now = told.card_ns, now = told.our_ns;
    if (dropped)
        ac_records_lost(c, dropped, now);
    enum leap leap = clock_leapt(c, card_now, now);
    if (leap == CARD_LEAPT)
        begin_anew(c, card_now, now);
    else
        ac_put_in_order(records, n);
    for (int i = 0; i < n; i++) {
        const struct cc_log_record *r = &records[i];
        uint64_t ts = r->ts_ns < c->last_ts || leap == CARD_LEAPT ? c->last_ts : r->ts_ns;
        if (ts > card_now)
            ts = card_now > c->last_ts ? card_now : c->last_ts;
        uint64_t ago = card_now > ts ? card_now - ts : 0;
        uint64_t at = now > ago ? now - ago : 0;
        /* What is told of was there after this reading began, however late we have its answer. */
        uint64_t before = card_now > r->ts_ns ? card_now - r->ts_ns : 0; /* whatever its place among the others */
        uint64_t began = c->action_at < now ? c->action_at : now;
        uint64_t earliest = leap == NO_LEAP && began > before ? began - before : 0;
        if (r->kind == CC_LOG_START)
            started(c, r, ts, at, earliest);
        else if (r->kind == CC_LOG_END)
            ended(c, r, ts, at, earliest);
        c->last_ts = ts;
    }
    if (c->lost)
        ac_leave_stopped(c, card_now, now);
    if (c->resident && card_now > c->open_at) {
        ac_charge_resident(c, card_now);
        ac_list_began(c, ac_on_card(c), c->started_at, now);
        if (c->resident_tenant >= 0)
            c->tenant[c->resident_tenant].last_run = now;
    }
    correct_idle(c, now);
    ac_stayed(c);
    c->log_fresh = true;
    c->log_at = c->known_at = now;
}
