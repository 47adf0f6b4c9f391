/* SPDX-License-Identifier: Apache-2.0
 * <run>/timeline: who had which card when, for whoever wants to look (api/flexai_timeline.h). A record is a few stores
 * into memory that is there already, so it is always written: what went wrong can be looked at afterwards.
 */
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "arbiter.h"
#include "flexai_timeline.h"

static struct fx_timeline *ring; /* NULL: no room for it; everything else goes on */

bool timeline_open(const struct arbiter *a)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/timeline", a->run_dir);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0)
        return false;
    fchmod(fd, 0644);
    struct stat st;
    /* Really allocated: a page that cannot be had later would be a SIGBUS here. */
    bool fits = fstat(fd, &st) == 0 && (st.st_size == sizeof *ring || ftruncate(fd, sizeof *ring) == 0) &&
                posix_fallocate(fd, 0, sizeof *ring) == 0;
    void *at = fits ? mmap(NULL, sizeof *ring, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;
    close(fd);
    if (at == MAP_FAILED) {
        unlink(path);
        return false;
    }
    ring = at;
    bool goes_on = ring->magic == FX_TIMELINE_MAGIC && ring->version == FX_TIMELINE_VERSION && ring->size == sizeof *ring;
    if (!goes_on)
        memset(ring, 0, sizeof *ring);
    ring->version = FX_TIMELINE_VERSION;
    ring->size = sizeof *ring;
    ring->arbiter_pid = (uint32_t)getpid();
    for (int i = 0; i < FX_MAX_DEVICES; i++)
        memset(ring->device[i], 0, sizeof ring->device[i]); /* cards get new places */
    __atomic_store_n(&ring->magic, FX_TIMELINE_MAGIC, __ATOMIC_RELEASE);
    return true;
}

/* The place is given to whoever has it now. */
static uint32_t use_of(const struct arbiter *a, int tenant)
{
    struct fx_timeline_tenant *t = &ring->tenant[tenant];
    if (strncmp(t->name, a->tenant[tenant].id, sizeof t->name)) {
        __atomic_store_n(&t->use, 0u, __ATOMIC_SEQ_CST);
        t->n_uses++;
        memcpy(t->name, a->tenant[tenant].id, sizeof t->name);
        __atomic_store_n(&t->use, t->n_uses, __ATOMIC_SEQ_CST);
    }
    return t->use;
}

static void put(const struct arbiter *a, int card, int tenant, struct fx_timeline_record r)
{
    if (!ring)
        return;
    if (card >= 0 && strncmp(ring->device[card], a->card[card].uuid, FX_UUID_BYTES))
        memcpy(ring->device[card], a->card[card].uuid, FX_UUID_BYTES);
    r.device = (uint8_t)(card < 0 ? 0 : card);
    r.tenant = (uint16_t)(tenant < 0 ? FX_TIMELINE_OUTSIDE : (unsigned)tenant);
    r.tenant_use = tenant < 0 ? 0 : use_of(a, tenant);
    uint64_t n = ring->n_written;
    ring->record[n % FX_TIMELINE_RECORDS] = r;
    __atomic_store_n(&ring->n_written, n + 1, __ATOMIC_RELEASE);
}

void timeline_began(const struct arbiter *a, uint64_t now)
{
    put(a, -1, -1, (struct fx_timeline_record){.at_ns = now, .kind = FX_TIMELINE_BEGAN});
}

void timeline_log(const struct arbiter *a, int card, const struct cc_log_record *records, int n, uint64_t dropped,
                  struct cc_moment told)
{
    if (dropped)
        put(a, card, -1, (struct fx_timeline_record){.at_ns = told.our_ns, .kind = FX_TIMELINE_LOST,
                                                     .context = dropped > UINT32_MAX ? UINT32_MAX : (uint32_t)dropped});
    for (int i = 0; i < n; i++) {
        const struct cc_log_record *r = &records[i];
        uint64_t ago = told.card_ns > r->ts_ns ? told.card_ns - r->ts_ns : 0;
        uint32_t pid = r->pid == UINT32_MAX ? 0 : r->pid;
        put(a, card, pid ? process_tenant(a, pid) : -1,
            (struct fx_timeline_record){.at_ns = told.our_ns > ago ? told.our_ns - ago : 0, .card_ns = r->ts_ns, .pid = pid,
                                        .context = r->context,
                                        .kind = r->kind == CC_LOG_START ? FX_TIMELINE_RUNS : FX_TIMELINE_LEFT});
    }
}

void timeline_stops(const struct arbiter *a, int card, const uint32_t *handles, int n, bool stopped, uint64_t now)
{
    const struct io_card *c = &a->card[card];
    for (int i = 0; i < n; i++)
        for (int k = 0; k < c->n_known; k++)
            if (c->known[k].handle == handles[i])
                put(a, card, process_tenant(a, c->known[k].pid),
                    (struct fx_timeline_record){.at_ns = now, .pid = c->known[k].pid, .context = c->known[k].context,
                                                .kind = stopped ? FX_TIMELINE_STOPPED : FX_TIMELINE_RESUMED});
}

void timeline_slice(const struct arbiter *a, int card, uint32_t handle, uint32_t us, uint64_t now)
{
    const struct io_card *c = &a->card[card];
    for (int k = 0; k < c->n_known; k++)
        if (c->known[k].handle == handle)
            put(a, card, process_tenant(a, c->known[k].pid),
                (struct fx_timeline_record){.at_ns = now, .pid = c->known[k].pid, .context = us,
                                            .kind = FX_TIMELINE_SLICED});
}

void timeline_found(const struct arbiter *a, int card, int tenant, const struct cc_group *group, uint64_t now)
{
    put(a, card, tenant,
        (struct fx_timeline_record){.at_ns = now, .pid = group->pid, .context = group->n_channels, .kind = FX_TIMELINE_FOUND});
}

void timeline_gate(const struct arbiter *a, int card, int tenant, bool open, uint64_t now)
{
    put(a, card, tenant,
        (struct fx_timeline_record){.at_ns = now, .kind = open ? FX_TIMELINE_RESUMED : FX_TIMELINE_STOPPED});
}

void timeline_turn(const struct arbiter *a, int card, int tenant, uint64_t now)
{
    put(a, card, tenant, (struct fx_timeline_record){.at_ns = now, .kind = FX_TIMELINE_TURN});
}
