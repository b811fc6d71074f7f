/* SPDX-License-Identifier: Apache-2.0 */
/* SELinux's label of a socket that QEMU connects to. A guest's QEMU may connect to sockets of its own kind only, and
 * what counts is the label that the socket was made with; libvirt names svirt_socket_t for this. Without libselinux,
 * which does no more than write the same file: setsockcreatecon(3). */
#ifndef PCMIG_TUNNEL_LOCAL_LABEL_H
#define PCMIG_TUNNEL_LOCAL_LABEL_H

#include <stdbool.h>
#include <stddef.h>

#define PCMIG_LABEL_BYTES 256

/* CONTEXT ("user:role:type:level") with TYPE in place of its type, and the lower one of its levels, into OUT. False
 * when it is no context of this form, or too long. */
bool pcmig_label_with_type(const char *context, const char *type, char out[PCMIG_LABEL_BYTES]);

/* As socket(2), with svirt_socket_t where SELinux is on and its policy has that and lets this process make such; as any
 * other socket where not. */
int pcmig_label_socket(int domain, int type, int protocol);

#endif
