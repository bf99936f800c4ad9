/*
 * The effective configuration as text.
 *
 * The difficulty: it must read back to the same, whatever words hold.  So every word passes through
 * one function that quotes it, templates are printed as their compiled source, and a word that only
 * looks like name=value is quoted too.  Of functions the words are known, and by their places
 * which argument each became.
 */
#include "conf/argument.h"
#include "conf/compile.h"
#include "conf/value.h"

#include <arpa/inet.h>

struct dump {
        struct buf *out;
        unsigned depth;
};

#define MASK STR("********")

/* ------------------------------------------------------------------ words */

static bool bare_byte(char c)
{
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               (c && strchr("_./:*@,+-%$^|~!?&>[]()", c));
}

static bool is_bare(str s)
{
        for (size_t i = 0; i < s.n; i++) {
                if (!bare_byte(s.p[i]))
                        return false;
        }
        return s.n > 0;
}

static void put_text(struct dump *d, str s)
{
        bool dollar = str_find(s, STR("${env:")) >= 0 || str_find(s, STR("${file:")) >= 0;

        if (is_bare(s)) {
                buf_puts(d->out, s);
                return;
        }
        if (dollar && str_chr(s, '\'') < 0) {
                buf_printf(d->out, "'");
                buf_puts(d->out, s);
                buf_printf(d->out, "'");
                return;
        }
        buf_printf(d->out, "\"");
        for (size_t i = 0; i < s.n; i++) {
                char c = s.p[i];
                if (c == '"' || c == '\\')
                        buf_put(d->out, "\\", 1);
                if (c == '\n')
                        buf_puts(d->out, STR("\\n"));
                else if (c == '\r')
                        buf_puts(d->out, STR("\\r"));
                else
                        buf_put(d->out, &c, 1);
        }
        buf_printf(d->out, "\"");
}

static void put_word(struct dump *d, str s)
{
        buf_puts(d->out, STR(" "));
        put_text(d, s);
}

static void put_pair(struct dump *d, const char *key, str s)
{
        buf_printf(d->out, " %s=", key);
        put_text(d, s);
}

static void begin(struct dump *d, const char *name)
{
        buf_printf(d->out, "%*s%s", (int)d->depth * 4, "", name);
}

static void end(struct dump *d)
{
        buf_puts(d->out, STR(";\n"));
}

static void open_block(struct dump *d)
{
        buf_puts(d->out, STR(" {\n"));
        d->depth++;
}

static void close_block(struct dump *d)
{
        d->depth--;
        buf_printf(d->out, "%*s}\n", (int)d->depth * 4, "");
}

static void line(struct dump *d, const char *name, str word)
{
        begin(d, name);
        put_word(d, word);
        end(d);
}

/* ------------------------------------------------------------------ values of the table */

static uint64_t integer_of(const struct value_row *row, const void *p)
{
        uint32_t small;
        uint64_t v;

        if (row->size == sizeof small) {
                memcpy(&small, p, sizeof small);
                return small;
        }
        memcpy(&v, p, sizeof v);
        return v;
}

static void put_causes(struct dump *d, uint32_t bits)
{
        const char *comma = "";

        for (size_t i = 0; i < COMPILE_CAUSES; i++) {
                if (!(bits & (1u << i)))
                        continue;
                buf_printf(d->out, "%s%s", comma, compile_causes[i]);
                comma = ",";
        }
}

static void put_value(struct dump *d, const struct value_row *row, const void *base)
{
        const char *p = (const char *)base + row->offset;
        char text[VALUE_TEXT];
        uint64_t v;

        switch (row->type) {
        case TYPE_TIME:
        case TYPE_SIZE:
        case TYPE_COUNT:
                v = integer_of(row, p);
                if (v == 0 && (row->flags & (OFF | AUTO)))
                        put_text(d, (row->flags & AUTO) ? STR("auto") : STR("off"));
                else if (row->type == TYPE_TIME)
                        put_text(d, value_time_text((int64_t)v, text));
                else if (row->type == TYPE_SIZE)
                        put_text(d, value_size_text(v, text));
                else
                        put_text(d, str_of(text, str_put_u64(text, v)));
                break;
        case TYPE_BOOL:
                put_text(d, *(const bool *)p ? STR("on") : STR("off"));
                break;
        case TYPE_SHARE:
                buf_printf(d->out, "%.10g%%", *(const double *)(const void *)p * 100);
                break;
        case TYPE_WORD:
        case TYPE_PATH:
                put_text(d, (row->flags & SECRET) ? MASK : *(const str *)(const void *)p);
                break;
        case TYPE_FILE:
                put_text(d, ((const struct file_text *)(const void *)p)->file);
                break;
        case TYPE_CAUSES:
                put_causes(d, *(const uint32_t *)(const void *)p);
                break;
        case TYPE_NONE:
                break;
        }
}

