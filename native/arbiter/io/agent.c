/* SPDX-License-Identifier: Apache-2.0
 * The agent's line: <run>/arbiter.sock, one agent at a time; a new connection replaces the old one. Only our own user
 * (or root) is heard. A malformed message is answered with a reason and changes nothing.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include "arbiter.h"

/* The socket appears under its name when it answers. */
bool agent_listen(struct arbiter *a)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    char path[sizeof at.sun_path];
    if (snprintf(at.sun_path, sizeof at.sun_path, "%s/arbiter.sock.new", a->run_dir) >= (int)sizeof at.sun_path) {
        say("--run-dir %s: too long for a socket; choose a shorter one", a->run_dir);
        return false;
    }
    strcpy(path, at.sun_path);
    path[strlen(path) - strlen(".new")] = 0;
    unlink(at.sun_path);
    a->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    mode_t before = umask(0177);
    bool bound = a->listener >= 0 && bind(a->listener, (struct sockaddr *)&at, sizeof at) == 0;
    umask(before);
    if (!bound || listen(a->listener, 4) != 0 || rename(at.sun_path, path) != 0) {
        say("%s: %s", path, strerror(errno));
        return false;
    }
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = EVENT_LISTENER};
    return epoll_ctl(a->epoll, EPOLL_CTL_ADD, a->listener, &event) == 0;
}

static void hang_up(struct arbiter *a)
{
    if (a->agent >= 0)
        close(a->agent);
    a->agent = -1;
}

void agent_accept(struct arbiter *a)
{
    struct ucred peer;
    socklen_t n = sizeof peer;
    int fd = accept4(a->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &n) != 0 || (peer.uid != geteuid() && peer.uid != 0)) {
        close(fd);
        return;
    }
    hang_up(a);
    a->agent = fd;
    for (int i = 0; i < FX_MAX_TENANTS; i++)
        a->tenant[i].synced = false; /* until it is sent again */
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = EVENT_AGENT};
    epoll_ctl(a->epoll, EPOLL_CTL_ADD, fd, &event);
}

static bool named(struct arbiter *a, const struct fx_arb_message *m, int *tenant, char *why, size_t n_why)
{
    *tenant = memchr(m->tenant, 0, sizeof m->tenant) ? tenant_named(a, m->tenant) : -1;
    if (*tenant < 0)
        snprintf(why, n_why, "UnknownTenant: no such tenant was sent");
    return *tenant >= 0;
}

static bool carry_out(struct arbiter *a, const struct fx_arb_message *m, char *why, size_t n_why)
{
    int tenant;
    switch (m->op) {
    case FX_ARB_HELLO:
        return true;
    case FX_ARB_TENANT_PUT:
        return tenant_put(a, m, why, n_why);
    case FX_ARB_TENANT_GONE:
        if (named(a, m, &tenant, why, n_why))
            tenant_gone(a, tenant);
        return true; /* gone is gone */
    case FX_ARB_SYNC:
        for (int i = 0; i < FX_MAX_TENANTS; i++)
            if (a->tenant[i].id[0] && !a->tenant[i].synced)
                tenant_gone(a, i);
        return true;
    case FX_ARB_SUSPEND:
    case FX_ARB_RESUME:
        if (!named(a, m, &tenant, why, n_why))
            return false;
        tenant_suspend(a, tenant, m->op == FX_ARB_SUSPEND);
        return true;
    case FX_ARB_DEVICE_PUT:
        if (m->n_grants != 1 || !memchr(m->grant[0].uuid, 0, FX_UUID_BYTES) || !m->grant[0].uuid[0] ||
            m->grant[0].backend > FX_BACKEND_HWSLICE) {
            snprintf(why, n_why, "BadMessage: a card needs one grant with its uuid");
            return false;
        }
        if (card_named(a, m->grant[0].uuid, m->grant[0].backend, true) < 0) {
            snprintf(why, n_why, "TooManyCards: this arbiter holds %d", FX_MAX_DEVICES);
            return false;
        }
        demand_watch(a);
        return true;
    default:
        snprintf(why, n_why, "BadMessage: operation %u is not known", m->op);
        return false;
    }
}

void agent_read(struct arbiter *a)
{
    static struct fx_arb_message m;
    for (int i = 0; i < 32; i++) {
        ssize_t n = recv(a->agent, &m, sizeof m, MSG_TRUNC);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n <= 0) {
            hang_up(a);
            return;
        }
        struct fx_arb_reply reply = {.magic = FX_ARB_MAGIC, .version = FX_ARB_VERSION, .size = sizeof reply};
        bool whole = n == (ssize_t)sizeof m;
        reply.seq = whole ? m.seq : 0;
        if (!whole || m.magic != FX_ARB_MAGIC || m.version != FX_ARB_VERSION || m.size != sizeof m)
            snprintf(reply.reason, sizeof reply.reason,
                     "BadVersion: the message is of %zd bytes and version %u, the arbiter speaks %zu bytes and version %u", n,
                     whole ? m.version : 0, sizeof m, FX_ARB_VERSION);
        else if (carry_out(a, &m, reply.reason, sizeof reply.reason))
            reply.reason[0] = 0;
        reply.status = reply.reason[0] ? 1 : 0;
        if (send(a->agent, &reply, sizeof reply, MSG_NOSIGNAL) != (ssize_t)sizeof reply) {
            hang_up(a);
            return;
        }
    }
}
