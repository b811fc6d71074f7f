/* SPDX-License-Identifier: Apache-2.0 */
/* Policies, actions and reasons as text: what people type and read. See policy.h. */
#include "core/policy.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    bool takes_value;
    enum pcmig_param param; /* when it takes a value */
    int64_t scale;          /* of the value into the parameter's unit */
} kinds[] = {
    [PCMIG_POLICY_AUTO] = {"auto", false, 0, 0},
    [PCMIG_POLICY_FIRST_PASS] = {"first-pass", false, 0, 0},
    [PCMIG_POLICY_PASSES] = {"passes", true, PCMIG_PARAM_PASSES, 1},
    [PCMIG_POLICY_DEADLINE] = {"deadline", true, PCMIG_PARAM_DEADLINE_MS, 1000},
    [PCMIG_POLICY_IMMEDIATE] = {"immediate", false, 0, 0},
    [PCMIG_POLICY_MANUAL] = {"manual", false, 0, 0},
    [PCMIG_POLICY_NEVER] = {"never", false, 0, 0},
};
_Static_assert(sizeof(kinds) / sizeof(kinds[0]) == PCMIG_POLICY_KIND_COUNT, "every policy has a row");

static const char *const action_names[] = {
    [PCMIG_ACTION_KEEP] = "keep",         [PCMIG_ACTION_DRAIN] = "drain", [PCMIG_ACTION_SWITCH] = "switch",
    [PCMIG_ACTION_SET_PACE] = "set-pace", [PCMIG_ACTION_ASK] = "ask",     [PCMIG_ACTION_ABORT] = "abort",
    [PCMIG_ACTION_UNDRAIN] = "undrain",
};
_Static_assert(sizeof(action_names) / sizeof(action_names[0]) == PCMIG_ACTION_COUNT, "every action has a name");

static const struct {
    const char *name;
    const char *sentence; /* with a, b, c of the decision, in this order */
} reasons[] = {
    [PCMIG_REASON_NONE] = {"none", "nothing new"},
    [PCMIG_REASON_GATHERING] = {"gathering", "too little seen to judge"},
    [PCMIG_REASON_CONVERGING] = {"converging", "pre-copy converges"},
    [PCMIG_REASON_NOT_CONVERGING] = {"not-converging",
                                     "pre-copy does not converge: %" PRId64 " pages became dirty again while %" PRId64
                                     " were sent (%" PRId64 " permille)"},
    [PCMIG_REASON_DIRTY_RATE] = {"dirty-rate", "pre-copy cannot converge: the guest writes %" PRId64
                                               " bytes of its memory a second, the link carries %" PRId64},
    [PCMIG_REASON_TOO_SLOW] = {"too-slow",
                               "pre-copy converges, but would take too long: %" PRId64
                               " pages became dirty again while %" PRId64 " were sent (%" PRId64 " permille)"},
    [PCMIG_REASON_PASSES_DONE] = {"passes-done", "%" PRId64 " passes over the guest's memory are done"},
    [PCMIG_REASON_DEADLINE] = {"deadline", "the deadline has come after %" PRId64 " ms"},
    [PCMIG_REASON_IMMEDIATE] = {"immediate", "post-copy was asked for from the start"},
    [PCMIG_REASON_REQUESTED] = {"requested", "the operator asked for it"},
    [PCMIG_REASON_DRAINED] = {"drained", "the link's queue is empty: %" PRId64 " bytes left after %" PRId64 " ms"},
    [PCMIG_REASON_DRAIN_TIMEOUT] = {"drain-timeout",
                                    "the link's queue did not run empty: %" PRId64 " bytes left after %" PRId64 " ms"},
    [PCMIG_REASON_DRAIN_BLIND] = {"drain-blind", "the link's queue cannot be seen from here: waited %" PRId64 " ms"},
    [PCMIG_REASON_RETRY] = {"retry", "libvirt refused the switch: attempt %" PRId64},
    [PCMIG_REASON_ABORT_AFTER] = {"abort-after", "still in pre-copy after %" PRId64 " ms"},
    [PCMIG_REASON_REQUESTS_RISE] = {"requests-rise",
                                    "%" PRId64 " page requests/s: background pages at %" PRId64 " MiB/s"},
    [PCMIG_REASON_REQUESTS_FADE] = {"requests-fade",
                                    "%" PRId64 " page requests/s: background pages at %" PRId64 " MiB/s"},
    [PCMIG_REASON_TIME_BOUND] = {"time-bound",
                                 "%" PRId64 " page requests/s, but to end in time background pages go at %" PRId64
                                 " MiB/s"},
    [PCMIG_REASON_FAST_LINK] = {"fast-link", "%" PRId64 " page requests/s: on this link a pace would gain nothing"},
    [PCMIG_REASON_DETACHED] = {"detached", "steering ends: %" PRId64 " MiB/s left in force"},
    [PCMIG_REASON_TOO_LATE] = {"too-late", "the switch was asked for, and the guest may run at the destination "
                                           "already: it can no longer be cancelled"},
    [PCMIG_REASON_SWITCH_LATE] = {"switch-late",
                                  "libvirt accepted the switch %" PRId64
                                  " ms ago, and it has not come: pre-copy goes on at full speed until it does"},
    [PCMIG_REASON_GATE_OPEN] = {"gate-open", "the gate is open after %" PRId64 " ms"},
    [PCMIG_REASON_GATE_REFUSED] = {"gate-refused", "the gate was refused: pre-copy goes on"},
    [PCMIG_REASON_GATE_TIMEOUT] = {"gate-timeout", "the gate was not answered within %" PRId64 " ms: pre-copy goes on"},
};
_Static_assert(sizeof(reasons) / sizeof(reasons[0]) == PCMIG_REASON_COUNT, "every reason has a row");

