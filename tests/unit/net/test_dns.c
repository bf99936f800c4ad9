/*
 * Names: the hosts file, addresses, a small name server of our own for TTLs and failures, and a
 * resolver freed by its answer.
 */
#include "net/dns.c"

#include "pump.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

static struct loop *l;
static struct dns *d;

/* ---- a name server ---- */

static int server_fd = -1;
static pthread_t server_thread;
static char server_text[64];
static _Atomic unsigned questions;

/* Skips a name in wire form; the labels, joined by dots, into out. */
static size_t read_name(const unsigned char *p, size_t n, size_t at, char *out)
{
        while (at < n && p[at] != 0) {
                memcpy(out, p + at + 1, p[at]);
                out += p[at];
                *out++ = '.';
                at += 1u + p[at];
        }
        out[-1] = 0;
        return at + 1;
}

static void put_record(unsigned char *p, size_t *n, unsigned type, uint32_t ttl, const void *data,
                       size_t len)
{
        unsigned char head[] = {0xc0,
                                12,
                                0,
                                (unsigned char)type,
                                0,
                                1,
                                (unsigned char)(ttl >> 24),
                                (unsigned char)(ttl >> 16),
                                (unsigned char)(ttl >> 8),
                                (unsigned char)ttl,
                                0,
                                (unsigned char)len};

        memcpy(p + *n, head, sizeof(head));
        memcpy(p + *n + sizeof(head), data, len);
        *n += sizeof(head) + len;
        p[7]++;
}

/* one.test: A 192.0.2.1 for 60 s and AAAA 2001:db8::1 for 20 s.  many.test: 70 A, for 2 s.
 * day.test: for a day. broken.test: SERVFAIL.  silent.test: nothing.  empty.test: no records.
 * Others: no such name. */
static void answer(unsigned char *p, size_t n, const struct sockaddr_in *to)
{
        char name[256];
        size_t end = read_name(p, n, 12, name);
        unsigned type = p[end + 1];
        static const unsigned char v4[] = {192, 0, 2, 1};
        unsigned char v6[16] = {0x20, 1, 0x0d, 0xb8};

        v6[15] = 1;
        n = end + 4;
        p[2] |= 0x80;
        p[3] = 0x80;
        memset(p + 6, 0, 6);
        if (strcmp(name, "silent.test") == 0)
                return;
        if (strcmp(name, "broken.test") == 0)
                p[3] |= 2;
        else if (strcmp(name, "one.test") == 0 && type == 1)
                put_record(p, &n, 1, 60, v4, 4);
        else if (strcmp(name, "one.test") == 0 && type == 28)
                put_record(p, &n, 28, 20, v6, 16);
        else if (strcmp(name, "day.test") == 0 && type == 1)
                put_record(p, &n, 1, 86400, v4, 4);
        else if (strcmp(name, "many.test") == 0 && type == 1)
                for (unsigned char i = 1; i <= 70; i++)
                        put_record(p, &n, 1, 2, (unsigned char[]){192, 0, 2, i}, 4);
        else if (strstr(name, "one.test") == NULL && strstr(name, "many.test") == NULL &&
                 strstr(name, "day.test") == NULL && strcmp(name, "empty.test") != 0)
                p[3] |= 3;
        sendto(server_fd, p, n, 0, (const struct sockaddr *)to, sizeof(*to));
}

static void *serve(void *arg UNUSED)
{
        unsigned char p[4096];
        struct sockaddr_in from;

        for (;;) {
                socklen_t len = sizeof(from);
                ssize_t n = recvfrom(server_fd, p, 512, 0, (struct sockaddr *)&from, &len);
                if (n <= 0)
                        return NULL;
                if (n == 4) /* the test's word for the end */
                        return NULL;
                atomic_fetch_add(&questions, 1);
                answer(p, (size_t)n, &from);
        }
}

static int group_up(void **state UNUSED)
{
        struct sockaddr_in sin = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        socklen_t len = sizeof(sin);

        server_fd = socket(AF_INET, SOCK_DGRAM, 0);
        if (bind(server_fd, (struct sockaddr *)&sin, len) != 0 ||
            getsockname(server_fd, (struct sockaddr *)&sin, &len) != 0)
                return -1;
        snprintf(server_text, sizeof(server_text), "127.0.0.1:%u", ntohs(sin.sin_port));
        return pthread_create(&server_thread, NULL, serve, NULL);
}

static int group_down(void **state UNUSED)
{
        struct sockaddr_in sin;
        socklen_t len = sizeof(sin);

        getsockname(server_fd, (struct sockaddr *)&sin, &len);
        sendto(server_fd, "stop", 4, 0, (struct sockaddr *)&sin, len);
        pthread_join(server_thread, NULL);
        close(server_fd);
        buf_thread_end();
        return 0;
}

static int up(void **state UNUSED)
{
        str server = str_z(server_text);

        l = loop_new(UINT32_MAX, NULL);
        d = dns_new(l, &server, 1);
        return 0;
}

