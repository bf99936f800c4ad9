/*
 * Idle connections: the newest is used first, the bound holds, and a loop that drains keeps none.
 */
#include "proxy/pool.c"

#include "upstream_fixture.h"

static struct server *s;
static struct server_loop *sl;
static struct client_conn *came;
static enum reason came_why;
static struct pool_wait wait;

static void take_room(struct client_conn *c)
{
        assert_true(c->room > 0);
        c->room--;
        c->busy++;
}

static struct client_conn *get(struct server_loop *from)
{
        struct client_conn *c = pool_get(from);

        if (c)
                take_room(c);
        return c;
}

static void release(struct client_conn *c)
{
        c->room++;
        c->busy--;
        c->pool->released(c);
}

static void take(void *arg, struct client_conn *c, enum reason why, str error)
{
        assert_ptr_equal(arg, &came);
        came = c;
        if (c)
                take_room(c);
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

static struct client_conn *open_one(void)
{
        enum reason why = REASON_NONE;

        assert_true(pool_connect(sl, SEC, &wait, take, &came, &why));
        client_connected(connects, REASON_NONE);
        assert_non_null(came);
        return came;
}

static void the_newest_is_used_first(void **state)
{
        struct client_conn *a = open_one(), *b = open_one();

        (void)state;
        assert_null(get(sl));
        release(a);
        release(b);
        assert_int_equal(sl->idle_n, 2);
        assert_ptr_equal(get(sl), b);
        assert_ptr_equal(get(sl), a);
        assert_null(get(sl));
        release(a);
        assert_null(get(&s->loops[0])); /* each loop has its own */
        assert_ptr_equal(get(sl), a);
        release(a);
        release(b);
}

static void enough_is_enough(void **state)
{
        struct client_conn *c[3];

        (void)state;
        for (int i = 0; i < 3; i++)
                c[i] = open_one();
        for (int i = 0; i < 3; i++)
                release(c[i]);
        assert_int_equal(sl->idle_n, 2);
        assert_int_equal(clients_alive(), 2);
        assert_int_equal(sl->holds, 2);
}

static void failures_are_told_and_counted(void **state)
{
        enum reason why = REASON_NONE;

        (void)state;
        assert_true(pool_connect(sl, SEC, &wait, take, &came, &why));
        client_connected(connects, REASON_CONNECT_TIMEOUT);
        assert_null(came);
        assert_int_equal(came_why, REASON_CONNECT_TIMEOUT);
        refuse_at_once = REASON_CONNECT_FAILED;
        assert_false(pool_connect(sl, SEC, &wait, take, &came, &why));
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
        struct client_conn *a = open_one(), *b = open_one();

        (void)state;
        release(a);
        upstreams_close_idle(us, loops[1]);
        assert_int_equal(clients_alive(), 1);
        release(b);
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
