/* What the server is told of the client: trust, forwarded fields, Host, limits, shares of targets.
 */
#include "proxy/forward.c"

#include "one_request.h"

/* The codec: notes what it was told. */
static struct {
        int64_t body_us, send_us;
        uint64_t body_max;
        unsigned calls;
        enum reason answer;
} limits;

static enum reason note_limits(struct request *r, int64_t body_us, int64_t send_us,
                               uint64_t body_max)
{
        assert_ptr_equal(r, &one.r);
        limits.body_us = body_us;
        limits.send_us = send_us;
        limits.body_max = body_max;
        limits.calls++;
        return limits.answer;
}

static const struct client_ops noting_client = {.limits = note_limits, .facts = one_facts};

static struct cidr nets[2];

static int setup(void **state)
{
        one_setup(state);
        memset(&limits, 0, sizeof(limits));
        assert_true(cidr_parse(STR("10.0.0.0/8"), &nets[0]));
        assert_true(cidr_parse(STR("2001:db8::/32"), &nets[1]));
        one.conf.trusted = nets;
        one.conf.n_trusted = 2;
        target("/x?q");
        one.r.client = &noting_client;
        return 0;
}

static void trusted_peer(void)
{
        one.facts.peer = addr_at("10.0.0.9:1234");
}

static struct msg sent;

static void forward(void)
{
        forward_client(&one.t);
        forward_request(&one.t, &sent);
}

/* The one field of that name as sent; "-" when there is none. */
static str value(const char *name)
{
        unsigned n = fields_count(&sent.fields, str_z(name));

        assert_in_range(n, 0, 1);
        return n ? fields_find(&sent.fields, str_z(name))->value : STR("-");
}

#define SENT(name, want)                                                                           \
        do {                                                                                       \
                str got_ = value(name);                                                            \
                if (!str_eq(got_, str_z(want)))                                                    \
                        fail_msg("%s is \"%.*s\", not \"%s\"", name, STR_ARG(got_), want);         \
        } while (0)

/* ------------------------------------------------------------------ who the client is */

static void plain_client(void **state)
{
        (void)state;
        one.r.req.authority = STR("API.Example.com:8080");
        forward();
        ASSERT_STR(one.t.host, "api.example.com");
        assert_int_equal(one.t.port, 8080);
        ASSERT_STR(one.t.client_ip, "192.0.2.1");
        ASSERT_STR(one.t.scheme, "http");
        assert_false(one.t.trusted);
        assert_int_equal(one.t.request_id.n, 32);
        SENT("X-Forwarded-For", "192.0.2.1");
        SENT("X-Forwarded-Proto", "http");
        SENT("X-Forwarded-Host", "API.Example.com:8080");
        SENT("Via", "1.1 weir");
        assert_true(str_eq(value("X-Request-ID"), one.t.request_id));
        ASSERT_STR(sent.authority, "API.Example.com:8080"); /* port and case kept */
        ASSERT_STR(sent.target, "/x?q");
        ASSERT_STR(sent.method_text, "GET");
        assert_int_equal(sent.version, 11);
}

static void hosts(void **state)
{
        static const struct {
                const char *authority, *host;
                uint16_t port;
        } rows[] = {
                {"a", "a", 0},           {"A.b:1", "a.b", 1},
                {"a.", "a", 0},          {"a.:80", "a", 80},
                {".", ".", 0},           {"[::1]", "[::1]", 0},
                {"[::1]:8", "[::1]", 8}, {"[FE80::A]:65535", "[fe80::a]", 65535},
                {"a:", "a", 0},          {"a:65536", "a", 0},
        };

        (void)state;
        for (size_t i = 0; i < COUNT(rows); i++) {
                one.r.req.authority = str_z(rows[i].authority);
                forward_client(&one.t);
                if (!str_eq(one.t.host, str_z(rows[i].host)))
                        fail_msg("%s: %.*s", rows[i].authority, STR_ARG(one.t.host));
                assert_int_equal(one.t.port, rows[i].port);
        }
        one.r.req.authority = STR_NONE; /* HTTP/1.0 */
        one.r.req.version = 10;
        forward();
        assert_int_equal(one.t.host.n, 0);
        SENT("X-Forwarded-Host", "-");
        SENT("Via", "1.0 weir");
        assert_int_equal(sent.version, 11);
}

