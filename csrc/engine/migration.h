/* SPDX-License-Identifier: Apache-2.0 */
/* One migration as a whole: connections, threads, events, core, outcome. See doc/develop/architecture.rst for who owns
 * what.
 *
 * All functions may be called from any thread; none blocks on libvirt except pcmig_migration_join.
 */
#ifndef PCMIG_ENGINE_MIGRATION_H
#define PCMIG_ENGINE_MIGRATION_H

#include "core/engine_state.h"
#include "core/forecast.h"
#include "core/host_uuid.h"
#include "core/ledger.h"
#include "core/policy.h"
#include "edge/route.h"
#include "edge/virt.h"
#include "core/outcome.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Strings are copied. NULL = not given, where a field is optional. */
struct pcmig_migration_args {
    const char *source_uri;
    const char *domain;   /* name, UUID or id */
    const char *dest_uri; /* as the source host reaches it */
    unsigned int
        flags; /* further VIR_MIGRATE_* bits; LIVE, PEER2PEER and POSTCOPY are added as the policy needs them */
    const char *migrate_uri;
    const char *dest_name;
    const char *listen_address;
    const char *disks_uri;
    const char *const *disks;    /* NULL-terminated */
    const char *dest_xml;        /* the guest's live XML there */
    const char *persist_xml;     /* its definition there, with PERSIST_DEST */
    const char *tls_destination; /* name in the destination's certificate */
    int parallel_connections;    /* 0 = libvirt's default */
    enum pcmig_policy_kind policy;
    struct pcmig_params params;
    const char *const *resume_uris; /* NULL-terminated; migrate URIs of other networks to resume over; NULL = none */
    bool recover; /* an interrupted post-copy is resumed, for as long as it takes, instead of being left to an operator
                   */
    bool adopt;   /* DOMAIN, a UUID, is migrating already, or was: no migrate call, what is there is looked after */
    bool autostart;    /* the definition that moves has it: set at the destination, and nowhere else, once the guest is
                          there */
    bool crossed;      /* with ADOPT: the switch may have been issued, as somebody noted */
    bool count_faults; /* QEMU at the destination is to count how long page requests take, and is asked for it at its
                          monitor */
    bool gated;        /* no switch before PCMIG_REQUEST_OPEN_GATE */
    bool destination_optional;  /* go on when only the source host can reach the destination, and not we */
    int bandwidth_mib;          /* of pre-copy, 0 = unlimited */
    int postcopy_bandwidth_mib; /* upper bound of the pace, 0 = none */
    int64_t connect_timeout_ms;
    const char *trace_path;
    const char *tunnel_control; /* control socket of pcmig's tunnel, whose migrate_uri it is */
};

enum pcmig_recovery_state {
    PCMIG_RECOVERY_STATE_NONE = 0, /* not interrupted */
    PCMIG_RECOVERY_STATE_WAITING,  /* for the destination, or for the next attempt */
    PCMIG_RECOVERY_STATE_RESUMING, /* an attempt is under way */
    PCMIG_RECOVERY_STATE_HELD,     /* no attempt until something else changes; the text says what */
    PCMIG_RECOVERY_STATE_COUNT
};

const char *pcmig_recovery_state_name(enum pcmig_recovery_state state); /* "waiting"; never NULL */

struct pcmig_recovery_status {
    enum pcmig_recovery_state state;
    unsigned attempts; /* so far */
    unsigned permille; /* of the guest's memory had crossed; 0 also when nobody saw a figure */
    int64_t since_us;  /* of the interruption */
    int64_t next_us;   /* of the next attempt at the earliest; -1 = not known */
    char text[640];    /* "post-copy interrupted at 43 %, resuming, attempt 3" */
};

