/* SPDX-License-Identifier: Apache-2.0 */
/* See turns_file.h. */
#include "edge/turns_file.h"

#include "core/uri.h"
#include "edge/clock.h"
#include "edge/this_host.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <libgen.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define RUN_DIR   "/run/pcmig"
#define GROUP     "libvirt"
/* The number changes when a row does: versions that understand each other meet in one file. */
#define FILE_NAME "turns-2"
#define HEADER    "pcmig turns 1\n"
/* The header has the room of a row. */
#define ROW_AT(i) (((off_t)(i) + 1) * PCMIG_TURNS_ROW_BYTES)
#define CACHE_US  50000

struct pcmig_turns_seat {
    unsigned number;
    unsigned process; /* that took it */
};

/* What this process has: one file, and rows in it. */
static struct {
    pthread_mutex_t lock;
    int fd; /* -1 = not open */
    unsigned users;
    unsigned process; /* changes when this process is a forked child: the rows are its parent's */
    bool used[PCMIG_TURNS_ROWS];
    struct pcmig_turns_row own[PCMIG_TURNS_ROWS];
    struct pcmig_turns_row others[PCMIG_TURNS_ROWS];
    size_t others_count;
    int64_t others_us; /* when they were read; 0 = not yet */
} here = {.lock = PTHREAD_MUTEX_INITIALIZER, .fd = -1};

/* --- a child without exec, which has copies of all this --------------------------------------------------------- */

static void before_fork(void)
{
    pthread_mutex_lock(&here.lock);
}

static void after_fork(void)
{
    pthread_mutex_unlock(&here.lock);
}

/* The locks are the open file's, which the child must not keep open when its parent dies. */
static void in_child(void)
{
    if (here.fd >= 0)
        close(here.fd);
    here.fd = -1;
    here.users = 0;
    here.process++;
    memset(here.used, 0, sizeof(here.used));
    here.others_count = 0;
    here.others_us = 0;
    pthread_mutex_unlock(&here.lock);
}

static void watch_forks(void)
{
    /* Short of memory, a child may keep a dead parent's rows: they are old after a moment, and count for nothing. */
    (void)pthread_atfork(before_fork, after_fork, in_child);
}

static bool is_ours(const struct pcmig_turns_seat *seat)
{
    return seat->process == here.process;
}

/* --- the file ----------------------------------------------------------------------------------------------------- */

static void make_folder(const char *run_dir, const char *folder)
{
    struct group entry, *group = NULL;
    char names[4096];

    if (geteuid() != 0)
        return;
    (void)mkdir(run_dir, 0755); /* the tunnel's sockets are below it, for QEMU to pass */
    if (mkdir(folder, 0700) < 0)
        return;
    /* As tmpfiles.d makes it: nova-compute's user is of this group. */
    if (getgrnam_r(GROUP, &entry, names, sizeof(names), &group) == 0 && group != NULL &&
        chown(folder, (uid_t)-1, group->gr_gid) < 0)
        return;
    (void)chmod(folder, 02770);
}

static enum pcmig_turns_file_state state_of(int error)
{
    switch (error) {
    case 0:
        return PCMIG_TURNS_FILE_SHARED;
    case ENOENT:
    case ENOTDIR:
        return PCMIG_TURNS_FILE_MISSING;
    case EACCES:
    case EPERM:
    case EROFS:
        return PCMIG_TURNS_FILE_DENIED;
    case EBADMSG:
    case ELOOP:
    case EISDIR:
        return PCMIG_TURNS_FILE_FOREIGN;
    default:
        return PCMIG_TURNS_FILE_FAILED;
    }
}

/* Returns 0, or an errno; EBADMSG for a file of another kind. */
static int check_header(int fd)
{
    char header[sizeof(HEADER) - 1];
    struct stat st;
    ssize_t n;

    if (fstat(fd, &st) < 0)
        return errno;
    if (!S_ISREG(st.st_mode))
        return EBADMSG;
    n = pread(fd, header, sizeof(header), 0);
    if (n < 0)
        return errno;
    /* Two that make it at the same time write the same. */
    if (n == 0)
        return pwrite(fd, HEADER, sizeof(header), 0) == (ssize_t)sizeof(header) ? 0 : EIO;
    return n == (ssize_t)sizeof(header) && memcmp(header, HEADER, sizeof(header)) == 0 ? 0 : EBADMSG;
}

static const char *run_dir(void)
{
    const char *given = getenv("PCMIG_RUN_DIR");

    return given != NULL && given[0] != '\0' ? given : RUN_DIR;
}

/* Where the file is, or would be. Returns 0, or an errno. */
static int find_file(char path[PCMIG_TURNS_FILE_PATH_SIZE])
{
    int length = snprintf(path, PCMIG_TURNS_FILE_PATH_SIZE, "%s/migrations/" FILE_NAME, run_dir());

    return length < PCMIG_TURNS_FILE_PATH_SIZE ? 0 : ENAMETOOLONG;
}

