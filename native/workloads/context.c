/* SPDX-License-Identifier: Apache-2.0
 *
 * flexai-context  What a context takes on each card: {"uuid": ..., "bytes": ...} a line. That is what the driver lists its
 * process with, or by how much the card's total grew, which is somewhat more (H200, 580.159.04: 518 MiB and 524 MiB). One
 * card of each model is tried, and the others of the model are told the same. Another process has a context meanwhile, for
 * a card's first user costs the driver more once. Runs outside of every slice, and ends with what it made; nothing is said
 * of a card whose driver does not list it, as under MIG.
 */
#include <dlfcn.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <stdint.h>
#include <stdbool.h>
#include <stdlib.h>

#define MAX_CARDS 64
#define MAX_LISTED 1024
#define NOT_AVAILABLE UINT64_MAX
#define BLOCK (2ull << 20)
#define MOST_UNLISTED (32ull << 20) /* more is somebody else's */
/* Of contexts that are made side by side each takes somewhat more than one alone (H200: four took 524.08 MiB each, 523.56
 * one after the other). */
#define SIDE_BY_SIDE BLOCK
#define KEPT_WITHIN_MS 10000

/* nvmlProcessInfo_t (CUDA 11) */
struct process {
    unsigned pid;
    unsigned long long used_bytes;
    unsigned instance, compute;
};

static struct {
    int (*init)(unsigned), (*count)(int *), (*uuid)(unsigned char[16], int), (*name)(char *, int, int);
    int (*retain)(void **, int), (*release)(int);
} cuda;
static struct {
    int (*init)(void), (*by_uuid)(const char *, void **), (*processes)(void *, unsigned *, struct process *);
    int (*memory)(void *, unsigned long long[3]); /* total, free, used */
} nvml;

static bool find(void *library, void *to, const char *symbol)
{
    void *at = library ? dlsym(library, symbol) : NULL;
    memcpy(to, &at, sizeof at);
    return at != NULL;
}

static bool open_both(void)
{
    void *c = dlopen("libcuda.so.1", RTLD_NOW), *m = dlopen("libnvidia-ml.so.1", RTLD_NOW);
    return find(c, &cuda.init, "cuInit") && find(c, &cuda.count, "cuDeviceGetCount") &&
           (find(c, &cuda.uuid, "cuDeviceGetUuid_v2") || find(c, &cuda.uuid, "cuDeviceGetUuid")) &&
           find(c, &cuda.name, "cuDeviceGetName") && find(c, &cuda.retain, "cuDevicePrimaryCtxRetain") &&
           find(c, &cuda.release, "cuDevicePrimaryCtxRelease_v2") && find(m, &nvml.init, "nvmlInit_v2") &&
           find(m, &nvml.by_uuid, "nvmlDeviceGetHandleByUUID") &&
           find(m, &nvml.processes, "nvmlDeviceGetComputeRunningProcesses_v3") &&
           find(m, &nvml.memory, "nvmlDeviceGetMemoryInfo") && cuda.init(0) == 0 && nvml.init() == 0;
}

static void uuid_text(const unsigned char raw[16], char text[41])
{
    char *at = text + sprintf(text, "GPU-");
    for (int i = 0; i < 16; i++)
        at += sprintf(at, i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" : "%02x", raw[i]);
}

static uint64_t used(void *card)
{
    unsigned long long memory[3] = {0};
    return nvml.memory(card, memory) == 0 ? memory[2] : 0;
}

/* 0 when it cannot be told. */
static uint64_t try_one(int device, const char *uuid)
{
    static struct process found[MAX_LISTED];
    unsigned n = MAX_LISTED;
    uint64_t bytes = 0;
    void *context, *card;
    if (nvml.by_uuid(uuid, &card) != 0)
        return 0;
    uint64_t before = used(card);
    if (cuda.retain(&context, device) != 0)
        return 0;
    uint64_t after = used(card), grown = after > before ? after - before : 0;
    if (nvml.processes(card, &n, found) == 0)
        for (unsigned i = 0; i < n; i++)
            if (found[i].pid == (unsigned)getpid() && found[i].used_bytes != NOT_AVAILABLE)
                bytes = found[i].used_bytes;
    if (bytes && grown > bytes && grown - bytes <= MOST_UNLISTED && used(card) == after)
        bytes = (grown + BLOCK - 1) / BLOCK * BLOCK + SIDE_BY_SIDE;
    cuda.release(device);
    return bytes;
}

/* A process that has a context on each card until the descriptor that is returned is closed. */
static int keep_contexts(void)
{
    int ready[2], over[2];
    if (pipe(ready) != 0 || pipe(over) != 0)
        return -1;
    if (fork() == 0) {
        int n = 0;
        void *context;
        char none;
        close(over[1]);
        if (open_both() && cuda.count(&n) == 0)
            for (int device = 0; device < n && device < MAX_CARDS; device++)
                cuda.retain(&context, device);
        if (write(ready[1], "", 1) == 1 && read(over[0], &none, 1) < 0)
            _exit(1);
        _exit(0);
    }
    close(ready[1]);
    close(over[0]);
    struct pollfd wait = {.fd = ready[0], .events = POLLIN};
    poll(&wait, 1, KEPT_WITHIN_MS);
    return over[1];
}

int main(void)
{
    static struct { char name[128]; uint64_t bytes; } model[MAX_CARDS];
    int n = 0, n_models = 0;
    unsetenv("CUDA_VISIBLE_DEVICES");
    int keeper = keep_contexts();
    if (!open_both() || cuda.count(&n) != 0) {
        fprintf(stderr, "flexai-context: no driver, or no card\n");
        return 1;
    }
    for (int device = 0; device < n && device < MAX_CARDS; device++) {
        unsigned char raw[16];
        char uuid[41], name[128] = "";
        if (cuda.uuid(raw, device) != 0 || cuda.name(name, sizeof name, device) != 0)
            continue;
        uuid_text(raw, uuid);
        int place = 0;
        while (place < n_models && strcmp(model[place].name, name) != 0)
            place++;
        if (place == n_models || model[place].bytes == 0) {
            strcpy(model[place].name, name);
            model[place].bytes = try_one(device, uuid);
            n_models += place == n_models;
        }
        if (model[place].bytes)
            printf("{\"uuid\": \"%s\", \"bytes\": %llu}\n", uuid, (unsigned long long)model[place].bytes);
    }
    close(keeper);
    wait(NULL);
    return 0;
}
