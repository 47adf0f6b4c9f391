/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "rm.h"

static int sys_open(const char *path, int flags) { return open(path, flags); }
static int sys_close(int fd) { return close(fd); }
static int sys_ioctl(int fd, unsigned long request, void *argument) { return ioctl(fd, request, argument); }
static void *sys_map(size_t bytes, int fd) { return mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0); }
static int sys_unmap(void *at, size_t bytes) { return munmap(at, bytes); }
static int sys_pidfd_open(pid_t pid) { return (int)syscall(434 /* pidfd_open */, pid, 0); }
static int sys_pidfd_getfd(int pidfd, int fd) { return (int)syscall(438 /* pidfd_getfd */, pidfd, fd, 0); }
static const struct rm_system the_kernel = {sys_open, sys_close, sys_ioctl, sys_map, sys_unmap, sys_pidfd_open,
                                            sys_pidfd_getfd};
const struct rm_system *rm_system = &the_kernel;

static int escape(int fd, unsigned number, void *argument, size_t n)
{
    int result;
    do
        result = rm_system->ioctl(fd, (unsigned long)_IOC(_IOC_READ | _IOC_WRITE, 'F', number, n), argument);
    while (result < 0 && (errno == EINTR || errno == EAGAIN));
    return result < 0 ? -errno : 0;
}

static int errno_of(uint32_t status)
{
    switch (status) {
    case 0: return 0;
    case NV_ERR_INSUFFICIENT_PERMISSIONS: return -EPERM;
    case NV_ERR_OBJECT_NOT_FOUND: return -ESRCH;
    default: return -EIO;
    }
}

int rm_control(int fd, uint32_t client, uint32_t object, uint32_t cmd, void *params, size_t n)
{
    struct nv_control c = {client, object, cmd, 0, (uint64_t)(uintptr_t)params, (uint32_t)n, 0};
    int error = escape(fd, NV_ESC_RM_CONTROL, &c, sizeof c);
    return error ? error : errno_of(c.status);
}

int rm_alloc(int fd, uint32_t root, uint32_t parent, uint32_t *object, uint32_t class, void *params, size_t n)
{
    struct nv_alloc a = {root, parent, *object, class, (uint64_t)(uintptr_t)params, (uint32_t)n, 0};
    int error = escape(fd, NV_ESC_RM_ALLOC, &a, sizeof a);
    if (!error)
        error = errno_of(a.status);
    if (!error)
        *object = a.object;
    return error;
}

int rm_free(int fd, uint32_t root, uint32_t parent, uint32_t object)
{
    struct nv_free f = {root, parent, object, 0};
    int error = escape(fd, NV_ESC_RM_FREE, &f, sizeof f);
    return error ? error : errno_of(f.status);
}

int rm_register(int device_fd, int control_fd)
{
    struct nv_register r = {control_fd};
    return escape(device_fd, NV_ESC_REGISTER_FD, &r, sizeof r);
}

void *rm_map(int fd, uint32_t root, uint32_t memory, size_t bytes, int *error)
{
    struct nv_map m = {.p = {.client = root, .device = root, .memory = memory, .length = bytes, .flags = 1}};
    m.fd = rm_system->open("/dev/nvidiactl", O_RDWR | O_CLOEXEC);
    if (m.fd < 0) {
        *error = -errno;
        return NULL;
    }
    *error = escape(fd, NV_ESC_RM_MAP_MEMORY, &m, sizeof m);
    if (!*error)
        *error = errno_of(m.p.status);
    void *at = *error ? MAP_FAILED : rm_system->map(bytes, m.fd);
    if (at == MAP_FAILED && !*error)
        *error = -errno;
    rm_system->close(m.fd);
    return at == MAP_FAILED ? NULL : at;
}

int rm_handle_info(int fd, uint32_t client, uint32_t object, uint32_t index, uint32_t *value)
{
    struct nv_handle_info info = {object, index, 0};
    int error = rm_control(fd, client, client, NV0000_CLIENT_GET_HANDLE_INFO, &info, sizeof info);
    *value = (uint32_t)info.data;
    return error;
}
