/* SPDX-License-Identifier: Apache-2.0 */
/* Traces: text and back without loss, strict about what is wrong, and the same decisions again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/names.h"
#include "trace_line.h"

/* --- lines -------------------------------------------------------------------------------------------------------- */

static int parse(const char *text, struct pcmig_trace_line *line, char *err)
{
    /* A copy that ends where the line does, so that the sanitizer sees a step too far. */
    size_t len = strlen(text);
    char *exact = malloc(len ? len : 1);
    int rc;

    assert_non_null(exact);
    memcpy(exact, text, len);
    rc = pcmig_trace_parse_line(exact, len, line, err, PCMIG_TRACE_ERR_MAX);
    free(exact);
    return rc;
}

/* Writes LINE again; the newline is cut off. */
static void write(const struct pcmig_trace_line *line, char *buf)
{
    int len = trace_line_write(line, buf);

    assert_in_range(len, 1, PCMIG_TRACE_LINE_MAX - 1);
    assert_int_equal(buf[len - 1], '\n');
    assert_int_equal(strlen(buf), len);
    buf[len - 1] = '\0';
}

static void round_trip(void **state)
{
    static const char *const lines[] = {
        "pcmig-trace 1",
        "# pcmig 0.1.0",
        "0 event migrate-called",
        "51230 sample memory_total_bytes=281018368 normal_pages=301 queue_bytes=65160",
        "51230 sample",
        "51231 sample queue_bytes=0",
        "51232 sample memory_bps=18446744073709551615",
        "-9223372036854775808 tick",
        "9223372036854775807 tick",
        "51230 iteration 1",
        "70000 queue 12345",
        "70000 queue -1",
        "90000 request switch",
        "90001 request open-gate",
        "90002 request refuse-gate",
        "90000 decision drain requested a=0 b=-9223372036854775808 c=5 pace_mib=1 next_us=9223372036854775807",
        "99000 final downtime_ms=4 elapsed_ms=99",
    };
    struct pcmig_trace_line line, again;
    char buf[PCMIG_TRACE_LINE_MAX], err[PCMIG_TRACE_ERR_MAX];

    (void)state;
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        assert_int_equal(parse(lines[i], &line, err), 0);
        write(&line, buf);
        assert_string_equal(buf, lines[i]);
    }
    assert_int_equal(parse("3 sample postcopy_requests=9", &line, err), 0);
    assert_int_equal(line.input.sample.postcopy_requests, 9);
    assert_int_equal(line.input.sample.queue_bytes, -1);
    assert_int_equal(parse("", &line, err), 0);
    assert_int_equal(line.kind, PCMIG_TRACE_BLANK);
    assert_int_equal(parse("# recorded on host a", &line, err), 0);
    assert_int_equal(line.kind, PCMIG_TRACE_BLANK);

    /* What a line of params leaves out has its default; what is written names everything. */
    assert_int_equal(parse("params passes=3 policy=passes", &line, err), 0);
    assert_int_equal(line.policy, PCMIG_POLICY_PASSES);
    assert_int_equal(line.params.value[PCMIG_PARAM_PASSES], 3);
    assert_int_equal(line.params.value[PCMIG_PARAM_DOWNTIME_LIMIT_MS], 300);
    assert_false(line.gated);
    write(&line, buf);
    assert_null(strstr(buf, "gate="));
    assert_int_equal(parse(buf, &again, err), 0);
    assert_memory_equal(&again.params, &line.params, sizeof(line.params));
    line.gated = true;
    write(&line, buf);
    assert_non_null(strstr(buf, " gate=1 "));
    assert_int_equal(parse(buf, &again, err), 0);
    assert_true(again.gated);
    assert_int_equal(parse("params policy=auto gate=0", &again, err), 0);
    assert_false(again.gated);
}

