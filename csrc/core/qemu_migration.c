/* SPDX-License-Identifier: Apache-2.0 */
/* See qemu_migration.h. */
#include "core/qemu_migration.h"

#include "core/json.h"

#include <string.h>

/* As QEMU spells its enumerations. */
static bool is_name(const char *text)
{
    for (const char *at = text; *at != '\0'; at++) {
        if ((*at < 'a' || *at > 'z') && (*at < '0' || *at > '9') && *at != '-')
            return false;
    }
    return text[0] != '\0';
}

/* Reads such a name; OUT is untouched unless there is one, and it fits. */
static int read_name(struct pcmig_json *j, char *out, size_t size)
{
    char name[64];

    if (!pcmig_json_string(j, name, sizeof(name)) || !is_name(name) || strlen(name) >= size)
        return -1;
    memcpy(out, name, strlen(name) + 1);
    return 0;
}

int pcmig_qemu_migration_status(const char *answer, size_t len, char *out, size_t size)
{
    struct pcmig_json j = {answer, answer + len};
    int found;

    if (pcmig_json_enter(&j, "return") != 1)
        return -1;
    found = pcmig_json_enter(&j, "status");
    if (found == 0 && size > strlen("none")) {
        memcpy(out, "none", sizeof("none"));
        return 0;
    }
    return found == 1 ? read_name(&j, out, size) : -1;
}

static bool is_one_of(const char *status, const char *const *names, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(status, names[i]) == 0)
            return true;
    }
    return false;
}

bool pcmig_qemu_migration_kept(const char *status)
{
    static const char *const kept[] = {"none", "cancelled", "failed"};

    return is_one_of(status, kept, sizeof(kept) / sizeof(kept[0]));
}

bool pcmig_qemu_migration_switches(const char *status)
{
    return strcmp(status, "postcopy-device") == 0;
}

bool pcmig_qemu_migration_completed(const char *status)
{
    return strcmp(status, "completed") == 0;
}

/* What migrate-pause takes (QEMU 3.0 to 11.1, migration_postcopy_is_alive). */
bool pcmig_qemu_migration_sends(const char *status)
{
    static const char *const sends[] = {"postcopy-active", "postcopy-recover"};

    return is_one_of(status, sends, sizeof(sends) / sizeof(sends[0]));
}

bool pcmig_qemu_migration_waits(const char *status)
{
    return strcmp(status, "postcopy-paused") == 0;
}

int64_t pcmig_qemu_migration_ram(const char *answer, size_t len, const char *name)
{
    struct pcmig_json j = {answer, answer + len};
    int64_t number;

    if (pcmig_json_enter(&j, "return") != 1 || pcmig_json_enter(&j, "ram") != 1 || pcmig_json_enter(&j, name) != 1 ||
        !pcmig_json_natural(&j, &number))
        return -1;
    return number;
}

/* The number of this name in an answer, in ns: 1 with OUT in us, 0 = there is none, -1. */
static int read_ns(const char *answer, size_t len, const char *name, uint64_t *out)
{
    struct pcmig_json j = {answer, answer + len};
    int64_t ns;
    int found;

    if (pcmig_json_enter(&j, "return") != 1)
        return -1;
    found = pcmig_json_enter(&j, name);
    if (found != 1)
        return found;
    if (!pcmig_json_natural(&j, &ns))
        return -1;
    *out = (uint64_t)ns / 1000;
    return 1;
}

/* What each number of a list of this name does to OUT: 1, 0 = there is no list, -1. */
static int read_list(const char *answer, size_t len, const char *name, struct pcmig_latency_figures *out,
                     void (*take)(struct pcmig_latency_figures *out, size_t place, uint64_t number))
{
    struct pcmig_json j = {answer, answer + len};
    size_t place = 0;
    int64_t number;
    int more;

    if (pcmig_json_enter(&j, "return") != 1)
        return -1;
    more = pcmig_json_enter(&j, name);
    if (more != 1)
        return more;
    for (more = pcmig_json_next(&j, true); more == 1; more = pcmig_json_next(&j, false)) {
        if (!pcmig_json_natural(&j, &number))
            return -1;
        take(out, place++, (uint64_t)number);
    }
    return more == 0 ? 1 : -1;
}

/* A QEMU that has more of them has them for longer ones. */
static void take_bucket(struct pcmig_latency_figures *out, size_t place, uint64_t number)
{
    uint64_t *bucket = &out->bucket[place < PCMIG_LATENCY_BUCKETS ? place : PCMIG_LATENCY_BUCKETS - 1];

    *bucket = number > UINT64_MAX - *bucket ? UINT64_MAX : *bucket + number;
}