static void tls_client(void **state)
{
        (void)state;
        one.r.tls = &one.tls;
        forward();
        ASSERT_STR(one.t.scheme, "https");
        SENT("X-Forwarded-Proto", "https");
}

static void other_peers(void **state)
{
        (void)state;
        one.facts.peer = addr_at("[2001:db9::5]:1");
        forward();
        SENT("X-Forwarded-For", "2001:db9::5");
        one.facts.peer = addr_at("[::ffff:192.0.2.7]:1");
        forward();
        SENT("X-Forwarded-For", "192.0.2.7");
        one.facts.peer = addr_at("unix:/run/peer");
        forward();
        assert_false(one.t.trusted);
        SENT("X-Forwarded-For", "unix:");
}

static void untrusted_is_replaced(void **state)
{
        (void)state;
        req_field("X-Forwarded-For", "127.0.0.1");
        req_field("x-forwarded-for", "10.0.0.1");
        req_field("X-Forwarded-Proto", "https");
        req_field("X-Forwarded-Host", "admin.internal");
        req_field("Forwarded", "for=127.0.0.1;proto=https");
        req_field("X-Request-ID", "chosen");
        forward();
        ASSERT_STR(one.t.client_ip, "192.0.2.1");
        ASSERT_STR(one.t.scheme, "http");
        SENT("X-Forwarded-For", "192.0.2.1");
        SENT("X-Forwarded-Proto", "http");
        SENT("X-Forwarded-Host", "example.com");
        SENT("Forwarded", "-");
        assert_true(str_eq(value("X-Request-ID"), one.t.request_id));
        assert_int_equal(one.t.request_id.n, 32);
        /* What came is as it was: it is logged, and functions see it. */
        assert_int_equal(fields_count(&one.r.req.fields, STR("X-Forwarded-For")), 2);
}

static void untrusted_without_host_names_none(void **state)
{
        (void)state;
        one.r.req.authority = STR_NONE;
        req_field("X-Forwarded-Host", "admin.internal");
        forward();
        SENT("X-Forwarded-Host", "-");
}

static void trusted_is_continued(void **state)
{
        (void)state;
        trusted_peer();
        req_field("X-Forwarded-For", "192.0.2.66");
        req_field("X-Forwarded-For", "10.0.0.5");
        req_field("X-Forwarded-Proto", "HTTPS");
        req_field("X-Forwarded-Host", "shop.example.com");
        req_field("Forwarded", "for=192.0.2.66");
        req_field("X-Request-ID", "from-the-cdn");
        req_field("Via", "2 cdn");
        forward();
        assert_true(one.t.trusted);
        ASSERT_STR(one.t.client_ip, "192.0.2.66");
        assert_int_equal(addr_port(&one.t.client), 0);
        ASSERT_STR(one.t.scheme, "https");
        SENT("X-Forwarded-For", "192.0.2.66, 10.0.0.5, 10.0.0.9");
        SENT("X-Forwarded-Proto", "HTTPS");
        SENT("X-Forwarded-Host", "shop.example.com");
        SENT("Forwarded", "for=192.0.2.66");
        SENT("X-Request-ID", "from-the-cdn");
        SENT("Via", "2 cdn, 1.1 weir");
}

static void trusted_that_says_nothing(void **state)
{
        (void)state;
        trusted_peer();
        forward();
        ASSERT_STR(one.t.client_ip, "10.0.0.9");
        SENT("X-Forwarded-For", "10.0.0.9");
        SENT("X-Forwarded-Proto", "http");
        SENT("X-Forwarded-Host", "example.com");
}

