/*
 * The life of a client connection: TLS, plain HTTP where TLS is spoken, the PROXY protocol however
 * it is cut, the counters, and timeouts before a request.
 */
#include "http/downstream.c"

#include "peer.h"

#include "../net/certs.h"
#include "http/reply.h"

#include <openssl/ssl.h>

static struct {
        unsigned begun, gone;
        char peer[ADDR_TEXT], local[ADDR_TEXT], scheme[8], version[16];
} flow;

static struct downstream_conf conf;
static struct peer client;
static struct metric_region *metrics;
static struct arena *arena;
static struct tls_server *tls;
static struct cert cert;

static void fake_begin(struct request *r)
{
        const struct client_facts *f = r->client->facts(r);
        const struct tls_facts *t = r->tls;
        flow.begun++;
        addr_print(&f->peer, flow.peer);
        addr_print(&f->local, flow.local);
        snprintf(flow.scheme, sizeof(flow.scheme), "%.*s", STR_ARG(r->req.scheme));
        snprintf(flow.version, sizeof(flow.version), "%.*s", STR_ARG(t ? t->version : STR_NONE));
        reply_fill(r, 200, REASON_RESPOND, STR("fine\n"), STR_NONE);
        r->res_head_sent = true;
        r->client->head(r);
}

static void fake_ready(struct request *r UNUSED)
{
}

static void fake_failed(struct request *r UNUSED, enum reason why UNUSED)
{
}

static void fake_sent(struct request *r)
{
        request_drop(r);
}

static void fake_gone(struct request *r, enum reason why UNUSED)
{
        flow.gone++;
        request_drop(r);
}

static const struct flow_ops fake_flow = {fake_begin, fake_ready, fake_failed,
                                          fake_ready, fake_sent,  fake_gone};

static void connect_client(void)
{
        int fd[2];
        struct addr a = {.len = sizeof(a) - offsetof(struct addr, sa)};
        tcp_pair(fd);
        getpeername(fd[1], &a.sa, &a.len);
        client = (struct peer){.fd = fd[0]};
        downstream_accept(loop, fd[1], &a, &conf, NULL);
}

static int begin_all(void **state)
{
        (void)state;
        str err;
        tls_init();
        arena = arena_new(0);
        cert = cert_make(arena, "one", "DNS:one.example", NULL, 30, false);
        struct tls_pair pair = {.cert_pem = cert.cert_pem,
                                .key_pem = cert.key_pem,
                                .cert_file = STR("c"),
                                .key_file = STR("k")};
        struct tls_server_conf c = {
                .pairs = &pair, .n_pairs = 1, .version_min = 12, .version_max = 13};
        tls = tls_server_new(&c, arena, &err);
        if (!tls)
                fail_msg("%.*s", STR_ARG(err));
        metrics = metric_region_new(1, 1 << 20);
        return 0;
}

static int end_all(void **state)
{
        (void)state;
        tls_server_drop(tls);
        cert_free(&cert);
        arena_free(arena);
        tls_thread_end();
        return 0;
}

static int begin_test(void **state)
{
        (void)state;
        metric_slot_begin(metric_slot(metrics, 0));
        loop = loop_new(0, metric_slot(metrics, 0));
        loop_turn(loop, false);
        memset(&flow, 0, sizeof(flow));
        conf = (struct downstream_conf){.limits = {4096, 2048, 20},
                                        .h1 = true,
                                        .head_us = 30 * SEC,
                                        .idle_us = 30 * SEC,
                                        .flow = &fake_flow,
                                        .name = "127.0.0.1:80"};
        client.fd = -1;
        return 0;
}

static int end_test(void **state)
{
        (void)state;
        peer_close(&client);
        downstream_close_all(loop, REASON_SHUTDOWN);
        io_linger_end(loop);
        loop_turn(loop, false);
        assert_int_equal(codecs(loop)->servers.live, 0);
        codecs_end(loop);
        loop_free(loop);
        io_thread_end();
        arena_thread_end();
        buf_thread_end();
        return 0;
}

static uint64_t sum(unsigned family, const char *labels)
{
        return metric_sum(metrics, family, str_z(labels));
}

#define REQUEST "GET / HTTP/1.1\r\nHost: h\r\n\r\n"

/* ---------------------------------------------------------------- tests */

