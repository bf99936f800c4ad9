/*
 * Addresses of responders, as certificates name them.
 */
#include "daemon/ocsp_fetch.c"

#include "../base/unit.h"

static void test_addresses(void **state UNUSED)
{
        static const struct {
                const char *url, *authority, *host, *path;
                uint16_t port;
        } good[] = {
                {"http://o.test", "o.test", "o.test", "/", 80},
                {"HTTP://o.test/", "o.test", "o.test", "/", 80},
                {"http://o.test:8080/a/b?c=d", "o.test:8080", "o.test", "/a/b?c=d", 8080},
                {"http://127.0.0.1:81/x#y", "127.0.0.1:81", "127.0.0.1", "/x", 81},
                {"http://[::1]/x", "[::1]", "::1", "/x", 80},
                {"http://[::1]:82/x", "[::1]:82", "::1", "/x", 82},
                {"http://o.test:/x", "o.test:", "o.test", "/x", 80},
        };
        static const char *const bad[] = {
                "",
                "http:/o.test",
                "http://",
                "http:///x",
                "https://o.test/",
                "ldap://o.test/",
                "http://u@o.test/",
                "http://o.test:0/",
                "http://o.test:65536/",
                "http://o.test:x/",
                "http://o.test/a b",
                "http://o.test/a\r\nb: c",
                "http://:80/",
                "http://[::1/x",
        };
        struct ocsp_url u;

        for (size_t i = 0; i < COUNT(good); i++) {
                assert_true(ocsp_url_parse(str_z(good[i].url), &u));
                assert_true(str_eq(u.authority, str_z(good[i].authority)));
                assert_true(str_eq(u.host, str_z(good[i].host)));
                assert_true(str_eq(u.path, str_z(good[i].path)));
                assert_int_equal(u.port, good[i].port);
        }
        for (size_t i = 0; i < COUNT(bad); i++)
                assert_false(ocsp_url_parse(str_z(bad[i]), &u));
        assert_false(ocsp_url_parse(STR_NONE, &u));
}

int main(void)
{
        const struct CMUnitTest tests[] = {cmocka_unit_test(test_addresses)};

        return cmocka_run_group_tests(tests, NULL, NULL);
}
