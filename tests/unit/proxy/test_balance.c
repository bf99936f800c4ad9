/*
 * Policies: shares by weight, smoothness, true counts, few keys that move; who is a candidate and
 * who is not.
 */
#include "proxy/balance.c"

#include "upstream_fixture.h"

static struct server_set *set;

/* Servers as server_get makes them, one for each weight; 0 ends the list. */
static void make_set(const uint32_t *weights, uint32_t n)
{
        set = server_set_new(n, LOOPS, &us->epoch);
        for (uint32_t i = 0; i < n; i++) {
                char text[32];
                struct server_id id = {.upstream = STR("u")};
                snprintf(text, sizeof(text), "10.0.%u.%u:80", i / 250, i % 250 + 1);
                id.label = id.line = id.host = id.key = str_z(text);
                assert_true(addr_parse(id.label, &id.addr));
                set->m[i] = (struct member){.server = server_new(us, &id),
                                            .weight = weights ? weights[i] : 1};
        }
}

static int down(void **state)
{
        server_set_free(set);
        set = NULL;
        return process_down(state);
}

static int choose(enum balance policy,
                  uint64_t key) /* index, or -1: full, -2: none; stays in flight */
{
        const struct member *m;
        struct balance_pick p = {.set = set, .policy = policy, .now = loops[0]->now, .key = key};

        switch (balance_pick(&p, &m)) {
        case BALANCE_OK:
                return (int)(m - set->m);
        case BALANCE_FULL:
                return -1;
        default:
                return -2;
        }
}

static int choose_and_end(enum balance policy, uint64_t key)
{
        int i = choose(policy, key);

        if (i >= 0)
                inflight_sub(&set->m[i].inflight);
        return i;
}

static void round_robin_is_smooth(void **state)
{
        static const int want[] = {0, 0, 1, 0, 2, 0, 0};

        (void)state;
        make_set((const uint32_t[]){5, 1, 1}, 3);
        server_set_ready(set);
        for (int round = 0; round < 3; round++)
                for (unsigned i = 0; i < COUNT(want); i++)
                        assert_int_equal(choose_and_end(BALANCE_ROUND_ROBIN, 0), want[i]);
}

static void round_robin_of_equals_takes_turns(void **state)
{
        (void)state;
        make_set(NULL, 4);
        server_set_ready(set);
        for (int i = 0; i < 12; i++)
                assert_int_equal(choose_and_end(BALANCE_ROUND_ROBIN, 0), i % 4);
}

static void loops_start_at_different_servers(void **state)
{
        const struct member *a, *b;

        (void)state;
        make_set(NULL, 4);
        server_set_ready(set);
        for (int i = 0; i < 8; i++) {
                struct balance_pick p = {.set = set, .now = loops[0]->now};
                assert_int_equal(balance_pick(&p, &a), BALANCE_OK);
                p.loop = 1;
                assert_int_equal(balance_pick(&p, &b), BALANCE_OK);
                assert_ptr_not_equal(a, b);
        }
}

static void shares(enum balance policy, const uint32_t *weights, uint32_t n, double tolerance)
{
        unsigned got[8] = {0}, sum = 0;
        const unsigned picks = 60000;

        make_set(weights, n);
        server_set_ready(set);
        for (unsigned i = 0; i < picks; i++)
                got[choose_and_end(policy, mix(i + 1))]++;
        for (uint32_t i = 0; i < n; i++)
                sum += weights[i];
        for (uint32_t i = 0; i < n; i++) {
                double want = (double)picks * weights[i] / sum;
                assert_true(got[i] > want * (1 - tolerance) && got[i] < want * (1 + tolerance));
        }
}

static void round_robin_shares_by_weight(void **state)
{
        (void)state;
        shares(BALANCE_ROUND_ROBIN, (const uint32_t[]){1, 2, 3, 4}, 4, 0.001);
}

static void random_shares_by_weight(void **state)
{
        (void)state;
        shares(BALANCE_RANDOM, (const uint32_t[]){1, 2, 3, 4}, 4, 0.05);
}

static void random_shares_evenly(void **state)
{
        (void)state;
        shares(BALANCE_RANDOM, (const uint32_t[]){1, 1, 1}, 3, 0.05);
}

