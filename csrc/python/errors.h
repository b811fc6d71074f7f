/* SPDX-License-Identifier: Apache-2.0 */
/* From errors of the edges to Python exceptions. */
#ifndef PCMIG_PYTHON_ERRORS_H
#define PCMIG_PYTHON_ERRORS_H

#include "edge/virt.h"
#include "python/state.h"

/* Sets the exception that fits ERROR: LibvirtError or the subclass for its kind of failure. */
void pcmig_errors_raise(PyObject *module, const struct pcmig_virt_error *error);

#endif
