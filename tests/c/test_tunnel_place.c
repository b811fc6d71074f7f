/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets in a folder that others may write: csrc/tunnel/local/place.h. */
#include "tunnel/local/arrivals.h"
#include "tunnel/local/label.h"
#include "tunnel/local/place.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

enum { TRIES = 2000 };

static const char *put_there; /* a link that takes the next socket's place as soon as it is bound; NULL: none does */

/* In the place of the C library's. */
int bind(int fd, const struct sockaddr *address, socklen_t len)
{
    const int result = (int)syscall(SYS_bind, fd, address, len);
    const char *link = put_there;

    put_there = NULL;
    if (result == 0 && link != NULL && rename(link, ((const struct sockaddr_un *)(const void *)address)->sun_path) < 0)
        abort();
    return result;
}

static bool is_old; /* this kernel, in which processes have no inodes of their own */

/* In the place of the C library's. */
int fstatfs(int fd, struct statfs *out)
{
    const int result = (int)syscall(SYS_fstatfs, fd, out);

    if (is_old)
        out->f_type = 0;
    return result;
}

/* Puts a symbolic link to VICTIM in place of each socket as soon as it is made. */
static void replace_all(const char *dir, const char *victim)
{
    char link[128], path[512], events[65536] __attribute__((aligned(8)));
    const int in = inotify_init();

    snprintf(link, sizeof(link), "%s/.l", dir);
    if (inotify_add_watch(in, dir, IN_CREATE) < 0 || symlink(victim, link) < 0)
        _exit(1);
    for (;;) {
        const ssize_t n = read(in, events, sizeof(events));

        for (ssize_t i = 0; i < n;) {
            const struct inotify_event *event = (const struct inotify_event *)(const void *)(events + i);

            snprintf(path, sizeof(path), "%s/%s", dir, event->name);
            if (event->name[0] != '.' && rename(link, path) == 0)
                (void)!symlink(victim, link);
            i += (ssize_t)(sizeof(*event) + event->len);
        }
    }
}

/* FOLDER is made of a template, and DIR the tunnel's in it. */
static void make_place(char *folder, char dir[64])
{
    char error[PCMIG_PLACE_ERROR_BYTES];

    assert_non_null(mkdtemp(folder));
    snprintf(dir, 64, "%s/run", folder);
    assert_true(pcmig_place_prepare(dir, error));
}

static struct pcmig_arrivals *watch(const char *dir, unsigned keep_ms)
{
    char error[PCMIG_PLACE_ERROR_BYTES];
    struct pcmig_arrivals *arrivals = pcmig_arrivals_new(dir, keep_ms, error, sizeof(error));

    assert_non_null(arrivals);
    return arrivals;
}

static void remove_folder(const char *folder)
{
    char command[64];

    snprintf(command, sizeof(command), "rm -r %s", folder);
    assert_int_equal(system(command), 0);
}

static void expect(const char *dir, const char *name, struct pcmig_arrivals *arrivals, const char *refusal)
{
    char error[PCMIG_PLACE_ERROR_BYTES];
    int fd;

    if (refusal == NULL) {
        assert_int_equal(pcmig_place_connect(dir, name, (uid_t)-1, arrivals, &fd, error), PCMIG_PLACE_CONNECTED);
        close(fd);
    } else {
        assert_int_equal(pcmig_place_connect(dir, name, (uid_t)-1, arrivals, &fd, error), PCMIG_PLACE_FORBIDDEN);
        assert_non_null(strstr(error, refusal));
    }
}

