/* SPDX-License-Identifier: Apache-2.0 */
/* The half that a migration was filling at the destination when it was cancelled. */
#ifndef PCMIG_ENGINE_EMPTY_HALF_H
#define PCMIG_ENGINE_EMPTY_HALF_H

#include "edge/virt.h"

/* Whether the half at the DESTINATION is empty and may be removed: the guest never left the SOURCE, as both hosts say
 * now, in this order, and the guard permits it. ERROR says why not. */
bool pcmig_empty_half_may(enum pcmig_half source, enum pcmig_half destination, struct pcmig_virt_error *error);

/* Removes the half at DESTINATION if it may be.
 *
 * For a migration that libvirt took a cancellation of, and that does not end: told to cancel in the moment at which it
 * begins, QEMU 11.1 may wait for its own other end for ever, and the guest with it; without that end it goes on. The
 * cancellation is what makes it sure. QEMU answered it while the guest ran at the source, and no way leads from its
 * state "cancelling" to one in which the guest leaves (QEMU 5.2 to 11, migration.c). Returns whether it was removed. */
bool pcmig_empty_half_remove(struct pcmig_virt_conn *source, struct pcmig_virt_conn *destination, const char *uuid,
                             struct pcmig_virt_error *error);

#endif
