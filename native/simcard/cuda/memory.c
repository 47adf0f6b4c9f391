/* SPDX-License-Identifier: Apache-2.0
 * Device memory: the card's bytes are taken at the daemon, the contents are pages of this process that nothing backs
 * until they are touched. So copies and fills are real, and 141 GiB cost nothing while nobody writes them.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "memory.h"

#define GRANULE 512u
#define BLOCK (2ull << 20)

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct sim_block *blocks;

static int ask(uint32_t op, int card, uint64_t v, uint64_t *out)
{
    struct sc_reply reply = {0};
    struct sc_request r = {.op = op, .a = card, .v = {v}};
    int error = session_ask(&r, &reply, NULL, 0);
    if (out)
        *out = reply.v;
    return error;
}

/* A card that is full gets back what pools of this process hold for later, as the real driver sees to. */
CUresult sim_take(int card, uint64_t bytes)
{
    int error = ask(SC_MEM_TAKE, card, bytes, NULL);
    if (error == -ENOMEM && sim_pools_trim(card))
        error = ask(SC_MEM_TAKE, card, bytes, NULL);
    return sim_error(error);
}

void sim_give(int card, uint64_t bytes)
{
    ask(SC_MEM_GIVE, card, bytes, NULL);
}

CUresult sim_share(int card, uint64_t bytes, uint64_t *token)
{
    return sim_error(ask(SC_MEM_SHARE, card, bytes, token));
}

CUresult sim_join(uint64_t token)
{
    int error = ask(SC_MEM_JOIN, 0, token, NULL);
    return error == -ENOENT ? CUDA_ERROR_INVALID_VALUE : sim_error(error);
}

void sim_leave(uint64_t token)
{
    ask(SC_MEM_LEAVE, 0, token, NULL);
}

static bool is_small(const struct sim_block *b)
{
    return b->kind == SIM_DEVICE && b->plain && b->bytes < SIM_SMALL;
}

/* The card's bytes for a block. */
static CUresult obtain(struct sim_block *b)
{
    switch (b->kind) {
    case SIM_HOST_MEMORY:
        return CUDA_SUCCESS;
    case SIM_MANAGED: /* as much as there is room for; the rest waits in the host's memory */
        return sim_error(ask(SC_MEM_PLACE, b->card, b->bytes, &b->placed));
    case SIM_POOLED:
        return sim_pool_use(b->pool, b->bytes, &b->range);
    case SIM_DEVICE:
        return sim_take(b->card, b->taken);
    case SIM_IMPORTED:
        return sim_join(b->token);
    }
    return CUDA_ERROR_UNKNOWN;
}

static void give_up(const struct sim_block *b)
{
    if (b->token) { /* shared with others: theirs while they hold it */
        sim_leave(b->token);
        return;
    }
    switch (b->kind) {
    case SIM_HOST_MEMORY:
    case SIM_IMPORTED:
        break;
    case SIM_MANAGED:
        ask(SC_MEM_UNPLACE, b->card, b->placed, NULL);
        break;
    case SIM_POOLED:
        sim_pool_unuse(b->pool, b->range);
        break;
    case SIM_DEVICE:
        sim_give(b->card, b->taken);
        break;
    }
}

