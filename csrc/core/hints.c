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

/* Of p2p: not pcmig, whose connection there stands, but the source's daemon. */
#define SOURCE_CONNECTS                                                                                                \
    "it is libvirt at the source that connects to the destination as well, as its own user (root), with that user's "  \
    "keys, known_hosts and certificates on the source host, and asks nobody: as root there, 'virsh -c URI version' "   \
    "with the destination's URI has to work without a question (with qemu+ssh: 'ssh -o BatchMode=yes USER@HOST true')"

#define SSH_PERMISSION                                                                                                 \
    "ssh asks nobody for a password or passphrase here: it needs a key that the other end takes, without a "           \
    "passphrase or in an agent (ssh-copy-id USER@HOST); 'ssh -o BatchMode=yes USER@HOST true' has to work for the "    \
    "user who runs this"

#define SSH_HOST_KEY                                                                                                   \
    "ssh does not know the host's key yet, and asks nobody here: as the user who runs this, type 'ssh HOST' once "     \
    "and compare the key, or put it into known_hosts"

#define SSH_KEY_CHANGED                                                                                                \
    "the host has another key than this user's known_hosts says: if it was installed anew, 'ssh-keygen -R HOST' and "  \
    "then 'ssh HOST' once; if not, somebody else answers for it"

#define SSH_AWAY                                                                                                       \
    "no sshd is reached there: another port goes into the URI (qemu+ssh://HOST:PORT/system) or ssh's own settings, "   \
    "and 'ssh HOST true' shows when it works"

#define LIBVIRT_AWAY                                                                                                   \
    "no libvirt is reached there by this transport: see that its socket is on (virtproxyd-tls.socket or "              \
    "libvirtd-tls.socket for qemu+tls, port 16514; ...-tcp.socket for qemu+tcp, port 16509) and no firewall is in "    \
    "the way; qemu+ssh needs neither"

#define NO_HELPER                                                                                                      \
    "the other end has neither virt-ssh-helper, which comes with libvirt's daemons, nor nc: install one of them, in "  \
    "the path of a command over ssh"

#define NO_DAEMON "no libvirt daemon listens at that socket: 'systemctl start libvirtd' there (or virtqemud.socket)"

#define SSH_CHATS                                                                                                      \
    "what answers there is not libvirt: over ssh, a start-up file of the shell at the other end prints something; "    \
    "'ssh HOST true' must print nothing"

#define TLS_UNVERIFIED                                                                                                 \
    "its certificate has expired, is of another CA than /etc/pki/CA/cacert.pem here, or has not the name that is in "  \
    "the URI, as libvirt says in a line of its own; 'openssl s_client -connect HOST:16514 -CAfile "                    \
    "/etc/pki/CA/cacert.pem -verify_hostname HOST' shows it"

#define TLS_FILES                                                                                                      \
    "qemu+tls needs /etc/pki/CA/cacert.pem, /etc/pki/libvirt/clientcert.pem and private/clientkey.pem there, or the "  \
    "URI a pkipath=FOLDER that has the three"

struct row {
    const char *fragment;
    const char *hint;
};

/* In each table the first row whose fragment is in the message counts. No row names a cause that its fragment does not.
 * Said of a migration, these are of the connection that libvirt at the source makes to the destination's. */
static const struct row connecting[] = {
    {"requested strict checking", SSH_KEY_CHANGED},
    {"IDENTIFICATION HAS CHANGED", SSH_KEY_CHANGED},
    {"Host key verification failed", SSH_HOST_KEY},
    {"Permission denied (", SSH_PERMISSION},
    {"Could not resolve hostname",
     "ssh knows no host of that name: see the URI, /etc/hosts or DNS, or ssh's own settings of the user who runs this"},
    {"ssh: connect to host", SSH_AWAY},
    {"Connection closed by",
     "sshd there ended it before it let anybody in, as it does for a while with a host that was "
     "refused several times (PerSourcePenalties) or has too many waiting (MaxStartups): its log "
     "says which"},
    {"nc: not found", NO_HELPER},
    {"nc: command not found", NO_HELPER},
    {"received from server too large", SSH_CHATS},
    {"-sock': Permission denied", "that user may not use libvirt's socket: root may, and as a rule the group libvirt"},
    {"-sock': No such file", NO_DAEMON},
    {"-sock': Connection refused", NO_DAEMON},
    {":16514'", LIBVIRT_AWAY},
    {":16509'", LIBVIRT_AWAY},
    {"service '16514'", "the name in the URI is not known here: see /etc/hosts and DNS"},
    {"service '16509'", "the name in the URI is not known here: see /etc/hosts and DNS"},
    {"verify peer's certificate", TLS_UNVERIFIED},
    {"ertificate '/etc/pki/", TLS_FILES},
    {"Failed to connect to remote libvirt URI", NULL},
};

/* Said of a migration, these may be of its memory. */
static const struct row own[] = {
    {"unable to connect to server at", LIBVIRT_AWAY},
    {"nable to resolve address", "the name in the URI is not known here: see /etc/hosts and DNS"},
};

static const struct row rows[] = {
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
    {"nable to resolve address", RESOLVE},
    {"unable to connect to server at",
     "the source does not reach that port of the destination: for memory and disks (49152 to 49215, or as "
     "migration_port_min of qemu.conf there has it) its firewall has to let the source in, or name another way with "
     "--migrateuri tcp://ADDRESS"},
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

static const struct row *find(const char *message, const struct row *table, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (strstr(message, table[i].fragment) != NULL)
            return &table[i];
    }
    return NULL;
}

#define FIND(message, table) find(message, table, sizeof(table) / sizeof((table)[0]))

const char *pcmig_hint(const char *message)
{
    const struct row *row = FIND(message, rows);

    if (FIND(message, connecting) != NULL)
        return SOURCE_CONNECTS;
    return row != NULL ? row->hint : NULL;
}

const char *pcmig_hint_connecting(const char *message)
{
    const struct row *row = FIND(message, connecting);

    if (row == NULL)
        row = FIND(message, own);
    if (row == NULL)
        row = FIND(message, rows);
    return row != NULL ? row->hint : NULL;
}
