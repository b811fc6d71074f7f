/* SPDX-License-Identifier: Apache-2.0 */
/* Kernel TLS for what is sent (Linux >= 4.13, module `tls`; TLS 1.3 since 5.1; ChaCha20-Poly1305 since 5.11): the
 * kernel makes the records of what is written to the socket, as RFC 8446 has them, with no copy more than a plain
 * socket makes. */
#ifndef PCMIG_TUNNEL_KERNEL_TLS_H
#define PCMIG_TUNNEL_KERNEL_TLS_H

#include "tunnel/records.h"

#include <stdbool.h>

/* From now on what is written to FD, a connected TCP socket to which nothing was sent under KEYS, is plaintext for the
 * kernel. SUITE: the second half of the suite's number (RFC 8446, B.4). *RENEWS: whether the kernel takes new keys
 * later (Linux >= 6.14). False when it does not have it, or not for that suite: then nothing has changed. */
bool pcmig_kernel_tls_begin(int fd, unsigned suite, const struct pcmig_record_keys *keys, bool *renews);

/* Sends the LEN bytes of a handshake's MESSAGE as one record. False when the socket has no room for it now, or is
 * broken. */
bool pcmig_kernel_tls_say(int fd, const unsigned char *message, size_t len);

/* What is written after this is protected with KEYS, from record 0. False when the kernel does not take them. */
bool pcmig_kernel_tls_renew(int fd, unsigned suite, const struct pcmig_record_keys *keys);

#endif
