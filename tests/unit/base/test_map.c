/* The map against a plain array, with keys that are deleted and come back. */
#include "base/map.c"

#include "unit.h"

static str key_of(char *buf, int i)
{
        return str_of(buf, (size_t)snprintf(buf, 32, "key-%d", i));
}

static void agrees_with_an_array(void **state)
{
        struct map *m = map_new();
        intptr_t want[500] = {0};
        uint64_t x = 88172645463325252u;
        size_t live = 0;
        char buf[32];

        (void)state;
        for (intptr_t round = 1; round < 50000; round++) {
                int i;
                x ^= x << 13, x ^= x >> 7, x ^= x << 17;
                i = (int)(x % COUNT(want));
                live -= want[i] != 0;
                if (x >> 40 & 1) {
                        assert_int_equal((intptr_t)map_put(m, key_of(buf, i), (void *)round),
                                         want[i]);
                        want[i] = round;
                } else {
                        assert_int_equal((intptr_t)map_del(m, key_of(buf, i)), want[i]);
                        want[i] = 0;
                }
                live += want[i] != 0;
                assert_int_equal(map_count(m), live);
                i = (int)(x >> 20) % (int)COUNT(want);
                i = i < 0 ? -i : i;
                assert_int_equal((intptr_t)map_get(m, key_of(buf, i)), want[i]);
        }
        assert_true(m->cells <= 8 * COUNT(want)); /* holes are swept */
        map_free(m);
}

static void visits_in_order(void **state)
{
        struct map *m = map_new();
        char buf[32];
        size_t cursor = 0;
        void *value;
        str key;

        (void)state;
        for (intptr_t i = 0; i < 100; i++)
                map_put(m, key_of(buf, (int)i), (void *)(i + 1));
        map_del(m, STR("key-0"));
        map_del(m, STR("key-50"));
        map_put(m, STR("key-50"), (void *)51); /* now the last */
        for (intptr_t i = 1; i < 100; i++) {
                if (i == 50)
                        continue;
                assert_true(map_at(m, &cursor, &key, &value));
                assert_true(str_eq(key, key_of(buf, (int)i)));
                assert_int_equal((intptr_t)value, i + 1);
        }
        assert_true(map_at(m, &cursor, &key, &value));
        ASSERT_STR(key, "key-50");
        assert_false(map_at(m, &cursor, &key, &value));
        assert_false(map_at(m, &cursor, &key, &value));
        map_free(m);
        map_free(NULL);
}

static void odd_keys(void **state)
{
        struct map *m = map_new();
        int a, b;

        (void)state;
        assert_null(map_put(m, STR(""), &a));
        assert_null(map_put(m, STR("\0"), &b));
        assert_ptr_equal(map_get(m, STR_NONE), &a);
        assert_ptr_equal(map_get(m, STR("\0")), &b);
        assert_null(map_get(m, STR("\0\0")));
        assert_int_equal(map_count(m), 2);
        assert_int_equal(map_hash(STR("abc")), map_hash(STR("abc")));
        assert_int_not_equal(map_hash(STR("abc")), map_hash(STR("abd")));
        map_free(m);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(agrees_with_an_array),
                cmocka_unit_test(visits_in_order),
                cmocka_unit_test(odd_keys),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
