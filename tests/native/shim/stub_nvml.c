/* SPDX-License-Identifier: Apache-2.0
 *
 * The smallest management library: three cards, of which the second is the one stub_cuda.c is; 4 GiB each, 1 GiB used.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int cards[3];
int nvmlInit_v2(void) { return 0; }
int nvmlInitWithFlags(unsigned flags) { (void)flags; return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *n) { *n = 3; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **d) { if (i > 2) return 2; *d = &cards[i]; return 0; }
int nvmlDeviceGetIndex(void *d, unsigned *i) { *i = (unsigned)((int *)d - cards); return 0; }
int nvmlDeviceGetUUID(void *d, char *text, unsigned n)
{
    static const char *const UUIDS[] = {"GPU-ffffffff-0000-0000-0000-000000000000", "GPU-00112233-4455-6677-8899-aabbccddeeff",
                                        "GPU-ffffffff-0000-0000-0000-000000000002"};
    snprintf(text, n, "%s", UUIDS[(int *)d - cards]);
    return 0;
}
int nvmlDeviceGetHandleByUUID(const char *uuid, void **d)
{
    char text[96];
    for (int i = 0; i < 3; i++) {
        nvmlDeviceGetUUID(&cards[i], text, sizeof text);
        if (strcmp(text, uuid) == 0) { *d = &cards[i]; return 0; }
    }
    return 6;
}
struct memory { unsigned long long total, free, used; };
struct memory_v2 { unsigned version; unsigned long long total, reserved, free, used; };
int nvmlDeviceGetMemoryInfo(void *d, struct memory *m) { (void)d; *m = (struct memory){4ull << 30, 3ull << 30, 1ull << 30}; return 0; }
int nvmlDeviceGetMemoryInfo_v2(void *d, struct memory_v2 *m)
{
    (void)d; m->total = 4ull << 30; m->reserved = 1ull << 28; m->free = 3ull << 30; m->used = 1ull << 30;
    return 0;
}
struct process { unsigned pid; unsigned long long used; unsigned gi, ci; };
/* A stranger and the process named by STUB_PID, which holds STUB_USED bytes. */
int nvmlDeviceGetComputeRunningProcesses_v3(void *d, unsigned *n, struct process *p)
{
    (void)d;
    const char *pid = getenv("STUB_PID");
    if (*n < 2 || !p) { *n = 2; return 7; }
    p[0] = (struct process){1, 1000, 0, 0};
    p[1] = (struct process){pid ? (unsigned)atoi(pid) : 0, strtoull(getenv("STUB_USED") ? getenv("STUB_USED") : "0", 0, 10), 0, 0};
    *n = 2;
    return 0;
}
int nvmlDeviceSetPowerManagementLimit(void *d, unsigned mw) { (void)d; return mw == 1 ? 0 : 2; }
int nvmlDeviceGetName(void *d, char *name, unsigned n) { (void)d; snprintf(name, n, "Stub"); return 0; }
/* Lists with what a process did: the same two. */
static unsigned second(void) { return getenv("STUB_PID") ? (unsigned)atoi(getenv("STUB_PID")) : 0; }
struct use { unsigned pid; unsigned long long at; unsigned sm, memory, encoder, decoder; };
int nvmlDeviceGetProcessUtilization(void *d, struct use *u, unsigned *n, unsigned long long since)
{
    (void)d; (void)since;
    if (!u || *n < 2) { *n = 2; return 7; }
    u[0] = (struct use){1, 5, 90, 1, 0, 0};
    u[1] = (struct use){second(), 5, 10, 1, 0, 0};
    *n = 2;
    return 0;
}
struct use_v1 { unsigned long long at; unsigned pid, sm, memory, encoder, decoder, jpeg, flow; };
struct uses { unsigned version, n; unsigned long long since; struct use_v1 *list; };
int nvmlDeviceGetProcessesUtilizationInfo(void *d, struct uses *u)
{
    (void)d;
    if (!u->list || u->n < 2) { u->n = 2; return 7; }
    u->list[0] = (struct use_v1){5, 1, 90, 1, 0, 0, 0, 0};
    u->list[1] = (struct use_v1){5, second(), 10, 1, 0, 0, 0, 0};
    u->n = 2;
    return 0;
}
struct detail { unsigned pid; unsigned long long used; unsigned gi, ci; unsigned long long protected_used; };
struct details { unsigned version, mode, n; struct detail *list; };
int nvmlDeviceGetRunningProcessDetailList(void *d, struct details *p)
{
    (void)d;
    if (!p->list || p->n < 2) { p->n = 2; return 7; }
    p->list[0] = (struct detail){1, 1000, 0, 0, 0};
    p->list[1] = (struct detail){second(), 2000, 0, 0, 0};
    p->n = 2;
    return 0;
}
int nvmlDeviceGetAccountingPids(void *d, unsigned *n, unsigned *pids)
{
    (void)d;
    if (*n < 2 || !pids) { *n = 2; return 7; }
    pids[0] = 1; pids[1] = second(); *n = 2;
    return 0;
}
int nvmlDeviceGetAccountingStats(void *d, unsigned pid, void *s) { (void)d; (void)s; return pid == 1 || pid == second() ? 0 : 6; }
int nvmlDeviceGetAccountingBufferSize(void *d, unsigned *n) { (void)d; *n = 8; return 0; }