struct pcmig_migration_status {
    enum pcmig_engine_state state; /* what the engine does */
    enum pcmig_phase phase;        /* what is being counted (ledger.h) */
    enum pcmig_outcome outcome;
    struct pcmig_virt_error error; /* code 0 = none */
    char text[1280];               /* behind the outcome; "" while running */
    char operator_command[4096];   /* whole, for a shell; "" = none */
    char note[1536];               /* what people should hear of meanwhile, the latest; "" = nothing */
    int64_t elapsed_us;
    unsigned passes;
    unsigned pass_permille;
    struct pcmig_sample sample;       /* the latest */
    struct pcmig_forecast forecast;   /* how far it is, and how long it still takes */
    int64_t downtime_events_us;       /* from the guest's stop to its start, as events have it; -1 = not seen */
    int64_t downtime_reported_ms;     /* libvirt's final figure; -1 = not told */
    struct pcmig_latency_now latency; /* of page requests */
    uint64_t link_bps;                /* 0 = not known */
    uint64_t requests_ps;
    int64_t pace_mib; /* post-copy bandwidth in force; -1 = none was set, 0 = unlimited */
    bool crossed;     /* the switch was issued, or the guest was seen beyond it */
    bool left;        /* the guest runs at the source no more: stopped for the switch, or seen beyond it. Taken back
                         when it runs on there after all */
    bool dest_ended;  /* after the switch the destination's libvirt saw the process with the half end */
    bool unrun;       /* it is certain that no instruction of the guest ran at the destination, nor will */
    int64_t switch_late_us; /* from the decision to switch (of drained and gate open, the later) to the start-postcopy
                             * call that was accepted; -1 = none */
    enum pcmig_gate_state gate;
    int64_t cpu_us; /* CPU time of the control thread */
    enum pcmig_route_result quickack;
    char dest_host[PCMIG_HOST_UUID_SIZE]; /* UUID of the destination's host, asked while it is set up; "" = it was
                                           * not reached, does not say, or the migration was adopted */
    struct sockaddr_storage stream_peer;  /* where the stream goes, seen as post-copy began; AF_UNSPEC = not seen */
    unsigned stats_failed;                /* statistics calls that failed: no verdict, only a figure */
    unsigned inputs_lost;                 /* events and requests that memory was too short for */
    size_t decisions;                     /* that were not "keep" */
    struct pcmig_recovery_status recovery;
    enum pcmig_turn turn; /* what the other migrations of the host leave to this one, */
    char waits_for[128];  /* and for which of them it waits: "g2 (draining)"; "" = none */
};

struct pcmig_migration;

/* A migration with one reference, or NULL with errno set (ENOMEM, EMFILE, ...). */
struct pcmig_migration *pcmig_migration_new(const struct pcmig_migration_args *args);
void pcmig_migration_unref(struct pcmig_migration *migration); /* NULL is fine; a running migration is not disturbed */

/* Starts the threads. Returns 0; -1 with errno EALREADY when started before, or the error of a thread; -2 with the
 * error of the trace file. */
int pcmig_migration_start(struct pcmig_migration *migration);

/* An eventfd, readable when there is news; pcmig_migration_clear reads it. */
int pcmig_migration_fd(const struct pcmig_migration *migration);
void pcmig_migration_clear(struct pcmig_migration *migration);

/* Another eventfd, readable for good once the guest has left the source (`left`), or the migration is over: for whoever
 * has something ready for that moment, and looks after nothing else. */
int pcmig_migration_left_fd(const struct pcmig_migration *migration);

void pcmig_migration_status(struct pcmig_migration *migration, struct pcmig_migration_status *out);

/* Copies up to MAX decisions from index FIRST on, returns how many. */
size_t pcmig_migration_decisions(struct pcmig_migration *migration, size_t first, struct pcmig_decision *out,
                                 size_t max);

/* A copy of the ledger as it is now, for pcmig_ledger_free; NULL when memory is short. */
struct pcmig_ledger *pcmig_migration_ledger(struct pcmig_migration *migration);

/* Puts a request to the control thread. Returns 0, or -1 when the migration was not started or is over. */
int pcmig_migration_request(struct pcmig_migration *migration, enum pcmig_request request);

/* Bounds the bandwidth from now on: of pre-copy before the switch, of the pace after it. 0 = unlimited. */
int pcmig_migration_set_bandwidth(struct pcmig_migration *migration, int64_t mib);

/* QEMU has this downtime limit from now on: somebody else sets it (parameter downtime_control = 0). */
int pcmig_migration_downtime_limit(struct pcmig_migration *migration, int64_t ms);

const char *pcmig_migration_trace_path(const struct pcmig_migration *migration); /* NULL = none */
bool pcmig_migration_started(struct pcmig_migration *migration);

/* Waits for an outcome, for ever when TIMEOUT_MS < 0 or when it is not started. Returns whether there is one. */
bool pcmig_migration_join(struct pcmig_migration *migration, int64_t timeout_ms);

#endif
