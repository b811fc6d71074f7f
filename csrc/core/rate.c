/* SPDX-License-Identifier: Apache-2.0 */
/* See rate.h. */
#include "core/rate.h"

#include <string.h>

/* Long enough that a burst of a token bucket is a small part of it; a few looks of pre-copy. */
#define WINDOW_US       500000
/* The first time, so that a guest that is moved in a second does not wait for it. */
#define FIRST_WINDOW_US 200000
/* A queue that the link needs no longer for may be what is on its way, or one of QEMU's own buffers. */
#define BACKLOG_US      5000
/* Zero pages for each other one: with more, it is they that take the time. */
#define ZERO_PAGES_MOST 3
/* What stands in the queue counts from there on: a packet is always on its way, not acknowledged yet. */
#define PACKET_BYTES    1500
/* Looks in post-copy at which the share of a full queue is known to a tenth. */
#define LOOKS           10
/* and at which it is known whether it is one at all. */
#define ZERO_LOOKS      4
/* A pace counts as reached from there on: a window need not hold whole slices of QEMU's. */
#define REACHED         85 /* percent */
/* What Linux lets a socket hold by default (tcp_wmem), where the queue cannot be seen. */
#define SOCKET_BYTES    (4 << 20)
/* 80 Tb/s: it keeps products of time and rate inside 64 bits. */
#define BPS_MAX         (UINT64_C(10) * 1000 * 1000 * 1000 * 1000)
#define TIME_LONGEST    (INT64_MAX / 4)

void pcmig_rate_init(struct pcmig_rate *rate)
{
    memset(rate, 0, sizeof(*rate));
    rate->queue_bytes = -1;
}

int64_t pcmig_rate_time_us(uint64_t bytes, uint64_t bps)
{
    uint64_t whole_s, rest_us;

    if (bps == 0)
        return bytes == 0 ? 0 : TIME_LONGEST;
    if (bps > BPS_MAX)
        bps = BPS_MAX;
    whole_s = bytes / bps;
    rest_us = bytes % bps * 1000000 / bps;
    return whole_s >= (uint64_t)TIME_LONGEST / 1000000 ? TIME_LONGEST : (int64_t)(whole_s * 1000000 + rest_us);
}

bool pcmig_rate_known(const struct pcmig_rate *rate)
{
    return rate->evidence >= PCMIG_RATE_STREAM;
}

int64_t pcmig_rate_queue_us(const struct pcmig_rate *rate)
{
    if (!pcmig_rate_known(rate))
        return INT64_MAX;
    return pcmig_rate_time_us(rate->queue_bytes >= 0 ? (uint64_t)rate->queue_bytes : SOCKET_BYTES,
                              pcmig_rate_now_bps(rate));
}

uint64_t pcmig_rate_now_bps(const struct pcmig_rate *rate)
{
    return rate->zeros && rate->zero_bps != 0 && rate->zero_bps < rate->link_bps ? rate->zero_bps : rate->link_bps;
}

/* Bytes that the destination has acknowledged, or, where the queue is not seen, that were sent. */
static uint64_t acked(const struct pcmig_sample *sample)
{
    uint64_t queued = sample->queue_bytes > 0 ? (uint64_t)sample->queue_bytes : 0;
    uint64_t sent = sample->memory_processed_bytes + sample->disk_processed_bytes;

    return sent > queued ? sent - queued : 0;
}

static uint64_t growth(uint64_t before, uint64_t now)
{
    return now > before ? now - before : 0;
}

static uint64_t bps_of(uint64_t bytes, int64_t us)
{
    uint64_t bps;

    if (us <= 0)
        return 0;
    bps = bytes < UINT64_MAX / 1000000 ? bytes * 1000000 / (uint64_t)us : bytes / (uint64_t)us * 1000000;
    return bps < BPS_MAX ? bps : BPS_MAX;
}

static void begin_window(struct pcmig_rate_window *window, const struct pcmig_sample *sample)
{
    *window = (struct pcmig_rate_window){.queue_low = sample->queue_bytes, .queue_high = sample->queue_bytes};
}

static void begin(struct pcmig_rate *rate, int64_t t_us, const struct pcmig_sample *sample, uint64_t requested)
{
    rate->started = true;
    rate->last = *sample;
    rate->last_us = t_us;
    rate->last_requested = requested;
    rate->zero_pages = rate->normal_pages = 0;
    begin_window(&rate->window, sample);
    begin_window(&rate->zeroing, sample);
}

/* Whether what was seen last does not go before SAMPLE. */
static bool is_another(const struct pcmig_rate *rate, int64_t t_us, const struct pcmig_sample *sample)
{
    return !rate->started || t_us < rate->last_us || acked(sample) < acked(&rate->last) ||
           (sample->queue_bytes < 0) != (rate->last.queue_bytes < 0);
}

