/* Two ends of one connection, encrypted and plain: what is committed at one is peeked at the other, whatever the pieces. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tunnel/channel.h"
#include "tunnel_certificates.h"

struct ends {
    int fd[2];
    struct pcmig_channel *channel[2]; /* the first dials */
    uint8_t scratch[PCMIG_CHANNEL_BATCH_BYTES];
};

static struct pcmig_tls *tls;

static int make_tls(void **state)
{
    char folder[] = "/tmp/pcmig-XXXXXX", ca[64], certificate[64], key[64], error[PCMIG_TLS_ERROR_BYTES];
    const struct pcmig_tls_files files = {.ca = ca, .certificate = certificate, .key = key};

    (void)state;
    if (mkdtemp(folder) == NULL)
        return -1;
    snprintf(ca, sizeof(ca), "%s/ca.pem", folder);
    snprintf(certificate, sizeof(certificate), "%s/host.pem", folder);
    snprintf(key, sizeof(key), "%s/host.key", folder);
    tunnel_certificates_make(ca, certificate, key);
    tls = pcmig_tls_new(&files, error);
    return tls != NULL && unlink(ca) == 0 && unlink(certificate) == 0 && unlink(key) == 0 && rmdir(folder) == 0 ? 0
                                                                                                                : -1;
}

static int drop_tls(void **state)
{
    (void)state;
    pcmig_tls_unref(tls);
    return 0;
}

static void join(struct ends *e, struct pcmig_tls *with)
{
    enum pcmig_channel_result result[2] = {PCMIG_CHANNEL_AGAIN, PCMIG_CHANNEL_AGAIN};
    char error[PCMIG_TLS_ERROR_BYTES];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, e->fd), 0);
    for (int i = 0; i < 2; i++) {
        e->channel[i] = pcmig_channel_new(e->fd[i], with, i == 0 ? "localhost" : NULL, e->scratch, error);
        assert_non_null(e->channel[i]);
    }
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < 2; i++) {
            if (result[i] == PCMIG_CHANNEL_AGAIN)
                result[i] = pcmig_channel_handshake(e->channel[i]);
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

/* LEN bytes from one end to the other, which must be the same there. */
static void carry(struct ends *e, int from, size_t len, unsigned seed)
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
    while (got < len) {
        sent = pcmig_channel_flush(out);
        assert_in_range(sent, PCMIG_CHANNEL_OK, PCMIG_CHANNEL_AGAIN);
        readable = true;
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
        carry(e, (int)(i & 1), sizes[i / 4], i);
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

/* Long streams change their keys; both directions do so by themselves. */
static void keys_are_renewed(void **state)
{
    struct ends *e = calloc(1, sizeof(*e));

    (void)state;
    assert_non_null(e);
    join(e, tls);
    for (unsigned i = 0; i < 30; i++) {
        if (i % 3 == 0)
            assert_true(pcmig_channel_renew_key(e->channel[i / 3 & 1]));
        carry(e, (int)(i & 1), 1 + 4000 * i, i);
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
    n = recv(e->fd[1], record, sizeof(record), 0);
    assert_in_range(n, 101, sizeof(record));
    record[50] ^= 1;
    assert_int_equal(send(e->fd[0], record, (size_t)n, 0), n);
    assert_int_equal(pcmig_channel_fill(e->channel[1], &readable, false), PCMIG_CHANNEL_FAILED);
    assert_true(strlen(pcmig_channel_error(e->channel[1])) > 0);
    pcmig_channel_peek(e->channel[1], &there);
    assert_int_equal(there, 0);
    part(e);
    free(e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(encrypted),
        cmocka_unit_test(plain),
        cmocka_unit_test(keys_are_renewed),
        cmocka_unit_test(what_was_changed_is_refused),
    };

    return cmocka_run_group_tests(tests, make_tls, drop_tls);
}
