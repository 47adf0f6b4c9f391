/* SPDX-License-Identifier: Apache-2.0
 *
 * How many streams are being captured: while one is, nothing of ours waits for the card, for that spoils a capture.
 */
#include "glibc.h"
#include "charge.h"
#include "pools.h"

FX_EXPORT CUresult cuStreamBeginCapture(CUstream stream);
FX_EXPORT CUresult cuStreamBeginCapture_ptsz(CUstream stream);
FX_EXPORT CUresult cuStreamBeginCapture_v2(CUstream stream, int mode);
FX_EXPORT CUresult cuStreamBeginCapture_v2_ptsz(CUstream stream, int mode);
typedef CUresult (*to_graph)(CUstream, CUgraph, const void *, const void *, size_t, int);
FX_EXPORT CUresult cuStreamBeginCaptureToGraph(CUstream stream, CUgraph graph, const void *dependencies, const void *data,
                                               size_t n, int mode);
FX_EXPORT CUresult cuStreamBeginCaptureToGraph_ptsz(CUstream stream, CUgraph graph, const void *dependencies,
                                                    const void *data, size_t n, int mode);
typedef CUresult (*again)(CUstream, int, CUgraph, void *, void *);
FX_EXPORT CUresult cuStreamBeginRecaptureToGraph(CUstream stream, int mode, CUgraph graph, void *call, void *data);
FX_EXPORT CUresult cuStreamBeginRecaptureToGraph_ptsz(CUstream stream, int mode, CUgraph graph, void *call, void *data);
FX_EXPORT CUresult cuStreamBeginCaptureToCig(CUstream stream, void *params);
FX_EXPORT CUresult cuStreamBeginCaptureToCig_ptsz(CUstream stream, void *params);
FX_EXPORT CUresult cuStreamEndCaptureToCig(CUstream stream);
FX_EXPORT CUresult cuStreamEndCaptureToCig_ptsz(CUstream stream);
FX_EXPORT CUresult cuStreamEndCapture(CUstream stream, CUgraph *graph);
FX_EXPORT CUresult cuStreamEndCapture_ptsz(CUstream stream, CUgraph *graph);

static int n_capturing;

bool fx_capturing(void)
{
    return __atomic_load_n(&n_capturing, __ATOMIC_SEQ_CST) > 0;
}

/* Counted before the driver begins and until it has ended. */
static CUresult begun(CUresult rc)
{
    if (rc != CUDA_SUCCESS)
        __atomic_sub_fetch(&n_capturing, 1, __ATOMIC_SEQ_CST);
    return rc;
}

#define BEGIN(call)                                                                                                    \
    __atomic_add_fetch(&n_capturing, 1, __ATOMIC_SEQ_CST);                                                             \
    return begun(call)

CUresult cuStreamBeginCapture(CUstream stream)
{
    BEGIN(FX_REAL(cuStreamBeginCapture, CUresult (*)(CUstream))(stream));
}

CUresult cuStreamBeginCapture_ptsz(CUstream stream)
{
    BEGIN(FX_REAL(cuStreamBeginCapture_ptsz, CUresult (*)(CUstream))(stream));
}

CUresult cuStreamBeginCapture_v2(CUstream stream, int mode)
{
    BEGIN(FX_REAL(cuStreamBeginCapture_v2, CUresult (*)(CUstream, int))(stream, mode));
}

CUresult cuStreamBeginCapture_v2_ptsz(CUstream stream, int mode)
{
    BEGIN(FX_REAL(cuStreamBeginCapture_v2_ptsz, CUresult (*)(CUstream, int))(stream, mode));
}

CUresult cuStreamBeginCaptureToGraph(CUstream stream, CUgraph graph, const void *dependencies, const void *data, size_t n,
                                     int mode)
{
    BEGIN(FX_REAL(cuStreamBeginCaptureToGraph, to_graph)(stream, graph, dependencies, data, n, mode));
}

CUresult cuStreamBeginCaptureToGraph_ptsz(CUstream stream, CUgraph graph, const void *dependencies, const void *data,
                                          size_t n, int mode)
{
    BEGIN(FX_REAL(cuStreamBeginCaptureToGraph_ptsz, to_graph)(stream, graph, dependencies, data, n, mode));
}

CUresult cuStreamBeginRecaptureToGraph(CUstream stream, int mode, CUgraph graph, void *call, void *data)
{
    BEGIN(FX_REAL(cuStreamBeginRecaptureToGraph, again)(stream, mode, graph, call, data));
}

CUresult cuStreamBeginRecaptureToGraph_ptsz(CUstream stream, int mode, CUgraph graph, void *call, void *data)
{
    BEGIN(FX_REAL(cuStreamBeginRecaptureToGraph_ptsz, again)(stream, mode, graph, call, data));
}

CUresult cuStreamBeginCaptureToCig(CUstream stream, void *params)
{
    BEGIN(FX_REAL(cuStreamBeginCaptureToCig, CUresult (*)(CUstream, void *))(stream, params));
}

CUresult cuStreamBeginCaptureToCig_ptsz(CUstream stream, void *params)
{
    BEGIN(FX_REAL(cuStreamBeginCaptureToCig_ptsz, CUresult (*)(CUstream, void *))(stream, params));
}

/* A capture that was spoilt has ended, too; one that is another stream's goes on. */
static CUresult ended(CUresult rc)
{
    bool goes_on = rc == CUDA_ERROR_ILLEGAL_STATE || rc == CUDA_ERROR_STREAM_CAPTURE_UNMATCHED ||
                   rc == CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD || rc == CUDA_ERROR_INVALID_VALUE;
    if (!goes_on && __atomic_sub_fetch(&n_capturing, 1, __ATOMIC_SEQ_CST) < 0)
        __atomic_add_fetch(&n_capturing, 1, __ATOMIC_SEQ_CST);
    return rc;
}

CUresult cuStreamEndCapture(CUstream stream, CUgraph *graph)
{
    return ended(FX_REAL(cuStreamEndCapture, CUresult (*)(CUstream, CUgraph *))(stream, graph));
}

CUresult cuStreamEndCapture_ptsz(CUstream stream, CUgraph *graph)
{
    return ended(FX_REAL(cuStreamEndCapture_ptsz, CUresult (*)(CUstream, CUgraph *))(stream, graph));
}

CUresult cuStreamEndCaptureToCig(CUstream stream)
{
    return ended(FX_REAL(cuStreamEndCaptureToCig, CUresult (*)(CUstream))(stream));
}

CUresult cuStreamEndCaptureToCig_ptsz(CUstream stream)
{
    return ended(FX_REAL(cuStreamEndCaptureToCig_ptsz, CUresult (*)(CUstream))(stream));
}
