/* The way of a request: the ordinary one, answers of weir's own, servers and clients that fail. */
#include "flow_world.h"

/* ------------------------------------------------------------------ the ordinary way */

static void passes_through(void **state)
{
        (void)state;
        get("/a?b");
        still_open();
        assert_int_equal(w.starts, 1);
        ASSERT_STR(w.sent->target, "/a?b");
        ASSERT_STR(fields_get(&w.sent->fields, FIELD_X_FORWARDED_FOR)->value, "192.0.2.1");
        ASSERT_STR(w.routed_path, "/a");
        assert_int_equal(w.body_max, 1000);
        server_head(200, NULL);
        still_open();
        client_got(200, "");
        ASSERT_STR(w.connection, "-");
        assert_null(fields_find(&w.r->res.fields, STR("X-Hop")));
        server_body("hello", false);
        server_body(" world", true);
        client_got(200, "hello world");
        over(200, REASON_NONE);
        assert_int_equal(metric(METRIC_BYTES_OUT) - w.bytes_out, 11);
        assert_int_equal(w.aborts, 0);
        assert_int_equal(w.cuts, 0);
}

/* The whole answer comes at once, and is sent inside client->head. */
static void all_at_once(void **state)
{
        (void)state;
        get("/");
        server_head(200, "hello");
        client_got(200, "hello");
        over(200, REASON_NONE);
        assert_int_equal(w.aborts, 0);
}

static void sent_later(void **state)
{
        (void)state;
        w.keeps = true;
        get("/");
        server_head(200, "hello");
        still_open();
        client_sent();
        over(200, REASON_NONE);
}

static void body_goes_up(void **state)
{
        (void)state;
        post();
        assert_int_equal(w.req_readies, 0); /* origin begins with what is there */
        client_body("one", false);
        assert_int_equal(w.req_readies, 1);
        w.user->req_room(w.t);
        assert_int_equal(w.rooms, 1);
        client_body("two", true);
        assert_int_equal(w.req_readies, 2);
        buf_clear(&w.r->req_body.data);
        server_head(200, NULL);
        w.r->flow->res_room(w.r);
        assert_int_equal(w.res_rooms, 1);
        server_body("", true);
        over(200, REASON_NONE);
        assert_int_equal(metric(METRIC_BYTES_IN) - w.bytes_in, 6);
}

/* The server's final answer while the body is still coming (traps 15). */
static void early_answer(void **state)
{
        (void)state;
        post();
        client_body("one", false);
        server_head(401, NULL);
        client_got(401, "");
        client_body("two", false);
        server_body("no", true);
        client_got(401, "no");
        over(401, REASON_NONE);
}

/* It has come whole, but the upload is still under way when the client has taken it. */
static void early_answer_ends_the_upload(void **state)
{
        (void)state;
        w.keeps = true;
        post();
        server_head(413, NULL);
        client_sent(); /* a codec that has enough */
        over(413, REASON_NONE);
        assert_int_equal(w.aborts, 1);
}

static void interim_answers(void **state)
{
        struct msg hints = {.status = 103};

        (void)state;
        get("/");
        w.user->interim(w.t, &hints);
        assert_int_equal(w.interims, 1);
        assert_int_equal(w.interim_status, 103);
        server_head(200, NULL);
        w.user->interim(w.t, &hints); /* too late to be passed on */
        assert_int_equal(w.interims, 1);
        server_body("", true);
        over(200, REASON_NONE);
}

static void options_of_all(void **state)
{
        (void)state;
        begin_it(request("OPTIONS", "*"));
        ASSERT_STR(w.routed_path, "/");
        ASSERT_STR(w.sent->target, "*");
        server_head(204, "");
        over(204, REASON_NONE);
}

static void two_at_once(void **state)
{
        struct request *first;

        (void)state;
        w.route.action = ACTION_RESPOND;
        w.route.status = 204;
        w.keeps = true;
        get("/1");
        first = w.r;
        w.heads = 0;
        get("/2");
        assert_int_equal(flow_requests(loop), 2);
        assert_int_equal(w.gl.live, 2);
        client_sent();
        w.r = first;
        client_sent();
        assert_int_equal(w.ended, 2);
        assert_int_equal(flow_requests(loop), 0);
        assert_int_equal(w.gl.live, 0);
}

static void accepts(void **state)
{
        (void)state;
        flow_accept(loop, 7, &w.facts.peer, &w.listener);
        assert_ptr_equal(accepted.loop, loop);
        assert_int_equal(accepted.fd, 7);
        assert_ptr_equal(accepted.conf, &listener_conf);
        assert_ptr_equal(accepted.listener, &w.listener);
}

/* ------------------------------------------------------------------ answers of weir's own */

