/* SPDX-License-Identifier: Apache-2.0
 *
 * What may be done to a tenant's region, as pure functions on mapped memory: the one place that knows in which order its
 * words change. Used by the shim in each process of the tenant, by flexai-reap for the agent, and by the tests.
 */
#ifndef FLEXAI_REGION_CORE_H
#define FLEXAI_REGION_CORE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "flexai_region.h"

struct fx_region {
    const volatile struct fx_policy *policy; /* mapped read-only */
    struct fx_ledger *ledger;
};

/* The agent's words of one card, read consistently. */
struct fx_limits {
    char uuid[FX_UUID_BYTES];
    uint64_t memory_bytes; /* UINT64_MAX = no cap */
    uint64_t context_bytes;
    uint32_t compute_milli;
    uint32_t limit_milli;
    uint32_t tenant_class;
};

/* Map <dir>/policy and <dir>/ledger. Returns 0, or -errno with a sentence in `why` that names both versions where that
 * is the problem. */
int fx_region_open(struct fx_region *region, const char *dir, char *why, size_t n_why);
void fx_region_close(struct fx_region *region);

/* Read the limits of a card under the seqlock; false when there is no such card. A writer that died inside leaves an odd
 * count: after a bounded number of tries what is there is taken. */
bool fx_limits_read(const volatile struct fx_policy *policy, uint32_t device, struct fx_limits *limits);

/* Charge before the driver is asked. False: it would go over `cap_bytes`; nothing changed but n_refused. */
bool fx_charge(struct fx_ledger *ledger, uint32_t slot, uint32_t device, uint64_t bytes, uint64_t cap_bytes);
/* Charge what is a fact already (a measured context): may go over the cap, and then nothing more is obtained. */
void fx_charge_fact(struct fx_ledger *ledger, uint32_t slot, uint32_t device, uint64_t bytes);
void fx_refund(struct fx_ledger *ledger, uint32_t slot, uint32_t device, uint64_t bytes);

/* Take a slot for this process. Returns its index, or -1 when all are taken. */
int fx_slot_take(struct fx_ledger *ledger, uint32_t pid, uint64_t start_ticks, uint32_t pid_ns, uint64_t now_ns);
/* A slot other than `but` whose process holds allocations of others; -1 = none. */
int fx_importer(struct fx_ledger *ledger, uint32_t but);
/* Give back what the slot charged, and the slot; what it let others hold is charged to one of those that do. Under
 * fx_reap_lock when the slot is not the caller's own. */
void fx_slot_release(struct fx_ledger *ledger, uint32_t slot);
/* Put the fast copies right if no charge is under way. Returns false when one was. Under fx_reap_lock. */
bool fx_reconcile(struct fx_ledger *ledger);

/* One reaper at a time: an flock, which the kernel releases when its holder dies. -1 when another holds it. */
int fx_reap_lock(const char *dir);
void fx_reap_unlock(int lock);
/* Release the slots of this pid namespace whose process is gone, then reconcile. `also_pid` is gone whatever /proc says: a
 * process that has no slot yet and finds its own pid there looks at its image before exec, or at a dead namesake.
 * Returns how many, or -1 when another reaper is at work. */
int fx_reap(struct fx_ledger *ledger, const char *dir, uint32_t pid_ns, uint32_t also_pid);

/* Field 22 of /proc/<pid>/stat; 0 when it cannot be read. */
uint64_t fx_start_ticks(uint32_t pid);
/* Inode of our pid namespace; 0 when not known. */
uint32_t fx_pid_ns(void);
bool fx_process_gone(uint32_t pid, uint64_t start_ticks);
uint64_t fx_now_ns(void);
#endif
