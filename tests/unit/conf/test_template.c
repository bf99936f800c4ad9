/* Templates: what they mean, what they refuse and where, and what expanding copies. */
#include "conf/template.c"

#include "../base/unit.h"

static bool set_by_function(void *ctx, str name)
{
        (void)ctx;
        return str_eq(name, STR("jwt_user"));
}

static const char *const var_names[] = {
#define VARIABLE(id, name, when, help) name,
#include "conf/variable.tbl"
#undef VARIABLE
        "arg", "header", "response_header", "cookie", "proxy_tlv", "capture", "module"};

/* literal|$var|$var:text|$capture:N */
static void print(const struct template *t, char *out, size_t cap)
{
        size_t n = 0;

        out[0] = 0;
        for (uint32_t i = 0; i < t->n; i++) {
                const struct template_op *op = &t->op[i];
                n += (size_t)snprintf(out + n, cap - n, "%s", i ? "|" : "");
                if (op->literal)
                        n += (size_t)snprintf(out + n, cap - n, "%.*s", STR_ARG(op->text));
                else if (op->var == VAR_CAPTURE)
                        n += (size_t)snprintf(out + n, cap - n, "$capture:%u", op->group);
                else
                        n += (size_t)snprintf(out + n, cap - n, "$%s%s%.*s", var_names[op->var],
                                              op->text.n ? ":" : "", STR_ARG(op->text));
        }
}

static void meaning(void **state)
{
        static const struct {
                const char *text, *want;
                bool constant;
        } cases[] = {
                {"", "", true},
                {"abc", "abc", true},
                {"a$$b", "a$b", true},
                {"$$$$", "$$", true},
                {"$host", "$host", false},
                {"${host}x", "$host|x", false},
                {"a$hostx$$", NULL, false},
                {"$host.$path", "$host|.|$path", false},
                {"$path_rest", "$path_rest", false},
                {"$arg_id", "$arg:id", false},
                {"${arg_a-b.c}", "$arg:a-b.c", false},
                {"$header_X_Foo", "$header:x-foo", false},
                {"$cookie_SID", "$cookie:SID", false},
                {"$proxy_protocol_tlv_0xe0", "$proxy_tlv:0xe0", false},
                {"$proxy_protocol_tlv_0x0A.", "$proxy_tlv:0x0A|.", false},
                {"$proxy_protocol_tlv_", NULL, false},
                {"$proxy_protocol_tlv_e0", NULL, false},
                {"$proxy_protocol_tlv_0xe", NULL, false},
                {"$proxy_protocol_tlv_0xe00", NULL, false},
                {"$proxy_protocol_tlv_0xgg", NULL, false},
                {"$response_header_Content_Type", "$response_header:content-type", false},
                {"$status", "$status", false},
                {"$1$2", "$capture:1|$capture:2", false},
                {"$12", "$capture:1|2", false},
                {"${1}2", "$capture:1|2", false},
                {"$id/${rest}", "$capture:1|/|$capture:2", false},
                {"$jwt_user", "$module:jwt_user", false},
                {"a$$${host}$$b", "a$|$host|$b", false},
        };
        struct regex_error e;
        struct regex *re = regex_new(STR("^/(?<id>a)(?<rest>b)$"), 0, &e);
        struct template_scope scope = {re, true, set_by_function, NULL};

        (void)state;
        for (size_t i = 0; i < COUNT(cases); i++) {
                struct arena *a = arena_new(0);
                const char *error;
                char got[256];
                size_t at;
                struct template *t = template_compile(a, str_z(cases[i].text), &scope, &error, &at);
                assert_int_equal(t != NULL, cases[i].want != NULL);
                if (t) {
                        print(t, got, sizeof got);
                        assert_string_equal(got, cases[i].want);
                        assert_int_equal(t->constant, cases[i].constant);
                        assert_true(str_eq(t->source, str_z(cases[i].text)));
                }
                arena_free(a);
        }
        regex_free(re);
}

