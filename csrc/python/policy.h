/* SPDX-License-Identifier: Apache-2.0 */
/* What other binding files need of policies. */
#ifndef PCMIG_PYTHON_POLICY_H
#define PCMIG_PYTHON_POLICY_H

#include "core/policy.h"
#include "python/state.h"

/* Sets PARAMS from a dict of name -> int. Returns 0, or -1 with TypeError or PolicyError. */
int pcmig_params_update(PyObject *module, struct pcmig_params *params, PyObject *dict);

/* As pcmig_policy_parse. Returns 0, or -1 with PolicyError. */
int pcmig_policy_from_text(PyObject *module, const char *text, size_t len, enum pcmig_policy_kind *kind,
                           struct pcmig_params *params);

#endif
