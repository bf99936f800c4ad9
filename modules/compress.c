/*
 * compress: sends responses compressed to who takes them so (RFC 9110 8.4, 12.5.3).
 *
 *     function compress;
 *     function compress { encodings br gzip; types "application/json"; min_length 4k; }
 *
 * The one difficulty is to be a stream: what the upstream sends and then pauses after (server-sent
 * events) must reach the client, though a compressor would rather wait for more.  A chunk that is
 * short says that no more was there, and is flushed; long ones are not, so that bulk compresses
 * well.
 */
#include <weir/module.h>

#include "accept.h"

#include <brotli/encode.h>
#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>

enum { MORE, FLUSH, FINISH };

#define OUT_SIZE    16384
#define SHORT_CHUNK 4096
#define WINDOW_LOG                                                                                 \
        18 /* 256 KiB: what a stream costs, here and at the client, is a few times that */

struct conf {
        weir_list encodings, types;
        int64_t min_length, level;
        weir_metric *in, *out;
};

static const weir_arg args[] = {
        WEIR_LIST(struct conf, encodings, ENUM, 0, "zstd br gzip",
                  "What it offers; of those that the client likes equally, the first.",
                  .choices = "zstd br gzip"),
        WEIR_LIST(
                struct conf, types, STR, 0,
                "text/* application/json application/*+json application/javascript application/xml "
                "application/*+xml application/wasm application/manifest+json image/svg+xml",
                "Content types that are compressed; a * stands for any text."),
        WEIR_ARG(struct conf, min_length, SIZE, 0, "1k", "Shorter ones are sent as they are."),
        WEIR_ARG(struct conf, level, INT, 0, "4", "How hard it tries, from 1 (fast) to 9 (small).",
                 .min = 1, .max = 9),
};

/* One response that is being compressed.  Owned by its ctx until on_log. */
struct stream {
        int32_t encoding;
        z_stream z;
        BrotliEncoderState *br;
        ZSTD_CCtx *zs;
        const struct conf *conf;
        const uint8_t *in; /* of the chunk, until its verdict */
        size_t n_in;
        int op;      /* MORE, FLUSH, FINISH */
        int stepped; /* the chunk is all taken, and what is to come of it is in out */
        size_t n_out;
        char out[OUT_SIZE];
};

/* ------------------------------------------------------------------ compressors */

static int stream_begin(struct stream *s, int level)
{
        switch (s->encoding) {
        case ACCEPT_GZIP:
                return deflateInit2(&s->z, level, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) ==
                       Z_OK;
        case ACCEPT_BROTLI:
                s->br = BrotliEncoderCreateInstance(NULL, NULL, NULL);
                return s->br &&
                       BrotliEncoderSetParameter(s->br, BROTLI_PARAM_QUALITY, (uint32_t)level) &&
                       BrotliEncoderSetParameter(s->br, BROTLI_PARAM_LGWIN, WINDOW_LOG);
        default:
                s->zs = ZSTD_createCCtx();
                return s->zs &&
                       !ZSTD_isError(
                               ZSTD_CCtx_setParameter(s->zs, ZSTD_c_compressionLevel, level)) &&
                       !ZSTD_isError(ZSTD_CCtx_setParameter(s->zs, ZSTD_c_windowLog, WINDOW_LOG));
        }
}

static void stream_end(struct stream *s)
{
        if (s->encoding == ACCEPT_GZIP)
                deflateEnd(&s->z);
        if (s->br)
                BrotliEncoderDestroyInstance(s->br);
        ZSTD_freeCCtx(s->zs);
        free(s);
}

static int step_gzip(struct stream *s)
{
        static const int flags[] = {Z_NO_FLUSH, Z_SYNC_FLUSH, Z_FINISH};
        int rc;

        s->z.next_in = (Bytef *)(uintptr_t)s->in;
        s->z.avail_in = (uInt)s->n_in;
        s->z.next_out = (Bytef *)s->out;
        s->z.avail_out = OUT_SIZE;
        rc = deflate(&s->z, flags[s->op]);
        s->in = s->z.next_in;
        s->n_in = s->z.avail_in;
        s->n_out = OUT_SIZE - s->z.avail_out;
        s->stepped = s->op == FINISH ? rc == Z_STREAM_END : s->z.avail_out > 0;
        return rc == Z_OK || rc == Z_STREAM_END || rc == Z_BUF_ERROR; /* nothing to do */
}

