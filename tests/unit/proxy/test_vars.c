/* Variables of a request, the target as it is sent, query parameters, and when. */
#include "proxy/vars.c"

#include "one_request.h"

static str expand(const char *text)
{
        return vars_expand(&one.t, template_of(text));
}

#define EXPANDS(text, want)                                                                        \
        do {                                                                                       \
                str got_ = expand(text);                                                           \
                if (!str_eq(got_, STR(want)))                                                      \
                        fail_msg("%s is \"%.*s\", not \"%s\"", text, STR_ARG(got_), want);         \
        } while (0)

static const struct expected {
        const char *name, *value;
} full[] = {
        {"method", "POST"},
        {"scheme", "https"},
        {"host", "example.com"},
        {"port", "8443"},
        {"uri", "/users/%2fx/7?q=1&r"},
        {"path", "/users/%2Fx/7"},
        {"path_rest", "%2Fx/7"},
        {"query", "q=1&r"},
        {"client_ip", "192.0.2.1"},
        {"client_port", "4711"},
        {"tls_version", "TLSv1.3"},
        {"tls_cipher", "TLS_AES_128_GCM_SHA256"},
        {"tls_client_subject", "CN=me"},
        {"tls_sni", "sni.example.com"},
        {"tls_early_data", "yes"},
        {"proxy_protocol_authority", "a.example"},
        {"proxy_protocol_alpn", "h2"},
        {"proxy_protocol_unique_id", "id%0D%0A%25%FF"},
        {"proxy_protocol_ssl_version", "TLSv1.2"},
        {"proxy_protocol_ssl_cn", "J%C3%B6rg %7F"},
        {"proxy_protocol_ssl_verified", "yes"},
        {"client_certificate_verified", "yes"},
        {"client_certificate_subject", "CN=me"},
        {"client_certificate_issuer", "CN=them"},
        {"client_certificate_serial", "0A"},
        {"client_certificate_san", "DNS:me.example"},
        {"client_certificate_fingerprint", "ab12"},
        {"client_certificate_expires", "2026-12-27T09:10:31Z"},
        {"route", "/users/"},
        {"upstream", "users"},
        {"server", "10.0.0.1:80"},
        {"request_id", "id-1"},
        {"time_iso8601", "2026-11-23T10:00:00.123Z"},
        {"status", "502"},
        {"bytes_sent", "1234567890123"},
        {"duration_ms", "2500"},
        {"upstream_duration_ms", "17"},
        {"attempts", "2"},
        {"reason", "connect_failed"},
};

static const char proxy_tlvs[] = "\1\0\2h2\2\0\x09"
                                 "a.example\5\0\6id\r\n%\xff"
                                 "\x20\0\x19\7\0\0\0\0\x21\0\7TLSv1.2\x22\0\7J\xc3\xb6rg \x7f"
                                 "\xe0\0\2\0x\xe1\0\0";

static void fill(struct upstream_conf *u)
{
        target("/users/%2fx/7?q=1&r");
        *u = (struct upstream_conf){.name = STR("users")};
        one.tls = (struct tls_facts){
                .version = STR("TLSv1.3"),
                .cipher = STR("TLS_AES_128_GCM_SHA256"),
                .client_verified = true,
                .client_text = {[TLS_CLIENT_SUBJECT] = STR("CN=me"),
                                [TLS_CLIENT_ISSUER] = STR("CN=them"),
                                [TLS_CLIENT_SERIAL] = STR("0A"),
                                [TLS_CLIENT_SAN] = STR("DNS:me.example"),
                                [TLS_CLIENT_FINGERPRINT] = STR("ab12"),
                                [TLS_CLIENT_EXPIRES] = STR("2026-12-27T09:10:31Z")},
                .sni = STR("sni.example.com")};
        one.route.label = STR("/users/");
        one.t.match.route = &one.route;
        one.t.match.rest = 7;
        one.t.method = STR("POST");
        one.t.scheme = STR("https");
        one.t.port = 8443;
        one.t.tls = &one.tls;
        one.t.early = true;
        one.t.proxy_tlvs = str_of(proxy_tlvs, sizeof(proxy_tlvs) - 1);
        one.t.upstream = u;
        one.t.server = STR("10.0.0.1:80");
        one.t.attempts = 2;
        one.t.upstream_us = 17999;
        one.t.reason = REASON_CONNECT_FAILED;
        one.t.finished = one.r.started + 2500999;
        one.r.res.status = 502;
        one.r.bytes_out = 1234567890123;
}

