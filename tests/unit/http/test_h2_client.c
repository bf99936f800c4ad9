/*
 * HTTP/2 towards servers against a session of nghttp2 in this process: many exchanges on one
 * connection, credit, what is given back, and what a connection is told when the server falls
 * silent.
 */
#include "http/h2_client.c"

#include "../base/unit.h"

#include "../net/pump.h"

#include <sys/socket.h>

#define MANY 8

static struct loop *loop;

/* ---------------------------------------------------------------- fake pool and flow */

static struct {
        struct client_conn *c;
        unsigned connects, released, closed;
        enum reason connect_why, closed_why;
        char error[100];
} pool;

static struct one {
        struct request *r;
        struct exchange x;
        struct msg sent;
        unsigned heads, readies, rooms, interims, failures;
        enum reason why;
        bool abort_at_head;
} one[MANY];

static void pool_connected(struct client_conn *c, enum reason why)
{
        pool.connects++;
        pool.connect_why = why;
        pool.c = why == REASON_NONE ? c : NULL;
        snprintf(pool.error, sizeof(pool.error), "%.*s", STR_ARG(client_error(c)));
}

static void pool_released(struct client_conn *c)
{
        pool.released++;
        if (c->busy == 0)
                client_idle(c, 60 * SEC);
}

static void pool_closed(struct client_conn *c UNUSED, enum reason why)
{
        pool.closed++;
        pool.closed_why = why;
        pool.c = NULL;
}

static const struct client_pool pool_calls = {pool_connected, pool_released, pool_closed};

static struct one *one_of(struct exchange *x)
{
        return CONTAINER_OF(x, struct one, x);
}

static void user_interim(struct exchange *x)
{
        one_of(x)->interims++;
}

static void user_head(struct exchange *x)
{
        struct one *o = one_of(x);
        o->heads++;
        if (o->abort_at_head && x->ops)
                x->ops->abort(x, REASON_CLIENT_GONE);
}

static void user_ready(struct exchange *x)
{
        one_of(x)->readies++;
}

static void user_room(struct exchange *x)
{
        one_of(x)->rooms++;
}

static void user_failed(struct exchange *x, enum reason why)
{
        assert_null(x->ops);
        one_of(x)->failures++;
        one_of(x)->why = why;
}

static const struct exchange_user user_calls = {user_interim, user_head, user_ready, user_room,
                                                user_failed};

/* ---------------------------------------------------------------- the server */

static struct {
        int listener, fd;
        struct addr at;
        nghttp2_session *session;
        unsigned requests, ended, resets, pings;
        int32_t last;
        uint32_t reset_code;
        size_t body;
        bool mute; /* reads nothing */
} server;

static int on_server_frame(nghttp2_session *s UNUSED, const nghttp2_frame *f, void *ctx UNUSED)
{
        if (f->hd.type == NGHTTP2_HEADERS && f->headers.cat == NGHTTP2_HCAT_REQUEST) {
                server.requests++;
                server.last = f->hd.stream_id;
        }
        if ((f->hd.type == NGHTTP2_HEADERS || f->hd.type == NGHTTP2_DATA) &&
            (f->hd.flags & NGHTTP2_FLAG_END_STREAM))
                server.ended++;
        if (f->hd.type == NGHTTP2_PING && !(f->hd.flags & NGHTTP2_FLAG_ACK))
                server.pings++;
        if (f->hd.type == NGHTTP2_RST_STREAM) {
                server.resets++;
                server.reset_code = f->rst_stream.error_code;
        }
        return 0;
}

static int on_server_data(nghttp2_session *s UNUSED, uint8_t flags UNUSED, int32_t id UNUSED,
                          const uint8_t *p UNUSED, size_t n, void *ctx UNUSED)
{
        server.body += n;
        return 0;
}

static void server_send(const uint8_t *p, size_t n)
{
        while (n > 0) {
                ssize_t k = send(server.fd, p, n, MSG_NOSIGNAL);
                if (k <= 0)
                        return;
                p += k;
                n -= (size_t)k;
        }
}

/* Takes what has come and says what is due; true, for use in conditions. */
static bool serve(void)
{
        static uint8_t bytes[65536];
        const uint8_t *p;
        ssize_t n;
        if (server.fd < 0 || server.mute)
                return true;
        while ((n = recv(server.fd, bytes, sizeof(bytes), MSG_DONTWAIT)) > 0)
                assert_int_equal(nghttp2_session_mem_recv(server.session, bytes, (size_t)n), n);
        while ((n = nghttp2_session_mem_send(server.session, &p)) > 0)
                server_send(p, (size_t)n);
        return true;
}

