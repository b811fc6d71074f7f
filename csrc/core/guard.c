/* SPDX-License-Identifier: Apache-2.0 */
/* See guard.h. */
#include "core/guard.h"

#include "core/names.h"

#include <stdio.h>
#include <string.h>

#define LENGTH(table) (sizeof(table) / sizeof((table)[0]))

static const char *const sides[] = {
    [PCMIG_SIDE_SOURCE] = "source",
    [PCMIG_SIDE_DESTINATION] = "destination",
};
_Static_assert(LENGTH(sides) == PCMIG_SIDE_COUNT, "every side has a name");

static const struct {
    const char *name;
    const char *subject; /* of the sentence that says what it would do where it is refused; %s is the side */
    const char *danger;
} acts[] = {
    [PCMIG_ACT_START] = {"start", "starting it at the %s", "would boot a second copy, or one from old disks"},
    [PCMIG_ACT_RESUME] = {"resume", "resuming the half at the %s", "would let old memory run, or a second copy"},
    [PCMIG_ACT_REBOOT] = {"reboot", "rebooting it at the %s",
                          "would throw its half away there and may boot a second copy"},
    [PCMIG_ACT_SHUTDOWN] = {"shutdown", "shutting it down at the %s", "would end a half that is still needed"},
    [PCMIG_ACT_DESTROY] = {"destroy", "destroying the half at the %s", "may lose memory that nobody else has"},
    [PCMIG_ACT_UNDEFINE] = {"undefine", "undefining it at the %s", "may leave a guest that nobody can start again"},
    [PCMIG_ACT_DELETE_FILES] = {"delete-files", "deleting its files at the %s", "may lose the only good ones"},
    [PCMIG_ACT_ROLLBACK] = {"rollback", "a rollback", "would destroy the destination's half"},
    [PCMIG_ACT_POST_MIGRATION] = {"post-migration", "what follows a migration",
                                  "would remove the source's half and its files"},
    [PCMIG_ACT_MIGRATE_RESUME] = {"migrate-resume", "resuming the migration",
                                  "takes both halves, one of them interrupted"},
    [PCMIG_ACT_FORGET] = {"forget", "forgetting the migration at the %s",
                          "would leave nothing that keeps the guest from being lost or run twice"},
    [PCMIG_ACT_TURN_BACK] = {"turn-back", "letting it go on at the source",
                             "would run it twice, unless its other half can run no more"},
};
_Static_assert(LENGTH(acts) == PCMIG_ACT_COUNT, "every act has a row");

/* Sets, one bit each. */
#define S(situation) (1u << PCMIG_SITUATION_##situation)
#define A(act)       (1u << PCMIG_ACT_##act)
#define SOURCE       (1u << PCMIG_SIDE_SOURCE)
#define DESTINATION  (1u << PCMIG_SIDE_DESTINATION)
#define EITHER       (SOURCE | DESTINATION)
_Static_assert(PCMIG_SITUATION_COUNT <= 32 && PCMIG_ACT_COUNT <= 32, "a set is 32 bits");

/* What the guest's owner does where the guest lives, and what removes the rest of a half. */
#define USE    (A(START) | A(RESUME) | A(REBOOT) | A(SHUTDOWN))
#define REMOVE (A(DESTROY) | A(UNDEFINE) | A(DELETE_FILES))

#define NO_MIGRATION  "no migration stands in the way"
#define NOTHING_THERE "nothing of it is left on the other side that could run"
#define REST          "what is here is a rest of which nobody needs anything"
#define SERVED        "its record has served"

/* What else has to be so. */
enum when {
    ALWAYS = 0,
    DISKS_STAYED, /* no disk was copied */
    HALF_STAYED,  /* the source has its half, and the destination's host says that it has nothing of the guest */
    HALF_SENT,    /* the guest runs at the destination, and QEMU at the source says that it has handed over all of it */
};

/* All that is allowed. While a migration is on record, the half that holds the guest is never removed, not even where
 * the halves leave no doubt: at such a time it is machinery that asks, and owners can insist. */
