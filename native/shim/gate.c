/* SPDX-License-Identifier: Apache-2.0 */
#include "glibc.h"
#include "gate.h"

#include <unistd.h>

#include "gate_core.h"
#include "pace.h"
#include "streams.h"

static const volatile struct fx_policy_device always_open = {.gate = 1};
static struct fx_slot nobody;
struct fx_gates fx_gates = {&always_open, 1, &nobody};

static uint64_t told[FX_MAX_DEVICES]; /* launches counted when the queue was last told to be empty */

void fx_gate_attach(void)
{
    if (fx.n_cards) {
        fx_gates.slot = &fx.region.ledger->slot[fx.slot];
        fx_gates.n = fx.n_cards;
        fx_gates.card = fx.region.policy->device;
    }
    __atomic_or_fetch(&fx.region.ledger->slot[fx.slot].flags, FX_SLOT_DRAINS, __ATOMIC_SEQ_CST);
}

void fx_gate_forget(void)
{
    fx_gates.card = &always_open;
    fx_gates.n = 1;
    fx_gates.slot = &nobody;
    for (int card = 0; card < FX_MAX_DEVICES; card++)
        told[card] = 0;
    fx_pace_forget();
    fx_streams_forget();
}

void fx_gate_collective(void)
{
    if (fx.attached)
        __atomic_or_fetch(&fx.region.ledger->slot[fx.slot].flags, FX_SLOT_COLLECTIVE, __ATOMIC_SEQ_CST);
}

static bool never_gated(void)
{
    return __atomic_load_n(&fx_gates.slot->flags, __ATOMIC_RELAXED) & FX_SLOT_COLLECTIVE;
}

void fx_gate_note(CUstream stream, bool per_thread)
{
    if (fx.attached)
        fx_stream_note(stream, per_thread);
}

int fx_gate_enter(CUstream stream, bool per_thread, uint64_t work)
{
    int card = fx.n_cards == 1 ? 0 : fx_current_card();
    if (card < 0 || never_gated())
        return -1;
    fx_stream_note(stream, per_thread);
    bool paced, again;
    do {
        fx_gate_wait(fx.region.policy, fx.region.ledger, fx.slot, (uint32_t)card);
        paced = fx_gates.card[card].window_us && fx_pace_enter(card, work);
        again = !paced && !fx_gate_passes(fx.region.policy, (uint32_t)card, fx_now_ns());
    } while (again);
    __atomic_store_n(&fx_gates.slot->last_submit_ns, fx_now_ns(), __ATOMIC_RELAXED);
    return paced ? card : -1;
}

void fx_gate_leave(int card, CUstream stream, bool per_thread, uint64_t work, CUresult rc)
{
    if (card >= 0)
        fx_pace_leave(card, stream, per_thread, work, rc == CUDA_SUCCESS);
}

void fx_gate_stream_gone(CUstream stream)
{
    if (fx.attached)
        fx_stream_forget(stream);
}

/* Wait until what was queued on a card before now has ended; true when that was all. */
static bool drain(int card, bool *empty)
{
    uint64_t sent = fx_pace_sent(card);
    if (!fx_streams_wait(card))
        return false;
    *empty = fx_pace_drained(card, sent);
    return true;
}

static void answer_close(int card, uint32_t gate)
{
    struct fx_slot *slot = &fx.region.ledger->slot[fx.slot];
    bool empty;
    if (drain(card, &empty)) {
        __atomic_store_n(&slot->drained_gen[card], gate >> 1, __ATOMIC_SEQ_CST);
        fx_demand(fx.region.ledger);
    } else {
        usleep(500); /* a stream is being captured: look again */
    }
}

void fx_gate_watch(int card)
{
    const volatile struct fx_policy_device *device = &fx.region.policy->device[card];
    uint32_t gate = __atomic_load_n(&device->gate, __ATOMIC_SEQ_CST);
    uint64_t sent;
    if (!(gate & 1)) {
        if (__atomic_load_n(&fx.region.ledger->slot[fx.slot].drained_gen[card], __ATOMIC_SEQ_CST) != gate >> 1) {
            answer_close(card, gate);
            return;
        }
    } else if (device->window_us && (sent = fx_pace_sent(card)) != told[card]) {
        bool empty = false;
        if (fx_pace_wait(card))
            return;
        if (drain(card, &empty) && empty) {
            told[card] = sent;
            fx_demand(fx.region.ledger);
        } else {
            fx_futex_wait((const uint32_t *)(uintptr_t)&device->gate, gate, 200000u);
        }
        return;
    }
    /* While paced, the first launch after an idle time must be seen soon. */
    fx_futex_wait((const uint32_t *)(uintptr_t)&device->gate, gate, device->window_us ? 1000000u : 100000000u);
}
