/* SPDX-License-Identifier: Apache-2.0
 * The compute engine of one card: who is resident, until when, and what its kernels got done.
 */
#include "model.h"

bool sm_group_barred(const struct sm_group *g)
{
    return g->stopped || g->error || g->process->park_state != SM_RUNNING;
}

bool sm_group_runnable(const struct sm_group *g)
{
    return g->ready_first && !sm_group_barred(g);
}

/* The next group after `after` (NULL: from the start) in round-robin order that could run, `after` itself last. */
static struct sm_group *next_runnable(const struct sm_card *c, const struct sm_group *after)
{
    struct sm_group *first = after && after->next ? after->next : c->groups;
    struct sm_group *g = first;
    while (g) {
        if (sm_group_runnable(g))
            return g;
        g = g->next ? g->next : c->groups;
        if (g == first)
            break;
    }
    return NULL;
}

static bool others_runnable(const struct sm_card *c, const struct sm_group *resident)
{
    for (const struct sm_group *g = c->groups; g; g = g->next)
        if (g != resident && sm_group_runnable(g))
            return true;
    return false;
}

void sm_card_count(struct sm_card *c, uint64_t from, uint64_t to, bool copy)
{
    while (from < to) {
        uint64_t at = from / SM_BUCKET_NS;
        uint64_t end = (at + 1) * SM_BUCKET_NS < to ? (at + 1) * SM_BUCKET_NS : to;
        uint64_t i = at % SM_N_BUCKETS;
        if (c->bucket_at[i] != at) {
            c->bucket_at[i] = at;
            c->bucket_busy[i] = c->bucket_copy[i] = 0;
        }
        *(copy ? &c->bucket_copy[i] : &c->bucket_busy[i]) += end - from;
        from = end;
    }
}

void sm_engine_account(struct sm_card *c, uint64_t now)
{
    struct sm_engine *e = &c->engine;
    uint64_t from = e->accounted > e->warm_until ? e->accounted : e->warm_until;
    if (e->accounted >= now)
        return;
    e->accounted = now;
    if (e->state != SM_ENGINE_ON || !e->group->ready_first || from >= now)
        return;
    struct sm_stream *s = e->group->ready_first;
    uint64_t progress = now - from < s->left_ns ? now - from : s->left_ns;
    s->left_ns -= progress;
    e->group->work_ns += progress;
    c->busy_ns += progress;
    sm_card_count(c, from, from + progress, false);
}

uint64_t sm_engine_next(const struct sm_card *c)
{
    const struct sm_engine *e = &c->engine;
    if (e->state == SM_ENGINE_EMPTY)
        return SM_NEVER;
    if (e->state == SM_ENGINE_SWITCHING)
        return e->switch_end;
    if (!e->group->ready_first)
        return SM_NEVER;
    uint64_t from = e->accounted > e->warm_until ? e->accounted : e->warm_until;
    uint64_t next = from + e->group->ready_first->left_ns;
    if (e->slice_end < next && e->slice_end >= e->accounted && others_runnable(c, e->group))
        next = e->slice_end;
    return next;
}

static void leave(struct sm_card *c, bool lost)
{
    struct sm_engine *e = &c->engine;
    sm_log_put(c, e->group, CC_LOG_END, lost);
    e->group->held_ns += c->model->now - e->start_ns;
    e->last = e->group;
    e->group = NULL;
    e->state = SM_ENGINE_EMPTY;
}

/* Loading alone is half of a change; a change saves the last one first. */
static void begin_switch(struct sm_card *c, struct sm_group *g, uint64_t gap_ns)
{
    struct sm_engine *e = &c->engine;
    e->state = SM_ENGINE_SWITCHING;
    e->group = g;
    e->switch_end = c->model->now + gap_ns;
    c->n_switches++;
}

