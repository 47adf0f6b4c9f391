/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory that several processes hold. Whoever allocated it pays, and goes on paying after it has let go while any process
 * of the tenant has imports; when it dies, one of those pays (region_core.c).
 */
#ifndef FLEXAI_SHARED_H
#define FLEXAI_SHARED_H
#include <stdbool.h>
#include <stdint.h>

/* One of ours may be held by others from now on. Under the table's lock. */
void fx_shared_exported(int card, uint64_t bytes);
/* It is freed here. True: others may hold it, so its charge stays, and is given back later. Under the table's lock. */
bool fx_shared_freed(int card, uint64_t bytes);
/* What stays charged so. */
uint64_t fx_shared_bytes(int card);
/* Look whether anybody has imports still. */
void fx_shared_settle(void);
void fx_shared_forget(void);
/* Count of what this process holds of others. */
void fx_imported(int by);
#endif
