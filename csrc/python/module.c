/* SPDX-License-Identifier: Apache-2.0 */
/* pcmig._core: multi-phase initialisation. Every binding file adds itself with one row of `setups`. */
#include "state.h"

#include "core/version.h"

typedef int (*setup_fn)(PyObject *module);

/* One row a line, so that additions do not meet. */
/* clang-format off */
static const setup_fn setups[] = {
    pcmig_errors_setup, /* first: the others raise its exceptions */
    pcmig_policy_setup,
    pcmig_job_setup,
    pcmig_migration_setup,
    pcmig_flags_setup,
    pcmig_probe_setup,
    pcmig_trace_setup,
    pcmig_guard_setup,
    pcmig_turn_back_setup,
    pcmig_route_setup,
    pcmig_arrival_setup,
    pcmig_ports_gate_setup,
    pcmig_announce_setup,
    pcmig_guest_events_setup,
    pcmig_judge_setup,
    pcmig_job_watch_setup,
};
/* clang-format on */

struct pcmig_state *pcmig_get_state(PyObject *module)
{
    return (struct pcmig_state *)PyModule_GetState(module);
}

static int module_exec(PyObject *module)
{
    /* Python 3.11 does not know the slot below, and later ones ignore it in interpreters that are not isolated. */
    if (PyInterpreterState_Get() != PyInterpreterState_Main()) {
        PyErr_SetString(PyExc_ImportError, "pcmig._core can be imported by the main interpreter only: libvirt's event "
                                           "loop is one per process");
        return -1;
    }
    pcmig_get_state(module)->connect_timeout_ms = PCMIG_CONNECT_TIMEOUT_MS;
    for (size_t i = 0; i < sizeof(setups) / sizeof(setups[0]); i++) {
        if (setups[i](module) < 0)
            return -1;
    }
    return PyModule_AddStringConstant(module, "VERSION", PCMIG_VERSION);
}

static int module_traverse(PyObject *module, visitproc visit, void *arg)
{
    struct pcmig_state *state = pcmig_get_state(module);

    Py_VISIT(state->error);
    Py_VISIT(state->flags_error);
    Py_VISIT(state->policy_error);
    Py_VISIT(state->trace_error);
    Py_VISIT(state->libvirt_error);
    Py_VISIT(state->connect_error);
    Py_VISIT(state->no_domain_error);
    Py_VISIT(state->unsupported_error);
    Py_VISIT(state->invalid_operation_error);
    Py_VISIT(state->denied_error);
    Py_VISIT(state->flags_type);
    Py_VISIT(state->migration_type);
    return 0;
}

static int module_clear(PyObject *module)
{
    struct pcmig_state *state = pcmig_get_state(module);

    Py_CLEAR(state->error);
    Py_CLEAR(state->flags_error);
    Py_CLEAR(state->policy_error);
    Py_CLEAR(state->trace_error);
    Py_CLEAR(state->libvirt_error);
    Py_CLEAR(state->connect_error);
    Py_CLEAR(state->no_domain_error);
    Py_CLEAR(state->unsupported_error);
    Py_CLEAR(state->invalid_operation_error);
    Py_CLEAR(state->denied_error);
    Py_CLEAR(state->flags_type);
    Py_CLEAR(state->migration_type);
    return 0;
}

static void module_free(void *module)
{
    (void)module_clear((PyObject *)module);
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
#if PY_VERSION_HEX >= 0x030C0000
    /* libvirt's event loop is one per process, so one interpreter. */
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
#if PY_VERSION_HEX >= 0x030D0000
    {Py_mod_gil, Py_MOD_GIL_USED},
#endif
    {0, NULL},
};

struct PyModuleDef pcmig_core_module = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "pcmig._core",
    .m_doc = "The C core of pcmig: flags, switchover policy, pacing, ledger, host probe and the migration engine.",
    .m_size = sizeof(struct pcmig_state),
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__core(void);

PyMODINIT_FUNC PyInit__core(void)
{
    return PyModuleDef_Init(&pcmig_core_module);
}
