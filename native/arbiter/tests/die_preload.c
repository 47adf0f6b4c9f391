/* SPDX-License-Identifier: Apache-2.0
 * Preloaded into the arbiter or its guardian: FLEXAI_DIE_AT=N kills it before its N-th write to the stop journal (its
 * sign of life is no such write) or order to stop or resume on a simulated card, whichever comes.
 */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "die_at.h"
#include "journal.h"
#include "simcard_wire.h"

static bool armed;

void *mmap(void *at, size_t n, int protection, int flags, int fd, off_t offset)
{
    void *mapped = (void *)syscall(SYS_mmap, at, n, protection, flags, fd, offset);
    const char *number = getenv("FLEXAI_DIE_AT");
    if (fd >= 0 && n == sizeof(struct journal) && mapped != MAP_FAILED && number && !armed) {
        armed = true;
        die_watch(mapped, n, offsetof(struct journal, heartbeat_ns), sizeof(uint64_t));
        die_at(strtoul(number, NULL, 10));
    }
    return mapped;
}

ssize_t send(int fd, const void *data, size_t n, int flags)
{
    const struct sc_request *request = data;
    if (armed && n == sizeof *request && request->magic == SC_MAGIC && (request->op == SC_STOP || request->op == SC_RESUME))
        die_point();
    return syscall(SYS_sendto, fd, data, n, flags, NULL, 0);
}
