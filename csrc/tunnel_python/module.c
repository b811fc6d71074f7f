/* SPDX-License-Identifier: Apache-2.0 */
/* pcmig._tunnel: the tunnel daemon (csrc/tunnel) as one Python type. Apart from pcmig._core, so that this one needs no
 * libvirt and that one no OpenSSL. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "tunnel/messages.h"
#include "tunnel/tunnel.h"

#include <stdlib.h>
#include <string.h>

struct state {
    PyObject *error;
    PyTypeObject *type;
};

struct tunnel_object {
    PyObject_HEAD
    struct pcmig_tunnel *tunnel;
    bool busy; /* start, stop or reload runs in some thread */
};

static struct state *state_of(PyTypeObject *type)
{
    return (struct state *)PyModule_GetState(PyType_GetModule(type));
}

/* --- arguments ---------------------------------------------------------------------------------------------------- */

/* LIST of str as C strings; the array is the caller's, the strings are LIST's. NULL with an exception. */
static const char **strings_of(PyObject *list, const char *what, size_t *count)
{
    const char **strings;

    if (!PyList_Check(list) && !PyTuple_Check(list)) {
        PyErr_Format(PyExc_TypeError, "%s must be a list of str, not %.100s", what, Py_TYPE(list)->tp_name);
        return NULL;
    }
    *count = (size_t)PySequence_Size(list);
    strings = PyMem_Calloc(*count + 1, sizeof(*strings));
    if (strings == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    for (size_t i = 0; i < *count; i++) {
        PyObject *item = PySequence_GetItem(list, (Py_ssize_t)i);

        strings[i] = item != NULL && PyUnicode_Check(item) ? PyUnicode_AsUTF8(item) : NULL;
        if (strings[i] == NULL) {
            if (!PyErr_Occurred())
                PyErr_Format(PyExc_TypeError, "%s must be a list of str", what);
            Py_XDECREF(item);
            PyMem_Free(strings);
            return NULL;
        }
        Py_DECREF(item); /* the list or tuple keeps it */
    }
    return strings;
}

/* A converter of "O&": a number of a group or user, or None for none. */
static int id_or_none(PyObject *value, void *out)
{
    unsigned long id;

    if (value == Py_None) {
        *(unsigned *)out = (unsigned)-1;
        return 1;
    }
    id = PyLong_AsUnsignedLong(value);
    if (id == (unsigned long)-1 && PyErr_Occurred())
        return 0;
    if (id >= (unsigned)-1) {
        PyErr_SetString(PyExc_ValueError, "this is no number of a user or group");
        return 0;
    }
    *(unsigned *)out = (unsigned)id;
    return 1;
}

/* A converter of "O&": a count or a time, not negative. */
static int to_unsigned(PyObject *value, void *out)
{
    const long number = PyLong_AsLong(value);

    if (number == -1 && PyErr_Occurred())
        return 0;
    if (number < 0 || number > 0x7fffffff) {
        PyErr_Format(PyExc_ValueError, "%ld is out of range: 0 to 2147483647", number);
        return 0;
    }
    *(unsigned *)out = (unsigned)number;
    return 1;
}

/* --- methods ------------------------------------------------------------------------------------------------------ */

/* For what changes the tunnel; NULL with an exception while another thread does. */
static struct pcmig_tunnel *tunnel_of(PyObject *op)
{
    struct tunnel_object *self = (struct tunnel_object *)op;

    if (!self->busy)
        return self->tunnel;
    PyErr_SetString(state_of(Py_TYPE(op))->error, "another thread starts, stops or reloads this tunnel");
    return NULL;
}

static void free_lists(struct pcmig_tunnel_config *config)
{
    PyMem_Free((void *)(uintptr_t)config->listen);
    PyMem_Free((void *)(uintptr_t)config->allow);
}

/* The arguments as CONFIG; its strings are those of ARGS and KWARGS, its lists are freed with free_lists. */
static bool parse_config(PyObject *args, PyObject *kwargs, struct pcmig_tunnel_config *config)
{
    static char *names[] = {"run_dir",
                            "control",
                            "listen",
                            "ca",
                            "certificate",
                            "key",
                            "crl",
                            "allow",
                            "client_certificate",
                            "client_key",
                            "owner_gid",
                            "socket_uid",
                            "control_gid",
                            "workers",
                            "plaintext",
                            "dead_after_ms",
                            "handshake_ms",
                            "socket_wait_ms",
                            "dial_ms",
                            "idle_name_ms",
                            "max_half_open",
                            "max_half_open_of_one",
                            "max_connections",
                            "max_of_one_peer",
                            "max_handshakes_per_s",
                            "congestion",
                            NULL};
    PyObject *listen = NULL, *allow = NULL;
    int plaintext = 0;

    pcmig_tunnel_defaults(config);
    if (!PyArg_ParseTupleAndKeywords(
            args, kwargs, "|$ssOzzzzOzzO&O&O&O&pO&O&O&O&O&O&O&O&O&O&z:Tunnel", names, &config->run_dir,
            &config->control, &listen, &config->files.ca, &config->files.certificate, &config->files.key,
            &config->files.crl, &allow, &config->files.dialler_certificate, &config->files.dialler_key, id_or_none,
            &config->owner_gid, id_or_none, &config->socket_uid, id_or_none, &config->control_gid, to_unsigned,
            &config->workers, &plaintext, to_unsigned, &config->dead_after_ms, to_unsigned, &config->handshake_ms,
            to_unsigned, &config->socket_wait_ms, to_unsigned, &config->dial_ms, to_unsigned, &config->idle_name_ms,
            to_unsigned, &config->max_half_open, to_unsigned, &config->max_half_open_of_one, to_unsigned,
            &config->max_carriers, to_unsigned, &config->max_of_one_peer, to_unsigned, &config->max_handshakes_per_s,
            &config->congestion))
        return false;
    config->plaintext = plaintext != 0;
    if (listen != NULL && (config->listen = strings_of(listen, "listen", &config->listen_count)) == NULL)
        return false;
    if (allow != NULL && (config->allow = strings_of(allow, "allow", &config->allow_count)) == NULL) {
        free_lists(config);
        return false;
    }
    return true;
}

static PyObject *tunnel_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    struct tunnel_object *self;
    struct pcmig_tunnel_config config;
    struct pcmig_tunnel *made;
    char error[PCMIG_TUNNEL_ERROR_BYTES];

    if (!parse_config(args, kwargs, &config))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    made = pcmig_tunnel_new(&config, error);
    Py_END_ALLOW_THREADS
    free_lists(&config);
    if (made == NULL) {
        PyErr_SetString(state_of(type)->error, error);
        return NULL;
    }
    self = (struct tunnel_object *)type->tp_alloc(type, 0);
    if (self == NULL) {
        pcmig_tunnel_free(made);
        return NULL;
    }
    self->tunnel = made;
    return (PyObject *)self;
}

