/* The two forms of a path, rule by rule. */
#include "http/path.c"

#include "../base/unit.h"

#define ASSERT_TEXT(s, z) assert_true(str_eq((s), str_z(z)))

struct row {
        const char *target, *norm, *sent, *query; /* norm NULL: refused; sent NULL: as written */
};

static const struct row rows[] = {
        /* what is plain stays */
        {"/", "/", NULL, NULL},
        {"/a/b.c/d-e_f~g", "/a/b.c/d-e_f~g", NULL, NULL},
        {"/a?b=/../c", "/a", "/a", "b=/../c"},
        {"/a?", "/a", "/a", ""},
        {"/?%00", "/", "/", "%00"},
        {"*", "*", NULL, NULL},
        {"/a$&'()*+,=:@!", "/a$&'()*+,=:@!", NULL, NULL},
        /* escapes */
        {"/%61%7E%2D", "/a~-", NULL, NULL},
        {"/%e4%C3", "/%E4%C3", NULL, NULL},
        {"/a%2fb%2Fc", "/a%2Fb%2Fc", NULL, NULL},
        {"/a%5cb\\c", "/a%5Cb%5Cc", NULL, NULL},
        {"/%3b%3F%23", "/%3B%3F%23", NULL, NULL},
        {"/\xc3\xbc", "/%C3%BC", NULL, NULL},
        {"/{a}|\"<>^`", "/%7Ba%7D%7C%22%3C%3E%5E%60", NULL, NULL},
        {"/%252e%252e/", "/%252e%252e/", NULL, NULL},
        /* parameters and empty segments */
        {"/a;x=1/b;y", "/a/b", NULL, NULL},
        {"/a;x=../b", "/a/b", NULL, NULL},
        {"/;x/b", "/b", NULL, NULL},
        {"/a;", "/a", NULL, NULL},
        {"/a/;", "/a/", NULL, NULL},
        {"//", "/", NULL, NULL},
        {"//a///b//", "/a/b/", NULL, NULL},
        /* dot segments: the server gets the path without them */
        {"/.", "/", "/", NULL},
        {"/..", "/", "/", NULL},
        {"/a/.", "/a/", "/a/", NULL},
        {"/a/..", "/", "/", NULL},
        {"/a/b/..", "/a/", "/a/", NULL},
        {"/a/../b", "/b", "/b", NULL},
        {"/a/./b/../c", "/a/c", "/a/c", NULL},
        {"/../../a", "/a", "/a", NULL},
        {"/a/../..", "/", "/", NULL},
        {"/a/%2e%2E/b", "/b", "/b", NULL},
        {"/a/.%2e/b%2Fc;p", "/b%2Fc", "/b%2Fc;p", NULL},
        {"/a/%2e/b", "/a/b", "/a/b", NULL},
        {"/a/..;x/b", "/b", "/b", NULL},
        {"/a/.;x/b", "/a/b", "/a/b", NULL},
        {"/a//../b", "/b", "/b", NULL},
        {"/a/;x/../b", "/b", "/b", NULL},
        {"/x//a/../b", "/x/b", "/x//b", NULL},
        {"/a//b/./c", "/a/b/c", "/a//b/c", NULL},
        {"/a/../?q", "/", "/", "q"},
        /* no dot segments, though they look like them */
        {"/...", "/...", NULL, NULL},
        {"/..a/.b/c..", "/..a/.b/c..", NULL, NULL},
        {"/.well-known/x", "/.well-known/x", NULL, NULL},
        {"/a/%2e%2e%2e", "/a/...", NULL, NULL},
        /* hidden from some decoders */
        {"/a/..%2fb", NULL, NULL, NULL},
        {"/a/..%2F", NULL, NULL, NULL},
        {"/a%2f..", NULL, NULL, NULL},
        {"/a%2F../b", NULL, NULL, NULL},
        {"/a%2f%2e%2e/b", NULL, NULL, NULL},
        {"/a/x%2f.%2fy", NULL, NULL, NULL},
        {"/a\\..\\b", NULL, NULL, NULL},
        {"/a/..\\b", NULL, NULL, NULL},
        {"/a%5c..", NULL, NULL, NULL},
        {"/a/%2e%2e%5cb", NULL, NULL, NULL},
        {"/a;x%2f../b", NULL, NULL, NULL},
        {"/a%2f..;x/b", NULL, NULL, NULL},
        {"/a/..%3bx/b", NULL, NULL, NULL},
        {"/%c0%ae%c0%ae/b", NULL, NULL, NULL},
        {"/a%c0%afb", NULL, NULL, NULL},
        {"/a%c1%9cb", NULL, NULL, NULL},
        {"/\xc0\xaf", NULL, NULL, NULL},
        {"/%e0%80%af", NULL, NULL, NULL},
        {"/%f0%80%80%af", NULL, NULL, NULL},
        /* controls and broken escapes */
        {"/a%00b", NULL, NULL, NULL},
        {"/a%0ab", NULL, NULL, NULL},
        {"/a%1F", NULL, NULL, NULL},
        {"/%7f", NULL, NULL, NULL},
        {"/a;%00", NULL, NULL, NULL},
        {"/a\x01", NULL, NULL, NULL},
        {"/a b", NULL, NULL, NULL},
        {"/%", NULL, NULL, NULL},
        {"/%4", NULL, NULL, NULL},
        {"/%4g", NULL, NULL, NULL},
        {"/%g4", NULL, NULL, NULL},
        {"/%u0041", NULL, NULL, NULL},
        {"/a;%/b", NULL, NULL, NULL},
        /* no path at all */
        {"", NULL, NULL, NULL},
        {"a", NULL, NULL, NULL},
        {"?a", NULL, NULL, NULL},
        {"*x", NULL, NULL, NULL},
};