/* The first from the right that no trusted proxy vouches for. */
static void reported_clients(void **state)
{
        static const struct {
                const char *list, *client;
        } rows[] = {
                {"192.0.2.1", "192.0.2.1"},
                {"1.1.1.1, 192.0.2.2", "192.0.2.2"},
                {"1.1.1.1,10.1.1.1 ,\t2001:db8::7", "1.1.1.1"},
                {"10.1.1.1, 10.1.1.2", "10.1.1.1"}, /* all are trusted: the farthest */
                {"192.0.2.1:8080", "192.0.2.1"},    /* some write ports */
                {"[2001:db9::1]:80", "2001:db9::1"},
                {"[2001:db9::1]", "2001:db9::1"},
                {"[192.0.2.1", "10.0.0.9"},
                {"[]", "10.0.0.9"},
                {"[", "10.0.0.9"},
                {"2001:db9::1", "2001:db9::1"},
                {"::ffff:192.0.2.3", "192.0.2.3"},
                {"1.1.1.1, unknown", "10.0.0.9"}, /* what cannot be read ends it */
                {"1.1.1.1, unknown, 10.1.1.1", "10.1.1.1"},
                {"1.1.1.1, , 10.1.1.1", "10.1.1.1"},
                {"1.1.1.1,", "10.0.0.9"},
                {"", "10.0.0.9"},
                {"unix:/x", "10.0.0.9"},
                {"*:80", "10.0.0.9"},
                {"1.2.3.4.5", "10.0.0.9"},
                {"\"1.1.1.1\"", "10.0.0.9"},
        };

        (void)state;
        for (size_t i = 0; i < COUNT(rows); i++) {
                trusted_peer();
                one.r.req.fields.n = 0;
                req_field("X-Forwarded-For", rows[i].list);
                forward_client(&one.t);
                if (!str_eq(one.t.client_ip, str_z(rows[i].client)))
                        fail_msg("%s: %.*s, not %s", rows[i].list, STR_ARG(one.t.client_ip),
                                 rows[i].client);
                if (!addr_equal(&one.t.client, &one.facts.peer))
                        assert_int_equal(addr_port(&one.t.client), 0);
        }
}

static void reported_schemes(void **state)
{
        (void)state;
        trusted_peer();
        one.r.tls = &one.tls;
        req_field("X-Forwarded-Proto", "http");
        forward_client(&one.t);
        ASSERT_STR(one.t.scheme, "http");
        one.r.req.fields.n = 0;
        req_field("X-Forwarded-Proto", "gopher");
        forward_client(&one.t);
        ASSERT_STR(one.t.scheme, "https"); /* the connection's */
}

static void request_ids(void **state)
{
        char lengthy[200];
        static const char *const bad[] = {"", "a b", "a\tb\n", " a"};
        str first;

        (void)state;
        trusted_peer();
        forward_client(&one.t);
        first = one.t.request_id;
        forward_client(&one.t);
        assert_false(str_eq(first, one.t.request_id));
        for (size_t i = 0; i < first.n; i++)
                assert_non_null(strchr("0123456789abcdef", first.p[i]));
        for (size_t i = 0; i < COUNT(bad); i++) {
                one.r.req.fields.n = 0;
                req_field("X-Request-ID", bad[i]);
                forward_client(&one.t);
                assert_int_equal(one.t.request_id.n, 32);
        }
        memset(lengthy, 'x', sizeof(lengthy));
        lengthy[129] = '\0';
        one.r.req.fields.n = 0;
        req_field("X-Request-ID", lengthy);
        forward_client(&one.t);
        assert_int_equal(one.t.request_id.n, 32);
        lengthy[128] = '\0';
        one.r.req.fields.n = 0;
        req_field("X-Request-ID", lengthy);
        forward_client(&one.t);
        assert_int_equal(one.t.request_id.n, 128);
}

/* ------------------------------------------------------------------ the head for the server */

static void hop_by_hop(void **state)
{
        (void)state;
        req_field("Accept", "*/*");
        req_field("Connection", "close, X-Secret, Host, Content-Length, TE");
        req_field("X-Secret", "1");
        req_field("Keep-Alive", "timeout=5");
        req_field("Proxy-Connection", "keep-alive");
        req_field("TE", "trailers");
        req_field("Upgrade", "h2c");
        req_field("HTTP2-Settings", "AAMAAABk");
        req_field("Transfer-Encoding", "chunked");
        req_field("X-Kept", "2");
        req_field("Proxy-Authorization", "Basic eA==");
        one.r.req.framing = FRAMING_CHUNKED;
        forward();
        SENT("Accept", "*/*");
        SENT("X-Kept", "2");
        SENT("Proxy-Authorization", "Basic eA==");
        static const char *const gone[] = {
                "Connection", "X-Secret",         "Keep-Alive",     "TE",
                "Upgrade",    "Proxy-Connection", "HTTP2-Settings", "Transfer-Encoding"};
        for (size_t i = 0; i < COUNT(gone); i++)
                SENT(gone[i], "-");
        assert_int_equal(sent.framing, FRAMING_CHUNKED);
        assert_int_equal(fields_count(&one.r.req.fields, STR("X-Secret")), 1);
}