static int down(void **state UNUSED)
{
        dns_free(d);
        pump_turns(l, 2);
        loop_free(l);
        return 0;
}

/* ---- questions ---- */

static struct dns_answer got;
static unsigned answers;

static void on_got(const struct dns_answer *a, void *arg)
{
        assert_ptr_equal(arg, &got);
        got = *a;
        answers++;
}

static void ask(const char *name)
{
        answers = 0;
        memset(&got, 0, sizeof(got));
        dns_query(d, str_z(name), on_got, &got);
        PUMP_UNTIL(l, answers == 1);
}

static bool has(const char *ip)
{
        struct addr want;

        assert_true(addr_parse_ip(str_z(ip), 0, &want));
        for (size_t i = 0; i < got.n; i++)
                if (addr_equal(&got.a[i], &want))
                        return true;
        return false;
}

static void test_localhost(void **state UNUSED)
{
        ask("localhost");
        assert_true(got.ok);
        assert_true(has("127.0.0.1"));
        assert_int_equal(atomic_load(&questions), 0);
        assert_true(got.ttl_s >= TTL_MIN && got.ttl_s <= TTL_MAX);
        ask("api.LocalHost.");
        assert_true(got.ok && has("127.0.0.1") && has("::1"));
        assert_int_equal(atomic_load(&questions), 0);
}

static void test_addresses(void **state UNUSED)
{
        ask("192.0.2.77");
        assert_true(got.ok);
        assert_int_equal(got.n, 1);
        assert_true(has("192.0.2.77"));
        ask("2001:db8::5");
        assert_true(got.ok);
        assert_true(has("2001:db8::5"));
}

static void test_both_families_and_the_smaller_ttl(void **state UNUSED)
{
        ask("one.test");
        assert_true(got.ok);
        assert_int_equal(got.n, 2);
        assert_true(has("192.0.2.1"));
        assert_true(has("2001:db8::1"));
        assert_int_equal(got.ttl_s, 20);
        assert_int_equal(addr_port(&got.a[0]), 0);
}

static void test_bounds(void **state UNUSED)
{
        ask("many.test");
        assert_true(got.ok);
        assert_int_equal(got.n, DNS_ADDRS_MAX); /* of 70 */
        assert_int_equal(got.ttl_s, TTL_MIN);
        ask("day.test");
        assert_int_equal(got.ttl_s, TTL_MAX);
}

static void test_failures(void **state UNUSED)
{
        char long_name[400];

        ask("absent.test");
        assert_false(got.ok);
        assert_non_null(got.error);
        assert_int_equal(got.n, 0);
        ask("empty.test");
        assert_false(got.ok);
        ask("broken.test");
        assert_false(got.ok);
        memset(long_name, 'x', sizeof(long_name) - 1);
        long_name[sizeof(long_name) - 1] = 0;
        ask(long_name);
        assert_false(got.ok);
        ask("");
        assert_false(got.ok);
}

static void test_many_at_once(void **state UNUSED)
{
        answers = 0;
        for (int i = 0; i < 20; i++)
                dns_query(d, STR("one.test"), on_got, &got);
        PUMP_UNTIL(l, answers == 20);
        assert_true(got.ok);
}

static void test_free_ends_what_waits(void **state UNUSED)
{
        answers = 0;
        dns_query(d, STR("silent.test"), on_got, &got);
        dns_query(d, STR("silent.test"), on_got, &got);
        pump_turns(l, 5);
        assert_int_equal(answers, 0);
        dns_free(d);
        d = NULL;
        assert_int_equal(answers, 2);
        assert_false(got.ok);
        assert_non_null(got.error);
}

static unsigned after_free;

static void free_it(const struct dns_answer *a UNUSED, void *arg UNUSED)
{
        if (d != NULL) {
                struct dns *mine = d;
                d = NULL;
                dns_free(mine);
        }
        after_free++;
}

static void test_answer_frees_the_resolver(void **state UNUSED)
{
        after_free = 0;
        dns_query(d, STR("localhost"), free_it, NULL);
        dns_query(d, STR("silent.test"), free_it, NULL);
        dns_query(d, STR("localhost"), free_it, NULL);
        PUMP_UNTIL(l, after_free == 3);
        assert_null(d);
}

static void test_system_servers(void **state UNUSED)
{
        dns_free(d);
        d = dns_new(l, NULL, 0);
        d->resolv.tv_nsec ^= 1; /* as if the file had changed */
        ask("localhost");
        assert_true(got.ok);
        assert_int_equal(d->resolv.tv_nsec, resolv_time().tv_nsec);
}

#define T(f) cmocka_unit_test_setup_teardown(f, up, down)

int main(void)
{
        const struct CMUnitTest tests[] = {
                T(test_localhost),
                T(test_addresses),
                T(test_both_families_and_the_smaller_ttl),
                T(test_bounds),
                T(test_failures),
                T(test_many_at_once),
                T(test_free_ends_what_waits),
                T(test_answer_frees_the_resolver),
                T(test_system_servers),
        };
        return cmocka_run_group_tests(tests, group_up, group_down);
}
