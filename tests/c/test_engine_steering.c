/* SPDX-License-Identifier: Apache-2.0 */
/* The control thread at work, with a libvirt that obeys the test: the functions below take the place of libvirt's. The
 * guest is the one of libvirt's test driver, which cannot migrate; statistics and calls are made up. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <libvirt/libvirt.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "edge/clock.h"
#include "engine_host.h"
#include "engine_wait.h"
#include "fair_clock.h"

#define MIB       (1024 * 1024)
#define UNLIMITED ((unsigned long)(INT64_MAX / MIB))
#define CONNS_MAX 8

/* --- libvirt ------------------------------------------------------------------------------------------------------ */

static struct {
    atomic_bool running;       /* the migrate call is in progress, once it is made */
    atomic_bool called;        /* it was made: there is a job */
    atomic_int refuse_switch;  /* start-postcopy is refused that often */
    atomic_int refuse_precopy; /* a bandwidth of pre-copy likewise */
    atomic_ulong precopy_mib;  /* as accepted last */
    atomic_int precopy_sets;   /* how often */
    atomic_int switches;       /* accepted */
    atomic_int switches_tried;
    atomic_llong switch_us;      /* time of the last one that was accepted */
    atomic_int looks;            /* at the job's statistics */
    atomic_int looks_at_switch;  /* so many had been before the last switch */
    _Atomic(virConnectPtr) dead; /* nothing goes through it */
    atomic_int downtimes;
    atomic_int samplings;        /* of the guest's writing that were started, all before the migrate call */
    atomic_bool refuse_sampling; /* libvirt cannot, or another job runs */
    atomic_int sampling_unready; /* asked so often without a result */
    atomic_bool sampling_fails;
} host;

static pthread_mutex_t close_lock = PTHREAD_MUTEX_INITIALIZER;
static struct closer {
    virConnectPtr conn;
    virConnectCloseFunc callback;
    void *opaque;
    virFreeCallback release;
} closers[CONNS_MAX];

int virConnectRegisterCloseCallback(virConnectPtr conn, virConnectCloseFunc cb, void *opaque, virFreeCallback freecb)
{
    int result = -1;

    pthread_mutex_lock(&close_lock);
    for (size_t i = 0; i < CONNS_MAX && result < 0; i++) {
        if (closers[i].conn != NULL)
            continue;
        closers[i] = (struct closer){conn, cb, opaque, freecb};
        result = 0;
    }
    pthread_mutex_unlock(&close_lock);
    return result;
}

int virConnectUnregisterCloseCallback(virConnectPtr conn, virConnectCloseFunc cb)
{
    struct closer found = {0};

    pthread_mutex_lock(&close_lock);
    for (size_t i = 0; i < CONNS_MAX; i++) {
        if (closers[i].conn == conn && closers[i].callback == cb) {
            found = closers[i];
            memset(&closers[i], 0, sizeof(closers[i]));
            break;
        }
    }
    pthread_mutex_unlock(&close_lock);
    if (found.release != NULL)
        found.release(found.opaque);
    return found.conn != NULL ? 0 : -1;
}

/* As the event thread would, for every connection whose URI is URI. Returns the first one, with a reference of the
 * caller's: the engine may let go of it at once. */
static virConnectPtr break_connection(const char *uri)
{
    virConnectPtr broken = NULL;

    pthread_mutex_lock(&close_lock);
    for (size_t i = 0; i < CONNS_MAX; i++) {
        char *own = closers[i].conn != NULL ? virConnectGetURI(closers[i].conn) : NULL;

        if (own != NULL && strcmp(own, uri) == 0) {
            if (broken == NULL && virConnectRef(closers[i].conn) == 0)
                broken = closers[i].conn;
            closers[i].callback(closers[i].conn, VIR_CONNECT_CLOSE_REASON_ERROR, closers[i].opaque);
        }
        free(own);
    }
    pthread_mutex_unlock(&close_lock);
    return broken;
}

static int listeners(const char *uri)
{
    int n = 0;

    pthread_mutex_lock(&close_lock);
    for (size_t i = 0; i < CONNS_MAX; i++) {
        char *own = closers[i].conn != NULL ? virConnectGetURI(closers[i].conn) : NULL;

        n += own != NULL && strcmp(own, uri) == 0;
        free(own);
    }
    pthread_mutex_unlock(&close_lock);
    return n;
}

