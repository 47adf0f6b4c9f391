/* SPDX-License-Identifier: Apache-2.0
 * Streams: a ring each; order between the legacy default stream and the blocking ones; waits; capture.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "sim.h"

static pthread_mutex_t indices = PTHREAD_MUTEX_INITIALIZER;
static bool taken[SC_MAX_RINGS];

CUresult sim_stream_open(struct sim_context *context, struct sim_stream *stream)
{
    pthread_mutex_lock(&indices);
    int index = 0;
    while (index < (int)SC_MAX_RINGS && taken[index])
        index++;
    if (index < (int)SC_MAX_RINGS)
        taken[index] = true;
    pthread_mutex_unlock(&indices);
    if (index == (int)SC_MAX_RINGS)
        return CUDA_ERROR_OUT_OF_MEMORY;
    stream->context = context;
    stream->index = index;
    stream->ring = session_ring(index);
    memset(stream->ring, 0, sizeof *stream->ring);
    pthread_mutex_init(&stream->lock, NULL);
    struct sc_reply reply;
    struct sc_request r = {.op = SC_STREAM_NEW, .a = index, .n_contexts = 1, .context = {context->id}};
    return sim_error(session_ask(&r, &reply, NULL, 0));
}

void sim_stream_close(struct sim_stream *stream)
{
    struct sc_reply reply;
    struct sc_request r = {.op = SC_STREAM_FREE, .a = stream->index};
    session_ask(&r, &reply, NULL, 0);
    pthread_mutex_lock(&indices);
    taken[stream->index] = false;
    pthread_mutex_unlock(&indices);
    if (stream->capture && stream->capture->origin == stream)
        sim_graph_free(stream->capture);
}

struct sim_stream *sim_stream(CUstream stream)
{
    struct sim_context *c = sim_current();
    if (stream && stream != CU_STREAM_LEGACY && stream != CU_STREAM_PER_THREAD)
        return stream;
    return c ? &c->legacy : NULL;
}

CUresult sim_sticky(const struct sim_stream *stream)
{
    uint32_t error = atomic_load_explicit(&stream->ring->error, memory_order_acquire);
    return error ? (CUresult)error : CUDA_SUCCESS;
}

CUresult sim_wait(int ring, uint64_t seq)
{
    const struct sm_ring *r = session_ring(ring);
    while (atomic_load_explicit(&r->completed, memory_order_acquire) < seq) {
        uint32_t error = atomic_load_explicit(&r->error, memory_order_acquire);
        if (error)
            return (CUresult)error;
        struct sc_reply reply;
        struct sc_request ask = {.op = SC_WAIT, .a = ring, .v = {seq}};
        int failed = session_ask(&ask, &reply, NULL, 0);
        if (failed)
            return sim_error(failed);
    }
    uint32_t error = atomic_load_explicit(&r->error, memory_order_acquire);
    return error ? (CUresult)error : CUDA_SUCCESS;
}

bool sim_done(int ring, uint64_t seq)
{
    const struct sm_ring *r = session_ring(ring);
    if (atomic_load_explicit(&r->completed, memory_order_acquire) >= seq)
        return true;
    struct sc_reply reply;
    struct sc_request ask = {.op = SC_POLL, .a = ring};
    return session_ask(&ask, &reply, NULL, 0) != 0 ||
           atomic_load_explicit(&r->completed, memory_order_acquire) >= seq;
}

/* One entry into the ring, under the stream's lock; waits while it is full. */
static CUresult put(struct sim_stream *s, const struct sm_entry *entry)
{
    uint64_t head = atomic_load_explicit(&s->ring->head, memory_order_relaxed);
    if (head - atomic_load_explicit(&s->ring->completed, memory_order_acquire) >= SM_RING_ENTRIES - 1) {
        CUresult error = sim_wait(s->index, head - SM_RING_ENTRIES / 2);
        if (error)
            return error;
    }
    struct sm_entry *at = &s->ring->entry[head % SM_RING_ENTRIES];
    *at = *entry;
    at->ts_ns = session_now();
    atomic_store_explicit(&s->ring->head, head + 1, memory_order_release);
    return CUDA_SUCCESS;
}

static uint64_t head_of(const struct sim_stream *s)
{
    return atomic_load_explicit(&s->ring->head, memory_order_acquire);
}

static CUresult wait_for(struct sim_stream *s, const struct sim_stream *other, uint64_t seq)
{
    struct sm_entry wait = {.op = SM_OP_WAIT, .slot = (uint32_t)other->index, .amount = seq};
    return put(s, &wait);
}

