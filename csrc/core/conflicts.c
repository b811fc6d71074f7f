/* SPDX-License-Identifier: Apache-2.0 */
#include "conflicts.h"

#include <stdio.h>

#define V               PCMIG_FLAGS_VERSION
#define LIVE            PCMIG_FLAG_LIVE
#define PEER2PEER       PCMIG_FLAG_PEER2PEER
#define TUNNELLED       PCMIG_FLAG_TUNNELLED
#define PERSIST_DEST    PCMIG_FLAG_PERSIST_DEST
#define UNDEFINE_SOURCE PCMIG_FLAG_UNDEFINE_SOURCE
#define OFFLINE         PCMIG_FLAG_OFFLINE
#define COMPRESSED      PCMIG_FLAG_COMPRESSED
#define POSTCOPY        PCMIG_FLAG_POSTCOPY
#define PARALLEL        PCMIG_FLAG_PARALLEL
#define ZEROCOPY        PCMIG_FLAG_ZEROCOPY
#define STORAGE         (PCMIG_FLAG_NON_SHARED_DISK | PCMIG_FLAG_NON_SHARED_INC)
#define ERROR           .severity = PCMIG_CONFLICTS_ERROR
#define WARNING         .severity = PCMIG_CONFLICTS_WARNING
#define NOVA            .user = PCMIG_CONFLICTS_NOVA
#define NOT_NOVA        .user = PCMIG_CONFLICTS_NOT_NOVA

/* Sources, of libvirt unless said otherwise (the messages are those of 9.0.0 and 12.8.0):
 *   begin    qemu_migration.c, qemuMigrationSrcBeginPhase and qemuMigrationDstPrepareAny
 *   compat   libvirt-domain.c, virDomainMigrateUnmanagedCheckCompat; each pair of flags was given to 9.0.0's
 *            virDomainMigrateToURI3 to see which ones it refuses
 *   params   qemu_migration_params.c
 *   caps     QEMU, migration/options.c, migrate_caps_check
 *   nova13   Nova 13, virt/libvirt/driver.py, _check_required_migration_flags and _check_block_migration_flags: what it
 *            warned about, added and removed before the option went in 14.0.0
 *   nova     Nova 34, the same file, _prepare_migration_flags and what is named */
