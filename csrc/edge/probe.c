/* SPDX-License-Identifier: Apache-2.0 */
#include "probe.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

enum { FILE_BYTES_MAX = 4096 };

/* One row per file that holds nothing but integers. */
static const struct {
    const char *path;
    size_t offset;
    size_t count;
} numbers[] = {
    {"/proc/sys/vm/unprivileged_userfaultfd", offsetof(struct pcmig_probe, unprivileged_userfaultfd), 1},
    {"/proc/sys/vm/max_map_count", offsetof(struct pcmig_probe, max_map_count), 1},
    {"/proc/sys/net/ipv4/tcp_retries2", offsetof(struct pcmig_probe, tcp_retries2), 1},
    {"/proc/sys/net/ipv4/tcp_wmem", offsetof(struct pcmig_probe, tcp_wmem_bytes), 3},
    {"/proc/sys/net/ipv4/tcp_rmem", offsetof(struct pcmig_probe, tcp_rmem_bytes), 3},
};

/* One integer at *AT, which moves behind it. False when there is none, or it does not fit. */
static bool parse_int(const char **at, const char *end, int64_t *out)
{
    bool negative = *at < end && **at == '-';
    uint64_t value = 0;
    const char *p = *at + negative;

    if (p == end || *p < '0' || *p > '9')
        return false;
    for (; p < end && *p >= '0' && *p <= '9'; p++) {
        unsigned digit = (unsigned)(*p - '0');

        if (value > ((uint64_t)INT64_MAX - digit) / 10)
            return false;
        value = value * 10 + digit;
    }
    *out = negative ? -(int64_t)value : (int64_t)value;
    *at = p;
    return true;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\n';
}

int pcmig_probe_parse_ints(const char *text, size_t len, int64_t *out, size_t count)
{
    const char *at = text, *end = text + len;
    int64_t found[8];
    size_t n = 0;

    for (;;) {
        while (at < end && is_blank(*at))
            at++;
        if (at == end)
            break;
        if (n == count || n == sizeof(found) / sizeof(found[0]) || !parse_int(&at, end, &found[n]))
            return -1;
        if (at < end && !is_blank(*at))
            return -1;
        n++;
    }
    memcpy(out, found, n * sizeof(found[0]));
    return (int)n;
}

/* The first FILE_BYTES_MAX bytes of ROOT/PATH, ended by a 0. Returns their number, or -1. */
static ssize_t read_file(const char *root, const char *path, char text[FILE_BYTES_MAX + 1])
{
    char full[4096];
    size_t len = 0;

    if (snprintf(full, sizeof(full), "%s%s", root, path) >= (int)sizeof(full))
        return -1;
    int fd = open(full, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

    if (fd < 0)
        return -1;
    while (len < FILE_BYTES_MAX) {
        ssize_t n = read(fd, text + len, FILE_BYTES_MAX - len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            close(fd);
            return -1;
        }
        if (n == 0)
            break;
        len += (size_t)n;
    }
    close(fd);
    text[len] = '\0';
    return (ssize_t)len;
}

static void copy_word(char *out, size_t size, const char *from, const char *end_marks)
{
    size_t len = strcspn(from, end_marks);

    if (len < size) { /* longer than any such word is: leave it unknown rather than cut it */
        memcpy(out, from, len);
        out[len] = '\0';
    }
}

static void read_node(struct pcmig_probe *out)
{
    struct stat st;

    if (stat(out->node_path, &st) < 0)
        return;
    out->node.exists = true;
    out->node.is_device = S_ISCHR(st.st_mode);
    out->node.mode = st.st_mode & 07777;
    out->node.uid = st.st_uid;
    out->node.gid = st.st_gid;
    out->node.major = major(st.st_rdev);
    out->node.minor = minor(st.st_rdev);
}

int pcmig_probe_read(const char *root, struct pcmig_probe *out)
{
    char text[FILE_BYTES_MAX + 1];
    const char *at;

    memset(out, 0, sizeof(*out));
    if (strcmp(root, "/") == 0)
        root = "";
    if (snprintf(out->node_path, sizeof(out->node_path), "%s/dev/userfaultfd", root) >= (int)sizeof(out->node_path))
        return -1;

    out->page_size_bytes = sysconf(_SC_PAGESIZE);
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        int64_t *field = (int64_t *)((char *)out + numbers[i].offset);
        ssize_t len = read_file(root, numbers[i].path, text);

        for (size_t k = 0; k < numbers[i].count; k++)
            field[k] = PCMIG_PROBE_UNKNOWN;
        if (len >= 0)
            (void)pcmig_probe_parse_ints(text, (size_t)len, field, numbers[i].count);
    }
    if (read_file(root, "/proc/sys/kernel/osrelease", text) >= 0)
        copy_word(out->kernel, sizeof(out->kernel), text, " \t\n");
    if (read_file(root, "/sys/kernel/security/lockdown", text) >= 0 && (at = strchr(text, '[')) != NULL)
        copy_word(out->lockdown, sizeof(out->lockdown), at + 1, "]\n");
    out->seccomp = PCMIG_PROBE_UNKNOWN;
    if (read_file(root, "/proc/self/status", text) >= 0 && (at = strstr(text, "\nSeccomp:")) != NULL) {
        at += strlen("\nSeccomp:");
        (void)pcmig_probe_parse_ints(at, strcspn(at, "\n"), &out->seccomp, 1);
    }
    read_node(out);
    pcmig_uffd_try(out->node_path, &out->self);
    return 0;
}