static void refused_by_the_codec(void **state)
{
        static const enum reason whys[] = {REASON_BAD_REQUEST_LINE, REASON_HEADER_LINE,
                                           REASON_HEADER_MAX,       REASON_HEADER_FIELDS,
                                           REASON_VERSION,          REASON_CLIENT_HEAD};

        (void)state;
        for (size_t i = 0; i < COUNT(whys); i++) {
                enum reason why = whys[i];
                again();
                uint64_t replies = local_replies(why), hits = limit_hits(why);
                struct request *r = request("", "");
                r->req = (struct msg){0};
                r->refused = why;
                r->limit = 10;
                r->measured = 11;
                begin_it(r);
                client_got(reason_rows[why].status, NULL);
                assert_true(w.close_after);
                over(reason_rows[why].status, why);
                assert_int_equal(w.starts + w.limits, 0);
                assert_int_equal(local_replies(why) - replies, 1);
                assert_int_equal(limit_hits(why) - hits, refusal_is_limit(why));
        }
        assert_true(refusal_is_limit(REASON_HEADER_LINE) && refusal_is_limit(REASON_HEADER_MAX) &&
                    refusal_is_limit(REASON_HEADER_FIELDS) && refusal_is_limit(REASON_CLIENT_HEAD));
        assert_false(refusal_is_limit(REASON_BAD_REQUEST_LINE));
}

static void refused_by_routing(void **state)
{
        static const struct {
                enum reason why;
                int status;
        } rows[] = {{REASON_NO_HOST, 404}, {REASON_NO_ROUTE, 404}, {REASON_REGEX_LIMIT, 400}};

        (void)state;
        for (size_t i = 0; i < COUNT(rows); i++) {
                again();
                uint64_t replies = local_replies(rows[i].why);
                w.route_why = rows[i].why;
                w.listen.eff = w.eff;
                get("/");
                client_got(rows[i].status, NULL);
                assert_false(w.close_after);
                over(rows[i].status, rows[i].why);
                assert_int_equal(local_replies(rows[i].why) - replies, 1);
        }
}

static void ambiguous_path(void **state)
{
        (void)state;
        get("/a/..%2fb");
        client_got(400, NULL);
        over(400, REASON_AMBIGUOUS_PATH);
        assert_null(w.routed_path.p);
}

static void misdirected(void **state)
{
        (void)state;
        w.over_tls = true;
        w.policy_fit = GEN_OUTDATED;
        get("/");
        client_got(421, NULL);
        assert_true(w.outdated); /* the next request needs another handshake */
        over(421, REASON_MISDIRECTED);
}

static void misdirected_by_its_host(void **state)
{
        (void)state;
        w.over_tls = true;
        w.policy_fit = GEN_OTHER_NAME;
        get("/");
        client_got(421, NULL);
        assert_false(w.outdated); /* requests for the name of the handshake may follow */
        over(421, REASON_MISDIRECTED);
}

static void the_last_of_its_connection(void **state)
{
        (void)state;
        w.over_tls = true;
        w.policy_fit = GEN_LAST;
        w.route.action = ACTION_RESPOND;
        w.route.status = 204;
        get("/");
        client_got(204, NULL);
        assert_true(w.outdated);
}

static void responds(void **state)
{
        const char *error;
        size_t at;
        struct template_scope scope = {0};

        (void)state;
        w.route.action = ACTION_RESPOND;
        w.route.status = 200;
        w.route.body = template_compile(notes, STR("hello $client_ip\n"), &scope, &error, &at);
        get("/");
        client_got(200, "hello 192.0.2.1\n");
        assert_int_equal(w.framing, FRAMING_LENGTH);
        over(200, REASON_RESPOND);
        assert_int_equal(w.limits, 1);
        assert_int_equal(w.starts, 0);
}

static void responds_without_a_body(void **state)
{
        (void)state;
        w.route.action = ACTION_RESPOND;
        w.route.status = 404;
        get("/");
        client_got(404, "");
        over(404, REASON_RESPOND);
}

static void redirects(void **state)
{
        const char *error;
        size_t at;
        struct template_scope scope = {0};

        (void)state;
        w.route.action = ACTION_REDIRECT;
        w.route.status = 308;
        w.route.body =
                template_compile(notes, STR("https://$host/$arg_to#top"), &scope, &error, &at);
        get("/x?to=a%0d%0aSet-Cookie:b+c");
        client_got(308, NULL);
        ASSERT_STR(w.location, "https://example.com/a%0d%0aSet-Cookie:b%20c#top");
        over(308, REASON_REDIRECT);
}

static void nobody_answered(void **state)
{
        (void)state;
        w.route.action = ACTION_FUNCTION;
        with_function(CHAIN_CONTINUE, CHAIN_CONTINUE);
        get("/");
        client_got(500, NULL);
        over(500, REASON_INTERNAL);
}