/* A string that was not given. */
static bool is_absent(const struct value_row *row, const void *base)
{
        const char *p = (const char *)base + row->offset;

        if (row->type == TYPE_FILE)
                return !((const struct file_text *)(const void *)p)->file.p;
        return (row->type == TYPE_WORD || row->type == TYPE_PATH) &&
               !((const str *)(const void *)p)->p;
}

static void put_values(struct dump *d, unsigned context, const void *object)
{
        for (size_t i = 0; i < directives_n; i++) {
                const struct directive *row = &directives[i];
                if (!(row->contexts & context) || row->value.size == 0 || row->value.bit >= 0 ||
                    is_absent(&row->value, object))
                        continue;
                begin(d, row->name);
                buf_puts(d->out, STR(" "));
                put_value(d, &row->value, object);
                end(d);
        }
}

/* The keys of a directive that have a place in object. */
static void put_keys(struct dump *d, unsigned context, const char *directive, const void *object)
{
        for (size_t i = 0; i < directive_keys_n; i++) {
                const struct directive_key *k = &directive_keys[i];
                if (!(k->contexts & context) || strcmp(k->directive, directive) != 0 ||
                    k->value.size == 0 || k->value.bit >= 0 || is_absent(&k->value, object))
                        continue;
                buf_printf(d->out, " %s=", k->name);
                put_value(d, &k->value, object);
        }
}

/* ------------------------------------------------------------------ settings */

static void put_setting_keys(struct dump *d, unsigned context, const struct directive *row,
                             const struct settings *s)
{
        bool any = false;

        for (size_t i = 0; i < directive_keys_n; i++) {
                const struct directive_key *k = &directive_keys[i];
                if (k->value.bit < 0 || !(k->contexts & context) ||
                    strcmp(k->directive, row->name) != 0 ||
                    !(s->set & (UINT64_C(1) << k->value.bit)))
                        continue;
                if (!any)
                        begin(d, row->name);
                any = true;
                buf_printf(d->out, " %s=", k->name);
                put_value(d, &k->value, s);
        }
        if (any)
                end(d);
}

static void put_pages(struct dump *d, const struct settings *s)
{
        for (size_t i = 0; i < s->n_error_pages; i++) {
                const struct error_page *p = &s->error_pages[i];
                begin(d, "error_page");
                buf_printf(d->out, " %u", p->status);
                put_pair(d, p->file.p ? "file" : "text", p->file.p ? p->file : p->body);
                end(d);
        }
}

static void put_settings(struct dump *d, unsigned context, const struct settings *s)
{
        for (size_t i = 0; i < directives_n; i++) {
                const struct directive *row = &directives[i];
                if (!(row->contexts & context))
                        continue;
                if (row->value.bit < 0) {
                        put_setting_keys(d, context, row, s);
                } else if (s->set & (UINT64_C(1) << row->value.bit)) {
                        begin(d, row->name);
                        buf_puts(d->out, STR(" "));
                        put_value(d, &row->value, s);
                        end(d);
                }
        }
        if (s->set & (UINT64_C(1) << SET_ACCESS_LOG)) {
                begin(d, "access_log");
                put_word(d, s->access_log ? s->access_log->path : STR("off"));
                if (s->access_log)
                        put_pair(d, "format", s->access_log->format_name);
                end(d);
        }
        put_pages(d, s);
}

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

static void put_argument(struct dump *d, struct arena *a, const struct function_conf *f,
                         const struct word *w)
{
        bool pair = w->value && !w->quoted;
        const weir_arg *arg = arg_of(f, w);
        str value = str_from(w->text, pair ? w->value : 0);

        if ((arg && (arg->flags & WEIR_SECRET)) || (!f->places && from_outside(w)))
                value = MASK;
        else if (arg && arg->type == WEIR_T_TEMPLATE)
                value = word_template(a, w, pair ? w->value : 0, NULL);
        buf_puts(d->out, STR(" "));
        if (pair)
                buf_puts(d->out, str_head(w->text, w->value));
        put_text(d, value);
}

