/* SPDX-License-Identifier: Apache-2.0 */
/* A peer with a good certificate that speaks TLS and is up to no good: what it says after the handshake, by way of
 * OpenSSL, and then any bytes. Nothing but the data that was said comes out, in order, and whatever is wrong has a
 * sentence.
 *
 * Input: one byte that says how many words there are; of each one byte that says what it is, and for data two bytes of
 * length and the content; the rest is sent as it is. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/ssl.h>

#include "tunnel/tls/channel.h"
#include "tunnel_certificates.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { INPUT_BYTES = 1 << 16 };

enum { NEW_KEY, NEW_KEYS, GOODBYE, DATA }; /* and all that is greater */

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
    uint8_t scratch[PCMIG_CHANNEL_BATCH_BYTES];
};

static void join(struct ends *e)
{
    enum pcmig_channel_result result = PCMIG_CHANNEL_AGAIN;
    char error[PCMIG_TLS_ERROR_BYTES];
    int done = 0;

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

static void say_key_update(SSL *ssl, int kind)
{
    require(SSL_key_update(ssl, kind) == 1 && SSL_do_handshake(ssl) == 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t at = 1, heard = 0, expected_len = 0, len, room;
    uint8_t *expected;
    struct ends *e;
    int goes_on = 1;

    if (tls == NULL)
        tls = tunnel_certificates_tls();
    if (size < 1 || size > INPUT_BYTES)
        return 0;
    e = calloc(1, sizeof(*e));
    expected = malloc(size);
    require(e != NULL && expected != NULL);
    join(e);
    for (uint8_t words = data[0]; words > 0 && goes_on && size - at >= 3; words--) {
        const uint8_t what = data[at++];

        if (what == NEW_KEY || what == NEW_KEYS) {
            say_key_update(e->peer, what == NEW_KEY ? SSL_KEY_UPDATE_NOT_REQUESTED : SSL_KEY_UPDATE_REQUESTED);
        } else if (what == GOODBYE) {
            require(SSL_shutdown(e->peer) == 0);
        } else {
            len = (size_t)data[at] << 8 | data[at + 1];
            at += 2;
            if (len > size - at)
                len = size - at;
            require(len == 0 || SSL_write(e->peer, data + at, (int)len) == (int)len);
            memcpy(expected + expected_len, data + at, len);
            expected_len += len;
            at += len;
        }
        goes_on = hear(e, expected, expected_len, &heard);
        require(what == GOODBYE ? !goes_on : goes_on && heard == expected_len);
    }
    if (goes_on && at < size && send(e->fd[1], data + at, size - at, MSG_NOSIGNAL) > 0)
        goes_on = hear(e, expected, expected_len, &heard);
    require(heard == expected_len);
    /* The other direction works as long as nothing was wrong, a new key that was asked for included. */
    require(!goes_on || pcmig_channel_flush(e->channel) == PCMIG_CHANNEL_OK);
    (void)pcmig_channel_reserve(e->channel, &room);
    require(!goes_on || (room == PCMIG_CHANNEL_BATCH_BYTES && pcmig_channel_commit(e->channel, 100)));
    pcmig_channel_end(e->channel);
    SSL_free(e->peer);
    pcmig_channel_free(e->channel);
    close(e->fd[0]);
    close(e->fd[1]);
    free(expected);
    free(e);
    ERR_clear_error();
    return 0;
}
