/* SPDX-License-Identifier: Apache-2.0
 *
 * Launches: every way to start work that may take long goes through the gate.
 */
#include "glibc.h"

#include <string.h>

#include "gate.h"

/* CUlaunchConfig (11.6): seven 32-bit fields, then the stream. */
struct config {
    unsigned grid[3], block[3], shared;
    CUstream stream;
};

#define DIMS unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared
#define DIM_VALUES gx, gy, gz, bx, by, bz, shared
/* A function with its grid; a graph. Blocks are left out: a program rarely changes them alone. */
#define KIND(f) ((uint64_t)(f) ^ ((uint64_t)gx * gy * gz << 20))

typedef CUresult (*launch)(CUfunction, DIMS, CUstream, void **, void **);
typedef CUresult (*launch_ex)(const struct config *, CUfunction, void **, void **);
typedef CUresult (*cooperative)(CUfunction, DIMS, CUstream, void **);
typedef CUresult (*graph)(CUgraphExec, CUstream);

FX_EXPORT CUresult cuLaunchKernel(CUfunction f, DIMS, CUstream stream, void **params, void **extra);
FX_EXPORT CUresult cuLaunchKernel_ptsz(CUfunction f, DIMS, CUstream stream, void **params, void **extra);
FX_EXPORT CUresult cuLaunchKernelEx(const struct config *config, CUfunction f, void **params, void **extra);
FX_EXPORT CUresult cuLaunchKernelEx_ptsz(const struct config *config, CUfunction f, void **params, void **extra);
FX_EXPORT CUresult cuLaunchCooperativeKernel(CUfunction f, DIMS, CUstream stream, void **params);
FX_EXPORT CUresult cuLaunchCooperativeKernel_ptsz(CUfunction f, DIMS, CUstream stream, void **params);
FX_EXPORT CUresult cuGraphLaunch(CUgraphExec exec, CUstream stream);
FX_EXPORT CUresult cuGraphLaunch_ptsz(CUgraphExec exec, CUstream stream);
FX_EXPORT CUresult cuLaunch(CUfunction f);
FX_EXPORT CUresult cuLaunchGrid(CUfunction f, int width, int height);
FX_EXPORT CUresult cuLaunchGridAsync(CUfunction f, int width, int height, CUstream stream);
FX_EXPORT CUresult cuStreamDestroy(CUstream stream);
FX_EXPORT CUresult cuStreamDestroy_v2(CUstream stream);
FX_EXPORT CUresult cuModuleGetFunction(CUfunction *f, CUmodule module, const char *name);
FX_EXPORT CUresult cuLibraryGetKernel(void **kernel, void *library, const char *name);

static uint64_t config_kind(const struct config *config, CUfunction f)
{
    return config ? (uint64_t)f ^ (uint64_t)config->grid[0] * config->grid[1] * config->grid[2] << 20 : 0;
}

CUresult cuLaunchKernel(CUfunction f, DIMS, CUstream stream, void **params, void **extra)
{
    FX_GATED(stream, 0, KIND(f), FX_REAL(cuLaunchKernel, launch)(f, DIM_VALUES, stream, params, extra));
}

CUresult cuLaunchKernel_ptsz(CUfunction f, DIMS, CUstream stream, void **params, void **extra)
{
    FX_GATED(stream, 1, KIND(f), FX_REAL(cuLaunchKernel_ptsz, launch)(f, DIM_VALUES, stream, params, extra));
}

CUresult cuLaunchKernelEx(const struct config *config, CUfunction f, void **params, void **extra)
{
    CUstream stream = config ? config->stream : NULL;
    FX_GATED(stream, 0, config_kind(config, f), FX_REAL(cuLaunchKernelEx, launch_ex)(config, f, params, extra));
}

CUresult cuLaunchKernelEx_ptsz(const struct config *config, CUfunction f, void **params, void **extra)
{
    CUstream stream = config ? config->stream : NULL;
    FX_GATED(stream, 1, config_kind(config, f), FX_REAL(cuLaunchKernelEx_ptsz, launch_ex)(config, f, params, extra));
}

CUresult cuLaunchCooperativeKernel(CUfunction f, DIMS, CUstream stream, void **params)
{
    FX_GATED(stream, 0, KIND(f), FX_REAL(cuLaunchCooperativeKernel, cooperative)(f, DIM_VALUES, stream, params));
}

CUresult cuLaunchCooperativeKernel_ptsz(CUfunction f, DIMS, CUstream stream, void **params)
{
    FX_GATED(stream, 1, KIND(f), FX_REAL(cuLaunchCooperativeKernel_ptsz, cooperative)(f, DIM_VALUES, stream, params));
}

CUresult cuGraphLaunch(CUgraphExec exec, CUstream stream)
{
    FX_GATED(stream, 0, (uint64_t)exec, FX_REAL(cuGraphLaunch, graph)(exec, stream));
}

CUresult cuGraphLaunch_ptsz(CUgraphExec exec, CUstream stream)
{
    FX_GATED(stream, 1, (uint64_t)exec, FX_REAL(cuGraphLaunch_ptsz, graph)(exec, stream));
}

CUresult cuLaunch(CUfunction f)
{
    FX_GATED((CUstream)NULL, 0, (uint64_t)f, FX_REAL(cuLaunch, CUresult (*)(CUfunction))(f));
}

CUresult cuLaunchGrid(CUfunction f, int width, int height)
{
    FX_GATED((CUstream)NULL, 0, (uint64_t)f, FX_REAL(cuLaunchGrid, CUresult (*)(CUfunction, int, int))(f, width, height));
}

CUresult cuLaunchGridAsync(CUfunction f, int width, int height, CUstream stream)
{
    FX_GATED(stream, 0, (uint64_t)f, FX_REAL(cuLaunchGridAsync, CUresult (*)(CUfunction, int, int, CUstream))(f, width, height,
                                                                                                  stream));
}

CUresult cuStreamDestroy(CUstream stream)
{
    fx_gate_stream_gone(stream);
    return FX_REAL(cuStreamDestroy, CUresult (*)(CUstream))(stream);
}

CUresult cuStreamDestroy_v2(CUstream stream)
{
    fx_gate_stream_gone(stream);
    return FX_REAL(cuStreamDestroy_v2, CUresult (*)(CUstream))(stream);
}

/* A kernel of a collective library spins until its peers run: a process that has such kernels is never held up. */
static void look_for_collectives(CUresult rc, const char *name)
{
    if (rc == CUDA_SUCCESS && name && (strncmp(name, "nccl", 4) == 0 || strstr(name, "nvshmem")))
        fx_gate_collective();
}

CUresult cuModuleGetFunction(CUfunction *f, CUmodule module, const char *name)
{
    CUresult rc = FX_REAL(cuModuleGetFunction, CUresult (*)(CUfunction *, CUmodule, const char *))(f, module, name);
    look_for_collectives(rc, name);
    return rc;
}

CUresult cuLibraryGetKernel(void **kernel, void *library, const char *name)
{
    CUresult rc = FX_REAL(cuLibraryGetKernel, CUresult (*)(void **, void *, const char *))(kernel, library, name);
    look_for_collectives(rc, name);
    return rc;
}
