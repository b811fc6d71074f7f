/* SPDX-License-Identifier: Apache-2.0 */
/* Commands that the engine gives to an operator: a shell makes the right words of them, whatever the guest is called.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "two_hosts.h"

static const char *_Atomic guest_name;

const char *virDomainGetName(virDomainPtr domain)
{
    (void)domain;
    return atomic_load(&guest_name);
}

/* The command that the engine gives when the halves are as they are, one word a line; "--" ends each command. */
static void advice(const char *dest_name, bool all_options, char *out, size_t size)
{
    struct pcmig_migration_args args = {
        .source_uri = SOURCE,
        .dest_uri = dest_host.uri,
        .domain = UUID,
        .dest_name = dest_name,
        .flags = VIR_MIGRATE_LIVE | VIR_MIGRATE_PERSIST_DEST | VIR_MIGRATE_UNDEFINE_SOURCE,
        .adopt = true,
        .connect_timeout_ms = 10000,
    };
    struct pcmig_migration *migration;
    struct pcmig_migration_status status;
    char path[] = "/tmp/pcmig-test-XXXXXX", line[64];
    int fd = mkstemp(path);
    size_t length;
    FILE *pipe;

    if (all_options) {
        args.migrate_uri = "tcp://[fd00::2]:49152";
        args.listen_address = "::";
        args.disks_uri = "unix:///run/it's.sock";
        args.tls_destination = "b.example";
        args.flags |= VIR_MIGRATE_TLS | VIR_MIGRATE_NON_SHARED_DISK;
    }
    pcmig_params_defaults(&args.params);
    migration = pcmig_migration_new(&args);
    assert_non_null(migration);
    assert_int_equal(pcmig_migration_start(migration), 0);
    assert_true(pcmig_migration_join(migration, PATIENCE));
    status = status_of(migration);
    pcmig_migration_unref(migration);
    assert_string_not_equal(status.operator_command, "");
    assert_true(fd >= 0);
    assert_true(dprintf(fd, "virsh() { printf '%%s\\n' \"$@\" --; }\n%s\n", status.operator_command) > 0);
    (void)close(fd);
    (void)snprintf(line, sizeof(line), "sh %s 2>&1", path);
    pipe = popen(line, "r");
    assert_non_null(pipe);
    length = fread(out, 1, size - 1, pipe);
    out[length] = '\0';
    assert_int_equal(pclose(pipe), 0);
    (void)unlink(path);
}

static const struct {
    const char *name;
    const char *typed; /* in a command */
} guests[] = {
    {"web1", "web1"}, {"web's", "web's"}, {"a'; reboot #'", "a'; reboot #'"}, {"Home Assistant", "Home Assistant"},
    {"-dash", UUID},  {"17", UUID},
};

/* libvirt at the destination finds the guest by the name that it has there. */
static void resume(void **state)
{
    char got[1024], want[1024];

    (void)state;
    atomic_store(&hosts.source, BROKEN);
    atomic_store(&hosts.destination, BROKEN);
    atomic_store(&hosts.job, false);
    for (size_t i = 0; i < sizeof(guests) / sizeof(guests[0]); i++) {
        atomic_store(&guest_name, guests[i].name);
        advice("h 2", true, got, sizeof(got));
        (void)snprintf(want, sizeof(want),
                       "-c\n%s\nmigrate\n--live\n--p2p\n--postcopy\n--postcopy-resume\n--persistent\n--undefinesource\n"
                       "--tls\n--copy-storage-all\n%s\n%s\n--migrateuri\ntcp://[fd00::2]:49152\n--dname\nh 2\n"
                       "--listen-address\n::\n--disks-uri\nunix:///run/it's.sock\n--tls-destination\nb.example\n--\n",
                       SOURCE, guests[i].typed, dest_host.uri);
        assert_string_equal(got, want);
        advice(NULL, false, got, sizeof(got));
        (void)snprintf(want, sizeof(want),
                       "-c\n%s\nmigrate\n--live\n--p2p\n--postcopy\n--postcopy-resume\n--persistent\n--undefinesource\n"
                       "%s\n%s\n--\n",
                       SOURCE, guests[i].typed, dest_host.uri);
        assert_string_equal(got, want);
    }
}

static void look_at_both(void **state)
{
    char got[1024], want[1024];

    (void)state;
    /* A rest at the source that this libvirt cannot remove: a person has to look. */
    all_has_arrived();
    atomic_store(&hosts.known, true);
    atomic_store(&hosts.source_defined, false);
    atomic_store(&hosts.libvirt, 8006000);
    for (size_t i = 0; i < sizeof(guests) / sizeof(guests[0]); i++) {
        atomic_store(&guest_name, guests[i].name);
        advice("9", false, got, sizeof(got));
        (void)snprintf(want, sizeof(want), "-c\n%s\ndomstate\n--reason\n%s\n--\n-c\n%s\ndomstate\n--reason\n%s\n--\n",
                       SOURCE, guests[i].typed, dest_host.uri, UUID);
        assert_string_equal(got, want);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup(name, reset)
    const struct CMUnitTest tests[] = {TEST(resume), TEST(look_at_both)};

    return cmocka_run_group_tests(tests, make_host, drop_host);
}
