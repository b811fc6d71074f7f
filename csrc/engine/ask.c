/* SPDX-License-Identifier: Apache-2.0 */
/* See ask.h. */
#include "engine/ask.h"

#include "core/domain_files.h"
#include "core/qemu_migration.h"
#include "edge/clock.h"
#include "edge/threads.h"
#include "edge/virt_facts.h"
#include "engine/control.h"

#include <stdlib.h>

/* So long the control thread waits for an answer. */
#define PATIENCE_US 250000
/* And so long for the destination's while the switch is due, for which nobody needs that one's word. */
#define URGENT_US   10000
#define STACK_BYTES (512 * 1024)

/* Belongs to two: the asker, and who waits, or else the slot of the end. */
struct pcmig_question {
    atomic_int references;
    enum pcmig_ask_kind kind;

    /* Under the asker's lock. */
    bool over;
    bool late; /* nobody waits for it any more: the control thread is to be woken */
    int result;
    struct pcmig_ask ask;

    /* The control thread's. */
    bool arrived;  /* it is to be used in this turn */
    bool outdated; /* something has happened since it was asked */
};

/* A thread, and the connection that nobody else uses. Belongs to the thread and to the end. */
struct pcmig_asker {
    atomic_int references;
    struct pcmig_migration *m;
    enum pcmig_side side;

    /* The thread's: after it was started nobody else touches them, and it ends them when it goes. */
    struct pcmig_virt_conn *conn;
    struct pcmig_virt_domain *domain; /* NULL = the guest is not known */

    pthread_mutex_t lock;
    struct pcmig_virt_watch *watch;  /* the thread's, but for being muted */
    pthread_cond_t work;             /* for the thread */
    pthread_cond_t over;             /* CLOCK_MONOTONIC; for the control thread */
    struct pcmig_question *question; /* that it has; NULL = it waits for one */
    bool leave;
};

/* --- the questions ------------------------------------------------------------------------------------------------ */

static int attach(struct pcmig_asker *a, struct pcmig_ask *ask)
{
    struct pcmig_virt_watch *watch = NULL;
    int result = pcmig_preflight_follow(a->m, a->side, a->conn, &a->domain, &watch, &ask->error);

    pthread_mutex_lock(&a->lock);
    a->watch = watch;
    pthread_mutex_unlock(&a->lock);
    return result;
}

static int host(struct pcmig_asker *a, struct pcmig_ask *ask)
{
    pcmig_virt_host_uuid(a->conn, ask->host);
    return 0;
}

static int guest(struct pcmig_asker *a, struct pcmig_ask *ask)
{
    struct pcmig_virt_error ignored = {0};

    if (pcmig_virt_guest(a->conn, a->m->uuid, &ask->guest, &ask->error) < 0)
        return -1;
    /* A daemon that had just been started may not have known the guest when the connection was opened. */
    if (a->side == PCMIG_SIDE_SOURCE && a->domain == NULL && ask->guest.half != PCMIG_HALF_ABSENT)
        a->domain = pcmig_virt_lookup(a->conn, a->m->uuid, &ignored);
    return 0;
}

static int gone(struct pcmig_asker *a, struct pcmig_ask *ask)
{
    (void)ask;
    return pcmig_virt_gone(a->conn, a->m->uuid) ? 1 : 0;
}

static int job(struct pcmig_asker *a, struct pcmig_ask *ask)
{
    return pcmig_virt_job(a->domain, &ask->job, &ask->error);
}

static int writes(struct pcmig_asker *a, struct pcmig_ask *ask)
{
    return pcmig_virt_sampled_writes(a->domain, &ask->bytes_ps, &ask->error);
}

static int memory(struct pcmig_asker *a, struct pcmig_ask *ask)
{
    ask->bytes = pcmig_virt_domain_memory_bytes(a->domain);
    return 0;
}

static int direction(struct pcmig_asker *a, struct pcmig_ask *ask)
{
    struct pcmig_virt_turn_back seen;

    if (pcmig_virt_turn_back_look(a->domain, &seen, &ask->error) < 0)
        return -1;
    return pcmig_virt_turn_back_half(&seen) != PCMIG_TURN_BACK_OTHER ? 1 : 0;
}

