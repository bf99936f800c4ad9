/*
 * The effective configuration as text.
 *
 * The difficulty: it must read back to the same.  So templates are printed as their compiled
 * source; of functions the words are known, and by their places which argument each became.
 */
#include "conf/argument.h"
#include "conf/compile.h"
#include "conf/value.h"
#include "conf/writer.h"

#include <arpa/inet.h>

/* ------------------------------------------------------------------ functions */

/* What a word, or its value, became: slices of a word share its bytes. */
static const weir_arg *arg_of(const struct function_conf *f, const struct word *w)
{
        for (size_t i = 0; f->places && i < f->places->n; i++) {
                const struct argument_place *p = &f->places->v[i];
                if (p->arg && p->arg->type != WEIR_T_LINE && p->word.text.n &&
                    p->word.text.p >= w->text.p && p->word.text.p < w->text.p + w->text.n)
                        return p->arg;
        }
        return NULL;
}

static bool from_outside(const struct word *w)
{
        for (uint32_t i = 0; i < w->n_parts; i++) {
                if (w->parts[i].raw)
                        return true;
        }
        return false;
}

static void put_argument(struct writer *d, struct arena *a, const struct function_conf *f,
                         const struct word *w)
{
        bool pair = w->value && !w->quoted;
        const weir_arg *arg = arg_of(f, w);
        str value = str_from(w->text, pair ? w->value : 0);

        if ((arg && (arg->flags & WEIR_SECRET)) || (!f->places && from_outside(w)))
                value = WRITER_MASK;
        else if (arg && arg->type == WEIR_T_TEMPLATE)
                value = word_template(a, w, pair ? w->value : 0, NULL);
        buf_puts(d->out, STR(" "));
        if (pair)
                buf_puts(d->out, str_head(w->text, w->value));
        writer_text(d, value);
}

static void put_tree(struct writer *d, struct arena *a, const struct function_conf *f,
                     const struct tree *t, size_t first)
{
        for (size_t i = first; i < t->n_words; i++)
                put_argument(d, a, f, &t->words[i]);
        if (!t->has_block) {
                writer_end(d);
                return;
        }
        writer_open(d);
        for (size_t i = 0; i < t->n_children; i++) {
                writer_begin(d, "");
                buf_puts(d->out, tree_name(t->child[i]));
                put_tree(d, a, f, t->child[i], 1);
        }
        writer_close(d);
}

static void put_function(struct writer *d, struct arena *a, const struct function_conf *f)
{
        writer_begin(d, "function");
        writer_word(d, f->module);
        put_tree(d, a, f, f->tree, 2);
}

static void put_named(struct writer *d, struct arena *a, const struct conf *c)
{
        for (size_t i = 0; i < c->link->named.n; i++) {
                const struct tree *t = c->link->named.v[i];
                struct function_conf unlinked = {.tree = t}, *f = &unlinked;
                for (size_t k = 0; k < c->n_functions; k++) {
                        if (c->functions[k]->tree == t)
                                f = c->functions[k];
                }
                writer_begin(d, "");
                buf_puts(d->out, tree_name(t));
                put_tree(d, a, f, t, 1);
        }
}

/* ------------------------------------------------------------------ blocks */

static void put_tls(struct writer *d, unsigned context, const void *object)
{
        writer_begin(d, "tls");
        writer_keys(d, context, "tls", object);
        writer_end(d);
}

static void put_redis(struct writer *d, const struct redis_store_conf *r)
{
        char text[ADDR_TEXT];

        writer_begin(d, "redis");
        writer_word(d, r->name);
        writer_open(d);
        writer_begin(d, "server");
        if (r->addr.len) {
                (void)addr_print(&r->addr, text);
                writer_word(d, str_z(text));
        } else {
                buf_printf(d->out, " %.*s:%u", STR_ARG(r->host), r->port);
        }
        writer_end(d);
        writer_values(d, REDIS, r);
        writer_begin(d, "timeout");
        writer_keys(d, REDIS, "timeout", r);
        writer_end(d);
        if (r->tls)
                put_tls(d, REDIS, r);
        writer_close(d);
}

