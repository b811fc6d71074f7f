/* SPDX-License-Identifier: Apache-2.0 */
/* Guests and their jobs, as libvirt tells of them and does to them. See virt.h. */
#include "edge/virt.h"

#include "core/shell.h"
#include "edge/virt_internal.h"

#include <ctype.h>
#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* libvirt's own text ("Domain not found: no domain with matching name 'x'") does not say where. */
static void explain_no_domain(struct pcmig_virt_conn *conn, const char *name, struct pcmig_virt_error *error)
{
    char *uri = virConnectGetURI(conn->ptr);
    const char *const list[] = {"virsh", uri != NULL ? "-c" : NULL, uri, "list", "--all"};
    const char *where = uri != NULL ? uri : "this host";
    char command[224];

    if (pcmig_shell_command(list, sizeof(list) / sizeof(list[0]), command, sizeof(command)))
        snprintf(error->message, sizeof(error->message), "no guest \"%.100s\" on %.130s (%s shows those there are)",
                 name, where, command);
    else
        snprintf(error->message, sizeof(error->message), "no guest \"%.100s\" on %.300s", name, where);
    free(uri);
}

struct pcmig_virt_domain *pcmig_virt_lookup(struct pcmig_virt_conn *conn, const char *name,
                                            struct pcmig_virt_error *error)
{
    struct pcmig_virt_domain *domain = calloc(1, sizeof(*domain));
    char *end = NULL;
    long id;

    if (domain == NULL) {
        pcmig_virt_error_code(error, VIR_ERR_NO_MEMORY, "out of memory");
        return NULL;
    }
    if (isdigit((unsigned char)name[0])) {
        id = strtol(name, &end, 10);
        if (*end == '\0' && id > 0 && id <= INT32_MAX)
            domain->ptr = virDomainLookupByID(conn->ptr, (int)id);
    }
    if (domain->ptr == NULL && strlen(name) == PCMIG_VIRT_UUID_SIZE - 1)
        domain->ptr = virDomainLookupByUUIDString(conn->ptr, name);
    if (domain->ptr == NULL)
        domain->ptr = virDomainLookupByName(conn->ptr, name);
    if (domain->ptr == NULL || virDomainGetUUIDString(domain->ptr, domain->uuid) < 0) {
        pcmig_virt_error_take(error);
        if (error->code == VIR_ERR_NO_DOMAIN)
            explain_no_domain(conn, name, error);
        pcmig_virt_domain_free(domain);
        return NULL;
    }
    return domain;
}

void pcmig_virt_domain_free(struct pcmig_virt_domain *domain)
{
    if (domain == NULL)
        return;
    if (domain->ptr != NULL)
        (void)virDomainFree(domain->ptr);
    free(domain);
}

const char *pcmig_virt_domain_name(const struct pcmig_virt_domain *domain)
{
    return virDomainGetName(domain->ptr);
}

const char *pcmig_virt_domain_uuid(const struct pcmig_virt_domain *domain)
{
    return domain->uuid;
}

int pcmig_virt_active(struct pcmig_virt_conn *conn, char (**uuids)[PCMIG_VIRT_UUID_SIZE], size_t *count,
                      struct pcmig_virt_error *error)
{
    virDomainPtr *domains = NULL;
    int n = virConnectListAllDomains(conn->ptr, &domains, VIR_CONNECT_LIST_DOMAINS_ACTIVE);

    *uuids = NULL;
    *count = 0;
    if (n < 0) {
        pcmig_virt_error_take(error);
        return -1;
    }
    *uuids = calloc((size_t)n + 1, sizeof(**uuids));
    if (*uuids == NULL)
        pcmig_virt_error_code(error, VIR_ERR_NO_MEMORY, "out of memory");
    for (int i = 0; i < n; i++) {
        if (*uuids != NULL && virDomainGetUUIDString(domains[i], (*uuids)[*count]) == 0)
            ++*count;
        (void)virDomainFree(domains[i]);
    }
    free(domains);
    return *uuids != NULL ? 0 : -1;
}

