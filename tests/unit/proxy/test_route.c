/* route.c: hosts, kinds of routes, and that the index never changes the answer of trying in written
 * order. */
#include "proxy/route.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static struct arena *arena;
static struct conf conf;

static str keep(const char *z)
{
        return arena_dup(arena, str_z(z));
}

static struct route_conf route(enum route_kind kind, const char *pattern)
{
        struct route_conf r = {.kind = kind, .pattern = keep(pattern)};
        struct regex_error err;
        if (kind == ROUTE_REGEX) {
                r.regex = regex_new(r.pattern, 0, &err);
                assert_non_null(r.regex);
        }
        return r;
}

static struct host_conf *add_host(const char *name, size_t n_routes)
{
        struct host_conf *h = &conf.hosts[conf.n_hosts];
        str *names = ARENA_NEW(arena, str);
        names[0] = keep(name);
        *h = (struct host_conf){.names = names, .n_names = 1, .index = (uint32_t)conf.n_hosts};
        h->routes = ARENA_ARRAY(arena, struct route_conf, n_routes);
        conf.n_hosts++;
        return h;
}

static void add(struct host_conf *h, struct route_conf r)
{
        r.index = (uint32_t)h->n_routes;
        r.host = h;
        h->routes[h->n_routes++] = r;
}

static int setup(void **state)
{
        (void)state;
        arena = arena_new(0);
        conf = (struct conf){.arena = arena, .hosts = ARENA_ARRAY(arena, struct host_conf, 8)};
        return 0;
}

static int teardown(void **state)
{
        (void)state;
        for (size_t i = 0; i < conf.n_hosts; i++)
                for (size_t j = 0; j < conf.hosts[i].n_routes; j++)
                        regex_free((struct regex *)(uintptr_t)conf.hosts[i].routes[j].regex);
        arena_free(arena);
        return 0;
}

static bool no_when(void *ctx, const struct route_conf *r, enum reason *refused)
{
        (void)ctx;
        (void)r;
        (void)refused;
        return false;
}

static void test_hosts(void **state)
{
        static const struct {
                const char *host, *name;
        } cases[] = {
                {"api.example.com", "api.example.com"},
                {"x.example.com", "*.example.com"},
                {"a.b.example.com", "*.b.example.com"},
                {"c.d.example.com", "*.example.com"},
                {"example.com", "*"},
                {"", "*"},
                {"other.org", "*"},
        };
        (void)state;
        const char *names[] = {"*", "*.example.com", "*.b.example.com", "api.example.com"};
        for (size_t i = 0; i < COUNT(names); i++)
                add(add_host(names[i], 1), route(ROUTE_PREFIX, "/"));
        struct route_table *t = route_table_new(&conf);
        for (size_t i = 0; i < COUNT(cases); i++) {
                struct route_match m = {0};
                assert_int_equal(
                        route_find(t, NULL, str_z(cases[i].host), STR("/"), no_when, NULL, &m),
                        REASON_NONE);
                assert_true(str_eq(m.host->names[0], str_z(cases[i].name)));
        }
        str only[] = {STR_INIT("*.example.com")};
        struct listen_conf listen = {.hosts = only, .n_hosts = 1};
        struct route_match m = {0};
        assert_int_equal(
                route_find(t, &listen, STR("api.example.com"), STR("/"), no_when, NULL, &m),
                REASON_NONE);
        assert_true(str_eq(m.host->names[0], only[0]));
        assert_int_equal(route_find(t, &listen, STR("other.org"), STR("/"), no_when, NULL, &m),
                         REASON_NO_HOST);
        route_table_free(t);
}

static void test_kinds(void **state)
{
        static const struct {
                const char *path;
                int route;
                const char *rest;
        } cases[] = {
                {"/exact", 0, ""}, {"/exact/", 3, "exact/"}, {"/p", 1, ""},      {"/p/x", 1, "/x"},
                {"/px", 3, "px"},  {"/dir/", 2, ""},         {"/dir/a", 2, "a"}, {"/dir", 3, "dir"},
        };
        (void)state;
        struct host_conf *h = add_host("*", 4);
        add(h, route(ROUTE_EXACT, "/exact"));
        add(h, route(ROUTE_SEGMENT, "/p"));
        add(h, route(ROUTE_PREFIX, "/dir/"));
        add(h, route(ROUTE_PREFIX, "/"));
        struct route_table *t = route_table_new(&conf);
        for (size_t i = 0; i < COUNT(cases); i++) {
                struct route_match m = {0};
                str path = str_z(cases[i].path);
                assert_int_equal(route_find(t, NULL, STR("h"), path, no_when, NULL, &m),
                                 REASON_NONE);
                assert_int_equal(m.route->index, cases[i].route);
                assert_true(str_eq(str_from(path, m.rest), str_z(cases[i].rest)));
        }
        route_table_free(t);
}