static bool is_dead(virDomainPtr domain)
{
    return virDomainGetConnect(domain) == atomic_load(&host.dead);
}

int virDomainMigrateToURI3(virDomainPtr domain, const char *dest_uri, virTypedParameterPtr params, unsigned int count,
                           unsigned int flags)
{
    (void)domain;
    (void)dest_uri;
    (void)params;
    (void)count;
    (void)flags;
    atomic_store(&host.called, true);
    while (atomic_load(&host.running))
        (void)usleep(2000);
    return -1;
}

int virDomainGetJobStats(virDomainPtr domain, int *type, virTypedParameterPtr *params, int *count, unsigned int flags)
{
    int capacity = 0;

    (void)flags;
    if (is_dead(domain))
        return -1;
    atomic_fetch_add(&host.looks, 1);
    *params = NULL;
    *count = 0;
    if (!atomic_load(&host.running) || !atomic_load(&host.called)) {
        *type = VIR_DOMAIN_JOB_NONE;
        return 0;
    }
    *type = VIR_DOMAIN_JOB_UNBOUNDED;
    if (virTypedParamsAddULLong(params, count, &capacity, VIR_DOMAIN_JOB_MEMORY_TOTAL, 256 * MIB) < 0 ||
        virTypedParamsAddULLong(params, count, &capacity, VIR_DOMAIN_JOB_MEMORY_REMAINING, 200 * MIB) < 0 ||
        virTypedParamsAddULLong(params, count, &capacity, VIR_DOMAIN_JOB_MEMORY_PROCESSED, 56 * MIB) < 0)
        return -1;
    return 0;
}

int virDomainMigrateStartPostCopy(virDomainPtr domain, unsigned int flags)
{
    (void)flags;
    if (is_dead(domain))
        return -1;
    atomic_fetch_add(&host.switches_tried, 1);
    if (atomic_load(&host.refuse_switch) > 0) {
        atomic_fetch_sub(&host.refuse_switch, 1);
        return -1;
    }
    atomic_store(&host.switch_us, pcmig_clock_us());
    atomic_store(&host.looks_at_switch, atomic_load(&host.looks));
    atomic_fetch_add(&host.switches, 1);
    return 0;
}

int virDomainMigrateSetMaxSpeed(virDomainPtr domain, unsigned long bandwidth, unsigned int flags)
{
    if (is_dead(domain))
        return -1;
    if (flags != 0)
        return 0;
    if (atomic_load(&host.refuse_precopy) > 0) {
        atomic_fetch_sub(&host.refuse_precopy, 1);
        return -1;
    }
    atomic_store(&host.precopy_mib, bandwidth);
    atomic_fetch_add(&host.precopy_sets, 1);
    return 0;
}

int virDomainMigrateSetMaxDowntime(virDomainPtr domain, unsigned long long downtime, unsigned int flags)
{
    (void)domain;
    (void)downtime;
    (void)flags;
    atomic_fetch_add(&host.downtimes, 1);
    return 0;
}

int virDomainStartDirtyRateCalc(virDomainPtr domain, int seconds, unsigned int flags)
{
    (void)domain;
    assert_int_equal(seconds, 1);
    assert_int_equal(flags, 0);
    assert_false(atomic_load(&host.called));
    atomic_fetch_add(&host.samplings, 1);
    return atomic_load(&host.refuse_sampling) ? -1 : 0;
}

int virDomainListGetStats(virDomainPtr *domains, unsigned int stats, virDomainStatsRecordPtr **records,
                          unsigned int flags)
{
    bool ready = atomic_fetch_sub(&host.sampling_unready, 1) <= 0;
    virDomainStatsRecordPtr record;
    int capacity = 0;

    assert_non_null(domains[0]);
    assert_int_equal(stats, VIR_DOMAIN_STATS_DIRTYRATE);
    assert_int_equal(flags, VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT);
    if (atomic_load(&host.sampling_fails))
        return -1;
    *records = calloc(2, sizeof(**records));
    record = calloc(1, sizeof(*record));
    assert_true(*records != NULL && record != NULL);
    (*records)[0] = record;
    assert_return_code(virTypedParamsAddInt(&record->params, &record->nparams, &capacity, "dirtyrate.calc_status",
                                            ready ? VIR_DOMAIN_DIRTYRATE_MEASURED : VIR_DOMAIN_DIRTYRATE_MEASURING),
                       0);
    if (ready)
        assert_return_code(
            virTypedParamsAddLLong(&record->params, &record->nparams, &capacity, "dirtyrate.megabytes_per_second", 41),
            0);
    return 1;
}

