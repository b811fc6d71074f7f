/* SPDX-License-Identifier: Apache-2.0 */
/* guard() and what belongs to it: what may be done to which half of a guest, see core/guard.h; and half(), which asks a
 * host for its half. */
#include "core/guard.h"

#include "core/engine_state.h"
#include "core/shell.h"
#include "edge/virt.h"
#include "python/state.h"

#include <stdio.h>
#include <string.h>

/* A name of one of the core's tables. Returns the value, or -1 with an exception set that lists the names there are. */
static int value_of(const char *argument, const char *name, int (*find)(const char *, size_t),
                    const char *(*name_of)(int), int count)
{
    int value = find(name, strlen(name));
    PyObject *names;

    if (value >= 0)
        return value;
    names = PyUnicode_FromString(name_of(0));
    for (int i = 1; names != NULL && i < count; i++) {
        PyObject *longer = PyUnicode_FromFormat("%U, %s", names, name_of(i));

        Py_SETREF(names, longer);
    }
    if (names != NULL)
        PyErr_Format(PyExc_ValueError, "%s: \"%s\" is none of %U", argument, name, names);
    Py_XDECREF(names);
    return -1;
}

static const char *half_name(int half)
{
    return pcmig_half_name((enum pcmig_half)half);
}

static const char *side_name(int side)
{
    return pcmig_side_name((enum pcmig_side)side);
}

static const char *act_name(int act)
{
    return pcmig_act_name((enum pcmig_act)act);
}

/* The arguments that guard() and memory_where() have in common, as they are parsed. */
struct seen {
    const char *source;
    const char *destination;
    int in_flight;
    int call_succeeded;
    int source_handed_off;
    int source_shut_down;
    int destination_shut_down;
    int disks_copied;
    int crossed;
    int turned_back;
    PyObject *job_active; /* borrowed; None = not known */
};

/* Returns 0, or -1 with an exception set. */
static int to_evidence(const struct seen *seen, struct pcmig_evidence *evidence)
{
    int source = value_of("source", seen->source, pcmig_half_find, half_name, PCMIG_HALF_COUNT);
    int destination =
        source < 0 ? -1 : value_of("destination", seen->destination, pcmig_half_find, half_name, PCMIG_HALF_COUNT);
    int job = 0;

    if (destination < 0)
        return -1;
    if (seen->job_active != Py_None) {
        job = PyObject_IsTrue(seen->job_active);
        if (job < 0)
            return -1;
    }
    *evidence = (struct pcmig_evidence){
        .source = (enum pcmig_half)source,
        .destination = (enum pcmig_half)destination,
        .call_succeeded = seen->call_succeeded != 0,
        .source_handed_off = seen->source_handed_off != 0,
        .job_active = job != 0,
        .job_absent = seen->job_active != Py_None && job == 0,
        .in_flight = seen->in_flight != 0,
        .source_shut_down = seen->source_shut_down != 0,
        .destination_shut_down = seen->destination_shut_down != 0,
        .disks_copied = seen->disks_copied != 0,
        .crossed = seen->crossed != 0,
        .turned_back = seen->turned_back != 0,
    };
    return 0;
}

static PyObject *advice_or_none(const char *advice, const struct pcmig_guard_names *names)
{
    size_t size = 256;
    PyObject *text;
    char *out;

    if (advice == NULL)
        Py_RETURN_NONE;
    out = PyMem_Malloc(size);
    /* However often a name is in it, and however much of it has to be quoted. */
    while (out != NULL && !pcmig_guard_advice(advice, names, out, size)) {
        PyMem_Free(out);
        size *= 4;
        out = PyMem_Malloc(size);
    }
    if (out == NULL)
        return PyErr_NoMemory();
    text = PyUnicode_FromString(out);
    PyMem_Free(out);
    return text;
}

static PyObject *py_guest_word(PyObject *module, PyObject *args)
{
    const char *name, *uuid;

    (void)module;
    if (!PyArg_ParseTuple(args, "ss:guest_word", &name, &uuid))
        return NULL;
    return PyUnicode_FromString(pcmig_shell_guest(name, uuid));
}

