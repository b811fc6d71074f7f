/* SPDX-License-Identifier: Apache-2.0 */
/* See link.h. */
#include "link.h"

#include <math.h>
#include <string.h>

/* 1448 bytes of payload in 1538 on the wire. */
#define PAYLOAD  0.9415
/* A queue this full may drop what comes. What it drops: the senders fill it until it overflows, find that out a round
 * trip later, go back to 0.7 of their window and come nearer to the full one again, as RFC 9438 (CUBIC, the default of
 * Linux) says: in cbrt(0.3 W / 0.4) seconds, or, where that is sooner, by 0.53 segments per round trip. So it drops
 * what comes for a round trip of each such time: on the bed, with 1.5 MB at 100 Mb/s, for 0.12 s of 9.2, of a fast link
 * for less. */
#define FULL     0.97
#define BACK     0.3
#define CUBIC    0.4
#define RENO     0.53
#define SEGMENT  1448.0
/* A page is three segments of 1448 bytes. When none of them arrives, Linux sends the last one once more after two round
 * trips and two ticks - its loss probe, tcp_schedule_loss_probe() in net/ipv4/tcp_output.c, RFC 8985 section 7 - and
 * the others follow a round trip later. Round trips are averages, shorter than behind a queue that is full just then:
 * on the bed, with a queue of 120 ms, 0.2 s in all is what fits. Only when the probe is lost as well, the least timer
 * of 200 ms counts, which is a third as likely as for a whole page; a page that is one segment, in jumbo frames, waits
 * for that in any case. */
#define SEGMENTS 3
#define TRIPS    3
#define TICKS_S  0.004
#define TIMER_S  0.2

void link_init(struct link *link, const struct scenario *s, unsigned migrations)
{
    memset(link, 0, sizeof(*link));
    link->queue_bytes = s->queue_kib * 1024;
    link->rtt_s = s->rtt_us / 1e6;
    link->fq = s->fq != 0;
    link->bucket_bytes = s->bucket_kib * 1024;
    link->count = migrations;
    for (unsigned i = 0; i < migrations; i++)
        link->flows[i] = (struct flow){.sndbuf = s->sndbuf_kib * 1024 * s->multifd, .weight = s->multifd};
    link->others = s->other_flows > 0;
    if (link->others) {
        link->flows[link->count++] =
            (struct flow){.sndbuf = s->sndbuf_kib * 1024 * s->other_flows, .weight = s->other_flows};
    }
    for (unsigned i = 0; i < link->count; i++)
        link->flows[i].window = link->flows[i].sndbuf;
    link_rate(link, s, 0);
}

void link_rate(struct link *link, const struct scenario *s, int64_t now_us)
{
    double mbps = s->change_at_ms > 0 && (double)now_us >= s->change_at_ms * 1000 ? s->change_mbps : s->link_mbps;

    link->rate_bps = mbps * 1e6 / 8 * PAYLOAD * (1 - s->other_permille / 1000);
}

static double queue_now(const struct link *link)
{
    double sum = 0;

    for (unsigned i = 0; i < link->count; i++)
        sum += link->flows[i].queued;
    return sum;
}

/* Divides AMOUNT among flows by weight, each at the most its WISH: what one leaves, the others get. GIVEN is written.
 */
static void divide(const struct link *link, double amount, const double *wish, double *given)
{
    bool full[FLOWS_MAX] = {false};

    memset(given, 0, sizeof(*given) * link->count);
    for (unsigned round = 0; round <= link->count && amount > 1e-9; round++) {
        double weights = 0, share;
        bool again = false;

        for (unsigned i = 0; i < link->count; i++)
            weights += full[i] || wish[i] <= 0 ? 0 : link->flows[i].weight;
        if (weights <= 0)
            return;
        share = amount / weights;
        for (unsigned i = 0; i < link->count; i++) {
            if (!full[i] && wish[i] > 0 && wish[i] <= share * link->flows[i].weight) {
                given[i] = wish[i];
                amount -= wish[i];
                full[i] = true;
                again = true;
            }
        }
        if (again)
            continue;
        for (unsigned i = 0; i < link->count; i++) {
            if (!full[i] && wish[i] > 0)
                given[i] = share * link->flows[i].weight;
        }
        return;
    }
}

/* From when on the rate can be used at AT_S: what was not used before is lost, but for what the bucket holds. */
static double usable_since(const struct link *link, double at_s)
{
    return fmax(link->free_s, at_s - link->bucket_bytes / link->rate_bps);
}

