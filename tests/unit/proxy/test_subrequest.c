/* Requests of functions: their heads, answers and bounds, and that each ends once and leaves
 * nothing behind. */
#include "proxy/subrequest.c"

#include "upstream_fixture.h"

static struct upstream *u;
static struct upstream_conf conf;
static struct server_conf lines[1];

/* One that was asked for, and what was told. */
static struct call {
        struct subrequest *s;
        bool inside;
        unsigned told;
        int status;
        weir_err error;
        char body[256], field[64];
        size_t n, held, most;
        size_t room; /* 0: any */
} call;

static bool room_of(void *arg, size_t held)
{
        assert_ptr_equal(arg, &call);
        call.held = held;
        call.most = MAX(call.most, held);
        return call.room == 0 || held <= call.room;
}

static void done(void *arg, const struct subrequest_answer *a)
{
        assert_ptr_equal(arg, &call);
        assert_false(call.inside);
        assert_int_equal(call.told++, 0);
        call.s = NULL;
        call.error = a->error;
        if (a->head == NULL) {
                assert_true(a->why.n > 0);
                return;
        }
        call.status = a->head->status;
        call.n = a->body->n;
        call.body[buf_copy_out(a->body, 0, call.body, sizeof(call.body) - 1)] = '\0';
        FIELDS_EACH(f, &a->head->fields)
        {
                snprintf(call.field, sizeof(call.field), "%.*s", STR_ARG(f->name));
        }
}

static const struct subrequest_user user = {.room = room_of, .done = done};

static struct subrequest_ask ask_of(const weir_http_req *req)
{
        return (struct subrequest_ask){.loop = loops[0],
                                       .conf = &conf,
                                       .upstream = u,
                                       .req = req,
                                       .user = &user,
                                       .arg = &call};
}

static void ask(const weir_http_req *req)
{
        struct subrequest_ask a = ask_of(req);

        call = (struct call){.inside = true, .room = call.room};
        call.s = subrequest_calls.start(&a);
        call.inside = false;
        assert_int_equal(call.told, 0);
}

static void get(void)
{
        ask(WEIR_HTTP(.path = WEIR_STR("/x")));
}

static int up(void **state)
{
        process_up(state);
        lines[0] = line("10.0.0.1:80", 1);
        conf = (struct upstream_conf){.name = STR("users"),
                                      .servers = lines,
                                      .n_servers = 1,
                                      .keepalive = 8,
                                      .eject_for = 10 * SEC,
                                      .eff = {.connect = SEC,
                                              .response = SEC,
                                              .idle = 60 * SEC,
                                              .queue = 10 * SEC,
                                              .retry_attempts = 2,
                                              .retry_on = RETRY_CONNECT_ERROR | RETRY_RESET,
                                              .retry_budget = 0.2,
                                              .buffer_request = UINT64_MAX}};
        u = upstream_hold(us, &conf, NULL);
        upstream_loop_begin(u, loops[0]);
        call = (struct call){.room = 0};
        return 0;
}

static int down(void **state)
{
        assert_int_equal(inflight_total(&u->set->m[0].server->inflight), 0);
        assert_int_equal(upstream_here(u, loops[0])->queued, 0);
        upstream_loop_end(u, loops[0]);
        upstream_drop(u);
        turn_all();
        return process_down(state);
}

/* n more bytes of the answer, without its end. */
static void server_body(unsigned serial, size_t n)
{
        struct exchange *x = client(serial)->x;
        static char bytes[4096];

        while (n > 0) {
                size_t k = MIN(n, sizeof(bytes));
                pipe_put(&x->r->res_body, str_of(bytes, k));
                n -= k;
        }
        x->user->res_ready(x);
}

/* ------------------------------------------------------------------ heads */