static const struct {
    unsigned situations;
    unsigned sides;
    unsigned acts;
    const char *why;
    enum when when;
} rows[] = {
    {S(UNSEEN) | S(NOBODY), EITHER, USE | REMOVE | A(FORGET), NO_MIGRATION, ALWAYS},
    {S(HOME_SOURCE), SOURCE, USE | REMOVE | A(FORGET), NO_MIGRATION, ALWAYS},
    {S(HOME_DESTINATION), DESTINATION, USE | REMOVE | A(FORGET), NO_MIGRATION, ALWAYS},
    {S(HOME_SOURCE), DESTINATION, A(SHUTDOWN) | REMOVE | A(FORGET), NO_MIGRATION, ALWAYS},
    {S(HOME_DESTINATION), SOURCE, A(SHUTDOWN) | REMOVE | A(FORGET), NO_MIGRATION, ALWAYS},

    {S(AT_SOURCE), SOURCE, USE, NOTHING_THERE, ALWAYS},
    {S(AT_SOURCE) | S(LEFTOVER), DESTINATION, REMOVE, REST, ALWAYS},
    {S(AT_DESTINATION) | S(HANDED_OVER), DESTINATION, USE, NOTHING_THERE, ALWAYS},
    {S(UNCONFIRMED), DESTINATION, A(RESUME), NOTHING_THERE, ALWAYS}, /* what would end it waits until it is settled */
    {S(AT_DESTINATION) | S(HANDED_OVER), SOURCE, REMOVE, REST, ALWAYS},
    {S(ENDED), EITHER, A(DESTROY), REST, ALWAYS},
    {S(ARRIVED), SOURCE, A(DESTROY), "both hosts say that all of it has crossed", HALF_SENT},

    /* A record on the side where the guest is not keeps the owner there from starting it. */
    {S(AT_SOURCE) | S(LEFTOVER), EITHER, A(FORGET), SERVED, ALWAYS},
    {S(AT_DESTINATION), DESTINATION, A(FORGET), SERVED, ALWAYS},
    {S(GONE) | S(ENDED), EITHER, A(FORGET), "nothing of it is left that could be lost", DISKS_STAYED},

    {S(NOBODY) | S(HOME_SOURCE) | S(AT_SOURCE) | S(LEFTOVER), EITHER, A(ROLLBACK),
     "the destination's half holds nothing of the guest", ALWAYS},
    {S(HOME_DESTINATION) | S(AT_DESTINATION) | S(HANDED_OVER), EITHER, A(POST_MIGRATION),
     "the source's half is not needed any more", ALWAYS},
    {S(INTERRUPTED), EITHER, A(MIGRATE_RESUME), "both halves wait for it", ALWAYS},

    {S(HALF_LOST), SOURCE, A(TURN_BACK),
     "the destination's half can run no more, and the source's is whole as it was at the switch", HALF_STAYED},
    /* One copy before, one after. What would end it waits for its owner. */
    {S(TURNED_BACK), SOURCE, A(REBOOT) | A(SHUTDOWN) | A(TURN_BACK), "it is the source's again", ALWAYS},
    {S(TURNED_BACK), DESTINATION, REMOVE | A(FORGET), "what is left there is of the past", ALWAYS},
    {S(TURNED_BACK), EITHER, A(ROLLBACK), "what is left at the destination is of the past", ALWAYS},
};

/* A migration that still moves is not forgotten, whoever insists: it would go on, and nobody would know. */
#define MOVES (S(PRECOPY) | S(SWITCHING) | S(POSTCOPY))

#define LOOK_SOURCE        "virsh -c '%s' domstate --reason '%g'"
#define LOOK_DESTINATION   "virsh -c '%d' domstate --reason '%g'"
#define WATCH              "pcmig watch -c '%s' '%g'"
#define RESUME             "pcmig resume -c '%s' '%g' '%d'"
#define FORGET             "pcmig forget -c '%s' '%g'" /* which says what would be lost, and asks for a word then */
#define END_AT_SOURCE      "virsh -c '%s' destroy '%g'"
#define END_AT_DESTINATION "virsh -c '%d' destroy '%g'"
#define TURN_BACK          "pcmig turn-back -c '%s' '%g'"
#define TURN_BACK_BY_WORD  "pcmig turn-back --destination-is-dead -c '%s' '%g'"
#define POWER_OFF          "virsh -c '%s' qemu-monitor-command '%g' --hmp system_powerdown"
#define OR_BOOT            "  # or, if it is to boot from its disks instead: " FORGET
#define END_ONE            END_AT_SOURCE ", or " END_AT_DESTINATION ": the copy that is not wanted"

