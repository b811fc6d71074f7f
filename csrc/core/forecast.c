/* SPDX-License-Identifier: Apache-2.0 */
/* See forecast.h. */
#include "core/forecast.h"

#include <string.h>

#define WHOLE            1000u
/* What a migration that is not completed can reach. */
#define NEARLY           (WHOLE - 1)
#define FIRST_PASS       (WHOLE / 2)
/* QEMU 11 has synchronised so often within its first pass, where older ones do once. */
#define ALWAYS           4
/* Pages that become dirty per page sent: as many is no end, and so near to as many that the next pass tells the same.
 */
#define ENDLESS_PERMILLE 950
/* From here on (the policy's NOT_CONVERGING) each pass leaves so much that a little more of it puts the end off by as
 * much as all that was told. */
#define UNSURE_PERMILLE  667
#define FALL_WINDOW_US   2000000
/* Of a time that was reckoned from one rate, which changes. */
#define LEAST_PERMILLE   900
#define MOST_PERMILLE    1250
/* No time beyond is told: 30 days. */
#define TIME_MAX_US      (INT64_C(30) * 24 * 3600 * 1000000)
/* 285 years: times beyond, which only a damaged trace has, count as this one. */
#define NOW_MAX_US       (INT64_C(1) << 53)
/* The pause that QEMU may end pre-copy with, where nobody has said. */
#define DOWNTIME_MS      300

void pcmig_forecast_init(struct pcmig_forecast *f, bool bounded)
{
    memset(f, 0, sizeof(*f));
    f->bounded = bounded;
    f->least_us = f->most_us = -1;
    pcmig_passes_init(&f->passes, PCMIG_PASSES_TOLERANCE_PERMILLE);
    pcmig_convergence_init(&f->convergence);
    pcmig_rate_init(&f->rate);
}

static unsigned share(uint64_t part, uint64_t whole, unsigned of)
{
    if (whole == 0)
        return 0;
    if (part >= whole)
        return of;
    /* Both shortened alike, so that the product fits. */
    while (whole > UINT64_MAX / WHOLE) {
        whole >>= 1;
        part >>= 1;
    }
    return (unsigned)(part * of / whole);
}

static bool in_postcopy(const struct pcmig_forecast *f)
{
    return f->moved;
}

static int64_t time_us(uint64_t bytes, uint64_t bps)
{
    int64_t us = pcmig_rate_time_us(bytes, bps);

    return us < TIME_MAX_US ? us : TIME_MAX_US;
}

/* --- measuring ---------------------------------------------------------------------------------------------------- */

static void measure_fall(struct pcmig_forecast *f, int64_t t_us)
{
    uint64_t left = f->sample.memory_remaining_bytes;

    if (f->window_us == 0 || left > f->window_bytes || t_us < f->window_us) {
        f->window_us = t_us > 0 ? t_us : 1;
        f->window_bytes = left;
        return;
    }
    if (t_us - f->window_us < FALL_WINDOW_US)
        return;
    f->fall_bps = (f->window_bytes - left) / (uint64_t)((t_us - f->window_us) / 1000) * 1000;
    f->window_us = t_us;
    f->window_bytes = left;
}

static void take_sample(struct pcmig_forecast *f, int64_t t_us, const struct pcmig_sample *sample)
{
    f->sample = *sample;
    if (sample->memory_total_bytes == 0)
        return;
    if (in_postcopy(f)) {
        if (f->base_bytes < sample->memory_remaining_bytes) {
            f->base_bytes = sample->memory_remaining_bytes;
            f->base_permille = f->permille;
        }
        measure_fall(f, t_us);
        return;
    }
    (void)pcmig_passes_feed(&f->passes, t_us, sample);
    if (f->passes.done == 0 && sample->iteration > ALWAYS)
        f->always = true;
    pcmig_rate_feed(&f->rate, t_us, sample);
    pcmig_convergence_feed(&f->convergence, t_us, sample, &f->passes);
}

static void take_event(struct pcmig_forecast *f, enum pcmig_event event)
{
    switch (event) {
    case PCMIG_EVENT_SRC_STOPPED_MIGRATED:
    case PCMIG_EVENT_DST_RESUMED_MIGRATED:
    case PCMIG_EVENT_CALL_SUCCEEDED:
        f->completed = true;
        break;
    case PCMIG_EVENT_SRC_SUSPENDED_POSTCOPY:
    case PCMIG_EVENT_DST_RESUMED_POSTCOPY:
        if (!f->moved)
            f->base_permille = f->permille;
        f->moved = true;
        break;
    default:
        break;
    }
}

