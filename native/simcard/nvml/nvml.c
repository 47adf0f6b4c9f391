/* SPDX-License-Identifier: Apache-2.0
 * NVML of the simulated cards: what nvidia-ml-py, nvitop and the agent ask. Functions that are not here are missing, and
 * callers say "not supported" as they do on old drivers. Layouts are those of nvml.h 13.
 */
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>
#include "connection.h"

#define API __attribute__((visibility("default")))
typedef int nvmlReturn_t;
typedef struct device *nvmlDevice_t;
enum { OK = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NO_PERMISSION = 4, NOT_FOUND = 6,
       INSUFFICIENT_SIZE = 7, DRIVER_NOT_LOADED = 9, FUNCTION_NOT_FOUND = 13, GPU_IS_LOST = 15, UNKNOWN = 999 };
#define MAX_CARDS 16
#define MAX_PROCESSES 256

struct device { int index; struct sc_card card; };
static struct device devices[MAX_CARDS];
static int n_devices, n_inits, connection = -1;
static pid_t owner;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static int ask(struct sc_request *r, struct sc_reply *reply, void *payload, size_t room)
{
    pthread_mutex_lock(&lock);
    if (owner != getpid()) { /* a child: its own connection */
        connection = sc_connect(NULL);
        owner = getpid();
    }
    int error = connection < 0 ? -ENODEV : sc_ask(connection, r, reply, payload, room, NULL);
    if (error == -EPIPE || (error == -ENODEV && n_inits)) { /* the cards' daemon was started anew: same cards, empty */
        close(connection);
        connection = sc_connect(NULL);
        error = connection < 0 ? -ENODEV : sc_ask(connection, r, reply, payload, room, NULL);
    }
    pthread_mutex_unlock(&lock);
    return error;
}

API nvmlReturn_t nvmlInitWithFlags(unsigned flags);
API nvmlReturn_t nvmlInitWithFlags(unsigned flags)
{
    (void)flags;
    if (n_inits++)
        return OK;
    owner = getpid();
    connection = sc_connect(NULL);
    struct sc_reply reply;
    struct sc_request hello = {.op = SC_HELLO};
    if (connection < 0 || ask(&hello, &reply, NULL, 0)) {
        n_inits = 0;
        return DRIVER_NOT_LOADED;
    }
    n_devices = reply.a < MAX_CARDS ? (int)reply.a : MAX_CARDS;
    for (int i = 0; i < n_devices; i++) {
        struct sc_request card = {.op = SC_CARD, .a = i};
        devices[i].index = i;
        if (ask(&card, &reply, &devices[i].card, sizeof devices[i].card))
            return DRIVER_NOT_LOADED;
    }
    return OK;
}

API nvmlReturn_t nvmlInit_v2(void);
API nvmlReturn_t nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
API nvmlReturn_t nvmlInit(void);
API nvmlReturn_t nvmlInit(void) { return nvmlInitWithFlags(0); }

API nvmlReturn_t nvmlShutdown(void);
API nvmlReturn_t nvmlShutdown(void)
{
    if (!n_inits)
        return UNINITIALIZED;
    if (--n_inits == 0) {
        close(connection);
        connection = -1;
    }
    return OK;
}

API const char *nvmlErrorString(nvmlReturn_t code);
API const char *nvmlErrorString(nvmlReturn_t code)
{
    switch (code) {
    case OK: return "Success";
    case UNINITIALIZED: return "Uninitialized";
    case INVALID_ARGUMENT: return "Invalid Argument";
    case NOT_SUPPORTED: return "Not Supported";
    case NOT_FOUND: return "Not Found";
    case INSUFFICIENT_SIZE: return "Insufficient Size";
    case DRIVER_NOT_LOADED: return "Driver Not Loaded";
    case FUNCTION_NOT_FOUND: return "Function Not Found";
    case GPU_IS_LOST: return "GPU is lost";
    default: return "Unknown Error";
    }
}

static bool is_device(nvmlDevice_t d)
{
    return n_inits && d >= devices && d < devices + n_devices;
}

static nvmlReturn_t figures_of(nvmlDevice_t d, struct sc_figures *f)
{
    if (!is_device(d))
        return n_inits ? INVALID_ARGUMENT : UNINITIALIZED;
    struct sc_reply reply;
    struct sc_request r = {.op = SC_FIGURES, .a = d->index};
    if (ask(&r, &reply, f, sizeof *f))
        return UNKNOWN;
    return f->xid ? GPU_IS_LOST : OK;
}

static nvmlReturn_t text(char *out, unsigned n, const char *value)
{
    if (!out || strlen(value) >= n)
        return INSUFFICIENT_SIZE;
    strcpy(out, value);
    return OK;
}

