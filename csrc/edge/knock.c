/* SPDX-License-Identifier: Apache-2.0 */
/* See knock.h. */
#include "edge/knock.h"

#include "edge/clock.h"

#include <errno.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* As many as are asked at once; a migration rarely has more. */
#define AT_ONCE 64

static socklen_t address(const struct pcmig_socket *socket, bool peer, struct sockaddr_storage *out)
{
    const void *from = peer ? (const void *)socket->id.idiag_dst : (const void *)socket->id.idiag_src;
    uint16_t port = peer ? socket->id.idiag_dport : socket->id.idiag_sport;

    memset(out, 0, sizeof(*out));
    if (socket->family == AF_INET) {
        struct sockaddr_in *in = (struct sockaddr_in *)out;

        in->sin_family = AF_INET;
        in->sin_port = port;
        memcpy(&in->sin_addr, from, sizeof(in->sin_addr));
        return sizeof(*in);
    } else {
        struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)out;

        in6->sin6_family = AF_INET6;
        in6->sin6_port = port;
        in6->sin6_scope_id = socket->id.idiag_if;
        memcpy(&in6->sin6_addr, from, sizeof(in6->sin6_addr));
        return sizeof(*in6);
    }
}

/* Has the socket ignore a listener's answer (SYN and ACK), so that no connection comes of it: QEMU at the destination
 * listens at its port for as long as the migration lasts, takes any connection there for the resumed stream, and a
 * false one spoils the true one. The filter sees segments from their TCP header on (Linux, net/ipv4/tcp_ipv4.c,
 * tcp_v4_rcv). */
static int refuse_to_connect(int fd)
{
    enum { TCP_FLAGS_AT = 13, TCP_SYN = 0x02 };
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, TCP_FLAGS_AT),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, TCP_SYN, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, 0),
        BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
    };
    const struct sock_fprog program = {.len = sizeof(code) / sizeof(code[0]), .filter = code};

    return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program));
}

/* Returns a descriptor to wait for, or -1 when there is nothing to wait for. */
static int begin(const struct pcmig_socket *old)
{
    struct sockaddr_storage local, peer;
    socklen_t local_size = address(old, false, &local), peer_size = address(old, true, &peer);
    int fd = socket(old->family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int one = 1;

    if (fd < 0)
        return -1;
    if (refuse_to_connect(fd) == 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) == 0 &&
        bind(fd, (struct sockaddr *)&local, local_size) == 0 && connect(fd, (struct sockaddr *)&peer, peer_size) < 0 &&
        errno == EINPROGRESS)
        return fd;
    close(fd);
    return -1;
}

/* Whatever comes of an attempt, the other end has answered by then, or cannot be reached. */
static void wait_for_all(struct pollfd *waits, size_t count, int wait_ms)
{
    int64_t until_us = pcmig_clock_us() + (int64_t)wait_ms * 1000;
    size_t open = count;

    while (open > 0) {
        int64_t left_ms = (until_us - pcmig_clock_us() + 999) / 1000;
        int ready = left_ms > 0 ? poll(waits, count, (int)left_ms) : 0;

        if (ready < 0 && errno == EINTR)
            continue;
        if (ready <= 0)
            return;
        for (size_t i = 0; i < count; i++) {
            if (waits[i].fd < 0 || waits[i].revents == 0)
                continue;
            close(waits[i].fd);
            waits[i].fd = -1; /* which poll passes over */
            open--;
        }
    }
}

void pcmig_knock(const struct pcmig_socket *sockets, size_t count, int wait_ms)
{
    struct pollfd waits[AT_ONCE];
    size_t open = 0;

    for (size_t i = 0; i < count && open < AT_ONCE; i++) {
        int fd = begin(&sockets[i]);

        if (fd >= 0)
            waits[open++] = (struct pollfd){.fd = fd, .events = POLLOUT};
    }
    wait_for_all(waits, open, wait_ms);
    for (size_t i = 0; i < open; i++) {
        if (waits[i].fd >= 0)
            close(waits[i].fd);
    }
}
