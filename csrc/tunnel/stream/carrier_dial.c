/* SPDX-License-Identifier: Apache-2.0 */
/* A carrier that dials: TCP, hello, and what the answer means. See carrier_internal.h. */
#include "tunnel/stream/carrier_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>

enum {
    PAUSE_MAX_US = 1000000, /* before dialling again */
    LISTEN_US = 2000,       /* between two looks for QEMU's first bytes */
    SILENT_US = 200000, /* after which it is one that the other end speaks first on: a disk's, a request channel's */
    LEFT_US = 20000,    /* between two looks whether QEMU is still there */
    FIRST_MAX_BYTES = 2048, /* the rest follows when the peer has answered */
};

void pcmig_carrier_dial_failed(struct pcmig_carrier *c, const char *reason)
{
    char text[PCMIG_TLS_ERROR_BYTES];

    pcmig_channel_free(c->channel);
    c->channel = NULL;
    pcmig_loop_close(c->worker->loop, &c->wire);
    if (c->address_at + 1 < c->peer->count) {
        c->address_at++;
        pcmig_carrier_set_state(c, PCMIG_CARRIER_NEW);
        return;
    }
    /* A probe does not wait for a daemon that is not there, but for one that had no place for its handshake. */
    if ((c->probe == NULL || c->state == PCMIG_CARRIER_HANDSHAKE) &&
        pcmig_carrier_now_us(c) + c->dial_pause_us < c->dial_until_us) {
        c->address_at = 0;
        pcmig_carrier_set_deadline(c, c->dial_pause_us);
        if (c->dial_pause_us < PAUSE_MAX_US)
            c->dial_pause_us *= 2;
        c->state = PCMIG_CARRIER_PAUSE;
        return;
    }
    if (c->probe == NULL)
        snprintf(text, sizeof(text), "%s:%u cannot be reached: %s", c->peer->name, c->peer->port, reason);
    else /* who asked names it, and wants to know what to do */
        snprintf(text, sizeof(text), "%s%s", reason,
                 c->state == PCMIG_CARRIER_HANDSHAKE
                     ? ""
                     : ": 'pcmig tunnel' has to run there, and its TCP port to be open for this host");
    pcmig_carrier_fail(c, PCMIG_MESSAGES_LOST, PCMIG_MESSAGES_WARNING, text);
}

void pcmig_carrier_begin_dialling(struct pcmig_carrier *c)
{
    c->edges = (struct pcmig_edges){0};
    pcmig_peer_print((struct sockaddr *)&c->peer->addresses[c->address_at].address,
                     c->peer->addresses[c->address_at].len, c->address);
    c->wire.fd = pcmig_peer_connect(c->peer, c->address_at, c->rules->config.congestion);
    if (c->wire.fd < 0 || (errno = pcmig_loop_watch(c->worker->loop, &c->wire, EPOLLIN | EPOLLOUT | EPOLLRDHUP)) != 0) {
        pcmig_carrier_dial_failed(c, strerror(errno));
        return;
    }
    pcmig_carrier_set_deadline(c, (int64_t)c->rules->config.handshake_ms * 1000);
    c->state = PCMIG_CARRIER_CONNECT;
}

void pcmig_carrier_dial_again(struct pcmig_carrier *c)
{
    pcmig_carrier_set_state(c, PCMIG_CARRIER_NEW);
}

void pcmig_carrier_connect_too_late(struct pcmig_carrier *c)
{
    pcmig_carrier_dial_failed(c, strerror(ETIMEDOUT));
}

