/* SPDX-License-Identifier: Apache-2.0 */
/* replay() and ledger_from_trace(). Files are read by Python's own file objects: they let go of the GIL while they
 * wait, and know about signals. */

#include "python/state.h"

#include "core/trace.h"
#include "core/version.h"

#include <string.h>

/* Longer than any line that is written. */
#define LINE_LIMIT 4096

static PyObject *params_as_dict(const struct pcmig_params *params)
{
    PyObject *dict = PyDict_New();

    for (int i = 0; dict != NULL && i < PCMIG_PARAM_COUNT; i++) {
        PyObject *value = PyLong_FromLongLong(params->value[i]);

        if (value == NULL || PyDict_SetItemString(dict, pcmig_params_row((enum pcmig_param)i)->name, value) < 0)
            Py_CLEAR(dict);
        Py_XDECREF(value);
    }
    return dict;
}

/* --- lines -------------------------------------------------------------------------------------------------------- */

/* Takes one line. Returns 0; -1 with a message in ERR; -2 with an exception set. */
typedef int (*line_fn)(void *context, const char *text, size_t len, char *err, size_t err_size);

/* TraceError with the number of the line as its attribute; LINE 0 = the trace as a whole. */
static void raise_trace_error(PyObject *module, unsigned long long line, const char *message, const char *hint)
{
    PyObject *type = pcmig_get_state(module)->trace_error, *text, *error, *number;

    if (line != 0)
        text = PyUnicode_FromFormat("line %llu: %s%s", line, message, hint);
    else
        text = PyUnicode_FromString(message);
    error = text != NULL ? PyObject_CallOneArg(type, text) : NULL;
    number = PyLong_FromUnsignedLongLong(line);
    if (error != NULL && number != NULL && PyObject_SetAttrString(error, "line", number) == 0)
        PyErr_SetObject(type, error);
    Py_XDECREF(number);
    Py_XDECREF(error);
    Py_XDECREF(text);
}

/* The text of ITEM, valid as long as ITEM; NULL with an exception set. */
static const char *item_text(PyObject *item, Py_ssize_t *len)
{
    char *text;

    if (PyUnicode_Check(item))
        return PyUnicode_AsUTF8AndSize(item, len);
    if (PyBytes_Check(item) && PyBytes_AsStringAndSize(item, &text, len) == 0)
        return text;
    if (!PyErr_Occurred())
        PyErr_Format(PyExc_TypeError, "a line of a trace is str or bytes, not %s", Py_TYPE(item)->tp_name);
    return NULL;
}

/* A line of a file that does not end is the beginning of one: a number in it may lack its last digits, so nobody takes
 * it for what it seems to be. Its number goes to CUT. */
static int take_item(PyObject *module, PyObject *item, unsigned long long number, unsigned long long *cut, line_fn take,
                     void *context)
{
    char err[PCMIG_TRACE_ERR_MAX];
    const char *text;
    Py_ssize_t len;
    bool ended;
    int rc;

    text = item_text(item, &len);
    if (text == NULL)
        return -1;
    ended = len > 0 && text[len - 1] == '\n';
    if (ended)
        len--;
    if (len >= LINE_LIMIT) {
        raise_trace_error(module, number, "longer than any line of a trace", "");
        return -1;
    }
    if (cut != NULL && !ended) {
        *cut = number;
        return 0;
    }
    rc = take(context, text, (size_t)len, err, sizeof(err));
    if (rc == -1)
        raise_trace_error(module, number, err, "");
    return rc < 0 ? -1 : 0;
}

static PyObject *open_file(PyObject *path)
{
    PyObject *io = PyImport_ImportModule("io"), *file = NULL;

    if (io != NULL)
        file = PyObject_CallMethod(io, "open", "Os", path, "rb");
    Py_XDECREF(io);
    return file;
}

static bool is_path(PyObject *trace)
{
    return PyUnicode_Check(trace) || PyBytes_Check(trace) ||
           PyObject_HasAttrString((PyObject *)Py_TYPE(trace), "__fspath__");
}

/* Each line of TRACE, a path or an iterable of lines, to TAKE. CUT: the number of the line within which a file ends, 0
 * of one that is whole. Returns 0, or -1 with an exception set. */
static int each_line(PyObject *module, PyObject *trace, unsigned long long *cut, line_fn take, void *context)
{
    bool from_file = is_path(trace);
    PyObject *source = from_file ? open_file(trace) : PyObject_GetIter(trace), *item = NULL;
    int rc = 0;

    *cut = 0;
    if (source == NULL)
        return -1;
    for (unsigned long long number = 1; rc == 0; number++) {
        item = from_file ? PyObject_CallMethod(source, "readline", "i", LINE_LIMIT + 1) : PyIter_Next(source);
        if (item == NULL)
            break;
        if (from_file && PyBytes_Check(item) && PyBytes_GET_SIZE(item) == 0) {
            Py_DECREF(item);
            break;
        }
        rc = take_item(module, item, number, from_file ? cut : NULL, take, context);
        Py_DECREF(item);
    }
    if (from_file) {
        PyObject *type, *value, *traceback, *closed;

        PyErr_Fetch(&type, &value, &traceback);
        closed = PyObject_CallMethod(source, "close", NULL);
        Py_XDECREF(closed);
        PyErr_Clear();
        PyErr_Restore(type, value, traceback);
    }
    Py_DECREF(source);
    return PyErr_Occurred() ? -1 : rc;
}