static void a_link_is_not_followed(void **state)
{
    char folder[] = "/tmp/pcmig-place-XXXXXX", dir[64], victim[64], path[160], error[PCMIG_PLACE_ERROR_BYTES];
    unsigned replaced = 0, changed = 0;
    struct stat st;
    pid_t attacker;
    int fd;

    (void)state;
    assert_non_null(mkdtemp(folder));
    snprintf(dir, sizeof(dir), "%s/run", folder);
    snprintf(victim, sizeof(victim), "%s/victim", folder);
    assert_return_code(mkdir(dir, 0700), errno);
    fd = open(victim, O_CREAT | O_WRONLY, 0600);
    assert_return_code(fd, errno);
    close(fd);
    attacker = fork();
    assert_return_code(attacker, errno);
    if (attacker == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(STDOUT_FILENO);
        close(STDERR_FILENO);
        replace_all(dir, victim);
    }
    usleep(100000);
    for (int i = 0; i < TRIES || (replaced == 0 && i < 100 * TRIES); i++) { /* the attacker may be late */
        snprintf(path, sizeof(path), "%s/%032x", dir, (unsigned)i);
        fd = pcmig_place_listen(path, getegid(), 0660, error);
        if (fd >= 0)
            close(fd);
        if (lstat(path, &st) == 0 && S_ISLNK(st.st_mode))
            replaced++;
        if (stat(victim, &st) < 0 || (st.st_mode & 07777) != 0600)
            changed++;
        unlink(path);
        usleep(200);
    }
    kill(attacker, SIGKILL);
    waitpid(attacker, NULL, 0);
    remove_folder(folder);
    assert_true(replaced > 0); /* it was tried */
    assert_int_equal(changed, 0);
}

/* The same, where the link is always there in time: neither mode nor group of what it leads to is changed. */
static void a_link_that_is_there_in_time_is_not_followed(void **state)
{
    char folder[] = "/tmp/pcmig-place-XXXXXX", victim[64], link[64], path[160], error[PCMIG_PLACE_ERROR_BYTES];
    struct stat before, after;
    int fd;

    (void)state;
    assert_non_null(mkdtemp(folder));
    snprintf(victim, sizeof(victim), "%s/victim", folder);
    snprintf(link, sizeof(link), "%s/link", folder);
    snprintf(path, sizeof(path), "%s/socket", folder);
    fd = open(victim, O_CREAT | O_WRONLY, 0600);
    assert_return_code(fd, errno);
    close(fd);
    assert_return_code(symlink(victim, link), errno);
    assert_return_code(stat(victim, &before), errno);
    put_there = link;
    fd = pcmig_place_listen(path, getegid() + 1, 0660, error);
    assert_null(put_there);
    assert_return_code(stat(victim, &after), errno);
    assert_int_equal(after.st_mode & 07777, 0600);
    assert_int_equal(after.st_gid, before.st_gid);
    assert_int_equal(fd, -1);
    assert_non_null(strstr(error, "somebody has replaced the socket"));
    remove_folder(folder);
}

static void what_is_in_the_way_is_named(void **state)
{
    char folder[] = "/tmp/pcmig-place-XXXXXX", path[64], error[PCMIG_PLACE_ERROR_BYTES];
    int fd;

    (void)state;
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/file", folder);
    fd = open(path, O_CREAT | O_WRONLY, 0600);
    assert_return_code(fd, errno);
    close(fd);
    assert_false(pcmig_place_prepare(path, error));
    assert_non_null(strstr(error, "/file: this is not a folder"));
    assert_int_equal(pcmig_place_listen(path, getegid(), 0660, error), -1);
    assert_non_null(strstr(error, "/file: this is not a socket, and in its way"));
    snprintf(path, sizeof(path), "%s/socket", folder);
    fd = pcmig_place_listen(path, getegid(), 0660, error);
    assert_return_code(fd, errno);
    assert_int_equal(pcmig_place_listen(path, getegid(), 0660, error), -1);
    assert_non_null(strstr(error, "/socket: somebody uses this socket already"));
    close(fd);
    remove_folder(folder);
}

static int listening(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    memcpy(address.sun_path, path, strlen(path));
    assert_return_code(fd, errno);
    assert_return_code(bind(fd, (struct sockaddr *)&address, sizeof(address)), errno);
    assert_return_code(listen(fd, 4), errno);
    return fd;
}

