/* SPDX-License-Identifier: Apache-2.0 */
/* What a migration leaves of a guest's definition. See virt.h. */
#include "edge/virt_internal.h"

#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>

#if LIBVIR_VERSION_NUMBER >= 8009000
#define KEEP_TPM VIR_DOMAIN_UNDEFINE_KEEP_TPM
#else
#define KEEP_TPM (1U << 6)
#endif
#define KEEP_TPM_SINCE 8009000 /* of the daemon */

static virDomainPtr find(struct pcmig_virt_conn *conn, const char *uuid)
{
    virDomainPtr domain = virDomainLookupByUUIDString(conn->ptr, uuid);

    if (domain == NULL)
        virResetLastError();
    return domain;
}

static bool is_left_over(virDomainPtr domain)
{
    int state, reason;

    return virDomainIsActive(domain) == 0 && virDomainGetState(domain, &state, &reason, 0) == 0 &&
           state == VIR_DOMAIN_SHUTOFF && reason == VIR_DOMAIN_SHUTOFF_MIGRATED;
}

int pcmig_virt_defined(struct pcmig_virt_conn *conn, const char *uuid)
{
    virDomainPtr domain = find(conn, uuid);
    int defined = domain != NULL ? virDomainIsPersistent(domain) : -1;

    if (domain != NULL)
        virDomainFree(domain);
    return defined;
}

bool pcmig_virt_saved(struct pcmig_virt_conn *conn, const char *uuid)
{
    virDomainPtr domain = find(conn, uuid);
    bool saved = domain != NULL && virDomainHasManagedSaveImage(domain, 0) == 1;

    if (domain != NULL)
        virDomainFree(domain);
    return saved;
}

int pcmig_virt_autostart(struct pcmig_virt_conn *conn, const char *uuid, struct pcmig_virt_error *error)
{
    virDomainPtr domain = virDomainLookupByUUIDString(conn->ptr, uuid);
    int on = -1;

    if (domain == NULL || virDomainGetAutostart(domain, &on) < 0) {
        pcmig_virt_error_take(error);
        on = -1;
    }
    if (domain != NULL)
        virDomainFree(domain);
    return on;
}

int pcmig_virt_set_autostart(struct pcmig_virt_conn *conn, const char *uuid, bool on, struct pcmig_virt_error *error)
{
    virDomainPtr domain = virDomainLookupByUUIDString(conn->ptr, uuid);
    int result = domain != NULL ? virDomainSetAutostart(domain, on) : -1;

    if (result < 0)
        pcmig_virt_error_take(error);
    if (domain != NULL)
        virDomainFree(domain);
    return result;
}

/* Whether libvirt would refuse to undefine it: it does with a saved state, and with what it knows of snapshots and
 * checkpoints. A guest that was defined only to be undefined would then be left with a definition, which anybody can
 * start. */
static bool has_keepsakes(virDomainPtr domain)
{
    return virDomainHasManagedSaveImage(domain, 0) != 0 || virDomainSnapshotNum(domain, 0) != 0 ||
           virDomainListAllCheckpoints(domain, NULL, 0) > 0; /* a driver that has none says -1 */
}

/* libvirt removes only what has a definition. */
static int define(virDomainPtr domain)
{
    char *xml = virDomainGetXMLDesc(domain, VIR_DOMAIN_XML_INACTIVE | VIR_DOMAIN_XML_SECURE);
    virDomainPtr defined = xml != NULL && is_left_over(domain) && !has_keepsakes(domain)
                               ? virDomainDefineXML(virDomainGetConnect(domain), xml)
                               : NULL;

    free(xml);
    if (defined == NULL)
        return -1;
    virDomainFree(defined);
    return 0;
}

/* What is kept may lie on storage that the other host uses now; a daemon that cannot keep all of it is not asked. */
static int forget(virDomainPtr domain, bool defined)
{
    unsigned long version;

    if (virConnectGetLibVersion(virDomainGetConnect(domain), &version) < 0 || version < KEEP_TPM_SINCE ||
        virDomainIsPersistent(domain) != (defined ? 1 : 0) || (!defined && define(domain) < 0) || !is_left_over(domain))
        return -1;
    return virDomainUndefineFlags(domain, VIR_DOMAIN_UNDEFINE_KEEP_NVRAM | KEEP_TPM);
}

bool pcmig_virt_forget(struct pcmig_virt_conn *conn, const char *uuid, bool defined)
{
    virDomainPtr domain = find(conn, uuid);
    bool forgotten = domain != NULL && forget(domain, defined) == 0;

    if (domain != NULL)
        virDomainFree(domain);
    return forgotten;
}
