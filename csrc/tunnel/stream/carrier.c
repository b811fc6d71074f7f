/* SPDX-License-Identifier: Apache-2.0 */
/* See carrier.h and carrier_internal.h: a carrier's life, and the table of its states. */
#include "tunnel/stream/carrier_internal.h"

#include "edge/clock.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    ORDER_US = 2000,        /* between two looks whether the stream before has arrived */
    DIAL_PAUSE_US = 100000, /* before dialling again; doubles */
    LEAVE_TIMES = 20,       /* so often as long as nothing is heard, it may take until the peer has read all */
};

static void unref(struct pcmig_carrier *c)
{
    if (atomic_fetch_sub(&c->references, 1) != 1)
        return;
    pcmig_rules_unref(c->rules);
    pcmig_certificate_free(c->certificate);
    free(c);
}

void pcmig_carrier_again(struct pcmig_carrier *c)
{
    if (c->again.waits)
        return;
    atomic_fetch_add(&c->references, 1);
    pcmig_loop_again(c->worker->loop, &c->again);
}

void pcmig_carrier_wake(struct pcmig_carrier *c)
{
    atomic_fetch_add(&c->references, 1);
    if (!pcmig_loop_post(c->worker->loop, &c->posted))
        unref(c);
}

int64_t pcmig_carrier_now_us(const struct pcmig_carrier *c)
{
    return pcmig_loop_now_us(c->worker->loop);
}

uint64_t pcmig_carrier_wall_clock_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

void pcmig_carrier_set_load(struct pcmig_carrier *c, enum pcmig_carrier_load load)
{
    atomic_fetch_add(&c->worker->load, (unsigned)load - (unsigned)c->load);
    c->load = load;
}

/* The stream no longer counts on this connection. Returns how many it has left. */
static unsigned detach(struct pcmig_carrier *c)
{
    struct pcmig_account *account = pcmig_stream_account(c->stream);
    unsigned left;

    PCMIG_ACCOUNT_ADD(account, connections_now, -1);
    c->attached = false;
    left = pcmig_stream_detach(c->stream, c->index);
    if (left == 0)
        pcmig_registry_remove(c->tunnel->registry, c->stream);
    return left;
}

void pcmig_carrier_bury(struct pcmig_carrier *c)
{
    struct pcmig_loop *loop = c->worker->loop;

    if (c->state == PCMIG_CARRIER_GONE)
        return;
    if (c->state == PCMIG_CARRIER_RELAY || c->relay.channel != NULL)
        pcmig_relay_settle(&c->relay);
    c->state = PCMIG_CARRIER_GONE;
    pcmig_loop_cancel(loop, &c->deadline);
    pcmig_loop_cancel(loop, &c->tick);
    if (c->attached)
        detach(c);
    pcmig_stream_unref(c->stream);
    pcmig_loop_close(loop, &c->local);
    pcmig_channel_free(c->channel);
    c->channel = NULL;
    pcmig_loop_close(loop, &c->wire);
    if (c->peer == NULL) {
        pcmig_admission_leave(c->tunnel->admission, c);
        atomic_fetch_sub(&c->tunnel->accepted_count, 1);
    }
    pcmig_roster_leave(c->tunnel->roster, c->entry, c->peer == NULL, c->stays);
    pcmig_peer_unref(c->peer);
    if (c->prev != NULL)
        c->prev->next = c->next;
    else
        c->worker->carriers = c->next;
    if (c->next != NULL)
        c->next->prev = c->prev;
    pcmig_carrier_set_load(c, PCMIG_CARRIER_WAITS);
    atomic_fetch_sub(&c->worker->carrier_count, 1);
    atomic_fetch_sub(&c->tunnel->carrier_count, 1);
    unref(c);
}

