/* SPDX-License-Identifier: Apache-2.0 */
/* probe_host() and host_facts(): the facts behind `pcmig check`, as dictionaries. Judging them is pcmig/check/. */
#include "python/state.h"

#include "edge/probe.h"
#include "edge/turns_file.h"
#include "edge/virt.h"
#include "edge/virt_facts.h"

#include <linux/userfaultfd.h>
#include <stdlib.h>

enum { TRY_AS_TIMEOUT_MS = 5000 };

struct bit_name {
    uint64_t bit;
    const char *name;
};

/* Numbers as in linux/userfaultfd.h up to Linux 6.12, so that older headers do not shorten the list. */
static const struct bit_name feature_names[] = {
    {1u << 0, "pagefault-flag-wp"},
    {1u << 1, "event-fork"},
    {1u << 2, "event-remap"},
    {1u << 3, "event-remove"},
    {1u << 4, "missing-hugetlbfs"},
    {1u << 5, "missing-shmem"},
    {1u << 6, "event-unmap"},
    {1u << 7, "sigbus"},
    {1u << 8, "thread-id"},
    {1u << 9, "minor-hugetlbfs"},
    {1u << 10, "minor-shmem"},
    {1u << 11, "exact-address"},
    {1u << 12, "wp-hugetlbfs-shmem"},
    {1u << 13, "wp-unpopulated"},
    {1u << 14, "poison"},
    {1u << 15, "wp-async"},
    {1u << 16, "move"},
    {0, NULL},
};

static const struct bit_name ioctl_names[] = {
    {1u << _UFFDIO_REGISTER, "register"}, {1u << _UFFDIO_UNREGISTER, "unregister"}, {1u << _UFFDIO_WAKE, "wake"},
    {1u << _UFFDIO_COPY, "copy"},         {1u << _UFFDIO_ZEROPAGE, "zeropage"},     {0, NULL},
};

static const char *const step_names[] = {"open", "api", "register", "done"};

static PyObject *bits_to_list(uint64_t bits, const struct bit_name *names)
{
    PyObject *list = PyList_New(0);

    for (; list != NULL && names->name != NULL; names++) {
        if (!(bits & names->bit))
            continue;
        PyObject *name = PyUnicode_FromString(names->name);

        if (name == NULL || PyList_Append(list, name) < 0)
            Py_CLEAR(list);
        Py_XDECREF(name);
    }
    return list;
}

static PyObject *try_to_dict(const struct pcmig_uffd_try *attempt)
{
    return Py_BuildValue("{s:O,s:s,s:i,s:N,s:N}", "ok", attempt->step == PCMIG_UFFD_STEP_DONE ? Py_True : Py_False,
                         "step", step_names[attempt->step], "errno", attempt->error, "features",
                         bits_to_list(attempt->features, feature_names), "ioctls",
                         bits_to_list(attempt->ioctls | attempt->range_ioctls, ioctl_names));
}

static PyObject *report_to_dict(const struct pcmig_uffd_report *report)
{
    return Py_BuildValue("{s:N,s:N,s:N}", "syscall", try_to_dict(&report->syscall), "syscall_user_mode_only",
                         try_to_dict(&report->user_only), "node", try_to_dict(&report->node));
}

static PyObject *number_or_none(int64_t value)
{
    if (value == PCMIG_PROBE_UNKNOWN)
        Py_RETURN_NONE;
    return PyLong_FromLongLong(value);
}

static PyObject *three_or_none(const int64_t value[3])
{
    if (value[0] == PCMIG_PROBE_UNKNOWN)
        Py_RETURN_NONE;
    return Py_BuildValue("[LLL]", (long long)value[0], (long long)value[1], (long long)value[2]);
}

static PyObject *text_or_none(const char *text)
{
    if (text == NULL || text[0] == '\0')
        Py_RETURN_NONE;
    return PyUnicode_DecodeUTF8(text, (Py_ssize_t)strlen(text), "replace");
}

static PyObject *node_to_dict(const struct pcmig_probe *probe)
{
    if (!probe->node.exists)
        Py_RETURN_NONE;
    return Py_BuildValue("{s:O,s:I,s:I,s:I,s:I,s:I}", "device", probe->node.is_device ? Py_True : Py_False, "mode",
                         probe->node.mode, "uid", probe->node.uid, "gid", probe->node.gid, "major", probe->node.major,
                         "minor", probe->node.minor);
}

