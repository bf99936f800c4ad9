/*
 * Addresses: what is parsed, how it is printed, what is equal, which networks hold what.
 */
#include "base/addr.c"

#include "unit.h"

static void prints(const char *text, const char *full, const char *ip)
{
        struct addr a;
        char out[ADDR_TEXT];

        assert_true(addr_parse(str_z(text), &a));
        assert_int_equal(addr_print(&a, out), strlen(full));
        assert_string_equal(out, full);
        assert_int_equal(addr_print_ip(&a, out), strlen(ip));
        assert_string_equal(out, ip);
}

static void test_print(void **state UNUSED)
{
        prints("1.2.3.4:80", "1.2.3.4:80", "1.2.3.4");
        prints("[::1]:65535", "[::1]:65535", "::1");
        prints("*:443", "[::]:443", "::");
        prints("0.0.0.0:0", "0.0.0.0:0", "0.0.0.0");
        prints("[::ffff:10.0.0.1]:8080", "10.0.0.1:8080", "10.0.0.1");
        prints("unix:/run/weir.sock", "unix:/run/weir.sock", "unix:");
        prints("255.255.255.255:1", "255.255.255.255:1", "255.255.255.255");
}

/* Every value of a byte, as the system prints it. */
static void test_print_v4(void **state UNUSED)
{
        struct addr a = {.len = sizeof(struct sockaddr_in), .in.sin_family = AF_INET};
        char out[ADDR_TEXT], want[INET_ADDRSTRLEN];

        for (uint32_t i = 0; i < 256; i++) {
                a.in.sin_addr.s_addr = htonl(i << 24 | (255 - i) << 16 | i << 8 | (i * 7 & 255));
                inet_ntop(AF_INET, &a.in.sin_addr, want, sizeof(want));
                assert_int_equal(addr_print_ip(&a, out), strlen(want));
                assert_string_equal(out, want);
        }
}

static void test_refused(void **state UNUSED)
{
        static const char *const bad[] = {
                "",
                "1.2.3.4",
                "1.2.3.4:",
                "1.2.3.4:65536",
                "1.2.3.4:-1",
                "1.2.3:80",
                "::1:80",
                "[::1]",
                "[1.2.3.4]:80",
                "example.com:80",
                "[::1:80",
                "unix:",
                "1.2.3.4:8 0",
                " 1.2.3.4:80",
                "01.2.3.4:80",
                "[fe80::1%1]:80",
        };
        struct addr a = {.len = 7};

        for (size_t i = 0; i < COUNT(bad); i++)
                assert_false(addr_parse(str_z(bad[i]), &a));
        assert_int_equal(a.len, 7); /* untouched */
}

static void test_long_unix(void **state UNUSED)
{
        char text[200] = "unix:";
        struct addr a;
        char out[ADDR_TEXT];
        size_t fits = sizeof(a.un.sun_path) - 1;

        memset(text + 5, 'x', fits);
        assert_true(addr_parse(str_of(text, 5 + fits), &a));
        assert_int_equal(addr_print(&a, out), 5 + fits);
        assert_memory_equal(out, text, 5 + fits);
        text[5 + fits] = 'x';
        assert_false(addr_parse(str_of(text, 6 + fits), &a));
}

static void test_ports_and_equality(void **state UNUSED)
{
        struct addr a, b, c, u, v;

        assert_true(addr_parse(STR("10.0.0.1:80"), &a));
        assert_true(addr_parse(STR("[::ffff:10.0.0.1]:80"), &b));
        assert_true(addr_equal(&a, &b));
        assert_int_equal(addr_hash(&a), addr_hash(&b));
        c = a;
        addr_set_port(&c, 81);
        assert_int_equal(addr_port(&c), 81);
        assert_false(addr_equal(&a, &c));
        assert_true(addr_parse(STR("unix:/a"), &u));
        assert_true(addr_parse(STR("unix:/ab"), &v));
        assert_false(addr_equal(&u, &v));
        assert_false(addr_equal(&u, &a));
        assert_true(addr_equal(&u, &u));
        assert_int_equal(addr_port(&u), 0);
        addr_set_port(&u, 5);
        assert_int_equal(addr_port(&u), 0);
        c.len = 0;
        assert_int_equal(addr_port(&c), 0);
        assert_false(addr_equal(&a, &c));
}

static bool in(const char *net, const char *ip)
{
        struct cidr c;
        struct addr a;

        assert_true(cidr_parse(str_z(net), &c));
        assert_true(addr_parse_ip(str_z(ip), 1, &a));
        return cidr_has(&c, &a);
}

static void test_cidr(void **state UNUSED)
{
        struct cidr c;
        struct addr u;

        assert_true(in("10.0.0.0/8", "10.255.0.1"));
        assert_true(in("10.0.0.0/8", "::ffff:10.1.2.3"));
        assert_false(in("10.0.0.0/8", "11.0.0.0"));
        assert_true(in("192.168.4.0/22", "192.168.7.255"));
        assert_false(in("192.168.4.0/22", "192.168.8.0"));
        assert_true(in("0.0.0.0/0", "8.8.8.8"));
        assert_false(in("0.0.0.0/0", "2001:db8::1"));
        assert_true(in("::/0", "8.8.8.8"));
        assert_true(in("2001:db8::/33", "2001:db8:7fff::1"));
        assert_false(in("2001:db8::/33", "2001:db8:8000::1"));
        assert_true(in("::1", "::1"));
        assert_false(in("::1", "::2"));
        assert_false(cidr_parse(STR("10.0.0.1/8"), &c));
        assert_false(cidr_parse(STR("10.0.0.0/33"), &c));
        assert_false(cidr_parse(STR("10.0.0.0/"), &c));
        assert_false(cidr_parse(STR("::/129"), &c));
        assert_false(cidr_parse(STR("example.com"), &c));
        assert_true(cidr_parse(STR("::/0"), &c));
        assert_true(addr_parse(STR("unix:/x"), &u));
        assert_false(cidr_has(&c, &u));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_print),     cmocka_unit_test(test_refused),
                cmocka_unit_test(test_long_unix), cmocka_unit_test(test_ports_and_equality),
                cmocka_unit_test(test_cidr),      cmocka_unit_test(test_print_v4),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
