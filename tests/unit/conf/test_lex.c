/* Words: every form, what is replaced in them, where each byte came from, and going on after
 * faults. */
#include "conf/lex.c"

#include "../base/unit.h"
#include "memory.h"

#include <stdlib.h>

static const struct memory_entry files[] = {
        {"/p/a.txt", "in ; the $file }\n"}, {"/abs", "x"}, {"/p/empty", ""}, {0}};
static const struct memory_entry env[] = {
        {"A", "value"}, {"SPACE", "a b;{}#$host"}, {"EMPTY", ""}, {0}};

struct fixture {
        struct arena *a;
        struct memory m;
        struct report rep;
        struct lex l;
        struct word w;
};

static struct fixture *begin(const char *text)
{
        struct fixture *f = calloc(1, sizeof *f);

        f->a = arena_new(0);
        f->m = MEMORY(files, env);
        lex_init(&f->l, f->a, &f->m.source, &f->rep, STR("/p"), STR("f"), str_z(text));
        return f;
}

static void end(struct fixture *f)
{
        arena_free(f->a);
        buf_clear(&f->rep.out);
        free(f);
}

/* Words as <word>, other tokens as they are; then how many mistakes. */
static void tokens(void **state)
{
        static const struct {
                const char *text, *want;
                unsigned errors;
        } cases[] = {
                {"a b;c{d}", "<a><b>;<c>{<d>}", 0},
                {"a # b\nc#d;#e", "<a><c#d>;", 0},
                {"a\\n\\;", "<a\\n\\>;", 0},
                {"\"a\\\"\\\\\\n\\t\\r\"", "<a\"\\\n\t\r>", 0},
                {"'a\\n\"${env:A}'", "<a\\n\"${env:A}>", 0},
                {"\"\" ''", "<><>", 0},
                {"\"a\nb\" c", "<a\nb><c>", 0},
                {"${env:A}x", "<valuex>", 0},
                {"x${env:SPACE}y;", "<xa b;{}#$hosty>;", 0},
                {"\"${env:A} ${env:A}\"", "<value value>", 0},
                {"${env:NO:-a b;}", "<a b;>", 0},
                {"${env:EMPTY:-d}${env:EMPTY}", "<d>", 0},
                {"${env:A:-d}", "<value>", 0},
                {"${env:NO:-}", "<>", 0},
                {"$${env:A}", "<$${env:A}>", 0},
                {"${file:a.txt}", "<in ; the $file }\n>", 0},
                {"${file:/abs}${file:empty}", "<x>", 0},
                {"${host}/a ${a;b}", "<${host}/a><${a;b}>", 0},
                {"k=\"a b\" k='a b' k=a", "<k=a b><k=a b><k=a>", 0},
                {"a\"b", "<a\"b>", 0},
                {"http://x/?next=/a", "<http://x/?next=/a>", 0},
                {"a <<END\n x; {\n$\nEND\nb", "<a>< x; {\n$\n><b>", 0},
                {"a k=<<E\nx\nE\n;", "<a><k=x\n>;", 0},
                {"a <<END\nEND", "<a><>", 0},
                {"<<E\r\na\r\nE\r\nb", "<a\r\n><b>", 0},
                {"<<E\n E\nEE\nE\n", "< E\nEE\n>", 0},
                {"a <<1 b", "<a><<<1><b>", 0},
                {"\xef\xbb\xbf"
                 "a",
                 "<a>", 0},
                {"\"a\\qb\"", "<a\\qb>", 1},
                {"\"a\nb;", "<><b>;", 1},
                {"'a b\nc;", "<><c>;", 1},
                {"x k='a b\nc;", "<x><><c>;", 1},
                {"\"a\"b;", "<a><b>;", 1},
                {"a <<END b\nx\nEND\n", "<a><x\n>", 1},
                {"a <<END\nx", "<a><x>", 1},
                {"${env:NO}", "<>", 1},
                {"${env:}", "<>", 1},
                {"${file:}", "<>", 1},
                {"${file:none}", "<>", 1},
                {"${abc d;", "<${abc><d>;", 1},
                {"a\x01"
                 "b \x02",
                 "<ab>", 2},
        };

        (void)state;
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
                struct fixture *f = begin(cases[i].text);
                char got[512] = "";
                enum token t;
                while ((t = lex_next(&f->l, &f->w)) != TOKEN_END) {
                        size_t n = strlen(got);
                        if (t == TOKEN_WORD)
                                snprintf(got + n, sizeof got - n, "<%.*s>", STR_ARG(f->w.text));
                        else
                                snprintf(got + n, sizeof got - n, "%c", " :;{}"[t]);
                }
                if (strcmp(got, cases[i].want) || f->rep.errors != cases[i].errors)
                        fail_msg("%s: %s, %u mistakes\n%.*s", cases[i].text, got, f->rep.errors,
                                 STR_ARG(buf_pullup(&f->rep.out, f->rep.out.n)));
                end(f);
        }
}

