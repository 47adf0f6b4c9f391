/* SPDX-License-Identifier: Apache-2.0
 * What each request does. Every index and handle comes from a program that is not trusted.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "daemon.h"

#define MAX_LISTED 256

static struct sm_group *group_of(struct client *client, const struct sc_request *r)
{
    for (struct owned *o = client->groups; o && r->n_contexts == 1; o = o->next)
        if (sm_group_context(o->group) == r->context[0])
            return o->group;
    return NULL;
}

static int context_new(struct client *client, int card, uint64_t *context)
{
    struct owned *mine = malloc(sizeof *mine);
    if (!mine)
        return -ENOMEM;
    int error = sm_group_new(client->process, card, &mine->group);
    if (error) {
        free(mine);
        return error;
    }
    mine->next = client->groups;
    client->groups = mine;
    *context = sm_group_context(mine->group);
    return 0;
}

static int context_free(struct client *client, const struct sc_request *r)
{
    for (struct owned **at = &client->groups; *at && r->n_contexts == 1; at = &(*at)->next) {
        struct owned *mine = *at;
        if (sm_group_context(mine->group) != r->context[0])
            continue;
        *at = mine->next;
        for (unsigned i = 0; i < SC_MAX_RINGS; i++)
            if (client->stream[i] && client->stream_context[i] == r->context[0])
                client->stream[i] = NULL; /* freed with its context */
        sm_group_free(mine->group);
        free(mine);
        return 0;
    }
    return -EINVAL;
}

static struct sm_ring *ring_at(struct client *client, int ring)
{
    return (struct sm_ring *)((char *)client->region + SC_RING_AT(ring));
}

static bool owe(struct server *s, struct connection *c)
{
    c->waiting = true;
    c->cookie = ++s->next_cookie;
    return false;
}

static bool answer(struct connection *c, int status, uint64_t v)
{
    connection_reply(c, status, 0, v, NULL, 0, -1);
    return true;
}

static bool hello(struct server *s, struct connection *c, int as)
{
    c->is_program = as > 0;
    int error = as == 1 ? client_attach(s, c->client) : 0;
    connection_reply(c, error, sm_n_cards(s->model), sizeof(struct sc_request), NULL, 0,
                     as == 1 && !error ? c->client->region_fd : -1);
    return true;
}

static bool card(struct server *s, struct connection *c, int index)
{
    const struct sm_card_spec *spec = sm_card_spec_of(s->model, index);
    struct sc_card out = {
        .memory_bytes = spec->memory_bytes, .context_bytes = spec->context_bytes, .context_ns = spec->context_ns,
        .n_multiprocessors = spec->n_multiprocessors, .compute_major = spec->compute_major,
        .compute_minor = spec->compute_minor, .clock_mhz = spec->clock_mhz, .memory_clock_mhz = spec->memory_clock_mhz,
        .bus_bits = spec->bus_bits, .power_idle_w = spec->power_idle_w, .power_limit_w = spec->power_limit_w};
    strncpy(out.uuid, sm_card_uuid(s->model, index), sizeof out.uuid - 1);
    strncpy(out.name, spec->full_name, sizeof out.name - 1);
    connection_reply(c, 0, 0, 0, &out, sizeof out, -1);
    return true;
}

static bool figures(struct server *s, struct connection *c, int index)
{
    struct sm_card_figures f;
    sm_card_figures(s->model, index, &f);
    struct sc_figures out = {
        .memory_used = f.memory_used_bytes, .busy_ns = f.busy_ns, .utilisation_milli = f.utilisation_milli,
        .memory_utilisation_milli = f.memory_utilisation_milli, .xid = sm_card_xid(s->model, index),
        .control_ns = f.control_ns, .n_switches = f.n_switches, .memory_most = f.memory_most_bytes};
    connection_reply(c, 0, 0, 0, &out, sizeof out, -1);
    return true;
}

static bool processes(struct server *s, struct connection *c, int index)
{
    struct sm_process_figures f[MAX_LISTED];
    struct sc_process out[MAX_LISTED];
    int n = sm_card_processes(s->model, index, f, MAX_LISTED);
    n = n > MAX_LISTED ? MAX_LISTED : n;
    for (int i = 0; i < n; i++)
        out[i] = (struct sc_process){f[i].pid, f[i].n_groups, f[i].memory_bytes, f[i].held_ns, f[i].work_ns,
                                     f[i].n_kernels};
    connection_reply(c, 0, n, 0, out, (size_t)n * sizeof out[0], -1);
    return true;
}

