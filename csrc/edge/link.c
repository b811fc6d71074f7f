/* See link.h. */
#include "edge/link.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
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

/* Adds up one address family. Returns the number of connections, -1 on error. */
static int sum_family(struct pcmig_link *link, uint8_t family, int64_t *bytes)
{
    struct {
        struct nlmsghdr header;
        struct inet_diag_req_v2 request;
    } query = {
        .header = {.nlmsg_len = sizeof(query),
                   .nlmsg_type = SOCK_DIAG_BY_FAMILY,
                   .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP,
                   .nlmsg_seq = ++link->sequence},
        .request = {.sdiag_family = family, .sdiag_protocol = IPPROTO_TCP, .idiag_states = 1 << TCP_ESTABLISHED},
    };
    _Alignas(struct nlmsghdr) char buf[32768];
    int found = 0;

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
            const struct inet_diag_msg *msg = NLMSG_DATA(header);

            if (header->nlmsg_seq != link->sequence)
                continue;
            if (header->nlmsg_type == NLMSG_DONE)
                return found;
            if (header->nlmsg_type == NLMSG_ERROR)
                return -1;
            if (header->nlmsg_len < NLMSG_LENGTH(sizeof(*msg)) || !is_migration(link, msg))
                continue;
            *bytes += msg->idiag_wqueue;
            found++;
            take_peer(link, msg);
        }
    }
}

int64_t pcmig_link_queue_bytes(struct pcmig_link *link)
{
    int64_t bytes = 0;
    int v4, v6;

    if (link->pid_count == 0)
        find_qemu(link);
    /* Anew each time: the channel for page requests is opened in the middle of a migration. */
    link->inode_count = 0;
    link->qemu_seen = false;
    for (size_t i = 0; i < link->pid_count; i++)
        collect_inodes(link, link->pids[i]);
    v4 = sum_family(link, AF_INET, &bytes);
    v6 = sum_family(link, AF_INET6, &bytes);
    return v4 > 0 || v6 > 0 ? bytes : -1;
}

bool pcmig_link_peer(const struct pcmig_link *link, struct sockaddr_storage *out)
{
    *out = link->peer;
    return link->peer.ss_family != AF_UNSPEC;
}