/* The legacy default stream runs after all that blocking streams were given before, and they after it. */
static CUresult order(struct sim_stream *s)
{
    struct sim_context *c = s->context;
    if (s != &c->legacy) {
        uint64_t head = head_of(&c->legacy);
        if ((s->flags & CU_STREAM_NON_BLOCKING) || head == s->seen_default)
            return CUDA_SUCCESS;
        s->seen_default = head;
        return wait_for(s, &c->legacy, head);
    }
    CUresult error = CUDA_SUCCESS;
    pthread_mutex_lock(&c->lock);
    for (struct sim_stream *each = c->streams; each && !error; each = each->next) {
        uint64_t head = head_of(each);
        if ((each->flags & CU_STREAM_NON_BLOCKING) || head == each->default_saw)
            continue;
        each->default_saw = head;
        error = wait_for(s, each, head);
    }
    pthread_mutex_unlock(&c->lock);
    return error;
}

CUresult sim_push(struct sim_stream *s, const struct sm_entry *entry, uint64_t *seq)
{
    if (!s)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (s->capture)
        return CUDA_ERROR_ILLEGAL_STATE; /* callers make a node of it */
    CUresult error = sim_sticky(s);
    if (error)
        return error;
    pthread_mutex_lock(&s->lock);
    error = order(s);
    if (!error)
        error = put(s, entry);
    if (seq)
        *seq = head_of(s);
    pthread_mutex_unlock(&s->lock);
    return error;
}

CUresult sim_drain(struct sim_stream *s)
{
    return s->capture ? CUDA_ERROR_STREAM_CAPTURE_INVALIDATED : sim_wait(s->index, head_of(s));
}

CUresult sim_drain_context(struct sim_context *c)
{
    CUresult error = sim_drain(&c->legacy);
    for (struct sim_stream *each = c->streams; each && !error; each = each->next)
        if (!each->capture)
            error = sim_drain(each);
    return error;
}

