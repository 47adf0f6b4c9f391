/* SPDX-License-Identifier: Apache-2.0
 *
 * What this process has been charged for: handle or address -> card and bytes. One open hash table behind a lock; an
 * allocation costs microseconds in the driver, the table some tens of nanoseconds.
 */
#ifndef FLEXAI_TABLE_H
#define FLEXAI_TABLE_H
#include <stdbool.h>
#include <stdint.h>

enum fx_kind {
    FX_KIND_MEMORY = 1,  /* device pointer */
    FX_KIND_ARRAY = 2,   /* CUarray or CUmipmappedArray */
    FX_KIND_PHYSICAL = 3,/* key: our number of a cuMemCreate; alive while it has handles or mappings */
    FX_KIND_HANDLE = 4,  /* CUmemGenericAllocationHandle; `other` = number of the physical allocation */
    FX_KIND_MAP = 5,     /* mapped address; `other` = number, `length` */
    FX_KIND_POOL = 6,    /* CUmemoryPool; `bytes` = what of it is charged */
    FX_KIND_EXEC = 7,    /* CUgraphExec with allocation nodes, by card (see graphs.c); `other` = their bytes */
    FX_KIND_CONTEXT = 8, /* CUcontext */
    FX_KIND_IMPORT = 9,  /* address or handle of what another process allocated */
    FX_KIND_BLOCK = 10,  /* address over 2 MiB; `other` = how many small allocations live there */
};

struct fx_entry {
    uint64_t key;
    uint64_t bytes; /* charged for it */
    uint64_t other;
    uint64_t length;
    void *owner;    /* CUcontext whose end frees it */
    int32_t n_handles;
    int32_t n_maps;
    int8_t card;
    uint8_t kind; /* 0 = free */
    bool small;
    bool in_block;  /* small, and counted by the block that it lies in */
    bool managed;  /* in nobody's account at the driver */
    bool exported; /* other processes may hold it */
};

/* The lock is held by the caller over a sequence of these. */
void fx_table_lock(void);
void fx_table_unlock(void);
/* NULL when the machine has no memory for it. Replaces what was there. The pointer is good until the next put. */
struct fx_entry *fx_table_put(enum fx_kind kind, uint64_t key, int card, uint64_t bytes);
struct fx_entry *fx_table_get(enum fx_kind kind, uint64_t key);
/* Take out; false when it was not there. */
bool fx_table_take(enum fx_kind kind, uint64_t key, struct fx_entry *entry);
/* The next entry of a kind; start with 0, ends with NULL. */
struct fx_entry *fx_table_next(enum fx_kind kind, uint64_t *position);
/* After fork: the parent's allocations are not ours. */
void fx_table_forget(void);
#endif
