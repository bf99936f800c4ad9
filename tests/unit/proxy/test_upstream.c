/*
 * Upstreams over reloads: what is shared, what is kept, when the old goes; and what operators see
 * and say.
 */
#include "proxy/upstream.c"

#include "upstream_fixture.h"

#include "base/json.h"

static struct upstream_conf conf;
static struct server_conf lines[4];

static int up(void **state)
{
        process_up(state);
        lines[0] = line("10.0.0.1:80", 1);
        lines[1] = line("10.0.0.2:80", 1);
        lines[2] = line("10.0.0.3:80", 1);
        conf = (struct upstream_conf){
                .name = STR("users"), .servers = lines, .n_servers = 2, .keepalive = 8};
        return 0;
}

static struct upstream *hold(void)
{
        struct upstream *u = upstream_hold(us, &conf, NULL);

        for (unsigned i = 0; i < LOOPS; i++)
                upstream_loop_begin(u, loops[i]);
        return u;
}

static void drop(struct upstream *u)
{
        for (unsigned i = 0; i < LOOPS; i++)
                upstream_loop_end(u, loops[i]);
        upstream_drop(u);
        turn_all();
}

static unsigned servers_alive(void)
{
        unsigned n = 0;

        LIST_EACH (l, &us->servers) {
                n++;
        }
        LIST_EACH (l, &us->retired) {
                n++;
        }
        return n;
}

static void equal_blocks_are_one_upstream(void **state)
{
        struct upstream *a = hold(), *b = hold(), *c;

        (void)state;
        assert_ptr_equal(a, b);
        conf.name = STR("others");
        c = hold();
        assert_ptr_not_equal(a, c);
        assert_ptr_not_equal(a->set->m[0].server, c->set->m[0].server);
        drop(c);
        assert_int_equal(servers_alive(), 2);
        drop(a);
        assert_int_equal(servers_alive(), 2);
        drop(b);
        assert_int_equal(servers_alive(), 0);
}

static void a_changed_block_keeps_its_servers(void **state)
{
        struct upstream *old = hold(), *new;
        struct server *first = old->set->m[0].server;

        (void)state;
        server_admin(first, SERVER_ADMIN_DRAIN, control->now);
        conf.n_servers = 3;
        lines[0].weight = 5;
        conf.eject_failures = 7;
        new = hold();
        assert_ptr_not_equal(new, old);
        assert_ptr_equal(new->set->m[0].server, first);
        assert_int_equal(new->set->m[0].weight, 5);
        assert_int_equal(old->set->m[0].weight, 1);
        assert_int_equal(first->eject_failures, 7); /* the newest counts */
        drop(old);
        assert_int_equal(servers_alive(), 3);
        assert_string_equal(server_state(first, control->now), "drain"); /* its state goes on */
        drop(new);
        assert_int_equal(servers_alive(), 0);
}

static void the_newest_block_counts(void **state)
{
        struct upstream *old, *new;

        (void)state;
        lines[1] = (struct server_conf){
                .text = STR("a.internal:80"), .host = STR("a.internal"), .port = 80, .weight = 1};
        conf.eject_failures = 5;
        old = hold();
        conf.eject_failures = 7;
        new = hold();
        dns_answers(0, "10.1.0.1", 60); /* the old one makes another set, too */
        turn_all();
        assert_int_equal(old->set->m[0].server->eject_failures, 7);
        conf.eject_failures = 5;
        assert_ptr_equal(hold(), old); /* back again */
        assert_int_equal(old->set->m[0].server->eject_failures, 5);
        drop(new);
        drop(old);
        drop(old);
}

