/*
 * Causes and methods of retries, and a budget that holds in the long run.
 */
#include "proxy/retry.c"

#include "upstream_fixture.h"

#include "conf/model.h"

static void causes_are_classed(void **state)
{
        (void)state;
        assert_int_equal(retry_class(REASON_CONNECT_FAILED), RETRY_CONNECT_ERROR);
        assert_int_equal(retry_class(REASON_UPSTREAM_TLS), RETRY_CONNECT_ERROR);
        assert_int_equal(retry_class(REASON_CONNECT_TIMEOUT), RETRY_CONNECT_ERROR | RETRY_TIMEOUT);
        assert_int_equal(retry_class(REASON_UPSTREAM_RESET), RETRY_RESET);
        assert_int_equal(retry_class(REASON_RESPONSE_TIMEOUT), RETRY_TIMEOUT);
        assert_int_equal(retry_class(REASON_UPSTREAM_STREAM_RESET), RETRY_RESET);
        assert_int_equal(retry_class(REASON_UPSTREAM_REFUSED), RETRY_CONNECT_ERROR | RETRY_RESET);
        assert_int_equal(retry_class(REASON_UPSTREAM_PING), RETRY_RESET | RETRY_TIMEOUT);
        assert_int_equal(retry_class(REASON_UPSTREAM_NO_TUNNEL), 0);
        /* A server that talks nonsense would do so again, and what went wrong here is no server's
         * doing. */
        assert_int_equal(retry_class(REASON_UPSTREAM_HEAD), 0);
        assert_int_equal(retry_class(REASON_UPSTREAM_FRAMING), 0);
        assert_int_equal(retry_class(REASON_INTERNAL), 0);
        assert_int_equal(retry_class(REASON_NO_DESCRIPTORS), 0);
        for (int status = 100; status < 600; status++) {
                uint32_t want = status == 502   ? RETRY_502
                                : status == 503 ? RETRY_503
                                : status == 504 ? RETRY_504
                                                : 0;
                assert_int_equal(retry_class_of_status(status), want);
        }
}

static void statuses_of_grpc_are_classed(void **state)
{
        static const uint32_t want[] = {
                [1] = RETRY_GRPC_CANCELLED,         [2] = RETRY_GRPC_UNKNOWN,
                [4] = RETRY_GRPC_DEADLINE_EXCEEDED, [8] = RETRY_GRPC_RESOURCE_EXHAUSTED,
                [10] = RETRY_GRPC_ABORTED,          [13] = RETRY_GRPC_INTERNAL,
                [14] = RETRY_GRPC_UNAVAILABLE,      [16] = 0,
        };
        uint32_t all = 0;

        (void)state;
        for (int i = 0; i < (int)COUNT(want); i++) {
                assert_int_equal(retry_class_of_grpc(i), want[i]);
                all |= want[i];
        }
        assert_int_equal(all, RETRY_GRPC);
        assert_int_equal(retry_class_of_grpc(-1), 0);
        assert_int_equal(retry_class_of_grpc(99), 0);
}

static void methods_that_bear_repeating(void **state)
{
        static const enum method yes[] = {METHOD_GET,   METHOD_HEAD, METHOD_OPTIONS,
                                          METHOD_TRACE, METHOD_PUT,  METHOD_DELETE};
        static const enum method no[] = {METHOD_POST, METHOD_PATCH, METHOD_CONNECT, METHOD_OTHER};

        (void)state;
        for (unsigned i = 0; i < COUNT(yes); i++)
                assert_true(retry_idempotent(yes[i]));
        for (unsigned i = 0; i < COUNT(no); i++)
                assert_false(retry_idempotent(no[i]));
}

static void the_budget_is_a_share(void **state)
{
        struct upstream u = {.subject = (char *)"upstream u"};
        struct upstream_loop ul = {.u = &u, .loop = loops[0]};
        unsigned taken = 0;

        (void)state;
        assert_false(retry_budget_take(&ul, 0.25));
        for (int i = 0; i < 1000; i++) {
                retry_budget_earn(&ul, 0.25);
                taken += retry_budget_take(&ul, 0.25);
        }
        assert_int_equal(taken, 250);
        for (int i = 0; i < 1000; i++)
                retry_budget_earn(&ul, 0.25);
        for (taken = 0; retry_budget_take(&ul, 0.25);)
                taken++;
        assert_int_equal(taken, (unsigned)RETRY_TOKENS); /* no more are saved up */
        assert_int_equal(metric_of(METRIC_LIMIT_HITS, "setting=\"retry budget\""), 1 + 750 + 1);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(causes_are_classed, process_up, process_down),
                cmocka_unit_test(statuses_of_grpc_are_classed),
                cmocka_unit_test_setup_teardown(methods_that_bear_repeating, process_up,
                                                process_down),
                cmocka_unit_test_setup_teardown(the_budget_is_a_share, process_up, process_down),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
