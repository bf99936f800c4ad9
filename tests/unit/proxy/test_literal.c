/* literal.c and automaton.c: what is promised is true, and found. */
#include "proxy/automaton.c"
#include "proxy/literal.c"

#include "base/regex.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

/* "a|b c" : the sets, their strings separated by "|". */
static void show(const struct literals *l, char *out, size_t cap)
{
        size_t n = 0;
        out[0] = 0;
        for (uint32_t i = 0; i < l->n; i++)
                for (uint32_t j = 0; j < l->set[i].n; j++)
                        n += (size_t)snprintf(out + n, cap - n, "%s%.*s",
                                              j   ? "|"
                                              : i ? " "
                                                  : "",
                                              STR_ARG(l->set[i].s[j]));
}

static void test_extract(void **state)
{
        static const struct {
                const char *pattern, *sets;
        } cases[] = {
                {"^/users/(?<id>\\d+)(?<rest>/.*)?$", "/users/"},
                {"^/api/v[12]/orders/\\d+/items$", "/api/v1/orders/|/api/v2/orders/ /items"},
                {"\\.(png|jpe?g)$", ".png|.jpeg|.jpg"},
                {"^/A(B|C)", "/ab|/ac"},
                {"^/x+y", "/ x y"},
                {"^/x{2,}y", "/ x y"},
                {"^/x{0,2}y", "/ y"},
                {"(foo|ba.r)", "foo|ba"},
                {"(foo|.*)", ""},
                {"(foo|)", ""},
                {"^/a*$", "/"},
                {".*", ""},
                {"", ""},
                {"(?i)abc", ""},
                {"(?=abc)abc", ""},
                {"(a)\\1bcd", ""},
                {"\\Qa.b\\E", ""},
                {"abc(", ""},
                {"[abc]d", "ad|bd|cd"},
                {"[a-z]d", "d"},
                {"[^a]d", "d"},
                {"[]a]d", "]d|ad"},
                {"[[:alpha:]]d", ""},
                {"a{,3}b", ""},
                {"a{x}b", "a{x}b"},
                {"(?:ab){2}cd", "ab cd"},
                {"a\\/b\\.c", "a/b.c"},
                {"(?<!x)abc", ""},
                {"(?>abc)", ""},
                {"(*ANY)abc", ""},
        };
        (void)state;
        for (size_t i = 0; i < COUNT(cases); i++) {
                struct arena *a = arena_new(0);
                struct literals l;
                char got[512];
                literal_extract(a, str_z(cases[i].pattern), &l);
                show(&l, got, sizeof got);
                if (strcmp(got, cases[i].sets) != 0)
                        fail_msg("%s: got \"%s\", not \"%s\"", cases[i].pattern, got,
                                 cases[i].sets);
                arena_free(a);
        }
}

/* Random patterns and subjects: whatever PCRE2 matches contains one string of every set. */
static uint32_t seed = 12345;
static uint32_t roll(uint32_t n)
{
        seed = seed * 1103515245 + 12345;
        return (seed >> 16) % n;
}

static void test_never_over_promises(void **state)
{
        static const char *const bits[] = {
                "a",    "b",       "/",   "ab",      ".",     "\\d", "(a|b)", "(ab|/)?", "[ab]",
                "[^a]", "(?:a/)+", "b*",  "a?",      "^",     "$",   "|",     "(",       ")",
                "{2}",  "{0,1}",   "\\b", "(?<n>b)", "x{1,}", "\\.", "+?",    "[a-c]"};
        static const char letters[] = "ab/.1xc";
        (void)state;
        unsigned compiled = 0, matched = 0;
        for (int round = 0; round < 20000; round++) {
                char pattern[128] = "", subject[16];
                for (uint32_t n = 1 + roll(6); n > 0; n--)
                        strcat(pattern, bits[roll(COUNT(bits))]);
                struct regex_error err;
                struct regex *re = regex_new(str_z(pattern), 0, &err);
                if (re == NULL)
                        continue;
                compiled++;
                struct arena *a = arena_new(0);
                struct literals l;
                literal_extract(a, str_z(pattern), &l);
                for (int k = 0; k < 20; k++) {
                        size_t n = roll(10);
                        for (size_t i = 0; i < n; i++)
                                subject[i] = letters[roll(sizeof letters - 1)];
                        str s = str_of(subject, n);
                        if (regex_match(re, s, 0, NULL) != REGEX_YES)
                                continue;
                        matched++;
                        for (uint32_t i = 0; i < l.n; i++) {
                                bool found = false;
                                for (uint32_t j = 0; j < l.set[i].n; j++)
                                        found = found || str_find(s, l.set[i].s[j]) >= 0;
                                if (!found)
                                        fail_msg("%s matches %.*s without any of set %u", pattern,
                                                 STR_ARG(s), i);
                        }
                }
                arena_free(a);
                regex_free(re);
        }
        assert_true(compiled > 1000 && matched > 1000);
}

static void test_automaton(void **state)
{
        static const struct automaton_word words[] = {{STR_INIT("he"), 1},
                                                      {STR_INIT("she"), 2},
                                                      {STR_INIT("his"), 3},
                                                      {STR_INIT("hers"), 4},
                                                      {STR_INIT("he"), 5}};
        uint32_t out[8];
        struct automaton *m = automaton_new(words, COUNT(words));
        (void)state;
        assert_int_equal(automaton_find(m, STR("uSHErs"), out, 8), 4);
        uint32_t seen = 0;
        for (int i = 0; i < 4; i++)
                seen |= 1u << out[i];
        assert_int_equal(seen, 1u << 1 | 1u << 2 | 1u << 4 | 1u << 5);
        assert_int_equal(automaton_find(m, STR("\xff\0xyz"), out, 8), 0);
        assert_int_equal(automaton_find(m, STR("hehehe"), out, 3), 4);
        automaton_free(m);
        m = automaton_new(NULL, 0);
        assert_int_equal(automaton_find(m, STR("abc"), out, 8), 0);
        automaton_free(m);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_extract),
                cmocka_unit_test(test_never_over_promises),
                cmocka_unit_test(test_automaton),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
