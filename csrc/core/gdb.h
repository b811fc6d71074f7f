/* SPDX-License-Identifier: Apache-2.0 */
/* The few words of gdb's remote protocol that let a stopped guest go on: "detach", and the answer to it. Pure. Facts:
 * gdb's manual, "Remote Protocol"; QEMU 7.2 to 11.1, gdbstub/gdbstub.c: when the last process is detached, processors
 * run (gdb_continue(), then "OK"). */
#ifndef PCMIG_CORE_GDB_H
#define PCMIG_CORE_GDB_H

#include <stdbool.h>
#include <stddef.h>

/* "D" as it goes over the wire. */
#define PCMIG_GDB_DETACH "$D#44"
#define PCMIG_GDB_ACK    "+"

/* No answer that is waited for is longer. */
#define PCMIG_GDB_MAX 512

enum pcmig_gdb_said {
    PCMIG_GDB_NOTHING = 0, /* more bytes are needed */
    PCMIG_GDB_OK,          /* "OK": it is detached */
    PCMIG_GDB_OTHER,       /* a whole packet of another kind, a stop reply say; goes unanswered but for an ACK */
    PCMIG_GDB_ERROR,       /* "E..": refused; or a packet that is empty, which says that it does not know the word */
    PCMIG_GDB_NO_STUB,     /* nothing that a stub says */
};

struct pcmig_gdb_reader {
    int state;
    unsigned char sum;
    unsigned char told;
    size_t len;
    char packet[PCMIG_GDB_MAX];
};

/* Takes one byte of what the stub sends. READER begins as zeroes. */
enum pcmig_gdb_said pcmig_gdb_read(struct pcmig_gdb_reader *reader, char byte);

/* The monitor's command that has QEMU listen for gdb at PATH, written to OUT. Returns false when it does not fit, or
 * when PATH has what neither a socket's path nor the command can have. */
bool pcmig_gdb_listen_command(const char *path, char *out, size_t size);

/* Whether TEXT, which QEMU printed for that command, says that it listens. */
bool pcmig_gdb_listens(const char *text);

/* Whether TEXT, what QEMU says to "gdbserver none", means that no stub listens any more. */
bool pcmig_gdb_closed(const char *text);

#endif