int pcmig_virt_domain_persistent(struct pcmig_virt_domain *domain, struct pcmig_virt_error *error)
{
    int result = virDomainIsPersistent(domain->ptr);

    if (result < 0)
        pcmig_virt_error_take(error);
    return result;
}

int pcmig_virt_domain_emulated(struct pcmig_virt_domain *domain, struct pcmig_virt_error *error)
{
    char *xml = pcmig_virt_domain_xml(domain, error);
    int result;

    if (xml == NULL)
        return -1;
    /* libvirt writes the root element first and its attributes in this form. */
    result = strncmp(xml, "<domain type='qemu'", strlen("<domain type='qemu'")) == 0;
    free(xml);
    return result;
}

uint64_t pcmig_virt_domain_memory_bytes(struct pcmig_virt_domain *domain)
{
    return (uint64_t)virDomainGetMaxMemory(domain->ptr) * 1024;
}

int pcmig_virt_domain_vcpus(struct pcmig_virt_domain *domain)
{
    int vcpus = virDomainGetVcpusFlags(domain->ptr, VIR_DOMAIN_AFFECT_LIVE);

    return vcpus > 0 ? vcpus : 0;
}

char *pcmig_virt_migratable_xml(struct pcmig_virt_domain *domain, struct pcmig_virt_error *error)
{
    char *xml = virDomainGetXMLDesc(domain->ptr, VIR_DOMAIN_XML_MIGRATABLE | VIR_DOMAIN_XML_SECURE);

    if (xml == NULL)
        pcmig_virt_error_take(error);
    return xml;
}

char *pcmig_virt_domain_xml(struct pcmig_virt_domain *domain, struct pcmig_virt_error *error)
{
    char *xml = virDomainGetXMLDesc(domain->ptr, 0);

    if (xml == NULL)
        pcmig_virt_error_take(error);
    return xml;
}

static const struct {
    int state;
    int reason; /* -1 = any other */
    enum pcmig_half half;
} halves[] = {
    {VIR_DOMAIN_RUNNING, VIR_DOMAIN_RUNNING_POSTCOPY, PCMIG_HALF_POSTCOPY},
    {VIR_DOMAIN_RUNNING, 11 /* POSTCOPY_FAILED, since 8.5 */, PCMIG_HALF_POSTCOPY_FAILED},
    {VIR_DOMAIN_RUNNING, -1, PCMIG_HALF_RUNNING},
    {VIR_DOMAIN_BLOCKED, -1, PCMIG_HALF_RUNNING},
    {VIR_DOMAIN_PAUSED, VIR_DOMAIN_PAUSED_MIGRATION, PCMIG_HALF_MIGRATING},
    {VIR_DOMAIN_PAUSED, VIR_DOMAIN_PAUSED_STARTING_UP, PCMIG_HALF_MIGRATING},
    {VIR_DOMAIN_PAUSED, VIR_DOMAIN_PAUSED_POSTCOPY, PCMIG_HALF_POSTCOPY},
    {VIR_DOMAIN_PAUSED, VIR_DOMAIN_PAUSED_POSTCOPY_FAILED, PCMIG_HALF_POSTCOPY_FAILED},
    {VIR_DOMAIN_PAUSED, -1, PCMIG_HALF_PAUSED},
    {VIR_DOMAIN_PMSUSPENDED, -1, PCMIG_HALF_PAUSED},
    {VIR_DOMAIN_SHUTOFF, -1, PCMIG_HALF_ABSENT},
    {VIR_DOMAIN_SHUTDOWN, -1, PCMIG_HALF_DEAD},
    {VIR_DOMAIN_CRASHED, -1, PCMIG_HALF_DEAD},
};

