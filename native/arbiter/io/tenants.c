/* SPDX-License-Identifier: Apache-2.0
 * Tenants as the agent sends them, their shared regions, and their places in the cards' cores.
 */
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "arbiter.h"

int tenant_named(const struct arbiter *a, const char *id)
{
    for (int i = 0; i < FX_MAX_TENANTS; i++)
        if (a->tenant[i].id[0] && !strncmp(a->tenant[i].id, id, FX_TENANT_ID_BYTES))
            return i;
    return -1;
}

static void region_close(struct io_tenant *t)
{
    if (t->policy)
        munmap(t->policy, sizeof *t->policy);
    if (t->demand)
        munmap((void *)(uintptr_t)t->demand, 4096);
    if (t->ledger >= 0)
        close(t->ledger);
    t->policy = NULL;
    t->demand = NULL;
    t->ledger = -1;
}

/* The ledger is the tenant's file, which it may cut at any time: only the page of the futex word is mapped, and only the
 * kernel looks at it. */
static bool region_open(struct io_tenant *t, char *why, size_t n_why)
{
    char path[PATH_MAX];
    struct stat st;
    snprintf(path, sizeof path, "%s/policy", t->dir);
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 || fstat(fd, &st) || st.st_size != sizeof(struct fx_policy)) {
        snprintf(why, n_why, "BadRegion: %s: not a policy of version %u", path, FX_REGION_VERSION);
        if (fd >= 0)
            close(fd);
        return false;
    }
    t->policy_inode = st.st_ino;
    t->policy = mmap(NULL, sizeof *t->policy, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (t->policy == MAP_FAILED)
        t->policy = NULL;
    if (!t->policy || t->policy->magic != FX_POLICY_MAGIC || t->policy->version != FX_REGION_VERSION) {
        snprintf(why, n_why, "BadRegion: %s: not a policy of version %u", path, FX_REGION_VERSION);
        region_close(t);
        return false;
    }
    snprintf(path, sizeof path, "%s/ledger", t->dir);
    t->ledger = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    void *page = t->ledger < 0 ? MAP_FAILED : mmap(NULL, 4096, PROT_READ, MAP_SHARED, t->ledger, 0);
    if (page == MAP_FAILED) {
        snprintf(why, n_why, "BadRegion: %s: cannot be read", path);
        region_close(t);
        return false;
    }
    t->demand = page;
    return true;
}

/* The agent made the region anew. */
static bool region_replaced(const struct io_tenant *t)
{
    char path[PATH_MAX];
    struct stat st;
    snprintf(path, sizeof path, "%s/policy", t->dir);
    return t->policy && stat(path, &st) == 0 && st.st_ino != t->policy_inode;
}

static int device_of(const struct io_tenant *t, const char *uuid)
{
    for (uint32_t i = 0; t->policy && i < t->policy->n_devices && i < FX_MAX_DEVICES; i++)
        if (!strncmp(t->policy->device[i].uuid, uuid, FX_UUID_BYTES))
            return (int)i;
    return -1;
}

void tenant_attach(struct arbiter *a, int tenant, int at)
{
    struct io_card *card = &a->card[at];
    struct io_tenant *t = &a->tenant[tenant];
    for (int i = 0; i < t->n_grants; i++) {
        struct io_grant *g = &t->grant[i];
        if (strcmp(g->asked.uuid, card->uuid) || !card->core)
            continue;
        int place = g->card == at ? g->number : -1;
        for (int k = 0; k < AC_MAX_TENANTS && place < 0; k++)
            if (card->tenant[k] < 0)
                place = k;
        g->card = at;
        g->device = device_of(t, card->uuid);
        if (place < 0)
            continue;
        bool fresh = g->number != place;
        g->number = place;
        card->tenant[place] = tenant;
        ac_tenant_put(card->core, place, g->asked.compute_milli, g->asked.limit_milli,
                      g->asked.tenant_class <= FX_CLASS_BEST_EFFORT ? (enum fx_class)g->asked.tenant_class
                                                                    : FX_CLASS_GUARANTEED,
                      now_ns());
        ac_tenant_borrows(card->core, place, g->asked.borrow_weight);
        ac_tenant_gang(card->core, place, t->gang);
        ac_tenant_suspend(card->core, place, t->suspended);
        gates_reset(t, g, card->backend, a->epoch);
        if (!fresh)
            continue;
        for (int k = 0; k < a->n_processes; k++)
            if (a->process[k].pid && a->process[k].tenant == tenant)
                card_discover(a, at, tenant, a->process[k].pid);
    }
}

