/* SPDX-License-Identifier: Apache-2.0 */
/* Job statistics as a dictionary. See state.h. */

#include "python/state.h"

#include "core/names.h"

PyObject *pcmig_sample_as_dict(const struct pcmig_sample *sample)
{
    PyObject *dict = PyDict_New();
    const struct pcmig_names_field *field;
    PyObject *value;
    int failed;

    for (size_t i = 0; dict != NULL && (field = pcmig_names_field(i)) != NULL; i++) {
        value = PyLong_FromUnsignedLongLong(*(const uint64_t *)((const char *)sample + field->offset));
        failed = value == NULL || PyDict_SetItemString(dict, field->name, value) < 0;
        Py_XDECREF(value);
        if (failed)
            Py_CLEAR(dict);
    }
    if (dict == NULL)
        return NULL;
    value = sample->queue_bytes < 0 ? Py_NewRef(Py_None) : PyLong_FromLongLong(sample->queue_bytes);
    failed = value == NULL || PyDict_SetItemString(dict, "queue_bytes", value) < 0;
    Py_XDECREF(value);
    if (failed)
        Py_CLEAR(dict);
    return dict;
}
