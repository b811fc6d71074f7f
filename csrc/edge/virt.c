/* SPDX-License-Identifier: Apache-2.0 */
/* See virt.h. Facts on events and errors: libvirt 8.0 to 12.8, include/libvirt/libvirt-domain.h and virterror.h. */
#include "core/excerpt.h"
#include "edge/clock.h"
#include "edge/threads.h"
#include "edge/virt_internal.h"

#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Two missed answers more than libvirt's own client defaults would need minutes; the daemons use 5 x 5 s too. */
#define KEEPALIVE_INTERVAL_S 2
#define KEEPALIVE_COUNT      5
/* A wait of more than thirty years is one for ever. */
#define OPEN_MAX_MS          INT64_C(1000000000000)

void pcmig_virt_error_take(struct pcmig_virt_error *error)
{
    const virError *last = virGetLastError();

    error->code = last != NULL && last->code != VIR_ERR_OK ? last->code : VIR_ERR_INTERNAL_ERROR;
    error->domain = last != NULL ? last->domain : 0;
    /* Of ssh's words it has the first 1024 bytes, in several lines where a host greets at length. */
    pcmig_excerpt(last != NULL && last->message != NULL ? last->message : "libvirt gave no reason", error->message,
                  sizeof(error->message));
}

void pcmig_virt_error_code(struct pcmig_virt_error *error, int code, const char *message)
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

void pcmig_virt_error_explain(struct pcmig_virt_error *error, const char *what, const char *uri)
{
    char message[sizeof(error->message)], reason[256];

    pcmig_excerpt(error->message, reason, sizeof(reason));
    snprintf(message, sizeof(message), "%.80s %.160s: %s", what, uri, reason);
    memcpy(error->message, message, sizeof(message));
}

/* --- event loop --------------------------------------------------------------------------------------------------- */

/* The thread opens a connection, for which libvirt starts ssh, or another program of the user's. */
static _Thread_local bool opens;

/* Nothing else that it starts may be disturbed: the user's own daemon ("qemu:///session") begins a session by itself,
 * and ends where it cannot. What is no URI is an alias of libvirt's, which may be any. */
static bool starts_ssh(const char *uri)
{
    const char *end = uri != NULL ? strstr(uri, "://") : NULL;
    const char *transport = uri != NULL ? strchr(uri, '+') : NULL;

    if (uri == NULL)
        return false;
    return end == NULL || (transport != NULL && transport < end &&
                           (strncmp(transport, "+ssh", 4) == 0 || strncmp(transport, "+ext", 4) == 0));
}

/* ssh gets a session of its own. In ours, what is typed at the terminal would go to it, too: a Ctrl-C, with which pcmig
 * lets go of a guest that has moved, would end ssh and with it the connection, and so would the end of the terminal. A
 * password, or whether a host key is right, it would ask on that terminal, once for each connection and in the middle
 * of what is shown there; without one it does not ask and says what it lacks. */
static void in_child(void)
{
    if (opens)
        (void)setsid();
}

static pthread_mutex_t init_lock = PTHREAD_MUTEX_INITIALIZER;
static bool initialised;
static bool shared_loop; /* somebody else runs it */

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

bool pcmig_virt_share_event_loop(void)
{
    bool in_time;

    pthread_mutex_lock(&init_lock);
    in_time = !initialised || shared_loop;
    shared_loop = in_time;
    pthread_mutex_unlock(&init_lock);
    return in_time;
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
    if (pthread_atfork(NULL, NULL, in_child) != 0) {
        pcmig_virt_error_code(error, VIR_ERR_NO_MEMORY, "out of memory");
        goto out;
    }
    if (shared_loop) {
        /* The loop runs, and the handler of errors is the process's own as well. */
        initialised = true;
        result = 0;
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
        pcmig_virt_error_code(error, VIR_ERR_SYSTEM_ERROR, "cannot start the libvirt event thread");
        goto out;
    }
    pthread_detach(thread);
    initialised = true;
    result = 0;
out:
    pthread_mutex_unlock(&init_lock);
    return result;
}

/* --- connections -------------------------------------------------------------------------------------------------- */

/* An opening takes a thread for as long as TCP tries (two minutes), and there may be several per migration. */
#define OPENING_STACK_BYTES (512 * 1024)

/* Shared by the caller, who may give up, and the thread that opens; the last one frees it. */
struct pcmig_virt_opening {
    pthread_mutex_t lock;
    pthread_cond_t over_cond;
    char *uri;
    void (*done)(void *opaque);
    void *opaque;
    virConnectPtr conn;
    struct pcmig_virt_error error;
    bool over;
    bool abandoned;
};

