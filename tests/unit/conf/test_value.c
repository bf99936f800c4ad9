/* Units at their edges, and that printing and reading agree. */
#include "conf/value.c"

#include "../base/unit.h"

static void durations(void **state)
{
        static const struct {
                const char *text;
                int64_t us;
        } good[] = {{"0", 0},
                    {"0s", 0},
                    {"250ms", 250000},
                    {"5s", 5000000},
                    {"2m", 120000000},
                    {"1h", 3600000000},
                    {"7d", 604800000000},
                    {"9223372036854775ms", INT64_C(9223372036854775000)}};
        static const char *const bad[] = {"",
                                          "5",
                                          "s",
                                          "-1s",
                                          "1.5s",
                                          "5 s",
                                          "5S",
                                          "5us",
                                          "1m30s",
                                          "9223372036854776ms",
                                          "99999999999999999999d"};
        int64_t v;

        (void)state;
        for (size_t i = 0; i < COUNT(good); i++) {
                assert_true(value_time(str_z(good[i].text), &v));
                assert_int_equal(v, good[i].us);
        }
        for (size_t i = 0; i < COUNT(bad); i++) {
                v = 7;
                if (value_time(str_z(bad[i]), &v))
                        fail_msg("%s", bad[i]);
                assert_int_equal(v, 7);
        }
}

static void amounts(void **state)
{
        static const struct {
                const char *text;
                int64_t bytes;
        } good[] = {{"0", 0},        {"512", 512},       {"8k", 8192},
                    {"1m", 1048576}, {"2g", 2147483648}, {"9223372036854775807", INT64_MAX}};
        static const char *const bad[] = {
                "", "k", "8K", "8kb", "-1", "1.5m", "9223372036854775808", "9007199254740992k"};
        int64_t v;

        (void)state;
        for (size_t i = 0; i < COUNT(good); i++) {
                assert_true(value_size(str_z(good[i].text), &v));
                assert_int_equal(v, good[i].bytes);
        }
        for (size_t i = 0; i < COUNT(bad); i++)
                assert_false(value_size(str_z(bad[i]), &v));
}

static void numbers(void **state)
{
        static const char *const bad[] = {
                "", "-", "%", ".", "1.2.3", "1e3", "0x1", "1 ", "1111111111111111111111111"};
        int64_t i64;
        double d;
        bool b;

        (void)state;
        assert_true(value_int(STR("-5"), &i64) && i64 == -5);
        assert_true(value_int(STR("9223372036854775807"), &i64) && i64 == INT64_MAX);
        assert_false(value_int(STR("9223372036854775808"), &i64));
        assert_false(value_int(STR("--5"), &i64) || value_int(STR("+5"), &i64));
        assert_true(value_number(STR("0.25"), &d) && d == 0.25);
        assert_true(value_number(STR("50%"), &d) && d == 0.5);
        assert_true(value_number(STR("-.5"), &d) && d == -0.5);
        for (size_t i = 0; i < COUNT(bad); i++) {
                if (value_number(str_z(bad[i]), &d))
                        fail_msg("%s", bad[i]);
        }
        assert_true(value_bool(STR("on"), &b) && b);
        assert_true(value_bool(STR("off"), &b) && !b);
        assert_false(value_bool(STR("yes"), &b));
}

static void rates(void **state)
{
        static const struct {
                const char *text;
                int64_t count, per;
        } good[] = {{"100/s", 100, SEC},
                    {"600/m", 600, MINUTE},
                    {"20/60s", 20, MINUTE},
                    {"0/s", 0, SEC},
                    {"1/250ms", 1, 250 * MSEC}};
        static const char *const bad[] = {"",       "100",  "/s",    "100/",
                                          "100/0s", "-1/s", "1/s/s", "x/s"};
        weir_rate r;

        (void)state;
        for (size_t i = 0; i < COUNT(good); i++) {
                assert_true(value_rate(str_z(good[i].text), &r));
                assert_int_equal(r.count, good[i].count);
                assert_int_equal(r.per_us, good[i].per);
        }
        for (size_t i = 0; i < COUNT(bad); i++) {
                if (value_rate(str_z(bad[i]), &r))
                        fail_msg("%s", bad[i]);
        }
}

static void names(void **state)
{
        char longest[130];

        (void)state;
        memset(longest, 'a', sizeof longest);
        assert_true(value_name(STR("a-B_9.x")));
        assert_false(value_name(STR("")) || value_name(STR("a b")) || value_name(STR("a/b")));
        assert_true(value_name(str_of(longest, 128)));
        assert_false(value_name(str_of(longest, 129)));
}

static void printing(void **state)
{
        char text[VALUE_TEXT];
        int64_t v;

        (void)state;
        ASSERT_STR(value_time_text(90 * SEC, text), "90s");
        ASSERT_STR(value_time_text(120 * SEC, text), "2m");
        ASSERT_STR(value_time_text(0, text), "0s");
        ASSERT_STR(value_time_text(DAY, text), "1d");
        ASSERT_STR(value_size_text(1536, text), "1536");
        ASSERT_STR(value_size_text(3072, text), "3k");
        ASSERT_STR(value_size_text(0, text), "0");
        for (int64_t us = MSEC; us < INT64_MAX / 7; us *= 7) {
                assert_true(value_time(value_time_text(us, text), &v));
                assert_int_equal(v, us);
        }
        for (int64_t n = 1; n < INT64_MAX / 7; n *= 6) {
                assert_true(value_size(value_size_text((uint64_t)n, text), &v));
                assert_int_equal(v, n);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(durations), cmocka_unit_test(amounts), cmocka_unit_test(numbers),
                cmocka_unit_test(rates),     cmocka_unit_test(names),   cmocka_unit_test(printing),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
