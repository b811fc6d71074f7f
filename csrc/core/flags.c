/* SPDX-License-Identifier: Apache-2.0 */
#include "flags.h"

#include "flags_mistakes.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define V PCMIG_FLAGS_VERSION

/* Bits, versions and meaning: include/libvirt/libvirt-domain.h of libvirt 9.0.0 and 12.8.0, "Since:" of each constant.
 */
static const struct pcmig_flags_row rows[] = {
    {"LIVE", PCMIG_FLAG_LIVE, V(0, 3, 2), "The guest runs on while its memory is copied; without it, it is paused."},
    {"PEER2PEER", PCMIG_FLAG_PEER2PEER, V(0, 7, 2),
     "The source's libvirt connects to the destination's and steers; the client may go away."},
    {"TUNNELLED", PCMIG_FLAG_TUNNELLED, V(0, 7, 2),
     "Memory travels through libvirt's own connection; not possible with post-copy."},
    {"PERSIST_DEST", PCMIG_FLAG_PERSIST_DEST, V(0, 7, 3),
     "Defines the guest on the destination, so that it survives a stop."},
    {"UNDEFINE_SOURCE", PCMIG_FLAG_UNDEFINE_SOURCE, V(0, 7, 3),
     "Removes the guest's definition from the source after success."},
    {"PAUSED", PCMIG_FLAG_PAUSED, V(0, 7, 5), "Leaves the guest paused on the destination."},
    {"NON_SHARED_DISK", PCMIG_FLAG_NON_SHARED_DISK, V(0, 8, 2), "Copies whole disks that are not on shared storage."},
    {"NON_SHARED_INC", PCMIG_FLAG_NON_SHARED_INC, V(0, 8, 2),
     "Copies the top layer of disks whose backing files the destination has."},
    {"CHANGE_PROTECTION", PCMIG_FLAG_CHANGE_PROTECTION, V(0, 9, 4),
     "Forbids changes of the guest's definition meanwhile; peer-to-peer does so anyway."},
    {"UNSAFE", PCMIG_FLAG_UNSAFE, V(0, 9, 11), "Migrates although libvirt considers the disks' cache mode unsafe."},
    {"OFFLINE", PCMIG_FLAG_OFFLINE, V(1, 0, 1), "Moves only the definition; the guest itself stays where it is."},
    {"COMPRESSED", PCMIG_FLAG_COMPRESSED, V(1, 0, 3),
     "Compresses memory that is sent again (XBZRLE unless told otherwise)."},
    {"ABORT_ON_ERROR", PCMIG_FLAG_ABORT_ON_ERROR, V(1, 1, 0), "Cancels when the guest has a disk error meanwhile."},
    {"AUTO_CONVERGE", PCMIG_FLAG_AUTO_CONVERGE, V(1, 2, 3), "Slows the guest's CPUs down until pre-copy converges."},
    {"RDMA_PIN_ALL", PCMIG_FLAG_RDMA_PIN_ALL, V(1, 2, 9),
     "Locks all guest memory at once, with an rdma:// migrate URI."},
    {"POSTCOPY", PCMIG_FLAG_POSTCOPY, V(1, 3, 3), "Permits post-copy; the switch itself is a call of its own."},
    {"TLS", PCMIG_FLAG_TLS, V(3, 2, 0), "QEMU encrypts the migration with the host's certificates."},
    {"PARALLEL", PCMIG_FLAG_PARALLEL, V(5, 2, 0), "Sends memory over several connections (QEMU's multifd)."},
    {"NON_SHARED_SYNCHRONOUS_WRITES", PCMIG_FLAG_NON_SHARED_SYNCHRONOUS_WRITES, V(8, 0, 0),
     "Guest writes to copied disks wait for the destination, so that the copy converges."},
    {"POSTCOPY_RESUME", PCMIG_FLAG_POSTCOPY_RESUME, V(8, 5, 0), "Resumes a migration that broke off in post-copy."},
    {"ZEROCOPY", PCMIG_FLAG_ZEROCOPY, V(8, 5, 0),
     "Sends memory without copying it first (pages are locked meanwhile)."},
};