static int qemu(struct pcmig_asker *a, struct pcmig_ask *ask)
{
    return pcmig_virt_qemu_migration(a->domain, ask->status, sizeof(ask->status), &ask->sent_bytes, &ask->error);
}

static int latency(struct pcmig_asker *a, struct pcmig_ask *ask)
{
    return pcmig_virt_qemu_latency(a->domain, &ask->latency, &ask->error);
}

static int version(struct pcmig_asker *a, struct pcmig_ask *ask)
{
    unsigned long ignored;

    return pcmig_virt_versions(a->conn, &ask->version, &ignored, &ask->error);
}

static int defined(struct pcmig_asker *a, struct pcmig_ask *ask)
{
    (void)ask;
    return pcmig_virt_defined(a->conn, a->m->uuid);
}

static int saved(struct pcmig_asker *a, struct pcmig_ask *ask)
{
    (void)ask;
    return pcmig_virt_saved(a->conn, a->m->uuid) ? 1 : 0;
}

static int files(struct pcmig_asker *a, struct pcmig_ask *ask)
{
    char *xml = pcmig_virt_domain_xml(a->domain, &ask->error);
    int result = xml == NULL ? -1 : pcmig_domain_files(xml) ? 1 : 0;

    free(xml);
    return result;
}

static int precopy_speed(struct pcmig_asker *a, struct pcmig_ask *ask)
{
    return pcmig_virt_set_speed(a->domain, ask->number, false, &ask->error);
}

static int postcopy_speed(struct pcmig_asker *a, struct pcmig_ask *ask)
{
    return pcmig_virt_set_speed(a->domain, ask->number, true, &ask->error);
}

static int downtime(struct pcmig_asker *a, struct pcmig_ask *ask)
{
    return pcmig_virt_set_max_downtime(a->domain, ask->number, &ask->error);
}

static int start_postcopy(struct pcmig_asker *a, struct pcmig_ask *ask)
{
    return pcmig_virt_start_postcopy(a->domain, &ask->error);
}

static int abort_job(struct pcmig_asker *a, struct pcmig_ask *ask)
{
    return pcmig_virt_abort(a->domain, ask->number != 0, 0, &ask->error);
}

static int pause_postcopy(struct pcmig_asker *a, struct pcmig_ask *ask)
{
    return pcmig_virt_pause_postcopy(a->domain, &ask->error);
}

/* By libvirt, if it passes it on: it marks a guest whose monitor was used. Only where libvirt calls the migration
 * paused QEMU is told without it, and only if it says just before that it is not: libvirt may have taken its time. */
static int pause_qemu(struct pcmig_asker *a, struct pcmig_ask *ask)
{
    if (pcmig_virt_pause_postcopy(a->domain, &ask->error) == 0)
        return 0;
    if (pcmig_virt_classify(&ask->error) != PCMIG_VIRT_FAILURE_INVALID ||
        pcmig_virt_qemu_migration(a->domain, ask->status, sizeof(ask->status), &ask->sent_bytes, &ask->error) < 0)
        return -1;
    if (pcmig_qemu_migration_sends(ask->status))
        return pcmig_virt_qemu_pause(a->domain, &ask->error);
    pcmig_virt_error_set(&ask->error, PCMIG_VIRT_FAILURE_INVALID, "QEMU at the source says of its migration: %s",
                         ask->status);
    return -1;
}

static int run(struct pcmig_asker *a, struct pcmig_ask *ask)
{
    return pcmig_virt_resume(a->domain, &ask->error);
}

static int autostart(struct pcmig_asker *a, struct pcmig_ask *ask)
{
    return pcmig_virt_set_autostart(a->conn, a->m->uuid, ask->number != 0, &ask->error);
}

static int forget(struct pcmig_asker *a, struct pcmig_ask *ask)
{
    return pcmig_virt_forget(a->conn, a->m->uuid, ask->number != 0) ? 0 : -1;
}

static int destroy(struct pcmig_asker *a, struct pcmig_ask *ask)
{
    return pcmig_virt_destroy(a->conn, a->m->uuid, &ask->error);
}

