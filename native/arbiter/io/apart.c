/* SPDX-License-Identifier: Apache-2.0
 * The guardian lives apart from the arbiter: what kills the arbiter's control group (its cgroup.kill, an OOM kill of the
 * whole group, a service that is ended) must not kill who resumes what it had stopped.
 *
 * Its own group is flexai/guardians below the mount of cgroup v2, where we may write there (root); or, for a user's own pool,
 * a leaf beside flexai-daemons in the group that was given to the user (src/flexai/adapters/local/delegated.py).
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "journal.h"

#define OWN_LEAF "/flexai-daemons" /* as delegated.py names it */

static bool put(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    bool is_done = write(fd, text, strlen(text)) >= 0;
    int error = errno;
    close(fd);
    errno = error;
    return is_done;
}

/* Where cgroup v2 is mounted, and which of its groups is the mount's root. */
static bool find_mount(char root[PATH_MAX], char mount[PATH_MAX])
{
    char line[3 * PATH_MAX];
    bool found = false;
    FILE *file = fopen("/proc/self/mountinfo", "re");
    while (file && !found && fgets(line, sizeof line, file))
        found = strstr(line, " - cgroup2 ") && sscanf(line, "%*s %*s %*s %4095s %4095s", root, mount) == 2;
    if (file)
        fclose(file);
    return found;
}

static bool find_group(char group[PATH_MAX])
{
    char line[PATH_MAX + 8];
    bool found = false;
    FILE *file = fopen("/proc/self/cgroup", "re");
    while (file && !found && fgets(line, sizeof line, file))
        found = sscanf(line, "0::%4095[^\n]", group) == 1;
    if (file)
        fclose(file);
    return found;
}

static bool join(const char *above, const char *name)
{
    char path[3 * PATH_MAX];
    snprintf(path, sizeof path, "%s%s", above, name);
    if (mkdir(path, 0755) && errno != EEXIST)
        return false;
    snprintf(path, sizeof path, "%s%s/cgroup.procs", above, name);
    return put(path, "0");
}

/* The group of the user's own pool: ours is its leaf, and `path` becomes what that is a leaf of. */
static bool is_leaf(const char *root, const char *mount, const char *group, char path[2 * PATH_MAX])
{
    size_t n_root = strcmp(root, "/") ? strlen(root) : 0, n = strlen(group), n_leaf = strlen(OWN_LEAF);
    if (n < n_leaf || strcmp(group + n - n_leaf, OWN_LEAF) || strncmp(group, root, n_root))
        return false;
    snprintf(path, 2 * PATH_MAX, "%s%.*s", mount, (int)(n - n_leaf - n_root), group + n_root);
    return true;
}

/* NULL when it has a group of its own now; else why not. */
static const char *leave(void)
{
    char root[PATH_MAX], mount[PATH_MAX], group[PATH_MAX], path[2 * PATH_MAX];
    if (!find_group(group) || !find_mount(root, mount))
        return "no cgroup v2 is mounted";
    snprintf(path, sizeof path, "%s/flexai", mount);
    if ((mkdir(path, 0755) == 0 || errno == EEXIST) && join(path, "/guardians"))
        return NULL;
    int error = errno;
    if (is_leaf(root, mount, group, path) && join(path, "/flexai-guardian"))
        return NULL;
    return strerror(error);
}

void guardian_leave(const char *run_dir)
{
    char path[PATH_MAX], begun[PATH_MAX + 4];
    put("/proc/self/oom_score_adj", "-1000"); /* where we may: such a process is spared when its whole group is killed */
    const char *why = leave();
    snprintf(path, sizeof path, "%s/guardian", run_dir);
    snprintf(begun, sizeof begun, "%s.new", path);
    FILE *file = fopen(begun, "we");
    if (!file)
        return;
    fprintf(file, "%d\n%s\n", (int)getpid(), why ? why : "");
    if (fclose(file) == 0)
        rename(begun, path);
}
