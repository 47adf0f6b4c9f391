/* SPDX-License-Identifier: Apache-2.0
 *
 * The compute groups of a process, found from outside: on a duplicate of one of its control descriptors the driver
 * answers questions about its objects. Which client is its is not told, and each wrong guess is a line in the kernel's
 * log. Clients are numbered upward, so the process's lies between a number drawn before the process began and one drawn
 * now; newest first, each number tried once per process and never again.
 *
 * That objects lie from 0x5C000000 on is a habit of NVIDIA's library (all branches compared), not a law: a process
 * without any there has no groups for us, and is reported so.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "nvidia.h"

#define FIRST_CLIENT 0xC1D00000u
#define FIRST_OBJECT 0x5C000000u
#define BLOCK 4096u
#define MAX_OBJECTS (16 * BLOCK)
#define MAX_GUESSES 4096          /* a call: what a kernel's log can bear once per process */
#define WHOLE_BRACKET 16u         /* so narrow that it is searched to the end, for processes with several clients */

static uint32_t draw(struct nv_card *card)
{
    uint32_t client = nv_fresh_client(card->sys);
    if (client)
        card->drawn[card->n_drawn++ % NV_MAX_DRAWN] = client;
    return client;
}

void nv_mark_now(struct nv_card *card)
{
    uint64_t ticks = card->sys->now_ticks(card->sys->context);
    if (card->n_marks && card->marks[card->n_marks - 1].ticks == ticks)
        return;
    uint32_t client = draw(card);
    if (client < FIRST_CLIENT)
        return;
    if (card->n_marks == NV_MAX_MARKS)
        memmove(card->marks, card->marks + 1, sizeof card->marks[0] * (size_t)--card->n_marks);
    card->marks[card->n_marks++] = (struct nv_mark){.ticks = ticks, .client = client};
}

static uint32_t bracket_start(const struct nv_card *card, uint64_t start_ticks)
{
    uint32_t low = FIRST_CLIENT;
    for (int i = 0; i < card->n_marks; i++)
        if (card->marks[i].ticks < start_ticks && card->marks[i].client > low)
            low = card->marks[i].client;
    return low;
}

struct view { /* of one client, through one borrowed descriptor */
    struct nv_card *card;
    int fd;
    uint32_t client;
    uint32_t n_objects;           /* looked at */
    uint32_t class[MAX_OBJECTS], parent[MAX_OBJECTS];
};

static int info(struct nv_card *card, int fd, uint32_t client, uint32_t object, uint32_t index, uint32_t *value)
{
    struct nv_handle_info ask = {.object = object, .index = index};
    int error = nv_control_as(&card->rm, fd, client, client, NV_GET_HANDLE_INFO, &ask, sizeof ask);
    *value = error ? 0 : (uint32_t)ask.value;
    return error;
}

/* Class of an object, inside what was walked or beyond. */
static uint32_t class_of(struct view *view, uint32_t object)
{
    uint32_t value = 0;
    if (object - FIRST_OBJECT < view->n_objects)
        return view->class[object - FIRST_OBJECT];
    info(view->card, view->fd, view->client, object, NV_HANDLE_CLASS, &value);
    return value;
}

static uint32_t parent_of(struct view *view, uint32_t object)
{
    uint32_t value = 0;
    if (object - FIRST_OBJECT < view->n_objects)
        return view->parent[object - FIRST_OBJECT];
    info(view->card, view->fd, view->client, object, NV_HANDLE_PARENT, &value);
    return value;
}

static int walk(struct view *view)
{
    for (uint32_t end = BLOCK; end <= MAX_OBJECTS; end += BLOCK) {
        int more = 0;
        for (uint32_t i = end - BLOCK; i < end; i++) {
            view->class[i] = view->parent[i] = 0;
            int error = info(view->card, view->fd, view->client, FIRST_OBJECT + i, NV_HANDLE_CLASS, &view->class[i]);
            if (error == -ENODEV || error == -EBADF)
                return error;
            if (error)
                continue;
            info(view->card, view->fd, view->client, FIRST_OBJECT + i, NV_HANDLE_PARENT, &view->parent[i]);
            more |= i >= end - BLOCK / 4; /* numbers are dealt in order: an empty end is the end */
        }
        view->n_objects = end;
        if (!more)
            break;
    }
    return 0;
}