void pcmig_carrier_run_connect(struct pcmig_carrier *c)
{
    socklen_t len = sizeof(int);
    int error = 0;

    if (!c->edges.out && !c->edges.hup)
        return;
    if (getsockopt(c->wire.fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0)
        error = errno;
    if (error != 0)
        pcmig_carrier_dial_failed(c, strerror(error));
    else
        pcmig_carrier_begin_tls(c);
}

static bool has_first_bytes(struct pcmig_carrier *c)
{
    return pcmig_stream_waiting_bytes(c->stream) >= PCMIG_TUNNEL_FIRST_BYTES;
}

/* The first frame of the stream into TO. Returns how many bytes it has; 0 = there is nothing to read yet. */
static size_t take_first_bytes(struct pcmig_carrier *c, uint8_t *to)
{
    struct pcmig_tunnel_frame frame;

    if (c->index > 0 || !has_first_bytes(c) ||
        pcmig_stream_take(c->stream, to + PCMIG_TUNNEL_FRAME_HEADER_BYTES, FIRST_MAX_BYTES, &frame) !=
            PCMIG_STREAM_FRAME)
        return 0;
    pcmig_tunnel_frame_encode(&frame, to);
    return PCMIG_TUNNEL_FRAME_HEADER_BYTES + frame.length;
}

/* A QEMU that waits to be resumed gives up for good when a connection ends before it has said anything. So the first
 * connection of a stream takes the first bytes along, and the peer has them before its QEMU hears of it. */
void pcmig_carrier_begin_hello(struct pcmig_carrier *c)
{
    c->silent_until_us = pcmig_carrier_now_us(c) + SILENT_US;
    c->state = PCMIG_CARRIER_HELLO;
    pcmig_carrier_run_hello(c);
}

void pcmig_carrier_run_hello(struct pcmig_carrier *c)
{
    uint8_t text[PCMIG_TUNNEL_FRAME_HELLO_BYTES + PCMIG_TUNNEL_FRAME_HEADER_BYTES + FIRST_MAX_BYTES];
    struct pcmig_tunnel_hello hello = {
        .kind = PCMIG_TUNNEL_KIND_PROBE, .count = 1, .clock_ms = pcmig_carrier_wall_clock_ms()};
    size_t first_bytes = 0;

    if (c->stream != NULL && pcmig_stream_left(c->stream)) {
        pcmig_carrier_fail(c, PCMIG_MESSAGES_STREAM, PCMIG_MESSAGES_INFO,
                           "QEMU closed its socket before the peer was reached");
        return;
    }
    if (c->stream != NULL && c->index == 0 && !has_first_bytes(c) && pcmig_carrier_now_us(c) < c->silent_until_us) {
        pcmig_carrier_set_deadline(c, LISTEN_US);
        return;
    }
    if (c->stream != NULL) {
        first_bytes = take_first_bytes(c, text + PCMIG_TUNNEL_FRAME_HELLO_BYTES);
        hello.kind = first_bytes > 0 ? PCMIG_TUNNEL_KIND_SPEAKING_STREAM : PCMIG_TUNNEL_KIND_STREAM;
        hello.index = (uint8_t)c->index;
        hello.count = (uint8_t)pcmig_stream_count(c->stream);
        memcpy(hello.name, pcmig_stream_name(c->stream), PCMIG_TUNNEL_NAME_LEN);
        memcpy(hello.stream, pcmig_stream_id(c->stream), sizeof(hello.stream));
    }
    pcmig_tunnel_frame_encode_hello(&hello, text);
    c->asked_us = pcmig_carrier_now_us(c);
    c->hello.kind = hello.kind;
    if (!pcmig_carrier_say(c, text, PCMIG_TUNNEL_FRAME_HELLO_BYTES + first_bytes)) {
        pcmig_carrier_cannot_say(c);
        return;
    }
    pcmig_carrier_set_state(c, PCMIG_CARRIER_ASK);
    pcmig_carrier_look_asking(c);
}

/* The peer may look for its QEMU for a while before it answers. Should QEMU here leave meanwhile without having said
 * anything, the other one is not to hear of it, which may listen by then for the next attempt. */
void pcmig_carrier_look_asking(struct pcmig_carrier *c)
{
    const int64_t allowed_us = ((int64_t)c->rules->config.handshake_ms + c->rules->config.socket_wait_ms) * 1000;
    const int64_t left_us = c->asked_us + allowed_us - pcmig_carrier_now_us(c);
    const bool mute = c->hello.kind == PCMIG_TUNNEL_KIND_STREAM && c->index == 0;

    if (mute && pcmig_stream_left(c->stream))
        pcmig_carrier_fail(c, PCMIG_MESSAGES_STREAM, PCMIG_MESSAGES_INFO,
                           "QEMU closed its socket before the peer had found its own");
    else if (left_us <= 0)
        pcmig_carrier_fail(c, PCMIG_MESSAGES_HANDSHAKE, PCMIG_MESSAGES_WARNING, "the handshake took too long");
    else
        pcmig_carrier_set_deadline(c, mute && left_us > LEFT_US ? LEFT_US : left_us);
}

static void answer_probe(struct pcmig_carrier *c, const struct pcmig_tunnel_answer *answer)
{
    struct pcmig_probe_result result = {.ok = true, .not_after_s = c->not_after_s};

    memcpy(result.subject, c->subject, sizeof(result.subject));
    result.rtt_us = pcmig_carrier_now_us(c) - c->asked_us;
    result.clock_skew_ms = (int64_t)answer->clock_ms - (int64_t)pcmig_carrier_wall_clock_ms() + result.rtt_us / 2000;
    c->probe(c->probe_context, &result);
    pcmig_carrier_bury(c);
}

void pcmig_carrier_run_ask(struct pcmig_carrier *c)
{
    const uint8_t *bytes = pcmig_carrier_hear(c, PCMIG_TUNNEL_FRAME_ANSWER_BYTES);
    struct pcmig_tunnel_answer answer;

    if (bytes == NULL)
        return;
    if (!pcmig_tunnel_frame_decode_answer(bytes, &answer)) {
        pcmig_carrier_fail(c, PCMIG_MESSAGES_REFUSED, PCMIG_MESSAGES_WARNING,
                           "the peer's answer is not the tunnel's protocol");
        return;
    }
    pcmig_channel_consume(c->channel, PCMIG_TUNNEL_FRAME_ANSWER_BYTES);
    if (answer.verdict != PCMIG_TUNNEL_ACCEPTED)
        pcmig_carrier_fail(c, PCMIG_MESSAGES_REFUSED, PCMIG_MESSAGES_WARNING,
                           pcmig_tunnel_frame_verdict_text(answer.verdict));
    else if (c->probe != NULL)
        answer_probe(c, &answer);
    else
        pcmig_carrier_begin_relay(c);
}
