/* SPDX-License-Identifier: Apache-2.0 */
/* Two hosts that say what a test wants, and a migration between them that the engine takes over. The functions below
 * take the place of libvirt's and of the look at the stream in the one program that includes this; the guest is the one
 * of libvirt's test driver, on both hosts, and its state is made up. */
#ifndef PCMIG_TESTS_TWO_HOSTS_H
#define PCMIG_TESTS_TWO_HOSTS_H

#include <dlfcn.h>
#include <libvirt/libvirt-qemu.h>
#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "edge/link.h"
#include "engine_host.h"
#include "engine_wait.h"
#include "fair_clock.h"

#define MIB    (1024 * 1024)
#define SOURCE "test:///default"
#define UUID   "6695eb01-f6a4-8304-79aa-97f2502e193f" /* the test driver's guest */

/* State and reason of a half, as one number. */
#define HALF(state, reason) ((state) << 8 | (reason))
#define RUNNING             HALF(VIR_DOMAIN_RUNNING, VIR_DOMAIN_RUNNING_BOOTED)
#define ABSENT              HALF(VIR_DOMAIN_SHUTOFF, VIR_DOMAIN_SHUTOFF_MIGRATED)
#define ARRIVING            HALF(VIR_DOMAIN_PAUSED, VIR_DOMAIN_PAUSED_MIGRATION)
#define SERVING             HALF(VIR_DOMAIN_PAUSED, VIR_DOMAIN_PAUSED_POSTCOPY)
#define FETCHING            HALF(VIR_DOMAIN_RUNNING, VIR_DOMAIN_RUNNING_POSTCOPY)
#define BROKEN              HALF(VIR_DOMAIN_PAUSED, VIR_DOMAIN_PAUSED_POSTCOPY_FAILED)
#define STOPPED             HALF(VIR_DOMAIN_PAUSED, VIR_DOMAIN_PAUSED_MIGRATION)
#define API_ERROR           HALF(VIR_DOMAIN_PAUSED, 14)
#define SUSPENDED           HALF(VIR_DOMAIN_PAUSED, VIR_DOMAIN_PAUSED_USER)

/* --- libvirt ------------------------------------------------------------------------------------------------------ */

/* What is counted has happened by then: a test that has waited for it may change what it has changed. Only a migrate
 * call is counted as it begins. */
static struct {
    atomic_int source;
    atomic_int destination;
    atomic_bool job;       /* the source has statistics */
    atomic_int operation;  /* what kind of job it is; -1 = libvirt does not tell */
    atomic_int memory_mib; /* of the job; 0 = it is being set up */
    atomic_int aborts;     /* of whatever job */
    atomic_bool begins;    /* a migrate call has a job that outlives it */
    atomic_int call_ms;    /* the first migrate call ends after so long, */
    atomic_int arrives;    /* with the guest there in this half; 0 = it fails */
    atomic_uint call_flags;
    atomic_bool abort_hangs;  /* libvirt takes an abort, and nothing ends */
    atomic_bool switch_hangs; /* likewise */
    atomic_int switches;      /* start-postcopy */
    atomic_int pauses;        /* abort with POSTCOPY */
    atomic_int resumes;       /* migrate calls that resume */
    atomic_int refuses_ms;    /* each takes so long and fails, and nothing has changed; 0 = it does not */
    char *_Atomic refusal;    /* with this error; NULL = with none */
    atomic_int qemu_pauses;   /* migrate-pause */
    atomic_int sent;          /* bytes that QEMU has sent; -1 = more with each question */
    atomic_bool wakes;        /* it is known where the destination's kernel is to be knocked at, */
    atomic_bool knockable;    /* it can be done, */
    atomic_bool hears;        /* and answers */
    atomic_int knocks;
    atomic_int calls;     /* migrate calls of any kind */
    atomic_bool pausable; /* a pause breaks the stream; otherwise it is refused with this error: */
    char *_Atomic unpausable;
    const char *_Atomic then; /* what QEMU says of its migration once that was refused; NULL = the same */
    atomic_int silence_ms;    /* of the destination's kernel */
    atomic_bool stream_known; /* the address that QEMU sends to */
    const char *_Atomic qemu; /* what QEMU says of its migration; NULL = its monitor does not answer */
    atomic_bool goes_out;     /* and it has figures of one that goes out; its processors run */
    atomic_int monitor_ms;    /* so long it takes */
    atomic_int questions;     /* to QEMU */
    atomic_int looks;         /* at the destination's guest */
    atomic_int runs;          /* virDomainResume at the source */
    atomic_bool known;        /* the source knows a guest that has left it */
    atomic_bool source_defined, destination_defined;
    atomic_int undefines;     /* at the source */
    atomic_int libvirt;       /* version of the daemons */
    atomic_ulong precopy_mib; /* bandwidth of pre-copy, as libvirt was told last; 0 = never */
} hosts;