void link_step(struct link *link, int64_t now_us, double dt_s)
{
    double start_s = usable_since(link, (double)now_us / 1e6), wish[FLOWS_MAX] = {0}, given[FLOWS_MAX];
    double capacity = fmax(0, link->rate_bps * ((double)now_us / 1e6 + dt_s - start_s)), queued = queue_now(link);
    double trip_s = link->rtt_s + queued / link->rate_bps, leaving = fmin(queued, capacity), used = leaving;

    for (unsigned i = 0; i < link->count; i++) {
        struct flow *flow = &link->flows[i];
        double out = queued > 0 ? flow->queued * leaving / queued : 0;

        flow->queued -= out;
        flow->delivered += out;
        flow->accepted = 0;
        /* No more than a window per round trip, however short the steps are. */
        flow->window = fmin(flow->sndbuf * fmax(dt_s / trip_s, 1), flow->window + flow->sndbuf * dt_s / trip_s);
        wish[i] = fmin(flow->waiting + flow->offer, flow->window);
    }
    divide(link, capacity - leaving, wish, given);
    for (unsigned i = 0; i < link->count; i++) {
        struct flow *flow = &link->flows[i];
        double late = given[i] > flow->waiting ? given[i] - flow->waiting : 0;

        flow->waiting -= given[i] - late;
        flow->accepted += late;
        flow->delivered += given[i];
        flow->window -= given[i];
        used += given[i];
        wish[i] = fmin(flow->waiting + flow->offer - flow->accepted, fmin(flow->window, flow->sndbuf - flow->queued));
    }
    link->free_s = start_s + used / link->rate_bps;
    divide(link, link->queue_bytes - queue_now(link), wish, given);
    for (unsigned i = 0; i < link->count; i++) {
        struct flow *flow = &link->flows[i];
        double late = given[i] > flow->waiting ? given[i] - flow->waiting : 0;
        double room;

        flow->waiting -= given[i] - late;
        flow->queued += given[i];
        flow->window -= given[i];
        flow->accepted += late;
        room = flow->sndbuf - flow->waiting - flow->queued;
        late = fmin(flow->offer - flow->accepted, room > 0 ? room : 0);
        if (late > 0) {
            flow->waiting += late;
            flow->accepted += late;
        }
        flow->offer = 0;
    }
}

static double senders(const struct link *link)
{
    double sum = 0;

    for (unsigned i = 0; i < link->count; i++)
        sum += link->flows[i].queued > 0 ? link->flows[i].weight : 0;
    return fmax(sum, 1);
}

/* The part of what comes to a full queue that it drops. */
static double dropped(const struct link *link)
{
    double trip_s = link->rtt_s + link->queue_bytes / link->rate_bps;
    double window = trip_s * link->rate_bps / SEGMENT / senders(link);
    double apart_s = fmin(cbrt(BACK * window / CUBIC), BACK * window / RENO * trip_s);

    return fmin(1, trip_s * senders(link) / apart_s);
}

/* Of the probes for those. The sender that had filled the queue has gone back by then; another one may fill it. */
static double dropped_again(const struct link *link)
{
    return dropped(link) * (1 - 1 / senders(link)) / SEGMENTS;
}

double link_urgent(struct link *link, struct flow *flow, int64_t now_us, double bytes, double dice)
{
    double queued = queue_now(link), at_s = (double)now_us / 1e6, seconds = link->rtt_s / 2;

    if (link->fq) {
        flow->queued += bytes;
        return seconds + bytes * link->count / link->rate_bps;
    }
    if (queued < 1) {
        link->free_s = usable_since(link, at_s) + bytes / link->rate_bps;
        flow->delivered += bytes;
        return seconds + fmax(0, link->free_s - at_s);
    }
    flow->queued += bytes;
    if (queued > FULL * link->queue_bytes && dice < dropped(link))
        seconds += dice < dropped(link) * dropped_again(link)
                       ? TIMER_S
                       : fmin(TIMER_S, TRIPS * (link->rtt_s + queued / link->rate_bps) + TICKS_S);
    return seconds + (queued + bytes) / link->rate_bps;
}

void link_stream(struct link *link, struct flow *flow, int64_t now_us, double bytes)
{
    double at_s = (double)now_us / 1e6, late;

    if (queue_now(link) >= 1) {
        flow->queued += bytes;
        return;
    }
    link->free_s = usable_since(link, at_s) + bytes / link->rate_bps;
    late = link->free_s > at_s ? (link->free_s - at_s) * link->rate_bps : 0;
    link->free_s = fmin(link->free_s, at_s);
    flow->delivered += bytes - late;
    flow->queued += late;
}

double link_behind(struct link *link, struct flow *flow, double bytes)
{
    double seconds = link_backlog_s(link, flow) + bytes / link->rate_bps;

    flow->waiting += bytes;
    return seconds;
}

double link_least_trip_s(const struct link *link)
{
    double window = link->rtt_s * link->rate_bps + link->queue_bytes;

    /* In a fair queue each flow has its own, which is empty for one that begins. */
    if (link->fq || !link->others)
        return link->rtt_s;
    return fmax(link->rtt_s, (1 - BACK) * window / link->rate_bps);
}

double link_backlog_s(const struct link *link, const struct flow *flow)
{
    double weights = 0, queued = queue_now(link);

    /* What waits in the socket gets the flow's part of the rate. */
    for (unsigned i = 0; i < link->count; i++)
        weights +=
            link->flows[i].waiting + link->flows[i].queued > 0 || &link->flows[i] == flow ? link->flows[i].weight : 0;
    return link->rtt_s / 2 + queued / link->rate_bps + flow->waiting * weights / flow->weight / link->rate_bps;
}
