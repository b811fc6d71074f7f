/* SPDX-License-Identifier: Apache-2.0 */
/* See wire.h. */
#include "tunnel/tls/wire.h"

#include "edge/clock.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>

#include <openssl/bio.h>

static BIO_METHOD *method;
static pthread_once_t method_once = PTHREAD_ONCE_INIT;

static int wire_read(BIO *bio, char *to, size_t size, size_t *got)
{
    struct pcmig_wire *w = BIO_get_data(bio);
    int64_t begin_us;
    ssize_t n;

    BIO_clear_retry_flags(bio);
    *got = 0;
    if (w->reads_left == 0 || w->dry) {
        BIO_set_retry_read(bio);
        return 0;
    }
    w->reads_left--;
    begin_us = pcmig_clock_us();
    do
        n = recv(w->fd, to, size, MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    w->read_us += pcmig_clock_us() - begin_us;
    w->dry = n < 0 || (size_t)n < size;
    w->empty = n < 0;
    if (n > 0) {
        w->reads++;
        w->read_bytes += (size_t)n;
        *got = (size_t)n;
        return 1;
    }
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        BIO_set_retry_read(bio);
    else if (n < 0)
        w->error = errno;
    else
        w->ended = true;
    return 0;
}

static int wire_write(BIO *bio, const char *from, size_t size, size_t *put)
{
    struct pcmig_wire_buffer *out = &((struct pcmig_wire *)BIO_get_data(bio))->out;
    const size_t room = out->size - out->end;

    BIO_clear_retry_flags(bio);
    *put = size < room ? size : room;
    if (*put == 0) {
        BIO_set_retry_write(bio);
        return 0;
    }
    memcpy(out->bytes + out->end, from, *put);
    out->end += *put;
    return 1;
}

/* Flushing is the caller's. No end of the file: a channel tells that from `ended`, and OpenSSL would answer it with an
 * alert that nobody reads. */
static long wire_ctrl(BIO *bio, int command, long number, void *pointer)
{
    (void)bio;
    (void)number;
    (void)pointer;
    return command == BIO_CTRL_FLUSH ? 1 : 0;
}

static void make_method(void)
{
    BIO_METHOD *made = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "wire of a tunnel");

    if (made == NULL)
        return;
    if (BIO_meth_set_read_ex(made, wire_read) == 1 && BIO_meth_set_write_ex(made, wire_write) == 1 &&
        BIO_meth_set_ctrl(made, wire_ctrl) == 1)
        method = made;
    else
        BIO_meth_free(made);
}

BIO *pcmig_wire_bio(struct pcmig_wire *wire)
{
    BIO *bio;

    pthread_once(&method_once, make_method);
    if (method == NULL || (bio = BIO_new(method)) == NULL)
        return NULL;
    BIO_set_data(bio, wire);
    BIO_set_init(bio, 1);
    return bio;
}
