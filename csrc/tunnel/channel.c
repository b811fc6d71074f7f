/* See channel.h. */
#include "tunnel/channel.h"

#include "edge/clock.h"
#include "tunnel/bio.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <openssl/err.h>
#include <openssl/ssl.h>

enum {
    RECORD_OVERHEAD_BYTES = 32, /* header, type and tag of a TLS 1.3 record are 22 */
    SPARE_BYTES = 4096,         /* for what TLS says by itself: new keys, alerts */
    BATCH_RECORDS = PCMIG_CHANNEL_BATCH_BYTES / PCMIG_CHANNEL_RECORD_BYTES,
    CIPHER_BYTES = PCMIG_CHANNEL_BATCH_BYTES + BATCH_RECORDS * RECORD_OVERHEAD_BYTES + SPARE_BYTES,
    /* RFC 8446, 5.5: keys of AES-GCM are good for 2^24.5 full records. */
    RECORDS_PER_KEY = 1 << 22,
};

struct pcmig_channel {
    int fd;
    SSL *ssl;
    uint8_t *scratch;
    bool kernel_sends;             /* the kernel makes the records that are sent (kTLS) */
    struct pcmig_bio wire;         /* records; plaintext to send when there is no TLS */
    struct pcmig_bio_buffer plain; /* received */
    uint64_t key_records;          /* since the last new key */
    enum pcmig_channel_result end; /* EOF or FAILED came behind data that was still good */
    struct pcmig_channel_stats stats;
    char error[PCMIG_TLS_ERROR_BYTES];
};

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
    c->fd = fd;
    c->scratch = scratch;
    /* Pages that are never touched cost nothing, so idle streams stay small. */
    c->wire.out.size = CIPHER_BYTES;
    c->wire.out.bytes = malloc(c->wire.out.size);
    c->plain.size = PCMIG_CHANNEL_BATCH_BYTES + PCMIG_CHANNEL_RECORD_BYTES;
    c->plain.bytes = malloc(c->plain.size);
    if (c->wire.out.bytes == NULL || c->plain.bytes == NULL)
        goto err1;
    if (tls == NULL)
        return c;
    c->wire.in.size = CIPHER_BYTES;
    c->wire.in.bytes = malloc(c->wire.in.size);
    if (c->wire.in.bytes == NULL)
        goto err1;
    c->ssl = pcmig_tls_session(tls, peer, error);
    if (c->ssl == NULL)
        goto err2;
    bio = pcmig_bio_new(&c->wire);
    if (bio == NULL)
        goto err1;
    SSL_set0_rbio(c->ssl, bio);
    /* OpenSSL gives the keys to the kernel only when it writes to a socket itself; see end_handshake. */
    bio = BIO_new_socket(fd, BIO_NOCLOSE);
    if (bio == NULL)
        goto err1;
    SSL_set0_wbio(c->ssl, bio);
    return c;

err2:
    pcmig_channel_free(c);
    return NULL;
err1:
    pcmig_channel_free(c);
err0:
    snprintf(error, PCMIG_TLS_ERROR_BYTES, "memory is short");
    return NULL;
}

void pcmig_channel_free(struct pcmig_channel *c)
{
    if (c == NULL)
        return;
    SSL_free(c->ssl);
    free(c->wire.in.bytes);
    free(c->wire.out.bytes);
    free(c->plain.bytes);
    free(c);
}

enum pcmig_channel_result pcmig_channel_flush(struct pcmig_channel *c)
{
    struct pcmig_bio_buffer *out = &c->wire.out;

