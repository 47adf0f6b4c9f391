/* SPDX-License-Identifier: Apache-2.0
 * Copies and fills.
 */
#include <string.h>
#include "memory.h"

#define FILL_LIMIT (256ull << 20) /* of one fill, so much is really written: a simulated card has no 141 GiB of host memory */

/* The contents move when the call is made; the card's time passes where the stream gets to it. Programs that look at a
 * copy's result before they have synchronised see it early. */
CUresult sim_copy(CUstream stream, void *to, const void *from, size_t bytes, uint32_t kind, bool synchronous)
{
    struct sim_stream *s = sim_stream(stream);
    if (!s)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (s->capture)
        return sim_graph_add(
            s->capture, &(struct sim_node){.type = SIM_COPY, .to = to, .from = from, .bytes = bytes, .way = kind}, NULL);
    if (bytes)
        memmove(to, from, bytes);
    struct sm_entry copy = {.op = SM_OP_COPY, .amount = bytes, .flags = kind};
    uint64_t seq = 0;
    CUresult error = sim_push(s, &copy, &seq);
    return error || !synchronous ? error : sim_wait(s->index, seq);
}

#define P(address) ((void *)(uintptr_t)(address))

SIM_API CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void *from, size_t bytes);
SIM_API CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void *from, size_t bytes)
{
    return sim_copy(NULL, P(to), from, bytes, SM_COPY_H2D, true);
}

SIM_API CUresult cuMemcpyDtoH_v2(void *to, CUdeviceptr from, size_t bytes);
SIM_API CUresult cuMemcpyDtoH_v2(void *to, CUdeviceptr from, size_t bytes)
{
    return sim_copy(NULL, to, P(from), bytes, SM_COPY_D2H, true);
}

SIM_API CUresult cuMemcpyDtoD_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes);
SIM_API CUresult cuMemcpyDtoD_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes)
{
    return sim_copy(NULL, P(to), P(from), bytes, SM_COPY_D2D, false);
}

SIM_API CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t bytes, CUstream stream);
SIM_API CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t bytes, CUstream stream)
{
    return sim_copy(stream, P(to), from, bytes, SM_COPY_H2D, false);
}

SIM_API CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t bytes, CUstream stream);
SIM_API CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t bytes, CUstream stream)
{
    return sim_copy(stream, to, P(from), bytes, SM_COPY_D2H, false);
}

SIM_API CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream);
SIM_API CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream)
{
    return sim_copy(stream, P(to), P(from), bytes, SM_COPY_D2D, false);
}

static uint32_t direction(CUdeviceptr to, CUdeviceptr from)
{
    struct sim_block a, b;
    bool to_card = sim_find(to, &a) && a.kind != SIM_HOST_MEMORY, from_card = sim_find(from, &b) && b.kind != SIM_HOST_MEMORY;
    return to_card && from_card ? SM_COPY_D2D : to_card ? SM_COPY_H2D : SM_COPY_D2H;
}

SIM_API CUresult cuMemcpy(CUdeviceptr to, CUdeviceptr from, size_t bytes);
SIM_API CUresult cuMemcpy(CUdeviceptr to, CUdeviceptr from, size_t bytes)
{
    return sim_copy(NULL, P(to), P(from), bytes, direction(to, from), true);
}

SIM_API CUresult cuMemcpyAsync(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream);
SIM_API CUresult cuMemcpyAsync(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream)
{
    return sim_copy(stream, P(to), P(from), bytes, direction(to, from), false);
}

void sim_write(char *to, uint64_t value, size_t width, size_t bytes)
{
    size_t real = bytes < FILL_LIMIT ? bytes : FILL_LIMIT;
    for (size_t i = 0; i < real; i += width)
        memcpy(to + i, &value, width);
}

static CUresult fill(CUdeviceptr at, uint64_t value, size_t width, size_t n, CUstream stream)
{
    struct sim_block b;
    struct sim_stream *s = sim_stream(stream);
    size_t bytes = width * n;
    if (s && s->capture)
        return sim_graph_add(
            s->capture, &(struct sim_node){.type = SIM_FILL, .to = P(at), .value = value, .width = width, .bytes = bytes},
            NULL);
    if (!(sim_find(at, &b) && at + bytes <= (uintptr_t)b.at + b.bytes) && !sim_mapped(at, bytes))
        return CUDA_ERROR_INVALID_VALUE;
    sim_write(P(at), value, width, bytes);
    struct sm_entry copy = {.op = SM_OP_COPY, .amount = bytes, .flags = SM_COPY_D2D};
    return sim_push(s, &copy, NULL);
}

SIM_API CUresult cuMemsetD8_v2(CUdeviceptr at, unsigned char value, size_t n);
SIM_API CUresult cuMemsetD8_v2(CUdeviceptr at, unsigned char value, size_t n)
{
    return fill(at, value, 1, n, NULL);
}

SIM_API CUresult cuMemsetD16_v2(CUdeviceptr at, unsigned short value, size_t n);
SIM_API CUresult cuMemsetD16_v2(CUdeviceptr at, unsigned short value, size_t n)
{
    return fill(at, value, 2, n, NULL);
}

SIM_API CUresult cuMemsetD32_v2(CUdeviceptr at, unsigned value, size_t n);
SIM_API CUresult cuMemsetD32_v2(CUdeviceptr at, unsigned value, size_t n)
{
    return fill(at, value, 4, n, NULL);
}

SIM_API CUresult cuMemsetD8Async(CUdeviceptr at, unsigned char value, size_t n, CUstream stream);
SIM_API CUresult cuMemsetD8Async(CUdeviceptr at, unsigned char value, size_t n, CUstream stream)
{
    return fill(at, value, 1, n, stream);
}

SIM_API CUresult cuMemsetD32Async(CUdeviceptr at, unsigned value, size_t n, CUstream stream);
SIM_API CUresult cuMemsetD32Async(CUdeviceptr at, unsigned value, size_t n, CUstream stream)
{
    return fill(at, value, 4, n, stream);
}
