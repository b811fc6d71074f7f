/* SPDX-License-Identifier: Apache-2.0 */
/* Whom this daemon is connected to, by certificate: what `peers` shows, and how much one of them may take. For any
 * thread. */
#ifndef PCMIG_TUNNEL_ADMISSION_ROSTER_H
#define PCMIG_TUNNEL_ADMISSION_ROSTER_H

#include "core/tunnel_tokens.h"
#include "tunnel/admission/certificate.h"

#include <stdbool.h>
#include <stdint.h>

struct pcmig_roster;
struct pcmig_roster_entry;

/* OF_ONE: connections with one certificate that are accepted at once. PACE: how often one may come. NULL when memory is
 * short. */
struct pcmig_roster *pcmig_roster_new(unsigned of_one, struct pcmig_pace pace);
void pcmig_roster_free(struct pcmig_roster *roster); /* NULL is fine */

/* One more connection with CERTIFICATE, at ADDRESS. NULL when there are as many as it may have, or memory is short.
 * MODERATE: whether it has come as often as the pace lets it, and no more; a host has as many addresses as it likes. */
struct pcmig_roster_entry *pcmig_roster_enter(struct pcmig_roster *roster, const struct pcmig_certificate *certificate,
                                              const char *address, bool has_dialled, bool *moderate);

/* An accepted connection whose stream is over stays a moment, for its last bytes to be read: another may come in its
 * place. False when as many stay already as may be connected: then it counts as connected for that moment as well. */
bool pcmig_roster_stay(struct pcmig_roster *roster, struct pcmig_roster_entry *entry);

/* One less. An ENTRY of NULL is fine. STAYED: pcmig_roster_stay has counted it. */
void pcmig_roster_leave(struct pcmig_roster *roster, struct pcmig_roster_entry *entry, bool has_dialled, bool stayed);

/* " fingerprint=... subject=... ..." for each, those with a connection first; values as core/tunnel_request.h escapes
 * them. To be free()d; NULL when memory is short. */
char *pcmig_roster_list(struct pcmig_roster *roster);

#endif
