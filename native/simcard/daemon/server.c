/* SPDX-License-Identifier: Apache-2.0
 * Connections: accepted, read, answered, dropped. A malformed request closes its connection and nothing else.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "daemon.h"

static struct connection *by_cookie(struct server *s, uint64_t cookie)
{
    for (struct connection *c = s->connections; c; c = c->next)
        if (c->waiting && c->cookie == cookie)
            return c;
    return NULL;
}

static void on_watch(void *arg, uint64_t cookie)
{
    struct connection *c = by_cookie(arg, cookie);
    if (!c)
        return;
    c->waiting = false;
    c->watched = NULL; /* its stream may be gone: how far it came stands in the ring */
    connection_reply(c, 0, 0, 0, NULL, 0, -1);
}

static void on_control(void *arg, uint64_t cookie, int result)
{
    struct server *s = arg;
    struct connection *c = by_cookie(s, cookie);
    if (!c)
        return;
    c->waiting = false;
    if (c->wants_log && result == 0)
        connection_log(s, c);
    else
        connection_reply(c, result, 0, 0, NULL, 0, -1);
    c->wants_log = false;
}

void server_start(struct server *s)
{
    struct sm_callbacks callbacks = {.arg = s, .watch_done = on_watch, .control_done = on_control};
    sm_set_callbacks(s->model, &callbacks);
}

static uint64_t start_ticks_of(pid_t pid)
{
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *f = fopen(path, "re");
    if (!f)
        return 0;
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = 0;
    const char *at = strrchr(text, ')');
    unsigned long long ticks = 0;
    for (int field = 2; at && field < 22; field++)
        at = strchr(at + 1, ' ');
    if (at)
        sscanf(at, " %llu", &ticks);
    return ticks;
}

static struct client *client_of(struct server *s, pid_t pid, uid_t uid)
{
    uint64_t ticks = start_ticks_of(pid);
    for (struct client *client = s->clients; client; client = client->next)
        if (client->pid == pid && client->start_ticks == ticks)
            return client;
    struct client *client = calloc(1, sizeof *client);
    if (!client)
        return NULL;
    client->pid = pid;
    client->uid = uid;
    client->start_ticks = ticks;
    client->region_fd = -1;
    client->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    /* Without one (an old kernel, a process of another pid namespace) its death is seen by its sockets alone. */
    struct epoll_event death = {.events = EPOLLIN, .data.u64 = (uint64_t)(uintptr_t)client | EVENT_OF_CLIENT};
    if (client->pidfd >= 0 && epoll_ctl(s->poll, EPOLL_CTL_ADD, client->pidfd, &death) != 0) {
        close(client->pidfd);
        client->pidfd = -1;
    }
    client->next = s->clients;
    s->clients = client;
    return client;
}

void server_accept(struct server *s, int listener)
{
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    struct ucred peer;
    socklen_t n = sizeof peer;
    struct connection *c = calloc(1, sizeof *c);
    struct client *client = NULL;
    if (c && getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &n) == 0)
        client = client_of(s, peer.pid, peer.uid);
    struct epoll_event in = {.events = EPOLLIN, .data.ptr = c};
    if (!client || epoll_ctl(s->poll, EPOLL_CTL_ADD, fd, &in) != 0) {
        free(c);
        close(fd);
        return;
    }
    c->fd = fd;
    c->uid = peer.uid;
    c->client = client;
    c->log_card = -1;
    client->n_connections++;
    c->next = s->connections;
    s->connections = c;
}

int client_attach(struct server *s, struct client *client)
{
    if (client->process)
        return 0;
    int fd = memfd_create("flexai-simcard", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, (off_t)SC_REGION_BYTES) != 0) {
        if (fd >= 0)
            close(fd);
        return -ENOMEM;
    }
    void *region = mmap(NULL, SC_REGION_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (region == MAP_FAILED) {
        close(fd);
        return -ENOMEM;
    }
    client->process = sm_process_new(s->model, (uint32_t)client->pid, client->start_ticks, region);
    if (!client->process) {
        munmap(region, SC_REGION_BYTES);
        close(fd);
        return -ENOMEM;
    }
    client->region_fd = fd;
    client->region = region;
    return 0;
}

