/* SPDX-License-Identifier: Apache-2.0 */
/* Whether a guest keeps anything in files, by its definition. Pure. */
#ifndef PCMIG_CORE_DOMAIN_FILES_H
#define PCMIG_CORE_DOMAIN_FILES_H

#include <stdbool.h>

/* XML: of virDomainGetXMLDesc, as libvirt's own writer has it, or NULL, of which nothing is known. Disks in files or
 * perhaps in files, NVDIMMs, the variables of its firmware, the state of its TPM: what may lie where its other host has
 * it, too. */
bool pcmig_domain_files(const char *xml);

#endif
