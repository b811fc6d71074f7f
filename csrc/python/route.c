/* SPDX-License-Identifier: Apache-2.0 */
/* Acknowledgements at once towards a destination, for a process that may change routes in place of one that may not. */
#include "edge/route.h"

#include <netdb.h>
#include <string.h>

#include "python/state.h"

#define CAPSULE "pcmig._core.quickack"

static void restore(PyObject *capsule)
{
    struct pcmig_route *route = PyCapsule_GetPointer(capsule, CAPSULE);

    Py_BEGIN_ALLOW_THREADS
    pcmig_route_restore(route);
    Py_END_ALLOW_THREADS
}

/* Returns 0, or -1 with an exception set. */
static int parse_address(const char *text, struct sockaddr_storage *out)
{
    const struct addrinfo hints = {.ai_flags = AI_NUMERICHOST, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;

    if (getaddrinfo(text, NULL, &hints, &found) != 0 || found->ai_addrlen > sizeof(*out)) {
        PyErr_Format(PyExc_ValueError, "\"%.100s\" is no address: write one like 192.0.2.7 or fd00::7", text);
        if (found != NULL)
            freeaddrinfo(found);
        return -1;
    }
    memset(out, 0, sizeof(*out));
    memcpy(out, found->ai_addr, found->ai_addrlen);
    freeaddrinfo(found);
    return 0;
}

PyDoc_STRVAR(
    quickack_doc,
    "quickack(address, /)\n--\n\n"
    "Has this host acknowledge at once what comes from ADDRESS (IPv4 or IPv6), by the route's option quickack.\n"
    "Returns (\"set\", handle), and the change lasts as long as the handle; or (\"present\" | \"denied\" |\n"
    "\"unfit\", None), see route.h. Raises ValueError for what is no address.");

static PyObject *quickack(PyObject *module, PyObject *address)
{
    struct pcmig_route *route = NULL;
    enum pcmig_route_result result;
    struct sockaddr_storage peer;
    const char *text = PyUnicode_AsUTF8(address);
    PyObject *handle;

    (void)module;
    if (text == NULL || parse_address(text, &peer) < 0)
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    result = pcmig_route_quickack(&peer, &route);
    Py_END_ALLOW_THREADS
    if (route == NULL)
        return Py_BuildValue("(sO)", pcmig_route_result_name(result), Py_None);
    handle = PyCapsule_New(route, CAPSULE, restore);
    if (handle == NULL) {
        pcmig_route_restore(route);
        return NULL;
    }
    return Py_BuildValue("(sN)", pcmig_route_result_name(result), handle);
}

static PyMethodDef methods[] = {
    {"quickack", quickack, METH_O, quickack_doc},
    {NULL, NULL, 0, NULL},
};

int pcmig_route_setup(PyObject *module)
{
    return PyModule_AddFunctions(module, methods);
}
