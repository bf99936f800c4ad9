/* What flow does with functions on bodies: who is told what, and what becomes of their verdicts. */
#include "flow_world.h"

static void filtered(bool request_body, bool response_body)
{
        with_function(CHAIN_CONTINUE, CHAIN_CONTINUE);
        w.filters[WEIR_REQUEST] = request_body;
        w.filters[WEIR_RESPONSE] = response_body;
}

static void a_request_goes_through(void **state)
{
        struct filter *f = &w.filter[WEIR_REQUEST];

        (void)state;
        filtered(true, false);
        post();
        assert_int_equal(f->opened, 1);
        assert_int_equal(f->framed, 1);
        assert_int_equal(w.sent->framing, FRAMING_CLOSE);
        client_body("one", false);
        assert_int_equal(f->came, 1);
        assert_int_equal(w.req_readies, 0);
        w.chain_user->ready(w.t, false);
        assert_int_equal(w.req_readies, 1);
        w.user->req_room(w.t);
        assert_int_equal(f->rooms, 1);
        assert_int_equal(w.rooms, 0);
        w.chain_user->room(w.t, false);
        assert_int_equal(w.rooms, 1);
        server_head(200, "");
        assert_int_equal(f->ended, 1);
        over(200, REASON_NONE);
}

static void a_response_goes_through(void **state)
{
        struct filter *f = &w.filter[WEIR_RESPONSE];

        (void)state;
        filtered(false, true);
        w.keeps = true;
        get("/");
        server_head(200, NULL);
        assert_int_equal(f->opened, 1);
        assert_int_equal(w.framing, FRAMING_CLOSE);
        server_body("one", false);
        assert_int_equal(f->came, 1);
        client_got(200, "");
        w.chain_user->ready(w.t, true);
        client_got(200, "one");
        w.r->flow->res_room(w.r);
        assert_int_equal(f->rooms, 1);
        assert_int_equal(w.res_rooms, 0);
        w.chain_user->room(w.t, true);
        assert_int_equal(w.res_rooms, 1);
        server_body("", true);
        w.chain_user->ready(w.t, true);
        client_sent();
        over(200, REASON_NONE);
}

/* The server has answered before the request's body was all there. */
static void a_finished_exchange_ends_the_requests(void **state)
{
        (void)state;
        filtered(true, false);
        w.keeps = true;
        post();
        server_head(200, NULL);
        assert_int_equal(w.filter[WEIR_REQUEST].ended, 0);
        server_body("done", true);
        assert_int_equal(w.filter[WEIR_REQUEST].ended, 1);
        client_body("late", false);
        client_sent();
        over(200, REASON_NONE);
}

static void it_answers_before_the_server_is_asked(void **state)
{
        (void)state;
        filtered(true, false);
        w.filter[WEIR_REQUEST].how = CHAIN_RESPOND;
        post();
        assert_int_equal(w.starts, 0);
        client_got(403, "no");
        over(403, REASON_FUNCTION);
}

static void it_fails_before_the_head_of_a_response(void **state)
{
        (void)state;
        filtered(false, true);
        w.filter[WEIR_RESPONSE].how = CHAIN_CUT;
        get("/");
        server_head(200, NULL);
        assert_int_equal(w.heads, 1);
        assert_int_equal(w.aborts, 1);
        assert_null(w.r);
}

/* reply_fill has been done by then. */
static void it_answers_while_the_server_works(void **state)
{
        (void)state;
        filtered(true, false);
        post();
        client_body("one", false);
        filters_end(w.t);
        w.t->reason = REASON_FUNCTION;
        reply_fill(w.r, 418, REASON_FUNCTION, STR("tea"), STR_NONE);
        w.chain_user->decided(w.t, CHAIN_RESPOND);
        assert_int_equal(w.aborts, 1);
        assert_int_equal(w.cancels, 1);
        client_got(418, "tea");
        over(418, REASON_FUNCTION);
}

static void it_fails_while_the_server_works(void **state)
{
        (void)state;
        filtered(true, false);
        post();
        client_body("one", false);
        w.t->reason = REASON_FUNCTION_ERROR;
        w.chain_user->decided(w.t, CHAIN_CUT);
        assert_int_equal(w.aborts, 1);
        client_got(503, NULL);
        over(503, REASON_FUNCTION_ERROR);
}

static void it_fails_when_the_head_has_gone(void **state)
{
        (void)state;
        filtered(false, true);
        get("/");
        server_head(200, NULL);
        w.t->reason = REASON_FUNCTION_TIMEOUT;
        w.chain_user->decided(w.t, CHAIN_CUT);
        assert_int_equal(w.cuts, 1);
        assert_int_equal(w.cut_why, REASON_FUNCTION_TIMEOUT);
        over(200, REASON_FUNCTION_TIMEOUT);
}

/* The body is asked for, within the route's limit. */
static void a_whole_body_is_wanted(void **state)
{
        (void)state;
        with_function(CHAIN_WAIT, CHAIN_CONTINUE);
        post();
        w.limits = 0;
        assert_int_equal(w.chain_user->wanted(w.chain_txn), REASON_NONE);
        assert_int_equal(w.rooms, 1);
        assert_int_equal(w.limits, 1);
        w.limits_why = REASON_BODY_MAX;
        assert_int_equal(w.chain_user->wanted(w.chain_txn), REASON_BODY_MAX);
        assert_int_equal(w.rooms, 1);
        w.chain.waiting = false;
        w.chain_txn->reason = REASON_BODY_MAX;
        w.chain_user->resumed(w.chain_txn, CHAIN_CUT);
        client_got(413, NULL);
        over(413, REASON_BODY_MAX);
}

/* What comes while a function waits for it is its, and nobody is asked yet. */
static void nothing_is_sent_before_that(void **state)
{
        (void)state;
        with_function(CHAIN_WAIT, CHAIN_CONTINUE);
        w.filters[WEIR_REQUEST] = true;
        post();
        client_body("one", true);
        assert_int_equal(w.filter[WEIR_REQUEST].came, 1);
        assert_int_equal(w.filter[WEIR_REQUEST].opened, 0);
        assert_int_equal(w.starts, 0);
        w.chain.waiting = false;
        w.chain_user->resumed(w.chain_txn, CHAIN_CONTINUE);
        assert_int_equal(w.starts, 1);
        server_head(200, "");
        over(200, REASON_NONE);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(a_request_goes_through),
                TEST(a_response_goes_through),
                TEST(a_finished_exchange_ends_the_requests),
                TEST(it_answers_before_the_server_is_asked),
                TEST(it_fails_before_the_head_of_a_response),
                TEST(it_answers_while_the_server_works),
                TEST(it_fails_while_the_server_works),
                TEST(it_fails_when_the_head_has_gone),
                TEST(a_whole_body_is_wanted),
                TEST(nothing_is_sent_before_that),
        };

        return cmocka_run_group_tests(tests, program_begin, program_end);
}
