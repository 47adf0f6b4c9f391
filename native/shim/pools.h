/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FLEXAI_POOLS_H
#define FLEXAI_POOLS_H
#include <stdbool.h>
/* Bring the charge of every pool of a card (-1: all) to what the driver says it has reserved. True when something was
 * given back. */
bool fx_pools_settle(int card);
#endif
