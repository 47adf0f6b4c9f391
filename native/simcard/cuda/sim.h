/* SPDX-License-Identifier: Apache-2.0
 * The simulated driver: the CUDA driver API's functions that it implements, over a session with flexai-simcard. Types and
 * numbers are those of cuda.h 13.0, declared here by size.
 *
 * Device memory is address space of this process without pages until touched, so that copies and fills do what they say;
 * kernels take time and compute nothing.
 */
#ifndef FLEXAI_SIM_H
#define FLEXAI_SIM_H
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include "session.h"

#define SIM_API __attribute__((visibility("default")))
#define CUDA_VERSION 13000

typedef int CUresult;
typedef int CUdevice;
typedef uint64_t CUdeviceptr;
typedef struct sim_context *CUcontext;
typedef struct sim_stream *CUstream;
typedef struct sim_event *CUevent;
typedef struct sim_module *CUmodule;
typedef struct sim_function *CUfunction;
typedef struct sim_graph *CUgraph;
typedef struct sim_node *CUgraphNode;
typedef struct sim_graph *CUgraphExec;

enum {
    CUDA_SUCCESS = 0, CUDA_ERROR_INVALID_VALUE = 1, CUDA_ERROR_OUT_OF_MEMORY = 2, CUDA_ERROR_NOT_INITIALIZED = 3,
    CUDA_ERROR_NO_DEVICE = 100, CUDA_ERROR_INVALID_DEVICE = 101, CUDA_ERROR_INVALID_CONTEXT = 201,
    CUDA_ERROR_INVALID_HANDLE = 400, CUDA_ERROR_ILLEGAL_STATE = 401, CUDA_ERROR_NOT_FOUND = 500,
    CUDA_ERROR_NOT_READY = 600, CUDA_ERROR_CONTEXT_IS_DESTROYED = 709, CUDA_ERROR_LAUNCH_FAILED = 719,
    CUDA_ERROR_NOT_SUPPORTED = 801, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED = 900,
    CUDA_ERROR_STREAM_CAPTURE_INVALIDATED = 901, CUDA_ERROR_UNKNOWN = 999,
};
enum { CU_STREAM_NON_BLOCKING = 1 };
#define SIM_N_LIMITS 16
#define CU_STREAM_LEGACY ((CUstream)1)
#define CU_STREAM_PER_THREAD ((CUstream)2)

/* CUgraphNodeType */
enum sim_node_type {
    SIM_KERNEL = 0, SIM_COPY = 1, SIM_FILL = 2, SIM_HOST = 3, SIM_CHILD = 4, SIM_EMPTY = 5, SIM_WAIT = 6, SIM_RECORD = 7,
    SIM_ALLOC = 10, SIM_FREE = 11,
};

struct sim_node {
    struct sim_node *next;
    enum sim_node_type type;
    uint64_t kernel_ns;              /* KERNEL */
    char *to;                        /* COPY; FILL: value in `from`'s place */
    const char *from;
    uint64_t value, width, bytes;    /* FILL: elements of `width` bytes; ALLOC: bytes at `to` */
    uint32_t way;                    /* COPY: enum sm_copy */
    void (*function)(void *);        /* HOST */
    void *data;
    struct sim_event *event;         /* WAIT, RECORD */
    struct sim_graph *child;         /* CHILD: a copy of its own */
    int card;                        /* ALLOC */
};

struct sim_graph {
    struct sim_node *first, **last;
    size_t n;
    uint64_t id;
    struct sim_stream *origin; /* under capture: the stream that began it */
    bool backed;               /* executable: its ALLOC nodes' memory is taken */
};

struct sim_stream {
    struct sim_stream *next;   /* of the context */
    struct sim_context *context;
    pthread_mutex_t lock;
    struct sm_ring *ring;
    int index;
    unsigned flags;
    int priority;
    uint64_t seen_default;     /* how much of the context's default stream it has waited for */
    uint64_t default_saw;      /* how much of it the default stream has waited for */
    struct sim_graph *capture;
    bool invalidated;
};