/* State and reason of the guest: 0, 1 when there is no such guest, or -1 with ERROR. */
static int state_of(struct pcmig_virt_conn *conn, const char *uuid, int *state, int *reason,
                    struct pcmig_virt_error *error)
{
    virDomainPtr ptr = virDomainLookupByUUIDString(conn->ptr, uuid);
    int result = ptr != NULL ? virDomainGetState(ptr, state, reason, 0) : -1;

    if (result < 0)
        pcmig_virt_error_take(error);
    if (ptr != NULL)
        (void)virDomainFree(ptr);
    return result >= 0 ? 0 : error->code == VIR_ERR_NO_DOMAIN ? 1 : -1;
}

int pcmig_virt_guest(struct pcmig_virt_conn *conn, const char *uuid, struct pcmig_virt_guest *guest,
                     struct pcmig_virt_error *error)
{
    int state = VIR_DOMAIN_NOSTATE, reason = 0;
    int result = state_of(conn, uuid, &state, &reason, error);

    *guest = (struct pcmig_virt_guest){.half = result > 0 ? PCMIG_HALF_ABSENT : PCMIG_HALF_UNKNOWN};
    if (result != 0)
        return result < 0 ? -1 : 0;
    for (size_t i = 0; i < sizeof(halves) / sizeof(halves[0]); i++) {
        if (halves[i].state == state && (halves[i].reason == reason || halves[i].reason == -1)) {
            guest->half = halves[i].half;
            break;
        }
    }
    guest->runs_on = state == VIR_DOMAIN_RUNNING && reason == 11 /* POSTCOPY_FAILED, since 8.5 */;
    guest->running = state == VIR_DOMAIN_RUNNING || state == VIR_DOMAIN_BLOCKED;
    guest->left_over = state == VIR_DOMAIN_SHUTOFF && reason == VIR_DOMAIN_SHUTOFF_MIGRATED;
    guest->shut_down = state == VIR_DOMAIN_SHUTOFF && reason == VIR_DOMAIN_SHUTOFF_SHUTDOWN;
    guest->stopped_to_migrate = state == VIR_DOMAIN_PAUSED &&
                                (reason == VIR_DOMAIN_PAUSED_MIGRATION || reason == 14 /* API_ERROR, since 9.2 */);
    return 0;
}

int pcmig_virt_half(struct pcmig_virt_conn *conn, const char *uuid, enum pcmig_half *half,
                    struct pcmig_virt_error *error)
{
    struct pcmig_virt_guest guest;
    int result = pcmig_virt_guest(conn, uuid, &guest, error);

    *half = guest.half;
    return result;
}

int pcmig_virt_id(struct pcmig_virt_conn *conn, const char *uuid)
{
    virDomainPtr ptr = virDomainLookupByUUIDString(conn->ptr, uuid);
    unsigned int id;

    if (ptr == NULL)
        return -1;
    id = virDomainGetID(ptr);
    (void)virDomainFree(ptr);
    return id == (unsigned int)-1 ? -1 : (int)id;
}

