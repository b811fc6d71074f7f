/* SPDX-License-Identifier: Apache-2.0 */
/* PortsGate: what to answer the gate as far as the guest's ports go. See core/ports_gate.h. */
#include "core/ports_gate.h"

#include <string.h>

#include "python/state.h"

#define DAY_MS (INT64_C(24) * 3600 * 1000)

struct gate_object {
    PyObject_HEAD
    struct pcmig_ports_gate gate;
};

static int gate_init(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"wait_ms", "then", NULL};
    long long wait_ms;
    const char *then_text;
    int then;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "Ls:PortsGate", keywords, &wait_ms, &then_text))
        return -1;
    if (wait_ms < 0 || wait_ms > DAY_MS) {
        PyErr_Format(PyExc_ValueError, "wait_ms: %lld is not from 0 to %lld", wait_ms, (long long)DAY_MS);
        return -1;
    }
    then = pcmig_ports_then_find(then_text, strlen(then_text));
    if (then < 0) {
        PyErr_Format(PyExc_ValueError, "then: \"%.100s\" is none of stay, switch, abort", then_text);
        return -1;
    }
    pcmig_ports_gate_init(&((struct gate_object *)op)->gate, wait_ms, (enum pcmig_ports_then)then);
    return 0;
}

static void gate_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);

    type->tp_free(op);
    Py_DECREF(type);
}

static int find_gate_state(const char *name)
{
    for (int i = 0; i < PCMIG_GATE_STATE_COUNT; i++) {
        if (strcmp(pcmig_gate_state_name((enum pcmig_gate_state)i), name) == 0)
            return i;
    }
    return -1;
}

static PyObject *gate_feed(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"now_ms", "ports", "gate", "before_switch", NULL};
    const char *ports_text, *state_text;
    int ports, state, before_switch;
    long long now_ms;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "L$ssp:feed", keywords, &now_ms, &ports_text, &state_text,
                                     &before_switch))
        return NULL;
    ports = pcmig_ports_find(ports_text, strlen(ports_text));
    if (ports < 0)
        return PyErr_Format(PyExc_ValueError, "ports: \"%.100s\" is none of untold, unknown, blocked, ready",
                            ports_text);
    state = find_gate_state(state_text);
    if (state < 0)
        return PyErr_Format(PyExc_ValueError, "gate: \"%.100s\" is no state of a gate", state_text);
    return PyUnicode_FromString(pcmig_ports_answer_name(
        pcmig_ports_gate_feed(&((struct gate_object *)op)->gate, now_ms, (enum pcmig_ports)ports,
                              (enum pcmig_gate_state)state, before_switch != 0)));
}

static PyObject *gate_force(PyObject *op, PyObject *ignored)
{
    (void)ignored;
    ((struct gate_object *)op)->gate.forced = true;
    Py_RETURN_NONE;
}

static PyObject *gate_waited_ms(PyObject *op, PyObject *arg)
{
    long long now_ms = PyLong_AsLongLong(arg);

    if (now_ms == -1 && PyErr_Occurred())
        return NULL;
    return PyLong_FromLongLong(pcmig_ports_gate_waited_ms(&((struct gate_object *)op)->gate, now_ms));
}

static PyMethodDef gate_methods[] = {
    {"feed", (PyCFunction)(void (*)(void))gate_feed, METH_VARARGS | METH_KEYWORDS,
     "feed(now_ms, *, ports, gate, before_switch) -> str\n\nWhat to answer: \"none\", \"open\", \"close\", \"again\" "
     "or \"abort\". GATE: status()[\"gate\"]. Raises ValueError."},
    {"force", gate_force, METH_NOARGS, "force()\n\nThe operator asked for the switch: it waits for no port."},
    {"waited_ms", gate_waited_ms, METH_O,
     "waited_ms(now_ms) -> int\n\nSince the switch was first wanted; 0 when it was not."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot gate_slots[] = {
    {Py_tp_doc, "PortsGate(wait_ms, then)\n\nWhat to answer the gate before the switch as far as the guest's ports "
                "go: see core/ports_gate.h. THEN: \"stay\", \"switch\" or \"abort\"."},
    {Py_tp_init, gate_init},
    {Py_tp_dealloc, gate_dealloc},
    {Py_tp_methods, gate_methods},
    {0, NULL},
};

static PyType_Spec gate_spec = {
    .name = "pcmig._core.PortsGate",
    .basicsize = sizeof(struct gate_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = gate_slots,
};

int pcmig_ports_gate_setup(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &gate_spec, NULL);
    int rc = type == NULL ? -1 : PyModule_AddType(module, (PyTypeObject *)type);

    Py_XDECREF(type);
    return rc;
}
