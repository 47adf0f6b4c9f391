/* SPDX-License-Identifier: Apache-2.0
 * The tables of one card, and the choice of policy.
 */
#include <stdlib.h>
#include <string.h>
#include "state.h"

const struct ac_settings ac_default_settings = {
    .turn_ns = 20 * MS,
    .min_turn_ns = 4 * MS,
    .max_turn_ns = 60 * MS,
    .period_ns = 50 * MS,
    .quantum_ns = 15 * MS,
    .look_ns = 5 * MS,
    .slice_us = 1000,
    .slice_beside_latency_us = 300,
    .slice_latency_us = 20000,
    .slice_fill_long_us = 100000,
    .slice_fill_short_us = 100,
    .budget_ppm = 19500,
};

struct ac_card *ac_new(const struct ac_settings *settings, enum fx_backend backend, uint64_t now)
{
    struct ac_card *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->set = settings ? *settings : ac_default_settings;
    c->backend = backend;
    c->budget_ppm = c->set.budget_ppm;
    c->watch_ppm = c->budget_ppm / 3;
    c->watched_from = now;
    c->lock_tokens_ns = (int64_t)c->budget_ppm * 500;
    c->primary = c->last_primary = c->lender = -1;
    c->accrued_at = c->window_at = now;
    c->next_look = now;
    c->next_lone_test = now + 50 * MS;
    c->settled_at = now;
    c->cut_at = AC_NEVER;
    c->lets_in = -1;
    c->first = c->first_seen = -1;
    return c;
}

void ac_free(struct ac_card *c)
{
    free(c);
}

static bool is_tenant(const struct ac_card *c, int tenant)
{
    return tenant >= 0 && tenant < AC_MAX_TENANTS && c->tenant[tenant].used;
}

bool ac_tenant_put(struct ac_card *c, int tenant, uint32_t request_milli, uint32_t limit_milli, enum fx_class class,
                   uint64_t now)
{
    if (tenant < 0 || tenant >= AC_MAX_TENANTS)
        return false;
    struct tenant *t = &c->tenant[tenant];
    request_milli = request_milli < 1000 ? request_milli : 1000;
    limit_milli = limit_milli < 1000 ? limit_milli : 1000;
    limit_milli = limit_milli < request_milli ? request_milli : limit_milli;
    ac_accrue(c, now);
    if (!t->used) {
        *t = (struct tenant){.used = true, .runnable_since = now, .lone_test_ns = 50 * MS, .yielded_at = AC_NEVER,
                             .rescue_at = now + 1000 * MS, .rescued_from = AC_NEVER};
        /* It starts level with the others. */
        bool any = false;
        for (int i = 0; i < c->n_tenants; i++)
            if (i != tenant && c->tenant[i].used && (!any || c->tenant[i].vt < t->vt)) {
                t->vt = c->tenant[i].vt;
                any = true;
            }
        if (tenant >= c->n_tenants)
            c->n_tenants = tenant + 1;
        t->turns_to_trial = 2;
        t->trial_at = AC_NEVER;
    }
    t->throttled = false; /* anew, by what it is now */
    t->request_milli = request_milli;
    t->limit_milli = limit_milli ? limit_milli : 1;
    t->class = class;
    c->reconsider = true;
    c->trim_at = now;
    c->next_look = now < c->next_look ? now : c->next_look;
    return true;
}

void ac_tenant_gang(struct ac_card *c, int tenant, uint32_t gang)
{
    if (is_tenant(c, tenant))
        c->tenant[tenant].gang = gang;
}

void ac_tenant_borrows(struct ac_card *c, int tenant, uint32_t weight)
{
    struct tenant *t = is_tenant(c, tenant) ? &c->tenant[tenant] : NULL;
    weight = weight < 1000 ? weight : 1000;
    if (!t || t->borrow_weight == weight)
        return;
    int64_t was = weight_of(t), level = ac_level_of_others(c, t);
    t->borrow_weight = weight;
    if (weight_of(t) == was)
        return;
    t->vt = level + (t->vt - level) * was / weight_of(t);
    if (!t->candidate)
        return;
    /* It counts at once: in the hardware's turns as time slices, else from another turn on, in a round by the new weights. */
    ac_round_anew(c);
    c->trim_at = c->accrued_at;
    c->turn_end = soonest(c->turn_end, c->accrued_at);
    c->next_look = soonest(c->next_look, c->accrued_at);
}