/* What a canary says of servers that others have counts when it is promoted. */
static void a_canary_configures_nobody(void **state)
{
        struct upstream *old, *new;
        struct server *first;
        str none = STR("127.0.0.9");

        (void)state;
        conf.eject_failures = 5;
        old = hold();
        first = old->set->m[0].server;
        upstreams_trial(us, true);
        conf.eject_failures = 7;
        conf.n_servers = 3;
        new = hold();
        upstreams_resolvers(us, &none, 1);
        upstreams_trial(us, false);
        assert_null(us->resolvers.p);
        assert_int_equal(first->eject_failures, 5);
        assert_int_equal(new->set->m[2].server->eject_failures, 7); /* nobody else has it */
        upstream_changed(new); /* its servers have other addresses, or so */
        turn_all();
        assert_int_equal(first->eject_failures, 5);
        upstream_promote(new);
        assert_int_equal(first->eject_failures, 7);
        upstream_changed(old);
        turn_all();
        assert_int_equal(first->eject_failures, 7);
        upstreams_trial(us, true); /* the old one again, and back */
        conf.eject_failures = 5;
        conf.n_servers = 2;
        assert_ptr_equal(hold(), old);
        upstreams_trial(us, false);
        assert_int_equal(first->eject_failures, 7);
        drop(old);
        upstream_changed(new);
        turn_all();
        assert_int_equal(first->eject_failures, 7);
        drop(new);
        drop(old);
        assert_int_equal(servers_alive(), 0);
}

static void who_joins_starts_slowly_who_was_there_does_not(void **state)
{
        struct upstream *old, *new;

        (void)state;
        conf.slow_start = 10 * SEC;
        old = hold();
        assert_int_equal(old->set->m[0].server->up_since, 0);
        conf.n_servers = 3;
        new = hold();
        assert_int_equal(new->set->m[0].server->up_since, 0);
        assert_int_not_equal(new->set->m[2].server->up_since, 0);
        drop(old);
        drop(new);
}

static struct client_conn *came;

static void take_connection(void *arg, struct client_conn *c, enum reason why, str error)
{
        (void)arg, (void)why, (void)error;
        came = c;
}

static void a_server_that_goes_takes_its_idle_connections(void **state)
{
        struct upstream *u = hold();
        struct server_loop *sl = &u->set->m[0].server->loops[1];
        struct pool_wait wait;
        enum reason why;

        (void)state;
        assert_true(pool_connect(sl, STR_NONE, SEC, &wait, take_connection, NULL, &why));
        client_connected(1, REASON_NONE); /* nothing is sent on it */
        assert_ptr_equal(came, &client(1)->conn);
        assert_int_equal(sl->idle_n, 1);
        drop(u);
        assert_int_equal(clients_alive(), 0);
        assert_int_equal(servers_alive(), 0);
}

/* ------------------------------------------------------------------ names */

static void name_line(unsigned i, const char *host, uint16_t port)
{
        lines[i] = (struct server_conf){
                .text = str_z(host), .host = str_z(host), .port = port, .weight = 1};
}

static struct upstream *with_name(void)
{
        name_line(1, "users.internal", 8080);
        conf.n_servers = 2;
        return hold();
}

static void every_address_of_a_name_is_a_server(void **state)
{
        struct upstream *u = with_name();

        (void)state;
        assert_int_equal(u->set->n, 1);
        assert_int_equal(u->set->unresolved, 1);
        assert_string_equal(queries[0].name, "users.internal");
        dns_answers(0, "10.1.0.2 10.1.0.1", 60);
        turn_all();
        for (unsigned i = 0; i < LOOPS; i++)
                assert_ptr_equal(u->loops[i].set, u->set);
        assert_null(u->old);
        assert_int_equal(u->set->n, 3);
        assert_int_equal(u->set->unresolved, 0);
        assert_true(str_eq(u->set->m[1].server->label, STR("users.internal/10.1.0.1:8080")));
        assert_true(str_eq(u->set->m[2].server->label, STR("users.internal/10.1.0.2:8080")));
        drop(u);
        assert_int_equal(map_count(us->names), 0);
}

static void addresses_come_and_go(void **state)
{
        struct upstream *u = with_name();
        struct server *kept;

        (void)state;
        dns_answers(0, "10.1.0.1 10.1.0.2", 1);
        turn_all();
        kept = u->set->m[2].server;
        upstreams_resolvers(us, NULL, 0); /* asks again */
        for (int64_t end = control->now + 5 * SEC; n_queries < 2 && control->now < end;)
                loop_turn(control, true);
        dns_answers(1, "10.1.0.2 10.1.0.3", 60);
        turn_all();
        assert_int_equal(u->set->n, 3);
        assert_ptr_equal(u->set->m[1].server, kept);
        assert_int_equal(servers_alive(), 3);
        drop(u);
}