/* Whether the daemon looks only when it is asked to connect, or just while there is no socket. */
static void the_first_socket_is_the_right_one(void **state)
{
    static const char *const names[] = {"00000000000000000000000000000001", "00000000000000000000000000000002",
                                        "00000000000000000000000000000003", "00000000000000000000000000000004"};
    char folder[] = "/tmp/pcmig-place-XXXXXX", dir[64], path[PCMIG_PLACE_PATH_BYTES], error[PCMIG_PLACE_ERROR_BYTES];
    struct pcmig_arrivals *arrivals;
    int once, removed, removed_again, moved, moved_again, seen, seen_again;

    (void)state;
    make_place(folder, dir);
    arrivals = watch(dir, 1000000);
    pcmig_place_path(dir, names[0], path);
    once = listening(path);
    pcmig_place_path(dir, names[1], path);
    removed = listening(path);
    assert_return_code(unlink(path), errno);
    removed_again = listening(path);
    pcmig_place_path(dir, names[2], path);
    moved = listening(path);
    snprintf(error, sizeof(error), "%s/elsewhere", dir);
    assert_return_code(rename(path, error), errno);
    moved_again = listening(path);
    pcmig_place_path(dir, names[3], path);
    seen = listening(path);
    assert_return_code(unlink(path), errno);
    pcmig_arrivals_tidy(arrivals);
    seen_again = listening(path);
    /* Twice: the process is known from then on. */
    for (int i = 0; i < 2; i++)
        expect(dir, names[0], arrivals, NULL);
    for (int i = 1; i < 4; i++)
        expect(dir, names[i], arrivals, "was replaced before anybody was connected");
    pcmig_arrivals_free(arrivals);
    close(once);
    close(removed);
    close(removed_again);
    close(moved);
    close(moved_again);
    close(seen);
    close(seen_again);
    remove_folder(folder);
}

/* A NAME is not forgotten while nobody was connected to it: with disks that are copied the destination listens for
 * hours. */
static void a_place_that_was_left_is_not_taken(void **state)
{
    static const char *const names[] = {"00000000000000000000000000000001", "00000000000000000000000000000002"};
    char folder[] = "/tmp/pcmig-place-XXXXXX", dir[64], path[PCMIG_PLACE_PATH_BYTES];
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = time(NULL) - 660}};
    struct pcmig_arrivals *arrivals;
    int first, second, other;

    (void)state;
    make_place(folder, dir);
    arrivals = watch(dir, 1000000);
    pcmig_place_path(dir, names[0], path);
    first = listening(path);
    assert_return_code(unlink(path), errno);
    pcmig_place_path(dir, names[1], path);
    other = listening(path);
    expect(dir, names[1], arrivals, NULL);
    snprintf(path, sizeof(path), "%s/known/%s", dir, names[0]);
    assert_return_code(utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW), errno);
    pcmig_arrivals_tidy(arrivals);
    pcmig_place_path(dir, names[0], path);
    second = listening(path);
    expect(dir, names[0], arrivals, "was replaced before anybody was connected");
    pcmig_arrivals_free(arrivals);
    close(first);
    close(second);
    close(other);
    remove_folder(folder);
}

/* As at a start of the daemon: a socket of which nobody has seen whose it is. What is made anew, as for a resume, is
 * seen. */
static void made_while_nobody_looked(void **state)
{
    static const char name[] = "00000000000000000000000000000001";
    char folder[] = "/tmp/pcmig-place-XXXXXX", dir[64], path[PCMIG_PLACE_PATH_BYTES];
    struct pcmig_arrivals *arrivals;
    int before, after;

    (void)state;
    make_place(folder, dir);
    pcmig_place_path(dir, name, path);
    before = listening(path);
    arrivals = watch(dir, 1000000);
    expect(dir, name, arrivals, "was not there to see it: migrate, or resume, again");
    assert_return_code(unlink(path), errno);
    after = listening(path);
    expect(dir, name, arrivals, NULL);
    pcmig_arrivals_free(arrivals);
    close(before);
    close(after);
    remove_folder(folder);
}

/* Whose a NAME is stays known as long as that process lives: a guest may wait for days to be resumed, and makes a
 * socket for each attempt. */
static void a_guest_that_waits_for_long(void **state)
{
    static const char name[] = "00000000000000000000000000000001";
    const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = time(NULL) - 660}};
    char folder[] = "/tmp/pcmig-place-XXXXXX", dir[64], path[PCMIG_PLACE_PATH_BYTES];
    struct pcmig_arrivals *arrivals;
    int sockets[3];

    (void)state;
    make_place(folder, dir);
    arrivals = watch(dir, 600000);
    pcmig_place_path(dir, name, path);
    sockets[0] = listening(path);
    expect(dir, name, arrivals, NULL);
    snprintf(path, sizeof(path), "%s/known/%s", dir, name);
    assert_return_code(utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW), errno);
    pcmig_arrivals_tidy(arrivals);
    pcmig_place_path(dir, name, path);
    for (int i = 1; i < 3; i++) {
        assert_return_code(unlink(path), errno);
        sockets[i] = listening(path);
    }
    expect(dir, name, arrivals, NULL);
    pcmig_arrivals_free(arrivals);
    for (int i = 0; i < 3; i++)
        close(sockets[i]);
    remove_folder(folder);
}

