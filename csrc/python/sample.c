/* See sample.h. */
#include "python/sample.h"

#include <stddef.h>

static const struct {
    const char *name;
    size_t offset;
} fields[] = {
#define FIELD(name)                                                                                                    \
    {                                                                                                                  \
#name, offsetof(struct pcmig_sample, name)                                                                     \
    }
    FIELD(memory_total_bytes),
    FIELD(memory_processed_bytes),
    FIELD(memory_remaining_bytes),
    FIELD(memory_bps),
    FIELD(zero_pages),
    FIELD(normal_pages),
    FIELD(normal_bytes),
    FIELD(dirty_pages_ps),
    FIELD(iteration),
    FIELD(page_size_bytes),
    FIELD(postcopy_requests),
    FIELD(disk_total_bytes),
    FIELD(disk_processed_bytes),
    FIELD(disk_remaining_bytes),
    FIELD(downtime_ms),
    FIELD(setup_time_ms),
    FIELD(elapsed_ms),
#undef FIELD
};

PyObject *pcmig_sample_as_dict(const struct pcmig_sample *sample)
{
    PyObject *dict = PyDict_New();
    PyObject *value;
    int failed;

    for (size_t i = 0; dict != NULL && i < sizeof(fields) / sizeof(fields[0]); i++) {
        value = PyLong_FromUnsignedLongLong(*(const uint64_t *)((const char *)sample + fields[i].offset));
        failed = value == NULL || PyDict_SetItemString(dict, fields[i].name, value) < 0;
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
