/*
 * The HTTP/1 parser: every rule of RFC 9112 that a request or response can break has a row, and
 * every row gives the same answer however its bytes are cut.
 */
#include "http/h1_parse.c"

#include "../base/unit.h"

#include <stdlib.h>

static const struct h1_limits wide = {32768, 16384, 128};

#define TEXT(lit)                                                                                  \
        {                                                                                          \
                "" lit, sizeof(lit) - 1                                                            \
        }
#define H "Host: h\r\n"

/* ---------------------------------------------------------------- requests */

struct request_row {
        str in;
        enum reason why;
        enum framing framing;
        uint64_t length;
        bool keep;
};

#define OK(in, framing, length, keep)                                                              \
        {                                                                                          \
                TEXT(in), REASON_NONE, FRAMING_##framing, length, keep                             \
        }
#define NO(in, why)                                                                                \
        {                                                                                          \
                TEXT(in), REASON_##why, FRAMING_NONE, 0, false                                     \
        }

static const struct request_row requests[] = {
        OK("GET / HTTP/1.1\r\n" H "\r\n", NONE, 0, true),
        OK("\r\nGET / HTTP/1.1\r\n" H "\r\n", NONE, 0, true),
        OK("GET / HTTP/1.0\r\n\r\n", NONE, 0, false),
        OK("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", NONE, 0, true),
        OK("GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", NONE, 0, false),
        OK("GET / HTTP/1.1\r\n" H "Connection: x, CLOSE\r\n\r\n", NONE, 0, false),
        OK("GET / HTTP/1.1\r\n" H "Connection: x\r\nConnection: close\r\n\r\n", NONE, 0, false),
        OK("GET / HTTP/1.9\r\n" H "\r\n", NONE, 0, true),
        OK("M-SEARCH /a?b=%zz HTTP/1.1\r\nHost:h:80 \t\r\n\r\n", NONE, 0, true),
        OK("GET /\xc3\xbc|\"{} HTTP/1.1\r\n" H "\r\n", NONE, 0, true),
        OK("GET / HTTP/1.1\r\n" H "A: \xff\tx\r\nB:\r\nC: \t \r\n\r\n", NONE, 0, true),
        OK("OPTIONS * HTTP/1.1\r\n" H "\r\n", NONE, 0, true),
        /* request line */
        NO("\r\n\r\nGET / HTTP/1.1\r\n" H "\r\n", BAD_REQUEST_LINE),
        NO("GET  / HTTP/1.1\r\n" H "\r\n", BAD_REQUEST_LINE),
        NO("GET /  HTTP/1.1\r\n" H "\r\n", BAD_REQUEST_LINE),
        NO(" GET / HTTP/1.1\r\n" H "\r\n", BAD_REQUEST_LINE),
        NO("GET\t/ HTTP/1.1\r\n" H "\r\n", BAD_REQUEST_LINE),
        NO("GET / HTTP/1.1 \r\n" H "\r\n", BAD_REQUEST_LINE),
        NO("GET /a b HTTP/1.1\r\n" H "\r\n", BAD_REQUEST_LINE),
        NO("GET /a\x01 HTTP/1.1\r\n" H "\r\n", BAD_REQUEST_LINE),
        NO("GET /a\0 HTTP/1.1\r\n" H "\r\n", BAD_REQUEST_LINE),
        NO("GET /a\r HTTP/1.1\r\n" H "\r\n", BAD_REQUEST_LINE),
        NO("GET /\r\n\r\n", BAD_REQUEST_LINE),
        NO("GET\r\n\r\n", BAD_REQUEST_LINE),
        NO("G(T / HTTP/1.1\r\n" H "\r\n", BAD_REQUEST_LINE),
        NO("GET / http/1.1\r\n" H "\r\n", BAD_REQUEST_LINE),
        NO("GET / HTTP/1.11\r\n" H "\r\n", BAD_REQUEST_LINE),
        NO("GET / HTTP/11\r\n" H "\r\n", BAD_REQUEST_LINE),
        NO("GET / HTTP/1,1\r\n" H "\r\n", BAD_REQUEST_LINE),
        NO("GET / HTTP/x.1\r\n" H "\r\n", BAD_REQUEST_LINE),
        NO("GET / HTTP/1.1\n" H "\r\n", BAD_REQUEST_LINE),
        NO("GET / HTTP/2.0\r\n" H "\r\n", VERSION),
        NO("GET / HTTP/0.9\r\n" H "\r\n", VERSION),
        NO("PRI * HTTP/2.0\r\n\r\n", VERSION),
        NO("CONNECT h:443 HTTP/1.1\r\n" H "\r\n", METHOD),
        NO("GET a HTTP/1.1\r\n" H "\r\n", BAD_TARGET),
        NO("GET * HTTP/1.1\r\n" H "\r\n", BAD_TARGET),
        NO("OPTIONS *x HTTP/1.1\r\n" H "\r\n", BAD_TARGET),
        NO("GET /a#b HTTP/1.1\r\n" H "\r\n", BAD_TARGET),
        NO("GET ftp://h/ HTTP/1.1\r\n" H "\r\n", BAD_TARGET),
        NO("GET http:/// HTTP/1.1\r\n" H "\r\n", BAD_TARGET),
        NO("GET http://u@h/ HTTP/1.1\r\n" H "\r\n", BAD_TARGET),
        NO("GET http://h:x/ HTTP/1.1\r\n" H "\r\n", BAD_TARGET),
        /* Host */
        NO("GET / HTTP/1.1\r\n\r\n", BAD_HOST),
        NO("GET / HTTP/1.1\r\nHost:\r\n\r\n", BAD_HOST),
        NO("GET / HTTP/1.1\r\n" H H "\r\n", BAD_HOST),
        NO("GET / HTTP/1.0\r\n" H "host: i\r\n\r\n", BAD_HOST),
        NO("GET http://h/ HTTP/1.1\r\n\r\n", BAD_HOST),
        NO("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", BAD_HOST),
        NO("GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", BAD_HOST),
        NO("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", BAD_HOST),
        NO("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", BAD_HOST),
        NO("GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", BAD_HOST),
        NO("GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n", BAD_HOST),
        NO("GET / HTTP/1.1\r\nHost: a:-1\r\n\r\n", BAD_HOST),
        NO("GET / HTTP/1.1\r\nHost: :80\r\n\r\n", BAD_HOST),
        NO("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", BAD_HOST),
        NO("GET / HTTP/1.1\r\nHost: [1]\r\n\r\n", BAD_HOST),
        NO("GET / HTTP/1.1\r\nHost: [::1]x\r\n\r\n", BAD_HOST),
        NO("GET / HTTP/1.1\r\nHost: a\\b\r\n\r\n", BAD_HOST),
        OK("GET / HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n", NONE, 0, true),
        OK("GET / HTTP/1.1\r\nHost: a_b.c-d:\r\n\r\n", NONE, 0, true),
        /* field lines */
        NO("GET / HTTP/1.1\r\n" H "A : b\r\n\r\n", BAD_FIELD),
        NO("GET / HTTP/1.1\r\n" H "A\t: b\r\n\r\n", BAD_FIELD),
        NO("GET / HTTP/1.1\r\n" H " A: b\r\n\r\n", BAD_FIELD),
        NO("GET / HTTP/1.1\r\n" H "A: b\r\n c\r\n\r\n", BAD_FIELD),
        NO("GET / HTTP/1.1\r\n" H "A: b\r\n\tc\r\n\r\n", BAD_FIELD),
        NO("GET / HTTP/1.1\r\n A: b\r\n" H "\r\n", BAD_FIELD),
        NO("GET / HTTP/1.1\r\n" H "A\r\n\r\n", BAD_FIELD),
        NO("GET / HTTP/1.1\r\n" H ": b\r\n\r\n", BAD_FIELD),
        NO("GET / HTTP/1.1\r\n" H "A: b\n\r\n", BAD_FIELD),
        NO("GET / HTTP/1.1\r\n" H "A: b\r\n\n", BAD_FIELD),
        NO("GET / HTTP/1.1\r\n" H "A: b\rc\r\n\r\n", BAD_FIELD),
        NO("GET / HTTP/1.1\r\n" H "A: b\r\r\n\r\n", BAD_FIELD),
        NO("GET / HTTP/1.1\r\n" H "A: b\0c\r\n\r\n", BAD_FIELD),
        NO("GET / HTTP/1.1\r\n" H "A: b\x7f\r\n\r\n", BAD_FIELD),
        NO("GET / HTTP/1.1\r\n" H "A\x80: b\r\n\r\n", BAD_FIELD),
        NO("GET / HTTP/1.1\r\n" H "A\0: b\r\n\r\n", BAD_FIELD),
        NO("GET / HTTP/1.1\r\n" H "\r \r\n\r\n", BAD_FIELD),
        /* framing */
        OK("POST / HTTP/1.1\r\n" H "Content-Length: 0\r\n\r\n", LENGTH, 0, true),
        OK("POST / HTTP/1.1\r\n" H "content-length:  0042 \r\n\r\n", LENGTH, 42, true),
        OK("POST / HTTP/1.0\r\nContent-Length: 3\r\n\r\n", LENGTH, 3, false),
        OK("POST / HTTP/1.1\r\n" H "Content-Length: 9223372036854775807\r\n\r\n", LENGTH, INT64_MAX,
           true),
        OK("POST / HTTP/1.1\r\n" H "Transfer-Encoding: Chunked\r\n\r\n", CHUNKED, 0, true),
        NO("POST / HTTP/1.1\r\n" H "Content-Length: 9223372036854775808\r\n\r\n", BAD_FRAMING),
        NO("POST / HTTP/1.1\r\n" H "Content-Length: 99999999999999999999\r\n\r\n", BAD_FRAMING),
        NO("POST / HTTP/1.1\r\n" H "Content-Length:\r\n\r\n", BAD_FRAMING),
        NO("POST / HTTP/1.1\r\n" H "Content-Length: +5\r\n\r\n", BAD_FRAMING),
        NO("POST / HTTP/1.1\r\n" H "Content-Length: -5\r\n\r\n", BAD_FRAMING),
        NO("POST / HTTP/1.1\r\n" H "Content-Length: 5 5\r\n\r\n", BAD_FRAMING),
        NO("POST / HTTP/1.1\r\n" H "Content-Length: 5, 5\r\n\r\n", BAD_FRAMING),
        NO("POST / HTTP/1.1\r\n" H "Content-Length: 0x5\r\n\r\n", BAD_FRAMING),
        NO("POST / HTTP/1.1\r\n" H "Content-Length: 5\r\nContent-Length: 6\r\n\r\n", BAD_FRAMING),
        NO("POST / HTTP/1.1\r\n" H "Content-Length: 5\r\nContent-Length: 5\r\n\r\n", BAD_FRAMING),
        NO("POST / HTTP/1.1\r\n" H "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
           BAD_FRAMING),
        NO("POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
           BAD_FRAMING),
        NO("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", BAD_FRAMING),
        NO("POST / HTTP/1.1\r\n" H "Transfer-Encoding: xchunked\r\n\r\n", BAD_FRAMING),
        NO("POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked;q=1\r\n\r\n", BAD_FRAMING),
        NO("POST / HTTP/1.1\r\n" H "Transfer-Encoding: \"chunked\"\r\n\r\n", BAD_FRAMING),
        NO("POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked, chunked\r\n\r\n", BAD_FRAMING),
        NO("POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked, gzip\r\n\r\n", BAD_FRAMING),
        NO("POST / HTTP/1.1\r\n" H "Transfer-Encoding: gzip\r\n\r\n", BAD_FRAMING),
        NO("POST / HTTP/1.1\r\n" H "Transfer-Encoding: identity\r\n\r\n", BAD_FRAMING),
        NO("POST / HTTP/1.1\r\n" H "Transfer-Encoding:\r\n\r\n", BAD_FRAMING),
        NO("POST / HTTP/1.1\r\n" H "Transfer-Encoding: ,chunked\r\n\r\n", BAD_FRAMING),
        NO("POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n",
           BAD_FRAMING),
        NO("POST / HTTP/1.1\r\n" H
           "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
           BAD_FRAMING),
        NO("POST / HTTP/1.1\r\n" H "Transfer-Encoding: gzip, chunked\r\n\r\n", TRANSFER_CODING),
        /* expectations */
        OK("POST / HTTP/1.1\r\n" H "Expect: 100-Continue\r\nContent-Length: 1\r\n\r\n", LENGTH, 1,
           true),
        NO("POST / HTTP/1.1\r\n" H "Expect: 200-ok\r\nContent-Length: 1\r\n\r\n", EXPECTATION),
        NO("POST / HTTP/1.1\r\n" H "Expect: 100-continue\r\nExpect: 100-continue\r\n\r\n",
           EXPECTATION),
        OK("POST / HTTP/1.0\r\nExpect: x\r\nContent-Length: 1\r\n\r\n", LENGTH, 1, false),
};