void ac_tenant_gone(struct ac_card *c, int tenant)
{
    if (!is_tenant(c, tenant))
        return;
    for (int i = 0; i < c->n_groups; i++)
        if (c->group[i].used && c->group[i].tenant == tenant)
            c->group[i].used = false;
    for (int i = 0; i < c->n_processes; i++)
        if (c->process[i].pid && c->process[i].tenant == tenant)
            c->process[i].pid = 0;
    c->tenant[tenant].used = false;
    if (c->primary == tenant) {
        c->primary = -1;
        c->phase = PHASE_NONE;
    }
    if (c->resident_tenant == tenant)
        c->resident_tenant = AC_OUTSIDE;
    while (c->n_tenants && !c->tenant[c->n_tenants - 1].used)
        c->n_tenants--;
}

void ac_tenant_suspend(struct ac_card *c, int tenant, bool suspended)
{
    if (!is_tenant(c, tenant))
        return;
    struct tenant *t = &c->tenant[tenant];
    if (t->suspended && !suspended)
        ac_level(c, t); /* what it did not have meanwhile is not owed to it */
    t->suspended = suspended;
}

void ac_process_put(struct ac_card *c, int tenant, uint32_t pid)
{
    int place = -1;
    for (int i = c->n_processes - 1; i >= 0; i--) {
        if (c->process[i].pid == pid) {
            c->process[i].tenant = tenant;
            return;
        }
        if (!c->process[i].pid || (place < 0 && c->n_processes == AC_MAX_PROCESSES && c->process[i].tenant < 0))
            place = i;
    }
    if (place < 0 && c->n_processes < AC_MAX_PROCESSES)
        place = c->n_processes++;
    if (place >= 0 && pid)
        c->process[place] = (struct process){pid, tenant};
}

bool ac_process_known(const struct ac_card *c, uint32_t pid)
{
    for (int i = 0; i < c->n_processes; i++)
        if (c->process[i].pid == pid)
            return true;
    return pid == 0 || pid == UINT32_MAX;
}

void ac_process_gone(struct ac_card *c, uint32_t pid)
{
    for (int i = 0; i < c->n_processes; i++)
        if (c->process[i].pid == pid)
            c->process[i].pid = 0;
    for (int i = 0; i < c->n_groups; i++) {
        struct group *g = &c->group[i];
        if (!g->used || g->id.pid != pid)
            continue;
        g->used = false;
        struct tenant *t = &c->tenant[g->tenant];
        if (--t->n_groups == 0 && c->backend == FX_BACKEND_HWSLICE) {
            ac_sleeps(c, t);
            c->next_look = 0; /* the others need not wait for the end of the turn */
        }
    }
}

bool ac_group_put(struct ac_card *c, int tenant, const struct cc_group *group)
{
    int place = -1;
    if (!is_tenant(c, tenant))
        return false;
    for (int i = c->n_groups - 1; i >= 0; i--) {
        struct group *g = &c->group[i];
        if (g->used && g->id.handle == group->handle) {
            if (g->id.pid == group->pid && g->id.start_ticks == group->start_ticks) {
                g->id.context = group->context ? group->context : g->id.context;
                g->stop_unsure |= g->stopped && group->n_channels > g->id.n_channels; /* the new ones are not stopped */
                g->id.n_channels = group->n_channels;
                return false;
            }
            c->tenant[g->tenant].n_groups--; /* the handle names another now */
            g->used = false;
        }
        if (!g->used)
            place = i;
    }
    if (place < 0 && c->n_groups < AC_MAX_GROUPS)
        place = c->n_groups++;
    if (place < 0)
        return false;
    c->group[place] = (struct group){.used = true, .tenant = tenant, .id = *group, .stopped_at = AC_NEVER};
    struct tenant *t = &c->tenant[tenant];
    t->n_groups++;
    if (t->runnable_since == AC_NEVER)
        t->runnable_since = c->accrued_at;
    /* What it ran before it was found is the resident's from now on. */
    if (c->resident && c->resident_pid == group->pid && c->resident_tenant != tenant) {
        c->resident_tenant = tenant;
        ac_wakes(c, t);
        t->last_run = c->accrued_at;
    }
    c->next_look = 0;
    return true;
}