static void put_tree(struct dump *d, struct arena *a, const struct function_conf *f,
                     const struct tree *t, size_t first)
{
        for (size_t i = first; i < t->n_words; i++)
                put_argument(d, a, f, &t->words[i]);
        if (!t->has_block) {
                end(d);
                return;
        }
        open_block(d);
        for (size_t i = 0; i < t->n_children; i++) {
                begin(d, "");
                buf_puts(d->out, tree_name(t->child[i]));
                put_tree(d, a, f, t->child[i], 1);
        }
        close_block(d);
}

static void put_function(struct dump *d, struct arena *a, const struct function_conf *f)
{
        begin(d, "function");
        put_word(d, f->module);
        put_tree(d, a, f, f->tree, 2);
}

static void put_named(struct dump *d, struct arena *a, const struct conf *c)
{
        for (size_t i = 0; i < c->link->named.n; i++) {
                const struct tree *t = c->link->named.v[i];
                struct function_conf unlinked = {.tree = t}, *f = &unlinked;
                for (size_t k = 0; k < c->n_functions; k++) {
                        if (c->functions[k]->tree == t)
                                f = c->functions[k];
                }
                begin(d, "");
                buf_puts(d->out, tree_name(t));
                put_tree(d, a, f, t, 1);
        }
}

/* ------------------------------------------------------------------ blocks */

static void put_tls(struct dump *d, unsigned context, const void *object)
{
        begin(d, "tls");
        put_keys(d, context, "tls", object);
        end(d);
}

static void put_redis(struct dump *d, const struct redis_store_conf *r)
{
        char text[ADDR_TEXT];

        begin(d, "redis");
        put_word(d, r->name);
        open_block(d);
        begin(d, "server");
        if (r->addr.len) {
                (void)addr_print(&r->addr, text);
                put_word(d, str_z(text));
        } else {
                buf_printf(d->out, " %.*s:%u", STR_ARG(r->host), r->port);
        }
        end(d);
        put_values(d, REDIS, r);
        begin(d, "timeout");
        put_keys(d, REDIS, "timeout", r);
        end(d);
        if (r->tls)
                put_tls(d, REDIS, r);
        close_block(d);
}

static void put_server(struct dump *d, const struct server_conf *s)
{
        begin(d, "server");
        put_word(d, s->text);
        if (s->backup)
                put_word(d, STR("backup"));
        put_keys(d, UPSTREAM, "server", s);
        end(d);
}

static void put_balance(struct dump *d, const struct upstream_conf *u)
{
        static const char *const names[] = {"round_robin", "least_conn", "random",
                                            "p2c",         "least_time", "hash"};

        begin(d, "balance");
        put_word(d, str_z(names[u->balance]));
        if (u->hash)
                put_word(d, u->hash->source);
        end(d);
}

static void put_proxy(struct dump *d, const struct upstream_conf *u)
{
        static const char *const names[] = {"authority", "alpn", "unique_id", "ssl"};
        const char *before = " tlvs=";

        begin(d, "proxy_protocol");
        put_word(d, u->proxy_version ? u->proxy_version == 1 ? STR("v1") : STR("v2") : STR("off"));
        for (unsigned i = 0; i < COUNT(names); i++) {
                if (!(u->proxy_tlvs & 1u << i))
                        continue;
                buf_printf(d->out, "%s%s", before, names[i]);
                before = ",";
        }
        end(d);
}

static void put_upstream(struct dump *d, const struct upstream_conf *u)
{
        static const char *const protocols[] = {"http/1.1", "h2c", "h2"};

        begin(d, "upstream");
        put_word(d, u->name);
        open_block(d);
        put_balance(d, u);
        for (size_t i = 0; i < u->n_servers; i++)
                put_server(d, &u->servers[i]);
        put_values(d, UPSTREAM, u);
        if (u->check_interval) {
                begin(d, "health_check");
                if (u->check_grpc)
                        put_word(d, STR("grpc"));
                put_keys(d, UPSTREAM, "health_check", u);
                if (!u->check_grpc)
                        buf_printf(d->out, " expect=%u-%u", u->expect_min, u->expect_max);
                end(d);
        }
        begin(d, "eject");
        if (u->eject_failures)
                put_keys(d, UPSTREAM, "eject", u);
        else
                put_word(d, STR("off"));
        end(d);
        begin(d, "protocol");
        put_word(d, str_z(protocols[u->protocol]));
        end(d);
        put_proxy(d, u);
        if (u->tls)
                put_tls(d, UPSTREAM, u);
        if (u->sticky_cookie.p) {
                begin(d, "sticky");
                put_keys(d, UPSTREAM, "sticky", u);
                end(d);
        }
        put_settings(d, UPSTREAM, &u->own);
        close_block(d);
}

