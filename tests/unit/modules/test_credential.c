/*
 * Credentials: where a scheme ends, cookies taken apart and put together, members of what is known,
 * and texts that are kept.
 */
#include "../base/unit.h"

#include "one_arena.h"
#include "pure_host.h"

#include "../../../modules/credential.h"

static void test_schemes(void **state)
{
        weir_str v;

        (void)state;
        assert_true(credential_of_scheme(WEIR_STR("bEARER  abc\t"), WEIR_STR("Bearer"), &v));
        ASSERT_STR(v, "abc");
        assert_true(credential_of_scheme(WEIR_STR("Bearer "), WEIR_STR("Bearer"), &v));
        assert_int_equal(v.n, 0);
        assert_false(credential_of_scheme(WEIR_STR("Bearer"), WEIR_STR("Bearer"), &v));
        assert_false(credential_of_scheme(WEIR_STR("Bearerabc"), WEIR_STR("Bearer"), &v));
        assert_false(credential_of_scheme(WEIR_STR("Bearer\tabc"), WEIR_STR("Bearer"), &v));
        assert_false(credential_of_scheme(WEIR_STR("Basic abc"), WEIR_STR("Bearer"), &v));
        assert_false(credential_of_scheme(WEIR_STR(""), WEIR_STR("Bearer"), &v));
}

static void without(const char *field, const char *name, const char *left)
{
        weir_str s = credential_without(pure_task(arena), weir_bytes(field, strlen(field)),
                                        weir_bytes(name, strlen(name)));

        assert_true(weir_eq(s, weir_bytes(left, strlen(left))));
}

static void test_cookies(void **state)
{
        (void)state;
        without("a=1; k=x;b=2", "k", "a=1; b=2");
        without("k=x; a=1", "k", "a=1");
        without("k=x", "k", "");
        without("k=x; k=y; K=z", "k", "K=z");
        without(" a = 1 ;;\t; kk=x; =k", "k", "a = 1; kk=x; =k");
        without("k; a", "k", "a");
        without("a;b;c;d;e;f;g;h;k;i", "k", "a; b; c; d; e; f; g; h; i"); /* it grows */
        without("", "k", "");
}

static weir_str member(const char *json, const char *path)
{
        const weir_value *v = pure_json_parse(pure_task(arena), weir_bytes(json, strlen(json)));

        v = credential_member(v, weir_bytes(path, strlen(path)));
        return v ? v->str : weir_bytes(NULL, 0);
}

static void test_members(void **state)
{
        static const char json[] =
                "{\"a\":{\"b\":{\"c\":\"deep\"},\"b.c\":\"flat\"},\"a.b\":\"whole\",\"s\":\"x\"}";

        (void)state;
        ASSERT_STR(member(json, "a.b"), "whole");
        ASSERT_STR(member(json, "a.b.c"), "deep");
        ASSERT_STR(member(json, "s"), "x");
        assert_null(member(json, "s.x").p);
        assert_null(member(json, "").p);
        assert_null(member(json, ".").p);
        assert_null(member(json, "a.").p);
        assert_null(member("[1]", "0").p);
        assert_null(member("", "a").p);
}

static void test_packs(void **state)
{
        const weir_str in[] = {WEIR_STR("alice"), {NULL, 0}, WEIR_STR("")};
        weir_str out[3], packed = credential_pack(pure_task(arena), "head", 4, in, 3);

        (void)state;
        assert_int_equal(packed.n, 4 + 3 * 4 + 5);
        assert_true(credential_unpack(packed, 4, out, 3));
        ASSERT_STR(out[0], "alice");
        assert_null(out[1].p);
        assert_non_null(out[2].p);
        assert_int_equal(out[2].n, 0);
        assert_false(credential_unpack(packed, 4, out, 2)); /* something is left */
        for (size_t n = 0; n < packed.n; n++)
                assert_false(credential_unpack(weir_bytes(packed.p, n), 4, out, 3));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_schemes),
                cmocka_unit_test(test_cookies),
                cmocka_unit_test(test_members),
                cmocka_unit_test(test_packs),
        };
        return cmocka_run_group_tests(tests, up, down);
}
