/* SPDX-License-Identifier: Apache-2.0 */
/* See control.h. */
#include "tunnel/control.h"

#include "core/tunnel_request.h"
#include "edge/clock.h"
#include "tunnel/stream/carrier.h"
#include "tunnel/local/door.h"
#include "tunnel/internal.h"
#include "tunnel/local/place.h"

#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

/* Of all clients, and of those that are neither root nor the daemon's user: its group cannot lock them out. */
enum { CLIENTS_MAX = 64, OTHERS_MAX = 56 };
/* Whoever has asked for nothing and waits for nothing for so long makes room. */
#define IDLE_US 1000000

struct client {
    struct pcmig_control *control;
    struct pcmig_source source;
    struct pcmig_task grave;
    bool busy;       /* a job answers later; until then no further request is read */
    bool closed;     /* goes when the job is done */
    bool other;      /* neither root nor the daemon's user */
    int64_t used_us; /* when it asked for something, or had an answer, last */
    unsigned reload; /* the number of the reload that it waits for, or 0 */
    size_t len;
    char line[PCMIG_TUNNEL_REQUEST_LINE_BYTES];
    struct client *next;
};

/* A request that takes a name server or another daemon to answer. */
struct job {
    struct pcmig_control *control;
    struct client *client;
    struct pcmig_task task; /* of one thread after the other */
    struct pcmig_tunnel_request request;
    struct pcmig_peer *peer;
    uint64_t door; /* its number: what "open" is about */
    bool made;     /* by this job, to be closed if the probe fails */
    const char *unresolved;
    struct pcmig_probe_result result;
};

struct pcmig_control {
    struct pcmig_tunnel *tunnel;
    struct pcmig_source source;
    char path[PCMIG_PLACE_PATH_BYTES];
    bool late; /* a connection found no descriptor */
    unsigned client_count, other_count;
    struct client *clients;
    struct pcmig_door *doors;
    uint64_t doors_ever;
};

#define OWNER(pointer, type, member) ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

/* --- clients ------------------------------------------------------------------------------------------------------ */

static void on_grave(struct pcmig_task *task)
{
    free(OWNER(task, struct client, grave));
}

static void drop(struct client *client)
{
    struct pcmig_control *control = client->control;
    struct client **at = &control->clients;

    client->closed = true;
    pcmig_loop_close(control->tunnel->loop, &client->source);
    if (client->busy)
        return;
    while (*at != client)
        at = &(*at)->next;
    *at = client->next;
    control->client_count--;
    control->other_count -= client->other;
    pcmig_loop_bury(control->tunnel->loop, &client->grave);
}

/* One line. An answer that does not fit into the socket's buffer has a reader who does not read: it is dropped with it.
 */
__attribute__((format(printf, 2, 3))) static void answer(struct client *client, const char *format, ...)
{
    va_list args;
    char *line;
    int len;

    if (client->closed)
        return;
    va_start(args, format);
    len = vasprintf(&line, format, args);
    va_end(args);
    if (len < 0) {
        shutdown(client->source.fd, SHUT_RDWR);
        return;
    }
    for (int i = 0; i < len; i++) {
        if (line[i] == '\n')
            line[i] = ' ';
    }
    line[len] = '\n'; /* in place of the NUL */
    if (send(client->source.fd, line, (size_t)len + 1, MSG_DONTWAIT | MSG_NOSIGNAL) != len + 1)
        shutdown(client->source.fd, SHUT_RDWR);
    free(line);
}

/* --- requests that are answered at once --------------------------------------------------------------------------- */

static struct pcmig_door **find_door(struct pcmig_control *control, const char *name)
{
    struct pcmig_door **at = &control->doors;

    while (*at != NULL && strcmp((*at)->name, name) != 0)
        at = &(*at)->next;
    return at;
}

static bool close_name(struct pcmig_control *control, const char *name, const char *reason)
{
    struct pcmig_door **at = find_door(control, name), *door = *at;
    bool known = door != NULL;

    if (door != NULL) {
        *at = door->next;
        pcmig_door_close(door);
    }
    if (pcmig_registry_end(control->tunnel->registry, name, reason) > 0)
        known = true;
    return pcmig_registry_forget(control->tunnel->registry, name) || known;
}

