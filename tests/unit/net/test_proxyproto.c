/*
 * PROXY headers: each form, each way to be wrong, and every way to be cut.
 */
#include "net/proxyproto.c"

#include "pump.h"

#include <stdlib.h>

static struct proxyproto head;
static char *kept;

static int parse(const char *p, size_t n)
{
        char *exact = malloc(n + 1); /* so that reading past the end shows */
        int r;

        memcpy(exact, p, n);
        r = proxyproto_parse(str_of(exact, n), &head);
        free(kept);
        kept = NULL;
        if (r > 0 && head.tlvs.p) /* they point into what was parsed */
                kept = exact;
        else
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
        shows(&head.src, "192.168.0.1:56324");
        shows(&head.dst, "192.168.0.11:443");
        whole(tcp6, sizeof(tcp6) - 1);
        shows(&head.src, "[2001:db8::1]:1");
        shows(&head.dst, "[2001:db8::2]:65535");
        whole(unknown, sizeof(unknown) - 1);
        assert_int_equal(head.src.len, 0);
        assert_int_equal(head.dst.len, 0);
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

        head.src.len = 77;
        for (size_t i = 0; i < COUNT(bad); i++)
                assert_int_equal(parse(bad[i], strlen(bad[i])), -1);
        memset(long_line + 14, 'x', sizeof(long_line) - 14);
        assert_int_equal(parse(long_line, 106), 0);
        assert_int_equal(parse(long_line, 107), -1);
        memcpy(long_line + 105, "\r\n", 2);
        assert_int_equal(head.src.len, 77); /* untouched until here */
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
        static const char dgram[] =
                SIGNATURE "\x21\x12\x00\x0c\x0a\x00\x00\x01\x0a\x00\x00\x02\x1f\x90\x01\xbb";
        static const char unspec[] = SIGNATURE "\x21\x00\x00\x03xyz";
        char v6[16 + 36] = SIGNATURE "\x21\x21\x00\x24";
        char unix_stream[16 + 216] = SIGNATURE "\x21\x31\x00\xd8";

        whole(v4, sizeof(v4) - 1);
        shows(&head.src, "10.0.0.1:8080");
        shows(&head.dst, "10.0.0.2:443");
        whole(v4_tlv, sizeof(v4_tlv) - 1);
        shows(&head.src, "10.0.0.1:8080");
        v6[16 + 15] = 1;
        v6[16 + 31] = 2;
        v6[16 + 33] = 80;
        v6[16 + 35] = 81;
        whole(v6, sizeof(v6));
        shows(&head.src, "[::1]:80");
        shows(&head.dst, "[::2]:81");
        whole(local, sizeof(local) - 1);
        assert_int_equal(head.src.len, 0);
        whole(unspec, sizeof(unspec) - 1);
        assert_int_equal(head.src.len, 0);
        assert_null(head.tlvs.p);
        memcpy(unix_stream + 16, "/secret", 7);
        whole(unix_stream, sizeof(unix_stream));
        shows(&head.src, "unix:");
        shows(&head.dst, "unix:");
        assert_int_equal(parse(dgram, sizeof(dgram) - 1), 28);
        assert_int_equal(head.src.len, 0);
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
                {SIGNATURE "\x21\x21\x00\x23", 16}, {SIGNATURE "\x21\x31\x00\xd7", 16},
                {SIGNATURE "\x21\x11\xff\xff", 16}, /* longer than is read */
                {"\r\n\r\n\0\r\nQUIx", 12},         {"\r\nx", 3},
        };

        for (size_t i = 0; i < COUNT(bad); i++)
                assert_int_equal(parse(bad[i].p, bad[i].n), -1);
}

/* ---- values ---- */

/* A header from 10.0.0.1:8080 with these values. */
static int parse_tlvs(const void *tlvs, size_t n)
{
        char text[PROXYPROTO_MAX] =
                SIGNATURE "\x21\x11\x00\x0c\x0a\x00\x00\x01\x0a\x00\x00\x02\x1f\x90\x01\xbb";

        text[14] = (char)((12 + n) >> 8);
        text[15] = (char)(12 + n);
        memcpy(text + 28, tlvs, n);
        return parse(text, 28 + n);
}

