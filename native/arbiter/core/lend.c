/* SPDX-License-Identifier: Apache-2.0
 * Lending the gaps of an owner. A pause of some milliseconds is over before it could be found out and acted on, so where
 * one owner is beside best-effort tenants, one of these is always runnable, with the shortest time slice, and the owner
 * goes first, as a latency tenant does: the hardware fills the gap at once and takes the card back within that slice.
 * Each time it does so the owner loses some time: if that is too much (it hops), the card is its own for a while.
 */
#include "state.h"

#define JUDGED_NS (96 * MS)
#define LOSS_NS (240 * US)   /* of the owner's, each time: the rest of a time slice, a change of the card, warming up */
#define HOP_LOSS_NS (450 * US) /* if it is soon back: the change away from it, too, and a whole time slice */
#define HOP_NS (300 * US)
#define LOSS_PPM 29000       /* of the time judged, at most */
#define KEPT_NS (1600 * MS)  /* to itself, until the next attempt */

static bool somebody_borrows(const struct ac_card *c)
{
    for (int i = 0; i < c->n_tenants; i++) {
        const struct tenant *t = &c->tenant[i];
        if (t->used && t->class == FX_CLASS_BEST_EFFORT && t->wants && t->n_groups && !t->suspended && !t->throttled)
            return true;
    }
    return false;
}

/* With two of them the one would wait for the long time slice of the other. */
static int only_owner(const struct ac_card *c)
{
    int owner = -1;
    for (int i = 0; i < c->n_tenants; i++) {
        const struct tenant *t = &c->tenant[i];
        if (!t->used || t->class == FX_CLASS_BEST_EFFORT || !t->n_groups || t->suspended)
            continue;
        if (owner >= 0)
            return -1;
        owner = i;
    }
    return owner >= 0 && c->tenant[owner].class == FX_CLASS_GUARANTEED ? owner : -1;
}

void ac_lend(struct ac_card *c, uint64_t now)
{
    int owner = somebody_borrows(c) ? only_owner(c) : -1;
    if (owner >= 0 && now < c->tenant[owner].lends_at)
        owner = -1;
    uint64_t judged = c->log_at > c->lent_from + JUDGED_NS ? c->log_at - c->lent_from : JUDGED_NS;
    uint64_t loss = c->n_lent * (c->lent_ns < c->n_lent * HOP_NS ? HOP_LOSS_NS : LOSS_NS);
    if (owner >= 0 && owner == c->lender && loss > judged / 1000000 * LOSS_PPM) {
        c->tenant[owner].lends_at = now + KEPT_NS;
        owner = -1;
    }
    if (owner != c->lender || c->log_at >= c->lent_from + JUDGED_NS) {
        c->lent_from = now;
        c->n_lent = c->lent_ns = 0;
    }
    c->lender = owner;
}