static void heads(void **state)
{
        static const weir_kv two[] = {{WEIR_STR("X-A"), WEIR_STR(" 1 ")},
                                      {WEIR_STR("Host"), WEIR_STR("other:81")}};
        static const struct {
                weir_http_req req;
                weir_err error;
                const char *method, *target, *host;
                enum framing framing;
                uint32_t fields;
        } rows[] = {
                {{.path = WEIR_STR("/a?b=c%20d")},
                 WEIR_OK,
                 "GET",
                 "/a?b=c%20d",
                 "users",
                 FRAMING_NONE,
                 0},
                {{.path = WEIR_STR("/a/../b?")}, WEIR_OK, "GET", "/b?", "users", FRAMING_NONE, 0},
                {{.path = WEIR_STR("/"), .fields = two, .n_fields = 2},
                 WEIR_OK,
                 "GET",
                 "/",
                 "other:81",
                 FRAMING_NONE,
                 1},
                {{.path = WEIR_STR("/"), .method = WEIR_STR("POST")},
                 WEIR_OK,
                 "POST",
                 "/",
                 "users",
                 FRAMING_LENGTH,
                 0},
                {{.path = WEIR_STR("/"), .method = WEIR_STR("DELETE")},
                 WEIR_OK,
                 "DELETE",
                 "/",
                 "users",
                 FRAMING_NONE,
                 0},
                {{.path = WEIR_STR("/"), .body = WEIR_STR("")},
                 WEIR_OK,
                 "GET",
                 "/",
                 "users",
                 FRAMING_LENGTH,
                 0},
                {{.path = {NULL, 0}}, WEIR_E_INVAL, "", "", "", FRAMING_NONE, 0},
                {{.path = WEIR_STR("http://a/")}, WEIR_E_INVAL, "", "", "", FRAMING_NONE, 0},
                {{.path = WEIR_STR("*"), .method = WEIR_STR("OPTIONS")},
                 WEIR_E_INVAL,
                 "",
                 "",
                 "",
                 FRAMING_NONE,
                 0},
                {{.path = WEIR_STR("/a\r\nX: y")}, WEIR_E_INVAL, "", "", "", FRAMING_NONE, 0},
                {{.path = WEIR_STR("/a\xc3\xa4")}, WEIR_E_INVAL, "", "", "", FRAMING_NONE, 0},
                {{.path = WEIR_STR("/a%2f..%2fb")}, WEIR_E_INVAL, "", "", "", FRAMING_NONE, 0},
                {{.path = WEIR_STR("/"), .method = WEIR_STR("")},
                 WEIR_E_INVAL,
                 "",
                 "",
                 "",
                 FRAMING_NONE,
                 0},
                {{.path = WEIR_STR("/"), .method = WEIR_STR("CONNECT")},
                 WEIR_E_INVAL,
                 "",
                 "",
                 "",
                 FRAMING_NONE,
                 0},
                {{.path = WEIR_STR("/"), .flags = 1}, WEIR_E_INVAL, "", "", "", FRAMING_NONE, 0},
                {{.path = WEIR_STR("/"), .timeout_us = -1},
                 WEIR_E_INVAL,
                 "",
                 "",
                 "",
                 FRAMING_NONE,
                 0},
                {{.path = WEIR_STR("/"), .n_fields = 1}, WEIR_E_INVAL, "", "", "", FRAMING_NONE, 0},
        };

        (void)state;
        for (size_t i = 0; i < COUNT(rows); i++) {
                struct subrequest_ask a = ask_of(&rows[i].req);
                struct arena *arena = arena_new(0);
                struct txn t = {0};
                struct msg m;

                assert_int_equal(subrequest_head(&a, arena, &t, &m), rows[i].error);
                if (rows[i].error == WEIR_OK) {
                        assert_true(str_eq(m.method_text, str_z(rows[i].method)));
                        assert_true(str_eq(m.target, str_z(rows[i].target)));
                        assert_true(str_eq(m.authority, str_z(rows[i].host)));
                        assert_int_equal(m.framing, rows[i].framing);
                        assert_int_equal(m.fields.n, rows[i].fields);
                        assert_ptr_equal(t.eff, &conf.eff);
                }
                arena_free(arena);
        }
}

