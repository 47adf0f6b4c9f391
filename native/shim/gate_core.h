/* SPDX-License-Identifier: Apache-2.0
 *
 * The words of the gate, without any driver: what the sanitizer tests run.
 */
#ifndef FLEXAI_GATE_CORE_H
#define FLEXAI_GATE_CORE_H
#include "region_core.h"

#define FX_ARBITER_LATE_NS 1000000000ull

/* Wait while the word has this value, at most this long. */
void fx_futex_wait(const uint32_t *word, uint32_t value, uint64_t timeout_ns);
/* Tell the arbiter that something changed on our side. */
void fx_demand(struct fx_ledger *ledger);
/* Open, or nobody is there to open it: another backend, or an arbiter that is late. */
bool fx_gate_passes(const volatile struct fx_policy *policy, uint32_t device, uint64_t now_ns);
/* Wait until the gate passes, seen in the slot meanwhile. */
void fx_gate_wait(const volatile struct fx_policy *policy, struct fx_ledger *ledger, uint32_t slot, uint32_t device);
#endif
