/* SPDX-License-Identifier: Apache-2.0
 * <run>/usage: figures for everyone, under a seqlock. Counters outlive an arbiter: the next one goes on from the file.
 */
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "arbiter.h"

static struct fx_usage before; /* as the last arbiter left it */

bool usage_open(struct arbiter *a)
{
    char path[PATH_MAX];
    struct stat st;
    snprintf(path, sizeof path, "%s/usage", a->run_dir);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0)
        return false;
    fchmod(fd, 0644);
    bool fits = fstat(fd, &st) == 0 && (st.st_size == sizeof *a->usage || ftruncate(fd, sizeof *a->usage) == 0);
    void *at = fits ? mmap(NULL, sizeof *a->usage, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;
    close(fd);
    if (at == MAP_FAILED)
        return false;
    a->usage = at;
    if (a->usage->magic == FX_ARB_MAGIC && a->usage->version == FX_ARB_VERSION && a->usage->size == sizeof before)
        memcpy(&before, a->usage, sizeof before);
    return true;
}

static void add(struct ac_usage *to, const struct ac_usage *u)
{
    to->held_ns += u->held_ns;
    to->stopped_ns += u->stopped_ns;
    to->borrowed_ns += u->borrowed_ns;
    to->wanted_ns += u->wanted_ns;
    to->n_turns += u->n_turns;
    to->n_stops += u->n_stops;
    to->hostile += u->hostile;
    to->rescued += u->rescued;
}

void usage_base(struct arbiter *a, const struct io_tenant *t, struct io_grant *g)
{
    (void)a;
    for (uint32_t i = 0; i < before.n_entries && i < FX_MAX_TENANTS * 2; i++) {
        const struct fx_usage_entry *e = &before.entry[i];
        if (!strncmp(e->tenant, t->id, FX_TENANT_ID_BYTES) && !strncmp(e->uuid, g->asked.uuid, FX_UUID_BYTES))
            g->base = (struct ac_usage){.held_ns = e->held_ns, .stopped_ns = e->stopped_ns, .borrowed_ns = e->borrowed_ns,
                                        .wanted_ns = e->wanted_ns, .n_turns = e->n_turns, .n_stops = e->n_stops,
                                        .hostile = e->hostile, .rescued = e->rescued};
    }
}

void usage_base_card(struct io_card *card)
{
    for (uint32_t i = 0; i < before.n_devices && i < FX_MAX_DEVICES; i++) {
        const struct fx_usage_device *d = &before.device[i];
        if (strncmp(d->uuid, card->uuid, FX_UUID_BYTES))
            continue;
        card->base = (struct ac_card_usage){.busy_ns = d->busy_ns, .log_dropped = d->log_dropped};
        card->control_ns = d->control_ns;
        card->n_control = d->n_control;
    }
    for (uint32_t i = 0; i < before.n_entries && i < FX_MAX_TENANTS * 2; i++)
        if (!strcmp(before.entry[i].tenant, "outside") && !strncmp(before.entry[i].uuid, card->uuid, FX_UUID_BYTES))
            card->base.outside_ns = before.entry[i].held_ns;
}

void usage_keep_grant(struct arbiter *a, struct io_grant *g)
{
    struct ac_usage u;
    if (g->card < 0 || g->number < 0 || !a->card[g->card].core)
        return;
    ac_usage(a->card[g->card].core, g->number, &u);
    add(&g->base, &u);
}

void usage_keep_card(struct io_card *card)
{
    struct ac_card_usage u;
    ac_card_usage(card->core, &u);
    card->base.busy_ns += u.busy_ns;
    card->base.outside_ns += u.outside_ns;
    card->base.log_dropped += u.log_dropped;
}

static int known_groups(const struct arbiter *a, const struct io_card *card, int tenant)
{
    int n = 0;
    for (int i = 0; i < card->n_known; i++)
        n += process_tenant(a, card->known[i].pid) == tenant;
    return n;
}

