/* SPDX-License-Identifier: Apache-2.0 */
/* An interrupted post-copy: what core/recovery.h orders is done here, and told. */
#include "core/excerpt.h"
#include "core/hints.h"
#include "core/qemu_migration.h"
#include "core/shell.h"
#include "engine/control.h"

#include <stdio.h>
#include <string.h>

/* Long enough for an answer over any network; nobody here waits for it. */
#define WAKE_WAIT_MS    300
/* Silence is a matter of seconds. */
#define SILENCE_LOOK_US 1000000
/* A stream that flows moves within that (core/recovery.c). */
#define SOURCE_LOOK_US  1000000

/* The destination's silence as last seen; the kernel is not asked more often than it changes. */
static int64_t silence_ms(struct control *c)
{
    int64_t now = pcmig_migration_now_us(c->m);

    if (c->m->link == NULL)
        return -1;
    if (c->recovery.silence_look_us == 0 || now - c->recovery.silence_look_us >= SILENCE_LOOK_US) {
        c->recovery.silence_look_us = now;
        c->recovery.silence_ms = pcmig_link_silence_ms(c->m->link);
    }
    return c->recovery.silence_ms;
}

bool pcmig_recover_stalled(struct control *c)
{
    int64_t limit_ms = c->m->args.params.value[PCMIG_PARAM_STALL_MS];

    return c->m->args.recover && limit_ms > 0 &&
           (silence_ms(c) >= limit_ms || c->recovery.still_ms >= limit_ms * PCMIG_RECOVERY_STILL_TIMES);
}

void pcmig_recover_sample(struct control *c)
{
    const struct pcmig_sample *s = &c->sample;
    const uint64_t sent = s->memory_processed_bytes + s->normal_pages + s->zero_pages + s->postcopy_requests;
    const int64_t now = pcmig_migration_now_us(c->m);

    if (c->recovery.sent_us == 0 || sent != c->recovery.sent || s->memory_remaining_bytes == 0) {
        c->recovery.sent = sent;
        c->recovery.sent_us = now;
    }
    c->recovery.still_ms = (now - c->recovery.sent_us) / 1000;
}

static void ask_versions(struct control *c)
{
    struct pcmig_ask ask = {0};

    for (int side = 0; side < PCMIG_SIDE_COUNT; side++) {
        if (c->end[side].libvirt == 0 && pcmig_ask(c, (enum pcmig_side)side, PCMIG_ASK_VERSION, &ask) == 0)
            c->end[side].libvirt = ask.version;
    }
}

/* Share of the guest's memory that had crossed when post-copy broke. */
static unsigned crossed_permille(const struct control *c)
{
    uint64_t total = c->sample.memory_total_bytes, left = c->sample.memory_remaining_bytes;

    return total > 0 && left <= total ? (unsigned)((total - left) * 1000 / total) : 0;
}

static void tell(struct control *c, enum pcmig_recovery_state state, int64_t next_us, const char *text)
{
    struct pcmig_recovery_status *status = &c->m->status.recovery;
    unsigned permille = crossed_permille(c);
    bool other;

    pthread_mutex_lock(&c->m->lock);
    other = status->state != state || status->attempts != c->recovery.core.attempts;
    status->state = state;
    status->attempts = c->recovery.core.attempts;
    status->since_us = c->recovery.core.broken_us;
    status->permille = permille;
    status->next_us = next_us;
    if (state == PCMIG_RECOVERY_STATE_NONE)
        status->text[0] = '\0';
    else if (c->sample.memory_total_bytes == 0) /* adopted like this: libvirt has no statistics any more */
        snprintf(status->text, sizeof(status->text), "post-copy interrupted, %s", text);
    else
        snprintf(status->text, sizeof(status->text), "post-copy interrupted at %u %%, %s", permille / 10, text);
    pthread_mutex_unlock(&c->m->lock);
    c->publish = c->publish || other;
}

static void tell_resuming(struct control *c)
{
    char text[64];

    snprintf(text, sizeof(text), "resuming, attempt %u", c->recovery.core.attempts);
    tell(c, PCMIG_RECOVERY_STATE_RESUMING, -1, text);
}

/* Whether QEMU at the destination can know that its stream is gone. What one attempt came to stands until the next one
 * is over: a resume may have brought another stream since, and the network may have been cut again. */
