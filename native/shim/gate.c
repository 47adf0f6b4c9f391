/* SPDX-License-Identifier: Apache-2.0 */
#include "glibc.h"
#include "gate.h"

#include <pthread.h>
#include <unistd.h>

#include "gate_core.h"
#include "streams.h"

static const volatile struct fx_policy_device always_open = {.gate = 1};
static struct fx_slot nobody;
struct fx_gates fx_gates = {&always_open, 1, &nobody};

/* What this process has queued on one card, while it is paced. */
static struct pace {
    pthread_mutex_t lock;
    uint64_t n_sent, n_done; /* launches, by number */
    uint64_t n_marked;       /* n_sent at the last mark */
    uint64_t each_ns;        /* estimated time of one launch */
    struct fx_mark marks[FX_MAX_MARKS]; /* ring */
    uint32_t first, n_marks;
    uint64_t sent_ns, done_ns; /* of the oldest outstanding launch, of the last known end */
    bool idle_told;
} paces[FX_MAX_DEVICES];

void fx_gate_attach(void)
{
    for (int card = 0; card < FX_MAX_DEVICES; card++)
        pthread_mutex_init(&paces[card].lock, NULL);
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
        paces[card] = (struct pace){.n_sent = 0};
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

/* What the arbiter reads of us. Under the card's lock. */
static void publish(int card, const struct pace *pace, uint64_t now)
{
    uint64_t out = pace->n_sent - pace->n_done;
    __atomic_store_n(&fx_gates.slot->inflight[card], (uint32_t)(out > UINT32_MAX ? UINT32_MAX : out), __ATOMIC_RELAXED);
    __atomic_store_n(&fx_gates.slot->busy_until_ns[card], out ? now + out * pace->each_ns : now, __ATOMIC_RELAXED);
}

/* Up to `count` launches have ended: learn what one takes. Under the lock. */
static void ended(int card, struct pace *pace, uint64_t count, uint64_t now)
{
    if (count <= pace->n_done)
        return;
    uint64_t since = pace->done_ns > pace->sent_ns ? pace->done_ns : pace->sent_ns;
    uint64_t one = (now - since) / (count - pace->n_done);
    pace->each_ns = pace->each_ns ? (3 * pace->each_ns + one) / 4 : one;
    pace->n_done = count;
    pace->done_ns = now;
    publish(card, pace, now);
}

/* Wait for the oldest mark; the lock is let go meanwhile. False: there was none. */
static bool wait_oldest(int card, struct pace *pace)
{
    if (!pace->n_marks)
        return false;
    struct fx_mark mark = pace->marks[pace->first];
    pthread_mutex_unlock(&pace->lock);
    bool done = fx_mark_wait(&mark);
    pthread_mutex_lock(&pace->lock);
    /* Others may have waited for the same one. */
    while (pace->n_marks && pace->marks[pace->first].count <= mark.count) {
        fx_mark_free(&pace->marks[pace->first]);
        pace->first = (pace->first + 1) % FX_MAX_MARKS;
        pace->n_marks--;
    }
    ended(card, pace, mark.count, fx_now_ns());
    return done;
}

static void keep_window(int card, struct pace *pace)
{
    pthread_mutex_lock(&pace->lock);
    for (;;) {
        uint64_t out = pace->n_sent - pace->n_done;
        uint64_t window_ns = fx_gates.card[card].window_us * 1000ull;
        if (window_ns == 0 || out == 0 || !(fx_gates.card[card].gate & 1))
            break;
        if (out * pace->each_ns < window_ns && pace->n_marks < FX_MAX_MARKS)
            break;
        if (!wait_oldest(card, pace)) {
            pace->n_done = pace->n_sent; /* nothing to wait for: start counting afresh */
            break;
        }
    }
    pthread_mutex_unlock(&pace->lock);
}

void fx_gate_note(CUstream stream, bool per_thread)
{
    if (fx.attached)
        fx_stream_note(stream, per_thread);
}

int fx_gate_enter(CUstream stream, bool per_thread)
{
    int card = fx.n_cards == 1 ? 0 : fx_current_card();
    if (card < 0 || never_gated())
        return -1;
    fx_stream_note(stream, per_thread);
    do {
        fx_gate_wait(fx.region.policy, fx.region.ledger, fx.slot, (uint32_t)card);
        if (fx_gates.card[card].window_us)
            keep_window(card, &paces[card]);
    } while (!fx_gate_passes(fx.region.policy, (uint32_t)card, fx_now_ns()));
    __atomic_store_n(&fx_gates.slot->last_submit_ns, fx_now_ns(), __ATOMIC_RELAXED);
    return card;
}

void fx_gate_leave(int card, CUstream stream, bool per_thread, CUresult rc)
{
    uint64_t window_ns;
    if (card < 0 || rc != CUDA_SUCCESS || (window_ns = fx_gates.card[card].window_us * 1000ull) == 0)
        return;
    struct pace *pace = &paces[card];
    pthread_mutex_lock(&pace->lock);
    uint64_t now = fx_now_ns();
    if (pace->n_sent++ == pace->n_done)
        pace->sent_ns = now;
    pace->idle_told = false;
    uint64_t unmarked = pace->n_sent - pace->n_marked;
    if (pace->n_marks < FX_MAX_MARKS && (pace->n_marks == 0 || unmarked * pace->each_ns * 4 >= window_ns)) {
        struct fx_mark *mark = &pace->marks[(pace->first + pace->n_marks) % FX_MAX_MARKS];
        if (fx_mark_record(mark, stream, per_thread)) {
            mark->count = pace->n_sent;
            pace->n_marked = pace->n_sent;
            pace->n_marks++;
        }
    }
    publish(card, pace, now);
    pthread_mutex_unlock(&pace->lock);
}

void fx_gate_stream_gone(CUstream stream)
{
    if (fx.attached)
        fx_stream_forget(stream);
}

/* Wait until what was queued on a card before now has ended. */
static bool drain(int card)
{
    struct pace *pace = &paces[card];
    pthread_mutex_lock(&pace->lock);
    uint64_t sent = pace->n_sent;
    pthread_mutex_unlock(&pace->lock);
    bool done = fx_streams_wait(card);
    if (done) {
        pthread_mutex_lock(&pace->lock);
        ended(card, pace, sent, fx_now_ns());
        pthread_mutex_unlock(&pace->lock);
    }
    return done;
}

void fx_gate_watch(int card)
{
    const volatile struct fx_policy_device *device = &fx.region.policy->device[card];
    struct fx_slot *slot = &fx.region.ledger->slot[fx.slot];
    struct pace *pace = &paces[card];
    uint32_t gate = __atomic_load_n(&device->gate, __ATOMIC_SEQ_CST);
    if (!(gate & 1)) {
        if (__atomic_load_n(&slot->drained_gen[card], __ATOMIC_SEQ_CST) != gate >> 1) {
            if (drain(card)) {
                __atomic_store_n(&slot->inflight[card], 0u, __ATOMIC_SEQ_CST);
                __atomic_store_n(&slot->drained_gen[card], gate >> 1, __ATOMIC_SEQ_CST);
                fx_demand(fx.region.ledger);
            } else {
                usleep(500); /* a stream is being captured: look again */
            }
            return;
        }
    } else if (device->window_us) {
        pthread_mutex_lock(&pace->lock);
        uint64_t sent = pace->n_sent;
        bool look = !pace->idle_told && sent > 0;
        pthread_mutex_unlock(&pace->lock);
        if (look) {
            bool empty = drain(card);
            pthread_mutex_lock(&pace->lock);
            if (empty && pace->n_sent == sent) {
                pace->idle_told = true;
                publish(card, pace, fx_now_ns());
            }
            bool told = pace->idle_told;
            pthread_mutex_unlock(&pace->lock);
            if (told)
                fx_demand(fx.region.ledger);
            else
                usleep(200);
            return;
        }
    }
    /* While paced, the first launch after an idle time must be seen soon. */
    fx_futex_wait((const uint32_t *)(uintptr_t)&device->gate, gate, device->window_us ? 1000000u : 100000000u);
}
