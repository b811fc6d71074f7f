/* SPDX-License-Identifier: Apache-2.0 */
/* What QEMU itself says of an outgoing migration: the answer to its monitor's query-migrate. Pure. Facts: QEMU 5.2 to
 * 11, qapi/migration.json, migration/migration.c. */
#ifndef PCMIG_CORE_QEMU_MIGRATION_H
#define PCMIG_CORE_QEMU_MIGRATION_H

#include <stdbool.h>
#include <stddef.h>

/* Reads the status out of ANSWER, LEN bytes of JSON: {"return": {"status": "active", ...}, ...} gives "active", and
 * {"return":
 * {}}, as QEMU says before its first migration, gives "none". Returns 0, or -1 when ANSWER is nothing of the kind or
 * the status does not fit into OUT with its terminator. */
int pcmig_qemu_migration_status(const char *answer, size_t len, char *out, size_t size);

/* Whether a QEMU with this status is done with its migration and has kept the guest: it got neither to the end of
 * pre-copy nor to the start of post-copy, before which libvirt lets no processor run at the destination. */
bool pcmig_qemu_migration_kept(const char *status);

#endif
