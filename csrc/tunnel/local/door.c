/* SPDX-License-Identifier: Apache-2.0 */
/* See door.h. */
#include "tunnel/local/door.h"

#include "tunnel/stream/carrier.h"
#include "tunnel/stream/stream.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

/* Of one name. QEMU has two, one for each disk, or as many as it was told to spread its memory over. */
enum { STREAMS_MAX = 64 };

/* One connection LOCAL of QEMU becomes a stream, with all its carriers. Returns NULL, or why not. */
static const char *begin_stream(struct pcmig_door *door, int local)
{
    struct pcmig_tunnel *tunnel = door->tunnel;
    struct pcmig_account *account;
    struct pcmig_stream *stream = NULL;
    uint8_t id[PCMIG_TUNNEL_FRAME_STREAM_BYTES];
    const char *problem = "memory is short";

    if (!pcmig_tunnel_has_room(tunnel, false, door->connections)) {
        close(local);
        return "there are too many connections";
    }
    account = pcmig_registry_account(tunnel->registry, door->name, true);
    if (account != NULL && atomic_load(&account->streams_now) >= STREAMS_MAX) {
        pcmig_account_unref(account);
        close(local);
        return "it has too many streams already";
    }
    if (account != NULL && getrandom(id, sizeof(id), 0) == sizeof(id))
        stream = pcmig_stream_new(door->name, id, account, door->connections, local);
    pcmig_account_unref(account);
    if (stream == NULL) {
        close(local);
        return problem;
    }
    pcmig_stream_follow(stream, door->last);
    door->last = pcmig_stream_order(stream);
    if (pcmig_registry_add(tunnel->registry, stream)) {
        problem = NULL;
        for (unsigned i = 0; i < door->connections && problem == NULL; i++) {
            if (!pcmig_carrier_dial(pcmig_tunnel_worker(tunnel), door->peer, stream, i))
                problem = "memory is short";
        }
        if (problem != NULL) {
            pcmig_stream_end(stream, problem, false);
            pcmig_registry_remove(tunnel->registry, stream);
        }
    }
    pcmig_stream_unref(stream);
    return problem;
}

static void on_ready(struct pcmig_source *source, uint32_t events)
{
    struct pcmig_door *door = (struct pcmig_door *)(void *)((char *)source - offsetof(struct pcmig_door, source));

    (void)events;
    door->late = false;
    for (;;) {
        const int local = accept4(source->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        const char *problem;

        if (local < 0 && (errno == EINTR || errno == ECONNABORTED))
            continue;
        if (local < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return;
        problem = local < 0 ? strerror(errno) : begin_stream(door, local);
        pcmig_messages_add(door->tunnel->messages, PCMIG_MESSAGES_STREAM,
                           problem != NULL ? PCMIG_MESSAGES_ERROR : PCMIG_MESSAGES_INFO, "stream of %s to %s:%u%s%s",
                           door->name, door->peer->name, door->peer->port,
                           problem != NULL ? " cannot begin: " : " begins", problem != NULL ? problem : "");
        door->late = local < 0;
        if (local < 0)
            return;
    }
}

void pcmig_door_look(struct pcmig_door *door)
{
    if (door->late)
        on_ready(&door->source, 0);
}

static void on_grave(struct pcmig_task *task)
{
    struct pcmig_door *door = (struct pcmig_door *)(void *)((char *)task - offsetof(struct pcmig_door, grave));

    pcmig_stream_order_unref(door->last);
    pcmig_peer_unref(door->peer);
    free(door);
}

struct pcmig_door *pcmig_door_open(struct pcmig_tunnel *tunnel, const char *name, struct pcmig_peer *peer,
                                   unsigned connections, char error[PCMIG_PLACE_ERROR_BYTES])
{
    struct pcmig_door *door = calloc(1, sizeof(*door));

    if (door == NULL) {
        snprintf(error, PCMIG_PLACE_ERROR_BYTES, "memory is short");
        return NULL;
    }
    door->tunnel = tunnel;
    snprintf(door->name, sizeof(door->name), "%s", name);
    door->connections = connections;
    door->source.ready = on_ready;
    door->grave.run = on_grave;
    door->source.fd = pcmig_place_open_source(tunnel->config->run_dir, name, tunnel->config->owner_gid, error);
    if (door->source.fd < 0) {
        free(door);
        return NULL;
    }
    if ((errno = pcmig_loop_watch(tunnel->loop, &door->source, EPOLLIN)) != 0) {
        snprintf(error, PCMIG_PLACE_ERROR_BYTES, "%s", strerror(errno));
        pcmig_place_close_source(tunnel->config->run_dir, door->name);
        close(door->source.fd);
        free(door);
        return NULL;
    }
    door->peer = pcmig_peer_ref(peer);
    return door;
}

void pcmig_door_close(struct pcmig_door *door)
{
    if (door == NULL)
        return;
    pcmig_place_close_source(door->tunnel->config->run_dir, door->name);
    pcmig_loop_close(door->tunnel->loop, &door->source);
    pcmig_loop_bury(door->tunnel->loop, &door->grave);
}
