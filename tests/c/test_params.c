/* SPDX-License-Identifier: Apache-2.0 */
/* Every threshold has a sound row, and only values within its bounds are taken. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdbool.h>
#include <string.h>

#include "core/params.h"

static bool ends_with(const char *text, const char *end)
{
    return strlen(text) >= strlen(end) && strcmp(text + strlen(text) - strlen(end), end) == 0;
}

static void rows_are_sound(void **state)
{
    static const char *const units[][2] = {
        {"ms", "_ms"}, {"permille", "_permille"}, {"MiB/s", "_mib"}, {"passes", "passes"}, {"0 or 1", ""}};

    (void)state;
    for (int i = 0; i < PCMIG_PARAM_COUNT; i++) {
        const struct pcmig_param_row *row = pcmig_params_row((enum pcmig_param)i);
        bool unit_known = false;

        assert_non_null(row);
        assert_true(row->min <= row->def && row->def <= row->max);
        assert_true(row->min >= 0);
        assert_true(row->max <= INT64_MAX / 1000000); /* milliseconds become microseconds */
        for (size_t u = 0; u < sizeof(units) / sizeof(units[0]); u++)
            unit_known = unit_known || (strcmp(row->unit, units[u][0]) == 0 && ends_with(row->name, units[u][1]));
        assert_true(unit_known);
        assert_int_equal(row->doc[strlen(row->doc) - 1], '.');
        assert_int_equal(pcmig_params_find(row->name, strlen(row->name)), i);
        assert_int_equal(pcmig_params_find(row->name, strlen(row->name) - 1), -1);
    }
    assert_null(pcmig_params_row(PCMIG_PARAM_COUNT));
    assert_null(pcmig_params_row((enum pcmig_param) - 1));
    assert_int_equal(pcmig_params_find("", 0), -1);
    assert_int_equal(pcmig_params_find("Passes", 6), -1);
}

static void bounds_hold(void **state)
{
    struct pcmig_params params, before;

    (void)state;
    pcmig_params_defaults(&params);
    for (int i = 0; i < PCMIG_PARAM_COUNT; i++) {
        const enum pcmig_param param = (enum pcmig_param)i;
        const struct pcmig_param_row *row = pcmig_params_row(param);
        const int64_t wrong[] = {row->min - 1, row->max + 1, INT64_MIN, INT64_MAX, -1};

        assert_int_equal(params.value[i], row->def);
        assert_int_equal(pcmig_params_set(&params, param, row->min), 0);
        assert_int_equal(params.value[i], row->min);
        assert_int_equal(pcmig_params_set(&params, param, row->max), 0);
        assert_int_equal(params.value[i], row->max);
        before = params;
        for (size_t w = 0; w < sizeof(wrong) / sizeof(wrong[0]); w++)
            assert_int_equal(pcmig_params_set(&params, param, wrong[w]), -1);
        assert_memory_equal(&params, &before, sizeof(params));
    }
    assert_int_equal(pcmig_params_set(&params, PCMIG_PARAM_COUNT, 1), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_sound),
        cmocka_unit_test(bounds_hold),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