static struct engine_host dest_host;

static atomic_bool no_answer;   /* the destination's libvirt: who connects to it waits, */
static atomic_int attempts;     /* and is counted */
static atomic_bool source_gone; /* nobody can connect to it */

virConnectPtr virConnectOpenAuth(const char *uri, virConnectAuthPtr auth, unsigned int flags)
{
    virConnectPtr (*libvirts)(const char *, virConnectAuthPtr, unsigned int) = NULL;

    *(void **)&libvirts = dlsym(RTLD_NEXT, "virConnectOpenAuth");
    if (strcmp(uri, dest_host.uri) == 0 && atomic_load(&no_answer)) {
        atomic_fetch_add(&attempts, 1);
        for (int waited_ms = 0; atomic_load(&no_answer) && waited_ms < PATIENCE; waited_ms++)
            (void)usleep(1000);
    }
    if (strcmp(uri, SOURCE) == 0 && atomic_load(&source_gone))
        return NULL;
    return libvirts(uri, auth, flags);
}

/* Whoever asks gets the answer of that moment, and not before it is let go. */
struct held {
    atomic_bool holds; /* what is asked from now on */
    atomic_bool let_go;
    atomic_int waiting;
};

static struct held held_destination; /* its libvirt */
static struct held held_job;         /* the source's, of QEMU's figures */
static struct held held_switch;      /* likewise, the order to switch */
static struct held held_pause;       /* and the one to pause post-copy */

static inline void hold(struct held *held)
{
    atomic_store(&held->let_go, false);
    atomic_store(&held->holds, true);
}

static inline void let_go(struct held *held)
{
    atomic_store(&held->holds, false);
    atomic_store(&held->let_go, true);
}

/* Also who asked for the test before, for which nobody waited. */
static inline void all_leave(struct held *held)
{
    let_go(held);
    WAIT_FOR(atomic_load(&held->waiting) == 0);
}

/* Connections that a call which is held back goes over. */
static _Atomic(virConnectPtr) held_over[8];

static void wait_for_leave(struct held *held, virDomainPtr domain)
{
    const size_t count = sizeof(held_over) / sizeof(held_over[0]);
    virConnectPtr conn = virDomainGetConnect(domain), nobody = NULL;
    size_t at = 0;

    if (!atomic_load(&held->holds))
        return;
    for (size_t i = 0; i < count; i++)
        assert_ptr_not_equal(atomic_load(&held_over[i]), conn); /* nobody else uses it meanwhile */
    while (at < count && !atomic_compare_exchange_strong(&held_over[at], &nobody, conn)) {
        nobody = NULL;
        at++;
    }
    assert_true(at < count);
    atomic_fetch_add(&held->waiting, 1);
    for (int waited_ms = 0; !atomic_load(&held->let_go) && waited_ms < PATIENCE; waited_ms++)
        (void)usleep(1000);
    atomic_fetch_sub(&held->waiting, 1);
    atomic_store(&held_over[at], NULL);
}

static bool at_source(virDomainPtr domain)
{
    char *uri = virConnectGetURI(virDomainGetConnect(domain));
    bool result = uri != NULL && strcmp(uri, SOURCE) == 0;

    free(uri);
    return result;
}

int virDomainGetState(virDomainPtr domain, int *state, int *reason, unsigned int flags)
{
    int half = at_source(domain) ? atomic_load(&hosts.source) : atomic_load(&hosts.destination);

    (void)flags;
    if (half == ABSENT && !atomic_load(&hosts.known))
        half = HALF(VIR_DOMAIN_SHUTOFF, VIR_DOMAIN_SHUTOFF_UNKNOWN);
    *state = half >> 8;
    if (reason != NULL)
        *reason = half & 0xff;
    if (!at_source(domain)) {
        wait_for_leave(&held_destination, domain);
        atomic_fetch_add(&hosts.looks, 1);
    }
    return 0;
}

