/*
 * The seam: both codecs joined by the smallest flow, a scripted client on one side and a scripted
 * server on the other.  Bodies of any size pass unchanged in bounded memory, and each side's end
 * reaches the other.
 */
#include "http/request.c"

#include "peer.h"

#include "http/codecs.h"
#include "relay.h"

static struct peer client, server;
static int listener = -1;

static struct downstream_conf conf;

static void connect_client(void)
{
        int fd[2];
        struct addr a = {.len = sizeof(struct sockaddr_in), .in = {.sin_family = AF_INET}};
        tcp_pair(fd);
        client = (struct peer){.fd = fd[0]};
        downstream_accept(loop, fd[1], &a, &conf, &relay);
}

static void accept_server(void)
{
        server.fd = -1;
        PUMP_UNTIL(loop, (server = (struct peer){.fd = accept4(listener, NULL, NULL,
                                                               SOCK_NONBLOCK | SOCK_CLOEXEC)})
                                         .fd >= 0);
}

static int begin_test(void **state)
{
        (void)state;
        loop = loop_new(0, NULL);
        loop_turn(loop, false);
        memset(&relay, 0, sizeof(relay));
        list_init(&relay.idle);
        conf = (struct downstream_conf){.limits = {32768, 16384, 128},
                                        .head_us = 30 * SEC,
                                        .idle_us = 30 * SEC,
                                        .body_us = 30 * SEC,
                                        .send_us = 30 * SEC,
                                        .flow = &relay_flow,
                                        .name = "test"};
        listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        relay.server =
                (struct addr){.len = sizeof(relay.server.in),
                              .in = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}}};
        assert_int_equal(bind(listener, &relay.server.sa, relay.server.len), 0);
        assert_int_equal(listen(listener, 5), 0);
        getsockname(listener, &relay.server.sa, &relay.server.len);
        server.fd = -1;
        connect_client();
        return 0;
}

static int end_test(void **state)
{
        (void)state;
        peer_close(&client);
        peer_close(&server);
        close(listener);
        downstream_close_all(loop, REASON_SHUTDOWN);
        relay_close_idle();
        io_linger_end(loop);
        loop_turn(loop, false);
        assert_int_equal(codecs(loop)->servers.live, 0);
        assert_int_equal(codecs(loop)->clients.live, 0);
        codecs_end(loop);
        loop_free(loop);
        io_thread_end();
        arena_thread_end();
        buf_thread_end();
        return 0;
}

#define GET "GET /a HTTP/1.1\r\nHost: h\r\nX-Own: 1\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\n"

static void exchanges_follow_one_another(void **state)
{
        (void)state;
        for (unsigned i = 0; i < 5; i++) {
                SEND(&client, GET);
                if (i == 0)
                        accept_server();
                EXPECT(&server, "GET /a HTTP/1.1\r\nHost: h\r\nX-Own: 1\r\n\r\n");
                SEND(&server, "HTTP/1.1 200 Fine\r\nDate: d\r\nContent-Length: 2\r\n\r\nhi");
                EXPECT(&client, "HTTP/1.1 200 Fine\r\nDate: d\r\nContent-Length: 2\r\n\r\nhi");
        }
        assert_int_equal(relay.connects, 1);
        assert_int_equal(relay.kept, 5);
        assert_int_equal(relay.finished, 5);
}

/* Byte i of a body that is told from any other. */
static unsigned char pattern(uint64_t i)
{
        return (unsigned char)((i * 2654435761u) >> 16);
}

struct source {
        struct peer *p;
        uint64_t at, size;
};

static void source_turn(struct source *s)
{
        static unsigned char block[60000];
        size_t n = (size_t)MIN(sizeof(block), s->size - s->at);
        for (size_t i = 0; i < n; i++)
                block[i] = pattern(s->at + i);
        ssize_t sent = n ? send(s->p->fd, block, n, MSG_DONTWAIT | MSG_NOSIGNAL) : 0;
        s->at += sent > 0 ? (uint64_t)sent : 0;
}

static uint64_t check_pattern(struct peer *p, uint64_t at)
{
        str got = peer_text(p);
        for (size_t i = 0; i < got.n; i++)
                if ((unsigned char)got.p[i] != pattern(at + i))
                        fail_msg("byte %llu is wrong", (unsigned long long)(at + i));
        buf_clear(&p->got);
        return at + got.n;
}

