/* SPDX-License-Identifier: Apache-2.0 */
/* The ledger as a dictionary. */

#include "python/state.h"

#include "core/names.h"

#include <string.h>

/* Puts VALUE (a new reference, or NULL with an exception set) under KEY. Returns 0, or -1 with an exception set. */
static int put(PyObject *dict, const char *key, PyObject *value)
{
    int rc;

    if (value == NULL)
        return -1;
    rc = PyDict_SetItemString(dict, key, value);
    Py_DECREF(value);
    return rc;
}

static PyObject *int_or_none(int64_t value)
{
    if (value < 0)
        Py_RETURN_NONE;
    return PyLong_FromLongLong(value);
}

#define FIELD(member)                                                                                                  \
    {                                                                                                                  \
#member, offsetof(struct pcmig_ledger_row, member)                                                             \
    }

struct field {
    const char *name;
    size_t offset;
};

static const struct field times[] = {FIELD(start_us), FIELD(end_us), FIELD(duration_us)};

static const struct field figures[] = {
    FIELD(remaining_start_bytes), FIELD(remaining_end_bytes),     FIELD(dirtied_pages),
    FIELD(dirty_pages_ps),        FIELD(reported_dirty_pages_ps), FIELD(send_bps),
    FIELD(retransmitted_pages),   FIELD(requests_peak_ps),        FIELD(bytes_per_guest_page),
};

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

static PyObject *row_as_dict(const struct pcmig_ledger_row *row)
{
    PyObject *dict = PyDict_New();
    uint64_t value;
    int64_t t_us;

    if (dict == NULL)
        return NULL;
    if (put(dict, "phase", PyUnicode_FromString(pcmig_phase_name(row->phase))) < 0 ||
        put(dict, "number", PyLong_FromUnsignedLong(row->number)) < 0 ||
        put(dict, "merged", PyLong_FromUnsignedLong(row->merged)) < 0 ||
        put(dict, "complete", PyBool_FromLong(row->complete)) < 0)
        goto fail;
    for (size_t i = 0; i < COUNT(times); i++) {
        memcpy(&t_us, (const char *)row + times[i].offset, sizeof(t_us));
        if (put(dict, times[i].name, PyLong_FromLongLong(t_us)) < 0)
            goto fail;
    }
    for (int q = 0; q < PCMIG_QUANTITY_COUNT; q++) {
        if (put(dict, pcmig_quantity_name((enum pcmig_quantity)q), PyLong_FromUnsignedLongLong(row->quantity[q])) < 0)
            goto fail;
    }
    for (size_t i = 0; i < COUNT(figures); i++) {
        memcpy(&value, (const char *)row + figures[i].offset, sizeof(value));
        if (put(dict, figures[i].name, PyLong_FromUnsignedLongLong(value)) < 0)
            goto fail;
    }
    if (put(dict, "retransmitted_permille", PyLong_FromUnsignedLong(row->retransmitted_permille)) < 0 ||
        put(dict, "queue_peak_bytes", int_or_none(row->queue_peak_bytes)) < 0)
        goto fail;
    return dict;
fail:
    Py_DECREF(dict);
    return NULL;
}

typedef bool (*get_row_fn)(const struct pcmig_ledger *ledger, size_t index, struct pcmig_ledger_row *out);

static PyObject *rows_as_list(const struct pcmig_ledger *ledger, get_row_fn get_row)
{
    PyObject *list = PyList_New(0), *dict;
    struct pcmig_ledger_row row;

    for (size_t i = 0; list != NULL && get_row(ledger, i, &row); i++) {
        dict = row_as_dict(&row);
        if (dict == NULL || PyList_Append(list, dict) < 0)
            Py_CLEAR(list);
        Py_XDECREF(dict);
    }
    return list;
}

static const char *entry_name(const struct pcmig_ledger_entry *entry)
{
    switch (entry->kind) {
    case PCMIG_LEDGER_ENTRY_PHASE:
        return pcmig_phase_name((enum pcmig_phase)entry->code);
    case PCMIG_LEDGER_ENTRY_EVENT:
        return pcmig_names_event(entry->code);
    case PCMIG_LEDGER_ENTRY_REQUEST:
        return pcmig_names_request(entry->code);
    case PCMIG_LEDGER_ENTRY_ACTION:
        return pcmig_action_name((enum pcmig_action)entry->code);
    case PCMIG_LEDGER_ENTRY_KIND_COUNT:
        break;
    }
    return "unknown";
}

static PyObject *events_as_list(const struct pcmig_ledger *ledger, unsigned *lost)
{
    static const char *const kinds[PCMIG_LEDGER_ENTRY_KIND_COUNT] = {"phase", "event", "request", "action"};
    const struct pcmig_ledger_entry *entries;
    size_t count = pcmig_ledger_events(ledger, &entries, lost);
    PyObject *list = PyList_New((Py_ssize_t)count), *entry;

    for (size_t i = 0; list != NULL && i < count; i++) {
        entry = Py_BuildValue("{s:L,s:s,s:s}", "t_us", (long long)entries[i].t_us, "kind", kinds[entries[i].kind],
                              "name", entry_name(&entries[i]));
        if (entry == NULL)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, (Py_ssize_t)i, entry);
    }
    return list;
}

