/* SPDX-License-Identifier: Apache-2.0
 * Calls to the resource manager. Statuses become negative errnos. System calls go through a table, so that tests can
 * answer in the driver's place.
 */
#ifndef FLEXAI_NVIDIA_RM_H
#define FLEXAI_NVIDIA_RM_H
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "abi.h"

struct rm_system {
    int (*open)(const char *path, int flags);
    int (*close)(int fd);
    int (*ioctl)(int fd, unsigned long request, void *argument);
    void *(*map)(size_t bytes, int fd);
    int (*unmap)(void *at, size_t bytes);
    int (*pidfd_open)(pid_t pid);
    int (*pidfd_getfd)(int pidfd, int fd);
};
extern const struct rm_system *rm_system; /* the kernel, unless a test says otherwise */

int rm_control(int fd, uint32_t client, uint32_t object, uint32_t cmd, void *params, size_t n);
/* A new object; *object names it (or asks the driver to choose when 0, for a root client). */
int rm_alloc(int fd, uint32_t root, uint32_t parent, uint32_t *object, uint32_t class, void *params, size_t n);
int rm_free(int fd, uint32_t root, uint32_t parent, uint32_t object);
int rm_register(int device_fd, int control_fd);
/* Map memory object `memory` of client `root` read-only; NULL and *error. */
void *rm_map(int fd, uint32_t root, uint32_t memory, size_t bytes, int *error);
int rm_handle_info(int fd, uint32_t client, uint32_t object, uint32_t index, uint32_t *value);
#endif