/* What is wrong with a trace as a whole, of which CUT is as each_line() has it. */
static void raise_incomplete(PyObject *module, unsigned long long cut, const char *message)
{
    raise_trace_error(module, cut, message,
                      cut != 0 ? " (the file ends within this line: was the recording cut off?)" : "");
}

static PyObject *line_or_none(unsigned long long line)
{
    if (line == 0)
        Py_RETURN_NONE;
    return PyLong_FromUnsignedLongLong(line);
}

/* --- replay ------------------------------------------------------------------------------------------------------- */

struct replay_context {
    struct pcmig_trace_replay *replay;
    PyObject *answers;
};

static PyObject *decision_or_none(const struct pcmig_decision *decision)
{
    if (decision == NULL)
        Py_RETURN_NONE;
    return pcmig_decision_as_dict(decision);
}

static PyObject *answer_as_dict(uint64_t line, const struct pcmig_decision *recorded,
                                const struct pcmig_decision *replayed)
{
    PyObject *was = decision_or_none(recorded), *is = decision_or_none(replayed), *answer = NULL;

    if (was != NULL && is != NULL)
        answer = Py_BuildValue("{s:K,s:O,s:O}", "line", (unsigned long long)line, "recorded", was, "replayed", is);
    Py_XDECREF(was);
    Py_XDECREF(is);
    return answer;
}

static int on_answer(void *context, uint64_t line, const struct pcmig_decision *recorded,
                     const struct pcmig_decision *replayed)
{
    struct replay_context *c = context;
    PyObject *answer = answer_as_dict(line, recorded, replayed);
    int rc = answer != NULL ? PyList_Append(c->answers, answer) : -1;

    Py_XDECREF(answer);
    return rc;
}

static int replay_line(void *context, const char *text, size_t len, char *err, size_t err_size)
{
    struct replay_context *c = context;

    return pcmig_trace_replay_line(c->replay, text, len, err, err_size);
}

/* What the trace's writer knew and this pcmig does not; None = nothing. */
static PyObject *left_out_as_dict(const struct pcmig_trace_reader *reader)
{
    if (reader->left_out == 0)
        Py_RETURN_NONE;
    return Py_BuildValue("{s:K,s:K,s:s}", "lines", (unsigned long long)reader->left_out, "first",
                         (unsigned long long)reader->first_left_out, "what", reader->what);
}

static PyObject *result_as_dict(const struct pcmig_trace_result *r, const struct pcmig_trace_reader *reader,
                                PyObject *answers, unsigned long long cut_line)
{
    PyObject *first = NULL, *params = NULL, *cut = NULL, *left_out = NULL, *dict = NULL;

    first = r->first_difference == 0 ? Py_NewRef(Py_None)
                                     : answer_as_dict(r->first_difference, r->has_recorded ? &r->first_recorded : NULL,
                                                      r->has_replayed ? &r->first_replayed : NULL);
    params = params_as_dict(&r->params);
    cut = line_or_none(cut_line);
    left_out = left_out_as_dict(reader);
    if (first != NULL && params != NULL && cut != NULL && left_out != NULL)
        dict = Py_BuildValue("{s:K,s:K,s:K,s:K,s:O,s:O,s:O,s:s,s:O,s:O,s:O,s:z,s:O}", "inputs",
                             (unsigned long long)r->inputs, "recorded", (unsigned long long)r->recorded, "replayed",
                             (unsigned long long)r->replayed, "different", (unsigned long long)r->different,
                             "identical", r->different == 0 ? Py_True : Py_False, "first_difference", first,
                             "decisions", answers, "policy", pcmig_policy_kind_name(r->policy), "gate",
                             r->gated ? Py_True : Py_False, "params", params, "cut", cut, "written_by",
                             reader->writer[0] != '\0' ? reader->writer : NULL, "left_out", left_out);
    Py_XDECREF(left_out);
    Py_XDECREF(cut);
    Py_XDECREF(first);
    Py_XDECREF(params);
    return dict;
}

/* Returns 0, or -1 with an exception set. */
static int parse_options(PyObject *module, const char *policy, Py_ssize_t policy_len, PyObject *params,
                         struct pcmig_trace_options *options)
{
    PyObject *key, *value;
    Py_ssize_t position = 0;

