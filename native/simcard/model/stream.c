/* SPDX-License-Identifier: Apache-2.0
 * Streams: entries in order, one at a time. The ring is written by others, so an entry is copied before it is looked at,
 * and whatever it holds must not harm the model.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "model.h"

static uint64_t kernel_ns(const struct sm_entry *e)
{
    return e->amount < SM_MAX_AMOUNT_NS ? e->amount : SM_MAX_AMOUNT_NS;
}

static uint64_t copy_ns(const struct sm_card_spec *spec, const struct sm_entry *e)
{
    uint32_t way = e->flags < SM_N_COPY ? e->flags : SM_COPY_D2D;
    double ns = (double)e->amount * 1e9 / (double)spec->copy_bytes_per_s[way];
    return spec->copy_latency_ns + (ns < (double)SM_MAX_AMOUNT_NS ? (uint64_t)ns : SM_MAX_AMOUNT_NS);
}

static void timed_add(struct sm_stream *s, uint64_t at)
{
    struct sm_card *c = s->group->card;
    s->at = at;
    s->listed = true;
    s->timed_prev = NULL;
    s->timed_next = c->timed;
    if (c->timed)
        c->timed->timed_prev = s;
    c->timed = s;
}

static void timed_remove_from(struct sm_stream *s, struct sm_card *c)
{
    if (!s->listed)
        return;
    s->listed = false;
    if (s->timed_next)
        s->timed_next->timed_prev = s->timed_prev;
    if (s->timed_prev)
        s->timed_prev->timed_next = s->timed_next;
    else
        c->timed = s->timed_next;
}

static void timed_remove(struct sm_stream *s)
{
    timed_remove_from(s, s->group->card);
}

void sm_stream_relist(struct sm_stream *s, struct sm_card *left)
{
    if (!s->listed)
        return;
    timed_remove_from(s, left);
    timed_add(s, s->at);
}

static void ready_add(struct sm_stream *s)
{
    struct sm_group *g = s->group;
    s->queued = true;
    s->ready_next = NULL;
    if (g->ready_last)
        g->ready_last->ready_next = s;
    else
        g->ready_first = s;
    g->ready_last = s;
}

static void ready_remove(struct sm_stream *s)
{
    struct sm_group *g = s->group;
    if (!s->queued)
        return;
    struct sm_stream *before = NULL;
    for (struct sm_stream **at = &g->ready_first; *at; before = *at, at = &(*at)->ready_next)
        if (*at == s) {
            *at = s->ready_next;
            if (g->ready_last == s)
                g->ready_last = before;
            break;
        }
    s->queued = false;
}

static void todo_add(struct sm_stream *s)
{
    struct sm_model *m = s->group->card->model;
    if (s->todo)
        return;
    s->todo = true;
    s->todo_next = m->todo;
    m->todo = s;
}

static void todo_remove(struct sm_stream *s)
{
    struct sm_model *m = s->group->card->model;
    for (struct sm_stream **at = &m->todo; s->todo && *at; at = &(*at)->todo_next)
        if (*at == s) {
            *at = s->todo_next;
            break;
        }
    s->todo = false;
}

struct sm_stream *sm_stream_by_id(const struct sm_process *p, uint32_t id)
{
    for (int i = 0; i < p->model->n_cards; i++)
        for (struct sm_group *g = p->model->cards[i].groups; g; g = g->next)
            if (g->process == p)
                for (struct sm_stream *s = g->streams; s; s = s->next)
                    if (s->id == id)
                        return s;
    return NULL;
}

/* Streams of the process whose WAIT may be over now. */
static void wake_waiters(const struct sm_process *p, uint32_t id, uint64_t tail)
{
    for (int i = 0; i < p->model->n_cards; i++)
        for (struct sm_group *g = p->model->cards[i].groups; g; g = g->next)
            if (g->process == p)
                for (struct sm_stream *s = g->streams; s; s = s->next)
                    if (s->phase == SM_BLOCKED && s->wait_id == id && tail >= s->wait_seq)
                        todo_add(s);
}

static void fire_watches(struct sm_stream *s)
{
    const struct sm_callbacks *cb = &s->group->card->model->callbacks;
    for (struct sm_watch **at = &s->watches; *at;) {
        struct sm_watch *w = *at;
        if (w->seq > s->tail && s->phase != SM_ENDED) {
            at = &w->next;
            continue;
        }
        *at = w->next;
        if (cb->watch_done)
            cb->watch_done(cb->arg, w->cookie);
        free(w);
    }
}

