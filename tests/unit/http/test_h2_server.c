/*
 * HTTP/2 towards clients against a fake flow: nghttp2's own client on the other end of a socket,
 * turned by the same loop.  What a stream may cost, when flow hears of what, and what it hears not.
 */
#include "http/h2_server.c"

#include "peer.h"

#include "http/reply.h"

/* ---------------------------------------------------------------- a fake flow */

static struct {
        struct request *r; /* the last one */
        unsigned begun, readies, rooms, sent, gone;
        enum reason failed, gone_why, refused;
        bool hold_body, answer, tunnel;
        uint64_t body_max;
        size_t body, most_waiting;
} fake;

static void reply(struct request *r, int status, const char *body)
{
        reply_fill(r, status, REASON_RESPOND, str_z(body), STR_NONE);
        r->res_head_sent = true;
        r->client->head(r);
}

static void take(struct request *r)
{
        fake.most_waiting = MAX(fake.most_waiting, r->req_body.data.n);
        if (fake.hold_body)
                return;
        fake.body += r->req_body.data.n;
        buf_drain(&r->req_body.data, r->req_body.data.n);
        if (!r->req_body.end)
                r->client->req_room(r);
        else if (fake.answer && !r->res_head_sent)
                reply(r, 200, "fine\n");
}

static void fake_begin(struct request *r)
{
        fake.r = r;
        fake.begun++;
        fake.refused = r->refused;
        assert_true(r->client->facts(r)->serial != 0);
        assert_int_equal(r->req.version, 20);
        if (r->refused)
                reply(r, reason_rows[r->refused].status, "refused\n");
        else if (r->client->limits(r, SEC, SEC, fake.body_max))
                reply(r, 413, "too much\n");
        else
                take(r);
}

static void fake_ready(struct request *r)
{
        fake.readies++;
        take(r);
}

static void fake_failed(struct request *r, enum reason why)
{
        fake.failed = why;
        reply(r, reason_rows[why].status, "failed\n");
}

static void fake_room(struct request *r UNUSED)
{
        fake.rooms++;
}

static void fake_sent(struct request *r)
{
        assert_null(r->client);
        fake.sent++;
        request_drop(r);
}

static void fake_gone(struct request *r, enum reason why)
{
        assert_null(r->client);
        fake.gone++;
        fake.gone_why = why;
        request_drop(r);
}

static const struct flow_ops fake_flow = {fake_begin, fake_ready, fake_failed,
                                          fake_room,  fake_sent,  fake_gone};

/* ---------------------------------------------------------------- nghttp2's client */

static struct peer client;
static struct downstream_conf conf;
static nghttp2_session *cs;

static struct {
        int status;
        size_t body;
        unsigned closed, goaways, trailers;
        uint32_t code, goaway_code;
        int32_t goaway_last;
} got;

static int c_header(nghttp2_session *s UNUSED, const nghttp2_frame *f, const uint8_t *name,
                    size_t n, const uint8_t *value, size_t vn, uint8_t flags UNUSED,
                    void *arg UNUSED)
{
        if (n == 7 && memcmp(name, ":status", 7) == 0 && vn == 3)
                got.status = atoi((const char *)value);
        got.trailers += f->headers.cat == NGHTTP2_HCAT_HEADERS;
        return 0;
}

static int c_data(nghttp2_session *s UNUSED, uint8_t flags UNUSED, int32_t id UNUSED,
                  const uint8_t *p UNUSED, size_t n, void *arg UNUSED)
{
        got.body += n;
        return 0;
}

static int c_close(nghttp2_session *s UNUSED, int32_t id UNUSED, uint32_t code, void *arg UNUSED)
{
        got.closed++;
        got.code = code;
        return 0;
}

static int c_frame(nghttp2_session *s UNUSED, const nghttp2_frame *f, void *arg UNUSED)
{
        if (f->hd.type == NGHTTP2_GOAWAY) {
                got.goaways++;
                got.goaway_code = f->goaway.error_code;
                got.goaway_last = f->goaway.last_stream_id;
        }
        return 0;
}

