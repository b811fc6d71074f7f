/* SPDX-License-Identifier: Apache-2.0 */
/* Following a guest's events: what is given back, by whom, and how often; also when following fails half-way. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dlfcn.h>
#include <libvirt/libvirt.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "edge/virt.h"
#include "fair_clock.h"

static atomic_int registrations_left; /* before one fails; negative = none does */
static atomic_int releases, inputs;
static atomic_int foreign_closes; /* on another thread than the test's */
static pthread_t own_thread;

/* dlsym returns an object pointer; ISO C has no other way to a function's. */
#define NEXT(type, name)                                                                                               \
    ((union {                                                                                                          \
         void *object;                                                                                                 \
         type function;                                                                                                \
     }){.object = dlsym(RTLD_NEXT, name)}                                                                              \
         .function)

typedef int (*register_fn)(virConnectPtr, virDomainPtr, int, virConnectDomainEventGenericCallback, void *,
                           virFreeCallback);
typedef int (*close_fn)(virConnectPtr);

/* libvirt hands the watch over to the event thread and back under a lock of its own, which the thread sanitizer does
 * not follow (tsan.supp). Here it is done once more where it is seen. */
static _Atomic(virConnectDomainEventCallback) real_lifecycle;
static _Atomic(virFreeCallback) real_release;
static atomic_int returned;

static int lifecycle(virConnectPtr conn, virDomainPtr domain, int event, int detail, void *opaque)
{
    int result = atomic_load(&real_lifecycle)(conn, domain, event, detail, opaque);

    atomic_fetch_add(&returned, 1);
    return result;
}

static void give_back(void *opaque)
{
    (void)atomic_load(&returned);
    atomic_load (&real_release)(opaque);
}

/* What pcmig registered for the end of a job. */
static virConnectDomainEventJobCompletedCallback job_completed;
static void *job_opaque;

int virConnectDomainEventRegisterAny(virConnectPtr conn, virDomainPtr dom, int eventID,
                                     virConnectDomainEventGenericCallback cb, void *opaque, virFreeCallback freecb)
{
    if (atomic_fetch_sub(&registrations_left, 1) == 0)
        return -1;
    if (eventID == VIR_DOMAIN_EVENT_ID_LIFECYCLE) {
        atomic_store(&real_lifecycle, (virConnectDomainEventCallback)(void (*)(void))cb);
        atomic_store(&real_release, freecb);
        cb = VIR_DOMAIN_EVENT_CALLBACK(lifecycle);
        freecb = give_back;
    }
    if (eventID == VIR_DOMAIN_EVENT_ID_JOB_COMPLETED)
        job_completed = (virConnectDomainEventJobCompletedCallback)(void (*)(void))cb, job_opaque = opaque;
    return NEXT(register_fn, "virConnectDomainEventRegisterAny")(conn, dom, eventID, cb, opaque, freecb);
}

int virConnectClose(virConnectPtr conn)
{
    if (!pthread_equal(pthread_self(), own_thread))
        atomic_fetch_add(&foreign_closes, 1);
    return NEXT(close_fn, "virConnectClose")(conn);
}

static void on_input(void *opaque, const struct pcmig_input *input)
{
    (void)opaque;
    (void)input;
    atomic_fetch_add(&inputs, 1);
    (void)usleep(500); /* so that following ends in the middle of one */
}

static void on_closed(void *opaque)
{
    (void)opaque;
}

static void on_release(void *opaque)
{
    assert_ptr_equal(opaque, &releases);
    atomic_fetch_add(&releases, 1);
}

static const struct pcmig_virt_callbacks callbacks = {on_input, on_closed, on_release};

static struct pcmig_virt_conn *host;
static struct pcmig_virt_domain *guest;

static int open_host(void **state)
{
    struct pcmig_virt_error error = {0};

    (void)state;
    own_thread = pthread_self();
    atomic_store(&registrations_left, -1);
    host = pcmig_virt_open("test:///default", 10000, &error);
    if (host == NULL)
        return -1;
    guest = pcmig_virt_lookup(host, "test", &error);
    return guest != NULL ? 0 : -1;
}

