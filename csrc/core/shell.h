/* SPDX-License-Identifier: Apache-2.0 */
/* Commands for people to paste into a shell. Pure.
 *
 * Whatever a name or a URI holds, the shell takes it for one word, and no program takes it for an option or another
 * guest.
 */
#ifndef PCMIG_CORE_SHELL_H
#define PCMIG_CORE_SHELL_H

#include <stdbool.h>
#include <stddef.h>

/* Writes WORD as a POSIX shell reads it back, in quotes where it needs them, always terminated and cut to SIZE. Returns
 * the length that it takes without its NUL, as snprintf does. */
size_t pcmig_shell_quote(const char *word, char *out, size_t size);

/* Writes the COUNT words of a command, quoted, with blanks between them; those that are NULL are left out. Returns
 * whether it fitted: a command is whole, or OUT is "". */
bool pcmig_shell_command(const char *const *words, size_t count, char *out, size_t size);

/* How to name a guest in a command: its name, or its UUID where the name could be taken for an option, an id or a UUID,
 * or cannot be typed. */
const char *pcmig_shell_guest(const char *name, const char *uuid);

#endif
