/*
 * The requests of a client connection against a fake flow: framing in both directions, pipelining,
 * limits, timeouts, and every way a client can leave.
 */
#include "http/h1_stream.c"

#include "peer.h"

#include "http/reply.h"

/* ---------------------------------------------------------------- a fake flow */

/* What flow was told, and what it does at once. */
static struct {
        struct request *r; /* the current one, held by us */
        unsigned begun, readies, rooms, sent, gone;
        enum reason failed, gone_why, refused;
        char target[64];
        bool hold_body; /* do not take the body out of the pipe */
        bool answer;    /* answer as soon as the body is complete */
        bool no_ask;    /* do not ask for the body */
        uint64_t body_max;
        struct buf body;
} fake;

static void reply(struct request *r, int status, const char *body)
{
        reply_fill(r, status, REASON_RESPOND, str_z(body), STR_NONE);
        r->res_head_sent = true;
        r->client->head(r);
}

static void take(struct request *r)
{
        if (fake.hold_body)
                return;
        buf_move(&fake.body, &r->req_body.data, r->req_body.data.n);
        if (!r->req_body.end && (r->req_body.stalled || !fake.no_ask))
                r->client->req_room(r);
        if (r->req_body.end && fake.answer && r->client)
                reply(r, 200, "fine\n");
}

static void fake_begin(struct request *r)
{
        fake.r = r;
        fake.begun++;
        fake.refused = r->refused;
        snprintf(fake.target, sizeof(fake.target), "%.*s", STR_ARG(r->req.target));
        assert_true(r->client->facts(r)->serial != 0);
        if (r->refused != REASON_NONE) {
                reply(r, reason_rows[r->refused].status, "refused\n");
                return;
        }
        if (fake.body_max && r->client->limits(r, SEC, SEC, fake.body_max) != REASON_NONE) {
                fake.failed = REASON_BODY_MAX;
                reply(r, 413, "too much\n");
                return;
        }
        take(r);
}

static void fake_req_ready(struct request *r)
{
        fake.readies++;
        take(r);
}

static void fake_req_failed(struct request *r, enum reason why)
{
        fake.failed = why;
        if (!r->res_head_sent)
                reply(r, reason_rows[why].status, "failed\n");
        else
                r->client->cut(r, why);
}

static void fake_res_room(struct request *r UNUSED)
{
        fake.rooms++;
}

static void end_request(struct request *r)
{
        assert_null(r->client);
        fake.r = NULL;
        request_drop(r);
}

static void fake_res_sent(struct request *r)
{
        fake.sent++;
        end_request(r);
}

static void fake_gone(struct request *r, enum reason why)
{
        fake.gone++;
        fake.gone_why = why;
        end_request(r);
}

static const struct flow_ops fake_flow = {fake_begin,    fake_req_ready, fake_req_failed,
                                          fake_res_room, fake_res_sent,  fake_gone};

/* ---------------------------------------------------------------- fixture */

static struct downstream_conf conf;
static struct peer client;
static unsigned accepted;

static const struct downstream_conf *fake_refresh(struct loop *l UNUSED, void *listener)
{
        assert_ptr_equal(listener, &fake);
        return &conf;
}

static void connect_client(void)
{
        int fd[2];
        struct addr a = {.len = sizeof(struct sockaddr_in), .in = {.sin_family = AF_INET}};
        tcp_pair(fd);
        client = (struct peer){.fd = fd[0]};
        downstream_accept(loop, fd[1], &a, &conf, &fake);
        accepted++;
}

static int begin_test(void **state)
{
        (void)state;
        loop = loop_new(0, NULL);
        loop_turn(loop, false);
        memset(&fake, 0, sizeof(fake));
        fake.answer = true;
        conf = (struct downstream_conf){
                .limits = {4096, 2048, 20},
                .head_us = 30 * SEC,
                .idle_us = 30 * SEC,
                .body_us = 30 * SEC,
                .send_us = 30 * SEC,
                .request_memory = 1 << 20,
                .flow = &fake_flow,
                .name = "test",
                .refresh = fake_refresh,
        };
        accepted = closed_connections = 0;
        connect_client();
        return 0;
}

