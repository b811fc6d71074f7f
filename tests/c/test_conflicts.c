/* SPDX-License-Identifier: Apache-2.0 */
/* Every rule about flags that do not go together: when it holds, when it does not, and that its remedy helps. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "core/conflicts.h"

#define V       PCMIG_FLAGS_VERSION
#define F(name) PCMIG_FLAG_##name
/* Flags about which nothing is to be said, outside Nova and in it. */
#define CLEAN   (F(LIVE) | F(PEER2PEER) | F(PERSIST_DEST) | F(UNDEFINE_SOURCE))

static const struct pcmig_conflicts_context nobody = {0, 0, false}, nova = {0, 0, true};

static const struct pcmig_conflicts_finding *find(const char *name, uint32_t bits,
                                                  const struct pcmig_conflicts_context *context)
{
    static struct pcmig_conflicts_finding found[PCMIG_CONFLICTS_MAX];
    const size_t n = pcmig_conflicts_check(bits, context, found);

    assert_true(n <= PCMIG_CONFLICTS_MAX);
    for (size_t i = 0; i < n; i++) {
        if (found[i].row != NULL && strcmp(found[i].row->name, name) == 0)
            return &found[i];
    }
    return NULL;
}

static size_t errors_of(uint32_t bits, const struct pcmig_conflicts_context *context)
{
    struct pcmig_conflicts_finding found[PCMIG_CONFLICTS_MAX];
    const size_t n = pcmig_conflicts_check(bits, context, found);
    size_t errors = 0;

    for (size_t i = 0; i < n; i++)
        errors += found[i].severity == PCMIG_CONFLICTS_ERROR;
    return errors;
}

static void nothing_about_clean_flags(void **state)
{
    struct pcmig_conflicts_finding found[PCMIG_CONFLICTS_MAX];

    (void)state;
    assert_int_equal(pcmig_conflicts_check(CLEAN, &nobody, found), 0);
    assert_int_equal(pcmig_conflicts_check(CLEAN, &nova, found), 0);
    assert_int_equal(pcmig_conflicts_check(CLEAN | F(POSTCOPY), &nobody, found), 0);
    assert_int_equal(pcmig_conflicts_check(CLEAN | F(POSTCOPY) | F(TLS), &nova, found), 0);
}

