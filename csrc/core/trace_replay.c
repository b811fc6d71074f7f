/* SPDX-License-Identifier: Apache-2.0 */
/* The replay of a trace: recorded inputs to a fresh policy, decision against decision. See trace.h. */
#include "core/trace.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

struct pcmig_trace_replay {
    struct pcmig_trace_options options;
    pcmig_trace_answer_fn on_answer;
    void *context;
    struct pcmig_trace_reader reader;
    bool has_input;
    struct pcmig_policy *policy;
    struct pcmig_decision pending; /* of the replay, not yet compared */
    bool has_pending;
    uint64_t pending_line; /* of the input that it answers */
    struct pcmig_trace_result result;
};

struct pcmig_trace_replay *pcmig_trace_replay_new(const char *version, const struct pcmig_trace_options *options,
                                                  pcmig_trace_answer_fn on_answer, void *context)
{
    struct pcmig_trace_replay *replay = calloc(1, sizeof(*replay));

    if (replay == NULL)
        return NULL;
    replay->reader.version = version;
    if (options != NULL)
        replay->options = *options;
    replay->on_answer = on_answer;
    replay->context = context;
    return replay;
}

void pcmig_trace_replay_free(struct pcmig_trace_replay *replay)
{
    if (replay == NULL)
        return;
    pcmig_policy_free(replay->policy);
    free(replay);
}

static bool equal(const struct pcmig_decision *a, const struct pcmig_decision *b)
{
    return a->t_us == b->t_us && a->action == b->action && a->reason == b->reason && a->a == b->a && a->b == b->b &&
           a->c == b->c && a->pace_mib == b->pace_mib && a->next_us == b->next_us;
}

static int compare(struct pcmig_trace_replay *replay, uint64_t line, const struct pcmig_decision *recorded,
                   const struct pcmig_decision *replayed)
{
    struct pcmig_trace_result *result = &replay->result;

    if (recorded == NULL || replayed == NULL || !equal(recorded, replayed)) {
        result->different++;
        if (result->first_difference == 0) {
            result->first_difference = line;
            result->has_recorded = recorded != NULL;
            result->has_replayed = replayed != NULL;
            if (recorded != NULL)
                result->first_recorded = *recorded;
            if (replayed != NULL)
                result->first_replayed = *replayed;
        }
    }
    if (replay->on_answer != NULL && replay->on_answer(replay->context, line, recorded, replayed) != 0)
        return -2;
    return 0;
}

/* A decision of the replay that no recorded one has answered. */
static int settle(struct pcmig_trace_replay *replay)
{
    if (!replay->has_pending)
        return 0;
    replay->has_pending = false;
    return compare(replay, replay->pending_line, NULL, &replay->pending);
}

/* Likewise, where what was recorded of it is not known. */
static int forget(struct pcmig_trace_replay *replay)
{
    replay->result.replayed -= replay->has_pending;
    replay->has_pending = false;
    return 0;
}

static int begin(struct pcmig_trace_replay *replay, const struct pcmig_trace_line *line, char *err, size_t err_size)
{
    struct pcmig_trace_result *result = &replay->result;

    result->policy = replay->options.other_policy ? replay->options.policy : line->policy;
    result->gated = line->gated;
    result->params = line->params;
    for (int i = 0; i < PCMIG_PARAM_COUNT; i++) {
        if (replay->options.set[i])
            result->params.value[i] = replay->options.params.value[i];
    }
    replay->policy = pcmig_policy_new(result->policy, &result->params, result->gated);
    if (replay->policy == NULL) {
        snprintf(err, err_size, "out of memory");
        return -1;
    }
    result->started = true;
    return 0;
}

static int take_input(struct pcmig_trace_replay *replay, const struct pcmig_input *input)
{
    int rc = settle(replay);

    if (rc < 0)
        return rc;
    replay->has_input = true;
    replay->result.inputs++;
    pcmig_policy_feed(replay->policy, input, &replay->pending);
    replay->has_pending = replay->pending.action != PCMIG_ACTION_KEEP;
    replay->pending_line = replay->reader.line;
    if (replay->has_pending)
        replay->result.replayed++;
    return 0;
}

static int take_decision(struct pcmig_trace_replay *replay, const struct pcmig_decision *decision, char *err,
                         size_t err_size)
{
    bool answered = replay->has_pending;

    if (!replay->has_input) {
        snprintf(err, err_size, "a decision before any input");
        return -1;
    }
    replay->result.recorded++;
    replay->has_pending = false;
    return compare(replay, replay->reader.line, decision, answered ? &replay->pending : NULL);
}

int pcmig_trace_replay_line(struct pcmig_trace_replay *replay, const char *text, size_t len, char *err, size_t err_size)
{
    struct pcmig_trace_line line;

    if (pcmig_trace_read(&replay->reader, text, len, &line, err, err_size) < 0)
        return -1;
    switch (line.kind) {
    case PCMIG_TRACE_PARAMS:
        return begin(replay, &line, err, err_size);
    case PCMIG_TRACE_INPUT:
        return take_input(replay, &line.input);
    case PCMIG_TRACE_DECISION:
        return take_decision(replay, &line.decision, err, err_size);
    case PCMIG_TRACE_OTHER_DECISION: /* what it answers is nothing that this policy could say */
        return forget(replay);
    case PCMIG_TRACE_BLANK:
    case PCMIG_TRACE_HEADER:
    case PCMIG_TRACE_WRITER:
    case PCMIG_TRACE_OTHER_INPUT:
        break;
    }
    return 0;
}

int pcmig_trace_replay_finish(struct pcmig_trace_replay *replay, bool cut, char *err, size_t err_size)
{
    if (!replay->reader.has_header)
        snprintf(err, err_size, "the trace is empty");
    else if (!replay->result.started)
        snprintf(err, err_size, "the trace has no params line");
    else if (!replay->has_input)
        snprintf(err, err_size, "the trace has no inputs");
    else
        return cut ? forget(replay) : settle(replay);
    return -1;
}

void pcmig_trace_replay_result(const struct pcmig_trace_replay *replay, struct pcmig_trace_result *out)
{
    *out = replay->result;
}

const struct pcmig_trace_reader *pcmig_trace_replay_reader(const struct pcmig_trace_replay *replay)
{
    return &replay->reader;
}
