/*
 * A server's states in simulated time: checks, commands, ejection with its back-off, and its life
 * over loops.
 */
#include "proxy/server.c"

#include "upstream_fixture.h"

static struct server *s;
static const struct upstream_conf conf = {
        .eject_failures = 3, .eject_for = 10 * SEC, .keepalive = 64};

static int up(void **state)
{
        struct server_id id = {.upstream = STR("users"), .label = STR("10.0.0.1:8080")};

        process_up(state);
        id.line = id.host = id.key = id.label;
        assert_true(addr_parse(id.label, &id.addr));
        s = server_new(us, &id);
        server_configure(s, &conf);
        return 0;
}

static void at(int64_t us_later) /* all clocks */
{
        loops[0]->now += us_later;
        loops[1]->now = control->now = loops[0]->now;
}

static const char *state_now(void)
{
        return server_state(s, loops[0]->now);
}

static void keepalive_is_divided(void **state)
{
        struct upstream_conf c = conf;

        (void)state;
        assert_int_equal(s->keepalive, 64 / LOOPS);
        c.keepalive = 1;
        server_configure(s, &c);
        assert_int_equal(s->keepalive, 1);
        c.keepalive = 0;
        server_configure(s, &c);
        assert_int_equal(s->keepalive, 0);
}

static void facts_stand_side_by_side(void **state)
{
        uint64_t epoch = us->epoch;

        (void)state;
        assert_string_equal(state_now(), "up");
        server_check_down(s, "connect timeout");
        assert_true(us->epoch > epoch);
        assert_string_equal(state_now(), "down");
        server_admin(s, SERVER_ADMIN_DRAIN, control->now);
        assert_string_equal(state_now(), "down");
        server_check_up(s, control->now);
        assert_string_equal(state_now(), "drain");
        server_admin(s, SERVER_ADMIN_DOWN, control->now);
        assert_string_equal(state_now(), "admin_down");
        epoch = us->epoch;
        server_admin(s, SERVER_ADMIN_DOWN, control->now); /* again: nothing new */
        assert_int_equal(us->epoch, epoch);
        server_admin(s, 0, control->now);
        assert_string_equal(state_now(), "up");
}

static void failures_in_a_row_eject(void **state)
{
        (void)state;
        server_failed(&s->loops[0], "reset");
        server_failed(&s->loops[1], "reset");
        server_succeeded(&s->loops[0], MSEC); /* breaks the row */
        server_failed(&s->loops[0], "reset");
        server_failed(&s->loops[1], "reset");
        assert_string_equal(state_now(), "up");
        server_failed(&s->loops[0], "reset");
        assert_string_equal(state_now(), "ejected");
        assert_int_equal(s->ejected_until, loops[0]->now + 10 * SEC);
        assert_int_equal(metric_of(METRIC_EJECTIONS, "upstream=\"users\",server=\"10.0.0.1:8080\""),
                         1);
        server_failed(&s->loops[0], "reset"); /* of requests sent before: changes nothing */
        assert_int_equal(s->ejected_until, loops[0]->now + 10 * SEC);
        at(10 * SEC);
        assert_string_equal(state_now(), "up");
}

static void eject(int64_t want_s)
{
        int64_t was = s->ejected_until;

        server_failed(&s->loops[0], "reset");
        assert_int_not_equal(s->ejected_until, was);
        assert_int_equal(s->ejected_until - loops[0]->now, want_s * SEC);
}

static void ejections_back_off(void **state)
{
        static const int want[] = {20, 40, 80, 160, 300, 300};

        (void)state;
        server_failed(&s->loops[0], "reset");
        server_failed(&s->loops[0], "reset");
        eject(10);
        /* Back, and failing at once: one failure is enough, and it stays away longer each time, up
         * to a bound. */
        for (unsigned i = 0; i < COUNT(want); i++) {
                at(s->ejected_until - loops[0]->now);
                eject(want[i]);
        }
        /* It did well: all failures are needed again. */
        at(s->ejected_until - loops[0]->now);
        server_succeeded(&s->loops[0], MSEC);
        at(101 * SEC);
        server_failed(&s->loops[0], "reset");
        server_failed(&s->loops[0], "reset");
        assert_string_equal(state_now(), "up");
        eject(10);
}

static void eject_off_never_ejects(void **state)
{
        struct upstream_conf c = conf;

        (void)state;
        c.eject_failures = 0;
        server_configure(s, &c);
        for (int i = 0; i < 100; i++)
                server_failed(&s->loops[0], "reset");
        assert_string_equal(state_now(), "up");
}

static void coming_up_forgets_failures(void **state)
{
        (void)state;
        for (int i = 0; i < 3; i++)
                server_failed(&s->loops[0], "reset");
        server_check_down(s, "status 500");
        server_check_up(s, control->now);
        assert_string_equal(state_now(), "up");
        server_failed(&s->loops[0], "reset");
        assert_string_equal(state_now(), "up");
}

