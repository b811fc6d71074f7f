/* SPDX-License-Identifier: Apache-2.0 */
/* A peer that has shown its certificate and then sends any bytes: what follows the hello, through a plain connection,
 * into a stream's local socket. The first byte says how the rest is cut into pieces. */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tunnel/stream/relay.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { QUIET_US = 5000000 };

static void require(int condition)
{
    if (!condition)
        abort();
}

static void drain(int fd)
{
    char bytes[65536];

    while (recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT) > 0)
        continue;
}

/* Runs RELAY until it waits. Returns whether it goes on. */
static int run(struct pcmig_relay *relay, int peer, int local)
{
    enum pcmig_relay_result result;

    do {
        relay->wire.in = relay->wire.out = relay->local.in = relay->local.out = true;
        result = pcmig_relay_run(relay, 1);
        drain(peer);
        drain(local);
        if (result == PCMIG_RELAY_MORE && pcmig_stream_finished(relay->stream) && relay->bye_said)
            return 0;
    } while (result == PCMIG_RELAY_MORE && (relay->wire.in || pcmig_channel_holds(relay->channel)));
    require(result != PCMIG_RELAY_LOST || relay->error[0] != '\0');
    return result == PCMIG_RELAY_WAITS || result == PCMIG_RELAY_MORE;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t id[PCMIG_TUNNEL_FRAME_STREAM_BYTES];
    struct pcmig_account *account = pcmig_account_new(NULL);
    struct pcmig_channel *channel;
    struct pcmig_stream *stream;
    struct pcmig_relay relay;
    char error[PCMIG_TLS_ERROR_BYTES];
    int wire[2], local[2];
    size_t piece, at = 1;

    if (size < 2 || account == NULL || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, wire) < 0 ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, local) < 0) {
        pcmig_account_unref(account);
        return 0;
    }
    channel = pcmig_channel_new(wire[0], NULL, NULL, NULL, error);
    stream = pcmig_stream_new("0123456789abcdef0123456789abcdef", id, account, 1, local[0]);
    require(channel != NULL && stream != NULL);
    pcmig_relay_begin(&relay, channel, stream, 0, wire[0], 1);
    piece = data[0] % 64 + 1;
    while (at < size) {
        const size_t n = size - at < piece ? size - at : piece;

        /* A frame whose turn never comes is not read any further, and small pieces soon fill a socket. */
        if (send(wire[1], data + at, n, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)n)
            break;
        at += n;
        if (!run(&relay, wire[1], local[1]))
            break;
    }
    (void)pcmig_relay_tick(&relay, wire[0], 2, QUIET_US);
    pcmig_relay_settle(&relay);
    pcmig_channel_free(channel);
    pcmig_stream_unref(stream);
    pcmig_account_unref(account);
    close(wire[0]);
    close(wire[1]);
    close(local[1]);
    return 0;
}
