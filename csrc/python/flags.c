/* SPDX-License-Identifier: Apache-2.0 */
/* Flags of a migration: core/flags.h and core/conflicts.h as the type Flags and functions that list their tables. */
#include "state.h"

#include "core/conflicts.h"
#include "core/flags.h"
#include "core/flags_mistakes.h"

#include <string.h>

/* Immutable: what a text says, or a set of bits. */
typedef struct {
    PyObject_HEAD
    uint32_t bits;
    const char *policy; /* a string of core/flags.c, or NULL */
    PyObject *names;    /* tuple of str, with prefix */
    PyObject *items;    /* tuple of tuples, one for each name in the text */
} FlagsObject;

static PyObject *text_or_none(const char *text)
{
    return text != NULL ? PyUnicode_FromString(text) : Py_NewRef(Py_None);
}

static PyObject *version_string(uint32_t version)
{
    return PyUnicode_FromFormat("%u.%u.%u", version / 1000000, version / 1000 % 1000, version % 1000);
}

/* The names of BITS in order, with prefix; bits without a name come last, as one hexadecimal number. */
static PyObject *names_of(uint32_t bits)
{
    PyObject *list = PyList_New(0), *tuple;

    if (list == NULL)
        return NULL;
    for (uint32_t rest = bits; rest != 0;) {
        const uint32_t lowest = rest & (~rest + 1), bit = lowest & PCMIG_FLAGS_ALL ? lowest : rest;
        char name[64];
        PyObject *item;
        int failed;

        (void)pcmig_flags_render(bit, name, sizeof(name));
        item = PyUnicode_FromString(name);
        failed = item == NULL || PyList_Append(list, item) < 0;
        Py_XDECREF(item);
        if (failed) {
            Py_DECREF(list);
            return NULL;
        }
        rest &= ~bit;
    }
    tuple = PyList_AsTuple(list);
    Py_DECREF(list);
    return tuple;
}

/* A new Flags. Takes over the reference to ITEMS, also on failure; NULL there means that an exception is set. */
static PyObject *flags_new(PyObject *module, uint32_t bits, const char *policy, PyObject *items)
{
    PyTypeObject *type = pcmig_get_state(module)->flags_type;
    FlagsObject *self;

    if (items == NULL)
        return NULL;
    self = (FlagsObject *)type->tp_alloc(type, 0);
    if (self == NULL) {
        Py_DECREF(items);
        return NULL;
    }
    self->bits = bits;
    self->policy = policy;
    self->items = items;
    self->names = names_of(bits);
    if (self->names == NULL) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static int flags_traverse(PyObject *op, visitproc visit, void *arg)
{
    FlagsObject *self = (FlagsObject *)op;

    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->names);
    Py_VISIT(self->items);
    return 0;
}

static void flags_dealloc(PyObject *op)
{
    FlagsObject *self = (FlagsObject *)op;
    PyTypeObject *type = Py_TYPE(op);

    PyObject_GC_UnTrack(op);
    Py_XDECREF(self->names);
    Py_XDECREF(self->items);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyObject *flags_str(PyObject *op)
{
    char text[PCMIG_FLAGS_COUNT * 48];

    (void)pcmig_flags_render(((FlagsObject *)op)->bits, text, sizeof(text));
    return PyUnicode_FromString(text);
}

static PyObject *flags_repr(PyObject *op)
{
    FlagsObject *self = (FlagsObject *)op;
    PyObject *text = flags_str(op), *repr;

    if (text == NULL)
        return NULL;
    if (self->policy != NULL)
        repr = PyUnicode_FromFormat("<Flags %R policy='%s'>", text, self->policy);
    else
        repr = PyUnicode_FromFormat("<Flags %R>", text);
    Py_DECREF(text);
    return repr;
}

static Py_hash_t flags_hash(PyObject *op)
{
    FlagsObject *self = (FlagsObject *)op;

    return (Py_hash_t)self->bits * 2 + (self->policy != NULL);
}

static PyObject *flags_richcompare(PyObject *a, PyObject *b, int op)
{
    FlagsObject *left = (FlagsObject *)a, *right = (FlagsObject *)b;
    int same;

    if (!Py_IS_TYPE(b, Py_TYPE(a)) || (op != Py_EQ && op != Py_NE))
        Py_RETURN_NOTIMPLEMENTED;
    same = left->bits == right->bits && (left->policy == NULL) == (right->policy == NULL) &&
           (left->policy == NULL || strcmp(left->policy, right->policy) == 0);
    return PyBool_FromLong(same == (op == Py_EQ));
}

static int as_version(PyObject *arg, void *out)
{
    unsigned long value;

    *(uint32_t *)out = 0;
    if (arg == Py_None)
        return 1;
    value = PyLong_AsUnsignedLong(arg);
    if (PyErr_Occurred())
        return 0;
    if (value > UINT32_MAX) {
        PyErr_Format(PyExc_ValueError, "version %lu is not major * 1000000 + minor * 1000 + micro", value);
        return 0;
    }
    *(uint32_t *)out = (uint32_t)value;
    return 1;
}

static int parse_context(PyObject *args, PyObject *kwargs, const char *format, struct pcmig_conflicts_context *context)
{
    static char *names[] = {"qemu_version", "libvirt_version", "nova", NULL};
    int nova = 0;

    *context = (struct pcmig_conflicts_context){0};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, format, names, as_version, &context->qemu_version, as_version,
                                     &context->libvirt_version, &nova))
        return -1;
    context->nova = nova != 0;
    return 0;
}

