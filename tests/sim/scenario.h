/* SPDX-License-Identifier: Apache-2.0 */
/* What is to be simulated: a guest, a link, a QEMU, and who steers. One line of "name=value" words; rows in scenario.c.
 */
#ifndef TESTS_SIM_SCENARIO_H
#define TESTS_SIM_SCENARIO_H

#include "core/params.h"
#include "core/policy.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum way {
    WAY_PCMIG = 0,     /* the real core; policy as named */
    WAY_VIRSH,         /* virsh migrate --postcopy --postcopy-after-precopy: at the second iteration */
    WAY_VIRSH_PASS,    /* the same, but after one real pass */
    WAY_NOVA,          /* stock Nova: force-complete at its completion timeout */
    WAY_KUBEVIRT,      /* KubeVirt's stall detector, post-copy allowed */
    WAY_KUBEVIRT_RAMP, /* KubeVirt's downtime ramp, post-copy at its completion timeout */
    WAY_SCRIPT,        /* what a recorded migration did, at the same times: see script */
    WAY_PRECOPY,       /* nobody switches */
    WAY_COUNT
};

#define SCRIPT_STEPS 32

/* One act of a script, so long after the call. */
struct step {
    int64_t at_us;
    enum pcmig_action action; /* drain, switch or set-pace */
    int64_t pace_mib;
};

struct scenario {
    /* Who steers. */
    enum way way;
    enum pcmig_policy_kind policy;
    struct pcmig_params params;
    double quickack;   /* pcmig may have page requests acknowledged at once: it needs CAP_NET_ADMIN */
    double queue_seen; /* pcmig can see the queue of QEMU's sockets */
    double dirty_rate; /* QEMU samples what the guest writes before the migration (QEMU >= 5.2, libvirt >= 7.2) */
    double nova_steps; /* under nova-compute: QEMU's limit follows Nova's downtime steps */

    /* Guest. */
    double memory_mib, zero_permille;
    double hot_mib, hot_wps;   /* pages written at random per second */
    double warm_mib, warm_wps; /* likewise, a second set */
    double reads_permille;     /* pages only read, at random, per 1000 pages written */
    double scan_pps;           /* pages of the hot set read in turn per second */
    double vcpus;
    double late_ms;          /* how late a heartbeat may be without any migration */
    double core_rw, core_ro; /* pages without which no heartbeat comes: those written all the time, those only read */
    double phase_ms, phase_busy_permille,
        quiet_permille; /* writes come in phases: so much of each period at full rate */
    double burst_at_ms, burst_ms, burst_mib, burst_every_ms;
    double host_page_kib;
    double kvm; /* 0 = TCG: writes to pages that still wait to be sent make them dirty again */

    /* Link. */
    double link_mbps, rtt_us, queue_kib, sndbuf_kib;
    double bucket_kib;     /* a token bucket in front of the link (tc tbf): what it saves up leaves at once */
    double fq;             /* a fair queue: a page that was asked for does not wait behind the others' */
    double other_permille; /* of the link, taken by traffic that does not yield */
    double other_flows;    /* TCP flows of others, which take what they can get */
    double change_at_ms, change_mbps;

    /* QEMU and libvirt. */
    double qemu;     /* 7, 10 or 11 */
    double preempt;  /* page requests have a connection of their own (libvirt >= 10.0) */
    double multifd;  /* connections of pre-copy */
    double cpu_mbs;  /* MB/s that one of QEMU's threads sends at the most */
    double setup_ms; /* from the call until pages flow */
    double switch_ms, fault_us, device_kib;
    double downtime_ms; /* QEMU's limit at the start */

    /* "MS:drain:MIB,MS:set-pace:MIB,MS:switch:0", in the order of time. */
    struct step script[SCRIPT_STEPS];
    unsigned steps;

    /* The run. */
    double guests, slots, stagger_ms;
    double turns; /* pcmig: several know of each other */
    double seed, until_s;
};

void scenario_defaults(struct scenario *s);

/* Takes "name=value name=value ...". Returns 0, or -1 with a message in ERR that names what is wrong. */
int scenario_parse(struct scenario *s, const char *line, char *err, size_t err_size);

const char *way_name(enum way way);

#endif