#define UNTIL(cond) PUMP_UNTIL(loop, serve() && (cond))

static void new_session(uint32_t streams)
{
        nghttp2_session_callbacks *calls;
        const nghttp2_settings_entry settings[] = {
                {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, streams}};
        nghttp2_session_callbacks_new(&calls);
        nghttp2_session_callbacks_set_on_frame_recv_callback(calls, on_server_frame);
        nghttp2_session_callbacks_set_on_data_chunk_recv_callback(calls, on_server_data);
        nghttp2_session_server_new(&server.session, calls, NULL);
        nghttp2_session_callbacks_del(calls);
        nghttp2_submit_settings(server.session, 0, settings, COUNT(settings));
}

static void say_settings(uint32_t streams)
{
        const nghttp2_settings_entry e = {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, streams};
        nghttp2_submit_settings(server.session, 0, &e, 1);
}

static void head(int32_t id, const char *status, bool end)
{
        nghttp2_nv nv = {(uint8_t *)(uintptr_t) ":status", (uint8_t *)(uintptr_t)status, 7,
                         strlen(status), 0};
        nghttp2_submit_headers(server.session, end ? NGHTTP2_FLAG_END_STREAM : 0, id, NULL, &nv, 1,
                               NULL);
}

static size_t to_send;

static ssize_t give(nghttp2_session *s UNUSED, int32_t id UNUSED, uint8_t *p, size_t n,
                    uint32_t *flags, nghttp2_data_source *source UNUSED, void *ctx UNUSED)
{
        n = MIN(n, to_send);
        memset(p, 'd', n);
        to_send -= n;
        if (to_send == 0)
                *flags |= NGHTTP2_DATA_FLAG_EOF;
        return (ssize_t)n;
}

static void data(int32_t id, size_t n)
{
        nghttp2_data_provider d = {.read_callback = give};
        to_send = n;
        nghttp2_submit_data(server.session, NGHTTP2_FLAG_END_STREAM, id, &d);
}

/* ---------------------------------------------------------------- fixture */

static const struct flow_ops no_flow;

static struct one *new_exchange(int i, enum method method)
{
        struct one *o = &one[i];
        if (o->r)
                request_drop(o->r);
        *o = (struct one){.r = request_new(loop, &no_flow, 0)};
        o->sent = (struct msg){.method = method,
                               .method_text = method == METHOD_POST ? STR("POST") : STR("GET"),
                               .target = STR("/t"),
                               .authority = STR("h")};
        o->r->req_body.end = true;
        o->x = (struct exchange){.magic = EXCHANGE_MAGIC,
                                 .r = o->r,
                                 .user = &user_calls,
                                 .req = &o->sent,
                                 .res = &o->r->res,
                                 .head_max = 4096,
                                 .line_max = 2048,
                                 .fields_max = 20};
        return o;
}

static void start(struct one *o)
{
        client_bind(pool.c, &o->x);
        o->x.ops->start(&o->x);
}

static struct one *started(int i)
{
        unsigned before = server.requests;
        struct one *o = new_exchange(i, METHOD_GET);
        start(o);
        UNTIL(server.requests > before);
        return o;
}

static struct h2_client *client(void)
{
        return client_of_conn(pool.c);
}

static void connect_server(uint32_t streams)
{
        enum reason why;
        assert_non_null(h2_client_connect(loop, &server.at, NULL, STR("h"), 10 * SEC, &pool_calls,
                                          &pool, &why));
        while (server.fd < 0) {
                loop_turn(loop, false);
                server.fd = accept4(server.listener, NULL, NULL, SOCK_CLOEXEC);
        }
        new_session(streams);
}

static int begin_test(void **state)
{
        (void)state;
        loop = loop_new(0, NULL);
        loop_turn(loop, false);
        memset(&pool, 0, sizeof(pool));
        memset(&server, 0, sizeof(server));
        server.fd = -1;
        server.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        server.at =
                (struct addr){.len = sizeof(server.at.in),
                              .in = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}}};
        assert_int_equal(bind(server.listener, &server.at.sa, server.at.len), 0);
        assert_int_equal(listen(server.listener, 5), 0);
        getsockname(server.listener, &server.at.sa, &server.at.len);
        connect_server(100);
        UNTIL(pool.connects == 1);
        assert_int_equal(pool.connect_why, REASON_NONE);
        assert_int_equal(pool.c->room, 100);
        return 0;
}

