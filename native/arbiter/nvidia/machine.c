/* SPDX-License-Identifier: Apache-2.0
 *
 * The real machine behind `struct nv_sys`: system calls and /proc.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>
#include "nvidia.h"

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_pidfd_getfd
#define SYS_pidfd_getfd 438
#endif

static int machine_open(void *context, const char *path)
{
    (void)context;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

static int machine_close(void *context, int fd)
{
    (void)context;
    return close(fd) ? -errno : 0;
}

static int machine_ioctl(void *context, int fd, unsigned long request, void *argument)
{
    (void)context;
    for (;;) {
        if (ioctl(fd, request, argument) >= 0)
            return 0;
        if (errno != EINTR && errno != EAGAIN)
            return -errno;
    }
}

static void *machine_map(void *context, size_t length, int fd)
{
    (void)context;
    void *at = mmap(NULL, length, PROT_READ, MAP_SHARED, fd, 0);
    return at == MAP_FAILED ? NULL : at;
}

static void machine_unmap(void *context, void *at, size_t length)
{
    (void)context;
    munmap(at, length);
}

static int machine_pidfd_open(void *context, uint32_t pid)
{
    (void)context;
    long fd = syscall(SYS_pidfd_open, pid, 0);
    return fd < 0 ? -errno : (int)fd;
}

static int machine_process_ended(void *context, int pidfd)
{
    (void)context;
    struct pollfd poller = {.fd = pidfd, .events = POLLIN};
    return poll(&poller, 1, 0) == 1 && (poller.revents & POLLIN);
}

static int is_control(const struct stat *s)
{
    return S_ISCHR(s->st_mode) && s->st_rdev == makedev(NV_MAJOR, NV_CONTROL_MINOR);
}

static int machine_borrow(void *context, int pidfd, int fd)
{
    (void)context;
    long copy = syscall(SYS_pidfd_getfd, pidfd, fd, 0);
    if (copy < 0)
        return -errno;
    struct stat s;
    if (fstat((int)copy, &s) || !is_control(&s)) {
        close((int)copy);
        return -EBADF; /* the number belongs to another file by now */
    }
    return (int)copy;
}

static int ascending(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

static int machine_control_fds(void *context, uint32_t pid, int *fds, int max)
{
    (void)context;
    char path[64];
    snprintf(path, sizeof path, "/proc/%u/fd", pid);
    DIR *folder = opendir(path);
    if (!folder)
        return errno == ENOENT ? -ESRCH : -errno;
    int n = 0;
    for (struct dirent *e; n < max && (e = readdir(folder));) {
        struct stat s;
        if (e->d_name[0] != '.' && !fstatat(dirfd(folder), e->d_name, &s, 0) && is_control(&s))
            fds[n++] = atoi(e->d_name);
    }
    closedir(folder);
    qsort(fds, (size_t)n, sizeof *fds, ascending);
    return n;
}

static int machine_start_ticks(void *context, uint32_t pid, uint64_t *ticks)
{
    (void)context;
    char text[1024];
    snprintf(text, sizeof text, "/proc/%u/stat", pid);
    FILE *file = fopen(text, "re");
    if (!file)
        return -ESRCH;
    size_t n = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[n] = 0;
    /* The name may hold anything, parentheses too: fields are counted from its last one. */
    char *at = strrchr(text, ')');
    for (int field = 2; at && field < 22; field++)
        at = strchr(at + 1, ' ');
    if (!at)
        return -ESRCH;
    *ticks = strtoull(at + 1, NULL, 10);
    return 0;
}

static int read_card(const char *name, struct nv_card_file *card)
{
    char path[320], line[256];
    snprintf(path, sizeof path, "/proc/driver/nvidia/gpus/%s/information", name);
    FILE *file = fopen(path, "re");
    if (!file)
        return 0;
    card->uuid[0] = 0;
    card->minor = -1;
    while (fgets(line, sizeof line, file)) {
        sscanf(line, "GPU UUID: %47s", card->uuid);
        sscanf(line, "Device Minor: %d", &card->minor);
    }
    fclose(file);
    return card->uuid[0] && card->minor >= 0;
}

/* Containers may lack the driver's /proc: the device files then, and the driver says whose they are. */
static int device_files(struct nv_card_file *cards, int max)
{
    DIR *folder = opendir("/dev");
    int n = 0;
    for (struct dirent *e; folder && n < max && (e = readdir(folder));) {
        char rest;
        if (sscanf(e->d_name, "nvidia%d%c", &cards[n].minor, &rest) == 1)
            cards[n++].uuid[0] = 0;
    }
    if (folder)
        closedir(folder);
    return n ? n : -ENODEV;
}

static int machine_cards(void *context, struct nv_card_file *cards, int max)
{
    (void)context;
    DIR *folder = opendir("/proc/driver/nvidia/gpus");
    if (!folder)
        return device_files(cards, max);
    int n = 0;
    for (struct dirent *e; n < max && (e = readdir(folder));)
        if (e->d_name[0] != '.')
            n += read_card(e->d_name, &cards[n]);
    closedir(folder);
    return n ? n : device_files(cards, max);
}

static uint64_t machine_capabilities(void *context)
{
    (void)context;
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct sets[2] = {{0}};
    if (syscall(SYS_capget, &header, sets))
        return 0;
    return (uint64_t)sets[1].effective << 32 | sets[0].effective;
}

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t machine_now_ns(void *context)
{
    (void)context;
    return clock_ns(CLOCK_MONOTONIC);
}

static uint64_t machine_now_ticks(void *context)
{
    (void)context;
    return clock_ns(CLOCK_BOOTTIME) / (1000000000u / (uint64_t)sysconf(_SC_CLK_TCK));
}

const struct nv_sys nv_machine = {
    .open = machine_open,
    .close = machine_close,
    .ioctl = machine_ioctl,
    .map = machine_map,
    .unmap = machine_unmap,
    .pidfd_open = machine_pidfd_open,
    .process_ended = machine_process_ended,
    .borrow = machine_borrow,
    .control_fds = machine_control_fds,
    .start_ticks = machine_start_ticks,
    .cards = machine_cards,
    .capabilities = machine_capabilities,
    .now_ns = machine_now_ns,
    .now_ticks = machine_now_ticks,
};
