/* SPDX-License-Identifier: Apache-2.0 */
/* pcmig_virt_job() with a time limit: on a thread that is left behind when libvirt does not answer in time. */
#include "edge/clock.h"
#include "edge/threads.h"
#include "edge/virt_internal.h"

#include <pthread.h>
#include <stdlib.h>

#define STACK_BYTES (256 * 1024)

/* Belongs to who asked, and once that one has given up to the thread. */
struct question {
    pthread_mutex_t lock;
    pthread_cond_t over_cond;
    bool over;
    bool abandoned;
    struct pcmig_virt_domain domain; /* a reference of its own, which keeps the connection open */
    struct pcmig_virt_job job;
    struct pcmig_virt_error error;
    int result;
};

static void question_free(struct question *question)
{
    (void)virDomainFree(question->domain.ptr);
    pthread_cond_destroy(&question->over_cond);
    pthread_mutex_destroy(&question->lock);
    free(question);
}

static void *asking_thread(void *arg)
{
    struct question *question = arg;
    bool abandoned;

    question->result = pcmig_virt_job(&question->domain, &question->job, &question->error);
    pthread_mutex_lock(&question->lock);
    question->over = true;
    abandoned = question->abandoned;
    pthread_cond_signal(&question->over_cond);
    pthread_mutex_unlock(&question->lock);
    if (abandoned)
        question_free(question);
    return NULL;
}

static struct question *question_new(struct pcmig_virt_domain *domain)
{
    struct question *question = calloc(1, sizeof(*question));

    if (question == NULL)
        return NULL;
    if (pcmig_waiting_init(&question->lock, &question->over_cond) != 0)
        goto err0;
    if (virDomainRef(domain->ptr) < 0)
        goto err1;
    question->domain = *domain;
    return question;

err1:
    pthread_cond_destroy(&question->over_cond);
    pthread_mutex_destroy(&question->lock);
err0:
    free(question);
    return NULL;
}

int pcmig_virt_job_within(struct pcmig_virt_domain *domain, int64_t patience_ms, struct pcmig_virt_job *job,
                          struct pcmig_virt_error *error)
{
    const int64_t until_us = pcmig_clock_us() + patience_ms * 1000;
    struct question *question = question_new(domain);
    int result = -1;
    bool over;

    *job = (struct pcmig_virt_job){.sample = {.queue_bytes = -1}};
    if (question == NULL || pcmig_thread_begin(STACK_BYTES, asking_thread, question) != 0) {
        if (question != NULL)
            question_free(question);
        pcmig_virt_error_set(error, PCMIG_VIRT_FAILURE_OTHER, "cannot start a thread to ask libvirt with");
        return -1;
    }
    pthread_mutex_lock(&question->lock);
    while (!question->over) {
        if (!pcmig_clock_wait(&question->over_cond, &question->lock, until_us))
            break;
    }
    over = question->over;
    question->abandoned = !over;
    pthread_mutex_unlock(&question->lock);
    if (!over) {
        pcmig_virt_error_set(error, PCMIG_VIRT_FAILURE_BUSY,
                             "libvirt has not told within %.1f s what it does with guest %.100s: QEMU does not answer",
                             (double)patience_ms / 1000.0, pcmig_virt_domain_name(domain));
        return -1;
    }
    result = question->result;
    *job = question->job;
    if (result < 0)
        *error = question->error;
    question_free(question);
    return result;
}
