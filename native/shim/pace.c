/* SPDX-License-Identifier: Apache-2.0 */
#include "glibc.h"
#include "pace.h"

#include <pthread.h>

#include "gate.h"
#include "gate_core.h"
#include "streams.h"

#define N_KINDS 8      /* kinds of work told apart in a batch */
#define N_LEARNED 1024 /* kinds remembered, direct-mapped */

/* Launches between two events. */
struct batch {
    struct fx_mark mark;
    uint64_t upto;    /* number of its last launch */
    uint64_t n;
    uint64_t cost_ns; /* predicted */
    uint64_t begun_ns;/* when its first launch was made */
    uint64_t kind[N_KINDS];
    uint32_t n_kinds;
    bool unknown;
};

static struct pace {
    pthread_mutex_t lock;
    uint64_t n_sent, n_out, out_ns;
    uint64_t done_ns; /* when the last known batch ended */
    struct batch open, ring[FX_MAX_MARKS];
    uint32_t first, n;
} paces[FX_MAX_DEVICES] = {[0 ... FX_MAX_DEVICES - 1] = {.lock = PTHREAD_MUTEX_INITIALIZER}};

static struct learned {
    uint64_t kind, cost_ns;
} memory[N_LEARNED];

void fx_pace_forget(void)
{
    for (int card = 0; card < FX_MAX_DEVICES; card++)
        paces[card] = (struct pace){.lock = PTHREAD_MUTEX_INITIALIZER};
}

static struct learned *place(uint64_t kind)
{
    return &memory[(kind * 0x9e3779b97f4a7c15u) >> 54];
}

/* Predicted cost, 0 = not known. Torn reads of another card's writer only make a wrong guess. */
static uint64_t cost_of(uint64_t kind)
{
    struct learned *at = place(kind);
    return at->kind == kind ? at->cost_ns : 0;
}

static uint64_t window_ns(int card)
{
    return fx_gates.card[card].window_us * 1000ull;
}

static void publish(int card, const struct pace *pace)
{
    uint64_t now = fx_now_ns();
    __atomic_store_n(&fx_gates.slot->inflight[card], (uint32_t)pace->n_out, __ATOMIC_RELAXED);
    __atomic_store_n(&fx_gates.slot->busy_until_ns[card], now + pace->out_ns, __ATOMIC_RELAXED);
}

static void learn(const struct batch *batch, uint64_t took_ns)
{
    if (batch->unknown && batch->n_kinds == 1) {
        *place(batch->kind[0]) = (struct learned){batch->kind[0], took_ns / batch->n + 1};
        return;
    }
    /* Move each kind of the batch by half of what the whole was wrong by. */
    for (uint32_t i = 0; i < batch->n_kinds; i++) {
        struct learned *at = place(batch->kind[i]);
        uint64_t was = at->kind == batch->kind[i] ? at->cost_ns : took_ns / batch->n;
        uint64_t right = batch->cost_ns ? (uint64_t)((double)was * (double)took_ns / (double)batch->cost_ns) : was;
        *at = (struct learned){batch->kind[i], (was + right) / 2 + 1};
    }
}

static void subtract(struct pace *pace, const struct batch *batch)
{
    pace->n_out -= batch->n < pace->n_out ? batch->n : pace->n_out;
    pace->out_ns -= batch->cost_ns < pace->out_ns ? batch->cost_ns : pace->out_ns;
}

static void pop(struct pace *pace)
{
    struct batch *oldest = &pace->ring[pace->first];
    subtract(pace, oldest);
    fx_mark_free(&oldest->mark);
    pace->first = (pace->first + 1) % FX_MAX_MARKS;
    pace->n--;
}

/* Wait for the oldest batch; the lock is let go meanwhile. False: there is none, or the driver refuses to wait. */
static bool wait_oldest(int card, struct pace *pace)
{
    if (!pace->n)
        return false;
    struct batch oldest = pace->ring[pace->first];
    pthread_mutex_unlock(&pace->lock);
    bool over = fx_mark_done(&oldest.mark); /* when already over, the time is only a bound from above */
    bool waited = over || fx_mark_wait(&oldest.mark);
    uint64_t now = fx_now_ns();
    pthread_mutex_lock(&pace->lock);
    if (!waited)
        return false;
    if (pace->n && pace->ring[pace->first].upto == oldest.upto) { /* nobody else saw to it meanwhile */
        uint64_t since = pace->done_ns > oldest.begun_ns ? pace->done_ns : oldest.begun_ns;
        uint64_t took = now > since ? now - since : 1;
        /* Found over already, its end is not known: by then at the latest, by prediction probably. */
        if (!over || (took < oldest.cost_ns && !oldest.unknown))
            learn(&oldest, took);
        pace->done_ns = over && since + oldest.cost_ns < now ? since + oldest.cost_ns : now;
        pop(pace);
        publish(card, pace);
    }
    return true;
}

/* Nanoseconds until a launch of this cost fits behind what is queued; UINT64_MAX = when the oldest batch has ended. The
 * launch itself counts for half the window at most: a long kernel is queued when little of the one before it is left, so
 * that the card does not stand still between them. */
