/* SPDX-License-Identifier: Apache-2.0 */
/* JobWatch: the migration of one guest as its host tells it, whoever drives it: looks over one connection, and events
 * as they come, as lines of a trace. It asks, and steers nothing. */
#include "core/trace.h"
#include "edge/clock.h"
#include "edge/link.h"
#include "edge/virt.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "python/state.h"

/* QEMU 11 tells an iteration every 55 ms: nobody who reads looks less often than that fills. */
#define BOX_MAX 4096

/* What was seen and nobody has taken. Shared with libvirt's event thread, which lets go of it last (release). */
struct box {
    pthread_mutex_t lock;
    unsigned references; /* of the object, and of the watch */
    int event_fd;
    bool closed; /* the connection broke */
    size_t count, capacity;
    struct pcmig_input *inputs; /* t_us: of the host's clock */
};

struct watch_object {
    PyObject_HEAD
    char *uri;
    char *word; /* as it was given; by UUID once that is known */
    bool source;
    bool found;
    char uuid[PCMIG_VIRT_UUID_SIZE];
    struct pcmig_virt_conn *conn;
    struct pcmig_virt_domain *domain;
    struct pcmig_virt_watch *watch;
    struct pcmig_link *link;
    struct box *box;  /* NULL = it was closed */
    int64_t start_us; /* of the migration, on the host's clock */
    bool start_known;
    bool busy; /* a look runs, without the GIL */
};

static void box_unref(void *opaque)
{
    struct box *box = opaque;
    bool last;

    pthread_mutex_lock(&box->lock);
    last = --box->references == 0;
    pthread_mutex_unlock(&box->lock);
    if (!last)
        return;
    (void)close(box->event_fd);
    pthread_mutex_destroy(&box->lock);
    free(box->inputs);
    free(box);
}

static struct box *box_new(void)
{
    struct box *box = calloc(1, sizeof(*box));

    if (box == NULL)
        return NULL;
    box->references = 1;
    box->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (box->event_fd < 0 || pthread_mutex_init(&box->lock, NULL) != 0) {
        if (box->event_fd >= 0)
            (void)close(box->event_fd);
        free(box);
        return NULL;
    }
    return box;
}

static void on_input(void *opaque, const struct pcmig_input *input)
{
    struct box *box = opaque;

    pthread_mutex_lock(&box->lock);
    if (box->count == box->capacity && box->capacity < BOX_MAX) {
        size_t capacity = box->capacity == 0 ? 32 : box->capacity * 2;
        struct pcmig_input *inputs = realloc(box->inputs, capacity * sizeof(*inputs));

        if (inputs != NULL) {
            box->inputs = inputs;
            box->capacity = capacity;
        }
    }
    /* Of a reader that has gone to sleep the oldest are of no use any more, and the latest tell the end. */
    if (box->count == box->capacity && box->count > 0) {
        memmove(box->inputs, box->inputs + 1, (box->count - 1) * sizeof(*box->inputs));
        box->count--;
    }
    if (box->count < box->capacity) {
        box->inputs[box->count] = *input;
        box->inputs[box->count++].t_us = pcmig_clock_us();
    }
    pthread_mutex_unlock(&box->lock);
    (void)eventfd_write(box->event_fd, 1);
}

static void on_closed(void *opaque)
{
    struct box *box = opaque;

    pthread_mutex_lock(&box->lock);
    box->closed = true;
    pthread_mutex_unlock(&box->lock);
    (void)eventfd_write(box->event_fd, 1);
}

static const struct pcmig_virt_callbacks callbacks = {
    .input = on_input,
    .closed = on_closed,
    .release = box_unref,
};

/* --- without the GIL ---------------------------------------------------------------------------------------------- */

static void disconnect(struct watch_object *self)
{
    pcmig_virt_unwatch(self->watch);
    pcmig_virt_domain_free(self->domain);
    pcmig_virt_close(self->conn);
    self->watch = NULL;
    self->domain = NULL;
    self->conn = NULL;
}

