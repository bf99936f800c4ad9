/*
 * From host and path to a route.
 *
 * Cost does not grow with the number of routes: from every pattern come sets of strings one of
 * which must occur in the path (literal.c); one automaton finds which of them do, and only those
 * routes are tried, in the order written, together with the few of which nothing is known.  The
 * difficulty is to stay exact: the index may only leave out what cannot match.
 */
#include "proxy/route.h"

#include "base/check.h"
#include "proxy/automaton.h"
#include "proxy/literal.h"

#include <stdlib.h>

#define SCAN_BELOW     12  /* fewer routes than this are tried one after the other */
#define CANDIDATES_MAX 256 /* more hits than this: scan in order */

/* The routes of one host.  Immutable. */
struct route_index {
        struct automaton *words; /* NULL: scan */
        uint32_t *always;        /* routes that must always be tried, ascending */
        size_t n_always;
};

struct route_table {
        const struct conf *conf;
        struct map *exact;           /* "api.example.com" -> host */
        struct map *suffix;          /* ".example.com" -> host, of *.example.com */
        const struct host_conf *any; /* "*" */
        struct route_index *index;   /* by host */
};

/* ------------------------------------------------------------------ the index */

/* All that is known of a route's pattern, in the form of a regex's. */
static void route_literals(struct arena *a, const struct route_conf *r, struct literals *l)
{
        if (r->kind == ROUTE_REGEX) {
                literal_extract(a, r->pattern, l);
                return;
        }
        *l = (struct literals){0};
        if (r->pattern.n <= 1) /* "/" is in every path */
                return;
        char *copy = arena_dupz(a, r->pattern);
        for (size_t i = 0; i < r->pattern.n; i++)
                copy[i] = str_lower(copy[i]);
        l->n = 1;
        l->set[0] = (struct literal_set){.n = 1, .s = {str_of(copy, r->pattern.n)}};
}

static void count_words(struct map *uses, const struct literals *l)
{
        for (uint32_t i = 0; i < l->n; i++)
                for (uint32_t j = 0; j < l->set[i].n; j++)
                        map_put(uses, l->set[i].s[j],
                                (void *)((uintptr_t)map_get(uses, l->set[i].s[j]) + 1));
}

/* The set that the fewest routes share; of equals the one with the longer words. */
static const struct literal_set *rarest(struct map *uses, const struct literals *l)
{
        const struct literal_set *best = NULL;
        uintptr_t best_uses = UINTPTR_MAX;
        size_t best_length = 0;
        for (uint32_t i = 0; i < l->n; i++) {
                uintptr_t n = 0;
                size_t length = SIZE_MAX;
                for (uint32_t j = 0; j < l->set[i].n; j++) {
                        n += (uintptr_t)map_get(uses, l->set[i].s[j]);
                        length = MIN(length, l->set[i].s[j].n);
                }
                if (n < best_uses || (n == best_uses && length > best_length)) {
                        best = &l->set[i];
                        best_uses = n;
                        best_length = length;
                }
        }
        return best;
}

static void index_host(struct route_index *ix, const struct host_conf *h)
{
        if (h->n_routes < SCAN_BELOW)
                return;
        struct arena *a = arena_new(0);
        struct map *uses = map_new();
        struct literals *of = ARENA_ARRAY(a, struct literals, h->n_routes);
        VEC(struct automaton_word) words = {0};

        for (size_t i = 0; i < h->n_routes; i++) {
                route_literals(a, &h->routes[i], &of[i]);
                count_words(uses, &of[i]);
        }
        ix->always = calloc(h->n_routes, sizeof *ix->always);
        CHECK(ix->always != NULL);
        for (size_t i = 0; i < h->n_routes; i++) {
                const struct literal_set *set = rarest(uses, &of[i]);
                if (set == NULL)
                        ix->always[ix->n_always++] = (uint32_t)i;
                for (uint32_t j = 0; set != NULL && j < set->n; j++)
                        *VEC_ADD(a, &words) = (struct automaton_word){set->s[j], (uint32_t)i};
        }
        ix->words = automaton_new(words.v, words.n);
        map_free(uses);
        arena_free(a);
}

