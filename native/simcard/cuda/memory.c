/* SPDX-License-Identifier: Apache-2.0
 * Device memory: the card's bytes are taken at the daemon, the contents are pages of this process that nothing backs
 * until they are touched. So copies and fills are real, and 141 GiB cost nothing while nobody writes them.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "sim.h"

#define GRANULE 512u
#define FILL_LIMIT (256ull << 20) /* of one fill, so much is really written: a simulated card has no 141 GiB of host memory */

struct block {
    struct block *next;
    struct sim_context *context;
    char *at;
    uint64_t bytes;
    int card;
    bool host;
    uint64_t *pool; /* bytes of the pool it came from */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct block *blocks;

CUresult sim_take(int card, uint64_t bytes)
{
    struct sc_reply reply;
    struct sc_request r = {.op = SC_MEM_TAKE, .a = card, .v = {bytes}};
    return sim_error(session_ask(&r, &reply, NULL, 0));
}

void sim_give(int card, uint64_t bytes)
{
    struct sc_reply reply;
    struct sc_request r = {.op = SC_MEM_GIVE, .a = card, .v = {bytes}};
    session_ask(&r, &reply, NULL, 0);
}

static CUresult allocate(CUdeviceptr *at, size_t bytes, bool host, uint64_t *pool)
{
    struct sim_context *c = sim_current();
    if (!c)
        return sim_session() ? CUDA_ERROR_INVALID_CONTEXT : CUDA_ERROR_NOT_INITIALIZED;
    if (!at || !bytes || bytes > (1ull << 44))
        return !at || !bytes ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_OUT_OF_MEMORY;
    uint64_t rounded = (bytes + GRANULE - 1) / GRANULE * GRANULE;
    struct block *b = calloc(1, sizeof *b);
    CUresult error = !b ? CUDA_ERROR_OUT_OF_MEMORY : host ? CUDA_SUCCESS : sim_take(c->card, rounded);
    if (error) {
        free(b);
        return error;
    }
    char *pages = mmap(NULL, rounded, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (pages == MAP_FAILED) {
        if (!host)
            sim_give(c->card, rounded);
        free(b);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    *b = (struct block){NULL, c, pages, rounded, c->card, host, pool};
    if (pool)
        __atomic_add_fetch(pool, rounded, __ATOMIC_SEQ_CST);
    pthread_mutex_lock(&lock);
    b->next = blocks;
    blocks = b;
    pthread_mutex_unlock(&lock);
    *at = (CUdeviceptr)(uintptr_t)pages;
    return CUDA_SUCCESS;
}

static struct block *unlist(CUdeviceptr at)
{
    pthread_mutex_lock(&lock);
    struct block **b = &blocks;
    while (*b && (CUdeviceptr)(uintptr_t)(*b)->at != at)
        b = &(*b)->next;
    struct block *found = *b;
    if (found)
        *b = found->next;
    pthread_mutex_unlock(&lock);
    return found;
}

static CUresult release(CUdeviceptr at)
{
    if (!at)
        return CUDA_SUCCESS;
    struct block *b = unlist(at);
    if (!b)
        return CUDA_ERROR_INVALID_VALUE;
    munmap(b->at, b->bytes);
    if (!b->host)
        sim_give(b->card, b->bytes);
    if (b->pool) /* after the card has it: a pool never says less than it holds */
        __atomic_sub_fetch(b->pool, b->bytes, __ATOMIC_SEQ_CST);
    free(b);
    return CUDA_SUCCESS;
}

void sim_memory_forget(struct sim_context *context)
{
    for (;;) {
        pthread_mutex_lock(&lock);
        struct block *b = blocks;
        while (b && (b->context != context || b->host))
            b = b->next;
        CUdeviceptr at = b ? (CUdeviceptr)(uintptr_t)b->at : 0;
        pthread_mutex_unlock(&lock);
        if (!at)
            return;
        release(at);
    }
}

/* The block that an address lies in. */
static bool find(CUdeviceptr address, struct block *out)
{
    bool found = false;
    pthread_mutex_lock(&lock);
    for (struct block *b = blocks; b && !found; b = b->next)
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
    return allocate(at, bytes, false, NULL);
}

SIM_API CUresult cuMemAllocPitch_v2(CUdeviceptr *at, size_t *pitch, size_t width, size_t height, unsigned element);
SIM_API CUresult cuMemAllocPitch_v2(CUdeviceptr *at, size_t *pitch, size_t width, size_t height, unsigned element)
{
    (void)element;
    size_t rounded = (width + 511) / 512 * 512;
    CUresult error = allocate(at, rounded * height, false, NULL);
    if (!error)
        *pitch = rounded;
    return error;
}

SIM_API CUresult cuMemAllocManaged(CUdeviceptr *at, size_t bytes, unsigned flags);
SIM_API CUresult cuMemAllocManaged(CUdeviceptr *at, size_t bytes, unsigned flags)
{
    (void)flags;
    return allocate(at, bytes, false, NULL);
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
    struct block b;
    if (!find(address, &b))
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
    struct block b;
    if (!out || !find(address, &b))
        return CUDA_ERROR_INVALID_VALUE;
    switch (attribute) {
    case 1: *(CUcontext *)out = b.context; return CUDA_SUCCESS;              /* CONTEXT */
    case 2: *(unsigned *)out = b.host ? 1 : 2; return CUDA_SUCCESS;          /* MEMORY_TYPE */
    case 3: *(CUdeviceptr *)out = address; return CUDA_SUCCESS;              /* DEVICE_POINTER */
    case 8: *(int *)out = 0; return CUDA_SUCCESS;                            /* IS_MANAGED */
    case 9: *(int *)out = b.context->ordinal; return CUDA_SUCCESS;           /* DEVICE_ORDINAL */
    default: return CUDA_ERROR_NOT_SUPPORTED;
    }
}

SIM_API CUresult cuMemHostAlloc(void **at, size_t bytes, unsigned flags);
SIM_API CUresult cuMemHostAlloc(void **at, size_t bytes, unsigned flags)
{
    (void)flags;
    CUdeviceptr address = 0;
    CUresult error = at ? allocate(&address, bytes, true, NULL) : CUDA_ERROR_INVALID_VALUE;
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

/* The contents move when the call is made; the card's time passes where the stream gets to it. Programs that look at a
 * copy's result before they have synchronised see it early. */
CUresult sim_copy(CUstream stream, void *to, const void *from, size_t bytes, uint32_t kind, bool synchronous)
{
    struct sim_stream *s = sim_stream(stream);
    if (!s)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (s->capture)
        return sim_graph_add(
            s->capture, &(struct sim_node){.type = SIM_COPY, .to = to, .from = from, .bytes = bytes, .way = kind}, NULL);
    if (bytes)
        memmove(to, from, bytes);
    struct sm_entry copy = {.op = SM_OP_COPY, .amount = bytes, .flags = kind};
    uint64_t seq = 0;
    CUresult error = sim_push(s, &copy, &seq);
    return error || !synchronous ? error : sim_wait(s->index, seq);
}

#define P(address) ((void *)(uintptr_t)(address))

SIM_API CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void *from, size_t bytes);
SIM_API CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void *from, size_t bytes)
{
    return sim_copy(NULL, P(to), from, bytes, SM_COPY_H2D, true);
}

SIM_API CUresult cuMemcpyDtoH_v2(void *to, CUdeviceptr from, size_t bytes);
SIM_API CUresult cuMemcpyDtoH_v2(void *to, CUdeviceptr from, size_t bytes)
{
    return sim_copy(NULL, to, P(from), bytes, SM_COPY_D2H, true);
}

SIM_API CUresult cuMemcpyDtoD_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes);
SIM_API CUresult cuMemcpyDtoD_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes)
{
    return sim_copy(NULL, P(to), P(from), bytes, SM_COPY_D2D, false);
}