static int step_brotli(struct stream *s)
{
        static const BrotliEncoderOperation ops[] = {
                BROTLI_OPERATION_PROCESS, BROTLI_OPERATION_FLUSH, BROTLI_OPERATION_FINISH};
        uint8_t *out = (uint8_t *)s->out;
        size_t room = OUT_SIZE;

        if (!BrotliEncoderCompressStream(s->br, ops[s->op], &s->n_in, &s->in, &room, &out, NULL))
                return 0;
        s->n_out = OUT_SIZE - room;
        s->stepped = s->n_in == 0 && !BrotliEncoderHasMoreOutput(s->br) &&
                     (s->op != FINISH || BrotliEncoderIsFinished(s->br));
        return 1;
}

static int step_zstd(struct stream *s)
{
        static const ZSTD_EndDirective ops[] = {ZSTD_e_continue, ZSTD_e_flush, ZSTD_e_end};
        ZSTD_inBuffer in = {s->in, s->n_in, 0};
        ZSTD_outBuffer out = {s->out, OUT_SIZE, 0};
        size_t left = ZSTD_compressStream2(s->zs, &out, &in, ops[s->op]);

        if (ZSTD_isError(left))
                return 0;
        s->in += in.pos;
        s->n_in -= in.pos;
        s->n_out = out.pos;
        s->stepped = s->op == MORE ? s->n_in == 0 : left == 0;
        return 1;
}

static int step(struct stream *s)
{
        return s->encoding == ACCEPT_GZIP     ? step_gzip(s)
               : s->encoding == ACCEPT_BROTLI ? step_brotli(s)
                                              : step_zstd(s);
}

/* ------------------------------------------------------------------ what the client takes */

/* The encoding it gets; -1: none.  As the client asks: functions behind this one may want to have
 * bodies uncompressed. */
static int32_t negotiate(weir_req *r, const struct conf *c)
{
        struct accept_wishes w = ACCEPT_NOTHING_SAID;
        weir_kv kv;

        for (size_t i = 0; weir->header_at(r, WEIR_REQUEST, i, &kv); i++)
                if (weir_eq_icase(kv.name, WEIR_STR("accept-encoding")))
                        accept_read(&w, kv.value);
        return accept_best(&w, c->encodings.v, c->encodings.n);
}

/* ------------------------------------------------------------------ which responses */

/* Whether a list of the response has the element. */
static int lists(weir_req *r, weir_str field, weir_str element)
{
        weir_kv kv;

        for (size_t i = 0; weir->header_at(r, WEIR_RESPONSE, i, &kv); i++)
                while (weir_eq_icase(kv.name, field) && kv.value.p)
                        if (weir_eq_icase(accept_cut(&kv.value, ','), element))
                                return 1;
        return 0;
}

/* One `*` in a pattern stands for any text. */
static int type_is(weir_str type, weir_str pattern)
{
        const char *star = memchr(pattern.p, '*', pattern.n);
        size_t head = star ? (size_t)(star - pattern.p) : pattern.n, tail = pattern.n - head;

        if (!star)
                return weir_eq_icase(type, pattern);
        tail--;
        return type.n >= head + tail &&
               weir_eq_icase(weir_bytes(type.p, head), weir_bytes(pattern.p, head)) &&
               weir_eq_icase(weir_bytes(type.p + type.n - tail, tail), weir_bytes(star + 1, tail));
}

static int has(weir_req *r, weir_str name)
{
        return weir->header_get(r, WEIR_RESPONSE, name, NULL) > 0;
}

