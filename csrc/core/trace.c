/* SPDX-License-Identifier: Apache-2.0 */
/* Lines of a trace: writing and parsing. See trace.h; the replay is in trace_replay.c. */
#include "core/trace.h"

#include "core/names.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char written_by[] = "# pcmig ";

/* --- writing ------------------------------------------------------------------------------------------------------ */

struct out {
    char *buf;
    size_t size;
    size_t used; /* length of the whole line, also of what did not fit */
};

__attribute__((format(printf, 2, 3))) static void put(struct out *out, const char *format, ...)
{
    bool fits = out->used < out->size;
    va_list args;
    int len;

    va_start(args, format);
    len = vsnprintf(fits ? out->buf + out->used : NULL, fits ? out->size - out->used : 0, format, args);
    va_end(args);
    out->used += len > 0 ? (size_t)len : 0;
}

int pcmig_trace_write_header(char *buf, size_t size)
{
    return snprintf(buf, size, "pcmig-trace %d\n", PCMIG_TRACE_VERSION);
}

int pcmig_trace_write_writer(char *buf, size_t size, const char *version)
{
    return snprintf(buf, size, "%s%.*s\n", written_by, PCMIG_TRACE_WRITER_SIZE - 1, version);
}

int pcmig_trace_write_params(char *buf, size_t size, enum pcmig_policy_kind policy, bool gated,
                             const struct pcmig_params *params)
{
    struct out out = {buf, size, 0};

    put(&out, "params policy=%s%s", pcmig_policy_kind_name(policy), gated ? " gate=1" : "");
    for (int i = 0; i < PCMIG_PARAM_COUNT; i++)
        put(&out, " %s=%" PRId64, pcmig_params_row((enum pcmig_param)i)->name, params->value[i]);
    put(&out, "\n");
    return (int)out.used;
}

static void put_sample(struct out *out, const struct pcmig_sample *sample)
{
    const struct pcmig_names_field *field;

    for (size_t i = 0; (field = pcmig_names_field(i)) != NULL; i++) {
        uint64_t value;

        memcpy(&value, (const char *)sample + field->offset, sizeof(value));
        if (value != 0)
            put(out, " %s=%" PRIu64, field->name, value);
    }
    if (sample->queue_bytes >= 0)
        put(out, " queue_bytes=%" PRId64, sample->queue_bytes);
}

/* Its numbers by name; the first ones are no buckets. */
static const char *const latency_names[] = {"mean_us", "vcpu_us", "other_us"};
#define LATENCY_NAMES 3

static uint64_t *latency_slot(struct pcmig_latency_figures *latency, size_t index)
{
    uint64_t *const slots[] = {&latency->mean_us, &latency->vcpu_us, &latency->other_us};

    return index < LATENCY_NAMES ? slots[index] : &latency->bucket[index - LATENCY_NAMES];
}

static void put_latency(struct out *out, const struct pcmig_latency_figures *latency)
{
    struct pcmig_latency_figures copy = *latency;

    for (size_t i = 0; i < LATENCY_NAMES + PCMIG_LATENCY_BUCKETS; i++) {
        const uint64_t value = *latency_slot(&copy, i);

        if (value != 0 && i < LATENCY_NAMES)
            put(out, " %s=%" PRIu64, latency_names[i], value);
        else if (value != 0)
            put(out, " b%zu=%" PRIu64, i - LATENCY_NAMES, value);
    }
}

