/* Rules about fields: what bytes they hold, what is hop-by-hop, and the date. */
#include "http/field.c"

#include "../base/unit.h"

static void names_and_values(void **state)
{
        (void)state;
        assert_true(field_name_ok(STR("X-a_b.c!#$%&'*+^`|~9")));
        assert_false(field_name_ok(STR("")));
        assert_false(field_name_ok(STR("a b")));
        assert_false(field_name_ok(STR("a:")));
        assert_false(field_name_ok(STR("a\x80")));
        assert_true(field_value_ok(STR("")));
        assert_true(field_value_ok(STR("a \t b\x80\xff")));
        assert_false(field_value_ok(STR(" a")));
        assert_false(field_value_ok(STR("a\t")));
        assert_false(field_value_ok(STR("a\rb")));
        assert_false(field_value_ok(STR("a\nb")));
        assert_false(field_value_ok(STR("a\0b")));
        assert_false(field_value_ok(STR("a\x7f"
                                        "b")));
}

static void text_ends_at_every_place(void **state)
{
        char text[40];

        (void)state;
        for (int c = 0; c < 256; c++)
                for (size_t at = 0; at < sizeof(text); at++) {
                        memset(text, at & 1 ? 0xff : ' ', sizeof(text));
                        text[at] = (char)c;
                        bool ctl = (c < 0x20 && c != '\t') || c == 0x7f;
                        assert_int_equal(field_text_end(str_of(text, sizeof(text)), 0),
                                         ctl ? at : sizeof(text));
                        assert_int_equal(field_text_end(str_of(text, at), 0), at);
                }
}

static void lists(void **state)
{
        str rest = STR(" a ,, \"b,\\\"c\" ;q=1,\td"), e;

        (void)state;
        assert_true(field_list_next(&rest, &e));
        ASSERT_STR(e, "a");
        assert_true(field_list_next(&rest, &e));
        ASSERT_STR(e, "\"b,\\\"c\" ;q=1");
        assert_true(field_list_next(&rest, &e));
        ASSERT_STR(e, "d");
        assert_false(field_list_next(&rest, &e));
        assert_true(field_list_has(STR("x, Close"), STR("close")));
        assert_false(field_list_has(STR("closed"), STR("close")));
        assert_false(field_list_has(STR_NONE, STR("close")));
}

static void add(struct arena *a, struct fields *f, const char *name, const char *value)
{
        fields_add(a, f, field_id_of(str_z(name)), str_z(name), str_z(value));
}

static void hop_by_hop_fields_go(void **state)
{
        struct arena *a = arena_new(0);
        struct fields f = {0};
        static const char *const gone[] = {"Connection", "Keep-Alive",        "TE",
                                           "Upgrade",    "Transfer-Encoding", "Proxy-Connection",
                                           "X-Hop",      "X-Other",           "HTTP2-Settings"};

        (void)state;
        add(a, &f, "X-Hop", "1");
        add(a, &f, "Host", "h");
        add(a, &f, "Connection", "x-hop, Host, Content-Length, keep-alive");
        add(a, &f, "connection", "X-OTHER, transfer-encoding, upgrade");
        add(a, &f, "Content-Length", "5");
        add(a, &f, "Keep-Alive", "timeout=5");
        add(a, &f, "TE", "trailers");
        add(a, &f, "Upgrade", "websocket");
        add(a, &f, "Transfer-Encoding", "chunked");
        add(a, &f, "Proxy-Connection", "keep-alive");
        add(a, &f, "HTTP2-Settings", "x");
        add(a, &f, "x-other", "2");
        add(a, &f, "X-Other", "3");
        add(a, &f, "Cookie", "c");
        fields_add(a, &f, FIELD_OTHER, STR("x-hop"), STR("ours"))->flags |= FIELD_OWN;
        field_strip_hop(&f);
        assert_int_equal(fields_count(&f, STR("x-hop")), 1);
        ASSERT_STR(fields_find(&f, STR("x-hop"))->value, "ours");
        fields_del(&f, STR("x-hop"));
        for (size_t i = 0; i < COUNT(gone); i++)
                assert_null(fields_find(&f, str_z(gone[i])));
        assert_non_null(fields_get(&f, FIELD_HOST));
        assert_non_null(fields_get(&f, FIELD_CONTENT_LENGTH));
        assert_non_null(fields_get(&f, FIELD_COOKIE));
        assert_false(field_settable(FIELD_CONNECTION));
        assert_false(field_settable(FIELD_HOST));
        assert_true(field_settable(FIELD_COOKIE));
        assert_true(field_settable(FIELD_OTHER));
        arena_free(a);
}

static void dates(void **state)
{
        (void)state;
        ASSERT_STR(field_date(784111777 * SEC), "Sun, 06 Nov 1994 08:49:37 GMT");
        ASSERT_STR(field_date(784111777 * SEC + 999999), "Sun, 06 Nov 1994 08:49:37 GMT");
        ASSERT_STR(field_date(0), "Thu, 01 Jan 1970 00:00:00 GMT");
        ASSERT_STR(field_date(1709164800 * SEC), "Thu, 29 Feb 2024 00:00:00 GMT");
        ASSERT_STR(field_date(INT64_C(4102444799) * SEC), "Thu, 31 Dec 2099 23:59:59 GMT");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(names_and_values),
                cmocka_unit_test(text_ends_at_every_place),
                cmocka_unit_test(lists),
                cmocka_unit_test(hop_by_hop_fields_go),
                cmocka_unit_test(dates),
        };
        int failed = cmocka_run_group_tests(tests, NULL, NULL);
        arena_thread_end();
        return failed;
}
