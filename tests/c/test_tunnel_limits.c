/* SPDX-License-Identifier: Apache-2.0 */
/* What connections take of a host: of the limit of their certificate those of streams that run or may begin, and not
 * those whose streams are over; of its threads, those that streams do not need. A peer in the place of a daemon, as
 * none of those keeps a connection that it has no use for.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/tunnel_frame.h"
#include "edge/clock.h"
#include "tunnel/internal.h"
#include "tunnel/tls/channel.h"
#include "tunnel_pair.h"

enum {
    LIMIT = 3,
    LONG_MS = 3600 * 1000,   /* nothing that a test waits for happens because this is over */
    PATIENCE_US = 600000000, /* on a machine that may be very busy */
};

/* One connection of the peer's. */
struct dialled {
    int fd;
    struct pcmig_channel *channel;
    uint8_t scratch[PCMIG_CHANNEL_BATCH_BYTES];
};

/* A destination that gives each certificate LIMIT connections, and who dials it. */
struct scene {
    struct tunnel_pair pair;
    struct tunnel_side *host;
    struct pcmig_tls *tls;
};

static void begin_with(struct scene *scene, unsigned limit)
{
    char error[PCMIG_TLS_ERROR_BYTES];

    tunnel_pair_prepare(&scene->pair, false);
    scene->host = &scene->pair.b;
    scene->host->config.max_of_one_peer = limit;
    scene->host->config.leave_ms = scene->host->config.socket_wait_ms = LONG_MS;
    scene->tls = pcmig_tls_new(&scene->host->config.files, error);
    assert_non_null(scene->tls);
    tunnel_side_start(scene->host);
}

static void begin(struct scene *scene)
{
    begin_with(scene, LIMIT);
}

static void end(struct scene *scene)
{
    pcmig_tls_unref(scene->tls);
    tunnel_pair_end(&scene->pair);
}

static void await(int fd)
{
    struct pollfd look = {.fd = fd, .events = POLLIN};

    assert_true(poll(&look, 1, 100) >= 0);
}

static void hang_up(struct dialled *d)
{
    pcmig_channel_free(d->channel);
    close(d->fd);
}

static void dial(struct scene *scene, struct dialled *d)
{
    const struct sockaddr_in address = {.sin_family = AF_INET,
                                        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                                        .sin_port = htons((uint16_t)scene->host->port)};
    enum pcmig_channel_result result = PCMIG_CHANNEL_AGAIN;
    char error[PCMIG_TLS_ERROR_BYTES];

    d->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(d->fd >= 0 && connect(d->fd, (const struct sockaddr *)&address, sizeof(address)) == 0 &&
                fcntl(d->fd, F_SETFL, O_NONBLOCK) == 0);
    d->channel = pcmig_channel_new(d->fd, scene->tls, "localhost", d->scratch, error);
    assert_non_null(d->channel);
    for (const int64_t until_us = pcmig_clock_us() + PATIENCE_US;
         result == PCMIG_CHANNEL_AGAIN && pcmig_clock_us() < until_us;) {
        result = pcmig_channel_handshake(d->channel);
        if (result == PCMIG_CHANNEL_AGAIN)
            await(d->fd);
    }
    assert_int_equal(result, PCMIG_CHANNEL_OK);
}

static void new_name(char name[PCMIG_TUNNEL_NAME_LEN + 1])
{
    uint8_t random[PCMIG_TUNNEL_NAME_LEN / 2];

    assert_int_equal(getrandom(random, sizeof(random), 0), sizeof(random));
    for (size_t i = 0; i < sizeof(random); i++)
        snprintf(name + 2 * i, 3, "%02x", random[i]);
}