static void every_rule(void **state)
{
        (void)state;
        for (size_t i = 0; i < COUNT(rows); i++) {
                const struct row *w = &rows[i];
                struct arena *a = arena_new(0);
                struct path p = {STR("untouched"), STR_NONE, STR_NONE};
                str target = arena_dup(a, str_z(w->target));
                bool ok = path_parse(a, target, &p);
                if (ok != (w->norm != NULL))
                        fail_msg("%s: %s", w->target, ok ? "let through" : "refused");
                if (!ok) {
                        ASSERT_STR(p.norm, "untouched");
                } else {
                        ASSERT_TEXT(p.norm, w->norm);
                        ASSERT_TEXT(p.sent, w->sent ? w->sent : w->target);
                        assert_int_equal(p.query.p != NULL, w->query != NULL);
                        if (w->query)
                                ASSERT_TEXT(p.query, w->query);
                        if (!w->sent)
                                assert_ptr_equal(p.sent.p, target.p);
                }
                arena_free(a);
        }
}

/* Whatever the server gets means the same path: its own normal form is that of the client's. */
static void forms_agree(void **state)
{
        static const char *const parts[] = {"/",   ".",  "..",  "a",  ";x",  "//",
                                            "%2e", "b/", "%41", "\\", "%2f", "/;"};
        uint32_t seed = 1;

        (void)state;
        for (int round = 0; round < 20000; round++) {
                struct arena *a = arena_new(0);
                char text[64] = "/";
                for (int i = 0; i < 8; i++) {
                        seed = seed * 1664525 + 1013904223;
                        strcat(text, parts[(seed >> 16) % COUNT(parts)]);
                }
                struct path p, q;
                if (path_parse(a, str_z(text), &p)) {
                        assert_true(path_parse(a, p.sent, &q));
                        assert_true(str_eq(p.norm, q.norm));
                        assert_true(str_eq(p.sent, q.sent));
                        assert_true(path_parse(a, p.norm, &q));
                        assert_true(str_eq(p.norm, q.norm));
                }
                arena_free(a);
        }
}

static void escapes(void **state)
{
        struct arena *a = arena_new(0);
        str s = STR("a-Z_0.9~");

        (void)state;
        assert_ptr_equal(path_escape(a, s, path_is_unreserved).p, s.p); /* nothing to do */
        ASSERT_TEXT(path_escape(a, STR("a b/\xc3\xbc%"), path_is_unreserved), "a%20b%2F%C3%BC%25");
        assert_null(path_escape(a, STR_NONE, path_is_unreserved).p);
        arena_free(a);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(every_rule),
                cmocka_unit_test(escapes),
                cmocka_unit_test(forms_agree),
        };
        int failed = cmocka_run_group_tests(tests, NULL, NULL);
        arena_thread_end();
        return failed;
}
