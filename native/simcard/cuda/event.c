/* SPDX-License-Identifier: Apache-2.0
 * Events: a slot in the region that the card writes its time to.
 */
#include <stdlib.h>
#include "sim.h"

static pthread_mutex_t slots = PTHREAD_MUTEX_INITIALIZER;
static unsigned char used[SM_EVENT_SLOTS];
static unsigned next_slot;

SIM_API CUresult cuEventCreate(CUevent *event, unsigned flags);
SIM_API CUresult cuEventCreate(CUevent *event, unsigned flags)
{
    if (!sim_current())
        return CUDA_ERROR_INVALID_CONTEXT;
    struct sim_event *e = calloc(1, sizeof *e);
    if (!e)
        return CUDA_ERROR_OUT_OF_MEMORY;
    pthread_mutex_lock(&slots);
    unsigned n = 0;
    while (n < SM_EVENT_SLOTS && used[next_slot % SM_EVENT_SLOTS]) {
        next_slot++;
        n++;
    }
    bool found = n < SM_EVENT_SLOTS;
    if (found) {
        e->slot = next_slot++ % SM_EVENT_SLOTS;
        used[e->slot] = 1;
    }
    pthread_mutex_unlock(&slots);
    if (!found) {
        free(e);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    /* Values go on where the slot's last owner left them: a late record of its cannot be taken for ours. */
    e->value = 0;
    e->flags = flags;
    *event = e;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuEventDestroy_v2(CUevent event);
SIM_API CUresult cuEventDestroy_v2(CUevent event)
{
    if (!event)
        return CUDA_ERROR_INVALID_HANDLE;
    pthread_mutex_lock(&slots);
    used[event->slot] = 0;
    pthread_mutex_unlock(&slots);
    free(event);
    return CUDA_SUCCESS;
}

SIM_API CUresult cuEventRecordWithFlags(CUevent event, CUstream stream, unsigned flags);
SIM_API CUresult cuEventRecordWithFlags(CUevent event, CUstream stream, unsigned flags)
{
    (void)flags;
    struct sim_stream *s = sim_stream(stream);
    if (!event || !s)
        return CUDA_ERROR_INVALID_HANDLE;
    if (s->capture) {
        event->captured = s->capture->id;
        return CUDA_SUCCESS; /* nothing to run: a graph runs in the order in which it was captured */
    }
    static _Atomic uint64_t values;
    event->captured = 0;
    event->value = ++values;
    event->ring = s->index;
    struct sm_entry record = {.op = SM_OP_RECORD, .slot = event->slot, .value = event->value};
    return sim_push(s, &record, &event->seq);
}

SIM_API CUresult cuEventRecord(CUevent event, CUstream stream);
SIM_API CUresult cuEventRecord(CUevent event, CUstream stream)
{
    return cuEventRecordWithFlags(event, stream, 0);
}

/* The card has written this record's time: so it is done, though its stream be gone and its ring another's. */
static bool recorded(const struct sim_event *event)
{
    return atomic_load_explicit(&sim_session()->events[event->slot].value, memory_order_acquire) == event->value;
}

SIM_API CUresult cuEventQuery(CUevent event);
SIM_API CUresult cuEventQuery(CUevent event)
{
    if (!event)
        return CUDA_ERROR_INVALID_HANDLE;
    return !event->value || recorded(event) || sim_done(event->ring, event->seq) ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
}

SIM_API CUresult cuEventSynchronize(CUevent event);
SIM_API CUresult cuEventSynchronize(CUevent event)
{
    if (!event)
        return CUDA_ERROR_INVALID_HANDLE;
    CUresult error = event->value && !recorded(event) ? sim_wait(event->ring, event->seq) : CUDA_SUCCESS;
    sim_pools_settle();
    return error;
}

SIM_API CUresult cuEventElapsedTime_v2(float *ms, CUevent start, CUevent end);
SIM_API CUresult cuEventElapsedTime_v2(float *ms, CUevent start, CUevent end)
{
    if (!start || !end || !start->value || !end->value)
        return CUDA_ERROR_INVALID_HANDLE;
    if (cuEventQuery(start) || cuEventQuery(end))
        return CUDA_ERROR_NOT_READY;
    struct sm_event_slot *slot = sim_session()->events;
    uint64_t a = atomic_load(&slot[start->slot].done_ns), b = atomic_load(&slot[end->slot].done_ns);
    *ms = (float)((double)b - (double)a) / 1e6f;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuEventElapsedTime(float *ms, CUevent start, CUevent end);
SIM_API CUresult cuEventElapsedTime(float *ms, CUevent start, CUevent end)
{
    return cuEventElapsedTime_v2(ms, start, end);
}

SIM_API CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned flags);
SIM_API CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned flags)
{
    (void)flags;
    struct sim_stream *s = sim_stream(stream);
    if (!s || !event)
        return CUDA_ERROR_INVALID_HANDLE;
    if (event->captured && !s->capture) {
        pthread_mutex_lock(&s->context->lock);
        for (struct sim_stream *each = s->context->streams; each; each = each->next)
            if (each->capture && each->capture->id == event->captured)
                s->capture = each->capture; /* it joins the capture */
        pthread_mutex_unlock(&s->context->lock);
        return s->capture ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
    }
    if (!event->value || s->capture || recorded(event))
        return CUDA_SUCCESS;
    struct sm_entry wait = {.op = SM_OP_WAIT, .slot = (uint32_t)event->ring, .amount = event->seq};
    return sim_push(s, &wait, NULL);
}