/* What helps whoever was refused: it must get them further in that very situation. */
static const char *const advices[] = {
    [PCMIG_SITUATION_UNSEEN] = "pcmig check -c '%s' --peer '%d'", /* says which host does not answer, and why */
    [PCMIG_SITUATION_NOBODY] = LOOK_SOURCE "; " LOOK_DESTINATION,
    [PCMIG_SITUATION_HOME_SOURCE] = LOOK_SOURCE,
    [PCMIG_SITUATION_HOME_DESTINATION] = LOOK_DESTINATION,
    [PCMIG_SITUATION_PRECOPY] = "pcmig abort -c '%s' '%g'",
    [PCMIG_SITUATION_SWITCHING] = WATCH,
    [PCMIG_SITUATION_POSTCOPY] = WATCH,
    [PCMIG_SITUATION_INTERRUPTED] = RESUME,
    [PCMIG_SITUATION_CUT_OFF] = RESUME "  # or, if the silent host is lost: " FORGET,
    [PCMIG_SITUATION_AT_SOURCE] = RESUME, /* closes the record */
    [PCMIG_SITUATION_LEFTOVER] = END_AT_DESTINATION,
    [PCMIG_SITUATION_ARRIVED] = RESUME "  # or, if the source keeps its half: " END_AT_SOURCE,
    [PCMIG_SITUATION_AT_DESTINATION] = RESUME,
    [PCMIG_SITUATION_UNCONFIRMED] = "virsh -c '%d' resume '%g'",
    [PCMIG_SITUATION_HANDED_OVER] = LOOK_DESTINATION,
    [PCMIG_SITUATION_HALF_LOST] = FORGET, /* unless the source's half is left */
    [PCMIG_SITUATION_ENDED] = FORGET,
    [PCMIG_SITUATION_GONE] = FORGET,
    /* Only such a power cycle frees it of the migration. */
    [PCMIG_SITUATION_TURNED_BACK] = POWER_OFF "  # or, if it does not power off by itself: " END_AT_SOURCE,
    [PCMIG_SITUATION_DOUBLE] = END_ONE,
    [PCMIG_SITUATION_RUNS_AT_SOURCE] = RESUME "  # or, if the silent host is lost: " FORGET,
    [PCMIG_SITUATION_RUNS_AT_DESTINATION] = RESUME "  # or, if the silent host is lost: " FORGET,
    [PCMIG_SITUATION_SILENT] = RESUME "  # or, if the silent host is lost: " FORGET,
    [PCMIG_SITUATION_IN_DOUBT] = FORGET,
};
_Static_assert(LENGTH(advices) == PCMIG_SITUATION_COUNT, "every situation has an advice");

/* A half at the source that has all of the guest as it was at the switch. */
static bool has_half(enum pcmig_half source)
{
    return source == PCMIG_HALF_POSTCOPY || source == PCMIG_HALF_POSTCOPY_FAILED || source == PCMIG_HALF_PAUSED ||
           source == PCMIG_HALF_MIGRATING;
}

/* Advice that takes two particular halves. */
static const struct {
    enum pcmig_situation situation;
    enum pcmig_half destination;
    const char *advice;
} of_halves[] = {
    {PCMIG_SITUATION_HALF_LOST, PCMIG_HALF_ABSENT, TURN_BACK OR_BOOT},
    /* One that shuts down has its owner's word, which is to be read when it is off: "destroyed" would be in its place.
     */
    {PCMIG_SITUATION_HALF_LOST, PCMIG_HALF_DEAD,
     LOOK_DESTINATION "  # or, if it says crashed: " END_AT_DESTINATION "; " TURN_BACK},
    {PCMIG_SITUATION_CUT_OFF, PCMIG_HALF_UNKNOWN, RESUME "  # or, if the silent host is dead: " TURN_BACK_BY_WORD},
};

const char *pcmig_guard_what_helps(const struct pcmig_evidence *evidence)
{
    enum pcmig_situation situation = pcmig_situation_of(evidence);

    for (size_t i = 0; i < LENGTH(of_halves); i++) {
        if (of_halves[i].situation == situation && of_halves[i].destination == evidence->destination &&
            has_half(evidence->source))
            return of_halves[i].advice;
    }
    return pcmig_guard_situation_advice(situation);
}

/* What the source handed over is old, whatever half is seen there; and nothing of a guest that was shut down there is
 * to go on. */
static bool whole_as_it_was(const struct pcmig_evidence *evidence)
{
    return has_half(evidence->source) && !evidence->source_handed_off && !evidence->call_succeeded &&
           !evidence->destination_shut_down;
}

static bool holds(enum when when, const struct pcmig_evidence *evidence)
{
    switch (when) {
    case DISKS_STAYED:
        return !evidence->disks_copied;
    case HALF_STAYED:
        return whole_as_it_was(evidence) && evidence->destination == PCMIG_HALF_ABSENT;
    case HALF_SENT:
        return evidence->source_completed && evidence->destination == PCMIG_HALF_RUNNING;
    case ALWAYS:
        break;
    }
    return true;
}