static void put_server(struct writer *d, const struct server_conf *s)
{
        writer_begin(d, "server");
        writer_word(d, s->text);
        if (s->backup)
                writer_word(d, STR("backup"));
        writer_keys(d, UPSTREAM, "server", s);
        writer_end(d);
}

static void put_balance(struct writer *d, const struct upstream_conf *u)
{
        static const char *const names[] = {"round_robin", "least_conn", "random",
                                            "p2c",         "least_time", "hash"};

        writer_begin(d, "balance");
        writer_word(d, str_z(names[u->balance]));
        if (u->hash)
                writer_word(d, u->hash->source);
        writer_end(d);
}

static void put_proxy(struct writer *d, const struct upstream_conf *u)
{
        static const char *const names[] = {"authority", "alpn", "unique_id", "ssl"};
        const char *before = " tlvs=";

        writer_begin(d, "proxy_protocol");
        writer_word(d,
                    u->proxy_version ? u->proxy_version == 1 ? STR("v1") : STR("v2") : STR("off"));
        for (unsigned i = 0; i < COUNT(names); i++) {
                if (!(u->proxy_tlvs & 1u << i))
                        continue;
                buf_printf(d->out, "%s%s", before, names[i]);
                before = ",";
        }
        writer_end(d);
}

static void put_upstream(struct writer *d, const struct upstream_conf *u)
{
        static const char *const protocols[] = {"http/1.1", "h2c", "h2"};

        writer_begin(d, "upstream");
        writer_word(d, u->name);
        writer_open(d);
        put_balance(d, u);
        for (size_t i = 0; i < u->n_servers; i++)
                put_server(d, &u->servers[i]);
        writer_values(d, UPSTREAM, u);
        if (u->check_interval) {
                writer_begin(d, "health_check");
                if (u->check_grpc)
                        writer_word(d, STR("grpc"));
                writer_keys(d, UPSTREAM, "health_check", u);
                if (!u->check_grpc)
                        buf_printf(d->out, " expect=%u-%u", u->expect_min, u->expect_max);
                writer_end(d);
        }
        writer_begin(d, "eject");
        if (u->eject_failures)
                writer_keys(d, UPSTREAM, "eject", u);
        else
                writer_word(d, STR("off"));
        writer_end(d);
        writer_begin(d, "protocol");
        writer_word(d, str_z(protocols[u->protocol]));
        writer_end(d);
        put_proxy(d, u);
        if (u->tls)
                put_tls(d, UPSTREAM, u);
        if (u->sticky_cookie.p) {
                writer_begin(d, "sticky");
                writer_keys(d, UPSTREAM, "sticky", u);
                writer_end(d);
        }
        writer_settings(d, UPSTREAM, &u->own);
        writer_close(d);
}

/* Of a host only what was written; a listener has all of it. */
static void put_tls_parameters(struct writer *d, unsigned context, const struct listen_conf *l)
{
        static const char *const modes[] = {"off", "optional", "required"};

        for (size_t i = 0; i < l->n_certs; i++) {
                writer_begin(d, "certificate");
                writer_word(d, l->certs[i].cert.file);
                writer_pair(d, "key", l->certs[i].key.file);
                if (l->certs[i].ocsp == LISTEN_OCSP_FETCH)
                        writer_pair(d, "ocsp", STR("fetch"));
                else if (l->certs[i].ocsp == LISTEN_OCSP_FILE)
                        writer_pair(d, "ocsp", l->certs[i].ocsp_file.file);
                writer_end(d);
        }
        writer_words(d, "protocols", l->protocols, l->n_protocols);
        if (l->version_min) {
                writer_begin(d, "versions");
                buf_printf(d->out, " %d.%d %d.%d", l->version_min / 10, l->version_min % 10,
                           l->version_max / 10, l->version_max % 10);
                writer_end(d);
        }
        if (l->ciphers.p)
                writer_line(d, "ciphers", l->ciphers);
        if (context == HOST_TLS && !l->client_written)
                return;
        writer_begin(d, "client_certificate");
        writer_word(d, str_z(modes[l->client_certificate]));
        if (l->client_certificate)
                writer_keys(d, context, "client_certificate", l);
        writer_end(d);
}

