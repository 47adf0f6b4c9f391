/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FLEXAI_POOLS_H
#define FLEXAI_POOLS_H
#include <stdbool.h>
#include <stdint.h>
/* Bring the charge of pools and graphs of a card (-1: all) to what the driver says they have reserved. True when something
 * was given back. */
bool fx_pools_settle(int card);
/* Before a refusal stands: wait for what is queued (unless something is being captured), have pools and graphs give back
 * what nothing uses, and measure what only the driver knows of. */
void fx_pools_squeeze(int card);
uint64_t fx_pools_spare(int card); /* charged beyond what pools hold */
void fx_pools_forget(void);
bool fx_graphs_settle(int card); /* under the table's lock */
void fx_graphs_trim(int card);
void fx_graphs_forget(void);
/* Streams of this process that are being captured. */
bool fx_capturing(void);
#endif
