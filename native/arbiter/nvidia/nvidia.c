/* SPDX-License-Identifier: Apache-2.0
 * ChannelControl on NVIDIA's driver. One controller per node: these calls take machine-wide driver locks.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "card.h"

#define MAX_A_CALL 64

static bool uuid_is(struct nvidia_card *c, const char *uuid)
{
    struct nv_gid_info gid = {0};
    if (rm_control(c->control, c->root, c->subdevice, NV2080_GPU_GET_GID_INFO, &gid, sizeof gid))
        return false;
    gid.data[sizeof gid.data - 1] = 0;
    return !strcmp((const char *)gid.data, uuid);
}

/* Our device and subdevice objects on the card with this UUID. */
static int attach(struct nvidia_card *c, const char *uuid)
{
    struct nv_attached_ids ids;
    memset(&ids, 0xff, sizeof ids);
    int error = rm_control(c->control, c->root, c->root, NV0000_GPU_GET_ATTACHED_IDS, &ids, sizeof ids);
    for (int i = 0; !error && i < 32 && ids.id[i] != 0xffffffffu; i++) {
        struct nv_id_info info = {.id = ids.id[i]};
        if (rm_control(c->control, c->root, c->root, NV0000_GPU_GET_ID_INFO_V2, &info, sizeof info))
            continue;
        struct nv_device_params device = {.id = info.device, .share = c->root, .mode = 2};
        struct nv_subdevice_params subdevice = {info.subdevice};
        c->device = 0xf1000001;
        c->subdevice = 0xf1000002;
        if (rm_alloc(c->control, c->root, c->root, &c->device, NV01_DEVICE_0, &device, sizeof device))
            continue;
        if (!rm_alloc(c->control, c->root, c->device, &c->subdevice, NV20_SUBDEVICE_0, &subdevice, sizeof subdevice) &&
            uuid_is(c, uuid)) {
            c->gpu_id = info.id;
            return 0;
        }
        rm_free(c->control, c->root, c->root, c->device);
    }
    return error ? error : -ENODEV;
}

/* A card counts as attached only while somebody holds its device file: hold all of them until ours is found. */
static int open_files(struct nvidia_card *c)
{
    DIR *folder = opendir("/dev");
    int n = 0;
    for (struct dirent *e; folder && (e = readdir(folder));) {
        unsigned minor;
        char rest, path[300];
        if (sscanf(e->d_name, "nvidia%u%c", &minor, &rest) != 1)
            continue;
        snprintf(path, sizeof path, "/dev/%s", e->d_name);
        int fd = rm_system->open(path, O_RDWR | O_CLOEXEC);
        if (fd < 0)
            continue;
        rm_register(fd, c->control);
        c->device_fd = fd; /* kept for the life of the process: the descriptors are few and hold no memory */
        n++;
    }
    if (folder)
        closedir(folder);
    return n ? 0 : -ENODEV;
}

static void nvidia_close(void *self)
{
    struct nvidia_card *c = self;
    nvidia_log_close(c);
    rm_system->close(c->control);
    if (c->device_fd >= 0)
        rm_system->close(c->device_fd);
    free(c);
}

static int nvidia_open(void **self, const char *uuid, char *why, size_t n_why)
{
    struct nvidia_card *c = calloc(1, sizeof *c);
    if (!c)
        return -ENOMEM;
    c->device_fd = -1;
    c->control = rm_system->open("/dev/nvidiactl", O_RDWR | O_CLOEXEC);
    int error = c->control < 0 ? -errno : 0;
    const char *what = "/dev/nvidiactl";
    if (!error) {
        what = "a client of the driver";
        error = rm_alloc(c->control, 0, 0, &c->root, NV01_ROOT_CLIENT, NULL, 0);
    }
    if (!error) {
        what = "the card's device file";
        error = open_files(c);
    }
    if (!error) {
        what = "the card";
        error = attach(c, uuid);
    }
    if (error) {
        snprintf(why, n_why, "%s: %s: %s", uuid, what, strerror(-error));
        if (c->control >= 0)
            rm_system->close(c->control);
        free(c);
        return error;
    }
    *self = c;
    return 0;
}

