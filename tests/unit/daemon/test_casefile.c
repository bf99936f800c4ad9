/* Cases in a text file: what they become, where each line came from, and what is refused. */
#include "daemon/casefile.c"

#include "../base/unit.h"

struct parsed {
        struct arena *a;
        struct report rep;
        struct casefile f;
        bool ok;
};

static struct parsed parse(const char *text)
{
        struct parsed p = {.a = arena_new(0)};

        p.ok = casefile_parse(STR("x.cases"), str_z(text), p.a, &p.f, &p.rep);
        return p;
}

static void drop(struct parsed *p)
{
        buf_clear(&p->rep.out);
        arena_free(p->a);
}

static void a_whole_case(void **state)
{
        struct parsed p = parse("# first\n"
                                "\n"
                                "case a name of words\n"
                                "config {\n"
                                "    host a alpha;\n"
                                "      field x;\n"
                                "}\n"
                                "request\n"
                                "\tPOST / HTTP/1.1\n"
                                "\thost: a\n"
                                "\n"
                                "\t# not a comment\n"
                                "\n"
                                "redis $one\n"
                                "\n"
                                "    # a comment\n"
                                "    :2\n"
                                "expect\n"
                                "# another\n"
                                "  continue\n"
                                "  req x: 1\n");
        const struct casefile_case *c = p.f.v;

        (void)state;
        assert_true(p.ok);
        assert_int_equal(p.f.n, 1);
        assert_string_equal(c->c.name, "a name of words");
        assert_string_equal(c->c.config, "{\nhost a alpha;\n  field x;\n}");
        assert_string_equal(c->c.request, "POST / HTTP/1.1\nhost: a\n\n# not a comment");
        assert_string_equal(c->c.redis, "$one\n:2");
        assert_null(c->c.upstream);
        assert_string_equal(c->c.expect, "continue\nreq x: 1");
        assert_int_equal(casefile_line(c, NULL), 3);
        assert_int_equal(casefile_line(c, "elsewhere"), 3);
        assert_int_equal(casefile_line(c, c->c.config), 4);
        assert_int_equal(casefile_line(c, strstr(c->c.config, "field")), 6);
        assert_int_equal(casefile_line(c, strstr(c->c.request, "host")), 10);
        assert_int_equal(casefile_line(c, strstr(c->c.request, "#")), 12);
        assert_int_equal(casefile_line(c, strstr(c->c.redis, ":2")), 17);
        assert_int_equal(casefile_line(c, strstr(c->c.expect, "req")), 21);
        drop(&p);
}

/* Several requests become one text each, in parts, as in a module's own cases. */
static void exchanges(void **state)
{
        struct parsed p = parse("case one\r\n"
                                "request GET /1 HTTP/1.1\r\n"
                                "redis $a\n"
                                "expect continue\n"
                                "wait 30s\n"
                                "request GET /2 HTTP/1.1\n"
                                "    host: a\n"
                                "redis\n"
                                "    $b\n"
                                "expect respond 403\n"
                                "expect body no\n"
                                "case two\n"
                                "expect error");
        const struct casefile_case *c = p.f.v;

        (void)state;
        assert_true(p.ok);
        assert_int_equal(p.f.n, 2);
        assert_string_equal(c->c.request, "GET /1 HTTP/1.1\n-- 30s\nGET /2 HTTP/1.1\nhost: a");
        assert_string_equal(c->c.redis, "$a\n$b");
        assert_string_equal(c->c.expect, "continue\n--\nrespond 403\nbody no");
        assert_int_equal(casefile_line(c, strstr(c->c.expect, "body")), 11);
        assert_int_equal(casefile_line(c, strstr(c->c.request, "host")), 7);
        assert_string_equal(c[1].c.expect, "error");
        assert_null(c[1].c.request);
        assert_null(c[1].c.config);
        assert_int_equal(casefile_line(&c[1], c[1].c.expect), 13);
        drop(&p);
}

