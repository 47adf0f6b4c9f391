/* SPDX-License-Identifier: Apache-2.0
 * A tenant that somebody else has stopped. To the log it looks as one without work, so who is overdue is resumed before it
 * is taken for that: one without work does not notice. It costs a call, so one that often pauses is resumed more rarely,
 * down to once a second, as is whoever has no work. Who stopped it the driver does not say; that somebody did is certain
 * enough only of one that was stopped while it waited for its turn.
 */
#include <errno.h>
#include "state.h"

#define FIRST_NS (50 * MS)
#define LAST_NS (1000 * MS)
#define BACK_NS (1 * MS) /* after our call: sooner is no coincidence */

/* Somebody who could be on the card is overdue: true while something is to be done before it is taken to have no work.
 * One that had more to do when it left is first given the card: if it was only waiting, it comes. */
bool ac_rescue_first(const struct ac_card *c, struct tenant *t, uint64_t now)
{
    if (t->missed || t->room_wanted)
        return true;
    if (!t->n_groups || now < t->rescue_at || t->rescued_for == t->last_run)
        return false;
    t->tells = c->rotate && t->had_all;
    if (t->tells && t->room_for != t->last_run) {
        t->room_for = t->last_run;
        t->room_wanted = true;
        return true;
    }
    if (now > t->rescue_at + LAST_NS)
        t->rescue_ns = 0;
    t->missed = true;
    t->rescued_for = t->last_run;
    return true;
}

static bool is_due(const struct tenant *t, uint64_t now)
{
    if (!t->used || !t->n_groups || t->stop_want || t->runnable_since == AC_NEVER)
        return false;
    return t->missed || (!t->wants && now >= t->rescue_at);
}

bool ac_rescue(struct ac_card *c, uint64_t now, struct ac_action *a)
{
    for (int i = 0; i < c->n_tenants; i++) {
        struct tenant *t = &c->tenant[i];
        if (!is_due(t, now)) {
            t->missed = false;
            continue;
        }
        *a = (struct ac_action){.kind = AC_RESUME, .tenant = i, .value = AC_RESCUE};
        for (int k = 0; k < c->n_groups; k++)
            if (c->group[k].used && c->group[k].tenant == i && !c->group[k].stopped)
                a->handles[a->n++] = c->group[k].id.handle;
        if (a->n)
            return true;
        t->missed = false;
        t->rescue_at = now + LAST_NS;
    }
    return false;
}

void ac_rescue_done(struct ac_card *c, int tenant, int result, uint64_t now)
{
    struct tenant *t = &c->tenant[tenant];
    uint64_t longest = LAST_NS * ac_rarer(c);
    bool tells = t->missed && t->tells && result >= 0;
    if (t->missed)
        c->next_look = soonest(c->next_look, now + BACK_NS);
    t->missed = false;
    t->rescue_ns = !t->rescue_ns ? FIRST_NS : 2 * t->rescue_ns < longest ? 2 * t->rescue_ns : longest;
    t->rescue_at = now + t->rescue_ns;
    t->rescued_from = tells ? c->action_at : AC_NEVER;
    t->rescued_at = now;
    t->room_wanted = tells;
    c->usage.n_failed += result < 0 && result != -ESRCH;
}

/* Whoever has the card lets it go for a moment. */
bool ac_make_room(struct ac_card *c, uint64_t now, struct ac_action *a)
{
    bool wanted = false;
    for (int i = 0; i < c->n_tenants; i++) {
        wanted |= c->tenant[i].used && c->tenant[i].room_wanted && !(c->resident && c->resident_tenant == i);
        c->tenant[i].room_wanted = false;
    }
    if (wanted)
        c->next_look = soonest(c->next_look, now + BACK_NS);
    const struct group *g = wanted ? ac_on_card(c) : NULL;
    if (!g)
        return false;
    *a = on_group(AC_PREEMPT, g, AC_RESCUE);
    return true;
}

void ac_room_made(struct ac_card *c, uint64_t now)
{
    for (int i = 0; i < c->n_tenants; i++)
        if (c->tenant[i].used && c->tenant[i].rescued_from != AC_NEVER)
            c->tenant[i].rescued_at = now;
    c->next_look = soonest(c->next_look, now + BACK_NS);
}

/* It came on the card. If that was by its next turn, it had been stopped: it had more to do when it left, did not come when
 * it was free to, and came when it was resumed. */
void ac_is_back(struct ac_card *c, int tenant, uint64_t at)
{
    struct tenant *t = &c->tenant[tenant];
    if (t->rescued_from == AC_NEVER)
        return;
    uint64_t until = t->rescued_at + BACK_NS + ac_slices_of_others(c, tenant) * 9 / 8;
    if (at >= t->rescued_from && at <= until) {
        t->usage.rescued++;
        t->rescue_at = t->rescue_ns = 0; /* somebody may do it again */
    }
    t->rescued_from = AC_NEVER;
}

uint64_t ac_rescue_wake(const struct ac_card *c, uint64_t now)
{
    uint64_t wake = AC_NEVER;
    for (int i = 0; i < c->n_tenants; i++)
        if (is_due(&c->tenant[i], AC_NEVER))
            wake = soonest(wake, c->tenant[i].missed ? now : c->tenant[i].rescue_at);
    return wake;
}
