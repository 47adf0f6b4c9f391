/* SPDX-License-Identifier: Apache-2.0
 * This process at the simulated cards: one region with rings and event slots, one connection per thread.
 */
#ifndef FLEXAI_SIMCARD_SESSION_H
#define FLEXAI_SIMCARD_SESSION_H
#include <pthread.h>
#include <stdbool.h>
#include "connection.h"

#define SIM_MAX_CARDS 16

struct session {
    int n_cards;
    struct sc_card card[SIM_MAX_CARDS];
    int visible[SIM_MAX_CARDS]; /* ordinals after CUDA_VISIBLE_DEVICES */
    int n_visible;
    struct sm_event_slot *events;
    char *rings;
};

/* 0, or a negative errno: -ENODEV without FLEXAI_SIMCARD. Once per process. */
int session_open(void);
/* The session, or NULL: not opened, or this is a child of the process that did. */
const struct session *session_get(void);
struct sm_ring *session_ring(int ring);
/* Ask on this thread's connection. */
int session_ask(struct sc_request *request, struct sc_reply *reply, void *payload, size_t room);
uint64_t session_now(void); /* CLOCK_MONOTONIC, ns */
#endif
