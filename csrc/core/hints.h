/* SPDX-License-Identifier: Apache-2.0 */
/* What to do about errors of libvirt and QEMU that name a symptom only. Pure. */
#ifndef PCMIG_CORE_HINTS_H
#define PCMIG_CORE_HINTS_H

/* A sentence on how to put MESSAGE, of what a libvirt was told to do, right, or NULL when there is none. Static. */
const char *pcmig_hint(const char *message);

/* The same for MESSAGE on a connection to libvirt of this process's own. */
const char *pcmig_hint_connecting(const char *message);

#endif
