/* SPDX-License-Identifier: Apache-2.0
 *
 * Code, and the buffers of a context: what they take is told by the driver's ledger alone. An estimate is charged before
 * the driver is asked, and put right within a second or two, or before anything else is refused.
 */
#include "glibc.h"

#include <string.h>
#include <unistd.h>
#include <fcntl.h>

#include "charge.h"

FX_EXPORT CUresult cuModuleLoad(CUmodule *module, const char *path);
FX_EXPORT CUresult cuModuleLoadData(CUmodule *module, const void *image);
FX_EXPORT CUresult cuModuleLoadDataEx(CUmodule *module, const void *image, unsigned n, int *options, void **values);
FX_EXPORT CUresult cuModuleLoadFatBinary(CUmodule *module, const void *image);
FX_EXPORT CUresult cuLibraryLoadData(void **library, const void *code, int *jit, void **jit_values, unsigned n_jit,
                                     int *options, void **values, unsigned n);
FX_EXPORT CUresult cuLibraryLoadFromFile(void **library, const char *path, int *jit, void **jit_values, unsigned n_jit,
                                         int *options, void **values, unsigned n);
FX_EXPORT CUresult cuCtxSetLimit(int limit, size_t value);

#define BLOCK (2ull << 20)
#define LITTLE (64ull << 10) /* finds room in what the context took */
/* A fat binary holds code for many kinds of card, of which one is loaded, and that often only when it is called. */
#define MOST (32ull << 20)

