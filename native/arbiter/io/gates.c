/* SPDX-License-Identifier: Apache-2.0
 * The gates of the lease backend, and what the tenants' ledgers say about them.
 */
#include <linux/futex.h>
#include <limits.h>
#include <stddef.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "arbiter.h"

#define SLOT_LATE_NS (500 * MS)    /* a process that shows no life so long is not waited for */
#define SLOTS_AGAIN_NS (200 * MS)  /* between readings of the whole ledger */
#define RECENT_NS (120 * MS)       /* launches so long ago count as work of a tenant that is not bounded */

static struct fx_policy_device *device(const struct io_tenant *t, const struct io_grant *g)
{
    return t->policy && g->device >= 0 ? &t->policy->device[g->device] : NULL;
}

static void write_gate(const struct io_tenant *t, struct io_grant *g, bool open)
{
    struct fx_policy_device *d = device(t, g);
    if (!d)
        return;
    uint32_t generation = g->gate >> 1;
    if (!open)
        generation = (generation + 1) & 0x7fffffffu;
    g->gate = generation << 1 | (open ? 1u : 0u);
    __atomic_store_n(&d->gate, g->gate, __ATOMIC_SEQ_CST);
    syscall(SYS_futex, &d->gate, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

void gates_reset(struct io_tenant *t, struct io_grant *g, uint32_t backend, uint32_t epoch)
{
    struct fx_policy_device *d = device(t, g);
    if (!d)
        return;
    bool same = d->backend == backend && d->gate_owner_epoch == epoch;
    if (same)
        return;
    g->gate = __atomic_load_n(&d->gate, __ATOMIC_SEQ_CST);
    d->gate_owner_epoch = epoch;
    __atomic_store_n(&d->window_us, 0u, __ATOMIC_SEQ_CST);
    __atomic_store_n(&d->backend, backend, __ATOMIC_SEQ_CST);
    write_gate(t, g, backend != FX_BACKEND_LEASE); /* the core starts with closed gates */
}

static struct io_grant *grant_of(struct arbiter *a, struct io_card *card, int number, struct io_tenant **tenant)
{
    int at = card->tenant[number];
    if (at < 0)
        return NULL;
    *tenant = &a->tenant[at];
    for (int i = 0; i < (*tenant)->n_grants; i++)
        if ((*tenant)->grant[i].card >= 0 && &a->card[(*tenant)->grant[i].card] == card)
            return &(*tenant)->grant[i];
    return NULL;
}

void gate_set(struct arbiter *a, struct io_card *card, int number, bool open)
{
    struct io_tenant *t;
    struct io_grant *g = grant_of(a, card, number, &t);
    if (g)
        write_gate(t, g, open);
}

void gate_window(struct arbiter *a, struct io_card *card, int number, uint32_t us)
{
    struct io_tenant *t;
    struct io_grant *g = grant_of(a, card, number, &t);
    struct fx_policy_device *d = g ? device(t, g) : NULL;
    if (!d)
        return;
    __atomic_store_n(&d->window_us, us, __ATOMIC_SEQ_CST);
    syscall(SYS_futex, &d->gate, FUTEX_WAKE, INT_MAX, NULL, NULL, 0); /* the shim's watcher sleeps there */
}

/* Slots in use, read by call: the ledger may have been cut. */
static int read_slots(struct io_tenant *t, uint64_t now, struct fx_slot *slots)
{
    int n = t->n_slots;
    if (now >= t->slots_at) {
        t->slots_at = now + SLOTS_AGAIN_NS;
        n = FX_MAX_SLOTS;
    }
    n = n < FX_MAX_SLOTS ? n + 1 : n; /* where the next process would be */
    ssize_t got = pread(t->ledger, slots, (size_t)n * sizeof *slots, (off_t)offsetof(struct fx_ledger, slot));
    n = got > 0 ? (int)((size_t)got / sizeof *slots) : 0;
    t->n_slots = 0;
    for (int i = 0; i < n; i++)
        if (slots[i].pid)
            t->n_slots = i + 1;
    return t->n_slots;
}

static bool is_alive(const struct arbiter *a, const struct fx_slot *s, uint64_t now)
{
    (void)a;
    return s->pid && (s->heartbeat_ns > now || now - s->heartbeat_ns < SLOT_LATE_NS);
}

static void look(struct arbiter *a, struct io_tenant *t, struct io_grant *g, const struct fx_slot *slots, int n, uint64_t now)
{
    struct ac_lease_seen seen = {.drained = true};
    const struct fx_policy_device *d = device(t, g);
    uint64_t launches = 0;
    bool open = g->gate & 1, recent = now - t->launched_at < RECENT_NS;
    for (int i = 0; i < n; i++) {
        const struct fx_slot *s = &slots[i];
        if (!is_alive(a, s, now))
            continue;
        launches += s->n_launches;
        if (s->flags & FX_SLOT_COLLECTIVE) {
            seen.never_gate = true;
            continue;
        }
        bool drained = !(s->flags & FX_SLOT_DRAINS) || s->drained_gen[g->device] == g->gate >> 1;
        seen.drained &= open || drained;
        seen.wants |= s->waiting_on[g->device] > 0;
        if (open && d->window_us)
            seen.wants |= s->inflight[g->device] > 0;
        else
            seen.wants |= open ? recent : !drained && s->inflight[g->device] > 0;
    }
    if (launches != t->last_launches) {
        t->last_launches = launches;
        t->launched_at = now;
        seen.wants |= open && !d->window_us;
    }
    ac_lease_seen(a->card[g->card].core, g->number, &seen, now);
}

void gates_look(struct arbiter *a, uint64_t now)
{
    static struct fx_slot slots[FX_MAX_SLOTS];
    for (int i = 0; i < FX_MAX_TENANTS; i++) {
        struct io_tenant *t = &a->tenant[i];
        int n = -1;
        if (!t->id[0] || t->ledger < 0)
            continue;
        for (int k = 0; k < t->n_grants; k++) {
            struct io_grant *g = &t->grant[k];
            if (g->card < 0 || g->number < 0 || g->device < 0 || a->card[g->card].backend != FX_BACKEND_LEASE)
                continue;
            if (n < 0)
                n = read_slots(t, now, slots);
            look(a, t, g, slots, n, now);
        }
    }
}
