/* SPDX-License-Identifier: Apache-2.0 */
/* See tunnel_queue.h. */
#include "edge/tunnel_queue.h"

#include "edge/clock.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define SCHEME     "unix://"
#define NAME_CHARS 32
#define ANSWER_US  50000
#define AGAIN_US   1000000
/* As long as a line of the control socket may be. */
#define LINE_BYTES 4096

struct pcmig_tunnel_queue {
    struct sockaddr_un control;
    char request[sizeof("show \n") + NAME_CHARS];
    int fd;           /* -1 = not connected */
    int64_t again_us; /* no attempt to connect before */
};

/* The name in URI, or NULL. */
static const char *name_in(const char *uri)
{
    const char *name = strrchr(uri, '/');

    if (strncmp(uri, SCHEME, sizeof(SCHEME) - 1) != 0 || name == NULL)
        return NULL;
    name++;
    return strlen(name) == NAME_CHARS && strspn(name, "0123456789abcdef") == NAME_CHARS ? name : NULL;
}

struct pcmig_tunnel_queue *pcmig_tunnel_queue_open(const char *control, const char *migrate_uri)
{
    const char *name = name_in(migrate_uri);
    struct pcmig_tunnel_queue *queue;

    if (name == NULL || strlen(control) >= sizeof(queue->control.sun_path))
        return NULL;
    queue = calloc(1, sizeof(*queue));
    if (queue == NULL)
        return NULL;
    queue->fd = -1;
    queue->control.sun_family = AF_UNIX;
    memcpy(queue->control.sun_path, control, strlen(control));
    snprintf(queue->request, sizeof(queue->request), "show %s\n", name);
    return queue;
}

static void disconnect(struct pcmig_tunnel_queue *queue, int64_t again_us)
{
    if (queue->fd >= 0)
        close(queue->fd);
    queue->fd = -1;
    queue->again_us = again_us;
}

void pcmig_tunnel_queue_close(struct pcmig_tunnel_queue *queue)
{
    if (queue == NULL)
        return;
    disconnect(queue, 0);
    free(queue);
}

static bool connected(struct pcmig_tunnel_queue *queue)
{
    if (queue->fd >= 0)
        return true;
    if (pcmig_clock_us() < queue->again_us)
        return false;
    queue->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    /* A unix socket connects at once, or not: a full backlog is EAGAIN. */
    if (queue->fd < 0 || connect(queue->fd, (const struct sockaddr *)&queue->control, sizeof(queue->control)) < 0) {
        disconnect(queue, pcmig_clock_us() + AGAIN_US);
        return false;
    }
    return true;
}

enum answer { ANSWER_THERE, ANSWER_LATE, ANSWER_GONE };

/* One line into LINE, without its end. */
static enum answer read_line(int fd, char *line, size_t size)
{
    int64_t deadline_us = pcmig_clock_us() + ANSWER_US;
    size_t len = 0;

    for (;;) {
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        int64_t left_us = deadline_us - pcmig_clock_us();
        ssize_t n;

        if (left_us <= 0 || len == size - 1)
            return ANSWER_LATE;
        if (poll(&wait, 1, (int)(left_us / 1000) + 1) < 0 && errno != EINTR)
            return ANSWER_LATE;
        n = recv(fd, line + len, size - 1 - len, 0);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
            return ANSWER_GONE;
        if (n < 0)
            continue;
        len += (size_t)n;
        line[len] = '\0';
        if (line[len - 1] == '\n') {
            line[len - 1] = '\0';
            return ANSWER_THERE;
        }
    }
}

/* The figure in an answer, -1 when there is none. */
static int64_t parse(const char *line)
{
    static const char key[] = " queue_bytes=";
    const char *found = strstr(line, key);
    char *end;
    long long value;

    if (strncmp(line, "ok ", 3) != 0 || found == NULL)
        return -1;
    errno = 0;
    value = strtoll(found + sizeof(key) - 1, &end, 10);
    return errno == 0 && end != found + sizeof(key) - 1 && (*end == '\0' || *end == ' ') && value >= 0 ? value : -1;
}

static enum answer ask(struct pcmig_tunnel_queue *queue, char *line, size_t size)
{
    size_t len = strlen(queue->request);

    if (send(queue->fd, queue->request, len, MSG_NOSIGNAL) != (ssize_t)len)
        return ANSWER_GONE;
    return read_line(queue->fd, line, size);
}

int64_t pcmig_tunnel_queue_bytes(struct pcmig_tunnel_queue *queue)
{
    char line[LINE_BYTES];
    enum answer answer;
    bool old = queue->fd >= 0;

    if (!connected(queue))
        return -1;
    answer = ask(queue, line, sizeof(line));
    if (answer == ANSWER_GONE && old) {
        /* The daemon was restarted since the last look. */
        disconnect(queue, 0);
        answer = connected(queue) ? ask(queue, line, sizeof(line)) : ANSWER_GONE;
    }
    if (answer == ANSWER_THERE)
        return parse(line);
    /* An answer that comes late must not be taken for the next one's. */
    disconnect(queue, pcmig_clock_us() + AGAIN_US);
    return -1;
}