/* Feeds in[0..first) and then the rest, each in steps of `step` bytes. */
static enum reason parse_cut(struct arena *a, str in, size_t first, size_t step, struct msg *m)
{
        struct h1_scan s = {.kind = H1_REQUEST};
        enum reason why = REASON_NONE;
        uint64_t measured = 0;
        ptrdiff_t n = 0;
        for (size_t have = MIN(first, in.n);; have = MIN(in.n, have + step)) {
                char *copy = malloc(have + 1); /* so that a read beyond it is seen */
                memcpy(copy, in.p, have);
                n = h1_head_end(&s, str_of(copy, have), &wide, &why, &measured);
                free(copy);
                if (n || have == in.n)
                        break;
        }
        if (n < 0)
                return why;
        assert_int_equal(n, in.n);
        return h1_parse_request(a, arena_dup(a, str_from(in, s.skip)), m);
}

static void requests_by_the_rules(void **state)
{
        (void)state;
        for (size_t i = 0; i < COUNT(requests); i++) {
                const struct request_row *w = &requests[i];
                for (size_t cut = 0; cut <= w->in.n; cut++) {
                        struct arena *a = arena_new(0);
                        struct msg m = {0};
                        enum reason why = parse_cut(a, w->in, cut, cut ? w->in.n : 1, &m);
                        if (why != w->why)
                                fail_msg("%.*s: %s, not %s (cut at %zu)", STR_ARG(w->in),
                                         reason_word(why), reason_word(w->why), cut);
                        if (why == REASON_NONE) {
                                assert_int_equal(m.framing, w->framing);
                                assert_int_equal(m.length, w->length);
                                assert_int_equal(m.keep_alive, w->keep);
                        }
                        arena_free(a);
                }
        }
}

