/*
 * Names: asked once, again by TTL, kept when asking fails, and never freed under a query.
 */
#include "proxy/resolve.c"

#include "upstream_fixture.h"

static struct upstream_conf conf;
static struct server_conf lines[1];
static struct upstream *u;

static int up(void **state)
{
        process_up(state);
        lines[0] = (struct server_conf){
                .text = STR("a.internal:80"), .host = STR("a.internal"), .port = 80, .weight = 1};
        conf = (struct upstream_conf){.name = STR("users"), .servers = lines, .n_servers = 1};
        return 0;
}

static void begin(void)
{
        u = upstream_hold(us, &conf, NULL);
}

static int down(void **state)
{
        if (u)
                upstream_drop(u);
        u = NULL;
        turn_all();
        return process_down(state);
}

static struct name *name_of(void)
{
        return map_get(us->names, STR("a.internal"));
}

static int64_t again_in(void)
{
        assert_true(deadline_armed(&name_of()->again));
        return name_of()->again.at - control->now;
}

static void check_again_in(int64_t want)
{
        assert_in_range(again_in(), want - 10 * MSEC, want + want / 16 + 10 * MSEC);
}

static void ask_now(void)
{
        deadline_clear(&name_of()->again);
        ask(name_of());
}

static void it_is_asked_again_by_ttl(void **state)
{
        static const struct {
                uint32_t ttl;
                int64_t want;
        } cases[] = {{0, SEC}, {1, SEC}, {30, 30 * SEC}, {100000, 3600 * SEC}};

        (void)state;
        begin();
        for (unsigned i = 0; i < COUNT(cases); i++) {
                dns_answers(i, "10.0.0.1", cases[i].ttl);
                check_again_in(cases[i].want);
                ask_now();
        }
        dns_answers(COUNT(cases), "10.0.0.1", 1);
}

static void resolve_is_a_floor(void **state)
{
        (void)state;
        lines[0].resolve = 60 * SEC;
        begin();
        dns_answers(0, "10.0.0.1", 5);
        check_again_in(60 * SEC);
        ask_now();
        dns_answers(1, "10.0.0.1", 90);
        check_again_in(90 * SEC);
}

static void a_failure_keeps_the_last_answer(void **state)
{
        (void)state;
        begin();
        dns_answers(0, "10.0.0.1 10.0.0.2", 5);
        turn_all();
        ask_now();
        dns_answers(1, NULL, 0);
        turn_all();
        assert_int_equal(u->set->n, 2);
        assert_string_equal(resolve_error(&u->name_uses[0]), "Domain name not found");
        check_again_in(SEC);
        ask_now();
        dns_answers(2, NULL, 0);
        check_again_in(2 * SEC); /* backs off */
        ask_now();
        dns_answers(3, "10.0.0.2", 5);
        turn_all();
        assert_int_equal(u->set->n, 1);
        assert_null(resolve_error(&u->name_uses[0]));
}

static void one_that_does_not_resolve_is_no_server(void **state)
{
        (void)state;
        begin();
        assert_int_equal(u->set->unresolved, 1);
        dns_answers(0, NULL, 0);
        turn_all();
        assert_int_equal(u->set->unresolved, 0);
        assert_int_equal(u->set->n, 0);
        ask_now();
        dns_answers(1, "10.0.0.1", 5);
        turn_all();
        assert_int_equal(u->set->n, 1);
}

static void the_same_answer_changes_nothing(void **state)
{
        struct server_set *before;

        (void)state;
        begin();
        dns_answers(0, "10.0.0.1 10.0.0.2", 5);
        turn_all();
        before = u->set;
        ask_now();
        dns_answers(1, "10.0.0.2 10.0.0.1 10.0.0.2", 5); /* in another order, one twice */
        assert_ptr_equal(u->set, before);
        assert_int_equal(u->publishing, 0);
}

static void a_name_may_go_while_it_is_asked_for(void **state)
{
        (void)state;
        begin();
        upstream_drop(u);
        u = NULL;
        turn_all();
        assert_int_equal(map_count(us->names), 1);
        dns_answers(0, "10.0.0.1", 5);
        assert_int_equal(map_count(us->names), 0);
}

static void a_name_is_asked_for_once(void **state)
{
        struct upstream *other;

        (void)state;
        begin();
        conf.name = STR("others");
        other = upstream_hold(us, &conf, NULL);
        assert_int_equal(n_queries, 1);
        dns_answers(0, "10.0.0.1", 5);
        turn_all();
        assert_int_equal(u->set->n, 1);
        assert_int_equal(other->set->n, 1);
        upstream_drop(other);
}

static void other_resolvers_are_asked_at_once(void **state)
{
        str servers[] = {STR("127.0.0.1:53")};
        int64_t end;

        (void)state;
        upstreams_resolvers(us, NULL, 0);
        begin();
        upstreams_resolvers(us, servers, 1); /* under way: asked again */
        assert_false(name_of()->answered);
        for (end = control->now + 5 * SEC; n_queries < 2 && control->now < end;)
                loop_turn(control, true);
        assert_int_equal(n_queries, 2);
        dns_answers(1, "10.0.0.1", 500);
        upstreams_resolvers(us, servers, 1); /* the same: nothing happens */
        check_again_in(500 * SEC);
}

#define RESOLVE_TEST(f) cmocka_unit_test_setup_teardown(f, up, down)

int main(void)
{
        const struct CMUnitTest tests[] = {
                RESOLVE_TEST(it_is_asked_again_by_ttl),
                RESOLVE_TEST(resolve_is_a_floor),
                RESOLVE_TEST(a_failure_keeps_the_last_answer),
                RESOLVE_TEST(one_that_does_not_resolve_is_no_server),
                RESOLVE_TEST(the_same_answer_changes_nothing),
                RESOLVE_TEST(a_name_may_go_while_it_is_asked_for),
                RESOLVE_TEST(a_name_is_asked_for_once),
                RESOLVE_TEST(other_resolvers_are_asked_at_once),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