static int end_test(void **state)
{
        (void)state;
        for (int i = 0; i < MANY; i++) {
                if (one[i].x.ops)
                        one[i].x.ops->abort(&one[i].x, REASON_SHUTDOWN);
        }
        if (pool.c)
                client_close(pool.c, REASON_SHUTDOWN);
        loop_turn(loop, false);
        for (int i = 0; i < MANY; i++) {
                if (one[i].r)
                        request_drop(one[i].r);
                one[i] = (struct one){0};
        }
        nghttp2_session_del(server.session);
        if (server.fd >= 0)
                close(server.fd);
        close(server.listener);
        loop_turn(loop, false);
        h2_client_loop_end(loop); /* nothing is left */
        loop_free(loop);
        io_thread_end();
        arena_thread_end();
        buf_thread_end();
        return 0;
}

/* ---------------------------------------------------------------- many on one */

static void exchanges_share_a_connection(void **state)
{
        (void)state;
        struct one *a = started(0), *b = started(1);
        assert_int_equal(pool.c->busy, 2);
        assert_int_equal(pool.c->room, 98);
        assert_false(a->x.reused);
        assert_true(b->x.reused);
        head(3, "204", true); /* the second is answered first */
        UNTIL(b->heads == 1);
        assert_int_equal(b->x.phase, EXCHANGE_DONE);
        assert_int_equal(b->r->res.status, 204);
        assert_int_equal(a->heads, 0);
        assert_int_equal(pool.c->busy, 1);
        head(1, "200", false);
        UNTIL(a->heads == 1);
        data(1, 1000);
        UNTIL(a->x.phase == EXCHANGE_DONE);
        assert_int_equal(a->r->res_body.data.n, 1000);
        assert_true(a->r->res_body.end);
        assert_int_equal(pool.c->busy, 0);
        assert_int_equal(pool.c->room, 100);
        assert_true(pool.released >= 2);
}

static void the_server_changes_its_limit(void **state)
{
        (void)state;
        struct one *a = started(0);
        say_settings(1);
        UNTIL(pool.c->room == 0);
        say_settings(3);
        UNTIL(pool.c->room == 2);
        a->x.ops->abort(&a->x, REASON_CLIENT_GONE);
        UNTIL(server.resets == 1);
        assert_int_equal(server.reset_code, NGHTTP2_CANCEL);
        assert_int_equal(pool.c->room, 3);
        assert_int_equal(a->failures, 0);
}

static void a_server_that_takes_nothing_yet_is_not_connected(void **state)
{
        (void)state;
        client_close(pool.c, REASON_DONE);
        nghttp2_session_del(server.session);
        close(server.fd);
        server.fd = -1;
        connect_server(0);
        for (int i = 0; i < 20; i++) {
                serve();
                loop_turn(loop, false);
        }
        assert_int_equal(pool.connects, 1);
        say_settings(5);
        UNTIL(pool.connects == 2);
        assert_int_equal(pool.c->room, 5);
}

static void what_is_aborted_before_it_was_sent_is_not_seen(void **state)
{
        (void)state;
        struct one *a = new_exchange(0, METHOD_GET);
        start(a);
        a->x.ops->abort(&a->x, REASON_CLIENT_GONE);
        assert_int_equal(pool.c->busy, 0);
        struct one *b = started(1);
        assert_int_equal(server.requests, 1);
        head(server.last, "200", true);
        UNTIL(b->heads == 1);
        assert_int_equal(pool.c->room, 100);
}

static void an_exchange_may_end_in_its_head(void **state)
{
        (void)state;
        struct one *a = started(0), *b = started(1);
        a->abort_at_head = true;
        head(1, "200", false);
        head(3, "200", true);
        UNTIL(a->heads == 1 && b->heads == 1);
        UNTIL(server.resets == 1);
        assert_int_equal(a->failures, 0);
}

static void ids_run_out(void **state)
{
        (void)state;
        assert_int_equal(nghttp2_session_set_next_stream_id(client()->session, INT32_MAX - 2), 0);
        struct one *a = started(0);
        UNTIL(pool.c->room == 1);
        struct one *b = started(1);
        UNTIL(pool.c->room == 0);
        head(INT32_MAX - 2, "200", true);
        UNTIL(a->heads == 1);
        assert_int_equal(pool.closed, 0);
        head(INT32_MAX, "200", true);
        UNTIL(b->heads == 1);
        UNTIL(pool.closed == 1);
        assert_int_equal(b->failures, 0);
}

