/* SPDX-License-Identifier: Apache-2.0
 *
 * Time slices and preemption speak to a tenant's group through its own client, with a descriptor borrowed for the call.
 * Stop and resume speak from our client and name the tenants' channels: one call for up to 64 channels of any tenants.
 */
#include <errno.h>
#include <string.h>
#include "nvidia.h"

static int on_group(struct nv_card *card, uint32_t handle, uint32_t command, void *parameters, size_t n)
{
    struct nv_group *group = nv_group_of(card, handle);
    if (!group)
        return -ESTALE;
    int fd = nv_borrow(card, &card->processes[group->process], group->fd);
    if (fd < 0)
        return fd;
    int error = nv_control_as(&card->rm, fd, group->client, group->group, command, parameters, n);
    card->sys->close(card->sys->context, fd);
    return error;
}

int nv_set_timeslice(struct nv_card *card, uint32_t handle, uint32_t us)
{
    uint64_t wanted = us;
    int error = on_group(card, handle, NV_SET_TIMESLICE, &wanted, sizeof wanted);
    if (!error)
        nv_group_of(card, handle)->asked_us = us;
    return error;
}

int nv_get_timeslice(struct nv_card *card, uint32_t handle, uint32_t *us)
{
    uint64_t found = 0;
    int error = on_group(card, handle, NV_GET_TIMESLICE, &found, sizeof found);
    if (error)
        return error;
    if (found > UINT32_MAX)
        return -EPROTO;
    *us = (uint32_t)found;
    return 0;
}

int nv_timeslice_tampered(struct nv_card *card, uint32_t handle, uint32_t *asked_us, uint32_t *found_us)
{
    int error = nv_get_timeslice(card, handle, found_us);
    if (error)
        return error;
    *asked_us = nv_group_of(card, handle)->asked_us;
    return *asked_us && *asked_us != *found_us;
}

int nv_preempt(struct nv_card *card, uint32_t handle)
{
    struct nv_preempt wanted = NV_PREEMPT_WITHIN(20000); /* forty times what it takes */
    return on_group(card, handle, NV_PREEMPT, &wanted, sizeof wanted);
}

void nv_show(struct nv_card *card)
{
    for (int i = 0; i < NV_MAX_GROUPS && card->n_unshown; i++) {
        struct nv_group *group = &card->groups[i];
        if (!group->used || !group->unshown || group->stopped)
            continue;
        group->unshown = 0;
        card->n_unshown--;
        struct nv_preempt wanted = NV_PREEMPT_WITHIN(5000);
        on_group(card, nv_group_handle(card, group), NV_PREEMPT, &wanted, sizeof wanted);
    }
}

static int send(struct nv_card *card, struct nv_disable *batch, int stopped)
{
    if (!batch->n)
        return 0;
    batch->disable = stopped ? 1 : 0;
    int error = nv_control(&card->rm, card->subdevice, NV_DISABLE_CHANNELS, batch, sizeof *batch);
    batch->n = 0;
    return error;
}

static int add_group(struct nv_card *card, struct nv_disable *batch, const struct nv_group *group, int stopped)
{
    int error = 0;
    for (uint32_t i = 0; i < group->n_channels; i++) {
        batch->clients[batch->n] = group->client;
        batch->channels[batch->n++] = group->channels[i];
        if (batch->n == NV_DISABLE_MAX) {
            int failed = send(card, batch, stopped);
            error = error ? error : failed;
        }
    }
    return error;
}

static int one_group(struct nv_card *card, struct nv_group *group, int stopped)
{
    struct nv_disable batch = {0};
    int error = add_group(card, &batch, group, stopped);
    int failed = send(card, &batch, stopped);
    return error ? error : failed;
}

/* Channels come and go with streams' lives and with their process: what was found earlier may name what is gone. Each
 * channel by itself then, and one that no longer exists needs no stop. */
static int channel_by_channel(struct nv_card *card, struct nv_group *group, int stopped)
{
    int error = 0;
    for (uint32_t i = 0; i < group->n_channels; i++) {
        struct nv_disable batch = {.n = 1, .clients = {group->client}, .channels = {group->channels[i]}};
        int failed = send(card, &batch, stopped);
        if (failed && failed != -ENOENT && !error)
            error = failed;
    }
    return error;
}

static int ended(struct nv_card *card, const struct nv_group *group)
{
    return card->sys->process_ended(card->sys->context, card->processes[group->process].pidfd);
}

/* Together first; if the driver objects, each group by itself, so that one tenant's death holds up nobody. A stop that
 * fails for a living tenant is undone; a resume never is: whoever can run again shall run. */
int nv_stop(struct nv_card *card, const uint32_t *handles, int n, int stopped)
{
    struct nv_disable batch = {0};
    int error = 0, stale = 0;
    for (int i = 0; i < n; i++) {
        struct nv_group *group = nv_group_of(card, handles[i]);
        if (!group) {
            stale = 1;
            continue;
        }
        int failed = add_group(card, &batch, group, stopped);
        error = error ? error : failed;
    }
    if (stopped && stale && n == 1)
        return -ESTALE;
    int failed = send(card, &batch, stopped);
    error = error ? error : failed;
    if (error && stopped == CC_STOP_DYING)
        return error; /* some of it is gone already, and the rest will be */
    if (error) {
        error = 0;
        for (int i = 0; i < n; i++) {
            struct nv_group *group = nv_group_of(card, handles[i]);
            if (!group || !one_group(card, group, stopped) || ended(card, group))
                continue;
            failed = channel_by_channel(card, group, stopped);
            error = error ? error : failed;
        }
    }
    if (error && stopped) {
        for (int i = 0; i < n; i++) {
            struct nv_group *group = nv_group_of(card, handles[i]);
            if (group && !group->stopped)
                channel_by_channel(card, group, 0);
        }
        return error;
    }
    for (int i = 0; i < n; i++) {
        struct nv_group *group = nv_group_of(card, handles[i]);
        if (group && !error)
            group->stopped = stopped ? 1 : 0;
    }
    return error;
}