static void complete(struct sm_stream *s)
{
    if (s->head.op != SM_OP_WORK)
        s->n_unsure--;
    s->tail++;
    s->phase = SM_EMPTY;
    atomic_store_explicit(&s->ring->completed, s->tail, memory_order_release);
    if (s->watches)
        fire_watches(s);
    if (s->group->process->model->n_waits > 0)
        wake_waiters(s->group->process, s->id, s->tail);
}

static void record(const struct sm_stream *s)
{
    struct sm_event_slot *events = s->group->process->events;
    if (!events || s->head.slot >= SM_EVENT_SLOTS)
        return;
    atomic_store_explicit(&events[s->head.slot].done_ns, s->group->card->model->now, memory_order_relaxed);
    atomic_store_explicit(&events[s->head.slot].value, s->head.value, memory_order_release);
}

static bool wait_is_over(const struct sm_stream *s)
{
    const struct sm_stream *other = sm_stream_by_id(s->group->process, s->wait_id);
    return !other || other->phase == SM_ENDED || other->tail >= s->wait_seq;
}

/* Take the head entry as far as it goes without time passing. */
static void run(struct sm_stream *s)
{
    struct sm_card *c = s->group->card;
    uint64_t now = c->model->now;
    for (;;) {
        if (s->phase == SM_EMPTY) {
            if (s->tail >= s->scanned)
                return;
            s->head = s->ring->entry[s->tail % SM_RING_ENTRIES];
            s->phase = SM_ARRIVING;
            if (s->arrival[s->tail % SM_RING_ENTRIES] > now) {
                timed_add(s, s->arrival[s->tail % SM_RING_ENTRIES]);
                return;
            }
        }
        if (s->phase == SM_ARRIVING) {
            switch (s->head.op) {
            case SM_OP_WORK:
            case SM_OP_SPIN:
                s->left_ns = s->head.op == SM_OP_SPIN ? SM_MAX_AMOUNT_NS : kernel_ns(&s->head);
                s->phase = SM_READY;
                /* What ran before on this engine is accounted before the queue changes. */
                sm_engine_account(c, now);
                ready_add(s);
                return;
            case SM_OP_COPY: {
                uint32_t way = s->head.flags < SM_N_COPY ? s->head.flags : SM_COPY_D2D;
                uint64_t start = c->copy_free_at[way] > now ? c->copy_free_at[way] : now;
                uint64_t took = copy_ns(c->spec, &s->head);
                c->copy_free_at[way] = start + took;
                c->copy_ns[way] += took;
                c->copied_bytes[way] += s->head.amount;
                sm_card_count(c, start, start + took, true);
                s->phase = SM_COPYING;
                timed_add(s, start + took);
                return;
            }
            case SM_OP_WAIT:
                s->wait_id = s->head.slot;
                s->wait_seq = s->head.amount;
                s->phase = SM_BLOCKED;
                c->model->n_waits++;
                break;
            case SM_OP_HOST:
                s->phase = SM_HOST;
                break;
            case SM_OP_RECORD:
                record(s);
                complete(s);
                continue;
            default:
                complete(s);
                continue;
            }
        }
        if (s->phase == SM_BLOCKED) {
            if (!wait_is_over(s))
                return;
            c->model->n_waits--;
            complete(s);
        } else if (s->phase == SM_HOST) {
            if (atomic_load_explicit(&s->ring->host_done, memory_order_acquire) <= s->tail)
                return;
            complete(s);
        } else {
            return;
        }
    }
}

void sm_drain(struct sm_model *m)
{
    while (m->todo) {
        struct sm_stream *s = m->todo;
        m->todo = s->todo_next;
        s->todo = false;
        if (s->watches)
            fire_watches(s);
        run(s);
    }
}

void sm_stream_kernel_done(struct sm_stream *s)
{
    complete(s);
    todo_add(s);
}

void sm_stream_timed(struct sm_card *c)
{
    uint64_t now = c->model->now;
    for (struct sm_stream *s = c->timed, *next; s; s = next) {
        next = s->timed_next;
        if (s->at > now)
            continue;
        timed_remove(s);
        if (s->phase == SM_COPYING)
            complete(s);
        todo_add(s);
    }
}