static void do_close(struct client *client, const struct pcmig_tunnel_request *request)
{
    if (!close_name(client->control, request->name, "the name was closed")) {
        answer(client, "error unknown name %s", request->name);
        return;
    }
    pcmig_messages_add(client->control->tunnel->messages, PCMIG_MESSAGES_NAME, PCMIG_MESSAGES_INFO, "%s closed",
                       request->name);
    answer(client, "ok");
}

static void do_show(struct client *client, const struct pcmig_tunnel_request *request)
{
    struct pcmig_control *control = client->control;
    struct pcmig_account *account = pcmig_registry_account(control->tunnel->registry, request->name, false);
    const struct pcmig_door *door = *find_door(control, request->name);
    char figures[2 * PCMIG_TUNNEL_REQUEST_LINE_BYTES];
    size_t queue_bytes;

    if (account == NULL) {
        answer(client, "error unknown name %s", request->name);
        return;
    }
    queue_bytes = pcmig_registry_queue(control->tunnel->registry, request->name);
    pcmig_account_print(account, figures, sizeof(figures));
    pcmig_account_unref(account);
    if (door != NULL)
        answer(client, "ok role=source peer=%s port=%u per_stream=%u queue_bytes=%zu %s", door->peer->name,
               door->peer->port, door->connections, queue_bytes, figures);
    else
        answer(client, "ok role=destination queue_bytes=%zu %s", queue_bytes, figures);
}

static void do_list(struct client *client, const struct pcmig_tunnel_request *request)
{
    char *names = pcmig_registry_list(client->control->tunnel->registry);

    (void)request;
    if (names != NULL)
        answer(client, "ok%s", names);
    else
        answer(client, "error memory is short");
    free(names);
}

static void do_peers(struct client *client, const struct pcmig_tunnel_request *request)
{
    char *peers = pcmig_roster_list(client->control->tunnel->roster);

    (void)request;
    if (peers != NULL)
        answer(client, "ok%s", peers);
    else
        answer(client, "error memory is short");
    free(peers);
}

/* Of all names together, and what is counted of connections. The figure of one round trip means nothing here. */
static void do_metrics(struct client *client, const struct pcmig_tunnel_request *request)
{
    struct pcmig_tunnel *tunnel = client->control->tunnel;
    const struct pcmig_tls_ends ends = pcmig_tunnel_ends(tunnel);
    char counts[PCMIG_TUNNEL_REQUEST_LINE_BYTES], account[PCMIG_TUNNEL_REQUEST_LINE_BYTES];
    const unsigned all = atomic_load(&tunnel->carrier_count), accepted = atomic_load(&tunnel->accepted_count);
    const size_t queue_bytes = pcmig_registry_queue(tunnel->registry, NULL);

    (void)request;
    pcmig_figures_print(&tunnel->figures, counts, sizeof(counts));
    pcmig_account_print_figures(pcmig_registry_all(tunnel->registry), account, sizeof(account));
    answer(client,
           "ok %s %snames=%zu connections_accepted=%u connections_dialled=%u queue_bytes=%zu ends_certificate=%lld "
           "ends_client_certificate=%lld ends_ca=%lld ends_crl=%lld",
           counts, account, pcmig_registry_names(tunnel->registry), accepted, all > accepted ? all - accepted : 0,
           queue_bytes, (long long)ends.certificate_s, (long long)ends.dialler_certificate_s, (long long)ends.ca_s,
           (long long)ends.crl_s);
}

/* --- requests that take longer: resolver thread, control thread, worker, control thread --------------------------- */

static void serve(struct client *client);

static void end_job(struct job *job)
{
    struct client *client = job->client;

    pcmig_peer_unref(job->peer);
    free(job);
    client->busy = false;
    client->used_us = pcmig_clock_us();
    if (client->closed)
        drop(client);
    else
        serve(client);
}

/* The one that the job is about; NULL: it was closed meanwhile, also where another has the name since. */
static struct pcmig_door *door_of(const struct job *job)
{
    struct pcmig_door *door = *find_door(job->control, job->request.name);

    return door != NULL && door->number == job->door ? door : NULL;
}

/* Closes what the job has made, unless somebody has been told that it is open. */
static void take_back(struct job *job)
{
    const struct pcmig_door *door = door_of(job);

    if (door != NULL && job->made && !door->told)
        (void)close_name(job->control, job->request.name, "the peer did not answer");
}

