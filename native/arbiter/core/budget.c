/* SPDX-License-Identifier: Apache-2.0
 * What control calls cost others. They hold locks of the driver, most of them the whole machine's, so their time is kept
 * within a part of all time: rounds stretch until it is, tests are made of what is left. A stop that a limit or an owner
 * needs is never put off.
 */
#include "state.h"

/* Measured on an H200 (docs/explanation/nvidia-controls.md); what is seen here takes its place. */
static const uint64_t usual_ns[AC_N_KINDS] = {
    [AC_READ_LOG] = 50 * US, [AC_STOP] = 600 * US, [AC_RESUME] = 310 * US, [AC_TIMESLICE] = 365 * US, [AC_PREEMPT] = 380 * US,
    [AC_CHECK] = 16 * US,
};

#define GROUPS_A_CALL 8 /* of the driver's, which names 64 channels */

void ac_spent(struct ac_card *c, const struct ac_action *a, bool refused, uint64_t now)
{
    enum ac_kind kind = a->kind;
    uint64_t took = now > c->action_at ? now - c->action_at : 0;
    if (!usual_ns[kind])
        return;
    c->usage.lock_ns += took;
    c->lock_tokens_ns -= (int64_t)took;
    int64_t deepest = -(int64_t)c->budget_ppm * 500;
    c->lock_tokens_ns = c->lock_tokens_ns < deepest ? deepest : c->lock_tokens_ns;
    /* Tests are made of what turns leave, time slices are set seldom, and a few refusals must not stretch rounds. */
    if (kind == AC_READ_LOG || kind == AC_CHECK)
        c->watch_spent_ns += took;
    else if (kind != AC_PREEMPT && kind != AC_TIMESLICE && !refused)
        c->round_spent_ns += took;
    /* One late call is no new cost; but how long the log takes differs from driver to driver. */
    uint64_t most = (kind == AC_READ_LOG ? 12 : 4) * usual_ns[kind], each = took / (uint64_t)(1 + (a->n - 1) / GROUPS_A_CALL);
    uint64_t bounded = each < most ? each : most;
    c->cost_ns[kind] = (7 * ac_cost(c, kind) + bounded) / 8;
}

uint64_t ac_cost(const struct ac_card *c, enum ac_kind kind)
{
    return c->cost_ns[kind] ? c->cost_ns[kind] : usual_ns[kind];
}

/* Between two readings of the log that ask whether something happened: no more than a third of the budget goes there. */
uint64_t ac_look_pause(const struct ac_card *c)
{
    uint64_t least = ac_cost(c, AC_READ_LOG) * 3 * 1000 / c->budget_ppm * 1000;
    return least > c->set.look_ns ? least : c->set.look_ns;
}

/* How many times rarer than on a card that has the whole budget something should be done that can wait. */
uint64_t ac_rarer(const struct ac_card *c)
{
    uint64_t times = c->set.budget_ppm / c->budget_ppm;
    return times < 1 ? 1 : times > 4 ? 4 : times;
}
