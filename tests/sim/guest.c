/* SPDX-License-Identifier: Apache-2.0 */
/* See guest.h. */
#include "guest.h"

#include <math.h>
#include <string.h>

#define PAGES_OF_MIB 256.0
#define EARLY        6
#define BEAT_US      20000
/* KVM write-protects memory in chunks of this many pages, each just before it is sent (QEMU's clear_bmap, since 4.2).
 */
#define CLEAR_CHUNK  262144.0

void guest_init(struct guest *guest, const struct scenario *s, uint64_t seed)
{
    double idle, reads = 1 + s->reads_permille / 1000;
    struct set *sets = guest->sets;

    memset(guest, 0, sizeof(*guest));
    guest->pages = s->memory_mib * PAGES_OF_MIB;
    guest->host_page = s->host_page_kib / 4;
    guest->vcpus = s->vcpus;
    guest->random = seed * 0x9e3779b97f4a7c15ULL + 0x2545f4914f6cdd1dULL;
    sets[SET_ZERO].pages = floor(guest->pages * s->zero_permille / 1000);
    sets[SET_CORE_RW] = (struct set){.pages = s->core_rw, .writes_ps = s->core_rw * 100};
    sets[SET_CORE_RO] = (struct set){.pages = s->core_ro};
    sets[SET_HOT] = (struct set){.pages = s->hot_mib * PAGES_OF_MIB, .writes_ps = s->hot_mib > 0 ? s->hot_wps : 0};
    sets[SET_WARM] = (struct set){.pages = s->warm_mib * PAGES_OF_MIB, .writes_ps = s->warm_mib > 0 ? s->warm_wps : 0};
    sets[SET_BURST] = (struct set){.pages = s->burst_mib * PAGES_OF_MIB};
    idle = guest->pages;
    for (int i = 0; i < SET_COUNT; i++)
        idle -= i == SET_IDLE ? 0 : sets[i].pages;
    sets[SET_IDLE].pages = idle > 0 ? idle : 0;
    for (int i = 0; i < SET_COUNT; i++) {
        sets[i].left = sets[i].fresh = sets[i].pages;
        sets[i].touches_ps = sets[i].writes_ps * reads;
    }
    sets[SET_HOT].scan_ps = sets[SET_HOT].pages > 0 ? s->scan_pps : 0;
    /* The core is what a heartbeat touches; it is counted apart. */
    sets[SET_CORE_RW].touches_ps = 0;
    guest->runs = true;
    guest->next_us = INT64_MAX;
    /* Several guests are not the same one, in step. */
    if (s->guests > 1) {
        double factor = 0.9 + 0.2 * guest_random(guest);

        for (int i = 0; i < SET_COUNT; i++)
            sets[i].writes_ps *= factor;
    }
}

double guest_random(struct guest *guest)
{
    uint64_t z = guest->random += 0x9e3779b97f4a7c15ULL;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return (double)((z ^ (z >> 31)) >> 11) / 9007199254740992.0 + 1.0 / 18014398509481984.0;
}

/* The part of the full rate that is written at NOW_US. */
static double activity(const struct scenario *s, int64_t now_us)
{
    if (s->phase_ms <= 0 || fmod((double)now_us / 1000, s->phase_ms) < s->phase_ms * s->phase_busy_permille / 1000)
        return 1;
    return s->quiet_permille / 1000;
}

/* Whether the burst, which writes each of its pages about three times, is on. */
static bool bursting(const struct scenario *s, int64_t now_us)
{
    double at_ms = (double)now_us / 1000 - s->burst_at_ms;

    if (s->burst_mib <= 0 || at_ms < 0)
        return false;
    return (s->burst_every_ms > 0 ? fmod(at_ms, s->burst_every_ms) : at_ms) < s->burst_ms;
}