/* In the control thread: the peer was asked. */
static void on_probed(struct pcmig_task *task)
{
    struct job *job = OWNER(task, struct job, task);
    const struct pcmig_probe_result *result = &job->result;
    struct pcmig_door *door = door_of(job); /* of "open" */
    char subject[PCMIG_TLS_SUBJECT_BYTES], own[PCMIG_TLS_SUBJECT_BYTES] = "";
    long long own_not_after_s = 0;
    struct pcmig_rules *rules = pcmig_tunnel_rules(job->control->tunnel);

    pcmig_tunnel_request_escape(result->subject, subject, sizeof(subject));
    if (rules->tls != NULL) {
        pcmig_tunnel_request_escape(pcmig_tls_subject(rules->tls), own, sizeof(own));
        own_not_after_s = pcmig_tls_not_after_s(rules->tls);
    }
    pcmig_rules_unref(rules);
    if (!result->ok) {
        take_back(job);
        answer(job->client, "error %s:%u: %s", job->request.peer, job->request.port, result->error);
    } else if (job->request.verb == PCMIG_TUNNEL_VERB_PROBE) {
        answer(
            job->client,
            "ok subject=%s not_after=%lld clock_skew_ms=%lld rtt_us=%lld version=%d own_subject=%s own_not_after=%lld",
            subject, (long long)result->not_after_s, (long long)result->clock_skew_ms, (long long)result->rtt_us,
            PCMIG_TUNNEL_FRAME_VERSION, own, own_not_after_s);
    } else if (door == NULL) {
        answer(job->client, "error %s was closed while its peer was asked", job->request.name);
    } else {
        char path[PCMIG_PLACE_PATH_BYTES];

        door->told = true;
        pcmig_place_path(job->control->tunnel->config->run_dir, job->request.name, path);
        pcmig_messages_add(job->control->tunnel->messages, PCMIG_MESSAGES_NAME, PCMIG_MESSAGES_INFO,
                           "%s leads to %s:%u (%s)", job->request.name, job->request.peer, job->request.port,
                           result->subject);
        answer(job->client, "ok %s", path);
    }
    end_job(job);
}

/* In a worker. */
static void on_probe_done(void *context, const struct pcmig_probe_result *result)
{
    struct job *job = context;

    job->result = *result;
    job->task.run = on_probed;
    pcmig_loop_post(job->control->tunnel->loop, &job->task);
}

/* Binds the name's socket, unless it is there already and leads to the same peer. NULL, or a sentence. */
static const char *open_door(struct job *job, char error[PCMIG_PLACE_ERROR_BYTES])
{
    struct pcmig_control *control = job->control;
    struct pcmig_door *door = *find_door(control, job->request.name);
    struct pcmig_account *account = pcmig_registry_account(control->tunnel->registry, job->request.name, false);
    const bool was_known = account != NULL; /* a stream has come under it from elsewhere */

    pcmig_account_unref(account);
    if (door != NULL) {
        if (strcmp(door->peer->name, job->peer->name) != 0 || door->peer->port != job->peer->port)
            return "this name leads to another peer already: close it first";
        job->door = door->number;
        return NULL;
    }
    account = pcmig_registry_account(control->tunnel->registry, job->request.name, true);
    if (account == NULL)
        return "there are too many names: close some";
    pcmig_account_unref(account);
    door = pcmig_door_open(control->tunnel, job->request.name, job->peer, job->request.streams, error);
    if (door == NULL) {
        if (!was_known)
            pcmig_registry_forget(control->tunnel->registry, job->request.name);
        return error;
    }
    pcmig_registry_keep(control->tunnel->registry, job->request.name);
    door->next = control->doors;
    control->doors = door;
    job->door = door->number = ++control->doors_ever;
    job->made = true;
    return NULL;
}

