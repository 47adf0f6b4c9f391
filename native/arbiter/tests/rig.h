/* SPDX-License-Identifier: Apache-2.0
 * The core and the simulated card in one virtual time: what the daemon does, without the daemon. Tenants are numbered;
 * tenant i runs programs of pid 100 + i. With the lease backend a closed gate is a program that submits nothing more.
 */
#ifndef FLEXAI_ARBITER_RIG_H
#define FLEXAI_ARBITER_RIG_H
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "core.h"
#include "simcard_virtual.h"

#define MS 1000000ull
#define RIG_TENANTS 16
#define RIG_SAMPLES 4096
#define RIG_SAMPLE_NS (20 * MS)
#define RIG_WAITS 1024
#define RIG_WAIT_NS (MS / 20)  /* how exactly they are told */
#define RIG_PID(r, tenant) (100u * (uint32_t)((r)->index + 1) + (uint32_t)(tenant))

struct rig {
    struct sv_world *world;
    struct ac_card *card;
    enum fx_backend backend;
    void *cc;
    struct sv_program *program[RIG_TENANTS];
    bool idle[RIG_TENANTS], gate[RIG_TENANTS], dead[RIG_TENANTS], frozen[RIG_TENANTS];
    bool ending[RIG_TENANTS];     /* its process is ending: descriptors are gone, the process is not yet */
    int index;                    /* of the card */
    uint64_t n_calls_of[AC_N_KINDS], call_ns[AC_N_KINDS];
    uint64_t beat_at;             /* as the daemon: figures every 100 ms */
    uint64_t sampled_at;          /* samples of held time, for the worst second */
    int n_samples;
    struct rig_sample { uint64_t at, held[RIG_TENANTS]; } sample[RIG_SAMPLES];
    uint32_t gang[RIG_TENANTS];
    uint32_t fail_every, n_calls; /* every n-th control call is refused */
    uint64_t records_lost;
    bool shuffle;                 /* neighbouring records change places */
    bool grown[RIG_TENANTS];      /* it has made another channel */
    uint64_t ahead_ns;            /* our clock has leapt */
    int64_t card_ahead_ns;        /* so has the card's, */
    uint64_t card_leapt_at;       /* then */
    struct rig_meddler { int by, whom; uint64_t every_ns, at; } meddler; /* a tenant that resumes another again and again */
    bool by_signal;               /* who is frozen is so by SIGSTOP */
    uint64_t late_ns;             /* what is read from the log reaches the core so much later */
    struct rig_wait {             /* from when a tenant had work again until it had the card, */
        uint64_t asked_at, held;  /* 0: it has it; what it had had then */
        int n;
        uint64_t ns[RIG_WAITS];   /* each time */
    } wait[RIG_TENANTS];
};

/* One card of a world and its core. */
static inline void rig_begin(struct rig *r, struct sv_world *world, int index, enum fx_backend backend)
{
    char why[128];
    memset(r, 0, sizeof *r);
    r->backend = backend;
    r->world = world;
    r->index = index;
    cc_virtual_use(r->world);
    if (cc_virtual.open(&r->cc, sm_card_uuid(sv_model(r->world), index), why, sizeof why))
        abort();
    r->card = ac_new(NULL, backend, sv_now(r->world));
    r->sampled_at = sv_now(world);
}

/* What the core is told. */
static inline uint64_t rig_now(const struct rig *r)
{
    return sv_now(r->world) + r->ahead_ns;
}

static inline void rig_end(struct rig *r)
{
    ac_free(r->card);
    cc_virtual.close(r->cc);
}

static inline void rig_discover(struct rig *r, int tenant)
{
    struct cc_group groups[16];
    uint32_t pid = RIG_PID(r, tenant);
    int n = cc_virtual.discover(r->cc, pid, groups, 16);
    ac_process_put(r->card, tenant, pid);
    for (int i = 0; i < n; i++) {
        groups[i].n_channels += r->grown[tenant];
        ac_group_put(r->card, tenant, &groups[i]);
    }
}

