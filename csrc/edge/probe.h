/* SPDX-License-Identifier: Apache-2.0 */
/* Facts of this host that post-copy depends on, read from /proc, /sys and /dev. No libvirt.
 *
 * Paths start at a root folder, so that the reading can be tested on a made-up tree; what the kernel answers to a
 * system call is always this host's.
 */
#ifndef PCMIG_EDGE_PROBE_H
#define PCMIG_EDGE_PROBE_H

#include "uffd.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PCMIG_PROBE_UNKNOWN (-1)

/* Numbers that could not be read are PCMIG_PROBE_UNKNOWN, texts "". */
struct pcmig_probe {
    char kernel[65];         /* /proc/sys/kernel/osrelease */
    char lockdown[32];       /* /sys/kernel/security/lockdown: "none", "integrity", "confidentiality" */
    int64_t seccomp;         /* /proc/self/status: 0 none, 1 strict, 2 filter (of the reading process) */
    int64_t page_size_bytes; /* of this machine */

    int64_t unprivileged_userfaultfd; /* vm.unprivileged_userfaultfd; absent before Linux 5.2 */
    int64_t max_map_count;            /* vm.max_map_count */
    int64_t tcp_retries2;             /* net.ipv4.tcp_retries2 */
    int64_t tcp_wmem_bytes[3];        /* net.ipv4.tcp_wmem: min, default, max */
    int64_t tcp_rmem_bytes[3];        /* net.ipv4.tcp_rmem */

    struct {
        bool exists;
        bool is_device; /* a character device */
        uint32_t mode;  /* permission bits */
        uint32_t uid, gid;
        uint32_t major, minor;
    } node; /* /dev/userfaultfd */

    char node_path[4096];
    struct pcmig_uffd_report self; /* tried as the calling process */
};

/* Reads everything, ROOT ("" or "/" for the real one) before each path. Returns 0, or -1 when ROOT is too long. */
int pcmig_probe_read(const char *root, struct pcmig_probe *out);

/* The up to COUNT integers, separated by blanks, that TEXT (LEN bytes, as in a file of /proc/sys) consists of. Returns
 * how many there are, or -1 when there is anything else, more than COUNT, or a number beyond 64 bits; OUT is unchanged
 * then. */
int pcmig_probe_parse_ints(const char *text, size_t len, int64_t *out, size_t count);

#endif
