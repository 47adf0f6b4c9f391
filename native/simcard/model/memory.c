/* SPDX-License-Identifier: Apache-2.0
 * Memory of the cards: what a process holds and is said to hold, what lies on a card in nobody's account (managed pages,
 * host memory under HMM), and what several processes hold together.
 */
#include <errno.h>
#include <stdlib.h>
#include "model.h"

struct sm_holder {
    struct sm_holder *next;
    struct sm_process *process;
    uint32_t n;
};

/* Held by several: stays on the card until the last has let go. In the account of the process that allocated it while
 * that holds it, then in nobody's. */
struct sm_shared {
    struct sm_shared *next;
    uint64_t token, bytes;
    int card;
    struct sm_process *payer;
    struct sm_holder *holders;
};

static void add_used(struct sm_card *c, uint64_t bytes)
{
    c->memory_used += bytes;
    c->memory_most = c->memory_used > c->memory_most ? c->memory_used : c->memory_most;
}

static struct sm_card *card_of(const struct sm_process *p, int card)
{
    return card >= 0 && card < p->model->n_cards ? &p->model->cards[card] : NULL;
}

/* Pages that nobody is charged for leave when somebody needs the room, as managed memory does. */
static void make_room(struct sm_card *c, uint64_t bytes)
{
    for (struct sm_process *p = c->model->processes; p; p = p->next) {
        uint64_t free_bytes = c->spec->memory_bytes - c->memory_used;
        if (free_bytes >= bytes)
            return;
        sm_memory_unplace(p, c->index, bytes - free_bytes);
    }
}

int sm_memory_take(struct sm_process *p, int card, uint64_t bytes)
{
    struct sm_card *c = card_of(p, card);
    if (!c || c->xid)
        return -ENODEV;
    if (bytes > c->spec->memory_bytes)
        return -ENOMEM;
    make_room(c, bytes);
    if (bytes > c->spec->memory_bytes - c->memory_used)
        return -ENOMEM;
    add_used(c, bytes);
    p->memory_bytes[card] += bytes;
    return 0;
}

void sm_memory_give(struct sm_process *p, int card, uint64_t bytes)
{
    struct sm_card *c = card_of(p, card);
    if (!c)
        return;
    bytes = bytes < p->memory_bytes[card] ? bytes : p->memory_bytes[card];
    p->memory_bytes[card] -= bytes;
    c->memory_used -= bytes;
}

uint64_t sm_memory_place(struct sm_process *p, int card, uint64_t bytes)
{
    struct sm_card *c = card_of(p, card);
    uint64_t free_bytes = c && !c->xid ? c->spec->memory_bytes - c->memory_used : 0;
    uint64_t placed = bytes < free_bytes ? bytes : free_bytes;
    if (placed) {
        add_used(c, placed);
        p->placed_bytes[card] += placed;
    }
    return placed;
}

void sm_memory_unplace(struct sm_process *p, int card, uint64_t bytes)
{
    struct sm_card *c = card_of(p, card);
    if (!c)
        return;
    bytes = bytes < p->placed_bytes[card] ? bytes : p->placed_bytes[card];
    p->placed_bytes[card] -= bytes;
    c->memory_used -= bytes;
}

static struct sm_shared *by_token(const struct sm_model *m, uint64_t token)
{
    struct sm_shared *s = m->shared;
    while (s && s->token != token)
        s = s->next;
    return s;
}

static int hold(struct sm_shared *s, struct sm_process *p)
{
    struct sm_holder *h = s->holders;
    while (h && h->process != p)
        h = h->next;
    if (!h) {
        h = calloc(1, sizeof *h);
        if (!h)
            return -ENOMEM;
        h->process = p;
        h->next = s->holders;
        s->holders = h;
    }
    h->n++;
    return 0;
}

int sm_memory_share(struct sm_process *p, int card, uint64_t bytes, uint64_t *token)
{
    struct sm_card *c = card_of(p, card);
    if (!c || bytes > p->memory_bytes[card])
        return -EINVAL;
    struct sm_shared *s = calloc(1, sizeof *s);
    if (!s || hold(s, p)) {
        free(s);
        return -ENOMEM;
    }
    s->token = *token = ++p->model->last_token;
    s->bytes = bytes;
    s->card = card;
    s->payer = p;
    s->next = p->model->shared;
    p->model->shared = s;
    return 0;
}

int sm_memory_join(struct sm_process *p, uint64_t token)
{
    struct sm_shared *s = by_token(p->model, token);
    return s ? hold(s, p) : -ENOENT;
}

static void end(struct sm_shared *s, struct sm_process *p, struct sm_model *m)
{
    for (struct sm_holder **at = &s->holders; *at; at = &(*at)->next)
        if ((*at)->process == p) {
            struct sm_holder *gone = *at;
            *at = gone->next;
            free(gone);
            break;
        }
    struct sm_card *c = &m->cards[s->card];
    if (s->payer == p) { /* its account is closed; the bytes stay while others hold them */
        sm_memory_give(p, s->card, s->bytes);
        c->memory_used += s->bytes;
        s->payer = NULL;
    }
    if (s->holders)
        return;
    c->memory_used -= s->bytes;
    for (struct sm_shared **at = &m->shared; *at; at = &(*at)->next)
        if (*at == s) {
            *at = s->next;
            break;
        }
    free(s);
}

int sm_memory_leave(struct sm_process *p, uint64_t token)
{
    struct sm_shared *s = by_token(p->model, token);
    struct sm_holder *h = s ? s->holders : NULL;
    while (h && h->process != p)
        h = h->next;
    if (!h)
        return -ENOENT;
    if (--h->n == 0)
        end(s, p, p->model);
    return 0;
}

bool sm_memory_shares(const struct sm_process *p)
{
    for (const struct sm_shared *s = p->model->shared; s; s = s->next)
        for (const struct sm_holder *h = s->holders; h; h = h->next)
            if (h->process == p)
                return true;
    return false;
}

void sm_memory_leave_all(struct sm_process *p)
{
    struct sm_model *m = p->model;
    for (struct sm_shared *s = m->shared, *next; s; s = next) {
        next = s->next;
        for (struct sm_holder *h = s->holders; h; h = h->next)
            if (h->process == p) {
                end(s, p, m);
                break;
            }
    }
}

uint64_t sm_memory_used(const struct sm_model *m, int card)
{
    return card >= 0 && card < m->n_cards ? m->cards[card].memory_used : 0;
}

uint64_t sm_memory_of(const struct sm_process *p, int card)
{
    return card_of(p, card) ? p->memory_bytes[card] : 0;
}
