/*
 * What finding a route costs with 10 to 100,000 regex routes, beside trying them in order.
 *
 *     tests/bench/route_bench [lookups]      (200000)
 *
 * Prints microseconds of CPU per lookup for a path that matches and for one that matches nothing,
 * and what building costs.
 */
#include "proxy/route.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double cpu_us(void)
{
        struct timespec t;
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
        return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

/* Versioned APIs with ids, language prefixes with slugs, suffixes, as found in the field. */
static void pattern_of(size_t i, char *p, size_t cap)
{
        static const char *const lang[] = {"en", "de", "fr", "ja"};
        switch (i % 4) {
        case 0:
                snprintf(p, cap, "^/api/v%zu/svc%zu/(?<id>\\d+)$", 1 + i % 3, i);
                break;
        case 1:
                snprintf(p, cap, "^/%s/topic%zu/[a-z0-9-]+/?$", lang[i / 4 % 4], i);
                break;
        case 2:
                snprintf(p, cap, "^/assets/app%zu/.*\\.(js|css|png)$", i);
                break;
        default:
                snprintf(p, cap, "/tenant%zu/(users|orders)/(?<id>[0-9a-f]{8})", i);
        }
}

static void path_of(size_t i, char *p, size_t cap)
{
        static const char *const lang[] = {"en", "de", "fr", "ja"};
        switch (i % 4) {
        case 0:
                snprintf(p, cap, "/api/v%zu/svc%zu/4711", 1 + i % 3, i);
                break;
        case 1:
                snprintf(p, cap, "/%s/topic%zu/some-slug-here", lang[i / 4 % 4], i);
                break;
        case 2:
                snprintf(p, cap, "/assets/app%zu/js/main.min.js", i);
                break;
        default:
                snprintf(p, cap, "/x/tenant%zu/orders/0badcafe/lines", i);
        }
}

static bool when(void *ctx, const struct route_conf *r, enum reason *refused)
{
        (void)ctx, (void)r, (void)refused;
        return true;
}

static void bench(size_t n, size_t lookups)
{
        struct arena *a = arena_new(0);
        str name = STR("*");
        struct host_conf host = {.names = &name, .n_names = 1, .n_routes = n};
        struct conf conf = {.arena = a, .hosts = &host, .n_hosts = 1};
        char text[160];
        double t0, regexes, index, hit, miss;
        host.routes = ARENA_ARRAY(a, struct route_conf, n);
        t0 = cpu_us();
        for (size_t i = 0; i < n; i++) {
                struct regex_error err;
                struct route_conf *r = &host.routes[i];
                pattern_of(i, text, sizeof text);
                *r = (struct route_conf){.index = (uint32_t)i, .kind = ROUTE_REGEX, .host = &host};
                r->pattern = arena_dup(a, str_z(text));
                r->regex = regex_new(r->pattern, 0, &err);
                if (r->regex == NULL)
                        exit(1);
        }
        regexes = cpu_us() - t0;
        t0 = cpu_us();
        struct route_table *t = route_table_new(&conf);
        index = cpu_us() - t0;
        static struct route_match m;
        size_t wrong = 0, step = n / 10 * 7 + 1;
        t0 = cpu_us();
        for (size_t i = 0, k = 0; i < lookups; i++, k = (k + step) % n) {
                path_of(k, text, sizeof text);
                wrong +=
                        route_find(t, NULL, STR("h"), str_z(text), when, NULL, &m) != REASON_NONE ||
                        m.route->index != k;
        }
        hit = (cpu_us() - t0) / (double)lookups;
        t0 = cpu_us();
        for (size_t i = 0; i < lookups; i++) {
                snprintf(text, sizeof text, "/api/v9/nothing%zu/here/at/all", i % 1000);
                wrong += route_find(t, NULL, STR("h"), str_z(text), when, NULL, &m) !=
                         REASON_NO_ROUTE;
        }
        miss = (cpu_us() - t0) / (double)lookups;
        t0 = cpu_us(); /* what making the paths costs is not the router's */
        for (size_t i = 0, k = 0; i < lookups; i++, k = (k + step) % n)
                path_of(k, text, sizeof text);
        double paths = (cpu_us() - t0) / (double)lookups;
        printf("%7zu routes: match %6.3f us, no match %6.3f us; build: regexes %7.1f ms, index "
               "%6.1f ms%s\n",
               n, hit - paths, miss - paths, regexes / 1e3, index / 1e3,
               wrong ? "  WRONG ANSWERS" : "");
        route_table_free(t);
        for (size_t i = 0; i < n; i++)
                regex_free((struct regex *)(uintptr_t)host.routes[i].regex);
        arena_free(a);
        if (wrong)
                exit(1);
}

int main(int argc, char **argv)
{
        size_t lookups = argc > 1 ? strtoul(argv[1], NULL, 10) : 200000;
        for (size_t n = 10; n <= 100000; n *= 10)
                bench(n, lookups);
        return 0;
}
