/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the control thread share: control.c (the loop, and acting on decisions), call.c (the migrate call),
 * settle.c (who has the guest), heal.c (an interrupted post-copy), restart.c (a guest left stopped), tidy.c (a definition left
 * behind), speed.c (the bandwidths), waits.c (what does not end). All of it runs on the control thread alone. Nobody else includes this. */
#ifndef PCMIG_ENGINE_CONTROL_H
#define PCMIG_ENGINE_CONTROL_H

#include "core/recovery.h"
#include "core/still.h"
#include "engine/internal.h"

struct control {
    struct pcmig_migration *m;
    int64_t due_us;      /* of the policy */
    bool slowed;         /* pre-copy is to have the bandwidth of the drain */
    bool draining;       /* only the queue is of interest, not the statistics */
    bool downtime_set;   /* QEMU has the downtime limit */
    bool called;         /* a migrate call has not returned */
    bool call_succeeded; /* the latest that has */
    bool call_lost;      /* it returned an error, and the migration may go on without it */
    bool called_once;    /* there was one, the first or one that resumes */
    struct pcmig_virt_error call_error;
    bool settling;             /* no call runs, or post-copy was interrupted: the halves tell what comes next */
    int64_t settle_us;         /* since when the halves are as they are */
    enum pcmig_half halves[2]; /* as last seen then; destination, source */
    int64_t reopen_us[2];      /* not before; destination, source */
    bool broken[2];            /* the connection is to be reopened; likewise */
    unsigned long versions[2]; /* libvirt's, of the connections as they are; 0 = not known; likewise */
    bool handed_off;
    bool shut_down[2];  /* an event said so; destination, source */
    bool crossed;       /* an event of either end spoke of post-copy, or of the guest's running at the destination */
    bool issued;        /* the switch was, by us or by who noted it; nothing has said since that it came to nothing */
    bool restarted;     /* the guest, stopped at the source by a switch that came to nothing, was let run again */
    int64_t restart_us; /* not before, again */
    char unclear[96];   /* why it was not, for people; "" = it never came to that */
    bool news;          /* something that readers of the snapshot care about has come */
    bool final_seen;    /* the statistics of JOB_COMPLETED have come */
    bool detach;
    bool abort_wanted;        /* refused so far, or held until the job is beyond its setup */
    int64_t abort_us;         /* when to try it again */
    int64_t abort_asked_us;   /* 0 = it was not */
    int64_t abort_taken_us;   /* libvirt took it; 0 = not yet */
    bool abort_told;          /* that it does not end */
    struct pcmig_still still; /* of what is sent before the switch */
    bool yielded;             /* our connection to the destination makes room for libvirt's own */
    bool autostart_moved;
    int64_t precopy_mib; /* bandwidth of pre-copy when it is not drained; 0 = unlimited */
    int64_t bound_mib;   /* the operator's bound of the pace; 0 = none */
    int64_t pace_mib;    /* what the policy wants in post-copy; -1 = nothing yet */
    bool refused[2];     /* the bandwidth of pre-copy, of post-copy is not what it should be */
    int64_t wanted_mib[2];
    int64_t speed_us; /* when to set it again */
    struct pcmig_recovery recovery;
    int64_t heal_us;    /* when recovery wants to look again */
    bool held;          /* paused on request: no attempt until one is asked for */
    bool changed;       /* the halves, at the last look */
    int64_t look_us;    /* when silence was last asked for; 0 = not in this stream */
    int64_t silence_ms; /* as seen then */
    struct pcmig_sample last;
};

#define PCMIG_NEVER_US INT64_MAX

/* control.c: an input goes to trace, ledger and policy, and the decision is acted on. */
void pcmig_control_feed(struct control *c, struct pcmig_input *input);
void pcmig_control_event(struct control *c, enum pcmig_event event);
/* Leaves no bandwidth behind that needs somebody to steer it. */
void pcmig_control_let_go(struct control *c);
/* Something that people should hear of: TEXT, and below it COMMAND if it is not "". */
void pcmig_control_note(struct control *c, const char *text, const char *command);
/* The snapshot for Python's threads. */
void pcmig_control_publish(struct control *c);

/* call.c: starts the migrate call on a thread of its own. RESUME_URI: with VIR_MIGRATE_POSTCOPY_RESUME over this migrate URI ("" =
 * as the migration was called). NULL = the first call. Returns 0 or -1. */
int pcmig_call_start(struct control *c, const char *resume_uri);

/* sampling.c: has QEMU sample what the guest writes, on the thread of the migrate call, before it. */
void pcmig_sampling_start(struct pcmig_migration *migration, struct pcmig_virt_domain *domain);
/* Tells the core what came of it, once. */
void pcmig_sampling_look(struct control *c);

/* settle.c: asks both ends who has the guest. Returns whether the migration is over. */
bool pcmig_settle(struct control *c);
void pcmig_settle_finish(struct control *c, enum pcmig_outcome outcome, enum pcmig_advice advice, const char *text,
                         const struct pcmig_virt_error *error);
/* Reopens one end, and posts what happened there meanwhile. */
void pcmig_settle_reopen(struct control *c, bool source);
/* Posts what the guest's state there tells of the past. */
void pcmig_settle_catch_up(struct control *c, bool source);

/* restart.c: lets a guest run again that a switch which came to nothing left stopped at the source; the halves have been as SEEN
 * for WAITED_US. Returns whether the verdict is to wait for it. */
bool pcmig_restart(struct control *c, const struct pcmig_evidence *seen, int64_t waited_us);

/* tidy.c: the guest has moved, for WAITED_US: what is left of it at the source is removed. */
enum tidy {
    TIDY_CLEAN,   /* nothing is left, or only what is to be */
    TIDY_LATER,   /* libvirt may still do it */
    TIDY_LEFT,    /* it should go, and the destination has a definition */
    TIDY_UNCLEAR, /* a person has to look */
};
enum tidy pcmig_tidy(struct control *c, const struct pcmig_evidence *evidence, int64_t waited_us);
/* The guest boots with the host that has it now, and with no other. Returns whether the verdict need not wait for that. */
bool pcmig_tidy_autostart(struct control *c, int64_t waited_us);

/* waits.c: tells of what does not come to its end before the switch: a setup, a pre-copy or a cancellation. */
void pcmig_waits_look(struct control *c);
int64_t pcmig_waits_due_us(const struct control *c);

/* heal.c: one step of recovery, by the halves as last seen. */
void pcmig_heal(struct control *c);
/* Whether the destination has been silent for longer than any live network is. Asks the kernel once a second at the most. */
bool pcmig_heal_stalled(struct control *c);
/* Pauses post-copy if it runs. */
void pcmig_heal_pause(struct control *c);

/* speed.c: sets the bandwidth of pre-copy or of post-copy; what libvirt refuses is due again at `speed_us`. */
void pcmig_speed_set(struct control *c, int64_t mib, bool postcopy);
/* What libvirt refused (another job held the guest, the connection was broken) is still wanted. */
void pcmig_speed_again(struct control *c);
/* Nobody steers what follows an interruption: neither a migration that goes on without libvirt nor one that is resumed.
 * It would crawl at the pace of the moment, which QEMU keeps. Refused, it stays as it is. */
void pcmig_speed_open(struct control *c);
/* The operator bounds the bandwidth from now on. */
void pcmig_speed_bound(struct control *c, int64_t mib);

#endif
