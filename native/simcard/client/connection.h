/* SPDX-License-Identifier: Apache-2.0
 * A connection to flexai-simcard: request, reply. Blocking; not for two threads at once.
 */
#ifndef FLEXAI_SIMCARD_CONNECTION_H
#define FLEXAI_SIMCARD_CONNECTION_H
#include <stddef.h>
#include "simcard_wire.h"

/* A connected descriptor, or a negative errno. `path` NULL: $FLEXAI_SIMCARD. */
int sc_connect(const char *path);
/* Ask and wait. Payload beyond `room` is an error (-EPROTO). `fd` receives a descriptor that came with the reply, or -1.
 * Returns the reply's status or a negative errno of the connection (-EPIPE: the daemon is gone). */
int sc_ask(int connection, struct sc_request *request, struct sc_reply *reply, void *payload, size_t room, int *fd);
#endif
