/*
 * gRPC-Web and gRPC (grpc_web.h).
 *
 * The one difficulty: base64 speaks of three bytes at a time, and bytes come as they come.  Up to
 * two wait for the third, but only within a message: a client must not wait for the last bytes of
 * a message until the next one is sent.
 */
#include "http/grpc_web.h"

#include "base/check.h"
#include "base/crypto.h"

#define PREFIX        5    /* is it compressed, and the length in 4 bytes */
#define TRAILERS      0x80 /* flag of the last frame */
#define BLOCK         ((size_t)3 * 1024)
#define BLOCK_ENCODED (BLOCK / 3 * 4)
_Static_assert(BLOCK_ENCODED <= BUF_CHUNK, "a block fits the room that is asked for");

/* ------------------------------------------------------------------ requests */

/* A quantum is complete: digits of it were data.  Bits that belong to no byte must be zero (RFC
 * 4648 3.5). */
static bool end_quantum(struct grpc_web_decoder *d, char *out, size_t *n)
{
        unsigned bytes = d->digits - 1u, rest = d->digits * 6u - bytes * 8u;

        if (d->bits & ((1u << rest) - 1))
                return false;
        for (unsigned i = 0; i < bytes; i++)
                out[(*n)++] = (char)(d->bits >> (rest + 8 * (bytes - 1 - i)));
        *d = (struct grpc_web_decoder){0};
        return true;
}

static bool take_digit(struct grpc_web_decoder *d, char c, char *out, size_t *n)
{
        int v;

        if (c == '=') {
                if (d->digits < 2)
                        return false;
                d->padding++;
        } else {
                v = crypto_base64_value(c, false);
                if (v < 0 || d->padding > 0)
                        return false;
                d->bits = d->bits << 6 | (uint32_t)v;
                d->digits++;
        }
        return d->digits + d->padding < 4 || end_quantum(d, out, n);
}

bool grpc_web_decode(struct grpc_web_decoder *d, struct buf *in, struct buf *out)
{
        while (in->n > 0) {
                str s = str_head(buf_front(in), BLOCK);
                char *to = buf_reserve(out, BLOCK);
                size_t n = 0;

                for (size_t i = 0; i < s.n; i++) {
                        if (!take_digit(d, s.p[i], to, &n))
                                return false;
                }
                buf_commit(out, n);
                buf_drain(in, s.n);
        }
        return true;
}

bool grpc_web_decoded(const struct grpc_web_decoder *d)
{
        return d->digits == 0;
}

/* ------------------------------------------------------------------ responses */

static void put_quantum(char *to, const unsigned char *b, size_t n)
{
        unsigned v = (unsigned)b[0] << 16 | (n > 1 ? (unsigned)b[1] << 8 : 0) | (n > 2 ? b[2] : 0);

        for (size_t i = 0; i < 4; i++)
                to[i] = i <= n ? crypto_base64_digit(v >> (18 - 6 * i), false) : '=';
}

/* Whole quanta of s; what is left over is carried. */
static void put_text(struct grpc_web_encoder *e, str s, struct buf *out)
{
        const unsigned char *p = (const unsigned char *)s.p;
        unsigned char first[3];

        if (e->carried > 0 && e->carried + s.n >= 3) {
                size_t more = 3u - e->carried;
                memcpy(first, e->carry, e->carried);
                memcpy(first + e->carried, p, more);
                put_quantum(buf_reserve(out, 4), first, 3);
                buf_commit(out, 4);
                e->carried = 0;
                p += more;
                s.n -= more;
        }
        while (e->carried == 0 && s.n >= 3) {
                size_t n = MIN(s.n / 3 * 3, BLOCK);
                char *to = buf_reserve(out, BLOCK_ENCODED);
                for (size_t i = 0; i < n; i += 3)
                        put_quantum(to + i / 3 * 4, p + i, 3);
                buf_commit(out, n / 3 * 4);
                p += n;
                s.n -= n;
        }
        for (size_t i = 0; i < s.n; i++)
                e->carry[e->carried++] = p[i];
}

static void pad_text(struct grpc_web_encoder *e, struct buf *out)
{
        if (e->carried == 0)
                return;
        put_quantum(buf_reserve(out, 4), e->carry, e->carried);
        buf_commit(out, 4);
        e->carried = 0;
}

/* How many bytes at the front of s belong to this message; false: it is none.  *end: with them it
 * is complete. */
static bool next_part(struct grpc_web_encoder *e, str s, size_t *n, bool *end)
{
        *n = 0;
        while (e->prefix < PREFIX && *n < s.n) {
                unsigned char c = (unsigned char)s.p[(*n)++];
                if (e->prefix == 0 && c > 1) /* neither compressed nor not */
                        return false;
                e->left = e->prefix == 0 ? 0 : e->left << 8 | c;
                e->prefix++;
        }
        if (e->prefix == PREFIX) {
                size_t more = MIN(s.n - *n, e->left);
                e->left -= (uint32_t)more;
                *n += more;
        }
        *end = e->prefix == PREFIX && e->left == 0;
        if (*end)
                e->prefix = 0;
        return true;
}

bool grpc_web_encode(struct grpc_web_encoder *e, struct buf *in, struct buf *out)
{
        while (in->n > 0) {
                str s = buf_front(in);
                size_t n;
                bool end;

                for (size_t at = 0; at < s.n; at += n) {
                        if (!next_part(e, str_from(s, at), &n, &end))
                                return false;
                        if (e->text)
                                put_text(e, str_of(s.p + at, n), out);
                        if (e->text && end)
                                pad_text(e, out);
                }
                if (e->text)
                        buf_drain(in, s.n);
                else
                        buf_move(out, in, s.n);
        }
        return true;
}

static void put(struct grpc_web_encoder *e, str s, struct buf *out)
{
        if (e->text)
                put_text(e, s, out);
        else
                buf_puts(out, s);
}

bool grpc_web_encode_end(struct grpc_web_encoder *e, const struct fields *trailers, struct buf *out)
{
        char head[PREFIX] = {(char)TRAILERS}, small[64];
        size_t size = 0;

        if (e->prefix != 0)
                return false;
        FIELDS_EACH(f, trailers)
        {
                size += f->name.n + f->value.n + 4;
        }
        for (int i = 0; i < 4; i++)
                head[1 + i] = (char)(size >> (24 - 8 * i));
        put(e, str_of(head, PREFIX), out);
        FIELDS_EACH(f, trailers)
        {
                for (size_t i = 0; i < f->name.n; i += sizeof(small)) {
                        size_t n = MIN(f->name.n - i, sizeof(small));
                        for (size_t k = 0; k < n; k++)
                                small[k] = str_lower(f->name.p[i + k]);
                        put(e, str_of(small, n), out);
                }
                put(e, STR(": "), out);
                if (f->value.n > 0)
                        put(e, f->value, out);
                put(e, STR("\r\n"), out);
        }
        if (e->text)
                pad_text(e, out);
        return true;
}
