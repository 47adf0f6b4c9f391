/* SPDX-License-Identifier: Apache-2.0
 *
 * Plain allocations, arrays, and what the card is said to hold.
 */
#include "glibc.h"
#include "charge.h"

FX_EXPORT CUresult cuMemAlloc_v2(CUdeviceptr *at, size_t bytes);
FX_EXPORT CUresult cuMemAlloc(CUdeviceptr_v1 *at, unsigned bytes);
FX_EXPORT CUresult cuMemAllocPitch_v2(CUdeviceptr *at, size_t *pitch, size_t width, size_t height, unsigned element);
FX_EXPORT CUresult cuMemAllocPitch(CUdeviceptr_v1 *at, unsigned *pitch, unsigned width, unsigned height, unsigned element);
FX_EXPORT CUresult cuMemAllocManaged(CUdeviceptr *at, size_t bytes, unsigned flags);
FX_EXPORT CUresult cuMemFree_v2(CUdeviceptr at);
FX_EXPORT CUresult cuMemFree(CUdeviceptr_v1 at);
FX_EXPORT CUresult cuMemFreeAsync(CUdeviceptr at, CUstream stream);
FX_EXPORT CUresult cuMemFreeAsync_ptsz(CUdeviceptr at, CUstream stream);
FX_EXPORT CUresult cuArrayCreate_v2(CUarray *array, const struct cu_array_desc *desc);
FX_EXPORT CUresult cuArrayCreate(CUarray *array, const unsigned *desc);
FX_EXPORT CUresult cuArray3DCreate_v2(CUarray *array, const struct cu_array3d_desc *desc);
FX_EXPORT CUresult cuArray3DCreate(CUarray *array, const unsigned *desc);
FX_EXPORT CUresult cuArrayDestroy(CUarray array);
FX_EXPORT CUresult cuMipmappedArrayCreate(CUmipmappedArray *array, const struct cu_array3d_desc *desc, unsigned n_levels);
FX_EXPORT CUresult cuMipmappedArrayDestroy(CUmipmappedArray array);
FX_EXPORT CUresult cuMemGetInfo_v2(size_t *free_bytes, size_t *total_bytes);
FX_EXPORT CUresult cuMemGetInfo(unsigned *free_bytes, unsigned *total_bytes);
FX_EXPORT CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device);
FX_EXPORT CUresult cuDeviceTotalMem(unsigned *bytes, CUdevice device);

CUresult cuMemAlloc_v2(CUdeviceptr *at, size_t bytes)
{
    struct fx_ticket ticket;
    if (!fx_ticket_take_at(&ticket, bytes))
        return CUDA_ERROR_OUT_OF_MEMORY;
    CUresult rc = FX_REAL(cuMemAlloc_v2, CUresult (*)(CUdeviceptr *, size_t))(at, bytes);
    fx_ticket_settle(&ticket, rc, FX_KIND_MEMORY, rc == CUDA_SUCCESS ? *at : 0);
    return rc;
}

CUresult cuMemAlloc(CUdeviceptr_v1 *at, unsigned bytes)
{
    struct fx_ticket ticket;
    if (!fx_ticket_take_at(&ticket, bytes))
        return CUDA_ERROR_OUT_OF_MEMORY;
    CUresult rc = FX_REAL(cuMemAlloc, CUresult (*)(CUdeviceptr_v1 *, unsigned))(at, bytes);
    fx_ticket_settle(&ticket, rc, FX_KIND_MEMORY, rc == CUDA_SUCCESS ? *at : 0);
    return rc;
}

static uint64_t times(uint64_t a, uint64_t b)
{
    uint64_t product;
    return __builtin_mul_overflow(a, b, &product) ? UINT64_MAX : product;
}

static uint64_t up(uint64_t value, uint64_t unit)
{
    return value > UINT64_MAX - unit ? UINT64_MAX : (value + unit - 1) / unit * unit;
}

#define PITCH 512u /* of rows, on every card since Maxwell */

