/* SPDX-License-Identifier: Apache-2.0 */
/* See relay.h. */
#include "tunnel/stream/relay.h"

#include "tunnel/peer.h"

#include <linux/tcp.h> /* the newer half of struct tcp_info, which netinet/tcp.h lacks */
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

enum {
    HEADER = PCMIG_TUNNEL_FRAME_HEADER_BYTES,
    QUIET_US = 500000, /* after which the peer is spoken to, at the next tick */
    UNREAD_MIN_BYTES = 256 << 10,
    UNREAD_MAX_BYTES = 64 << 20,
};

static enum pcmig_relay_result lost(struct pcmig_relay *r, const char *why)
{
    snprintf(r->error, sizeof(r->error), "%s", why);
    return PCMIG_RELAY_LOST;
}

/* What may lie unread in the kernel: what is under way in two round trips at the present rate, and some more. The
 * kernel's own choice is many megabytes, and whatever the source sends next waits behind them when this host is busy.
 * It only grows: what is under way when it shrinks would be dropped, and sent again after long pauses. */
static void bound_unread(struct pcmig_relay *r, int fd, int64_t now_us, uint32_t min_rtt_us)
{
    const int64_t passed_us = now_us - r->tick_us;
    uint64_t bytes = UNREAD_MIN_BYTES;

    if (passed_us > 0)
        bytes += 2 * r->in_bytes * min_rtt_us / (uint64_t)passed_us;
    if (bytes > UNREAD_MAX_BYTES)
        bytes = UNREAD_MAX_BYTES;
    r->tick_us = now_us;
    r->in_bytes = 0;
    if (bytes * 4 > (uint64_t)r->unread_bytes * 5) {
        r->unread_bytes = (int)bytes;
        pcmig_peer_bound_unread(fd, r->unread_bytes);
    }
}

void pcmig_relay_begin(struct pcmig_relay *r, struct pcmig_channel *channel, struct pcmig_stream *stream,
                       unsigned index, int fd, int64_t now_us)
{
    memset(r, 0, sizeof(*r));
    r->channel = channel;
    r->stream = stream;
    r->index = index;
    /* Nothing is known yet: try. */
    r->wire = (struct pcmig_edges){.in = true, .out = true};
    r->local = (struct pcmig_edges){.in = true, .out = true};
    r->heard_us = r->sent_us = r->tick_us = now_us;
    bound_unread(r, fd, now_us, 0);
}

/* --- sending ------------------------------------------------------------------------------------------------------ */

static size_t put_bare(uint8_t *to, enum pcmig_tunnel_frame_type type, uint8_t code, uint64_t seq)
{
    const struct pcmig_tunnel_frame frame = {.type = type, .code = code, .seq = seq};

    pcmig_tunnel_frame_encode(&frame, to);
    return HEADER;
}

/* What is due, into TO with ROOM bytes, which is a whole batch. Returns how many bytes. */
static size_t gather(struct pcmig_relay *r, uint8_t *to, size_t room)
{
    struct pcmig_tunnel_frame frame;
    size_t used = 0;

    if (r->pong_due)
        used += put_bare(to + used, PCMIG_TUNNEL_FRAME_PONG, 0, r->pong_seq);
    if (r->ping_due)
        used += put_bare(to + used, PCMIG_TUNNEL_FRAME_PING, 0, (uint64_t)r->sent_us);
    if (r->close_due)
        used += put_bare(to + used, PCMIG_TUNNEL_FRAME_RESET, PCMIG_TUNNEL_RESET_CLOSED, 0);
    if (r->bye_due)
        used += put_bare(to + used, PCMIG_TUNNEL_FRAME_BYE, 0, 0);
    r->bye_said = r->bye_said || r->bye_due;
    r->pong_due = r->ping_due = r->close_due = r->bye_due = false;
    while (r->local.in && !r->out_done && room - used > HEADER) {
        const size_t space = room - used - HEADER;
        const enum pcmig_stream_take take = pcmig_stream_take(r->stream, to + used + HEADER, space, &frame);

        if (take != PCMIG_STREAM_FRAME) {
            r->local.in = r->local.in && take != PCMIG_STREAM_EMPTY;
            r->out_done = take == PCMIG_STREAM_DONE;
            break;
        }
        pcmig_tunnel_frame_encode(&frame, to + used);
        used += HEADER + frame.length;
        /* Less than there was room for: it has run dry, and what comes later is told anew. Its end is not. */
        if (frame.type == PCMIG_TUNNEL_FRAME_DATA) {
            if (frame.length < space && !r->local.hup)
                r->local.in = false;
            break;
        }
    }
    return used;
}

static enum pcmig_relay_result flush(struct pcmig_relay *r, int64_t now_us)
{
    const size_t before = pcmig_channel_unsent(r->channel);
    enum pcmig_channel_result result;

