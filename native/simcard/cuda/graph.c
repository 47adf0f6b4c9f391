/* SPDX-License-Identifier: Apache-2.0
 * Graphs: a list of the work captured or added; it runs in the order in which it was put together.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "sim.h"

CUresult cuEventRecordWithFlags(CUevent event, CUstream stream, unsigned flags);
CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned flags);

struct sim_graph *sim_graph_new(void)
{
    static _Atomic uint64_t ids;
    struct sim_graph *g = calloc(1, sizeof *g);
    if (g) {
        g->last = &g->first;
        g->id = ++ids;
    }
    return g;
}

/* Memory of ALLOC nodes: used from the first launch of an executable graph to its end, reserved until it is trimmed. */
static struct { uint64_t used, used_high, reserved, reserved_high; } memory[SIM_MAX_CARDS];
static pthread_mutex_t memory_lock = PTHREAD_MUTEX_INITIALIZER;

static void trim(int card)
{
    sim_give(card, memory[card].reserved - memory[card].used);
    memory[card].reserved = memory[card].used;
}

static void give_back(struct sim_graph *g, const struct sim_node *end)
{
    for (const struct sim_node *n = g->first; n != end; n = n->next)
        if (n->type == SIM_ALLOC) {
            madvise(n->to, n->bytes, MADV_DONTNEED);
            memory[n->card].used -= n->bytes;
        }
}

static CUresult use(int card, uint64_t bytes)
{
    uint64_t after = memory[card].used + bytes;
    if (after > memory[card].reserved) {
        CUresult error = sim_take(card, after - memory[card].reserved);
        if (error)
            return error;
        memory[card].reserved = after;
    }
    memory[card].used = after;
    memory[card].used_high = after > memory[card].used_high ? after : memory[card].used_high;
    if (memory[card].reserved > memory[card].reserved_high)
        memory[card].reserved_high = memory[card].reserved;
    return CUDA_SUCCESS;
}

static CUresult back(struct sim_graph *g)
{
    CUresult error = CUDA_SUCCESS;
    pthread_mutex_lock(&memory_lock);
    for (const struct sim_node *n = g->first; n && !error; n = n->next) {
        if (n->type == SIM_ALLOC && (error = use(n->card, n->bytes)))
            give_back(g, n);
    }
    g->backed = !error;
    pthread_mutex_unlock(&memory_lock);
    return error;
}

void sim_graph_free(struct sim_graph *g)
{
    if (g->backed) {
        pthread_mutex_lock(&memory_lock);
        give_back(g, NULL);
        pthread_mutex_unlock(&memory_lock);
    }
    while (g->first) {
        struct sim_node *gone = g->first;
        g->first = gone->next;
        if (gone->child)
            sim_graph_free(gone->child);
        free(gone);
    }
    free(g);
}

CUresult sim_graph_add(struct sim_graph *g, const struct sim_node *like, CUgraphNode *node)
{
    struct sim_node *n = calloc(1, sizeof *n);
    if (!n)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *n = *like;
    n->next = NULL;
    *g->last = n;
    g->last = &n->next;
    g->n++;
    if (node)
        *node = n;
    return CUDA_SUCCESS;
}

/* Append copies of the nodes; flat: those of child graphs in their place. */
CUresult sim_graph_append(struct sim_graph *to, const struct sim_graph *from, bool flat)
{
    CUresult error = CUDA_SUCCESS;
    for (const struct sim_node *each = from->first; each && !error; each = each->next) {
        if (flat && each->child) {
            error = sim_graph_append(to, each->child, true);
            continue;
        }
        struct sim_node copy = *each;
        if (copy.child) {
            copy.child = sim_graph_new();
            error = copy.child ? sim_graph_append(copy.child, each->child, false) : CUDA_ERROR_OUT_OF_MEMORY;
        }
        if (!error)
            error = sim_graph_add(to, &copy, NULL);
        if (error && copy.child)
            sim_graph_free(copy.child);
    }
    return error;
}

/* Its address is the graph's for good; pages come when something is written. */
CUresult sim_graph_alloc(struct sim_graph *g, int card, CUdeviceptr *at, size_t bytes, CUgraphNode *node)
{
    if (!at || !bytes)
        return CUDA_ERROR_INVALID_VALUE;
    void *pages = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (pages == MAP_FAILED)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *at = (CUdeviceptr)(uintptr_t)pages;
    return sim_graph_add(g, &(struct sim_node){.type = SIM_ALLOC, .card = card, .to = pages, .bytes = bytes}, node);
}