void guest_write(struct guest *guest, const struct scenario *s, int64_t now_us, double dt_s)
{
    double factor = activity(s, now_us);
    /* A page that waits to be sent is found dirty again if it was written after its part of the log was cleared: with
     * KVM that happens chunk by chunk as the pass comes there, with TCG at each synchronisation. */
    double logged = s->kvm != 0 ? fmin(1, CLEAR_CHUNK / guest->pages) : 1;

    for (int i = 0; i < SET_COUNT; i++) {
        struct set *set = &guest->sets[i];
        double rate = i == SET_BURST ? (bursting(s, now_us) ? 3 * set->pages / (s->burst_ms / 1000) : 0)
                                     : set->writes_ps * (i == SET_HOT || i == SET_WARM ? factor : 1);
        double clean = set->pages - set->left - set->dirty, reach;

        if (rate <= 0 || set->pages <= 0)
            continue;
        reach = 1 - exp(-rate * dt_s / set->pages); /* part of the pages that is written at least once */
        if (clean > 0)
            set->dirty += clean * reach;
        if (set->left > set->dirty_left)
            set->dirty_left += (set->left - set->dirty_left) * reach * logged;
    }
}

double guest_left(const struct guest *guest)
{
    double left = 0;

    for (int i = 0; i < SET_COUNT; i++)
        left += guest->sets[i].left;
    return left;
}

static double core_left(const struct guest *guest)
{
    return guest->sets[SET_CORE_RW].left + guest->sets[SET_CORE_RO].left;
}

static double next(const struct set *set)
{
    return fmax(0, set->left - set->behind);
}

double guest_next(const struct guest *guest)
{
    double sum = 0;

    for (int i = 0; i < SET_COUNT; i++)
        sum += next(&guest->sets[i]);
    return sum;
}

double guest_next_zero(const struct guest *guest)
{
    return next(&guest->sets[SET_ZERO]);
}

static void begin_pass(struct guest *guest)
{
    guest->place = 0;
    for (int i = 0; i < SET_COUNT; i++)
        guest->sets[i].behind = 0;
}

/* What is only read of the core, a kernel for the most part, lies low: a post-copy has passed it early. */
static double core_part(const struct guest *guest, double part)
{
    double end = 1.0 / EARLY;

    return guest->place < end ? fmin(1, part * (1 - guest->place) / (end - guest->place)) : 1;
}

void guest_sent(struct guest *guest, double pages)
{
    double to_come = guest_next(guest), part = to_come > 0 ? fmin(1, pages / to_come) : 1;

    for (int i = 0; i < SET_COUNT; i++) {
        struct set *set = &guest->sets[i];
        double sent = next(set) * (i == SET_CORE_RO && guest->left_source ? core_part(guest, part) : part);
        double again = set->left > 0 ? set->dirty_left * sent / set->left : 0;

        set->fresh -= fmin(set->fresh, sent);
        set->left -= sent;
        set->dirty += again;
        set->dirty_left -= again;
    }
    if (guest->core_missing > core_left(guest) / guest->host_page)
        guest->core_missing = ceil(core_left(guest) / guest->host_page - 1e-6);
    guest->place += (1 - guest->place) * part;
    if (to_come - pages < 0.5)
        begin_pass(guest);
}

/* Pages are found dirty at any address: those before the place where the pass is wait for the next one. */
double guest_synchronise(struct guest *guest)
{
    double found = 0;

    for (int i = 0; i < SET_COUNT; i++) {
        struct set *set = &guest->sets[i];
        double clean_before = fmax(0, set->pages * guest->place - set->behind);
        double clean_after = fmax(0, set->pages * (1 - guest->place) - next(set));

        found += set->dirty;
        if (clean_before + clean_after > 0)
            set->behind += set->dirty * clean_before / (clean_before + clean_after);
        set->left += set->dirty;
        set->dirty = set->dirty_left = 0;
    }
    if (guest_next(guest) < 0.5)
        begin_pass(guest);
    return found;
}

void guest_stop(struct guest *guest, int64_t now_us)
{
    guest->beat_us = now_us - (int64_t)(guest_random(guest) * BEAT_US);
    guest->beat_due_us = guest->beat_us + BEAT_US;
    guest->silence_switch_us = -1;
    guest->left_source = true;
}

/* QEMU sends a host page as a whole if any page of it is missing. */
void guest_spread_to_host_pages(struct guest *guest)
{
    begin_pass(guest); /* what is missing is missing, wherever */
    for (int i = 0; i < SET_COUNT; i++) {
        struct set *set = &guest->sets[i];
        double fresh = fmin(set->fresh, set->left), sent = set->pages - fresh;
        double share = sent > 0 ? (set->left - fresh) / sent : 0;

        if (share > 0 && guest->host_page > 1)
            set->left = fresh + sent * (1 - pow(1 - fmin(share, 1), guest->host_page));
    }
}

