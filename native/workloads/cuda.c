/* SPDX-License-Identifier: Apache-2.0
 * The little of the driver API that the workloads need, through libcuda.so.1 opened by name. Every program that opens it
 * so gets the shim where it is preloaded.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "workload.h"

/* One thread busy for a number of iterations. A real card needs more than one thread to be full; a context has the whole
 * card while its kernel runs, however small, and card time is what is shared. */
static const char PTX[] =
    ".version 7.0\n.target sm_70\n.address_size 64\n"
    ".visible .entry flexai_work(.param .u64 n)\n{\n"
    "  .reg .u64 %rd<3>;\n  .reg .pred %p<2>;\n"
    "  ld.param.u64 %rd1, [n];\n  mov.u64 %rd2, 0;\n"
    "  setp.ge.u64 %p1, %rd2, %rd1;\n  @%p1 bra DONE;\n"
    "LOOP:\n  add.u64 %rd2, %rd2, 1;\n"
    "  // keeps the loop from being folded into one step\n"
    "  xor.b64 %rd2, %rd2, 0;\n  membar.cta;\n"
    "  setp.lt.u64 %p1, %rd2, %rd1;\n  @%p1 bra LOOP;\n"
    "DONE:\n  ret;\n}\n";

/* A collective's kernel in small: spins until its peer is there. Once under a name that tells nothing, once as a
 * collective library names its own, which is what the shim goes by. */
#define SPIN(name)                                                                                                     \
    ".visible .entry " name "(.param .u64 peer, .param .u64 own, .param .u32 turn, .param .u64 n)\n{\n"                \
    "  .reg .u64 %rd<5>;\n  .reg .u32 %r<4>;\n  .reg .pred %p<3>;\n"                                                   \
    "  ld.param.u64 %rd1, [peer];\n  ld.param.u64 %rd2, [own];\n"                                                      \
    "  ld.param.u32 %r1, [turn];\n  ld.param.u64 %rd3, [n];\n"                                                         \
    "WAIT:\n  ld.acquire.sys.global.u32 %r2, [%rd1];\n"                                                               \
    "  setp.lt.u32 %p1, %r2, %r1;\n  @%p1 bra WAIT;\n"                                                                \
    "  mov.u64 %rd4, 0;\n"                                                                                            \
    "LOOP:\n  add.u64 %rd4, %rd4, 1;\n  xor.b64 %rd4, %rd4, 0;\n  membar.cta;\n"                                      \
    "  setp.lt.u64 %p2, %rd4, %rd3;\n  @%p2 bra LOOP;\n"                                                              \
    "  add.u32 %r3, %r1, 1;\n  st.release.sys.global.u32 [%rd2], %r3;\n  ret;\n}\n"
static const char SPIN_PTX[] =
    ".version 7.0\n.target sm_70\n.address_size 64\n" SPIN("flexai_spin") SPIN("ncclFlexaiSpin");

#define EVENTS 1025
static void *context, *module, *function, *spin, *stream, *exec, *driver;
static void *event[EVENTS];
static char name[256];

static int (*p_launch)(void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *, void **,
                       void **);
static int (*p_record)(void *, void *), (*p_await)(void *), (*p_drain)(void *), (*p_free)(uint64_t);
static int (*p_alloc)(uint64_t *, size_t), (*p_graph_launch)(void *, void *);
static int (*p_elapsed)(float *, void *, void *), (*p_error)(int, const char **);

static void check(int code, const char *what)
{
    if (!code)
        return;
    const char *text = "?";
    if (p_error)
        p_error(code, &text);
    fprintf(stderr, "flexai-workload: %s: %s (%d)\n", what, text, code);
    exit(code == 2 ? 12 : 1); /* 12: out of memory */
}

static void *need(void *library, const char *symbol)
{
    void *at = dlsym(library, symbol);
    if (!at) {
        fprintf(stderr, "flexai-workload: the driver has no %s\n", symbol);
        exit(1);
    }
    return at;
}

