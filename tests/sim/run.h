/* SPDX-License-Identifier: Apache-2.0 */
/* Runs one scenario to its end. */
#ifndef TESTS_SIM_RUN_H
#define TESTS_SIM_RUN_H

#include "scenario.h"

#include <stdio.h>

/* Writes one line of "name=value" words: over all guests the worst silence, the mean arrival, the end of the last.
 * TRACE: a folder for the traces of pcmig's migrations, or NULL. Returns 0, or -1 when memory is short. */
int run_scenario(const struct scenario *s, const char *trace, FILE *out);

#endif
