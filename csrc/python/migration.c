/* SPDX-License-Identifier: Apache-2.0 */
/* pcmig._core.Migration. */
#include "core/flags.h"
#include "core/names.h"
#include "engine/migration.h"

#include "python/state.h"

#include <errno.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>

#define DECISIONS_PER_READ 64
#define JOIN_SLICE_MS      200

struct migration_object {
    PyObject_HEAD
    struct pcmig_migration *migration;
};

static PyObject *module_of(PyObject *self)
{
    return PyType_GetModule(Py_TYPE(self));
}

/* --- construction ------------------------------------------------------------------------------------------------- */

/* A NULL-terminated array of borrowed strings; FAST must outlive it. NULL with an exception. */
static const char **strings_from(PyObject *fast)
{
    Py_ssize_t n = PySequence_Fast_GET_SIZE(fast);
    const char **strings = calloc((size_t)n + 1, sizeof(*strings));

    if (strings == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    for (Py_ssize_t i = 0; i < n; i++) {
        strings[i] = PyUnicode_AsUTF8(PySequence_Fast_GET_ITEM(fast, i));
        if (strings[i] == NULL) {
            free(strings);
            return NULL;
        }
    }
    return strings;
}

/* The same of LIST, a sequence of WHAT or None (then OUT stays NULL). HOLD keeps the strings, for Py_XDECREF after use.
 * Returns 0, or -1 with an exception. */
static int take_list(PyObject *list, const char *name, const char *what, PyObject **hold, const char ***out)
{
    if (list == Py_None)
        return 0;
    if (PyUnicode_Check(list)) {
        PyErr_Format(PyExc_TypeError, "%s is a list of %s, not the string %R", name, what, list);
        return -1;
    }
    *hold = PySequence_Fast(list, "not a sequence");
    if (*hold == NULL) {
        PyErr_Format(PyExc_TypeError, "%s is a sequence of %s, or None, not %R", name, what, list);
        return -1;
    }
    *out = strings_from(*hold);
    return *out != NULL ? 0 : -1;
}

static int check_args(PyObject *module, const struct pcmig_migration_args *args)
{
    const struct {
        const char *name;
        long long value;
    } numbers[] = {
        {"bandwidth_mib", args->bandwidth_mib},
        {"postcopy_bandwidth_mib", args->postcopy_bandwidth_mib},
        {"connect_timeout_ms", args->connect_timeout_ms},
        {"parallel_connections", args->parallel_connections},
    };

    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        if (numbers[i].value < 0) {
            PyErr_Format(PyExc_ValueError, "%s: %lld is negative", numbers[i].name, numbers[i].value);
            return -1;
        }
    }
    if ((args->flags & PCMIG_FLAG_TUNNELLED) != 0 && args->policy != PCMIG_POLICY_NEVER) {
        PyErr_SetString(pcmig_get_state(module)->flags_error,
                        "VIR_MIGRATE_TUNNELLED: libvirt refuses post-copy through its own tunnel; leave the flag out");
        return -1;
    }
    if (args->parallel_connections > 0 && (args->flags & PCMIG_FLAG_PARALLEL) == 0) {
        PyErr_Format(PyExc_ValueError, "parallel_connections: %d needs VIR_MIGRATE_PARALLEL in flags",
                     args->parallel_connections);
        return -1;
    }
    return 0;
}

