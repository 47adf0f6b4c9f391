/* SPDX-License-Identifier: Apache-2.0
 * Arrays and mipmapped arrays: memory of the card with a shape and no address. Nothing is copied to or from them.
 */
#include <stdlib.h>
#include "sim.h"

#define PAGE (64ull << 10)
enum { LAYERED = 1, CUBEMAP = 4, SPARSE = 0x40, DEFERRED = 0x80 };

/* CUDA_ARRAY_DESCRIPTOR_v2, CUDA_ARRAY3D_DESCRIPTOR_v2 */
struct shape { size_t width, height; int format; unsigned channels; };
struct shape3d { size_t width, height, depth; int format; unsigned channels, flags; };

struct sim_array {
    struct sim_array *next;
    struct sim_context *context;
    struct shape3d shape;
    int card;
    uint64_t bytes;
    unsigned n_levels;          /* mipmapped */
    struct sim_array **levels;  /* views: take nothing */
};
typedef struct sim_array *CUarray;
typedef struct sim_array *CUmipmappedArray;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct sim_array *all;

static unsigned width_of(int format)
{
    switch (format) {
    case 0x01: case 0x08: return 1;
    case 0x02: case 0x09: case 0x10: return 2;
    case 0x03: case 0x0a: case 0x20: return 4;
    default: return 0;
    }
}

static uint64_t level_bytes(const struct shape3d *s)
{
    uint64_t row = ((uint64_t)s->width * width_of(s->format) * s->channels + 63) / 64 * 64;
    uint64_t rows = s->height > 1 ? (s->height + 7) / 8 * 8 : 1; /* tiles of 64 bytes by 8 rows */
    return row * rows * (s->depth ? s->depth : 1);
}

static CUresult make(struct sim_array **out, struct shape3d s, unsigned n_levels)
{
    struct sim_context *c = sim_current();
    if (!c)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (!out || !s.width || !width_of(s.format) || (s.channels != 1 && s.channels != 2 && s.channels != 4) ||
        s.width > (1u << 27) || s.height > (1u << 17) || s.depth > (1u << 14) || n_levels > 17)
        return CUDA_ERROR_INVALID_VALUE;
    if (s.flags & (SPARSE | DEFERRED))
        return CUDA_ERROR_NOT_SUPPORTED;
    struct sim_array *a = calloc(1, sizeof *a);
    if (!a)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *a = (struct sim_array){NULL, c, s, c->card, 0, n_levels, NULL};
    for (unsigned i = 0; i < (n_levels ? n_levels : 1); i++) {
        a->bytes += level_bytes(&s);
        s.width = s.width > 1 ? s.width / 2 : 1;
        s.height = s.height > 1 ? s.height / 2 : s.height;
        s.depth = s.depth > 1 && !(s.flags & LAYERED) ? s.depth / 2 : s.depth;
    }
    a->bytes = (a->bytes + PAGE - 1) / PAGE * PAGE;
    CUresult error = sim_take(a->card, a->bytes);
    if (error) {
        free(a);
        return error;
    }
    pthread_mutex_lock(&lock);
    a->next = all;
    all = a;
    pthread_mutex_unlock(&lock);
    *out = a;
    return CUDA_SUCCESS;
}

/* Handles that were destroyed or never made are told from those in use. */
static CUresult end(struct sim_array *a)
{
    pthread_mutex_lock(&lock);
    struct sim_array **at = &all;
    while (*at && *at != a)
        at = &(*at)->next;
    bool known = a && *at;
    if (known)
        *at = a->next;
    pthread_mutex_unlock(&lock);
    if (!known)
        return CUDA_ERROR_INVALID_HANDLE;
    sim_give(a->card, a->bytes);
    for (unsigned i = 0; a->levels && i < a->n_levels; i++)
        free(a->levels[i]);
    free(a->levels);
    free(a);
    return CUDA_SUCCESS;
}

void sim_arrays_forget(struct sim_context *context)
{
    for (;;) {
        pthread_mutex_lock(&lock);
        struct sim_array *a = all;
        while (a && a->context != context)
            a = a->next;
        pthread_mutex_unlock(&lock);
        if (!a)
            return;
        end(a);
    }
}

SIM_API CUresult cuArrayCreate_v2(CUarray *array, const struct shape *s);
SIM_API CUresult cuArrayCreate_v2(CUarray *array, const struct shape *s)
{
    return s ? make(array, (struct shape3d){s->width, s->height, 0, s->format, s->channels, 0}, 0)
             : CUDA_ERROR_INVALID_VALUE;
}

SIM_API CUresult cuArray3DCreate_v2(CUarray *array, const struct shape3d *s);
SIM_API CUresult cuArray3DCreate_v2(CUarray *array, const struct shape3d *s)
{
    return s ? make(array, *s, 0) : CUDA_ERROR_INVALID_VALUE;
}

SIM_API CUresult cuArrayDestroy(CUarray array);
SIM_API CUresult cuArrayDestroy(CUarray array)
{
    return end(array);
}

SIM_API CUresult cuArrayGetDescriptor_v2(struct shape *s, CUarray array);
SIM_API CUresult cuArrayGetDescriptor_v2(struct shape *s, CUarray array)
{
    if (!s || !array)
        return s ? CUDA_ERROR_INVALID_HANDLE : CUDA_ERROR_INVALID_VALUE;
    *s = (struct shape){array->shape.width, array->shape.height, array->shape.format, array->shape.channels};
    return CUDA_SUCCESS;
}

SIM_API CUresult cuArray3DGetDescriptor_v2(struct shape3d *s, CUarray array);
SIM_API CUresult cuArray3DGetDescriptor_v2(struct shape3d *s, CUarray array)
{
    if (!s || !array)
        return s ? CUDA_ERROR_INVALID_HANDLE : CUDA_ERROR_INVALID_VALUE;
    *s = array->shape;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuMipmappedArrayCreate(CUmipmappedArray *array, const struct shape3d *s, unsigned n_levels);
SIM_API CUresult cuMipmappedArrayCreate(CUmipmappedArray *array, const struct shape3d *s, unsigned n_levels)
{
    if (!s || !n_levels)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult error = make(array, *s, n_levels);
    if (error)
        return error;
    struct sim_array *a = *array;
    a->levels = calloc(n_levels, sizeof *a->levels);
    struct shape3d level = *s;
    for (unsigned i = 0; a->levels && i < n_levels; i++) {
        a->levels[i] = calloc(1, sizeof **a->levels);
        if (a->levels[i])
            *a->levels[i] = (struct sim_array){.shape = level, .card = a->card};
        level.width = level.width > 1 ? level.width / 2 : 1;
        level.height = level.height > 1 ? level.height / 2 : level.height;
        level.depth = level.depth > 1 && !(level.flags & LAYERED) ? level.depth / 2 : level.depth;
    }
    return CUDA_SUCCESS;
}

SIM_API CUresult cuMipmappedArrayGetLevel(CUarray *level, CUmipmappedArray array, unsigned which);
SIM_API CUresult cuMipmappedArrayGetLevel(CUarray *level, CUmipmappedArray array, unsigned which)
{
    if (!level || !array || which >= array->n_levels || !array->levels || !array->levels[which])
        return CUDA_ERROR_INVALID_VALUE;
    *level = array->levels[which];
    return CUDA_SUCCESS;
}

SIM_API CUresult cuMipmappedArrayDestroy(CUmipmappedArray array);
SIM_API CUresult cuMipmappedArrayDestroy(CUmipmappedArray array)
{
    return end(array);
}
