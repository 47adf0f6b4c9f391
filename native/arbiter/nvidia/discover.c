/* SPDX-License-Identifier: Apache-2.0
 * Compute groups of a process, found from outside: on a duplicate of its control descriptor the driver tells class and
 * parent of each object of its client. The client's number must be guessed, and each wrong guess writes a line to the
 * kernel log; numbers count upward, so the guesses go from a fresh client of our own downward, newest first, and stop at
 * the oldest that can be new. The duplicate is closed before we return.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "card.h"

#define FIRST_CLIENT 0xc1d00000u
#define MAX_GUESSES 0x2000u
#define FIRST_OBJECT 0x5c000000u
#define N_OBJECTS 4096u

uint64_t nvidia_start_ticks(uint32_t pid)
{
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%u/stat", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
    if (fd >= 0)
        close(fd);
    text[n > 0 ? n : 0] = 0;
    const char *at = strrchr(text, ')');
    for (int field = 2; at && field < 22; field++)
        at = strchr(at + 1, ' ');
    return at ? strtoull(at, NULL, 10) : 0;
}

/* The number that the driver would give to the next client. */
static uint32_t newest_client(void)
{
    int fd = rm_system->open("/dev/nvidiactl", O_RDWR | O_CLOEXEC);
    uint32_t client = 0;
    if (fd < 0)
        return 0;
    if (rm_alloc(fd, 0, 0, &client, NV01_ROOT_CLIENT, NULL, 0))
        client = 0;
    rm_system->close(fd);
    return client;
}

struct objects { uint32_t class[N_OBJECTS], parent[N_OBJECTS]; };

static void list_objects(int fd, uint32_t client, struct objects *o)
{
    memset(o, 0, sizeof *o);
    for (uint32_t i = 0; i < N_OBJECTS; i++)
        if (!rm_handle_info(fd, client, FIRST_OBJECT + i, NV_INFO_CLASS, &o->class[i]))
            rm_handle_info(fd, client, FIRST_OBJECT + i, NV_INFO_PARENT, &o->parent[i]);
        else
            o->class[i] = 0;
}

static bool listed(const struct objects *o, uint32_t handle, uint32_t *index)
{
    *index = handle - FIRST_OBJECT;
    return *index < N_OBJECTS && o->class[*index];
}

/* Whether the device that the group hangs on is this card. */
static bool on_card(struct nvidia_card *c, int fd, uint32_t client, const struct objects *o, uint32_t device)
{
    for (uint32_t i = 0; i < N_OBJECTS; i++) {
        if (o->class[i] != NV20_SUBDEVICE_0 || o->parent[i] != device)
            continue;
        struct nv_gpu_id id = {0};
        if (!rm_control(fd, client, FIRST_OBJECT + i, NV2080_GPU_GET_ID, &id, sizeof id))
            return id.id == c->gpu_id;
    }
    return true; /* nothing says otherwise: one card, or a driver that does not tell */
}

static struct known_group *remember(struct nvidia_card *c, uint32_t pid, uint64_t ticks, uint32_t client, uint32_t group)
{
    struct known_group *free_one = NULL;
    for (int i = 0; i < MAX_KNOWN; i++) {
        struct known_group *k = &c->known[i];
        if (k->used && k->pid == pid && k->start_ticks == ticks && k->client == client && k->group == group)
            return k;
        if (!k->used && !free_one)
            free_one = k;
    }
    return free_one;
}