size_t route_always_tried(const struct route_table *t, const struct host_conf *h,
                          const uint32_t **routes)
{
        *routes = t->index[h->index].always;
        return t->index[h->index].n_always;
}

/* ------------------------------------------------------------------ the table */

struct route_table *route_table_new(const struct conf *c)
{
        struct route_table *t = calloc(1, sizeof *t);
        CHECK(t != NULL);
        t->conf = c;
        t->exact = map_new();
        t->suffix = map_new();
        t->index = calloc(MAX(c->n_hosts, 1), sizeof *t->index);
        CHECK(t->index != NULL);
        for (size_t i = 0; i < c->n_hosts; i++) {
                const struct host_conf *h = &c->hosts[i];
                CHECK(h->index == i);
                index_host(&t->index[i], h);
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
        for (size_t i = 0; i < t->conf->n_hosts; i++) {
                automaton_free(t->index[i].words);
                free(t->index[i].always);
        }
        free(t->index);
        map_free(t->exact);
        map_free(t->suffix);
        free(t);
}

/* ------------------------------------------------------------------ hosts */

static bool serves(const struct listen_conf *listen, const struct host_conf *h)
{
        return h != NULL && (listen == NULL || listen_serves(listen, h));
}

static const struct host_conf *find_host(const struct route_table *t,
                                         const struct listen_conf *listen, str host)
{
        const struct host_conf *h = map_count(t->exact) != 0 ? map_get(t->exact, host) : NULL;
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

/* ------------------------------------------------------------------ routes */

/* What all tries of one request share. */
struct search {
        const struct host_conf *host;
        str path;
        route_when *when;
        void *ctx;
        struct route_match *out;
        enum reason refused;
};

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

/* true: the search is over, with a route or refused. */
static bool try_route(struct search *s, uint32_t i)
{
        const struct route_conf *r = &s->host->routes[i];
        enum regex_result got = matches(r, s->path, s->out);
        if (got == REGEX_NO)
                return false;
        if (got == REGEX_LIMIT) {
                s->refused = REASON_REGEX_LIMIT;
                return true;
        }
        if (r->n_whens != 0 && !s->when(s->ctx, r, &s->refused))
                return s->refused != REASON_NONE;
        s->out->host = s->host;
        s->out->route = r;
        return true;
}

static bool scan(struct search *s)
{
        for (uint32_t i = 0; i < s->host->n_routes; i++)
                if (try_route(s, i))
                        return true;
        return false;
}

static void sort(uint32_t *v, size_t n) /* few: by insertion */
{
        for (size_t i = 1; i < n; i++) {
                uint32_t x = v[i];
                size_t j = i;
                for (; j > 0 && v[j - 1] > x; j--)
                        v[j] = v[j - 1];
                v[j] = x;
        }
}

static bool search_index(struct search *s, const struct route_index *ix)
{
        uint32_t hit[CANDIDATES_MAX];
        size_t n = automaton_find(ix->words, s->path, hit, CANDIDATES_MAX);
        if (n > CANDIDATES_MAX)
                return scan(s);
        sort(hit, n);
        for (size_t i = 0, j = 0; i < n || j < ix->n_always;) {
                uint32_t next = i < n ? hit[i] : UINT32_MAX;
                if (j < ix->n_always && ix->always[j] < next)
                        next = ix->always[j++];
                while (i < n && hit[i] == next)
                        i++;
                if (try_route(s, next))
                        return true;
        }
        return false;
}

enum reason route_find(const struct route_table *t, const struct listen_conf *listen, str host,
                       str path, route_when *when, void *ctx, struct route_match *out)
{
        struct search s = {.path = path, .when = when, .ctx = ctx, .out = out};
        s.host = find_host(t, listen, host);
        if (s.host == NULL)
                return REASON_NO_HOST;
        const struct route_index *ix = &t->index[s.host->index];
        if (!(ix->words != NULL ? search_index(&s, ix) : scan(&s)))
                return REASON_NO_ROUTE;
        return s.refused;
}
