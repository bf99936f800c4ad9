/* What functions may change of a request: variables, answers; and the rules that they cannot break.
 */
#include "proxy/api_msg.c"

#include "function.h"

#include "base/crypto.h"

static void (*body)(weir_req *r); /* of the hook that runs */

HOOK(run)
{
        UNUSED_HOOK;
        body(r);
        return WEIR_CONTINUE;
}
static void nothing(weir_req *r)
{
        (void)r;
}

static int begin(void **state)
{
        rig_begin(state);
        rig_function((weir_module){.on_request = run, .on_response = run, .on_log = NULL}, NULL);
        rig_up();
        rig_request(0);
        fields_add(rig.req.arena, &rig.req.req.fields, FIELD_HOST, STR("Host"), STR("example.com"));
        fields_add(rig.req.arena, &rig.req.req.fields, FIELD_OTHER, STR("X-A"), STR("1"));
        fields_add(rig.req.arena, &rig.req.req.fields, FIELD_OTHER, STR("x-a"), STR("2"));
        return 0;
}
static int end(void **state)
{
        rig_request_end();
        return rig_end(state);
}
static void in_request_hook(void (*fn)(weir_req *))
{
        body = fn;
        assert_int_equal(chain_request(rig.chain), CHAIN_CONTINUE);
}
static void in_response_hook(void (*fn)(weir_req *))
{
        in_request_hook(nothing);
        body = fn;
        assert_int_equal(chain_response(rig.chain), CHAIN_CONTINUE);
}

#define W(s) WEIR_STR(s)

static void variables(weir_req *r)
{
        weir_str v;

        assert_int_equal(weir->var_get(r, W("client_ip"), &v), 1);
        ASSERT_STR(v, "192.0.2.1");
        assert_int_equal(weir->var_get(r, W("arg_x"), &v), 1);
        ASSERT_STR(v, "1");
        assert_int_equal(weir->var_get(r, W("mod_user"), &v), 0);
        assert_int_equal(weir->var_set(r, W("mod_user"), W("ann")), WEIR_OK);
        assert_int_equal(weir->var_set(r, W("mod_user"), W("bob")), WEIR_OK);
        assert_int_equal(weir->var_get(r, W("mod_user"), &v), 1);
        ASSERT_STR(v, "bob");
        assert_int_equal(weir->var_del(r, W("mod_user")), WEIR_OK);
        assert_int_equal(weir->var_get(r, W("mod_user"), &v), 0);
        assert_int_equal(weir->var_del(r, W("mod_user")), WEIR_E_NOENT);
        assert_int_equal(weir->var_set(r, W("other_user"), W("x")), WEIR_E_DENIED);
        assert_int_equal(weir->var_set(r, W("client_ip"), W("x")), WEIR_E_DENIED);
        assert_int_equal(weir->var_set(r, W("status"), W("200")), WEIR_E_PHASE);
        assert_int_equal(weir->var_set(r, W("upstream"), W("none")), WEIR_E_NOENT);
        assert_int_equal(weir->var_set(r, W("method"), W("P T")), WEIR_E_INVAL);
        assert_int_equal(weir->var_set(r, W("method"), W("CONNECT")), WEIR_E_INVAL);
        assert_int_equal(weir->var_set(r, W("method"), W("PUT")), WEIR_OK);
        assert_int_equal(weir->var_set(r, W("host"), W("a b")), WEIR_E_INVAL);
        assert_int_equal(weir->var_set(r, W("host"), W("inner:8080")), WEIR_OK);
        assert_int_equal(weir->var_set(r, W("arg_y"), W("a b&c")), WEIR_OK);
        assert_int_equal(weir->var_get(r, W("uri"), &v), 1);
        ASSERT_STR(v, "/a?x=1&y=a%20b%26c");
        assert_int_equal(weir->var_set(r, W("arg_x"), W("2")), WEIR_OK);
        assert_int_equal(weir->var_get(r, W("arg_x"), &v), 1);
        ASSERT_STR(v, "2");
        assert_int_equal(weir->var_del(r, W("arg_y")), WEIR_OK);
        assert_int_equal(weir->var_get(r, W("uri"), &v), 1);
        ASSERT_STR(v, "/a?x=2");
        assert_int_equal(weir->var_set(r, W("uri"), W("/a b")), WEIR_E_INVAL);
        assert_int_equal(weir->var_set(r, W("uri"), W("//x\r\n")), WEIR_E_INVAL);
        assert_int_equal(weir->var_set(r, W("uri"), W("rel")), WEIR_E_INVAL);
        assert_int_equal(weir->var_set(r, W("uri"), W("/b?z=9")), WEIR_OK);
        assert_int_equal(weir->var_get(r, W("arg_z"), &v), 1);
}
static void variables_are_set_and_checked(void **state)
{
        (void)state;
        in_request_hook(variables);
        ASSERT_STR(rig.txn.method, "PUT");
        ASSERT_STR(rig.txn.authority, "inner:8080");
        ASSERT_STR(rig.txn.uri, "/b?z=9");
}

