/* SPDX-License-Identifier: Apache-2.0 */
/* Connecting, and refusing before the guest is touched. */
#include "core/flags.h"
#include "core/guard.h"
#include "core/host_page.h"
#include "core/shell.h"
#include "edge/this_host.h"
#include "engine/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* QEMU below this misses dirty pages under software emulation and corrupts the guest in any migration (fixed by
 * "physmem: Fix migration dirty bitmap coherency with TCG memory access" in 9.0). */
#define QEMU_SAFE_EMULATION 9000000UL

static void on_input(void *opaque, const struct pcmig_input *input)
{
    pcmig_migration_post(opaque, input);
}

static void on_closed(struct pcmig_migration *migration, enum pcmig_side side)
{
    pthread_mutex_lock(&migration->lock);
    migration->mailbox.closed[side] = true;
    pthread_cond_broadcast(&migration->cond);
    pthread_mutex_unlock(&migration->lock);
}

static void on_source_closed(void *opaque)
{
    on_closed(opaque, PCMIG_SIDE_SOURCE);
}

static void on_destination_closed(void *opaque)
{
    on_closed(opaque, PCMIG_SIDE_DESTINATION);
}

static void on_release(void *opaque)
{
    pcmig_migration_unref(opaque);
}

int pcmig_preflight_follow(struct pcmig_migration *migration, enum pcmig_side side, struct pcmig_virt_conn *conn,
                           struct pcmig_virt_domain **domain, struct pcmig_virt_watch **watch,
                           struct pcmig_virt_error *error)
{
    static const struct pcmig_virt_callbacks callbacks[] = {
        [PCMIG_SIDE_SOURCE] = {on_input, on_source_closed, on_release},
        [PCMIG_SIDE_DESTINATION] = {on_input, on_destination_closed, on_release},
    };

    /* A daemon that has just been started may not know it yet: it is looked up again later. */
    if (side == PCMIG_SIDE_SOURCE && *domain == NULL)
        *domain = pcmig_virt_lookup(conn, migration->uuid, error);
    pcmig_migration_ref(migration); /* on_release gives it back, also when this fails */
    *watch = pcmig_virt_watch(conn, migration->uuid, side == PCMIG_SIDE_SOURCE, &callbacks[side], migration, error);
    return *watch != NULL ? 0 : -1;
}

static int open_end(struct pcmig_migration *migration, enum pcmig_side side, struct pcmig_virt_error *error)
{
    const struct pcmig_migration_args *args = &migration->args;
    const char *uri = side == PCMIG_SIDE_SOURCE ? args->source_uri : args->dest_uri;
    struct pcmig_virt_domain *none = NULL;

    migration->conn[side] = pcmig_virt_open(uri, args->connect_timeout_ms, error);
    if (migration->conn[side] == NULL)
        return -1;
    /* From here on it is known by its UUID: after a reconnect its name might mean another guest. */
    if (side == PCMIG_SIDE_SOURCE && migration->uuid[0] == '\0') {
        migration->domain = pcmig_virt_lookup(migration->conn[side], args->domain, error);
        if (migration->domain == NULL)
            return -1;
        snprintf(migration->uuid, sizeof(migration->uuid), "%s", pcmig_virt_domain_uuid(migration->domain));
    }
    return pcmig_preflight_follow(migration, side, migration->conn[side],
                                  side == PCMIG_SIDE_SOURCE ? &migration->domain : &none, &migration->watch[side],
                                  error);
}

static void close_destination(struct pcmig_migration *migration)
{
    pcmig_virt_unwatch(migration->watch[PCMIG_SIDE_DESTINATION]);
    migration->watch[PCMIG_SIDE_DESTINATION] = NULL;
    pcmig_virt_close(migration->conn[PCMIG_SIDE_DESTINATION]);
    migration->conn[PCMIG_SIDE_DESTINATION] = NULL;
}