static void error_pages(void **state)
{
        const char *error;
        size_t at;
        struct template_scope scope = {0};
        static const struct error_page pages[] = {{.status = 503,
                                                   .body = STR_INIT("<h1>Back soon</h1>"),
                                                   .content_type = STR_INIT("text/html")},
                                                  {.status = 404,
                                                   .body = STR_INIT("{}"),
                                                   .content_type = STR_INIT("application/json")}};

        (void)state;
        w.target.eff.error_pages = pages;
        w.target.eff.n_error_pages = 2;
        get("/");
        server_failed(REASON_NO_SERVER);
        client_got(503, "<h1>Back soon</h1>");
        ASSERT_STR(w.content_type, "text/html");
        ASSERT_STR(w.retry_after, "17");
        over(503, REASON_NO_SERVER);

        again();
        w.listen.eff.error_pages = pages;
        w.listen.eff.n_error_pages = 2;
        w.route_why = REASON_NO_HOST;
        get("/");
        client_got(404, "{}");
        over(404, REASON_NO_HOST);

        again();
        w.target.eff.error_pages = pages;
        w.target.eff.n_error_pages = 2;
        get("/"); /* what a server says itself is its own */
        server_head(404, "mine");
        client_got(404, "mine");
        over(404, REASON_NONE);

        again(); /* and so is what the route says */
        w.route.eff.error_pages = pages;
        w.route.eff.n_error_pages = 2;
        w.route.action = ACTION_RESPOND;
        w.route.status = 404;
        w.route.body = template_compile(notes, STR("ours"), &scope, &error, &at);
        get("/");
        client_got(404, "ours");
        over(404, REASON_RESPOND);

        again(); /* without a body of its own it says nothing */
        w.route.eff.error_pages = pages;
        w.route.eff.n_error_pages = 2;
        w.route.action = ACTION_RESPOND;
        w.route.status = 404;
        get("/");
        client_got(404, "{}");
        over(404, REASON_RESPOND);

        again();
        w.route.action = ACTION_RESPOND;
        w.route.status = 404;
        get("/");
        client_got(404, "");
        over(404, REASON_RESPOND);
}

/* A limit's line names the setting, the limit and what was measured. */
static str said;

static void listen_in(enum log_level level, str line)
{
        assert_int_equal(level, LOG_INFO);
        said = arena_dup(notes, line);
}

static void refusals_are_said(void **state)
{
        struct request *r = request("GET", "/");

        (void)state;
        log_tap = listen_in;
        r->refused = REASON_HEADER_LINE;
        r->limit = 100;
        r->measured = 101;
        begin_it(r);
        assert_true(str_ends(said, STR("info  [client 192.0.2.1:4711] 414 header_line: header "
                                       "line: the request line is too long (limit 100, "
                                       "measured 101)")));
        over(414, REASON_HEADER_LINE);

        again();
        w.route_why = REASON_NO_ROUTE;
        get("/a\xff?b");
        log_tap = NULL;
        assert_true(str_ends(said, STR("info  [client 192.0.2.1:4711] 404 no_route: no route "
                                       "matches: GET /a\xff?b")));
        over(404, REASON_NO_ROUTE);
}

static void body_too_large(void **state)
{
        uint64_t hits = limit_hits(REASON_BODY_MAX);

        (void)state;
        w.limits_why = REASON_BODY_MAX;
        post();
        client_got(413, NULL);
        over(413, REASON_BODY_MAX);
        assert_int_equal(w.starts, 0);
        assert_int_equal(limit_hits(REASON_BODY_MAX) - hits, 1);

        again();
        w.limits_why = REASON_BODY_MAX;
        w.route.action = ACTION_RESPOND;
        w.route.status = 200;
        post();
        client_got(413, NULL);
        over(413, REASON_BODY_MAX);
}

static void settings_of_the_target(void **state)
{
        (void)state;
        w.target.eff.body_max = 77;
        get("/");
        assert_int_equal(w.body_max, 77);
        assert_ptr_equal(w.t->eff, &w.target.eff);
        server_head(200, "");
        over(200, REASON_NONE);
}

/* ------------------------------------------------------------------ the server fails */

static void fails_before_the_head(void **state)
{
        static const struct {
                enum reason why;
                int status;
                const char *retry_after;
        } rows[] = {{REASON_NO_SERVER, 503, "17"},       {REASON_QUEUE_TIMEOUT, 503, "17"},
                    {REASON_CONNECT_FAILED, 502, "-"},   {REASON_CONNECT_TIMEOUT, 504, "-"},
                    {REASON_RESPONSE_TIMEOUT, 504, "-"}, {REASON_UPSTREAM_HEAD, 502, "-"}};

        (void)state;
        for (size_t i = 0; i < COUNT(rows); i++) {
                again();
                uint64_t hits = limit_hits(rows[i].why);
                get("/");
                server_failed(rows[i].why);
                client_got(rows[i].status, NULL);
                assert_true(str_eq(w.retry_after, str_z(rows[i].retry_after)));
                over(rows[i].status, rows[i].why);
                assert_int_equal(w.aborts, 0);
                assert_int_equal(limit_hits(rows[i].why) - hits, refusal_is_limit(rows[i].why));
        }
}

