/* SPDX-License-Identifier: Apache-2.0 */
/* What /proc tells of a guest's QEMU on this host. Who QEMU is, everybody may read; which sockets it holds, only its
 * user with CAP_SYS_PTRACE, or root; in which cgroup it runs, again everybody. */
#ifndef PCMIG_EDGE_QEMU_PROCESS_H
#define PCMIG_EDGE_QEMU_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* More than one only where several hosts of a test share a process namespace. */
#define PCMIG_QEMU_PIDS_MAX 8

struct pcmig_qemu_process {
    size_t pid_count; /* 0 = not on this host, or its processes cannot be seen from here */
    char pids[PCMIG_QEMU_PIDS_MAX][24];
    uint64_t cgroup; /* of cgroup v2, if libvirt gave this guest one of its own (machine-qemu-1-NAME.scope); 0 = none */
};

/* The process that was started with "-uuid UUID", as libvirt does. */
void pcmig_qemu_process_find(const char *uuid, struct pcmig_qemu_process *out);

/* The inodes of its sockets, in rising order; *INODES is to be freed. Returns 0, or -1 when that is not to be had. */
int pcmig_qemu_process_sockets(const struct pcmig_qemu_process *process, uint64_t **inodes, size_t *count);

#endif
