/* SPDX-License-Identifier: Apache-2.0 */
/* The incoming stream of a guest on this host: whether it is silent, and having QEMU notice. */
#include "edge/arrival.h"

#include <errno.h>

#include "python/state.h"

static PyObject *py_arrival(PyObject *module, PyObject *args)
{
    struct pcmig_arrival arrival;
    const char *uuid;
    int result, failure;

    (void)module;
    if (!PyArg_ParseTuple(args, "s:arrival", &uuid))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    result = pcmig_arrival_look(uuid, &arrival);
    failure = errno;
    Py_END_ALLOW_THREADS
    if (result < 0) {
        errno = failure;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    if (arrival.silent_ms < 0)
        return Py_BuildValue("{s:I,s:O}", "connections", arrival.connections, "silent_ms", Py_None);
    return Py_BuildValue("{s:I,s:L}", "connections", arrival.connections, "silent_ms", (long long)arrival.silent_ms);
}

static PyObject *py_arrival_reset(PyObject *module, PyObject *args)
{
    const char *uuid;
    int result, failure;

    (void)module;
    if (!PyArg_ParseTuple(args, "s:arrival_reset", &uuid))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    result = pcmig_arrival_reset(uuid);
    failure = errno;
    Py_END_ALLOW_THREADS
    if (result < 0) {
        errno = failure;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    return PyLong_FromLong(result);
}

static PyMethodDef methods[] = {
    {"arrival", py_arrival, METH_VARARGS,
     "arrival(uuid) -> dict\n\nThe stream that comes in for the guest with this UUID on this host: connections, and "
     "silent_ms, for how "
     "long none of them has brought anything. Raises OSError: ESRCH, EACCES (edge/arrival.h)."},
    {"arrival_reset", py_arrival_reset, METH_VARARGS,
     "arrival_reset(uuid) -> int\n\nHas the kernel reset these connections, so that QEMU notices that nobody is there; "
     "how many there were. "
     "Raises OSError: ESRCH, EACCES, EPERM."},
    {NULL, NULL, 0, NULL},
};

int pcmig_arrival_setup(PyObject *module)
{
    return PyModule_AddFunctions(module, methods);
}