/* --- statistics --------------------------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    size_t offset;
} fields[] = {
    {VIR_DOMAIN_JOB_MEMORY_TOTAL, offsetof(struct pcmig_sample, memory_total_bytes)},
    {VIR_DOMAIN_JOB_MEMORY_PROCESSED, offsetof(struct pcmig_sample, memory_processed_bytes)},
    {VIR_DOMAIN_JOB_MEMORY_REMAINING, offsetof(struct pcmig_sample, memory_remaining_bytes)},
    {VIR_DOMAIN_JOB_MEMORY_BPS, offsetof(struct pcmig_sample, memory_bps)},
    {VIR_DOMAIN_JOB_MEMORY_CONSTANT, offsetof(struct pcmig_sample, zero_pages)},
    {VIR_DOMAIN_JOB_MEMORY_NORMAL, offsetof(struct pcmig_sample, normal_pages)},
    {VIR_DOMAIN_JOB_MEMORY_NORMAL_BYTES, offsetof(struct pcmig_sample, normal_bytes)},
    {VIR_DOMAIN_JOB_COMPRESSION_PAGES, offsetof(struct pcmig_sample, encoded_pages)},
    {VIR_DOMAIN_JOB_MEMORY_DIRTY_RATE, offsetof(struct pcmig_sample, dirty_pages_ps)},
    {VIR_DOMAIN_JOB_MEMORY_ITERATION, offsetof(struct pcmig_sample, iteration)},
    {VIR_DOMAIN_JOB_MEMORY_PAGE_SIZE, offsetof(struct pcmig_sample, page_size_bytes)},
    {VIR_DOMAIN_JOB_MEMORY_POSTCOPY_REQS, offsetof(struct pcmig_sample, postcopy_requests)},
    {VIR_DOMAIN_JOB_DISK_TOTAL, offsetof(struct pcmig_sample, disk_total_bytes)},
    {VIR_DOMAIN_JOB_DISK_PROCESSED, offsetof(struct pcmig_sample, disk_processed_bytes)},
    {VIR_DOMAIN_JOB_DISK_REMAINING, offsetof(struct pcmig_sample, disk_remaining_bytes)},
    {VIR_DOMAIN_JOB_DOWNTIME, offsetof(struct pcmig_sample, downtime_ms)},
    {VIR_DOMAIN_JOB_SETUP_TIME, offsetof(struct pcmig_sample, setup_time_ms)},
    {VIR_DOMAIN_JOB_TIME_ELAPSED, offsetof(struct pcmig_sample, elapsed_ms)},
};

void pcmig_virt_sample_from_params(struct pcmig_sample *sample, const virTypedParameter *params, int count)
{
    memset(sample, 0, sizeof(*sample));
    sample->queue_bytes = -1;
    for (int p = 0; p < count; p++) {
        if (params[p].type != VIR_TYPED_PARAM_ULLONG)
            continue;
        for (size_t f = 0; f < sizeof(fields) / sizeof(fields[0]); f++) {
            uint64_t value = params[p].value.ul;

            if (strcmp(params[p].field, fields[f].name) == 0)
                memcpy((char *)sample + fields[f].offset, &value, sizeof(value));
        }
    }
}

/* What is no migration. libvirt before 3.3 does not tell; it has told ever since. */
static const struct {
    int operation;
    const char *name;
    bool lasts;
} others[] = {
    {VIR_DOMAIN_JOB_OPERATION_START, "start", false},
    {VIR_DOMAIN_JOB_OPERATION_SAVE, "save", true},
    {VIR_DOMAIN_JOB_OPERATION_RESTORE, "restore", true},
    {VIR_DOMAIN_JOB_OPERATION_SNAPSHOT, "snapshot", false},
    {VIR_DOMAIN_JOB_OPERATION_SNAPSHOT_REVERT, "snapshot revert", false},
    {VIR_DOMAIN_JOB_OPERATION_DUMP, "dump", true},
    {VIR_DOMAIN_JOB_OPERATION_BACKUP, "backup", true},
    {10 /* SNAPSHOT_DELETE, since 9.0 */, "snapshot delete", false},
};

static bool is_migration(int operation)
{
    return operation == VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT || operation == VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN ||
           operation == VIR_DOMAIN_JOB_OPERATION_UNKNOWN;
}

bool pcmig_virt_params_of_migration(virTypedParameterPtr params, int count)
{
    int operation = VIR_DOMAIN_JOB_OPERATION_UNKNOWN;

    (void)virTypedParamsGetInt(params, count, VIR_DOMAIN_JOB_OPERATION, &operation);
    return is_migration(operation);
}

static void name_other(struct pcmig_virt_job *job, int operation)
{
    job->kind = PCMIG_VIRT_JOB_OTHER;
    job->name = "job of another kind";
    job->lasts = true;
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        if (others[i].operation == operation) {
            job->name = others[i].name;
            job->lasts = others[i].lasts;
        }
    }
}

