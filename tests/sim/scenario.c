/* SPDX-License-Identifier: Apache-2.0 */
/* See scenario.h. */
#include "scenario.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct row {
    const char *name;
    size_t offset;
    double def, min, max;
};

#define ROW(field, def, min, max)                                                                                      \
    {                                                                                                                  \
#field, offsetof(struct scenario, field), def, min, max                                                        \
    }

/* The defaults are an ordinary guest of 4 GiB on 10 Gb/s. */
static const struct row rows[] = {
    ROW(quickack, 1, 0, 1),
    ROW(queue_seen, 1, 0, 1),
    ROW(dirty_rate, 1, 0, 1),
    ROW(nova_steps, 0, 0, 1),
    ROW(memory_mib, 4096, 16, 1 << 24),
    ROW(zero_permille, 0, 0, 990),
    ROW(hot_mib, 256, 0, 1 << 24),
    ROW(hot_wps, 20000, 0, 1e9),
    ROW(warm_mib, 0, 0, 1 << 24),
    ROW(warm_wps, 0, 0, 1e9),
    ROW(reads_permille, 0, 0, 1e6),
    ROW(scan_pps, 0, 0, 1e9),
    ROW(vcpus, 2, 1, 1024),
    ROW(late_ms, 0, 0, 1000),
    ROW(core_rw, 8, 0, 100000),
    ROW(core_ro, 16, 0, 100000),
    ROW(phase_ms, 0, 0, 1e9),
    ROW(phase_busy_permille, 500, 0, 1000),
    ROW(quiet_permille, 0, 0, 1000),
    ROW(burst_at_ms, 0, 0, 1e9),
    ROW(burst_ms, 200, 1, 1e9),
    ROW(burst_mib, 0, 0, 1 << 24),
    ROW(burst_every_ms, 0, 0, 1e9),
    ROW(host_page_kib, 4, 4, 1 << 20),
    ROW(kvm, 1, 0, 1),
    ROW(link_mbps, 10000, 1, 1e6),
    ROW(rtt_us, 200, 1, 1e6),
    ROW(queue_kib, 1024, 16, 1 << 20),
    ROW(sndbuf_kib, 4096, 16, 1 << 20),
    ROW(bucket_kib, 0, 0, 1 << 20),
    ROW(fq, 0, 0, 1),
    ROW(other_permille, 0, 0, 990),
    ROW(other_flows, 0, 0, 1000),
    ROW(change_at_ms, 0, 0, 1e9),
    ROW(change_mbps, 10000, 1, 1e6),
    ROW(qemu, 10, 7, 11),
    ROW(preempt, 1, 0, 1),
    ROW(multifd, 1, 1, 64),
    ROW(cpu_mbs, 2500, 1, 1e6),
    ROW(setup_ms, 0, 0, 100000),
    ROW(switch_ms, 15, 0, 10000),
    ROW(fault_us, 60, 0, 100000),
    ROW(device_kib, 512, 0, 1 << 20),
    ROW(downtime_ms, 300, 1, 2000000),
    ROW(guests, 1, 1, 64),
    ROW(slots, 64, 1, 64),
    ROW(turns, 1, 0, 1),
    ROW(stagger_ms, 0, 0, 1e7),
    ROW(seed, 1, 0, 1e15),
    ROW(until_s, 0, 0, 1e7),
};

static const char *const ways[WAY_COUNT] = {
    [WAY_PCMIG] = "pcmig",   [WAY_VIRSH] = "virsh",       [WAY_VIRSH_PASS] = "virsh-pass",
    [WAY_NOVA] = "nova",     [WAY_KUBEVIRT] = "kubevirt", [WAY_KUBEVIRT_RAMP] = "kubevirt-ramp",
    [WAY_SCRIPT] = "script", [WAY_PRECOPY] = "precopy",
};

const char *way_name(enum way way)
{
    return ways[way];
}

void scenario_defaults(struct scenario *s)
{
    memset(s, 0, sizeof(*s));
    s->way = WAY_PCMIG;
    s->policy = PCMIG_POLICY_AUTO;
    pcmig_params_defaults(&s->params);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        *(double *)((char *)s + rows[i].offset) = rows[i].def;
}

