/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>
#include "nvidia.h"

#define FIRST_HANDLE 0xF1E20001u /* ours to choose; apart from what the vendor's library uses */

int nv_errno(uint32_t status)
{
    switch (status) {
    case NV_STATUS_OK:
        return 0;
    case NV_STATUS_INSUFFICIENT_PERMISSIONS:
        return -EPERM;
    case NV_STATUS_INVALID_CHANNEL:
    case NV_STATUS_INVALID_CLIENT:
    case NV_STATUS_INVALID_OBJECT:
    case NV_STATUS_INVALID_OBJECT_HANDLE:
    case NV_STATUS_OBJECT_NOT_FOUND:
        return -ENOENT;
    case NV_STATUS_INVALID_COMMAND:
    case NV_STATUS_NOT_SUPPORTED:
        return -EOPNOTSUPP;
    case NV_STATUS_INVALID_STATE:
        return -EBUSY;
    case NV_STATUS_TIMEOUT:
        return -ETIMEDOUT;
    case NV_STATUS_NO_MEMORY:
        return -ENOMEM;
    case NV_STATUS_GPU_IS_LOST:
        return -ENODEV;
    default:
        return -EINVAL;
    }
}

int nv_control_as(struct nv_rm *rm, int fd, uint32_t client, uint32_t object, uint32_t command, void *parameters,
                  size_t n)
{
    struct nv_os_control call = {
        .client = client,
        .object = object,
        .command = command,
        .parameters = (uint64_t)(uintptr_t)parameters,
        .n_parameters = (uint32_t)n,
    };
    int error = rm->sys->ioctl(rm->sys->context, fd, NV_ESC_RM_CONTROL, &call);
    rm->status = error ? 0 : call.status;
    return error ? error : nv_errno(call.status);
}

int nv_control(struct nv_rm *rm, uint32_t object, uint32_t command, void *parameters, size_t n)
{
    return nv_control_as(rm, rm->fd, rm->client, object, command, parameters, n);
}

int nv_alloc(struct nv_rm *rm, uint32_t parent, uint32_t class, void *parameters, size_t n, uint32_t *handle)
{
    struct nv_os_alloc call = {
        .root = rm->client,
        .parent = parent,
        .object = rm->next_handle,
        .class = class,
        .parameters = (uint64_t)(uintptr_t)parameters,
        .n_parameters = (uint32_t)n,
    };
    int error = rm->sys->ioctl(rm->sys->context, rm->fd, NV_ESC_RM_ALLOC, &call);
    rm->status = error ? 0 : call.status;
    if (!error)
        error = nv_errno(call.status);
    if (error)
        return error;
    rm->next_handle++;
    *handle = call.object;
    return 0;
}

int nv_free(struct nv_rm *rm, uint32_t parent, uint32_t handle)
{
    struct nv_os_free call = {.root = rm->client, .parent = parent, .object = handle};
    int error = rm->sys->ioctl(rm->sys->context, rm->fd, NV_ESC_RM_FREE, &call);
    rm->status = error ? 0 : call.status;
    return error ? error : nv_errno(call.status);
}

const void *nv_map(struct nv_rm *rm, uint32_t device, uint32_t memory, size_t length)
{
    const struct nv_sys *sys = rm->sys;
    /* The driver attaches the mapping to a descriptor of its own; it may be closed once mapped. */
    int fd = sys->open(sys->context, "/dev/nvidiactl");
    if (fd < 0)
        return NULL;
    struct nv_os_map call = {
        .client = rm->client,
        .device = device,
        .memory = memory,
        .length = length,
        .flags = NV_MAP_READ_ONLY,
        .fd = fd,
    };
    const void *at = NULL;
    if (!sys->ioctl(sys->context, rm->fd, NV_ESC_RM_MAP_MEMORY, &call)) {
        rm->status = call.status;
        if (!call.status)
            at = sys->map(sys->context, length, fd);
    }
    sys->close(sys->context, fd);
    return at;
}

int nv_rm_open(struct nv_rm *rm, const struct nv_sys *sys)
{
    memset(rm, 0, sizeof *rm);
    rm->sys = sys;
    rm->fd = sys->open(sys->context, "/dev/nvidiactl");
    if (rm->fd < 0)
        return rm->fd;
    struct nv_os_alloc call = {.class = NV_CLASS_CLIENT};
    int error = sys->ioctl(sys->context, rm->fd, NV_ESC_RM_ALLOC, &call);
    rm->status = error ? 0 : call.status;
    if (!error)
        error = nv_errno(call.status);
    if (!error && !call.object)
        error = -EPROTO;
    if (error) {
        sys->close(sys->context, rm->fd);
        rm->fd = -1;
        return error;
    }
    rm->client = call.object;
    rm->next_handle = FIRST_HANDLE;
    return 0;
}

void nv_rm_close(struct nv_rm *rm)
{
    if (rm->fd < 0)
        return;
    if (rm->client)
        nv_free(rm, rm->client, rm->client);
    rm->sys->close(rm->sys->context, rm->fd);
    rm->fd = -1;
    rm->client = 0;
}

uint32_t nv_fresh_client(const struct nv_sys *sys)
{
    struct nv_rm rm;
    if (nv_rm_open(&rm, sys))
        return 0;
    uint32_t client = rm.client;
    nv_rm_close(&rm);
    return client;
}
