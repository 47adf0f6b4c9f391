/* SPDX-License-Identifier: Apache-2.0
 * Memory pools. A pool takes memory from the card by multiples of 32 MiB (H200, CUDA 13.0): 64 MiB for a first allocation of
 * 33. What is allocated lies in one chunk, which was taken at once (the real driver joins those that follow each other), so a
 * gap that is too small serves nobody. A chunk in which nothing lives is kept, up to the pool's threshold, until the next
 * synchronisation.
 */
#include <stdlib.h>
#include <string.h>
#include "memory.h"

#define STEP (32ull << 20)
#define BLOCK (2ull << 20)
#define LOCATION_DEVICE 1

typedef struct sim_pool *CUmemoryPool;
struct chunk;
struct sim_range { /* what is allocated */
    struct sim_range *next; /* in the chunk, ascending */
    struct chunk *chunk;
    uint64_t at, bytes;
};
struct chunk {
    struct chunk *next;
    struct sim_range *ranges;
    uint64_t bytes;
};
struct sim_pool {
    struct sim_pool *next;
    struct chunk *chunks;
    int ordinal, card;
    bool dead;                /* destroyed; goes when its last allocation does */
    int reuse[4];             /* attributes 1 to 3: follow events, opportunistic, internal dependencies */
    uint64_t threshold, most; /* most: 0 = as much as the card has */
    uint64_t used, reserved, used_high, reserved_high;
};
struct properties { int type, handle_types, location_type, location_id; void *security; size_t most; };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct sim_pool *all, *standard[SIM_MAX_CARDS], *current[SIM_MAX_CARDS]; /* by ordinal */

static uint64_t up(uint64_t bytes, uint64_t unit)
{
    return (bytes + unit - 1) / unit * unit;
}

static struct sim_pool *make(int ordinal, uint64_t most)
{
    struct sim_pool *p = calloc(1, sizeof *p);
    if (p) {
        *p = (struct sim_pool){.next = all, .ordinal = ordinal, .card = sim_session()->visible[ordinal], .reuse = {0, 1, 1, 1},
                               .most = most};
        all = p;
    }
    return p;
}

/* Under the lock: give back chunks in which nothing lives, down to `keep`. */
static bool reduce(struct sim_pool *p, uint64_t keep)
{
    bool gave = false;
    for (struct chunk **at = &p->chunks; *at;) {
        struct chunk *c = *at;
        if (c->ranges || p->reserved - c->bytes < keep) {
            at = &c->next;
            continue;
        }
        *at = c->next;
        p->reserved -= c->bytes;
        sim_give(p->card, c->bytes);
        free(c);
        gave = true;
    }
    return gave;
}

bool sim_pools_trim(int card)
{
    bool gave = false;
    pthread_mutex_lock(&lock);
    for (struct sim_pool *p = all; p; p = p->next)
        gave |= p->card == card && reduce(p, 0);
    pthread_mutex_unlock(&lock);
    return gave;
}

void sim_pools_settle(void)
{
    pthread_mutex_lock(&lock);
    for (struct sim_pool *p = all; p; p = p->next)
        reduce(p, p->threshold);
    pthread_mutex_unlock(&lock);
}

static bool grow(struct sim_pool *p, uint64_t by)
{
    struct chunk *c = calloc(1, sizeof *c);
    if (!c)
        return false;
    pthread_mutex_unlock(&lock); /* the card may ask this very pool to give back */
    CUresult error = sim_take(p->card, by);
    pthread_mutex_lock(&lock);
    if (error) {
        free(c);
        return false;
    }
    *c = (struct chunk){.next = p->chunks, .bytes = by};
    p->chunks = c;
    p->reserved += by;
    return true;
}

/* The first gap that is large enough; false when there is none. */
static bool put(struct sim_pool *p, struct sim_range *range)
{
    for (struct chunk *c = p->chunks; c; c = c->next) {
        uint64_t from = 0;
        for (struct sim_range **at = &c->ranges;; at = &(*at)->next) {
            uint64_t to = *at ? (*at)->at : c->bytes;
            if (to - from >= range->bytes) {
                *range = (struct sim_range){.next = *at, .chunk = c, .at = from, .bytes = range->bytes};
                *at = range;
                return true;
            }
            if (!*at)
                break;
            from = (*at)->at + (*at)->bytes;
        }
    }
    return false;
}

