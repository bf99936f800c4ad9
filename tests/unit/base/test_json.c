/* JSON out must be valid whatever the bytes; JSON in must be what RFC 8259 says, with its source.
 */
#include "base/json.c"

#include "unit.h"

static void check_string(str in, const char *want)
{
        struct buf b = BUF_INIT;

        json_string(&b, in);
        assert_true(str_eq(buf_pullup(&b, SIZE_MAX), str_z(want)));
        buf_clear(&b);
}

static void strings_are_escaped(void **state)
{
        (void)state;
        check_string(STR_NONE, "\"\"");
        check_string(STR("plain /text"), "\"plain /text\"");
        check_string(STR("a\"b\\c"), "\"a\\\"b\\\\c\"");
        check_string(STR("\b\f\n\r\t\x01\x1f\0"), "\"\\b\\f\\n\\r\\t\\u0001\\u001f\\u0000\"");
        check_string(STR("\x7f"), "\"\x7f\"");
        check_string(STR("\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80"),
                     "\"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\"");
        /* a lone byte, overlong, a surrogate, above U+10FFFF, cut at the end */
        check_string(STR("\x80z"), "\"\xef\xbf\xbdz\"");
        check_string(STR("\xc0\xaf"), "\"\xef\xbf\xbd\xef\xbf\xbd\"");
        check_string(STR("\xe0\x80\x80"), "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"");
        check_string(STR("\xed\xa0\x80"), "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"");
        check_string(STR("\xf4\x90\x80\x80"),
                     "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"");
        check_string(STR("\xf5"), "\"\xef\xbf\xbd\"");
        check_string(STR("x\xe2\x82"), "\"x\xef\xbf\xbd\xef\xbf\xbd\"");
}

static void writer_puts_commas(void **state)
{
        struct buf b = BUF_INIT;
        struct json_writer w;

        (void)state;
        json_begin(&w, &b);
        json_open(&w, '{');
        json_key(&w, STR("a"));
        json_u64(&w, UINT64_MAX);
        json_key(&w, STR("b\""));
        json_open(&w, '[');
        json_i64(&w, INT64_MIN);
        json_i64(&w, 0);
        json_bool(&w, true);
        json_bool(&w, false);
        json_null(&w);
        json_str(&w, STR("s"));
        json_str(&w, STR_NONE);
        json_open(&w, '[');
        json_close(&w);
        json_open(&w, '{');
        json_close(&w);
        json_double(&w, 0.1);
        json_double(&w, 1.0 / 3);
        json_double(&w, INFINITY);
        json_close(&w);
        json_key(&w, STR("c"));
        json_open(&w, '{');
        json_close(&w);
        json_close(&w);
        assert_int_equal(w.depth, 0);
        ASSERT_STR(buf_pullup(&b, SIZE_MAX),
                   "{\"a\":18446744073709551615,\"b\\\"\":[-9223372036854775808,0,true,false,null,"
                   "\"s\",null,[],{},0.1,0.33333333333333331,null],\"c\":{}}");
        buf_clear(&b);
}

static void key_outside(void *arg)
{
        struct json_writer w;

        json_begin(&w, arg);
        json_key(&w, STR("a"));
}

static void value_without_key(void *arg)
{
        struct json_writer w;

        json_begin(&w, arg);
        json_open(&w, '{');
        json_null(&w);
}

static void key_without_value(void *arg)
{
        struct json_writer w;

        json_begin(&w, arg);
        json_open(&w, '{');
        json_key(&w, STR("a"));
        json_close(&w);
}

static void too_deep(void *arg)
{
        struct json_writer w;

        json_begin(&w, arg);
        for (int i = 0; i <= JSON_DEPTH_MAX; i++)
                json_open(&w, '[');
}

static void misuse_aborts(void **state)
{
        struct buf b = BUF_INIT;

        (void)state;
        ASSERT_ABORTS(key_outside, &b);
        ASSERT_ABORTS(value_without_key, &b);
        ASSERT_ABORTS(key_without_value, &b);
        ASSERT_ABORTS(too_deep, &b);
}

static void parses_values(void **state)
{
        struct arena *a = arena_new(0);
        const struct json_value *v = json_parse(
                a, STR(" { \"a\" : [ 1 , -2.5,true,false , null ] , \"\\u0041\\\"\": "
                       "{\"x\\\\\": \"y\\u0000z,]}\"},\"e\":[ ],\"o\":{}, \"n\":1e2 } "));

        (void)state;
        assert_non_null(v);
        assert_int_equal(v->type, JSON_V_OBJECT);
        assert_int_equal(v->size, sizeof(*v));
        assert_int_equal(v->n, 5);
        ASSERT_STR(v->elem[0]->name, "a");
        assert_int_equal(v->elem[0]->type, JSON_V_ARRAY);
        ASSERT_STR(v->elem[0]->str, "[ 1 , -2.5,true,false , null ]");
        assert_int_equal(v->elem[0]->n, 5);
        assert_int_equal(v->elem[0]->elem[0]->type, JSON_V_INTEGER);
        assert_int_equal(v->elem[0]->elem[0]->integer, 1);
        assert_true(v->elem[0]->elem[0]->number == 1.0);
        assert_int_equal(v->elem[0]->elem[1]->type, JSON_V_NUMBER);
        assert_true(v->elem[0]->elem[1]->number == -2.5);
        assert_int_equal(v->elem[0]->elem[2]->type, JSON_V_BOOL);
        assert_int_equal(v->elem[0]->elem[2]->integer, 1);
        assert_int_equal(v->elem[0]->elem[3]->type, JSON_V_BOOL);
        assert_int_equal(v->elem[0]->elem[3]->integer, 0);
        assert_int_equal(v->elem[0]->elem[4]->type, JSON_V_NULL);
        assert_null(v->elem[0]->elem[4]->name.p);
        ASSERT_STR(v->elem[1]->name, "A\"");
        ASSERT_STR(v->elem[1]->str, "{\"x\\\\\": \"y\\u0000z,]}\"}");
        ASSERT_STR(v->elem[1]->elem[0]->name, "x\\");
        ASSERT_STR(v->elem[1]->elem[0]->str, "y\0z,]}");
        ASSERT_STR(v->elem[2]->str, "[ ]");
        ASSERT_STR(v->elem[3]->str, "{}");
        assert_true(v->elem[4]->number == 100.0);
        assert_int_equal(v->elem[4]->type, JSON_V_NUMBER);
        v = json_parse(a, STR(" \"only\" "));
        ASSERT_STR(v->str, "only");
        v = json_parse(a, STR("9223372036854775807"));
        assert_int_equal(v->integer, INT64_MAX);
        arena_free(a);
        arena_thread_end();
}

static void refuses(void **state)
{
        static const char *const bad[] = {"",
                                          "{",
                                          "[1,]",
                                          "{\"a\":1,}",
                                          "{\"a\":1,\"a\":2}",
                                          "nul",
                                          "1 2",
                                          "'a'",
                                          "{\"a\":{\"b\":1,\"b\":2}}",
                                          "\"\xff\"",
                                          "\"a\nb\"",
                                          "01",
                                          "[1}",
                                          "9223372036854775808",
                                          "\"\\ud800\"",
                                          "{\"a\\u0000b\":1}",
                                          "1e999",
                                          "+1",
                                          "NaN",
                                          "\"\\x\"",
                                          "{1:2}",
                                          "{\"a\":1,\"\\u0061\":2}"};
        struct arena *a = arena_new(0);
        char deep[2 * (JSON_DEPTH_MAX + 1)];

        (void)state;
        for (size_t i = 0; i < COUNT(bad); i++)
                if (json_parse(a, str_z(bad[i])))
                        fail_msg("was taken: %s", bad[i]);
        assert_null(json_parse(a, STR_NONE));
        memset(deep, '[', JSON_DEPTH_MAX + 1);
        memset(deep + JSON_DEPTH_MAX + 1, ']', JSON_DEPTH_MAX + 1);
        assert_null(json_parse(a, str_of(deep, sizeof(deep))));
        assert_non_null(json_parse(a, str_of(deep + 1, sizeof(deep) - 2)));
        arena_free(a);
        for (size_t limit = 16; limit < 2000; limit += 16) { /* each allocation may be refused */
                const struct json_value *v;
                a = arena_new(limit);
                v = json_parse(a, STR("{\"a\":[1,\"two\",{\"b\":null}]}"));
                assert_true(v == NULL ? limit < 1000 : v->elem[0]->n == 3);
                arena_free(a);
        }
        arena_thread_end();
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(strings_are_escaped),
                cmocka_unit_test(writer_puts_commas),
                cmocka_unit_test(misuse_aborts),
                cmocka_unit_test(parses_values),
                cmocka_unit_test(refuses),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
