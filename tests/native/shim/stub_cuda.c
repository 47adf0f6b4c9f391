/* SPDX-License-Identifier: Apache-2.0
 *
 * The smallest driver that can be capped and gated: memory with owners in a file shared by processes, so that a test
 * knows what the "card" holds without asking the shim; launches that take gridDimX microseconds each, one after the other
 * within the process. The simulated card has the rest.
 *
 * File (STUB_LEDGER): capacity_bytes, then slots of (pid, bytes); a dead process's bytes count as free.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define N_SLOTS 64
struct ledger {
    uint64_t capacity;
    struct { int64_t pid; uint64_t bytes; } slot[N_SLOTS];
};
static struct ledger *card;
static int mine = -1;
static int context;
static uint64_t n_launches;

int cuInit(unsigned flags)
{
    (void)flags;
    int fd = open(getenv("STUB_LEDGER"), O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return 999;
    card = mmap(NULL, sizeof *card, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    for (int i = 0; i < N_SLOTS && mine < 0; i++) {
        int64_t owner = __atomic_load_n(&card->slot[i].pid, __ATOMIC_SEQ_CST);
        if ((owner == 0 || (kill((pid_t)owner, 0) != 0 && errno == ESRCH)) &&
            __atomic_compare_exchange_n(&card->slot[i].pid, &owner, (int64_t)getpid(), 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
            card->slot[i].bytes = 0;
            mine = i;
        }
    }
    return mine < 0 ? 999 : 0;
}

int cuDeviceGetCount(int *n) { *n = 1; return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return ordinal ? 101 : 0; }
int cuDeviceGetUuid_v2(unsigned char *uuid, int device) { (void)device; for (int i = 0; i < 16; i++) uuid[i] = (unsigned char)(i * 17); return 0; }
int cuDriverGetVersion(int *version) { *version = 13000; return 0; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { (void)device; *bytes = card->capacity; return 0; }
int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) { (void)device; *flags = 0; *active = 1; return 0; }
int cuDevicePrimaryCtxRetain(void **at, int device) { (void)device; *at = &context; return 0; }
int cuCtxSetCurrent(void *at) { (void)at; return 0; }
int cuCtxGetCurrent(void **at) { *at = &context; return 0; }
int cuCtxGetDevice(int *device) { *device = 0; return 0; }
int cuStreamIsCapturing(void *stream, int *status) { (void)stream; *status = 0; return 0; }

static uint64_t held(void)
{
    uint64_t sum = 0;
    for (int i = 0; i < N_SLOTS; i++)
        if (card->slot[i].pid && (kill((pid_t)card->slot[i].pid, 0) == 0 || errno != ESRCH))
            sum += card->slot[i].bytes;
    return sum;
}

int cuMemGetInfo_v2(size_t *free_bytes, size_t *total) { *total = card->capacity; *free_bytes = card->capacity - held(); return 0; }

static uint64_t up(uint64_t bytes) { return (bytes + (2u << 20) - 1) >> 21 << 21; }

/* An address is the number of its record; the record remembers the bytes. */
static struct { uint64_t bytes; } records[1 << 20];
static uint64_t n_records;

int cuMemAlloc_v2(uint64_t *at, size_t bytes)
{
    if (bytes == 0)
        return 1;
    uint64_t n = __atomic_add_fetch(&n_records, 1, __ATOMIC_SEQ_CST);
    uint64_t taken = bytes < 1u << 20 ? (bytes + 511) / 512 * 512 : up(bytes);
    if (n >= 1 << 20 || taken > card->capacity || held() + taken > card->capacity)
        return 2;
    __atomic_add_fetch(&card->slot[mine].bytes, taken, __ATOMIC_SEQ_CST);
    records[n].bytes = taken;
    *at = n << 21;
    return 0;
}

int cuMemFree_v2(uint64_t at)
{
    uint64_t n = at >> 21;
    if (n == 0 || n >= 1 << 20 || records[n].bytes == 0)
        return 1;
    __atomic_sub_fetch(&card->slot[mine].bytes, records[n].bytes, __ATOMIC_SEQ_CST);
    records[n].bytes = 0;
    return 0;
}

