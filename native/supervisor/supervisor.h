/* SPDX-License-Identifier: Apache-2.0
 *
 * flexai-supervisor: starts one member of one job exactly once, and stays until everything it started is gone.
 *
 * It outlives the agent and the pool. It owns what must survive them: the start token (so that nothing starts twice),
 * the log, and the exit record. Its standard output is read by the agent until it says one line: "began <pid> <ticks>",
 * "used" (another start took the token), or "failed <message>".
 */
#ifndef FLEXAI_SUPERVISOR_H
#define FLEXAI_SUPERVISOR_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define SV_MAX_JOINS 16
#define SV_EXIT_NO_COMMAND 127
#define SV_EXIT_CANNOT_RUN 126
#define SV_EXIT_TOKEN_USED 75
#define SV_MESSAGE_BYTES 512

struct sv_options {
    const char *token_file;
    const char *exit_file;
    const char *log_file;
    const char *cwd;
    const char *env_file;
    const char *self_join[SV_MAX_JOINS]; /* cgroup.procs files the supervisor joins */
    int n_self_join;
    const char *join[SV_MAX_JOINS];      /* cgroup.procs files the command joins */
    int n_join;
    uid_t uid;
    gid_t gid;
    bool has_ids;
    int64_t time_limit_ms; /* 0 = none */
    int64_t grace_ms;      /* between SIGTERM and SIGKILL at the time limit */
    int64_t log_bytes;     /* the log is rotated to <log>.1 at this size */
    char **argv;           /* the command; NULL-terminated */
};

/* Parses the command line; on failure writes a sentence into `why`. */
bool sv_options_parse(int argc, char **argv, struct sv_options *options, char why[SV_MESSAGE_BYTES]);

/* Reads NUL-separated NAME=VALUE entries; NULL with `why` when it cannot. */
char **sv_environment_read(const char *path, char why[SV_MESSAGE_BYTES]);

/* Writes our pid into each file. */
bool sv_join(const char *const *files, int n, char why[SV_MESSAGE_BYTES]);

/* Forks the command. Returns its pid, or -1. A failure before exec arrives on *report as a struct sv_failure. */
struct sv_failure {
    int stage; /* enum sv_stage */
    int error; /* errno */
};
enum sv_stage { SV_STAGE_JOIN = 1, SV_STAGE_IDENTITY = 2, SV_STAGE_CWD = 3, SV_STAGE_EXEC = 4 };
pid_t sv_child_start(const struct sv_options *options, char **environment, int output, int *report);
/* A sentence for people, and the exit code that goes with it. */
int sv_failure_describe(const struct sv_options *options, const struct sv_failure *failure, char why[SV_MESSAGE_BYTES]);

struct sv_log {
    const char *path;
    int fd;
    int64_t size;
    int64_t max_bytes;
    uid_t uid;
    gid_t gid;
    bool chown;
};
bool sv_log_open(struct sv_log *log, const struct sv_options *options, char why[SV_MESSAGE_BYTES]);
void sv_log_write(struct sv_log *log, const char *bytes, size_t n);

struct sv_ending {
    bool has_code;
    int code;
    int signal;
    char cause[SV_MESSAGE_BYTES];
    int64_t started_at_ms;
    int64_t finished_at_ms;
    int64_t user_ms;
    int64_t system_ms;
    int64_t max_rss_kib;
};

enum sv_token { SV_TOKEN_TAKEN, SV_TOKEN_USED, SV_TOKEN_ERROR };
/* Takes the token: links a file that already holds "<pid> <start ticks>\n" under the token's name, so that it exists
 * whole or not at all. */
enum sv_token sv_token_take(const char *path, char why[SV_MESSAGE_BYTES]);
/* Writes the exit record: a temporary file, fsync, rename, fsync of the directory. */
bool sv_record_write(const char *path, const struct sv_ending *ending, char why[SV_MESSAGE_BYTES]);
uint64_t sv_start_ticks(pid_t pid);

/* Signals everything the supervisor started that still is: the cgroup's members where there is a cgroup, otherwise the
 * tree of children below us. */
void sv_descendants_signal(const struct sv_options *options, int number);

#endif
