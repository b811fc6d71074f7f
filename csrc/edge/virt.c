/* See virt.h. Facts on events and errors: libvirt 8.0 to 12.8, include/libvirt/libvirt-domain.h and virterror.h. */
#include "edge/virt_internal.h"

#include <ctype.h>
#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Two missed answers more than libvirt's own client defaults would need minutes; the daemons use 5 x 5 s too. */
#define KEEPALIVE_INTERVAL_S 5
#define KEEPALIVE_COUNT      5

void pcmig_virt_error_take(struct pcmig_virt_error *error)
{
    const virError *last = virGetLastError();

    error->code = last != NULL && last->code != VIR_ERR_OK ? last->code : VIR_ERR_INTERNAL_ERROR;
    error->domain = last != NULL ? last->domain : 0;
    snprintf(error->message, sizeof(error->message), "%s",
             last != NULL && last->message != NULL ? last->message : "libvirt gave no reason");
}

static void error_set(struct pcmig_virt_error *error, int code, const char *message)
{
    error->code = code;
    error->domain = 0;
    snprintf(error->message, sizeof(error->message), "%s", message);
}

static const struct {
    int code;
    enum pcmig_virt_failure failure;
} failures[] = {
    {VIR_ERR_NO_CONNECT, PCMIG_VIRT_FAILURE_CONNECT},
    {VIR_ERR_INVALID_CONN, PCMIG_VIRT_FAILURE_CONNECT},
    {VIR_ERR_SYSTEM_ERROR, PCMIG_VIRT_FAILURE_CONNECT},
    {VIR_ERR_RPC, PCMIG_VIRT_FAILURE_CONNECT},
    {VIR_ERR_NO_SERVER, PCMIG_VIRT_FAILURE_CONNECT},
    {VIR_ERR_GNUTLS_ERROR, PCMIG_VIRT_FAILURE_CONNECT},
    {VIR_ERR_NO_DOMAIN, PCMIG_VIRT_FAILURE_NO_DOMAIN},
    {VIR_ERR_NO_SUPPORT, PCMIG_VIRT_FAILURE_UNSUPPORTED},
    {VIR_ERR_ARGUMENT_UNSUPPORTED, PCMIG_VIRT_FAILURE_UNSUPPORTED},
    {VIR_ERR_CONFIG_UNSUPPORTED, PCMIG_VIRT_FAILURE_UNSUPPORTED},
    {VIR_ERR_OPERATION_UNSUPPORTED, PCMIG_VIRT_FAILURE_UNSUPPORTED},
    {VIR_ERR_OPERATION_INVALID, PCMIG_VIRT_FAILURE_INVALID},
    {VIR_ERR_OPERATION_TIMEOUT, PCMIG_VIRT_FAILURE_BUSY},
    {VIR_ERR_AUTH_FAILED, PCMIG_VIRT_FAILURE_DENIED},
    {VIR_ERR_AUTH_CANCELLED, PCMIG_VIRT_FAILURE_DENIED},
    {VIR_ERR_AUTH_UNAVAILABLE, PCMIG_VIRT_FAILURE_DENIED},
    {VIR_ERR_ACCESS_DENIED, PCMIG_VIRT_FAILURE_DENIED},
    {VIR_ERR_OPERATION_DENIED, PCMIG_VIRT_FAILURE_DENIED},
};

enum pcmig_virt_failure pcmig_virt_classify(const struct pcmig_virt_error *error)
{
    for (size_t i = 0; i < sizeof(failures) / sizeof(failures[0]); i++) {
        if (failures[i].code == error->code)
            return failures[i].failure;
    }
    return PCMIG_VIRT_FAILURE_OTHER;
}

void pcmig_virt_error_set(struct pcmig_virt_error *error, enum pcmig_virt_failure failure, const char *format, ...)
{
    va_list args;

    error->code = VIR_ERR_INTERNAL_ERROR;
    error->domain = 0;
    for (size_t i = 0; i < sizeof(failures) / sizeof(failures[0]); i++) {
        if (failures[i].failure == failure) {
            error->code = failures[i].code;
            break;
        }
    }
    va_start(args, format);
    vsnprintf(error->message, sizeof(error->message), format, args);
    va_end(args);
}

