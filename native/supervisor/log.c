/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool reopen(struct sv_log *log) {
    log->fd = open(log->path, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0640);
    struct stat status;
    if (log->fd < 0 || fstat(log->fd, &status))
        return false;
    log->size = status.st_size;
    if (log->chown && fchown(log->fd, log->uid, log->gid))
        return false;
    return true;
}

bool sv_log_open(struct sv_log *log, const struct sv_options *options, char why[SV_MESSAGE_BYTES]) {
    *log = (struct sv_log){
        .path = options->log_file, .fd = -1, .max_bytes = options->log_bytes, .uid = options->uid, .gid = options->gid,
        .chown = options->has_ids && getuid() == 0,
    };
    if (reopen(log))
        return true;
    snprintf(why, SV_MESSAGE_BYTES, "cannot start: cannot write the log %s: %s", options->log_file, strerror(errno));
    return false;
}

static void rotate(struct sv_log *log) {
    char old[PATH_MAX];
    if (snprintf(old, sizeof old, "%s.1", log->path) >= (int)sizeof old || rename(log->path, old))
        return;
    close(log->fd);
    if (!reopen(log) && log->fd >= 0)
        log->size = 0;
}

static void put(struct sv_log *log, const char *bytes, size_t n) {
    /* A full disk loses output, never the job: what cannot be written is dropped. */
    for (size_t done = 0; done < n && log->fd >= 0;) {
        ssize_t written = write(log->fd, bytes + done, n - done);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return;
        done += (size_t)written;
        log->size += written;
    }
}

void sv_log_write(struct sv_log *log, const char *bytes, size_t n) {
    /* One read of the pipe may hold more than a whole log: the bound is kept to the byte, in the middle of a line. */
    while (log->fd >= 0 && log->max_bytes > 0 && (int64_t)n > log->max_bytes - log->size) {
        size_t room = log->size < log->max_bytes ? (size_t)(log->max_bytes - log->size) : 0;
        put(log, bytes, room);
        bytes += room;
        n -= room;
        rotate(log);
        if (log->size > 0)
            break; /* it could not be rotated */
    }
    put(log, bytes, n);
}