    if (before == 0)
        return PCMIG_RELAY_MORE;
    if (!r->wire.out)
        return PCMIG_RELAY_WAITS;
    result = pcmig_channel_flush(r->channel);
    if (result == PCMIG_CHANNEL_FAILED)
        return lost(r, pcmig_channel_error(r->channel));
    if (pcmig_channel_unsent(r->channel) < before)
        r->sent_us = now_us;
    r->wire.out = result == PCMIG_CHANNEL_OK;
    return r->wire.out ? PCMIG_RELAY_MORE : PCMIG_RELAY_WAITS;
}

/* One batch. MORE when there may be another. */
static enum pcmig_relay_result send_batch(struct pcmig_relay *r, int64_t now_us)
{
    enum pcmig_relay_result result = flush(r, now_us);
    size_t room, used;
    uint8_t *to;

    if (result != PCMIG_RELAY_MORE)
        return result;
    to = pcmig_channel_reserve(r->channel, &room);
    used = gather(r, to, room);
    if (used == 0)
        return PCMIG_RELAY_WAITS;
    if (!pcmig_channel_commit(r->channel, used))
        return lost(r, pcmig_channel_error(r->channel));
    result = flush(r, now_us);
    if (result == PCMIG_RELAY_MORE && (!r->local.in || r->out_done))
        result = PCMIG_RELAY_WAITS;
    return result;
}

/* --- receiving ---------------------------------------------------------------------------------------------------- */

/* The header at the front of what was received. WAITS when it is not whole; sets has_frame when it is one of the
 * stream's order. */
static enum pcmig_relay_result take_header(struct pcmig_relay *r)
{
    size_t len;
    const uint8_t *bytes = pcmig_channel_peek(r->channel, &len);

    if (len < HEADER)
        return PCMIG_RELAY_WAITS;
    if (!pcmig_tunnel_frame_decode(bytes, &r->frame))
        return lost(r, "the peer sent what is no frame of the tunnel's protocol");
    pcmig_channel_consume(r->channel, HEADER);
    switch (r->frame.type) {
    case PCMIG_TUNNEL_FRAME_PING:
        r->pong_due = true;
        r->pong_seq = r->frame.seq;
        return PCMIG_RELAY_MORE;
    case PCMIG_TUNNEL_FRAME_PONG:
        return PCMIG_RELAY_MORE;
    case PCMIG_TUNNEL_FRAME_BYE:
        r->bye_heard = true;
        return PCMIG_RELAY_MORE;
    case PCMIG_TUNNEL_FRAME_RESET:
        if (r->frame.code == PCMIG_TUNNEL_RESET_CLOSED) {
            snprintf(r->error, sizeof(r->error), "%s", pcmig_tunnel_frame_reset_text(r->frame.code));
            return PCMIG_RELAY_RESET;
        }
        break;
    case PCMIG_TUNNEL_FRAME_DATA:
    case PCMIG_TUNNEL_FRAME_FIN:
        break;
    }
    r->has_frame = true;
    r->has_turn = false;
    r->left = r->frame.length;
    return PCMIG_RELAY_MORE;
}

/* The frame at hand, as far as it can be dealt with. WAITS: for its turn, for more of it or for room. */
static enum pcmig_relay_result deal(struct pcmig_relay *r)
{
    size_t len, n;
    const uint8_t *bytes;

    if (!r->has_turn)
        r->has_turn = pcmig_stream_turn(r->stream, r->index, r->frame.seq);
    if (!r->has_turn)
        return PCMIG_RELAY_WAITS;
    if (r->left > 0) {
        bytes = pcmig_channel_peek(r->channel, &len);
        if (len == 0 || !r->local.out)
            return PCMIG_RELAY_WAITS;
        if (len > r->left)
            len = r->left;
        n = pcmig_stream_give(r->stream, bytes, len);
        pcmig_channel_consume(r->channel, n);
        r->left -= (uint32_t)n;
        r->in_bytes += n;
        if (n < len)
            r->local.out = false;
        if (r->left > 0)
            return n > 0 ? PCMIG_RELAY_MORE : PCMIG_RELAY_WAITS;
    }
    r->has_frame = false;
    if (r->frame.type == PCMIG_TUNNEL_FRAME_FIN)
        pcmig_stream_finish(r->stream);
    pcmig_stream_next(r->stream);
    if (r->frame.type == PCMIG_TUNNEL_FRAME_RESET) {
        snprintf(r->error, sizeof(r->error), "%s", pcmig_tunnel_frame_reset_text(r->frame.code));
        return PCMIG_RELAY_RESET;
    }
    return PCMIG_RELAY_MORE;
}

/* Whether what was received waits for something else than more of it. */
static bool is_held_up(const struct pcmig_relay *r)
{
    size_t len;

    pcmig_channel_peek(r->channel, &len);
    return r->has_frame && (!r->has_turn || (r->left > 0 && len > 0));
}

/* One batch. MORE when there may be another. */
static enum pcmig_relay_result receive_batch(struct pcmig_relay *r, int64_t now_us)
{
    bool filled = false;

