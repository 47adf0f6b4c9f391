/* SPDX-License-Identifier: Apache-2.0
 * Virtual memory management: physical allocations, address ranges, mappings. Contents of a mapping start empty.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "memory.h"

#define GRANULARITY (2ull << 20)

/* CUmemAllocationProp (10.2), as far as it is looked at */
struct allocation_properties { int type, handles, location_type, location_id; };

struct physical {
    int card, n_owners; /* handles and mappings; card -1: a multicast object, which takes nothing */
    uint64_t bytes;
    uint64_t token;     /* once other processes may hold it, and */
    int file;           /* where its contents are then; else -1 */
    bool imported;
};
struct mapping { struct mapping *next; uint64_t at, bytes; struct physical *memory; bool accessible; };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct mapping *mappings;

static void let_go(struct physical *p)
{
    if (--p->n_owners > 0)
        return;
    if (p->token)
        sim_leave(p->token);
    else if (p->card >= 0)
        sim_give(p->card, p->bytes);
    if (p->file >= 0)
        close(p->file);
    free(p);
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
    *m = (struct physical){s->visible[p->location_id], 1, bytes, 0, -1, false};
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

/* Put the contents where they belong; the lock is held. */
static bool lay(const struct mapping *m)
{
    int protection = m->accessible ? PROT_READ | PROT_WRITE : PROT_NONE;
    int flags = MAP_FIXED | (m->memory->file < 0 ? MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE : MAP_SHARED);
    return mmap((void *)(uintptr_t)m->at, m->bytes, protection, flags, m->memory->file, 0) != MAP_FAILED;
}

SIM_API CUresult cuMemMap(CUdeviceptr at, size_t bytes, size_t offset, uint64_t handle, unsigned long long flags);
SIM_API CUresult cuMemMap(CUdeviceptr at, size_t bytes, size_t offset, uint64_t handle, unsigned long long flags)
{
    struct physical *p = (struct physical *)(uintptr_t)handle;
    struct mapping *m = calloc(1, sizeof *m);
    if (!p || !m || offset || flags || !bytes || bytes > p->bytes || bytes % GRANULARITY || at % GRANULARITY) {
        free(m);
        return m ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_OUT_OF_MEMORY;
    }
    CUresult error = CUDA_SUCCESS;
    pthread_mutex_lock(&lock);
    for (const struct mapping *other = mappings; other; other = other->next)
        if (at < other->at + other->bytes && other->at < at + bytes)
            error = CUDA_ERROR_INVALID_VALUE; /* something is there already */
    *m = (struct mapping){mappings, at, bytes, p, false};
    if (!error && p->file >= 0 && !lay(m))
        error = CUDA_ERROR_OUT_OF_MEMORY;
    if (!error) {
        p->n_owners++;
        mappings = m;
    }
    pthread_mutex_unlock(&lock);
    if (error)
        free(m);
    return error;
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

/* All of the range must be mapped. */
SIM_API CUresult cuMemSetAccess(CUdeviceptr at, size_t bytes, const void *access, size_t n);
SIM_API CUresult cuMemSetAccess(CUdeviceptr at, size_t bytes, const void *access, size_t n)
{
    (void)access, (void)n;
    uint64_t covered = 0;
    pthread_mutex_lock(&lock);
    for (struct mapping *m = mappings; m; m = m->next)
        if (m->at >= at && m->at + m->bytes <= at + bytes)
            covered += m->bytes;
    bool done = covered == bytes && mprotect((void *)(uintptr_t)at, bytes, PROT_READ | PROT_WRITE) == 0;
    for (struct mapping *m = mappings; m && done; m = m->next)
        m->accessible |= m->at >= at && m->at + m->bytes <= at + bytes;
    pthread_mutex_unlock(&lock);
    return done ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
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
        mmap((void *)(uintptr_t)m->at, m->bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
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

#define POSIX_FILE 1 /* CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR */

/* The file's name says what it is to whoever it is handed to. */
SIM_API CUresult cuMemExportToShareableHandle(void *out, uint64_t handle, int type, unsigned long long flags);
SIM_API CUresult cuMemExportToShareableHandle(void *out, uint64_t handle, int type, unsigned long long flags)
{
    struct physical *p = (struct physical *)(uintptr_t)handle;
    if (!out || !p || flags || p->card < 0 || type != POSIX_FILE)
        return type != POSIX_FILE ? CUDA_ERROR_NOT_SUPPORTED : CUDA_ERROR_INVALID_VALUE;
    CUresult error = CUDA_SUCCESS;
    pthread_mutex_lock(&lock);
    if (p->file < 0) {
        char name[96];
        error = sim_share(p->card, p->bytes, &p->token);
        snprintf(name, sizeof name, "simcard-%llu-%d-%llu", (unsigned long long)p->token, p->card,
                 (unsigned long long)p->bytes);
        for (struct mapping *m = mappings; m && !error; m = m->next)
            if (m->memory == p && p->file < 0 && m->accessible) /* several mappings have contents of their own till now */
                p->file = sim_into_file(name, (char *)(uintptr_t)m->at, m->bytes);
        if (!error && p->file < 0)
            p->file = sim_into_file(name, NULL, p->bytes);
        if (!error && (p->file < 0 || ftruncate(p->file, (off_t)p->bytes) != 0))
            error = CUDA_ERROR_OUT_OF_MEMORY;
        for (struct mapping *m = mappings; m && !error; m = m->next)
            if (m->memory == p && !lay(m))
                error = CUDA_ERROR_OUT_OF_MEMORY;
    }
    int copy = error ? -1 : fcntl(p->file, F_DUPFD_CLOEXEC, 0);
    pthread_mutex_unlock(&lock);
    if (!error && copy < 0)
        error = CUDA_ERROR_OUT_OF_MEMORY;
    if (!error)
        memcpy(out, &copy, sizeof copy);
    return error;
}

SIM_API CUresult cuMemImportFromShareableHandle(uint64_t *handle, void *from, int type);
SIM_API CUresult cuMemImportFromShareableHandle(uint64_t *handle, void *from, int type)
{
    char path[64], name[128] = "";
    unsigned long long token, bytes;
    int card;
    if (!sim_session())
        return CUDA_ERROR_NOT_INITIALIZED;
    snprintf(path, sizeof path, "/proc/self/fd/%d", (int)(intptr_t)from);
    if (!handle || type != POSIX_FILE || readlink(path, name, sizeof name - 1) < 0 ||
        sscanf(name, "/memfd:simcard-%llu-%d-%llu", &token, &card, &bytes) != 3)
        return type != POSIX_FILE ? CUDA_ERROR_NOT_SUPPORTED : CUDA_ERROR_INVALID_VALUE;
    struct physical *p = calloc(1, sizeof *p);
    int copy = fcntl((int)(intptr_t)from, F_DUPFD_CLOEXEC, 0);
    CUresult error = p && copy >= 0 ? sim_join(token) : CUDA_ERROR_OUT_OF_MEMORY;
    if (error) {
        free(p);
        if (copy >= 0)
            close(copy);
        return error;
    }
    *p = (struct physical){card, 1, bytes, token, copy, true};
    *handle = (uint64_t)(uintptr_t)p;
    return CUDA_SUCCESS;
}

/* Multicast objects: binding takes no memory; nothing is ever sent. CUmulticastObjectProp */
struct multicast { unsigned n_devices; size_t bytes; unsigned long long handle_types, flags; };

SIM_API CUresult cuMulticastGetGranularity(size_t *bytes, const struct multicast *p, int option);
SIM_API CUresult cuMulticastGetGranularity(size_t *bytes, const struct multicast *p, int option)
{
    (void)option;
    if (!bytes || !p)
        return CUDA_ERROR_INVALID_VALUE;
    *bytes = GRANULARITY;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuMulticastCreate(uint64_t *handle, const struct multicast *p);
SIM_API CUresult cuMulticastCreate(uint64_t *handle, const struct multicast *p)
{
    const struct session *s = sim_session();
    if (!s || !handle || !p || !p->n_devices || (int)p->n_devices > s->n_visible || !p->bytes || p->bytes % GRANULARITY)
        return s ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_NOT_INITIALIZED;
    struct physical *object = calloc(1, sizeof *object);
    if (!object)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *object = (struct physical){-1, 1, p->bytes, 0, -1, false};
    *handle = (uint64_t)(uintptr_t)object;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuMulticastAddDevice(uint64_t handle, CUdevice device);
SIM_API CUresult cuMulticastAddDevice(uint64_t handle, CUdevice device)
{
    const struct session *s = sim_session();
    const struct physical *object = (const struct physical *)(uintptr_t)handle;
    return object && object->card < 0 && s && device >= 0 && device < s->n_visible ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

SIM_API CUresult cuMulticastBindMem(uint64_t handle, size_t at, uint64_t memory, size_t offset, size_t bytes,
                                    unsigned long long flags);
SIM_API CUresult cuMulticastBindMem(uint64_t handle, size_t at, uint64_t memory, size_t offset, size_t bytes,
                                    unsigned long long flags)
{
    const struct physical *object = (const struct physical *)(uintptr_t)handle;
    const struct physical *m = (const struct physical *)(uintptr_t)memory;
    bool fits = object && m && object->card < 0 && m->card >= 0 && !flags && bytes % GRANULARITY == 0 &&
                at + bytes <= object->bytes && offset + bytes <= m->bytes;
    return fits ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

SIM_API CUresult cuMulticastUnbind(uint64_t handle, CUdevice device, size_t at, size_t bytes);
SIM_API CUresult cuMulticastUnbind(uint64_t handle, CUdevice device, size_t at, size_t bytes)
{
    (void)device;
    const struct physical *object = (const struct physical *)(uintptr_t)handle;
    return object && object->card < 0 && at + bytes <= object->bytes ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