API nvmlReturn_t nvmlSystemGetDriverVersion(char *out, unsigned n);
API nvmlReturn_t nvmlSystemGetDriverVersion(char *out, unsigned n) { return text(out, n, "580.0-simulated"); }
API nvmlReturn_t nvmlSystemGetNVMLVersion(char *out, unsigned n);
API nvmlReturn_t nvmlSystemGetNVMLVersion(char *out, unsigned n) { return text(out, n, "13.580.0"); }
API nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *version);
API nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *version) { *version = 13000; return OK; }
API nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *version);
API nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *version) { *version = 13000; return OK; }

API nvmlReturn_t nvmlSystemGetProcessName(unsigned pid, char *out, unsigned n);
API nvmlReturn_t nvmlSystemGetProcessName(unsigned pid, char *out, unsigned n)
{
    char path[64], name[4096];
    snprintf(path, sizeof path, "/proc/%u/cmdline", pid);
    FILE *f = fopen(path, "re");
    size_t got = f ? fread(name, 1, sizeof name - 1, f) : 0;
    if (f)
        fclose(f);
    name[got] = 0;
    if (!got)
        return NOT_FOUND;
    snprintf(out, n, "%s", name);
    return OK;
}

API nvmlReturn_t nvmlDeviceGetCount_v2(unsigned *count);
API nvmlReturn_t nvmlDeviceGetCount_v2(unsigned *count)
{
    if (!n_inits)
        return UNINITIALIZED;
    *count = (unsigned)n_devices;
    return OK;
}

API nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned index, nvmlDevice_t *out);
API nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned index, nvmlDevice_t *out)
{
    if (!n_inits)
        return UNINITIALIZED;
    if (index >= (unsigned)n_devices)
        return INVALID_ARGUMENT;
    *out = &devices[index];
    return OK;
}

API nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *out);
API nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *out)
{
    for (int i = 0; i < n_devices; i++)
        if (!strcmp(devices[i].card.uuid, uuid)) {
            *out = &devices[i];
            return OK;
        }
    return n_inits ? NOT_FOUND : UNINITIALIZED;
}

API nvmlReturn_t nvmlDeviceGetIndex(nvmlDevice_t d, unsigned *index);
API nvmlReturn_t nvmlDeviceGetIndex(nvmlDevice_t d, unsigned *index)
{
    if (!is_device(d))
        return INVALID_ARGUMENT;
    *index = (unsigned)d->index;
    return OK;
}

API nvmlReturn_t nvmlDeviceGetMinorNumber(nvmlDevice_t d, unsigned *minor);
API nvmlReturn_t nvmlDeviceGetMinorNumber(nvmlDevice_t d, unsigned *minor) { return nvmlDeviceGetIndex(d, minor); }

API nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t d, char *out, unsigned n);
API nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t d, char *out, unsigned n)
{
    return is_device(d) ? text(out, n, d->card.name) : INVALID_ARGUMENT;
}

API nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t d, char *out, unsigned n);
API nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t d, char *out, unsigned n)
{
    return is_device(d) ? text(out, n, d->card.uuid) : INVALID_ARGUMENT;
}

API nvmlReturn_t nvmlDeviceGetSerial(nvmlDevice_t d, char *out, unsigned n);
API nvmlReturn_t nvmlDeviceGetSerial(nvmlDevice_t d, char *out, unsigned n)
{
    return is_device(d) ? text(out, n, "0") : INVALID_ARGUMENT;
}

struct memory { unsigned long long total, free, used; };
struct memory_v2 { unsigned version; unsigned long long total, reserved, free, used; };

API nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t d, struct memory *out);
API nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t d, struct memory *out)
{
    struct sc_figures f;
    nvmlReturn_t error = figures_of(d, &f);
    if (!error)
        *out = (struct memory){d->card.memory_bytes, d->card.memory_bytes - f.memory_used, f.memory_used};
    return error;
}

API nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t d, struct memory_v2 *out);
API nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t d, struct memory_v2 *out)
{
    struct sc_figures f;
    nvmlReturn_t error = figures_of(d, &f);
    if (!error)
        *out = (struct memory_v2){out->version, d->card.memory_bytes, 0, d->card.memory_bytes - f.memory_used,
                                  f.memory_used};
    return error;
}

struct utilization { unsigned gpu, memory; };
API nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t d, struct utilization *out);
API nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t d, struct utilization *out)
{
    struct sc_figures f;
    nvmlReturn_t error = figures_of(d, &f);
    if (!error)
        *out = (struct utilization){(f.utilisation_milli + 5) / 10, (f.memory_utilisation_milli + 5) / 10};
    return error;
}

struct process { unsigned pid; unsigned long long memory; unsigned instance, compute_instance; };

API nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t d, unsigned *count, struct process *out);
API nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t d, unsigned *count, struct process *out)
{
    if (!is_device(d) || !count)
        return INVALID_ARGUMENT;
    struct sc_process in[MAX_PROCESSES];
    struct sc_reply reply;
    struct sc_request r = {.op = SC_PROCESSES, .a = d->index};
    if (ask(&r, &reply, in, sizeof in))
        return UNKNOWN;
    unsigned n = (unsigned)reply.a, room = *count;
    *count = n;
    if (n > room || (n && !out))
        return n ? INSUFFICIENT_SIZE : OK;
    for (unsigned i = 0; i < n; i++)
        out[i] = (struct process){in[i].pid, in[i].memory_bytes, 0xFFFFFFFFu, 0xFFFFFFFFu};
    return OK;
}

API nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v2(nvmlDevice_t d, unsigned *count, struct process *out);
API nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v2(nvmlDevice_t d, unsigned *count, struct process *out)
{
    return nvmlDeviceGetComputeRunningProcesses_v3(d, count, out);
}

API nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses_v3(nvmlDevice_t d, unsigned *count, struct process *out);
API nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses_v3(nvmlDevice_t d, unsigned *count, struct process *out)
{
    (void)out;
    if (!is_device(d) || !count)
        return INVALID_ARGUMENT;
    *count = 0;
    return OK;
}

API nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses_v2(nvmlDevice_t d, unsigned *count, struct process *out);
API nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses_v2(nvmlDevice_t d, unsigned *count, struct process *out)
{
    return nvmlDeviceGetGraphicsRunningProcesses_v3(d, count, out);
}

API nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t d, int sensor, unsigned *out);
API nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t d, int sensor, unsigned *out)
{
    struct sc_figures f;
    nvmlReturn_t error = sensor ? INVALID_ARGUMENT : figures_of(d, &f);
    if (!error)
        *out = 30 + f.utilisation_milli * 35 / 1000;
    return error;
}

API nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t d, unsigned *milliwatts);
API nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t d, unsigned *milliwatts)
{
    struct sc_figures f;
    nvmlReturn_t error = figures_of(d, &f);
    if (!error)
        *milliwatts = d->card.power_idle_w * 1000 +
                      (d->card.power_limit_w - d->card.power_idle_w) * f.utilisation_milli;
    return error;
}

API nvmlReturn_t nvmlDeviceGetEnforcedPowerLimit(nvmlDevice_t d, unsigned *milliwatts);
API nvmlReturn_t nvmlDeviceGetEnforcedPowerLimit(nvmlDevice_t d, unsigned *milliwatts)
{
    if (!is_device(d))
        return INVALID_ARGUMENT;
    *milliwatts = d->card.power_limit_w * 1000;
    return OK;
}

API nvmlReturn_t nvmlDeviceGetPowerManagementLimit(nvmlDevice_t d, unsigned *milliwatts);
API nvmlReturn_t nvmlDeviceGetPowerManagementLimit(nvmlDevice_t d, unsigned *milliwatts)
{
    return nvmlDeviceGetEnforcedPowerLimit(d, milliwatts);
}

API nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t d, int kind, unsigned *mhz);
API nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t d, int kind, unsigned *mhz)
{
    if (!is_device(d) || kind < 0 || kind > 3)
        return INVALID_ARGUMENT;
    *mhz = kind == 2 ? d->card.memory_clock_mhz : d->card.clock_mhz;
    return OK;
}

API nvmlReturn_t nvmlDeviceGetMaxClockInfo(nvmlDevice_t d, int kind, unsigned *mhz);
API nvmlReturn_t nvmlDeviceGetMaxClockInfo(nvmlDevice_t d, int kind, unsigned *mhz)
{
    return nvmlDeviceGetClockInfo(d, kind, mhz);
}

API nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t d, int *major, int *minor);
API nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t d, int *major, int *minor)
{
    if (!is_device(d))
        return INVALID_ARGUMENT;
    *major = (int)d->card.compute_major;
    *minor = (int)d->card.compute_minor;
    return OK;
}

struct pci {
    char legacy[16];
    unsigned domain, bus, device, device_id, subsystem_id;
    char id[32];
};
API nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t d, struct pci *out);
API nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t d, struct pci *out)
{
    if (!is_device(d))
        return INVALID_ARGUMENT;
    memset(out, 0, sizeof *out);
    out->bus = 0x18 + (unsigned)d->index;
    out->device_id = 0x233510de;
    snprintf(out->legacy, sizeof out->legacy, "0000:%02X:00.0", out->bus);
    snprintf(out->id, sizeof out->id, "00000000:%02X:00.0", out->bus);
    return OK;
}

/* States: off, default. */
#define STATE(name) \
    API nvmlReturn_t name(nvmlDevice_t d, unsigned *out); \
    API nvmlReturn_t name(nvmlDevice_t d, unsigned *out) \
    { \
        if (!is_device(d)) \
            return INVALID_ARGUMENT; \
        *out = 0; \
        return OK; \
    }
STATE(nvmlDeviceGetPersistenceMode)
STATE(nvmlDeviceGetComputeMode)
STATE(nvmlDeviceGetPerformanceState)
STATE(nvmlDeviceGetDisplayMode)
STATE(nvmlDeviceGetDisplayActive)

API nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t d, unsigned *current, unsigned *pending);
API nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t d, unsigned *current, unsigned *pending)
{
    (void)current, (void)pending;
    return is_device(d) ? NOT_SUPPORTED : INVALID_ARGUMENT;
}
