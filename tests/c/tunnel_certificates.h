/* SPDX-License-Identifier: Apache-2.0 */
/* A CA, and a certificate of it for "localhost" and 127.0.0.1, good for a day, in files. Aborts when that does not
 * work. */
#ifndef PCMIG_TESTS_TUNNEL_CERTIFICATES_H
#define PCMIG_TESTS_TUNNEL_CERTIFICATES_H

void tunnel_certificates_make(const char *ca_path, const char *certificate_path, const char *key_path);

/* The same read in; the files are gone again. */
struct pcmig_tls *tunnel_certificates_tls(void);

#endif
