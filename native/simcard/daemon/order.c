/* SPDX-License-Identifier: Apache-2.0
 * `flexai-simcard --socket PATH COMMAND ...`: look at the cards of a running daemon, and make them fail on demand.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "connection.h"
#include "order.h"
#include "simcard_model.h"

#define MAX_LISTED 256

static const char *const CALLS[SM_N_CONTROL] = {"timeslice", "stop", "resume", "preempt", "flush", "park", "unpark"};

static bool number(const char *text, uint64_t *value)
{
    char *end;
    errno = 0;
    *value = strtoull(text, &end, 10);
    return end != text && !*end && !errno && text[0] != '-';
}

static int ask(int connection, struct sc_request *r, struct sc_reply *reply, void *payload, size_t room)
{
    int error = sc_ask(connection, r, reply, payload, room, NULL);
    if (error)
        fprintf(stderr, "flexai-simcard: %s\n", error == -EINVAL ? "there is no such card"
                                                : error == -ESRCH ? "no such program is on the cards" : strerror(-error));
    return error;
}

/* One JSON object per card and line. */
static int show(int connection)
{
    struct sc_reply reply;
    struct sc_request hello = {.op = SC_HELLO};
    if (ask(connection, &hello, &reply, NULL, 0))
        return 1;
    int n_cards = (int)reply.a;
    for (int i = 0; i < n_cards; i++) {
        struct sc_card card;
        struct sc_figures f;
        struct sc_process p[MAX_LISTED];
        struct sc_request of_card = {.op = SC_CARD, .a = i}, figures = {.op = SC_FIGURES, .a = i};
        struct sc_request processes = {.op = SC_PROCESSES, .a = i};
        if (ask(connection, &of_card, &reply, &card, sizeof card) || ask(connection, &figures, &reply, &f, sizeof f) ||
            ask(connection, &processes, &reply, p, sizeof p))
            return 1;
        printf("{\"card\": %d, \"uuid\": \"%s\", \"name\": \"%s\", \"memory_bytes\": %llu, \"used_bytes\": %llu, "
               "\"most_used_bytes\": %llu, "
               "\"busy_ns\": %llu, \"utilisation_milli\": %u, \"n_switches\": %llu, \"control_ns\": %llu, \"xid\": %u, "
               "\"processes\": [",
               i, card.uuid, card.name, (unsigned long long)card.memory_bytes, (unsigned long long)f.memory_used,
               (unsigned long long)f.memory_most,
               (unsigned long long)f.busy_ns, f.utilisation_milli, (unsigned long long)f.n_switches,
               (unsigned long long)f.control_ns, f.xid);
        for (int j = 0; j < (int)reply.a && j < MAX_LISTED; j++)
            printf("%s{\"pid\": %u, \"n_contexts\": %u, \"memory_bytes\": %llu, \"held_ns\": %llu, \"work_ns\": %llu, "
                   "\"n_kernels\": %llu}",
                   j ? ", " : "", p[j].pid, p[j].n_groups, (unsigned long long)p[j].memory_bytes,
                   (unsigned long long)p[j].held_ns, (unsigned long long)p[j].work_ns,
                   (unsigned long long)p[j].n_kernels);
        printf("]}\n");
    }
    return 0;
}

/* Fills in the request; 0 when the words make none. */
static bool read_order(int n, char **words, struct sc_request *r)
{
    uint64_t a = 0, b = 0;
    const char *name = words[0];
    if (!strcmp(name, "refuse")) {
        for (int i = 0; n == 4 && i < SM_N_CONTROL; i++)
            if (!strcmp(words[1], CALLS[i]) && number(words[2], &a) && a > 0 && a < 4096 && number(words[3], &b)) {
                *r = (struct sc_request){.op = SC_INJECT, .a = i, .b = -(int32_t)a, .v = {b}};
                return true;
            }
        return false;
    }
    if (!strcmp(name, "place")) {
        uint64_t pid = 0;
        if (n != 4 || !number(words[1], &a) || a >= SM_MAX_CARDS || !number(words[2], &b) || !number(words[3], &pid) ||
            pid > INT32_MAX)
            return false;
        *r = (struct sc_request){.op = SC_PLACE, .a = (int32_t)a, .b = (int32_t)pid, .v = {b}};
        return true;
    }
    if (n < 2 || !number(words[1], &a) || a >= SM_MAX_CARDS || (n > 2 && !number(words[2], &b)))
        return false;
    *r = (struct sc_request){.a = (int32_t)a, .v = {b}};
    if (!strcmp(name, "fail") && n <= 3) {
        r->op = SC_FAIL;
        r->v[0] = n == 3 ? b : 79; /* fallen off the bus */
        return r->v[0] > 0 && r->v[0] < 1000;
    }
    if (!strcmp(name, "recover") && n == 2)
        r->op = SC_FAIL;
    else if (!strcmp(name, "lose-log") && n == 3)
        r->op = SC_LOSE_LOG;
    return r->op != 0;
}

/* All contexts of a program on a card are resumed, whoever stopped them. */
static int undo(int connection, uint64_t card, uint64_t pid)
{
    struct cc_group groups[64];
    struct sc_reply reply;
    struct sc_request find = {.op = SC_DISCOVER, .a = (int32_t)card, .b = (int32_t)pid};
    if (ask(connection, &find, &reply, groups, sizeof groups))
        return 1;
    struct sc_request r = {.op = SC_RESUME, .a = (int32_t)card};
    for (uint32_t i = 0; i < (uint32_t)reply.a && i < 64; i++)
        r.context[r.n_contexts++] = groups[i].handle;
    return r.n_contexts && ask(connection, &r, &reply, NULL, 0) ? 1 : 0;
}

int order(const char *socket, int n, char **words)
{
    struct sc_request r = {0};
    struct sc_reply reply;
    bool shows = n == 1 && !strcmp(words[0], "show");
    uint64_t card = 0, pid = 0;
    bool undoes = n == 3 && !strcmp(words[0], "undo") && number(words[1], &card) && card < SM_MAX_CARDS &&
                  number(words[2], &pid) && pid <= INT32_MAX;
    if (!shows && !undoes && !read_order(n, words, &r))
        return 2;
    int connection = sc_connect(socket);
    if (connection < 0) {
        fprintf(stderr, "flexai-simcard: %s: %s\n", socket, strerror(-connection));
        return 1;
    }
    int status = shows ? show(connection) : undoes ? undo(connection, card, pid) : ask(connection, &r, &reply, NULL, 0) ? 1 : 0;
    close(connection);
    return status;
}
