/* The arena: alignment, chunks that come back, the limit, hooks in the right order. */
#include "base/arena.c"

#include "unit.h"

static void aligned_and_apart(void **state)
{
        struct arena *a = arena_new(0);
        static const size_t sizes[] = {0, 1, 15, 16, 17, 100, 2000, 4000, 4064, 4096, 5000, 100000};
        char *p[COUNT(sizes) * 20];
        size_t n = 0;

        (void)state;
        for (int round = 0; round < 20; round++) {
                for (size_t i = 0; i < COUNT(sizes); i++) {
                        p[n] = arena_alloc(a, sizes[i]);
                        assert_int_equal((uintptr_t)p[n] % 16, 0);
                        memset(p[n], (int)n & 0xff, sizes[i]);
                        n++;
                }
        }
        for (size_t i = 0; i < n; i++)
                for (size_t k = 0; k < sizes[i % COUNT(sizes)]; k++)
                        assert_int_equal((unsigned char)p[i][k], i & 0xff);
        arena_free(a);
        arena_free(NULL);
        arena_thread_end();
}

#ifndef WEIR_ARENA_MALLOC
static void chunks_come_back(void **state)
{
        struct arena *a;

        (void)state;
        arena_thread_end();
        for (int i = 0; i < 10; i++) {
                a = arena_new(0);
                for (size_t k = 0; k < 5 * ARENA_CHUNK / 200; k++)
                        memset(arena_alloc(a, 200), 0xff, 200);
                arena_free(a);
                assert_in_range(recycled.n, 5, 7);
        }
        arena_thread_end();
        assert_int_equal(recycled.n, 0);
        assert_null(recycled.free);
}

static void what_was_not_given_is_poisoned(void **state)
{
        struct arena *a = arena_new(0);
        char *p = arena_alloc(a, 24);

        (void)state;
        p[23] = 1;
#ifdef WEIR_ASAN
        assert_true(__asan_address_is_poisoned(p + 24));
        assert_true(__asan_address_is_poisoned(p + 100));
#endif
        arena_free(a);
        assert_int_equal(recycled.n, 1);
#ifdef WEIR_ASAN
        assert_true(__asan_address_is_poisoned(p));
#endif
        arena_thread_end();
}

static void rest_of_a_chunk_is_used(void **state)
{
        struct arena *a = arena_new(0);
        char *first = arena_alloc(a, 16), *second;

        (void)state;
        assert_non_null(arena_alloc(
                a, ARENA_CHUNK - 48)); /* fits no longer, but leaves less than we have */
        second = arena_alloc(a, 16);
        assert_ptr_equal(second, first + 16);
        arena_free(a);
        arena_thread_end();
}
#endif

static void limit_is_kept(void **state)
{
        struct arena *a = arena_new(1000);
        VEC(int) v = {0};

        (void)state;
        assert_non_null(arena_alloc(a, 992));
        assert_int_equal(arena_used(a), 992);
        assert_null(arena_alloc(a, 1));
        assert_null(arena_zalloc(a, 1));
        assert_null(arena_dup(a, STR("x")).p);
        assert_null(arena_dupz(a, STR("x")));
        assert_null(arena_printf(a, "x").p);
        assert_null(arena_cat(a, &STR("x"), 1).p);
        for (int i = 0; i < 1000; i++)
                *VEC_ADD(a, &v) = i; /* may go over it */
        assert_true(arena_used(a) > 1000);
        assert_null(arena_alloc(a, 0));
        arena_free(a);
        a = arena_new(1000);
        assert_null(arena_alloc(a, SIZE_MAX / 2));
        arena_free(a);
        arena_thread_end();
}

static void strings(void **state)
{
        struct arena *a = arena_new(0);
        str parts[] = {STR("a"), STR_NONE, STR("bc"), STR("")}, s;

        (void)state;
        s = arena_dup(a, STR("x\0y"));
        assert_int_equal(s.n, 3);
        assert_int_equal(s.p[3], 0);
        assert_null(arena_dup(a, STR_NONE).p);
        assert_null(arena_dupz(a, STR_NONE));
        s = arena_dup(a, STR(""));
        assert_true(s.p != NULL && s.n == 0);
        ASSERT_STR(arena_cat(a, parts, COUNT(parts)), "abc");
        ASSERT_STR(arena_cat(a, NULL, 0), "");
        ASSERT_STR(arena_printf(a, "%d-%s", 5, "x"), "5-x");
        for (int n = 250; n < 260; n++) {
                s = arena_printf(a, "%0*d", n, 7);
                assert_int_equal(s.n, n);
                assert_int_equal(s.p[n - 1], '7');
                assert_int_equal(s.p[n], 0);
        }
        arena_free(a);
        arena_thread_end();
}

static char order[8];

static void note(void *arg)
{
        strncat(order, arg, 1);
}

static struct arena *hooked;

static void note_and_add(void *arg)
{
        note(arg);
        arena_on_end(hooked, note, "z");
}

static void hooks_run_last_first(void **state)
{
        (void)state;
        hooked = arena_new(0);
        arena_on_end(hooked, note, "a");
        arena_on_end(hooked, note_and_add, "b");
        arena_on_end(hooked, note, "c");
        arena_free(hooked);
        assert_string_equal(order, "cbza");
        arena_thread_end();
}

static void arrays_and_vectors(void **state)
{
        struct arena *a = arena_new(0);
        VEC(uint64_t) v = {0};

        (void)state;
        memset(arena_alloc(a, 3000), 0xff, 3000);
        arena_free(a);
        a = arena_new(0); /* of a recycled chunk */
        for (uint64_t i = 0; i < 300; i++)
                assert_int_equal(ARENA_ARRAY(a, uint64_t, 2)[1], 0);
        for (uint64_t i = 0; i < 5000; i++)
                *VEC_ADD(a, &v) = i * i;
        assert_int_equal(v.n, 5000);
        for (uint64_t i = 0; i < 5000; i++)
                assert_int_equal(v.v[i], i * i);
        arena_free(a);
        arena_thread_end();
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(aligned_and_apart),
#ifndef WEIR_ARENA_MALLOC
                cmocka_unit_test(chunks_come_back),
                cmocka_unit_test(what_was_not_given_is_poisoned),
                cmocka_unit_test(rest_of_a_chunk_is_used),
#endif
                cmocka_unit_test(limit_is_kept),
                cmocka_unit_test(strings),
                cmocka_unit_test(hooks_run_last_first),
                cmocka_unit_test(arrays_and_vectors),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
