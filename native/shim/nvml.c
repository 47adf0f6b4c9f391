/* SPDX-License-Identifier: Apache-2.0
 *
 * The management library as a tenant sees it: its cards, in its numbering, each as large as its slice.
 */
#include "glibc.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "nvml_index.h"
#include "real.h"
#include "region_core.h"

#define FX_REAL(name, type) ((type)__atomic_load_n(&nvml_real[FX_##name], __ATOMIC_RELAXED))
#define FX_EXPORT __attribute__((visibility("default")))

/* Source: nvml.h of CUDA 13. */
typedef int nvmlReturn;
typedef struct nvml_device *nvmlDevice;
enum {
    NVML_SUCCESS = 0,
    NVML_ERROR_INVALID_ARGUMENT = 2,
    NVML_ERROR_NOT_SUPPORTED = 3,
    NVML_ERROR_NOT_FOUND = 6,
    NVML_ERROR_INSUFFICIENT_SIZE = 7,
    NVML_ERROR_LIBRARY_NOT_FOUND = 12,
    NVML_ERROR_FUNCTION_NOT_FOUND = 13,
};
struct memory {
    unsigned long long total, free, used;
};
struct memory_v2 {
    unsigned version;
    unsigned long long total, reserved, free, used;
};
struct process {
    unsigned pid;
    unsigned long long used;
    unsigned gpu_instance, compute_instance; /* from version 2 on */
};
struct process_v1 {
    unsigned pid;
    unsigned long long used;
};
struct process_detail {
    unsigned pid;
    unsigned long long used;
    unsigned gpu_instance, compute_instance;
    unsigned long long protected_used;
};
struct process_details {
    unsigned version, mode, n;
    struct process_detail *list;
};
struct process_use {
    unsigned pid;
    unsigned long long at_us;
    unsigned sm, memory, encoder, decoder;
};
struct process_use_v1 {
    unsigned long long at_us;
    unsigned pid, sm, memory, encoder, decoder, jpeg, flow;
};
struct process_uses {
    unsigned version, n;
    unsigned long long since_us;
    struct process_use_v1 *list;
};

FX_EXPORT extern const char flexai_shim_build[];
const char flexai_shim_build[] = "flexai-shim " FX_BUILD;
FX_EXPORT nvmlReturn nvmlDeviceGetCount(unsigned *n);
FX_EXPORT nvmlReturn nvmlDeviceGetCount_v2(unsigned *n);
FX_EXPORT nvmlReturn nvmlDeviceGetHandleByIndex(unsigned index, nvmlDevice *device);
FX_EXPORT nvmlReturn nvmlDeviceGetHandleByIndex_v2(unsigned index, nvmlDevice *device);
FX_EXPORT nvmlReturn nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice *device);
FX_EXPORT nvmlReturn nvmlDeviceGetHandleByPciBusId(const char *bus, nvmlDevice *device);
FX_EXPORT nvmlReturn nvmlDeviceGetHandleByPciBusId_v2(const char *bus, nvmlDevice *device);
FX_EXPORT nvmlReturn nvmlDeviceGetHandleBySerial(const char *serial, nvmlDevice *device);
FX_EXPORT nvmlReturn nvmlDeviceGetIndex(nvmlDevice device, unsigned *index);
FX_EXPORT nvmlReturn nvmlDeviceGetMemoryInfo(nvmlDevice device, struct memory *memory);
FX_EXPORT nvmlReturn nvmlDeviceGetMemoryInfo_v2(nvmlDevice device, struct memory_v2 *memory);
#define PROCESSES(name, type)                                                                                          \
    FX_EXPORT nvmlReturn name(nvmlDevice device, unsigned *n, type *found);                                            \
    nvmlReturn name(nvmlDevice device, unsigned *n, type *found)                                                       \
    {                                                                                                                  \
        return processes(FX_REAL(name, list_processes), device, n, found, sizeof *found);                              \
    }
FX_EXPORT nvmlReturn nvmlDeviceGetHandleByUUIDV(const void *uuid, nvmlDevice *device);
FX_EXPORT nvmlReturn nvmlDeviceGetRunningProcessDetailList(nvmlDevice device, struct process_details *found);
FX_EXPORT nvmlReturn nvmlDeviceGetProcessUtilization(nvmlDevice device, struct process_use *found, unsigned *n,
                                                     unsigned long long since_us);
