/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes over one TCP connection, encrypted or (for measurements, and where an operator insists) plain, the same to the
 * caller. TLS is OpenSSL's, records included: batches leave with one system call, and are read ahead.
 *
 * Sending:    reserve -> write plaintext there -> commit (encrypts) -> flush (to the kernel), flush again when the
 * socket has room. Receiving:  fill (from the kernel, decrypts) -> peek -> consume.
 *
 * Not for several threads at once. No call blocks. */
#ifndef PCMIG_TUNNEL_TLS_CHANNEL_H
#define PCMIG_TUNNEL_TLS_CHANNEL_H

#include "tunnel/tls/tls.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pcmig_channel;

enum pcmig_channel_result {
    PCMIG_CHANNEL_OK,
    PCMIG_CHANNEL_AGAIN,  /* the socket has to become readable or writable first */
    PCMIG_CHANNEL_EOF,    /* the peer has ended its direction */
    PCMIG_CHANNEL_FAILED, /* see pcmig_channel_error */
};

/* Eight full TLS records: what one system call moves. More costs latency and cache, less costs system calls. */
#define PCMIG_CHANNEL_BATCH_BYTES (8 * 16384)

struct pcmig_channel_stats {
    uint64_t records_out, records_in;     /* of TLS; 0 when plain */
    uint64_t crypto_out_us, crypto_in_us; /* in OpenSSL, without system calls */
    uint64_t calls_out, calls_in;         /* system calls that moved something */
};

/* FD: a connected socket that does not block; it stays the caller's. TLS: NULL for plain bytes. PEER: see
 * pcmig_tls_session. SCRATCH: PCMIG_CHANNEL_BATCH_BYTES that the calling thread uses between reserve and commit, and
 * which it may share among its channels. NULL with a sentence in ERROR. */
struct pcmig_channel *pcmig_channel_new(int fd, struct pcmig_tls *tls, const char *peer, uint8_t *scratch,
                                        char error[PCMIG_TLS_ERROR_BYTES]);
void pcmig_channel_free(struct pcmig_channel *channel); /* NULL is fine */

/* OK when done (at once when plain), AGAIN when it has to wait for the socket, EOF when the connection broke (its error
 * says how), FAILED when one side refuses the other. */
enum pcmig_channel_result pcmig_channel_handshake(struct pcmig_channel *channel);

/* After a handshake that FAILED: whether it was for the peer's certificate, or because it showed none. */
bool pcmig_channel_refused_certificate(const struct pcmig_channel *channel);

/* Where to write plaintext; *ROOM bytes, 0 while something committed is not flushed yet. */
uint8_t *pcmig_channel_reserve(struct pcmig_channel *channel, size_t *room);

/* The first LEN bytes of what was reserved are to be sent. False when TLS failed. */
bool pcmig_channel_commit(struct pcmig_channel *channel, size_t len);

/* What is committed after this goes out under a new key, as commit does by itself before a key is worn out. */
void pcmig_channel_renew_key(struct pcmig_channel *channel);

/* OK when all that was committed is with the kernel. */
enum pcmig_channel_result pcmig_channel_flush(struct pcmig_channel *channel);

/* Bytes committed and not yet with the kernel. */
size_t pcmig_channel_unsent(const struct pcmig_channel *channel);

/* Reads up to a batch from the socket, if *READABLE says that there may be something; clears it when the socket has run
 * dry. CLOSED: the peer is known to have closed, so behind the last bytes there is an end to read. OK when there is
 * more to peek at than before, full buffers included: consume first. */
enum pcmig_channel_result pcmig_channel_fill(struct pcmig_channel *channel, bool *readable, bool closed);

/* Received plaintext in one piece. What is left of it after consume is moved together when more is filled in. */
const uint8_t *pcmig_channel_peek(const struct pcmig_channel *channel, size_t *len);
void pcmig_channel_consume(struct pcmig_channel *channel, size_t len);

/* Whether fill has something to decrypt, or to say, without reading from the socket. */
bool pcmig_channel_holds(const struct pcmig_channel *channel);

/* All was flushed: tells the peer that nothing more comes (close_notify), and ends this direction of the socket. May be
 * called again. */
void pcmig_channel_end(struct pcmig_channel *channel);

/* Why an operation has failed. */
const char *pcmig_channel_error(const struct pcmig_channel *channel);

/* OpenSSL's SSL; NULL when plain. */
struct ssl_st *pcmig_channel_tls(const struct pcmig_channel *channel);

/* "TLS_AES_128_GCM_SHA256", "none". */
const char *pcmig_channel_cipher(const struct pcmig_channel *channel);
const struct pcmig_channel_stats *pcmig_channel_stats(const struct pcmig_channel *channel);

#endif
