/* SPDX-License-Identifier: Apache-2.0
 * Programs that react to completions at the very nanosecond, and ChannelControl, over a model under a virtual clock.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "simcard_virtual.h"

enum kind { FLOOD, STEP, BURST, LATENCY, RANK };

struct sv_program {
    struct sv_program *next;
    struct sv_world *world;
    enum kind kind;
    struct sm_process *process;
    struct sm_group *group;
    struct sm_stream *stream;
    struct sm_ring *ring;
    uint32_t context;
    bool owns_process, paused, dead;
    uint64_t kernel_ns, host_ns, period_ns, depth;
    uint64_t submitted, completed;
    uint64_t next_at;             /* when it will act by itself; SM_NEVER: on a completion */
    uint64_t pending[SM_RING_ENTRIES]; /* when the request or step of entry i began */
    uint64_t *latency;
    size_t n_latency, n_room;
    struct sv_program *peer;      /* RANK: whom its kernels wait for */
    uint64_t n_steps;             /* done: the word that the peer's kernels look at */
    struct sm_group_figures last; /* once it is dead */
};

struct sv_world {
    struct sm_model *model;
    struct sv_program *programs, *ended; /* what is dead is kept for its figures */
};

static void free_all(struct sv_program *p)
{
    for (struct sv_program *next; p; p = next) {
        next = p->next;
        free(p->ring);
        free(p->latency);
        free(p);
    }
}

struct sv_world *sv_world_new(const char *cards)
{
    struct sv_world *w = calloc(1, sizeof *w);
    if (!w)
        return NULL;
    w->model = sm_new(1000000000);
    if (!w->model || sm_add_cards(w->model, cards) < 0) {
        sm_free(w->model);
        free(w);
        return NULL;
    }
    return w;
}

void sv_world_free(struct sv_world *w)
{
    sm_free(w->model);
    free_all(w->programs);
    free_all(w->ended);
    free(w);
}

struct sm_model *sv_model(struct sv_world *w)
{
    return w->model;
}

uint64_t sv_now(const struct sv_world *w)
{
    return sm_now(w->model);
}

static void note_latency(struct sv_program *p, uint64_t ns)
{
    if (p->n_latency == p->n_room) {
        size_t n = p->n_room ? p->n_room * 2 : 256;
        uint64_t *more = realloc(p->latency, n * sizeof *more);
        if (!more)
            return;
        p->latency = more;
        p->n_room = n;
    }
    p->latency[p->n_latency++] = ns;
}

static bool submit(struct sv_program *p, uint64_t began)
{
    struct sm_entry e = {.ts_ns = sv_now(p->world), .op = SM_OP_WORK, .amount = p->kernel_ns, .n_kernels = 1};
    if (sm_submit(p->stream, &e, NULL))
        return false;
    p->pending[p->submitted % SM_RING_ENTRIES] = began;
    p->submitted++;
    return true;
}

/* The kernel that waits for the peer's word, if it is there, ends as soon as it has the card. */
static void let_go(struct sv_program *p)
{
    if (p->peer && p->submitted > p->completed && (p->peer->dead || p->peer->n_steps >= p->n_steps))
        atomic_store_explicit(&p->ring->host_done, 2 * p->n_steps + 1, memory_order_release);
}

/* A step of two entries: wait on the card for the peer, then work. */
static void step_with_peer(struct sv_program *p, uint64_t now)
{
    if (p->completed == p->submitted && p->submitted > 2 * p->n_steps) {
        note_latency(p, now - p->pending[0]);
        p->n_steps++;
        p->next_at = now + p->host_ns;
        if (p->peer)
            let_go(p->peer);
    }
    if (p->next_at > now)
        return;
    p->next_at = p->paused ? now + 100000 : SM_NEVER;
    if (p->paused)
        return;
    struct sm_entry wait = {.ts_ns = now, .op = SM_OP_SPIN};
    if (sm_submit(p->stream, &wait, NULL))
        abort(); /* the ring is empty */
    p->submitted++;
    submit(p, now);
    p->pending[0] = now;
    let_go(p);
}

static void react(struct sv_program *p)
{
    uint64_t now = sv_now(p->world);
    bool finished = false;
    for (uint64_t done = sm_stream_completed(p->stream); p->completed < done; p->completed++) {
        if (p->kind == LATENCY || p->kind == STEP)
            note_latency(p, now - p->pending[p->completed % SM_RING_ENTRIES]);
        finished = true;
    }
    switch (p->kind) {
    case FLOOD:
        while (!p->paused && p->submitted - p->completed < p->depth && submit(p, now))
            ;
        return;
    case STEP:
    case BURST:
        if (finished && p->completed == p->submitted)
            p->next_at = now + p->host_ns;
        if (p->next_at <= now && p->paused)
            p->next_at = now + 100000;
        else if (p->next_at <= now)
            for (p->next_at = SM_NEVER; p->submitted - p->completed < p->depth && submit(p, now);)
                ;
        return;
    case RANK:
        step_with_peer(p, now);
        return;
    case LATENCY:
        for (; p->next_at <= now; p->next_at += p->period_ns)
            if (!p->paused)
                submit(p, p->next_at);
        return;
    }
}

