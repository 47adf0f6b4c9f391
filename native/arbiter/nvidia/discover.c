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
#define FIRST_LOOK 512u
#define PART 256u                 /* looked at by a later look */
#define TAIL 64u
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

void nv_client_free(struct nv_client *client)
{
    free(client->objects);
    free(client);
}

struct view { /* of one client, through a descriptor borrowed for the moment */
    struct nv_card *card;
    int fd;
    struct nv_client *of;
};

static int info(struct nv_card *card, int fd, uint32_t client, uint32_t object, uint32_t index, uint32_t *value)
{
    struct nv_handle_info ask = {.object = object, .index = index};
    int error = nv_control_as(&card->rm, fd, client, client, NV_GET_HANDLE_INFO, &ask, sizeof ask);
    *value = error ? 0 : (uint32_t)ask.value;
    return error;
}

/* Class or parent of an object, among those looked at or beyond. */
static uint32_t told(struct view *view, uint32_t object, uint32_t index)
{
    uint32_t value = 0, at = object - FIRST_OBJECT;
    if (at < view->of->n_objects)
        return index == NV_HANDLE_CLASS ? view->of->objects[at].class : view->of->objects[at].parent;
    info(view->card, view->fd, view->of->client, object, index, &value);
    return value;
}

static int look_between(struct view *view, uint32_t from, uint32_t to)
{
    struct nv_client *c = view->of;
    if (to > c->room) {
        uint32_t room = (to + BLOCK - 1) / BLOCK * BLOCK;
        void *more = realloc(c->objects, room * sizeof *c->objects);
        if (!more)
            return -ENOMEM;
        c->objects = more;
        memset(c->objects + c->room, 0, (room - c->room) * sizeof *c->objects);
        c->room = room;
    }
    for (uint32_t i = from; i < to; i++) {
        uint32_t class, parent = 0;
        int error = info(view->card, view->fd, c->client, FIRST_OBJECT + i, NV_HANDLE_CLASS, &class);
        if (error == -ENODEV || error == -EBADF)
            return error;
        if (!error)
            info(view->card, view->fd, c->client, FIRST_OBJECT + i, NV_HANDLE_PARENT, &parent);
        c->objects[i].class = class;
        c->objects[i].parent = parent;
        if (class && i >= c->end)
            c->end = i + 1;
    }
    if (to > c->n_objects)
        c->n_objects = to;
    return 0;
}

/* The first time as far as objects go, and a good way on (PyTorch has some 160); what lies behind, and all of it later,
 * by turns: a look at a known process must not cost the arbiter a turn's exactness. New ones follow the last. */
static int walk(struct view *view)
{
    struct nv_client *c = view->of;
    int error = 0;
    if (!c->n_objects) {
        for (uint32_t to = FIRST_LOOK; !error && to <= BLOCK && c->end + FIRST_LOOK / 2 > c->n_objects; to += FIRST_LOOK)
            error = look_between(view, c->n_objects, to);
        c->cursor = c->n_objects;
        c->n_objects = error ? 0 : BLOCK;
    } else {
        uint32_t from = c->cursor < c->n_objects ? c->cursor : 0;
        uint32_t to = from + PART < c->n_objects ? from + PART : c->n_objects;
        error = look_between(view, from, to);
        c->cursor = to;
        uint32_t tail = c->end + TAIL < MAX_OBJECTS ? c->end + TAIL : MAX_OBJECTS;
        if (!error)
            error = look_between(view, c->end, tail);
    }
    while (!error && c->end + BLOCK / 4 > c->n_objects && c->n_objects < MAX_OBJECTS) {
        uint32_t to = c->n_objects + BLOCK < MAX_OBJECTS ? c->n_objects + BLOCK : MAX_OBJECTS;
        error = look_between(view, c->n_objects, to);
    }
    return error;
}

static int on_this_card(struct view *view, uint32_t group)
{
    uint32_t device = told(view, group, NV_HANDLE_PARENT);
    for (uint32_t i = 0; i < view->of->n_objects; i++) {
        if (view->of->objects[i].class != NV_CLASS_SUBDEVICE || view->of->objects[i].parent != device)
            continue;
        uint32_t gpu = NV_NO_GPU;
        if (!nv_control_as(&view->card->rm, view->fd, view->of->client, FIRST_OBJECT + i, NV_GET_GPU_ID, &gpu, sizeof gpu))
            return gpu == view->card->gpu;
    }
    return view->card->n_cards == 1; /* nobody says which: with one card there is no doubt */
}