void virDomainStatsRecordListFree(virDomainStatsRecordPtr *records)
{
    virTypedParamsFree(records[0]->params, records[0]->nparams);
    free(records[0]);
    free(records);
}

int virDomainAbortJob(virDomainPtr domain)
{
    (void)domain;
    atomic_store(&host.running, false);
    return 0;
}

/* --- a migration -------------------------------------------------------------------------------------------------- */

static struct pcmig_params params;
static struct engine_host empty_host;

static int make_host(void **state)
{
    (void)state;
    return engine_host_make(&empty_host, "<node></node>");
}

static int drop_host(void **state)
{
    (void)state;
    return engine_host_drop(&empty_host);
}

static int reset(void **state)
{
    (void)state;
    pcmig_params_defaults(&params);
    atomic_store(&host.called, false);
    atomic_store(&host.running, true);
    atomic_store(&host.refuse_switch, 0);
    atomic_store(&host.refuse_precopy, 0);
    atomic_store(&host.precopy_mib, 0);
    atomic_store(&host.precopy_sets, 0);
    atomic_store(&host.switches, 0);
    atomic_store(&host.switches_tried, 0);
    atomic_store(&host.downtimes, 0);
    atomic_store(&host.dead, NULL);
    atomic_store(&host.samplings, 0);
    atomic_store(&host.refuse_sampling, false);
    atomic_store(&host.sampling_unready, 0);
    atomic_store(&host.sampling_fails, false);
    return 0;
}

/* In pre-copy, with statistics. */
static struct pcmig_migration *begin_with(enum pcmig_policy_kind policy, bool gated, const char *trace_path)
{
    struct pcmig_migration_args args = {
        .source_uri = "test:///default",
        .dest_uri = empty_host.uri,
        .domain = "test",
        .policy = policy,
        .trace_path = trace_path,
        .params = params,
        .gated = gated,
        .connect_timeout_ms = 10000,
    };
    struct pcmig_migration *migration = pcmig_migration_new(&args);

    assert_non_null(migration);
    assert_int_equal(pcmig_migration_start(migration), 0);
    WAIT_FOR(status_of(migration).sample.memory_total_bytes > 0);
    return migration;
}

static struct pcmig_migration *begin(bool gated)
{
    return begin_with(PCMIG_POLICY_MANUAL, gated, NULL);
}

static void end(struct pcmig_migration *migration)
{
    atomic_store(&host.running, false);
    assert_true(pcmig_migration_join(migration, PATIENCE));
    assert_int_equal(status_of(migration).outcome, PCMIG_OUTCOME_FAILED);
    pcmig_migration_unref(migration);
}

static void ask(struct pcmig_migration *migration, enum pcmig_request request)
{
    assert_int_equal(pcmig_migration_request(migration, request), 0);
}

/* --- tests -------------------------------------------------------------------------------------------------------- */

/* The answer to the gate is what switches: no look at anything comes between. */
static void gate_switches_at_once(void **state)
{
    int at_once = 0;

    /* A look may be due just then, and more of them on a busy machine. */
    for (int i = 0; i < 5 || (at_once == 0 && i < 50); i++) {
        struct pcmig_migration *migration;
        int64_t opened_us, late_us;
        int looks;

        (void)reset(state);
        migration = begin(true);
        assert_int_equal(status_of(migration).gate, PCMIG_GATE_CLOSED);
        ask(migration, PCMIG_REQUEST_SWITCH);
        WAIT_FOR(status_of(migration).gate == PCMIG_GATE_WANTED);
        (void)usleep(200000);
        assert_int_equal(atomic_load(&host.switches_tried), 0);
        looks = atomic_load(&host.looks);
        opened_us = pcmig_clock_us();
        ask(migration, PCMIG_REQUEST_OPEN_GATE);
        WAIT_FOR(atomic_load(&host.switches) == 1);
        at_once += atomic_load(&host.looks_at_switch) == looks;
        WAIT_FOR(status_of(migration).switch_late_us >= 0);
        late_us = status_of(migration).switch_late_us;
        assert_in_range(late_us, 0, atomic_load(&host.switch_us) - opened_us);
        assert_int_equal(status_of(migration).gate, PCMIG_GATE_OPEN);
        end(migration);
    }
    assert_true(at_once > 0);
}

