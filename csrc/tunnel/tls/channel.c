/* SPDX-License-Identifier: Apache-2.0 */
/* See channel.h. */
#include "tunnel/tls/channel.h"

#include "edge/clock.h"
#include "tunnel/tls/wire.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <openssl/err.h>
#include <openssl/ssl.h>

enum {
    RECORD_BYTES = 16384,       /* of plaintext, at most (RFC 8446, 5.1) */
    RECORD_OVERHEAD_BYTES = 22, /* header 5, type 1, tag 16 */
    BATCH_RECORDS = PCMIG_CHANNEL_BATCH_BYTES / RECORD_BYTES,
    SPARE_BYTES = 4096, /* for what TLS says by itself: new keys, alerts */
    OUT_BYTES = PCMIG_CHANNEL_BATCH_BYTES + BATCH_RECORDS * RECORD_OVERHEAD_BYTES + SPARE_BYTES,
    /* What OpenSSL reads ahead. OpenSSL 3.0 moves all that is left of it together for each record, so twice as much
     * costs more than the system calls that it saves. */
    READ_AHEAD_BYTES = 4 * (RECORD_BYTES + RECORD_OVERHEAD_BYTES) + SPARE_BYTES,
    READS = 2, /* of it in one fill: a batch */
    /* RFC 8446, 5.5: keys of AES-GCM are good for 2^24.5 full records. */
    RECORDS_PER_KEY = 1 << 22,
    DRAIN_READS = 4, /* more than any handshake; not for ever */
    /* From the peer with no data in them: no record is as long. They cost the peer less than us. */
    BARREN_BYTES = 4 * RECORD_BYTES,
};

struct pcmig_channel {
    int fd;
    SSL *ssl;
    uint8_t *scratch;
    struct pcmig_wire wire;         /* `out`: plaintext where nothing is encrypted */
    struct pcmig_wire_buffer plain; /* received */
    bool open;                      /* the handshake is done */
    bool holds;                     /* OpenSSL may have something without another read */
    bool refused_certificate;       /* in the handshake */
    bool renewal_due;               /* a new key before anything more is sent */
    bool said_all;                  /* and the peer was told so */
    uint64_t key_records;           /* since the last new key */
    size_t barren_bytes;            /* received since the last data */
    enum pcmig_channel_result end;  /* EOF or FAILED came behind data that was still good */
    struct pcmig_channel_stats stats;
    char error[PCMIG_TLS_ERROR_BYTES];
};

static enum pcmig_channel_result fail(struct pcmig_channel *c, const char *why)
{
    snprintf(c->error, sizeof(c->error), "%s", why);
    return PCMIG_CHANNEL_FAILED;
}

static enum pcmig_channel_result fail_errno(struct pcmig_channel *c, const char *what)
{
    snprintf(c->error, sizeof(c->error), "%s: %s", what, strerror(errno));
    return PCMIG_CHANNEL_FAILED;
}

struct pcmig_channel *pcmig_channel_new(int fd, struct pcmig_tls *tls, const char *peer, uint8_t *scratch,
                                        char error[PCMIG_TLS_ERROR_BYTES])
{
    struct pcmig_channel *c = calloc(1, sizeof(*c));
    BIO *bio;

    if (c == NULL)
        goto err0;
    c->fd = c->wire.fd = fd;
    c->scratch = scratch;
    /* Pages that are never touched cost nothing, so idle streams stay small. */
    c->wire.out.size = OUT_BYTES;
    c->wire.out.bytes = malloc(c->wire.out.size);
    c->plain.size = PCMIG_CHANNEL_BATCH_BYTES + RECORD_BYTES;
    c->plain.bytes = malloc(c->plain.size);
    if (c->wire.out.bytes == NULL || c->plain.bytes == NULL)
        goto err1;
    if (tls == NULL)
        return c;
    c->ssl = pcmig_tls_session(tls, peer, error);
    if (c->ssl == NULL)
        goto err2;
    SSL_set_read_ahead(c->ssl, 1);
    SSL_set_default_read_buffer_len(c->ssl, READ_AHEAD_BYTES);
    bio = pcmig_wire_bio(&c->wire);
    if (bio == NULL)
        goto err1;
    SSL_set_bio(c->ssl, bio, bio);
    return c;

err1:
    snprintf(error, PCMIG_TLS_ERROR_BYTES, "memory is short");
err2:
    pcmig_channel_free(c);
    return NULL;
err0:
    snprintf(error, PCMIG_TLS_ERROR_BYTES, "memory is short");
    return NULL;
}

