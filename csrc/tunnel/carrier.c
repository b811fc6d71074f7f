/* See carrier.h. */
#include "tunnel/carrier.h"

#include "core/tunnel_frame.h"
#include "edge/clock.h"
#include "tunnel/channel.h"
#include "tunnel/internal.h"
#include "tunnel/place.h"
#include "tunnel/relay.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

enum {
    LOOK_US = 20000,        /* between two looks for a socket, or for the first connection of a stream */
    ORDER_US = 2000,        /* between two looks whether the stream before has arrived */
    DIAL_PAUSE_US = 100000, /* before dialling again; doubles */
    DIAL_PAUSE_MAX_US = 1000000,
    LEAVE_US = 3000000, /* for the peer to read the last bytes */
    TICK_US = 250000,
    WHOM_BYTES = 640,
};

enum state {
    STATE_NEW = 0,
    STATE_PAUSE,     /* before dialling again */
    STATE_CONNECT,   /* TCP */
    STATE_HANDSHAKE, /* TLS */
    STATE_ASK,       /* dialler: hello was said, the answer is awaited */
    STATE_LISTEN,    /* acceptor: hello is awaited */
    STATE_JOIN,      /* acceptor: looks for the local socket, or the stream's first connection */
    STATE_ANSWER,    /* acceptor: the answer is on its way */
    STATE_RELAY,
    STATE_LEAVE, /* all was said; the peer's end is awaited */
    STATE_GONE,
    STATE_COUNT
};

struct pcmig_carrier {
    atomic_uint references; /* one of the worker's list, one of each waiting task */
    struct pcmig_worker *worker;
    struct pcmig_tunnel *tunnel;
    struct pcmig_carrier *prev, *next;
    enum state state;
    struct pcmig_task posted; /* from other threads */
    struct pcmig_task again;  /* in this one */
    struct pcmig_timer deadline, tick;
    struct pcmig_source wire, local;
    struct pcmig_edges edges; /* of the wire, until the relay has its own */
    struct pcmig_channel *channel;
    char address[PCMIG_PEER_TEXT_BYTES];
    char subject[PCMIG_TLS_SUBJECT_BYTES];
    int64_t not_after_s;
    struct pcmig_stream *stream;
    unsigned index;
    bool attached;
    bool closing; /* the stream was closed by us: the peer is told */
    /* dialler */
    struct pcmig_peer *peer; /* NULL when accepted */
    unsigned address_at;
    int64_t dial_until_us, dial_pause_us, asked_us;
    pcmig_probe_done probe; /* NULL = a stream */
    void *probe_context;
    /* acceptor */
    int slot; /* of admission, -1 = none */
    struct pcmig_tunnel_hello hello;
    int64_t look_until_us;
    enum pcmig_tunnel_verdict verdict;
    struct pcmig_relay relay;
};

static void unref(struct pcmig_carrier *c)
{
    if (atomic_fetch_sub(&c->references, 1) == 1)
        free(c);
}

static void run_again(struct pcmig_carrier *c)
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

static int64_t now_us(const struct pcmig_carrier *c)
{
    return pcmig_loop_now_us(c->worker->loop);
}

static uint64_t wall_clock_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* --- the end ------------------------------------------------------------------------------------------------------- */

/* The stream no longer counts on this connection. Returns how many it has left. */
static unsigned detach(struct pcmig_carrier *c)
{
    unsigned left;

    atomic_fetch_sub(&pcmig_stream_account(c->stream)->connections_now, 1);
    c->attached = false;
    left = pcmig_stream_detach(c->stream, c->index);
    if (left == 0)
        pcmig_registry_remove(c->tunnel->registry, c->stream);
    return left;
}

