/* SPDX-License-Identifier: Apache-2.0
 *
 * Physical allocations (cuMemCreate): charged until the last handle and the last mapping are gone. The table's lock is
 * held over the driver's calls: they are rare, and their order is what is counted.
 */
#include "glibc.h"
#include "charge.h"
#include "shared.h"

FX_EXPORT CUresult cuMemCreate(CUmemHandle *handle, size_t bytes, const struct cu_mem_prop *prop, unsigned long long flags);
FX_EXPORT CUresult cuMemRelease(CUmemHandle handle);
FX_EXPORT CUresult cuMemRetainAllocationHandle(CUmemHandle *handle, void *at);
FX_EXPORT CUresult cuMemMap(CUdeviceptr at, size_t bytes, size_t offset, CUmemHandle handle, unsigned long long flags);
FX_EXPORT CUresult cuMemUnmap(CUdeviceptr at, size_t bytes);
FX_EXPORT CUresult cuMemExportToShareableHandle(void *out, CUmemHandle handle, int type, unsigned long long flags);
FX_EXPORT CUresult cuMemImportFromShareableHandle(CUmemHandle *handle, void *from, int type);
FX_EXPORT CUresult cuMemGetHandleForAddressRange(void *handle, CUdeviceptr at, size_t bytes, int type,
                                                 unsigned long long flags);

#define IMPORTED 1u /* `other` of a physical allocation that another process made */

static uint64_t n_physical; /* numbers given out; under the lock */

static void drop_if_dead(uint64_t number)
{
    struct fx_entry *physical = fx_table_get(FX_KIND_PHYSICAL, number), gone;
    if (physical && physical->n_handles <= 0 && physical->n_maps <= 0 &&
        fx_table_take(FX_KIND_PHYSICAL, number, &gone)) {
        if (gone.other == IMPORTED)
            fx_imported(-1);
        else if (!gone.exported || !fx_shared_freed(gone.card, gone.bytes))
            fx_give(gone.card, gone.bytes);
    }
    __atomic_add_fetch(&fx_n_settled, 1, __ATOMIC_SEQ_CST);
}

/* The mapping that holds an address; a range is asked for by its start far more often than by its inside. */
static struct fx_entry *map_of(uint64_t at)
{
    struct fx_entry *map = fx_table_get(FX_KIND_MAP, at);
    uint64_t position = 0;
    while (!map) {
        struct fx_entry *other = fx_table_next(FX_KIND_MAP, &position);
        if (!other)
            return NULL;
        if (at >= other->key && at - other->key < other->length)
            map = other;
    }
    return map;
}

static void remember(CUmemHandle handle, int card, uint64_t bytes, uint64_t from)
{
    uint64_t number = ++n_physical;
    struct fx_entry *physical = fx_table_put(FX_KIND_PHYSICAL, number, card, bytes);
    if (physical) {
        physical->n_handles = 1;
        physical->other = from;
    }
    struct fx_entry *named = fx_table_put(FX_KIND_HANDLE, handle, card, 0);
    if (named) {
        named->other = number;
        named->n_handles = 1;
    }
}

/* Others may hold it from now on. */
static void let_out(struct fx_entry *physical)
{
    if (!physical || physical->exported || physical->other == IMPORTED)
        return;
    physical->exported = true;
    fx_shared_exported(physical->card, physical->bytes);
}

CUresult cuMemExportToShareableHandle(void *out, CUmemHandle handle, int type, unsigned long long flags)
{
    fx_table_lock();
    CUresult rc = FX_REAL(cuMemExportToShareableHandle, CUresult (*)(void *, CUmemHandle, int, unsigned long long))(
        out, handle, type, flags);
    struct fx_entry *named = rc == CUDA_SUCCESS && fx.attached ? fx_table_get(FX_KIND_HANDLE, handle) : NULL;
    if (named)
        let_out(fx_table_get(FX_KIND_PHYSICAL, named->other));
    fx_table_unlock();
    return rc;
}

CUresult cuMemImportFromShareableHandle(CUmemHandle *handle, void *from, int type)
{
    if (fx.attached)
        fx_imported(1); /* before the driver is asked: who frees it meanwhile must see it */
    fx_table_lock();
    CUresult rc = FX_REAL(cuMemImportFromShareableHandle, CUresult (*)(CUmemHandle *, void *, int))(handle, from, type);
    if (fx.attached) {
        struct fx_entry *named = rc == CUDA_SUCCESS ? fx_table_get(FX_KIND_HANDLE, *handle) : NULL;
        if (rc == CUDA_SUCCESS && !named) {
            remember(*handle, -1, 0, IMPORTED);
        } else {
            if (named) {
                struct fx_entry *physical = fx_table_get(FX_KIND_PHYSICAL, named->other);
                named->n_handles++;
                if (physical)
                    physical->n_handles++;
            }
            fx_imported(-1);
        }
    }
    fx_table_unlock();
    return rc;
}

