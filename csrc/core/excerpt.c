/* SPDX-License-Identifier: Apache-2.0 */
/* See excerpt.h. */
#include "core/excerpt.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define GAP       " ... "
#define FRAME_MIN 8

/* How much of TEXT is left out at its beginning: white space, control characters, or a frame. */
static size_t left_out(const char *text)
{
    size_t len = 0;

    if (strchr("@*#=-", text[0]) != NULL) {
        while (text[len] == text[0])
            len++;
        return len < FRAME_MIN ? 0 : len;
    }
    while (text[len] != '\0' && ((unsigned char)text[len] <= ' ' || text[len] == 0x7f))
        len++;
    return len;
}

/* Writes the line to OUT, which has as much room as TEXT; returns its length. */
static size_t write_line(const char *text, char *out)
{
    size_t len = 0;
    bool gap = false;

    while (*text != '\0') {
        size_t skip = left_out(text);

        gap = gap || skip > 0;
        text += skip;
        if (skip > 0)
            continue;
        if (gap && len > 0)
            out[len++] = ' ';
        gap = false;
        out[len++] = *text++;
    }
    out[len] = '\0';
    return len;
}

/* Of LINE so many bytes, COUNT at the most, that no character is cut. */
static size_t whole(const char *line, size_t count)
{
    while (count > 0 && ((unsigned char)line[count] & 0xc0) == 0x80)
        count--;
    return count;
}

void pcmig_excerpt(const char *text, char *out, size_t size)
{
    char *line = malloc(strlen(text) + 1);
    size_t len, begin, end;

    if (line == NULL) { /* as much as there is room for, as it is */
        len = strnlen(text, size - 1);
        memcpy(out, text, len);
        out[len] = '\0';
        return;
    }
    len = write_line(text, line);
    begin = len < size ? len : whole(line, (size - 1) / 4);
    end = len < size ? len : len - (size - 1 - begin - strlen(GAP));
    while (((unsigned char)line[end] & 0xc0) == 0x80)
        end++;
    memcpy(out, line, begin);
    if (len >= size) {
        memcpy(out + begin, GAP, strlen(GAP));
        begin += strlen(GAP);
    }
    memcpy(out + begin, line + end, len - end + 1);
    free(line);
}
