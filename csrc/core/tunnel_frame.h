/* SPDX-License-Identifier: Apache-2.0 */
/* What two tunnel daemons say to each other on one TCP connection, inside TLS. All numbers are big-endian.
 *
 *   dialler -> acceptor   hello, PCMIG_TUNNEL_FRAME_HELLO_BYTES:
 *      0  4  magic "PCMT"          8  32  name, lower-case hex digits (zeros in a probe)
 *      4  1  version, 1           40  16  id of the stream, the same on all its connections
 *      5  1  kind                 56   8  the dialler's clock, ms since 1970
 *      6  1  index of this connection within the stream, from 0
 *      7  1  number of connections
 *   acceptor -> dialler   answer, PCMIG_TUNNEL_FRAME_ANSWER_BYTES:
 *      0  4  magic                 6   2  zero
 *      4  1  version               8   8  the acceptor's clock, ms since 1970
 *      5  1  verdict
 *   then both             frames, PCMIG_TUNNEL_FRAME_HEADER_BYTES and `length` bytes of payload:
 *      0  1  type                  2   2  zero
 *      1  1  code, of RESET        4   4  length
 *                                  8   8  seq
 *
 * DATA, FIN and RESET (gone) of one direction are numbered together from 0 and take effect in this order, on whichever
 * of the stream's connections they come. RESET (closed) takes effect at once. seq of PING is any value, PONG repeats
 * it. A connection that ends without BYE was lost, and the stream with it. Values in, values out; no allocation. */
#ifndef PCMIG_CORE_TUNNEL_FRAME_H
#define PCMIG_CORE_TUNNEL_FRAME_H

#include <stdbool.h>
#include <stdint.h>

#define PCMIG_TUNNEL_FRAME_HEADER_BYTES  16
#define PCMIG_TUNNEL_FRAME_PAYLOAD_BYTES (1 << 20) /* at most, in one frame */
#define PCMIG_TUNNEL_FRAME_HELLO_BYTES   64
#define PCMIG_TUNNEL_FRAME_ANSWER_BYTES  16
#define PCMIG_TUNNEL_FRAME_VERSION       1
#define PCMIG_TUNNEL_FRAME_STREAM_BYTES  16
#define PCMIG_TUNNEL_NAME_LEN            32 /* hex digits */
#define PCMIG_TUNNEL_CONNECTIONS         8  /* of one stream, at most */
/* What QEMU reads of a connection to see what it is (migration_channel_read_peek). */
#define PCMIG_TUNNEL_FIRST_BYTES         4

enum pcmig_tunnel_frame_type {
    PCMIG_TUNNEL_FRAME_DATA = 1, /* payload for the other end's socket */
    PCMIG_TUNNEL_FRAME_FIN,      /* this direction has ended (half-close) */
    PCMIG_TUNNEL_FRAME_PING,     /* are you there? */
    PCMIG_TUNNEL_FRAME_PONG,     /* yes */
    PCMIG_TUNNEL_FRAME_RESET,    /* the stream is over in both directions; code says why */
    PCMIG_TUNNEL_FRAME_BYE,      /* nothing more comes on this connection; the stream's others may still carry some */
};

/* Why a stream was ended. */
enum pcmig_tunnel_reset {
    PCMIG_TUNNEL_RESET_GONE = 1, /* whoever used the socket has closed it and more data came for it */
    PCMIG_TUNNEL_RESET_CLOSED,   /* `close` of the name, or the daemon stops */
    PCMIG_TUNNEL_RESET_COUNT
};

struct pcmig_tunnel_frame {
    enum pcmig_tunnel_frame_type type;
    uint8_t code; /* enum pcmig_tunnel_reset of RESET, else 0 */
    uint32_t length;
    uint64_t seq;
};

