/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FLEXAI_MEASURE_H
#define FLEXAI_MEASURE_H
#include <stdint.h>
#include <stdbool.h>

/* Ask the vendor's management library what this process (host pid) holds on each card, and charge what is beyond its
 * allocations: contexts, modules, printf buffers, fragments. */
void fx_measure(uint32_t host_pid);
/* Once now, for what a context took: the bytes by which the charge of a card grew; they are the caller's to refund. */
uint64_t fx_measure_now(int card);
/* Now, so that a decrease counts at once. `ours`: allocations under way that are the caller's, which has not asked the driver
 * for them yet. */
void fx_measure_twice(uint32_t ours);
/* Where a card is on the bus, as the driver writes it ("0000:18:00.0"); false where nobody says. */
bool fx_bus_of(int card, char text[32]);
void fx_measure_forget(void);
#endif