static const char *expected_of(const struct expected *e, size_t n, const char *name)
{
        for (size_t i = 0; i < n; i++)
                if (strcmp(e[i].name, name) == 0)
                        return e[i].value;
        fail_msg("no value is expected of $%s", name);
        return NULL;
}

static void every_variable(void **state)
{
        static const char *const rows[] = {
#define VARIABLE(id, name, when, help) name,
#include "conf/variable.tbl"
#undef VARIABLE
        };
        struct upstream_conf u;

        (void)state;
        fill(&u);
        for (size_t i = 0; i < COUNT(rows); i++) {
                const char *want = expected_of(full, COUNT(full), rows[i]);
                str by_name = vars_get_name(&one.t, str_z(rows[i]));
                str by_template = expand(arena_printf(one.arena, "<${%s}>", rows[i]).p);
                if (!str_eq(by_name, str_z(want)))
                        fail_msg("$%s is \"%.*s\", not \"%s\"", rows[i], STR_ARG(by_name), want);
                assert_true(str_eq(by_template, arena_printf(one.arena, "<%s>", want)));
        }
        one.t.finished = 0; /* still under way */
        ASSERT_STR(expand("$duration_ms"), "1000");
        one.r.started = one.loop->now + SEC; /* a clock that was not read again */
        ASSERT_STR(expand("$duration_ms"), "0");
}

static void what_is_not_known_is_absent(void **state)
{
        static const char *const absent[] = {"path_rest",
                                             "query",
                                             "tls_version",
                                             "tls_cipher",
                                             "tls_client_subject",
                                             "tls_sni",
                                             "route",
                                             "upstream",
                                             "server",
                                             "status",
                                             "reason",
                                             "arg_x",
                                             "header_x",
                                             "cookie_x",
                                             "response_header_x",
                                             "client_certificate_verified",
                                             "client_certificate_subject",
                                             "client_certificate_issuer",
                                             "client_certificate_serial",
                                             "client_certificate_san",
                                             "client_certificate_fingerprint",
                                             "client_certificate_expires",
                                             "jwt_user",
                                             "1",
                                             "0",
                                             "64",
                                             "nonsense",
                                             "",
                                             "client_port",
                                             "proxy_protocol_alpn",
                                             "proxy_protocol_ssl_version",
                                             "proxy_protocol_ssl_verified",
                                             "proxy_protocol_tlv_0xe0",
                                             "tls_early_data"};

        (void)state;
        target("/x");
        addr_set_port(&one.t.client, 0); /* reported by a proxy */
        for (size_t i = 0; i < COUNT(absent); i++)
                if (vars_get_name(&one.t, str_z(absent[i])).p != NULL)
                        fail_msg("$%s has a value", absent[i]);
        assert_null(vars_get_name(&one.t, STR("upstream_duration_ms")).p);
        ASSERT_STR(expand("[$query$upstream$jwt_user]"), "[]");
        ASSERT_STR(expand("$attempts $bytes_sent"), "0 0");
}

/* A request that could not be read has no path, no method and no host. */
static void refused_before_it_was_read(void **state)
{
        (void)state;
        one.r.req = (struct msg){0};
        one.t.host = STR_NONE;
        ASSERT_STR(expand("[$method$host$uri$path$arg_x$header_x$cookie_x]"), "[]");
}

