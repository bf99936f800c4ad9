/* Frames, however they are cut: what passes, what stays here, and where a PING goes in. */
#include "http/websocket.c"

#include "../base/unit.h"

#define MARK "weirmark"
#define PONG "\x8a\x08" MARK
#define PING "\x89\x08" MARK

static const uint8_t mark[WEBSOCKET_MARK] = MARK;

struct bytes {
        const char *p;
        size_t n;
};
#define B(lit)                                                                                     \
        {                                                                                          \
                lit, sizeof(lit) - 1                                                               \
        }

static void expect(struct buf *b, struct bytes want)
{
        assert_int_equal(b->n, want.n);
        if (want.n > 0)
                assert_memory_equal(buf_pullup(b, b->n).p, want.p, want.n);
        buf_clear(b);
}

/* In pieces of every length, put and moved. */
static void passes(struct bytes in, struct bytes want, bool closing, bool broken)
{
        for (size_t cut = 1; cut <= in.n; cut++) {
                for (int moves = 0; moves < 2; moves++) {
                        struct websocket w;
                        struct buf out = BUF_INIT, queue = BUF_INIT;
                        websocket_begin(&w, mark);
                        for (size_t at = 0; at < in.n; at += cut) {
                                str piece = str_of(in.p + at, MIN(cut, in.n - at));
                                if (!moves) {
                                        websocket_put(&w, &out, piece);
                                        continue;
                                }
                                buf_puts(&queue, piece);
                                websocket_move(&w, &out, &queue, queue.n);
                                assert_int_equal(queue.n, 0);
                        }
                        assert_int_equal(w.closing, closing);
                        assert_int_equal(w.broken, broken);
                        expect(&out, want);
                }
        }
}

static void frames_pass(void **state)
{
        static const struct {
                struct bytes in, want;
                bool closing, broken;
        } rows[] = {
                {B("\x81\x05hello\x02\x01x"), B("\x81\x05hello\x02\x01x"), false, false},
                {B("\x81\x00\x81\x81"
                   "abcd"
                   "x"),
                 B("\x81\x00\x81\x81"
                   "abcd"
                   "x"),
                 false, false},
                {B("\x82\x7e\x00\x03"
                   "abc" PONG),
                 B("\x82\x7e\x00\x03"
                   "abc"),
                 false, false},
                {B("\x82\x7f\0\0\0\0\0\0\0\x02" PONG), B("\x82\x7f\0\0\0\0\0\0\0\x02" PONG), false,
                 false},
                {B("\x88\x02\x03\xe8\x81\x01x"), B("\x88\x02\x03\xe8\x81\x01x"), true, false},
                {B("\x82\xff\x80\0\0\0\0\0\0\0"
                   "keyx" PONG),
                 B("\x82\xff\x80\0\0\0\0\0\0\0"
                   "keyx" PONG),
                 false, true},
                /* PINGs of the peers, and PONGs that are not ours */
                {B(PING "\x8a\x00\x8a\x02hi"), B(PING "\x8a\x00\x8a\x02hi"), false, false},
                {B("\x8a\x08weirmarK\x8a\x09weirmark!"), B("\x8a\x08weirmarK\x8a\x09weirmark!"),
                 false, false},
                /* ours, alone and in company */
                {B(PONG), B(""), false, false},
                {B("\x81\x01"
                   "a" PONG "\x81\x01"
                   "b" PONG PONG),
                 B("\x81\x01"
                   "a\x81\x01"
                   "b"),
                 false, false},
                {B("\x8a\x88\x01\x02\x03\x04"
                   "vgjv"
                   "lcqo"
                   "\x81\x01x"),
                 B("\x81\x01x"), false, false},
                /* in a fragmented message */
                {B("\x01\x01"
                   "a" PONG "\x80\x01"
                   "b"),
                 B("\x01\x01"
                   "a\x80\x01"
                   "b"),
                 false, false},
                /* a control frame must not be so long: that is for its receiver to say */
                {B("\x8a\x7e\x00\x02hi" PONG), B("\x8a\x7e\x00\x02hi"), false, false},
                {B("\x81\x01x\x8a\x08weir"), B("\x81\x01x"), false, false}, /* cut: nobody's PONG */
        };

        (void)state;
        for (size_t i = 0; i < COUNT(rows); i++)
                passes(rows[i].in, rows[i].want, rows[i].closing, rows[i].broken);
}

