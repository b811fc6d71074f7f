/* SPDX-License-Identifier: Apache-2.0 */
/* A peer with a good certificate that speaks TLS and is up to no good: what it says after the handshake, in sealed
 * records of any type and content, and then any bytes. Nothing but the data of good records comes out, in order, and
 * whatever is wrong has a sentence.
 *
 * Input: one byte that says how many records there are; of each a type, two bytes of length and the content; the rest
 * is sent as it is. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/ssl.h>

#include "tunnel/channel.h"
#include "tunnel/records.h"
#include "tunnel_certificates.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { INPUT_BYTES = 1 << 16 };

static struct pcmig_tls *tls;

static void require(int condition)
{
    if (!condition)
        abort();
}

struct ends {
    int fd[2];
    struct pcmig_channel *channel;
    SSL *peer;
    struct pcmig_records *seals; /* the peer's */
    uint8_t scratch[PCMIG_CHANNEL_BATCH_BYTES];
};

static void join(struct ends *e)
{
    enum pcmig_channel_result result = PCMIG_CHANNEL_AGAIN;
    char error[PCMIG_TLS_ERROR_BYTES];
    const uint8_t *secret;
    int done = 0;
    size_t len;

    require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, e->fd) == 0);
    e->channel = pcmig_channel_new(e->fd[0], tls, NULL, e->scratch, error);
    e->peer = pcmig_tls_session(tls, "localhost", error);
    require(e->channel != NULL && e->peer != NULL && SSL_set_fd(e->peer, e->fd[1]) == 1);
    for (int round = 0; round < 20 && (result == PCMIG_CHANNEL_AGAIN || done != 1); round++) {
        if (done != 1)
            done = SSL_do_handshake(e->peer);
        if (result == PCMIG_CHANNEL_AGAIN)
            result = pcmig_channel_handshake(e->channel);
    }
    require(result == PCMIG_CHANNEL_OK && done == 1);
    secret = pcmig_tls_secret(e->peer, true, &len);
    require(secret != NULL);
    e->seals = pcmig_records_new(SSL_get_current_cipher(e->peer), secret, len, true);
    require(e->seals != NULL);
}

/* Reads what there is, which has to go on where EXPECTED does. Returns whether the channel goes on. */
static int hear(struct ends *e, const uint8_t *expected, size_t expected_len, size_t *heard)
{
    enum pcmig_channel_result result;
    const uint8_t *bytes;
    size_t len;

    do {
        bool readable = true;

        result = pcmig_channel_fill(e->channel, &readable, false);
        bytes = pcmig_channel_peek(e->channel, &len);
        require(*heard + len <= expected_len && (len == 0 || memcmp(bytes, expected + *heard, len) == 0));
        *heard += len;
        pcmig_channel_consume(e->channel, len);
    } while (result == PCMIG_CHANNEL_OK);
    require(result != PCMIG_CHANNEL_FAILED || pcmig_channel_error(e->channel)[0] != '\0');
    require(ERR_peek_error() == 0);
    return result == PCMIG_CHANNEL_AGAIN;
}

/* Whether the last of the LEN bytes of TEXT that is not padding is the type of data. */
static int ends_with_data(const uint8_t *text, size_t len)
{
    while (len > 0 && text[len - 1] == 0)
        len--;
    return len > 0 && text[len - 1] == PCMIG_RECORD_DATA;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t record[PCMIG_RECORDS_DATA_BYTES + PCMIG_RECORDS_OVERHEAD_BYTES], expected[INPUT_BYTES];
    size_t at = 1, expected_len = 0, heard = 0, room;
    struct ends *e;
    int goes_on = 1;

    if (tls == NULL)
        tls = tunnel_certificates_tls();
    if (size < 1 || size > INPUT_BYTES || (e = calloc(1, sizeof(*e))) == NULL)
        return 0;
    join(e);
    for (uint8_t records = data[0]; records > 0 && goes_on && size - at >= 3; records--) {
        const uint8_t type = data[at];
        size_t len = (size_t)data[at + 1] << 8 | data[at + 2], n;

        at += 3;
        if (len > size - at)
            len = size - at;
        if (len > PCMIG_RECORDS_DATA_BYTES)
            len = PCMIG_RECORDS_DATA_BYTES;
        n = pcmig_records_seal(e->seals, (enum pcmig_record_type)type, data + at, len, record);
        if (type == PCMIG_RECORD_DATA) {
            memcpy(expected + expected_len, data + at, len);
            expected_len += len;
        } else if (type == 0) {
            /* All of it may be padding, with the true type before. */
            size_t end = len;

            while (end > 0 && data[at + end - 1] == 0)
                end--;
            if (end > 0 && data[at + end - 1] == PCMIG_RECORD_DATA) {
                memcpy(expected + expected_len, data + at, end - 1);
                expected_len += end - 1;
            }
        }
        require(n > 0 && send(e->fd[1], record, n, MSG_NOSIGNAL) == (ssize_t)n);
        goes_on = hear(e, expected, expected_len, &heard);
        require(!goes_on || heard == expected_len);
        /* A new key that was taken is the peer's from now on. */
        if (goes_on && type == PCMIG_RECORD_HANDSHAKE)
            require(pcmig_records_renew(e->seals));
        if (type == 0)
            goes_on = goes_on && ends_with_data(data + at, len);
        at += len;
    }
    if (goes_on && at < size && send(e->fd[1], data + at, size - at, MSG_NOSIGNAL) > 0)
        goes_on = hear(e, expected, expected_len, &heard);
    /* Whatever was heard, the other direction works, a new key that was asked for included. */
    (void)pcmig_channel_reserve(e->channel, &room);
    require(room == PCMIG_CHANNEL_BATCH_BYTES && pcmig_channel_commit(e->channel, 100));
    pcmig_records_free(e->seals);
    SSL_free(e->peer);
    pcmig_channel_free(e->channel);
    close(e->fd[0]);
    close(e->fd[1]);
    free(e);
    return 0;
}
