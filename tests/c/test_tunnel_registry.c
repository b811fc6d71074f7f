/* SPDX-License-Identifier: Apache-2.0 */
/* Names come and go: the list of them never is full for good. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>

#include "tunnel/stream/registry.h"

static void name_of(unsigned number, char name[PCMIG_TUNNEL_NAME_LEN + 1])
{
    snprintf(name, PCMIG_TUNNEL_NAME_LEN + 1, "%032x", number);
}

/* Whether there is an account of that name, if CREATE after making it. */
static bool has(struct pcmig_registry *registry, unsigned number, bool create)
{
    char name[PCMIG_TUNNEL_NAME_LEN + 1];
    struct pcmig_account *account;

    name_of(number, name);
    account = pcmig_registry_account(registry, name, create);
    pcmig_account_unref(account);
    return account != NULL;
}

static bool is_known(struct pcmig_registry *registry, unsigned number)
{
    return has(registry, number, false);
}

static bool add(struct pcmig_registry *registry, unsigned number)
{
    return has(registry, number, true);
}

/* A destination's names are closed by nobody. Those that are open here, and those with a stream, stay. */
static void the_oldest_idle_name_makes_room(void **state)
{
    const uint8_t id[PCMIG_TUNNEL_FRAME_STREAM_BYTES] = {1};
    struct pcmig_registry *registry = pcmig_registry_new();
    char name[PCMIG_TUNNEL_NAME_LEN + 1];
    struct pcmig_account *account;
    struct pcmig_stream *stream;

    (void)state;
    assert_non_null(registry);
    for (unsigned i = 0; i < PCMIG_REGISTRY_NAMES; i++)
        assert_true(add(registry, i));
    name_of(0, name);
    pcmig_registry_keep(registry, name);
    name_of(1, name);
    account = pcmig_registry_account(registry, name, false);
    stream = pcmig_stream_new(name, id, account, 1, -1);
    assert_non_null(stream);
    pcmig_account_unref(account);
    assert_true(add(registry, PCMIG_REGISTRY_NAMES));
    assert_true(is_known(registry, 0) && is_known(registry, 1) && is_known(registry, PCMIG_REGISTRY_NAMES));
    assert_false(is_known(registry, 2));
    assert_true(is_known(registry, 3));
    for (unsigned i = 0; i < 3 * PCMIG_REGISTRY_NAMES; i++)
        assert_true(add(registry, 5000 + i));
    assert_true(is_known(registry, 0) && is_known(registry, 1));
    pcmig_stream_unref(stream);
    pcmig_registry_free(registry);
}

/* All of them open here: then one has to be closed. */
static void names_that_are_kept(void **state)
{
    struct pcmig_registry *registry = pcmig_registry_new();
    char name[PCMIG_TUNNEL_NAME_LEN + 1];

    (void)state;
    assert_non_null(registry);
    for (unsigned i = 0; i < PCMIG_REGISTRY_NAMES; i++) {
        assert_true(add(registry, i));
        name_of(i, name);
        pcmig_registry_keep(registry, name);
    }
    assert_false(add(registry, PCMIG_REGISTRY_NAMES));
    assert_true(pcmig_registry_forget(registry, name));
    assert_false(pcmig_registry_forget(registry, name));
    assert_true(add(registry, PCMIG_REGISTRY_NAMES));
    pcmig_registry_free(registry);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_oldest_idle_name_makes_room),
        cmocka_unit_test(names_that_are_kept),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
