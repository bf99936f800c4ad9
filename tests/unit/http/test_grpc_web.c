/* gRPC-Web and gRPC: both ways, however the bytes are cut. */
#include "http/grpc_web.c"

#include "../base/unit.h"

#include <stdlib.h>

/* What a text says, given in pieces of step bytes; NULL: it is not base64. */
static const char *decoded(const char *text, size_t step)
{
        static char out[256];
        struct grpc_web_decoder d = {0};
        struct buf in = BUF_INIT, b = BUF_INIT;
        bool well = true;
        size_t n = strlen(text);

        for (size_t at = 0; at < n && well; at += step) {
                buf_put(&in, text + at, MIN(step, n - at));
                well = grpc_web_decode(&d, &in, &b);
        }
        well = well && grpc_web_decoded(&d);
        assert_true(b.n < sizeof(out));
        out[buf_copy_out(&b, 0, out, sizeof(out) - 1)] = '\0';
        buf_clear(&in);
        buf_clear(&b);
        return well ? out : NULL;
}

static void texts(void **state)
{
        static const struct {
                const char *text, *says; /* NULL: nothing */
        } rows[] = {
                {"", ""},
                {"aGVsbG8=", "hello"},
                {"aGVsbA==", "hell"},
                {"aGVs", "hel"},
                {"aGVsbG8=aGVsbA==aGVs", "hellohellhel"}, /* pieces, each padded */
                {"aA==aA==aA==", "hhh"},
                {"+/+/", "\xfb\xff\xbf"},
                {"a", NULL},
                {"aG", NULL},
                {"aGV", NULL}, /* unpadded */
                {"aGVsb", NULL},
                {"aA=", NULL},
                {"aA=a", NULL},
                {"aA=A", NULL},
                {"a===", NULL},
                {"=aaa", NULL},
                {"====", NULL},
                {"aGVs=", NULL},
                {"aB==", NULL}, /* bits that belong to nothing */
                {"aGl=", NULL},
                {"-_-_", NULL},
                {"aG Vs", NULL},
                {"aGVs\n", NULL},
        };

        (void)state;
        for (size_t i = 0; i < COUNT(rows); i++) {
                for (size_t step = 1; step < 8; step++) {
                        const char *said = decoded(rows[i].text, step);
                        if (rows[i].says == NULL)
                                assert_null(said);
                        else if (!said || strcmp(said, rows[i].says) != 0)
                                fail_msg("%s: %s", rows[i].text, said ? said : "(nothing)");
                }
        }
}

#define BODY(text) STR_INIT(text)

/* The messages and the end as they come out, given in pieces of step bytes; absent: they are none.
 */
static str encoded(str body, bool text, size_t step, const struct fields *trailers)
{
        static char out[512];
        struct grpc_web_encoder e = {.text = text};
        struct buf in = BUF_INIT, b = BUF_INIT;
        bool well = true;
        size_t n;

        for (size_t at = 0; at < body.n && well; at += step) {
                buf_put(&in, body.p + at, MIN(step, body.n - at));
                well = grpc_web_encode(&e, &in, &b);
        }
        well = well && grpc_web_encode_end(&e, trailers, &b);
        assert_true(b.n <= sizeof(out));
        n = buf_copy_out(&b, 0, out, sizeof(out));
        buf_clear(&in);
        buf_clear(&b);
        return well ? str_of(out, n) : STR_NONE;
}

static void answers(void **state)
{
        static const struct {
                str body, binary, text;
        } rows[] = {
                {BODY(""), BODY("\x80\0\0\0\0"), BODY("gAAAAAA=")},
                {BODY("\0\0\0\0\0"), BODY("\0\0\0\0\0\x80\0\0\0\0"), BODY("AAAAAAA=gAAAAAA=")},
                {BODY("\0\0\0\0\1a"), BODY("\0\0\0\0\1a\x80\0\0\0\0"), BODY("AAAAAAFhgAAAAAA=")},
                {BODY("\1\0\0\0\2ab\0\0\0\0\3abc"), BODY("\1\0\0\0\2ab\0\0\0\0\3abc\x80\0\0\0\0"),
                 BODY("AQAAAAJhYg==AAAAAANhYmM=gAAAAAA=")},
                {BODY("\2\0\0\0\0"), {0}, {0}},
                {BODY("\x80\0\0\0\0"), {0}, {0}}, /* that is for us to say */
                {BODY("\0\0\0\0"), {0}, {0}},
                {BODY("\0\0\0\0\2a"), {0}, {0}},
                {BODY("\0\xff\xff\xff\xff"), {0}, {0}},
        };
        const struct fields none = {0};

        (void)state;
        for (size_t i = 0; i < COUNT(rows); i++) {
                for (size_t step = 1; step < 20; step++) {
                        str one = encoded(rows[i].body, false, step, &none);
                        assert_int_equal(one.p != NULL, rows[i].binary.p != NULL);
                        if (one.p)
                                assert_true(str_eq(one, rows[i].binary));
                        one = encoded(rows[i].body, true, step, &none);
                        assert_int_equal(one.p != NULL, rows[i].text.p != NULL);
                        if (one.p)
                                assert_true(str_eq(one, rows[i].text));
                }
        }
}

static void trailers(void **state)
{
        struct arena *a = arena_new(0);
        struct fields fs = {0};
        str got;

        (void)state;
        assert_non_null(fields_add(a, &fs, FIELD_OTHER, STR("Grpc-Status"), STR("0")));
        assert_non_null(fields_add(a, &fs, FIELD_OTHER, STR("gone"), STR("x")));
        assert_non_null(fields_add(a, &fs, FIELD_OTHER, STR("X-Last"), STR_NONE));
        assert_int_equal(fields_del(&fs, STR("gone")), 1);
        got = encoded(STR(""), false, 1, &fs);
        assert_int_equal(got.n, 5 + 16 + 10);
        assert_memory_equal(got.p, "\x80\0\0\0\x1agrpc-status: 0\r\nx-last: \r\n", got.n);
        arena_free(a);
}

/* More than a block at a time. */
static void large(void **state)
{
        struct grpc_web_encoder e = {.text = true};
        struct grpc_web_decoder d = {0};
        struct buf in = BUF_INIT, text = BUF_INIT, back = BUF_INIT;
        char *bytes = calloc(1, 100005);
        const unsigned char prefix[] = {0, 0, 1, 0x86, 0xa0};

        (void)state;
        assert_non_null(bytes);
        for (size_t i = 0; i < 100005; i++)
                bytes[i] = (char)(i * 7 + i / 251);
        memcpy(bytes, prefix, sizeof(prefix));
        buf_put(&in, bytes, 100005);
        assert_true(grpc_web_encode(&e, &in, &text));
        assert_int_equal(text.n, 100005 / 3 * 4);
        assert_true(grpc_web_decode(&d, &text, &back) && grpc_web_decoded(&d));
        assert_int_equal(back.n, 100005);
        assert_memory_equal(buf_pullup(&back, back.n).p, bytes, 100005);
        buf_clear(&back);
        free(bytes);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(texts),
                cmocka_unit_test(answers),
                cmocka_unit_test(trailers),
                cmocka_unit_test(large),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