static void has(unsigned type, const char *value)
{
        str v = proxyproto_tlv(head.tlvs, type);

        assert_int_equal(v.n, strlen(value));
        assert_memory_equal(v.p, value, v.n);
}

static void test_tlvs(void **state UNUSED)
{
        static const char tlvs[] = "\x01\0\x02h2"
                                   "\x02\0\x05"
                                   "a.com"
                                   "\x05\0\x03id1"
                                   "\x04\0\x02\0\0"
                                   "\x30\0\x03ns1"
                                   "\xee\0\0"
                                   "\xe0\0\x01x"
                                   "\xe0\0\x01y";

        assert_int_equal(parse_tlvs(tlvs, sizeof(tlvs) - 1), 28 + sizeof(tlvs) - 1);
        shows(&head.src, "10.0.0.1:8080");
        has(PROXYPROTO_ALPN, "h2");
        has(PROXYPROTO_AUTHORITY, "a.com");
        has(PROXYPROTO_UNIQUE_ID, "id1");
        has(PROXYPROTO_NETNS, "ns1");
        has(0xee, "");
        has(0xe0, "x"); /* the first */
        assert_null(proxyproto_tlv(head.tlvs, 0xe1).p);
        assert_null(proxyproto_tlv(STR_NONE, 0xe1).p);
        for (size_t i = 1; i < sizeof(tlvs) - 1; i++) { /* cut: at an end of a value or nowhere */
                int n = parse_tlvs(tlvs, i);
                bool end = i == 5 || i == 13 || i == 19 || i == 24 || i == 30 || i == 33 || i == 37;
                assert_int_equal(n, end ? 28 + (int)i : -1);
        }
}

static void test_tlv_sizes(void **state UNUSED)
{
        static const struct {
                char type;
                size_t max;
        } bounds[] = {{PROXYPROTO_UNIQUE_ID, 128},
                      {PROXYPROTO_AUTHORITY, 255},
                      {PROXYPROTO_ALPN, 255},
                      {'\xe0', PROXYPROTO_MAX - 31}};
        char tlv[PROXYPROTO_MAX] = {0};

        for (size_t i = 0; i < COUNT(bounds); i++) {
                size_t n = bounds[i].max;
                tlv[0] = bounds[i].type;
                tlv[1] = (char)(n >> 8);
                tlv[2] = (char)n;
                assert_int_equal(parse_tlvs(tlv, 3 + n), 31 + n);
                if (31 + n == PROXYPROTO_MAX)
                        continue;
                tlv[1] = (char)((n + 1) >> 8);
                tlv[2] = (char)(n + 1);
                assert_int_equal(parse_tlvs(tlv, 4 + n), -1);
        }
}

static void test_ssl(void **state UNUSED)
{
        static const char good[] = "\x20\0\x17\x07\0\0\0\0"
                                   "\x21\0\x07TLSv1.3"
                                   "\x22\0\x05"
                                   "alice";
        static const char unverified[] = "\x20\0\x05\x03\0\0\0\x01";
        static const char nobody[] = "\x20\0\x05\x01\0\0\0\0";
        struct proxyproto_ssl ssl;

        assert_int_equal(parse_tlvs(good, sizeof(good) - 1), 28 + sizeof(good) - 1);
        assert_true(proxyproto_ssl(head.tlvs, &ssl));
        assert_true(ssl.tls && ssl.cert_conn && ssl.cert_sess && ssl.verified);
        assert_true(str_eq(ssl.version, STR("TLSv1.3")));
        assert_true(str_eq(ssl.cn, STR("alice")));
        assert_true(parse_tlvs(unverified, 8) > 0);
        assert_true(proxyproto_ssl(head.tlvs, &ssl));
        assert_true(ssl.tls && ssl.cert_conn && !ssl.cert_sess && !ssl.verified);
        assert_null(ssl.cn.p);
        assert_true(parse_tlvs(nobody, 8) > 0); /* verify is 0, but of no certificate */
        assert_true(proxyproto_ssl(head.tlvs, &ssl));
        assert_true(ssl.tls && !ssl.cert_conn && !ssl.cert_sess && !ssl.verified);
        assert_false(proxyproto_ssl(STR_NONE, &ssl));
        assert_int_equal(parse_tlvs("\x20\0\x04\x01\0\0\0", 7), -1);
        assert_int_equal(parse_tlvs("\x20\0\x08\x01\0\0\0\0\x21\0\x01", 11), -1);
        assert_int_equal(parse_tlvs("\x20\0\x06\x01\0\0\0\0\x21", 9), -1);
}