/* In the control thread: the peer's addresses are known. */
static void on_resolved(struct pcmig_task *task)
{
    struct job *job = OWNER(task, struct job, task);
    struct pcmig_tunnel *tunnel = job->control->tunnel;
    char error[PCMIG_PLACE_ERROR_BYTES];
    const char *problem = NULL;

    if (job->unresolved != NULL) {
        answer(job->client, "error %s: %s", job->request.peer, job->unresolved);
        end_job(job);
        return;
    }
    if (atomic_load(&tunnel->stopping))
        problem = "the daemon is about to end";
    if (problem == NULL && job->request.verb == PCMIG_TUNNEL_VERB_OPEN)
        problem = open_door(job, error);
    if (problem == NULL && !pcmig_carrier_probe(pcmig_tunnel_worker(tunnel), job->peer, on_probe_done, job))
        problem = "memory is short";
    if (problem != NULL) {
        answer(job->client, "error %s", problem);
        end_job(job);
    }
}

/* In the resolver's thread. */
static void on_resolve(struct pcmig_task *task)
{
    struct job *job = OWNER(task, struct job, task);

    job->unresolved =
        atomic_load(&job->control->tunnel->stopping) ? "the daemon is about to end" : pcmig_peer_resolve(job->peer);
    job->task.run = on_resolved;
    pcmig_loop_post(job->control->tunnel->loop, &job->task);
}

static void do_later(struct client *client, const struct pcmig_tunnel_request *request)
{
    struct job *job;

    if (atomic_load(&client->control->tunnel->stopping)) {
        answer(client, "error the daemon is about to end");
        return;
    }
    job = calloc(1, sizeof(*job));
    if (job != NULL)
        job->peer = pcmig_peer_new(request->peer, request->port);
    if (job == NULL || job->peer == NULL) {
        free(job);
        answer(client, "error memory is short");
        return;
    }
    job->control = client->control;
    job->client = client;
    job->request = *request;
    job->task.run = on_resolve;
    client->busy = true;
    pcmig_loop_post(client->control->tunnel->resolver, &job->task);
}

/* --- reload: whoever made the daemon reads the settings, and answers ---------------------------------------------- */

static void do_reload(struct client *client, const struct pcmig_tunnel_request *request)
{
    struct pcmig_tunnel *tunnel = client->control->tunnel;

    (void)request;
    client->busy = true;
    client->reload = atomic_fetch_add(&tunnel->reloads_asked, 1) + 1;
    pcmig_messages_add(tunnel->messages, PCMIG_MESSAGES_LIFE, PCMIG_MESSAGES_INFO, "a reload was asked for");
}

static void answer_reloads(struct pcmig_control *control, unsigned upto, const char *text)
{
    for (struct client *client = control->clients, *next; client != NULL; client = next) {
        next = client->next;
        if (client->reload == 0 || (int)(upto - client->reload) < 0)
            continue;
        answer(client, "%s", text);
        client->reload = 0;
        client->busy = false;
        client->used_us = pcmig_clock_us();
        if (client->closed)
            drop(client);
        else
            serve(client);
    }
}

struct reply {
    struct pcmig_task task;
    struct pcmig_tunnel *tunnel;
    unsigned upto;
    char text[];
};

static void on_reply(struct pcmig_task *task)
{
    struct reply *reply = OWNER(task, struct reply, task);

    answer_reloads(reply->tunnel->control, reply->upto, reply->text);
    free(reply);
}

unsigned pcmig_control_reload_asked(struct pcmig_tunnel *tunnel)
{
    const unsigned asked = atomic_load(&tunnel->reloads_asked);

    return asked != atomic_load(&tunnel->reloads_answered) ? asked : 0;
}

bool pcmig_control_answer_reload(struct pcmig_tunnel *tunnel, unsigned upto, const char *text)
{
    struct reply *reply = calloc(1, sizeof(*reply) + strlen(text) + 1);

    if (reply == NULL)
        return false;
    reply->task.run = on_reply;
    reply->tunnel = tunnel;
    reply->upto = upto;
    memcpy(reply->text, text, strlen(text) + 1);
    atomic_store(&tunnel->reloads_answered, upto);
    pcmig_loop_post(tunnel->loop, &reply->task);
    return true;
}

/* --- reading ------------------------------------------------------------------------------------------------------ */

