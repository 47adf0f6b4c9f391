/* SPDX-License-Identifier: Apache-2.0
 *
 * Which card it is: a program that was parked may have come back to another than it began on (the policy has that of now,
 * in the program's numbering). Drivers were seen to go on telling the old one's place on the bus, by which NCCL asks the
 * management library (NVIDIA's cuda-checkpoint, issue 48).
 */
#include "glibc.h"
#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include "measure.h"
#include "state.h"

FX_EXPORT CUresult cuDeviceGetUuid(void *uuid, CUdevice device);
FX_EXPORT CUresult cuDeviceGetUuid_v2(void *uuid, CUdevice device);
FX_EXPORT CUresult cuDeviceGetPCIBusId(char *text, int n, CUdevice device);
FX_EXPORT CUresult cuDeviceGetByPCIBusId(CUdevice *device, const char *text);

/* The card of an ordinal that is another one now, or -1. */
static int moved(CUdevice device, struct fx_limits *limits)
{
    int card = fx_card_of(device);
    bool known = card >= 0 && fx_limits_read(fx.region.policy, (uint32_t)card, limits);
    return known && strcasecmp(limits->uuid, fx.began_on[card]) != 0 ? card : -1;
}

static CUresult uuid_of(CUresult (*real)(void *, CUdevice), unsigned char *uuid, CUdevice device)
{
    CUresult rc = real(uuid, device);
    struct fx_limits limits;
    if (rc != CUDA_SUCCESS || moved(device, &limits) < 0)
        return rc;
    int n = 0;
    for (const char *c = limits.uuid + 4; *c && n < 32; c++) { /* behind "GPU-" */
        if (!isxdigit((unsigned char)*c))
            continue;
        int digit = *c <= '9' ? *c - '0' : (*c | 32) - 'a' + 10;
        uuid[n / 2] = (unsigned char)(n % 2 ? uuid[n / 2] | digit : digit << 4);
        n++;
    }
    return rc;
}

CUresult cuDeviceGetUuid(void *uuid, CUdevice device)
{
    return uuid_of(FX_REAL(cuDeviceGetUuid, CUresult (*)(void *, CUdevice)), uuid, device);
}

CUresult cuDeviceGetUuid_v2(void *uuid, CUdevice device)
{
    return uuid_of(FX_REAL(cuDeviceGetUuid_v2, CUresult (*)(void *, CUdevice)), uuid, device);
}

CUresult cuDeviceGetPCIBusId(char *text, int n, CUdevice device)
{
    CUresult rc = FX_REAL(cuDeviceGetPCIBusId, CUresult (*)(char *, int, CUdevice))(text, n, device);
    struct fx_limits limits;
    char now[32];
    int card = rc == CUDA_SUCCESS && n > 0 ? moved(device, &limits) : -1;
    if (card >= 0 && fx_bus_of(card, now))
        snprintf(text, (size_t)n, "%s", now);
    return rc;
}

CUresult cuDeviceGetByPCIBusId(CUdevice *device, const char *text)
{
    struct fx_limits limits;
    char now[32];
    bool any = false;
    for (CUdevice one = 0; device && text && one < fx.n_ordinals; one++) {
        int card = moved(one, &limits);
        any |= card >= 0;
        if (card >= 0 && fx_bus_of(card, now) && strcasecmp(now, text) == 0) {
            *device = one;
            return CUDA_SUCCESS;
        }
    }
    CUresult rc = FX_REAL(cuDeviceGetByPCIBusId, CUresult (*)(CUdevice *, const char *))(device, text);
    return any && rc == CUDA_SUCCESS && moved(*device, &limits) >= 0 ? CUDA_ERROR_INVALID_DEVICE : rc;
}
