/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FLEXAI_SIMCARD_DAEMON_H
#define FLEXAI_SIMCARD_DAEMON_H
#include <sys/types.h>
#include "simcard_model.h"
#include "simcard_wire.h"

/* A process with connections. */
struct client {
    struct client *next;
    pid_t pid;
    uid_t uid;
    uint64_t start_ticks;
    int n_connections;
    int pidfd;        /* readable once it is dead, whoever still holds its sockets */
    int region_fd;
    void *region;
    struct sm_process *process;
    struct sm_stream *stream[SC_MAX_RINGS];
    uint32_t stream_context[SC_MAX_RINGS];
    struct owned { struct owned *next; struct sm_group *group; } *groups;
};

struct connection {
    struct connection *next;
    int fd;
    uid_t uid;
    struct client *client;
    bool is_program;  /* its card numbers are the program's own */
    struct sm_log *log;
    int log_card;
    uint64_t log_room; /* records that its reader has room for; 0: as many as fit a reply */
    bool dead;        /* to be freed by server_sweep: events of this round may still name it */
    bool waiting;     /* a reply is owed by a callback */
    uint64_t cookie;
    struct sm_stream *watched;
    struct sc_request *held; /* asked while its process was parked: served when it is back */
    bool wants_log;   /* the reply owed is that of a flush */
};

struct server {
    struct sm_model *model;
    int poll;
    uint64_t next_cookie;
    struct client *clients;
    struct connection *connections;
};

void server_start(struct server *s);
void server_accept(struct server *s, int listener);
void server_read(struct server *s, struct connection *c);
void server_sweep(struct server *s);
/* Events carry an object: a connection, or a client whose pidfd became readable (lowest bit set). */
#define EVENT_OF_CLIENT 1u
void server_client_died(struct server *s, struct client *client);
void connection_reply(struct connection *c, int status, int64_t a, uint64_t v, const void *payload, size_t n, int fd);
void connection_log(struct server *s, struct connection *c);

/* Serve what was held back while the process was parked. */
void server_resume(struct server *s, struct client *client);

/* What a request does; returns false when the reply comes later. */
bool serve(struct server *s, struct connection *c, const struct sc_request *r);
bool serve_owner(struct server *s, struct connection *c, const struct sc_request *r);

int client_attach(struct server *s, struct client *client);
void client_release(struct server *s, struct client *client);
#endif
