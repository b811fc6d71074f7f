/* SPDX-License-Identifier: Apache-2.0 */
/* See qemu_migration.h. */
#include "core/qemu_migration.h"

#include <string.h>

#define DEEPEST 64

struct reader {
    const char *at;
    const char *end;
};

struct text {
    const char *start;
    size_t len; /* without the quotes; escapes as they came */
};

static void skip_space(struct reader *r)
{
    while (r->at < r->end && (*r->at == ' ' || *r->at == '\t' || *r->at == '\r' || *r->at == '\n'))
        r->at++;
}

static bool take(struct reader *r, char c)
{
    skip_space(r);
    if (r->at == r->end || *r->at != c)
        return false;
    r->at++;
    return true;
}

static bool read_string(struct reader *r, struct text *out)
{
    if (!take(r, '"'))
        return false;
    out->start = r->at;
    while (r->at < r->end && *r->at != '"')
        r->at += *r->at == '\\' && r->end - r->at > 1 ? 2 : 1;
    out->len = (size_t)(r->at - out->start);
    return take(r, '"');
}

static bool is(const struct text *text, const char *word)
{
    return text->len == strlen(word) && memcmp(text->start, word, text->len) == 0;
}

/* Goes past a value of whatever kind; what is inside is QEMU's business. */
static bool skip_value(struct reader *r)
{
    unsigned depth = 0;

    do {
        struct text ignored;

        skip_space(r);
        if (r->at == r->end)
            return false;
        if (*r->at == '"') {
            if (!read_string(r, &ignored))
                return false;
        } else if (*r->at == '{' || *r->at == '[') {
            r->at++;
            if (++depth > DEEPEST)
                return false;
        } else if (*r->at == '}' || *r->at == ']') {
            if (depth == 0)
                return false;
            r->at++;
            depth--;
        } else {
            r->at++; /* of a number or a word, or what stands between values */
        }
        skip_space(r);
    } while (depth > 0 || (r->at < r->end && strchr(",}]", *r->at) == NULL));
    return true;
}

/* Goes into an object, to the value of this name. Returns 1 with R before it, 0 when the object has none, -1 when it is
 * none. */
static int enter(struct reader *r, const char *name)
{
    struct text key;

    if (!take(r, '{'))
        return -1;
    if (take(r, '}'))
        return 0;
    do {
        if (!read_string(r, &key) || !take(r, ':'))
            return -1;
        if (is(&key, name))
            return 1;
        if (!skip_value(r))
            return -1;
    } while (take(r, ','));
    return take(r, '}') ? 0 : -1;
}

/* As QEMU spells its enumerations. */
static bool is_name(const struct text *text)
{
    for (size_t i = 0; i < text->len; i++) {
        char c = text->start[i];

        if ((c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-')
            return false;
    }
    return text->len > 0;
}

int pcmig_qemu_migration_status(const char *answer, size_t len, char *out, size_t size)
{
    struct reader r = {answer, answer + len};
    struct text status = {"none", strlen("none")};
    int found;

    if (enter(&r, "return") != 1)
        return -1;
    found = enter(&r, "status");
    if (found < 0 || (found > 0 && !read_string(&r, &status)) || !is_name(&status) || status.len >= size)
        return -1;
    memcpy(out, status.start, status.len);
    out[status.len] = '\0';
    return 0;
}

bool pcmig_qemu_migration_kept(const char *status)
{
    static const char *const kept[] = {"none", "cancelled", "failed"};

    for (size_t i = 0; i < sizeof(kept) / sizeof(kept[0]); i++) {
        if (strcmp(status, kept[i]) == 0)
            return true;
    }
    return false;
}