/* ---------------------------------------------------------------- credit */

static void a_pipe_bounds_its_stream_and_no_other(void **state)
{
        (void)state;
        struct one *a = started(0);
        head(1, "200", false);
        data(1, 300000);
        UNTIL(a->r->res_body.data.n == PIPE_HIGH);
        for (int i = 0; i < 20; i++) {
                serve();
                loop_turn(loop, false);
        }
        assert_int_equal(a->r->res_body.data.n, PIPE_HIGH);
        assert_true(a->r->res_body.stalled);
        struct one *b = started(1);
        head(3, "200", true);
        UNTIL(b->heads == 1);
        uint64_t got = 0;
        while (a->x.phase != EXCHANGE_DONE) {
                size_t n = MIN(a->r->res_body.data.n, 10000); /* bit by bit */
                buf_drain(&a->r->res_body.data, n);
                got += n;
                if (a->r->res_body.stalled && !pipe_full(&a->r->res_body))
                        a->x.ops->res_room(&a->x);
                assert_true(a->r->res_body.data.n <= PIPE_HIGH);
                serve();
                loop_turn(loop, false);
        }
        assert_int_equal(got + a->r->res_body.data.n, 300000);
}

static void a_buffered_response_may_be_larger_than_a_pipe(void **state)
{
        (void)state;
        struct one *a = started(0);
        a->r->res_body.high = 200000;
        head(1, "200", false);
        data(1, 150000);
        UNTIL(a->x.phase == EXCHANGE_DONE);
        assert_int_equal(a->r->res_body.data.n, 150000);
}

static void an_upload_waits_for_the_window(void **state)
{
        static char block[100000];
        (void)state;
        struct one *a = new_exchange(0, METHOD_POST);
        a->sent.framing = FRAMING_CHUNKED;
        a->r->req_body.end = false;
        start(a);
        assert_int_equal(a->rooms, 1);
        buf_put(&a->r->req_body.data, block, sizeof(block));
        a->r->req_body.stalled = true;
        a->x.ops->req_ready(&a->x);
        UNTIL(server.body == sizeof(block)); /* nghttp2 gives its window back by itself */
        assert_true(a->rooms > 1);
        assert_true(a->x.body_taken);
        a->r->req_body.end = true;
        a->x.ops->req_ready(&a->x);
        UNTIL(server.ended == 1);
        head(1, "200", true);
        UNTIL(a->heads == 1);
}

static void a_body_shorter_than_announced_ends_the_stream(void **state)
{
        (void)state;
        struct one *a = new_exchange(0, METHOD_POST);
        a->sent.framing = FRAMING_LENGTH;
        a->sent.length = 10;
        a->r->req_body.end = false;
        start(a);
        buf_put(&a->r->req_body.data, "abc", 3);
        a->r->req_body.end = true;
        a->x.ops->req_ready(&a->x);
        UNTIL(a->failures == 1);
        assert_int_equal(a->why, REASON_INTERNAL);
        UNTIL(server.resets == 1);
        assert_int_equal(server.ended, 0);
}

/* ---------------------------------------------------------------- given back */

static void what_is_given_back_has_its_body_again(void **state)
{
        (void)state;
        for (int large = 0; large < 2; large++) {
                static char block[H2_KEPT_MAX + 1];
                struct one *a = new_exchange(large, METHOD_POST);
                unsigned before = server.ended;
                size_t n = large ? H2_KEPT_MAX + 1 : H2_KEPT_MAX - 3;
                a->sent.framing = FRAMING_CHUNKED;
                buf_put(&a->r->req_body.data, block, n);
                start(a);
                UNTIL(server.ended > before);
                assert_true(a->x.body_taken);
                nghttp2_submit_rst_stream(server.session, 0, server.last, NGHTTP2_REFUSED_STREAM);
                UNTIL(a->failures == 1);
                assert_int_equal(a->why, REASON_UPSTREAM_REFUSED);
                assert_true(a->x.refused);
                assert_int_equal(a->x.body_taken, large);
                assert_int_equal(a->r->req_body.data.n, large ? 0 : n);
        }
}

