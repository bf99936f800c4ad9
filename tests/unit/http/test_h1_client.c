/*
 * The server side of HTTP/1 against a scripted server: responses by the rules, connections kept or
 * thrown away, and every step at which a server can fail.
 */
#include "http/h1_client.c"

#include "peer.h"

#include "http/downstream.h"

/* ---------------------------------------------------------------- fake pool and flow */

static struct {
        struct client_conn *c; /* connected, or released */
        unsigned connects, released, closed;
        enum reason connect_why, closed_why;
        char error[100];
} pool;

static struct {
        unsigned interims, heads, readies, rooms, failures;
        enum reason why;
        enum exchange_phase phase_at_head;
        int interim_status;
        bool abort_at_interim, abort_at_head;
} user;

static struct request *r;
static struct exchange x;
static struct msg sent;
static struct peer server;
static int listener = -1;
static struct addr at;

static void pool_connected(struct client_conn *c, enum reason why)
{
        pool.connects++;
        pool.connect_why = why;
        pool.c = why == REASON_NONE ? c : NULL;
        assert_ptr_equal(c->pool_ctx, &pool);
        snprintf(pool.error, sizeof(pool.error), "%.*s", STR_ARG(client_error(c)));
}

static void pool_released(struct client_conn *c)
{
        pool.released++;
        pool.c = c;
        client_idle(c, 60 * SEC);
}

static void pool_closed(struct client_conn *c UNUSED, enum reason why)
{
        pool.closed++;
        pool.closed_why = why;
        pool.c = NULL;
}

static const struct client_pool pool_calls = {pool_connected, pool_released, pool_closed};

static void user_interim(struct exchange *e)
{
        user.interims++;
        user.interim_status = e->interim.status;
        if (user.abort_at_interim)
                e->ops->abort(e, REASON_CLIENT_GONE);
}

static void user_head(struct exchange *e)
{
        user.heads++;
        user.phase_at_head = e->phase;
        if (user.abort_at_head && e->ops)
                e->ops->abort(e, REASON_CLIENT_GONE);
}

static void user_res_ready(struct exchange *e UNUSED)
{
        user.readies++;
}

static void user_req_room(struct exchange *e UNUSED)
{
        user.rooms++;
}

static void user_failed(struct exchange *e, enum reason why)
{
        assert_null(e->ops);
        user.failures++;
        user.why = why;
}

static const struct exchange_user user_calls = {user_interim, user_head, user_res_ready,
                                                user_req_room, user_failed};

/* ---------------------------------------------------------------- fixture */

static const struct flow_ops no_flow;

static void new_exchange(enum method method, const char *text)
{
        if (r)
                request_drop(r);
        r = request_new(loop, &no_flow, 0);
        sent = (struct msg){.method = method,
                            .method_text = str_z(text),
                            .target = STR("/t"),
                            .authority = STR("h")};
        r->req_body.end = true;
        x = (struct exchange){.magic = EXCHANGE_MAGIC,
                              .r = r,
                              .user = &user_calls,
                              .req = &sent,
                              .res = &r->res,
                              .head_max = 4096,
                              .line_max = 2048,
                              .fields_max = 20};
        memset(&user, 0, sizeof(user));
}

static void connect_server(void)
{
        enum reason why;
        server = (struct peer){.fd = -1};
        assert_non_null(
                h1_client_connect(loop, &at, NULL, STR("h"), 10 * SEC, &pool_calls, &pool, &why));
        unsigned before = pool.connects;
        PUMP_UNTIL(loop, pool.connects > before);
        assert_int_equal(pool.connect_why, REASON_NONE);
        server.fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        assert_true(server.fd >= 0);
}

static void start(void)
{
        client_bind(pool.c, &x);
        pool.c = NULL;
        x.ops->start(&x);
}