static inline void rig_obey(struct rig *r, int i)
{
    if (r->program[i] && !r->dead[i])
        sv_pause(r->program[i], r->idle[i] || (r->backend == FX_BACKEND_LEASE ? !r->gate[i] : r->frozen[i]));
}

static inline int rig_read_log(struct rig *r)
{
    static struct cc_log_record records[8192];
    uint64_t dropped = 0;
    struct cc_moment told = {0};
    int n = cc_virtual.read_log(r->cc, records, 8192, &dropped, &told);
    told.card_ns += (uint64_t)r->card_ahead_ns;
    told.our_ns = rig_now(r);
    r->records_lost += dropped;
    for (int i = 0; i < n && getenv("RIG_TRACE"); i++)
        printf("%10.3f %s pid %u\n", (double)records[i].ts_ns / 1e6, records[i].kind == CC_LOG_START ? "runs" : "left", records[i].pid);
    for (int i = 0; i < n; i++)
        if (records[i].ts_ns >= r->card_leapt_at)
            records[i].ts_ns += (uint64_t)r->card_ahead_ns;
    for (int i = 0; r->shuffle && i + 1 < n; i += 5) {
        struct cc_log_record other = records[i];
        records[i] = records[i + 1];
        records[i + 1] = other;
    }
    if (r->late_ns)
        sv_run(r->world, r->late_ns);
    if (n >= 0)
        ac_log(r->card, records, n, dropped, told);
    return n;
}

static inline void rig_do(struct rig *r, const struct ac_action *a)
{
    uint64_t before = sv_now(r->world);
    bool refused = r->fail_every && (a->kind < AC_DISCOVER || a->kind == AC_CHECK) && ++r->n_calls % r->fail_every == 0;
    int result = refused ? -5 : 0;
    if (a->tenant >= 0 && a->tenant < RIG_TENANTS && r->ending[a->tenant] &&
        (a->kind == AC_TIMESLICE || a->kind == AC_PREEMPT || a->kind == AC_CHECK)) {
        r->n_calls_of[a->kind]++;
        ac_done(r->card, a, -ESRCH, rig_now(r));
        return;
    }
    switch (refused ? AC_GATE : a->kind) {
    case AC_READ_LOG:
        result = rig_read_log(r);
        break;
    case AC_STOP:
    case AC_RESUME:
        result = cc_virtual.stop(r->cc, a->handles, a->n, a->kind == AC_STOP);
        break;
    case AC_TIMESLICE:
        result = cc_virtual.set_timeslice(r->cc, a->handles[0], a->value);
        break;
    case AC_PREEMPT:
        result = cc_virtual.preempt(r->cc, a->handles[0]);
        break;
    case AC_CHECK: {
        uint32_t us = 0;
        result = cc_virtual.get_timeslice(r->cc, a->handles[0], &us);
        if (result >= 0)
            ac_timeslice_seen(r->card, a->handles[0], us);
        break;
    }
    case AC_DISCOVER:
        if (a->value >= RIG_PID(r, 0) && a->value < RIG_PID(r, RIG_TENANTS))
            rig_discover(r, (int)(a->value - RIG_PID(r, 0)));
        else
            ac_process_put(r->card, AC_OUTSIDE, a->value);
        break;
    case AC_GATE:
        if (a->kind == AC_GATE) {
            r->gate[a->tenant] = a->value != 0;
            rig_obey(r, a->tenant);
        }
        break;
    case AC_FREEZE: /* what does not run cannot undo anything; its queued work would go on if it could */
        r->frozen[a->tenant] = a->value != 0;
        rig_obey(r, a->tenant);
        result = r->by_signal ? 0 : 1;
        break;
    case AC_WINDOW:
    case AC_N_KINDS:
        break;
    }
    r->n_calls_of[a->kind]++;
    r->call_ns[a->kind] += sv_now(r->world) - before;
    if (getenv("RIG_TRACE"))
        printf("%10.3f kind %d tenant %d value %u n %d -> %d\n", (double)before / 1e6, (int)a->kind, a->tenant, a->value,
               a->n, result);
    ac_done(r->card, a, result, rig_now(r));
}