static void weight_grows_slowly(void **state)
{
        int64_t until = INT64_MAX, now = loops[0]->now;

        (void)state;
        assert_int_equal(server_weight(s, 3, now, &until), 3 * SERVER_WEIGHT_ONE);
        assert_true(until == INT64_MAX);
        atomic_store(&s->slow_start, 10 * SEC);
        assert_int_equal(server_weight(s, 3, now, &until),
                         3 * SERVER_WEIGHT_ONE); /* it was there from the start */
        atomic_store(&s->up_since, now);
        assert_true(server_weight(s, 3, now, &until) < 3 * SERVER_WEIGHT_ONE / 10);
        assert_true(server_weight(s, 3, now, &until) > 0);
        assert_int_equal(until, now + SLOW_START_STEP);
        assert_int_equal(server_weight(s, 4, now + 5 * SEC, &until), 2 * SERVER_WEIGHT_ONE);
        until = INT64_MAX;
        assert_int_equal(server_weight(s, 3, now + 10 * SEC, &until), 3 * SERVER_WEIGHT_ONE);
        assert_true(until == INT64_MAX);
}

static void head_time_follows_and_fades(void **state)
{
        (void)state;
        assert_int_equal(server_head_us(s, loops[0]->now), 0);
        server_succeeded(&s->loops[0], 8000);
        assert_int_equal(server_head_us(s, loops[0]->now), 8000);
        for (int i = 0; i < 100; i++)
                server_succeeded(&s->loops[1], 16000);
        assert_in_range(server_head_us(s, loops[0]->now), 15900, 16000);
        at(10 * SEC);
        assert_in_range(server_head_us(s, loops[0]->now), 3900, 4000);
}

static void gauges_say_what_is(void **state)
{
        const char *labels = "upstream=\"users\",server=\"10.0.0.1:8080\"";

        (void)state;
        inflight_add(&s->inflight);
        server_gauges(s, control->now, true);
        assert_int_equal(metric_of(METRIC_SERVER_UP, labels), 1);
        assert_int_equal(metric_of(METRIC_SERVER_INFLIGHT, labels), 1);
        for (int i = 0; i < 3; i++)
                server_failed(&s->loops[0], "reset");
        inflight_sub(&s->inflight);
        server_gauges(s, control->now, true);
        assert_int_equal(metric_of(METRIC_SERVER_UP, labels), 0);
        assert_int_equal(metric_of(METRIC_SERVER_INFLIGHT, labels), 0);
        server_count(&s->loops[0], SERVER_2XX);
        server_count(&s->loops[1], SERVER_2XX);
        assert_int_equal(metric_of(METRIC_UPSTREAM_REQUESTS,
                                   "upstream=\"users\",server=\"10.0.0.1:8080\",result=\"2xx\""),
                         2);
}

static void it_is_retired_when_nobody_needs_it(void **state)
{
        (void)state;
        server_hold(&s->loops[1]); /* a request is there */
        server_retire(s);
        turn_all();
        assert_false(list_empty(&us->retired));
        assert_int_equal(s->acks, 1);
        server_drop(&s->loops[1]);
        turn_all();
        assert_true(list_empty(&us->retired));
        assert_true(list_empty(&us->servers));
}

static void results_say_whose_failure_it_was(void **state)
{
        (void)state;
        assert_int_equal(server_result_of(REASON_CONNECT_TIMEOUT), SERVER_TIMEOUT);
        assert_int_equal(server_result_of(REASON_UPSTREAM_TLS), SERVER_CONNECT_ERROR);
        assert_int_equal(server_result_of(REASON_UPSTREAM_RESET), SERVER_RESET);
        assert_int_equal(server_result_of(REASON_UPSTREAM_HEAD), SERVER_BAD_RESPONSE);
        assert_int_equal(server_result_of(REASON_TUNNEL_IDLE), server_result_of_status(101));
}

#define SERVER_TEST(f) cmocka_unit_test_setup_teardown(f, up, process_down)

int main(void)
{
        const struct CMUnitTest tests[] = {
                SERVER_TEST(keepalive_is_divided),
                SERVER_TEST(facts_stand_side_by_side),
                SERVER_TEST(failures_in_a_row_eject),
                SERVER_TEST(ejections_back_off),
                SERVER_TEST(eject_off_never_ejects),
                SERVER_TEST(coming_up_forgets_failures),
                SERVER_TEST(weight_grows_slowly),
                SERVER_TEST(head_time_follows_and_fades),
                SERVER_TEST(gauges_say_what_is),
                SERVER_TEST(results_say_whose_failure_it_was),
                SERVER_TEST(it_is_retired_when_nobody_needs_it),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
