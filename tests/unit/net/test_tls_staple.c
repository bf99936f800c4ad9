/*
 * Places for fetched responses: who has which, what is read while it is written, and who must no
 * longer write.
 */
#include "net/tls_staple.c"

#include "pump.h"

#include <pthread.h>

static struct tls_staples *s;
static uint8_t ids[2 * TLS_STAPLES_MAX + 8][32];

static int up(void **state UNUSED)
{
        s = tls_staples_new();
        tls_staples_use(s);
        for (size_t i = 0; i < COUNT(ids); i++)
                memcpy(ids[i], &i, sizeof(i));
        return 0;
}

static int down(void **state UNUSED)
{
        tls_staples_use(NULL);
        tls_staples_free(s);
        return 0;
}

static const uint8_t (*some(size_t at))[32]
{
        return (const uint8_t(*)[32])ids + at;
}

static void put(const struct tls_staple_ref *r, const char *text, int64_t next)
{
        tls_staple_put(r, str_z(text), &(struct tls_ocsp_times){next - 10, next});
}

static bool holds(const struct tls_staple_ref *r, const char *text)
{
        static unsigned char out[TLS_OCSP_MAX];
        size_t n = tls_staple_read(r, 50, out);

        return n == strlen(text) && memcmp(out, text, n) == 0;
}

static void test_put_and_read(void **state UNUSED)
{
        struct tls_staple_ref none = tls_staple_find(ids[0]), r;
        struct tls_ocsp_times t;
        unsigned char out[TLS_OCSP_MAX];

        assert_null(none.all);
        assert_int_equal(tls_staple_read(&none, 0, out), 0);
        assert_false(tls_staple_times(&none, &t));
        put(&none, "lost", 100);
        tls_staples_claim(s, some(0), 1, NULL, 0);
        r = tls_staple_find(ids[0]);
        assert_non_null(r.all);
        assert_true(holds(&r, ""));
        assert_false(tls_staple_times(&r, &t));
        put(&r, "first response", 100);
        assert_true(holds(&r, "first response"));
        put(&r, "second", 200);
        assert_true(holds(&r, "second"));
        assert_true(tls_staple_times(&r, &t));
        assert_int_equal(t.this_update, 190);
        assert_int_equal(t.next_update, 200);
        assert_int_equal(tls_staple_read(&r, 199, out), 6);
        assert_int_equal(tls_staple_read(&r, 200, out), 0); /* expired */
}

static void test_claims(void **state UNUSED)
{
        struct tls_staple_ref one, two;

        tls_staples_claim(s, some(0), 2, NULL, 0);
        one = tls_staple_find(ids[0]);
        two = tls_staple_find(ids[1]);
        assert_int_not_equal(one.at, two.at);
        put(&one, "one", 100);
        put(&two, "two", 100);
        tls_staples_claim(s, some(1), 2, some(0), 2); /* the reload drops 0, keeps 1, adds 2 */
        assert_true(holds(&one, "one"));              /* connections still use it */
        assert_true(holds(&two, "two"));
        assert_int_equal(tls_staple_find(ids[1]).at, two.at);
        assert_non_null(tls_staple_find(ids[2]).all);
        tls_staples_claim(s, some(3), 1, some(1), 2); /* now 0 belongs to nobody */
        assert_int_equal(tls_staple_find(ids[3]).at, one.at);
        assert_null(tls_staple_find(ids[0]).all);
        assert_true(holds(&one, ""));
        put(&one, "late", 100); /* from a fetcher of before */
        one = tls_staple_find(ids[3]);
        assert_true(holds(&one, ""));
        assert_true(holds(&two, "two"));
}

static void test_full(void **state UNUSED)
{
        size_t half = TLS_STAPLES_MAX;

        tls_staples_claim(s, some(0), half, NULL, 0);
        tls_staples_claim(s, some(half), half, some(0), half);
        for (size_t i = 0; i < 2 * half; i++)
                assert_non_null(tls_staple_find(ids[i]).all);
        tls_staples_claim(s, some(2 * half), 8, some(half), half);
        for (size_t i = half; i < 2 * half + 8; i++)
                assert_non_null(tls_staple_find(ids[i]).all);
}

static _Atomic bool stop;

/* Each response is one byte repeated, as often as it says: a torn one shows. */
static void *reader(void *arg)
{
        static _Thread_local unsigned char out[TLS_OCSP_MAX];
        _Atomic size_t *seen = arg;

        while (!atomic_load(&stop)) {
                struct tls_staple_ref r = tls_staple_find(ids[0]);
                size_t n = tls_staple_read(&r, 0, out);
                for (size_t i = 0; i < n; i++)
                        CHECK(out[i] == n % 251);
                *seen += n > 0;
        }
        return NULL;
}

static void test_readers_meet_the_writer(void **state UNUSED)
{
        pthread_t threads[2];
        _Atomic size_t seen[2] = {0};
        char text[4000];
        struct tls_staple_ref r;

        tls_staples_claim(s, some(0), 1, NULL, 0);
        r = tls_staple_find(ids[0]);
        atomic_store(&stop, false);
        for (size_t i = 0; i < COUNT(threads); i++)
                assert_int_equal(pthread_create(&threads[i], NULL, reader, &seen[i]), 0);
        for (size_t i = 0; i < 20000 || seen[0] == 0 || seen[1] == 0; i++) {
                size_t n = 1 + i % sizeof(text);
                memset(text, (int)(n % 251), n);
                tls_staple_put(&r, str_of(text, n), &(struct tls_ocsp_times){0, 100});
        }
        atomic_store(&stop, true);
        for (size_t i = 0; i < COUNT(threads); i++)
                pthread_join(threads[i], NULL);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_put_and_read, up, down),
                cmocka_unit_test_setup_teardown(test_claims, up, down),
                cmocka_unit_test_setup_teardown(test_full, up, down),
                cmocka_unit_test_setup_teardown(test_readers_meet_the_writer, up, down),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