static const struct pcmig_conflicts_row rows[] = {
    /* Errors: refused, or harmful. A remedy drops a flag where adding one could conflict with a further one. */
    {.name = "postcopy-tunnelled", /* begin; see nova-postcopy-tunnelled */
     .all = POSTCOPY | TUNNELLED,
     NOT_NOVA,
     ERROR,
     .drop = TUNNELLED,
     .problem = "libvirt refuses post-copy through its own tunnel",
     .remedy = "remove VIR_MIGRATE_TUNNELLED and encrypt with the pcmig tunnel, which carries post-copy (pcmig migrate "
               "--tunnel; [pcmig] tunnel = pcmig in nova.conf), or with VIR_MIGRATE_TLS"},
    {.name = "postcopy-not-live", /* begin */
     .all = POSTCOPY,
     .none = LIVE | OFFLINE,
     ERROR,
     .add = LIVE,
     .problem = "libvirt refuses post-copy of a guest that is paused for the migration",
     .remedy = "add VIR_MIGRATE_LIVE"},
    {.name = "postcopy-paused", /* begin */
     .all = POSTCOPY | PCMIG_FLAG_PAUSED,
     ERROR,
     .drop = PCMIG_FLAG_PAUSED,
     .problem = "libvirt refuses post-copy of a guest that is to stay paused",
     .remedy = "remove VIR_MIGRATE_PAUSED"},
    {.name = "postcopy-offline", /* qemuMigrationSrcPerformPeer2Peer3 skips the perform phase: no memory is moved */
     .all = POSTCOPY | OFFLINE,
     ERROR,
     .drop = OFFLINE,
     .problem = "an offline migration moves the definition and no memory, so there is nothing to switch to post-copy",
     .remedy = "remove VIR_MIGRATE_OFFLINE"},
    {.name = "postcopy-parallel", /* caps, until 10.0: "Postcopy is not yet compatible with multifd" */
     .all = POSTCOPY | PARALLEL,
     ERROR,
     .qemu_before = V(10, 1, 0),
     .drop = PARALLEL,
     .problem = "QEMU before 10.1 cannot send over several connections in a migration with post-copy",
     .remedy = "remove VIR_MIGRATE_PARALLEL, or use QEMU 10.1 or newer on both hosts"},
    {.name = "resume-not-postcopy", /* qemuMigrationAnyCanResume */
     .all = PCMIG_FLAG_POSTCOPY_RESUME,
     .none = POSTCOPY,
     ERROR,
     .add = POSTCOPY,
     .problem = "only a post-copy migration can be resumed",
     .remedy = "add VIR_MIGRATE_POSTCOPY"},
    {.name = "tunnelled-not-peer2peer", /* libvirt-domain.c, virDomainMigrate3 */
     .all = TUNNELLED,
     .none = PEER2PEER,
     ERROR,
     .add = PEER2PEER,
     .problem = "libvirt's tunnel exists only between two libvirts",
     .remedy = "add VIR_MIGRATE_PEER2PEER"},
    {.name = "tunnelled-parallel", /* compat */
     .all = TUNNELLED | PARALLEL,
     ERROR,
     .drop = TUNNELLED,
     .problem = "libvirt's tunnel is one connection",
     .remedy = "remove VIR_MIGRATE_TUNNELLED (VIR_MIGRATE_TLS encrypts parallel connections) or VIR_MIGRATE_PARALLEL"},
    {.name = "tunnelled-storage", /* begin */
     .all = TUNNELLED,
     .any = STORAGE,
     ERROR,
     .drop = TUNNELLED,
     .problem = "libvirt's tunnel cannot carry disks",
     .remedy = "remove VIR_MIGRATE_TUNNELLED (VIR_MIGRATE_TLS encrypts disks too)"},
    {.name = "tunnelled-offline", /* begin */
     .all = TUNNELLED | OFFLINE,
     ERROR,
     .drop = TUNNELLED,
     .problem = "an offline migration sends nothing that could be tunnelled",
     .remedy = "remove VIR_MIGRATE_TUNNELLED"},
    {.name = "zerocopy-not-parallel", /* begin */
     .all = ZEROCOPY,
     .none = PARALLEL,
     ERROR,
     .drop = ZEROCOPY,
     .problem = "zero-copy exists only with parallel connections",
     .remedy = "add VIR_MIGRATE_PARALLEL or remove VIR_MIGRATE_ZEROCOPY"},
    {.name = "zerocopy-tls", /* caps: "Zero copy only available for non-compressed non-TLS multifd migration" */
     .all = ZEROCOPY | PCMIG_FLAG_TLS,
     ERROR,
     .drop = ZEROCOPY,
     .problem = "QEMU has to copy what it encrypts",
     .remedy = "remove VIR_MIGRATE_ZEROCOPY or VIR_MIGRATE_TLS"},
    {.name = "zerocopy-compressed", /* caps, as above */
     .all = ZEROCOPY | COMPRESSED,
     ERROR,
     .drop = COMPRESSED,
     .problem = "QEMU has to copy what it compresses",
     .remedy = "remove VIR_MIGRATE_COMPRESSED or VIR_MIGRATE_ZEROCOPY"},
    {.name =
         "parallel-compressed", /* params: "No compression algorithm selected for parallel migration"; before: caps */
     .all = PARALLEL | COMPRESSED,
     ERROR,
     .drop = COMPRESSED,
     .problem = "the compression that this flag alone stands for (XBZRLE) does not work with parallel connections",
     .remedy = "remove VIR_MIGRATE_COMPRESSED or VIR_MIGRATE_PARALLEL"},
    {.name = "storage-twice", /* compat */
     .all = STORAGE,
     ERROR,
     .drop = PCMIG_FLAG_NON_SHARED_DISK,
     .problem = "disks are copied either whole or as their top layer",
     .remedy = "remove VIR_MIGRATE_NON_SHARED_DISK or VIR_MIGRATE_NON_SHARED_INC"},
    {.name = "synchronous-not-storage", /* compat */
     .all = PCMIG_FLAG_NON_SHARED_SYNCHRONOUS_WRITES,
     .none = STORAGE,
     ERROR,
     .drop = PCMIG_FLAG_NON_SHARED_SYNCHRONOUS_WRITES,
     .problem = "no disk is copied whose writes could be synchronous",
     .remedy = "add VIR_MIGRATE_NON_SHARED_DISK or VIR_MIGRATE_NON_SHARED_INC, or remove "
               "VIR_MIGRATE_NON_SHARED_SYNCHRONOUS_WRITES"},
    {.name = "offline-not-persistent", /* begin */
     .all = OFFLINE,
     .none = PERSIST_DEST,
     ERROR,
     .add = PERSIST_DEST,
     .problem = "an offline migration has to define the guest on the destination",
     .remedy = "add VIR_MIGRATE_PERSIST_DEST"},
    {.name = "offline-storage", /* begin */
     .all = OFFLINE,
     .any = STORAGE,
     ERROR,
     .drop = STORAGE,
     .problem = "an offline migration copies no disks",
     .remedy = "remove VIR_MIGRATE_NON_SHARED_DISK and VIR_MIGRATE_NON_SHARED_INC"},
    {.name = "nova-offline", /* as postcopy-offline: Nova would record a guest on a host that it never moved to */
     .all = OFFLINE,
     NOVA,
     ERROR,
     .drop = OFFLINE,
     .problem = "the guest would stay on the source while Nova believes that it has moved",
     .remedy = "remove VIR_MIGRATE_OFFLINE"},
    {.name = "nova-paused", /* nova: compute/manager.py only logs "Instance is paused unexpectedly. Ignore." */
     .all = PCMIG_FLAG_PAUSED,
     NOVA,
     ERROR,
     .drop = PCMIG_FLAG_PAUSED,
     .problem = "the guest would arrive paused, and Nova does not resume it",
     .remedy = "remove VIR_MIGRATE_PAUSED"},
    {.name = "nova-resume", /* qemuMigrationAnyCanResume refuses it for a guest that is not in post-copy */
     .all = PCMIG_FLAG_POSTCOPY_RESUME,
     NOVA,
     ERROR,
     .drop = PCMIG_FLAG_POSTCOPY_RESUME,
     .problem = "the flag is for the one call that resumes a broken migration; every new migration would be refused",
     .remedy = "remove VIR_MIGRATE_POSTCOPY_RESUME"},
    {.name = "nova-tunnelled-tls", /* nova: init_host refuses live_migration_tunnelled with
                                      live_migration_with_native_tls */
     .all = TUNNELLED | PCMIG_FLAG_TLS,
     NOVA,
     ERROR,
     .drop = TUNNELLED,
     .problem = "Nova refuses libvirt's tunnel together with QEMU's TLS",
     .remedy = "remove VIR_MIGRATE_TUNNELLED"},

    /* Warnings. */
    {.name = "nova-postcopy-tunnelled", /* pcmig/nova/flags.py; with [pcmig] tunnel = none it is an error there */
     .all = POSTCOPY | TUNNELLED,
     NOVA,
     WARNING,
     .drop = TUNNELLED,
     .problem = "libvirt's own tunnel refuses post-copy, so that pcmig's driver takes the flag for pcmig's tunnel",
     .remedy = "set [pcmig] tunnel = pcmig instead, and run 'pcmig tunnel' on every host"},
    {.name = "tunnelled-tls", /* libvirt checks nothing here; see nova-tunnelled-tls */
     .all = TUNNELLED | PCMIG_FLAG_TLS,
     NOT_NOVA,
     WARNING,
     .drop = TUNNELLED,
     .problem = "libvirt's tunnel and QEMU's TLS are two ways to the same end",
     .remedy = "remove VIR_MIGRATE_TUNNELLED"},
    {.name = "postcopy-auto-converge", /* Nova, _handle_live_migration_auto_converge, leaves it out too */
     .all = POSTCOPY | PCMIG_FLAG_AUTO_CONVERGE,
     WARNING,
     .drop = PCMIG_FLAG_AUTO_CONVERGE,
     .problem = "auto-converge slows the guest down for a convergence that post-copy does not need",
     .remedy = "remove VIR_MIGRATE_AUTO_CONVERGE"},
    {.name = "postcopy-compressed", /* QEMU, migration/ram.c, ram_save_page: XBZRLE only while not in post-copy */
     .all = POSTCOPY | COMPRESSED,
     WARNING,
     .drop = COMPRESSED,
     .problem = "QEMU compresses (XBZRLE) only pages that pre-copy sends again, nothing after the switch",
     .remedy = "remove VIR_MIGRATE_COMPRESSED"},
    {.name = "resume-libvirt-11.2", /* NEWS of 11.4.0; 11.3.0 did 4 of 4 times, 9.0.0 and 12.8.0 do not */
     .all = PCMIG_FLAG_POSTCOPY_RESUME,
     WARNING,
     .libvirt_from = V(11, 2, 0),
     .libvirt_before = V(11, 4, 0),
     .problem = "libvirt 11.2 and 11.3 crash on the destination when a migration is resumed",
     .remedy = "use another libvirt before you rely on resuming"},
    {.name = "offline-live", /* qemuMigrationSrcPerformPeer2Peer3, as above */
     .all = OFFLINE | LIVE,
     .none = POSTCOPY,
     NOT_NOVA,
     WARNING,
     .drop = LIVE,
     .problem = "an offline migration moves the definition only: the guest stays where it is, so nothing is live",
     .remedy = "remove VIR_MIGRATE_OFFLINE to move the guest, or VIR_MIGRATE_LIVE"},
    {.name = "not-live", /* qemuMigrationSrcRun stops the CPUs first */
     .none = LIVE | OFFLINE | POSTCOPY,
     NOT_NOVA,
     WARNING,
     .add = LIVE,
     .problem = "the guest is paused for the whole migration",
     .remedy = "add VIR_MIGRATE_LIVE"},
    {.name = "undefine-not-persist", /* libvirt-domain.h on both flags */
     .all = UNDEFINE_SOURCE,
     .none = PERSIST_DEST,
     NOT_NOVA,
     WARNING,
     .add = PERSIST_DEST,
     .problem = "no host keeps the guest's definition: it is gone once the guest stops",
     .remedy = "add VIR_MIGRATE_PERSIST_DEST"},
    {.name = "persist-not-undefine", /* libvirt-domain.h on PERSIST_DEST */
     .all = PERSIST_DEST,
     .none = UNDEFINE_SOURCE | OFFLINE,
     NOT_NOVA,
     WARNING,
     .add = UNDEFINE_SOURCE,
     .problem = "both hosts end up with the guest's definition, so it can be started twice",
     .remedy = "add VIR_MIGRATE_UNDEFINE_SOURCE"},
    {.name =
         "rdma-tunnelled", /* libvirt-domain.h on RDMA_PIN_ALL: only with an rdma:// migrate URI; a tunnel has none */
     .all = PCMIG_FLAG_RDMA_PIN_ALL | TUNNELLED,
     WARNING,
     .drop = PCMIG_FLAG_RDMA_PIN_ALL,
     .problem = "libvirt's tunnel does not use RDMA, so there is no memory to pin",
     .remedy = "remove VIR_MIGRATE_RDMA_PIN_ALL"},
    {.name = "nova-rdma", /* nova: _migrate_uri knows tcp:// alone */
     .all = PCMIG_FLAG_RDMA_PIN_ALL,
     .none = TUNNELLED,
     NOVA,
     WARNING,
     .drop = PCMIG_FLAG_RDMA_PIN_ALL,
     .problem = "Nova migrates over tcp, where there is no memory to pin",
     .remedy = "remove VIR_MIGRATE_RDMA_PIN_ALL"},
    {.name = "nova-storage", /* nova13 removed NON_SHARED_INC with a warning; nova sets it for block migrations */
     .any = STORAGE,
     NOVA,
     WARNING,
     .drop = STORAGE | PCMIG_FLAG_NON_SHARED_SYNCHRONOUS_WRITES,
     .problem = "every live migration would copy disks; Nova decides that for each instance",
     .remedy = "remove VIR_MIGRATE_NON_SHARED_DISK, VIR_MIGRATE_NON_SHARED_INC and what goes with them"},
};

