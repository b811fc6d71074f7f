/* SPDX-License-Identifier: Apache-2.0 */
#include "flags_mistakes.h"

#include "flags.h"

#include <stdbool.h>
#include <string.h>

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))
#define LEAVE_OUT    "leave it out"
#define COMMA        "write a plain comma between flags"
#define SPACE        "write a plain space, or none"
#define VARIABLE     "nothing was put in for a template's variable: write the flags themselves"

/* By code point; the first row that holds the character counts. */
static const struct {
    uint32_t first, last;
    const char *what;
    const char *remedy;
} characters[] = {
    {'"', '"', "a quotation mark", LEAVE_OUT},
    {'\'', '\'', "a quotation mark", LEAVE_OUT},
    {'`', '`', "a quotation mark", LEAVE_OUT},
    {'\\', '\\', "a backslash", "leave it out; in nova.conf a line that is indented goes on with the one before"},
    {'#', '#', "a number sign", "a comment has to stand on a line of its own"},
    {';', ';', "a semicolon", COMMA "; a comment has to stand on a line of its own"},
    {'|', '|', "a vertical bar", COMMA},
    {'+', '+', "a plus sign", COMMA},
    {'&', '&', "an ampersand", COMMA},
    {'/', '/', "a slash", COMMA},
    {':', ':', "a colon", COMMA},
    {'=', '=', "an equals sign", "flags have no value"},
    {'[', ']', "a bracket", LEAVE_OUT}, /* the backslash between them has its own row above */
    {'(', ')', "a bracket", LEAVE_OUT},
    {'$', '%', "a sign of templates", VARIABLE},
    {'@', '@', "a sign of templates", VARIABLE},
    {'{', '{', "a sign of templates", VARIABLE},
    {'}', '}', "a sign of templates", VARIABLE},
    {'<', '>', "a sign of templates", VARIABLE},
    {0xA0, 0xA0, "a no-break space", SPACE},
    {0xAB, 0xAB, "a typographic quotation mark", LEAVE_OUT},
    {0xAD, 0xAD, "an invisible soft hyphen", LEAVE_OUT},
    {0xBB, 0xBB, "a typographic quotation mark", LEAVE_OUT},
    {0x60C, 0x60C, "an Arabic comma", COMMA},
    {0x2000, 0x200A, "a typographic space", SPACE},
    {0x200B, 0x200F, "an invisible character", LEAVE_OUT},
    {0x2010, 0x2015, "a typographic dash", "write an underscore, as flags have it"},
    {0x2018, 0x201F, "a typographic quotation mark", LEAVE_OUT},
    {0x2028, 0x2029, "a typographic line break", SPACE},
    {0x202A, 0x202E, "an invisible character", LEAVE_OUT},
    {0x202F, 0x202F, "a no-break space", SPACE},
    {0x2039, 0x203A, "a typographic quotation mark", LEAVE_OUT},
    {0x205F, 0x205F, "a typographic space", SPACE},
    {0x2060, 0x2064, "an invisible character", LEAVE_OUT},
    {0x2212, 0x2212, "a typographic dash", "write an underscore, as flags have it"},
    {0x3000, 0x3000, "an ideographic space", SPACE},
    {0x3001, 0x3001, "an ideographic comma", COMMA},
    {0x300A, 0x300F, "a typographic quotation mark", LEAVE_OUT},
    {0xFE50, 0xFE51, "a small comma", COMMA},
    {0xFEFF, 0xFEFF, "an invisible byte order mark", LEAVE_OUT},
    {0xFF02, 0xFF02, "a full-width quotation mark", LEAVE_OUT},
    {0xFF07, 0xFF07, "a full-width quotation mark", LEAVE_OUT},
    {0xFF0C, 0xFF0C, "a full-width comma", COMMA},
    {0xFF1B, 0xFF1B, "a full-width semicolon", COMMA},
    {0xFF01, 0xFF5E, "a full-width character", "write the plain one"},
    {0x80, 0x10FFFF, "a character that no flag has", "flags are plain capital letters, digits and underscores"},
};

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c == '-' ? '_' : c;
}