static inline bool rig_look(struct rig *r)
{
    bool closing = false;
    for (int i = 0; r->backend == FX_BACKEND_LEASE && i < RIG_TENANTS; i++) {
        struct sm_group_figures g;
        if (!r->program[i])
            continue;
        bool work = !r->dead[i] && sm_group_figures(sv_model(r->world), sv_context(r->program[i]), &g) == 0 && g.has_work;
        struct ac_lease_seen seen = {.drained = r->dead[i] || (!work && !r->frozen[i]),
                                     .wants = !r->dead[i] && !r->frozen[i] && (!r->idle[i] || (work && r->gate[i]))};
        closing |= !r->gate[i] && work;
        ac_lease_seen(r->card, i, &seen, rig_now(r));
    }
    return closing;
}

/* Card time of a tenant's program; sv_figures sorts its latencies, too. */
static inline uint64_t rig_held(const struct rig *r, int i)
{
    struct sm_group_figures g;
    struct sv_figures f = {0};
    if (r->program[i] && !r->dead[i] && sm_group_figures(sv_model(r->world), sv_context(r->program[i]), &g) == 0)
        return g.held_ns;
    if (r->program[i])
        sv_figures(r->program[i], &f);
    return f.held_ns;
}

static inline bool rig_waits(struct rig *r, uint64_t now)
{
    bool any = false;
    for (int i = 0; i < RIG_TENANTS; i++) {
        struct rig_wait *w = &r->wait[i];
        if (!w->asked_at)
            continue;
        if (rig_held(r, i) > w->held && w->n < RIG_WAITS) {
            w->ns[w->n++] = now - w->asked_at;
            w->asked_at = 0;
        }
        any |= w->asked_at != 0;
    }
    return any;
}

static inline void rig_sample(struct rig *r, uint64_t now)
{
    struct rig_sample *s = &r->sample[r->n_samples++ % RIG_SAMPLES];
    s->at = now;
    r->sampled_at = now - now % RIG_SAMPLE_NS;
    for (int i = 0; i < RIG_TENANTS; i++)
        s->held[i] = rig_held(r, i);
}

/* How much of the card time of a gang's ranks was on all its cards at once, a millisecond at a time. Ranks on one card
 * count as one. */
#define RIG_GANGS 8
struct rig_overlap { uint64_t was[SM_MAX_CARDS], held[SM_MAX_CARDS], at_once; };

static inline void rig_overlap(const struct rig *rigs, int n, struct rig_overlap *overlap)
{
    for (uint32_t g = 1; g < RIG_GANGS; g++) {
        struct rig_overlap *o = &overlap[g];
        uint64_t least = UINT64_MAX;
        for (int k = 0; k < n; k++) {
            uint64_t held = 0;
            bool any = false;
            for (int i = 0; i < RIG_TENANTS; i++) {
                if (!rigs[k].program[i] || rigs[k].gang[i] != g)
                    continue;
                held += rig_held(&rigs[k], i);
                any = true;
            }
            if (!any)
                continue;
            uint64_t had = held - o->was[k];
            o->was[k] = held;
            o->held[k] += had;
            least = had < least ? had : least;
        }
        o->at_once += least == UINT64_MAX ? 0 : least;
    }
}