#define ROWS_COUNT (sizeof(rows) / sizeof(rows[0]))

_Static_assert(ROWS_COUNT + PCMIG_FLAGS_COUNT + 1 <= PCMIG_CONFLICTS_MAX,
               "room for every rule, new flag and unknown bit");

const struct pcmig_conflicts_row *pcmig_conflicts_row(size_t index)
{
    return index < ROWS_COUNT ? &rows[index] : NULL;
}

static bool concerns(const struct pcmig_conflicts_row *row, uint32_t bits,
                     const struct pcmig_conflicts_context *context)
{
    const uint32_t libvirt = context->libvirt_version;

    if ((bits & row->all) != row->all || (row->any != 0 && (bits & row->any) == 0) || (bits & row->none) != 0)
        return false;
    if (row->user != PCMIG_CONFLICTS_ANYONE && (row->user == PCMIG_CONFLICTS_NOVA) != context->nova)
        return false;
    if (row->qemu_before != 0 && context->qemu_version >= row->qemu_before)
        return false;
    return row->libvirt_before == 0 || (libvirt >= row->libvirt_from && libvirt < row->libvirt_before);
}

static size_t check_rows(uint32_t bits, const struct pcmig_conflicts_context *context,
                         enum pcmig_conflicts_severity severity, struct pcmig_conflicts_finding *found)
{
    size_t n = 0;

