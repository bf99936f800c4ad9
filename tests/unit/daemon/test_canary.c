/* Terms of canaries, and the verdicts on what was counted. */
#include "daemon/canary.c"

#include "../base/unit.h"

static struct trial_sum sides[CANARY_SIDES];
static const struct canary_terms terms = {
        .share = 50000, .tolerance = CANARY_TOLERANCE, .period = 60 * SEC};
static char reason[CANARY_REASON];

static int clean(void **state)
{
        (void)state;
        memset(sides, 0, sizeof(sides));
        reason[0] = 0;
        return 0;
}

/* n requests of a side, answered after us; so many of them bad. */
static void counts(enum canary_side s, uint64_t n, uint64_t us, uint64_t errors, uint64_t failed)
{
        uint64_t *c = sides[s].cells;

        c[TRIAL_REQUESTS] += n;
        c[TRIAL_ANSWERED] += n;
        c[TRIAL_ERRORS] += errors;
        c[TRIAL_FAILED] += failed;
        c[TRIAL_TIME] += n * us;
        c[TRIAL_TIMES + trial_bucket(us)] += n;
}

static void open_ones(enum canary_side s, uint64_t n)
{
        sides[s].cells[TRIAL_REQUESTS] += n;
}

static enum canary_verdict early(int64_t elapsed)
{
        return canary_judge(&terms, sides, elapsed, false, reason);
}

static enum canary_verdict at_the_end(void)
{
        enum canary_verdict v = canary_judge(&terms, sides, terms.period, true, reason);

        assert_int_not_equal(v, CANARY_WAIT);
        assert_int_not_equal(strlen(reason), 0);
        return v;
}

#define BECAUSE(words) assert_non_null(strstr(reason, words))

static void terms_are_read(void **state)
{
        uint32_t v;
        int64_t us;

        (void)state;
        assert_true(canary_share(STR("5%"), &v));
        assert_int_equal(v, 50000);
        assert_true(canary_share(STR("0.05"), &v));
        assert_int_equal(v, 50000);
        assert_true(canary_share(STR("0.0001%"), &v));
        assert_int_equal(v, 1);
        assert_true(canary_share(STR("99.9%"), &v));
        static const char *const not_shares[] = {"",     "%",   "0",   "0%", "1",       "100%",
                                                 "101%", "-5%", "5 %", "x",  "0.00001%"};
        for (size_t i = 0; i < COUNT(not_shares); i++)
                assert_false(canary_share(str_z(not_shares[i]), &v));
        assert_true(canary_tolerance(STR("0"), &v));
        assert_int_equal(v, 0);
        assert_true(canary_tolerance(STR("100%"), &v));
        assert_false(canary_tolerance(STR("2"), &v));
        assert_true(canary_period(STR("1s"), &us));
        assert_true(canary_period(STR("1d"), &us));
        assert_int_equal(us, 24 * 3600 * SEC);
        assert_false(canary_period(STR("500ms"), &us));
        assert_false(canary_period(STR("2d"), &us));
        assert_false(canary_period(STR("0"), &us));
        assert_false(canary_period(STR("60"), &us));
}

static void nothing_happens(void **state)
{
        (void)state;
        assert_int_equal(early(0), CANARY_WAIT);
        assert_int_equal(early(59 * SEC), CANARY_WAIT);
        assert_int_equal(at_the_end(), CANARY_PROMOTE);
        BECAUSE("too little traffic to judge");
        BECAUSE("0 requests");
}

static void as_good_as_the_old_one(void **state)
{
        (void)state;
        counts(CANARY_OLD, 95000, 12 * MSEC, 950, 10);
        counts(CANARY_NEW, 5000, 12 * MSEC, 51, 1);
        assert_int_equal(early(30 * SEC), CANARY_WAIT);
        assert_int_equal(at_the_end(), CANARY_PROMOTE);
        BECAUSE("51 of 5000");
        BECAUSE("950 of 95000");
}

