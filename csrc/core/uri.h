/* SPDX-License-Identifier: Apache-2.0 */
/* The host in a URI of libvirt's (https://libvirt.org/uri.html) or of a migration: scheme://[user@][host][:port]/...
 * Pure; names are not looked up. */
#ifndef PCMIG_CORE_URI_H
#define PCMIG_CORE_URI_H

#include <stdbool.h>
#include <stddef.h>

/* Writes the host that URI names to HOST, without user, port and brackets. Returns whether there is one that fits into
 * SIZE bytes. */
bool pcmig_uri_host(const char *uri, char *host, size_t size);

/* Whether URI leads to the machine of whoever asks: NULL, one without a host, the loopback's, or OWN_NAME (NULL = not
 * known). An alias of libvirt's configuration, which has no "://", may lead anywhere: false. */
bool pcmig_uri_is_here(const char *uri, const char *own_name);

#endif
