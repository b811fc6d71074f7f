/* SPDX-License-Identifier: Apache-2.0 */
/* See arrivals.h. */
#include "tunnel/local/arrivals.h"

#include "core/tunnel_frame.h"
#include "edge/clock.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

enum {
    KNOWN_MAX = 65536, /* NAMES. Whoever fills the folder on purpose gets new migrations to here refused, no more. */
    TIDY_US = 60 * 1000000,
    EVENTS_BYTES = 16384,
    TEXT_BYTES = 64,
    PIDFS = 0x50494446,    /* PID_FS_MAGIC, which no header has yet */
    START_TIME_FIELD = 20, /* of /proc/PID/stat, behind the command's bracket (proc(5)) */
};

#define NEW ".new" /* until it has its name */

/* Texts of DIR/known/NAME. */
#define MADE       "inode %" PRIu64 /* the first socket under this name; nobody was connected to it yet */
#define REPLACED   "replaced"       /* more has happened to it since */
#define PROCESS    "process %d of user %u"
/* Behind it: which of all that have had that number, see which_process. */
#define WHICH      " (%" PRIu64 ")"
#define WHICH_READ " (%" SCNu64 ")"

struct pcmig_arrivals {
    pthread_mutex_t lock;
    struct pcmig_source source; /* inotify */
    int dir, known;             /* the folders */
    int64_t keep_us, tidy_us;
    bool lost; /* an event was: no new socket is known to be the first, until all that is there was looked at */
    size_t count;
};

static bool read_known(const struct pcmig_arrivals *arrivals, const char *name, char text[TEXT_BYTES])
{
    const ssize_t len = readlinkat(arrivals->known, name, text, TEXT_BYTES - 1);

    if (len < 0)
        return false;
    text[len] = '\0';
    return true;
}

/* What was known before stays so until the new text is there, or where there is no room for it. */
static bool write_known(struct pcmig_arrivals *arrivals, const char *name, const char *text)
{
    char before[TEXT_BYTES];
    const bool was_known = read_known(arrivals, name, before);

    unlinkat(arrivals->known, NEW, 0); /* of a daemon that has died just there */
    if (symlinkat(text, arrivals->known, NEW) < 0)
        return false;
    if (renameat(arrivals->known, NEW, arrivals->known, name) < 0) {
        unlinkat(arrivals->known, NEW, 0);
        return false;
    }
    arrivals->count += !was_known;
    return true;
}

static bool is_process(const char *text)
{
    return strncmp(text, PROCESS, 8) == 0;
}

/* When PID began, in ticks since the host did; 0: it is not shown (ProtectProc=invisible, hidepid). */
static uint64_t start_time(int pid)
{
    char path[32], text[1024];
    const char *field;
    uint64_t ticks = 0;
    FILE *stat;

    snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    stat = fopen(path, "re");
    if (stat == NULL)
        return 0;
    /* The command may have brackets and blanks in it. */
    field = fgets(text, sizeof(text), stat) != NULL ? strrchr(text, ')') : NULL;
    for (int i = 0; field != NULL && i < START_TIME_FIELD; i++)
        field = strchr(field + 1, ' ');
    if (field != NULL)
        ticks = strtoull(field, NULL, 10);
    fclose(stat);
    return ticks;
}

/* Tells a process from all others that have had its number before or will: since Linux 6.9 each has an inode of its
 * own, of older ones it is known when they began. 0: neither is, or there is no such process. */
static uint64_t which_process(int pid)
{
    const int fd = pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
    uint64_t which = 0;
    struct statfs fs;
    struct stat st;

    if (fd >= 0) {
        if (fstatfs(fd, &fs) == 0 && fs.f_type == PIDFS && fstat(fd, &st) == 0)
            which = st.st_ino;
        close(fd);
    }
    return which != 0 || pid <= 0 ? which : start_time(pid);
}

struct process {
    int pid; /* 0 where it is in a PID namespace that this one does not see */
    unsigned uid;
    uint64_t which; /* 0: is not known; daemons before did not note it either */
};

static bool read_process(const char *text, struct process *out)
{
    *out = (struct process){0};
    return sscanf(text, PROCESS WHICH_READ, &out->pid, &out->uid, &out->which) >= 2;
}

