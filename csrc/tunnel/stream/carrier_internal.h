/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of a carrier share: carrier.c (its life, its table of states), carrier_greet.c (handshake and first
 * words), carrier_dial.c and carrier_accept.c (what either side then says). All of it is for the carrier's own thread.
 */
#ifndef PCMIG_TUNNEL_STREAM_CARRIER_INTERNAL_H
#define PCMIG_TUNNEL_STREAM_CARRIER_INTERNAL_H

#include "core/tunnel_frame.h"
#include "tunnel/stream/carrier.h"
#include "tunnel/admission/certificate.h"
#include "tunnel/tls/channel.h"
#include "tunnel/internal.h"
#include "tunnel/stream/relay.h"

#define PCMIG_CARRIER_WHOM_BYTES 640

/* How busy a carrier keeps its thread. A stream counts for more than a handshake does: that one runs beside it is no
 * reason to take the stream's thread for the next. */
enum pcmig_carrier_load {
    PCMIG_CARRIER_WAITS = 0, /* for a socket, or for its end */
    PCMIG_CARRIER_GREETS = 1,
    PCMIG_CARRIER_CARRIES = 2,
};

enum pcmig_carrier_state {
    PCMIG_CARRIER_NEW = 0,
    PCMIG_CARRIER_PAUSE,     /* before dialling again */
    PCMIG_CARRIER_CONNECT,   /* TCP */
    PCMIG_CARRIER_HANDSHAKE, /* TLS */
    PCMIG_CARRIER_HELLO,     /* dialler: QEMU's first bytes are awaited for a moment, to be said with hello */
    PCMIG_CARRIER_ASK,       /* dialler: hello was said, the answer is awaited */
    PCMIG_CARRIER_LISTEN,    /* acceptor: hello is awaited */
    PCMIG_CARRIER_EXPECT,    /* acceptor: the first bytes are awaited, which hello has announced */
    PCMIG_CARRIER_JOIN,      /* acceptor: looks for the local socket, or the stream's first connection */
    PCMIG_CARRIER_ANSWER,    /* acceptor: the answer is on its way */
    PCMIG_CARRIER_RELAY,
    PCMIG_CARRIER_LEAVE, /* all was said; the peer's end is awaited */
    PCMIG_CARRIER_GONE,
    PCMIG_CARRIER_COUNT
};

struct pcmig_carrier {
    atomic_uint references; /* one of the worker's list, one of each waiting task */
    struct pcmig_worker *worker;
    struct pcmig_tunnel *tunnel;
    struct pcmig_rules *rules; /* that it began with */
    enum pcmig_carrier_load load;
    struct pcmig_carrier *prev, *next;
    enum pcmig_carrier_state state;
    struct pcmig_task posted; /* from other threads */
    struct pcmig_task again;  /* in this one */
    struct pcmig_timer deadline, tick;
    struct pcmig_source wire, local;
    struct pcmig_edges edges; /* of the wire, until the relay has its own */
    struct pcmig_channel *channel;
    char address[PCMIG_PEER_TEXT_BYTES];
    char subject[PCMIG_TLS_SUBJECT_BYTES];
    int64_t not_after_s;
    struct pcmig_certificate *certificate; /* of the other end, once the handshake is done; NULL in plaintext */
    struct pcmig_roster_entry *entry;      /* NULL in plaintext, and where its certificate has too many */
    uint64_t leave_heard;                  /* reads that had brought something when its time was over last */
    unsigned leave_late;                   /* how often that was */
    bool stays;                            /* its place is another's already, see pcmig_roster_stay */
    struct pcmig_stream *stream;
    unsigned index;
    bool attached;
    /* dialler */
    struct pcmig_peer *peer; /* NULL when accepted */
    unsigned address_at;
    int64_t dial_until_us, dial_pause_us, silent_until_us, asked_us;
    pcmig_probe_done probe; /* NULL = a stream */
    void *probe_context;
    /* acceptor */
    atomic_bool evicted;
    struct pcmig_tunnel_hello hello;
    int64_t look_since_us, look_until_us;
    enum pcmig_tunnel_verdict verdict;
    struct pcmig_relay relay;
};

