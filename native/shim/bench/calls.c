/* SPDX-License-Identifier: Apache-2.0
 *
 * flexai-shim-calls launch|alloc|start ROUNDS   Time calls of whatever libcuda.so.1 the loader gives, in nanoseconds.
 *
 *   launch  one cuLaunchKernel; alloc  one cuMemAlloc + cuMemFree; start  dlopen and cuInit, once
 * Prints the least and the median over ROUNDS of batches.
 */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define BATCH 2000

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

typedef int (*launch)(void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *, void **,
                      void **);

int main(int n, char **arguments)
{
    if (n != 3) {
        fprintf(stderr, "usage: flexai-shim-calls launch|alloc|start ROUNDS\n");
        return 2;
    }
    int rounds = atoi(arguments[2]);
    uint64_t begin = now_ns();
    void *driver = dlopen("libcuda.so.1", RTLD_NOW);
    int (*init)(unsigned) = driver ? (int (*)(unsigned))dlsym(driver, "cuInit") : NULL;
    if (!init || init(0) != 0) {
        fprintf(stderr, "flexai-shim-calls: no driver: %s\n", driver ? "cuInit failed" : dlerror());
        return 1;
    }
    double started = (double)(now_ns() - begin);
    if (strcmp(arguments[1], "start") == 0) {
        printf("%.1f %.1f\n", started, started);
        return 0;
    }
    int (*retain)(void **, int) = (int (*)(void **, int))dlsym(driver, "cuDevicePrimaryCtxRetain");
    int (*current)(void *) = (int (*)(void *))dlsym(driver, "cuCtxSetCurrent");
    launch go = (launch)dlsym(driver, "cuLaunchKernel");
    int (*get)(uint64_t *, size_t) = (int (*)(uint64_t *, size_t))dlsym(driver, "cuMemAlloc_v2");
    int (*give)(uint64_t) = (int (*)(uint64_t))dlsym(driver, "cuMemFree_v2");
    void *context;
    double *times = calloc((size_t)rounds + 1, sizeof *times);
    if (!times || rounds < 1 || retain(&context, 0) != 0 || current(context) != 0)
        return 1;
    int failed = 0;
    for (int round = 0; round < rounds; round++) {
        begin = now_ns();
        for (int i = 0; i < BATCH; i++) {
            if (arguments[1][0] == 'l') {
                failed |= go(NULL, 0, 0, 0, 0, 0, 0, 0, NULL, NULL, NULL);
            } else {
                uint64_t at;
                failed |= get(&at, 2u << 20) || give(at);
            }
        }
        times[round] = (double)(now_ns() - begin) / BATCH;
    }
    qsort(times, (size_t)rounds, sizeof *times, ascending);
    printf("%.2f %.2f\n", times[0], times[rounds / 2]);
    return failed;
}