static PyObject *migration_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"domain",
                            "dest_uri",
                            "source_uri",
                            "flags",
                            "migrate_uri",
                            "policy",
                            "params",
                            "bandwidth_mib",
                            "postcopy_bandwidth_mib",
                            "dest_name",
                            "disks",
                            "listen_address",
                            "disks_uri",
                            "connect_timeout_ms",
                            "trace_path",
                            "gate",
                            "dest_xml",
                            "persist_xml",
                            "parallel_connections",
                            "tls_destination",
                            "destination_optional",
                            "recover",
                            "resume_uris",
                            "adopt",
                            "tunnel_control",
                            "autostart",
                            "crossed",
                            "count_faults",
                            NULL};
    struct pcmig_migration_args a = {.source_uri = "qemu:///system"};
    PyObject *module = PyType_GetModule(type);
    PyObject *params = Py_None, *disks = Py_None, *uris = Py_None, *hold_disks = NULL, *hold_uris = NULL;
    const char *policy = "auto";
    const char **disk_names = NULL, **resume_uris = NULL;
    long long timeout = module != NULL ? pcmig_get_state(module)->connect_timeout_ms : 0, flags = 0;
    int gated = 0, destination_optional = 0, recover = 0, adopt = 0, autostart = 0, crossed = 0, count_faults = 0;
    struct migration_object *self = NULL;

    if (module == NULL ||
        !PyArg_ParseTupleAndKeywords(args, kwargs, "ss|$sLzsOiizOzzLzpzzizppOpzppp:Migration", names, &a.domain,
                                     &a.dest_uri, &a.source_uri, &flags, &a.migrate_uri, &policy, &params,
                                     &a.bandwidth_mib, &a.postcopy_bandwidth_mib, &a.dest_name, &disks,
                                     &a.listen_address, &a.disks_uri, &timeout, &a.trace_path, &gated, &a.dest_xml,
                                     &a.persist_xml, &a.parallel_connections, &a.tls_destination, &destination_optional,
                                     &recover, &uris, &adopt, &a.tunnel_control, &autostart, &crossed, &count_faults))
        return NULL;
    a.gated = gated != 0;
    a.destination_optional = destination_optional != 0;
    a.recover = recover != 0;
    a.adopt = adopt != 0;
    a.autostart = autostart != 0;
    a.crossed = crossed != 0;
    a.count_faults = count_faults != 0;
    if (flags < 0 || flags > UINT32_MAX) {
        PyErr_Format(PyExc_ValueError, "flags: %lld is not a set of VIR_MIGRATE_* bits, 0 to 0xffffffff", flags);
        return NULL;
    }
    a.flags = (unsigned int)flags;
    a.connect_timeout_ms = timeout;
    pcmig_params_defaults(&a.params);
    if (pcmig_policy_from_text(module, policy, strlen(policy), &a.policy, &a.params) < 0)
        return NULL;
    if (params != Py_None) {
        if (!PyDict_Check(params)) {
            PyErr_Format(PyExc_TypeError, "params is a dict of name to int, not %R", params);
            return NULL;
        }
        if (pcmig_params_update(module, &a.params, params) < 0)
            return NULL;
    }
    if (check_args(module, &a) < 0)
        return NULL;
    if (take_list(disks, "disks", "target names", &hold_disks, &disk_names) < 0 ||
        take_list(uris, "resume_uris", "migrate URIs", &hold_uris, &resume_uris) < 0)
        goto out;
    a.disks = disk_names;
    a.resume_uris = resume_uris;
    self = (struct migration_object *)type->tp_alloc(type, 0);
    if (self == NULL)
        goto out;
    self->migration = pcmig_migration_new(&a);
    if (self->migration == NULL) {
        PyErr_SetFromErrno(PyExc_OSError);
        Py_CLEAR(self);
    }
out:
    free(disk_names);
    free(resume_uris);
    Py_XDECREF(hold_disks);
    Py_XDECREF(hold_uris);
    return (PyObject *)self;
}

static void migration_dealloc(PyObject *op)
{
    struct migration_object *self = (struct migration_object *)op;
    PyTypeObject *type = Py_TYPE(op);

    pcmig_migration_unref(self->migration);
    type->tp_free(op);
    Py_DECREF(type);
}

/* --- life --------------------------------------------------------------------------------------------------------- */

static PyObject *migration_start(PyObject *op, PyObject *ignored)
{
    struct migration_object *self = (struct migration_object *)op;
    int result, saved;

    (void)ignored;
    Py_BEGIN_ALLOW_THREADS
    result = pcmig_migration_start(self->migration);
    saved = errno;
    Py_END_ALLOW_THREADS
    if (result == 0)
        Py_RETURN_NONE;
    if (saved == EALREADY) {
        PyErr_SetString(pcmig_get_state(module_of(op))->error, "this migration was started before: make a new one");
        return NULL;
    }
    errno = saved;
    if (result == -2)
        return PyErr_SetFromErrnoWithFilename(PyExc_OSError, pcmig_migration_trace_path(self->migration));
    return PyErr_SetFromErrno(PyExc_OSError);
}

