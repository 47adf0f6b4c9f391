/* SPDX-License-Identifier: Apache-2.0
 * Kernels take time and compute nothing: flexai_work as long as asked, a spin until its peer
 * lets it go (spin.c), others 10 us.
 */
#include <stdlib.h>
#include <string.h>
#include "sim.h"

#define OTHER_KERNEL_NS 10000

/* CUlaunchConfig (11.8) */
struct launch_config {
    unsigned grid[3], block[3], shared_bytes;
    CUstream stream;
    void *attributes;
    unsigned n_attributes;
};

static uint64_t duration_of(const struct sim_function *f, void **parameters, void **extra)
{
    if (!f->is_work)
        return OTHER_KERNEL_NS;
    uint64_t iterations = 0;
    if (parameters)
        memcpy(&iterations, parameters[0], sizeof iterations);
    else if (extra && extra[0] == (void *)1) /* CU_LAUNCH_PARAM_BUFFER_POINTER */
        memcpy(&iterations, extra[1], sizeof iterations);
    return iterations;
}

static CUresult launch(CUfunction f, CUstream stream, void **parameters, void **extra)
{
    struct sim_stream *s = sim_stream(stream);
    if (!f)
        return CUDA_ERROR_INVALID_HANDLE;
    if (f->is_spin)
        return s && s->capture ? CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED : sim_spin(s, parameters);
    if (s && s->capture)
        return sim_graph_add(s->capture, &(struct sim_node){.type = SIM_KERNEL, .kernel_ns = duration_of(f, parameters, extra)},
                             NULL);
    struct sm_entry work = {.op = SM_OP_WORK, .amount = duration_of(f, parameters, extra), .n_kernels = 1};
    return sim_push(s, &work, NULL);
}

SIM_API CUresult cuLaunchKernel(CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                                unsigned bz, unsigned shared, CUstream stream, void **parameters, void **extra);
SIM_API CUresult cuLaunchKernel(CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                                unsigned bz, unsigned shared, CUstream stream, void **parameters, void **extra)
{
    (void)shared;
    if (!gx || !gy || !gz || !bx || !by || !bz || bx * by * bz > 1024)
        return CUDA_ERROR_INVALID_VALUE;
    return launch(f, stream, parameters, extra);
}

SIM_API CUresult cuLaunchKernelEx(const struct launch_config *config, CUfunction f, void **parameters, void **extra);
SIM_API CUresult cuLaunchKernelEx(const struct launch_config *config, CUfunction f, void **parameters, void **extra)
{
    return config ? launch(f, config->stream, parameters, extra) : CUDA_ERROR_INVALID_VALUE;
}

SIM_API CUresult cuLaunchCooperativeKernel(CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                                           unsigned bz, unsigned shared, CUstream stream, void **parameters);
SIM_API CUresult cuLaunchCooperativeKernel(CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                                           unsigned bz, unsigned shared, CUstream stream, void **parameters)
{
    return cuLaunchKernel(f, gx, gy, gz, bx, by, bz, shared, stream, parameters, NULL);
}

/* The function runs on a thread of ours when the stream gets there. */
struct host_call {
    struct sim_stream *stream;
    void (*function)(void *);
    void *data;
    uint64_t seq;
};

static void *run_host(void *argument)
{
    struct host_call *call = argument;
    if (sim_wait(call->stream->index, call->seq - 1) == CUDA_SUCCESS)
        call->function(call->data);
    atomic_store_explicit(&call->stream->ring->host_done, call->seq, memory_order_release);
    sim_done(call->stream->index, call->seq);
    free(call);
    return NULL;
}

SIM_API CUresult cuLaunchHostFunc(CUstream stream, void (*function)(void *), void *data);
SIM_API CUresult cuLaunchHostFunc(CUstream stream, void (*function)(void *), void *data)
{
    struct sim_stream *s = sim_stream(stream);
    if (!s || !function)
        return CUDA_ERROR_INVALID_VALUE;
    if (s->capture)
        return sim_graph_add(s->capture, &(struct sim_node){.type = SIM_HOST, .function = function, .data = data}, NULL);
    return sim_host(s, function, data);
}

CUresult sim_host(struct sim_stream *s, void (*function)(void *), void *data)
{
    struct host_call *call = malloc(sizeof *call);
    if (!call)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *call = (struct host_call){s, function, data, 0};
    struct sm_entry host = {.op = SM_OP_HOST};
    CUresult error = sim_push(s, &host, &call->seq);
    pthread_t thread;
    if (!error && pthread_create(&thread, NULL, run_host, call) == 0) {
        pthread_detach(thread);
        return CUDA_SUCCESS;
    }
    free(call);
    return error ? error : CUDA_ERROR_OUT_OF_MEMORY;
}