static const struct {
    int (*ask)(struct pcmig_asker *a, struct pcmig_ask *ask);
    bool of_domain; /* it needs the guest to have been looked up */
    enum pcmig_lane lane;
} kinds[] = {
    [PCMIG_ASK_ATTACH] = {attach, false, PCMIG_LANE_HOST},
    [PCMIG_ASK_HOST] = {host, false, PCMIG_LANE_HOST},
    [PCMIG_ASK_GUEST] = {guest, false, PCMIG_LANE_HOST},
    [PCMIG_ASK_GONE] = {gone, false, PCMIG_LANE_HOST},
    [PCMIG_ASK_JOB] = {job, true, PCMIG_LANE_QEMU},
    [PCMIG_ASK_WRITES] = {writes, true, PCMIG_LANE_QEMU},
    [PCMIG_ASK_MEMORY] = {memory, true, PCMIG_LANE_HOST},
    [PCMIG_ASK_DIRECTION] = {direction, true, PCMIG_LANE_QEMU},
    [PCMIG_ASK_QEMU] = {qemu, true, PCMIG_LANE_QEMU},
    [PCMIG_ASK_VERSION] = {version, false, PCMIG_LANE_HOST},
    [PCMIG_ASK_DEFINED] = {defined, false, PCMIG_LANE_HOST},
    /* The destination's guest is not looked up there but for this. */
    [PCMIG_ASK_LATENCY] = {latency, false, PCMIG_LANE_QEMU},
    [PCMIG_ASK_SAVED] = {saved, false, PCMIG_LANE_HOST},
    [PCMIG_ASK_FILES] = {files, true, PCMIG_LANE_HOST},
    [PCMIG_TELL_PRECOPY_SPEED] = {precopy_speed, true, PCMIG_LANE_HOST},
    [PCMIG_TELL_POSTCOPY_SPEED] = {postcopy_speed, true, PCMIG_LANE_HOST},
    [PCMIG_TELL_DOWNTIME] = {downtime, true, PCMIG_LANE_HOST},
    [PCMIG_TELL_SWITCH] = {start_postcopy, true, PCMIG_LANE_HOST},
    [PCMIG_TELL_ABORT] = {abort_job, true, PCMIG_LANE_QEMU},
    [PCMIG_TELL_PAUSE] = {pause_postcopy, true, PCMIG_LANE_HOST},
    [PCMIG_TELL_PAUSE_QEMU] = {pause_qemu, true, PCMIG_LANE_QEMU},
    [PCMIG_TELL_RUN] = {run, true, PCMIG_LANE_HOST},
    [PCMIG_TELL_AUTOSTART] = {autostart, false, PCMIG_LANE_HOST},
    [PCMIG_TELL_FORGET] = {forget, false, PCMIG_LANE_HOST},
    [PCMIG_TELL_DESTROY] = {destroy, false, PCMIG_LANE_HOST},
};
_Static_assert(sizeof(kinds) / sizeof(kinds[0]) == PCMIG_ASK_COUNT, "every kind has a row");

/* --- a question --------------------------------------------------------------------------------------------------- */

static struct pcmig_question *question_new(enum pcmig_ask_kind kind, int64_t number)
{
    struct pcmig_question *q = calloc(1, sizeof(*q));

    if (q == NULL)
        return NULL;
    atomic_init(&q->references, 1);
    q->kind = kind;
    q->ask.number = number;
    return q;
}

static void question_unref(struct pcmig_question *q)
{
    if (q != NULL && atomic_fetch_sub(&q->references, 1) == 1)
        free(q);
}

/* --- the asker's thread ------------------------------------------------------------------------------------------- */

static void asker_unref(struct pcmig_asker *a)
{
    if (atomic_fetch_sub(&a->references, 1) != 1)
        return;
    pthread_cond_destroy(&a->over);
    pthread_cond_destroy(&a->work);
    pthread_mutex_destroy(&a->lock);
    pcmig_migration_unref(a->m);
    free(a);
}

static void disconnect(struct pcmig_asker *a)
{
    pcmig_virt_unwatch(a->watch);
    pcmig_virt_domain_free(a->domain);
    pcmig_virt_close(a->conn);
    a->watch = NULL;
    a->domain = NULL;
    a->conn = NULL;
}