FX_EXPORT nvmlReturn nvmlDeviceGetProcessesUtilizationInfo(nvmlDevice device, struct process_uses *found);
FX_EXPORT nvmlReturn nvmlDeviceGetAccountingPids(nvmlDevice device, unsigned *n, unsigned *pids);
FX_EXPORT nvmlReturn nvmlDeviceGetAccountingStats(nvmlDevice device, unsigned pid, void *stats);
FX_EXPORT nvmlReturn nvmlDeviceGetAccountingStats_v2(nvmlDevice device, unsigned pid, void *stats);
void *nvml_resolve(uint64_t index) __attribute__((visibility("hidden")));

static pthread_once_t opened = PTHREAD_ONCE_INIT;
static void *library;
static struct fx_region region; /* of the tenant; NULL words without one */

static void open_all(void)
{
    char why[768];
    library = fx_real_open("FLEXAI_REAL_NVML", "libnvidia-ml.so.1", why, sizeof why);
    const char *dir = getenv("FLEXAI_TENANT_DIR");
    if (dir && *dir && fx_region_open(&region, dir, why, sizeof why) != 0)
        memset(&region, 0, sizeof region); /* nothing is held by this library: it only shows */
}

static nvmlReturn no_library(void)
{
    return NVML_ERROR_LIBRARY_NOT_FOUND;
}

static nvmlReturn not_in_library(void)
{
    return NVML_ERROR_FUNCTION_NOT_FOUND;
}

static nvmlReturn refused(void)
{
    return NVML_ERROR_NOT_SUPPORTED;
}

void *nvml_resolve(uint64_t index)
{
    pthread_once(&opened, open_all);
    void *at = library ? dlsym(library, nvml_name[index]) : (void *)no_library;
    if (!at)
        at = (void *)not_in_library;
    if (nvml_refused[index] && region.policy)
        at = (void *)refused;
    __atomic_store_n(&nvml_real[index], at, __ATOMIC_RELEASE);
    return at;
}

/* Our functions are entered before anything is bound, too. */
static bool tenant(void)
{
    pthread_once(&opened, open_all);
    return region.policy;
}

/* The card of the tenant that a device is, or -1. */
static int card_of(nvmlDevice device)
{
    char uuid[96];
    struct fx_limits limits;
    if (FX_REAL(nvmlDeviceGetUUID, nvmlReturn (*)(nvmlDevice, char *, unsigned))(device, uuid, sizeof uuid) != 0)
        return -1;
    for (uint32_t card = 0; fx_limits_read(region.policy, card, &limits); card++)
        if (strcasecmp(limits.uuid, uuid) == 0)
            return (int)card;
    return -1;
}

static nvmlReturn count(nvmlReturn (*real)(unsigned *), unsigned *n)
{
    nvmlReturn rc = real(n);
    struct fx_limits limits;
    if (rc != NVML_SUCCESS || !tenant())
        return rc;
    unsigned cards = 0;
    while (fx_limits_read(region.policy, cards, &limits))
        cards++;
    *n = cards;
    return rc;
}

nvmlReturn nvmlDeviceGetCount(unsigned *n)
{
    return count(FX_REAL(nvmlDeviceGetCount, nvmlReturn (*)(unsigned *)), n);
}

nvmlReturn nvmlDeviceGetCount_v2(unsigned *n)
{
    return count(FX_REAL(nvmlDeviceGetCount_v2, nvmlReturn (*)(unsigned *)), n);
}

static nvmlReturn by_index(nvmlReturn (*real)(unsigned, nvmlDevice *), unsigned index, nvmlDevice *device)
{
    struct fx_limits limits;
    if (!tenant())
        return real(index, device);
    if (!fx_limits_read(region.policy, index, &limits))
        return NVML_ERROR_INVALID_ARGUMENT;
    return FX_REAL(nvmlDeviceGetHandleByUUID, nvmlReturn (*)(const char *, nvmlDevice *))(limits.uuid, device);
}

nvmlReturn nvmlDeviceGetHandleByIndex(unsigned index, nvmlDevice *device)
{
    return by_index(FX_REAL(nvmlDeviceGetHandleByIndex, nvmlReturn (*)(unsigned, nvmlDevice *)), index, device);
}

nvmlReturn nvmlDeviceGetHandleByIndex_v2(unsigned index, nvmlDevice *device)
{
    return by_index(FX_REAL(nvmlDeviceGetHandleByIndex_v2, nvmlReturn (*)(unsigned, nvmlDevice *)), index, device);
}

