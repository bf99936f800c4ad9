/* Blocks and includes; every broken nesting is said once and read on. */
#include "conf/tree.c"

#include "../base/unit.h"
#include "memory.h"

#include <stdlib.h>

static void print(struct buf *out, const struct tree *t)
{
        for (size_t i = 0; i < t->n_words; i++)
                buf_printf(out, "%s%.*s", i ? " " : "", STR_ARG(t->words[i].text));
        if (!t->has_block) {
                buf_puts(out, STR(";"));
                return;
        }
        buf_puts(out, STR("{"));
        for (size_t i = 0; i < t->n_children; i++)
                print(out, t->child[i]);
        buf_puts(out, STR("}"));
}

static const struct memory_entry included[] = {{"/w/main", NULL},
                                               {"/w/one.inc", "one 1; two { 2; }"},
                                               {"/w/d/a.conf", "a;"},
                                               {"/w/d/b.conf", "b;"},
                                               {"/w/open.inc", "x {"},
                                               {"/w/close.inc", "y; }"},
                                               {"/w/self.inc", "include self.inc;"},
                                               {"/w/deep.inc", "h { include one.inc; }"},
                                               {0}};

static void check(const char *text, const char *want, const char *mistakes)
{
        struct memory_entry files[sizeof included / sizeof *included];
        struct arena *a = arena_new(0);
        struct report rep = {0};
        struct buf out = BUF_INIT;

        memcpy(files, included, sizeof files);
        files[0].text = text;
        struct memory m = MEMORY(files, NULL);
        struct tree *t = tree_read(&m.source, a, &rep, STR("/w/main"), STR("/w"));
        assert_non_null(t);
        print(&out, t);
        str got = buf_pullup(&out, out.n), said = buf_pullup(&rep.out, rep.out.n);
        if (!str_eq(got, str_z(want)))
                fail_msg("%s\n%.*s", text, STR_ARG(got));
        if (!str_starts(said, str_z(mistakes)) || (!*mistakes && said.n))
                fail_msg("%s\nwanted %s\n%.*s", text, mistakes, STR_ARG(said));
        buf_clear(&out);
        buf_clear(&rep.out);
        arena_free(a);
}

static void blocks(void **state)
{
        (void)state;
        check("", "{}", "");
        check("a b; c { d; e f { } }", "{a b;c{d;e f{}}}", "");
        check("a <<X\nt\nX\nb;", "{a t\n;b;}", "");
        check("a { b <<X\nt\nX\n}", "{a{b t\n;}}", "");
}

static void includes(void **state)
{
        (void)state;
        check("include one.inc; x;", "{one 1;two{2;}x;}", "");
        check("h { include \"d/*.conf\"; }", "{h{a;b;}}", "");
        check("include nothing/*.conf;", "{}", "");
        check("include deep.inc;", "{h{one 1;two{2;}}}", "");
        check("include none.inc; x;", "{x;}",
              "/w/main:1:9: cannot read /w/none.inc: No such file or directory\n");
        check("include open.inc; x;", "{x{}x;}", "/w/open.inc:1:3: \"{\" without its \"}\"\n");
        check("h { include close.inc; x; }", "{h{y;x;}}",
              "/w/close.inc:1:4: \"}\" without its \"{\"\n");
        check("include self.inc; x;", "{x;}", "/w/self.inc:1:9: /w/self.inc includes itself\n");
        check("include;", "{}", "/w/main:1:1: include takes one file or pattern");
        check("include a b;", "{}", "/w/main:1:1: include takes one file or pattern");
        check("include a { }", "{}", "/w/main:1:1: include takes one file or pattern");
}

static void broken(void **state)
{
        char deep[256] = "";

        (void)state;
        check("a b", "{a b;}", "/w/main:1:4: \";\" is missing here\n    a b\n       ^\n");
        check("a { b } c;", "{a{b;}c;}", "/w/main:1:6: \";\" is missing here\n");
        check("a {\nb;", "{a{b;}}", "/w/main:1:3: \"{\" without its \"}\"\n");
        check("a; } b;", "{a;b;}", "/w/main:1:4: \"}\" without its \"{\"\n");
        check("; a;", "{a;}", "/w/main:1:1: nothing stands before this \";\"\n");
        check("{ x; } a;", "{a;}", "/w/main:1:1: a block needs a name before its \"{\"\n");
        check("a \"b\nc;", "{a ;c;}", "/w/main:1:3: the quote is never closed\n");
        check("a { b \"c; }", "{a{b ;}}",
              "/w/main:1:7: the quote is never closed\n    a { b \"c; }\n          ^\n");
        for (int i = 0; i < 40; i++)
                strcat(deep, "a{");
        char want[256] = "{";
        for (int i = 0; i < 33; i++)
                strcat(want, "a{");
        for (int i = 0; i < 34; i++)
                strcat(want, "}");
        check(deep, want, "/w/main:1:66: more than 32 blocks within each other\n");
}

static void unreadable(void **state)
{
        struct memory m = MEMORY(NULL, NULL);
        struct arena *a = arena_new(0);
        struct report rep = {0};

        (void)state;
        assert_null(tree_read(&m.source, a, &rep, STR("/none"), STR("/")));
        assert_int_equal(rep.errors, 1);
        ASSERT_STR(buf_front(&rep.out), "cannot read /none: No such file or directory\n");
        buf_clear(&rep.out);
        arena_free(a);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(blocks),
                cmocka_unit_test(includes),
                cmocka_unit_test(broken),
                cmocka_unit_test(unreadable),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
