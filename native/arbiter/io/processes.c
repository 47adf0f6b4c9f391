/* SPDX-License-Identifier: Apache-2.0
 * Which processes belong to which tenant: its cgroup subtree, or the descendants of its first process. Their ends are
 * seen at once, through pidfds: of threads beside the first, too, since a process is gone only when the driver has taken
 * down what it had, some 70 ms after all but one of its threads (H200).
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <poll.h>
#include <unistd.h>
#include "arbiter.h"

#define FIRST_LOOK_NS (50 * MS)
#define FIRST_ASKED_NS (20 * MS)
#define OFTEN_ASKED 10
#define LAST_LOOK_NS (2000 * MS)
#define PF_EXITING 0x4 /* include/linux/sched.h */
#define PF_SIGNALED 0x400
#ifndef PIDFD_THREAD
#define PIDFD_THREAD O_EXCL
#endif
#define WORK_GROUP "work" /* of a member's group, that which its processes are in (adapters/local/cgroups.py) */

static bool cgroup_path(const char *cgroup, char path[PATH_MAX]);

int process_tenant(const struct arbiter *a, uint32_t pid)
{
    for (int i = 0; i < a->n_processes; i++)
        if (a->process[i].pid == pid && pid)
            return a->process[i].tenant;
    return -1;
}

static void forget(struct arbiter *a, struct io_process *p)
{
    for (int i = 0; i < FX_MAX_DEVICES; i++)
        card_process_gone(a, i, p->pid);
    journal_thaw(a->journal, p->pid); /* if it is not gone but another's now */
    if (p->pidfd >= 0)
        close(p->pidfd); /* and out of the epoll set with it */
    for (int i = 0; i < WATCHED_THREADS; i++)
        if (p->thread[i] >= 0)
            close(p->thread[i]);
    p->pid = 0;
}

/* The kernel's flags of a thread say that it is exiting, or was killed; or it is yet to find out that it was. */
static bool thread_exits(uint32_t pid, const char *thread)
{
    char path[64], line[1024];
    snprintf(path, sizeof path, "/proc/%u/task/%.20s/stat", pid, thread);
    FILE *file = fopen(path, "re");
    if (!file)
        return true; /* it was there just now */
    size_t n = fread(line, 1, sizeof line - 1, file);
    fclose(file);
    line[n] = 0;
    const char *at = strrchr(line, ')');
    unsigned long flags = 0, pending = 0;
    for (int field = 3; at && (at = strchr(at + 1, ' ')) && field <= 31; field++)
        if (field == 9)
            flags = strtoul(at, NULL, 10);
        else if (field == 31)
            pending = strtoul(at, NULL, 10);
    return n == 0 || flags & (PF_EXITING | PF_SIGNALED) || pending & 1ul << (SIGKILL - 1);
}

/* All its threads are exiting: nothing brings it back. One whose first thread alone has ended goes on. */
static bool is_dying(uint32_t pid)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%u/task", pid);
    DIR *dir = opendir(path);
    bool dying = true;
    const struct dirent *entry;
    while (dying && dir && (entry = readdir(dir)))
        dying = entry->d_name[0] < '0' || entry->d_name[0] > '9' || thread_exits(pid, entry->d_name);
    if (dir)
        closedir(dir);
    return dying;
}

/* Two: the last of all to end is the one that waits for the driver. */
static void watch_threads(struct arbiter *a, struct io_process *p)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%u/task", p->pid);
    DIR *dir = opendir(path);
    const struct dirent *entry;
    int n = 0;
    while (n < WATCHED_THREADS && dir && (entry = readdir(dir))) {
        unsigned long tid = strtoul(entry->d_name, NULL, 10);
        if (!tid || tid == p->pid)
            continue;
        int fd = p->thread[n] < 0 ? (int)syscall(SYS_pidfd_open, tid, PIDFD_THREAD) : -1; /* Linux 6.9 */
        if (fd >= 0) {
            struct epoll_event event = {.events = EPOLLIN, .data.u64 = EVENT_PROCESS};
            epoll_ctl(a->epoll, EPOLL_CTL_ADD, fd, &event);
            p->thread[n] = fd;
        }
        n++;
    }
    if (dir)
        closedir(dir);
}

/* A tenant that undoes its stops does not run while it is stopped. The agent has a freezer of its own one group above,
 * for jobs that are paused: neither undoes what the other did. */