static int nvidia_self_test(void *self, struct cc_capabilities *caps)
{
    struct nvidia_card *c = self;
    memset(caps, 0, sizeof *caps);
    uint32_t class = 0;
    caps->discover = !rm_handle_info(c->control, c->root, c->subdevice, NV_INFO_CLASS, &class) && class == NV20_SUBDEVICE_0;
    struct nv_disable_channels none = {.disable = 0};
    int stop = rm_control(c->control, c->root, c->subdevice, NV2080_FIFO_DISABLE_CHANNELS, &none, sizeof none);
    caps->stop = stop != -EPERM && stop != -ENOTTY && stop != -EINVAL;
    /* Time slices and preemption act on a group; that they are there is known when the first one is found. */
    caps->timeslice = caps->preempt = caps->discover;
    int log = c->header ? 0 : nvidia_log_open(c);
    caps->log = log == 0;
    if (!caps->log || !caps->stop || !caps->discover)
        snprintf(caps->note, sizeof caps->note, "%s%s%s%s", caps->discover ? "" : "no object info; ",
                 caps->stop ? "" : "no stop; ", caps->log ? "" : "no context-switch log: ",
                 caps->log ? "" : strerror(-log));
    return caps->discover || caps->log ? 0 : -ENOTSUP;
}

static int discover(void *self, uint32_t pid, struct cc_group *groups, int max)
{
    return nvidia_discover(self, pid, groups, max);
}

static struct known_group *known(struct nvidia_card *c, uint32_t handle)
{
    return handle < MAX_KNOWN && c->known[handle].used ? &c->known[handle] : NULL;
}

static void forget(void *self, uint32_t handle)
{
    struct known_group *k = known(self, handle);
    if (k)
        k->used = false;
}

/* A control on the group itself needs the process's own descriptor: borrowed for the one call. */
static int on_group(struct nvidia_card *c, uint32_t handle, uint32_t cmd, void *params, size_t n)
{
    struct known_group *k = known(c, handle);
    if (!k)
        return -ESRCH;
    int pidfd = rm_system->pidfd_open((pid_t)k->pid);
    if (pidfd < 0)
        return -ESRCH;
    int error = nvidia_start_ticks(k->pid) == k->start_ticks ? 0 : -ESRCH;
    int fd = error ? -1 : rm_system->pidfd_getfd(pidfd, k->fd);
    if (fd >= 0) {
        error = rm_control(fd, k->client, k->group, cmd, params, n);
        rm_system->close(fd);
    } else if (!error)
        error = -ESRCH;
    rm_system->close(pidfd);
    return error;
}

static int set_timeslice(void *self, uint32_t handle, uint32_t us)
{
    struct nv_timeslice t = {us};
    return on_group(self, handle, NVA06C_SET_TIMESLICE, &t, sizeof t);
}

static int get_timeslice(void *self, uint32_t handle, uint32_t *us)
{
    struct nv_timeslice t = {0};
    int error = on_group(self, handle, NVA06C_GET_TIMESLICE, &t, sizeof t);
    *us = (uint32_t)t.us;
    return error;
}

static int preempt(void *self, uint32_t handle)
{
    struct nv_preempt p = {.wait = 1};
    return on_group(self, handle, NVA06C_PREEMPT, &p, sizeof p);
}

/* From our own client, naming the tenants' channels: several tenants in one call, 64 channels at most. */
static int stop(void *self, const uint32_t *handles, int n, int stopped)
{
    struct nvidia_card *c = self;
    struct nv_disable_channels d = {.disable = (uint8_t)(stopped ? 1 : 0)};
    int result = 0;
    for (int i = 0; i < n; i++) {
        const struct known_group *k = known(c, handles[i]);
        for (uint32_t j = 0; k && j < k->n_channels; j++) {
            d.client[d.n] = k->client;
            d.channel[d.n++] = k->channel[j];
            if (d.n == MAX_A_CALL) {
                int error = rm_control(c->control, c->root, c->subdevice, NV2080_FIFO_DISABLE_CHANNELS, &d, sizeof d);
                result = error ? error : result;
                d.n = 0;
            }
        }
        result = k ? result : -ESRCH;
    }
    if (d.n) {
        int error = rm_control(c->control, c->root, c->subdevice, NV2080_FIFO_DISABLE_CHANNELS, &d, sizeof d);
        result = error ? error : result;
    }
    return result;
}

static int read_log(void *self, struct cc_log_record *records, int max, uint64_t *dropped, uint64_t *now_ns)
{
    return nvidia_log_read(self, records, max, dropped, now_ns);
}

const struct cc_ops cc_nvidia = {
    .name = "nvidia", .open = nvidia_open, .close = nvidia_close, .self_test = nvidia_self_test, .discover = discover,
    .forget = forget, .set_timeslice = set_timeslice, .get_timeslice = get_timeslice, .stop = stop, .preempt = preempt,
    .read_log = read_log,
};