static enum pcmig_recovery_wakes look_at_wakes(struct control *c)
{
    struct pcmig_knocked knocked = {0};

    if (c->m->link != NULL)
        knocked = pcmig_link_woken(c->m->link);
    if (c->recovery.core.broken_us < 0) /* what follows is another interruption */
        c->recovery.knocks = knocked.begun;
    /* Through the tunnel both daemons notice, and end what their QEMU holds. */
    if (c->m->tunnel != NULL)
        return PCMIG_RECOVERY_WAKES_HEARD;
    if (knocked.latest <= c->recovery.knocks)
        return PCMIG_RECOVERY_WAKES_NONE;
    return knocked.answers > 0 ? PCMIG_RECOVERY_WAKES_HEARD : PCMIG_RECOVERY_WAKES_UNHEARD;
}

/* What QEMU at the source says of its migration: libvirt calls a half broken whose stream may flow on, and refuses to
 * resume without saying which of the two QEMUs does not wait for it. */
static void ask_source(struct control *c, struct pcmig_recovery_view *view)
{
    const unsigned attempts = c->recovery.core.attempts;
    /* An answer that comes late is of the attempt before which it was asked. */
    struct pcmig_ask ask = {.number = attempts};
    /* One that sends, or is about to, is asked again, whether it still does, and gets on. */
    const bool again =
        (pcmig_qemu_migration_sends(c->recovery.source) || pcmig_qemu_migration_switches(c->recovery.source)) &&
        view->t_us - c->recovery.said_us >= SOURCE_LOOK_US;

    if ((c->recovery.said_of != attempts || c->recovery.source[0] == '\0' || again) &&
        c->end[PCMIG_SIDE_SOURCE].known && !view->pausing &&
        pcmig_ask(c, PCMIG_SIDE_SOURCE, PCMIG_ASK_QEMU, &ask) == 0) {
        memcpy(c->recovery.source, ask.status, sizeof(c->recovery.source));
        c->recovery.sent_bytes = ask.sent_bytes;
        c->recovery.said_us = pcmig_migration_now_us(c->m);
        c->recovery.said_of = attempts;
    }
    if (c->recovery.said_of != attempts || c->recovery.source[0] == '\0') {
        view->source_asked = pcmig_ask_pending(c, PCMIG_SIDE_SOURCE, PCMIG_ASK_QEMU);
        return;
    }
    view->source_asked = pcmig_qemu_migration_switches(c->recovery.source);
    view->source_done = pcmig_qemu_migration_completed(c->recovery.source);
    view->source_waits = pcmig_qemu_migration_waits(c->recovery.source);
    view->source_sends = pcmig_qemu_migration_sends(c->recovery.source);
    view->sent_bytes = c->recovery.sent_bytes;
    view->said_us = c->recovery.said_us;
}
_Static_assert(sizeof(((struct control *)NULL)->recovery.source) == sizeof(((struct pcmig_ask *)NULL)->status),
               "copied whole");

static void look_at_source(struct control *c, struct pcmig_recovery_view *view)
{
    if (c->recovery.core.attempts == 0) {
        c->recovery.refused = false;
        c->recovery.unpaused[0] = '\0';
    } else if (!view->call_running) {
        c->recovery.refused = pcmig_recovery_refused(c->call_error.message);
    }
    view->refused = c->recovery.refused;
    view->pausing = pcmig_ask_out(c, PCMIG_SIDE_SOURCE, PCMIG_TELL_PAUSE_QEMU);
    if (view->source != PCMIG_HALF_POSTCOPY_FAILED)
        c->recovery.source[0] = '\0'; /* what it says of the next interruption is to be heard then */
    else if (!view->call_running && (view->refused || c->recovery.core.attempts == 0))
        ask_source(c, view);
}

/* Not stopped at the destination: it does what it can with the pages that it has. */
static bool may_run_there(const struct control *c, const struct pcmig_recovery_view *view)
{
    return view->destination == PCMIG_HALF_POSTCOPY || c->end[PCMIG_SIDE_DESTINATION].guest.runs_on;
}

/* TEXT, and below it the command of WORDS; once for each way of being stuck. */
static void note_stuck(struct control *c, enum pcmig_recovery_stuck stuck, const char *text, const char *const *words,
                       size_t count)
{
    char command[512] = "";

    if (c->recovery.told == stuck)
        return;
    c->recovery.told = stuck;
    if (!pcmig_shell_command(words, count, command, sizeof(command)))
        command[0] = '\0';
    pcmig_control_note(c, text, command);
}

