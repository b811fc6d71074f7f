/* SPDX-License-Identifier: Apache-2.0 */
/* See admission.h. */
#include "tunnel/admission.h"

#include <netinet/in.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct slot {
    bool taken;
    unsigned char address[16];
};

struct pcmig_admission {
    pthread_mutex_t lock;
    unsigned total, of_one;
    struct slot slots[];
};

struct pcmig_admission *pcmig_admission_new(unsigned total, unsigned of_one)
{
    struct pcmig_admission *a = calloc(1, sizeof(*a) + total * sizeof(a->slots[0]));

    if (a == NULL)
        return NULL;
    a->total = total;
    a->of_one = of_one;
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

/* The host's bits. Of IPv6 the first half: a host can have all of the rest. */
static void key_of(const struct sockaddr *address, unsigned char key[16])
{
    memset(key, 0, 16);
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

int pcmig_admission_enter(struct pcmig_admission *a, const struct sockaddr *address)
{
    unsigned char key[16];
    unsigned same = 0;
    int found = -1;

    key_of(address, key);
    pthread_mutex_lock(&a->lock);
    for (unsigned i = 0; i < a->total; i++) {
        if (!a->slots[i].taken) {
            if (found < 0)
                found = (int)i;
        } else if (memcmp(a->slots[i].address, key, sizeof(key)) == 0) {
            same++;
        }
    }
    if (found >= 0 && same >= a->of_one)
        found = -2;
    if (found >= 0) {
        a->slots[found].taken = true;
        memcpy(a->slots[found].address, key, sizeof(key));
    }
    pthread_mutex_unlock(&a->lock);
    return found;
}

void pcmig_admission_leave(struct pcmig_admission *a, int slot)
{
    if (slot < 0)
        return;
    pthread_mutex_lock(&a->lock);
    a->slots[slot].taken = false;
    pthread_mutex_unlock(&a->lock);
}
