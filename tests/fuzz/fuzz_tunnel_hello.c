/* Anybody who can reach the port: any bytes in place of a TLS handshake, in pieces, over the BIO that the daemon uses. Nobody
 * gets through it, and whatever is wrong has a sentence. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/ssl.h>

#include "tunnel/bio.h"
#include "tunnel/tls.h"
#include "tunnel_certificates.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { BUFFER_BYTES = 1 << 16 };

static struct pcmig_tls *tls;

static void require(int condition)
{
    if (!condition)
        abort();
}

/* Files are needed for as long as it takes to read them. */
static void set_up(void)
{
    char folder[] = "/tmp/pcmig-XXXXXX", ca[64], certificate[64], key[64], error[PCMIG_TLS_ERROR_BYTES];
    const struct pcmig_tls_files files = {.ca = ca, .certificate = certificate, .key = key};

    require(mkdtemp(folder) != NULL);
    snprintf(ca, sizeof(ca), "%s/ca.pem", folder);
    snprintf(certificate, sizeof(certificate), "%s/host.pem", folder);
    snprintf(key, sizeof(key), "%s/host.key", folder);
    tunnel_certificates_make(ca, certificate, key);
    tls = pcmig_tls_new(&files, error);
    require(tls != NULL);
    require(unlink(ca) == 0 && unlink(certificate) == 0 && unlink(key) == 0 && rmdir(folder) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t in[BUFFER_BYTES], out[BUFFER_BYTES];
    struct pcmig_bio buffers = {.in = {.bytes = in, .size = BUFFER_BYTES}, .out = {.bytes = out, .size = BUFFER_BYTES}};
    char error[PCMIG_TLS_ERROR_BYTES] = "";
    struct bio_st *bio;
    SSL *ssl;
    size_t piece, at = 1;

    if (tls == NULL)
        set_up();
    if (size < 2 || size > BUFFER_BYTES)
        return 0;
    /* Accepting, or dialling: the server may be the one who is up to no good. */
    ssl = pcmig_tls_session(tls, data[0] & 1 ? "localhost" : NULL, error);
    bio = pcmig_bio_new(&buffers);
    require(ssl != NULL && bio != NULL);
    SSL_set_bio(ssl, bio, bio);
    piece = (size_t)(data[0] >> 1) * 4 + 1;
    for (;;) {
        const size_t n = size - at < piece ? size - at : piece;
        const int done = SSL_do_handshake(ssl), why = SSL_get_error(ssl, done);

        require(done != 1);
        buffers.out.start = buffers.out.end = 0;
        if (why != SSL_ERROR_WANT_READ && why != SSL_ERROR_WANT_WRITE) {
            pcmig_tls_explain(ssl, error);
            require(error[0] != '\0' && ERR_peek_error() == 0);
            break;
        }
        if (n == 0)
            break;
        buffers.in.start = 0;
        buffers.in.end = n;
        memcpy(in, data + at, n);
        at += n;
    }
    SSL_free(ssl);
    ERR_clear_error();
    return 0;
}
