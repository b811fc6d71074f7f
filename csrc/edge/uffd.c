/* SPDX-License-Identifier: Apache-2.0 */
#include "uffd.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef UFFD_USER_MODE_ONLY /* headers before Linux 5.11 */
#define UFFD_USER_MODE_ONLY 1
#endif
#ifndef USERFAULTFD_IOC_NEW /* headers before Linux 6.1 */
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif

/* Where the plain name is the old 16-bit call (32-bit x86 and Arm), the one to use has a suffix. */
#ifdef SYS_setresuid32
#define SET_UID    SYS_setresuid32
#define SET_GID    SYS_setresgid32
#define SET_GROUPS SYS_setgroups32
#else
#define SET_UID    SYS_setresuid
#define SET_GID    SYS_setresgid
#define SET_GROUPS SYS_setgroups
#endif

enum { NAME_BUFFER_BYTES = 16384 };

/* --- one attempt ------------------------------------------------------------------------------------------------ */

static int open_syscall(int flags)
{
#ifdef SYS_userfaultfd
    return (int)syscall(SYS_userfaultfd, flags);
#else
    (void)flags;
    errno = ENOSYS;
    return -1;
#endif
}

static int open_node(const char *path)
{
    int node = open(path, O_RDWR | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);

    if (node < 0)
        return -1;
    int fd = ioctl(node, USERFAULTFD_IOC_NEW, O_CLOEXEC);
    int saved = errno;

    close(node);
    errno = saved;
    return fd;
}

/* Takes FD through what QEMU does with it. -1 = it was not to be had, and errno says why. */
static void try_fd(int fd, struct pcmig_uffd_try *out)
{
    memset(out, 0, sizeof(*out));
    out->step = PCMIG_UFFD_STEP_OPEN;
    if (fd < 0) {
        out->error = errno;
        return;
    }

    struct uffdio_api api = {.api = UFFD_API};

    out->step = PCMIG_UFFD_STEP_API;
    if (ioctl(fd, UFFDIO_API, &api) < 0) {
        out->error = errno;
        goto done;
    }
    out->features = api.features;
    out->ioctls = api.ioctls;

    size_t len = (size_t)sysconf(_SC_PAGESIZE);
    void *page = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    out->step = PCMIG_UFFD_STEP_REGISTER;
    if (page == MAP_FAILED) {
        out->error = errno;
        goto done;
    }

    struct uffdio_register reg = {
        .range = {.start = (uintptr_t)page, .len = len},
        .mode = UFFDIO_REGISTER_MODE_MISSING,
    };

    if (ioctl(fd, UFFDIO_REGISTER, &reg) < 0) {
        out->error = errno;
    } else {
        out->range_ioctls = reg.ioctls;
        out->step = PCMIG_UFFD_STEP_DONE;
    }
    munmap(page, len);
done:
    close(fd);
}

void pcmig_uffd_try(const char *node_path, struct pcmig_uffd_report *out)
{
    try_fd(open_syscall(O_CLOEXEC), &out->syscall);
    try_fd(open_syscall(O_CLOEXEC | UFFD_USER_MODE_ONLY), &out->user_only);
    try_fd(open_node(node_path), &out->node);
}

/* --- as another user -------------------------------------------------------------------------------------------- */

struct answer {
    int error; /* errno of taking on the identity */
    struct pcmig_uffd_report report;
};

static int drop_capabilities(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];

    memset(data, 0, sizeof(data));
    return (int)syscall(SYS_capset, &header, data);
}

/* Raw system calls: the C library's setuid and friends signal every thread, and those are gone after fork. */
static int become(const struct pcmig_uffd_identity *who)
{
    bool same = geteuid() == who->uid && getegid() == who->gid;

    if (!(same && geteuid() != 0)) { /* an ordinary user that tries as itself needs no right for it */
        if (syscall(SET_GROUPS, who->group_count, who->groups) < 0)
            return errno;
        if (syscall(SET_GID, who->gid, who->gid, who->gid) < 0)
            return errno;
        if (syscall(SET_UID, who->uid, who->uid, who->uid) < 0)
            return errno;
    }
    if (!who->keep_capabilities && drop_capabilities() < 0)
        return errno;
    return 0;
}

