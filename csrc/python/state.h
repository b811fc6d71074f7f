/* SPDX-License-Identifier: Apache-2.0 */
/* What the binding files share: the module's state, their set-up functions, and values of the core as Python has them.
 */
#ifndef PCMIG_PYTHON_STATE_H
#define PCMIG_PYTHON_STATE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "core/forecast.h"
#include "core/ledger.h"
#include "core/policy.h"
#include "edge/virt.h"

/* Who asks a host how a migration is waits no longer for a guest whose QEMU does not answer. */
#define PCMIG_JOB_PATIENCE_MS 3000

/* So long a host has to take a connection, until set_connect_timeout() says otherwise. */
#define PCMIG_CONNECT_TIMEOUT_MS 10000

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
    /* Of every connection that a call of this module opens, unless the call has a time of its own. */
    long long connect_timeout_ms;
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
int pcmig_turn_back_setup(PyObject *module);
int pcmig_route_setup(PyObject *module);
int pcmig_arrival_setup(PyObject *module);
int pcmig_ports_gate_setup(PyObject *module);
int pcmig_announce_setup(PyObject *module);
int pcmig_guest_events_setup(PyObject *module);
int pcmig_judge_setup(PyObject *module);
int pcmig_job_watch_setup(PyObject *module);

/* errors.c: sets the exception that fits ERROR: LibvirtError or the subclass for its kind of failure. */
void pcmig_errors_raise(PyObject *module, const struct pcmig_virt_error *error);

/* Dictionaries, whose shapes are in _core.pyi. Each returns a new reference, or NULL with an exception set. */
PyObject *pcmig_decision_as_dict(const struct pcmig_decision *decision); /* policy.c */
PyObject *pcmig_ledger_as_dict(const struct pcmig_ledger *ledger);       /* ledger.c */
/* sample.c: every field of struct pcmig_sample by its name; queue_bytes is None where it is not known. */
PyObject *pcmig_sample_as_dict(const struct pcmig_sample *sample);
/* job.c: a guest's migration as one host sees it. BUSY: its job was asked for in vain. */
PyObject *pcmig_job_as_dict(const char *name, const char *uuid, enum pcmig_half half, bool busy,
                            const struct pcmig_virt_job *job);
/* judge.c: how long it still takes; and the guest's pause, by the best that tells it: events, libvirt's final figure,
 * what QEMU expects. Negative: not known; None when nothing is. */
PyObject *pcmig_forecast_as_dict(const struct pcmig_forecast *forecast);
/* ledger.c: of page requests; None where nothing is known. */
PyObject *pcmig_latency_now_as_dict(struct pcmig_latency_now latency);
PyObject *pcmig_downtime_as_dict(int64_t events_us, int64_t reported_ms, int64_t expected_ms);

/* policy.c: sets PARAMS from a dict of name -> int. Returns 0, or -1 with TypeError or PolicyError. */
int pcmig_params_update(PyObject *module, struct pcmig_params *params, PyObject *dict);
/* As pcmig_policy_parse. Returns 0, or -1 with PolicyError. */
int pcmig_policy_from_text(PyObject *module, const char *text, size_t len, enum pcmig_policy_kind *kind,
                           struct pcmig_params *params);

#endif
