/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of this room share about one daemon. */
#ifndef PCMIG_TUNNEL_INTERNAL_H
#define PCMIG_TUNNEL_INTERNAL_H

#include "tunnel/admission/admission.h"
#include "tunnel/local/arrivals.h"
#include "tunnel/figures.h"
#include "tunnel/loop.h"
#include "tunnel/messages.h"
#include "tunnel/stream/registry.h"
#include "tunnel/admission/roster.h"
#include "tunnel/rules.h"
#include "tunnel/tunnel.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct pcmig_control;
struct pcmig_listener;
struct pcmig_carrier;

enum {
    PCMIG_WORKERS_MAX = 8,
    PCMIG_LISTENERS_MAX = 8,
};

/* A thread that moves bytes. */
struct pcmig_worker {
    struct pcmig_tunnel *tunnel;
    struct pcmig_loop *loop;
    uint8_t *scratch; /* plaintext on its way into TLS */
    atomic_uint carrier_count;
    atomic_uint load;               /* what they keep it busy with: see pcmig_carrier_set_load */
    struct pcmig_carrier *carriers; /* its thread's */
    struct pcmig_task end;          /* ends all carriers */
    struct pcmig_task beat;
    atomic_llong beat_us;     /* when it was seen to run, CLOCK_MONOTONIC */
    struct pcmig_task review; /* ends those whose peers are no longer welcome */
};

struct pcmig_tunnel {
    /* As it was started: run_dir, control, plaintext, owner_gid, socket_uid, control_gid, workers and limits are from
     * here; all else is of the rules in force. */
    const struct pcmig_tunnel_config *config;
    struct pcmig_rules *started_with;
    struct pcmig_messages *messages;
    struct pcmig_figures figures;
    struct pcmig_admission *admission;
    struct pcmig_registry *registry;
    struct pcmig_roster *roster;
    struct pcmig_arrivals *arrivals;
    struct pcmig_control *control;

    pthread_mutex_t reload_lock; /* one at a time */
    pthread_mutex_t rules_lock;
    struct pcmig_rules *rules; /* in force */
    atomic_uint reloads_asked; /* over the control socket */
    atomic_uint reloads_answered;

    struct pcmig_loop *loop;     /* accepts, control socket, timers */
    struct pcmig_loop *resolver; /* waits for name servers */
    unsigned worker_count;
    struct pcmig_worker workers[PCMIG_WORKERS_MAX];
    unsigned listener_count;
    struct pcmig_listener *listeners[PCMIG_LISTENERS_MAX];
    struct pcmig_timer tick;
    atomic_llong beat_us; /* of the control thread */
    bool started;
    atomic_bool stopping;
    atomic_uint carrier_count;
    atomic_uint accepted_count; /* of these */
};

/* Whether so many connections MORE of that direction may be. Each leaves a quarter of all to the other: a host that is
 * dialled much can dial, for a resume above all, and the other way round. From any thread. */
bool pcmig_tunnel_has_room(const struct pcmig_tunnel *tunnel, bool accepted, unsigned more);

/* What is in force now, one reference. From any thread. */
struct pcmig_rules *pcmig_tunnel_rules(struct pcmig_tunnel *tunnel);

/* The worker that is to have the next carrier: handshakes go around the threads of streams that run, where they can.
 * From any thread. */
struct pcmig_worker *pcmig_tunnel_worker(struct pcmig_tunnel *tunnel);

#endif