/* What helps where waiting does not. Nobody does it unasked, as it undoes what the guest did at the destination. When
 * the half there ends, that is seen, and what to type then is told. */
static void tell_hang(struct control *c, const struct pcmig_recovery_view *view, const char *guest, int64_t next_us)
{
    const char *const uri = c->m->args.dest_uri;
    const char *const look[] = {"virsh", "-c", uri, "domstate", "--reason", guest};
    const char *const destroy[] = {"virsh", "-c", uri, "destroy", guest};
    const bool may_run = may_run_there(c, view);
    char first[128] = "", text[800];

    snprintf(text, sizeof(text),
             "QEMU at the destination %s, and only its end helps (%svirsh destroy there, then turn back)",
             view->refused ? "takes no resume; if the network between the hosts is there, it hangs"
                           : "does not notice: if the network between the hosts is there, it hangs",
             may_run ? "the guest may still run there, so look first; " : "");
    tell(c, PCMIG_RECOVERY_STATE_HELD, next_us, text);
    if (!pcmig_shell_command(look, sizeof(look) / sizeof(look[0]), first, sizeof(first)))
        snprintf(first, sizeof(first), "virsh domstate there");
    snprintf(text, sizeof(text),
             "QEMU at the destination %s: no resume gets through, and the guest %s%s%s. Ending that half lets it go on "
             "at the source from the switch (how is printed then); what it did since is undone",
             view->refused ? "does not wait to be resumed. If the network between the hosts is there, either it hangs "
                             "(it waits for a page, and answers nobody), or a connection that brought nothing has "
                             "ended its wait"
                           : "does not say that its stream is gone. If the network between the hosts is there, it "
                             "hangs (it waits for a page, and answers nobody)",
             may_run ? "may still run there on the pages that it has: look first (" : "stands still",
             may_run ? first : "", may_run ? ")" : "");
    note_stuck(c, PCMIG_RECOVERY_HANGS, text, destroy, sizeof(destroy) / sizeof(destroy[0]));
}

/* Nothing is lost, and nothing has to be: its end is not what is told first. */
static void tell_unnoticed(struct control *c, const struct pcmig_recovery_view *view, const char *guest,
                           int64_t next_us)
{
    const char *const wake[] = {"pcmig", "wake", guest};
    const char *const destroy[] = {"virsh", "-c", c->m->args.dest_uri, "destroy", guest};
    const bool unheard = view->wakes == PCMIG_RECOVERY_WAKES_UNHEARD;
    char end[256], text[1024];

    snprintf(text, sizeof(text),
             "QEMU at the destination has not noticed%s: %spcmig wake there, as root, has it notice",
             unheard ? ", and its host does not answer over the network of the migration" : ", as it seems",
             unheard ? "mend that network; or " : "");
    tell(c, PCMIG_RECOVERY_STATE_HELD, next_us, text);
    if (!pcmig_shell_command(destroy, sizeof(destroy) / sizeof(destroy[0]), end, sizeof(end)))
        snprintf(end, sizeof(end), "virsh destroy there");
    snprintf(
        text, sizeof(text),
        "QEMU at the destination does not wait to be resumed%s. Nothing is lost: keep both halves. %s what follows, "
        "typed on the destination host as root, has QEMU notice, and the resume follows%s. Where the network is "
        "there and that does not help, QEMU hangs, and only its end does (%s): the guest then goes on at the source "
        "from the switch, and what it did since is undone",
        unheard ? ", and its host does not answer over the network of the migration"
                : ": as it seems, it has not noticed that its stream is gone",
        unheard ? "Mend that network; where it stays away," : "In that case",
        unheard ? " over another one (--resume-uri)" : "", end);
    note_stuck(c, PCMIG_RECOVERY_UNNOTICED, text, wake, sizeof(wake) / sizeof(wake[0]));
}