void pcmig_channel_free(struct pcmig_channel *c)
{
    if (c == NULL)
        return;
    SSL_free(c->ssl);
    free(c->wire.out.bytes);
    free(c->plain.bytes);
    free(c);
}

/* What is in `out` to the kernel. FAILED: with errno. */
static enum pcmig_channel_result send_out(struct pcmig_channel *c)
{
    struct pcmig_wire_buffer *out = &c->wire.out;

    while (out->start < out->end) {
        const ssize_t n = send(c->fd, out->bytes + out->start, out->end - out->start, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN || errno == EWOULDBLOCK ? PCMIG_CHANNEL_AGAIN : PCMIG_CHANNEL_FAILED;
        c->stats.calls_out++;
        out->start += (size_t)n;
    }
    out->start = out->end = 0;
    return PCMIG_CHANNEL_OK;
}

/* --- handshake ---------------------------------------------------------------------------------------------------- */

static enum pcmig_channel_result end_handshake(struct pcmig_channel *c)
{
    if (!pcmig_tls_is_tunnel(c->ssl)) {
        (void)SSL_shutdown(c->ssl);
        (void)send_out(c);
        return fail(c, "the peer speaks TLS, but not " PCMIG_TLS_PROTOCOL " in it (ALPN): no tunnel of pcmig's");
    }
    c->open = c->holds = true;
    return PCMIG_CHANNEL_OK;
}

/* OpenSSL has failed. EOF: because of the connection. */
static enum pcmig_channel_result fail_handshake(struct pcmig_channel *c)
{
    uint8_t rest[512];

    if (c->wire.error != 0 || c->wire.ended) {
        errno = c->wire.error;
        if (c->wire.error != 0)
            fail_errno(c, "in the handshake");
        else
            fail(c, "the peer closed the connection in the handshake");
        ERR_clear_error();
        return PCMIG_CHANNEL_EOF;
    }
    c->refused_certificate = pcmig_tls_is_about_certificate();
    pcmig_tls_explain(c->ssl, c->error);
    /* The alert. Closing a socket that nobody has read to its end resets the connection, and the peer may lose it. */
    (void)send_out(c);
    for (int i = 0; i < DRAIN_READS && recv(c->fd, rest, sizeof(rest), MSG_DONTWAIT) > 0; i++)
        continue;
    return PCMIG_CHANNEL_FAILED;
}

enum pcmig_channel_result pcmig_channel_handshake(struct pcmig_channel *c)
{
    enum pcmig_channel_result sent;
    int done, why;

