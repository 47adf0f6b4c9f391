/* SPDX-License-Identifier: Apache-2.0
 * <run>/journal: what the arbiter is about to stop, written before it is stopped, with all that it takes to resume it.
 * The arbiter writes, its guardian and the next arbiter read. Only the arbiter's own user can open the file.
 */
#ifndef FLEXAI_ARBITER_JOURNAL_H
#define FLEXAI_ARBITER_JOURNAL_H
#include <stdbool.h>
#include <stdint.h>
#include "channel_control.h"
#include "flexai_region.h"

#define JOURNAL_MAGIC 0x4c4e524a58414c46ull
#define JOURNAL_VERSION 4u
#define JOURNAL_ENTRIES 1024
#define JOURNAL_FROZEN 256
#define JOURNAL_FREEZERS 64
#define JOURNAL_FILE_BYTES 376

struct journal_entry {
    uint32_t used; /* written last, cleared first */
    uint32_t pid;
    uint64_t start_ticks;
    uint32_t context, handle;
    char uuid[FX_UUID_BYTES];
};
/* A tenant that undoes its stops is frozen while it is stopped: its control group, where there is one with a freezer, which
 * holds whatever is forked in it and which no signal undoes; else process by process, by SIGSTOP. */
struct journal_freezer {
    uint32_t used; /* written last, cleared first */
    uint32_t reserved;
    char file[JOURNAL_FILE_BYTES];
};
struct journal_frozen {
    uint32_t used; /* written last, cleared first */
    uint32_t pid;
    uint64_t start_ticks;
};
struct journal {
    uint64_t magic;
    uint32_t version, size;
    uint64_t heartbeat_ns; /* of the arbiter, CLOCK_MONOTONIC */
    uint32_t arbiter_pid;
    uint32_t rescues;      /* grows while the guardian resumes: the arbiter must look again */
    uint32_t reserved[8];
    struct journal_entry entry[JOURNAL_ENTRIES];
    struct journal_frozen frozen[JOURNAL_FROZEN];
    struct journal_freezer freezer[JOURNAL_FREEZERS];
};

uint64_t process_start_ticks(uint32_t pid); /* 0 = there is no such process */
struct journal *journal_map(const char *run_dir, bool create);
bool journal_add(struct journal *j, const char *uuid, const struct cc_group *group);
bool journal_names(struct journal *j, const char *uuid, uint32_t handle);
bool journal_holds(const struct journal *j); /* something is named, stopped or frozen */
void journal_remove(struct journal *j, const char *uuid, uint32_t handle);
/* Freeze a process, and let it go on. False: there is no place to name it, or it is gone. */
bool journal_freeze(struct journal *j, uint32_t pid, uint64_t start_ticks);
void journal_thaw(struct journal *j, uint32_t pid);
/* The same of a whole group, by its cgroup.freeze. False: no place to name it, or the kernel refused. */
bool journal_freeze_group(struct journal *j, const char *file);
void journal_thaw_group(struct journal *j, const char *file);
/* Resume everything that is named, through fresh attachments, and thaw; with `only`, what is stopped on that card. What
 * could not be resumed stays named. Returns how many groups were resumed. Without `only`, `rescues` grows before each process
 * is resumed, so that an arbiter which is alive after all never takes it for the tenant's doing. */
int journal_resume(struct journal *j, const struct cc_ops *ops, const char *only);
/* Leave the arbiter's control group, and say in <run>/guardian who we are and why that was not possible, if it was not. */
void guardian_leave(const char *run_dir);
int guardian_main(const char *run_dir, const struct cc_ops *ops);
#endif
