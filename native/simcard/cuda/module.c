/* SPDX-License-Identifier: Apache-2.0
 * Modules and libraries: any image is taken, any function is found.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "sim.h"

static pthread_mutex_t functions = PTHREAD_MUTEX_INITIALIZER;

/* What code takes on the card: the size of an ELF image, rounded up to 2 MiB. Little code finds room in what the context
 * took, and so does an image of any other kind, whose size nobody knows. */
#define CODE_BLOCK (2ull << 20)
#define LITTLE (64ull << 10)
static struct sim_module *resident;

static uint64_t code_bytes(const void *image)
{
    const unsigned char *at = image;
    uint64_t sections = 0;
    uint16_t size = 0, n = 0;
    if (memcmp(at, "\177ELF", strnlen(image, 4) < 4 ? strnlen(image, 4) + 1 : 4) != 0)
        return 0;
    memcpy(&sections, at + 0x28, sizeof sections);
    memcpy(&size, at + 0x3a, sizeof size);
    memcpy(&n, at + 0x3c, sizeof n);
    uint64_t bytes = sections + (uint64_t)size * n;
    return bytes <= LITTLE ? 0 : (bytes + CODE_BLOCK - 1) / CODE_BLOCK * CODE_BLOCK;
}

/* Put it on the card of the current context. */
static CUresult place(struct sim_module *m)
{
    struct sim_context *c = sim_current();
    if (m->context || !m->bytes)
        return CUDA_SUCCESS;
    if (!c)
        return CUDA_ERROR_INVALID_CONTEXT;
    CUresult error = sim_take(c->card, m->bytes);
    if (error)
        return error;
    pthread_mutex_lock(&functions);
    m->context = c;
    m->next = resident;
    resident = m;
    pthread_mutex_unlock(&functions);
    return CUDA_SUCCESS;
}

/* Under the lock. */
static void displace(struct sim_module *m)
{
    for (struct sim_module **at = &resident; *at; at = &(*at)->next)
        if (*at == m) {
            *at = m->next;
            sim_give(m->context->card, m->bytes);
            break;
        }
    m->context = NULL;
}

void sim_modules_forget(struct sim_context *context)
{
    pthread_mutex_lock(&functions);
    for (struct sim_module *m = resident, *next; m; m = next) {
        next = m->next;
        if (m->context == context)
            displace(m);
    }
    pthread_mutex_unlock(&functions);
}

static CUresult make(CUmodule *module, const void *image)
{
    if (!image || !module)
        return CUDA_ERROR_INVALID_VALUE;
    *module = calloc(1, sizeof **module);
    if (!*module)
        return CUDA_ERROR_OUT_OF_MEMORY;
    (*module)->bytes = code_bytes(image);
    return CUDA_SUCCESS;
}

static CUresult load(CUmodule *module, const void *image)
{
    if (!sim_current())
        return CUDA_ERROR_INVALID_CONTEXT;
    CUresult error = make(module, image);
    if (!error && (error = place(*module)))
        free(*module);
    return error;
}

SIM_API CUresult cuModuleLoadData(CUmodule *module, const void *image);
SIM_API CUresult cuModuleLoadData(CUmodule *module, const void *image)
{
    return load(module, image);
}

SIM_API CUresult cuModuleLoadDataEx(CUmodule *module, const void *image, unsigned n, int *options, void **values);
SIM_API CUresult cuModuleLoadDataEx(CUmodule *module, const void *image, unsigned n, int *options, void **values)
{
    (void)n;
    (void)options;
    (void)values;
    return load(module, image);
}

SIM_API CUresult cuModuleLoadFatBinary(CUmodule *module, const void *image);
SIM_API CUresult cuModuleLoadFatBinary(CUmodule *module, const void *image)
{
    return load(module, image);
}

SIM_API CUresult cuModuleLoad(CUmodule *module, const char *path);
SIM_API CUresult cuModuleLoad(CUmodule *module, const char *path)
{
    return path && access(path, R_OK) == 0 ? load(module, path) : 301 /* CUDA_ERROR_FILE_NOT_FOUND */;
}