static PyObject *py_guard(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"side",
                               "act",
                               "source",
                               "destination",
                               "in_flight",
                               "call_succeeded",
                               "source_handed_off",
                               "job_active",
                               "insist",
                               "guest",
                               "source_uri",
                               "dest_uri",
                               "source_shut_down",
                               "destination_shut_down",
                               "disks_copied",
                               "crossed",
                               "turned_back",
                               NULL};
    struct seen seen = {.source = "unknown", .destination = "unknown", .job_active = Py_None};
    struct pcmig_guard_names names = {NULL, NULL, NULL};
    const char *side_text = NULL, *act_text = NULL;
    int side, act, insist = 0;
    struct pcmig_evidence evidence;
    struct pcmig_permission p;

    (void)module;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|$sssspppOpzzzppppp:guard", keywords, &side_text, &act_text,
                                     &seen.source, &seen.destination, &seen.in_flight, &seen.call_succeeded,
                                     &seen.source_handed_off, &seen.job_active, &insist, &names.guest,
                                     &names.source_uri, &names.dest_uri, &seen.source_shut_down,
                                     &seen.destination_shut_down, &seen.disks_copied, &seen.crossed, &seen.turned_back))
        return NULL;
    /* The format has no way to say that an argument is for its keyword only, and needed. */
    if (side_text == NULL || act_text == NULL) {
        PyErr_Format(PyExc_TypeError, "guard() missing the keyword argument '%s'", side_text == NULL ? "side" : "act");
        return NULL;
    }
    side = value_of("side", side_text, pcmig_side_find, side_name, PCMIG_SIDE_COUNT);
    if (side < 0)
        return NULL;
    act = value_of("act", act_text, pcmig_act_find, act_name, PCMIG_ACT_COUNT);
    if (act < 0 || to_evidence(&seen, &evidence) < 0)
        return NULL;
    p = pcmig_guard_may(&evidence, (enum pcmig_side)side, (enum pcmig_act)act, insist != 0);
    return Py_BuildValue(
        "{s:N,s:s,s:N,s:N,s:s,s:s}", "allowed", PyBool_FromLong(p.allowed), "reason", p.reason, "advice",
        advice_or_none(p.advice, &names), "rest", advice_or_none(pcmig_guard_rest(&evidence), &names), "situation",
        pcmig_situation_name(p.situation), "memory", pcmig_memory_name(pcmig_situation_memory(p.situation)));
}

static PyObject *py_memory_where(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"source",     "destination", "in_flight", "call_succeeded", "source_handed_off",
                               "job_active", NULL};
    struct seen seen = {.source = "unknown", .destination = "unknown", .job_active = Py_None};
    struct pcmig_evidence evidence;

    (void)module;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|$sspppO:memory_where", keywords, &seen.source, &seen.destination,
                                     &seen.in_flight, &seen.call_succeeded, &seen.source_handed_off, &seen.job_active))
        return NULL;
    if (to_evidence(&seen, &evidence) < 0)
        return NULL;
    return PyUnicode_FromString(pcmig_memory_name(pcmig_memory_where(&evidence)));
}

/* Names of the acts that SITUATION permits on SIDE. */
static PyObject *permitted(enum pcmig_situation situation, enum pcmig_side side)
{
    PyObject *list = PyList_New(0);

    for (int act = 0; list != NULL && act < PCMIG_ACT_COUNT; act++) {
        PyObject *name;

        if (!pcmig_guard_permits(situation, side, (enum pcmig_act)act))
            continue;
        name = PyUnicode_FromString(act_name(act));
        if (name == NULL || PyList_Append(list, name) < 0)
            Py_CLEAR(list);
        Py_XDECREF(name);
    }
    return list;
}