static void (*const verbs[])(struct client *client, const struct pcmig_tunnel_request *request) = {
    [PCMIG_TUNNEL_VERB_OPEN] = do_later,  [PCMIG_TUNNEL_VERB_CLOSE] = do_close,
    [PCMIG_TUNNEL_VERB_SHOW] = do_show,   [PCMIG_TUNNEL_VERB_LIST] = do_list,
    [PCMIG_TUNNEL_VERB_PROBE] = do_later, [PCMIG_TUNNEL_VERB_RELOAD] = do_reload,
    [PCMIG_TUNNEL_VERB_PEERS] = do_peers, [PCMIG_TUNNEL_VERB_METRICS] = do_metrics,
};
_Static_assert(sizeof(verbs) / sizeof(verbs[0]) == PCMIG_TUNNEL_VERB_COUNT, "every verb is done");

static void do_line(struct client *client, const char *line, size_t len)
{
    struct pcmig_tunnel_request request;
    char error[256];

    if (pcmig_tunnel_request_parse(line, len, &request, error, sizeof(error)))
        verbs[request.verb](client, &request);
    else
        answer(client, "error %s", error);
}

/* Reads and does requests until there is none, or one takes longer. */
static void serve(struct client *client)
{
    while (!client->busy && !client->closed) {
        char *newline = memchr(client->line, '\n', client->len);
        ssize_t n;

        if (newline != NULL) {
            const size_t used = (size_t)(newline - client->line) + 1;

            do_line(client, client->line, used - 1);
            client->len -= used;
            memmove(client->line, client->line + used, client->len);
            continue;
        }
        if (client->len == sizeof(client->line)) {
            answer(client, "error a request has at most %d characters", PCMIG_TUNNEL_REQUEST_LINE_BYTES - 1);
            drop(client);
            return;
        }
        n = recv(client->source.fd, client->line + client->len, sizeof(client->line) - client->len, MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return;
        if (n <= 0) {
            drop(client);
            return;
        }
        client->len += (size_t)n;
    }
}

static void on_client(struct pcmig_source *source, uint32_t events)
{
    struct client *client = OWNER(source, struct client, source);

    client->used_us = pcmig_clock_us();
    if (client->busy && (events & (EPOLLHUP | EPOLLERR)))
        drop(client);
    else
        serve(client);
}

/* Neither root nor the daemon's own user: whom else the socket's group lets in when one was named. */
static bool is_other(int fd)
{
    struct ucred who;
    socklen_t len = sizeof(who);

    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) != 0 || (who.uid != 0 && who.uid != geteuid());
}

/* Whoever waits for a job is not, nor whose request has come and is not read yet. What a name was opened for goes on
 * without who opened it (the doors are the daemon's), so nobody holds anything by a connection alone. */
static bool is_idle(const struct client *client, int64_t now_us)
{
    char byte;

    return !client->busy && !client->closed && now_us - client->used_us >= IDLE_US &&
           recv(client->source.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) <= 0;
}

/* That has been idle for longest; of the others only, or of all. NULL when none is. */
static struct client *find_idle(const struct pcmig_control *control, bool others_only)
{
    const int64_t now_us = pcmig_clock_us();
    struct client *found = NULL;

    for (struct client *client = control->clients; client != NULL; client = client->next) {
        if ((client->other || !others_only) && (found == NULL || client->used_us <= found->used_us) &&
            is_idle(client, now_us))
            found = client;
    }
    return found;
}

/* For one more, which is one of the OTHERs or is not. Returns whether there is some. */
static bool make_room(struct pcmig_control *control, bool other)
{
    const bool others_are_many = other && control->other_count >= OTHERS_MAX;
    struct client *idle;

    if (control->client_count < CLIENTS_MAX && !others_are_many)
        return true;
    idle = find_idle(control, true);
    if (idle == NULL && !others_are_many)
        idle = find_idle(control, false);
    if (idle == NULL)
        return false;
    pcmig_messages_add(control->tunnel->messages, PCMIG_MESSAGES_LIMIT, PCMIG_MESSAGES_WARNING,
                       "closed a connection to the control socket that asked for nothing: there are too many");
    drop(idle);
    return true;
}

/* Why a connection of one of the OTHERs, or of one who is not, is refused; NULL = it is not. */
static const char *refusal(struct pcmig_control *control, bool other)
{
    if (other && control->tunnel->config->control_gid == (gid_t)-1)
        return "not root and not the daemon's user";
    return make_room(control, other) ? NULL : "there are too many";
}

