/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "fake_driver.h"

static int new_fd(struct fake_driver *f, enum fake_fd_kind kind, uint32_t pid, int fd)
{
    for (int i = 3; i < 512; i++)
        if (f->fds[i].kind == FAKE_FREE) {
            f->fds[i].kind = kind;
            f->fds[i].pid = pid;
            f->fds[i].fd = fd;
            f->n_open++;
            f->most_open = f->n_open > f->most_open ? f->n_open : f->most_open;
            return i;
        }
    return -EMFILE;
}

static struct fake_process *by_pid(struct fake_driver *f, uint32_t pid)
{
    for (int i = f->n_processes - 1; i >= 0; i--)
        if (f->processes[i].pid == pid)
            return &f->processes[i];
    return NULL;
}

static struct fake_object *object(struct fake_driver *f, uint32_t client, uint32_t handle)
{
    for (int i = 0; i < f->n_objects; i++)
        if (f->objects[i].client == client && f->objects[i].handle == handle)
            return &f->objects[i];
    return NULL;
}

void fake_object(struct fake_driver *f, uint32_t client, uint32_t handle, uint32_t class, uint32_t parent)
{
    int at = f->n_objects;
    for (int i = 0; i < f->n_objects && at == f->n_objects; i++)
        if (!f->objects[i].handle)
            at = i; /* of one that was freed */
    f->n_objects += at == f->n_objects;
    f->objects[at] = (struct fake_object){.client = client, .handle = handle, .class = class, .parent = parent};
    f->last_object = &f->objects[at];
}

uint32_t fake_client(struct fake_driver *f, uint32_t pid, int fd)
{
    uint32_t client = f->next_client++;
    struct fake_process *p = by_pid(f, pid);
    for (int i = 0; p && i < p->n_fds; i++)
        if (p->fds[i] == fd)
            p->clients[i] = client;
    fake_object(f, client, client, NV_CLASS_CLIENT, 0);
    return client;
}

struct fake_process *fake_process(struct fake_driver *f, uint32_t pid, int n_fds)
{
    struct fake_process *p = &f->processes[f->n_processes++];
    *p = (struct fake_process){.pid = pid, .start = f->now_ticks, .n_fds = n_fds};
    for (int i = 0; i < n_fds; i++)
        p->fds[i] = 10 + i;
    return p;
}

uint32_t fake_context(struct fake_driver *f, uint32_t client, uint32_t first, int n_channels, uint32_t gpu)
{
    fake_object(f, client, first, NV_CLASS_DEVICE, client);
    fake_object(f, client, first + 1, NV_CLASS_SUBDEVICE, first);
    f->last_object->gpu = gpu;
    fake_object(f, client, first + 2, NV_CLASS_GROUP, first);
    fake_object(f, client, first + 3, NV_CLASS_GROUP, first); /* copies */
    fake_object(f, client, first + 4, 0xC86F, first + 3);
    fake_object(f, client, first + 5, 0xC8B5, first + 4);
    for (int i = 0; i < n_channels; i++) {
        fake_object(f, client, first + 6 + 2 * (uint32_t)i, 0xC86F, first + 2);
        fake_object(f, client, first + 7 + 2 * (uint32_t)i, 0xCBC0, first + 6 + 2 * (uint32_t)i);
    }
    return first + 2;
}

void fake_log(struct fake_driver *f, int tag, uint32_t pid, uint32_t context, uint64_t ts_ns)
{
    uint16_t sequence = f->sequence++;
    uint32_t next = (f->header.put + 1) % NV_LOG_RECORDS;
    if (next == f->header.get) {
        f->header.dropped++;
        return;
    }
    f->records[f->header.put] = (struct nv_log_record){
        .tag = (uint8_t)tag, .sequence = sequence, .context = context, .pid = pid, .timestamp = ts_ns};
    f->header.put = next;
}

int fake_disabled(struct fake_driver *f, uint32_t client)
{
    int n = 0;
    for (int i = 0; i < f->n_objects; i++)
        n += f->objects[i].client == client && f->objects[i].disabled;
    return n;
}

static int owns(struct fake_driver *f, int fd, uint32_t client)
{
    if (f->fds[fd].kind == FAKE_CONTROL)
        return (uint32_t)f->fds[fd].fd == client;
    struct fake_process *p = by_pid(f, f->fds[fd].pid);
    for (int i = 0; p && f->fds[fd].kind == FAKE_BORROWED && i < p->n_fds; i++)
        if (p->fds[i] == f->fds[fd].fd && p->clients[i] == client)
            return 1;
    return 0;
}