/* A bandwidth of the drain that could not be taken back at first is not left in force. */
static void undrain_is_tried_again(void **state)
{
    struct pcmig_migration *migration = begin(true);

    (void)state;
    atomic_store(&host.refuse_switch, 1000);
    ask(migration, PCMIG_REQUEST_SWITCH);
    ask(migration, PCMIG_REQUEST_OPEN_GATE);
    WAIT_FOR(atomic_load(&host.precopy_mib) == 1);
    atomic_store(&host.refuse_precopy, 3);
    ask(migration, PCMIG_REQUEST_REFUSE_GATE);
    WAIT_FOR(atomic_load(&host.precopy_mib) == UNLIMITED);
    assert_int_equal(atomic_load(&host.refuse_precopy), 0);
    end(migration);
}

/* A bound that comes while a refused switch is tried again is not lost, and does not fill the queue in a drain. */
static void bandwidth_while_retrying(void **state)
{
    struct pcmig_migration *migration;

    (void)state;
    migration = begin(false);
    atomic_store(&host.refuse_switch, 1000);
    ask(migration, PCMIG_REQUEST_SWITCH);
    WAIT_FOR(atomic_load(&host.switches_tried) > 0);
    assert_int_equal(atomic_load(&host.precopy_mib), 1);
    assert_int_equal(pcmig_migration_set_bandwidth(migration, 7), 0);
    WAIT_FOR(atomic_load(&host.precopy_sets) == 2); /* with the undrain, not before */
    assert_int_equal(atomic_load(&host.precopy_mib), 7);
    assert_int_equal(pcmig_migration_set_bandwidth(migration, 9), 0);
    WAIT_FOR(atomic_load(&host.precopy_mib) == 9);
    atomic_store(&host.refuse_switch, 0);
    WAIT_FOR(atomic_load(&host.switches) == 1);
    end(migration);
}

/* The connections that steer and listen break, the migrate call's own does not: steering goes on over new ones, which
 * are not tried for more than once a second. */
static void broken_connection(void **state)
{
    struct pcmig_migration *migration = begin(false);
    int64_t start_us = pcmig_clock_us();
    virConnectPtr dead[6]; /* kept, so that no address is used again */

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        dead[i] = break_connection("test:///default");
        assert_non_null(dead[i]);
        atomic_store(&host.dead, dead[i]);
        dead[3 + i] = break_connection(empty_host.uri);
        assert_non_null(dead[3 + i]);
        assert_int_equal(pcmig_migration_set_bandwidth(migration, 5 + (int64_t)i), 0);
        WAIT_FOR(atomic_load(&host.precopy_mib) == 5 + i);
        WAIT_FOR(listeners(empty_host.uri) == 1);
        WAIT_FOR(listeners("test:///default") == 1); /* the old one is closed in the background */
    }
    assert_true(pcmig_clock_us() - start_us > 1900000);
    ask(migration, PCMIG_REQUEST_SWITCH);
    WAIT_FOR(atomic_load(&host.switches) == 1);
    assert_int_equal(status_of(migration).outcome, PCMIG_OUTCOME_RUNNING);
    assert_int_equal(status_of(migration).inputs_lost, 0);
    end(migration);
    for (size_t i = 0; i < sizeof(dead) / sizeof(dead[0]); i++)
        (void)virConnectClose(dead[i]);
}

/* Lines of the trace at PATH with WORD. */
static int traced(const char *path, const char *word)
{
    FILE *file = fopen(path, "r");
    char line[2048];
    int count = 0;

    assert_non_null(file);
    while (fgets(line, sizeof(line), file) != NULL)
        count += strstr(line, word) != NULL;
    (void)fclose(file);
    return count;
}

/* QEMU samples the guest's writing before the migrate call, and the core hears of the result once. What is refused,
 * or fails, is not known; the migration goes its way. Nobody asks where nobody needs it. */