int virDomainGetJobStats(virDomainPtr domain, int *type, virTypedParameterPtr *params, int *count, unsigned int flags)
{
    unsigned long long total;
    int capacity = 0;

    (void)flags;
    *params = NULL;
    *count = 0;
    *type = VIR_DOMAIN_JOB_NONE;
    wait_for_leave(&held_job, domain);
    if (!at_source(domain) || !atomic_load(&hosts.job))
        return 0;
    *type = VIR_DOMAIN_JOB_UNBOUNDED;
    if (atomic_load(&hosts.operation) >= 0 &&
        virTypedParamsAddInt(params, count, &capacity, VIR_DOMAIN_JOB_OPERATION, atomic_load(&hosts.operation)) < 0)
        return -1;
    total = (unsigned long long)atomic_load(&hosts.memory_mib) * MIB;
    if (virTypedParamsAddULLong(params, count, &capacity, VIR_DOMAIN_JOB_MEMORY_TOTAL, total) < 0 ||
        virTypedParamsAddULLong(params, count, &capacity, VIR_DOMAIN_JOB_MEMORY_REMAINING, total / 4) < 0 ||
        virTypedParamsAddULLong(params, count, &capacity, VIR_DOMAIN_JOB_MEMORY_PROCESSED, total / 4 * 3) < 0 ||
        virTypedParamsAddULLong(params, count, &capacity, VIR_DOMAIN_JOB_MEMORY_ITERATION, 2) < 0)
        return -1;
    return 0;
}

static _Thread_local virError refused_with;

virErrorPtr virGetLastError(void)
{
    virErrorPtr (*libvirts)(void) = NULL;

    *(void **)&libvirts = dlsym(RTLD_NEXT, "virGetLastError");
    return refused_with.message != NULL ? &refused_with : libvirts();
}

static inline void left_the_source(void)
{
    atomic_store(&hosts.job, false);
    atomic_store(&hosts.source, ABSENT);
}

static inline void all_has_arrived(void)
{
    atomic_store(&hosts.destination, RUNNING);
    left_the_source();
}

/* A resume: both halves say that the stream runs again, and soon, unless it is silent, that all has arrived. The first
 * call fails, with or without a job that goes on. */
int virDomainMigrateToURI3(virDomainPtr domain, const char *uri, virTypedParameterPtr params, unsigned int count,
                           unsigned int flags)
{
    (void)domain;
    (void)uri;
    (void)params;
    (void)count;
    atomic_fetch_add(&hosts.calls, 1);
    if ((flags & (1U << 19)) == 0) { /* VIR_MIGRATE_POSTCOPY_RESUME */
        atomic_store(&hosts.call_flags, flags);
        for (int waited_ms = 0; waited_ms < atomic_load(&hosts.call_ms); waited_ms++)
            (void)usleep(1000);
        if (atomic_load(&hosts.arrives) != 0) {
            atomic_store(&hosts.destination, atomic_load(&hosts.arrives));
            left_the_source();
            return 0;
        }
        if ((atomic_load(&hosts.begins) || atomic_load(&hosts.job)) &&
            atomic_load(&hosts.operation) == VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT)
            atomic_store(&hosts.destination, ARRIVING);
        if (atomic_load(&hosts.begins))
            atomic_store(&hosts.job, true);
        return -1;
    }
    atomic_fetch_add(&hosts.resumes, 1);
    for (int waited_ms = 0; waited_ms < atomic_load(&hosts.refuses_ms); waited_ms++)
        (void)usleep(1000);
    refused_with = (virError){.code = VIR_ERR_OPERATION_INVALID, .message = atomic_load(&hosts.refusal)};
    if (atomic_load(&hosts.refuses_ms) > 0)
        return -1;
    refused_with = (virError){0};
    atomic_store(&hosts.source, SERVING);
    atomic_store(&hosts.destination, FETCHING);
    (void)usleep(300000);
    for (int waited_ms = 0; atomic_load(&hosts.silence_ms) > 0 && waited_ms < PATIENCE; waited_ms++)
        (void)usleep(1000);
    if (atomic_load(&hosts.source) == BROKEN)
        return -1;
    all_has_arrived();
    return 0;
}