/* --- event loop ---------------------------------------------------------------------------------------------------- */

static pthread_mutex_t init_lock = PTHREAD_MUTEX_INITIALIZER;
static bool initialised;

/* libvirt reports every error on stderr unless told otherwise; ours travel in struct pcmig_virt_error. */
static void discard_error(void *opaque, virErrorPtr error)
{
    (void)opaque;
    (void)error;
}

static void wake_nothing(int timer, void *opaque)
{
    (void)timer;
    (void)opaque;
}

static void *event_thread(void *arg)
{
    (void)arg;
    for (;;) {
        if (virEventRunDefaultImpl() < 0) {
            /* Not expected; do not spin if it ever happens. */
            struct timespec pause = {.tv_sec = 0, .tv_nsec = 100000000};
            nanosleep(&pause, NULL);
        }
    }
    return NULL;
}

int pcmig_virt_init(struct pcmig_virt_error *error)
{
    pthread_t thread;
    int result = -1;

    pthread_mutex_lock(&init_lock);
    if (initialised) {
        result = 0;
        goto out;
    }
    if (virInitialize() < 0) {
        pcmig_virt_error_take(error);
        goto out;
    }
    virSetErrorFunc(NULL, discard_error);
    /* Keeps the first implementation that was registered, which may be the host process's own. */
    if (virEventRegisterDefaultImpl() < 0) {
        pcmig_virt_error_take(error);
        goto out;
    }
    /* A loop without handles or timers never wakes to notice new ones in old libvirt versions. */
    if (virEventAddTimeout(1000, wake_nothing, NULL, NULL) < 0) {
        pcmig_virt_error_take(error);
        goto out;
    }
    if (pthread_create(&thread, NULL, event_thread, NULL) != 0) {
        error_set(error, VIR_ERR_SYSTEM_ERROR, "cannot start the libvirt event thread");
        goto out;
    }
    pthread_detach(thread);
    initialised = true;
    result = 0;
out:
    pthread_mutex_unlock(&init_lock);
    return result;
}

/* --- connections --------------------------------------------------------------------------------------------------- */

/* Shared by the caller, who may give up, and the thread that opens; the last one frees it. */
struct opening {
    pthread_mutex_t lock;
    pthread_cond_t done_cond;
    char *uri;
    virConnectPtr conn;
    struct pcmig_virt_error error;
    bool done;
    bool abandoned;
};

static void opening_free(struct opening *opening)
{
    pthread_mutex_destroy(&opening->lock);
    pthread_cond_destroy(&opening->done_cond);
    free(opening->uri);
    free(opening);
}

/* Asks for nothing: a host that wants a password is refused with libvirt's own text, not a prompt. */
static int no_credentials(virConnectCredentialPtr credentials, unsigned int count, void *opaque)
{
    (void)credentials;
    (void)count;
    (void)opaque;
    return -1;
}

static void *opening_thread(void *arg)
{
    struct opening *opening = arg;
    virConnectAuth auth = {.credtype = NULL, .ncredtype = 0, .cb = no_credentials, .cbdata = NULL};
    virConnectPtr conn = virConnectOpenAuth(opening->uri, &auth, 0);
    struct pcmig_virt_error error = {0};
    bool abandoned;

    if (conn == NULL)
        pcmig_virt_error_take(&error);
    else
        (void)virConnectSetKeepAlive(conn, KEEPALIVE_INTERVAL_S, KEEPALIVE_COUNT); /* local drivers do not have it */

    pthread_mutex_lock(&opening->lock);
    opening->conn = conn;
    opening->error = error;
    opening->done = true;
    abandoned = opening->abandoned;
    pthread_cond_signal(&opening->done_cond);
    pthread_mutex_unlock(&opening->lock);
    if (abandoned) {
        if (conn != NULL)
            virConnectClose(conn);
        opening_free(opening);
    }
    return NULL;
}

