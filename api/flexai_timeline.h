/* SPDX-License-Identifier: Apache-2.0
 *
 * Who had which card when: <run>/timeline, a ring that the arbiter writes and everyone may map read-only. Readers never
 * hold the arbiter up: it writes on, and a reader that comes too late sees by n_written how many records it missed.
 * Record i is at record[i % FX_TIMELINE_RECORDS]. A reader copies what it wants and then reads n_written again: record i
 * is whole if i + FX_TIMELINE_RECORDS > n_written.
 */
#ifndef FLEXAI_TIMELINE_H
#define FLEXAI_TIMELINE_H
#include <stdint.h>
#include "flexai_arbiter.h"

#define FX_TIMELINE_MAGIC 0x454c5458u /* "XTLE" */
#define FX_TIMELINE_VERSION 1u
#define FX_TIMELINE_RECORDS 65536u
#define FX_TIMELINE_OUTSIDE 0xffffu

enum fx_timeline_kind {
    FX_TIMELINE_RUNS = 1,    /* a context has the card from here, by the context-switch log; any later record of kind RUNS
                                or LEFT of this card ends it */
    FX_TIMELINE_LEFT = 2,    /* nobody has the card from here */
    FX_TIMELINE_STOPPED = 3, /* the tenant's process (pid 0: the whole tenant, by its gate) may not run */
    FX_TIMELINE_RESUMED = 4,
    FX_TIMELINE_TURN = 5,    /* the turn of this tenant begins; FX_TIMELINE_OUTSIDE: nobody's turn */
    FX_TIMELINE_LOST = 6,    /* the card's log lost `context` records before this */
    FX_TIMELINE_BEGAN = 7,   /* an arbiter began, or the guardian resumed everything: on no card is anything
                                stopped, and it is nobody's turn */
    FX_TIMELINE_SLICED = 8,  /* the time slice of the tenant's process was set to `context` microseconds */
    FX_TIMELINE_FOUND = 9,   /* a channel group of the tenant's process is known from here, with `context` channels: it can
                                be stopped */
};

struct fx_timeline_record {
    uint64_t at_ns;          /* CLOCK_MONOTONIC */
    uint64_t card_ns;        /* kinds RUNS and LEFT: the card's own clock; differences of it are exact */
    uint32_t pid;            /* 0 = not known */
    uint32_t context;        /* LOST: how many records; SLICED: microseconds; FOUND: channels */
    uint32_t tenant_use;     /* of tenant[tenant]: another number there now means that the place has been given away */
    uint16_t tenant;         /* place in the table, or FX_TIMELINE_OUTSIDE */
    uint8_t device;          /* place in the table */
    uint8_t kind;
};

struct fx_timeline_tenant {
    uint32_t use;            /* n_uses; 0 while the name is written */
    uint32_t n_uses;         /* how many tenants the place has had */
    char name[FX_TENANT_ID_BYTES];
};

struct fx_timeline {
    uint32_t magic;
    uint32_t version;
    uint64_t size;
    uint64_t n_written;      /* ever; released after the record that it counts */
    uint32_t arbiter_pid;
    uint8_t reserved[36];
    char device[FX_MAX_DEVICES][FX_UUID_BYTES];
    struct fx_timeline_tenant tenant[FX_MAX_TENANTS];
    struct fx_timeline_record record[FX_TIMELINE_RECORDS];
};

#ifndef __cplusplus
_Static_assert(sizeof(struct fx_timeline_record) == 32, "fx_timeline_record");
_Static_assert(sizeof(struct fx_timeline_tenant) == 72, "fx_timeline_tenant");
_Static_assert(sizeof(struct fx_timeline) ==
                   64 + FX_UUID_BYTES * FX_MAX_DEVICES + 72 * FX_MAX_TENANTS + 32 * FX_TIMELINE_RECORDS,
               "fx_timeline");
#endif
#endif
