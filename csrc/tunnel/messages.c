/* SPDX-License-Identifier: Apache-2.0 */
/* See messages.h. */
#include "tunnel/messages.h"

#include "edge/clock.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { CAPACITY = 256, PERIOD_US = 10000000 };

static const struct {
    const char *name;
    unsigned at_once; /* in one period */
} kinds[] = {
    [PCMIG_MESSAGES_LIFE] = {"about the daemon itself", 50},
    [PCMIG_MESSAGES_NAME] = {"about names", 100},
    [PCMIG_MESSAGES_STREAM] = {"about streams", 100},
    [PCMIG_MESSAGES_PEER] = {"about whose streams there are", 200},
    [PCMIG_MESSAGES_HANDSHAKE] = {"about refused handshakes", 10},
    [PCMIG_MESSAGES_REFUSED] = {"about refused streams", 10},
    [PCMIG_MESSAGES_LIMIT] = {"about too many connections", 5},
    [PCMIG_MESSAGES_LOST] = {"about lost peers", 50},
};
_Static_assert(sizeof(kinds) / sizeof(kinds[0]) == PCMIG_MESSAGES_KIND_COUNT, "every kind has a row");

struct message {
    int level;
    char text[PCMIG_MESSAGES_TEXT_BYTES];
};

struct pcmig_messages {
    pthread_mutex_t lock;
    int fd; /* eventfd */
    unsigned first, count;
    uint64_t lost; /* found no room in the queue */
    struct {
        int64_t period_us; /* when it began */
        unsigned told;
        uint64_t counted;
        int level; /* of the latest that was only counted */
    } rates[PCMIG_MESSAGES_KIND_COUNT];
    struct message ring[CAPACITY];
};

struct pcmig_messages *pcmig_messages_new(void)
{
    struct pcmig_messages *m = calloc(1, sizeof(*m));

    if (m == NULL)
        return NULL;
    m->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (m->fd < 0 || (errno = pthread_mutex_init(&m->lock, NULL)) != 0) {
        if (m->fd >= 0)
            close(m->fd);
        free(m);
        return NULL;
    }
    return m;
}

void pcmig_messages_free(struct pcmig_messages *m)
{
    if (m == NULL)
        return;
    close(m->fd);
    pthread_mutex_destroy(&m->lock);
    free(m);
}

static void make_readable(struct pcmig_messages *m, bool readable)
{
    uint64_t value = 1;

    if (readable ? write(m->fd, &value, sizeof(value)) < 0 : read(m->fd, &value, sizeof(value)) < 0)
        return; /* EAGAIN: it is so already */
}

/* With the lock held. The text that makes room for itself: NULL when the queue is full. */
static char *append(struct pcmig_messages *m, int level)
{
    struct message *message;

    if (m->count == CAPACITY) {
        m->lost++;
        return NULL;
    }
    message = &m->ring[(m->first + m->count++) % CAPACITY];
    message->level = level;
    return message->text;
}

/* With the lock held: one line for what was counted in a period of KIND that is over. */
static void end_period(struct pcmig_messages *m, unsigned kind, int64_t now_us)
{
    char *text;

    if (now_us - m->rates[kind].period_us < PERIOD_US)
        return;
    if (m->rates[kind].counted > 0 && (text = append(m, m->rates[kind].level)) != NULL)
        snprintf(text, PCMIG_MESSAGES_TEXT_BYTES, "%" PRIu64 " more messages %s in the last %d s",
                 m->rates[kind].counted, kinds[kind].name, (int)((now_us - m->rates[kind].period_us) / 1000000));
    m->rates[kind].period_us = now_us;
    m->rates[kind].told = 0;
    m->rates[kind].counted = 0;
}

void pcmig_messages_add(struct pcmig_messages *m, enum pcmig_messages_kind kind, enum pcmig_messages_level level,
                        const char *format, ...)
{
    va_list args;
    char *text;

    pthread_mutex_lock(&m->lock);
    end_period(m, kind, pcmig_clock_us());
    if (m->rates[kind].told < kinds[kind].at_once) {
        m->rates[kind].told++;
        text = append(m, level);
        if (text != NULL) {
            va_start(args, format);
            vsnprintf(text, PCMIG_MESSAGES_TEXT_BYTES, format, args);
            va_end(args);
        }
    } else {
        m->rates[kind].counted++;
        m->rates[kind].level = level;
    }
    if (m->count > 0)
        make_readable(m, true);
    pthread_mutex_unlock(&m->lock);
}

bool pcmig_messages_take(struct pcmig_messages *m, int *level, char text[PCMIG_MESSAGES_TEXT_BYTES])
{
    bool taken = true;

    pthread_mutex_lock(&m->lock);
    if (m->count > 0) {
        *level = m->ring[m->first].level;
        memcpy(text, m->ring[m->first].text, PCMIG_MESSAGES_TEXT_BYTES);
        m->first = (m->first + 1) % CAPACITY;
        m->count--;
    } else if (m->lost > 0) {
        *level = PCMIG_MESSAGES_WARNING;
        snprintf(text, PCMIG_MESSAGES_TEXT_BYTES, "%" PRIu64 " messages were lost: they were not read in time",
                 m->lost);
        m->lost = 0;
    } else {
        make_readable(m, false);
        taken = false;
    }
    pthread_mutex_unlock(&m->lock);
    return taken;
}

int pcmig_messages_fd(const struct pcmig_messages *m)
{
    return m->fd;
}

bool pcmig_messages_tick(struct pcmig_messages *m)
{
    const int64_t now_us = pcmig_clock_us();
    bool counting = false;

    pthread_mutex_lock(&m->lock);
    for (unsigned kind = 0; kind < PCMIG_MESSAGES_KIND_COUNT; kind++) {
        if (m->rates[kind].counted > 0)
            end_period(m, kind, now_us);
        counting = counting || m->rates[kind].counted > 0;
    }
    if (m->count > 0)
        make_readable(m, true);
    pthread_mutex_unlock(&m->lock);
    return counting;
}
