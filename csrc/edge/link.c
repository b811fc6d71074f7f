/* SPDX-License-Identifier: Apache-2.0 */
/* See link.h. */
#include "edge/link.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* libvirt's defaults of migration_port_min and migration_port_max in qemu.conf. */
#define MIGRATION_PORT_MIN 49152
#define MIGRATION_PORT_MAX 49215
#define UUID_SIZE          37
#define MAX_INODES         512
/* More than one only where several hosts of a test share a process namespace. */
#define MAX_PIDS           8
/* The stream, the channel of page requests, and what parallel connections there are. */
#define MAX_STREAMS        64

/* One connection of the guest's QEMU to the destination. */
struct stream {
    uint8_t family;
    struct inet_diag_sockid id; /* ports and addresses in network order */
};

struct pcmig_link {
    int fd;
    uint32_t sequence;
    char uuid[UUID_SIZE];
    size_t pid_count;
    char pids[MAX_PIDS][24];
    bool qemu_seen;               /* the inodes below are QEMU's; otherwise ports are compared */
    struct sockaddr_storage peer; /* ss_family AF_UNSPEC until a connection was seen */
    size_t inode_count;
    uint64_t inodes[MAX_INODES];
    size_t stream_count; /* they stay known after QEMU has closed them, until there are others */
    struct stream streams[MAX_STREAMS];
};

/* What one look adds up. */
struct sum {
    int64_t bytes;
    int64_t silence_ms;
    int found;
    size_t stream_count;
    struct stream streams[MAX_STREAMS];
};

struct pcmig_link *pcmig_link_open(const char *uuid)
{
    struct pcmig_link *link = calloc(1, sizeof(*link));

    if (link == NULL)
        return NULL;
    snprintf(link->uuid, sizeof(link->uuid), "%s", uuid);
    link->fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
    if (link->fd < 0) {
        free(link);
        return NULL;
    }
    return link;
}

void pcmig_link_close(struct pcmig_link *link)
{
    if (link == NULL)
        return;
    close(link->fd);
    free(link);
}