static void client_start(uint32_t window)
{
        nghttp2_session_callbacks *c;
        nghttp2_settings_entry e = {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, window};
        assert_int_equal(nghttp2_session_callbacks_new(&c), 0);
        nghttp2_session_callbacks_set_on_header_callback(c, c_header);
        nghttp2_session_callbacks_set_on_data_chunk_recv_callback(c, c_data);
        nghttp2_session_callbacks_set_on_stream_close_callback(c, c_close);
        nghttp2_session_callbacks_set_on_frame_recv_callback(c, c_frame);
        assert_int_equal(nghttp2_session_client_new(&cs, c, NULL), 0);
        nghttp2_session_callbacks_del(c);
        assert_int_equal(nghttp2_submit_settings(cs, 0, &e, 1), 0);
}

/* What the client has to say goes out, what has come goes in, and the loop turns. */
static void turn(void)
{
        const uint8_t *p;
        ssize_t n;
        while ((n = nghttp2_session_mem_send(cs, &p)) > 0)
                peer_send(&client, str_of((const char *)p, (size_t)n));
        loop_turn(loop, false);
        peer_read(&client, SIZE_MAX);
        str s = peer_text(&client);
        if (s.n > 0)
                assert_int_equal(nghttp2_session_mem_recv(cs, (const uint8_t *)s.p, s.n), s.n);
        buf_clear(&client.got);
}

