/* SPDX-License-Identifier: Apache-2.0 */
/* See roster.h. */
#include "tunnel/admission/roster.h"

#include "core/tunnel_request.h"
#include "edge/clock.h"
#include "tunnel/peer.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    GONE_MAX = 256,   /* without a connection, that are remembered */
    SHOWN_MAX = 100,  /* of all, in one answer */
    LINE_BYTES = 640, /* of one, at most */
};

struct pcmig_roster_entry {
    struct pcmig_certificate_text text;
    char address[PCMIG_PEER_TEXT_BYTES]; /* the latest */
    unsigned accepted, dialled;          /* now */
    unsigned staying;                    /* were accepted, and their streams are over */
    long long ever;
    int64_t seen_us;
    struct pcmig_tokens tokens;
    struct pcmig_roster_entry *next;
};

struct pcmig_roster {
    pthread_mutex_t lock;
    unsigned of_one;
    struct pcmig_pace pace;
    unsigned gone_count;
    struct pcmig_roster_entry *entries;
};

struct pcmig_roster *pcmig_roster_new(unsigned of_one, struct pcmig_pace pace)
{
    struct pcmig_roster *r = calloc(1, sizeof(*r));

    if (r != NULL && pthread_mutex_init(&r->lock, NULL) != 0) {
        free(r);
        return NULL;
    }
    if (r != NULL) {
        r->of_one = of_one;
        r->pace = pace;
    }
    return r;
}

void pcmig_roster_free(struct pcmig_roster *r)
{
    if (r == NULL)
        return;
    while (r->entries != NULL) {
        struct pcmig_roster_entry *entry = r->entries;

        r->entries = entry->next;
        free(entry);
    }
    pthread_mutex_destroy(&r->lock);
    free(r);
}

/* All below with the lock held. */

static bool is_gone(const struct pcmig_roster_entry *entry)
{
    return entry->accepted == 0 && entry->dialled == 0 && entry->staying == 0;
}

static void forget_one(struct pcmig_roster *r)
{
    struct pcmig_roster_entry **oldest = NULL, *entry;

    for (struct pcmig_roster_entry **at = &r->entries; *at != NULL; at = &(*at)->next) {
        if (is_gone(*at) && (oldest == NULL || (*at)->seen_us < (*oldest)->seen_us))
            oldest = at;
    }
    if (oldest == NULL)
        return;
    entry = *oldest;
    *oldest = entry->next;
    free(entry);
    r->gone_count--;
}

static struct pcmig_roster_entry *find(struct pcmig_roster *r, const struct pcmig_certificate_text *text)
{
    struct pcmig_roster_entry *entry = r->entries;

    while (entry != NULL && strcmp(entry->text.fingerprint, text->fingerprint) != 0)
        entry = entry->next;
    if (entry != NULL || (entry = calloc(1, sizeof(*entry))) == NULL)
        return entry;
    entry->text = *text;
    pcmig_tokens_fill(&entry->tokens, r->pace, pcmig_clock_us());
    entry->next = r->entries;
    r->entries = entry;
    r->gone_count++;
    return entry;
}

struct pcmig_roster_entry *pcmig_roster_enter(struct pcmig_roster *r, const struct pcmig_certificate *certificate,
                                              const char *address, bool has_dialled, bool *moderate)
{
    struct pcmig_roster_entry *entry;

    pthread_mutex_lock(&r->lock);
    entry = find(r, pcmig_certificate_text(certificate));
    *moderate = entry != NULL && (!has_dialled || pcmig_tokens_take(&entry->tokens, r->pace, pcmig_clock_us()));
    if (entry != NULL && has_dialled && entry->accepted >= r->of_one)
        entry = NULL;
    if (entry != NULL) {
        r->gone_count -= is_gone(entry);
        entry->accepted += has_dialled;
        entry->dialled += !has_dialled;
        entry->ever++;
        entry->seen_us = pcmig_clock_us();
        snprintf(entry->address, sizeof(entry->address), "%s", address);
    }
    pthread_mutex_unlock(&r->lock);
    return entry;
}

bool pcmig_roster_stay(struct pcmig_roster *r, struct pcmig_roster_entry *entry)
{
    bool may_stay;

    pthread_mutex_lock(&r->lock);
    may_stay = entry->staying < r->of_one;
    entry->staying += may_stay;
    entry->accepted -= may_stay;
    pthread_mutex_unlock(&r->lock);
    return may_stay;
}

void pcmig_roster_leave(struct pcmig_roster *r, struct pcmig_roster_entry *entry, bool has_dialled, bool stayed)
{
    if (entry == NULL)
        return;
    pthread_mutex_lock(&r->lock);
    entry->staying -= stayed;
    entry->accepted -= has_dialled && !stayed;
    entry->dialled -= !has_dialled;
    entry->seen_us = pcmig_clock_us();
    r->gone_count += is_gone(entry);
    if (r->gone_count > GONE_MAX)
        forget_one(r);
    pthread_mutex_unlock(&r->lock);
}

static size_t print(const struct pcmig_roster_entry *entry, char *out, size_t size)
{
    char subject[PCMIG_TLS_SUBJECT_BYTES];

    pcmig_tunnel_request_escape(entry->text.subject, subject, sizeof(subject));
    return (size_t)snprintf(out, size,
                            " fingerprint=%s serial=%s subject=%s not_after=%lld address=%s accepted=%u dialled=%u "
                            "ever=%lld seen_ms=%lld",
                            entry->text.fingerprint, entry->text.serial, subject, (long long)entry->text.not_after_s,
                            entry->address, entry->accepted, entry->dialled, entry->ever,
                            (long long)((pcmig_clock_us() - entry->seen_us) / 1000));
}

char *pcmig_roster_list(struct pcmig_roster *r)
{
    char *out = calloc(SHOWN_MAX, LINE_BYTES);
    size_t at = 0;
    unsigned shown = 0;

    if (out == NULL)
        return NULL;
    pthread_mutex_lock(&r->lock);
    for (int gone = 0; gone < 2; gone++) {
        for (const struct pcmig_roster_entry *entry = r->entries; entry != NULL && shown < SHOWN_MAX;
             entry = entry->next) {
            if (is_gone(entry) != (gone == 1))
                continue;
            at += print(entry, out + at, LINE_BYTES);
            shown++;
        }
    }
    pthread_mutex_unlock(&r->lock);
    return out;
}
