/* SPDX-License-Identifier: Apache-2.0 */
/* See listeners.h. */
#include "tunnel/admission/listeners.h"

#include "tunnel/stream/carrier.h"
#include "tunnel/peer.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ACCEPTS = 64 /* in one round: orders and timers have their turn too */ };

struct pcmig_listener {
    struct pcmig_source source;
    struct pcmig_task grave, more;
    struct pcmig_tunnel *tunnel;
    char *where;
    uint16_t port;
};

/* --- accepting ---------------------------------------------------------------------------------------------------- */

static void on_connection(struct pcmig_source *source, uint32_t events)
{
    struct pcmig_listener *listener =
        (struct pcmig_listener *)(void *)((char *)source - offsetof(struct pcmig_listener, source));

    (void)events;
    if (source->fd < 0)
        return;
    for (unsigned i = 0; i < ACCEPTS; i++) {
        struct sockaddr_storage address = {0};
        socklen_t len = sizeof(address);
        const int fd = accept4(source->fd, (struct sockaddr *)&address, &len, SOCK_CLOEXEC | SOCK_NONBLOCK);

        if (fd >= 0) {
            (void)pcmig_carrier_accept(pcmig_tunnel_worker(listener->tunnel), fd, (struct sockaddr *)&address, len);
            continue;
        }
        if (errno == EAGAIN || errno == EWOULDBLOCK)
            return;
        if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
            /* Looked at again with the next tick. */
            pcmig_messages_add(listener->tunnel->messages, PCMIG_MESSAGES_LIMIT, PCMIG_MESSAGES_ERROR,
                               "no connection can be accepted: %s", strerror(errno));
            return;
        }
        /* Anything else is about the one connection that failed (accept(2)). */
    }
    pcmig_loop_again(listener->tunnel->loop, &listener->more);
}

static void on_more(struct pcmig_task *task)
{
    on_connection(&((struct pcmig_listener *)(void *)((char *)task - offsetof(struct pcmig_listener, more)))->source,
                  0);
}

void pcmig_listeners_look(struct pcmig_tunnel *tunnel)
{
    for (unsigned i = 0; i < tunnel->listener_count; i++)
        on_connection(&tunnel->listeners[i]->source, 0);
}

/* --- which there are ---------------------------------------------------------------------------------------------- */

static void on_grave(struct pcmig_task *task)
{
    struct pcmig_listener *listener =
        (struct pcmig_listener *)(void *)((char *)task - offsetof(struct pcmig_listener, grave));

    free(listener->where);
    free(listener);
}

static void listener_close(struct pcmig_listener *listener)
{
    struct pcmig_loop *loop = listener->tunnel->loop;

    pcmig_loop_close(loop, &listener->source);
    pcmig_loop_bury(loop, &listener->grave);
}

/* NULL with a sentence in ERROR. BESIDE: another socket of this daemon may have the same port. */
static struct pcmig_listener *listener_new(struct pcmig_tunnel *tunnel, const char *where, const char *congestion,
                                           bool beside, char error[PCMIG_TUNNEL_ERROR_BYTES])
{
    struct pcmig_listener *listener = calloc(1, sizeof(*listener));

    if (listener == NULL || (listener->where = strdup(where)) == NULL) {
        free(listener);
        snprintf(error, PCMIG_TUNNEL_ERROR_BYTES, "memory is short");
        return NULL;
    }
    listener->tunnel = tunnel;
    listener->grave.run = on_grave;
    listener->more.run = on_more;
    listener->source.ready = on_connection;
    listener->source.fd = pcmig_peer_listen(where, congestion, beside, error, PCMIG_TUNNEL_ERROR_BYTES);
    if (listener->source.fd < 0) {
        free(listener->where);
        free(listener);
        return NULL;
    }
    if (error[0] != '\0')
        pcmig_messages_add(tunnel->messages, PCMIG_MESSAGES_LIFE, PCMIG_MESSAGES_WARNING, "%s", error);
    listener->port = pcmig_peer_local_port(listener->source.fd);
    errno = pcmig_loop_watch(tunnel->loop, &listener->source, EPOLLIN);
    if (errno != 0) {
        snprintf(error, PCMIG_TUNNEL_ERROR_BYTES, "%s: %s", where, strerror(errno));
        listener_close(listener);
        return NULL;
    }
    return listener;
}

static struct pcmig_listener *find(const struct pcmig_tunnel *tunnel, const char *where)
{
    for (unsigned i = 0; i < tunnel->listener_count; i++) {
        if (strcmp(tunnel->listeners[i]->where, where) == 0)
            return tunnel->listeners[i];
    }
    return NULL;
}

static bool is_in(struct pcmig_listener *const *list, size_t count, const struct pcmig_listener *listener)
{
    for (size_t i = 0; i < count; i++) {
        if (list[i] == listener)
            return true;
    }
    return false;
}

bool pcmig_listeners_change(struct pcmig_tunnel *tunnel, const struct pcmig_rules *rules,
                            char error[PCMIG_TUNNEL_ERROR_BYTES])
{
    const struct pcmig_tunnel_config *config = &rules->config;
    struct pcmig_listener *after[PCMIG_LISTENERS_MAX] = {0}, **before = tunnel->listeners;
    const unsigned before_count = tunnel->listener_count;
    const bool beside = before_count > 0;
    size_t made = 0;

    /* The new are there before the old are closed, also where one of both is of all addresses. */
    for (unsigned i = 0; i < before_count; i++) {
        if (!pcmig_peer_set_congestion(before[i]->source.fd, config->congestion)) {
            pcmig_peer_explain_congestion(config->congestion, error, PCMIG_TUNNEL_ERROR_BYTES);
            return false;
        }
        pcmig_peer_share_port(before[i]->source.fd, true);
    }
    while (made < config->listen_count) {
        after[made] = find(tunnel, config->listen[made]);
        if (after[made] == NULL)
            after[made] = listener_new(tunnel, config->listen[made], config->congestion, beside, error);
        if (after[made] == NULL)
            break;
        made++;
    }
    if (made < config->listen_count) {
        for (size_t i = 0; i < made; i++) {
            if (!is_in(before, before_count, after[i]))
                listener_close(after[i]);
        }
    } else {
        for (unsigned i = 0; i < before_count; i++) {
            if (!is_in(after, made, before[i]))
                listener_close(before[i]);
        }
        memcpy(tunnel->listeners, after, sizeof(after));
        tunnel->listener_count = (unsigned)made;
    }
    for (unsigned i = 0; i < tunnel->listener_count; i++)
        pcmig_peer_share_port(tunnel->listeners[i]->source.fd, false);
    return made == config->listen_count;
}

void pcmig_listeners_close(struct pcmig_tunnel *tunnel)
{
    if (tunnel->listener_count == 0)
        return;
    for (unsigned i = 0; i < tunnel->listener_count; i++)
        listener_close(tunnel->listeners[i]);
    tunnel->listener_count = 0;
    pcmig_loop_drain(tunnel->loop);
}

size_t pcmig_listeners_ports(const struct pcmig_tunnel *tunnel, uint16_t *ports, size_t size)
{
    for (size_t i = 0; i < tunnel->listener_count && i < size; i++)
        ports[i] = tunnel->listeners[i]->port;
    return tunnel->listener_count < size ? tunnel->listener_count : size;
}
