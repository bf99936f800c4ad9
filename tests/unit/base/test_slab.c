/* Recycled objects: zeroed again, bounded, and dead while they are free. */
#include "base/slab.c"

#include "unit.h"

struct object {
        uint32_t magic;
        char text[60];
};

static void objects_come_back_zeroed(void **state)
{
        struct slab s;
        struct object *p, *q, zero = {0};

        (void)state;
        slab_init(&s, sizeof(*p), 1);
        p = slab_get(&s);
        q = slab_get(&s);
        memset(p, 0xff, sizeof(*p));
        memset(q, 0xff, sizeof(*q));
        assert_int_equal(s.live, 2);
        slab_put(&s, p);
        slab_put(&s, q); /* above the bound: freed */
        slab_put(&s, NULL);
        assert_int_equal(s.kept, 1);
        assert_int_equal(s.live, 0);
#ifdef WEIR_ASAN
        assert_true(__asan_address_is_poisoned(p));
        assert_true(__asan_address_is_poisoned((char *)p + sizeof(*p) - 1));
#endif
        q = slab_get(&s);
        assert_ptr_equal(q, p);
        assert_memory_equal(q, &zero, sizeof(zero));
        slab_put(&s, q);
        slab_end(&s);
        assert_int_equal(s.kept, 0);
}

static void small_objects_are_padded(void **state)
{
        struct slab s;
        char *p[10];

        (void)state;
        slab_init(&s, 1, 10);
        assert_int_equal(s.size, 16);
        for (int i = 0; i < 10; i++)
                p[i] = slab_get(&s);
        for (int i = 0; i < 10; i++)
                slab_put(&s, p[i]);
        for (int i = 9; i >= 0; i--)
                assert_ptr_equal(slab_get(&s), p[i]);
        for (int i = 0; i < 10; i++)
                slab_put(&s, p[i]);
        slab_end(&s);
}

static void too_many_puts(void *arg)
{
        struct slab s;

        slab_init(&s, 64, 4);
        slab_put(&s, arg);
}

static void use_when_free(void *arg)
{
        struct slab s;
        struct object *o;

        (void)arg;
        slab_init(&s, sizeof(*o), 4);
        o = slab_get(&s);
        slab_put(&s, o);
        UNPOISON(o, sizeof(*o)); /* without ASan's help */
        o->magic = 1;
        slab_get(&s);
}

static void misuse_aborts(void **state)
{
        char foreign[64];

        (void)state;
        ASSERT_ABORTS(too_many_puts, foreign);
        ASSERT_ABORTS(use_when_free, NULL);
}

static void what_was_not_needed_goes(void **state)
{
        struct slab a, b;
        void *p[4], *q;

        (void)state;
        slab_init(&a, 100, 8);
        slab_init(&b, 200, 8);
        for (int i = 0; i < 4; i++)
                p[i] = slab_get(&a);
        q = slab_get(&b);
        assert_int_equal(slab_thread_kept(), 0);
        for (int i = 0; i < 4; i++)
                slab_put(&a, p[i]);
        slab_put(&b, q);
        assert_int_equal(slab_thread_kept(), 4 * 100 + 200);
        assert_int_equal(slab_thread_trim(), 0); /* they were in use a moment ago */
        slab_put(&a, slab_get(&a));
        assert_int_equal(slab_thread_trim(), 3 * 100 + 200);
        assert_int_equal(slab_thread_kept(), 100);
        slab_end(&a);
        assert_int_equal(slab_thread_kept(), 0);
        slab_put(&b, slab_get(&b));
        assert_int_equal(slab_thread_kept(), 200);
        slab_end(&b);
        assert_int_equal(slab_thread_trim(), 0);
}

static void it_may_go_on_after_its_end(void **state)
{
        struct slab s;
        void *p[4];

        (void)state;
        slab_init(&s, 100, 8);
        for (int i = 0; i < 4; i++)
                p[i] = slab_get(&s);
        for (int i = 0; i < 4; i++)
                slab_put(&s, p[i]);
        assert_int_equal(slab_thread_trim(), 0);
        slab_end(&s);
        slab_put(&s, slab_get(&s));
        assert_int_equal(slab_thread_trim(), 0); /* of the four none is left to be freed */
        assert_int_equal(slab_thread_trim(), 100);
        slab_end(&s);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(objects_come_back_zeroed),
                cmocka_unit_test(small_objects_are_padded),
                cmocka_unit_test(what_was_not_needed_goes),
                cmocka_unit_test(it_may_go_on_after_its_end),
                cmocka_unit_test(misuse_aborts),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
