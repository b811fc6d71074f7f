/* SPDX-License-Identifier: Apache-2.0 */
/* edge/link on real sockets: what waits, silence, and waking an end that has not noticed. Loopback; ports of libvirt's
 * default range, as no QEMU of this UUID runs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "edge/link.h"

#define UUID       "00000000-1111-2222-3333-444444444444"
#define FIRST_PORT 49152
#define LAST_PORT  49215

struct pair {
    int source;      /* connected to ... */
    int destination; /* ... this one */
};

static int listen_somewhere(uint16_t *port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

    assert_true(fd >= 0);
    for (uint16_t p = LAST_PORT; p >= FIRST_PORT; p--) {
        address.sin_port = htons(p);
        if (bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 && listen(fd, 1) == 0) {
            *port = p;
            return fd;
        }
    }
    fail_msg("no free port from %d to %d", FIRST_PORT, LAST_PORT);
    return -1;
}

static struct pair connect_pair_to(int listener, uint16_t port)
{
    struct pair pair;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

    address.sin_port = htons(port);
    pair.source = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(pair.source >= 0);
    assert_int_equal(connect(pair.source, (struct sockaddr *)&address, sizeof(address)), 0);
    pair.destination = accept(listener, NULL, NULL);
    assert_true(pair.destination >= 0);
    return pair;
}

static struct pair connect_pair(void)
{
    uint16_t port = 0;
    int listener = listen_somewhere(&port);
    struct pair pair = connect_pair_to(listener, port);

    close(listener);
    return pair;
}

static void what_waits(void **state)
{
    struct pair pair = connect_pair();
    struct pcmig_link *link = pcmig_link_open(UUID);
    struct sockaddr_storage peer;
    char bytes[65536] = {0};

    (void)state;
    assert_non_null(link);
    assert_false(pcmig_link_peer(link, &peer));
    assert_int_equal(pcmig_link_queue_bytes(link), 0);
    assert_true(pcmig_link_peer(link, &peer));
    assert_int_equal(((struct sockaddr_in *)&peer)->sin_addr.s_addr, htonl(INADDR_LOOPBACK));
    /* Until the other side's buffer is full too, as nobody reads there. */
    while (send(pair.source, bytes, sizeof(bytes), MSG_DONTWAIT) > 0)
        continue;
    assert_int_equal(errno, EAGAIN);
    assert_true(pcmig_link_queue_bytes(link) > 0);
    /* The window is full, which its kernel acknowledges: that is no silence. */
    assert_true(pcmig_link_silence_ms(link) < 1000);
    close(pair.source);
    close(pair.destination);
    pcmig_link_close(link);
}

static void nothing_to_see(void **state)
{
    struct pcmig_link *link = pcmig_link_open(UUID);

    (void)state;
    assert_non_null(link);
    assert_int_equal(pcmig_link_queue_bytes(link), -1);
    assert_int_equal(pcmig_link_silence_ms(link), -1);
    assert_int_equal(pcmig_link_wake(link, 100), 0);
    pcmig_link_close(link);
}

/* Whether lose() can: not without CAP_NET_ADMIN. */
static bool can_lose(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), repair = 1;
    int status, error;

    assert_true(fd >= 0);
    status = setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &repair, sizeof(repair));
    error = errno;
    close(fd);
    if (status == 0)
        return true;
    assert_int_equal(error, EPERM);
    print_message("skipped: needs CAP_NET_ADMIN to lose a connection without a word\n");
    return false;
}

/* The source's end is gone without a word, as after a cut. */
static void lose(const struct pair *pair)
{
    int repair = 1;

    assert_int_equal(setsockopt(pair->source, IPPROTO_TCP, TCP_REPAIR, &repair, sizeof(repair)), 0);
    close(pair->source); /* in repair mode the kernel says nothing to the other end */
}

static void expect_reset(const struct pair *pair)
{
    struct pollfd wait = {.fd = pair->destination, .events = POLLIN};
    char byte;

    assert_int_equal(poll(&wait, 1, 2000), 1);
    assert_int_equal(recv(pair->destination, &byte, 1, 0), -1);
    assert_int_equal(errno, ECONNRESET);
}