static struct timespec deadline_after(int64_t timeout_ms)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_sec += timeout_ms / 1000;
    t.tv_nsec += (timeout_ms % 1000) * 1000000;
    if (t.tv_nsec >= 1000000000) {
        t.tv_sec++;
        t.tv_nsec -= 1000000000;
    }
    return t;
}

struct pcmig_virt_conn *pcmig_virt_open(const char *uri, int64_t timeout_ms, struct pcmig_virt_error *error)
{
    struct timespec deadline = deadline_after(timeout_ms);
    struct pcmig_virt_conn *result = NULL;
    struct opening *opening;
    pthread_condattr_t attr;
    pthread_t thread;
    bool done;

    if (pcmig_virt_init(error) < 0)
        return NULL;
    opening = calloc(1, sizeof(*opening));
    if (opening == NULL)
        goto no_memory;
    opening->uri = strdup(uri);
    result = calloc(1, sizeof(*result));
    if (opening->uri == NULL || result == NULL) {
        free(opening->uri);
        free(opening);
        goto no_memory;
    }
    pthread_mutex_init(&opening->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&opening->done_cond, &attr);
    pthread_condattr_destroy(&attr);
    if (pthread_create(&thread, NULL, opening_thread, opening) != 0) {
        error_set(error, VIR_ERR_SYSTEM_ERROR, "cannot start a thread to connect with");
        opening_free(opening);
        free(result);
        return NULL;
    }
    pthread_detach(thread);

    pthread_mutex_lock(&opening->lock);
    while (!opening->done) {
        if (pthread_cond_timedwait(&opening->done_cond, &opening->lock, &deadline) != 0)
            break;
    }
    done = opening->done;
    opening->abandoned = !done;
    pthread_mutex_unlock(&opening->lock);

    if (!done) {
        snprintf(error->message, sizeof(error->message), "no answer from %s within %.1f s", uri,
                 (double)timeout_ms / 1000.0);
        error->code = VIR_ERR_NO_CONNECT;
        error->domain = 0;
        free(result);
        return NULL;
    }
    result->ptr = opening->conn;
    *error = opening->error;
    opening_free(opening);
    if (result->ptr == NULL) {
        free(result);
        return NULL;
    }
    return result;

no_memory:
    free(result);
    error_set(error, VIR_ERR_NO_MEMORY, "out of memory");
    return NULL;
}

void pcmig_virt_close(struct pcmig_virt_conn *conn)
{
    if (conn == NULL)
        return;
    (void)virConnectClose(conn->ptr);
    free(conn);
}

bool pcmig_virt_is_alive(struct pcmig_virt_conn *conn)
{
    return virConnectIsAlive(conn->ptr) == 1;
}

int pcmig_virt_versions(struct pcmig_virt_conn *conn, unsigned long *libvirt, unsigned long *qemu,
                        struct pcmig_virt_error *error)
{
    *libvirt = 0;
    *qemu = 0;
    if (virConnectGetLibVersion(conn->ptr, libvirt) < 0) {
        pcmig_virt_error_take(error);
        return -1;
    }
    /* A host without an emulator for its own architecture reports an error here; its version is then not known. */
    if (virConnectGetVersion(conn->ptr, qemu) < 0)
        *qemu = 0;
    return 0;
}

/* --- guests -------------------------------------------------------------------------------------------------------- */

/* libvirt's own text ("Domain not found: no domain with matching name 'x'") does not say where. */
static void explain_no_domain(struct pcmig_virt_conn *conn, const char *name, struct pcmig_virt_error *error)
{
    char *uri = virConnectGetURI(conn->ptr);
    const char *where = uri != NULL ? uri : "this host";

    snprintf(error->message, sizeof(error->message),
             "no guest \"%.100s\" on %.160s (virsh -c '%.160s' list --all shows those there are)", name, where, where);
    free(uri);
}

