/* SPDX-License-Identifier: Apache-2.0
 * Contexts: a stack per thread, one primary context per device with its count of retains.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "sim.h"

#define DEPTH 32
static __thread struct { struct sim_context *at[DEPTH]; int n; } stack;
static pthread_mutex_t primaries = PTHREAD_MUTEX_INITIALIZER;
static struct sim_context *primary[SIM_MAX_CARDS];
static unsigned primary_flags[SIM_MAX_CARDS];
static struct sim_context *all;

struct sim_context *sim_current(void)
{
    return stack.n ? stack.at[stack.n - 1] : NULL;
}

/* CUlimit: stack of a thread, printf's buffer, malloc's heap, depth of synchronisation, pending launches, L2 fetch */
enum { STACK = 0, PRINTF = 1, HEAP = 2 };
static uint64_t default_limit(int limit)
{
    static const uint64_t DEFAULTS[SIM_N_LIMITS] = {1024, 1048576, 8388608, 2, 2048, 128};
    return DEFAULTS[limit];
}

static CUresult make(int ordinal, unsigned flags, bool is_primary, struct sim_context **out)
{
    const struct session *s = sim_session();
    if (!s)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (ordinal < 0 || ordinal >= s->n_visible)
        return CUDA_ERROR_INVALID_DEVICE;
    struct sim_context *c = calloc(1, sizeof *c);
    if (!c)
        return CUDA_ERROR_OUT_OF_MEMORY;
    struct sc_reply reply;
    struct sc_request r = {.op = SC_CTX_NEW, .a = s->visible[ordinal]};
    int error = session_ask(&r, &reply, NULL, 0);
    if (error) {
        free(c);
        return sim_error(error);
    }
    c->ordinal = ordinal;
    c->card = s->visible[ordinal];
    usleep((useconds_t)(s->card[c->card].context_ns / 1000));
    c->flags = flags;
    c->id = (uint32_t)reply.v;
    c->primary = is_primary;
    for (int i = 0; i < SIM_N_LIMITS; i++)
        c->limit[i] = default_limit(i);
    pthread_mutex_init(&c->lock, NULL);
    CUresult result = sim_stream_open(c, &c->legacy);
    if (result) {
        free(c);
        return result;
    }
    c->next = all;
    all = c;
    *out = c;
    return CUDA_SUCCESS;
}

static void destroy(struct sim_context *c)
{
    sim_drain_context(c);
    sim_memory_forget(c);
    sim_modules_forget(c);
    sim_arrays_forget(c);
    for (int i = 0; i < SIM_N_LIMITS; i++)
        if (c->limit_bytes[i])
            sim_give(c->card, c->limit_bytes[i]);
    struct sc_reply reply;
    struct sc_request r = {.op = SC_CTX_FREE, .n_contexts = 1, .context = {c->id}};
    while (c->streams) {
        struct sim_stream *gone = c->streams;
        c->streams = gone->next;
        sim_stream_close(gone);
        free(gone);
    }
    sim_stream_close(&c->legacy);
    session_ask(&r, &reply, NULL, 0);
    for (int i = 0; i < stack.n; i++)
        if (stack.at[i] == c)
            stack.at[i] = NULL;
    while (stack.n && !stack.at[stack.n - 1])
        stack.n--;
    for (struct sim_context **at = &all; *at; at = &(*at)->next)
        if (*at == c) {
            *at = c->next;
            break;
        }
    free(c);
}

static bool is_context(const struct sim_context *c)
{
    for (struct sim_context *each = all; each; each = each->next)
        if (each == c)
            return true;
    return false;
}

static CUresult push(struct sim_context *c)
{
    if (stack.n == DEPTH)
        return CUDA_ERROR_OUT_OF_MEMORY;
    stack.at[stack.n++] = c;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device);