CUresult sim_pool_use(struct sim_pool *p, uint64_t bytes, struct sim_range **range)
{
    struct sim_range *r = calloc(1, sizeof *r);
    CUresult error = r ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
    if (!r)
        return error;
    r->bytes = bytes;
    pthread_mutex_lock(&lock);
    while (!error && !put(p, r)) {
        uint64_t need = up(bytes, BLOCK), step = up(bytes, STEP);
        bool within = !p->most || p->reserved + need <= p->most;
        bool stepping = within && (!p->most || p->reserved + step <= p->most);
        if (!within || (!(stepping && grow(p, step)) && !grow(p, need)))
            error = CUDA_ERROR_OUT_OF_MEMORY;
    }
    if (!error) {
        p->used += bytes;
        p->used_high = p->used > p->used_high ? p->used : p->used_high;
        p->reserved_high = p->reserved > p->reserved_high ? p->reserved : p->reserved_high;
        *range = r;
    } else {
        free(r);
    }
    pthread_mutex_unlock(&lock);
    return error;
}

static void drop_if_dead(struct sim_pool *p)
{
    if (!p->dead || p->used)
        return;
    reduce(p, 0);
    for (struct sim_pool **at = &all; *at; at = &(*at)->next)
        if (*at == p) {
            *at = p->next;
            break;
        }
    free(p);
}

void sim_pool_unuse(struct sim_pool *p, struct sim_range *range)
{
    pthread_mutex_lock(&lock);
    struct sim_range **at = &range->chunk->ranges;
    while (*at != range)
        at = &(*at)->next;
    *at = range->next;
    p->used -= range->bytes;
    free(range);
    drop_if_dead(p);
    pthread_mutex_unlock(&lock);
}

static CUresult ordinal_of(CUdevice device)
{
    const struct session *s = sim_session();
    return !s ? CUDA_ERROR_NOT_INITIALIZED : device < 0 || device >= s->n_visible ? CUDA_ERROR_INVALID_DEVICE : CUDA_SUCCESS;
}

