/* SPDX-License-Identifier: Apache-2.0
 *
 * Shim -> agent, SOCK_SEQPACKET on $FLEXAI_SOCKET: one message at start, the connection stays open for the life of the
 * process (its end tells the agent that the process, or its shim, is gone). Identity is SO_PEERCRED, never the message.
 * The agent answers with one fx_hello_reply. Anything malformed closes the connection.
 */
#ifndef FLEXAI_HANDSHAKE_H
#define FLEXAI_HANDSHAKE_H
#include <stdint.h>

#define FX_HELLO_MAGIC 0x4f4c4846u /* "FHLO" */
#define FX_HELLO_VERSION 1u

struct fx_hello {
    uint32_t magic;
    uint32_t version;
    uint32_t size;
    uint32_t slot;        /* index of the process's slot in the ledger */
    char shim_build[32];  /* version text */
    uint32_t n_unknown;   /* driver symbols asked for that the shim does not know (forwarded) */
    uint32_t reserved[3];
};

struct fx_hello_reply {
    uint32_t magic;
    uint32_t version;
    uint32_t size;
    uint32_t accepted;    /* 1, or 0 with the reason below */
    uint32_t host_pid;
    char reason[108];
};

#ifndef __cplusplus
_Static_assert(sizeof(struct fx_hello) == 64, "fx_hello");
_Static_assert(sizeof(struct fx_hello_reply) == 128, "fx_hello_reply");
#endif
#endif
