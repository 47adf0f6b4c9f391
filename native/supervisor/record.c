/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

uint64_t sv_start_ticks(pid_t pid) {
    char path[64], line[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t n = read(fd, line, sizeof line - 1);
    close(fd);
    if (n <= 0)
        return 0;
    line[n] = 0;
    const char *at = strrchr(line, ')'); /* the name before it may hold anything */
    for (int field = 2; at && field < 22; field++)
        at = strchr(at + 1, ' ');
    return at ? strtoull(at, NULL, 10) : 0;
}

static void sync_directory(const char *path) {
    char copy[PATH_MAX];
    snprintf(copy, sizeof copy, "%s", path);
    int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        fsync(fd);
        close(fd);
    }
}

/* A new file of ours beside `path`, with these bytes, on the disk. */
static bool temporary(const char *path, const char *bytes, size_t n, char name[PATH_MAX]) {
    if (snprintf(name, PATH_MAX, "%s.%d.tmp", path, getpid()) >= PATH_MAX) {
        errno = ENAMETOOLONG;
        return false;
    }
    int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (fd < 0)
        return false;
    bool fine = write(fd, bytes, n) == (ssize_t)n && fsync(fd) == 0;
    int error = errno;
    close(fd);
    if (!fine)
        unlink(name);
    errno = error;
    return fine;
}

enum sv_token sv_token_take(const char *path, char why[SV_MESSAGE_BYTES]) {
    char line[64], name[PATH_MAX];
    int n = snprintf(line, sizeof line, "%d %" PRIu64 "\n", getpid(), sv_start_ticks(getpid()));
    if (!temporary(path, line, (size_t)n, name)) {
        snprintf(why, SV_MESSAGE_BYTES, "cannot write %s: %s", path, strerror(errno));
        return SV_TOKEN_ERROR;
    }
    int failed = link(name, path), error = errno;
    unlink(name);
    sync_directory(path);
    if (!failed)
        return SV_TOKEN_TAKEN;
    if (error == EEXIST)
        return SV_TOKEN_USED;
    snprintf(why, SV_MESSAGE_BYTES, "cannot take the token %s: %s", path, strerror(error));
    return SV_TOKEN_ERROR;
}

static void quoted(char *out, size_t n_out, const char *text) {
    size_t at = 0;
    for (const unsigned char *c = (const unsigned char *)text; *c && at + 7 < n_out; c++) {
        if (*c == '"' || *c == '\\') {
            out[at++] = '\\';
            out[at++] = (char)*c;
        } else if (*c < 0x20 || *c >= 0x7f) {
            /* A command may be named in any encoding; each odd byte is written as the code point of its value, so that
             * the record is JSON whatever was asked for. */
            at += (size_t)snprintf(out + at, n_out - at, "\\u%04x", *c);
        } else {
            out[at++] = (char)*c;
        }
    }
    out[at] = 0;
}

bool sv_record_write(const char *path, const struct sv_ending *ending, char why[SV_MESSAGE_BYTES]) {
    char cause[SV_MESSAGE_BYTES * 6 + 8], code[16] = "null", line[sizeof cause + 512], name[PATH_MAX];
    quoted(cause, sizeof cause, ending->cause);
    if (ending->has_code)
        snprintf(code, sizeof code, "%d", ending->code);
    int n = snprintf(line, sizeof line,
                     "{\"v\":1,\"exit_code\":%s,\"signal\":%d,\"cause\":\"%s\",\"started_at_ms\":%" PRId64
                     ",\"finished_at_ms\":%" PRId64 ",\"user_ms\":%" PRId64 ",\"system_ms\":%" PRId64
                     ",\"max_rss_kib\":%" PRId64 "}\n",
                     code, ending->signal, cause, ending->started_at_ms, ending->finished_at_ms, ending->user_ms,
                     ending->system_ms, ending->max_rss_kib);
    if (!temporary(path, line, (size_t)n, name) || rename(name, path)) {
        snprintf(why, SV_MESSAGE_BYTES, "cannot write %s: %s", path, strerror(errno));
        return false;
    }
    sync_directory(path);
    return true;
}
