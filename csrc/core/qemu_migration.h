/* SPDX-License-Identifier: Apache-2.0 */
/* What QEMU itself says of an outgoing migration and of what stands around it: answers of its monitor. Pure. Facts:
 * QEMU 5.2 to 11.1, qapi/migration.json, run-state.json, char.json, monitor/hmp-cmds.c. ANSWER is LEN bytes of JSON. */
#ifndef PCMIG_CORE_QEMU_MIGRATION_H
#define PCMIG_CORE_QEMU_MIGRATION_H

#include "core/input.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Reads the status out of an answer to query-migrate: {"return": {"status": "active", ...}, ...} gives "active", and
 * {"return": {}}, as QEMU says before its first migration, gives "none". Returns 0, or -1 when ANSWER is nothing of the
 * kind or the status does not fit into OUT with its terminator. */
int pcmig_qemu_migration_status(const char *answer, size_t len, char *out, size_t size);

/* Whether a QEMU with this status is done with its migration and has kept the guest: it got neither to the end of
 * pre-copy nor to the start of post-copy, before which libvirt lets no processor run at the destination. */
bool pcmig_qemu_migration_kept(const char *status);

/* Whether it is just switching to post-copy (QEMU >= 10.2): there is no stream to resume yet. */
bool pcmig_qemu_migration_switches(const char *status);

/* Whether a QEMU with this status has sent all of its guest, and has the destination's word that it came. */
bool pcmig_qemu_migration_completed(const char *status);

/* Whether a QEMU with this status takes its post-copy for one that flows, or is in the handshake of a resume: it can be
 * told to pause it. */
bool pcmig_qemu_migration_sends(const char *status);
/* Whether it is in post-copy, and waits to be resumed. */
bool pcmig_qemu_migration_waits(const char *status);

/* Of the same answer, a number of its "ram", as "remaining" (memory still to be sent, in bytes), "transferred" or
 * "postcopy-requests". -1 = it does not say, as of a migration that comes in. */
int64_t pcmig_qemu_migration_ram(const char *answer, size_t len, const char *name);

/* Of the same answer, of a migration that came in: 1 and OUT, 0 = page requests were not counted (capability
 * postcopy-blocktime, QEMU >= 10.1), -1 = ANSWER is nothing of the kind. */
int pcmig_qemu_migration_latency(const char *answer, size_t len, struct pcmig_latency_figures *out);

/* query-status: "running", "finish-migrate", ... Returns 0 or -1. */
int pcmig_qemu_run_state(const char *answer, size_t len, char *out, size_t size);

/* query-version: major * 1000000 + minor * 1000 + micro; 0 = it does not say. */
unsigned long pcmig_qemu_version(const char *answer, size_t len);

/* query-migrate-capabilities: 1 = on, 0 = off or not known to this QEMU, -1 = ANSWER is nothing of the kind. */
int pcmig_qemu_capability(const char *answer, size_t len, const char *name);

/* query-chardev: the folder with the socket of libvirt's monitor, which libvirt makes for each guest and lets that
 * guest's QEMU write to. Returns 0 or -1. */
int pcmig_qemu_monitor_folder(const char *answer, size_t len, char *out, size_t size);

/* human-monitor-command: what it printed. Returns 0 or -1. */
int pcmig_qemu_text(const char *answer, size_t len, char *out, size_t size);

/* Whether QEMU did the command; whether it refused, and why ("" = it does not say). Neither: no answer of QEMU's. */
bool pcmig_qemu_done(const char *answer, size_t len);
bool pcmig_qemu_refused(const char *answer, size_t len, char *out, size_t size);

#endif
