/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory of graphs: the driver backs the allocation nodes of an executable graph at the latest when it is launched, and
 * may let graphs share it. Each executable graph is charged for its nodes from instantiation to its end: never too
 * little.
 */
#include "glibc.h"

#include <stdlib.h>

#include "charge.h"
#include "pools.h"

FX_EXPORT CUresult cuGraphInstantiate(CUgraphExec *exec, CUgraph graph, void *node, char *log, size_t n_log);
FX_EXPORT CUresult cuGraphInstantiate_v2(CUgraphExec *exec, CUgraph graph, void *node, char *log, size_t n_log);
FX_EXPORT CUresult cuGraphInstantiateWithFlags(CUgraphExec *exec, CUgraph graph, unsigned long long flags);
FX_EXPORT CUresult cuGraphInstantiateWithParams(CUgraphExec *exec, CUgraph graph, void *params);
FX_EXPORT CUresult cuGraphInstantiateWithParams_ptsz(CUgraphExec *exec, CUgraph graph, void *params);
FX_EXPORT CUresult cuGraphExecDestroy(CUgraphExec exec);
FX_EXPORT CUresult cuDeviceGraphMemTrim(CUdevice device);

#define BLOCK (2ull << 20)

/* By card: bytes of the allocation nodes of executable graphs, and what is charged for graphs. Under the table's lock. */
static uint64_t planned[FX_MAX_DEVICES], charged[FX_MAX_DEVICES];

void fx_graphs_forget(void)
{
    for (int card = 0; card < FX_MAX_DEVICES; card++)
        planned[card] = charged[card] = 0;
}

/* What graphs hold, or may come to hold: the driver keeps what ended graphs had until it is trimmed. */
static uint64_t wanted(int card, uint64_t more)
{
    uint64_t reserved = 0, most = planned[card] + more;
    if (most || charged[card])
        FX_REAL(cuDeviceGetGraphMemAttribute, CUresult (*)(CUdevice, int, void *))(
            fx.ordinal_of[card], CU_GRAPH_MEM_ATTR_RESERVED_CURRENT, &reserved);
    return reserved > most ? reserved : most;
}

static bool settle(int card)
{
    uint64_t want = wanted(card, 0), was = charged[card];
    charged[card] = want;
    if (want > was)
        fx_take_fact(card, want - was);
    else
        fx_give(card, was - want);
    return want < was;
}

bool fx_graphs_settle(int card)
{
    bool gave = false;
    for (int each = 0; each < (int)fx.n_cards; each++)
        if ((card < 0 || each == card) && fx.ordinal_of[each] >= 0)
            gave |= settle(each);
    return gave;
}

void fx_graphs_trim(int card)
{
    if (__atomic_load_n(&charged[card], __ATOMIC_RELAXED))
        FX_REAL(cuDeviceGraphMemTrim, CUresult (*)(CUdevice))(fx.ordinal_of[card]);
}

CUresult cuDeviceGraphMemTrim(CUdevice device)
{
    CUresult rc = FX_REAL(cuDeviceGraphMemTrim, CUresult (*)(CUdevice))(device);
    int card = fx_card_of(device);
    if (card >= 0) {
        fx_table_lock();
        settle(card);
        fx_table_unlock();
    }
    return rc;
}

