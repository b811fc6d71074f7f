/* SPDX-License-Identifier: Apache-2.0 */
/* The trace of one migration: every input and every decision, one line of text each, and their replay.
 *
 *     pcmig-trace 1
 *     # pcmig 0.1.0
 *     params policy=auto downtime_limit_ms=300 ...
 *     0 event migrate-called
 *     51230 sample memory_total_bytes=281018368 normal_pages=301 queue_bytes=65160 ...
 *     51230 iteration 1
 *     70000 queue 12345
 *     80000 tick
 *     81000 dirty-rate 41000000
 *     82000 downtime-limit 50
 *     90000 request switch
 *     90000 decision drain requested a=0 b=0 c=0 pace_mib=1 next_us=490000
 *     99000 final memory_total_bytes=281018368 ...
 *
 * Times are microseconds as in input.h. A sample's figures that are 0 are left out, so is an unknown queue_bytes
 * (-1). A decision follows the input it answers; decisions to keep going are not written. Blank lines and lines that
 * begin with '#' say nothing, but for "# pcmig VERSION", which says who wrote the trace. Writing and parsing are exact
 * inverses. No files here: whoever records or replays does the reading and writing.
 */
#ifndef PCMIG_CORE_TRACE_H
#define PCMIG_CORE_TRACE_H

#include "core/input.h"
#include "core/params.h"
#include "core/policy.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PCMIG_TRACE_VERSION     1
/* No line gets longer, newline and terminating NUL included. */
#define PCMIG_TRACE_LINE_MAX    1536
/* A version of pcmig, NUL included. */
#define PCMIG_TRACE_WRITER_SIZE 32
/* A buffer of this size holds every message of this part. */
#define PCMIG_TRACE_ERR_MAX     256

enum pcmig_trace_kind {
    PCMIG_TRACE_BLANK = 0, /* nothing, or a comment */
    PCMIG_TRACE_HEADER,    /* "pcmig-trace 1" */
    PCMIG_TRACE_WRITER,    /* `writer` */
    PCMIG_TRACE_PARAMS,    /* `policy`, `gated` and `params` */
    PCMIG_TRACE_INPUT,     /* `input` */
    PCMIG_TRACE_DECISION,  /* `decision` */
    /* What another pcmig has written, and this one does not know: */
    PCMIG_TRACE_OTHER_INPUT,
    PCMIG_TRACE_OTHER_DECISION
};

struct pcmig_trace_line {
    enum pcmig_trace_kind kind;
    char writer[PCMIG_TRACE_WRITER_SIZE];
    enum pcmig_policy_kind policy;
    bool gated;                 /* a gate was there; "gate=1" in the line, left out otherwise */
    struct pcmig_params params; /* those that the line does not name have their defaults */
    struct pcmig_input input;
    struct pcmig_decision decision;
};

/* Each writes one line with its newline and a NUL, and returns the length without the NUL as snprintf does: SIZE or
 * more means that it did not fit (PCMIG_TRACE_LINE_MAX always fits). An input whose kind or code has no name is an
 * error: -1. */
int pcmig_trace_write_header(char *buf, size_t size);
int pcmig_trace_write_writer(char *buf, size_t size, const char *version);
int pcmig_trace_write_params(char *buf, size_t size, enum pcmig_policy_kind policy, bool gated,
                             const struct pcmig_params *params);
int pcmig_trace_write_input(char *buf, size_t size, const struct pcmig_input *input);
int pcmig_trace_write_decision(char *buf, size_t size, const struct pcmig_decision *decision);

/* Parses LEN characters (without the newline; no NUL needed). Returns 0; or -1 with a message in ERR that names the
 * thing that is wrong and what would be right; the caller adds the line's number. Or 1, where another pcmig may have
 * written what this one does not know: the message names the first such word, and OUT is the line without them. */
int pcmig_trace_parse_line(const char *text, size_t len, struct pcmig_trace_line *out, char *err, size_t err_size);

/* Lines of one trace, in their order. A trace decides nothing, so what is not known of one that another pcmig wrote is
 * left out, and counted; in one that this pcmig wrote, or that does not say who did, it is damage. */
struct pcmig_trace_reader {
    const char *version;                  /* of this pcmig, set by the caller; all else is 0 at first */
    char writer[PCMIG_TRACE_WRITER_SIZE]; /* "" = the trace does not say */
    bool has_header, has_params;
    uint64_t line;                  /* that was read last, from 1 on */
    uint64_t left_out;              /* so many lines, or words of them */
    uint64_t first_left_out;        /* line of the first of them; 0 = there is none */
    char what[PCMIG_TRACE_ERR_MAX]; /* is not known there */
};

/* Parses the next line. Returns 0, or -1 with a message in ERR. */
int pcmig_trace_read(struct pcmig_trace_reader *reader, const char *text, size_t len, struct pcmig_trace_line *out,
                     char *err, size_t err_size);

/* The replay of a trace, line by line. */
struct pcmig_trace_replay; /* opaque; one allocation and that of its policy */

struct pcmig_trace_options {
    bool other_policy; /* replay under `policy` instead of the recorded one */
    enum pcmig_policy_kind policy;
    bool set[PCMIG_PARAM_COUNT]; /* replay with `params.value[i]` instead of the recorded value */
    struct pcmig_params params;
};

struct pcmig_trace_result {
    uint64_t inputs;
    uint64_t recorded;               /* decisions in the trace */
    uint64_t replayed;               /* decisions of the replay */
    uint64_t different;              /* answers to one input that differ in anything */
    uint64_t first_difference;       /* line of the first of them; 0 = there is none */
    bool has_recorded, has_replayed; /* whether there was a decision on either side of it */
    struct pcmig_decision first_recorded, first_replayed;
    bool started; /* a params line was there: `policy` and `params` are those of the replay */
    enum pcmig_policy_kind policy;
    bool gated; /* as recorded */
    struct pcmig_params params;
};

/* Called for each answer to an input with a decision on either side; NULL = no decision on that side. LINE is where
 * the recorded decision stands, or the input that should have had one. Returns 0; anything else stops the replay. */
typedef int (*pcmig_trace_answer_fn)(void *context, uint64_t line, const struct pcmig_decision *recorded,
                                     const struct pcmig_decision *replayed);

/* OPTIONS NULL: as recorded. ON_ANSWER may be NULL. VERSION: of this pcmig. Returns NULL when memory is short. */
struct pcmig_trace_replay *pcmig_trace_replay_new(const char *version, const struct pcmig_trace_options *options,
                                                  pcmig_trace_answer_fn on_answer, void *context);
void pcmig_trace_replay_free(struct pcmig_trace_replay *replay);

/* Takes the next line (without its newline). Returns 0; -1 with a message in ERR when it cannot be parsed or stands
 * in the wrong place, or memory is short; -2 when ON_ANSWER stopped it. */
int pcmig_trace_replay_line(struct pcmig_trace_replay *replay, const char *text, size_t len, char *err,
                            size_t err_size);

/* After the last line. CUT: the recording went on, so that nobody knows what it has decided last. Returns as
 * pcmig_trace_replay_line; a trace without header, params or input is an error. */
int pcmig_trace_replay_finish(struct pcmig_trace_replay *replay, bool cut, char *err, size_t err_size);

void pcmig_trace_replay_result(const struct pcmig_trace_replay *replay, struct pcmig_trace_result *out);

/* What was read, and left out. */
const struct pcmig_trace_reader *pcmig_trace_replay_reader(const struct pcmig_trace_replay *replay);

#endif