/* Returns whether there was something to tell. */
static bool tell_stuck(struct control *c, const struct pcmig_recovery_view *view, int64_t next_us)
{
    const struct pcmig_migration_args *args = &c->m->args;
    const char *name = args->dest_name != NULL ? args->dest_name : c->m->name != NULL ? c->m->name : args->domain;
    const char *const guest = pcmig_shell_guest(name, c->m->uuid);

    switch (pcmig_recovery_stuck(&c->recovery.core, view)) {
    case PCMIG_RECOVERY_HANGS:
        tell_hang(c, view, guest, next_us);
        return true;
    case PCMIG_RECOVERY_UNNOTICED:
        tell_unnoticed(c, view, guest, next_us);
        return true;
    case PCMIG_RECOVERY_NOT_STUCK:
        break;
    }
    return false;
}

static void tell_waiting(struct control *c, const struct pcmig_recovery_view *view, int64_t next_us)
{
    char text[sizeof(c->m->status.recovery.text)], reason[220];
    int64_t left_s = (next_us - view->t_us + 999999) / 1000000;
    const char *hint = c->recovery.unpaused[0] != '\0' ? c->recovery.unpaused : pcmig_hint(c->call_error.message);

    if (tell_stuck(c, view, next_us))
        return;
    if (c->call == CALL_RUNS && c->recovery.core.attempts > 0) {
        tell_resuming(c);
        return;
    }
    pcmig_excerpt(c->call_error.message, reason, sizeof(reason));
    if (view->source_unclear)
        snprintf(text, sizeof(text), "waiting until QEMU at the source says whether the guest turned back");
    else if (view->destination == PCMIG_HALF_UNKNOWN && view->destination_asked)
        snprintf(text, sizeof(text), "waiting until the destination answers");
    else if (c->call == CALL_RUNS)
        snprintf(text, sizeof(text), "waiting for libvirt to end the broken migration");
    else if (view->pausing)
        snprintf(text, sizeof(text), "waiting for QEMU at the source to pause its stream");
    else if (pcmig_recovery_flows(&c->recovery.core, view))
        snprintf(text, sizeof(text), "for libvirt alone: QEMU's stream flows on");
    else if (view->refused && view->source_waits && view->wakes != PCMIG_RECOVERY_WAKES_HEARD)
        snprintf(text, sizeof(text), "waiting until QEMU at the destination notices, attempt %u in %lld s",
                 c->recovery.core.attempts + 1, (long long)left_s);
    else if (c->recovery.core.attempts > 0)
        snprintf(text, sizeof(text), "attempt %u failed (%s%s%.300s), next in %lld s", c->recovery.core.attempts,
                 reason, hint != NULL ? "; " : "", hint != NULL ? hint : "", (long long)left_s);
    else
        snprintf(text, sizeof(text), "resuming soon");
    tell(c, PCMIG_RECOVERY_STATE_WAITING, next_us, text);
}

static void resume(struct control *c, unsigned network)
{
    tell_resuming(c);
    memset(&c->call_error, 0, sizeof(c->call_error));
    /* The migration's own way first, then the others. Short of a thread it is tried again with the next attempt. */
    if (pcmig_call_start(c, network == 0 ? "" : c->m->args.resume_uris[network - 1]) == 0)
        pcmig_control_trigger(c, PCMIG_TRIGGER_RESUME);
}

void pcmig_recover_pause(struct control *c)
{
    struct pcmig_ask ask = {0};

    c->recovery.pause_again = false;
    if (!c->end[PCMIG_SIDE_SOURCE].known || pcmig_ask(c, PCMIG_SIDE_SOURCE, PCMIG_TELL_PAUSE, &ask) == 0 ||
        pcmig_ask_out(c, PCMIG_SIDE_SOURCE, PCMIG_TELL_PAUSE))
        return;
    c->recovery.pause_again = pcmig_ask_pending(c, PCMIG_SIDE_SOURCE, PCMIG_TELL_PAUSE);
    c->call_error = ask.error; /* told with the next attempt; tried again while the stream is dead */
}

void pcmig_recover_paused(struct control *c, int result, const struct pcmig_virt_error *error)
{
    c->recovery.unpaused[0] = '\0';
    if (result == 0)
        return;
    pcmig_recovery_pause_failed(&c->recovery.core);
    snprintf(c->recovery.unpaused, sizeof(c->recovery.unpaused), "QEMU at the source was not to be paused: %.110s",
             error->message);
}