static int check_emulation(struct pcmig_migration *migration, struct pcmig_virt_error *error)
{
    int emulated = pcmig_virt_domain_emulated(migration->domain, error);

    if (emulated < 0)
        return -1;
    for (int side = 0; emulated == 1 && side < PCMIG_SIDE_COUNT; side++) {
        unsigned long libvirt, qemu;

        if (migration->conn[side] == NULL)
            continue;
        if (pcmig_virt_versions(migration->conn[side], &libvirt, &qemu, error) < 0)
            return -1;
        if (qemu != 0 && qemu < QEMU_SAFE_EMULATION) {
            pcmig_virt_error_set(
                error, PCMIG_VIRT_FAILURE_UNSUPPORTED,
                "guest %s runs in software emulation (TCG) and the %s has QEMU %lu.%lu.%lu: QEMU before 9.0 "
                "misses dirty pages there and corrupts the guest; use QEMU 9.0 or newer, or KVM",
                migration->name, pcmig_side_name((enum pcmig_side)side), qemu / 1000000, qemu / 1000 % 1000,
                qemu % 1000);
            return -1;
        }
    }
    return 0;
}

/* Asks both. */
static int find(struct pcmig_migration *migration, struct pcmig_preflight_found *found, struct pcmig_virt_error *error)
{
    struct pcmig_virt_conn *const *conn = migration->conn;
    enum pcmig_half *half = found->half;
    struct pcmig_virt_error unsaid = {0};

    if (pcmig_virt_half(conn[PCMIG_SIDE_SOURCE], migration->uuid, &half[PCMIG_SIDE_SOURCE], error) < 0)
        return -1;
    if (conn[PCMIG_SIDE_DESTINATION] != NULL) {
        if (pcmig_virt_half(conn[PCMIG_SIDE_DESTINATION], migration->uuid, &half[PCMIG_SIDE_DESTINATION], error) < 0)
            return -1;
        found->saved = pcmig_virt_saved(conn[PCMIG_SIDE_DESTINATION], migration->uuid);
    }
    found->job_told = pcmig_virt_job(migration->domain, &found->job, &unsaid) == 0;
    return 0;
}

static int check_halves(struct pcmig_migration *migration, const struct pcmig_preflight_found *found,
                        struct pcmig_virt_error *error)
{
    enum pcmig_half half = found->half[PCMIG_SIDE_SOURCE];

    migration->paused = half == PCMIG_HALF_PAUSED;
    if (half != PCMIG_HALF_RUNNING && half != PCMIG_HALF_PAUSED) {
        static const char *const hints[PCMIG_HALF_COUNT] = {
            [PCMIG_HALF_ABSENT] = "shut off: start it, or copy its definition instead",
            [PCMIG_HALF_MIGRATING] = "in the middle of another migration",
            [PCMIG_HALF_POSTCOPY] = "in post-copy already: follow it with pcmig watch",
            [PCMIG_HALF_POSTCOPY_FAILED] =
                "in a post-copy migration that was interrupted: pcmig resume goes on with it",
            [PCMIG_HALF_DEAD] = "crashed or shutting down",
        };

        pcmig_virt_error_set(error, PCMIG_VIRT_FAILURE_INVALID, "guest %s is not running: it is %s", migration->name,
                             hints[half] != NULL ? hints[half] : "in a state that is not known");
        return -1;
    }
    half = found->half[PCMIG_SIDE_DESTINATION];
    if (half != PCMIG_HALF_ABSENT && half != PCMIG_HALF_UNKNOWN) {
        static const char *const hints[PCMIG_HALF_COUNT] = {
            [PCMIG_HALF_RUNNING] = "is it the same host as the source?",
            [PCMIG_HALF_MIGRATING] = "another migration of it is under way, pcmig watch shows it at the source",
            [PCMIG_HALF_POSTCOPY] = "another migration of it is under way, pcmig watch shows it at the source",
            [PCMIG_HALF_POSTCOPY_FAILED] = "another migration of it was interrupted: pcmig resume goes on with it",
        };

        pcmig_virt_error_set(error, PCMIG_VIRT_FAILURE_INVALID, "%s has guest %s already (%s): %s",
                             migration->args.dest_uri, migration->name, pcmig_half_name(half),
                             hints[half] != NULL ? hints[half] : "see what it is with virsh domstate --reason");
        return -1;
    }
    return 0;
}

