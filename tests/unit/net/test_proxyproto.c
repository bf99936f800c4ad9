/*
 * PROXY headers: each form, each way to be wrong, and every way to be cut.
 */
#include "net/proxyproto.c"

#include "pump.h"

#include <stdlib.h>

static struct addr src, dst;

static int parse(const char *p, size_t n)
{
        char *exact = malloc(n + 1); /* so that reading past the end shows */
        int r;

        memcpy(exact, p, n);
        r = proxyproto_parse(str_of(exact, n), &src, &dst);
        free(exact);
        return r;
}

/* The whole is taken; each shorter piece asks for more; what follows is left alone. */
static void whole(const char *p, size_t n)
{
        char more[600];

        for (size_t i = 0; i < n; i++)
                assert_int_equal(parse(p, i), 0);
        memcpy(more, p, n);
        memcpy(more + n, "GET /", 5);
        assert_int_equal(parse(more, n + 5), n);
        assert_int_equal(parse(p, n), n);
}

static void shows(const struct addr *a, const char *text)
{
        char out[ADDR_TEXT];

        addr_print(a, out);
        assert_string_equal(out, text);
}

static void test_v1(void **state UNUSED)
{
        static const char tcp4[] = "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n";
        static const char tcp6[] = "PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n";
        static const char unknown[] = "PROXY UNKNOWN ffff::1 whatever this is\r\n";

        whole(tcp4, sizeof(tcp4) - 1);
        shows(&src, "192.168.0.1:56324");
        shows(&dst, "192.168.0.11:443");
        whole(tcp6, sizeof(tcp6) - 1);
        shows(&src, "[2001:db8::1]:1");
        shows(&dst, "[2001:db8::2]:65535");
        whole(unknown, sizeof(unknown) - 1);
        assert_int_equal(src.len, 0);
        assert_int_equal(dst.len, 0);
        whole("PROXY UNKNOWN\r\n", 15);
}

static void test_v1_bad(void **state UNUSED)
{
        static const char *const bad[] = {
                "GET / HTTP/1.1\r\n",
                "PROXy TCP4",
                "PROXY TCP4 192.168.0.1 192.168.0.11 56324\r\n",
                "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443 1\r\n",
                "PROXY TCP4 192.168.0.1  192.168.0.11 56324 443\r\n",
                "PROXY TCP4 192.168.0.1 192.168.0.11 56324 65536\r\n",
                "PROXY TCP4 192.168.0.1 192.168.0.11 056324 443\r\n",
                "PROXY TCP4 192.168.0.1 192.168.0.11 -1 443\r\n",
                "PROXY TCP4 ::1 ::1 1 1\r\n",
                "PROXY TCP6 1.2.3.4 1.2.3.4 1 1\r\n",
                "PROXY UDP4 1.2.3.4 1.2.3.4 1 1\r\n",
                "PROXY UNKNOWNS\r\n",
                "PROXY \r\n",
                "PROXY TCP4 1.2.3.4 1.2.3.4 1 1\n\r\n",
        };
        char long_line[200] = "PROXY UNKNOWN ";

        src.len = dst.len = 77;
        for (size_t i = 0; i < COUNT(bad); i++)
                assert_int_equal(parse(bad[i], strlen(bad[i])), -1);
        memset(long_line + 14, 'x', sizeof(long_line) - 14);
        assert_int_equal(parse(long_line, 106), 0);
        assert_int_equal(parse(long_line, 107), -1);
        memcpy(long_line + 105, "\r\n", 2);
        assert_int_equal(src.len, 77); /* untouched until here */
        assert_int_equal(parse(long_line, 150), 107);
}

#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"

static void test_v2(void **state UNUSED)
{
        static const char v4[] =
                SIGNATURE "\x21\x11\x00\x0c\x0a\x00\x00\x01\x0a\x00\x00\x02\x1f\x90\x01\xbb";
        static const char v4_tlv[] = SIGNATURE
                "\x21\x11\x00\x10\x0a\x00\x00\x01\x0a\x00\x00\x02\x1f\x90\x01\xbb\x04\x00\x01x";
        static const char local[] = SIGNATURE "\x20\x00\x00\x00";
        static const char unspec[] = SIGNATURE "\x21\x00\x00\x03xyz";
        char v6[16 + 36] = SIGNATURE "\x21\x21\x00\x24";
        char unix_stream[16 + 216] = SIGNATURE "\x21\x31\x00\xd8";

        whole(v4, sizeof(v4) - 1);
        shows(&src, "10.0.0.1:8080");
        shows(&dst, "10.0.0.2:443");
        whole(v4_tlv, sizeof(v4_tlv) - 1);
        shows(&src, "10.0.0.1:8080");
        v6[16 + 15] = 1;
        v6[16 + 31] = 2;
        v6[16 + 33] = 80;
        v6[16 + 35] = 81;
        whole(v6, sizeof(v6));
        shows(&src, "[::1]:80");
        shows(&dst, "[::2]:81");
        whole(local, sizeof(local) - 1);
        assert_int_equal(src.len, 0);
        whole(unspec, sizeof(unspec) - 1);
        assert_int_equal(src.len, 0);
        whole(unix_stream, sizeof(unix_stream));
        assert_int_equal(src.len, 0);
}

static void test_v2_bad(void **state UNUSED)
{
        static const struct {
                const char *p;
                size_t n;
        } bad[] = {
                {SIGNATURE "\x11\x11\x00\x0c", 16}, /* version 1 */
                {SIGNATURE "\x22\x11\x00\x0c", 16}, /* no such command */
                {SIGNATURE "\x21\x41\x00\x0c", 16}, /* no such family */
                {SIGNATURE "\x21\x13\x00\x0c", 16}, /* no such transport */
                {SIGNATURE "\x21\x11\x00\x0b", 16}, /* too short for its family */
                {SIGNATURE "\x21\x21\x00\x23", 16},
                {SIGNATURE "\x21\x11\xff\xff", 16}, /* longer than is read */
                {"\r\n\r\n\0\r\nQUIx", 12},
                {"\r\nx", 3},
        };

        for (size_t i = 0; i < COUNT(bad); i++)
                assert_int_equal(parse(bad[i].p, bad[i].n), -1);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_v1),
                cmocka_unit_test(test_v1_bad),
                cmocka_unit_test(test_v2),
                cmocka_unit_test(test_v2_bad),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
