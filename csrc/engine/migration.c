/* SPDX-License-Identifier: Apache-2.0 */
/* See migration.h: life of a migration, its mailbox and its snapshot. What it does is in control.c. */
#include "engine/migration.h"

#include "core/trace.h"
#include "core/version.h"
#include "edge/clock.h"
#include "edge/threads.h"
#include "engine/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* A mailbox as long as this has no reader; iteration events are the only ones that could come in such numbers. */
#define MAILBOX_MAX 4096
/* A wait of more than thirty years is one for ever. */
#define JOIN_MAX_MS INT64_C(1000000000000)
/* Threads are many (two per migration, beside its askers) and need little; libvirt's RPC is the deepest thing they
 * call. */
#define STACK_BYTES (512 * 1024)

static char *copy_string(const char *text, bool *failed)
{
    char *copy;

    if (text == NULL)
        return NULL;
    copy = strdup(text);
    if (copy == NULL)
        *failed = true;
    return copy;
}

/* A NULL-terminated copy; NULL where there is none. */
static char **copy_list(const char *const *list, bool *failed)
{
    size_t n = 0;
    char **copy;

    if (list == NULL)
        return NULL;
    while (list[n] != NULL)
        n++;
    copy = calloc(n + 1, sizeof(*copy));
    if (copy == NULL) {
        *failed = true;
        return NULL;
    }
    for (size_t i = 0; i < n; i++)
        copy[i] = copy_string(list[i], failed);
    return copy;
}

static void free_list(char **list)
{
    for (size_t i = 0; list != NULL && list[i] != NULL; i++)
        free(list[i]);
    free(list);
}

static bool copy_args(struct pcmig_migration *migration, const struct pcmig_migration_args *args)
{
    struct pcmig_migration_args *copy = &migration->args;
    bool failed = false;

    *copy = *args;
    copy->source_uri = copy_string(args->source_uri, &failed);
    copy->domain = copy_string(args->domain, &failed);
    copy->dest_uri = copy_string(args->dest_uri, &failed);
    copy->migrate_uri = copy_string(args->migrate_uri, &failed);
    copy->dest_name = copy_string(args->dest_name, &failed);
    copy->listen_address = copy_string(args->listen_address, &failed);
    copy->disks_uri = copy_string(args->disks_uri, &failed);
    copy->dest_xml = copy_string(args->dest_xml, &failed);
    copy->persist_xml = copy_string(args->persist_xml, &failed);
    copy->tls_destination = copy_string(args->tls_destination, &failed);
    copy->trace_path = copy_string(args->trace_path, &failed);
    copy->tunnel_control = copy_string(args->tunnel_control, &failed);
    migration->disks = copy_list(args->disks, &failed);
    copy->disks = (const char *const *)migration->disks;
    migration->resume_uris = copy_list(args->resume_uris, &failed);
    copy->resume_uris = (const char *const *)migration->resume_uris;
    return !failed;
}

static void free_args(struct pcmig_migration *migration)
{
    struct pcmig_migration_args *args = &migration->args;

    free((char *)args->source_uri);
    free((char *)args->domain);
    free((char *)args->dest_uri);
    free((char *)args->migrate_uri);
    free((char *)args->dest_name);
    free((char *)args->listen_address);
    free((char *)args->disks_uri);
    free((char *)args->dest_xml);
    free((char *)args->persist_xml);
    free((char *)args->tls_destination);
    free((char *)args->trace_path);
    free((char *)args->tunnel_control);
    free_list(migration->disks);
    free_list(migration->resume_uris);
}

struct pcmig_migration *pcmig_migration_new(const struct pcmig_migration_args *args)
{
    struct pcmig_migration *migration = calloc(1, sizeof(*migration));
    int saved = ENOMEM;

    if (migration == NULL)
        return NULL;
    atomic_init(&migration->references, 1);
    migration->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (migration->event_fd < 0) {
        saved = errno;
        goto err0;
    }
    migration->left_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (migration->left_fd < 0) {
        saved = errno;
        close(migration->event_fd);
        goto err0;
    }
    if (!copy_args(migration, args))
        goto err1;
    migration->policy = pcmig_policy_new(args->policy, &args->params, args->gated);
    if (migration->policy == NULL)
        goto err1;
    migration->ledger = pcmig_ledger_new();
    atomic_init(&migration->sampled_us, -1);
    pcmig_forecast_init(&migration->forecast, pcmig_policy_switches(args->policy));
    migration->status.forecast = migration->forecast;
    migration->status.downtime_events_us = migration->status.downtime_reported_ms = -1;
    if (migration->ledger == NULL)
        goto err2;
    saved = pcmig_waiting_init(&migration->lock, &migration->cond);
    if (saved != 0)
        goto err3;
    migration->mailbox.new_bound_mib = -1;
    migration->status.pace_mib = -1;
    migration->status.switch_late_us = -1;
    migration->status.gate = pcmig_policy_gate(migration->policy);
    migration->status.sample.queue_bytes = -1;
    migration->start_us = pcmig_clock_us();
    return migration;

err3:
    pcmig_ledger_free(migration->ledger);
err2:
    pcmig_policy_free(migration->policy);
err1:
    free_args(migration);
    close(migration->left_fd);
    close(migration->event_fd);
err0:
    free(migration);
    errno = saved;
    return NULL;
}