static void fields(void **state)
{
        static const struct {
                weir_kv kv;
                weir_err error;
        } rows[] = {
                {{WEIR_STR("x-a"), WEIR_STR("")}, WEIR_OK},
                {{WEIR_STR("x-a"), {NULL, 0}}, WEIR_E_INVAL},
                {{{NULL, 0}, WEIR_STR("x")}, WEIR_E_INVAL},
                {{WEIR_STR("x a"), WEIR_STR("x")}, WEIR_E_INVAL},
                {{WEIR_STR("x-a"), WEIR_STR("a\nb")}, WEIR_E_INVAL},
                {{WEIR_STR("host"), WEIR_STR("a b")}, WEIR_E_INVAL},
                {{WEIR_STR("host"), WEIR_STR("")}, WEIR_E_INVAL},
                {{WEIR_STR("content-length"), WEIR_STR("1")}, WEIR_E_DENIED},
                {{WEIR_STR("Transfer-Encoding"), WEIR_STR("chunked")}, WEIR_E_DENIED},
                {{WEIR_STR("connection"), WEIR_STR("close")}, WEIR_E_DENIED},
                {{WEIR_STR("expect"), WEIR_STR("100-continue")}, WEIR_E_DENIED},
                {{WEIR_STR("trailer"), WEIR_STR("x")}, WEIR_E_DENIED},
        };

        (void)state;
        for (size_t i = 0; i < COUNT(rows); i++) {
                weir_http_req req = {.path = WEIR_STR("/"), .fields = &rows[i].kv, .n_fields = 1};
                struct subrequest_ask a = ask_of(&req);
                struct arena *arena = arena_new(0);
                struct txn t = {0};
                struct msg m;

                assert_int_equal(subrequest_head(&a, arena, &t, &m), rows[i].error);
                arena_free(arena);
        }
}

static void what_it_is_made_for_is_told(void **state)
{
        static const weir_kv own[] = {{WEIR_STR("x-request-id"), WEIR_STR("mine")}};
        weir_http_req req = {.path = WEIR_STR("/")};
        struct txn parent = {
                .request_id = STR_INIT("rid"), .client_ip = STR_INIT("192.0.2.1"), .trial = true};
        struct subrequest_ask a = ask_of(&req);
        struct arena *arena = arena_new(0);
        struct txn t = {0};
        struct msg m;

        (void)state;
        a.parent = &parent;
        assert_int_equal(subrequest_head(&a, arena, &t, &m), WEIR_OK);
        assert_true(str_eq(fields_get(&m.fields, FIELD_X_REQUEST_ID)->value, STR("rid")));
        assert_true(str_eq(t.client_ip, STR("192.0.2.1")));
        assert_true(t.trial);
        req.fields = own;
        req.n_fields = 1;
        assert_int_equal(subrequest_head(&a, arena, &t, &m), WEIR_OK);
        assert_int_equal(fields_count(&m.fields, STR("x-request-id")), 1);
        assert_true(str_eq(fields_get(&m.fields, FIELD_X_REQUEST_ID)->value, STR("mine")));
        arena_free(arena);
}

static void what_is_refused_is_told_later(void **state)
{
        (void)state;
        ask(WEIR_HTTP(.path = WEIR_STR("nowhere")));
        loop_turn(loops[0], false);
        assert_int_equal(call.told, 1);
        assert_int_equal(call.error, WEIR_E_INVAL);
        assert_int_equal(connects, 0);
        ask(WEIR_HTTP(.path = WEIR_STR("nowhere")));
        subrequest_calls.cancel(call.s);
        loop_turn(loops[0], false);
        assert_int_equal(call.told, 0);
}

/* ------------------------------------------------------------------ answers */

