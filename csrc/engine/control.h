/* SPDX-License-Identifier: Apache-2.0 */
/* What the control thread of one migration knows, and what each of its files does:
 *
 *   control.c    the loop: takes what came, feeds the core, acts on the policy's decisions
 *   call.c       the migrate call, and the one that resumes post-copy (libvirt's Perform), on a thread of its own
 *   sampling.c   what QEMU samples of the guest's writing
 *   ask.c        what libvirt is asked and told, without waiting for one who does not answer
 *   ends.c       the connections to both hosts, and what each says of its half
 *   bandwidth.c  the bandwidths of pre-copy and post-copy
 *   others.c     what the host's other migrations leave to this one (core/turns.h)
 *   overdue.c    tells people of what does not come to its end before the switch, and frees a source that stands still
 *   empty_half.c removes the half that a cancelled migration filled
 *   ending.c     looks for the end: evidence, the next step (core/ending.h), acting on it
 *   recover.c    an interrupted post-copy (core/recovery.h)
 *   restart.c    a guest that a failed switch left stopped at the source
 *   kept_half.c  the source's half of a guest that has arrived, which libvirt has not ended
 *   leftover.c   a definition that libvirt left at the source, and autostart
 *   finish.c     tells the outcome, and the command that helps an operator
 *
 * All of it runs on the control thread alone, so that nothing in here needs a lock. */
#ifndef PCMIG_ENGINE_CONTROL_H
#define PCMIG_ENGINE_CONTROL_H

#include "core/ending.h"
#include "core/engine_state.h"
#include "core/recovery.h"
#include "core/still.h"
#include "core/turns_meter.h"
#include "core/unrun.h"
#include "edge/turns_file.h"
#include "engine/ask.h"
#include "engine/internal.h"

#define PCMIG_NEVER_US INT64_MAX

/* The latest migrate call, the first or one that resumes. */
enum call_state {
    CALL_NONE = 0, /* none was made: the migration is somebody else's */
    CALL_RUNS,
    CALL_SUCCEEDED,
    CALL_FAILED,
    CALL_LOST, /* it returned an error, and the migration may go on without it: the policy was not told yet */
};

/* The two bandwidths of libvirt. */
enum bandwidth { OF_PRECOPY = 0, OF_POSTCOPY, BANDWIDTHS };

/* Of QEMU's migration. */
enum direction {
    DIRECTION_UNKNOWN = 0,
    DIRECTION_OUT,
    DIRECTION_IN,
};

/* Attempts to connect to a host that are under way at once. */
#define PCMIG_ATTEMPTS 6

/* One of the two hosts. */
struct end {
    struct pcmig_virt_guest guest;                      /* as it said last: its half, and what belongs to it */
    bool shut_down;                                     /* an event said that the guest was shut down there */
    bool reconnect;                                     /* its connection broke, or there is none, and one is wanted */
    int64_t reconnect_us;                               /* not before */
    struct pcmig_virt_opening *opening[PCMIG_ATTEMPTS]; /* connections that are being opened, the latest first */
    int64_t opening_us;                                 /* since when the latest is */
    bool attaching;           /* a new connection is not of use yet: its events are not followed */
    bool missed;              /* what it says of the guest may be news: events were missed */
    int64_t silent_us;        /* since when it has not answered; 0 = it has */
    unsigned long libvirt;    /* version, of the connection as it is; 0 = not known */
    enum direction direction; /* of an interrupted half, whose QEMU was asked; it does not change */
    /* ask.c */
    struct pcmig_asker *asker[PCMIG_LANES];        /* who has its connections; of the host: NULL = there is none */
    struct pcmig_question *asked[PCMIG_ASK_COUNT]; /* what is open, or was answered late */
    int64_t vain_us;                               /* that were waited for it in this turn, without an answer */
    bool known;                                    /* of the source: the guest was looked up there */
};

enum abort_state {
    ABORT_NONE = 0,
    ABORT_WANTED, /* refused so far, or held back until the job is beyond its setup */
    ABORT_TAKEN,  /* libvirt took it */
    ABORT_TOLD,   /* people were told that it does not end */
    ABORT_FREED,  /* what it waited for was taken away */
};