CUresult cuMemAllocPitch_v2(CUdeviceptr *at, size_t *pitch, size_t width, size_t height, unsigned element)
{
    struct fx_ticket ticket;
    if (!fx_ticket_take_at(&ticket, times(up(width, PITCH), height)))
        return CUDA_ERROR_OUT_OF_MEMORY;
    CUresult rc = FX_REAL(cuMemAllocPitch_v2, CUresult (*)(CUdeviceptr *, size_t *, size_t, size_t, unsigned))(
        at, pitch, width, height, element);
    fx_ticket_settle(&ticket, rc, FX_KIND_MEMORY, rc == CUDA_SUCCESS ? *at : 0);
    return rc;
}

CUresult cuMemAllocPitch(CUdeviceptr_v1 *at, unsigned *pitch, unsigned width, unsigned height, unsigned element)
{
    struct fx_ticket ticket;
    if (!fx_ticket_take_at(&ticket, times(up(width, PITCH), height)))
        return CUDA_ERROR_OUT_OF_MEMORY;
    CUresult rc = FX_REAL(cuMemAllocPitch,
                          CUresult (*)(CUdeviceptr_v1 *, unsigned *, unsigned, unsigned, unsigned))(at, pitch, width,
                                                                                                    height, element);
    fx_ticket_settle(&ticket, rc, FX_KIND_MEMORY, rc == CUDA_SUCCESS ? *at : 0);
    return rc;
}

/* Charged whole, wherever its pages are: all of them may be on the card at once. */
CUresult cuMemAllocManaged(CUdeviceptr *at, size_t bytes, unsigned flags)
{
    struct fx_ticket ticket;
    if (!fx_ticket_take(&ticket, bytes))
        return CUDA_ERROR_OUT_OF_MEMORY;
    ticket.managed = true;
    CUresult rc = FX_REAL(cuMemAllocManaged, CUresult (*)(CUdeviceptr *, size_t, unsigned))(at, bytes, flags);
    fx_ticket_settle(&ticket, rc, FX_KIND_MEMORY, rc == CUDA_SUCCESS ? *at : 0);
    return rc;
}

CUresult cuMemFree_v2(CUdeviceptr at)
{
    struct fx_entry entry;
    bool known = fx_free_begin(FX_KIND_MEMORY, at, &entry);
    CUresult rc = FX_REAL(cuMemFree_v2, CUresult (*)(CUdeviceptr))(at);
    fx_free_end(known, rc, &entry);
    return rc;
}

CUresult cuMemFree(CUdeviceptr_v1 at)
{
    struct fx_entry entry;
    bool known = fx_free_begin(FX_KIND_MEMORY, at, &entry);
    CUresult rc = FX_REAL(cuMemFree, CUresult (*)(CUdeviceptr_v1))(at);
    fx_free_end(known, rc, &entry);
    return rc;
}

/* Bytes of one channel of a CUarray_format. Formats without a size of their own (video, block-compressed) count as the
 * widest they can be; what that is too much or too little by is measured afterwards. */
static uint64_t channel_bytes(int format)
{
    switch (format) {
    case 0x01: case 0x08: case 0xc0: case 0xc1: case 0xc2: /* 8 bit */
        return 1;
    case 0x02: case 0x09: case 0x10: case 0xc6: case 0xc7: case 0xc8: /* 16 bit */
        return 2;
    default:
        return 4;
    }
}

/* Rows are laid out in tiles of 64 bytes by 8 rows. */
static uint64_t array_bytes(uint64_t width, uint64_t height, uint64_t depth, int format, unsigned channels)
{
    uint64_t row = up(times(width, channel_bytes(format) * (channels ? channels : 1)), 64);
    return times(times(row, height > 1 ? up(height, 8) : 1), depth ? depth : 1);
}