    for (;;) {
        enum pcmig_relay_result result;

        do
            result = r->has_frame ? deal(r) : take_header(r);
        while (result == PCMIG_RELAY_MORE);
        if (result != PCMIG_RELAY_WAITS)
            return result;
        if (is_held_up(r))
            return PCMIG_RELAY_WAITS;
        if (filled)
            return r->wire.in || pcmig_channel_holds(r->channel) ? PCMIG_RELAY_MORE : PCMIG_RELAY_WAITS;
        switch (pcmig_channel_fill(r->channel, &r->wire.in, r->wire.hup)) {
        case PCMIG_CHANNEL_OK:
            r->heard_us = now_us;
            filled = true;
            break;
        case PCMIG_CHANNEL_AGAIN:
            /* Perhaps half a record; the tick says when it stays at that. */
            return r->wire.in ? PCMIG_RELAY_MORE : PCMIG_RELAY_WAITS;
        case PCMIG_CHANNEL_EOF:
            if (r->bye_heard) {
                r->wire.in = false;
                return PCMIG_RELAY_WAITS;
            }
            return lost(r, "the peer closed the connection in the middle of the stream");
        case PCMIG_CHANNEL_FAILED:
            return lost(r, pcmig_channel_error(r->channel));
        }
    }
}

/* --- both --------------------------------------------------------------------------------------------------------- */

void pcmig_relay_wake(struct pcmig_relay *r)
{
    r->local.in = true;
    r->out_done = false;
}

enum pcmig_relay_result pcmig_relay_run(struct pcmig_relay *r, int64_t now_us)
{
    /* Receiving first: it may make something due. */
    const enum pcmig_relay_result in = receive_batch(r, now_us);
    enum pcmig_relay_result out;

    if (in == PCMIG_RELAY_LOST || in == PCMIG_RELAY_RESET)
        return in;
    out = send_batch(r, now_us);
    pcmig_stream_note_held(r->stream, r->index, pcmig_channel_unsent(r->channel));
    if (out == PCMIG_RELAY_LOST)
        return out;
    if (pcmig_channel_unsent(r->channel) == 0 && pcmig_stream_finished(r->stream)) {
        if (r->bye_said)
            return PCMIG_RELAY_DONE;
        r->bye_due = true;
        return PCMIG_RELAY_MORE;
    }
    return in == PCMIG_RELAY_MORE || out == PCMIG_RELAY_MORE ? PCMIG_RELAY_MORE : PCMIG_RELAY_WAITS;
}

enum pcmig_relay_result pcmig_relay_tick(struct pcmig_relay *r, int fd, int64_t now_us, int64_t dead_after_us)
{
    struct pcmig_account *account = pcmig_stream_account(r->stream);
    struct tcp_info info = {0};
    socklen_t len = sizeof(info);

    /* Whoever does not read what is there cannot say that nothing comes. */
    if (r->wire.in || r->bye_heard || is_held_up(r))
        r->heard_us = now_us;
    if (now_us - r->heard_us >= dead_after_us)
        return lost(r, "nothing was heard of the peer");
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) == 0) {
        /* Not TCP_USER_TIMEOUT: that ends a connection whose peer answers and has no room, too. */
        if (info.tcpi_unacked > 0 && (int64_t)info.tcpi_last_ack_recv * 1000 >= dead_after_us &&
            (int64_t)info.tcpi_last_data_recv * 1000 >= dead_after_us)
            return lost(r, "the peer acknowledges nothing");
        if (len >= offsetof(struct tcp_info, tcpi_rtt) + sizeof(info.tcpi_rtt))
            atomic_store(&account->rtt_us, info.tcpi_rtt);
        if (len >= offsetof(struct tcp_info, tcpi_min_rtt) + sizeof(info.tcpi_min_rtt))
            bound_unread(r, fd, now_us, info.tcpi_min_rtt);
    }
    /* Spoken to even when it was heard of: it listens for us as we do for it. */
    if (now_us - r->sent_us >= (dead_after_us < 8 * QUIET_US ? dead_after_us / 8 : QUIET_US))
        r->ping_due = true;
    pcmig_relay_settle(r);
    return PCMIG_RELAY_WAITS;
}

void pcmig_relay_settle(struct pcmig_relay *r)
{
    struct pcmig_account *account = pcmig_stream_account(r->stream);
    const struct pcmig_channel_stats *now = pcmig_channel_stats(r->channel);

    PCMIG_ACCOUNT_ADD(account, records_out, (long long)(now->records_out - r->told.records_out));
    PCMIG_ACCOUNT_ADD(account, records_in, (long long)(now->records_in - r->told.records_in));
    PCMIG_ACCOUNT_ADD(account, crypto_out_us, (long long)(now->crypto_out_us - r->told.crypto_out_us));
    PCMIG_ACCOUNT_ADD(account, crypto_in_us, (long long)(now->crypto_in_us - r->told.crypto_in_us));
    r->told = *now;
}
