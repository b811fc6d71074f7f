/* SPDX-License-Identifier: Apache-2.0 */
/* See sock_diag.h. */
#include "edge/sock_diag.h"

#include <errno.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <unistd.h>

/* The kernel sends no more than this at once. */
#define LIST_BUFFER_SIZE 32768
/* INET_DIAG_CGROUP_ID of linux/inet_diag.h, which is younger than some systems' headers (Linux 5.9). */
#define ATTR_CGROUP_ID   21

struct query {
    struct nlmsghdr header;
    struct inet_diag_req_v2 request;
};

int pcmig_sock_diag_open(void)
{
    return socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
}

static int ask(int fd, struct query *query)
{
    query->header.nlmsg_len = sizeof(*query);
    query->request.sdiag_protocol = IPPROTO_TCP;
    return send(fd, query, sizeof(*query), 0) == (ssize_t)sizeof(*query) ? 0 : -1;
}

static ssize_t answer(int fd, void *buf, size_t size)
{
    ssize_t n;

    do {
        n = recv(fd, buf, size, 0);
    } while (n < 0 && errno == EINTR);
    return n;
}

static void take_info(const void *data, size_t size, struct pcmig_socket *out)
{
    struct tcp_info info;

    if (size < offsetof(struct tcp_info, tcpi_rtt))
        return;
    memset(&info, 0, sizeof(info));
    memcpy(&info, data, size < sizeof(info) ? size : sizeof(info));
    out->has_info = true;
    out->unacked_segments = info.tcpi_unacked;
    out->timeouts = info.tcpi_retransmits;
    out->probes = info.tcpi_probes;
    out->acknowledged_ms_ago = info.tcpi_last_ack_recv;
    out->received_ms_ago = info.tcpi_last_data_recv;
    /* ~0 = none was measured. */
    out->round_trip_us = info.tcpi_min_rtt != UINT32_MAX ? info.tcpi_min_rtt : 0;
}

/* What a message says, if it speaks of a socket. */
static bool understand(const struct nlmsghdr *header, struct pcmig_socket *out)
{
    const struct inet_diag_msg *msg = NLMSG_DATA(header);
    int left = (int)header->nlmsg_len - (int)NLMSG_LENGTH(sizeof(*msg));

    if (header->nlmsg_type != SOCK_DIAG_BY_FAMILY || left < 0)
        return false;
    *out = (struct pcmig_socket){.family = msg->idiag_family,
                                 .state = msg->idiag_state,
                                 .id = msg->id,
                                 .inode = msg->idiag_inode,
                                 .queue_bytes = msg->idiag_wqueue};
    for (const struct rtattr *attr = (const struct rtattr *)(msg + 1); RTA_OK(attr, left);
         attr = RTA_NEXT(attr, left)) {
        if (attr->rta_type == INET_DIAG_INFO)
            take_info(RTA_DATA(attr), RTA_PAYLOAD(attr), out);
        else if (attr->rta_type == ATTR_CGROUP_ID && RTA_PAYLOAD(attr) == sizeof(out->cgroup))
            memcpy(&out->cgroup, RTA_DATA(attr), sizeof(out->cgroup));
    }
    return true;
}

static int list_family(int fd, uint8_t family, uint32_t states,
                       void (*row)(void *context, const struct pcmig_socket *socket), void *context)
{
    struct query query = {
        .header = {.nlmsg_type = SOCK_DIAG_BY_FAMILY, .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP, .nlmsg_seq = family},
        .request = {.sdiag_family = family, .idiag_states = states},
    };
    _Alignas(struct nlmsghdr) char buf[LIST_BUFFER_SIZE];
    struct pcmig_socket socket;

    if (ask(fd, &query) < 0)
        return -1;
    for (;;) {
        ssize_t n = answer(fd, buf, sizeof(buf));

        if (n <= 0)
            return -1;
        for (struct nlmsghdr *header = (struct nlmsghdr *)buf; NLMSG_OK(header, (size_t)n);
             header = NLMSG_NEXT(header, n)) {
            if (header->nlmsg_seq != family)
                continue; /* the rest of a list that broke off */
            if (header->nlmsg_type == NLMSG_DONE)
                return 0;
            if (header->nlmsg_type == NLMSG_ERROR)
                return -1;
            if (understand(header, &socket))
                row(context, &socket);
        }
    }
}

int pcmig_sock_diag_list(int fd, uint32_t states, void (*row)(void *context, const struct pcmig_socket *socket),
                         void *context)
{
    int v4 = list_family(fd, AF_INET, states, row, context);

    /* A family that this kernel has not is one without sockets. */
    (void)list_family(fd, AF_INET6, states, row, context);
    return v4;
}

/* TYPE: SOCK_DIAG_BY_FAMILY or SOCK_DESTROY. Returns 0, or -1 when there is none or the kernel refuses. */
static int one(int fd, const struct pcmig_socket *socket, uint16_t type, bool info, struct pcmig_socket *out)
{
    struct query query = {
        .header = {.nlmsg_type = type,
                   .nlmsg_flags = NLM_F_REQUEST | (type == SOCK_DESTROY ? NLM_F_ACK : 0),
                   .nlmsg_seq = UINT32_MAX},
        .request = {.sdiag_family = socket->family,
                    .idiag_ext = info ? 1 << (INET_DIAG_INFO - 1) : 0,
                    .idiag_states = ~0U,
                    .id = socket->id},
    };
    _Alignas(struct nlmsghdr) char buf[4096];
    struct nlmsghdr *header = (struct nlmsghdr *)buf;
    ssize_t n;

    if (ask(fd, &query) < 0)
        return -1;
    do {
        n = answer(fd, buf, sizeof(buf));
    } while (n > 0 && NLMSG_OK(header, (size_t)n) && header->nlmsg_seq != UINT32_MAX);
    if (n <= 0 || !NLMSG_OK(header, (size_t)n))
        return -1;
    if (header->nlmsg_type == NLMSG_ERROR)
        return header->nlmsg_len >= NLMSG_LENGTH(sizeof(struct nlmsgerr)) &&
                       ((const struct nlmsgerr *)NLMSG_DATA(header))->error == 0
                   ? 0
                   : -1;
    return out != NULL && understand(header, out) ? 0 : -1;
}

int pcmig_sock_diag_one(int fd, const struct pcmig_socket *socket, bool info, struct pcmig_socket *out)
{
    return one(fd, socket, SOCK_DIAG_BY_FAMILY, info, out);
}

int pcmig_sock_diag_at(int fd, const struct pcmig_socket *socket, struct pcmig_socket *out)
{
    struct pcmig_socket any = *socket;

    any.id.idiag_cookie[0] = any.id.idiag_cookie[1] = INET_DIAG_NOCOOKIE;
    return one(fd, &any, SOCK_DIAG_BY_FAMILY, false, out);
}

int pcmig_sock_diag_destroy(int fd, const struct pcmig_socket *socket)
{
    return one(fd, socket, SOCK_DESTROY, false, NULL);
}