static int close_host(void **state)
{
    (void)state;
    pcmig_virt_domain_free(guest);
    pcmig_virt_close(host);
    return 0;
}

static struct pcmig_virt_watch *watch(void)
{
    struct pcmig_virt_error error = {0};

    atomic_store(&releases, 0);
    return pcmig_virt_watch(host, pcmig_virt_domain_uuid(guest), true, &callbacks, &releases, &error);
}

static void failing_half_way(void **state)
{
    (void)state;
    for (int n = 0; n < 3; n++) {
        atomic_store(&registrations_left, n);
        assert_null(watch());
        assert_int_equal(atomic_load(&releases), 1);
    }
}

/* Events come from another thread than the one that stops listening. */
static void *make_events(void *arg)
{
    virConnectPtr own = virConnectOpen("test:///default");
    virDomainPtr domain = own != NULL ? virDomainLookupByName(own, "test") : NULL;

    while (domain != NULL && !atomic_load((atomic_bool *)arg)) {
        (void)virDomainSuspend(domain);
        (void)virDomainResume(domain);
        (void)usleep(200);
    }
    if (domain != NULL)
        (void)virDomainFree(domain);
    if (own != NULL)
        (void)NEXT(close_fn, "virConnectClose")(own);
    return NULL;
}

static void released_once_and_closed_here(void **state)
{
    atomic_bool over = false;
    pthread_t thread;

    (void)state;
    atomic_store(&inputs, 0);
    atomic_store(&foreign_closes, 0);
    assert_int_equal(pthread_create(&thread, NULL, make_events, &over), 0);
    for (int i = 0; i < 60 || (atomic_load(&inputs) == 0 && i < 40000); i++) {
        struct pcmig_virt_watch *w = watch();

        assert_non_null(w);
        assert_int_equal(atomic_load(&releases), 0);
        (void)usleep((useconds_t)(i % 10) * 300);
        pcmig_virt_unwatch(w);
        assert_int_equal(atomic_load(&releases), 1);
    }
    atomic_store(&over, true);
    (void)pthread_join(thread, NULL);
    assert_true(atomic_load(&inputs) > 0);
    assert_int_equal(atomic_load(&foreign_closes), 0);
}

/* The end of a backup is none of a migration. */
static void end_of_another_job(void **state)
{
    static const struct {
        int operation; /* -1 = libvirt does not tell */
        int inputs;    /* the event and its figures */
    } rows[] = {
        {VIR_DOMAIN_JOB_OPERATION_BACKUP, 0},
        {VIR_DOMAIN_JOB_OPERATION_SNAPSHOT, 0},
        {-1, 2},
        {VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT, 2},
    };
    virConnectPtr own = virConnectOpen("test:///default");
    virDomainPtr domain = virDomainLookupByName(own, "test");
    struct pcmig_virt_watch *w = watch();

    (void)state;
    assert_non_null(domain);
    assert_non_null(w);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        virTypedParameterPtr params = NULL;
        int count = 0, capacity = 0;

        atomic_store(&inputs, 0);
        if (rows[i].operation >= 0)
            assert_int_equal(
                virTypedParamsAddInt(&params, &count, &capacity, VIR_DOMAIN_JOB_OPERATION, rows[i].operation), 0);
        job_completed(own, domain, params, count, job_opaque);
        assert_int_equal(atomic_load(&inputs), rows[i].inputs);
        virTypedParamsFree(params, count);
    }
    pcmig_virt_unwatch(w);
    (void)virDomainFree(domain);
    (void)NEXT(close_fn, "virConnectClose")(own);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(failing_half_way, open_host, close_host),
        cmocka_unit_test_setup_teardown(released_once_and_closed_here, open_host, close_host),
        cmocka_unit_test_setup_teardown(end_of_another_job, open_host, close_host),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