static void put_host_tls(struct writer *d, const struct host_conf *h)
{
        if (!h->tls)
                return;
        writer_begin(d, "tls");
        writer_open(d);
        put_tls_parameters(d, HOST_TLS, h->tls);
        writer_close(d);
}

static void put_listen_tls(struct writer *d, const struct listen_conf *l)
{
        put_tls_parameters(d, LISTEN, l);
        writer_begin(d, "early_data");
        writer_word(d, l->early_data ? STR("on") : STR("off"));
        if (l->early_data)
                writer_keys(d, LISTEN, "early_data", l);
        writer_end(d);
        writer_line(d, "kernel_tls", l->kernel_tls ? STR("on") : STR("off"));
}

static void put_listen(struct writer *d, const struct listen_conf *l)
{
        writer_begin(d, "listen");
        writer_word(d, l->text);
        buf_printf(d->out, "%s%s", l->tls ? " tls" : "",
                   l->proxy_protocol ? " proxy_protocol" : "");
        writer_keys(d, TOP, "listen", l);
        writer_open(d);
        writer_words(d, "hosts", l->hosts, l->n_hosts);
        if (l->tls)
                put_listen_tls(d, l);
        else
                writer_words(d, "protocols", l->protocols, l->n_protocols);
        writer_begin(d, "http2");
        writer_keys(d, LISTEN, "http2", l);
        writer_end(d);
        writer_settings(d, LISTEN, &l->own);
        writer_close(d);
}

/* ------------------------------------------------------------------ hosts */

static void put_nets(struct writer *d, const struct cidr *v, size_t n)
{
        char text[INET6_ADDRSTRLEN];

        for (size_t i = 0; i < n; i++) {
                bool v4 =
                        v[i].bits >= 96 && memcmp(v[i].ip, "\0\0\0\0\0\0\0\0\0\0\xff\xff", 12) == 0;
                if (inet_ntop(v4 ? AF_INET : AF_INET6, v[i].ip + (v4 ? 12 : 0), text, sizeof text))
                        buf_printf(d->out, " %s/%u", text, v[i].bits - (v4 ? 96u : 0u));
        }
}

static void put_when(struct writer *d, const struct when *w)
{
        static const char *const kinds[] = {"method", "header", "query", "client"};

        writer_begin(d, "when");
        writer_word(d, str_z(kinds[w->kind]));
        for (size_t i = 0; i < w->n_methods; i++)
                writer_word(d, w->methods[i]);
        put_nets(d, w->nets, w->n_nets);
        if (w->kind == WHEN_HEADER || w->kind == WHEN_QUERY)
                writer_word(d, w->name);
        if (w->op != WHEN_PRESENT) {
                buf_puts(d->out, w->op == WHEN_EQUAL ? STR(" =")
                                 : w->icase          ? STR(" ~*")
                                                     : STR(" ~"));
                writer_word(d, w->value);
        }
        writer_end(d);
}

static void put_action(struct writer *d, const struct route_conf *r)
{
        for (size_t i = 0; i < r->n_targets; i++) {
                const struct proxy_target *t = &r->targets[i];
                writer_begin(d, "proxy");
                writer_word(d, t->upstream->name);
                writer_keys(d, ROUTE, "proxy", t);
                if (t->host)
                        writer_pair(d, "host", t->host->source);
                writer_end(d);
        }
        if (r->action != ACTION_RESPOND && r->action != ACTION_REDIRECT)
                return;
        writer_begin(d, r->action == ACTION_RESPOND ? "respond" : "redirect");
        buf_printf(d->out, " %d", r->status);
        if (r->body)
                writer_word(d, r->body->source);
        writer_end(d);
}

static void put_route(struct writer *d, struct arena *a, const struct route_conf *r)
{
        writer_begin(d, "route");
        if (r->kind == ROUTE_EXACT)
                buf_puts(d->out, STR(" ="));
        else if (r->kind == ROUTE_REGEX)
                buf_puts(d->out, r->icase ? STR(" ~*") : STR(" ~"));
        writer_word(d, r->pattern);
        writer_open(d);
        for (size_t i = 0; i < r->n_whens; i++)
                put_when(d, &r->whens[i]);
        for (size_t i = r->host->n_functions; i < r->n_functions; i++)
                put_function(d, a, r->functions[i]);
        if (r->rewrite)
                writer_line(d, "rewrite", r->rewrite->source);
        put_action(d, r);
        writer_settings(d, ROUTE, &r->own);
        writer_close(d);
}