int pcmig_trace_write_input(char *buf, size_t size, const struct pcmig_input *input)
{
    struct out out = {buf, size, 0};

    put(&out, "%" PRId64 " %s", input->t_us, pcmig_names_input_kind((int64_t)input->kind));
    switch (input->kind) {
    case PCMIG_INPUT_SAMPLE:
    case PCMIG_INPUT_FINAL:
        put_sample(&out, &input->sample);
        break;
    case PCMIG_INPUT_QUEUE:
        put(&out, " %" PRId64, input->sample.queue_bytes >= 0 ? input->sample.queue_bytes : -1);
        break;
    case PCMIG_INPUT_EVENT:
        if (input->code < 0 || input->code >= PCMIG_EVENT_COUNT)
            return -1;
        put(&out, " %s", pcmig_names_event(input->code));
        break;
    case PCMIG_INPUT_ITERATION:
    case PCMIG_INPUT_DIRTY_RATE:
    case PCMIG_INPUT_DOWNTIME_LIMIT:
    case PCMIG_INPUT_LINK_RATE:
    case PCMIG_INPUT_BEHIND:
    case PCMIG_INPUT_ROUND_TRIP:
    case PCMIG_INPUT_HOST_PAGE:
    case PCMIG_INPUT_VCPUS:
        put(&out, " %" PRId64, input->code);
        break;
    case PCMIG_INPUT_TICK:
        break;
    case PCMIG_INPUT_LATENCY:
        put_latency(&out, &input->latency);
        break;
    case PCMIG_INPUT_REQUEST:
        if (input->code < 0 || input->code >= PCMIG_REQUEST_COUNT)
            return -1;
        put(&out, " %s", pcmig_names_request(input->code));
        break;
    case PCMIG_INPUT_TURN:
        if (input->code < 0 || input->code >= PCMIG_TURN_COUNT)
            return -1;
        put(&out, " %s", pcmig_names_turn(input->code));
        break;
    case PCMIG_INPUT_KIND_COUNT:
    default:
        return -1;
    }
    put(&out, "\n");
    return (int)out.used;
}

int pcmig_trace_write_decision(char *buf, size_t size, const struct pcmig_decision *d)
{
    return snprintf(buf, size,
                    "%" PRId64 " decision %s %s a=%" PRId64 " b=%" PRId64 " c=%" PRId64 " pace_mib=%" PRId64
                    " next_us=%" PRId64 "\n",
                    d->t_us, pcmig_action_name(d->action), pcmig_reason_name(d->reason), d->a, d->b, d->c, d->pace_mib,
                    d->next_us);
}

/* --- parsing ------------------------------------------------------------------------------------------------------ */

struct token {
    const char *text;
    size_t len;
};

struct parser {
    const char *at;
    const char *end;
    char *err;
    size_t err_size;
    bool left_out; /* something that is not known; the first of it is in ERR */
};

/* Puts a message that ends with TOKEN in quotes; returns -1. What is not printable becomes '?'. */
static int fail(struct parser *p, const char *what, struct token token, const char *rest)
{
    char shown[48];
    size_t len = token.len < sizeof(shown) - 4 ? token.len : sizeof(shown) - 4;

    for (size_t i = 0; i < len; i++)
        shown[i] = token.text[i] >= ' ' && token.text[i] <= '~' ? token.text[i] : '?';
    memcpy(shown + len, token.len > len ? "..." : "", token.len > len ? 4 : 1);
    snprintf(p->err, p->err_size, "%s '%s'%s", what, shown, rest);
    return -1;
}

/* Whether TOKEN is one that a trace may have: no damage looks like that. */
static bool is_word(struct token token)
{
    enum { LONGEST = 40 };

    if (token.len == 0 || token.len > LONGEST || token.text[0] < 'a' || token.text[0] > 'z')
        return false;
    for (size_t i = 0; i < token.len; i++) {
        const char c = token.text[i];

        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_'))
            return false;
    }
    return true;
}

/* As fail(), for what another pcmig may have written: returns 0 then, as whoever reads may do without it. */
static int unknown(struct parser *p, const char *what, struct token token, const char *rest)
{
    if (!is_word(token))
        return fail(p, what, token, rest);
    if (!p->left_out)
        (void)fail(p, what, token, rest);
    p->left_out = true;
    return 0;
}

static bool is(struct token token, const char *word)
{
    return token.len == strlen(word) && memcmp(token.text, word, token.len) == 0;
}

/* Up to the next space, which is skipped. Empty at the end, and where two spaces follow each other. */
static struct token next(struct parser *p)
{
    struct token token = {p->at, 0};
    const char *space = p->at < p->end ? memchr(p->at, ' ', (size_t)(p->end - p->at)) : NULL;

    token.len = (size_t)((space != NULL ? space : p->end) - p->at);
    p->at = space != NULL ? space + 1 : p->end;
    return token;
}

/* A space as the last character would hide a figure that is missing. */
static bool at_end(const struct parser *p)
{
    return p->at == p->end && p->end[-1] != ' ';
}