static void hash_shares_by_weight(void **state)
{
        (void)state;
        shares(BALANCE_HASH, (const uint32_t[]){1, 2, 3, 4}, 4, 0.05);
}

static void hash_shares_evenly(void **state)
{
        (void)state;
        shares(BALANCE_HASH, (const uint32_t[]){1, 1, 1, 1, 1}, 5, 0.05);
}

#define KEYS 20000
static void hash_moves_few_keys(const uint32_t *weights)
{
        static int before[KEYS];
        unsigned moved = 0, of_gone = 0;

        make_set(weights, 10);
        server_set_ready(set);
        for (unsigned k = 0; k < KEYS; k++)
                before[k] = choose_and_end(BALANCE_HASH, mix(k + 1));
        server_check_down(set->m[3].server, "test");
        for (unsigned k = 0; k < KEYS; k++) {
                int now = choose_and_end(BALANCE_HASH, mix(k + 1));
                assert_int_not_equal(now, 3);
                of_gone += before[k] == 3;
                moved += before[k] != now;
        }
        assert_int_equal(moved, of_gone); /* none but those of the server that went */
        assert_true(moved > 0);
        server_check_up(set->m[3].server, loops[0]->now);
        for (unsigned k = 0; k < KEYS; k++)
                assert_int_equal(choose_and_end(BALANCE_HASH, mix(k + 1)), before[k]);
}

static void hash_moves_few_keys_of_equals(void **state)
{
        (void)state;
        hash_moves_few_keys(NULL);
}

static void hash_moves_few_keys_of_weighted(void **state)
{
        (void)state;
        hash_moves_few_keys((const uint32_t[]){1, 2, 3, 4, 5, 1, 2, 3, 4, 5});
}

static void least_conn_counts_all_loops(void **state)
{
        (void)state;
        make_set(NULL, 3);
        server_set_ready(set);
        /* In flight on another loop: seen by this one. */
        for (int i = 0; i < 4; i++)
                inflight_add(&set->m[0].server->inflight);
        for (int i = 0; i < 2; i++)
                inflight_add(&set->m[2].server->inflight);
        assert_int_equal(choose(BALANCE_LEAST_CONN, 0), 1);
        assert_int_equal(choose(BALANCE_LEAST_CONN, 0), 1);
        /* 4 2 2: from here on 1 and 2 fill up evenly, then all three. */
        for (int i = 0; i < 4; i++)
                assert_int_not_equal(choose(BALANCE_LEAST_CONN, 0), 0);
        for (int i = 0; i < 3; i++)
                choose(BALANCE_LEAST_CONN, 0);
        for (int i = 0; i < 3; i++)
                assert_int_equal(inflight_total(&set->m[i].inflight), 5);
}

static void least_conn_weighs(void **state)
{
        (void)state;
        make_set((const uint32_t[]){3, 1}, 2);
        server_set_ready(set);
        for (int i = 0; i < 40; i++)
                choose(BALANCE_LEAST_CONN, 0);
        assert_int_equal(inflight_total(&set->m[0].inflight), 30);
        assert_int_equal(inflight_total(&set->m[1].inflight), 10);
}

static void two_choices_avoid_the_loaded(void **state)
{
        (void)state;
        make_set(NULL, 3);
        server_set_ready(set);
        for (int i = 0; i < 10; i++)
                inflight_add(&set->m[1].inflight);
        for (int i = 0; i < 200; i++)
                assert_int_not_equal(choose_and_end(BALANCE_P2C, 0), 1);
        /* Much better than chance: with 3000 in flight no server is far from 1000. */
        for (int i = 0; i < 2990; i++)
                choose(BALANCE_P2C, 0);
        for (int i = 0; i < 3; i++) {
                assert_true(inflight_total(&set->m[i].inflight) > 980);
                assert_true(inflight_total(&set->m[i].inflight) < 1020);
        }
}

static void least_time_prefers_the_fast(void **state)
{
        unsigned fast = 0;

        (void)state;
        make_set(NULL, 2);
        server_set_ready(set);
        for (int i = 0; i < 50; i++) {
                server_succeeded(&set->m[0].server->loops[0], 50 * MSEC);
                server_succeeded(&set->m[1].server->loops[0], 5 * MSEC);
        }
        assert_int_equal(choose_and_end(BALANCE_LEAST_TIME, 0), 1);
        for (int i = 0; i < 110; i++)
                fast += choose(BALANCE_LEAST_TIME, 0) == 1;
        assert_true(fast >= 98 && fast <= 102); /* ten to one */
}

