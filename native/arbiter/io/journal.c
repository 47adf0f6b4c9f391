/* SPDX-License-Identifier: Apache-2.0 */
#include "journal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

struct journal *journal_map(const char *run_dir, bool create)
{
    char path[PATH_MAX];
    struct stat st;
    snprintf(path, sizeof path, "%s/journal", run_dir);
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | (create ? O_CREAT : 0), 0600);
    if (fd < 0)
        return NULL;
    bool fits = fstat(fd, &st) == 0 && (st.st_size == sizeof(struct journal) ||
                                        (create && ftruncate(fd, sizeof(struct journal)) == 0));
    struct journal *j = fits ? mmap(NULL, sizeof *j, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;
    close(fd);
    if (j == MAP_FAILED)
        return NULL;
    if (j->magic != JOURNAL_MAGIC || j->version != JOURNAL_VERSION || j->size != sizeof *j) {
        if (!create) {
            munmap(j, sizeof *j);
            return NULL;
        }
        memset(j, 0, sizeof *j);
        j->version = JOURNAL_VERSION;
        j->size = sizeof *j;
        __atomic_store_n(&j->magic, JOURNAL_MAGIC, __ATOMIC_SEQ_CST);
    }
    return j;
}

static struct journal_entry *find(struct journal *j, const char *uuid, uint32_t handle)
{
    for (int i = 0; i < JOURNAL_ENTRIES; i++)
        if (j->entry[i].used && j->entry[i].handle == handle && !strncmp(j->entry[i].uuid, uuid, FX_UUID_BYTES))
            return &j->entry[i];
    return NULL;
}

uint64_t process_start_ticks(uint32_t pid)
{
    char path[64], line[1024];
    snprintf(path, sizeof path, "/proc/%u/stat", pid);
    FILE *file = fopen(path, "re");
    if (!file)
        return 0;
    size_t n = fread(line, 1, sizeof line - 1, file);
    fclose(file);
    line[n] = 0;
    const char *at = strrchr(line, ')'); /* the name may hold anything */
    for (int field = 2; at && field < 22; field++)
        at = strchr(at + 1, ' ');
    return at ? strtoull(at, NULL, 10) : 0;
}

bool journal_names(struct journal *j, const char *uuid, uint32_t handle)
{
    return find(j, uuid, handle) != NULL;
}

bool journal_holds(const struct journal *j)
{
    bool held = false;
    for (int i = 0; i < JOURNAL_ENTRIES && !held; i++)
        held = __atomic_load_n(&j->entry[i].used, __ATOMIC_SEQ_CST) != 0;
    for (int i = 0; i < JOURNAL_FROZEN && !held; i++)
        held = __atomic_load_n(&j->frozen[i].used, __ATOMIC_SEQ_CST) != 0;
    for (int i = 0; i < JOURNAL_FREEZERS && !held; i++)
        held = __atomic_load_n(&j->freezer[i].used, __ATOMIC_SEQ_CST) != 0;
    return held;
}

/* What is named already is left as it is: it may be stopped, and for no moment may it be nameless. */
bool journal_add(struct journal *j, const char *uuid, const struct cc_group *group)
{
    struct journal_entry *e = find(j, uuid, group->handle);
    if (e && e->pid == group->pid && e->start_ticks == group->start_ticks)
        return true;
    for (int i = 0; i < JOURNAL_ENTRIES && !e; i++)
        if (!j->entry[i].used)
            e = &j->entry[i];
    if (!e)
        return false;
    __atomic_store_n(&e->used, 0u, __ATOMIC_SEQ_CST);
    e->pid = group->pid;
    e->start_ticks = group->start_ticks;
    e->context = group->context;
    e->handle = group->handle;
    snprintf(e->uuid, sizeof e->uuid, "%s", uuid);
    __atomic_store_n(&e->used, 1u, __ATOMIC_SEQ_CST);
    return true;
}

void journal_remove(struct journal *j, const char *uuid, uint32_t handle)
{
    struct journal_entry *e = find(j, uuid, handle);
    if (e)
        __atomic_store_n(&e->used, 0u, __ATOMIC_SEQ_CST);
}

/* For who is in no group with a freezer: the tenant cannot hold it off, but a SIGCONT of any process of its user ends it.
 * Through a pidfd: the number may be another's by now. */
static void signal_it(const struct journal_frozen *f, int signal)
{
    int fd = (int)syscall(SYS_pidfd_open, f->pid, 0);
    if (fd >= 0 && process_start_ticks(f->pid) == f->start_ticks)
        syscall(SYS_pidfd_send_signal, fd, signal, NULL, 0);
    if (fd >= 0)
        close(fd);
}

bool journal_freeze(struct journal *j, uint32_t pid, uint64_t start_ticks)
{
    for (int i = 0; i < JOURNAL_FROZEN; i++) {
        struct journal_frozen *f = &j->frozen[i];
        if (f->used)
            continue;
        f->pid = pid;
        f->start_ticks = start_ticks;
        __atomic_store_n(&f->used, 1u, __ATOMIC_SEQ_CST);
        signal_it(f, SIGSTOP);
        return true;
    }
    return false;
}