static void react_all(struct sv_world *w)
{
    for (struct sv_program *p = w->programs; p; p = p->next)
        react(p);
    sm_advance(w->model, sm_now(w->model));
}

static void run_to(struct sv_world *w, uint64_t end)
{
    for (;;) {
        react_all(w);
        uint64_t next = sm_next_event(w->model);
        for (const struct sv_program *p = w->programs; p; p = p->next)
            if (p->kind != FLOOD && p->next_at < next)
                next = p->next_at;
        if (next >= end)
            break;
        sm_advance(w->model, next);
    }
    sm_advance(w->model, end);
    react_all(w);
}

void sv_run(struct sv_world *w, uint64_t ns)
{
    run_to(w, sm_now(w->model) + ns);
}

static struct sv_program *program_new(struct sv_world *w, int card, uint32_t pid, struct sm_process *process,
                                      struct sv_program settings)
{
    struct sv_program *p = malloc(sizeof *p);
    if (!p)
        abort();
    *p = settings;
    p->world = w;
    p->next_at = p->kind == FLOOD ? SM_NEVER : sv_now(w);
    p->owns_process = !process;
    p->process = process ? process : sm_process_new(w->model, pid, pid, NULL);
    p->ring = calloc(1, sizeof *p->ring);
    if (!p->process || !p->ring || sm_group_new(p->process, card, &p->group) ||
        sm_stream_new(p->group, pid, p->ring, &p->stream))
        abort(); /* a test that asks for a card that is not there */
    p->context = sm_group_context(p->group);
    p->next = w->programs;
    w->programs = p;
    return p;
}

struct sv_program *sv_flood(struct sv_world *w, int card, uint32_t pid, uint64_t kernel_ns, uint32_t depth)
{
    return program_new(w, card, pid, NULL, (struct sv_program){.kind = FLOOD, .kernel_ns = kernel_ns, .depth = depth});
}

struct sv_program *sv_step(struct sv_world *w, int card, uint32_t pid, uint64_t kernel_ns, uint64_t host_ns)
{
    return program_new(w, card, pid, NULL,
                       (struct sv_program){.kind = STEP, .kernel_ns = kernel_ns, .host_ns = host_ns, .depth = 1});
}

struct sv_program *sv_burst(struct sv_world *w, int card, uint32_t pid, uint64_t kernel_ns, uint32_t n, uint64_t host_ns)
{
    return program_new(w, card, pid, NULL,
                       (struct sv_program){.kind = BURST, .kernel_ns = kernel_ns, .host_ns = host_ns, .depth = n});
}

struct sv_program *sv_latency(struct sv_world *w, int card, uint32_t pid, uint64_t kernel_ns, uint64_t period_ns)
{
    return program_new(w, card, pid, NULL,
                       (struct sv_program){.kind = LATENCY, .kernel_ns = kernel_ns, .period_ns = period_ns});
}

struct sv_program *sv_flood_beside(struct sv_program *program, uint64_t kernel_ns, uint32_t depth)
{
    return program_new(program->world, sm_group_card(program->group), sm_process_pid(program->process),
                       program->process, (struct sv_program){.kind = FLOOD, .kernel_ns = kernel_ns, .depth = depth});
}

struct sv_program *sv_rank(struct sv_world *w, int card, uint32_t pid, uint64_t kernel_ns, uint64_t host_ns)
{
    return program_new(w, card, pid, NULL,
                       (struct sv_program){.kind = RANK, .kernel_ns = kernel_ns, .host_ns = host_ns, .depth = 1});
}

void sv_meet(struct sv_program *one, struct sv_program *two)
{
    one->peer = two;
    two->peer = one;
    let_go(one);
    let_go(two);
}

struct sv_program *sv_rank_beside(struct sv_program *rank)
{
    struct sv_program settings = {.kind = RANK, .kernel_ns = rank->kernel_ns, .host_ns = rank->host_ns, .depth = 1};
    struct sv_program *beside =
        program_new(rank->world, sm_group_card(rank->group), sm_process_pid(rank->process), rank->process, settings);
    sv_meet(rank, beside);
    return beside;
}

void sv_pause(struct sv_program *program, int paused)
{
    program->paused = paused != 0;
}

void sv_kill(struct sv_program *program)
{
    struct sm_process *process = program->process;
    if (program->dead)
        return;
    struct sv_world *w = program->world;
    for (struct sv_program **at = &w->programs; *at;) {
        struct sv_program *p = *at;
        if (p->process != process) {
            at = &p->next;
            continue;
        }
        sm_group_figures(w->model, p->context, &p->last);
        p->dead = true;
        p->process = NULL;
        *at = p->next;
        p->next = w->ended;
        w->ended = p;
    }
    sm_process_gone(process);
}

void sv_fault(struct sv_program *program)
{
    if (!program->dead)
        sm_group_fault(program->group, 700); /* CUDA_ERROR_ILLEGAL_ADDRESS */
}