/* For the account. */
static void note_vcpus(const struct watch_object *self)
{
    const struct pcmig_input input = {.kind = PCMIG_INPUT_VCPUS, .code = pcmig_virt_domain_vcpus(self->domain)};

    if (input.code > 0)
        on_input(self->box, &input);
}

/* The connection that there is, or another one. Returns 0, or -1 with ERROR. */
static int connect_again(struct watch_object *self, long long timeout_ms, struct pcmig_virt_error *error)
{
    bool closed;

    pthread_mutex_lock(&self->box->lock);
    closed = self->box->closed;
    self->box->closed = false;
    pthread_mutex_unlock(&self->box->lock);
    if (closed)
        disconnect(self);
    if (self->conn == NULL)
        self->conn = pcmig_virt_open(self->uri, timeout_ms, error);
    if (self->conn == NULL) {
        pcmig_virt_error_explain(error, "cannot connect to", self->uri);
        return -1;
    }
    if (self->source && self->domain == NULL) {
        self->domain = pcmig_virt_lookup(self->conn, self->found ? self->uuid : self->word, error);
        if (self->domain == NULL)
            return -1;
        memcpy(self->uuid, pcmig_virt_domain_uuid(self->domain), sizeof(self->uuid));
        self->found = true;
        note_vcpus(self);
    }
    if (self->watch == NULL) {
        pthread_mutex_lock(&self->box->lock);
        self->box->references++; /* given back by release, also when it fails */
        pthread_mutex_unlock(&self->box->lock);
        self->watch = pcmig_virt_watch(self->conn, self->uuid, self->source, &callbacks, self->box, error);
    }
    if (self->watch == NULL)
        return -1;
    if (self->link == NULL && self->source) {
        const struct pcmig_link_args args = {.uuid = self->uuid, .adopted = true, .at_source = true};

        self->link = pcmig_link_open(&args); /* without it the queue is not known */
    }
    return 0;
}

struct look {
    struct pcmig_virt_job job;
    int64_t start_us; /* of the migration, on the host's clock, where `start_known` */
    bool start_known;
    enum pcmig_half half;
    bool busy; /* the job was asked for in vain */
    char *name;
    struct pcmig_virt_error error;
};

static void note_sample(const struct watch_object *self, struct look *look)
{
    struct pcmig_input input = {.kind = PCMIG_INPUT_SAMPLE, .sample = look->job.sample};
    int64_t now_us = pcmig_clock_us();

    /* Into the object with the GIL only: now_us() reads it whenever anybody asks. */
    if (input.sample.elapsed_ms > 0 && input.sample.elapsed_ms < INT64_MAX / 1000) {
        look->start_us = now_us - (int64_t)input.sample.elapsed_ms * 1000;
        look->start_known = true;
    }
    if (self->link != NULL)
        input.sample.queue_bytes = pcmig_link_queue_bytes(self->link);
    look->job.sample = input.sample;
    if (input.sample.memory_total_bytes == 0)
        input.kind = PCMIG_INPUT_TICK; /* disks are copied: nothing is said of memory yet */
    on_input(self->box, &input);
}

static int look_once(struct watch_object *self, long long timeout_ms, struct look *look)
{
    struct pcmig_virt_error unsaid = {0};
    int result = connect_again(self, timeout_ms, &look->error);

    if (result == 0)
        result = pcmig_virt_half(self->conn, self->uuid, &look->half, &look->error);
    if (result < 0) {
        /* Whatever it was, it is begun anew with the next look. */
        if (pcmig_virt_classify(&look->error) != PCMIG_VIRT_FAILURE_NO_DOMAIN)
            disconnect(self);
        return -1;
    }
    /* A failing statistics call is not a failing migration: the state says more. One that waited in vain for QEMU says
     * less than nothing. */
    if (self->source && pcmig_virt_job_within(self->domain, PCMIG_JOB_PATIENCE_MS, &look->job, &unsaid) < 0)
        look->busy = pcmig_virt_classify(&unsaid) == PCMIG_VIRT_FAILURE_BUSY;
    if (look->job.kind == PCMIG_VIRT_JOB_MIGRATION) {
        note_sample(self, look);
    } else if (self->source) {
        const struct pcmig_input tick = {.kind = PCMIG_INPUT_TICK};

        on_input(self->box, &tick);
    }
    look->name = strdup(self->domain != NULL ? pcmig_virt_domain_name(self->domain) : self->uuid);
    return 0;
}

