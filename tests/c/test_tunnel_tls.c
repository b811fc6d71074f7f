/* SPDX-License-Identifier: Apache-2.0 */
/* What a host's openssl.cnf may not change. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/ssl.h>

#include "tunnel/tls/tls.h"
#include "tunnel_certificates.h"

static const char configuration[] = "openssl_conf = start\n"
                                    "[start]\nssl_conf = modules\n"
                                    "[modules]\nsystem_default = defaults\n"
                                    "[defaults]\nOptions = KTLS\nMinProtocol = TLSv1.2\n";

/* OpenSSL would give its keys to the kernel, which most of its releases cannot renew. */
static void kernel_tls_stays_off(void **state)
{
#ifdef SSL_OP_ENABLE_KTLS
    SSL_CTX *usual = SSL_CTX_new(TLS_client_method());
    struct pcmig_tls *tls = tunnel_certificates_tls();
    char error[PCMIG_TLS_ERROR_BYTES];

    assert_true((SSL_CTX_get_options(usual) & SSL_OP_ENABLE_KTLS) != 0); /* else this test shows nothing */
    for (int dials = 0; dials < 2; dials++) {
        SSL *ssl = pcmig_tls_session(tls, dials == 1 ? "localhost" : NULL, error);

        assert_true((SSL_get_options(ssl) & SSL_OP_ENABLE_KTLS) == 0);
        assert_int_equal(SSL_get_min_proto_version(ssl), TLS1_3_VERSION);
        SSL_free(ssl);
    }
    pcmig_tls_unref(tls);
    SSL_CTX_free(usual);
#endif
    (void)state;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(kernel_tls_stays_off)};
    char path[] = "/tmp/pcmig-XXXXXX";
    const int fd = mkstemp(path);
    int failed;

    /* Read when OpenSSL is first used. */
    if (fd < 0 || write(fd, configuration, strlen(configuration)) < 0 || close(fd) < 0 ||
        setenv("OPENSSL_CONF", path, 1) < 0)
        return 1;
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    return unlink(path) < 0 ? 1 : failed;
}