/* What weir itself answers for cannot be nominated away. */
static void nominated_fields_of_weir(void **state)
{
        (void)state;
        req_field("Connection", "X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host, Via, "
                                "X-Request-ID");
        req_field("X-Forwarded-For", "192.0.2.66");
        req_field("Via", "1.1 before");
        req_field("X-Request-ID", "theirs");
        forward();
        SENT("X-Forwarded-For", "192.0.2.1");
        SENT("X-Forwarded-Proto", "http");
        SENT("X-Forwarded-Host", "example.com");
        SENT("Via", "1.1 before, 1.1 weir");
        trusted_peer();
        forward();
        SENT("X-Forwarded-For", "192.0.2.66, 10.0.0.9"); /* else the proxy were the client */
        SENT("X-Forwarded-Proto", "http");
        SENT("X-Forwarded-Host", "example.com");
        SENT("X-Request-ID", "theirs");
}

static void host_of_target(void **state)
{
        struct proxy_target to = {0};

        (void)state;
        one.t.target = &to;
        forward();
        ASSERT_STR(sent.authority, "example.com");
        to.host = template_of("backend.internal:81");
        forward();
        ASSERT_STR(sent.authority, "backend.internal:81");
        SENT("X-Forwarded-Host", "example.com");
        to.host = template_of("$header_x_host");
        forward();
        ASSERT_STR(sent.authority, "example.com"); /* empty: the client's */
        req_field("X-Host", "a b");
        forward();
        ASSERT_STR(sent.authority, "example.com");
        one.r.req.fields.n = 0;
        req_field("X-Host", "a\r\nEvil:1");
        forward();
        ASSERT_STR(sent.authority, "example.com");
        one.r.req.fields.n = 0;
        req_field("X-Host", "tenant.internal");
        forward();
        ASSERT_STR(sent.authority, "tenant.internal");
        one.t.authority = STR("set.by.function");
        forward();
        ASSERT_STR(sent.authority, "set.by.function");
}

/* An absolute target: the codec has put its authority in the place of Host. */
static void absolute_form(void **state)
{
        (void)state;
        req_field("Host", "other.example.com");
        one.r.req.authority = STR("example.com:8081");
        forward();
        ASSERT_STR(one.t.host, "example.com");
        ASSERT_STR(sent.authority, "example.com:8081");
        SENT("X-Forwarded-Host", "example.com:8081");
}

static void what_functions_set(void **state)
{
        (void)state;
        one.t.method = STR("PUT");
        one.t.uri = STR("/elsewhere");
        forward();
        ASSERT_STR(sent.method_text, "PUT");
        assert_int_equal(sent.method, METHOD_PUT);
        ASSERT_STR(sent.target, "/elsewhere");
        ASSERT_STR(one.r.req.method_text, "GET");
        one.t.method = STR("PURGE");
        forward();
        assert_int_equal(sent.method, METHOD_OTHER);
}

static void many_fields(void **state)
{
        char name[16];

        (void)state;
        for (int i = 0; i < 500; i++) {
                snprintf(name, sizeof(name), "X-%d", i);
                req_field(name, "v");
        }
        fields_del(&one.r.req.fields, STR("X-7"));
        forward();
        SENT("X-0", "v");
        SENT("X-499", "v");
        SENT("X-7", "-");
        SENT("Via", "1.1 weir");
        assert_true(sent.fields.v != one.r.req.fields.v);
}

/* ------------------------------------------------------------------ limits */

static void limits_are_told(void **state)
{
        (void)state;
        one.eff = (struct settings){.client_body = 7, .client_send = 8, .body_max = 9};
        assert_int_equal(forward_limits(&one.t), REASON_NONE);
        assert_int_equal(limits.body_us, 7);
        assert_int_equal(limits.send_us, 8);
        assert_int_equal(limits.body_max, 9);
        limits.answer = REASON_BODY_MAX;
        assert_int_equal(forward_limits(&one.t), REASON_BODY_MAX);
}

