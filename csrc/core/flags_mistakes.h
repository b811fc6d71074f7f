/* SPDX-License-Identifier: Apache-2.0 */
/* What is wrong with an unknown flag beyond its not being known: a character that no flag has, and how the line got
 * here. Seen in files of others: values in quotes of all kinds, copied from web pages, cut out of shell scripts,
 * templates that never ran. Nothing is guessed: each is told by the character that is there. Pure, like flags.h, whose
 * part it is. */
#ifndef PCMIG_CORE_FLAGS_MISTAKES_H
#define PCMIG_CORE_FLAGS_MISTAKES_H

#include <stddef.h>
#include <stdint.h>

struct pcmig_flags_mistake {
    size_t at;          /* bytes from the token's start; 0 where it concerns the whole token */
    uint32_t character; /* Unicode; 0 where it concerns the whole token */
    const char *what;   /* "a full-width comma", or "begins with the option's name" */
    const char *remedy; /* "write a plain comma" */
};

/* Finds the next mistake in TOKEN at or after *POS, and moves *POS past it. Returns 1, or 0 at the end. */
int pcmig_flags_mistake_next(const char *token, size_t len, size_t *pos, struct pcmig_flags_mistake *found);

/* Characters in LEN bytes of UTF-8 TEXT; of bytes that are none, each that could begin one counts. */
size_t pcmig_flags_characters(const char *text, size_t len);

#endif
