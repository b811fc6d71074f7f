/* SPDX-License-Identifier: Apache-2.0 */
/* See rules.h. */
#include "tunnel/rules.h"

#include "tunnel/internal.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Where the strings of a configuration hang, so that copying and freeing name each once. */
static const size_t strings[] = {
#define STRING(member) offsetof(struct pcmig_tunnel_config, member)
    STRING(run_dir),           STRING(control),   STRING(files.ca),
    STRING(files.certificate), STRING(files.key), STRING(files.dialler_certificate),
    STRING(files.dialler_key), STRING(files.crl), STRING(congestion),
#undef STRING
};

static char **string_at(struct pcmig_tunnel_config *config, size_t offset)
{
    return (char **)(void *)((char *)config + offset);
}

static void free_list(const char *const *list, size_t count)
{
    for (size_t i = 0; list != NULL && i < count; i++)
        free((char *)(uintptr_t)list[i]);
    free((void *)(uintptr_t)list);
}

static bool copy_list(const char *const **list, size_t count)
{
    const char *const *from = *list;
    const char **to = calloc(count + 1, sizeof(*to));
    bool complete = to != NULL;

    for (size_t i = 0; complete && i < count; i++)
        complete = (to[i] = strdup(from[i])) != NULL;
    *list = to;
    return complete;
}

static void config_free(struct pcmig_tunnel_config *config)
{
    for (size_t i = 0; i < sizeof(strings) / sizeof(strings[0]); i++)
        free(*string_at(config, strings[i]));
    free_list(config->listen, config->listen_count);
    free_list(config->allow, config->allow_count);
}

static bool config_copy(struct pcmig_tunnel_config *to, const struct pcmig_tunnel_config *from)
{
    bool complete;

    *to = *from;
    complete = copy_list(&to->listen, to->listen_count);
    complete = copy_list(&to->allow, to->allow_count) && complete;
    for (size_t i = 0; i < sizeof(strings) / sizeof(strings[0]); i++) {
        char **text = string_at(to, strings[i]);

        if (*text != NULL)
            complete = (*text = strdup(*text)) != NULL && complete;
    }
    return complete;
}

static bool has_twice(const char *const *list, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        for (size_t j = 0; j < i; j++) {
            if (strcmp(list[i], list[j]) == 0)
                return true;
        }
    }
    return false;
}

static bool config_check(const struct pcmig_tunnel_config *config, char error[PCMIG_TUNNEL_ERROR_BYTES])
{
    const char *problem = NULL;

    if (config->run_dir == NULL || config->control == NULL)
        problem = "run_dir and control have to be given";
    else if (!config->plaintext &&
             (config->files.ca == NULL || config->files.certificate == NULL || config->files.key == NULL))
        problem = "ca, certificate and key have to be given";
    else if ((config->files.dialler_certificate == NULL) != (config->files.dialler_key == NULL))
        problem = "a certificate for dialling needs its key, and the other way round";
    else if (config->listen_count > PCMIG_LISTENERS_MAX)
        problem = "there are at most 8 addresses to listen on";
    else if (has_twice(config->listen, config->listen_count))
        problem = "the addresses to listen on have one twice";
    else if (config->workers > PCMIG_WORKERS_MAX)
        problem = "there are at most 8 workers";
    else if (config->dead_after_ms < 500)
        problem = "dead_after_ms has to be at least 500";
    else if (config->max_half_open == 0 || config->max_half_open_of_one == 0 || config->max_handshakes_per_s == 0)
        problem = "nobody could come in with no place for a handshake";
    else if (config->plaintext && config->allow_count > 0)
        problem = "without TLS nobody can be told from another: an allow list would mean nothing";
    if (problem != NULL)
        snprintf(error, PCMIG_TUNNEL_ERROR_BYTES, "%s", problem);
    return problem == NULL;
}

struct pcmig_rules *pcmig_rules_new(const struct pcmig_tunnel_config *config, char error[PCMIG_TUNNEL_ERROR_BYTES])
{
    char problem[PCMIG_TLS_ERROR_BYTES] = "memory is short";
    struct pcmig_rules *rules;

    if (!config_check(config, error))
        return NULL;
    rules = calloc(1, sizeof(*rules));
    if (rules == NULL || !config_copy(&rules->config, config))
        goto err;
    atomic_init(&rules->references, 1);
    if (!config->plaintext && (rules->tls = pcmig_tls_new(&rules->config.files, problem)) == NULL)
        goto err;
    return rules;

err:
    if (rules != NULL)
        config_free(&rules->config);
    free(rules);
    snprintf(error, PCMIG_TUNNEL_ERROR_BYTES, "%s", problem);
    return NULL;
}

struct pcmig_rules *pcmig_rules_ref(struct pcmig_rules *rules)
{
    atomic_fetch_add(&rules->references, 1);
    return rules;
}

void pcmig_rules_unref(struct pcmig_rules *rules)
{
    if (rules == NULL || atomic_fetch_sub(&rules->references, 1) != 1)
        return;
    pcmig_tls_unref(rules->tls);
    config_free(&rules->config);
    free(rules);
}
