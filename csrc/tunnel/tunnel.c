/* SPDX-License-Identifier: Apache-2.0 */
/* See tunnel.h. */
#include "tunnel/tunnel.h"

#include "edge/clock.h"
#include "tunnel/stream/carrier.h"
#include "tunnel/tls/channel.h"
#include "tunnel/control.h"
#include "tunnel/internal.h"
#include "tunnel/admission/listeners.h"
#include "tunnel/peer.h"
#include "tunnel/local/place.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { TICK_US = 1000000, GRACE_STEP_MS = 20 };

void pcmig_tunnel_defaults(struct pcmig_tunnel_config *config)
{
    *config = (struct pcmig_tunnel_config){
        .owner_gid = (gid_t)-1,
        .socket_uid = (uid_t)-1,
        .control_gid = (gid_t)-1,
        .dead_after_ms = 5000,
        .handshake_ms = 10000,
        .socket_wait_ms = 5000,
        .dial_ms = 5000,
        .leave_ms = 3000,
        .idle_name_ms = 24 * 3600 * 1000,
        .max_half_open = 256,
        .max_half_open_of_one = 32,
        .max_handshakes_per_s = 50,
        .max_carriers = 4096,
        .max_of_one_peer = 256,
    };
}

/* --- what the other files ask for --------------------------------------------------------------------------------- */

struct pcmig_rules *pcmig_tunnel_rules(struct pcmig_tunnel *tunnel)
{
    struct pcmig_rules *rules;

    pthread_mutex_lock(&tunnel->rules_lock);
    rules = pcmig_rules_ref(tunnel->rules);
    pthread_mutex_unlock(&tunnel->rules_lock);
    return rules;
}

bool pcmig_tunnel_has_room(const struct pcmig_tunnel *tunnel, bool accepted, unsigned more)
{
    const unsigned max = tunnel->config->max_carriers, all = atomic_load(&tunnel->carrier_count);
    const unsigned there = atomic_load(&tunnel->accepted_count);

    return all + more <= max && (accepted ? there : all - there) + more <= max - max / 4;
}

struct pcmig_worker *pcmig_tunnel_worker(struct pcmig_tunnel *tunnel)
{
    struct pcmig_worker *best = NULL;
    unsigned best_load = 0, best_count = 0;

    for (unsigned i = 0; i < tunnel->worker_count; i++) {
        struct pcmig_worker *worker = &tunnel->workers[i];
        const unsigned load = atomic_load(&worker->load), count = atomic_load(&worker->carrier_count);

        if (best == NULL || load < best_load || (load == best_load && count < best_count)) {
            best = worker;
            best_load = load;
            best_count = count;
        }
    }
    return best;
}

/* --- life --------------------------------------------------------------------------------------------------------- */

static void on_tick(struct pcmig_timer *timer)
{
    struct pcmig_tunnel *tunnel = (struct pcmig_tunnel *)(void *)((char *)timer - offsetof(struct pcmig_tunnel, tick));

    atomic_store(&tunnel->beat_us, pcmig_clock_us());
    for (unsigned i = 0; i < tunnel->worker_count; i++)
        pcmig_loop_post(tunnel->workers[i].loop, &tunnel->workers[i].beat);
    pcmig_messages_tick(tunnel->messages);
    pcmig_control_tidy(tunnel->control);
    pcmig_listeners_look(tunnel);
    pcmig_arrivals_tidy(tunnel->arrivals);
    pcmig_loop_set(tunnel->loop, timer, pcmig_loop_now_us(tunnel->loop) + TICK_US);
}

static void on_end_worker(struct pcmig_task *task)
{
    pcmig_carrier_end_all((struct pcmig_worker *)(void *)((char *)task - offsetof(struct pcmig_worker, end)),
                          "the daemon ends");
}

static void on_beat(struct pcmig_task *task)
{
    struct pcmig_worker *worker = (struct pcmig_worker *)(void *)((char *)task - offsetof(struct pcmig_worker, beat));

    atomic_store(&worker->beat_us, pcmig_clock_us());
}

static void on_review_worker(struct pcmig_task *task)
{
    pcmig_carrier_review_all((struct pcmig_worker *)(void *)((char *)task - offsetof(struct pcmig_worker, review)));
}