/* A response that has begun must look cut (traps 5). */
static void fails_after_the_head(void **state)
{
        (void)state;
        get("/");
        server_head(200, NULL);
        server_body("half", false);
        server_failed(REASON_UPSTREAM_RESET);
        assert_int_equal(w.cuts, 1);
        assert_int_equal(w.cut_why, REASON_UPSTREAM_RESET);
        client_got(200, "half");
        over(200, REASON_UPSTREAM_RESET);
}

/* ------------------------------------------------------------------ the client fails */

static void gone_while_routing_is_done(void **state)
{
        (void)state;
        get("/");
        client_gone(REASON_CLIENT_GONE);
        over(499, REASON_CLIENT_GONE);
        assert_int_equal(w.heads, 0);
        assert_int_equal(w.aborts, 1);
        assert_int_equal(w.abort_why, REASON_CLIENT_GONE);
}

static void gone_during_the_body(void **state)
{
        (void)state;
        get("/");
        server_head(200, NULL);
        server_body("half", false);
        client_gone(REASON_CLIENT_SEND);
        over(200, REASON_CLIENT_SEND);
        assert_int_equal(w.aborts, 1);
        assert_int_equal(w.abort_why, REASON_CLIENT_SEND);
}

static void gone_after_the_server_was_done(void **state)
{
        (void)state;
        w.slow = true;
        get("/");
        server_head(200, NULL);
        server_body("all", true);
        still_open();
        client_gone(REASON_CLIENT_GONE);
        over(200, REASON_CLIENT_GONE);
        assert_int_equal(w.aborts, 0);
}

static void gone_inside_head(void **state)
{
        (void)state;
        w.gone_in_head = true;
        get("/");
        server_head(200, NULL);
        over(200, REASON_CLIENT_GONE);
        assert_int_equal(w.aborts, 1);

        again();
        w.gone_in_head = true;
        w.route_why = REASON_NO_ROUTE;
        get("/");
        over(404, REASON_CLIENT_GONE);
}

/* The request's body breaks: before the head of the response an answer makes sense. */
static void bad_body(void **state)
{
        (void)state;
        post();
        client_body("some", false);
        client_failed(REASON_BAD_CHUNK);
        client_got(400, NULL);
        assert_true(w.close_after);
        over(400, REASON_BAD_CHUNK);
        assert_int_equal(w.aborts, 1);
        assert_int_equal(w.abort_why, REASON_BAD_CHUNK);

        again();
        post();
        server_head(200, NULL);
        client_failed(REASON_CLIENT_BODY);
        assert_int_equal(w.cuts, 1);
        over(200, REASON_CLIENT_BODY);
        assert_int_equal(w.aborts, 1);
}

static void body_grows_too_large(void **state)
{
        uint64_t hits = limit_hits(REASON_BODY_MAX);

        (void)state;
        post();
        w.r->limit = 1000;
        w.r->measured = 1001;
        client_failed(REASON_BODY_MAX);
        client_got(413, NULL);
        over(413, REASON_BODY_MAX);
        assert_int_equal(limit_hits(REASON_BODY_MAX) - hits, 1);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(passes_through),
                TEST(all_at_once),
                TEST(sent_later),
                TEST(body_goes_up),
                TEST(early_answer),
                TEST(early_answer_ends_the_upload),
                TEST(interim_answers),
                TEST(options_of_all),
                TEST(two_at_once),
                TEST(accepts),
                TEST(refused_by_the_codec),
                TEST(refused_by_routing),
                TEST(ambiguous_path),
                TEST(misdirected),
                TEST(misdirected_by_its_host),
                TEST(the_last_of_its_connection),
                TEST(responds),
                TEST(responds_without_a_body),
                TEST(redirects),
                TEST(nobody_answered),
                TEST(error_pages),
                TEST(refusals_are_said),
                TEST(body_too_large),
                TEST(settings_of_the_target),
                TEST(fails_before_the_head),
                TEST(fails_after_the_head),
                TEST(gone_while_routing_is_done),
                TEST(gone_during_the_body),
                TEST(gone_after_the_server_was_done),
                TEST(gone_inside_head),
                TEST(bad_body),
                TEST(body_grows_too_large),
        };

        return cmocka_run_group_tests(tests, program_begin, program_end);
}
