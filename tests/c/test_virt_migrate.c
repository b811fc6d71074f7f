/* SPDX-License-Identifier: Apache-2.0 */
/* What reaches libvirt's migrate call: every argument under its name and type, and the flags as given. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <libvirt/libvirt.h>
#include <stdio.h>
#include <string.h>

#include "edge/virt.h"
#include "fair_clock.h"

#define SEEN_MAX 32

static struct {
    char text[SEEN_MAX][96];
    int count;
    unsigned int flags;
    char dest_uri[64];
} seen;

/* In place of libvirt's. */
int virDomainMigrateToURI3(virDomainPtr domain, const char *dest_uri, virTypedParameterPtr params, unsigned int count,
                           unsigned int flags)
{
    assert_non_null(domain);
    assert_in_range(count, 0, SEEN_MAX);
    snprintf(seen.dest_uri, sizeof(seen.dest_uri), "%s", dest_uri);
    seen.flags = flags;
    seen.count = (int)count;
    for (unsigned int i = 0; i < count; i++) {
        char *text = seen.text[i];

        switch (params[i].type) {
        case VIR_TYPED_PARAM_STRING:
            snprintf(text, sizeof(seen.text[i]), "%s=%s", params[i].field, params[i].value.s);
            break;
        case VIR_TYPED_PARAM_INT:
            snprintf(text, sizeof(seen.text[i]), "%s=int %d", params[i].field, params[i].value.i);
            break;
        case VIR_TYPED_PARAM_ULLONG:
            snprintf(text, sizeof(seen.text[i]), "%s=ull %llu", params[i].field, params[i].value.ul);
            break;
        default:
            fail_msg("%s has type %d", params[i].field, params[i].type);
        }
    }
    return 0;
}

static void call(const struct pcmig_virt_migrate_args *args)
{
    struct pcmig_virt_error error = {0};
    struct pcmig_virt_conn *conn = pcmig_virt_open("test:///default", 10000, &error);
    struct pcmig_virt_domain *domain;

    assert_non_null(conn);
    domain = pcmig_virt_lookup(conn, "test", &error);
    assert_non_null(domain);
    memset(&seen, 0, sizeof(seen));
    assert_int_equal(pcmig_virt_migrate(domain, args, &error), 0);
    pcmig_virt_domain_free(domain);
    pcmig_virt_close(conn);
}

static void expect(const char *text)
{
    for (int i = 0; i < seen.count; i++) {
        if (strcmp(seen.text[i], text) == 0)
            return;
    }
    fail_msg("libvirt was not given %s", text);
}

static void everything(void **state)
{
    static const char *const disks[] = {"vda", "vdb", NULL};
    static const char *const wanted[] = {
        "migrate_uri=tcp://b:1",
        "destination_name=g2",
        "listen_address=::1",
        "disks_uri=tcp://b:2",
        "destination_xml=<domain type='a'/>",
        "persistent_xml=<domain type='b'/>",
        "tls.destination=host-b",
        "migrate_disks=vda",
        "migrate_disks=vdb",
        "bandwidth=ull 7",
        "bandwidth.postcopy=ull 9",
        "parallel.connections=int 4",
    };
    /* What nova.conf may hold, next to what the engine adds. */
    unsigned int flags = VIR_MIGRATE_LIVE | VIR_MIGRATE_PEER2PEER | VIR_MIGRATE_POSTCOPY | VIR_MIGRATE_PERSIST_DEST |
                         VIR_MIGRATE_UNDEFINE_SOURCE | VIR_MIGRATE_NON_SHARED_INC | VIR_MIGRATE_PARALLEL |
                         VIR_MIGRATE_TLS | VIR_MIGRATE_AUTO_CONVERGE;
    struct pcmig_virt_migrate_args args = {
        .dest_uri = "qemu+tcp://b/system",
        .flags = flags,
        .migrate_uri = "tcp://b:1",
        .dest_name = "g2",
        .listen_address = "::1",
        .disks_uri = "tcp://b:2",
        .disks = disks,
        .dest_xml = "<domain type='a'/>",
        .persist_xml = "<domain type='b'/>",
        .tls_destination = "host-b",
        .parallel_connections = 4,
        .bandwidth_mib = 7,
        .postcopy_bandwidth_mib = 9,
    };

    (void)state;
    call(&args);
    assert_int_equal(seen.count, sizeof(wanted) / sizeof(wanted[0]));
    for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++)
        expect(wanted[i]);
    assert_int_equal(seen.flags, flags);
    assert_string_equal(seen.dest_uri, "qemu+tcp://b/system");
}

static void nothing(void **state)
{
    struct pcmig_virt_migrate_args args = {.dest_uri = "qemu+tcp://b/system", .postcopy_bandwidth_mib = 9};

    (void)state;
    call(&args);                     /* a bandwidth of post-copy needs its flag */
    assert_int_equal(seen.count, 1); /* libvirt would take the one it was told last for this guest */
    expect("bandwidth=ull 8796093022207");
    assert_int_equal(seen.flags, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(everything), cmocka_unit_test(nothing)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
