/*
 * Chunked bodies through reader and pipe: the bytes, the end and the refusal do not depend on how
 * the input is cut nor on how much credit the pipe has, and nothing behind the body is taken.
 */
#include "base/check.h"
#include "http/h1_body.h"

struct outcome {
        enum reason why;
        bool end;
        size_t left; /* of the input, behind the end */
        struct buf data;
        struct fields trailers;
};

static void run(struct arena *a, str in, size_t step, size_t high, struct outcome *o)
{
        static const struct h1_limits limits = {1024, 256, 8};
        struct h1_reader b;
        struct buf queue = BUF_INIT;
        struct pipe p = {.high = high};
        *o = (struct outcome){0};
        h1_reader_begin(&b, FRAMING_CHUNKED, 0);
        for (size_t at = 0; o->why == REASON_NONE && !p.end;) {
                bool more = at < in.n;
                str piece = str_head(str_from(in, at), step);
                buf_puts(&queue, piece);
                at += piece.n;
                size_t before;
                do {
                        before = queue.n;
                        o->why = h1_reader_take(&b, &queue, &p, a, &o->trailers, &limits);
                        CHECK(p.data.n <= high);
                        buf_move(&o->data, &p.data, p.data.n);
                } while (o->why == REASON_NONE && queue.n < before && !p.end);
                if (!more)
                        break;
                if (p.end)
                        o->left = queue.n + in.n - at;
        }
        o->end = p.end;
        CHECK(!h1_reader_eof(&b, &p) || o->end);
        buf_clear(&queue);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        if (size < 2)
                return 0;
        str in = str_of(data + 2, size - 2);
        struct arena *a = arena_new(0);
        struct outcome whole, cut;
        run(a, in, SIZE_MAX, SIZE_MAX, &whole);
        run(a, in, 1 + data[0] % 16, 1 + data[1] % 64, &cut);
        CHECK(whole.why == cut.why && whole.end == cut.end && whole.left == cut.left);
        CHECK(whole.trailers.n == cut.trailers.n);
        if (whole.why == REASON_NONE)
                CHECK(str_eq(buf_pullup(&whole.data, whole.data.n),
                             buf_pullup(&cut.data, cut.data.n)));
        buf_clear(&whole.data);
        buf_clear(&cut.data);
        arena_free(a);
        return 0;
}
