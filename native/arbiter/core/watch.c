/* SPDX-License-Identifier: Apache-2.0
 * Tenants that act against control: the driver lets a process resume itself, set its own time slice, and stop whose
 * handles it guesses.
 */
#include "state.h"

#define PATIENCE 3         /* stops undone, before its processes are frozen */
#define FORGIVEN_NS (60000 * MS) /* after the last of them */
#define MADE_NS (800 * MS)
#define CHECK_NS (40 * MS) /* so that a time slice that was changed is seen within 50 ms */

/* A longer time slice harms somebody only while others use the card, too. */
bool ac_checks(const struct ac_card *c)
{
    int n = 0;
    for (int i = 0; i < c->n_tenants; i++)
        n += c->tenant[i].used && c->tenant[i].n_groups;
    return n > 1 && (c->resident || c->primary >= 0 || c->rotate);
}

bool ac_overruns(struct ac_card *c, uint64_t now)
{
    for (int i = 0; i < c->n_groups && c->resident; i++) {
        const struct group *g = &c->group[i];
        if (!g->used || g->id.pid != c->resident_pid || g->tenant != c->resident_tenant || !g->slice_us ||
            g->checked_at >= c->alone_since)
            continue;
        c->check_at = now;
        c->check_next = i;
        return true;
    }
    return false;
}

bool ac_check(struct ac_card *c, uint64_t now, struct ac_action *a)
{
    if (now < c->check_at || !ac_checks(c))
        return false;
    while (c->check_next < c->n_groups) {
        const struct group *g = &c->group[c->check_next++];
        if (!g->used || g->stopped || !g->slice_us || now < g->retry_at)
            continue;
        *a = (struct ac_action){.kind = AC_CHECK, .tenant = g->tenant, .n = 1};
        a->handles[0] = g->id.handle;
        return true;
    }
    c->check_next = 0;
    c->check_at = now + CHECK_NS;
    return false;
}

/* It runs although we stopped it: somebody undid that. */
void ac_defied(struct ac_card *c, int tenant, uint64_t at)
{
    struct tenant *t = &c->tenant[tenant];
    t->usage.hostile++;
    t->n_defied = at < t->defied_at + FORGIVEN_NS ? t->n_defied + 1 : 1;
    t->defied_at = at;
}

/* Stopped again each time; whoever does it again and again has its processes frozen while it is stopped. */
bool ac_freeze(struct ac_card *c, bool thaw, struct ac_action *a)
{
    for (int i = 0; i < c->n_tenants; i++) {
        struct tenant *t = &c->tenant[i];
        bool want = t->used && t->n_groups && t->stop_want && t->n_defied >= PATIENCE && c->accrued_at < t->defied_at + FORGIVEN_NS;
        if (!t->used || t->frozen == want || t->frozen != thaw)
            continue;
        t->frozen = want;
        *a = (struct ac_action){.kind = AC_FREEZE, .tenant = i, .value = want};
        return true;
    }
    return false;
}

bool ac_timeslice_seen(struct ac_card *c, uint32_t handle, uint32_t us)
{
    for (int i = 0; i < c->n_groups; i++) {
        struct group *g = &c->group[i];
        if (!g->used || g->id.handle != handle)
            continue;
        g->checked_at = c->accrued_at;
        if (!g->slice_us || g->slice_real_us == us)
            continue;
        /* The vendor's library sets its own while it makes a context, which may be after the group was found. */
        if (g->ran && c->accrued_at > g->found_at + MADE_NS)
            c->tenant[g->tenant].usage.hostile++;
        g->slice_us = 0;
        return false;
    }
    return true;
}
