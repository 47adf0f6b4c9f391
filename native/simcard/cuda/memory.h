/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FLEXAI_SIM_MEMORY_H
#define FLEXAI_SIM_MEMORY_H
#include "sim.h"

struct sim_pool;
struct sim_range;

enum sim_block_kind { SIM_DEVICE, SIM_MANAGED, SIM_POOLED, SIM_HOST_MEMORY, SIM_IMPORTED };

/* One allocation with an address. */
struct sim_block {
    struct sim_block *next;
    struct sim_context *context;
    char *at;
    uint64_t bytes;
    uint64_t taken;         /* of the card, DEVICE: more than what was asked for */
    bool plain;             /* DEVICE: taken as the driver takes it for cuMemAlloc; small ones lie in blocks */
    int card;
    enum sim_block_kind kind;
    struct sim_pool *pool;  /* POOLED */
    struct sim_range *range; /* POOLED: where in the pool */
    uint64_t placed;        /* MANAGED: on the card now, as far as is known */
    uint64_t token;         /* the card's name for it, once others may hold it; 0 = only this process */
    int file;               /* where its contents are, once others may hold it; -1 = pages of this process */
};

CUresult sim_allocate(CUdeviceptr *at, struct sim_block like);
/* The block that an address lies in. */
bool sim_find(CUdeviceptr address, struct sim_block *block);
/* Make it one that others can hold: its token and file are set. */
CUresult sim_open_to_others(CUdeviceptr at, struct sim_block *block);
/* A file of so many bytes, with `name`; with `at`, contents of its pages that were written are put into the file, and the
 * file in their place. Returns it, or -1. */
int sim_into_file(const char *name, char *at, uint64_t bytes);

/* Let others hold so many of this process's bytes; hold, by its token, what another process lets others hold; let go. */
CUresult sim_share(int card, uint64_t bytes, uint64_t *token);
CUresult sim_join(uint64_t token);
void sim_leave(uint64_t token);

/* What is under 1 MiB, in a block with others. */
#define SIM_SMALL (1u << 20)
CUresult sim_small_get(int card, uint64_t bytes, char **at);
void sim_small_give(char *at, uint64_t bytes);

/* Pools: take bytes from one, and give them back. */
CUresult sim_pool_use(struct sim_pool *pool, uint64_t bytes, struct sim_range **range);
void sim_pool_unuse(struct sim_pool *pool, struct sim_range *range);
/* Give back what the pools of a card keep for later; true when that was something. */
bool sim_pools_trim(int card);
#endif