static void errors_end_it_early(void **state)
{
        (void)state;
        counts(CANARY_OLD, 1000, MSEC, 0, 0);
        counts(CANARY_NEW, 4, MSEC, 4, 0);
        assert_int_equal(early(SEC / 4), CANARY_WAIT); /* a few do not */
        counts(CANARY_NEW, 1, MSEC, 1, 0);
        assert_int_equal(early(SEC / 4), CANARY_BACK);
        BECAUSE("ended in errors (5 of 5)");
}

/* Nobody else is there to compare with. */
static void errors_of_the_only_side(void **state)
{
        (void)state;
        counts(CANARY_NEW, 5, MSEC, 5, 0);
        assert_int_equal(early(SEC), CANARY_BACK);
        clean(NULL);
        counts(CANARY_NEW, 100, MSEC, 5, 0);
        assert_int_equal(early(SEC), CANARY_WAIT);
}

static void functions_that_fail(void **state)
{
        (void)state;
        counts(CANARY_OLD, 1000, MSEC, 0, 3);
        counts(CANARY_NEW, 50, MSEC, 0, 20);
        assert_int_equal(early(SEC), CANARY_BACK);
        BECAUSE("had a function fail");
}

/* What is bad on both sides is nobody's fault. */
static void errors_of_both(void **state)
{
        (void)state;
        counts(CANARY_OLD, 1000, MSEC, 500, 500);
        counts(CANARY_NEW, 100, MSEC, 52, 49);
        assert_int_equal(early(SEC), CANARY_WAIT);
        assert_int_equal(at_the_end(), CANARY_PROMOTE);
        clean(NULL);
        counts(CANARY_OLD, 1000, MSEC, 1000, 0);
        counts(CANARY_NEW, 100, MSEC, 100, 0);
        assert_int_equal(early(SEC), CANARY_WAIT);
        assert_int_equal(at_the_end(), CANARY_PROMOTE);
}

static void better_is_not_worse(void **state)
{
        (void)state;
        counts(CANARY_OLD, 1000, 900 * MSEC, 500, 500);
        counts(CANARY_NEW, 1000, MSEC, 0, 0);
        assert_int_equal(early(30 * SEC), CANARY_WAIT);
        assert_int_equal(at_the_end(), CANARY_PROMOTE);
}

/* A difference that is real, and smaller than what is tolerated. */
static void tolerance(void **state)
{
        struct canary_terms strict = terms;

        (void)state;
        counts(CANARY_OLD, 1000000, MSEC, 0, 0);
        counts(CANARY_NEW, 1000000, MSEC, 9000, 0);
        assert_int_equal(at_the_end(), CANARY_PROMOTE);
        strict.tolerance = 0;
        assert_int_equal(canary_judge(&strict, sides, SEC, false, reason), CANARY_BACK);
        counts(CANARY_NEW, 0, MSEC, 2000, 0);
        assert_int_equal(at_the_end(), CANARY_BACK);
}

/* Sure enough at the end is not certain enough before. */
static void sure_and_certain(void **state)
{
        (void)state;
        counts(CANARY_OLD, 1000, MSEC, 10, 0);
        counts(CANARY_NEW, 200, MSEC, 9, 0);
        assert_int_equal(early(59 * SEC), CANARY_WAIT);
        assert_int_equal(at_the_end(), CANARY_BACK);
        clean(NULL);
        counts(CANARY_OLD, 1000, MSEC, 10, 0);
        counts(CANARY_NEW, 200, MSEC, 5, 0); /* chance */
        assert_int_equal(at_the_end(), CANARY_PROMOTE);
}

static void slow_answers(void **state)
{
        (void)state;
        counts(CANARY_OLD, 1000, 20 * MSEC, 0, 0);
        counts(CANARY_NEW, 100, 60 * MSEC, 0, 0);
        assert_int_equal(early(10 * SEC), CANARY_WAIT); /* it has just begun */
        assert_int_equal(early(20 * SEC), CANARY_BACK);
        BECAUSE("took longer than");
        assert_int_equal(at_the_end(), CANARY_BACK);
        clean(NULL);
        counts(CANARY_OLD, 1000, 20 * MSEC, 0, 0);
        counts(CANARY_NEW, 100, 26 * MSEC, 0, 0);
        assert_int_equal(at_the_end(), CANARY_PROMOTE);
        clean(NULL);
        counts(CANARY_OLD, 1000, 100, 0, 0); /* ten times as slow, and nobody notices */
        counts(CANARY_NEW, 100, 1000, 0, 0);
        assert_int_equal(at_the_end(), CANARY_PROMOTE);
}

