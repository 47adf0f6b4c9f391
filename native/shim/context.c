/* SPDX-License-Identifier: Apache-2.0
 *
 * Contexts: what one takes on the card is charged before it is made (when the agent knows it), and its end frees what
 * was allocated in it.
 */
#include "glibc.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <unistd.h>

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

/* A context under way. While nobody knows what one takes, a tenant's first is made alone: those that begin meanwhile wait,
 * and are charged what it took. */
struct making {
    int card, lock; /* lock -1: held by nobody */
    uint64_t bytes;
};

#define LEARNT_WITHIN_MS 10000 /* who makes it may be stopped, by a debugger as well */

static int learning_lock(int card)
{
    char path[sizeof fx.dir + 8];
    snprintf(path, sizeof path, "%s/policy", fx.dir); /* its flock serves nothing else; the ledger's is the reapers' */
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    for (int ms = 0; ms < LEARNT_WITHIN_MS && context_bytes(card) == 0; ms++) {
        if (flock(fd, LOCK_EX | LOCK_NB) == 0) {
            if (context_bytes(card) == 0)
                return fd;
            fx_reap_unlock(fd); /* it was learnt just now */
            return -1;
        }
        usleep(1000);
    }
    close(fd);
    return -1;
}

/* False: it does not fit the slice, and is not to be made. */
static bool begin(struct making *making, int card)
{
    *making = (struct making){.card = card, .lock = card >= 0 && context_bytes(card) == 0 ? learning_lock(card) : -1};
    making->bytes = context_bytes(card);
    fx_enter();
    if (card < 0 || fx_take_hard(card, making->bytes))
        return true;
    fx_leave(false);
    return false; /* nothing is refused while its size is not known, so no lock is held here */
}

/* Remember a context that was made. False: it was new, and does not fit; the caller takes it down again. */
static bool made(const struct making *making, CUresult rc, const CUcontext *context)
{
    if (making->card < 0)
        return true;
    if (rc != CUDA_SUCCESS) {
        fx_give(making->card, making->bytes);
        return true;
    }
    fx_table_lock();
    bool is_new = !fx_table_get(FX_KIND_CONTEXT, (uint64_t)*context);
    if (is_new)
        fx_table_put(FX_KIND_CONTEXT, (uint64_t)*context, making->card, making->bytes);
    else
        fx_give(making->card, making->bytes); /* a primary context that was there already */
    fx_table_unlock();
    return !is_new || making->bytes || learn(making->card, *context);
}

static bool end(struct making *making, CUresult rc, const CUcontext *context)
{
    fx_leave(true);
    bool stays = made(making, rc, context);
    if (making->lock >= 0)
        fx_reap_unlock(making->lock);
    return stays;
}

static void ended(CUcontext context)
{
    struct fx_entry entry;
    fx_free_owned(context);
    bool known = fx_free_begin(FX_KIND_CONTEXT, (uint64_t)context, &entry);
    fx_free_end(known, CUDA_SUCCESS, &entry);
}

#define CREATE(call)                                                                                                   \
    struct making making;                                                                                              \
    if (!begin(&making, fx_card_of(device)))                                                                           \
        return CUDA_ERROR_OUT_OF_MEMORY;                                                                               \
    CUresult rc = (call);                                                                                              \
    if (end(&making, rc, context))                                                                                     \
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
    struct making making = {.card = card, .lock = -1};
    if (card >= 0 && primary_active(device))
        fx_enter(); /* it is there, and charged */
    else if (!begin(&making, card))
        return CUDA_ERROR_OUT_OF_MEMORY;
    CUresult rc = FX_REAL(cuDevicePrimaryCtxRetain, CUresult (*)(CUcontext *, CUdevice))(context, device);
    if (end(&making, rc, context)) {
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