    memset(options, 0, sizeof(*options));
    pcmig_params_defaults(&options->params);
    if (policy != NULL) {
        if (pcmig_policy_from_text(module, policy, (size_t)policy_len, &options->policy, &options->params) < 0)
            return -1;
        options->other_policy = true;
        options->set[PCMIG_PARAM_PASSES] = options->policy == PCMIG_POLICY_PASSES;
        options->set[PCMIG_PARAM_DEADLINE_MS] = options->policy == PCMIG_POLICY_DEADLINE;
    }
    if (params == Py_None)
        return 0;
    if (!PyDict_Check(params)) {
        PyErr_SetString(PyExc_TypeError, "params is a dict or None");
        return -1;
    }
    if (pcmig_params_update(module, &options->params, params) < 0)
        return -1;
    while (PyDict_Next(params, &position, &key, &value)) {
        Py_ssize_t len;
        const char *name = PyUnicode_AsUTF8AndSize(key, &len);

        if (name == NULL)
            return -1;
        options->set[pcmig_params_find(name, (size_t)len)] = true;
    }
    return 0;
}

PyDoc_STRVAR(replay_doc,
             "replay(trace, *, policy=None, params=None)\n--\n\n"
             "Feeds the inputs of a trace (a path, or an iterable of lines) to a fresh policy and compares the\n"
             "decisions; with policy or params under other ones than those recorded. A file that ends within a\n"
             "line is taken up to there, and `cut` is the line's number. Raises TraceError with the number of the\n"
             "line as its attribute `line`, PolicyError, OSError.");

static PyObject *replay(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"trace", "policy", "params", NULL};
    struct replay_context context = {NULL, NULL};
    struct pcmig_trace_options options;
    struct pcmig_trace_result result;
    PyObject *trace, *params = Py_None, *dict = NULL;
    const char *policy = NULL;
    char err[PCMIG_TRACE_ERR_MAX];
    unsigned long long cut;
    Py_ssize_t policy_len = 0;
    int rc;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$z#O:replay", names, &trace, &policy, &policy_len, &params))
        return NULL;
    if (parse_options(module, policy, policy_len, params, &options) < 0)
        return NULL;
    context.answers = PyList_New(0);
    context.replay = pcmig_trace_replay_new(PCMIG_VERSION, &options, on_answer, &context);
    if (context.answers == NULL || context.replay == NULL) {
        if (!PyErr_Occurred())
            PyErr_NoMemory();
        goto done;
    }
    if (each_line(module, trace, &cut, replay_line, &context) < 0)
        goto done;
    rc = pcmig_trace_replay_finish(context.replay, cut != 0, err, sizeof(err));
    if (rc == -1)
        raise_incomplete(module, cut, err);
    if (rc < 0)
        goto done;
    pcmig_trace_replay_result(context.replay, &result);
    dict = result_as_dict(&result, pcmig_trace_replay_reader(context.replay), context.answers, cut);
done:
    pcmig_trace_replay_free(context.replay);
    Py_XDECREF(context.answers);
    return dict;
}

/* --- ledger ------------------------------------------------------------------------------------------------------- */

struct ledger_context {
    struct pcmig_trace_reader reader;
    struct pcmig_ledger *ledger;
};

static int ledger_line(void *context, const char *text, size_t len, char *err, size_t err_size)
{
    struct ledger_context *c = context;
    struct pcmig_trace_line line;

    if (pcmig_trace_read(&c->reader, text, len, &line, err, err_size) < 0)
        return -1;
    switch (line.kind) {
    case PCMIG_TRACE_PARAMS:
        c->ledger = pcmig_ledger_new();
        if (c->ledger != NULL)
            return 0;
        PyErr_NoMemory();
        return -2;
    case PCMIG_TRACE_INPUT:
        pcmig_ledger_feed(c->ledger, &line.input);
        return 0;
    case PCMIG_TRACE_DECISION:
        pcmig_ledger_note_action(c->ledger, &line.decision);
        return 0;
    case PCMIG_TRACE_BLANK:
    case PCMIG_TRACE_HEADER:
    case PCMIG_TRACE_WRITER:
    case PCMIG_TRACE_OTHER_INPUT:
    case PCMIG_TRACE_OTHER_DECISION:
        break;
    }
    return 0;
}

PyDoc_STRVAR(ledger_doc, "ledger_from_trace(trace, /)\n--\n\n"
                         "The accounting of a recorded migration, as Migration.ledger() gives it. A trace is a path,\n"
                         "or an iterable of lines; a file that ends within a line is taken up to there. Raises\n"
                         "TraceError, OSError.");

static PyObject *ledger_from_trace(PyObject *module, PyObject *trace)
{
    struct ledger_context context = {.reader.version = PCMIG_VERSION};
    PyObject *dict = NULL;
    unsigned long long cut;

    if (each_line(module, trace, &cut, ledger_line, &context) == 0) {
        if (context.ledger != NULL)
            dict = pcmig_ledger_as_dict(context.ledger);
        else
            raise_incomplete(module, cut,
                             context.reader.has_header ? "the trace has no params line" : "the trace is empty");
    }
    pcmig_ledger_free(context.ledger);
    return dict;
}

static PyMethodDef methods[] = {
    {"replay", (PyCFunction)(void (*)(void))replay, METH_VARARGS | METH_KEYWORDS, replay_doc},
    {"ledger_from_trace", ledger_from_trace, METH_O, ledger_doc},
    {NULL, NULL, 0, NULL},
};

int pcmig_trace_setup(PyObject *module)
{
    return PyModule_AddFunctions(module, methods);
}
