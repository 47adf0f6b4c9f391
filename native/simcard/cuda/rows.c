/* SPDX-License-Identifier: Apache-2.0
 * Copies and fills of rows: the contents row by row, the card's time for all bytes at once. Arrays are not simulated.
 */
#include <stdlib.h>
#include <string.h>
#include "sim.h"

enum { HOST = 1, DEVICE = 2, ARRAY = 3, UNIFIED = 4 }; /* CUmemorytype */

/* CUDA_MEMCPY2D_v2 */
struct end2d { size_t x, y; int type; const void *host; CUdeviceptr device; void *array; size_t pitch; };
struct copy2d { struct end2d from, to; size_t width, height; };
_Static_assert(sizeof(struct copy2d) == 128, "CUDA_MEMCPY2D");

static char *first(const struct end2d *e)
{
    uintptr_t at = e->type == HOST ? (uintptr_t)e->host : (uintptr_t)e->device;
    return (char *)(at + e->y * e->pitch + e->x);
}

static CUresult copy_rows(const struct copy2d *c, CUstream stream, bool synchronous)
{
    struct sim_stream *s = sim_stream(stream);
    if (!c || (c->height > 1 && (c->from.pitch < c->width || c->to.pitch < c->width)))
        return CUDA_ERROR_INVALID_VALUE;
    if (!s)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (c->from.type == ARRAY || c->to.type == ARRAY || s->capture)
        return CUDA_ERROR_NOT_SUPPORTED;
    for (size_t row = 0; row < c->height; row++)
        memmove(first(&c->to) + row * c->to.pitch, first(&c->from) + row * c->from.pitch, c->width);
    uint32_t way = c->from.type == HOST ? SM_COPY_H2D : c->to.type == HOST ? SM_COPY_D2H : SM_COPY_D2D;
    struct sm_entry copy = {.op = SM_OP_COPY, .amount = c->width * c->height, .flags = way};
    uint64_t seq = 0;
    CUresult error = sim_push(s, &copy, &seq);
    return error || !synchronous ? error : sim_wait(s->index, seq);
}

SIM_API CUresult cuMemcpy2D_v2(const struct copy2d *copy);
SIM_API CUresult cuMemcpy2D_v2(const struct copy2d *copy)
{
    return copy_rows(copy, NULL, true);
}

SIM_API CUresult cuMemcpy2DUnaligned_v2(const struct copy2d *copy);
SIM_API CUresult cuMemcpy2DUnaligned_v2(const struct copy2d *copy)
{
    return copy_rows(copy, NULL, true);
}

SIM_API CUresult cuMemcpy2DAsync_v2(const struct copy2d *copy, CUstream stream);
SIM_API CUresult cuMemcpy2DAsync_v2(const struct copy2d *copy, CUstream stream)
{
    return copy_rows(copy, stream, false);
}

static CUresult fill_rows(CUdeviceptr at, size_t pitch, uint64_t value, size_t element, size_t width, size_t height,
                          CUstream stream)
{
    struct sim_stream *s = sim_stream(stream);
    CUdeviceptr base;
    size_t bytes, last = height ? (height - 1) * pitch + width * element : 0;
    if (!s)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (s->capture)
        return CUDA_ERROR_NOT_SUPPORTED;
    bool inside = !cuMemGetAddressRange_v2(&base, &bytes, at) && at - base <= bytes && last <= bytes - (at - base);
    if (!width || !height || pitch < width * element || (!inside && !sim_mapped(at, last)))
        return CUDA_ERROR_INVALID_VALUE;
    for (size_t row = 0; row < height; row++)
        sim_write((char *)(uintptr_t)(at + row * pitch), value, element, width * element);
    struct sm_entry fill = {.op = SM_OP_COPY, .amount = width * element * height, .flags = SM_COPY_D2D};
    return sim_push(s, &fill, NULL);
}

SIM_API CUresult cuMemsetD2D8_v2(CUdeviceptr at, size_t pitch, unsigned char value, size_t width, size_t height);
SIM_API CUresult cuMemsetD2D8_v2(CUdeviceptr at, size_t pitch, unsigned char value, size_t width, size_t height)
{
    return fill_rows(at, pitch, value, 1, width, height, NULL);
}

SIM_API CUresult cuMemsetD2D16_v2(CUdeviceptr at, size_t pitch, unsigned short value, size_t width, size_t height);
SIM_API CUresult cuMemsetD2D16_v2(CUdeviceptr at, size_t pitch, unsigned short value, size_t width, size_t height)
{
    return fill_rows(at, pitch, value, 2, width, height, NULL);
}

SIM_API CUresult cuMemsetD2D32_v2(CUdeviceptr at, size_t pitch, unsigned value, size_t width, size_t height);
SIM_API CUresult cuMemsetD2D32_v2(CUdeviceptr at, size_t pitch, unsigned value, size_t width, size_t height)
{
    return fill_rows(at, pitch, value, 4, width, height, NULL);
}

SIM_API CUresult cuMemsetD2D8Async(CUdeviceptr at, size_t pitch, unsigned char value, size_t width, size_t height,
                                   CUstream stream);
SIM_API CUresult cuMemsetD2D8Async(CUdeviceptr at, size_t pitch, unsigned char value, size_t width, size_t height,
                                   CUstream stream)
{
    return fill_rows(at, pitch, value, 1, width, height, stream);
}

SIM_API CUresult cuMemsetD2D32Async(CUdeviceptr at, size_t pitch, unsigned value, size_t width, size_t height,
                                    CUstream stream);
SIM_API CUresult cuMemsetD2D32Async(CUdeviceptr at, size_t pitch, unsigned value, size_t width, size_t height,
                                    CUstream stream)
{
    return fill_rows(at, pitch, value, 4, width, height, stream);
}