/* Every name there is, and the longest lines. */
static void all_names(void **state)
{
    struct pcmig_trace_line line, again;
    const struct pcmig_names_field *field;
    char buf[PCMIG_TRACE_LINE_MAX], err[PCMIG_TRACE_ERR_MAX];
    uint64_t value = UINT64_MAX;

    (void)state;
    memset(&line, 0, sizeof(line));
    line.kind = PCMIG_TRACE_INPUT;
    line.input.kind = PCMIG_INPUT_SAMPLE;
    line.input.t_us = INT64_MIN;
    for (size_t i = 0; (field = pcmig_names_field(i)) != NULL; i++, value--)
        memcpy((char *)&line.input.sample + field->offset, &value, sizeof(value));
    line.input.sample.queue_bytes = INT64_MAX;
    write(&line, buf);
    assert_int_equal(parse(buf, &again, err), 0);
    assert_memory_equal(&again.input.sample, &line.input.sample, sizeof(line.input.sample));

    line.input.kind = PCMIG_INPUT_EVENT;
    for (line.input.code = 0; line.input.code < PCMIG_EVENT_COUNT; line.input.code++) {
        write(&line, buf);
        assert_int_equal(parse(buf, &again, err), 0);
        assert_int_equal(again.input.code, line.input.code);
    }
    assert_int_equal(pcmig_trace_write_input(buf, sizeof(buf), &line.input), -1);
    line.input.kind = PCMIG_INPUT_REQUEST;
    for (line.input.code = 0; line.input.code < PCMIG_REQUEST_COUNT; line.input.code++) {
        write(&line, buf);
        assert_int_equal(parse(buf, &again, err), 0);
        assert_int_equal(again.input.code, line.input.code);
    }
    assert_int_equal(pcmig_trace_write_input(buf, sizeof(buf), &line.input), -1);
    line.input.kind = PCMIG_INPUT_TURN;
    for (line.input.code = 0; line.input.code < PCMIG_TURN_COUNT; line.input.code++) {
        write(&line, buf);
        assert_int_equal(parse(buf, &again, err), 0);
        assert_int_equal(again.input.code, line.input.code);
    }
    assert_int_equal(pcmig_trace_write_input(buf, sizeof(buf), &line.input), -1);
    line.input.kind = PCMIG_INPUT_KIND_COUNT;
    assert_int_equal(pcmig_trace_write_input(buf, sizeof(buf), &line.input), -1);

    line.kind = PCMIG_TRACE_DECISION;
    line.decision = (struct pcmig_decision){
        .a = INT64_MIN, .b = INT64_MIN, .c = INT64_MIN, .t_us = INT64_MIN, .pace_mib = INT64_MIN, .next_us = INT64_MIN};
    for (int a = 0; a < PCMIG_ACTION_COUNT; a++) {
        for (int r = 0; r < PCMIG_REASON_COUNT; r++) {
            line.decision.action = (enum pcmig_action)a;
            line.decision.reason = (enum pcmig_reason)r;
            write(&line, buf);
            assert_int_equal(parse(buf, &again, err), 0);
            assert_int_equal(again.decision.action, a);
            assert_int_equal(again.decision.reason, r);
        }
    }
    line.kind = PCMIG_TRACE_PARAMS;
    for (int k = 0; k < PCMIG_POLICY_KIND_COUNT; k++) {
        line.policy = (enum pcmig_policy_kind)k;
        for (int i = 0; i < PCMIG_PARAM_COUNT; i++)
            line.params.value[i] = pcmig_params_row((enum pcmig_param)i)->max;
        write(&line, buf);
        assert_int_equal(parse(buf, &again, err), 0);
        assert_int_equal(again.policy, k);
        assert_memory_equal(&again.params, &line.params, sizeof(line.params));
    }
    assert_string_equal(pcmig_names_input_kind(-1), "unknown");
    assert_string_equal(pcmig_names_event(PCMIG_EVENT_COUNT), "unknown");
}

static void too_small(void **state)
{
    struct pcmig_params params;
    char buf[20];

    (void)state;
    pcmig_params_defaults(&params);
    memset(buf, 'x', sizeof(buf));
    assert_true(pcmig_trace_write_params(buf, 10, PCMIG_POLICY_AUTO, false, &params) > 100);
    assert_string_equal(buf, "params po");
    assert_int_equal(buf[10], 'x');
    assert_true(pcmig_trace_write_params(NULL, 0, PCMIG_POLICY_AUTO, false, &params) > 100);
}

