/* SPDX-License-Identifier: Apache-2.0 */
/* See channel.h. */
#include "tunnel/channel.h"

#include "edge/clock.h"
#include "tunnel/kernel_tls.h"
#include "tunnel/records.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <openssl/err.h>
#include <openssl/ssl.h>

enum {
    BATCH_RECORDS = PCMIG_CHANNEL_BATCH_BYTES / PCMIG_RECORDS_DATA_BYTES,
    KEY_UPDATE = 24, /* RFC 8446, 4.6.3 */
    KEY_UPDATE_BYTES = 5,
    /* A batch, and the message that announces a new key. */
    CIPHER_BYTES = PCMIG_CHANNEL_BATCH_BYTES + (BATCH_RECORDS + 1) * PCMIG_RECORDS_OVERHEAD_BYTES + KEY_UPDATE_BYTES,
    /* RFC 8446, 5.5: keys of AES-GCM are good for 2^24.5 full records. */
    RECORDS_PER_KEY = 1 << 22,
    CLOSE_NOTIFY = 0, /* RFC 8446, 6.1 */
    DRAIN_READS = 4,  /* more than any handshake; not for ever */
    /* Records in a row that bring no data. They cost the peer less than us; OpenSSL bears as many. */
    BARREN_RECORDS = 32,
};

/* Bytes from `start` to `end`. */
struct buffer {
    uint8_t *bytes;
    size_t size, start, end;
};

struct pcmig_channel {
    int fd;
    SSL *ssl;
    uint8_t *scratch;
    struct pcmig_records *seals, *opens; /* NULL until the handshake is done */
    bool kernel_sends;                   /* the kernel makes the records that are sent (kTLS) */
    bool kernel_renews;                  /* ... and takes new keys */
    bool renewal_due;                    /* a new key before anything more is sent */
    struct buffer out;                   /* to the kernel: records, or plaintext where it or nobody encrypts */
    struct buffer in;                    /* records */
    struct buffer plain;                 /* received */
    uint64_t key_records;                /* since the last new key */
    unsigned barren;                     /* records without data, since the last with some */
    enum pcmig_channel_result end;       /* EOF or FAILED came behind data that was still good */
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

    if (c == NULL)
        goto err0;
    c->fd = fd;
    c->scratch = scratch;
    /* Pages that are never touched cost nothing, so idle streams stay small. */
    c->out.size = CIPHER_BYTES;
    c->out.bytes = malloc(c->out.size);
    c->plain.size = PCMIG_CHANNEL_BATCH_BYTES + PCMIG_RECORDS_OPENED_BYTES;
    c->plain.bytes = malloc(c->plain.size);
    if (c->out.bytes == NULL || c->plain.bytes == NULL)
        goto err1;
    if (tls == NULL)
        return c;
    c->in.size = CIPHER_BYTES;
    c->in.bytes = malloc(c->in.size);
    if (c->in.bytes == NULL)
        goto err1;
    c->ssl = pcmig_tls_session(tls, peer, error);
    if (c->ssl == NULL)
        goto err2;
    if (SSL_set_fd(c->ssl, fd) == 1)
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
    pcmig_records_free(c->seals);
    pcmig_records_free(c->opens);
    free(c->in.bytes);
    free(c->out.bytes);
    free(c->plain.bytes);
    free(c);
}

/* One read from the socket to the end of BUFFER, which is not full. */
static enum pcmig_channel_result receive(struct pcmig_channel *c, struct buffer *buffer, bool *readable, bool closed)
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

static unsigned suite_of(const struct pcmig_channel *c)
{
    return SSL_CIPHER_get_protocol_id(SSL_get_current_cipher(c->ssl));
}

static struct pcmig_records *make_records(struct pcmig_channel *c, bool of_dialler, bool seals)
{
    size_t len;
    const uint8_t *secret = pcmig_tls_secret(c->ssl, of_dialler, &len);

    return secret != NULL ? pcmig_records_new(SSL_get_current_cipher(c->ssl), secret, len, seals) : NULL;
}

/* The secrets are known, and OpenSSL has read no further than to its peer's last word (it has no read_ahead): from here
 * on records are ours. */
static enum pcmig_channel_result end_handshake(struct pcmig_channel *c)
{
    const bool dials = SSL_is_server(c->ssl) == 0;
    struct pcmig_record_keys keys;

    c->seals = make_records(c, dials, true);
    c->opens = make_records(c, !dials, false);
    pcmig_tls_forget_secrets(c->ssl);
    if (c->seals == NULL || c->opens == NULL || SSL_has_pending(c->ssl) != 0)
        return fail(c, "the keys of the connection cannot be used");
    (void)SSL_free_buffers(c->ssl); /* what is left of it is the peer's certificate */
    pcmig_records_keys(c->seals, &keys);
    c->kernel_sends = pcmig_kernel_tls_begin(c->fd, suite_of(c), &keys, &c->kernel_renews);
    OPENSSL_cleanse(&keys, sizeof(keys));
    return PCMIG_CHANNEL_OK;
}

enum pcmig_channel_result pcmig_channel_handshake(struct pcmig_channel *c)
{
    int done, why;

