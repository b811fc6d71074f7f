/* SPDX-License-Identifier: Apache-2.0 */
/* See tls.h. */
#include "tunnel/tls/tls.h"

#include <arpa/inet.h>
#include <assert.h>
#include <fnmatch.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#ifdef __aarch64__
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

struct pcmig_tls {
    atomic_uint references;
    SSL_CTX *acceptor, *dialler;
    struct pcmig_tls_ends ends;
    char subject[PCMIG_TLS_SUBJECT_BYTES];
};

/* AES-128 first: about a twentieth faster than AES-256 (OpenSSL 3.0, AES-NI), and as far from being broken. */
static const char with_aes[] = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256";
static const char without_aes[] = "TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384";

/* As ALPN has it on the wire: each name behind its length (RFC 7301, 3.1). */
static const unsigned char protocols[] = "\x07" PCMIG_TLS_PROTOCOL;
static_assert(sizeof(PCMIG_TLS_PROTOCOL) - 1 == 7, "the length in front of it");

/* What OpenSSL says in words that do not help, and what it means between two tunnels. */
static const struct {
    int reason;
    const char *text;
} reasons[] = {
    {SSL_R_WRONG_VERSION_NUMBER, "what came is not TLS"},
    {SSL_R_HTTP_REQUEST, "what came is not TLS but HTTP"},
    {SSL_R_HTTPS_PROXY_REQUEST, "what came is not TLS but HTTP"},
    {SSL_R_UNSUPPORTED_PROTOCOL, "the peer does not speak TLS 1.3"},
    {SSL_R_TLSV1_ALERT_PROTOCOL_VERSION, "the peer does not speak TLS 1.3"},
    {SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE, "the peer shows no certificate"},
    {SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED, "the peer wants a certificate"},
    {SSL_R_TLSV1_ALERT_UNKNOWN_CA, "the peer does not trust the CA of this host's certificate"},
    {SSL_R_SSLV3_ALERT_CERTIFICATE_REVOKED, "the peer says that this host's certificate is revoked"},
    {SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED, "the peer says that this host's certificate has expired"},
    {SSL_R_SSLV3_ALERT_BAD_CERTIFICATE, "the peer refuses this host's certificate"},
    {SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN, "the peer refuses this host's certificate"},
    {SSL_R_SSLV3_ALERT_UNSUPPORTED_CERTIFICATE, "the peer says that this host's certificate is not for this use"},
    {SSL_R_TLSV1_ALERT_ACCESS_DENIED, "the peer denies access"},
    {SSL_R_TLSV1_ALERT_NO_APPLICATION_PROTOCOL, "the peer does not speak " PCMIG_TLS_PROTOCOL " (ALPN)"},
    {SSL_R_NO_APPLICATION_PROTOCOL, "the peer wants another protocol than " PCMIG_TLS_PROTOCOL " (ALPN)"},
    {SSL_R_UNEXPECTED_EOF_WHILE_READING, "the peer closed the connection"},
};

static bool cpu_has_aes(void)
{
#if defined(__x86_64__) || defined(__i386__)
    return __builtin_cpu_supports("aes") && __builtin_cpu_supports("pclmul");
#elif defined(__aarch64__)
    return (getauxval(AT_HWCAP) & HWCAP_AES) != 0;
#else
    return false;
#endif
}

/* The latest error of OpenSSL as text, e.g. "no such file". */
static const char *openssl_reason(void)
{
    const unsigned long code = ERR_peek_last_error();
    const char *text = ERR_reason_error_string(code);

    if (ERR_SYSTEM_ERROR(code))
        text = strerror(ERR_GET_REASON(code));
    return text != NULL ? text : "unknown error";
}

static bool fail(char error[PCMIG_TLS_ERROR_BYTES], const char *what, const char *file)
{
    snprintf(error, PCMIG_TLS_ERROR_BYTES, "%s %s: %s", what, file, openssl_reason());
    ERR_clear_error();
    return false;
}

static int64_t seconds(const ASN1_TIME *when)
{
    struct tm tm;

    return when != NULL && ASN1_TIME_to_tm(when, &tm) == 1 ? (int64_t)timegm(&tm) : 0;
}

static void subject_of(X509 *certificate, char out[PCMIG_TLS_SUBJECT_BYTES])
{
    BIO *memory = BIO_new(BIO_s_mem());
    int n = 0;

    if (memory != NULL && X509_NAME_print_ex(memory, X509_get_subject_name(certificate), 0, XN_FLAG_RFC2253) >= 0)
        n = BIO_read(memory, out, PCMIG_TLS_SUBJECT_BYTES - 1);
    out[n > 0 ? n : 0] = '\0';
    BIO_free(memory);
}

