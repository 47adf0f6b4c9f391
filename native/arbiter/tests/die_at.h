/* SPDX-License-Identifier: Apache-2.0
 * A process that is killed between two writes of its choice: what it shares with others is then as those before left it.
 * Every store into a watched mapping is a point, because the mapping is read-only: the fault counts it, lets that one
 * instruction through, and closes the page again. Nothing of what is tested is changed or compiled otherwise. x86-64.
 */
#ifndef FLEXAI_ARBITER_DIE_AT_H
#define FLEXAI_ARBITER_DIE_AT_H
#include <stddef.h>

#define DIE_MAPPINGS 4
/* Watch a mapping of whole pages; of its bytes from `skip` on, `n_skip` are written without its counting. */
void die_watch(void *at, size_t n, size_t skip, size_t n_skip);
/* From now on: SIGKILL to ourselves before the point of this number, from 1; 0 = never. */
void die_at(unsigned long number);
/* Something that changes what others see, other than a store: a point before it. */
void die_point(void);
#endif
