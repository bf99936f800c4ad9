/* Whose requests a canary gets, and how they are counted. */
#include "proxy/trial.c"

#include "../base/unit.h"

static struct trial_share share(const char *key, uint32_t ppm)
{
        struct trial_share s = {.then = trial_below(ppm)};

        memcpy(s.key, key, sizeof(s.key));
        return s;
}

static struct addr ip(unsigned i)
{
        char text[32];
        struct addr a;

        snprintf(text, sizeof(text), "10.%u.%u.%u", i >> 16, i >> 8 & 255, i & 255);
        assert_true(addr_parse_ip(str_z(text), (uint16_t)i, &a));
        return a;
}

static unsigned taken(const struct trial_share *s, unsigned of)
{
        unsigned n = 0;

        for (unsigned i = 0; i < of; i++) {
                struct addr a = ip(i);
                n += trial_has(s, s->then, &a);
        }
        return n;
}

static void a_share_of_the_addresses(void **state)
{
        struct trial_share five = share("0123456789abcdef", 50000), ten = five;
        struct trial_share half = share("another key 0123", 500000), other = half;
        struct addr a, b;
        unsigned same = 0;

        (void)state;
        assert_in_range(taken(&five, 20000), 850, 1150);
        assert_in_range(taken(&half, 20000), 9600, 10400);
        ten.then = trial_below(100000);
        for (unsigned i = 0; i < 20000; i++) { /* more of them: the same and others */
                a = ip(i);
                assert_true(!trial_has(&five, five.then, &a) || trial_has(&ten, ten.then, &a));
        }
        memcpy(other.key, "some 16 bytes ..", 16);
        for (unsigned i = 0; i < 20000; i++) {
                a = ip(i);
                same += trial_has(&half, half.then, &a) == trial_has(&other, other.then, &a);
        }
        assert_in_range(same, 9600, 10400); /* nobody knows whom without the key */
        a = b = ip(7);
        addr_set_port(&b, 1);
        assert_int_equal(trial_has(&half, half.then, &a), trial_has(&half, half.then, &b));
        for (unsigned i = 0; i < 100; i++) {
                char text[64];
                a = ip(i);
                snprintf(text, sizeof(text), "::ffff:10.0.0.%u", i);
                assert_true(addr_parse_ip(str_z(text), 0, &b));
                assert_int_equal(trial_has(&half, half.then, &a), trial_has(&half, half.then, &b));
        }
        assert_true(addr_parse(STR("unix:/a"), &a) && addr_parse(STR("unix:/b"), &b));
        assert_int_equal(trial_has(&half, half.then, &a), trial_has(&half, half.then, &b));
        five.then = trial_below(TRIAL_PARTS);
        assert_int_equal(taken(&five, 1000), 1000);
        five.then = trial_below(1);
        assert_int_equal(taken(&five, 1000), 0);
}

static void it_changes_at_a_moment(void **state)
{
        struct trial_share s = {.before = 1, .then = 2, .at = SEC};

        (void)state;
        assert_int_equal(trial_now(&s, 0), 1);
        assert_int_equal(trial_now(&s, SEC - 1), 1);
        assert_int_equal(trial_now(&s, SEC), 2);
        assert_true(trial_below(TRIAL_PARTS) == TRIAL_ALL);
        assert_int_equal(trial_below(0), 0);
        assert_int_not_equal(trial_below(1), 0);
}

static void buckets_and_their_bounds(void **state)
{
        (void)state;
        assert_int_equal(trial_bucket(0), 0);
        assert_int_equal(trial_bucket(UINT64_MAX), TRIAL_BUCKETS - 1);
        assert_true(trial_bound(TRIAL_BUCKETS - 1) == UINT64_MAX);
        for (unsigned b = 0; b < TRIAL_BUCKETS - 1; b++) {
                uint64_t bound = trial_bound(b);
                assert_int_equal(trial_bucket(bound - 1), b);
                assert_int_equal(trial_bucket(bound), b + 1);
                if (b > 0)
                        assert_true(bound * 4 <= trial_bound(b - 1) * 5);
        }
}

static void quantiles(void **state)
{
        struct trial_sum s = {{0}};

        (void)state;
        assert_int_equal(trial_quantile(&s, 900), 0);
        s.cells[TRIAL_TIMES + trial_bucket(1000)] = 89;
        s.cells[TRIAL_TIMES + trial_bucket(50000)] = 10;
        s.cells[TRIAL_TIMES + TRIAL_BUCKETS - 1] = 1;
        assert_in_range(trial_quantile(&s, 500), 1001, 1250);
        assert_in_range(trial_quantile(&s, 900), 50001, 62500);
        assert_int_equal(trial_quantile(&s, 1000), 1 << 26);
}

/* ------------------------------------------------------------------ counting */

static struct loop loop;
static struct request request;
static struct trial_tally *tally;
static struct txn txn;

static uint64_t count(enum trial_cell c)
{
        struct trial_sum s = {{0}};

        trial_add(&s, tally);
        return s.cells[c];
}

/* Another request, begun now. */
static struct txn *begin(int status)
{
        request = (struct request){.loop = &loop, .started = loop.now};
        request.res.status = status;
        txn = (struct txn){.r = &request};
        trial_begin(&txn, tally);
        return &txn;
}

static int up(void **state)
{
        (void)state;
        loop.now = SEC;
        tally = trial_tally_begin(NULL, 7);
        return 0;
}