void guest_resume(struct guest *guest, int64_t now_us, bool missing)
{
    guest->runs = true;
    guest->blocked = false;
    guest->since_us = now_us;
    guest->core_missing = missing ? ceil(core_left(guest) / guest->host_page - 1e-6) : 0;
    guest->next_us = guest->core_missing > 0 ? now_us : INT64_MAX;
    guest->sets[SET_HOT].unscanned = guest->sets[SET_HOT].pages;
}

/* Missing pages of SET met per second if all vCPUs run. What was read in turn is not missing any more. */
static double set_faults_ps(const struct set *set)
{
    double faults = 0;

    if (set->left < 1e-6)
        return 0;
    faults = set->touches_ps * set->left / set->pages;
    if (set->scan_ps > 0 && set->unscanned > 0)
        faults += set->scan_ps * fmin(1, set->left / set->unscanned);
    return faults;
}

double guest_faults_ps(const struct guest *guest)
{
    double sum = 0;

    for (int i = 0; i < SET_COUNT; i++)
        sum += set_faults_ps(&guest->sets[i]);
    return sum / guest->vcpus;
}

static void scan(struct guest *guest, double running_s)
{
    struct set *hot = &guest->sets[SET_HOT];

    if (hot->scan_ps <= 0)
        return;
    hot->unscanned = fmax(0, hot->unscanned - hot->scan_ps * running_s);
    hot->left = fmin(hot->left, hot->unscanned);
}

static void take(struct set *set, double pages)
{
    set->left = set->left > pages ? set->left - pages : 0;
}

void guest_fetch(struct guest *guest, double host_pages, bool core)
{
    double pages = host_pages * guest->host_page, sum = 0, weight[SET_COUNT];

    if (core) {
        take(&guest->sets[guest->sets[SET_CORE_RW].left > 0 ? SET_CORE_RW : SET_CORE_RO], pages);
        return;
    }
    for (int i = 0; i < SET_COUNT; i++) {
        weight[i] = set_faults_ps(&guest->sets[i]);
        sum += weight[i];
    }
    for (int i = 0; i < SET_COUNT && sum > 0; i++)
        take(&guest->sets[i], pages * weight[i] / sum);
}

/* The first vCPU runs from START_US to END_US: heartbeats that were due while it could not run are one, late. */
static void beat(struct guest *guest, int64_t start_us, int64_t end_us)
{
    while (guest->beat_due_us <= end_us) {
        int64_t at_us = guest->beat_due_us > start_us ? guest->beat_due_us : start_us;
        int64_t silence_us = at_us - guest->beat_us;

        if (guest->silence_switch_us < 0)
            guest->silence_switch_us = silence_us;
        else if (silence_us > guest->silence_later_us)
            guest->silence_later_us = silence_us;
        guest->beat_us = at_us;
        guest->beat_due_us = at_us + BEAT_US;
    }
}

void guest_meet(struct guest *guest, int64_t latency_us)
{
    bool core = guest->core_missing > 0;

    if (!core) {
        beat(guest, guest->since_us, guest->next_us);
        scan(guest, (double)(guest->next_us - guest->since_us) / 1e6);
    }
    guest->blocked = true;
    guest->next_us += latency_us > 0 ? latency_us : 1;
    guest_fetch(guest, 1, core);
    guest->core_missing -= core ? 1 : 0;
}

static int64_t next_fault_us(struct guest *guest, int64_t now_us)
{
    double faults_ps = guest_faults_ps(guest), in_s;

    if (guest->core_missing > 0)
        return now_us;
    if (faults_ps < 1e-9)
        return INT64_MAX;
    in_s = -log(guest_random(guest)) / faults_ps;
    return in_s > 1e9 ? INT64_MAX : now_us + (int64_t)(in_s * 1e6) + 1;
}

void guest_go_on(struct guest *guest)
{
    guest->blocked = false;
    guest->since_us = guest->next_us;
    guest->next_us = next_fault_us(guest, guest->next_us);
}

void guest_reach(struct guest *guest, int64_t now_us)
{
    if (!guest->runs || guest->blocked || guest->core_missing > 0)
        return;
    beat(guest, guest->since_us, now_us);
    scan(guest, (double)(now_us - guest->since_us) / 1e6);
    guest->since_us = now_us;
    /* Pages have come meanwhile; an exponential wait has no memory, so it may be drawn anew. */
    guest->next_us = next_fault_us(guest, now_us);
}