static enum reason parse(struct arena *a, const char *text, struct msg *m)
{
        *m = (struct msg){0};
        return parse_cut(a, str_z(text), SIZE_MAX, 1, m);
}

static void what_is_read(void **state)
{
        struct arena *a = arena_new(0);
        struct msg m;

        (void)state;
        assert_int_equal(parse(a,
                               "PUT /p?q HTTP/1.1\r\nHost: Ex.org:81\r\nX-A:  b c\t\r\n"
                               "cookie: k\r\nexpect: 100-continue\r\nContent-Length: 2\r\n\r\n",
                               &m),
                         REASON_NONE);
        assert_int_equal(m.method, METHOD_PUT);
        ASSERT_STR(m.method_text, "PUT");
        ASSERT_STR(m.target, "/p?q");
        ASSERT_STR(m.authority, "Ex.org:81");
        assert_int_equal(m.version, 11);
        assert_true(m.expect_continue);
        assert_int_equal(m.fields.n, 5);
        ASSERT_STR(m.fields.v[1].name, "X-A");
        ASSERT_STR(m.fields.v[1].value, "b c");
        assert_int_equal(m.fields.v[2].id, FIELD_COOKIE);
        assert_null(m.upgrade.p);

        assert_int_equal(parse(a, "GET / HTTP/1.0\r\n\r\n", &m), REASON_NONE);
        assert_null(m.authority.p);
        assert_int_equal(m.version, 10);

        arena_free(a);
}

