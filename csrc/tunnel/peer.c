/* SPDX-License-Identifier: Apache-2.0 */
/* See peer.h. */
#include "tunnel/peer.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    BACKLOG = 128,
    /* What TCP holds that is not on the wire yet. A page request's answer waits behind it. */
    NOTSENT_BYTES = 128 << 10,
};

struct pcmig_peer *pcmig_peer_new(const char *name, uint16_t port)
{
    struct pcmig_peer *peer = calloc(1, sizeof(*peer));

    if (peer == NULL)
        return NULL;
    atomic_init(&peer->references, 1);
    snprintf(peer->name, sizeof(peer->name), "%s", name);
    peer->port = port;
    return peer;
}

struct pcmig_peer *pcmig_peer_ref(struct pcmig_peer *peer)
{
    atomic_fetch_add(&peer->references, 1);
    return peer;
}

void pcmig_peer_unref(struct pcmig_peer *peer)
{
    if (peer != NULL && atomic_fetch_sub(&peer->references, 1) == 1)
        free(peer);
}

const char *pcmig_peer_resolve(struct pcmig_peer *peer)
{
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    char port[8];
    int error;

    snprintf(port, sizeof(port), "%u", peer->port);
    error = getaddrinfo(peer->name, port, &hints, &found);
    if (error != 0)
        return gai_strerror(error);
    peer->count = 0;
    for (const struct addrinfo *a = found; a != NULL && peer->count < PCMIG_PEER_ADDRESSES; a = a->ai_next) {
        if (a->ai_addrlen > sizeof(peer->addresses[0].address))
            continue;
        memcpy(&peer->addresses[peer->count].address, a->ai_addr, a->ai_addrlen);
        peer->addresses[peer->count++].len = a->ai_addrlen;
    }
    freeaddrinfo(found);
    return peer->count > 0 ? NULL : "it has no address";
}

void pcmig_peer_tune(int fd)
{
    static const struct {
        int option;
        int value;
    } options[] = {
        {TCP_NODELAY, 1},
        {TCP_NOTSENT_LOWAT, NOTSENT_BYTES},
    };

    /* None of them is needed to be right, only to be quick. */
    for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++)
        (void)setsockopt(fd, IPPROTO_TCP, options[i].option, &options[i].value, sizeof(options[i].value));
}

bool pcmig_peer_set_congestion(int fd, const char *name)
{
    static const char usual[] = "cubic";

    if (name != NULL && strcmp(name, "host") == 0)
        return true;
    if (name != NULL)
        return setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, (socklen_t)strlen(name)) == 0;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, usual, sizeof(usual) - 1);
    return true;
}

void pcmig_peer_explain_congestion(const char *name, char *error, size_t error_size)
{
    snprintf(
        error, error_size,
        "the congestion control '%s' cannot be used: %s; net.ipv4.tcp_available_congestion_control says what there "
        "is, and 'host' means what the host has",
        name, strerror(errno));
}

void pcmig_peer_congestion(int fd, char name[PCMIG_PEER_CONGESTION_BYTES])
{
    socklen_t len = PCMIG_PEER_CONGESTION_BYTES;

    if (getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &len) < 0)
        name[0] = '\0';
    name[PCMIG_PEER_CONGESTION_BYTES - 1] = '\0';
}

void pcmig_peer_bound_unread(int fd, int bytes)
{
    socklen_t len = sizeof(int);
    int got = 0;

    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes)) == 0)
        return;
    /* The kernel doubles the value for its own bookkeeping, and cuts it silently to net.core.rmem_max (socket(7)). Down
     * to half of what was asked for it is no less a bound, and leaves what is under way room to grow. */
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes)) == 0 &&
        getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &got, &len) == 0 && got >= bytes)
        return;
#ifdef SO_BUF_LOCK
    got = 0; /* back to the kernel's own choice (Linux >= 5.15) */
    (void)setsockopt(fd, SOL_SOCKET, SO_BUF_LOCK, &got, sizeof(got));
#endif
}

int pcmig_peer_connect(const struct pcmig_peer *peer, unsigned at, const char *congestion)
{
    const struct sockaddr *address = (const struct sockaddr *)&peer->addresses[at].address;
    const int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int error;

    if (fd < 0)
        return -1;
    pcmig_peer_tune(fd);
    (void)pcmig_peer_set_congestion(fd, congestion); /* that the kernel has it was seen when listening began */
    if (connect(fd, address, peer->addresses[at].len) == 0 || errno == EINPROGRESS)
        return fd;
    error = errno;
    close(fd);
    errno = error;
    return -1;
}

