/* See guard.h. */
#include "core/guard.h"

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

/* All that is allowed. While a migration is on record, the half that holds the guest is never removed, not even where the
 * halves leave no doubt: at such a time it is machinery that asks, and owners can insist. */
static const struct {
    unsigned situations;
    unsigned sides;
    unsigned acts;
    const char *why;
} rows[] = {
    {S(UNSEEN) | S(NOBODY), EITHER, USE | REMOVE, NO_MIGRATION},
    {S(HOME_SOURCE), SOURCE, USE | REMOVE, NO_MIGRATION},
    {S(HOME_DESTINATION), DESTINATION, USE | REMOVE, NO_MIGRATION},
    {S(HOME_SOURCE), DESTINATION, A(SHUTDOWN) | REMOVE, NO_MIGRATION},
    {S(HOME_DESTINATION), SOURCE, A(SHUTDOWN) | REMOVE, NO_MIGRATION},

    {S(AT_SOURCE), SOURCE, USE, NOTHING_THERE},
    {S(AT_SOURCE) | S(LEFTOVER), DESTINATION, REMOVE, REST},
    {S(AT_DESTINATION) | S(HANDED_OVER), DESTINATION, USE, NOTHING_THERE},
    {S(UNCONFIRMED), DESTINATION, A(RESUME), NOTHING_THERE}, /* but what would end it waits until it is settled */
    {S(AT_DESTINATION) | S(HANDED_OVER), SOURCE, REMOVE, REST},

    {S(NOBODY) | S(HOME_SOURCE) | S(AT_SOURCE) | S(LEFTOVER), EITHER, A(ROLLBACK),
     "the destination's half holds nothing of the guest"},
    {S(HOME_DESTINATION) | S(AT_DESTINATION) | S(HANDED_OVER), EITHER, A(POST_MIGRATION),
     "the source's half is not needed any more"},
    {S(INTERRUPTED), EITHER, A(MIGRATE_RESUME), "both halves wait for it"},
};

#define LOOK_SOURCE      "virsh -c '%s' domstate --reason '%g'"
#define LOOK_DESTINATION "virsh -c '%d' domstate --reason '%g'"
#define LOOK_BOTH        LOOK_SOURCE "; " LOOK_DESTINATION
#define WATCH            "pcmig watch -c '%s' '%g'"
#define RESUME           "pcmig resume -c '%s' '%g' '%d'"

/* What helps whoever was refused. */
static const char *const advices[] = {
    [PCMIG_SITUATION_UNSEEN] = LOOK_BOTH,
    [PCMIG_SITUATION_NOBODY] = LOOK_BOTH,
    [PCMIG_SITUATION_HOME_SOURCE] = LOOK_SOURCE,
    [PCMIG_SITUATION_HOME_DESTINATION] = LOOK_DESTINATION,
    [PCMIG_SITUATION_PRECOPY] = "pcmig abort -c '%s' '%g'",
    [PCMIG_SITUATION_SWITCHING] = WATCH,
    [PCMIG_SITUATION_POSTCOPY] = WATCH,
    [PCMIG_SITUATION_INTERRUPTED] = RESUME,
    [PCMIG_SITUATION_CUT_OFF] = RESUME,
    [PCMIG_SITUATION_AT_SOURCE] = LOOK_SOURCE,
    [PCMIG_SITUATION_LEFTOVER] = "virsh -c '%d' destroy '%g'",
    [PCMIG_SITUATION_ARRIVED] = LOOK_BOTH,
    [PCMIG_SITUATION_AT_DESTINATION] = LOOK_DESTINATION,
    [PCMIG_SITUATION_UNCONFIRMED] = LOOK_DESTINATION,
    [PCMIG_SITUATION_HANDED_OVER] = LOOK_DESTINATION,
    [PCMIG_SITUATION_HALF_LOST] = LOOK_BOTH,
    [PCMIG_SITUATION_GONE] = "virsh -c '%s' dominfo '%g'; virsh -c '%d' dominfo '%g'",
    [PCMIG_SITUATION_DOUBLE] = "virsh -c '%s' destroy '%g', or virsh -c '%d' destroy '%g': the copy that is not wanted",
    [PCMIG_SITUATION_SILENT] = LOOK_BOTH,
    [PCMIG_SITUATION_IN_DOUBT] = LOOK_BOTH,
};
_Static_assert(LENGTH(advices) == PCMIG_SITUATION_COUNT, "every situation has an advice");

/* The justification, or NULL: refused. */
static const char *permission(enum pcmig_situation situation, enum pcmig_side side, enum pcmig_act act)
{
    if ((unsigned)situation >= PCMIG_SITUATION_COUNT || (unsigned)side >= PCMIG_SIDE_COUNT ||
        (unsigned)act >= PCMIG_ACT_COUNT)
        return NULL;
    for (size_t i = 0; i < LENGTH(rows); i++) {
        if ((rows[i].situations & 1u << situation) != 0 && (rows[i].sides & 1u << side) != 0 &&
            (rows[i].acts & 1u << act) != 0)
            return rows[i].why;
    }
    return NULL;
}

bool pcmig_guard_permits(enum pcmig_situation situation, enum pcmig_side side, enum pcmig_act act)
{
    return permission(situation, side, act) != NULL;
}

const char *pcmig_guard_situation_advice(enum pcmig_situation situation)
{
    return advices[(unsigned)situation < PCMIG_SITUATION_COUNT ? situation : PCMIG_SITUATION_IN_DOUBT];
}

static struct pcmig_permission refused(enum pcmig_situation situation, enum pcmig_side side, enum pcmig_act act)
{
    struct pcmig_permission p = {.situation = situation, .advice = pcmig_guard_situation_advice(situation)};
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

struct pcmig_permission pcmig_guard_may(const struct pcmig_evidence *evidence, enum pcmig_side side, enum pcmig_act act,
                                        bool insist)
{
    enum pcmig_situation situation = pcmig_situation_of(evidence);
    enum pcmig_half own = side == PCMIG_SIDE_SOURCE ? evidence->source : evidence->destination;
    const char *why = permission(situation, side, act);
    struct pcmig_permission p = {.allowed = true, .situation = situation};

    if ((unsigned)side >= PCMIG_SIDE_COUNT || (unsigned)act >= PCMIG_ACT_COUNT)
        return refused(situation, side, act);
    if (why == NULL && act == PCMIG_ACT_DESTROY && own == PCMIG_HALF_ABSENT)
        why = "there is nothing to destroy";
    if (why == NULL && insist && (REMOVE & 1u << act) != 0)
        return insisted(evidence, situation, side);
    if (why == NULL)
        return refused(situation, side, act);
    snprintf(p.reason, sizeof(p.reason), "%s; %s", pcmig_situation_text(situation), why);
    return p;
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
    for (int side = 0; side < PCMIG_SIDE_COUNT; side++) {
        if (strlen(sides[side]) == len && memcmp(sides[side], name, len) == 0)
            return side;
    }
    return -1;
}

int pcmig_act_find(const char *name, size_t len)
{
    for (int act = 0; act < PCMIG_ACT_COUNT; act++) {
        if (strlen(acts[act].name) == len && memcmp(acts[act].name, name, len) == 0)
            return act;
    }
    return -1;
}
