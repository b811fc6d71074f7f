/* SPDX-License-Identifier: Apache-2.0 */
/* pcmig._core.params, parse_policy, and decisions as dicts. */
#include "core/policy.h"

#include "python/state.h"

#include <string.h>

PyObject *pcmig_decision_as_dict(const struct pcmig_decision *decision)
{
    char text[256];

    (void)pcmig_decision_describe(decision, text, sizeof(text));
    return Py_BuildValue(
        "{s:L,s:s,s:s,s:L,s:L,s:L,s:L,s:N,s:s}", "t_us", (long long)decision->t_us, "action",
        pcmig_action_name(decision->action), "reason", pcmig_reason_name(decision->reason), "a", (long long)decision->a,
        "b", (long long)decision->b, "c", (long long)decision->c, "pace_mib", (long long)decision->pace_mib, "next_us",
        decision->next_us == INT64_MAX ? Py_NewRef(Py_None) : PyLong_FromLongLong(decision->next_us), "text", text);
}

int pcmig_params_update(PyObject *module, struct pcmig_params *params, PyObject *dict)
{
    struct pcmig_state *state = pcmig_get_state(module);
    Py_ssize_t pos = 0;
    PyObject *key, *value;

    while (PyDict_Next(dict, &pos, &key, &value)) {
        const struct pcmig_param_row *row;
        const char *name;
        Py_ssize_t len;
        long long number;
        int overflow, index;

        if (!PyUnicode_Check(key)) {
            PyErr_Format(PyExc_TypeError, "names of parameters are strings, not %R", key);
            return -1;
        }
        name = PyUnicode_AsUTF8AndSize(key, &len);
        if (name == NULL)
            return -1;
        index = pcmig_params_find(name, (size_t)len);
        if (index < 0 && pcmig_params_gone(name, (size_t)len) != NULL) {
            PyErr_Format(state->policy_error, "parameter %R is gone: %s", key, pcmig_params_gone(name, (size_t)len));
            return -1;
        }
        if (index < 0) {
            PyErr_Format(state->policy_error, "unknown parameter %R: pcmig migrate --help-params lists those there are",
                         key);
            return -1;
        }
        number = PyLong_AsLongLongAndOverflow(value, &overflow);
        if (number == -1 && overflow == 0 && PyErr_Occurred())
            return -1;
        row = pcmig_params_row((enum pcmig_param)index);
        if (overflow != 0 || pcmig_params_set(params, (enum pcmig_param)index, number) < 0) {
            PyErr_Format(state->policy_error, "parameter %s: %R is not from %lld to %lld %s", row->name, value,
                         (long long)row->min, (long long)row->max, row->unit);
            return -1;
        }
    }
    return 0;
}

int pcmig_policy_from_text(PyObject *module, const char *text, size_t len, enum pcmig_policy_kind *kind,
                           struct pcmig_params *params)
{
    char err[256];

    if (pcmig_policy_parse(text, len, kind, params, err, sizeof(err)) == 0)
        return 0;
    PyErr_SetString(pcmig_get_state(module)->policy_error, err);
    return -1;
}

static PyObject *py_params(PyObject *module, PyObject *ignored)
{
    PyObject *list = PyList_New(0);

    (void)module;
    (void)ignored;
    for (int i = 0; list != NULL && i < PCMIG_PARAM_COUNT; i++) {
        const struct pcmig_param_row *row = pcmig_params_row((enum pcmig_param)i);
        PyObject *dict =
            Py_BuildValue("{s:s,s:s,s:L,s:L,s:L,s:s}", "name", row->name, "unit", row->unit, "default",
                          (long long)row->def, "min", (long long)row->min, "max", (long long)row->max, "doc", row->doc);

        if (dict == NULL || PyList_Append(list, dict) < 0)
            Py_CLEAR(list);
        Py_XDECREF(dict);
    }
    return list;
}

static PyObject *py_gone_param(PyObject *module, PyObject *arg)
{
    const char *name, *instead;
    Py_ssize_t len;

    (void)module;
    if (!PyUnicode_Check(arg)) {
        PyErr_Format(PyExc_TypeError, "names of parameters are strings, not %R", arg);
        return NULL;
    }
    name = PyUnicode_AsUTF8AndSize(arg, &len);
    if (name == NULL)
        return NULL;
    instead = pcmig_params_gone(name, (size_t)len);
    if (instead == NULL)
        Py_RETURN_NONE;
    return PyUnicode_FromString(instead);
}

static PyObject *py_parse_policy(PyObject *module, PyObject *arg)
{
    struct pcmig_params params, defaults;
    enum pcmig_policy_kind kind;
    PyObject *set, *result = NULL;
    const char *text;
    Py_ssize_t len;

    if (!PyUnicode_Check(arg)) {
        PyErr_Format(PyExc_TypeError, "a policy is a string, not %R", arg);
        return NULL;
    }
    text = PyUnicode_AsUTF8AndSize(arg, &len);
    if (text == NULL)
        return NULL;
    pcmig_params_defaults(&params);
    defaults = params;
    if (pcmig_policy_from_text(module, text, (size_t)len, &kind, &params) < 0)
        return NULL;
    set = PyDict_New();
    if (set == NULL)
        return NULL;
    for (int i = 0; i < PCMIG_PARAM_COUNT; i++) {
        PyObject *value;
        int failed;

        if (params.value[i] == defaults.value[i])
            continue;
        value = PyLong_FromLongLong(params.value[i]);
        failed = value == NULL || PyDict_SetItemString(set, pcmig_params_row((enum pcmig_param)i)->name, value) < 0;
        Py_XDECREF(value);
        if (failed)
            goto out;
    }
    result = Py_BuildValue("{s:s,s:O}", "kind", pcmig_policy_kind_name(kind), "params", set);
out:
    Py_DECREF(set);
    return result;
}

static PyMethodDef methods[] = {
    {"params", py_params, METH_NOARGS,
     "params() -> list[dict]\n\nWhat can be set of the policy and the pacing: name, unit, default, min, max, doc."},
    {"gone_param", py_gone_param, METH_O,
     "gone_param(name) -> str | None\n\nWhat takes the place of a parameter of an older version, which is there no "
     "more."},
    {"parse_policy", py_parse_policy, METH_O,
     "parse_policy(text) -> dict\n\n{\"kind\": \"passes\", \"params\": {\"passes\": 3}}; parameters that keep their "
     "default are "
     "left out. Raises PolicyError."},
    {NULL, NULL, 0, NULL},
};

int pcmig_policy_setup(PyObject *module)
{
    return PyModule_AddFunctions(module, methods);
}