void processes_freeze(struct arbiter *a, int tenant, bool frozen)
{
    struct io_tenant *t = &a->tenant[tenant];
    char path[PATH_MAX], file[JOURNAL_FILE_BYTES];
    t->frozen = frozen;
    if (frozen && t->cgroup[0] && cgroup_path(t->cgroup, path) &&
        snprintf(file, sizeof file, "%s/%s/cgroup.freeze", path, WORK_GROUP) < (int)sizeof file &&
        journal_freeze_group(a->journal, file))
        strcpy(t->freezer, file);
    if (!frozen && t->freezer[0]) {
        journal_thaw_group(a->journal, t->freezer);
        t->freezer[0] = 0;
    }
    for (int i = 0; i < a->n_processes; i++) {
        const struct io_process *p = &a->process[i];
        if (!p->pid || p->tenant != tenant)
            continue;
        if (!frozen)
            journal_thaw(a->journal, p->pid);
        else if (!t->freezer[0] && !journal_freeze(a->journal, p->pid, p->start_ticks))
            say("%s: process %u cannot be frozen: the journal is full", t->id, p->pid);
    }
}

static void look_for_groups(struct arbiter *a, struct io_process *p, uint64_t now)
{
    const struct io_tenant *t = &a->tenant[p->tenant];
    p->look_wait_ns = p->look_wait_ns * 2 < LAST_LOOK_NS ? p->look_wait_ns * 2 : LAST_LOOK_NS;
    p->look_at = now + p->look_wait_ns;
    for (int i = 0; i < t->n_grants; i++)
        if (t->grant[i].card >= 0 && t->grant[i].number >= 0 &&
            card_discover(a, t->grant[i].card, p->tenant, p->pid) > 0)
            watch_threads(a, p);
}

/* The log shows a group that is not known. Looking takes milliseconds of the driver's locks, so it is done with growing
 * pauses: what is not found at the first looks is charged to its process meanwhile. At once: a process would be accused
 * without it. */
void process_look(struct arbiter *a, int card, uint32_t pid, bool at_once)
{
    uint64_t now = now_ns();
    for (int i = 0; i < a->n_processes; i++) {
        struct io_process *p = &a->process[i];
        if (p->pid != pid)
            continue;
        if (!at_once && p->asked_wait_ns && now < p->asked_at + p->asked_wait_ns)
            return;
        /* A context is some 100 ms in the making: as often as a share can bear meanwhile, then ever more seldom. */
        bool often = ++p->n_asked <= OFTEN_ASKED;
        p->asked_wait_ns = often ? FIRST_ASKED_NS : p->asked_wait_ns * 2;
        p->asked_wait_ns = p->asked_wait_ns < LAST_LOOK_NS ? p->asked_wait_ns : LAST_LOOK_NS;
        p->asked_at = now;
        if (card_discover(a, card, p->tenant, pid) > 0)
            watch_threads(a, p);
        return;
    }
}

static void found(struct arbiter *a, int tenant, uint32_t pid, uint64_t now)
{
    struct io_process *free = NULL;
    a->tenant[tenant].n_processes++;
    for (int i = 0; i < a->n_processes; i++) {
        struct io_process *p = &a->process[i];
        if (p->pid == pid && p->tenant == tenant) {
            p->seen = true;
            if (now >= p->look_at)
                look_for_groups(a, p, now);
            return;
        }
        if (!p->pid)
            free = p;
    }
    if (!free && a->n_processes < MAX_PROCESSES)
        free = &a->process[a->n_processes++];
    if (!free)
        return;
    *free = (struct io_process){.pid = pid, .start_ticks = process_start_ticks(pid), .tenant = tenant, .seen = true,
                                .look_wait_ns = FIRST_LOOK_NS / 2, .thread = {-1, -1}};
    free->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (free->pidfd < 0 && errno == ESRCH) {
        free->pid = 0;
        return;
    }
    if (free->pidfd >= 0) {
        struct epoll_event event = {.events = EPOLLIN, .data.u64 = EVENT_PROCESS};
        epoll_ctl(a->epoll, EPOLL_CTL_ADD, free->pidfd, &event);
    }
    if (a->tenant[tenant].frozen && !a->tenant[tenant].freezer[0])
        journal_freeze(a->journal, pid, free->start_ticks);
    look_for_groups(a, free, now);
}

#define MAX_ROOTS 16

/* Where hierarchies of control groups are mounted: version 2 first, then each of version 1. */
static int cgroup_roots(const char *roots[MAX_ROOTS])
{
    static char text[MAX_ROOTS][256];
    static int n;
    if (!n) {
        char line[PATH_MAX], at[256], kind[64];
        for (int version = 2; version >= 1; version--) {
            FILE *mounts = fopen("/proc/self/mounts", "re");
            while (mounts && n < MAX_ROOTS && fgets(line, sizeof line, mounts))
                if (sscanf(line, "%*s %255s %63s", at, kind) == 2 && !strcmp(kind, version == 2 ? "cgroup2" : "cgroup"))
                    strcpy(text[n++], at);
            if (mounts)
                fclose(mounts);
        }
    }
    for (int i = 0; i < n; i++)
        roots[i] = text[i];
    return n;
}

