/* SPDX-License-Identifier: Apache-2.0
 * Initialisation, errors, versions, addresses of functions.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "names.h"
#include "sim.h"

#define PER_THREAD 2 /* CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM */

const struct session *sim_session(void)
{
    return session_get();
}

CUresult sim_error(int error)
{
    switch (error) {
    case 0: return CUDA_SUCCESS;
    case -ENOMEM: return CUDA_ERROR_OUT_OF_MEMORY;
    case -EINVAL: return CUDA_ERROR_INVALID_VALUE;
    case -ENODEV: case -ENOENT: return CUDA_ERROR_NO_DEVICE;
    case -ECHILD: return CUDA_ERROR_NOT_INITIALIZED;
    case -EIO: return CUDA_ERROR_LAUNCH_FAILED;
    default: return CUDA_ERROR_UNKNOWN;
    }
}

SIM_API CUresult cuInit(unsigned flags);
SIM_API CUresult cuInit(unsigned flags)
{
    if (flags)
        return CUDA_ERROR_INVALID_VALUE;
    int error = session_open();
    const struct session *s = session_get();
    return error ? sim_error(error) : s->n_visible ? CUDA_SUCCESS : CUDA_ERROR_NO_DEVICE;
}

SIM_API CUresult cuDriverGetVersion(int *version);
SIM_API CUresult cuDriverGetVersion(int *version)
{
    if (!version)
        return CUDA_ERROR_INVALID_VALUE;
    *version = CUDA_VERSION;
    return CUDA_SUCCESS;
}

static const struct { CUresult code; const char *name, *text; } ERRORS[] = {
    {CUDA_SUCCESS, "CUDA_SUCCESS", "no error"},
    {CUDA_ERROR_INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {CUDA_ERROR_OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {CUDA_ERROR_NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {CUDA_ERROR_NO_DEVICE, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {CUDA_ERROR_INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {CUDA_ERROR_INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {CUDA_ERROR_INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {CUDA_ERROR_ILLEGAL_STATE, "CUDA_ERROR_ILLEGAL_STATE", "the operation cannot be performed in the present state"},
    {CUDA_ERROR_NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {CUDA_ERROR_NOT_READY, "CUDA_ERROR_NOT_READY", "device not ready"},
    {CUDA_ERROR_CONTEXT_IS_DESTROYED, "CUDA_ERROR_CONTEXT_IS_DESTROYED", "context is destroyed"},
    {CUDA_ERROR_LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {CUDA_ERROR_NOT_SUPPORTED, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
    {CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED", "operation failed in capture"},
    {CUDA_ERROR_UNKNOWN, "CUDA_ERROR_UNKNOWN", "unknown error"},
};

static CUresult describe(CUresult code, const char **text, bool name)
{
    if (!text)
        return CUDA_ERROR_INVALID_VALUE;
    *text = NULL;
    for (size_t i = 0; i < sizeof ERRORS / sizeof ERRORS[0]; i++)
        if (ERRORS[i].code == code)
            *text = name ? ERRORS[i].name : ERRORS[i].text;
    return *text ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

SIM_API CUresult cuGetErrorName(CUresult code, const char **text);
SIM_API CUresult cuGetErrorName(CUresult code, const char **text)
{
    return describe(code, text, true);
}

SIM_API CUresult cuGetErrorString(CUresult code, const char **text);
SIM_API CUresult cuGetErrorString(CUresult code, const char **text)
{
    return describe(code, text, false);
}

/* The newest variant that existed at `version`; a per-thread one if asked for and there is one. */
SIM_API CUresult cuGetProcAddress_v2(const char *name, void **at, int version, uint64_t flags, int *status);
SIM_API CUresult cuGetProcAddress_v2(const char *name, void **at, int version, uint64_t flags, int *status)
{
    if (!name || !at)
        return CUDA_ERROR_INVALID_VALUE;
    const struct sim_name *best = NULL;
    bool known = false;
    for (const struct sim_name *each = sim_names; each->base; each++) {
        if (strcmp(each->base, name) != 0 || (each->per_thread && !(flags & PER_THREAD)))
            continue;
        known = true;
        if (each->version <= version &&
            (!best || each->version > best->version || (each->version == best->version && each->per_thread)))
            best = each;
    }
    *at = best ? best->function : NULL;
    if (status)
        *status = best ? 0 : known ? 2 : 1; /* success, version not sufficient, symbol not found */
    return best ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

SIM_API CUresult cuGetProcAddress(const char *name, void **at, int version, uint64_t flags);
SIM_API CUresult cuGetProcAddress(const char *name, void **at, int version, uint64_t flags)
{
    return cuGetProcAddress_v2(name, at, version, flags, NULL);
}