static uint32_t disable(struct fake_driver *f, const struct nv_disable *d)
{
    f->n_disable_calls++;
    f->biggest_disable = (int)d->n > f->biggest_disable ? (int)d->n : f->biggest_disable;
    if (d->n > NV_DISABLE_MAX)
        return NV_STATUS_INVALID_ARGUMENT;
    uint32_t status = 0;
    for (uint32_t i = 0; i < d->n; i++) {
        struct fake_object *o = object(f, d->clients[i], d->channels[i]);
        if (!o || d->channels[i] == f->dead_channel)
            status = NV_STATUS_INVALID_CHANNEL; /* as the driver: the rest of the list is served */
        else
            o->disabled = d->disable;
    }
    return status;
}

static uint32_t answer(struct fake_driver *f, struct nv_os_control *c)
{
    void *p = (void *)(uintptr_t)c->parameters;
    struct fake_object *o = object(f, c->client, c->object);
    if (!o)
        return NV_STATUS_INVALID_OBJECT_HANDLE;
    switch (c->command) {
    case NV_GET_HANDLE_INFO: {
        struct nv_handle_info *ask = p;
        struct fake_object *about = object(f, c->client, ask->object);
        if (!about)
            return NV_STATUS_OBJECT_NOT_FOUND;
        ask->value = ask->index == NV_HANDLE_CLASS ? about->class : about->parent;
        return 0;
    }
    case NV_GET_ATTACHED_IDS:
        ((struct nv_attached_ids *)p)->ids[0] = FAKE_OTHER_GPU;
        ((struct nv_attached_ids *)p)->ids[1] = FAKE_GPU;
        ((struct nv_attached_ids *)p)->ids[2] = NV_NO_GPU;
        return 0;
    case NV_GET_UUID:
        strcpy((char *)((struct nv_uuid *)p)->text, ((struct nv_uuid *)p)->gpu == FAKE_GPU ? FAKE_UUID : "GPU-other");
        return 0;
    case NV_GET_ID_INFO:
        return 0;
    case NV_GET_GPU_ID:
        *(uint32_t *)p = o->gpu;
        return 0;
    case NV_GET_TIME:
        *(uint64_t *)p = (uint64_t)((int64_t)f->now_ns + f->card_offset_ns);
        return 0;
    case NV_SET_TIMESLICE:
        o->timeslice = f->last_timeslice = *(uint64_t *)p;
        return 0;
    case NV_GET_TIMESLICE:
        *(uint64_t *)p = o->timeslice;
        return 0;
    case NV_PREEMPT:
        f->n_preempts++;
        return ((struct nv_preempt *)p)->manual_timeout ? 0 : NV_STATUS_TIMEOUT;
    case NV_DISABLE_CHANNELS:
        return disable(f, p);
    case NV_BIND_LOG:
    case NV_LOG_ENABLE:
    case NV_LOG_FLUSH:
        return 0;
    case NV_LOG_UPDATE_GET:
        f->n_update_get++;
        f->header.get = ((struct nv_log_get *)p)->records;
        f->header.dropped = 0;
        return 0;
    default:
        return NV_STATUS_INVALID_COMMAND;
    }
}

void fake_kill(struct fake_driver *f, uint32_t pid)
{
    struct fake_process *p = by_pid(f, pid);
    if (!p)
        return;
    p->ended = 1;
    for (int i = 0; i < f->n_objects; i++)
        for (int k = 0; k < p->n_fds; k++)
            if (p->clients[k] && f->objects[i].client == p->clients[k])
                f->objects[i].client = f->objects[i].handle = 0;
}

static int control(struct fake_driver *f, int fd, struct nv_os_control *c)
{
    f->n_controls++;
    if (f->kill_pid_at_command && c->command == f->kill_pid_at_command && --f->fail_after < 0)
        fake_kill(f, f->kill_pid);
    if (f->fail_command == c->command && f->fail_after-- <= 0) {
        c->status = f->fail_status;
        return f->fail_errno;
    }
    if (!owns(f, fd, c->client)) {
        f->n_wrong_clients++;
        c->status = NV_STATUS_INVALID_CLIENT;
        return 0;
    }
    uint64_t waits = f->slow_ns && c->command == f->slow_command ? f->slow_ns : 0;
    f->now_ns += c->command == NV_GET_TIME ? waits / 8 : waits; /* its answer may come long after it was made */
    c->status = answer(f, c);
    f->now_ns += c->command == NV_GET_TIME ? waits - waits / 8 : 0;
    return 0;
}

static int alloc(struct fake_driver *f, int fd, struct nv_os_alloc *a)
{
    if (f->fail_class == a->class) {
        a->status = NV_STATUS_INSUFFICIENT_PERMISSIONS;
        return 0;
    }
    if (a->class == NV_CLASS_EVENT_MEMORY && f->old_memory_abi && a->n_parameters != NV_MEMORY_ALLOC_535) {
        a->status = NV_STATUS_INVALID_PARAM_STRUCT;
        return 0;
    }
    if (a->class == NV_CLASS_CLIENT) {
        f->n_fresh_clients++;
        a->object = f->next_client++;
        f->fds[fd].fd = (int)a->object;
        fake_object(f, a->object, a->object, NV_CLASS_CLIENT, 0);
        return 0;
    }
    if (!object(f, a->root, a->parent))
        a->status = NV_STATUS_INVALID_OBJECT_HANDLE;
    else
        fake_object(f, a->root, a->object, a->class, a->parent);
    return 0;
}

