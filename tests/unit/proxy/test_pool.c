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
        struct client_conn *c = pool_get(from, STR_NONE);

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

        assert_true(pool_connect(sl, STR_NONE, SEC, &wait, take, &came, &why));
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
        assert_true(pool_connect(sl, STR_NONE, SEC, &wait, take, &came, &why));
        client_connected(connects, REASON_CONNECT_TIMEOUT);
        assert_null(came);
        assert_int_equal(came_why, REASON_CONNECT_TIMEOUT);
        refuse_at_once = REASON_CONNECT_FAILED;
        assert_false(pool_connect(sl, STR_NONE, SEC, &wait, take, &came, &why));
        assert_int_equal(why, REASON_CONNECT_FAILED);
        assert_int_equal(sl->holds, 0);
        assert_int_equal(metric_of(METRIC_UPSTREAM_CONNECTS,
                                   "upstream=\"u\",server=\"10.0.0.1:80\",result=\"timeout\""),
                         1);
        assert_int_equal(metric_of(METRIC_UPSTREAM_CONNECTS,
                                   "upstream=\"u\",server=\"10.0.0.1:80\",result=\"failed\""),
                         1);
}

static struct client_conn *open_for(const char *head)
{
        enum reason why = REASON_NONE;

        assert_true(pool_connect(sl, str_z(head), SEC, &wait, take, &came, &why));
        client_connected(connects, REASON_NONE);
        assert_non_null(came);
        return came;
}

static struct client_conn *get_for(const char *head)
{
        struct client_conn *c = pool_get(sl, str_z(head));

        if (c)
                take_room(c);
        return c;
}

/* A connection that began with somebody's header is never anybody else's. */
static void each_client_has_its_own(void **state)
{
        struct client_conn *a = open_for("A"), *b;

        (void)state;
        assert_string_equal(prefaced, "A");
        b = open_for("B");
        assert_string_equal(prefaced, "B");
        release(a);
        release(b);
        assert_null(get_for("C"));
        assert_null(get_for("AA"));
        assert_ptr_equal(get_for("A"), a);
        assert_int_equal(sl->idle_n, 1);
        assert_null(get_for("A"));
        assert_ptr_equal(get_for("B"), b);
        release(a);
        release(b);
        release(open_for("C")); /* the bound is two: the one that waits longest goes */
        assert_int_equal(sl->idle_n, 2);
        assert_null(get_for("A"));
        assert_ptr_equal(get_for("B"), b);
        release(b);
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

/* ------------------------------------------------------------------ many on one */

static struct client_conn *given[8];
static struct pool_wait waits[8];
static unsigned n_given;

static void take_one(void *arg, struct client_conn *c, enum reason why, str error)
{
        (void)error;
        assert_true(c != NULL || why != REASON_NONE);
        if (c)
                take_room(c);
        *(struct client_conn **)arg = c;
        n_given++;
}

static void wait_n(unsigned n)
{
        enum reason why = REASON_NONE;

        n_given = 0;
        memset(given, 0, sizeof(given));
        for (unsigned i = 0; i < n; i++)
                assert_true(pool_connect(sl, STR_NONE, SEC, &waits[i], take_one, &given[i], &why));
}

static int up_h2(void **state)
{
        up(state);
        s->protocol = PROTOCOL_H2C;
        sl->likely = 4;
        return 0;
}

static void come(unsigned serial, uint32_t room)
{
        struct fake *c = client(serial);

        c->connecting = false;
        c->conn.room = room;
        c->conn.pool->connected(&c->conn, REASON_NONE);
}

static void those_who_wait_share(void **state)
{
        (void)state;
        wait_n(6); /* four are likely to fit */
        assert_int_equal(connects, 2);
        assert_true(client(1)->h2);
        come(1, 10);
        assert_int_equal(n_given, 4);
        assert_ptr_equal(given[3], given[0]);
        assert_ptr_equal(get(sl), given[0]); /* it has room for more */
        come(2, 10);
        assert_int_equal(n_given, 6);
        assert_ptr_not_equal(given[5], given[0]);
        assert_int_equal(sl->connections_n, 2);
        assert_int_equal(sl->idle_n, 0);
        for (int i = 0; i < 4; i++)
                release(given[i]);
        assert_int_equal(sl->idle_n, 0);
        release(given[0]);
        assert_int_equal(sl->idle_n, 1);
        release(given[4]);
        release(given[5]);
        assert_int_equal(sl->idle_n, 2);
        assert_int_equal(sl->streams_n, 0);
}

static void a_connection_that_takes_fewer_sends_the_rest_on(void **state)
{
        (void)state;
        wait_n(4);
        assert_int_equal(connects, 1);
        come(1, 1);
        assert_int_equal(n_given, 1);
        assert_int_equal(connects, 4); /* one each from now on */
        pool_cancel(&waits[1], REASON_CLIENT_GONE);
        assert_int_equal(clients_alive(), 3);
        client_connected(3, REASON_CONNECT_FAILED);
        assert_null(given[2]);
        come(4, 1);
        assert_non_null(given[3]);
        release(given[0]);
        release(given[3]);
}

static void who_waits_may_go(void **state)
{
        (void)state;
        wait_n(3);
        pool_cancel(&waits[0], REASON_CLIENT_GONE);
        pool_cancel(&waits[2], REASON_CLIENT_GONE);
        assert_int_equal(clients_alive(), 1);
        pool_cancel(&waits[1], REASON_CLIENT_GONE);
        assert_int_equal(clients_alive(), 0);
        assert_int_equal(sl->holds, 0);
        assert_int_equal(sl->connections_n, 0);
}

static void all_who_wait_are_told_of_a_failure(void **state)
{
        (void)state;
        wait_n(3);
        client_connected(1, REASON_CONNECT_FAILED);
        assert_int_equal(n_given, 3);
        assert_int_equal(clients_alive(), 0);
}

static void a_full_or_draining_connection_is_not_given_out(void **state)
{
        struct client_conn *c;

        (void)state;
        wait_n(1);
        come(1, 2);
        c = given[0];
        assert_ptr_equal(get(sl), c);
        assert_null(get(sl)); /* full */
        release(c);
        assert_ptr_equal(get(sl), c);
        c->room = 0; /* a GOAWAY */
        c->busy--;
        c->pool->released(c);
        assert_null(get(sl));
        c->busy = 0; /* idle, but the server takes nothing now */
        c->pool->released(c);
        assert_null(get(sl));
        assert_true(client(1)->idle);
        assert_int_equal(sl->idle_n, 0);
        c->room = 2;
        c->pool->released(c);
        assert_int_equal(sl->idle_n, 1);
}

#define POOL_TEST(f) cmocka_unit_test_setup_teardown(f, up, process_down)

#define H2_TEST(f) cmocka_unit_test_setup_teardown(f, up_h2, process_down)

int main(void)
{
        const struct CMUnitTest tests[] = {
                POOL_TEST(the_newest_is_used_first),
                POOL_TEST(enough_is_enough),
                POOL_TEST(failures_are_told_and_counted),
                POOL_TEST(each_client_has_its_own),
                POOL_TEST(a_loop_that_drains_keeps_none),
                H2_TEST(those_who_wait_share),
                H2_TEST(a_connection_that_takes_fewer_sends_the_rest_on),
                H2_TEST(who_waits_may_go),
                H2_TEST(all_who_wait_are_told_of_a_failure),
                H2_TEST(a_full_or_draining_connection_is_not_given_out),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