static void errors(void **state)
{
    static const struct {
        const char *line;
        const char *message; /* a part of it */
    } rows[] = {
        {"pcmig-trace", "not version ''"},
        {"pcmig-trace 1 ", "not version '1'"},
        {"pcmig-trace 2", "trace version '2' is not known"},
        {"pcmig-trace one", "'one'"},
        {" ", "expected a time in microseconds, not ''"},
        {"hello", "'hello'"},
        {"1", "unknown kind of line ''"},
        {"1x tick", "'1x'"},
        {"9223372036854775808 tick", "'9223372036854775808'"},
        {"1 tock", "unknown kind of line 'tock'"},
        {"1 tick 2", "nothing may follow, but there is '2'"},
        {"1 tick ", "nothing may follow"},
        {"1 sample  iteration=1", "expected key=value"},
        {"1 sample iteration", "'iteration'"},
        {"1 sample iteration=", "iteration ''"},
        {"1 sample iteration=-1", "'-1'"},
        {"1 sample iteration=18446744073709551616", "'18446744073709551616'"},
        {"1 sample iteration=1 iteration=1", "'iteration' stands twice"},
        {"1 sample iterations=1", "unknown key 'iterations'"},
        {"1 sample queue_bytes=-1", "queue_bytes '-1'"},
        {"1 sample queue_bytes=1 queue_bytes=1", "stands twice"},
        {"1 sample =1", "unknown key ''"},
        {"1 queue", "nothing follows 'queue'"},
        {"1 queue -2", "'-2'"},
        {"1 iteration x", "iteration 'x'"},
        {"1 event dst-flew", "unknown event 'dst-flew'"},
        {"1 request stop", "unknown request 'stop'"},
        {"1 request switch now", "'now'"},
        {"1 event \x01\xff", "unknown event '\?\?'"},
        {"params", "expected key=value"},
        {"params policy=fast", "unknown policy 'fast'"},
        {"params passes=1", "without policy"},
        {"params policy=auto policy=auto", "'policy' stands twice"},
        {"params policy=auto passes=1 passes=1", "'passes' stands twice"},
        {"params policy=auto speed=1", "unknown parameter 'speed'"},
        {"params policy=auto gate=1 gate=1", "'gate' stands twice"},
        {"params policy=auto gate=yes", "value 'yes' of gate is neither 0 nor 1"},
        {"params policy=auto passes=0", "value '0' of passes is not a whole number from 1 to 1000000"},
        {"1 decision jump none", "unknown action 'jump'"},
        {"1 decision keep because", "unknown reason 'because'"},
        {"1 decision keep none", "key=value"},
        {"1 decision keep none b=1", "in this order, not 'b'"},
        {"1 decision keep none a=1 b=1 c=1 pace_mib=1 next_us=x", "'x'"},
        {"1 decision keep none a=1 b=1 c=1 pace_mib=1 next_us=1 d=1", "unknown key 'd' in a decision"},
        {"1 event aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "aaa...'"},
    };
    struct pcmig_trace_line line;
    char err[PCMIG_TRACE_ERR_MAX];

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        strcpy(err, "no message");
        if (parse(rows[i].line, &line, err) == 0)
            fail_msg("accepted: %s", rows[i].line);
        assert_string_equal(line.writer, "");
        if (strstr(err, rows[i].message) == NULL)
            fail_msg("'%s': the message is: %s", rows[i].line, err);
    }
}

/* --- replay ------------------------------------------------------------------------------------------------------- */

#define LINES_MAX 4000

struct trace {
    char *line[LINES_MAX];
    size_t count;
    struct pcmig_policy *policy;
    size_t decisions;
};

static void add(struct trace *trace, const char *text)
{
    assert_true(trace->count < LINES_MAX);
    trace->line[trace->count] = strdup(text);
    assert_non_null(trace->line[trace->count]);
    trace->line[trace->count++][strcspn(text, "\n")] = '\0';
}

/* Does what the engine does: input, decision, and both into the trace. */
static enum pcmig_action feed(struct trace *trace, const struct pcmig_input *input)
{
    struct pcmig_decision decision;
    char buf[PCMIG_TRACE_LINE_MAX];

    assert_true(pcmig_trace_write_input(buf, sizeof(buf), input) > 0);
    add(trace, buf);
    pcmig_policy_feed(trace->policy, input, &decision);
    if (decision.action == PCMIG_ACTION_KEEP)
        return PCMIG_ACTION_KEEP;
    assert_true(pcmig_trace_write_decision(buf, sizeof(buf), &decision) > 0);
    add(trace, buf);
    trace->decisions++;
    return decision.action;
}

