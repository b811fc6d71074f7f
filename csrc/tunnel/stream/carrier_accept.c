/* SPDX-License-Identifier: Apache-2.0 */
/* A carrier that was accepted: who may, what for, and the stream that it belongs to. See carrier_internal.h. */
#include "tunnel/stream/carrier_internal.h"

#include "tunnel/local/place.h"

#include <stdio.h>
#include <unistd.h>

/* Between two looks for a socket, or for the first connection of a stream: an eighth of what was waited so far, so that
 * many who wait for nothing cost little. */
enum { LOOK_US = 20000, LOOK_MAX_US = 500000, LOOK_SHARE = 8 };

/* The answer is with the kernel, or could not be sent. What came with hello is delivered in either case: QEMU knows of
 * the connection by now, and the relay finds its end behind the bytes. */
static void answered(struct pcmig_carrier *c, bool sent)
{
    const bool accepted = c->verdict == PCMIG_TUNNEL_ACCEPTED && c->stream != NULL;

    if (accepted && (sent || c->hello.kind == PCMIG_TUNNEL_KIND_SPEAKING_STREAM))
        pcmig_carrier_begin_relay(c);
    else if (sent)
        pcmig_carrier_leave(c);
    else
        pcmig_carrier_cannot_say(c);
}

/* Tells the peer the verdict; a refusal, with REASON for this side, ends the connection. */
static void answer(struct pcmig_carrier *c, enum pcmig_tunnel_verdict verdict, const char *reason)
{
    const struct pcmig_tunnel_answer text = {.verdict = verdict, .clock_ms = pcmig_carrier_wall_clock_ms()};
    uint8_t bytes[PCMIG_TUNNEL_FRAME_ANSWER_BYTES];
    char whom[PCMIG_CARRIER_WHOM_BYTES];

    c->verdict = verdict;
    if (verdict != PCMIG_TUNNEL_ACCEPTED) {
        pcmig_figures_count(&c->tunnel->figures, PCMIG_FIGURE_VERDICT + verdict);
        pcmig_carrier_describe(c, whom);
        pcmig_messages_add(c->tunnel->messages, PCMIG_MESSAGES_REFUSED, PCMIG_MESSAGES_WARNING,
                           "refused a stream from %s%s%s: %s", whom, c->hello.name[0] != '\0' ? " for " : "",
                           c->hello.name, reason);
        if (c->stream != NULL)
            pcmig_stream_end(c->stream, reason, false);
    }
    pcmig_carrier_set_deadline(c, (int64_t)c->rules->config.handshake_ms * 1000);
    pcmig_tunnel_frame_encode_answer(&text, bytes);
    if (pcmig_carrier_say(c, bytes, sizeof(bytes)))
        pcmig_carrier_set_state(c, PCMIG_CARRIER_ANSWER);
    else
        answered(c, false);
}

/* Hands were shaken by the rules that the carrier began with: what a reload has changed meanwhile counts too. */
static bool is_welcome(const struct pcmig_carrier *c, char reason[PCMIG_TLS_ERROR_BYTES])
{
    struct pcmig_rules *rules = pcmig_tunnel_rules(c->tunnel);
    bool welcome = true;

    if (c->certificate != NULL)
        welcome = rules == c->rules ? pcmig_certificate_is_allowed(c->certificate, rules, reason)
                                    : pcmig_certificate_is_welcome(c->certificate, rules, true, reason);
    pcmig_rules_unref(rules);
    return welcome;
}

static void begin_join(struct pcmig_carrier *c)
{
    c->look_since_us = pcmig_carrier_now_us(c);
    c->look_until_us = c->look_since_us + (int64_t)c->rules->config.socket_wait_ms * 1000;
    if (c->index > 0) /* the first connection may be in its handshake yet */
        c->look_until_us += (int64_t)c->rules->config.handshake_ms * 1000;
    pcmig_loop_cancel(c->worker->loop, &c->deadline);
    pcmig_carrier_set_load(c, PCMIG_CARRIER_WAITS);
    pcmig_carrier_set_state(c, PCMIG_CARRIER_JOIN);
}

