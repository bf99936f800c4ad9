/*
 * nghttp2's memory: what was written stays through growing, sizes on both sides of each class and
 * of the largest, and what is given back is used again.
 */
#include "http/h2_memory.c"

#include "../base/unit.h"

static struct h2_memory m;

static int up(void **state UNUSED)
{
        h2_memory_init(&m);
        return 0;
}

static int down(void **state UNUSED)
{
        h2_memory_end(&m); /* nothing is left */
        return 0;
}

static void test_every_size(void **state UNUSED)
{
        for (size_t n = 0; n < (H2_MEMORY_CLASSES + 1) * STEP; n++) {
                unsigned char *p = m.mem.malloc(n, &m), *q = m.mem.calloc(1, n, &m);
                assert_int_equal((uintptr_t)p % 16, 0);
                memset(p, 0xa5, n);
                for (size_t i = 0; i < n; i++)
                        assert_int_equal(q[i], 0);
                m.mem.free(p, &m);
                m.mem.free(q, &m);
        }
        m.mem.free(NULL, &m);
}

static void test_growing(void **state UNUSED)
{
        unsigned char *p = NULL;

        for (size_t n = 1; n < 5000; n += 7) {
                p = m.mem.realloc(p, n, &m);
                assert_non_null(p);
                for (size_t i = 0; i + 7 < n; i++)
                        assert_int_equal(p[i], i & 0xff);
                for (size_t i = n > 7 ? n - 7 : 0; i < n; i++)
                        p[i] = (unsigned char)i;
        }
        m.mem.free(p, &m);
}

static void test_used_again(void **state UNUSED)
{
        void *p = m.mem.malloc(100, &m), *other = m.mem.malloc(100, &m);

        assert_ptr_not_equal(p, other);
        m.mem.free(p, &m);
        assert_ptr_equal(m.mem.malloc(90, &m), p);
        m.mem.free(p, &m);
        m.mem.free(other, &m);
}

static void test_too_much(void **state UNUSED)
{
        assert_null(m.mem.malloc(SIZE_MAX, &m));
        assert_null(m.mem.calloc(SIZE_MAX / 2, 3, &m));
}

#define T(f) cmocka_unit_test_setup_teardown(f, up, down)

int main(void)
{
        const struct CMUnitTest tests[] = {
                T(test_every_size),
                T(test_growing),
                T(test_used_again),
                T(test_too_much),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
