/* The exception hierarchy of pcmig, and the one place that maps libvirt's errors to it. */
#include "state.h"

static int add_exception(PyObject *module, PyObject **slot, const char *name, const char *doc, PyObject *base)
{
    char qualified[64];

    PyOS_snprintf(qualified, sizeof(qualified), "pcmig._core.%s", name);
    *slot = PyErr_NewExceptionWithDoc(qualified, doc, base, NULL);
    if (*slot == NULL)
        return -1;
    return PyModule_AddObjectRef(module, name, *slot);
}

int pcmig_errors_setup(PyObject *module)
{
    struct pcmig_state *s = pcmig_get_state(module);

    if (add_exception(module, &s->error, "Error", "Base of all errors of pcmig.", NULL) < 0)
        return -1;
    if (add_exception(module, &s->flags_error, "FlagsError", "A migration flag is unknown or flags conflict.",
                      s->error) < 0)
        return -1;
    if (add_exception(module, &s->policy_error, "PolicyError", "A policy or a parameter is not valid.", s->error) < 0)
        return -1;
    if (add_exception(module, &s->trace_error, "TraceError", "A trace cannot be read.", s->error) < 0)
        return -1;
    if (add_exception(module, &s->libvirt_error, "LibvirtError", "libvirt reported an error.", s->error) < 0)
        return -1;
    return 0;
}
