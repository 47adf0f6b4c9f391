/* SPDX-License-Identifier: Apache-2.0 */
#include "glibc.h"
#include "real.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Where distributions, containers and WSL put the driver. The loader's cache cannot be asked: our name is loaded. */
static const char *const PLACES[] = {
#if defined(__x86_64__)
    "/usr/lib/x86_64-linux-gnu", "/lib/x86_64-linux-gnu",
#elif defined(__aarch64__)
    "/usr/lib/aarch64-linux-gnu", "/lib/aarch64-linux-gnu",
#endif
    "/usr/lib64", "/lib64", "/usr/lib/wsl/lib", "/usr/local/nvidia/lib64", "/usr/local/nvidia/lib", "/usr/lib", "/lib",
    "/run/opengl-driver/lib", "/usr/local/cuda/compat",
};

/* The path of the file that this code was loaded from, links resolved. */
static const char *own_path(char own[4096])
{
    Dl_info info;
    if (!dladdr((void *)fx_real_open, &info) || !info.dli_fname || !realpath(info.dli_fname, own))
        own[0] = 0;
    return own;
}

static void *try_place(const char *place, size_t n_place, const char *soname, const char *own)
{
    char path[4096], resolved[4096];
    if (n_place == 0 || snprintf(path, sizeof path, "%.*s/%s", (int)n_place, place, soname) >= (int)sizeof path)
        return NULL;
    if (access(path, R_OK) != 0 || !realpath(path, resolved) || strcmp(resolved, own) == 0)
        return NULL;
    void *handle = dlopen(resolved, RTLD_NOW | RTLD_LOCAL);
    /* Another copy of ours would forward to itself for ever. */
    return handle && dlsym(handle, "flexai_shim_build") ? NULL : handle;
}

void *fx_real_open(const char *variable, const char *soname, char *why, unsigned n_why)
{
    char own[4096];
    own_path(own);
    const char *named = getenv(variable);
    if (named && *named) {
        void *handle = dlopen(named, RTLD_NOW | RTLD_LOCAL);
        if (handle && dlsym(handle, "flexai_shim_build")) {
            snprintf(why, n_why, "%s=%s is the shim itself", variable, named);
            return NULL;
        }
        if (!handle)
            snprintf(why, n_why, "%s=%s cannot be opened: %s", variable, named, dlerror());
        return handle;
    }
    const char *list = getenv("LD_LIBRARY_PATH");
    while (list && *list) {
        size_t n = strcspn(list, ":;");
        void *handle = try_place(list, n, soname, own);
        if (handle)
            return handle;
        list += n + (list[n] != 0);
    }
    for (unsigned i = 0; i < sizeof PLACES / sizeof *PLACES; i++) {
        void *handle = try_place(PLACES[i], strlen(PLACES[i]), soname, own);
        if (handle)
            return handle;
    }
    snprintf(why, n_why, "no %s other than the shim in LD_LIBRARY_PATH or the usual places; set %s", soname, variable);
    return NULL;
}
