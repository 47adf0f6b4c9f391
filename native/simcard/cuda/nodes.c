/* SPDX-License-Identifier: Apache-2.0
 * Nodes of graphs that are built by hand. A graph runs in the order in which its nodes were added, which every order of
 * dependencies among nodes that exist already allows.
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
struct fill_node { CUdeviceptr at; size_t pitch; unsigned value, element; size_t width, height; };
struct host_node { void (*function)(void *); void *data; };
/* CUDA_MEM_ALLOC_NODE_PARAMS, with CUmemPoolProps before it */
struct alloc_node {
    int allocation_type, handle_types, location_type, location_id;
    void *security;
    size_t most;
    unsigned short usage;
    unsigned char reserved[54];
    const void *access;
    size_t n_access, bytes;
    CUdeviceptr at;
};
_Static_assert(sizeof(struct alloc_node) == 120, "CUDA_MEM_ALLOC_NODE_PARAMS");

static struct sim_node kernel(const struct kernel_node *p)
{
    struct sim_node n = {.type = SIM_KERNEL, .kernel_ns = OTHER_KERNEL_NS};
    if (p->function->is_work && p->parameters)
        memcpy(&n.kernel_ns, p->parameters[0], sizeof n.kernel_ns);
    return n;
}

static CUresult add(CUgraphNode *node, CUgraph graph, const struct sim_node *like)
{
    return node && graph ? sim_graph_add(graph, like, node) : CUDA_ERROR_INVALID_VALUE;
}

SIM_API CUresult cuGraphAddKernelNode_v2(CUgraphNode *node, CUgraph graph, const CUgraphNode *dependencies, size_t n,
                                         const struct kernel_node *p);
SIM_API CUresult cuGraphAddKernelNode_v2(CUgraphNode *node, CUgraph graph, const CUgraphNode *dependencies, size_t n,
                                         const struct kernel_node *p)
{
    (void)dependencies, (void)n;
    if (!p || !p->function)
        return CUDA_ERROR_INVALID_VALUE;
    struct sim_node like = kernel(p);
    return add(node, graph, &like);
}

SIM_API CUresult cuGraphAddKernelNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *dependencies, size_t n,
                                      const struct kernel_node *p);
SIM_API CUresult cuGraphAddKernelNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *dependencies, size_t n,
                                      const struct kernel_node *p)
{
    return cuGraphAddKernelNode_v2(node, graph, dependencies, n, p);
}

SIM_API CUresult cuGraphAddMemsetNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *dependencies, size_t n,
                                      const struct fill_node *p, CUcontext context);
SIM_API CUresult cuGraphAddMemsetNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *dependencies, size_t n,
                                      const struct fill_node *p, CUcontext context)
{
    (void)dependencies, (void)n, (void)context;
    if (!p || !p->width || (p->element != 1 && p->element != 2 && p->element != 4))
        return CUDA_ERROR_INVALID_VALUE;
    if (p->height > 1)
        return CUDA_ERROR_NOT_SUPPORTED;
    return add(node, graph, &(struct sim_node){.type = SIM_FILL, .to = (char *)(uintptr_t)p->at, .value = p->value,
                                               .width = p->element, .bytes = p->width * p->element});
}

SIM_API CUresult cuGraphAddHostNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *dependencies, size_t n,
                                    const struct host_node *p);
SIM_API CUresult cuGraphAddHostNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *dependencies, size_t n,
                                    const struct host_node *p)
{
    (void)dependencies, (void)n;
    if (!p || !p->function)
        return CUDA_ERROR_INVALID_VALUE;
    return add(node, graph, &(struct sim_node){.type = SIM_HOST, .function = p->function, .data = p->data});
}

SIM_API CUresult cuGraphAddEmptyNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *dependencies, size_t n);
SIM_API CUresult cuGraphAddEmptyNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *dependencies, size_t n)
{
    (void)dependencies, (void)n;
    return add(node, graph, &(struct sim_node){.type = SIM_EMPTY});
}

SIM_API CUresult cuGraphAddEventRecordNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *dependencies, size_t n,
                                           CUevent event);
SIM_API CUresult cuGraphAddEventRecordNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *dependencies, size_t n,
                                           CUevent event)
{
    (void)dependencies, (void)n;
    return event ? add(node, graph, &(struct sim_node){.type = SIM_RECORD, .event = event}) : CUDA_ERROR_INVALID_VALUE;
}

