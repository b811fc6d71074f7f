/* SPDX-License-Identifier: Apache-2.0 */
/* A carrier's handshake, and how the first words of either side are sent and read. See carrier_internal.h. */
#include "tunnel/stream/carrier_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>

enum { TICK_US = 250000 };

void pcmig_carrier_begin_tls(struct pcmig_carrier *c)
{
    char error[PCMIG_TLS_ERROR_BYTES];

    c->channel =
        pcmig_channel_new(c->wire.fd, c->rules->tls, c->peer != NULL ? c->peer->name : NULL, c->worker->scratch, error);
    if (c->channel == NULL)
        pcmig_carrier_fail(c, PCMIG_MESSAGES_HANDSHAKE, PCMIG_MESSAGES_ERROR, error);
    else
        pcmig_carrier_set_state(c, PCMIG_CARRIER_HANDSHAKE);
}

/* Who the other end is. False when the connection has failed. */
static bool know_peer(struct pcmig_carrier *c)
{
    struct ssl_st *ssl = pcmig_channel_tls(c->channel);
    bool moderate;

    if (ssl == NULL)
        return true;
    pcmig_tls_peer(ssl, c->subject, &c->not_after_s);
    c->certificate = pcmig_certificate_of(ssl);
    if (c->certificate == NULL) {
        pcmig_carrier_fail(c, PCMIG_MESSAGES_HANDSHAKE, PCMIG_MESSAGES_ERROR, "memory is short");
        return false;
    }
    pcmig_figures_count(&c->tunnel->figures, c->peer == NULL ? PCMIG_FIGURE_ACCEPTED : PCMIG_FIGURE_DIALLED);
    c->entry = pcmig_roster_enter(c->tunnel->roster, c->certificate, c->address, c->peer == NULL, &moderate);
    if (c->peer == NULL)
        pcmig_admission_verified(c->tunnel->admission, c, moderate, pcmig_carrier_now_us(c));
    /* A reload may have come while hands were shaken by the rules before it. Who accepts looks when it has hello. */
    return c->peer == NULL || pcmig_carrier_review(c);
}

void pcmig_carrier_run_handshake(struct pcmig_carrier *c)
{
    const enum pcmig_channel_result result = pcmig_channel_handshake(c->channel);

    c->edges.in = c->edges.out = false;
    if (result == PCMIG_CHANNEL_AGAIN)
        return;
    if (result == PCMIG_CHANNEL_EOF && c->peer != NULL) {
        /* A daemon that is just about to start, or a network to come back. */
        char reason[PCMIG_TLS_ERROR_BYTES];

        snprintf(reason, sizeof(reason), "%s", pcmig_channel_error(c->channel));
        pcmig_carrier_dial_failed(c, reason);
        return;
    }
    if (result != PCMIG_CHANNEL_OK) {
        if (c->peer == NULL)
            pcmig_figures_count(&c->tunnel->figures, pcmig_channel_refused_certificate(c->channel)
                                                         ? PCMIG_FIGURE_CERTIFICATE
                                                         : PCMIG_FIGURE_HANDSHAKE);
        pcmig_carrier_fail(c, PCMIG_MESSAGES_HANDSHAKE, PCMIG_MESSAGES_WARNING, pcmig_channel_error(c->channel));
        return;
    }
    c->edges.in = true; /* the socket may hold more than the handshake */
    if (!know_peer(c))
        return;
    if (c->peer != NULL)
        pcmig_carrier_begin_hello(c);
    else
        pcmig_carrier_set_state(c, PCMIG_CARRIER_LISTEN);
}

bool pcmig_carrier_say(struct pcmig_carrier *c, const uint8_t *text, size_t len)
{
    size_t room;
    uint8_t *to = pcmig_channel_reserve(c->channel, &room);

    if (room < len)
        return false;
    memcpy(to, text, len);
    return pcmig_channel_commit(c->channel, len) && pcmig_channel_flush(c->channel) != PCMIG_CHANNEL_FAILED;
}

void pcmig_carrier_cannot_say(struct pcmig_carrier *c)
{
    const char *reason = pcmig_channel_error(c->channel);

    pcmig_carrier_fail(c, PCMIG_MESSAGES_HANDSHAKE, PCMIG_MESSAGES_WARNING,
                       reason[0] != '\0' ? reason : "the connection is stuck");
}

