/* SPDX-License-Identifier: Apache-2.0 */
/* Words of somebody else's in one line of ours. Pure. */
#ifndef PCMIG_CORE_EXCERPT_H
#define PCMIG_CORE_EXCERPT_H

#include <stddef.h>

/* Writes TEXT to OUT in one line: what is not printable, and frames such as "@@@@@@@@", are a space each. What is
 * longer than SIZE - 1 bytes lacks its middle: a program such as ssh says the reason last, after banners and warnings.
 * SIZE is at least 16. */
void pcmig_excerpt(const char *text, char *out, size_t size);

#endif