/* A few slow ones are tolerated, many are not, however fast the rest is. */
static void the_slow_share(void **state)
{
        (void)state;
        counts(CANARY_OLD, 10000, 10 * MSEC, 0, 0);
        counts(CANARY_NEW, 950, 10 * MSEC, 0, 0);
        counts(CANARY_NEW, 50, SEC, 0, 0);
        assert_int_equal(at_the_end(), CANARY_PROMOTE);
        counts(CANARY_NEW, 150, SEC, 0, 0);
        assert_int_equal(at_the_end(), CANARY_BACK);
}

static void what_is_never_answered(void **state)
{
        (void)state;
        counts(CANARY_OLD, 1000, MSEC, 0, 0);
        open_ones(CANARY_NEW, 100);
        assert_int_equal(early(SEC), CANARY_WAIT);
        assert_int_equal(early(20 * SEC), CANARY_BACK);
        BECAUSE("not answered yet (100 of 100)");
        assert_int_equal(at_the_end(), CANARY_BACK);
        open_ones(CANARY_OLD, 20000); /* both wait: long polls */
        assert_int_equal(at_the_end(), CANARY_PROMOTE);
}

static void too_little(void **state)
{
        (void)state;
        counts(CANARY_OLD, 500, MSEC, 0, 0);
        counts(CANARY_NEW, 3, MSEC, 0, 0);
        assert_int_equal(at_the_end(), CANARY_PROMOTE);
        BECAUSE("too little traffic to judge");
        counts(CANARY_NEW, 1, MSEC, 1, 0);
        assert_int_equal(at_the_end(), CANARY_BACK);
        BECAUSE("1 of its 4 requests ended in errors");
        clean(NULL);
        counts(CANARY_NEW, 10000, MSEC, 3, 0); /* within what is tolerated */
        assert_int_equal(at_the_end(), CANARY_PROMOTE);
        BECAUSE("too little traffic to judge");
        clean(NULL);
        counts(CANARY_NEW, 4, MSEC, 0, 1);
        assert_int_equal(at_the_end(), CANARY_BACK);
        BECAUSE("had a function fail");
        clean(NULL);
        open_ones(CANARY_NEW, 2);
        counts(CANARY_OLD, 5, MSEC, 0, 0);
        assert_int_equal(at_the_end(), CANARY_BACK);
        BECAUSE("2 of its 2 requests were not answered");
        open_ones(CANARY_OLD, 6);
        assert_int_equal(at_the_end(), CANARY_PROMOTE);
}

/* Read while they are counted: nothing that cannot be, comes out of it. */
static void counts_that_do_not_fit(void **state)
{
        (void)state;
        for (unsigned i = 0; i < TRIAL_CELLS; i++)
                sides[CANARY_NEW].cells[i] = i % 3 ? 0 : 1000;
        (void)early(30 * SEC);
        (void)at_the_end();
        memset(sides, 0xff, sizeof(sides));
        (void)early(30 * SEC);
        (void)at_the_end();
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup(terms_are_read, clean),
                cmocka_unit_test_setup(nothing_happens, clean),
                cmocka_unit_test_setup(as_good_as_the_old_one, clean),
                cmocka_unit_test_setup(errors_end_it_early, clean),
                cmocka_unit_test_setup(errors_of_the_only_side, clean),
                cmocka_unit_test_setup(functions_that_fail, clean),
                cmocka_unit_test_setup(errors_of_both, clean),
                cmocka_unit_test_setup(better_is_not_worse, clean),
                cmocka_unit_test_setup(tolerance, clean),
                cmocka_unit_test_setup(sure_and_certain, clean),
                cmocka_unit_test_setup(slow_answers, clean),
                cmocka_unit_test_setup(the_slow_share, clean),
                cmocka_unit_test_setup(what_is_never_answered, clean),
                cmocka_unit_test_setup(too_little, clean),
                cmocka_unit_test_setup(counts_that_do_not_fit, clean),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