static void bury(struct pcmig_carrier *c)
{
    struct pcmig_loop *loop = c->worker->loop;

    if (c->state == STATE_GONE)
        return;
    if (c->state == STATE_RELAY || c->relay.channel != NULL)
        pcmig_relay_settle(&c->relay);
    c->state = STATE_GONE;
    pcmig_loop_cancel(loop, &c->deadline);
    pcmig_loop_cancel(loop, &c->tick);
    if (c->attached)
        detach(c);
    pcmig_stream_unref(c->stream);
    pcmig_loop_close(loop, &c->local);
    pcmig_channel_free(c->channel);
    c->channel = NULL;
    pcmig_loop_close(loop, &c->wire);
    pcmig_admission_leave(c->tunnel->admission, c->slot);
    pcmig_peer_unref(c->peer);
    if (c->prev != NULL)
        c->prev->next = c->next;
    else
        c->worker->carriers = c->next;
    if (c->next != NULL)
        c->next->prev = c->prev;
    atomic_fetch_sub(&c->worker->carrier_count, 1);
    atomic_fetch_sub(&c->tunnel->carrier_count, 1);
    unref(c);
}

/* "host (10.0.0.1:16516), CN=host": whom a message is about. */
static void describe(const struct pcmig_carrier *c, char text[WHOM_BYTES])
{
    snprintf(text, WHOM_BYTES, "%s%s%s%s%s%s", c->peer != NULL ? c->peer->name : "", c->peer != NULL ? " (" : "",
             c->address, c->peer != NULL ? ")" : "", c->subject[0] != '\0' ? ", " : "", c->subject);
}

/* The connection has failed, for REASON. KIND and LEVEL are of the message. */
static void fail(struct pcmig_carrier *c, enum pcmig_messages_kind kind, enum pcmig_messages_level level,
                 const char *reason)
{
    char whom[WHOM_BYTES];

    describe(c, whom);
    if (c->probe != NULL) {
        struct pcmig_probe_result result = {.ok = false};

        snprintf(result.error, sizeof(result.error), "%s", reason);
        c->probe(c->probe_context, &result);
    } else if (c->stream == NULL) {
        pcmig_messages_add(c->tunnel->messages, kind, level, "refused a connection from %s: %s", whom, reason);
    } else if (c->state < STATE_RELAY && c->attached && detach(c) > 0) {
        /* It has carried nothing yet, and the stream has others. */
        pcmig_messages_add(c->tunnel->messages, kind, level, "stream of %s with %s goes on without connection %u: %s",
                           pcmig_stream_name(c->stream), whom, c->index, reason);
    } else if (pcmig_stream_end(c->stream, reason, true)) {
        pcmig_messages_add(c->tunnel->messages, kind, level, "stream of %s with %s ended: %s",
                           pcmig_stream_name(c->stream), whom, reason);
    }
    bury(c);
}

static void set_state(struct pcmig_carrier *c, enum state state)
{
    c->state = state;
    run_again(c);
}

static void set_deadline(struct pcmig_carrier *c, int64_t after_us)
{
    pcmig_loop_set(c->worker->loop, &c->deadline, now_us(c) + after_us);
}

static void leave(struct pcmig_carrier *c)
{
    pcmig_loop_cancel(c->worker->loop, &c->tick);
    set_deadline(c, LEAVE_US);
    set_state(c, STATE_LEAVE);
}

/* --- dialling ------------------------------------------------------------------------------------------------------ */

/* The attempt has failed: the next address, or all of them again after a pause. */
static void dial_failed(struct pcmig_carrier *c, const char *reason)
{
    char text[PCMIG_TLS_ERROR_BYTES];

    pcmig_channel_free(c->channel);
    c->channel = NULL;
    pcmig_loop_close(c->worker->loop, &c->wire);
    if (c->address_at + 1 < c->peer->count) {
        c->address_at++;
        set_state(c, STATE_NEW);
        return;
    }
    if (c->probe == NULL && now_us(c) + c->dial_pause_us < c->dial_until_us) {
        c->address_at = 0;
        set_deadline(c, c->dial_pause_us);
        if (c->dial_pause_us < DIAL_PAUSE_MAX_US)
            c->dial_pause_us *= 2;
        c->state = STATE_PAUSE;
        return;
    }
    snprintf(text, sizeof(text), "%s:%u cannot be reached: %s", c->peer->name, c->peer->port, reason);
    fail(c, PCMIG_MESSAGES_LOST, PCMIG_MESSAGES_WARNING, text);
}

