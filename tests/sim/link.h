/* SPDX-License-Identifier: Apache-2.0 */
/* The network between two hosts: one bottleneck with one queue in front of it, shared by TCP flows.
 *
 * A flow's bytes wait in its sender's socket buffer until the queue has room, and TCP gives each flow an equal part of
 * that room: so flows that have enough to send get equal parts of the rate. What is in the queue leaves in the order
 * in which it came. Bytes are bytes of the migration stream; headers of Ethernet, IP and TCP are taken off the rate.
 */
#ifndef TESTS_SIM_LINK_H
#define TESTS_SIM_LINK_H

#include "scenario.h"

#define FLOWS_MAX 65 /* 64 migrations, and what others send */

struct flow {
    double offer;     /* in: what the sender would write within this step */
    double accepted;  /* out: what it could write */
    double waiting;   /* in the socket buffer */
    double queued;    /* in the queue of the link */
    double delivered; /* so far */
    double window;    /* of it, what may be sent before more is acknowledged */
    double sndbuf;    /* what the socket buffers of this flow hold, and its windows */
    double weight;    /* number of connections */
};

struct link {
    double rate_bps; /* for what is simulated, in this moment */
    double queue_bytes, rtt_s;
    double bucket_bytes; /* what may be saved up while less is sent */
    double free_s;       /* the rate has been used up to this moment */
    bool fq;
    bool others; /* flows that take all that they can get */
    unsigned count;
    struct flow flows[FLOWS_MAX];
};

void link_init(struct link *link, const struct scenario *s, unsigned migrations);

/* The rate may change with time. */
void link_rate(struct link *link, const struct scenario *s, int64_t now_us);

/* DT_S pass from NOW_US on: takes what the flows offer, delivers. */
void link_step(struct link *link, int64_t now_us, double dt_s);

/* BYTES that do not wait in FLOW's socket buffer, since they have a connection of their own. Returns the seconds until
 * they have arrived. DICE, 0 to 1, tells whether a queue that is full drops them: nothing follows them that would tell
 * TCP so, and it waits for its timer. */
double link_urgent(struct link *link, struct flow *flow, int64_t now_us, double bytes, double dice);

/* The same for many small messages within the step that ends at NOW_US: they queue only if the rate is too little. */
void link_stream(struct link *link, struct flow *flow, int64_t now_us, double bytes);

/* As link_urgent, on the flow's own connection, behind all that waits there. */
double link_behind(struct link *link, struct flow *flow, double bytes);

/* The least round trip that a connection sees as it begins, which is what the kernel tells the engine (tcpi_min_rtt):
 * flows of others fill the queue, and leave no more of it empty than they go back by when it has dropped something. */
double link_least_trip_s(const struct link *link);

/* Seconds until everything that FLOW has sent so far will have arrived. */
double link_backlog_s(const struct link *link, const struct flow *flow);

#endif