_Static_assert(sizeof(rows) / sizeof(rows[0]) == PCMIG_FLAGS_COUNT, "one row per flag");
_Static_assert(PCMIG_FLAG_ZEROCOPY == 1 << (PCMIG_FLAGS_COUNT - 1), "PCMIG_FLAGS_ALL covers the last flag");

/* Both come from the patches that brought post-copy to libvirt (2014). The bit that POSTCOPY_AFTER_PRECOPY had in them
 * is VIR_MIGRATE_TLS since libvirt 3.2.0, so only the name is known here and the bit is not. */
static const struct pcmig_flags_old_name old_names[] = {
    {"ENABLE_POSTCOPY", PCMIG_FLAG_POSTCOPY, NULL, "The name of POSTCOPY before libvirt took it in."},
    {"POSTCOPY_AFTER_PRECOPY", PCMIG_FLAG_POSTCOPY, "first-pass",
     "Post-copy after the first pass of pre-copy: a switchover policy today, no flag of libvirt."},
};

#define OLD_NAMES_COUNT (sizeof(old_names) / sizeof(old_names[0]))
#define PREFIX_LEN      (sizeof(PCMIG_FLAGS_PREFIX) - 1)
#define SHOWN_MAX       48 /* bytes of an unknown name that a message shows */
#define MISTAKES_MAX    3  /* kinds that a message tells of one name */
#define NEAR_MAX        64 /* longer tokens get no suggestion: the longest name with prefix has 41 characters */

const struct pcmig_flags_row *pcmig_flags_row(size_t index)
{
    return index < PCMIG_FLAGS_COUNT ? &rows[index] : NULL;
}

const struct pcmig_flags_old_name *pcmig_flags_old_name(size_t index)
{
    return index < OLD_NAMES_COUNT ? &old_names[index] : NULL;
}

/* <ctype.h> depends on the locale: under tr_TR toupper('i') need not be 'I'. */
static char upper(char c)
{
    return c >= 'a' && c <= 'z' ? (char)(c - 'a' + 'A') : c;
}

static bool is_separator(char c)
{
    return c == ',' || c == ' ' || (c >= '\t' && c <= '\r');
}

static bool equals(const char *token, size_t len, const char *name)
{
    if (strlen(name) != len)
        return false;
    for (size_t i = 0; i < len; i++) {
        if (upper(token[i]) != name[i])
            return false;
    }
    return true;
}

/* Length of the prefix that TOKEN begins with: PREFIX_LEN or 0. */
static size_t prefix_of(const char *token, size_t len)
{
    return len >= PREFIX_LEN && equals(token, PREFIX_LEN, PCMIG_FLAGS_PREFIX) ? PREFIX_LEN : 0;
}

static const struct pcmig_flags_row *row_of_bit(uint32_t bit)
{
    for (size_t i = 0; i < PCMIG_FLAGS_COUNT; i++) {
        if (rows[i].bit == bit)
            return &rows[i];
    }
    return NULL;
}

static void look_up(const char *token, size_t len, struct pcmig_flags_item *item)
{
    const size_t skip = prefix_of(token, len);

    item->row = NULL;
    item->old = NULL;
    for (size_t i = 0; i < PCMIG_FLAGS_COUNT; i++) {
        if (equals(token + skip, len - skip, rows[i].name)) {
            item->row = &rows[i];
            return;
        }
    }
    for (size_t i = 0; i < OLD_NAMES_COUNT; i++) {
        if (equals(token + skip, len - skip, old_names[i].name)) {
            item->old = &old_names[i];
            item->row = row_of_bit(old_names[i].bit);
            return;
        }
    }
}

