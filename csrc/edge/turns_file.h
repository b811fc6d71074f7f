/* SPDX-License-Identifier: Apache-2.0 */
/* The file in which the migrations that leave a host together tell each other what they do (core/turns.h).
 *
 * FOLDER/migrations/turns, FOLDER being /run/pcmig or what the environment's PCMIG_RUN_DIR says: a header, and rows of
 * a fixed size, one per migration. A row is locked as long as its owner lives: with an OFD lock (fcntl(2), F_OFD_SETLK,
 * Linux >= 3.15), which the kernel drops when the process ends, however it ends. So nobody has to run or to clean up: a
 * row without a lock is nobody's, and is used again. A process has the file open once, for all of its migrations.
 *
 * Where the file cannot be used, the migrations of this process still know of each other, and of nobody else.
 *
 * No function waits for another process. All may be called from any thread.
 */
#ifndef PCMIG_EDGE_TURNS_FILE_H
#define PCMIG_EDGE_TURNS_FILE_H

#include "core/turns.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PCMIG_TURNS_FILE_PATH_SIZE 256

struct pcmig_turns_seat; /* the row of one migration */

/* A row that is empty until it is written, or NULL: memory is short, or PCMIG_TURNS_ROWS migrations have one. */
struct pcmig_turns_seat *pcmig_turns_join(void);
void pcmig_turns_leave(struct pcmig_turns_seat *seat); /* NULL is fine */

void pcmig_turns_write(struct pcmig_turns_seat *seat, const struct pcmig_turns_row *row);

/* The rows of all whose process lives, SEAT's own as it was written last; *ME is its place. What others wrote may be
 * old by a twentieth of a second. Returns how many: 0 in a child that was forked since, for which the row is not. */
size_t pcmig_turns_read(struct pcmig_turns_seat *seat, struct pcmig_turns_row rows[PCMIG_TURNS_ROWS], size_t *me);

/* The rows of all whose process lives, for who has none of his own; nothing is made or changed. Returns how many: 0
 * also where the file cannot be read. */
size_t pcmig_turns_file_rows(struct pcmig_turns_row rows[PCMIG_TURNS_ROWS]);

enum pcmig_turns_file_state {
    PCMIG_TURNS_FILE_SHARED = 0, /* with every process of the host */
    PCMIG_TURNS_FILE_MISSING,    /* the folder is not there, and this process may not make it */
    PCMIG_TURNS_FILE_DENIED,     /* folder or file are not open to this process */
    PCMIG_TURNS_FILE_FOREIGN,    /* what is there is not this version's file */
    PCMIG_TURNS_FILE_FAILED,     /* another error */
    PCMIG_TURNS_FILE_STATE_COUNT
};

struct pcmig_turns_file_facts {
    enum pcmig_turns_file_state state;
    int error;                             /* errno; 0 = none */
    char path[PCMIG_TURNS_FILE_PATH_SIZE]; /* of the file */
    unsigned folder_mode;                  /* permission bits of its folder; 0 = not known */
    unsigned rows;                         /* migrations of other processes, now */
};

/* Whether this process can share; opens the file as a migration would, and makes it where it may. */
void pcmig_turns_file_probe(struct pcmig_turns_file_facts *out);

const char *pcmig_turns_file_state_name(enum pcmig_turns_file_state state); /* "shared"; never NULL */

/* A number for the network namespace of this process, and one for the host that URI (of libvirt) names; a URI without a
 * host is this host. Never 0. */
uint32_t pcmig_turns_network(const char *uri);

#endif
