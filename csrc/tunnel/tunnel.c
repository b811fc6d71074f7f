/* SPDX-License-Identifier: Apache-2.0 */
/* See tunnel.h. */
#include "tunnel/tunnel.h"

#include "edge/clock.h"
#include "tunnel/carrier.h"
#include "tunnel/channel.h"
#include "tunnel/control.h"
#include "tunnel/internal.h"
#include "tunnel/peer.h"
#include "tunnel/place.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { TICK_US = 1000000, GRACE_STEP_MS = 20 };

void pcmig_tunnel_defaults(struct pcmig_tunnel_config *config)
{
    *config = (struct pcmig_tunnel_config){
        .owner_gid = (gid_t)-1,
        .socket_uid = (uid_t)-1,
        .control_gid = (gid_t)-1,
        .dead_after_ms = 5000,
        .handshake_ms = 10000,
        .socket_wait_ms = 5000,
        .dial_ms = 5000,
        .idle_name_ms = 24 * 3600 * 1000,
        .max_half_open = 256,
        .max_half_open_of_one = 32,
        .max_carriers = 1024,
    };
}

/* --- configuration ------------------------------------------------------------------------------------------------ */

/* Where the strings of a configuration hang, so that copying and freeing name each once. */
static const size_t strings[] = {
#define STRING(member) offsetof(struct pcmig_tunnel_config, member)
    STRING(run_dir),           STRING(control),   STRING(files.ca),
    STRING(files.certificate), STRING(files.key), STRING(files.dialler_certificate),
    STRING(files.dialler_key), STRING(files.crl), STRING(congestion),
#undef STRING
};

static char **string_at(struct pcmig_tunnel_config *config, size_t offset)
{
    return (char **)(void *)((char *)config + offset);
}

static void free_list(const char *const *list, size_t count)
{
    for (size_t i = 0; list != NULL && i < count; i++)
        free((char *)(uintptr_t)list[i]);
    free((void *)(uintptr_t)list);
}

static bool copy_list(const char *const **list, size_t count)
{
    const char *const *from = *list;
    const char **to = calloc(count + 1, sizeof(*to));
    bool complete = to != NULL;

    for (size_t i = 0; complete && i < count; i++)
        complete = (to[i] = strdup(from[i])) != NULL;
    *list = to;
    return complete;
}

static void config_free(struct pcmig_tunnel_config *config)
{
    for (size_t i = 0; i < sizeof(strings) / sizeof(strings[0]); i++)
        free(*string_at(config, strings[i]));
    free_list(config->listen, config->listen_count);
    free_list(config->allow, config->allow_count);
}

static bool config_copy(struct pcmig_tunnel_config *to, const struct pcmig_tunnel_config *from)
{
    bool complete;

    *to = *from;
    complete = copy_list(&to->listen, to->listen_count);
    complete = copy_list(&to->allow, to->allow_count) && complete;
    for (size_t i = 0; i < sizeof(strings) / sizeof(strings[0]); i++) {
        char **text = string_at(to, strings[i]);

        if (*text != NULL)
            complete = (*text = strdup(*text)) != NULL && complete;
    }
    return complete;
}

static bool config_check(const struct pcmig_tunnel_config *config, char error[PCMIG_TUNNEL_ERROR_BYTES])
{
    const char *problem = NULL;

    if (config->run_dir == NULL || config->control == NULL)
        problem = "run_dir and control have to be given";
    else if (!config->plaintext &&
             (config->files.ca == NULL || config->files.certificate == NULL || config->files.key == NULL))
        problem = "ca, certificate and key have to be given";
    else if ((config->files.dialler_certificate == NULL) != (config->files.dialler_key == NULL))
        problem = "a certificate for dialling needs its key, and the other way round";
    else if (config->listen_count > PCMIG_LISTENERS_MAX)
        problem = "there are at most 8 addresses to listen on";
    else if (config->workers > PCMIG_WORKERS_MAX)
        problem = "there are at most 8 workers";
    else if (config->dead_after_ms < 500)
        problem = "dead_after_ms has to be at least 500";
    else if (config->plaintext && config->allow_count > 0)
        problem = "without TLS nobody can be told from another: an allow list would mean nothing";
    if (problem != NULL)
        snprintf(error, PCMIG_TUNNEL_ERROR_BYTES, "%s", problem);
    return problem == NULL;
}

/* --- what the other files ask for --------------------------------------------------------------------------------- */

