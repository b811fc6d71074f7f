/* SPDX-License-Identifier: Apache-2.0 */
/* What the files edge/virt*.c share, and nobody else includes. */
#ifndef PCMIG_EDGE_VIRT_INTERNAL_H
#define PCMIG_EDGE_VIRT_INTERNAL_H

#include "edge/virt.h"

#include <libvirt/libvirt.h>

struct pcmig_virt_conn {
    virConnectPtr ptr;
};

struct pcmig_virt_domain {
    virDomainPtr ptr;
    char uuid[PCMIG_VIRT_UUID_SIZE];
};

/* Copies libvirt's last error of this thread. */
void pcmig_virt_error_take(struct pcmig_virt_error *error);

/* An error with a virErrorNumber of our choice. */
void pcmig_virt_error_code(struct pcmig_virt_error *error, int code, const char *message);

/* Statistics of a job, from virDomainGetJobStats or JOB_COMPLETED; queue_bytes is -1. */
void pcmig_virt_sample_from_params(struct pcmig_sample *sample, const virTypedParameter *params, int count);

/* Whether they are a migration's, and no other job's. */
bool pcmig_virt_params_of_migration(virTypedParameterPtr params, int count);

#endif