enum pcmig_tunnel_kind {
    PCMIG_TUNNEL_KIND_PROBE = 0, /* wants the answer only */
    PCMIG_TUNNEL_KIND_STREAM,
    /* The same, and its first frame follows at once: DATA with PCMIG_TUNNEL_FIRST_BYTES or more. Whoever accepts waits
     * for them before QEMU hears of the connection. */
    PCMIG_TUNNEL_KIND_SPEAKING_STREAM,
    PCMIG_TUNNEL_KIND_COUNT
};

struct pcmig_tunnel_hello {
    enum pcmig_tunnel_kind kind;
    uint8_t index;
    uint8_t count;
    char name[PCMIG_TUNNEL_NAME_LEN + 1]; /* with NUL; empty in a probe */
    uint8_t stream[PCMIG_TUNNEL_FRAME_STREAM_BYTES];
    uint64_t clock_ms;
};

/* The acceptor's verdict. Numbers are on the wire: add at the end only. */
enum pcmig_tunnel_verdict {
    PCMIG_TUNNEL_ACCEPTED = 0,
    PCMIG_TUNNEL_REFUSED_VERSION,  /* of the hello */
    PCMIG_TUNNEL_REFUSED_HELLO,    /* malformed */
    PCMIG_TUNNEL_REFUSED_PEER,     /* not on the allow list */
    PCMIG_TUNNEL_REFUSED_NAME,     /* no QEMU listens there */
    PCMIG_TUNNEL_REFUSED_SOCKET,   /* what is there is not the guest's QEMU's */
    PCMIG_TUNNEL_REFUSED_LIMIT,    /* too many connections or streams */
    PCMIG_TUNNEL_REFUSED_STOPPING, /* the daemon is about to end */
    PCMIG_TUNNEL_VERDICT_COUNT
};

struct pcmig_tunnel_answer {
    enum pcmig_tunnel_verdict verdict;
    uint64_t clock_ms;
};

/* FRAME must be valid (see decode). */
void pcmig_tunnel_frame_encode(const struct pcmig_tunnel_frame *frame, uint8_t out[PCMIG_TUNNEL_FRAME_HEADER_BYTES]);

/* Returns false when IN is no header of a frame: unknown type, length or code out of bounds, reserved bytes not zero.
 */
bool pcmig_tunnel_frame_decode(const uint8_t in[PCMIG_TUNNEL_FRAME_HEADER_BYTES], struct pcmig_tunnel_frame *out);

void pcmig_tunnel_frame_encode_hello(const struct pcmig_tunnel_hello *hello,
                                     uint8_t out[PCMIG_TUNNEL_FRAME_HELLO_BYTES]);

/* PCMIG_TUNNEL_ACCEPTED when IN is a hello that can be served, REFUSED_VERSION or REFUSED_HELLO otherwise; *OUT is
 * complete only when accepted. */
enum pcmig_tunnel_verdict pcmig_tunnel_frame_decode_hello(const uint8_t in[PCMIG_TUNNEL_FRAME_HELLO_BYTES],
                                                          struct pcmig_tunnel_hello *out);

/* Whether IN may be the beginning of a hello, of which LEN bytes (any number) are there: so that other protocols are
 * told apart without waiting for more. */
bool pcmig_tunnel_frame_maybe_hello(const uint8_t *in, uint32_t len);

void pcmig_tunnel_frame_encode_answer(const struct pcmig_tunnel_answer *answer,
                                      uint8_t out[PCMIG_TUNNEL_FRAME_ANSWER_BYTES]);

/* Returns false when IN is no answer. */
bool pcmig_tunnel_frame_decode_answer(const uint8_t in[PCMIG_TUNNEL_FRAME_ANSWER_BYTES],
                                      struct pcmig_tunnel_answer *out);

/* A sentence for people, without a capital and full stop; never NULL. */
const char *pcmig_tunnel_frame_verdict_text(enum pcmig_tunnel_verdict verdict);
const char *pcmig_tunnel_frame_reset_text(unsigned code);

/* Whether NAME of LEN characters is a stream's name: PCMIG_TUNNEL_NAME_LEN lower-case hex digits. */
bool pcmig_tunnel_frame_is_name(const char *name, uint32_t len);

#endif
