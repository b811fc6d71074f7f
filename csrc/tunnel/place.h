/* SPDX-License-Identifier: Apache-2.0 */
/* Where local sockets are: one folder, RUN_DIR/NAME, the same on both hosts. The names are 32 hex digits wherever they
 * come here, so a path never leaves the folder. */
#ifndef PCMIG_TUNNEL_PLACE_H
#define PCMIG_TUNNEL_PLACE_H

#include "core/tunnel_frame.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define PCMIG_PLACE_DIR_BYTES   72  /* with NUL: a socket's path has 108, and a name and '/' come behind */
#define PCMIG_PLACE_PATH_BYTES  108 /* sun_path */
#define PCMIG_PLACE_ERROR_BYTES 256

/* Makes DIR with group GID and mode 0770 if it is not there. False with a sentence in ERROR when it cannot be made, is
 * no folder, belongs to neither root nor this process's user, or lets others in. */
bool pcmig_place_prepare(const char *dir, gid_t gid, char error[PCMIG_PLACE_ERROR_BYTES]);

/* A listening socket at PATH with MODE, group GID ((gid_t)-1: as it comes). A socket that nobody listens on is
 * replaced. Returns the descriptor (non-blocking), or -1 with a sentence in ERROR. */
int pcmig_place_listen(const char *path, gid_t gid, mode_t mode, char error[PCMIG_PLACE_ERROR_BYTES]);

/* DIR/NAME into PATH. */
void pcmig_place_path(const char *dir, const char *name, char path[PCMIG_PLACE_PATH_BYTES]);

enum pcmig_place_result {
    PCMIG_PLACE_CONNECTED,
    PCMIG_PLACE_NOT_YET,   /* nobody listens there: ask again */
    PCMIG_PLACE_FORBIDDEN, /* what is there is not for us; a sentence in ERROR */
};

/* Connects to the socket DIR/NAME that UID's process listens on ((uid_t)-1: anybody's); *FD does not block. Symbolic
 * links are not followed, and what was checked is what is connected to. */
enum pcmig_place_result pcmig_place_connect(const char *dir, const char *name, uid_t uid, int *fd,
                                            char error[PCMIG_PLACE_ERROR_BYTES]);

#endif
