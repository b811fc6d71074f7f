/* SPDX-License-Identifier: Apache-2.0 */
/* GuestEvents: when a guest that comes in begins to run on a host, or ends there, as libvirt tells it there. */
#include "edge/virt.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "python/state.h"

enum told {
    TOLD_RUNS = 0,
    TOLD_STOPPED,
    TOLD_CLOSED, /* the connection broke: nothing more is told */
    TOLD_COUNT
};

static const char *const told_names[] = {
    [TOLD_RUNS] = "runs",
    [TOLD_STOPPED] = "stopped",
    [TOLD_CLOSED] = "closed",
};
_Static_assert(sizeof(told_names) / sizeof(told_names[0]) == TOLD_COUNT, "every one has a name");

static const struct {
    enum pcmig_event event;
    enum told told;
} meanings[] = {
    {PCMIG_EVENT_DST_RESUMED_POSTCOPY, TOLD_RUNS},
    {PCMIG_EVENT_DST_RESUMED_MIGRATED, TOLD_RUNS},
    {PCMIG_EVENT_DST_RESUMED_OTHER, TOLD_RUNS},
    {PCMIG_EVENT_DST_STOPPED, TOLD_STOPPED},
};

/* Shared with libvirt's event thread, which lets go of it last (release). */
struct news {
    atomic_uint told; /* bits of enum told */
    int event_fd;
};

struct events_object {
    PyObject_HEAD
    struct pcmig_virt_conn *conn;
    struct pcmig_virt_watch *watch; /* NULL = closed; NEWS is not ours any more then */
    struct news *news;
};

static void tell(struct news *news, enum told what)
{
    atomic_fetch_or(&news->told, 1U << what);
    (void)eventfd_write(news->event_fd, 1); /* full is readable as well */
}

static void on_input(void *opaque, const struct pcmig_input *input)
{
    for (size_t i = 0; i < sizeof(meanings) / sizeof(meanings[0]); i++) {
        if (input->kind == PCMIG_INPUT_EVENT && input->code == (int)meanings[i].event)
            tell(opaque, meanings[i].told);
    }
}

static void on_closed(void *opaque)
{
    tell(opaque, TOLD_CLOSED);
}

static void on_release(void *opaque)
{
    struct news *news = opaque;

    (void)close(news->event_fd);
    free(news);
}

static const struct pcmig_virt_callbacks callbacks = {
    .input = on_input,
    .closed = on_closed,
    .release = on_release,
};

/* Without the GIL. Returns 0, or -1 with ERROR. */
static int follow(struct events_object *self, struct news *news, const char *uri, const char *uuid,
                  long long timeout_ms, struct pcmig_virt_error *error)
{
    self->conn = pcmig_virt_open(uri, timeout_ms, error);
    if (self->conn == NULL) {
        on_release(news);
        return -1;
    }
    self->watch = pcmig_virt_watch(self->conn, uuid, false, &callbacks, news, error);
    if (self->watch == NULL) {
        pcmig_virt_close(self->conn);
        self->conn = NULL;
        return -1;
    }
    self->news = news;
    return 0;
}

static void let_go(struct events_object *self)
{
    struct pcmig_virt_watch *watch = self->watch;
    struct pcmig_virt_conn *conn = self->conn;

    self->watch = NULL;
    self->conn = NULL;
    self->news = NULL;
    Py_BEGIN_ALLOW_THREADS
    pcmig_virt_unwatch(watch);
    pcmig_virt_close(conn);
    Py_END_ALLOW_THREADS
}

static int events_init(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"uri", "uuid", NULL};
    struct events_object *self = (struct events_object *)op;
    PyObject *module = PyType_GetModule(Py_TYPE(op));
    struct pcmig_virt_error error = {0};
    struct news *news;
    const char *uri, *uuid;
    int result;

    if (module == NULL || !PyArg_ParseTupleAndKeywords(args, kwargs, "ss:GuestEvents", keywords, &uri, &uuid))
        return -1;
    if (self->watch != NULL) {
        PyErr_SetString(PyExc_ValueError, "it follows a guest already");
        return -1;
    }
    news = calloc(1, sizeof(*news));
    if (news == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    atomic_init(&news->told, 0);
    news->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (news->event_fd < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        free(news);
        return -1;
    }
    const long long timeout_ms = pcmig_get_state(module)->connect_timeout_ms;

    Py_BEGIN_ALLOW_THREADS
    result = follow(self, news, uri, uuid, timeout_ms, &error);
    Py_END_ALLOW_THREADS
    if (result < 0)
        pcmig_errors_raise(module, &error);
    return result;
}

static void events_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);

    let_go((struct events_object *)op);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyObject *events_close(PyObject *op, PyObject *ignored)
{
    (void)ignored;
    let_go((struct events_object *)op);
    Py_RETURN_NONE;
}

static bool is_closed(const struct events_object *self)
{
    if (self->watch == NULL)
        PyErr_SetString(PyExc_ValueError, "it was closed");
    return self->watch == NULL;
}

static PyObject *events_fileno(PyObject *op, PyObject *ignored)
{
    const struct events_object *self = (struct events_object *)op;

    (void)ignored;
    return is_closed(self) ? NULL : PyLong_FromLong(self->news->event_fd);
}

static PyObject *events_take(PyObject *op, PyObject *ignored)
{
    struct events_object *self = (struct events_object *)op;
    PyObject *list;
    eventfd_t value;
    unsigned told;

    (void)ignored;
    if (is_closed(self))
        return NULL;
    list = PyList_New(0);
    if (list == NULL)
        return NULL;
    (void)eventfd_read(self->news->event_fd, &value); /* before the bits: what comes in between is readable again */
    told = atomic_exchange(&self->news->told, 0);
    for (int i = 0; i < TOLD_COUNT; i++) {
        PyObject *name = (told & 1U << i) != 0 ? PyUnicode_FromString(told_names[i]) : NULL;
        int failed = (told & 1U << i) != 0 && (name == NULL || PyList_Append(list, name) < 0);

        Py_XDECREF(name);
        if (failed) {
            Py_DECREF(list);
            return NULL;
        }
    }
    return list;
}

static PyMethodDef events_methods[] = {
    {"fileno", events_fileno, METH_NOARGS, "fileno() -> int\n\nReadable when there is something to take()."},
    {"take", events_take, METH_NOARGS,
     "take() -> list[str]\n\nWhat has happened since the last call, in no order: \"runs\", \"stopped\", \"closed\" "
     "(the "
     "connection broke)."},
    {"close", events_close, METH_NOARGS, "close()\n\nFollows the guest no more."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot events_slots[] = {
    {Py_tp_doc, "GuestEvents(uri, uuid)\n\nFollows the guest with this UUID on a host that it moves to, where it need "
                "not be known yet. Raises LibvirtError."},
    {Py_tp_init, events_init},
    {Py_tp_dealloc, events_dealloc},
    {Py_tp_methods, events_methods},
    {0, NULL},
};

static PyType_Spec events_spec = {
    .name = "pcmig._core.GuestEvents",
    .basicsize = sizeof(struct events_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = events_slots,
};

int pcmig_guest_events_setup(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &events_spec, NULL);
    int rc = type == NULL ? -1 : PyModule_AddType(module, (PyTypeObject *)type);

    Py_XDECREF(type);
    return rc;
}