SIM_API CUresult cuGraphAddEventWaitNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *dependencies, size_t n,
                                         CUevent event);
SIM_API CUresult cuGraphAddEventWaitNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *dependencies, size_t n,
                                         CUevent event)
{
    (void)dependencies, (void)n;
    return event ? add(node, graph, &(struct sim_node){.type = SIM_WAIT, .event = event}) : CUDA_ERROR_INVALID_VALUE;
}

SIM_API CUresult cuGraphAddChildGraphNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *dependencies, size_t n,
                                          CUgraph child);
SIM_API CUresult cuGraphAddChildGraphNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *dependencies, size_t n,
                                          CUgraph child)
{
    (void)dependencies, (void)n;
    if (!node || !graph || !child)
        return CUDA_ERROR_INVALID_VALUE;
    struct sim_node like = {.type = SIM_CHILD, .child = sim_graph_new()};
    CUresult error = like.child ? sim_graph_append(like.child, child, false) : CUDA_ERROR_OUT_OF_MEMORY;
    if (!error)
        error = sim_graph_add(graph, &like, node);
    if (error && like.child)
        sim_graph_free(like.child);
    return error;
}

SIM_API CUresult cuGraphChildGraphNodeGetGraph(CUgraphNode node, CUgraph *graph);
SIM_API CUresult cuGraphChildGraphNodeGetGraph(CUgraphNode node, CUgraph *graph)
{
    if (!node || !graph || node->type != SIM_CHILD)
        return CUDA_ERROR_INVALID_VALUE;
    *graph = node->child;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuGraphAddMemAllocNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *dependencies, size_t n,
                                        struct alloc_node *p);
SIM_API CUresult cuGraphAddMemAllocNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *dependencies, size_t n,
                                        struct alloc_node *p)
{
    (void)dependencies, (void)n;
    const struct session *s = sim_session();
    if (!s || !node || !graph || !p || p->location_type != 1 || p->location_id < 0 || p->location_id >= s->n_visible)
        return s ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_NOT_INITIALIZED;
    return sim_graph_alloc(graph, s->visible[p->location_id], &p->at, p->bytes, node);
}

SIM_API CUresult cuGraphMemAllocNodeGetParams(CUgraphNode node, struct alloc_node *p);
SIM_API CUresult cuGraphMemAllocNodeGetParams(CUgraphNode node, struct alloc_node *p)
{
    const struct session *s = sim_session();
    if (!s || !node || !p || node->type != SIM_ALLOC)
        return CUDA_ERROR_INVALID_VALUE;
    *p = (struct alloc_node){.allocation_type = 1, .location_type = 1, .bytes = node->bytes,
                             .at = (CUdeviceptr)(uintptr_t)node->to};
    for (int i = 0; i < s->n_visible; i++)
        if (s->visible[i] == node->card)
            p->location_id = i;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuGraphAddMemFreeNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *dependencies, size_t n,
                                       CUdeviceptr at);
SIM_API CUresult cuGraphAddMemFreeNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *dependencies, size_t n,
                                       CUdeviceptr at)
{
    (void)dependencies, (void)n;
    return at ? add(node, graph, &(struct sim_node){.type = SIM_FREE, .to = (char *)(uintptr_t)at})
              : CUDA_ERROR_INVALID_VALUE;
}

SIM_API CUresult cuGraphMemFreeNodeGetParams(CUgraphNode node, CUdeviceptr *at);
SIM_API CUresult cuGraphMemFreeNodeGetParams(CUgraphNode node, CUdeviceptr *at)
{
    if (!node || !at || node->type != SIM_FREE)
        return CUDA_ERROR_INVALID_VALUE;
    *at = (CUdeviceptr)(uintptr_t)node->to;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuGraphClone(CUgraph *clone, CUgraph graph);
SIM_API CUresult cuGraphClone(CUgraph *clone, CUgraph graph)
{
    struct sim_graph *copy = clone && graph ? sim_graph_new() : NULL;
    if (!copy)
        return clone && graph ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_ERROR_INVALID_VALUE;
    CUresult error = sim_graph_append(copy, graph, false);
    if (error)
        sim_graph_free(copy);
    else
        *clone = copy;
    return error;
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
    *type = (int)node->type;
    return CUDA_SUCCESS;
}
