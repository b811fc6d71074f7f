/* SPDX-License-Identifier: Apache-2.0 */
/* Certificates and the rules of TLS: version 1.3 only, both sides show a certificate of the CA, no resumption (each
 * connection is verified anew). OpenSSL >= 3.0. What moves bytes is channel.h. */
#ifndef PCMIG_TUNNEL_TLS_TLS_H
#define PCMIG_TUNNEL_TLS_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ssl_st;     /* OpenSSL's SSL */
struct ssl_ctx_st; /* SSL_CTX */
struct x509_st;    /* X509 */
struct pcmig_tls;

/* Files in PEM. */
struct pcmig_tls_files {
    const char *ca;                  /* whom to trust */
    const char *certificate;         /* of this host, with intermediates if any */
    const char *key;                 /* without a passphrase */
    const char *dialler_certificate; /* shown when dialling; NULL = the same pair */
    const char *dialler_key;
    const char *crl; /* NULL = revocation is not checked; otherwise every CA of a chain needs a list in there */
};

/* What the tunnel is called in a handshake (ALPN, RFC 7301). */
#define PCMIG_TLS_PROTOCOL "pcmig/1"

#define PCMIG_TLS_ERROR_BYTES   384
#define PCMIG_TLS_SUBJECT_BYTES 256

/* Reads all files. NULL with a sentence in ERROR that names the file at fault. One reference is the caller's. */
struct pcmig_tls *pcmig_tls_new(const struct pcmig_tls_files *files, char error[PCMIG_TLS_ERROR_BYTES]);
struct pcmig_tls *pcmig_tls_ref(struct pcmig_tls *tls);
void pcmig_tls_unref(struct pcmig_tls *tls); /* NULL is fine */

/* When what was read ends to be good, seconds since 1970. Of several lists the first, and of several CAs the first of
 * those above this host's certificate; 0 where there is none. */
struct pcmig_tls_ends {
    int64_t certificate_s, dialler_certificate_s, ca_s, crl_s;
};
struct pcmig_tls_ends pcmig_tls_ends(const struct pcmig_tls *tls);

/* The same of this host's certificate alone, and its subject. */
int64_t pcmig_tls_not_after_s(const struct pcmig_tls *tls);
const char *pcmig_tls_subject(const struct pcmig_tls *tls);

/* One side of one connection, without a BIO. PEER: the host name or address that was dialled, which the other's
 * certificate has to have; NULL when accepting. NULL with a sentence in ERROR. */
struct ssl_st *pcmig_tls_session(struct pcmig_tls *tls, const char *peer, char error[PCMIG_TLS_ERROR_BYTES]);

/* After the handshake: whether both sides have said that they mean the tunnel's protocol. A peer that did not is
 * another service with a certificate of the same CA, or somebody who leads a connection astray. */
bool pcmig_tls_is_tunnel(struct ssl_st *ssl);

/* Whether the latest error of OpenSSL is that this side takes no such certificate, or that there is none. */
bool pcmig_tls_is_about_certificate(void);

/* After an operation on SSL has failed: why, as a sentence. Empties OpenSSL's queue of errors. */
void pcmig_tls_explain(struct ssl_st *ssl, char error[PCMIG_TLS_ERROR_BYTES]);

/* The other's certificate, after the handshake: subject (RFC 2253) and end of validity; "" and 0 without one. */
void pcmig_tls_peer(struct ssl_st *ssl, char subject[PCMIG_TLS_SUBJECT_BYTES], int64_t *not_after_s);

/* Whether one of the names in CERTIFICATE (DNS names and addresses in subjectAltName, never its common name) matches
 * one of COUNT PATTERNS (glob, case does not matter). */
bool pcmig_tls_names_match(struct x509_st *certificate, const char *const *patterns, size_t count);

/* What connections are made from that this side dials, or accepts. */
struct ssl_ctx_st *pcmig_tls_context(const struct pcmig_tls *tls, bool of_dialler);

#endif