void pcmig_carrier_describe(const struct pcmig_carrier *c, char text[PCMIG_CARRIER_WHOM_BYTES])
{
    snprintf(text, PCMIG_CARRIER_WHOM_BYTES, "%s%s%s%s%s%s", c->peer != NULL ? c->peer->name : "",
             c->peer != NULL ? " (" : "", c->address, c->peer != NULL ? ")" : "", c->subject[0] != '\0' ? ", " : "",
             c->subject);
}

void pcmig_carrier_fail(struct pcmig_carrier *c, enum pcmig_messages_kind kind, enum pcmig_messages_level level,
                        const char *reason)
{
    char whom[PCMIG_CARRIER_WHOM_BYTES];

    pcmig_carrier_describe(c, whom);
    if (c->probe != NULL) {
        struct pcmig_probe_result result = {.ok = false};

        snprintf(result.error, sizeof(result.error), "%s", reason);
        c->probe(c->probe_context, &result);
    } else if (c->stream == NULL) {
        pcmig_messages_add(c->tunnel->messages, kind, level, "refused a connection from %s: %s", whom, reason);
    } else if (c->index > 0 && c->state < PCMIG_CARRIER_RELAY && c->attached && detach(c) > 0) {
        /* It has carried nothing yet, and the stream has others. Without the first one none of them can begin. */
        pcmig_messages_add(c->tunnel->messages, kind, level, "stream of %s with %s goes on without connection %u: %s",
                           pcmig_stream_name(c->stream), whom, c->index, reason);
    } else if (pcmig_stream_end(c->stream, reason, true)) {
        pcmig_messages_add(c->tunnel->messages, kind, level, "stream of %s with %s ended: %s",
                           pcmig_stream_name(c->stream), whom, reason);
    }
    pcmig_carrier_bury(c);
}

void pcmig_carrier_set_state(struct pcmig_carrier *c, enum pcmig_carrier_state state)
{
    c->state = state;
    pcmig_carrier_again(c);
}

void pcmig_carrier_set_deadline(struct pcmig_carrier *c, int64_t after_us)
{
    pcmig_loop_set(c->worker->loop, &c->deadline, pcmig_carrier_now_us(c) + after_us);
}

void pcmig_carrier_leave(struct pcmig_carrier *c)
{
    /* With too many that stay before it, it keeps the place that it has: its last bytes are not cut for that. */
    if (c->peer == NULL && c->entry != NULL && !c->stays)
        c->stays = pcmig_roster_stay(c->tunnel->roster, c->entry);
    pcmig_loop_cancel(c->worker->loop, &c->tick);
    pcmig_carrier_set_load(c, PCMIG_CARRIER_WAITS);
    pcmig_carrier_set_deadline(c, (int64_t)c->rules->config.leave_ms * 1000);
    c->leave_heard = pcmig_channel_stats(c->channel)->calls_in;
    pcmig_carrier_set_state(c, PCMIG_CARRIER_LEAVE);
}

/* A stream's peer that speaks is there, and its QEMU reads slowly: were the connection closed before it has read all,
 * what it says next would fail, and the rest be cut off. Who was refused has nothing to read. */
static void leave_late(struct pcmig_carrier *c)
{
    const uint64_t heard = pcmig_channel_stats(c->channel)->calls_in;

    if (c->relay.channel == NULL || heard == c->leave_heard || ++c->leave_late >= LEAVE_TIMES) {
        pcmig_carrier_bury(c);
        return;
    }
    c->leave_heard = heard;
    pcmig_carrier_set_deadline(c, (int64_t)c->rules->config.leave_ms * 1000);
}

