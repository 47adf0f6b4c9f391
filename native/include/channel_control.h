/* SPDX-License-Identifier: Apache-2.0
 *
 * ChannelControl: what the arbiter's core needs of a vendor's hardware, one table of functions per implementation:
 * nvidia (driver ioctls), simcard (the simulated card's socket), virtual (the card's model in the same process, under a
 * virtual clock). The core never includes a vendor's header.
 *
 * Every call returns 0 or a negative errno; a call that fails changes nothing. Times are nanoseconds.
 */
#ifndef FLEXAI_CHANNEL_CONTROL_H
#define FLEXAI_CHANNEL_CONTROL_H
#include <stdint.h>
#include <stddef.h>

#define CC_MAX_GROUP_CHANNELS 128

/* A compute channel group of some process on one card: what is scheduled, and what is stopped. */
struct cc_group {
    uint32_t pid;        /* host pid */
    uint32_t context;    /* context id as the log writes it; 0 if not known yet */
    uint64_t start_ticks;/* of the process: pid reuse is seen */
    uint32_t n_channels;
    uint32_t handle;     /* index into the implementation's own table */
};

enum cc_log_kind { CC_LOG_START = 1, CC_LOG_END = 2 };
struct cc_log_record {
    uint64_t ts_ns;      /* the card's clock */
    uint32_t pid;        /* 0xFFFFFFFF when the driver does not know any more */
    uint32_t context;
    uint8_t kind;
    uint8_t reserved[7];
};

struct cc_capabilities {
    uint32_t timeslice : 1, stop : 1, preempt : 1, log : 1, discover : 1;
    char note[128];      /* what is missing and why, for people */
};

enum { CC_STOP_DYING = 2 };

/* The same moment by the card's clock and by ours (CLOCK_MONOTONIC). */
struct cc_moment {
    uint64_t card_ns, our_ns;
};

struct cc_ops {
    const char *name;
    /* Attach to a card by UUID. On failure `why` says what is missing. */
    int (*open)(void **self, const char *uuid, char *why, size_t n_why);
    void (*close)(void *self);
    int (*self_test)(void *self, struct cc_capabilities *caps);
    /* Find the compute groups of a process; returns the count (>= 0). */
    int (*discover)(void *self, uint32_t pid, struct cc_group *groups, int max);
    /* The process is gone or no longer ours: let go of anything borrowed. */
    void (*forget)(void *self, uint32_t handle);
    /* Returns what the card makes of it in microseconds, as get_timeslice will; 0: just that. */
    int (*set_timeslice)(void *self, uint32_t handle, uint32_t us);
    int (*get_timeslice)(void *self, uint32_t handle, uint32_t *us);
    /* Stop (1) or resume (0) several groups with as few driver calls as it takes; CC_STOP_DYING: of processes that are
     * ending, by one attempt. */
    int (*stop)(void *self, const uint32_t *handles, int n, int stopped);
    int (*preempt)(void *self, uint32_t handle);
    /* Read new records in order; returns the count; *dropped counts records lost since the last call; *told is up to when
     * they are complete, so that an open interval can be charged up to it. */
    int (*read_log)(void *self, struct cc_log_record *records, int max, uint64_t *dropped, struct cc_moment *told);
};

extern const struct cc_ops cc_nvidia;
extern const struct cc_ops cc_simcard;
#endif