static void on_connection(struct pcmig_source *source, uint32_t events)
{
    struct pcmig_control *control = OWNER(source, struct pcmig_control, source);

    (void)events;
    control->late = false;
    for (;;) {
        const int fd = accept4(source->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        struct client *client;
        const char *why;
        bool other;

        if (fd < 0 && (errno == EINTR || errno == ECONNABORTED))
            continue;
        if (fd < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return;
        if (fd < 0) {
            /* Epoll does not tell of it again. */
            control->late = true;
            pcmig_messages_add(control->tunnel->messages, PCMIG_MESSAGES_LIMIT, PCMIG_MESSAGES_ERROR,
                               "no connection to the control socket can be accepted: %s", strerror(errno));
            return;
        }
        other = is_other(fd);
        why = refusal(control, other);
        client = why == NULL ? calloc(1, sizeof(*client)) : NULL;
        if (client == NULL) {
            pcmig_messages_add(control->tunnel->messages, PCMIG_MESSAGES_LIMIT, PCMIG_MESSAGES_WARNING,
                               "refused a connection to the control socket: %s", why != NULL ? why : "memory is short");
            close(fd);
            continue;
        }
        client->control = control;
        client->source = (struct pcmig_source){.fd = fd, .ready = on_client};
        client->grave.run = on_grave;
        client->other = other;
        client->used_us = pcmig_clock_us();
        control->other_count += other;
        client->next = control->clients;
        control->clients = client;
        control->client_count++;
        if (pcmig_loop_watch(control->tunnel->loop, &client->source, EPOLLIN | EPOLLRDHUP) != 0)
            drop(client);
    }
}

/* --- life --------------------------------------------------------------------------------------------------------- */

struct pcmig_control *pcmig_control_new(struct pcmig_tunnel *tunnel, char error[PCMIG_TUNNEL_ERROR_BYTES])
{
    const bool grouped = tunnel->config->control_gid != (gid_t)-1;
    struct pcmig_control *control = calloc(1, sizeof(*control));
    char problem[PCMIG_PLACE_ERROR_BYTES] = "memory is short";

    if (control == NULL)
        goto err0;
    control->tunnel = tunnel;
    snprintf(control->path, sizeof(control->path), "%s", tunnel->config->control);
    control->source.ready = on_connection;
    control->source.fd =
        pcmig_place_listen(tunnel->config->control, tunnel->config->control_gid, grouped ? 0660 : 0600, problem);
    if (control->source.fd < 0)
        goto err1;
    errno = pcmig_loop_watch(tunnel->loop, &control->source, EPOLLIN);
    if (errno != 0) {
        snprintf(problem, sizeof(problem), "%s: %s", control->path, strerror(errno));
        goto err2;
    }
    return control;

err2:
    unlink(control->path);
    close(control->source.fd);
err1:
    free(control);
err0:
    snprintf(error, PCMIG_TUNNEL_ERROR_BYTES, "%s", problem);
    return NULL;
}

void pcmig_control_free(struct pcmig_control *control)
{
    if (control == NULL)
        return;
    while (control->doors != NULL) {
        struct pcmig_door *door = control->doors;

        control->doors = door->next;
        pcmig_door_close(door);
    }
    while (control->clients != NULL) {
        control->clients->busy = false;
        drop(control->clients);
    }
    unlink(control->path);
    pcmig_loop_close(control->tunnel->loop, &control->source);
    pcmig_loop_drain(control->tunnel->loop);
    free(control);
}

void pcmig_control_tidy(struct pcmig_control *control)
{
    struct pcmig_rules *rules = pcmig_tunnel_rules(control->tunnel);
    const int64_t idle_us = (int64_t)rules->config.idle_name_ms * 1000;
    char name[PCMIG_TUNNEL_NAME_LEN + 1];

    pcmig_rules_unref(rules);
    if (control->late)
        on_connection(&control->source, 0);
    for (struct pcmig_door *door = control->doors; door != NULL; door = door->next)
        pcmig_door_look(door);
    while (pcmig_registry_idle(control->tunnel->registry, pcmig_clock_us() - idle_us, name)) {
        if (!close_name(control, name, "the name was not used"))
            return;
        pcmig_messages_add(control->tunnel->messages, PCMIG_MESSAGES_NAME, PCMIG_MESSAGES_INFO,
                           "%s was not used for %lld s and is dropped", name, (long long)(idle_us / 1000000));
    }
}