/* See what the producer wrote. A timestamp counts only between what was seen last and now: a producer that lost the
 * processor between taking the time and publishing cannot change the past, and none can promise the future. */
void sm_stream_scan(struct sm_stream *s)
{
    if (s->phase == SM_ENDED)
        return;
    uint64_t head = atomic_load_explicit(&s->ring->head, memory_order_acquire);
    if (head - s->tail > SM_RING_ENTRIES) /* nonsense: see no more than the ring can hold */
        head = head < s->tail ? s->scanned : s->tail + SM_RING_ENTRIES;
    uint64_t now = s->group->card->model->now;
    while (s->scanned < head) {
        const struct sm_entry e = s->ring->entry[s->scanned % SM_RING_ENTRIES];
        uint64_t i = s->scanned % SM_RING_ENTRIES;
        s->arrival[i] = e.ts_ns > now ? e.ts_ns : now;
        if (e.op == SM_OP_WORK)
            s->scanned_service += kernel_ns(&e);
        else
            s->n_unsure++;
        if (e.op == SM_OP_COPY)
            s->scanned_service += copy_ns(s->group->card->spec, &e);
        s->service[i] = s->scanned_service;
        s->scanned++;
    }
    if (s->phase == SM_READY && s->head.op == SM_OP_SPIN &&
        atomic_load_explicit(&s->ring->host_done, memory_order_acquire) > s->tail) {
        sm_engine_account(s->group->card, now);
        s->left_ns = 0; /* what it waits for is there: it ends as soon as it has the card */
    }
    if (s->phase == SM_EMPTY || s->phase == SM_HOST)
        todo_add(s);
}

int sm_stream_new(struct sm_group *g, uint32_t id, struct sm_ring *ring, struct sm_stream **stream)
{
    if (g->error || g->card->xid)
        return -ENODEV;
    struct sm_stream *s = calloc(1, sizeof *s);
    if (!s)
        return -ENOMEM;
    s->group = g;
    s->id = id;
    s->ring = ring;
    s->next = g->streams;
    g->streams = s;
    *stream = s;
    return 0;
}

static void unhook(struct sm_stream *s)
{
    sm_engine_account(s->group->card, s->group->card->model->now);
    timed_remove(s);
    ready_remove(s);
    todo_remove(s);
    if (s->phase == SM_BLOCKED)
        s->group->card->model->n_waits--;
}

void sm_stream_end(struct sm_stream *s, uint32_t error)
{
    if (s->phase == SM_ENDED)
        return;
    unhook(s);
    s->phase = SM_ENDED;
    atomic_store_explicit(&s->ring->error, error, memory_order_release);
    fire_watches(s);
    wake_waiters(s->group->process, s->id, UINT64_MAX);
}

void sm_stream_free(struct sm_stream *s)
{
    struct sm_model *m = s->group->card->model;
    unhook(s);
    s->phase = SM_ENDED;
    fire_watches(s); /* who waits for it is told, or would wait for ever */
    for (struct sm_stream **at = &s->group->streams; *at; at = &(*at)->next)
        if (*at == s) {
            *at = s->next;
            break;
        }
    wake_waiters(s->group->process, s->id, UINT64_MAX);
    struct sm_card *c = s->group->card;
    free(s);
    sm_drain(m);
    sm_engine_decide(c);
}

int sm_submit(struct sm_stream *s, const struct sm_entry *entry, uint64_t *seq)
{
    uint64_t head = atomic_load_explicit(&s->ring->head, memory_order_relaxed);
    if (head - atomic_load_explicit(&s->ring->completed, memory_order_acquire) >= SM_RING_ENTRIES)
        return -EAGAIN;
    s->ring->entry[head % SM_RING_ENTRIES] = *entry;
    atomic_store_explicit(&s->ring->head, head + 1, memory_order_release);
    if (seq)
        *seq = head + 1;
    return 0;
}

uint64_t sm_stream_completed(const struct sm_stream *s)
{
    return s->tail;
}

int sm_watch(struct sm_stream *s, uint64_t seq, uint64_t cookie)
{
    struct sm_watch *w = malloc(sizeof *w);
    if (!w)
        return -ENOMEM;
    *w = (struct sm_watch){.next = s->watches, .seq = seq, .cookie = cookie};
    s->watches = w;
    if (s->tail >= seq || s->phase == SM_ENDED)
        todo_add(s);
    return 0;
}