static uint64_t too_early(const struct pace *pace, uint64_t window, uint64_t cost)
{
    uint64_t room = window - (cost < window / 2 ? cost : window / 2), left = pace->out_ns;
    if (pace->n_out == 0)
        return 0;
    if (pace->n) {
        const struct batch *oldest = &pace->ring[pace->first];
        uint64_t since = pace->done_ns > oldest->begun_ns ? pace->done_ns : oldest->begun_ns, now = fx_now_ns();
        uint64_t past = now > since ? now - since : 0;
        if (past > oldest->cost_ns + oldest->cost_ns / 2 + 500000)
            return UINT64_MAX; /* it takes longer than was thought: believe nothing */
        past = past < oldest->cost_ns ? past : oldest->cost_ns;
        left -= past < left ? past : left;
    }
    return left > room ? left - room : 0;
}

bool fx_pace_wait(int card)
{
    struct pace *pace = &paces[card];
    pthread_mutex_lock(&pace->lock);
    bool waited = wait_oldest(card, pace);
    pthread_mutex_unlock(&pace->lock);
    return waited;
}

bool fx_pace_enter(int card, uint64_t kind)
{
    struct pace *pace = &paces[card];
    pthread_mutex_lock(&pace->lock);
    uint64_t window, cost;
    for (;;) {
        window = window_ns(card);
        cost = cost_of(kind);
        if (!cost)
            cost = window / 2; /* one before it is known may still run */
        if (!(fx_gates.card[card].gate & 1)) {
            pthread_mutex_unlock(&pace->lock);
            return false;
        }
        if (!window)
            break;
        uint64_t early = too_early(pace, window, cost);
        if (early == 0 && pace->n < FX_MAX_MARKS)
            break;
        if (pace->n == 1 && early && early != UINT64_MAX) {
            uint32_t gate = fx_gates.card[card].gate;
            pthread_mutex_unlock(&pace->lock);
            if (gate & 1)
                fx_futex_wait((const uint32_t *)(uintptr_t)&fx_gates.card[card].gate, gate, early);
            pthread_mutex_lock(&pace->lock);
        } else if (!wait_oldest(card, pace)) {
            pace->n_out = pace->out_ns = 0; /* nothing to wait for: count afresh */
            break;
        }
    }
    struct batch *open = &pace->open;
    if (open->n == 0)
        *open = (struct batch){.begun_ns = fx_now_ns()};
    pace->n_sent++;
    pace->n_out++;
    pace->out_ns += cost;
    open->n++;
    open->cost_ns += cost;
    open->upto = pace->n_sent;
    open->unknown |= cost_of(kind) == 0;
    uint32_t i = 0;
    while (i < open->n_kinds && open->kind[i] != kind)
        i++;
    if (i == open->n_kinds && i < N_KINDS)
        open->kind[open->n_kinds++] = kind;
    publish(card, pace);
    pthread_mutex_unlock(&pace->lock);
    return true;
}

void fx_pace_leave(int card, CUstream stream, bool per_thread, uint64_t kind, bool made)
{
    (void)kind;
    struct pace *pace = &paces[card];
    pthread_mutex_lock(&pace->lock);
    struct batch *open = &pace->open;
    if (open->n) {
        bool due = pace->n == 0 || open->unknown || open->n_kinds == N_KINDS || open->cost_ns * 4 >= window_ns(card);
        if (!made) {
            /* Not queued, or queued into a graph that is being captured. */
            uint64_t one = open->cost_ns / open->n;
            pace->n_out -= pace->n_out > 0;
            pace->out_ns -= one < pace->out_ns ? one : pace->out_ns;
            open->n--;
            open->cost_ns -= one;
        } else if (due && pace->n < FX_MAX_MARKS) {
            if (fx_mark_record(&open->mark, stream, per_thread)) {
                pace->ring[(pace->first + pace->n++) % FX_MAX_MARKS] = *open;
            } else {
                subtract(pace, open); /* captured: nothing runs */
            }
            open->n = 0;
        }
    }
    publish(card, pace);
    pthread_mutex_unlock(&pace->lock);
}

uint64_t fx_pace_sent(int card)
{
    struct pace *pace = &paces[card];
    pthread_mutex_lock(&pace->lock);
    uint64_t sent = pace->n_sent;
    pthread_mutex_unlock(&pace->lock);
    return sent;
}

bool fx_pace_drained(int card, uint64_t upto)
{
    struct pace *pace = &paces[card];
    pthread_mutex_lock(&pace->lock);
    while (pace->n && pace->ring[pace->first].upto <= upto)
        pop(pace);
    if (pace->open.n && pace->open.upto <= upto) {
        subtract(pace, &pace->open);
        pace->open.n = 0;
    }
    pace->done_ns = fx_now_ns();
    bool empty = pace->n_sent == upto;
    if (empty)
        pace->n_out = pace->out_ns = 0;
    publish(card, pace);
    pthread_mutex_unlock(&pace->lock);
    return empty;
}
