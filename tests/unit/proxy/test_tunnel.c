/* Tunnels that are silent: when a PING goes to whom, who is given up, and who is counted. */
#include "proxy/tunnel.c"

#include "../base/unit.h"

static struct metric_region *region;
static struct loop *loop;
static struct txn t;
static struct settings eff;
static struct tunnel *n;
static unsigned ready[2], idle;

static void is_ready(struct txn *which, enum tunnel_side to)
{
        assert_ptr_equal(which, &t);
        ready[to]++;
}

static void is_idle(struct txn *which)
{
        assert_ptr_equal(which, &t);
        idle++;
}

static const struct tunnel_user user = {is_ready, is_idle};

static int begin(void **state)
{
        (void)state;
        region = metric_region_new(1, MIB);
        metric_slot_begin(metric_slot(region, 0));
        loop = loop_new(0, metric_slot(region, 0));
        return 0;
}

static int end(void **state)
{
        (void)state;
        loop_free(loop);
        metric_region_free(region);
        buf_thread_end();
        arena_thread_end();
        return 0;
}

static void open_tunnel(const char *upgrade, int64_t idle_us, int64_t ping_us)
{
        eff = (struct settings){.tunnel = idle_us, .websocket_ping = ping_us};
        t = (struct txn){.r = request_new(loop, NULL, 0), .eff = &eff};
        t.r->req.version = 11;
        t.r->res.upgrade = str_z(upgrade);
        ready[0] = ready[1] = idle = 0;
        n = tunnel_begin(&t, &user);
}

static void close_tunnel(void)
{
        tunnel_end(n);
        request_drop(t.r);
}

static void say(enum tunnel_side from, str bytes)
{
        pipe_put(pipe_to(n, from == TUNNEL_CLIENT ? TUNNEL_SERVER : TUNNEL_CLIENT), bytes);
        tunnel_heard(n, from);
}

/* What the side has been sent; empty afterwards. */
static size_t sent_to(enum tunnel_side side)
{
        struct pipe *p = pipe_to(n, side);
        size_t bytes = p->data.n;

        buf_clear(&p->data);
        return bytes;
}

/* As a peer does: the last PING that went to it is answered. */
static void pong(enum tunnel_side from)
{
        char frame[2 + WEBSOCKET_MARK] = "\x8a\x08";

        memcpy(frame + 2, n->side[from].frames.mark, WEBSOCKET_MARK);
        say(from, str_of(frame, sizeof(frame)));
}

static uint64_t shown(unsigned family, const char *labels)
{
        return metric_sum(region, family, str_z(labels));
}

static void silence_ends_a_tunnel(void **state)
{
        (void)state;
        open_tunnel("other", SEC, 100 * MSEC); /* no WebSocket: no PING */
        loop_advance(loop, 900 * MSEC);
        say(TUNNEL_CLIENT, STR("x"));
        loop_advance(loop, 900 * MSEC);
        say(TUNNEL_SERVER, STR("x"));
        loop_advance(loop, 900 * MSEC);
        assert_int_equal(idle, 0);
        assert_int_equal(shown(METRIC_TUNNELS, "upgrade=\"other\",protocol=\"http/1.1\""), 1);
        loop_advance(loop, 200 * MSEC);
        assert_int_equal(idle, 1);
        assert_int_equal(sent_to(TUNNEL_CLIENT) + sent_to(TUNNEL_SERVER), 2);
        close_tunnel();
        assert_int_equal(shown(METRIC_TUNNELS, "upgrade=\"other\",protocol=\"http/1.1\""), 0);
        assert_int_equal(shown(METRIC_TUNNELS_IDLE, "upgrade=\"other\",protocol=\"http/1.1\""), 1);

        open_tunnel("websocket", 0, 0);
        loop_advance(loop, 3600 * SEC);
        assert_int_equal(idle, 0);
        close_tunnel();
}

static void pongs_keep_it_open(void **state)
{
        (void)state;
        open_tunnel("WebSocket", SEC, 400 * MSEC);
        for (int i = 0; i < 20; i++) {
                loop_advance(loop, 500 * MSEC);
                assert_int_equal(sent_to(TUNNEL_CLIENT), 10);
                assert_int_equal(sent_to(TUNNEL_SERVER), 14);
                pong(TUNNEL_CLIENT);
                pong(TUNNEL_SERVER);
        }
        assert_int_equal(idle, 0);
        assert_int_equal(ready[TUNNEL_CLIENT], 20);
        assert_int_equal(ready[TUNNEL_SERVER], 20);
        assert_int_equal(sent_to(TUNNEL_CLIENT) + sent_to(TUNNEL_SERVER), 0); /* PONGs stay here */
        loop_advance(loop, 1300 * MSEC);
        assert_true(idle > 0);
        close_tunnel();
}