static bool parse_u64(struct token token, uint64_t *value)
{
    uint64_t v = 0;

    for (size_t i = 0; i < token.len; i++) {
        unsigned digit = (unsigned)token.text[i] - '0';

        if (digit > 9 || v > (UINT64_MAX - digit) / 10)
            return false;
        v = v * 10 + digit;
    }
    *value = v;
    return token.len != 0;
}

static bool parse_i64(struct token token, int64_t *value)
{
    bool negative = token.len != 0 && token.text[0] == '-';
    struct token digits = {token.text + negative, token.len - negative};
    uint64_t v;

    if (!parse_u64(digits, &v) || v > (uint64_t)INT64_MAX + negative)
        return false;
    /* -v as a sum that never leaves the range, INT64_MIN included. */
    *value = !negative ? (int64_t)v : v == 0 ? 0 : -(int64_t)(v - 1) - 1;
    return true;
}

/* Splits TOKEN at its '='. */
static int split(struct parser *p, struct token token, struct token *key, struct token *value)
{
    const char *equals = token.len ? memchr(token.text, '=', token.len) : NULL;

    if (equals == NULL)
        return fail(p, "expected key=value, not", token, "");
    *key = (struct token){token.text, (size_t)(equals - token.text)};
    *value = (struct token){equals + 1, token.len - key->len - 1};
    return 0;
}

/* Marks key number INDEX as seen; false if it was already. */
static bool first_time(uint64_t *seen, int index)
{
    uint64_t bit = UINT64_C(1) << index;
    bool first = (*seen & bit) == 0;

    *seen |= bit;
    return first;
}

static int find_named(struct token token, int count, const char *(*name_of)(int))
{
    for (int i = 0; i < count; i++) {
        if (is(token, name_of(i)))
            return i;
    }
    return -1;
}

static const char *policy_name(int i)
{
    return pcmig_policy_kind_name((enum pcmig_policy_kind)i);
}

static const char *action_name(int i)
{
    return pcmig_action_name((enum pcmig_action)i);
}

static const char *reason_name(int i)
{
    return pcmig_reason_name((enum pcmig_reason)i);
}

static int parse_header(struct parser *p)
{
    struct token version = next(p);
    uint64_t number;

    if (!parse_u64(version, &number) || !at_end(p))
        return fail(p, "expected 'pcmig-trace 1', not version", version, "");
    if (number != PCMIG_TRACE_VERSION)
        return fail(p, "trace version", version,
                    " is not known: this pcmig reads version 1; the second line says who wrote it");
    return 0;
}

static int parse_params(struct parser *p, struct pcmig_trace_line *out)
{
    struct token key, value;
    uint64_t seen = 0;
    int64_t number;
    char rest[160];

    _Static_assert(PCMIG_PARAM_COUNT < 62, "a bit for each parameter, one for the policy, one for the gate");
    pcmig_params_defaults(&out->params);
    do {
        int index;

        if (split(p, next(p), &key, &value) < 0)
            return -1;
        if (is(key, "policy")) {
            int kind = find_named(value, PCMIG_POLICY_KIND_COUNT, policy_name);

            if (kind < 0)
                return fail(p, "unknown policy", value, "");
            out->policy = (enum pcmig_policy_kind)kind;
            if (!first_time(&seen, PCMIG_PARAM_COUNT))
                return fail(p, "parameter", key, " stands twice");
            continue;
        }
        if (is(key, "gate")) {
            if (!is(value, "0") && !is(value, "1"))
                return fail(p, "value", value, " of gate is neither 0 nor 1");
            out->gated = is(value, "1");
            if (!first_time(&seen, PCMIG_PARAM_COUNT + 1))
                return fail(p, "parameter", key, " stands twice");
            continue;
        }
        index = pcmig_params_find(key.text, key.len);
        if (index < 0 && pcmig_params_gone(key.text, key.len) != NULL) {
            snprintf(rest, sizeof(rest), " is of an older pcmig, whose traces this one cannot replay: %s",
                     pcmig_params_gone(key.text, key.len));
            return fail(p, "parameter", key, rest);
        }
        if (index < 0) {
            if (unknown(p, "unknown parameter", key, "") < 0)
                return -1;
            continue;
        }
        if (!first_time(&seen, index))
            return fail(p, "parameter", key, " stands twice");
        if (!parse_i64(value, &number) || pcmig_params_set(&out->params, (enum pcmig_param)index, number) < 0) {
            const struct pcmig_param_row *row = pcmig_params_row((enum pcmig_param)index);

            snprintf(rest, sizeof(rest), " of %s is not a whole number from %" PRId64 " to %" PRId64, row->name,
                     row->min, row->max);
            return fail(p, "value", value, rest);
        }
    } while (!at_end(p));
    if (first_time(&seen, PCMIG_PARAM_COUNT)) {
        snprintf(p->err, p->err_size, "params without policy=");
        return -1;
    }
    return 0;
}

