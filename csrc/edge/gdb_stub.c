/* SPDX-License-Identifier: Apache-2.0 */
/* See gdb_stub.h. */
#include "edge/gdb_stub.h"

#include "core/gdb.h"
#include "edge/clock.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* Waits for EVENTS until END_US. Returns 0, or -1 with errno set. */
static int wait_for(int fd, short events, int64_t end_us)
{
    for (;;) {
        struct pollfd poller = {.fd = fd, .events = events};
        const int64_t left_us = end_us - pcmig_clock_us();
        int ready;

        if (left_us <= 0) {
            errno = ETIMEDOUT;
            return -1;
        }
        ready = poll(&poller, 1, (int)(left_us / 1000) + 1);
        if (ready > 0)
            return 0;
        if (ready < 0 && errno != EINTR)
            return -1;
    }
}

int pcmig_gdb_stub_dial(const char *path, int64_t timeout_ms, struct pcmig_virt_error *error)
{
    const int64_t end_us = pcmig_clock_us() + timeout_ms * 1000;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd;

    if (strlen(path) >= sizeof(address.sun_path)) {
        pcmig_virt_error_set(error, PCMIG_VIRT_FAILURE_UNSUPPORTED, "%.200s is too long for a socket", path);
        return -1;
    }
    memcpy(address.sun_path, path, strlen(path) + 1);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    while (fd >= 0 && connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0) {
        const int number = errno;

        /* A socket that is busy says so at once, and cannot be waited for. */
        if (number == EINTR || (number == EAGAIN && pcmig_clock_us() < end_us)) {
            (void)poll(NULL, 0, 1);
            continue;
        }
        (void)close(fd);
        fd = -1;
        errno = number;
        break;
    }
    if (fd < 0)
        pcmig_virt_error_set(
            error, PCMIG_VIRT_FAILURE_OTHER, "cannot connect to QEMU's gdb stub at %.200s: %s%s", path, strerror(errno),
            errno == EACCES || errno == EPERM ? "; only root and the user that QEMU runs as reach it: type this as root"
                                              : "");
    return fd;
}

static int send_all(int fd, const char *text, int64_t end_us)
{
    size_t left = strlen(text);

    while (left > 0) {
        const ssize_t sent = send(fd, text, left, MSG_NOSIGNAL);

        if (sent > 0) {
            text += sent;
            left -= (size_t)sent;
        } else if (sent == 0 || (errno != EAGAIN && errno != EINTR) || wait_for(fd, POLLOUT, end_us) < 0) {
            return -1;
        }
    }
    return 0;
}

/* Reads until the answer to "detach" has come. Returns 0, or -1 with WHY. */
static int read_answer(int fd, int64_t end_us, char *why, size_t size)
{
    struct pcmig_gdb_reader reader = {0};
    char bytes[256];

    for (;;) {
        const ssize_t count = recv(fd, bytes, sizeof(bytes), 0);

        if (count < 0 && (errno == EAGAIN || errno == EINTR) && wait_for(fd, POLLIN, end_us) == 0)
            continue;
        if (count <= 0) {
            snprintf(why, size, "%s", count == 0 ? "it closed the connection" : strerror(errno));
            return -1;
        }
        for (ssize_t i = 0; i < count; i++) {
            switch (pcmig_gdb_read(&reader, bytes[i])) {
            case PCMIG_GDB_NOTHING:
                break;
            case PCMIG_GDB_OTHER:
                if (send_all(fd, PCMIG_GDB_ACK, end_us) < 0) {
                    snprintf(why, size, "%s", strerror(errno));
                    return -1;
                }
                break;
            case PCMIG_GDB_OK:
                (void)send_all(fd, PCMIG_GDB_ACK, end_us); /* a courtesy: it has gone on */
                return 0;
            case PCMIG_GDB_ERROR:
                snprintf(why, size, "it refuses: \"%.*s\"", (int)reader.len, reader.packet);
                return -1;
            case PCMIG_GDB_NO_STUB:
                snprintf(why, size, "what it says is not gdb's protocol");
                return -1;
            }
        }
    }
}

int pcmig_gdb_stub_go_on(int fd, int64_t timeout_ms, struct pcmig_virt_error *error)
{
    const int64_t end_us = pcmig_clock_us() + timeout_ms * 1000;
    char why[PCMIG_GDB_MAX + 32] = "";

    /* The ACK first: what the stub may have said as the connection was made. */
    if (send_all(fd, PCMIG_GDB_ACK PCMIG_GDB_DETACH, end_us) < 0) {
        pcmig_virt_error_set(error, PCMIG_VIRT_FAILURE_OTHER, "cannot write to QEMU's gdb stub: %s", strerror(errno));
        return -1;
    }
    if (read_answer(fd, end_us, why, sizeof(why)) < 0) {
        pcmig_virt_error_set(error, PCMIG_VIRT_FAILURE_OTHER, "QEMU's gdb stub does not let it go on: %.200s", why);
        return -1;
    }
    return 0;
}
