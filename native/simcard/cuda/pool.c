/* SPDX-License-Identifier: Apache-2.0
 * Memory pools keep nothing back: what is freed is the card's at once, so reserved equals used.
 */
#include <stdlib.h>
#include <string.h>
#include "sim.h"

struct pool { int ordinal; uint64_t threshold, bytes; };
typedef struct pool *CUmemoryPool;
static struct pool standard[SIM_MAX_CARDS];

SIM_API CUresult cuDeviceGetDefaultMemPool(CUmemoryPool *pool, CUdevice device);
SIM_API CUresult cuDeviceGetDefaultMemPool(CUmemoryPool *pool, CUdevice device)
{
    const struct session *s = sim_session();
    if (!s || device < 0 || device >= s->n_visible)
        return s ? CUDA_ERROR_INVALID_DEVICE : CUDA_ERROR_NOT_INITIALIZED;
    standard[device].ordinal = device;
    *pool = &standard[device];
    return CUDA_SUCCESS;
}

SIM_API CUresult cuDeviceGetMemPool(CUmemoryPool *pool, CUdevice device);
SIM_API CUresult cuDeviceGetMemPool(CUmemoryPool *pool, CUdevice device)
{
    return cuDeviceGetDefaultMemPool(pool, device);
}

SIM_API CUresult cuMemPoolCreate(CUmemoryPool *pool, const void *properties);
SIM_API CUresult cuMemPoolCreate(CUmemoryPool *pool, const void *properties)
{
    if (!properties)
        return CUDA_ERROR_INVALID_VALUE;
    *pool = calloc(1, sizeof **pool);
    return *pool ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

SIM_API CUresult cuMemPoolDestroy(CUmemoryPool pool);
SIM_API CUresult cuMemPoolDestroy(CUmemoryPool pool)
{
    if (pool < standard || pool >= standard + SIM_MAX_CARDS)
        free(pool);
    return CUDA_SUCCESS;
}

SIM_API CUresult cuMemPoolTrimTo(CUmemoryPool pool, size_t keep);
SIM_API CUresult cuMemPoolTrimTo(CUmemoryPool pool, size_t keep)
{
    (void)keep;
    return pool ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

SIM_API CUresult cuMemPoolSetAttribute(CUmemoryPool pool, int attribute, void *value);
SIM_API CUresult cuMemPoolSetAttribute(CUmemoryPool pool, int attribute, void *value)
{
    if (!pool || !value)
        return CUDA_ERROR_INVALID_VALUE;
    if (attribute == 4)
        memcpy(&pool->threshold, value, sizeof pool->threshold);
    return CUDA_SUCCESS;
}

SIM_API CUresult cuMemPoolGetAttribute(CUmemoryPool pool, int attribute, void *value);
SIM_API CUresult cuMemPoolGetAttribute(CUmemoryPool pool, int attribute, void *value)
{
    if (!pool || !value)
        return CUDA_ERROR_INVALID_VALUE;
    uint64_t held = __atomic_load_n(&pool->bytes, __ATOMIC_SEQ_CST);
    uint64_t out = attribute == 4 ? pool->threshold : attribute >= 5 && attribute <= 8 ? held : 0;
    memcpy(value, &out, attribute <= 3 ? sizeof(int) : sizeof out);
    return CUDA_SUCCESS;
}

SIM_API CUresult cuMemAllocFromPoolAsync(CUdeviceptr *at, size_t bytes, CUmemoryPool pool, CUstream stream);
SIM_API CUresult cuMemAllocFromPoolAsync(CUdeviceptr *at, size_t bytes, CUmemoryPool pool, CUstream stream)
{
    return pool ? sim_alloc_async(at, bytes, stream, &pool->bytes) : CUDA_ERROR_INVALID_VALUE;
}

SIM_API CUresult cuCtxGetDevice(CUdevice *device);
SIM_API CUresult cuMemAllocAsync(CUdeviceptr *at, size_t bytes, CUstream stream);
SIM_API CUresult cuMemAllocAsync(CUdeviceptr *at, size_t bytes, CUstream stream)
{
    CUdevice device;
    CUmemoryPool pool;
    CUresult error = cuCtxGetDevice(&device);
    if (!error)
        error = cuDeviceGetDefaultMemPool(&pool, device);
    return error ? error : sim_alloc_async(at, bytes, stream, &pool->bytes);
}
