/* SPDX-License-Identifier: Apache-2.0
 * Turns change between the requests of those who go first, so that none waits for it. When the next one comes is learnt
 * from the log: a reading of it costs as much of the locks as a sixth of a change (H200), so they are not made on chance.
 */
#include "state.h"

#define WITHIN_NS (1 * MS)  /* shorter pauses are part of a request */
#define CHANGE_NS (3 * MS)  /* before a request may come, no turn changes */
#define RARE_NS (50 * MS)   /* requests farther apart are not waited for */
#define LATEST_NS (5 * MS)  /* and no turn lasts longer than that, and three tenths of its length, */

bool ac_latency_beside(const struct ac_card *c)
{
    for (int i = 0; i < c->n_tenants; i++)
        if (c->tenant[i].used && c->tenant[i].prior && c->tenant[i].n_groups)
            return true;
    return false;
}

void ac_request_began(struct ac_card *c, uint64_t at)
{
    uint64_t pause = at > c->last_latency_end ? at - c->last_latency_end : 0;
    if (pause < WITHIN_NS)
        return;
    pause = soonest(pause, RARE_NS);
    /* The shortest of late: of irregular requests the next may come at any time. */
    c->pause_ns = pause < c->pause_ns ? pause : c->pause_ns + (pause - c->pause_ns) / 8;
    c->every_ns = at > c->request_at ? soonest(at - c->request_at, RARE_NS) : 0;
    c->request_at = at;
}

static bool in_request(const struct ac_card *c)
{
    return c->resident && c->resident_tenant >= 0 && c->tenant[c->resident_tenant].prior;
}

/* No request is expected before. */
static uint64_t open_until(const struct ac_card *c)
{
    return c->last_latency_end + (c->pause_ns > WITHIN_NS + CHANGE_NS ? c->pause_ns - CHANGE_NS : WITHIN_NS);
}

/* Is it time for another turn, as far as requests of latency tenants are concerned? */
bool ac_between_requests(const struct ac_card *c, uint64_t now)
{
    if (now < c->turn_end)
        return false;
    if (!ac_latency_beside(c) || now >= c->turn_end + (c->turn_end - c->turn_began) * 3 / 10 + LATEST_NS)
        return true;
    return !in_request(c) && (now < open_until(c) || c->last_latency_end + RARE_NS < now);
}

/* The turn is over, but for a request: when the log should be read again. */
uint64_t ac_next_opening(const struct ac_card *c, uint64_t now)
{
    uint64_t least = 25 * ac_cost(c, AC_READ_LOG), lasts = c->every_ns > c->pause_ns ? c->every_ns - c->pause_ns : 0;
    uint64_t begins = in_request(c) ? c->request_at : c->request_at + c->every_ns;
    uint64_t ends = begins + lasts + DEFER_NS / 2, late = now > ends ? now - ends : 0; /* it is not as the last ones were */
    least = now + (least > 2 * DEFER_NS ? least : 2 * DEFER_NS) + late / 4;
    return ends > least ? soonest(ends, now + RARE_NS) : least;
}
