/* SPDX-License-Identifier: Apache-2.0
 *
 * Contexts: what one takes on the card is charged before it is made (when the agent knows it), and its end frees what
 * was allocated in it.
 */
#include "glibc.h"
#include "charge.h"
#include "measure.h"

FX_EXPORT CUresult cuCtxCreate(CUcontext *context, unsigned flags, CUdevice device);
FX_EXPORT CUresult cuCtxCreate_v2(CUcontext *context, unsigned flags, CUdevice device);
FX_EXPORT CUresult cuCtxCreate_v3(CUcontext *context, void *affinity, int n, unsigned flags, CUdevice device);
FX_EXPORT CUresult cuCtxCreate_v4(CUcontext *context, void *params, unsigned flags, CUdevice device);
FX_EXPORT CUresult cuCtxDestroy(CUcontext context);
FX_EXPORT CUresult cuCtxDestroy_v2(CUcontext context);
FX_EXPORT CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device);
FX_EXPORT CUresult cuDevicePrimaryCtxRelease(CUdevice device);
FX_EXPORT CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device);
FX_EXPORT CUresult cuDevicePrimaryCtxReset(CUdevice device);
FX_EXPORT CUresult cuDevicePrimaryCtxReset_v2(CUdevice device);

/* What a context will take: told by the agent, or seen when the tenant made its first. */
static uint64_t context_bytes(int card)
{
    struct fx_limits limits;
    if (card < 0 || !fx_limits_read(fx.region.policy, (uint32_t)card, &limits))
        return 0;
    uint64_t seen = __atomic_load_n(&fx.region.ledger->context_mib[card], __ATOMIC_RELAXED);
    return limits.context_bytes ? limits.context_bytes : seen << 20;
}

/* The first context of a tenant is made before anybody knows what it takes. False: it does not fit the slice. */
static bool learn(int card, CUcontext context)
{
    uint64_t took = fx_measure_now(card);
    fx_table_lock();
    struct fx_entry *entry = fx_table_get(FX_KIND_CONTEXT, (uint64_t)context);
    if (entry)
        entry->bytes = took;
    fx_table_unlock();
    if (took)
        __atomic_store_n(&fx.region.ledger->context_mib[card], (uint32_t)((took + (1u << 20) - 1) >> 20),
                         __ATOMIC_RELAXED);
    return __atomic_load_n(&fx.region.ledger->charged_bytes[card], __ATOMIC_SEQ_CST) <= fx_cap(card);
}

/* Remember a context that was made. False: it was new, and does not fit; the caller takes it down again. */
static bool created(CUresult rc, const CUcontext *context, int card, uint64_t bytes)
{
    if (card < 0)
        return true;
    if (rc != CUDA_SUCCESS) {
        fx_give(card, bytes);
        return true;
    }
    fx_table_lock();
    bool is_new = !fx_table_get(FX_KIND_CONTEXT, (uint64_t)*context);
    if (is_new)
        fx_table_put(FX_KIND_CONTEXT, (uint64_t)*context, card, bytes);
    else
        fx_give(card, bytes); /* a primary context that was there already */
    fx_table_unlock();
    return !is_new || bytes || learn(card, *context);
}

static void ended(CUcontext context)
{
    struct fx_entry entry;
    fx_free_owned(context);
    bool known = fx_free_begin(FX_KIND_CONTEXT, (uint64_t)context, &entry);
    fx_free_end(known, CUDA_SUCCESS, &entry);
}

#define CREATE(call)                                                                                                   \
    int card = fx_card_of(device);                                                                                     \
    uint64_t bytes = context_bytes(card);                                                                              \
    fx_enter();                                                                                                        \
    if (card >= 0 && !fx_take_hard(card, bytes)) {                                                                     \
        fx_leave(false);                                                                                               \
        return CUDA_ERROR_OUT_OF_MEMORY;                                                                               \
    }                                                                                                                  \
    CUresult rc = (call);                                                                                              \
    fx_leave(true);                                                                                                    \
    if (created(rc, context, card, bytes))                                                                             \
        return rc;                                                                                                     \
    FX_REAL(cuCtxDestroy_v2, CUresult (*)(CUcontext))(*context);                                                       \
    ended(*context);                                                                                                   \
    return CUDA_ERROR_OUT_OF_MEMORY