static void least_time_lets_newcomers_in(void **state)
{
        int seen[3] = {0};

        (void)state;
        make_set(NULL, 3);
        server_set_ready(set);
        server_succeeded(&set->m[0].server->loops[0], 5 * MSEC);
        for (int i = 0; i < 30; i++)
                seen[choose(BALANCE_LEAST_TIME, 0)]++;
        for (int i = 0; i < 3; i++)
                assert_int_equal(seen[i], 10);
}

static void backups_wait_for_all_to_go(void **state)
{
        (void)state;
        make_set(NULL, 3);
        set->m[2].backup = true;
        server_set_ready(set);
        for (int i = 0; i < 6; i++)
                assert_int_not_equal(choose_and_end(BALANCE_ROUND_ROBIN, 0), 2);
        server_check_down(set->m[0].server, "test");
        assert_int_equal(choose_and_end(BALANCE_ROUND_ROBIN, 0), 1);
        server_admin(set->m[1].server, SERVER_ADMIN_DRAIN, 1);
        assert_int_equal(choose_and_end(BALANCE_ROUND_ROBIN, 0), 2);
        server_check_down(set->m[2].server, "test");
        assert_int_equal(choose(BALANCE_ROUND_ROBIN, 0), -2);
        server_admin(set->m[1].server, 0, 1);
        assert_int_equal(choose_and_end(BALANCE_ROUND_ROBIN, 0), 1);
}

static void ejected_ones_serve_when_all_are(void **state)
{
        int64_t now;

        (void)state;
        make_set(NULL, 2);
        server_set_ready(set);
        now = loops[0]->now;
        atomic_store(&set->m[0].server->ejected_until, now + SEC);
        atomic_fetch_add(&us->epoch, 1);
        for (int i = 0; i < 4; i++)
                assert_int_equal(choose_and_end(BALANCE_ROUND_ROBIN, 0), 1);
        assert_int_equal(balance_next_change(set, now), now + SEC);
        atomic_store(&set->m[1].server->ejected_until, now + 2 * SEC);
        atomic_fetch_add(&us->epoch, 1);
        assert_int_equal(
                choose_and_end(BALANCE_ROUND_ROBIN, 0) + choose_and_end(BALANCE_ROUND_ROBIN, 0), 1);
        /* The first comes back by time alone. */
        loops[0]->now = now + SEC;
        for (int i = 0; i < 4; i++)
                assert_int_equal(choose_and_end(BALANCE_ROUND_ROBIN, 0), 0);
}

static void max_connections_hold(void **state)
{
        static const enum balance all[] = {BALANCE_ROUND_ROBIN, BALANCE_LEAST_CONN, BALANCE_RANDOM,
                                           BALANCE_P2C,         BALANCE_LEAST_TIME, BALANCE_HASH};

        (void)state;
        make_set(NULL, 3);
        for (int i = 0; i < 3; i++)
                set->m[i].max_connections = (uint32_t)i + 1;
        server_set_ready(set);
        for (unsigned p = 0; p < COUNT(all); p++) {
                for (int i = 0; i < 6; i++)
                        assert_true(choose(all[p], mix((uint64_t)i + 1)) >= 0);
                assert_int_equal(choose(all[p], 77), -1);
                for (uint32_t i = 0; i < 3; i++)
                        assert_int_equal(inflight_total(&set->m[i].inflight), i + 1);
                inflight_sub(&set->m[1].inflight);
                assert_int_equal(choose(all[p], 77), 1);
                for (uint32_t i = 0; i < 3; i++)
                        for (uint32_t k = 0; k <= i; k++)
                                inflight_sub(&set->m[i].inflight);
        }
}