/* Whether it is worth compressing, whoever asks. */
static int eligible(weir_req *r, const struct conf *c)
{
        weir_str v, status = WEIR_STR(""), method = WEIR_STR("");
        int64_t length = 0;

        weir->var_get(r, WEIR_STR("status"), &status);
        weir->var_get(r, WEIR_STR("method"), &method);
        if (weir_eq(method, WEIR_STR("HEAD")) || weir_eq(status, WEIR_STR("101")) ||
            weir_eq(status, WEIR_STR("204")) || weir_eq(status, WEIR_STR("206")) ||
            weir_eq(status, WEIR_STR("304")) || has(r, WEIR_STR("content-encoding")) ||
            has(r, WEIR_STR("content-range")) ||
            lists(r, WEIR_STR("cache-control"), WEIR_STR("no-transform")))
                return 0;
        if (weir->header_get(r, WEIR_RESPONSE, WEIR_STR("content-length"), &v) == 1) {
                for (size_t i = 0; i < v.n && length < c->min_length; i++)
                        length = length * 10 + (v.p[i] - '0');
                if (length < c->min_length)
                        return 0;
        }
        if (!weir->header_get(r, WEIR_RESPONSE, WEIR_STR("content-type"), &v))
                return 0;
        v = accept_cut(&v, ';');
        WEIR_EACH (weir_str, type, c->types)
                if (type_is(v, *type))
                        return 1;
        return 0;
}

/* Caches must ask again for who takes other encodings. */
static weir_err say_vary(weir_req *r)
{
        weir_str field = WEIR_STR("vary"), value = WEIR_STR("Accept-Encoding");

        return lists(r, field, WEIR_STR("*")) || lists(r, field, value)
                       ? WEIR_OK
                       : weir->header_add(r, WEIR_RESPONSE, field, value);
}

/* The same content, but no longer the same bytes. */
static weir_err weaken(weir_req *r, weir_str etag)
{
        if (etag.n > 2 && etag.p[0] == 'W')
                return weir->header_set(r, WEIR_RESPONSE, WEIR_STR("etag"), etag);
        return weir->header_set(r, WEIR_RESPONSE, WEIR_STR("etag"),
                                weir->format(r, "W/%.*s", WEIR_S(etag)));
}

static struct stream *stream_new(const struct conf *c, int32_t encoding)
{
        struct stream *s = calloc(1, sizeof(*s));

        if (!s)
                return NULL;
        s->encoding = encoding;
        s->conf = c;
        if (!stream_begin(s, (int)c->level)) {
                stream_end(s);
                return NULL;
        }
        return s;
}

struct ctx {
        int32_t encoding;
        struct stream *stream;
};

static weir_rc request(weir_req *r, const void *inst, void *ctx)
{
        ((struct ctx *)ctx)->encoding = negotiate(r, inst);
        return WEIR_CONTINUE;
}

static weir_rc response(weir_req *r, const void *inst, void *ctx)
{
        const struct conf *c = inst;
        struct ctx *x = ctx;
        int32_t encoding = x->encoding;
        weir_str etag;
        int tagged;

        if (!eligible(r, c))
                return WEIR_CONTINUE;
        if (say_vary(r))
                return WEIR_ERROR;
        if (encoding < 0 || !(x->stream = stream_new(c, encoding)))
                return WEIR_CONTINUE;
        tagged = weir->header_get(r, WEIR_RESPONSE, WEIR_STR("etag"), &etag) == 1;
        if (weir->body_mode(r, WEIR_BODY_REWRITE, 0) ||
            weir->header_set(r, WEIR_RESPONSE, WEIR_STR("content-encoding"),
                             accept_tokens[encoding]) ||
            (tagged && weaken(r, etag)))
                return WEIR_ERROR;
        return WEIR_CONTINUE;
}

/* ------------------------------------------------------------------ bodies */