static bool make_workers(struct pcmig_tunnel *tunnel)
{
    const long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    unsigned count = tunnel->config->workers;

    if (count == 0)
        count = cpus < 1 ? 1 : cpus > PCMIG_WORKERS_MAX ? PCMIG_WORKERS_MAX : (unsigned)cpus;
    for (unsigned i = 0; i < count; i++) {
        struct pcmig_worker *worker = &tunnel->workers[i];
        char name[32];

        snprintf(name, sizeof(name), "pcmig-tunnel-%u", i);
        worker->tunnel = tunnel;
        worker->end.run = on_end_worker;
        worker->review.run = on_review_worker;
        worker->beat.run = on_beat;
        worker->loop = pcmig_loop_new(name);
        worker->scratch = malloc(PCMIG_CHANNEL_BATCH_BYTES);
        tunnel->worker_count = i + 1;
        if (worker->loop == NULL || worker->scratch == NULL)
            return false;
    }
    return true;
}

/* --- changing what is in force ------------------------------------------------------------------------------------ */

/* Rules that the control thread puts in force, for a caller who waits. */
struct change {
    struct pcmig_task task;
    struct pcmig_tunnel *tunnel;
    struct pcmig_rules *rules;
    pthread_mutex_t lock;
    pthread_cond_t decided;
    bool is_decided, worked;
    char error[PCMIG_TUNNEL_ERROR_BYTES];
};

/* In the control thread, or without threads. The tunnel takes the reference of RULES when that worked. */
static bool put_in_force(struct pcmig_tunnel *tunnel, struct pcmig_rules *rules, char error[PCMIG_TUNNEL_ERROR_BYTES])
{
    struct pcmig_rules *before;

    if (!pcmig_listeners_change(tunnel, rules, error))
        return false;
    pthread_mutex_lock(&tunnel->rules_lock);
    before = tunnel->rules;
    tunnel->rules = rules;
    pthread_mutex_unlock(&tunnel->rules_lock);
    pcmig_rules_unref(before);
    return true;
}

static void on_change(struct pcmig_task *task)
{
    struct change *change = (struct change *)(void *)((char *)task - offsetof(struct change, task));
    const bool worked = put_in_force(change->tunnel, change->rules, change->error);

    pthread_mutex_lock(&change->lock);
    change->worked = worked;
    change->is_decided = true;
    pthread_cond_signal(&change->decided);
    pthread_mutex_unlock(&change->lock);
}

static bool ask_control_thread(struct pcmig_tunnel *tunnel, struct pcmig_rules *rules,
                               char error[PCMIG_TUNNEL_ERROR_BYTES])
{
    struct change change = {.task = {.run = on_change}, .tunnel = tunnel, .rules = rules};

    if (pthread_mutex_init(&change.lock, NULL) != 0 || pthread_cond_init(&change.decided, NULL) != 0) {
        snprintf(error, PCMIG_TUNNEL_ERROR_BYTES, "memory is short");
        return false;
    }
    pcmig_loop_post(tunnel->loop, &change.task);
    pthread_mutex_lock(&change.lock);
    while (!change.is_decided)
        pthread_cond_wait(&change.decided, &change.lock);
    pthread_mutex_unlock(&change.lock);
    pthread_cond_destroy(&change.decided);
    pthread_mutex_destroy(&change.lock);
    if (!change.worked)
        memcpy(error, change.error, sizeof(change.error));
    return change.worked;
}

static bool reload(struct pcmig_tunnel *tunnel, const struct pcmig_tunnel_config *config,
                   char error[PCMIG_TUNNEL_ERROR_BYTES])
{
    struct pcmig_rules *rules;

    if (config->plaintext != tunnel->config->plaintext) {
        snprintf(error, PCMIG_TUNNEL_ERROR_BYTES, "whether anything is encrypted is decided at the start");
        return false;
    }
    rules = pcmig_rules_new(config, error);
    if (rules == NULL)
        return false;
    if (!(tunnel->started ? ask_control_thread(tunnel, rules, error) : put_in_force(tunnel, rules, error))) {
        pcmig_rules_unref(rules);
        return false;
    }
    return true;
}

bool pcmig_tunnel_reload(struct pcmig_tunnel *tunnel, const struct pcmig_tunnel_config *config,
                         char error[PCMIG_TUNNEL_ERROR_BYTES])
{
    bool done;

    pthread_mutex_lock(&tunnel->reload_lock);
    done = reload(tunnel, config, error);
    if (done) {
        for (unsigned i = 0; i < tunnel->worker_count; i++)
            pcmig_loop_post(tunnel->workers[i].loop, &tunnel->workers[i].review);
    }
    pthread_mutex_unlock(&tunnel->reload_lock);
    return done;
}