    while (out->start < out->end) {
        const ssize_t n = send(c->fd, out->bytes + out->start, out->end - out->start, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return PCMIG_CHANNEL_AGAIN;
        if (n < 0)
            return fail_errno(c, "sending");
        c->stats.calls_out++;
        out->start += (size_t)n;
    }
    out->start = out->end = 0;
    return PCMIG_CHANNEL_OK;
}

/* One read from the socket to the end of BUFFER, which is not full. */
static enum pcmig_channel_result receive(struct pcmig_channel *c, struct pcmig_bio_buffer *buffer, bool *readable,
                                         bool closed)
{
    const size_t room = buffer->size - buffer->end;
    ssize_t n;

    do
        n = recv(c->fd, buffer->bytes + buffer->end, room, MSG_DONTWAIT);
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
    buffer->end += (size_t)n;
    /* Less than there was room for: it has run dry, and epoll tells what comes later (epoll(7), edge-triggered). */
    if ((size_t)n < room && !closed)
        *readable = false;
    return PCMIG_CHANNEL_OK;
}

/* The keys are known. If the kernel has not taken those for sending, records are gathered from now on. */
static enum pcmig_channel_result end_handshake(struct pcmig_channel *c)
{
    BIO *bio;

    c->kernel_sends = BIO_get_ktls_send(SSL_get_wbio(c->ssl)) == 1;
    if (c->kernel_sends)
        return PCMIG_CHANNEL_OK;
    bio = SSL_get_rbio(c->ssl);
    if (BIO_up_ref(bio) != 1) {
        pcmig_tls_explain(c->ssl, c->error);
        return PCMIG_CHANNEL_FAILED;
    }
    SSL_set0_wbio(c->ssl, bio);
    return PCMIG_CHANNEL_OK;
}

enum pcmig_channel_result pcmig_channel_handshake(struct pcmig_channel *c)
{
    enum pcmig_channel_result result;
    bool readable;
    int done, why;

    if (c->ssl == NULL)
        return PCMIG_CHANNEL_OK;
    for (;;) {
        ERR_clear_error();
        errno = 0;
        done = SSL_do_handshake(c->ssl);
        if (done == 1)
            return end_handshake(c);
        why = SSL_get_error(c->ssl, done);
        if (why == SSL_ERROR_WANT_WRITE)
            return PCMIG_CHANNEL_AGAIN;
        if (why == SSL_ERROR_SYSCALL && errno != 0) {
            fail_errno(c, "sending");
            return PCMIG_CHANNEL_EOF;
        }
        if (why != SSL_ERROR_WANT_READ) {
            pcmig_tls_explain(c->ssl, c->error);
            return PCMIG_CHANNEL_FAILED;
        }
        c->wire.in.start = c->wire.in.end = 0;
        readable = true;
        result = receive(c, &c->wire.in, &readable, false);
        if (result == PCMIG_CHANNEL_EOF)
            snprintf(c->error, sizeof(c->error), "the peer closed the connection in the handshake");
        if (result == PCMIG_CHANNEL_FAILED)
            return PCMIG_CHANNEL_EOF;
        if (result != PCMIG_CHANNEL_OK)
            return result;
    }
}

/* Whether what is sent goes to the kernel as it is. */
static bool sends_plain(const struct pcmig_channel *c)
{
    return c->ssl == NULL || c->kernel_sends;
}

uint8_t *pcmig_channel_reserve(struct pcmig_channel *c, size_t *room)
{
    *room = c->wire.out.end == 0 ? PCMIG_CHANNEL_BATCH_BYTES : 0;
    return sends_plain(c) ? c->wire.out.bytes : c->scratch;
}

bool pcmig_channel_renew_key(struct pcmig_channel *c)
{
    c->key_records = 0;
    if (c->ssl == NULL || c->kernel_sends || SSL_key_update(c->ssl, SSL_KEY_UPDATE_NOT_REQUESTED) == 1)
        return true;
    pcmig_tls_explain(c->ssl, c->error);
    return false;
}

bool pcmig_channel_commit(struct pcmig_channel *c, size_t len)
{
    uint64_t records = 0;
    int64_t begin_us;

    if (sends_plain(c)) {
        c->wire.out.end = len;
        return true;
    }
    begin_us = pcmig_clock_us();
    ERR_clear_error();
    for (size_t at = 0, put; at < len; at += put, records++) {
        const size_t left = len - at;

        if (SSL_write_ex(c->ssl, c->scratch + at, left < PCMIG_CHANNEL_RECORD_BYTES ? left : PCMIG_CHANNEL_RECORD_BYTES,
                         &put) != 1) {
            pcmig_tls_explain(c->ssl, c->error);
            return false;
        }
    }
    c->stats.records_out += records;
    c->stats.crypto_out_us += (uint64_t)(pcmig_clock_us() - begin_us);
    c->key_records += records;
    return c->key_records < RECORDS_PER_KEY || pcmig_channel_renew_key(c);
}

size_t pcmig_channel_unsent(const struct pcmig_channel *c)
{
    return c->wire.out.end - c->wire.out.start;
}

/* Decrypts what is in `in` as far as `plain` has room. */
static enum pcmig_channel_result decrypt(struct pcmig_channel *c)
{
    enum pcmig_channel_result result = PCMIG_CHANNEL_AGAIN;
    struct pcmig_bio_buffer *plain = &c->plain;
    const int64_t begin_us = pcmig_clock_us();