static void a_goaway_gives_back_what_is_above_it(void **state)
{
        (void)state;
        struct one *a = started(0), *b = started(1), *d = new_exchange(2, METHOD_GET);
        nghttp2_submit_goaway(server.session, 0, 1, NGHTTP2_NO_ERROR, NULL, 0);
        serve();
        start(d); /* not sent when the GOAWAY comes, or above it */
        UNTIL(b->failures == 1 && d->failures == 1);
        assert_int_equal(b->why, REASON_UPSTREAM_REFUSED);
        assert_int_equal(d->why, REASON_UPSTREAM_REFUSED);
        assert_true(b->x.refused && d->x.refused);
        assert_int_equal(pool.c->room, 0);
        assert_int_equal(pool.closed, 0);
        head(1, "200", true);
        UNTIL(a->heads == 1);
        UNTIL(pool.closed == 1);
        assert_int_equal(pool.closed_why, REASON_SERVER_CLOSED);
}

static void a_dead_connection_tells_each_exchange(void **state)
{
        (void)state;
        struct one *a = started(0), *b = started(1);
        struct linger hard = {.l_onoff = 1};
        setsockopt(server.fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
        close(server.fd);
        server.fd = -1;
        UNTIL(a->failures == 1 && b->failures == 1);
        assert_int_equal(a->why, REASON_UPSTREAM_RESET);
        assert_false(b->x.refused);
        assert_int_equal(pool.closed, 1);
}

/* ---------------------------------------------------------------- silence */

static void a_busy_connection_is_asked_and_given_up(void **state)
{
        (void)state;
        struct one *a = started(0);
        loop_advance(loop, PING_AFTER + SEC);
        UNTIL(server.pings == 1);
        UNTIL(!client()->pinging); /* answered */
        loop_advance(loop, PING_AGAIN - 2 * PING_AFTER);
        serve();
        assert_int_equal(server.pings, 1); /* not more often than servers of gRPC bear */
        assert_int_equal(a->failures, 0);
        loop_advance(loop, 3 * PING_AFTER);
        loop_turn(loop, false);
        server.mute = true; /* a turn has set the clock back */
        loop_advance(loop, PING_AGAIN + 2 * PING_AFTER + PING_WAIT);
        assert_int_equal(a->failures, 1);
        assert_int_equal(a->why, REASON_UPSTREAM_PING);
        assert_int_equal(pool.closed, 1);
}

static void an_idle_connection_is_not_asked(void **state)
{
        (void)state;
        struct one *a = started(0);
        head(1, "200", true);
        UNTIL(a->heads == 1);
        loop_advance(loop, 59 * SEC);
        serve();
        assert_int_equal(server.pings, 0);
        assert_int_equal(pool.closed, 0);
        loop_advance(loop, 2 * SEC);
        assert_int_equal(pool.closed, 1);
        assert_int_equal(pool.closed_why, REASON_IDLE);
}

static void a_timeout_ends_the_stream_and_leaves_a_doubt(void **state)
{
        (void)state;
        struct one *a = new_exchange(0, METHOD_GET), *b = started(1);
        a->x.response_us = 100 * MSEC;
        loop_advance(loop, MSEC);
        start(a);
        UNTIL(server.requests == 2);
        loop_advance(loop, SEC);
        assert_int_equal(a->failures, 1);
        assert_int_equal(a->why, REASON_RESPONSE_TIMEOUT);
        UNTIL(server.resets == 1);
        assert_int_equal(pool.c->room, 0); /* nothing came since it was sent */
        head(1, "200", false);
        UNTIL(b->heads == 1);
        assert_int_equal(pool.c->room, 99);
}

static void it_is_closed_while_it_carries(void **state)
{
        (void)state;
        struct one *a = started(0);
        client_close(pool.c, REASON_SHUTDOWN);
        pool.c = NULL;
        assert_null(a->x.ops);
        assert_int_equal(a->failures, 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, begin_test, end_test)

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(exchanges_share_a_connection),
                TEST(the_server_changes_its_limit),
                TEST(a_server_that_takes_nothing_yet_is_not_connected),
                TEST(what_is_aborted_before_it_was_sent_is_not_seen),
                TEST(an_exchange_may_end_in_its_head),
                TEST(ids_run_out),
                TEST(a_pipe_bounds_its_stream_and_no_other),
                TEST(a_buffered_response_may_be_larger_than_a_pipe),
                TEST(an_upload_waits_for_the_window),
                TEST(a_body_shorter_than_announced_ends_the_stream),
                TEST(what_is_given_back_has_its_body_again),
                TEST(a_goaway_gives_back_what_is_above_it),
                TEST(a_dead_connection_tells_each_exchange),
                TEST(a_busy_connection_is_asked_and_given_up),
                TEST(an_idle_connection_is_not_asked),
                TEST(a_timeout_ends_the_stream_and_leaves_a_doubt),
                TEST(it_is_closed_while_it_carries),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
