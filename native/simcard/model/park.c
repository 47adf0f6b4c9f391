/* SPDX-License-Identifier: Apache-2.0
 * Parking: a process leaves the card with its memory and comes back, as cuCheckpointProcess* do. Times as measured on an
 * H200: 1.7 GiB 0.94 s out and 0.43 s in, 32.7 GiB 17 s and 6.2 s. A real lock waits for the kernels under way; here they
 * rest where they are.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "model.h"

#define LEFT_BYTES (4ull << 20) /* stay on each card */
#define OUT_NS_PER_MIB 500000ull
#define IN_NS_PER_MIB 190000ull

struct sm_process *sm_process_by_pid(const struct sm_model *m, uint32_t pid)
{
    for (struct sm_process *p = m->processes; p; p = p->next)
        if (p->pid == pid)
            return p;
    return NULL;
}

enum sm_park_state sm_park_state(const struct sm_process *p)
{
    return p->park_state;
}

int sm_park_lock(struct sm_process *p)
{
    if (p->park_state != SM_RUNNING)
        return -EINVAL;
    p->park_state = SM_LOCKED;
    for (int i = 0; i < p->model->n_cards; i++) {
        const struct sm_engine *e = &p->model->cards[i].engine;
        if (e->state == SM_ENGINE_ON && e->group->process == p)
            sm_engine_evict(&p->model->cards[i], false);
        sm_engine_decide(&p->model->cards[i]);
    }
    return 0;
}

int sm_park_unlock(struct sm_process *p)
{
    if (p->park_state != SM_LOCKED || p->moving)
        return -EINVAL;
    p->park_state = SM_RUNNING;
    for (int i = 0; i < p->model->n_cards; i++)
        sm_engine_decide(&p->model->cards[i]);
    return 0;
}

static int leave(struct sm_process *p)
{
    for (int i = 0; i < p->model->n_cards; i++) {
        uint64_t held = p->memory_bytes[i];
        p->parked_bytes[i] = held > LEFT_BYTES ? held - LEFT_BYTES : 0;
        sm_memory_give(p, i, p->parked_bytes[i]);
        sm_memory_unplace(p, i, p->placed_bytes[i]);
    }
    p->park_state = SM_PARKED;
    return 0;
}

/* What of it is on each card but for `held` bytes of each comes to `to` of that card; all or nothing. */
static int take_all(struct sm_process *p, const uint64_t *held, const uint32_t *to)
{
    for (int i = 0; i < p->model->n_cards; i++) {
        int error = held[i] ? sm_memory_take(p, (int)to[i], held[i]) : 0;
        if (!error)
            continue;
        while (--i >= 0)
            sm_memory_give(p, (int)to[i], held[i]);
        return error;
    }
    return 0;
}

/* Its contexts go where their memory is; how long they had the old cards stays counted there. */
static void move_groups(struct sm_process *p, const uint32_t *to)
{
    struct sm_group *moving[SM_MAX_CARDS] = {NULL};
    for (int i = 0; i < p->model->n_cards; i++) {
        struct sm_group **last = &moving[i];
        for (struct sm_group **at = &p->model->cards[i].groups, *g; (g = *at);) {
            if (g->process != p || to[i] == (uint32_t)i) {
                at = &g->next;
                continue;
            }
            struct sm_engine *e = &g->card->engine;
            e->group = e->group == g ? NULL : e->group; /* it was only on its way in: a locked one never is resident */
            e->last = e->last == g ? NULL : e->last;
            p->past_held_ns[i] += g->held_ns;
            p->past_work_ns[i] += g->work_ns;
            p->past_kernels[i] += g->n_kernels;
            g->held_ns = g->work_ns = g->n_kernels = 0;
            g->was_scheduled = g->stopped = false; /* its channels there are new ones */
            g->timeslice_ns = g->asked_ns = p->model->cards[to[i]].spec->timeslice_ns;
            *at = g->next;
            g->next = NULL;
            *last = g;
            last = &g->next;
        }
    }
    for (int i = 0; i < p->model->n_cards; i++) {
        struct sm_card *c = &p->model->cards[to[i]];
        struct sm_group **at = &c->groups;
        while (*at)
            at = &(*at)->next;
        *at = moving[i];
        for (struct sm_group *g = moving[i]; g; g = g->next)
            for (struct sm_stream *s = (g->card = c, g->streams); s; s = s->next)
                sm_stream_relist(s, &p->model->cards[i]);
    }
}

