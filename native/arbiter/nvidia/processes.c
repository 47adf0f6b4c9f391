/* SPDX-License-Identifier: Apache-2.0
 *
 * Who is known. Of a process only a pidfd is kept: a duplicate of its control descriptor would keep its memory on the
 * card after its death (8 GiB stayed until ours was closed), so that is borrowed for one call and given back.
 */
#include <errno.h>
#include <string.h>
#include "nvidia.h"

int nv_borrow(struct nv_card *card, const struct nv_process *process, int fd)
{
    return card->sys->borrow(card->sys->context, process->pidfd, fd);
}

static struct nv_process *free_place(struct nv_card *card)
{
    for (int i = 0; i < NV_MAX_PROCESSES; i++)
        if (!card->processes[i].used)
            return &card->processes[i];
    for (int i = 0; i < NV_MAX_PROCESSES; i++)
        if (card->sys->process_ended(card->sys->context, card->processes[i].pidfd)) {
            nv_process_drop(card, &card->processes[i]);
            return &card->processes[i];
        }
    return NULL;
}

int nv_process_of(struct nv_card *card, uint32_t pid, struct nv_process **process)
{
    const struct nv_sys *sys = card->sys;
    uint64_t start_ticks = 0;
    int error = sys->start_ticks(sys->context, pid, &start_ticks);
    for (int i = 0; i < NV_MAX_PROCESSES; i++) {
        struct nv_process *known = &card->processes[i];
        if (!known->used || known->pid != pid)
            continue;
        if (!error && known->start_ticks == start_ticks && !sys->process_ended(sys->context, known->pidfd)) {
            *process = known;
            return 0;
        }
        nv_process_drop(card, known); /* dead, or the number has a new owner */
    }
    if (error)
        return error;
    struct nv_process *fresh = free_place(card);
    if (!fresh)
        return -ENOSPC;
    int pidfd = sys->pidfd_open(sys->context, pid);
    if (pidfd < 0)
        return pidfd;
    /* Between the two questions the number may have changed hands. */
    uint64_t again = 0;
    error = sys->start_ticks(sys->context, pid, &again);
    if (!error && again != start_ticks)
        error = -ESRCH;
    if (error) {
        sys->close(sys->context, pidfd);
        return error;
    }
    memset(fresh, 0, sizeof *fresh);
    *fresh = (struct nv_process){.pid = pid, .start_ticks = start_ticks, .pidfd = pidfd, .used = 1};
    *process = fresh;
    return 0;
}

void nv_process_drop(struct nv_card *card, struct nv_process *process)
{
    uint16_t index = (uint16_t)(process - card->processes);
    for (int i = 0; i < NV_MAX_GROUPS; i++)
        if (card->groups[i].used && card->groups[i].process == index)
            nv_group_drop(card, &card->groups[i]);
    while (process->n_clients)
        nv_client_free(process->clients[--process->n_clients]);
    if (process->used)
        card->sys->close(card->sys->context, process->pidfd);
    process->used = 0;
}

uint32_t nv_group_handle(const struct nv_card *card, const struct nv_group *group)
{
    return (uint32_t)group->generation << 16 | (uint32_t)(group - card->groups);
}

struct nv_group *nv_group_of(struct nv_card *card, uint32_t handle)
{
    uint32_t index = handle & 0xFFFF;
    if (index >= NV_MAX_GROUPS)
        return NULL;
    struct nv_group *group = &card->groups[index];
    return group->used && group->generation == handle >> 16 ? group : NULL;
}

struct nv_group *nv_group_add(struct nv_card *card, struct nv_process *process, uint32_t client, uint32_t group)
{
    uint16_t owner = (uint16_t)(process - card->processes);
    struct nv_group *place = NULL;
    for (int i = 0; i < NV_MAX_GROUPS; i++) {
        struct nv_group *g = &card->groups[i];
        if (g->used && g->process == owner && g->client == client && g->group == group)
            return g;
        if (!g->used && !place)
            place = g;
    }
    if (!place)
        return NULL;
    uint16_t generation = (uint16_t)(place->generation + 1);
    memset(place, 0, sizeof *place);
    place->generation = generation;
    place->process = owner;
    place->client = client;
    place->group = group;
    place->used = 1;
    place->unshown = process->start_ticks <= card->opened_ticks;
    card->n_unshown += place->unshown;
    return place;
}

void nv_group_drop(struct nv_card *card, struct nv_group *group)
{
    card->n_unshown -= group->unshown;
    group->used = group->unshown = 0;
}
