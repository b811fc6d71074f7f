/* SPDX-License-Identifier: Apache-2.0 */
/* See label.h. */
#include "tunnel/local/label.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define SELINUX   "/sys/fs/selinux/enforce" /* there, with 0 or 1 in it, where SELinux is on */
#define CONTEXT   "/proc/thread-self/attr/current"
#define NEXT      "/proc/thread-self/attr/sockcreate" /* for sockets of this thread, until it is emptied */
#define QEMU_TYPE "svirt_socket_t"

bool pcmig_label_with_type(const char *context, const char *type, char out[PCMIG_LABEL_BYTES])
{
    const char *role = strchr(context, ':');
    const char *old = role != NULL ? strchr(role + 1, ':') : NULL;
    const char *level = old != NULL ? strchr(old + 1, ':') : NULL;
    const int before = old != NULL ? (int)(old - context) : 0;
    int len;

    if (old == NULL || role == context || old == role + 1)
        return false;
    /* Without levels where the policy has none. */
    len = snprintf(out, PCMIG_LABEL_BYTES, "%.*s:%s%.*s", before, context, type,
                   level != NULL ? (int)strcspn(level, "-") : 0, level != NULL ? level : "");
    return len > 0 && len < PCMIG_LABEL_BYTES;
}

/* This thread's label; false where there is none. */
static bool read_context(char context[PCMIG_LABEL_BYTES])
{
    const int fd = open(CONTEXT, O_RDONLY | O_CLOEXEC);
    ssize_t len;

    if (fd < 0)
        return false;
    len = read(fd, context, PCMIG_LABEL_BYTES - 1);
    close(fd);
    if (len <= 0)
        return false;
    context[len] = '\0';
    context[strcspn(context, "\n")] = '\0';
    return true;
}

static bool write_next(const char *label)
{
    const int fd = open(NEXT, O_WRONLY | O_CLOEXEC);
    bool written;

    if (fd < 0)
        return false;
    written = write(fd, label, strlen(label)) >= 0;
    close(fd);
    return written;
}

int pcmig_label_socket(int domain, int type, int protocol)
{
    char context[PCMIG_LABEL_BYTES], label[PCMIG_LABEL_BYTES];
    int fd, error;

    if (access(SELINUX, F_OK) < 0 || !read_context(context) || !pcmig_label_with_type(context, QEMU_TYPE, label) ||
        !write_next(label))
        return socket(domain, type, protocol);
    fd = socket(domain, type, protocol);
    error = errno;
    (void)write_next("");
    errno = error;
    /* A policy may have the type and not let this process make such sockets. */
    return fd >= 0 || error != EACCES ? fd : socket(domain, type, protocol);
}