/* For the questions that go to QEMU: its connection is opened when the first of them comes, and again where it broke.
 */
static int connect_for_qemu(struct pcmig_asker *a, struct pcmig_virt_error *error)
{
    const struct pcmig_migration_args *args = &a->m->args;
    const char *uri = a->side == PCMIG_SIDE_SOURCE ? args->source_uri : args->dest_uri;

    if (a->conn == NULL)
        a->conn = pcmig_virt_open(uri, args->connect_timeout_ms, error);
    if (a->conn != NULL && a->domain == NULL)
        a->domain = pcmig_virt_lookup(a->conn, a->m->uuid, error);
    return a->domain != NULL ? 0 : -1;
}

static int put(struct pcmig_asker *a, enum pcmig_ask_kind kind, struct pcmig_ask *ask)
{
    if (kinds[kind].lane == PCMIG_LANE_QEMU && connect_for_qemu(a, &ask->error) < 0)
        return -1;
    if (kinds[kind].of_domain && a->domain == NULL) {
        pcmig_virt_error_set(&ask->error, PCMIG_VIRT_FAILURE_NO_DOMAIN, "the guest is not known there");
        return -1;
    }
    return kinds[kind].ask(a, ask);
}

static int answer(struct pcmig_asker *a, enum pcmig_ask_kind kind, struct pcmig_ask *ask)
{
    int result = put(a, kind, ask);

    ask->known = a->domain != NULL;
    if (result < 0 && kinds[kind].lane == PCMIG_LANE_QEMU &&
        pcmig_virt_classify(&ask->error) == PCMIG_VIRT_FAILURE_CONNECT)
        disconnect(a);
    return result;
}

/* The next question; NULL = there will be none. */
static struct pcmig_question *next_question(struct pcmig_asker *a, struct pcmig_ask *ask)
{
    struct pcmig_question *q;

    pthread_mutex_lock(&a->lock);
    while (a->question == NULL && !a->leave)
        pthread_cond_wait(&a->work, &a->lock);
    q = a->question;
    if (q != NULL)
        *ask = q->ask;
    pthread_mutex_unlock(&a->lock);
    return q;
}

static void *asking_main(void *arg)
{
    struct pcmig_asker *a = arg;
    struct pcmig_question *q;
    struct pcmig_ask ask;

    while ((q = next_question(a, &ask)) != NULL) {
        int result = answer(a, q->kind, &ask);
        bool late;

        pthread_mutex_lock(&a->lock);
        q->ask = ask;
        q->result = result;
        q->over = true;
        late = q->late;
        a->question = NULL;
        pthread_cond_signal(&a->over);
        pthread_mutex_unlock(&a->lock);
        question_unref(q);
        if (late)
            pcmig_migration_answered(a->m);
    }
    disconnect(a);
    asker_unref(a);
    return NULL;
}

static bool start(struct pcmig_asker *a)
{
    bool started;

    atomic_fetch_add(&a->references, 1);
    started = pcmig_thread_begin(STACK_BYTES, asking_main, a) == 0;
    if (!started)
        atomic_fetch_sub(&a->references, 1);
    return started;
}

static struct pcmig_asker *asker_new(struct pcmig_migration *m, enum pcmig_side side, const struct pcmig_asker_has *has)
{
    struct pcmig_asker *a = calloc(1, sizeof(*a));

    if (a == NULL)
        goto err0;
    if (pcmig_waiting_init(&a->lock, &a->over) != 0)
        goto err1;
    if (pcmig_condition_init(&a->work) != 0)
        goto err2;
    atomic_init(&a->references, 1);
    a->m = pcmig_migration_ref(m);
    a->side = side;
    a->conn = has->conn;
    a->domain = has->domain;
    a->watch = has->watch;
    if (start(a))
        return a;
    a->conn = NULL; /* they are the caller's still */
    asker_unref(a);
    return NULL;

err2:
    pthread_cond_destroy(&a->over);
    pthread_mutex_destroy(&a->lock);
err1:
    free(a);
err0:
    return NULL;
}