int pcmig_virt_job(struct pcmig_virt_domain *domain, struct pcmig_virt_job *job, struct pcmig_virt_error *error)
{
    virTypedParameterPtr params = NULL;
    int type = VIR_DOMAIN_JOB_NONE, operation = VIR_DOMAIN_JOB_OPERATION_UNKNOWN;
    int count = 0;

    *job = (struct pcmig_virt_job){.sample = {.queue_bytes = -1}};
    if (virDomainGetJobStats(domain->ptr, &type, &params, &count, 0) < 0) {
        pcmig_virt_error_take(error);
        /* A driver of libvirt that knows no jobs runs none. */
        return error->code == VIR_ERR_NO_SUPPORT ? 0 : -1;
    }
    (void)virTypedParamsGetInt(params, count, VIR_DOMAIN_JOB_OPERATION, &operation);
    if (type == VIR_DOMAIN_JOB_BOUNDED || type == VIR_DOMAIN_JOB_UNBOUNDED) {
        if (is_migration(operation))
            job->kind = PCMIG_VIRT_JOB_MIGRATION;
        else
            name_other(job, operation);
    }
    if (job->kind == PCMIG_VIRT_JOB_MIGRATION)
        pcmig_virt_sample_from_params(&job->sample, params, count);
    virTypedParamsFree(params, count);
    return 0;
}

/* --- the migration itself ----------------------------------------------------------------------------------------- */

/* libvirt: 0 means unlimited for post-copy, but a speed of nothing for pre-copy, where unlimited is the largest value
 * whose bytes fit in a signed 64 bit integer. */
#define PRECOPY_UNLIMITED_MIB ((unsigned long)(INT64_MAX / (1024 * 1024)))
/* No guest writes that much; it keeps bytes inside 64 bits. */
#define SAMPLED_MAX_MIB       (INT64_C(1) << 40)

int pcmig_virt_migrate(struct pcmig_virt_domain *domain, const struct pcmig_virt_migrate_args *args,
                       struct pcmig_virt_error *error)
{
    virTypedParameterPtr params = NULL;
    int count = 0, capacity = 0;
    int result = -1;
    const struct {
        const char *name;
        const char *value;
    } strings[] = {
        {VIR_MIGRATE_PARAM_URI, args->migrate_uri},
        {VIR_MIGRATE_PARAM_DEST_NAME, args->dest_name},
        {VIR_MIGRATE_PARAM_LISTEN_ADDRESS, args->listen_address},
        {VIR_MIGRATE_PARAM_DISKS_URI, args->disks_uri},
        {VIR_MIGRATE_PARAM_DEST_XML, args->dest_xml},
        {VIR_MIGRATE_PARAM_PERSIST_XML, args->persist_xml},
        {VIR_MIGRATE_PARAM_TLS_DESTINATION, args->tls_destination},
    };