static void print_process(const struct process *process, char text[TEXT_BYTES])
{
    if (process->which != 0)
        snprintf(text, TEXT_BYTES, PROCESS WHICH, process->pid, process->uid, process->which);
    else
        snprintf(text, TEXT_BYTES, PROCESS, process->pid, process->uid);
}

/* Both may be, as far as that is known. */
static bool is_same(uint64_t which, uint64_t other)
{
    return which == 0 || other == 0 || which == other;
}

/* A guest that waits to be resumed is there however long that takes: whose the NAME is must not be forgotten. */
static bool is_alive(const char *text)
{
    struct process process;

    /* That it may not be sent a signal is of no interest. */
    return read_process(text, &process) && process.pid > 0 && (kill(process.pid, 0) == 0 || errno != ESRCH) &&
           is_same(process.which, which_process(process.pid));
}

/* Of a NAME of which nothing is known yet. Where there is no room for it (/run may be full, too) what comes under it
 * later is not the first either. */
static void note_new(struct pcmig_arrivals *arrivals, const char *name, const char *text)
{
    if (arrivals->count >= KNOWN_MAX || !write_known(arrivals, name, text))
        arrivals->lost = true;
}

static void on_event(struct pcmig_arrivals *arrivals, const struct inotify_event *event)
{
    char text[TEXT_BYTES];
    struct stat st;

    if (event->mask & IN_Q_OVERFLOW)
        arrivals->lost = true;
    if (event->len == 0 || !pcmig_tunnel_frame_is_name(event->name, (uint32_t)strlen(event->name)))
        return;
    if (read_known(arrivals, event->name, text)) {
        if (!is_process(text) && !write_known(arrivals, event->name, REPLACED))
            arrivals->lost = true;
        return;
    }
    /* What ends was there before the daemon, and what nothing is known of is refused. */
    if (!(event->mask & IN_CREATE))
        return;
    if (fstatat(arrivals->dir, event->name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        snprintf(text, sizeof(text), REPLACED); /* it is gone already, and what comes next is not the first */
    else if (S_ISLNK(st.st_mode) && st.st_uid == geteuid())
        return; /* this daemon's own, of a source */
    else
        snprintf(text, sizeof(text), MADE, (uint64_t)st.st_ino);
    note_new(arrivals, event->name, text);
}

/* Everything that has happened by now. */
static void catch_up(struct pcmig_arrivals *arrivals)
{
    union {
        struct inotify_event aligned;
        char bytes[EVENTS_BYTES];
    } events;
    ssize_t n;

    while ((n = read(arrivals->source.fd, events.bytes, sizeof(events.bytes))) > 0 || (n < 0 && errno == EINTR)) {
        for (ssize_t i = 0; i < n;) {
            const struct inotify_event *event = (const struct inotify_event *)(const void *)(events.bytes + i);

            on_event(arrivals, event);
            i += (ssize_t)(sizeof(*event) + event->len);
        }
    }
}

static void on_ready(struct pcmig_source *source, uint32_t events)
{
    struct pcmig_arrivals *arrivals =
        (struct pcmig_arrivals *)(void *)((char *)source - offsetof(struct pcmig_arrivals, source));

    (void)events;
    pthread_mutex_lock(&arrivals->lock);
    catch_up(arrivals);
    pthread_mutex_unlock(&arrivals->lock);
}

/* To be read from its beginning; NULL: not now. */
static DIR *list(int folder)
{
    const int fd = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;

    if (dir == NULL && fd >= 0)
        close(fd);
    return dir;
}

static bool is_name(const struct dirent *entry)
{
    return pcmig_tunnel_frame_is_name(entry->d_name, (uint32_t)strlen(entry->d_name));
}

/* Counts what is known, and removes what was not of use for so long. */
static void tidy_known(struct pcmig_arrivals *arrivals)
{
    DIR *dir = list(arrivals->known);
    size_t count = 0;
    struct timespec now;
    struct dirent *entry;
    char text[TEXT_BYTES];

    if (dir == NULL)
        return; /* next time */
    clock_gettime(CLOCK_REALTIME, &now);
    while ((entry = readdir(dir)) != NULL) {
        struct stat st;

        if (fstatat(arrivals->known, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISLNK(st.st_mode))
            continue;
        if ((int64_t)(now.tv_sec - st.st_mtim.tv_sec) * 1000000 > arrivals->keep_us &&
            !(read_known(arrivals, entry->d_name, text) && is_alive(text)))
            (void)unlinkat(arrivals->known, entry->d_name, 0);
        else
            count++;
    }
    closedir(dir);
    arrivals->count = count;
}

/* NAMES whose sockets were taken out of the folder while nothing was told of it: whoever made them listens yet, and
 * somebody else might take the place. The kernel has every socket by the path that it was bound to. Returns false where
 * it does not tell. */
static bool note_bound(struct pcmig_arrivals *arrivals)
{
    FILE *bound = fopen("/proc/self/net/unix", "re"); /* /proc/net is not there under ProcSubset=pid */
    char *line = NULL, known[TEXT_BYTES];
    size_t line_bytes = 0;
    bool whole;

    if (bound == NULL)
        return false;
    errno = 0;
    while (!arrivals->lost && getline(&line, &line_bytes, bound) > 0) {
        const char *slash = strrchr(line, '/');

        line[strcspn(line, "\n")] = '\0';
        if (slash != NULL && pcmig_tunnel_frame_is_name(slash + 1, (uint32_t)strlen(slash + 1)) &&
            !read_known(arrivals, slash + 1, known))
            note_new(arrivals, slash + 1, REPLACED);
    }
    whole = ferror(bound) == 0 && errno != ENOMEM;
    free(line);
    fclose(bound);
    return whole;
}

/* An event was lost: of what is there now, or was and is not any more, and of what nobody is connected to yet, it is
 * not certain whose it is. Of what is made from now on it is. */
static void begin_anew(struct pcmig_arrivals *arrivals)
{
    DIR *known = list(arrivals->known), *dir = list(arrivals->dir);
    char text[TEXT_BYTES];
    struct dirent *entry;
    struct stat st;

    arrivals->lost = known == NULL || dir == NULL;
    while (!arrivals->lost && (entry = readdir(known)) != NULL) {
        if (is_name(entry) && read_known(arrivals, entry->d_name, text) && !is_process(text) &&
            strcmp(text, REPLACED) != 0)
            arrivals->lost = !write_known(arrivals, entry->d_name, REPLACED);
    }
    while (!arrivals->lost && (entry = readdir(dir)) != NULL) {
        if (!is_name(entry) || read_known(arrivals, entry->d_name, text) ||
            fstatat(arrivals->dir, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
            (S_ISLNK(st.st_mode) && st.st_uid == geteuid()))
            continue;
        note_new(arrivals, entry->d_name, REPLACED);
    }
    if (!arrivals->lost)
        arrivals->lost = !note_bound(arrivals) || arrivals->lost;
    if (known != NULL)
        closedir(known);
    if (dir != NULL)
        closedir(dir);
}

struct pcmig_arrivals *pcmig_arrivals_new(const char *dir, int64_t keep_ms, char *error, size_t error_bytes)
{
    struct pcmig_arrivals *arrivals = calloc(1, sizeof(*arrivals));

    if (arrivals == NULL || pthread_mutex_init(&arrivals->lock, NULL) != 0) {
        free(arrivals);
        snprintf(error, error_bytes, "memory is short");
        return NULL;
    }
    arrivals->keep_us = keep_ms * 1000;
    arrivals->dir = arrivals->known = -1;
    arrivals->source = (struct pcmig_source){.fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC), .ready = on_ready};
    if (arrivals->source.fd < 0 ||
        inotify_add_watch(arrivals->source.fd, dir, IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_ONLYDIR) <
            0) {
        snprintf(error, error_bytes, "%s cannot be watched: %s%s", dir, strerror(errno),
                 errno == EMFILE || errno == ENOSPC
                     ? "; raise fs.inotify.max_user_instances and fs.inotify.max_user_watches"
                     : "");
        goto err;
    }
    arrivals->dir = open(dir, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (arrivals->dir >= 0)
        arrivals->known = openat(arrivals->dir, "known", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (arrivals->known < 0) {
        snprintf(error, error_bytes, "%s/known: %s", dir, strerror(errno));
        goto err;
    }
    tidy_known(arrivals);
    return arrivals;

err:
    pcmig_arrivals_free(arrivals);
    return NULL;
}

void pcmig_arrivals_free(struct pcmig_arrivals *arrivals)
{
    if (arrivals == NULL)
        return;
    if (arrivals->source.fd >= 0)
        close(arrivals->source.fd);
    if (arrivals->dir >= 0)
        close(arrivals->dir);
    if (arrivals->known >= 0)
        close(arrivals->known);
    pthread_mutex_destroy(&arrivals->lock);
    free(arrivals);
}

int pcmig_arrivals_watch(struct pcmig_arrivals *arrivals, struct pcmig_loop *loop)
{
    return pcmig_loop_watch(loop, &arrivals->source, EPOLLIN);
}

/* What is wrong with the socket, or NULL. */
static const char *unlike_the_first(const struct pcmig_arrivals *arrivals, bool known, const char *text, ino_t ino)
{
    char made[TEXT_BYTES];

    if (arrivals->lost)
        return "more has happened in the folder than could be noted (fs.inotify.max_queued_events, or no room in "
               "/run): migrate, or resume, again in a minute";
    if (!known)
        return "the socket was made while the tunnel was not there to see it: migrate, or resume, again";
    snprintf(made, sizeof(made), MADE, (uint64_t)ino);
    return strcmp(text, made) == 0 ? NULL : "the socket was replaced before anybody was connected to it: migrate again";
}

bool pcmig_arrivals_is_right(struct pcmig_arrivals *arrivals, const char *name, ino_t ino, int fd, char *error,
                             size_t error_bytes)
{
    char key[PCMIG_TUNNEL_NAME_LEN + 1], whom[TEXT_BYTES], text[TEXT_BYTES];
    struct ucred peer;
    struct process now, before;
    socklen_t peer_bytes = sizeof(peer);
    const char *problem;
    bool right = false, known;

    snprintf(key, sizeof(key), "%.*s", PCMIG_TUNNEL_NAME_LEN, name);
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &peer_bytes) < 0) {
        snprintf(error, error_bytes, "who listens is not known: %s", strerror(errno));
        return false;
    }
    now = (struct process){.pid = peer.pid, .uid = peer.uid, .which = which_process(peer.pid)};
    print_process(&now, whom);
    pthread_mutex_lock(&arrivals->lock);
    catch_up(arrivals);
    known = read_known(arrivals, key, text);
    if (known && is_process(text)) {
        right = read_process(text, &before) && now.pid == before.pid && now.uid == before.uid &&
                is_same(now.which, before.which);
        if (right)
            (void)utimensat(arrivals->known, key, NULL, AT_SYMLINK_NOFOLLOW); /* it is of use */
        else if (now.pid == before.pid && now.uid == before.uid)
            snprintf(error, error_bytes, PROCESS " listens, but the guest's QEMU was another with that number", now.pid,
                     now.uid);
        else
            snprintf(error, error_bytes, PROCESS " listens, but the guest's QEMU is " PROCESS, now.pid, now.uid,
                     before.pid, before.uid);
    } else if ((problem = unlike_the_first(arrivals, known, text, ino)) != NULL) {
        snprintf(error, error_bytes, "%s", problem);
    } else {
        right = write_known(arrivals, key, whom);
        if (!right)
            snprintf(error, error_bytes, "known/%s cannot be written: %s", key, strerror(errno));
    }
    pthread_mutex_unlock(&arrivals->lock);
    return right;
}

void pcmig_arrivals_tidy(struct pcmig_arrivals *arrivals)
{
    const int64_t now_us = pcmig_clock_us();

    pthread_mutex_lock(&arrivals->lock);
    catch_up(arrivals);
    if (now_us >= arrivals->tidy_us) {
        arrivals->tidy_us = now_us + TIDY_US;
        tidy_known(arrivals);
        if (arrivals->lost)
            begin_anew(arrivals);
    }
    pthread_mutex_unlock(&arrivals->lock);
}