void pcmig_peer_print(const struct sockaddr *address, socklen_t len, char text[PCMIG_PEER_TEXT_BYTES])
{
    char host[64], port[8];

    if (getnameinfo(address, len, host, sizeof(host), port, sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
        snprintf(text, PCMIG_PEER_TEXT_BYTES, "?");
        return;
    }
    /* An address of IPv4 that came to a socket of both versions. */
    if (strncmp(host, "::ffff:", 7) == 0 && strchr(host, '.') != NULL)
        memmove(host, host + 7, strlen(host + 7) + 1);
    snprintf(text, PCMIG_PEER_TEXT_BYTES, strchr(host, ':') != NULL ? "[%s]:%s" : "%s:%s", host, port);
}

void pcmig_peer_share_port(int fd, bool may)
{
    const int value = may;

    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &value, sizeof(value)); /* if not, bind says so */
}

/* At boot the daemon may be there before its address is. */
static bool bind_even_early(int fd, const struct addrinfo *where, bool *early)
{
    const bool six = where->ai_family == AF_INET6;
    const int yes = 1;

    *early = false;
    if (bind(fd, where->ai_addr, where->ai_addrlen) == 0)
        return true;
    if (errno != EADDRNOTAVAIL ||
        setsockopt(fd, six ? IPPROTO_IPV6 : IPPROTO_IP, six ? IPV6_FREEBIND : IP_FREEBIND, &yes, sizeof(yes)) < 0)
        return false;
    *early = true;
    return bind(fd, where->ai_addr, where->ai_addrlen) == 0;
}

int pcmig_peer_listen(const char *where, const char *congestion, bool beside, char *error, size_t error_size)
{
    const struct addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE};
    const char *colon = strrchr(where, ':');
    const size_t len = colon != NULL ? (size_t)(colon - where) : 0;
    struct addrinfo *found = NULL;
    char host[64];
    int fd = -1, status, yes = 1, no = 0;
    bool early = false;

    if (colon == NULL || len == 0 || len >= sizeof(host)) {
        snprintf(error, error_size, "'%s' is no address to listen on: ADDRESS:PORT, [ADDRESS]:PORT or *:PORT", where);
        return -1;
    }
    memcpy(host, where, len);
    host[len] = '\0';
    if (host[0] == '[' && host[len - 1] == ']') {
        memmove(host, host + 1, len - 2);
        host[len - 2] = '\0';
    }
    status = getaddrinfo(strcmp(host, "*") == 0 ? "::" : host, colon + 1, &hints, &found);
    if (status != 0) {
        snprintf(error, error_size,
                 "'%s' is no address to listen on: %s; give an IP address of this host, or [::] for all", where,
                 gai_strerror(status));
        return -1;
    }
    fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0)
        (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
    if (fd >= 0)
        pcmig_peer_share_port(fd, beside);
    if (fd >= 0 && found->ai_family == AF_INET6)
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof(no));
    /* Who is accepted has it from here. */
    if (fd >= 0 && !pcmig_peer_set_congestion(fd, congestion)) {
        pcmig_peer_explain_congestion(congestion, error, error_size);
        close(fd);
        fd = -1;
    } else if (fd < 0 || !bind_even_early(fd, found, &early) || listen(fd, BACKLOG) < 0) {
        snprintf(error, error_size, "cannot listen on %s: %s", where, strerror(errno));
        if (fd >= 0)
            close(fd);
        fd = -1;
    }
    freeaddrinfo(found);
    if (fd >= 0)
        snprintf(error, error_size, "%s%s", early ? where : "",
                 early ? " is no address of this host yet: nobody gets through there until it is" : "");
    return fd;
}

uint16_t pcmig_peer_local_port(int fd)
{
    struct sockaddr_storage address = {0};
    socklen_t len = sizeof(address);

    if (getsockname(fd, (struct sockaddr *)&address, &len) < 0)
        return 0;
    if (address.ss_family == AF_INET6)
        return ntohs(((struct sockaddr_in6 *)&address)->sin6_port);
    return address.ss_family == AF_INET ? ntohs(((struct sockaddr_in *)&address)->sin_port) : 0;
}