/* NAME is DIR's, as TEXT has it, for longer than it is kept without being of use. */
static void note(const char *dir, const char *name, const char *text)
{
    const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = time(NULL) - 660}};
    char path[160];

    snprintf(path, sizeof(path), "%s/known/%s", dir, name);
    if (unlink(path) < 0)
        assert_int_equal(errno, ENOENT);
    assert_return_code(symlink(text, path), errno);
    assert_return_code(utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW), errno);
}

static bool is_noted(const char *dir, const char *name)
{
    char path[160];
    struct stat st;

    snprintf(path, sizeof(path), "%s/known/%s", dir, name);
    return lstat(path, &st) == 0;
}

/* The number of a process that has ended is given to another: that one has no part in the NAME, which is forgotten in
 * time. What daemons have noted that knew no more than the number holds on. */
static void is_used_again(void)
{
    static const char *const names[] = {"00000000000000000000000000000001", "00000000000000000000000000000002",
                                        "00000000000000000000000000000003"};
    char folder[] = "/tmp/pcmig-place-XXXXXX", dir[64], path[PCMIG_PLACE_PATH_BYTES], texts[3][64], same[64] = "";
    struct pcmig_arrivals *arrivals;
    int sockets[3];

    make_place(folder, dir);
    arrivals = watch(dir, 600000);
    for (int i = 0; i < 3; i++) {
        pcmig_place_path(dir, names[i], path);
        sockets[i] = listening(path);
        expect(dir, names[i], arrivals, NULL);
    }
    snprintf(path, sizeof(path), "%s/known/%s", dir, names[2]);
    assert_true(readlink(path, same, sizeof(same) - 1) > 0);
    snprintf(texts[0], sizeof(texts[0]), "process %d of user %u (1)", (int)getpid(), (unsigned)getuid());
    snprintf(texts[1], sizeof(texts[1]), "process %d of user %u", (int)getpid(), (unsigned)getuid());
    snprintf(texts[2], sizeof(texts[2]), "%s", same);
    assert_string_not_equal(texts[1], same);
    for (int i = 0; i < 3; i++)
        note(dir, names[i], texts[i]);
    expect(dir, names[0], arrivals, "listens, but the guest's QEMU was another with that number");
    pcmig_arrivals_tidy(arrivals);
    assert_false(is_noted(dir, names[0]));
    for (int i = 1; i < 3; i++) {
        assert_true(is_noted(dir, names[i]));
        expect(dir, names[i], arrivals, NULL);
    }
    pcmig_arrivals_free(arrivals);
    for (int i = 0; i < 3; i++)
        close(sockets[i]);
    remove_folder(folder);
}

static void a_number_that_is_used_again(void **state)
{
    (void)state;
    is_used_again();
    is_old = true;
    is_used_again();
    is_old = false;
}

/* A guest that makes and removes files without end, until the kernel has dropped what it had to tell: what is there
 * then is refused, and what comes after the next look is not, without the daemon being started again. What takes the
 * place of a socket that was removed unseen, and that somebody listens at yet, is refused as well. */
