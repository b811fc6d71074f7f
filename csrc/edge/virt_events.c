/* SPDX-License-Identifier: Apache-2.0 */
/* Events of one guest. See virt.h. Facts on events: libvirt 8.0 to 12.8, include/libvirt/libvirt-domain.h. */
#include "edge/virt.h"

#include "edge/clock.h"
#include "edge/threads.h"
#include "edge/virt_internal.h"

#include <ctype.h>
#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define WATCH_EVENTS    3
/* libvirt gives callbacks back when it deregisters them, or right after the one that runs has returned. */
#define RELEASE_LOOK_MS 1
#define RELEASE_MS      1000
/* An event loop that takes longer is given up. */
#define THROUGH_US      10000000

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
    watch->callbacks.release(watch->opaque);
    free(watch);
}

/* Lets libvirt finish with the callbacks, and gives the connection back: the last reference closes it, which may block,
 * and must not happen on the event thread, which the closing waits for. */
static void watch_close(struct pcmig_virt_watch *watch)
{
    const struct timespec pause = {.tv_nsec = RELEASE_LOOK_MS * 1000000};

    for (int i = 0; i < RELEASE_MS / RELEASE_LOOK_MS && atomic_load(&watch->references) > 1; i++)
        (void)nanosleep(&pause, NULL);
    (void)virConnectClose(watch->conn);
    watch_unref(watch);
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
    {false, VIR_DOMAIN_EVENT_RESUMED, -1, PCMIG_EVENT_DST_RESUMED_OTHER},
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
            struct pcmig_input input = {.kind = PCMIG_INPUT_EVENT,
                                        .code = lifecycle[i].meaning,
                                        .shut_down = event == VIR_DOMAIN_EVENT_STOPPED &&
                                                     detail == VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN,
                                        .paused = event == VIR_DOMAIN_EVENT_SUSPENDED};

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
    if (!watch->source || !watch_wants(watch, domain) || !pcmig_virt_params_of_migration(params, count))
        return;
    watch->callbacks.input(watch->opaque, &input);
    /* A cancelled job completes too, with success = 0 and the figures of the part that was done. */
    (void)virTypedParamsGetBoolean(params, count, VIR_DOMAIN_JOB_SUCCESS, &success);
    if (!success)
        return;
    input.kind = PCMIG_INPUT_FINAL;
    input.code = 0;
    pcmig_virt_sample_from_params(&input.sample, params, count);
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
        pcmig_virt_error_code(error, VIR_ERR_NO_MEMORY, "out of memory");
        callbacks->release(opaque);
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
        watch_unref(watch);
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
            pcmig_virt_unwatch(watch); /* which releases, once no callback that did register can follow */
            return NULL;
        }
    }
    atomic_fetch_add(&watch->references, 1);
    atomic_store(&watch->close_registered, true);
    if (virConnectRegisterCloseCallback(watch->conn, on_closed, watch, close_unref) < 0)
        close_unref(watch); /* only the notice of a broken connection is lost; calls report it too */
    return watch;
}

void pcmig_virt_watch_mute(struct pcmig_virt_watch *watch)
{
    if (watch != NULL)
        atomic_store(&watch->stopped, true);
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
    watch_close(watch);
}

/* --- everything was heard ----------------------------------------------------------------------------------------- */

/* Shared by who waits and by the event loop, which lets go of it later. */
struct barrier {
    atomic_int references;
    pthread_cond_t cond; /* CLOCK_MONOTONIC */
    bool reached;
};

static pthread_mutex_t barrier_lock = PTHREAD_MUTEX_INITIALIZER; /* of all of them, which are rare */

static void barrier_unref(void *data)
{
    struct barrier *barrier = data;

    if (atomic_fetch_sub(&barrier->references, 1) != 1)
        return;
    pthread_cond_destroy(&barrier->cond);
    free(barrier);
}

static void on_barrier(int timer, void *opaque)
{
    struct barrier *barrier = opaque;

    (void)virEventRemoveTimeout(timer);
    pthread_mutex_lock(&barrier_lock);
    barrier->reached = true;
    pthread_cond_signal(&barrier->cond);
    pthread_mutex_unlock(&barrier_lock);
}

/* Waits until the event loop has called the callbacks of all events that have come. libvirt's client calls them from a
 * timer of the connection's that is due at once; one that is added later is due after it. */
static bool events_are_through(void)
{
    const int64_t until_us = pcmig_clock_us() + THROUGH_US;
    struct barrier *barrier = calloc(1, sizeof(*barrier));
    bool reached = false, added;

    if (barrier == NULL || pcmig_condition_init(&barrier->cond) != 0) {
        free(barrier);
        return false;
    }
    atomic_init(&barrier->references, 2);
    pthread_mutex_lock(&barrier_lock);
    added = virEventAddTimeout(0, on_barrier, barrier, barrier_unref) >= 0;
    while (added && !barrier->reached) {
        if (!pcmig_clock_wait(&barrier->cond, &barrier_lock, until_us))
            break;
    }
    reached = barrier->reached;
    pthread_mutex_unlock(&barrier_lock);
    if (!added)
        barrier_unref(barrier);
    barrier_unref(barrier);
    return reached;
}

bool pcmig_virt_gone(struct pcmig_virt_conn *conn, const char *uuid)
{
    struct pcmig_virt_error ignored = {0};
    enum pcmig_half half;

    /* What the daemon had to tell of the guest when it first says that there is none, it has queued. Its loop sends
     * that before it turns to what it reads in the turn after the next: the answer to a third question comes behind it.
     */
    for (int i = 0; i < 3; i++) {
        if (pcmig_virt_half(conn, uuid, &half, &ignored) < 0 || half != PCMIG_HALF_ABSENT)
            return false;
    }
    return events_are_through();
}