static void expect_quiet(const struct pair *pair)
{
    struct pollfd wait = {.fd = pair->destination, .events = POLLIN};

    assert_int_equal(poll(&wait, 1, 200), 0);
}

/* The destination has nothing to send and would wait for ever. */
static void a_half_open_end_is_reset(void **state)
{
    struct pair pair;
    struct pcmig_link *link;

    (void)state;
    if (!can_lose())
        skip();
    pair = connect_pair();
    link = pcmig_link_open(UUID);
    assert_non_null(link);
    assert_int_equal(pcmig_link_queue_bytes(link), 0);
    lose(&pair);
    expect_quiet(&pair);
    assert_int_equal(pcmig_link_queue_bytes(link), -1);
    assert_int_equal(pcmig_link_wake(link, 300), 1);
    expect_reset(&pair);
    close(pair.destination);
    pcmig_link_close(link);
}

/* QEMU closes the stream before the channel of page requests, and between the two somebody looks. */
static void the_first_of_two_to_go_is_not_forgotten(void **state)
{
    struct pair main_stream, requests;
    struct pcmig_link *link;

    (void)state;
    if (!can_lose())
        skip();
    main_stream = connect_pair();
    requests = connect_pair();
    link = pcmig_link_open(UUID);
    assert_non_null(link);
    assert_int_equal(pcmig_link_queue_bytes(link), 0);
    lose(&main_stream);
    assert_int_equal(pcmig_link_queue_bytes(link), 0);
    lose(&requests);
    assert_int_equal(pcmig_link_queue_bytes(link), -1);
    expect_quiet(&main_stream);
    assert_int_equal(pcmig_link_wake(link, 300), 2);
    expect_reset(&main_stream);
    expect_reset(&requests);
    close(main_stream.destination);
    close(requests.destination);
    pcmig_link_close(link);
}

/* The destination has noticed already, and QEMU there still listens: it must not see a connection. */
static void a_listener_at_the_old_port_sees_nothing(void **state)
{
    uint16_t port = 0;
    int listener = listen_somewhere(&port);
    struct pair pair = connect_pair_to(listener, port);
    struct pcmig_link *link = pcmig_link_open(UUID);
    struct pollfd wait = {.fd = listener, .events = POLLIN};
    struct linger at_once = {.l_onoff = 1};

    (void)state;
    assert_non_null(link);
    assert_int_equal(pcmig_link_queue_bytes(link), 0);
    assert_int_equal(setsockopt(pair.destination, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once)), 0);
    close(pair.destination); /* with a reset, so that nothing of it is left at either end */
    close(pair.source);
    assert_int_equal(pcmig_link_wake(link, 300), 1);
    assert_int_equal(poll(&wait, 1, 1500), 0);
    close(listener);
    pcmig_link_close(link);
}

static void a_live_stream_is_left_alone(void **state)
{
    struct pair pair = connect_pair();
    struct pcmig_link *link = pcmig_link_open(UUID);
    char byte = 'x';

    (void)state;
    assert_non_null(link);
    assert_int_equal(pcmig_link_queue_bytes(link), 0);
    assert_int_equal(pcmig_link_wake(link, 100), 0);
    assert_int_equal(send(pair.source, &byte, 1, 0), 1);
    assert_int_equal(recv(pair.destination, &byte, 1, 0), 1);
    assert_int_equal(send(pair.destination, &byte, 1, 0), 1);
    assert_int_equal(recv(pair.source, &byte, 1, 0), 1);
    close(pair.source);
    close(pair.destination);
    pcmig_link_close(link);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_to_see),
        cmocka_unit_test(what_waits),
        cmocka_unit_test(a_live_stream_is_left_alone),
        cmocka_unit_test(a_half_open_end_is_reset),
        cmocka_unit_test(the_first_of_two_to_go_is_not_forgotten),
        cmocka_unit_test(a_listener_at_the_old_port_sees_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