/* Two changes before the loops have taken the first. */
static void changes_during_a_publication_are_not_lost(void **state)
{
        struct upstream *u;

        (void)state;
        name_line(1, "users.internal", 80);
        name_line(2, "more.internal", 80);
        conf.n_servers = 3;
        u = hold();
        dns_answers(0, "10.1.0.1", 60);
        assert_int_equal(u->publishing, LOOPS);
        dns_answers(1, "10.2.0.1", 60);
        assert_true(u->stale);
        turn_all();
        assert_int_equal(u->set->n, 3);
        for (unsigned i = 0; i < LOOPS; i++)
                assert_ptr_equal(u->loops[i].set, u->set);
        drop(u);
        assert_int_equal(servers_alive(), 0);
}

static void an_upstream_may_go_during_a_publication(void **state)
{
        struct upstream *u = with_name();

        (void)state;
        dns_answers(0, "10.1.0.1", 60);
        for (unsigned i = 0; i < LOOPS; i++)
                upstream_loop_end(u, loops[i]);
        upstream_drop(u);
        turn_all();
        assert_int_equal(servers_alive(), 0);
}

static void a_reload_keeps_resolved_addresses(void **state)
{
        struct upstream *old = with_name(), *new;

        (void)state;
        dns_answers(0, "10.1.0.1", 60);
        turn_all();
        conf.keepalive = 9;
        new = hold();
        assert_ptr_not_equal(old, new);
        assert_int_equal(new->set->n, 2);
        assert_ptr_equal(new->set->m[1].server, old->set->m[1].server);
        assert_int_equal(n_queries, 1);
        drop(old);
        drop(new);
}

/* ------------------------------------------------------------------ operators */

static void commands_survive_reloads(void **state)
{
        struct upstream *u = hold(), *new;

        (void)state;
        assert_false(upstreams_admin(us, STR("users"), STR("10.0.0.9:80"), STR("down")));
        assert_false(upstreams_admin(us, STR("nobody"), STR("10.0.0.1:80"), STR("down")));
        assert_false(upstreams_admin(us, STR("users"), STR("10.0.0.1:80"), STR("sideways")));
        assert_true(upstreams_admin(us, STR("users"), STR("10.0.0.1:80"), STR("drain")));
        assert_string_equal(server_state(u->set->m[0].server, control->now), "drain");
        conf.keepalive = 9;
        new = hold();
        drop(u);
        assert_string_equal(server_state(new->set->m[0].server, control->now), "drain");
        drop(new);
        u = hold(); /* even when it was away */
        assert_string_equal(server_state(u->set->m[0].server, control->now), "drain");
        assert_true(upstreams_admin(us, STR("users"), STR("10.0.0.1:80"), STR("up")));
        drop(u);
        u = hold();
        assert_string_equal(server_state(u->set->m[0].server, control->now), "up");
        drop(u);
}

static void a_command_for_a_name_takes_all_its_addresses(void **state)
{
        struct upstream *u = with_name();

        (void)state;
        dns_answers(0, "10.1.0.1 10.1.0.2", 60);
        turn_all();
        assert_true(upstreams_admin(us, STR("users"), STR("users.internal"), STR("down")));
        assert_string_equal(server_state(u->set->m[1].server, control->now), "admin_down");
        assert_string_equal(server_state(u->set->m[2].server, control->now), "admin_down");
        assert_true(
                upstreams_admin(us, STR("users"), STR("users.internal/10.1.0.2:8080"), STR("up")));
        assert_string_equal(server_state(u->set->m[1].server, control->now), "admin_down");
        assert_string_equal(server_state(u->set->m[2].server, control->now), "up");
        drop(u);
}

