/* Bodies between queue and pipe: not a byte too many, and the end where it belongs. */
#include "http/h1_body.c"

#include "../base/unit.h"

static const struct h1_limits limits = {1024, 256, 8};

static struct arena *arena;
static struct buf queue;
static struct pipe p;
static struct fields trailers;
static struct h1_reader reader;

static int begin(void **state)
{
        (void)state;
        arena = arena_new(0);
        queue = BUF_INIT;
        p = (struct pipe){.high = 10};
        trailers = (struct fields){0};
        return 0;
}

static int end(void **state)
{
        (void)state;
        buf_clear(&queue);
        buf_clear(&p.data);
        arena_free(arena);
        arena_thread_end();
        buf_thread_end();
        return 0;
}

static enum reason take_all(void)
{
        return h1_reader_take(&reader, &queue, &p, arena, &trailers, &limits);
}

static void expect(struct buf *b, const char *text)
{
        assert_true(str_eq(buf_pullup(b, b->n), str_z(text)));
        buf_clear(b);
}

static void a_length_ends_where_it_says(void **state)
{
        (void)state;
        h1_reader_begin(&reader, FRAMING_LENGTH, 12);
        buf_puts(&queue, STR("0123456789abNEXT"));
        assert_int_equal(take_all(), REASON_NONE);
        assert_true(p.stalled && !p.end); /* no more credit */
        expect(&p.data, "0123456789");
        assert_int_equal(take_all(), REASON_NONE);
        assert_true(p.end && reader.done && !p.stalled);
        expect(&p.data, "ab");
        assert_int_equal(p.passed, 12);
        assert_int_equal(take_all(), REASON_NONE);
        expect(&queue, "NEXT");
}

static void an_end_comes_with_the_last_byte_that_fills_the_pipe(void **state)
{
        (void)state;
        h1_reader_begin(&reader, FRAMING_LENGTH, 10);
        buf_puts(&queue, STR("0123456789"));
        assert_int_equal(take_all(), REASON_NONE);
        assert_true(p.end && !p.stalled);
}

static void chunks_end_behind_their_trailers(void **state)
{
        (void)state;
        h1_reader_begin(&reader, FRAMING_CHUNKED, 0);
        buf_puts(&queue, STR("c\r\n0123456789ab\r\n0\r\nX-T: 1\r\n"));
        assert_int_equal(take_all(), REASON_NONE);
        assert_true(p.stalled);
        expect(&p.data, "0123456789");
        assert_int_equal(take_all(), REASON_NONE);
        expect(&p.data, "ab");
        assert_false(p.end);
        assert_false(h1_reader_eof(&reader, &p)); /* the section is not complete */
        buf_puts(&queue, STR("\r\nNEXT"));
        assert_int_equal(take_all(), REASON_NONE);
        assert_true(p.end);
        assert_non_null(fields_find(&trailers, STR("x-t")));
        expect(&queue, "NEXT");
}

static void trailers_have_limits(void **state)
{
        (void)state;
        h1_reader_begin(&reader, FRAMING_CHUNKED, 0);
        buf_puts(&queue, STR("0\r\n"));
        for (int i = 0; i < 20; i++)
                buf_puts(&queue, STR("A: b\r\n"));
        assert_int_equal(take_all(), REASON_HEADER_FIELDS);
        assert_int_equal(reader.measured, limits.fields_max + 1);
        buf_clear(&queue);
        h1_reader_begin(&reader, FRAMING_CHUNKED, 0);
        buf_puts(&queue, STR("0\r\nA"));
        for (int i = 0; i < 2000; i++)
                buf_puts(&queue, STR("b"));
        assert_int_equal(take_all(), REASON_FIELD_LINE);
        assert_true(reader.measured > limits.line_max);
        assert_false(p.end);
}

static void only_some_bodies_end_with_the_connection(void **state)
{
        static const struct {
                enum framing framing;
                bool proper;
        } rows[] = {{FRAMING_CLOSE, true},
                    {FRAMING_TUNNEL, true},
                    {FRAMING_LENGTH, false},
                    {FRAMING_CHUNKED, false}};
        (void)state;
        for (size_t i = 0; i < COUNT(rows); i++) {
                p.end = false;
                h1_reader_begin(&reader, rows[i].framing, 5);
                assert_int_equal(h1_reader_eof(&reader, &p), rows[i].proper);
                assert_int_equal(p.end, rows[i].proper);
        }
        h1_reader_begin(&reader, FRAMING_NONE, 0);
        p.end = false;
        assert_int_equal(take_all(), REASON_NONE);
        assert_true(p.end && reader.done);
        assert_true(h1_reader_eof(&reader, &p));
}

static void what_is_written(void **state)
{
        static const struct {
                enum framing framing;
                uint64_t length;
                const char *in, *out;
                bool broken;
        } rows[] = {
                {FRAMING_LENGTH, 5, "hello", "hello", false},
                {FRAMING_LENGTH, 3, "hello", "hel", true},
                {FRAMING_LENGTH, 9, "hello", "hello", true},
                {FRAMING_LENGTH, 0, "", "", false},
                {FRAMING_CHUNKED, 0, "hello", "5\r\nhello\r\n0\r\n\r\n", false},
                {FRAMING_CHUNKED, 0, "", "0\r\n\r\n", false},
                {FRAMING_CLOSE, 0, "hello", "hello", false},
                {FRAMING_TUNNEL, 0, "hello", "hello", false},
                {FRAMING_NONE, 0, "hello", "", false},
        };
        (void)state;
        for (size_t i = 0; i < COUNT(rows); i++) {
                struct h1_writer w;
                struct buf out = BUF_INIT;
                buf_puts(&p.data, str_z(rows[i].in));
                p.end = true;
                h1_writer_begin(&w, rows[i].framing, rows[i].length);
                h1_writer_put(&w, &p, &out, NULL);
                assert_true(w.done);
                assert_int_equal(w.broken, rows[i].broken);
                assert_int_equal(p.data.n, 0);
                expect(&out, rows[i].out);
                assert_int_equal(h1_writer_put(&w, &p, &out, NULL), 0);
        }
}

static void what_waits_for_the_socket_is_bounded(void **state)
{
        struct h1_writer w;
        struct buf out = BUF_INIT;
        static char block[H1_OUT_HIGH];
        (void)state;
        for (int i = 0; i < 4; i++)
                buf_put(&p.data, block, sizeof(block));
        h1_writer_begin(&w, FRAMING_LENGTH, 4 * sizeof(block));
        assert_int_equal(h1_writer_put(&w, &p, &out, NULL), H1_OUT_HIGH);
        assert_int_equal(h1_writer_put(&w, &p, &out, NULL), 0);
        buf_drain(&out, 100);
        assert_int_equal(h1_writer_put(&w, &p, &out, NULL), 100);
        assert_false(w.done);
        buf_clear(&out);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, begin, end)
        const struct CMUnitTest tests[] = {
                TEST(a_length_ends_where_it_says),
                TEST(an_end_comes_with_the_last_byte_that_fills_the_pipe),
                TEST(chunks_end_behind_their_trailers),
                TEST(trailers_have_limits),
                TEST(only_some_bodies_end_with_the_connection),
                TEST(what_is_written),
                TEST(what_waits_for_the_socket_is_bounded),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