static void test_crc32c(void **state UNUSED)
{
        char zeros[32] = {0}, tlvs[64] = "\x03\0\x04\0\0\0\0\xe0\0\x01x", again[32], wire[64];
        uint32_t crc;

        assert_int_equal(proxyproto_crc32c(0, STR("123456789")), 0xe3069283);
        assert_int_equal(proxyproto_crc32c(0, str_of(zeros, 32)), 0x8a9136aa); /* RFC 3720 B.4 */
        memcpy(wire, SIGNATURE "\x21\x11\x00\x17\x0a\x00\x00\x01\x0a\x00\x00\x02\x1f\x90\x01\xbb",
               28);
        memcpy(wire + 28, tlvs, 11);
        crc = proxyproto_crc32c(0, str_of(wire, 39));
        for (int i = 0; i < 4; i++)
                tlvs[3 + i] = (char)(crc >> (24 - 8 * i));
        assert_int_equal(parse_tlvs(tlvs, 11), 39);
        has(0xe0, "x");
        tlvs[10] = 'y'; /* what it is of has changed */
        assert_int_equal(parse_tlvs(tlvs, 11), -1);
        tlvs[10] = 'x';
        tlvs[6] ^= 1;
        assert_int_equal(parse_tlvs(tlvs, 11), -1);
        assert_int_equal(parse_tlvs("\x03\0\x03\0\0\0", 6), -1);
        memcpy(again, tlvs, 7);
        memcpy(again + 7, tlvs, 7);
        assert_int_equal(parse_tlvs(again, 14), -1);
}

/* ---- writing ---- */

static char written[2048];

static size_t write_of(const struct proxyproto_says *says)
{
        struct buf b = BUF_INIT;
        size_t n;

        proxyproto_write(&b, says);
        n = b.n;
        assert_true(n < sizeof(written));
        memcpy(written, buf_pullup(&b, n).p, n);
        written[n] = '\0';
        buf_clear(&b);
        return n;
}

static struct addr at(const char *text)
{
        struct addr a;

        assert_true(addr_parse(str_z(text), &a));
        return a;
}

static void test_write_v1(void **state UNUSED)
{
        static const struct {
                const char *src, *dst, *want;
        } cases[] = {
                {"192.0.2.7:4711", "192.0.2.1:80", "PROXY TCP4 192.0.2.7 192.0.2.1 4711 80\r\n"},
                {"[2001:db8::7]:1", "[::1]:65535", "PROXY TCP6 2001:db8::7 ::1 1 65535\r\n"},
                {"[::ffff:1.2.3.4]:1", "1.2.3.5:0", "PROXY TCP4 1.2.3.4 1.2.3.5 1 0\r\n"},
                {"1.2.3.4:1", "[::1]:2", "PROXY TCP6 ::ffff:1.2.3.4 ::1 1 2\r\n"},
                {"unix:/x", "unix:/y", "PROXY UNKNOWN\r\n"},
                {"1.2.3.4:1", "unix:/y", "PROXY UNKNOWN\r\n"},
        };

        for (size_t i = 0; i < COUNT(cases); i++) {
                struct proxyproto_says says = {
                        .version = 1, .src = at(cases[i].src), .dst = at(cases[i].dst)};
                size_t n = write_of(&says);
                assert_string_equal(written, cases[i].want);
                assert_int_equal(parse(written, n), n);
                says.local = true;
                write_of(&says);
                assert_string_equal(written, "PROXY UNKNOWN\r\n");
        }
}