static weir_rc go_on(weir_req *r, const void *inst, void *ctx, void *arg)
{
        struct stream *s = arg;
        weir_err err;

        (void)inst, (void)ctx;
        for (;;) {
                if (s->n_out) {
                        err = weir->body_emit(r, weir_bytes(s->out, s->n_out));
                        if (err == WEIR_E_FULL)
                                return weir->body_drain(r, go_on, s);
                        if (err)
                                return WEIR_ERROR;
                        weir->metric_add(s->conf->out, (double)s->n_out);
                        s->n_out = 0;
                }
                if (s->stepped)
                        return WEIR_REPLACED;
                if (!step(s))
                        return WEIR_ERROR;
        }
}

static weir_rc body(weir_req *r, const void *inst, void *ctx, const weir_chunk *c)
{
        struct stream *s = ((struct ctx *)ctx)->stream;

        s->in = (const uint8_t *)c->data.p;
        s->n_in = c->data.n;
        s->op = c->flags & WEIR_CHUNK_LAST ? FINISH : c->data.n < SHORT_CHUNK ? FLUSH : MORE;
        s->stepped = 0;
        weir->metric_add(s->conf->in, (double)c->data.n);
        return go_on(r, inst, ctx, s);
}

static void on_log(weir_req *r, const void *inst, void *ctx)
{
        struct stream *s = ((struct ctx *)ctx)->stream;

        (void)r, (void)inst;
        if (s)
                stream_end(s);
}

static weir_err create(weir_conf *conf, void *inst)
{
        struct conf *c = inst;

        c->in = weir->conf_metric(conf, WEIR_COUNTER, "bytes_total{direction=\"in\"}",
                                  "Bytes of bodies before and after compression.", NULL, 0);
        c->out = weir->conf_metric(conf, WEIR_COUNTER, "bytes_total{direction=\"out\"}",
                                   "Bytes of bodies before and after compression.", NULL, 0);
        return WEIR_OK;
}

#define GET(accept) "GET / HTTP/1.1\nhost: a\naccept-encoding: " accept "\n\n"
#define OK(fields)  "HTTP/1.1 200 OK\ncontent-type: text/html; charset=utf-8\n" fields "\n"
static const weir_case cases[] = {
        {.name = "negotiated",
         .request = GET("gzip;q=0.5, br"),
         .upstream = OK(""),
         .expect = "continue\nres content-encoding: br\nres vary: Accept-Encoding"},
        {.name = "weights",
         .request = GET("br;q=0.1, gzip;q=0.9, zstd;q=0"),
         .upstream = OK(""),
         .expect = "continue\nres content-encoding: gzip"},
        {.name = "any",
         .request = GET("*"),
         .upstream = OK(""),
         .expect = "continue\nres content-encoding: zstd"},
        {.name = "rather not",
         .request = GET("identity, gzip;q=0.5"),
         .upstream = OK(""),
         .expect = "continue\nres -content-encoding\nres vary: Accept-Encoding"},
        {.name = "its tag",
         .request = GET("gzip"),
         .upstream = OK("etag: \"a\"\n"),
         .expect = "continue\nres etag: W/\"a\""},
        {.name = "no transform",
         .request = GET("gzip"),
         .upstream = OK("cache-control: private, no-transform\n"),
         .expect = "continue\nres -content-encoding\nres -vary"},
        {.name = "already",
         .request = GET("gzip"),
         .upstream = OK("content-encoding: br\n"),
         .expect = "continue\nres content-encoding: br"},
        {.name = "short",
         .request = GET("gzip"),
         .upstream = OK("content-length: 3\n") "abc",
         .expect = "continue\nres -content-encoding\nbody abc"},
        {.name = "a part",
         .request = GET("gzip"),
         .upstream =
                 "HTTP/1.1 206 Partial\ncontent-type: text/html\ncontent-range: bytes 0-1/9\n\n",
         .expect = "continue\nres -content-encoding"},
        {.name = "types",
         .config = "types=image/*",
         .request = GET("gzip"),
         .upstream = OK(""),
         .expect = "continue\nres -content-encoding"},
};

WEIR_MODULE(.name = "compress", .version = "1.0", WEIR_ARGS(struct conf, args), WEIR_CASES(cases),
            .ctx_size = sizeof(struct ctx), .create = create, .on_request = request,
            .on_response = response, .on_log = on_log, .on_response_body = body);