struct pcmig_migration *pcmig_migration_ref(struct pcmig_migration *migration)
{
    atomic_fetch_add(&migration->references, 1);
    return migration;
}

void pcmig_migration_unref(struct pcmig_migration *migration)
{
    if (migration == NULL || atomic_fetch_sub(&migration->references, 1) != 1)
        return;
    pthread_mutex_destroy(&migration->lock);
    pthread_cond_destroy(&migration->cond);
    pcmig_policy_free(migration->policy);
    pcmig_ledger_free(migration->ledger);
    if (migration->trace != NULL)
        (void)fclose(migration->trace);
    free(migration->mailbox.inputs);
    free(migration->decisions);
    free(migration->name);
    free_args(migration);
    close(migration->left_fd);
    close(migration->event_fd);
    free(migration);
}

static int open_trace(struct pcmig_migration *migration)
{
    char line[PCMIG_TRACE_LINE_MAX];

    if (migration->args.trace_path == NULL)
        return 0;
    migration->trace = fopen(migration->args.trace_path, "we");
    if (migration->trace == NULL)
        return -1;
    (void)pcmig_trace_write_header(line, sizeof(line));
    if (fputs(line, migration->trace) == EOF)
        return -1;
    (void)pcmig_trace_write_writer(line, sizeof(line), PCMIG_VERSION);
    return fputs(line, migration->trace) == EOF || fflush(migration->trace) == EOF ? -1 : 0;
}

int pcmig_migration_start(struct pcmig_migration *migration)
{
    bool before, no_trace;
    int failure;

    pthread_mutex_lock(&migration->lock);
    before = migration->started;
    migration->started = true;
    if (!before)
        migration->start_us = pcmig_clock_us(); /* read under the lock from now on, by whoever asks for the status */
    pthread_mutex_unlock(&migration->lock);
    if (before) {
        errno = EALREADY;
        return -1;
    }
    no_trace = open_trace(migration) < 0;
    failure = no_trace ? errno : 0;
    if (failure == 0) {
        pcmig_migration_ref(migration);
        failure = pcmig_thread_begin(STACK_BYTES, pcmig_control_main, migration);
        if (failure != 0)
            pcmig_migration_unref(migration);
    }
    if (failure != 0) {
        if (migration->trace != NULL)
            (void)fclose(migration->trace);
        migration->trace = NULL;
        pthread_mutex_lock(&migration->lock);
        migration->started = false;
        pthread_mutex_unlock(&migration->lock);
        errno = failure;
        return no_trace ? -2 : -1;
    }
    return 0;
}

const char *pcmig_migration_trace_path(const struct pcmig_migration *migration)
{
    return migration->args.trace_path;
}

bool pcmig_migration_started(struct pcmig_migration *migration)
{
    bool started;

    pthread_mutex_lock(&migration->lock);
    started = migration->started;
    pthread_mutex_unlock(&migration->lock);
    return started;
}

const char *pcmig_recovery_state_name(enum pcmig_recovery_state state)
{
    static const char *const names[] = {
        [PCMIG_RECOVERY_STATE_NONE] = "none",
        [PCMIG_RECOVERY_STATE_WAITING] = "waiting",
        [PCMIG_RECOVERY_STATE_RESUMING] = "resuming",
        [PCMIG_RECOVERY_STATE_HELD] = "held",
    };
    _Static_assert(sizeof(names) / sizeof(names[0]) == PCMIG_RECOVERY_STATE_COUNT, "every state has a name");

    return (unsigned)state < PCMIG_RECOVERY_STATE_COUNT ? names[state] : "unknown";
}

int64_t pcmig_migration_now_us(const struct pcmig_migration *migration)
{
    return pcmig_clock_us() - migration->start_us;
}

int pcmig_migration_fd(const struct pcmig_migration *migration)
{
    return migration->event_fd;
}

int pcmig_migration_left_fd(const struct pcmig_migration *migration)
{
    return migration->left_fd;
}

void pcmig_migration_tell_left(struct pcmig_migration *migration)
{
    /* As below. */
    if (eventfd_write(migration->left_fd, 1) < 0)
        return;
}

void pcmig_migration_notify(struct pcmig_migration *migration)
{
    /* Fails only when the counter is at its maximum, and then the descriptor is readable as it is. */
    if (eventfd_write(migration->event_fd, 1) < 0)
        return;
}

