/* See bio.h. */
#include "tunnel/bio.h"

#include <pthread.h>
#include <string.h>

#include <openssl/bio.h>

static BIO_METHOD *method;
static pthread_once_t method_once = PTHREAD_ONCE_INIT;

static int bio_read(BIO *bio, char *to, size_t size, size_t *got)
{
    struct pcmig_bio_buffer *in = &((struct pcmig_bio *)BIO_get_data(bio))->in;
    const size_t there = in->end - in->start;

    BIO_clear_retry_flags(bio);
    if (there == 0) {
        BIO_set_retry_read(bio);
        *got = 0;
        return 0;
    }
    *got = size < there ? size : there;
    memcpy(to, in->bytes + in->start, *got);
    in->start += *got;
    return 1;
}

static int bio_write(BIO *bio, const char *from, size_t size, size_t *put)
{
    struct pcmig_bio_buffer *out = &((struct pcmig_bio *)BIO_get_data(bio))->out;
    const size_t room = out->size - out->end;

    BIO_clear_retry_flags(bio);
    if (room == 0) {
        BIO_set_retry_write(bio);
        *put = 0;
        return 0;
    }
    *put = size < room ? size : room;
    memcpy(out->bytes + out->end, from, *put);
    out->end += *put;
    return 1;
}

static long bio_ctrl(BIO *bio, int command, long number, void *pointer)
{
    (void)bio;
    (void)number;
    (void)pointer;
    return command == BIO_CTRL_FLUSH || command == BIO_CTRL_DUP ? 1 : 0;
}

static void make_method(void)
{
    BIO_METHOD *made = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "gathering socket");

    if (made == NULL)
        return;
    if (BIO_meth_set_read_ex(made, bio_read) == 1 && BIO_meth_set_write_ex(made, bio_write) == 1 &&
        BIO_meth_set_ctrl(made, bio_ctrl) == 1)
        method = made;
    else
        BIO_meth_free(made);
}

BIO *pcmig_bio_new(struct pcmig_bio *buffers)
{
    BIO *bio;

    pthread_once(&method_once, make_method);
    if (method == NULL || (bio = BIO_new(method)) == NULL)
        return NULL;
    BIO_set_data(bio, buffers);
    BIO_set_init(bio, 1);
    return bio;
}