static void proxy_protocol_values(void **state)
{
        (void)state;
        one.t.proxy_tlvs = str_of(proxy_tlvs, sizeof(proxy_tlvs) - 1);
        EXPANDS("$proxy_protocol_tlv_0xe0", "%00x");
        EXPANDS("$proxy_protocol_tlv_0xE1$proxy_protocol_tlv_0x77", "");
        assert_non_null(vars_get_name(&one.t, STR("proxy_protocol_tlv_0xe1")).p);
        assert_null(vars_get_name(&one.t, STR("proxy_protocol_tlv_0x77")).p);
        assert_null(vars_get_name(&one.t, STR("proxy_protocol_tlv_e0")).p);
        ASSERT_STR(vars_get_name(&one.t, STR("proxy_protocol_tlv_0x01")), "h2");
        one.t.proxy_tlvs = str_of("\x20\0\5\1\0\0\0\0", 8); /* no certificate, so not verified */
        EXPANDS("$proxy_protocol_ssl_verified$proxy_protocol_ssl_cn", "no");
        one.t.proxy_tlvs = str_of("\x20\0\5\0\0\0\0\0", 8); /* no TLS */
        EXPANDS("$proxy_protocol_ssl_verified", "");
}

static void ports(void **state)
{
        (void)state;
        target("/");
        ASSERT_STR(expand("$port"), "8080"); /* the listener's */
        one.t.port = 81;
        ASSERT_STR(expand("$port"), "81");
        one.t.port = 0;
        one.t.listen = NULL; /* removed by a reload while the connection stayed */
        ASSERT_STR(expand("$port"), "80");
        one.t.scheme = STR("https");
        ASSERT_STR(expand("$port"), "443");
        one.t.listen = &one.listen;
        one.listen.addr = addr_at("unix:/run/x");
        ASSERT_STR(expand("$port"), "443");
}

static void captures(void **state)
{
        (void)state;
        target("/users/42/edit");
        regex_route("^/users/(?<id>\\d+)(?<sub>/sub)?(?<rest>/.*)?$");
        ASSERT_STR(expand("$1|$2|$3|$id|$sub|$rest"), "42||/edit|42||/edit");
        ASSERT_STR(expand("${id}0$$$id"), "420$42");
        ASSERT_STR(vars_get_name(&one.t, STR("id")), "42");
        ASSERT_STR(vars_get_name(&one.t, STR("0")), "/users/42/edit");
        assert_null(vars_get_name(&one.t, STR("sub")).p);
        assert_null(vars_get_name(&one.t, STR("4")).p);
        assert_null(vars_get_name(&one.t, STR("65")).p);
        assert_null(vars_get_name(&one.t, STR("-1")).p);
        assert_null(vars_get_name(&one.t, STR("99999999999999999999")).p);
        ASSERT_STR(expand("$path_rest"), ""); /* only a prefix leaves one */
}

static void header_family(void **state)
{
        (void)state;
        req_field("X-Request-Tag", "a");
        req_field("x-request-tag", "b");
        req_field("Host", "example.com:81");
        req_field("X-Empty", "");
        req_field("X-Request-Tag", "c");
        res_field("Content-Type", "text/html");
        EXPANDS("$header_x_request_tag", "a, b, c");
        EXPANDS("$header_X_Request_Tag", "a, b, c");
        EXPANDS("$header_host", "example.com:81");
        EXPANDS("$response_header_content_type", "text/html");
        EXPANDS("$header_content_type", "");
        ASSERT_STR(vars_get_name(&one.t, STR("header_x_request_tag")), "a, b, c");
        ASSERT_STR(vars_get_name(&one.t, STR("response_header_content_type")), "text/html");
        ASSERT_STR(vars_get_name(&one.t, STR("header_x_empty")), "");
        assert_non_null(vars_get_name(&one.t, STR("header_x_empty")).p);
        assert_null(vars_get_name(&one.t, STR("header_")).p);
        assert_non_null(fields_find(&one.r.req.fields, STR("x-request-tag")));
        fields_del(&one.r.req.fields, STR("x-request-tag"));
        EXPANDS("$header_x_request_tag", "");
}