static PyObject *migration_fileno(PyObject *op, PyObject *ignored)
{
    (void)ignored;
    return PyLong_FromLong(pcmig_migration_fd(((struct migration_object *)op)->migration));
}

static PyObject *migration_left_fileno(PyObject *op, PyObject *ignored)
{
    (void)ignored;
    return PyLong_FromLong(pcmig_migration_left_fd(((struct migration_object *)op)->migration));
}

static PyObject *migration_clear(PyObject *op, PyObject *ignored)
{
    (void)ignored;
    pcmig_migration_clear(((struct migration_object *)op)->migration);
    Py_RETURN_NONE;
}

static PyObject *request(PyObject *op, enum pcmig_request what)
{
    if (pcmig_migration_request(((struct migration_object *)op)->migration, what) < 0) {
        PyErr_SetString(pcmig_get_state(module_of(op))->error, "the migration is not running");
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *migration_switch(PyObject *op, PyObject *ignored)
{
    (void)ignored;
    return request(op, PCMIG_REQUEST_SWITCH);
}

static PyObject *migration_abort(PyObject *op, PyObject *ignored)
{
    (void)ignored;
    return request(op, PCMIG_REQUEST_ABORT);
}

static PyObject *migration_detach(PyObject *op, PyObject *ignored)
{
    (void)ignored;
    return request(op, PCMIG_REQUEST_DETACH);
}

static PyObject *migration_pause(PyObject *op, PyObject *ignored)
{
    (void)ignored;
    return request(op, PCMIG_REQUEST_PAUSE);
}

static PyObject *migration_resume(PyObject *op, PyObject *ignored)
{
    (void)ignored;
    return request(op, PCMIG_REQUEST_RESUME);
}

static PyObject *answer_gate(PyObject *op, enum pcmig_request answer)
{
    struct pcmig_migration_status status;

    pcmig_migration_status(((struct migration_object *)op)->migration, &status);
    if (status.gate == PCMIG_GATE_NONE) {
        PyErr_SetString(pcmig_get_state(module_of(op))->error, "this migration has no gate: make it with gate=True");
        return NULL;
    }
    return request(op, answer);
}

static PyObject *migration_open_gate(PyObject *op, PyObject *ignored)
{
    (void)ignored;
    return answer_gate(op, PCMIG_REQUEST_OPEN_GATE);
}

static PyObject *migration_refuse_gate(PyObject *op, PyObject *ignored)
{
    (void)ignored;
    return answer_gate(op, PCMIG_REQUEST_REFUSE_GATE);
}

static PyObject *migration_set_bandwidth(PyObject *op, PyObject *arg)
{
    long long mib = PyLong_AsLongLong(arg);

    if (mib == -1 && PyErr_Occurred())
        return NULL;
    if (mib < 0 || mib > INT32_MAX) {
        PyErr_Format(PyExc_ValueError, "bandwidth: %lld is not from 0 (unlimited) to %d MiB/s", mib, INT32_MAX);
        return NULL;
    }
    if (pcmig_migration_set_bandwidth(((struct migration_object *)op)->migration, mib) < 0) {
        PyErr_SetString(pcmig_get_state(module_of(op))->error, "the migration is not running");
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *migration_downtime_limit(PyObject *op, PyObject *arg)
{
    long long ms = PyLong_AsLongLong(arg);

    if (ms == -1 && PyErr_Occurred())
        return NULL;
    if (ms < 1 || ms > INT32_MAX) {
        PyErr_Format(PyExc_ValueError, "downtime limit: %lld is not from 1 to %d ms", ms, INT32_MAX);
        return NULL;
    }
    if (pcmig_migration_downtime_limit(((struct migration_object *)op)->migration, ms) < 0) {
        PyErr_SetString(pcmig_get_state(module_of(op))->error, "the migration is not running");
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *migration_join(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"timeout_ms", NULL};
    struct migration_object *self = (struct migration_object *)op;
    long long timeout = -1;
    bool over;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|L:join", names, &timeout))
        return NULL;
    if (!pcmig_migration_started(self->migration)) {
        PyErr_SetString(pcmig_get_state(module_of(op))->error,
                        "the migration was not started: there is no end to wait for");
        return NULL;
    }
    /* In slices, so that Ctrl-C is heard. */
    do {
        long long slice = timeout < 0 || timeout > JOIN_SLICE_MS ? JOIN_SLICE_MS : timeout;

        Py_BEGIN_ALLOW_THREADS
        over = pcmig_migration_join(self->migration, slice);
        Py_END_ALLOW_THREADS
        if (PyErr_CheckSignals() < 0)
            return NULL;
        if (timeout >= 0)
            timeout -= slice;
    } while (!over && timeout != 0);
    return PyBool_FromLong(over);
}

/* --- reading ------------------------------------------------------------------------------------------------------ */

static PyObject *none_or_number(bool known, long long value)
{
    return known ? PyLong_FromLongLong(value) : Py_NewRef(Py_None);
}

static PyObject *none_or_text(const char *text)
{
    return text[0] != '\0' ? PyUnicode_DecodeUTF8(text, (Py_ssize_t)strlen(text), "replace") : Py_NewRef(Py_None);
}

static PyObject *downtime(const struct pcmig_migration_status *s)
{
    bool before = s->phase < PCMIG_PHASE_SWITCHOVER && s->outcome == PCMIG_OUTCOME_RUNNING;

    return pcmig_downtime_as_dict(s->downtime_events_us, s->downtime_reported_ms,
                                  before && s->sample.downtime_ms < INT64_MAX ? (int64_t)s->sample.downtime_ms : -1);
}

static PyObject *recovery(const struct pcmig_recovery_status *r)
{
    if (r->state == PCMIG_RECOVERY_STATE_NONE)
        Py_RETURN_NONE;
    return Py_BuildValue("{s:s,s:I,s:I,s:L,s:N,s:N}", "state", pcmig_recovery_state_name(r->state), "attempts",
                         r->attempts, "permille", r->permille, "since_ms", (long long)(r->since_us / 1000), "next_ms",
                         none_or_number(r->next_us >= 0 && r->next_us != INT64_MAX, r->next_us / 1000), "text",
                         none_or_text(r->text));
}

static PyObject *latest_decision(struct pcmig_migration *migration, size_t count)
{
    struct pcmig_decision decision;

    if (count == 0 || pcmig_migration_decisions(migration, count - 1, &decision, 1) == 0)
        Py_RETURN_NONE;
    return pcmig_decision_as_dict(&decision);
}

static PyObject *numeric_address(const struct sockaddr_storage *address)
{
    char text[NI_MAXHOST];

    if (address->ss_family == AF_UNSPEC || getnameinfo((const struct sockaddr *)address, sizeof(*address), text,
                                                       sizeof(text), NULL, 0, NI_NUMERICHOST) != 0)
        Py_RETURN_NONE;
    return PyUnicode_FromString(text);
}

static PyObject *migration_status(PyObject *op, PyObject *ignored)
{
    struct migration_object *self = (struct migration_object *)op;
    struct pcmig_migration_status s;
    bool running;

    (void)ignored;
    pcmig_migration_status(self->migration, &s);
    running = s.outcome == PCMIG_OUTCOME_RUNNING;
    return Py_BuildValue(
        "{s:s,s:N,s:N,s:N,s:L,s:I,s:I,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:N,s:K,s:K,s:K,s:N,s:N,s:I,s:N,s:N,s:N,s:N,"
        "s:N,s:L,s:I,s:I,s:s,s:s,s:N,s:N,s:N,s:N,s:N,s:N,s:N,s:s,s:s,s:N,s:N,s:N}",
        "phase", pcmig_phase_name(s.phase), "outcome",
        running ? Py_NewRef(Py_None) : PyUnicode_FromString(pcmig_outcome_name(s.outcome)), "error",
        none_or_text(s.text), "operator_command", none_or_text(s.operator_command), "elapsed_ms",
        (long long)(s.elapsed_us / 1000), "passes", s.passes, "pass_permille", s.pass_permille, "memory_total_bytes",
        (unsigned long long)s.sample.memory_total_bytes, "memory_processed_bytes",
        (unsigned long long)s.sample.memory_processed_bytes, "memory_remaining_bytes",
        (unsigned long long)s.sample.memory_remaining_bytes, "disk_total_bytes",
        (unsigned long long)s.sample.disk_total_bytes, "disk_processed_bytes",
        (unsigned long long)s.sample.disk_processed_bytes, "disk_remaining_bytes",
        (unsigned long long)s.sample.disk_remaining_bytes, "downtime_ms", (unsigned long long)s.sample.downtime_ms,
        "setup_time_ms", (unsigned long long)s.sample.setup_time_ms, "send_bps",
        (unsigned long long)s.sample.memory_bps, "link_bps", none_or_number(s.link_bps != 0, (long long)s.link_bps),
        "dirty_pages_ps", (unsigned long long)s.sample.dirty_pages_ps, "postcopy_requests",
        (unsigned long long)s.sample.postcopy_requests, "requests_ps", (unsigned long long)s.requests_ps, "queue_bytes",
        none_or_number(s.sample.queue_bytes >= 0, s.sample.queue_bytes), "pace_mib",
        none_or_number(s.pace_mib >= 0, s.pace_mib), "progress_permille", s.forecast.permille, "eta",
        pcmig_forecast_as_dict(&s.forecast), "eta_ms",
        none_or_number(s.forecast.most_us >= 0, s.forecast.most_us / 1000), "downtime", downtime(&s), "decision",
        latest_decision(self->migration, s.decisions), "switch_late_us",
        none_or_number(s.switch_late_us >= 0, s.switch_late_us), "cpu_us", (long long)s.cpu_us, "stats_failed",
        s.stats_failed, "inputs_lost", s.inputs_lost, "quickack", pcmig_route_result_name(s.quickack), "gate",
        pcmig_gate_state_name(s.gate), "recovery", recovery(&s.recovery), "stream_peer",
        numeric_address(&s.stream_peer), "note", none_or_text(s.note), "crossed", PyBool_FromLong(s.crossed), "left",
        PyBool_FromLong(s.left), "unrun", PyBool_FromLong(s.unrun), "dest_ended", PyBool_FromLong(s.dest_ended),
        "state", pcmig_engine_state_name(s.state), "turn", pcmig_names_turn(s.turn), "waits_for",
        none_or_text(s.waits_for), "dest_host", none_or_text(s.dest_host), "latency",
        pcmig_latency_now_as_dict(s.latency));
}

static PyObject *migration_decisions(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"first", NULL};
    struct migration_object *self = (struct migration_object *)op;
    struct pcmig_decision decisions[DECISIONS_PER_READ];
    Py_ssize_t first = 0;
    PyObject *list;
    size_t n;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|n:decisions", names, &first))
        return NULL;
    if (first < 0) {
        PyErr_Format(PyExc_ValueError, "first: %zd is negative", first);
        return NULL;
    }
    list = PyList_New(0);
    while (list != NULL &&
           (n = pcmig_migration_decisions(self->migration, (size_t)first, decisions, DECISIONS_PER_READ)) > 0) {
        for (size_t i = 0; list != NULL && i < n; i++) {
            PyObject *dict = pcmig_decision_as_dict(&decisions[i]);

            if (dict == NULL || PyList_Append(list, dict) < 0)
                Py_CLEAR(list);
            Py_XDECREF(dict);
        }
        first += (Py_ssize_t)n;
    }
    return list;
}

static PyObject *migration_ledger(PyObject *op, PyObject *ignored)
{
    /* Of a copy: making Python objects may run any Python code, which must not meet the migration's lock. */
    struct pcmig_ledger *ledger = pcmig_migration_ledger(((struct migration_object *)op)->migration);
    PyObject *dict;

    (void)ignored;
    if (ledger == NULL)
        return PyErr_NoMemory();
    dict = pcmig_ledger_as_dict(ledger);
    pcmig_ledger_free(ledger);
    return dict;
}

/* --- type --------------------------------------------------------------------------------------------------------- */

static PyMethodDef methods[] = {
    {"start", migration_start, METH_NOARGS,
     "start()\n\nChecks what can be checked, then migrates, on threads of the core. Raises Error when started before, "
     "OSError "
     "when the trace file or a thread cannot be made; everything else is told by status()."},
    {"fileno", migration_fileno, METH_NOARGS, "fileno() -> int\n\nReadable when there is news; clear() reads it."},
    {"left_fileno", migration_left_fileno, METH_NOARGS,
     "left_fileno() -> int\n\nReadable for good once the guest has left the source, or the migration is over."},
    {"clear", migration_clear, METH_NOARGS, "clear()\n\nMakes fileno() unreadable until there is news again."},
    {"status", migration_status, METH_NOARGS,
     "status() -> dict\n\nOne moment of the migration, see Status in _core.pyi."},
    {"decisions", (PyCFunction)(void (*)(void))migration_decisions, METH_VARARGS | METH_KEYWORDS,
     "decisions(first=0) -> list[dict]\n\nThe decisions that were not \"keep\", without the FIRST ones. Raises "
     "ValueError for a negative number."},
    {"ledger", migration_ledger, METH_NOARGS, "ledger() -> dict\n\nPage-transfer accounting so far, see ledger.h."},
    {"switch", migration_switch, METH_NOARGS,
     "switch()\n\nAsks for post-copy now; the queue is drained first. Raises Error when the migration is not running."},
    {"abort", migration_abort, METH_NOARGS,
     "abort()\n\nCancels while the guest still runs at the source; afterwards it is refused. Raises Error when the "
     "migration is "
     "not running."},
    {"open_gate", migration_open_gate, METH_NOARGS,
     "open_gate()\n\nLets the switch come: at once when it waits for this alone, otherwise when its time has come. "
     "Raises Error when there is no gate or the migration is not running."},
    {"refuse_gate", migration_refuse_gate, METH_NOARGS,
     "refuse_gate()\n\nNo switch until switch() is called; pre-copy goes on. Takes back an open gate too, while the "
     "switch was not issued. Raises Error when there is no gate or the migration is not running."},
    {"pause", migration_pause, METH_NOARGS,
     "pause()\n\nInterrupts post-copy deliberately: both halves stay as they are, the guest waits for pages. A "
     "migration that "
     "recovers waits for resume(). Raises Error when the migration is not running."},
    {"resume", migration_resume, METH_NOARGS,
     "resume()\n\nAn attempt to resume an interrupted post-copy now, and not when the next one is due; only with "
     "recover=True. "
     "Raises Error when the migration is not running."},
    {"set_bandwidth", migration_set_bandwidth, METH_O,
     "set_bandwidth(mib_per_s)\n\nBounds the running phase's bandwidth; 0 = unlimited. Raises ValueError, or Error "
     "when the "
     "migration is not running."},
    {"downtime_limit", migration_downtime_limit, METH_O,
     "downtime_limit(ms)\n\nTells that QEMU has this downtime limit from now on, which somebody else has set "
     "(parameter "
     "downtime_control=0). Raises ValueError, or Error when the migration is not running."},
    {"detach", migration_detach, METH_NOARGS,
     "detach()\n\nStops steering; libvirt goes on by itself with a pace that needs none. Raises Error when the "
     "migration is not "
     "running."},
    {"join", (PyCFunction)(void (*)(void))migration_join, METH_VARARGS | METH_KEYWORDS,
     "join(timeout_ms=-1) -> bool\n\nWaits for an outcome without the GIL; False on timeout. Raises Error when not "
     "started."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, migration_new},
    {Py_tp_dealloc, migration_dealloc},
    {Py_tp_methods, methods},
    {Py_tp_doc,
     "One migration. Starts nothing until start(); no method but join() blocks.\n\nSee _core.pyi for the arguments. "
     "Raises PolicyError, FlagsError, TypeError, ValueError."},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "pcmig._core.Migration",
    .basicsize = sizeof(struct migration_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};

int pcmig_migration_setup(PyObject *module)
{
    struct pcmig_state *state = pcmig_get_state(module);

    state->migration_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &spec, NULL);
    if (state->migration_type == NULL)
        return -1;
    return PyModule_AddType(module, state->migration_type);
}
