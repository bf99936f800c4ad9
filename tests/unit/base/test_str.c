/* Slices: absent strings everywhere, and numbers at their edges. */
#include "base/str.c"

#include "unit.h"

#include <inttypes.h>

static void comparing(void **state)
{
        (void)state;
        assert_true(str_ieq(STR("Content-LENGTH"), STR("content-length")));
        assert_false(str_ieq(STR("a["), STR("a{"))); /* 0x20 apart but no letters */
        assert_false(str_ieq(STR("ab"), STR("abc")));
        assert_true(str_ieq(STR_NONE, STR("")));
        assert_true(str_eq(STR_NONE, STR("")));
        assert_true(str_istarts(STR("BEARER x"), STR("bearer ")));
        assert_false(str_istarts(STR("bear"), STR("bearer")));
        assert_true(str_istarts(STR_NONE, STR_NONE));
        assert_true(str_cmp(STR("a"), STR("b")) < 0);
        assert_true(str_cmp(STR("ab"), STR("a")) > 0);
        assert_true(str_cmp(STR("\xff"), STR("a")) > 0);
        assert_int_equal(str_cmp(STR_NONE, STR("")), 0);
        assert_true(str_cmp(STR_NONE, STR("a")) < 0);
        assert_true(str_starts(STR("/x"), STR("/")) && !str_starts(STR(""), STR("/")));
        assert_true(str_ends(STR("a.b"), STR(".b")) && !str_ends(STR("b"), STR(".b")));
        for (int c = 0; c < 256; c++)
                assert_int_equal(str_lower_table[c], c >= 'A' && c <= 'Z' ? c + 32 : c);
}

static void searching(void **state)
{
        str head, rest;

        (void)state;
        assert_int_equal(str_chr(STR("a:b:c"), ':'), 1);
        assert_int_equal(str_rchr(STR("a:b:c"), ':'), 3);
        assert_int_equal(str_chr(STR_NONE, ':'), -1);
        assert_int_equal(str_rchr(STR_NONE, ':'), -1);
        assert_int_equal(str_find(STR("abcabd"), STR("abd")), 3);
        assert_int_equal(str_find(STR("ab"), STR("abc")), -1);
        assert_int_equal(str_find(STR_NONE, STR("")), 0);
        assert_int_equal(str_find(STR_NONE, STR("a")), -1);
        ASSERT_STR(str_trim(STR(" \t a b\t ")), "a b");
        ASSERT_STR(str_trim(STR(" \t")), "");
        assert_null(str_trim(STR_NONE).p);
        assert_true(str_cut(STR("k=v=w"), '=', &head, &rest));
        ASSERT_STR(head, "k");
        ASSERT_STR(rest, "v=w");
        assert_true(str_cut(STR("k="), '=', &head, &rest));
        assert_true(rest.p != NULL && rest.n == 0);
        assert_false(str_cut(STR("kv"), '=', &head, &rest));
        ASSERT_STR(head, "kv");
        assert_null(rest.p);
        assert_false(str_has_ctl(STR("a\tb \x80\xff")));
        assert_true(str_has_ctl(STR("a\nb")));
        assert_true(str_has_ctl(STR("a\0b")));
        assert_true(str_has_ctl(STR("\x7f")));
        assert_false(str_has_ctl(STR_NONE));
}

static void numbers(void **state)
{
        static const struct {
                const char *text;
                uint64_t max;
                bool ok;
                uint64_t value;
        } rows[] = {
                {"0", 10, true, 0},
                {"007", 10, true, 7},
                {"10", 10, true, 10},
                {"11", 10, false, 0},
                {"5", 3, false, 0},
                {"3", 3, true, 3},
                {"0", 0, true, 0},
                {"1", 0, false, 0},
                {"18446744073709551615", UINT64_MAX, true, UINT64_MAX},
                {"18446744073709551616", UINT64_MAX, false, 0},
                {"99999999999999999999999", UINT64_MAX, false, 0},
                {"", 10, false, 0},
                {"-1", 10, false, 0},
                {"+1", 10, false, 0},
                {" 1", 10, false, 0},
                {"1 ", 10, false, 0},
                {"1a", 100, false, 0},
                {"0x1", 100, false, 0},
        };
        uint64_t v;

        (void)state;
        for (size_t i = 0; i < COUNT(rows); i++) {
                v = 4711;
                assert_int_equal(str_u64(str_z(rows[i].text), rows[i].max, &v), rows[i].ok);
                assert_int_equal(v, rows[i].ok ? rows[i].value : 4711);
        }
        assert_false(str_u64(STR_NONE, 10, &v));
        assert_true(str_hex64(STR("fF"), 255, &v));
        assert_int_equal(v, 255);
        assert_false(str_hex64(STR("100"), 255, &v));
        assert_false(str_hex64(STR("g"), 255, &v));
        assert_true(str_hex64(STR("ffffffffffffffff"), UINT64_MAX, &v));
        assert_int_equal(v, UINT64_MAX);
        assert_false(str_hex64(STR("10000000000000000"), UINT64_MAX, &v));
}