int virDomainMigrateStartPostCopy(virDomainPtr domain, unsigned int flags)
{
    (void)domain;
    (void)flags;
    wait_for_leave(&held_switch, domain);
    if (!atomic_load(&hosts.switch_hangs)) {
        atomic_store(&hosts.source, SERVING);
        atomic_store(&hosts.destination, FETCHING);
    }
    atomic_fetch_add(&hosts.switches, 1);
    return 0;
}

int virDomainMigrateSetMaxSpeed(virDomainPtr domain, unsigned long bandwidth, unsigned int flags)
{
    (void)domain;
    if (flags == 0)
        atomic_store(&hosts.precopy_mib, bandwidth);
    return 0;
}

int virDomainMigrateSetMaxDowntime(virDomainPtr domain, unsigned long long downtime, unsigned int flags)
{
    (void)domain;
    (void)downtime;
    (void)flags;
    return 0;
}

int virDomainAbortJobFlags(virDomainPtr domain, unsigned int flags)
{
    (void)flags;
    wait_for_leave(&held_pause, domain);
    refused_with = (virError){0};
    if (!atomic_load(&hosts.pausable)) {
        if (atomic_load(&hosts.then) != NULL)
            atomic_store(&hosts.qemu, atomic_load(&hosts.then));
        refused_with = (virError){.code = VIR_ERR_OPERATION_INVALID, .message = atomic_load(&hosts.unpausable)};
        atomic_fetch_add(&hosts.pauses, 1);
        return -1;
    }
    atomic_store(&hosts.source, BROKEN);
    atomic_store(&hosts.destination, BROKEN);
    atomic_store(&hosts.silence_ms, 0); /* the next stream is a new one */
    atomic_fetch_add(&hosts.pauses, 1);
    return 0;
}

int virDomainAbortJob(virDomainPtr domain)
{
    (void)domain;
    if (!atomic_load(&hosts.abort_hangs)) {
        atomic_store(&hosts.destination, ABSENT);
        atomic_store(&hosts.job, false);
    }
    atomic_fetch_add(&hosts.aborts, 1);
    return 0;
}

int virDomainResume(virDomainPtr domain)
{
    assert_true(at_source(domain));
    atomic_store(&hosts.source, RUNNING);
    atomic_fetch_add(&hosts.runs, 1);
    return 0;
}

int virDomainIsActive(virDomainPtr domain)
{
    return (at_source(domain) ? atomic_load(&hosts.source) : atomic_load(&hosts.destination)) >> 8 !=
           VIR_DOMAIN_SHUTOFF;
}

int virDomainIsPersistent(virDomainPtr domain)
{
    if (!at_source(domain))
        wait_for_leave(&held_destination, domain);
    return at_source(domain) ? atomic_load(&hosts.source_defined) : atomic_load(&hosts.destination_defined);
}

int virConnectGetLibVersion(virConnectPtr conn, unsigned long *version)
{
    (void)conn;
    *version = (unsigned long)atomic_load(&hosts.libvirt);
    return 0;
}

virDomainPtr virDomainDefineXML(virConnectPtr conn, const char *xml)
{
    assert_non_null(strstr(xml, UUID));
    atomic_store(&hosts.source_defined, true);
    return virDomainLookupByUUIDString(conn, UUID);
}

int virDomainUndefineFlags(virDomainPtr domain, unsigned int flags)
{
    assert_true(at_source(domain));
    assert_int_equal(flags, VIR_DOMAIN_UNDEFINE_KEEP_NVRAM | 1 << 6);
    if (!atomic_load(&hosts.source_defined))
        return -1;
    atomic_store(&hosts.known, false);
    atomic_fetch_add(&hosts.undefines, 1);
    return 0;
}