static int begin_test(void **state)
{
        (void)state;
        loop = loop_new(0, NULL);
        loop_turn(loop, false);
        memset(&pool, 0, sizeof(pool));
        listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        at = (struct addr){.len = sizeof(at.in),
                           .in = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}}};
        assert_int_equal(bind(listener, &at.sa, at.len), 0);
        assert_int_equal(listen(listener, 5), 0);
        getsockname(listener, &at.sa, &at.len);
        connect_server();
        new_exchange(METHOD_GET, "GET");
        return 0;
}

static int end_test(void **state)
{
        (void)state;
        if (x.ops)
                x.ops->abort(&x, REASON_SHUTDOWN);
        if (pool.c)
                client_close(pool.c, REASON_SHUTDOWN);
        request_drop(r);
        r = NULL;
        peer_close(&server);
        close(listener);
        loop_turn(loop, false);
        assert_int_equal(codecs(loop)->clients.live, 0);
        codecs_end(loop);
        loop_free(loop);
        io_thread_end();
        arena_thread_end();
        buf_thread_end();
        return 0;
}

/* A fresh connection and exchange for the next row of a table. */
static void renew(enum method method, const char *text)
{
        if (x.ops)
                x.ops->abort(&x, REASON_SHUTDOWN);
        if (pool.c)
                client_close(pool.c, REASON_SHUTDOWN);
        pool.c = NULL;
        peer_close(&server);
        memset(&pool, 0, sizeof(pool));
        connect_server();
        new_exchange(method, text);
}

static void expect_body(const char *text)
{
        str got = buf_pullup(&r->res_body.data, r->res_body.data.n);
        if (!str_eq(got, str_z(text)))
                fail_msg("body \"%.*s\", not \"%s\"", STR_ARG(got), text);
        buf_clear(&r->res_body.data);
}

#define REQUEST "GET /t HTTP/1.1\r\nHost: h\r\n\r\n"

/* ---------------------------------------------------------------- tests */