/* --- with it ------------------------------------------------------------------------------------------------------ */

static int watch_init(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"uri", "domain", "source", NULL};
    struct watch_object *self = (struct watch_object *)op;
    PyObject *module = PyType_GetModule(Py_TYPE(op));
    const char *uri, *word;
    int source = 1;

    if (module == NULL || !PyArg_ParseTupleAndKeywords(args, kwargs, "ss|$p:JobWatch", keywords, &uri, &word, &source))
        return -1;
    if (self->box != NULL || self->uri != NULL) {
        PyErr_SetString(PyExc_ValueError, "it follows a guest already");
        return -1;
    }
    self->uri = strdup(uri);
    self->word = strdup(word);
    self->box = box_new();
    self->source = source != 0;
    self->start_us = pcmig_clock_us();
    if (!self->source)
        snprintf(self->uuid, sizeof(self->uuid), "%s", word);
    if (self->uri != NULL && self->word != NULL && self->box != NULL)
        return 0;
    PyErr_NoMemory();
    return -1;
}

/* All of it is taken out of the object with the GIL: another thread may close it meanwhile. */
static void let_go(struct watch_object *self)
{
    struct box *box = self->box;
    struct pcmig_link *link = self->link;
    struct pcmig_virt_conn *conn = self->conn;
    struct pcmig_virt_domain *domain = self->domain;
    struct pcmig_virt_watch *watch = self->watch;

    self->box = NULL;
    self->link = NULL;
    self->conn = NULL;
    self->domain = NULL;
    self->watch = NULL;
    Py_BEGIN_ALLOW_THREADS
    pcmig_virt_unwatch(watch);
    pcmig_virt_domain_free(domain);
    pcmig_virt_close(conn);
    pcmig_link_close(link);
    if (box != NULL)
        box_unref(box);
    Py_END_ALLOW_THREADS
}

static void watch_dealloc(PyObject *op)
{
    struct watch_object *self = (struct watch_object *)op;
    PyTypeObject *type = Py_TYPE(op);

    let_go(self);
    free(self->uri);
    free(self->word);
    type->tp_free(op);
    Py_DECREF(type);
}

/* Whether it can be used now; otherwise an exception is set. */
static bool is_usable(const struct watch_object *self)
{
    if (self->box == NULL)
        PyErr_SetString(PyExc_ValueError, "it was closed");
    else if (self->busy)
        PyErr_SetString(PyExc_ValueError, "another thread looks just now");
    return self->box != NULL && !self->busy;
}

static PyObject *watch_look(PyObject *op, PyObject *ignored)
{
    struct watch_object *self = (struct watch_object *)op;
    PyObject *module = PyType_GetModule(Py_TYPE(op)), *answer;
    struct look look = {.job.kind = PCMIG_VIRT_JOB_NONE, .half = PCMIG_HALF_UNKNOWN};
    int result;

    (void)ignored;
    if (module == NULL || !is_usable(self))
        return NULL;
    const long long timeout_ms = pcmig_get_state(module)->connect_timeout_ms;

    self->busy = true;
    Py_BEGIN_ALLOW_THREADS
    result = look_once(self, timeout_ms, &look);
    Py_END_ALLOW_THREADS
    self->busy = false;
    if (look.start_known && !self->start_known) {
        self->start_us = look.start_us;
        self->start_known = true;
    }
    if (result < 0) {
        pcmig_errors_raise(module, &look.error);
        return NULL;
    }
    if (look.name == NULL)
        return PyErr_NoMemory();
    answer = pcmig_job_as_dict(look.name, self->uuid, look.half, look.busy, &look.job);
    free(look.name);
    return answer;
}