static int f_ioctl(void *context, int fd, unsigned long request, void *argument)
{
    struct fake_driver *f = context;
    if (fd < 3 || fd >= 512 || f->fds[fd].kind == FAKE_FREE)
        return -EBADF;
    if (request == NV_ESC_RM_CONTROL)
        return control(f, fd, argument);
    if (request == NV_ESC_RM_ALLOC)
        return alloc(f, fd, argument);
    if (request == NV_ESC_RM_FREE) {
        struct nv_os_free *gone = argument;
        struct fake_object *o = object(f, gone->root, gone->object);
        if (o)
            o->client = o->handle = 0;
        return 0;
    }
    return request == NV_ESC_REGISTER_FD || request == NV_ESC_RM_MAP_MEMORY ? 0 : -ENOTTY;
}

static int f_open(void *context, const char *path)
{
    return new_fd(context, strcmp(path, "/dev/nvidiactl") ? FAKE_CARD : FAKE_CONTROL, 0, 0);
}

static int f_close(void *context, int fd)
{
    struct fake_driver *f = context;
    if (fd < 3 || f->fds[fd].kind == FAKE_FREE)
        abort(); /* closed twice */
    f->fds[fd].kind = FAKE_FREE;
    f->n_open--;
    return 0;
}

static void *f_map(void *context, size_t length, int fd)
{
    struct fake_driver *f = context;
    (void)fd;
    f->n_maps++;
    return length == sizeof f->shared ? (void *)&f->shared : length == 4096 ? (void *)&f->header : (void *)f->records;
}

static void f_unmap(void *context, void *at, size_t length)
{
    (void)at, (void)length;
    ((struct fake_driver *)context)->n_maps--;
}

static int f_pidfd_open(void *context, uint32_t pid)
{
    struct fake_process *p = by_pid(context, pid);
    return p && !p->ended ? new_fd(context, FAKE_PIDFD, pid, 0) : -ESRCH;
}

static int f_ended(void *context, int pidfd)
{
    struct fake_driver *f = context;
    struct fake_process *p = by_pid(f, f->fds[pidfd].pid);
    return !p || p->ended;
}

static int f_borrow(void *context, int pidfd, int fd)
{
    struct fake_driver *f = context;
    struct fake_process *p = by_pid(f, f->fds[pidfd].pid);
    if (!p || p->ended)
        return -ESRCH;
    for (int i = 0; i < p->n_fds; i++)
        if (p->fds[i] == fd)
            return new_fd(f, FAKE_BORROWED, p->pid, fd);
    return -EBADF;
}

static int f_control_fds(void *context, uint32_t pid, int *fds, int max)
{
    struct fake_process *p = by_pid(context, pid);
    if (!p || p->ended)
        return -ESRCH;
    int n = p->n_fds < max ? p->n_fds : max;
    memcpy(fds, p->fds, (size_t)n * sizeof *fds);
    return n;
}

static int f_start(void *context, uint32_t pid, uint64_t *ticks)
{
    struct fake_process *p = by_pid(context, pid);
    if (!p || p->ended)
        return -ESRCH;
    *ticks = p->start;
    return 0;
}

static int f_cards(void *context, struct nv_card_file *cards, int max)
{
    struct fake_driver *f = context;
    (void)max;
    for (int i = 0; i < f->n_cards; i++) {
        cards[i].minor = i;
        strcpy(cards[i].uuid, f->no_proc ? "" : i ? "GPU-other" : FAKE_UUID);
    }
    return f->n_cards;
}

static uint64_t f_capabilities(void *context) { return ((struct fake_driver *)context)->capabilities; }
static uint64_t f_now(void *context) { return ((struct fake_driver *)context)->now_ns += 100; }
static uint64_t f_ticks(void *context) { return ((struct fake_driver *)context)->now_ticks; }

struct fake_driver *fake_new(void)
{
    struct fake_driver *f = calloc(1, sizeof *f);
    if (!f)
        abort();
    f->next_client = 0xC1D00010;
    f->now_ns = 1000000000;
    f->now_ticks = 1000;
    f->card_offset_ns = 500000000000;
    f->capabilities = UINT64_MAX;
    f->n_cards = 1;
    f->sys = (struct nv_sys){
        .context = f, .open = f_open, .close = f_close, .ioctl = f_ioctl, .map = f_map, .unmap = f_unmap,
        .pidfd_open = f_pidfd_open, .process_ended = f_ended, .borrow = f_borrow, .control_fds = f_control_fds,
        .start_ticks = f_start, .cards = f_cards, .capabilities = f_capabilities, .now_ns = f_now, .now_ticks = f_ticks};
    return f;
}
