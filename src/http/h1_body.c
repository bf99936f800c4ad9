/*
 * Bodies between a socket's queue and a pipe.
 *
 * The difficulty is to take no byte too many: what follows a body belongs to the next message, and
 * what a pipe has no credit for stays where it is, so that the socket fills and the sender waits.
 */
#include "http/h1_body.h"

#include "base/check.h"
#include "http/h1_write.h"

void h1_reader_begin(struct h1_reader *b, enum framing framing, uint64_t length)
{
        *b = (struct h1_reader){.framing = framing, .left = length, .scan = {.kind = H1_TRAILER}};
}

/* Moves up to n bytes, as far as there is credit. */
static size_t take(struct buf *in, struct pipe *p, uint64_t n)
{
        size_t room = pipe_full(p) ? 0 : p->high - p->data.n;
        n = MIN(n, MIN(in->n, room));
        pipe_move(p, in, (size_t)n);
        return (size_t)n;
}

static void reader_end(struct h1_reader *b, struct pipe *p)
{
        b->done = true;
        p->end = true;
}

static enum reason take_trailers(struct h1_reader *b, struct buf *in, struct pipe *p,
                                 struct arena *a, struct fields *trailers,
                                 const struct h1_limits *lim)
{
        enum reason why;
        str text = buf_pullup(in, (size_t)lim->head_max + 1);
        ptrdiff_t n = h1_head_end(&b->scan, text, lim, &why, &b->measured);
        if (n < 0)
                return why;
        if (n == 0)
                return REASON_NONE;
        if (n > 2) {
                text = arena_dup(a, str_head(text, (size_t)n));
                why = text.p ? h1_parse_trailers(a, text, trailers) : REASON_HEADER_MAX;
                if (why != REASON_NONE)
                        return why;
        }
        buf_drain(in, (size_t)n);
        reader_end(b, p);
        return REASON_NONE;
}

static enum reason take_chunks(struct h1_reader *b, struct buf *in, struct pipe *p, struct arena *a,
                               struct fields *trailers, const struct h1_limits *lim)
{
        while (in->n > 0) {
                size_t used, n;
                enum h1_step step = h1_chunked_next(&b->chunk, buf_front(in), &used);
                buf_drain(in, used);
                switch (step) {
                case H1_MORE:
                        break;
                case H1_DATA:
                        n = take(in, p, b->chunk.left);
                        if (n == 0)
                                return REASON_NONE;
                        h1_chunked_took(&b->chunk, n);
                        break;
                case H1_TRAILERS:
                        return take_trailers(b, in, p, a, trailers, lim);
                case H1_BAD:
                        return REASON_BAD_CHUNK;
                }
        }
        return REASON_NONE;
}

enum reason h1_reader_take(struct h1_reader *b, struct buf *in, struct pipe *p, struct arena *a,
                           struct fields *trailers, const struct h1_limits *lim)
{
        enum reason why = REASON_NONE;
        if (b->done)
                return why;
        switch (b->framing) {
        case FRAMING_NONE:
                reader_end(b, p);
                break;
        case FRAMING_LENGTH:
                b->left -= take(in, p, b->left);
                if (b->left == 0)
                        reader_end(b, p);
                break;
        case FRAMING_CHUNKED:
                why = take_chunks(b, in, p, a, trailers, lim);
                break;
        case FRAMING_CLOSE:
        case FRAMING_TUNNEL:
                take(in, p, UINT64_MAX);
                break;
        }
        p->stalled = !p->end && pipe_full(p);
        return why;
}

bool h1_reader_eof(struct h1_reader *b, struct pipe *p)
{
        if (b->framing != FRAMING_CLOSE && b->framing != FRAMING_TUNNEL)
                return b->done;
        reader_end(b, p);
        return true;
}

void h1_writer_begin(struct h1_writer *w, enum framing framing, uint64_t length)
{
        *w = (struct h1_writer){.framing = framing, .left = length};
}

static size_t put(struct pipe *p, struct buf *out, uint64_t n)
{
        size_t room = out->n < H1_OUT_HIGH ? H1_OUT_HIGH - out->n : 0;
        n = MIN(n, MIN(p->data.n, room));
        buf_move(out, &p->data, (size_t)n);
        return (size_t)n;
}

static size_t put_chunk(struct pipe *p, struct buf *out)
{
        size_t n = p->data.n;
        if (n == 0 || out->n >= H1_OUT_HIGH)
                return 0;
        h1_write_chunk_head(out, n);
        buf_move(out, &p->data, n);
        buf_put(out, "\r\n", 2);
        return n;
}

size_t h1_writer_put(struct h1_writer *w, struct pipe *p, struct buf *out,
                     const struct fields *trailers)
{
        size_t n = 0;
        if (w->done)
                return 0;
        switch (w->framing) {
        case FRAMING_NONE:
                buf_clear(&p->data);
                w->done = true;
                return 0;
        case FRAMING_LENGTH:
                n = put(p, out, w->left);
                w->left -= n;
                if (w->left == 0 && p->data.n > 0) {
                        buf_clear(&p->data);
                        w->broken = true;
                }
                break;
        case FRAMING_CHUNKED:
                n = put_chunk(p, out);
                break;
        case FRAMING_CLOSE:
        case FRAMING_TUNNEL:
                n = put(p, out, UINT64_MAX);
                break;
        }
        if (pipe_done(p)) {
                if (w->framing == FRAMING_CHUNKED)
                        h1_write_last_chunk(out, trailers);
                w->broken |= w->framing == FRAMING_LENGTH && w->left > 0;
                w->done = true;
        }
        return n;
}
