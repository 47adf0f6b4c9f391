/* SPDX-License-Identifier: Apache-2.0
 *
 * The shared region of one tenant: two files in the tenant's directory, mapped by the agent, the arbiter and every
 * process of the tenant. The one definition of these bytes; src/flexai/wire/region.py mirrors it and tests hold both to
 * the golden file. All integers little-endian, naturally aligned.
 *
 *   <dir>/policy   written by agent (limits) and arbiter (gate); the tenant maps it read-only
 *   <dir>/ledger   written by the tenant's processes (charges, slots); agent and arbiter read it and reap dead slots
 *
 * A reader refuses another magic, version or size with a message that names both versions.
 */
#ifndef FLEXAI_REGION_H
#define FLEXAI_REGION_H

#include <stdint.h>

#define FX_POLICY_MAGIC 0x4c4f5058464c4558ull /* "XELFXPOL" */
#define FX_LEDGER_MAGIC 0x4447445858464c45ull
#define FX_REGION_VERSION 1u
#define FX_MAX_DEVICES 16
#define FX_MAX_SLOTS 256
#define FX_TENANT_ID_BYTES 64
#define FX_UUID_BYTES 64

enum fx_class { FX_CLASS_LATENCY = 0, FX_CLASS_GUARANTEED = 1, FX_CLASS_BEST_EFFORT = 2 };
enum fx_backend { FX_BACKEND_NONE = 0, FX_BACKEND_LEASE = 1, FX_BACKEND_HWSLICE = 2 };

/* One card of the tenant, in the tenant's own numbering. */
struct fx_policy_device {
    char uuid[FX_UUID_BYTES]; /* NUL-padded vendor text form, "GPU-xxxxxxxx-..." */
    uint64_t memory_bytes;    /* cap; 0 = no cap */
    uint32_t compute_milli;   /* request */
    uint32_t limit_milli;     /* ceiling */
    uint32_t tenant_class;    /* enum fx_class */
    uint32_t backend;         /* enum fx_backend, written by the arbiter */
    /* Gate, written by the arbiter only, futex word: (generation << 1) | open. With FX_BACKEND_LEASE a launch may
     * proceed only while open; on close the shim drains and writes the generation into its slot's drained_gen. With any
     * other backend the gate stays open. */
    uint32_t gate;
    uint32_t gate_owner_epoch; /* changes when an arbiter restarts */
    /* With FX_BACKEND_LEASE, written by the arbiter: how much work, by its own estimate, one process may have queued
     * ahead of the card while the gate is open; 0 = no bound (nobody else wants the card). At least one launch may
     * always be in flight, so a turn overruns by at most this and the running kernel. */
    uint32_t window_us;
    uint32_t reserved0;
    uint64_t context_bytes;   /* agent: what a process's context takes on this card; 0 = unknown, the shim measures */
    uint8_t reserved[16];
};

struct fx_policy {
    uint64_t magic;
    uint32_t version;
    uint32_t size;       /* sizeof(struct fx_policy) */
    uint32_t seq;        /* seqlock over the agent's fields: odd while the agent writes. The arbiter's fields (backend,
                            gate, gate_owner_epoch, window_us, heartbeat_ns) are single words, outside of it */
    uint32_t n_devices;
    char tenant[FX_TENANT_ID_BYTES];
    uint64_t heartbeat_ns; /* CLOCK_MONOTONIC of the arbiter's last loop; a shim opens its own gate when 1 s late */
    uint8_t reserved[32];
    struct fx_policy_device device[FX_MAX_DEVICES];
};

/* One process of the tenant. A slot is taken by compare-and-swap of pid from 0 and is free again when the agent, or a
 * process of the tenant in the same pid namespace, finds the process (pid, start_ticks) gone and has taken its charge
 * back. The sum of charged_bytes over the slots is the truth; the ledger's own words are its fast copy. They differ
 * only while a charge is under way (n_begun != n_done in some slot), or after a process died inside one: whoever
 * reaps it puts them right. Only atomic instructions may write these words, so the agent reaps through
 * libflexai_region.so. */
