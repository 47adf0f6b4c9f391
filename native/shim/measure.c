/* SPDX-License-Identifier: Apache-2.0 */
#include "glibc.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "charge.h"
#include "measure.h"
#include "pools.h"
#include "real.h"

/* nvmlProcessInfo_t (CUDA 11) */
struct process {
    unsigned pid;
    unsigned long long used_bytes;
    unsigned instance, compute;
};
typedef int (*get_processes)(void *, unsigned *, struct process *);

/* nvmlPciInfo_t (CUDA 9.2) */
struct pci {
    char legacy[16];
    unsigned domain, bus, device, device_id, subsystem_id;
    char id[32];
};
typedef int (*get_pci)(void *, struct pci *);

static enum { UNTRIED, READY, ABSENT } library;
static get_processes ask;
static get_pci ask_place;
static int (*by_uuid)(const char *, void **);
static void *device[FX_MAX_DEVICES];
static char uuid_of[FX_MAX_DEVICES][FX_UUID_BYTES]; /* which card that was */

static void open_library(void)
{
    char why[512];
    library = ABSENT;
    void *nvml = fx_real_open("FLEXAI_REAL_NVML", "libnvidia-ml.so.1", why, sizeof why);
    if (!nvml)
        return;
    int (*init)(void) = (int (*)(void))dlsym(nvml, "nvmlInit_v2");
    by_uuid = (int (*)(const char *, void **))dlsym(nvml, "nvmlDeviceGetHandleByUUID");
    ask = (get_processes)dlsym(nvml, "nvmlDeviceGetComputeRunningProcesses_v3");
    ask_place = (get_pci)dlsym(nvml, "nvmlDeviceGetPciInfo_v3");
    if (!init || !by_uuid || !ask || init() != 0)
        return;
    library = READY;
}

/* A process that was parked may have come back to another card. */
static void *device_now(uint32_t card)
{
    struct fx_limits limits;
    if (!fx_limits_read(fx.region.policy, card, &limits))
        return NULL;
    if (strcmp(limits.uuid, uuid_of[card]) != 0) {
        strcpy(uuid_of[card], limits.uuid);
        if (by_uuid(limits.uuid, &device[card]) != 0)
            device[card] = NULL;
    }
    return device[card];
}

/* `ours`: so many allocations under way are the caller's own, which has asked the driver for nothing yet. */
static bool measure(uint32_t host_pid, uint32_t ours)
{
    bool all = true;
    static struct process found[1024];
    if (library == UNTRIED)
        open_library();
    if (library != READY)
        return true;
    for (uint32_t card = 0; card < fx.n_cards; card++) {
        uint32_t settled = __atomic_load_n(&fx_n_settled, __ATOMIC_SEQ_CST);
        unsigned n = sizeof found / sizeof *found;
        fx_pools_settle((int)card); /* what was freed in stream order is charged until then */
        void *at = device_now(card);
        if (!at)
            continue;
        if (__atomic_load_n(&fx_under_way, __ATOMIC_SEQ_CST) > ours || ask(at, &n, found) != 0 ||
            __atomic_load_n(&fx_under_way, __ATOMIC_SEQ_CST) > ours ||
            __atomic_load_n(&fx_n_settled, __ATOMIC_SEQ_CST) != settled) {
            all = false; /* something changed meanwhile: next time */
            continue;
        }
        for (unsigned i = 0; i < n; i++)
            if (found[i].pid == host_pid && found[i].used_bytes != UINT64_MAX) /* not available under MIG, WSL */
                fx_measured((int)card, found[i].used_bytes);
    }
    return all;
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

void fx_measure_forget(void)
{
    lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    library = UNTRIED;
    memset(uuid_of, 0, sizeof uuid_of);
}

#define MOST_MISSED 3
#define WAIT_STEPS 50

/* While nothing new begins, as far as that can be waited for. */
static bool measure_paused(uint32_t host_pid)
{
    fx_pause(true);
    for (int i = 0; i < WAIT_STEPS && __atomic_load_n(&fx_under_way, __ATOMIC_SEQ_CST); i++)
        usleep(100);
    bool all = measure(host_pid, 0);
    fx_pause(false);
    return all;
}

void fx_measure(uint32_t host_pid)
{
    static int n_missed;
    pthread_mutex_lock(&lock);
    bool pausing = n_missed >= MOST_MISSED; /* it allocates without a break */
    n_missed = (pausing ? measure_paused(host_pid) : measure(host_pid, 0)) ? 0 : n_missed + 1;
    pthread_mutex_unlock(&lock);
}

void fx_measure_twice(uint32_t ours)
{
    pthread_mutex_lock(&lock);
    for (int i = 0; i < 2; i++)
        measure(fx_host_pid(), ours);
    pthread_mutex_unlock(&lock);
}

uint64_t fx_measure_now(int card)
{
    pthread_mutex_lock(&lock);
    uint64_t before = fx_extra(card);
    measure_paused(fx_host_pid());
    uint64_t after = fx_extra(card), took = after > before ? after - before : 0;
    fx_extra_moved(card, took);
    pthread_mutex_unlock(&lock);
    return took;
}

bool fx_bus_of(int card, char text[32])
{
    struct pci pci;
    pthread_mutex_lock(&lock);
    if (library == UNTRIED)
        open_library();
    void *at = library == READY ? device_now((uint32_t)card) : NULL;
    bool known = at && ask_place && ask_place(at, &pci) == 0;
    pthread_mutex_unlock(&lock);
    if (known)
        snprintf(text, 32, "%04x:%02x:%02x.0", pci.domain & 0xFFFFu, pci.bus & 0xFFu, pci.device & 0xFFu);
    return known;
}
