/* SPDX-License-Identifier: Apache-2.0 */
/* Announce: when a guest is announced at one of its ports. See core/announce.h. */
#include "core/announce.h"

#include "python/state.h"

#define HOUR_MS (INT64_C(3600) * 1000)

struct announce_object {
    PyObject_HEAD
    struct pcmig_announce announce;
};

static int announce_init(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"for_ms", NULL};
    long long for_ms;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "L:Announce", keywords, &for_ms))
        return -1;
    if (for_ms < 0 || for_ms > HOUR_MS) {
        PyErr_Format(PyExc_ValueError, "for_ms: %lld is not from 0 to %lld", for_ms, (long long)HOUR_MS);
        return -1;
    }
    pcmig_announce_init(&((struct announce_object *)op)->announce, for_ms);
    return 0;
}

static void announce_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);

    type->tp_free(op);
    Py_DECREF(type);
}

static PyObject *announce_feed(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"now_ms", "forwards", "heard", NULL};
    int forwards, heard;
    long long now_ms;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "L$pp:feed", keywords, &now_ms, &forwards, &heard))
        return NULL;
    return PyBool_FromLong(
        pcmig_announce_feed(&((struct announce_object *)op)->announce, now_ms, forwards != 0, heard != 0));
}

static PyObject *announce_wait_ms(PyObject *op, PyObject *arg)
{
    long long now_ms = PyLong_AsLongLong(arg);
    int64_t wait_ms;

    if (now_ms == -1 && PyErr_Occurred())
        return NULL;
    wait_ms = pcmig_announce_wait_ms(&((struct announce_object *)op)->announce, now_ms);
    if (wait_ms < 0)
        Py_RETURN_NONE;
    return PyLong_FromLongLong(wait_ms);
}

static PyMethodDef announce_methods[] = {
    {"feed", (PyCFunction)(void (*)(void))announce_feed, METH_VARARGS | METH_KEYWORDS,
     "feed(now_ms, *, forwards, heard) -> bool\n\nThe guest runs here; whether to announce it at this port now. HEARD: "
     "it has sent a frame there since the last call."},
    {"wait_ms", announce_wait_ms, METH_O,
     "wait_ms(now_ms) -> int | None\n\nUntil the next feed() is due; None when it is over."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot announce_slots[] = {
    {Py_tp_doc,
     "Announce(for_ms)\n\nWhen a guest that has just begun to run here is announced at one of its ports: see "
     "core/announce.h. FOR_MS: no longer than that, from when the port forwards."},
    {Py_tp_init, announce_init},
    {Py_tp_dealloc, announce_dealloc},
    {Py_tp_methods, announce_methods},
    {0, NULL},
};

static PyType_Spec announce_spec = {
    .name = "pcmig._core.Announce",
    .basicsize = sizeof(struct announce_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = announce_slots,
};

int pcmig_announce_setup(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &announce_spec, NULL);
    int rc = type == NULL ? -1 : PyModule_AddType(module, (PyTypeObject *)type);

    Py_XDECREF(type);
    return rc;
}
