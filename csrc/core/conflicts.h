/* SPDX-License-Identifier: Apache-2.0 */
/* Which migration flags do not go together, and what to do about it: one row per rule, with its source in conflicts.c.
 *
 * Pure: bits and versions in, findings out. Versions are numbers as libvirt gives them (PCMIG_FLAGS_VERSION), both for
 * libvirt and for QEMU; 0 = not known.
 */
#ifndef PCMIG_CORE_CONFLICTS_H
#define PCMIG_CORE_CONFLICTS_H

#include "flags.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum pcmig_conflicts_severity {
    PCMIG_CONFLICTS_WARNING = 0, /* works, but hardly as meant */
    PCMIG_CONFLICTS_ERROR = 1,   /* libvirt or QEMU refuses it, or the guest comes to harm */
};

enum pcmig_conflicts_user {
    PCMIG_CONFLICTS_ANYONE = 0,
    PCMIG_CONFLICTS_NOVA,     /* only for flags that Nova is to use */
    PCMIG_CONFLICTS_NOT_NOVA, /* only for others: for Nova another row says it better */
};

/* What the flags are for. All zeros: nothing is known, and it is not Nova. */
struct pcmig_conflicts_context {
    uint32_t qemu_version;    /* the older one of the two hosts */
    uint32_t libvirt_version; /* the older one of the two hosts */
    bool nova;                /* the flags are Nova's `live_migration_flag` */
};

/* A rule holds when all of `all`, at least one of `any` (unless that is 0) and none of `none` are set, for this user
 * and these versions. */
struct pcmig_conflicts_row {
    const char *name; /* "postcopy-tunnelled" */
    uint32_t all;
    uint32_t any;
    uint32_t none;
    enum pcmig_conflicts_user user;
    enum pcmig_conflicts_severity severity;
    uint32_t qemu_before;    /* only with a QEMU older than this; 0 = with any */
    uint32_t libvirt_from;   /* only with a libvirt from this version ... */
    uint32_t libvirt_before; /* ... and older than this; 0 = with any */
    uint32_t add;            /* the bits that make it right, */
    uint32_t drop;           /* added and taken away */
    const char *problem;     /* what is wrong */
    const char *remedy;      /* what to do */
};

struct pcmig_conflicts_finding {
    enum pcmig_conflicts_severity severity;
    uint32_t bits;                         /* the flags it is about, set or missing */
    uint32_t since;                        /* not 0: the flag is newer than the libvirt of the context */
    bool uncertain;                        /* it depends on the version of QEMU, which is not known */
    const struct pcmig_conflicts_row *row; /* NULL: newer than libvirt (`since`), or bits of no flag at all */
};

#define PCMIG_CONFLICTS_MAX 64 /* room that is enough for any set of flags */

/* The rows, errors first; NULL when INDEX is past the last one. */
const struct pcmig_conflicts_row *pcmig_conflicts_row(size_t index);

/* Writes what is wrong with BITS into FOUND, room for PCMIG_CONFLICTS_MAX, errors first. Returns how many there are. A
 * rule that depends on the version of QEMU is a warning, and uncertain, when that is not known; one that depends on the
 * version of libvirt holds only when that is known. */
size_t pcmig_conflicts_check(uint32_t bits, const struct pcmig_conflicts_context *context,
                             struct pcmig_conflicts_finding *found);

/* BITS with every finding's remedy applied, except uncertain ones: what is left has no error, whatever BITS was. */
uint32_t pcmig_conflicts_resolve(uint32_t bits, const struct pcmig_conflicts_context *context);

/* FINDING as one line for people: the problem, then what to do. Returns its length as snprintf does. */
int pcmig_conflicts_describe(const struct pcmig_conflicts_finding *finding,
                             const struct pcmig_conflicts_context *context, char *buf, size_t size);

#endif
