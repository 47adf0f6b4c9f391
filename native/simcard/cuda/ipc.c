/* SPDX-License-Identifier: Apache-2.0
 * Memory that several processes hold: the card knows it by a token, the contents are in a file of the one that made it.
 * It stays on the card until the last has let go, in the account of the process that allocated it and then in nobody's
 * (what a real driver says of it then is not known).
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "memory.h"

#define MAGIC 0x63706973u
#define PAGE 4096u
#define LAZY_PEER_ACCESS 1u /* CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS: also memory of another card, where it stays */

/* CUipcMemHandle: 64 bytes */
struct handle { uint32_t magic, pid; uint64_t token, bytes; int card, file; unsigned char rest[32]; };
_Static_assert(sizeof(struct handle) == 64, "CUipcMemHandle");

static bool copy_written(int file, const char *at, uint64_t bytes)
{
    unsigned char there[512];
    for (uint64_t done = 0; done < bytes; done += sizeof there * PAGE) {
        uint64_t n = bytes - done < sizeof there * PAGE ? bytes - done : sizeof there * PAGE;
        if (mincore((void *)(uintptr_t)(at + done), n, there) != 0)
            return false;
        for (uint64_t page = 0; page * PAGE < n; page++) {
            uint64_t offset = done + page * PAGE, length = bytes - offset < PAGE ? bytes - offset : PAGE;
            if ((there[page] & 1) && pwrite(file, at + offset, length, (off_t)offset) != (ssize_t)length)
                return false;
        }
    }
    return true;
}

int sim_into_file(const char *name, char *at, uint64_t bytes)
{
    int file = memfd_create(name, MFD_CLOEXEC);
    if (file < 0)
        return -1;
    if (ftruncate(file, (off_t)bytes) != 0 ||
        (at && (!copy_written(file, at, bytes) ||
                mmap(at, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, 0) == MAP_FAILED))) {
        close(file);
        return -1;
    }
    return file;
}

SIM_API CUresult cuIpcGetMemHandle(struct handle *handle, CUdeviceptr at);
SIM_API CUresult cuIpcGetMemHandle(struct handle *handle, CUdeviceptr at)
{
    struct sim_block b;
    if (!handle || !sim_find(at, &b) || b.kind != SIM_DEVICE)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult error = sim_open_to_others(at, &b);
    if (!error)
        *handle = (struct handle){MAGIC, (uint32_t)getpid(), b.token, b.bytes, b.card, b.file, {0}};
    return error;
}

/* Seen on two H100s, driver 580.159.04: memory of a card that is not shown to this process is an invalid argument. */
static bool visible(int card)
{
    const struct session *s = sim_session();
    for (int i = 0; s && i < s->n_visible; i++)
        if (s->visible[i] == card)
            return true;
    return false;
}

SIM_API CUresult cuIpcOpenMemHandle_v2(CUdeviceptr *at, struct handle handle, unsigned flags);
SIM_API CUresult cuIpcOpenMemHandle_v2(CUdeviceptr *at, struct handle handle, unsigned flags)
{
    struct sim_context *c = sim_current();
    if (!c)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (!at || handle.magic != MAGIC || flags > LAZY_PEER_ACCESS || !visible(handle.card))
        return CUDA_ERROR_INVALID_VALUE;
    if (handle.pid == (uint32_t)getpid() || (handle.card != c->card && flags != LAZY_PEER_ACCESS))
        return CUDA_ERROR_INVALID_CONTEXT;
    char path[64];
    snprintf(path, sizeof path, "/proc/%u/fd/%d", handle.pid, handle.file);
    int file = open(path, O_RDWR | O_CLOEXEC);
    if (file < 0)
        return CUDA_ERROR_INVALID_VALUE; /* its process is gone, or somebody else's */
    CUresult error = sim_allocate(at, (struct sim_block){.bytes = handle.bytes, .kind = SIM_IMPORTED, .card = handle.card,
                                                         .token = handle.token, .file = file});
    close(file);
    return error;
}

SIM_API CUresult cuIpcOpenMemHandle(CUdeviceptr *at, struct handle handle, unsigned flags);
SIM_API CUresult cuIpcOpenMemHandle(CUdeviceptr *at, struct handle handle, unsigned flags)
{
    return cuIpcOpenMemHandle_v2(at, handle, flags);
}

CUresult cuMemFree_v2(CUdeviceptr at);
SIM_API CUresult cuIpcCloseMemHandle(CUdeviceptr at);
SIM_API CUresult cuIpcCloseMemHandle(CUdeviceptr at)
{
    struct sim_block b;
    return sim_find(at, &b) && b.kind == SIM_IMPORTED && (uintptr_t)b.at == at ? cuMemFree_v2(at)
                                                                              : CUDA_ERROR_INVALID_VALUE;
}