SIM_API CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t bytes, CUstream stream);
SIM_API CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t bytes, CUstream stream)
{
    return sim_copy(stream, P(to), from, bytes, SM_COPY_H2D, false);
}

SIM_API CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t bytes, CUstream stream);
SIM_API CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t bytes, CUstream stream)
{
    return sim_copy(stream, to, P(from), bytes, SM_COPY_D2H, false);
}

SIM_API CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream);
SIM_API CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream)
{
    return sim_copy(stream, P(to), P(from), bytes, SM_COPY_D2D, false);
}

static uint32_t direction(CUdeviceptr to, CUdeviceptr from)
{
    struct block a, b;
    bool to_card = find(to, &a) && !a.host, from_card = find(from, &b) && !b.host;
    return to_card && from_card ? SM_COPY_D2D : to_card ? SM_COPY_H2D : SM_COPY_D2H;
}

SIM_API CUresult cuMemcpy(CUdeviceptr to, CUdeviceptr from, size_t bytes);
SIM_API CUresult cuMemcpy(CUdeviceptr to, CUdeviceptr from, size_t bytes)
{
    return sim_copy(NULL, P(to), P(from), bytes, direction(to, from), true);
}

SIM_API CUresult cuMemcpyAsync(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream);
SIM_API CUresult cuMemcpyAsync(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream)
{
    return sim_copy(stream, P(to), P(from), bytes, direction(to, from), false);
}