static void an_answer_comes_whole(void **state)
{
        struct exchange *x;

        (void)state;
        get();
        assert_int_equal(inflight_total(&u->set->m[0].server->inflight), 1);
        client_connected(1, REASON_NONE);
        client_head(1, 200);
        x = client(1)->x;
        fields_add(x->r->arena, &x->res->fields, FIELD_OTHER, STR("X-B"), STR("1"));
        fields_add(x->r->arena, &x->res->fields, FIELD_CONNECTION, STR("Connection"), STR("close"));
        assert_int_equal(call.told, 0);
        pipe_put(&x->r->res_body, STR("ab"));
        x->user->res_ready(x);
        assert_int_equal(call.told, 0);
        pipe_put(&x->r->res_body, STR("cd"));
        client_body_end(1, true);
        assert_int_equal(call.told, 1);
        assert_int_equal(call.status, 200);
        assert_string_equal(call.body, "abcd");
        assert_string_equal(call.field, "X-B"); /* and no hop-by-hop field */
        assert_true(client(1)->idle);
        assert_int_equal(metric_of(METRIC_UPSTREAM_REQUESTS,
                                   "upstream=\"users\",server=\"10.0.0.1:80\",result=\"2xx\""),
                         1);
        get();
        client_answers(1, 404); /* in one piece */
        assert_int_equal(call.status, 404);
        assert_int_equal(connects, 1);
}

static void bodies_have_a_bound(void **state)
{
        (void)state;
        ask(WEIR_HTTP(.path = WEIR_STR("/"), .max_body = 1000));
        client_connected(1, REASON_NONE);
        client_head(1, 200);
        server_body(1, 1000);
        assert_int_equal(call.told, 0);
        server_body(1, 1);
        assert_int_equal(call.error, WEIR_E_FULL);
        assert_int_equal(aborted, 1);

        get();
        client_connected(2, REASON_NONE);
        client_head(2, 200);
        server_body(2, SUBREQUEST_BODY_MAX);
        assert_int_equal(call.told, 0);
        client_body_end(2, true);
        assert_int_equal(call.n, SUBREQUEST_BODY_MAX);
}

static void a_length_that_is_too_much_is_enough(void **state)
{
        struct exchange *x;

        (void)state;
        get();
        client_connected(1, REASON_NONE);
        x = client(1)->x;
        *x->res = (struct msg){
                .status = 200, .framing = FRAMING_LENGTH, .length = SUBREQUEST_BODY_MAX + 1};
        x->phase = EXCHANGE_BODY;
        x->user->head(x);
        assert_int_equal(call.error, WEIR_E_FULL);
        assert_int_equal(clients_alive(), 0);
}

static void memory_has_a_bound(void **state)
{
        static char large[50000];

        (void)state;
        call.room = 40000;
        get();
        assert_in_range(call.held, ARENA_CHUNK, 40000);
        client_connected(1, REASON_NONE);
        client_head(1, 200);
        server_body(1, 20000);
        assert_int_equal(call.told, 0);
        server_body(1, 20000);
        assert_int_equal(call.error, WEIR_E_NOMEM);
        assert_in_range(call.most, 40001, 60000);
        ask(WEIR_HTTP(.path = WEIR_STR("/"), .body = {large, sizeof(large)}));
        loop_turn(loops[0], false);
        assert_int_equal(call.error, WEIR_E_NOMEM);
        assert_int_equal(connects, 1);
}

/* ------------------------------------------------------------------ failures, ends */

static void failures_are_told(void **state)
{
        static const struct {
                enum reason why;
                weir_err error;
        } rows[] = {
                {REASON_UPSTREAM_RESET, WEIR_E_UNAVAIL},   {REASON_UPSTREAM_HEAD, WEIR_E_UNAVAIL},
                {REASON_RESPONSE_TIMEOUT, WEIR_E_TIMEOUT}, {REASON_RESPONSE_IDLE, WEIR_E_TIMEOUT},
                {REASON_UPSTREAM_HEADER_MAX, WEIR_E_FULL},
        };

        (void)state;
        for (size_t i = 0; i < COUNT(rows); i++) {
                ask(WEIR_HTTP(.path = WEIR_STR("/"), .method = WEIR_STR("POST")));
                client_connected(connects, REASON_NONE);
                client_fails(connects, rows[i].why, true);
                assert_int_equal(call.error, rows[i].error);
                assert_int_equal(call.told, 1);
        }
        get();
        client_connected(connects, REASON_CONNECT_FAILED);
        client_connected(connects, REASON_CONNECT_TIMEOUT);
        assert_int_equal(call.error, WEIR_E_TIMEOUT);
}

