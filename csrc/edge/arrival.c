/* SPDX-License-Identifier: Apache-2.0 */
/* See arrival.h. */
#include "edge/arrival.h"

#include "core/channels.h"
#include "edge/qemu_process.h"
#include "edge/sock_diag.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

/* The stream, the channel of page requests, and what parallel connections there are (QEMU: up to 255). */
#define CONNECTIONS_MAX 258

struct found {
    const uint64_t *inodes; /* of QEMU's sockets, in rising order */
    size_t inode_count;
    size_t count;
    struct pcmig_socket sockets[CONNECTIONS_MAX];
};

static int by_number(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

static void take(void *context, const struct pcmig_socket *socket)
{
    struct found *found = context;
    uint64_t inode = socket->inode;

    if (found->count < CONNECTIONS_MAX && pcmig_channels_usual_port(ntohs(socket->id.idiag_sport)) &&
        bsearch(&inode, found->inodes, found->inode_count, sizeof(inode), by_number) != NULL)
        found->sockets[found->count++] = *socket;
}

/* Returns 0 and FOUND with the connections as FD tells of them, or -1 with errno. */
static int find(const char *uuid, int fd, struct found *found)
{
    struct pcmig_qemu_process qemu;
    uint64_t *inodes = NULL;
    int result;

    found->count = 0;
    pcmig_qemu_process_find(uuid, &qemu);
    if (qemu.pid_count == 0) {
        errno = ESRCH;
        return -1;
    }
    if (pcmig_qemu_process_sockets(&qemu, &inodes, &found->inode_count) < 0) {
        errno = EACCES;
        return -1;
    }
    found->inodes = inodes;
    result = found->inode_count > 0 ? pcmig_sock_diag_list(fd, 1U << TCP_ESTABLISHED, take, found) : 0;
    free(inodes);
    found->inodes = NULL;
    if (result < 0)
        errno = EIO;
    return result;
}

/* Calls WHAT for FD and each connection. Returns as find() does. */
static int for_each(const char *uuid, void (*what)(int fd, const struct pcmig_socket *socket, void *context),
                    void *context)
{
    struct found *found = calloc(1, sizeof(*found));
    int fd = pcmig_sock_diag_open();
    int result = found != NULL && fd >= 0 ? find(uuid, fd, found) : -1;
    int failure = errno;

    for (size_t i = 0; result == 0 && i < found->count; i++)
        what(fd, &found->sockets[i], context);
    if (fd >= 0)
        close(fd);
    free(found);
    errno = failure;
    return result;
}

static void note(int fd, const struct pcmig_socket *socket, void *context)
{
    struct pcmig_arrival *out = context;
    struct pcmig_socket now;

    if (pcmig_sock_diag_one(fd, socket, true, &now) < 0 || !now.has_info)
        return;
    out->connections++;
    if (out->silent_ms < 0 || out->silent_ms > now.received_ms_ago)
        out->silent_ms = now.received_ms_ago;
}

int pcmig_arrival_look(const char *uuid, struct pcmig_arrival *out)
{
    *out = (struct pcmig_arrival){.silent_ms = -1};
    return for_each(uuid, note, out);
}

struct resets {
    int done;
    bool refused;
};

static void reset(int fd, const struct pcmig_socket *socket, void *context)
{
    struct resets *resets = context;

    if (pcmig_sock_diag_destroy(fd, socket) == 0)
        resets->done++;
    else
        resets->refused = true;
}

int pcmig_arrival_reset(const char *uuid)
{
    struct resets resets = {0};

    if (for_each(uuid, reset, &resets) < 0)
        return -1;
    if (resets.refused && resets.done == 0) {
        errno = EPERM;
        return -1;
    }
    return resets.done;
}
