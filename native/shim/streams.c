/* SPDX-License-Identifier: Apache-2.0 */
#include "glibc.h"
#include "streams.h"

#include <pthread.h>

#include "gate.h"
#include "table.h"

uint64_t fx_stream_memo[FX_N_STREAMS];

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct stream {
    CUstream stream;
    CUcontext context;
    int card;
    bool per_thread, used;
} streams[FX_N_STREAMS];

/* The legacy default stream is another in each context: it is waited for in all of them. */
static bool default_used;

#define N_REST 1024

/* Events at rest, by context: an event belongs to the context it was made in. */
static struct rest {
    CUevent event;
    CUcontext context;
} rest[N_REST];

void fx_streams_forget(void)
{
    pthread_mutex_t fresh = PTHREAD_MUTEX_INITIALIZER;
    lock = fresh;
    for (int i = 0; i < FX_N_STREAMS; i++) {
        streams[i].used = false;
        fx_stream_memo[i] = 0;
    }
    for (int i = 0; i < N_REST; i++)
        rest[i].event = NULL;
    default_used = false;
}

static void remember(uint64_t key)
{
    __atomic_store_n(&fx_stream_memo[fx_stream_home(key)], key + 1, __ATOMIC_RELAXED);
}

static void cannot_drain(void)
{
    __atomic_and_fetch(&fx_gates.slot->flags, ~(uint32_t)FX_SLOT_DRAINS, __ATOMIC_SEQ_CST);
}

/* A context that was made in a way we do not see (for graphics) is known from its first launch on. */
static void know_context(void)
{
    CUcontext context = NULL;
    int card = fx_current_card();
    if (card < 0 || FX_REAL(cuCtxGetCurrent, CUresult (*)(CUcontext *))(&context) != CUDA_SUCCESS || !context)
        return;
    fx_table_lock();
    if (!fx_table_get(FX_KIND_CONTEXT, (uint64_t)context))
        fx_table_put(FX_KIND_CONTEXT, (uint64_t)context, card, 0);
    fx_table_unlock();
}

void fx_stream_note(CUstream stream, bool per_thread)
{
    uint64_t key = (uint64_t)stream << 1 | per_thread;
    if (__atomic_load_n(&fx_stream_memo[fx_stream_home(key)], __ATOMIC_RELAXED) == key + 1)
        return;
    if ((uint64_t)stream <= 2) {
        if ((uint64_t)stream == 2 || (per_thread && !stream))
            cannot_drain(); /* a thread's own default stream: no other thread can name it */
        else
            default_used = true;
        know_context();
        remember(key);
        return;
    }
    CUcontext context = NULL;
    if (FX_REAL(cuCtxGetCurrent, CUresult (*)(CUcontext *))(&context) != CUDA_SUCCESS || !context)
        return;
    pthread_mutex_lock(&lock);
    struct stream *at = NULL;
    for (int i = 0; i < FX_N_STREAMS; i++) {
        struct stream *other = &streams[i];
        if (other->used && other->stream == stream && other->per_thread == per_thread) {
            at = other;
            break;
        }
        if (!other->used && !at)
            at = other;
    }
    if (at)
        *at = (struct stream){stream, context, fx_current_card(), per_thread, true};
    else
        cannot_drain(); /* more streams than we follow */
    remember(key);
    pthread_mutex_unlock(&lock);
}

void fx_stream_forget(CUstream stream)
{
    pthread_mutex_lock(&lock);
    for (int i = 0; i < FX_N_STREAMS; i++)
        if (streams[i].used && streams[i].stream == stream)
            streams[i].used = false;
    for (int bit = 0; bit < 2; bit++) {
        uint64_t key = (uint64_t)stream << 1 | (uint64_t)bit;
        if (fx_stream_memo[fx_stream_home(key)] == key + 1)
            fx_stream_memo[fx_stream_home(key)] = 0;
    }
    pthread_mutex_unlock(&lock);
}

/* An event of the current context. The lock is held. */
static CUevent take_event(CUcontext context)
{
    for (int i = 0; i < N_REST; i++)
        if (rest[i].event && rest[i].context == context) {
            CUevent event = rest[i].event;
            rest[i].event = NULL;
            return event;
        }
    CUevent event = NULL;
    if (FX_REAL(cuEventCreate, CUresult (*)(CUevent *, unsigned))(
            &event, CU_EVENT_BLOCKING_SYNC | CU_EVENT_DISABLE_TIMING) != CUDA_SUCCESS)
        return NULL;
    return event;
}