/* The justification, or NULL: refused. EVIDENCE: NULL = as far as the situation goes. */
static const char *permission(enum pcmig_situation situation, enum pcmig_side side, enum pcmig_act act,
                              const struct pcmig_evidence *evidence)
{
    if ((unsigned)situation >= PCMIG_SITUATION_COUNT || (unsigned)side >= PCMIG_SIDE_COUNT ||
        (unsigned)act >= PCMIG_ACT_COUNT)
        return NULL;
    for (size_t i = 0; i < LENGTH(rows); i++) {
        if ((rows[i].situations & 1u << situation) != 0 && (rows[i].sides & 1u << side) != 0 &&
            (rows[i].acts & 1u << act) != 0 && (evidence == NULL || holds(rows[i].when, evidence)))
            return rows[i].why;
    }
    return NULL;
}

bool pcmig_guard_permits(enum pcmig_situation situation, enum pcmig_side side, enum pcmig_act act)
{
    return permission(situation, side, act, NULL) != NULL;
}

const char *pcmig_guard_situation_advice(enum pcmig_situation situation)
{
    return advices[(unsigned)situation < PCMIG_SITUATION_COUNT ? situation : PCMIG_SITUATION_IN_DOUBT];
}

static struct pcmig_permission refused(const struct pcmig_evidence *evidence, enum pcmig_situation situation,
                                       enum pcmig_side side, enum pcmig_act act)
{
    struct pcmig_permission p = {.situation = situation, .advice = pcmig_guard_what_helps(evidence)};
    char subject[64];

    if ((unsigned)side >= PCMIG_SIDE_COUNT || (unsigned)act >= PCMIG_ACT_COUNT) {
        snprintf(p.reason, sizeof(p.reason), "no such act or side");
        return p;
    }
    /* The table's own formats; those without a side leave the argument unused. */
    snprintf(subject, sizeof(subject), acts[act].subject, sides[side]);
    snprintf(p.reason, sizeof(p.reason), "%s; %s %s", pcmig_situation_text(situation), subject, acts[act].danger);
    return p;
}

/* What the owner is told who deletes the guest in whatever state it is. */
static struct pcmig_permission insisted(const struct pcmig_evidence *evidence, enum pcmig_situation situation,
                                        enum pcmig_side side)
{
    struct pcmig_permission p = {.allowed = true, .situation = situation};
    enum pcmig_half other = side == PCMIG_SIDE_SOURCE ? evidence->destination : evidence->source;

    snprintf(p.reason, sizeof(p.reason),
             "%s; it is removed at the %s because its owner insists, and cannot be brought back",
             pcmig_situation_text(situation), sides[side]);
    if (other != PCMIG_HALF_ABSENT)
        p.advice = side == PCMIG_SIDE_SOURCE ? "virsh -c '%d' destroy '%g'" : "virsh -c '%s' destroy '%g'";
    return p;
}

/* What the operator is told who takes the loss. What he may want to do next depends on the halves: pcmig_guard_rest().
 */
static struct pcmig_permission forgotten(enum pcmig_situation situation)
{
    struct pcmig_permission p = {.allowed = true, .situation = situation};

    snprintf(p.reason, sizeof(p.reason), "%s; its record goes because the operator takes the loss",
             pcmig_situation_text(situation));
    return p;
}

/* Whether a word on the destination's death can be taken: its host does not answer, or has nothing. */
static bool takes_word(const struct pcmig_evidence *evidence, enum pcmig_situation situation, enum pcmig_side side)
{
    return side == PCMIG_SIDE_SOURCE &&
           (situation == PCMIG_SITUATION_CUT_OFF || situation == PCMIG_SITUATION_HALF_LOST) &&
           whole_as_it_was(evidence) &&
           (evidence->destination == PCMIG_HALF_UNKNOWN || evidence->destination == PCMIG_HALF_ABSENT);
}

/* What the operator is told who gives his word. */
static struct pcmig_permission by_word(enum pcmig_situation situation)
{
    struct pcmig_permission p = {.allowed = true, .situation = situation};

    snprintf(p.reason, sizeof(p.reason),
             "%s; it goes on at the source on the word that the destination is dead: should it live, the guest runs "
             "twice",
             pcmig_situation_text(situation));
    return p;
}