struct fx_slot {
    uint32_t pid;           /* in the pid namespace below */
    uint32_t host_pid;      /* filled in by the agent after the handshake; 0 before */
    uint64_t start_ticks;   /* field 22 of /proc/<pid>/stat; 0 = not known */
    uint64_t heartbeat_ns;  /* CLOCK_MONOTONIC of the shim thread's last round, at least every 100 ms */
    uint64_t last_submit_ns;/* CLOCK_MONOTONIC of the last gated launch, coarse */
    uint32_t waiting;       /* threads that wait at a closed gate now, all cards */
    uint32_t flags;         /* enum fx_slot_flag */
    uint64_t charged_bytes[FX_MAX_DEVICES];
    uint32_t inflight[FX_MAX_DEVICES];    /* launches handed to the driver and not known finished; 0 = drained */
    uint32_t drained_gen[FX_MAX_DEVICES]; /* generation (gate >> 1) of the last close that has drained */
    uint64_t n_launches;    /* since start, coarse: for people */
    uint64_t busy_until_ns[FX_MAX_DEVICES]; /* CLOCK_MONOTONIC at which, by the process's own estimate, the card will
                                               have finished what it queued; in the past = idle. Lease only */
    uint32_t waiting_on[FX_MAX_DEVICES];    /* threads that wait at this card's closed gate now */
    uint32_t pid_ns;        /* inode of /proc/self/ns/pid; 0 = not known */
    uint32_t n_begun;       /* charges begun and */
    uint32_t n_done;        /* done */
    uint32_t n_imports;     /* allocations of other processes that this one holds */
    uint32_t exported_mib[FX_MAX_DEVICES];  /* of what it is charged: others may hold it as well, and while any process
                                               of the tenant has imports it stays charged, whoever of them is left */
};
enum fx_slot_flag {
    FX_SLOT_DRAINS = 1,     /* drained_gen is kept (the process can wait for its own work) */
    FX_SLOT_COLLECTIVE = 2, /* the process uses collectives: its launches are never gated */
};

struct fx_ledger {
    uint64_t magic;
    uint32_t version;
    uint32_t size;
    uint64_t charged_bytes[FX_MAX_DEVICES]; /* atomic: charge first, then ask the driver, refund on failure */
    uint64_t peak_bytes[FX_MAX_DEVICES];
    uint64_t n_refused[FX_MAX_DEVICES];
    uint32_t demand;        /* futex word, bumped and woken when a thread starts to wait at a gate, when a close has
                               drained, and when a process's queue ran empty while its gate is open */
    uint32_t context_mib[FX_MAX_DEVICES]; /* what a context took when the first one was made, where the policy does not
                                             say; 0 = not known. Tenant only */
    uint8_t reserved[44];
    struct fx_slot slot[FX_MAX_SLOTS];
};

#ifndef __cplusplus
_Static_assert(sizeof(struct fx_policy_device) == 128, "fx_policy_device");
_Static_assert(sizeof(struct fx_policy) == 128 + 128 * FX_MAX_DEVICES, "fx_policy");
_Static_assert(sizeof(struct fx_slot) == 576, "fx_slot");
_Static_assert(sizeof(struct fx_ledger) == 512 + 576 * FX_MAX_SLOTS, "fx_ledger");
#endif

/* Environment of a tenant process, set by the agent:
 *   LD_PRELOAD          lib/shim/libcuda.so.1:lib/shim/libnvidia-ml.so.1; LD_LIBRARY_PATH starts with lib/shim, for
 *                       programs that ask for libcuda.so or libnvidia-ml.so
 *   FLEXAI_REAL_NVML    path of the real management library; default as below
 *   FLEXAI_TENANT_DIR   directory of the two files
 *   FLEXAI_CARDS        UUIDs of its cards when it began, in its numbering; the policy has those of now
 *   FLEXAI_SOCKET       the agent's handshake socket (SOCK_SEQPACKET, see flexai_handshake.h)
 *   FLEXAI_REAL_CUDA    path of the real driver library; default: the loader's search without our preload
 *   FLEXAI_SIMCARD      socket of the simulated card, when the cards are simulated
 */
#endif