/* The tenant's group in the first hierarchy that has it: the agent makes it in those that it uses. */
static bool cgroup_path(const char *cgroup, char path[PATH_MAX])
{
    const char *roots[MAX_ROOTS];
    int n = cgroup_roots(roots);
    for (int i = 0; i < n; i++)
        if (snprintf(path, PATH_MAX, "%s%s", roots[i], cgroup) < PATH_MAX && access(path, F_OK) == 0)
            return true;
    return false;
}

static void scan_cgroup(struct arbiter *a, int tenant, const char *path, int depth, uint64_t now)
{
    char name[PATH_MAX];
    unsigned pid;
    if (snprintf(name, sizeof name, "%s/cgroup.procs", path) >= (int)sizeof name)
        return;
    FILE *file = fopen(name, "re");
    if (!file)
        return;
    while (fscanf(file, "%u", &pid) == 1)
        if (pid)
            found(a, tenant, pid, now);
    fclose(file);
    DIR *dir = depth < 8 ? opendir(path) : NULL;
    const struct dirent *entry;
    while (dir && (entry = readdir(dir)))
        if (entry->d_type == DT_DIR && entry->d_name[0] != '.' &&
            snprintf(name, sizeof name, "%s/%s", path, entry->d_name) < (int)sizeof name)
            scan_cgroup(a, tenant, name, depth + 1, now);
    if (dir)
        closedir(dir);
}

static void scan_descendants(struct arbiter *a, int tenant, uint32_t root, int depth, uint64_t now)
{
    char name[96];
    unsigned pid;
    found(a, tenant, root, now);
    snprintf(name, sizeof name, "/proc/%u/task", root);
    DIR *dir = depth < 64 ? opendir(name) : NULL;
    const struct dirent *entry;
    while (dir && (entry = readdir(dir))) {
        if (entry->d_name[0] < '0' || entry->d_name[0] > '9')
            continue;
        snprintf(name, sizeof name, "/proc/%u/task/%.20s/children", root, entry->d_name);
        FILE *file = fopen(name, "re");
        while (file && fscanf(file, "%u", &pid) == 1)
            scan_descendants(a, tenant, pid, depth + 1, now);
        if (file)
            fclose(file);
    }
    if (dir)
        closedir(dir);
}

void processes_scan(struct arbiter *a, uint64_t now)
{
    for (int i = 0; i < a->n_processes; i++)
        a->process[i].seen = false;
    for (int i = 0; i < FX_MAX_TENANTS; i++) {
        struct io_tenant *t = &a->tenant[i];
        char path[PATH_MAX];
        if (!t->id[0])
            continue;
        t->n_processes = 0;
        if (t->cgroup[0]) {
            if (cgroup_path(t->cgroup, path))
                scan_cgroup(a, i, path, 0, now);
        } else if (t->root_pid)
            scan_descendants(a, i, t->root_pid, 0, now);
    }
    for (int i = 0; i < a->n_processes; i++)
        if (a->process[i].pid && !a->process[i].seen)
            forget(a, &a->process[i]);
}

static bool has_ended(int pidfd)
{
    struct pollfd end = {.fd = pidfd, .events = POLLIN};
    return pidfd >= 0 && poll(&end, 1, 0) > 0;
}

void processes_gone(struct arbiter *a)
{
    for (int i = 0; i < a->n_processes; i++) {
        struct io_process *p = &a->process[i];
        bool dying = false;
        for (int k = 0; k < WATCHED_THREADS && p->pid; k++) {
            if (!has_ended(p->thread[k]))
                continue;
            close(p->thread[k]);
            p->thread[k] = -1; /* if the process goes on, another is watched after the next look for groups */
            dying = true;
        }
        if (p->pid && has_ended(p->pidfd)) {
            forget(a, p);
        } else if (dying && is_dying(p->pid)) {
            for (int card = 0; card < FX_MAX_DEVICES; card++)
                card_process_dying(a, card, p->pid);
            forget(a, p);
        }
    }
}

void processes_of_tenant_gone(struct arbiter *a, int tenant)
{
    processes_freeze(a, tenant, false);
    for (int i = 0; i < a->n_processes; i++)
        if (a->process[i].pid && a->process[i].tenant == tenant)
            forget(a, &a->process[i]);
}