void pcmig_carrier_run_listen(struct pcmig_carrier *c)
{
    const uint8_t *bytes = pcmig_carrier_hear(c, PCMIG_TUNNEL_FRAME_HELLO_BYTES);
    char reason[PCMIG_TLS_ERROR_BYTES];
    enum pcmig_tunnel_verdict verdict;

    if (bytes == NULL)
        return;
    verdict = pcmig_tunnel_frame_decode_hello(bytes, &c->hello);
    pcmig_channel_consume(c->channel, PCMIG_TUNNEL_FRAME_HELLO_BYTES);
    if (verdict == PCMIG_TUNNEL_ACCEPTED && !is_welcome(c, reason))
        verdict = PCMIG_TUNNEL_REFUSED_PEER;
    if (verdict == PCMIG_TUNNEL_ACCEPTED && c->certificate != NULL && c->entry == NULL)
        verdict = PCMIG_TUNNEL_REFUSED_LIMIT;
    if (verdict == PCMIG_TUNNEL_ACCEPTED && atomic_load(&c->tunnel->stopping))
        verdict = PCMIG_TUNNEL_REFUSED_STOPPING;
    if (verdict != PCMIG_TUNNEL_ACCEPTED) {
        answer(c, verdict,
               verdict == PCMIG_TUNNEL_REFUSED_PEER    ? reason
               : verdict == PCMIG_TUNNEL_REFUSED_LIMIT ? "there are too many connections with its certificate"
                                                       : pcmig_tunnel_frame_verdict_text(verdict));
        return;
    }
    pcmig_admission_leave(c->tunnel->admission, c); /* in plaintext nobody is verified */
    if (c->hello.kind == PCMIG_TUNNEL_KIND_PROBE) {
        answer(c, PCMIG_TUNNEL_ACCEPTED, NULL);
        return;
    }
    c->index = c->hello.index;
    if (c->hello.kind == PCMIG_TUNNEL_KIND_SPEAKING_STREAM) {
        pcmig_carrier_set_state(c, PCMIG_CARRIER_EXPECT);
        return;
    }
    begin_join(c);
}

void pcmig_carrier_run_expect(struct pcmig_carrier *c)
{
    if (pcmig_carrier_hear(c, PCMIG_TUNNEL_FRAME_HEADER_BYTES + PCMIG_TUNNEL_FIRST_BYTES) != NULL)
        begin_join(c);
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
    if (c->stream == NULL || !pcmig_carrier_attach(c) || !pcmig_registry_add(c->tunnel->registry, c->stream)) {
        answer(c, PCMIG_TUNNEL_REFUSED_LIMIT, "memory is short, or there are too many names");
        return;
    }
    answer(c, PCMIG_TUNNEL_ACCEPTED, NULL);
}

/* Looks again later; or gives up, with VERDICT and REASON. */
static void look_again(struct pcmig_carrier *c, enum pcmig_tunnel_verdict verdict, const char *reason)
{
    const int64_t now_us = pcmig_carrier_now_us(c), left_us = c->look_until_us - now_us;
    int64_t pause_us = (now_us - c->look_since_us) / LOOK_SHARE;

    if (left_us <= 0) {
        answer(c, verdict, reason);
        return;
    }
    pause_us = pause_us < LOOK_US ? LOOK_US : pause_us > LOOK_MAX_US ? LOOK_MAX_US : pause_us;
    pcmig_carrier_set_deadline(c, pause_us < left_us ? pause_us : left_us);
}

/* A further connection of a stream that exists, or will soon. */
static void join_stream(struct pcmig_carrier *c)
{
    if (c->stream == NULL) {
        look_again(c, PCMIG_TUNNEL_REFUSED_NAME, "the stream's first connection did not come");
    } else if (c->index > 0 && c->hello.count == pcmig_stream_count(c->stream) && pcmig_carrier_attach(c)) {
        answer(c, PCMIG_TUNNEL_ACCEPTED, NULL);
    } else {
        /* What becomes of this connection is nothing to that stream. */
        pcmig_stream_unref(c->stream);
        c->stream = NULL;
        answer(c, PCMIG_TUNNEL_REFUSED_HELLO, "this connection is none of the stream's");
    }
}

void pcmig_carrier_run_join(struct pcmig_carrier *c)
{
    const struct pcmig_tunnel_config *config = c->tunnel->config;
    char error[PCMIG_PLACE_ERROR_BYTES];
    int local;

    if (c->edges.hup) {
        /* The stream is over at the peer's end, and QEMU has not heard of it here. */
        pcmig_carrier_fail(c, PCMIG_MESSAGES_REFUSED, PCMIG_MESSAGES_INFO,
                           "the peer closed it before its stream could begin");
        return;
    }
    c->stream = pcmig_registry_find(c->tunnel->registry, c->hello.name, c->hello.stream);
    if (c->stream != NULL || c->index > 0) {
        join_stream(c);
        return;
    }
    switch (
        pcmig_place_connect(config->run_dir, c->hello.name, config->socket_uid, c->tunnel->arrivals, &local, error)) {
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

void pcmig_carrier_run_answer(struct pcmig_carrier *c)
{
    const enum pcmig_channel_result result = pcmig_channel_flush(c->channel);

    if (result != PCMIG_CHANNEL_AGAIN)
        answered(c, result == PCMIG_CHANNEL_OK);
}