static void connections_are_counted(void **state)
{
        (void)state;
        uint64_t before = sum(METRIC_CONNECTIONS, "listener=\"127.0.0.1:80\"");
        for (uint64_t i = 1; i <= 3; i++) {
                connect_client();
                SEND(&client, REQUEST);
                EXPECT(&client, "fine\n");
                assert_int_equal(sum(METRIC_CONNECTIONS, "listener=\"127.0.0.1:80\""), before + i);
                assert_int_equal(sum(METRIC_CONNECTIONS_OPEN, "listener=\"127.0.0.1:80\""), 1);
                assert_int_equal(downstream_count(loop), 1);
                peer_close(&client);
                PUMP_UNTIL(loop, downstream_count(loop) == 0);
        }
        assert_int_equal(sum(METRIC_CONNECTIONS_OPEN, "listener=\"127.0.0.1:80\""), 0);
        assert_int_equal(sum(METRIC_CLOSES, "reason=\"client_closed\""), 3);
        assert_string_equal(flow.scheme, "http");
}

/* ---- PROXY ---- */

static const struct {
        str header;
        const char *peer, *local; /* NULL: the socket's own */
} headers[] = {
        {STR_INIT("PROXY TCP4 1.2.3.4 5.6.7.8 11 22\r\n"), "1.2.3.4:11", "5.6.7.8:22"},
        {STR_INIT("PROXY TCP6 ::1 ::2 11 22\r\n"), "[::1]:11", "[::2]:22"},
        {STR_INIT("PROXY UNKNOWN\r\n"), NULL, NULL},
        {STR_INIT("\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\1\2\3\4\5\6\7\10\0\13\0\26"), "1.2.3.4:11",
         "5.6.7.8:22"},
};

static void proxy_headers_name_the_client(void **state)
{
        (void)state;
        conf.proxy_protocol = true;
        for (size_t i = 0; i < COUNT(headers); i++)
                for (size_t cut = 1; cut <= headers[i].header.n + 4; cut++) {
                        char all[256];
                        size_t n = headers[i].header.n;
                        memcpy(all, headers[i].header.p, n);
                        memcpy(all + n, REQUEST, sizeof(REQUEST) - 1);
                        n += sizeof(REQUEST) - 1;
                        connect_client();
                        peer_send(&client, str_of(all, cut));
                        pump_turns(loop, 3);
                        peer_send(&client, str_of(all + cut, n - cut));
                        EXPECT(&client, "fine\n");
                        if (headers[i].peer) {
                                assert_string_equal(flow.peer, headers[i].peer);
                                assert_string_equal(flow.local, headers[i].local);
                        } else {
                                assert_memory_equal(flow.peer, "127.0.0.1:", 10);
                        }
                        peer_close(&client);
                        PUMP_UNTIL(loop, downstream_count(loop) == 0);
                }
        assert_int_equal(flow.gone, 0);
}

static void bad_proxy_headers_end_the_connection(void **state)
{
        static const char *const bad[] = {REQUEST, "PROXY TCP4 1.2.3.4\r\n", "PROXY X\r\n"};
        (void)state;
        conf.proxy_protocol = true;
        for (size_t i = 0; i < COUNT(bad); i++) {
                connect_client();
                peer_send(&client, str_z(bad[i]));
                EXPECT_END(&client);
                assert_int_equal(client.total, 0);
                peer_close(&client);
        }
        connect_client(); /* gone in the middle */
        SEND(&client, "PROXY TC");
        pump_turns(loop, 3);
        peer_close(&client);
        PUMP_UNTIL(loop, downstream_count(loop) == 0);
        conf.head_us = 30 * MSEC; /* or silent */
        connect_client();
        SEND(&client, "PROXY TC");
        EXPECT_END(&client);
        assert_int_equal(flow.begun, 0);
        assert_int_equal(sum(METRIC_CLOSES, "reason=\"proxy_protocol\""), 5);
}

/* ---- TLS ---- */

/* Handshake, one request, the response; returns the session to resume or NULL. */
static SSL_SESSION *speak_tls(SSL_CTX *ctx, SSL_SESSION *resume, int version)
{
        SSL *ssl = SSL_new(ctx);
        char text[1024] = "";
        size_t n = 0;
        int r;
        SSL_set_fd(ssl, client.fd);
        SSL_set_min_proto_version(ssl, version);
        SSL_set_max_proto_version(ssl, version);
        if (resume)
                SSL_set_session(ssl, resume);
        PUMP_UNTIL(loop, (r = SSL_connect(ssl)) == 1 || SSL_get_error(ssl, r) == SSL_ERROR_SSL);
        assert_int_equal(r, 1);
        assert_int_equal(SSL_session_reused(ssl), resume != NULL);
        SSL_write(ssl, REQUEST, sizeof(REQUEST) - 1);
        PUMP_UNTIL(loop, ((r = SSL_read(ssl, text + n, (int)(sizeof(text) - 1 - n))) > 0 &&
                          (n += (size_t)r, strstr(text, "fine\n"))) ||
                                 n == sizeof(text) - 1);
        assert_non_null(strstr(text, "HTTP/1.1 200 OK\r\n"));
        SSL_SESSION *s = SSL_get1_session(ssl);
        SSL_shutdown(ssl);
        SSL_free(ssl);
        return s;
}

