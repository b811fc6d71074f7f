/* SPDX-License-Identifier: Apache-2.0 */
/* See shell.h. */
#include "core/shell.h"

#include <string.h>

/* What no shell has a use of its own for, anywhere in a word. */
static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@%+=:,./-_";

#define UUID_LENGTH 36

struct text {
    char *out;
    size_t size;
    size_t length; /* that it takes */
};

static void add(struct text *text, const char *piece, size_t length)
{
    for (size_t i = 0; i < length; i++, text->length++) {
        if (text->length + 1 < text->size)
            text->out[text->length] = piece[i];
    }
}

static void end(struct text *text)
{
    if (text->size > 0)
        text->out[text->length < text->size ? text->length : text->size - 1] = '\0';
}

static void add_word(struct text *text, const char *word)
{
    static const char quote[] = "'\"'\"'"; /* out of the quotes, one in double quotes, and in again */

    if (word[0] != '\0' && strspn(word, plain) == strlen(word)) {
        add(text, word, strlen(word));
        return;
    }
    add(text, "'", 1);
    for (const char *c = word; *c != '\0'; c++)
        add(text, *c == '\'' ? quote : c, *c == '\'' ? sizeof(quote) - 1 : 1);
    add(text, "'", 1);
}

size_t pcmig_shell_quote(const char *word, char *out, size_t size)
{
    struct text text = {out, size, 0};

    add_word(&text, word);
    end(&text);
    return text.length;
}

bool pcmig_shell_command(const char *const *words, size_t count, char *out, size_t size)
{
    struct text text = {out, size, 0};

    for (size_t i = 0; i < count; i++) {
        if (words[i] == NULL)
            continue;
        if (text.length > 0)
            add(&text, " ", 1);
        add_word(&text, words[i]);
    }
    end(&text);
    if (text.length < size)
        return true;
    if (size > 0)
        out[0] = '\0';
    return false;
}

const char *pcmig_shell_guest(const char *name, const char *uuid)
{
    const bool option = name[0] == '-';
    const bool id = strspn(name, "0123456789") == strlen(name); /* "" too */
    const bool another = strlen(name) == UUID_LENGTH && strspn(name, "0123456789abcdefABCDEF-") == UUID_LENGTH;
    bool typed = true;

    for (const char *c = name; *c != '\0'; c++)
        typed = typed && (unsigned char)*c >= ' ' && *c != '\x7f';
    return option || id || another || !typed ? uuid : name;
}