static void put_host(struct writer *d, struct arena *a, const struct host_conf *h)
{
        writer_begin(d, "host");
        for (size_t i = 0; i < h->n_names; i++)
                writer_word(d, h->names[i]);
        writer_open(d);
        put_host_tls(d, h);
        for (size_t i = 0; i < h->n_functions; i++)
                put_function(d, a, h->functions[i]);
        writer_settings(d, HOST, &h->own);
        for (size_t i = 0; i < h->n_routes; i++)
                put_route(d, a, &h->routes[i]);
        writer_close(d);
}

/* ------------------------------------------------------------------ top */

static void put_formats(struct writer *d, const struct conf *c)
{
        for (size_t i = 0; i < c->n_access_logs; i++) {
                const struct access_log_conf *l = &c->access_logs[i];
                bool again = false;
                for (size_t k = 0; k < i; k++)
                        again = again || c->access_logs[k].format == l->format;
                if (!l->format || again)
                        continue;
                writer_begin(d, "log_format");
                writer_word(d, l->format_name);
                writer_word(d, l->format->source);
                writer_end(d);
        }
}

static void put_tickets(struct writer *d, const struct conf *c)
{
        char text[VALUE_TEXT];

        writer_begin(d, "ticket_keys");
        if (c->ticket_file.file.p) {
                writer_word(d, c->ticket_file.file);
                writer_pair(d, "check", value_time_text(c->ticket_check, text));
        } else {
                if (c->ticket_redis.p) {
                        writer_pair(d, "redis", c->ticket_redis);
                        writer_pair(d, "prefix", c->ticket_prefix);
                }
                writer_pair(d, "rotate", value_time_text(c->ticket_rotate, text));
        }
        writer_end(d);
}

static void put_top(struct writer *d, struct arena *a, const struct conf *c)
{
        static const char *const levels[] = {"error", "warn", "info", "debug"};
        str control[] = {STR("unix:"), c->control};

        writer_values(d, TOP, c);
        if (c->user.p) {
                writer_begin(d, "user");
                writer_word(d, c->user);
                if (c->group.p)
                        writer_word(d, c->group);
                writer_end(d);
        }
        writer_begin(d, "error_log");
        writer_word(d, c->error_log);
        buf_printf(d->out, " level=%s;\n", levels[c->log_level]);
        writer_line(d, "control", arena_cat(a, control, 2));
        if (c->has_admin)
                writer_line(d, "admin", c->admin_text);
        if (c->n_trusted) {
                writer_begin(d, "trusted_proxies");
                put_nets(d, c->trusted, c->n_trusted);
                writer_end(d);
        }
        put_tickets(d, c);
        writer_words(d, "resolver", c->resolvers, c->n_resolvers);
        writer_begin(d, "ocsp_fetch");
        writer_keys(d, TOP, "ocsp_fetch", c);
        writer_end(d);
        for (size_t i = 0; i < c->n_modules; i++) {
                writer_begin(d, "module");
                writer_word(d, c->modules[i].name);
                writer_word(d, c->modules[i].path);
                writer_end(d);
        }
        put_formats(d, c);
        writer_settings(d, TOP, &c->eff);
}

void conf_dump(const struct conf *c, struct buf *out)
{
        struct writer d = {.out = out};
        struct arena *a = arena_new(0);

        put_top(&d, a, c);
        for (size_t i = 0; i < c->n_redises; i++)
                put_redis(&d, &c->redises[i]);
        put_named(&d, a, c);
        for (size_t i = 0; i < c->n_upstreams; i++)
                put_upstream(&d, &c->upstreams[i]);
        for (size_t i = 0; i < c->n_listens; i++)
                put_listen(&d, &c->listens[i]);
        for (size_t i = 0; i < c->n_hosts; i++)
                put_host(&d, a, &c->hosts[i]);
        arena_free(a);
}