SIM_API CUresult cuDeviceGetDefaultMemPool(CUmemoryPool *pool, CUdevice device);
SIM_API CUresult cuDeviceGetDefaultMemPool(CUmemoryPool *pool, CUdevice device)
{
    CUresult error = ordinal_of(device);
    if (error)
        return error;
    pthread_mutex_lock(&lock);
    if (!standard[device])
        standard[device] = make(device, 0);
    *pool = standard[device];
    pthread_mutex_unlock(&lock);
    return *pool ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

SIM_API CUresult cuDeviceGetMemPool(CUmemoryPool *pool, CUdevice device);
SIM_API CUresult cuDeviceGetMemPool(CUmemoryPool *pool, CUdevice device)
{
    CUresult error = ordinal_of(device);
    if (error)
        return error;
    *pool = current[device];
    return *pool ? CUDA_SUCCESS : cuDeviceGetDefaultMemPool(pool, device);
}

SIM_API CUresult cuDeviceSetMemPool(CUdevice device, CUmemoryPool pool);
SIM_API CUresult cuDeviceSetMemPool(CUdevice device, CUmemoryPool pool)
{
    CUresult error = ordinal_of(device);
    if (error || !pool || pool->ordinal != device)
        return error ? error : CUDA_ERROR_INVALID_VALUE;
    current[device] = pool;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuMemPoolCreate(CUmemoryPool *pool, const struct properties *p);
SIM_API CUresult cuMemPoolCreate(CUmemoryPool *pool, const struct properties *p)
{
    if (!pool || !p || p->type != 1 || p->location_type != LOCATION_DEVICE)
        return p && pool && p->location_type != LOCATION_DEVICE ? CUDA_ERROR_NOT_SUPPORTED : CUDA_ERROR_INVALID_VALUE;
    CUresult error = ordinal_of(p->location_id);
    if (error)
        return error;
    pthread_mutex_lock(&lock);
    *pool = make(p->location_id, up(p->most, BLOCK));
    pthread_mutex_unlock(&lock);
    return *pool ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

SIM_API CUresult cuMemPoolDestroy(CUmemoryPool pool);
SIM_API CUresult cuMemPoolDestroy(CUmemoryPool pool)
{
    if (!pool || pool == standard[pool->ordinal])
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&lock);
    if (current[pool->ordinal] == pool)
        current[pool->ordinal] = NULL;
    pool->dead = true;
    pool->threshold = 0;
    drop_if_dead(pool);
    pthread_mutex_unlock(&lock);
    return CUDA_SUCCESS;
}

SIM_API CUresult cuMemPoolTrimTo(CUmemoryPool pool, size_t keep);
SIM_API CUresult cuMemPoolTrimTo(CUmemoryPool pool, size_t keep)
{
    if (!pool)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&lock);
    reduce(pool, keep);
    pthread_mutex_unlock(&lock);
    return CUDA_SUCCESS;
}

/* Attributes 1 to 3 are ints; 4 threshold, 5 and 6 reserved and its highest, 7 and 8 used and its highest. */
SIM_API CUresult cuMemPoolSetAttribute(CUmemoryPool pool, int attribute, void *value);
SIM_API CUresult cuMemPoolSetAttribute(CUmemoryPool pool, int attribute, void *value)
{
    uint64_t number = 0;
    if (!pool || !value || attribute < 1 || attribute > 8)
        return CUDA_ERROR_INVALID_VALUE;
    memcpy(&number, value, attribute <= 3 ? sizeof(int) : sizeof number);
    if (attribute <= 3)
        pool->reuse[attribute] = number != 0;
    else if (attribute == 4)
        pool->threshold = number;
    else if (number || attribute == 5 || attribute == 7)
        return CUDA_ERROR_INVALID_VALUE; /* the highest can be set to 0 alone */
    else if (attribute == 6)
        pool->reserved_high = 0;
    else
        pool->used_high = 0;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuMemPoolGetAttribute(CUmemoryPool pool, int attribute, void *value);
SIM_API CUresult cuMemPoolGetAttribute(CUmemoryPool pool, int attribute, void *value)
{
    if (!pool || !value || attribute < 1 || attribute > 8)
        return CUDA_ERROR_INVALID_VALUE;
    if (attribute <= 3) {
        memcpy(value, &pool->reuse[attribute], sizeof(int));
        return CUDA_SUCCESS;
    }
    pthread_mutex_lock(&lock);
    const uint64_t figures[] = {pool->threshold, pool->reserved, pool->reserved_high, pool->used, pool->used_high};
    pthread_mutex_unlock(&lock);
    memcpy(value, &figures[attribute - 4], sizeof(uint64_t));
    return CUDA_SUCCESS;
}

SIM_API CUresult cuMemAllocFromPoolAsync(CUdeviceptr *at, size_t bytes, CUmemoryPool pool, CUstream stream);
SIM_API CUresult cuMemAllocFromPoolAsync(CUdeviceptr *at, size_t bytes, CUmemoryPool pool, CUstream stream)
{
    return pool ? sim_alloc_async(at, bytes, stream, pool) : CUDA_ERROR_INVALID_VALUE;
}

SIM_API CUresult cuCtxGetDevice(CUdevice *device);
SIM_API CUresult cuMemAllocAsync(CUdeviceptr *at, size_t bytes, CUstream stream);
SIM_API CUresult cuMemAllocAsync(CUdeviceptr *at, size_t bytes, CUstream stream)
{
    CUdevice device;
    CUmemoryPool pool;
    CUresult error = cuCtxGetDevice(&device);
    if (!error)
        error = cuDeviceGetMemPool(&pool, device);
    return error ? error : sim_alloc_async(at, bytes, stream, pool);
}