/* Bytes of the allocation nodes of a graph and of the graphs inside it, by card. */
static void count_nodes(CUgraph graph, uint64_t bytes[FX_MAX_DEVICES], int depth)
{
    size_t n = 0;
    typedef CUresult (*get_nodes)(CUgraph, void **, size_t *);
    if (depth > 32 || FX_REAL(cuGraphGetNodes, get_nodes)(graph, NULL, &n) != CUDA_SUCCESS || n == 0)
        return;
    void **nodes = calloc(n, sizeof *nodes);
    if (!nodes || FX_REAL(cuGraphGetNodes, get_nodes)(graph, nodes, &n) != CUDA_SUCCESS)
        n = 0;
    for (size_t i = 0; i < n; i++) {
        int type = -1;
        CUgraph inner;
        struct cu_alloc_node params;
        FX_REAL(cuGraphNodeGetType, CUresult (*)(void *, int *))(nodes[i], &type);
        if (type == CU_GRAPH_NODE_GRAPH &&
            FX_REAL(cuGraphChildGraphNodeGetGraph, CUresult (*)(void *, CUgraph *))(nodes[i], &inner) == CUDA_SUCCESS)
            count_nodes(inner, bytes, depth + 1);
        if (type == CU_GRAPH_NODE_MEM_ALLOC &&
            FX_REAL(cuGraphMemAllocNodeGetParams, CUresult (*)(void *, struct cu_alloc_node *))(nodes[i], &params) ==
                CUDA_SUCCESS &&
            params.pool.location.type == CU_MEM_LOCATION_DEVICE && fx_card_of(params.pool.location.id) >= 0)
            bytes[fx_card_of(params.pool.location.id)] += (params.bytes + BLOCK - 1) / BLOCK * BLOCK;
    }
    free(nodes);
}

struct charge {
    uint64_t bytes[FX_MAX_DEVICES];
    bool any;
};

static bool take(int card, uint64_t bytes)
{
    bool granted = false;
    for (int tries = 0; tries < 2 && !granted; tries++) {
        fx_table_lock();
        uint64_t want = wanted(card, bytes), more = want > charged[card] ? want - charged[card] : 0;
        granted = fx_take(card, more);
        if (granted) {
            planned[card] += bytes;
            charged[card] += more;
        }
        fx_table_unlock();
        if (!granted && tries == 0) {
            if (!fx_take_hard(card, more))
                return false;
            fx_give(card, more); /* there is room now: again, by the book */
        }
    }
    return granted;
}

static void drop(int card, uint64_t bytes)
{
    fx_table_lock();
    planned[card] -= bytes < planned[card] ? bytes : planned[card];
    settle(card);
    fx_table_unlock();
}

static bool begin(struct charge *charge, CUgraph graph)
{
    *charge = (struct charge){{0}, false};
    if (!fx.attached)
        return true;
    count_nodes(graph, charge->bytes, 0);
    for (int card = 0; card < FX_MAX_DEVICES; card++)
        charge->any |= charge->bytes[card] != 0;
    if (!charge->any)
        return true;
    fx_enter();
    for (int card = 0; card < FX_MAX_DEVICES; card++) {
        if (!charge->bytes[card] || take(card, charge->bytes[card]))
            continue;
        while (--card >= 0)
            if (charge->bytes[card])
                drop(card, charge->bytes[card]);
        fx_leave(false);
        return false;
    }
    return true;
}

/* An executable graph on several cards has an entry for each. */
static uint64_t key_of(CUgraphExec exec, int card)
{
    return (uint64_t)exec | (uint64_t)(card + 1) << 56;
}

static CUresult end(const struct charge *charge, CUresult rc, const CUgraphExec *exec)
{
    if (!charge->any)
        return rc;
    for (int card = 0; card < FX_MAX_DEVICES; card++) {
        if (!charge->bytes[card])
            continue;
        if (rc != CUDA_SUCCESS) {
            drop(card, charge->bytes[card]);
            continue;
        }
        fx_table_lock();
        struct fx_entry *entry = fx_table_put(FX_KIND_EXEC, key_of(*exec, card), card, 0);
        if (entry)
            entry->other = charge->bytes[card];
        fx_table_unlock();
    }
    fx_leave(true);
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
    struct fx_entry gone[FX_MAX_DEVICES];
    int n = 0;
    if (fx.attached) {
        fx_enter();
        fx_table_lock();
        for (int card = 0; card < (int)fx.n_cards; card++)
            n += fx_table_take(FX_KIND_EXEC, key_of(exec, card), &gone[n]);
        fx_table_unlock();
    }
    CUresult rc = FX_REAL(cuGraphExecDestroy, CUresult (*)(CUgraphExec))(exec);
    for (int i = 0; i < n && rc == CUDA_SUCCESS; i++)
        drop(gone[i].card, gone[i].other);
    if (fx.attached)
        fx_leave(n > 0);
    return rc;
}