static int open_file(char path[PCMIG_TURNS_FILE_PATH_SIZE], int *out)
{
    char folder[PCMIG_TURNS_FILE_PATH_SIZE];
    int fd, error = find_file(path);

    *out = -1;
    if (error != 0)
        return error;
    memcpy(folder, path, sizeof(folder));
    make_folder(run_dir(), dirname(folder));
    /* Not waiting for a writer, should somebody have put a pipe there. */
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0660);
    if (fd < 0)
        return errno;
    error = check_header(fd);
    if (error != 0) {
        close(fd);
        return error;
    }
    /* Whatever the umask; refused to all but the one who made it. */
    (void)fchmod(fd, 0660);
    *out = fd;
    return 0;
}

static int lock_row(int fd, int command, short type, unsigned number, struct flock *found)
{
    *found =
        (struct flock){.l_type = type, .l_whence = SEEK_SET, .l_start = ROW_AT(number), .l_len = PCMIG_TURNS_ROW_BYTES};
    return fcntl(fd, command, found);
}

/* --- rows --------------------------------------------------------------------------------------------------------- */

static bool take(unsigned number)
{
    struct flock lock;

    if (here.used[number])
        return false;
    return here.fd < 0 || lock_row(here.fd, F_OFD_SETLK, F_WRLCK, number, &lock) == 0;
}

static void put(unsigned number, const struct pcmig_turns_row *row)
{
    unsigned char bytes[PCMIG_TURNS_ROW_BYTES];

    here.own[number] = *row;
    here.own[number].number = number;
    if (here.fd < 0)
        return;
    pcmig_turns_pack(row, bytes);
    if (pwrite(here.fd, bytes, sizeof(bytes), ROW_AT(number)) != (ssize_t)sizeof(bytes)) {
        /* A full file system: the others see an old row, and soon none. */
    }
}

struct pcmig_turns_seat *pcmig_turns_join(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct pcmig_turns_seat *seat = malloc(sizeof(*seat));
    const struct pcmig_turns_row empty = {.phase = PCMIG_TURNS_NONE};
    char path[PCMIG_TURNS_FILE_PATH_SIZE];
    unsigned number = 0;

    if (seat == NULL)
        return NULL;
    (void)pthread_once(&once, watch_forks);
    pthread_mutex_lock(&here.lock);
    /* Rows that were taken without the file are not in it: it is opened by the first. */
    if (here.users == 0)
        (void)open_file(path, &here.fd); /* pcmig_turns_file_probe says why not */
    while (number < PCMIG_TURNS_ROWS && !take(number))
        number++;
    if (number == PCMIG_TURNS_ROWS && here.users == 0 && here.fd >= 0) {
        close(here.fd);
        here.fd = -1;
    }
    if (number < PCMIG_TURNS_ROWS) {
        here.used[number] = true;
        here.users++;
        put(number, &empty);
    }
    seat->number = number;
    seat->process = here.process;
    pthread_mutex_unlock(&here.lock);
    if (number == PCMIG_TURNS_ROWS) {
        free(seat);
        return NULL;
    }
    return seat;
}

void pcmig_turns_leave(struct pcmig_turns_seat *seat)
{
    const struct pcmig_turns_row empty = {.phase = PCMIG_TURNS_NONE};
    struct flock lock;

    if (seat == NULL)
        return;
    pthread_mutex_lock(&here.lock);
    if (!is_ours(seat))
        goto out;
    put(seat->number, &empty);
    if (here.fd >= 0)
        (void)lock_row(here.fd, F_OFD_SETLK, F_UNLCK, seat->number, &lock);
    here.used[seat->number] = false;
    if (--here.users == 0 && here.fd >= 0) {
        close(here.fd);
        here.fd = -1;
        here.others_count = 0;
        here.others_us = 0;
    }
out:
    pthread_mutex_unlock(&here.lock);
    free(seat);
}

void pcmig_turns_write(struct pcmig_turns_seat *seat, const struct pcmig_turns_row *row)
{
    pthread_mutex_lock(&here.lock);
    if (is_ours(seat))
        put(seat->number, row);
    pthread_mutex_unlock(&here.lock);
}

/* Whether somebody holds the row's lock. Where that cannot be told, the row's own stamp tells soon enough. */
static bool is_held(int fd, unsigned number)
{
    struct flock lock;

    return lock_row(fd, F_OFD_GETLK, F_WRLCK, number, &lock) < 0 || lock.l_type != F_UNLCK;
}

