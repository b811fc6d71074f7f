/* SPDX-License-Identifier: Apache-2.0 */
/* turn_back_look(), turn_back_rule() and turn_back(): a guest that goes on at the source after the switch. Blocking,
 * without the GIL, but for the rule. See core/turn_back.h, edge/virt_qemu.h. */
#include "core/turn_back.h"

#include "edge/virt_qemu.h"
#include "python/state.h"

#include <stdio.h>
#include <string.h>

#define STEPS_BYTES 1024
#define SETS_ACTIVE 10000000UL /* blockdev-set-active */

/* The guest at the source, connected. */
struct source {
    const char *uri;
    const char *uuid;
    long long timeout_ms;
    struct pcmig_virt_conn *conn;
    struct pcmig_virt_domain *domain;
    struct pcmig_virt_error error;
};

static int parse(PyObject *module, PyObject *args, PyObject *kwargs, const char *format, struct source *source)
{
    static char *keywords[] = {"uri", "uuid", "connect_timeout_ms", NULL};

    source->timeout_ms = pcmig_get_state(module)->connect_timeout_ms;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, format, keywords, &source->uri, &source->uuid, &source->timeout_ms))
        return -1;
    if (source->timeout_ms <= 0) {
        PyErr_Format(PyExc_ValueError, "connect_timeout_ms: %lld, expected more than 0", source->timeout_ms);
        return -1;
    }
    return 0;
}

/* Without the GIL. */
static int open_source(struct source *source)
{
    source->conn = pcmig_virt_open(source->uri, source->timeout_ms, &source->error);
    source->domain = source->conn != NULL ? pcmig_virt_lookup(source->conn, source->uuid, &source->error) : NULL;
    return source->domain != NULL ? 0 : -1;
}

static void close_source(struct source *source)
{
    pcmig_virt_domain_free(source->domain);
    pcmig_virt_close(source->conn);
}

static void raise_error(PyObject *module, struct source *source, const char *steps)
{
    char reason[sizeof(source->error.message)];

    /* libvirt's own text may name a socket or an address, never the URI. */
    snprintf(reason, sizeof(reason), "%.280s (at %.100s%s%.80s)", source->error.message, source->uri,
             steps[0] != '\0' ? "; done before: " : "", steps);
    memcpy(source->error.message, reason, sizeof(reason));
    pcmig_errors_raise(module, &source->error);
}

/* None = QEMU does not say. */
static PyObject *figure(int64_t number)
{
    return number < 0 ? Py_NewRef(Py_None) : PyLong_FromLongLong((long long)number);
}

static PyObject *py_turn_back_look(PyObject *module, PyObject *args, PyObject *kwargs)
{
    struct source source = {0};
    struct pcmig_virt_turn_back seen;
    int rc;

    if (parse(module, args, kwargs, "ss|L:turn_back_look", &source) < 0)
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    rc = open_source(&source);
    if (rc == 0)
        rc = pcmig_virt_turn_back_look(source.domain, &seen, &source.error);
    close_source(&source);
    Py_END_ALLOW_THREADS
    if (rc < 0) {
        raise_error(module, &source, "");
        return NULL;
    }
    return Py_BuildValue("{s:s,s:s,s:s,s:N,s:N,s:N,s:k,s:N,s:N}", "run_state", seen.run_state, "migration",
                         seen.migration, "half", pcmig_turn_back_half_name(pcmig_virt_turn_back_half(&seen)),
                         "remaining_bytes", figure(seen.stream.remaining_bytes), "sent_bytes",
                         figure(seen.stream.sent_bytes), "requests", figure(seen.stream.requests), "qemu", seen.qemu,
                         "sets_active", PyBool_FromLong(seen.qemu >= SETS_ACTIVE), "discards_memory",
                         PyBool_FromLong(seen.discards_memory));
}

static PyObject *py_turn_back(PyObject *module, PyObject *args, PyObject *kwargs)
{
    struct source source = {0};
    char steps[STEPS_BYTES] = "";
    PyObject *list;
    char *rest = NULL;
    int rc;

    if (parse(module, args, kwargs, "ss|L:turn_back", &source) < 0)
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    rc = open_source(&source);
    if (rc == 0)
        rc = pcmig_virt_turn_back(source.domain, steps, sizeof(steps), &source.error);
    close_source(&source);
    Py_END_ALLOW_THREADS
    if (rc < 0) {
        for (char *at = steps; *at != '\0'; at++)
            *at = *at != '\n' ? *at : at[1] != '\0' ? ',' : ' ';
        raise_error(module, &source, steps);
        return NULL;
    }
    list = PyList_New(0);
    for (char *step = strtok_r(steps, "\n", &rest); list != NULL && step != NULL; step = strtok_r(NULL, "\n", &rest)) {
        PyObject *text = PyUnicode_DecodeFSDefault(step);

        if (text == NULL || PyList_Append(list, text) < 0)
            Py_CLEAR(list);
        Py_XDECREF(text);
    }
    return list;
}