    if (c->ssl == NULL)
        return PCMIG_CHANNEL_OK;
    for (;;) {
        c->wire.reads_left = 1;
        c->wire.dry = c->wire.empty = false;
        ERR_clear_error();
        done = SSL_do_handshake(c->ssl);
        why = SSL_get_error(c->ssl, done);
        if (done != 1 && why != SSL_ERROR_WANT_READ && why != SSL_ERROR_WANT_WRITE)
            return fail_handshake(c);
        sent = send_out(c);
        if (sent == PCMIG_CHANNEL_FAILED) {
            fail_errno(c, "in the handshake");
            return PCMIG_CHANNEL_EOF;
        }
        if (sent == PCMIG_CHANNEL_AGAIN || (why == SSL_ERROR_WANT_READ && c->wire.empty))
            return PCMIG_CHANNEL_AGAIN;
        if (done == 1)
            return end_handshake(c);
    }
}

bool pcmig_channel_refused_certificate(const struct pcmig_channel *c)
{
    return c->refused_certificate;
}

/* --- sending ------------------------------------------------------------------------------------------------------ */

uint8_t *pcmig_channel_reserve(struct pcmig_channel *c, size_t *room)
{
    *room = c->wire.out.end == 0 ? PCMIG_CHANNEL_BATCH_BYTES : 0;
    return c->ssl == NULL ? c->wire.out.bytes : c->scratch;
}

void pcmig_channel_renew_key(struct pcmig_channel *c)
{
    c->renewal_due = c->ssl != NULL;
}

bool pcmig_channel_commit(struct pcmig_channel *c, size_t len)
{
    const int64_t begin_us = pcmig_clock_us();
    const uint64_t records = (len + RECORD_BYTES - 1) / RECORD_BYTES;
    size_t put;

    if (c->ssl == NULL) {
        c->wire.out.end = len;
        return true;
    }
    ERR_clear_error();
    /* The other direction goes on with its key. */
    if ((c->renewal_due && SSL_key_update(c->ssl, SSL_KEY_UPDATE_NOT_REQUESTED) != 1) ||
        SSL_write_ex(c->ssl, c->scratch, len, &put) != 1 || put != len) {
        pcmig_tls_explain(c->ssl, c->error);
        return false;
    }
    if (c->renewal_due)
        c->key_records = 0;
    c->key_records += records;
    c->renewal_due = c->key_records >= RECORDS_PER_KEY;
    c->stats.records_out += records;
    c->stats.crypto_out_us += (uint64_t)(pcmig_clock_us() - begin_us);
    return true;
}

size_t pcmig_channel_unsent(const struct pcmig_channel *c)
{
    return c->wire.out.end - c->wire.out.start;
}

/* The peer is gone. An alert that it sent before says why. */
static enum pcmig_channel_result fail_sending(struct pcmig_channel *c)
{
    const int error = errno;
    bool readable = true;

    for (int i = 0; i < DRAIN_READS && c->open && readable && c->end == PCMIG_CHANNEL_OK; i++)
        (void)pcmig_channel_fill(c, &readable, true);
    errno = error;
    return c->end == PCMIG_CHANNEL_FAILED ? c->end : fail_errno(c, "sending");
}

enum pcmig_channel_result pcmig_channel_flush(struct pcmig_channel *c)
{
    const enum pcmig_channel_result result = send_out(c);

    return result == PCMIG_CHANNEL_FAILED ? fail_sending(c) : result;
}

void pcmig_channel_end(struct pcmig_channel *c)
{
    /* Once: each shutdown(2) has epoll tell of the socket again, and a peer that just stays would keep a worker busy.
     */
    if (c->said_all)
        return;
    c->said_all = true;
    if (c->open && c->end != PCMIG_CHANNEL_FAILED && (SSL_get_shutdown(c->ssl) & SSL_SENT_SHUTDOWN) == 0) {
        (void)SSL_shutdown(c->ssl);
        (void)send_out(c);
        ERR_clear_error();
    }
    shutdown(c->fd, SHUT_WR);
}

/* --- receiving ---------------------------------------------------------------------------------------------------- */

/* One read from the socket, which is not encrypted. `plain` is not full. */
static enum pcmig_channel_result receive(struct pcmig_channel *c, bool *readable, bool closed)
{
    const size_t room = c->plain.size - c->plain.end;
    ssize_t n;

    do
        n = recv(c->fd, c->plain.bytes + c->plain.end, room, MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n == 0)
        return PCMIG_CHANNEL_EOF;
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
        *readable = false;
        return PCMIG_CHANNEL_AGAIN;
    }
    if (n < 0)
        return fail_errno(c, "receiving");
    c->stats.calls_in++;
    c->plain.end += (size_t)n;
    /* Less than there was room for: it has run dry, and epoll tells what comes later (epoll(7), edge-triggered). */
    if ((size_t)n < room && !closed)
        *readable = false;
    return PCMIG_CHANNEL_OK;
}

/* SSL_read_ex has brought nothing. OK: that is for now. */
static enum pcmig_channel_result why_nothing(struct pcmig_channel *c)
{
    const int why = SSL_get_error(c->ssl, 0);

    if (why == SSL_ERROR_WANT_READ)
        return PCMIG_CHANNEL_OK;
    /* OpenSSL answers requests for a new key by itself, behind what is not sent yet. */
    if (why == SSL_ERROR_WANT_WRITE)
        return fail(c, "the peer asks for more new keys than it takes");
    if (why == SSL_ERROR_ZERO_RETURN || c->wire.ended) {
        ERR_clear_error();
        return PCMIG_CHANNEL_EOF;
    }
    if (c->wire.error != 0) {
        errno = c->wire.error;
        ERR_clear_error();
        return fail_errno(c, "receiving");
    }
    pcmig_tls_explain(c->ssl, c->error);
    (void)send_out(c); /* the alert, if there is room for it */
    return PCMIG_CHANNEL_FAILED;
}

