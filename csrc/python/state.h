/* SPDX-License-Identifier: Apache-2.0 */
/* The module's state and the set-up function of each binding file. */
#ifndef PCMIG_PYTHON_STATE_H
#define PCMIG_PYTHON_STATE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

struct pcmig_state {
    /* Exceptions, see errors.c. */
    PyObject *error;
    PyObject *flags_error;
    PyObject *policy_error;
    PyObject *trace_error;
    PyObject *libvirt_error;
    PyObject *connect_error;
    PyObject *no_domain_error;
    PyObject *unsupported_error;
    PyObject *invalid_operation_error;
    PyObject *denied_error;
    /* Heap types, one binding file each. */
    PyTypeObject *flags_type;
    PyTypeObject *migration_type;
};

extern struct PyModuleDef pcmig_core_module;

struct pcmig_state *pcmig_get_state(PyObject *module);

/* Each adds its types, functions and constants to MODULE; returns 0, or -1 with an exception set. */
int pcmig_errors_setup(PyObject *module);
int pcmig_flags_setup(PyObject *module);
int pcmig_policy_setup(PyObject *module);
int pcmig_probe_setup(PyObject *module);
int pcmig_job_setup(PyObject *module);
int pcmig_migration_setup(PyObject *module);
int pcmig_trace_setup(PyObject *module);
int pcmig_guard_setup(PyObject *module);
int pcmig_route_setup(PyObject *module);

#endif