struct pcmig_tls *pcmig_tunnel_tls(struct pcmig_tunnel *tunnel)
{
    struct pcmig_tls *tls = NULL;

    pthread_mutex_lock(&tunnel->tls_lock);
    if (tunnel->tls != NULL)
        tls = pcmig_tls_ref(tunnel->tls);
    pthread_mutex_unlock(&tunnel->tls_lock);
    return tls;
}

struct pcmig_worker *pcmig_tunnel_worker(struct pcmig_tunnel *tunnel)
{
    struct pcmig_worker *best = &tunnel->workers[0];

    for (unsigned i = 1; i < tunnel->worker_count; i++) {
        if (atomic_load(&tunnel->workers[i].carrier_count) < atomic_load(&best->carrier_count))
            best = &tunnel->workers[i];
    }
    return best;
}

/* --- accepting ---------------------------------------------------------------------------------------------------- */

static void accept_one(struct pcmig_tunnel *tunnel, int fd, const struct sockaddr *address, socklen_t len)
{
    char text[PCMIG_PEER_TEXT_BYTES];
    int slot = -1;

    if (atomic_load(&tunnel->carrier_count) < tunnel->config.max_carriers)
        slot = pcmig_admission_enter(tunnel->admission, address);
    pcmig_peer_print(address, len, text);
    if (slot < 0) {
        close(fd);
        pcmig_messages_add(tunnel->messages, PCMIG_MESSAGES_LIMIT, PCMIG_MESSAGES_WARNING,
                           "refused a connection from %s: %s", text,
                           slot == -2 ? "too many from there have not shown who they are" : "there are too many");
        return;
    }
    if (!pcmig_carrier_accept(pcmig_tunnel_worker(tunnel), fd, text, slot))
        pcmig_admission_leave(tunnel->admission, slot);
}