static int parse_sample(struct parser *p, struct pcmig_sample *sample)
{
    struct token key, value;
    uint64_t seen = 0, number;
    int64_t queue;

    _Static_assert(PCMIG_NAMES_FIELD_COUNT < 63, "a bit for each field and one for the queue");
    while (!at_end(p)) {
        const struct pcmig_names_field *field;
        int index = 0;

        if (split(p, next(p), &key, &value) < 0)
            return -1;
        while ((field = pcmig_names_field((size_t)index)) != NULL && !is(key, field->name))
            index++;
        if (field == NULL && !is(key, "queue_bytes")) {
            if (unknown(p, "unknown key", key, " in a sample") < 0)
                return -1;
            continue;
        }
        if (!first_time(&seen, index))
            return fail(p, "key", key, " stands twice");
        if (field == NULL) {
            if (!parse_i64(value, &queue) || queue < 0)
                return fail(p, "value of queue_bytes", value, " is not a whole number from 0 to 2^63 - 1");
            sample->queue_bytes = queue;
        } else {
            if (!parse_u64(value, &number))
                return fail(p, field->name, value, " is not a whole number from 0 to 2^64 - 1");
            memcpy((char *)sample + field->offset, &number, sizeof(number));
        }
    }
    return 0;
}

/* Its place among the numbers, or -1. */
static int find_latency(struct token key)
{
    uint64_t bucket;

    for (int i = 0; i < LATENCY_NAMES; i++) {
        if (is(key, latency_names[i]))
            return i;
    }
    if (key.len < 2 || key.text[0] != 'b' || !parse_u64((struct token){key.text + 1, key.len - 1}, &bucket) ||
        bucket >= PCMIG_LATENCY_BUCKETS)
        return -1;
    return LATENCY_NAMES + (int)bucket;
}

static int parse_latency(struct parser *p, struct pcmig_latency_figures *latency)
{
    struct token key, value;
    uint64_t seen = 0;

    while (!at_end(p)) {
        int index;

        if (split(p, next(p), &key, &value) < 0)
            return -1;
        index = find_latency(key);
        if (index < 0) {
            if (unknown(p, "unknown key", key, " in a latency") < 0)
                return -1;
            continue;
        }
        if (!first_time(&seen, index))
            return fail(p, "key", key, " stands twice");
        if (!parse_u64(value, latency_slot(latency, (size_t)index)))
            return fail(p, "value", value, " is not a whole number from 0 to 2^64 - 1");
    }
    return 0;
}

/* Of an input with a NAME that FIND looks for. */
static int parse_name(struct parser *p, const char *what, struct token name, int found, const char *rest,
                      struct pcmig_trace_line *out)
{
    if (found >= 0) {
        out->input.code = found;
        return 0;
    }
    out->kind = PCMIG_TRACE_OTHER_INPUT;
    return unknown(p, what, name, rest);
}