static void dial(struct pcmig_carrier *c)
{
    c->edges = (struct pcmig_edges){0};
    pcmig_peer_print((struct sockaddr *)&c->peer->addresses[c->address_at].address,
                     c->peer->addresses[c->address_at].len, c->address);
    c->wire.fd = pcmig_peer_connect(c->peer, c->address_at);
    if (c->wire.fd < 0 || (errno = pcmig_loop_watch(c->worker->loop, &c->wire, EPOLLIN | EPOLLOUT | EPOLLRDHUP)) != 0) {
        dial_failed(c, strerror(errno));
        return;
    }
    set_deadline(c, (int64_t)c->tunnel->config.handshake_ms * 1000);
    c->state = STATE_CONNECT;
}

static void begin_tls(struct pcmig_carrier *c)
{
    struct pcmig_tls *tls = pcmig_tunnel_tls(c->tunnel);
    char error[PCMIG_TLS_ERROR_BYTES];

    c->channel = pcmig_channel_new(c->wire.fd, tls, c->peer != NULL ? c->peer->name : NULL, c->worker->scratch, error);
    pcmig_tls_unref(tls);
    if (c->channel == NULL)
        fail(c, PCMIG_MESSAGES_HANDSHAKE, PCMIG_MESSAGES_ERROR, error);
    else
        set_state(c, STATE_HANDSHAKE);
}

static void run_new(struct pcmig_carrier *c)
{
    if (c->peer != NULL && c->stream != NULL && !pcmig_stream_may_begin(c->stream)) {
        c->dial_until_us = now_us(c) + (int64_t)c->tunnel->config.dial_ms * 1000;
        set_deadline(c, ORDER_US);
        c->state = STATE_PAUSE;
        return;
    }
    if (c->peer != NULL) {
        dial(c);
        return;
    }
    pcmig_peer_tune(c->wire.fd);
    if ((errno = pcmig_loop_watch(c->worker->loop, &c->wire, EPOLLIN | EPOLLOUT | EPOLLRDHUP)) != 0) {
        fail(c, PCMIG_MESSAGES_HANDSHAKE, PCMIG_MESSAGES_ERROR, strerror(errno));
        return;
    }
    set_deadline(c, (int64_t)c->tunnel->config.handshake_ms * 1000);
    begin_tls(c);
}

