/* SPDX-License-Identifier: Apache-2.0 */
/* See latency.h. */
#include "core/latency.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAGE_BYTES 4096u
/* A round trip beyond it is none. */
#define FAR_US     60000000

void pcmig_latency_init(struct pcmig_latency *l)
{
    memset(l, 0, sizeof(*l));
    l->now_us = l->queue_us = -1;
    pcmig_rate_init(&l->rate);
}

static uint64_t add(uint64_t a, uint64_t b)
{
    return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

uint64_t pcmig_latency_requests(const struct pcmig_latency_figures *figures)
{
    uint64_t requests = 0;

    for (int i = 0; i < PCMIG_LATENCY_BUCKETS; i++)
        requests = add(requests, figures->bucket[i]);
    return requests;
}

/* Bucket N has those from 2^N us to 2^(N+1); the first also what is shorter, the last what is longer. */
static int bucket_of(uint64_t us)
{
    int n = 0;

    while (us > 1 && n < PCMIG_LATENCY_BUCKETS - 1) {
        us >>= 1;
        n++;
    }
    return n;
}

static void note(struct pcmig_latency *l, uint64_t requests)
{
    struct pcmig_latency_figures *f = &l->figures;
    const uint64_t us = (uint64_t)l->now_us;
    uint64_t all;

    f->bucket[bucket_of(us)] = add(f->bucket[bucket_of(us)], requests);
    l->sum_us = us > 0 && requests > (UINT64_MAX - l->sum_us) / us ? UINT64_MAX : l->sum_us + us * requests;
    all = pcmig_latency_requests(f);
    f->mean_us = all > 0 ? l->sum_us / all : 0;
    l->source = PCMIG_LATENCY_ESTIMATED;
}

/* What is known of the link: what pre-copy has shown, or more where post-copy sends more. */
static uint64_t link_bps(const struct pcmig_latency *l, int64_t t_us, const struct pcmig_sample *sample)
{
    uint64_t sent = 0;

    if (l->sent_bytes > 0 && sample->memory_processed_bytes > l->sent_bytes)
        sent = sample->memory_processed_bytes - l->sent_bytes;
    if (sent > UINT64_MAX / 1000000 || t_us <= l->last_us)
        sent = 0;
    else
        sent = sent * 1000000 / (uint64_t)(t_us - l->last_us);
    return sent > l->rate.link_bps ? sent : l->rate.link_bps;
}

/* REQUESTS more have come by T_US. */
static void estimate(struct pcmig_latency *l, int64_t t_us, uint64_t requests)
{
    const uint64_t passed_us = t_us > l->last_us ? (uint64_t)(t_us - l->last_us) : 0;
    int64_t us = l->queue_us;

    if (requests == 0) {
        l->now_us = us;
        return;
    }
    if (l->vcpus > 0 && passed_us > 0 && passed_us < UINT64_MAX / l->vcpus) {
        const uint64_t share_us = passed_us * l->vcpus / requests;

        if (us < 0 || share_us < (uint64_t)us)
            us = (int64_t)share_us;
    }
    l->now_us = us;
    if (us >= 0)
        note(l, requests);
}

static void take_postcopy(struct pcmig_latency *l, int64_t t_us, const struct pcmig_sample *sample)
{
    const uint64_t bps = link_bps(l, t_us, sample);
    uint64_t page = sample->page_size_bytes != 0 ? sample->page_size_bytes : PAGE_BYTES;

    if (page < l->host_page_bytes)
        page = l->host_page_bytes;
    if (sample->queue_bytes >= 0 && bps > 0)
        l->queue_us = l->round_trip_us + pcmig_rate_time_us(add((uint64_t)sample->queue_bytes, page), bps);
    else
        l->queue_us = -1;
    if (l->looked)
        estimate(l, t_us, sample->postcopy_requests - l->requests_seen);
    l->requests_seen = sample->postcopy_requests;
    l->sent_bytes = sample->memory_processed_bytes;
    l->last_us = t_us;
}

void pcmig_latency_feed(struct pcmig_latency *l, const struct pcmig_input *input, bool precopy, bool postcopy)
{
    if (postcopy && !l->begun)
        l->last_us = input->t_us;
    l->begun = postcopy;
    switch (input->kind) {
    case PCMIG_INPUT_SAMPLE:
        if (input->sample.postcopy_requests < l->requests_seen)
            break; /* a late one */
        if (precopy)
            pcmig_rate_feed(&l->rate, input->t_us, &input->sample);
        else
            pcmig_rate_pause(&l->rate);
        if (postcopy && l->source != PCMIG_LATENCY_COUNTED)
            take_postcopy(l, input->t_us, &input->sample);
        else /* what came unseen, or was on its way when the stream broke, took nobody knows how long */
            l->requests_seen = input->sample.postcopy_requests;
        l->looked = true;
        break;
    case PCMIG_INPUT_FINAL:
        if (l->looked && input->sample.postcopy_requests > l->requests_seen && l->source != PCMIG_LATENCY_COUNTED)
            estimate(l, input->t_us, input->sample.postcopy_requests - l->requests_seen);
        l->requests_seen = input->sample.postcopy_requests;
        break;
    case PCMIG_INPUT_ROUND_TRIP:
        l->round_trip_us = input->code < 0 ? 0 : input->code < FAR_US ? input->code : FAR_US;
        break;
    case PCMIG_INPUT_HOST_PAGE:
        l->host_page_bytes = input->code > 0 ? (uint64_t)input->code : 0;
        break;
    case PCMIG_INPUT_VCPUS:
        l->vcpus = input->code > 0 ? (uint64_t)input->code : 0;
        break;
    case PCMIG_INPUT_LINK_RATE:
        pcmig_rate_told(&l->rate, input->t_us, input->code);
        break;
    case PCMIG_INPUT_LATENCY:
        l->figures = input->latency;
        l->source = PCMIG_LATENCY_COUNTED;
        break;
    default:
        break;
    }
}

struct pcmig_latency_now pcmig_latency_now(const struct pcmig_latency *l)
{
    return (struct pcmig_latency_now){l->source, l->figures.mean_us, l->now_us};
}

char *pcmig_latency_counting(const char *xml)
{
    static const char setting[] = "migration.postcopy-blocktime=on";
    static const char end[] = "</domain>";
    /* It may stand beside another of its kind; libvirt takes the arguments of all. */
    static const char element[] = "<qemu:commandline xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>"
                                  "<qemu:arg value='-global'/><qemu:arg value='%s'/></qemu:commandline>";
    const char *at = NULL;
    size_t size;
    char *out;

    if (strstr(xml, setting) != NULL)
        return strdup(xml);
    for (const char *next = strstr(xml, end); next != NULL; next = strstr(next + 1, end))
        at = next;
    if (at == NULL)
        return NULL;
    size = strlen(xml) + sizeof(element) + sizeof(setting);
    out = malloc(size);
    if (out == NULL)
        return NULL;
    memcpy(out, xml, (size_t)(at - xml));
    size -= (size_t)(at - xml);
    snprintf(out + (at - xml), size, element, setting);
    snprintf(out + strlen(out), size - strlen(out + (at - xml)), "%s", at);
    return out;
}

const char *pcmig_latency_source_name(enum pcmig_latency_source source)
{
    static const char *const names[] = {
        [PCMIG_LATENCY_NONE] = "none",
        [PCMIG_LATENCY_ESTIMATED] = "estimated",
        [PCMIG_LATENCY_COUNTED] = "qemu",
    };

    _Static_assert(sizeof(names) / sizeof(names[0]) == PCMIG_LATENCY_SOURCE_COUNT, "every source has a name");
    return (unsigned)source < PCMIG_LATENCY_SOURCE_COUNT ? names[source] : "unknown";
}