/* libvirt has one job for a guest at a time, and would wait 30 s for one that may take hours. What is short it may wait
 * for. */
static int check_job(struct pcmig_migration *migration, const struct pcmig_preflight_found *found,
                     struct pcmig_virt_error *error)
{
    const char *const abort[] = {"virsh", "-c", migration->args.source_uri, "domjobabort",
                                 pcmig_shell_guest(migration->name, migration->uuid)};
    const struct pcmig_virt_job *job = &found->job;
    char command[256];

    if (!found->job_told)
        return 0;
    /* To whatever destination: steering it, or cancelling it, is for whoever began it. */
    if (job->kind == PCMIG_VIRT_JOB_MIGRATION) {
        pcmig_virt_error_set(error, PCMIG_VIRT_FAILURE_INVALID,
                             "another migration of guest %.100s is under way, pcmig watch shows it", migration->name);
        return -1;
    }
    if (job->kind != PCMIG_VIRT_JOB_OTHER || !job->lasts)
        return 0;
    pcmig_virt_error_set(error, PCMIG_VIRT_FAILURE_INVALID,
                         "libvirt runs a job for guest %.100s, %s, and has one at a time: wait until it has ended%s%s",
                         migration->name, job->name,
                         pcmig_shell_command(abort, sizeof(abort) / sizeof(abort[0]), command, sizeof(command))
                             ? "; what would end it: "
                             : "",
                         command);
    return -1;
}

/* libvirt keeps it through the migration and loads it when the guest is started next: the memory of then, over disks
 * that have gone on. Seen with libvirt 12.8. */
static int check_saved(struct pcmig_migration *migration, const struct pcmig_preflight_found *found,
                       struct pcmig_virt_error *error)
{
    const char *const forget[] = {"virsh", "-c", migration->args.dest_uri, "managedsave-remove", migration->uuid};
    char command[256];

    if (!found->saved)
        return 0;
    pcmig_virt_error_set(
        error, PCMIG_VIRT_FAILURE_INVALID,
        "the destination has a saved state of guest %.100s from an earlier stay, and would load it when the guest is "
        "started there next: remove it%s%s",
        migration->name,
        pcmig_shell_command(forget, sizeof(forget) / sizeof(forget[0]), command, sizeof(command)) ? ": " : "", command);
    return -1;
}

/* A guest that is paused dirties nothing: pre-copy moves it in one pass, and it arrives paused. */
static int plan_paused(struct pcmig_migration *migration, struct pcmig_virt_error *error)
{
    struct pcmig_policy *policy;

    if (!migration->paused)
        return 0;
    migration->args.flags &= ~(unsigned int)PCMIG_FLAG_POSTCOPY;
    if (migration->args.policy == PCMIG_POLICY_NEVER)
        return 0;
    policy = pcmig_policy_new(PCMIG_POLICY_NEVER, &migration->args.params, migration->args.gated);
    if (policy == NULL) {
        pcmig_virt_error_set(error, PCMIG_VIRT_FAILURE_OTHER, "out of memory");
        return -1;
    }
    pcmig_policy_free(migration->policy);
    migration->policy = policy;
    migration->args.policy = PCMIG_POLICY_NEVER;
    return 0;
}

/* What waits on the way. Without either of the two that is not known. */
void pcmig_preflight_queue(struct pcmig_migration *migration)
{
    const struct pcmig_migration_args *args = &migration->args;

    if (args->tunnel_control != NULL && args->migrate_uri != NULL)
        migration->tunnel = pcmig_tunnel_queue_open(args->tunnel_control, args->migrate_uri);
    if (migration->tunnel == NULL)
        migration->link = pcmig_link_open(&(struct pcmig_link_args){
            .uuid = migration->uuid,
            .adopted = args->adopt,
            /* There we reach what libvirtd reaches, and see QEMU's sockets. */
            .at_source = pcmig_this_host(args->source_uri),
            .migrate_uri = args->migrate_uri,
            .resume_uris = args->resume_uris,
        });
}

