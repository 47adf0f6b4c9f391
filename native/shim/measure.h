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
/* From within an allocation that has not asked the driver yet: a decrease counts at once. */
void fx_measure_twice(void);
void fx_measure_forget(void);
#endif
