/* SPDX-License-Identifier: Apache-2.0 */
/* See gdb.h. */
#include "core/gdb.h"

#include <string.h>

/* sun_path, with its terminator. */
#define PATH_MAX_BYTES 108

enum { BETWEEN = 0, IN_PACKET, FIRST_DIGIT, SECOND_DIGIT, BROKEN };

static int digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static enum pcmig_gdb_said broken(struct pcmig_gdb_reader *r)
{
    r->state = BROKEN;
    return PCMIG_GDB_NO_STUB;
}

static enum pcmig_gdb_said meaning(const struct pcmig_gdb_reader *r)
{
    if (r->len == 2 && memcmp(r->packet, "OK", 2) == 0)
        return PCMIG_GDB_OK;
    return r->len == 0 || r->packet[0] == 'E' ? PCMIG_GDB_ERROR : PCMIG_GDB_OTHER;
}

enum pcmig_gdb_said pcmig_gdb_read(struct pcmig_gdb_reader *r, char byte)
{
    int value;

    switch (r->state) {
    case BETWEEN:
        if (byte == '+')
            return PCMIG_GDB_NOTHING;
        if (byte != '$') /* "-" too: what was sent fits into one piece, and nobody garbles a local socket */
            return broken(r);
        r->state = IN_PACKET;
        r->len = 0;
        r->sum = 0;
        return PCMIG_GDB_NOTHING;
    case IN_PACKET:
        if (byte == '#') {
            r->state = FIRST_DIGIT;
            return PCMIG_GDB_NOTHING;
        }
        if (byte == '$' || r->len == sizeof(r->packet))
            return broken(r);
        r->packet[r->len++] = byte;
        r->sum = (unsigned char)(r->sum + (unsigned char)byte);
        return PCMIG_GDB_NOTHING;
    case FIRST_DIGIT:
    case SECOND_DIGIT:
        value = digit(byte);
        if (value < 0)
            return broken(r);
        r->told = (unsigned char)(r->state == FIRST_DIGIT ? value : r->told * 16 + value);
        if (r->state == FIRST_DIGIT) {
            r->state = SECOND_DIGIT;
            return PCMIG_GDB_NOTHING;
        }
        if (r->told != r->sum)
            return broken(r);
        r->state = BETWEEN;
        return meaning(r);
    default:
        return PCMIG_GDB_NO_STUB;
    }
}

bool pcmig_gdb_listen_command(const char *path, char *out, size_t size)
{
    static const char before[] = "gdbserver \"unix:path=", after[] = ",server=on,wait=off\"";
    size_t used = strlen(before);

    if (path[0] != '/' || strlen(path) >= PATH_MAX_BYTES || size < sizeof(before) + sizeof(after))
        return false;
    memcpy(out, before, used);
    for (const char *at = path; *at != '\0'; at++) {
        /* A comma ends an option's value unless it is doubled; a quote and a backslash end or change the monitor's
         * word. */
        const char *twice = *at == ',' ? "," : *at == '"' || *at == '\\' ? "\\" : "";

        if ((unsigned char)*at < ' ' || used + strlen(twice) + 1 + sizeof(after) > size)
            return false;
        if (twice[0] != '\0')
            out[used++] = twice[0];
        out[used++] = *at;
    }
    memcpy(out + used, after, sizeof(after));
    return true;
}

bool pcmig_gdb_listens(const char *text)
{
    static const char good[] = "Waiting for gdb connection";

    return strncmp(text, good, strlen(good)) == 0;
}

bool pcmig_gdb_closed(const char *text)
{
    static const char good[] = "Disabled gdbserver";

    return strncmp(text, good, strlen(good)) == 0;
}
