/* SPDX-License-Identifier: Apache-2.0 */
/* What the pure core is told about one migration: a stream of timestamped inputs.
 *
 * The same stream feeds the policy (what to do), the ledger (what happened) and the trace (so that both can be
 * replayed). Nothing here knows libvirt, sockets or a clock: whoever feeds the core stamps the input.
 *
 * Units are in the names. Times are microseconds of a monotonic clock, 0 = the moment the migration was started.
 * Pages are guest pages of `page_size_bytes`. A figure that was not reported is 0, unless said otherwise.
 */
#ifndef PCMIG_CORE_INPUT_H
#define PCMIG_CORE_INPUT_H

#include <stdbool.h>
#include <stdint.h>

/* Job statistics at one moment. Sources: virDomainGetJobStats and the JOB_COMPLETED event (libvirt >= 8.0),
 * VIR_DOMAIN_JOB_* typed parameters; the name behind each field is libvirt's. `queue_bytes` comes from the kernel. */
struct pcmig_sample {
    uint64_t memory_total_bytes;     /* memory_total */
    uint64_t memory_processed_bytes; /* memory_processed: bytes put on the wire for memory */
    uint64_t memory_remaining_bytes; /* memory_remaining: dirty or not yet sent, in bytes of guest memory */
    uint64_t memory_bps;             /* memory_bps: bytes per second as QEMU measured it last */
    uint64_t zero_pages;             /* memory_constant */
    uint64_t normal_pages;           /* memory_normal */
    uint64_t normal_bytes;           /* memory_normal_bytes */
    uint64_t encoded_pages;          /* compression_pages: sent as what differs from their last state (XBZRLE) */
    uint64_t dirty_pages_ps;         /* memory_dirty_rate: pages per second, of QEMU's last synchronisation */
    uint64_t iteration;              /* memory_iteration: dirty bitmap synchronisations so far */
    uint64_t page_size_bytes;        /* memory_page_size; the core assumes 4096 where it is not reported */
    uint64_t postcopy_requests;      /* memory_postcopy_requests: page requests the destination has sent */
    uint64_t disk_total_bytes;       /* disk_total */
    uint64_t disk_processed_bytes;   /* disk_processed */
    uint64_t disk_remaining_bytes;   /* disk_remaining */
    uint64_t downtime_ms;            /* downtime (or expected downtime while running) */
    uint64_t setup_time_ms;          /* setup_time */
    uint64_t elapsed_ms;             /* time_elapsed */
    int64_t queue_bytes;             /* sent by QEMU, not yet acknowledged by the destination; -1 = not known */
};

#define PCMIG_LATENCY_BUCKETS 24

/* What QEMU says of the page requests of a post-copy: answer to query-migrate at the destination, QEMU >= 10.1. */
struct pcmig_latency_figures {
    uint64_t bucket[PCMIG_LATENCY_BUCKETS]; /* postcopy-latency-dist: N has those that took from 2^N to 2^(N+1) us */
    uint64_t mean_us;                       /* postcopy-latency */
    uint64_t vcpu_us;                       /* postcopy-vcpu-latency: mean of the processor with the highest one */
    uint64_t other_us;                      /* postcopy-non-vcpu-latency: mean of QEMU's other threads */
};

enum pcmig_input_kind {
    PCMIG_INPUT_SAMPLE = 0,         /* `sample` holds statistics; the job is active */
    PCMIG_INPUT_QUEUE = 1,          /* only sample.queue_bytes is new */
    PCMIG_INPUT_EVENT = 2,          /* `code` is an enum pcmig_event */
    PCMIG_INPUT_ITERATION = 3,      /* MIGRATION_ITERATION event, `code` is the iteration */
    PCMIG_INPUT_TICK = 4,           /* only time has passed (a statistics call failed, or a deadline came) */
    PCMIG_INPUT_REQUEST = 5,        /* the operator asks, `code` is an enum pcmig_request */
    PCMIG_INPUT_FINAL = 6,          /* `sample` holds the statistics of JOB_COMPLETED */
    PCMIG_INPUT_TURN = 7,           /* `code` is an enum pcmig_turn, in force from now on */
    PCMIG_INPUT_DIRTY_RATE = 8,     /* QEMU sampled how much memory the guest writes: `code` bytes in a second */
    PCMIG_INPUT_DOWNTIME_LIMIT = 9, /* QEMU has another downtime limit from now on: `code` ms */
    PCMIG_INPUT_LINK_RATE = 10,     /* another migration over the same link has measured it: `code` bytes per second */
    PCMIG_INPUT_BEHIND = 11,        /* `code` migrations wait until this one leaves them the link */
    PCMIG_INPUT_ROUND_TRIP = 12,    /* to the destination and back, with nothing in the way: `code` us */
    PCMIG_INPUT_HOST_PAGE = 13,     /* the guest's memory lies in pages of the host of `code` bytes: huge ones */
    PCMIG_INPUT_LATENCY = 14,       /* `latency` holds what QEMU at the destination has counted */
    PCMIG_INPUT_VCPUS = 15,         /* the guest has `code` virtual processors */
    PCMIG_INPUT_KIND_COUNT
};

