/* Regular expressions: captures, what is refused, and that a limit is never "no". */
#include "base/regex.c"

#include "unit.h"

#include <pthread.h>

static struct regex *compile(const char *pattern, unsigned flags)
{
        struct regex_error err = {0, ""};
        struct regex *re = regex_new(str_z(pattern), flags, &err);

        if (!re)
                print_error("%s: %s\n", pattern, err.text);
        assert_non_null(re);
        return re;
}

static enum regex_result matches(const char *pattern, unsigned flags, str subject)
{
        struct regex *re = compile(pattern, flags);
        enum regex_result r = regex_match(re, subject, 0, NULL);

        regex_free(re);
        return r;
}

static void matching(void **state)
{
        (void)state;
        assert_int_equal(matches("^/api/v[0-9]+/", 0, STR("/api/v12/x")), REGEX_YES);
        assert_int_equal(matches("^/api/v[0-9]+/", 0, STR("/API/v12/x")), REGEX_NO);
        assert_int_equal(matches("^/api/v[0-9]+/", REGEX_ICASE, STR("/API/v12/x")), REGEX_YES);
        assert_int_equal(matches("", 0, STR_NONE), REGEX_YES);
        assert_int_equal(matches("x", 0, STR_NONE), REGEX_NO);
        assert_int_equal(matches("/x$", 0, STR("/x\n")), REGEX_NO);
        assert_int_equal(matches("a.b", 0, STR("a\0b")), REGEX_YES);
        assert_int_equal(matches("^.$", 0, STR("\xc3\xa4")), REGEX_NO); /* two bytes */
        regex_free(NULL);
}

static void captures(void **state)
{
        struct regex *re = compile("^/(?<lang>[a-z]{2})(?:/(x))?/(?<rest>.*)", 0);
        struct regex_captures caps;
        int group;

        (void)state;
        memset(&caps, 0x55, sizeof(caps));
        assert_int_equal(regex_match(re, STR("/de/a/b"), 0, &caps), REGEX_YES);
        assert_int_equal(caps.n, 4);
        assert_int_equal(caps.g[0].so, 0);
        assert_int_equal(caps.g[0].eo, 7);
        assert_int_equal(caps.g[1].so, 1);
        assert_int_equal(caps.g[1].eo, 3);
        assert_int_equal(caps.g[2].so, -1);
        assert_int_equal(caps.g[2].eo, -1);
        assert_int_equal(caps.g[3].so, 4);
        assert_int_equal(caps.g[3].eo, 7);
        assert_int_equal(regex_groups(re), 4);
        assert_int_equal(regex_group(re, STR("rest")), 3);
        assert_int_equal(regex_group(re, STR("lang")), 1);
        assert_int_equal(regex_group(re, STR("res")), -1);
        ASSERT_STR(regex_group_name(re, 0, &group), "lang");
        assert_int_equal(group, 1);
        ASSERT_STR(regex_group_name(re, 1, &group), "rest");
        assert_int_equal(group, 3);
        assert_null(regex_group_name(re, 2, &group).p);
        regex_free(re);
        re = compile("(a)|(b)", 0); /* a last group that took no part is still filled in */
        assert_int_equal(regex_match(re, STR("xa"), 0, &caps), REGEX_YES);
        assert_int_equal(caps.n, 3);
        assert_int_equal(caps.g[2].so, -1);
        assert_int_equal(regex_match(re, STR("ab"), 1, &caps), REGEX_YES);
        assert_int_equal(caps.g[2].so, 1);
        caps.g[0].so = 77;
        assert_int_equal(regex_match(re, STR("ab"), 2, &caps), REGEX_NO);
        assert_int_equal(caps.g[0].so, 77);
        regex_free(re);
}

