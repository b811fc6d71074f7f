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

static virDomainPtr find(struct pcmig_virt_conn *conn, const char *uuid)
{
    virDomainPtr domain = virDomainLookupByUUIDString(conn->ptr, uuid);

    if (domain == NULL)
        virResetLastError();
    return domain;
}

bool pcmig_virt_left_over(struct pcmig_virt_conn *conn, const char *uuid)
{
    virDomainPtr domain = find(conn, uuid);
    int state, reason;
    bool left_over;

    if (domain == NULL)
        return false;
    left_over = virDomainIsActive(domain) == 0 && virDomainGetState(domain, &state, &reason, 0) == 0 &&
                state == VIR_DOMAIN_SHUTOFF && reason == VIR_DOMAIN_SHUTOFF_MIGRATED;
    virDomainFree(domain);
    return left_over;
}

bool pcmig_virt_is_defined(struct pcmig_virt_conn *conn, const char *uuid)
{
    virDomainPtr domain = find(conn, uuid);
    bool defined = domain != NULL && virDomainIsPersistent(domain) == 1;

    if (domain != NULL)
        virDomainFree(domain);
    return defined;
}

/* libvirt removes only what has a definition. */
static int define(virDomainPtr domain)
{
    char *xml = virDomainGetXMLDesc(domain, VIR_DOMAIN_XML_INACTIVE | VIR_DOMAIN_XML_SECURE);
    virDomainPtr defined = xml != NULL ? virDomainDefineXML(virDomainGetConnect(domain), xml) : NULL;

    free(xml);
    if (defined == NULL)
        return -1;
    virDomainFree(defined);
    return 0;
}

int pcmig_virt_undefine(struct pcmig_virt_conn *conn, const char *uuid, struct pcmig_virt_error *error)
{
    virDomainPtr domain = virDomainLookupByUUIDString(conn->ptr, uuid);
    int result = -1;

    /* What is kept may lie on storage that the other host uses now. */
    if (domain != NULL && (virDomainIsPersistent(domain) != 0 || define(domain) == 0))
        result = virDomainUndefineFlags(domain, VIR_DOMAIN_UNDEFINE_KEEP_NVRAM | KEEP_TPM);
    if (result < 0)
        pcmig_virt_error_take(error);
    if (domain != NULL)
        virDomainFree(domain);
    return result < 0 ? -1 : 0;
}