static void look(struct pcmig_rate_window *window, const struct pcmig_rate *rate, int64_t t_us,
                 const struct pcmig_sample *sample)
{
    window->took_us += t_us - rate->last_us;
    window->bytes += acked(sample) - acked(&rate->last);
    if (sample->queue_bytes < window->queue_low)
        window->queue_low = sample->queue_bytes;
    if (sample->queue_bytes > window->queue_high)
        window->queue_high = sample->queue_bytes;
    window->looks++;
    window->busy_looks += sample->queue_bytes > PACKET_BYTES;
}

/* Half of the way to what this window says, at once where nothing better or nothing recent is known. */
static void follow(struct pcmig_rate *rate, int64_t t_us, uint64_t bps, enum pcmig_rate_evidence evidence, bool at_once)
{
    bool afresh = at_once || !pcmig_rate_known(rate) || t_us - rate->seen_us > 4 * WINDOW_US;

    if (bps == 0)
        bps = 1;
    if (afresh || rate->link_bps == 0)
        rate->link_bps = bps;
    else if (bps > rate->link_bps)
        rate->link_bps += (bps - rate->link_bps + 1) / 2;
    else
        rate->link_bps -= (rate->link_bps - bps) / 2;
    rate->evidence = evidence;
    rate->seen_us = t_us;
}

static void at_least(struct pcmig_rate *rate, int64_t t_us, uint64_t bps)
{
    if (bps <= rate->link_bps)
        return;
    rate->link_bps = bps;
    rate->seen_us = t_us;
    if (rate->evidence == PCMIG_RATE_UNKNOWN)
        rate->evidence = PCMIG_RATE_LEAST;
}

/* The queue as QEMU fills it when nothing holds it back: the most that was seen, forgotten slowly. */
static void keep_queue(struct pcmig_rate *rate, const struct pcmig_rate_window *window)
{
    if (window->queue_high < 0)
        return;
    if (window->queue_high > rate->queue_bytes)
        rate->queue_bytes = window->queue_high;
    else
        rate->queue_bytes -= (rate->queue_bytes - window->queue_high) / 8;
}

static bool queue_was_full(const struct pcmig_rate_window *window, uint64_t bps)
{
    return window->queue_low > 0 && pcmig_rate_time_us((uint64_t)window->queue_low, bps > 0 ? bps : 1) >= BACKLOG_US;
}

static bool zeros_mostly(uint64_t zero, uint64_t normal)
{
    return zero > ZERO_PAGES_MOST * normal;
}

void pcmig_rate_feed(struct pcmig_rate *rate, int64_t t_us, const struct pcmig_sample *sample)
{
    struct pcmig_rate_window *window = &rate->window;
    uint64_t bps;

    if (is_another(rate, t_us, sample)) {
        begin(rate, t_us, sample, 0);
        return;
    }
    look(window, rate, t_us, sample);
    rate->zero_pages += growth(rate->last.zero_pages, sample->zero_pages);
    rate->normal_pages += growth(rate->last.normal_pages, sample->normal_pages);
    rate->last = *sample;
    rate->last_us = t_us;
    if (window->took_us < (pcmig_rate_known(rate) ? WINDOW_US : FIRST_WINDOW_US))
        return;
    bps = bps_of(window->bytes, window->took_us);
    if (queue_was_full(window, bps)) {
        follow(rate, t_us, bps, PCMIG_RATE_LINK, false);
        keep_queue(rate, window);
    } else if (!zeros_mostly(rate->zero_pages, rate->normal_pages)) {
        follow(rate, t_us, bps, PCMIG_RATE_STREAM, false);
        keep_queue(rate, window);
    } else {
        at_least(rate, t_us, bps);
    }
    begin(rate, t_us, sample, 0);
}

/* What the pace lets through took the link for the share of looks that found something in the queue, so this is the
 * rate at which it drains. Rather too low than too high, by one look; what was asked for is left out altogether, as
 * most of it goes when no burst stands: added to what few looks say, it would make a link that is full look like one
 * twice as fast. */
static uint64_t drain_bps(const struct pcmig_rate *rate, const struct pcmig_rate_window *window,
                          uint64_t background_bps)
{
    uint64_t bps = background_bps * window->looks / (window->busy_looks + 1);

    return bps < 2 * rate->link_bps ? bps : 2 * rate->link_bps;
}

/* The pace, or the end, has held QEMU back: the link can carry more than went through. */
static void held_back(struct pcmig_rate *rate, int64_t t_us, const struct pcmig_rate_window *window,
                      uint64_t background_bps, uint64_t requested_bps, bool end)
{
    uint64_t bps = background_bps + requested_bps, more = bps;

    if (!end && pcmig_rate_known(rate)) {
        bool tells = window->queue_low >= 0 && window->busy_looks < window->looks;

        if (tells)
            more = drain_bps(rate, window, background_bps);
        else if (bps >=
                 rate->link_bps / 4 * 3) /* little room is left to see by, so: more, and see whether it goes through */
            more = bps / 4 * 5;
        else
            more = rate->link_bps + rate->link_bps / 50;
        if (tells && (more < rate->link_bps / 8 * 9 || more < bps))
            more = bps;
    }
    at_least(rate, t_us, more);
}

