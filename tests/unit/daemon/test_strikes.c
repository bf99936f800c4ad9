/* Three strikes in a minute, and the growing pause between deaths. */
#include "daemon/strikes.c"

#include "../base/unit.h"

static const uint8_t one[32] = {1}, two[32] = {2};

static bool keep_none(void *ctx, const uint8_t sha[32])
{
        (void)ctx, (void)sha;
        return false;
}

static void three_within_a_minute(void **state)
{
        struct strikes s;

        (void)state;
        strikes_init(&s);
        assert_false(strikes_quarantined(&s, one));
        assert_false(strikes_add(&s, one, 1 * SEC));
        assert_false(strikes_add(&s, one, 30 * SEC));
        assert_false(strikes_add(&s, two, 31 * SEC));
        assert_true(strikes_add(&s, one, 61 * SEC));
        assert_true(strikes_quarantined(&s, one));
        assert_false(strikes_quarantined(&s, two));
        strikes_forget(&s, keep_none, NULL);
}

static void old_strikes_do_not_count(void **state)
{
        struct strikes s;

        (void)state;
        strikes_init(&s);
        for (int i = 0; i < 10; i++)
                assert_false(strikes_add(&s, one, SEC + i * 31 * SEC));
        strikes_forget(&s, keep_none, NULL);
}

static bool keep_two(void *ctx, const uint8_t sha[32])
{
        (void)ctx;
        return memcmp(sha, two, 32) == 0;
}

static void another_version_starts_clean(void **state)
{
        struct strikes s;

        (void)state;
        strikes_init(&s);
        for (int i = 1; i <= 3; i++) {
                (void)strikes_add(&s, one, i * SEC);
                (void)strikes_add(&s, two, i * SEC);
        }
        strikes_forget(&s, keep_two, NULL);
        assert_false(strikes_quarantined(&s, one));
        assert_true(strikes_quarantined(&s, two));
        assert_false(strikes_add(&s, one, 4 * SEC));
        strikes_forget(&s, keep_none, NULL);
}

struct seen {
        unsigned n, quarantined;
        uint32_t strikes;
};

static void see(void *ctx, const uint8_t sha[32], uint32_t n, bool quarantined)
{
        struct seen *seen = ctx;

        assert_true(memcmp(sha, one, 32) == 0 || memcmp(sha, two, 32) == 0);
        seen->n++;
        seen->strikes += n;
        seen->quarantined += quarantined;
}

static struct seen all_of(const struct strikes *s)
{
        struct seen seen = {.n = 0};

        strikes_each(s, see, &seen);
        return seen;
}

static void cleared_by_hand(void **state)
{
        struct strikes s;
        struct seen seen;

        (void)state;
        strikes_init(&s);
        assert_false(strikes_clear(&s, one));
        for (int i = 1; i <= 3; i++)
                (void)strikes_add(&s, one, i * SEC);
        (void)strikes_add(&s, two, SEC);
        seen = all_of(&s);
        assert_int_equal(seen.n, 2);
        assert_int_equal(seen.strikes, 4);
        assert_int_equal(seen.quarantined, 1);
        assert_true(strikes_clear(&s, one));
        assert_false(strikes_quarantined(&s, one));
        assert_false(strikes_clear(&s, one));
        assert_false(strikes_add(&s, one, 4 * SEC)); /* the earlier ones are forgotten */
        assert_false(strikes_clear(&s, two));        /* it had one, and was not quarantined */
        assert_int_equal(all_of(&s).n, 1);
        strikes_forget(&s, keep_none, NULL);
}

static void pauses_grow_and_heal(void **state)
{
        struct pace p = {.over = 0};
        static const int64_t wanted[] = {0,       0,        0,        100 * MSEC, 500 * MSEC,
                                         2 * SEC, 10 * SEC, 30 * SEC, 30 * SEC};
        int64_t now = 5 * SEC;

        (void)state;
        for (size_t i = 0; i < COUNT(wanted); i++) {
                assert_int_equal(pace_next(&p, now), wanted[i]);
                now += MSEC;
        }
        assert_int_equal(pace_next(&p, now + 61 * SEC), 0);
        assert_int_equal(pace_next(&p, now + 62 * SEC), 0);
        assert_int_equal(pace_next(&p, now + 63 * SEC), 0);
        assert_int_equal(pace_next(&p, now + 64 * SEC), 100 * MSEC);
}

static void rare_deaths_are_replaced_at_once(void **state)
{
        struct pace p = {.over = 0};

        (void)state;
        for (int i = 1; i < 100; i++)
                assert_int_equal(pace_next(&p, i * 21 * SEC), 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(three_within_a_minute),
                cmocka_unit_test(old_strikes_do_not_count),
                cmocka_unit_test(another_version_starts_clean),
                cmocka_unit_test(cleared_by_hand),
                cmocka_unit_test(pauses_grow_and_heal),
                cmocka_unit_test(rare_deaths_are_replaced_at_once),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
