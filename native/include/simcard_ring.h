/* SPDX-License-Identifier: Apache-2.0
 *
 * A stream's ring: one producer (the program, through the simulated driver), one consumer (the card's model). It lives
 * in shared memory between a program and `flexai-simcard`, or in plain memory under a virtual clock. Nothing but these
 * words passes between the two per launch: the model reads entries when it next advances, and an entry's timestamp, not
 * the moment of reading, is when the work arrived.
 */
#ifndef FLEXAI_SIMCARD_RING_H
#define FLEXAI_SIMCARD_RING_H
#include <stdatomic.h>
#include <stdint.h>

#define SM_RING_ENTRIES 1024u

enum sm_op {
    SM_OP_NOP = 0,    /* done when reached: a fence */
    SM_OP_WORK = 1,   /* amount ns of the whole card */
    SM_OP_COPY = 2,   /* amount bytes, flags = enum sm_copy */
    SM_OP_RECORD = 3, /* event slot `slot` gets the time */
    SM_OP_WAIT = 4,   /* until stream `slot` of this process has completed `amount` entries */
    SM_OP_HOST = 5,   /* until the producer has run its function: host_done > this entry's index */
    SM_OP_SPIN = 6,   /* a kernel that keeps the card busy until host_done > this entry's index: it waits for a peer */
};
enum sm_copy { SM_COPY_H2D = 0, SM_COPY_D2H = 1, SM_COPY_D2D = 2, SM_N_COPY = 3 };

struct sm_entry {
    uint64_t ts_ns;   /* the producer's CLOCK_MONOTONIC */
    uint32_t op;
    uint32_t slot;
    uint64_t amount;
    uint64_t value;   /* RECORD: written beside the time */
    uint32_t flags;
    uint32_t n_kernels;
    uint64_t reserved[3];
};

struct sm_ring {
    _Atomic uint64_t head;      /* producer: entries written */
    _Atomic uint64_t host_done; /* producer: host functions run, as index + 1 */
    uint64_t reserved0[6];
    _Atomic uint64_t completed; /* model: entries completed */
    _Atomic uint32_t error;     /* model: CUDA error code that ended the stream; 0 = none */
    uint32_t reserved1[13];
    struct sm_entry entry[SM_RING_ENTRIES];
};

/* Where RECORD writes. One table per process. */
#define SM_EVENT_SLOTS 65536u
struct sm_event_slot {
    _Atomic uint64_t done_ns;
    _Atomic uint64_t value; /* the entry's value: which record this time belongs to */
};

_Static_assert(sizeof(struct sm_entry) == 64, "sm_entry");
_Static_assert(sizeof(struct sm_ring) == 128 + 64 * SM_RING_ENTRIES, "sm_ring");
_Static_assert(sizeof(struct sm_event_slot) == 16, "sm_event_slot");
#endif