static void feed_event(struct trace *trace, int64_t t_us, enum pcmig_event event)
{
    struct pcmig_input input = {.t_us = t_us, .kind = PCMIG_INPUT_EVENT, .code = (int64_t)event};

    input.sample.queue_bytes = -1;
    feed(trace, &input);
}

/* A guest that pre-copy cannot move, on QEMU 11; ends some seconds after the switch. */
static void record(struct trace *trace)
{
    struct pcmig_params params;
    struct pcmig_input input = {.kind = PCMIG_INPUT_SAMPLE};
    char buf[PCMIG_TRACE_LINE_MAX];
    int64_t t = 0, switched = 0;
    uint64_t sent = 0;

    memset(trace, 0, sizeof(*trace));
    pcmig_params_defaults(&params);
    trace->policy = pcmig_policy_new(PCMIG_POLICY_AUTO, &params, false);
    assert_non_null(trace->policy);
    pcmig_trace_write_header(buf, sizeof(buf));
    add(trace, buf);
    pcmig_trace_write_params(buf, sizeof(buf), PCMIG_POLICY_AUTO, false, &params);
    add(trace, buf);
    feed_event(trace, 0, PCMIG_EVENT_MIGRATE_CALLED);
    feed_event(trace, 1000, PCMIG_EVENT_DST_STARTED);
    input.sample.memory_total_bytes = UINT64_C(68608) * 4096;
    input.sample.page_size_bytes = 4096;
    for (int i = 0; i < 900 && (switched == 0 || t < switched + 5000000); i++) {
        uint64_t dirty = sent / 2 < 32768 ? sent / 2 : 32768;

        t += 55000;
        sent += 165;
        input.t_us = t;
        input.sample.memory_processed_bytes = sent * 4104;
        input.sample.normal_pages = sent;
        input.sample.memory_remaining_bytes = ((sent < 68608 ? 68608 - sent : 0) + dirty) * 4096;
        input.sample.memory_bps = 12500000;
        input.sample.dirty_pages_ps = 9000;
        input.sample.iteration++;
        input.sample.elapsed_ms = (uint64_t)t / 1000;
        input.sample.queue_bytes = switched ? 0 : 60000 - 20000 * (i % 3);
        if (switched)
            input.sample.postcopy_requests += 73;
        if (feed(trace, &input) == PCMIG_ACTION_SWITCH && switched == 0) {
            switched = t;
            feed_event(trace, t + 1000, PCMIG_EVENT_SWITCH_ISSUED);
            feed_event(trace, t + 2000, PCMIG_EVENT_SRC_SUSPENDED_POSTCOPY);
            feed_event(trace, t + 50000, PCMIG_EVENT_DST_RESUMED_POSTCOPY);
        }
    }
    assert_true(switched > 0);
    assert_true(trace->decisions >= 3);
    feed_event(trace, t + 1, PCMIG_EVENT_DST_RESUMED_MIGRATED);
    input.kind = PCMIG_INPUT_FINAL;
    input.t_us = t + 2;
    feed(trace, &input);
    pcmig_policy_free(trace->policy);
}

static void forget(struct trace *trace)
{
    for (size_t i = 0; i < trace->count; i++)
        free(trace->line[i]);
}

static int count_answers(void *context, uint64_t line, const struct pcmig_decision *recorded,
                         const struct pcmig_decision *replayed)
{
    assert_true(line > 2);
    assert_true(recorded != NULL || replayed != NULL);
    return --*(int *)context == 0;
}

static struct pcmig_trace_result replay(const struct trace *trace, const struct pcmig_trace_options *options)
{
    struct pcmig_trace_replay *r = pcmig_trace_replay_new("1.0", options, NULL, NULL);
    struct pcmig_trace_result result;
    char err[PCMIG_TRACE_ERR_MAX];

    assert_non_null(r);
    for (size_t i = 0; i < trace->count; i++)
        assert_int_equal(pcmig_trace_replay_line(r, trace->line[i], strlen(trace->line[i]), err, sizeof(err)), 0);
    assert_int_equal(pcmig_trace_replay_finish(r, false, err, sizeof(err)), 0);
    pcmig_trace_replay_result(r, &result);
    pcmig_trace_replay_free(r);
    return result;
}