static void note_host_page(struct pcmig_migration *migration)
{
    struct pcmig_virt_error ignored = {0};
    char *xml = pcmig_virt_domain_xml(migration->domain, &ignored);

    migration->host_page_bytes = pcmig_host_page_bytes(xml);
    free(xml);
}

int pcmig_preflight(struct pcmig_migration *migration, struct pcmig_virt_error *error)
{
    const struct pcmig_migration_args *args = &migration->args;
    struct pcmig_preflight_found found = {0};

    if (open_end(migration, PCMIG_SIDE_SOURCE, error) < 0) {
        if (pcmig_virt_classify(error) != PCMIG_VIRT_FAILURE_NO_DOMAIN)
            pcmig_virt_error_explain(error, "cannot connect to the source", args->source_uri);
        return -1;
    }
    migration->name = strdup(pcmig_virt_domain_name(migration->domain));
    if (migration->name == NULL) {
        pcmig_virt_error_set(error, PCMIG_VIRT_FAILURE_OTHER, "out of memory");
        return -1;
    }
    if (open_end(migration, PCMIG_SIDE_DESTINATION, error) < 0) {
        close_destination(migration);
        if (pcmig_this_host(args->source_uri) && !args->destination_optional) {
            pcmig_virt_error_explain(error, "cannot connect to the destination", args->dest_uri);
            return -1;
        }
        /* The source host may well reach it where we do not; its events and state are then not seen. */
        memset(error, 0, sizeof(*error));
    }
    if (find(migration, &found, error) < 0 || check_halves(migration, &found, error) < 0 ||
        check_saved(migration, &found, error) < 0 || check_job(migration, &found, error) < 0 ||
        check_emulation(migration, error) < 0 || plan_paused(migration, error) < 0)
        return -1;
    note_host_page(migration);
    migration->vcpus = pcmig_virt_domain_vcpus(migration->domain);
    pcmig_latency_arrange(migration);
    migration->call_conn = pcmig_virt_open(args->source_uri, args->connect_timeout_ms, error);
    if (migration->call_conn == NULL) {
        pcmig_virt_error_explain(error, "cannot connect to the source", args->source_uri);
        return -1;
    }
    migration->call_domain = pcmig_virt_lookup(migration->call_conn, migration->uuid, error);
    return migration->call_domain != NULL ? 0 : -1;
}

int pcmig_preflight_again(struct pcmig_migration *migration, const struct pcmig_preflight_found *found,
                          struct pcmig_virt_error *error)
{
    return check_halves(migration, found, error) < 0 || check_saved(migration, found, error) < 0 ||
                   check_job(migration, found, error) < 0 || plan_paused(migration, error) < 0
               ? -1
               : 0;
}

int pcmig_preflight_adopt(struct pcmig_migration *migration, struct pcmig_virt_error *error)
{
    struct pcmig_virt_error ignored = {0};

    if (strlen(migration->args.domain) != PCMIG_VIRT_UUID_SIZE - 1) {
        pcmig_virt_error_set(error, PCMIG_VIRT_FAILURE_INVALID,
                             "\"%s\" is no UUID: a guest that may have moved has no name here", migration->args.domain);
        return -1;
    }
    memcpy(migration->uuid, migration->args.domain, PCMIG_VIRT_UUID_SIZE);
    /* Either may be down, and the guest's half there be gone: that is for the halves to tell. The destination is
     * connected to in the background, so that a host which does not answer keeps nobody from steering. */
    (void)open_end(migration, PCMIG_SIDE_SOURCE, &ignored);
    migration->name =
        strdup(migration->domain != NULL ? pcmig_virt_domain_name(migration->domain) : migration->args.domain);
    if (migration->name == NULL) {
        pcmig_virt_error_set(error, PCMIG_VIRT_FAILURE_OTHER, "out of memory");
        return -1;
    }
    pcmig_preflight_queue(migration);
    return 0;
}
