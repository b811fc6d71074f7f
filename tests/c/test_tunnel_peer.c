/* SPDX-License-Identifier: Apache-2.0 */
/* The options of TCP sockets, as a daemon without rights gets them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tunnel/peer.h"

enum {
    RMEM_MAX = 212992, /* of Linux before about 6.18 */
    RCVBUF_LOCK = 2,   /* of SO_BUF_LOCK (linux/socket.h, SOCK_RCVBUF_LOCK) */
};

/* In the place of the C library's: without CAP_NET_ADMIN, on a host with that net.core.rmem_max. */
int setsockopt(int fd, int level, int name, const void *value, socklen_t len)
{
    int bytes;

    if (level == SOL_SOCKET && name == SO_RCVBUFFORCE) {
        errno = EPERM;
        return -1;
    }
    if (level == SOL_SOCKET && name == SO_RCVBUF) {
        memcpy(&bytes, value, sizeof(bytes));
        if (bytes > RMEM_MAX)
            bytes = RMEM_MAX;
        value = &bytes;
    }
    return (int)syscall(SYS_setsockopt, fd, level, name, value, len);
}

static int option(int fd, int name)
{
    socklen_t len = sizeof(int);
    int value = -1;

    assert_int_equal(getsockopt(fd, SOL_SOCKET, name, &value, &len), 0);
    return value;
}

static void unread_bytes_are_bound_without_rights(void **state)
{
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    (void)state;
    assert_true(fd >= 0);
    pcmig_peer_bound_unread(fd, 256 << 10);
    assert_int_equal(option(fd, SO_RCVBUF), 2 * RMEM_MAX);
    assert_int_equal(option(fd, SO_BUF_LOCK) & RCVBUF_LOCK, RCVBUF_LOCK);
    /* A long and fast line: a bound that small would slow it down. */
    pcmig_peer_bound_unread(fd, 8 << 20);
    assert_int_equal(option(fd, SO_BUF_LOCK) & RCVBUF_LOCK, 0);
    close(fd);
}

/* Of a network that comes up later. 192.0.2.0/24 and 2001:db8::/32 are for documentation, no host has them. */
static void an_address_that_is_not_there_yet(void **state)
{
    static const char *const early[] = {"192.0.2.1:0", "[2001:db8::1]:0"};
    char error[200];

    (void)state;
    for (size_t i = 0; i < sizeof(early) / sizeof(early[0]); i++) {
        const int fd = pcmig_peer_listen(early[i], NULL, false, error, sizeof(error));

        assert_true(fd >= 0);
        assert_non_null(strstr(error, "is no address of this host yet"));
        close(fd);
    }
    {
        const int fd = pcmig_peer_listen("127.0.0.1:0", NULL, false, error, sizeof(error));

        assert_true(fd >= 0);
        assert_string_equal(error, "");
        close(fd);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unread_bytes_are_bound_without_rights),
        cmocka_unit_test(an_address_that_is_not_there_yet),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