static int set_number(struct scenario *s, const char *name, size_t name_len, const char *value, char *err,
                      size_t err_size)
{
    char *end;
    double number;

    errno = 0;
    number = strtod(value, &end);
    if (errno != 0 || end == value || (*end != '\0' && *end != ' ')) {
        snprintf(err, err_size, "'%.*s' wants a number", (int)name_len, name);
        return -1;
    }
    if (name_len > 4 && memcmp(name, "set.", 4) == 0) {
        int param = pcmig_params_find(name + 4, name_len - 4);

        if (param < 0 || pcmig_params_set(&s->params, (enum pcmig_param)param, (int64_t)number) < 0) {
            snprintf(err, err_size, "'%.*s' is no parameter of the policy, or %g is out of its bounds", (int)name_len,
                     name, number);
            return -1;
        }
        return 0;
    }
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (strlen(rows[i].name) != name_len || memcmp(rows[i].name, name, name_len) != 0)
            continue;
        if (!(number >= rows[i].min && number <= rows[i].max)) {
            snprintf(err, err_size, "%s=%g is not between %g and %g", rows[i].name, number, rows[i].min, rows[i].max);
            return -1;
        }
        *(double *)((char *)s + rows[i].offset) = number;
        return 0;
    }
    snprintf(err, err_size, "there is no '%.*s' in a scenario", (int)name_len, name);
    return -1;
}

static int set_way(struct scenario *s, const char *value, size_t len, char *err, size_t err_size)
{
    for (int i = 0; i < WAY_COUNT; i++) {
        if (strlen(ways[i]) == len && memcmp(ways[i], value, len) == 0) {
            s->way = (enum way)i;
            return 0;
        }
    }
    snprintf(err, err_size, "there is no way '%.*s'", (int)len, value);
    return -1;
}

static int set_script(struct scenario *s, const char *value, size_t len, char *err, size_t err_size)
{
    static const enum pcmig_action actions[] = {PCMIG_ACTION_DRAIN, PCMIG_ACTION_SET_PACE, PCMIG_ACTION_SWITCH};
    const char *end = value + len;

    for (s->steps = 0; value < end; s->steps++) {
        struct step *step = &s->script[s->steps];
        long long at_ms, pace_mib;
        char action[16];
        int read = 0;

        if (s->steps == SCRIPT_STEPS || sscanf(value, "%lld:%15[a-z-]:%lld%n", &at_ms, action, &pace_mib, &read) != 3) {
            snprintf(err, err_size, "a script has at most %d steps, as '17000:drain:1,17250:switch:0'", SCRIPT_STEPS);
            return -1;
        }
        *step = (struct step){.at_us = at_ms * 1000, .action = PCMIG_ACTION_COUNT, .pace_mib = pace_mib};
        for (size_t i = 0; i < sizeof(actions) / sizeof(actions[0]); i++) {
            if (strcmp(pcmig_action_name(actions[i]), action) == 0)
                step->action = actions[i];
        }
        if (step->action == PCMIG_ACTION_COUNT) {
            snprintf(err, err_size, "'%s' is nothing that a script can do: drain, set-pace, switch", action);
            return -1;
        }
        value += read;
        value += value < end && *value == ',';
    }
    return 0;
}

int scenario_parse(struct scenario *s, const char *line, char *err, size_t err_size)
{
    for (const char *word = line + strspn(line, " "); *word != '\0';) {
        size_t len = strcspn(word, " "), name_len = strcspn(word, "= ");
        const char *value = word + name_len + 1;
        int failed;

        if (name_len >= len) {
            snprintf(err, err_size, "'%.*s' is no name=value", (int)len, word);
            return -1;
        }
        if (name_len == 3 && memcmp(word, "way", 3) == 0)
            failed = set_way(s, value, len - 4, err, err_size);
        else if (name_len == 6 && memcmp(word, "policy", 6) == 0)
            failed = pcmig_policy_parse(value, len - 7, &s->policy, &s->params, err, err_size);
        else if (name_len == 6 && memcmp(word, "script", 6) == 0)
            failed = set_script(s, value, len - 7, err, err_size);
        else
            failed = set_number(s, word, name_len, value, err, err_size);
        if (failed < 0)
            return -1;
        word += len;
        word += strspn(word, " ");
    }
    if (s->hot_mib + s->warm_mib + s->burst_mib > s->memory_mib * (1 - s->zero_permille / 1000)) {
        snprintf(err, err_size, "hot_mib, warm_mib and burst_mib are more than the memory that is not zero");
        return -1;
    }
    return 0;
}
