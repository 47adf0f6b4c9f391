/* SPDX-License-Identifier: Apache-2.0
 *
 * Ways in: the lazy binding of each symbol, cuInit, and cuGetProcAddress.
 */
#include "glibc.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cuda_variant.h"
#include "gate.h"
#include "real.h"

FX_EXPORT extern const char flexai_shim_build[];
const char flexai_shim_build[] = "flexai-shim " FX_BUILD;

FX_EXPORT CUresult cuInit(unsigned flags);
FX_EXPORT CUresult cuGetProcAddress(const char *name, void **at, int version, uint64_t flags);
FX_EXPORT CUresult cuGetProcAddress_v2(const char *name, void **at, int version, uint64_t flags, int *status);
FX_EXPORT CUresult cuGetProcAddress_v2_ptsz(const char *name, void **at, int version, uint64_t flags, int *status);
void *cuda_resolve(uint64_t index) __attribute__((visibility("hidden")));

uint32_t fx_n_unknown;

static pthread_once_t opened = PTHREAD_ONCE_INIT;
static void *driver;

static void open_driver(void)
{
    char why[768] = "";
    driver = fx_real_open("FLEXAI_REAL_CUDA", "libcuda.so.1", why, sizeof why);
    if (!driver && fx_prepare() != FX_FORWARD)
        dprintf(STDERR_FILENO, "flexai: no CUDA driver: %s\n", why);
}

static CUresult no_driver(void)
{
    return CUDA_ERROR_NO_DEVICE;
}

static CUresult not_supported(void)
{
    return CUDA_ERROR_NOT_SUPPORTED;
}

/* From the lazy entry of each symbol, the first time it is called. */
void *cuda_resolve(uint64_t index)
{
    pthread_once(&opened, open_driver);
    void *at = driver ? dlsym(driver, cuda_name[index]) : (void *)no_driver;
    if (!at || (cuda_refused[index] && fx_prepare() != FX_FORWARD))
        at = (void *)not_supported;
    __atomic_store_n(&cuda_real[index], at, __ATOMIC_RELEASE);
    return at;
}

CUresult cuInit(unsigned flags)
{
    if (fx_prepare() == FX_BROKEN)
        return CUDA_ERROR_SYSTEM_NOT_READY;
    CUresult rc = FX_REAL(cuInit, CUresult (*)(unsigned))(flags);
    if (rc == CUDA_SUCCESS && fx.mode == FX_TENANT && !fx.attached) {
        fx_attach();
        if (fx.mode == FX_BROKEN)
            return CUDA_ERROR_SYSTEM_NOT_READY;
    }
    return rc;
}

/* Our function for what the driver would have given: by the address it gave, and if that is an address of its own, by
 * name and version. */
static void *ours(const char *name, const void *given, int version, bool per_thread)
{
    const struct cuda_variant *best = NULL;
    for (const struct cuda_variant *variant = cuda_variants; variant->base; variant++) {
        if (strcmp(variant->base, name) != 0)
            continue;
        void *real = __atomic_load_n(&cuda_real[variant->index], __ATOMIC_ACQUIRE);
        if (real != given && dlsym(driver, cuda_name[variant->index]) == given)
            real = cuda_resolve((uint64_t)variant->index);
        if (real == given)
            return cuda_ours[variant->index];
        /* A function without a per-thread variant is asked for with either flag. */
        if (variant->since <= version && (variant->per_thread == 0 || per_thread) &&
            (!best || variant->per_thread > best->per_thread ||
             (variant->per_thread == best->per_thread && variant->since > best->since)))
            best = variant;
    }
    return best ? cuda_ours[best->index] : NULL;
}

static bool known(const char *name)
{
    size_t n = strlen(name);
    for (int i = 0; i < CUDA_N_SYMBOLS; i++)
        if (strncmp(cuda_name[i], name, n) == 0 && (cuda_name[i][n] == 0 || cuda_name[i][n] == '_'))
            return true;
    return false;
}

static void substitute(const char *name, void **at, int version, uint64_t flags)
{
    if (!name || !at || !*at)
        return;
    void *own = ours(name, *at, version, flags & CU_GET_PROC_ADDRESS_PER_THREAD);
    if (own)
        *at = own;
    else if (!known(name))
        __atomic_add_fetch(&fx_n_unknown, 1, __ATOMIC_RELAXED);
}

CUresult cuGetProcAddress(const char *name, void **at, int version, uint64_t flags)
{
    CUresult rc = FX_REAL(cuGetProcAddress, CUresult (*)(const char *, void **, int, uint64_t))(name, at, version, flags);
    if (rc == CUDA_SUCCESS)
        substitute(name, at, version, flags);
    return rc;
}

typedef CUresult (*get_v2)(const char *, void **, int, uint64_t, int *);

CUresult cuGetProcAddress_v2(const char *name, void **at, int version, uint64_t flags, int *status)
{
    CUresult rc = FX_REAL(cuGetProcAddress_v2, get_v2)(name, at, version, flags, status);
    if (rc == CUDA_SUCCESS)
        substitute(name, at, version, flags);
    return rc;
}

CUresult cuGetProcAddress_v2_ptsz(const char *name, void **at, int version, uint64_t flags, int *status)
{
    CUresult rc = FX_REAL(cuGetProcAddress_v2_ptsz, get_v2)(name, at, version, flags, status);
    if (rc == CUDA_SUCCESS)
        substitute(name, at, version, flags | CU_GET_PROC_ADDRESS_PER_THREAD);
    return rc;
}