static void tried_ones_come_last(void **state)
{
        const struct member *m;
        struct tried tried = {0};
        struct balance_pick p = {.tried = &tried};

        (void)state;
        make_set(NULL, 3);
        set->m[2].backup = true;
        server_set_ready(set);
        p.set = set;
        p.now = loops[0]->now;
        tried.s[tried.n++] = set->m[0].server;
        assert_int_equal(balance_pick(&p, &m), BALANCE_OK);
        assert_ptr_equal(m, &set->m[1]);
        tried.s[tried.n++] = set->m[1].server;
        assert_int_equal(balance_pick(&p, &m), BALANCE_OK);
        assert_ptr_equal(m, &set->m[2]);
        tried.s[tried.n++] = set->m[2].server;
        assert_int_equal(balance_pick(&p, &m), BALANCE_OK);
        assert_ptr_not_equal(m, &set->m[2]);
}

static void a_cookie_leads_back(void **state)
{
        const struct member *m;
        struct balance_pick p = {0};

        (void)state;
        make_set(NULL, 5);
        server_set_ready(set);
        p.set = set;
        p.now = loops[0]->now;
        p.sticky = set->m[3].server->sticky;
        for (int i = 0; i < 5; i++) {
                assert_int_equal(balance_pick(&p, &m), BALANCE_OK);
                assert_ptr_equal(m, &set->m[3]);
        }
        server_admin(set->m[3].server, SERVER_ADMIN_DRAIN, 1); /* who is there may stay */
        assert_int_equal(balance_pick(&p, &m), BALANCE_OK);
        assert_ptr_equal(m, &set->m[3]);
        server_admin(set->m[3].server, SERVER_ADMIN_DOWN, 1);
        assert_int_equal(balance_pick(&p, &m), BALANCE_OK);
        assert_ptr_not_equal(m, &set->m[3]);
        p.sticky = 12345; /* nobody's */
        assert_int_equal(balance_pick(&p, &m), BALANCE_OK);
}

static void who_comes_back_starts_slowly(void **state)
{
        unsigned got = 0;
        int64_t now;

        (void)state;
        make_set(NULL, 2);
        server_set_ready(set);
        now = loops[0]->now;
        atomic_store(&set->m[1].server->slow_start, 10 * SEC);
        server_check_down(set->m[1].server, "test");
        server_check_up(set->m[1].server, now);
        loops[0]->now = now + 5 * SEC; /* half of its weight: a third of the requests */
        for (int i = 0; i < 300; i++)
                got += choose_and_end(BALANCE_ROUND_ROBIN, 0) == 1;
        assert_in_range(got, 99, 101);
        loops[0]->now = now + 10 * SEC;
        got = 0;
        for (int i = 0; i < 300; i++)
                got += choose_and_end(BALANCE_ROUND_ROBIN, 0) == 1;
        assert_int_equal(got, 150);
}

static void no_member_is_no_server(void **state)
{
        (void)state;
        make_set(NULL, 0);
        server_set_ready(set);
        assert_int_equal(choose(BALANCE_HASH, 1), -2);
}

#define BALANCE_TEST(f) cmocka_unit_test_setup_teardown(f, process_up, down)

int main(void)
{
        const struct CMUnitTest tests[] = {
                BALANCE_TEST(round_robin_is_smooth),
                BALANCE_TEST(round_robin_of_equals_takes_turns),
                BALANCE_TEST(loops_start_at_different_servers),
                BALANCE_TEST(round_robin_shares_by_weight),
                BALANCE_TEST(random_shares_by_weight),
                BALANCE_TEST(random_shares_evenly),
                BALANCE_TEST(hash_shares_by_weight),
                BALANCE_TEST(hash_shares_evenly),
                BALANCE_TEST(hash_moves_few_keys_of_equals),
                BALANCE_TEST(hash_moves_few_keys_of_weighted),
                BALANCE_TEST(least_conn_counts_all_loops),
                BALANCE_TEST(least_conn_weighs),
                BALANCE_TEST(two_choices_avoid_the_loaded),
                BALANCE_TEST(least_time_prefers_the_fast),
                BALANCE_TEST(least_time_lets_newcomers_in),
                BALANCE_TEST(backups_wait_for_all_to_go),
                BALANCE_TEST(ejected_ones_serve_when_all_are),
                BALANCE_TEST(max_connections_hold),
                BALANCE_TEST(tried_ones_come_last),
                BALANCE_TEST(a_cookie_leads_back),
                BALANCE_TEST(who_comes_back_starts_slowly),
                BALANCE_TEST(no_member_is_no_server),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