static PyObject *totals_as_dict(const struct pcmig_ledger *ledger)
{
    struct pcmig_ledger_totals totals;
    PyObject *dict, *times_dict;

    pcmig_ledger_totals(ledger, &totals);
    dict = row_as_dict(&totals.sum);
    times_dict = PyDict_New();
    if (dict == NULL || times_dict == NULL)
        goto fail;
    for (int p = 0; p < PCMIG_PHASE_COUNT; p++) {
        if (put(times_dict, pcmig_phase_name((enum pcmig_phase)p), PyLong_FromLongLong(totals.phase_us[p])) < 0)
            goto fail;
    }
    if (PyDict_SetItemString(dict, "phase_us", times_dict) < 0 ||
        put(dict, "gate_us", PyLong_FromLongLong(totals.gate_us)) < 0 ||
        put(dict, "waited_us", PyLong_FromLongLong(totals.waited_us)) < 0 ||
        put(dict, "total_us", PyLong_FromLongLong(totals.total_us)) < 0 ||
        put(dict, "guest_pages", PyLong_FromUnsignedLongLong(totals.guest_pages)) < 0 ||
        put(dict, "page_size_bytes", PyLong_FromUnsignedLongLong(totals.page_size_bytes)) < 0 ||
        put(dict, "passes", PyLong_FromUnsignedLong(totals.passes)) < 0 ||
        put(dict, "downtime_reported_ms", int_or_none(totals.downtime_reported_ms)) < 0 ||
        put(dict, "downtime_events_us", int_or_none(totals.downtime_events_us)) < 0 ||
        put(dict, "late_samples", PyLong_FromUnsignedLong(totals.late_samples)) < 0 ||
        put(dict, "counters_backwards", PyLong_FromUnsignedLong(totals.counters_backwards)) < 0)
        goto fail;
    Py_DECREF(times_dict);
    return dict;
fail:
    Py_XDECREF(times_dict);
    Py_XDECREF(dict);
    return NULL;
}

static PyObject *balance_as_dict(const struct pcmig_ledger *ledger)
{
    struct pcmig_ledger_balance balance;
    PyObject *quantities = PyDict_New(), *dict;
    char text[256];

    if (quantities == NULL)
        return NULL;
    pcmig_ledger_balance(ledger, &balance);
    pcmig_ledger_balance_describe(&balance, text, sizeof(text));
    for (int q = 0; balance.final && q < PCMIG_QUANTITY_COUNT; q++) {
        PyObject *row =
            Py_BuildValue("{s:K,s:K,s:L,s:K}", "phases", (unsigned long long)balance.phases[q], "reported",
                          (unsigned long long)balance.reported[q], "difference", (long long)balance.difference[q],
                          "last_interval", (unsigned long long)balance.last_interval[q]);

        if (put(quantities, pcmig_quantity_name((enum pcmig_quantity)q), row) < 0) {
            Py_DECREF(quantities);
            return NULL;
        }
    }
    dict = Py_BuildValue("{s:O,s:O,s:s,s:N}", "final", balance.final ? Py_True : Py_False, "balanced",
                         balance.balanced ? Py_True : Py_False, "text", text, "quantities", quantities);
    return dict; /* "N" took the quantities, also where it failed */
}

PyObject *pcmig_latency_now_as_dict(struct pcmig_latency_now latency)
{
    if (latency.source == PCMIG_LATENCY_NONE)
        Py_RETURN_NONE;
    return Py_BuildValue("{s:s,s:K,s:N}", "source", pcmig_latency_source_name(latency.source), "mean_us",
                         (unsigned long long)latency.mean_us, "now_us", int_or_none(latency.now_us));
}

/* None where nothing is known of it. */
static PyObject *latency_as_dict(const struct pcmig_latency *latency)
{
    const struct pcmig_latency_figures *f = &latency->figures;
    const bool counted = latency->source == PCMIG_LATENCY_COUNTED;
    PyObject *buckets;

    if (latency->source == PCMIG_LATENCY_NONE)
        Py_RETURN_NONE;
    buckets = PyList_New(PCMIG_LATENCY_BUCKETS);
    for (Py_ssize_t i = 0; buckets != NULL && i < PCMIG_LATENCY_BUCKETS; i++) {
        PyObject *number = PyLong_FromUnsignedLongLong(f->bucket[i]);

        if (number == NULL)
            Py_CLEAR(buckets);
        else
            PyList_SET_ITEM(buckets, i, number);
    }
    if (buckets == NULL)
        return NULL;
    return Py_BuildValue("{s:s,s:K,s:K,s:N,s:N,s:N}", "source", pcmig_latency_source_name(latency->source), "requests",
                         (unsigned long long)pcmig_latency_requests(f), "mean_us", (unsigned long long)f->mean_us,
                         "vcpu_us", counted ? PyLong_FromUnsignedLongLong(f->vcpu_us) : Py_NewRef(Py_None), "other_us",
                         counted ? PyLong_FromUnsignedLongLong(f->other_us) : Py_NewRef(Py_None), "buckets", buckets);
}

PyObject *pcmig_ledger_as_dict(const struct pcmig_ledger *ledger)
{
    PyObject *dict = PyDict_New();
    unsigned lost;

    if (dict == NULL)
        return NULL;
    if (put(dict, "phase", PyUnicode_FromString(pcmig_phase_name(pcmig_ledger_phase_now(ledger)))) < 0 ||
        put(dict, "phases", rows_as_list(ledger, pcmig_ledger_phase)) < 0 ||
        put(dict, "passes", rows_as_list(ledger, pcmig_ledger_pass)) < 0 ||
        put(dict, "events", events_as_list(ledger, &lost)) < 0 ||
        put(dict, "events_lost", PyLong_FromUnsignedLong(lost)) < 0 ||
        put(dict, "totals", totals_as_dict(ledger)) < 0 ||
        put(dict, "latency", latency_as_dict(pcmig_ledger_latency(ledger))) < 0 ||
        put(dict, "balance", balance_as_dict(ledger)) < 0) {
        Py_DECREF(dict);
        return NULL;
    }
    return dict;
}
