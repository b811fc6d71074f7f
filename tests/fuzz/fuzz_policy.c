/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as the text of a policy and as a stream of inputs: the rules of tests/c/policy_rules.c hold, two policies
 * that see the same decide the same, and the ledger takes it all. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/ledger.h"
#include "core/policy.h"
#include "policy_rules.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct bytes {
    const uint8_t *at;
    size_t left;
};

static void require(int condition)
{
    if (!condition)
        abort();
}

static void require_rule(const char *broken)
{
    if (broken != NULL) {
        fprintf(stderr, "broken: %s\n", broken);
        abort();
    }
}

static uint8_t byte(struct bytes *b)
{
    if (b->left == 0)
        return 0;
    b->left--;
    return *b->at++;
}

/* A number of any size: the first byte says how many bits. */
static uint64_t number(struct bytes *b)
{
    unsigned n = byte(b) % 9;
    uint64_t value = 0;

    while (n-- > 0)
        value = value << 8 | byte(b);
    return value;
}

static void one_param(struct bytes *b, struct pcmig_params *params)
{
    enum pcmig_param index = (enum pcmig_param)(byte(b) % PCMIG_PARAM_COUNT);
    const struct pcmig_param_row *row = pcmig_params_row(index);
    uint64_t span = (uint64_t)(row->max - row->min) + 1;

    require(pcmig_params_set(params, index, row->min + (int64_t)(number(b) % span)) == 0);
}

static void next_input(struct bytes *b, struct pcmig_input *input)
{
    uint8_t what = byte(b);

    input->kind = (enum pcmig_input_kind)(what % PCMIG_INPUT_KIND_COUNT);
    input->code = byte(b) % 32;
    /* Mostly forward, by up to 8 s; now and then anywhere. */
    if (what & 0x80)
        input->t_us = (int64_t)number(b);
    else
        input->t_us = (input->t_us < INT64_MAX / 2 ? input->t_us : 0) + byte(b) * 32000;
    switch (input->kind) {
    case PCMIG_INPUT_SAMPLE:
    case PCMIG_INPUT_FINAL:
        for (unsigned fields = byte(b) % 8; fields > 0; fields--) {
            uint64_t value = number(b);

            /* All members but the last are uint64_t, and so is the place of the last. */
            memcpy((char *)&input->sample + byte(b) % (sizeof(input->sample) / 8) * 8, &value, sizeof(value));
        }
        return;
    case PCMIG_INPUT_DIRTY_RATE:
    case PCMIG_INPUT_DOWNTIME_LIMIT:
    case PCMIG_INPUT_LINK_RATE:
    case PCMIG_INPUT_BEHIND:
    case PCMIG_INPUT_ROUND_TRIP:
    case PCMIG_INPUT_HOST_PAGE:
    case PCMIG_INPUT_VCPUS:
        input->code = (int64_t)number(b);
        return;
    case PCMIG_INPUT_QUEUE:
        input->sample.queue_bytes = (int64_t)(number(b) - 1);
        return;
    default:
        return;
    }
}

static void parse(const char *text, size_t len)
{
    enum pcmig_policy_kind kind = PCMIG_POLICY_KIND_COUNT;
    struct pcmig_params params, before;
    char err[256] = "";

    pcmig_params_defaults(&params);
    before = params;
    if (pcmig_policy_parse(text, len, &kind, &params, err, sizeof(err)) < 0) {
        require(err[0] != '\0' && kind == PCMIG_POLICY_KIND_COUNT);
        require(memcmp(&params, &before, sizeof(params)) == 0);
        return;
    }
    require((unsigned)kind < PCMIG_POLICY_KIND_COUNT && err[0] == '\0');
    for (int i = 0; i < PCMIG_PARAM_COUNT; i++)
        require(pcmig_params_set(&before, (enum pcmig_param)i, params.value[i]) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bytes b = {data, size};
    enum pcmig_policy_kind kind = (enum pcmig_policy_kind)(byte(&b) % PCMIG_POLICY_KIND_COUNT);
    struct pcmig_input input = {.sample = {.memory_total_bytes = 1 << 28, .queue_bytes = -1}};
    struct pcmig_policy *policy, *twin;
    struct pcmig_ledger *ledger;
    struct pcmig_params params;
    struct policy_rules rules;
    bool gated;

    parse((const char *)data, size);
    pcmig_params_defaults(&params);
    for (unsigned n = byte(&b) % 8; n > 0; n--)
        one_param(&b, &params);
    gated = byte(&b) % 2 != 0;
    policy = pcmig_policy_new(kind, &params, gated);
    twin = pcmig_policy_new(kind, &params, gated);
    ledger = pcmig_ledger_new();
    policy_rules_init(&rules, kind, &params, gated);
    while (policy != NULL && twin != NULL && ledger != NULL && b.left > 0) {
        struct pcmig_decision decision, other;

        next_input(&b, &input);
        pcmig_ledger_feed(ledger, &input);
        pcmig_policy_feed(policy, &input, &decision);
        pcmig_policy_feed(twin, &input, &other);
        require(memcmp(&decision, &other, sizeof(decision)) == 0);
        require_rule(policy_rules_check(&rules, policy, &input, &decision));
        if (decision.action != PCMIG_ACTION_KEEP)
            pcmig_ledger_note_action(ledger, &decision);
    }
    pcmig_policy_free(policy);
    pcmig_policy_free(twin);
    pcmig_ledger_free(ledger);
    return 0;
}