static size_t find_decision(const struct trace *trace, size_t from)
{
    while (from < trace->count && strstr(trace->line[from], " decision ") == NULL)
        from++;
    assert_true(from < trace->count);
    return from;
}

static void identical(void **state)
{
    struct trace trace;
    struct pcmig_trace_result result;

    (void)state;
    record(&trace);
    result = replay(&trace, NULL);
    assert_int_equal(result.different, 0);
    assert_int_equal(result.first_difference, 0);
    assert_int_equal(result.recorded, trace.decisions);
    assert_int_equal(result.replayed, trace.decisions);
    assert_int_equal(result.inputs, trace.count - 2 - trace.decisions);
    assert_int_equal(result.policy, PCMIG_POLICY_AUTO);
    forget(&trace);
}

static void different(void **state)
{
    struct trace trace;
    struct pcmig_trace_result result;
    size_t first, second;
    char *digit;

    (void)state;
    record(&trace);
    first = find_decision(&trace, 0);
    second = find_decision(&trace, first + 1);
    digit = strstr(trace.line[second], "next_us=") + strlen("next_us=");
    *digit = *digit == '1' ? '2' : '1';
    result = replay(&trace, NULL);
    assert_int_equal(result.different, 1);
    assert_int_equal(result.first_difference, second + 1);
    assert_true(result.has_recorded && result.has_replayed);
    assert_true(result.first_recorded.next_us != result.first_replayed.next_us);

    /* A recorded decision that is missing: the line of the input that it belongs to. */
    trace.line[first][0] = '#';
    result = replay(&trace, NULL);
    assert_int_equal(result.first_difference, first);
    assert_false(result.has_recorded);
    assert_true(result.has_replayed);
    assert_int_equal(result.different, 2);
    assert_int_equal(result.recorded + 1, result.replayed);
    forget(&trace);
}

static void what_if(void **state)
{
    struct trace trace;
    struct pcmig_trace_options options = {.other_policy = true, .policy = PCMIG_POLICY_NEVER};
    struct pcmig_trace_result result;

    (void)state;
    record(&trace);
    result = replay(&trace, &options);
    assert_int_equal(result.policy, PCMIG_POLICY_NEVER);
    assert_true(result.different > 0);
    assert_true(result.has_recorded);
    options = (struct pcmig_trace_options){0};
    options.set[PCMIG_PARAM_REQUEST_WAIT_MS] = true;
    options.params.value[PCMIG_PARAM_REQUEST_WAIT_MS] = 2;
    result = replay(&trace, &options);
    assert_int_equal(result.params.value[PCMIG_PARAM_REQUEST_WAIT_MS], 2);
    assert_true(result.different > 0);
    assert_true(result.first_replayed.pace_mib < result.first_recorded.pace_mib);
    forget(&trace);
}

static void stopped(void **state)
{
    struct trace trace;
    struct pcmig_trace_replay *r;
    char err[PCMIG_TRACE_ERR_MAX];
    int left = 2, rc = 0;

    (void)state;
    record(&trace);
    r = pcmig_trace_replay_new("1.0", NULL, count_answers, &left);
    assert_non_null(r);
    for (size_t i = 0; i < trace.count && rc == 0; i++)
        rc = pcmig_trace_replay_line(r, trace.line[i], strlen(trace.line[i]), err, sizeof(err));
    assert_int_equal(rc, -2);
    pcmig_trace_replay_free(r);
    forget(&trace);
}

