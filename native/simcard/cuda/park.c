/* SPDX-License-Identifier: Apache-2.0
 * cuCheckpointProcess*: another process of the same user leaves the card and comes back (CUDA 12.8), to others of the same
 * kind if the caller says which (CUDA 13.0: as by that driver, all cards that the process could use have to be named).
 */
#include <errno.h>
#include <string.h>
#include "sim.h"

enum { CUDA_ERROR_NOT_PERMITTED = 800 };

/* CUcheckpointGpuPair, and the begin of CUcheckpointRestoreArgs, as cuda.h 13.0 has them. */
struct pair {
    unsigned char left[16], comes[16];
};
struct restore_arguments {
    const struct pair *pairs;
    unsigned n_pairs;
};

static int card_by_uuid(const unsigned char uuid[16])
{
    const struct session *s = sim_session();
    for (int i = 0; i < s->n_cards; i++) {
        unsigned char own[16];
        sim_uuid_bytes(s->card[i].uuid, own);
        if (!memcmp(own, uuid, sizeof own))
            return i;
    }
    return -1;
}

static CUresult park(int what, int pid, const struct restore_arguments *given, int *state)
{
    if (!sim_session())
        return CUDA_ERROR_NOT_INITIALIZED;
    struct sc_reply reply;
    struct sc_request r = {.op = SC_PARK, .a = what, .b = pid};
    const int n_cards = sim_session()->n_cards;
    if (given && given->n_pairs) {
        uint32_t named = 0;
        for (unsigned i = 0; i < given->n_pairs; i++) {
            int left = card_by_uuid(given->pairs[i].left), comes = card_by_uuid(given->pairs[i].comes);
            if (left < 0 || comes < 0 || named & 1u << left)
                return CUDA_ERROR_INVALID_VALUE;
            named |= 1u << left;
            r.context[left] = (uint32_t)comes;
        }
        if (named != (1u << n_cards) - 1)
            return CUDA_ERROR_INVALID_VALUE;
        r.n_contexts = (uint32_t)n_cards;
    }
    int error = session_ask(&r, &reply, NULL, 0);
    if (!error && state)
        *state = (int)reply.v;
    switch (error) {
    case -ESRCH: case -EDOM: return CUDA_ERROR_INVALID_VALUE;
    case -EOPNOTSUPP: return CUDA_ERROR_NOT_SUPPORTED;
    case -EINVAL: return CUDA_ERROR_ILLEGAL_STATE;
    case -EPERM: return CUDA_ERROR_NOT_PERMITTED;
    default: return sim_error(error);
    }
}

SIM_API CUresult cuCheckpointProcessLock(int pid, void *arguments);
SIM_API CUresult cuCheckpointProcessLock(int pid, void *arguments)
{
    (void)arguments;
    return park(SC_PARK_LOCK, pid, NULL, NULL);
}

SIM_API CUresult cuCheckpointProcessCheckpoint(int pid, void *arguments);
SIM_API CUresult cuCheckpointProcessCheckpoint(int pid, void *arguments)
{
    (void)arguments;
    return park(SC_PARK_OUT, pid, NULL, NULL);
}

SIM_API CUresult cuCheckpointProcessRestore(int pid, void *arguments);
SIM_API CUresult cuCheckpointProcessRestore(int pid, void *arguments)
{
    return park(SC_PARK_IN, pid, arguments, NULL);
}

SIM_API CUresult cuCheckpointProcessUnlock(int pid, void *arguments);
SIM_API CUresult cuCheckpointProcessUnlock(int pid, void *arguments)
{
    (void)arguments;
    return park(SC_PARK_UNLOCK, pid, NULL, NULL);
}

SIM_API CUresult cuCheckpointProcessGetState(int pid, int *state);
SIM_API CUresult cuCheckpointProcessGetState(int pid, int *state)
{
    return state ? park(SC_PARK_STATE, pid, NULL, state) : CUDA_ERROR_INVALID_VALUE;
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