/* Decrypts what OpenSSL has read, and reads, as far as `plain` has room. OK when that brought anything. */
static enum pcmig_channel_result decrypt(struct pcmig_channel *c)
{
    struct pcmig_wire_buffer *plain = &c->plain;
    const size_t before = plain->end;
    size_t n;

    ERR_clear_error();
    c->holds = true;
    while (plain->size - plain->end >= RECORD_BYTES) {
        if (SSL_read_ex(c->ssl, plain->bytes + plain->end, RECORD_BYTES, &n) != 1) {
            c->holds = false;
            c->end = why_nothing(c);
            break;
        }
        plain->end += n;
        c->stats.records_in++;
    }
    if (plain->end > before)
        return PCMIG_CHANNEL_OK;
    return c->end == PCMIG_CHANNEL_OK ? PCMIG_CHANNEL_AGAIN : c->end;
}

/* To the front. */
static void move_together(struct pcmig_wire_buffer *b)
{
    if (b->start == 0)
        return;
    memmove(b->bytes, b->bytes + b->start, b->end - b->start);
    b->end -= b->start;
    b->start = 0;
}

enum pcmig_channel_result pcmig_channel_fill(struct pcmig_channel *c, bool *readable, bool closed)
{
    enum pcmig_channel_result result;
    int64_t begin_us;

    move_together(&c->plain);
    if (c->plain.size - c->plain.end < RECORD_BYTES)
        return PCMIG_CHANNEL_OK;
    if (c->end != PCMIG_CHANNEL_OK)
        return c->end;
    if (c->ssl == NULL)
        return *readable ? receive(c, readable, closed) : PCMIG_CHANNEL_AGAIN;
    if (!c->holds && !*readable)
        return PCMIG_CHANNEL_AGAIN;
    c->wire.reads_left = *readable ? READS : 0;
    c->wire.dry = false;
    c->wire.reads = 0;
    c->wire.read_bytes = 0;
    c->wire.read_us = 0;
    begin_us = pcmig_clock_us();
    result = decrypt(c);
    c->barren_bytes = result == PCMIG_CHANNEL_OK ? 0 : c->barren_bytes + c->wire.read_bytes;
    if (result == PCMIG_CHANNEL_AGAIN && c->barren_bytes > BARREN_BYTES)
        result = c->end = fail(c, "the peer sends records with nothing in them");
    c->stats.crypto_in_us += (uint64_t)(pcmig_clock_us() - begin_us - c->wire.read_us);
    c->stats.calls_in += c->wire.reads;
    /* It has run dry, and epoll tells what comes later (epoll(7), edge-triggered). An end that is known to be there is
     * read when the last bytes before it have been. */
    if (c->wire.dry && !closed)
        *readable = false;
    return result;
}

const uint8_t *pcmig_channel_peek(const struct pcmig_channel *c, size_t *len)
{
    *len = c->plain.end - c->plain.start;
    return c->plain.bytes + c->plain.start;
}

void pcmig_channel_consume(struct pcmig_channel *c, size_t len)
{
    c->plain.start += len;
    if (c->plain.start == c->plain.end)
        c->plain.start = c->plain.end = 0;
}

bool pcmig_channel_holds(const struct pcmig_channel *c)
{
    return c->end != PCMIG_CHANNEL_OK || c->holds;
}

const char *pcmig_channel_error(const struct pcmig_channel *c)
{
    return c->error;
}

SSL *pcmig_channel_tls(const struct pcmig_channel *c)
{
    return c->ssl;
}

const char *pcmig_channel_cipher(const struct pcmig_channel *c)
{
    return c->ssl != NULL ? SSL_get_cipher_name(c->ssl) : "none";
}

const struct pcmig_channel_stats *pcmig_channel_stats(const struct pcmig_channel *c)
{
    return &c->stats;
}