/* --- the share ---------------------------------------------------------------------------------------------------- */

static unsigned memory_permille(const struct pcmig_forecast *f)
{
    uint64_t total = f->sample.memory_total_bytes, left = f->sample.memory_remaining_bytes;

    if (in_postcopy(f))
        return f->base_bytes <= left
                   ? f->base_permille
                   : f->base_permille + share(f->base_bytes - left, f->base_bytes, WHOLE - f->base_permille);
    if (f->passes.done == 0)
        return share(pcmig_passes_permille(&f->passes), WHOLE, FIRST_PASS);
    if (!f->always)
        left = f->passes.running.start_remaining_pages * pcmig_passes_page_bytes(&f->sample);
    return FIRST_PASS + (left < total ? share(total - left, total, WHOLE - FIRST_PASS) : 0);
}

static void tell_share(struct pcmig_forecast *f)
{
    const struct pcmig_sample *s = &f->sample;
    uint64_t disk = s->disk_total_bytes, memory = s->memory_total_bytes;
    unsigned permille = memory > 0 ? memory_permille(f) : 0;

    /* Once the guest has left the source, no disk is copied any more. */
    if (disk > 0 && !in_postcopy(f)) {
        uint64_t done = s->disk_remaining_bytes < disk ? disk - s->disk_remaining_bytes : 0;
        unsigned of_disk = share(done, disk, WHOLE);

        /* While disks are copied nothing is said of memory: it counts as much as they do. */
        if (memory == 0)
            memory = disk;
        permille = of_disk - share(memory, disk < UINT64_MAX - memory ? disk + memory : UINT64_MAX, of_disk) +
                   share(memory, disk < UINT64_MAX - memory ? disk + memory : UINT64_MAX, permille);
    }
    if (permille > NEARLY)
        permille = NEARLY;
    if (f->completed)
        permille = WHOLE;
    if (permille > f->permille)
        f->permille = permille;
}

/* --- the time ----------------------------------------------------------------------------------------------------- */

static void tell(struct pcmig_forecast *f, enum pcmig_outlook outlook, int64_t least_us, int64_t most_us)
{
    f->outlook = outlook;
    f->least_us = least_us;
    f->most_us = most_us < 0 || most_us > least_us ? most_us : least_us;
}

/* Of pages that have been gone through, those that were not zero. */
static uint64_t without_zero(const struct pcmig_sample *s, uint64_t bytes)
{
    uint64_t sent = pcmig_passes_sent_pages(s), zero = s->zero_pages;

    if (sent == 0 || zero >= sent || sent > UINT32_MAX * UINT64_C(1000))
        return bytes;
    return bytes / WHOLE * ((sent - zero) * WHOLE / sent);
}

static void foresee_postcopy(struct pcmig_forecast *f)
{
    uint64_t left = f->sample.memory_remaining_bytes, link = f->rate.link_bps;
    uint64_t now = f->fall_bps > 0 ? f->fall_bps : f->sample.memory_bps;
    uint64_t best = link > now ? link : now;

    if (now == 0)
        tell(f, best == 0 ? PCMIG_OUTLOOK_EARLY : PCMIG_OUTLOOK_LEAST, best == 0 ? -1 : time_us(left, best), -1);
    else
        tell(f, PCMIG_OUTLOOK_RANGE, time_us(left, best) / WHOLE * LEAST_PERMILLE,
             time_us(left, now) / WHOLE * MOST_PERMILLE);
}

/* QEMU that synchronises all the time finds more each time than fits in the pause that it may end with. */
static bool finds_too_much(const struct pcmig_forecast *f)
{
    const struct pcmig_convergence_window *w = &f->convergence.lowest;

    return f->always && w->synchronisations > 0 &&
           w->dirtied_pages / w->synchronisations >
               pcmig_passes_pages(&f->sample, f->rate.link_bps / 1000 * DOWNTIME_MS);
}