    for (size_t i = 0; i < sizeof(strings) / sizeof(strings[0]); i++) {
        if (strings[i].value != NULL &&
            virTypedParamsAddString(&params, &count, &capacity, strings[i].name, strings[i].value) < 0)
            goto out;
    }
    for (const char *const *disk = args->disks; disk != NULL && *disk != NULL; disk++) {
        if (virTypedParamsAddString(&params, &count, &capacity, VIR_MIGRATE_PARAM_MIGRATE_DISKS, *disk) < 0)
            goto out;
    }
    /* Always: left out, libvirt takes the one that it was told last for this guest, by whomever and for whatever
     * (libvirt 8.0 to 12.8, qemuMigrationSrcPerformNative: resource, or migMaxBandwidth). */
    if (virTypedParamsAddULLong(&params, &count, &capacity, VIR_MIGRATE_PARAM_BANDWIDTH,
                                args->bandwidth_mib > 0 ? (unsigned long long)args->bandwidth_mib
                                                        : PRECOPY_UNLIMITED_MIB) < 0)
        goto out;
    if (args->postcopy_bandwidth_mib > 0 && (args->flags & VIR_MIGRATE_POSTCOPY) != 0 &&
        virTypedParamsAddULLong(&params, &count, &capacity, VIR_MIGRATE_PARAM_BANDWIDTH_POSTCOPY,
                                (unsigned long long)args->postcopy_bandwidth_mib) < 0)
        goto out;
    if (args->parallel_connections > 0 &&
        virTypedParamsAddInt(&params, &count, &capacity, VIR_MIGRATE_PARAM_PARALLEL_CONNECTIONS,
                             args->parallel_connections) < 0)
        goto out;
    result = virDomainMigrateToURI3(domain->ptr, args->dest_uri, params, (unsigned int)count, args->flags);
out:
    if (result < 0)
        pcmig_virt_error_take(error);
    virTypedParamsFree(params, count);
    return result < 0 ? -1 : 0;
}

static int checked(int result, struct pcmig_virt_error *error)
{
    if (result < 0) {
        pcmig_virt_error_take(error);
        return -1;
    }
    return 0;
}

int pcmig_virt_start_postcopy(struct pcmig_virt_domain *domain, struct pcmig_virt_error *error)
{
    return checked(virDomainMigrateStartPostCopy(domain->ptr, 0), error);
}

int pcmig_virt_set_speed(struct pcmig_virt_domain *domain, int64_t mib, bool postcopy, struct pcmig_virt_error *error)
{
    unsigned long speed = mib > 0 ? (unsigned long)mib : postcopy ? 0 : PRECOPY_UNLIMITED_MIB;

    return checked(
        virDomainMigrateSetMaxSpeed(domain->ptr, speed, postcopy ? VIR_DOMAIN_MIGRATE_MAX_SPEED_POSTCOPY : 0), error);
}

int pcmig_virt_set_max_downtime(struct pcmig_virt_domain *domain, int64_t downtime_ms, struct pcmig_virt_error *error)
{
    return checked(virDomainMigrateSetMaxDowntime(domain->ptr, (unsigned long long)downtime_ms, 0), error);
}

int pcmig_virt_sample_writes(struct pcmig_virt_domain *domain, int seconds, struct pcmig_virt_error *error)
{
    /* By pages drawn at random. QEMU's other modes count in the dirty bitmap, which is the migration's. */
    return checked(virDomainStartDirtyRateCalc(domain->ptr, seconds, VIR_DOMAIN_DIRTYRATE_MODE_PAGE_SAMPLING), error);
}

int pcmig_virt_sampled_writes(struct pcmig_virt_domain *domain, int64_t *bytes_ps, struct pcmig_virt_error *error)
{
    virDomainPtr domains[] = {domain->ptr, NULL};
    virDomainStatsRecordPtr *records = NULL;
    int status = VIR_DOMAIN_DIRTYRATE_UNSTARTED, count;
    long long mib_ps = -1;

    /* Nobody waits for libvirt's monitor here. */
    count =
        virDomainListGetStats(domains, VIR_DOMAIN_STATS_DIRTYRATE, &records, VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT);
    if (count < 0)
        return checked(count, error);
    if (count > 0) {
        (void)virTypedParamsGetInt(records[0]->params, records[0]->nparams, "dirtyrate.calc_status", &status);
        (void)virTypedParamsGetLLong(records[0]->params, records[0]->nparams, "dirtyrate.megabytes_per_second",
                                     &mib_ps);
    }
    virDomainStatsRecordListFree(records);
    if (status != VIR_DOMAIN_DIRTYRATE_MEASURED || mib_ps < 0)
        return 0;
    *bytes_ps = mib_ps < SAMPLED_MAX_MIB ? mib_ps * 1024 * 1024 : SAMPLED_MAX_MIB * 1024 * 1024;
    return 1;
}