void sim_write(char *to, uint64_t value, size_t width, size_t bytes)
{
    size_t real = bytes < FILL_LIMIT ? bytes : FILL_LIMIT;
    for (size_t i = 0; i < real; i += width)
        memcpy(to + i, &value, width);
}

static CUresult fill(CUdeviceptr at, uint64_t value, size_t width, size_t n, CUstream stream)
{
    struct block b;
    struct sim_stream *s = sim_stream(stream);
    size_t bytes = width * n;
    if (s && s->capture)
        return sim_graph_add(
            s->capture, &(struct sim_node){.type = SIM_FILL, .to = P(at), .value = value, .width = width, .bytes = bytes},
            NULL);
    if (!(find(at, &b) && at + bytes <= (uintptr_t)b.at + b.bytes) && !sim_mapped(at, bytes))
        return CUDA_ERROR_INVALID_VALUE;
    sim_write(P(at), value, width, bytes);
    struct sm_entry copy = {.op = SM_OP_COPY, .amount = bytes, .flags = SM_COPY_D2D};
    return sim_push(s, &copy, NULL);
}

SIM_API CUresult cuMemsetD8_v2(CUdeviceptr at, unsigned char value, size_t n);
SIM_API CUresult cuMemsetD8_v2(CUdeviceptr at, unsigned char value, size_t n)
{
    return fill(at, value, 1, n, NULL);
}

SIM_API CUresult cuMemsetD16_v2(CUdeviceptr at, unsigned short value, size_t n);
SIM_API CUresult cuMemsetD16_v2(CUdeviceptr at, unsigned short value, size_t n)
{
    return fill(at, value, 2, n, NULL);
}

SIM_API CUresult cuMemsetD32_v2(CUdeviceptr at, unsigned value, size_t n);
SIM_API CUresult cuMemsetD32_v2(CUdeviceptr at, unsigned value, size_t n)
{
    return fill(at, value, 4, n, NULL);
}

SIM_API CUresult cuMemsetD8Async(CUdeviceptr at, unsigned char value, size_t n, CUstream stream);
SIM_API CUresult cuMemsetD8Async(CUdeviceptr at, unsigned char value, size_t n, CUstream stream)
{
    return fill(at, value, 1, n, stream);
}

SIM_API CUresult cuMemsetD32Async(CUdeviceptr at, unsigned value, size_t n, CUstream stream);
SIM_API CUresult cuMemsetD32Async(CUdeviceptr at, unsigned value, size_t n, CUstream stream)
{
    return fill(at, value, 4, n, stream);
}

/* Allocations in stream order: given at once, taken back when the stream is there. */
CUresult sim_alloc_async(CUdeviceptr *at, size_t bytes, CUstream stream, uint64_t *pool)
{
    struct sim_stream *s = sim_stream(stream);
    if (s && s->capture)
        return sim_graph_alloc(s->capture, s->context->card, at, bytes, NULL);
    return allocate(at, bytes, false, pool);
}

SIM_API CUresult cuMemFreeAsync(CUdeviceptr at, CUstream stream);
SIM_API CUresult cuMemFreeAsync(CUdeviceptr at, CUstream stream)
{
    struct sim_stream *s = sim_stream(stream);
    if (!s)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (s->capture)
        return sim_graph_add(s->capture, &(struct sim_node){.type = SIM_FREE, .to = P(at)}, NULL);
    CUresult error = sim_drain(s);
    return error ? error : release(at);
}
