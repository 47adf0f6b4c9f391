/* SPDX-License-Identifier: Apache-2.0 */
#include "glibc.h"
#include "shared.h"

#include "charge.h"

FX_EXPORT CUresult cuIpcGetMemHandle(void *handle, CUdeviceptr at);

/* CUipcMemHandle, passed by value */
struct ipc_handle { unsigned char bytes[64]; };
FX_EXPORT CUresult cuIpcOpenMemHandle(CUdeviceptr *at, struct ipc_handle handle, unsigned flags);
FX_EXPORT CUresult cuIpcOpenMemHandle_v2(CUdeviceptr *at, struct ipc_handle handle, unsigned flags);
FX_EXPORT CUresult cuIpcCloseMemHandle(CUdeviceptr at);

#define MIB (1ull << 20)

/* By card: what is exported and what of it was freed here. Under the table's lock; read without. */
static uint64_t exported[FX_MAX_DEVICES], lingering[FX_MAX_DEVICES];

static void publish(int card)
{
    __atomic_store_n(&fx.region.ledger->slot[fx.slot].exported_mib[card], (uint32_t)((exported[card] + MIB - 1) / MIB),
                     __ATOMIC_SEQ_CST);
}

void fx_shared_exported(int card, uint64_t bytes)
{
    exported[card] += bytes;
    publish(card);
}

static bool anybody(void)
{
    return __atomic_load_n(&fx.region.ledger->slot[fx.slot].n_imports, __ATOMIC_SEQ_CST) ||
           fx_importer(fx.region.ledger, fx.slot) >= 0;
}

bool fx_shared_freed(int card, uint64_t bytes)
{
    if (anybody()) {
        lingering[card] += bytes;
        return true;
    }
    exported[card] -= bytes < exported[card] ? bytes : exported[card];
    publish(card);
    return false;
}

uint64_t fx_shared_bytes(int card)
{
    return __atomic_load_n(&lingering[card], __ATOMIC_SEQ_CST);
}

void fx_shared_settle(void)
{
    fx_disown();
    fx_table_lock();
    for (int card = 0; card < (int)fx.n_cards; card++)
        if (lingering[card] && !anybody()) {
            fx_give(card, lingering[card]);
            exported[card] -= lingering[card] < exported[card] ? lingering[card] : exported[card];
            lingering[card] = 0;
            publish(card);
        }
    fx_table_unlock();
}

void fx_shared_forget(void)
{
    for (int card = 0; card < FX_MAX_DEVICES; card++)
        exported[card] = lingering[card] = 0;
}

void fx_imported(int by)
{
    uint32_t *n = &fx.region.ledger->slot[fx.slot].n_imports;
    if (by > 0)
        __atomic_add_fetch(n, 1, __ATOMIC_SEQ_CST);
    else
        __atomic_sub_fetch(n, 1, __ATOMIC_SEQ_CST);
}

CUresult cuIpcGetMemHandle(void *handle, CUdeviceptr at)
{
    CUresult rc = FX_REAL(cuIpcGetMemHandle, CUresult (*)(void *, CUdeviceptr))(handle, at);
    if (rc == CUDA_SUCCESS && fx.attached) {
        fx_table_lock();
        struct fx_entry *entry = fx_table_get(FX_KIND_MEMORY, at);
        if (entry && !entry->exported && !entry->small) {
            entry->exported = true;
            fx_shared_exported(entry->card, entry->bytes);
        }
        fx_table_unlock();
    }
    return rc;
}

/* The count goes up before the driver is asked: who frees it meanwhile must see it. */
static CUresult opened(CUresult rc, const CUdeviceptr *at)
{
    if (!fx.attached)
        return rc;
    if (rc == CUDA_SUCCESS) {
        fx_table_lock();
        struct fx_entry *entry = fx_table_get(FX_KIND_IMPORT, *at);
        bool again = entry; /* opened twice, it has one address and one count */
        if (!entry)
            entry = fx_table_put(FX_KIND_IMPORT, *at, -1, 0);
        if (entry)
            entry->n_handles++;
        fx_table_unlock();
        if (again || !entry)
            fx_imported(-1);
    } else {
        fx_imported(-1);
    }
    return rc;
}

CUresult cuIpcOpenMemHandle(CUdeviceptr *at, struct ipc_handle handle, unsigned flags)
{
    if (fx.attached)
        fx_imported(1);
    return opened(FX_REAL(cuIpcOpenMemHandle, CUresult (*)(CUdeviceptr *, struct ipc_handle, unsigned))(at, handle, flags),
                  at);
}

CUresult cuIpcOpenMemHandle_v2(CUdeviceptr *at, struct ipc_handle handle, unsigned flags)
{
    if (fx.attached)
        fx_imported(1);
    return opened(
        FX_REAL(cuIpcOpenMemHandle_v2, CUresult (*)(CUdeviceptr *, struct ipc_handle, unsigned))(at, handle, flags), at);
}

CUresult cuIpcCloseMemHandle(CUdeviceptr at)
{
    CUresult rc = FX_REAL(cuIpcCloseMemHandle, CUresult (*)(CUdeviceptr))(at);
    if (rc != CUDA_SUCCESS || !fx.attached)
        return rc;
    fx_table_lock();
    struct fx_entry *entry = fx_table_get(FX_KIND_IMPORT, at), gone;
    bool last = entry && --entry->n_handles <= 0 && fx_table_take(FX_KIND_IMPORT, at, &gone);
    fx_table_unlock();
    if (last)
        fx_imported(-1);
    return rc;
}
