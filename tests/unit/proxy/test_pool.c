/*
 * Idle connections: the newest is used first, the bound holds, and a loop that drains keeps none.
 */
#include "proxy/pool.c"

#include "upstream_fixture.h"

static struct server *s;
static struct server_loop *sl;
static struct h1_client *came;
static enum reason came_why;

static void take(void *arg, struct h1_client *c, enum reason why, str error)
{
        assert_ptr_equal(arg, &came);
        came = c;
        came_why = why;
        if (!c)
                assert_true(str_eq(error, STR("Connection refused")));
}

static int up(void **state)
{
        struct server_id id = {.upstream = STR("u"), .label = STR("10.0.0.1:80")};

        process_up(state);
        id.line = id.host = id.key = id.label;
        assert_true(addr_parse(id.label, &id.addr));
        s = server_new(us, &id);
        atomic_store(&s->keepalive, 2);
        sl = &s->loops[1];
        return 0;
}

static struct h1_client *open_one(void)
{
        enum reason why = REASON_NONE;

        assert_non_null(pool_connect(sl, SEC, take, &came, &why));
        client_connected(connects, REASON_NONE);
        assert_non_null(came);
        return came;
}

static void the_newest_is_used_first(void **state)
{
        struct h1_client *a = open_one(), *b = open_one();

        (void)state;
        assert_null(pool_get(sl));
        a->pool->released(a);
        b->pool->released(b);
        assert_int_equal(sl->idle_n, 2);
        assert_ptr_equal(pool_get(sl), b);
        assert_ptr_equal(pool_get(sl), a);
        assert_null(pool_get(sl));
        a->pool->released(a);
        assert_null(pool_get(&s->loops[0])); /* each loop has its own */
        assert_ptr_equal(pool_get(sl), a);
        a->pool->released(a);
        b->pool->released(b);
}

static void enough_is_enough(void **state)
{
        struct h1_client *c[3];

        (void)state;
        for (int i = 0; i < 3; i++)
                c[i] = open_one();
        for (int i = 0; i < 3; i++)
                c[i]->pool->released(c[i]);
        assert_int_equal(sl->idle_n, 2);
        assert_int_equal(clients_alive(), 2);
        assert_int_equal(sl->holds, 2);
}

static void failures_are_told_and_counted(void **state)
{
        enum reason why = REASON_NONE;

        (void)state;
        assert_non_null(pool_connect(sl, SEC, take, &came, &why));
        client_connected(connects, REASON_CONNECT_TIMEOUT);
        assert_null(came);
        assert_int_equal(came_why, REASON_CONNECT_TIMEOUT);
        refuse_at_once = REASON_CONNECT_FAILED;
        assert_null(pool_connect(sl, SEC, take, &came, &why));
        assert_int_equal(why, REASON_CONNECT_FAILED);
        assert_int_equal(sl->holds, 0);
        assert_int_equal(metric_of(METRIC_UPSTREAM_CONNECTS,
                                   "upstream=\"u\",server=\"10.0.0.1:80\",result=\"timeout\""),
                         1);
        assert_int_equal(metric_of(METRIC_UPSTREAM_CONNECTS,
                                   "upstream=\"u\",server=\"10.0.0.1:80\",result=\"failed\""),
                         1);
}

static void a_loop_that_drains_keeps_none(void **state)
{
        struct h1_client *a = open_one(), *b = open_one();

        (void)state;
        a->pool->released(a);
        upstreams_close_idle(us, loops[1]);
        assert_int_equal(clients_alive(), 1);
        b->pool->released(b);
        assert_int_equal(clients_alive(), 0);
}

#define POOL_TEST(f) cmocka_unit_test_setup_teardown(f, up, process_down)

int main(void)
{
        const struct CMUnitTest tests[] = {
                POOL_TEST(the_newest_is_used_first),
                POOL_TEST(enough_is_enough),
                POOL_TEST(failures_are_told_and_counted),
                POOL_TEST(a_loop_that_drains_keeps_none),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
