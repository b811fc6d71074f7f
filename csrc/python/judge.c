/* SPDX-License-Identifier: Apache-2.0 */
/* Judge: policy, ledger and forecast of a migration that somebody else drives, and what they have in common with one of
 * ours as Python sees it. */
#include "core/forecast.h"
#include "core/trace.h"

#include "python/state.h"

struct judge_object {
    PyObject_HEAD
    struct pcmig_policy *policy;
    struct pcmig_ledger *ledger;
    struct pcmig_forecast forecast;
    struct pcmig_sample sample; /* the latest */
    int64_t due_us;             /* when the policy wants to hear next; INT64_MAX = only events */
};

static PyObject *ms_or_none(int64_t us)
{
    return us >= 0 ? PyLong_FromLongLong(us / 1000) : Py_NewRef(Py_None);
}

PyObject *pcmig_forecast_as_dict(const struct pcmig_forecast *forecast)
{
    return Py_BuildValue("{s:s,s:N,s:N}", "outlook", pcmig_outlook_name(forecast->outlook), "least_ms",
                         ms_or_none(forecast->least_us), "most_ms", ms_or_none(forecast->most_us));
}

PyObject *pcmig_downtime_as_dict(int64_t events_us, int64_t reported_ms, int64_t expected_ms)
{
    if (events_us >= 0)
        return Py_BuildValue("{s:L,s:s}", "ms", (long long)((events_us + 500) / 1000), "source", "events");
    if (reported_ms >= 0)
        return Py_BuildValue("{s:L,s:s}", "ms", (long long)reported_ms, "source", "libvirt");
    if (expected_ms > 0)
        return Py_BuildValue("{s:L,s:s}", "ms", (long long)expected_ms, "source", "expected");
    Py_RETURN_NONE;
}

static int judge_init(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"policy", "params", "switches", NULL};
    struct judge_object *self = (struct judge_object *)op;
    PyObject *module = PyType_GetModule(Py_TYPE(op)), *given = Py_None;
    enum pcmig_policy_kind kind = PCMIG_POLICY_AUTO;
    struct pcmig_params params;
    const char *text = "auto";
    Py_ssize_t len = 4;
    int switches = 0;

    pcmig_params_defaults(&params);
    if (module == NULL ||
        !PyArg_ParseTupleAndKeywords(args, kwargs, "|s#$Op:Judge", keywords, &text, &len, &given, &switches) ||
        pcmig_policy_from_text(module, text, (size_t)len, &kind, &params) < 0)
        return -1;
    if (given != Py_None && !PyDict_Check(given)) {
        PyErr_SetString(PyExc_TypeError, "params is a dict or None");
        return -1;
    }
    if (given != Py_None && pcmig_params_update(module, &params, given) < 0)
        return -1;
    pcmig_policy_free(self->policy);
    pcmig_ledger_free(self->ledger);
    self->policy = pcmig_policy_new(kind, &params, false);
    self->ledger = pcmig_ledger_new();
    if (self->policy == NULL || self->ledger == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    pcmig_forecast_init(&self->forecast, switches != 0);
    self->sample = (struct pcmig_sample){.queue_bytes = -1};
    self->due_us = 0;
    return 0;
}

static void judge_dealloc(PyObject *op)
{
    struct judge_object *self = (struct judge_object *)op;
    PyTypeObject *type = Py_TYPE(op);

    pcmig_policy_free(self->policy);
    pcmig_ledger_free(self->ledger);
    type->tp_free(op);
    Py_DECREF(type);
}

static bool is_ready(const struct judge_object *self)
{
    if (self->policy == NULL || self->ledger == NULL)
        PyErr_SetString(PyExc_ValueError, "it was not initialised");
    return self->policy != NULL && self->ledger != NULL;
}