const char *pcmig_policy_kind_name(enum pcmig_policy_kind kind)
{
    return (unsigned)kind < PCMIG_POLICY_KIND_COUNT ? kinds[kind].name : "unknown";
}

const char *pcmig_action_name(enum pcmig_action action)
{
    return (unsigned)action < PCMIG_ACTION_COUNT ? action_names[action] : "unknown";
}

const char *pcmig_reason_name(enum pcmig_reason reason)
{
    return (unsigned)reason < PCMIG_REASON_COUNT ? reasons[reason].name : "unknown";
}

int pcmig_decision_describe(const struct pcmig_decision *decision, char *buf, size_t size)
{
    if ((unsigned)decision->reason >= PCMIG_REASON_COUNT)
        return snprintf(buf, size, "unknown reason %u", (unsigned)decision->reason);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
#pragma GCC diagnostic ignored "-Wformat-extra-args"
    return snprintf(buf, size, reasons[decision->reason].sentence, decision->a, decision->b, decision->c);
#pragma GCC diagnostic pop
}

/* How much of TEXT to show: not more than 64 bytes, and no half of a UTF-8 character. */
static int shown(const char *text, size_t len)
{
    if (len > 64) {
        for (len = 64; len > 0 && ((unsigned char)text[len] & 0xC0) == 0x80;)
            len--;
    }
    return (int)len;
}

/* A decimal number with up to three digits after the point, times SCALE. Returns -1 on anything else or on overflow. */
static int64_t parse_scaled(const char *text, size_t len, int64_t scale)
{
    int64_t value = 0, unit = scale;
    size_t i = 0;

    for (; i < len && text[i] >= '0' && text[i] <= '9'; i++) {
        if (value > (INT64_MAX / 10000000 - 9) / 10)
            return -1;
        value = value * 10 + (text[i] - '0');
    }
    if (i == 0)
        return -1;
    value *= scale;
    if (i + 1 < len && text[i] == '.') {
        for (i++; i < len && text[i] >= '0' && text[i] <= '9'; i++) {
            if (unit % 10 != 0)
                return -1; /* finer than the unit of the parameter */
            unit /= 10;
            value += unit * (text[i] - '0');
        }
    }
    return i == len ? value : -1;
}

int pcmig_policy_parse(const char *text, size_t len, enum pcmig_policy_kind *kind, struct pcmig_params *params,
                       char *err, size_t err_size)
{
    const char *equals = memchr(text, '=', len);
    size_t name_len = equals != NULL ? (size_t)(equals - text) : len;
    const struct pcmig_param_row *row;
    int64_t value;

    for (int k = 0; k < PCMIG_POLICY_KIND_COUNT; k++) {
        if (strlen(kinds[k].name) != name_len || memcmp(kinds[k].name, text, name_len) != 0)
            continue;
        if (equals == NULL && !kinds[k].takes_value) {
            *kind = (enum pcmig_policy_kind)k;
            return 0;
        }
        if (equals == NULL) {
            snprintf(err, err_size, "policy %s needs a value: %s=%s", kinds[k].name, kinds[k].name,
                     kinds[k].scale == 1 ? "N" : "SECONDS");
            return -1;
        }
        if (!kinds[k].takes_value) {
            snprintf(err, err_size, "policy %s takes no value, but has \"%.*s\"", kinds[k].name,
                     shown(equals, len - name_len), equals);
            return -1;
        }
        value = parse_scaled(equals + 1, len - name_len - 1, kinds[k].scale);
        row = pcmig_params_row(kinds[k].param);
        if (value < 0 || pcmig_params_set(params, kinds[k].param, value) < 0) {
            snprintf(err, err_size, "policy %s: \"%.*s\" is not a number of %s from %.10g to %.10g", kinds[k].name,
                     shown(equals + 1, len - name_len - 1), equals + 1, kinds[k].scale == 1 ? "passes" : "seconds",
                     (double)row->min / (double)kinds[k].scale, (double)row->max / (double)kinds[k].scale);
            return -1;
        }
        *kind = (enum pcmig_policy_kind)k;
        return 0;
    }
    snprintf(
        err, err_size,
        "unknown policy \"%.*s\": it is one of auto, first-pass, passes=N, deadline=SECONDS, immediate, manual, never",
        shown(text, len), text);
    return -1;
}
