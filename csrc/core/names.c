/* SPDX-License-Identifier: Apache-2.0 */
/* Tables of names. See names.h. */
#include "core/names.h"

#include <assert.h>
#include <string.h>

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

static const char *const input_kinds[] = {
    [PCMIG_INPUT_SAMPLE] = "sample",
    [PCMIG_INPUT_QUEUE] = "queue",
    [PCMIG_INPUT_EVENT] = "event",
    [PCMIG_INPUT_ITERATION] = "iteration",
    [PCMIG_INPUT_TICK] = "tick",
    [PCMIG_INPUT_REQUEST] = "request",
    [PCMIG_INPUT_FINAL] = "final",
    [PCMIG_INPUT_TURN] = "turn",
    [PCMIG_INPUT_DIRTY_RATE] = "dirty-rate",
    [PCMIG_INPUT_DOWNTIME_LIMIT] = "downtime-limit",
    [PCMIG_INPUT_LINK_RATE] = "link-rate",
    [PCMIG_INPUT_BEHIND] = "behind",
    [PCMIG_INPUT_ROUND_TRIP] = "round-trip",
    [PCMIG_INPUT_HOST_PAGE] = "host-page",
    [PCMIG_INPUT_LATENCY] = "latency",
    [PCMIG_INPUT_VCPUS] = "vcpus",
};

static const char *const events[] = {
    [PCMIG_EVENT_MIGRATE_CALLED] = "migrate-called",
    [PCMIG_EVENT_SRC_SUSPENDED_MIGRATED] = "src-suspended-migrated",
    [PCMIG_EVENT_SRC_SUSPENDED_POSTCOPY] = "src-suspended-postcopy",
    [PCMIG_EVENT_SRC_POSTCOPY_FAILED] = "src-postcopy-failed",
    [PCMIG_EVENT_SRC_RESUMED] = "src-resumed",
    [PCMIG_EVENT_SRC_STOPPED_MIGRATED] = "src-stopped-migrated",
    [PCMIG_EVENT_SRC_STOPPED_OTHER] = "src-stopped-other",
    [PCMIG_EVENT_DST_STARTED] = "dst-started",
    [PCMIG_EVENT_DST_RESUMED_POSTCOPY] = "dst-resumed-postcopy",
    [PCMIG_EVENT_DST_RESUMED_MIGRATED] = "dst-resumed-migrated",
    [PCMIG_EVENT_DST_POSTCOPY_FAILED] = "dst-postcopy-failed",
    [PCMIG_EVENT_DST_STOPPED] = "dst-stopped",
    [PCMIG_EVENT_JOB_COMPLETED] = "job-completed",
    [PCMIG_EVENT_SWITCH_ISSUED] = "switch-issued",
    [PCMIG_EVENT_SWITCH_REFUSED] = "switch-refused",
    [PCMIG_EVENT_PACE_REFUSED] = "pace-refused",
    [PCMIG_EVENT_CALL_SUCCEEDED] = "call-succeeded",
    [PCMIG_EVENT_CALL_FAILED] = "call-failed",
    [PCMIG_EVENT_DST_RESUMED_OTHER] = "dst-resumed-other",
};

static const char *const requests[] = {
    [PCMIG_REQUEST_SWITCH] = "switch",           [PCMIG_REQUEST_ABORT] = "abort",
    [PCMIG_REQUEST_DETACH] = "detach",           [PCMIG_REQUEST_OPEN_GATE] = "open-gate",
    [PCMIG_REQUEST_REFUSE_GATE] = "refuse-gate", [PCMIG_REQUEST_PAUSE] = "pause",
    [PCMIG_REQUEST_RESUME] = "resume",
};

static const char *const turns[] = {
    [PCMIG_TURN_FREE] = "free",       [PCMIG_TURN_CROWDED] = "crowded", [PCMIG_TURN_HELD] = "held",
    [PCMIG_TURN_BOUNDED] = "bounded", [PCMIG_TURN_WAITING] = "waiting",
};

#define FIELD(member)                                                                                                  \
    {                                                                                                                  \
#member, offsetof(struct pcmig_sample, member)                                                                 \
    }

static const struct pcmig_names_field fields[] = {
    FIELD(memory_total_bytes),
    FIELD(memory_processed_bytes),
    FIELD(memory_remaining_bytes),
    FIELD(memory_bps),
    FIELD(zero_pages),
    FIELD(normal_pages),
    FIELD(normal_bytes),
    FIELD(encoded_pages),
    FIELD(dirty_pages_ps),
    FIELD(iteration),
    FIELD(page_size_bytes),
    FIELD(postcopy_requests),
    FIELD(disk_total_bytes),
    FIELD(disk_processed_bytes),
    FIELD(disk_remaining_bytes),
    FIELD(downtime_ms),
    FIELD(setup_time_ms),
    FIELD(elapsed_ms),
};

static_assert(COUNT(input_kinds) == PCMIG_INPUT_KIND_COUNT, "a kind of input has no name");
static_assert(COUNT(events) == PCMIG_EVENT_COUNT, "an event has no name");
static_assert(COUNT(requests) == PCMIG_REQUEST_COUNT, "a request has no name");
static_assert(COUNT(turns) == PCMIG_TURN_COUNT, "a turn has no name");
static_assert(COUNT(fields) == PCMIG_NAMES_FIELD_COUNT, "PCMIG_NAMES_FIELD_COUNT is not the number of fields");
static_assert(sizeof(struct pcmig_sample) == (COUNT(fields) + 1) * sizeof(uint64_t), "a field of a sample has no name");

static const char *name_of(const char *const *table, size_t count, int64_t value)
{
    return value >= 0 && (uint64_t)value < count ? table[value] : "unknown";
}

int pcmig_names_find(const char *const *table, size_t count, const char *name, size_t len)
{
    for (size_t i = 0; i < count; i++) {
        if (strlen(table[i]) == len && memcmp(table[i], name, len) == 0)
            return (int)i;
    }
    return -1;
}

const char *pcmig_names_input_kind(int64_t kind)
{
    return name_of(input_kinds, COUNT(input_kinds), kind);
}

const char *pcmig_names_event(int64_t event)
{
    return name_of(events, COUNT(events), event);
}

const char *pcmig_names_request(int64_t request)
{
    return name_of(requests, COUNT(requests), request);
}

const char *pcmig_names_turn(int64_t turn)
{
    return name_of(turns, COUNT(turns), turn);
}

int pcmig_names_find_input_kind(const char *name, size_t len)
{
    return pcmig_names_find(input_kinds, COUNT(input_kinds), name, len);
}

int pcmig_names_find_event(const char *name, size_t len)
{
    return pcmig_names_find(events, COUNT(events), name, len);
}

int pcmig_names_find_request(const char *name, size_t len)
{
    return pcmig_names_find(requests, COUNT(requests), name, len);
}

int pcmig_names_find_turn(const char *name, size_t len)
{
    return pcmig_names_find(turns, COUNT(turns), name, len);
}

const struct pcmig_names_field *pcmig_names_field(size_t index)
{
    return index < COUNT(fields) ? &fields[index] : NULL;
}
