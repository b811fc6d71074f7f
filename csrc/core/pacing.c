/* SPDX-License-Identifier: Apache-2.0 */
/* See pacing.h. */
#include "core/pacing.h"

#include "core/passes.h"

#include <string.h>

#define MIB                 (1024 * 1024)
#define DEFAULT_PAGE_BYTES  4096
/* The largest page that a host has. */
#define PAGE_MAX_BYTES      (UINT64_C(1) << 30)
/* libvirt counts in whole MiB/s, and 0 is unlimited. */
#define PACE_MIN_MIB        1
/* More than any guest asks for before its first sign of life. */
#define RUSH_PAGES_MAX      1000000
/* More than any link of today carries. */
#define UNMEASURED_MAX_MIB  65536
/* QEMU's slice: a pace is used up in a burst at its start. */
#define SLICE_MS            100
/* Requests per second at which each slice has some, and so some that wait. */
#define FREQUENT_PS         100
/* Or fewer, where the host's pages are huge: what they bring takes so much of the link, in permille. */
#define FREQUENT_PERMILLE   100
/* Of the link, in permille: it carries no more. */
#define FULL_PERMILLE       960
/* Of the link, in permille: what requests and background pages may fill together, */
#define FILL_PERMILLE       920
/* and background pages alone, once requests have faded. */
#define OPEN_PERMILLE       900
/* or as much as this, where it would not end in time otherwise. */
#define LATE_PERMILLE       960
/* or so much more than the link is thought to carry, when that was not in time. */
#define OVERDUE_FACTOR      2
/* or until the first look, however soon it is to end: requests bring the rest, one after the other, and each would wait
 * for the end of a burst that fills its slice. */
#define RUSH_PERMILLE       600
/* Opening covers a third of the way per sample: about a second from frequent to faded. */
#define OPENING_DIVISOR     3
/* The fall of the remainder is measured over this long: requests come in bursts. Less towards the end. */
#define WINDOW_US           1000000
#define WINDOW_DIVISOR      4
/* What is to end so soon is no more held back. */
#define LAST_US             300000
/* A floor that is no longer needed goes down by a quarter per window at the most, and not below what is needed: near
 * the link's rate the time that this would lose could not be made up for. Where the queue is not seen it goes on down:
 * only a pace that falls and rises shows a link there that is faster than thought. */
#define FLOOR_DIVISOR       4
/* Of what the bound on total time allows, in any case. */
#define LEAST_SLACK_DIVISOR 8
/* What ends so soon is over before a window or two have told how fast it goes. */
#define SHORT_US            2000000

static int64_t share_of_mib(uint64_t bps, uint64_t permille)
{
    int64_t mib = (int64_t)(bps / 1000 * permille / MIB);

    return mib > PACE_MIN_MIB ? mib : PACE_MIN_MIB;
}

static int64_t share_mib(const struct pcmig_rate *rate, uint64_t permille)
{
    return share_of_mib(pcmig_rate_now_bps(rate), permille);
}

/* Share for background pages while requests are frequent: the burst of a slice lasts as long as a request may wait. */
static uint64_t busy_share_permille(const struct pcmig_pacing *pacing)
{
    uint64_t share = (uint64_t)pacing->params.value[PCMIG_PARAM_REQUEST_WAIT_MS] * 1000 / SLICE_MS;

    return share < OPEN_PERMILLE ? share : OPEN_PERMILLE;
}

/* Those who wait for the link lose all that is left idle of it, each of them: so once more as long for each. What is
 * asked for goes before that all the same, as far as it fills the link. */
static uint64_t shared_share_permille(const struct pcmig_pacing *pacing)
{
    uint64_t share = busy_share_permille(pacing) * (1 + (uint64_t)pacing->sharers);

    return share < OPEN_PERMILLE ? share : OPEN_PERMILLE;
}

/* Right after the switch: every page is missing. */
static uint64_t first_share_permille(const struct pcmig_pacing *pacing)
{
    return busy_share_permille(pacing) * 2 / 3;
}

/* A pace of share S makes S of the requests wait, S / 2 of a slice on average. A link whose full queue drains within
 * that gains nothing by it. */
static bool gains_nothing(const struct pcmig_pacing *pacing, const struct pcmig_rate *rate)
{
    int64_t wait_ms = pacing->params.value[PCMIG_PARAM_REQUEST_WAIT_MS];

    return pcmig_rate_queue_us(rate) <= wait_ms * wait_ms * 1000 / (2 * SLICE_MS);
}

