/* SPDX-License-Identifier: Apache-2.0
 * ChannelControl over the simulated card's socket: the same operations that cc_nvidia has on a real one, with the same
 * prices. A handle is the context id.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "card_clock.h"
#include "channel_control.h"
#include "connection.h"

#define MAX_OLD 64

struct simcard {
    int connection;
    int card;
    uint64_t opened_ticks;
    struct card_clock clock;
    uint32_t old[MAX_OLD]; /* of programs that began before our log: a lone one emits nothing, so it is made to once */
    int n_old, n_shown;
};

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int ask(struct simcard *s, struct sc_request *r, struct sc_reply *reply, void *payload, size_t room)
{
    return sc_ask(s->connection, r, reply, payload, room, NULL);
}

static int find_card(struct simcard *s, const char *uuid)
{
    struct sc_reply reply;
    struct sc_request hello = {.op = SC_HELLO};
    int error = ask(s, &hello, &reply, NULL, 0);
    if (error)
        return error;
    int n = (int)reply.a;
    for (int i = 0; i < n; i++) {
        struct sc_card card;
        struct sc_request r = {.op = SC_CARD, .a = i};
        error = ask(s, &r, &reply, &card, sizeof card);
        if (error)
            return error;
        if (!strcmp(card.uuid, uuid)) {
            s->card = i;
            return 0;
        }
    }
    return -ENODEV;
}

static int sim_open(void **self, const char *uuid, char *why, size_t n_why)
{
    struct simcard *s = calloc(1, sizeof *s);
    if (!s)
        return -ENOMEM;
    s->connection = sc_connect(NULL);
    int error = s->connection < 0 ? s->connection : find_card(s, uuid);
    struct sc_reply reply;
    struct sc_request log = {.op = SC_LOG_OPEN, .a = s->card};
    if (!error)
        error = ask(s, &log, &reply, NULL, 0);
    if (error) {
        snprintf(why, n_why, "simulated card %s: %s", uuid, strerror(-error));
        if (s->connection >= 0)
            close(s->connection);
        free(s);
        return error;
    }
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    uint64_t ticks = (uint64_t)sysconf(_SC_CLK_TCK);
    s->opened_ticks = (uint64_t)now.tv_sec * ticks + (uint64_t)now.tv_nsec * ticks / 1000000000u;
    *self = s;
    return 0;
}

static void sim_close(void *self)
{
    struct simcard *s = self;
    close(s->connection);
    free(s);
}

static int sim_self_test(void *self, struct cc_capabilities *caps)
{
    struct simcard *s = self;
    memset(caps, 0, sizeof *caps);
    struct sc_reply reply;
    struct sc_request figures = {.op = SC_FIGURES, .a = s->card};
    char payload[sizeof(struct sc_figures)];
    int error = ask(s, &figures, &reply, payload, sizeof payload);
    if (error) {
        snprintf(caps->note, sizeof caps->note, "the simulated card does not answer: %s", strerror(-error));
        return error;
    }
    caps->timeslice = caps->stop = caps->preempt = caps->log = caps->discover = 1;
    return 0;
}

static int sim_discover(void *self, uint32_t pid, struct cc_group *groups, int max)
{
    struct simcard *s = self;
    struct cc_group found[256];
    struct sc_reply reply;
    struct sc_request r = {.op = SC_DISCOVER, .a = s->card, .b = (int32_t)pid};
    int error = ask(s, &r, &reply, found, sizeof found);
    if (error)
        return error;
    int n = (int)reply.a < max ? (int)reply.a : max;
    memcpy(groups, found, (size_t)n * sizeof found[0]);
    for (int i = 0; i < n; i++) {
        bool is_known = groups[i].start_ticks > s->opened_ticks;
        for (int k = 0; k < s->n_old; k++)
            is_known |= s->old[k] == groups[i].handle;
        if (!is_known && s->n_old < MAX_OLD)
            s->old[s->n_old++] = groups[i].handle;
    }
    return n;
}

static void sim_forget(void *self, uint32_t handle)
{
    (void)self;
    (void)handle;
}

static int sim_set_timeslice(void *self, uint32_t handle, uint32_t us)
{
    struct simcard *s = self;
    struct sc_reply reply;
    struct sc_request r = {
        .op = SC_SET_TIMESLICE, .a = s->card, .n_contexts = 1, .v = {(uint64_t)us * 1000}, .context = {handle}};
    return ask(s, &r, &reply, NULL, 0);
}

static int sim_get_timeslice(void *self, uint32_t handle, uint32_t *us)
{
    struct sc_reply reply;
    struct sc_request r = {.op = SC_GET_TIMESLICE, .n_contexts = 1, .context = {handle}};
    int error = ask(self, &r, &reply, NULL, 0);
    if (!error)
        *us = (uint32_t)(reply.v / 1000);
    return error;
}

/* One call names at most 64 channels, as the real one: 8 groups of 8. */
static int sim_stop(void *self, const uint32_t *handles, int n, int stopped)
{
    struct simcard *s = self;
    for (int done = 0; done < n;) {
        int now = n - done < 8 ? n - done : 8;
        struct sc_reply reply;
        struct sc_request r = {.op = stopped ? SC_STOP : SC_RESUME, .a = s->card, .n_contexts = (uint32_t)now};
        memcpy(r.context, handles + done, (size_t)now * sizeof handles[0]);
        int error = ask(s, &r, &reply, NULL, 0);
        if (error)
            return error;
        done += now;
    }
    return 0;
}

static int sim_preempt(void *self, uint32_t handle)
{
    struct simcard *s = self;
    struct sc_reply reply;
    struct sc_request r = {.op = SC_PREEMPT, .a = s->card, .n_contexts = 1, .context = {handle}};
    return ask(s, &r, &reply, NULL, 0);
}

static int sim_read_log(void *self, struct cc_log_record *records, int max, uint64_t *dropped, struct cc_moment *told)
{
    struct simcard *s = self;
    while (s->n_shown < s->n_old)
        sim_preempt(s, s->old[s->n_shown++]);
    struct { struct sc_log_head head; struct cc_log_record records[1024]; } in;
    struct sc_reply reply;
    struct sc_request r = {.op = SC_LOG_READ, .a = s->card, .v = {max > 0 ? (uint64_t)max : 1}};
    uint64_t before = now_ns();
    int error = ask(s, &r, &reply, &in, sizeof in);
    if (error)
        return error;
    card_clock_saw(&s->clock, before, in.head.now_ns, now_ns());
    int n = (int)reply.a < max ? (int)reply.a : max;
    memcpy(records, in.records, (size_t)n * sizeof records[0]);
    *dropped = in.head.dropped + (uint64_t)((int)reply.a - n);
    bool more = n && (n == max || (size_t)n == sizeof in.records / sizeof *in.records);
    told->card_ns = more ? records[n - 1].ts_ns : in.head.now_ns;
    told->our_ns = told->card_ns - (uint64_t)card_clock_ahead(&s->clock);
    return n;
}

const struct cc_ops cc_simcard = {
    .name = "simcard", .open = sim_open, .close = sim_close, .self_test = sim_self_test, .discover = sim_discover,
    .forget = sim_forget, .set_timeslice = sim_set_timeslice, .get_timeslice = sim_get_timeslice, .stop = sim_stop,
    .preempt = sim_preempt, .read_log = sim_read_log,
};
