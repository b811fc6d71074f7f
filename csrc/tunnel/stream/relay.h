/* SPDX-License-Identifier: Apache-2.0 */
/* What a carrier does once both ends agree: frames from the stream to the channel and from the channel to the stream.
 * It is told what became readable or writable, and moves at most one batch in each direction at a time, so that
 * carriers share their thread fairly and a page request waits for one batch at the most. */
#ifndef PCMIG_TUNNEL_STREAM_RELAY_H
#define PCMIG_TUNNEL_STREAM_RELAY_H

#include "core/tunnel_frame.h"
#include "tunnel/tls/channel.h"
#include "tunnel/stream/stream.h"

#include <stdbool.h>
#include <stdint.h>

/* What an edge-triggered epoll has told and has not been used up. */
struct pcmig_edges {
    bool in, out;
    bool hup; /* the other side has closed: only a read of 0 ends `in` */
};

struct pcmig_relay {
    struct pcmig_channel *channel;
    struct pcmig_stream *stream;
    unsigned index; /* of this connection within the stream */
    struct pcmig_edges wire, local;
    /* Received: a frame that is not dealt with. */
    bool has_frame;
    bool has_turn;
    struct pcmig_tunnel_frame frame;
    uint32_t left; /* bytes of its payload */
    /* To be sent. */
    bool ping_due, pong_due, close_due, bye_due;
    uint64_t pong_seq;
    bool out_done;
    bool bye_said, bye_heard;
    /* CLOCK_MONOTONIC, microseconds. */
    int64_t heard_us, sent_us;
    int64_t tick_us;                       /* of the last tick */
    uint64_t in_bytes;                     /* received since then */
    int unread_bytes;                      /* the bound in force, see pcmig_peer_bound_unread; 0 = none yet */
    struct pcmig_channel_stats told;       /* of the channel's figures: what the account has already */
    char error[PCMIG_STREAM_REASON_BYTES]; /* of LOST and RESET */
};

enum pcmig_relay_result {
    PCMIG_RELAY_WAITS, /* for an edge, a wake-up or the time */
    PCMIG_RELAY_MORE,  /* could go on at once */
    PCMIG_RELAY_DONE,  /* the stream has finished and all is with the kernel */
    PCMIG_RELAY_RESET, /* the peer has ended the stream; see error */
    PCMIG_RELAY_LOST,  /* see error */
};

/* FD: the TCP connection below CHANNEL. */
void pcmig_relay_begin(struct pcmig_relay *relay, struct pcmig_channel *channel, struct pcmig_stream *stream,
                       unsigned index, int fd, int64_t now_us);

/* The stream has woken its carriers: its turn may have come, or its socket may have an end. */
void pcmig_relay_wake(struct pcmig_relay *relay);

enum pcmig_relay_result pcmig_relay_run(struct pcmig_relay *relay, int64_t now_us);

/* Some times a second: whether the peer is still there, and how much may wait for this side. FD: of the TCP connection.
 * Sets ping_due when it was not spoken to; then run. WAITS or LOST. */
enum pcmig_relay_result pcmig_relay_tick(struct pcmig_relay *relay, int fd, int64_t now_us, int64_t dead_after_us);

/* The last figures into the account, when the relay ends. */
void pcmig_relay_settle(struct pcmig_relay *relay);

#endif
