/* SPDX-License-Identifier: Apache-2.0 */
/* Passes over the guest's memory. See passes.h. */
#include "core/passes.h"

#include <string.h>

#define DEFAULT_PAGE_BYTES 4096u
/* No figure of a real guest comes near; it keeps products with 1000 inside 64 bits whatever is reported. */
#define PAGES_MAX          (UINT64_C(1) << 52)
/* QEMU's first synchronisation belongs to the set-up; the second is the first one that follows pages. */
#define FIRST_ITERATION    1u

static uint64_t bounded(uint64_t pages)
{
    return pages < PAGES_MAX ? pages : PAGES_MAX;
}

uint64_t pcmig_passes_page_bytes(const struct pcmig_sample *sample)
{
    return sample->page_size_bytes != 0 ? sample->page_size_bytes : DEFAULT_PAGE_BYTES;
}

uint64_t pcmig_passes_pages(const struct pcmig_sample *sample, uint64_t bytes)
{
    return bounded(bytes / pcmig_passes_page_bytes(sample));
}

uint64_t pcmig_passes_sent_pages(const struct pcmig_sample *sample)
{
    return bounded(bounded(sample->normal_pages) + bounded(sample->zero_pages) + bounded(sample->encoded_pages));
}

void pcmig_passes_init(struct pcmig_passes *passes, unsigned tolerance_permille)
{
    memset(passes, 0, sizeof(*passes));
    passes->tolerance_permille = tolerance_permille < 999 ? tolerance_permille : 999;
}

/* The first pass counts from the start of the migration even when the first sample comes late. It has to send the
 * guest's memory, or less where QEMU leaves memory out (unplugged virtio-mem). */
static void begin_first(struct pcmig_passes *passes, int64_t t_us, const struct pcmig_sample *sample)
{
    uint64_t total = pcmig_passes_pages(sample, sample->memory_total_bytes);
    uint64_t remaining = pcmig_passes_pages(sample, sample->memory_remaining_bytes);
    uint64_t all = pcmig_passes_sent_pages(sample) + remaining;

    passes->running = (struct pcmig_pass){.number = 1, .end_us = t_us};
    passes->running.start_remaining_pages = remaining != 0 && all < total ? all : total;
    passes->sent_at_start_pages = 0;
    passes->iteration_at_start = FIRST_ITERATION;
}

static void begin_next(struct pcmig_passes *passes, const struct pcmig_sample *sample)
{
    passes->last = passes->running;
    passes->done++;
    passes->running = (struct pcmig_pass){
        .number = passes->done + 1,
        .start_us = passes->last.end_us,
        .end_us = passes->last.end_us,
        .start_remaining_pages = passes->last.remaining_pages,
        .remaining_pages = passes->last.remaining_pages,
    };
    passes->sent_at_start_pages = pcmig_passes_sent_pages(sample);
    passes->iteration_at_start = sample->iteration;
}

static bool is_over(const struct pcmig_passes *passes, const struct pcmig_sample *sample)
{
    const struct pcmig_pass *pass = &passes->running;
    uint64_t slack = pass->start_remaining_pages * passes->tolerance_permille / 1000;
    uint64_t needed = pass->start_remaining_pages - slack;
    bool synchronised;

    if (needed == 0)
        needed = 1;
    /* Where iterations are not reported, pages that came back are the only sign of a synchronisation. */
    synchronised = sample->iteration ? sample->iteration > passes->iteration_at_start : pass->dirtied_pages != 0;
    return synchronised && pass->sent_pages >= needed;
}

bool pcmig_passes_feed(struct pcmig_passes *passes, int64_t t_us, const struct pcmig_sample *sample)
{
    struct pcmig_pass *pass = &passes->running;
    uint64_t sent = pcmig_passes_sent_pages(sample);
    uint64_t seen;

    if (sample->memory_total_bytes == 0)
        return false;
    if (pass->number == 0)
        begin_first(passes, t_us, sample);
    if (t_us < pass->end_us || sent < passes->sent_at_start_pages + pass->sent_pages)
        return false;

    pass->end_us = t_us;
    pass->sent_pages = sent - passes->sent_at_start_pages;
    pass->remaining_pages = pcmig_passes_pages(sample, sample->memory_remaining_bytes);
    /* Had nothing been dirtied, sent and remaining pages would still add up to what the pass began with. That is
     * immune to when QEMU synchronises. */
    seen = pass->remaining_pages + pass->sent_pages;
    pass->dirtied_pages = seen > pass->start_remaining_pages ? seen - pass->start_remaining_pages : 0;

    if (!is_over(passes, sample))
        return false;
    begin_next(passes, sample);
    return true;
}

unsigned pcmig_passes_permille(const struct pcmig_passes *passes)
{
    const struct pcmig_pass *pass = &passes->running;

    if (pass->number == 0)
        return 0;
    if (pass->sent_pages >= pass->start_remaining_pages)
        return pass->start_remaining_pages ? 1000 : 0;
    return (unsigned)(pass->sent_pages * 1000 / pass->start_remaining_pages);
}