static void cookie_family(void **state)
{
        (void)state;
        req_field("Cookie", "a=1; b=2;c=x=y ;d=; e; aa=3");
        req_field("Cookie", "f=4; a=9");
        EXPANDS("$cookie_a", "1");
        EXPANDS("$cookie_b", "2");
        EXPANDS("$cookie_c", "x=y");
        EXPANDS("$cookie_aa", "3");
        EXPANDS("$cookie_f", "4");
        assert_non_null(vars_get_name(&one.t, STR("cookie_d")).p);
        assert_int_equal(vars_get_name(&one.t, STR("cookie_d")).n, 0);
        assert_null(vars_get_name(&one.t, STR("cookie_e")).p);
        assert_null(vars_get_name(&one.t, STR("cookie_A")).p); /* names have a case */
}

static void arg_family(void **state)
{
        (void)state;
        target("/x?a=1&b=two+words&c=%C3%a4%zz%4&d&=5&a=9&e%5b%5D=6&f=1=2&&%67=7");
        EXPANDS("$arg_a", "1"); /* the first */
        EXPANDS("$arg_b", "two words");
        EXPANDS("$arg_c", "\xc3\xa4%zz%4");
        EXPANDS("$arg_f", "1=2");
        EXPANDS("$arg_g", "7");
        ASSERT_STR(vars_get_name(&one.t, STR("arg_e[]")), "6");
        assert_non_null(vars_get_name(&one.t, STR("arg_d")).p);
        assert_int_equal(vars_get_name(&one.t, STR("arg_d")).n, 0);
        assert_null(vars_get_name(&one.t, STR("arg_A")).p);
        target("/x?");
        assert_null(vars_get_name(&one.t, STR("arg_a")).p);
        ASSERT_STR(expand("[$query]"), "[]");
}

static void query_values(void **state)
{
        (void)state;
        ASSERT_STR(vars_query_arg(one.arena, STR("x=%"), STR("x")), "%");
        ASSERT_STR(vars_query_arg(one.arena, STR("x=%4"), STR("x")), "%4");
        ASSERT_STR(vars_query_arg(one.arena, STR("x=%41"), STR("x")), "A");
        ASSERT_STR(vars_query_arg(one.arena, STR("x=%00%0d%7F"), STR("x")), "%00%0d%7F");
        assert_null(vars_query_arg(one.arena, STR_NONE, STR("x")).p);
        assert_null(vars_query_arg(one.arena, STR("&&"), STR("")).p);
        ASSERT_STR(vars_query_encode(one.arena, STR("aZ09-._~ &=+/?%\xc3\xa4\n")),
                   "aZ09-._~%20%26%3D%2B%2F%3F%25%C3%A4%0A");
        ASSERT_STR(vars_query_encode(one.arena, STR("")), "");
        for (int c = 0; c < 256; c++) { /* what is encoded reads back */
                char byte = (char)c;
                str v = vars_query_encode(one.arena, str_of(&byte, 1));
                str q = arena_cat(one.arena, (str[]){STR("k="), v}, 2);
                str back = vars_query_arg(one.arena, q, STR("k"));
                if (c < 0x20 || c == 0x7f) { /* but controls stay encoded */
                        assert_true(str_eq(back, v));
                        continue;
                }
                assert_int_equal(back.n, 1);
                assert_memory_equal(back.p, &byte, 1);
        }
}

static void module_variables(void **state)
{
        struct txn_var older = {NULL, STR("jwt_user"), STR("old")};
        struct txn_var newer = {&older, STR("jwt_user"), STR("ann")};
        struct txn_var other = {&newer, STR("jwt_role"), STR("")};

        (void)state;
        one.t.vars = &other;
        EXPANDS("$jwt_user", "ann"); /* the last one set */
        EXPANDS("[$jwt_role]", "[]");
        EXPANDS("[$jwt_none]", "[]");
        ASSERT_STR(vars_get_name(&one.t, STR("jwt_user")), "ann");
}