static bool park(struct server *s, struct connection *c, const struct sc_request *r)
{
    struct client *other = s->clients;
    while (other && (!other->process || other->pid != (pid_t)r->b))
        other = other->next;
    if (!other)
        return answer(c, -ESRCH, 0);
    if (c->uid != 0 && c->uid != other->uid)
        return answer(c, -EPERM, 0);
    uint64_t before = (uint64_t)sm_park_state(other->process);
    int error = -EINVAL;
    switch (r->a) {
    case SC_PARK_LOCK:
        return answer(c, sm_park_lock(other->process), before);
    case SC_PARK_OUT:
    case SC_PARK_IN:
        owe(s, c);
        if (r->n_contexts == 0 || r->n_contexts == (uint32_t)sm_n_cards(s->model))
            error = sm_park_move(other->process, r->a == SC_PARK_OUT, r->n_contexts ? r->context : NULL, c->cookie);
        if (!error)
            return false;
        c->waiting = false;
        return answer(c, error, before);
    case SC_PARK_UNLOCK:
        error = sm_park_unlock(other->process);
        if (!error)
            server_resume(s, other);
        return answer(c, error, before);
    case SC_PARK_STATE:
        return answer(c, 0, before);
    default:
        return answer(c, -EINVAL, 0);
    }
}

bool serve(struct server *s, struct connection *c, const struct sc_request *r)
{
    struct client *client = c->client;
    bool needs_card = r->op == SC_CARD || r->op == SC_CTX_NEW || r->op == SC_MEM_TAKE || r->op == SC_MEM_GIVE ||
                      r->op == SC_FIGURES || r->op == SC_PROCESSES || r->op == SC_MEM_PLACE || r->op == SC_MEM_UNPLACE ||
                      r->op == SC_MEM_SHARE;
    bool needs_ring = r->op == SC_STREAM_NEW || r->op == SC_STREAM_FREE || r->op == SC_WAIT || r->op == SC_POLL;
    bool needs_process = needs_ring || r->op == SC_CTX_NEW || r->op == SC_CTX_FREE || r->op == SC_MEM_TAKE ||
                         (r->op >= SC_MEM_PLACE && r->op <= SC_MEM_LEAVE) || r->op == SC_MEM_GIVE;
    if ((needs_card && (r->a < 0 || r->a >= sm_n_cards(s->model))) ||
        (needs_ring && (r->a < 0 || r->a >= (int)SC_MAX_RINGS)) || (needs_process && !client->process))
        return answer(c, -EINVAL, 0);
    struct sc_request own;
    if (needs_card && c->is_program && client->process) {
        own = *r;
        own.a = sm_process_card(client->process, r->a);
        r = &own;
    }
    struct sm_stream **stream = needs_ring ? &client->stream[r->a] : NULL;
    uint64_t context = 0, token = 0;
    int error = 0;
    switch (r->op) {
    case SC_HELLO:
        return hello(s, c, r->a);
    case SC_CARD:
        return card(s, c, r->a);
    case SC_CTX_NEW:
        error = context_new(client, r->a, &context);
        return answer(c, error, context);
    case SC_CTX_FREE:
        return answer(c, context_free(client, r), 0);
    case SC_STREAM_NEW: {
        struct sm_group *group = group_of(client, r);
        error = !group || *stream ? -EINVAL : sm_stream_new(group, (uint32_t)r->a, ring_at(client, r->a), stream);
        if (!error)
            client->stream_context[r->a] = r->context[0];
        return answer(c, error, 0);
    }
    case SC_STREAM_FREE:
        if (!*stream)
            return answer(c, -EINVAL, 0);
        sm_stream_free(*stream);
        *stream = NULL;
        return answer(c, 0, 0);
    case SC_WAIT:
        if (!*stream)
            return answer(c, -EINVAL, 0);
        if (sm_stream_completed(*stream) >= r->v[0])
            return answer(c, 0, sm_stream_completed(*stream));
        owe(s, c);
        c->watched = *stream;
        error = sm_watch(*stream, r->v[0], c->cookie);
        if (error) {
            c->waiting = false;
            c->watched = NULL;
            return answer(c, error, 0);
        }
        return false;
    case SC_POLL:
        return answer(c, *stream ? 0 : -EINVAL, *stream ? sm_stream_completed(*stream) : 0);
    case SC_MEM_TAKE:
        return answer(c, sm_memory_take(client->process, r->a, r->v[0]), 0);
    case SC_MEM_GIVE:
        sm_memory_give(client->process, r->a, r->v[0]);
        return answer(c, 0, 0);
    case SC_MEM_PLACE:
        return answer(c, 0, sm_memory_place(client->process, r->a, r->v[0]));
    case SC_MEM_UNPLACE:
        sm_memory_unplace(client->process, r->a, r->v[0]);
        return answer(c, 0, 0);
    case SC_MEM_SHARE:
        error = sm_memory_share(client->process, r->a, r->v[0], &token);
        return answer(c, error, token);
    case SC_MEM_JOIN:
        return answer(c, sm_memory_join(client->process, r->v[0]), 0);
    case SC_MEM_LEAVE:
        return answer(c, sm_memory_leave(client->process, r->v[0]), 0);
    case SC_FIGURES:
        return figures(s, c, r->a);
    case SC_PROCESSES:
        return processes(s, c, r->a);
    case SC_PARK:
        return park(s, c, r);
    default:
        return answer(c, -ENOSYS, 0);
    }
}

