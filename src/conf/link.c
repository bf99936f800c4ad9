/*
 * Names between blocks, once all blocks are read: upstreams of proxy lines, hosts of listeners,
 * formats of access logs; then what holds for each route: its functions and effective settings.
 */
#include "conf/compile.h"
#include "conf/settings.h"
#include "conf/value.h"

/* ------------------------------------------------------------------ names */

static void link_proxy(struct compile *c, const struct map *by_name, const struct reference *ref)
{
        struct conf *conf = c->conf;
        struct upstream_conf *u = map_get(by_name, ref->name);

        if (u) {
                conf->hosts[ref->host].routes[ref->route].targets[ref->target].upstream = u;
                return;
        }
        str *names = ARENA_ARRAY(c->a, str, conf->n_upstreams + 1);
        for (size_t i = 0; i < conf->n_upstreams; i++)
                names[i] = conf->upstreams[i].name;
        report_unknown(c->rep, &ref->pos, ref->name, names, conf->n_upstreams,
                       "there is no upstream %.*s", STR_ARG(ref->name));
}

static void link_listen_host(struct compile *c, const struct reference *ref)
{
        VEC(str) names = {0};

        for (size_t i = 0; i < c->conf->n_hosts; i++) {
                for (size_t k = 0; k < c->conf->hosts[i].n_names; k++) {
                        if (str_eq(c->conf->hosts[i].names[k], ref->name))
                                return;
                        *VEC_ADD(c->a, &names) = c->conf->hosts[i].names[k];
                }
        }
        report_unknown(c->rep, &ref->pos, ref->name, names.v, names.n, "there is no host %.*s",
                       STR_ARG(ref->name));
}

static void link_host_tls(struct compile *c, struct host_conf *h)
{
        struct conf *conf = c->conf;
        bool used = false;

        if (!h->tls)
                return;
        h->tls_index = (uint32_t)conf->n_host_tls++;
        for (size_t i = 0; i < conf->n_listens; i++)
                used = used || (conf->listens[i].tls && listen_serves(&conf->listens[i], h));
        if (!used)
                report_warning(c->rep, &h->tls->pos,
                               "this tls block has no effect: no listen with tls serves the host");
}

static void link_certs(struct compile *c)
{
        struct conf *conf = c->conf;
        VEC(const struct listen_cert *) all = {0};

        for (size_t i = 0; i < conf->n_listens + conf->n_hosts; i++) {
                const struct listen_conf *l = i < conf->n_listens
                                                      ? &conf->listens[i]
                                                      : conf->hosts[i - conf->n_listens].tls;
                for (size_t k = 0; l && k < l->n_certs; k++) {
                        l->certs[k].index = (uint32_t)all.n;
                        l->certs[k].of = l;
                        *VEC_ADD(c->a, &all) = &l->certs[k];
                }
        }
        conf->certs = all.v;
        conf->n_certs = all.n;
}

/* ------------------------------------------------------------------ access logs */

static bool find_format(struct compile *c, const struct log_use *use)
{
        struct access_log_conf *log = use->log;
        VEC(str) names = {0};

        *VEC_ADD(c->a, &names) = STR("combined");
        *VEC_ADD(c->a, &names) = STR("json");
        for (size_t i = 0; i < 2; i++) {
                if (str_eq(log->format_name, names.v[i]))
                        return true;
        }
        for (size_t i = 0; i < c->formats.n; i++) {
                *VEC_ADD(c->a, &names) = c->formats.v[i].name;
                if (str_eq(log->format_name, c->formats.v[i].name)) {
                        log->format = c->formats.v[i].template;
                        return true;
                }
        }
        report_unknown(c->rep, &use->pos, log->format_name, names.v, names.n,
                       "there is no log_format %.*s", STR_ARG(log->format_name));
        return false;
}

/* Equal ones become one; the index tells the settings which. */
static void link_logs(struct compile *c)
{
        VEC(struct access_log_conf) logs = {0};

        for (size_t i = 0; i < c->logs.n; i++) {
                struct access_log_conf *log = c->logs.v[i].log;
                size_t k = 0;
                (void)find_format(c, &c->logs.v[i]);
                while (k < logs.n && !(str_eq(logs.v[k].path, log->path) &&
                                       str_eq(logs.v[k].format_name, log->format_name)))
                        k++;
                log->index = (uint32_t)k;
                if (k == logs.n)
                        *VEC_ADD(c->a, &logs) = *log;
        }
        c->conf->access_logs = COMPILE_TAKE(c->a, logs);
        c->conf->n_access_logs = logs.n;
}