enum leftover_state {
    LEFTOVER_LATER = 0, /* libvirt may still remove it */
    LEFTOVER_NONE,      /* nothing is left at the source, or only what is to be */
    LEFTOVER_UNDEFINE,  /* its definition should go, and the destination has one */
    LEFTOVER_LOOK,      /* a person has to look */
};

struct control {
    struct pcmig_migration *m;
    enum pcmig_engine_state state;
    enum pcmig_engine_state
        reached; /* the same, without the states of looking for the end: what the core was told of */
    enum call_state call;
    struct pcmig_virt_error call_error;
    struct end end[PCMIG_SIDE_COUNT];
    int64_t due_us;             /* of the policy */
    bool publish;               /* readers of the snapshot would like to know */
    bool detach;                /* the caller lets the migration go */
    struct pcmig_sample sample; /* the latest statistics */
    int64_t downtime_ms;        /* the limit that we gave to QEMU; 0 = none yet */
    bool round_trip_told;
    bool host_asked; /* by which UUID the destination's host is known again */
    bool host_anew;  /* that has failed once */

    /* Evidence that no host can be asked for. */
    bool handed_off; /* an event said STOPPED/MIGRATED of the source */
    bool issued;     /* the switch was, by us or by who noted it, or its order is out; nothing has said since that it
                        came to nothing */
    struct {
        int64_t late_us;    /* from the decision until it was ordered */
        bool issued_before; /* `issued`, before it was */
    } switching;
    bool source_stopped; /* an event said that the source's processors have stopped for its migration, and none since
                            that they run */
    bool crossed;        /* an event of either end spoke of post-copy, or of the guest's running at the destination */
    struct pcmig_unrun unrun; /* whether the guest never ran at the destination */
    bool final_seen;          /* the statistics of JOB_COMPLETED have come */

    /* Looking for the end. */
    int64_t look_us;      /* when both hosts are asked next */
    int64_t unchanged_us; /* since when the halves are as they are */
    bool changed;         /* they were not, at the look before the latest */
    bool changing;        /* likewise, at the one that waits for an answer */
    struct {
        bool done;      /* it was let run */
        int64_t try_us; /* not before, again */
        char why_not[96];
    } restart;
    struct {
        bool ordered;                                                /* its end */
        enum { FILES_UNKNOWN = 0, FILES_NONE, FILES_PERHAPS } files; /* that both hosts use */
        int64_t try_us;                                              /* not before, again */
    } kept_half;
    bool restored; /* no bandwidth is left behind that needs somebody to steer it, as far as libvirt lets us */
    enum leftover_state leftover;
    bool latency_done;   /* the destination's QEMU was asked what it has counted of page requests */
    bool autostart_done; /* set at the destination, or told that it cannot be */

    struct {
        int64_t precopy_mib; /* of pre-copy when it is not drained; 0 = unlimited */
        int64_t bound_mib;   /* the operator's bound of the pace; 0 = none */
        int64_t pace_mib;    /* what the policy wants in post-copy; -1 = nothing yet */
        bool slowed;         /* pre-copy has the bandwidth of the drain, or of what was adopted */
        int64_t wanted_mib[BANDWIDTHS];
        bool refused[BANDWIDTHS]; /* it is not what it should be */
        int64_t again_us;         /* when to set it again */
    } bandwidth;

    struct {
        enum abort_state state;
        int64_t asked_us; /* 0 = it was not */
        int64_t try_us;   /* when to try it again */
        int64_t taken_us;
        int64_t free_us; /* when to try again to free the source */
    } abort;

    /* The other migrations that leave the host. */
    struct {
        struct pcmig_turns_seat *seat; /* NULL = there was none to be had: it goes as if it were alone */
        struct pcmig_turns_meter meter;
        enum pcmig_turn turn; /* what they leave to this one */
        int64_t bound_mib;    /* of its bandwidth, for their sake; 0 = none */
        unsigned behind;      /* of them wait for this one */
        int64_t look_us;      /* when to look at them next */
        bool waiting;         /* for its turn: the migrate call was not made yet */
        bool waited;          /* it did for a while: what was found before is old */
        bool given_up;        /* cancelled while it did */
        bool guest_gone;      /* the guest ended or left the source while it did */
        bool set_again;       /* pre-copy's bandwidth: libvirt puts the call's in force only when it begins to send */
        int64_t called_us;    /* when it was made */
    } others;