static void limits_of_grpc_and_upgrades(void **state)
{
        static const struct {
                const char *type;
                uint64_t max;
        } rows[] = {{"application/grpc", 0},
                    {"application/grpc+proto", 0},
                    {"Application/GRPC-web", 0},
                    {"application/json", 9},
                    {"text/application/grpc", 9}};

        (void)state;
        one.eff.body_max = 9;
        for (size_t i = 0; i < COUNT(rows); i++) {
                one.r.req.fields.n = 0;
                req_field("Content-Type", rows[i].type);
                assert_int_equal(forward_limits(&one.t), REASON_NONE);
                assert_int_equal(limits.body_max, rows[i].max);
        }
        one.r.req.upgrade = STR("websocket");
        (void)!forward_limits(&one.t);
        assert_int_equal(limits.body_max, 9); /* upgrade off: a body like any other */
        one.eff.upgrade = true;
        (void)!forward_limits(&one.t);
        assert_int_equal(limits.body_max, 0);
}

/* ------------------------------------------------------------------ targets */

static struct upstream_conf ups[3] = {
        {.name = STR_INIT("a")}, {.name = STR_INIT("b")}, {.name = STR_INIT("c")}};

static void shares_of_targets(void **state)
{
        struct proxy_target to[3] = {{.upstream = &ups[0], .weight = 90},
                                     {.upstream = &ups[1], .weight = 10},
                                     {.upstream = &ups[2], .weight = 0}};
        unsigned got[3] = {0};

        (void)state;
        one.t.match.route = &one.route;
        one.route.targets = to;
        one.route.n_targets = 3;
        one.route.weight_sum = 100;
        for (int i = 0; i < 20000; i++) {
                one.t.upstream = NULL;
                one.t.target = NULL;
                forward_target(&one.t);
                assert_ptr_equal(one.t.upstream, one.t.target->upstream);
                assert_ptr_equal(one.t.eff, &one.t.target->eff);
                got[one.t.target - to]++;
        }
        assert_in_range(got[0], 17500, 18500); /* 18000: the bounds are 11 deviations away */
        assert_int_equal(got[0] + got[1], 20000);
        assert_int_equal(got[2], 0);
        one.t.upstream = NULL;
        one.route.n_targets = 1;
        forward_target(&one.t);
        assert_ptr_equal(one.t.upstream, &ups[0]);
}

static void upstream_by_function(void **state)
{
        struct proxy_target to[2] = {{.upstream = &ups[0], .weight = 1},
                                     {.upstream = &ups[1], .weight = 1}};

        (void)state;
        one.t.match.route = &one.route;
        one.route.targets = to;
        one.route.n_targets = 2;
        one.route.weight_sum = 2;
        for (int i = 0; i < 50; i++) {
                one.t.upstream = &ups[1];
                one.t.target = NULL;
                forward_target(&one.t);
                assert_ptr_equal(one.t.target, &to[1]);
                assert_ptr_equal(one.t.eff, &to[1].eff);
        }
        /* One that the route does not name brings its own settings. */
        ups[2].own = (struct settings){.set = UINT64_C(1) << SET_CONNECT, .connect = 77};
        one.route.own = (struct settings){.set = UINT64_C(1) << SET_RESPONSE, .response = 78};
        one.host.own =
                (struct settings){.set = UINT64_C(1) << SET_RESPONSE | UINT64_C(1) << SET_IDLE,
                                  .response = 1,
                                  .idle = 79};
        one.conf.top = (struct settings){.set = UINT64_C(1) << SET_CONNECT, .connect = 1};
        one.t.upstream = &ups[2];
        one.t.target = NULL;
        forward_target(&one.t);
        assert_null(one.t.target);
        assert_int_equal(one.t.eff->connect, 77);
        assert_int_equal(one.t.eff->response, 78);
        assert_int_equal(one.t.eff->idle, 79);
        forward();
        ASSERT_STR(sent.authority, "example.com");
        ups[2].own = (struct settings){0};
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, one_teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(plain_client),
                TEST(hosts),
                TEST(tls_client),
                TEST(other_peers),
                TEST(untrusted_is_replaced),
                TEST(untrusted_without_host_names_none),
                TEST(trusted_is_continued),
                TEST(trusted_that_says_nothing),
                TEST(reported_clients),
                TEST(reported_schemes),
                TEST(request_ids),
                TEST(hop_by_hop),
                TEST(nominated_fields_of_weir),
                TEST(host_of_target),
                TEST(absolute_form),
                TEST(what_functions_set),
                TEST(many_fields),
                TEST(limits_are_told),
                TEST(limits_of_grpc_and_upgrades),
                TEST(shares_of_targets),
                TEST(upstream_by_function),
        };

        return cmocka_run_group_tests(tests, one_begin, one_end);
}
