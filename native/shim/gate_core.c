/* SPDX-License-Identifier: Apache-2.0 */
#include "gate_core.h"

#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

void fx_futex_wait(const uint32_t *word, uint32_t value, uint64_t timeout_ns)
{
    struct timespec timeout = {(time_t)(timeout_ns / 1000000000u), (long)(timeout_ns % 1000000000u)};
    syscall(SYS_futex, word, FUTEX_WAIT, value, &timeout, NULL, 0);
}

void fx_demand(struct fx_ledger *ledger)
{
    __atomic_add_fetch(&ledger->demand, 1u, __ATOMIC_SEQ_CST);
    syscall(SYS_futex, &ledger->demand, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

bool fx_gate_passes(const volatile struct fx_policy *policy, uint32_t device, uint64_t now_ns)
{
    const volatile struct fx_policy_device *card = &policy->device[device];
    if ((__atomic_load_n(&card->gate, __ATOMIC_SEQ_CST) & 1) || card->backend != FX_BACKEND_LEASE)
        return true;
    uint64_t heartbeat = __atomic_load_n(&policy->heartbeat_ns, __ATOMIC_SEQ_CST);
    return now_ns > heartbeat && now_ns - heartbeat > FX_ARBITER_LATE_NS;
}

void fx_gate_wait(const volatile struct fx_policy *policy, struct fx_ledger *ledger, uint32_t slot, uint32_t device)
{
    if (fx_gate_passes(policy, device, fx_now_ns()))
        return;
    struct fx_slot *mine = &ledger->slot[slot];
    __atomic_add_fetch(&mine->waiting_on[device], 1u, __ATOMIC_SEQ_CST);
    __atomic_add_fetch(&mine->waiting, 1u, __ATOMIC_SEQ_CST);
    fx_demand(ledger);
    for (;;) {
        const volatile struct fx_policy_device *card = &policy->device[device];
        uint32_t gate = __atomic_load_n(&card->gate, __ATOMIC_SEQ_CST);
        if (fx_gate_passes(policy, device, fx_now_ns()))
            break;
        if (!(gate & 1))
            fx_futex_wait((const uint32_t *)(uintptr_t)&card->gate, gate, 50000000u);
    }
    __atomic_sub_fetch(&mine->waiting, 1u, __ATOMIC_SEQ_CST);
    __atomic_sub_fetch(&mine->waiting_on[device], 1u, __ATOMIC_SEQ_CST);
}
