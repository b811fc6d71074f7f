/* SPDX-License-Identifier: Apache-2.0 */
/* See registry.h. */
#include "tunnel/stream/registry.h"

#include "edge/clock.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct name {
    char text[PCMIG_TUNNEL_NAME_LEN + 1];
    struct pcmig_account *account;
    int64_t used_us; /* when a stream began or ended last */
    bool kept;
    struct name *next;
};

struct running {
    struct pcmig_stream *stream;
    struct running *next;
};

/* Lists: there are as many names as migrations. */
struct pcmig_registry {
    pthread_mutex_t lock;
    size_t name_count;
    struct pcmig_account *all;
    struct name *names;
    struct running *running;
};

struct pcmig_registry *pcmig_registry_new(void)
{
    struct pcmig_registry *r = calloc(1, sizeof(*r));

    if (r == NULL)
        return NULL;
    r->all = pcmig_account_new(NULL);
    if (r->all == NULL || pthread_mutex_init(&r->lock, NULL) != 0) {
        pcmig_account_unref(r->all);
        free(r);
        return NULL;
    }
    return r;
}

void pcmig_registry_free(struct pcmig_registry *r)
{
    if (r == NULL)
        return;
    while (r->names != NULL) {
        struct name *name = r->names;

        r->names = name->next;
        pcmig_account_unref(name->account);
        free(name);
    }
    while (r->running != NULL) {
        struct running *running = r->running;

        r->running = running->next;
        pcmig_stream_unref(running->stream);
        free(running);
    }
    pcmig_account_unref(r->all);
    pthread_mutex_destroy(&r->lock);
    free(r);
}

/* The six below with the lock held. Where NAME's row hangs; what hangs there is NULL when it is not known. */
static struct name **find(struct pcmig_registry *r, const char *name)
{
    struct name **at = &r->names;

    while (*at != NULL && strcmp((*at)->text, name) != 0)
        at = &(*at)->next;
    return at;
}

static void touch(struct pcmig_registry *r, const char *name)
{
    struct name *row = *find(r, name);

    if (row != NULL)
        row->used_us = pcmig_clock_us();
}

static bool has_stream(const struct pcmig_registry *r, const char *name)
{
    for (const struct running *running = r->running; running != NULL; running = running->next) {
        if (strcmp(pcmig_stream_name(running->stream), name) == 0)
            return true;
    }
    return false;
}

static void remove_name(struct pcmig_registry *r, struct name **at)
{
    struct name *row = *at;

    *at = row->next;
    r->name_count--;
    pcmig_account_unref(row->account);
    free(row);
}

/* Makes room: the one that was used longest ago, of those that nobody keeps and that have no stream. */
static bool forget_one(struct pcmig_registry *r)
{
    struct name **oldest = NULL;

    /* New ones are added at the front. */
    for (struct name **at = &r->names; *at != NULL; at = &(*at)->next) {
        if (!(*at)->kept && atomic_load(&(*at)->account->streams_now) == 0 &&
            (oldest == NULL || (*at)->used_us <= (*oldest)->used_us))
            oldest = at;
    }
    if (oldest != NULL)
        remove_name(r, oldest);
    return oldest != NULL;
}

static struct name *add_name(struct pcmig_registry *r, const char *text)
{
    struct name *name;

    if ((r->name_count >= PCMIG_REGISTRY_NAMES && !forget_one(r)) || (name = calloc(1, sizeof(*name))) == NULL)
        return NULL;
    name->account = pcmig_account_new(r->all);
    if (name->account == NULL) {
        free(name);
        return NULL;
    }
    snprintf(name->text, sizeof(name->text), "%s", text);
    name->used_us = pcmig_clock_us();
    name->next = r->names;
    r->names = name;
    r->name_count++;
    return name;
}

struct pcmig_account *pcmig_registry_account(struct pcmig_registry *r, const char *name, bool make)
{
    struct pcmig_account *account = NULL;
    struct name *row;

    pthread_mutex_lock(&r->lock);
    row = *find(r, name);
    if (row == NULL && make)
        row = add_name(r, name);
    if (row != NULL)
        account = pcmig_account_ref(row->account);
    pthread_mutex_unlock(&r->lock);
    return account;
}

void pcmig_registry_keep(struct pcmig_registry *r, const char *name)
{
    struct name *row;

    pthread_mutex_lock(&r->lock);
    row = *find(r, name);
    if (row != NULL)
        row->kept = true;
    pthread_mutex_unlock(&r->lock);
}

bool pcmig_registry_forget(struct pcmig_registry *r, const char *name)
{
    struct name **at;
    bool known;

    pthread_mutex_lock(&r->lock);
    at = find(r, name);
    known = *at != NULL;
    if (known)
        remove_name(r, at);
    pthread_mutex_unlock(&r->lock);
    return known;
}