/* The thread goes when it has its answer, if it waits for one. Until then nobody hears of the guest, or of the
 * connection's end, from this one. */
static void dismiss(struct pcmig_asker **asker)
{
    struct pcmig_asker *a = *asker;

    if (a == NULL)
        return;
    *asker = NULL;
    pthread_mutex_lock(&a->lock);
    pcmig_virt_watch_mute(a->watch);
    a->leave = true;
    pthread_cond_signal(&a->work);
    pthread_mutex_unlock(&a->lock);
    asker_unref(a);
}

/* --- the control thread ------------------------------------------------------------------------------------------- */

static struct pcmig_asker *asker_of(const struct control *c, enum pcmig_side side, enum pcmig_ask_kind kind)
{
    return c->end[side].asker[kinds[kind].lane];
}

/* Whether the answer came within the time. */
static bool wait_for(struct pcmig_asker *a, struct pcmig_question *q, int64_t patience_us)
{
    const int64_t until_us = pcmig_clock_us() + patience_us;
    bool over;

    pthread_mutex_lock(&a->lock);
    while (!q->over) {
        if (!pcmig_clock_wait(&a->over, &a->lock, until_us))
            break;
    }
    over = q->over;
    q->late = !over;
    pthread_mutex_unlock(&a->lock);
    return over;
}

static bool is_over(struct pcmig_asker *a, const struct pcmig_question *q)
{
    bool over;

    pthread_mutex_lock(&a->lock);
    over = q->over;
    pthread_mutex_unlock(&a->lock);
    return over;
}

/* Whether it has a question that nobody waits for any more. */
static bool is_busy(struct pcmig_asker *a)
{
    bool busy;

    pthread_mutex_lock(&a->lock);
    busy = a->question != NULL;
    pthread_mutex_unlock(&a->lock);
    return busy;
}

/* The answer goes to who asked. */
static int give(struct control *c, enum pcmig_side side, struct pcmig_question *q, struct pcmig_ask *ask)
{
    int result = q->result;

    *ask = q->ask;
    if (kinds[q->kind].lane == PCMIG_LANE_HOST)
        c->end[side].known = c->end[side].known || ask->known;
    question_unref(q);
    return result;
}

/* Of what a turn waits for an end, what is left. */
static int64_t patience_us(const struct control *c, enum pcmig_side side, enum pcmig_ask_kind kind)
{
    const bool urgent =
        c->state == PCMIG_ENGINE_DRAINING || c->state == PCMIG_ENGINE_ISSUING || c->state == PCMIG_ENGINE_SWITCHING;
    const int64_t patience = urgent && side == PCMIG_SIDE_DESTINATION ? URGENT_US : PATIENCE_US;

    if (kind == PCMIG_ASK_HOST)
        return 0;
    return c->end[side].vain_us < patience ? patience - c->end[side].vain_us : 0;
}

static int refuse(struct pcmig_ask *ask, enum pcmig_virt_failure failure, const char *text)
{
    pcmig_virt_error_set(&ask->error, failure, "%s", text);
    return -1;
}

/* Hands a question over to an asker that has none. */
static struct pcmig_question *hand_over(struct pcmig_asker *a, enum pcmig_ask_kind kind, int64_t number)
{
    struct pcmig_question *q = question_new(kind, number);

    if (q == NULL)
        return NULL;
    atomic_fetch_add(&q->references, 1); /* the asker's */
    pthread_mutex_lock(&a->lock);
    a->question = q;
    pthread_cond_signal(&a->work);
    pthread_mutex_unlock(&a->lock);
    return q;
}

