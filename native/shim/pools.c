/* SPDX-License-Identifier: Apache-2.0
 *
 * Stream-ordered pools. A pool takes memory from the card in steps of its own and keeps it after a free:
 * what counts is what it has reserved. Whether a call makes it grow, and by how much, only the driver knows: what the pool
 * holds may lie in pieces that are too small. So a process that uses pools has a step more charged than they hold, its
 * spare, and what is larger than that is charged before it is asked for. After a call the charge is brought to what the
 * driver says is reserved, and the spare made whole again; where that does not fit the cap the call is taken back.
 */
#include "glibc.h"
#include "pools.h"
#include "charge.h"
#include "measure.h"
#include "shared.h"

FX_EXPORT CUresult cuMemAllocAsync(CUdeviceptr *at, size_t bytes, CUstream stream);
FX_EXPORT CUresult cuMemAllocAsync_ptsz(CUdeviceptr *at, size_t bytes, CUstream stream);
FX_EXPORT CUresult cuMemAllocFromPoolAsync(CUdeviceptr *at, size_t bytes, CUmemoryPool pool, CUstream stream);
FX_EXPORT CUresult cuMemAllocFromPoolAsync_ptsz(CUdeviceptr *at, size_t bytes, CUmemoryPool pool, CUstream stream);
FX_EXPORT CUresult cuMemPoolCreate(CUmemoryPool *pool, const struct cu_pool_props *props);
FX_EXPORT CUresult cuMemPoolDestroy(CUmemoryPool pool);
FX_EXPORT CUresult cuMemPoolTrimTo(CUmemoryPool pool, size_t keep);

#define BLOCK (2ull << 20)
#define STEP (32ull << 20) /* by which a pool usually grows (H200, CUDA 13.0) */
#define MOST_STEP (256ull << 20)

typedef CUresult (*get_attribute)(CUmemoryPool, int, void *);

static uint64_t up(uint64_t bytes, uint64_t unit)
{
    return bytes > UINT64_MAX - unit ? UINT64_MAX : (bytes + unit - 1) / unit * unit;
}

static bool pool_ask(CUmemoryPool pool, int attribute, uint64_t *bytes)
{
    return FX_REAL(cuMemPoolGetAttribute, get_attribute)(pool, attribute, bytes) == CUDA_SUCCESS;
}

/* By card, under the table's lock: what is charged of the spare, and the most that a call was seen to make a pool grow by
 * beyond what was charged for it. */
static uint64_t spare[FX_MAX_DEVICES], step[FX_MAX_DEVICES];

/* Charge `more`, and what the spare lacks: both or nothing. */
static bool spare_whole(int card, uint64_t more)
{
    uint64_t wanted = step[card] < STEP ? STEP : step[card], lacking = wanted > spare[card] ? wanted - spare[card] : 0;
    if (more > UINT64_MAX - lacking || (more + lacking && !fx_take(card, more + lacking)))
        return false;
    spare[card] += lacking;
    return true;
}

static void spare_idle(int card)
{
    uint64_t position = 0;
    struct fx_entry *entry;
    while ((entry = fx_table_next(FX_KIND_POOL, &position)))
        if (entry->card == card && entry->bytes)
            return;
    fx_give(card, spare[card]);
    spare[card] = 0;
}

/* What a pool has more comes out of the spare, as far as that goes: it was charged before it was taken. */
static void grown(int card, uint64_t bytes)
{
    uint64_t spared = bytes < spare[card] ? bytes : spare[card];
    spare[card] -= spared;
    if (bytes > spared)
        fx_take_fact(card, bytes - spared);
}

/* Under the table's lock. */
static bool settle(struct fx_entry *entry)
{
    uint64_t reserved;
    if (!pool_ask((CUmemoryPool)entry->key, CU_MEMPOOL_ATTR_RESERVED_CURRENT, &reserved))
        return false;
    uint64_t was = entry->bytes;
    entry->bytes = reserved;
    if (reserved > was)
        grown(entry->card, reserved - was);
    else
        fx_give(entry->card, was - reserved);
    if (reserved == 0 && spare[entry->card])
        spare_idle(entry->card);
    return reserved < was;
}

uint64_t fx_pools_spare(int card)
{
    return __atomic_load_n(&spare[card], __ATOMIC_SEQ_CST);
}

void fx_pools_forget(void)
{
    for (int card = 0; card < FX_MAX_DEVICES; card++)
        spare[card] = step[card] = 0;
}

