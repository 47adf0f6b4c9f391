/* SPDX-License-Identifier: Apache-2.0
 * Objects with owners, memory, and the passing of time.
 */
#include "model.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct sm_model *sm_new(uint64_t now_ns)
{
    struct sm_model *m = calloc(1, sizeof *m);
    if (m) {
        m->now = now_ns;
        m->next_context = 1;
    }
    return m;
}

void sm_free(struct sm_model *m)
{
    if (!m)
        return;
    m->callbacks = (struct sm_callbacks){0};
    while (m->processes)
        sm_process_gone(m->processes);
    for (int i = 0; i < m->n_cards; i++)
        while (m->cards[i].logs)
            sm_log_close(m->cards[i].logs);
    for (struct sm_call *call = m->calls, *next; call; call = next) {
        next = call->next;
        free(call);
    }
    free(m);
}

void sm_set_callbacks(struct sm_model *m, const struct sm_callbacks *callbacks)
{
    m->callbacks = *callbacks;
}

static void add_card(struct sm_model *m, const struct sm_card_spec *spec)
{
    struct sm_card *c = &m->cards[m->n_cards];
    c->model = m;
    c->index = m->n_cards++;
    c->own = *spec;
    c->spec = &c->own;
    for (int i = 0; i < SM_N_BUCKETS; i++)
        c->bucket_at[i] = SM_NEVER;
    unsigned mark = 0;
    for (const char *p = spec->name; *p; p++)
        mark = mark * 31 + (unsigned char)*p;
    snprintf(c->uuid, sizeof c->uuid, "GPU-51a00000-%04x-4000-8000-%012x", mark & 0xffff, (unsigned)c->index);
}

int sm_add_cards(struct sm_model *m, const char *cards)
{
    int n_added = 0;
    while (*cards) {
        char name[32];
        size_t n_name = strcspn(cards, ":,");
        if (n_name == 0 || n_name >= sizeof name)
            return -EINVAL;
        memcpy(name, cards, n_name);
        name[n_name] = 0;
        cards += n_name;
        long n = 1;
        if (*cards == ':') {
            char *end;
            n = strtol(cards + 1, &end, 10);
            if (end == cards + 1)
                return -EINVAL;
            cards = end;
        }
        const struct sm_card_spec *spec = sm_card_spec(name);
        if (!spec || n < 1 || n > SM_MAX_CARDS - m->n_cards)
            return -EINVAL;
        for (long i = 0; i < n; i++, n_added++)
            add_card(m, spec);
        if (*cards == ',' && cards[1])
            cards++;
        else if (*cards)
            return -EINVAL;
    }
    return n_added > 0 ? n_added : -EINVAL;
}

void sm_set_contexts(struct sm_model *m, uint64_t bytes, uint64_t ns)
{
    for (int i = 0; i < m->n_cards; i++) {
        if (bytes)
            m->cards[i].own.context_bytes = bytes;
        m->cards[i].own.context_ns = ns;
    }
}

int sm_n_cards(const struct sm_model *m)
{
    return m->n_cards;
}

const struct sm_card_spec *sm_card_spec_of(const struct sm_model *m, int card)
{
    return m->cards[card].spec;
}

const char *sm_card_uuid(const struct sm_model *m, int card)
{
    return m->cards[card].uuid;
}

int sm_card_by_uuid(const struct sm_model *m, const char *uuid)
{
    for (int i = 0; i < m->n_cards; i++)
        if (strcmp(m->cards[i].uuid, uuid) == 0)
            return i;
    return -ENODEV;
}

uint64_t sm_now(const struct sm_model *m)
{
    return m->now;
}

static bool known_card(const struct sm_model *m, int card)
{
    return card >= 0 && card < m->n_cards;
}

/* --- time --- */

static void settle(struct sm_model *m)
{
    sm_drain(m);
    for (int i = 0; i < m->n_cards; i++)
        sm_engine_decide(&m->cards[i]);
}

uint64_t sm_next_event(const struct sm_model *m)
{
    uint64_t next = sm_control_next(m);
    for (int i = 0; i < m->n_cards; i++) {
        const struct sm_card *c = &m->cards[i];
        uint64_t at = sm_engine_next(c);
        next = at < next ? at : next;
        for (const struct sm_stream *s = c->timed; s; s = s->timed_next)
            next = s->at < next ? s->at : next;
    }
    return next;
}

void sm_advance(struct sm_model *m, uint64_t now_ns)
{
    if (now_ns < m->now)
        return;
    for (int i = 0; i < m->n_cards; i++)
        for (struct sm_group *g = m->cards[i].groups; g; g = g->next)
            for (struct sm_stream *s = g->streams; s; s = s->next)
                sm_stream_scan(s);
    settle(m);
    for (;;) {
        uint64_t at = sm_next_event(m);
        if (at > now_ns)
            break;
        m->now = at > m->now ? at : m->now;
        for (int i = 0; i < m->n_cards; i++)
            sm_engine_step(&m->cards[i]);
        sm_control_step(m);
        for (int i = 0; i < m->n_cards; i++)
            sm_stream_timed(&m->cards[i]);
        settle(m);
    }
    m->now = now_ns;
    for (int i = 0; i < m->n_cards; i++)
        sm_engine_account(&m->cards[i], now_ns);
}

