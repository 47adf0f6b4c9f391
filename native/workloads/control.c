/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include "workload.h"

#define RING 65536u

struct control {
    _Atomic uint64_t iterations;
    _Atomic uint32_t ready;
    _Atomic uint32_t order;
    _Atomic uint64_t n_latencies;
    _Atomic uint64_t last_ns;
    char pad[4096 - 32];
    float latency_ms[RING];
};

static struct control *control;

void control_open(const char *path)
{
    if (!path)
        return;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    void *at = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED) {
        perror(path);
        exit(2);
    }
    control = at;
}

void control_ready(void)
{
    if (control)
        control->ready = 1;
}

enum order control_order(void)
{
    return control ? (enum order)control->order : ORDER_RUN;
}

void control_finished(uint64_t iterations)
{
    if (!control)
        return;
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    control->last_ns = (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
    control->iterations = iterations;
}

void control_latency(float ms)
{
    if (!control)
        return;
    control->latency_ms[control->n_latencies % RING] = ms;
    control->n_latencies++;
}