    ERR_clear_error();
    while (plain->end < plain->size) {
        size_t n = 0;
        int why;

        if (SSL_read_ex(c->ssl, plain->bytes + plain->end, plain->size - plain->end, &n) == 1) {
            plain->end += n;
            c->stats.records_in++;
            result = PCMIG_CHANNEL_OK;
            continue;
        }
        why = SSL_get_error(c->ssl, 0);
        if (why == SSL_ERROR_WANT_READ)
            break;
        c->end = why == SSL_ERROR_ZERO_RETURN ? PCMIG_CHANNEL_EOF : PCMIG_CHANNEL_FAILED;
        if (c->end == PCMIG_CHANNEL_FAILED)
            pcmig_tls_explain(c->ssl, c->error);
        if (result != PCMIG_CHANNEL_OK)
            result = c->end;
        break;
    }
    c->stats.crypto_in_us += (uint64_t)(pcmig_clock_us() - begin_us);
    return result;
}

enum pcmig_channel_result pcmig_channel_fill(struct pcmig_channel *c, bool *readable, bool closed)
{
    struct pcmig_bio_buffer *in = &c->wire.in, *plain = &c->plain;
    enum pcmig_channel_result result = PCMIG_CHANNEL_AGAIN;

    if (plain->start > 0) {
        memmove(plain->bytes, plain->bytes + plain->start, plain->end - plain->start);
        plain->end -= plain->start;
        plain->start = 0;
    }
    if (plain->size - plain->end < PCMIG_CHANNEL_RECORD_BYTES)
        return PCMIG_CHANNEL_OK;
    if (c->end != PCMIG_CHANNEL_OK)
        return c->end;
    if (c->ssl == NULL)
        return *readable ? receive(c, plain, readable, closed) : PCMIG_CHANNEL_AGAIN;
    if (pcmig_channel_holds(c))
        result = decrypt(c);
    if (result == PCMIG_CHANNEL_AGAIN && *readable) {
        in->start = in->end = 0; /* OpenSSL has taken all, half a record included */
        result = receive(c, in, readable, closed);
        if (result == PCMIG_CHANNEL_OK)
            result = decrypt(c);
    }
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
    return c->ssl != NULL && (c->wire.in.start < c->wire.in.end || SSL_pending(c->ssl) > 0);
}

const char *pcmig_channel_error(const struct pcmig_channel *c)
{
    return c->error;
}

SSL *pcmig_channel_tls(const struct pcmig_channel *c)
{
    return c->ssl;
}

bool pcmig_channel_kernel_sends(const struct pcmig_channel *c)
{
    return c->kernel_sends;
}

const char *pcmig_channel_cipher(const struct pcmig_channel *c)
{
    return c->ssl != NULL ? SSL_get_cipher_name(c->ssl) : "none";
}

const struct pcmig_channel_stats *pcmig_channel_stats(const struct pcmig_channel *c)
{
    return &c->stats;
}