void pcmig_migration_clear(struct pcmig_migration *migration)
{
    eventfd_t value;

    /* Fails only when there is no news, which is what the caller wants. */
    if (eventfd_read(migration->event_fd, &value) < 0)
        return;
}

void pcmig_migration_post(struct pcmig_migration *migration, const struct pcmig_input *input)
{
    struct pcmig_mailbox *mailbox = &migration->mailbox;

    pthread_mutex_lock(&migration->lock);
    if (mailbox->count == mailbox->capacity && mailbox->count < MAILBOX_MAX) {
        size_t capacity = mailbox->capacity == 0 ? 16 : mailbox->capacity * 2;
        struct pcmig_input *inputs = realloc(mailbox->inputs, capacity * sizeof(*inputs));

        if (inputs != NULL) {
            mailbox->inputs = inputs;
            mailbox->capacity = capacity;
        }
    }
    if (mailbox->count < mailbox->capacity) {
        mailbox->inputs[mailbox->count] = *input;
        mailbox->inputs[mailbox->count].t_us = pcmig_migration_now_us(migration);
        mailbox->count++;
    } else {
        mailbox->lost++;
    }
    pthread_cond_broadcast(&migration->cond);
    pthread_mutex_unlock(&migration->lock);
}

void pcmig_migration_answered(struct pcmig_migration *migration)
{
    pthread_mutex_lock(&migration->lock);
    migration->mailbox.answered = true;
    pthread_cond_broadcast(&migration->cond);
    pthread_mutex_unlock(&migration->lock);
}

/* Posts an input from outside. Returns 0, or -1 when the migration was not started or is over. */
static int tell(struct pcmig_migration *migration, enum pcmig_input_kind kind, int64_t code)
{
    struct pcmig_input input = {.kind = kind, .code = code};
    bool possible;

    pthread_mutex_lock(&migration->lock);
    possible = migration->started && !migration->over;
    pthread_mutex_unlock(&migration->lock);
    if (!possible)
        return -1;
    pcmig_migration_post(migration, &input);
    return 0;
}

int pcmig_migration_request(struct pcmig_migration *migration, enum pcmig_request request)
{
    return tell(migration, PCMIG_INPUT_REQUEST, request);
}

int pcmig_migration_downtime_limit(struct pcmig_migration *migration, int64_t ms)
{
    return tell(migration, PCMIG_INPUT_DOWNTIME_LIMIT, ms);
}

int pcmig_migration_set_bandwidth(struct pcmig_migration *migration, int64_t mib)
{
    bool possible;

    pthread_mutex_lock(&migration->lock);
    possible = migration->started && !migration->over;
    if (possible) {
        migration->mailbox.new_bound_mib = mib;
        pthread_cond_broadcast(&migration->cond);
    }
    pthread_mutex_unlock(&migration->lock);
    return possible ? 0 : -1;
}

void pcmig_migration_status(struct pcmig_migration *migration, struct pcmig_migration_status *out)
{
    pthread_mutex_lock(&migration->lock);
    *out = migration->status;
    if (migration->started && !migration->over)
        out->elapsed_us = pcmig_migration_now_us(migration);
    out->decisions = migration->decision_count;
    pthread_mutex_unlock(&migration->lock);
}

size_t pcmig_migration_decisions(struct pcmig_migration *migration, size_t first, struct pcmig_decision *out,
                                 size_t max)
{
    size_t n = 0;

    pthread_mutex_lock(&migration->lock);
    if (first < migration->decision_count) {
        n = migration->decision_count - first;
        if (n > max)
            n = max;
        memcpy(out, migration->decisions + first, n * sizeof(*out));
    }
    pthread_mutex_unlock(&migration->lock);
    return n;
}

struct pcmig_ledger *pcmig_migration_ledger(struct pcmig_migration *migration)
{
    struct pcmig_ledger *copy;

    pthread_mutex_lock(&migration->lock);
    copy = pcmig_ledger_copy(migration->ledger);
    pthread_mutex_unlock(&migration->lock);
    return copy;
}

bool pcmig_migration_join(struct pcmig_migration *migration, int64_t timeout_ms)
{
    int64_t until_us;
    bool over;

    if (timeout_ms > JOIN_MAX_MS)
        timeout_ms = -1;
    until_us = pcmig_clock_us() + timeout_ms * 1000;
    pthread_mutex_lock(&migration->lock);
    while (!migration->over) {
        if (timeout_ms < 0) {
            pthread_cond_wait(&migration->cond, &migration->lock);
        } else if (!pcmig_clock_wait(&migration->cond, &migration->lock, until_us)) {
            break;
        }
    }
    over = migration->over;
    pthread_mutex_unlock(&migration->lock);
    return over;
}