SIM_API CUresult cuStreamCreateWithPriority(CUstream *stream, unsigned flags, int priority);
SIM_API CUresult cuStreamCreateWithPriority(CUstream *stream, unsigned flags, int priority)
{
    struct sim_context *c = sim_current();
    if (!c)
        return CUDA_ERROR_INVALID_CONTEXT;
    struct sim_stream *s = calloc(1, sizeof *s);
    if (!s)
        return CUDA_ERROR_OUT_OF_MEMORY;
    s->flags = flags;
    s->priority = priority;
    CUresult error = sim_stream_open(c, s);
    if (error) {
        free(s);
        return error;
    }
    s->seen_default = 0;
    pthread_mutex_lock(&c->lock);
    s->next = c->streams;
    c->streams = s;
    pthread_mutex_unlock(&c->lock);
    *stream = s;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuStreamCreate(CUstream *stream, unsigned flags);
SIM_API CUresult cuStreamCreate(CUstream *stream, unsigned flags)
{
    return cuStreamCreateWithPriority(stream, flags, 0);
}

SIM_API CUresult cuStreamDestroy_v2(CUstream stream);
SIM_API CUresult cuStreamDestroy_v2(CUstream stream)
{
    if (!stream || stream == CU_STREAM_LEGACY || stream == CU_STREAM_PER_THREAD)
        return CUDA_ERROR_INVALID_HANDLE;
    struct sim_context *c = stream->context;
    CUresult error = stream->capture ? CUDA_SUCCESS : sim_drain(stream);
    pthread_mutex_lock(&c->lock);
    for (struct sim_stream **at = &c->streams; *at; at = &(*at)->next)
        if (*at == stream) {
            *at = stream->next;
            break;
        }
    pthread_mutex_unlock(&c->lock);
    sim_stream_close(stream);
    free(stream);
    return error;
}

SIM_API CUresult cuStreamSynchronize(CUstream stream);
SIM_API CUresult cuStreamSynchronize(CUstream stream)
{
    struct sim_stream *s = sim_stream(stream);
    if (!s)
        return CUDA_ERROR_INVALID_CONTEXT;
    CUresult error = s == &s->context->legacy ? sim_drain_context(s->context) : sim_drain(s);
    sim_pools_settle();
    return error;
}

SIM_API CUresult cuStreamQuery(CUstream stream);
SIM_API CUresult cuStreamQuery(CUstream stream)
{
    struct sim_stream *s = sim_stream(stream);
    if (!s)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (!sim_done(s->index, head_of(s)))
        return sim_sticky(s) ? sim_sticky(s) : CUDA_ERROR_NOT_READY;
    return sim_sticky(s);
}

SIM_API CUresult cuStreamGetFlags(CUstream stream, unsigned *flags);
SIM_API CUresult cuStreamGetFlags(CUstream stream, unsigned *flags)
{
    struct sim_stream *s = sim_stream(stream);
    if (!s)
        return CUDA_ERROR_INVALID_CONTEXT;
    *flags = s->flags;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuStreamGetPriority(CUstream stream, int *priority);
SIM_API CUresult cuStreamGetPriority(CUstream stream, int *priority)
{
    struct sim_stream *s = sim_stream(stream);
    if (!s)
        return CUDA_ERROR_INVALID_CONTEXT;
    *priority = s->priority;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuStreamGetId(CUstream stream, unsigned long long *id);
SIM_API CUresult cuStreamGetId(CUstream stream, unsigned long long *id)
{
    struct sim_stream *s = sim_stream(stream);
    if (!s)
        return CUDA_ERROR_INVALID_CONTEXT;
    *id = (unsigned long long)s->index + 1;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuStreamGetCtx(CUstream stream, CUcontext *context);
SIM_API CUresult cuStreamGetCtx(CUstream stream, CUcontext *context)
{
    struct sim_stream *s = sim_stream(stream);
    if (!s)
        return CUDA_ERROR_INVALID_CONTEXT;
    *context = s->context;
    return CUDA_SUCCESS;
}

/* Capture: what is pushed goes into the graph. */
SIM_API CUresult cuStreamBeginCapture_v2(CUstream stream, int mode);
SIM_API CUresult cuStreamBeginCapture_v2(CUstream stream, int mode)
{
    (void)mode;
    struct sim_stream *s = sim_stream(stream);
    if (!s || s == &s->context->legacy || s->capture)
        return CUDA_ERROR_ILLEGAL_STATE;
    s->capture = sim_graph_new();
    if (s->capture)
        s->capture->origin = s;
    return s->capture ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

SIM_API CUresult cuStreamEndCapture(CUstream stream, CUgraph *graph);
SIM_API CUresult cuStreamEndCapture(CUstream stream, CUgraph *graph)
{
    struct sim_stream *s = sim_stream(stream);
    if (!s || !s->capture)
        return CUDA_ERROR_ILLEGAL_STATE;
    if (s->capture->origin != s)
        return 903; /* CUDA_ERROR_STREAM_CAPTURE_UNMATCHED */
    struct sim_graph *captured = s->capture;
    pthread_mutex_lock(&s->context->lock);
    for (struct sim_stream *each = s->context->streams; each; each = each->next)
        if (each->capture == captured) /* streams that joined by an event */
            each->capture = NULL;
    pthread_mutex_unlock(&s->context->lock);
    captured->origin = NULL;
    if (s->invalidated) {
        s->invalidated = false;
        sim_graph_free(captured);
        *graph = NULL;
        return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    }
    *graph = captured;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuStreamIsCapturing(CUstream stream, int *status);
SIM_API CUresult cuStreamIsCapturing(CUstream stream, int *status)
{
    struct sim_stream *s = sim_stream(stream);
    if (!s)
        return CUDA_ERROR_INVALID_CONTEXT;
    *status = s->capture ? 1 : 0;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuStreamGetCaptureInfo_v2(CUstream stream, int *status, unsigned long long *id, CUgraph *graph,
                                           const CUgraphNode **dependencies, size_t *n);
SIM_API CUresult cuStreamGetCaptureInfo_v2(CUstream stream, int *status, unsigned long long *id, CUgraph *graph,
                                           const CUgraphNode **dependencies, size_t *n)
{
    struct sim_stream *s = sim_stream(stream);
    if (!s || !status)
        return CUDA_ERROR_INVALID_VALUE;
    *status = s->capture ? 1 : 0;
    if (s->capture && id)
        *id = s->capture->id;
    if (s->capture && graph)
        *graph = s->capture;
    if (dependencies)
        *dependencies = NULL;
    if (n)
        *n = 0;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuThreadExchangeStreamCaptureMode(int *mode);
SIM_API CUresult cuThreadExchangeStreamCaptureMode(int *mode)
{
    static __thread int current;
    int before = current;
    current = *mode;
    *mode = before;
    return CUDA_SUCCESS;
}