static void a_body_is_kept_to_be_sent_again(void **state)
{
        (void)state;
        ask(WEIR_HTTP(.path = WEIR_STR("/"), .method = WEIR_STR("PUT"), .body = WEIR_STR("abc")));
        client_connected(1, REASON_NONE);
        client_fails(1, REASON_UPSTREAM_RESET, true);
        assert_int_equal(call.told, 0);
        assert_int_equal(connects, 2);
        assert_int_equal(call.s->t.r->req_body.data.n, 3);
        client_connected(2, REASON_NONE);
        client_answers(2, 200);
        assert_int_equal(call.status, 200);
}

static void time_runs_out(void **state)
{
        (void)state;
        ask(WEIR_HTTP(.path = WEIR_STR("/"), .timeout_us = 50 * MSEC));
        client_connected(1, REASON_NONE);
        loop_advance(loops[0], 40 * MSEC);
        assert_int_equal(call.told, 0);
        loop_advance(loops[0], 40 * MSEC);
        assert_int_equal(call.error, WEIR_E_TIMEOUT);
        assert_int_equal(aborted, 1);
        assert_int_equal(metric_of(METRIC_UPSTREAM_REQUESTS,
                                   "upstream=\"users\",server=\"10.0.0.1:80\",result=\"timeout\""),
                         1);
        conf.eff.request = 30 * MSEC; /* the upstream's own, where nothing is said */
        get();
        loop_advance(loops[0], 60 * MSEC);
        assert_int_equal(call.error, WEIR_E_TIMEOUT);
}

/* Wherever it is: queued, connecting, waiting, in the middle of the body. */
static void cancelling_frees_everything(void **state)
{
        (void)state;
        for (unsigned at = 0; at < 3; at++) {
                get();
                if (at > 0)
                        client_connected(connects, REASON_NONE);
                if (at > 1) {
                        client_head(connects, 200);
                        server_body(connects, 5000);
                }
                subrequest_calls.cancel(call.s);
                assert_int_equal(call.told, 0);
                assert_int_equal(aborted, at);
                assert_int_equal(inflight_total(&u->set->m[0].server->inflight), 0);
        }
}

static void there_is_a_queue(void **state)
{
        struct subrequest *first;

        (void)state;
        ((struct member *)(uintptr_t)&u->set->m[0])->max_connections = 1;
        get();
        first = call.s;
        get();
        assert_int_equal(upstream_here(u, loops[0])->queued, 1);
        subrequest_calls.cancel(call.s);
        assert_int_equal(upstream_here(u, loops[0])->queued, 0);
        get();
        subrequest_calls.cancel(first);
        loop_turn(loops[0], false);
        client_connected(connects, REASON_NONE);
        client_answers(connects, 200);
        assert_int_equal(call.status, 200);
}

#define SUBREQUEST_TEST(f) cmocka_unit_test_setup_teardown(f, up, down)

int main(void)
{
        const struct CMUnitTest tests[] = {
                SUBREQUEST_TEST(heads),
                SUBREQUEST_TEST(fields),
                SUBREQUEST_TEST(what_it_is_made_for_is_told),
                SUBREQUEST_TEST(what_is_refused_is_told_later),
                SUBREQUEST_TEST(an_answer_comes_whole),
                SUBREQUEST_TEST(bodies_have_a_bound),
                SUBREQUEST_TEST(a_length_that_is_too_much_is_enough),
                SUBREQUEST_TEST(memory_has_a_bound),
                SUBREQUEST_TEST(failures_are_told),
                SUBREQUEST_TEST(a_body_is_kept_to_be_sent_again),
                SUBREQUEST_TEST(time_runs_out),
                SUBREQUEST_TEST(cancelling_frees_everything),
                SUBREQUEST_TEST(there_is_a_queue),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