struct as_user {
    const char *name; /* NULL = nobody asked */
    struct pcmig_uffd_identity identity;
    struct pcmig_uffd_report report;
    int error; /* errno of trying, 0 = `report` is there */
};

static PyObject *user_to_dict(const struct as_user *user)
{
    if (user->name == NULL)
        Py_RETURN_NONE;
    PyObject *groups = PyList_New((Py_ssize_t)user->identity.group_count);

    if (groups == NULL)
        return NULL;
    for (size_t i = 0; i < user->identity.group_count; i++) {
        PyObject *id = PyLong_FromUnsignedLong(user->identity.groups[i]);

        if (id == NULL) {
            Py_DECREF(groups);
            return NULL;
        }
        PyList_SET_ITEM(groups, (Py_ssize_t)i, id);
    }
    PyObject *report = user->error == 0 ? report_to_dict(&user->report) : Py_NewRef(Py_None);

    return Py_BuildValue("{s:s,s:I,s:I,s:N,s:O,s:i,s:N}", "name", user->name, "uid", (unsigned)user->identity.uid,
                         "gid", (unsigned)user->identity.gid, "groups", groups, "capabilities",
                         user->identity.keep_capabilities ? Py_True : Py_False, "errno", user->error, "uffd", report);
}

static PyObject *turns_to_dict(const struct pcmig_turns_file_facts *turns)
{
    return Py_BuildValue("{s:s,s:N,s:i,s:I,s:I}", "state", pcmig_turns_file_state_name(turns->state), "path",
                         text_or_none(turns->path), "errno", turns->error, "folder_mode", turns->folder_mode,
                         "migrations", turns->rows);
}

static PyObject *probe_to_dict(const struct pcmig_probe *p, const struct as_user *user,
                               const struct pcmig_turns_file_facts *turns)
{
    PyObject *sysctl = Py_BuildValue(
        "{s:N,s:N,s:N,s:N,s:N}", "vm.unprivileged_userfaultfd", number_or_none(p->unprivileged_userfaultfd),
        "vm.max_map_count", number_or_none(p->max_map_count), "net.ipv4.tcp_retries2", number_or_none(p->tcp_retries2),
        "net.ipv4.tcp_wmem", three_or_none(p->tcp_wmem_bytes), "net.ipv4.tcp_rmem", three_or_none(p->tcp_rmem_bytes));

    if (sysctl == NULL)
        return NULL;
    return Py_BuildValue("{s:N,s:N,s:N,s:L,s:N,s:N,s:N,s:N,s:N}", "kernel", text_or_none(p->kernel), "lockdown",
                         text_or_none(p->lockdown), "seccomp", number_or_none(p->seccomp), "page_size_bytes",
                         (long long)p->page_size_bytes, "sysctl", sysctl, "node", node_to_dict(p), "uffd",
                         report_to_dict(&p->self), "user", user_to_dict(user), "turns", turns_to_dict(turns));
}

PyDoc_STRVAR(
    probe_host_doc,
    "probe_host(user=None, *, group=None, keep_capabilities=False, root='/')\n--\n\n"
    "Facts of this host for post-copy. With USER, userfaultfd is also tried as that user, in a child process.");

static PyObject *probe_host(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"user", "group", "keep_capabilities", "root", NULL};
    const char *group = NULL, *root = "/";
    int keep_capabilities = 0, bad_root;
    struct as_user user = {.name = NULL};
    struct pcmig_turns_file_facts turns;
    char err[256] = "";

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|z$zps:probe_host", names, &user.name, &group, &keep_capabilities,
                                     &root))
        return NULL;
    struct pcmig_probe *probe = PyMem_RawMalloc(sizeof(*probe));

    if (probe == NULL)
        return PyErr_NoMemory();
    Py_BEGIN_ALLOW_THREADS
    bad_root = pcmig_probe_read(root, probe);
    pcmig_turns_file_probe(&turns);
    if (bad_root == 0 && user.name != NULL &&
        pcmig_uffd_identify(user.name, group, &user.identity, err, sizeof(err)) == 0) {
        user.identity.keep_capabilities = keep_capabilities;
        user.error = pcmig_uffd_try_as(&user.identity, probe->node_path, TRY_AS_TIMEOUT_MS, &user.report);
    }
    Py_END_ALLOW_THREADS
    PyObject *result = NULL;

    if (bad_root < 0)
        PyErr_Format(PyExc_ValueError, "root: %zu bytes are too long for a path", strlen(root));
    else if (err[0] != '\0')
        PyErr_SetString(pcmig_get_state(module)->error, err);
    else
        result = probe_to_dict(probe, &user, &turns);
    PyMem_RawFree(probe);
    return result;
}