/* Post-copy flows, or there is none to recover. */
static void end_recovery(struct control *c)
{
    c->recovery.told = PCMIG_RECOVERY_NOT_STUCK;
    if (c->m->status.recovery.state != PCMIG_RECOVERY_STATE_NONE)
        tell(c, PCMIG_RECOVERY_STATE_NONE, -1, "");
    /* The event may have been missed. */
    if ((c->state == PCMIG_ENGINE_INTERRUPTED || c->state == PCMIG_ENGINE_RESUMING) &&
        c->end[PCMIG_SIDE_SOURCE].guest.half == PCMIG_HALF_POSTCOPY)
        pcmig_control_event(c, PCMIG_EVENT_SRC_SUSPENDED_POSTCOPY);
}

/* Not what ended, goes on, or lost a half while the request to pause was on its way. */
static bool may_be_held(const struct pcmig_recovery_view *view)
{
    return (view->source == PCMIG_HALF_POSTCOPY_FAILED || view->source == PCMIG_HALF_UNKNOWN) &&
           (view->destination == PCMIG_HALF_POSTCOPY_FAILED || view->destination == PCMIG_HALF_POSTCOPY ||
            view->destination == PCMIG_HALF_UNKNOWN);
}

void pcmig_recover(struct control *c)
{
    const int turned_back = pcmig_end_turned_back(c);
    struct pcmig_recovery_view view = {
        .t_us = pcmig_migration_now_us(c->m),
        .source = c->end[PCMIG_SIDE_SOURCE].guest.half,
        .destination = c->end[PCMIG_SIDE_DESTINATION].guest.half,
        .destination_asked = !c->m->args.destination_optional || pcmig_ask_connected(c, PCMIG_SIDE_DESTINATION),
        .source_runs = turned_back > 0,
        .source_unclear = turned_back < 0,
        .call_running = c->call == CALL_RUNS,
        .silence_ms = -1,
        .still_ms = -1,
        .requests = c->sample.postcopy_requests,
        .sent_bytes = -1,
    };
    struct pcmig_recovery_order order;
    struct pcmig_ask pause = {0};
    int paused;

    c->recovery.look_us = PCMIG_NEVER_US;
    if (c->recovery.held && may_be_held(&view)) {
        tell(c, PCMIG_RECOVERY_STATE_HELD, -1, "paused on request until it is resumed");
        return;
    }
    if (view.source == PCMIG_HALF_POSTCOPY_FAILED)
        ask_versions(c);
    look_at_source(c, &view);
    view.wakes = look_at_wakes(c);
    if (view.source == PCMIG_HALF_POSTCOPY || view.source_sends)
        view.silence_ms = silence_ms(c);
    else /* what was seen says nothing about the next stream */
        c->recovery.silence_look_us = 0;
    if (view.source == PCMIG_HALF_POSTCOPY) {
        view.still_ms = c->recovery.still_ms;
    } else {
        c->recovery.sent_us = 0;
        c->recovery.still_ms = -1;
    }
    view.destination_libvirt = c->end[PCMIG_SIDE_DESTINATION].libvirt;
    view.source_libvirt = c->end[PCMIG_SIDE_SOURCE].libvirt;
    order = pcmig_recovery_next(&c->recovery.core, &view);
    c->recovery.look_us = order.next_us;
    switch (order.step) {
    case PCMIG_RECOVERY_NONE:
        end_recovery(c);
        return;
    case PCMIG_RECOVERY_WAIT:
        tell_waiting(c, &view, order.next_us);
        return;
    case PCMIG_RECOVERY_HELD:
        tell(c, PCMIG_RECOVERY_STATE_HELD, order.next_us, pcmig_recovery_hold(&view));
        return;
    case PCMIG_RECOVERY_PAUSE:
        pcmig_recover_pause(c);
        return;
    case PCMIG_RECOVERY_PAUSE_QEMU:
        paused = pcmig_ask(c, PCMIG_SIDE_SOURCE, PCMIG_TELL_PAUSE_QEMU, &pause);
        view.pausing = pcmig_ask_out(c, PCMIG_SIDE_SOURCE, PCMIG_TELL_PAUSE_QEMU);
        if (!view.pausing)
            pcmig_recover_paused(c, paused, &pause.error);
        tell_waiting(c, &view, order.next_us);
        return;
    case PCMIG_RECOVERY_WAKE:
        if (c->m->link != NULL)
            (void)pcmig_link_wake(c->m->link, WAKE_WAIT_MS);
        tell_waiting(c, &view, order.next_us);
        return;
    case PCMIG_RECOVERY_RESUME:
        resume(c, order.network);
        return;
    }
}