static void words(struct fixture *f, size_t n)
{
        for (size_t i = 0; i < n; i++)
                assert_int_equal(lex_next(&f->l, &f->w), TOKEN_WORD);
}

static void assert_at(struct fixture *f, size_t off, unsigned line, unsigned col)
{
        struct conf_pos p = word_pos(&f->w, off);

        assert_int_equal(p.line, line);
        assert_int_equal(p.col, col);
        ASSERT_STR(p.file, "f");
}

static void places(void **state)
{
        struct fixture *f = begin("a\n  \"b\\tc${env:SPACE}d\ne\" k='xy' <<T\none\ntwo\nT\n");

        (void)state;
        words(f, 1);
        assert_at(f, 0, 1, 1);
        assert_int_equal(f->w.end_col, 2);
        words(f, 1);
        assert_int_equal(f->w.pos.line, 2);
        assert_int_equal(f->w.pos.col, 3);
        ASSERT_STR(f->w.pos.text, "  \"b\\tc${env:SPACE}d");
        assert_at(f, 0, 2, 4); /* b */
        assert_at(f, 1, 2, 5); /* the tab */
        assert_at(f, 2, 2, 7); /* c */
        assert_at(f, 3, 2, 8); /* all of the environment is at its ${ */
        assert_at(f, 10, 2, 8);
        assert_at(f, 15, 2, 20); /* d */
        assert_at(f, 17, 3, 1);  /* e */
        assert_true(f->w.quoted);
        words(f, 1);
        assert_int_equal(f->w.value, 2);
        assert_false(f->w.quoted);
        assert_at(f, 3, 3, 8);
        struct word v = word_value(f->a, &f->w);
        ASSERT_STR(v.text, "xy");
        assert_int_equal(v.pos.col, 7);
        assert_int_equal(word_pos(&v, 1).col, 8);
        words(f, 1);
        assert_true(f->w.heredoc);
        assert_at(f, 0, 4, 1);
        assert_at(f, 5, 5, 2);
        assert_int_equal(f->w.pos.line, 3);
        end(f);
}

static void files_and_templates(void **state)
{
        struct fixture *f =
                begin("${file:a.txt} k=${file:a.txt} x${file:a.txt} \"$a${env:SPACE}\"");
        const uint32_t *map;

        (void)state;
        words(f, 1);
        ASSERT_STR(f->w.file, "/p/a.txt");
        words(f, 1);
        ASSERT_STR(f->w.file, "/p/a.txt");
        struct word v = word_value(f->a, &f->w);
        ASSERT_STR(v.text, "in ; the $file }\n");
        ASSERT_STR(v.file, "/p/a.txt");
        ASSERT_STR(word_template(f->a, &v, 0, NULL), "in ; the $$file }\n");
        words(f, 1);
        assert_null(f->w.file.p);
        words(f, 1);
        ASSERT_STR(f->w.text, "$aa b;{}#$host");
        str t = word_template(f->a, &f->w, 0, &map);
        ASSERT_STR(t, "$aa b;{}#$$host");
        assert_int_equal(map[0], 0);
        assert_int_equal(map[9], 9);
        assert_int_equal(map[10], 9);
        assert_int_equal(map[11], 10);
        assert_int_equal(map[t.n], f->w.text.n);
        end(f);
}

static void values(void **state)
{
        static const struct {
                const char *text;
                unsigned value;
        } cases[] = {{"k=v", 2}, {"k=", 2},    {"a_1=b", 4},  {"1a=b", 0},
                     {"A=b", 0}, {"a-b=c", 0}, {"'k=v'", 0},  {"=v", 0},
                     {"k", 0},   {"a=b=c", 2}, {"/x?a=b", 0}, {"\"k=v\"", 0}};

        (void)state;
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
                struct fixture *f = begin(cases[i].text);
                words(f, 1);
                if ((f->w.quoted ? 0 : f->w.value) != cases[i].value)
                        fail_msg("%s: %u", cases[i].text, f->w.value);
                end(f);
        }
}

static void paths(void **state)
{
        struct arena *a = arena_new(0);

        (void)state;
        ASSERT_STR(lex_path(a, STR("/p"), STR("a/b")), "/p/a/b");
        ASSERT_STR(lex_path(a, STR("/"), STR("a")), "/a");
        ASSERT_STR(lex_path(a, STR("/p"), STR("/a")), "/a");
        arena_free(a);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(tokens),
                cmocka_unit_test(places),
                cmocka_unit_test(files_and_templates),
                cmocka_unit_test(values),
                cmocka_unit_test(paths),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
