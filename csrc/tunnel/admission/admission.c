/* SPDX-License-Identifier: Apache-2.0 */
/* See admission.h. */
#include "tunnel/admission/admission.h"

#include "core/tunnel_tokens.h"

#include <netinet/in.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum {
    KEY_BYTES = 16,
    SETS = 256, /* of addresses that are remembered */
    WAYS = 4,
    PICKS = 8,
};

struct host {
    unsigned char key[KEY_BYTES];
    bool used, known;
    int64_t seen_us;
    struct pcmig_tokens tokens;
};

struct place {
    void *who; /* NULL = free */
    unsigned char key[KEY_BYTES];
};

struct pcmig_admission {
    pthread_mutex_t lock;
    void (*evict)(void *who);
    unsigned total, of_one;
    /* How often new connections may come. A handshake takes a worker about a millisecond. */
    struct pcmig_pace of_known;     /* one address that somebody was verified from */
    struct pcmig_pace of_stranger;  /* one that nobody was */
    struct pcmig_pace of_strangers; /* all of those */
    uint64_t random;
    struct pcmig_tokens strangers;
    struct host hosts[SETS][WAYS];
    struct place places[];
};

struct pcmig_pace pcmig_admission_pace_of_one(unsigned per_s)
{
    return (struct pcmig_pace){256, 2 * per_s};
}

struct pcmig_admission *pcmig_admission_new(unsigned total, unsigned of_one, unsigned per_s, void (*evict)(void *who))
{
    struct pcmig_admission *a = calloc(1, sizeof(*a) + total * sizeof(a->places[0]));

    if (a == NULL)
        return NULL;
    a->total = total;
    a->of_one = of_one;
    a->evict = evict;
    a->of_known = (struct pcmig_pace){128, per_s};
    a->of_stranger = (struct pcmig_pace){32, (per_s + 4) / 5};
    a->of_strangers = (struct pcmig_pace){128, 2 * per_s};
    if (getrandom(&a->random, sizeof(a->random), 0) != sizeof(a->random) || a->random == 0)
        a->random = 1;
    pcmig_tokens_fill(&a->strangers, a->of_strangers, 0);
    if (pthread_mutex_init(&a->lock, NULL) != 0) {
        free(a);
        return NULL;
    }
    return a;
}

void pcmig_admission_free(struct pcmig_admission *a)
{
    if (a == NULL)
        return;
    pthread_mutex_destroy(&a->lock);
    free(a);
}

/* All below with the lock held. */

/* The host's bits. Of IPv6 the first half: a host can have all of the rest. */
static void key_of(const struct sockaddr *address, unsigned char key[KEY_BYTES])
{
    memset(key, 0, KEY_BYTES);
    if (address->sa_family == AF_INET) {
        memcpy(key, &((const struct sockaddr_in *)address)->sin_addr, 4);
    } else if (address->sa_family == AF_INET6) {
        const struct in6_addr *a = &((const struct sockaddr_in6 *)address)->sin6_addr;

        if (IN6_IS_ADDR_V4MAPPED(a))
            memcpy(key, a->s6_addr + 12, 4);
        else
            memcpy(key, a->s6_addr, 8);
    }
}

/* xorshift: who sends the connections cannot see it. */
static unsigned random_below(struct pcmig_admission *a, unsigned limit)
{
    a->random ^= a->random << 13;
    a->random ^= a->random >> 7;
    a->random ^= a->random << 17;
    return (unsigned)(a->random >> 32) % limit;
}

/* What is remembered of KEY; or room for it, with strangers forgotten first, and of those and of others who has been
 * away for longest. */
static struct host *find_host(struct pcmig_admission *a, const unsigned char key[KEY_BYTES])
{
    struct host *set, *worst;
    unsigned hash = 2166136261u; /* FNV-1a */

    for (unsigned i = 0; i < KEY_BYTES; i++)
        hash = (hash ^ key[i]) * 16777619u;
    set = worst = a->hosts[(hash ^ hash >> 16) % SETS];
    for (struct host *host = set; host < set + WAYS; host++) {
        if (host->used && memcmp(host->key, key, KEY_BYTES) == 0)
            return host;
        if (!worst->used)
            continue;
        if (!host->used || (worst->known && !host->known) ||
            (worst->known == host->known && host->seen_us < worst->seen_us))
            worst = host;
    }
    memset(worst, 0, sizeof(*worst));
    memcpy(worst->key, key, KEY_BYTES);
    worst->used = true;
    pcmig_tokens_fill(&worst->tokens, a->of_stranger, 0);
    return worst;
}

