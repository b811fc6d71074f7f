/* One half of a guest, as one host sees it: during a migration there are two. Pure; edge/virt_domain.c fills it from
 * libvirt's states. */
#ifndef PCMIG_CORE_HALVES_H
#define PCMIG_CORE_HALVES_H

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

const char *pcmig_half_name(enum pcmig_half half); /* "postcopy-failed"; never NULL */

#endif
