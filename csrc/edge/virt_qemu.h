/* SPDX-License-Identifier: Apache-2.0 */
/* What only QEMU itself can say or do, through libvirt's way to its monitor. libvirt marks a guest whose monitor was
 * used
 * ("custom-monitor" in its log), so it is asked where no other witness is left. Needs virDomainQemuMonitorCommand
 * (libvirt >= 0.8.2, a connection that may write). */
#ifndef PCMIG_EDGE_VIRT_QEMU_H
#define PCMIG_EDGE_VIRT_QEMU_H

#include "core/turn_back.h"
#include "edge/virt.h"

/* The status of the guest's latest outgoing migration in QEMU's words ("none", "active", "cancelled", ...), and the
 * bytes that it has sent, -1 = it does not say. Reads only. Returns 0, or -1 with ERROR. */
int pcmig_virt_qemu_migration(struct pcmig_virt_domain *domain, char *out, size_t size, int64_t *sent_bytes,
                              struct pcmig_virt_error *error);

/* What the guest's QEMU, at the destination, has counted of page requests: 1 and OUT, 0 = it counted none, -1 with
 * ERROR. While the guest comes in libvirt lets nobody at its monitor. */
int pcmig_virt_qemu_latency(struct pcmig_virt_domain *domain, struct pcmig_latency_figures *out,
                            struct pcmig_virt_error *error);

/* Has QEMU pause an outgoing post-copy whose stream is dead or stands still, where libvirt calls it paused already and
 * so does not pass that on. QEMU keeps what it has, and waits to be resumed. Returns 0, or -1 with ERROR. */
int pcmig_virt_qemu_pause(struct pcmig_virt_domain *domain, struct pcmig_virt_error *error);

/* What turning back (core/turn_back.h) needs to know of the source's QEMU. */
struct pcmig_virt_turn_back {
    char run_state[32]; /* "finish-migrate" */
    char migration[32]; /* "postcopy-paused" */
    struct pcmig_turn_back_stream stream;
    unsigned long qemu;   /* version, major * 1000000 + minor * 1000 + micro */
    bool discards_memory; /* capability release-ram */
};

enum pcmig_turn_back_half pcmig_virt_turn_back_half(const struct pcmig_virt_turn_back *seen);

/* Reads only. Returns 0, or -1 with ERROR. */
int pcmig_virt_turn_back_look(struct pcmig_virt_domain *domain, struct pcmig_virt_turn_back *out,
                              struct pcmig_virt_error *error);

/* Lets the guest go on at the source, from the moment of the switch: pauses the stream where QEMU does not know yet
 * that it is broken, takes the disks back (QEMU >= 10.0), and has the processors run through QEMU's gdb stub, which is
 * there for that moment only. Every step is looked at before the next; what was done already is not done again, so
 * whoever was killed in the middle calls it again: a stub that he left open is closed, and a guest that had gone on and
 * was stopped goes on.
 *
 * Nobody may call this who has not asked core/guard.h and core/turn_back.h.
 *
 * Returns 0 when the guest runs and no stub of it is open, or -1 with ERROR. STEPS, SIZE bytes, is what was done, in
 * words, a line each. */
int pcmig_virt_turn_back(struct pcmig_virt_domain *domain, char *steps, size_t size, struct pcmig_virt_error *error);

#endif
