/* What is counted of functions, from the parts of metrics. */
#include "daemon/functions.c"

#include "../base/unit.h"

static void labels_are_cut(void **state)
{
        static const struct {
                const char *labels, *label, *rest; /* NULL: absent */
        } row[] = {
                {"function=\"f\"", "function=\"f\"", NULL},
                {"function=\"f\",result=\"error\"", "function=\"f\"", "result=\"error\""},
                {"function=\"a\\\"b,c\",result=\"x\"", "function=\"a\\\"b,c\"", "result=\"x\""},
                {"function=\"a\\\\\"", "function=\"a\\\\\"", NULL},
                {"function=\"a\\\"", NULL, NULL},
                {"function=\"a", NULL, NULL},
                {"function=\"", NULL, NULL},
                {"route=\"f\"", NULL, NULL},
                {"", NULL, NULL},
        };

        (void)state;
        for (size_t i = 0; i < COUNT(row); i++) {
                str rest, label = cut_label(str_z(row[i].labels), &rest);
                assert_int_equal(label.p == NULL, row[i].label == NULL);
                assert_true(str_eq(label, str_z(row[i].label)));
                assert_true(str_eq(rest, str_z(row[i].rest)));
        }
}

static void shares_of_the_measured(void **state)
{
        static const double bounds[] = {1e-6, 1e-5, 1e-3};
        struct function_row r = {.bounds = bounds,
                                 .n_bounds = 3,
                                 .buckets = {50, 48, 1, 1},
                                 .measured = 100,
                                 .sum = 0.01};
        struct function_row none = {.measured = 0};

        (void)state;
        assert_int_equal(quantile_us(&r, 0.5), 1);
        assert_int_equal(quantile_us(&r, 0.51), 10);
        assert_int_equal(quantile_us(&r, 0.98), 10);
        assert_int_equal(quantile_us(&r, 0.99), 1000);
        assert_int_equal(quantile_us(&r, 1), 1000); /* beyond the last bound */
        assert_int_equal(mean_us(&r), 100);
        assert_int_equal(quantile_us(&none, 0.5), 0);
        assert_int_equal(mean_us(&none), 0);
}

static void times_are_short(void **state)
{
        struct arena *a = arena_new(0);

        (void)state;
        ASSERT_STR(time_text(a, 0.5), "0.5us");
        ASSERT_STR(time_text(a, 12.34), "12.3us");
        ASSERT_STR(time_text(a, 1500), "1.5ms");
        ASSERT_STR(time_text(a, 2e6), "2s");
        ASSERT_STR(printable(a, STR("1.0\x1b[2J\n")), "1.0?[2J?");
        arena_free(a);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(labels_are_cut),
                cmocka_unit_test(shares_of_the_measured),
                cmocka_unit_test(times_are_short),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
