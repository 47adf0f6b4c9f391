/* SPDX-License-Identifier: Apache-2.0 */
#include "glibc.h"
#include "streams.h"

#include <pthread.h>

#include "gate.h"

uint64_t fx_stream_memo[FX_N_STREAMS];

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct stream {
    CUstream stream;
    CUcontext context;
    int card;
    bool per_thread, used;
} streams[FX_N_STREAMS];

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
}

void fx_stream_note(CUstream stream, bool per_thread)
{
    uint64_t key = (uint64_t)stream << 1 | per_thread;
    uint32_t home = fx_stream_home(key);
    /* The default streams (NULL, 1, 2) are others in each context: with several cards they are looked up each time. */
    bool memo = fx.n_cards == 1 || (uint64_t)stream > 2;
    if (memo && __atomic_load_n(&fx_stream_memo[home], __ATOMIC_RELAXED) == key + 1)
        return;
    CUcontext context = NULL;
    if (FX_REAL(cuCtxGetCurrent, CUresult (*)(CUcontext *))(&context) != CUDA_SUCCESS || !context)
        return;
    pthread_mutex_lock(&lock);
    struct stream *at = NULL;
    for (int i = 0; i < FX_N_STREAMS; i++) {
        struct stream *other = &streams[i];
        if (other->used && other->stream == stream && other->per_thread == per_thread && other->context == context) {
            at = other;
            break;
        }
        if (!other->used && !at)
            at = other;
    }
    if (at) {
        *at = (struct stream){stream, context, fx_current_card(), per_thread, true};
        if (memo)
            __atomic_store_n(&fx_stream_memo[home], key + 1, __ATOMIC_RELAXED);
    }
    /* More streams than we follow, or a thread's own default stream, which no other thread can name: nobody may rely on
     * our drains. */
    if (!at || (uint64_t)stream == 2 || (per_thread && !stream))
        __atomic_and_fetch(&fx_gates.slot->flags, ~(uint32_t)FX_SLOT_DRAINS, __ATOMIC_SEQ_CST);
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

bool fx_streams_wait(int card)
{
    struct fx_mark marks[FX_N_STREAMS];
    int n = 0;
    bool all = true;
    CUcontext popped;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < FX_N_STREAMS; i++) {
        if (!streams[i].used || streams[i].card != card)
            continue;
        if (FX_REAL(cuCtxPushCurrent_v2, CUresult (*)(CUcontext))(streams[i].context) != CUDA_SUCCESS) {
            streams[i].used = false; /* its context is gone */
            fx_stream_memo[fx_stream_home((uint64_t)streams[i].stream << 1 | streams[i].per_thread)] = 0;
            continue;
        }
        if (record(&marks[n], streams[i].stream, streams[i].per_thread, streams[i].context))
            n++;
        else
            all = false;
        FX_REAL(cuCtxPopCurrent_v2, CUresult (*)(CUcontext *))(&popped);
    }
    pthread_mutex_unlock(&lock);
    for (int i = 0; i < n; i++) {
        all &= fx_mark_wait(&marks[i]);
        fx_mark_free(&marks[i]);
    }
    return all;
}