static void run_new(struct pcmig_carrier *c)
{
    pcmig_rules_unref(c->rules);
    c->rules = pcmig_tunnel_rules(c->tunnel);
    if (c->peer != NULL && c->stream != NULL && !pcmig_stream_may_begin(c->stream)) {
        c->dial_until_us = pcmig_carrier_now_us(c) + (int64_t)c->rules->config.dial_ms * 1000;
        pcmig_carrier_set_deadline(c, ORDER_US);
        c->state = PCMIG_CARRIER_PAUSE;
        return;
    }
    if (c->peer != NULL) {
        pcmig_carrier_begin_dialling(c);
        return;
    }
    pcmig_peer_tune(c->wire.fd);
    if ((errno = pcmig_loop_watch(c->worker->loop, &c->wire, EPOLLIN | EPOLLOUT | EPOLLRDHUP)) != 0) {
        pcmig_carrier_fail(c, PCMIG_MESSAGES_HANDSHAKE, PCMIG_MESSAGES_ERROR, strerror(errno));
        return;
    }
    pcmig_carrier_set_deadline(c, (int64_t)c->rules->config.handshake_ms * 1000);
    pcmig_carrier_begin_tls(c);
}

bool pcmig_carrier_attach(struct pcmig_carrier *c)
{
    struct pcmig_account *account = pcmig_stream_account(c->stream);

    c->attached = pcmig_stream_attach(c->stream, c->index, c);
    if (c->attached) {
        PCMIG_ACCOUNT_ADD(account, connections_now, 1);
        PCMIG_ACCOUNT_ADD(account, connections_ever, 1);
    }
    return c->attached;
}

static void run_relay(struct pcmig_carrier *c)
{
    char whom[PCMIG_CARRIER_WHOM_BYTES], reason[PCMIG_STREAM_REASON_BYTES];

    if (pcmig_stream_over(c->stream, reason)) {
        /* Ended by another connection, by `close`, or because the daemon stops. */
        c->relay.close_due = true;
        c->relay.out_done = true;
        if (pcmig_channel_unsent(c->channel) == 0)
            (void)pcmig_relay_run(&c->relay, pcmig_carrier_now_us(c));
        pcmig_carrier_leave(c);
        return;
    }
    switch (pcmig_relay_run(&c->relay, pcmig_carrier_now_us(c))) {
    case PCMIG_RELAY_WAITS:
        break;
    case PCMIG_RELAY_MORE:
        pcmig_carrier_again(c);
        break;
    case PCMIG_RELAY_DONE:
        pcmig_carrier_leave(c);
        break;
    case PCMIG_RELAY_RESET:
        pcmig_carrier_describe(c, whom);
        if (pcmig_stream_end(c->stream, c->relay.error, false))
            pcmig_messages_add(c->tunnel->messages, PCMIG_MESSAGES_STREAM, PCMIG_MESSAGES_INFO,
                               "stream of %s with %s ended: %s", pcmig_stream_name(c->stream), whom, c->relay.error);
        pcmig_carrier_leave(c);
        break;
    case PCMIG_RELAY_LOST:
        pcmig_carrier_fail(c, PCMIG_MESSAGES_LOST, PCMIG_MESSAGES_WARNING, c->relay.error);
        break;
    }
}

static void run_leave(struct pcmig_carrier *c)
{
    struct pcmig_edges *edges = c->relay.channel != NULL ? &c->relay.wire : &c->edges;
    enum pcmig_channel_result result = pcmig_channel_flush(c->channel);
    size_t len;

    if (result == PCMIG_CHANNEL_OK) {
        pcmig_channel_end(c->channel);
        /* What still comes is of no interest, but closing with it unread would cut off what the peer has not read. */
        result = pcmig_channel_fill(c->channel, &edges->in, edges->hup);
        pcmig_channel_peek(c->channel, &len);
        pcmig_channel_consume(c->channel, len);
        if (result == PCMIG_CHANNEL_OK || (result == PCMIG_CHANNEL_AGAIN && edges->in)) {
            pcmig_carrier_again(c);
            return;
        }
    }
    if (result != PCMIG_CHANNEL_AGAIN)
        pcmig_carrier_bury(c);
}

static void run_nothing(struct pcmig_carrier *c)
{
    (void)c;
}

static void too_late(struct pcmig_carrier *c)
{
    if (c->peer == NULL && c->state <= PCMIG_CARRIER_LISTEN)
        pcmig_figures_count(&c->tunnel->figures, PCMIG_FIGURE_TOO_LATE);
    pcmig_carrier_fail(c, PCMIG_MESSAGES_HANDSHAKE, PCMIG_MESSAGES_WARNING, "the handshake took too long");
}

