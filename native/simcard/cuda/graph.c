/* SPDX-License-Identifier: Apache-2.0
 * Graphs: a list of the work captured or added; it runs in the order in which it was put together.
 */
#include <stdlib.h>
#include <string.h>
#include "sim.h"

#define OTHER_KERNEL_NS 10000

/* CUDA_KERNEL_NODE_PARAMS_v2 (12.0); v1 is its beginning */
struct kernel_node {
    CUfunction function;
    unsigned grid[3], block[3], shared_bytes;
    void **parameters, **extra;
};

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

void sim_graph_free(struct sim_graph *g)
{
    while (g->first) {
        struct sim_node *gone = g->first;
        g->first = gone->next;
        free(gone);
    }
    free(g);
}

CUresult sim_graph_add(struct sim_graph *g, const struct sm_entry *entry, struct sim_event *event, CUgraphNode *node)
{
    struct sim_node *n = calloc(1, sizeof *n);
    if (!n)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *n = (struct sim_node){NULL, entry->op, entry->amount, entry->flags, entry->n_kernels, event};
    *g->last = n;
    g->last = &n->next;
    g->n++;
    if (node)
        *node = n;
    return CUDA_SUCCESS;
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

SIM_API CUresult cuGraphAddKernelNode_v2(CUgraphNode *node, CUgraph graph, const CUgraphNode *dependencies, size_t n,
                                         const struct kernel_node *p);
SIM_API CUresult cuGraphAddKernelNode_v2(CUgraphNode *node, CUgraph graph, const CUgraphNode *dependencies, size_t n,
                                         const struct kernel_node *p)
{
    (void)dependencies, (void)n;
    if (!graph || !p || !p->function)
        return CUDA_ERROR_INVALID_VALUE;
    struct sm_entry work = {.op = SM_OP_WORK, .amount = OTHER_KERNEL_NS, .n_kernels = 1};
    if (p->function->is_work && p->parameters)
        memcpy(&work.amount, p->parameters[0], sizeof work.amount);
    return sim_graph_add(graph, &work, NULL, node);
}

SIM_API CUresult cuGraphAddKernelNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *dependencies, size_t n,
                                      const struct kernel_node *p);
SIM_API CUresult cuGraphAddKernelNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *dependencies, size_t n,
                                      const struct kernel_node *p)
{
    return cuGraphAddKernelNode_v2(node, graph, dependencies, n, p);
}

SIM_API CUresult cuGraphAddEmptyNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *dependencies, size_t n);
SIM_API CUresult cuGraphAddEmptyNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *dependencies, size_t n)
{
    (void)dependencies, (void)n;
    struct sm_entry nothing = {.op = SM_OP_NOP};
    return graph ? sim_graph_add(graph, &nothing, NULL, node) : CUDA_ERROR_INVALID_VALUE;
}

SIM_API CUresult cuGraphGetNodes(CUgraph graph, CUgraphNode *nodes, size_t *n);
SIM_API CUresult cuGraphGetNodes(CUgraph graph, CUgraphNode *nodes, size_t *n)
{
    if (!graph || !n)
        return CUDA_ERROR_INVALID_VALUE;
    size_t i = 0;
    for (struct sim_node *each = graph->first; nodes && each && i < *n; each = each->next)
        nodes[i++] = each;
    *n = nodes ? i : graph->n;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuGraphNodeGetType(CUgraphNode node, int *type);
SIM_API CUresult cuGraphNodeGetType(CUgraphNode node, int *type)
{
    if (!node || !type)
        return CUDA_ERROR_INVALID_VALUE;
    *type = node->op == SM_OP_WORK ? 0 : node->op == SM_OP_COPY ? 1 : 5; /* kernel, memcpy, empty */
    return CUDA_SUCCESS;
}

SIM_API CUresult cuGraphInstantiateWithFlags(CUgraphExec *exec, CUgraph graph, unsigned long long flags);
SIM_API CUresult cuGraphInstantiateWithFlags(CUgraphExec *exec, CUgraph graph, unsigned long long flags)
{
    (void)flags;
    struct sim_graph *copy = graph && exec ? sim_graph_new() : NULL;
    if (!copy)
        return graph && exec ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_ERROR_INVALID_VALUE;
    for (struct sim_node *each = graph->first; each; each = each->next) {
        struct sm_entry entry = {
            .op = each->op, .amount = each->amount, .flags = each->flags, .n_kernels = each->n_kernels};
        CUresult error = sim_graph_add(copy, &entry, NULL, NULL);
        if (error) {
            sim_graph_free(copy);
            return error;
        }
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

SIM_API CUresult cuGraphLaunch(CUgraphExec exec, CUstream stream);
SIM_API CUresult cuGraphLaunch(CUgraphExec exec, CUstream stream)
{
    struct sim_stream *s = sim_stream(stream);
    if (!exec || !s)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult error = CUDA_SUCCESS;
    for (struct sim_node *each = exec->first; each && !error; each = each->next) {
        struct sm_entry entry = {
            .op = each->op, .amount = each->amount, .flags = each->flags, .n_kernels = each->n_kernels};
        error = sim_push(s, &entry, NULL);
    }
    return error;
}