/* The rules by hand, so that a slip in the table shows. `with` holds, `without` does not. */
static void each_rule(void **state)
{
    static const struct {
        const char *name;
        uint32_t with;
        uint32_t without;
        struct pcmig_conflicts_context context;
        enum pcmig_conflicts_severity severity;
    } cases[] = {
        {"postcopy-tunnelled", CLEAN | F(POSTCOPY) | F(TUNNELLED), CLEAN | F(TUNNELLED), {0}, PCMIG_CONFLICTS_ERROR},
        {"nova-postcopy-tunnelled",
         CLEAN | F(POSTCOPY) | F(TUNNELLED),
         CLEAN | F(TUNNELLED),
         {0, 0, true},
         PCMIG_CONFLICTS_WARNING},
        {"postcopy-not-live", F(POSTCOPY), F(POSTCOPY) | F(LIVE), {0}, PCMIG_CONFLICTS_ERROR},
        {"postcopy-paused", CLEAN | F(POSTCOPY) | F(PAUSED), CLEAN | F(PAUSED), {0}, PCMIG_CONFLICTS_ERROR},
        {"postcopy-offline", CLEAN | F(POSTCOPY) | F(OFFLINE), CLEAN | F(OFFLINE), {0}, PCMIG_CONFLICTS_ERROR},
        {"postcopy-parallel",
         CLEAN | F(POSTCOPY) | F(PARALLEL),
         CLEAN | F(PARALLEL),
         {V(10, 0, 2), 0, false},
         PCMIG_CONFLICTS_ERROR},
        {"resume-not-postcopy",
         CLEAN | F(POSTCOPY_RESUME),
         CLEAN | F(POSTCOPY_RESUME) | F(POSTCOPY),
         {0},
         PCMIG_CONFLICTS_ERROR},
        {"tunnelled-not-peer2peer", F(LIVE) | F(TUNNELLED), CLEAN | F(TUNNELLED), {0}, PCMIG_CONFLICTS_ERROR},
        {"tunnelled-parallel", CLEAN | F(TUNNELLED) | F(PARALLEL), CLEAN | F(PARALLEL), {0}, PCMIG_CONFLICTS_ERROR},
        {"tunnelled-storage",
         CLEAN | F(TUNNELLED) | F(NON_SHARED_INC),
         CLEAN | F(NON_SHARED_INC),
         {0},
         PCMIG_CONFLICTS_ERROR},
        {"tunnelled-storage",
         CLEAN | F(TUNNELLED) | F(NON_SHARED_DISK),
         CLEAN | F(TUNNELLED),
         {0},
         PCMIG_CONFLICTS_ERROR},
        {"tunnelled-offline", CLEAN | F(TUNNELLED) | F(OFFLINE), CLEAN | F(OFFLINE), {0}, PCMIG_CONFLICTS_ERROR},
        {"zerocopy-not-parallel", CLEAN | F(ZEROCOPY), CLEAN | F(ZEROCOPY) | F(PARALLEL), {0}, PCMIG_CONFLICTS_ERROR},
        {"zerocopy-tls",
         CLEAN | F(ZEROCOPY) | F(PARALLEL) | F(TLS),
         CLEAN | F(ZEROCOPY) | F(PARALLEL),
         {0},
         PCMIG_CONFLICTS_ERROR},
        {"zerocopy-compressed", CLEAN | F(ZEROCOPY) | F(COMPRESSED), CLEAN | F(COMPRESSED), {0}, PCMIG_CONFLICTS_ERROR},
        {"parallel-compressed", CLEAN | F(PARALLEL) | F(COMPRESSED), CLEAN | F(COMPRESSED), {0}, PCMIG_CONFLICTS_ERROR},
        {"storage-twice",
         CLEAN | F(NON_SHARED_DISK) | F(NON_SHARED_INC),
         CLEAN | F(NON_SHARED_DISK),
         {0},
         PCMIG_CONFLICTS_ERROR},
        {"synchronous-not-storage",
         CLEAN | F(NON_SHARED_SYNCHRONOUS_WRITES),
         CLEAN | F(NON_SHARED_SYNCHRONOUS_WRITES) | F(NON_SHARED_INC),
         {0},
         PCMIG_CONFLICTS_ERROR},
        {"offline-not-persistent", F(OFFLINE), F(OFFLINE) | F(PERSIST_DEST), {0}, PCMIG_CONFLICTS_ERROR},
        {"offline-storage", CLEAN | F(OFFLINE) | F(NON_SHARED_DISK), CLEAN | F(OFFLINE), {0}, PCMIG_CONFLICTS_ERROR},
        {"nova-offline", CLEAN | F(OFFLINE), CLEAN, {0, 0, true}, PCMIG_CONFLICTS_ERROR},
        {"nova-paused", CLEAN | F(PAUSED), CLEAN, {0, 0, true}, PCMIG_CONFLICTS_ERROR},
        {"nova-resume",
         CLEAN | F(POSTCOPY) | F(POSTCOPY_RESUME),
         CLEAN | F(POSTCOPY),
         {0, 0, true},
         PCMIG_CONFLICTS_ERROR},
        {"nova-tunnelled-tls",
         CLEAN | F(TUNNELLED) | F(TLS),
         CLEAN | F(TUNNELLED),
         {0, 0, true},
         PCMIG_CONFLICTS_ERROR},
        {"tunnelled-tls", CLEAN | F(TUNNELLED) | F(TLS), CLEAN | F(TLS), {0}, PCMIG_CONFLICTS_WARNING},
        {"postcopy-auto-converge",
         CLEAN | F(POSTCOPY) | F(AUTO_CONVERGE),
         CLEAN | F(AUTO_CONVERGE),
         {0},
         PCMIG_CONFLICTS_WARNING},
        {"postcopy-compressed",
         CLEAN | F(POSTCOPY) | F(COMPRESSED),
         CLEAN | F(COMPRESSED),
         {0},
         PCMIG_CONFLICTS_WARNING},
        {"resume-libvirt-11.2",
         CLEAN | F(POSTCOPY) | F(POSTCOPY_RESUME),
         CLEAN | F(POSTCOPY),
         {0, V(11, 2, 0), false},
         PCMIG_CONFLICTS_WARNING},
        {"offline-live", F(OFFLINE) | F(LIVE), F(OFFLINE), {0}, PCMIG_CONFLICTS_WARNING},
        {"not-live", F(PEER2PEER), F(LIVE), {0}, PCMIG_CONFLICTS_WARNING},
        {"undefine-not-persist", F(LIVE) | F(UNDEFINE_SOURCE), CLEAN, {0}, PCMIG_CONFLICTS_WARNING},
        {"persist-not-undefine", F(LIVE) | F(PERSIST_DEST), CLEAN, {0}, PCMIG_CONFLICTS_WARNING},
        {"rdma-tunnelled",
         CLEAN | F(RDMA_PIN_ALL) | F(TUNNELLED),
         CLEAN | F(RDMA_PIN_ALL),
         {0},
         PCMIG_CONFLICTS_WARNING},
        {"nova-rdma", CLEAN | F(RDMA_PIN_ALL), CLEAN, {0, 0, true}, PCMIG_CONFLICTS_WARNING},
        {"nova-storage", CLEAN | F(NON_SHARED_INC), CLEAN, {0, 0, true}, PCMIG_CONFLICTS_WARNING},
        {"nova-storage", CLEAN | F(NON_SHARED_DISK), CLEAN, {0, 0, true}, PCMIG_CONFLICTS_WARNING},
    };
    const size_t count = sizeof(cases) / sizeof(cases[0]);
    const struct pcmig_conflicts_row *row;

    (void)state;
    for (size_t i = 0; i < count; i++) {
        const struct pcmig_conflicts_finding *finding = find(cases[i].name, cases[i].with, &cases[i].context);

        if (finding == NULL)
            fail_msg("%s does not hold for 0x%x", cases[i].name, (unsigned)cases[i].with);
        assert_int_equal(finding->severity, cases[i].severity);
        assert_false(finding->uncertain);
        if (find(cases[i].name, cases[i].without, &cases[i].context) != NULL)
            fail_msg("%s holds for 0x%x", cases[i].name, (unsigned)cases[i].without);
    }
    for (size_t i = 0; (row = pcmig_conflicts_row(i)) != NULL; i++) {
        bool tested = false;

        for (size_t j = 0; j < count && !tested; j++)
            tested = strcmp(cases[j].name, row->name) == 0;
        if (!tested)
            fail_msg("%s has no case here", row->name);
    }
}

