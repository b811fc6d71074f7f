/* SPDX-License-Identifier: Apache-2.0 */
/* See place.h. */
#include "tunnel/local/place.h"

#include "tunnel/local/arrivals.h"
#include "tunnel/local/label.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define SOURCE "source"
#define KNOWN  "known"
#define NEW    ".new" /* in source, until it has its name */

enum {
    BACKLOG = 64,
    FOLDER_BYTES = PCMIG_PLACE_DIR_BYTES + sizeof("/" SOURCE "/") + PCMIG_TUNNEL_NAME_LEN,
};

#define NOT_A_MEMBER                                                                                                   \
    "the socket cannot be given to its group, of which the daemon's user is no member (usermod -aG GROUP USER, and "   \
    "restart it)"

static bool fail(char error[PCMIG_PLACE_ERROR_BYTES], const char *path, const char *what, int number)
{
    snprintf(error, PCMIG_PLACE_ERROR_BYTES, "%s: %s%s%s", path, what, number != 0 ? ": " : "",
             number != 0 ? strerror(number) : "");
    return false;
}

/* The folder above DIR, for everybody to pass: /run/pcmig is not there after a start of the host. */
static void make_parent(const char *dir)
{
    char parent[PCMIG_PLACE_DIR_BYTES];
    char *slash;

    snprintf(parent, sizeof(parent), "%s", dir);
    slash = strrchr(parent, '/');
    if (slash == NULL || slash == parent)
        return;
    *slash = '\0';
    if (mkdir(parent, 0755) < 0)
        return; /* it is there, or making DIR says what is wrong */
}

/* PATH as a folder of this user's with MODE: made, or given that mode. */
static bool make_folder(const char *path, mode_t mode, char error[PCMIG_PLACE_ERROR_BYTES])
{
    struct stat st;
    bool right = false;
    int fd;

    if (mkdir(path, 0700) < 0 && errno != EEXIST)
        return fail(error, path, "the folder cannot be made", errno);
    fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return fail(error, path,
                    errno == ENOTDIR || errno == ELOOP ? "this is not a folder" : "the folder cannot be opened",
                    errno == ENOTDIR || errno == ELOOP ? 0 : errno);
    if (fstat(fd, &st) < 0)
        fail(error, path, "the folder cannot be looked at", errno);
    else if (st.st_uid != geteuid())
        snprintf(error, PCMIG_PLACE_ERROR_BYTES,
                 "%s: the folder belongs to user %u, and has to be the daemon's (user %u): remove it, it is made anew",
                 path, (unsigned)st.st_uid, (unsigned)geteuid());
    else if ((mode & S_ISGID) != 0 && st.st_gid != getegid() && fchown(fd, (uid_t)-1, getegid()) < 0)
        fail(error, path, "the folder cannot be given to the daemon's group", errno);
    else if ((st.st_mode & 07777) != mode && fchmod(fd, mode) < 0)
        fail(error, path, "the folder cannot be given its mode", errno);
    else
        right = true;
    close(fd);
    return right;
}

bool pcmig_place_prepare(const char *dir, char error[PCMIG_PLACE_ERROR_BYTES])
{
    char path[FOLDER_BYTES];
    struct stat st;

    if (strlen(dir) >= PCMIG_PLACE_DIR_BYTES)
        return fail(error, dir, "the folder's path is too long: at most 71 characters", 0);
    make_parent(dir);
    /* What is in it first: as soon as others may write there, they could be in the way. */
    if (mkdir(dir, 0700) < 0 && errno != EEXIST)
        return fail(error, dir, "the folder cannot be made", errno);
    if (stat(dir, &st) == 0 && !S_ISDIR(st.st_mode))
        return fail(error, dir, "this is not a folder", 0);
    snprintf(path, sizeof(path), "%s/" SOURCE, dir);
    if (!make_folder(path, 0711, error))
        return false;
    snprintf(path, sizeof(path), "%s/" KNOWN, dir);
    return make_folder(path, 0700, error) && make_folder(dir, S_ISGID | S_ISVTX | 0733, error);
}
_Static_assert(PCMIG_PLACE_DIR_BYTES == 72, "the text above says 71");