static PyObject *watch_take(PyObject *op, PyObject *ignored)
{
    struct watch_object *self = (struct watch_object *)op;
    char line[PCMIG_TRACE_LINE_MAX];
    struct pcmig_input *inputs;
    PyObject *list;
    eventfd_t value;
    size_t count;

    (void)ignored;
    if (!is_usable(self))
        return NULL;
    list = PyList_New(0);
    if (list == NULL)
        return NULL;
    (void)eventfd_read(self->box->event_fd, &value); /* before: what comes in between is readable again */
    pthread_mutex_lock(&self->box->lock);
    inputs = self->box->inputs;
    count = self->box->count;
    self->box->inputs = NULL;
    self->box->count = self->box->capacity = 0;
    pthread_mutex_unlock(&self->box->lock);
    for (size_t i = 0; list != NULL && i < count; i++) {
        PyObject *text = NULL;
        int length;

        inputs[i].t_us = inputs[i].t_us > self->start_us ? inputs[i].t_us - self->start_us : 0;
        length = pcmig_trace_write_input(line, sizeof(line), &inputs[i]);
        if (length > 0)
            text = PyUnicode_FromStringAndSize(line, length - 1); /* without the newline */
        else
            PyErr_SetString(PyExc_ValueError, "an input without a name");
        if (text == NULL || PyList_Append(list, text) < 0)
            Py_CLEAR(list);
        Py_XDECREF(text);
    }
    free(inputs);
    return list;
}

static PyObject *watch_fileno(PyObject *op, PyObject *ignored)
{
    const struct watch_object *self = (struct watch_object *)op;

    (void)ignored;
    if (self->box == NULL) {
        PyErr_SetString(PyExc_ValueError, "it was closed");
        return NULL;
    }
    return PyLong_FromLong(self->box->event_fd);
}

static PyObject *watch_now_us(PyObject *op, PyObject *ignored)
{
    const struct watch_object *self = (struct watch_object *)op;

    (void)ignored;
    return PyLong_FromLongLong(pcmig_clock_us() - self->start_us);
}

static PyObject *watch_close(PyObject *op, PyObject *ignored)
{
    struct watch_object *self = (struct watch_object *)op;

    (void)ignored;
    if (self->busy) {
        PyErr_SetString(PyExc_ValueError, "another thread looks just now");
        return NULL;
    }
    let_go(self);
    Py_RETURN_NONE;
}

static PyMethodDef watch_methods[] = {
    {"look", watch_look, METH_NOARGS,
     "look() -> dict\n\nAsks once, as job_status() does, over a connection that stays open; opens another one where "
     "that broke. Blocks without the GIL. Raises LibvirtError."},
    {"take", watch_take, METH_NOARGS,
     "take() -> list[str]\n\nWhat looks and events have told since the last call, as lines of a trace."},
    {"fileno", watch_fileno, METH_NOARGS, "fileno() -> int\n\nReadable when there is something to take()."},
    {"now_us", watch_now_us, METH_NOARGS,
     "now_us() -> int\n\nThe time on which those lines go: since the migration "
     "began, as far as that is known."},
    {"close", watch_close, METH_NOARGS, "close()\n\nFollows the guest no more."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot watch_slots[] = {
    {Py_tp_doc,
     "JobWatch(uri, domain, *, source=True)\n\nFollows the migration of a guest at URI, which anybody drives. "
     "Connects with the first look()."},
    {Py_tp_init, watch_init},
    {Py_tp_dealloc, watch_dealloc},
    {Py_tp_methods, watch_methods},
    {0, NULL},
};

static PyType_Spec watch_spec = {
    .name = "pcmig._core.JobWatch",
    .basicsize = sizeof(struct watch_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = watch_slots,
};

int pcmig_job_watch_setup(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &watch_spec, NULL);
    int rc = type == NULL ? -1 : PyModule_AddType(module, (PyTypeObject *)type);

    Py_XDECREF(type);
    return rc;
}
