/* SPDX-License-Identifier: Apache-2.0 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include "session.h"

static struct session session;
static pid_t opened_by;
static pthread_mutex_t opening = PTHREAD_MUTEX_INITIALIZER;
static pthread_key_t connection_key;
static int anchor = -1; /* the process's state lives as long as this connection */

uint64_t session_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

static void close_connection(void *value)
{
    close((int)((intptr_t)value - 1));
}

static int connection(void)
{
    intptr_t held = (intptr_t)pthread_getspecific(connection_key);
    if (held)
        return (int)(held - 1);
    int fd = sc_connect(NULL);
    if (fd < 0)
        return fd;
    struct sc_reply reply;
    struct sc_request hello = {.op = SC_HELLO, .a = 2};
    int error = sc_ask(fd, &hello, &reply, NULL, 0, NULL);
    if (error) {
        close(fd);
        return error;
    }
    pthread_setspecific(connection_key, (void *)(intptr_t)(fd + 1));
    return fd;
}

int session_ask(struct sc_request *request, struct sc_reply *reply, void *payload, size_t room)
{
    int fd = connection();
    return fd < 0 ? fd : sc_ask(fd, request, reply, payload, room, NULL);
}

/* CUDA_VISIBLE_DEVICES: ordinals or UUIDs (or their beginnings); the list ends at the first that is unknown. */
static void see_devices(void)
{
    const char *list = getenv("CUDA_VISIBLE_DEVICES");
    if (!list) {
        for (int i = 0; i < session.n_cards; i++)
            session.visible[session.n_visible++] = i;
        return;
    }
    char text[4096];
    snprintf(text, sizeof text, "%s", list);
    char *rest = text;
    for (char *one; (one = strsep(&rest, ",")) && session.n_visible < SIM_MAX_CARDS;) {
        while (isspace((unsigned char)*one))
            one++;
        int found = -1;
        size_t n = strlen(one);
        if (isdigit((unsigned char)*one))
            found = atoi(one) < session.n_cards ? atoi(one) : -1;
        for (int i = 0; n >= 8 && i < session.n_cards && found < 0; i++)
            if (!strncmp(session.card[i].uuid, one, n))
                found = i;
        if (found < 0)
            return;
        session.visible[session.n_visible++] = found;
    }
}

static int open_locked(void)
{
    if (!getenv("FLEXAI_SIMCARD"))
        return -ENODEV;
    anchor = sc_connect(NULL);
    if (anchor < 0)
        return -ENODEV;
    int fd = -1;
    struct sc_reply reply;
    struct sc_request hello = {.op = SC_HELLO, .a = 1};
    int error = sc_ask(anchor, &hello, &reply, NULL, 0, &fd);
    if (error || fd < 0)
        return error ? error : -EPROTO;
    char *region = mmap(NULL, SC_REGION_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (region == MAP_FAILED)
        return -ENOMEM;
    session.events = (struct sm_event_slot *)region;
    session.rings = region;
    session.n_cards = reply.a < SIM_MAX_CARDS ? (int)reply.a : SIM_MAX_CARDS;
    for (int i = 0; i < session.n_cards; i++) {
        struct sc_request card = {.op = SC_CARD, .a = i};
        error = sc_ask(anchor, &card, &reply, &session.card[i], sizeof session.card[i], NULL);
        if (error)
            return error;
    }
    see_devices();
    pthread_key_create(&connection_key, close_connection);
    opened_by = getpid();
    return 0;
}

int session_open(void)
{
    pthread_mutex_lock(&opening);
    int error = opened_by == getpid() ? 0 : opened_by ? -ECHILD : open_locked();
    pthread_mutex_unlock(&opening);
    return error;
}

const struct session *session_get(void)
{
    return opened_by && opened_by == getpid() ? &session : NULL;
}

struct sm_ring *session_ring(int ring)
{
    return (struct sm_ring *)(session.rings + SC_RING_AT(ring));
}