unsigned pcmig_tunnel_reload_asked(struct pcmig_tunnel *tunnel)
{
    return pcmig_control_reload_asked(tunnel);
}

bool pcmig_tunnel_answer_reload(struct pcmig_tunnel *tunnel, unsigned number, const char *answer)
{
    return pcmig_control_answer_reload(tunnel, number, answer);
}

/* --- start and end ------------------------------------------------------------------------------------------------ */

struct pcmig_tunnel *pcmig_tunnel_new(const struct pcmig_tunnel_config *config, char error[PCMIG_TUNNEL_ERROR_BYTES])
{
    struct pcmig_tunnel *tunnel;
    char problem[PCMIG_PLACE_ERROR_BYTES];

    tunnel = calloc(1, sizeof(*tunnel));
    if (tunnel == NULL || pthread_mutex_init(&tunnel->rules_lock, NULL) != 0 ||
        pthread_mutex_init(&tunnel->reload_lock, NULL) != 0) {
        free(tunnel);
        snprintf(error, PCMIG_TUNNEL_ERROR_BYTES, "memory is short");
        return NULL;
    }
    tunnel->started_with = pcmig_rules_new(config, error);
    if (tunnel->started_with == NULL)
        goto err;
    tunnel->config = &tunnel->started_with->config;
    tunnel->rules = pcmig_rules_ref(tunnel->started_with);
    snprintf(error, PCMIG_TUNNEL_ERROR_BYTES, "memory or descriptors are short");
    tunnel->tick.fire = on_tick;
    tunnel->messages = pcmig_messages_new();
    tunnel->admission = pcmig_admission_new(config->max_half_open, config->max_half_open_of_one,
                                            config->max_handshakes_per_s, pcmig_carrier_evict);
    tunnel->roster =
        pcmig_roster_new(config->max_of_one_peer, pcmig_admission_pace_of_one(config->max_handshakes_per_s));
    tunnel->registry = pcmig_registry_new();
    tunnel->loop = pcmig_loop_new("pcmig-tunnel");
    tunnel->resolver = pcmig_loop_new("pcmig-resolver");
    if (tunnel->messages == NULL || tunnel->admission == NULL || tunnel->roster == NULL || tunnel->registry == NULL ||
        tunnel->loop == NULL || tunnel->resolver == NULL || !make_workers(tunnel))
        goto err;
    if (!pcmig_place_prepare(config->run_dir, problem)) {
        snprintf(error, PCMIG_TUNNEL_ERROR_BYTES, "%s", problem);
        goto err;
    }
    tunnel->arrivals = pcmig_arrivals_new(config->run_dir, config->idle_name_ms, error, PCMIG_TUNNEL_ERROR_BYTES);
    if (tunnel->arrivals == NULL)
        goto err;
    errno = pcmig_arrivals_watch(tunnel->arrivals, tunnel->loop);
    if (errno != 0) {
        snprintf(error, PCMIG_TUNNEL_ERROR_BYTES, "%s: %s", config->run_dir, strerror(errno));
        goto err;
    }
    if (!pcmig_listeners_change(tunnel, tunnel->rules, error))
        goto err;
    tunnel->control = pcmig_control_new(tunnel, error);
    if (tunnel->control == NULL)
        goto err;
    return tunnel;

err:
    pcmig_tunnel_free(tunnel);
    return NULL;
}

bool pcmig_tunnel_start(struct pcmig_tunnel *tunnel, char error[PCMIG_TUNNEL_ERROR_BYTES])
{
    const struct pcmig_tls *tls = tunnel->rules->tls;
    int failed;

    if (tunnel->started || atomic_load(&tunnel->stopping)) {
        snprintf(error, PCMIG_TUNNEL_ERROR_BYTES, "the tunnel was started before");
        return false;
    }
    tunnel->started = true;
    pcmig_loop_set(tunnel->loop, &tunnel->tick, pcmig_clock_us() + TICK_US);
    atomic_store(&tunnel->beat_us, pcmig_clock_us());
    for (unsigned i = 0; i < tunnel->worker_count; i++)
        atomic_store(&tunnel->workers[i].beat_us, pcmig_clock_us());
    failed = pcmig_loop_start(tunnel->resolver);
    for (unsigned i = 0; i < tunnel->worker_count && failed == 0; i++)
        failed = pcmig_loop_start(tunnel->workers[i].loop);
    if (failed == 0)
        failed = pcmig_loop_start(tunnel->loop);
    if (failed != 0) {
        snprintf(error, PCMIG_TUNNEL_ERROR_BYTES, "a thread cannot be started: %s", strerror(failed));
        pcmig_tunnel_stop(tunnel, 0);
        return false;
    }
    pcmig_messages_add(tunnel->messages, PCMIG_MESSAGES_LIFE, PCMIG_MESSAGES_INFO, "the tunnel runs%s%s%s",
                       tls != NULL ? " as " : "", tls != NULL ? pcmig_tls_subject(tls) : "",
                       tls != NULL ? "" : " WITHOUT encryption: guests' memory is sent in clear");
    return true;
}