static void sampled_writes(void **state)
{
    static const struct {
        enum pcmig_policy_kind policy;
        bool refused, fails;
        int samplings, told;
    } rows[] = {
        {PCMIG_POLICY_AUTO, false, false, 1, 1},
        {PCMIG_POLICY_DEADLINE, true, false, 1, 0},
        {PCMIG_POLICY_AUTO, false, true, 1, 0},
        {PCMIG_POLICY_MANUAL, false, false, 0, 0},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char path[] = "/tmp/test_engine_steering_XXXXXX";
        struct pcmig_migration *migration;
        int fd = mkstemp(path);

        assert_true(fd >= 0);
        (void)close(fd);
        (void)reset(state);
        atomic_store(&host.refuse_sampling, rows[i].refused);
        atomic_store(&host.sampling_fails, rows[i].fails);
        atomic_store(&host.sampling_unready, 1);
        migration = begin_with(rows[i].policy, false, path);
        if (rows[i].told > 0)
            WAIT_FOR(atomic_load(&host.sampling_unready) < 0);
        if (rows[i].fails)
            WAIT_FOR(atomic_load(&host.sampling_unready) < 1);
        (void)usleep(rows[i].fails ? 700000 : 200000); /* nobody asks again */
        assert_int_equal(atomic_load(&host.sampling_unready), rows[i].told > 0 ? -1 : rows[i].fails ? 0 : 1);
        assert_int_equal(atomic_load(&host.samplings), rows[i].samplings);
        end(migration);
        assert_int_equal(traced(path, " dirty-rate 42991616\n"), rows[i].told);
        assert_int_equal(traced(path, " dirty-rate "), rows[i].told);
        (void)unlink(path);
    }
}

/* Who sets QEMU's limit tells it; it is traced as it was told. */
static void downtime_limit(void **state)
{
    char path[] = "/tmp/test_engine_steering_XXXXXX";
    struct pcmig_migration *migration;
    int fd = mkstemp(path);

    (void)state;
    assert_true(fd >= 0);
    (void)close(fd);
    migration = begin_with(PCMIG_POLICY_MANUAL, false, path);
    assert_int_equal(pcmig_migration_downtime_limit(migration, 95), 0);
    (void)usleep(50000);
    end(migration);
    assert_int_equal(traced(path, " downtime-limit 95\n"), 1);
    (void)unlink(path);
}

static void downtime_control(void **state)
{
    struct pcmig_migration *migration = begin(false);

    (void)state;
    WAIT_FOR(atomic_load(&host.downtimes) == 1);
    end(migration);
    (void)reset(NULL);
    params.value[PCMIG_PARAM_DOWNTIME_CONTROL] = 0;
    migration = begin(false);
    (void)usleep(300000);
    assert_int_equal(atomic_load(&host.downtimes), 0);
    end(migration);
}

/* libvirt keeps the bandwidth for the guest's next migrations, which need not be ours. */
static void no_drain_is_left_behind(void **state)
{
    struct pcmig_migration *migration = begin(false);

    (void)state;
    ask(migration, PCMIG_REQUEST_SWITCH);
    WAIT_FOR(atomic_load(&host.precopy_mib) == 1);
    ask(migration, PCMIG_REQUEST_ABORT);
    assert_true(pcmig_migration_join(migration, PATIENCE));
    assert_int_equal(status_of(migration).outcome, PCMIG_OUTCOME_FAILED);
    assert_int_equal(atomic_load(&host.precopy_mib), UNLIMITED);
    pcmig_migration_unref(migration);
    /* The call fails after the switch was issued, and libvirt refuses the bandwidth at first. */
    (void)reset(state);
    migration = begin(false);
    ask(migration, PCMIG_REQUEST_SWITCH);
    WAIT_FOR(atomic_load(&host.switches) == 1);
    assert_int_equal(atomic_load(&host.precopy_mib), 1);
    WAIT_FOR(status_of(migration).crossed);
    atomic_store(&host.refuse_precopy, 2);
    end(migration);
    assert_int_equal(atomic_load(&host.precopy_mib), UNLIMITED);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup(name, reset)
    const struct CMUnitTest tests[] = {
        TEST(no_drain_is_left_behind),  TEST(gate_switches_at_once), TEST(undrain_is_tried_again),
        TEST(bandwidth_while_retrying), TEST(broken_connection),     TEST(downtime_control),
        TEST(downtime_limit),           TEST(sampled_writes),
    };

    return cmocka_run_group_tests(tests, make_host, drop_host);
}