static void rest_event(CUevent event, CUcontext context)
{
    for (int i = 0; i < N_REST; i++)
        if (!rest[i].event) {
            rest[i] = (struct rest){event, context};
            return;
        }
    FX_REAL(cuEventDestroy_v2, CUresult (*)(CUevent))(event);
}

/* Record an event behind what is queued; never in a stream that is being captured. The lock is held. */
static bool record(struct fx_mark *mark, CUstream stream, bool per_thread, CUcontext context)
{
    int capturing = 0;
    CUresult rc = (per_thread ? FX_REAL(cuStreamIsCapturing_ptsz, CUresult (*)(CUstream, int *))
                              : FX_REAL(cuStreamIsCapturing, CUresult (*)(CUstream, int *)))(stream, &capturing);
    if (rc != CUDA_SUCCESS || capturing)
        return false;
    CUevent event = take_event(context);
    if (!event)
        return false;
    rc = (per_thread ? FX_REAL(cuEventRecord_ptsz, CUresult (*)(CUevent, CUstream))
                     : FX_REAL(cuEventRecord, CUresult (*)(CUevent, CUstream)))(event, stream);
    if (rc != CUDA_SUCCESS) {
        rest_event(event, context);
        return false;
    }
    mark->event = event;
    mark->context = context;
    return true;
}

bool fx_mark_record(struct fx_mark *mark, CUstream stream, bool per_thread)
{
    CUcontext context = NULL;
    if (FX_REAL(cuCtxGetCurrent, CUresult (*)(CUcontext *))(&context) != CUDA_SUCCESS || !context)
        return false;
    pthread_mutex_lock(&lock);
    bool recorded = record(mark, stream, per_thread, context);
    pthread_mutex_unlock(&lock);
    return recorded;
}

bool fx_mark_done(const struct fx_mark *mark)
{
    return FX_REAL(cuEventQuery, CUresult (*)(CUevent))(mark->event) == CUDA_SUCCESS;
}

bool fx_mark_wait(const struct fx_mark *mark)
{
    return FX_REAL(cuEventSynchronize, CUresult (*)(CUevent))(mark->event) == CUDA_SUCCESS;
}

void fx_mark_free(struct fx_mark *mark)
{
    pthread_mutex_lock(&lock);
    rest_event(mark->event, mark->context);
    pthread_mutex_unlock(&lock);
}

/* Record in one stream of a context, from our own thread. False: its context is gone. */
static bool record_in(struct fx_mark *marks, int *n, CUstream stream, bool per_thread, CUcontext context, bool *all)
{
    CUcontext popped;
    if (FX_REAL(cuCtxPushCurrent_v2, CUresult (*)(CUcontext))(context) != CUDA_SUCCESS)
        return false;
    if (record(&marks[*n], stream, per_thread, context))
        ++*n;
    else
        *all = false;
    FX_REAL(cuCtxPopCurrent_v2, CUresult (*)(CUcontext *))(&popped);
    return true;
}

#define N_CONTEXTS 16

bool fx_streams_wait(int card)
{
    struct fx_mark marks[FX_N_STREAMS + N_CONTEXTS];
    CUcontext contexts[N_CONTEXTS];
    int n = 0, n_contexts = 0;
    bool all = true;
    if (default_used) {
        struct fx_entry *entry;
        uint64_t position = 0;
        fx_table_lock();
        while (n_contexts < N_CONTEXTS && (entry = fx_table_next(FX_KIND_CONTEXT, &position)))
            if (entry->card == card)
                contexts[n_contexts++] = (CUcontext)entry->key;
        fx_table_unlock();
    }
    pthread_mutex_lock(&lock);
    for (int i = 0; i < n_contexts; i++)
        record_in(marks, &n, NULL, false, contexts[i], &all);
    for (int i = 0; i < FX_N_STREAMS; i++)
        if (streams[i].used && streams[i].card == card &&
            !record_in(marks, &n, streams[i].stream, streams[i].per_thread, streams[i].context, &all)) {
            uint64_t key = (uint64_t)streams[i].stream << 1 | streams[i].per_thread;
            streams[i].used = false;
            fx_stream_memo[fx_stream_home(key)] = 0;
        }
    pthread_mutex_unlock(&lock);
    for (int i = 0; i < n; i++) {
        all &= fx_mark_wait(&marks[i]);
        fx_mark_free(&marks[i]);
    }
    return all;
}