static void opening_free(struct pcmig_virt_opening *opening)
{
    pthread_mutex_destroy(&opening->lock);
    pthread_cond_destroy(&opening->over_cond);
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
    struct pcmig_virt_opening *opening = arg;
    virConnectAuth auth = {.credtype = NULL, .ncredtype = 0, .cb = no_credentials, .cbdata = NULL};
    virConnectPtr conn;
    void (*done)(void *opaque) = opening->done;
    void *opaque = opening->opaque;
    struct pcmig_virt_error error = {0};
    bool abandoned;

    opens = starts_ssh(opening->uri);
    conn = virConnectOpenAuth(opening->uri, &auth, 0);
    opens = false;
    if (conn == NULL)
        pcmig_virt_error_take(&error);
    else
        (void)virConnectSetKeepAlive(conn, KEEPALIVE_INTERVAL_S, KEEPALIVE_COUNT); /* local drivers do not have it */

    pthread_mutex_lock(&opening->lock);
    opening->conn = conn;
    opening->error = error;
    opening->over = true;
    abandoned = opening->abandoned;
    pthread_cond_signal(&opening->over_cond);
    pthread_mutex_unlock(&opening->lock);
    if (abandoned) {
        if (conn != NULL)
            virConnectClose(conn);
        opening_free(opening);
    }
    if (done != NULL)
        done(opaque);
    return NULL;
}

struct pcmig_virt_opening *pcmig_virt_open_begin(const char *uri, void (*done)(void *opaque), void *opaque,
                                                 struct pcmig_virt_error *error)
{
    struct pcmig_virt_opening *opening;

    if (pcmig_virt_init(error) < 0)
        return NULL;
    opening = calloc(1, sizeof(*opening));
    if (opening != NULL)
        opening->uri = strdup(uri);
    if (opening == NULL || opening->uri == NULL || pcmig_waiting_init(&opening->lock, &opening->over_cond) != 0) {
        if (opening != NULL)
            free(opening->uri);
        free(opening);
        pcmig_virt_error_code(error, VIR_ERR_NO_MEMORY, "out of memory");
        return NULL;
    }
    opening->done = done;
    opening->opaque = opaque;
    if (pcmig_thread_begin(OPENING_STACK_BYTES, opening_thread, opening) != 0) {
        pcmig_virt_error_code(error, VIR_ERR_SYSTEM_ERROR, "cannot start a thread to connect with");
        opening_free(opening);
        return NULL;
    }
    return opening;
}

/* What became of an opening that is over, which is freed. */
static struct pcmig_virt_conn *opening_take(struct pcmig_virt_opening *opening, struct pcmig_virt_error *error)
{
    struct pcmig_virt_conn *result = NULL;

    *error = opening->error;
    if (opening->conn != NULL) {
        result = calloc(1, sizeof(*result));
        if (result != NULL) {
            result->ptr = opening->conn;
        } else {
            virConnectClose(opening->conn);
            pcmig_virt_error_code(error, VIR_ERR_NO_MEMORY, "out of memory");
        }
    }
    opening_free(opening);
    return result;
}

bool pcmig_virt_open_poll(struct pcmig_virt_opening *opening, struct pcmig_virt_conn **conn,
                          struct pcmig_virt_error *error)
{
    bool over;

    pthread_mutex_lock(&opening->lock);
    over = opening->over;
    pthread_mutex_unlock(&opening->lock);
    if (over)
        *conn = opening_take(opening, error);
    return over;
}

void pcmig_virt_open_abandon(struct pcmig_virt_opening *opening)
{
    struct pcmig_virt_error ignored;
    bool over;

    if (opening == NULL)
        return;
    pthread_mutex_lock(&opening->lock);
    over = opening->over;
    opening->abandoned = !over;
    pthread_mutex_unlock(&opening->lock);
    if (over)
        pcmig_virt_close(opening_take(opening, &ignored));
}

struct pcmig_virt_conn *pcmig_virt_open(const char *uri, int64_t timeout_ms, struct pcmig_virt_error *error)
{
    const int64_t until_us = pcmig_clock_us() + (timeout_ms < OPEN_MAX_MS ? timeout_ms : OPEN_MAX_MS) * 1000;
    struct pcmig_virt_opening *opening = pcmig_virt_open_begin(uri, NULL, NULL, error);
    bool over;

    if (opening == NULL)
        return NULL;
    pthread_mutex_lock(&opening->lock);
    while (!opening->over) {
        if (!pcmig_clock_wait(&opening->over_cond, &opening->lock, until_us))
            break;
    }
    over = opening->over;
    opening->abandoned = !over;
    pthread_mutex_unlock(&opening->lock);
    if (over)
        return opening_take(opening, error);
    snprintf(error->message, sizeof(error->message), "no answer from %s within %.1f s", uri,
             (double)timeout_ms / 1000.0);
    error->code = VIR_ERR_NO_CONNECT;
    error->domain = 0;
    return NULL;
}

void pcmig_virt_close(struct pcmig_virt_conn *conn)
{
    if (conn == NULL)
        return;
    (void)virConnectClose(conn->ptr);
    free(conn);
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