static void absolute_targets_win_over_host(void **state)
{
        static const struct {
                const char *in, *target, *authority, *host;
        } rows[] = {
                {"GET http://a.b:8/p?q HTTP/1.1\r\nHost: c\r\n\r\n", "/p?q", "a.b:8", "a.b:8"},
                {"GET HTTPS://a HTTP/1.1\r\nHost: c\r\n\r\n", "/", "a", "a"},
                {"GET http://a?q HTTP/1.1\r\nHost: a\r\n\r\n", "/?q", "a", "a"},
                {"OPTIONS http://a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", "*", "a:1", "a:1"},
                {"OPTIONS http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", "/", "a", "a"},
                {"GET http://a/ HTTP/1.1\r\nHost:\r\n\r\n", "/", "a", "a"},
                {"GET http://a/ HTTP/1.0\r\n\r\n", "/", "a", NULL},
                {"GET http://[::1]:8/ HTTP/1.1\r\nHost: x\r\n\r\n", "/", "[::1]:8", "[::1]:8"},
        };
        (void)state;
        for (size_t i = 0; i < COUNT(rows); i++) {
                struct arena *a = arena_new(0);
                struct msg m;
                assert_int_equal(parse(a, rows[i].in, &m), REASON_NONE);
                assert_true(str_eq(m.target, str_z(rows[i].target)));
                assert_true(str_eq(m.authority, str_z(rows[i].authority)));
                struct field *host = fields_get(&m.fields, FIELD_HOST);
                assert_int_equal(host != NULL, rows[i].host != NULL);
                if (host)
                        assert_true(str_eq(host->value, str_z(rows[i].host)));
                arena_free(a);
        }
}