static void uri_unchanged(void **state)
{
        (void)state;
        target("/a%2fb;p=1//c?q=%20");
        assert_ptr_equal(vars_uri(&one.t).p, one.r.req.target.p); /* not copied */
        EXPANDS("$uri", "/a%2fb;p=1//c?q=%20");
        target("/a/../b/./c?q");
        EXPANDS("$uri", "/b/c?q");
        target("/a/..?");
        EXPANDS("$uri", "/?");
        target("*");
        EXPANDS("$uri", "*");
        one.t.uri = STR("/set?by=function");
        EXPANDS("$uri", "/set?by=function");
}

static void rewrite_to(const char *text)
{
        one.t.match.route = &one.route;
        one.route.rewrite = template_of(text);
        one.route.rewrite_query = strchr(text, '?') != NULL;
        assert_false(one.t.rewriting);
}

static void rewrites(void **state)
{
        (void)state;
        target("/users/7?q=1");
        rewrite_to("/v2$path");
        EXPANDS("$uri", "/v2/users/7?q=1"); /* the query is kept */
        rewrite_to("/v2$path?only=this");
        EXPANDS("$uri", "/v2/users/7?only=this");
        rewrite_to("/v2$path?$query&x");
        EXPANDS("$uri", "/v2/users/7?q=1&x");
        rewrite_to("/v2$uri"); /* the target before it, its query once */
        EXPANDS("$uri", "/v2/users/7?q=1");
        EXPANDS("$uri", "/v2/users/7?q=1"); /* and again */
        rewrite_to("users");
        EXPANDS("$uri", "/users?q=1"); /* a path begins with a slash */
        rewrite_to("$header_none");
        EXPANDS("$uri", "/?q=1");
        one.t.uri = STR("/set");
        rewrite_to("/v2$path");
        EXPANDS("$uri", "/set"); /* a function has the last word */
        one.t.uri = STR_NONE;
        target("/users/7");
        EXPANDS("$uri", "/v2/users/7");
        target("/users/7?");
        EXPANDS("$uri", "/v2/users/7?");
}

static void rewrite_cannot_break_the_line(void **state)
{
        (void)state;
        req_field("X-Path", "a b\tc\xc3\xa4#frag");
        target("/x?p=%0d%0aEvil:%201%00");
        rewrite_to("/$header_x_path");
        EXPANDS("$uri", "/a%20b%09c%C3%A4%23frag?p=%0d%0aEvil:%201%00");
        rewrite_to("/$arg_p");
        EXPANDS("$uri", "/%0d%0aEvil:%201%00?p=%0d%0aEvil:%201%00");
        rewrite_to("/y?$arg_p");
        EXPANDS("$uri", "/y?%0d%0aEvil:%201%00");
        ASSERT_STR(vars_clean_uri(one.arena, STR("http://x/\x7f \x80#f")), "http://x/%7F%20%80#f");
        str plain = STR("/nothing/to/do?x#y");
        assert_ptr_equal(vars_clean_uri(one.arena, plain).p, plain.p);
}

static bool holds(struct when w)
{
        enum reason why = REASON_NONE;
        one.route.whens = &w;
        one.route.n_whens = 1;
        bool ok = vars_when(&one.t, &one.route, &why);
        assert_int_equal(why, REASON_NONE);
        return ok;
}

static void when_method_and_client(void **state)
{
        const str methods[] = {STR_INIT("HEAD"), STR_INIT("GET")};
        struct cidr nets[2];

        (void)state;
        assert_true(cidr_parse(STR("10.0.0.0/8"), &nets[0]));
        assert_true(cidr_parse(STR("192.0.2.0/24"), &nets[1]));
        struct when m = {.kind = WHEN_METHOD, .methods = methods, .n_methods = 2};
        struct when c = {.kind = WHEN_CLIENT, .nets = nets, .n_nets = 2};
        assert_true(holds(m));
        one.r.req.method_text = STR("get"); /* methods have a case */
        assert_false(holds(m));
        one.r.req.method_text = STR("GETS");
        assert_false(holds(m));
        assert_true(holds(c));
        one.t.client = addr_at("192.0.3.1:1");
        assert_false(holds(c));
        one.t.client = addr_at("[::ffff:10.1.2.3]:1");
        assert_true(holds(c));
        one.t.client = addr_at("unix:/x");
        assert_false(holds(c));
}

