/* SPDX-License-Identifier: Apache-2.0 */
/* See place.h. */
#include "tunnel/place.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { BACKLOG = 64 };

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

bool pcmig_place_prepare(const char *dir, gid_t gid, char error[PCMIG_PLACE_ERROR_BYTES])
{
    struct stat st;

    if (strlen(dir) >= PCMIG_PLACE_DIR_BYTES)
        return fail(error, dir, "the folder's path is too long: at most 71 characters", 0);
    make_parent(dir);
    if (mkdir(dir, 0700) == 0) {
        if ((gid != (gid_t)-1 && chown(dir, (uid_t)-1, gid) < 0) || chmod(dir, 0770) < 0)
            return fail(error, dir, "the folder cannot be given to the group", errno);
    } else if (errno != EEXIST) {
        return fail(error, dir, "the folder cannot be made", errno);
    }
    if (lstat(dir, &st) < 0)
        return fail(error, dir, "the folder cannot be looked at", errno);
    if (!S_ISDIR(st.st_mode))
        return fail(error, dir, "this is not a folder", 0);
    if (st.st_uid != 0 && st.st_uid != geteuid())
        return fail(error, dir, "the folder belongs to another user: it has to be root's or the daemon's", 0);
    if (st.st_mode & 07)
        return fail(error, dir, "others can enter the folder: its mode has to be 0770", 0);
    if ((st.st_mode & 070) != 0 && gid != (gid_t)-1 && st.st_gid != gid)
        return fail(error, dir, "the folder belongs to another group than QEMU's", 0);
    return true;
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

int pcmig_place_listen(const char *path, gid_t gid, mode_t mode, char error[PCMIG_PLACE_ERROR_BYTES])
{
    struct sockaddr_un address;
    int fd;

    if (!make_address(path, &address)) {
        fail(error, path, "a socket's path has at most 107 characters", 0);
        return -1;
    }
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        fail(error, path, "no socket can be made", errno);
        return -1;
    }
    if (is_stale(path, &address))
        unlink(path);
    /* The mode of the descriptor becomes the file's, so nobody else can connect between bind and chmod. */
    if (fchmod(fd, 0600) < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        fail(error, path, errno == EADDRINUSE ? "somebody uses this socket already" : "the socket cannot be made",
             errno == EADDRINUSE ? 0 : errno);
        goto err0;
    }
    if ((gid != (gid_t)-1 && lchown(path, (uid_t)-1, gid) < 0) || chmod(path, mode) < 0) {
        fail(error, path, "the socket cannot be given to its group", errno);
        goto err1;
    }
    if (listen(fd, BACKLOG) < 0) {
        fail(error, path, "the socket cannot listen", errno);
        goto err1;
    }
    return fd;

err1:
    unlink(path);
err0:
    close(fd);
    return -1;
}

void pcmig_place_path(const char *dir, const char *name, char path[PCMIG_PLACE_PATH_BYTES])
{
    snprintf(path, PCMIG_PLACE_PATH_BYTES, "%.*s/%.*s", PCMIG_PLACE_DIR_BYTES - 1, dir, PCMIG_TUNNEL_NAME_LEN, name);
}

enum pcmig_place_result pcmig_place_connect(const char *dir, const char *name, uid_t uid, int *out,
                                            char error[PCMIG_PLACE_ERROR_BYTES])
{
    enum pcmig_place_result result = PCMIG_PLACE_FORBIDDEN;
    char path[PCMIG_PLACE_PATH_BYTES], link[32];
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
    close(file);
    *out = fd;
    return PCMIG_PLACE_CONNECTED;

err1:
    close(fd);
err0:
    close(file);
    return result;
}
