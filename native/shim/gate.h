/* SPDX-License-Identifier: Apache-2.0
 *
 * The gate of the lease backend. Open and unpaced, a launch pays two loads of the policy and one of the stream memo.
 */
#ifndef FLEXAI_GATE_H
#define FLEXAI_GATE_H
#include "state.h"

/* Where the fast path looks: the tenant's cards, or one card that is always open. */
struct fx_gates {
    const volatile struct fx_policy_device *card;
    uint32_t n;
    struct fx_slot *slot; /* counters of this process, or a bin of nobody's */
};
extern struct fx_gates fx_gates;

/* Streams that were launched into, so that a drain knows what to wait for. Direct-mapped memo of keys. */
#define FX_N_STREAMS 256
extern uint64_t fx_stream_memo[FX_N_STREAMS];

static inline uint32_t fx_stream_home(uint64_t key)
{
    return (uint32_t)((key * 0x9e3779b97f4a7c15u) >> 56);
}

static inline bool fx_gates_clear(void)
{
    const volatile struct fx_policy_device *card = fx_gates.card;
    uint32_t n = fx_gates.n;
    do {
        if (!(card->gate & 1) || card->window_us)
            return false;
        card++;
    } while (--n);
    return true;
}

/* The slow half: note the stream, wait at closed gates, keep to the window. Returns the card where it
 * was counted, or -1. */
int fx_gate_enter(CUstream stream, bool per_thread, uint64_t work);
void fx_gate_note(CUstream stream, bool per_thread);
void fx_gate_leave(int card, CUstream stream, bool per_thread, uint64_t work, CUresult rc);

/* One launch: `call` is the driver's own, made exactly once; `work` tells kinds of work apart. */
#define FX_GATED(stream, per_thread, work, call)                                                                          \
    uint64_t key_ = (uint64_t)(stream) << 1 | (per_thread);                                                            \
    __atomic_store_n(&fx_gates.slot->n_launches, __atomic_load_n(&fx_gates.slot->n_launches, __ATOMIC_RELAXED) + 1,    \
                     __ATOMIC_RELAXED);                                                                                \
    if (FX_LIKELY(fx_gates_clear())) {                                                                                 \
        if (!FX_LIKELY(fx_stream_memo[fx_stream_home(key_)] == key_ + 1))                                              \
            fx_gate_note((stream), (per_thread));                                                                      \
        return (call);                                                                                                 \
    }                                                                                                                  \
    int card_ = fx_gate_enter((stream), (per_thread), (work));                                                             \
    CUresult rc_ = (call);                                                                                             \
    fx_gate_leave(card_, (stream), (per_thread), (work), rc_);                                                         \
    return rc_

void fx_gate_attach(void);
void fx_gate_forget(void);
/* The process uses collectives: its launches pass. */
void fx_gate_collective(void);
/* One round of the watcher of a card: wait for a change of the gate, drain a close, see the queue run empty. */
void fx_gate_watch(int card);
void fx_gate_stream_gone(CUstream stream);
#endif