static void put_words(struct dump *d, const char *name, const str *v, size_t n)
{
        if (n == 0)
                return;
        begin(d, name);
        for (size_t i = 0; i < n; i++)
                put_word(d, v[i]);
        end(d);
}

/* Of a host only what was written; a listener has all of it. */
static void put_tls_parameters(struct dump *d, unsigned context, const struct listen_conf *l)
{
        static const char *const modes[] = {"off", "optional", "required"};

        for (size_t i = 0; i < l->n_certs; i++) {
                begin(d, "certificate");
                put_word(d, l->certs[i].cert.file);
                put_pair(d, "key", l->certs[i].key.file);
                if (l->certs[i].ocsp == LISTEN_OCSP_FETCH)
                        put_pair(d, "ocsp", STR("fetch"));
                else if (l->certs[i].ocsp == LISTEN_OCSP_FILE)
                        put_pair(d, "ocsp", l->certs[i].ocsp_file.file);
                end(d);
        }
        put_words(d, "protocols", l->protocols, l->n_protocols);
        if (l->version_min) {
                begin(d, "versions");
                buf_printf(d->out, " %d.%d %d.%d", l->version_min / 10, l->version_min % 10,
                           l->version_max / 10, l->version_max % 10);
                end(d);
        }
        if (l->ciphers.p)
                line(d, "ciphers", l->ciphers);
        if (context == HOST_TLS && !l->client_written)
                return;
        begin(d, "client_certificate");
        put_word(d, str_z(modes[l->client_certificate]));
        if (l->client_certificate)
                put_keys(d, context, "client_certificate", l);
        end(d);
}

static void put_host_tls(struct dump *d, const struct host_conf *h)
{
        if (!h->tls)
                return;
        begin(d, "tls");
        open_block(d);
        put_tls_parameters(d, HOST_TLS, h->tls);
        close_block(d);
}

static void put_listen_tls(struct dump *d, const struct listen_conf *l)
{
        put_tls_parameters(d, LISTEN, l);
        begin(d, "early_data");
        put_word(d, l->early_data ? STR("on") : STR("off"));
        if (l->early_data)
                put_keys(d, LISTEN, "early_data", l);
        end(d);
}

static void put_listen(struct dump *d, const struct listen_conf *l)
{
        begin(d, "listen");
        put_word(d, l->text);
        buf_printf(d->out, "%s%s", l->tls ? " tls" : "",
                   l->proxy_protocol ? " proxy_protocol" : "");
        put_keys(d, TOP, "listen", l);
        open_block(d);
        put_words(d, "hosts", l->hosts, l->n_hosts);
        if (l->tls)
                put_listen_tls(d, l);
        else
                put_words(d, "protocols", l->protocols, l->n_protocols);
        begin(d, "http2");
        put_keys(d, LISTEN, "http2", l);
        end(d);
        put_settings(d, LISTEN, &l->own);
        close_block(d);
}

/* ------------------------------------------------------------------ hosts */

static void put_nets(struct dump *d, const struct cidr *v, size_t n)
{
        char text[INET6_ADDRSTRLEN];

        for (size_t i = 0; i < n; i++) {
                bool v4 =
                        v[i].bits >= 96 && memcmp(v[i].ip, "\0\0\0\0\0\0\0\0\0\0\xff\xff", 12) == 0;
                if (inet_ntop(v4 ? AF_INET : AF_INET6, v[i].ip + (v4 ? 12 : 0), text, sizeof text))
                        buf_printf(d->out, " %s/%u", text, v[i].bits - (v4 ? 96u : 0u));
        }
}

static void put_when(struct dump *d, const struct when *w)
{
        static const char *const kinds[] = {"method", "header", "query", "client"};

        begin(d, "when");
        put_word(d, str_z(kinds[w->kind]));
        for (size_t i = 0; i < w->n_methods; i++)
                put_word(d, w->methods[i]);
        put_nets(d, w->nets, w->n_nets);
        if (w->kind == WHEN_HEADER || w->kind == WHEN_QUERY)
                put_word(d, w->name);
        if (w->op != WHEN_PRESENT) {
                buf_puts(d->out, w->op == WHEN_EQUAL ? STR(" =")
                                 : w->icase          ? STR(" ~*")
                                                     : STR(" ~"));
                put_word(d, w->value);
        }
        end(d);
}

