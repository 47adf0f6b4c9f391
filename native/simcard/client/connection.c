/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "connection.h"

int sc_connect(const char *path)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    path = path ? path : getenv("FLEXAI_SIMCARD");
    if (!path || strlen(path) >= sizeof at.sun_path)
        return -ENOENT;
    strcpy(at.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (connect(fd, (struct sockaddr *)&at, sizeof at) != 0) {
        int error = -errno;
        close(fd);
        return error;
    }
    return fd;
}

static int descriptor_of(struct msghdr *message)
{
    int fd = -1;
    struct cmsghdr *head = CMSG_FIRSTHDR(message);
    if (head && head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_RIGHTS)
        memcpy(&fd, CMSG_DATA(head), sizeof fd);
    return fd;
}

int sc_ask(int connection, struct sc_request *request, struct sc_reply *reply, void *payload, size_t room, int *fd)
{
    request->magic = SC_MAGIC;
    request->version = SC_VERSION;
    ssize_t n;
    do
        n = send(connection, request, sizeof *request, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    if (n != (ssize_t)sizeof *request)
        return -EPIPE;
    union { struct cmsghdr head; char room[CMSG_SPACE(sizeof(int))]; } control;
    struct iovec parts[2] = {{reply, sizeof *reply}, {payload, room}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = room ? 2 : 1, .msg_control = &control,
                             .msg_controllen = sizeof control};
    do
        n = recvmsg(connection, &message, MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n < (ssize_t)sizeof *reply)
        return -EPIPE;
    int came = descriptor_of(&message);
    if (fd)
        *fd = came;
    else if (came >= 0)
        close(came);
    if (reply->magic != SC_MAGIC || reply->version != SC_VERSION || (message.msg_flags & MSG_TRUNC))
        return -EPROTO;
    return reply->status;
}