CUresult sim_allocate(CUdeviceptr *at, struct sim_block like)
{
    struct sim_context *c = sim_current();
    if (!c)
        return sim_session() ? CUDA_ERROR_INVALID_CONTEXT : CUDA_ERROR_NOT_INITIALIZED;
    if (!at || !like.bytes || like.bytes > (1ull << 44))
        return !at || !like.bytes ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_OUT_OF_MEMORY;
    struct sim_block *b = malloc(sizeof *b);
    if (!b)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *b = like;
    b->bytes = (like.bytes + GRANULE - 1) / GRANULE * GRANULE;
    b->context = c;
    if (b->kind != SIM_IMPORTED)
        b->card = c->card;
    b->taken = b->plain ? (b->bytes + BLOCK - 1) / BLOCK * BLOCK : b->bytes;
    bool small = is_small(b);
    CUresult error = small ? sim_small_get(b->card, b->bytes, &b->at) : obtain(b);
    if (error) {
        free(b);
        return error;
    }
    if (!small)
        b->at = mmap(NULL, b->bytes, PROT_READ | PROT_WRITE,
                 like.file < 0 ? MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE : MAP_SHARED, like.file, 0);
    if (b->at == MAP_FAILED) {
        give_up(b);
        free(b);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    pthread_mutex_lock(&lock);
    b->next = blocks;
    blocks = b;
    pthread_mutex_unlock(&lock);
    *at = (CUdeviceptr)(uintptr_t)b->at;
    return CUDA_SUCCESS;
}

static CUresult allocate(CUdeviceptr *at, size_t bytes, enum sim_block_kind kind)
{
    return sim_allocate(at, (struct sim_block){.bytes = bytes, .kind = kind, .file = -1, .plain = kind == SIM_DEVICE});
}

static struct sim_block *unlist(CUdeviceptr at)
{
    pthread_mutex_lock(&lock);
    struct sim_block **b = &blocks;
    while (*b && (CUdeviceptr)(uintptr_t)(*b)->at != at)
        b = &(*b)->next;
    struct sim_block *found = *b;
    if (found)
        *b = found->next;
    pthread_mutex_unlock(&lock);
    return found;
}

static CUresult release(CUdeviceptr at)
{
    if (!at)
        return CUDA_SUCCESS;
    struct sim_block *b = unlist(at);
    if (!b)
        return CUDA_ERROR_INVALID_VALUE;
    if (is_small(b)) {
        sim_small_give(b->at, b->bytes);
        if (b->token)
            sim_leave(b->token);
    } else {
        munmap(b->at, b->bytes);
        give_up(b);
    }
    if (b->kind != SIM_IMPORTED && b->file >= 0)
        close(b->file);
    free(b);
    return CUDA_SUCCESS;
}

void sim_memory_forget(struct sim_context *context)
{
    for (;;) {
        pthread_mutex_lock(&lock);
        struct sim_block *b = blocks;
        while (b && (b->context != context || b->kind == SIM_HOST_MEMORY))
            b = b->next;
        CUdeviceptr at = b ? (CUdeviceptr)(uintptr_t)b->at : 0;
        pthread_mutex_unlock(&lock);
        if (!at)
            return;
        release(at);
    }
}

CUresult sim_open_to_others(CUdeviceptr at, struct sim_block *out)
{
    CUresult error = CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&lock);
    struct sim_block *b = blocks;
    while (b && (CUdeviceptr)(uintptr_t)b->at != at)
        b = b->next;
    if (b && b->token) {
        error = CUDA_SUCCESS;
    } else if (b) {
        b->file = sim_into_file("flexai-simcard", b->at, b->bytes);
        error = b->file < 0 ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS;
        if (!error && is_small(b)) /* its block stays this process's; what others hold is the allocation alone */
            error = sim_take(b->card, b->bytes);
        if (!error)
            error = sim_share(b->card, is_small(b) || b->kind != SIM_DEVICE ? b->bytes : b->taken, &b->token);
    }
    if (!error)
        *out = *b;
    pthread_mutex_unlock(&lock);
    return error;
}

/* The block that an address lies in. */
bool sim_find(CUdeviceptr address, struct sim_block *out)
{
    bool found = false;
    pthread_mutex_lock(&lock);
    for (struct sim_block *b = blocks; b && !found; b = b->next)
        if (address >= (uintptr_t)b->at && address < (uintptr_t)b->at + b->bytes) {
            *out = *b;
            found = true;
        }
    pthread_mutex_unlock(&lock);
    return found;
}

SIM_API CUresult cuMemAlloc_v2(CUdeviceptr *at, size_t bytes);
SIM_API CUresult cuMemAlloc_v2(CUdeviceptr *at, size_t bytes)
{
    return allocate(at, bytes, SIM_DEVICE);
}

SIM_API CUresult cuMemAllocPitch_v2(CUdeviceptr *at, size_t *pitch, size_t width, size_t height, unsigned element);
SIM_API CUresult cuMemAllocPitch_v2(CUdeviceptr *at, size_t *pitch, size_t width, size_t height, unsigned element)
{
    (void)element;
    size_t rounded = (width + 511) / 512 * 512;
    CUresult error = allocate(at, rounded * height, SIM_DEVICE);
    if (!error)
        *pitch = rounded;
    return error;
}

SIM_API CUresult cuMemAllocManaged(CUdeviceptr *at, size_t bytes, unsigned flags);
SIM_API CUresult cuMemAllocManaged(CUdeviceptr *at, size_t bytes, unsigned flags)
{
    if (flags != 1 && flags != 2) /* attached to all, or to the host */
        return CUDA_ERROR_INVALID_VALUE;
    return allocate(at, bytes, SIM_MANAGED);
}

SIM_API CUresult cuMemFree_v2(CUdeviceptr at);
SIM_API CUresult cuMemFree_v2(CUdeviceptr at)
{
    struct sim_context *c = sim_current();
    if (at && c)
        sim_drain_context(c);
    return release(at);
}

