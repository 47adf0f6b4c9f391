/* SPDX-License-Identifier: Apache-2.0
 *
 * How much of this process's work is queued on a card, by estimate, so that it can be bounded while others want the card.
 * What a kind of work takes (a function with its grid, a graph) is learned from events behind batches of launches.
 */
#ifndef FLEXAI_PACE_H
#define FLEXAI_PACE_H
#include "state.h"

void fx_pace_forget(void);
/* Count a launch as queued, after waiting until it fits the card's window. False: the gate was closed meanwhile, and
 * nothing was counted. */
bool fx_pace_enter(int card, uint64_t work);
/* It was made (or refused): put an event behind it where one is due. */
void fx_pace_leave(int card, CUstream stream, bool per_thread, uint64_t work, bool made);
/* Wait for the end of the oldest batch, and learn from it; false: none is known. */
bool fx_pace_wait(int card);
/* Launches counted so far; and: those up to this number have ended. */
uint64_t fx_pace_sent(int card);
/* True when nothing is queued any more. */
bool fx_pace_drained(int card, uint64_t upto);
#endif