static int on_this_card(struct view *view, uint32_t group)
{
    uint32_t device = parent_of(view, group);
    for (uint32_t i = 0; i < view->n_objects; i++) {
        if (view->class[i] != NV_CLASS_SUBDEVICE || view->parent[i] != device)
            continue;
        uint32_t gpu = NV_NO_GPU;
        if (!nv_control_as(&view->card->rm, view->fd, view->client, FIRST_OBJECT + i, NV_GET_GPU_ID, &gpu, sizeof gpu))
            return gpu == view->card->gpu;
    }
    return view->card->n_cards == 1; /* nobody says which: with one card there is no doubt */
}

static void collect(struct view *view, struct nv_process *process, int fd_number, uint32_t group)
{
    struct nv_group *entry = nv_group_add(view->card, process, view->client, group);
    if (!entry || entry->seen)
        return;
    entry->seen = 1;
    entry->fd = fd_number;
    entry->n_channels = 0;
    for (uint32_t i = 0; i < view->n_objects && entry->n_channels < CC_MAX_GROUP_CHANNELS; i++)
        if (nv_is_channel(view->class[i]) && view->parent[i] == group)
            entry->channels[entry->n_channels++] = FIRST_OBJECT + i;
}

/* Groups that hold a compute object: object -> channel -> group. Others copy, encode or display. */
static int look(struct view *view, struct nv_process *process, int fd_number)
{
    int n = 0, error = walk(view);
    if (error)
        return error;
    for (uint32_t i = 0; i < view->n_objects; i++) {
        if (!nv_is_compute(view->class[i]))
            continue;
        uint32_t channel = view->parent[i];
        uint32_t group = nv_is_channel(class_of(view, channel)) ? parent_of(view, channel) : 0;
        if (!group || class_of(view, group) != NV_CLASS_GROUP || !on_this_card(view, group))
            continue;
        collect(view, process, fd_number, group);
        n++;
    }
    return n;
}

static int look_at(struct nv_card *card, struct nv_process *process, uint32_t client, int fd_number, int fd)
{
    struct view *view = calloc(1, sizeof *view);
    if (!view)
        return -ENOMEM;
    view->card = card;
    view->fd = fd;
    view->client = client;
    int n = look(view, process, fd_number);
    free(view);
    return n;
}

static int is_client(struct nv_card *card, int fd, uint32_t client)
{
    uint32_t class;
    return !info(card, fd, client, client, NV_HANDLE_CLASS, &class);
}

static int known_clients(struct nv_card *card, struct nv_process *process)
{
    int n = 0;
    for (int i = 0; i < process->n_clients; i++) {
        uint32_t client = process->clients[i].client;
        int fd = nv_borrow(card, process, process->clients[i].fd);
        int alive = fd >= 0 && is_client(card, fd, client);
        int found = alive ? look_at(card, process, client, process->clients[i].fd, fd) : 0;
        if (fd >= 0)
            card->sys->close(card->sys->context, fd);
        if (found < 0)
            return found;
        n += found;
        if (!alive)
            process->clients[i--] = process->clients[--process->n_clients];
    }
    return n;
}

static int is_known(const struct nv_card *card, uint32_t client)
{
    if (client == card->rm.client)
        return 1;
    for (int i = 0; i < NV_MAX_DRAWN; i++)
        if (card->drawn[i] == client)
            return 1;
    for (int i = 0; i < NV_MAX_PROCESSES; i++)
        for (int k = 0; card->processes[i].used && k < card->processes[i].n_clients; k++)
            if (card->processes[i].clients[k].client == client)
                return 1;
    return 0;
}

