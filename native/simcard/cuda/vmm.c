/* SPDX-License-Identifier: Apache-2.0
 * Virtual memory management: physical allocations, address ranges, mappings. Contents of a mapping start empty.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "sim.h"

#define GRANULARITY (2ull << 20)

/* CUmemAllocationProp (10.2), as far as it is looked at */
struct allocation_properties { int type, handles, location_type, location_id; };

struct physical {
    int card, n_owners; /* handles and mappings */
    uint64_t bytes;
};
struct mapping { struct mapping *next; uint64_t at, bytes; struct physical *memory; };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct mapping *mappings;

static void let_go(struct physical *p)
{
    if (--p->n_owners == 0) {
        sim_give(p->card, p->bytes);
        free(p);
    }
}

SIM_API CUresult cuMemGetAllocationGranularity(size_t *bytes, const struct allocation_properties *p, int option);
SIM_API CUresult cuMemGetAllocationGranularity(size_t *bytes, const struct allocation_properties *p, int option)
{
    (void)option;
    if (!bytes || !p)
        return CUDA_ERROR_INVALID_VALUE;
    *bytes = GRANULARITY;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuMemCreate(uint64_t *handle, size_t bytes, const struct allocation_properties *p,
                             unsigned long long flags);
SIM_API CUresult cuMemCreate(uint64_t *handle, size_t bytes, const struct allocation_properties *p,
                             unsigned long long flags)
{
    const struct session *s = sim_session();
    if (!s)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!handle || !p || !bytes || bytes % GRANULARITY || flags || p->location_type != 1 || p->location_id < 0 ||
        p->location_id >= s->n_visible)
        return CUDA_ERROR_INVALID_VALUE;
    struct physical *m = calloc(1, sizeof *m);
    if (!m)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *m = (struct physical){s->visible[p->location_id], 1, bytes};
    CUresult error = sim_take(m->card, bytes);
    if (error) {
        free(m);
        return error;
    }
    *handle = (uint64_t)(uintptr_t)m;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuMemRelease(uint64_t handle);
SIM_API CUresult cuMemRelease(uint64_t handle)
{
    if (!handle)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&lock);
    let_go((struct physical *)(uintptr_t)handle);
    pthread_mutex_unlock(&lock);
    return CUDA_SUCCESS;
}

SIM_API CUresult cuMemAddressReserve(CUdeviceptr *at, size_t bytes, size_t alignment, CUdeviceptr hint,
                                     unsigned long long flags);
SIM_API CUresult cuMemAddressReserve(CUdeviceptr *at, size_t bytes, size_t alignment, CUdeviceptr hint,
                                     unsigned long long flags)
{
    (void)alignment, (void)hint, (void)flags;
    if (!at || !bytes || bytes % GRANULARITY)
        return CUDA_ERROR_INVALID_VALUE;
    char *pages = mmap(NULL, bytes + GRANULARITY, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (pages == MAP_FAILED)
        return CUDA_ERROR_OUT_OF_MEMORY;
    uintptr_t aligned = ((uintptr_t)pages + GRANULARITY - 1) / GRANULARITY * GRANULARITY;
    if (aligned > (uintptr_t)pages)
        munmap(pages, aligned - (uintptr_t)pages);
    munmap((char *)aligned + bytes, (uintptr_t)pages + GRANULARITY - aligned);
    *at = aligned;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuMemAddressFree(CUdeviceptr at, size_t bytes);
SIM_API CUresult cuMemAddressFree(CUdeviceptr at, size_t bytes)
{
    return munmap((void *)(uintptr_t)at, bytes) == 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

SIM_API CUresult cuMemMap(CUdeviceptr at, size_t bytes, size_t offset, uint64_t handle, unsigned long long flags);
SIM_API CUresult cuMemMap(CUdeviceptr at, size_t bytes, size_t offset, uint64_t handle, unsigned long long flags)
{
    struct physical *p = (struct physical *)(uintptr_t)handle;
    struct mapping *m = calloc(1, sizeof *m);
    if (!p || !m || offset || flags || bytes > p->bytes) {
        free(m);
        return m ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_OUT_OF_MEMORY;
    }
    pthread_mutex_lock(&lock);
    p->n_owners++;
    *m = (struct mapping){mappings, at, bytes, p};
    mappings = m;
    pthread_mutex_unlock(&lock);
    return CUDA_SUCCESS;
}

bool sim_mapped(CUdeviceptr at, uint64_t bytes)
{
    bool found = false;
    pthread_mutex_lock(&lock);
    for (struct mapping *m = mappings; m && !found; m = m->next)
        found = at >= m->at && bytes <= m->bytes && at - m->at <= m->bytes - bytes;
    pthread_mutex_unlock(&lock);
    return found;
}

SIM_API CUresult cuMemSetAccess(CUdeviceptr at, size_t bytes, const void *access, size_t n);
SIM_API CUresult cuMemSetAccess(CUdeviceptr at, size_t bytes, const void *access, size_t n)
{
    (void)access, (void)n;
    return mprotect((void *)(uintptr_t)at, bytes, PROT_READ | PROT_WRITE) == 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

SIM_API CUresult cuMemUnmap(CUdeviceptr at, size_t bytes);
SIM_API CUresult cuMemUnmap(CUdeviceptr at, size_t bytes)
{
    CUresult result = CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&lock);
    for (struct mapping **each = &mappings; *each;) {
        struct mapping *m = *each;
        if (m->at < at || m->at + m->bytes > at + bytes) {
            each = &m->next;
            continue;
        }
        *each = m->next;
        madvise((void *)(uintptr_t)m->at, m->bytes, MADV_DONTNEED);
        mprotect((void *)(uintptr_t)m->at, m->bytes, PROT_NONE);
        let_go(m->memory);
        free(m);
        result = CUDA_SUCCESS;
    }
    pthread_mutex_unlock(&lock);
    return result;
}

SIM_API CUresult cuMemRetainAllocationHandle(uint64_t *handle, void *address);
SIM_API CUresult cuMemRetainAllocationHandle(uint64_t *handle, void *address)
{
    CUresult result = CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&lock);
    for (struct mapping *m = mappings; m; m = m->next)
        if ((uintptr_t)address >= m->at && (uintptr_t)address < m->at + m->bytes) {
            m->memory->n_owners++;
            *handle = (uint64_t)(uintptr_t)m->memory;
            result = CUDA_SUCCESS;
            break;
        }
    pthread_mutex_unlock(&lock);
    return result;
}
