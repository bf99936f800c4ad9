/* What a client may send on which of its streams. */
#include "http/h2_ids.c"

#include "../base/unit.h"

static struct h2_ids ids;

/* A frame without a payload. */
static uint32_t frame(uint8_t type, int32_t id, uint8_t flags)
{
        const uint8_t head[9] = {0,
                                 0,
                                 0,
                                 type,
                                 flags,
                                 (uint8_t)(id >> 24),
                                 (uint8_t)(id >> 16),
                                 (uint8_t)(id >> 8),
                                 (uint8_t)id};
        uint32_t error;
        size_t n = h2_ids_read(&ids, str_of(head, sizeof(head)), &error);
        assert_int_equal(n, error ? 0 : sizeof(head));
        return error;
}

#define HEADERS(id)  frame(NGHTTP2_HEADERS, id, NGHTTP2_FLAG_END_HEADERS)
#define DATA(id)     frame(NGHTTP2_DATA, id, NGHTTP2_FLAG_NONE)
#define DATA_END(id) frame(NGHTTP2_DATA, id, NGHTTP2_FLAG_END_STREAM)
#define RESET(id)    frame(NGHTTP2_RST_STREAM, id, NGHTTP2_FLAG_NONE)

static int forget(void **state)
{
        (void)state;
        ids = (struct h2_ids){0};
        return 0;
}

static void open_streams_take_all(void **state)
{
        (void)state;
        assert_int_equal(HEADERS(1), NGHTTP2_NO_ERROR);
        assert_int_equal(DATA(1), NGHTTP2_NO_ERROR);
        assert_int_equal(HEADERS(7), NGHTTP2_NO_ERROR);
        assert_int_equal(DATA(1), NGHTTP2_NO_ERROR);
        assert_int_equal(DATA_END(7), NGHTTP2_NO_ERROR);
        assert_int_equal(frame(NGHTTP2_HEADERS, 1, NGHTTP2_FLAG_END_STREAM), NGHTTP2_NO_ERROR);
        assert_int_equal(frame(NGHTTP2_HEADERS, 9, NGHTTP2_FLAG_END_STREAM), NGHTTP2_NO_ERROR);
}

static void what_the_client_ended_takes_no_message(void **state)
{
        (void)state;
        assert_int_equal(HEADERS(1), NGHTTP2_NO_ERROR);
        assert_int_equal(HEADERS(3), NGHTTP2_NO_ERROR);
        assert_int_equal(HEADERS(5), NGHTTP2_NO_ERROR);
        assert_int_equal(DATA_END(1), NGHTTP2_NO_ERROR);
        assert_int_equal(RESET(3), NGHTTP2_NO_ERROR);
        for (int32_t id = 1; id < 5; id += 2) {
                assert_int_equal(DATA(id), NGHTTP2_STREAM_CLOSED);
                assert_int_equal(HEADERS(id), NGHTTP2_STREAM_CLOSED);
                assert_int_equal(RESET(id), NGHTTP2_NO_ERROR);
                assert_int_equal(frame(NGHTTP2_WINDOW_UPDATE, id, 0), NGHTTP2_NO_ERROR);
                assert_int_equal(frame(NGHTTP2_PRIORITY, id, 0), NGHTTP2_NO_ERROR);
        }
        assert_int_equal(DATA(5), NGHTTP2_NO_ERROR);
}

static void ids_that_were_passed_over_are_lost(void **state)
{
        (void)state;
        assert_int_equal(HEADERS(9), NGHTTP2_NO_ERROR);
        for (int32_t id = 1; id < 9; id += 2) {
                assert_int_equal(HEADERS(id), NGHTTP2_PROTOCOL_ERROR);
                assert_int_equal(DATA(id), NGHTTP2_PROTOCOL_ERROR);
        }
        assert_int_equal(RESET(3), NGHTTP2_NO_ERROR);
        assert_int_equal(DATA(9), NGHTTP2_NO_ERROR);
}

static void old_and_idle_streams_are_not_judged(void **state)
{
        (void)state;
        assert_int_equal(DATA(1), NGHTTP2_NO_ERROR);
        assert_int_equal(RESET(1), NGHTTP2_NO_ERROR);
        assert_int_equal(HEADERS(1), NGHTTP2_NO_ERROR);
        assert_int_equal(DATA_END(1), NGHTTP2_NO_ERROR);
        assert_int_equal(HEADERS(1 + 2 * (KEPT - 1)), NGHTTP2_NO_ERROR);
        assert_int_equal(DATA(1), NGHTTP2_STREAM_CLOSED);
        assert_int_equal(HEADERS(1 + 2 * KEPT), NGHTTP2_NO_ERROR);
        assert_int_equal(DATA(1), NGHTTP2_NO_ERROR);
        assert_int_equal(HEADERS(INT32_MAX), NGHTTP2_NO_ERROR);
        assert_int_equal(DATA(1), NGHTTP2_NO_ERROR);
        assert_int_equal(DATA(INT32_MAX), NGHTTP2_NO_ERROR);
        assert_int_equal(HEADERS(INT32_MAX - 2), NGHTTP2_PROTOCOL_ERROR);
}

static void only_priority_is_judged_without_a_stream(void **state)
{
        (void)state;
        assert_int_equal(frame(NGHTTP2_PRIORITY, 0, 0), NGHTTP2_PROTOCOL_ERROR);
        assert_int_equal(frame(NGHTTP2_SETTINGS, 0, 0), NGHTTP2_NO_ERROR);
        assert_int_equal(HEADERS(3), NGHTTP2_NO_ERROR);
        assert_int_equal(HEADERS(2), NGHTTP2_NO_ERROR); /* nghttp2 sees to it */
        assert_int_equal(DATA(3), NGHTTP2_NO_ERROR);
}

/* However the bytes come, the same are let through. */
static void heads_may_come_in_pieces(void **state)
{
        static const char bytes[] =
                "preface"
                "\0\0\3\1\4\0\0\0\1"   /* HEADERS of stream 1 */
                "\0\0\0"               /* that would be a head of DATA */
                "\0\0\0\0\1\x80\0\0\1" /* DATA, its end; the reserved bit is set */
                "\0\0\1\0\0\0\0\0\1x"; /* and more of it */
        const str all = str_of(bytes, sizeof(bytes) - 1);
        (void)state;
        for (size_t piece = 1; piece <= all.n; piece++) {
                uint32_t error = NGHTTP2_NO_ERROR;
                size_t passed = 0, at = 0;
                ids = (struct h2_ids){.left = 7};
                for (; at < all.n && !error; at += piece) {
                        str s = str_head(str_from(all, at), piece);
                        size_t n = h2_ids_read(&ids, s, &error);
                        assert_true(error ? n <= s.n : n == s.n);
                        passed += n;
                }
                assert_int_equal(error, NGHTTP2_STREAM_CLOSED);
                assert_true(passed >= all.n - 10 && passed < all.n - 1);
        }
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup(f, forget)
        const struct CMUnitTest tests[] = {
                TEST(open_streams_take_all),
                TEST(what_the_client_ended_takes_no_message),
                TEST(ids_that_were_passed_over_are_lost),
                TEST(old_and_idle_streams_are_not_judged),
                TEST(only_priority_is_judged_without_a_stream),
                TEST(heads_may_come_in_pieces),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