int pcmig_flags_next(const char *text, size_t len, size_t *pos, struct pcmig_flags_item *item)
{
    size_t end;

    while (*pos < len && is_separator(text[*pos]))
        (*pos)++;
    if (*pos >= len)
        return 0;
    for (end = *pos; end < len && !is_separator(text[end]); end++)
        ;
    item->offset = *pos;
    item->len = end - *pos;
    item->number++;
    look_up(text + item->offset, item->len, item);
    *pos = end;
    return 1;
}

int pcmig_flags_parse(const char *text, size_t len, struct pcmig_flags *out, struct pcmig_flags_error *err)
{
    struct pcmig_flags flags = {0, NULL};
    struct pcmig_flags_item item = {0};
    size_t pos = 0;

    while (pcmig_flags_next(text, len, &pos, &item)) {
        if (item.row == NULL) {
            err->token = text + item.offset;
            err->len = item.len;
            err->offset = item.offset;
            err->item = item.number;
            err->suggestion = pcmig_flags_nearest(err->token, err->len);
            return -1;
        }
        flags.bits |= item.row->bit;
        if (item.old != NULL && item.old->policy != NULL)
            flags.policy = item.old->policy;
    }
    *out = flags;
    return 0;
}

static unsigned least(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

/* Edits that turn TOKEN (upper-cased) into NAME, both at most NEAR_MAX long: optimal string alignment, three rows of
 * the matrix at a time. */
static unsigned distance(const char *token, size_t token_len, const char *name, size_t name_len)
{
    unsigned matrix[3][NEAR_MAX + 1];

    for (size_t j = 0; j <= name_len; j++)
        matrix[0][j] = (unsigned)j;
    for (size_t i = 1; i <= token_len; i++) {
        const unsigned *before = matrix[(i + 1) % 3], *above = matrix[(i - 1) % 3];
        unsigned *here = matrix[i % 3];
        const char c = upper(token[i - 1]);

        here[0] = (unsigned)i;
        for (size_t j = 1; j <= name_len; j++) {
            here[j] = least(above[j - 1] + (c != name[j - 1]), least(above[j], here[j - 1]) + 1);
            if (i > 1 && j > 1 && c == name[j - 2] && upper(token[i - 2]) == name[j - 1])
                here[j] = least(here[j], before[j - 2] + 1);
        }
    }
    return matrix[token_len % 3][name_len];
}

/* As distance(), but lets TOKEN have a misspelt prefix: it is compared with and without one. */
static unsigned distance_any_prefix(const char *token, size_t len, bool stripped, const char *name)
{
    char full[NEAR_MAX + 1];
    const size_t name_len = strlen(name);
    unsigned plain = distance(token, len, name, name_len);

    if (stripped || len <= PREFIX_LEN || PREFIX_LEN + name_len > NEAR_MAX)
        return plain;
    memcpy(full, PCMIG_FLAGS_PREFIX, PREFIX_LEN);
    memcpy(full + PREFIX_LEN, name, name_len);
    return least(plain, distance(token, len, full, PREFIX_LEN + name_len));
}

const char *pcmig_flags_nearest(const char *token, size_t len)
{
    const size_t skip = prefix_of(token, len);
    const char *best = NULL;
    unsigned best_distance;

    token += skip;
    len -= skip;
    if (len == 0 || len > NEAR_MAX)
        return NULL;
    best_distance = (len < 6 ? 1 : (unsigned)len / 3) + 1;
    for (size_t i = 0; i < PCMIG_FLAGS_COUNT + OLD_NAMES_COUNT; i++) {
        const char *name = i < PCMIG_FLAGS_COUNT ? rows[i].name : old_names[i - PCMIG_FLAGS_COUNT].name;
        unsigned d = distance_any_prefix(token, len, skip > 0, name);

        if (d < best_distance) {
            best_distance = d;
            best = name;
        }
    }
    return best;
}

/* Appends to BUF, of SIZE bytes, as snprintf does, and counts all of it in *USED. */
__attribute__((format(printf, 4, 5))) static void add(char *buf, size_t size, size_t *used, const char *format, ...)
{
    va_list args;
    int n;

    va_start(args, format);
    n = *used < size ? vsnprintf(buf + *used, size - *used, format, args) : vsnprintf(NULL, 0, format, args);
    va_end(args);
    *used += n > 0 ? (size_t)n : 0;
}

/* ERR's token in quotes: bytes that are not printable are escaped, a long one is cut. */
static void add_token(char *buf, size_t size, size_t *used, const struct pcmig_flags_error *err)
{
    add(buf, size, used, "\"");
    for (size_t i = 0; i < err->len && i < SHOWN_MAX; i++) {
        const unsigned char c = (unsigned char)err->token[i];
        const bool plain = c > ' ' && c < 0x7f && c != '"' && c != '\\';

        add(buf, size, used, plain ? "%c" : "\\x%02x", c);
    }
    add(buf, size, used, "%s\"", err->len > SHOWN_MAX ? "..." : "");
}

/* What is wrong with the characters of ERR's token; returns how many kinds of mistakes were told. */
static unsigned add_mistakes(char *buf, size_t size, size_t *used, const struct pcmig_flags_error *err)
{
    const char *told[MISTAKES_MAX];
    struct pcmig_flags_mistake found;
    unsigned n = 0;
    size_t pos = 0;

    while (n < MISTAKES_MAX && pcmig_flags_mistake_next(err->token, err->len, &pos, &found)) {
        const size_t character = err->offset + pcmig_flags_characters(err->token, found.at) + 1;
        bool again = false;

        for (unsigned i = 0; i < n; i++)
            again = again || strcmp(told[i], found.what) == 0;
        if (again)
            continue;
        told[n++] = found.what;
        if (found.character == 0) {
            add(buf, size, used, ", ");
            add_token(buf, size, used, err);
            add(buf, size, used, " at character %zu, %s: %s", character, found.what, found.remedy);
        } else {
            add(buf, size, used, n == 1 ? " has %s (" : "; it has %s (", found.what);
            add(buf, size, used, found.character < 0x80 ? "%c" : "U+%04X", (unsigned)found.character);
            add(buf, size, used, ") at character %zu: %s", character, found.remedy);
        }
    }
    return n;
}

int pcmig_flags_error_describe(const struct pcmig_flags_error *err, char *buf, size_t size)
{
    size_t used = 0;

    add(buf, size, &used, "flag %u", err->item);
    if (add_mistakes(buf, size, &used, err) == 0) {
        add(buf, size, &used, ", ");
        add_token(buf, size, &used, err);
        add(buf, size, &used, " at character %zu, is no migration flag of libvirt", err->offset + 1);
        if (err->suggestion != NULL)
            add(buf, size, &used, ": did you mean %s%s?", PCMIG_FLAGS_PREFIX, err->suggestion);
    }
    return (int)used;
}

/* Appends TEXT at *USED as far as it fits, and counts all of it. */
static void append(char *buf, size_t size, size_t *used, const char *text)
{
    for (; *text != '\0'; text++, (*used)++) {
        if (*used + 1 < size)
            buf[*used] = *text;
    }
}

size_t pcmig_flags_render(uint32_t bits, char *buf, size_t size)
{
    size_t used = 0;

    for (size_t i = 0; i < PCMIG_FLAGS_COUNT; i++) {
        if (!(bits & rows[i].bit))
            continue;
        append(buf, size, &used, used > 0 ? ", " PCMIG_FLAGS_PREFIX : PCMIG_FLAGS_PREFIX);
        append(buf, size, &used, rows[i].name);
    }
    if (bits & ~PCMIG_FLAGS_ALL) {
        char hex[sizeof("0x00000000")];

        (void)snprintf(hex, sizeof(hex), "0x%x", (unsigned)(bits & ~PCMIG_FLAGS_ALL));
        append(buf, size, &used, used > 0 ? ", " : "");
        append(buf, size, &used, hex);
    }
    if (size > 0)
        buf[used < size ? used : size - 1] = '\0';
    return used;
}