/* What can be said of any row: the conditions are conditions, and the remedy takes the rule away. */
static void rows_are_sound(void **state)
{
    const struct pcmig_conflicts_row *row;
    bool warnings = false;

    (void)state;
    for (size_t i = 0; (row = pcmig_conflicts_row(i)) != NULL; i++) {
        const uint32_t bits = row->all | (row->any & (~row->any + 1));
        const struct pcmig_conflicts_context context = {row->qemu_before ? row->qemu_before - 1 : 0, row->libvirt_from,
                                                        row->user == PCMIG_CONFLICTS_NOVA};
        const struct pcmig_conflicts_context other = {context.qemu_version, context.libvirt_version, !context.nova};

        assert_int_equal((row->all | row->any | row->none | row->add | row->drop) & ~PCMIG_FLAGS_ALL, 0);
        assert_int_equal((row->all | row->any) & row->none, 0);
        assert_int_equal(row->add & ~row->none, 0); /* what it adds is what was missing */
        assert_true(row->drop == 0 || (row->drop & (row->all | row->any)) != 0);
        assert_non_null(find(row->name, bits, &context));
        assert_non_null(find(row->name, PCMIG_FLAGS_ALL & ~row->none, &context));
        for (uint32_t bit = 1; bit <= PCMIG_FLAGS_ALL; bit <<= 1) {
            if (row->all & bit)
                assert_null(find(row->name, bits & ~bit, &context));
            if (row->none & bit)
                assert_null(find(row->name, bits | bit, &context));
        }
        if (row->any != 0)
            assert_null(find(row->name, bits & ~row->any, &context));
        if (row->user == PCMIG_CONFLICTS_ANYONE)
            assert_non_null(find(row->name, bits, &other));
        else
            assert_null(find(row->name, bits, &other));
        if (row->add | row->drop)
            assert_null(find(row->name, (bits & ~row->drop) | row->add, &context));
        assert_true(strlen(row->problem) > 10 && strlen(row->remedy) > 10);
        assert_true(row->severity == PCMIG_CONFLICTS_WARNING || !warnings); /* errors first */
        warnings = row->severity == PCMIG_CONFLICTS_WARNING;
        for (size_t j = 0; j < i; j++)
            assert_string_not_equal(row->name, pcmig_conflicts_row(j)->name);
    }
}