static void test_write_v2(void **state UNUSED)
{
        struct proxyproto_says says = {.version = 2,
                                       .src = at("192.0.2.7:4711"),
                                       .dst = at("192.0.2.1:80"),
                                       .authority = STR("a.example"),
                                       .alpn = STR("h2"),
                                       .unique_id = STR("id-1"),
                                       .ssl = {.tls = true,
                                               .cert_sess = true,
                                               .verified = true,
                                               .version = STR("TLSv1.3"),
                                               .cn = STR("alice")}};
        struct proxyproto_ssl ssl;
        size_t n = write_of(&says);

        whole(written, n);
        shows(&head.src, "192.0.2.7:4711");
        shows(&head.dst, "192.0.2.1:80");
        has(PROXYPROTO_AUTHORITY, "a.example");
        has(PROXYPROTO_ALPN, "h2");
        has(PROXYPROTO_UNIQUE_ID, "id-1");
        assert_true(proxyproto_ssl(head.tlvs, &ssl));
        assert_true(ssl.tls && !ssl.cert_conn && ssl.cert_sess && ssl.verified);
        assert_true(str_eq(ssl.version, STR("TLSv1.3")));
        assert_true(str_eq(ssl.cn, STR("alice")));
        says.src = at("[2001:db8::7]:4711"); /* the other end is v4-mapped then */
        whole(written, write_of(&says));
        shows(&head.src, "[2001:db8::7]:4711");
        has(PROXYPROTO_UNIQUE_ID, "id-1");
        says.ssl = (struct proxyproto_ssl){.tls = true};
        n = write_of(&says);
        assert_int_equal(parse(written, n), n);
        assert_true(proxyproto_ssl(head.tlvs, &ssl));
        assert_true(ssl.tls && !ssl.cert_sess && !ssl.verified);
}

/* What is too long for its place is left out; all together there is room. */
static void test_write_bounds(void **state UNUSED)
{
        static char text[300];
        struct proxyproto_says says = {.version = 2, .src = at("[::1]:1"), .dst = at("[::2]:2")};
        struct proxyproto_ssl ssl;
        size_t n;

        memset(text, 'x', sizeof(text));
        says.authority = says.alpn = str_of(text, 255);
        says.unique_id = str_of(text, 128);
        says.ssl = (struct proxyproto_ssl){
                .tls = true, .version = str_of(text, 255), .cn = str_of(text, 255)};
        n = write_of(&says);
        assert_int_equal(parse(written, n), n);
        assert_int_equal(proxyproto_tlv(head.tlvs, PROXYPROTO_ALPN).n, 255);
        assert_true(proxyproto_ssl(head.tlvs, &ssl));
        assert_int_equal(ssl.cn.n, 255);
        says.authority = says.alpn = says.ssl.cn = str_of(text, 256);
        says.unique_id = str_of(text, 129);
        n = write_of(&says);
        assert_int_equal(parse(written, n), n);
        assert_null(proxyproto_tlv(head.tlvs, PROXYPROTO_AUTHORITY).p);
        assert_null(proxyproto_tlv(head.tlvs, PROXYPROTO_UNIQUE_ID).p);
}

/* What is not of IP, or is weir's own: no address, and no values. */
static void test_write_nobody(void **state UNUSED)
{
        struct proxyproto_says says = {
                .version = 2, .src = at("unix:/x"), .dst = at("1.2.3.4:1"), .authority = STR("a")};

        assert_int_equal(write_of(&says), 16);
        assert_memory_equal(written, SIGNATURE "\x21\x00\x00\x00", 16);
        says.src = at("1.2.3.4:2");
        says.local = true;
        assert_int_equal(write_of(&says), 16);
        assert_memory_equal(written, SIGNATURE "\x20\x00\x00\x00", 16);
}

static int end(void **state UNUSED)
{
        free(kept);
        return 0;
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_v1),           cmocka_unit_test(test_v1_bad),
                cmocka_unit_test(test_v2),           cmocka_unit_test(test_v2_bad),
                cmocka_unit_test(test_tlvs),         cmocka_unit_test(test_tlv_sizes),
                cmocka_unit_test(test_ssl),          cmocka_unit_test(test_crc32c),
                cmocka_unit_test(test_write_v1),     cmocka_unit_test(test_write_v2),
                cmocka_unit_test(test_write_bounds), cmocka_unit_test(test_write_nobody),
        };
        return cmocka_run_group_tests(tests, NULL, end);
}
