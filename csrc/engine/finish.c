/* SPDX-License-Identifier: Apache-2.0 */
/* The outcome, and the command that helps where an operator is needed. See control.h. */
#include "core/guard.h"
#include "core/hints.h"
#include "core/shell.h"
#include "engine/control.h"

#include <stdio.h>
#include <string.h>

/* The words of a command, and a half of another: NULLs are left out. */
struct words {
    const char *word[32];
    size_t count;
};

static void add(struct words *words, const char *word)
{
    if (words->count < sizeof(words->word) / sizeof(words->word[0]))
        words->word[words->count++] = word;
}

/* An option with its value, where there is one. */
static void add_option(struct words *words, const char *option, const char *value)
{
    if (value == NULL)
        return;
    add(words, option);
    add(words, value);
}

/* Writes it behind what is in OUT; a command that does not fit leaves nothing of any. */
static void write_words(const struct words *words, const char *between, char *out, size_t size)
{
    size_t used = strlen(out), gap = used > 0 ? strlen(between) : 0;

    if (used + gap < size && pcmig_shell_command(words->word, words->count, out + used + gap, size - used - gap))
        memcpy(out + used, between, gap);
    else
        out[0] = '\0';
}

static void write_look(const char *uri, const char *guest, char *out, size_t size)
{
    const struct words words = {{"virsh", "-c", uri, "domstate", "--reason", guest}, 6};

    write_words(&words, "; ", out, size);
}

/* What libvirt compares with the migration's call, or needs again: it finds the guest at the destination by its name
 * there. */
static void write_resume(const struct pcmig_migration *m, const char *guest, char *out, size_t size)
{
    const struct pcmig_migration_args *args = &m->args;
    struct words words = {
        {"virsh", "-c", args->source_uri, "migrate", "--live", "--p2p", "--postcopy", "--postcopy-resume"}, 8};
    const char *options[PCMIG_VIRT_RESUME_OPTIONS];
    size_t count = pcmig_virt_resume_options(args->flags, options);

    for (size_t i = 0; i < count; i++)
        add(&words, options[i]);
    add(&words, guest);
    add(&words, args->dest_uri);
    add_option(&words, "--migrateuri", args->migrate_uri);
    add_option(&words, "--dname", args->dest_name);
    add_option(&words, "--listen-address", args->listen_address);
    add_option(&words, "--disks-uri", args->disks_uri);
    add_option(&words, "--tls-destination", args->tls_destination);
    write_words(&words, "", out, size);
}

static void advise(struct pcmig_migration *m, enum pcmig_advice advice)
{
    char *out = m->status.operator_command;
    size_t size = sizeof(m->status.operator_command);
    const char *name = m->name != NULL ? m->name : m->args.domain;
    const char *guest = pcmig_shell_guest(name, m->uuid);
    const char *there = m->args.dest_name != NULL ? pcmig_shell_guest(m->args.dest_name, m->uuid) : guest;
    const struct words look_after = {{"pcmig", "resume", "-c", m->args.source_uri, guest, m->args.dest_uri}, 6};
    const struct words forget = {{"pcmig", "forget", "-c", m->args.source_uri, guest}, 5};
    /* Where nobody saw the half's process end, it takes somebody's word, and would be refused without. */
    const bool ended = m->status.unrun || m->status.dest_ended;
    const struct words turn_back =
        ended ? (struct words){{"pcmig", "turn-back", "-c", m->args.source_uri, guest}, 5}
              : (struct words){{"pcmig", "turn-back", "--destination-is-dead", "-c", m->args.source_uri, guest}, 6};
    const struct words end_source = {{"virsh", "-c", m->args.source_uri, "destroy", guest}, 5};
    const struct words end_destination = {{"virsh", "-c", m->args.dest_uri, "destroy", there}, 5};
    const struct words undefine = {{"virsh", "-c", m->args.source_uri, "undefine", "--keep-nvram", "--keep-tpm", guest},
                                   7};

    out[0] = '\0';
    switch (advice) {
    case PCMIG_ADVICE_RESUME:
        write_resume(m, guest, out, size);
        return;
    case PCMIG_ADVICE_LOOK_AFTER:
        write_words(&look_after, "", out, size);
        return;
    case PCMIG_ADVICE_FORGET:
        write_words(&forget, "", out, size);
        return;
    case PCMIG_ADVICE_END_SOURCE:
        write_words(&end_source, "", out, size);
        write_words(&look_after, " && ", out, size);
        return;
    case PCMIG_ADVICE_END_AND_FORGET:
        write_words(&end_source, "", out, size);
        write_words(&forget, " && ", out, size);
        return;
    case PCMIG_ADVICE_END_ONE: /* which one is not wanted, only people know */
        write_words(&end_source, "", out, size);
        write_words(&end_destination, ", or: ", out, size);
        return;
    case PCMIG_ADVICE_LOOK_BOTH:
        write_look(m->args.source_uri, guest, out, size);
        write_look(m->args.dest_uri, there, out, size);
        return;
    case PCMIG_ADVICE_UNDEFINE:
        write_words(&undefine, "", out, size);
        return;
    case PCMIG_ADVICE_TURN_BACK:
        write_words(&turn_back, "", out, size);
        return;
    case PCMIG_ADVICE_NONE:
    case PCMIG_ADVICE_COUNT:
        return;
    }
}

void pcmig_finish(struct control *c, enum pcmig_outcome outcome, enum pcmig_advice advice, const char *text,
                  const struct pcmig_virt_error *error)
{
    struct pcmig_migration *m = c->m;
    const char *hint = NULL;
    const enum pcmig_phase phase = outcome == PCMIG_OUTCOME_NEEDS_OPERATOR && advice == PCMIG_ADVICE_RESUME
                                       ? PCMIG_PHASE_PAUSED
                                       : PCMIG_PHASE_FINISHED;

    pcmig_control_trigger(c, PCMIG_TRIGGER_FINISHED);
    pcmig_control_publish(c);
    /* Before anybody hears of the outcome: whoever waits for it wants to read the trace. */
    if (m->trace != NULL && m->status.inputs_lost > 0)
        (void)fprintf(m->trace, "# %u inputs lost: short of memory\n", m->status.inputs_lost);
    if (m->trace != NULL)
        (void)fclose(m->trace);
    m->trace = NULL;
    /* Likewise: the process may end as soon as the outcome is known, and must not leave our change behind. */
    pcmig_route_restore(m->route);
    m->route = NULL;
    pthread_mutex_lock(&m->lock);
    m->status.outcome = outcome;
    if (outcome != PCMIG_OUTCOME_DETACHED) {
        pcmig_forecast_end(&m->status.forecast, outcome == PCMIG_OUTCOME_COMPLETED, phase);
        m->status.phase = phase;
    }
    if (error != NULL && outcome != PCMIG_OUTCOME_COMPLETED)
        m->status.error = *error;
    if (m->status.error.code != 0)
        hint =
            c->call == CALL_NONE ? pcmig_hint_connecting(m->status.error.message) : pcmig_hint(m->status.error.message);
    snprintf(m->status.text, sizeof(m->status.text), "%s%s%s%s%s", text,
             m->status.error.code != 0 && text[0] != '\0' ? ": " : "",
             m->status.error.code != 0 ? m->status.error.message : "", hint != NULL ? "; " : "",
             hint != NULL ? hint : "");
    advise(m, advice);
    m->over = true;
    pthread_cond_broadcast(&m->cond);
    pthread_mutex_unlock(&m->lock);
    pcmig_migration_tell_left(m);
    pcmig_migration_notify(m);
}
