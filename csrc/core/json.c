/* SPDX-License-Identifier: Apache-2.0 */
/* See json.h. */
#include "core/json.h"

#include <string.h>

#define DEEPEST 64

static void skip_space(struct pcmig_json *j)
{
    while (j->at < j->end && (*j->at == ' ' || *j->at == '\t' || *j->at == '\r' || *j->at == '\n'))
        j->at++;
}

static bool take(struct pcmig_json *j, char c)
{
    skip_space(j);
    if (j->at == j->end || *j->at != c)
        return false;
    j->at++;
    return true;
}

/* A string as it was written, without its quotes. */
struct raw {
    const char *start;
    size_t len;
};

static bool read_raw(struct pcmig_json *j, struct raw *out)
{
    if (!take(j, '"'))
        return false;
    out->start = j->at;
    while (j->at < j->end && *j->at != '"')
        j->at += *j->at == '\\' && j->end - j->at > 1 ? 2 : 1;
    out->len = (size_t)(j->at - out->start);
    return take(j, '"');
}

bool pcmig_json_skip(struct pcmig_json *j)
{
    unsigned depth = 0;

    do {
        struct raw ignored;

        skip_space(j);
        if (j->at == j->end)
            return false;
        if (*j->at == '"') {
            if (!read_raw(j, &ignored))
                return false;
        } else if (*j->at == '{' || *j->at == '[') {
            j->at++;
            if (++depth > DEEPEST)
                return false;
        } else if (*j->at == '}' || *j->at == ']') {
            if (depth == 0)
                return false;
            j->at++;
            depth--;
        } else {
            j->at++; /* of a number or a word, or what stands between values */
        }
        skip_space(j);
    } while (depth > 0 || (j->at < j->end && strchr(",}]", *j->at) == NULL));
    return true;
}

int pcmig_json_enter(struct pcmig_json *j, const char *name)
{
    struct raw key;

    if (!take(j, '{'))
        return -1;
    if (take(j, '}'))
        return 0;
    do {
        if (!read_raw(j, &key) || !take(j, ':'))
            return -1;
        if (key.len == strlen(name) && memcmp(key.start, name, key.len) == 0)
            return 1;
        if (!pcmig_json_skip(j))
            return -1;
    } while (take(j, ','));
    return take(j, '}') ? 0 : -1;
}

int pcmig_json_next(struct pcmig_json *j, bool first)
{
    if (first) {
        if (!take(j, '['))
            return -1;
        return take(j, ']') ? 0 : 1;
    }
    if (take(j, ','))
        return 1;
    return take(j, ']') ? 0 : -1;
}

/* --- values ------------------------------------------------------------------------------------------------------- */

struct writer {
    char *out;
    size_t size;
    size_t used;
};

static bool put(struct writer *w, unsigned char byte)
{
    if (w->used + 1 >= w->size || byte == 0)
        return false;
    w->out[w->used++] = (char)byte;
    return true;
}

static bool put_code(struct writer *w, uint32_t code)
{
    if (code < 0x80)
        return put(w, (unsigned char)code);
    if (code < 0x800)
        return put(w, (unsigned char)(0xc0 | code >> 6)) && put(w, (unsigned char)(0x80 | (code & 0x3f)));
    if (code < 0x10000)
        return put(w, (unsigned char)(0xe0 | code >> 12)) && put(w, (unsigned char)(0x80 | (code >> 6 & 0x3f))) &&
               put(w, (unsigned char)(0x80 | (code & 0x3f)));
    return put(w, (unsigned char)(0xf0 | code >> 18)) && put(w, (unsigned char)(0x80 | (code >> 12 & 0x3f))) &&
           put(w, (unsigned char)(0x80 | (code >> 6 & 0x3f))) && put(w, (unsigned char)(0x80 | (code & 0x3f)));
}

/* Four hexadecimal digits at TEXT, or -1. */
static int32_t hex4(const char *text, const char *end)
{
    int32_t value = 0;

    if (end - text < 4)
        return -1;
    for (int i = 0; i < 4; i++) {
        const char c = text[i];
        const int digit = c >= '0' && c <= '9'   ? c - '0'
                          : c >= 'a' && c <= 'f' ? c - 'a' + 10
                          : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                                 : -1;

        if (digit < 0)
            return -1;
        value = value * 16 + digit;
    }
    return value;
}

/* What stands behind "\u": moves AT past it. */
static bool put_escaped_code(struct writer *w, const char **at, const char *end)
{
    int32_t code = hex4(*at, end), low;

    if (code < 0)
        return false;
    *at += 4;
    if (code >= 0xdc00 && code <= 0xdfff)
        return false; /* the second half of a pair, alone */
    if (code < 0xd800 || code > 0xdbff)
        return put_code(w, (uint32_t)code);
    if (end - *at < 2 || (*at)[0] != '\\' || (*at)[1] != 'u')
        return false;
    low = hex4(*at + 2, end);
    if (low < 0xdc00 || low > 0xdfff)
        return false;
    *at += 6;
    return put_code(w, 0x10000 + (((uint32_t)code & 0x3ff) << 10 | ((uint32_t)low & 0x3ff)));
}

bool pcmig_json_string(struct pcmig_json *j, char *out, size_t size)
{
    static const char letters[] = "\"\\/bfnrt", bytes[] = "\"\\/\b\f\n\r\t";
    struct writer w = {out, size, 0};
    struct raw raw;

    if (size == 0 || !read_raw(j, &raw))
        return false;
    for (const char *at = raw.start, *end = raw.start + raw.len; at < end;) {
        const char *letter;

        if (*at != '\\') {
            if ((unsigned char)*at < ' ' || !put(&w, (unsigned char)*at++))
                return false;
            continue;
        }
        if (++at == end)
            return false;
        if (*at == 'u') {
            at++;
            if (!put_escaped_code(&w, &at, end))
                return false;
            continue;
        }
        letter = *at != '\0' ? strchr(letters, *at) : NULL;
        if (letter == NULL || !put(&w, (unsigned char)bytes[letter - letters]))
            return false;
        at++;
    }
    out[w.used] = '\0';
    return true;
}

bool pcmig_json_natural(struct pcmig_json *j, int64_t *out)
{
    int64_t value = 0;
    const char *start;

    skip_space(j);
    start = j->at;
    while (j->at < j->end && *j->at >= '0' && *j->at <= '9') {
        if (value > (INT64_MAX - 9) / 10)
            return false;
        value = value * 10 + (*j->at++ - '0');
    }
    if (j->at == start || (j->at < j->end && strchr(".eE", *j->at) != NULL))
        return false;
    *out = value;
    return true;
}

bool pcmig_json_bool(struct pcmig_json *j, bool *out)
{
    static const struct {
        const char *word;
        bool value;
    } words[] = {{"true", true}, {"false", false}};

    skip_space(j);
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        size_t len = strlen(words[i].word);

        if ((size_t)(j->end - j->at) >= len && memcmp(j->at, words[i].word, len) == 0) {
            j->at += len;
            *out = words[i].value;
            return true;
        }
    }
    return false;
}