/* A name of one of the core's tables, or -1 with an exception set that lists the names there are. */
static int value_of(const char *argument, const char *name, int (*find)(const char *, size_t), const char *names)
{
    const int value = find(name, strlen(name));

    if (value < 0)
        PyErr_Format(PyExc_ValueError, "%s: \"%s\" is none of %s", argument, name, names);
    return value;
}

static PyObject *py_turn_back_rule(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"half",
                               "disks",
                               "begun",
                               "unrun",
                               "everything_sent",
                               "sets_active",
                               "discards_memory",
                               "nowhere_else",
                               "accept_newer_disks",
                               "mode",
                               NULL};
    const char *half_text = NULL, *disks_text = NULL, *mode_text = "never";
    int begun = 0, unrun = 0, sent = 0, sets = 0, discards = 0, nowhere = 0, accept = 0, half, disks, mode;
    struct pcmig_turn_back_facts facts;
    struct pcmig_turn_back_verdict verdict;

    (void)module;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|$ssppppppps:turn_back_rule", keywords, &half_text, &disks_text,
                                     &begun, &unrun, &sent, &sets, &discards, &nowhere, &accept, &mode_text))
        return NULL;
    if (half_text == NULL || disks_text == NULL) {
        PyErr_Format(PyExc_TypeError, "turn_back_rule() missing the keyword argument '%s'",
                     half_text == NULL ? "half" : "disks");
        return NULL;
    }
    half = value_of("half", half_text, pcmig_turn_back_half_find, "other, waits, sends, runs, stopped");
    disks = half < 0 ? -1 : value_of("disks", disks_text, pcmig_turn_back_disks_find, "none, own, shared");
    mode = disks < 0 ? -1 : value_of("mode", mode_text, pcmig_turn_back_mode_find, "never, unrun, ask");
    if (mode < 0)
        return NULL;
    facts = (struct pcmig_turn_back_facts){
        .half = (enum pcmig_turn_back_half)half,
        .disks = (enum pcmig_turn_back_disks)disks,
        .begun = begun != 0,
        .unrun = unrun != 0,
        .everything_sent = sent != 0,
        .sets_active = sets != 0,
        .discards_memory = discards != 0,
        .nowhere_else = nowhere != 0,
        .accept_newer_disks = accept != 0,
    };
    verdict = pcmig_turn_back_judge(&facts);
    return Py_BuildValue("{s:s,s:N,s:s,s:z,s:N}", "answer", pcmig_turn_back_answer_name(verdict.answer), "nothing_lost",
                         PyBool_FromLong(verdict.nothing_lost), "text", verdict.text, "word", verdict.word, "by_itself",
                         PyBool_FromLong(pcmig_turn_back_by_itself((enum pcmig_turn_back_mode)mode, &facts)));
}

#define CALL(function) (PyCFunction)(void (*)(void))(function)

static PyMethodDef methods[] = {
    {"turn_back_look", CALL(py_turn_back_look), METH_VARARGS | METH_KEYWORDS,
     "turn_back_look(uri, uuid, connect_timeout_ms=...)\n--\n\n"
     "What QEMU at the source says of the half there. Changes nothing. Raises LibvirtError."},
    {"turn_back_rule", CALL(py_turn_back_rule), METH_VARARGS | METH_KEYWORDS,
     "turn_back_rule(*, half, disks, begun=False, unrun=False, everything_sent=False, sets_active=False, "
     "discards_memory=False, "
     "nowhere_else=False, accept_newer_disks=False, mode='never')\n--\n\n"
     "Whether that half can go on, and what it undoes: answer, nothing_lost, text, word, by_itself. Raises "
     "ValueError for an unknown name."},
    {"turn_back", CALL(py_turn_back), METH_VARARGS | METH_KEYWORDS,
     "turn_back(uri, uuid, connect_timeout_ms=...)\n--\n\n"
     "Lets the guest go on at the source, from the moment of the switch: the steps that were done. Nobody may call it "
     "who has not asked guard() and turn_back_rule(). Raises LibvirtError."},
    {NULL, NULL, 0, NULL},
};

int pcmig_turn_back_setup(PyObject *module)
{
    return PyModule_AddFunctions(module, methods);
}
