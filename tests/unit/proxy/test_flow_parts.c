/* The way of a request through buffers, functions, its timeout and an upgrade. */
#include "flow_world.h"

static void function_goes_on(enum chain_result how)
{
        assert_true(w.chain.waiting);
        w.chain.waiting = false;
        w.chain_user->resumed(w.chain_txn, played(&w.chain, how));
}

static void settings(void (*change)(struct settings *s))
{
        change(&w.route.eff);
        change(&w.target.eff);
}

/* ------------------------------------------------------------------ buffers */

static void buffers_10(struct settings *s)
{
        s->buffer_request = 10;
}

static void buffers_the_request(void **state)
{
        (void)state;
        settings(buffers_10);
        post();
        assert_int_equal(w.starts, 0);
        assert_int_equal(w.rooms, 1); /* the body is asked for: a client may wait for 100 */
        assert_int_equal(w.r->req_body.high, 10);
        client_body("12345", false);
        assert_int_equal(w.starts, 0);
        client_body("678", true);
        assert_int_equal(w.starts, 1);
        assert_int_equal(w.r->req_body.data.n, 8);
        server_head(200, "");
        over(200, REASON_NONE);
}

static void larger_than_the_buffer(void **state)
{
        (void)state;
        settings(buffers_10);
        post();
        client_body("1234567890", false);
        assert_int_equal(w.starts, 1); /* it streams from here on */
        assert_int_equal(w.r->req_body.high, PIPE_HIGH);
        client_body("more", true);
        assert_int_equal(w.req_readies, 1);
        server_head(200, "");
        over(200, REASON_NONE);
}

static void body_comes_inside_room(void **state)
{
        (void)state;
        settings(buffers_10);
        w.body_in_room = "all";
        post();
        assert_int_equal(w.starts, 1);
        server_head(200, "");
        over(200, REASON_NONE);
}

static void nothing_to_buffer(void **state)
{
        (void)state;
        settings(buffers_10);
        get("/");
        assert_int_equal(w.starts, 1);
        assert_int_equal(w.rooms, 0);
        server_head(200, "");
        over(200, REASON_NONE);

        again();
        settings(buffers_10);
        struct request *r = request("POST", "/x"); /* all of it came with the head */
        r->req.framing = FRAMING_LENGTH;
        buf_puts(&r->req_body.data, STR("body"));
        begin_it(r);
        assert_int_equal(w.starts, 1);
        server_head(200, "");
        over(200, REASON_NONE);
}

/* What follows the head of an upgrade may be the other protocol's. */
static void upgrades_do_not_wait(void **state)
{
        struct request *r = request("POST", "/x");

        (void)state;
        settings(buffers_10);
        r->req.framing = FRAMING_CHUNKED;
        r->req.upgrade = STR("websocket");
        r->req_body.end = false;
        begin_it(r);
        assert_int_equal(w.starts, 1);
        client_gone(REASON_CLIENT_GONE);
        over(499, REASON_CLIENT_GONE);
}

static void fails_while_buffering(void **state)
{
        (void)state;
        settings(buffers_10);
        post();
        client_body("123", false);
        client_failed(REASON_CLIENT_BODY);
        client_got(408, NULL);
        over(408, REASON_CLIENT_BODY);
        assert_int_equal(w.starts, 0);

        again();
        settings(buffers_10);
        post();
        client_gone(REASON_CLIENT_GONE);
        over(499, REASON_CLIENT_GONE);
        assert_int_equal(w.starts, 0);

        again();
        settings(buffers_10);
        w.gone_in_room = true;
        post();
        over(499, REASON_CLIENT_GONE);
        assert_int_equal(w.starts, 0);
}

static void holds_10(struct settings *s)
{
        s->buffer_response = 10;
}

static void buffers_the_response(void **state)
{
        (void)state;
        settings(holds_10);
        get("/");
        server_head(200, NULL);
        assert_int_equal(w.heads, 0);
        server_body("12345", false);
        assert_int_equal(w.heads, 0);
        server_body("678", true);
        client_got(200, "12345678");
        over(200, REASON_NONE);

        again();
        settings(holds_10);
        get("/");
        server_head(200, NULL);
        server_body("1234567890", false);
        client_got(200, "1234567890"); /* it streams from here on */
        server_body("more", true);
        client_got(200, "1234567890more");
        over(200, REASON_NONE);

        again();
        settings(holds_10);
        get("/");
        server_head(200, "at once");
        client_got(200, "at once");
        over(200, REASON_NONE);
}