static void upgrades(void **state)
{
        static const struct {
                const char *fields, *upgrade;
        } rows[] = {
                {"Connection: Upgrade\r\nUpgrade: websocket\r\n", "websocket"},
                {"Connection: keep-alive, upgrade\r\nUpgrade: a/1, H2C, b\r\n", "a/1, b"},
                {"Connection: upgrade\r\nUpgrade: a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q,r,s,t,u\r\n",
                 "a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t, u"},
                {"Connection: upgrade\r\nUpgrade: a\r\nUpgrade: h2c\r\nUpgrade: b\r\n", "a, b"},
                {"Connection: upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n", NULL},
                {"Upgrade: websocket\r\n", NULL},
                {"Connection: upgrade\r\n", NULL},
                {"Connection: upgrade\r\nUpgrade:\r\n", NULL},
        };
        (void)state;
        for (size_t i = 0; i < COUNT(rows); i++) {
                struct arena *a = arena_new(0);
                struct msg m;
                str in = arena_printf(a, "GET / HTTP/1.1\r\nHost: h\r\n%s\r\n", rows[i].fields);
                assert_int_equal(parse(a, in.p, &m), REASON_NONE);
                assert_int_equal(m.upgrade.p != NULL, rows[i].upgrade != NULL);
                assert_true(str_eq(m.upgrade, str_z(rows[i].upgrade)));
                in = arena_printf(a, "GET / HTTP/1.0\r\nHost: h\r\n%s\r\n", rows[i].fields);
                assert_int_equal(parse(a, in.p, &m), REASON_NONE);
                assert_null(m.upgrade.p); /* HTTP/1.0 has no upgrades */
                arena_free(a);
        }
}

/* ---------------------------------------------------------------- limits */

static void limits(void **state)
{
        static const struct h1_limits lim = {100, 40, 3};
        static const struct {
                enum h1_kind kind;
                str in;
                enum reason why;
                uint64_t measured; /* when it comes in one piece */
        } rows[] = {
                {H1_REQUEST, TEXT("GET /0123456789012345678901234 HTTP/1.1\r\n\r\n"), REASON_NONE,
                 0},
                {H1_REQUEST, TEXT("GET /0123456789012345678901234567 HTTP/1.1\r\n\r\n"),
                 REASON_HEADER_LINE, 42},
                {H1_REQUEST,
                 TEXT("GET / HTTP/1.1\r\nA: 0123456789012345678901234567890123456\r\n\r\n"),
                 REASON_NONE, 0},
                {H1_REQUEST,
                 TEXT("GET / HTTP/1.1\r\nA: 01234567890123456789012345678901234567\r\n\r\n"),
                 REASON_FIELD_LINE, 41},
                {H1_REQUEST, TEXT("GET / HTTP/1.1\r\nA:\r\nB:\r\nC:\r\n\r\n"), REASON_NONE, 0},
                {H1_REQUEST, TEXT("GET / HTTP/1.1\r\nA:\r\nB:\r\nC:\r\nD:\r\n\r\n"),
                 REASON_HEADER_FIELDS, 4},
                {H1_REQUEST,
                 TEXT("GET / HTTP/1.1\r\nA: 012345678901234567890123456789012345\r\n"
                      "B: 012345678901234567890123456789012345\r\n\r\n"),
                 REASON_NONE, 0},
                {H1_REQUEST,
                 TEXT("GET / HTTP/1.1\r\nA: 012345678901234567890123456789012345\r\n"
                      "B: 0123456789012345678901234567890123456\r\n\r\n"),
                 REASON_HEADER_MAX, 101},
                {H1_REQUEST, TEXT("\r\nGET /0123456789012345678901234 HTTP/1.1\r\n\r\n"),
                 REASON_NONE, 0},
                {H1_RESPONSE, TEXT("\r\n"), REASON_BAD_REQUEST_LINE, 0},
                {H1_RESPONSE, TEXT("HTTP/1.1 200 OK\r\n\r\n"), REASON_NONE, 0},
                {H1_TRAILER, TEXT("\r\n"), REASON_NONE, 0},
                {H1_TRAILER, TEXT("A: b\r\nB: c\r\nC: d\r\n\r\n"), REASON_NONE, 0},
                {H1_TRAILER, TEXT("A: b\r\nB: c\r\nC: d\r\nD: e\r\n\r\n"), REASON_HEADER_FIELDS, 4},
                {H1_TRAILER, TEXT("A: 01234567890123456789012345678901234567\r\n\r\n"),
                 REASON_FIELD_LINE, 41},
                {H1_TRAILER, TEXT("A: b\n\r\n"), REASON_BAD_TRAILER, 0},
        };

        (void)state;
        for (size_t i = 0; i < COUNT(rows); i++)
                for (size_t step = 1; step <= rows[i].in.n; step++) {
                        struct h1_scan s = {.kind = rows[i].kind};
                        enum reason why = REASON_NONE;
                        uint64_t measured = 0;
                        ptrdiff_t n = 0;
                        for (size_t have = step; !n; have += step) {
                                n = h1_head_end(&s, str_head(rows[i].in, have), &lim, &why,
                                                &measured);
                                if (have >= rows[i].in.n)
                                        break;
                        }
                        if (why != rows[i].why)
                                fail_msg("row %zu: %s", i, reason_word(why));
                        if (why == REASON_NONE)
                                assert_int_equal(n, rows[i].in.n);
                        else
                                assert_int_equal(n, -1);
                        if (step == rows[i].in.n)
                                assert_int_equal(measured, rows[i].measured);
                }
}