static void take_vcpu(struct pcmig_latency_figures *out, size_t place, uint64_t ns)
{
    (void)place;
    if (ns / 1000 > out->vcpu_us)
        out->vcpu_us = ns / 1000;
}

int pcmig_qemu_migration_latency(const char *answer, size_t len, struct pcmig_latency_figures *out)
{
    struct pcmig_latency_figures found = {0};
    int result = read_list(answer, len, "postcopy-latency-dist", &found, take_bucket);

    if (result != 1)
        return result;
    if (read_ns(answer, len, "postcopy-latency", &found.mean_us) < 0 ||
        read_ns(answer, len, "postcopy-non-vcpu-latency", &found.other_us) < 0 ||
        read_list(answer, len, "postcopy-vcpu-latency", &found, take_vcpu) < 0)
        return -1;
    *out = found;
    return 1;
}

int pcmig_qemu_run_state(const char *answer, size_t len, char *out, size_t size)
{
    struct pcmig_json j = {answer, answer + len};

    if (pcmig_json_enter(&j, "return") != 1 || pcmig_json_enter(&j, "status") != 1)
        return -1;
    return read_name(&j, out, size);
}

unsigned long pcmig_qemu_version(const char *answer, size_t len)
{
    static const char *const parts[] = {"major", "minor", "micro"};
    unsigned long version = 0;

    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        struct pcmig_json j = {answer, answer + len};
        int64_t part;

        if (pcmig_json_enter(&j, "return") != 1 || pcmig_json_enter(&j, "qemu") != 1 ||
            pcmig_json_enter(&j, parts[i]) != 1 || !pcmig_json_natural(&j, &part) || part > 999)
            return 0;
        version = version * 1000 + (unsigned long)part;
    }
    return version;
}

/* Goes to the element of an array of objects whose NAME is VALUE: 1 with J before it, 0 when there is none, -1. */
static int find(struct pcmig_json *j, const char *name, const char *value)
{
    char text[128];
    int more;

    for (more = pcmig_json_next(j, true); more == 1; more = pcmig_json_next(j, false)) {
        struct pcmig_json in = *j;
        int has = pcmig_json_enter(&in, name);

        if (has < 0)
            return -1;
        if (has == 1 && pcmig_json_string(&in, text, sizeof(text)) && strcmp(text, value) == 0)
            return 1;
        if (!pcmig_json_skip(j))
            return -1;
    }
    return more;
}

int pcmig_qemu_capability(const char *answer, size_t len, const char *name)
{
    struct pcmig_json j = {answer, answer + len};
    bool on;
    int found;

    if (pcmig_json_enter(&j, "return") != 1)
        return -1;
    found = find(&j, "capability", name);
    if (found <= 0)
        return found;
    return pcmig_json_enter(&j, "state") == 1 && pcmig_json_bool(&j, &on) ? on : -1;
}

int pcmig_qemu_monitor_folder(const char *answer, size_t len, char *out, size_t size)
{
    static const char scheme[] = "unix:";
    struct pcmig_json j = {answer, answer + len};
    char filename[512], *path = filename + strlen(scheme), *end;

    if (pcmig_json_enter(&j, "return") != 1 || find(&j, "label", "charmonitor") != 1 ||
        pcmig_json_enter(&j, "filename") != 1 || !pcmig_json_string(&j, filename, sizeof(filename)) ||
        strncmp(filename, scheme, strlen(scheme)) != 0 || path[0] != '/')
        return -1;
    /* What follows the path are options: ",server=on". */
    end = strstr(path, ",server");
    if (end != NULL)
        *end = '\0';
    end = strrchr(path, '/');
    if (end == path || (size_t)(end - path) >= size)
        return -1;
    *end = '\0';
    memcpy(out, path, (size_t)(end - path) + 1);
    return 0;
}

int pcmig_qemu_text(const char *answer, size_t len, char *out, size_t size)
{
    struct pcmig_json j = {answer, answer + len};

    return pcmig_json_enter(&j, "return") == 1 && pcmig_json_string(&j, out, size) ? 0 : -1;
}

bool pcmig_qemu_refused(const char *answer, size_t len, char *out, size_t size)
{
    struct pcmig_json j = {answer, answer + len};

    if (size > 0)
        out[0] = '\0';
    if (pcmig_json_enter(&j, "error") != 1)
        return false;
    if (pcmig_json_enter(&j, "desc") != 1 || !pcmig_json_string(&j, out, size)) {
        if (size > 0)
            out[0] = '\0';
    }
    return true;
}

bool pcmig_qemu_done(const char *answer, size_t len)
{
    struct pcmig_json j = {answer, answer + len};

    return pcmig_json_enter(&j, "return") == 1;
}