static void digits(void **state)
{
        static const uint64_t values[] = {0, 9, 10, 99, 12345, UINT64_MAX};

        (void)state;
        for (size_t i = 0; i < COUNT(values); i++) {
                char want[24], got[24];
                size_t n = str_put_u64(got, values[i]);
                assert_int_equal(n, snprintf(want, sizeof(want), "%" PRIu64, values[i]));
                assert_memory_equal(got, want, n);
        }
}

static void doubles(void **state)
{
        static const struct {
                double v;
                const char *text;
        } rows[] = {{0, "0"},           {0.1, "0.1"},
                    {-1.5, "-1.5"},     {1e300, "1e+300"},
                    {INFINITY, "+Inf"}, {-INFINITY, "-Inf"},
                    {NAN, "NaN"},       {1.0 / 3, "0.33333333333333331"}};
        char buf[STR_DOUBLE_MAX];

        (void)state;
        for (size_t i = 0; i < COUNT(rows); i++)
                assert_true(
                        str_eq(str_of(buf, str_put_double(buf, rows[i].v)), str_z(rows[i].text)));
}

static void utf8(void **state)
{
        (void)state;
        assert_int_equal(str_utf8(STR("a\x80")), 1);
        assert_int_equal(str_utf8(STR("\0")), 1);
        assert_int_equal(str_utf8(STR("\xc2\x80z")), 2);
        assert_int_equal(str_utf8(STR("\xe0\xa0\x80")), 3);
        assert_int_equal(str_utf8(STR("\xed\x9f\xbf")), 3);
        assert_int_equal(str_utf8(STR("\xf4\x8f\xbf\xbf")), 4);
        assert_int_equal(str_utf8(STR("\xc1\x80")), 0);
        assert_int_equal(str_utf8(STR("\xc2")), 0);
        assert_int_equal(str_utf8(STR("\xc2\xc0")), 0);
        assert_int_equal(str_utf8(STR("\xe0\x9f\x80")), 0);
        assert_int_equal(str_utf8(STR("\xed\xa0\x80")), 0);
        assert_int_equal(str_utf8(STR("\xf0\x8f\x80\x80")), 0);
        assert_int_equal(str_utf8(STR("\xf4\x90\x80\x80")), 0);
        assert_int_equal(str_utf8(STR("\xf1\x80\x80\x7f")), 0);
        assert_int_equal(str_utf8(STR_NONE), 0);
}

static void copies(void **state)
{
        char buf[4] = "zzz", *z;

        (void)state;
        assert_true(str_copyz(buf, sizeof(buf), STR("abc")));
        assert_string_equal(buf, "abc");
        assert_false(str_copyz(buf, sizeof(buf), STR("abcd")));
        assert_false(str_copyz(buf, sizeof(buf), STR("a\0")));
        assert_string_equal(buf, "abc");
        assert_true(str_copyz(buf, sizeof(buf), STR_NONE));
        assert_string_equal(buf, "");
        z = str_dupz(STR_NONE);
        assert_string_equal(z, "");
        free(z);
        z = str_dupz(STR("abc"));
        assert_string_equal(z, "abc");
        free(z);
}

static void distance(void **state)
{
        char big[100] = "";

        (void)state;
        assert_int_equal(str_distance(STR("upstream"), STR("upstraem"), 3), 2);
        assert_int_equal(str_distance(STR("kitten"), STR("sitting"), 3), 3);
        assert_int_equal(str_distance(STR("kitten"), STR("sitting"), 2), 3);
        assert_int_equal(str_distance(STR(""), STR("ab"), 2), 2);
        assert_int_equal(str_distance(STR_NONE, STR_NONE, 2), 0);
        assert_int_equal(str_distance(STR("a"), STR("abcdef"), 2), 3);
        assert_int_equal(str_distance(str_of(big, 100), str_of(big, 99), 2), 3);
        assert_int_equal(str_distance(STR("abcdefgh"), STR("hgfedcba"), 2), 3);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(comparing), cmocka_unit_test(searching), cmocka_unit_test(numbers),
                cmocka_unit_test(digits),    cmocka_unit_test(doubles),   cmocka_unit_test(utf8),
                cmocka_unit_test(copies),    cmocka_unit_test(distance),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
