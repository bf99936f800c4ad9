/*
 * Accept-Encoding: weights, what is named and what is not, and what is chosen of an offer.
 */
#include "../base/unit.h"

#include <weir/module.h>

#include "../../../modules/accept.h"

static struct accept_wishes said(const char *field)
{
        struct accept_wishes w = ACCEPT_NOTHING_SAID;

        accept_read(&w, weir_bytes(field, strlen(field)));
        return w;
}

static int32_t chosen(const char *field)
{
        static const int32_t offered[] = {ACCEPT_ZSTD, ACCEPT_BROTLI, ACCEPT_GZIP};
        struct accept_wishes w = said(field);

        return accept_best(&w, offered, WEIR_COUNT(offered));
}

static int weight(const char *text)
{
        return accept_weight(weir_bytes(text, strlen(text)));
}

static void test_weights(void **state)
{
        (void)state;
        assert_int_equal(weight("1"), 1000);
        assert_int_equal(weight("1."), 1000);
        assert_int_equal(weight("1.000"), 1000);
        assert_int_equal(weight("0"), 0);
        assert_int_equal(weight("0.001"), 1);
        assert_int_equal(weight("0.25"), 250);
        assert_int_equal(weight("0.9"), 900);
        /* none of these is a weight */
        assert_int_equal(weight(""), 0);
        assert_int_equal(weight("1.001"), 0);
        assert_int_equal(weight("0.1234"), 0);
        assert_int_equal(weight("2"), 0);
        assert_int_equal(weight(".5"), 0);
        assert_int_equal(weight("0,5"), 0);
        assert_int_equal(weight("0.5x"), 0);
        assert_int_equal(weight("-0.5"), 0);
}

static void test_what_is_named(void **state)
{
        struct accept_wishes w = said(" GZip ;x=1; q=0.5 ,, br\t;Q=0.25,deflate,identity;q=0");

        (void)state;
        assert_int_equal(w.of[ACCEPT_GZIP], 500);
        assert_int_equal(w.of[ACCEPT_BROTLI], 250);
        assert_int_equal(w.of[ACCEPT_ZSTD], -1);
        assert_int_equal(w.identity, 0);
        assert_int_equal(w.any, -1);
        w = said("x-gzip, gzip;q=0, *;q=0.1");
        assert_int_equal(w.of[ACCEPT_GZIP], 0);
        assert_int_equal(w.any, 100);
        accept_read(&w, WEIR_STR("gzip")); /* another field: the last word counts */
        assert_int_equal(w.of[ACCEPT_GZIP], 1000);
}

static void test_what_is_chosen(void **state)
{
        (void)state;
        assert_int_equal(chosen(""), -1);
        assert_int_equal(chosen("deflate"), -1);
        assert_int_equal(chosen("gzip"), ACCEPT_GZIP);
        assert_int_equal(chosen("gzip, br, zstd"), ACCEPT_ZSTD); /* the offer's order */
        assert_int_equal(chosen("gzip;q=0.9, br;q=0.8, zstd;q=0"), ACCEPT_GZIP);
        assert_int_equal(chosen("*"), ACCEPT_ZSTD);
        assert_int_equal(chosen("*, zstd;q=0"), ACCEPT_BROTLI);
        assert_int_equal(chosen("*;q=0"), -1);
        assert_int_equal(chosen("gzip;q=0"), -1);
        assert_int_equal(chosen("gzip;q=nonsense"), -1);
        assert_int_equal(chosen("identity, gzip;q=0.5"), -1);
        assert_int_equal(chosen("identity;q=0.5, gzip;q=0.5"), ACCEPT_GZIP);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_weights),
                cmocka_unit_test(test_what_is_named),
                cmocka_unit_test(test_what_is_chosen),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