/* What is said of a line that another pcmig has written: 1, and the rest of it is taken. */
static void not_known(void **state)
{
    static const struct {
        const char *line;
        enum pcmig_trace_kind kind;
        const char *message;
    } rows[] = {
        {"5 weather fine 3 a=b", PCMIG_TRACE_OTHER_INPUT, "unknown kind of line 'weather'"},
        {"5 event dst-flew", PCMIG_TRACE_OTHER_INPUT, "unknown event 'dst-flew'"},
        {"5 request dance", PCMIG_TRACE_OTHER_INPUT, "unknown request 'dance'"},
        {"5 turn last", PCMIG_TRACE_OTHER_INPUT, "unknown turn 'last'"},
        {"5 sample speed=x iteration=7 heat=1", PCMIG_TRACE_INPUT, "unknown key 'speed' in a sample"},
        {"5 final iteration=7 heat=1", PCMIG_TRACE_INPUT, "unknown key 'heat' in a sample"},
        {"5 latency b99=1 mean_us=7", PCMIG_TRACE_INPUT, "unknown key 'b99' in a latency"},
        {"params policy=never warp_ms=1 passes=7", PCMIG_TRACE_PARAMS, "unknown parameter 'warp_ms'"},
        {"5 decision jump none a=1", PCMIG_TRACE_OTHER_DECISION, "unknown action 'jump'"},
        {"5 decision drain whim a=1", PCMIG_TRACE_OTHER_DECISION, "unknown reason 'whim'"},
        {"5 decision drain none a=1 b=2 c=3 pace_mib=4 next_us=7 d=1", PCMIG_TRACE_DECISION, "unknown key 'd'"},
    };
    struct pcmig_trace_line line;
    char err[PCMIG_TRACE_ERR_MAX];

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (parse(rows[i].line, &line, err) != 1 || strstr(err, rows[i].message) == NULL)
            fail_msg("'%s': the message is: %s", rows[i].line, err);
        assert_int_equal(line.kind, rows[i].kind);
        if (line.kind == PCMIG_TRACE_INPUT && line.input.kind == PCMIG_INPUT_LATENCY)
            assert_int_equal(line.input.latency.mean_us, 7);
        else if (line.kind == PCMIG_TRACE_INPUT)
            assert_int_equal(line.input.sample.iteration, 7);
        if (line.kind == PCMIG_TRACE_PARAMS)
            assert_int_equal(line.params.value[PCMIG_PARAM_PASSES], 7);
        if (line.kind == PCMIG_TRACE_DECISION)
            assert_int_equal(line.decision.next_us, 7);
    }
    /* What is wrong is wrong, whoever wrote it. */
    assert_int_equal(parse("5 sample heat=1 iteration=x", &line, err), -1);
    assert_non_null(strstr(err, "iteration 'x'"));
    assert_int_equal(parse("5 sample h\x01t=1", &line, err), -1);
    assert_int_equal(parse("params policy=warp", &line, err), -1);
    assert_int_equal(parse("pcmig-trace 2", &line, err), -1);
    for (size_t i = 0; i < 2; i++) { /* no version, and one that is no word */
        assert_int_equal(parse(i ? "# pcmig 0.1 or so" : "# pcmig ", &line, err), 0);
        assert_int_equal(line.kind, PCMIG_TRACE_BLANK);
    }
}

/* A trace of another pcmig is replayed without what is not known of it; in one of this pcmig that is damage. */
static void another_version(void **state)
{
    static const struct {
        const char *writer;
        bool read;
    } rows[] = {{"# pcmig 9.9.9", true}, {"# pcmig 1.0", false}, {"# note", false}};
    struct trace trace;

    (void)state;
    record(&trace);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct pcmig_trace_replay *r = pcmig_trace_replay_new("1.0", NULL, NULL, NULL);
        const struct pcmig_trace_reader *reader;
        struct pcmig_trace_result result;
        char err[PCMIG_TRACE_ERR_MAX], line[PCMIG_TRACE_LINE_MAX];
        bool jumped = false;
        int rc = 0;

        assert_non_null(r);
        reader = pcmig_trace_replay_reader(r);
        for (size_t j = 0; j < trace.count && rc == 0; j++) {
            char *decision = strstr(trace.line[j], " decision ");

            if (j == 1)
                rc = pcmig_trace_replay_line(r, rows[i].writer, strlen(rows[i].writer), err, sizeof(err));
            if (j == 3)
                rc = pcmig_trace_replay_line(r, "2000 weather fine", strlen("2000 weather fine"), err, sizeof(err));
            snprintf(line, sizeof(line), "%s%s", trace.line[j], strstr(trace.line[j], " sample ") ? " heat=3" : "");
            if (decision != NULL && !jumped)
                snprintf(line, sizeof(line), "%.*s decision jump none", (int)(decision - trace.line[j]), trace.line[j]);
            jumped = jumped || decision != NULL;
            if (rc == 0)
                rc = pcmig_trace_replay_line(r, line, strlen(line), err, sizeof(err));
        }
        assert_int_equal(rc, rows[i].read ? 0 : -1);
        if (rows[i].read) {
            assert_int_equal(pcmig_trace_replay_finish(r, false, err, sizeof(err)), 0);
            pcmig_trace_replay_result(r, &result);
            assert_int_equal(result.different, 0);
            assert_int_equal(result.recorded, trace.decisions - 1);
            assert_int_equal(result.replayed, trace.decisions - 1);
            assert_int_equal(result.inputs + trace.decisions + 2, trace.count);
            assert_string_equal(reader->writer, "9.9.9");
            assert_int_equal(reader->first_left_out, 5);
            assert_true(reader->left_out > 100);
            assert_non_null(strstr(reader->what, "unknown kind of line 'weather'"));
        } else {
            assert_non_null(strstr(err, "'weather'"));
        }
        pcmig_trace_replay_free(r);
    }
    forget(&trace);
}