static void holds_much(struct settings *s)
{
        s->buffer_response = 10 * PIPE_HIGH;
}

/* A producer that had stopped at its credit is told that there is more now. */
static void stalled_while_held(void **state)
{
        char *text = malloc(PIPE_HIGH + 1);

        (void)state;
        memset(text, 'x', PIPE_HIGH);
        text[PIPE_HIGH] = '\0';
        settings(holds_much);
        get("/");
        server_put(text, false);
        w.r->res_body.stalled = true;
        w.body_in_res_room = "end"; /* comes inside that call */
        server_head(200, NULL);
        assert_int_equal(w.res_rooms, 1);
        client_got(200, NULL);
        assert_int_equal(w.got.n, PIPE_HIGH + 3);
        over(200, REASON_NONE);
        free(text);
}

static void fails_while_held(void **state)
{
        (void)state;
        settings(holds_10);
        get("/");
        server_head(200, NULL);
        server_body("123", false);
        server_failed(REASON_RESPONSE_IDLE);
        assert_int_equal(w.cuts, 0);
        client_got(504, NULL); /* nothing had gone out: it can still be said */
        assert_null(strstr(arena_dupz(notes, buf_pullup(&w.got, w.got.n)), "123"));
        over(504, REASON_RESPONSE_IDLE);

        again();
        settings(holds_10);
        get("/");
        server_head(200, NULL);
        client_gone(REASON_CLIENT_GONE);
        over(499, REASON_CLIENT_GONE);
        assert_int_equal(w.aborts, 1);
}

/* ------------------------------------------------------------------ functions */

static void functions_go_on(void **state)
{
        (void)state;
        with_function(CHAIN_CONTINUE, CHAIN_CONTINUE);
        get("/");
        assert_int_equal(w.requests, 1);
        assert_int_equal(w.starts, 1);
        server_head(200, "x");
        assert_int_equal(w.responses, 1);
        client_got(200, "x");
        over(200, REASON_NONE);
        assert_int_equal(w.cancels, 0);
}

static void a_function_answers(void **state)
{
        (void)state;
        with_function(CHAIN_RESPOND, CHAIN_CONTINUE);
        get("/");
        assert_int_equal(w.starts, 0);
        assert_int_equal(w.responses, 1); /* for those that had been entered */
        client_got(403, "no");
        over(403, REASON_FUNCTION);
}

static void a_function_waits(void **state)
{
        (void)state;
        with_function(CHAIN_WAIT, CHAIN_WAIT);
        post();
        assert_int_equal(w.starts, 0);
        client_body("early", false); /* nobody takes it yet */
        still_open();
        function_goes_on(CHAIN_CONTINUE);
        assert_int_equal(w.starts, 1);
        server_head(200, NULL);
        server_body("all", true);
        assert_int_equal(w.heads, 0);
        still_open();
        function_goes_on(CHAIN_CONTINUE);
        client_got(200, "all");
        over(200, REASON_NONE);
}

static void a_function_answers_late(void **state)
{
        (void)state;
        with_function(CHAIN_WAIT, CHAIN_CONTINUE);
        get("/");
        function_goes_on(CHAIN_RESPOND);
        client_got(403, "no");
        over(403, REASON_FUNCTION);
        assert_int_equal(w.starts, 0);
}

/* In the response phase an answer takes the place of the server's, and the functions that are left
 * see it. */
static void a_response_function_answers(void **state)
{
        (void)state;
        with_function(CHAIN_CONTINUE, CHAIN_RESPOND);
        w.response_script[1] = CHAIN_CONTINUE;
        get("/");
        server_head(200, NULL);
        assert_int_equal(w.aborts, 1); /* what else it would send is not wanted */
        assert_int_equal(w.abort_why, REASON_FUNCTION);
        assert_int_equal(w.responses, 2);
        client_got(403, "no");
        over(403, REASON_FUNCTION);
}

