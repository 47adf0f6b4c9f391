/* SPDX-License-Identifier: Apache-2.0
 *
 * A driver that does nothing, at once: what is left of a call to it through the shim is the shim's own cost.
 */
#include <stddef.h>
#include <stdint.h>

#define OUT __attribute__((visibility("default")))
static int something;

OUT int cuInit(unsigned flags);
OUT int cuDeviceGetCount(int *n);
OUT int cuDeviceGetUuid_v2(unsigned char *uuid, int device);
OUT int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active);
OUT int cuDevicePrimaryCtxRetain(void **at, int device);
OUT int cuCtxSetCurrent(void *at);
OUT int cuCtxGetCurrent(void **at);
OUT int cuCtxGetDevice(int *device);
OUT int cuMemAlloc_v2(uint64_t *at, size_t bytes);
OUT int cuMemFree_v2(uint64_t at);
OUT int cuLaunchKernel(void *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                       unsigned shared, void *stream, void **params, void **extra);

int cuInit(unsigned flags) { return flags != 0; }
int cuDeviceGetCount(int *n) { return *n = 1, 0; }
int cuDeviceGetUuid_v2(unsigned char *uuid, int device)
{
    for (int i = 0; i < 16; i++)
        uuid[i] = (unsigned char)device;
    return 0;
}
int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) { return *flags = 0, *active = device == 0, 0; }
int cuDevicePrimaryCtxRetain(void **at, int device) { return *at = &something, device; }
int cuCtxSetCurrent(void *at) { return at == NULL; }
int cuCtxGetCurrent(void **at) { return *at = &something, 0; }
int cuCtxGetDevice(int *device) { return *device = 0; }
int cuMemAlloc_v2(uint64_t *at, size_t bytes)
{
    static uint64_t next = 1u << 21;
    *at = __atomic_fetch_add(&next, bytes, __ATOMIC_RELAXED);
    return 0;
}
int cuMemFree_v2(uint64_t at) { return at == 0; }
int cuLaunchKernel(void *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void *stream, void **params, void **extra)
{
    static uint64_t n;
    __atomic_fetch_add(&n, 1, __ATOMIC_RELAXED);
    return f && gx + gy + gz + bx + by + bz + shared == 0 && stream && params && extra;
}