    struct pcmig_still still; /* of what is sent before the switch */
    bool made_room;           /* our connection to the destination was closed, so that libvirt's own finds a place */

    struct {
        struct pcmig_recovery core;
        int64_t look_us;                /* when it wants to look again */
        bool held;                      /* paused on request: no attempt until one is asked for */
        enum pcmig_recovery_stuck told; /* what people know of a destination that does not get on */
        bool refused;                   /* the latest attempt that has returned: a QEMU does not wait to be resumed */
        char source[32];                /* what QEMU at the source has last said of its migration; "" = nothing yet, */
        int64_t sent_bytes;             /* likewise, what it has sent; -1 = it does not say, */
        int64_t said_us;                /* when, */
        unsigned said_of;               /* and after how many attempts */
        uint32_t knocks;                /* at the destination, that there had been before the interruption */
        char unpaused[160];             /* why QEMU at the source was not to be paused; "" = it was, or need not be */
        bool pause_again;        /* the order to pause did not go out: the source had not answered something else */
        int64_t silence_look_us; /* when silence was last asked for; 0 = not in this stream */
        int64_t silence_ms;      /* as seen then */
        uint64_t sent;           /* figures of post-copy that grow while anything moves, */
        int64_t sent_us;         /* when they were others; 0 = not seen yet */
        int64_t still_ms;        /* since then, as the latest figures say; -1 = not known */
    } recovery;
};

/* control.c */
/* An input goes to trace, ledger and policy, and the decision is acted on. */
void pcmig_control_feed(struct control *c, struct pcmig_input *input);
void pcmig_control_event(struct control *c, enum pcmig_event event);
/* Something happened that the states of the engine know. */
void pcmig_control_trigger(struct control *c, enum pcmig_engine_trigger trigger);
/* Something that people should hear of: TEXT, and below it COMMAND if it is not "". */
void pcmig_control_note(struct control *c, const char *text, const char *command);
/* The snapshot for Python's threads. */
void pcmig_control_publish(struct control *c);

/* call.c: starts the migrate call on a thread of its own. RESUME_URI: with VIR_MIGRATE_POSTCOPY_RESUME over this
 * migrate URI ("" = as the migration was called). NULL = the first call. Returns 0 or -1. */
int pcmig_call_start(struct control *c, const char *resume_uri);

/* sampling.c: has QEMU sample what the guest writes, on the thread of the migrate call, before it. */
void pcmig_sampling_start(struct pcmig_migration *migration, struct pcmig_virt_domain *domain);
/* Tells the core what came of it, once. */
void pcmig_sampling_look(struct control *c);

/* ends.c */
/* Takes over the connections that were opened before the migration (preflight.c). */
void pcmig_ends_begin(struct control *c);
/* Takes a connection that was opened in the background, and begins to open one that is wanted. */
void pcmig_ends_connect(struct control *c);
int64_t pcmig_ends_due_us(const struct control *c);
/* Nobody is asked any more, and the connections are closed. */
void pcmig_ends_leave(struct control *c);
/* Asks the host what it has of the guest. PCMIG_HALF_UNKNOWN where there is no connection - a new one is then on its
 * way - and where it does not answer. Returns whether that is its word: false while the answer may yet come, and what
 * is known is what it said last. */
bool pcmig_end_ask(struct control *c, enum pcmig_side side);
/* Until when its answer is waited for before it counts as unknown. */
int64_t pcmig_end_patient_us(const struct control *c, enum pcmig_side side);
/* Whether a connection is on its way that has not been waited for yet: "unknown" is not the host's last word. */
bool pcmig_end_being_asked(const struct control *c, enum pcmig_side side);
/* Whether the guest runs at the source beyond the switch, as one that turned back does: 1, 0, or -1 when libvirt says
 * that it runs, as it does of an interrupted destination too, and QEMU does not say which of them it is. */
int pcmig_end_turned_back(struct control *c);
/* Posts what the half that was seen last tells of events that nobody heard. */
void pcmig_end_catch_up(struct control *c, enum pcmig_side side);
/* Ends the connection, and with it what was asked over it; a new one is opened when somebody wants it. */
void pcmig_end_close(struct control *c, enum pcmig_side side);

