/* SPDX-License-Identifier: Apache-2.0
 * cuCheckpointProcess*: another process of the same user leaves the card and comes back (CUDA 12.8). Their argument
 * structures hold nothing that the simulated card looks at.
 */
#include <errno.h>
#include "sim.h"

enum { CUDA_ERROR_NOT_PERMITTED = 800 };

static CUresult park(int what, int pid, int *state)
{
    if (!sim_session())
        return CUDA_ERROR_NOT_INITIALIZED;
    struct sc_reply reply;
    struct sc_request r = {.op = SC_PARK, .a = what, .b = pid};
    int error = session_ask(&r, &reply, NULL, 0);
    if (!error && state)
        *state = (int)reply.v;
    switch (error) {
    case -ESRCH: return CUDA_ERROR_INVALID_VALUE;
    case -EINVAL: return CUDA_ERROR_ILLEGAL_STATE;
    case -EPERM: return CUDA_ERROR_NOT_PERMITTED;
    default: return sim_error(error);
    }
}

SIM_API CUresult cuCheckpointProcessLock(int pid, void *arguments);
SIM_API CUresult cuCheckpointProcessLock(int pid, void *arguments)
{
    (void)arguments;
    return park(SC_PARK_LOCK, pid, NULL);
}

SIM_API CUresult cuCheckpointProcessCheckpoint(int pid, void *arguments);
SIM_API CUresult cuCheckpointProcessCheckpoint(int pid, void *arguments)
{
    (void)arguments;
    return park(SC_PARK_OUT, pid, NULL);
}

SIM_API CUresult cuCheckpointProcessRestore(int pid, void *arguments);
SIM_API CUresult cuCheckpointProcessRestore(int pid, void *arguments)
{
    (void)arguments;
    return park(SC_PARK_IN, pid, NULL);
}

SIM_API CUresult cuCheckpointProcessUnlock(int pid, void *arguments);
SIM_API CUresult cuCheckpointProcessUnlock(int pid, void *arguments)
{
    (void)arguments;
    return park(SC_PARK_UNLOCK, pid, NULL);
}

SIM_API CUresult cuCheckpointProcessGetState(int pid, int *state);
SIM_API CUresult cuCheckpointProcessGetState(int pid, int *state)
{
    return state ? park(SC_PARK_STATE, pid, state) : CUDA_ERROR_INVALID_VALUE;
}

/* There is no thread of ours in the process. */
SIM_API CUresult cuCheckpointProcessGetRestoreThreadId(int pid, int *thread);
SIM_API CUresult cuCheckpointProcessGetRestoreThreadId(int pid, int *thread)
{
    if (!thread)
        return CUDA_ERROR_INVALID_VALUE;
    *thread = pid;
    return CUDA_SUCCESS;
}