static bool load_crl(SSL_CTX *context, const char *file, char error[PCMIG_TLS_ERROR_BYTES])
{
    X509_STORE *store = SSL_CTX_get_cert_store(context);
    X509_LOOKUP *lookup = X509_STORE_add_lookup(store, X509_LOOKUP_file());

    if (lookup == NULL || X509_load_crl_file(lookup, file, X509_FILETYPE_PEM) <= 0)
        return fail(error, "no list of revoked certificates in PEM can be read from", file);
    if (X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL) != 1)
        return fail(error, "the list of revoked certificates cannot be used:", file);
    return true;
}

static bool check_dates(X509 *certificate, const char *file, char error[PCMIG_TLS_ERROR_BYTES])
{
    const char *what = NULL;

    if (X509_cmp_current_time(X509_get0_notAfter(certificate)) <= 0)
        what = "has expired";
    else if (X509_cmp_current_time(X509_get0_notBefore(certificate)) > 0)
        what = "is not valid yet: is this host's clock right?";
    if (what != NULL)
        snprintf(error, PCMIG_TLS_ERROR_BYTES, "the certificate %s %s", file, what);
    return what == NULL;
}

/* SSL_CTX_alpn_select_cb_func: takes the tunnel's protocol when the dialler offers it, and no other. */
static int select_protocol(SSL *ssl, const unsigned char **selected, unsigned char *selected_len,
                           const unsigned char *offered, unsigned offered_len, void *none)
{
    unsigned char *found;

    (void)ssl;
    (void)none;
    if (SSL_select_next_proto(&found, selected_len, protocols, sizeof(protocols) - 1, offered, offered_len) !=
        OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    *selected = found;
    return SSL_TLSEXT_ERR_OK;
}

static SSL_CTX *context_new(const SSL_METHOD *method, const struct pcmig_tls_files *files, const char *certificate,
                            const char *key, char error[PCMIG_TLS_ERROR_BYTES])
{
    SSL_CTX *context = SSL_CTX_new(method);

    if (context == NULL || SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) != 1 ||
        SSL_CTX_set_ciphersuites(context, cpu_has_aes() ? with_aes : without_aes) != 1 ||
        SSL_CTX_set_num_tickets(context, 0) != 1) {
        fail(error, "OpenSSL cannot be set up for", "TLS 1.3");
        goto err;
    }
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_options(context, SSL_OP_NO_TICKET | SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
#ifdef SSL_OP_ENABLE_KTLS
    /* Also where openssl.cnf says otherwise: OpenSSL before 3.2 never gives the kernel a new key, nor does Linux before
     * 6.14 take one, and a migration can outlast a key (RFC 8446, 5.5). */
    SSL_CTX_clear_options(context, SSL_OP_ENABLE_KTLS);
#endif
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    if (SSL_CTX_load_verify_file(context, files->ca) != 1) {
        fail(error, "the CA's certificate cannot be read:", files->ca);
        goto err;
    }
    if (SSL_CTX_use_certificate_chain_file(context, certificate) != 1) {
        fail(error, "the certificate cannot be read:", certificate);
        goto err;
    }
    if (!check_dates(SSL_CTX_get0_certificate(context), certificate, error))
        goto err;
    if (SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) != 1) {
        fail(error, "the private key cannot be read, or is not the certificate's:", key);
        goto err;
    }
    if (files->crl != NULL && !load_crl(context, files->crl, error))
        goto err;
    return context;

err:
    SSL_CTX_free(context);
    return NULL;
}

static void note_first(int64_t *first_s, int64_t end_s)
{
    if (*first_s == 0 || end_s < *first_s)
        *first_s = end_s;
}

/* Whether the trusted CA stands above the certificate of CONTEXT. While CAs change there are two, and of the other one
 * nobody has a certificate any more. */
static bool is_above(X509 *ca, SSL_CTX *context)
{
    STACK_OF(X509) *between = NULL; /* sent with it */

    if (X509_check_issued(ca, SSL_CTX_get0_certificate(context)) == X509_V_OK)
        return true;
    SSL_CTX_get0_chain_certs(context, &between);
    for (int i = 0; i < sk_X509_num(between); i++) {
        if (X509_check_issued(ca, sk_X509_value(between, i)) == X509_V_OK)
            return true;
    }
    return false;
}