static void a_refused_request_can_be_peeked(void **state)
{
        struct arena *a = arena_new(0);
        struct msg m = {0};

        (void)state;
        h1_peek_request(a, STR("POST http://h/p HTTP/1.1\r\nunfinished"), &m);
        ASSERT_STR(m.target, "/p");
        ASSERT_STR(m.authority, "h");
        m = (struct msg){0};
        h1_peek_request(a, STR("POST /p HT"), &m);
        assert_int_equal(m.method, METHOD_POST);
        h1_peek_request(a, STR(""), &m);
        arena_free(a);
}

/* ---------------------------------------------------------------- responses */

struct response_row {
        str in;
        enum method method;
        enum reason why;
        int status;
        enum framing framing;
        uint64_t length;
        bool keep;
};

#define RES(in, method, status, framing, length, keep)                                             \
        {                                                                                          \
                TEXT(in), METHOD_##method, REASON_NONE, status, FRAMING_##framing, length, keep    \
        }
#define BAD_RES(in, why)                                                                           \
        {                                                                                          \
                TEXT(in), METHOD_GET, REASON_UPSTREAM_##why, 0, FRAMING_NONE, 0, false             \
        }

static const struct response_row responses[] = {
        RES("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", GET, 200, LENGTH, 5, true),
        RES("HTTP/1.1 200\r\nContent-Length: 5\r\n\r\n", GET, 200, LENGTH, 5, true),
        RES("HTTP/1.1 200 \r\nContent-Length: 5\r\n\r\n", GET, 200, LENGTH, 5, true),
        RES("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", GET, 200, LENGTH, 5, false),
        RES("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\n", GET, 200,
            LENGTH, 5, true),
        RES("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\n", GET, 200, LENGTH,
            5, false),
        RES("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", GET, 200, CHUNKED, 0, true),
        RES("HTTP/1.1 200 OK\r\n\r\n", GET, 200, CLOSE, 0, false),
        RES("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", HEAD, 200, NONE, 5, true),
        RES("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", HEAD, 200, NONE, 0, true),
        RES("HTTP/1.1 200 OK\r\n\r\n", HEAD, 200, NONE, 0, true),
        RES("HTTP/1.1 204 No\r\n\r\n", GET, 204, NONE, 0, true),
        RES("HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\n", GET, 204, NONE, 0, true),
        RES("HTTP/1.1 304 NM\r\nContent-Length: 9\r\n\r\n", GET, 304, NONE, 9, true),
        RES("HTTP/1.1 100 Continue\r\n\r\n", GET, 100, NONE, 0, true),
        RES("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", GET, 103, NONE, 0, true),
        RES("HTTP/1.1 101 Sw\r\nConnection: upgrade\r\nUpgrade: a\r\n\r\n", GET, 101, TUNNEL, 0,
            true),
        RES("HTTP/1.1 999 \xff odd\r\n\r\n", GET, 999, CLOSE, 0, false),
        BAD_RES("HTTP/1.1 100 Continue\r\nContent-Length: 0\r\n\r\n", FRAMING),
        BAD_RES("HTTP/1.1 101 Sw\r\nTransfer-Encoding: chunked\r\n\r\n", FRAMING),
        BAD_RES("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", FRAMING),
        BAD_RES("HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n", FRAMING),
        BAD_RES("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", FRAMING),
        BAD_RES("HTTP/1.1 304 NM\r\nContent-Length: x\r\n\r\n", FRAMING),
        BAD_RES("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
                FRAMING),
        BAD_RES("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", FRAMING),
        BAD_RES("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", FRAMING),
        BAD_RES("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", FRAMING),
        BAD_RES("HTTP/1.1 20 OK\r\n\r\n", HEAD),
        BAD_RES("HTTP/1.1 2000 OK\r\n\r\n", HEAD),
        BAD_RES("HTTP/1.1 099 OK\r\n\r\n", HEAD),
        BAD_RES("HTTP/1.1 2x0 OK\r\n\r\n", HEAD),
        BAD_RES("HTTP/1.1  200 OK\r\n\r\n", HEAD),
        BAD_RES("HTTP/1.1 200\tOK\r\n\r\n", HEAD),
        BAD_RES("HTTP/1.1 200 O\x01K\r\n\r\n", HEAD),
        BAD_RES("HTTP/1.1 200 OK\rX\r\n\r\n", HEAD),
        BAD_RES("HTTP/1.2 200 OK\r\n\r\n", HEAD),
        BAD_RES("HTTP/2.0 200 OK\r\n\r\n", HEAD),
        BAD_RES("http/1.1 200 OK\r\n\r\n", HEAD),
        BAD_RES("ICY 200 OK\r\n\r\n", HEAD),
        BAD_RES("\r\nHTTP/1.1 200 OK\r\n\r\n", HEAD),
        BAD_RES("H\r\n\r\n", HEAD),
        BAD_RES("HTTP/1.1 200 OK\r\nA b\r\n\r\n", HEAD),
        BAD_RES("HTTP/1.1 200 OK\r\nA : b\r\n\r\n", HEAD),
        BAD_RES("HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", HEAD),
        BAD_RES("HTTP/1.1 200 OK\r\nA: b\0\r\n\r\n", HEAD),
};