#define TURN_UNTIL(cond)                                                                           \
        do {                                                                                       \
                for (int i_ = 0; !(cond); i_++) {                                                  \
                        if (i_ > 5000)                                                             \
                                fail_msg("not within 5000 turns: %s", #cond);                      \
                        turn();                                                                    \
                        usleep(i_ > 100 ? 1000 : 0);                                               \
                }                                                                                  \
        } while (0)

static size_t to_send;

static ssize_t c_body(nghttp2_session *s UNUSED, int32_t id UNUSED, uint8_t *p, size_t most,
                      uint32_t *flags, nghttp2_data_source *src UNUSED, void *arg UNUSED)
{
        size_t n = MIN(most, to_send);
        memset(p, 'x', n);
        to_send -= n;
        if (to_send == 0)
                *flags |= NGHTTP2_DATA_FLAG_EOF;
        return (ssize_t)n;
}

#define NV(n, v)                                                                                   \
        {                                                                                          \
                (uint8_t *)(n), (uint8_t *)(v), sizeof(n) - 1, sizeof(v) - 1, 0                    \
        }

static int32_t ask(size_t body)
{
        const nghttp2_nv nv[] = {NV(":method", "POST"), NV(":scheme", "http"), NV(":path", "/p"),
                                 NV(":authority", "h")};
        nghttp2_data_provider data = {.read_callback = c_body};
        to_send = body;
        int32_t id = nghttp2_submit_request(cs, NULL, nv, COUNT(nv), body ? &data : NULL, NULL);
        assert_true(id > 0);
        return id;
}

/* ---------------------------------------------------------------- fixture */

static int begin_test(void **state)
{
        int fd[2];
        struct addr a = {.len = sizeof(struct sockaddr_in), .in = {.sin_family = AF_INET}};
        (void)state;
        loop = loop_new(0, NULL);
        loop_turn(loop, false);
        memset(&fake, 0, sizeof(fake));
        memset(&got, 0, sizeof(got));
        fake.answer = true;
        conf = (struct downstream_conf){
                .limits = {4096, 2048, 20},
                .h2_limits = {.max_streams = 10, .resets = 5, .pings = 3, .continuations = 4},
                .h2 = true,
                .head_us = 30 * SEC,
                .idle_us = 30 * SEC,
                .body_us = 30 * SEC,
                .send_us = 30 * SEC,
                .flow = &fake_flow,
                .name = "test",
        };
        tcp_pair(fd);
        client = (struct peer){.fd = fd[0]};
        downstream_accept(loop, fd[1], &a, &conf, NULL);
        client_start(65535);
        return 0;
}

static int end_test(void **state)
{
        (void)state;
        peer_close(&client);
        downstream_close_all(loop, REASON_SHUTDOWN);
        io_linger_end(loop);
        loop_turn(loop, false);
        assert_int_equal(fake.begun, fake.sent + fake.gone);
        assert_int_equal(codecs(loop)->streams.live, 0);
        assert_int_equal(codecs(loop)->servers.live, 0);
        codecs_end(loop);
        loop_free(loop);
        nghttp2_session_del(cs);
        io_thread_end();
        arena_thread_end();
        buf_thread_end();
        return 0;
}

/* ---------------------------------------------------------------- tests */

static void requests_are_answered(void **state)
{
        (void)state;
        for (unsigned i = 1; i <= 5; i++) {
                ask(i % 2 ? 0 : 100000);
                TURN_UNTIL(got.closed == i);
                assert_int_equal(got.status, 200);
                assert_int_equal(got.code, 0);
                assert_int_equal(fake.sent, i);
        }
        assert_int_equal(fake.body, 200000);
        assert_int_equal(got.body, 25);
        assert_int_equal(downstream_count(loop), 1);
}

/* A pipe that nobody empties takes its window and no more, and goes on when it is emptied. */
static void credit_is_what_left_the_pipe(void **state)
{
        (void)state;
        fake.hold_body = true;
        ask(1000000);
        TURN_UNTIL(fake.r && fake.r->req_body.data.n >= 65535);
        for (int i = 0; i < 50; i++)
                turn();
        assert_in_range(fake.r->req_body.data.n, 65535, PIPE_HIGH);
        fake.hold_body = false;
        take(fake.r);
        TURN_UNTIL(got.closed == 1);
        assert_int_equal(fake.body, 1000000);
        assert_true(fake.most_waiting <= PIPE_HIGH);
        assert_int_equal(got.status, 200);
}

/* Another stream is served while one is stuck. */
static void a_stuck_stream_stops_no_other(void **state)
{
        (void)state;
        fake.hold_body = true;
        ask(1000000);
        TURN_UNTIL(fake.r && fake.r->req_body.data.n >= 65535);
        fake.hold_body = false;
        ask(0);
        TURN_UNTIL(fake.sent == 1);
        assert_int_equal(got.status, 200);
}

static void bodies_of_responses_wait_and_go_on(void **state)
{
        (void)state;
        char bytes[1000];
        fake.answer = false;
        ask(0);
        TURN_UNTIL(fake.begun == 1);
        struct request *r = fake.r;
        r->res = (struct msg){.status = 200, .framing = FRAMING_CHUNKED};
        fields_add(r->arena, &r->res.trailers, FIELD_OTHER, STR("X-T"), STR("1"));
        r->client->head(r);
        TURN_UNTIL(got.status == 200);
        memset(bytes, 'y', sizeof(bytes));
        for (int i = 1; i <= 200; i++) {
                buf_put(&r->res_body.data, bytes, sizeof(bytes));
                r->res_body.stalled = pipe_full(&r->res_body);
                r->client->res_ready(r);
                if (i <= 60)
                        TURN_UNTIL(got.body == (size_t)i * 1000);
        }
        assert_int_equal(fake.sent, 0);
        r->res_body.end = true;
        r->client->res_ready(r);
        TURN_UNTIL(got.closed == 1);
        assert_int_equal(got.body, 200000);
        assert_int_equal(got.trailers, 1);
        assert_int_equal(fake.sent, 1);
        assert_true(fake.rooms > 0);
}

static void a_cut_and_a_short_body_are_resets(void **state)
{
        (void)state;
        fake.answer = false;
        for (unsigned i = 1; i <= 2; i++) {
                ask(0);
                TURN_UNTIL(fake.begun == i);
                struct request *r = fake.r;
                r->res = (struct msg){.status = 200, .framing = FRAMING_LENGTH, .length = 10};
                buf_puts(&r->res_body.data, STR("12345"));
                r->res_body.end = i == 2; /* five bytes too few */
                r->client->head(r);
                turn();
                if (i == 1) {
                        r->client->cut(r, REASON_UPSTREAM_RESET);
                        fake_gone(r, REASON_NONE);
                }
                TURN_UNTIL(got.closed == i);
                assert_int_equal(got.code, NGHTTP2_INTERNAL_ERROR);
        }
        assert_int_equal(fake.gone, 2);
        assert_int_equal(fake.gone_why, REASON_INTERNAL);
}

/* What is taken back in the same breath never costs more than its head. */
static void quick_resets_do_not_reach_flow(void **state)
{
        (void)state;
        turn();
        turn();
        for (int i = 0; i < 3; i++) {
                const uint8_t *p;
                ssize_t n;
                struct buf both = BUF_INIT;
                int32_t id = ask(0);
                while ((n = nghttp2_session_mem_send(cs, &p)) > 0)
                        buf_put(&both, p, (size_t)n);
                nghttp2_submit_rst_stream(cs, 0, id, NGHTTP2_CANCEL);
                while ((n = nghttp2_session_mem_send(cs, &p)) > 0)
                        buf_put(&both, p, (size_t)n);
                peer_send(&client, buf_pullup(&both, both.n));
                buf_clear(&both);
                turn();
        }
        assert_int_equal(fake.begun, 0);
        fake.answer = false;
        int32_t id = ask(0);
        TURN_UNTIL(fake.begun == 1);
        nghttp2_submit_rst_stream(cs, 0, id, NGHTTP2_CANCEL);
        TURN_UNTIL(fake.gone == 1);
        assert_int_equal(fake.gone_why, REASON_CLIENT_GONE);
        for (int i = 0; i < 2; i++) {
                id = ask(0);
                TURN_UNTIL(fake.begun == 2 + (unsigned)i);
                nghttp2_submit_rst_stream(cs, 0, id, NGHTTP2_CANCEL);
                turn();
        }
        TURN_UNTIL(got.goaways == 1);
        assert_int_equal(got.goaway_code, NGHTTP2_ENHANCE_YOUR_CALM);
        assert_int_equal(downstream_count(loop), 0);
}

static void pings_have_a_budget(void **state)
{
        (void)state;
        for (int i = 0; i < 4; i++)
                nghttp2_submit_ping(cs, 0, NULL);
        TURN_UNTIL(got.goaways == 1);
        assert_int_equal(got.goaway_code, NGHTTP2_ENHANCE_YOUR_CALM);
        assert_int_equal(downstream_count(loop), 0);
}

/* nghttp2's client would not do it, so it is written by hand. */
static void an_ended_stream_takes_no_more(void **state)
{
        static const char data[] = "\0\0\1\0\0\0\0\0\1x"; /* a byte on stream 1 */
        (void)state;
        assert_int_equal(ask(0), 1);
        TURN_UNTIL(got.closed == 1);
        peer_send(&client, str_of(data, sizeof(data) - 1));
        TURN_UNTIL(got.goaways == 1);
        assert_int_equal(got.goaway_code, NGHTTP2_STREAM_CLOSED);
        assert_int_equal(downstream_count(loop), 0);
}

static void drain_says_it_twice(void **state)
{
        (void)state;
        fake.answer = false;
        int32_t id = ask(0);
        TURN_UNTIL(fake.begun == 1);
        downstream_drain(loop, true);
        TURN_UNTIL(got.goaways == 2); /* the PING between them was answered */
        assert_int_equal(got.goaway_last, id);
        assert_int_equal(downstream_count(loop), 1);
        reply(fake.r, 200, "late\n");
        TURN_UNTIL(got.closed == 1);
        assert_int_equal(got.status, 200);
        TURN_UNTIL(downstream_count(loop) == 0);
        downstream_drain(loop, false);
}

static void too_much_body(void **state)
{
        (void)state;
        fake.body_max = 1000;
        ask(5000);
        TURN_UNTIL(got.closed == 1);
        assert_int_equal(got.status, 413);
        fake.hold_body = true; /* and the connection goes on */
        ask(0);
        fake.hold_body = false;
        TURN_UNTIL(got.closed == 2);
        assert_int_equal(got.status, 200);
}

static void the_client_goes(void **state)
{
        (void)state;
        fake.answer = false;
        ask(0);
        TURN_UNTIL(fake.begun == 1);
        peer_reset(&client);
        PUMP_UNTIL(loop, fake.gone == 1);
        assert_int_equal(fake.gone_why, REASON_CLIENT_GONE);
        PUMP_UNTIL(loop, downstream_count(loop) == 0);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, begin_test, end_test)
        const struct CMUnitTest tests[] = {
                TEST(requests_are_answered),
                TEST(credit_is_what_left_the_pipe),
                TEST(a_stuck_stream_stops_no_other),
                TEST(bodies_of_responses_wait_and_go_on),
                TEST(a_cut_and_a_short_body_are_resets),
                TEST(quick_resets_do_not_reach_flow),
                TEST(pings_have_a_budget),
                TEST(an_ended_stream_takes_no_more),
                TEST(drain_says_it_twice),
                TEST(too_much_body),
                TEST(the_client_goes),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
