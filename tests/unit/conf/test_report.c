/* The caret stands under the fault whatever the line holds. */
#include "conf/report.c"

#include "../base/unit.h"

static void caret(void **state)
{
        static const struct {
                const char *text;
                unsigned col;
                const char *want;
        } cases[] = {
                {"abc", 2, "f:3:2: no\n    abc\n     ^\n"},
                {"\tabc", 2, "f:3:2: no\n    \tabc\n    \t^\n"},
                {"\xc3\xa4\xc3\xa4x", 5, "f:3:5: no\n    \xc3\xa4\xc3\xa4x\n      ^\n"},
                {"abc", 4, "f:3:4: no\n    abc\n       ^\n"},
                {"abc", 99, "f:3:99: no\n    abc\n       ^\n"},
                {"a\x1b[2Jb\x01", 1, "f:3:1: no\n    a?[2Jb\x01\n    ^\n"},
                {"", 1, "f:3:1: no\n    \n    ^\n"},
        };

        (void)state;
        for (size_t i = 0; i < COUNT(cases); i++) {
                struct report r = {0};
                struct conf_pos at = {STR("f"), 3, cases[i].col, str_z(cases[i].text)};
                report_error(&r, &at, "no");
                str out = buf_pullup(&r.out, r.out.n);
                if (!str_eq(out, str_z(cases[i].want)))
                        fail_msg("%s: %.*s", cases[i].text, STR_ARG(out));
                buf_clear(&r.out);
        }
}

static void long_line(void **state)
{
        char text[1000];
        struct report r = {0};
        struct conf_pos at = {STR("f"), 1, 500, str_of(text, sizeof text)};

        (void)state;
        memset(text, 'a', sizeof text);
        text[499] = 'X';
        report_error(&r, &at, "no");
        str out = buf_pullup(&r.out, r.out.n);
        assert_in_range(out.n, 200, 300);
        ptrdiff_t x = str_chr(out, 'X'), c = str_chr(out, '^'), line = str_chr(out, '\n');
        ptrdiff_t second = line + 1 + str_chr(str_from(out, (size_t)line + 1), '\n');
        assert_int_equal(x - line, c - second);
        buf_clear(&r.out);
}

static void without_a_place(void **state)
{
        struct report r = {0};
        struct conf_pos nowhere = {STR_NONE, 0, 0, STR_NONE};

        (void)state;
        report_error(&r, NULL, "a %d", 1);
        report_warning(&r, &nowhere, "b\n%s", "\x1b");
        assert_int_equal(r.errors, 1);
        assert_int_equal(r.warnings, 1);
        str out = buf_pullup(&r.out, r.out.n);
        ASSERT_STR(out, "a 1\nwarning: b??\n");
        buf_clear(&r.out);
}

static void nearest(void **state)
{
        static const str names[] = {STR_INIT("listen"), STR_INIT("timeout"), STR_INIT("host"),
                                    STR_INIT("two"), STR_INIT("u")};
        static const struct {
                const char *word, *near;
        } cases[] = {{"lisen", "listen"}, {"tiemout", "timeout"}, {"hots", "host"}, {"tow", "two"},
                     {"uu", "u"},         {"abc", NULL},          {"x", "u"},       {"", NULL},
                     {"hosts", "host"},   {"completely", NULL}};

        (void)state;
        for (size_t i = 0; i < COUNT(cases); i++) {
                str got = report_nearest(str_z(cases[i].word), names, COUNT(names));
                if (!str_eq(got, str_z(cases[i].near)))
                        fail_msg("%s: %.*s", cases[i].word, STR_ARG(got));
        }
        struct report r = {0};
        struct conf_pos at = {STR("f"), 1, 1, STR("hots")};
        report_unknown(&r, &at, STR("hots"), names, COUNT(names), "what is %s", "hots");
        str out = buf_pullup(&r.out, r.out.n);
        ASSERT_STR(out, "f:1:1: what is hots (did you mean \"host\"?)\n    hots\n    ^\n");
        buf_clear(&r.out);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(caret),
                cmocka_unit_test(long_line),
                cmocka_unit_test(without_a_place),
                cmocka_unit_test(nearest),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
