/* SPDX-License-Identifier: Apache-2.0 */
/* See engine_state.h. */
#include "core/engine_state.h"

#define LENGTH(table) (sizeof(table) / sizeof((table)[0]))

/* Sets of states, one bit each. */
#define S(state)    (1u << PCMIG_ENGINE_##state)
#define BEFORE      (S(PRECOPY) | S(DRAINING) | S(ISSUING))
#define MOVING      (BEFORE | S(SWITCHING) | S(POSTCOPY))
#define NOT_OVER    (S(OVER) - 1)
#define GO(trigger) PCMIG_TRIGGER_##trigger
#define TO(state)   PCMIG_ENGINE_##state
_Static_assert(PCMIG_ENGINE_OVER == PCMIG_ENGINE_STATE_COUNT - 1, "what is not over comes before it");

/* Events of libvirt come late, twice or not at all (a connection may break): a trigger that has no row in a state says
 * nothing new there. At most one row for each state and trigger. */
static const struct {
    unsigned from;
    enum pcmig_engine_trigger trigger;
    enum pcmig_engine_state to;
} rows[] = {
    {S(PREPARING), GO(CALLED), TO(PRECOPY)},
    {S(PREPARING), GO(ADOPTED), TO(PRECOPY)},

    {S(PRECOPY), GO(DRAIN), TO(DRAINING)},
    {S(DRAINING) | S(ISSUING), GO(UNDRAIN), TO(PRECOPY)},
    {S(PRECOPY) | S(DRAINING), GO(SWITCH), TO(ISSUING)},
    {BEFORE, GO(ISSUED), TO(SWITCHING)},
    {BEFORE, GO(SOURCE_STOPPED), TO(SWITCHING)},
    {S(SWITCHING), GO(SOURCE_RESUMED), TO(PRECOPY)},

    {BEFORE, GO(SOURCE_SERVES), TO(SWITCHING)},
    {BEFORE | S(SWITCHING), GO(RUNS_THERE), TO(POSTCOPY)},

    {MOVING | S(RESUMING) | S(CONFIRMING), GO(BROKE), TO(INTERRUPTED)},
    {S(INTERRUPTED) | S(RESUMING), GO(SOURCE_SERVES), TO(POSTCOPY)},
    {S(INTERRUPTED) | S(CONFIRMING), GO(RESUME), TO(RESUMING)},
    {S(RESUMING), GO(CALL_FAILED), TO(INTERRUPTED)},
    {S(INTERRUPTED) | S(RESUMING) | S(CONFIRMING), GO(FLOWS), TO(POSTCOPY)},

    {S(SWITCHING) | S(POSTCOPY), GO(HALF_ENDED), TO(CONFIRMING)},
    {S(SWITCHING) | S(POSTCOPY), GO(STALLED), TO(CONFIRMING)},
    {MOVING | S(INTERRUPTED) | S(RESUMING), GO(CALL_SUCCEEDED), TO(CONFIRMING)},
    {MOVING, GO(CALL_FAILED), TO(CONFIRMING)},
    {NOT_OVER, GO(FINISHED), TO(OVER)},
};

enum pcmig_engine_state pcmig_engine_next(enum pcmig_engine_state state, enum pcmig_engine_trigger trigger)
{
    for (size_t i = 0; i < LENGTH(rows); i++) {
        if (rows[i].trigger == trigger && (rows[i].from & 1u << state) != 0)
            return rows[i].to;
    }
    return state;
}

static const struct {
    const char *name;
    const char *text;
    bool before_switch;
    bool asks;
} states[] = {
    [PCMIG_ENGINE_PREPARING] = {"preparing", "connects to both hosts, and checks what can be checked", true, false},
    [PCMIG_ENGINE_PRECOPY] = {"precopy", "the guest runs at the source; the policy decides when to switch", true,
                              false},
    [PCMIG_ENGINE_DRAINING] = {"draining", "pre-copy is slowed down until the link's queue is empty", true, false},
    [PCMIG_ENGINE_ISSUING] = {"issuing", "libvirt is asked for the switch, again when it refuses", true, false},
    [PCMIG_ENGINE_SWITCHING] = {"switching", "the switch was issued, or the source's processors have stopped", false,
                                false},
    [PCMIG_ENGINE_POSTCOPY] = {"postcopy", "the guest runs at the destination and fetches what is missing", false,
                               false},
    [PCMIG_ENGINE_INTERRUPTED] = {"interrupted", "post-copy broke; recovery decides what is done, and when", false,
                                  true},
    [PCMIG_ENGINE_RESUMING] = {"resuming", "a call of libvirt's resumes post-copy", false, true},
    [PCMIG_ENGINE_CONFIRMING] = {"confirming", "both hosts are asked who has the guest", false, true},
    [PCMIG_ENGINE_OVER] = {"over", "the outcome is told", false, false},
};
_Static_assert(LENGTH(states) == PCMIG_ENGINE_STATE_COUNT, "every state has a row");

static const char *const triggers[] = {
    [PCMIG_TRIGGER_CALLED] = "the migrate call is made",
    [PCMIG_TRIGGER_ADOPTED] = "a migration that is under way is adopted",
    [PCMIG_TRIGGER_DRAIN] = "the policy begins a drain",
    [PCMIG_TRIGGER_UNDRAIN] = "the drain is given up",
    [PCMIG_TRIGGER_SWITCH] = "the policy wants the switch now",
    [PCMIG_TRIGGER_ISSUED] = "libvirt takes the switch",
    [PCMIG_TRIGGER_SOURCE_STOPPED] = "the source's processors stop",
    [PCMIG_TRIGGER_SOURCE_RESUMED] = "libvirt lets the guest run on at the source",
    [PCMIG_TRIGGER_SOURCE_SERVES] = "the source is in post-copy",
    [PCMIG_TRIGGER_RUNS_THERE] = "the guest runs at the destination",
    [PCMIG_TRIGGER_BROKE] = "an end says that post-copy broke",
    [PCMIG_TRIGGER_HALF_ENDED] = "a half is gone",
    [PCMIG_TRIGGER_STALLED] = "the destination acknowledges nothing",
    [PCMIG_TRIGGER_RESUME] = "a resume is called",
    [PCMIG_TRIGGER_CALL_SUCCEEDED] = "the call succeeds",
    [PCMIG_TRIGGER_CALL_FAILED] = "the call fails",
    [PCMIG_TRIGGER_FLOWS] = "both ends say that it flows",
    [PCMIG_TRIGGER_FINISHED] = "the verdict, or the caller leaves",
};
_Static_assert(LENGTH(triggers) == PCMIG_TRIGGER_COUNT, "every trigger has a text");

static bool known(enum pcmig_engine_state state)
{
    return (unsigned)state < PCMIG_ENGINE_STATE_COUNT;
}

bool pcmig_engine_before_switch(enum pcmig_engine_state state)
{
    return known(state) && states[state].before_switch;
}

bool pcmig_engine_asks(enum pcmig_engine_state state)
{
    return known(state) && states[state].asks;
}

const char *pcmig_engine_state_name(enum pcmig_engine_state state)
{
    return known(state) ? states[state].name : "unknown";
}

const char *pcmig_engine_state_text(enum pcmig_engine_state state)
{
    return known(state) ? states[state].text : "unknown";
}

const char *pcmig_engine_trigger_text(enum pcmig_engine_trigger trigger)
{
    return (unsigned)trigger < PCMIG_TRIGGER_COUNT ? triggers[trigger] : "unknown";
}