    for (size_t i = 0; i < ROWS_COUNT; i++) {
        const struct pcmig_conflicts_row *row = &rows[i];
        const bool uncertain = row->qemu_before != 0 && context->qemu_version == 0;

        if ((uncertain ? PCMIG_CONFLICTS_WARNING : row->severity) != severity || !concerns(row, bits, context))
            continue;
        found[n++] = (struct pcmig_conflicts_finding){
            .severity = severity,
            .bits = (bits & (row->all | row->any)) | (row->add != 0 ? row->add : row->none),
            .uncertain = uncertain,
            .row = row,
        };
    }
    return n;
}

/* Flags that the hosts' libvirt does not have yet: it answers them with "unsupported flags (0x...)". */
static size_t check_versions(uint32_t bits, const struct pcmig_conflicts_context *context,
                             struct pcmig_conflicts_finding *found)
{
    size_t n = 0;

    for (size_t i = 0; i < PCMIG_FLAGS_COUNT; i++) {
        const struct pcmig_flags_row *row = pcmig_flags_row(i);

        if ((bits & row->bit) && context->libvirt_version != 0 && context->libvirt_version < row->since)
            found[n++] = (struct pcmig_conflicts_finding){
                .severity = PCMIG_CONFLICTS_ERROR, .bits = row->bit, .since = row->since};
    }
    return n;
}

