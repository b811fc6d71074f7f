/* SPDX-License-Identifier: Apache-2.0 */
/* Settings and certificates that are in force together. A reload replaces all of them at once: whoever holds some keeps
 * what it has, and asks pcmig_tunnel_rules for the present ones. They never change. For any thread. */
#ifndef PCMIG_TUNNEL_RULES_H
#define PCMIG_TUNNEL_RULES_H

#include "tunnel/tls/tls.h"
#include "tunnel/tunnel.h"

#include <stdatomic.h>

struct pcmig_rules {
    atomic_uint references;
    struct pcmig_tunnel_config config; /* strings are copies */
    struct pcmig_tls *tls;             /* NULL in plaintext */
};

/* Checks CONFIG and reads the certificates. NULL with a sentence in ERROR. One reference is the caller's. */
struct pcmig_rules *pcmig_rules_new(const struct pcmig_tunnel_config *config, char error[PCMIG_TUNNEL_ERROR_BYTES]);
struct pcmig_rules *pcmig_rules_ref(struct pcmig_rules *rules);
void pcmig_rules_unref(struct pcmig_rules *rules); /* NULL is fine */

#endif