static size_t held(void)
{
        struct request *r = relay.last;
        return r ? buf_held(&r->req_body.data) + buf_held(&r->res_body.data) : 0;
}

/* size bytes from one peer to the other, which takes them slowly. */
static void flood(struct peer *from, struct peer *to, uint64_t size)
{
        struct source s = {from, 0, size};
        uint64_t took = 0;
        size_t most = 0;
        while (took < size) {
                for (int i = 0; i < 3; i++) {
                        source_turn(&s);
                        loop_turn(loop, false);
                        most = MAX(most, held());
                }
                peer_read(to, 150000);
                took = check_pattern(to, took);
        }
        assert_true(most < 256 * KIB);
}

static void large_bodies_pass_both_ways(void **state)
{
        (void)state;
        SEND(&client, "PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 67108864\r\n\r\n");
        accept_server();
        EXPECT(&server, "Content-Length: 67108864\r\n\r\n");
        flood(&client, &server, 64 * MIB);
        SEND(&server, "HTTP/1.1 200 OK\r\nContent-Length: 67108864\r\n\r\n");
        EXPECT(&client, "Content-Length: 67108864\r\n\r\n");
        flood(&server, &client, 64 * MIB);
        PUMP_UNTIL(loop, relay.finished == 1);
        assert_int_equal(relay.kept, 1);
}