static void tunnel_dealloc(PyObject *op)
{
    struct tunnel_object *self = (struct tunnel_object *)op;
    PyTypeObject *type = Py_TYPE(op);

    /* Joins threads, none of which needs the GIL. */
    Py_BEGIN_ALLOW_THREADS
    pcmig_tunnel_free(self->tunnel);
    Py_END_ALLOW_THREADS
    type->tp_free(op);
    Py_DECREF(type);
}

static PyObject *tunnel_start(PyObject *op, PyObject *ignored)
{
    struct tunnel_object *self = (struct tunnel_object *)op;
    struct pcmig_tunnel *tunnel = tunnel_of(op);
    char error[PCMIG_TUNNEL_ERROR_BYTES];
    bool started;

    (void)ignored;
    if (tunnel == NULL)
        return NULL;
    self->busy = true;
    Py_BEGIN_ALLOW_THREADS
    started = pcmig_tunnel_start(tunnel, error);
    Py_END_ALLOW_THREADS
    self->busy = false;
    if (!started) {
        PyErr_SetString(state_of(Py_TYPE(op))->error, error);
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *tunnel_stop(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"grace_ms", NULL};
    struct tunnel_object *self = (struct tunnel_object *)op;
    struct pcmig_tunnel *tunnel = tunnel_of(op);
    unsigned grace_ms = 0;

    if (tunnel == NULL || !PyArg_ParseTupleAndKeywords(args, kwargs, "|O&:stop", names, to_unsigned, &grace_ms))
        return NULL;
    self->busy = true;
    Py_BEGIN_ALLOW_THREADS
    pcmig_tunnel_stop(tunnel, grace_ms);
    Py_END_ALLOW_THREADS
    self->busy = false;
    Py_RETURN_NONE;
}

static PyObject *tunnel_reload(PyObject *op, PyObject *args, PyObject *kwargs)
{
    struct tunnel_object *self = (struct tunnel_object *)op;
    struct pcmig_tunnel *tunnel = tunnel_of(op);
    struct pcmig_tunnel_config config;
    char error[PCMIG_TUNNEL_ERROR_BYTES];
    bool done;

    if (tunnel == NULL || !parse_config(args, kwargs, &config))
        return NULL;
    self->busy = true;
    Py_BEGIN_ALLOW_THREADS
    done = pcmig_tunnel_reload(tunnel, &config, error);
    Py_END_ALLOW_THREADS
    self->busy = false;
    free_lists(&config);
    if (!done) {
        PyErr_SetString(state_of(Py_TYPE(op))->error, error);
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *tunnel_reload_asked(PyObject *op, PyObject *ignored)
{
    struct tunnel_object *self = (struct tunnel_object *)op;

    (void)ignored;
    return PyLong_FromUnsignedLong(pcmig_tunnel_reload_asked(self->tunnel));
}

static PyObject *tunnel_answer_reload(PyObject *op, PyObject *args)
{
    struct tunnel_object *self = (struct tunnel_object *)op;
    const char *answer;
    unsigned number;

    if (!PyArg_ParseTuple(args, "O&s:answer_reload", to_unsigned, &number, &answer))
        return NULL;
    if (!pcmig_tunnel_answer_reload(self->tunnel, number, answer))
        return PyErr_NoMemory();
    Py_RETURN_NONE;
}

static PyObject *tunnel_silent_ms(PyObject *op, PyObject *ignored)
{
    struct tunnel_object *self = (struct tunnel_object *)op;

    (void)ignored;
    return PyLong_FromUnsignedLong(pcmig_tunnel_silent_ms(self->tunnel));
}

static PyObject *tunnel_ends(PyObject *op, PyObject *ignored)
{
    const struct pcmig_tls_ends ends = pcmig_tunnel_ends(((struct tunnel_object *)op)->tunnel);

    (void)ignored;
    return Py_BuildValue("{sL,sL,sL,sL}", "certificate", (long long)ends.certificate_s, "client_certificate",
                         (long long)ends.dialler_certificate_s, "ca", (long long)ends.ca_s, "crl",
                         (long long)ends.crl_s);
}

static PyObject *tunnel_fileno(PyObject *op, PyObject *ignored)
{
    struct tunnel_object *self = (struct tunnel_object *)op;

    (void)ignored;
    return PyLong_FromLong(pcmig_messages_fd(pcmig_tunnel_messages(self->tunnel)));
}

static PyObject *tunnel_messages(PyObject *op, PyObject *ignored)
{
    struct tunnel_object *self = (struct tunnel_object *)op;
    char text[PCMIG_MESSAGES_TEXT_BYTES];
    PyObject *list;
    int level;

    (void)ignored;
    list = PyList_New(0);
    while (list != NULL && pcmig_messages_take(pcmig_tunnel_messages(self->tunnel), &level, text)) {
        /* Cut to its buffer, perhaps within a character; a certificate's subject may be any bytes. */
        PyObject *message =
            Py_BuildValue("(iN)", level, PyUnicode_DecodeUTF8(text, (Py_ssize_t)strlen(text), "replace"));

        if (message == NULL || PyList_Append(list, message) < 0)
            Py_CLEAR(list);
        Py_XDECREF(message);
    }
    return list;
}

static PyObject *tunnel_ports(PyObject *op, PyObject *ignored)
{
    struct tunnel_object *self = (struct tunnel_object *)op;
    uint16_t ports[16];
    PyObject *list;
    size_t count;

    (void)ignored;
    count = pcmig_tunnel_ports(self->tunnel, ports, sizeof(ports) / sizeof(ports[0]));
    list = PyList_New(0);
    for (size_t i = 0; list != NULL && i < count; i++) {
        PyObject *port = PyLong_FromLong(ports[i]);

        if (port == NULL || PyList_Append(list, port) < 0)
            Py_CLEAR(list);
        Py_XDECREF(port);
    }
    return list;
}

/* --- type and module ---------------------------------------------------------------------------------------------- */

static PyMethodDef methods[] = {
    {"start", tunnel_start, METH_NOARGS, "start()\n\nStarts the threads. Once only. Raises TunnelError."},
    {"stop", (PyCFunction)(void (*)(void))tunnel_stop, METH_VARARGS | METH_KEYWORDS,
     "stop(grace_ms=0)\n\nTakes nothing new, waits up to grace_ms for streams to end, then ends them. Without the "
     "GIL."},
    {"reload", (PyCFunction)(void (*)(void))tunnel_reload, METH_VARARGS | METH_KEYWORDS,
     "reload(**settings)\n\nPuts settings in force, all that the constructor takes, and reads the certificates. Raises "
     "TunnelError: nothing has changed."},
    {"reload_asked", tunnel_reload_asked, METH_NOARGS,
     "reload_asked() -> int\n\nThe number of the latest request over the control socket that waits, or 0."},
    {"answer_reload", tunnel_answer_reload, METH_VARARGS,
     "answer_reload(number, answer)\n\nAnswers all up to that number: 'ok ...' or 'error ...'."},
    {"silent_ms", tunnel_silent_ms, METH_NOARGS,
     "silent_ms() -> int\n\nHow long one of the threads has not been seen to run, at the most."},
    {"ends", tunnel_ends, METH_NOARGS,
     "ends() -> dict[str, int]\n\nWhen certificates, CA and CRL expire, seconds since 1970; 0: there is none."},
    {"fileno", tunnel_fileno, METH_NOARGS, "fileno() -> int\n\nReadable while there are messages."},
    {"messages", tunnel_messages, METH_NOARGS,
     "messages() -> list[tuple[int, str]]\n\nWhat is to be logged: levels of the module logging, and texts."},
    {"ports", tunnel_ports, METH_NOARGS, "ports() -> list[int]\n\nTCP ports listened on, in the order of listen."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, tunnel_new},
    {Py_tp_dealloc, tunnel_dealloc},
    {Py_tp_methods, methods},
    {Py_tp_doc, "The tunnel daemon of this host. Binds all its sockets at once and runs nothing until start().\n\nSee "
                "_tunnel.pyi for the arguments. Raises TunnelError, TypeError, ValueError."},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "pcmig._tunnel.Tunnel",
    .basicsize = sizeof(struct tunnel_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};

static int module_exec(PyObject *module)
{
    struct state *state = PyModule_GetState(module);

    state->error = PyErr_NewExceptionWithDoc(
        "pcmig._tunnel.TunnelError", "The tunnel cannot be set up, started or reloaded as asked.", PyExc_OSError, NULL);
    if (state->error == NULL || PyModule_AddObjectRef(module, "TunnelError", state->error) < 0)
        return -1;
    state->type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &spec, NULL);
    return state->type == NULL ? -1 : PyModule_AddType(module, state->type);
}

static int module_traverse(PyObject *module, visitproc visit, void *arg)
{
    struct state *state = PyModule_GetState(module);

    Py_VISIT(state->error);
    Py_VISIT(state->type);
    return 0;
}

static int module_clear(PyObject *module)
{
    struct state *state = PyModule_GetState(module);

    Py_CLEAR(state->error);
    Py_CLEAR(state->type);
    return 0;
}

static void module_free(void *module)
{
    (void)module_clear((PyObject *)module);
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_SUPPORTED},
#endif
#if PY_VERSION_HEX >= 0x030D0000
    {Py_mod_gil, Py_MOD_GIL_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef module_definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "pcmig._tunnel",
    .m_doc = "The encrypted tunnel between two hosts' QEMUs.",
    .m_size = sizeof(struct state),
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__tunnel(void);

PyMODINIT_FUNC PyInit__tunnel(void)
{
    return PyModuleDef_Init(&module_definition);
}