static PyObject *flags_check(PyObject *op, PyObject *args, PyObject *kwargs)
{
    struct pcmig_conflicts_finding found[PCMIG_CONFLICTS_MAX];
    struct pcmig_conflicts_context context;
    PyObject *list;
    size_t n;

    if (parse_context(args, kwargs, "|O&O&p:check", &context) < 0)
        return NULL;
    n = pcmig_conflicts_check(((FlagsObject *)op)->bits, &context, found);
    list = PyList_New((Py_ssize_t)n);
    for (size_t i = 0; list != NULL && i < n; i++) {
        const char *severity = found[i].severity == PCMIG_CONFLICTS_ERROR ? "error" : "warning";
        char message[512];
        PyObject *row;

        (void)pcmig_conflicts_describe(&found[i], &context, message, sizeof(message));
        row = Py_BuildValue("(ssN)", severity, message, names_of(found[i].bits));
        if (row == NULL)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, (Py_ssize_t)i, row);
    }
    return list;
}

static PyObject *flags_resolved(PyObject *op, PyObject *args, PyObject *kwargs)
{
    FlagsObject *self = (FlagsObject *)op;
    struct pcmig_conflicts_context context;
    PyObject *module = PyType_GetModule(Py_TYPE(op));

    if (module == NULL || parse_context(args, kwargs, "|O&O&p:resolved", &context) < 0)
        return NULL;
    return flags_new(module, pcmig_conflicts_resolve(self->bits, &context), self->policy, PyTuple_New(0));
}

static PyObject *get_bits(PyObject *op, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLong(((FlagsObject *)op)->bits);
}

static PyObject *get_policy(PyObject *op, void *Py_UNUSED(closure))
{
    return text_or_none(((FlagsObject *)op)->policy);
}

static PyObject *get_names(PyObject *op, void *Py_UNUSED(closure))
{
    return Py_NewRef(((FlagsObject *)op)->names);
}

static PyObject *get_items(PyObject *op, void *Py_UNUSED(closure))
{
    return Py_NewRef(((FlagsObject *)op)->items);
}