static bool make_address(const char *path, struct sockaddr_un *address)
{
    const size_t len = strlen(path);

    if (len >= sizeof(address->sun_path))
        return false;
    memset(address, 0, sizeof(*address));
    address->sun_family = AF_UNIX;
    memcpy(address->sun_path, path, len);
    return true;
}

/* Whether ADDRESS is a socket that nobody listens on any more. */
static bool is_stale(const char *path, const struct sockaddr_un *address)
{
    struct stat st;
    bool stale = false;
    int fd;

    if (lstat(path, &st) < 0 || !S_ISSOCK(st.st_mode))
        return false;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0) {
        stale = connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0 && errno == ECONNREFUSED;
        close(fd);
    }
    return stale;
}

static const char *in_the_way(const char *path)
{
    struct stat st;

    return lstat(path, &st) == 0 && !S_ISSOCK(st.st_mode) ? "this is not a socket, and in its way"
                                                          : "somebody uses this socket already";
}

/* Gives the socket at PATH, which this process has just made, to GID, with MODE. What is at PATH may be another file by
 * now, where others can write in its folder: so the path is looked at once, and what was found is what is changed. */
static bool give(const char *path, gid_t gid, mode_t mode, char error[PCMIG_PLACE_ERROR_BYTES])
{
    const int file = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    char link[32];
    struct stat st;
    bool given = false;

    if (file < 0 || fstat(file, &st) < 0)
        fail(error, path, "the socket that was just made cannot be opened", errno);
    else if (!S_ISSOCK(st.st_mode) || st.st_uid != geteuid())
        fail(error, path, "somebody has replaced the socket as soon as it was made", 0);
    else if (gid != (gid_t)-1 && st.st_gid != gid && fchownat(file, "", (uid_t)-1, gid, AT_EMPTY_PATH) < 0)
        fail(error, path, errno == EPERM ? NOT_A_MEMBER : "the socket cannot be given to its group", errno);
    else {
        snprintf(link, sizeof(link), "/proc/self/fd/%d", file);
        given = chmod(link, mode) == 0 || fail(error, path, "the socket cannot be given its mode", errno);
    }
    if (file >= 0)
        close(file);
    return given;
}

/* A socket that MAKE makes, bound to PATH with mode 0600; it does not listen yet. */
static int bind_at(const char *path, int (*make)(int domain, int type, int protocol),
                   char error[PCMIG_PLACE_ERROR_BYTES])
{
    struct sockaddr_un address;
    int fd;

    if (!make_address(path, &address)) {
        fail(error, path, "a socket's path has at most 107 characters", 0);
        return -1;
    }
    fd = make(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        fail(error, path, "no socket can be made", errno);
        return -1;
    }
    if (is_stale(path, &address))
        unlink(path);
    /* The mode of the descriptor becomes the file's, so nobody else can connect before it is given away. */
    if (fchmod(fd, 0600) < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        fail(error, path, errno == EADDRINUSE ? in_the_way(path) : "the socket cannot be made",
             errno == EADDRINUSE ? 0 : errno);
        close(fd);
        return -1;
    }
    return fd;
}

int pcmig_place_listen(const char *path, gid_t gid, mode_t mode, char error[PCMIG_PLACE_ERROR_BYTES])
{
    const int fd = bind_at(path, socket, error);

    if (fd < 0)
        return -1;
    if (!give(path, gid, mode, error))
        goto err;
    if (listen(fd, BACKLOG) < 0) {
        fail(error, path, "the socket cannot listen", errno);
        goto err;
    }
    return fd;

err:
    unlink(path);
    close(fd);
    return -1;
}

static void source_path(const char *dir, const char *name, char path[FOLDER_BYTES])
{
    snprintf(path, FOLDER_BYTES, "%.*s/" SOURCE "/%.*s", PCMIG_PLACE_DIR_BYTES - 1, dir, PCMIG_TUNNEL_NAME_LEN, name);
}