static nvmlReturn by_name(nvmlReturn (*real)(const char *, nvmlDevice *), const char *name, nvmlDevice *device)
{
    nvmlReturn rc = real(name, device);
    return rc == NVML_SUCCESS && tenant() && card_of(*device) < 0 ? NVML_ERROR_NOT_FOUND : rc;
}

nvmlReturn nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice *device)
{
    return by_name(FX_REAL(nvmlDeviceGetHandleByUUID, nvmlReturn (*)(const char *, nvmlDevice *)), uuid, device);
}

nvmlReturn nvmlDeviceGetHandleByUUIDV(const void *uuid, nvmlDevice *device)
{
    nvmlReturn rc = FX_REAL(nvmlDeviceGetHandleByUUIDV, nvmlReturn (*)(const void *, nvmlDevice *))(uuid, device);
    return rc == NVML_SUCCESS && tenant() && card_of(*device) < 0 ? NVML_ERROR_NOT_FOUND : rc;
}

nvmlReturn nvmlDeviceGetHandleByPciBusId(const char *bus, nvmlDevice *device)
{
    return by_name(FX_REAL(nvmlDeviceGetHandleByPciBusId, nvmlReturn (*)(const char *, nvmlDevice *)), bus, device);
}

nvmlReturn nvmlDeviceGetHandleByPciBusId_v2(const char *bus, nvmlDevice *device)
{
    return by_name(FX_REAL(nvmlDeviceGetHandleByPciBusId_v2, nvmlReturn (*)(const char *, nvmlDevice *)), bus, device);
}

nvmlReturn nvmlDeviceGetHandleBySerial(const char *serial, nvmlDevice *device)
{
    return by_name(FX_REAL(nvmlDeviceGetHandleBySerial, nvmlReturn (*)(const char *, nvmlDevice *)), serial, device);
}

nvmlReturn nvmlDeviceGetIndex(nvmlDevice device, unsigned *index)
{
    nvmlReturn rc = FX_REAL(nvmlDeviceGetIndex, nvmlReturn (*)(nvmlDevice, unsigned *))(device, index);
    int card = rc == NVML_SUCCESS && tenant() ? card_of(device) : -1;
    if (card >= 0)
        *index = (unsigned)card;
    return rc;
}

/* Total is the cap; used is what the tenant is charged; free is not more than the card has. */
static void slice(nvmlDevice device, unsigned long long *total, unsigned long long *free_bytes, unsigned long long *used)
{
    struct fx_limits limits;
    int card = tenant() ? card_of(device) : -1;
    if (card < 0 || !fx_limits_read(region.policy, (uint32_t)card, &limits))
        return;
    uint64_t charged = __atomic_load_n(&region.ledger->charged_bytes[card], __ATOMIC_SEQ_CST);
    if (*total > limits.memory_bytes)
        *total = limits.memory_bytes;
    *used = charged < *total ? charged : *total;
    if (*free_bytes > *total - *used)
        *free_bytes = *total - *used;
}

nvmlReturn nvmlDeviceGetMemoryInfo(nvmlDevice device, struct memory *memory)
{
    nvmlReturn rc = FX_REAL(nvmlDeviceGetMemoryInfo, nvmlReturn (*)(nvmlDevice, struct memory *))(device, memory);
    if (rc == NVML_SUCCESS)
        slice(device, &memory->total, &memory->free, &memory->used);
    return rc;
}

nvmlReturn nvmlDeviceGetMemoryInfo_v2(nvmlDevice device, struct memory_v2 *memory)
{
    nvmlReturn rc = FX_REAL(nvmlDeviceGetMemoryInfo_v2, nvmlReturn (*)(nvmlDevice, struct memory_v2 *))(device, memory);
    if (rc == NVML_SUCCESS && tenant() && card_of(device) >= 0) {
        slice(device, &memory->total, &memory->free, &memory->used);
        memory->reserved = 0; /* the driver's own part of the card is nobody's slice */
    }
    return rc;
}

static bool is_ours(unsigned pid)
{
    for (int i = 0; i < FX_MAX_SLOTS; i++)
        if (pid && (__atomic_load_n(&region.ledger->slot[i].host_pid, __ATOMIC_RELAXED) == pid ||
                    __atomic_load_n(&region.ledger->slot[i].pid, __ATOMIC_RELAXED) == pid))
            return true;
    return false;
}

typedef nvmlReturn (*list_processes)(nvmlDevice, unsigned *, void *);

