/* SPDX-License-Identifier: Apache-2.0 */
/* Jobs of somebody else: what `pcmig watch`, `abort`, `switch`, `pause` and `status` need. Blocking, without the GIL.
 */
#include "core/names.h"
#include "core/recovery.h"
#include "edge/clock.h"
#include "edge/turns_file.h"
#include "edge/virt.h"
#include "engine/empty_half.h"
#include "python/state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ABORT_HOLD_MS 2000
#define ABORT_LOOK_MS 20

struct job {
    const char *uri;
    const char *name;
    long long timeout_ms; /* of the connection */
    struct pcmig_virt_conn *conn;
    struct pcmig_virt_domain *domain;
    struct pcmig_virt_error error;
};

/* Returns 0 with connection and guest, or -1. Without the GIL. */
static int job_open(struct job *job)
{
    job->conn = pcmig_virt_open(job->uri, job->timeout_ms, &job->error);
    if (job->conn == NULL) {
        pcmig_virt_error_explain(&job->error, "cannot connect to", job->uri);
        return -1;
    }
    job->domain = pcmig_virt_lookup(job->conn, job->name, &job->error);
    return job->domain != NULL ? 0 : -1;
}

static void job_close(struct job *job)
{
    pcmig_virt_domain_free(job->domain);
    pcmig_virt_close(job->conn);
}

PyObject *pcmig_job_as_dict(const char *name, const char *uuid, enum pcmig_half half, bool busy,
                            const struct pcmig_virt_job *job)
{
    bool active = job->kind == PCMIG_VIRT_JOB_MIGRATION;
    const char *state = half == PCMIG_HALF_POSTCOPY          ? "postcopy"
                        : half == PCMIG_HALF_POSTCOPY_FAILED ? "paused"
                        : active                             ? "precopy"
                        : busy                               ? "unknown"
                                                             : "none";

    return Py_BuildValue("{s:s,s:s,s:s,s:s,s:z,s:N}", "name", name, "uuid", uuid, "state", state, "half",
                         pcmig_half_name(half), "other_job", job->name, "sample",
                         active ? pcmig_sample_as_dict(&job->sample) : Py_NewRef(Py_None));
}

static PyObject *py_job_status(PyObject *module, PyObject *args)
{
    struct job job = {.timeout_ms = pcmig_get_state(module)->connect_timeout_ms};
    struct pcmig_virt_job found = {.kind = PCMIG_VIRT_JOB_NONE};
    struct pcmig_virt_error unsaid = {0};
    enum pcmig_half half = PCMIG_HALF_UNKNOWN;
    bool busy = false;
    char uuid[PCMIG_VIRT_UUID_SIZE] = "";
    char *name = NULL;
    PyObject *answer;
    int result;

    if (!PyArg_ParseTuple(args, "ss:job_status", &job.uri, &job.name))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    result = job_open(&job);
    if (result == 0)
        result = pcmig_virt_half(job.conn, pcmig_virt_domain_uuid(job.domain), &half, &job.error);
    /* A failing statistics call is not a failing migration: the state says more. One that waited in vain for QEMU says
     * less than nothing. */
    if (result == 0 && pcmig_virt_job_within(job.domain, PCMIG_JOB_PATIENCE_MS, &found, &unsaid) < 0)
        busy = pcmig_virt_classify(&unsaid) == PCMIG_VIRT_FAILURE_BUSY;
    if (result == 0) {
        name = strdup(pcmig_virt_domain_name(job.domain));
        memcpy(uuid, pcmig_virt_domain_uuid(job.domain), sizeof(uuid));
    }
    job_close(&job);
    Py_END_ALLOW_THREADS
    if (result < 0) {
        pcmig_errors_raise(module, &job.error);
        return NULL;
    }
    if (name == NULL)
        return PyErr_NoMemory();
    answer = pcmig_job_as_dict(name, uuid, half, busy, &found);
    free(name);
    return answer;
}