static PyMethodDef flags_methods[] = {
    {"check", (PyCFunction)(void (*)(void))flags_check, METH_VARARGS | METH_KEYWORDS,
     "What is wrong with these flags: [(severity, message, names)], errors first."},
    {"resolved", (PyCFunction)(void (*)(void))flags_resolved, METH_VARARGS | METH_KEYWORDS,
     "Flags with the remedy of every finding of check() applied."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef flags_getset[] = {
    {"bits", get_bits, NULL, "VIR_MIGRATE_* bits for libvirt.", NULL},
    {"policy", get_policy, NULL, "The switchover policy that an old name stands for, or None.", NULL},
    {"names", get_names, NULL, "The flags' names with prefix, by ascending bit.", NULL},
    {"items", get_items, NULL, "One (given, name, bit, policy, position) for each name in the text.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot flags_slots[] = {
    {Py_tp_doc, "Migration flags, as parse_flags() or flags_from_bits() returns them. Immutable."},
    {Py_tp_traverse, flags_traverse},
    {Py_tp_dealloc, flags_dealloc},
    {Py_tp_str, flags_str},
    {Py_tp_repr, flags_repr},
    {Py_tp_hash, flags_hash},
    {Py_tp_richcompare, flags_richcompare},
    {Py_tp_methods, flags_methods},
    {Py_tp_getset, flags_getset},
    {0, NULL},
};

static PyType_Spec flags_spec = {
    .name = "pcmig._core.Flags",
    .basicsize = sizeof(FlagsObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = flags_slots,
};

/* Raises FlagsError for ERR, whose token lies in UTF8; TEXT is the same as the caller gave it. */
static void raise_unknown(PyObject *module, PyObject *text, const char *utf8, struct pcmig_flags_error *err)
{
    const Py_ssize_t start = (Py_ssize_t)pcmig_flags_characters(utf8, err->offset);
    const Py_ssize_t end = (Py_ssize_t)pcmig_flags_characters(utf8, err->offset + err->len);
    char message[PCMIG_FLAGS_MESSAGE_MAX];
    PyObject *exc, *suggestion, *values;
    static const char *const names[] = {"position", "item", "token", "suggestion"};

    err->offset = (size_t)start; /* the message counts characters too */
    (void)pcmig_flags_error_describe(err, message, sizeof(message));
    suggestion = err->suggestion != NULL ? PyUnicode_FromFormat("%s%s", PCMIG_FLAGS_PREFIX, err->suggestion)
                                         : Py_NewRef(Py_None);
    values = Py_BuildValue("(nINN)", start, err->item, PyUnicode_Substring(text, start, end), suggestion);
    if (values == NULL)
        return;
    exc = PyObject_CallFunction(pcmig_get_state(module)->flags_error, "s", message);
    for (Py_ssize_t i = 0; exc != NULL && i < 4; i++) {
        if (PyObject_SetAttrString(exc, names[i], PyTuple_GET_ITEM(values, i)) < 0)
            Py_CLEAR(exc);
    }
    if (exc != NULL)
        PyErr_SetObject((PyObject *)Py_TYPE(exc), exc);
    Py_XDECREF(exc);
    Py_DECREF(values);
}

/* The tuple that Flags.items shows for the valid text UTF8, which is TEXT in Python's form. */
static PyObject *items_of(PyObject *text, const char *utf8, size_t len)
{
    struct pcmig_flags_item item = {0};
    PyObject *list = PyList_New(0), *tuple;
    size_t pos = 0;

    while (list != NULL && pcmig_flags_next(utf8, len, &pos, &item)) {
        const Py_ssize_t start = (Py_ssize_t)pcmig_flags_characters(utf8, item.offset);
        PyObject *name = PyUnicode_FromFormat("%s%s", PCMIG_FLAGS_PREFIX, item.row->name);
        PyObject *row = Py_BuildValue("(NNINn)", PyUnicode_Substring(text, start, start + (Py_ssize_t)item.len), name,
                                      (unsigned)item.row->bit, text_or_none(item.old ? item.old->policy : NULL), start);

        if (row == NULL || PyList_Append(list, row) < 0)
            Py_CLEAR(list);
        Py_XDECREF(row);
    }
    if (list == NULL)
        return NULL;
    tuple = PyList_AsTuple(list);
    Py_DECREF(list);
    return tuple;
}

static PyObject *parse_flags(PyObject *module, PyObject *text)
{
    struct pcmig_flags_error err;
    struct pcmig_flags flags;
    PyObject *encoded, *result = NULL;
    Py_ssize_t len;
    char *utf8;

    if (!PyUnicode_Check(text))
        return PyErr_Format(PyExc_TypeError, "flags are text (str), not %.100s", Py_TYPE(text)->tp_name);
    /* "replace": surrogates come from command lines that are not UTF-8, and are unknown names like any other. */
    encoded = PyUnicode_AsEncodedString(text, "utf-8", "replace");
    if (encoded == NULL)
        return NULL;
    if (PyBytes_AsStringAndSize(encoded, &utf8, &len) == 0) {
        if (pcmig_flags_parse(utf8, (size_t)len, &flags, &err) < 0)
            raise_unknown(module, text, utf8, &err);
        else
            result = flags_new(module, flags.bits, flags.policy, items_of(text, utf8, (size_t)len));
    }
    Py_DECREF(encoded);
    return result;
}

static PyObject *flags_from_bits(PyObject *module, PyObject *arg)
{
    const unsigned long bits = PyLong_AsUnsignedLong(arg);

    if (bits == (unsigned long)-1 && PyErr_Occurred())
        return NULL;
    if (bits > UINT32_MAX)
        return PyErr_Format(PyExc_ValueError, "libvirt's flags have 32 bits, 0x%lx has more", bits);
    return flags_new(module, (uint32_t)bits, NULL, PyTuple_New(0));
}

/* Appends ROW to *LIST and drops the reference to it; on failure, also of what made ROW, *LIST becomes NULL. */
static void append_row(PyObject **list, PyObject *row)
{
    if (row == NULL || PyList_Append(*list, row) < 0)
        Py_CLEAR(*list);
    Py_XDECREF(row);
}

static PyObject *prefixed(const char *name)
{
    return PyUnicode_FromFormat("%s%s", PCMIG_FLAGS_PREFIX, name);
}

static PyObject *flags_table(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(arg))
{
    const struct pcmig_flags_row *row;
    PyObject *list = PyList_New(0);

    for (size_t i = 0; list != NULL && (row = pcmig_flags_row(i)) != NULL; i++)
        append_row(&list, Py_BuildValue("{sN sI sN ss}", "name", prefixed(row->name), "bit", (unsigned)row->bit,
                                        "since", version_string(row->since), "doc", row->doc));
    return list;
}

static PyObject *flags_old_names(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(arg))
{
    const struct pcmig_flags_old_name *old;
    PyObject *list = PyList_New(0);

    for (size_t i = 0; list != NULL && (old = pcmig_flags_old_name(i)) != NULL; i++)
        append_row(&list, Py_BuildValue("{sN sI sN ss}", "name", prefixed(old->name), "bit", (unsigned)old->bit,
                                        "policy", text_or_none(old->policy), "doc", old->doc));
    return list;
}

static PyObject *flags_conflicts(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(arg))
{
    static const char *const users[] = {
        [PCMIG_CONFLICTS_ANYONE] = "anyone", [PCMIG_CONFLICTS_NOVA] = "nova", [PCMIG_CONFLICTS_NOT_NOVA] = "not-nova"};
    const struct pcmig_conflicts_row *row;
    PyObject *list = PyList_New(0);

    for (size_t i = 0; list != NULL && (row = pcmig_conflicts_row(i)) != NULL; i++)
        append_row(&list, Py_BuildValue("{ss ss ss sN sN sN ss ss}", "name", row->name, "severity",
                                        row->severity == PCMIG_CONFLICTS_ERROR ? "error" : "warning", "user",
                                        users[row->user], "all", names_of(row->all), "any", names_of(row->any), "none",
                                        names_of(row->none), "problem", row->problem, "remedy", row->remedy));
    return list;
}

static PyMethodDef functions[] = {
    {"parse_flags", parse_flags, METH_O, "Flags from a text such as nova.conf's live_migration_flag."},
    {"flags_from_bits", flags_from_bits, METH_O, "Flags from VIR_MIGRATE_* bits."},
    {"flags_table", flags_table, METH_NOARGS, "Every migration flag of libvirt."},
    {"flags_old_names", flags_old_names, METH_NOARGS, "Names of old and what they mean today."},
    {"flags_conflicts", flags_conflicts, METH_NOARGS, "The rules of Flags.check()."},
    {NULL, NULL, 0, NULL},
};

int pcmig_flags_setup(PyObject *module)
{
    struct pcmig_state *s = pcmig_get_state(module);

    s->flags_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &flags_spec, NULL);
    if (s->flags_type == NULL || PyModule_AddType(module, s->flags_type) < 0)
        return -1;
    return PyModule_AddFunctions(module, functions);
}
