/* SPDX-License-Identifier: Apache-2.0 */
/* Any text as a trace: what parses is written and parsed again without change; ledger and policy take every input
 * without undefined behaviour, and no figure of theirs wraps. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/ledger.h"
#include "trace_line.h"

static void require(int truth, const char *what)
{
    if (!truth) {
        fprintf(stderr, "fuzz_trace: %s\n", what);
        abort();
    }
}

/* A line's own text, written from what was parsed; empty for what says nothing. */
static size_t write_line(const struct pcmig_trace_line *line, char *buf)
{
    int len = trace_line_write(line, buf);

    if (line->kind == PCMIG_TRACE_BLANK)
        return 0;
    require(len > 0 && len < PCMIG_TRACE_LINE_MAX, "a line that was parsed cannot be written");
    require(buf[len - 1] == '\n', "a line does not end with a newline");
    return (size_t)len - 1;
}

static void fixed_point(const struct pcmig_trace_line *line)
{
    char first[PCMIG_TRACE_LINE_MAX], second[PCMIG_TRACE_LINE_MAX], err[PCMIG_TRACE_ERR_MAX] = "";
    struct pcmig_trace_line again;
    size_t len = write_line(line, first);

    if (line->kind == PCMIG_TRACE_BLANK)
        return;
    require(pcmig_trace_parse_line(first, len, &again, err, sizeof(err)) == 0, err);
    require(again.kind == line->kind, "another kind of line came back");
    require(memcmp(&again.input.sample, &line->input.sample, sizeof(again.input.sample)) == 0, "the sample changed");
    require(write_line(&again, second) == len && memcmp(first, second, len) == 0, "writing is no fixed point");
}

static void check_row(const struct pcmig_ledger_row *row)
{
    require(row->duration_us >= 0 && row->end_us >= row->start_us, "time runs backwards in a row");
    require(row->retransmitted_permille <= 1000, "more than everything was sent again");
    require(row->queue_peak_bytes >= -1, "a queue is negative");
}

static void check_ledger(const struct pcmig_ledger *ledger)
{
    struct pcmig_ledger_totals totals;
    struct pcmig_ledger_balance balance;
    struct pcmig_ledger_row row;
    const struct pcmig_ledger_entry *entries;
    int64_t time_us = 0;
    char text[256];

    pcmig_ledger_totals(ledger, &totals);
    pcmig_ledger_balance(ledger, &balance);
    (void)pcmig_ledger_balance_describe(&balance, text, sizeof(text));
    for (size_t i = 0; pcmig_ledger_phase(ledger, i, &row); i++) {
        check_row(&row);
        time_us += row.duration_us;
    }
    require(time_us == totals.total_us, "the phases' times do not add up");
    for (size_t i = 0; pcmig_ledger_pass(ledger, i, &row); i++)
        check_row(&row);
    for (size_t i = pcmig_ledger_events(ledger, &entries, NULL); i > 1; i--)
        require(entries[i - 1].t_us >= entries[i - 2].t_us, "events are not in the order of time");
    for (int q = 0; balance.final && q < PCMIG_QUANTITY_COUNT; q++)
        require(balance.phases[q] == totals.sum.quantity[q], "balance and totals differ");
}

static const char *next_line(const char **at, const char *end, size_t *len)
{
    const char *line = *at, *newline;

    if (line >= end)
        return NULL;
    newline = memchr(line, '\n', (size_t)(end - line));
    *len = (size_t)((newline != NULL ? newline : end) - line);
    *at = newline != NULL ? newline + 1 : end;
    return line;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *at = (const char *)data, *end = at + size, *text;
    struct pcmig_trace_replay *replay = pcmig_trace_replay_new("1.0", NULL, NULL, NULL);
    struct pcmig_ledger *ledger = NULL;
    struct pcmig_policy *policy = NULL;
    struct pcmig_trace_line line;
    struct pcmig_trace_result result;
    struct pcmig_decision decision;
    struct pcmig_params params;
    char err[PCMIG_TRACE_ERR_MAX], words[256];
    size_t len;
    int rc = 0;

    pcmig_params_defaults(&params);
    ledger = pcmig_ledger_new();
    policy = pcmig_policy_new(size % 2 ? PCMIG_POLICY_AUTO : PCMIG_POLICY_IMMEDIATE, &params, size % 3 == 0);
    require(replay != NULL && ledger != NULL && policy != NULL, "out of memory");
    while ((text = next_line(&at, end, &len)) != NULL) {
        /* An allocation of its own, so that a step beyond its end is seen. */
        char *exact = malloc(len ? len : 1);

        require(exact != NULL, "out of memory");
        memcpy(exact, text, len);
        if (rc == 0)
            rc = pcmig_trace_replay_line(replay, exact, len, err, sizeof(err));
        if (pcmig_trace_parse_line(exact, len, &line, err, sizeof(err)) == 0) {
            fixed_point(&line);
            if (line.kind == PCMIG_TRACE_INPUT) {
                pcmig_ledger_feed(ledger, &line.input);
                pcmig_policy_feed(policy, &line.input, &decision);
                (void)pcmig_decision_describe(&decision, words, sizeof(words));
                pcmig_ledger_note_action(ledger, &decision);
            } else if (line.kind == PCMIG_TRACE_DECISION) {
                pcmig_ledger_note_action(ledger, &line.decision);
            }
        }
        free(exact);
    }
    check_ledger(ledger);
    if (rc == 0)
        (void)pcmig_trace_replay_finish(replay, size % 5 == 0, err, sizeof(err));
    pcmig_trace_replay_result(replay, &result);
    require(result.different <= result.recorded + result.replayed, "more differences than decisions");
    pcmig_trace_replay_free(replay);
    pcmig_policy_free(policy);
    pcmig_ledger_free(ledger);
    return 0;
}
