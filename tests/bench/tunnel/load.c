/* SPDX-License-Identifier: Apache-2.0 */
/* The two ends of a migration stream, without a guest: how many bytes get through what is between them, and how long a
 * page request takes meanwhile.
 *
 *   load destination PATH BULK_MS BUSY_MS   listens at PATH as QEMU does at the destination; steers, measures, prints
 *   load source PATH                        connects to PATH as QEMU does at the source; does what it is told
 *
 * The destination has three phases: requests alone, bulk alone, bulk with requests. It prints a line at the start and
 * the end of each: "NAME begin", "NAME end BYTES MICROSECONDS", and after each phase with requests "NAME rtt_us N N N
 * ...". A request is a frame of 4 KiB towards the source, its answer one of 4 KiB with the same stamp in the stream of
 * bulk frames, where the source puts it before its next frame. Bulk frames count up, and the destination checks that
 * none is missing, so the order of bytes is checked too. Exit status 1, with a line on stderr, for whatever does not go
 * like that.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define REQUEST_BYTES  4096
#define BULK_BYTES     32768 /* QEMU 10 writes up to 64 pages at once, most often fewer */
#define BUFFER_BYTES   262144
#define IDLE_MS        1000
#define REQUEST_GAP_MS 10
#define ANSWER_MS      5000
#define RTTS_MAX       100000

enum kind { BULK = 0x42, REQUEST, ANSWER, START, STOP };

struct frame {
    uint32_t kind;
    uint32_t bytes; /* with this header */
    uint64_t stamp; /* of a request and its answer: when it was sent, in microseconds; of a bulk frame: its number */
};

static void die(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    (void)vfprintf(stderr, format, args);
    va_end(args);
    (void)fputc('\n', stderr);
    exit(1);
}

