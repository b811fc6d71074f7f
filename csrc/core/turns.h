/* SPDX-License-Identifier: Apache-2.0 */
/* Who goes first, of the migrations that leave one host at the same time.
 *
 * Every migration of the host has a row that the others read (edge/turns_file.h), and each works out by itself, from
 * the same rows, what it may do. There is nobody who decides for all, so nobody has to be running. Rules, first to
 * last:
 *
 *  1. One guest at a time is being switched. From its drain until the first rush of its page requests is over, the
 * others send next to nothing, and an eighth of the link at the most.
 *  2. Post-copy before pre-copy: a guest in post-copy waits for its pages, one in pre-copy waits for nothing. The
 * latter is left a quarter of the link.
 *  3. Pre-copy one after the other, the shortest first, as many at a time as it takes to fill the link. What is sent
 * early only becomes dirty again while it waits for a share of the link; one after the other, each guest but the last
 * arrives sooner than side by side, and the last no later. A far smaller guest may go beside a large one.
 *  4. Whoever has begun at full speed goes on: stopping halfway is the dearest of all. Who is still being set up has
 * not begun: when its set-up takes so long that another one gets the turn, and that one sends first, it is the next.
 *
 * Nobody waits for ever: the order among those who wait is by arrival, later by the time that a guest of its size
 * takes; a turn has an end; and what does not move, or whose process is gone, counts for nothing.
 *
 * Rows of different links do not see each other; link 0 is "not known" and sees all of its network. Pure: values in,
 * values out.
 */
#ifndef PCMIG_CORE_TURNS_H
#define PCMIG_CORE_TURNS_H

#include "core/gate.h"
#include "core/input.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PCMIG_TURNS_ROWS        128 /* at the most at once on one host */
#define PCMIG_TURNS_ROW_BYTES   256 /* as they lie in the file */
#define PCMIG_TURNS_NAME_SIZE   64
/* What is left to a migration that makes room: libvirt's least, and enough that neither end takes the stream for dead.
 */
#define PCMIG_TURNS_TRICKLE_MIB 1

enum pcmig_turns_phase {
    PCMIG_TURNS_NONE = 0, /* an empty row */
    PCMIG_TURNS_WAITING,  /* the migrate call was not made yet */
    PCMIG_TURNS_PRECOPY,  /* the call was made: set-up and pre-copy */
    PCMIG_TURNS_DRAIN,    /* its queue runs empty for the switch */
    PCMIG_TURNS_RUSH,     /* the guest has just been switched and asks for its working set */
    PCMIG_TURNS_POSTCOPY, /* the rush is over, pages are still missing */
    PCMIG_TURNS_PAUSED,   /* post-copy is interrupted: nothing is sent */
    PCMIG_TURNS_PHASE_COUNT
};

/* Whether more than this one migration would fit on the link. */
enum pcmig_turns_fill {
    PCMIG_TURNS_FILL_UNKNOWN = 0, /* counts as FILLS */
    PCMIG_TURNS_FILLS,            /* at full speed bytes wait for the link */
    PCMIG_TURNS_FILL_SLACK, /* at full speed nothing waits: QEMU, its bandwidth limit or the guest is what is slow */
    PCMIG_TURNS_FILL_COUNT
};

/* Times: microseconds of the host's monotonic clock; 0 = it was not yet. */
struct pcmig_turns_row {
    uint32_t network; /* of the source: a number for a network namespace of this host, or for another host */
    uint32_t link;    /* which way it leaves that network, by interface index; 0 = not known */
    uint32_t number;  /* of the row */
    enum pcmig_turns_phase phase;
    enum pcmig_turns_fill fill;
    int64_t since_us;         /* it came */
    int64_t phase_us;         /* its phase began */
    int64_t turn_us;          /* since when pre-copy has its turn */
    int64_t setup_us;         /* from the migrate call to the first byte; 0 = none was sent yet */
    int64_t stamp_us;         /* the row was written */
    int64_t moved_us;         /* the latest time that a byte more was sent, or the phase began */
    uint64_t total_bytes;     /* of guest memory and disks; 0 = not known */
    uint64_t remaining_bytes; /* of them; all as long as nothing was sent */
    uint64_t send_bps;        /* as measured last */
    uint64_t link_bps;        /* as measured by it; 0 = not known */
    int64_t queue_bytes;      /* -1 = not known */
    int64_t bound_mib;        /* in force for the sake of others, MiB/s; 0 = none */
    int64_t pace_mib;         /* of background pages in post-copy, MiB/s; 0 = unlimited, -1 = none was set */
    /* For people who look on: the gate before the switch. */
    enum pcmig_gate_state gate;
    char name[PCMIG_TURNS_NAME_SIZE]; /* the guest's */
};

struct pcmig_turns_answer {
    enum pcmig_turn turn;
    int64_t bound_mib; /* of pre-copy and post-copy, MiB/s; 0 = none */
    int waits_for;     /* index of the row; -1 = none */
    uint64_t link_bps; /* the best that is known of its link; 0 = nothing */
    unsigned behind;   /* migrations that wait for this one to leave them the link */
};

/* What ROWS[ME] may do. COUNT rows of migrations whose process lives; those that say nothing to it are skipped. */
void pcmig_turns_decide(const struct pcmig_turns_row *rows, size_t count, size_t me, int64_t now_us,
                        struct pcmig_turns_answer *out);

/* A row for the file, and back. Reading takes any bytes: returns false for an empty row, a torn one and for what no
 * pcmig writes; figures are bounded and the name is printable in what it returns. */
void pcmig_turns_pack(const struct pcmig_turns_row *row, unsigned char bytes[PCMIG_TURNS_ROW_BYTES]);
bool pcmig_turns_unpack(const unsigned char bytes[PCMIG_TURNS_ROW_BYTES], struct pcmig_turns_row *row);

const char *pcmig_turns_phase_name(enum pcmig_turns_phase phase); /* "draining", for people; never NULL */

#endif
