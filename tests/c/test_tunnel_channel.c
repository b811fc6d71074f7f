/* SPDX-License-Identifier: Apache-2.0 */
/* Two ends of one connection, encrypted and plain: what is committed at one is peeked at the other, whatever the
 * pieces. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/ssl.h>

#include "tunnel/tls/channel.h"
#include "tunnel_certificates.h"

struct ends {
    int fd[2];
    struct pcmig_channel *channel[2]; /* the first dials */
    uint8_t scratch[PCMIG_CHANNEL_BATCH_BYTES];
};

static struct pcmig_tls *tls;

static int make_tls(void **state)
{
    (void)state;
    tls = tunnel_certificates_tls();
    return 0;
}

static int drop_tls(void **state)
{
    (void)state;
    pcmig_tls_unref(tls);
    return 0;
}

/* TCP, and what is said is there at once. */
static void connect_both(int fd[2])
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(address);
    const int listening = socket(AF_INET, SOCK_STREAM, 0), yes = 1;

    fd[0] = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(listening >= 0 && fd[0] >= 0 && bind(listening, (struct sockaddr *)&address, len) == 0 &&
                listen(listening, 1) == 0 && getsockname(listening, (struct sockaddr *)&address, &len) == 0 &&
                connect(fd[0], (struct sockaddr *)&address, len) == 0);
    fd[1] = accept(listening, NULL, NULL);
    assert_true(fd[1] >= 0);
    for (int i = 0; i < 2; i++)
        assert_true(fcntl(fd[i], F_SETFL, O_NONBLOCK) == 0 &&
                    setsockopt(fd[i], IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes)) == 0);
    close(listening);
}

/* Until there is something to read, or nothing for some time. */
static void await(int fd)
{
    struct pollfd look = {.fd = fd, .events = POLLIN};

    assert_true(poll(&look, 1, 200) >= 0);
}

static void join(struct ends *e, struct pcmig_tls *with)
{
    enum pcmig_channel_result result[2] = {PCMIG_CHANNEL_AGAIN, PCMIG_CHANNEL_AGAIN};
    char error[PCMIG_TLS_ERROR_BYTES];

    connect_both(e->fd);
    for (int i = 0; i < 2; i++) {
        e->channel[i] = pcmig_channel_new(e->fd[i], with, i == 0 ? "localhost" : NULL, e->scratch, error);
        assert_non_null(e->channel[i]);
    }
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < 2; i++) {
            if (result[i] != PCMIG_CHANNEL_AGAIN)
                continue;
            result[i] = pcmig_channel_handshake(e->channel[i]);
            await(e->fd[1 - i]);
        }
    }
    assert_int_equal(result[0], PCMIG_CHANNEL_OK);
    assert_int_equal(result[1], PCMIG_CHANNEL_OK);
}

static void part(struct ends *e)
{
    for (int i = 0; i < 2; i++) {
        pcmig_channel_free(e->channel[i]);
        close(e->fd[i]);
    }
}

/* What a commit of LEN bytes, and of a new key before them, takes on the wire. */
static size_t wire_bytes(const struct pcmig_channel *channel, size_t len, bool new_key)
{
    enum { RECORD_BYTES = 16384, OVERHEAD_BYTES = 22, KEY_UPDATE_BYTES = 5 };
    const size_t records = (len + RECORD_BYTES - 1) / RECORD_BYTES;

    if (pcmig_channel_tls(channel) == NULL)
        return len;
    return len + records * OVERHEAD_BYTES + (new_key ? KEY_UPDATE_BYTES + OVERHEAD_BYTES : 0);
}