SIM_API CUresult cuMemGetInfo_v2(size_t *free_bytes, size_t *total);
SIM_API CUresult cuMemGetInfo_v2(size_t *free_bytes, size_t *total)
{
    struct sim_context *c = sim_current();
    if (!c)
        return CUDA_ERROR_INVALID_CONTEXT;
    struct sc_figures figures;
    struct sc_reply reply;
    struct sc_request r = {.op = SC_FIGURES, .a = c->card};
    CUresult error = sim_error(session_ask(&r, &reply, &figures, sizeof figures));
    if (error)
        return error;
    *total = sim_session()->card[c->card].memory_bytes;
    *free_bytes = *total - figures.memory_used;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuMemGetAddressRange_v2(CUdeviceptr *base, size_t *bytes, CUdeviceptr address);
SIM_API CUresult cuMemGetAddressRange_v2(CUdeviceptr *base, size_t *bytes, CUdeviceptr address)
{
    struct sim_block b;
    if (!sim_find(address, &b))
        return CUDA_ERROR_NOT_FOUND;
    if (base)
        *base = (CUdeviceptr)(uintptr_t)b.at;
    if (bytes)
        *bytes = b.bytes;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuPointerGetAttribute(void *out, int attribute, CUdeviceptr address);
SIM_API CUresult cuPointerGetAttribute(void *out, int attribute, CUdeviceptr address)
{
    struct sim_block b;
    if (!out || !sim_find(address, &b))
        return CUDA_ERROR_INVALID_VALUE;
    switch (attribute) {
    case 1: *(CUcontext *)out = b.context; return CUDA_SUCCESS;              /* CONTEXT */
    case 2: *(unsigned *)out = b.kind == SIM_HOST_MEMORY ? 1 : 2; return CUDA_SUCCESS;          /* MEMORY_TYPE */
    case 3: *(CUdeviceptr *)out = address; return CUDA_SUCCESS;              /* DEVICE_POINTER */
    case 8: *(int *)out = b.kind == SIM_MANAGED; return CUDA_SUCCESS;                            /* IS_MANAGED */
    case 9: *(int *)out = b.context->ordinal; return CUDA_SUCCESS;           /* DEVICE_ORDINAL */
    default: return CUDA_ERROR_NOT_SUPPORTED;
    }
}

SIM_API CUresult cuMemHostAlloc(void **at, size_t bytes, unsigned flags);
SIM_API CUresult cuMemHostAlloc(void **at, size_t bytes, unsigned flags)
{
    (void)flags;
    CUdeviceptr address = 0;
    CUresult error = at ? allocate(&address, bytes, SIM_HOST_MEMORY) : CUDA_ERROR_INVALID_VALUE;
    if (!error)
        *at = (void *)(uintptr_t)address;
    return error;
}

SIM_API CUresult cuMemAllocHost_v2(void **at, size_t bytes);
SIM_API CUresult cuMemAllocHost_v2(void **at, size_t bytes)
{
    return cuMemHostAlloc(at, bytes, 0);
}

SIM_API CUresult cuMemFreeHost(void *at);
SIM_API CUresult cuMemFreeHost(void *at)
{
    return release((CUdeviceptr)(uintptr_t)at);
}

SIM_API CUresult cuMemHostRegister_v2(void *at, size_t bytes, unsigned flags);
SIM_API CUresult cuMemHostRegister_v2(void *at, size_t bytes, unsigned flags)
{
    (void)flags;
    return at && bytes ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

SIM_API CUresult cuMemHostUnregister(void *at);
SIM_API CUresult cuMemHostUnregister(void *at)
{
    return at ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

SIM_API CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr *device, void *host, unsigned flags);
SIM_API CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr *device, void *host, unsigned flags)
{
    (void)flags;
    *device = (CUdeviceptr)(uintptr_t)host;
    return CUDA_SUCCESS;
}

/* Allocations in stream order: given at once, taken back when the stream is there. */
CUresult sim_alloc_async(CUdeviceptr *at, size_t bytes, CUstream stream, struct sim_pool *pool)
{
    struct sim_stream *s = sim_stream(stream);
    if (s && s->capture)
        return sim_graph_alloc(s->capture, s->context->card, at, bytes, NULL);
    return sim_allocate(at, (struct sim_block){.bytes = bytes, .kind = SIM_POOLED, .pool = pool, .file = -1});
}

SIM_API CUresult cuMemFreeAsync(CUdeviceptr at, CUstream stream);
SIM_API CUresult cuMemFreeAsync(CUdeviceptr at, CUstream stream)
{
    struct sim_stream *s = sim_stream(stream);
    if (!s)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (s->capture)
        return sim_graph_add(s->capture, &(struct sim_node){.type = SIM_FREE, .to = (char *)(uintptr_t)at}, NULL);
    CUresult error = sim_drain(s);
    return error ? error : release(at);
}