int pcmig_ask(struct control *c, enum pcmig_side side, enum pcmig_ask_kind kind, struct pcmig_ask *ask)
{
    struct end *end = &c->end[side];
    struct pcmig_asker **asker = &end->asker[kinds[kind].lane];
    struct pcmig_question **slot = &end->asked[kind], *q = *slot;
    int64_t patience;

    *ask = (struct pcmig_ask){.number = ask->number};
    if (!pcmig_ask_connected(c, side) || (kinds[kind].of_domain && !end->known))
        return refuse(ask, PCMIG_VIRT_FAILURE_CONNECT, "it cannot be reached from here");
    if (q != NULL && is_over(*asker, q)) {
        *slot = NULL;
        if (q->ask.number == ask->number && !q->outdated)
            return give(c, side, q, ask);
        question_unref(q);
    }
    if (*asker != NULL && is_busy(*asker))
        return refuse(ask, PCMIG_VIRT_FAILURE_BUSY, "libvirt there has not answered yet");
    if (*asker == NULL)
        *asker = asker_new(c->m, side, &(struct pcmig_asker_has){.conn = NULL});
    q = *asker != NULL ? hand_over(*asker, kind, ask->number) : NULL;
    if (q == NULL)
        return refuse(ask, PCMIG_VIRT_FAILURE_OTHER, "short of memory or threads to ask with");
    patience = patience_us(c, side, kind);
    if (wait_for(*asker, q, patience))
        return give(c, side, q, ask);
    end->vain_us += patience;
    *slot = q;
    return refuse(ask, PCMIG_VIRT_FAILURE_BUSY, "libvirt there has not answered yet");
}

bool pcmig_ask_begin(struct control *c, enum pcmig_side side, const struct pcmig_asker_has *has)
{
    c->end[side].asker[PCMIG_LANE_HOST] = asker_new(c->m, side, has);
    c->end[side].known = pcmig_ask_connected(c, side) && has->domain != NULL;
    return pcmig_ask_connected(c, side);
}

bool pcmig_ask_connected(const struct control *c, enum pcmig_side side)
{
    return c->end[side].asker[PCMIG_LANE_HOST] != NULL;
}

bool pcmig_ask_out(const struct control *c, enum pcmig_side side, enum pcmig_ask_kind kind)
{
    return c->end[side].asked[kind] != NULL;
}

bool pcmig_ask_pending(const struct control *c, enum pcmig_side side, enum pcmig_ask_kind kind)
{
    struct pcmig_asker *a = asker_of(c, side, kind);

    return pcmig_ask_out(c, side, kind) || (a != NULL && is_busy(a));
}

void pcmig_ask_arrived(struct control *c)
{
    for (int side = 0; side < PCMIG_SIDE_COUNT; side++) {
        for (int kind = 0; kind < PCMIG_ASK_COUNT; kind++) {
            struct pcmig_question *q = c->end[side].asked[kind];

            if (q != NULL)
                q->arrived = is_over(asker_of(c, (enum pcmig_side)side, (enum pcmig_ask_kind)kind), q);
        }
    }
}

void pcmig_ask_forget(struct control *c)
{
    for (int side = 0; side < PCMIG_SIDE_COUNT; side++) {
        c->end[side].vain_us = 0;
        for (int kind = 0; kind < PCMIG_ASK_COUNT; kind++) {
            struct pcmig_question *q = c->end[side].asked[kind];

            if (q == NULL || !q->arrived)
                continue;
            c->end[side].asked[kind] = NULL;
            question_unref(q);
        }
    }
}

void pcmig_ask_outdate(struct control *c)
{
    for (int side = 0; side < PCMIG_SIDE_COUNT; side++) {
        for (int kind = PCMIG_ASK_GUEST; kind < PCMIG_TELL_PRECOPY_SPEED; kind++) {
            if (c->end[side].asked[kind] != NULL)
                c->end[side].asked[kind]->outdated = true;
        }
    }
}

bool pcmig_ask_take(struct control *c, enum pcmig_side side, enum pcmig_ask_kind kind, struct pcmig_ask *ask,
                    int *result)
{
    struct pcmig_question *q = c->end[side].asked[kind];

    if (q == NULL || !q->arrived)
        return false;
    c->end[side].asked[kind] = NULL;
    *result = give(c, side, q, ask);
    return true;
}

void pcmig_ask_end(struct control *c, enum pcmig_side side)
{
    struct end *end = &c->end[side];

    for (int kind = 0; kind < PCMIG_ASK_COUNT; kind++) {
        question_unref(end->asked[kind]);
        end->asked[kind] = NULL;
    }
    for (int lane = 0; lane < PCMIG_LANES; lane++)
        dismiss(&end->asker[lane]);
    end->known = false;
}