/* Asks for the connection INDEX of COUNT of a new stream of NAME. */
static void ask(struct dialled *d, const char *name, unsigned index, unsigned count)
{
    struct pcmig_tunnel_hello hello = {
        .kind = PCMIG_TUNNEL_KIND_STREAM, .index = (uint8_t)index, .count = (uint8_t)count};
    uint8_t text[PCMIG_TUNNEL_FRAME_HELLO_BYTES];
    size_t room;
    uint8_t *to = pcmig_channel_reserve(d->channel, &room);

    memcpy(hello.name, name, PCMIG_TUNNEL_NAME_LEN);
    assert_int_equal(getrandom(hello.stream, sizeof(hello.stream), 0), sizeof(hello.stream));
    pcmig_tunnel_frame_encode_hello(&hello, text);
    assert_true(room >= sizeof(text));
    memcpy(to, text, sizeof(text));
    assert_true(pcmig_channel_commit(d->channel, sizeof(text)));
    assert_int_equal(pcmig_channel_flush(d->channel), PCMIG_CHANNEL_OK);
}

static enum pcmig_tunnel_verdict verdict(struct dialled *d)
{
    struct pcmig_tunnel_answer answer;
    const int64_t until_us = pcmig_clock_us() + PATIENCE_US;
    const uint8_t *bytes;
    size_t there = 0;
    bool readable = true;

    while (bytes = pcmig_channel_peek(d->channel, &there), there < PCMIG_TUNNEL_FRAME_ANSWER_BYTES) {
        enum pcmig_channel_result result;

        assert_true(pcmig_clock_us() < until_us);
        result = pcmig_channel_fill(d->channel, &readable, false);
        assert_true(result == PCMIG_CHANNEL_OK || result == PCMIG_CHANNEL_AGAIN);
        if (result == PCMIG_CHANNEL_AGAIN)
            await(d->fd);
        readable = true;
    }
    assert_true(pcmig_tunnel_frame_decode_answer(bytes, &answer));
    return answer.verdict;
}

/* What is asked for with a socket that listens under NAME. */
static enum pcmig_tunnel_verdict try_to_begin(struct scene *scene, struct dialled *d, const char *name)
{
    dial(scene, d);
    ask(d, name, 0, 1);
    return verdict(d);
}

/* Until the host has COUNT connections of the certificate. */
static void has(struct scene *scene, unsigned count)
{
    const int64_t until_us = pcmig_clock_us() + PATIENCE_US;
    char answer[2048] = "", wanted[32];

    snprintf(wanted, sizeof(wanted), " accepted=%u ", count);
    while (strstr(answer, wanted) == NULL && pcmig_clock_us() < until_us) {
        usleep(5000);
        tunnel_ask(scene->host, answer, sizeof(answer), "peers");
    }
    if (strstr(answer, wanted) == NULL)
        fail_msg("'%s' lacks '%s'", answer, wanted);
}

/* Until the host has said that nothing more comes. */
static void reads_the_end(struct dialled *d)
{
    const int64_t until_us = pcmig_clock_us() + PATIENCE_US;
    enum pcmig_channel_result result;
    bool readable = true;
    size_t there;

    do {
        result = pcmig_channel_fill(d->channel, &readable, false);
        pcmig_channel_peek(d->channel, &there);
        pcmig_channel_consume(d->channel, there);
        if (result == PCMIG_CHANNEL_AGAIN)
            await(d->fd);
        readable = true;
    } while ((result == PCMIG_CHANNEL_OK || result == PCMIG_CHANNEL_AGAIN) && pcmig_clock_us() < until_us);
    assert_int_equal(result, PCMIG_CHANNEL_EOF);
}

