/* SPDX-License-Identifier: Apache-2.0
 * What programs call in passing and the simulated card has a plain true answer for: callbacks of streams,
 * copies between cards, and profilers that have nothing to see.
 */
#include <stdlib.h>
#include <string.h>
#include "sim.h"

struct callback {
    void (*function)(CUstream, CUresult, void *);
    CUstream stream;
    void *data;
};

static void call_back(void *argument)
{
    struct callback *c = argument;
    c->function(c->stream, CUDA_SUCCESS, c->data);
    free(c);
}

SIM_API CUresult cuStreamAddCallback(CUstream stream, void (*function)(CUstream, CUresult, void *), void *data,
                                     unsigned flags);
SIM_API CUresult cuStreamAddCallback(CUstream stream, void (*function)(CUstream, CUresult, void *), void *data,
                                     unsigned flags)
{
    struct sim_stream *s = sim_stream(stream);
    if (!s || !function || flags)
        return CUDA_ERROR_INVALID_VALUE;
    if (s->capture)
        return CUDA_ERROR_NOT_SUPPORTED;
    struct callback *c = malloc(sizeof *c);
    if (!c)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *c = (struct callback){function, stream, data};
    CUresult error = sim_host(s, call_back, c);
    if (error)
        free(c);
    return error;
}

/* One address space serves all cards: a copy between them is a copy. */
SIM_API CUresult cuMemcpyPeer(CUdeviceptr to, CUcontext to_context, CUdeviceptr from, CUcontext from_context, size_t n);
SIM_API CUresult cuMemcpyPeer(CUdeviceptr to, CUcontext to_context, CUdeviceptr from, CUcontext from_context, size_t n)
{
    (void)to_context, (void)from_context;
    return sim_copy(NULL, (void *)(uintptr_t)to, (void *)(uintptr_t)from, n, SM_COPY_D2D, true);
}

SIM_API CUresult cuMemcpyPeerAsync(CUdeviceptr to, CUcontext to_context, CUdeviceptr from, CUcontext from_context,
                                   size_t n, CUstream stream);
SIM_API CUresult cuMemcpyPeerAsync(CUdeviceptr to, CUcontext to_context, CUdeviceptr from, CUcontext from_context,
                                   size_t n, CUstream stream)
{
    (void)to_context, (void)from_context;
    return sim_copy(stream, (void *)(uintptr_t)to, (void *)(uintptr_t)from, n, SM_COPY_D2D, false);
}

SIM_API CUresult cuProfilerStart(void);
SIM_API CUresult cuProfilerStart(void)
{
    return sim_current() ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

SIM_API CUresult cuProfilerStop(void);
SIM_API CUresult cuProfilerStop(void)
{
    return sim_current() ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

SIM_API CUresult cuKernelGetName(const char **name, CUfunction kernel);
SIM_API CUresult cuKernelGetName(const char **name, CUfunction kernel)
{
    if (!name || !kernel)
        return CUDA_ERROR_INVALID_HANDLE;
    *name = kernel->name;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuLibraryGetModule(CUmodule *module, CUmodule library);
SIM_API CUresult cuLibraryGetModule(CUmodule *module, CUmodule library)
{
    if (!module || !library)
        return CUDA_ERROR_INVALID_HANDLE;
    *module = library;
    return CUDA_SUCCESS;
}