struct guest {
    char *xml;
    char uuid[PCMIG_VIRT_UUID_SIZE];
    char *name;
    enum pcmig_half half;
};

static int read_guest(struct pcmig_virt_conn *conn, const char *name, struct guest *out, struct pcmig_virt_error *error)
{
    struct pcmig_virt_domain *domain = pcmig_virt_lookup(conn, name, error);
    int rc = -1;

    if (domain == NULL)
        return -1;
    snprintf(out->uuid, sizeof(out->uuid), "%s", pcmig_virt_domain_uuid(domain));
    out->name = strdup(pcmig_virt_domain_name(domain));
    out->xml = pcmig_virt_domain_xml(domain, error);
    if (out->xml != NULL)
        rc = pcmig_virt_half(conn, out->uuid, &out->half, error);
    pcmig_virt_domain_free(domain);
    return rc;
}

static PyObject *guest_to_dict(const struct guest *guest)
{
    if (guest->xml == NULL)
        Py_RETURN_NONE;
    return Py_BuildValue("{s:N,s:s,s:s,s:N}", "name", text_or_none(guest->name), "uuid", guest->uuid, "state",
                         pcmig_half_name(guest->half), "xml", text_or_none(guest->xml));
}

static PyObject *facts_to_dict(const struct pcmig_virt_facts *f, const struct guest *guest)
{
    return Py_BuildValue(
        "{s:k,s:k,s:k,s:N,s:N,s:N,s:N,s:N,s:N,s:N,s:N}", "client_version", f->client_version, "libvirt_version",
        f->libvirt_version, "qemu_version", f->qemu_version, "driver", text_or_none(f->driver), "hostname",
        text_or_none(f->hostname), "uri", text_or_none(f->uri), "capabilities", text_or_none(f->capabilities),
        "host_uuid", text_or_none(f->uuid[0] != '\0' ? f->uuid : NULL), "encrypted",
        f->encrypted < 0 ? Py_NewRef(Py_None) : PyBool_FromLong(f->encrypted), "secure",
        f->secure < 0 ? Py_NewRef(Py_None) : PyBool_FromLong(f->secure), "guest", guest_to_dict(guest));
}

PyDoc_STRVAR(host_facts_doc, "host_facts(uri, *, domain=None, timeout_ms=...)\n--\n\n"
                             "What the libvirt at URI says of its host, and of DOMAIN there. Raises a LibvirtError.");

static PyObject *host_facts(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"uri", "domain", "timeout_ms", NULL};
    const char *uri, *domain = NULL;
    long long timeout_ms = pcmig_get_state(module)->connect_timeout_ms;
    struct pcmig_virt_error error = {.code = 0};
    struct pcmig_virt_facts facts = {.driver = NULL};
    struct guest guest = {.xml = NULL};
    int rc = -1;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "s|$zL:host_facts", names, &uri, &domain, &timeout_ms))
        return NULL;
    if (timeout_ms <= 0) {
        PyErr_Format(PyExc_ValueError, "timeout_ms: %lld, expected more than 0", timeout_ms);
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    struct pcmig_virt_conn *conn = pcmig_virt_init(&error) == 0 ? pcmig_virt_open(uri, timeout_ms, &error) : NULL;

    if (conn != NULL) {
        rc = pcmig_virt_facts_read(conn, &facts, &error);
        if (rc == 0 && domain != NULL)
            rc = read_guest(conn, domain, &guest, &error);
        pcmig_virt_close(conn);
    }
    Py_END_ALLOW_THREADS
    PyObject *result = NULL;

    if (rc == 0)
        result = facts_to_dict(&facts, &guest);
    else
        pcmig_errors_raise(module, &error);
    pcmig_virt_facts_clear(&facts);
    free(guest.xml);
    free(guest.name);
    return result;
}

static PyMethodDef methods[] = {
    {"probe_host", (PyCFunction)(void (*)(void))probe_host, METH_VARARGS | METH_KEYWORDS, probe_host_doc},
    {"host_facts", (PyCFunction)(void (*)(void))host_facts, METH_VARARGS | METH_KEYWORDS, host_facts_doc},
    {NULL, NULL, 0, NULL},
};

int pcmig_probe_setup(PyObject *module)
{
    return PyModule_AddFunctions(module, methods);
}
