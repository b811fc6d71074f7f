/* SPDX-License-Identifier: Apache-2.0 */
/* Names of what the core is told, as they stand in traces, in the ledger and in JSON: one table each.
 *
 * Names of actions, reasons and policies are the policy's, see policy.h. */
#ifndef PCMIG_CORE_NAMES_H
#define PCMIG_CORE_NAMES_H

#include "core/input.h"

#include <stddef.h>
#include <stdint.h>

/* "sample", "dst-resumed-postcopy", "switch"; "unknown" for a value outside the enum, never NULL. */
const char *pcmig_names_input_kind(int64_t kind);
const char *pcmig_names_event(int64_t event);
const char *pcmig_names_request(int64_t request);
const char *pcmig_names_turn(int64_t turn);

/* The value behind a NAME of LEN characters (no terminating NUL needed), or -1. */
int pcmig_names_find_input_kind(const char *name, size_t len);
int pcmig_names_find_event(const char *name, size_t len);
int pcmig_names_find_request(const char *name, size_t len);
int pcmig_names_find_turn(const char *name, size_t len);

/* The same for any TABLE of COUNT names that stand at their values. */
int pcmig_names_find(const char *const *table, size_t count, const char *name, size_t len);

/* One unsigned figure of struct pcmig_sample, i.e. all but queue_bytes. */
struct pcmig_names_field {
    const char *name; /* the member's */
    size_t offset;    /* of the uint64_t within struct pcmig_sample */
};

#define PCMIG_NAMES_FIELD_COUNT 18

/* Field 0 .. PCMIG_NAMES_FIELD_COUNT - 1; NULL beyond. */
const struct pcmig_names_field *pcmig_names_field(size_t index);

#endif