static void more_than_the_kernel_tells(void **state)
{
    char names[5][PCMIG_TUNNEL_NAME_LEN + 1]; /* that no other program has sockets of now: the kernel lists them all */
    char folder[] = "/tmp/pcmig-place-XXXXXX", dir[64], path[PCMIG_PLACE_PATH_BYTES], error[PCMIG_PLACE_ERROR_BYTES];
    struct pcmig_arrivals *arrivals;
    int sockets[6], events = 0, fd;
    FILE *limit = fopen("/proc/sys/fs/inotify/max_queued_events", "r");

    (void)state;
    assert_non_null(limit);
    assert_int_equal(fscanf(limit, "%d", &events), 1);
    fclose(limit);
    for (int i = 0; i < 5; i++)
        snprintf(names[i], sizeof(names[i]), "%030x%02x", (unsigned)getpid(), (unsigned)i);
    make_place(folder, dir);
    arrivals = watch(dir, 1000000);
    pcmig_place_path(dir, names[0], path);
    sockets[0] = listening(path);
    expect(dir, names[0], arrivals, NULL);
    pcmig_place_path(dir, names[1], path);
    sockets[1] = listening(path);
    snprintf(path, sizeof(path), "%s/%s", dir, "noise");
    for (int i = 0; i < events; i++) { /* two events each */
        assert_return_code(symlink("nowhere", path), errno);
        assert_return_code(unlink(path), errno);
    }
    pcmig_place_path(dir, names[2], path);
    sockets[2] = listening(path);
    pcmig_place_path(dir, names[4], path);
    sockets[4] = listening(path);
    assert_return_code(unlink(path), errno);
    for (int i = 1; i < 3; i++) {
        assert_int_equal(pcmig_place_connect(dir, names[i], (uid_t)-1, arrivals, &fd, error), PCMIG_PLACE_FORBIDDEN);
        assert_non_null(strstr(error, "more has happened"));
        assert_non_null(strstr(error, "again in a minute")); /* not cut off */
    }
    pcmig_arrivals_tidy(arrivals);
    sockets[5] = listening(path);
    pcmig_place_path(dir, names[3], path);
    sockets[3] = listening(path);
    for (int i = 0; i < 4; i += 3) /* who was connected before still is the right one */
        expect(dir, names[i], arrivals, NULL);
    for (int i = 1; i < 5; i += i == 2 ? 2 : 1)
        expect(dir, names[i], arrivals, "was replaced before anybody was connected");
    pcmig_arrivals_free(arrivals);
    for (int i = 0; i < 6; i++)
        close(sockets[i]);
    remove_folder(folder);
}

static void a_label_for_qemu(void **state)
{
    static const struct {
        const char *context, *label; /* NULL: it is none */
    } rows[] = {
        {"system_u:system_r:pcmig_tunnel_t:s0", "system_u:system_r:svirt_socket_t:s0"},
        {"system_u:system_r:unconfined_service_t:s0-s0:c0.c1023", "system_u:system_r:svirt_socket_t:s0"},
        {"u:r:t:s0:c1,c2-s0:c0.c1023", "u:r:svirt_socket_t:s0:c1,c2"},
        {"u:r:t", "u:r:svirt_socket_t"},
        {"unconfined", NULL}, /* of AppArmor */
        {"pcmig-tunnel (enforce)", NULL},
        {"a:b", NULL},
        {":r:t:s0", NULL},
        {"u::t:s0", NULL},
        {"", NULL},
    };
    char label[PCMIG_LABEL_BYTES], longest[2 * PCMIG_LABEL_BYTES];

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const bool is = pcmig_label_with_type(rows[i].context, "svirt_socket_t", label);

        assert_int_equal(is, rows[i].label != NULL);
        if (is)
            assert_string_equal(label, rows[i].label);
    }
    memset(longest, 'u', sizeof(longest));
    memcpy(longest + sizeof(longest) - 6, ":r:t", 5);
    assert_false(pcmig_label_with_type(longest, "svirt_socket_t", label));
}

static void a_socket_whatever_the_kernel_has(void **state)
{
    const int fd = pcmig_label_socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    (void)state;
    assert_return_code(fd, errno);
    close(fd);
    assert_int_equal(pcmig_label_socket(AF_UNIX, -1, 0), -1);
    assert_int_equal(errno, EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_link_is_not_followed),
        cmocka_unit_test(a_link_that_is_there_in_time_is_not_followed),
        cmocka_unit_test(what_is_in_the_way_is_named),
        cmocka_unit_test(the_first_socket_is_the_right_one),
        cmocka_unit_test(a_place_that_was_left_is_not_taken),
        cmocka_unit_test(made_while_nobody_looked),
        cmocka_unit_test(a_guest_that_waits_for_long),
        cmocka_unit_test(a_number_that_is_used_again),
        cmocka_unit_test(more_than_the_kernel_tells),
        cmocka_unit_test(a_label_for_qemu),
        cmocka_unit_test(a_socket_whatever_the_kernel_has),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