static uint64_t estimate(uint64_t image_bytes)
{
    return image_bytes <= LITTLE ? 0 : (image_bytes + BLOCK - 1) / BLOCK * BLOCK;
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* Size of an ELF image, or of a fat binary (with or without its wrapper), from its head; 0 = another kind, such as PTX.
 * Byte by byte, since text may end before a head would. */
static uint64_t image_bytes(const unsigned char *image, int depth)
{
    static const unsigned char ELF[] = {0x7f, 'E', 'L', 'F'}, FAT[] = {0x50, 0xed, 0x55, 0xba},
                               WRAPPER[] = {0xb1, 0x43, 0x62, 0x46};
    const unsigned char *kinds[] = {ELF, FAT, WRAPPER};
    int kind = 0;
    while (kind < 3) {
        int same = 0;
        while (same < 4 && image[same] == kinds[kind][same])
            same++;
        if (same == 4)
            break;
        kind++;
    }
    uint64_t big = 0;
    uint16_t size = 0, n = 0;
    const unsigned char *inner = NULL;
    switch (kind) {
    case 0: /* offset, size and count of its section heads, which come last */
        memcpy(&big, image + 0x28, sizeof big);
        memcpy(&size, image + 0x3a, sizeof size);
        memcpy(&n, image + 0x3c, sizeof n);
        return big + (uint64_t)size * n;
    case 1: /* bytes behind its head */
        memcpy(&big, image + 8, sizeof big);
        return least(big, MOST);
    case 2: /* points to the fat binary */
        memcpy(&inner, image + 8, sizeof inner);
        return inner && depth == 0 ? image_bytes(inner, 1) : 0;
    default:
        return 0;
    }
}

static uint64_t file_bytes(const char *path)
{
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    off_t length = fd >= 0 ? lseek(fd, 0, SEEK_END) : 0;
    if (fd >= 0)
        close(fd);
    return length > 0 ? (uint64_t)length : 0;
}

#define LOAD(bytes, call)                                                                                              \
    int card = fx_current_card();                                                                                      \
    uint64_t expected = card >= 0 ? estimate(bytes) : 0;                                                               \
    if (!fx_expect(card, expected))                                                                                    \
        return CUDA_ERROR_OUT_OF_MEMORY;                                                                               \
    CUresult rc = (call);                                                                                              \
    return expected ? loaded(rc, card, expected) : rc

static CUresult loaded(CUresult rc, int card, uint64_t expected)
{
    if (rc != CUDA_SUCCESS)
        fx_expect_failed(card, expected);
    fx_leave(true);
    return rc;
}

CUresult cuModuleLoad(CUmodule *module, const char *path)
{
    LOAD(file_bytes(path), FX_REAL(cuModuleLoad, CUresult (*)(CUmodule *, const char *))(module, path));
}

CUresult cuModuleLoadData(CUmodule *module, const void *image)
{
    LOAD(image ? image_bytes(image, 0) : 0,
         FX_REAL(cuModuleLoadData, CUresult (*)(CUmodule *, const void *))(module, image));
}

CUresult cuModuleLoadDataEx(CUmodule *module, const void *image, unsigned n, int *options, void **values)
{
    LOAD(image ? image_bytes(image, 0) : 0,
         FX_REAL(cuModuleLoadDataEx, CUresult (*)(CUmodule *, const void *, unsigned, int *, void **))(module, image, n,
                                                                                                       options, values));
}

CUresult cuModuleLoadFatBinary(CUmodule *module, const void *image)
{
    LOAD(image ? image_bytes(image, 0) : 0,
         FX_REAL(cuModuleLoadFatBinary, CUresult (*)(CUmodule *, const void *))(module, image));
}

typedef CUresult (*load_library)(void **, const void *, int *, void **, unsigned, int *, void **, unsigned);

CUresult cuLibraryLoadData(void **library, const void *code, int *jit, void **jit_values, unsigned n_jit, int *options,
                           void **values, unsigned n)
{
    LOAD(code ? image_bytes(code, 0) : 0, FX_REAL(cuLibraryLoadData, load_library)(library, code, jit, jit_values, n_jit,
                                                                                   options, values, n));
}

CUresult cuLibraryLoadFromFile(void **library, const char *path, int *jit, void **jit_values, unsigned n_jit,
                               int *options, void **values, unsigned n)
{
    LOAD(file_bytes(path), FX_REAL(cuLibraryLoadFromFile, load_library)(library, path, jit, jit_values, n_jit, options,
                                                                       values, n));
}

/* What a larger limit takes: stacks for as many threads as the card can hold at once; a buffer is as large as it says. */
static uint64_t limit_bytes(int limit, uint64_t more)
{
    CUdevice device;
    int n_processors = 0, n_threads = 0;
    typedef CUresult (*get_attribute)(int *, int, CUdevice);
    if (limit == CU_LIMIT_PRINTF_FIFO_SIZE || limit == CU_LIMIT_MALLOC_HEAP_SIZE)
        return (more + BLOCK - 1) / BLOCK * BLOCK;
    if (limit != CU_LIMIT_STACK_SIZE || FX_REAL(cuCtxGetDevice, CUresult (*)(CUdevice *))(&device) != CUDA_SUCCESS)
        return 0;
    FX_REAL(cuDeviceGetAttribute, get_attribute)(&n_processors, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, device);
    FX_REAL(cuDeviceGetAttribute, get_attribute)(&n_threads, CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR, device);
    uint64_t bytes, threads = n_processors > 0 && n_threads > 0 ? (uint64_t)n_processors * (uint64_t)n_threads : 0;
    return __builtin_mul_overflow(more, threads, &bytes) ? UINT64_MAX : (bytes + BLOCK - 1) / BLOCK * BLOCK;
}

CUresult cuCtxSetLimit(int limit, size_t value)
{
    size_t before = 0;
    int card = fx_current_card();
    if (card >= 0 && FX_REAL(cuCtxGetLimit, CUresult (*)(size_t *, int))(&before, limit) != CUDA_SUCCESS)
        before = value;
    uint64_t expected = card >= 0 && value > before ? limit_bytes(limit, value - before) : 0;
    if (!fx_expect(card, expected))
        return CUDA_ERROR_OUT_OF_MEMORY;
    CUresult rc = FX_REAL(cuCtxSetLimit, CUresult (*)(int, size_t))(limit, value);
    return expected ? loaded(rc, card, expected) : rc;
}