static void link_log(struct compile *c, struct settings *own)
{
        if (own->access_log)
                own->access_log = &c->conf->access_logs[own->access_log->index];
}

/* ------------------------------------------------------------------ effective settings */

static void effective(struct compile *c, struct settings *out, const struct settings *route,
                      const struct settings *upstream, const struct settings *host)
{
        settings_merge(c->a, out, route, upstream, host, &c->conf->top);
}

/* ------------------------------------------------------------------ routes */

static void link_functions_of(struct compile *c, const struct host_conf *h, struct route_conf *r)
{
        size_t n = h->n_functions + r->n_functions;
        struct function_conf **v = ARENA_ARRAY(c->a, struct function_conf *, n + 1);

        for (size_t i = 0; i < n; i++)
                v[i] = i < h->n_functions ? h->functions[i] : r->functions[i - h->n_functions];
        r->functions = v;
        r->n_functions = n;
        if (r->action == ACTION_FUNCTION && n == 0)
                report_error(c->rep, &r->pos,
                             "the route has no action (proxy, respond or redirect)");
}

/* Else the tunnel would end before anybody is asked. */
static void check_ping(struct compile *c, const struct route_conf *r)
{
        char ping[VALUE_TEXT], tunnel[VALUE_TEXT];

        for (size_t i = 0; i < r->n_targets; i++) {
                const struct settings *s = &r->targets[i].eff;
                if (s->websocket_ping == 0 || s->tunnel == 0 || s->websocket_ping < s->tunnel)
                        continue;
                report_error(c->rep, &r->pos,
                             "websocket ping=%.*s is not shorter than timeout tunnel=%.*s here",
                             STR_ARG(value_time_text(s->websocket_ping, ping)),
                             STR_ARG(value_time_text(s->tunnel, tunnel)));
                return;
        }
}

static void link_route(struct compile *c, struct host_conf *h, struct route_conf *r)
{
        r->host = h;
        link_log(c, &r->own);
        link_functions_of(c, h, r);
        effective(c, &r->eff, &r->own, NULL, &h->own);
        for (size_t i = 0; i < r->n_targets; i++) {
                const struct upstream_conf *u = r->targets[i].upstream;
                effective(c, &r->targets[i].eff, &r->own, u ? &u->own : NULL, &h->own);
        }
        check_ping(c, r);
}

static void link_names(struct compile *c)
{
        struct map *by_name = map_new();

        for (size_t i = 0; i < c->conf->n_upstreams; i++)
                map_put(by_name, c->conf->upstreams[i].name, &c->conf->upstreams[i]);
        for (size_t i = 0; i < c->refs.n; i++) {
                if (c->refs.v[i].kind == REF_PROXY)
                        link_proxy(c, by_name, &c->refs.v[i]);
                else
                        link_listen_host(c, &c->refs.v[i]);
        }
        map_free(by_name);
}

/* What weir asks for itself has its body ready, which can always be sent again. */
static void link_upstream(struct compile *c, struct upstream_conf *u)
{
        link_log(c, &u->own);
        effective(c, &u->eff, NULL, &u->own, NULL);
        u->eff.buffer_request = UINT64_MAX;
}

static void link_tickets(struct compile *c)
{
        struct conf *conf = c->conf;
        str *names = ARENA_ARRAY(c->a, str, conf->n_redises + 1);

        if (!conf->ticket_redis.p)
                return;
        for (size_t i = 0; i < conf->n_redises; i++) {
                names[i] = conf->redises[i].name;
                if (str_eq(names[i], conf->ticket_redis))
                        conf->ticket_store = &conf->redises[i];
        }
        if (!conf->ticket_store)
                report_unknown(c->rep, &conf->ticket_pos, conf->ticket_redis, names,
                               conf->n_redises, "there is no redis %.*s",
                               STR_ARG(conf->ticket_redis));
}

void link_conf(struct compile *c)
{
        struct conf *conf = c->conf;

        link_tickets(c);
        link_names(c);
        link_certs(c);
        link_logs(c);
        link_log(c, &conf->top);
        for (size_t i = 0; i < conf->n_upstreams; i++)
                link_upstream(c, &conf->upstreams[i]);
        effective(c, &conf->eff, NULL, NULL, NULL);
        for (size_t i = 0; i < conf->n_hosts; i++) {
                struct host_conf *h = &conf->hosts[i];
                link_log(c, &h->own);
                link_host_tls(c, h);
                for (size_t k = 0; k < h->n_routes; k++)
                        link_route(c, h, &h->routes[k]);
        }
        for (size_t i = 0; i < conf->n_listens; i++)
                effective(c, &conf->listens[i].eff, &conf->listens[i].own, NULL, NULL);
}
