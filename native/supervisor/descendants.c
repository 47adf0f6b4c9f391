/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor.h"

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_PROCESSES 32768

static void signal_group(const char *procs_file, int number) {
    FILE *file = fopen(procs_file, "re");
    if (!file)
        return;
    int pid = 0;
    while (fscanf(file, "%d", &pid) == 1)
        if (pid > 1 && pid != getpid())
            kill(pid, number);
    fclose(file);
}

struct process {
    pid_t pid, parent;
    bool ours;
};

static int processes_read(struct process *out, int max) {
    DIR *proc = opendir("/proc");
    int n = 0;
    for (struct dirent *entry = NULL; proc && n < max && (entry = readdir(proc));) {
        int pid = atoi(entry->d_name);
        char path[64], line[512];
        snprintf(path, sizeof path, "/proc/%d/stat", pid);
        FILE *file = pid > 0 ? fopen(path, "re") : NULL;
        if (!file)
            continue;
        size_t got = fread(line, 1, sizeof line - 1, file);
        fclose(file);
        line[got] = 0;
        const char *at = strrchr(line, ')');
        int parent = 0;
        if (at && sscanf(at, ") %*c %d", &parent) == 1)
            out[n++] = (struct process){pid, parent, false};
    }
    if (proc)
        closedir(proc);
    return n;
}

/* As a subreaper we are the ancestor of everything the command started, however it daemonised. */
static void signal_tree(int number) {
    struct process *all = calloc(MAX_PROCESSES, sizeof *all);
    int n = all ? processes_read(all, MAX_PROCESSES) : 0;
    for (bool grew = true; grew;) {
        grew = false;
        for (int i = 0; i < n; i++) {
            if (all[i].ours)
                continue;
            bool ours = all[i].parent == getpid();
            for (int j = 0; j < n && !ours; j++)
                ours = all[j].ours && all[j].pid == all[i].parent;
            if (ours)
                all[i].ours = grew = true;
        }
    }
    for (int i = 0; i < n; i++)
        if (all[i].ours)
            kill(all[i].pid, number);
    free(all);
}

void sv_descendants_signal(const struct sv_options *options, int number) {
    if (options->n_join)
        signal_group(options->join[0], number);
    signal_tree(number); /* also those that the command moved out of the group, where it was allowed to */
}