static void put_action(struct dump *d, const struct route_conf *r)
{
        for (size_t i = 0; i < r->n_targets; i++) {
                const struct proxy_target *t = &r->targets[i];
                begin(d, "proxy");
                put_word(d, t->upstream->name);
                put_keys(d, ROUTE, "proxy", t);
                if (t->host)
                        put_pair(d, "host", t->host->source);
                end(d);
        }
        if (r->action != ACTION_RESPOND && r->action != ACTION_REDIRECT)
                return;
        begin(d, r->action == ACTION_RESPOND ? "respond" : "redirect");
        buf_printf(d->out, " %d", r->status);
        if (r->body)
                put_word(d, r->body->source);
        end(d);
}

static void put_route(struct dump *d, struct arena *a, const struct route_conf *r)
{
        begin(d, "route");
        if (r->kind == ROUTE_EXACT)
                buf_puts(d->out, STR(" ="));
        else if (r->kind == ROUTE_REGEX)
                buf_puts(d->out, r->icase ? STR(" ~*") : STR(" ~"));
        put_word(d, r->pattern);
        open_block(d);
        for (size_t i = 0; i < r->n_whens; i++)
                put_when(d, &r->whens[i]);
        for (size_t i = r->host->n_functions; i < r->n_functions; i++)
                put_function(d, a, r->functions[i]);
        if (r->rewrite)
                line(d, "rewrite", r->rewrite->source);
        put_action(d, r);
        put_settings(d, ROUTE, &r->own);
        close_block(d);
}

static void put_host(struct dump *d, struct arena *a, const struct host_conf *h)
{
        begin(d, "host");
        for (size_t i = 0; i < h->n_names; i++)
                put_word(d, h->names[i]);
        open_block(d);
        put_host_tls(d, h);
        for (size_t i = 0; i < h->n_functions; i++)
                put_function(d, a, h->functions[i]);
        put_settings(d, HOST, &h->own);
        for (size_t i = 0; i < h->n_routes; i++)
                put_route(d, a, &h->routes[i]);
        close_block(d);
}

/* ------------------------------------------------------------------ top */

static void put_formats(struct dump *d, const struct conf *c)
{
        for (size_t i = 0; i < c->n_access_logs; i++) {
                const struct access_log_conf *l = &c->access_logs[i];
                bool again = false;
                for (size_t k = 0; k < i; k++)
                        again = again || c->access_logs[k].format == l->format;
                if (!l->format || again)
                        continue;
                begin(d, "log_format");
                put_word(d, l->format_name);
                put_word(d, l->format->source);
                end(d);
        }
}

static void put_tickets(struct dump *d, const struct conf *c)
{
        char text[VALUE_TEXT];

        begin(d, "ticket_keys");
        if (c->ticket_file.file.p) {
                put_word(d, c->ticket_file.file);
                put_pair(d, "check", value_time_text(c->ticket_check, text));
        } else {
                if (c->ticket_redis.p) {
                        put_pair(d, "redis", c->ticket_redis);
                        put_pair(d, "prefix", c->ticket_prefix);
                }
                put_pair(d, "rotate", value_time_text(c->ticket_rotate, text));
        }
        end(d);
}

static void put_top(struct dump *d, struct arena *a, const struct conf *c)
{
        static const char *const levels[] = {"error", "warn", "info", "debug"};
        str control[] = {STR("unix:"), c->control};

        put_values(d, TOP, c);
        if (c->user.p) {
                begin(d, "user");
                put_word(d, c->user);
                if (c->group.p)
                        put_word(d, c->group);
                end(d);
        }
        begin(d, "error_log");
        put_word(d, c->error_log);
        buf_printf(d->out, " level=%s;\n", levels[c->log_level]);
        line(d, "control", arena_cat(a, control, 2));
        if (c->has_admin)
                line(d, "admin", c->admin_text);
        if (c->n_trusted) {
                begin(d, "trusted_proxies");
                put_nets(d, c->trusted, c->n_trusted);
                end(d);
        }
        put_tickets(d, c);
        put_words(d, "resolver", c->resolvers, c->n_resolvers);
        begin(d, "ocsp_fetch");
        put_keys(d, TOP, "ocsp_fetch", c);
        end(d);
        for (size_t i = 0; i < c->n_modules; i++) {
                begin(d, "module");
                put_word(d, c->modules[i].name);
                put_word(d, c->modules[i].path);
                end(d);
        }
        put_formats(d, c);
        put_settings(d, TOP, &c->eff);
}

void conf_dump(const struct conf *c, struct buf *out)
{
        struct dump d = {.out = out};
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