/* A range as a file of the kernel (dma-buf): whoever has it holds the memory. */
CUresult cuMemGetHandleForAddressRange(void *handle, CUdeviceptr at, size_t bytes, int type, unsigned long long flags)
{
    CUresult rc = FX_REAL(cuMemGetHandleForAddressRange,
                          CUresult (*)(void *, CUdeviceptr, size_t, int, unsigned long long))(handle, at, bytes, type, flags);
    if (rc != CUDA_SUCCESS || !fx.attached)
        return rc;
    fx_table_lock();
    struct fx_entry *entry = fx_table_get(FX_KIND_MEMORY, at), *map = entry ? NULL : map_of(at);
    if (entry && !entry->exported && !entry->small) {
        entry->exported = true;
        fx_shared_exported(entry->card, entry->bytes);
    }
    if (map)
        let_out(fx_table_get(FX_KIND_PHYSICAL, map->other));
    fx_table_unlock();
    return rc;
}

CUresult cuMemCreate(CUmemHandle *handle, size_t bytes, const struct cu_mem_prop *prop, unsigned long long flags)
{
    int card = prop && prop->location.type == CU_MEM_LOCATION_DEVICE ? fx_card_of(prop->location.id) : -1;
    if (card >= 0)
        fx_enter();
    if (card >= 0 && !fx_take_hard(card, bytes)) {
        fx_leave(false);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    fx_table_lock();
    CUresult rc = FX_REAL(cuMemCreate, CUresult (*)(CUmemHandle *, size_t, const struct cu_mem_prop *,
                                                    unsigned long long))(handle, bytes, prop, flags);
    if (card >= 0) {
        if (rc == CUDA_SUCCESS)
            remember(*handle, card, bytes, 0);
        else
            fx_give(card, bytes);
        fx_leave(true);
    }
    fx_table_unlock();
    return rc;
}

CUresult cuMemRelease(CUmemHandle handle)
{
    fx_table_lock();
    CUresult rc = FX_REAL(cuMemRelease, CUresult (*)(CUmemHandle))(handle);
    struct fx_entry *named = rc == CUDA_SUCCESS ? fx_table_get(FX_KIND_HANDLE, handle) : NULL;
    if (named) {
        uint64_t number = named->other;
        struct fx_entry gone;
        if (--named->n_handles <= 0)
            fx_table_take(FX_KIND_HANDLE, handle, &gone);
        struct fx_entry *physical = fx_table_get(FX_KIND_PHYSICAL, number);
        if (physical)
            physical->n_handles--;
        drop_if_dead(number);
    }
    fx_table_unlock();
    return rc;
}

CUresult cuMemRetainAllocationHandle(CUmemHandle *handle, void *at)
{
    fx_table_lock();
    CUresult rc = FX_REAL(cuMemRetainAllocationHandle, CUresult (*)(CUmemHandle *, void *))(handle, at);
    struct fx_entry *map = rc == CUDA_SUCCESS ? map_of((uint64_t)at) : NULL;
    struct fx_entry *physical = map ? fx_table_get(FX_KIND_PHYSICAL, map->other) : NULL;
    if (physical) {
        uint64_t number = physical->key;
        int card = physical->card;
        physical->n_handles++;
        struct fx_entry *named = fx_table_get(FX_KIND_HANDLE, *handle);
        if (!named)
            named = fx_table_put(FX_KIND_HANDLE, *handle, card, 0);
        if (named) {
            named->other = number;
            named->n_handles++;
        }
    }
    fx_table_unlock();
    return rc;
}

CUresult cuMemMap(CUdeviceptr at, size_t bytes, size_t offset, CUmemHandle handle, unsigned long long flags)
{
    fx_table_lock();
    CUresult rc = FX_REAL(cuMemMap, CUresult (*)(CUdeviceptr, size_t, size_t, CUmemHandle, unsigned long long))(
        at, bytes, offset, handle, flags);
    struct fx_entry *named = rc == CUDA_SUCCESS ? fx_table_get(FX_KIND_HANDLE, handle) : NULL;
    struct fx_entry *physical = named ? fx_table_get(FX_KIND_PHYSICAL, named->other) : NULL;
    if (physical) {
        uint64_t number = physical->key;
        physical->n_maps++;
        struct fx_entry *map = fx_table_put(FX_KIND_MAP, at, physical->card, 0);
        if (map) {
            map->other = number;
            map->length = bytes;
        }
    }
    fx_table_unlock();
    return rc;
}

static void forget_map(uint64_t at)
{
    struct fx_entry map;
    if (!fx_table_take(FX_KIND_MAP, at, &map))
        return;
    struct fx_entry *physical = fx_table_get(FX_KIND_PHYSICAL, map.other);
    if (physical)
        physical->n_maps--;
    drop_if_dead(map.other);
}

CUresult cuMemUnmap(CUdeviceptr at, size_t bytes)
{
    fx_table_lock();
    CUresult rc = FX_REAL(cuMemUnmap, CUresult (*)(CUdeviceptr, size_t))(at, bytes);
    if (rc == CUDA_SUCCESS) {
        uint64_t here = at;
        struct fx_entry *map;
        while (here - at < bytes && (map = fx_table_get(FX_KIND_MAP, here))) { /* back to back, the usual case */
            here += map->length;
            forget_map(map->key);
        }
        uint64_t position = 0;
        while (here - at < bytes && (map = fx_table_next(FX_KIND_MAP, &position)))
            if (map->key - at < bytes && map->key >= at) {
                forget_map(map->key);
                position = 0; /* taking out moves others */
            }
    }
    fx_table_unlock();
    return rc;
}