static void a_response_function_fails(void **state)
{
        (void)state;
        with_function(CHAIN_CONTINUE, CHAIN_CUT);
        w.response_script[1] = CHAIN_WAIT;
        uint64_t replies = local_replies(REASON_FUNCTION_ERROR);
        get("/");
        server_head(200, NULL);
        assert_int_equal(w.aborts, 1);
        assert_int_equal(w.heads, 0);
        function_goes_on(CHAIN_CONTINUE);
        client_got(503, NULL);
        assert_int_equal(w.responses, 2);
        over(503, REASON_FUNCTION_ERROR);
        assert_int_equal(local_replies(REASON_FUNCTION_ERROR) - replies, 1);
}

static void fails_late_after_the_server_was_done(void **state)
{
        (void)state;
        with_function(CHAIN_CONTINUE, CHAIN_WAIT);
        w.response_script[1] = CHAIN_CONTINUE;
        get("/");
        server_head(200, "secret");
        function_goes_on(CHAIN_CUT);
        client_got(503, NULL);
        assert_null(strstr(arena_dupz(notes, buf_pullup(&w.got, w.got.n)), "secret"));
        over(503, REASON_FUNCTION_ERROR);
        assert_int_equal(w.aborts, 0);
}

static void local_answers_meet_functions(void **state)
{
        (void)state;
        with_function(CHAIN_CONTINUE, CHAIN_CONTINUE);
        get("/");
        server_failed(REASON_CONNECT_FAILED);
        assert_int_equal(w.responses, 1);
        client_got(502, NULL);
        over(502, REASON_CONNECT_FAILED);
}

static void gone_while_a_function_waits(void **state)
{
        (void)state;
        with_function(CHAIN_WAIT, CHAIN_CONTINUE);
        get("/");
        client_gone(REASON_CLIENT_GONE);
        over(499, REASON_CLIENT_GONE);
        assert_true(w.cancels >= 1);

        again();
        with_function(CHAIN_CONTINUE, CHAIN_WAIT);
        get("/");
        server_head(200, NULL);
        client_gone(REASON_CLIENT_GONE);
        over(499, REASON_CLIENT_GONE);
        assert_int_equal(w.aborts, 1);
        assert_true(w.cancels >= 1);
}

/* The server dies while a function thinks about its response. */
static void server_fails_while_a_function_waits(void **state)
{
        (void)state;
        with_function(CHAIN_CONTINUE, CHAIN_WAIT);
        w.response_script[1] = CHAIN_CONTINUE;
        get("/");
        server_head(200, NULL);
        server_body("half", false);
        server_failed(REASON_UPSTREAM_RESET);
        client_got(502, NULL);
        over(502, REASON_UPSTREAM_RESET);
}

static void bad_body_while_a_function_waits(void **state)
{
        (void)state;
        with_function(CHAIN_WAIT, CHAIN_CONTINUE);
        post();
        client_failed(REASON_BAD_CHUNK);
        assert_true(w.cancels >= 1);
        client_got(400, NULL);
        over(400, REASON_BAD_CHUNK);
}

/* ------------------------------------------------------------------ timeout request */

static void soon(struct settings *s)
{
        s->request = 10 * MSEC;
}

static void too_slow_a_server(void **state)
{
        uint64_t hits = limit_hits(REASON_REQUEST_TIMEOUT);

        (void)state;
        settings(soon);
        get("/");
        PUMP_UNTIL(loop, w.r == NULL);
        client_got(504, NULL);
        over(504, REASON_REQUEST_TIMEOUT);
        assert_int_equal(w.aborts, 1);
        assert_int_equal(w.abort_why, REASON_REQUEST_TIMEOUT);
        assert_int_equal(limit_hits(REASON_REQUEST_TIMEOUT) - hits, 1);
}

static void too_slow_a_function(void **state)
{
        (void)state;
        settings(soon);
        with_function(CHAIN_WAIT, CHAIN_CONTINUE);
        get("/");
        PUMP_UNTIL(loop, w.r == NULL);
        client_got(504, NULL);
        over(504, REASON_REQUEST_TIMEOUT);
        assert_true(w.cancels >= 1);
}

static void too_slow_a_body(void **state)
{
        (void)state;
        settings(soon);
        get("/");
        server_head(200, NULL);
        PUMP_UNTIL(loop, w.r == NULL);
        assert_int_equal(w.cuts, 1);
        assert_int_equal(w.cut_why, REASON_REQUEST_TIMEOUT);
        over(200, REASON_REQUEST_TIMEOUT);
        assert_int_equal(w.aborts, 1);
}