/* Its last line is an input whose answer was not written any more: that is no difference. */
static void cut_before_a_decision(void **state)
{
    struct trace trace;
    size_t last = 0;

    (void)state;
    record(&trace);
    for (size_t i = 0; i < trace.count; i++)
        last = strstr(trace.line[i], " decision ") != NULL ? i : last;
    assert_true(last > 0);
    for (int cut = 0; cut < 2; cut++) {
        struct pcmig_trace_replay *r = pcmig_trace_replay_new("1.0", NULL, NULL, NULL);
        struct pcmig_trace_result result;
        char err[PCMIG_TRACE_ERR_MAX];

        assert_non_null(r);
        for (size_t i = 0; i < last; i++)
            assert_int_equal(pcmig_trace_replay_line(r, trace.line[i], strlen(trace.line[i]), err, sizeof(err)), 0);
        assert_int_equal(pcmig_trace_replay_finish(r, cut, err, sizeof(err)), 0);
        pcmig_trace_replay_result(r, &result);
        assert_int_equal(result.different, !cut);
        assert_int_equal(result.replayed, result.recorded + !cut);
        pcmig_trace_replay_free(r);
    }
    forget(&trace);
}

static void out_of_order(void **state)
{
    static const struct {
        const char *lines[4];
        const char *message;
    } rows[] = {
        {{NULL}, "the trace is empty"},
        {{"0 tick"}, "not a trace"},
        {{"params policy=auto"}, "not a trace"},
        {{"pcmig-trace 1"}, "no params line"},
        {{"pcmig-trace 1", "0 tick"}, "params line must come before"},
        {{"pcmig-trace 1", "pcmig-trace 1"}, "a second header"},
        {{"pcmig-trace 1", "params policy=auto", "params policy=auto"}, "a second line of params"},
        {{"pcmig-trace 1", "params policy=auto"}, "no inputs"},
        {{"pcmig-trace 1", "params policy=auto", "0 decision drain none a=0 b=0 c=0 pace_mib=0 next_us=0"},
         "a decision before any input"},
    };
    char err[PCMIG_TRACE_ERR_MAX];

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct pcmig_trace_replay *r = pcmig_trace_replay_new("1.0", NULL, NULL, NULL);
        int rc = 0;

        assert_non_null(r);
        strcpy(err, "no message");
        for (size_t j = 0; rows[i].lines[j] != NULL && rc == 0; j++)
            rc = pcmig_trace_replay_line(r, rows[i].lines[j], strlen(rows[i].lines[j]), err, sizeof(err));
        if (rc == 0)
            rc = pcmig_trace_replay_finish(r, false, err, sizeof(err));
        assert_int_equal(rc, -1);
        if (strstr(err, rows[i].message) == NULL)
            fail_msg("expected '%s', got '%s'", rows[i].message, err);
        pcmig_trace_replay_free(r);
    }
    pcmig_trace_replay_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),   cmocka_unit_test(all_names),
        cmocka_unit_test(too_small),    cmocka_unit_test(errors),
        cmocka_unit_test(identical),    cmocka_unit_test(different),
        cmocka_unit_test(what_if),      cmocka_unit_test(stopped),
        cmocka_unit_test(out_of_order), cmocka_unit_test(cut_before_a_decision),
        cmocka_unit_test(not_known),    cmocka_unit_test(another_version),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