/* Whether the process behind /proc/PID runs the guest: QEMU is started with "-uuid UUID" by libvirt. */
static bool runs_guest(const char *pid, const char *uuid)
{
    char path[64];
    char buf[16384];
    ssize_t n;
    int fd;
    size_t uuid_len = strlen(uuid);

    snprintf(path, sizeof(path), "/proc/%.20s/cmdline", pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    n = read(fd, buf, sizeof(buf));
    close(fd);
    if (n <= 0)
        return false;
    for (char *arg = buf; arg < buf + n; arg += strnlen(arg, (size_t)(buf + n - arg)) + 1) {
        char *value = arg + sizeof("-uuid");

        if ((size_t)(buf + n - arg) > sizeof("-uuid") + uuid_len && memcmp(arg, "-uuid", sizeof("-uuid")) == 0)
            return memcmp(value, uuid, uuid_len) == 0;
    }
    return false;
}

static void collect_inodes(struct pcmig_link *link, const char *pid)
{
    char path[64];
    struct dirent *entry;
    DIR *dir;

    snprintf(path, sizeof(path), "/proc/%.20s/fd", pid);
    dir = opendir(path);
    if (dir == NULL)
        return;
    link->qemu_seen = true;
    while ((entry = readdir(dir)) != NULL) {
        char target[64];
        ssize_t n = readlinkat(dirfd(dir), entry->d_name, target, sizeof(target) - 1);
        unsigned long long inode;

        if (n <= 0)
            continue;
        target[n] = '\0';
        if (sscanf(target, "socket:[%llu]", &inode) == 1 && link->inode_count < MAX_INODES)
            link->inodes[link->inode_count++] = inode;
    }
    closedir(dir);
}

static void find_qemu(struct pcmig_link *link)
{
    DIR *proc = opendir("/proc");
    struct dirent *entry;

    if (proc == NULL)
        return;
    while ((entry = readdir(proc)) != NULL && link->pid_count < MAX_PIDS) {
        if (isdigit((unsigned char)entry->d_name[0]) && runs_guest(entry->d_name, link->uuid))
            snprintf(link->pids[link->pid_count++], sizeof(link->pids[0]), "%.20s", entry->d_name);
    }
    closedir(proc);
}

static bool is_migration(const struct pcmig_link *link, const struct inet_diag_msg *msg)
{
    uint16_t port = ntohs(msg->id.idiag_dport);

    if (!link->qemu_seen)
        return port >= MIGRATION_PORT_MIN && port <= MIGRATION_PORT_MAX;
    for (size_t i = 0; i < link->inode_count; i++) {
        if (link->inodes[i] == msg->idiag_inode)
            return true;
    }
    return false;
}

static void take_peer(struct pcmig_link *link, const struct inet_diag_msg *msg)
{
    memset(&link->peer, 0, sizeof(link->peer));
    link->peer.ss_family = msg->idiag_family;
    if (msg->idiag_family == AF_INET)
        memcpy(&((struct sockaddr_in *)&link->peer)->sin_addr, msg->id.idiag_dst, sizeof(struct in_addr));
    else
        memcpy(&((struct sockaddr_in6 *)&link->peer)->sin6_addr, msg->id.idiag_dst, sizeof(struct in6_addr));
}

static void take_silence(struct sum *sum, const struct nlmsghdr *header, const struct inet_diag_msg *msg)
{
    int left = (int)header->nlmsg_len - (int)NLMSG_LENGTH(sizeof(*msg));

    for (const struct rtattr *attr = (const struct rtattr *)(msg + 1); RTA_OK(attr, left);
         attr = RTA_NEXT(attr, left)) {
        struct tcp_info info;

        if (attr->rta_type != INET_DIAG_INFO || RTA_PAYLOAD(attr) < offsetof(struct tcp_info, tcpi_rtt))
            continue;
        memset(&info, 0, sizeof(info));
        memcpy(&info, RTA_DATA(attr), RTA_PAYLOAD(attr) < sizeof(info) ? RTA_PAYLOAD(attr) : sizeof(info));
        if (info.tcpi_unacked > 0 && info.tcpi_last_ack_recv > sum->silence_ms)
            sum->silence_ms = info.tcpi_last_ack_recv;
    }
}

static void take(struct pcmig_link *link, struct sum *sum, const struct nlmsghdr *header)
{
    const struct inet_diag_msg *msg = NLMSG_DATA(header);

    if (header->nlmsg_len < NLMSG_LENGTH(sizeof(*msg)) || !is_migration(link, msg))
        return;
    sum->bytes += msg->idiag_wqueue;
    sum->found++;
    take_peer(link, msg);
    take_silence(sum, header, msg);
    if (sum->stream_count < MAX_STREAMS)
        sum->streams[sum->stream_count++] = (struct stream){msg->idiag_family, msg->id};
}

/* Adds up one address family. Returns 0, or -1 on error. */
static int sum_family(struct pcmig_link *link, uint8_t family, bool silence, struct sum *sum)
{
    struct {
        struct nlmsghdr header;
        struct inet_diag_req_v2 request;
    } query = {
        .header = {.nlmsg_len = sizeof(query),
                   .nlmsg_type = SOCK_DIAG_BY_FAMILY,
                   .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP,
                   .nlmsg_seq = ++link->sequence},
        .request = {.sdiag_family = family,
                    .sdiag_protocol = IPPROTO_TCP,
                    .idiag_ext = silence ? 1 << (INET_DIAG_INFO - 1) : 0,
                    .idiag_states = 1 << TCP_ESTABLISHED},
    };
    _Alignas(struct nlmsghdr) char buf[32768];

    if (send(link->fd, &query, sizeof(query), 0) != (ssize_t)sizeof(query))
        return -1;
    for (;;) {
        ssize_t n = recv(link->fd, buf, sizeof(buf), 0);
        struct nlmsghdr *header = (struct nlmsghdr *)buf;

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return -1;
        for (; NLMSG_OK(header, (size_t)n); header = NLMSG_NEXT(header, n)) {
            if (header->nlmsg_seq != link->sequence)
                continue;
            if (header->nlmsg_type == NLMSG_DONE)
                return 0;
            if (header->nlmsg_type == NLMSG_ERROR)
                return -1;
            take(link, sum, header);
        }
    }
}

static bool is_known(const struct pcmig_link *link, const struct stream *stream)
{
    for (size_t i = 0; i < link->stream_count; i++) {
        if (link->streams[i].family == stream->family &&
            memcmp(&link->streams[i].id, &stream->id, sizeof(stream->id)) == 0)
            return true;
    }
    return false;
}

/* QEMU closes its connections one after the other. Those that are left while it does must not make the others forgotten:
 * the destination may not have noticed. A migration's next stream has new connections. */
static void remember(struct pcmig_link *link, const struct sum *sum)
{
    for (size_t i = 0; i < sum->stream_count; i++) {
        if (!is_known(link, &sum->streams[i])) {
            link->stream_count = sum->stream_count;
            memcpy(link->streams, sum->streams, sum->stream_count * sizeof(sum->streams[0]));
            return;
        }
    }
}

static void look(struct pcmig_link *link, bool silence, struct sum *sum)
{
    sum->bytes = sum->silence_ms = sum->found = 0;
    sum->stream_count = 0;
    if (link->pid_count == 0)
        find_qemu(link);
    /* Anew each time: the channel for page requests is opened in the middle of a migration. */
    link->inode_count = 0;
    link->qemu_seen = false;
    for (size_t i = 0; i < link->pid_count; i++)
        collect_inodes(link, link->pids[i]);
    /* A family that this kernel has not is one without connections. */
    (void)sum_family(link, AF_INET, silence, sum);
    (void)sum_family(link, AF_INET6, silence, sum);
    remember(link, sum);
}

int64_t pcmig_link_queue_bytes(struct pcmig_link *link)
{
    struct sum sum;

    look(link, false, &sum);
    return sum.found > 0 ? sum.bytes : -1;
}

int64_t pcmig_link_silence_ms(struct pcmig_link *link)
{
    struct sum sum;

    look(link, true, &sum);
    return sum.found > 0 ? sum.silence_ms : -1;
}

bool pcmig_link_peer(const struct pcmig_link *link, struct sockaddr_storage *out)
{
    *out = link->peer;
    return link->peer.ss_family != AF_UNSPEC;
}

/* --- waking the other end ------------------------------------------------------------------------------------------ */

/* Asks for, or destroys, the one socket of a stream. Returns its inode (0 = nobody holds it any more), -1 when there is
 * none or the kernel refuses. */
static int64_t one_socket(struct pcmig_link *link, const struct stream *stream, uint16_t type)
{
    struct {
        struct nlmsghdr header;
        struct inet_diag_req_v2 request;
    } query = {
        .header = {.nlmsg_len = sizeof(query),
                   .nlmsg_type = type,
                   .nlmsg_flags = NLM_F_REQUEST | (type == SOCK_DESTROY ? NLM_F_ACK : 0),
                   .nlmsg_seq = ++link->sequence},
        .request = {.sdiag_family = stream->family,
                    .sdiag_protocol = IPPROTO_TCP,
                    .idiag_states = ~0U,
                    .id = stream->id},
    };
    _Alignas(struct nlmsghdr) char buf[4096];
    struct nlmsghdr *header = (struct nlmsghdr *)buf;
    const struct inet_diag_msg *msg = NLMSG_DATA(header);
    ssize_t n;

    query.request.id.idiag_cookie[0] = query.request.id.idiag_cookie[1] = INET_DIAG_NOCOOKIE;
    if (send(link->fd, &query, sizeof(query), 0) != (ssize_t)sizeof(query))
        return -1;
    do {
        n = recv(link->fd, buf, sizeof(buf), 0);
    } while ((n < 0 && errno == EINTR) ||
             (n > 0 && NLMSG_OK(header, (size_t)n) && header->nlmsg_seq != link->sequence));
    if (n <= 0 || !NLMSG_OK(header, (size_t)n) || header->nlmsg_type != SOCK_DIAG_BY_FAMILY ||
        header->nlmsg_len < NLMSG_LENGTH(sizeof(*msg)))
        return -1;
    return (int64_t)msg->idiag_inode;
}

static socklen_t address(const struct stream *stream, bool peer, struct sockaddr_storage *out)
{
    const void *from = peer ? (const void *)stream->id.idiag_dst : (const void *)stream->id.idiag_src;
    uint16_t port = peer ? stream->id.idiag_dport : stream->id.idiag_sport;

    memset(out, 0, sizeof(*out));
    if (stream->family == AF_INET) {
        struct sockaddr_in *in = (struct sockaddr_in *)out;

        in->sin_family = AF_INET;
        in->sin_port = port;
        memcpy(&in->sin_addr, from, sizeof(in->sin_addr));
        return sizeof(*in);
    } else {
        struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)out;

        in6->sin6_family = AF_INET6;
        in6->sin6_port = port;
        in6->sin6_scope_id = stream->id.idiag_if;
        memcpy(&in6->sin6_addr, from, sizeof(in6->sin6_addr));
        return sizeof(*in6);
    }
}

