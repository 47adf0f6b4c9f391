/* SPDX-License-Identifier: Apache-2.0
 * The core and the simulated card in one virtual time: what the daemon does, without the daemon. Tenants are numbered;
 * tenant i runs programs of pid 100 + i. With the lease backend a closed gate is a program that submits nothing more.
 */
#ifndef FLEXAI_ARBITER_RIG_H
#define FLEXAI_ARBITER_RIG_H
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "core.h"
#include "simcard_virtual.h"

#define MS 1000000ull
#define RIG_TENANTS 16

struct rig {
    struct sv_world *world;
    struct ac_card *card;
    enum fx_backend backend;
    void *cc;
    struct sv_program *program[RIG_TENANTS];
    bool idle[RIG_TENANTS], gate[RIG_TENANTS], dead[RIG_TENANTS], frozen[RIG_TENANTS];
    uint64_t control_ns, n_control;
    uint32_t fail_every, n_calls; /* every n-th control call is refused */
    uint64_t records_lost;
    bool shuffle;                 /* neighbouring records change places */
};

static inline void rig_begin(struct rig *r, enum fx_backend backend)
{
    char why[128];
    memset(r, 0, sizeof *r);
    r->backend = backend;
    r->world = sv_world_new("h200:1");
    cc_virtual_use(r->world);
    if (cc_virtual.open(&r->cc, sm_card_uuid(sv_model(r->world), 0), why, sizeof why))
        abort();
    r->card = ac_new(NULL, backend, sv_now(r->world));
}

static inline void rig_end(struct rig *r)
{
    ac_free(r->card);
    cc_virtual.close(r->cc);
    sv_world_free(r->world);
}

static inline void rig_discover(struct rig *r, int tenant)
{
    struct cc_group groups[16];
    uint32_t pid = 100 + (uint32_t)tenant;
    int n = cc_virtual.discover(r->cc, pid, groups, 16);
    ac_process_put(r->card, tenant, pid);
    for (int i = 0; i < n; i++)
        ac_group_put(r->card, tenant, &groups[i]);
}

static inline void rig_obey(struct rig *r, int i)
{
    if (r->program[i] && !r->dead[i])
        sv_pause(r->program[i], r->idle[i] || (r->backend == FX_BACKEND_LEASE && !r->gate[i]));
}

static inline int rig_read_log(struct rig *r)
{
    static struct cc_log_record records[8192];
    uint64_t dropped = 0, card_now = 0;
    int n = cc_virtual.read_log(r->cc, records, 8192, &dropped, &card_now);
    r->records_lost += dropped;
    for (int i = 0; r->shuffle && i + 1 < n; i += 5) {
        struct cc_log_record other = records[i];
        records[i] = records[i + 1];
        records[i + 1] = other;
    }
    if (n >= 0)
        ac_log(r->card, records, n, dropped, card_now, sv_now(r->world));
    return n;
}

static inline void rig_do(struct rig *r, const struct ac_action *a)
{
    uint64_t before = sv_now(r->world);
    bool refused = r->fail_every && a->kind < AC_DISCOVER && ++r->n_calls % r->fail_every == 0;
    int result = refused ? -5 : 0;
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
    case AC_DISCOVER:
        if (a->value >= 100 && a->value < 100 + RIG_TENANTS)
            rig_discover(r, (int)a->value - 100);
        else
            ac_process_put(r->card, AC_OUTSIDE, a->value);
        break;
    case AC_GATE:
        if (a->kind == AC_GATE) {
            r->gate[a->tenant] = a->value != 0;
            rig_obey(r, a->tenant);
        }
        break;
    case AC_WINDOW:
        break;
    }
    r->control_ns += sv_now(r->world) - before;
    r->n_control++;
    if (getenv("RIG_TRACE"))
        printf("%10.3f kind %d tenant %d value %u n %d -> %d\n", (double)before / 1e6, (int)a->kind, a->tenant, a->value,
               a->n, result);
    ac_done(r->card, a, result, sv_now(r->world));
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
        ac_lease_seen(r->card, i, &seen, sv_now(r->world));
    }
    return closing;
}

static inline void rig_run(struct rig *r, uint64_t ns)
{
    uint64_t end = sv_now(r->world) + ns;
    struct ac_action action;
    while (sv_now(r->world) < end) {
        bool closing = rig_look(r);
        for (int i = 0; ac_step(r->card, sv_now(r->world), &action); i++) {
            if (i > 1000) {
                fprintf(stderr, "the core does not come to rest: kind %d tenant %d\n", (int)action.kind, action.tenant);
                abort();
            }
            rig_do(r, &action);
        }
        uint64_t now = sv_now(r->world), wake = ac_next_wake(r->card, now);
        uint64_t poll = r->backend == FX_BACKEND_LEASE ? now + (closing ? MS / 10 : MS) : AC_NEVER;
        wake = poll < wake ? poll : wake;
        wake = wake < now + 50000 ? now + 50000 : wake; /* as a timer is */
        if (now < end)
            sv_run(r->world, (wake < end ? wake : end) - now);
    }
}
#endif
