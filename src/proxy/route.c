/*
 * From host and path to a route.
 *
 * The difficulty is to stay exact: whatever index is used, the answer is that of trying the routes
 * in written order.
 */
#include "proxy/route.h"

#include "base/check.h"

#include <stdlib.h>

struct route_table {
        const struct conf *conf;
        struct map *exact;           /* "api.example.com" -> host */
        struct map *suffix;          /* ".example.com" -> host, of *.example.com */
        const struct host_conf *any; /* "*" */
};

struct route_table *route_table_new(const struct conf *c)
{
        struct route_table *t = calloc(1, sizeof *t);
        CHECK(t != NULL);
        t->conf = c;
        t->exact = map_new();
        t->suffix = map_new();
        for (size_t i = 0; i < c->n_hosts; i++) {
                const struct host_conf *h = &c->hosts[i];
                for (size_t j = 0; j < h->n_names; j++) {
                        str name = h->names[j];
                        if (str_eq(name, STR("*")))
                                t->any = h;
                        else if (str_starts(name, STR("*.")))
                                map_put(t->suffix, str_from(name, 1), (void *)(uintptr_t)h);
                        else
                                map_put(t->exact, name, (void *)(uintptr_t)h);
                }
        }
        return t;
}

void route_table_free(struct route_table *t)
{
        if (t == NULL)
                return;
        map_free(t->exact);
        map_free(t->suffix);
        free(t);
}

/* A listener may serve some host blocks only. */
static bool serves(const struct listen_conf *listen, const struct host_conf *h)
{
        if (h == NULL)
                return false;
        if (listen == NULL || listen->n_hosts == 0)
                return true;
        for (size_t i = 0; i < listen->n_hosts; i++)
                for (size_t j = 0; j < h->n_names; j++)
                        if (str_eq(listen->hosts[i], h->names[j]))
                                return true;
        return false;
}

static const struct host_conf *find_host(const struct route_table *t,
                                         const struct listen_conf *listen, str host)
{
        const struct host_conf *h = map_get(t->exact, host);
        if (serves(listen, h))
                return h;
        for (str s = host; map_count(t->suffix) != 0;) {
                ptrdiff_t dot = str_chr(s, '.');
                if (dot < 0)
                        break;
                s = str_from(s, (size_t)dot);
                h = map_get(t->suffix, s);
                if (serves(listen, h))
                        return h;
                s = str_from(s, 1);
        }
        return serves(listen, t->any) ? t->any : NULL;
}

static enum regex_result matches(const struct route_conf *r, str path, struct route_match *m)
{
        str p = r->pattern;
        m->caps.n = 0;
        m->rest = path.n;
        switch (r->kind) {
        case ROUTE_EXACT:
                return str_eq(path, p) ? REGEX_YES : REGEX_NO;
        case ROUTE_PREFIX:
                m->rest = p.n;
                return str_starts(path, p) ? REGEX_YES : REGEX_NO;
        case ROUTE_SEGMENT:
                m->rest = p.n;
                return str_starts(path, p) && (path.n == p.n || path.p[p.n] == '/') ? REGEX_YES
                                                                                    : REGEX_NO;
        case ROUTE_REGEX:
                return regex_match(r->regex, path, 0, &m->caps);
        }
        UNREACHABLE();
}

enum reason route_find(const struct route_table *t, const struct listen_conf *listen, str host,
                       str path, route_when *when, void *ctx, struct route_match *out)
{
        struct route_match m;
        m.host = find_host(t, listen, host);
        if (m.host == NULL)
                return REASON_NO_HOST;
        for (size_t i = 0; i < m.host->n_routes; i++) {
                const struct route_conf *r = &m.host->routes[i];
                enum reason refused = REASON_NONE;
                enum regex_result got = matches(r, path, &m);
                if (got == REGEX_LIMIT)
                        return REASON_REGEX_LIMIT;
                if (got == REGEX_NO)
                        continue;
                if (r->n_whens != 0 && !when(ctx, r, &refused)) {
                        if (refused != REASON_NONE)
                                return refused;
                        continue;
                }
                m.route = r;
                *out = m;
                return REASON_NONE;
        }
        return REASON_NO_ROUTE;
}