struct sim_event {
    unsigned slot, flags;
    uint64_t value;            /* of the latest record; 0 = never recorded */
    int ring;
    uint64_t seq;
    uint64_t captured;         /* id of the graph under capture that it was last recorded into; 0 = none */
};

struct sim_context {
    struct sim_context *next;
    int ordinal, card;
    unsigned flags;
    uint64_t limit[SIM_N_LIMITS], limit_bytes[SIM_N_LIMITS]; /* as set, and what they take on the card */
    uint32_t id;               /* the card's name for it */
    int n_retained;            /* primary: retains */
    bool primary;
    pthread_mutex_t lock;
    struct sim_stream *streams;
    struct sim_stream legacy;
};

struct sim_function {
    struct sim_function *next;
    struct sim_module *module;
    char name[128];
    bool is_work;              /* flexai_work(u64 iterations): 1 ns each */
    bool is_spin;              /* flexai_spin, ncclFlexaiSpin: see spin.c */
};

struct sim_module {
    struct sim_function *functions;
    struct sim_module *next;   /* of all that take memory of a card */
    struct sim_context *context; /* whose memory it takes; NULL for a library that no context has used */
    uint64_t bytes;
};

const struct session *sim_session(void);
void sim_uuid_bytes(const char *text, unsigned char out[16]);
CUresult sim_error(int negative_errno);
/* Current context of this thread, or NULL; its primary one is never made silently. */
struct sim_context *sim_current(void);
struct sim_stream *sim_stream(CUstream stream);
CUresult sim_stream_open(struct sim_context *context, struct sim_stream *stream);
void sim_stream_close(struct sim_stream *stream);
/* Put work on a stream (or into the graph that it captures). `seq` may be NULL. */
CUresult sim_push(struct sim_stream *stream, const struct sm_entry *entry, uint64_t *seq);
CUresult sim_wait(int ring, uint64_t seq);
CUresult sim_drain(struct sim_stream *stream);
CUresult sim_drain_context(struct sim_context *context);
bool sim_done(int ring, uint64_t seq);
/* The stream's context, brought up to date; its sticky error if it has one. */
CUresult sim_sticky(const struct sim_stream *stream);
CUresult sim_copy(CUstream stream, void *to, const void *from, size_t bytes, uint32_t kind, bool synchronous);
CUresult sim_take(int card, uint64_t bytes);
/* From a pool, in stream order: given at once, taken back when the stream is there. */
struct sim_pool;
CUresult sim_alloc_async(CUdeviceptr *at, size_t bytes, CUstream stream, struct sim_pool *pool);
void sim_give(int card, uint64_t bytes);
CUresult sim_graph_add(struct sim_graph *graph, const struct sim_node *like, CUgraphNode *node);
CUresult sim_graph_alloc(struct sim_graph *graph, int card, CUdeviceptr *at, size_t bytes, CUgraphNode *node);
struct sim_graph *sim_graph_new(void);
CUresult sim_graph_append(struct sim_graph *to, const struct sim_graph *from, bool flat);
/* Wholly inside one mapping of virtual memory management. */
bool sim_mapped(CUdeviceptr at, uint64_t bytes);
CUresult cuMemGetAddressRange_v2(CUdeviceptr *base, size_t *bytes, CUdeviceptr address);
void sim_graph_free(struct sim_graph *graph);
/* A context ends: what its modules and arrays took is free. */
void sim_modules_forget(struct sim_context *context);
void sim_arrays_forget(struct sim_context *context);
/* Contents of a fill, as far as the simulated card writes them. */
void sim_write(char *to, uint64_t value, size_t width, size_t bytes);
/* Launch a kernel that waits for a peer: parameters as spin.c has them. */
CUresult sim_spin(struct sim_stream *stream, void **parameters);
/* Put host function on a stream that does not capture. */
CUresult sim_host(struct sim_stream *stream, void (*function)(void *), void *data);
void sim_memory_forget(struct sim_context *context);
/* A synchronisation: pools give back what is above their threshold. */
void sim_pools_settle(void);
#endif
