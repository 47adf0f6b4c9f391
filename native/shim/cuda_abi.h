/* SPDX-License-Identifier: Apache-2.0
 *
 * What the shim knows of the CUDA driver's binary interface: sizes and numbers, not names for people. Source: cuda.h of
 * CUDA 13.0; stable since the CUDA version noted.
 */
#ifndef FLEXAI_CUDA_ABI_H
#define FLEXAI_CUDA_ABI_H
#include <stddef.h>
#include <stdint.h>

typedef int CUresult;
typedef int CUdevice;
typedef uint64_t CUdeviceptr;
typedef uint32_t CUdeviceptr_v1; /* before CUDA 3.2 */
typedef uint64_t CUmemHandle;    /* CUmemGenericAllocationHandle */
typedef struct CUctx_opaque *CUcontext;
typedef struct CUstream_opaque *CUstream;
typedef struct CUevent_opaque *CUevent;
typedef struct CUfunc_opaque *CUfunction;
typedef struct CUarray_opaque *CUarray;
typedef struct CUmip_opaque *CUmipmappedArray;
typedef struct CUpool_opaque *CUmemoryPool;
typedef struct CUgraph_opaque *CUgraph;
typedef struct CUexec_opaque *CUgraphExec;
typedef struct CUmod_opaque *CUmodule;

enum {
    CUDA_SUCCESS = 0,
    CUDA_ERROR_INVALID_VALUE = 1,
    CUDA_ERROR_OUT_OF_MEMORY = 2,
    CUDA_ERROR_NOT_INITIALIZED = 3,
    CUDA_ERROR_NO_DEVICE = 100,
    CUDA_ERROR_INVALID_DEVICE = 101,
    CUDA_ERROR_INVALID_CONTEXT = 201,
    CUDA_ERROR_ILLEGAL_STATE = 401,
    CUDA_ERROR_NOT_FOUND = 500,
    CUDA_ERROR_NOT_READY = 600,
    CUDA_ERROR_NOT_SUPPORTED = 801,
    CUDA_ERROR_SYSTEM_NOT_READY = 802,
    CUDA_ERROR_STREAM_CAPTURE_UNMATCHED = 903,
    CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD = 908,
};

enum { CU_MEM_LOCATION_DEVICE = 1 };
enum { CU_MEM_ALLOCATION_MANAGED = 2 }; /* 13.0 */
enum { CU_MEMPOOL_ATTR_RESERVED_CURRENT = 5, CU_MEMPOOL_ATTR_RESERVED_HIGH = 6, CU_MEMPOOL_ATTR_USED_CURRENT = 7 };
enum { CU_GRAPH_MEM_ATTR_RESERVED_CURRENT = 2 };
enum { CU_GRAPH_NODE_GRAPH = 4, CU_GRAPH_NODE_MEM_ALLOC = 10 };
enum { CU_GET_PROC_ADDRESS_PER_THREAD = 2 };
enum { CU_LIMIT_STACK_SIZE = 0, CU_LIMIT_PRINTF_FIFO_SIZE = 1, CU_LIMIT_MALLOC_HEAP_SIZE = 2 };
enum { CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT = 16, CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR = 39 };
enum { CU_EVENT_BLOCKING_SYNC = 1, CU_EVENT_DISABLE_TIMING = 2 };

/* CUDA_ARRAY_DESCRIPTOR_v2 and CUDA_ARRAY3D_DESCRIPTOR_v2 (3.2) */
struct cu_array_desc {
    size_t width, height;
    int format;
    unsigned channels;
};
struct cu_array3d_desc {
    size_t width, height, depth;
    int format;
    unsigned channels, flags;
};
enum { CU_ARRAY_SPARSE = 0x40, CU_ARRAY_DEFERRED = 0x80, CU_ARRAY_CUBEMAP = 4 };

/* CUmemAllocationProp (10.2) */
struct cu_mem_prop {
    int type;
    int handle_types;
    struct {
        int type, id;
    } location;
    void *win32;
    unsigned char flags[8];
};

/* CUmemPoolProps (11.2): allocation type, handle type, location, ... */
struct cu_pool_props {
    int type;
    int handle_types;
    struct {
        int type, id;
    } location;
    void *win32;
    size_t max_size;
    unsigned short usage;
    unsigned char reserved[54];
};

/* CUDA_MEM_ALLOC_NODE_PARAMS (11.4); v2 differs only behind these */
struct cu_alloc_node {
    struct cu_pool_props pool;
    const void *access;
    size_t n_access;
    size_t bytes;
    CUdeviceptr at;
};

#endif