    if (c->ssl == NULL)
        return PCMIG_CHANNEL_OK;
    ERR_clear_error();
    errno = 0;
    done = SSL_do_handshake(c->ssl);
    if (done == 1)
        return end_handshake(c);
    why = SSL_get_error(c->ssl, done);
    if (why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE)
        return PCMIG_CHANNEL_AGAIN;
    if (why == SSL_ERROR_SYSCALL && errno != 0) {
        fail_errno(c, "in the handshake");
        ERR_clear_error();
        return PCMIG_CHANNEL_EOF;
    }
    if (ERR_GET_REASON(ERR_peek_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING || ERR_peek_error() == 0) {
        fail(c, "the peer closed the connection in the handshake");
        ERR_clear_error();
        return PCMIG_CHANNEL_EOF;
    }
    pcmig_tls_explain(c->ssl, c->error);
    /* Closing a socket that nobody has read to its end resets the connection, and the peer may lose the alert that says
     * why. */
    for (int i = 0; i < DRAIN_READS && recv(c->fd, c->in.bytes, c->in.size, MSG_DONTWAIT) > 0; i++)
        continue;
    return PCMIG_CHANNEL_FAILED;
}

/* Whether what is sent goes to the kernel as it is. */
static bool sends_plain(const struct pcmig_channel *c)
{
    return c->ssl == NULL || c->kernel_sends;
}

uint8_t *pcmig_channel_reserve(struct pcmig_channel *c, size_t *room)
{
    *room = c->out.end == 0 ? PCMIG_CHANNEL_BATCH_BYTES : 0;
    return sends_plain(c) ? c->out.bytes : c->scratch;
}

static bool seal(struct pcmig_channel *c, enum pcmig_record_type type, const uint8_t *plain, size_t len)
{
    const size_t n = pcmig_records_seal(c->seals, type, plain, len, c->out.bytes + c->out.end);

    if (n == 0)
        fail(c, "what is to be sent cannot be encrypted");
    c->out.end += n;
    return n > 0;
}

void pcmig_channel_renew_key(struct pcmig_channel *c)
{
    c->renewal_due = c->seals != NULL;
}

/* The peer is told, and what follows has a new key. Nothing is on its way to the kernel. */
static bool renew(struct pcmig_channel *c)
{
    static const uint8_t message[KEY_UPDATE_BYTES] = {KEY_UPDATE, 0, 0, 1,
                                                      0}; /* the other direction goes on as it is */
    struct pcmig_record_keys keys;
    bool done;

    if (c->kernel_sends && (!c->kernel_renews || !pcmig_kernel_tls_say(c->fd, message, sizeof(message))))
        return true; /* perhaps the next time */
    if (!c->kernel_sends && !seal(c, PCMIG_RECORD_HANDSHAKE, message, sizeof(message)))
        return false;
    done = pcmig_records_renew(c->seals);
    if (done && c->kernel_sends) {
        pcmig_records_keys(c->seals, &keys);
        done = pcmig_kernel_tls_renew(c->fd, suite_of(c), &keys);
        OPENSSL_cleanse(&keys, sizeof(keys));
    }
    if (!done)
        fail(c, "a new key cannot be made");
    c->renewal_due = false;
    c->key_records = 0;
    return done;
}

bool pcmig_channel_commit(struct pcmig_channel *c, size_t len)
{
    uint64_t records = 0;
    int64_t begin_us;

    if (c->renewal_due && !renew(c))
        return false;
    if (sends_plain(c)) {
        c->out.end = len;
        records = c->kernel_sends ? (len + PCMIG_RECORDS_DATA_BYTES - 1) / PCMIG_RECORDS_DATA_BYTES : 0;
    } else {
        begin_us = pcmig_clock_us();
        for (size_t at = 0, put; at < len; at += put, records++) {
            put = len - at < PCMIG_RECORDS_DATA_BYTES ? len - at : PCMIG_RECORDS_DATA_BYTES;
            if (!seal(c, PCMIG_RECORD_DATA, c->scratch + at, put))
                return false;
        }
        c->stats.crypto_out_us += (uint64_t)(pcmig_clock_us() - begin_us);
    }
    c->stats.records_out += records;
    c->key_records += records;
    if (c->key_records >= RECORDS_PER_KEY)
        pcmig_channel_renew_key(c);
    return true;
}

size_t pcmig_channel_unsent(const struct pcmig_channel *c)
{
    return c->out.end - c->out.start;
}

/* A record that is not data. OK: go on. */
static enum pcmig_channel_result heed(struct pcmig_channel *c, uint8_t type, const uint8_t *text, size_t len)
{
    static const uint8_t key_update[KEY_UPDATE_BYTES - 1] = {KEY_UPDATE, 0, 0, 1};