static void set_status_later(weir_req *r)
{
        assert_int_equal(weir->var_set(r, W("status"), W("2x0")), WEIR_E_INVAL);
        assert_int_equal(weir->var_set(r, W("status"), W("101")), WEIR_E_INVAL);
        assert_int_equal(weir->var_set(r, W("status"), W("404")), WEIR_OK);
        assert_int_equal(weir->var_set(r, W("uri"), W("/x")), WEIR_E_PHASE);
}
static void the_status_belongs_to_the_response(void **state)
{
        (void)state;
        in_response_hook(set_status_later);
        assert_int_equal(rig.req.res.status, 404);
}

static void bad_answers(weir_req *r)
{
        weir_str failed = {NULL, 0};

        assert_int_equal(weir->respond(r, 199, W("")), WEIR_ERROR);
        assert_int_equal(weir->respond(r, 600, W("")), WEIR_ERROR);
        assert_int_equal(weir->respond(r, 200, failed), WEIR_ERROR);
}
static void answers_are_checked(void **state)
{
        (void)state;
        in_request_hook(bad_answers);
}

/* ------------------------------------------------------------------ regular expressions */

static struct {
        const char *pattern, *with, *subject, *result;
} const replacements[] = {
        {"^http://[^/]+/(.*)$", "https://$host/$1", "http://10.0.0.1:80/x?y",
         "https://example.com/x?y"},
        {"b", "c", "abab", "acac"},
        {"x", "y", "abc", "abc"},
        {"", "-", "ab", "-a-b-"},
        {"(a)|(b)", "[$2]", "ab", "[][b]"},
        {"(?<n>\\d+)", "<${n}>", "a1b22", "a<1>b<22>"},
};
static void replace(weir_req *r)
{
        for (size_t i = 0; i < COUNT(replacements); i++) {
                struct regex_error err;
                const char *error;
                size_t at;
                struct regex *re = regex_new(str_z(replacements[i].pattern), 0, &err);
                struct template_scope scope = {.route_regex = re};
                struct template *with = template_compile(rig.req.arena, str_z(replacements[i].with),
                                                         &scope, &error, &at);
                weir_str subject = weir_bytes(replacements[i].subject,
                                              strlen(replacements[i].subject)),
                         got;

                assert_non_null(re);
                assert_non_null(with);
                got = weir->regex_replace(r, (const weir_regex *)re, subject,
                                          (const weir_template *)with);
                assert_true(str_eq(api_str(got), str_z(replacements[i].result)));
                assert_int_equal(weir->regex_match(r, (const weir_regex *)re, subject),
                                 i != 2); /* "x" is not in "abc" */
                regex_free(re);
        }
}
static void regular_expressions(void **state)
{
        (void)state;
        in_request_hook(replace);
}

/* A handle kept beyond its call is refused, whatever it points to. */
static weir_req *kept;
static void keep(weir_req *r)
{
        kept = r;
}
static void outside_of_its_task(void **state)
{
        weir_str v;

        (void)state;
        in_request_hook(keep);
        assert_int_equal(weir->var_get(kept, W("method"), &v), 0);
        assert_int_equal(weir->var_set(kept, W("method"), W("PUT")), WEIR_E_PHASE);
        assert_int_equal(weir->var_del(kept, W("arg_a")), WEIR_E_PHASE);
        assert_int_equal(weir->respond(kept, 200, W("")), WEIR_ERROR);
        assert_null(weir->alloc(kept, 8));
}

int main(void)
{
#define T(t) cmocka_unit_test_setup_teardown(t, begin, end)
        const struct CMUnitTest tests[] = {
                T(variables_are_set_and_checked), T(the_status_belongs_to_the_response),
                T(answers_are_checked),           T(regular_expressions),
                T(outside_of_its_task),
        };
        weir = &api_host;
        crypto_init();
        log_level = LOG_ERROR;
        return cmocka_run_group_tests(tests, NULL, NULL);
}
