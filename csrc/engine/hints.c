/* See hints.h. Texts: QEMU 7.2 to 11.1 (migration/postcopy-ram.c, migration/options.c), libvirt 9.0 to 12.8
 * (src/conf/virdomainobjlist.c, src/qemu/qemu_migration.c, src/rpc/virnetsocket.c). */
#include "engine/hints.h"

#include <stddef.h>
#include <string.h>

#define USERFAULTFD                                                                                                    \
    "the kernel denies userfaultfd to QEMU's user at the destination: there, let that user read and write "            \
    "/dev/userfaultfd, or set the sysctl vm.unprivileged_userfaultfd=1 (pcmig check on that host tells more)"

#define BROKEN "a connection between libvirt daemons broke: one of them ended or was restarted, or the network failed"

static const struct {
    const char *fragment;
    const char *hint;
} rows[] = {
    {"Userfaultfd not available", USERFAULTFD},
    {"ostcopy is not supported", USERFAULTFD},
    {"End of file while reading data", BROKEN},
    {"client socket is closed", BROKEN},
    {"QEMU reports migration is still running",
     "the destination's QEMU does not wait to be resumed: it has not noticed yet that the stream is dead, or a "
     "connection that "
     "brought nothing, a port scan's for instance, has ended its wait for good"},
    {"already exists with uuid", "another guest has this name there: rename or undefine that one, or give --dname"},
    {"unable to resolve address",
     "the source cannot resolve the name that the destination gives itself: give --migrateuri tcp://ADDRESS"},
    {"address resolution failed",
     "the source cannot resolve the name that the destination gives itself: give --migrateuri tcp://ADDRESS"},
};

const char *pcmig_hint(const char *message)
{
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (strstr(message, rows[i].fragment) != NULL)
            return rows[i].hint;
    }
    return NULL;
}