static int try_fd(struct nv_card *card, struct nv_process *process, int fd_number, uint32_t low, uint32_t high,
                  int *guesses)
{
    int groups = 0, whole = high - low <= WHOLE_BRACKET;
    int fd = nv_borrow(card, process, fd_number);
    if (fd < 0)
        return 0; /* closed meanwhile: another may do */
    for (uint32_t client = high; client-- > low && process->n_clients < NV_MAX_CLIENTS;) {
        if (is_known(card, client))
            continue;
        if (!is_client(card, fd, client)) {
            card->n_guesses++;
            if (++*guesses >= MAX_GUESSES)
                break;
            continue;
        }
        int found = look_at(card, process, client, fd_number, fd);
        if (found < 0) {
            groups = found;
            break;
        }
        /* One without groups is kept too: it may be about to make its first context. */
        process->clients[process->n_clients].client = client;
        process->clients[process->n_clients++].fd = fd_number;
        groups += found;
        if (found && !whole)
            break;
    }
    card->sys->close(card->sys->context, fd);
    return groups;
}

static int search(struct nv_card *card, struct nv_process *process)
{
    int fds[NV_MAX_FDS];
    uint32_t low = bracket_start(card, process->start_ticks);
    if (process->tried_to > low)
        low = process->tried_to;
    uint32_t high = draw(card);
    if (high <= low)
        return 0;
    int n_fds = card->sys->control_fds(card->sys->context, process->pid, fds, NV_MAX_FDS);
    if (n_fds < 0)
        return n_fds;
    int groups = 0, guesses = 0, whole = high - low <= WHOLE_BRACKET;
    for (int i = 0; i < n_fds && guesses < MAX_GUESSES && (whole || !groups); i++) {
        int found = try_fd(card, process, fds[i], low, high, &guesses);
        if (found < 0)
            return found;
        groups += found;
    }
    process->tried_to = high;
    return groups;
}

static uint32_t context_of(const struct nv_card *card, uint32_t pid, int n_groups)
{
    uint32_t context = 0;
    int n = 0;
    for (size_t i = 0; i < sizeof card->log.names / sizeof card->log.names[0]; i++)
        if (card->log.names[i].pid == pid) {
            context = card->log.names[i].context;
            n++;
        }
    return n == 1 && n_groups == 1 ? context : 0; /* of several nobody says which is which */
}

int nv_discover(struct nv_card *card, uint32_t pid, struct cc_group *groups, int max)
{
    struct nv_process *process;
    int error = nv_process_of(card, pid, &process);
    if (error)
        return error;
    uint16_t owner = (uint16_t)(process - card->processes);
    for (int i = 0; i < NV_MAX_GROUPS; i++)
        if (card->groups[i].used && card->groups[i].process == owner)
            card->groups[i].seen = 0;
    int found = known_clients(card, process);
    if (found >= 0) {
        int more = search(card, process);
        found = more < 0 ? more : found + more;
    }
    nv_mark_now(card); /* whoever begins after this needs not be sought below it */
    if (card->sys->process_ended(card->sys->context, process->pidfd)) {
        nv_process_drop(card, process);
        return -ESRCH;
    }
    if (found < 0)
        return found;
    int n = 0, n_groups = 0;
    for (int i = 0; i < NV_MAX_GROUPS; i++) {
        struct nv_group *g = &card->groups[i];
        if (!g->used || g->process != owner)
            continue;
        if (!g->seen)
            nv_group_drop(card, g);
        else
            n_groups++;
    }
    for (int i = 0; i < NV_MAX_GROUPS && n < max; i++) {
        struct nv_group *g = &card->groups[i];
        if (g->used && g->process == owner)
            groups[n++] = (struct cc_group){
                .pid = pid,
                .context = context_of(card, pid, n_groups),
                .start_ticks = process->start_ticks,
                .n_channels = g->n_channels,
                .handle = nv_group_handle(card, g),
            };
    }
    return n;
}
