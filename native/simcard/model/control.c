/* SPDX-License-Identifier: Apache-2.0
 * Control calls queue behind the locks that the real driver takes, as measured and as read in its source (README.md).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "model.h"

struct sm_group *sm_group_by_context(const struct sm_model *m, uint32_t context)
{
    for (int i = 0; i < m->n_cards; i++)
        for (struct sm_group *g = m->cards[i].groups; g; g = g->next)
            if (g->context == context)
                return g;
    return NULL;
}

void sm_call_add(struct sm_model *m, struct sm_call *call)
{
    struct sm_call **at = &m->calls;
    while (*at && (*at)->done_at <= call->done_at)
        at = &(*at)->next;
    call->next = *at;
    *at = call;
}

uint64_t sm_control_takes(const struct sm_model *m, uint64_t usual_ns)
{
    return m->inject_slow_percent ? usual_ns * m->inject_slow_percent / 100 : usual_ns;
}

int sm_control(struct sm_model *m, enum sm_control_kind kind, int card, const uint32_t *contexts, int n, uint64_t value,
               uint64_t cookie)
{
    if (card < 0 || card >= m->n_cards || n < 0 || (unsigned)kind > SM_FLUSH)
        return -EINVAL;
    struct sm_call *call = calloc(1, sizeof *call + (size_t)n * sizeof call->contexts[0]);
    if (!call)
        return -ENOMEM;
    struct sm_card *c = &m->cards[card];
    uint64_t took = sm_control_takes(m, c->spec->control_ns[kind]);
    uint64_t start = m->lock_free_at > m->now ? m->lock_free_at : m->now;
    start = c->lock_free_at > start ? c->lock_free_at : start;
    call->kind = kind;
    call->card = c;
    call->effect_at = start + took / 2;
    call->done_at = start + took;
    call->value = value;
    call->cookie = cookie;
    call->n = n;
    if (n)
        memcpy(call->contexts, contexts, (size_t)n * sizeof contexts[0]);
    c->lock_free_at = call->done_at;
    if (kind != SM_PREEMPT)
        m->lock_free_at = call->done_at;
    c->control_ns += took;
    sm_call_add(m, call);
    return 0;
}

static int apply_to(struct sm_card *c, struct sm_group *g, enum sm_control_kind kind, uint64_t value)
{
    struct sm_engine *e = &c->engine;
    switch (kind) {
    case SM_SET_TIMESLICE:
        g->asked_ns = value;
        if (g->was_scheduled) /* before, the hardware has no entry for the group and the call is lost on it */
            g->timeslice_ns = value;
        sm_engine_begin_anew(c);
        return 0;
    case SM_STOP:
        g->stopped = true;
        if (e->state == SM_ENGINE_ON && e->group == g)
            sm_engine_evict(c, false);
        return 0;
    case SM_RESUME:
        g->stopped = false;
        return 0;
    case SM_PREEMPT:
        if (e->state == SM_ENGINE_ON && e->group == g)
            sm_engine_evict(c, false);
        return 0;
    case SM_FLUSH:
    case SM_PARK:
    case SM_UNPARK:
    case SM_N_CONTROL:
        break;
    }
    return 0;
}

static int apply(struct sm_model *m, const struct sm_call *call)
{
    int injected = 0;
    if (m->inject_n[call->kind] > 0) {
        m->inject_n[call->kind]--;
        injected = m->inject_error[call->kind];
    }
    if (call->kind == SM_PARK || call->kind == SM_UNPARK)
        return sm_park_apply(m, call, injected);
    if (injected)
        return injected;
    if (call->card->xid)
        return -ENODEV;
    if (call->kind == SM_SET_TIMESLICE && (call->value < 1000 || call->value > 10000000000ull))
        return -EINVAL;
    for (int i = 0; i < call->n; i++) { /* a call that fails changes nothing */
        const struct sm_group *g = sm_group_by_context(m, call->contexts[i]);
        if (!g || g->card != call->card)
            return -ESRCH;
    }
    for (int i = 0; i < call->n; i++)
        apply_to(call->card, sm_group_by_context(m, call->contexts[i]), call->kind, call->value);
    return 0;
}

uint64_t sm_control_next(const struct sm_model *m)
{
    uint64_t next = SM_NEVER;
    for (const struct sm_call *call = m->calls; call; call = call->next) {
        uint64_t at = call->effective ? call->done_at : call->effect_at;
        next = at < next ? at : next;
    }
    return next;
}

void sm_control_step(struct sm_model *m)
{
    for (struct sm_call *call = m->calls; call; call = call->next)
        if (!call->effective && call->effect_at <= m->now) {
            call->effective = true;
            call->result = apply(m, call);
        }
    while (m->calls && m->calls->effective && m->calls->done_at <= m->now) {
        struct sm_call *call = m->calls;
        m->calls = call->next;
        if (m->callbacks.control_done)
            m->callbacks.control_done(m->callbacks.arg, call->cookie, call->result);
        free(call);
    }
}

int sm_get_timeslice(const struct sm_model *m, uint32_t context, uint64_t *ns)
{
    const struct sm_group *g = sm_group_by_context(m, context);
    if (!g)
        return -ESRCH;
    *ns = g->asked_ns;
    return 0;
}

int sm_discover(const struct sm_model *m, int card, uint32_t pid, struct cc_group *groups, int max)
{
    if (card < 0 || card >= m->n_cards)
        return -ENODEV;
    int n = 0;
    for (const struct sm_group *g = m->cards[card].groups; g && n < max; g = g->next)
        if (g->process->pid == pid)
            groups[n++] = (struct cc_group){.pid = pid,
                                            .context = g->context,
                                            .start_ticks = g->process->start_ticks,
                                            .n_channels = SM_GROUP_CHANNELS,
                                            .handle = g->context};
    return n;
}

void sm_inject_control_error(struct sm_model *m, enum sm_control_kind kind, uint32_t n_calls, int error)
{
    if ((unsigned)kind < SM_N_CONTROL) {
        m->inject_n[kind] = n_calls;
        m->inject_error[kind] = error;
    }
}

void sm_inject_slow_control(struct sm_model *m, uint32_t percent)
{
    m->inject_slow_percent = percent;
}

void sm_inject_log_loss(struct sm_model *m, int card, uint32_t n_records)
{
    if (card >= 0 && card < m->n_cards)
        m->cards[card].n_log_losses = n_records;
}