/* What does not fit stays away, and where it was. */
static int come_back(struct sm_process *p, const uint32_t *to)
{
    int n = p->model->n_cards;
    uint64_t held[SM_MAX_CARDS];
    uint32_t own[SM_MAX_CARDS];
    for (int i = 0; i < n; i++) {
        own[i] = (uint32_t)i;
        held[i] = p->parked_bytes[i];
    }
    if (!to) {
        int error = take_all(p, held, own);
        if (error)
            return error;
    } else {
        uint64_t rest[SM_MAX_CARDS];
        for (int i = 0; i < n; i++) {
            rest[i] = p->memory_bytes[i];
            held[i] += rest[i];
            sm_memory_give(p, i, rest[i]);
        }
        int error = take_all(p, held, to);
        if (error) {
            take_all(p, rest, own); /* it was there a moment ago */
            return error;
        }
        move_groups(p, to);
        for (int i = 0; i < n; i++)
            p->moved_to[i] = (uint8_t)to[p->moved_to[i]];
    }
    memset(p->parked_bytes, 0, sizeof p->parked_bytes);
    p->park_state = SM_LOCKED;
    return 0;
}

int sm_process_card(const struct sm_process *p, int number)
{
    return number >= 0 && number < p->model->n_cards ? p->moved_to[number] : number;
}

int sm_park_apply(struct sm_model *m, const struct sm_call *call, int injected_error)
{
    struct sm_process *p = sm_process_by_pid(m, (uint32_t)call->value);
    if (!p || !p->moving)
        return -ESRCH;
    p->moving = false;
    if (injected_error)
        return injected_error;
    return call->kind == SM_PARK ? leave(p) : come_back(p, call->n ? call->contexts : NULL);
}

static bool is_map(const struct sm_model *m, const uint32_t *to)
{
    uint32_t named = 0;
    for (int i = 0; i < m->n_cards; i++) {
        if (to[i] >= (uint32_t)m->n_cards || strcmp(m->cards[i].spec->name, m->cards[to[i]].spec->name) != 0)
            return false;
        named |= 1u << to[i];
    }
    return named == (1u << m->n_cards) - 1;
}

int sm_park_move(struct sm_process *p, bool out, const uint32_t *to, uint64_t cookie)
{
    struct sm_model *m = p->model;
    if (p->park_state != (out ? SM_LOCKED : SM_PARKED) || p->moving)
        return -EINVAL;
    if (to && (out || !is_map(m, to)))
        return -EDOM;
    if (to && sm_memory_shares(p))
        return -EOPNOTSUPP;
    size_t n = to ? (size_t)m->n_cards : 0;
    struct sm_call *call = calloc(1, sizeof *call + n * sizeof call->contexts[0]);
    if (!call)
        return -ENOMEM;
    call->n = (int)n;
    if (to)
        memcpy(call->contexts, to, n * sizeof call->contexts[0]);
    uint64_t mib = 0;
    for (int i = 0; i < m->n_cards; i++)
        mib += (out ? p->memory_bytes[i] : p->parked_bytes[i]) >> 20;
    p->moving = true;
    call->kind = out ? SM_PARK : SM_UNPARK;
    call->value = p->pid;
    call->cookie = cookie;
    call->effect_at = call->done_at = m->now + mib * (out ? OUT_NS_PER_MIB : IN_NS_PER_MIB);
    sm_call_add(m, call);
    return 0;
}