/* Rows of the tenant's own processes, moved to the front; how many. `at`: where the pid is in a row. */
static unsigned keep_ours(void *rows, unsigned n, size_t size, size_t at)
{
    unsigned kept = 0;
    char *list = rows;
    for (unsigned i = 0; i < n; i++) {
        unsigned pid;
        memcpy(&pid, list + i * size + at, sizeof pid);
        if (is_ours(pid))
            memmove(list + kept++ * size, list + i * size, size);
    }
    return kept;
}

/* The vendor's answer without the others' processes. Asked for the count alone (no room given), the vendor's count is
 * enough room. */
static nvmlReturn processes(list_processes real, nvmlDevice device, unsigned *n, void *found, size_t size)
{
    nvmlReturn rc = real(device, n, found);
    if (rc == NVML_SUCCESS && tenant() && found && n)
        *n = keep_ours(found, *n, size, 0);
    return rc;
}

nvmlReturn nvmlDeviceGetRunningProcessDetailList(nvmlDevice device, struct process_details *found)
{
    nvmlReturn rc = FX_REAL(nvmlDeviceGetRunningProcessDetailList,
                            nvmlReturn (*)(nvmlDevice, struct process_details *))(device, found);
    if (rc == NVML_SUCCESS && tenant() && found->list)
        found->n = keep_ours(found->list, found->n, sizeof *found->list, offsetof(struct process_detail, pid));
    return rc;
}

nvmlReturn nvmlDeviceGetProcessUtilization(nvmlDevice device, struct process_use *found, unsigned *n,
                                           unsigned long long since_us)
{
    nvmlReturn rc = FX_REAL(nvmlDeviceGetProcessUtilization,
                            nvmlReturn (*)(nvmlDevice, struct process_use *, unsigned *, unsigned long long))(
        device, found, n, since_us);
    if (rc == NVML_SUCCESS && tenant() && found)
        *n = keep_ours(found, *n, sizeof *found, offsetof(struct process_use, pid));
    return rc;
}

nvmlReturn nvmlDeviceGetProcessesUtilizationInfo(nvmlDevice device, struct process_uses *found)
{
    nvmlReturn rc = FX_REAL(nvmlDeviceGetProcessesUtilizationInfo,
                            nvmlReturn (*)(nvmlDevice, struct process_uses *))(device, found);
    if (rc == NVML_SUCCESS && tenant() && found->list)
        found->n = keep_ours(found->list, found->n, sizeof *found->list, offsetof(struct process_use_v1, pid));
    return rc;
}

nvmlReturn nvmlDeviceGetAccountingPids(nvmlDevice device, unsigned *n, unsigned *pids)
{
    nvmlReturn rc = FX_REAL(nvmlDeviceGetAccountingPids, nvmlReturn (*)(nvmlDevice, unsigned *, unsigned *))(device, n, pids);
    if (rc == NVML_SUCCESS && tenant() && pids)
        *n = keep_ours(pids, *n, sizeof *pids, 0);
    return rc;
}

typedef nvmlReturn (*accounting)(nvmlDevice, unsigned, void *);

nvmlReturn nvmlDeviceGetAccountingStats(nvmlDevice device, unsigned pid, void *stats)
{
    return tenant() && !is_ours(pid) ? NVML_ERROR_NOT_FOUND
                                     : FX_REAL(nvmlDeviceGetAccountingStats, accounting)(device, pid, stats);
}

nvmlReturn nvmlDeviceGetAccountingStats_v2(nvmlDevice device, unsigned pid, void *stats)
{
    return tenant() && !is_ours(pid) ? NVML_ERROR_NOT_FOUND
                                     : FX_REAL(nvmlDeviceGetAccountingStats_v2, accounting)(device, pid, stats);
}

PROCESSES(nvmlDeviceGetComputeRunningProcesses, struct process_v1)
PROCESSES(nvmlDeviceGetComputeRunningProcesses_v2, struct process)
PROCESSES(nvmlDeviceGetComputeRunningProcesses_v3, struct process)
PROCESSES(nvmlDeviceGetGraphicsRunningProcesses, struct process_v1)
PROCESSES(nvmlDeviceGetGraphicsRunningProcesses_v2, struct process)
PROCESSES(nvmlDeviceGetGraphicsRunningProcesses_v3, struct process)
PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses, struct process_v1)
PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses_v2, struct process)
PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses_v3, struct process)
