/* SPDX-License-Identifier: Apache-2.0 */
/* What only QEMU itself can say, through libvirt's way to its monitor. */
#ifndef PCMIG_EDGE_VIRT_QEMU_H
#define PCMIG_EDGE_VIRT_QEMU_H

#include "edge/virt.h"

/* The status of the guest's latest outgoing migration in QEMU's words ("none", "active", "cancelled", ...). Reads only;
 * but libvirt marks a guest whose monitor was used ("custom-monitor" in its log), so it is asked where no other witness
 * is left. Returns 0, or -1 with ERROR. Needs virDomainQemuMonitorCommand (libvirt >= 0.8.2, a connection that may
 * write). */
int pcmig_virt_qemu_migration(struct pcmig_virt_domain *domain, char *out, size_t size, struct pcmig_virt_error *error);

#endif
