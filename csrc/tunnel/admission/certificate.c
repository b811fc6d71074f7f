/* SPDX-License-Identifier: Apache-2.0 */
/* See certificate.h. */
#include "tunnel/admission/certificate.h"

#include <stdio.h>
#include <stdlib.h>

#include <openssl/bn.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509_vfy.h>

struct pcmig_certificate {
    X509 *leaf;
    STACK_OF(X509) * chain; /* what else was shown, perhaps NULL */
    struct pcmig_certificate_text text;
};

static bool describe(struct pcmig_certificate *c, SSL *ssl)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    BIGNUM *number = ASN1_INTEGER_to_BN(X509_get0_serialNumber(c->leaf), NULL);
    char *serial = number != NULL ? BN_bn2hex(number) : NULL;
    unsigned len = 0;
    const bool described = serial != NULL && X509_digest(c->leaf, EVP_sha256(), digest, &len) == 1;

    pcmig_tls_peer(ssl, c->text.subject, &c->text.not_after_s);
    snprintf(c->text.serial, sizeof(c->text.serial), "%s", serial != NULL ? serial : "");
    for (unsigned i = 0; i < len && 2 * i + 2 < sizeof(c->text.fingerprint); i++)
        snprintf(c->text.fingerprint + 2 * i, 3, "%02x", digest[i]);
    OPENSSL_free(serial);
    BN_free(number);
    return described;
}

struct pcmig_certificate *pcmig_certificate_of(SSL *ssl)
{
    struct pcmig_certificate *c = calloc(1, sizeof(*c));
    STACK_OF(X509) *chain = SSL_get_peer_cert_chain(ssl);

    if (c == NULL)
        return NULL;
    c->leaf = SSL_get1_peer_certificate(ssl);
    if (chain != NULL)
        c->chain = X509_chain_up_ref(chain);
    if (c->leaf != NULL && (chain == NULL || c->chain != NULL) && describe(c, ssl))
        return c;
    pcmig_certificate_free(c);
    return NULL;
}

void pcmig_certificate_free(struct pcmig_certificate *c)
{
    if (c == NULL)
        return;
    X509_free(c->leaf);
    sk_X509_pop_free(c->chain, X509_free);
    free(c);
}

const struct pcmig_certificate_text *pcmig_certificate_text(const struct pcmig_certificate *c)
{
    return &c->text;
}

static int expiry_does_not_count(int ok, X509_STORE_CTX *check)
{
    return ok || X509_STORE_CTX_get_error(check) == X509_V_ERR_CERT_HAS_EXPIRED;
}

/* As OpenSSL does it in a handshake. */
static bool verify(const struct pcmig_certificate *c, const struct pcmig_tls *tls, bool has_dialled, int *verdict)
{
    X509_STORE_CTX *check = X509_STORE_CTX_new();
    X509_STORE *store = SSL_CTX_get_cert_store(pcmig_tls_context(tls, !has_dialled));
    bool good = false;

    *verdict = X509_V_ERR_OUT_OF_MEM;
    if (check != NULL && X509_STORE_CTX_init(check, store, c->leaf, c->chain) == 1 &&
        X509_STORE_CTX_set_default(check, has_dialled ? "ssl_client" : "ssl_server") == 1) {
        X509_STORE_CTX_set_verify_cb(check, expiry_does_not_count);
        good = X509_verify_cert(check) == 1;
        *verdict = X509_STORE_CTX_get_error(check);
    }
    X509_STORE_CTX_free(check);
    ERR_clear_error();
    return good;
}

bool pcmig_certificate_is_allowed(const struct pcmig_certificate *c, const struct pcmig_rules *rules,
                                  char error[PCMIG_TLS_ERROR_BYTES])
{
    if (rules->config.allow_count == 0 ||
        pcmig_tls_names_match(c->leaf, rules->config.allow, rules->config.allow_count))
        return true;
    snprintf(error, PCMIG_TLS_ERROR_BYTES, "its certificate is not on the list of allowed hosts");
    return false;
}

bool pcmig_certificate_is_welcome(const struct pcmig_certificate *c, const struct pcmig_rules *rules, bool has_dialled,
                                  char error[PCMIG_TLS_ERROR_BYTES])
{
    int verdict;

    if (rules->tls == NULL)
        return true;
    if (!verify(c, rules->tls, has_dialled, &verdict)) {
        snprintf(error, PCMIG_TLS_ERROR_BYTES, "its certificate is no longer accepted: %s",
                 X509_verify_cert_error_string(verdict));
        return false;
    }
    return !has_dialled || pcmig_certificate_is_allowed(c, rules, error);
}