/* What goes to upstreams and what they say: whole messages, each answer a part. */
static void messages(void **state)
{
        struct parsed p = parse("case one\n"
                                "request\n"
                                "    POST / HTTP/1.1\n"
                                "\n"
                                "    a body\n"
                                "\n"
                                "http\n"
                                "    HTTP/1.1 200 OK\n"
                                "\n"
                                "      indented\n"
                                "\n"
                                "http !\n"
                                "upstream HTTP/1.1 204 No\n"
                                "expect\n"
                                "    req body a body\n"
                                "http ~\n");
        const struct casefile_case *c = p.f.v;

        (void)state;
        assert_true(p.ok);
        assert_string_equal(c->c.request, "POST / HTTP/1.1\n\na body");
        assert_string_equal(c->c.http, "HTTP/1.1 200 OK\n\n  indented\n--\n!\n--\n~");
        assert_string_equal(c->c.upstream, "HTTP/1.1 204 No");
        assert_string_equal(c->c.expect, "req body a body");
        assert_int_equal(casefile_line(c, strstr(c->c.http, "!")), 12);
        assert_int_equal(casefile_line(c, strstr(c->c.http, "~")), 16);
        drop(&p);
}

static void mistakes_have_a_place(void **state)
{
        static const struct {
                const char *text, *says;
        } row[] = {
                {"", "x.cases:1:1: there is no case in it\n"},
                {"# only\n", "x.cases:1:1: there is no case in it\n"},
                {"case\nexpect error\n", "x.cases:1:5: a case has a name\n"},
                {"expect error\n    x\n", "x.cases:1:1: a section belongs to a case"},
                {"case a\nexpct error\n    x\n",
                 "x.cases:2:1: \"expct\" is no section of a case (the "
                 "lines of one are indented) (did you mean \"expect\"?)"},
                {"case a\n  x\nexpect error\n",
                 "x.cases:2:3: an indented line belongs to a section"},
                {"case a\nexpect\n    x\n  y\n", "x.cases:4:3: is indented less"},
                {"case a\nexpect x\ncase a\nexpect x\n",
                 "x.cases:3:6: there is a case of that name (line 1)"},
                {"case a\nrequest GET\n", "x.cases:2:1: nothing is expected of this request\n"},
                {"case a\nrequest GET\nrequest GET\nexpect x\n",
                 "x.cases:2:1: nothing is expected of this request\n"},
                {"case a\nredis _\n", "x.cases:1:1: the case expects nothing\n"},
                {"case a\nexpect x\nrequest GET\nexpect y\n",
                 "x.cases:3:1: what is expected of a request stands after it"},
                {"case a\nconfig a\nexpect x\nconfig b\n",
                 "x.cases:4:1: the case has its config already (line 2)"},
                {"case a\nrequest G\nexpect x\nwait 3\nrequest G\nexpect x\n",
                 "x.cases:4:6: wants a time"},
                {"case a\nrequest G\nexpect x\nwait 3d\n", "x.cases:4:6: wants a time"},
                {"case a\nrequest G\nexpect x\nwait\n", "x.cases:4:5: wants a time"},
                {"case a\nwait 3s\nexpect x\n", "x.cases:2:1: a wait stands between"},
                {"case a\nrequest G\nwait 3s\nexpect x\n", "x.cases:3:1: a wait stands between"},
                {"case a\nrequest G\nexpect x\nwait 3s\n", "after a wait there must be another"},
                {"case a\nrequest G\n    --\nexpect x\n", "cannot begin with --"},
                {"case a\n}\nexpect x\n", "x.cases:2:1: \"}\" is no section"},
        };

        (void)state;
        for (size_t i = 0; i < COUNT(row); i++) {
                struct parsed p = parse(row[i].text);
                str said = buf_pullup(&p.rep.out, p.rep.out.n);
                assert_false(p.ok);
                if (str_find(said, str_z(row[i].says)) < 0 || p.rep.errors != 1)
                        fail_msg("%zu: wanted one \"%s\", got \"%.*s\"", i, row[i].says,
                                 STR_ARG(said));
                drop(&p);
        }
}

static void a_nul_is_refused(void **state)
{
        struct arena *a = arena_new(0);
        struct report rep = {0};
        struct casefile f;

        (void)state;
        assert_false(casefile_parse(STR("x"), STR("case a\nexpect x\0y\n"), a, &f, &rep));
        buf_clear(&rep.out);
        arena_free(a);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_whole_case),     cmocka_unit_test(exchanges),
                cmocka_unit_test(messages),         cmocka_unit_test(mistakes_have_a_place),
                cmocka_unit_test(a_nul_is_refused),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