/* The peer does not say that it has read the end. */
static void a_stream_that_has_ended(void **state)
{
    static struct dialled ended[LIMIT], fresh[LIMIT], more;
    struct scene scene;
    char name[PCMIG_TUNNEL_NAME_LEN + 1], answer[256];
    int listening;

    (void)state;
    begin(&scene);
    new_name(name);
    listening = tunnel_listen(scene.host, name);
    for (unsigned i = 0; i < LIMIT; i++)
        assert_int_equal(try_to_begin(&scene, &ended[i], name), PCMIG_TUNNEL_ACCEPTED);
    assert_int_equal(try_to_begin(&scene, &more, name), PCMIG_TUNNEL_REFUSED_LIMIT);
    hang_up(&more);
    tunnel_ask(scene.host, answer, sizeof(answer), "close %s", name);
    assert_string_equal(answer, "ok");
    has(&scene, 0);
    for (unsigned i = 0; i < LIMIT; i++)
        assert_int_equal(try_to_begin(&scene, &fresh[i], name), PCMIG_TUNNEL_ACCEPTED);
    assert_int_equal(try_to_begin(&scene, &more, name), PCMIG_TUNNEL_REFUSED_LIMIT);
    hang_up(&more);
    /* No more than as many stay: these keep their places, and are not cut for that. */
    tunnel_ask(scene.host, answer, sizeof(answer), "close %s", name);
    for (unsigned i = 0; i < LIMIT; i++)
        reads_the_end(&fresh[i]);
    has(&scene, LIMIT);
    assert_int_equal(try_to_begin(&scene, &more, name), PCMIG_TUNNEL_REFUSED_LIMIT);
    hang_up(&more);
    for (unsigned i = 0; i < LIMIT; i++)
        hang_up(&fresh[i]);
    has(&scene, 0);
    for (unsigned i = 0; i < LIMIT; i++)
        assert_int_equal(try_to_begin(&scene, &fresh[i], name), PCMIG_TUNNEL_ACCEPTED);
    for (unsigned i = 0; i < LIMIT; i++) {
        hang_up(&ended[i]);
        hang_up(&fresh[i]);
    }
    close(listening);
    end(&scene);
}

/* The peer's end of a stream is over before there was a socket here, or its first connection. */
static void a_peer_that_has_hung_up(void **state)
{
    static struct dialled waiting[LIMIT], more;
    struct scene scene;
    char name[PCMIG_TUNNEL_NAME_LEN + 1];
    int listening;

    (void)state;
    begin(&scene);
    for (unsigned i = 0; i < LIMIT; i++) {
        new_name(name);
        dial(&scene, &waiting[i]);
        ask(&waiting[i], name, i, i + 1);
    }
    has(&scene, LIMIT);
    for (unsigned i = 0; i < LIMIT; i++)
        hang_up(&waiting[i]);
    has(&scene, 0);
    new_name(name);
    listening = tunnel_listen(scene.host, name);
    assert_int_equal(try_to_begin(&scene, &more, name), PCMIG_TUNNEL_ACCEPTED);
    hang_up(&more);
    close(listening);
    end(&scene);
}

/* Until the streams and handshakes of the host keep its threads as busy as that, together. */
static void is_busy(struct scene *scene, unsigned load)
{
    const int64_t until_us = pcmig_clock_us() + PATIENCE_US;
    unsigned now;

    do {
        usleep(1000);
        now = 0;
        for (unsigned i = 0; i < scene->host->tunnel->worker_count; i++)
            now += atomic_load(&scene->host->tunnel->workers[i].load);
    } while (now != load && pcmig_clock_us() < until_us);
    assert_int_equal(now, load);
}

/* Whoever shakes hands, one after the other, and then waits, is not on the thread of a stream that runs. */
static void a_stream_has_its_thread(void **state)
{
    enum { OTHERS = 6 };
    static struct dialled stream, others[OTHERS];
    struct scene scene;
    char name[PCMIG_TUNNEL_NAME_LEN + 1];
    unsigned of_stream = 0;
    int listening;

    (void)state;
    begin_with(&scene, OTHERS + 1);
    new_name(name);
    listening = tunnel_listen(scene.host, name);
    assert_int_equal(try_to_begin(&scene, &stream, name), PCMIG_TUNNEL_ACCEPTED);
    is_busy(&scene, 2);
    while (atomic_load(&scene.host->tunnel->workers[of_stream].load) == 0)
        of_stream++;
    for (unsigned i = 0; i < OTHERS; i++) {
        new_name(name);
        dial(&scene, &others[i]);
        ask(&others[i], name, 0, 1);
        has(&scene, i + 2);
        is_busy(&scene, 2);
    }
    assert_int_equal(atomic_load(&scene.host->tunnel->workers[of_stream].carrier_count), 1);
    hang_up(&stream);
    for (unsigned i = 0; i < OTHERS; i++)
        hang_up(&others[i]);
    has(&scene, 0);
    is_busy(&scene, 0);
    close(listening);
    end(&scene);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stream_that_has_ended),
        cmocka_unit_test(a_peer_that_has_hung_up),
        cmocka_unit_test(a_stream_has_its_thread),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