/* What was launched ends one after the other. */
static uint64_t busy_until;

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static int queue(unsigned us)
{
    if (us) {
        uint64_t before = __atomic_load_n(&busy_until, __ATOMIC_SEQ_CST), end;
        do {
            uint64_t now = now_ns();
            end = (before > now ? before : now) + us * 1000ull;
        } while (!__atomic_compare_exchange_n(&busy_until, &before, end, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
    }
    __atomic_add_fetch(&n_launches, 1, __ATOMIC_RELAXED);
    return 0;
}

static void sleep_until(uint64_t then)
{
    struct timespec at = {(time_t)(then / 1000000000u), (long)(then % 1000000000u)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL) == EINTR)
        ;
}

#define DIMS unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared
int cuLaunchKernel(void *f, DIMS, void *stream, void **params, void **extra)
{
    (void)f, (void)gy, (void)gz, (void)bx, (void)by, (void)bz, (void)shared, (void)stream, (void)params, (void)extra;
    return queue(gx);
}
int cuLaunchKernel_ptsz(void *f, DIMS, void *stream, void **params, void **extra)
{
    (void)f, (void)gy, (void)gz, (void)bx, (void)by, (void)bz, (void)shared, (void)stream, (void)params, (void)extra;
    return queue(gx);
}
int cuGraphLaunch(void *exec, void *stream) { (void)stream; return queue((unsigned)(uintptr_t)exec); }
int cuEventCreate(uint64_t **event, unsigned flags) { (void)flags; *event = calloc(1, sizeof **event); return 0; }
int cuEventDestroy_v2(uint64_t *event) { free(event); return 0; }
int cuEventRecord(uint64_t *event, void *stream) { (void)stream; *event = __atomic_load_n(&busy_until, __ATOMIC_SEQ_CST); return 0; }
int cuEventRecord_ptsz(uint64_t *event, void *stream) { return cuEventRecord(event, stream); }
int cuEventSynchronize(uint64_t *event) { sleep_until(*event); return 0; }
int cuEventQuery(uint64_t *event) { return *event > now_ns() ? 600 : 0; }
int cuCtxSynchronize(void) { sleep_until(__atomic_load_n(&busy_until, __ATOMIC_SEQ_CST)); return 0; }
int cuCtxPushCurrent_v2(void *at) { (void)at; return 0; }
int cuCtxPopCurrent_v2(void **at) { *at = &context; return 0; }
int cuStreamIsCapturing_ptsz(void *stream, int *status) { (void)stream; *status = 0; return 0; }
int cuModuleGetFunction(void **f, void *module, const char *name) { (void)module; *f = (void *)name; return 0; }

/* Two functions whose arguments all must survive the lazy binding: ten integers, and one float. */
int cuMemcpy3DPeer(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f, uint64_t g, uint64_t h)
{
    return a == 1 && b == 2 && c == 3 && d == 4 && e == 5 && f == 6 && g == 7 && h == 8 ? 0 : 1;
}
int cuParamSetf(void *f, int offset, float value) { return f == NULL && offset == 7 && value == 1.5f ? 0 : 1; }

int cuFutureThing(void) { return 77; }
static int own_entry(uint64_t *at, size_t bytes) { return cuMemAlloc_v2(at, bytes); }

/* As the real one: names without version. `cuMemAlloc` is answered with an address that no exported name has. */
int cuGetProcAddress_v2(const char *name, void **at, int version, uint64_t flags, int *status)
{
    (void)version, (void)flags;
    *at = strcmp(name, "cuMemAlloc") == 0 ? (void *)own_entry
        : strcmp(name, "cuMemFree") == 0 ? (void *)cuMemFree_v2
        : strcmp(name, "cuLaunchKernel") == 0 ? (void *)cuLaunchKernel
        : strcmp(name, "cuDriverGetVersion") == 0 ? (void *)cuDriverGetVersion
        : strcmp(name, "cuFutureThing") == 0 ? (void *)cuFutureThing : NULL;
    if (status)
        *status = *at == NULL;
    return *at ? 0 : 500;
}
