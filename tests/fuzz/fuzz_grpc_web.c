/*
 * gRPC-Web: what comes out does not depend on how the input is cut, what was made text can be read
 * again, and only whole messages have an end.
 */
#include "base/check.h"
#include "http/grpc_web.h"

struct outcome {
        bool well, ended;
        struct buf out;
};

static void decode(str in, size_t step, struct outcome *o)
{
        struct grpc_web_decoder d = {0};
        struct buf piece = BUF_INIT;

        *o = (struct outcome){.well = true};
        for (size_t at = 0; at < in.n && o->well; at += step) {
                buf_puts(&piece, str_head(str_from(in, at), step));
                o->well = grpc_web_decode(&d, &piece, &o->out);
        }
        o->ended = o->well && grpc_web_decoded(&d);
        buf_clear(&piece);
}

static void encode(str in, bool text, size_t step, struct outcome *o)
{
        struct grpc_web_encoder e = {.text = text};
        struct buf piece = BUF_INIT;
        struct field v[] = {{.name = STR("Grpc-Status"), .value = STR("0")}};
        struct fields trailers = {v, 1, 1};

        *o = (struct outcome){.well = true};
        for (size_t at = 0; at < in.n && o->well; at += step) {
                buf_puts(&piece, str_head(str_from(in, at), step));
                o->well = grpc_web_encode(&e, &piece, &o->out);
        }
        o->ended = o->well && grpc_web_encode_end(&e, &trailers, &o->out);
        buf_clear(&piece);
}

static str all(struct outcome *o)
{
        return buf_pullup(&o->out, o->out.n);
}

static void same(struct outcome *a, struct outcome *b)
{
        CHECK(a->well == b->well && a->ended == b->ended);
        CHECK(!a->ended || str_eq(all(a), all(b)));
}

static void end(struct outcome *o)
{
        buf_clear(&o->out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct outcome whole, cut, text, back;
        size_t step;
        str in;

        if (size < 1)
                return 0;
        step = 1 + data[0] % 16;
        in = str_of(data + 1, size - 1);
        decode(in, SIZE_MAX / 2, &whole);
        decode(in, step, &cut);
        same(&whole, &cut);
        end(&whole);
        end(&cut);
        encode(in, false, SIZE_MAX / 2, &whole);
        encode(in, false, step, &cut);
        same(&whole, &cut);
        encode(in, true, SIZE_MAX / 2, &text);
        CHECK(text.well == whole.well && text.ended == whole.ended);
        end(&cut);
        encode(in, true, step, &cut);
        same(&text, &cut);
        if (text.ended) {
                decode(all(&text), step, &back);
                CHECK(back.ended && str_eq(all(&back), all(&whole)));
                end(&back);
        }
        end(&whole);
        end(&cut);
        end(&text);
        return 0;
}