SIM_API CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device)
{
    const struct session *s = sim_session();
    if (!s)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (device < 0 || device >= s->n_visible)
        return CUDA_ERROR_INVALID_DEVICE;
    pthread_mutex_lock(&primaries);
    CUresult result = CUDA_SUCCESS;
    if (!primary[device])
        result = make(device, primary_flags[device], true, &primary[device]);
    if (!result) {
        primary[device]->n_retained++;
        *context = primary[device];
    }
    pthread_mutex_unlock(&primaries);
    return result;
}

static CUresult release(CUdevice device, bool reset)
{
    if (!sim_session())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (device < 0 || device >= SIM_MAX_CARDS)
        return CUDA_ERROR_INVALID_DEVICE;
    pthread_mutex_lock(&primaries);
    struct sim_context *c = primary[device];
    CUresult result = c || reset ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
    if (c && (reset || --c->n_retained == 0)) {
        destroy(c);
        primary[device] = NULL;
    }
    pthread_mutex_unlock(&primaries);
    return result;
}

SIM_API CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device);
SIM_API CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device)
{
    return release(device, false);
}

SIM_API CUresult cuDevicePrimaryCtxReset_v2(CUdevice device);
SIM_API CUresult cuDevicePrimaryCtxReset_v2(CUdevice device)
{
    return release(device, true);
}

SIM_API CUresult cuDevicePrimaryCtxSetFlags_v2(CUdevice device, unsigned flags);
SIM_API CUresult cuDevicePrimaryCtxSetFlags_v2(CUdevice device, unsigned flags)
{
    if (device < 0 || device >= SIM_MAX_CARDS)
        return CUDA_ERROR_INVALID_DEVICE;
    primary_flags[device] = flags;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned *flags, int *active);