static enum pcmig_admission_answer may_come(struct pcmig_admission *a, const unsigned char key[KEY_BYTES],
                                            int64_t now_us)
{
    struct host *host = find_host(a, key);

    host->seen_us = now_us;
    if (!pcmig_tokens_take(&host->tokens, host->known ? a->of_known : a->of_stranger, now_us))
        return PCMIG_ADMISSION_TOO_OFTEN;
    if (!host->known && !pcmig_tokens_take(&a->strangers, a->of_strangers, now_us))
        return PCMIG_ADMISSION_TOO_MANY_NEW;
    return PCMIG_ADMISSION_GRANTED;
}

static unsigned count_of(const struct pcmig_admission *a, const unsigned char key[KEY_BYTES])
{
    unsigned count = 0;

    for (unsigned i = 0; i < a->total; i++)
        count += a->places[i].who != NULL && memcmp(a->places[i].key, key, KEY_BYTES) == 0;
    return count;
}

static struct place *free_place(struct pcmig_admission *a)
{
    for (unsigned i = 0; i < a->total; i++) {
        if (a->places[i].who == NULL)
            return &a->places[i];
    }
    return NULL;
}

/* The address that has the most places, of those of some that are picked at random; all are taken. */
static const unsigned char *crowd(struct pcmig_admission *a)
{
    const unsigned char *most = NULL;
    unsigned most_count = 0;

    for (unsigned i = 0; i < PICKS; i++) {
        const unsigned char *key = a->places[random_below(a, a->total)].key;
        const unsigned count = count_of(a, key);

        if (count > most_count) {
            most_count = count;
            most = key;
        }
    }
    return most;
}

/* One of the places of KEY, which has some, is free afterwards. */
static struct place *evict_one(struct pcmig_admission *a, const unsigned char key[KEY_BYTES])
{
    unsigned left = random_below(a, count_of(a, key));

    for (unsigned i = 0; i < a->total; i++) {
        struct place *place = &a->places[i];

        if (place->who == NULL || memcmp(place->key, key, KEY_BYTES) != 0 || left-- > 0)
            continue;
        a->evict(place->who);
        place->who = NULL;
        return place;
    }
    return NULL;
}

enum pcmig_admission_answer pcmig_admission_enter(struct pcmig_admission *a, const struct sockaddr *address,
                                                  int64_t now_us, void *who)
{
    unsigned char key[KEY_BYTES];
    enum pcmig_admission_answer answer;
    struct place *place = NULL;

    key_of(address, key);
    pthread_mutex_lock(&a->lock);
    answer = may_come(a, key, now_us);
    if (answer == PCMIG_ADMISSION_GRANTED) {
        if (count_of(a, key) >= a->of_one)
            place = evict_one(a, key);
        else if ((place = free_place(a)) == NULL)
            place = evict_one(a, crowd(a));
        place->who = who;
        memcpy(place->key, key, sizeof(key));
    }
    pthread_mutex_unlock(&a->lock);
    return answer;
}

static struct place *place_of(struct pcmig_admission *a, const void *who)
{
    for (unsigned i = 0; i < a->total; i++) {
        if (a->places[i].who == who)
            return &a->places[i];
    }
    return NULL;
}

void pcmig_admission_verified(struct pcmig_admission *a, void *who, bool moderate, int64_t now_us)
{
    struct place *place;
    struct host *host;

    pthread_mutex_lock(&a->lock);
    place = place_of(a, who);
    if (place != NULL) {
        host = find_host(a, place->key);
        if (moderate && !host->known)
            pcmig_tokens_fill(&host->tokens, a->of_known, now_us);
        else if (!moderate)
            pcmig_tokens_fill(&host->tokens, (struct pcmig_pace){0}, now_us);
        host->known = moderate;
        place->who = NULL;
    }
    pthread_mutex_unlock(&a->lock);
}

void pcmig_admission_leave(struct pcmig_admission *a, void *who)
{
    struct place *place;

    pthread_mutex_lock(&a->lock);
    place = place_of(a, who);
    if (place != NULL)
        place->who = NULL;
    pthread_mutex_unlock(&a->lock);
}
