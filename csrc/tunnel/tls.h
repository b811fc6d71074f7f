/* SPDX-License-Identifier: Apache-2.0 */
/* Certificates and the rules of TLS: version 1.3 only, both sides show a certificate of the CA, no resumption (each
 * connection is verified anew). OpenSSL >= 3.0. What moves bytes is channel.h. */
#ifndef PCMIG_TUNNEL_TLS_H
#define PCMIG_TUNNEL_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ssl_st; /* OpenSSL's SSL */
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

#define PCMIG_TLS_ERROR_BYTES   384
#define PCMIG_TLS_SUBJECT_BYTES 256

/* Reads all files. NULL with a sentence in ERROR that names the file at fault. One reference is the caller's. */
struct pcmig_tls *pcmig_tls_new(const struct pcmig_tls_files *files, char error[PCMIG_TLS_ERROR_BYTES]);
struct pcmig_tls *pcmig_tls_ref(struct pcmig_tls *tls);
void pcmig_tls_unref(struct pcmig_tls *tls); /* NULL is fine */

/* The end of validity of this host's certificate, seconds since 1970, and its subject. */
int64_t pcmig_tls_not_after_s(const struct pcmig_tls *tls);
const char *pcmig_tls_subject(const struct pcmig_tls *tls);

/* One side of one connection, without a BIO. PEER: the host name or address that was dialled, which the other's
 * certificate has to have; NULL when accepting. NULL with a sentence in ERROR. */
struct ssl_st *pcmig_tls_session(struct pcmig_tls *tls, const char *peer, char error[PCMIG_TLS_ERROR_BYTES]);

/* Once SSL's handshake is done: the first application traffic secret (RFC 8446, 7.1) of what the dialler sends, or else
 * of what the acceptor sends, and its length, at most PCMIG_RECORDS_SECRET_BYTES. NULL when OpenSSL has not told. */
const uint8_t *pcmig_tls_secret(struct ssl_st *ssl, bool of_dialler, size_t *len);

/* Wipes those secrets. */
void pcmig_tls_forget_secrets(struct ssl_st *ssl);

/* What an alert of the peer means (RFC 8446, 6), as a sentence. */
void pcmig_tls_explain_alert(uint8_t alert, char error[PCMIG_TLS_ERROR_BYTES]);

/* After an operation on SSL has failed: why, as a sentence. Empties OpenSSL's queue of errors. */
void pcmig_tls_explain(struct ssl_st *ssl, char error[PCMIG_TLS_ERROR_BYTES]);

/* The other's certificate, after the handshake: subject (RFC 2253) and end of validity; "" and 0 without one. */
void pcmig_tls_peer(struct ssl_st *ssl, char subject[PCMIG_TLS_SUBJECT_BYTES], int64_t *not_after_s);

/* Whether one of the names in the other's certificate (DNS names and addresses; without any, its common name) matches
 * one of COUNT PATTERNS (glob, case does not matter). */
bool pcmig_tls_peer_matches(struct ssl_st *ssl, const char *const *patterns, size_t count);

#endif