static void write_all(int fd, const void *data, size_t len)
{
    const char *at = data;

    while (len > 0) {
        ssize_t n = write(fd, at, len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return;
        at += n;
        len -= (size_t)n;
    }
}

static int64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Reads exactly LEN bytes before TIMEOUT_MS is over. Returns 0 or an errno; EPIPE when the writer ended early. */
static int read_all(int fd, void *data, size_t len, int timeout_ms)
{
    char *at = data;
    int64_t deadline = now_ms() + timeout_ms;

    while (len > 0) {
        int64_t left = deadline - now_ms();
        struct pollfd pfd = {.fd = fd, .events = POLLIN};
        int ready = poll(&pfd, 1, left > 0 ? (int)left : 0);

        if (ready < 0 && errno == EINTR)
            continue;
        if (ready < 0)
            return errno;
        if (ready == 0)
            return ETIMEDOUT;
        ssize_t n = read(fd, at, len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno;
        if (n == 0)
            return EPIPE;
        at += n;
        len -= (size_t)n;
    }
    return 0;
}

int pcmig_uffd_try_as(const struct pcmig_uffd_identity *who, const char *node_path, int timeout_ms,
                      struct pcmig_uffd_report *out)
{
    int ends[2];
    sigset_t all, before;
    struct answer answer;
    int error;

    if (pipe2(ends, O_CLOEXEC) < 0)
        return errno;
    /* The child must not run this process's signal handlers, which are not made for it. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);

    pid_t child = fork();

    if (child == 0) {
        memset(&answer, 0, sizeof(answer));
        answer.error = become(who);
        if (answer.error == 0)
            pcmig_uffd_try(node_path, &answer.report);
        write_all(ends[1], &answer, sizeof(answer));
        _exit(0);
    }
    error = child < 0 ? errno : 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    close(ends[1]);
    if (child > 0) {
        error = read_all(ends[0], &answer, sizeof(answer), timeout_ms);
        if (error != 0)
            kill(child, SIGKILL);
        while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
            ;
    }
    close(ends[0]);
    if (error == 0)
        error = answer.error;
    if (error == 0)
        *out = answer.report;
    return error;
}

/* --- who -------------------------------------------------------------------------------------------------------- */

/* TEXT as a whole is a number that fits an id. (id)-1 is not: it means "no change" to the system calls. */
static bool parse_id(const char *text, uint32_t *out)
{
    char *end;

    if (text[0] < '0' || text[0] > '9')
        return false;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);

    if (errno != 0 || *end != '\0' || value >= UINT32_MAX)
        return false;
    *out = (uint32_t)value;
    return true;
}

static int find_group(const char *group, char *buffer, gid_t *out, char *err, size_t err_size)
{
    struct group entry, *found = NULL;
    uint32_t id;
    bool number_only = group[0] == '+';

    if (!number_only)
        getgrnam_r(group, &entry, buffer, NAME_BUFFER_BYTES, &found);
    if (found != NULL) {
        *out = found->gr_gid;
        return 0;
    }
    if (parse_id(group + number_only, &id)) {
        *out = id;
        return 0;
    }
    snprintf(err, err_size, "there is no group '%s' on this host", group);
    return -1;
}

int pcmig_uffd_identify(const char *user, const char *group, struct pcmig_uffd_identity *out, char *err,
                        size_t err_size)
{
    struct passwd entry, *found = NULL;
    uint32_t id = 0;
    bool number_only = user[0] == '+';
    int rc = -1;
    char *buffer = malloc(NAME_BUFFER_BYTES);

    memset(out, 0, sizeof(*out));
    if (buffer == NULL) {
        snprintf(err, err_size, "out of memory");
        return -1;
    }
    if (!number_only)
        getpwnam_r(user, &entry, buffer, NAME_BUFFER_BYTES, &found);
    if (found == NULL) {
        if (!parse_id(user + number_only, &id)) {
            snprintf(err, err_size, "there is no user '%s' on this host", user);
            goto done;
        }
        getpwuid_r(id, &entry, buffer, NAME_BUFFER_BYTES, &found);
    }
    out->uid = found != NULL ? found->pw_uid : id;
    out->gid = found != NULL ? found->pw_gid : id;

    if (found != NULL) {
        int count = PCMIG_UFFD_GROUPS_MAX;

        /* -1 = more groups than room: the first ones are there. */
        if (getgrouplist(found->pw_name, found->pw_gid, out->groups, &count) < 0)
            count = PCMIG_UFFD_GROUPS_MAX;
        out->group_count = (size_t)count;
    }
    if (group != NULL && find_group(group, buffer, &out->gid, err, err_size) < 0)
        goto done;
    if (out->group_count == 0)
        out->groups[out->group_count++] = out->gid;
    rc = 0;
done:
    free(buffer);
    return rc;
}