static void note_ends(struct pcmig_tls *tls)
{
    const STACK_OF(X509_OBJECT) *trusted = X509_STORE_get0_objects(SSL_CTX_get_cert_store(tls->acceptor));
    int64_t others_s = 0;

    tls->ends = (struct pcmig_tls_ends){
        .certificate_s = seconds(X509_get0_notAfter(SSL_CTX_get0_certificate(tls->acceptor))),
        .dialler_certificate_s = seconds(X509_get0_notAfter(SSL_CTX_get0_certificate(tls->dialler))),
    };
    for (int i = 0; i < sk_X509_OBJECT_num(trusted); i++) {
        const X509_OBJECT *object = sk_X509_OBJECT_value(trusted, i);
        X509 *ca = X509_OBJECT_get0_X509(object);
        const X509_CRL *crl = X509_OBJECT_get0_X509_CRL((X509_OBJECT *)(uintptr_t)object);

        if (ca != NULL)
            note_first(is_above(ca, tls->acceptor) || is_above(ca, tls->dialler) ? &tls->ends.ca_s : &others_s,
                       seconds(X509_get0_notAfter(ca)));
        else if (crl != NULL && X509_CRL_get0_nextUpdate(crl) != NULL)
            note_first(&tls->ends.crl_s, seconds(X509_CRL_get0_nextUpdate(crl)));
    }
    if (tls->ends.ca_s == 0)
        tls->ends.ca_s = others_s; /* this host's is of none of them, which somebody else has told */
}

struct pcmig_tls_ends pcmig_tls_ends(const struct pcmig_tls *tls)
{
    return tls->ends;
}

struct pcmig_tls *pcmig_tls_new(const struct pcmig_tls_files *files, char error[PCMIG_TLS_ERROR_BYTES])
{
    const bool own = files->dialler_certificate != NULL;
    struct pcmig_tls *tls = calloc(1, sizeof(*tls));
    X509 *certificate;

    if (tls == NULL) {
        snprintf(error, PCMIG_TLS_ERROR_BYTES, "memory is short");
        return NULL;
    }
    ERR_clear_error();
    atomic_init(&tls->references, 1);
    tls->acceptor = context_new(TLS_server_method(), files, files->certificate, files->key, error);
    if (tls->acceptor == NULL)
        goto err;
    tls->dialler = context_new(TLS_client_method(), files, own ? files->dialler_certificate : files->certificate,
                               own ? files->dialler_key : files->key, error);
    if (tls->dialler == NULL)
        goto err;
    SSL_CTX_set_alpn_select_cb(tls->acceptor, select_protocol, NULL);
    if (SSL_CTX_set_alpn_protos(tls->dialler, protocols, sizeof(protocols) - 1) != 0) {
        fail(error, "OpenSSL cannot be set up for", PCMIG_TLS_PROTOCOL);
        goto err;
    }
    /* Who asks for a certificate says which CAs it takes. */
    SSL_CTX_set_client_CA_list(tls->acceptor, SSL_load_client_CA_file(files->ca));
    certificate = SSL_CTX_get0_certificate(tls->acceptor);
    note_ends(tls);
    subject_of(certificate, tls->subject);
    return tls;

err:
    pcmig_tls_unref(tls);
    return NULL;
}

struct pcmig_tls *pcmig_tls_ref(struct pcmig_tls *tls)
{
    atomic_fetch_add(&tls->references, 1);
    return tls;
}

void pcmig_tls_unref(struct pcmig_tls *tls)
{
    if (tls == NULL || atomic_fetch_sub(&tls->references, 1) != 1)
        return;
    SSL_CTX_free(tls->acceptor);
    SSL_CTX_free(tls->dialler);
    free(tls);
}

int64_t pcmig_tls_not_after_s(const struct pcmig_tls *tls)
{
    return tls->ends.certificate_s;
}

const char *pcmig_tls_subject(const struct pcmig_tls *tls)
{
    return tls->subject;
}

static bool is_address(const char *text)
{
    struct in6_addr address;

    return inet_pton(AF_INET, text, &address) == 1 || inet_pton(AF_INET6, text, &address) == 1;
}

/* PEER without the zone of a link-local address, which no certificate has. */
static bool expect_peer(SSL *ssl, const char *peer)
{
    char name[256];

    snprintf(name, sizeof(name), "%s", peer);
    if (strchr(name, ':') != NULL)
        name[strcspn(name, "%")] = '\0';
    if (is_address(name))
        return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), name) == 1;
    SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
    return SSL_set1_host(ssl, name) == 1 && SSL_set_tlsext_host_name(ssl, name) == 1;
}

struct ssl_st *pcmig_tls_session(struct pcmig_tls *tls, const char *peer, char error[PCMIG_TLS_ERROR_BYTES])
{
    SSL *ssl = SSL_new(peer != NULL ? tls->dialler : tls->acceptor);