static void look(struct pcmig_carrier *c)
{
    pcmig_carrier_again(c);
}

static const struct {
    void (*run)(struct pcmig_carrier *c);      /* something may have happened */
    void (*deadline)(struct pcmig_carrier *c); /* its time is over */
} states[] = {
    [PCMIG_CARRIER_NEW] = {run_new, run_nothing},
    [PCMIG_CARRIER_PAUSE] = {run_nothing, pcmig_carrier_dial_again},
    [PCMIG_CARRIER_CONNECT] = {pcmig_carrier_run_connect, pcmig_carrier_connect_too_late},
    [PCMIG_CARRIER_HANDSHAKE] = {pcmig_carrier_run_handshake, too_late},
    [PCMIG_CARRIER_HELLO] = {run_nothing, pcmig_carrier_run_hello},
    [PCMIG_CARRIER_ASK] = {pcmig_carrier_run_ask, pcmig_carrier_look_asking},
    [PCMIG_CARRIER_LISTEN] = {pcmig_carrier_run_listen, too_late},
    [PCMIG_CARRIER_EXPECT] = {pcmig_carrier_run_expect, too_late},
    [PCMIG_CARRIER_JOIN] = {pcmig_carrier_run_join, look},
    [PCMIG_CARRIER_ANSWER] = {pcmig_carrier_run_answer, too_late},
    [PCMIG_CARRIER_RELAY] = {run_relay, run_nothing},
    [PCMIG_CARRIER_LEAVE] = {run_leave, leave_late},
    [PCMIG_CARRIER_GONE] = {run_nothing, run_nothing},
};
_Static_assert(sizeof(states) / sizeof(states[0]) == PCMIG_CARRIER_COUNT, "every state has a row");

#define CARRIER_OF(pointer, member)                                                                                    \
    ((struct pcmig_carrier *)(void *)((char *)(pointer)-offsetof(struct pcmig_carrier, member)))

static void on_again(struct pcmig_task *task)
{
    struct pcmig_carrier *c = CARRIER_OF(task, again);
    char reason[PCMIG_STREAM_REASON_BYTES];

    if (c->state <= PCMIG_CARRIER_HANDSHAKE && atomic_load(&c->evicted)) {
        pcmig_figures_count(&c->tunnel->figures, PCMIG_FIGURE_EVICTED);
        pcmig_carrier_fail(c, PCMIG_MESSAGES_HANDSHAKE, PCMIG_MESSAGES_WARNING,
                           "it had not shown who it is, and makes room for another");
    } else if (c->stream != NULL && c->state < PCMIG_CARRIER_RELAY && pcmig_stream_over(c->stream, reason)) {
        pcmig_carrier_bury(c); /* the stream ended while this connection was being made */
    } else {
        states[c->state].run(c);
    }
    unref(c);
}

static void on_posted(struct pcmig_task *task)
{
    struct pcmig_carrier *c = CARRIER_OF(task, posted);

    if (c->state == PCMIG_CARRIER_RELAY)
        pcmig_relay_wake(&c->relay);
    if (c->state != PCMIG_CARRIER_JOIN && c->state != PCMIG_CARRIER_PAUSE)
        pcmig_carrier_again(c);
    unref(c);
}

static void tell(struct pcmig_edges *edges, uint32_t events)
{
    if (events & (EPOLLHUP | EPOLLRDHUP | EPOLLERR))
        edges->hup = true;
    if (events & (EPOLLIN | EPOLLHUP | EPOLLRDHUP | EPOLLERR))
        edges->in = true;
    if (events & (EPOLLOUT | EPOLLHUP | EPOLLERR))
        edges->out = true;
}

static void on_wire(struct pcmig_source *source, uint32_t events)
{
    struct pcmig_carrier *c = CARRIER_OF(source, wire);

    tell(c->relay.channel != NULL ? &c->relay.wire : &c->edges, events);
    if (c->state != PCMIG_CARRIER_JOIN || c->edges.hup)
        pcmig_carrier_again(c);
}