static void when_header_and_query(void **state)
{
        struct regex_error err;
        struct regex *re = regex_new(STR("^v[12]$"), 0, &err);
        struct when w = {.kind = WHEN_HEADER, .name = STR("X-Version")};

        (void)state;
        target("/?x-version=v2&e=");
        assert_false(holds(w));
        req_field("x-version", "v1");
        assert_true(holds(w));
        w.op = WHEN_EQUAL;
        w.value = STR("v1");
        assert_true(holds(w));
        w.value = STR("V1");
        assert_false(holds(w));
        w.op = WHEN_REGEX;
        w.regex = re;
        assert_true(holds(w));
        req_field("X-Version", "v2"); /* two lines are one value */
        assert_false(holds(w));
        w = (struct when){
                .kind = WHEN_QUERY, .op = WHEN_REGEX, .name = STR("x-version"), .regex = re};
        assert_true(holds(w));
        w.name = STR("X-Version");
        assert_false(holds(w));
        w = (struct when){.kind = WHEN_QUERY, .op = WHEN_PRESENT, .name = STR("e")};
        assert_true(holds(w));
        w.name = STR("none");
        assert_false(holds(w));
        w = (struct when){.kind = WHEN_QUERY, .op = WHEN_EQUAL, .name = STR("e"), .value = STR("")};
        assert_true(holds(w));
        regex_free(re);
}

static void all_whens_must_hold(void **state)
{
        const str get = STR_INIT("GET");
        struct when w[2] = {{.kind = WHEN_METHOD, .methods = &get, .n_methods = 1},
                            {.kind = WHEN_HEADER, .name = STR("X")}};
        enum reason why = REASON_NONE;

        (void)state;
        assert_true(vars_when(&one.t, &one.route, &why)); /* none at all */
        one.route.whens = w;
        one.route.n_whens = 2;
        assert_false(vars_when(&one.t, &one.route, &why));
        req_field("X", "");
        assert_true(vars_when(&one.t, &one.route, &why));
        one.r.req.method_text = STR("PUT");
        assert_false(vars_when(&one.t, &one.route, &why));
        assert_int_equal(why, REASON_NONE);
}

/* A regex that gives up refuses the request: "no" would open the next route. */
static void when_regex_limit(void **state)
{
        struct regex_error err;
        struct regex *re = regex_new(STR("^(?:(a+)+)+$"), 0, &err);
        struct when w = {.kind = WHEN_HEADER, .op = WHEN_REGEX, .name = STR("X"), .regex = re};
        enum reason why = REASON_NONE;

        (void)state;
        assert_non_null(re);
        req_field("X", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!");
        one.route.whens = &w;
        one.route.n_whens = 1;
        assert_false(vars_when(&one.t, &one.route, &why));
        assert_int_equal(why, REASON_REGEX_LIMIT);
        regex_free(re);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                ONE_TEST(every_variable),
                ONE_TEST(what_is_not_known_is_absent),
                ONE_TEST(refused_before_it_was_read),
                ONE_TEST(proxy_protocol_values),
                ONE_TEST(ports),
                ONE_TEST(captures),
                ONE_TEST(header_family),
                ONE_TEST(cookie_family),
                ONE_TEST(arg_family),
                ONE_TEST(query_values),
                ONE_TEST(module_variables),
                ONE_TEST(uri_unchanged),
                ONE_TEST(rewrites),
                ONE_TEST(rewrite_cannot_break_the_line),
                ONE_TEST(when_method_and_client),
                ONE_TEST(when_header_and_query),
                ONE_TEST(all_whens_must_hold),
                ONE_TEST(when_regex_limit),
        };

        return cmocka_run_group_tests(tests, one_begin, one_end);
}
