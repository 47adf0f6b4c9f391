/* SPDX-License-Identifier: Apache-2.0
 * What the commands of flexai-nvprobe share.
 */
#ifndef FLEXAI_NVIDIA_PROBE_H
#define FLEXAI_NVIDIA_PROBE_H
#include <signal.h>
#include "nvidia.h"

extern struct nv_card *card;
extern volatile sig_atomic_t ending; /* a signal came */

static inline uint64_t now(void)
{
    return nv_machine.now_ns(NULL);
}
/* Says what failed, and why; answers the exit status. */
int explain(const char *what, int error);
int memory_command(const char *wanted);
#endif