static void refusals(void **state)
{
        static const struct {
                const char *pattern;
                size_t offset;
        } rows[] = {{"a(b", 3}, {"a[", 2}, {"(*UTF)a", 6}, {"(*UCP)a", 6}, {"a\\C", 3}, {"*", 0}};
        char pattern[3 * 80 + 1] = "";
        struct regex_error err;
        struct regex *re;

        (void)state;
        for (size_t i = 0; i < COUNT(rows); i++) {
                memset(&err, 0, sizeof(err));
                assert_null(regex_new(str_z(rows[i].pattern), 0, &err));
                assert_true(err.text[0] != '\0');
                assert_true(err.offset <= strlen(rows[i].pattern));
                if (i < 2)
                        assert_int_equal(err.offset, rows[i].offset);
        }
        for (int i = 0; i < REGEX_GROUPS_MAX - 1; i++)
                strcat(pattern, "(a)");
        re = compile(pattern, 0);
        assert_int_equal(regex_groups(re), REGEX_GROUPS_MAX);
        regex_free(re);
        strcat(pattern, "(a)");
        assert_null(regex_new(str_z(pattern), 0, &err));
        assert_string_equal(err.text, "64 groups, but 63 are the most");
}

/* Whatever stops it, the answer is LIMIT: the count of steps, or the JIT's stack. */
static void limits(void **state)
{
        static char as[200000];
        struct regex *re = compile("^(a+)+$", 0);

        (void)state;
        memset(as, 'a', sizeof(as));
        as[40] = 'b';
        assert_int_equal(regex_match(re, str_of(as, 41), 0, NULL), REGEX_LIMIT);
        assert_int_equal(regex_match(re, str_of(as, 40), 0, NULL), REGEX_YES);
        assert_int_equal(regex_match(re, str_of(as + 30, 11), 0, NULL), REGEX_NO);
        regex_set_match_limit(100);
        assert_int_equal(regex_match(re, str_of(as + 30, 11), 0, NULL), REGEX_LIMIT);
        regex_set_match_limit(REGEX_MATCH_LIMIT_DEFAULT);
        regex_free(re);
        as[40] = 'a';
        re = compile("^(?:(a)|b)*$", 0);
        regex_set_match_limit(UINT32_MAX);
        assert_int_equal(regex_match(re, str_of(as, sizeof(as)), 0, NULL), REGEX_LIMIT);
        regex_set_match_limit(REGEX_MATCH_LIMIT_DEFAULT);
        /* without the JIT, too */
        re->jit = false;
        pcre2_code_free(re->code);
        re->code = pcre2_compile((PCRE2_SPTR) "(*NO_JIT)^(a+)+$", 16, 0, &(int){0},
                                 &(PCRE2_SIZE){0}, NULL);
        as[40] = 'b';
        assert_int_equal(regex_match(re, str_of(as, 41), 0, NULL), REGEX_LIMIT);
        regex_free(re);
}

static void *match_many(void *arg)
{
        struct regex_captures caps;
        intptr_t wrong = 0;

        for (int i = 0; i < 2000; i++) {
                char subject[32];
                int n = snprintf(subject, sizeof(subject), "id-%d", i);
                wrong += regex_match(arg, str_of(subject, (size_t)n), 0, &caps) != REGEX_YES;
                wrong += caps.g[1].eo != n;
        }
        regex_thread_end();
        return (void *)wrong;
}

static void shared_by_threads(void **state)
{
        struct regex *re = compile("-([0-9]+)$", 0);
        pthread_t threads[3];
        void *wrong;

        (void)state;
        for (int i = 0; i < 3; i++)
                assert_int_equal(pthread_create(&threads[i], NULL, match_many, re), 0);
        for (int i = 0; i < 3; i++) {
                pthread_join(threads[i], &wrong);
                assert_null(wrong);
        }
        regex_free(re);
        regex_thread_end();
        regex_thread_end();
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(matching),          cmocka_unit_test(captures),
                cmocka_unit_test(refusals),          cmocka_unit_test(limits),
                cmocka_unit_test(shared_by_threads),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
