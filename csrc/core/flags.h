/* SPDX-License-Identifier: Apache-2.0 */
/* libvirt's migration flags: their names, bits and meaning, and the text that nova.conf's `live_migration_flag` holds.
 *
 * Bits are libvirt's virDomainMigrateFlags (include/libvirt/libvirt-domain.h), from libvirt 8.0.0 to 12.8.0. They are
 * written out here, so that this file needs no libvirt; csrc/edge/flags_check.c compares them at compile time.
 *
 * Versions are numbers as libvirt gives them: major * 1000000 + minor * 1000 + micro.
 * Pure: no allocation, no locale, no libvirt. Text is bytes with a length, and may hold NUL.
 */
#ifndef PCMIG_CORE_FLAGS_H
#define PCMIG_CORE_FLAGS_H

#include <stddef.h>
#include <stdint.h>

#define PCMIG_FLAGS_PREFIX                       "VIR_MIGRATE_"
#define PCMIG_FLAGS_MESSAGE_MAX                  1024 /* bytes of a message, with the final NUL */
#define PCMIG_FLAGS_VERSION(major, minor, micro) ((uint32_t)((major)*1000000 + (minor)*1000 + (micro)))

enum pcmig_flag {
    PCMIG_FLAG_LIVE = 1 << 0,
    PCMIG_FLAG_PEER2PEER = 1 << 1,
    PCMIG_FLAG_TUNNELLED = 1 << 2,
    PCMIG_FLAG_PERSIST_DEST = 1 << 3,
    PCMIG_FLAG_UNDEFINE_SOURCE = 1 << 4,
    PCMIG_FLAG_PAUSED = 1 << 5,
    PCMIG_FLAG_NON_SHARED_DISK = 1 << 6,
    PCMIG_FLAG_NON_SHARED_INC = 1 << 7,
    PCMIG_FLAG_CHANGE_PROTECTION = 1 << 8,
    PCMIG_FLAG_UNSAFE = 1 << 9,
    PCMIG_FLAG_OFFLINE = 1 << 10,
    PCMIG_FLAG_COMPRESSED = 1 << 11,
    PCMIG_FLAG_ABORT_ON_ERROR = 1 << 12,
    PCMIG_FLAG_AUTO_CONVERGE = 1 << 13,
    PCMIG_FLAG_RDMA_PIN_ALL = 1 << 14,
    PCMIG_FLAG_POSTCOPY = 1 << 15,
    PCMIG_FLAG_TLS = 1 << 16,
    PCMIG_FLAG_PARALLEL = 1 << 17,
    PCMIG_FLAG_NON_SHARED_SYNCHRONOUS_WRITES = 1 << 18,
    PCMIG_FLAG_POSTCOPY_RESUME = 1 << 19,
    PCMIG_FLAG_ZEROCOPY = 1 << 20,
};

#define PCMIG_FLAGS_COUNT 21
#define PCMIG_FLAGS_ALL   ((UINT32_C(1) << PCMIG_FLAGS_COUNT) - 1) /* every bit that the table knows */

/* One flag of libvirt. */
struct pcmig_flags_row {
    const char *name; /* without prefix: "POSTCOPY" */
    uint32_t bit;
    uint32_t since;  /* the libvirt version that introduced it */
    const char *doc; /* one sentence */
};

/* A name that was used once and is no flag of libvirt today. */
struct pcmig_flags_old_name {
    const char *name;   /* without prefix: "POSTCOPY_AFTER_PRECOPY" */
    uint32_t bit;       /* the flag it stands for today; never the bit it had then */
    const char *policy; /* the switchover policy it stands for, as pcmig_policy_parse takes it; NULL = none */
    const char *doc;    /* one sentence */
};

/* What a text says. */
struct pcmig_flags {
    uint32_t bits;      /* for libvirt */
    const char *policy; /* from an old name, e.g. "first-pass"; NULL = the text says nothing about it */
};

/* One name in a text. */
struct pcmig_flags_item {
    size_t offset;                          /* bytes from the start of the text */
    size_t len;                             /* bytes */
    unsigned number;                        /* 1 is the first name; empty items do not count */
    const struct pcmig_flags_row *row;      /* the flag it means; NULL = the name is not known */
    const struct pcmig_flags_old_name *old; /* not NULL: it was given by this old name */
};

struct pcmig_flags_error {
    const char *token;      /* the unknown name as given, in the caller's text; not terminated */
    size_t len;             /* its length in bytes */
    size_t offset;          /* bytes from the start of the text */
    unsigned item;          /* 1 is the first name */
    const char *suggestion; /* the nearest known name, without prefix; NULL = none is near */
};

/* The rows by ascending bit, INDEX below PCMIG_FLAGS_COUNT; NULL above. */
const struct pcmig_flags_row *pcmig_flags_row(size_t index);

/* The old names; NULL when INDEX is past the last one. */
const struct pcmig_flags_old_name *pcmig_flags_old_name(size_t index);

/* Finds the next name in TEXT (LEN bytes) at or after *POS and moves *POS past it. Names are separated by commas and
 * white space, also by several or with none between two commas; case does not matter, nor does the prefix VIR_MIGRATE_.
 * ITEM's number is counted up from what it was, so start with `*pos = 0` and an ITEM of zeros. Returns 1, or 0 at the
 * end. */
int pcmig_flags_next(const char *text, size_t len, size_t *pos, struct pcmig_flags_item *item);

/* Reads a whole TEXT into OUT. Returns 0, or -1 at the first unknown name with ERR filled in (OUT is then unchanged).
 * The same name twice is fine. OUT->bits only ever has bits of PCMIG_FLAGS_ALL. */
int pcmig_flags_parse(const char *text, size_t len, struct pcmig_flags *out, struct pcmig_flags_error *err);

/* The known name (old ones too, without prefix) that is nearest to TOKEN by edit distance (insert, delete, replace,
 * swap neighbours), or NULL when none is near: at most a third of the token may differ, one character in short ones. */
const char *pcmig_flags_nearest(const char *token, size_t len);

/* A sentence about ERR for people, ASCII only. Characters that no flag has, a comma left out and the option's name
 * pasted along are named as what they are (flags_mistakes.h), else the name is shown: bytes that are not printable are
 * escaped, long tokens are cut. Returns its length as snprintf does, below PCMIG_FLAGS_MESSAGE_MAX. ERR->offset counts
 * in what the caller's positions count in. */
int pcmig_flags_error_describe(const struct pcmig_flags_error *err, char *buf, size_t size);

/* BITS as names that pcmig_flags_parse reads: "VIR_MIGRATE_LIVE, VIR_MIGRATE_POSTCOPY". Bits without a name follow as
 * one hexadecimal number, which does not read back. Writes at most SIZE bytes with the final NUL; returns the length of
 * the whole, as snprintf does. */
size_t pcmig_flags_render(uint32_t bits, char *buf, size_t size);

#endif