static void chunks_and_trailers_pass(void **state)
{
        (void)state;
        SEND(&client, "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
        accept_server();
        EXPECT(&server, "Transfer-Encoding: chunked\r\n\r\n");
        SEND(&client, "5;ext=1\r\nhello\r\n");
        EXPECT(&server, "5\r\nhello\r\n"); /* before the last have arrived */
        SEND(&client, "1\r\n!\r\n0\r\nX-Sum: 7\r\nAuthorization: x\r\n\r\n");
        EXPECT(&server, "1\r\n!\r\n0\r\nX-Sum: 7\r\n\r\n");
        SEND(&server, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
        EXPECT(&client, "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
        SEND(&server, "0\r\nX-T: 2\r\n\r\n");
        EXPECT(&client, "0\r\nX-T: 2\r\n\r\n");
        PUMP_UNTIL(loop, relay.finished == 1);
        assert_int_equal(relay.kept, 1);
}

static void continue_and_early_hints(void **state)
{
        (void)state;
        SEND(&client,
             "POST /a HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
        accept_server();
        EXPECT(&server, "Content-Length: 2\r\nExpect: 100-continue\r\n\r\n");
        SEND(&server, "HTTP/1.1 100 Continue\r\n\r\n");
        EXPECT(&client, "HTTP/1.1 100 Continue\r\n\r\n");
        SEND(&server, "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n");
        EXPECT(&client, "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n");
        SEND(&client, "ok");
        EXPECT(&server, "ok");
        SEND(&server, "HTTP/1.1 204 No Content\r\n\r\n");
        EXPECT(&client, "HTTP/1.1 204 No Content\r\n");
}

/* The server refuses in the middle of an upload, and closes: its answer still arrives. */
static void the_servers_early_answer_arrives(void **state)
{
        (void)state;
        struct source s = {&client, 0, 1 << 30};
        SEND(&client, "PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 1073741824\r\n\r\n");
        accept_server();
        EXPECT(&server, "\r\n\r\n");
        for (int i = 0; i < 100; i++) {
                source_turn(&s);
                loop_turn(loop, false);
        }
        SEND(&server, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 4\r\n\r\nmuch");
        shutdown(server.fd, SHUT_WR);
        PUMP_UNTIL(loop, (source_turn(&s), peer_has(&client, "much")));
        EXPECT(&client, "HTTP/1.1 413 ");
        EXPECT(&client, "Connection: close\r\n");
        EXPECT_END(&client);
        assert_int_equal(relay.finished, 1);
        assert_int_equal(relay.kept, 0);
}

static void cut_responses_look_cut(void **state)
{
        (void)state;
        SEND(&client, GET);
        accept_server();
        EXPECT(&server, "\r\n\r\n");
        SEND(&server, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n5\r\nx");
        EXPECT(&client, "4\r\nabcx\r\n");
        peer_close(&server);
        EXPECT_END(&client);
        assert_int_equal(str_find(peer_text(&client), STR("0\r\n\r\n")), -1);
        assert_int_equal(relay.why, REASON_UPSTREAM_RESET);
}

static void a_bad_response_is_502(void **state)
{
        (void)state;
        SEND(&client, GET);
        accept_server();
        EXPECT(&server, "\r\n\r\n");
        SEND(&server, "HTTP/1.1 200 OK\r\nA : b\r\n\r\nsecret");
        EXPECT(&client, "HTTP/1.1 502 Bad Gateway\r\n");
        EXPECT(&client, "head is malformed\n");
        assert_int_equal(str_find(peer_text(&client), STR("secret")), -1);
        EXPECT_END(&server);
}

static void a_client_that_leaves_ends_the_exchange(void **state)
{
        (void)state;
        SEND(&client, GET);
        accept_server();
        EXPECT(&server, "\r\n\r\n");
        peer_reset(&client);
        EXPECT_END(&server);
        assert_int_equal(relay.gone, 1);
        peer_close(&server);

        connect_client(); /* a half-close is no leave */
        SEND(&client, GET);
        shutdown(client.fd, SHUT_WR);
        accept_server();
        EXPECT(&server, "\r\n\r\n");
        pump_turns(loop, 5);
        assert_false(peer_ended(&server));
        SEND(&server, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
        EXPECT(&client, "hi");
        EXPECT_END(&client);
        assert_true(client.eof);
}

static void pipelined_through(void **state)
{
        (void)state;
        SEND(&client, GET GET GET);
        accept_server();
        for (int i = 0; i < 3; i++) {
                EXPECT(&server, "X-Own: 1\r\n\r\n");
                assert_int_equal(server.got.n, 0);
                SEND(&server, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx");
                EXPECT(&client, "\r\n\r\nx");
        }
        assert_int_equal(relay.connects, 1);
}

static void tunnels_pass_both_ways(void **state)
{
        (void)state;
        for (int server_first = 0; server_first < 2; server_first++) {
                unsigned finished = relay.finished;
                SEND(&client, "GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\n"
                              "Upgrade: websocket, h2c\r\nContent-Length: 2\r\n\r\n{}");
                accept_server();
                EXPECT(&server, "Connection: upgrade\r\nUpgrade: websocket\r\n\r\n{}");
                SEND(&server, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n"
                              "Upgrade: websocket\r\n\r\nhello");
                EXPECT(&client, "Upgrade: websocket\r\n\r\nhello");
                SEND(&client, "GET / HTTP/1.1\r\n\r\n"); /* only bytes now */
                EXPECT(&server, "GET / HTTP/1.1\r\n\r\n");
                flood(&client, &server, MIB);
                flood(&server, &client, MIB);
                struct peer *first = server_first ? &server : &client;
                struct peer *second = server_first ? &client : &server;
                shutdown(first->fd, SHUT_WR);
                EXPECT_END(second);
                SEND(second, "last words");
                EXPECT(first, "last words");
                shutdown(second->fd, SHUT_WR);
                EXPECT_END(first);
                PUMP_UNTIL(loop, relay.finished == finished + 1);
                peer_close(&client);
                peer_close(&server);
                connect_client();
        }
}

static void http_1_0_clients(void **state)
{
        (void)state;
        SEND(&client, "GET /a HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\n\r\n");
        accept_server();
        EXPECT(&server, "GET /a HTTP/1.1\r\n");
        EXPECT(&server, "\r\n\r\n");
        SEND(&server, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
        EXPECT(&client, "Connection: keep-alive\r\n\r\nhi");
        SEND(&client, "GET /a HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\n\r\n");
        EXPECT(&server, "\r\n\r\n");
        SEND(&server, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
        EXPECT(&client, "Connection: close\r\n\r\nabc");
        EXPECT_END(&client);
        assert_true(client.eof);
        assert_int_equal(client.got.n, 0);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, begin_test, end_test)
        const struct CMUnitTest tests[] = {
                TEST(exchanges_follow_one_another),
                TEST(large_bodies_pass_both_ways),
                TEST(chunks_and_trailers_pass),
                TEST(continue_and_early_hints),
                TEST(the_servers_early_answer_arrives),
                TEST(cut_responses_look_cut),
                TEST(a_bad_response_is_502),
                TEST(a_client_that_leaves_ends_the_exchange),
                TEST(pipelined_through),
                TEST(tunnels_pass_both_ways),
                TEST(http_1_0_clients),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
