/* SPDX-License-Identifier: Apache-2.0 */
/* One connection of a QEMU to its local socket, and the one or several TCP connections (carriers, carrier.h) that carry
 * it.
 *
 * Here is what has to be the same for all of them: the order of frames, and whether the stream goes on. Carriers live
 * on different threads; a carrier asks, and is woken when the answer changes. All functions are for any thread. */
#ifndef PCMIG_TUNNEL_STREAM_STREAM_H
#define PCMIG_TUNNEL_STREAM_STREAM_H

#include "core/tunnel_frame.h"
#include "tunnel/stream/account.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pcmig_carrier;
struct pcmig_stream;

#define PCMIG_STREAM_REASON_BYTES 256

/* LOCAL: the connected local socket, which becomes the stream's, or -1: see pcmig_stream_set_local. COUNT: of carriers.
 * Takes a reference of ACCOUNT. NULL when memory is short (LOCAL stays the caller's). One reference is the caller's. */
struct pcmig_stream *pcmig_stream_new(const char *name, const uint8_t id[PCMIG_TUNNEL_FRAME_STREAM_BYTES],
                                      struct pcmig_account *account, unsigned count, int local);
struct pcmig_stream *pcmig_stream_ref(struct pcmig_stream *stream);
void pcmig_stream_unref(struct pcmig_stream *stream); /* NULL is fine; the last one closes the local socket */

const char *pcmig_stream_name(const struct pcmig_stream *stream);
const uint8_t *pcmig_stream_id(const struct pcmig_stream *stream);
unsigned pcmig_stream_count(const struct pcmig_stream *stream);
struct pcmig_account *pcmig_stream_account(const struct pcmig_stream *stream);

/* QEMU tells its connections to one name apart by the order in which they reach the other QEMU. So a stream begins when
 * the one before it has arrived there, or has ended: its order is what the next one follows. pcmig_stream_order returns
 * a reference. */
struct pcmig_stream_order;

struct pcmig_stream_order *pcmig_stream_order(struct pcmig_stream *stream);
void pcmig_stream_order_unref(struct pcmig_stream_order *order); /* NULL is fine */

/* Takes the reference. To be called before the first carrier, if at all. */
void pcmig_stream_follow(struct pcmig_stream *stream, struct pcmig_stream_order *before);
bool pcmig_stream_may_begin(const struct pcmig_stream *stream);

/* The peer has connected STREAM to its QEMU. */
void pcmig_stream_arrived(struct pcmig_stream *stream);

/* Whether the local socket was closed with nothing left to read in it. The other QEMU must not see such a connection:
 * one that ends before it has said anything makes a QEMU that waits to be resumed give up for good ("Failed to peek at
 * channel"). */
bool pcmig_stream_left(struct pcmig_stream *stream);

/* How many bytes wait in the local socket. */
size_t pcmig_stream_waiting_bytes(struct pcmig_stream *stream);

/* CARRIER is the connection INDEX from now on; it must detach before it is freed. False when there is one already, or
 * the stream is over. */
bool pcmig_stream_attach(struct pcmig_stream *stream, unsigned index, struct pcmig_carrier *carrier);

/* Returns how many carriers are left. */
unsigned pcmig_stream_detach(struct pcmig_stream *stream, unsigned index);

/* Gives the stream its local socket and wakes its carriers. */
void pcmig_stream_set_local(struct pcmig_stream *stream, int local);

/* A duplicate of the local socket, for a carrier to watch; -1 when there is none yet or no descriptor is left (errno is
 * 0 or that). */
int pcmig_stream_local(struct pcmig_stream *stream);

/* What of this direction is between the local socket's other end and the peer's kernel: bytes in the local socket, held
 * by carriers, and in TCP, unacknowledged ones included. Asks the kernel. */
size_t pcmig_stream_queue_bytes(struct pcmig_stream *stream);

/* For that: the TCP socket of the connection INDEX (-1: no longer), and how much of what was taken waits in front of
 * it. */
void pcmig_stream_note_wire(struct pcmig_stream *stream, unsigned index, int wire);
void pcmig_stream_note_held(struct pcmig_stream *stream, unsigned index, size_t bytes);

/* --- sending --- */

enum pcmig_stream_take {
    PCMIG_STREAM_FRAME, /* *FRAME is to be sent, with frame->length bytes that are in BUFFER */
    PCMIG_STREAM_EMPTY, /* nothing to read now */
    PCMIG_STREAM_DONE,  /* there will be nothing more */
};

/* The next frame of this direction: what is there to read (DATA, at most SIZE bytes), FIN behind the last of it, RESET
 * when what comes from the peer has no taker. */
enum pcmig_stream_take pcmig_stream_take(struct pcmig_stream *stream, uint8_t *buffer, size_t size,
                                         struct pcmig_tunnel_frame *frame);

/* --- receiving --- */

/* Whether the frame SEQ, which has come on the connection INDEX, is the next in order. If not, the carrier is woken
 * when it is. */
bool pcmig_stream_turn(struct pcmig_stream *stream, unsigned index, uint64_t seq);

/* That frame was dealt with. */
void pcmig_stream_next(struct pcmig_stream *stream);

/* Of the frame whose turn it is: up to LEN bytes of payload to the local socket. Returns how many were taken, 0 when it
 * is full. Bytes that nobody can read any more are taken too, and thrown away. */
size_t pcmig_stream_give(struct pcmig_stream *stream, const uint8_t *bytes, size_t len);

/* FIN: the local socket's reader sees the end. */
void pcmig_stream_finish(struct pcmig_stream *stream);

/* --- end --- */

/* Both directions have ended in order. */
bool pcmig_stream_finished(struct pcmig_stream *stream);

/* Ends the stream at once: whoever uses the local socket sees it closed, all carriers are woken. REASON: for people;
 * NULL when all is well. LOST: the peer was lost, so the next stream of this name is a reconnect. Only the first call
 * counts; returns whether this was it. */
bool pcmig_stream_end(struct pcmig_stream *stream, const char *reason, bool lost);

/* Whether it was ended, or has finished; the reason into REASON ("" when all is well). */
bool pcmig_stream_over(struct pcmig_stream *stream, char reason[PCMIG_STREAM_REASON_BYTES]);

#endif
