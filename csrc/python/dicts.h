/* SPDX-License-Identifier: Apache-2.0 */
/* Values of the core as Python dictionaries; the shapes are in _core.pyi. */
#ifndef PCMIG_PYTHON_DICTS_H
#define PCMIG_PYTHON_DICTS_H

#include "python/state.h"

#include "core/ledger.h"
#include "core/policy.h"

/* Each returns a new reference, or NULL with an exception set. */
PyObject *pcmig_decision_as_dict(const struct pcmig_decision *decision);
PyObject *pcmig_ledger_as_dict(const struct pcmig_ledger *ledger);

#endif