/* 1 if the group is ours to schedule. */
static int collect(struct view *view, struct nv_process *process, uint32_t group)
{
    struct nv_group *entry = nv_group_add(view->card, process, view->of->client, group);
    if (!entry || entry->seen)
        return 0;
    if (!on_this_card(view, group)) {
        nv_group_drop(view->card, entry);
        return 0;
    }
    entry->seen = 1;
    entry->fd = view->of->fd;
    entry->n_channels = 0;
    for (uint32_t i = 0; i < view->of->n_objects && entry->n_channels < CC_MAX_GROUP_CHANNELS; i++)
        if (nv_is_channel(view->of->objects[i].class) && view->of->objects[i].parent == group)
            entry->channels[entry->n_channels++] = FIRST_OBJECT + i;
    return 1;
}

/* Groups that hold a compute object: object -> channel -> group. Others copy, encode or display. */
static int look(struct nv_card *card, struct nv_process *process, struct nv_client *client, int fd)
{
    struct view view = {.card = card, .fd = fd, .of = client};
    int n = 0, error = walk(&view);
    if (error)
        return error;
    for (uint32_t i = 0; i < client->n_objects; i++) {
        if (!nv_is_compute(client->objects[i].class))
            continue;
        uint32_t channel = client->objects[i].parent;
        uint32_t group = nv_is_channel(told(&view, channel, NV_HANDLE_CLASS)) ? told(&view, channel, NV_HANDLE_PARENT) : 0;
        if (group && told(&view, group, NV_HANDLE_CLASS) == NV_CLASS_GROUP)
            n += collect(&view, process, group);
    }
    return n;
}

static int is_client(struct nv_card *card, int fd, uint32_t client)
{
    uint32_t class;
    return !info(card, fd, client, client, NV_HANDLE_CLASS, &class);
}

/* A group that is gone says that a context was taken down: everything is looked at again then. */
static int lost_a_group(struct nv_card *card, const struct nv_process *process, const struct nv_client *client, int fd)
{
    for (int i = 0; i < NV_MAX_GROUPS; i++) {
        const struct nv_group *g = &card->groups[i];
        uint32_t class;
        if (g->used && g->process == (uint16_t)(process - card->processes) && g->client == client->client &&
            (info(card, fd, g->client, g->group, NV_HANDLE_CLASS, &class) || class != NV_CLASS_GROUP))
            return 1;
    }
    return 0;
}

static int known_clients(struct nv_card *card, struct nv_process *process)
{
    int n = 0;
    for (int i = 0; i < process->n_clients; i++) {
        struct nv_client *client = process->clients[i];
        int fd = nv_borrow(card, process, client->fd);
        int alive = fd >= 0 && is_client(card, fd, client->client);
        if (alive && lost_a_group(card, process, client, fd))
            client->n_objects = client->end = client->cursor = 0;
        int found = alive ? look(card, process, client, fd) : 0;
        if (fd >= 0)
            card->sys->close(card->sys->context, fd);
        if (found < 0)
            return found;
        n += found;
        if (!alive) {
            nv_client_free(client);
            process->clients[i--] = process->clients[--process->n_clients];
        }
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
            if (card->processes[i].clients[k]->client == client)
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
        struct nv_client *fresh = calloc(1, sizeof *fresh);
        if (!fresh) {
            groups = -ENOMEM;
            break;
        }
        fresh->client = client;
        fresh->fd = fd_number;
        /* One without groups is kept too: it may be about to make its first context. */
        process->clients[process->n_clients++] = fresh;
        int found = look(card, process, fresh, fd);
        if (found < 0) {
            groups = found;
            break;
        }
        groups += found;
        if (found && !whole)
            break;
    }
    card->sys->close(card->sys->context, fd);
    return groups;
}

/* New clients are sought among numbers not tried yet; of a process whose groups are known only when it has other
 * descriptors than before, since a library that makes a client opens one for it. */
static int search(struct nv_card *card, struct nv_process *process, int n_known)
{
    int fds[NV_MAX_FDS];
    int n_fds = card->sys->control_fds(card->sys->context, process->pid, fds, NV_MAX_FDS);
    if (n_fds <= 0)
        return n_fds;
    uint32_t hash = 1;
    for (int i = 0; i < n_fds; i++)
        hash = hash * 31 + (uint32_t)fds[i];
    if (n_known && hash == process->fds_tried)
        return 0;
    uint32_t low = bracket_start(card, process->start_ticks);
    if (process->tried_to > low)
        low = process->tried_to;
    uint32_t high = draw(card);
    if (high <= low)
        return 0;
    int groups = 0, guesses = 0, whole = high - low <= WHOLE_BRACKET;
    for (int i = 0; i < n_fds && guesses < MAX_GUESSES && (whole || !groups); i++) {
        int found = try_fd(card, process, fds[i], low, high, &guesses);
        if (found < 0)
            return found;
        groups += found;
    }
    process->tried_to = high;
    process->fds_tried = hash;
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
        int more = search(card, process, found);
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