static PyObject *py_situations(PyObject *module, PyObject *unused)
{
    static const struct pcmig_guard_names names = {NULL, NULL, NULL};
    PyObject *list = PyList_New(0);

    (void)module;
    (void)unused;
    for (int i = 0; list != NULL && i < PCMIG_SITUATION_COUNT; i++) {
        enum pcmig_situation situation = (enum pcmig_situation)i;
        PyObject *row = Py_BuildValue(
            "{s:s,s:s,s:s,s:N,s:N,s:N}", "name", pcmig_situation_name(situation), "memory",
            pcmig_memory_name(pcmig_situation_memory(situation)), "text", pcmig_situation_text(situation), "advice",
            advice_or_none(pcmig_guard_situation_advice(situation), &names), "source",
            permitted(situation, PCMIG_SIDE_SOURCE), "destination", permitted(situation, PCMIG_SIDE_DESTINATION));

        if (row == NULL || PyList_Append(list, row) < 0)
            Py_CLEAR(list);
        Py_XDECREF(row);
    }
    return list;
}

/* Ways out of STATE: (trigger, state). */
static PyObject *ways_out(enum pcmig_engine_state state)
{
    PyObject *list = PyList_New(0);

    for (int trigger = 0; list != NULL && trigger < PCMIG_TRIGGER_COUNT; trigger++) {
        enum pcmig_engine_state to = pcmig_engine_next(state, (enum pcmig_engine_trigger)trigger);
        PyObject *way;

        if (to == state)
            continue;
        way = Py_BuildValue("(ss)", pcmig_engine_trigger_text((enum pcmig_engine_trigger)trigger),
                            pcmig_engine_state_name(to));
        if (way == NULL || PyList_Append(list, way) < 0)
            Py_CLEAR(list);
        Py_XDECREF(way);
    }
    return list;
}

static PyObject *py_engine_states(PyObject *module, PyObject *unused)
{
    PyObject *list = PyList_New(0);

    (void)module;
    (void)unused;
    for (int i = 0; list != NULL && i < PCMIG_ENGINE_STATE_COUNT; i++) {
        enum pcmig_engine_state state = (enum pcmig_engine_state)i;
        PyObject *row = Py_BuildValue("{s:s,s:s,s:N,s:N}", "name", pcmig_engine_state_name(state), "text",
                                      pcmig_engine_state_text(state), "asks", PyBool_FromLong(pcmig_engine_asks(state)),
                                      "ways", ways_out(state));

        if (row == NULL || PyList_Append(list, row) < 0)
            Py_CLEAR(list);
        Py_XDECREF(row);
    }
    return list;
}

/* --- a host ------------------------------------------------------------------------------------------------------- */

struct answer {
    enum pcmig_half half;
    int job; /* 1, 0, -1 = it could not tell */
    bool shut_down;
    bool runs;    /* in a post-copy that was interrupted: its processors run nevertheless */
    bool running; /* its processors run there */
    int id;       /* -1 = it is off */
    bool defined; /* has a definition there, whatever becomes of the half */
};

/* Without the GIL. Returns 0, or -1. */
static int ask_host(const char *uri, const char *uuid, int64_t timeout_ms, struct answer *out,
                    struct pcmig_virt_error *error)
{
    struct pcmig_virt_conn *conn = pcmig_virt_open(uri, timeout_ms, error);
    struct pcmig_virt_error unsaid = {0};
    struct pcmig_virt_domain *domain;
    struct pcmig_virt_guest guest;
    struct pcmig_virt_job job;
    int rc;

    if (conn == NULL)
        return -1;
    rc = pcmig_virt_guest(conn, uuid, &guest, error);
    out->half = guest.half;
    out->shut_down = guest.shut_down;
    out->runs = guest.runs_on;
    out->running = guest.running;
    if (rc == 0 && out->half == PCMIG_HALF_ABSENT)
        out->job = 0;
    if (rc == 0)
        out->defined = pcmig_virt_defined(conn, uuid) == 1;
    if (rc == 0 && out->half != PCMIG_HALF_ABSENT)
        out->id = pcmig_virt_id(conn, uuid);
    /* Nobody needs to know of the job where the half itself speaks of a migration, and there the question may block. */
    if (rc == 0 && (out->half == PCMIG_HALF_RUNNING || out->half == PCMIG_HALF_PAUSED)) {
        domain = pcmig_virt_lookup(conn, uuid, &unsaid);
        if (domain != NULL)
            out->job = pcmig_virt_job_within(domain, PCMIG_JOB_PATIENCE_MS, &job, &unsaid) < 0 ? -1
                       : job.kind == PCMIG_VIRT_JOB_MIGRATION                                  ? 1
                                                                                               : 0;
        pcmig_virt_domain_free(domain);
    }
    pcmig_virt_close(conn);
    return rc;
}