/* What the three one-shot calls have in common. */
static PyObject *one_shot(PyObject *module, PyObject *args,
                          int (*call)(struct pcmig_virt_domain *domain, struct pcmig_virt_error *error))
{
    struct job job = {.timeout_ms = pcmig_get_state(module)->connect_timeout_ms};
    int result;

    if (!PyArg_ParseTuple(args, "ss", &job.uri, &job.name))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    result = job_open(&job);
    if (result == 0)
        result = call(job.domain, &job.error);
    job_close(&job);
    Py_END_ALLOW_THREADS
    if (result < 0) {
        pcmig_errors_raise(module, &job.error);
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *py_share_event_loop(PyObject *module, PyObject *unused)
{
    (void)unused;
    if (!pcmig_virt_share_event_loop()) {
        PyErr_SetString(pcmig_get_state(module)->error,
                        "pcmig runs libvirt's event loop already: share it before the first connection");
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *py_set_connect_timeout(PyObject *module, PyObject *args)
{
    long long timeout_ms;

    if (!PyArg_ParseTuple(args, "L:set_connect_timeout", &timeout_ms))
        return NULL;
    if (timeout_ms <= 0) {
        PyErr_Format(PyExc_ValueError, "timeout_ms: %lld, expected more than 0", timeout_ms);
        return NULL;
    }
    pcmig_get_state(module)->connect_timeout_ms = timeout_ms;
    Py_RETURN_NONE;
}

/* At the moment at which QEMU begins it waits, as the engine does. */
static int abort_begun(struct pcmig_virt_domain *domain, struct pcmig_virt_error *error)
{
    const struct timespec pause = {.tv_nsec = ABORT_LOOK_MS * 1000000};
    const int64_t until_us = pcmig_clock_us() + ABORT_HOLD_MS * 1000;

    while (pcmig_clock_us() < until_us) {
        if (pcmig_virt_abort(domain, false, PCMIG_JOB_PATIENCE_MS, error) == 0)
            return 0;
        if (pcmig_virt_classify(error) != PCMIG_VIRT_FAILURE_BUSY)
            return -1;
        (void)nanosleep(&pause, NULL);
    }
    return pcmig_virt_abort(domain, true, PCMIG_JOB_PATIENCE_MS, error);
}

static PyObject *py_job_abort(PyObject *module, PyObject *args)
{
    return one_shot(module, args, abort_begun);
}

/* Without the GIL. Returns whether it was removed. */
static bool remove_half(const char *source_uri, const char *dest_uri, const char *uuid, long long timeout_ms,
                        struct pcmig_virt_error *error)
{
    struct pcmig_virt_conn *source = pcmig_virt_open(source_uri, timeout_ms, error);
    struct pcmig_virt_conn *destination = source != NULL ? pcmig_virt_open(dest_uri, timeout_ms, error) : NULL;
    bool removed = destination != NULL && pcmig_empty_half_remove(source, destination, uuid, error);

    pcmig_virt_close(destination);
    pcmig_virt_close(source);
    return removed;
}

static PyObject *py_remove_empty_half(PyObject *module, PyObject *args)
{
    const long long timeout_ms = pcmig_get_state(module)->connect_timeout_ms;
    const char *source_uri, *dest_uri, *uuid;
    struct pcmig_virt_error error = {0};
    bool removed;

    if (!PyArg_ParseTuple(args, "sss:remove_empty_half", &source_uri, &dest_uri, &uuid))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    removed = remove_half(source_uri, dest_uri, uuid, timeout_ms, &error);
    Py_END_ALLOW_THREADS
    if (!removed) {
        pcmig_errors_raise(module, &error);
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *py_job_switch(PyObject *module, PyObject *args)
{
    return one_shot(module, args, pcmig_virt_start_postcopy);
}

static PyObject *py_job_pause(PyObject *module, PyObject *args)
{
    return one_shot(module, args, pcmig_virt_pause_postcopy);
}

/* --- all of a host ------------------------------------------------------------------------------------------------ */

struct found {
    char uuid[PCMIG_VIRT_UUID_SIZE];
    char *name;
    enum pcmig_half half;
    int job; /* 1, 0, or -1 when libvirt could not tell in time */
};

/* Fills OUT when a migration of the guest is under way there, may be, or was interrupted. Returns whether it was. */
static bool migrates(struct pcmig_virt_conn *conn, const char *uuid, struct found *out)
{
    struct pcmig_virt_error unsaid = {0};
    struct pcmig_virt_domain *domain = pcmig_virt_lookup(conn, uuid, &unsaid);
    struct pcmig_virt_job job = {.kind = PCMIG_VIRT_JOB_NONE};

    if (domain == NULL || pcmig_virt_half(conn, uuid, &out->half, &unsaid) < 0) {
        pcmig_virt_domain_free(domain);
        return false;
    }
    /* Where the half itself speaks of a migration the question for its job may block. */
    if ((out->half == PCMIG_HALF_RUNNING || out->half == PCMIG_HALF_PAUSED) &&
        pcmig_virt_job_within(domain, PCMIG_JOB_PATIENCE_MS, &job, &unsaid) < 0)
        out->job = pcmig_virt_classify(&unsaid) == PCMIG_VIRT_FAILURE_BUSY ? -1 : 0;
    else
        out->job = job.kind == PCMIG_VIRT_JOB_MIGRATION ? 1 : 0;
    if (out->job != 0 || out->half == PCMIG_HALF_MIGRATING || out->half == PCMIG_HALF_POSTCOPY ||
        out->half == PCMIG_HALF_POSTCOPY_FAILED) {
        memcpy(out->uuid, uuid, sizeof(out->uuid));
        out->name = strdup(pcmig_virt_domain_name(domain));
    }
    pcmig_virt_domain_free(domain);
    return out->name != NULL;
}

/* Without the GIL. Returns 0 with COUNT guests in FOUND, or -1. */
static int find_all(const char *uri, long long timeout_ms, struct found **found, size_t *count,
                    struct pcmig_virt_error *error)
{
    char(*uuids)[PCMIG_VIRT_UUID_SIZE] = NULL;
    struct pcmig_virt_conn *conn = pcmig_virt_open(uri, timeout_ms, error);
    size_t active = 0;
    int result = conn != NULL ? pcmig_virt_active(conn, &uuids, &active, error) : -1;

    *count = 0;
    *found = calloc(active + 1, sizeof(**found));
    for (size_t i = 0; *found != NULL && i < active; i++)
        *count += migrates(conn, uuids[i], &(*found)[*count]) ? 1 : 0;
    free(uuids);
    pcmig_virt_close(conn);
    return result;
}

static PyObject *py_migrations(PyObject *module, PyObject *args)
{
    struct pcmig_virt_error error = {0};
    const long long timeout_ms = pcmig_get_state(module)->connect_timeout_ms;
    struct found *found = NULL;
    PyObject *list = NULL;
    size_t count = 0;
    const char *uri;
    int result;

    if (!PyArg_ParseTuple(args, "s:migrations", &uri))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    result = find_all(uri, timeout_ms, &found, &count, &error);
    Py_END_ALLOW_THREADS
    if (result < 0)
        pcmig_errors_raise(module, &error);
    else if (found == NULL)
        PyErr_NoMemory();
    else
        list = PyList_New(0);
    for (size_t i = 0; i < count; i++) {
        PyObject *row = list == NULL ? NULL
                                     : Py_BuildValue("{s:s,s:s,s:s,s:O}", "uuid", found[i].uuid, "name", found[i].name,
                                                     "half", pcmig_half_name(found[i].half), "job_active",
                                                     found[i].job < 0    ? Py_None
                                                     : found[i].job != 0 ? Py_True
                                                                         : Py_False);

        if (row == NULL || PyList_Append(list, row) < 0)
            Py_CLEAR(list);
        Py_XDECREF(row);
        free(found[i].name);
    }
    free(found);
    return list;
}

static PyObject *turn_as_dict(const struct pcmig_turns_row *rows, size_t count, size_t me, int64_t now_us)
{
    const struct pcmig_turns_row *row = &rows[me];
    struct pcmig_turns_answer answer;

    pcmig_turns_decide(rows, count, me, now_us, &answer);
    return Py_BuildValue(
        "{s:N,s:s,s:s,s:N,s:N,s:N,s:N}", "name",
        PyUnicode_DecodeUTF8(row->name, (Py_ssize_t)strlen(row->name), "replace"), "phase",
        pcmig_turns_phase_name(row->phase), "turn", pcmig_names_turn(answer.turn), "waits_for",
        answer.waits_for >= 0 ? PyUnicode_DecodeUTF8(rows[answer.waits_for].name,
                                                     (Py_ssize_t)strlen(rows[answer.waits_for].name), "replace")
                              : Py_NewRef(Py_None),
        "queue_bytes", row->queue_bytes >= 0 ? PyLong_FromLongLong(row->queue_bytes) : Py_NewRef(Py_None), "pace_mib",
        row->pace_mib >= 0 ? PyLong_FromLongLong(row->pace_mib) : Py_NewRef(Py_None), "gate",
        PyUnicode_FromString(pcmig_gate_state_name(row->gate)));
}

static PyObject *py_turns(PyObject *module, PyObject *ignored)
{
    struct pcmig_turns_row *rows = calloc(PCMIG_TURNS_ROWS, sizeof(*rows));
    PyObject *list = rows != NULL ? PyList_New(0) : PyErr_NoMemory();
    size_t count = 0;

    (void)module;
    (void)ignored;
    if (list != NULL) {
        Py_BEGIN_ALLOW_THREADS
        count = pcmig_turns_file_rows(rows);
        Py_END_ALLOW_THREADS
    }
    for (size_t i = 0; list != NULL && i < count; i++) {
        PyObject *row = turn_as_dict(rows, count, i, pcmig_clock_us());

        if (row == NULL || PyList_Append(list, row) < 0)
            Py_CLEAR(list);
        Py_XDECREF(row);
    }
    free(rows);
    return list;
}

static PyObject *py_resume_hold(PyObject *module, PyObject *args)
{
    struct pcmig_recovery_view view = {0};
    const char *why;

    (void)module;
    if (!PyArg_ParseTuple(args, "kk:resume_hold", &view.destination_libvirt, &view.source_libvirt))
        return NULL;
    why = pcmig_recovery_hold(&view);
    if (why == NULL)
        Py_RETURN_NONE;
    return PyUnicode_FromString(why);
}

/* --- one guest ---------------------------------------------------------------------------------------------------- */

static PyObject *py_domain_xml(PyObject *module, PyObject *args)
{
    struct job job = {.timeout_ms = pcmig_get_state(module)->connect_timeout_ms};
    PyObject *result = NULL;
    char *xml = NULL;

    if (!PyArg_ParseTuple(args, "ss:domain_xml", &job.uri, &job.name))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    if (job_open(&job) == 0)
        xml = pcmig_virt_domain_xml(job.domain, &job.error);
    job_close(&job);
    Py_END_ALLOW_THREADS
    if (xml == NULL) {
        pcmig_errors_raise(module, &job.error);
        return NULL;
    }
    result = PyUnicode_FromString(xml);
    free(xml);
    return result;
}

/* 1, 0, or -1 with the job's error set. */
typedef int (*question)(struct job *job);

static int is_persistent(struct job *job)
{
    return pcmig_virt_domain_persistent(job->domain, &job->error);
}

static int starts_with_host(struct job *job)
{
    return pcmig_virt_autostart(job->conn, pcmig_virt_domain_uuid(job->domain), &job->error);
}

/* FORMAT is PyArg_ParseTuple's of a URI and a guest. */
static PyObject *yes_or_no(PyObject *module, PyObject *args, const char *format, question ask)
{
    struct job job = {.timeout_ms = pcmig_get_state(module)->connect_timeout_ms};
    int result = -1;

    if (!PyArg_ParseTuple(args, format, &job.uri, &job.name))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    if (job_open(&job) == 0)
        result = ask(&job);
    job_close(&job);
    Py_END_ALLOW_THREADS
    if (result < 0) {
        pcmig_errors_raise(module, &job.error);
        return NULL;
    }
    return PyBool_FromLong(result);
}

static PyObject *py_domain_persistent(PyObject *module, PyObject *args)
{
    return yes_or_no(module, args, "ss:domain_persistent", is_persistent);
}

static PyObject *py_domain_autostart(PyObject *module, PyObject *args)
{
    return yes_or_no(module, args, "ss:domain_autostart", starts_with_host);
}

static PyMethodDef methods[] = {
    {"job_status", py_job_status, METH_VARARGS,
     "job_status(uri, domain) -> dict\n\nName and UUID of the guest, and its migration as URI's host sees it: state "
     "\"precopy\", \"postcopy\", "
     "\"paused\", "
     "\"none\" or \"unknown\", half (see core/halves.h), another job that libvirt runs (\"backup\") or None, and the "
     "statistics or None. Raises LibvirtError."},
    {"share_event_loop", py_share_event_loop, METH_NOARGS,
     "share_event_loop()\n\nThis process runs libvirt's default event loop by itself: no thread is started for it. "
     "Raises Error when one was."},
    {"set_connect_timeout", py_set_connect_timeout, METH_VARARGS,
     "set_connect_timeout(timeout_ms)\n\nSo long a host has from now on to take a connection, wherever a call does not "
     "say otherwise: 10 s until this is called."},
    {"job_abort", py_job_abort, METH_VARARGS,
     "job_abort(uri, domain)\n\nCancels the guest's migration in pre-copy; libvirt refuses in post-copy, and a job "
     "that is no migration is left alone. Raises LibvirtError."},
    {"job_switch", py_job_switch, METH_VARARGS,
     "job_switch(uri, domain)\n\nSwitches the guest's migration to post-copy now. Raises LibvirtError."},
    {"job_pause", py_job_pause, METH_VARARGS,
     "job_pause(uri, domain)\n\nInterrupts the guest's post-copy: both halves keep what they have. Raises "
     "LibvirtError."},
    {"migrations", py_migrations, METH_VARARGS,
     "migrations(uri) -> list\n\nuuid, name, half and job_active of each guest there that migrates, or was "
     "interrupted; "
     "job_active is None where libvirt does not tell in time. Raises LibvirtError."},
    {"turns", py_turns, METH_NOARGS,
     "turns() -> list\n\nThe migrations that pcmig steers on this host, by whatever process: name, phase, turn, whom "
     "it "
     "waits for, queue, pace and gate. Where they cannot be read there are none."},
    {"remove_empty_half", py_remove_empty_half, METH_VARARGS,
     "remove_empty_half(source_uri, dest_uri, uuid)\n\nRemoves what a cancelled migration was filling at the "
     "destination, "
     "if the guest never left the source (see engine/empty_half.h): only after libvirt took the cancellation. Raises "
     "LibvirtError when it does not, or may not."},
    {"resume_hold", py_resume_hold, METH_VARARGS,
     "resume_hold(destination_libvirt, source_libvirt) -> str | None\n\nWhy post-copy cannot be resumed between these "
     "versions (0 = not known); None: it can."},
    {"domain_xml", py_domain_xml, METH_VARARGS,
     "domain_xml(uri, domain) -> str\n\nThe guest's live XML. Raises LibvirtError."},
    {"domain_persistent", py_domain_persistent, METH_VARARGS,
     "domain_persistent(uri, domain) -> bool\n\nWhether the guest has a definition there. Raises LibvirtError."},
    {"domain_autostart", py_domain_autostart, METH_VARARGS,
     "domain_autostart(uri, domain) -> bool\n\nWhether the guest starts with that host. Raises LibvirtError."},
    {NULL, NULL, 0, NULL},
};

int pcmig_job_setup(PyObject *module)
{
    return PyModule_AddFunctions(module, methods);
}
