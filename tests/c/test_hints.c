/* SPDX-License-Identifier: Apache-2.0 */
/* What is said about a symptom: only what libvirt's or QEMU's own words bear out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "core/hints.h"

#define QMP "internal error: unable to execute QEMU command 'migrate-set-capabilities': "

static void hints(void **state)
{
    static const struct {
        const char *message;
        const char *says; /* a part of the hint; NULL = there is none */
    } cases[] = {
        {QMP "Postcopy is not supported: Userfaultfd not available: Operation not permitted", "denies userfaultfd"},
        {QMP "Postcopy is not supported: Userfaultfd not available: Function not implemented", "without userfaultfd"},
        {QMP "Postcopy is not supported: Host backend files need to be TMPFS or HUGETLBFS only", "memory_backing_dir"},
        {QMP "Postcopy is not supported: Target page size bigger than host page size", NULL},
        {QMP "Postcopy is not supported", "/var/log/libvirt/qemu"},
        {"End of file while reading data: Input/output error", "max_clients"},
        {"Cannot recv data: Host key verification failed.: Connection reset by peer", "libvirt at the source"},
        {"operation failed: Failed to connect to remote libvirt URI qemu+tls://b/system: unable to resolve address 'b' "
         "service '16514': Name or service not known",
         "libvirt at the source"},
        {"unable to connect to server at 'b:16514': Connection refused", "libvirt at the source"},
        {"authentication failed: Failed to verify peer's certificate", "libvirt at the source"},
        {"unable to connect to server at 'pcmig-b:49152': No route to host", "firewall"},
        {"unable to resolve address 'b' service '49152': Name or service not known", "--migrateuri"},
        {"Unable to resolve address 'b' service '49152': Name or service not known", "--migrateuri"},
        {"operation failed: domain 'g' already exists with uuid 3f", "--dname"},
        {"operation failed: domain is not running", NULL},
        {"Requested operation is not valid: cannot migrate domain with 1 snapshots", "snapshot-delete"},
        {"Requested operation is not valid: cannot migrate domain with I/O error", NULL},
        {"unable to map backing store for guest RAM: Cannot allocate memory", "huge pages"},
        {"Unsafe migration: Migration without shared storage is unsafe", "--copy-storage-all"},
        {"Failed to bind socket: Cannot assign requested address", "--listen-address"},
        {"Unable to access credentials /etc/pki/qemu/ca-cert.pem: No such file or directory", "both hosts"},
        {"Cannot get interface MTU on 'br0': No such device", "destination"},
        {"Cannot access storage file '/a.iso': No such file or directory", "startupPolicy"},
        {"-vnc 0.0.0.0:3: Failed to find an available port: Address already in use", "another one"},
        {"Timed out during operation: cannot acquire state change lock (held by "
         "monitor=remoteDispatchDomainBackupBegin)",
         "domjobinfo"},
        {"internal error: Unable to parse URI tcp://fd00:77::2", "[ADDRESS]"},
        {"", NULL},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const char *hint = pcmig_hint(cases[i].message);

        if (cases[i].says == NULL) {
            assert_null(hint);
        } else {
            assert_non_null(hint);
            assert_non_null(strstr(hint, cases[i].says));
        }
    }
}

static void hints_on_connecting(void **state)
{
    static const struct {
        const char *message, *says;
    } cases[] = {
        {"End of file while reading data: Host key verification failed.: Input/output error", "known_hosts"},
        {"Cannot recv data: @ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @ Host key verification failed.",
         "ssh-keygen -R"},
        {"Cannot recv data: Host key for b has changed and you have requested strict checking. Host key verification "
         "failed.: Connection reset by peer",
         "ssh-keygen -R"},
        {"Cannot recv data: root@b: Permission denied (publickey).: Connection reset by peer", "ssh-copy-id"},
        {"Cannot recv data: ssh: Could not resolve hostname b: Name or service not known", "/etc/hosts"},
        {"Cannot recv data: ssh: connect to host b port 2222: Connection refused", "qemu+ssh://HOST:PORT"},
        {"Cannot recv data: Connection closed by 10.77.1.2 port 22: Connection reset by peer", "PerSourcePenalties"},
        {"End of file while reading data: sh: 1: nc: not found: Input/output error", "virt-ssh-helper"},
        {"End of file while reading data: bash: line 1: nc: command not found: Input/output error", "virt-ssh-helper"},
        {"packet 1466263916 bytes received from server too large, want 33554432", "must print nothing"},
        {"unable to connect to server at 'b:16514': Connection refused", "libvirtd-tls.socket"},
        {"unable to connect to server at 'b:17000': Connection refused", "libvirtd-tls.socket"},
        {"Failed to connect socket to '/var/run/libvirt/libvirt-sock': No such file or directory", "systemctl start"},
        {"Failed to connect socket to '/var/run/libvirt/libvirt-sock': Permission denied", "group libvirt"},
        {"Failed to connect socket to '/run/pcmig/tunnel/a.sock': No such file or directory", NULL},
        {"authentication failed: Failed to verify peer's certificate", "openssl s_client"},
        {"CA certificate '/etc/pki/CA/cacert.pem' does not exist: No such file or directory", "pkipath"},
        {"Unable to resolve address 'b' service '16514': Name or service not known", "the URI"},
        {"unable to resolve address 'b' service '17000': Name or service not known", "the URI"},
        {"End of file while reading data: Input/output error", "max_clients"},
        {"no answer from qemu+ssh://b/system within 10.0 s", NULL},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const char *hint = pcmig_hint_connecting(cases[i].message);

        if (cases[i].says == NULL) {
            assert_null(hint);
        } else {
            assert_non_null(hint);
            assert_non_null(strstr(hint, cases[i].says));
        }
    }
}

/* Nothing but the words of who knows names userfaultfd as the cause. */
static void no_cause_is_guessed(void **state)
{
    static const char *const messages[] = {
        QMP "Postcopy is not supported",
        QMP "Postcopy is not supported: Host backend files need to be TMPFS or HUGETLBFS only",
        QMP "Postcopy is not supported: munlockall() failed",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(messages) / sizeof(messages[0]); i++) {
        const char *hint = pcmig_hint(messages[i]);

        assert_true(hint == NULL || strstr(hint, "denies") == NULL);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hints),
        cmocka_unit_test(hints_on_connecting),
        cmocka_unit_test(no_cause_is_guessed),
    };

    return cmocka_run_group_tests_name("hints", tests, NULL, NULL);
}