static void on_local(struct pcmig_source *source, uint32_t events)
{
    struct pcmig_carrier *c = CARRIER_OF(source, local);

    tell(&c->relay.local, events);
    pcmig_carrier_again(c);
}

static void on_deadline(struct pcmig_timer *timer)
{
    struct pcmig_carrier *c = CARRIER_OF(timer, deadline);

    states[c->state].deadline(c);
}

static void on_tick(struct pcmig_timer *timer)
{
    struct pcmig_carrier *c = CARRIER_OF(timer, tick);
    const int64_t dead_after_us = (int64_t)c->rules->config.dead_after_ms * 1000;

    if (pcmig_relay_tick(&c->relay, c->wire.fd, pcmig_carrier_now_us(c), dead_after_us) == PCMIG_RELAY_LOST) {
        pcmig_carrier_fail(c, PCMIG_MESSAGES_LOST, PCMIG_MESSAGES_WARNING, c->relay.error);
        return;
    }
    pcmig_carrier_set_tick(c);
    pcmig_carrier_again(c);
}

static void on_begin(struct pcmig_task *task)
{
    struct pcmig_carrier *c = CARRIER_OF(task, posted);
    struct pcmig_worker *worker = c->worker;

    c->posted.run = on_posted;
    c->next = worker->carriers;
    if (c->next != NULL)
        c->next->prev = c;
    worker->carriers = c;
    pcmig_carrier_again(c);
    unref(c);
}

static struct pcmig_carrier *carrier_new(struct pcmig_worker *worker)
{
    struct pcmig_carrier *c = calloc(1, sizeof(*c));

    if (c == NULL)
        return NULL;
    atomic_init(&c->references, 1);
    c->worker = worker;
    c->tunnel = worker->tunnel;
    c->rules = pcmig_tunnel_rules(worker->tunnel);
    c->posted.run = on_begin;
    c->again.run = on_again;
    c->deadline.fire = on_deadline;
    c->tick.fire = on_tick;
    c->wire = (struct pcmig_source){.fd = -1, .ready = on_wire};
    c->local = (struct pcmig_source){.fd = -1, .ready = on_local};
    pcmig_carrier_set_load(c, PCMIG_CARRIER_GREETS);
    atomic_fetch_add(&worker->carrier_count, 1);
    atomic_fetch_add(&worker->tunnel->carrier_count, 1);
    return c;
}

/* Without a thread that knows of it. */
static void carrier_undo(struct pcmig_carrier *c)
{
    pcmig_carrier_set_load(c, PCMIG_CARRIER_WAITS);
    atomic_fetch_sub(&c->worker->carrier_count, 1);
    atomic_fetch_sub(&c->tunnel->carrier_count, 1);
    unref(c);
}

static const struct {
    const char *text;
    enum pcmig_figure figure;
} refusals[] = {
    [PCMIG_ADMISSION_TOO_OFTEN] = {"too many from there in the last seconds", PCMIG_FIGURE_TOO_OFTEN},
    [PCMIG_ADMISSION_TOO_MANY_NEW] = {"too many from hosts that are not known yet in the last seconds",
                                      PCMIG_FIGURE_TOO_MANY_NEW},
};