void sm_engine_step(struct sm_card *c)
{
    struct sm_engine *e = &c->engine;
    uint64_t now = c->model->now;
    sm_engine_account(c, now);
    if (e->state == SM_ENGINE_SWITCHING && e->switch_end <= now) {
        if (!e->group || sm_group_barred(e->group)) {
            e->group = NULL;
            e->state = SM_ENGINE_EMPTY;
            return;
        }
        e->state = SM_ENGINE_ON;
        e->group->was_scheduled = true;
        e->start_ns = now;
        e->accounted = now;
        e->warm_until = now + (e->last == e->group ? 0 : c->spec->warmup_ns);
        e->slice_end = e->warm_until + e->group->timeslice_ns;
        sm_log_put(c, e->group, CC_LOG_START, false);
    } else if (e->state == SM_ENGINE_ON && e->group->ready_first && e->group->ready_first->left_ns == 0 &&
               now >= e->warm_until) {
        struct sm_group *g = e->group;
        struct sm_stream *s = g->ready_first;
        g->ready_first = s->ready_next;
        if (!g->ready_first)
            g->ready_last = NULL;
        s->queued = false;
        g->n_kernels += s->head.n_kernels;
        c->n_kernels += s->head.n_kernels;
        sm_stream_kernel_done(s);
    }
}

void sm_engine_decide(struct sm_card *c)
{
    struct sm_engine *e = &c->engine;
    uint64_t now = c->model->now;
    if (e->state == SM_ENGINE_SWITCHING)
        return;
    if (e->state == SM_ENGINE_EMPTY) {
        struct sm_group *g = next_runnable(c, e->last);
        if (g) {
            /* `last` may be a group that is gone: its address is only compared, and a reused one costs a warm-up less */
            begin_switch(c, g, c->spec->switch_gap_ns / 2);
        }
        return;
    }
    struct sm_group *resident = e->group;
    if (sm_group_barred(resident)) {
        leave(c, false);
        sm_engine_decide(c);
        return;
    }
    bool others = others_runnable(c, resident);
    if (!others) {
        if (now > e->slice_end) { /* alone: turns follow each other without a change */
            uint64_t turns = (now - e->slice_end + resident->timeslice_ns - 1) / resident->timeslice_ns;
            e->slice_end += turns * resident->timeslice_ns;
        }
        return;
    }
    if (now > e->slice_end) {
        uint64_t turns = (now - e->slice_end + resident->timeslice_ns - 1) / resident->timeslice_ns;
        e->slice_end += turns * resident->timeslice_ns;
    }
    if (!resident->ready_first || now >= e->slice_end) {
        leave(c, false);
        begin_switch(c, next_runnable(c, resident), c->spec->switch_gap_ns);
    }
}

void sm_engine_evict(struct sm_card *c, bool lost)
{
    struct sm_engine *e = &c->engine;
    sm_engine_account(c, c->model->now);
    if (e->state == SM_ENGINE_ON)
        leave(c, lost);
}

void sm_engine_begin_anew(struct sm_card *c)
{
    struct sm_engine *e = &c->engine;
    if (e->state != SM_ENGINE_ON || !e->group->was_scheduled || !others_runnable(c, e->group))
        return;
    bool head = c->groups == e->group || sm_group_runnable(c->groups); /* between two kernels it has work all the same */
    struct sm_group *first = head ? c->groups : next_runnable(c, c->groups);
    sm_engine_account(c, c->model->now);
    if (first == e->group) {
        e->slice_end = (c->model->now > e->warm_until ? c->model->now : e->warm_until) + first->timeslice_ns;
        return;
    }
    leave(c, false);
    begin_switch(c, first, c->spec->switch_gap_ns);
}

uint64_t sm_engine_earliest(const struct sm_group *g)
{
    const struct sm_card *c = g->card;
    const struct sm_engine *e = &c->engine;
    uint64_t now = c->model->now;
    if (sm_group_barred(g))
        return SM_NEVER;
    if (e->state == SM_ENGINE_EMPTY)
        return now + c->spec->switch_gap_ns / 2;
    if (e->state == SM_ENGINE_SWITCHING)
        return e->group == g ? e->switch_end : e->switch_end + c->spec->switch_gap_ns / 2;
    if (e->group == g)
        return e->warm_until > now ? e->warm_until : now;
    /* Somebody else has it: until its slice ends or its work does, whichever is sooner. */
    uint64_t until = e->slice_end > now ? e->slice_end : now;
    const struct sm_stream *s = e->group->ready_first;
    if (s) {
        uint64_t left = s->left_ns;
        if (s->n_unsure == 0)
            left += s->scanned_service - s->service[s->tail % SM_RING_ENTRIES];
        uint64_t idle = (e->warm_until > now ? e->warm_until : now) + left;
        until = idle < until ? idle : until;
    } else {
        until = now;
    }
    return until + c->spec->switch_gap_ns;
}