int virDomainQemuMonitorCommand(virDomainPtr domain, const char *cmd, char **result, unsigned int flags)
{
    static const struct {
        const char *cmd;
        const char *answer;
    } rows[] = {
        {"query-status", "{\"return\":{\"status\":\"running\"}}"},
        {"query-version", "{\"return\":{\"qemu\":{\"major\":11,\"minor\":0,\"micro\":2}}}"},
        {"query-migrate-capabilities", "{\"return\":[]}"},
    };
    const char *status = atomic_load(&hosts.qemu);
    char whole[64];

    (void)flags;
    assert_true(at_source(domain));
    (void)usleep((useconds_t)atomic_load(&hosts.monitor_ms) * 1000);
    if (strcmp(cmd, "{\"execute\":\"migrate-pause\"}") == 0) {
        atomic_store(&hosts.qemu, "postcopy-paused");
        *result = strdup("{\"return\":{}}");
        atomic_fetch_add(&hosts.qemu_pauses, 1);
        return *result != NULL ? 0 : -1;
    }
    *result = NULL;
    for (size_t i = 0; status != NULL && i < sizeof(rows) / sizeof(rows[0]); i++) {
        snprintf(whole, sizeof(whole), "{\"execute\":\"%s\"}", rows[i].cmd);
        if (strcmp(cmd, whole) == 0)
            *result = strdup(rows[i].answer);
    }
    if (*result == NULL)
        assert_string_equal(cmd, status != NULL ? "{\"execute\":\"query-migrate\"}" : cmd);
    if (*result == NULL && status != NULL &&
        asprintf(result, "{\"return\":{\"status\":\"%s\",\"ram\":{\"transferred\":%d%s}}}", status,
                 atomic_load(&hosts.sent) >= 0 ? atomic_load(&hosts.sent) : atomic_load(&hosts.questions),
                 atomic_load(&hosts.goes_out) ? ",\"remaining\":4096" : "") < 0)
        *result = NULL;
    refused_with = (virError){0};
    atomic_fetch_add(&hosts.questions, 1);
    return *result != NULL ? 0 : -1;
}

/* --- the stream --------------------------------------------------------------------------------------------------- */

struct pcmig_link {
    int unused;
};

struct pcmig_link *pcmig_link_open(const struct pcmig_link_args *args)
{
    (void)args;
    return calloc(1, sizeof(struct pcmig_link));
}

void pcmig_link_close(struct pcmig_link *link)
{
    free(link);
}

int64_t pcmig_link_queue_bytes(struct pcmig_link *link)
{
    (void)link;
    return -1;
}

int64_t pcmig_link_round_trip_us(struct pcmig_link *link)
{
    (void)link;
    return -1;
}

bool pcmig_link_peer(const struct pcmig_link *link, struct sockaddr_storage *out)
{
    (void)link;
    *out = (struct sockaddr_storage){.ss_family = AF_INET};
    return atomic_load(&hosts.stream_known);
}

int64_t pcmig_link_silence_ms(struct pcmig_link *link)
{
    (void)link;
    return atomic_load(&hosts.silence_ms);
}

unsigned pcmig_link_wake(struct pcmig_link *link, int wait_ms)
{
    (void)link;
    (void)wait_ms;
    if (!atomic_load(&hosts.wakes))
        return 0;
    atomic_fetch_add(&hosts.knocks, 1);
    return 1;
}

struct pcmig_knocked pcmig_link_woken(const struct pcmig_link *link)
{
    const uint32_t knocks = (uint32_t)atomic_load(&hosts.knocks);

    (void)link;
    return (struct pcmig_knocked){.begun = knocks,
                                  .latest = atomic_load(&hosts.knockable) ? knocks : 0,
                                  .answers = atomic_load(&hosts.hears) ? 1 : 0};
}

/* --- a migration -------------------------------------------------------------------------------------------------- */

static int make_host(void **state)
{
    static const char node[] = "<node><domain type='test'><name>test</name><uuid>" UUID
                               "</uuid><memory>8192</memory><os><type>hvm</type></os></domain></node>";

    (void)state;
    return engine_host_make(&dest_host, node);
}

static int drop_host(void **state)
{
    (void)state;
    return engine_host_drop(&dest_host);
}

