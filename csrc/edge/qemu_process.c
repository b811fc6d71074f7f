/* SPDX-License-Identifier: Apache-2.0 */
/* See qemu_process.h. */
#include "edge/qemu_process.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Reads the start of /proc/PID/NAME as a string. Returns its length, or -1. */
static ssize_t read_proc(const char *pid, const char *name, char *buf, size_t size)
{
    char path[64];
    ssize_t n;
    int fd;

    snprintf(path, sizeof(path), "/proc/%.20s/%.20s", pid, name);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    n = read(fd, buf, size - 1);
    close(fd);
    if (n >= 0)
        buf[n] = '\0';
    return n;
}

static bool runs_guest(const char *pid, const char *uuid)
{
    char buf[16384];
    ssize_t n = read_proc(pid, "cmdline", buf, sizeof(buf));
    size_t uuid_len = strlen(uuid);

    if (n <= 0)
        return false;
    for (char *arg = buf; arg < buf + n; arg += strnlen(arg, (size_t)(buf + n - arg)) + 1) {
        char *value = arg + sizeof("-uuid");

        if ((size_t)(buf + n - arg) > sizeof("-uuid") + uuid_len && memcmp(arg, "-uuid", sizeof("-uuid")) == 0)
            return memcmp(value, uuid, uuid_len) == 0;
    }
    return false;
}

/* Whether libvirt made this cgroup for one guest alone:
 * "/machine.slice/machine-qemu\x2d1\x2dNAME.scope/libvirt/emulator" with systemd,
 * "/machine/qemu-1-NAME.libvirt-qemu/emulator" without (libvirt.org/cgroups.html). Elsewhere
 * guests share libvirtd's. */
static bool is_of_one_guest(const char *path)
{
    const char *scope = strstr(path, "/machine-qemu");

    return (scope != NULL && strstr(scope, ".scope") != NULL) || strstr(path, ".libvirt-qemu") != NULL;
}

/* A cgroup's number is its folder's inode number (cgroup v2, 64 bit). */
static uint64_t cgroup_of(const char *pid)
{
    static const char *const roots[] = {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"};
    char buf[4096], path[4200];
    char *own;
    struct stat st;

    if (read_proc(pid, "cgroup", buf, sizeof(buf)) <= 0)
        return 0;
    own = strncmp(buf, "0::", 3) == 0 ? buf : strstr(buf, "\n0::");
    if (own == NULL)
        return 0;
    own = strchr(own, '/');
    if (own == NULL)
        return 0;
    own[strcspn(own, "\n")] = '\0';
    if (!is_of_one_guest(own))
        return 0;
    for (size_t i = 0; i < sizeof(roots) / sizeof(roots[0]); i++) {
        snprintf(path, sizeof(path), "%s%s", roots[i], own);
        if (stat(path, &st) == 0)
            return (uint64_t)st.st_ino;
    }
    return 0;
}

void pcmig_qemu_process_find(const char *uuid, struct pcmig_qemu_process *out)
{
    DIR *proc = opendir("/proc");
    struct dirent *entry;

    memset(out, 0, sizeof(*out));
    if (proc == NULL)
        return;
    while ((entry = readdir(proc)) != NULL && out->pid_count < PCMIG_QEMU_PIDS_MAX) {
        if (isdigit((unsigned char)entry->d_name[0]) && runs_guest(entry->d_name, uuid))
            snprintf(out->pids[out->pid_count++], sizeof(out->pids[0]), "%.20s", entry->d_name);
    }
    closedir(proc);
    if (out->pid_count == 1)
        out->cgroup = cgroup_of(out->pids[0]);
}

struct inodes {
    uint64_t *list;
    size_t count;
    size_t capacity;
};

static int append(struct inodes *inodes, uint64_t inode)
{
    if (inodes->count == inodes->capacity) {
        size_t capacity = inodes->capacity == 0 ? 64 : inodes->capacity * 2;
        uint64_t *list = realloc(inodes->list, capacity * sizeof(*list));

        if (list == NULL)
            return -1;
        inodes->list = list;
        inodes->capacity = capacity;
    }
    inodes->list[inodes->count++] = inode;
    return 0;
}

/* Returns 0, 1 when this process does not let us, -1 without memory. */
static int read_sockets(const char *pid, struct inodes *inodes)
{
    char path[64];
    struct dirent *entry;
    int status = 0;
    DIR *dir;

    snprintf(path, sizeof(path), "/proc/%.20s/fd", pid);
    dir = opendir(path);
    if (dir == NULL)
        return 1;
    while (status == 0 && (entry = readdir(dir)) != NULL) {
        char target[64];
        ssize_t n = readlinkat(dirfd(dir), entry->d_name, target, sizeof(target) - 1);
        unsigned long long inode;

        if (n <= 0)
            continue;
        target[n] = '\0';
        if (sscanf(target, "socket:[%llu]", &inode) == 1)
            status = append(inodes, inode);
    }
    closedir(dir);
    return status;
}

static int by_number(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

int pcmig_qemu_process_sockets(const struct pcmig_qemu_process *process, uint64_t **inodes, size_t *count)
{
    struct inodes found = {0};
    bool readable = false;

    for (size_t i = 0; i < process->pid_count; i++) {
        int status = read_sockets(process->pids[i], &found);

        if (status < 0) {
            free(found.list);
            return -1;
        }
        readable = readable || status == 0;
    }
    if (!readable)
        return -1;
    if (found.count > 0)
        qsort(found.list, found.count, sizeof(*found.list), by_number);
    *inodes = found.list;
    *count = found.count;
    return 0;
}