CUresult cuArrayCreate_v2(CUarray *array, const struct cu_array_desc *desc)
{
    struct fx_ticket ticket;
    if (!fx_ticket_take(&ticket, desc ? array_bytes(desc->width, desc->height, 1, desc->format, desc->channels) : 0))
        return CUDA_ERROR_OUT_OF_MEMORY;
    CUresult rc = FX_REAL(cuArrayCreate_v2, CUresult (*)(CUarray *, const struct cu_array_desc *))(array, desc);
    fx_ticket_settle(&ticket, rc, FX_KIND_ARRAY, rc == CUDA_SUCCESS ? (uint64_t)*array : 0);
    return rc;
}

/* Version 1 has 32-bit fields: width, height, format, channels. */
CUresult cuArrayCreate(CUarray *array, const unsigned *desc)
{
    struct fx_ticket ticket;
    if (!fx_ticket_take(&ticket, desc ? array_bytes(desc[0], desc[1], 1, (int)desc[2], desc[3]) : 0))
        return CUDA_ERROR_OUT_OF_MEMORY;
    CUresult rc = FX_REAL(cuArrayCreate, CUresult (*)(CUarray *, const unsigned *))(array, desc);
    fx_ticket_settle(&ticket, rc, FX_KIND_ARRAY, rc == CUDA_SUCCESS ? (uint64_t)*array : 0);
    return rc;
}

static uint64_t array3d_bytes(const struct cu_array3d_desc *desc)
{
    if (!desc || (desc->flags & (CU_ARRAY_SPARSE | CU_ARRAY_DEFERRED)))
        return 0; /* backed by cuMemCreate later, charged there */
    return array_bytes(desc->width, desc->height, desc->depth, desc->format, desc->channels);
}

CUresult cuArray3DCreate_v2(CUarray *array, const struct cu_array3d_desc *desc)
{
    struct fx_ticket ticket;
    if (!fx_ticket_take(&ticket, array3d_bytes(desc)))
        return CUDA_ERROR_OUT_OF_MEMORY;
    CUresult rc = FX_REAL(cuArray3DCreate_v2, CUresult (*)(CUarray *, const struct cu_array3d_desc *))(array, desc);
    fx_ticket_settle(&ticket, rc, FX_KIND_ARRAY, rc == CUDA_SUCCESS ? (uint64_t)*array : 0);
    return rc;
}

/* Version 1: width, height, depth, format, channels, flags in 32 bits each. */
CUresult cuArray3DCreate(CUarray *array, const unsigned *desc)
{
    struct fx_ticket ticket;
    if (!fx_ticket_take(&ticket, desc ? array_bytes(desc[0], desc[1], desc[2], (int)desc[3], desc[4]) : 0))
        return CUDA_ERROR_OUT_OF_MEMORY;
    CUresult rc = FX_REAL(cuArray3DCreate, CUresult (*)(CUarray *, const unsigned *))(array, desc);
    fx_ticket_settle(&ticket, rc, FX_KIND_ARRAY, rc == CUDA_SUCCESS ? (uint64_t)*array : 0);
    return rc;
}

CUresult cuArrayDestroy(CUarray array)
{
    struct fx_entry entry;
    bool known = fx_free_begin(FX_KIND_ARRAY, (uint64_t)array, &entry);
    CUresult rc = FX_REAL(cuArrayDestroy, CUresult (*)(CUarray))(array);
    fx_free_end(known, rc, &entry);
    return rc;
}

CUresult cuMipmappedArrayCreate(CUmipmappedArray *array, const struct cu_array3d_desc *desc, unsigned n_levels)
{
    uint64_t bytes = 0;
    struct cu_array3d_desc level = {0};
    if (desc)
        level = *desc;
    for (unsigned i = 0; i < n_levels && i < 32; i++) {
        bytes += array3d_bytes(desc ? &level : NULL);
        level.width = level.width > 1 ? level.width / 2 : 1;
        level.height = level.height > 1 ? level.height / 2 : level.height;
        level.depth = level.depth > 1 && !(level.flags & 1) ? level.depth / 2 : level.depth; /* layers do not shrink */
    }
    struct fx_ticket ticket;
    if (!fx_ticket_take(&ticket, bytes))
        return CUDA_ERROR_OUT_OF_MEMORY;
    CUresult rc = FX_REAL(cuMipmappedArrayCreate,
                          CUresult (*)(CUmipmappedArray *, const struct cu_array3d_desc *, unsigned))(array, desc,
                                                                                                      n_levels);
    fx_ticket_settle(&ticket, rc, FX_KIND_ARRAY, rc == CUDA_SUCCESS ? (uint64_t)*array : 0);
    return rc;
}

