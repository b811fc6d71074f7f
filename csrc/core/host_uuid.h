/* SPDX-License-Identifier: Apache-2.0 */
/* By what a host is known again, whatever its address: the UUID that libvirt tells of it. Pure. */
#ifndef PCMIG_CORE_HOST_UUID_H
#define PCMIG_CORE_HOST_UUID_H

#include <stdbool.h>

#define PCMIG_HOST_UUID_SIZE 37 /* with its terminator */

/* CAPABILITIES: of virConnectGetCapabilities, <capabilities><host><uuid>...</uuid>, as libvirt's own writer has it
 * (virCapabilitiesFormatHost: first in <host>, which is first in the document), or NULL. Returns whether there is one;
 * OUT is "" otherwise. */
bool pcmig_host_uuid(const char *capabilities, char out[PCMIG_HOST_UUID_SIZE]);

#endif