/* Right after the switch the guest asks for its first pages one after the other, and waits for the queue as many times:
 * as long as that is more than one may wait, a pace gains something on any link. */
static bool rushes(const struct pcmig_pacing *pacing, const struct pcmig_rate *rate)
{
    int64_t wait_us = pacing->params.value[PCMIG_PARAM_REQUEST_WAIT_MS] * 1000;

    return !pacing->rushed && pcmig_rate_queue_us(rate) > wait_us / (pacing->rush_pages + 1);
}

static uint64_t growth(uint64_t before, uint64_t now)
{
    return now > before ? now - before : 0;
}

/* What a request brings: all that went beyond the pace, by the requests. Over all of the time, as within a second
 * the ends of QEMU's slices would count. */
static void measure_page(struct pcmig_pacing *pacing, const struct pcmig_sample *sample, uint64_t requests,
                         uint64_t elapsed_us)
{
    uint64_t page_bytes = pcmig_passes_page_bytes(sample);
    uint64_t slice_bytes = (uint64_t)pacing->pace_mib * MIB / 1000 * SLICE_MS;
    uint64_t beyond, bytes = growth(pacing->last_processed_bytes, sample->memory_processed_bytes);

    if (page_bytes > PAGE_MAX_BYTES)
        page_bytes = PAGE_MAX_BYTES;
    if (pacing->page_bytes < page_bytes)
        pacing->page_bytes = page_bytes;
    if (pacing->pace_mib == 0 || bytes > UINT64_MAX / 4 || pacing->beyond_pace_bytes > UINT64_MAX / 4)
        return; /* without a pace nothing tells what was asked for from what was not */
    pacing->requests += requests;
    pacing->beyond_pace_bytes += bytes;
    pacing->paced_bytes += (uint64_t)pacing->pace_mib * MIB / 1000 * (elapsed_us / 1000);
    beyond = growth(pacing->paced_bytes + slice_bytes, pacing->beyond_pace_bytes);
    if (pacing->requests < 16)
        return;
    beyond /= pacing->requests;
    if (beyond < 4 * page_bytes)
        beyond = page_bytes; /* the small difference is headers and slices */
    pacing->page_bytes = beyond < PAGE_MAX_BYTES ? beyond : PAGE_MAX_BYTES;
}

static void measure_requests(struct pcmig_pacing *pacing, int64_t t_us, const struct pcmig_sample *sample,
                             const struct pcmig_rate *rate)
{
    uint64_t requests = growth(pacing->last_requests, sample->postcopy_requests);
    uint64_t elapsed_us = (uint64_t)(t_us - pacing->last_us);
    uint64_t busy, requests_bps;

    if (requests > UINT32_MAX)
        requests = UINT32_MAX;
    measure_page(pacing, sample, requests, elapsed_us);
    pacing->requests_ps = requests * 1000000 / elapsed_us;
    requests_bps =
        pacing->requests_ps < UINT64_MAX / PAGE_MAX_BYTES ? pacing->requests_ps * pacing->page_bytes : UINT64_MAX / 2;
    if (pacing->requests_bps == 0 || (pacing->sharers > 0 && requests_bps < pacing->requests_bps))
        pacing->requests_bps = requests_bps;
    else
        pacing->requests_bps = pacing->requests_bps / 2 + requests_bps / 2;
    pacing->requested_bytes += requests * pacing->page_bytes;
    busy = pacing->requests_ps * 1000 / FREQUENT_PS;
    if (requests_bps / (rate->link_bps / 1000 + 1) >= FREQUENT_PERMILLE)
        busy = 1000;
    if (busy > 1000)
        busy = 1000;
    if (busy >= pacing->busy_permille || pacing->sharers > 0)
        pacing->busy_permille = busy;
    else
        pacing->busy_permille -= (pacing->busy_permille - busy + OPENING_DIVISOR - 1) / OPENING_DIVISOR;
}

/* What the bound allows beyond the end of an unpaced migration, less what pre-copy has taken of it already, and a
 * eighth at the least. When the link turns out to be another than thought, so does that end, but nobody has more
 * time to spare. */