/* LEN bytes from one end to the other, which must be the same there; NEW_KEY: one is due. */
static void carry(struct ends *e, int from, size_t len, unsigned seed, bool new_key)
{
    struct pcmig_channel *in = e->channel[1 - from], *out = e->channel[from];
    enum pcmig_channel_result sent, filled;
    size_t room, got = 0, there;
    const uint8_t *bytes;
    uint8_t *to = pcmig_channel_reserve(out, &room);
    bool readable;

    assert_int_equal(room, PCMIG_CHANNEL_BATCH_BYTES);
    for (size_t i = 0; i < len; i++)
        to[i] = (uint8_t)((i * 31 + seed) >> 3);
    assert_true(pcmig_channel_commit(out, len));
    assert_int_equal(pcmig_channel_unsent(out), wire_bytes(out, len, new_key));
    while (got < len) {
        sent = pcmig_channel_flush(out);
        assert_in_range(sent, PCMIG_CHANNEL_OK, PCMIG_CHANNEL_AGAIN);
        readable = true;
        await(e->fd[1 - from]);
        filled = pcmig_channel_fill(in, &readable, false);
        assert_in_range(filled, PCMIG_CHANNEL_OK, PCMIG_CHANNEL_AGAIN);
        bytes = pcmig_channel_peek(in, &there);
        for (size_t i = 0; i < there; i++, got++) {
            if (bytes[i] != (uint8_t)((got * 31 + seed) >> 3))
                fail_msg("byte %zu of %zu is another", got, len);
        }
        pcmig_channel_consume(in, there);
    }
    assert_int_equal(got, len);
    assert_int_equal(pcmig_channel_flush(out), PCMIG_CHANNEL_OK);
    assert_int_equal(pcmig_channel_unsent(out), 0);
}

static void carry_sizes(struct pcmig_tls *with)
{
    static const size_t sizes[] = {
        1, 16, 16383, 16384, 16385, 65552, PCMIG_CHANNEL_BATCH_BYTES - 1, PCMIG_CHANNEL_BATCH_BYTES};
    struct ends *e = calloc(1, sizeof(*e));

    assert_non_null(e);
    join(e, with);
    for (unsigned i = 0; i < 4 * sizeof(sizes) / sizeof(sizes[0]); i++)
        carry(e, (int)(i & 1), sizes[i / 4], i, false);
    part(e);
    free(e);
}

static void encrypted(void **state)
{
    (void)state;
    carry_sizes(tls);
}

static void plain(void **state)
{
    (void)state;
    carry_sizes(NULL);
}

/* Either direction by itself, before a full batch too. */
static void keys_are_renewed(void **state)
{
    struct ends *e = calloc(1, sizeof(*e));

    (void)state;
    assert_non_null(e);
    join(e, tls);
    for (unsigned i = 0; i < 36; i++) {
        const bool new_key = i % 3 == 0;

        if (new_key)
            pcmig_channel_renew_key(e->channel[i & 1]);
        carry(e, (int)(i & 1), i < 30 ? 1 + 4000 * i : PCMIG_CHANNEL_BATCH_BYTES, i, new_key);
    }
    part(e);
    free(e);
}

/* One bit on the way is enough: nothing of that record is let through. */
static void what_was_changed_is_refused(void **state)
{
    struct ends *e = calloc(1, sizeof(*e));
    uint8_t record[256];
    bool readable = true;
    size_t room, there;
    ssize_t n;

    (void)state;
    assert_non_null(e);
    join(e, tls);
    memset(pcmig_channel_reserve(e->channel[0], &room), 'x', 100);
    assert_true(pcmig_channel_commit(e->channel[0], 100));
    assert_int_equal(pcmig_channel_flush(e->channel[0]), PCMIG_CHANNEL_OK);
    await(e->fd[1]);
    n = recv(e->fd[1], record, sizeof(record), 0);
    assert_in_range(n, 101, sizeof(record));
    record[50] ^= 1;
    assert_int_equal(send(e->fd[0], record, (size_t)n, 0), n);
    await(e->fd[1]);
    assert_int_equal(pcmig_channel_fill(e->channel[1], &readable, false), PCMIG_CHANNEL_FAILED);
    assert_true(strlen(pcmig_channel_error(e->channel[1])) > 0);
    pcmig_channel_peek(e->channel[1], &there);
    assert_int_equal(there, 0);
    part(e);
    free(e);
}