uint64_t sm_next_wake(const struct sm_model *m)
{
    uint64_t wake = sm_control_next(m);
    for (int i = 0; i < m->n_cards; i++)
        for (const struct sm_group *g = m->cards[i].groups; g; g = g->next)
            for (const struct sm_stream *s = g->streams; s; s = s->next)
                for (const struct sm_watch *w = s->watches; w; w = w->next) {
                    uint64_t at = sm_watch_earliest(s, w->seq, 8);
                    wake = at < wake ? at : wake;
                }
    return wake;
}

bool sm_busy(const struct sm_model *m)
{
    if (m->calls)
        return true;
    for (int i = 0; i < m->n_cards; i++)
        for (const struct sm_group *g = m->cards[i].groups; g; g = g->next)
            for (const struct sm_stream *s = g->streams; s; s = s->next)
                if (s->phase != SM_ENDED && (s->phase != SM_EMPTY || s->tail < s->scanned))
                    return true;
    return false;
}

/* --- processes and contexts --- */

struct sm_process *sm_process_new(struct sm_model *m, uint32_t pid, uint64_t start_ticks, struct sm_event_slot *events)
{
    struct sm_process *p = calloc(1, sizeof *p);
    if (!p)
        return NULL;
    p->model = m;
    p->pid = pid;
    p->start_ticks = start_ticks;
    p->events = events;
    for (int i = 0; i < SM_MAX_CARDS; i++)
        p->moved_to[i] = (uint8_t)i;
    p->next = m->processes;
    m->processes = p;
    return p;
}

uint32_t sm_process_pid(const struct sm_process *p)
{
    return p->pid;
}

int sm_group_new(struct sm_process *p, int card, struct sm_group **group)
{
    if (!known_card(p->model, card) || p->model->cards[card].xid)
        return -ENODEV;
    struct sm_card *c = &p->model->cards[card];
    int failed = sm_memory_take(p, card, c->spec->context_bytes);
    if (failed)
        return failed;
    struct sm_group *g = calloc(1, sizeof *g);
    if (!g) {
        sm_memory_give(p, card, c->spec->context_bytes);
        return -ENOMEM;
    }
    g->process = p;
    g->card = c;
    g->context = p->model->next_context++;
    g->timeslice_ns = g->asked_ns = c->spec->timeslice_ns;
    struct sm_group **at = &c->groups;
    while (*at)
        at = &(*at)->next;
    *at = g;
    *group = g;
    return 0;
}

static void free_group(struct sm_group *g, bool lost)
{
    struct sm_card *c = g->card;
    struct sm_engine *e = &c->engine;
    if (e->group == g) {
        sm_engine_evict(c, lost);
        e->group = NULL; /* also where it was only on its way in */
    }
    if (e->last == g)
        e->last = NULL;
    g->error = SM_ERROR_LAUNCH_FAILED;
    while (g->streams)
        sm_stream_free(g->streams);
    for (struct sm_group **at = &c->groups; *at; at = &(*at)->next)
        if (*at == g) {
            *at = g->next;
            break;
        }
    g->process->past_held_ns[c->index] += g->held_ns;
    g->process->past_work_ns[c->index] += g->work_ns;
    g->process->past_kernels[c->index] += g->n_kernels;
    sm_memory_give(g->process, c->index, c->spec->context_bytes);
    struct sm_model *m = c->model;
    free(g);
    settle(m);
}

void sm_group_free(struct sm_group *g)
{
    free_group(g, false);
}

void sm_process_gone(struct sm_process *p)
{
    struct sm_model *m = p->model;
    sm_memory_leave_all(p);
    for (int i = 0; i < m->n_cards; i++) {
        struct sm_card *c = &m->cards[i];
        for (struct sm_group *g = c->groups, *next; g; g = next) {
            next = g->next;
            if (g->process == p)
                free_group(g, true);
        }
        sm_memory_give(p, i, p->memory_bytes[i]);
        sm_memory_unplace(p, i, p->placed_bytes[i]);
    }
    for (struct sm_process **at = &m->processes; *at; at = &(*at)->next)
        if (*at == p) {
            *at = p->next;
            break;
        }
    free(p);
}

uint32_t sm_group_context(const struct sm_group *g)
{
    return g->context;
}

int sm_group_card(const struct sm_group *g)
{
    return g->card->index;
}

void sm_group_fault(struct sm_group *g, uint32_t cuda_error)
{
    g->error = cuda_error;
    for (struct sm_stream *s = g->streams; s; s = s->next)
        sm_stream_end(s, cuda_error);
    settle(g->card->model);
}

void sm_card_fail(struct sm_model *m, int card, uint32_t xid)
{
    if (!known_card(m, card))
        return;
    m->cards[card].xid = xid ? xid : 79;
    for (struct sm_group *g = m->cards[card].groups; g; g = g->next)
        if (!g->error)
            sm_group_fault(g, SM_ERROR_LAUNCH_FAILED);
}

void sm_card_recover(struct sm_model *m, int card)
{
    if (known_card(m, card))
        m->cards[card].xid = 0;
}

uint32_t sm_card_xid(const struct sm_model *m, int card)
{
    return known_card(m, card) ? m->cards[card].xid : 79;
}