    if (type == PCMIG_RECORD_ALERT && len == 2 && text[1] == CLOSE_NOTIFY)
        return PCMIG_CHANNEL_EOF;
    if (type == PCMIG_RECORD_ALERT && len == 2) {
        pcmig_tls_explain_alert(text[1], c->error);
        return PCMIG_CHANNEL_FAILED;
    }
    if (type != PCMIG_RECORD_HANDSHAKE || len != KEY_UPDATE_BYTES ||
        memcmp(text, key_update, sizeof(key_update)) != 0 || text[KEY_UPDATE_BYTES - 1] > 1)
        return fail(c, "the peer sent what has no place in TLS 1.3 after the handshake");
    if (!pcmig_records_renew(c->opens))
        return fail(c, "the peer's new key cannot be made");
    if (text[KEY_UPDATE_BYTES - 1] == 1)
        pcmig_channel_renew_key(c); /* the peer wants the same of us */
    return PCMIG_CHANNEL_OK;
}

/* Decrypts what is in `in` as far as `plain` has room. OK when that brought anything. */
static enum pcmig_channel_result decrypt(struct pcmig_channel *c)
{
    enum pcmig_channel_result result = PCMIG_CHANNEL_OK;
    struct buffer *in = &c->in, *plain = &c->plain;
    const size_t before = plain->end;
    const int64_t begin_us = pcmig_clock_us();

    while (result == PCMIG_CHANNEL_OK && plain->size - plain->end >= PCMIG_RECORDS_OPENED_BYTES) {
        size_t taken = 0, got = 0;
        uint8_t type = 0;
        const enum pcmig_record_opened opened = pcmig_records_open(c->opens, in->bytes + in->start, in->end - in->start,
                                                                   &taken, plain->bytes + plain->end, &got, &type);

        if (opened == PCMIG_RECORD_PARTIAL)
            break;
        if (opened == PCMIG_RECORD_BROKEN) {
            result = fail(c, "what came is no record of TLS, or was changed on the way");
            break;
        }
        in->start += taken;
        c->stats.records_in++;
        c->barren = type == PCMIG_RECORD_DATA && got > 0 ? 0 : c->barren + 1;
        if (type != PCMIG_RECORD_DATA)
            result = heed(c, type, plain->bytes + plain->end, got);
        else
            plain->end += got;
        if (result == PCMIG_CHANNEL_OK && c->barren > BARREN_RECORDS)
            result = fail(c, "the peer sends records with nothing in them");
    }
    c->stats.crypto_in_us += (uint64_t)(pcmig_clock_us() - begin_us);
    c->end = result;
    if (plain->end > before)
        return PCMIG_CHANNEL_OK;
    return result == PCMIG_CHANNEL_OK ? PCMIG_CHANNEL_AGAIN : result;
}

/* To the front. */
static void move_together(struct buffer *b)
{
    if (b->start == 0)
        return;
    memmove(b->bytes, b->bytes + b->start, b->end - b->start);
    b->end -= b->start;
    b->start = 0;
}

enum pcmig_channel_result pcmig_channel_fill(struct pcmig_channel *c, bool *readable, bool closed)
{
    enum pcmig_channel_result result = PCMIG_CHANNEL_AGAIN;

    move_together(&c->plain);
    if (c->plain.size - c->plain.end < PCMIG_RECORDS_OPENED_BYTES)
        return PCMIG_CHANNEL_OK;
    if (c->end != PCMIG_CHANNEL_OK)
        return c->end;
    if (c->ssl == NULL)
        return *readable ? receive(c, &c->plain, readable, closed) : PCMIG_CHANNEL_AGAIN;
    if (pcmig_channel_holds(c))
        result = decrypt(c);
    if (result == PCMIG_CHANNEL_AGAIN && *readable) {
        move_together(&c->in); /* the beginning of a record */
        result = receive(c, &c->in, readable, closed);
        if (result == PCMIG_CHANNEL_OK)
            result = decrypt(c);
    }
    return result;
}

/* The peer is gone. An alert that it sent before says why. */
static enum pcmig_channel_result fail_sending(struct pcmig_channel *c)
{
    const int error = errno;
    bool readable = true;

    for (int i = 0; i < DRAIN_READS && c->opens != NULL && readable && c->end == PCMIG_CHANNEL_OK; i++)
        (void)pcmig_channel_fill(c, &readable, true);
    errno = error;
    return c->end == PCMIG_CHANNEL_FAILED ? c->end : fail_errno(c, "sending");
}

enum pcmig_channel_result pcmig_channel_flush(struct pcmig_channel *c)
{
    struct buffer *out = &c->out;

    while (out->start < out->end) {
        const ssize_t n = send(c->fd, out->bytes + out->start, out->end - out->start, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return PCMIG_CHANNEL_AGAIN;
        if (n < 0)
            return fail_sending(c);
        c->stats.calls_out++;
        out->start += (size_t)n;
    }
    out->start = out->end = 0;
    return PCMIG_CHANNEL_OK;
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
    return c->end != PCMIG_CHANNEL_OK ||
           (c->ssl != NULL && pcmig_records_is_whole(c->in.bytes + c->in.start, c->in.end - c->in.start));
}

bool pcmig_channel_can_end(const struct pcmig_channel *c)
{
    struct pollfd look = {.fd = c->fd, .events = POLLOUT};

    return !c->kernel_sends || poll(&look, 1, 0) != 0;
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