static void mistakes(void **state)
{
        static const struct {
                const char *text, *error;
                size_t at;
                bool response, regex;
        } cases[] = {
                {"a$", "\"$\" without a name (a dollar sign is written $$)", 1, false, false},
                {"a$-", "\"$\" without a name", 1, false, false},
                {"a ${host", "\"${\" without its \"}\"", 2, false, false},
                {"${}", "\"${}\" without a name", 0, false, false},
                {"$hsot", "unknown variable $hsot (did you mean \"$host\"?)", 0, false, false},
                {"$zzzzzz", "unknown variable $zzzzzz", 0, false, false},
                {"$arg_", "unknown variable $arg_", 0, false, false},
                {"xx$status", "$status is not known before there is a response", 2, false, false},
                {"$response_header_x", "$response_header_x is not known before", 0, false, false},
                {"$1", "$1: only a regex route (route ~ ...) has captures", 0, false, false},
                {"$2", "$2: the route's regex has no such group", 0, false, true},
                {"$0", "unknown variable $0", 0, true, true},
                {"$ip", "unknown variable $ip (did you mean \"$id\"?)", 0, true, true},
                {"$jwt_usr", "unknown variable $jwt_usr", 0, true, true},
                {"${env:X}", "unknown variable $env:X", 0, true, true},
        };
        struct regex_error e;
        struct regex *re = regex_new(STR("(?<id>.)"), 0, &e);

        (void)state;
        for (size_t i = 0; i < COUNT(cases); i++) {
                struct arena *a = arena_new(0);
                struct template_scope scope = {cases[i].regex ? re : NULL, cases[i].response,
                                               set_by_function, NULL};
                const char *error = NULL;
                size_t at = 99;
                if (template_compile(a, str_z(cases[i].text), &scope, &error, &at) ||
                    !str_starts(str_z(error), str_z(cases[i].error)) || at != cases[i].at)
                        fail_msg("%s: %s at %zu", cases[i].text, error ? error : "no mistake", at);
                arena_free(a);
        }
        regex_free(re);
}

static void reserved(void **state)
{
        (void)state;
        assert_true(template_reserved(STR("host")) && template_reserved(STR("arg_x")) &&
                    template_reserved(STR("header_")) && template_reserved(STR("status")));
        assert_false(template_reserved(STR("id")) || template_reserved(STR("hosts")) ||
                     template_reserved(STR("jwt_user")));
}

static str lookup(void *ctx, const struct template_op *op)
{
        (void)ctx;
        return op->var == VAR_HOST ? STR("h.example") : op->var == VAR_PATH ? STR("/p") : STR_NONE;
}

static struct template *compiled(struct arena *a, const char *text)
{
        struct template_scope scope = {NULL, true, NULL, NULL};
        const char *error;
        size_t at;
        struct template *t = template_compile(a, str_z(text), &scope, &error, &at);

        assert_non_null(t);
        return t;
}

static void expanding(void **state)
{
        struct arena *a = arena_new(0), *out = arena_new(0), *small = arena_new(64);
        const struct template *constant = compiled(a, "x$$y"), *one = compiled(a, "$host");
        const struct template *many = compiled(a, "$host$path$host$path$host$path$host$path$host$"
                                                  "path$host$path$host$path$host$path$host");
        size_t before = arena_used(out);

        (void)state;
        ASSERT_STR(template_expand(constant, out, lookup, NULL), "x$y");
        ASSERT_STR(template_expand(one, out, lookup, NULL), "h.example");
        ASSERT_STR(template_expand(compiled(a, "$query"), out, lookup, NULL), "");
        ASSERT_STR(template_expand(compiled(a, ""), out, lookup, NULL), "");
        assert_int_equal(arena_used(out), before); /* nothing was copied */
        ASSERT_STR(template_expand(compiled(a, "http://$host$path?$query"), out, lookup, NULL),
                   "http://h.example/p?");
        str s = template_expand(many, out, lookup, NULL);
        assert_int_equal(s.n, 9 * 9 + 8 * 2);
        assert_true(str_ends(s, STR("/ph.example")));
        while (arena_alloc(small, 16))
                ;
        assert_null(template_expand(many, small, lookup, NULL).p);
        assert_null(template_expand(compiled(a, "$host$path"), small, lookup, NULL).p);
        arena_free(a);
        arena_free(out);
        arena_free(small);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(meaning),
                cmocka_unit_test(mistakes),
                cmocka_unit_test(reserved),
                cmocka_unit_test(expanding),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