const uint8_t *pcmig_carrier_hear(struct pcmig_carrier *c, size_t len)
{
    enum pcmig_channel_result result;
    const uint8_t *bytes;
    size_t there;

    for (;;) {
        bytes = pcmig_channel_peek(c->channel, &there);
        if (there >= len)
            return bytes;
        if (c->state == PCMIG_CARRIER_LISTEN && !pcmig_tunnel_frame_maybe_hello(bytes, (uint32_t)there)) {
            pcmig_figures_count(&c->tunnel->figures, PCMIG_FIGURE_VERDICT + PCMIG_TUNNEL_REFUSED_HELLO);
            pcmig_carrier_fail(c, PCMIG_MESSAGES_HANDSHAKE, PCMIG_MESSAGES_WARNING,
                               pcmig_tunnel_frame_verdict_text(PCMIG_TUNNEL_REFUSED_HELLO));
            return NULL;
        }
        result = pcmig_channel_fill(c->channel, &c->edges.in, c->edges.hup);
        if (result == PCMIG_CHANNEL_OK || (result == PCMIG_CHANNEL_AGAIN && c->edges.in))
            continue;
        if (result == PCMIG_CHANNEL_AGAIN)
            return NULL;
        pcmig_carrier_fail(c, PCMIG_MESSAGES_HANDSHAKE, PCMIG_MESSAGES_WARNING,
                           result == PCMIG_CHANNEL_EOF
                               ? c->state == PCMIG_CARRIER_EXPECT
                                     ? "the peer closed the connection before the stream's first bytes had come"
                                     : "the peer closed the connection before it had said what it wants"
                               : pcmig_channel_error(c->channel));
        return NULL;
    }
}

/* When to look next whether the peer is still there: four times within the silence that is allowed. */
void pcmig_carrier_set_tick(struct pcmig_carrier *c)
{
    const int64_t dead_after_us = (int64_t)c->rules->config.dead_after_ms * 1000;

    pcmig_loop_set(c->worker->loop, &c->tick,
                   pcmig_carrier_now_us(c) + (dead_after_us < 4 * TICK_US ? dead_after_us / 4 : TICK_US));
}

/* For whoever wants to know later who has sent what. */
static void note_peer(const struct pcmig_carrier *c)
{
    struct pcmig_account_peer peer = {0};
    const char *way = c->peer == NULL ? "has come from" : "goes to";

    memcpy(peer.address, c->address, sizeof(peer.address));
    if (c->certificate != NULL) {
        const struct pcmig_certificate_text *text = pcmig_certificate_text(c->certificate);

        memcpy(peer.subject, text->subject, sizeof(peer.subject));
        memcpy(peer.serial, text->serial, sizeof(peer.serial));
        memcpy(peer.fingerprint, text->fingerprint, sizeof(peer.fingerprint));
    }
    pcmig_account_set_peer(pcmig_stream_account(c->stream), &peer);
    if (c->index > 0)
        return;
    pcmig_messages_add(c->tunnel->messages, PCMIG_MESSAGES_PEER, PCMIG_MESSAGES_INFO,
                       "stream of %s %s %s: serial %s, SHA-256 %s, %s", pcmig_stream_name(c->stream), way, c->address,
                       c->certificate != NULL ? peer.serial : "-", c->certificate != NULL ? peer.fingerprint : "-",
                       c->certificate != NULL ? peer.subject : "no certificate");
}
_Static_assert(sizeof(((struct pcmig_account_peer *)NULL)->address) == PCMIG_PEER_TEXT_BYTES &&
                   sizeof(((struct pcmig_account_peer *)NULL)->subject) == PCMIG_TLS_SUBJECT_BYTES &&
                   sizeof(((struct pcmig_account_peer *)NULL)->serial) ==
                       sizeof(((struct pcmig_certificate_text *)NULL)->serial) &&
                   sizeof(((struct pcmig_account_peer *)NULL)->fingerprint) ==
                       sizeof(((struct pcmig_certificate_text *)NULL)->fingerprint),
               "copied whole");

void pcmig_carrier_begin_relay(struct pcmig_carrier *c)
{
    struct pcmig_account *account = pcmig_stream_account(c->stream);
    char congestion[PCMIG_PEER_CONGESTION_BYTES];

    c->local.fd = pcmig_stream_local(c->stream);
    if (c->local.fd < 0 ||
        (errno = pcmig_loop_watch(c->worker->loop, &c->local, EPOLLIN | EPOLLOUT | EPOLLRDHUP)) != 0) {
        pcmig_carrier_fail(c, PCMIG_MESSAGES_STREAM, PCMIG_MESSAGES_ERROR,
                           errno != 0 ? strerror(errno) : "no local socket");
        return;
    }
    pcmig_loop_cancel(c->worker->loop, &c->deadline);
    pcmig_stream_arrived(c->stream);
    pcmig_stream_note_wire(c->stream, c->index, c->wire.fd);
    pcmig_peer_congestion(c->wire.fd, congestion);
    pcmig_account_set_connection(account, pcmig_channel_cipher(c->channel), congestion);
    note_peer(c);
    pcmig_relay_begin(&c->relay, c->channel, c->stream, c->index, c->wire.fd, pcmig_carrier_now_us(c));
    c->relay.wire.hup = c->edges.hup; /* is told once */
    pcmig_carrier_set_tick(c);
    pcmig_carrier_set_load(c, PCMIG_CARRIER_CARRIES);
    pcmig_carrier_set_state(c, PCMIG_CARRIER_RELAY);
}