void client_release(struct server *s, struct client *client)
{
    if (client->process)
        sm_process_gone(client->process);
    while (client->groups) {
        struct owned *gone = client->groups;
        client->groups = gone->next;
        free(gone);
    }
    if (client->pidfd >= 0)
        close(client->pidfd);
    if (client->region) {
        munmap(client->region, SC_REGION_BYTES);
        close(client->region_fd);
    }
    struct client **at = &s->clients;
    while (*at && *at != client)
        at = &(*at)->next;
    if (*at)
        *at = client->next;
    free(client);
}

void connection_reply(struct connection *c, int status, int64_t a, uint64_t v, const void *payload, size_t n, int fd)
{
    struct sc_reply reply = {
        .magic = SC_MAGIC, .version = SC_VERSION, .status = status, .n = (uint32_t)n, .a = a, .v = v};
    struct iovec parts[2] = {{&reply, sizeof reply}, {(void *)(uintptr_t)payload, n}};
    union { struct cmsghdr head; char room[CMSG_SPACE(sizeof(int))]; } control;
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = n ? 2 : 1};
    if (fd >= 0) {
        memset(&control, 0, sizeof control);
        message.msg_control = &control;
        message.msg_controllen = sizeof control;
        struct cmsghdr *head = CMSG_FIRSTHDR(&message);
        head->cmsg_level = SOL_SOCKET;
        head->cmsg_type = SCM_RIGHTS;
        head->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(head), &fd, sizeof fd);
    }
    /* Each connection has one request under way, so its buffer always has room; one that does not read is dropped. */
    if (sendmsg(c->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
        c->dead = true;
}

/* A parked process's calls rest until it is back; those that only look are answered. */
static bool hold(struct connection *c, const struct sc_request *r)
{
    bool changes = r->op >= SC_CTX_NEW && r->op <= SC_MEM_GIVE && r->op != SC_WAIT && r->op != SC_POLL;
    if (!changes || !c->client->process || sm_park_state(c->client->process) == SM_RUNNING)
        return false;
    c->held = malloc(sizeof *c->held);
    if (!c->held) {
        c->dead = true;
        return true;
    }
    *c->held = *r;
    c->waiting = true;
    return true;
}

void server_resume(struct server *s, struct client *client)
{
    for (struct connection *c = s->connections; c; c = c->next) {
        struct sc_request *held = c->held;
        if (c->client != client || !held || c->dead)
            continue;
        c->held = NULL;
        c->waiting = false;
        serve(s, c, held);
        free(held);
    }
}

void server_read(struct server *s, struct connection *c)
{
    if (c->dead)
        return;
    struct sc_request r;
    ssize_t n = recv(c->fd, &r, sizeof r, MSG_DONTWAIT | MSG_TRUNC);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    bool sound = n == (ssize_t)sizeof r && r.magic == SC_MAGIC && r.version == SC_VERSION &&
                 r.n_contexts <= SC_MAX_CONTEXTS && !c->waiting;
    if (!sound) {
        c->dead = true;
        return;
    }
    if (hold(c, &r))
        return;
    if (r.op < SC_OWNER)
        serve(s, c, &r);
    else if (c->uid == 0 || c->uid == geteuid())
        serve_owner(s, c, &r);
    else
        connection_reply(c, -EPERM, 0, 0, NULL, 0, -1);
}

/* A child that was forked and not yet replaced holds copies of the sockets: they would keep the dead one's memory. */
void server_client_died(struct server *s, struct client *client)
{
    for (struct connection *c = s->connections; c; c = c->next)
        if (c->client == client)
            c->dead = true;
    if (client->n_connections == 0) /* the sweep would not come by it */
        client_release(s, client);
}

void server_sweep(struct server *s)
{
    struct connection **at = &s->connections;
    while (*at) {
        struct connection *c = *at;
        if (!c->dead) {
            at = &c->next;
            continue;
        }
        *at = c->next;
        if (c->waiting && c->watched)
            sm_unwatch(c->watched, c->cookie);
        if (c->log)
            sm_log_close(c->log);
        free(c->held);
        close(c->fd);
        if (--c->client->n_connections == 0)
            client_release(s, c->client);
        free(c);
    }
}
