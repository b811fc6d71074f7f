/* SPDX-License-Identifier: Apache-2.0 */
/* The two halves of a guest that is migrated, as their hosts see them, and what else is known. Pure; edge/virt_domain.c
 * makes a half from libvirt's states. */
#ifndef PCMIG_CORE_HALVES_H
#define PCMIG_CORE_HALVES_H

#include <stdbool.h>
#include <stddef.h>

enum pcmig_half {
    PCMIG_HALF_UNKNOWN = 0,     /* the host could not be asked */
    PCMIG_HALF_ABSENT,          /* not known there, or defined but shut off */
    PCMIG_HALF_RUNNING,         /* running, all of its memory here */
    PCMIG_HALF_PAUSED,          /* paused by a user, for I/O, ...: all of its memory here */
    PCMIG_HALF_MIGRATING,       /* paused for a migration that is under way */
    PCMIG_HALF_POSTCOPY,        /* in post-copy: runs here with pages missing, or waits here as their source */
    PCMIG_HALF_POSTCOPY_FAILED, /* post-copy was interrupted; neither half is complete */
    PCMIG_HALF_DEAD,            /* crashed or shutting down */
    PCMIG_HALF_COUNT
};

/* The two hosts of a migration. Everything there is one of for each of them stands in this order. */
enum pcmig_side { PCMIG_SIDE_SOURCE = 0, PCMIG_SIDE_DESTINATION, PCMIG_SIDE_COUNT };

const char *pcmig_half_name(enum pcmig_half half); /* "postcopy-failed"; never NULL */

/* The half of this name of LEN characters, or -1. */
int pcmig_half_find(const char *name, size_t len);

/* What is known when somebody asks how a migration stands. The source is to be asked first: it gives its half up only
 * after the destination has confirmed that it is whole, so the other order may see a half vanish that did not. */
struct pcmig_evidence {
    enum pcmig_half source;
    enum pcmig_half destination;
    bool call_succeeded;    /* the migrate call returned success */
    bool source_handed_off; /* the source said STOPPED/MIGRATED */
    bool source_completed;  /* QEMU at the source says of its migration "completed": all was sent, and taken there */
    bool job_active;        /* the source has statistics of a running migration: the call may be lost, the job is not */
    bool job_absent;        /* the source answered that it runs no migration; neither of the two: it could not tell */
    bool in_flight;         /* a migration between these two is on record, and how it ended is not */
    bool crossed; /* the switch to post-copy was issued, or the guest was seen beyond it: whatever the halves say,
                               the source's memory may be the older */
    bool source_shut_down; /* the source says that the guest was shut down there: no crash, not destroyed, not moved */
    bool destination_shut_down;
    /* The migration copied disks: once the guest has switched, the destination's are the newer ones. */
    bool disks_copied;
    /* The guest was let go on at the source after the switch, in the very QEMU that is there: it turned back. */
    bool turned_back;
};

#endif
