/* SPDX-License-Identifier: Apache-2.0
 * Small device memory, as the real driver gives it (H200, CUDA 13.0): what is under 1 MiB lies in blocks of 2 MiB, each in
 * one of them, and a block goes back to the card when nothing lives in it.
 */
#include <stdlib.h>
#include <sys/mman.h>
#include "memory.h"

#define BLOCK (2ull << 20)
#define PAGE 4096u
#define N_PAGES (BLOCK / PAGE)

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct block {
    struct block *next;
    int card;
    char *at;
    uint32_t n_used;
    bool used[N_PAGES];
} *blocks;

static uint32_t pages_of(uint64_t bytes)
{
    return (uint32_t)((bytes + PAGE - 1) / PAGE);
}

static char *put(struct block *b, uint32_t n)
{
    for (uint32_t from = 0, free = 0; from + free < N_PAGES;) {
        if (b->used[from + free]) {
            from += free + 1;
            free = 0;
        } else if (++free == n) {
            for (uint32_t i = 0; i < n; i++)
                b->used[from + i] = true;
            b->n_used += n;
            return b->at + (uint64_t)from * PAGE;
        }
    }
    return NULL;
}

/* Address space of a block that begins at a multiple of its size. */
static char *space(void)
{
    char *wide = mmap(NULL, 2 * BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (wide == MAP_FAILED)
        return NULL;
    uint64_t before = (BLOCK - (uintptr_t)wide % BLOCK) % BLOCK;
    if (before)
        munmap(wide, before);
    munmap(wide + before + BLOCK, BLOCK - before);
    return wide + before;
}

CUresult sim_small_get(int card, uint64_t bytes, char **at)
{
    *at = NULL;
    pthread_mutex_lock(&lock);
    for (struct block *b = blocks; b && !*at; b = b->next)
        if (b->card == card)
            *at = put(b, pages_of(bytes));
    pthread_mutex_unlock(&lock);
    if (*at)
        return CUDA_SUCCESS;
    CUresult error = sim_take(card, BLOCK);
    if (error)
        return error;
    struct block *b = calloc(1, sizeof *b);
    if (!b || !(b->at = space())) {
        free(b);
        sim_give(card, BLOCK);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    b->card = card;
    pthread_mutex_lock(&lock);
    *at = put(b, pages_of(bytes));
    b->next = blocks;
    blocks = b;
    pthread_mutex_unlock(&lock);
    return CUDA_SUCCESS;
}

void sim_small_give(char *at, uint64_t bytes)
{
    struct block *gone = NULL;
    uint32_t n = pages_of(bytes);
    /* Its pages may have become a file's, for others. */
    mmap(at, (uint64_t)n * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    pthread_mutex_lock(&lock);
    for (struct block **link = &blocks; *link; link = &(*link)->next) {
        struct block *b = *link;
        if (at < b->at || at >= b->at + BLOCK)
            continue;
        for (uint32_t i = 0; i < n; i++)
            b->used[(uint64_t)(at - b->at) / PAGE + i] = false;
        b->n_used -= n;
        if (!b->n_used) {
            *link = b->next;
            gone = b;
        }
        break;
    }
    pthread_mutex_unlock(&lock);
    if (!gone)
        return;
    munmap(gone->at, BLOCK);
    sim_give(gone->card, BLOCK);
    free(gone);
}