static void run_connect(struct pcmig_carrier *c)
{
    socklen_t len = sizeof(int);
    int error = 0;

    if (!c->edges.out && !c->edges.hup)
        return;
    if (getsockopt(c->wire.fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0)
        error = errno;
    if (error != 0)
        dial_failed(c, strerror(error));
    else
        begin_tls(c);
}

/* Sends the LEN bytes that are in TEXT as the first of this side. False when that has failed (and the carrier is gone). */
static bool say(struct pcmig_carrier *c, const uint8_t *text, size_t len)
{
    size_t room;
    uint8_t *to = pcmig_channel_reserve(c->channel, &room);

    if (room >= len) {
        memcpy(to, text, len);
        if (pcmig_channel_commit(c->channel, len) && pcmig_channel_flush(c->channel) != PCMIG_CHANNEL_FAILED)
            return true;
    }
    fail(c, PCMIG_MESSAGES_HANDSHAKE, PCMIG_MESSAGES_WARNING,
         room >= len ? pcmig_channel_error(c->channel) : "the connection is stuck");
    return false;
}

static void say_hello(struct pcmig_carrier *c)
{
    uint8_t text[PCMIG_TUNNEL_FRAME_HELLO_BYTES];
    struct pcmig_tunnel_hello hello = {.kind = PCMIG_TUNNEL_KIND_PROBE, .count = 1, .clock_ms = wall_clock_ms()};

    if (c->stream != NULL) {
        hello.kind = PCMIG_TUNNEL_KIND_STREAM;
        hello.index = (uint8_t)c->index;
        hello.count = (uint8_t)pcmig_stream_count(c->stream);
        memcpy(hello.name, pcmig_stream_name(c->stream), PCMIG_TUNNEL_NAME_LEN);
        memcpy(hello.stream, pcmig_stream_id(c->stream), sizeof(hello.stream));
    }
    pcmig_tunnel_frame_encode_hello(&hello, text);
    c->asked_us = now_us(c);
    if (say(c, text, sizeof(text))) {
        /* The peer may look for its QEMU for a while before it answers. */
        set_deadline(c, ((int64_t)c->tunnel->config.handshake_ms + c->tunnel->config.socket_wait_ms) * 1000);
        set_state(c, STATE_ASK);
    }
}

static void run_handshake(struct pcmig_carrier *c)
{
    const enum pcmig_channel_result result = pcmig_channel_handshake(c->channel);

    c->edges.in = c->edges.out = false;
    if (result == PCMIG_CHANNEL_AGAIN)
        return;
    if (result == PCMIG_CHANNEL_EOF && c->peer != NULL) {
        /* A daemon that is just about to start, or a network to come back. */
        char reason[PCMIG_TLS_ERROR_BYTES];

        snprintf(reason, sizeof(reason), "%s", pcmig_channel_error(c->channel));
        dial_failed(c, reason);
        return;
    }
    if (result != PCMIG_CHANNEL_OK) {
        fail(c, PCMIG_MESSAGES_HANDSHAKE, PCMIG_MESSAGES_WARNING, pcmig_channel_error(c->channel));
        return;
    }
    c->edges.in = true; /* the socket may hold more than the handshake */
    if (pcmig_channel_tls(c->channel) != NULL)
        pcmig_tls_peer(pcmig_channel_tls(c->channel), c->subject, &c->not_after_s);
    if (c->peer != NULL)
        say_hello(c);
    else
        set_state(c, STATE_LISTEN);
}

/* Reads until LEN bytes are there. NULL while they are not, or when it has failed (and the carrier is gone). */
static const uint8_t *hear(struct pcmig_carrier *c, size_t len)
{
    enum pcmig_channel_result result;
    const uint8_t *bytes;
    size_t there;

    for (;;) {
        bytes = pcmig_channel_peek(c->channel, &there);
        if (there >= len)
            return bytes;
        if (c->peer == NULL && !pcmig_tunnel_frame_maybe_hello(bytes, (uint32_t)there)) {
            fail(c, PCMIG_MESSAGES_HANDSHAKE, PCMIG_MESSAGES_WARNING,
                 pcmig_tunnel_frame_verdict_text(PCMIG_TUNNEL_REFUSED_HELLO));
            return NULL;
        }
        result = pcmig_channel_fill(c->channel, &c->edges.in, c->edges.hup);
        if (result == PCMIG_CHANNEL_OK || (result == PCMIG_CHANNEL_AGAIN && c->edges.in))
            continue;
        if (result == PCMIG_CHANNEL_AGAIN)
            return NULL;
        fail(c, PCMIG_MESSAGES_HANDSHAKE, PCMIG_MESSAGES_WARNING,
             result == PCMIG_CHANNEL_EOF ? "the peer closed the connection before it had said what it wants"
                                         : pcmig_channel_error(c->channel));
        return NULL;
    }
}

/* When to look next whether the peer is still there: four times within the silence that is allowed. */
static void set_tick(struct pcmig_carrier *c)
{
    const int64_t dead_after_us = (int64_t)c->tunnel->config.dead_after_ms * 1000;

    pcmig_loop_set(c->worker->loop, &c->tick, now_us(c) + (dead_after_us < 4 * TICK_US ? dead_after_us / 4 : TICK_US));
}

/* Frames flow from now on. */
static void begin_relay(struct pcmig_carrier *c)
{
    struct pcmig_account *account = pcmig_stream_account(c->stream);

    c->local.fd = pcmig_stream_local(c->stream);
    if (c->local.fd < 0 ||
        (errno = pcmig_loop_watch(c->worker->loop, &c->local, EPOLLIN | EPOLLOUT | EPOLLRDHUP)) != 0) {
        fail(c, PCMIG_MESSAGES_STREAM, PCMIG_MESSAGES_ERROR, errno != 0 ? strerror(errno) : "no local socket");
        return;
    }
    pcmig_loop_cancel(c->worker->loop, &c->deadline);
    pcmig_stream_arrived(c->stream);
    pcmig_stream_note_wire(c->stream, c->index, c->wire.fd);
    pcmig_account_set_cipher(account, pcmig_channel_cipher(c->channel));
    atomic_store(&account->ktls, pcmig_channel_kernel_sends(c->channel));
    pcmig_relay_begin(&c->relay, c->channel, c->stream, c->index, c->wire.fd, now_us(c));
    set_tick(c);
    set_state(c, STATE_RELAY);
}

static void answer_probe(struct pcmig_carrier *c, const struct pcmig_tunnel_answer *answer)
{
    struct pcmig_probe_result result = {.ok = true, .not_after_s = c->not_after_s};

    memcpy(result.subject, c->subject, sizeof(result.subject));
    result.rtt_us = now_us(c) - c->asked_us;
    result.clock_skew_ms = (int64_t)answer->clock_ms - (int64_t)wall_clock_ms() + result.rtt_us / 2000;
    c->probe(c->probe_context, &result);
    bury(c);
}

static void run_ask(struct pcmig_carrier *c)
{
    const uint8_t *bytes = hear(c, PCMIG_TUNNEL_FRAME_ANSWER_BYTES);
    struct pcmig_tunnel_answer answer;

    if (bytes == NULL)
        return;
    if (!pcmig_tunnel_frame_decode_answer(bytes, &answer)) {
        fail(c, PCMIG_MESSAGES_REFUSED, PCMIG_MESSAGES_WARNING, "the peer's answer is not the tunnel's protocol");
        return;
    }
    pcmig_channel_consume(c->channel, PCMIG_TUNNEL_FRAME_ANSWER_BYTES);
    if (answer.verdict != PCMIG_TUNNEL_ACCEPTED)
        fail(c, PCMIG_MESSAGES_REFUSED, PCMIG_MESSAGES_WARNING, pcmig_tunnel_frame_verdict_text(answer.verdict));
    else if (c->probe != NULL)
        answer_probe(c, &answer);
    else
        begin_relay(c);
}

/* --- accepting ----------------------------------------------------------------------------------------------------- */

/* Tells the peer the verdict; a refusal, with REASON for this side, ends the connection. */
static void answer(struct pcmig_carrier *c, enum pcmig_tunnel_verdict verdict, const char *reason)
{
    const struct pcmig_tunnel_answer text = {.verdict = verdict, .clock_ms = wall_clock_ms()};
    uint8_t bytes[PCMIG_TUNNEL_FRAME_ANSWER_BYTES];
    char whom[WHOM_BYTES];

    c->verdict = verdict;
    if (verdict != PCMIG_TUNNEL_ACCEPTED) {
        describe(c, whom);
        pcmig_messages_add(c->tunnel->messages, PCMIG_MESSAGES_REFUSED, PCMIG_MESSAGES_WARNING,
                           "refused a stream from %s%s%s: %s", whom, c->hello.name[0] != '\0' ? " for " : "",
                           c->hello.name, reason);
        if (c->stream != NULL)
            pcmig_stream_end(c->stream, reason, false);
    }
    set_deadline(c, (int64_t)c->tunnel->config.handshake_ms * 1000);
    pcmig_tunnel_frame_encode_answer(&text, bytes);
    if (say(c, bytes, sizeof(bytes)))
        set_state(c, STATE_ANSWER);
}

static bool is_allowed(const struct pcmig_carrier *c)
{
    const struct pcmig_tunnel_config *config = &c->tunnel->config;

    if (config->allow_count == 0 || pcmig_channel_tls(c->channel) == NULL)
        return true;
    return pcmig_tls_peer_matches(pcmig_channel_tls(c->channel), config->allow, config->allow_count);
}

static void run_listen(struct pcmig_carrier *c)
{
    const uint8_t *bytes = hear(c, PCMIG_TUNNEL_FRAME_HELLO_BYTES);
    enum pcmig_tunnel_verdict verdict;

    if (bytes == NULL)
        return;
    verdict = pcmig_tunnel_frame_decode_hello(bytes, &c->hello);
    pcmig_channel_consume(c->channel, PCMIG_TUNNEL_FRAME_HELLO_BYTES);
    if (verdict == PCMIG_TUNNEL_ACCEPTED && !is_allowed(c))
        verdict = PCMIG_TUNNEL_REFUSED_PEER;
    if (verdict == PCMIG_TUNNEL_ACCEPTED && atomic_load(&c->tunnel->stopping))
        verdict = PCMIG_TUNNEL_REFUSED_STOPPING;
    if (verdict != PCMIG_TUNNEL_ACCEPTED) {
        answer(c, verdict,
               verdict == PCMIG_TUNNEL_REFUSED_PEER ? "its certificate is not on the list of allowed hosts"
                                                    : pcmig_tunnel_frame_verdict_text(verdict));
        return;
    }
    pcmig_admission_leave(c->tunnel->admission, c->slot);
    c->slot = -1;
    if (c->hello.kind == PCMIG_TUNNEL_KIND_PROBE) {
        answer(c, PCMIG_TUNNEL_ACCEPTED, NULL);
        return;
    }
    c->index = c->hello.index;
    c->look_until_us = now_us(c) + (int64_t)c->tunnel->config.socket_wait_ms * 1000;
    if (c->index > 0) /* the first connection may be in its handshake yet */
        c->look_until_us += (int64_t)c->tunnel->config.handshake_ms * 1000;
    pcmig_loop_cancel(c->worker->loop, &c->deadline);
    set_state(c, STATE_JOIN);
}

static bool attach(struct pcmig_carrier *c)
{
    struct pcmig_account *account = pcmig_stream_account(c->stream);

    c->attached = pcmig_stream_attach(c->stream, c->index, c);
    if (c->attached) {
        atomic_fetch_add(&account->connections_now, 1);
        atomic_fetch_add(&account->connections_ever, 1);
    }
    return c->attached;
}

/* The first connection of a stream makes it, once its local socket answers. */
static void make_stream(struct pcmig_carrier *c, int local)
{
    struct pcmig_account *account = pcmig_registry_account(c->tunnel->registry, c->hello.name, true);

    if (account != NULL)
        c->stream = pcmig_stream_new(c->hello.name, c->hello.stream, account, c->hello.count, local);
    pcmig_account_unref(account);
    if (c->stream == NULL)
        close(local);
    if (c->stream == NULL || !attach(c) || !pcmig_registry_add(c->tunnel->registry, c->stream)) {
        answer(c, PCMIG_TUNNEL_REFUSED_LIMIT, "memory is short, or there are too many names");
        return;
    }
    answer(c, PCMIG_TUNNEL_ACCEPTED, NULL);
}

/* Looks again later; or gives up, with VERDICT and REASON. */
static void look_again(struct pcmig_carrier *c, enum pcmig_tunnel_verdict verdict, const char *reason)
{
    if (now_us(c) < c->look_until_us)
        set_deadline(c, LOOK_US);
    else
        answer(c, verdict, reason);
}

/* A further connection of a stream that exists, or will soon. */
static void join_stream(struct pcmig_carrier *c)
{
    if (c->stream == NULL) {
        look_again(c, PCMIG_TUNNEL_REFUSED_NAME, "the stream's first connection did not come");
    } else if (c->index > 0 && c->hello.count == pcmig_stream_count(c->stream) && attach(c)) {
        answer(c, PCMIG_TUNNEL_ACCEPTED, NULL);
    } else {
        /* What becomes of this connection is nothing to that stream. */
        pcmig_stream_unref(c->stream);
        c->stream = NULL;
        answer(c, PCMIG_TUNNEL_REFUSED_HELLO, "this connection is none of the stream's");
    }
}

static void run_join(struct pcmig_carrier *c)
{
    const struct pcmig_tunnel_config *config = &c->tunnel->config;
    char error[PCMIG_PLACE_ERROR_BYTES];
    int local;

    c->stream = pcmig_registry_find(c->tunnel->registry, c->hello.name, c->hello.stream);
    if (c->stream != NULL || c->index > 0) {
        join_stream(c);
        return;
    }
    switch (pcmig_place_connect(config->run_dir, c->hello.name, config->socket_uid, &local, error)) {
    case PCMIG_PLACE_CONNECTED:
        make_stream(c, local);
        break;
    case PCMIG_PLACE_NOT_YET:
        look_again(c, PCMIG_TUNNEL_REFUSED_NAME, "nobody listens under this name");
        break;
    case PCMIG_PLACE_FORBIDDEN:
        answer(c, PCMIG_TUNNEL_REFUSED_SOCKET, error);
        break;
    }
}

static void run_answer(struct pcmig_carrier *c)
{
    const enum pcmig_channel_result result = pcmig_channel_flush(c->channel);

    if (result == PCMIG_CHANNEL_AGAIN)
        return;
    if (result == PCMIG_CHANNEL_FAILED)
        fail(c, PCMIG_MESSAGES_HANDSHAKE, PCMIG_MESSAGES_WARNING, pcmig_channel_error(c->channel));
    else if (c->verdict == PCMIG_TUNNEL_ACCEPTED && c->stream != NULL)
        begin_relay(c);
    else
        leave(c);
}

/* --- relaying ------------------------------------------------------------------------------------------------------ */

static void run_relay(struct pcmig_carrier *c)
{
    char whom[WHOM_BYTES], reason[PCMIG_STREAM_REASON_BYTES];

    if (pcmig_stream_over(c->stream, reason)) {
        /* Ended by another connection, by `close`, or because the daemon stops. */
        c->relay.close_due = true;
        c->relay.out_done = true;
        if (pcmig_channel_unsent(c->channel) == 0)
            (void)pcmig_relay_run(&c->relay, now_us(c));
        leave(c);
        return;
    }
    switch (pcmig_relay_run(&c->relay, now_us(c))) {
    case PCMIG_RELAY_WAITS:
        break;
    case PCMIG_RELAY_MORE:
        run_again(c);
        break;
    case PCMIG_RELAY_DONE:
        leave(c);
        break;
    case PCMIG_RELAY_RESET:
        describe(c, whom);
        if (pcmig_stream_end(c->stream, c->relay.error, false))
            pcmig_messages_add(c->tunnel->messages, PCMIG_MESSAGES_STREAM, PCMIG_MESSAGES_INFO,
                               "stream of %s with %s ended: %s", pcmig_stream_name(c->stream), whom, c->relay.error);
        leave(c);
        break;
    case PCMIG_RELAY_LOST:
        fail(c, PCMIG_MESSAGES_LOST, PCMIG_MESSAGES_WARNING, c->relay.error);
        break;
    }
}

static void run_leave(struct pcmig_carrier *c)
{
    struct pcmig_edges *edges = c->relay.channel != NULL ? &c->relay.wire : &c->edges;
    enum pcmig_channel_result result = pcmig_channel_flush(c->channel);
    size_t len;

    if (result == PCMIG_CHANNEL_OK) {
        shutdown(c->wire.fd, SHUT_WR);
        /* What still comes is of no interest, but closing with it unread would cut off what the peer has not read. */
        do {
            result = pcmig_channel_fill(c->channel, &edges->in, edges->hup);
            pcmig_channel_peek(c->channel, &len);
            pcmig_channel_consume(c->channel, len);
        } while (result == PCMIG_CHANNEL_OK || (result == PCMIG_CHANNEL_AGAIN && edges->in));
    }
    if (result != PCMIG_CHANNEL_AGAIN)
        bury(c);
}

/* --- the table ----------------------------------------------------------------------------------------------------- */

static void run_nothing(struct pcmig_carrier *c)
{
    (void)c;
}

static void too_late(struct pcmig_carrier *c)
{
    fail(c, PCMIG_MESSAGES_HANDSHAKE, PCMIG_MESSAGES_WARNING, "the handshake took too long");
}

static void connect_too_late(struct pcmig_carrier *c)
{
    dial_failed(c, strerror(ETIMEDOUT));
}

static void look(struct pcmig_carrier *c)
{
    run_again(c);
}

static void dial_again(struct pcmig_carrier *c)
{
    set_state(c, STATE_NEW);
}

static const struct {
    void (*run)(struct pcmig_carrier *c);      /* something may have happened */
    void (*deadline)(struct pcmig_carrier *c); /* its time is over */
} states[] = {
    [STATE_NEW] = {run_new, run_nothing},
    [STATE_PAUSE] = {run_nothing, dial_again},
    [STATE_CONNECT] = {run_connect, connect_too_late},
    [STATE_HANDSHAKE] = {run_handshake, too_late},
    [STATE_ASK] = {run_ask, too_late},
    [STATE_LISTEN] = {run_listen, too_late},
    [STATE_JOIN] = {run_join, look},
    [STATE_ANSWER] = {run_answer, too_late},
    [STATE_RELAY] = {run_relay, run_nothing},
    [STATE_LEAVE] = {run_leave, bury},
    [STATE_GONE] = {run_nothing, run_nothing},
};
_Static_assert(sizeof(states) / sizeof(states[0]) == STATE_COUNT, "every state has a row");

#define CARRIER_OF(pointer, member)                                                                                    \
    ((struct pcmig_carrier *)(void *)((char *)(pointer)-offsetof(struct pcmig_carrier, member)))

static void on_again(struct pcmig_task *task)
{
    struct pcmig_carrier *c = CARRIER_OF(task, again);
    char reason[PCMIG_STREAM_REASON_BYTES];

    if (c->stream != NULL && c->state < STATE_RELAY && pcmig_stream_over(c->stream, reason))
        bury(c); /* the stream ended while this connection was being made */
    else
        states[c->state].run(c);
    unref(c);
}

static void on_posted(struct pcmig_task *task)
{
    struct pcmig_carrier *c = CARRIER_OF(task, posted);

    if (c->state == STATE_RELAY)
        pcmig_relay_wake(&c->relay);
    if (c->state != STATE_JOIN && c->state != STATE_PAUSE)
        run_again(c);
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
    if (c->state != STATE_JOIN)
        run_again(c);
}

static void on_local(struct pcmig_source *source, uint32_t events)
{
    struct pcmig_carrier *c = CARRIER_OF(source, local);

    tell(&c->relay.local, events);
    run_again(c);
}

static void on_deadline(struct pcmig_timer *timer)
{
    struct pcmig_carrier *c = CARRIER_OF(timer, deadline);

    states[c->state].deadline(c);
}

static void on_tick(struct pcmig_timer *timer)
{
    struct pcmig_carrier *c = CARRIER_OF(timer, tick);
    const int64_t dead_after_us = (int64_t)c->tunnel->config.dead_after_ms * 1000;

    if (pcmig_relay_tick(&c->relay, c->wire.fd, now_us(c), dead_after_us) == PCMIG_RELAY_LOST) {
        fail(c, PCMIG_MESSAGES_LOST, PCMIG_MESSAGES_WARNING, c->relay.error);
        return;
    }
    set_tick(c);
    run_again(c);
}

/* --- making -------------------------------------------------------------------------------------------------------- */

static void on_begin(struct pcmig_task *task)
{
    struct pcmig_carrier *c = CARRIER_OF(task, posted);
    struct pcmig_worker *worker = c->worker;

    c->posted.run = on_posted;
    c->next = worker->carriers;
    if (c->next != NULL)
        c->next->prev = c;
    worker->carriers = c;
    run_again(c);
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
    c->posted.run = on_begin;
    c->again.run = on_again;
    c->deadline.fire = on_deadline;
    c->tick.fire = on_tick;
    c->wire = (struct pcmig_source){.fd = -1, .ready = on_wire};
    c->local = (struct pcmig_source){.fd = -1, .ready = on_local};
    c->slot = -1;
    atomic_fetch_add(&worker->carrier_count, 1);
    atomic_fetch_add(&worker->tunnel->carrier_count, 1);
    return c;
}

bool pcmig_carrier_accept(struct pcmig_worker *worker, int fd, const char *address, int slot)
{
    struct pcmig_carrier *c = carrier_new(worker);

    if (c == NULL) {
        close(fd);
        return false;
    }
    c->wire.fd = fd;
    c->slot = slot;
    snprintf(c->address, sizeof(c->address), "%s", address);
    pcmig_carrier_wake(c);
    return true;
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
    c->dial_pause_us = DIAL_PAUSE_US;
    c->dial_until_us = pcmig_clock_us() + (int64_t)worker->tunnel->config.dial_ms * 1000;
    (void)attach(c); /* if the stream has ended already, the carrier finds that out by itself */
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
    pcmig_carrier_wake(c);
    return true;
}

void pcmig_carrier_end_all(struct pcmig_worker *worker, const char *reason)
{
    while (worker->carriers != NULL) {
        struct pcmig_carrier *c = worker->carriers;

        if (c->stream != NULL)
            pcmig_stream_end(c->stream, reason, false);
        if (c->probe != NULL)
            fail(c, PCMIG_MESSAGES_LIFE, PCMIG_MESSAGES_DEBUG, reason);
        else
            bury(c);
    }
}