static int parse_input(struct parser *p, struct token kind, struct pcmig_trace_line *out)
{
    struct pcmig_input *input = &out->input;
    int found = pcmig_names_find_input_kind(kind.text, kind.len);
    bool more = !at_end(p);
    struct token word;

    if (found < 0) {
        out->kind = PCMIG_TRACE_OTHER_INPUT;
        return unknown(
            p, "unknown kind of line", kind,
            "; known are sample, queue, event, iteration, tick, request, final, turn, "
            "dirty-rate, downtime-limit, link-rate, behind, round-trip, host-page, latency, vcpus and decision");
    }
    input->kind = (enum pcmig_input_kind)found;
    if (input->kind == PCMIG_INPUT_SAMPLE || input->kind == PCMIG_INPUT_FINAL)
        return parse_sample(p, &input->sample);
    if (input->kind == PCMIG_INPUT_LATENCY)
        return parse_latency(p, &input->latency);
    if (input->kind != PCMIG_INPUT_TICK) {
        if (!more)
            return fail(p, "nothing follows", kind, "");
        word = next(p);
        if (input->kind == PCMIG_INPUT_QUEUE &&
            (!parse_i64(word, &input->sample.queue_bytes) || input->sample.queue_bytes < -1))
            return fail(p, "queue", word, " is not a number of bytes, nor -1 for not known");
        if (input->kind == PCMIG_INPUT_ITERATION && !parse_i64(word, &input->code))
            return fail(p, "iteration", word, " is not a whole number");
        if ((input->kind == PCMIG_INPUT_DIRTY_RATE || input->kind == PCMIG_INPUT_DOWNTIME_LIMIT ||
             input->kind == PCMIG_INPUT_LINK_RATE || input->kind == PCMIG_INPUT_BEHIND ||
             input->kind == PCMIG_INPUT_ROUND_TRIP || input->kind == PCMIG_INPUT_HOST_PAGE ||
             input->kind == PCMIG_INPUT_VCPUS) &&
            (!parse_i64(word, &input->code) || input->code < 0))
            return fail(p, pcmig_names_input_kind((int64_t)input->kind), word, " is not a whole number from 0 on");
        if (input->kind == PCMIG_INPUT_EVENT &&
            parse_name(p, "unknown event", word, pcmig_names_find_event(word.text, word.len), "", out) < 0)
            return -1;
        if (input->kind == PCMIG_INPUT_REQUEST &&
            parse_name(p, "unknown request", word, pcmig_names_find_request(word.text, word.len),
                       "; known are switch, abort, detach, open-gate, refuse-gate, pause and resume", out) < 0)
            return -1;
        if (input->kind == PCMIG_INPUT_TURN &&
            parse_name(p, "unknown turn", word, pcmig_names_find_turn(word.text, word.len),
                       "; known are free, crowded, held, bounded and waiting", out) < 0)
            return -1;
    }
    if (!at_end(p))
        return fail(p, "nothing may follow, but there is", (struct token){p->at, (size_t)(p->end - p->at)}, "");
    return 0;
}

static int parse_decision(struct parser *p, struct pcmig_trace_line *out)
{
    struct pcmig_decision *decision = &out->decision;
    static const char *const names[] = {"a", "b", "c", "pace_mib", "next_us"};
    int64_t *const slots[] = {&decision->a, &decision->b, &decision->c, &decision->pace_mib, &decision->next_us};
    struct token word = next(p), key, value;
    int found = find_named(word, PCMIG_ACTION_COUNT, action_name);

    if (found < 0 && is(word, "finish-precopy"))
        return fail(p, "action", word, " is of an older pcmig: it changed nothing, take the line out");
    if (found < 0) {
        out->kind = PCMIG_TRACE_OTHER_DECISION;
        return unknown(p, "unknown action", word, "");
    }
    decision->action = (enum pcmig_action)found;
    word = next(p);
    found = find_named(word, PCMIG_REASON_COUNT, reason_name);
    if (found < 0) {
        out->kind = PCMIG_TRACE_OTHER_DECISION;
        return unknown(p, "unknown reason", word, "");
    }
    decision->reason = (enum pcmig_reason)found;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (split(p, next(p), &key, &value) < 0)
            return -1;
        if (!is(key, names[i]))
            return fail(p, "a decision goes on with a=, b=, c=, pace_mib=, next_us=, in this order, not", key, "");
        if (!parse_i64(value, slots[i]))
            return fail(p, "value", value, " is not a whole number of 64 bits");
    }
    while (!at_end(p)) {
        if (split(p, next(p), &key, &value) < 0 || unknown(p, "unknown key", key, " in a decision") < 0)
            return -1;
    }
    return 0;
}