static void bound_the_end(struct pcmig_pacing *pacing, int64_t t_us, uint64_t remaining, uint64_t link_bps)
{
    int64_t unpaced_end_us = t_us + pcmig_rate_time_us(remaining, link_bps);
    int64_t factor = pacing->params.value[PCMIG_PARAM_TIME_FACTOR_PERMILLE] - 1000;
    int64_t took_us = unpaced_end_us - pacing->waited_us;
    int64_t all_us = took_us / 1000 < INT64_MAX / 2 / (factor + 1) ? took_us / 1000 * factor : INT64_MAX / 2;
    int64_t shared_us = all_us - all_us / (1 + pacing->sharers), slack_us;

    all_us -= shared_us;
    slack_us = all_us;
    pacing->shared_us = shared_us;
    if (pacing->finish_by_us == 0 && pacing->baseline_us > 0) {
        slack_us -= unpaced_end_us - pacing->baseline_us;
        if (slack_us < all_us / LEAST_SLACK_DIVISOR)
            slack_us = all_us / LEAST_SLACK_DIVISOR;
    } else if (pacing->finish_by_us != 0) {
        slack_us = pacing->finish_by_us - t_us - pcmig_rate_time_us(remaining, pacing->finish_link_bps);
    }
    if (slack_us < 0)
        slack_us = 0;
    if (slack_us > all_us)
        slack_us = all_us;
    pacing->finish_by_us = unpaced_end_us > INT64_MAX / 2 ? INT64_MAX : unpaced_end_us + slack_us;
    pacing->finish_link_bps = link_bps;
}

static uint64_t needed(uint64_t remaining, int64_t left_us)
{
    return remaining < UINT64_MAX / 1000000 ? remaining * 1000000 / (uint64_t)left_us
                                            : remaining / (((uint64_t)left_us + 999999) / 1000000);
}

/* What is over before a look or two have told how fast it goes gets from the start the pace that ends it in time. */
static void bound_the_first(struct pcmig_pacing *pacing, int64_t t_us, uint64_t remaining,
                            const struct pcmig_rate *rate)
{
    int64_t late_mib = share_mib(rate, LATE_PERMILLE), left_us;

    if (remaining == 0)
        return;
    bound_the_end(pacing, t_us, remaining, rate->link_bps);
    left_us = pacing->finish_by_us - t_us;
    if (left_us <= 0 || left_us >= SHORT_US) {
        pacing->finish_by_us = 0; /* what remains after the switch tells */
        return;
    }
    pacing->window_us = t_us;
    pacing->window_remaining_bytes = remaining;
    pacing->window_processed_bytes = UINT64_MAX; /* not known */
    pacing->floor_mib = (int64_t)(needed(remaining, left_us) / MIB);
    if (pacing->floor_mib > late_mib)
        pacing->floor_mib = late_mib;
    if (pacing->floor_mib > pacing->pace_mib)
        pacing->pace_mib = pacing->floor_mib;
    if (pacing->pace_mib > share_mib(rate, RUSH_PERMILLE))
        pacing->pace_mib = share_mib(rate, RUSH_PERMILLE);
}

void pcmig_pacing_begin(struct pcmig_pacing *pacing, const struct pcmig_params *params, const struct pcmig_rate *rate,
                        int64_t baseline_us, int64_t waited_us, unsigned wire_permille, int64_t t_us,
                        uint64_t remaining_bytes)
{
    int64_t sharers = pacing->sharers, rush = pacing->rush_pages;

    memset(pacing, 0, sizeof(*pacing));
    pacing->sharers = sharers;
    pacing->rush_pages = rush;
    pacing->params = *params;
    pacing->baseline_us = baseline_us;
    pacing->waited_us = waited_us;
    pacing->wire_permille = wire_permille;
    pacing->busy_permille = 1000;
    pacing->page_bytes = DEFAULT_PAGE_BYTES;
    pacing->pace_mib =
        gains_nothing(pacing, rate) && !rushes(pacing, rate) ? 0 : share_mib(rate, first_share_permille(pacing));
    if (pacing->pace_mib > 0 && pcmig_rate_known(rate))
        bound_the_first(pacing, t_us, remaining_bytes / 1000 * wire_permille, rate);
}

void pcmig_pacing_rush(struct pcmig_pacing *pacing, int64_t pages)
{
    pacing->rush_pages = pages < 0 ? 0 : pages < RUSH_PAGES_MAX ? pages : RUSH_PAGES_MAX;
}