int pcmig_virt_abort(struct pcmig_virt_domain *domain, bool setting_up, int64_t patience_ms,
                     struct pcmig_virt_error *error)
{
    struct pcmig_virt_job job;

    if ((patience_ms > 0 ? pcmig_virt_job_within(domain, patience_ms, &job, error)
                         : pcmig_virt_job(domain, &job, error)) < 0)
        return -1;
    if (job.kind != PCMIG_VIRT_JOB_MIGRATION) {
        pcmig_virt_error_set(error, PCMIG_VIRT_FAILURE_INVALID, "no migration of guest %.100s is under way%s%s",
                             pcmig_virt_domain_name(domain), job.name != NULL ? ", but another job: " : "",
                             job.name != NULL ? job.name : "");
        return -1;
    }
    if (!setting_up && job.sample.memory_total_bytes == 0 && job.sample.disk_remaining_bytes == 0) {
        pcmig_virt_error_set(error, PCMIG_VIRT_FAILURE_BUSY, "the migration of guest %.100s is being set up",
                             pcmig_virt_domain_name(domain));
        return -1;
    }
    return checked(virDomainAbortJob(domain->ptr), error);
}

int pcmig_virt_resume(struct pcmig_virt_domain *domain, struct pcmig_virt_error *error)
{
    return checked(virDomainResume(domain->ptr), error);
}

int pcmig_virt_destroy(struct pcmig_virt_conn *conn, const char *uuid, struct pcmig_virt_error *error)
{
    virDomainPtr ptr = virDomainLookupByUUIDString(conn->ptr, uuid);
    int result, state;

    if (ptr == NULL) {
        pcmig_virt_error_take(error);
        return -1;
    }
    result = checked(virDomainGetState(ptr, &state, NULL, 0), error);
    if (result == 0 && state == VIR_DOMAIN_RUNNING) {
        pcmig_virt_error_set(error, PCMIG_VIRT_FAILURE_INVALID, "the guest runs there by now: it is not ended");
        result = -1;
    }
    if (result == 0)
        result = checked(virDomainDestroy(ptr), error);
    (void)virDomainFree(ptr);
    return result;
}

int pcmig_virt_pause_postcopy(struct pcmig_virt_domain *domain, struct pcmig_virt_error *error)
{
#if LIBVIR_VERSION_NUMBER >= 8005000
    return checked(virDomainAbortJobFlags(domain->ptr, VIR_DOMAIN_ABORT_JOB_POSTCOPY), error);
#else
    (void)domain;
    pcmig_virt_error_set(error, PCMIG_VIRT_FAILURE_UNSUPPORTED,
                         "pcmig was built with libvirt before 8.5, which cannot pause post-copy");
    return -1;
#endif
}

size_t pcmig_virt_resume_options(unsigned int flags, const char *out[PCMIG_VIRT_RESUME_OPTIONS])
{
    static const struct {
        unsigned int flag;
        const char *option;
    } options[] = {
        {VIR_MIGRATE_PERSIST_DEST, "--persistent"},
        {VIR_MIGRATE_UNDEFINE_SOURCE, "--undefinesource"},
        {VIR_MIGRATE_TLS, "--tls"},
        {VIR_MIGRATE_NON_SHARED_DISK, "--copy-storage-all"},
        {VIR_MIGRATE_NON_SHARED_INC, "--copy-storage-inc"},
        {VIR_MIGRATE_PARALLEL, "--parallel"},
        {VIR_MIGRATE_UNSAFE, "--unsafe"},
    };
    size_t count = 0;

    _Static_assert(sizeof(options) / sizeof(options[0]) == PCMIG_VIRT_RESUME_OPTIONS, "there is room for all of them");
    for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
        if ((flags & options[i].flag) != 0)
            out[count++] = options[i].option;
    }
    return count;
}