static int by_size(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

void sv_figures(const struct sv_program *p, struct sv_figures *f)
{
    struct sm_group_figures g = p->last;
    if (!p->dead)
        sm_group_figures(p->world->model, p->context, &g);
    *f = (struct sv_figures){.n_kernels = g.n_kernels, .work_ns = g.work_ns, .held_ns = g.held_ns};
    f->n_requests = p->n_latency;
    if (p->n_latency == 0)
        return;
    qsort(p->latency, p->n_latency, sizeof *p->latency, by_size);
    f->p50_ns = p->latency[(p->n_latency - 1) / 2];
    f->p99_ns = p->latency[(p->n_latency - 1) * 99 / 100];
    f->max_ns = p->latency[p->n_latency - 1];
}

void sv_forget_latencies(struct sv_program *program)
{
    program->n_latency = 0;
}

uint32_t sv_context(const struct sv_program *program)
{
    return program->context;
}

/* --- ChannelControl --- */

struct virtual_card {
    struct sv_world *world;
    int card;
    struct sm_log *log;
};
static struct sv_world *in_use;

void cc_virtual_use(struct sv_world *w)
{
    in_use = w;
}

static int v_open(void **self, const char *uuid, char *why, size_t n_why)
{
    int card = in_use ? sm_card_by_uuid(in_use->model, uuid) : -ENODEV;
    struct virtual_card *v = card < 0 ? NULL : calloc(1, sizeof *v);
    if (!v) {
        snprintf(why, n_why, "no virtual card %s", uuid);
        return -ENODEV;
    }
    v->world = in_use;
    v->card = card;
    if (sm_log_open(in_use->model, card, &v->log)) {
        free(v);
        return -ENOMEM;
    }
    *self = v;
    return 0;
}

static void v_close(void *self)
{
    struct virtual_card *v = self;
    sm_log_close(v->log);
    free(v);
}

static int v_self_test(void *self, struct cc_capabilities *caps)
{
    (void)self;
    *caps = (struct cc_capabilities){.timeslice = 1, .stop = 1, .preempt = 1, .log = 1, .discover = 1};
    return 0;
}

static int v_discover(void *self, uint32_t pid, struct cc_group *groups, int max)
{
    const struct virtual_card *v = self;
    return sm_discover(v->world->model, v->card, pid, groups, max);
}

static void v_forget(void *self, uint32_t handle)
{
    (void)self;
    (void)handle;
}

struct outcome {
    bool done;
    int result;
};

static void control_done(void *arg, uint64_t cookie, int result)
{
    (void)arg;
    *(struct outcome *)(uintptr_t)cookie = (struct outcome){.done = true, .result = result};
}

/* The caller waits for the card: programs go on meanwhile. */
static int control(const struct virtual_card *v, enum sm_control_kind kind, const uint32_t *handles, int n, uint64_t value)
{
    struct outcome outcome = {0};
    sm_set_callbacks(v->world->model, &(struct sm_callbacks){.control_done = control_done});
    int failed = sm_control(v->world->model, kind, v->card, handles, n, value, (uintptr_t)&outcome);
    if (failed)
        return failed;
    while (!outcome.done) {
        react_all(v->world);
        uint64_t next = sm_next_event(v->world->model);
        run_to(v->world, next);
    }
    return outcome.result;
}

static int v_set_timeslice(void *self, uint32_t handle, uint32_t us)
{
    return control(self, SM_SET_TIMESLICE, &handle, 1, us * 1000ull);
}

static int v_get_timeslice(void *self, uint32_t handle, uint32_t *us)
{
    const struct virtual_card *v = self;
    uint64_t ns;
    int failed = sm_get_timeslice(v->world->model, handle, &ns);
    sv_run(v->world, sm_control_takes(v->world->model, 17000)); /* measured on an H200 */
    if (!failed)
        *us = (uint32_t)(ns / 1000);
    return failed;
}

static int v_stop(void *self, const uint32_t *handles, int n, int stopped)
{
    for (int at = 0; at < n; at += SM_GROUPS_A_CALL) {
        int n_now = n - at < SM_GROUPS_A_CALL ? n - at : SM_GROUPS_A_CALL;
        int failed = control(self, stopped ? SM_STOP : SM_RESUME, handles + at, n_now, 0);
        if (failed)
            return failed;
    }
    return 0;
}

static int v_preempt(void *self, uint32_t handle)
{
    return control(self, SM_PREEMPT, &handle, 1, 0);
}

static int v_read_log(void *self, struct cc_log_record *records, int max, uint64_t *dropped, struct cc_moment *told)
{
    const struct virtual_card *v = self;
    int failed = control(v, SM_FLUSH, NULL, 0, 0);
    if (failed)
        return failed;
    told->card_ns = told->our_ns = sv_now(v->world);
    return sm_log_read(v->log, records, max, dropped);
}

const struct cc_ops cc_virtual = {
    .name = "virtual",
    .open = v_open,
    .close = v_close,
    .self_test = v_self_test,
    .discover = v_discover,
    .forget = v_forget,
    .set_timeslice = v_set_timeslice,
    .get_timeslice = v_get_timeslice,
    .stop = v_stop,
    .preempt = v_preempt,
    .read_log = v_read_log,
};
