/* SPDX-License-Identifier: Apache-2.0
 *
 * Agent -> arbiter, SOCK_SEQPACKET on <run>/arbiter.sock (owner only): fixed-size messages, each answered by one
 * fx_arb_reply with the same seq. And the arbiter's published figures, <run>/usage, mapped read-only by everyone.
 * The arbiter goes on with the last policy while the agent is away; a new agent sends every tenant again and then
 * FX_ARB_SYNC, which drops the tenants not sent since the connection opened.
 */
#ifndef FLEXAI_ARBITER_H
#define FLEXAI_ARBITER_H
#include <stdint.h>
#include "flexai_region.h"

#define FX_ARB_MAGIC 0x42524146u /* "FARB" */
#define FX_ARB_VERSION 3u
#define FX_MAX_TENANTS 256

enum fx_arb_op {
    FX_ARB_HELLO = 1,
    FX_ARB_TENANT_PUT = 2,  /* add or change: takes effect within 100 ms, no restart */
    FX_ARB_TENANT_GONE = 3,
    FX_ARB_SYNC = 4,
    FX_ARB_SUSPEND = 5,     /* stop in place until FX_ARB_RESUME */
    FX_ARB_RESUME = 6,
    FX_ARB_DEVICE_PUT = 7,  /* manage this card: grant.uuid; grant.backend = preferred backend or FX_BACKEND_NONE */
};

struct fx_arb_grant {
    char uuid[FX_UUID_BYTES];
    uint64_t memory_bytes;
    uint32_t compute_milli;
    uint32_t limit_milli;
    uint32_t tenant_class;
    uint32_t backend;
    uint32_t borrow_weight; /* of who has no compute of its own, beside others of the card that borrow: 1..1000; 0: none was
                               told, and it weighs as little as can be */
    uint32_t reserved;
};

struct fx_arb_message {
    uint32_t magic;
    uint32_t version;
    uint32_t size;
    uint32_t op;
    uint64_t seq;
    char tenant[FX_TENANT_ID_BYTES];
    char job[FX_TENANT_ID_BYTES]; /* tenants of one job, and the cards of one tenant, have their turns at the same moments;
                          empty: it is a job of its own */
    char dir[256];     /* the tenant's region directory */
    char cgroup[256];  /* every process in this cgroup subtree belongs to the tenant; path as in /proc/<pid>/cgroup
                          ("/flexai/job-1.0"); empty when there is none */
    uint32_t root_pid; /* where there is no cgroup: this process and its descendants; 0 = none */
    uint32_t n_grants;
    struct fx_arb_grant grant[FX_MAX_DEVICES];
};

struct fx_arb_reply {
    uint32_t magic;
    uint32_t version;
    uint32_t size;
    uint32_t status;    /* 0 = done */
    uint64_t seq;
    char reason[232];   /* stable code, colon, message */
};

/* One tenant on one card. Counters only grow; the reader takes differences. */
struct fx_usage_entry {
    char tenant[FX_TENANT_ID_BYTES]; /* "" = free entry; "outside" = programs not ours */
    char uuid[FX_UUID_BYTES];
    uint64_t held_ns;      /* card time it had */
    uint64_t stopped_ns;   /* time it was stopped or gated while it had work */
    uint64_t borrowed_ns;  /* card time above its request's part */
    uint64_t wanted_ns;    /* time it was seen to have work */
    uint64_t n_turns;
    uint64_t n_stops;
    uint32_t compute_milli;
    uint32_t limit_milli;
    uint32_t tenant_class;
    uint32_t state;        /* enum fx_tenant_state */
    uint32_t n_processes;
    uint32_t n_groups;
    uint64_t hostile;      /* count of detected acts against control */
    uint32_t frozen;       /* enum fx_frozen: its processes do not run now, since it undid its stops */
    uint32_t rescued;      /* times that somebody else had stopped it or, while it was frozen, resumed it; and that was undone */
    uint32_t borrow_weight; /* as told */
    uint8_t reserved[20];
};
enum fx_frozen { FX_FROZEN_NOT = 0, FX_FROZEN_SIGNAL = 1, FX_FROZEN_GROUP = 2 }; /* by SIGSTOP; by the cgroup freezer */
enum fx_tenant_state { FX_TENANT_IDLE = 0, FX_TENANT_RUNNING = 1, FX_TENANT_WAITING = 2, FX_TENANT_SUSPENDED = 3 };

struct fx_usage_device {
    char uuid[FX_UUID_BYTES];
    uint32_t backend;      /* in use: enum fx_backend */
    uint32_t source;       /* of accounting: 0 none, 1 gate, 2 context-switch log */
    uint64_t busy_ns;      /* card time in use by anyone */
    uint64_t control_ns;   /* time spent in control calls: driver lock time */
    uint64_t n_control;
    uint64_t log_dropped;
    char note[128];        /* why a better backend is not in use */
    uint64_t round_ns;     /* in which every tenant with work has a turn; 0 = nobody takes turns */
    uint64_t known_ns;     /* CLOCK_MONOTONIC up to which card time is told; 0 = up to the heartbeat */
    uint8_t reserved[16];
};

struct fx_usage {
    uint64_t magic;        /* FX_ARB_MAGIC */
    uint32_t version;
    uint32_t size;
    uint32_t seq;          /* seqlock: odd while the arbiter writes */
    uint32_t arbiter_pid;
    uint64_t heartbeat_ns; /* CLOCK_MONOTONIC */
    uint32_t n_devices;
    uint32_t n_entries;
    uint8_t reserved[24];
    struct fx_usage_device device[FX_MAX_DEVICES];
    struct fx_usage_entry entry[FX_MAX_TENANTS * 2];
};

#ifndef __cplusplus
_Static_assert(sizeof(struct fx_arb_grant) == 96, "fx_arb_grant");
_Static_assert(sizeof(struct fx_arb_message) == 672 + 96 * FX_MAX_DEVICES, "fx_arb_message");
_Static_assert(sizeof(struct fx_arb_reply) == 256, "fx_arb_reply");
_Static_assert(sizeof(struct fx_usage_entry) == 240, "fx_usage_entry");
_Static_assert(sizeof(struct fx_usage_device) == 264, "fx_usage_device");
_Static_assert(sizeof(struct fx_usage) == 64 + 264 * FX_MAX_DEVICES + 240 * FX_MAX_TENANTS * 2, "fx_usage");
#endif
#endif