void pcmig_pacing_share(struct pcmig_pacing *pacing, int64_t sharers)
{
    pacing->sharers = sharers;
}

static uint64_t per_second(uint64_t bytes, int64_t us)
{
    return bytes < UINT64_MAX / 1000000 ? bytes * 1000000 / (uint64_t)us : UINT64_MAX;
}

/* What is asked for takes all that the pace leaves of the link, or nearly: who waits for it cannot spare the rest. A
 * higher pace would not bring more pages, but others in their place, and have them wait for it. */
static bool requests_fill_it(const struct pcmig_pacing *pacing, const struct pcmig_rate *rate, uint64_t sent_bps)
{
    uint64_t permille = rate->link_bps / 1000;

    return pacing->sharers == 0 && pacing->requests_bps >= permille * FREQUENT_PERMILLE &&
           sent_bps >= permille * FULL_PERMILLE;
}

static void lower_floor(struct pcmig_pacing *pacing, uint64_t spare_bps)
{
    int64_t step_mib = (pacing->floor_mib + FLOOR_DIVISOR - 1) / FLOOR_DIVISOR;
    int64_t spare_mib = spare_bps / MIB < (uint64_t)step_mib ? (int64_t)(spare_bps / MIB) : step_mib;

    pacing->floor_mib -= spare_mib;
}

/* Keeps the floor of the pace at what the bound on total time asks for. */
static void keep_in_time(struct pcmig_pacing *pacing, int64_t t_us, const struct pcmig_sample *sample,
                         const struct pcmig_rate *rate)
{
    uint64_t remaining = sample->memory_remaining_bytes / 1000 * pacing->wire_permille, link_bps = rate->link_bps;
    int64_t late_mib = share_mib(rate, LATE_PERMILLE);
    int64_t left_us, window_us, missing_mib;
    uint64_t needed_bps, seen_bps, sent_bps, fallen;

    /* It may be of a link that was thought to be faster. */
    if (pacing->floor_mib > late_mib * OVERDUE_FACTOR)
        pacing->floor_mib = late_mib * OVERDUE_FACTOR;
    if (remaining == 0)
        return;
    if (pacing->finish_by_us == 0 || link_bps / 8 > pacing->finish_link_bps / 7 ||
        link_bps / 7 < pacing->finish_link_bps / 8) {
        bool first = pacing->finish_by_us == 0;

        if (first) {
            pacing->window_us = t_us;
            pacing->window_remaining_bytes = remaining;
            pacing->window_processed_bytes = sample->memory_processed_bytes;
        }
        /* The link is another than thought: so is the time that it takes. */
        bound_the_end(pacing, t_us, remaining, link_bps);
        left_us = pacing->finish_by_us - t_us;
        if (first && left_us > 0 && left_us < SHORT_US) {
            pacing->floor_mib = (int64_t)(needed(remaining, left_us) / MIB);
            if (pacing->floor_mib > late_mib)
                pacing->floor_mib = late_mib;
        }
    }
    left_us = pacing->finish_by_us - t_us;
    if (pacing->has_last && pacing->requests_ps < FREQUENT_PS && left_us >= LAST_US) {
        /* What requests brought is missing from now on. The window would tell a second later. */
        int64_t alone_mib = (int64_t)(growth(pacing->requests_bps, needed(remaining, left_us)) / MIB);

        alone_mib = alone_mib < late_mib ? alone_mib : late_mib;
        pacing->floor_mib = alone_mib > pacing->floor_mib ? alone_mib : pacing->floor_mib;
    }
    window_us = left_us / WINDOW_DIVISOR < WINDOW_US ? left_us / WINDOW_DIVISOR : WINDOW_US;
    if (t_us - pacing->window_us < window_us || t_us <= pacing->window_us)
        return;
    fallen = growth(remaining, pacing->window_remaining_bytes);
    seen_bps = per_second(fallen, t_us - pacing->window_us);
    sent_bps =
        per_second(growth(pacing->window_processed_bytes, sample->memory_processed_bytes), t_us - pacing->window_us);
    pacing->window_us = t_us;
    pacing->window_remaining_bytes = remaining;
    pacing->window_processed_bytes = sample->memory_processed_bytes;
    if (requests_fill_it(pacing, rate, sent_bps)) {
        lower_floor(pacing, UINT64_MAX);
        return;
    }
    /* So near the link's rate, and yet too slow: it carries more than was thought, or others take what the pace leaves
     * to them. From here on they are not given way to. */
    if (pacing->pace_mib >= late_mib && left_us < pcmig_rate_time_us(remaining, link_bps) - pacing->shared_us)
        late_mib *= OVERDUE_FACTOR;
    if (left_us < LAST_US) {
        pacing->floor_mib = late_mib;
        return;
    }
    needed_bps = needed(remaining, left_us);
    missing_mib = needed_bps > seen_bps ? (int64_t)((needed_bps - seen_bps) / MIB) + 1 : 0;
    if (missing_mib > 0)
        pacing->floor_mib = missing_mib < late_mib ? pacing->pace_mib + missing_mib : late_mib;
    else
        lower_floor(pacing, sample->queue_bytes < 0 ? UINT64_MAX : seen_bps - needed_bps);
    if (pacing->floor_mib > late_mib)
        pacing->floor_mib = late_mib;
}

