/* SPDX-License-Identifier: Apache-2.0 */
/* The certificate that the other end of a connection has shown. It is kept beyond the handshake, so that a stream can
 * be ended when its peer is no longer welcome, and so that logs can say who it was. */
#ifndef PCMIG_TUNNEL_ADMISSION_CERTIFICATE_H
#define PCMIG_TUNNEL_ADMISSION_CERTIFICATE_H

#include "tunnel/rules.h"

#include <stdbool.h>

struct pcmig_certificate;

/* What it is known by. */
struct pcmig_certificate_text {
    char subject[PCMIG_TLS_SUBJECT_BYTES]; /* RFC 2253 */
    char serial[64];                       /* hexadecimal */
    char fingerprint[65];                  /* SHA-256, hexadecimal */
    int64_t not_after_s;                   /* since 1970 */
};

/* Of the other end of SSL, whose handshake is done. NULL when memory is short or there is none. */
struct pcmig_certificate *pcmig_certificate_of(struct ssl_st *ssl);
void pcmig_certificate_free(struct pcmig_certificate *certificate); /* NULL is fine */
const struct pcmig_certificate_text *pcmig_certificate_text(const struct pcmig_certificate *certificate);

/* Whether it would be let in by RULES now: its chain, the revocations, and where it has dialled us, `allow`. That it
 * has expired since it was let in does not count: its stream may hold the only copy of a guest's newest memory. False
 * with a sentence in ERROR. */
bool pcmig_certificate_is_welcome(const struct pcmig_certificate *certificate, const struct pcmig_rules *rules,
                                  bool has_dialled, char error[PCMIG_TLS_ERROR_BYTES]);

/* Of that, only whether `allow` lets it dial. */
bool pcmig_certificate_is_allowed(const struct pcmig_certificate *certificate, const struct pcmig_rules *rules,
                                  char error[PCMIG_TLS_ERROR_BYTES]);

#endif
