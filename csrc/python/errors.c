/* SPDX-License-Identifier: Apache-2.0 */
/* The exception hierarchy of pcmig, and the one place that maps libvirt's errors to it. */

#include "core/hints.h"
#include "python/state.h"

#include <string.h>

/* One row per exception of our own; libvirt's kinds of failure name theirs. */
static const struct {
    const char *name;
    const char *doc;
    size_t slot;
    size_t base; /* SIZE_MAX = Exception */
} exceptions[] = {
#define SLOT(member) offsetof(struct pcmig_state, member)
    {"Error", "Base of all errors of pcmig.", SLOT(error), SIZE_MAX},
    {"FlagsError", "A migration flag is unknown or flags conflict.", SLOT(flags_error), SLOT(error)},
    {"PolicyError", "A policy or a parameter is not valid.", SLOT(policy_error), SLOT(error)},
    {"TraceError", "A trace cannot be read.", SLOT(trace_error), SLOT(error)},
    {"LibvirtError",
     "libvirt reported an error; `code` and `domain` are its virErrorNumber and virErrorDomain, `hint` is what helps, "
     "with which the text ends, or None.",
     SLOT(libvirt_error), SLOT(error)},
    {"ConnectError", "A connection to libvirt could not be made, or broke.", SLOT(connect_error), SLOT(libvirt_error)},
    {"NoDomainError", "The guest is not known on that host.", SLOT(no_domain_error), SLOT(libvirt_error)},
    {"UnsupportedError", "This libvirt, QEMU or guest cannot do what was asked.", SLOT(unsupported_error),
     SLOT(libvirt_error)},
    {"InvalidOperationError", "Not possible in the guest's present state.", SLOT(invalid_operation_error),
     SLOT(libvirt_error)},
    {"DeniedError", "Authentication or access was refused.", SLOT(denied_error), SLOT(libvirt_error)},
#undef SLOT
};

static const struct {
    enum pcmig_virt_failure failure;
    size_t slot;
} failures[] = {
    {PCMIG_VIRT_FAILURE_CONNECT, offsetof(struct pcmig_state, connect_error)},
    {PCMIG_VIRT_FAILURE_NO_DOMAIN, offsetof(struct pcmig_state, no_domain_error)},
    {PCMIG_VIRT_FAILURE_UNSUPPORTED, offsetof(struct pcmig_state, unsupported_error)},
    {PCMIG_VIRT_FAILURE_INVALID, offsetof(struct pcmig_state, invalid_operation_error)},
    {PCMIG_VIRT_FAILURE_DENIED, offsetof(struct pcmig_state, denied_error)},
};

static PyObject **slot_of(struct pcmig_state *state, size_t offset)
{
    return (PyObject **)((char *)state + offset);
}

void pcmig_errors_raise(PyObject *module, const struct pcmig_virt_error *error)
{
    struct pcmig_state *state = pcmig_get_state(module);
    enum pcmig_virt_failure failure = pcmig_virt_classify(error);
    PyObject *type = state->libvirt_error;
    PyObject *message, *exception, *code, *domain, *helps;
    const char *hint = NULL;

    for (size_t i = 0; i < sizeof(failures) / sizeof(failures[0]); i++) {
        if (failures[i].failure == failure)
            type = *slot_of(state, failures[i].slot);
    }
    /* The message was cut to its buffer, perhaps within a character. */
    message = PyUnicode_DecodeUTF8(error->message, (Py_ssize_t)strlen(error->message), "replace");
    if (message == NULL)
        return;
    if (failure == PCMIG_VIRT_FAILURE_CONNECT || failure == PCMIG_VIRT_FAILURE_DENIED)
        hint = pcmig_hint_connecting(error->message);
    if (hint != NULL)
        Py_SETREF(message, PyUnicode_FromFormat("%U; %s", message, hint));
    if (message == NULL)
        return;
    exception = PyObject_CallOneArg(type, message);
    Py_DECREF(message);
    if (exception == NULL)
        return;
    code = PyLong_FromLong(error->code);
    domain = PyLong_FromLong(error->domain);
    helps = hint != NULL ? PyUnicode_FromString(hint) : Py_NewRef(Py_None);
    if (code != NULL && domain != NULL && helps != NULL && PyObject_SetAttrString(exception, "code", code) == 0 &&
        PyObject_SetAttrString(exception, "domain", domain) == 0 &&
        PyObject_SetAttrString(exception, "hint", helps) == 0)
        PyErr_SetObject(type, exception);
    Py_XDECREF(helps);
    Py_XDECREF(code);
    Py_XDECREF(domain);
    Py_DECREF(exception);
}

int pcmig_errors_setup(PyObject *module)
{
    struct pcmig_state *state = pcmig_get_state(module);

    for (size_t i = 0; i < sizeof(exceptions) / sizeof(exceptions[0]); i++) {
        PyObject **slot = slot_of(state, exceptions[i].slot);
        PyObject *base = exceptions[i].base == SIZE_MAX ? NULL : *slot_of(state, exceptions[i].base);
        char qualified[64];

        PyOS_snprintf(qualified, sizeof(qualified), "pcmig._core.%s", exceptions[i].name);
        *slot = PyErr_NewExceptionWithDoc(qualified, exceptions[i].doc, base, NULL);
        if (*slot == NULL || PyModule_AddObjectRef(module, exceptions[i].name, *slot) < 0)
            return -1;
    }
    return 0;
}
