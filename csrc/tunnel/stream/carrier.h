/* SPDX-License-Identifier: Apache-2.0 */
/* One TCP connection to another daemon, from connecting or accepting until it is closed. It lives on one worker's
 * thread.
 *
 * A table of states leads it to the point where frames flow (relay.h) or a probe is answered. */
#ifndef PCMIG_TUNNEL_STREAM_CARRIER_H
#define PCMIG_TUNNEL_STREAM_CARRIER_H

#include "tunnel/peer.h"
#include "tunnel/tls/tls.h"

#include <stdint.h>
#include <sys/socket.h>

struct pcmig_carrier;
struct pcmig_stream;
struct pcmig_tunnel;
struct pcmig_worker;

/* What a probe has found. */
struct pcmig_probe_result {
    bool ok;
    char error[PCMIG_TLS_ERROR_BYTES]; /* when not ok */
    char subject[PCMIG_TLS_SUBJECT_BYTES];
    int64_t not_after_s;
    int64_t clock_skew_ms; /* the peer's clock less ours */
    int64_t rtt_us;        /* of hello and answer */
};

/* Called once, on the worker's thread. */
typedef void (*pcmig_probe_done)(void *context, const struct pcmig_probe_result *result);

/* Each of the three makes a carrier on WORKER and returns at once, true; or false when memory is short. */

/* FD: accepted from ADDRESS, LEN bytes, which is told if it may not come in; the carrier's from now on, in any case. */
bool pcmig_carrier_accept(struct pcmig_worker *worker, int fd, const struct sockaddr *address, socklen_t len);

/* Of tunnel/admission/admission.h: CARRIER, whose peer has not shown who it is, makes room for another. */
void pcmig_carrier_evict(void *carrier);

/* Carries STREAM (one reference is taken) as its connection INDEX. Dials again for a while when the peer cannot be
 * reached; if it fails for good the stream is ended. */
bool pcmig_carrier_dial(struct pcmig_worker *worker, struct pcmig_peer *peer, struct pcmig_stream *stream,
                        unsigned index);

/* Asks once whether the daemon of PEER answers and both certificates hold. */
bool pcmig_carrier_probe(struct pcmig_worker *worker, struct pcmig_peer *peer, pcmig_probe_done done, void *context);

/* From any thread, while the carrier cannot go away (it is attached to a stream whose lock is held): something that it
 * asked for has changed. */
void pcmig_carrier_wake(struct pcmig_carrier *link);

/* On the worker's thread: ends those whose peer the rules in force would not let in. */
void pcmig_carrier_review_all(struct pcmig_worker *worker);

/* On the worker's thread: ends every carrier it has. */
void pcmig_carrier_end_all(struct pcmig_worker *worker, const char *reason);

#endif
