/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

extern char **environ;

static bool become(const struct sv_options *options) {
    if (!options->has_ids || (getuid() == options->uid && getgid() == options->gid && getuid() != 0))
        return true;
    const struct passwd *user = getpwuid(options->uid);
    if (user ? initgroups(user->pw_name, options->gid) : setgroups(0, NULL))
        return false;
    return setgid(options->gid) == 0 && setuid(options->uid) == 0;
}

static _Noreturn void run(const struct sv_options *options, char **environment, int output, int report) {
    struct sv_failure failure = {0};
    char why[SV_MESSAGE_BYTES];
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    setsid();
    int input = open("/dev/null", O_RDONLY | O_CLOEXEC);
    dup2(input, 0);
    dup2(output, 1);
    dup2(output, 2);
    /* Inside the box before anything of the user's runs, and while we still may. */
    if (!sv_join(options->join, options->n_join, why)) {
        failure = (struct sv_failure){SV_STAGE_JOIN, errno};
    } else if (!become(options)) {
        failure = (struct sv_failure){SV_STAGE_IDENTITY, errno};
    } else if (chdir(options->cwd)) {
        failure = (struct sv_failure){SV_STAGE_CWD, errno};
    } else {
        environ = environment;
        setenv("PWD", options->cwd, 1);
        execvp(options->argv[0], options->argv);
        failure = (struct sv_failure){SV_STAGE_EXEC, errno};
    }
    while (write(report, &failure, sizeof failure) < 0 && errno == EINTR)
        ;
    _exit(failure.stage == SV_STAGE_EXEC && failure.error == ENOENT ? SV_EXIT_NO_COMMAND : SV_EXIT_CANNOT_RUN);
}

pid_t sv_child_start(const struct sv_options *options, char **environment, int output, int *report) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC))
        return -1;
    pid_t pid = fork();
    if (pid == 0) {
        close(ends[0]);
        run(options, environment, output, ends[1]);
    }
    close(ends[1]);
    if (pid < 0)
        close(ends[0]);
    else
        *report = ends[0];
    return pid;
}

int sv_failure_describe(const struct sv_options *options, const struct sv_failure *failure, char why[SV_MESSAGE_BYTES]) {
    const char *error = strerror(failure->error), *command = options->argv[0];
    int code = SV_EXIT_CANNOT_RUN;
    switch (failure->stage) {
    case SV_STAGE_JOIN:
        snprintf(why, SV_MESSAGE_BYTES, "cannot start: the job's cgroup cannot be joined: %s", error);
        break;
    case SV_STAGE_IDENTITY:
        snprintf(why, SV_MESSAGE_BYTES, "cannot start: cannot run as user %u, group %u: %s", options->uid, options->gid, error);
        break;
    case SV_STAGE_CWD:
        snprintf(why, SV_MESSAGE_BYTES, "cannot start: cannot enter %s: %s", options->cwd, error);
        break;
    default:
        if (failure->error == ENOENT && !strchr(command, '/')) {
            snprintf(why, SV_MESSAGE_BYTES, "cannot start: there is no command %s on the job's PATH", command);
        } else {
            snprintf(why, SV_MESSAGE_BYTES, "cannot start: %s: %s", command, error);
        }
        code = failure->error == ENOENT ? SV_EXIT_NO_COMMAND : SV_EXIT_CANNOT_RUN;
    }
    return code;
}