/* --- carrier.c --- */

int64_t pcmig_carrier_now_us(const struct pcmig_carrier *c);
uint64_t pcmig_carrier_wall_clock_ms(void);

/* Has the present state's function run once more in this round or the next. */
void pcmig_carrier_again(struct pcmig_carrier *c);
void pcmig_carrier_set_state(struct pcmig_carrier *c, enum pcmig_carrier_state state);
void pcmig_carrier_set_deadline(struct pcmig_carrier *c, int64_t after_us);

/* For the choice of the next carrier's worker. */
void pcmig_carrier_set_load(struct pcmig_carrier *c, enum pcmig_carrier_load load);

/* Makes it one of its stream's connections. */
bool pcmig_carrier_attach(struct pcmig_carrier *c);

/* "host (10.0.0.1:16516), CN=host": whom a message is about. */
void pcmig_carrier_describe(const struct pcmig_carrier *c, char text[PCMIG_CARRIER_WHOM_BYTES]);

/* The connection has failed, for REASON: whoever waits for it is told, and it is buried. KIND and LEVEL are of the
 * message. */
void pcmig_carrier_fail(struct pcmig_carrier *c, enum pcmig_messages_kind kind, enum pcmig_messages_level level,
                        const char *reason);

/* Whether the peer, whose certificate is known, is welcome by the rules in force; if not, the connection has failed. */
bool pcmig_carrier_review(struct pcmig_carrier *c);

/* All was said: waits for the peer to read it, and counts no longer as one of its certificate's connections, unless as
 * many wait like this already. */
void pcmig_carrier_leave(struct pcmig_carrier *c);

/* Gone at once. The memory goes with the last task that waits. */
void pcmig_carrier_bury(struct pcmig_carrier *c);

/* --- carrier_greet.c --- */

void pcmig_carrier_begin_tls(struct pcmig_carrier *c);
void pcmig_carrier_run_handshake(struct pcmig_carrier *c);

/* Sends the LEN bytes of TEXT as the first of this side. False when that has failed: pcmig_carrier_cannot_say ends the
 * carrier. */
bool pcmig_carrier_say(struct pcmig_carrier *c, const uint8_t *text, size_t len);
void pcmig_carrier_cannot_say(struct pcmig_carrier *c);

/* Reads until LEN bytes are there. NULL while they are not, or when it has failed (and the carrier is gone). */
const uint8_t *pcmig_carrier_hear(struct pcmig_carrier *c, size_t len);

/* Frames flow from now on. */
void pcmig_carrier_begin_relay(struct pcmig_carrier *c);
void pcmig_carrier_set_tick(struct pcmig_carrier *c);

/* --- carrier_dial.c --- */

void pcmig_carrier_begin_dialling(struct pcmig_carrier *c);

/* The attempt has failed: the next address, or all of them again after a pause. */
void pcmig_carrier_dial_failed(struct pcmig_carrier *c, const char *reason);
void pcmig_carrier_dial_again(struct pcmig_carrier *c);
void pcmig_carrier_connect_too_late(struct pcmig_carrier *c);
void pcmig_carrier_begin_hello(struct pcmig_carrier *c);
void pcmig_carrier_run_hello(struct pcmig_carrier *c);
void pcmig_carrier_run_connect(struct pcmig_carrier *c);
void pcmig_carrier_run_ask(struct pcmig_carrier *c);
void pcmig_carrier_look_asking(struct pcmig_carrier *c);

/* --- carrier_accept.c --- */

void pcmig_carrier_run_listen(struct pcmig_carrier *c);
void pcmig_carrier_run_expect(struct pcmig_carrier *c);
void pcmig_carrier_run_join(struct pcmig_carrier *c);
void pcmig_carrier_run_answer(struct pcmig_carrier *c);

#endif
