/* SPDX-License-Identifier: Apache-2.0
 *
 * How much of the card's memory is free, from the page that the driver shares with whoever asks for it
 * (gpu_user_shared_data.c, mem_mgr.c: written each time its allocator of pages gives or takes). Every other way to ask
 * waits for locks that the driver keeps while contexts are made and ended.
 */
#include <errno.h>
#include "nvidia.h"

int nv_memory_open(struct nv_memory *memory, struct nv_card *card)
{
    struct nv_shared_alloc wanted = {0};
    *memory = (struct nv_memory){0};
    int error = nv_alloc(&card->rm, card->subdevice, NV_CLASS_SHARED_DATA, &wanted, sizeof wanted, &memory->object);
    if (error)
        return error;
    memory->data = nv_map(&card->rm, card->device, memory->object, sizeof *memory->data);
    uint64_t ignored;
    error = memory->data ? nv_memory_read(memory, &ignored) : -EIO;
    if (error == -EAGAIN)
        error = 0;
    if (error)
        nv_memory_close(memory, card);
    return error;
}

void nv_memory_close(struct nv_memory *memory, struct nv_card *card)
{
    const struct nv_sys *sys = card->sys;
    if (memory->data)
        sys->unmap(sys->context, (void *)(uintptr_t)memory->data, sizeof *memory->data);
    if (memory->object)
        nv_free(&card->rm, card->subdevice, memory->object);
    *memory = (struct nv_memory){0};
}

int nv_memory_read(const struct nv_memory *memory, uint64_t *free_bytes)
{
    const volatile struct nv_shared_data *data = memory->data;
    for (int i = 0; i < 100; i++) {
        uint64_t before = data->memory_sequence;
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        *free_bytes = data->memory_free_bytes;
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        if (before == 0)
            return -EOPNOTSUPP; /* never written */
        if (before == data->memory_sequence && (before < NV_SEQUENCE_FIRST || before % 2 == 0))
            return 0;
    }
    return -EAGAIN;
}