/* Whether TOKEN's LEN bytes end with the LOWER-case name. */
static bool ends_with(const char *token, size_t len, const char *name)
{
    const size_t name_len = strlen(name);

    if (len < name_len)
        return false;
    for (size_t i = 0; i < name_len; i++) {
        if (lower(token[len - name_len + i]) != name[i])
            return false;
    }
    return true;
}

/* The character at TEXT, of LEN bytes, and its length in *USED. Bytes that are no UTF-8 are 0, one at a time. */
static uint32_t decode(const char *text, size_t len, size_t *used)
{
    const unsigned char *s = (const unsigned char *)text;
    const size_t need = s[0] < 0x80 ? 1 : s[0] < 0xC2 ? 0 : s[0] < 0xE0 ? 2 : s[0] < 0xF0 ? 3 : s[0] < 0xF5 ? 4 : 0;
    uint32_t character = need == 1 ? s[0] : s[0] & (0xFFu >> (need + 1));

    *used = 1;
    if (need == 0 || need > len)
        return 0;
    for (size_t i = 1; i < need; i++) {
        if ((s[i] & 0xC0) != 0x80)
            return 0;
        character = character << 6 | (s[i] & 0x3Fu);
    }
    *used = need;
    return character;
}

size_t pcmig_flags_characters(const char *text, size_t len)
{
    size_t n = 0;

    for (size_t i = 0; i < len; i++)
        n += ((unsigned char)text[i] & 0xC0) != 0x80;
    return n;
}

/* Whether TOKEN begins with the option's name: alone, or with a value behind it. */
static bool begins_with_option(const char *token, size_t len)
{
    size_t end = 0;

    while (end < len && token[end] != '=' && token[end] != ':')
        end++;
    return ends_with(token, end, "migration_flag") || ends_with(token, end, "migration_flags");
}

/* Length of the longest known name that TEXT begins with, after a prefix; 0 = none. */
static size_t name_at(const char *text, size_t len)
{
    const size_t prefix = sizeof(PCMIG_FLAGS_PREFIX) - 1;
    size_t longest = 0;

    for (int with_prefix = 0; with_prefix < 2; with_prefix++) {
        const size_t skip = with_prefix ? prefix : 0;

        if (len < skip || (with_prefix && !ends_with(text, skip, "vir_migrate_")))
            continue;
        for (size_t i = 0;; i++) {
            const struct pcmig_flags_row *row = pcmig_flags_row(i);
            const struct pcmig_flags_old_name *old = row != NULL ? NULL : pcmig_flags_old_name(i - PCMIG_FLAGS_COUNT);
            const char *name = row != NULL ? row->name : old != NULL ? old->name : NULL;
            size_t name_len, same = 0;

            if (name == NULL)
                break;
            name_len = strlen(name);
            while (same < name_len && skip + same < len && lower(text[skip + same]) == lower(name[same]))
                same++;
            if (same == name_len && skip + name_len > longest)
                longest = skip + name_len;
        }
    }
    return longest;
}

/* Whether TOKEN is nothing but names of flags, one behind the other. */
static bool is_several_names(const char *token, size_t len)
{
    size_t at = 0, n = 0;

    for (size_t step; at < len && (step = name_at(token + at, len - at)) > 0; at += step)
        n++;
    return at == len && n > 1;
}

int pcmig_flags_mistake_next(const char *token, size_t len, size_t *pos, struct pcmig_flags_mistake *found)
{
    if (*pos == 0 && len > 0) {
        *found = (struct pcmig_flags_mistake){0};
        if (begins_with_option(token, len)) {
            found->what = "begins with the name of the option";
            found->remedy = "leave out the name and the sign behind it";
        } else if (is_several_names(token, len)) {
            found->what = "is several flags in one";
            found->remedy = "write a comma between them";
        }
        if (found->what != NULL) {
            *pos = len;
            return 1;
        }
    }
    for (size_t used; *pos < len; *pos += used) {
        const uint32_t character = decode(token + *pos, len - *pos, &used);

        for (size_t i = 0; i < COUNT(characters); i++) {
            if (character < characters[i].first || character > characters[i].last)
                continue;
            *found = (struct pcmig_flags_mistake){*pos, character, characters[i].what, characters[i].remedy};
            *pos += used;
            return 1;
        }
    }
    return 0;
}