static void entry(const struct arbiter *a, int tenant, const struct io_grant *g, struct fx_usage_entry *e)
{
    const struct io_tenant *t = &a->tenant[tenant];
    struct ac_usage u = g->base, now = {0};
    memset(e, 0, sizeof *e);
    memcpy(e->tenant, t->id, sizeof e->tenant);
    memcpy(e->uuid, g->asked.uuid, sizeof e->uuid);
    if (g->card >= 0 && g->number >= 0 && a->card[g->card].core) {
        ac_usage(a->card[g->card].core, g->number, &now);
        add(&u, &now);
        e->n_groups = (uint32_t)known_groups(a, &a->card[g->card], tenant);
    }
    e->held_ns = u.held_ns;
    e->stopped_ns = u.stopped_ns;
    e->borrowed_ns = u.borrowed_ns;
    e->wanted_ns = u.wanted_ns;
    e->n_turns = u.n_turns;
    e->n_stops = u.n_stops;
    e->hostile = u.hostile;
    e->rescued = (uint32_t)u.rescued;
    e->frozen = !now.frozen ? FX_FROZEN_NOT : t->freezer[0] ? FX_FROZEN_GROUP : FX_FROZEN_SIGNAL;
    e->compute_milli = g->asked.compute_milli;
    e->limit_milli = g->asked.limit_milli;
    e->tenant_class = g->asked.tenant_class;
    e->borrow_weight = g->asked.borrow_weight;
    e->state = now.suspended || t->suspended ? FX_TENANT_SUSPENDED
               : now.running                 ? FX_TENANT_RUNNING
               : now.waiting                 ? FX_TENANT_WAITING
                                             : FX_TENANT_IDLE;
    e->n_processes = t->n_processes;
}

void usage_publish(struct arbiter *a, uint64_t now)
{
    struct fx_usage *u = a->usage;
    uint32_t n_devices = 0, n_entries = 0;
    __atomic_store_n(&u->seq, u->seq | 1u, __ATOMIC_SEQ_CST);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    u->magic = FX_ARB_MAGIC;
    u->version = FX_ARB_VERSION;
    u->size = sizeof *u;
    u->arbiter_pid = (uint32_t)getpid();
    u->heartbeat_ns = now;
    for (int i = 0; i < FX_MAX_DEVICES; i++) {
        const struct io_card *card = &a->card[i];
        struct ac_card_usage c = {0};
        if (!card->uuid[0])
            continue;
        if (card->core)
            ac_card_usage(card->core, &c);
        struct fx_usage_device *d = &u->device[n_devices++];
        memset(d, 0, sizeof *d);
        memcpy(d->uuid, card->uuid, sizeof d->uuid);
        d->backend = card->backend;
        d->source = card->backend == FX_BACKEND_HWSLICE ? 2 : card->backend == FX_BACKEND_LEASE ? 1 : 0;
        d->busy_ns = card->base.busy_ns + c.busy_ns;
        d->round_ns = c.round_ns;
        d->known_ns = c.known_at;
        d->control_ns = card->control_ns;
        d->n_control = card->n_control;
        d->log_dropped = card->base.log_dropped + c.log_dropped;
        memcpy(d->note, card->note, sizeof d->note);
        if (card->base.outside_ns + c.outside_ns && n_entries < FX_MAX_TENANTS * 2) {
            struct fx_usage_entry *e = &u->entry[n_entries++];
            memset(e, 0, sizeof *e);
            strcpy(e->tenant, "outside");
            memcpy(e->uuid, card->uuid, sizeof e->uuid);
            e->held_ns = card->base.outside_ns + c.outside_ns;
        }
    }
    for (int i = 0; i < FX_MAX_TENANTS; i++)
        for (int k = 0; k < a->tenant[i].n_grants && a->tenant[i].id[0] && n_entries < FX_MAX_TENANTS * 2; k++)
            entry(a, i, &a->tenant[i].grant[k], &u->entry[n_entries++]);
    u->n_devices = n_devices;
    u->n_entries = n_entries;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    __atomic_store_n(&u->seq, (u->seq | 1u) + 1u, __ATOMIC_SEQ_CST);
}