static void version_of_qemu(void **state)
{
    const uint32_t bits = CLEAN | F(POSTCOPY) | F(PARALLEL);
    const struct pcmig_conflicts_context old = {V(10, 0, 99), 0, false}, new = {V(10, 1, 0), 0, false};
    const struct pcmig_conflicts_finding *finding;
    char buf[512];

    (void)state;
    assert_int_equal(find("postcopy-parallel", bits, &old)->severity, PCMIG_CONFLICTS_ERROR);
    assert_null(find("postcopy-parallel", bits, &new));
    finding = find("postcopy-parallel", bits, &nobody);
    assert_non_null(finding);
    assert_int_equal(finding->severity, PCMIG_CONFLICTS_WARNING);
    assert_true(finding->uncertain);
    assert_true(pcmig_conflicts_describe(finding, &nobody, buf, sizeof(buf)) < (int)sizeof(buf));
    assert_non_null(strstr(buf, "the version of QEMU is not known here"));
    assert_int_equal(pcmig_conflicts_resolve(bits, &nobody), bits);
    assert_int_equal(pcmig_conflicts_resolve(bits, &old), bits & ~F(PARALLEL));
}

static void version_of_libvirt(void **state)
{
    const uint32_t bits = CLEAN | F(POSTCOPY) | F(PARALLEL) | F(ZEROCOPY);
    const struct pcmig_conflicts_context old = {V(10, 1, 0), V(8, 4, 0), false},
                                         same = {V(10, 1, 0), V(8, 5, 0), false};
    struct pcmig_conflicts_finding found[PCMIG_CONFLICTS_MAX];
    char buf[512];

    (void)state;
    assert_int_equal(pcmig_conflicts_check(bits, &old, found), 1);
    assert_int_equal(found[0].severity, PCMIG_CONFLICTS_ERROR);
    assert_int_equal(found[0].bits, F(ZEROCOPY));
    (void)pcmig_conflicts_describe(&found[0], &old, buf, sizeof(buf));
    assert_string_equal(buf,
                        "VIR_MIGRATE_ZEROCOPY came with libvirt 8.5.0, and this is 8.4.0; remove it, or upgrade both "
                        "hosts");
    assert_int_equal(pcmig_conflicts_resolve(bits, &old), bits & ~F(ZEROCOPY));
    assert_int_equal(pcmig_conflicts_check(bits, &same, found), 0);
    assert_null(find("resume-libvirt-11.2", F(POSTCOPY_RESUME), &nobody));
    assert_non_null(
        find("resume-libvirt-11.2", F(POSTCOPY_RESUME), &(struct pcmig_conflicts_context){0, V(11, 3, 99), false}));
    assert_null(
        find("resume-libvirt-11.2", F(POSTCOPY_RESUME), &(struct pcmig_conflicts_context){0, V(11, 4, 0), false}));
    assert_null(
        find("resume-libvirt-11.2", F(POSTCOPY_RESUME), &(struct pcmig_conflicts_context){0, V(11, 1, 99), false}));
}