size_t pcmig_conflicts_check(uint32_t bits, const struct pcmig_conflicts_context *context,
                             struct pcmig_conflicts_finding *found)
{
    size_t n = 0;

    if (bits & ~PCMIG_FLAGS_ALL)
        found[n++] =
            (struct pcmig_conflicts_finding){.severity = PCMIG_CONFLICTS_ERROR, .bits = bits & ~PCMIG_FLAGS_ALL};
    n += check_versions(bits, context, found + n);
    n += check_rows(bits, context, PCMIG_CONFLICTS_ERROR, found + n);
    n += check_rows(bits, context, PCMIG_CONFLICTS_WARNING, found + n);
    return n;
}

uint32_t pcmig_conflicts_resolve(uint32_t bits, const struct pcmig_conflicts_context *context)
{
    struct pcmig_conflicts_finding found[PCMIG_CONFLICTS_MAX];

    /* One remedy at a time, the first that changes something, as it may make others pointless. The tests go through all
     * sets of flags: far fewer rounds are needed than there are findings. */
    for (unsigned round = 0; round < PCMIG_CONFLICTS_MAX; round++) {
        const size_t n = pcmig_conflicts_check(bits, context, found);
        const uint32_t before = bits;

        for (size_t i = 0; i < n && bits == before; i++) {
            if (found[i].uncertain)
                continue;
            if (found[i].row == NULL)
                bits &= ~found[i].bits;
            else
                bits = (bits & ~found[i].row->drop) | found[i].row->add;
        }
        if (bits == before)
            break;
    }
    return bits;
}

int pcmig_conflicts_describe(const struct pcmig_conflicts_finding *finding,
                             const struct pcmig_conflicts_context *context, char *buf, size_t size)
{
    const uint32_t has = context->libvirt_version;
    char names[96];

    if (finding->row != NULL)
        return snprintf(buf, size, "%s%s; %s", finding->row->problem,
                        finding->uncertain ? " (the version of QEMU is not known here)" : "", finding->row->remedy);
    (void)pcmig_flags_render(finding->bits, names, sizeof(names));
    if (finding->since == 0)
        return snprintf(buf, size, "%s is no migration flag of libvirt; remove it", names);
    return snprintf(buf, size, "%s came with libvirt %u.%u.%u, and this is %u.%u.%u; remove it, or upgrade both hosts",
                    names, finding->since / 1000000, finding->since / 1000 % 1000, finding->since % 1000, has / 1000000,
                    has / 1000 % 1000, has % 1000);
}