static void a_connection_carries_many_exchanges(void **state)
{
        (void)state;
        for (unsigned i = 0; i < 3; i++) {
                new_exchange(METHOD_GET, "GET");
                start();
                assert_int_equal(x.reused, i > 0);
                assert_true(x.wrote);
                EXPECT(&server, REQUEST);
                SEND(&server, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
                PUMP_UNTIL(loop, user.heads == 1);
                assert_int_equal(user.phase_at_head, EXCHANGE_DONE); /* all came at once */
                assert_int_equal(user.readies, 0);
                assert_int_equal(pool.released, i + 1);
                assert_null(x.ops);
                expect_body("hi");
                assert_true(r->res_body.end);
                assert_null(client_of_conn(pool.c)->io.in.first); /* an idle one holds nothing */
                assert_null(client_of_conn(pool.c)->io.out.first);
        }
}

/* What is read does not depend on how it is cut. */
static void any_cut_gives_the_same(void **state)
{
        static const struct {
                const char *text, *body;
        } rows[] = {
                {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "hello"},
                {"HTTP/1.1 103 E\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: "
                 "chunked\r\n\r\n"
                 "3;x=\"y\"\r\nhel\r\n2\r\nlo\r\n0\r\nX-T: 1\r\n\r\n",
                 "hello"},
        };
        (void)state;
        for (size_t i = 0; i < COUNT(rows); i++) {
                size_t n = strlen(rows[i].text);
                for (size_t cut = 1; cut <= n; cut++) {
                        new_exchange(METHOD_GET, "GET");
                        start();
                        EXPECT(&server, REQUEST);
                        peer_send(&server, str_of(rows[i].text, cut));
                        pump_turns(loop, 2);
                        if (cut < n)
                                peer_send(&server, str_of(rows[i].text + cut, n - cut));
                        PUMP_UNTIL(loop, x.phase == EXCHANGE_DONE);
                        assert_int_equal(user.failures, 0);
                        assert_int_equal(user.heads, 1);
                        assert_int_equal(user.interims, i);
                        expect_body(rows[i].body);
                        assert_int_equal(r->res.trailers.n, i);
                        assert_non_null(pool.c);
                }
        }
}

static void connections_are_kept_or_not(void **state)
{
        static const struct {
                enum method method;
                const char *name, *in, *body;
                bool eof; /* the server closes after it */
                enum reason closed;
        } rows[] = {
                {METHOD_GET, "GET", "HTTP/1.1 204 No\r\n\r\n", "", false, REASON_NONE},
                {METHOD_GET, "GET", "HTTP/1.1 304 NM\r\nContent-Length: 9\r\n\r\n", "", false,
                 REASON_NONE},
                {METHOD_HEAD, "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", "", false,
                 REASON_NONE},
                {METHOD_GET, "GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "", false,
                 REASON_NONE},
                {METHOD_GET, "GET",
                 "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\nx", "x",
                 false, REASON_NONE},
                {METHOD_GET, "GET", "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx", "x", false,
                 REASON_DONE},
                {METHOD_GET, "GET",
                 "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx", "x", false,
                 REASON_DONE},
                {METHOD_GET, "GET", "HTTP/1.1 200 OK\r\n\r\nuntil the end", "until the end", true,
                 REASON_DONE},
                {METHOD_GET, "GET", "HTTP/1.1 200 OK\r\n\r\n", "", true, REASON_DONE},
                {METHOD_GET, "GET", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxy", "x", false,
                 REASON_UPSTREAM_SURPLUS},
                {METHOD_GET, "GET", "HTTP/1.1 204 No\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", "", false,
                 REASON_UPSTREAM_SURPLUS},
                {METHOD_HEAD, "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", "", false,
                 REASON_UPSTREAM_SURPLUS},
        };
        (void)state;
        for (size_t i = 0; i < COUNT(rows); i++) {
                renew(rows[i].method, rows[i].name);
                start();
                EXPECT(&server, "\r\n\r\n");
                peer_send(&server, str_z(rows[i].in));
                if (rows[i].eof)
                        shutdown(server.fd, SHUT_WR);
                PUMP_UNTIL(loop, x.phase == EXCHANGE_DONE);
                assert_int_equal(user.failures, 0);
                assert_int_equal(user.heads, 1);
                expect_body(rows[i].body);
                assert_true(r->res_body.end);
                if (rows[i].closed == REASON_NONE) {
                        assert_int_equal(pool.released, 1);
                        assert_int_equal(pool.closed, 0);
                } else {
                        assert_int_equal(pool.released, 0);
                        assert_int_equal(pool.closed, 1);
                        assert_int_equal(pool.closed_why, rows[i].closed);
                }
        }
}

static void bad_responses(void **state)
{
        static const struct {
                const char *in;
                bool eof;
                enum reason why;
                unsigned heads;
        } rows[] = {
                {"", true, REASON_UPSTREAM_RESET, 0},
                {"HTTP/1.1 200", true, REASON_UPSTREAM_RESET, 0},
                {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", true, REASON_UPSTREAM_RESET, 1},
                {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", true,
                 REASON_UPSTREAM_RESET, 1},
                {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n", true,
                 REASON_UPSTREAM_RESET, 1},
                {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", false,
                 REASON_UPSTREAM_FRAMING, 0},
                {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: "
                 "1\r\n\r\n",
                 false, REASON_UPSTREAM_FRAMING, 0},
                {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", false,
                 REASON_UPSTREAM_FRAMING, 0},
                {"HTTP/1.1 2000 OK\r\n\r\n", false, REASON_UPSTREAM_HEAD, 0},
                {"nonsense\n", false, REASON_UPSTREAM_HEAD, 0},
                {"\r\nHTTP/1.1 200 OK\r\n\r\n", false, REASON_UPSTREAM_HEAD, 0},
                {"HTTP/1.1 101 Sw\r\nConnection: upgrade\r\nUpgrade: a\r\n\r\n", false,
                 REASON_UPSTREAM_SWITCH, 0},
                {"HTTP/1.1 100 C\r\nContent-Length: 1\r\n\r\n", false, REASON_UPSTREAM_FRAMING, 0},
        };
        (void)state;
        for (size_t i = 0; i < COUNT(rows); i++) {
                renew(METHOD_GET, "GET");
                start();
                EXPECT(&server, REQUEST);
                peer_send(&server, str_z(rows[i].in));
                if (rows[i].heads)
                        PUMP_UNTIL(loop, user.heads == 1);
                if (rows[i].eof)
                        shutdown(server.fd, SHUT_WR);
                PUMP_UNTIL(loop, user.failures == 1);
                if (user.why != rows[i].why)
                        fail_msg("%s: %s", rows[i].in, reason_word(user.why));
                assert_int_equal(user.heads, rows[i].heads);
                assert_false(r->res_body.end);
                assert_int_equal(x.got_byte, rows[i].in[0] != 0);
                assert_int_equal(pool.closed, 1);
                assert_int_equal(x.phase, EXCHANGE_DONE);
        }
}

static void heads_have_limits(void **state)
{
        static const struct {
                const char *again;
                int times;
        } rows[] = {{"A: b\r\n", 30}, {"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 100}};
        (void)state;
        for (size_t i = 0; i < COUNT(rows); i++) {
                renew(METHOD_GET, "GET");
                start();
                EXPECT(&server, REQUEST);
                SEND(&server, "HTTP/1.1 200 OK\r\n");
                for (int n = 0; n < rows[i].times; n++)
                        peer_send(&server, str_z(rows[i].again));
                PUMP_UNTIL(loop, user.failures == 1);
                assert_int_equal(user.why, REASON_UPSTREAM_HEADER_MAX);
        }
        renew(METHOD_GET, "GET");
        start();
        EXPECT(&server, REQUEST);
        for (int i = 0; i < 40; i++)
                SEND(&server, "HTTP/1.1 102 P\r\n\r\n");
        PUMP_UNTIL(loop, user.failures == 1);
        assert_int_equal(user.interims, INTERIM_MAX);
}

static void interim_heads_are_told(void **state)
{
        (void)state;
        start();
        EXPECT(&server, REQUEST);
        SEND(&server, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 E\r\n\r\n");
        PUMP_UNTIL(loop, user.interims == 2);
        assert_int_equal(user.interim_status, 103);
        SEND(&server, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        PUMP_UNTIL(loop, user.heads == 1);
        renew(METHOD_GET, "GET");
        user.abort_at_interim = true;
        start();
        SEND(&server, "HTTP/1.1 103 E\r\n\r\nHTTP/1.1 200 OK\r\n\r\n");
        PUMP_UNTIL(loop, pool.closed == 1);
        assert_int_equal(user.heads, 0);
        renew(METHOD_GET, "GET");
        user.abort_at_head = true;
        start();
        SEND(&server, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx");
        PUMP_UNTIL(loop, pool.closed == 1);
        assert_int_equal(user.heads, 1);
        assert_int_equal(user.readies, 0);
}

static void bodies_go_out(void **state)
{
        (void)state;
        new_exchange(METHOD_POST, "POST");
        sent.framing = FRAMING_LENGTH;
        sent.length = 10;
        r->req_body.end = false;
        buf_puts(&r->req_body.data, STR("01234"));
        start();
        assert_int_equal(user.rooms, 1); /* asks for the rest */
        assert_true(x.body_taken);
        EXPECT(&server, "Content-Length: 10\r\n\r\n01234");
        buf_puts(&r->req_body.data, STR("56789"));
        r->req_body.end = true;
        x.ops->req_ready(&x);
        EXPECT(&server, "56789");
        SEND(&server, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        PUMP_UNTIL(loop, pool.released == 1);

        new_exchange(METHOD_POST, "POST");
        sent.framing = FRAMING_CHUNKED;
        r->req_body.end = false;
        start();
        EXPECT(&server, "Transfer-Encoding: chunked\r\n\r\n");
        buf_puts(&r->req_body.data, STR("0123456789abcdef"));
        x.ops->req_ready(&x);
        EXPECT(&server, "10\r\n0123456789abcdef\r\n");
        r->req_body.end = true;
        fields_add(r->arena, &r->req.trailers, FIELD_OTHER, STR("X-T"), STR("1"));
        x.ops->req_ready(&x);
        EXPECT(&server, "0\r\nX-T: 1\r\n\r\n");
        SEND(&server, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        PUMP_UNTIL(loop, pool.released == 2);

        new_exchange(METHOD_POST, "POST"); /* shorter than announced: cannot be completed */
        sent.framing = FRAMING_LENGTH;
        sent.length = 10;
        buf_puts(&r->req_body.data, STR("0123"));
        start();
        PUMP_UNTIL(loop, user.failures == 1);
        assert_int_equal(user.why, REASON_INTERNAL);
}

/* A body that waits for a 100 is asked for when the server says so, or says nothing for too long.
 */
static void expectations(void **state)
{
        static const struct {
                const char *answer;
                unsigned rooms;
        } rows[] = {{"HTTP/1.1 100 Continue\r\n\r\n", 1},
                    {"HTTP/1.1 103 Early Hints\r\n\r\n", 1}, /* no answer to the question */
                    {"", 1},
                    {"HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n", 0}};
        (void)state;
        for (size_t i = 0; i < COUNT(rows); i++) {
                renew(METHOD_POST, "POST");
                sent.framing = FRAMING_LENGTH;
                sent.length = 3;
                sent.expect_continue = true;
                r->req_body.end = false;
                start();
                assert_int_equal(user.rooms, 0);
                EXPECT(&server, "Content-Length: 3\r\nExpect: 100-continue\r\n\r\n");
                int64_t asked = loop->now;
                peer_send(&server, str_z(rows[i].answer));
                PUMP_UNTIL(loop, user.rooms == 1 || user.heads == 1);
                assert_int_equal(user.rooms, rows[i].rooms);
                if (rows[i].rooms == 0) { /* the body was never sent: not used again */
                        assert_int_equal(pool.closed_why, REASON_UPSTREAM_EARLY);
                        continue;
                }
                assert_int_equal(loop->now - asked >= CONTINUE_US, i > 0);
                buf_puts(&r->req_body.data, STR("abc"));
                r->req_body.end = true;
                x.ops->req_ready(&x);
                EXPECT(&server, "abc");
                SEND(&server, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
                PUMP_UNTIL(loop, pool.released == 1);
        }
}

/* A final answer while the request is still going out: it counts, the connection does not. */
static void early_answers(void **state)
{
        static char block[65536];
        (void)state;
        for (int hard = 0; hard < 2; hard++) {
                renew(METHOD_POST, "POST");
                sent.framing = FRAMING_LENGTH;
                sent.length = 1 << 30;
                r->req_body.end = false;
                start();
                struct h1_client *c = x.codec_ctx;
                EXPECT(&server, "\r\n\r\n");
                while (!c->io.writing) {
                        buf_put(&r->req_body.data, block, sizeof(block));
                        x.ops->req_ready(&x);
                }
                SEND(&server, "HTTP/1.1 413 No\r\nContent-Length: 4\r\n\r\nlong");
                if (hard) /* with unread bytes this resets the connection */
                        close(server.fd), server.fd = -1;
                PUMP_UNTIL(loop, x.phase == EXCHANGE_DONE);
                if (!hard) {
                        assert_int_equal(user.heads, 1);
                        assert_int_equal(r->res.status, 413);
                        expect_body("long");
                        assert_int_equal(pool.closed_why, REASON_UPSTREAM_EARLY);
                }
                assert_int_equal(pool.closed, 1);
        }
}

static void the_server_closes_an_idle_connection(void **state)
{
        (void)state;
        start();
        SEND(&server, "HTTP/1.1 204 N\r\n\r\n");
        PUMP_UNTIL(loop, pool.released == 1);
        peer_close(&server);
        PUMP_UNTIL(loop, pool.closed == 1);
        assert_int_equal(pool.closed_why, REASON_SERVER_CLOSED);
        renew(METHOD_GET, "GET");
        start();
        SEND(&server, "HTTP/1.1 204 N\r\n\r\n");
        PUMP_UNTIL(loop, pool.released == 1);
        SEND(&server, "x");
        PUMP_UNTIL(loop, pool.closed == 1);
        assert_int_equal(pool.closed_why, REASON_UPSTREAM_SURPLUS);
        renew(METHOD_GET, "GET");
        start();
        SEND(&server, "HTTP/1.1 204 N\r\n\r\n");
        PUMP_UNTIL(loop, pool.released == 1);
        client_idle(pool.c, 30 * MSEC);
        PUMP_UNTIL(loop, pool.closed == 1);
        assert_int_equal(pool.closed_why, REASON_IDLE);
}

/* Taken from the pool just as the server closes it: nothing came, so it may be sent again. */
static void a_kept_connection_turns_out_closed(void **state)
{
        (void)state;
        start();
        SEND(&server, "HTTP/1.1 204 N\r\n\r\n");
        PUMP_UNTIL(loop, pool.released == 1);
        new_exchange(METHOD_GET, "GET");
        peer_reset(&server);
        start();
        PUMP_UNTIL(loop, user.failures == 1);
        assert_int_equal(user.why, REASON_UPSTREAM_RESET);
        assert_true(x.reused);
        assert_false(x.got_byte);
}

static void timeouts(void **state)
{
        static char block[65536];
        (void)state;
        x.response_us = 30 * MSEC;
        start();
        PUMP_UNTIL(loop, user.failures == 1);
        assert_int_equal(user.why, REASON_RESPONSE_TIMEOUT);

        renew(METHOD_GET, "GET");
        x.response_us = 10 * SEC;
        x.response_idle_us = 30 * MSEC;
        start();
        SEND(&server, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx");
        PUMP_UNTIL(loop, user.failures == 1);
        assert_int_equal(user.heads, 1);
        assert_int_equal(user.why, REASON_RESPONSE_IDLE);

        renew(METHOD_POST, "POST"); /* the server takes nothing */
        x.send_us = 60 * MSEC;
        sent.framing = FRAMING_CHUNKED;
        r->req_body.end = false;
        start();
        struct h1_client *c = x.codec_ctx;
        while (!c->io.writing) {
                buf_put(&r->req_body.data, block, sizeof(block));
                x.ops->req_ready(&x);
        }
        PUMP_UNTIL(loop, user.failures == 1);
        assert_int_equal(user.why, REASON_RESPONSE_TIMEOUT);

        renew(METHOD_POST, "POST"); /* the client is slow, not the server: no response is due yet */
        x.response_us = 30 * MSEC;
        sent.framing = FRAMING_CHUNKED;
        r->req_body.end = false;
        start();
        struct deadline later = {0};
        deadline_set(loop, &later, 100 * MSEC, pump_nothing);
        PUMP_UNTIL(loop, !deadline_armed(&later));
        assert_int_equal(user.failures, 0);
        r->req_body.end = true;
        x.ops->req_ready(&x);
        PUMP_UNTIL(loop, user.failures == 1);
        assert_int_equal(user.why, REASON_RESPONSE_TIMEOUT);
}

static void connects_fail(void **state)
{
        enum reason why = REASON_NONE;
        (void)state;
        close(listener);
        listener = -1;
        unsigned before = pool.connects;
        struct client_conn *kept = pool.c, *c;
        c = h1_client_connect(loop, &at, NULL, STR("h"), 10 * SEC, &pool_calls, &pool, &why);
        if (c)
                PUMP_UNTIL(loop, pool.connects > before);
        assert_int_equal(c ? pool.connect_why : why, REASON_CONNECT_FAILED);
        if (c)
                assert_string_equal(pool.error, "Connection refused");
        pool.c = kept;
}

/* A listener whose backlog is full lets connects hang. */
static void connects_time_out(void **state)
{
        int l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), fill[8];
        struct addr full = {.len = sizeof(full.in),
                            .in = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}}};
        enum reason why;
        (void)state;
        bind(l, &full.sa, full.len);
        listen(l, 0);
        getsockname(l, &full.sa, &full.len);
        for (size_t i = 0; i < COUNT(fill); i++) {
                fill[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
                (void)!connect(fill[i], &full.sa, full.len);
        }
        unsigned before = pool.connects;
        struct client_conn *kept = pool.c;
        assert_non_null(h1_client_connect(loop, &full, NULL, STR("h"), 50 * MSEC, &pool_calls,
                                          &pool, &why));
        PUMP_UNTIL(loop, pool.connects > before);
        assert_int_equal(pool.connect_why, REASON_CONNECT_TIMEOUT);
        assert_string_equal(pool.error, "timed out");
        pool.c = kept;
        for (size_t i = 0; i < COUNT(fill); i++)
                close(fill[i]);
        close(l);
}

/* No more is read than the pipe has credit for, and reading goes on with the room. */
static void back_pressure(void **state)
{
        static char block[65536];
        const uint64_t size = 64 * MIB;
        uint64_t put = 0, took = 0;
        size_t most = 0;
        (void)state;
        start();
        struct h1_client *c = x.codec_ctx;
        EXPECT(&server, REQUEST);
        SEND(&server, "HTTP/1.1 200 OK\r\nContent-Length: 67108864\r\n\r\n");
        PUMP_UNTIL(loop, user.heads == 1);
        while (took < size) {
                ssize_t n = put < size ? send(server.fd, block, MIN(sizeof(block), size - put),
                                              MSG_DONTWAIT | MSG_NOSIGNAL)
                                       : -1;
                put += n > 0 ? (uint64_t)n : 0;
                loop_turn(loop, false);
                most = MAX(most, buf_held(&r->res_body.data) + buf_held(&c->io.in));
                assert_true(r->res_body.data.n <= PIPE_HIGH);
                if (n > 0 && !r->res_body.stalled)
                        continue;
                took += r->res_body.data.n; /* the consumer wakes up */
                buf_clear(&r->res_body.data);
                if (r->res_body.stalled)
                        x.ops->res_room(&x);
        }
        PUMP_UNTIL(loop, x.phase == EXCHANGE_DONE);
        assert_true(most < 256 * KIB);
        assert_int_equal(took, size);
        assert_int_equal(pool.released, 1);
}

/* A pipe that is full in the middle of what was read: the rest follows without another read. */
static void small_pipes(void **state)
{
        (void)state;
        r->res_body.high = 3;
        start();
        EXPECT(&server, REQUEST);
        SEND(&server, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                      "5\r\nhello\r\n5\r\nworld\r\n0\r\n\r\n");
        PUMP_UNTIL(loop, user.heads == 1);
        char all[32];
        size_t n = 0;
        while (!pipe_done(&r->res_body)) {
                assert_true(r->res_body.data.n <= 3);
                size_t some = buf_copy_out(&r->res_body.data, 0, all + n, sizeof(all) - n);
                buf_drain(&r->res_body.data, some);
                n += some;
                if (r->res_body.stalled)
                        x.ops->res_room(&x);
                loop_turn(loop, false);
        }
        assert_true(str_eq(str_of(all, n), STR("helloworld")));
        assert_int_equal(pool.released, 1);
}

static void switch_protocols(void)
{
        renew(METHOD_GET, "GET");
        sent.upgrade = STR("a, ws");
        x.accept_upgrade = true;
        start();
        EXPECT(&server, "Connection: upgrade\r\nUpgrade: a, ws\r\n\r\n");
}

static void tunnels(void **state)
{
        (void)state;
        switch_protocols();
        SEND(&server, "HTTP/1.1 101 Sw\r\nConnection: upgrade\r\nUpgrade: WS\r\n\r\nfirst");
        PUMP_UNTIL(loop, user.heads == 1);
        assert_int_equal(r->res.framing, FRAMING_TUNNEL);
        expect_body("first");
        assert_false(r->req_body.end);
        buf_puts(&r->req_body.data, STR("to server"));
        x.ops->req_ready(&x);
        EXPECT(&server, "to server");
        shutdown(server.fd, SHUT_WR);
        PUMP_UNTIL(loop, r->res_body.end);
        assert_int_equal(x.phase, EXCHANGE_BODY); /* half of it */
        buf_puts(&r->req_body.data, STR("still"));
        x.ops->req_ready(&x);
        EXPECT(&server, "still");
        unsigned before = user.readies;
        r->req_body.end = true;
        x.ops->req_ready(&x);
        assert_int_equal(x.phase, EXCHANGE_DONE);
        assert_int_equal(user.readies, before + 1);
        EXPECT_END(&server);
        assert_int_equal(pool.closed_why, REASON_TUNNEL_END);

        switch_protocols(); /* the client ends first */
        SEND(&server, "HTTP/1.1 101 Sw\r\nConnection: upgrade\r\nUpgrade: a\r\n\r\n");
        PUMP_UNTIL(loop, user.heads == 1);
        r->req_body.end = true;
        x.ops->req_ready(&x);
        EXPECT_END(&server);
        SEND(&server, "last words");
        shutdown(server.fd, SHUT_WR);
        PUMP_UNTIL(loop, x.phase == EXCHANGE_DONE);
        expect_body("last words");

        switch_protocols(); /* another protocol than asked for */
        SEND(&server, "HTTP/1.1 101 Sw\r\nConnection: upgrade\r\nUpgrade: b\r\n\r\n");
        PUMP_UNTIL(loop, user.failures == 1);
        assert_int_equal(user.why, REASON_UPSTREAM_SWITCH);

        switch_protocols(); /* none named */
        SEND(&server, "HTTP/1.1 101 Sw\r\n\r\n");
        PUMP_UNTIL(loop, user.failures == 1);
        assert_int_equal(user.why, REASON_UPSTREAM_SWITCH);

        switch_protocols(); /* declined: an ordinary response */
        SEND(&server, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno");
        PUMP_UNTIL(loop, user.heads == 1);
        expect_body("no");
        assert_int_equal(pool.released, 1);
}

static void aborting(void **state)
{
        (void)state;
        start();
        x.ops->abort(&x, REASON_CLIENT_GONE);
        assert_null(x.ops);
        assert_int_equal(pool.closed, 1);
        EXPECT_END(&server);
        assert_int_equal(user.failures, 0);
}

static void the_pool_keeps_a_link(void **state)
{
        (void)state;
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, begin_test, end_test)
        const struct CMUnitTest tests[] = {
                TEST(a_connection_carries_many_exchanges),
                TEST(any_cut_gives_the_same),
                TEST(connections_are_kept_or_not),
                TEST(bad_responses),
                TEST(heads_have_limits),
                TEST(interim_heads_are_told),
                TEST(bodies_go_out),
                TEST(expectations),
                TEST(early_answers),
                TEST(the_server_closes_an_idle_connection),
                TEST(a_kept_connection_turns_out_closed),
                TEST(timeouts),
                TEST(connects_fail),
                TEST(connects_time_out),
                TEST(back_pressure),
                TEST(small_pipes),
                TEST(tunnels),
                TEST(aborting),
                TEST(the_pool_keeps_a_link),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
