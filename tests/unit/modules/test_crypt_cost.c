/*
 * What hashes say that they cost, in each form.
 */
#include "../base/unit.h"

#include <weir/module.h>

#include "../../../modules/crypt_cost.h"

#define YESCRYPT(parameters) "$y$" parameters "$salt$D1.b1sEUlkZuXZUZnQrbY.X2E1bej6ukO55JFtWFXs8"

static int64_t cost(const char *hash)
{
        const struct crypt_form *f = crypt_form_of(hash);

        assert_non_null(f);
        return crypt_cost(hash, f);
}

static void test_forms(void **state)
{
        static const char *const others[] = {"",      "x",     "$1$a$b", "$7$CU", "$gy$j9T$",
                                             "$2x$1", "$apr1", "_J9..",  "$",     "$sha1$1$"};

        (void)state;
        for (size_t i = 0; i < WEIR_COUNT(others); i++)
                assert_null(crypt_form_of(others[i]));
        assert_true(crypt_is_weak("$1$abcdefgh$cHJi5PXp/ki/ktXzqlk6I1"));
        assert_true(crypt_is_weak("abNANd1rDfiNc"));
        assert_false(crypt_is_weak("abNANd1rDfiN"));
        assert_false(crypt_is_weak("_J9..rasmBYk8r9AiWNc")); /* BSDi: it says its rounds */
        assert_false(crypt_is_weak("_J9..rasmBYk8"));
        assert_false(crypt_is_weak("$7$CU..../...")); /* scrypt */
        assert_false(crypt_is_weak("$md5,rounds=9"));
        assert_true(crypt_is_whole(YESCRYPT("j9T"), crypt_form_of("$y$")));
        assert_false(crypt_is_whole("$y$j9T$salt$D1", crypt_form_of("$y$")));
}

static void test_bcrypt_and_rounds(void **state)
{
        (void)state;
        assert_int_equal(cost("$2y$04$"), 4);
        assert_int_equal(cost("$2b$31$"), 31);
        assert_int_equal(cost("$2a$1"), -1);
        assert_int_equal(cost("$2a$x1$"), -1);
        assert_int_equal(cost("$5$salt$"), 5000);
        assert_int_equal(cost("$6$salt$rounds=9$"), 5000);
        assert_int_equal(cost("$6$rounds=656000$salt$"), 656000);
        assert_int_equal(cost("$6$rounds=-1$salt$"), -1);
        assert_int_equal(cost("$6$rounds="), -1);
        assert_true(cost("$6$rounds=99999999999999999999999$") > 999999999);
}

/* Sizes are those that libcrypt allocates for costs 1, 2, 5, 7 and 11 of crypt_gensalt. */
static void test_yescrypt(void **state)
{
        (void)state;
        assert_int_equal(cost(YESCRYPT("j75")), 1 << 20);
        assert_int_equal(cost(YESCRYPT("j85")), 2 << 20);
        assert_int_equal(cost(YESCRYPT("j9T")), 16 << 20);
        assert_int_equal(cost(YESCRYPT("jBT")), 64 << 20);
        assert_int_equal(cost(YESCRYPT("jFT")), 1024 << 20);
        assert_int_equal(cost(YESCRYPT("jj.")), INT64_C(128) << 48);
        assert_int_equal(cost(YESCRYPT("j9T/")), -1); /* more of them */
        assert_int_equal(cost(YESCRYPT("/9T")), -1);
        assert_int_equal(cost(YESCRYPT("jk.T")), -1);
        assert_int_equal(cost("$y$"), -1);
        assert_int_equal(cost("$y$j"), -1);
        assert_int_equal(cost("$y$j9"), -1);
        assert_int_equal(cost("$y$j9T"), -1);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_forms),
                cmocka_unit_test(test_bcrypt_and_rounds),
                cmocka_unit_test(test_yescrypt),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