SIM_API CUresult cuGraphCreate(CUgraph *graph, unsigned flags);
SIM_API CUresult cuGraphCreate(CUgraph *graph, unsigned flags)
{
    if (flags || !graph)
        return CUDA_ERROR_INVALID_VALUE;
    *graph = sim_graph_new();
    return *graph ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

SIM_API CUresult cuGraphDestroy(CUgraph graph);
SIM_API CUresult cuGraphDestroy(CUgraph graph)
{
    if (!graph)
        return CUDA_ERROR_INVALID_VALUE;
    sim_graph_free(graph);
    return CUDA_SUCCESS;
}

SIM_API CUresult cuGraphInstantiateWithFlags(CUgraphExec *exec, CUgraph graph, unsigned long long flags);
SIM_API CUresult cuGraphInstantiateWithFlags(CUgraphExec *exec, CUgraph graph, unsigned long long flags)
{
    (void)flags;
    struct sim_graph *copy = graph && exec ? sim_graph_new() : NULL;
    if (!copy)
        return graph && exec ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_ERROR_INVALID_VALUE;
    CUresult error = sim_graph_append(copy, graph, true);
    if (error) {
        sim_graph_free(copy);
        return error;
    }
    *exec = copy;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuGraphInstantiate(CUgraphExec *exec, CUgraph graph, unsigned long long flags);
SIM_API CUresult cuGraphInstantiate(CUgraphExec *exec, CUgraph graph, unsigned long long flags)
{
    return cuGraphInstantiateWithFlags(exec, graph, flags);
}

SIM_API CUresult cuGraphInstantiate_v2(CUgraphExec *exec, CUgraph graph, CUgraphNode *node, char *log, size_t n);
SIM_API CUresult cuGraphInstantiate_v2(CUgraphExec *exec, CUgraph graph, CUgraphNode *node, char *log, size_t n)
{
    (void)node, (void)log, (void)n;
    return cuGraphInstantiateWithFlags(exec, graph, 0);
}

/* CUDA_GRAPH_INSTANTIATE_PARAMS */
struct instantiate { unsigned long long flags; CUstream upload; CUgraphNode failed; int result; };
SIM_API CUresult cuGraphInstantiateWithParams(CUgraphExec *exec, CUgraph graph, struct instantiate *p);
SIM_API CUresult cuGraphInstantiateWithParams(CUgraphExec *exec, CUgraph graph, struct instantiate *p)
{
    if (!p)
        return CUDA_ERROR_INVALID_VALUE;
    p->failed = NULL;
    p->result = 0;
    return cuGraphInstantiateWithFlags(exec, graph, p->flags);
}

SIM_API CUresult cuGraphExecDestroy(CUgraphExec exec);
SIM_API CUresult cuGraphExecDestroy(CUgraphExec exec)
{
    return cuGraphDestroy(exec);
}

SIM_API CUresult cuGraphUpload(CUgraphExec exec, CUstream stream);
SIM_API CUresult cuGraphUpload(CUgraphExec exec, CUstream stream)
{
    (void)stream;
    return exec ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

static CUresult run(const struct sim_node *n, struct sim_stream *s)
{
    struct sm_entry entry = {.op = SM_OP_NOP};
    switch (n->type) {
    case SIM_KERNEL:
        entry = (struct sm_entry){.op = SM_OP_WORK, .amount = n->kernel_ns, .n_kernels = 1};
        break;
    case SIM_COPY:
        return sim_copy(s, n->to, n->from, n->bytes, n->way, false);
    case SIM_FILL:
        sim_write(n->to, n->value, n->width, n->bytes);
        entry = (struct sm_entry){.op = SM_OP_COPY, .amount = n->bytes, .flags = SM_COPY_D2D};
        break;
    case SIM_HOST:
        return sim_host(s, n->function, n->data);
    case SIM_WAIT:
        return cuStreamWaitEvent(s, n->event, 0);
    case SIM_RECORD:
        return cuEventRecordWithFlags(n->event, s, 0);
    case SIM_CHILD:
    case SIM_EMPTY:
    case SIM_ALLOC:
    case SIM_FREE:
        return CUDA_SUCCESS;
    }
    return sim_push(s, &entry, NULL);
}

SIM_API CUresult cuGraphLaunch(CUgraphExec exec, CUstream stream);
SIM_API CUresult cuGraphLaunch(CUgraphExec exec, CUstream stream)
{
    struct sim_stream *s = sim_stream(stream);
    if (!exec || !s)
        return CUDA_ERROR_INVALID_VALUE;
    if (s->capture) {
        struct sim_node child = {.type = SIM_CHILD, .child = sim_graph_new()};
        CUresult failed = child.child ? sim_graph_append(child.child, exec, false) : CUDA_ERROR_OUT_OF_MEMORY;
        return failed ? failed : sim_graph_add(s->capture, &child, NULL);
    }
    CUresult error = exec->backed ? CUDA_SUCCESS : back(exec);
    for (const struct sim_node *each = exec->first; each && !error; each = each->next)
        error = run(each, s);
    return error;
}

/* CUgraphMem_attribute: used now, most used, reserved now, most reserved. */
SIM_API CUresult cuDeviceGetGraphMemAttribute(CUdevice device, int attribute, void *value);
SIM_API CUresult cuDeviceGetGraphMemAttribute(CUdevice device, int attribute, void *value)
{
    const struct session *s = sim_session();
    if (!s || !value || device < 0 || device >= s->n_visible || attribute < 0 || attribute > 3)
        return s ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_NOT_INITIALIZED;
    int card = s->visible[device];
    pthread_mutex_lock(&memory_lock);
    const uint64_t figures[] = {memory[card].used, memory[card].used_high, memory[card].reserved,
                                memory[card].reserved_high};
    pthread_mutex_unlock(&memory_lock);
    memcpy(value, &figures[attribute], sizeof figures[0]);
    return CUDA_SUCCESS;
}

SIM_API CUresult cuDeviceGraphMemTrim(CUdevice device);
SIM_API CUresult cuDeviceGraphMemTrim(CUdevice device)
{
    const struct session *s = sim_session();
    if (!s || device < 0 || device >= s->n_visible)
        return s ? CUDA_ERROR_INVALID_DEVICE : CUDA_ERROR_NOT_INITIALIZED;
    pthread_mutex_lock(&memory_lock);
    trim(s->visible[device]);
    pthread_mutex_unlock(&memory_lock);
    return CUDA_SUCCESS;
}