/* Rows of other processes. */
static size_t read_others(int fd, struct pcmig_turns_row rows[PCMIG_TURNS_ROWS])
{
    unsigned char bytes[PCMIG_TURNS_ROWS * PCMIG_TURNS_ROW_BYTES];
    ssize_t n = pread(fd, bytes, sizeof(bytes), ROW_AT(0));
    size_t count = 0;

    for (unsigned i = 0; n > 0 && i < (size_t)n / PCMIG_TURNS_ROW_BYTES; i++) {
        /* Ours are in the file only where this process had it when it took them; otherwise somebody else's is there. A
         * row that is torn is whole at the next look. */
        if ((here.fd >= 0 && here.used[i]) ||
            !pcmig_turns_unpack(bytes + (size_t)i * PCMIG_TURNS_ROW_BYTES, &rows[count]) || !is_held(fd, i))
            continue;
        rows[count++].number = i;
    }
    return count;
}

size_t pcmig_turns_read(struct pcmig_turns_seat *seat, struct pcmig_turns_row rows[PCMIG_TURNS_ROWS], size_t *me)
{
    int64_t now = pcmig_clock_us();
    size_t count = 0;

    *me = 0;
    pthread_mutex_lock(&here.lock);
    if (!is_ours(seat))
        goto out;
    if (here.fd >= 0 && (here.others_us == 0 || now - here.others_us >= CACHE_US)) {
        here.others_count = read_others(here.fd, here.others);
        here.others_us = now;
    }
    /* A row that changed hands since is ours now. */
    for (size_t i = 0; i < here.others_count; i++) {
        if (!here.used[here.others[i].number])
            rows[count++] = here.others[i];
    }
    for (unsigned i = 0; i < PCMIG_TURNS_ROWS; i++) {
        if (!here.used[i])
            continue;
        if (i == seat->number)
            *me = count;
        rows[count++] = here.own[i];
    }
out:
    pthread_mutex_unlock(&here.lock);
    return count;
}

size_t pcmig_turns_file_rows(struct pcmig_turns_row rows[PCMIG_TURNS_ROWS])
{
    char path[PCMIG_TURNS_FILE_PATH_SIZE];
    size_t count = 0;
    struct stat st;
    int fd;

    if (find_file(path) != 0)
        return 0;
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return 0;
    pthread_mutex_lock(&here.lock);
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
        count = read_others(fd, rows);
    for (unsigned i = 0; i < PCMIG_TURNS_ROWS && count < PCMIG_TURNS_ROWS; i++) {
        if (here.used[i] && here.own[i].phase != PCMIG_TURNS_NONE)
            rows[count++] = here.own[i];
    }
    pthread_mutex_unlock(&here.lock);
    close(fd);
    return count;
}

/* --- facts -------------------------------------------------------------------------------------------------------- */

void pcmig_turns_file_probe(struct pcmig_turns_file_facts *out)
{
    struct pcmig_turns_row rows[PCMIG_TURNS_ROWS];
    char folder[PCMIG_TURNS_FILE_PATH_SIZE];
    struct stat st;
    int fd;

    *out = (struct pcmig_turns_file_facts){.state = PCMIG_TURNS_FILE_SHARED};
    out->error = open_file(out->path, &fd);
    out->state = state_of(out->error);
    if (fd < 0)
        return;
    if (stat(dirname(strcpy(folder, out->path)), &st) == 0)
        out->folder_mode = st.st_mode & 07777;
    pthread_mutex_lock(&here.lock);
    out->rows = (unsigned)read_others(fd, rows);
    pthread_mutex_unlock(&here.lock);
    close(fd);
}

const char *pcmig_turns_file_state_name(enum pcmig_turns_file_state state)
{
    static const char *const names[] = {[PCMIG_TURNS_FILE_SHARED] = "shared",
                                        [PCMIG_TURNS_FILE_MISSING] = "missing",
                                        [PCMIG_TURNS_FILE_DENIED] = "denied",
                                        [PCMIG_TURNS_FILE_FOREIGN] = "foreign",
                                        [PCMIG_TURNS_FILE_FAILED] = "failed"};

    _Static_assert(sizeof(names) / sizeof(names[0]) == PCMIG_TURNS_FILE_STATE_COUNT, "every state has a name");
    return (unsigned)state < PCMIG_TURNS_FILE_STATE_COUNT ? names[state] : "unknown";
}

static uint32_t hash(const void *bytes, size_t count)
{
    uint32_t sum = 2166136261u;

    for (size_t i = 0; i < count; i++)
        sum = (sum ^ ((const unsigned char *)bytes)[i]) * 16777619u;
    return sum != 0 ? sum : 1;
}

uint32_t pcmig_turns_network(const char *uri)
{
    struct stat st = {0};
    char host[256];

    if (!pcmig_this_host(uri) && pcmig_uri_host(uri, host, sizeof(host)))
        return hash(host, strlen(host));
    if (stat("/proc/self/ns/net", &st) < 0)
        return 1;
    return hash(&st.st_ino, sizeof(st.st_ino));
}