/* The share of the link for background pages, in permille. */
static uint64_t background_permille(const struct pcmig_pacing *pacing, const struct pcmig_rate *rate)
{
    uint64_t first = first_share_permille(pacing), busy_max = shared_share_permille(pacing);
    uint64_t fill = pacing->sharers > 0 ? LATE_PERMILLE : FILL_PERMILLE;
    uint64_t asked = pacing->requests_bps / (rate->link_bps / 1000 + 1);
    uint64_t left = fill > asked ? fill - asked : 0;
    uint64_t ceiling = OPEN_PERMILLE - (OPEN_PERMILLE - busy_max) * pacing->busy_permille / 1000;

    if (left < first)
        left = first;
    return left < ceiling ? left : ceiling;
}

static enum pcmig_pacing_cause change(struct pcmig_pacing *pacing, int64_t pace, bool bound)
{
    int64_t before = pacing->pace_mib;

    pacing->pace_mib = pace;
    if (pace == before)
        return PCMIG_PACING_UNCHANGED;
    if (pace == 0)
        return PCMIG_PACING_FAST_LINK;
    if (bound)
        return PCMIG_PACING_TIME_BOUND;
    return before == 0 || pace < before ? PCMIG_PACING_REQUESTS_RISE : PCMIG_PACING_REQUESTS_FADE;
}

enum pcmig_pacing_cause pcmig_pacing_feed(struct pcmig_pacing *pacing, int64_t t_us, const struct pcmig_sample *sample,
                                          struct pcmig_rate *rate)
{
    int64_t pace = pacing->pace_mib;
    bool bound = false;

    if (pacing->has_last && t_us <= pacing->last_us)
        return PCMIG_PACING_UNCHANGED;
    if (pacing->has_last)
        measure_requests(pacing, t_us, sample, rate);
    pcmig_rate_feed_postcopy(rate, t_us, sample, (uint64_t)pacing->pace_mib * MIB, pacing->requested_bytes);
    if (!pcmig_rate_known(rate)) {
        /* Nothing to take a share of (a switch before the link was measured): open up step by step instead. */
        if (pacing->has_last)
            pace = pace < UNMEASURED_MAX_MIB ? pace * 2 : pace;
        if (rate->zeros && rate->zero_bps != 0 && pace > share_of_mib(rate->zero_bps, OPEN_PERMILLE))
            pace = share_of_mib(rate->zero_bps, OPEN_PERMILLE);
    } else if (gains_nothing(pacing, rate) && !(rushes(pacing, rate) && pace > 0)) {
        pace = 0;
        pacing->finish_by_us = 0;
    } else {
        if (pacing->has_last)
            pace = share_mib(rate, background_permille(pacing, rate));
        keep_in_time(pacing, t_us, sample, rate);
        bound = pacing->floor_mib > pace;
        if (bound)
            pace = pacing->floor_mib;
    }
    pacing->rushed = pacing->has_last;
    pacing->last_us = t_us;
    pacing->last_requests = sample->postcopy_requests;
    pacing->last_processed_bytes = sample->memory_processed_bytes;
    pacing->has_last = true;
    return change(pacing, pace, bound);
}

int64_t pcmig_pacing_unattended_mib(const struct pcmig_pacing *pacing, const struct pcmig_rate *rate)
{
    if (!pcmig_rate_known(rate) || gains_nothing(pacing, rate))
        return 0;
    return share_of_mib(rate->link_bps, OPEN_PERMILLE); /* zero pages end, and nobody would notice */
}