void connection_log(struct server *s, struct connection *c)
{
    struct { struct sc_log_head head; struct cc_log_record records[1024]; } out;
    int room = c->log_room && c->log_room < 1024 ? (int)c->log_room : 1024;
    int n = sm_log_read(c->log, out.records, room, &out.head.dropped);
    out.head.now_ns = sm_now(s->model);
    n = n < 0 ? 0 : n;
    connection_reply(c, 0, n, 0, &out, sizeof out.head + (size_t)n * sizeof out.records[0], -1);
}

static bool control(struct server *s, struct connection *c, enum sm_control_kind kind, const struct sc_request *r)
{
    owe(s, c);
    int error = sm_control(s->model, kind, r->a, r->context, (int)r->n_contexts, r->v[0], c->cookie);
    if (!error)
        return false;
    c->waiting = false;
    return answer(c, error, 0);
}

bool serve_owner(struct server *s, struct connection *c, const struct sc_request *r)
{
    if (r->op != SC_GET_TIMESLICE && r->op != SC_INJECT && (r->a < 0 || r->a >= sm_n_cards(s->model)))
        return answer(c, -EINVAL, 0);
    uint64_t ns = 0;
    int error = 0;
    switch (r->op) {
    case SC_DISCOVER: {
        struct cc_group groups[MAX_LISTED];
        int n = sm_discover(s->model, r->a, (uint32_t)r->b, groups, MAX_LISTED);
        n = n > MAX_LISTED ? MAX_LISTED : n;
        connection_reply(c, n < 0 ? n : 0, n, 0, groups, n > 0 ? (size_t)n * sizeof groups[0] : 0, -1);
        return true;
    }
    case SC_SET_TIMESLICE:
        return control(s, c, SM_SET_TIMESLICE, r);
    case SC_GET_TIMESLICE:
        error = r->n_contexts == 1 ? sm_get_timeslice(s->model, r->context[0], &ns) : -EINVAL;
        return answer(c, error, ns);
    case SC_STOP:
        return control(s, c, SM_STOP, r);
    case SC_RESUME:
        return control(s, c, SM_RESUME, r);
    case SC_PREEMPT:
        return control(s, c, SM_PREEMPT, r);
    case SC_LOG_OPEN:
        if (c->log)
            return answer(c, -EBUSY, 0);
        c->log_card = r->a;
        return answer(c, sm_log_open(s->model, r->a, &c->log), 0);
    case SC_LOG_READ:
        if (!c->log)
            return answer(c, -EINVAL, 0);
        c->wants_log = true;
        c->log_room = r->v[0];
        if (!control(s, c, SM_FLUSH, r))
            return false;
        c->wants_log = false;
        return true;
    case SC_FAIL:
        if (r->v[0])
            sm_card_fail(s->model, r->a, (uint32_t)r->v[0]);
        else
            sm_card_recover(s->model, r->a);
        return answer(c, 0, 0);
    case SC_INJECT:
        if (r->a < 0 || r->a >= SM_N_CONTROL)
            return answer(c, -EINVAL, 0);
        sm_inject_control_error(s->model, (enum sm_control_kind)r->a, (uint32_t)r->v[0], r->b);
        return answer(c, 0, 0);
    case SC_PLACE: {
        struct sm_process *process = sm_process_by_pid(s->model, (uint32_t)r->b);
        return answer(c, process ? 0 : -ESRCH, process ? sm_memory_place(process, r->a, r->v[0]) : 0);
    }
    case SC_LOSE_LOG:
        sm_inject_log_loss(s->model, r->a, (uint32_t)r->v[0]);
        return answer(c, 0, 0);
    default:
        return answer(c, -ENOSYS, 0);
    }
}