static void requests_over_tls(void **state)
{
        static const struct {
                int version;
                const char *name, *full, *resumed;
        } rows[] = {
                {TLS1_2_VERSION, "TLSv1.2", "version=\"TLSv1.2\",result=\"full\"",
                 "version=\"TLSv1.2\",result=\"resumed\""},
                {TLS1_3_VERSION, "TLSv1.3", "version=\"TLSv1.3\",result=\"full\"",
                 "version=\"TLSv1.3\",result=\"resumed\""},
        };
        SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
        struct tls_tickets *tickets = tls_tickets_new();
        (void)state;
        conf.tls = tls;
        tls_tickets_use(tickets);
        for (size_t i = 0; i < COUNT(rows); i++)
                for (int proxied = 0; proxied < 2; proxied++) {
                        conf.proxy_protocol = proxied;
                        uint64_t full = sum(METRIC_HANDSHAKES, rows[i].full);
                        uint64_t resumed = sum(METRIC_HANDSHAKES, rows[i].resumed);
                        connect_client();
                        if (proxied)
                                SEND(&client, "PROXY TCP4 1.2.3.4 5.6.7.8 11 22\r\n");
                        SSL_SESSION *s = speak_tls(ctx, NULL, rows[i].version);
                        assert_string_equal(flow.version, rows[i].name);
                        assert_string_equal(flow.scheme, "https");
                        if (proxied)
                                assert_string_equal(flow.peer, "1.2.3.4:11");
                        assert_int_equal(sum(METRIC_HANDSHAKES, rows[i].full), full + 1);
                        peer_close(&client);
                        PUMP_UNTIL(loop, downstream_count(loop) == 0);
                        connect_client();
                        if (proxied)
                                SEND(&client, "PROXY TCP4 1.2.3.4 5.6.7.8 11 22\r\n");
                        SSL_SESSION_free(speak_tls(ctx, s, rows[i].version));
                        assert_int_equal(sum(METRIC_HANDSHAKES, rows[i].resumed), resumed + 1);
                        SSL_SESSION_free(s);
                        peer_close(&client);
                        PUMP_UNTIL(loop, downstream_count(loop) == 0);
                }
        tls_tickets_use(NULL);
        SSL_CTX_free(ctx);
}

static void plain_http_on_tls_is_told(void **state)
{
        (void)state;
        conf.tls = tls;
        connect_client();
        SEND(&client, REQUEST);
        EXPECT(&client, "HTTP/1.1 400 Bad Request\r\n");
        EXPECT(&client, "Content-Length: 42\r\nConnection: close\r\n\r\n");
        EXPECT_END(&client);
        assert_int_equal(client.got.n, 42);
        assert_int_equal(flow.begun, 0);
        assert_int_equal(sum(METRIC_CLOSES, "reason=\"http_on_tls\""), 1);
        assert_int_equal(sum(METRIC_LOCAL_REPLIES, "reason=\"http_on_tls\""), 1);
        assert_int_equal(sum(METRIC_HANDSHAKES, "version=\"none\",result=\"failed\""), 1);
}

static void broken_handshakes(void **state)
{
        (void)state;
        conf.tls = tls;
        connect_client();
        SEND(&client, "\x16\x03\x01\x00\x05hello");
        EXPECT_END(&client);
        assert_int_equal(sum(METRIC_CLOSES, "reason=\"tls_failed\""), 1);
        peer_close(&client);
        conf.head_us = 30 * MSEC;
        connect_client();
        SEND(&client, "\x16\x03\x01");
        EXPECT_END(&client);
        assert_int_equal(sum(METRIC_CLOSES, "reason=\"tls_timeout\""), 1);
        peer_close(&client);
        connect_client();
        pump_turns(loop, 1);
        peer_close(&client);
        PUMP_UNTIL(loop, downstream_count(loop) == 0);
        assert_int_equal(flow.begun, 0);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, begin_test, end_test)
        const struct CMUnitTest tests[] = {
                TEST(connections_are_counted),
                TEST(proxy_headers_name_the_client),
                TEST(bad_proxy_headers_end_the_connection),
                TEST(requests_over_tls),
                TEST(plain_http_on_tls_is_told),
                TEST(broken_handshakes),
        };
        return cmocka_run_group_tests(tests, begin_all, end_all);
}
