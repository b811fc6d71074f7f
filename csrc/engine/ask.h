/* SPDX-License-Identifier: Apache-2.0 */
/* What libvirt is asked and told, without waiting for one who does not answer.
 *
 * An asker is a thread with a connection of its own, which nobody else uses and which it closes itself. Each end has
 * one, and a second one for what only its QEMU knows, the destination in the end alone: a QEMU that stands still keeps
 * whoever asks for that for 30 s, and the daemon answers everything else meanwhile. One question at a time goes over a
 * connection, because libvirt's client (9.0.0, seen) touches a stack that is gone when a connection breaks that two
 * threads wait on (CVE-2024-4418), and so that an order goes out only where the host has just answered.
 *
 * The control thread waits for the answer for a moment, which is as long as a host that is well needs. After that the
 * question is pending, and whoever asks the same asker for anything is told so at once. When the answer comes, the
 * control thread is woken, and has that turn of its loop to use it: who asks the very same again gets it. What nobody
 * asks for in that turn is thrown away, as are the answers over a connection that was closed.
 *
 * "The very same": with the same number. A destination is asked for its guest with the half that the source has said
 * just before as the number, so that a late answer counts only where the source, asked once more, still says the same:
 * the evidence is in its order (core/halves.h), and as good as if it had been waited for. Nor does a late answer to a
 * question count once an event has told of the guest since it was asked. */
#ifndef PCMIG_ENGINE_ASK_H
#define PCMIG_ENGINE_ASK_H

#include "core/halves.h"
#include "core/host_uuid.h"
#include "edge/virt_qemu.h"

/* Whom a question goes to. */
enum pcmig_lane { PCMIG_LANE_HOST = 0, PCMIG_LANE_QEMU, PCMIG_LANES };

enum pcmig_ask_kind {
    /* Questions. */
    PCMIG_ASK_ATTACH = 0, /* looks the guest up (at the source), and follows its events */
    PCMIG_ASK_HOST,       /* by which UUID it is known again: host. Takes libvirt a second: nobody waits for it */
    PCMIG_ASK_GUEST,      /* what the host says of the guest: guest. It is looked up where that failed before */
    PCMIG_ASK_GONE,       /* whether it has none, and all that it told before was heard: the result is 1 or 0 */
    PCMIG_ASK_JOB,        /* job */
    PCMIG_ASK_WRITES,     /* what QEMU sampled of the guest's writing: bytes_ps; the result is 1, or 0 = not yet */
    PCMIG_ASK_MEMORY,     /* what the guest may have at the most: bytes */
    PCMIG_ASK_DIRECTION,  /* whether QEMU's migration is one that goes out: the result is 1 or 0 */
    PCMIG_ASK_QEMU,       /* status of QEMU's migration: status, sent_bytes */
    PCMIG_ASK_VERSION,    /* of the daemon: version */
    PCMIG_ASK_DEFINED,    /* whether the guest has a definition: the result is 1 or 0, -1 also where it is not known */
    PCMIG_ASK_LATENCY,    /* what QEMU at the destination has counted of page requests: latency; 1, or 0 = nothing */
    PCMIG_ASK_SAVED,      /* whether there is a saved state of the guest: the result is 1 or 0 */
    PCMIG_ASK_FILES,      /* whether it keeps anything in files: the result is 1 or 0 */
    /* Orders. */
    PCMIG_TELL_PRECOPY_SPEED,  /* number: MiB/s, 0 = unlimited */
    PCMIG_TELL_POSTCOPY_SPEED, /* likewise */
    PCMIG_TELL_DOWNTIME,       /* number: ms */
    PCMIG_TELL_SWITCH,
    PCMIG_TELL_ABORT,      /* number: 1 = also while the migration is being set up */
    PCMIG_TELL_PAUSE,      /* post-copy */
    PCMIG_TELL_PAUSE_QEMU, /* likewise, where libvirt calls it paused already */
    PCMIG_TELL_RUN,        /* a guest that is paused */
    PCMIG_TELL_AUTOSTART,  /* number: 1 = on */
    PCMIG_TELL_FORGET,     /* number: 1 = the guest is defined */
    PCMIG_TELL_DESTROY,
    PCMIG_ASK_COUNT
};

struct pcmig_ask {
    int64_t number;
    /* The answer. */
    struct pcmig_virt_error error;
    struct pcmig_virt_guest guest;
    bool known; /* whether it was looked up, at the source */
    struct pcmig_virt_job job;
    int64_t bytes_ps;
    uint64_t bytes;
    int64_t sent_bytes; /* -1 = it does not say */
    struct pcmig_latency_figures latency;
    unsigned long version;
    char status[32];
    char host[PCMIG_HOST_UUID_SIZE]; /* "" = it does not say */
};

struct control;
struct pcmig_question;
struct pcmig_asker;

/* What an asker begins with: DOMAIN and WATCH may be NULL. */
struct pcmig_asker_has {
    struct pcmig_virt_conn *conn;
    struct pcmig_virt_domain *domain;
    struct pcmig_virt_watch *watch;
};

/* The end has a connection now: what HAS holds is its asker's. Returns false where no thread is to be had; then it is
 * the caller's still. */
bool pcmig_ask_begin(struct control *c, enum pcmig_side side, const struct pcmig_asker_has *has);
bool pcmig_ask_connected(const struct control *c, enum pcmig_side side);

/* The result of the kind, or -1 with ASK's error: also while the answer is pending. */
int pcmig_ask(struct control *c, enum pcmig_side side, enum pcmig_ask_kind kind, struct pcmig_ask *ask);

/* Whether this one is out, and its answer was not taken yet. */
bool pcmig_ask_out(const struct control *c, enum pcmig_side side, enum pcmig_ask_kind kind);
/* Whether its answer may yet come, or the one that its asker waits for first: it is to be asked again then. */
bool pcmig_ask_pending(const struct control *c, enum pcmig_side side, enum pcmig_ask_kind kind);

/* Answers have come late. Marks them: they are there until pcmig_ask_forget(), which the turn ends with. */
void pcmig_ask_arrived(struct control *c);
void pcmig_ask_forget(struct control *c);
/* An event tells of the guest: what is being asked about it is old. */
void pcmig_ask_outdate(struct control *c);
/* Takes one of them, whatever its number was. Returns whether there is one, with its RESULT. */
bool pcmig_ask_take(struct control *c, enum pcmig_side side, enum pcmig_ask_kind kind, struct pcmig_ask *ask,
                    int *result);

/* Nobody wants the answers of this end any more. Its askers close their connections, as soon as they have the answers
 * that they wait for. */
void pcmig_ask_end(struct control *c, enum pcmig_side side);

#endif