/* Its place in the core goes; its gate is left open. */
static void leave(struct arbiter *a, int tenant, struct io_grant *g)
{
    struct io_tenant *t = &a->tenant[tenant];
    if (g->card < 0 || g->number < 0)
        return;
    struct io_card *card = &a->card[g->card];
    usage_keep_grant(a, g);
    if (card->core && card->ops) {
        uint32_t handles[MAX_HANDLES];
        int n = ac_stopped(card->core, g->number, handles, MAX_HANDLES);
        int result = n ? card->ops->stop(card->cc, handles, n, 0) : 0;
        timeline_stops(a, g->card, handles, result < 0 ? 0 : n, false, now_ns());
        for (int i = 0; i < n && result >= 0; i++)
            journal_remove(a->journal, card->uuid, handles[i]);
    }
    processes_freeze(a, tenant, false);
    if (card->core)
        ac_tenant_gone(card->core, g->number);
    card->tenant[g->number] = -1;
    g->number = -1;
    gates_reset(t, g, FX_BACKEND_NONE, a->epoch);
}

void tenant_detach(struct arbiter *a, int tenant, int at)
{
    struct io_tenant *t = &a->tenant[tenant];
    for (int i = 0; i < t->n_grants; i++)
        if (t->grant[i].card == at)
            leave(a, tenant, &t->grant[i]);
}

void tenant_gone(struct arbiter *a, int tenant)
{
    struct io_tenant *t = &a->tenant[tenant];
    for (int i = 0; i < t->n_grants; i++)
        leave(a, tenant, &t->grant[i]);
    processes_of_tenant_gone(a, tenant);
    region_close(t);
    memset(t, 0, sizeof *t);
    t->ledger = -1;
    demand_watch(a);
}

static bool text_ends(const char *text, size_t n)
{
    return memchr(text, 0, n) != NULL;
}

static bool is_message_sound(const struct fx_arb_message *m, char *why, size_t n_why)
{
    const char *bad = !text_ends(m->tenant, sizeof m->tenant) || !m->tenant[0] || !strcmp(m->tenant, "outside") ? "tenant"
                      : !text_ends(m->job, sizeof m->job)                                                      ? "job"
                      : !text_ends(m->dir, sizeof m->dir)                                                      ? "dir"
                      : !text_ends(m->cgroup, sizeof m->cgroup) || strstr(m->cgroup, "..")                     ? "cgroup"
                      : m->n_grants > FX_MAX_DEVICES                                                           ? "n_grants"
                                                                                                               : NULL;
    for (uint32_t i = 0; !bad && i < m->n_grants; i++)
        if (!text_ends(m->grant[i].uuid, sizeof m->grant[i].uuid) || m->grant[i].compute_milli > 1000 ||
            m->grant[i].limit_milli > 1000 || m->grant[i].tenant_class > FX_CLASS_BEST_EFFORT ||
            m->grant[i].borrow_weight > 1000)
            bad = "grant";
    if (bad)
        snprintf(why, n_why, "BadMessage: the field %s is out of range", bad);
    return !bad;
}

/* Tenants of one job have one number; a tenant whose job has no name has one of its own. */
static uint32_t gang_of(struct arbiter *a, const char *job)
{
    for (int i = 0; i < FX_MAX_TENANTS && job[0]; i++)
        if (a->tenant[i].id[0] && a->tenant[i].gang && !strcmp(a->tenant[i].job, job))
            return a->tenant[i].gang;
    return ++a->n_gangs;
}