static int (*p_end_capture)(void *, void **), (*p_begin_capture)(void *, int), (*p_instantiate)(void **, void *, uint64_t);

void cuda_open(int device)
{
    void *l = dlopen("libcuda.so.1", RTLD_NOW | RTLD_GLOBAL);
    if (!l) {
        fprintf(stderr, "flexai-workload: no CUDA driver: %s\n", dlerror());
        exit(1);
    }
    driver = l;
    int (*init)(unsigned), (*get)(int *, int), (*retain)(void **, int), (*current)(void *), (*load)(void **, const void *);
    int (*find)(void **, void *, const char *), (*make_stream)(void **, unsigned), (*make_event)(void **, unsigned);
    int (*get_name)(char *, int, int);
    *(void **)&p_error = need(l, "cuGetErrorString");
    *(void **)&init = need(l, "cuInit");
    *(void **)&get = need(l, "cuDeviceGet");
    *(void **)&get_name = need(l, "cuDeviceGetName");
    *(void **)&retain = need(l, "cuDevicePrimaryCtxRetain");
    *(void **)&current = need(l, "cuCtxSetCurrent");
    *(void **)&load = need(l, "cuModuleLoadData");
    *(void **)&find = need(l, "cuModuleGetFunction");
    *(void **)&make_stream = need(l, "cuStreamCreate");
    *(void **)&make_event = need(l, "cuEventCreate");
    *(void **)&p_launch = need(l, "cuLaunchKernel");
    *(void **)&p_record = need(l, "cuEventRecord");
    *(void **)&p_await = need(l, "cuEventSynchronize");
    *(void **)&p_elapsed = need(l, "cuEventElapsedTime");
    *(void **)&p_drain = need(l, "cuStreamSynchronize");
    *(void **)&p_alloc = need(l, "cuMemAlloc_v2");
    *(void **)&p_free = need(l, "cuMemFree_v2");
    *(void **)&p_begin_capture = need(l, "cuStreamBeginCapture_v2");
    *(void **)&p_end_capture = need(l, "cuStreamEndCapture");
    *(void **)&p_instantiate = need(l, "cuGraphInstantiateWithFlags");
    *(void **)&p_graph_launch = need(l, "cuGraphLaunch");
    int handle = 0;
    check(init(0), "cuInit");
    check(get(&handle, device), "cuDeviceGet");
    check(get_name(name, sizeof name, handle), "cuDeviceGetName");
    check(retain(&context, handle), "cuDevicePrimaryCtxRetain");
    check(current(context), "cuCtxSetCurrent");
    check(load(&module, PTX), "cuModuleLoadData");
    check(find(&function, module, "flexai_work"), "cuModuleGetFunction");
    check(make_stream(&stream, 1), "cuStreamCreate");
    for (int i = 0; i < EVENTS; i++)
        check(make_event(&event[i], 0), "cuEventCreate");
}

const char *cuda_device_name(void)
{
    return name;
}

bool cuda_simulated(void)
{
    return strstr(name, "simulated") != NULL;
}

uint64_t cuda_iterations(double kernel_us)
{
    if (cuda_simulated())
        return (uint64_t)(kernel_us * 1000);
    /* The best of many short ones: others may have the card meanwhile, in turns of milliseconds. */
    const uint64_t n = 20000;
    float best = 1e9f;
    for (int i = 0; i < 100; i++) {
        float ms = 0;
        cuda_record(0);
        cuda_launch(n);
        cuda_record(1);
        cuda_await(1);
        check(p_elapsed(&ms, event[0], event[1]), "cuEventElapsedTime");
        if (ms < best)
            best = ms;
    }
    return (uint64_t)(kernel_us / 1000.0 / (double)best * (double)n) + 1;
}

void cuda_launch(uint64_t iterations)
{
    void *parameters[] = {&iterations};
    check(p_launch(function, 1, 1, 1, 1, 1, 1, 0, stream, parameters, NULL), "cuLaunchKernel");
}