/* A regex that runs away refuses the request; the next route is never tried in its place. */
static void test_regex_limit(void **state)
{
        (void)state;
        struct host_conf *h = add_host("*", 2);
        add(h, route(ROUTE_REGEX, "^/(a+)+$"));
        add(h, route(ROUTE_PREFIX, "/"));
        struct route_table *t = route_table_new(&conf);
        struct route_match m = {0};
        char path[64];
        memset(path, 'a', sizeof path);
        path[0] = '/';
        path[63] = '!';
        assert_int_equal(route_find(t, NULL, STR("h"), str_of(path, 64), no_when, NULL, &m),
                         REASON_REGEX_LIMIT);
        route_table_free(t);
}

static uint32_t seed = 4711;
static uint32_t roll(uint32_t n)
{
        seed = seed * 1103515245 + 12345;
        return (seed >> 16) % n;
}

static struct route_conf random_route(void)
{
        static const char *const words[] = {"users", "orders", "items", "v1",
                                            "v2",    "a",      "img",   "Files"};
        char p[160], *w1 = (char *)(uintptr_t)words[roll(8)],
                     *w2 = (char *)(uintptr_t)words[roll(8)];
        switch (roll(7)) {
        case 0:
                snprintf(p, sizeof p, "/%s/%s", w1, w2);
                return route(ROUTE_EXACT, p);
        case 1:
                snprintf(p, sizeof p, "/%s/", w1);
                return route(ROUTE_PREFIX, p);
        case 2:
                snprintf(p, sizeof p, "/%s/%s", w1, w2);
                return route(ROUTE_SEGMENT, p);
        case 3:
                snprintf(p, sizeof p, "^/%s/(\\d+)/%s$", w1, w2);
                return route(ROUTE_REGEX, p);
        case 4:
                snprintf(p, sizeof p, "/(%s|%s)/x%u", w1, w2, roll(3));
                return route(ROUTE_REGEX, p);
        case 5:
                snprintf(p, sizeof p, "^/%s?/[ab].", w1);
                return route(ROUTE_REGEX, p);
        default:
                snprintf(p, sizeof p, "^/\\w+/\\d{%u}$", 1 + roll(4));
                return route(ROUTE_REGEX, p);
        }
}

static void test_index_agrees_with_scan(void **state)
{
        static const char *const bits[] = {"/users", "/orders", "/items", "/v1", "/v2",
                                           "/a",     "/img",    "/Files", "/1",  "/12",
                                           "/x1",    "/ab",     "/",      "s"};
        unsigned found = 0;
        (void)state;
        struct host_conf *h = add_host("*", 300);
        for (int i = 0; i < 300; i++)
                add(h, random_route());
        struct route_table *t = route_table_new(&conf);
        assert_non_null(t->index[0].words);
        for (int i = 0; i < 20000; i++) {
                char path[128] = "";
                for (uint32_t n = 1 + roll(4); n > 0; n--)
                        strcat(path, bits[roll(COUNT(bits))]);
                struct route_match by_index = {0}, by_scan = {0};
                struct search s = {
                        .host = h, .path = str_z(path), .when = no_when, .out = &by_scan};
                bool ok = scan(&s);
                enum reason r =
                        route_find(t, NULL, STR("h"), str_z(path), no_when, NULL, &by_index);
                assert_int_equal(ok, r == REASON_NONE);
                assert_ptr_equal(by_scan.route, by_index.route);
                if (ok) {
                        found++;
                        assert_memory_equal(&by_scan.caps, &by_index.caps,
                                            offsetof(struct regex_captures, g) +
                                                    by_scan.caps.n * sizeof by_scan.caps.g[0]);
                }
        }
        assert_true(found > 2000);
        route_table_free(t);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_hosts, setup, teardown),
                cmocka_unit_test_setup_teardown(test_kinds, setup, teardown),
                cmocka_unit_test_setup_teardown(test_regex_limit, setup, teardown),
                cmocka_unit_test_setup_teardown(test_index_agrees_with_scan, setup, teardown),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
