/*
 * The record of ClientHellos: each is new once, whoever asks; it is bounded, and forgets.
 */
#include "net/tls_replay.c"

#include "../base/unit.h"

#include <pthread.h>

static struct tls_replay *r;

static int up(void **state)
{
        (void)state;
        r = tls_replay_new();
        return 0;
}

static int down(void **state)
{
        (void)state;
        tls_replay_free(r);
        return 0;
}

static enum tls_seen see(uint64_t id, int64_t now)
{
        return tls_replay_see(r, str_of((const char *)&id, sizeof(id)), now);
}

static void once(void **state)
{
        (void)state;
        assert_int_equal(see(1, 1000), TLS_SEEN_NEW);
        assert_int_equal(see(1, 1000), TLS_SEEN_BEFORE);
        assert_int_equal(see(2, 1000), TLS_SEEN_NEW);
        assert_int_equal(see(1, 1000 + WINDOW), TLS_SEEN_BEFORE);
        assert_int_equal(see(1, 999), TLS_SEEN_BEFORE); /* a clock that is a little behind */
        assert_int_equal(see(1, 1000 + WINDOW + 1), TLS_SEEN_NEW);
}

/* Seconds are kept in 16 bits. */
static void seconds_wrap(void **state)
{
        (void)state;
        assert_int_equal(see(1, 65535), TLS_SEEN_NEW);
        assert_int_equal(see(1, 65536 + 3), TLS_SEEN_BEFORE);
        assert_int_equal(see(2, 65536), TLS_SEEN_NEW);
        assert_int_equal(see(2, 65537), TLS_SEEN_BEFORE);
}

/* It fills, then takes nothing, and never forgets in its time what it took. */
static void bounded(void **state)
{
        uint64_t taken = 0, full = 0;

        (void)state;
        for (uint64_t i = 1; i <= 2 * SETS * WAYS; i++) {
                enum tls_seen s = see(i, 5);
                taken += s == TLS_SEEN_NEW;
                full += s == TLS_SEEN_FULL;
                if (s == TLS_SEEN_NEW)
                        assert_int_equal(see(i, 6), TLS_SEEN_BEFORE);
        }
        assert_true(taken > SETS * WAYS * 9 / 10 && taken <= SETS * WAYS);
        assert_true(full > 0);
        assert_int_equal(see(1, 7), TLS_SEEN_BEFORE);
        assert_int_equal(see(UINT64_MAX, 5 + WINDOW + 1), TLS_SEEN_NEW);
}

#define RACERS 4
#define ROUNDS 20000
static _Atomic uint32_t wins[ROUNDS];

static void *race(void *arg)
{
        unsigned which = (unsigned)(uintptr_t)arg;

        /* Their clocks are not quite the same. */
        for (uint64_t i = 0; i < ROUNDS; i++)
                if (see(i, (int64_t)(100 + (which & 1))) == TLS_SEEN_NEW)
                        atomic_fetch_add(&wins[i], 1);
        return NULL;
}

static void one_of_many_at_once(void **state)
{
        pthread_t t[RACERS];
        uint64_t won = 0;

        (void)state;
        for (uintptr_t i = 0; i < RACERS; i++)
                assert_int_equal(pthread_create(&t[i], NULL, race, (void *)i), 0);
        for (size_t i = 0; i < RACERS; i++)
                pthread_join(t[i], NULL);
        for (size_t i = 0; i < ROUNDS; i++) {
                assert_true(wins[i] <= 1);
                won += wins[i];
        }
        assert_true(won > ROUNDS / 2);
}

/* Tickets from before the record was made may have been used before it was. */
static void what_was_before_is_not_known(void **state)
{
        (void)state;
        r->born = 1000;
        r->born_wall = 50000;
        assert_false(knows(r, 50000, 1001));
        assert_false(knows(r, 40000, 1000 + WINDOW - 1));
        assert_true(knows(r, 50001, 1001));
        assert_true(knows(r, 40000, 1000 + WINDOW));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(once, up, down),
                cmocka_unit_test_setup_teardown(seconds_wrap, up, down),
                cmocka_unit_test_setup_teardown(bounded, up, down),
                cmocka_unit_test_setup_teardown(one_of_many_at_once, up, down),
                cmocka_unit_test_setup_teardown(what_was_before_is_not_known, up, down),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
