/* Constants are found by address and length, whatever their bytes. */
#include "base/constant.c"

#include "unit.h"

enum { ONE = 1, TWO = 2 };

static void found_by_address_and_length(void **state)
{
        static const char text[] = "x-name x-name";
        struct arena *a = arena_new(0);
        const struct constant v[] = {{text, 6, ONE, 7}, {text, 1, TWO, 0}};
        const struct constants *all = constants_new(a, v, COUNT(v));

        (void)state;
        assert_int_equal(constants_find(all, text, 6)->id, 7);
        assert_int_equal(constants_find(all, text, 6)->flags, ONE);
        assert_int_equal(constants_find(all, text, 1)->flags, TWO);
        assert_null(constants_find(all, text, 5));
        assert_null(constants_find(all, text + 7, 6)); /* the same bytes, elsewhere */
        assert_null(constants_find(all, NULL, 0));
        arena_free(a);
}

static void none_at_all(void **state)
{
        struct arena *a = arena_new(0);
        const struct constants *none = constants_new(a, NULL, 0);

        (void)state;
        assert_null(constants_find(none, "x", 1));
        arena_free(a);
}

static void given_twice(void **state)
{
        static const char text[] = "x";
        struct arena *a = arena_new(0);
        const struct constant v[] = {{text, 1, ONE, 0}, {text, 1, TWO, 5}};
        const struct constant *c = constants_find(constants_new(a, v, COUNT(v)), text, 1);

        (void)state;
        assert_int_equal(c->flags, ONE | TWO);
        assert_int_equal(c->id, 5);
        arena_free(a);
}

/* Whatever the addresses' bits: all are found, and none of their neighbours. */
static void many(void **state)
{
        static char text[4096];
        struct constant v[1024];
        struct arena *a = arena_new(0);

        (void)state;
        for (size_t step = 1; step <= 4; step++) {
                const struct constants *all;
                for (size_t i = 0; i < COUNT(v); i++)
                        v[i] = (struct constant){text + i * step, 1, ONE, (uint16_t)i};
                all = constants_new(a, v, COUNT(v));
                for (size_t i = 0; i < COUNT(v); i++) {
                        assert_int_equal(constants_find(all, text + i * step, 1)->id, i);
                        assert_null(constants_find(all, text + i * step, 2));
                }
                assert_null(constants_find(all, text + COUNT(v) * step, 1));
        }
        arena_free(a);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(found_by_address_and_length),
                cmocka_unit_test(none_at_all),
                cmocka_unit_test(given_twice),
                cmocka_unit_test(many),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