/* --- OpenSSL at the other end ------------------------------------------------------------------------------------- */

struct openssl_peer {
    int fd[2];
    struct pcmig_channel *channel;
    SSL *ssl;
    uint8_t scratch[PCMIG_CHANNEL_BATCH_BYTES];
};

static void join_openssl(struct openssl_peer *p, bool channel_dials)
{
    enum pcmig_channel_result result = PCMIG_CHANNEL_AGAIN;
    char error[PCMIG_TLS_ERROR_BYTES];
    int done = 0;

    connect_both(p->fd);
    p->channel = pcmig_channel_new(p->fd[0], tls, channel_dials ? "localhost" : NULL, p->scratch, error);
    p->ssl = pcmig_tls_session(tls, channel_dials ? NULL : "localhost", error);
    assert_true(p->channel != NULL && p->ssl != NULL && SSL_set_fd(p->ssl, p->fd[1]) == 1);
    for (int round = 0; round < 20 && (result == PCMIG_CHANNEL_AGAIN || done != 1); round++) {
        if (result == PCMIG_CHANNEL_AGAIN)
            result = pcmig_channel_handshake(p->channel);
        await(p->fd[1]);
        if (done != 1)
            done = SSL_do_handshake(p->ssl);
        await(p->fd[0]);
    }
    assert_int_equal(result, PCMIG_CHANNEL_OK);
    assert_int_equal(done, 1);
}

static void part_openssl(struct openssl_peer *p)
{
    pcmig_channel_free(p->channel);
    SSL_free(p->ssl);
    close(p->fd[0]);
    close(p->fd[1]);
    free(p);
}

static void to_openssl(struct openssl_peer *p, const char *text, bool new_key)
{
    const size_t len = strlen(text);
    char back[64];
    size_t room;

    memcpy(pcmig_channel_reserve(p->channel, &room), text, len);
    assert_true(pcmig_channel_commit(p->channel, len));
    assert_int_equal(pcmig_channel_unsent(p->channel), wire_bytes(p->channel, len, new_key));
    assert_int_equal(pcmig_channel_flush(p->channel), PCMIG_CHANNEL_OK);
    await(p->fd[1]);
    assert_int_equal(SSL_read(p->ssl, back, sizeof(back)), len);
    assert_memory_equal(back, text, len);
}

static void from_openssl(struct openssl_peer *p, const char *text)
{
    const size_t len = strlen(text);
    enum pcmig_channel_result filled;
    bool readable = true;
    const uint8_t *bytes;
    size_t there;

    assert_int_equal(SSL_write(p->ssl, text, (int)len), len);
    do {
        readable = true;
        await(p->fd[0]);
        filled = pcmig_channel_fill(p->channel, &readable, false);
    } while (filled == PCMIG_CHANNEL_AGAIN);
    assert_int_equal(filled, PCMIG_CHANNEL_OK);
    bytes = pcmig_channel_peek(p->channel, &there);
    assert_int_equal(there, len);
    assert_memory_equal(bytes, text, len);
    pcmig_channel_consume(p->channel, there);
}

/* Either role; new keys of either side, and those that OpenSSL asks for. */
static void openssl_understands(void **state)
{
    (void)state;
    for (int dials = 0; dials < 2; dials++) {
        struct openssl_peer *p = calloc(1, sizeof(*p));

        assert_non_null(p);
        join_openssl(p, dials == 1);
        for (int round = 0; round < 3; round++) {
            to_openssl(p, "forth", false);
            from_openssl(p, "and back");
            pcmig_channel_renew_key(p->channel);
            to_openssl(p, "forth with a new key", true);
            to_openssl(p, "and once more", false);
            assert_int_equal(SSL_key_update(p->ssl, SSL_KEY_UPDATE_REQUESTED), 1);
            from_openssl(p, "back with a new key");
            to_openssl(p, "forth with the new key that was asked for", true);
            to_openssl(p, "and once more", false);
        }
        part_openssl(p);
    }
}

