/* SPDX-License-Identifier: Apache-2.0
 * The core and the simulated card in one virtual time: what the daemon does, without the daemon.
 */
#ifndef FLEXAI_ARBITER_RIG_H
#define FLEXAI_ARBITER_RIG_H
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "core.h"
#include "simcard_virtual.h"

#define MS 1000000ull
#define S 1000000000ull

struct rig {
    struct sv_world *world;
    struct ac_card *card;
    void *cc;
    uint64_t control_ns, n_control;
    int fail_every; /* every n-th stop or resume is refused */
    int n_calls;
};

static inline void rig_begin(struct rig *r, const struct ac_settings *settings)
{
    char why[128];
    memset(r, 0, sizeof *r);
    r->world = sv_world_new("h200:1");
    cc_virtual_use(r->world);
    if (cc_virtual.open(&r->cc, sm_card_uuid(sv_model(r->world), 0), why, sizeof why))
        abort();
    r->card = ac_new(settings, FX_BACKEND_HWSLICE, sv_now(r->world));
}

static inline void rig_end(struct rig *r)
{
    ac_free(r->card);
    cc_virtual.close(r->cc);
    sv_world_free(r->world);
}

static inline void rig_discover(struct rig *r, int tenant, uint32_t pid)
{
    struct cc_group groups[16];
    int n = cc_virtual.discover(r->cc, pid, groups, 16);
    ac_process_put(r->card, tenant, pid);
    for (int i = 0; i < n; i++)
        ac_group_put(r->card, tenant, &groups[i]);
}

/* Tenants are numbered, and run programs of pid 100 + number (and 200 + number). */
static inline void rig_do(struct rig *r, const struct ac_action *a)
{
    static struct cc_log_record records[8192];
    uint64_t dropped = 0, card_now = 0, before = sv_now(r->world);
    int result = 0;
    switch (a->kind) {
    case AC_READ_LOG:
        result = cc_virtual.read_log(r->cc, records, 8192, &dropped, &card_now);
        if (result >= 0)
            ac_log(r->card, records, result, dropped, card_now, sv_now(r->world));
        break;
    case AC_STOP:
    case AC_RESUME:
        if (r->fail_every && ++r->n_calls % r->fail_every == 0)
            result = -5;
        else
            result = cc_virtual.stop(r->cc, a->handles, a->n, a->kind == AC_STOP);
        break;
    case AC_TIMESLICE:
        result = cc_virtual.set_timeslice(r->cc, a->handles[0], a->value);
        break;
    case AC_PREEMPT:
        result = cc_virtual.preempt(r->cc, a->handles[0]);
        break;
    case AC_DISCOVER:
        rig_discover(r, (int)(a->value % 100), a->value);
        break;
    case AC_GATE:
    case AC_WINDOW:
        break;
    }
    r->control_ns += sv_now(r->world) - before;
    r->n_control++;
    if (getenv("RIG_TRACE"))
        printf("%10.3f kind %d tenant %d value %u n %d -> %d\n", (double)before / 1e6, a->kind, a->tenant, a->value, a->n, result);
    ac_done(r->card, a, result, sv_now(r->world));
}

static inline void rig_run(struct rig *r, uint64_t ns)
{
    uint64_t end = sv_now(r->world) + ns;
    struct ac_action action;
    while (sv_now(r->world) < end) {
        for (int i = 0; ac_step(r->card, sv_now(r->world), &action); i++) {
            if (i > 1000) {
                fprintf(stderr, "the core does not come to rest: kind %d tenant %d value %u\n", action.kind, action.tenant, action.value);
                abort();
            }
            rig_do(r, &action);
        }
        uint64_t now = sv_now(r->world), wake = ac_next_wake(r->card, now);
        wake = wake < now + 50000 ? now + 50000 : wake; /* as a timer is */
        sv_run(r->world, (wake < end ? wake : end) > now ? (wake < end ? wake : end) - now : 1);
    }
}

static inline struct sv_figures rig_figures(const struct sv_program *p)
{
    struct sv_figures f;
    sv_figures(p, &f);
    return f;
}
#endif