/* Of the longest that may be. */
static void a_long_pong_passes(void **state)
{
        char pong[2 + 4 + 125] = "\x8a\xfd";

        (void)state;
        memset(pong + 2, 'x', sizeof(pong) - 2);
        passes((struct bytes){pong, sizeof(pong)}, (struct bytes){pong, sizeof(pong)}, false,
               false);
}

static void a_ping_goes_between_frames(void **state)
{
        static const char in[] = "\x81\x04"
                                 "abcd"
                                 "\x82\x03"
                                 "efg";
        static const char *const want[] = {
                PING "\x81\x04"
                     "abcd"
                     "\x82\x03"
                     "efg",
                "\x81\x04"
                "abcd" PING "\x82\x03"
                "efg",
                "\x81\x04"
                "abcd"
                "\x82\x03"
                "efg" PING,
        };

        (void)state;
        for (size_t at = 0; at < sizeof(in); at++) {
                struct websocket w;
                struct buf out = BUF_INIT;
                websocket_begin(&w, mark);
                websocket_put(&w, &out, str_of(in, at));
                assert_true(websocket_ping(&w, &out, NULL));
                assert_int_equal(w.due, at != 0 && at != 6 && at != 11);
                websocket_put(&w, &out, str_of(in + at, sizeof(in) - 1 - at));
                assert_false(w.due);
                expect(&out, (struct bytes){want[at == 0   ? 0
                                                 : at <= 6 ? 1
                                                           : 2],
                                            sizeof(in) - 1 + 10});
        }
}

/* What is held of a PONG has not passed yet, so a PING may come before it. */
static void a_ping_goes_before_a_pong_that_is_coming(void **state)
{
        struct websocket w;
        struct buf out = BUF_INIT;

        (void)state;
        websocket_begin(&w, mark);
        websocket_put(&w, &out, STR("\x8a\x02h"));
        assert_true(websocket_ping(&w, &out, NULL));
        assert_false(w.due);
        websocket_put(&w, &out, STR("i"));
        expect(&out, (struct bytes)B(PING "\x8a\x02hi"));
}

static void a_ping_to_a_server_is_masked(void **state)
{
        static const uint8_t key[4] = {1, 2, 3, 4};
        struct websocket w, back;
        struct buf out = BUF_INIT, rest = BUF_INIT;
        char *frame;

        (void)state;
        websocket_begin(&w, mark);
        assert_true(websocket_ping(&w, &out, key));
        assert_int_equal(out.n, 14);
        frame = (char *)(uintptr_t)buf_pullup(&out, out.n).p;
        assert_memory_equal(frame,
                            "\x89\x88\x01\x02\x03\x04"
                            "vgjv",
                            10);
        frame[0] = (char)(FINAL | OPCODE_PONG);
        websocket_begin(&back, mark);
        websocket_move(&back, &rest, &out, out.n);
        assert_int_equal(rest.n, 0);
}

static void nothing_follows_a_close(void **state)
{
        struct websocket w;
        struct buf out = BUF_INIT;

        (void)state;
        websocket_begin(&w, mark);
        websocket_put(&w, &out, STR("\x81\x05he"));
        assert_true(websocket_ping(&w, &out, NULL)); /* due, and then too late */
        websocket_put(&w, &out, STR("llo\x88\x00"));
        assert_false(websocket_ping(&w, &out, NULL));
        expect(&out, (struct bytes)B("\x81\x05hello" PING "\x88\x00"));
        websocket_begin(&w, mark);
        websocket_put(&w, &out, STR("\x81\xff\xff"));
        websocket_put(&w, &out, STR("it is HTTP, perhaps"));
        assert_false(websocket_ping(&w, &out, NULL));
        buf_clear(&out);
}

static int teardown(void **state)
{
        (void)state;
        buf_thread_end();
        return 0;
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(frames_pass),
                cmocka_unit_test(a_long_pong_passes),
                cmocka_unit_test(a_ping_goes_between_frames),
                cmocka_unit_test(a_ping_goes_before_a_pong_that_is_coming),
                cmocka_unit_test(a_ping_to_a_server_is_masked),
                cmocka_unit_test(nothing_follows_a_close),
        };

        return cmocka_run_group_tests(tests, NULL, teardown);
}