static PyObject *py_half(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"uri", "uuid", "connect_timeout_ms", NULL};
    long long timeout_ms = pcmig_get_state(module)->connect_timeout_ms;
    struct pcmig_virt_error error = {0};
    struct answer answer = {.half = PCMIG_HALF_UNKNOWN, .job = -1, .id = -1};
    const char *uri, *uuid;
    int rc;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "ss|L:half", keywords, &uri, &uuid, &timeout_ms))
        return NULL;
    if (timeout_ms <= 0) {
        PyErr_Format(PyExc_ValueError, "connect_timeout_ms: %lld, expected more than 0", timeout_ms);
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    rc = ask_host(uri, uuid, timeout_ms, &answer, &error);
    Py_END_ALLOW_THREADS
    if (rc < 0) {
        char reason[sizeof(error.message)];

        /* libvirt's own text may name a socket or an address, never the URI. */
        snprintf(reason, sizeof(reason), "cannot ask %.160s about %.40s: %.280s", uri, uuid, error.message);
        memcpy(error.message, reason, sizeof(reason));
        pcmig_errors_raise(module, &error);
        return NULL;
    }
    return Py_BuildValue("{s:s,s:N,s:N,s:N,s:N,s:N,s:N}", "half", pcmig_half_name(answer.half), "job_active",
                         answer.job < 0 ? Py_NewRef(Py_None) : PyBool_FromLong(answer.job), "shut_down",
                         PyBool_FromLong(answer.shut_down), "defined", PyBool_FromLong(answer.defined), "runs",
                         PyBool_FromLong(answer.runs), "running", PyBool_FromLong(answer.running), "id",
                         answer.id < 0 ? Py_NewRef(Py_None) : PyLong_FromLong(answer.id));
}

#define CALL(function) (PyCFunction)(void (*)(void))(function)

static PyMethodDef methods[] = {
    {"guard", CALL(py_guard), METH_VARARGS | METH_KEYWORDS,
     "guard(*, side, act, source='unknown', destination='unknown', in_flight=False, call_succeeded=False, "
     "source_handed_off=False, job_active=None, insist=False, guest=None, source_uri=None, dest_uri=None, "
     "source_shut_down=False, destination_shut_down=False, disks_copied=False, crossed=False, "
     "turned_back=False)\n--\n\n"
     "Whether ACT may be done to the half on SIDE: allowed, reason, advice, rest, situation, memory. Raises ValueError "
     "for "
     "an "
     "unknown name."},
    {"memory_where", CALL(py_memory_where), METH_VARARGS | METH_KEYWORDS,
     "memory_where(*, source='unknown', destination='unknown', in_flight=False, call_succeeded=False, "
     "source_handed_off=False, job_active=None)\n--\n\n"
     "Who holds the newer memory: \"source\", \"destination\", \"both\", \"nowhere\" or \"unknown\"."},
    {"situations", py_situations, METH_NOARGS,
     "situations()\n--\n\nEvery situation, with the acts that the guard permits in it on each side."},
    {"engine_states", py_engine_states, METH_NOARGS,
     "engine_states()\n--\n\nEvery state of the engine, with what leads out of it."},
    {"guest_word", py_guest_word, METH_VARARGS,
     "guest_word(name, uuid) -> str\n\nHow to name the guest in a command: its UUID where the name may mean another "
     "guest, "
     "an "
     "option or nothing."},
    {"half", CALL(py_half), METH_VARARGS | METH_KEYWORDS,
     "half(uri, uuid, connect_timeout_ms=...)\n--\n\n"
     "The half of the guest with this UUID at URI: half, job_active, shut_down, defined, runs, id. Raises LibvirtError "
     "when the "
     "host does not "
     "tell."},
    {NULL, NULL, 0, NULL},
};

int pcmig_guard_setup(PyObject *module)
{
    return PyModule_AddFunctions(module, methods);
}