static void responses_by_the_rules(void **state)
{
        (void)state;
        for (size_t i = 0; i < COUNT(responses); i++) {
                const struct response_row *w = &responses[i];
                struct arena *a = arena_new(0);
                struct msg m = {0};
                enum reason why = h1_parse_response(a, w->in, w->method, &m);
                if (why != w->why)
                        fail_msg("%.*s: %s, not %s", STR_ARG(w->in), reason_word(why),
                                 reason_word(w->why));
                if (why == REASON_NONE) {
                        assert_int_equal(m.status, w->status);
                        assert_int_equal(m.framing, w->framing);
                        assert_int_equal(m.length, w->length);
                        assert_int_equal(m.keep_alive, w->keep);
                }
                arena_free(a);
        }
}

/* ---------------------------------------------------------------- chunks */

static const struct {
        str in, data; /* data absent: refused */
} chunks[] = {
        {TEXT("0\r\n"), TEXT("")},
        {TEXT("5\r\nhello\r\n0\r\n"), TEXT("hello")},
        {TEXT("00005\r\nhello\r\nA\r\n0123456789\r\n000\r\n"), TEXT("hello0123456789")},
        {TEXT("1;a\r\nx\r\n1 ; b=\"c d\"\r\ny\r\n0;z\r\n"), TEXT("xy")},
        {TEXT("\r\n"), {NULL, 0}},
        {TEXT("g\r\n"), {NULL, 0}},
        {TEXT("-1\r\n"), {NULL, 0}},
        {TEXT("+1\r\n"), {NULL, 0}},
        {TEXT("0x1\r\n"), {NULL, 0}},
        {TEXT(" 1\r\n"), {NULL, 0}},
        {TEXT("1 \r\nx\r\n0\r\n"), {NULL, 0}},
        {TEXT("1 x\r\nx\r\n0\r\n"), {NULL, 0}},
        {TEXT("1,1\r\nx\r\n0\r\n"), {NULL, 0}},
        {TEXT("1\nx\r\n0\r\n"), {NULL, 0}},
        {TEXT("1\r\rx\r\n0\r\n"), {NULL, 0}},
        {TEXT("1;a\nb\r\nx\r\n0\r\n"), {NULL, 0}},
        {TEXT("1;a\0\r\nx\r\n0\r\n"), {NULL, 0}},
        {TEXT("1;a\rb\r\nx\r\n0\r\n"), {NULL, 0}},
        {TEXT("1\r\nxy\r\n0\r\n"), {NULL, 0}},
        {TEXT("1\r\nx\n0\r\n"), {NULL, 0}},
        {TEXT("1\r\nx0\r\n"), {NULL, 0}},
        {TEXT("8000000000000000\r\n"), {NULL, 0}},
        {TEXT("00000000000000001\r\nx\r\n0\r\n"), {NULL, 0}},
        {TEXT("10000000000000000\r\n"), {NULL, 0}},
};