/* bandwidth.c: what libvirt refuses is set again at `again_us`. */
void pcmig_bandwidth_set(struct control *c, enum bandwidth which, int64_t mib);
void pcmig_bandwidth_again(struct control *c);
/* The pace of post-copy becomes the operator's bound: nobody steers what follows an interruption, neither a migration
 * that goes on without libvirt nor one that is resumed, and QEMU would keep the pace of the moment. Refused, it stays
 * as it is. */
void pcmig_bandwidth_open_pace(struct control *c);
/* Leaves no bandwidth behind that needs somebody to steer it. Returns whether libvirt took that of pre-copy. */
bool pcmig_bandwidth_restore(struct control *c);
/* Post-copy goes on without anybody who steers: what was taken off its pace for the sake of others is given back. */
void pcmig_bandwidth_leave(struct control *c);
/* The operator bounds the bandwidth from now on. */
void pcmig_bandwidth_bound(struct control *c, int64_t mib);

/* The others leave more or less: the bandwidth that is to be in force is set anew. */
void pcmig_bandwidth_heed(struct control *c);
/* MIB with what the others leave of it; 0 = unlimited. */
int64_t pcmig_bandwidth_shared(const struct control *c, int64_t mib);

/* others.c: from now on the others know of this one, and it does what they leave to it. */
void pcmig_others_begin(struct control *c);
void pcmig_others_end(struct control *c);
/* What was seen of the migration. */
void pcmig_others_sample(struct control *c, const struct pcmig_sample *sample);
void pcmig_others_queue(struct control *c, int64_t queue_bytes);
/* Looks at the others, tells the policy what they leave, and has it done. */
void pcmig_others_look(struct control *c);
int64_t pcmig_others_due_us(const struct control *c);

/* overdue.c */
void pcmig_overdue_look(struct control *c);
int64_t pcmig_overdue_due_us(const struct control *c);

/* ending.c: whether both hosts have to be asked, the steps that follow. Returns whether the migration is over. */
bool pcmig_ending_wanted(const struct control *c);
bool pcmig_ending_look(struct control *c);

/* finish.c: tells the outcome; nothing is done for the migration afterwards. */
void pcmig_finish(struct control *c, enum pcmig_outcome outcome, enum pcmig_advice advice, const char *text,
                  const struct pcmig_virt_error *error);

/* restart.c: whether the guest is stopped at the source by a switch that came to nothing, and may be the only copy
 * there ever was. If not, `restart.why_not` may say why. */
bool pcmig_restart_possible(struct control *c, const struct pcmig_evidence *evidence, int64_t waited_us);
/* Lets it run, if that is certain. */
void pcmig_restart(struct control *c, const struct pcmig_evidence *evidence, int64_t waited_us);

/* kept_half.c: whether the guest has arrived, and the source, as far as libvirt says, has its half still. Tells when it
 * has not any more, and we ordered that. */
bool pcmig_kept_half(struct control *c, const struct pcmig_evidence *evidence, int64_t waited_us);
/* Ends it, if QEMU there says that all of it has crossed. */
void pcmig_kept_half_end(struct control *c, const struct pcmig_evidence *evidence, int64_t waited_us);

/* leftover.c: the guest has moved, for WAITED_US: what is left of it at the source is removed, and told if it cannot
 * be. */
enum leftover_state pcmig_leftover_remove(struct control *c, const struct pcmig_evidence *evidence, int64_t waited_us);
/* The guest boots with the host that has it now, and with no other. */
void pcmig_leftover_autostart(struct control *c, int64_t waited_us);

/* latency.c: whether what QEMU at the destination has counted of page requests may yet come. The guest has moved, for
 * WAITED_US. */
bool pcmig_latency_pending(struct control *c, int64_t waited_us);

/* recover.c: one step of recovery, by the halves as last seen. */
void pcmig_recover(struct control *c);
/* Whether the destination has been silent for longer than any live network is. Asks the kernel once a second at the
 * most. */
bool pcmig_recover_stalled(struct control *c);
/* Figures of post-copy have come. */
void pcmig_recover_sample(struct control *c);
/* Pauses post-copy if it runs. */
void pcmig_recover_pause(struct control *c);
/* What came of an order to pause QEMU at the source. */
void pcmig_recover_paused(struct control *c, int result, const struct pcmig_virt_error *error);

#endif
