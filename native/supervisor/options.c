/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_ENVIRONMENT_BYTES (4 << 20)

static bool number(const char *text, int64_t low, int64_t high, int64_t *value) {
    char *end = NULL;
    errno = 0;
    long long parsed = strtoll(text, &end, 10);
    if (errno || end == text || *end || parsed < low || parsed > high)
        return false;
    *value = parsed;
    return true;
}

bool sv_options_parse(int argc, char **argv, struct sv_options *options, char why[SV_MESSAGE_BYTES]) {
    *options = (struct sv_options){.cwd = "/", .grace_ms = 10000, .log_bytes = 64 << 20};
    int i = 1;
    for (; i < argc; i += 2) {
        const char *name = argv[i];
        if (!strcmp(name, "--")) {
            i++;
            break;
        }
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (!value) {
            snprintf(why, SV_MESSAGE_BYTES, "%s takes a value", name);
            return false;
        }
        int64_t parsed = 0;
        bool fine = true;
        if (!strcmp(name, "--token-file")) {
            options->token_file = value;
        } else if (!strcmp(name, "--exit-file")) {
            options->exit_file = value;
        } else if (!strcmp(name, "--log-file")) {
            options->log_file = value;
        } else if (!strcmp(name, "--cwd")) {
            options->cwd = value;
        } else if (!strcmp(name, "--env-file")) {
            options->env_file = value;
        } else if (!strcmp(name, "--join")) {
            fine = options->n_join < SV_MAX_JOINS;
            if (fine)
                options->join[options->n_join++] = value;
        } else if (!strcmp(name, "--self-join")) {
            fine = options->n_self_join < SV_MAX_JOINS;
            if (fine)
                options->self_join[options->n_self_join++] = value;
        } else if (!strcmp(name, "--uid")) {
            fine = number(value, 0, UINT32_MAX - 1, &parsed);
            options->uid = (uid_t)parsed;
            options->has_ids = true;
        } else if (!strcmp(name, "--gid")) {
            fine = number(value, 0, UINT32_MAX - 1, &parsed);
            options->gid = (gid_t)parsed;
        } else if (!strcmp(name, "--time-limit-ms")) {
            fine = number(value, 0, INT64_MAX / 2000000, &options->time_limit_ms);
        } else if (!strcmp(name, "--grace-ms")) {
            fine = number(value, 0, INT64_MAX / 2000000, &options->grace_ms);
        } else if (!strcmp(name, "--log-bytes")) {
            fine = number(value, 4096, INT64_MAX, &options->log_bytes);
        } else {
            snprintf(why, SV_MESSAGE_BYTES, "unknown option %s", name);
            return false;
        }
        if (!fine) {
            snprintf(why, SV_MESSAGE_BYTES, "%s %s is out of range", name, value);
            return false;
        }
    }
    options->argv = argv + i;
    if (i >= argc || !options->token_file || !options->exit_file || !options->log_file) {
        snprintf(why, SV_MESSAGE_BYTES,
                 "usage: flexai-supervisor --token-file F --exit-file F --log-file F [--cwd D] [--env-file F] [--join F]... "
                 "[--self-join F]... [--uid N --gid N] [--time-limit-ms N] [--grace-ms N] [--log-bytes N] -- COMMAND...");
        return false;
    }
    return true;
}

char **sv_environment_read(const char *path, char why[SV_MESSAGE_BYTES]) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat status;
    if (fd < 0 || fstat(fd, &status) || status.st_size > MAX_ENVIRONMENT_BYTES) {
        snprintf(why, SV_MESSAGE_BYTES, "cannot read the environment %s: %s", path, strerror(fd < 0 ? errno : EFBIG));
        if (fd >= 0)
            close(fd);
        return NULL;
    }
    size_t size = (size_t)status.st_size, done = 0;
    char *bytes = malloc(size + 1);
    char **entries = calloc(size / 2 + 2, sizeof *entries); /* an entry takes at least "=" and its NUL */
    while (bytes && done < size) {
        ssize_t n = read(fd, bytes + done, size - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        done += (size_t)n;
    }
    close(fd);
    if (!bytes || !entries || done < size) {
        snprintf(why, SV_MESSAGE_BYTES, "cannot read the environment %s", path);
        free(bytes);
        free(entries);
        return NULL;
    }
    bytes[size] = 0;
    int n_entries = 0;
    for (size_t at = 0; at < size; at += strlen(bytes + at) + 1)
        if (strchr(bytes + at, '='))
            entries[n_entries++] = bytes + at;
    return entries;
}

bool sv_join(const char *const *files, int n, char why[SV_MESSAGE_BYTES]) {
    for (int i = 0; i < n; i++) {
        int fd = open(files[i], O_WRONLY | O_CLOEXEC);
        bool fine = fd >= 0 && write(fd, "0\n", 2) == 2; /* "0" is the writer, whatever its pid namespace */
        int error = errno;
        if (fd >= 0)
            close(fd);
        if (!fine) {
            snprintf(why, SV_MESSAGE_BYTES, "cannot join %s: %s", files[i], strerror(error));
            errno = error;
            return false;
        }
    }
    return true;
}