/* pid 0: all of them. */
void journal_thaw(struct journal *j, uint32_t pid)
{
    for (int i = 0; i < JOURNAL_FROZEN; i++) {
        struct journal_frozen *f = &j->frozen[i];
        if (!__atomic_load_n(&f->used, __ATOMIC_SEQ_CST) || (pid && f->pid != pid))
            continue;
        signal_it(f, SIGCONT);
        __atomic_store_n(&f->used, 0u, __ATOMIC_SEQ_CST);
    }
}

/* Whether it need not be tried again: it was done, or the group is gone. */
static bool write_freezer(const char *file, const char *text)
{
    int fd = open(file, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
    bool done = fd >= 0 ? write(fd, text, 1) == 1 || errno == ENODEV : errno == ENOENT;
    if (fd >= 0)
        close(fd);
    return done;
}

bool journal_freeze_group(struct journal *j, const char *file)
{
    struct journal_freezer *f = NULL;
    if (strlen(file) >= JOURNAL_FILE_BYTES || access(file, W_OK))
        return false;
    for (int i = 0; i < JOURNAL_FREEZERS; i++) {
        if (j->freezer[i].used && !strcmp(j->freezer[i].file, file))
            return write_freezer(file, "1");
        if (!f && !j->freezer[i].used)
            f = &j->freezer[i];
    }
    if (!f)
        return false;
    strcpy(f->file, file);
    __atomic_store_n(&f->used, 1u, __ATOMIC_SEQ_CST);
    if (write_freezer(file, "1"))
        return true;
    __atomic_store_n(&f->used, 0u, __ATOMIC_SEQ_CST);
    return false;
}

/* NULL: all of them. What could not be done stays named. */
void journal_thaw_group(struct journal *j, const char *file)
{
    for (int i = 0; i < JOURNAL_FREEZERS; i++) {
        struct journal_freezer *f = &j->freezer[i];
        char named[JOURNAL_FILE_BYTES];
        if (!__atomic_load_n(&f->used, __ATOMIC_SEQ_CST) || (file && strncmp(file, f->file, sizeof named)))
            continue;
        snprintf(named, sizeof named, "%.*s", (int)sizeof named - 1, f->file);
        if (write_freezer(named, "0"))
            __atomic_store_n(&f->used, 0u, __ATOMIC_SEQ_CST);
    }
}

/* All groups of one process on one card; true when there is nothing more to do for it. */
static bool resume_process(const struct cc_ops *ops, void *card, uint32_t pid, uint64_t start_ticks, uint32_t *rescues,
                           int *n_resumed)
{
    struct cc_group groups[64];
    uint32_t handles[64];
    int n = 0, found = ops->discover(card, pid, groups, 64);
    for (int i = 0; i < found; i++)
        if (!start_ticks || !groups[i].start_ticks || groups[i].start_ticks == start_ticks)
            handles[n++] = groups[i].handle;
    if (found < 0 && found != -ESRCH && found != -ENOENT)
        return false;
    if (n == 0)
        return true; /* it is gone, and its channels with it */
    if (rescues)
        __atomic_add_fetch(rescues, 1u, __ATOMIC_SEQ_CST); /* the last moment: it may just have been stopped again */
    if (ops->stop(card, handles, n, 0) < 0)
        return false;
    *n_resumed += n;
    return true;
}

int journal_resume(struct journal *j, const struct cc_ops *ops, const char *only)
{
    int n_resumed = 0;
    if (!only) {
        __atomic_add_fetch(&j->rescues, 1u, __ATOMIC_SEQ_CST);
        journal_thaw(j, 0);
        journal_thaw_group(j, NULL);
    }
    for (int i = 0; i < JOURNAL_ENTRIES; i++) {
        const struct journal_entry *first = &j->entry[i];
        char uuid[FX_UUID_BYTES], why[128];
        void *card = NULL;
        if (!__atomic_load_n(&first->used, __ATOMIC_SEQ_CST))
            continue;
        memcpy(uuid, first->uuid, sizeof uuid);
        uuid[sizeof uuid - 1] = 0;
        if (only && strcmp(uuid, only))
            continue;
        if (ops->open(&card, uuid, why, sizeof why) < 0) {
            fprintf(stderr, "flexai-arbiter: cannot resume on %s: %s\n", uuid, why);
            continue;
        }
        for (int k = i; k < JOURNAL_ENTRIES; k++) {
            struct journal_entry *e = &j->entry[k];
            if (!e->used || strncmp(e->uuid, uuid, sizeof uuid))
                continue;
            uint32_t pid = e->pid;
            if (!resume_process(ops, card, pid, e->start_ticks, only ? NULL : &j->rescues, &n_resumed))
                continue;
            for (int m = k; m < JOURNAL_ENTRIES; m++)
                if (j->entry[m].used && j->entry[m].pid == pid && !strncmp(j->entry[m].uuid, uuid, sizeof uuid))
                    __atomic_store_n(&j->entry[m].used, 0u, __ATOMIC_SEQ_CST);
        }
        ops->close(card);
    }
    return n_resumed;
}