SIM_API CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned *flags, int *active)
{
    if (device < 0 || device >= SIM_MAX_CARDS)
        return CUDA_ERROR_INVALID_DEVICE;
    *flags = primary_flags[device];
    *active = primary[device] != NULL;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuCtxCreate_v2(CUcontext *context, unsigned flags, CUdevice device);
SIM_API CUresult cuCtxCreate_v2(CUcontext *context, unsigned flags, CUdevice device)
{
    pthread_mutex_lock(&primaries);
    CUresult result = make(device, flags, false, context);
    pthread_mutex_unlock(&primaries);
    return result ? result : push(*context);
}

SIM_API CUresult cuCtxCreate_v4(CUcontext *context, void *parameters, unsigned flags, CUdevice device);
SIM_API CUresult cuCtxCreate_v4(CUcontext *context, void *parameters, unsigned flags, CUdevice device)
{
    return parameters ? CUDA_ERROR_NOT_SUPPORTED : cuCtxCreate_v2(context, flags, device);
}

SIM_API CUresult cuCtxDestroy_v2(CUcontext context);
SIM_API CUresult cuCtxDestroy_v2(CUcontext context)
{
    pthread_mutex_lock(&primaries);
    CUresult result = is_context(context) && !context->primary ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
    if (!result)
        destroy(context);
    pthread_mutex_unlock(&primaries);
    return result;
}

SIM_API CUresult cuCtxPushCurrent_v2(CUcontext context);
SIM_API CUresult cuCtxPushCurrent_v2(CUcontext context)
{
    return is_context(context) ? push(context) : CUDA_ERROR_INVALID_CONTEXT;
}

SIM_API CUresult cuCtxPopCurrent_v2(CUcontext *context);
SIM_API CUresult cuCtxPopCurrent_v2(CUcontext *context)
{
    if (!stack.n)
        return CUDA_ERROR_INVALID_CONTEXT;
    struct sim_context *top = stack.at[--stack.n];
    if (context)
        *context = top;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuCtxSetCurrent(CUcontext context);
SIM_API CUresult cuCtxSetCurrent(CUcontext context)
{
    if (context && !is_context(context))
        return CUDA_ERROR_INVALID_CONTEXT;
    if (stack.n)
        stack.n--;
    return context ? push(context) : CUDA_SUCCESS;
}

SIM_API CUresult cuCtxGetCurrent(CUcontext *context);
SIM_API CUresult cuCtxGetCurrent(CUcontext *context)
{
    if (!sim_session())
        return CUDA_ERROR_NOT_INITIALIZED;
    *context = sim_current();
    return CUDA_SUCCESS;
}

SIM_API CUresult cuCtxGetDevice(CUdevice *device);
SIM_API CUresult cuCtxGetDevice(CUdevice *device)
{
    struct sim_context *c = sim_current();
    if (!c)
        return CUDA_ERROR_INVALID_CONTEXT;
    *device = c->ordinal;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuCtxGetFlags(unsigned *flags);
SIM_API CUresult cuCtxGetFlags(unsigned *flags)
{
    struct sim_context *c = sim_current();
    if (!c)
        return CUDA_ERROR_INVALID_CONTEXT;
    *flags = c->flags;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuCtxGetId(CUcontext context, unsigned long long *id);
SIM_API CUresult cuCtxGetId(CUcontext context, unsigned long long *id)
{
    struct sim_context *c = context ? context : sim_current();
    if (!is_context(c))
        return CUDA_ERROR_INVALID_CONTEXT;
    *id = c->id;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuCtxGetApiVersion(CUcontext context, unsigned *version);
SIM_API CUresult cuCtxGetApiVersion(CUcontext context, unsigned *version)
{
    (void)context;
    *version = 3020;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuCtxSynchronize(void);
SIM_API CUresult cuCtxSynchronize(void)
{
    struct sim_context *c = sim_current();
    if (!c)
        return CUDA_ERROR_INVALID_CONTEXT;
    bool capturing = false;
    pthread_mutex_lock(&c->lock);
    for (struct sim_stream *each = c->streams; each; each = each->next)
        if (each->capture) { /* who waits for a capture spoils it */
            each->capture->origin->invalidated = true;
            capturing = true;
        }
    pthread_mutex_unlock(&c->lock);
    if (capturing)
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    CUresult error = sim_drain_context(c);
    sim_pools_settle();
    return error;
}

SIM_API CUresult cuCtxGetStreamPriorityRange(int *least, int *greatest);
SIM_API CUresult cuCtxGetStreamPriorityRange(int *least, int *greatest)
{
    if (least)
        *least = 0;
    if (greatest)
        *greatest = -5;
    return CUDA_SUCCESS;
}

/* What a limit takes beyond its default, which the context's own bytes have in them: stacks for as many threads as fit on
 * the card at once, the others as they are. Taken when it is set; a real card waits for the first kernel. */
static uint64_t limit_takes(const struct sim_context *c, int limit, uint64_t value)
{
    uint64_t more = value > default_limit(limit) ? value - default_limit(limit) : 0;
    uint64_t threads = (uint64_t)sim_session()->card[c->card].n_multiprocessors * 2048;
    return limit == STACK ? more * threads : limit == PRINTF || limit == HEAP ? more : 0;
}

SIM_API CUresult cuCtxGetLimit(size_t *value, int limit);
SIM_API CUresult cuCtxGetLimit(size_t *value, int limit)
{
    struct sim_context *c = sim_current();
    if (!c || !value || limit < 0 || limit >= SIM_N_LIMITS)
        return c ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_INVALID_CONTEXT;
    *value = c->limit[limit];
    return CUDA_SUCCESS;
}

SIM_API CUresult cuCtxSetLimit(int limit, size_t value);
SIM_API CUresult cuCtxSetLimit(int limit, size_t value)
{
    struct sim_context *c = sim_current();
    if (!c || limit < 0 || limit >= SIM_N_LIMITS || (limit == STACK && value > 512 * 1024))
        return c ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_INVALID_CONTEXT;
    uint64_t takes = limit_takes(c, limit, value), held = c->limit_bytes[limit];
    CUresult error = takes > held ? sim_take(c->card, takes - held) : CUDA_SUCCESS;
    if (error)
        return error;
    if (takes < held)
        sim_give(c->card, held - takes);
    c->limit_bytes[limit] = takes;
    c->limit[limit] = value;
    return CUDA_SUCCESS;
}
