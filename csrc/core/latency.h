/* SPDX-License-Identifier: Apache-2.0 */
/* How long the guest waits for a page that it asks for in post-copy. Pure, plain values, no allocation.
 *
 * QEMU counts it since 10.1, at the destination, where its capability postcopy-blocktime was on before the stream
 * came. libvirt does not set that, and lets nobody at the monitor of a guest that comes in: the capability has to be in
 * the guest's definition there, as an argument for QEMU.
 *
 * Otherwise it is estimated of what is seen at the source, and is no more than either of two times. A page waits for
 * the way there and back, and behind what stands in the link's queue; it need not, where QEMU sends pages that were
 * asked for over a connection of their own. And a processor that waits asks for nothing else: in a time in which N
 * pages were asked for, P processors have waited for no longer than P/N of it each time. What QEMU at both ends needs
 * is in the second alone. */
#ifndef PCMIG_CORE_LATENCY_H
#define PCMIG_CORE_LATENCY_H

#include "core/input.h"
#include "core/rate.h"

#include <stdbool.h>
#include <stdint.h>

/* Since QEMU 10.1.0 it can be counted, as pcmig_virt_versions() has it. */
#define PCMIG_LATENCY_QEMU 10001000UL

enum pcmig_latency_source {
    PCMIG_LATENCY_NONE = 0, /* nothing was asked for, or the queue cannot be seen */
    PCMIG_LATENCY_ESTIMATED,
    PCMIG_LATENCY_COUNTED, /* by QEMU */
    PCMIG_LATENCY_SOURCE_COUNT
};

struct pcmig_latency {
    enum pcmig_latency_source source;
    struct pcmig_latency_figures figures;
    int64_t now_us; /* a page that is asked for now, as estimated; -1 = not known */

    /* Private. */
    struct pcmig_rate rate;          /* of pre-copy */
    int64_t round_trip_us, queue_us; /* that what stands in the queue takes; -1 = not known */
    uint64_t vcpus;                  /* 0 = not known */
    uint64_t host_page_bytes;        /* huge ones come whole; 0 = none, or not known */
    bool looked;                     /* since then requests are seen as they come */
    uint64_t sum_us, requests_seen;
    uint64_t sent_bytes; /* at the latest look at post-copy, */
    int64_t last_us;     /* or when it began: */
    bool begun;
};

/* What of it is of interest meanwhile. */
struct pcmig_latency_now {
    enum pcmig_latency_source source;
    uint64_t mean_us; /* so far */
    int64_t now_us;
};

struct pcmig_latency_now pcmig_latency_now(const struct pcmig_latency *latency);

void pcmig_latency_init(struct pcmig_latency *latency);

/* Takes one input. PRECOPY: it is of pre-copy at full speed; POSTCOPY: of the time from the switch on. */
void pcmig_latency_feed(struct pcmig_latency *latency, const struct pcmig_input *input, bool precopy, bool postcopy);

/* So many page requests it is of. */
uint64_t pcmig_latency_requests(const struct pcmig_latency_figures *figures);

/* XML, a guest's definition, with what has its QEMU count; as it is where that is in it already. free() it; NULL when
 * memory is short, or XML is no definition. */
char *pcmig_latency_counting(const char *xml);

const char *pcmig_latency_source_name(enum pcmig_latency_source source); /* "estimated", "qemu"; never NULL */

#endif