/* It runs in its process, as long as that may run. */
static inline void rig_meddle(struct rig *r)
{
    struct rig_meddler *m = &r->meddler;
    if (!m->every_ns || sv_now(r->world) < m->at)
        return;
    m->at = sv_now(r->world) + m->every_ns;
    uint32_t context = r->program[m->whom] ? sv_context(r->program[m->whom]) : 0;
    if (!r->frozen[m->by] && !r->dead[m->by] && !r->dead[m->whom])
        cc_virtual.stop(r->cc, &context, 1, 0);
}

/* One action of a card at a time, so that those which belong together are close together. */
static inline void rig_act(struct rig *rigs, int n)
{
    struct ac_action action;
    bool any = true;
    for (int i = 0; any; i++) {
        any = false;
        for (int k = 0; k < n; k++) {
            if (!ac_step(rigs[k].card, rig_now(&rigs[k]), &action))
                continue;
            any = true;
            if (i > 1000) {
                fprintf(stderr, "the core does not come to rest: kind %d tenant %d\n", (int)action.kind, action.tenant);
                abort();
            }
            rig_do(&rigs[k], &action);
        }
    }
}

/* Where overlap is told, time goes by in steps of a millisecond. */
static inline void rig_run(struct rig *rigs, int n, uint64_t ns, bool aligned, struct rig_overlap *overlap)
{
    struct sv_world *world = rigs[0].world;
    uint64_t end = sv_now(world) + ns;
    struct ac_card *cards[SM_MAX_CARDS];
    for (int k = 0; k < n; k++)
        cards[k] = rigs[k].card;
    while (sv_now(world) < end) {
        uint64_t wake = AC_NEVER;
        uint32_t contended = 0;
        for (int k = 0; k < n; k++)
            contended += ac_contended(rigs[k].card);
        for (int k = 0; k < n; k++)
            ac_budget(rigs[k].card, ac_default_settings.budget_ppm / (contended ? contended : 1));
        if (aligned)
            ac_align(cards, n, rig_now(&rigs[0]));
        bool closing[SM_MAX_CARDS];
        for (int k = 0; k < n; k++) {
            rig_meddle(&rigs[k]);
            closing[k] = rig_look(&rigs[k]);
            if (sv_now(world) >= rigs[k].beat_at) {
                rigs[k].beat_at = sv_now(world) + 100 * MS;
                ac_look(rigs[k].card);
            }
        }
        rig_act(rigs, n);
        if (aligned && ac_align(cards, n, rig_now(&rigs[0])))
            rig_act(rigs, n);
        for (int k = 0; k < n; k++) {
            const struct rig *r = &rigs[k];
            uint64_t now = sv_now(world), at = ac_next_wake(r->card, rig_now(r));
            at = at == AC_NEVER ? at : at > r->ahead_ns ? at - r->ahead_ns : 0;
            uint64_t poll = r->backend == FX_BACKEND_LEASE ? now + (closing[k] ? MS / 10 : MS) : AC_NEVER;
            at = poll < at ? poll : at;
            at = r->beat_at < at ? r->beat_at : at;
            at = r->meddler.every_ns && r->meddler.at < at ? r->meddler.at : at;
            wake = at < wake ? at : wake;
        }
        uint64_t now = sv_now(world);
        wake = wake < now + 50000 ? now + 50000 : wake; /* as a timer is */
        wake = wake < end ? wake : end;
        while ((now = sv_now(world)) < wake) {
            uint64_t sample = rigs[0].sampled_at + RIG_SAMPLE_NS;
            if (sample <= now) {
                for (int k = 0; k < n; k++)
                    rig_sample(&rigs[k], now);
                continue;
            }
            uint64_t next = sample < wake ? sample : wake;
            bool waits = false;
            for (int k = 0; k < n; k++)
                waits |= rig_waits(&rigs[k], now);
            if (waits)
                next = next < now + RIG_WAIT_NS ? next : now + RIG_WAIT_NS;
            if (overlap) {
                next = next < now + MS ? next : now + MS;
                rig_overlap(rigs, n, overlap);
            }
            sv_run(world, next - now);
        }
    }
}
#endif