static void foresee_precopy(struct pcmig_forecast *f)
{
    const struct pcmig_sample *s = &f->sample;
    uint64_t bps = f->rate.link_bps != 0 ? f->rate.link_bps : s->memory_bps;
    uint64_t left = s->memory_remaining_bytes, permille, endless;
    int64_t least_us, disk_us, once_us;

    if (bps == 0 || s->memory_total_bytes == 0) {
        tell(f, PCMIG_OUTLOOK_EARLY, -1, -1);
        return;
    }
    disk_us = time_us(s->disk_remaining_bytes, bps);
    once_us = time_us(left, bps);
    least_us = disk_us + (f->passes.done == 0 ? time_us(without_zero(s, left), bps) : once_us);
    if (f->passes.done == 0 || !f->convergence.known) {
        /* All of it may be dirty again by then. */
        uint64_t again = f->passes.done == 0 ? s->memory_total_bytes : left;

        tell(f, f->bounded ? PCMIG_OUTLOOK_RANGE : PCMIG_OUTLOOK_LEAST, least_us,
             f->bounded ? disk_us + once_us + time_us(again, bps) / WHOLE * MOST_PERMILLE : -1);
        return;
    }
    permille = pcmig_convergence_permille(&f->convergence.lowest);
    /* A guest at the edge is not told to end in this moment, and not to in the next. */
    endless = f->outlook == PCMIG_OUTLOOK_NOT_CONVERGING ? UNSURE_PERMILLE : ENDLESS_PERMILLE;
    if (permille < endless && !finds_too_much(f)) {
        /* Each pass leaves PERMILLE of what the one before began with. */
        uint64_t began = f->always ? left : f->passes.running.start_remaining_pages * pcmig_passes_page_bytes(s);
        int64_t most_us = once_us + time_us(began, bps) / (int64_t)(WHOLE - permille) * (int64_t)permille;

        if (permille >= UNSURE_PERMILLE)
            tell(f, PCMIG_OUTLOOK_LEAST, least_us, -1);
        else
            tell(f, PCMIG_OUTLOOK_RANGE, least_us,
                 disk_us + (most_us < TIME_MAX_US ? most_us : TIME_MAX_US) / WHOLE * MOST_PERMILLE);
    } else if (left <= f->rate.link_bps / 1000 * DOWNTIME_MS && !f->always) {
        tell(f, PCMIG_OUTLOOK_LEAST, least_us, -1); /* about to end, unless it is not */
    } else {
        tell(f, PCMIG_OUTLOOK_NOT_CONVERGING, least_us, -1);
    }
}

static void tell_time(struct pcmig_forecast *f)
{
    if (f->completed || f->phase == PCMIG_PHASE_FINISHED)
        tell(f, PCMIG_OUTLOOK_OVER, 0, 0);
    else if (f->phase == PCMIG_PHASE_PAUSED)
        tell(f, PCMIG_OUTLOOK_INTERRUPTED, -1, -1);
    else if (in_postcopy(f))
        foresee_postcopy(f);
    else
        foresee_precopy(f);
}

void pcmig_forecast_feed(struct pcmig_forecast *f, const struct pcmig_input *input, enum pcmig_phase phase)
{
    f->phase = phase;
    if (input->t_us > f->now_us)
        f->now_us = input->t_us < NOW_MAX_US ? input->t_us : NOW_MAX_US;
    if (phase == PCMIG_PHASE_PAUSED)
        f->window_us = 0;
    if (input->kind == PCMIG_INPUT_SAMPLE)
        take_sample(f, f->now_us, &input->sample);
    else if (input->kind == PCMIG_INPUT_FINAL)
        f->completed = true;
    else if (input->kind == PCMIG_INPUT_EVENT)
        take_event(f, (enum pcmig_event)input->code);
    tell_share(f);
    tell_time(f);
}

void pcmig_forecast_wait(struct pcmig_forecast *f)
{
    tell(f, PCMIG_OUTLOOK_WAITS, -1, -1);
}

void pcmig_forecast_end(struct pcmig_forecast *f, bool completed, enum pcmig_phase phase)
{
    f->phase = phase;
    f->completed = completed;
    /* What was fed may have looked like the end. */
    if (!completed && f->permille > NEARLY)
        f->permille = NEARLY;
    tell_share(f);
    tell_time(f);
}

unsigned pcmig_forecast_passes(const struct pcmig_forecast *f, unsigned *permille)
{
    *permille = pcmig_passes_permille(&f->passes);
    return f->passes.done;
}

const char *pcmig_outlook_name(enum pcmig_outlook outlook)
{
    static const char *const names[] = {
        [PCMIG_OUTLOOK_EARLY] = "too-early",
        [PCMIG_OUTLOOK_RANGE] = "range",
        [PCMIG_OUTLOOK_LEAST] = "least",
        [PCMIG_OUTLOOK_NOT_CONVERGING] = "not-converging",
        [PCMIG_OUTLOOK_INTERRUPTED] = "interrupted",
        [PCMIG_OUTLOOK_WAITS] = "waits",
        [PCMIG_OUTLOOK_OVER] = "over",
    };

    _Static_assert(sizeof(names) / sizeof(names[0]) == PCMIG_OUTLOOK_COUNT, "every outlook has a name");
    return (unsigned)outlook < PCMIG_OUTLOOK_COUNT ? names[outlook] : "unknown";
}