SIM_API CUresult cuModuleUnload(CUmodule module);
SIM_API CUresult cuModuleUnload(CUmodule module)
{
    if (!module)
        return CUDA_ERROR_INVALID_HANDLE;
    pthread_mutex_lock(&functions);
    displace(module);
    pthread_mutex_unlock(&functions);
    while (module->functions) {
        struct sim_function *gone = module->functions;
        module->functions = gone->next;
        free(gone);
    }
    free(module);
    return CUDA_SUCCESS;
}

SIM_API CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name);
SIM_API CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name)
{
    if (!module || !name || !function)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&functions);
    struct sim_function *f = module->functions;
    while (f && strcmp(f->name, name) != 0)
        f = f->next;
    if (!f && (f = calloc(1, sizeof *f))) {
        snprintf(f->name, sizeof f->name, "%s", name);
        f->is_work = strcmp(name, "flexai_work") == 0;
        f->is_spin = strcmp(name, "flexai_spin") == 0 || strcmp(name, "ncclFlexaiSpin") == 0;
        f->module = module;
        f->next = module->functions;
        module->functions = f;
    }
    pthread_mutex_unlock(&functions);
    *function = f;
    return f ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

SIM_API CUresult cuModuleGetLoadingMode(int *mode);
SIM_API CUresult cuModuleGetLoadingMode(int *mode)
{
    *mode = 1; /* eager */
    return CUDA_SUCCESS;
}

SIM_API CUresult cuFuncGetName(const char **name, CUfunction function);
SIM_API CUresult cuFuncGetName(const char **name, CUfunction function)
{
    if (!function)
        return CUDA_ERROR_INVALID_HANDLE;
    *name = function->name;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuFuncGetModule(CUmodule *module, CUfunction function);
SIM_API CUresult cuFuncGetModule(CUmodule *module, CUfunction function)
{
    if (!function)
        return CUDA_ERROR_INVALID_HANDLE;
    *module = function->module;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuFuncGetAttribute(int *value, int attribute, CUfunction function);
SIM_API CUresult cuFuncGetAttribute(int *value, int attribute, CUfunction function)
{
    if (!function)
        return CUDA_ERROR_INVALID_HANDLE;
    *value = attribute == 0 ? 1024 : 0; /* most threads a block */
    return CUDA_SUCCESS;
}

SIM_API CUresult cuFuncSetAttribute(CUfunction function, int attribute, int value);
SIM_API CUresult cuFuncSetAttribute(CUfunction function, int attribute, int value)
{
    (void)attribute;
    (void)value;
    return function ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

SIM_API CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int *n, CUfunction f, int block, size_t shared);
SIM_API CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int *n, CUfunction f, int block, size_t shared)
{
    (void)shared;
    if (!f || block <= 0)
        return CUDA_ERROR_INVALID_VALUE;
    *n = 2048 / block;
    return CUDA_SUCCESS;
}

/* Libraries are modules that need no context, kernels their functions. */
SIM_API CUresult cuLibraryLoadData(CUmodule *library, const void *code, int *jit, void **jit_values, unsigned n_jit,
                                   int *options, void **values, unsigned n);
SIM_API CUresult cuLibraryLoadData(CUmodule *library, const void *code, int *jit, void **jit_values, unsigned n_jit,
                                   int *options, void **values, unsigned n)
{
    (void)jit, (void)jit_values, (void)n_jit, (void)options, (void)values, (void)n;
    return make(library, code);
}

SIM_API CUresult cuLibraryUnload(CUmodule library);
SIM_API CUresult cuLibraryUnload(CUmodule library)
{
    return cuModuleUnload(library);
}

SIM_API CUresult cuLibraryGetKernel(CUfunction *kernel, CUmodule library, const char *name);
SIM_API CUresult cuLibraryGetKernel(CUfunction *kernel, CUmodule library, const char *name)
{
    if (library && sim_current()) { /* loaded where it is first used */
        CUresult error = place(library);
        if (error)
            return error;
    }
    return cuModuleGetFunction(kernel, library, name);
}

SIM_API CUresult cuKernelGetFunction(CUfunction *function, CUfunction kernel);
SIM_API CUresult cuKernelGetFunction(CUfunction *function, CUfunction kernel)
{
    *function = kernel;
    return kernel ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}