static int64_t now_us(void)
{
    struct timespec now;

    if (clock_gettime(CLOCK_MONOTONIC, &now) < 0)
        die("clock_gettime: %s", strerror(errno));
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static struct sockaddr_un address_of(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    if (strlen(path) >= sizeof(address.sun_path))
        die("%s: longer than %zu bytes", path, sizeof(address.sun_path) - 1);
    strcpy(address.sun_path, path);
    return address;
}

/* --- source ------------------------------------------------------------------------------------------------------- */

struct source {
    int fd;
    bool bulk;
    uint64_t number;
    uint64_t stamps[64]; /* requests that wait for their answer, oldest first */
    size_t waiting;
    char out[BULK_BYTES]; /* the frame on its way */
    size_t out_bytes;
    size_t out_done;
    char in[REQUEST_BYTES];
    size_t in_bytes;
};

static void next_frame(struct source *s)
{
    struct frame frame = {.kind = BULK, .bytes = BULK_BYTES, .stamp = s->number};

    if (s->waiting > 0) {
        frame = (struct frame){.kind = ANSWER, .bytes = REQUEST_BYTES, .stamp = s->stamps[0]};
        memmove(s->stamps, s->stamps + 1, --s->waiting * sizeof(s->stamps[0]));
    } else if (s->bulk) {
        s->number++;
    } else {
        return;
    }
    memcpy(s->out, &frame, sizeof(frame));
    s->out_bytes = frame.bytes;
    s->out_done = 0;
}

static void push(struct source *s)
{
    ssize_t n;

    if (s->out_done == s->out_bytes)
        next_frame(s);
    if (s->out_done == s->out_bytes)
        return;
    n = send(s->fd, s->out + s->out_done, s->out_bytes - s->out_done, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN && errno != EPIPE) /* the destination has what it wanted: pull() sees the end */
        die("source: send: %s", strerror(errno));
    s->out_done += n > 0 ? (size_t)n : 0;
}

static void obey(struct source *s, const struct frame *frame)
{
    if (frame->kind == START)
        s->bulk = true;
    else if (frame->kind == STOP)
        s->bulk = false;
    else if (frame->kind != REQUEST)
        die("source: a frame of kind %u", frame->kind);
    else if (s->waiting == sizeof(s->stamps) / sizeof(s->stamps[0]))
        die("source: %zu requests wait", s->waiting);
    else
        s->stamps[s->waiting++] = frame->stamp;
}

/* Returns whether the stream goes on. */
static bool pull(struct source *s)
{
    struct frame frame;
    size_t want = sizeof(frame);
    ssize_t n;

    if (s->in_bytes >= sizeof(frame)) {
        memcpy(&frame, s->in, sizeof(frame));
        want = frame.bytes;
    }
    if (want < sizeof(frame) || want > sizeof(s->in))
        die("source: a frame of %zu bytes", want);
    n = recv(s->fd, s->in + s->in_bytes, want - s->in_bytes, MSG_DONTWAIT);
    if (n < 0 && errno != EAGAIN && errno != ECONNRESET)
        die("source: recv: %s", strerror(errno));
    if (n == 0 || (n < 0 && errno == ECONNRESET))
        return false;
    s->in_bytes += n > 0 ? (size_t)n : 0;
    if (s->in_bytes < sizeof(frame))
        return true;
    memcpy(&frame, s->in, sizeof(frame));
    if (s->in_bytes == frame.bytes) {
        obey(s, &frame);
        s->in_bytes = 0;
    }
    return true;
}

static int run_source(const char *path)
{
    struct sockaddr_un address = address_of(path);
    struct source s = {.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};

    if (s.fd < 0 || connect(s.fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
        die("source: %s: %s", path, strerror(errno));
    for (;;) {
        bool more = s.out_done < s.out_bytes || s.bulk || s.waiting > 0;
        struct pollfd poller = {.fd = s.fd, .events = (short)(POLLIN | (more ? POLLOUT : 0))};

        if (poll(&poller, 1, -1) < 0)
            die("source: poll: %s", strerror(errno));
        if ((poller.revents & (POLLIN | POLLHUP)) != 0 && !pull(&s))
            return 0;
        if ((poller.revents & POLLOUT) != 0)
            push(&s);
    }
}

/* --- destination -------------------------------------------------------------------------------------------------- */

struct destination {
    int fd;
    uint64_t number; /* of the next bulk frame */
    uint64_t bytes;
    char *buffer;
    struct frame frame; /* the one that arrives */
    size_t head;        /* of its header, so much is there */
    size_t body;        /* of its rest, so much is still to come */
    uint64_t asked_us;  /* the request on its way; 0 = none */
    uint32_t rtts_us[RTTS_MAX];
    size_t rtts;
};

static void tell(struct destination *d, enum kind kind)
{
    static char out[REQUEST_BYTES];
    struct frame frame = {.kind = kind, .bytes = sizeof(frame), .stamp = (uint64_t)now_us()};
    size_t done = 0;

    if (kind == REQUEST) {
        frame.bytes = REQUEST_BYTES;
        d->asked_us = frame.stamp;
    }
    memcpy(out, &frame, sizeof(frame));
    while (done < frame.bytes) { /* nothing else is in this direction, so that it does not block for long */
        ssize_t n = send(d->fd, out + done, frame.bytes - done, MSG_NOSIGNAL);

        if (n < 0)
            die("destination: send: %s", strerror(errno));
        done += (size_t)n;
    }
}

static void arrived(struct destination *d)
{
    if (d->frame.kind == BULK) {
        if (d->frame.stamp != d->number)
            die("destination: bulk frame %llu where %llu was due", (unsigned long long)d->frame.stamp,
                (unsigned long long)d->number);
        d->number++;
    } else if (d->frame.kind == ANSWER && d->frame.stamp == d->asked_us && d->rtts < RTTS_MAX) {
        d->rtts_us[d->rtts++] = (uint32_t)((uint64_t)now_us() - d->asked_us);
        d->asked_us = 0;
    } else {
        die("destination: a frame of kind %u, stamp %llu", d->frame.kind, (unsigned long long)d->frame.stamp);
    }
}

static void parse(struct destination *d, const char *at, size_t left)
{
    while (left > 0) {
        size_t n;

        if (d->body == 0) {
            n = sizeof(d->frame) - d->head < left ? sizeof(d->frame) - d->head : left;
            memcpy((char *)&d->frame + d->head, at, n);
            d->head += n;
            if (d->head == sizeof(d->frame)) {
                d->head = 0;
                if (d->frame.bytes <= sizeof(d->frame) || d->frame.bytes > BULK_BYTES)
                    die("destination: a frame of %u bytes", d->frame.bytes);
                d->body = d->frame.bytes - sizeof(d->frame);
            }
        } else {
            n = d->body < left ? d->body : left;
            d->body -= n;
            if (d->body == 0)
                arrived(d);
        }
        at += n;
        left -= n;
    }
}

/* Takes what comes until UNTIL_US, and asks every now and then when REQUESTS. Requests are one at a time. */
static void take(struct destination *d, int64_t until_us, bool requests)
{
    int64_t ask_us = now_us();

    for (;;) {
        int64_t now = now_us();
        struct pollfd poller = {.fd = d->fd, .events = POLLIN};
        ssize_t n;

        if (now >= until_us && d->asked_us == 0)
            return;
        if (d->asked_us != 0 && now - (int64_t)d->asked_us > ANSWER_MS * 1000)
            die("destination: a request was not answered within %d ms", ANSWER_MS);
        if (requests && d->asked_us == 0 && now >= ask_us && now < until_us) {
            tell(d, REQUEST);
            ask_us = now + REQUEST_GAP_MS * 1000;
        }
        if (poll(&poller, 1, 1) < 0)
            die("destination: poll: %s", strerror(errno));
        if (poller.revents == 0)
            continue;
        n = recv(d->fd, d->buffer, BUFFER_BYTES, MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN))
            die("destination: the stream ended: %s", n == 0 ? "closed" : strerror(errno));
        if (n > 0) {
            d->bytes += (uint64_t)n;
            parse(d, d->buffer, (size_t)n);
        }
    }
}

static void phase(struct destination *d, const char *name, int64_t ms, bool bulk, bool requests)
{
    int64_t begin_us = now_us();
    uint64_t before = d->bytes;

    d->rtts = 0;
    printf("%s begin\n", name);
    if (bulk)
        tell(d, START);
    take(d, begin_us + ms * 1000, requests);
    printf("%s end %llu %lld\n", name, (unsigned long long)(d->bytes - before), (long long)(now_us() - begin_us));
    if (requests) {
        printf("%s rtt_us", name);
        for (size_t i = 0; i < d->rtts; i++)
            printf(" %u", d->rtts_us[i]);
        printf("\n");
    }
}

static int run_destination(const char *path, int64_t bulk_ms, int64_t busy_ms)
{
    static struct destination d;
    struct sockaddr_un address = address_of(path);
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    d.buffer = malloc(BUFFER_BYTES);
    if (d.buffer == NULL)
        die("destination: out of memory");
    if (listener < 0 || bind(listener, (const struct sockaddr *)&address, sizeof(address)) < 0 ||
        listen(listener, 1) < 0)
        die("destination: %s: %s", path, strerror(errno));
    printf("ready\n");
    d.fd = accept(listener, NULL, NULL);
    if (d.fd < 0)
        die("destination: accept: %s", strerror(errno));
    phase(&d, "idle", IDLE_MS, false, true);
    phase(&d, "bulk", bulk_ms, true, false);
    phase(&d, "busy", busy_ms, true, true);
    return 0;
}

int main(int argc, char **argv)
{
    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc == 3 && strcmp(argv[1], "source") == 0)
        return run_source(argv[2]);
    if (argc == 5 && strcmp(argv[1], "destination") == 0)
        return run_destination(argv[2], atol(argv[3]), atol(argv[4]));
    (void)fprintf(stderr, "usage: load destination PATH BULK_MS BUSY_MS | load source PATH\n");
    return 2;
}