static int end_test(void **state)
{
        (void)state;
        peer_close(&client);
        downstream_close_all(loop, REASON_SHUTDOWN);
        assert_null(fake.r);
        buf_clear(&fake.body);
        io_linger_end(loop);
        loop_turn(loop, false);
        assert_int_equal(downstream_count(loop), 0);
        assert_int_equal(codecs(loop)->servers.live, 0);
        assert_int_equal(closed_connections, accepted);
        assert_int_equal(codecs_listener(loop, "test")->open, 0);
        codecs_end(loop);
        loop_free(loop);
        io_thread_end();
        arena_thread_end();
        buf_thread_end();
        return 0;
}

#define FINE "Content-Length: 5\r\n\r\nfine\n"

/* ---------------------------------------------------------------- tests */

static void requests_follow_one_another(void **state)
{
        (void)state;
        for (unsigned i = 1; i <= 3; i++) {
                SEND(&client, "GET /a HTTP/1.1\r\nHost: h\r\n\r\n");
                EXPECT(&client, "HTTP/1.1 200 OK\r\n");
                EXPECT(&client, FINE);
                PUMP_UNTIL(loop, fake.sent == i);
                assert_string_equal(fake.target, "/a");
        }
        struct h1_conn *c = CONTAINER_OF(codecs(loop)->connections.next, struct h1_conn, d.link);
        assert_int_equal(c->d.state, CONN_IDLE); /* and holds nothing */
        assert_null(c->d.io.in.first);
        assert_null(c->d.io.out.first);
        close(client.fd);
        client.fd = -1;
        PUMP_UNTIL(loop, downstream_count(loop) == 0);
        assert_int_equal(fake.gone, 0);
}

/* The same request however it is cut; and one byte at a time. */
static void any_cut_gives_the_same(void **state)
{
        static const char text[] =
                "POST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
                "5;x\r\nhello\r\n6\r\n world\r\n0\r\nX-T: 1\r\n\r\n";
        (void)state;
        for (size_t cut = 1; cut < sizeof(text); cut++) {
                peer_send(&client, str_of(text, cut));
                pump_turns(loop, 2);
                if (cut < sizeof(text) - 1)
                        peer_send(&client, str_of(text + cut, sizeof(text) - 1 - cut));
                EXPECT(&client, FINE);
                PUMP_UNTIL(loop, fake.sent == cut);
                assert_true(str_eq(buf_pullup(&fake.body, 11), STR("hello world")));
                assert_int_equal(fake.body.n, 11);
                buf_clear(&fake.body);
        }
        for (size_t i = 0; i < sizeof(text) - 1; i++) {
                peer_send(&client, str_of(text + i, 1));
                pump_turns(loop, 2);
        }
        EXPECT(&client, FINE);
        assert_int_equal(fake.body.n, 11);
        assert_int_equal(fake.failed, REASON_NONE);
}

