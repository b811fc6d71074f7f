/* SPDX-License-Identifier: Apache-2.0 */
/* Reads JSON that somebody else wrote, without making anything of what is not asked for. Pure; nothing is copied but
 * what the caller asks for, and whatever does not fit what is expected is refused. */
#ifndef PCMIG_CORE_JSON_H
#define PCMIG_CORE_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Where reading goes on. */
struct pcmig_json {
    const char *at;
    const char *end;
};

/* Goes into an object, to the value of this name. Returns 1 with J before it, 0 when the object has none, -1 when it is
 * no object. */
int pcmig_json_enter(struct pcmig_json *j, const char *name);

/* Goes to the next element of an array: FIRST with J before the array, otherwise behind an element. Returns 1 with J
 * before the element, 0 behind the last one, -1 when it is no array. */
int pcmig_json_next(struct pcmig_json *j, bool first);

/* Goes past a value of whatever kind. */
bool pcmig_json_skip(struct pcmig_json *j);

/* Read a value, and go past it. A string with escapes is written out as UTF-8; one that does not fit into SIZE with its
 * terminator, or has a NUL in it, is none. */
bool pcmig_json_string(struct pcmig_json *j, char *out, size_t size);
bool pcmig_json_natural(struct pcmig_json *j, int64_t *out); /* a whole number, not negative */
bool pcmig_json_bool(struct pcmig_json *j, bool *out);

#endif