static int reset(void **state)
{
    (void)state;
    atomic_store(&hosts.source, RUNNING);
    atomic_store(&hosts.destination, ARRIVING);
    atomic_store(&hosts.job, true);
    atomic_store(&hosts.operation, VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT);
    atomic_store(&hosts.memory_mib, 256);
    atomic_store(&hosts.aborts, 0);
    atomic_store(&hosts.begins, false);
    atomic_store(&hosts.call_ms, 0);
    atomic_store(&hosts.arrives, 0);
    atomic_store(&hosts.call_flags, 0);
    atomic_store(&hosts.abort_hangs, false);
    atomic_store(&hosts.switch_hangs, false);
    atomic_store(&hosts.switches, 0);
    atomic_store(&hosts.pauses, 0);
    atomic_store(&hosts.resumes, 0);
    atomic_store(&hosts.refuses_ms, 0);
    atomic_store(&hosts.refusal, NULL);
    atomic_store(&hosts.qemu_pauses, 0);
    atomic_store(&hosts.sent, 0);
    atomic_store(&hosts.unpausable, NULL);
    atomic_store(&hosts.then, NULL);
    atomic_store(&hosts.wakes, true);
    atomic_store(&hosts.knockable, true);
    atomic_store(&hosts.hears, true);
    atomic_store(&hosts.knocks, 0);
    refused_with = (virError){0};
    atomic_store(&hosts.calls, 0);
    atomic_store(&hosts.pausable, true);
    atomic_store(&hosts.silence_ms, 0);
    atomic_store(&hosts.stream_known, false);
    atomic_store(&hosts.qemu, "none");
    atomic_store(&hosts.monitor_ms, 0);
    atomic_store(&hosts.questions, 0);
    atomic_store(&hosts.looks, 0);
    atomic_store(&hosts.runs, 0);
    atomic_store(&hosts.known, false);
    atomic_store(&hosts.source_defined, true);
    atomic_store(&hosts.destination_defined, true);
    atomic_store(&hosts.undefines, 0);
    atomic_store(&hosts.libvirt, 12008000);
    atomic_store(&hosts.precopy_mib, 0);
    all_leave(&held_destination);
    all_leave(&held_job);
    all_leave(&held_switch);
    all_leave(&held_pause);
    return 0;
}

static bool crossed;                    /* noted by who looked after an adopted migration before */
static int64_t stall_ms;                /* the parameter; 0 = its default */
static const char *const *copied_disks; /* of a migration that copies disks; NULL = it copies none */

static inline struct pcmig_migration *begin(bool adopted, enum pcmig_policy_kind policy)
{
    struct pcmig_migration_args args = {
        .source_uri = SOURCE,
        .dest_uri = dest_host.uri,
        .domain = UUID,
        .policy = policy,
        .flags = VIR_MIGRATE_LIVE | VIR_MIGRATE_PERSIST_DEST | VIR_MIGRATE_UNDEFINE_SOURCE |
                 (copied_disks != NULL ? VIR_MIGRATE_NON_SHARED_DISK : 0),
        .disks = copied_disks,
        .recover = true,
        .adopt = adopted,
        .crossed = crossed,
        .connect_timeout_ms = 10000,
    };
    struct pcmig_migration *migration;

    pcmig_params_defaults(&args.params);
    if (stall_ms > 0)
        args.params.value[PCMIG_PARAM_STALL_MS] = stall_ms;
    migration = pcmig_migration_new(&args);
    assert_non_null(migration);
    assert_int_equal(pcmig_migration_start(migration), 0);
    return migration;
}

static inline struct pcmig_migration *adopt(enum pcmig_policy_kind policy)
{
    return begin(true, policy);
}

static inline struct pcmig_migration *adopt_crossed(void)
{
    struct pcmig_migration *migration;

    crossed = true;
    migration = adopt(PCMIG_POLICY_AUTO);
    crossed = false;
    return migration;
}

/* In post-copy, and known to be. */
static inline struct pcmig_migration *adopt_postcopy(void)
{
    struct pcmig_migration *migration;

    atomic_store(&hosts.source, SERVING);
    atomic_store(&hosts.destination, FETCHING);
    migration = adopt(PCMIG_POLICY_AUTO);
    WAIT_FOR(status_of(migration).phase == PCMIG_PHASE_POSTCOPY);
    return migration;
}

static inline void expect_end(struct pcmig_migration *migration, enum pcmig_outcome outcome)
{
    assert_true(pcmig_migration_join(migration, PATIENCE));
    if (status_of(migration).outcome != outcome)
        print_error("%s\n", status_of(migration).text);
    assert_string_equal(pcmig_outcome_name(status_of(migration).outcome), pcmig_outcome_name(outcome));
    pcmig_migration_unref(migration);
}

#endif