/* What was seen to happen, on the source ("SRC") or on the destination ("DST"). */
enum pcmig_event {
    PCMIG_EVENT_MIGRATE_CALLED = 0,     /* the migrate call was handed to libvirt */
    PCMIG_EVENT_SRC_SUSPENDED_MIGRATED, /* source vCPUs stopped for the last pre-copy bytes or the switch */
    PCMIG_EVENT_SRC_SUSPENDED_POSTCOPY, /* source vCPUs stopped: post-copy has begun */
    PCMIG_EVENT_SRC_POSTCOPY_FAILED,    /* post-copy interrupted, as the source sees it */
    PCMIG_EVENT_SRC_RESUMED,            /* the guest runs at the source again: migration cancelled or failed */
    PCMIG_EVENT_SRC_STOPPED_MIGRATED,   /* the source half was removed after success */
    PCMIG_EVENT_SRC_STOPPED_OTHER,      /* the source half ended for another reason (crash, destroy, shutdown) */
    PCMIG_EVENT_DST_STARTED,            /* the destination QEMU accepts the incoming stream */
    PCMIG_EVENT_DST_RESUMED_POSTCOPY,   /* the guest runs at the destination, pages still missing */
    PCMIG_EVENT_DST_RESUMED_MIGRATED,   /* the guest runs at the destination, complete */
    PCMIG_EVENT_DST_POSTCOPY_FAILED,    /* post-copy interrupted, as the destination sees it */
    PCMIG_EVENT_DST_STOPPED,            /* the destination half ended */
    PCMIG_EVENT_JOB_COMPLETED,          /* JOB_COMPLETED on the source */
    PCMIG_EVENT_SWITCH_ISSUED,          /* start-postcopy was accepted by libvirt */
    PCMIG_EVENT_SWITCH_REFUSED,         /* start-postcopy was refused (too early, or another job holds the lock) */
    PCMIG_EVENT_PACE_REFUSED,           /* a change of the bandwidth was refused */
    PCMIG_EVENT_CALL_SUCCEEDED,         /* the migrate call returned success */
    PCMIG_EVENT_CALL_FAILED,            /* the migrate call returned an error (which need not mean a failure) */
    PCMIG_EVENT_DST_RESUMED_OTHER,      /* the guest runs at the destination, for a reason of somebody else's */
    PCMIG_EVENT_COUNT
};

enum pcmig_request {
    PCMIG_REQUEST_SWITCH = 0,  /* switch to post-copy as soon as the queue is drained */
    PCMIG_REQUEST_ABORT = 1,   /* cancel, if the guest still runs at the source */
    PCMIG_REQUEST_DETACH = 2,  /* we stop steering: leave a pace behind that needs no steering */
    PCMIG_REQUEST_OPEN_GATE,   /* what holds the switch (gate.h) lets it go */
    PCMIG_REQUEST_REFUSE_GATE, /* there is to be no switch now */
    PCMIG_REQUEST_PAUSE,       /* interrupt post-copy deliberately, both halves stay as they are */
    PCMIG_REQUEST_RESUME,      /* resume an interrupted post-copy now, and not when its next attempt is due */
    PCMIG_REQUEST_COUNT
};

/* What the other migrations that leave this host leave to this one (turns.h). Until the first input of the kind:
 * free. */
enum pcmig_turn {
    PCMIG_TURN_FREE = 0, /* all it wants */
    PCMIG_TURN_CROWDED,  /* it may drain, and switches once the others have made room: not yet */
    PCMIG_TURN_HELD,     /* another guest is being switched: no switch now; a drain that has begun goes on */
    PCMIG_TURN_BOUNDED, /* the same, and its bandwidth is bounded: what is measured says nothing about link and guest */
    PCMIG_TURN_WAITING, /* the migrate call waits: no time passes for what counts from the migration's start */
    PCMIG_TURN_COUNT
};

struct pcmig_input {
    int64_t t_us;
    enum pcmig_input_kind kind;
    int64_t code;   /* see enum pcmig_input_kind; 0 otherwise */
    bool shut_down; /* with SRC_STOPPED_OTHER, DST_STOPPED: as a guest ends that is shut down. Not in traces: no policy
                       asks. */
    bool paused;    /* with DST_POSTCOPY_FAILED: libvirt has its processors stopped. Likewise not in traces. */
    struct pcmig_sample sample;
    struct pcmig_latency_figures latency;
};

#endif
