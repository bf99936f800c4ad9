/* Pages that are mapped, kept and given back. */
#include "base/page.c"

#include "unit.h"

static void what_is_mapped_is_zero(void **state)
{
        char *p = page_map(3 * PAGE_BYTES);

        (void)state;
        for (size_t i = 0; i < 3 * PAGE_BYTES; i++)
                assert_int_equal(p[i], 0);
        memset(p, 1, 3 * PAGE_BYTES);
        page_unmap(p, 3 * PAGE_BYTES);
}

static void the_last_put_is_the_next_to_get(void **state)
{
        struct page_pool pool = {.bytes = PAGE_BYTES};
        void *a = page_pool_get(&pool), *b = page_pool_get(&pool);

        (void)state;
        page_pool_put(&pool, a);
        page_pool_put(&pool, b);
        assert_ptr_equal(page_pool_get(&pool), b);
        assert_ptr_equal(page_pool_get(&pool), a);
        assert_int_equal(pool.n, 0);
        page_pool_put(&pool, a);
        page_pool_put(&pool, b);
        page_pool_end(&pool);
        assert_int_equal(pool.n, 0);
}

static void a_trim_takes_what_was_not_needed(void **state)
{
        struct page_pool pool = {.bytes = PAGE_BYTES};
        void *m[4];

        (void)state;
        for (int i = 0; i < 4; i++)
                m[i] = page_pool_get(&pool);
        for (int i = 0; i < 4; i++)
                page_pool_put(&pool, m[i]);
        assert_int_equal(page_pool_trim(&pool), 0); /* all were in use since it began */
        page_pool_put(&pool, page_pool_get(&pool));
        assert_int_equal(page_pool_trim(&pool), 3 * PAGE_BYTES);
        assert_int_equal(pool.n, 1);
        assert_int_equal(page_pool_trim(&pool), PAGE_BYTES);
        assert_int_equal(page_pool_trim(&pool), 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(what_is_mapped_is_zero),
                cmocka_unit_test(the_last_put_is_the_next_to_get),
                cmocka_unit_test(a_trim_takes_what_was_not_needed),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