/* Has the socket ignore a listener's answer (SYN and ACK), so that no connection comes of it: QEMU at the destination listens
 * at its port for as long as the migration lasts, takes any connection there for the resumed stream, and a false one
 * spoils the true one. The filter sees segments from their TCP header on (Linux, net/ipv4/tcp_ipv4.c, tcp_v4_rcv). */
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

static void knock(const struct stream *stream, int wait_ms)
{
    struct sockaddr_storage local, peer;
    socklen_t local_size = address(stream, false, &local), peer_size = address(stream, true, &peer);
    int fd = socket(stream->family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct pollfd wait = {.fd = fd, .events = POLLOUT};
    int one = 1;

    if (fd < 0)
        return;
    if (refuse_to_connect(fd) == 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) == 0 &&
        bind(fd, (struct sockaddr *)&local, local_size) == 0 && connect(fd, (struct sockaddr *)&peer, peer_size) < 0 &&
        errno == EINPROGRESS)
        (void)poll(&wait, 1,
                   wait_ms); /* whatever comes of it, the other end has answered by then, or cannot be reached */
    close(fd);
}

unsigned pcmig_link_wake(struct pcmig_link *link, int wait_ms)
{
    unsigned tried = 0;

    for (size_t i = 0; i < link->stream_count; i++) {
        int64_t inode = one_socket(link, &link->streams[i], SOCK_DIAG_BY_FAMILY);

        if (inode > 0)
            continue; /* QEMU has it: this stream lives */
        if (inode == 0)
            (void)one_socket(link, &link->streams[i], SOCK_DESTROY);
        knock(&link->streams[i], wait_ms);
        tried++;
    }
    return tried;
}