static int down(void **state)
{
        (void)state;
        free(tally);
        return 0;
}

static void an_ordinary_request(void **state)
{
        struct txn *t = begin(200);

        (void)state;
        assert_int_equal(count(TRIAL_REQUESTS), 1);
        assert_int_equal(count(TRIAL_ANSWERED), 0);
        loop.now += 3000;
        trial_answered(t);
        loop.now += 9 * SEC; /* a slow download is the client's affair */
        trial_ended(t);
        assert_int_equal(count(TRIAL_ANSWERED), 1);
        assert_int_equal(count(TRIAL_TIME), 3000);
        assert_int_equal(count(TRIAL_TIMES + trial_bucket(3000)), 1);
        assert_int_equal(count(TRIAL_ERRORS) + count(TRIAL_FAILED), 0);
}

static void errors(void **state)
{
        struct txn *t = begin(503);

        (void)state;
        trial_answered(t);
        t->reason = REASON_NO_SERVER;
        trial_ended(t);
        assert_int_equal(count(TRIAL_ERRORS), 1);
        t = begin(200); /* cut by the server */
        trial_answered(t);
        assert_int_equal(count(TRIAL_ERRORS), 1);
        t->reason = REASON_UPSTREAM_RESET;
        trial_ended(t);
        assert_int_equal(count(TRIAL_ERRORS), 2);
        t = begin(200); /* or left by the client */
        trial_answered(t);
        t->reason = REASON_CLIENT_GONE;
        trial_ended(t);
        t = begin(501); /* its own fault */
        request.refused = t->reason = REASON_METHOD;
        trial_answered(t);
        trial_ended(t);
        t = begin(404);
        t->reason = REASON_NO_ROUTE;
        trial_answered(t);
        trial_ended(t);
        assert_int_equal(count(TRIAL_ERRORS), 2);
        assert_int_equal(count(TRIAL_ANSWERED), 5);
}

/* A call of gRPC that ended with this in its trailers. */
static void call(const char *status, enum reason why)
{
        struct arena *a = arena_new(0);
        struct txn *t = begin(200);

        request.req.method = METHOD_POST;
        fields_add(a, &request.req.fields, FIELD_CONTENT_TYPE, field_name_of(FIELD_CONTENT_TYPE),
                   STR("application/grpc"));
        fields_add(a, &request.res.trailers, FIELD_OTHER, GRPC_STATUS, str_z(status));
        trial_answered(t);
        t->reason = why;
        trial_ended(t);
        arena_free(a);
}

static void errors_of_grpc(void **state)
{
        (void)state;
        call("0", REASON_NONE);
        call("5", REASON_NONE); /* NOT_FOUND is an answer */
        call("77", REASON_NONE);
        call("nonsense", REASON_NONE);
        call("12", REASON_NO_ROUTE); /* weir's own 404 */
        assert_int_equal(count(TRIAL_ERRORS), 0);
        call("14", REASON_NONE);
        call("12", REASON_NONE);
        assert_int_equal(count(TRIAL_ERRORS), 2);
}

static void who_does_not_wait_has_waited(void **state)
{
        struct txn *t = begin(499);

        (void)state;
        loop.now += 2 * SEC;
        t->reason = REASON_CLIENT_GONE;
        trial_ended(t);
        assert_int_equal(count(TRIAL_ANSWERED), 1);
        assert_int_equal(count(TRIAL_TIMES + trial_bucket(2 * SEC)), 1);
        assert_int_equal(count(TRIAL_ERRORS), 0);
}

static void failures_are_counted_once_a_request(void **state)
{
        struct txn *t = begin(200);

        (void)state;
        t->failures = 3;
        trial_answered(t);
        t->failures = 4;
        trial_ended(t);
        assert_int_equal(count(TRIAL_FAILED), 1);
        t = begin(200);
        trial_answered(t);
        t->failures = 1;
        trial_ended(t);
        assert_int_equal(count(TRIAL_FAILED), 2);
}

static void what_left_was_never_there(void **state)
{
        (void)state;
        trial_leave(begin(200));
        assert_int_equal(count(TRIAL_REQUESTS), 0);
        assert_null(txn.tally);
}

/* Its canary is over, and another one counts here now. */
static void late_ones_are_left_out(void **state)
{
        struct txn *t = begin(500);

        (void)state;
        assert_ptr_equal(trial_tally_begin(tally, 8), tally);
        assert_int_equal(count(TRIAL_REQUESTS), 0);
        trial_answered(t);
        trial_ended(t);
        assert_int_equal(count(TRIAL_ANSWERED), 0);
        assert_int_equal(count(TRIAL_ERRORS), 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_share_of_the_addresses),
                cmocka_unit_test(it_changes_at_a_moment),
                cmocka_unit_test(buckets_and_their_bounds),
                cmocka_unit_test(quantiles),
                cmocka_unit_test_setup_teardown(an_ordinary_request, up, down),
                cmocka_unit_test_setup_teardown(errors, up, down),
                cmocka_unit_test_setup_teardown(errors_of_grpc, up, down),
                cmocka_unit_test_setup_teardown(who_does_not_wait_has_waited, up, down),
                cmocka_unit_test_setup_teardown(failures_are_counted_once_a_request, up, down),
                cmocka_unit_test_setup_teardown(what_left_was_never_there, up, down),
                cmocka_unit_test_setup_teardown(late_ones_are_left_out, up, down),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
