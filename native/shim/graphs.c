/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory of graphs: the driver backs the allocation nodes of an executable graph at the latest when it is launched, and
 * may let graphs share it. Each executable graph is charged for its nodes from instantiation to its end: never too
 * little.
 */
#include "glibc.h"

#include <stdlib.h>

#include "charge.h"

FX_EXPORT CUresult cuGraphInstantiate(CUgraphExec *exec, CUgraph graph, void *node, char *log, size_t n_log);
FX_EXPORT CUresult cuGraphInstantiate_v2(CUgraphExec *exec, CUgraph graph, void *node, char *log, size_t n_log);
FX_EXPORT CUresult cuGraphInstantiateWithFlags(CUgraphExec *exec, CUgraph graph, unsigned long long flags);
FX_EXPORT CUresult cuGraphInstantiateWithParams(CUgraphExec *exec, CUgraph graph, void *params);
FX_EXPORT CUresult cuGraphInstantiateWithParams_ptsz(CUgraphExec *exec, CUgraph graph, void *params);
FX_EXPORT CUresult cuGraphExecDestroy(CUgraphExec exec);

#define BLOCK (2ull << 20)

/* Bytes of the allocation nodes of a graph and of the graphs inside it; the card of the last. */
static uint64_t graph_bytes(CUgraph graph, int *card, int depth)
{
    size_t n = 0;
    typedef CUresult (*get_nodes)(CUgraph, void **, size_t *);
    if (depth > 32 || FX_REAL(cuGraphGetNodes, get_nodes)(graph, NULL, &n) != CUDA_SUCCESS || n == 0)
        return 0;
    void **nodes = calloc(n, sizeof *nodes);
    uint64_t bytes = 0;
    if (!nodes || FX_REAL(cuGraphGetNodes, get_nodes)(graph, nodes, &n) != CUDA_SUCCESS)
        n = 0;
    for (size_t i = 0; i < n; i++) {
        int type = -1;
        CUgraph inner;
        struct cu_alloc_node params;
        FX_REAL(cuGraphNodeGetType, CUresult (*)(void *, int *))(nodes[i], &type);
        if (type == CU_GRAPH_NODE_GRAPH &&
            FX_REAL(cuGraphChildGraphNodeGetGraph, CUresult (*)(void *, CUgraph *))(nodes[i], &inner) == CUDA_SUCCESS)
            bytes += graph_bytes(inner, card, depth + 1);
        if (type == CU_GRAPH_NODE_MEM_ALLOC &&
            FX_REAL(cuGraphMemAllocNodeGetParams, CUresult (*)(void *, struct cu_alloc_node *))(nodes[i], &params) ==
                CUDA_SUCCESS &&
            params.pool.location.type == CU_MEM_LOCATION_DEVICE) {
            *card = fx_card_of(params.pool.location.id);
            bytes += (params.bytes + BLOCK - 1) / BLOCK * BLOCK;
        }
    }
    free(nodes);
    return bytes;
}

struct charge {
    uint64_t bytes;
    int card;
};

static bool begin(struct charge *charge, CUgraph graph)
{
    *charge = (struct charge){0, -1};
    if (!fx.attached)
        return true;
    charge->bytes = graph_bytes(graph, &charge->card, 0);
    return fx_take_hard(charge->card, charge->bytes);
}

static CUresult end(const struct charge *charge, CUresult rc, const CUgraphExec *exec)
{
    if (charge->bytes && charge->card >= 0) {
        if (rc == CUDA_SUCCESS) {
            fx_table_lock();
            fx_table_put(FX_KIND_EXEC, (uint64_t)*exec, charge->card, charge->bytes);
            fx_table_unlock();
        } else {
            fx_give(charge->card, charge->bytes);
        }
    }
    return rc;
}

typedef CUresult (*with_log)(CUgraphExec *, CUgraph, void *, char *, size_t);
typedef CUresult (*with_flags)(CUgraphExec *, CUgraph, unsigned long long);
typedef CUresult (*with_params)(CUgraphExec *, CUgraph, void *);

CUresult cuGraphInstantiate(CUgraphExec *exec, CUgraph graph, void *node, char *log, size_t n_log)
{
    struct charge charge;
    if (!begin(&charge, graph))
        return CUDA_ERROR_OUT_OF_MEMORY;
    return end(&charge, FX_REAL(cuGraphInstantiate, with_log)(exec, graph, node, log, n_log), exec);
}

CUresult cuGraphInstantiate_v2(CUgraphExec *exec, CUgraph graph, void *node, char *log, size_t n_log)
{
    struct charge charge;
    if (!begin(&charge, graph))
        return CUDA_ERROR_OUT_OF_MEMORY;
    return end(&charge, FX_REAL(cuGraphInstantiate_v2, with_log)(exec, graph, node, log, n_log), exec);
}

CUresult cuGraphInstantiateWithFlags(CUgraphExec *exec, CUgraph graph, unsigned long long flags)
{
    struct charge charge;
    if (!begin(&charge, graph))
        return CUDA_ERROR_OUT_OF_MEMORY;
    return end(&charge, FX_REAL(cuGraphInstantiateWithFlags, with_flags)(exec, graph, flags), exec);
}

CUresult cuGraphInstantiateWithParams(CUgraphExec *exec, CUgraph graph, void *params)
{
    struct charge charge;
    if (!begin(&charge, graph))
        return CUDA_ERROR_OUT_OF_MEMORY;
    return end(&charge, FX_REAL(cuGraphInstantiateWithParams, with_params)(exec, graph, params), exec);
}

CUresult cuGraphInstantiateWithParams_ptsz(CUgraphExec *exec, CUgraph graph, void *params)
{
    struct charge charge;
    if (!begin(&charge, graph))
        return CUDA_ERROR_OUT_OF_MEMORY;
    return end(&charge, FX_REAL(cuGraphInstantiateWithParams_ptsz, with_params)(exec, graph, params), exec);
}

CUresult cuGraphExecDestroy(CUgraphExec exec)
{
    struct fx_entry entry;
    bool known = fx_free_begin(FX_KIND_EXEC, (uint64_t)exec, &entry);
    CUresult rc = FX_REAL(cuGraphExecDestroy, CUresult (*)(CUgraphExec))(exec);
    fx_free_end(known, rc, &entry);
    return rc;
}
