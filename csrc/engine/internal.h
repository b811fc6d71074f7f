/* SPDX-License-Identifier: Apache-2.0 */
/* One migration's own memory, shared by the files of the engine. What only the control thread has is in control.h. */
#ifndef PCMIG_ENGINE_INTERNAL_H
#define PCMIG_ENGINE_INTERNAL_H

#include "edge/link.h"
#include "edge/tunnel_queue.h"
#include "engine/migration.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

/* What the event thread, Python threads and the call thread tell the control thread. */
struct pcmig_mailbox {
    struct pcmig_input *inputs;
    size_t count;
    size_t capacity;
    unsigned lost; /* inputs that memory was too short for */
    bool call_returned;
    bool call_succeeded;
    struct pcmig_virt_error call_error;
    bool closed[PCMIG_SIDE_COUNT]; /* the connection broke */
    bool answered;                 /* what was asked for in the background has come to something */
    int64_t new_bound_mib;         /* -1 = none */
};

struct pcmig_migration {
    atomic_int references;
    int event_fd;
    int left_fd;

    /* The arguments, copied; read-only from the start on, but for what preflight makes of a paused guest. */
    struct pcmig_migration_args args;
    char **disks;
    char **resume_uris;

    pthread_mutex_t lock;
    pthread_cond_t cond; /* CLOCK_MONOTONIC; new mail, or an outcome */

    /* Guarded by the lock. */
    bool started;
    bool over;
    struct pcmig_mailbox mailbox;
    struct pcmig_migration_status status;
    struct pcmig_decision *decisions;
    size_t decision_count;
    size_t decision_capacity;
    struct pcmig_ledger *ledger;
    struct pcmig_forecast forecast;

    /* Set before the threads start, or by the control thread alone. */
    int64_t start_us;
    struct pcmig_policy *policy;
    FILE *trace;
    /* For control and events, before the migration; NULL = none, or not reachable from here. Then they are the askers'
     * (ask.h). */
    struct pcmig_virt_conn *conn[PCMIG_SIDE_COUNT];
    struct pcmig_virt_watch *watch[PCMIG_SIDE_COUNT];
    struct pcmig_virt_domain *domain;      /* at the source; NULL = not known there, or no connection */
    struct pcmig_virt_conn *call_conn;     /* to the source, for the migrate call, which keeps it busy */
    struct pcmig_virt_domain *call_domain; /* likewise */
    struct pcmig_link *link;               /* QEMU's own connections, */
    struct pcmig_tunnel_queue *tunnel;     /* or the tunnel that it goes through; at most one of the two is there */
    struct pcmig_route *route;             /* our change of the route to the destination, or NULL */
    char uuid[PCMIG_VIRT_UUID_SIZE];
    char *name;
    atomic_llong sampled_us; /* since when QEMU samples what the guest writes; -1 = it does not */
    bool paused;             /* by a user, before the migration: it stays so */
    int64_t vcpus;           /* of the guest; 0 = not known */
    int64_t host_page_bytes; /* huge pages that the guest's memory lies in; 0 = none, or not known */
};

/* The control thread. */
void *pcmig_control_main(void *migration);

/* Connects, and refuses what can be known to fail before the guest is touched. Returns 0 or -1 with ERROR. */
int pcmig_preflight(struct pcmig_migration *migration, struct pcmig_virt_error *error);

/* latency.c: has QEMU at the destination count page requests, if that was asked for and it can. */
void pcmig_latency_arrange(struct pcmig_migration *migration);

/* Finds the stream's queue: right before the migrate call, so that what QEMU had open already is not taken for the
 * stream. */
void pcmig_preflight_queue(struct pcmig_migration *migration);

/* What both hosts say of the guest before the migrate call. */
struct pcmig_preflight_found {
    enum pcmig_half half[PCMIG_SIDE_COUNT];
    bool saved;                /* the destination has a saved state of it */
    bool job_told;             /* of the source's: */
    struct pcmig_virt_job job; /* what it runs for the guest */
};

/* Once more, after the call has waited for long: what may have changed meanwhile. The call opens a connection of its
 * own then, as the one made before may be dead. Returns 0 or -1 with ERROR. */
int pcmig_preflight_again(struct pcmig_migration *migration, const struct pcmig_preflight_found *found,
                          struct pcmig_virt_error *error);

/* Connects to what there is of a migration that is under way, or was: neither end must be reachable yet. Returns 0, or
 * -1 with ERROR. */
int pcmig_preflight_adopt(struct pcmig_migration *migration, struct pcmig_virt_error *error);

/* What is done with a new connection to one end: looks the guest up (at the source) and follows its events. DOMAIN and
 * WATCH are the caller's. Returns 0 or -1 with ERROR. */
int pcmig_preflight_follow(struct pcmig_migration *migration, enum pcmig_side side, struct pcmig_virt_conn *conn,
                           struct pcmig_virt_domain **domain, struct pcmig_virt_watch **watch,
                           struct pcmig_virt_error *error);

/* Microseconds since the start. */
int64_t pcmig_migration_now_us(const struct pcmig_migration *migration);

/* Puts an input into the mailbox, stamped with the present time. */
void pcmig_migration_post(struct pcmig_migration *migration, const struct pcmig_input *input);

/* Wakes the control thread: something that it began in the background has come to something. */
void pcmig_migration_answered(struct pcmig_migration *migration);

/* Makes pcmig_migration_fd readable. */
void pcmig_migration_notify(struct pcmig_migration *migration);

/* Makes pcmig_migration_left_fd readable. */
void pcmig_migration_tell_left(struct pcmig_migration *migration);

struct pcmig_migration *pcmig_migration_ref(struct pcmig_migration *migration);

#endif