void ac_lease_seen(struct ac_card *c, int tenant, const struct ac_lease_seen *seen, uint64_t now)
{
    if (!is_tenant(c, tenant))
        return;
    struct tenant *t = &c->tenant[tenant];
    (void)now;
    t->seen = *seen;
    if (seen->wants && !seen->never_gate)
        ac_wakes(c, t);
    else
        ac_sleeps(c, t);
}

bool ac_step(struct ac_card *c, uint64_t now, struct ac_action *a)
{
    ac_accrue(c, now);
    c->action_at = now;
    return c->backend == FX_BACKEND_HWSLICE ? ac_hwslice_step(c, now, a)
           : c->backend == FX_BACKEND_LEASE ? ac_lease_step(c, now, a)
                                            : false;
}

void ac_done(struct ac_card *c, const struct ac_action *a, int result, uint64_t now)
{
    ac_accrue(c, now);
    if (c->backend != FX_BACKEND_HWSLICE)
        return;
    ac_spent(c, a, result < 0, now);
    if (a->kind == AC_READ_LOG && result < 0)
        ac_charge_unread(c, now);
    ac_hwslice_done(c, a, result, now);
}

uint64_t ac_next_wake(const struct ac_card *c, uint64_t now)
{
    return c->backend == FX_BACKEND_HWSLICE ? ac_hwslice_wake(c, now)
           : c->backend == FX_BACKEND_LEASE ? ac_lease_wake(c, now)
                                            : AC_NEVER;
}

void ac_all_resumed(struct ac_card *c, uint64_t now)
{
    for (int i = 0; i < c->n_groups; i++) {
        struct group *g = &c->group[i];
        g->stopped = g->stop_unsure = false;
        if (g->used && c->tenant[g->tenant].runnable_since == AC_NEVER)
            c->tenant[g->tenant].runnable_since = now;
    }
    for (int i = 0; i < c->n_tenants; i++)
        c->tenant[i].frozen = false;
    c->next_look = now;
}

int ac_turn_of(const struct ac_card *c)
{
    return c->primary;
}

void ac_look(struct ac_card *c)
{
    if ((c->rotate || (c->primary >= 0 && ac_waiting(c))) && c->accrued_at >= c->looked_at + ac_look_pause(c))
        c->next_look = 0;
}

bool ac_contended(const struct ac_card *c)
{
    int n = 0;
    for (int i = 0; i < c->n_tenants; i++) {
        const struct tenant *t = &c->tenant[i];
        n += t->used && t->candidate;
        if (t->used && t->wants && t->n_groups && t->limit_milli < 1000)
            return true;
    }
    return n > 1;
}

void ac_budget(struct ac_card *c, uint32_t ppm)
{
    c->budget_ppm = ppm ? ppm : 1;
}

int ac_stopped(const struct ac_card *c, int tenant, uint32_t *handles, int max)
{
    int n = 0;
    for (int i = 0; i < c->n_groups && n < max; i++)
        if (c->group[i].used && (tenant == AC_OUTSIDE || c->group[i].tenant == tenant) &&
            (c->group[i].stopped || c->group[i].stop_unsure))
            handles[n++] = c->group[i].id.handle;
    return n;
}

void ac_usage(const struct ac_card *c, int tenant, struct ac_usage *usage)
{
    if (!is_tenant(c, tenant)) {
        memset(usage, 0, sizeof *usage);
        return;
    }
    const struct tenant *t = &c->tenant[tenant];
    *usage = t->usage;
    usage->suspended = t->suspended;
    usage->frozen = t->frozen;
    bool held = c->backend == FX_BACKEND_LEASE ? !t->open : t->runnable_since == AC_NEVER;
    usage->running = t->wants && !held;
    usage->waiting = t->wants && held;
    usage->n_groups = t->n_groups;
}

void ac_card_usage(const struct ac_card *c, struct ac_card_usage *usage)
{
    *usage = c->usage;
    usage->round_ns = c->rotate || (c->primary >= 0 && ac_waiting(c)) ? c->round_ns : 0;
    usage->known_at = c->backend == FX_BACKEND_HWSLICE ? c->known_at : 0;
}