/* What a window of zero pages tells: how fast the destination takes them, and of the link only the least. */
static void measure_zeros(struct pcmig_rate *rate, int64_t t_us, const struct pcmig_rate_window *window, bool reached)
{
    const uint64_t bps = bps_of(window->bytes, window->took_us);

    if (window->queue_low >= 0 ? queue_was_full(window, bps) : !reached)
        rate->zero_bps = bps > 0 ? bps : 1;
    else if (rate->zero_bps != 0 && bps > rate->zero_bps)
        rate->zero_bps = bps;
    if (rate->zero_bps != 0 && reached && window->busy_looks < window->looks / 2)
        rate->zero_bps =
            rate->zero_bps < BPS_MAX / 2 ? rate->zero_bps * 2 : BPS_MAX; /* and see whether it goes through */
    at_least(rate, t_us, bps);
}

static void measure_link(struct pcmig_rate *rate, int64_t t_us, const struct pcmig_rate_window *window, bool reached,
                         bool unlimited, bool end)
{
    const uint64_t requested = window->requested < window->bytes ? window->requested : window->bytes;
    const uint64_t bps = bps_of(window->bytes, window->took_us);

    if (reached || end)
        held_back(rate, t_us, window, bps_of(window->bytes - requested, window->took_us),
                  bps_of(requested, window->took_us), end);
    else if (queue_was_full(window, bps))
        follow(rate, t_us, bps, PCMIG_RATE_LINK, true);
    else if (unlimited || window->queue_low < 0)
        follow(rate, t_us, bps, PCMIG_RATE_STREAM, true);
    else
        at_least(rate, t_us, bps);
}

void pcmig_rate_feed_postcopy(struct pcmig_rate *rate, int64_t t_us, const struct pcmig_sample *sample,
                              uint64_t pace_bps, uint64_t requested_bytes)
{
    const uint64_t zero = growth(rate->last.zero_pages, sample->zero_pages);
    const uint64_t normal = growth(rate->last.normal_pages, sample->normal_pages);
    const bool unlimited = pace_bps == 0, seen = sample->queue_bytes >= 0;
    struct pcmig_rate_window *window;
    bool reached, end, turns;

    if (is_another(rate, t_us, sample)) {
        begin(rate, t_us, sample, requested_bytes);
        return;
    }
    if (zeros_mostly(zero, normal))
        rate->zeros_until = sample->memory_processed_bytes + sample->disk_processed_bytes;
    /* Also while those that stand in the queue are taken away. */
    rate->zeros = acked(&rate->last) < rate->zeros_until;
    window = rate->zeros ? &rate->zeroing : &rate->window;
    turns = unlimited && window->paced_bytes > 0;
    look(window, rate, t_us, sample);
    window->requested += growth(rate->last_requested, requested_bytes);
    window->paced_bytes += pace_bps < BPS_MAX ? pace_bps / 1000 * (uint64_t)((t_us - rate->last_us) / 1000) : 0;
    rate->last = *sample;
    rate->last_us = t_us;
    rate->last_requested = requested_bytes;
    if (turns) /* for a part of the window only QEMU was held back, which says nothing about the link */
        begin_window(window, sample);
    if (window->took_us < WINDOW_US)
        return;
    end = sample->memory_remaining_bytes < window->bytes; /* QEMU has no more than that to send */
    /* A page that was asked for may be a zero page itself. */
    reached =
        !unlimited && growth(rate->zeros ? 0 : window->requested, window->bytes) >= window->paced_bytes / 100 * REACHED;
    if (reached && seen && !end && window->looks < (rate->zeros ? ZERO_LOOKS : LOOKS) && pcmig_rate_known(rate))
        return; /* until the queue was looked at often enough */
    if (rate->zeros)
        measure_zeros(rate, t_us, window, reached);
    else
        measure_link(rate, t_us, window, reached, unlimited, end);
    if (unlimited && !end)
        keep_queue(rate, window);
    begin_window(window, sample);
}

void pcmig_rate_pause(struct pcmig_rate *rate)
{
    rate->started = false;
}

void pcmig_rate_faster(struct pcmig_rate *rate, uint64_t permille)
{
    if (rate->link_bps < BPS_MAX / permille)
        rate->link_bps = rate->link_bps * permille / 1000;
}

void pcmig_rate_told(struct pcmig_rate *rate, int64_t t_us, int64_t bps)
{
    if (!pcmig_rate_known(rate) && bps > 0)
        follow(rate, t_us, (uint64_t)bps < BPS_MAX ? (uint64_t)bps : BPS_MAX, PCMIG_RATE_STREAM, true);
}