/* Without threads: nobody can connect any more, and the sockets' files are gone. */
static void close_sockets(struct pcmig_tunnel *tunnel)
{
    pcmig_control_free(tunnel->control);
    tunnel->control = NULL;
    pcmig_listeners_close(tunnel);
}

void pcmig_tunnel_stop(struct pcmig_tunnel *tunnel, unsigned grace_ms)
{
    const struct timespec step = {.tv_nsec = GRACE_STEP_MS * 1000000};

    atomic_store(&tunnel->stopping, true);
    if (!tunnel->started)
        return;
    for (unsigned waited = 0; waited < grace_ms && pcmig_registry_streams(tunnel->registry) > 0;
         waited += GRACE_STEP_MS)
        nanosleep(&step, NULL);
    /* In this order nobody is left who could give work to a thread that has ended. */
    pcmig_loop_stop(tunnel->loop);
    pcmig_loop_stop(tunnel->resolver);
    pcmig_loop_drain(tunnel->resolver);
    for (unsigned i = 0; i < tunnel->worker_count; i++) {
        pcmig_loop_post(tunnel->workers[i].loop, &tunnel->workers[i].end);
        pcmig_loop_stop(tunnel->workers[i].loop);
        pcmig_loop_drain(tunnel->workers[i].loop);
    }
    pcmig_loop_drain(tunnel->loop);
    for (unsigned i = 0; i < tunnel->worker_count; i++) /* what the drained control thread still asked for */
        pcmig_loop_drain(tunnel->workers[i].loop);
    close_sockets(tunnel);
    tunnel->started = false;
}

void pcmig_tunnel_free(struct pcmig_tunnel *tunnel)
{
    if (tunnel == NULL)
        return;
    pcmig_tunnel_stop(tunnel, 0);
    close_sockets(tunnel);
    for (unsigned i = 0; i < tunnel->worker_count; i++) {
        pcmig_loop_free(tunnel->workers[i].loop);
        free(tunnel->workers[i].scratch);
    }
    pcmig_loop_free(tunnel->resolver);
    pcmig_loop_free(tunnel->loop);
    pcmig_rules_unref(tunnel->rules);
    pcmig_rules_unref(tunnel->started_with);
    pcmig_arrivals_free(tunnel->arrivals);
    pcmig_registry_free(tunnel->registry);
    pcmig_admission_free(tunnel->admission);
    pcmig_roster_free(tunnel->roster);
    pcmig_messages_free(tunnel->messages);
    pthread_mutex_destroy(&tunnel->rules_lock);
    pthread_mutex_destroy(&tunnel->reload_lock);
    free(tunnel);
}

unsigned pcmig_tunnel_silent_ms(const struct pcmig_tunnel *tunnel)
{
    long long oldest_us = atomic_load(&tunnel->beat_us);

    if (!tunnel->started)
        return 0;
    for (unsigned i = 0; i < tunnel->worker_count; i++) {
        const long long beat_us = atomic_load(&tunnel->workers[i].beat_us);

        if (beat_us < oldest_us)
            oldest_us = beat_us;
    }
    return (unsigned)((pcmig_clock_us() - oldest_us) / 1000);
}

struct pcmig_tls_ends pcmig_tunnel_ends(struct pcmig_tunnel *tunnel)
{
    struct pcmig_rules *rules = pcmig_tunnel_rules(tunnel);
    struct pcmig_tls_ends ends = {0};

    if (rules->tls != NULL)
        ends = pcmig_tls_ends(rules->tls);
    pcmig_rules_unref(rules);
    return ends;
}

struct pcmig_messages *pcmig_tunnel_messages(struct pcmig_tunnel *tunnel)
{
    return tunnel->messages;
}

size_t pcmig_tunnel_ports(const struct pcmig_tunnel *tunnel, uint16_t *ports, size_t size)
{
    return pcmig_listeners_ports(tunnel, ports, size);
}