static PyObject *judge_feed(PyObject *op, PyObject *arg)
{
    struct judge_object *self = (struct judge_object *)op;
    PyObject *module = PyType_GetModule(Py_TYPE(op));
    char err[PCMIG_TRACE_ERR_MAX];
    struct pcmig_trace_line line;
    struct pcmig_decision decision;
    const char *text;
    Py_ssize_t len;

    if (module == NULL || !is_ready(self))
        return NULL;
    if (!PyUnicode_Check(arg)) {
        PyErr_Format(PyExc_TypeError, "a line of a trace is str, not %s", Py_TYPE(arg)->tp_name);
        return NULL;
    }
    text = PyUnicode_AsUTF8AndSize(arg, &len);
    if (text == NULL)
        return NULL;
    if (pcmig_trace_parse_line(text, (size_t)len, &line, err, sizeof(err)) != 0) {
        PyErr_SetString(pcmig_get_state(module)->trace_error, err);
        return NULL;
    }
    if (line.kind != PCMIG_TRACE_INPUT)
        Py_RETURN_NONE;
    if (line.input.kind == PCMIG_INPUT_SAMPLE || line.input.kind == PCMIG_INPUT_FINAL)
        self->sample = line.input.sample;
    else if (line.input.kind == PCMIG_INPUT_QUEUE)
        self->sample.queue_bytes = line.input.sample.queue_bytes;
    pcmig_ledger_feed(self->ledger, &line.input);
    pcmig_forecast_feed(&self->forecast, &line.input, pcmig_ledger_phase_now(self->ledger));
    pcmig_policy_feed(self->policy, &line.input, &decision);
    self->due_us = decision.next_us;
    if (decision.action == PCMIG_ACTION_KEEP)
        Py_RETURN_NONE;
    return pcmig_decision_as_dict(&decision);
}

static PyObject *judge_look(PyObject *op, PyObject *ignored)
{
    struct judge_object *self = (struct judge_object *)op;
    struct pcmig_ledger_totals totals;
    unsigned passes, permille;
    uint64_t link_bps;
    bool before;

    (void)ignored;
    if (!is_ready(self))
        return NULL;
    passes = pcmig_forecast_passes(&self->forecast, &permille);
    link_bps = self->forecast.rate.link_bps;
    pcmig_ledger_totals(self->ledger, &totals);
    before = pcmig_ledger_phase_now(self->ledger) < PCMIG_PHASE_SWITCHOVER;
    return Py_BuildValue(
        "{s:s,s:I,s:I,s:I,s:N,s:N,s:K,s:N,s:K,s:N,s:N}", "phase",
        pcmig_phase_name(pcmig_ledger_phase_now(self->ledger)), "passes", passes, "pass_permille", permille,
        "progress_permille", self->forecast.permille, "eta", pcmig_forecast_as_dict(&self->forecast), "downtime",
        pcmig_downtime_as_dict(totals.downtime_events_us, totals.downtime_reported_ms,
                               before && self->sample.downtime_ms < INT64_MAX ? (int64_t)self->sample.downtime_ms : -1),
        "send_bps", (unsigned long long)pcmig_ledger_send_bps(self->ledger, &self->sample), "link_bps",
        link_bps != 0 ? PyLong_FromUnsignedLongLong(link_bps) : Py_NewRef(Py_None), "requests_ps",
        (unsigned long long)pcmig_policy_requests_ps(self->policy), "due_us",
        self->due_us != INT64_MAX ? PyLong_FromLongLong(self->due_us) : Py_NewRef(Py_None), "latency",
        pcmig_latency_now_as_dict(pcmig_latency_now(pcmig_ledger_latency(self->ledger))));
}

static PyObject *judge_ledger(PyObject *op, PyObject *ignored)
{
    struct judge_object *self = (struct judge_object *)op;

    (void)ignored;
    return is_ready(self) ? pcmig_ledger_as_dict(self->ledger) : NULL;
}

static PyMethodDef judge_methods[] = {
    {"feed", judge_feed, METH_O,
     "feed(line) -> dict | None\n\nTakes one line of a trace, without its newline; what is no input counts for "
     "nothing. "
     "Returns what the policy decides, None for going on as it is. Raises TraceError."},
    {"look", judge_look, METH_NOARGS, "look() -> dict\n\nWhere the migration is, see Judged in _core.pyi."},
    {"ledger", judge_ledger, METH_NOARGS, "ledger() -> dict\n\nPage-transfer accounting so far, see ledger.h."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot judge_slots[] = {
    {Py_tp_doc, "Judge(policy=\"auto\", *, params=None, switches=False)\n\nWhat the policy would decide of a migration "
                "that somebody else drives, and its account; pure. SWITCHES: that somebody does switch to post-copy. "
                "Raises PolicyError."},
    {Py_tp_init, judge_init},
    {Py_tp_dealloc, judge_dealloc},
    {Py_tp_methods, judge_methods},
    {0, NULL},
};

static PyType_Spec judge_spec = {
    .name = "pcmig._core.Judge",
    .basicsize = sizeof(struct judge_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = judge_slots,
};

int pcmig_judge_setup(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &judge_spec, NULL);
    int rc = type == NULL ? -1 : PyModule_AddType(module, (PyTypeObject *)type);

    Py_XDECREF(type);
    return rc;
}