    if (ssl == NULL || (peer != NULL && !expect_peer(ssl, peer))) {
        fail(error, "no TLS session can be made for", peer != NULL ? peer : "a new connection");
        SSL_free(ssl);
        return NULL;
    }
    if (peer != NULL)
        SSL_set_connect_state(ssl);
    else
        SSL_set_accept_state(ssl);
    return ssl;
}

/* NULL: none of ours. */
static const char *text_of(int reason)
{
    for (size_t i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++) {
        if (reasons[i].reason == reason)
            return reasons[i].text;
    }
    return NULL;
}

void pcmig_tls_explain(SSL *ssl, char error[PCMIG_TLS_ERROR_BYTES])
{
    const unsigned long code = ERR_peek_last_error();
    const long verdict = SSL_get_verify_result(ssl);
    const char *text = ERR_GET_LIB(code) == ERR_LIB_SSL ? text_of(ERR_GET_REASON(code)) : NULL;

    if (ERR_GET_LIB(code) == ERR_LIB_SSL && ERR_GET_REASON(code) == SSL_R_CERTIFICATE_VERIFY_FAILED) {
        /* What was refused is not the peer's certificate to OpenSSL, but it keeps the chain. */
        X509 *refused = sk_X509_value(SSL_get0_verified_chain(ssl), 0);
        char subject[PCMIG_TLS_SUBJECT_BYTES] = "";

        if (refused != NULL)
            subject_of(refused, subject);
        snprintf(error, PCMIG_TLS_ERROR_BYTES, "the peer's certificate is not accepted: %s%s%s",
                 X509_verify_cert_error_string(verdict), subject[0] != '\0' ? ": " : "", subject);
    } else if (text != NULL) {
        snprintf(error, PCMIG_TLS_ERROR_BYTES, "%s", text);
    } else {
        snprintf(error, PCMIG_TLS_ERROR_BYTES, "TLS: %s",
                 code != 0 ? openssl_reason() : "the peer closed the connection");
    }
    ERR_clear_error();
}

bool pcmig_tls_is_about_certificate(void)
{
    const unsigned long code = ERR_peek_last_error();
    const int reason = ERR_GET_REASON(code);

    return ERR_GET_LIB(code) == ERR_LIB_SSL &&
           (reason == SSL_R_CERTIFICATE_VERIFY_FAILED || reason == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE);
}

void pcmig_tls_peer(SSL *ssl, char subject[PCMIG_TLS_SUBJECT_BYTES], int64_t *not_after_s)
{
    X509 *certificate = SSL_get0_peer_certificate(ssl);

    subject[0] = '\0';
    *not_after_s = 0;
    if (certificate == NULL)
        return;
    subject_of(certificate, subject);
    *not_after_s = seconds(X509_get0_notAfter(certificate));
}

static bool matches(const char *name, size_t len, const char *const *patterns, size_t count)
{
    if (strlen(name) != len)
        return false; /* a NUL within it: an attempt to look like another */
    for (size_t i = 0; i < count; i++) {
        if (fnmatch(patterns[i], name, FNM_CASEFOLD) == 0)
            return true;
    }
    return false;
}

/* TEXT is a string that OpenSSL ends with a NUL (ASN1_STRING). */
static bool string_matches(const ASN1_STRING *text, const char *const *patterns, size_t count)
{
    return matches((const char *)ASN1_STRING_get0_data(text), (size_t)ASN1_STRING_length(text), patterns, count);
}

static bool address_matches(const ASN1_STRING *address, const char *const *patterns, size_t count)
{
    const int len = ASN1_STRING_length(address);
    char text[INET6_ADDRSTRLEN];

    if ((len != 4 && len != 16) ||
        inet_ntop(len == 4 ? AF_INET : AF_INET6, ASN1_STRING_get0_data(address), text, sizeof(text)) == NULL)
        return false;
    return matches(text, strlen(text), patterns, count);
}

bool pcmig_tls_is_tunnel(SSL *ssl)
{
    const unsigned char *name = NULL;
    unsigned len = 0;

    SSL_get0_alpn_selected(ssl, &name, &len);
    return len == protocols[0] && memcmp(name, protocols + 1, len) == 0;
}

struct ssl_ctx_st *pcmig_tls_context(const struct pcmig_tls *tls, bool of_dialler)
{
    return of_dialler ? tls->dialler : tls->acceptor;
}

bool pcmig_tls_names_match(X509 *certificate, const char *const *patterns, size_t count)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
    bool found = false;

    for (int i = 0; i < sk_GENERAL_NAME_num(names) && !found; i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);

        if (name->type == GEN_DNS)
            found = string_matches(name->d.dNSName, patterns, count);
        else if (name->type == GEN_IPADD)
            found = address_matches(name->d.iPAddress, patterns, count);
    }
    GENERAL_NAMES_free(names);
    return found;
}
