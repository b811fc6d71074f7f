/* SPDX-License-Identifier: Apache-2.0 */
/* See hints.h. Texts: QEMU 7.2 to 11.1 (migration/postcopy-ram.c, migration/options.c), libvirt 9.0 to 12.8
 * (src/conf/virdomainobjlist.c, src/qemu/qemu_migration.c, src/rpc/virnetsocket.c). */
#include "core/hints.h"

#include <stddef.h>
#include <string.h>

#define USERFAULTFD                                                                                                    \
    "the kernel denies userfaultfd to QEMU's user at the destination: there, let that user read and write "            \
    "/dev/userfaultfd, or set the sysctl vm.unprivileged_userfaultfd=1 (pcmig check on that host tells more)"

#define CLOSED                                                                                                         \
    "a libvirt daemon closed a connection: it ended or was restarted, takes no more clients (max_clients), or the "    \
    "network between failed"

#define RESOLVE                                                                                                        \
    "the source cannot resolve that name: if it is the one that the destination gives itself, give --migrateuri "      \
    "tcp://ADDRESS"

/* The first row whose fragment is in the message counts. No row names a cause that its fragment does not. */
static const struct {
    const char *fragment;
    const char *hint;
} rows[] = {
    {"Userfaultfd not available: Function not implemented",
     "the kernel of the destination is built without userfaultfd"},
    {"Userfaultfd not available", USERFAULTFD},
    {"need to be TMPFS or HUGETLBFS", "the guest's memory is a file on another file system at the destination: put "
                                      "memory_backing_dir of qemu.conf there "
                                      "on /dev/shm, or give the guest <source type='memfd'/>"},
    {"ostcopy is not supported: ",
     NULL}, /* QEMU from 8.1 on says why, and what there is no row for speaks for itself */
    {"ostcopy is not supported",
     "this QEMU keeps the reason for the guest's log at the destination, in /var/log/libvirt/qemu; pcmig check on that "
     "host tells whether it is userfaultfd"},
    /* With text of ssh or its remote command in between, that is the reason. */
    {"End of file while reading data: Input/output error", CLOSED},
    {"client socket is closed", CLOSED},
    {"QEMU reports migration is still running",
     "the destination's QEMU does not wait to be resumed: it has not noticed yet that the stream is dead ('pcmig wake' "
     "on "
     "the destination host has it notice), or a connection that brought nothing, a port scan's for instance, has ended "
     "its wait for good"},
    {"already exists with uuid", "another guest has this name there: rename or undefine that one, or give --dname"},
    {"unable to resolve address", RESOLVE},
    {"address resolution failed", RESOLVE},
    {" snapshots", "libvirt moves no snapshots: remove what it knows of them, the disk keeps its own (virsh "
                   "snapshot-delete GUEST NAME "
                   "--metadata)"},
    {"unable to map backing store for guest RAM",
     "where this is memory of huge pages, the destination has too few free: see /sys/kernel/mm/hugepages there"},
    {"Unable to access credentials", "QEMU's own TLS needs its certificates at that path on both hosts; libvirt asks "
                                     "the destination first, then the source"},
    {"Cannot assign requested address", "the destination has no such address: see --listen-address, or leave it out"},
    {"Unsafe migration", "libvirt takes the disks for not shared, or cached by the host: --copy-storage-all copies "
                         "them, --unsafe is for who knows "
                         "that both hosts see the same"},
    {"Address already in use",
     "something at the destination has that port: give another one, or end what listens there"},
    {"cannot acquire state change lock", "another job or call of libvirt holds the guest (virsh domjobinfo GUEST tells "
                                         "of jobs): try again when it has ended"},
    {"Unable to parse URI tcp:", "an IPv6 address stands in brackets: tcp://[ADDRESS]"},
    {"Cannot get interface MTU on", "it is the destination that has no such network device"},
    {"Cannot access storage file",
     "it is the destination that cannot: have the file there, eject it, or give its <source> startupPolicy='optional' "
     "if the guest can do without"},
};

const char *pcmig_hint(const char *message)
{
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (strstr(message, rows[i].fragment) != NULL)
            return rows[i].hint;
    }
    return NULL;
}
