/* SPDX-License-Identifier: Apache-2.0 */
/* Job statistics as a dict. */
#ifndef PCMIG_PYTHON_SAMPLE_H
#define PCMIG_PYTHON_SAMPLE_H

#include "core/input.h"
#include "python/state.h"

/* Every field of struct pcmig_sample by its name; queue_bytes is None where it is not known. NULL with an exception. */
PyObject *pcmig_sample_as_dict(const struct pcmig_sample *sample);

#endif
