/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "sim.h"

static const struct sc_card *card_of(CUdevice device)
{
    const struct session *s = sim_session();
    return s && device >= 0 && device < s->n_visible ? &s->card[s->visible[device]] : NULL;
}

static CUresult refuse(void)
{
    return sim_session() ? CUDA_ERROR_INVALID_DEVICE : CUDA_ERROR_NOT_INITIALIZED;
}

SIM_API CUresult cuDeviceGetCount(int *count);
SIM_API CUresult cuDeviceGetCount(int *count)
{
    const struct session *s = sim_session();
    if (!s)
        return CUDA_ERROR_NOT_INITIALIZED;
    *count = s->n_visible;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuDeviceGet(CUdevice *device, int ordinal);
SIM_API CUresult cuDeviceGet(CUdevice *device, int ordinal)
{
    if (!card_of(ordinal))
        return refuse();
    *device = ordinal;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuDeviceGetName(char *name, int n, CUdevice device);
SIM_API CUresult cuDeviceGetName(char *name, int n, CUdevice device)
{
    const struct sc_card *card = card_of(device);
    if (!card)
        return refuse();
    snprintf(name, (size_t)n, "%s", card->name);
    return CUDA_SUCCESS;
}

/* "GPU-xxxxxxxx-xxxx-..." to its 16 bytes. */
void sim_uuid_bytes(const char *text, unsigned char out[16])
{
    int n = 0;
    for (const char *c = text + 4; *c && n < 32; c++) {
        if (*c == '-')
            continue;
        int digit = *c <= '9' ? *c - '0' : (*c | 32) - 'a' + 10;
        out[n / 2] = (unsigned char)(n % 2 ? out[n / 2] | digit : digit << 4);
        n++;
    }
}

SIM_API CUresult cuDeviceGetUuid_v2(unsigned char uuid[16], CUdevice device);
SIM_API CUresult cuDeviceGetUuid_v2(unsigned char uuid[16], CUdevice device)
{
    const struct sc_card *card = card_of(device);
    if (!card)
        return refuse();
    struct sc_card now; /* it may have been moved to another card while it was parked */
    struct sc_reply reply;
    struct sc_request r = {.op = SC_CARD, .a = sim_session()->visible[device]};
    int error = session_ask(&r, &reply, &now, sizeof now);
    if (!error)
        sim_uuid_bytes(now.uuid, uuid);
    return sim_error(error);
}

SIM_API CUresult cuDeviceGetUuid(unsigned char uuid[16], CUdevice device);
SIM_API CUresult cuDeviceGetUuid(unsigned char uuid[16], CUdevice device)
{
    return cuDeviceGetUuid_v2(uuid, device);
}

SIM_API CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device);
SIM_API CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device)
{
    const struct sc_card *card = card_of(device);
    if (!card)
        return refuse();
    *bytes = card->memory_bytes;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuDeviceComputeCapability(int *major, int *minor, CUdevice device);
SIM_API CUresult cuDeviceComputeCapability(int *major, int *minor, CUdevice device)
{
    const struct sc_card *card = card_of(device);
    if (!card)
        return refuse();
    *major = (int)card->compute_major;
    *minor = (int)card->compute_minor;
    return CUDA_SUCCESS;
}

/* Numbers of CUdevice_attribute (cuda.h). Those not listed are 0: the feature is not there. */
SIM_API CUresult cuDeviceGetAttribute(int *value, int attribute, CUdevice device);
SIM_API CUresult cuDeviceGetAttribute(int *value, int attribute, CUdevice device)
{
    const struct sc_card *card = card_of(device);
    if (!card)
        return refuse();
    static const int FIXED[][2] = {
        {1, 1024}, {2, 1024}, {3, 1024}, {4, 64}, {5, 2147483647}, {6, 65535}, {7, 65535}, {8, 49152}, {9, 65536},
        {10, 32}, {11, 2147483647}, {12, 65536}, {14, 512}, {15, 1}, {31, 1}, {38, 52428800}, {39, 2048}, {40, 3},
        {41, 1}, {78, 1}, {81, 233472}, {82, 65536}, {97, 232448}, {102, 1}, {103, 1}, {106, 32}, {115, 1}, {119, 0},
        {132, 1},
    };
    *value = 0;
    switch (attribute) {
    case 13: *value = (int)card->clock_mhz * 1000; return CUDA_SUCCESS;
    case 16: *value = (int)card->n_multiprocessors; return CUDA_SUCCESS;
    case 33: *value = 0x18 + device; return CUDA_SUCCESS;
    case 36: *value = (int)card->memory_clock_mhz * 1000; return CUDA_SUCCESS;
    case 37: *value = (int)card->bus_bits; return CUDA_SUCCESS;
    case 75: *value = (int)card->compute_major; return CUDA_SUCCESS;
    case 76: *value = (int)card->compute_minor; return CUDA_SUCCESS;
    default: break;
    }
    for (size_t i = 0; i < sizeof FIXED / sizeof FIXED[0]; i++)
        if (FIXED[i][0] == attribute)
            *value = FIXED[i][1];
    return CUDA_SUCCESS;
}

SIM_API CUresult cuDeviceGetPCIBusId(char *text, int n, CUdevice device);
SIM_API CUresult cuDeviceGetPCIBusId(char *text, int n, CUdevice device)
{
    if (!card_of(device))
        return refuse();
    snprintf(text, (size_t)n, "0000:%02x:00.0", 0x18 + sim_session()->visible[device]);
    return CUDA_SUCCESS;
}

SIM_API CUresult cuDeviceCanAccessPeer(int *can, CUdevice device, CUdevice peer);
SIM_API CUresult cuDeviceCanAccessPeer(int *can, CUdevice device, CUdevice peer)
{
    if (!card_of(device) || !card_of(peer))
        return refuse();
    *can = 0;
    return CUDA_SUCCESS;
}
