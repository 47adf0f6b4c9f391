/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "workload.h"

static int usage(void)
{
    fprintf(stderr,
            "usage: flexai-workload flood|latency|step|graph|fill|spin-pair [--kernel-us U] [--seconds S] [--iterations N]\n"
            "         [--depth N] [--memory BYTES] [--host-us U] [--period-us U] [--nodes N] [--device N] [--control FILE]\n"
            "  flood    kernels back to back, --depth in flight (0: 20 ms of them, 3 to 500)\n"
            "  latency  a request of one kernel every --period-us, open loop\n"
            "  step     a kernel, synchronise, --host-us on the host\n"
            "  graph    replays of a graph of --nodes kernels\n"
            "  fill     allocates until refused, frees, again\n"
            "  spin-pair  two processes with the same --pair FILE (made by whoever starts them): each step's kernel spins on\n"
            "           device memory until the other has done as many; --collective 0: under a name that tells nothing\n");
    return 2;
}

int options_read(struct options *o, int argc, char **argv)
{
    *o = (struct options){.kernel_us = 1000, .host_us = 100, .period_us = 20000, .nodes = 20, .collective = true};
    static const char *const KINDS[] = {"flood", "latency", "step", "graph", "fill", "spin-pair"};
    for (size_t i = 0; argc > 1 && i < sizeof KINDS / sizeof KINDS[0]; i++)
        if (!strcmp(argv[1], KINDS[i]))
            o->kind = KINDS[i];
    if (!o->kind)
        return usage();
    for (int i = 2; i < argc; i += 2) {
        if (i + 1 >= argc)
            return usage();
        const char *name = argv[i], *text = argv[i + 1];
        char *end = NULL;
        if (!strcmp(name, "--control")) {
            o->control = text;
            continue;
        }
        if (!strcmp(name, "--pair")) {
            o->pair = text;
            continue;
        }
        double value = strtod(text, &end);
        if (*end || end == text || value < 0) {
            fprintf(stderr, "flexai-workload: %s: %s is not a number of at least 0\n", name, text);
            return 2;
        }
        if (!strcmp(name, "--kernel-us")) o->kernel_us = value;
        else if (!strcmp(name, "--seconds")) o->seconds = value;
        else if (!strcmp(name, "--iterations")) o->iterations = (uint64_t)value;
        else if (!strcmp(name, "--memory")) o->memory_bytes = (uint64_t)value;
        else if (!strcmp(name, "--depth")) o->depth = (unsigned)value;
        else if (!strcmp(name, "--host-us")) o->host_us = value;
        else if (!strcmp(name, "--period-us")) o->period_us = value;
        else if (!strcmp(name, "--nodes")) o->nodes = (unsigned)value;
        else if (!strcmp(name, "--collective")) o->collective = value != 0;
        else if (!strcmp(name, "--device")) o->device = (int)value;
        else return usage();
    }
    if (!strcmp(o->kind, "spin-pair") != (o->pair != NULL)) {
        fprintf(stderr, "flexai-workload: spin-pair, and nothing else, needs --pair FILE\n");
        return 2;
    }
    if (!o->depth) { /* enough that a machine short of processors does not let the card run dry */
        double us = o->kernel_us * (strcmp(o->kind, "graph") ? 1 : o->nodes);
        o->depth = us <= 40 ? 500 : us >= 6000 ? 3 : (unsigned)(20000 / us);
    }
    if (!o->depth || o->depth > 1024 || !o->nodes || o->nodes > 1000 || o->period_us < 1) {
        fprintf(stderr, "flexai-workload: --depth 1..1024, --nodes 1..1000, --period-us at least 1\n");
        return 2;
    }
    return 0;
}
