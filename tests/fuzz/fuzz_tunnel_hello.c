/* SPDX-License-Identifier: Apache-2.0 */
/* Anybody who can reach the port: any bytes in place of a TLS handshake, in pieces, and then an end. Nobody gets
 * through it, and whatever is wrong has a sentence. */
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <openssl/err.h>

#include "tunnel/tls/channel.h"
#include "tunnel_certificates.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { INPUT_BYTES = 1 << 16 };

static struct pcmig_tls *tls;

static void require(int condition)
{
    if (!condition)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum pcmig_channel_result result = PCMIG_CHANNEL_AGAIN;
    char error[PCMIG_TLS_ERROR_BYTES] = "", answer[4096];
    struct pcmig_channel *channel;
    size_t piece, at = 1;
    int ends[2];

    if (tls == NULL)
        tls = tunnel_certificates_tls();
    if (size < 2 || size > INPUT_BYTES || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends) < 0)
        return 0;
    /* Accepting, or dialling: the server may be the one who is up to no good. */
    channel = pcmig_channel_new(ends[0], tls, data[0] & 1 ? "localhost" : NULL, NULL, error);
    require(channel != NULL);
    piece = (size_t)(data[0] >> 1) * 4 + 1;
    while (result == PCMIG_CHANNEL_AGAIN) {
        const size_t n = size - at < piece ? size - at : piece;

        result = pcmig_channel_handshake(channel);
        require(result != PCMIG_CHANNEL_OK);
        require(ERR_peek_error() == 0 || result == PCMIG_CHANNEL_AGAIN);
        while (recv(ends[1], answer, sizeof(answer), 0) > 0)
            continue;
        if (at > size)
            break;
        if (n == 0)
            shutdown(ends[1], SHUT_WR);
        else
            require(send(ends[1], data + at, n, MSG_NOSIGNAL) == (ssize_t)n);
        at += n > 0 ? n : 1;
    }
    require(result != PCMIG_CHANNEL_AGAIN && pcmig_channel_error(channel)[0] != '\0');
    pcmig_channel_free(channel);
    close(ends[0]);
    close(ends[1]);
    ERR_clear_error();
    return 0;
}