static int groups_of_client(struct nvidia_card *c, uint32_t pid, uint64_t ticks, int fd_number, int fd, uint32_t client)
{
    static struct objects o; /* one controller, one thread */
    list_objects(fd, client, &o);
    int found = 0;
    for (uint32_t i = 0; i < N_OBJECTS; i++) {
        uint32_t channel, group;
        if (!nv_is_compute(o.class[i]) || !listed(&o, o.parent[i], &channel) || !nv_is_channel(o.class[channel]) ||
            !listed(&o, o.parent[channel], &group) || o.class[group] != KEPLER_CHANNEL_GROUP_A)
            continue;
        uint32_t handle = FIRST_OBJECT + group;
        if (!on_card(c, fd, client, &o, o.parent[group]))
            continue;
        struct known_group *k = remember(c, pid, ticks, client, handle);
        if (!k)
            return found;
        *k = (struct known_group){
            .used = true, .pid = pid, .start_ticks = ticks, .fd = fd_number, .client = client, .group = handle};
        for (uint32_t j = 0; j < N_OBJECTS && k->n_channels < CC_MAX_GROUP_CHANNELS; j++)
            if (nv_is_channel(o.class[j]) && o.parent[j] == handle)
                k->channel[k->n_channels++] = FIRST_OBJECT + j;
        found++;
    }
    return found;
}

/* Clients that live behind one descriptor: libcuda makes one. */
static int search(struct nvidia_card *c, uint32_t pid, uint64_t ticks, int fd_number, int fd, uint32_t newest)
{
    for (uint32_t guess = newest, n = 0; guess > FIRST_CLIENT && n < MAX_GUESSES; guess--, n++) {
        uint32_t class;
        if (guess == c->root || rm_handle_info(fd, guess, guess, NV_INFO_CLASS, &class))
            continue;
        int found = groups_of_client(c, pid, ticks, fd_number, fd, guess);
        if (found)
            return found;
    }
    return 0;
}

/* What is known already is only looked at again: one call says whether it is still there. */
static int refresh(struct nvidia_card *c, uint32_t pid, uint64_t ticks, int pidfd)
{
    int n = 0;
    for (int i = 0; i < MAX_KNOWN; i++) {
        struct known_group *k = &c->known[i];
        if (!k->used || k->pid != pid)
            continue;
        uint32_t class = 0;
        int fd = k->start_ticks == ticks ? rm_system->pidfd_getfd(pidfd, k->fd) : -1;
        if (fd >= 0 && !rm_handle_info(fd, k->client, k->group, NV_INFO_CLASS, &class) && class == KEPLER_CHANNEL_GROUP_A)
            n += groups_of_client(c, pid, ticks, k->fd, fd, k->client);
        else
            k->used = false;
        if (fd >= 0)
            rm_system->close(fd);
        if (n)
            break; /* all groups of the client were read again */
    }
    return n;
}

static int look(struct nvidia_card *c, uint32_t pid, uint64_t ticks, int pidfd)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%u/fd", pid);
    DIR *folder = opendir(path);
    if (!folder)
        return -ESRCH;
    uint32_t newest = newest_client();
    int found = 0;
    for (struct dirent *e; !found && newest && (e = readdir(folder));) {
        char link[320], target[64];
        snprintf(link, sizeof link, "%s/%s", path, e->d_name);
        ssize_t n = readlink(link, target, sizeof target - 1);
        target[n > 0 ? n : 0] = 0;
        if (strcmp(target, "/dev/nvidiactl") != 0)
            continue;
        int number = atoi(e->d_name), fd = rm_system->pidfd_getfd(pidfd, number);
        if (fd < 0)
            continue;
        found = search(c, pid, ticks, number, fd, newest);
        rm_system->close(fd);
    }
    closedir(folder);
    return found;
}

int nvidia_discover(struct nvidia_card *c, uint32_t pid, struct cc_group *groups, int max)
{
    uint64_t ticks = nvidia_start_ticks(pid);
    int pidfd = rm_system->pidfd_open((pid_t)pid);
    if (pidfd < 0)
        return -errno;
    int found = refresh(c, pid, ticks, pidfd);
    if (!found)
        found = look(c, pid, ticks, pidfd);
    rm_system->close(pidfd);
    if (found < 0)
        return found;
    int n = 0;
    for (int i = 0; i < MAX_KNOWN && n < max; i++) {
        const struct known_group *k = &c->known[i];
        if (k->used && k->pid == pid && k->start_ticks == ticks)
            groups[n++] = (struct cc_group){
                .pid = pid, .start_ticks = ticks, .n_channels = k->n_channels, .handle = (uint32_t)i};
    }
    return n;
}