static void the_upstream_has_its_own(void **state)
{
        (void)state;
        w.route.eff.request = 60 * SEC;
        w.target.eff.request = 10 * MSEC;
        get("/");
        PUMP_UNTIL(loop, w.r == NULL);
        over(504, REASON_REQUEST_TIMEOUT);

        again();
        w.route.eff.request = 10 * MSEC;
        w.target.eff.request = 0;
        get("/");
        assert_false(deadline_armed(&flow_of_request(w.r)->deadline));
        server_head(200, "");
        over(200, REASON_NONE);
}

static void in_time(void **state)
{
        (void)state;
        settings(soon);
        get("/");
        assert_true(deadline_armed(&flow_of_request(w.r)->deadline));
        server_head(200, "");
        over(200, REASON_NONE);
        int64_t then = loop->now + 30 * MSEC;
        PUMP_UNTIL(loop, loop->now > then); /* nothing fires into freed memory */
        assert_int_equal(w.counted, 1);
}

/* ------------------------------------------------------------------ upgrades */

static void upgrade(void)
{
        struct request *r = request("GET", "/ws");

        r->req.upgrade = STR("websocket");
        begin_it(r);
}

static void tunnel(void **state)
{
        (void)state;
        settings(soon);
        settings(holds_10);
        settings(buffers_10);
        w.keeps = true;
        upgrade();
        assert_int_equal(w.starts, 1);
        assert_int_equal(w.body_max, 0);
        server_head(101, NULL);
        assert_int_equal(w.heads, 1);
        assert_true(w.tunnel);
        assert_false(deadline_armed(&flow_of_request(w.r)->deadline)); /* it may last */
        w.r->req_body.end = false;
        client_body("ping", false);
        assert_int_equal(w.req_readies, 1);
        server_body("pong", false);
        client_got(101, "pong");
        server_put("", true); /* the server has finished, the client has not */
        w.user->res_ready(w.t);
        client_body("late", false);
        assert_int_equal(w.req_readies, 2);
        still_open();
        client_sent();
        over(101, REASON_NONE);
        assert_int_equal(w.aborts, 1);
}

static void tunnel_breaks(void **state)
{
        (void)state;
        upgrade();
        server_head(101, NULL);
        server_failed(REASON_TUNNEL_IDLE);
        assert_int_equal(w.cuts, 1);
        over(101, REASON_TUNNEL_IDLE);

        again();
        upgrade();
        server_head(101, NULL);
        client_gone(REASON_CLIENT_GONE);
        over(101, REASON_CLIENT_GONE);
        assert_int_equal(w.aborts, 1);
}

static void upgrade_refused_by_the_server(void **state)
{
        (void)state;
        upgrade();
        server_head(200, "plain");
        assert_false(w.tunnel);
        client_got(200, "plain");
        over(200, REASON_NONE);
}

static void upgrade_off(void **state)
{
        (void)state;
        w.target.eff.upgrade = false;
        upgrade();
        client_got(403, NULL);
        over(403, REASON_UPGRADE_OFF);
        assert_int_equal(w.starts, 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(buffers_the_request),
                TEST(larger_than_the_buffer),
                TEST(body_comes_inside_room),
                TEST(nothing_to_buffer),
                TEST(upgrades_do_not_wait),
                TEST(fails_while_buffering),
                TEST(buffers_the_response),
                TEST(stalled_while_held),
                TEST(fails_while_held),
                TEST(functions_go_on),
                TEST(a_function_answers),
                TEST(a_function_waits),
                TEST(a_function_answers_late),
                TEST(a_response_function_answers),
                TEST(a_response_function_fails),
                TEST(fails_late_after_the_server_was_done),
                TEST(local_answers_meet_functions),
                TEST(gone_while_a_function_waits),
                TEST(server_fails_while_a_function_waits),
                TEST(bad_body_while_a_function_waits),
                TEST(too_slow_a_server),
                TEST(too_slow_a_function),
                TEST(too_slow_a_body),
                TEST(the_upstream_has_its_own),
                TEST(in_time),
                TEST(tunnel),
                TEST(tunnel_breaks),
                TEST(upgrade_refused_by_the_server),
                TEST(upgrade_off),
        };

        return cmocka_run_group_tests(tests, program_begin, program_end);
}
