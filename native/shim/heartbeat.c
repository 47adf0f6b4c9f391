/* SPDX-License-Identifier: Apache-2.0
 *
 * The shim's own threads: one that shows life, talks to the agent and keeps the books; with the lease backend one per
 * card that watches its gate.
 */
#include "glibc.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "charge.h"
#include "flexai_handshake.h"
#include "gate.h"
#include "measure.h"
#include "pools.h"
#include "shared.h"

#define ROUND_US 100000
static bool watched[FX_MAX_DEVICES];
static struct {
    int fd;
    uint64_t cookie;      /* of the socket: the program may close our descriptor, and get its number for itself */
    uint32_t told_unknown;
    uint32_t host_pid;
} agent = {.fd = -1};

static bool socket_ours(void)
{
    uint64_t cookie = 0;
    socklen_t n = sizeof cookie;
    return agent.fd >= 0 && getsockopt(agent.fd, SOL_SOCKET, SO_COOKIE, &cookie, &n) == 0 && cookie == agent.cookie;
}

static void hang_up(void)
{
    if (socket_ours())
        close(agent.fd);
    agent.fd = -1;
}

static void say_hello(void)
{
    struct fx_hello hello = {.magic = FX_HELLO_MAGIC,
                             .version = FX_HELLO_VERSION,
                             .size = sizeof hello,
                             .slot = fx.slot,
                             .shim_build = FX_BUILD,
                             .n_unknown = fx_n_unknown};
    agent.told_unknown = hello.n_unknown;
    if (send(agent.fd, &hello, sizeof hello, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)sizeof hello)
        hang_up();
}

static void connect_agent(void)
{
    const char *path = getenv("FLEXAI_SOCKET");
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    if (!path || !*path || strlen(path) >= sizeof to.sun_path)
        return;
    strcpy(to.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return;
    socklen_t n = sizeof agent.cookie;
    if (connect(fd, (struct sockaddr *)&to, sizeof to) != 0 ||
        getsockopt(fd, SOL_SOCKET, SO_COOKIE, &agent.cookie, &n) != 0) {
        close(fd);
        return;
    }
    agent.fd = fd;
    say_hello();
}

static void listen_to_agent(void)
{
    struct fx_hello_reply reply;
    ssize_t n = recv(agent.fd, &reply, sizeof reply, MSG_DONTWAIT);
    if (n == (ssize_t)sizeof reply && reply.magic == FX_HELLO_MAGIC && reply.version == FX_HELLO_VERSION) {
        agent.host_pid = reply.host_pid;
        reply.reason[sizeof reply.reason - 1] = 0;
        if (!reply.accepted)
            dprintf(STDERR_FILENO, "flexai: the agent does not accept this process: %s\n", reply.reason);
    } else if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR) || n > 0) {
        hang_up();
    }
}

uint32_t fx_host_pid(void)
{
    return agent.host_pid ? agent.host_pid : (uint32_t)getpid();
}

void fx_hello(void)
{
    if (agent.fd >= 0 && !socket_ours())
        agent.fd = -1;
    if (agent.fd < 0)
        connect_agent();
    else if (fx_n_unknown != agent.told_unknown)
        say_hello();
    if (agent.fd >= 0)
        listen_to_agent();
}

/* A thread of ours: no signals of the program's, and the program's exit does not wait for it. */
static void start(void *(*body)(void *), void *argument)
{
    sigset_t all, before;
    pthread_attr_t small;
    pthread_t thread;
    sigfillset(&all);
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 1u << 20); /* the driver is called from it */
    pthread_attr_setdetachstate(&small, PTHREAD_CREATE_DETACHED);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    if (pthread_create(&thread, &small, body, argument) != 0)
        dprintf(STDERR_FILENO, "flexai: cannot start a thread; the agent will take this process for dead\n");
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&small);
}

static void *watch(void *argument)
{
    for (;;)
        fx_gate_watch((int)(intptr_t)argument);
    return NULL;
}

static void *beat(void *argument)
{
    uint64_t launches = 0;
    (void)argument;
    for (uint32_t round = 0;; round++) {
        struct fx_slot *slot = &fx.region.ledger->slot[fx.slot];
        uint64_t now = fx_now_ns();
        __atomic_store_n(&slot->heartbeat_ns, now, __ATOMIC_SEQ_CST);
        uint64_t n = __atomic_load_n(&slot->n_launches, __ATOMIC_RELAXED);
        if (n != launches)
            __atomic_store_n(&slot->last_submit_ns, now, __ATOMIC_RELAXED);
        launches = n;
        for (uint32_t card = 0; card < fx.n_cards; card++)
            if (!watched[card] && fx.region.policy->device[card].backend == FX_BACKEND_LEASE) {
                watched[card] = true;
                start(watch, (void *)(intptr_t)card);
            }
        if (round % 10 == 0) {
            fx_pools_settle(-1);
            fx_shared_settle();
            fx_hello();
        } else if (agent.fd >= 0 && round < 10) {
            listen_to_agent();
        }
        if (round % 10 == 2)
            fx_measure(fx_host_pid());
        usleep(ROUND_US);
    }
    return NULL;
}

void fx_threads_start(void)
{
    start(beat, NULL);
}

void fx_threads_forget(void)
{
    memset(watched, 0, sizeof watched);
    hang_up(); /* the child's copy; the parent's connection stays */
    agent.host_pid = 0;
}