CUresult cuCtxCreate(CUcontext *context, unsigned flags, CUdevice device)
{
    CREATE(FX_REAL(cuCtxCreate, CUresult (*)(CUcontext *, unsigned, CUdevice))(context, flags, device));
}

CUresult cuCtxCreate_v2(CUcontext *context, unsigned flags, CUdevice device)
{
    CREATE(FX_REAL(cuCtxCreate_v2, CUresult (*)(CUcontext *, unsigned, CUdevice))(context, flags, device));
}

CUresult cuCtxCreate_v3(CUcontext *context, void *affinity, int n, unsigned flags, CUdevice device)
{
    CREATE(FX_REAL(cuCtxCreate_v3, CUresult (*)(CUcontext *, void *, int, unsigned, CUdevice))(context, affinity, n,
                                                                                                flags, device));
}

CUresult cuCtxCreate_v4(CUcontext *context, void *params, unsigned flags, CUdevice device)
{
    CREATE(FX_REAL(cuCtxCreate_v4, CUresult (*)(CUcontext *, void *, unsigned, CUdevice))(context, params, flags,
                                                                                           device));
}

static bool primary_active(CUdevice device)
{
    unsigned flags;
    int active = 0;
    return FX_REAL(cuDevicePrimaryCtxGetState, CUresult (*)(CUdevice, unsigned *, int *))(device, &flags, &active) ==
               CUDA_SUCCESS &&
           active;
}

/* The primary context's handle by ordinal, to know what ends with it. */
static CUcontext primary[FX_MAX_ORDINALS];

CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device)
{
    int card = fx_card_of(device);
    uint64_t bytes = card >= 0 && !primary_active(device) ? context_bytes(card) : 0;
    fx_enter();
    if (card >= 0 && !fx_take_hard(card, bytes)) {
        fx_leave(false);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    CUresult rc = FX_REAL(cuDevicePrimaryCtxRetain, CUresult (*)(CUcontext *, CUdevice))(context, device);
    fx_leave(true);
    if (created(rc, context, card, bytes)) {
        if (rc == CUDA_SUCCESS && card >= 0)
            primary[device] = *context;
        return rc;
    }
    FX_REAL(cuDevicePrimaryCtxRelease_v2, CUresult (*)(CUdevice))(device);
    ended(*context);
    return CUDA_ERROR_OUT_OF_MEMORY;
}

void fx_contexts_forget(void)
{
    for (int device = 0; device < FX_MAX_ORDINALS; device++)
        primary[device] = NULL;
}

static CUresult primary_released(CUresult rc, CUdevice device)
{
    if (rc == CUDA_SUCCESS && fx_card_of(device) >= 0 && primary[device] && !primary_active(device)) {
        ended(primary[device]);
        primary[device] = NULL;
    }
    return rc;
}

CUresult cuDevicePrimaryCtxRelease(CUdevice device)
{
    return primary_released(FX_REAL(cuDevicePrimaryCtxRelease, CUresult (*)(CUdevice))(device), device);
}

CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device)
{
    return primary_released(FX_REAL(cuDevicePrimaryCtxRelease_v2, CUresult (*)(CUdevice))(device), device);
}

CUresult cuDevicePrimaryCtxReset(CUdevice device)
{
    return primary_released(FX_REAL(cuDevicePrimaryCtxReset, CUresult (*)(CUdevice))(device), device);
}

CUresult cuDevicePrimaryCtxReset_v2(CUdevice device)
{
    return primary_released(FX_REAL(cuDevicePrimaryCtxReset_v2, CUresult (*)(CUdevice))(device), device);
}

CUresult cuCtxDestroy(CUcontext context)
{
    CUresult rc = FX_REAL(cuCtxDestroy, CUresult (*)(CUcontext))(context);
    if (rc == CUDA_SUCCESS && fx.attached)
        ended(context);
    return rc;
}

CUresult cuCtxDestroy_v2(CUcontext context)
{
    CUresult rc = FX_REAL(cuCtxDestroy_v2, CUresult (*)(CUcontext))(context);
    if (rc == CUDA_SUCCESS && fx.attached)
        ended(context);
    return rc;
}
