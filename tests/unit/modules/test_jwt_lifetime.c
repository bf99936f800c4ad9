/*
 * How long an answer is good: max-age and Age, what forbids keeping, and what cannot be read.
 */
#include "../base/unit.h"

#define WEIR_MODULE_SHARED
#include <weir/module.h>

#include "../../../modules/jwt_lifetime.c"

static weir_kv field(const char *name, const char *value)
{
        return (weir_kv){weir_bytes(name, strlen(name)), weir_bytes(value, strlen(value))};
}

/* In seconds; -1: nothing is said. */
static int64_t good_for(const char *cache_control, const char *age)
{
        weir_kv v[] = {field("content-type", "max-age=1"), field("cache-control", cache_control),
                       field("Age", age ? age : "")};
        int64_t us = jwt_lifetime(v, age ? 3 : 2);

        return us < 0 ? us : us / SECOND_US;
}

static void test_what_is_said(void **state)
{
        (void)state;
        assert_int_equal(jwt_lifetime(NULL, 0), -1);
        assert_int_equal(good_for("", NULL), -1);
        assert_int_equal(good_for("public, must-revalidate", NULL), -1);
        assert_int_equal(good_for("s-maxage=5, xmax-age=5", NULL), -1);
        assert_int_equal(good_for("max-age=60", NULL), 60);
        assert_int_equal(good_for(" public,\tMax-Age=60 , x", NULL), 60);
        assert_int_equal(good_for("max-age=\"60\"", NULL), 60);
        assert_int_equal(good_for("max-age=0", NULL), 0);
        assert_int_equal(good_for("max-age=99999999999999999999999", NULL), INT64_C(1) << 31);
        assert_int_equal(good_for("x=\"a, max-age=1, \\\", no-store\", max-age=60", NULL), 60);
}

static void test_what_may_not_be_kept(void **state)
{
        (void)state;
        assert_int_equal(good_for("no-store", NULL), 0);
        assert_int_equal(good_for("No-Cache, max-age=60", NULL), 0);
        assert_int_equal(good_for("max-age=60, no-cache=\"set-cookie\"", NULL), 0);
        /* RFC 9111 4.2.1: what cannot be read, and what is said twice */
        assert_int_equal(good_for("max-age", NULL), 0);
        assert_int_equal(good_for("max-age=", NULL), 0);
        assert_int_equal(good_for("max-age=\"\"", NULL), 0);
        assert_int_equal(good_for("max-age=-1", NULL), 0);
        assert_int_equal(good_for("max-age=60s", NULL), 0);
        assert_int_equal(good_for("max-age=1.5", NULL), 0);
        assert_int_equal(good_for("max-age=60, max-age=30", NULL), 30);
}

static void test_age(void **state)
{
        weir_kv v[] = {field("Cache-Control", "max-age=60"), field("Age", "20"),
                       field("Cache-Control", "max-age=50")};

        (void)state;
        assert_int_equal(good_for("max-age=60", "20"), 40);
        assert_int_equal(good_for("max-age=60", "60"), 0);
        assert_int_equal(good_for("max-age=60", "1000000000000000000000"), 0);
        assert_int_equal(good_for("max-age=60", "x"), 60);
        assert_int_equal(good_for("public", "20"), -1);
        assert_int_equal(jwt_lifetime(v, 3), 30 * SECOND_US);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_what_is_said),
                cmocka_unit_test(test_what_may_not_be_kept),
                cmocka_unit_test(test_age),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