struct pcmig_virt_domain *pcmig_virt_lookup(struct pcmig_virt_conn *conn, const char *name,
                                            struct pcmig_virt_error *error)
{
    struct pcmig_virt_domain *domain = calloc(1, sizeof(*domain));
    char *end = NULL;
    long id;

    if (domain == NULL) {
        error_set(error, VIR_ERR_NO_MEMORY, "out of memory");
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

static const char *const half_names[] = {
    [PCMIG_HALF_UNKNOWN] = "unknown",
    [PCMIG_HALF_ABSENT] = "absent",
    [PCMIG_HALF_RUNNING] = "running",
    [PCMIG_HALF_PAUSED] = "paused",
    [PCMIG_HALF_MIGRATING] = "migrating",
    [PCMIG_HALF_POSTCOPY] = "postcopy",
    [PCMIG_HALF_POSTCOPY_FAILED] = "postcopy-failed",
    [PCMIG_HALF_DEAD] = "dead",
};
_Static_assert(sizeof(half_names) / sizeof(half_names[0]) == PCMIG_HALF_COUNT, "every half has a name");

const char *pcmig_half_name(enum pcmig_half half)
{
    return half < PCMIG_HALF_COUNT ? half_names[half] : "unknown";
}

int pcmig_virt_half(struct pcmig_virt_conn *conn, const char *uuid, enum pcmig_half *half,
                    struct pcmig_virt_error *error)
{
    virDomainPtr ptr = virDomainLookupByUUIDString(conn->ptr, uuid);
    int state, reason;

    *half = PCMIG_HALF_UNKNOWN;
    if (ptr == NULL)
        pcmig_virt_error_take(error);
    if (ptr != NULL && virDomainGetState(ptr, &state, &reason, 0) < 0) {
        pcmig_virt_error_take(error);
        (void)virDomainFree(ptr);
        ptr = NULL;
    }
    if (ptr == NULL) {
        if (error->code != VIR_ERR_NO_DOMAIN)
            return -1;
        *half = PCMIG_HALF_ABSENT;
        return 0;
    }
    (void)virDomainFree(ptr);
    for (size_t i = 0; i < sizeof(halves) / sizeof(halves[0]); i++) {
        if (halves[i].state == state && (halves[i].reason == reason || halves[i].reason == -1)) {
            *half = halves[i].half;
            return 0;
        }
    }
    return 0;
}

/* --- statistics ---------------------------------------------------------------------------------------------------- */

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

static void sample_from_params(struct pcmig_sample *sample, const virTypedParameter *params, int count)
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

int pcmig_virt_job_stats(struct pcmig_virt_domain *domain, struct pcmig_sample *sample, struct pcmig_virt_error *error)
{
    virTypedParameterPtr params = NULL;
    int type = VIR_DOMAIN_JOB_NONE;
    int count = 0;

    if (virDomainGetJobStats(domain->ptr, &type, &params, &count, 0) < 0) {
        pcmig_virt_error_take(error);
        return -1;
    }
    sample_from_params(sample, params, count);
    virTypedParamsFree(params, count);
    return type == VIR_DOMAIN_JOB_BOUNDED || type == VIR_DOMAIN_JOB_UNBOUNDED ? 1 : 0;
}

/* --- the migration itself ------------------------------------------------------------------------------------------ */

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
    if (args->bandwidth_mib > 0 && virTypedParamsAddULLong(&params, &count, &capacity, VIR_MIGRATE_PARAM_BANDWIDTH,
                                                           (unsigned long long)args->bandwidth_mib) < 0)
        goto out;
    if (args->postcopy_bandwidth_mib > 0 && (args->flags & VIR_MIGRATE_POSTCOPY) != 0 &&
        virTypedParamsAddULLong(&params, &count, &capacity, VIR_MIGRATE_PARAM_BANDWIDTH_POSTCOPY,
                                (unsigned long long)args->postcopy_bandwidth_mib) < 0)
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
    /* libvirt: 0 means unlimited for post-copy, but a speed of nothing for pre-copy, where unlimited is the largest
     * value whose bytes fit in a signed 64 bit integer. */
    unsigned long speed = mib > 0 ? (unsigned long)mib : postcopy ? 0 : (unsigned long)(INT64_MAX / (1024 * 1024));

    return checked(
        virDomainMigrateSetMaxSpeed(domain->ptr, speed, postcopy ? VIR_DOMAIN_MIGRATE_MAX_SPEED_POSTCOPY : 0), error);
}

int pcmig_virt_set_max_downtime(struct pcmig_virt_domain *domain, int64_t downtime_ms, struct pcmig_virt_error *error)
{
    return checked(virDomainMigrateSetMaxDowntime(domain->ptr, (unsigned long long)downtime_ms, 0), error);
}

int pcmig_virt_abort(struct pcmig_virt_domain *domain, struct pcmig_virt_error *error)
{
    return checked(virDomainAbortJob(domain->ptr), error);
}

unsigned int pcmig_virt_flag_live(void)
{
    return VIR_MIGRATE_LIVE;
}

unsigned int pcmig_virt_flag_peer2peer(void)
{
    return VIR_MIGRATE_PEER2PEER;
}

unsigned int pcmig_virt_flag_postcopy(void)
{
    return VIR_MIGRATE_POSTCOPY;
}

unsigned int pcmig_virt_flag_tunnelled(void)
{
    return VIR_MIGRATE_TUNNELLED;
}

/* --- events -------------------------------------------------------------------------------------------------------- */

#define WATCH_EVENTS 3

/* Referenced by its owner and by every callback registered with libvirt, which lets go of it asynchronously. */
struct pcmig_virt_watch {
    atomic_int references;
    atomic_bool stopped;
    virConnectPtr conn;
    int callback_ids[WATCH_EVENTS];
    atomic_bool close_registered; /* and its reference not yet given back */
    bool source;
    unsigned char uuid[VIR_UUID_BUFLEN];
    struct pcmig_virt_callbacks callbacks;
    void *opaque;
};

static void watch_unref(void *data)
{
    struct pcmig_virt_watch *watch = data;

    if (atomic_fetch_sub(&watch->references, 1) != 1)
        return;
    if (watch->callbacks.release != NULL)
        watch->callbacks.release(watch->opaque);
    virConnectClose(watch->conn);
    free(watch);
}

/* Gives the close callback's reference back, once. */
static void close_unref(void *data)
{
    struct pcmig_virt_watch *watch = data;

    if (atomic_exchange(&watch->close_registered, false))
        watch_unref(watch);
}

static bool watch_wants(struct pcmig_virt_watch *watch, virDomainPtr domain)
{
    unsigned char uuid[VIR_UUID_BUFLEN];

    if (atomic_load(&watch->stopped))
        return false;
    /* Local: reads the pointer's own copy, no call to the daemon. */
    return virDomainGetUUID(domain, uuid) == 0 && memcmp(uuid, watch->uuid, sizeof(uuid)) == 0;
}

static const struct {
    bool source;
    int event;
    int detail; /* -1 = any other */
    enum pcmig_event meaning;
} lifecycle[] = {
    {true, VIR_DOMAIN_EVENT_SUSPENDED, VIR_DOMAIN_EVENT_SUSPENDED_MIGRATED, PCMIG_EVENT_SRC_SUSPENDED_MIGRATED},
    {true, VIR_DOMAIN_EVENT_SUSPENDED, VIR_DOMAIN_EVENT_SUSPENDED_POSTCOPY, PCMIG_EVENT_SRC_SUSPENDED_POSTCOPY},
    {true, VIR_DOMAIN_EVENT_SUSPENDED, VIR_DOMAIN_EVENT_SUSPENDED_POSTCOPY_FAILED, PCMIG_EVENT_SRC_POSTCOPY_FAILED},
    {true, VIR_DOMAIN_EVENT_RESUMED, -1, PCMIG_EVENT_SRC_RESUMED},
    {true, VIR_DOMAIN_EVENT_STOPPED, VIR_DOMAIN_EVENT_STOPPED_MIGRATED, PCMIG_EVENT_SRC_STOPPED_MIGRATED},
    {true, VIR_DOMAIN_EVENT_STOPPED, -1, PCMIG_EVENT_SRC_STOPPED_OTHER},
    {true, VIR_DOMAIN_EVENT_CRASHED, -1, PCMIG_EVENT_SRC_STOPPED_OTHER},
    {false, VIR_DOMAIN_EVENT_STARTED, -1, PCMIG_EVENT_DST_STARTED},
    {false, VIR_DOMAIN_EVENT_RESUMED, VIR_DOMAIN_EVENT_RESUMED_POSTCOPY, PCMIG_EVENT_DST_RESUMED_POSTCOPY},
    {false, VIR_DOMAIN_EVENT_RESUMED, VIR_DOMAIN_EVENT_RESUMED_MIGRATED, PCMIG_EVENT_DST_RESUMED_MIGRATED},
    {false, VIR_DOMAIN_EVENT_RESUMED, 4 /* POSTCOPY_FAILED, since 8.5 */, PCMIG_EVENT_DST_POSTCOPY_FAILED},
    {false, VIR_DOMAIN_EVENT_SUSPENDED, VIR_DOMAIN_EVENT_SUSPENDED_POSTCOPY_FAILED, PCMIG_EVENT_DST_POSTCOPY_FAILED},
    {false, VIR_DOMAIN_EVENT_STOPPED, -1, PCMIG_EVENT_DST_STOPPED},
    {false, VIR_DOMAIN_EVENT_CRASHED, -1, PCMIG_EVENT_DST_STOPPED},
};

static int on_lifecycle(virConnectPtr conn, virDomainPtr domain, int event, int detail, void *opaque)
{
    struct pcmig_virt_watch *watch = opaque;

    (void)conn;
    if (!watch_wants(watch, domain))
        return 0;
    for (size_t i = 0; i < sizeof(lifecycle) / sizeof(lifecycle[0]); i++) {
        if (lifecycle[i].source == watch->source && lifecycle[i].event == event &&
            (lifecycle[i].detail == detail || lifecycle[i].detail == -1)) {
            struct pcmig_input input = {.kind = PCMIG_INPUT_EVENT, .code = lifecycle[i].meaning};

            watch->callbacks.input(watch->opaque, &input);
            break;
        }
    }
    return 0;
}

static void on_iteration(virConnectPtr conn, virDomainPtr domain, int iteration, void *opaque)
{
    struct pcmig_virt_watch *watch = opaque;
    struct pcmig_input input = {.kind = PCMIG_INPUT_ITERATION, .code = iteration};

    (void)conn;
    if (watch->source && watch_wants(watch, domain))
        watch->callbacks.input(watch->opaque, &input);
}

static void on_job_completed(virConnectPtr conn, virDomainPtr domain, virTypedParameterPtr params, int count,
                             void *opaque)
{
    struct pcmig_virt_watch *watch = opaque;
    struct pcmig_input input = {.kind = PCMIG_INPUT_EVENT, .code = PCMIG_EVENT_JOB_COMPLETED};
    int success = 1;

    (void)conn;
    if (!watch->source || !watch_wants(watch, domain))
        return;
    watch->callbacks.input(watch->opaque, &input);
    /* A cancelled job completes too, with success = 0 and the figures of the part that was done. */
    (void)virTypedParamsGetBoolean(params, count, VIR_DOMAIN_JOB_SUCCESS, &success);
    if (!success)
        return;
    input.kind = PCMIG_INPUT_FINAL;
    input.code = 0;
    sample_from_params(&input.sample, params, count);
    watch->callbacks.input(watch->opaque, &input);
}

static void on_closed(virConnectPtr conn, int reason, void *opaque)
{
    struct pcmig_virt_watch *watch = opaque;

    (void)conn;
    if (reason != VIR_CONNECT_CLOSE_REASON_CLIENT && !atomic_load(&watch->stopped))
        watch->callbacks.closed(watch->opaque);
}

struct pcmig_virt_watch *pcmig_virt_watch(struct pcmig_virt_conn *conn, const char *uuid, bool source,
                                          const struct pcmig_virt_callbacks *callbacks, void *opaque,
                                          struct pcmig_virt_error *error)
{
    const struct {
        int id;
        virConnectDomainEventGenericCallback callback;
    } events[WATCH_EVENTS] = {
        {VIR_DOMAIN_EVENT_ID_LIFECYCLE, VIR_DOMAIN_EVENT_CALLBACK(on_lifecycle)},
        {VIR_DOMAIN_EVENT_ID_MIGRATION_ITERATION, VIR_DOMAIN_EVENT_CALLBACK(on_iteration)},
        {VIR_DOMAIN_EVENT_ID_JOB_COMPLETED, VIR_DOMAIN_EVENT_CALLBACK(on_job_completed)},
    };
    struct pcmig_virt_watch *watch = calloc(1, sizeof(*watch));
    unsigned int n = 0;

