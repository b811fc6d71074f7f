/* SPDX-License-Identifier: Apache-2.0 */
/* Where local sockets are: RUN_DIR/NAME, the same path on both hosts, for libvirt has one URI for both QEMUs. The names
 * are 32 hex digits wherever they come here, so a path never leaves the folder.
 *
 *   RUN_DIR         3733  QEMU at the destination makes its socket here. Nobody but the daemon can list it, and of what
 *                         is in it everybody can remove and rename only what is theirs (sticky). The sockets get the
 *                         folder's group, which is the daemon's (setgid): it connects without any capability.
 *   RUN_DIR/NAME          at the source, a symbolic link of the daemon's to ...
 *   RUN_DIR/source  0711  ... the socket that the source's QEMU connects to. libvirt gives it to the guest's own user,
 *                         who still can neither list, nor rename, nor replace anything in this folder.
 *   RUN_DIR/known   0700  which process has listened under a NAME; see arrivals.h
 */
#ifndef PCMIG_TUNNEL_LOCAL_PLACE_H
#define PCMIG_TUNNEL_LOCAL_PLACE_H

#include "core/tunnel_frame.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define PCMIG_PLACE_DIR_BYTES   72  /* with NUL: a socket's path has 108, and a name and '/' come behind */
#define PCMIG_PLACE_PATH_BYTES  108 /* sun_path */
#define PCMIG_PLACE_ERROR_BYTES 320

struct pcmig_arrivals;

/* Makes DIR and the folders in it, or gives them the modes above. False with a sentence in ERROR when one cannot be
 * made, is no folder, or is another user's. */
bool pcmig_place_prepare(const char *dir, char error[PCMIG_PLACE_ERROR_BYTES]);

/* A listening socket at PATH with MODE, group GID ((gid_t)-1: as it comes). A socket that nobody listens on is
 * replaced. Returns the descriptor (non-blocking), or -1 with a sentence in ERROR. */
int pcmig_place_listen(const char *path, gid_t gid, mode_t mode, char error[PCMIG_PLACE_ERROR_BYTES]);

/* DIR/NAME into PATH. */
void pcmig_place_path(const char *dir, const char *name, char path[PCMIG_PLACE_PATH_BYTES]);

/* The source's socket DIR/NAME, which GID may connect to beside this user ((gid_t)-1, or a group that this user may not
 * give files to: nobody until libvirt gives it to the guest's user). As pcmig_place_listen. The NAME is not in
 * /proc/net/unix. */
int pcmig_place_open_source(const char *dir, const char *name, gid_t gid, char error[PCMIG_PLACE_ERROR_BYTES]);

/* Removes it. What is not there is no error. */
void pcmig_place_close_source(const char *dir, const char *name);

enum pcmig_place_result {
    PCMIG_PLACE_CONNECTED,
    PCMIG_PLACE_NOT_YET,   /* nobody listens there: ask again */
    PCMIG_PLACE_FORBIDDEN, /* what is there is not for us; a sentence in ERROR */
};

/* Connects to the socket DIR/NAME that a process of UID listens on ((uid_t)-1: of any user), the first one that did
 * under this NAME: see arrivals.h. *FD does not block. Symbolic links are not followed, and what was checked is what is
 * connected to. From any thread. */
enum pcmig_place_result pcmig_place_connect(const char *dir, const char *name, uid_t uid,
                                            struct pcmig_arrivals *arrivals, int *fd,
                                            char error[PCMIG_PLACE_ERROR_BYTES]);

#endif
