/* SPDX-License-Identifier: Apache-2.0
 *
 * Programs, NVML readers and the arbiter -> flexai-simcard: SOCK_SEQPACKET, one fixed request, one reply (header and
 * payload). A connection belongs to the process that made it (SO_PEERCRED); a process may have one per thread. Its card
 * state lives until its last connection closes. Operations from SC_OWNER on are for root and the daemon's own user.
 */
#ifndef FLEXAI_SIMCARD_WIRE_H
#define FLEXAI_SIMCARD_WIRE_H
#include <stdint.h>
#include "simcard_ring.h"

#define SC_MAGIC 0x44524353u
#define SC_VERSION 1u
#define SC_MAX_CONTEXTS 64
#define SC_MAX_RINGS 1024u

enum sc_op {
    SC_HELLO = 1,      /* -> n cards in a; a = 1, a program: the region's descriptor comes with the reply; a = 2, one more
                          connection of it. A program numbers cards as it found them, whichever it was moved to since */
    SC_CARD,           /* a card -> struct sc_card */
    SC_CTX_NEW,        /* a card -> context */
    SC_CTX_FREE,       /* context[0] */
    SC_STREAM_NEW,     /* context[0], a ring */
    SC_STREAM_FREE,    /* a ring */
    SC_WAIT,           /* a ring, v[0] seq: answered when that many entries are complete */
    SC_POLL,           /* a ring -> v completed; brings every ring and event up to date */
    SC_MEM_TAKE,       /* a card, v[0] bytes */
    SC_MEM_GIVE,
    SC_FIGURES,        /* a card -> struct sc_figures */
    SC_PROCESSES,      /* a card -> struct sc_process[] */
    SC_PARK,           /* a enum sc_park, b pid of the same user -> v state before; SC_PARK_IN, context[n cards]: by card,
                          the one that what was there comes back to, or none: their own */
    SC_MEM_PLACE,      /* a card, v[0] bytes in nobody's account -> v placed */
    SC_MEM_UNPLACE,
    SC_MEM_SHARE,      /* a card, v[0] bytes of what it holds -> v token */
    SC_MEM_JOIN,       /* v[0] token */
    SC_MEM_LEAVE,
    SC_OWNER = 64,
    SC_DISCOVER = 64,  /* a card, b pid -> struct cc_group[] */
    SC_SET_TIMESLICE,  /* a card, context[0], v[0] ns */
    SC_GET_TIMESLICE,  /* context[0] -> v */
    SC_STOP,           /* a card, context[n] */
    SC_RESUME,
    SC_PREEMPT,        /* a card, context[0] */
    SC_LOG_OPEN,       /* a card: this connection becomes its reader */
    SC_LOG_READ,       /* v[0] room for records (0: 1024); flush, then struct sc_log_head and records */
    SC_FAIL,           /* a card, v[0] xid (0 recovers) */
    SC_INJECT,         /* a kind of control, b errno, v[0] calls */
    SC_LOSE_LOG,       /* a card, v[0] records */
    SC_PLACE,          /* a card, b pid of a program, v[0] bytes: host memory of its lands on the card -> v placed */
};

/* Values 0 to 3 as cuCheckpointProcess* have them. */
enum sc_park { SC_PARK_LOCK, SC_PARK_OUT, SC_PARK_IN, SC_PARK_UNLOCK, SC_PARK_STATE };

struct sc_request {
    uint32_t magic, version;
    uint32_t op;
    int32_t a, b;
    uint32_t n_contexts;
    uint64_t v[2];
    uint32_t context[SC_MAX_CONTEXTS];
};

struct sc_reply {
    uint32_t magic, version;
    int32_t status;   /* 0 or negative errno */
    uint32_t n;       /* payload bytes */
    int64_t a;
    uint64_t v;
};

struct sc_card {
    char uuid[48];
    char name[64];
    uint64_t memory_bytes, context_bytes, context_ns;
    uint32_t n_multiprocessors, compute_major, compute_minor;
    uint32_t clock_mhz, memory_clock_mhz, bus_bits, power_idle_w, power_limit_w;
};

struct sc_figures {
    uint64_t memory_used, busy_ns;
    uint32_t utilisation_milli, memory_utilisation_milli, xid, reserved;
    uint64_t control_ns, n_switches;
    uint64_t memory_most; /* ever in use at once */
};

struct sc_process {
    uint32_t pid, n_groups;
    uint64_t memory_bytes, held_ns, work_ns, n_kernels;
};

struct sc_log_head {
    uint64_t dropped, now_ns;
};

/* A program's region: its event slots, then its rings. Sparse: untouched pages cost nothing. */
#define SC_RING_AT(i) (sizeof(struct sm_event_slot) * SM_EVENT_SLOTS + (uint64_t)(i) * sizeof(struct sm_ring))
#define SC_REGION_BYTES SC_RING_AT(SC_MAX_RINGS)
#endif
