/* SPDX-License-Identifier: Apache-2.0 */
/* An event loop on a thread of its own: descriptors (epoll, edge-triggered), timers, and tasks from other threads.
 *
 * Everything but pcmig_loop_post and pcmig_loop_stop is for the loop's own thread, or for before it is started. */
#ifndef PCMIG_TUNNEL_LOOP_H
#define PCMIG_TUNNEL_LOOP_H

#include <stdbool.h>
#include <stdint.h>

struct pcmig_loop;

/* A descriptor that is watched. EVENTS are epoll's; an edge is told once, so the callee remembers it until it got
 * EAGAIN. */
struct pcmig_source {
    int fd; /* -1 = not watched */
    void (*ready)(struct pcmig_source *source, uint32_t events);
};

struct pcmig_timer {
    int64_t due_us; /* 0 = not set */
    void (*fire)(struct pcmig_timer *timer);
    struct pcmig_timer *prev, *next;
};

/* Something to run in the loop. One that waits already is not added again. */
struct pcmig_task {
    void (*run)(struct pcmig_task *task);
    struct pcmig_task *next;
    bool waits;
};

/* NULL with errno set when there is no memory or no descriptor left. NAME is the thread's, at most 15 characters. */
struct pcmig_loop *pcmig_loop_new(const char *name);

/* Returns 0, or an error number when no thread can be made. */
int pcmig_loop_start(struct pcmig_loop *loop);

/* Ends the thread after the present round and waits for it. Nothing happens when it was not started. */
void pcmig_loop_stop(struct pcmig_loop *loop);

/* Without a thread: runs the tasks that wait, those that they add included, on the caller's. */
void pcmig_loop_drain(struct pcmig_loop *loop);
void pcmig_loop_free(struct pcmig_loop *loop); /* after stop; NULL is fine */

/* Watches SOURCE's fd for EVENTS (EPOLLET is added). Returns 0, or an error number. */
int pcmig_loop_watch(struct pcmig_loop *loop, struct pcmig_source *source, uint32_t events);

/* Watches no longer and closes the descriptor; nothing happens when it is -1. The memory must stay until the end of the
 * round: see pcmig_loop_bury. */
void pcmig_loop_close(struct pcmig_loop *loop, struct pcmig_source *source);

/* Sets or moves TIMER; it fires once. pcmig_loop_cancel is fine when it is not set. */
void pcmig_loop_set(struct pcmig_loop *loop, struct pcmig_timer *timer, int64_t due_us);
void pcmig_loop_cancel(struct pcmig_loop *loop, struct pcmig_timer *timer);

/* Runs TASK once in this or the next round, after all events of the round were told. */
void pcmig_loop_again(struct pcmig_loop *loop, struct pcmig_task *task);

/* As again, at the end of the round: for what frees memory. */
void pcmig_loop_bury(struct pcmig_loop *loop, struct pcmig_task *task);

/* From any thread: TASK runs in the loop's thread, after all events of a round were told. `waits` of a task is set by
 * this loop's lock alone, so one task belongs to one loop and is used with post only. Returns whether it was added; if
 * not, it waits already. */
bool pcmig_loop_post(struct pcmig_loop *loop, struct pcmig_task *task);

/* When this round began, CLOCK_MONOTONIC in microseconds. */
int64_t pcmig_loop_now_us(const struct pcmig_loop *loop);

#endif