static void bits_of_no_flag(void **state)
{
    struct pcmig_conflicts_finding found[PCMIG_CONFLICTS_MAX];
    char buf[512];

    (void)state;
    assert_int_equal(pcmig_conflicts_check(CLEAN | 0x80000000u, &nobody, found), 1);
    assert_int_equal(found[0].bits, 0x80000000u);
    (void)pcmig_conflicts_describe(&found[0], &nobody, buf, sizeof(buf));
    assert_string_equal(buf, "0x80000000 is no migration flag of libvirt; remove it");
    assert_int_equal(pcmig_conflicts_resolve(CLEAN | 0x80000000u, &nobody), CLEAN);
    /* The worst case has room. */
    assert_true(pcmig_conflicts_check(UINT32_MAX, &(struct pcmig_conflicts_context){1, 1, true}, found) <=
                PCMIG_CONFLICTS_MAX);
}

static void describing(void **state)
{
    const struct pcmig_conflicts_row *row;
    char buf[512];

    (void)state;
    for (size_t i = 0; (row = pcmig_conflicts_row(i)) != NULL; i++) {
        const struct pcmig_conflicts_finding finding = {.uncertain = true, .row = row};

        assert_true(pcmig_conflicts_describe(&finding, &nobody, buf, sizeof(buf)) < 400);
        assert_non_null(strstr(buf, row->problem));
        assert_non_null(strstr(buf, row->remedy));
    }
    (void)pcmig_conflicts_describe(find("postcopy-tunnelled", F(POSTCOPY) | F(TUNNELLED), &nobody), &nobody, buf,
                                   sizeof(buf));
    assert_non_null(strstr(buf, "pcmig tunnel"));
}

/* All sets of flags, or those that are spread over them, with each kind of context. */
static void resolving_leaves_no_error(void **state)
{
    static const struct pcmig_conflicts_context contexts[] = {
        {0, 0, false}, {0, 0, true}, {V(7, 2, 0), V(8, 0, 0), false}, {V(11, 1, 2), V(11, 3, 0), true}};

    (void)state;
    for (size_t c = 0; c < sizeof(contexts) / sizeof(contexts[0]); c++) {
        for (uint32_t bits = 0; bits <= PCMIG_FLAGS_ALL; bits += 1 + bits % 29) {
            const uint32_t resolved = pcmig_conflicts_resolve(bits, &contexts[c]);

            if (errors_of(resolved, &contexts[c]) > 0 || pcmig_conflicts_resolve(resolved, &contexts[c]) != resolved)
                fail_msg("0x%x resolves to 0x%x, which has errors or resolves further", (unsigned)bits,
                         (unsigned)resolved);
            if ((bits & F(POSTCOPY)) && !(resolved & F(POSTCOPY)))
                fail_msg("0x%x loses post-copy", (unsigned)bits);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_about_clean_flags),
        cmocka_unit_test(each_rule),
        cmocka_unit_test(rows_are_sound),
        cmocka_unit_test(version_of_qemu),
        cmocka_unit_test(version_of_libvirt),
        cmocka_unit_test(bits_of_no_flag),
        cmocka_unit_test(describing),
        cmocka_unit_test(resolving_leaves_no_error),
    };

    return cmocka_run_group_tests_name("conflicts", tests, NULL, NULL);
}