bool fx_pools_settle(int card)
{
    bool gave = false;
    uint64_t position = 0;
    struct fx_entry *entry;
    fx_table_lock();
    while ((entry = fx_table_next(FX_KIND_POOL, &position)))
        if (card < 0 || entry->card == card)
            gave |= settle(entry);
    gave |= fx_graphs_settle(card);
    fx_table_unlock();
    return gave;
}

static bool capturing(CUstream stream, bool per_thread)
{
    int status = 0;
    CUresult rc = per_thread ? FX_REAL(cuStreamIsCapturing_ptsz, CUresult (*)(CUstream, int *))(stream, &status)
                             : FX_REAL(cuStreamIsCapturing, CUresult (*)(CUstream, int *))(stream, &status);
    return rc != CUDA_SUCCESS || status != 0;
}

#define MOST_POOLS 256

static void trim(int card)
{
    CUmemoryPool pools[MOST_POOLS];
    int n = 0;
    uint64_t position = 0;
    struct fx_entry *entry;
    fx_table_lock();
    while (n < MOST_POOLS && (entry = fx_table_next(FX_KIND_POOL, &position)))
        if (entry->card == card)
            pools[n++] = (CUmemoryPool)entry->key;
    fx_table_unlock();
    for (int i = 0; i < n; i++)
        FX_REAL(cuMemPoolTrimTo, CUresult (*)(CUmemoryPool, size_t))(pools[i], 0);
    fx_graphs_trim(card);
    fx_pools_settle(card);
}

void fx_pools_squeeze(int card)
{
    if (!fx_capturing()) /* whoever waits for a capture spoils it */
        FX_REAL(cuCtxSynchronize, CUresult (*)(void))();
    trim(card);
    fx_shared_settle();
    if (fx_extra(card))
        fx_measure_twice(1);
}

/* Charge what a pool may grow by before an allocation: the spare, and for a large one all of it, as if nothing of it
 * fitted into what the pool holds. The lock is held. */
static bool charge_growth(struct fx_entry *entry, uint64_t bytes)
{
    settle(entry);
    uint64_t need = up(bytes, BLOCK), large = need > STEP ? need : 0;
    if (!spare_whole(entry->card, large))
        return false;
    entry->bytes += large;
    return true;
}

/* After the call: false when the cap leaves no room for a whole spare beside what the pool has now. The lock is held. */
static bool settle_growth(struct fx_entry *entry)
{
    uint64_t charged = entry->bytes;
    settle(entry);
    uint64_t uncharged = entry->bytes > charged ? entry->bytes - charged : 0;
    if (uncharged > step[entry->card])
        step[entry->card] = uncharged < MOST_STEP ? uncharged : MOST_STEP;
    return entry->bytes == 0 || spare_whole(entry->card, 0);
}

static bool spare_regained(int card)
{
    fx_pools_squeeze(card);
    fx_table_lock();
    bool whole = spare_whole(card, 0);
    fx_table_unlock();
    return whole;
}

static struct fx_entry *pool_entry(CUmemoryPool pool, int card)
{
    struct fx_entry *entry = fx_table_get(FX_KIND_POOL, (uint64_t)pool);
    return entry ? entry : fx_table_put(FX_KIND_POOL, (uint64_t)pool, card, 0);
}

typedef CUresult (*alloc_async)(CUdeviceptr *, size_t, CUstream);
typedef CUresult (*alloc_from)(CUdeviceptr *, size_t, CUmemoryPool, CUstream);