static void on_connection(struct pcmig_source *source, uint32_t events)
{
    struct pcmig_listener *listener =
        (struct pcmig_listener *)(void *)((char *)source - offsetof(struct pcmig_listener, source));

    (void)events;
    for (;;) {
        struct sockaddr_storage address = {0};
        socklen_t len = sizeof(address);
        const int fd = accept4(source->fd, (struct sockaddr *)&address, &len, SOCK_CLOEXEC | SOCK_NONBLOCK);

        if (fd >= 0) {
            accept_one(listener->tunnel, fd, (struct sockaddr *)&address, len);
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
}

static void on_tick(struct pcmig_timer *timer)
{
    struct pcmig_tunnel *tunnel = (struct pcmig_tunnel *)(void *)((char *)timer - offsetof(struct pcmig_tunnel, tick));

    pcmig_messages_tick(tunnel->messages);
    pcmig_control_tidy(tunnel->control);
    for (unsigned i = 0; i < tunnel->listener_count; i++)
        on_connection(&tunnel->listeners[i].source, 0);
    pcmig_loop_set(tunnel->loop, timer, pcmig_loop_now_us(tunnel->loop) + TICK_US);
}

/* --- life --------------------------------------------------------------------------------------------------------- */

static void on_end_worker(struct pcmig_task *task)
{
    pcmig_carrier_end_all((struct pcmig_worker *)(void *)((char *)task - offsetof(struct pcmig_worker, end)),
                          "the daemon ends");
}

static bool make_workers(struct pcmig_tunnel *tunnel)
{
    const long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    unsigned count = tunnel->config.workers;

    if (count == 0)
        count = cpus < 1 ? 1 : cpus > PCMIG_WORKERS_MAX ? PCMIG_WORKERS_MAX : (unsigned)cpus;
    for (unsigned i = 0; i < count; i++) {
        struct pcmig_worker *worker = &tunnel->workers[i];
        char name[32];

        snprintf(name, sizeof(name), "pcmig-tunnel-%u", i);
        worker->tunnel = tunnel;
        worker->end.run = on_end_worker;
        worker->loop = pcmig_loop_new(name);
        worker->scratch = malloc(PCMIG_CHANNEL_BATCH_BYTES);
        tunnel->worker_count = i + 1;
        if (worker->loop == NULL || worker->scratch == NULL)
            return false;
    }
    return true;
}

static bool make_listeners(struct pcmig_tunnel *tunnel, char error[PCMIG_TUNNEL_ERROR_BYTES])
{
    for (size_t i = 0; i < tunnel->config.listen_count; i++) {
        struct pcmig_listener *listener = &tunnel->listeners[i];

        listener->tunnel = tunnel;
        listener->source.ready = on_connection;
        listener->source.fd =
            pcmig_peer_listen(tunnel->config.listen[i], tunnel->config.congestion, error, PCMIG_TUNNEL_ERROR_BYTES);
        if (listener->source.fd < 0)
            return false;
        listener->port = pcmig_peer_local_port(listener->source.fd);
        tunnel->listener_count++;
        errno = pcmig_loop_watch(tunnel->loop, &listener->source, EPOLLIN);
        if (errno != 0) {
            snprintf(error, PCMIG_TUNNEL_ERROR_BYTES, "%s: %s", tunnel->config.listen[i], strerror(errno));
            return false;
        }
    }
    return true;
}

struct pcmig_tunnel *pcmig_tunnel_new(const struct pcmig_tunnel_config *config, char error[PCMIG_TUNNEL_ERROR_BYTES])
{
    struct pcmig_tunnel *tunnel;
    char problem[PCMIG_TLS_ERROR_BYTES];

    if (!config_check(config, error))
        return NULL;
    tunnel = calloc(1, sizeof(*tunnel));
    if (tunnel == NULL || pthread_mutex_init(&tunnel->tls_lock, NULL) != 0) {
        free(tunnel);
        snprintf(error, PCMIG_TUNNEL_ERROR_BYTES, "memory is short");
        return NULL;
    }
    snprintf(error, PCMIG_TUNNEL_ERROR_BYTES, "memory or descriptors are short");
    if (!config_copy(&tunnel->config, config))
        goto err;
    tunnel->tick.fire = on_tick;
    tunnel->messages = pcmig_messages_new();
    tunnel->admission = pcmig_admission_new(config->max_half_open, config->max_half_open_of_one);
    tunnel->registry = pcmig_registry_new();
    tunnel->loop = pcmig_loop_new("pcmig-tunnel");
    tunnel->resolver = pcmig_loop_new("pcmig-resolver");
    if (tunnel->messages == NULL || tunnel->admission == NULL || tunnel->registry == NULL || tunnel->loop == NULL ||
        tunnel->resolver == NULL || !make_workers(tunnel))
        goto err;
    if (!config->plaintext) {
        tunnel->tls = pcmig_tls_new(&tunnel->config.files, problem);
        if (tunnel->tls == NULL) {
            snprintf(error, PCMIG_TUNNEL_ERROR_BYTES, "%s", problem);
            goto err;
        }
    }
    if (!pcmig_place_prepare(config->run_dir, config->owner_gid, problem)) {
        snprintf(error, PCMIG_TUNNEL_ERROR_BYTES, "%s", problem);
        goto err;
    }
    if (!make_listeners(tunnel, error))
        goto err;
    tunnel->control = pcmig_control_new(tunnel, error);
    if (tunnel->control == NULL)
        goto err;
    return tunnel;

err:
    pcmig_tunnel_free(tunnel);
    return NULL;
}
_Static_assert(PCMIG_TLS_ERROR_BYTES >= PCMIG_PLACE_ERROR_BYTES, "one buffer for both");

bool pcmig_tunnel_start(struct pcmig_tunnel *tunnel, char error[PCMIG_TUNNEL_ERROR_BYTES])
{
    int failed;

    if (tunnel->started || atomic_load(&tunnel->stopping)) {
        snprintf(error, PCMIG_TUNNEL_ERROR_BYTES, "the tunnel was started before");
        return false;
    }
    tunnel->started = true;
    pcmig_loop_set(tunnel->loop, &tunnel->tick, pcmig_clock_us() + TICK_US);
    failed = pcmig_loop_start(tunnel->resolver);
    for (unsigned i = 0; i < tunnel->worker_count && failed == 0; i++)
        failed = pcmig_loop_start(tunnel->workers[i].loop);
    if (failed == 0)
        failed = pcmig_loop_start(tunnel->loop);
    if (failed != 0) {
        snprintf(error, PCMIG_TUNNEL_ERROR_BYTES, "a thread cannot be started: %s", strerror(failed));
        pcmig_tunnel_stop(tunnel, 0);
        return false;
    }
    pcmig_messages_add(tunnel->messages, PCMIG_MESSAGES_LIFE, PCMIG_MESSAGES_INFO, "the tunnel runs%s%s%s",
                       tunnel->tls != NULL ? " as " : "", tunnel->tls != NULL ? pcmig_tls_subject(tunnel->tls) : "",
                       tunnel->tls != NULL ? "" : " WITHOUT encryption: guests' memory is sent in clear");
    return true;
}

/* Without threads: nobody can connect any more, and the sockets' files are gone. */
static void close_sockets(struct pcmig_tunnel *tunnel)
{
    pcmig_control_free(tunnel->control);
    tunnel->control = NULL;
    for (unsigned i = 0; i < tunnel->listener_count; i++)
        pcmig_loop_close(tunnel->loop, &tunnel->listeners[i].source);
}

void pcmig_tunnel_stop(struct pcmig_tunnel *tunnel, unsigned grace_ms)
{
    const struct timespec step = {.tv_nsec = GRACE_STEP_MS * 1000000};

    atomic_store(&tunnel->stopping, true);
    if (!tunnel->started)
        return;
    for (unsigned waited = 0; waited < grace_ms && pcmig_registry_streams(tunnel->registry) > 0;
         waited += GRACE_STEP_MS)
        nanosleep(&step, NULL);
    /* In this order nobody is left who could give work to a thread that has ended. */
    pcmig_loop_stop(tunnel->loop);
    pcmig_loop_stop(tunnel->resolver);
    pcmig_loop_drain(tunnel->resolver);
    for (unsigned i = 0; i < tunnel->worker_count; i++) {
        pcmig_loop_post(tunnel->workers[i].loop, &tunnel->workers[i].end);
        pcmig_loop_stop(tunnel->workers[i].loop);
        pcmig_loop_drain(tunnel->workers[i].loop);
    }
    pcmig_loop_drain(tunnel->loop);
    for (unsigned i = 0; i < tunnel->worker_count; i++) /* what the drained control thread still asked for */
        pcmig_loop_drain(tunnel->workers[i].loop);
    close_sockets(tunnel);
    tunnel->started = false;
}

void pcmig_tunnel_free(struct pcmig_tunnel *tunnel)
{
    if (tunnel == NULL)
        return;
    pcmig_tunnel_stop(tunnel, 0);
    close_sockets(tunnel);
    for (unsigned i = 0; i < tunnel->worker_count; i++) {
        pcmig_loop_free(tunnel->workers[i].loop);
        free(tunnel->workers[i].scratch);
    }
    pcmig_loop_free(tunnel->resolver);
    pcmig_loop_free(tunnel->loop);
    pcmig_tls_unref(tunnel->tls);
    pcmig_registry_free(tunnel->registry);
    pcmig_admission_free(tunnel->admission);
    pcmig_messages_free(tunnel->messages);
    pthread_mutex_destroy(&tunnel->tls_lock);
    config_free(&tunnel->config);
    free(tunnel);
}

bool pcmig_tunnel_reload(struct pcmig_tunnel *tunnel, char error[PCMIG_TUNNEL_ERROR_BYTES])
{
    char problem[PCMIG_TLS_ERROR_BYTES];
    struct pcmig_tls *tls, *before;

    if (tunnel->config.plaintext)
        return true;
    tls = pcmig_tls_new(&tunnel->config.files, problem);
    if (tls == NULL) {
        snprintf(error, PCMIG_TUNNEL_ERROR_BYTES, "the certificates stay as they were: %s", problem);
        pcmig_messages_add(tunnel->messages, PCMIG_MESSAGES_LIFE, PCMIG_MESSAGES_ERROR, "%s", error);
        return false;
    }
    pthread_mutex_lock(&tunnel->tls_lock);
    before = tunnel->tls;
    tunnel->tls = tls;
    pcmig_messages_add(tunnel->messages, PCMIG_MESSAGES_LIFE, PCMIG_MESSAGES_INFO, "certificates were read again: %s",
                       pcmig_tls_subject(tls));
    pthread_mutex_unlock(&tunnel->tls_lock);
    pcmig_tls_unref(before);
    return true;
}

struct pcmig_messages *pcmig_tunnel_messages(struct pcmig_tunnel *tunnel)
{
    return tunnel->messages;
}

size_t pcmig_tunnel_ports(const struct pcmig_tunnel *tunnel, uint16_t *ports, size_t size)
{
    for (size_t i = 0; i < tunnel->listener_count && i < size; i++)
        ports[i] = tunnel->listeners[i].port;
    return tunnel->listener_count < size ? tunnel->listener_count : size;
}