static void chunked_bodies(void **state)
{
        (void)state;
        for (size_t i = 0; i < COUNT(chunks); i++)
                for (size_t step = 1; step <= chunks[i].in.n; step++) {
                        struct h1_chunked c = {0};
                        char data[64];
                        size_t n = 0, used, at = 0, have = MIN(step, chunks[i].in.n);
                        enum h1_step r;
                        for (;;) {
                                r = h1_chunked_next(&c, str_of(chunks[i].in.p + at, have - at),
                                                    &used);
                                at += used;
                                if (r == H1_DATA && at < have) {
                                        size_t take = MIN(have - at, c.left);
                                        memcpy(data + n, chunks[i].in.p + at, take);
                                        n += take;
                                        at += take;
                                        h1_chunked_took(&c, take);
                                } else if (r == H1_BAD || r == H1_TRAILERS ||
                                           have == chunks[i].in.n) {
                                        break;
                                } else {
                                        have = MIN(have + step, chunks[i].in.n);
                                }
                        }
                        if (!chunks[i].data.p) {
                                if (r != H1_BAD)
                                        fail_msg("row %zu is let through", i);
                                continue;
                        }
                        assert_int_equal(r, H1_TRAILERS);
                        assert_int_equal(at, chunks[i].in.n);
                        assert_true(str_eq(str_of(data, n), chunks[i].data));
                }
}

static void extensions_have_a_bound(void **state)
{
        struct h1_chunked c = {0};
        static char line[40 * 1024];
        size_t used;

        (void)state;
        memset(line, 'x', sizeof(line));
        line[0] = '1';
        line[1] = ';';
        assert_int_equal(h1_chunked_next(&c, str_of(line, sizeof(line)), &used), H1_BAD);

        c = (struct h1_chunked){0};
        enum h1_step r = H1_MORE;
        unsigned rounds = 0;
        while (r != H1_BAD && ++rounds < 10000) { /* a kilobyte of extension for each byte */
                r = h1_chunked_next(&c, str_of(line, 1024), &used);
                r = r == H1_BAD ? r : h1_chunked_next(&c, STR("\r\n"), &used);
                if (r == H1_DATA) {
                        h1_chunked_took(&c, 1);
                        r = h1_chunked_next(&c, STR("\r\n"), &used);
                }
        }
        assert_true(rounds < 20);
        c = (struct h1_chunked){0};
        for (rounds = 0; rounds < 10000; rounds++) { /* a few bytes for each are excused */
                assert_int_equal(h1_chunked_next(&c, STR("1;abcdefgh\r\n"), &used), H1_DATA);
                h1_chunked_took(&c, 1);
                assert_int_equal(h1_chunked_next(&c, STR("\r\n"), &used), H1_MORE);
        }
}

static void trailers(void **state)
{
        static const struct {
                str in;
                int n; /* live fields; -1: refused */
        } rows[] = {
                {TEXT("\r\n"), 0},
                {TEXT("A: b\r\nX-Sum: 1\r\n\r\n"), 2},
                {TEXT("ETag: \"x\"\r\n\r\n"), 1},
                {TEXT("Authorization: x\r\nA: b\r\nX-Forwarded-For: 1\r\n\r\n"), 1},
                {TEXT("Content-Length: 5\r\n\r\n"), -1},
                {TEXT("transfer-encoding: chunked\r\n\r\n"), -1},
                {TEXT("Host: x\r\n\r\n"), -1},
                {TEXT("A b\r\n\r\n"), -1},
                {TEXT("A : b\r\n\r\n"), -1},
                {TEXT("A: b\r\n c\r\n\r\n"), -1},
                {TEXT("A: b\0\r\n\r\n"), -1},
        };

        (void)state;
        for (size_t i = 0; i < COUNT(rows); i++) {
                struct arena *a = arena_new(0);
                struct fields fs = {0};
                int n = 0;
                enum reason why = h1_parse_trailers(a, rows[i].in, &fs);
                assert_int_equal(why, rows[i].n < 0 ? REASON_BAD_TRAILER : REASON_NONE);
                FIELDS_EACH(f, &fs)
                {
                        n++;
                }
                assert_int_equal(n, MAX(rows[i].n, 0));
                arena_free(a);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(requests_by_the_rules),
                cmocka_unit_test(what_is_read),
                cmocka_unit_test(absolute_targets_win_over_host),
                cmocka_unit_test(upgrades),
                cmocka_unit_test(limits),
                cmocka_unit_test(a_refused_request_can_be_peeked),
                cmocka_unit_test(responses_by_the_rules),
                cmocka_unit_test(chunked_bodies),
                cmocka_unit_test(extensions_have_a_bound),
                cmocka_unit_test(trailers),
        };
        int failed = cmocka_run_group_tests(tests, NULL, NULL);
        arena_thread_end();
        return failed;
}