static void status_tells_all(void **state)
{
        struct upstream *u = with_name();
        struct buf out = BUF_INIT;
        struct json_writer w;
        str text;

        (void)state;
        lines[0].max_connections = 7;
        inflight_add(&u->set->m[0].inflight);
        server_admin(u->set->m[0].server, SERVER_ADMIN_DOWN, control->now);
        dns_answers(0, NULL, 0);
        turn_all();
        atomic_store(&u->loops[1].queued, 3);
        atomic_store(&u->set->m[0].server->loops[0].idle_n, 2);
        json_begin(&w, &out);
        upstreams_status(us, region, &w);
        text = buf_pullup(&out, out.n);
        assert_true(str_find(text, STR("\"upstream\":\"users\"")) >= 0);
        assert_true(str_find(text, STR("\"server\":\"10.0.0.1:80\",\"state\":\"admin_down\"")) >=
                    0);
        assert_true(str_find(text, STR("\"requests\":1")) >= 0);
        assert_true(str_find(text, STR("\"queued\":3")) >= 0);
        assert_true(str_find(text, STR("\"idle_connections\":2")) >= 0);
        atomic_store(&u->loops[1].queued, 0);
        atomic_store(&u->set->m[0].server->loops[0].idle_n, 0);
        assert_true(str_find(text, STR("\"server\":\"users.internal\",\"state\":\"down\",\"error\":"
                                       "\"Domain name not found\"")) >= 0);
        buf_clear(&out);
        inflight_sub(&u->set->m[0].inflight);
        drop(u);
}

static void gauges_are_kept(void **state)
{
        struct upstream *u = hold();
        const char *first = "upstream=\"users\",server=\"10.0.0.1:80\"";

        (void)state;
        atomic_store(&u->loops[1].queued, 3);
        atomic_store(&u->set->m[1].server->loops[0].idle_n, 2);
        upstreams_gauges(us);
        assert_int_equal(metric_of(METRIC_SERVER_UP, first), 1);
        assert_int_equal(metric_of(METRIC_QUEUED, "upstream=\"users\""), 3);
        assert_int_equal(metric_of(METRIC_POOL_IDLE, "upstream=\"users\""), 2);
        server_check_down(u->set->m[0].server, "test");
        upstreams_gauges(us);
        assert_int_equal(metric_of(METRIC_SERVER_UP, first), 0);
        drop(u);
}

static void retry_after_follows_what_will_change(void **state)
{
        struct upstream *u;

        (void)state;
        conf.check_interval = 30 * SEC;
        conf.check_timeout = SEC;
        u = hold();
        assert_int_equal(upstream_retry_after(u, loops[0]), 30);
        atomic_store(&u->set->m[0].server->ejected_until, loops[0]->now + 4 * SEC + 1);
        assert_int_equal(upstream_retry_after(u, loops[0]), 5);
        drop(u);
}

#define UPSTREAM_TEST(f) cmocka_unit_test_setup_teardown(f, up, process_down)

int main(void)
{
        const struct CMUnitTest tests[] = {
                UPSTREAM_TEST(equal_blocks_are_one_upstream),
                UPSTREAM_TEST(a_changed_block_keeps_its_servers),
                UPSTREAM_TEST(the_newest_block_counts),
                UPSTREAM_TEST(a_canary_configures_nobody),
                UPSTREAM_TEST(who_joins_starts_slowly_who_was_there_does_not),
                UPSTREAM_TEST(a_server_that_goes_takes_its_idle_connections),
                UPSTREAM_TEST(every_address_of_a_name_is_a_server),
                UPSTREAM_TEST(addresses_come_and_go),
                UPSTREAM_TEST(changes_during_a_publication_are_not_lost),
                UPSTREAM_TEST(an_upstream_may_go_during_a_publication),
                UPSTREAM_TEST(a_reload_keeps_resolved_addresses),
                UPSTREAM_TEST(commands_survive_reloads),
                UPSTREAM_TEST(a_command_for_a_name_takes_all_its_addresses),
                UPSTREAM_TEST(status_tells_all),
                UPSTREAM_TEST(gauges_are_kept),
                UPSTREAM_TEST(retry_after_follows_what_will_change),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