bool tenant_put(struct arbiter *a, const struct fx_arb_message *m, char *why, size_t n_why)
{
    if (!is_message_sound(m, why, n_why))
        return false;
    int at = tenant_named(a, m->tenant);
    for (int i = 0; i < FX_MAX_TENANTS && at < 0; i++)
        if (!a->tenant[i].id[0])
            at = i;
    if (at < 0) {
        snprintf(why, n_why, "TooManyTenants: this arbiter holds %d", FX_MAX_TENANTS);
        return false;
    }
    struct io_tenant *t = &a->tenant[at];
    bool fresh = !t->id[0], moved = strcmp(t->dir, m->dir) != 0;
    if (fresh) {
        memset(t, 0, sizeof *t);
        t->ledger = -1;
        memcpy(t->id, m->tenant, sizeof t->id);
    }
    if (!t->gang || strcmp(t->job, m->job)) {
        t->gang = gang_of(a, m->job);
        memcpy(t->job, m->job, sizeof t->job);
    }
    memcpy(t->cgroup, m->cgroup, sizeof t->cgroup);
    t->root_pid = m->root_pid;
    t->synced = true;
    if (fresh || moved || (m->dir[0] && !t->policy) || region_replaced(t)) {
        region_close(t);
        memcpy(t->dir, m->dir, sizeof t->dir);
        if (t->dir[0] && !region_open(t, why, n_why)) {
            if (fresh)
                memset(t, 0, sizeof *t);
            return false;
        }
    }
    for (int i = 0; i < t->n_grants; i++) {
        bool kept = false;
        for (uint32_t k = 0; k < m->n_grants; k++)
            kept |= !strcmp(m->grant[k].uuid, t->grant[i].asked.uuid);
        if (!kept) {
            leave(a, at, &t->grant[i]);
            t->grant[i--] = t->grant[--t->n_grants];
        }
    }
    for (uint32_t k = 0; k < m->n_grants; k++) {
        int i = 0;
        while (i < t->n_grants && strcmp(t->grant[i].asked.uuid, m->grant[k].uuid))
            i++;
        if (i == t->n_grants) {
            if (t->n_grants == FX_MAX_DEVICES)
                break;
            t->grant[t->n_grants++] = (struct io_grant){.card = -1, .number = -1, .device = -1};
        }
        bool new_grant = t->grant[i].card < 0;
        t->grant[i].asked = m->grant[k];
        if (new_grant)
            usage_base(a, t, &t->grant[i]);
        int card = card_named(a, m->grant[k].uuid, FX_BACKEND_NONE, false);
        if (card < 0) {
            snprintf(why, n_why, "TooManyCards: this arbiter holds %d", FX_MAX_DEVICES);
            return false;
        }
        tenant_attach(a, at, card);
        if (t->grant[i].number < 0) {
            snprintf(why, n_why, "TooManyTenants: a card holds %d", AC_MAX_TENANTS);
            return false;
        }
    }
    a->processes_at = 0;
    demand_watch(a);
    return true;
}

void tenant_suspend(struct arbiter *a, int tenant, bool suspended)
{
    struct io_tenant *t = &a->tenant[tenant];
    t->suspended = suspended;
    for (int i = 0; i < t->n_grants; i++)
        if (t->grant[i].card >= 0 && t->grant[i].number >= 0 && a->card[t->grant[i].card].core)
            ac_tenant_suspend(a->card[t->grant[i].card].core, t->grant[i].number, suspended);
}

void tenants_beat(struct arbiter *a, uint64_t now)
{
    for (int i = 0; i < FX_MAX_TENANTS; i++)
        if (a->tenant[i].id[0] && a->tenant[i].policy)
            __atomic_store_n(&a->tenant[i].policy->heartbeat_ns, now, __ATOMIC_SEQ_CST);
}
