/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of this room share about one daemon. */
#ifndef PCMIG_TUNNEL_INTERNAL_H
#define PCMIG_TUNNEL_INTERNAL_H

#include "tunnel/admission.h"
#include "tunnel/loop.h"
#include "tunnel/messages.h"
#include "tunnel/registry.h"
#include "tunnel/tls.h"
#include "tunnel/tunnel.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct pcmig_control;
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
    struct pcmig_carrier *carriers; /* its thread's */
    struct pcmig_task end;          /* ends all carriers */
};

struct pcmig_listener {
    struct pcmig_source source;
    struct pcmig_tunnel *tunnel;
    uint16_t port;
};

struct pcmig_tunnel {
    struct pcmig_tunnel_config config; /* strings are copies */
    struct pcmig_messages *messages;
    struct pcmig_admission *admission;
    struct pcmig_registry *registry;
    struct pcmig_control *control;

    pthread_mutex_t tls_lock; /* of `tls`, which reload replaces */
    struct pcmig_tls *tls;    /* NULL in plaintext */

    struct pcmig_loop *loop;     /* accepts, control socket, timers */
    struct pcmig_loop *resolver; /* waits for name servers */
    unsigned worker_count;
    struct pcmig_worker workers[PCMIG_WORKERS_MAX];
    unsigned listener_count;
    struct pcmig_listener listeners[PCMIG_LISTENERS_MAX];
    struct pcmig_timer tick;
    bool started;
    atomic_bool stopping;
    atomic_uint carrier_count;
};

/* The present certificates, one reference; NULL in plaintext. From any thread. */
struct pcmig_tls *pcmig_tunnel_tls(struct pcmig_tunnel *tunnel);

/* The worker with the fewest carriers. From any thread. */
struct pcmig_worker *pcmig_tunnel_worker(struct pcmig_tunnel *tunnel);

#endif