bool pcmig_registry_add(struct pcmig_registry *r, struct pcmig_stream *stream)
{
    struct running *running = calloc(1, sizeof(*running));

    if (running == NULL)
        return false;
    running->stream = pcmig_stream_ref(stream);
    pthread_mutex_lock(&r->lock);
    running->next = r->running;
    r->running = running;
    touch(r, pcmig_stream_name(stream));
    pthread_mutex_unlock(&r->lock);
    return true;
}

void pcmig_registry_remove(struct pcmig_registry *r, struct pcmig_stream *stream)
{
    struct running **at, *running;

    pthread_mutex_lock(&r->lock);
    for (at = &r->running; *at != NULL && (*at)->stream != stream; at = &(*at)->next)
        continue;
    running = *at;
    if (running != NULL) {
        *at = running->next;
        touch(r, pcmig_stream_name(stream));
    }
    pthread_mutex_unlock(&r->lock);
    if (running != NULL)
        pcmig_stream_unref(running->stream);
    free(running);
}

struct pcmig_stream *pcmig_registry_find(struct pcmig_registry *r, const char *name,
                                         const uint8_t id[PCMIG_TUNNEL_FRAME_STREAM_BYTES])
{
    struct pcmig_stream *found = NULL;

    pthread_mutex_lock(&r->lock);
    for (const struct running *running = r->running; running != NULL && found == NULL; running = running->next) {
        if (memcmp(pcmig_stream_id(running->stream), id, PCMIG_TUNNEL_FRAME_STREAM_BYTES) == 0 &&
            strcmp(pcmig_stream_name(running->stream), name) == 0)
            found = pcmig_stream_ref(running->stream);
    }
    pthread_mutex_unlock(&r->lock);
    return found;
}

size_t pcmig_registry_end(struct pcmig_registry *r, const char *name, const char *reason)
{
    size_t count = 0;

    pthread_mutex_lock(&r->lock);
    for (const struct running *running = r->running; running != NULL; running = running->next) {
        if (name == NULL || strcmp(pcmig_stream_name(running->stream), name) == 0)
            count += pcmig_stream_end(running->stream, reason, false);
    }
    pthread_mutex_unlock(&r->lock);
    return count;
}

struct pcmig_account *pcmig_registry_all(struct pcmig_registry *r)
{
    return r->all;
}

size_t pcmig_registry_names(struct pcmig_registry *r)
{
    size_t count;

    pthread_mutex_lock(&r->lock);
    count = r->name_count;
    pthread_mutex_unlock(&r->lock);
    return count;
}

size_t pcmig_registry_queue(struct pcmig_registry *r, const char *name)
{
    struct pcmig_account *account = r->all;
    size_t bytes = 0;

    pthread_mutex_lock(&r->lock);
    for (const struct running *running = r->running; running != NULL; running = running->next) {
        if (name == NULL || strcmp(pcmig_stream_name(running->stream), name) == 0)
            bytes += pcmig_stream_queue_bytes(running->stream);
    }
    if (name != NULL) {
        const struct name *row = *find(r, name);

        account = row != NULL ? row->account : NULL;
    }
    if (account != NULL && (long long)bytes > atomic_load(&account->queue_max_bytes))
        atomic_store(&account->queue_max_bytes, (long long)bytes);
    pthread_mutex_unlock(&r->lock);
    return bytes;
}

size_t pcmig_registry_streams(struct pcmig_registry *r)
{
    size_t count = 0;

    pthread_mutex_lock(&r->lock);
    for (const struct running *running = r->running; running != NULL; running = running->next)
        count++;
    pthread_mutex_unlock(&r->lock);
    return count;
}

char *pcmig_registry_list(struct pcmig_registry *r)
{
    size_t size = 1, at = 0;
    char *out;

    pthread_mutex_lock(&r->lock);
    for (const struct name *name = r->names; name != NULL; name = name->next)
        size += 1 + PCMIG_TUNNEL_NAME_LEN;
    out = calloc(1, size);
    for (const struct name *name = r->names; name != NULL && out != NULL; name = name->next)
        at += (size_t)snprintf(out + at, size - at, " %s", name->text);
    pthread_mutex_unlock(&r->lock);
    return out;
}

bool pcmig_registry_idle(struct pcmig_registry *r, int64_t idle_since_us, char out[PCMIG_TUNNEL_NAME_LEN + 1])
{
    bool found = false;

    pthread_mutex_lock(&r->lock);
    for (const struct name *name = r->names; name != NULL && !found; name = name->next) {
        if (name->used_us <= idle_since_us && !has_stream(r, name->text)) {
            memcpy(out, name->text, sizeof(name->text));
            found = true;
        }
    }
    pthread_mutex_unlock(&r->lock);
    return found;
}