void cuda_record(unsigned slot)
{
    check(p_record(event[slot % EVENTS], stream), "cuEventRecord");
}

void cuda_await(unsigned slot)
{
    check(p_await(event[slot % EVENTS]), "cuEventSynchronize");
}

void cuda_synchronize(void)
{
    check(p_drain(stream), "cuStreamSynchronize");
}

uint64_t cuda_allocate(uint64_t bytes)
{
    uint64_t at = 0;
    int code = p_alloc(&at, bytes);
    if (code && code != 2)
        check(code, "cuMemAlloc");
    return code ? 0 : at;
}

void cuda_free(uint64_t at)
{
    check(p_free(at), "cuMemFree");
}

void cuda_graph_make(uint64_t iterations, unsigned nodes)
{
    void *graph = NULL;
    check(p_begin_capture(stream, 2), "cuStreamBeginCapture");
    for (unsigned i = 0; i < nodes; i++)
        cuda_launch(iterations);
    check(p_end_capture(stream, &graph), "cuStreamEndCapture");
    check(p_instantiate(&exec, graph, 0), "cuGraphInstantiate");
}

void cuda_graph_launch(void)
{
    check(p_graph_launch(exec, stream), "cuGraphLaunch");
}

struct cuda_handle cuda_share(uint64_t at)
{
    struct cuda_handle handle;
    int (*share)(struct cuda_handle *, uint64_t);
    *(void **)&share = need(driver, "cuIpcGetMemHandle");
    check(share(&handle, at), "cuIpcGetMemHandle");
    return handle;
}

uint64_t cuda_join(struct cuda_handle handle)
{
    uint64_t at = 0;
    int (*join)(uint64_t *, struct cuda_handle, unsigned);
    *(void **)&join = need(driver, "cuIpcOpenMemHandle_v2");
    int code = join(&at, handle, 1);
    if (code && code != 1 && code != 101) /* invalid value or device: of a card that is not ours */
        check(code, "cuIpcOpenMemHandle");
    return code ? 0 : at;
}

uint64_t cuda_register(void *host, size_t bytes)
{
    uint64_t at = 0;
    int (*enter)(void *, size_t, unsigned), (*where)(uint64_t *, void *, unsigned);
    *(void **)&enter = need(driver, "cuMemHostRegister_v2");
    *(void **)&where = need(driver, "cuMemHostGetDevicePointer_v2");
    check(enter(host, bytes, 2), "cuMemHostRegister"); /* CU_MEMHOSTREGISTER_DEVICEMAP */
    check(where(&at, host, 0), "cuMemHostGetDevicePointer");
    return at;
}

void cuda_leave(uint64_t at)
{
    int (*leave)(uint64_t);
    *(void **)&leave = need(driver, "cuIpcCloseMemHandle");
    check(leave(at), "cuIpcCloseMemHandle");
}

void cuda_fill(uint64_t at, uint32_t value, size_t n)
{
    int (*fill)(uint64_t, unsigned, size_t, void *);
    *(void **)&fill = need(driver, "cuMemsetD32Async");
    check(fill(at, value, n, stream), "cuMemsetD32Async");
    cuda_synchronize();
}

void cuda_spin_make(bool collective)
{
    void *with_spins = NULL;
    int (*load)(void **, const void *), (*find)(void **, void *, const char *);
    *(void **)&load = need(driver, "cuModuleLoadData");
    *(void **)&find = need(driver, "cuModuleGetFunction");
    check(load(&with_spins, SPIN_PTX), "cuModuleLoadData");
    check(find(&spin, with_spins, collective ? "ncclFlexaiSpin" : "flexai_spin"), "cuModuleGetFunction");
}

void cuda_spin(uint64_t peer, uint64_t own, uint32_t turn, uint64_t iterations)
{
    void *parameters[] = {&peer, &own, &turn, &iterations};
    check(p_launch(spin, 1, 1, 1, 1, 1, 1, 0, stream, parameters, NULL), "cuLaunchKernel");
}