static CUresult allocate(CUdeviceptr *at, size_t bytes, CUmemoryPool pool, CUstream stream, bool per_thread, bool named)
{
    int card = fx_current_card();
    CUdevice device;
    if (stream && fx.n_ordinals > 1 &&
        FX_REAL(cuStreamGetDevice, CUresult (*)(CUstream, CUdevice *))(stream, &device) == CUDA_SUCCESS)
        card = fx_card_of(device);
    bool counted = card >= 0 && !capturing(stream, per_thread); /* captured: charged when the graph is instantiated */
    if (counted && !named)
        counted = FX_REAL(cuDeviceGetMemPool, CUresult (*)(CUmemoryPool *, CUdevice))(&pool, fx.ordinal_of[card]) ==
                  CUDA_SUCCESS;
    if (counted) {
        fx_enter();
        fx_table_lock();
        struct fx_entry *entry = pool_entry(pool, card);
        bool granted = !entry || entry->card < 0 || charge_growth(entry, bytes);
        card = entry && entry->card >= 0 ? entry->card : card; /* a pool of another card may be named */
        if (!granted) {
            fx_table_unlock();
            fx_pools_squeeze(card);
            fx_table_lock();
            entry = pool_entry(pool, card);
            granted = !entry || charge_growth(entry, bytes);
        }
        if (!granted) {
            fx_table_unlock();
            fx_leave(false);
            return CUDA_ERROR_OUT_OF_MEMORY;
        }
    }
    CUresult rc;
    if (named)
        rc = (per_thread ? FX_REAL(cuMemAllocFromPoolAsync_ptsz, alloc_from)
                         : FX_REAL(cuMemAllocFromPoolAsync, alloc_from))(at, bytes, pool, stream);
    else
        rc = (per_thread ? FX_REAL(cuMemAllocAsync_ptsz, alloc_async)
                         : FX_REAL(cuMemAllocAsync, alloc_async))(at, bytes, stream);
    if (counted) {
        struct fx_entry *entry = pool_entry(pool, card);
        bool whole = !entry || entry->card < 0 || settle_growth(entry);
        fx_table_unlock();
        if (!whole && !spare_regained(card) && rc == CUDA_SUCCESS) {
            FX_REAL(cuMemFreeAsync, CUresult (*)(CUdeviceptr, CUstream))(*at, stream);
            fx_pools_squeeze(card);
            rc = CUDA_ERROR_OUT_OF_MEMORY;
        }
        fx_leave(true);
    }
    return rc;
}

CUresult cuMemAllocAsync(CUdeviceptr *at, size_t bytes, CUstream stream)
{
    return allocate(at, bytes, NULL, stream, false, false);
}

CUresult cuMemAllocAsync_ptsz(CUdeviceptr *at, size_t bytes, CUstream stream)
{
    return allocate(at, bytes, NULL, stream, true, false);
}

CUresult cuMemAllocFromPoolAsync(CUdeviceptr *at, size_t bytes, CUmemoryPool pool, CUstream stream)
{
    return allocate(at, bytes, pool, stream, false, true);
}

CUresult cuMemAllocFromPoolAsync_ptsz(CUdeviceptr *at, size_t bytes, CUmemoryPool pool, CUstream stream)
{
    return allocate(at, bytes, pool, stream, true, true);
}

CUresult cuMemPoolCreate(CUmemoryPool *pool, const struct cu_pool_props *props)
{
    CUresult rc = FX_REAL(cuMemPoolCreate, CUresult (*)(CUmemoryPool *, const struct cu_pool_props *))(pool, props);
    if (rc == CUDA_SUCCESS && fx.attached) {
        /* A pool of the host's memory takes none of the card; one of managed memory may, whatever place it prefers. */
        int card = !props                                            ? -1
                   : props->location.type == CU_MEM_LOCATION_DEVICE ? fx_card_of(props->location.id)
                   : props->type == CU_MEM_ALLOCATION_MANAGED       ? fx_current_card()
                                                                    : -1;
        fx_table_lock();
        fx_table_put(FX_KIND_POOL, (uint64_t)*pool, card, 0);
        fx_table_unlock();
    }
    return rc;
}

/* Allocations outlive their pool: what it holds for them stays charged until the driver's ledger shows them gone. */
CUresult cuMemPoolDestroy(CUmemoryPool pool)
{
    fx_table_lock();
    struct fx_entry *entry = fx_table_get(FX_KIND_POOL, (uint64_t)pool), gone;
    uint64_t used = 0;
    if (entry && entry->card >= 0)
        settle(entry);
    if (entry && entry->card >= 0 && !pool_ask(pool, CU_MEMPOOL_ATTR_USED_CURRENT, &used))
        used = entry->bytes;
    CUresult rc = FX_REAL(cuMemPoolDestroy, CUresult (*)(CUmemoryPool))(pool);
    if (rc == CUDA_SUCCESS && fx_table_take(FX_KIND_POOL, (uint64_t)pool, &gone)) {
        uint64_t kept = used ? gone.bytes : 0;
        fx_give(gone.card, gone.bytes - kept);
        fx_extra_add(gone.card, kept);
        if (gone.card >= 0 && spare[gone.card])
            spare_idle(gone.card);
    }
    fx_table_unlock();
    return rc;
}

CUresult cuMemPoolTrimTo(CUmemoryPool pool, size_t keep)
{
    CUresult rc = FX_REAL(cuMemPoolTrimTo, CUresult (*)(CUmemoryPool, size_t))(pool, keep);
    fx_table_lock();
    struct fx_entry *entry = fx_table_get(FX_KIND_POOL, (uint64_t)pool);
    if (entry && entry->card >= 0)
        settle(entry);
    fx_table_unlock();
    return rc;
}