static void one_dead_end_is_enough(void **state)
{
        (void)state;
        for (enum tunnel_side dead = TUNNEL_CLIENT; dead <= TUNNEL_SERVER; dead++) {
                open_tunnel("websocket", SEC, 400 * MSEC);
                for (int i = 0; i < 30 && idle == 0; i++) {
                        loop_advance(loop, 50 * MSEC);
                        say(!dead, STR("\x81\x01x"));
                }
                assert_int_equal(idle, 1);
                assert_int_equal(ready[!dead], 0); /* who speaks is not asked */
                close_tunnel();
        }
}

static void who_cannot_be_asked_is_not_given_up(void **state)
{
        (void)state;
        open_tunnel("websocket", SEC, 400 * MSEC);
        say(TUNNEL_SERVER, STR("\x82\x7e\x01\x00")); /* 256 bytes, one each 50 ms */
        for (int i = 0; i < 256; i++) {
                loop_advance(loop, 50 * MSEC);
                assert_int_equal(idle, 0);
                say(TUNNEL_SERVER, STR("x"));
        }
        assert_int_equal(sent_to(TUNNEL_CLIENT), 4 + 256 + 10); /* the PING behind the frame */
        for (int i = 0; i < 10; i++) {
                loop_advance(loop, 50 * MSEC);
                say(TUNNEL_SERVER, STR("\x81\x01x"));
        }
        assert_int_equal(idle, 0); /* it has had it for half a second only */
        for (int i = 0; i < 10; i++) {
                loop_advance(loop, 50 * MSEC);
                say(TUNNEL_SERVER, STR("\x81\x01x"));
        }
        assert_true(idle > 0);
        close_tunnel();
}

static void a_ping_that_waits_is_called_off_by_life(void **state)
{
        (void)state;
        open_tunnel("websocket", 10 * SEC, 400 * MSEC);
        say(TUNNEL_SERVER, STR("\x82\x02x"));
        loop_advance(loop, 600 * MSEC);
        assert_true(n->side[TUNNEL_CLIENT].frames.due);
        say(TUNNEL_CLIENT, STR("\x82\x80"
                               "abcd"));
        loop_advance(loop, 200 * MSEC);
        say(TUNNEL_SERVER, STR("y"));
        assert_int_equal(sent_to(TUNNEL_CLIENT), 4);
        close_tunnel();
}

/* A half-closed end can answer nothing. */
static void no_ping_once_an_end_has_finished(void **state)
{
        (void)state;
        open_tunnel("websocket", SEC, 400 * MSEC);
        t.r->req_body.end = true;
        loop_advance(loop, 900 * MSEC);
        assert_int_equal(sent_to(TUNNEL_CLIENT) + sent_to(TUNNEL_SERVER), 0);
        loop_advance(loop, 400 * MSEC);
        assert_true(idle > 0);
        close_tunnel();

        open_tunnel("websocket", SEC, 400 * MSEC);
        say(TUNNEL_SERVER, STR("\x88\x02\x03\xe8"));
        loop_advance(loop, 900 * MSEC);
        assert_int_equal(sent_to(TUNNEL_CLIENT), 4);
        assert_int_equal(sent_to(TUNNEL_SERVER), 0);
        loop_advance(loop, 400 * MSEC);
        assert_true(idle > 0);
        close_tunnel();
}

static void what_came_with_the_head_is_followed(void **state)
{
        (void)state;
        eff = (struct settings){.tunnel = 10 * SEC, .websocket_ping = 400 * MSEC};
        t = (struct txn){.r = request_new(loop, NULL, 0), .eff = &eff};
        t.r->res.upgrade = STR("websocket");
        pipe_put(&t.r->res_body, STR("\x82\x02x"));
        ready[0] = ready[1] = idle = 0;
        n = tunnel_begin(&t, &user);
        loop_advance(loop, 600 * MSEC);
        assert_int_equal(sent_to(TUNNEL_CLIENT), 3);
        say(TUNNEL_SERVER, STR("y"));
        assert_int_equal(sent_to(TUNNEL_CLIENT), 1 + 10);
        close_tunnel();
}

static void status_counts_websockets(void **state)
{
        struct json_writer w;
        struct buf out = BUF_INIT;

        (void)state;
        open_tunnel("websocket", SEC, 0);
        json_begin(&w, &out);
        json_open(&w, '{');
        tunnel_status(region, &w);
        json_close(&w);
        assert_non_null(strstr(arena_dupz(t.r->arena, buf_pullup(&out, out.n)),
                               "\"websockets\":{\"http/1.1\":1,\"h2\":0,\"idle\":"));
        buf_clear(&out);
        close_tunnel();
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(silence_ends_a_tunnel),
                cmocka_unit_test(pongs_keep_it_open),
                cmocka_unit_test(one_dead_end_is_enough),
                cmocka_unit_test(who_cannot_be_asked_is_not_given_up),
                cmocka_unit_test(a_ping_that_waits_is_called_off_by_life),
                cmocka_unit_test(no_ping_once_an_end_has_finished),
                cmocka_unit_test(what_came_with_the_head_is_followed),
                cmocka_unit_test(status_counts_websockets),
        };

        return cmocka_run_group_tests(tests, begin, end);
}