int pcmig_place_open_source(const char *dir, const char *name, gid_t gid, char error[PCMIG_PLACE_ERROR_BYTES])
{
    char made[FOLDER_BYTES], path[FOLDER_BYTES], link[PCMIG_PLACE_PATH_BYTES], target[sizeof(SOURCE) + 33];
    char ungiven[PCMIG_PLACE_ERROR_BYTES];
    struct stat st;
    int fd;

    pcmig_place_path(dir, name, link);
    source_path(dir, name, path);
    source_path(dir, NEW, made);
    snprintf(target, sizeof(target), SOURCE "/%.*s", PCMIG_TUNNEL_NAME_LEN, name);
    if (lstat(link, &st) == 0 && !(S_ISLNK(st.st_mode) && st.st_uid == geteuid())) {
        fail(error, link, "somebody uses this name already", 0);
        return -1;
    }
    unlink(made); /* of a daemon that has died just there */
    /* /proc/net/unix has the path that a socket was bound to, whatever becomes of the file. */
    fd = bind_at(made, pcmig_label_socket, error);
    if (fd < 0)
        return -1;
    /* libvirt gives the socket to the guest's user in any case, but where dynamic_ownership = 0 in qemu.conf. */
    if (!give(made, gid, 0660, ungiven) && !give(made, (gid_t)-1, 0600, error))
        goto err0;
    if (listen(fd, BACKLOG) < 0 || rename(made, path) < 0) {
        fail(error, path, "the socket cannot listen", errno);
        goto err0;
    }
    unlink(link); /* of a daemon before this one */
    if (symlink(target, link) < 0) {
        fail(error, link, errno == EEXIST ? "somebody uses this name already" : "the link cannot be made",
             errno == EEXIST ? 0 : errno);
        goto err1;
    }
    return fd;

err1:
    unlink(path);
err0:
    unlink(made);
    close(fd);
    return -1;
}

void pcmig_place_close_source(const char *dir, const char *name)
{
    char path[FOLDER_BYTES], link[PCMIG_PLACE_PATH_BYTES];

    pcmig_place_path(dir, name, link);
    source_path(dir, name, path);
    unlink(link);
    unlink(path);
}

void pcmig_place_path(const char *dir, const char *name, char path[PCMIG_PLACE_PATH_BYTES])
{
    snprintf(path, PCMIG_PLACE_PATH_BYTES, "%.*s/%.*s", PCMIG_PLACE_DIR_BYTES - 1, dir, PCMIG_TUNNEL_NAME_LEN, name);
}

enum pcmig_place_result pcmig_place_connect(const char *dir, const char *name, uid_t uid,
                                            struct pcmig_arrivals *arrivals, int *out,
                                            char error[PCMIG_PLACE_ERROR_BYTES])
{
    enum pcmig_place_result result = PCMIG_PLACE_FORBIDDEN;
    char path[PCMIG_PLACE_PATH_BYTES], link[32], reason[PCMIG_PLACE_ERROR_BYTES / 2];
    struct sockaddr_un address;
    struct stat st;
    int file, fd = -1;

    pcmig_place_path(dir, name, path);
    file = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (file < 0)
        return errno == ENOENT ? PCMIG_PLACE_NOT_YET : (fail(error, path, "it cannot be opened", errno), result);
    if (fstat(file, &st) < 0 || !S_ISSOCK(st.st_mode)) {
        fail(error, path, "this is not a socket", 0);
        goto err0;
    }
    if (uid != (uid_t)-1 && st.st_uid != uid) {
        snprintf(error, PCMIG_PLACE_ERROR_BYTES, "%s: the socket belongs to user %u, not to QEMU's user %u", path,
                 (unsigned)st.st_uid, (unsigned)uid);
        goto err0;
    }
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        fail(error, path, "no socket can be made", errno);
        goto err0;
    }
    snprintf(link, sizeof(link), "/proc/self/fd/%d", file);
    make_address(link, &address);
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        /* EAGAIN: its backlog is full. */
        if (errno == ECONNREFUSED || errno == EAGAIN)
            result = PCMIG_PLACE_NOT_YET;
        else
            fail(error, path, "connecting", errno);
        goto err1;
    }
    if (!pcmig_arrivals_is_right(arrivals, name, st.st_ino, fd, reason, sizeof(reason))) {
        fail(error, path, reason, 0);
        goto err1;
    }
    close(file);
    *out = fd;
    return PCMIG_PLACE_CONNECTED;

err1:
    close(fd);
err0:
    close(file);
    return result;
}