/* Lines of '#' and what follows say nothing to a pcmig that does not know this one. */
static void parse_comment(const struct parser *p, struct pcmig_trace_line *out)
{
    const size_t before = sizeof(written_by) - 1, len = (size_t)(p->end - p->at);
    const size_t writer = len > before ? len - before : 0;

    if (writer == 0 || writer >= sizeof(out->writer) || memcmp(p->at, written_by, before) != 0)
        return;
    for (size_t i = before; i < len; i++) {
        if (p->at[i] <= ' ' || p->at[i] > '~')
            return;
    }
    out->kind = PCMIG_TRACE_WRITER;
    memcpy(out->writer, p->at + before, writer); /* the rest is 0 */
}

static int parse_line(struct parser *p, struct pcmig_trace_line *out)
{
    struct token word, kind;
    int64_t t_us;

    if (p->at == p->end || *p->at == '#') {
        parse_comment(p, out);
        return 0;
    }
    word = next(p);
    if (is(word, "pcmig-trace")) {
        out->kind = PCMIG_TRACE_HEADER;
        return parse_header(p);
    }
    if (is(word, "params")) {
        out->kind = PCMIG_TRACE_PARAMS;
        return parse_params(p, out);
    }
    if (!parse_i64(word, &t_us))
        return fail(p, "expected a time in microseconds, not", word, "");
    kind = next(p);
    if (is(kind, "decision")) {
        out->kind = PCMIG_TRACE_DECISION;
        out->decision.t_us = t_us;
        return parse_decision(p, out);
    }
    out->kind = PCMIG_TRACE_INPUT;
    out->input.t_us = t_us;
    return parse_input(p, kind, out);
}

int pcmig_trace_parse_line(const char *text, size_t len, struct pcmig_trace_line *out, char *err, size_t err_size)
{
    struct parser p = {text, text + len, err, err_size, false};

    memset(out, 0, sizeof(*out));
    out->input.sample.queue_bytes = -1;
    if (parse_line(&p, out) < 0)
        return -1;
    return p.left_out ? 1 : 0;
}

/* --- reading ------------------------------------------------------------------------------------------------------ */

static int complain(char *err, size_t err_size, const char *message)
{
    snprintf(err, err_size, "%s", message);
    return -1;
}

/* Whether a line of its kind may stand here. */
static int take(struct pcmig_trace_reader *reader, const struct pcmig_trace_line *line, char *err, size_t err_size)
{
    switch (line->kind) {
    case PCMIG_TRACE_BLANK:
        return 0;
    case PCMIG_TRACE_HEADER:
        if (reader->has_header)
            return complain(err, err_size, "a second header");
        reader->has_header = true;
        return 0;
    case PCMIG_TRACE_WRITER:
        if (reader->has_header && !reader->has_params)
            memcpy(reader->writer, line->writer, sizeof(reader->writer));
        return 0;
    case PCMIG_TRACE_PARAMS:
    case PCMIG_TRACE_INPUT:
    case PCMIG_TRACE_DECISION:
    case PCMIG_TRACE_OTHER_INPUT:
    case PCMIG_TRACE_OTHER_DECISION:
        break;
    }
    if (!reader->has_header)
        return complain(err, err_size, "not a trace: it does not begin with 'pcmig-trace 1'");
    if (line->kind != PCMIG_TRACE_PARAMS && !reader->has_params)
        return complain(err, err_size, "the params line must come before inputs and decisions");
    if (line->kind == PCMIG_TRACE_PARAMS && reader->has_params)
        return complain(err, err_size, "a second line of params");
    reader->has_params = true;
    return 0;
}

int pcmig_trace_read(struct pcmig_trace_reader *reader, const char *text, size_t len, struct pcmig_trace_line *out,
                     char *err, size_t err_size)
{
    const int rc = pcmig_trace_parse_line(text, len, out, err, err_size);

    reader->line++;
    if (rc < 0 || (rc > 0 && (reader->writer[0] == '\0' || strcmp(reader->writer, reader->version) == 0)))
        return -1;
    if (rc > 0 && reader->left_out++ == 0) {
        reader->first_left_out = reader->line;
        snprintf(reader->what, sizeof(reader->what), "%s", err);
    }
    return take(reader, out, err, err_size);
}