CUresult cuMipmappedArrayDestroy(CUmipmappedArray array)
{
    struct fx_entry entry;
    bool known = fx_free_begin(FX_KIND_ARRAY, (uint64_t)array, &entry);
    CUresult rc = FX_REAL(cuMipmappedArrayDestroy, CUresult (*)(CUmipmappedArray))(array);
    fx_free_end(known, rc, &entry);
    return rc;
}

/* Stream-ordered frees of what was allocated otherwise: the driver has it back when the stream is there, and only its
 * ledger tells when that was. */
static CUresult free_async(CUdeviceptr at, CUstream stream, CUresult (*real)(CUdeviceptr, CUstream))
{
    struct fx_entry entry;
    bool known = fx_free_begin(FX_KIND_MEMORY, at, &entry);
    CUresult rc = real(at, stream);
    if (known && rc == CUDA_SUCCESS)
        fx_free_later(&entry);
    else
        fx_free_end(known, rc, &entry);
    return rc;
}

CUresult cuMemFreeAsync(CUdeviceptr at, CUstream stream)
{
    return free_async(at, stream, FX_REAL(cuMemFreeAsync, CUresult (*)(CUdeviceptr, CUstream)));
}

CUresult cuMemFreeAsync_ptsz(CUdeviceptr at, CUstream stream)
{
    return free_async(at, stream, FX_REAL(cuMemFreeAsync_ptsz, CUresult (*)(CUdeviceptr, CUstream)));
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

CUresult cuMemGetInfo_v2(size_t *free_bytes, size_t *total_bytes)
{
    CUresult rc = FX_REAL(cuMemGetInfo_v2, CUresult (*)(size_t *, size_t *))(free_bytes, total_bytes);
    int card = rc == CUDA_SUCCESS ? fx_current_card() : -1;
    if (card >= 0) {
        fx_estimates_settle(card, 0);
        uint64_t cap = fx_cap(card);
        uint64_t charged = __atomic_load_n(&fx.region.ledger->charged_bytes[card], __ATOMIC_SEQ_CST);
        *free_bytes = least(*free_bytes, cap > charged ? cap - charged : 0);
        *total_bytes = least(*total_bytes, cap);
    }
    return rc;
}

CUresult cuMemGetInfo(unsigned *free_bytes, unsigned *total_bytes)
{
    CUresult rc = FX_REAL(cuMemGetInfo, CUresult (*)(unsigned *, unsigned *))(free_bytes, total_bytes);
    int card = rc == CUDA_SUCCESS ? fx_current_card() : -1;
    if (card >= 0) {
        fx_estimates_settle(card, 0);
        uint64_t cap = fx_cap(card);
        uint64_t charged = __atomic_load_n(&fx.region.ledger->charged_bytes[card], __ATOMIC_SEQ_CST);
        *free_bytes = (unsigned)least(*free_bytes, cap > charged ? cap - charged : 0);
        *total_bytes = (unsigned)least(*total_bytes, cap);
    }
    return rc;
}

CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device)
{
    CUresult rc = FX_REAL(cuDeviceTotalMem_v2, CUresult (*)(size_t *, CUdevice))(bytes, device);
    if (rc == CUDA_SUCCESS)
        *bytes = least(*bytes, fx_cap(fx_card_of(device)));
    return rc;
}

CUresult cuDeviceTotalMem(unsigned *bytes, CUdevice device)
{
    CUresult rc = FX_REAL(cuDeviceTotalMem, CUresult (*)(unsigned *, CUdevice))(bytes, device);
    if (rc == CUDA_SUCCESS)
        *bytes = (unsigned)least(*bytes, fx_cap(fx_card_of(device)));
    return rc;
}
