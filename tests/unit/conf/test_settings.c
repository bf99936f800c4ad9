/* Which scope wins, for every setting. */
#include "conf/settings.c"

#include "../base/unit.h"

#define ALL ((UINT64_C(1) << SETTINGS) - 1)

static struct arena *a;

static int setup(void **state UNUSED)
{
        a = arena_new(0);
        return 0;
}

static int teardown(void **state UNUSED)
{
        arena_free(a);
        return 0;
}

static void defaults(void **state)
{
        struct settings s;

        (void)state;
        settings_defaults(&s);
        assert_int_equal(s.set, ALL);
        assert_int_equal(s.client_head, 10 * SEC);
        assert_int_equal(s.client_idle, 75 * SEC);
        assert_int_equal(s.connect, 5 * SEC);
        assert_int_equal(s.tunnel, 3600 * SEC);
        assert_int_equal(s.request, 0);
        assert_int_equal(s.retry_attempts, 2);
        assert_int_equal(s.retry_on, RETRY_CONNECT_ERROR | RETRY_RESET);
        assert_true(s.retry_budget > 0.199 && s.retry_budget < 0.201);
        assert_false(s.retry_non_idempotent);
        assert_int_equal(s.body_max, 8 * MIB);
        assert_int_equal(s.header_max, 32 * KIB);
        assert_int_equal(s.header_fields, 128);
        assert_int_equal(s.buffer_request, 0);
        assert_true(s.upgrade);
        assert_null(s.access_log);
        assert_int_equal(s.n_error_pages, 0);
        assert_int_equal(s.request_memory, MIB);
}

/* Every bit that has a row, in each scope: the nearest one that has it is taken. */
static void nearest_wins(void **state)
{
        struct settings scope[4] = {{0}}, out;

        (void)state;
        for (size_t i = 0; i < 4; i++) {
                scope[i].connect = (int64_t)(i + 1) * SEC;
                scope[i].header_fields = i + 10;
                scope[i].upgrade = i % 2;
        }
        for (unsigned have = 0; have < 16; have++) {
                size_t first = 0;
                for (size_t i = 0; i < 4; i++)
                        scope[i].set = have >> i & 1 ? UINT64_C(1) << SET_CONNECT |
                                                               UINT64_C(1) << SET_UPGRADE
                                                     : UINT64_C(1) << SET_HEADER_FIELDS;
                settings_merge(a, &out, &scope[0], &scope[1], &scope[2], &scope[3]);
                assert_int_equal(out.set, ALL);
                while (first < 4 && !(have >> first & 1))
                        first++;
                assert_int_equal(out.connect, first < 4 ? scope[first].connect : 5 * SEC);
                assert_int_equal(out.upgrade, first < 4 ? scope[first].upgrade : true);
                first = 0;
                while (first < 4 && (have >> first & 1))
                        first++;
                assert_int_equal(out.header_fields, first < 4 ? first + 10 : 128);
        }
}

static void absent_scopes(void **state)
{
        struct settings top = {.set = UINT64_C(1) << SET_QUEUE, .queue = SEC}, out;

        (void)state;
        settings_merge(a, &out, NULL, NULL, NULL, &top);
        assert_int_equal(out.queue, SEC);
        assert_int_equal(out.set, ALL);
}

static void logs_and_pages(void **state)
{
        struct access_log_conf log = {0};
        struct error_page page = {502, STR("x"), STR("text/plain"), STR_NONE};
        const uint64_t log_bit = UINT64_C(1) << SET_ACCESS_LOG;
        struct settings top = {.set = log_bit | UINT64_C(1) << SET_ERROR_PAGES,
                               .access_log = &log,
                               .error_pages = &page,
                               .n_error_pages = 1};
        struct settings off = {.set = log_bit}, out;

        (void)state;
        settings_merge(a, &out, NULL, NULL, NULL, &top);
        assert_ptr_equal(out.access_log, &log);
        assert_int_equal(out.n_error_pages, 1);
        settings_merge(a, &out, &off, NULL, NULL, &top);
        assert_null(out.access_log); /* off is said, not absent */
        assert_int_equal(out.n_error_pages, 1);
}

/* Status by status, and each from the nearest scope that has one. */
static void pages_of_all_scopes(void **state)
{
        struct error_page near[] = {{502, STR("near"), STR("text/plain"), STR_NONE}};
        struct error_page far[] = {{502, STR("far"), STR("text/plain"), STR_NONE},
                                   {503, STR("far"), STR("text/plain"), STR_NONE}};
        struct settings top = {
                .set = UINT64_C(1) << SET_ERROR_PAGES, .error_pages = far, .n_error_pages = 2};
        struct settings upstream = {
                .set = UINT64_C(1) << SET_ERROR_PAGES, .error_pages = near, .n_error_pages = 1};
        struct settings out;

        (void)state;
        settings_merge(a, &out, NULL, &upstream, NULL, &top);
        assert_int_equal(out.n_error_pages, 2);
        assert_int_equal(out.error_pages[0].status, 502);
        assert_true(str_eq(out.error_pages[0].body, STR("near")));
        assert_int_equal(out.error_pages[1].status, 503);
        settings_merge(a, &out, &top, &upstream, NULL, &top);
        assert_int_equal(out.n_error_pages, 2);
        assert_true(str_eq(out.error_pages[0].body, STR("far")));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(defaults),
                cmocka_unit_test(nearest_wins),
                cmocka_unit_test(absent_scopes),
                cmocka_unit_test(logs_and_pages),
                cmocka_unit_test(pages_of_all_scopes),
        };

        return cmocka_run_group_tests(tests, setup, teardown);
}