struct pcmig_permission pcmig_guard_may(const struct pcmig_evidence *evidence, enum pcmig_side side, enum pcmig_act act,
                                        bool insist)
{
    enum pcmig_situation situation = pcmig_situation_of(evidence);
    enum pcmig_half own = side == PCMIG_SIDE_SOURCE ? evidence->source : evidence->destination;
    const char *why = permission(situation, side, act, evidence);
    struct pcmig_permission p = {.allowed = true, .situation = situation};

    if ((unsigned)side >= PCMIG_SIDE_COUNT || (unsigned)act >= PCMIG_ACT_COUNT)
        return refused(evidence, situation, side, act);
    if (why == NULL && act == PCMIG_ACT_DESTROY && own == PCMIG_HALF_ABSENT)
        why = "there is nothing to destroy";
    if (why == NULL && insist && (REMOVE & 1u << act) != 0)
        return insisted(evidence, situation, side);
    if (why == NULL && insist && act == PCMIG_ACT_FORGET && (MOVES & 1u << situation) == 0)
        return forgotten(situation);
    if (why == NULL && insist && act == PCMIG_ACT_TURN_BACK && takes_word(evidence, situation, side))
        return by_word(situation);
    if (why == NULL)
        return refused(evidence, situation, side, act);
    snprintf(p.reason, sizeof(p.reason), "%s; %s", pcmig_situation_text(situation), why);
    return p;
}

/* Where a half stays that nobody can use any more; by situation, and by which of the two there are. */
static const struct {
    unsigned situations;
    bool source, destination; /* this side's half is a rest, if there is one */
} rests[] = {
    {S(INTERRUPTED) | S(CUT_OFF) | S(HALF_LOST) | S(GONE) | S(ENDED), true, true},
    {S(LEFTOVER) | S(TURNED_BACK), false, true},
    {S(ARRIVED), true, false},
};

static bool is_there(enum pcmig_half half)
{
    return half != PCMIG_HALF_ABSENT && half != PCMIG_HALF_UNKNOWN;
}

const char *pcmig_guard_rest(const struct pcmig_evidence *evidence)
{
    enum pcmig_situation situation = pcmig_situation_of(evidence);

    if (situation == PCMIG_SITUATION_DOUBLE)
        return END_ONE;
    for (size_t i = 0; i < LENGTH(rests); i++) {
        bool source = rests[i].source && is_there(evidence->source);
        bool destination = rests[i].destination && is_there(evidence->destination);

        if ((rests[i].situations & 1u << situation) != 0)
            return source && destination ? END_AT_SOURCE "; " END_AT_DESTINATION
                   : source              ? END_AT_SOURCE
                   : destination         ? END_AT_DESTINATION
                                         : NULL;
    }
    return NULL;
}

bool pcmig_guard_advice(const char *advice, const struct pcmig_guard_names *names, char *out, size_t size)
{
    static const char apostrophe[] = "'\"'\"'"; /* as core/shell.c writes it in a quoted word */
    bool quoted = false;
    size_t used = 0;

    for (const char *at = advice; *at != '\0'; at++) {
        const char letter[2] = {*at, '\0'};
        const char *text = letter;
        bool name = false;

        if (*at == '\'')
            quoted = !quoted;
        if (*at == '%' && at[1] != '\0') {
            at++;
            name = true;
            text = *at == 'g'   ? (names->guest != NULL ? names->guest : "GUEST")
                   : *at == 's' ? (names->source_uri != NULL ? names->source_uri : "SOURCEURI")
                   : *at == 'd' ? (names->dest_uri != NULL ? names->dest_uri : "DESTURI")
                                : "%";
        }
        for (; *text != '\0'; text++) {
            const bool escaped = name && quoted && *text == '\'';
            const size_t len = escaped ? sizeof(apostrophe) - 1 : 1;

            if (used + len >= size) {
                out[used] = '\0';
                return false;
            }
            memcpy(out + used, escaped ? apostrophe : text, len);
            used += len;
        }
    }
    out[used] = '\0';
    return true;
}

const char *pcmig_side_name(enum pcmig_side side)
{
    return (unsigned)side < PCMIG_SIDE_COUNT ? sides[side] : "unknown";
}

const char *pcmig_act_name(enum pcmig_act act)
{
    return (unsigned)act < PCMIG_ACT_COUNT ? acts[act].name : "unknown";
}

int pcmig_side_find(const char *name, size_t len)
{
    return pcmig_names_find(sides, PCMIG_SIDE_COUNT, name, len);
}

int pcmig_act_find(const char *name, size_t len)
{
    for (int act = 0; act < PCMIG_ACT_COUNT; act++) {
        if (strlen(acts[act].name) == len && memcmp(acts[act].name, name, len) == 0)
            return act;
    }
    return -1;
}