    if (watch == NULL) {
        error_set(error, VIR_ERR_NO_MEMORY, "out of memory");
        return NULL;
    }
    atomic_init(&watch->references, 1);
    atomic_init(&watch->stopped, false);
    atomic_init(&watch->close_registered, false);
    watch->source = source;
    watch->callbacks = *callbacks;
    watch->opaque = opaque;
    for (int i = 0; i < WATCH_EVENTS; i++)
        watch->callback_ids[i] = -1;
    for (const char *c = uuid; *c != '\0' && n < 2 * VIR_UUID_BUFLEN; c++) {
        char digit[2] = {*c, '\0'};

        if (!isxdigit((unsigned char)*c))
            continue;
        watch->uuid[n / 2] = (unsigned char)(watch->uuid[n / 2] << 4 | strtoul(digit, NULL, 16));
        n++;
    }
    if (virConnectRef(conn->ptr) < 0) {
        pcmig_virt_error_take(error);
        free(watch);
        return NULL;
    }
    watch->conn = conn->ptr;
    for (int i = 0; i < WATCH_EVENTS; i++) {
        atomic_fetch_add(&watch->references, 1);
        watch->callback_ids[i] =
            virConnectDomainEventRegisterAny(watch->conn, NULL, events[i].id, events[i].callback, watch, watch_unref);
        if (watch->callback_ids[i] < 0) {
            pcmig_virt_error_take(error);
            atomic_fetch_sub(&watch->references, 1);
            watch->callbacks.release = NULL;
            pcmig_virt_unwatch(watch);
            return NULL;
        }
    }
    atomic_fetch_add(&watch->references, 1);
    atomic_store(&watch->close_registered, true);
    if (virConnectRegisterCloseCallback(watch->conn, on_closed, watch, close_unref) < 0)
        close_unref(watch); /* only the notice of a broken connection is lost; calls report it too */
    return watch;
}

void pcmig_virt_unwatch(struct pcmig_virt_watch *watch)
{
    if (watch == NULL)
        return;
    atomic_store(&watch->stopped, true);
    for (int i = 0; i < WATCH_EVENTS; i++) {
        if (watch->callback_ids[i] >= 0)
            (void)virConnectDomainEventDeregisterAny(watch->conn, watch->callback_ids[i]);
    }
    if (atomic_load(&watch->close_registered)) {
        (void)virConnectUnregisterCloseCallback(watch->conn, on_closed);
        /* A driver without such callbacks (libvirt's test driver) accepts one, and forgets it without freeing it. The
         * others have freed it by now, and wait for one that runs: both happen under the connection's lock. */
        close_unref(watch);
    }
    watch_unref(watch);
}
