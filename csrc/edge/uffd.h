/* SPDX-License-Identifier: Apache-2.0 */
/* Can a process get a userfaultfd that QEMU could run post-copy with? Tried for real, also as another user.
 *
 * QEMU's destination needs a descriptor that also handles faults raised inside the kernel (KVM's, vhost's), the ioctls
 * REGISTER and UNREGISTER, and WAKE, COPY and ZEROPAGE on anonymous memory (QEMU migration/postcopy-ram.c). It gets the
 * descriptor from /dev/userfaultfd where it may open it (QEMU >= 8.0, Linux >= 6.1), else from the system call, which
 * needs CAP_SYS_PTRACE or vm.unprivileged_userfaultfd = 1 (Linux >= 5.11, before: >= 5.2 with default 1).
 */
#ifndef PCMIG_EDGE_UFFD_H
#define PCMIG_EDGE_UFFD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define PCMIG_UFFD_GROUPS_MAX 64

enum pcmig_uffd_step {
    PCMIG_UFFD_STEP_OPEN = 0, /* the system call, or opening the node and asking it for a descriptor */
    PCMIG_UFFD_STEP_API,      /* the handshake UFFDIO_API */
    PCMIG_UFFD_STEP_REGISTER, /* registering one page of anonymous memory for missing faults */
    PCMIG_UFFD_STEP_DONE,
};

/* One attempt. `error` is the errno of the step that failed; 0 with PCMIG_UFFD_STEP_DONE. */
struct pcmig_uffd_try {
    enum pcmig_uffd_step step;
    int error;
    uint64_t features;     /* UFFD_FEATURE_* that the kernel offers, after the handshake */
    uint64_t ioctls;       /* bits of _UFFDIO_*, after the handshake */
    uint64_t range_ioctls; /* bits of _UFFDIO_* on anonymous memory, after registering */
};

struct pcmig_uffd_report {
    struct pcmig_uffd_try syscall; /* userfaultfd(2), kernel faults included: what QEMU asks for */
    struct pcmig_uffd_try
        user_only;              /* userfaultfd(2) with UFFD_USER_MODE_ONLY: shows whether the kernel has it at all */
    struct pcmig_uffd_try node; /* /dev/userfaultfd */
};

/* Whom to try as. */
struct pcmig_uffd_identity {
    uid_t uid;
    gid_t gid;
    gid_t groups[PCMIG_UFFD_GROUPS_MAX];
    size_t group_count;
    bool keep_capabilities; /* false: none, as libvirt starts QEMU, root included (clear_emulator_capabilities = 1) */
};

/* Resolves USER as qemu.conf does: a name, else a number, or "+number" for a number only. GROUP likewise, or NULL for
 * the user's own group. The user's supplementary groups come from the system's databases; at most
 * PCMIG_UFFD_GROUPS_MAX are kept. Returns 0, or -1 with a message in ERR that names the user or group. Not
 * async-signal-safe. */
int pcmig_uffd_identify(const char *user, const char *group, struct pcmig_uffd_identity *out, char *err,
                        size_t err_size);

/* Tries every way as the calling process, NODE_PATH being the path of the device node. Never fails as a whole: the
 * answers are in OUT. Leaves nothing open. Async-signal-safe. */
void pcmig_uffd_try(const char *node_path, struct pcmig_uffd_report *out);

/* The same as another user, in a child process; safe in a process with threads, as the child calls nothing but system
 * calls. Waits at most TIMEOUT_MS. Returns 0, or the errno of what went wrong before the attempts: EPERM when this
 * process may not take on the identity (it is not root), ETIMEDOUT, or what fork or pipe said. */
int pcmig_uffd_try_as(const struct pcmig_uffd_identity *who, const char *node_path, int timeout_ms,
                      struct pcmig_uffd_report *out);

#endif