/* OpenSSL says goodbye, and what was said before it still counts. */
static void openssl_closes(void **state)
{
    struct openssl_peer *p = calloc(1, sizeof(*p));
    bool readable = true;
    size_t there;

    (void)state;
    assert_non_null(p);
    join_openssl(p, true);
    assert_int_equal(SSL_write(p->ssl, "last", 4), 4);
    await(p->fd[0]);
    assert_int_equal(SSL_shutdown(p->ssl), 0);
    assert_int_equal(pcmig_channel_fill(p->channel, &readable, false), PCMIG_CHANNEL_OK);
    pcmig_channel_peek(p->channel, &there);
    assert_int_equal(there, 4);
    pcmig_channel_consume(p->channel, there);
    readable = true;
    await(p->fd[0]);
    assert_int_equal(pcmig_channel_fill(p->channel, &readable, false), PCMIG_CHANNEL_EOF);
    part_openssl(p);
}

/* A channel that ends says so, once, and what its peer still says is heard. */
static void an_end_is_told(void **state)
{
    struct openssl_peer *p = calloc(1, sizeof(*p));
    char byte;

    (void)state;
    assert_non_null(p);
    join_openssl(p, true);
    to_openssl(p, "last", false);
    pcmig_channel_end(p->channel);
    pcmig_channel_end(p->channel);
    await(p->fd[1]);
    assert_int_equal(SSL_read(p->ssl, &byte, 1), 0);
    assert_int_equal(SSL_get_error(p->ssl, 0), SSL_ERROR_ZERO_RETURN);
    from_openssl(p, "and back");
    part_openssl(p);
}

/* --- a peer that is up to no good --------------------------------------------------------------------------------- */

/* What the channel makes of what there is: its error, "" when it goes on. */
static const char *hear(struct openssl_peer *p)
{
    enum pcmig_channel_result filled = PCMIG_CHANNEL_AGAIN;

    for (int i = 0; i < 10 && filled == PCMIG_CHANNEL_AGAIN; i++) {
        bool readable = true;

        await(p->fd[0]);
        filled = pcmig_channel_fill(p->channel, &readable, false);
    }
    assert_in_range(filled, PCMIG_CHANNEL_AGAIN, PCMIG_CHANNEL_FAILED);
    return filled == PCMIG_CHANNEL_FAILED ? pcmig_channel_error(p->channel) : "";
}

/* Whoever cannot go on says why, before the connection is closed. */
static void what_was_changed_is_answered_with_an_alert(void **state)
{
    struct openssl_peer *p = calloc(1, sizeof(*p));
    char byte;

    (void)state;
    assert_non_null(p);
    join_openssl(p, true);
    assert_int_equal(send(p->fd[1], "\x17\x03\x03\x00\x20 thirty-two bytes that are no such", 5 + 32, 0), 5 + 32);
    assert_true(strlen(hear(p)) > 0);
    await(p->fd[1]);
    assert_true(SSL_read(p->ssl, &byte, 1) <= 0);
    assert_int_equal(ERR_GET_REASON(ERR_peek_error()), SSL_R_SSLV3_ALERT_BAD_RECORD_MAC);
    ERR_clear_error();
    part_openssl(p);
}