bool pcmig_carrier_accept(struct pcmig_worker *worker, int fd, const struct sockaddr *address, socklen_t len)
{
    struct pcmig_tunnel *tunnel = worker->tunnel;
    enum pcmig_figure figure = PCMIG_FIGURE_NO_ROOM;
    const char *refusal = "there are too many";
    struct pcmig_carrier *c = NULL;
    char text[PCMIG_PEER_TEXT_BYTES];

    if (pcmig_tunnel_has_room(tunnel, true, 1)) {
        refusal = "memory is short";
        c = carrier_new(worker);
    }
    if (c != NULL) {
        const enum pcmig_admission_answer answer =
            pcmig_admission_enter(tunnel->admission, address, pcmig_clock_us(), c);

        refusal = refusals[answer].text;
        figure = refusals[answer].figure;
    }
    pcmig_peer_print(address, len, text);
    if (refusal != NULL) {
        close(fd);
        if (c != NULL)
            carrier_undo(c);
        pcmig_figures_count(&tunnel->figures, figure);
        pcmig_messages_add(tunnel->messages, PCMIG_MESSAGES_LIMIT, PCMIG_MESSAGES_WARNING,
                           "refused a connection from %s: %s", text, refusal);
        return false;
    }
    atomic_fetch_add(&tunnel->accepted_count, 1);
    c->wire.fd = fd;
    memcpy(c->address, text, sizeof(text));
    pcmig_carrier_wake(c);
    return true;
}

void pcmig_carrier_evict(void *carrier)
{
    struct pcmig_carrier *c = carrier;

    atomic_store(&c->evicted, true);
    pcmig_carrier_wake(c);
}

bool pcmig_carrier_dial(struct pcmig_worker *worker, struct pcmig_peer *peer, struct pcmig_stream *stream,
                        unsigned index)
{
    struct pcmig_carrier *c = carrier_new(worker);

    if (c == NULL)
        return false;
    c->peer = pcmig_peer_ref(peer);
    c->stream = pcmig_stream_ref(stream);
    c->index = index;
    pcmig_carrier_set_load(c, PCMIG_CARRIER_CARRIES);
    c->dial_pause_us = DIAL_PAUSE_US;
    c->dial_until_us = pcmig_clock_us() + (int64_t)c->rules->config.dial_ms * 1000;
    (void)pcmig_carrier_attach(c); /* if the stream has ended already, the carrier finds that out by itself */
    pcmig_carrier_wake(c);
    return true;
}

bool pcmig_carrier_probe(struct pcmig_worker *worker, struct pcmig_peer *peer, pcmig_probe_done done, void *context)
{
    struct pcmig_carrier *c = carrier_new(worker);

    if (c == NULL)
        return false;
    c->peer = pcmig_peer_ref(peer);
    c->probe = done;
    c->probe_context = context;
    c->dial_pause_us = DIAL_PAUSE_US;
    c->dial_until_us = pcmig_clock_us() + (int64_t)c->rules->config.dial_ms * 1000;
    pcmig_carrier_wake(c);
    return true;
}

bool pcmig_carrier_review(struct pcmig_carrier *c)
{
    struct pcmig_rules *rules = pcmig_tunnel_rules(c->tunnel);
    char reason[PCMIG_TLS_ERROR_BYTES];
    const bool welcome = c->certificate == NULL || rules == c->rules ||
                         pcmig_certificate_is_welcome(c->certificate, rules, c->peer == NULL, reason);

    pcmig_rules_unref(rules);
    if (!welcome) {
        pcmig_figures_count(&c->tunnel->figures, PCMIG_FIGURE_LOCKED_OUT);
        pcmig_carrier_fail(c, PCMIG_MESSAGES_LIFE, PCMIG_MESSAGES_WARNING, reason);
    }
    return welcome;
}

void pcmig_carrier_review_all(struct pcmig_worker *worker)
{
    struct pcmig_carrier *next;

    for (struct pcmig_carrier *c = worker->carriers; c != NULL; c = next) {
        next = c->next;
        (void)pcmig_carrier_review(c);
    }
}

void pcmig_carrier_end_all(struct pcmig_worker *worker, const char *reason)
{
    while (worker->carriers != NULL) {
        struct pcmig_carrier *c = worker->carriers;

        if (c->stream != NULL)
            pcmig_stream_end(c->stream, reason, false);
        if (c->probe != NULL)
            pcmig_carrier_fail(c, PCMIG_MESSAGES_LIFE, PCMIG_MESSAGES_DEBUG, reason);
        else
            pcmig_carrier_bury(c);
    }
}