static void trailers_and_length_are_told(void **state)
{
        (void)state;
        fake.answer = false;
        SEND(&client, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabcGET /next");
        PUMP_UNTIL(loop, fake.r && fake.r->req_body.end);
        assert_int_equal(fake.r->bytes_in, 3);
        assert_int_equal(fake.begun, 1);
        reply(fake.r, 200, "x");
        SEND(&client,
             " HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-T: 1\r\n\r\n");
        PUMP_UNTIL(loop, fake.begun == 2 && fake.r->req_body.end);
        assert_string_equal(fake.target, "/next");
        assert_non_null(fields_find(&fake.r->req.trailers, STR("x-t")));
        reply(fake.r, 200, "x");
}

static void pipelined_requests_wait_their_turn(void **state)
{
        (void)state;
        fake.answer = false;
        SEND(&client, "GET /1 HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\n"
                      "GET /3 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\nGET /4 HTTP/1.1\r\n");
        PUMP_UNTIL(loop, fake.begun == 1);
        pump_turns(loop, 5);
        assert_int_equal(fake.begun, 1);
        reply(fake.r, 200, "one");
        assert_int_equal(fake.begun, 1); /* never from inside flow */
        PUMP_UNTIL(loop, fake.begun == 2);
        reply(fake.r, 200, "two");
        PUMP_UNTIL(loop, fake.begun == 3);
        assert_string_equal(fake.target, "/3");
        reply(fake.r, 200, "three");
        EXPECT(&client, "one");
        EXPECT(&client, "two");
        EXPECT(&client, "Connection: close\r\n\r\nthree");
        EXPECT_END(&client);
        assert_int_equal(fake.begun, 3);

        /* Many, answered at once: no recursion, and in order. */
        peer_close(&client);
        connect_client();
        fake.answer = true;
        static char many[200 * 35];
        for (int i = 0; i < 200; i++)
                memcpy(many + i * 35, "GET /again HTTP/1.1\r\nHost: host\r\n\r\n", 35);
        peer_send(&client, str_of(many, sizeof(many)));
        PUMP_UNTIL(loop, fake.sent == 203);
}

static void input_behind_a_request_is_bounded(void **state)
{
        static char junk[1 << 20];
        (void)state;
        fake.answer = false;
        SEND(&client, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        PUMP_UNTIL(loop, fake.begun == 1);
        memset(junk, 'A', sizeof(junk));
        for (int i = 0; i < 50; i++) {
                if (send(client.fd, junk, sizeof(junk), MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
                        break;
                pump_turns(loop, 5);
        }
        struct h1_conn *c = CONTAINER_OF(codecs(loop)->connections.next, struct h1_conn, d.link);
        assert_true(c->d.io.in.n > 0 && c->d.io.in.n <= PIPELINED_MAX + BUF_CHUNK);
        reply(fake.r, 200, "x");
        PUMP_UNTIL(loop, fake.refused == REASON_HEADER_LINE);
}

static void versions_decide_on_keeping(void **state)
{
        (void)state;
        SEND(&client, "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        EXPECT(&client, "Connection: keep-alive\r\n\r\nfine\n");
        SEND(&client, "GET / HTTP/1.0\r\n\r\n");
        EXPECT(&client, "Connection: close\r\n\r\nfine\n");
        EXPECT_END(&client);
        assert_true(client.eof);
}

/* Bodies without a length are chunked for 1.1 and end with the connection for 1.0. */
static void stream(const char *request, bool chunked)
{
        fake.answer = false;
        unsigned begun = fake.begun;
        peer_send(&client, str_z(request));
        PUMP_UNTIL(loop, fake.begun == begun + 1);
        struct request *r = fake.r;
        r->res = (struct msg){.status = 200, .framing = FRAMING_CLOSE};
        fields_add(r->arena, &r->res.trailers, FIELD_OTHER, STR("X-T"), STR("1"));
        buf_puts(&r->res_body.data, STR("hello"));
        r->res_head_sent = true;
        r->client->head(r);
        EXPECT(&client, chunked ? "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
                                : "Connection: close\r\n\r\nhello");
        buf_puts(&r->res_body.data, STR("0123456789abcdef"));
        r->client->res_ready(r);
        EXPECT(&client, chunked ? "10\r\n0123456789abcdef\r\n" : "0123456789abcdef");
        r->res_body.end = true;
        r->client->res_ready(r);
        if (chunked)
                EXPECT(&client, "0\r\nX-T: 1\r\n\r\n");
        else
                EXPECT_END(&client);
        PUMP_UNTIL(loop, fake.r == NULL);
}

static void bodies_without_length(void **state)
{
        (void)state;
        stream("GET / HTTP/1.1\r\nHost: h\r\n\r\n", true);
        stream("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", false);
}

static void heads_alone(void **state)
{
        (void)state;
        SEND(&client, "HEAD / HTTP/1.1\r\nHost: h\r\n\r\n");
        EXPECT(&client, "Content-Length: 5\r\n\r\n");
        fake.answer = false;
        SEND(&client, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        PUMP_UNTIL(loop, fake.r != NULL);
        reply_fill(fake.r, 204, REASON_RESPOND, STR_NONE, STR_NONE);
        fake.r->client->head(fake.r);
        EXPECT(&client, "HTTP/1.1 204 No Content\r\n");
        SEND(&client, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        PUMP_UNTIL(loop, fake.r != NULL);
        struct request *r = fake.r; /* a server's 304 says how long the body would be */
        r->res = (struct msg){.status = 304, .framing = FRAMING_NONE, .length = 77};
        fields_add(r->arena, &r->res.fields, FIELD_CONTENT_LENGTH, STR("content-length"),
                   STR("77"));
        r->res_body.end = true;
        r->client->head(r);
        EXPECT(&client, "content-length: 77\r\n\r\n");
        assert_int_equal(client.got.n, 0);
        SEND(&client, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        PUMP_UNTIL(loop, fake.r != NULL);
        reply(fake.r, 200, "");
        EXPECT(&client, "Content-Length: 0\r\n\r\n");
        assert_int_equal(fake.sent, 4);
}

static void refused_heads_reach_flow(void **state)
{
        static const struct {
                const char *in;
                enum reason why;
                const char *out;
        } rows[] = {
                {"GET / HTTP/1.1\r\n\r\n", REASON_BAD_HOST, "HTTP/1.1 400 Bad Request\r\n"},
                {"GET / HTTP/3.0\r\n\r\n", REASON_VERSION, "HTTP/1.1 505 "},
                {"GET / HTTP/1.1\nHost: h\n\n", REASON_BAD_REQUEST_LINE, "HTTP/1.1 400 "},
                {"CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\n\r\n", REASON_METHOD, "HTTP/1.1 501 "},
                {"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n"
                 "\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n",
                 REASON_BAD_FRAMING, "HTTP/1.1 400 "},
                {"\x16\x03\x01\x02\n", REASON_BAD_REQUEST_LINE, "HTTP/1.1 400 "},
        };
        (void)state;
        for (size_t i = 0; i < COUNT(rows); i++) {
                peer_send(&client, str_z(rows[i].in));
                EXPECT(&client, rows[i].out);
                EXPECT(&client, "Connection: close\r\n\r\nrefused\n");
                EXPECT_END(&client);
                assert_int_equal(fake.refused, rows[i].why);
                assert_int_equal(fake.begun, i + 1);
                peer_close(&client);
                PUMP_UNTIL(loop, downstream_count(loop) == 0);
                connect_client();
        }
}

static void limits_have_their_status(void **state)
{
        static const struct {
                const char *first, *again;
                int times;
                enum reason why;
                const char *out;
                uint64_t limit;
        } rows[] = {
                {"GET /", "aaaaaaaaaaaaaaaa", 200, REASON_HEADER_LINE, "HTTP/1.1 414 ", 2048},
                {"GET /x HTTP/1.1\r\nA: ", "aaaaaaaaaaaaaaaa", 200, REASON_FIELD_LINE,
                 "HTTP/1.1 431 ", 2048},
                {"GET /x HTTP/1.1\r\n", "Aaaaaaaaaaa: b\r\n", 30, REASON_HEADER_FIELDS,
                 "HTTP/1.1 431 ", 20},
                {"GET /x HTTP/1.1\r\n",
                 "Abbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
                 "bbbbb"
                 "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
                 "bbbb"
                 "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
                 "bbbb"
                 ": b\r\n",
                 20, REASON_HEADER_MAX, "HTTP/1.1 431 ", 4096},
        };
        (void)state;
        for (size_t i = 0; i < COUNT(rows); i++) {
                peer_send(&client, str_z(rows[i].first));
                for (int n = 0; n < rows[i].times; n++)
                        peer_send(&client, str_z(rows[i].again));
                EXPECT(&client, rows[i].out);
                EXPECT_END(&client);
                assert_int_equal(fake.refused, rows[i].why);
                assert_string_equal(fake.target, i ? "/x" : "");
                peer_close(&client);
                PUMP_UNTIL(loop, downstream_count(loop) == 0);
                connect_client();
        }
}

static void body_limits(void **state)
{
        (void)state;
        fake.body_max = 10;
        SEND(&client, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 11\r\n\r\n");
        EXPECT(&client, "HTTP/1.1 413 ");
        EXPECT_END(&client);
        assert_int_equal(fake.failed, REASON_BODY_MAX);
        peer_close(&client);
        PUMP_UNTIL(loop, downstream_count(loop) == 0);

        connect_client();
        fake.failed = REASON_NONE;
        SEND(&client, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
        PUMP_UNTIL(loop, fake.begun == 2);
        SEND(&client, "a\r\n0123456789\r\n");
        PUMP_UNTIL(loop, fake.body.n == 10);
        assert_int_equal(fake.failed, REASON_NONE);
        SEND(&client, "1\r\nx");
        EXPECT(&client, "HTTP/1.1 413 ");
        EXPECT(&client, "failed\n");
        EXPECT_END(&client);
        assert_int_equal(fake.failed, REASON_BODY_MAX);
}

static void bad_bodies(void **state)
{
        static const struct {
                const char *body;
                enum reason why;
        } rows[] = {
                {"5\r\nhelloX", REASON_BAD_CHUNK},
                {"x\r\n", REASON_BAD_CHUNK},
                {"0\r\nContent-Length: 5\r\n\r\n", REASON_BAD_TRAILER},
                {"0\r\nA : b\r\n\r\n", REASON_BAD_TRAILER},
                {"0\r\nA: b\n\r\n", REASON_BAD_TRAILER},
                {"5\r\nhel", REASON_BAD_BODY}, /* and then FIN */
        };
        (void)state;
        for (size_t i = 0; i < COUNT(rows); i++)
                for (int together = 0; together < 2; together++) {
                        fake.failed = REASON_NONE;
                        SEND(&client,
                             "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
                        if (!together)
                                pump_turns(loop, 3);
                        peer_send(&client, str_z(rows[i].body));
                        if (rows[i].why == REASON_BAD_BODY)
                                shutdown(client.fd, SHUT_WR);
                        EXPECT(&client, "HTTP/1.1 400 ");
                        EXPECT(&client, "failed\n");
                        EXPECT_END(&client);
                        assert_int_equal(fake.failed, rows[i].why);
                        peer_close(&client);
                        PUMP_UNTIL(loop, downstream_count(loop) == 0);
                        connect_client();
                }
}

static void continue_is_said_when_the_body_is_wanted(void **state)
{
        (void)state;
        fake.no_ask = true;
        SEND(&client,
             "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
        PUMP_UNTIL(loop, fake.begun == 1);
        pump_turns(loop, 5);
        assert_false(peer_has(&client, "100"));
        fake.r->client->req_room(fake.r);
        EXPECT(&client, "HTTP/1.1 100 Continue\r\n\r\n");
        fake.r->client->req_room(fake.r);
        SEND(&client, "abc");
        EXPECT(&client, "HTTP/1.1 200 OK\r\n");
        EXPECT(&client, FINE);
        assert_int_equal(client.got.n, 0);
        /* Not when there is a final answer already: then the body never comes. */
        SEND(&client,
             "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
        PUMP_UNTIL(loop, fake.begun == 2);
        reply(fake.r, 417, "no");
        EXPECT(&client, "HTTP/1.1 417 ");
        EXPECT(&client, "Connection: close\r\n\r\nno");
        EXPECT_END(&client);
}

static void a_body_that_came_needs_no_continue(void **state)
{
        (void)state;
        SEND(&client,
             "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc");
        EXPECT(&client, FINE);
        assert_int_equal(fake.begun, 1);
        SEND(&client, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        EXPECT(&client, "HTTP/1.1 200");
        assert_int_equal(str_find(peer_text(&client), STR("100 Continue")), -1);
}

static void interim_heads_pass(void **state)
{
        (void)state;
        fake.answer = false;
        struct msg hints = {.status = 103};
        SEND(&client, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        PUMP_UNTIL(loop, fake.begun == 1);
        fake.r->client->interim(fake.r, &hints);
        EXPECT(&client, "HTTP/1.1 103 Early Hints\r\n\r\n");
        reply(fake.r, 200, "x");
        SEND(&client, "GET / HTTP/1.0\r\n\r\n");
        PUMP_UNTIL(loop, fake.begun == 2);
        fake.r->client->interim(fake.r, &hints);
        reply(fake.r, 200, "last");
        EXPECT(&client, "last");
        assert_int_equal(str_find(peer_text(&client), STR("103")), -1);
}

/* The answer comes while the body is still being sent: it reaches the client all the same. */
static void early_answers_arrive(void **state)
{
        static char junk[65536];
        (void)state;
        fake.hold_body = true;
        SEND(&client, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10000000\r\n\r\n");
        for (int i = 0; i < 200 && send(client.fd, junk, sizeof(junk), MSG_DONTWAIT) > 0; i++)
                loop_turn(loop, false);
        PUMP_UNTIL(loop, fake.r && pipe_full(&fake.r->req_body));
        assert_true(fake.r->req_body.stalled);
        assert_true(buf_held(&fake.r->req_body.data) <= 2 * PIPE_HIGH);
        reply(fake.r, 401, "who are you");
        PUMP_UNTIL(loop, fake.sent == 1);
        for (int i = 0; i < 10; i++) { /* still sending */
                (void)!send(client.fd, junk, 1000, MSG_DONTWAIT | MSG_NOSIGNAL);
                loop_turn(loop, false);
        }
        EXPECT(&client, "HTTP/1.1 401 ");
        EXPECT(&client, "who are you");
        EXPECT_END(&client);
        assert_true(client.eof);
}

static void half_closed_is_not_gone(void **state)
{
        (void)state;
        fake.answer = false;
        SEND(&client, "GET /1 HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\n");
        shutdown(client.fd, SHUT_WR);
        PUMP_UNTIL(loop, fake.begun == 1);
        pump_turns(loop, 5);
        assert_int_equal(fake.gone, 0);
        reply(fake.r, 200, "one");
        PUMP_UNTIL(loop, fake.begun == 2);
        reply(fake.r, 200, "two");
        EXPECT(&client, "one");
        EXPECT(&client, "two");
        EXPECT_END(&client);
        assert_true(client.eof);
}

static void a_reset_is_gone(void **state)
{
        (void)state;
        fake.answer = false;
        SEND(&client, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        PUMP_UNTIL(loop, fake.begun == 1);
        peer_reset(&client);
        PUMP_UNTIL(loop, fake.gone == 1);
        assert_int_equal(fake.gone_why, REASON_CLIENT_GONE);

        connect_client();
        SEND(&client, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc");
        PUMP_UNTIL(loop, fake.begun == 2);
        peer_reset(&client);
        PUMP_UNTIL(loop, fake.gone == 2);

        connect_client(); /* after a half-close too */
        SEND(&client, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        shutdown(client.fd, SHUT_WR);
        PUMP_UNTIL(loop, fake.begun == 3);
        pump_turns(loop, 3);
        peer_reset(&client);
        PUMP_UNTIL(loop, fake.gone == 3);
        connect_client();
        SEND(&client, "GET / HT");
        pump_turns(loop, 3);
        peer_reset(&client);
        PUMP_UNTIL(loop, downstream_count(loop) == 0);
        assert_int_equal(fake.begun, 3);
}

/* A large body to a reader that takes little: bounded memory, and room is said as it drains. */
static void a_slow_reader_costs_little(void **state)
{
        static char block[8192];
        const uint64_t size = 64 * MIB;
        uint64_t made = 0;
        size_t most = 0;
        (void)state;
        fake.answer = false;
        SEND(&client, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        PUMP_UNTIL(loop, fake.begun == 1);
        struct request *r = fake.r;
        struct h1_conn *c = r->client_ctx;
        r->res = (struct msg){.status = 200, .framing = FRAMING_LENGTH, .length = size};
        r->client->head(r);
        client.discard = true;
        int64_t until = loop->now + 60 * SEC;
        while (fake.r && loop->now < until) {
                while (made < size && !pipe_full(&r->res_body)) {
                        buf_put(&r->res_body.data, block, sizeof(block));
                        made += sizeof(block);
                }
                r->res_body.end = made == size;
                r->res_body.stalled = !r->res_body.end;
                unsigned rooms = fake.rooms;
                most = MAX(most, buf_held(&r->res_body.data) + buf_held(&c->d.io.out));
                r->client->res_ready(r);
                while (fake.r && fake.rooms == rooms) {
                        peer_read(&client, 300000);
                        loop_turn(loop, false);
                }
        }
        assert_int_equal(fake.sent, 1);
        peer_read(&client, SIZE_MAX);
        PUMP_UNTIL(loop, (peer_read(&client, SIZE_MAX), client.total >= size));
        assert_true(most < 512 * KIB);
}

static void cut_responses_look_cut(void **state)
{
        (void)state;
        for (int version = 10; version <= 11; version++) {
                fake.answer = false;
                unsigned begun = fake.begun;
                if (version == 10)
                        SEND(&client, "GET / HTTP/1.0\r\n\r\n");
                else
                        SEND(&client, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
                PUMP_UNTIL(loop, fake.begun == begun + 1);
                struct request *r = fake.r;
                r->res = (struct msg){.status = 200, .framing = FRAMING_CHUNKED};
                buf_puts(&r->res_body.data, STR("half"));
                r->client->head(r);
                EXPECT(&client, "half");
                r->client->cut(r, REASON_UPSTREAM_RESET);
                end_request(r);
                EXPECT_END(&client);
                assert_int_equal(str_find(peer_text(&client), STR("0\r\n")), -1);
                assert_int_equal(client.reset, version == 10); /* no chunks: only a reset tells */
                peer_close(&client);
                connect_client();
        }
}

/* A response with fewer bytes than announced ends the connection, one with more is cut to size. */
static void announced_length_is_kept(void **state)
{
        (void)state;
        fake.answer = false;
        SEND(&client, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        PUMP_UNTIL(loop, fake.begun == 1);
        fake.r->res = (struct msg){.status = 200, .framing = FRAMING_LENGTH, .length = 4};
        buf_puts(&fake.r->res_body.data, STR("too long"));
        fake.r->res_body.end = true;
        fake.r->client->head(fake.r);
        EXPECT(&client, "too ");
        EXPECT_END(&client);
        assert_int_equal(client.got.n, 0);
        peer_close(&client);
        connect_client();
        SEND(&client, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        PUMP_UNTIL(loop, fake.begun == 2);
        fake.r->res = (struct msg){.status = 200, .framing = FRAMING_LENGTH, .length = 40};
        buf_puts(&fake.r->res_body.data, STR("short"));
        fake.r->res_body.end = true;
        fake.r->client->head(fake.r);
        EXPECT(&client, "short");
        EXPECT_END(&client);
}

static void tunnels(void **state)
{
        (void)state;
        fake.answer = false;
        SEND(&client,
             "GET /ws HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: ws\r\n\r\nearly");
        PUMP_UNTIL(loop, fake.begun == 1);
        struct request *r = fake.r;
        assert_true(str_eq(r->req.upgrade, STR("ws")));
        r->res = (struct msg){.status = 101, .framing = FRAMING_TUNNEL, .upgrade = STR("ws")};
        r->tunnel = true;
        r->client->head(r);
        EXPECT(&client, "Connection: upgrade\r\nUpgrade: ws\r\n\r\n");
        PUMP_UNTIL(loop, fake.body.n == 5);
        SEND(&client, "raw\r\n\r\n");
        PUMP_UNTIL(loop, fake.body.n == 12);
        buf_puts(&r->res_body.data, STR("back"));
        r->client->res_ready(r);
        EXPECT(&client, "back");
        shutdown(client.fd, SHUT_WR); /* our direction ends, the other goes on */
        PUMP_UNTIL(loop, r->req_body.end);
        buf_puts(&r->res_body.data, STR("more"));
        r->client->res_ready(r);
        EXPECT(&client, "more");
        assert_int_equal(fake.sent, 0);
        r->res_body.end = true;
        r->client->res_ready(r);
        EXPECT_END(&client);
        assert_true(client.eof);
        assert_int_equal(fake.sent, 1);

        /* And the other way round. */
        peer_close(&client);
        connect_client();
        SEND(&client, "GET /ws HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: ws\r\n\r\n");
        PUMP_UNTIL(loop, fake.begun == 2);
        r = fake.r;
        r->res = (struct msg){.status = 101, .framing = FRAMING_TUNNEL, .upgrade = STR("ws")};
        r->tunnel = true;
        r->client->head(r);
        buf_puts(&r->res_body.data, STR("bye"));
        r->res_body.end = true;
        r->client->res_ready(r);
        EXPECT(&client, "bye");
        EXPECT_END(&client);
        assert_int_equal(fake.sent, 1);
        SEND(&client, "still");
        PUMP_UNTIL(loop, fake.body.n == 12 + 5);
        shutdown(client.fd, SHUT_WR);
        PUMP_UNTIL(loop, fake.sent == 2);
}

static void timeouts(void **state)
{
        (void)state;
        /* Nothing at all comes. */
        conf.head_us = 50 * MSEC;
        peer_close(&client);
        PUMP_UNTIL(loop, downstream_count(loop) == 0);
        connect_client();
        EXPECT_END(&client);
        assert_int_equal(fake.begun, 0);
        assert_int_equal(client.total, 0);
        peer_close(&client);
        /* The head drips. */
        connect_client();
        SEND(&client, "GET / HTTP/1.1\r\n");
        struct deadline tick = {0};
        for (int i = 0; i < 1000 && !peer_ended(&client); i++) {
                (void)!send(client.fd, "A", 1, MSG_NOSIGNAL);
                deadline_set(loop, &tick, 5 * MSEC, pump_nothing);
                loop_turn(loop, true);
        }
        deadline_clear(&tick);
        EXPECT(&client, "HTTP/1.1 408 Request Timeout\r\n");
        assert_int_equal(fake.refused, REASON_CLIENT_HEAD);
        assert_string_equal(fake.target, "/");
        peer_close(&client);
        /* The body stalls. */
        conf.head_us = 10 * SEC;
        conf.body_us = 50 * MSEC;
        connect_client();
        SEND(&client, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc");
        EXPECT(&client, "HTTP/1.1 408 ");
        EXPECT_END(&client);
        assert_int_equal(fake.failed, REASON_CLIENT_BODY);
        peer_close(&client);
        /* No next request. */
        conf.idle_us = 50 * MSEC;
        connect_client();
        SEND(&client, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        EXPECT(&client, FINE);
        EXPECT_END(&client);
        assert_int_equal(fake.gone, 0);
        peer_close(&client);
        PUMP_UNTIL(loop, downstream_count(loop) == 0);
}

/* The client takes nothing; but as long as it takes a little, it is waited for. */
static void a_reader_that_stops_is_given_up(void **state)
{
        static char block[65536];
        (void)state;
        fake.answer = false;
        conf.send_us = 100 * MSEC;
        SEND(&client, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        PUMP_UNTIL(loop, fake.begun == 1);
        struct request *r = fake.r;
        struct h1_conn *c = r->client_ctx;
        r->res = (struct msg){.status = 200, .framing = FRAMING_LENGTH, .length = 1024 * MIB};
        r->client->head(r);
        while (!c->d.io.writing) {
                buf_put(&r->res_body.data, block, sizeof(block));
                r->client->res_ready(r);
        }
        PUMP_UNTIL(loop, fake.gone == 1);
        assert_int_equal(fake.gone_why, REASON_CLIENT_SEND);
}

static void draining(void **state)
{
        struct peer idle;
        (void)state;
        fake.answer = false;
        SEND(&client, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        PUMP_UNTIL(loop, fake.begun == 1);
        reply(fake.r, 200, "x");
        EXPECT(&client, "\r\n\r\nx");
        idle = client;
        connect_client();
        SEND(&client, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        PUMP_UNTIL(loop, fake.begun == 2);
        downstream_drain(loop, true);
        EXPECT_END(&idle);
        reply(fake.r, 200, "y");
        EXPECT(&client, "Connection: close\r\n\r\ny");
        EXPECT_END(&client);
        assert_int_equal(downstream_drain(loop, false), 0);
        peer_close(&idle);
        peer_close(&client);
        connect_client();
        fake.answer = true;
        SEND(&client, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        EXPECT(&client, FINE);
        PUMP_UNTIL(loop, fake.sent == 3);
        assert_int_equal(downstream_count(loop), 1);
}

static void close_all_ends_requests(void **state)
{
        (void)state;
        fake.answer = false;
        SEND(&client, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        PUMP_UNTIL(loop, fake.begun == 1);
        downstream_close_all(loop, REASON_SHUTDOWN);
        assert_int_equal(fake.gone, 1);
        assert_int_equal(fake.gone_why, REASON_SHUTDOWN);
}

static void facts(void **state)
{
        (void)state;
        fake.answer = false;
        SEND(&client, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        PUMP_UNTIL(loop, fake.begun == 1);
        const struct client_facts *f = fake.r->client->facts(fake.r);
        assert_ptr_equal(f, fake.r->client->facts(fake.r));
        assert_int_equal(f->peer.len, sizeof(struct sockaddr_in));
        assert_int_equal(f->local.len, sizeof(struct sockaddr_in));
        assert_int_equal(f->local.in.sin_addr.s_addr, htonl(INADDR_LOOPBACK));
        assert_null(fake.r->tls);
        assert_ptr_equal(f->listener, &fake);
        reply(fake.r, 200, "x");
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, begin_test, end_test)
        const struct CMUnitTest tests[] = {
                TEST(requests_follow_one_another),
                TEST(any_cut_gives_the_same),
                TEST(trailers_and_length_are_told),
                TEST(pipelined_requests_wait_their_turn),
                TEST(input_behind_a_request_is_bounded),
                TEST(versions_decide_on_keeping),
                TEST(bodies_without_length),
                TEST(heads_alone),
                TEST(refused_heads_reach_flow),
                TEST(limits_have_their_status),
                TEST(body_limits),
                TEST(bad_bodies),
                TEST(continue_is_said_when_the_body_is_wanted),
                TEST(a_body_that_came_needs_no_continue),
                TEST(interim_heads_pass),
                TEST(early_answers_arrive),
                TEST(half_closed_is_not_gone),
                TEST(a_reset_is_gone),
                TEST(a_slow_reader_costs_little),
                TEST(cut_responses_look_cut),
                TEST(announced_length_is_kept),
                TEST(tunnels),
                TEST(timeouts),
                TEST(a_reader_that_stops_is_given_up),
                TEST(draining),
                TEST(close_all_ends_requests),
                TEST(facts),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