/* An alert of the peer's has a sentence, whether it comes while we read or while we write. */
static void alerts_have_a_sentence(void **state)
{
    (void)state;
    for (int writes = 0; writes < 2; writes++) {
        struct openssl_peer *p = calloc(1, sizeof(*p));
        char byte;

        assert_non_null(p);
        join_openssl(p, true);
        assert_int_equal(send(p->fd[0], "\x17\x03\x03\x00\x20 thirty-two bytes that are no such", 5 + 32, 0), 5 + 32);
        await(p->fd[1]);
        assert_int_equal(SSL_read(p->ssl, &byte, 1), -1);
        ERR_clear_error();
        if (writes) {
            enum pcmig_channel_result sent = PCMIG_CHANNEL_OK;

            close(p->fd[1]);
            for (int i = 0; i < 20 && sent == PCMIG_CHANNEL_OK; i++) {
                size_t room;

                await(p->fd[0]);
                memset(pcmig_channel_reserve(p->channel, &room), 'x', 100);
                assert_true(pcmig_channel_commit(p->channel, 100));
                sent = pcmig_channel_flush(p->channel);
            }
            assert_int_equal(sent, PCMIG_CHANNEL_FAILED);
            p->fd[1] = dup(p->fd[0]);
        } else {
            hear(p);
        }
        assert_non_null(strstr(pcmig_channel_error(p->channel), "bad record mac"));
        part_openssl(p);
    }
}

/* They would cost us much, and the peer next to nothing: a peer that says nothing else does not keep the thread, and is
 * not borne for ever. Between data they are. */
static void records_without_data_are_borne_for_a_while(void **state)
{
    struct openssl_peer *p = calloc(1, sizeof(*p));
    unsigned said = 0;
    bool readable;

    (void)state;
    assert_non_null(p);
    join_openssl(p, false);
    for (; said < 1000; said++) {
        assert_int_equal(SSL_key_update(p->ssl, SSL_KEY_UPDATE_NOT_REQUESTED), 1);
        assert_int_equal(SSL_do_handshake(p->ssl), 1);
    }
    assert_string_equal(hear(p), "");
    from_openssl(p, "data");
    for (said = 0; said < 10000 && pcmig_channel_error(p->channel)[0] == '\0'; said++) {
        assert_int_equal(SSL_key_update(p->ssl, SSL_KEY_UPDATE_NOT_REQUESTED), 1);
        assert_int_equal(SSL_do_handshake(p->ssl), 1);
        readable = true;
        (void)pcmig_channel_fill(p->channel, &readable, false);
    }
    assert_in_range(said, 2000, 3000);
    assert_string_equal(pcmig_channel_error(p->channel), "the peer sends records with nothing in them");
    part_openssl(p);
}

/* Each request is answered, and a peer that does not take the answers has them wait behind what it does not take
 * either: there is a bound. */
static void requests_for_new_keys_are_bounded(void **state)
{
    struct openssl_peer *p = calloc(1, sizeof(*p));
    size_t room;

    (void)state;
    assert_non_null(p);
    join_openssl(p, false);
    memset(pcmig_channel_reserve(p->channel, &room), 'x', PCMIG_CHANNEL_BATCH_BYTES);
    assert_true(pcmig_channel_commit(p->channel, PCMIG_CHANNEL_BATCH_BYTES));
    for (int said = 0; said < 100; said++) {
        assert_int_equal(SSL_key_update(p->ssl, SSL_KEY_UPDATE_REQUESTED), 1);
        assert_int_equal(SSL_do_handshake(p->ssl), 1);
    }
    assert_string_equal(hear(p), "");
    for (int said = 0; said < 100; said++) {
        assert_int_equal(SSL_key_update(p->ssl, SSL_KEY_UPDATE_REQUESTED), 1);
        assert_int_equal(SSL_do_handshake(p->ssl), 1);
    }
    assert_string_equal(hear(p), "the peer asks for more new keys than it takes");
    part_openssl(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(encrypted),
        cmocka_unit_test(plain),
        cmocka_unit_test(keys_are_renewed),
        cmocka_unit_test(what_was_changed_is_refused),
        cmocka_unit_test(openssl_understands),
        cmocka_unit_test(openssl_closes),
        cmocka_unit_test(an_end_is_told),
        cmocka_unit_test(what_was_changed_is_answered_with_an_alert),
        cmocka_unit_test(alerts_have_a_sentence),
        cmocka_unit_test(records_without_data_are_borne_for_a_while),
        cmocka_unit_test(requests_for_new_keys_are_bounded),
    };

    return cmocka_run_group_tests(tests, make_tls, drop_tls);
}
