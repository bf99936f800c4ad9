/*
 * Values of variables for one request, and the conditions of routes.
 *
 * The difficulty: a value is asked for at any moment, so each one is derived from txn and the
 * messages on demand; nothing is computed for requests that never ask.
 */
#include "proxy/vars.h"

#include "http/path.h"
#include "net/tls.h"
#include "proxy/vars_proxy.h"

#include <stdio.h>
#include <time.h>

static const struct {
        str name;
        enum variable id;
} names[] = {
#define VARIABLE(id, name, when, help) {STR_INIT(name), VAR_##id},
#include "conf/variable.tbl"
#undef VARIABLE
};

static str number(struct txn *t, uint64_t v)
{
        char buf[20];
        return arena_dup(t->r->arena, str_of(buf, str_put_u64(buf, v)));
}

static str field_value(struct txn *t, const struct fields *fs, str name)
{
        struct field *first = fields_find(fs, name);
        if (first == NULL)
                return STR_NONE;
        str parts[2] = {first->value, STR_NONE};
        FIELDS_EACH(f, fs)
        {
                if (f <= first || !str_ieq(f->name, name))
                        continue;
                parts[1] = f->value;
                parts[0] = arena_cat(t->r->arena, (str[]){parts[0], STR(", "), parts[1]}, 3);
        }
        return parts[0];
}

static str cookie(struct txn *t, str name)
{
        FIELDS_EACH(f, &t->r->req.fields)
        {
                if (f->id != FIELD_COOKIE)
                        continue;
                str rest = f->value, pair, key, value;
                while (rest.p != NULL) {
                        str_cut(rest, ';', &pair, &rest);
                        if (str_cut(str_trim(pair), '=', &key, &value) && str_eq(key, name))
                                return value;
                }
        }
        return STR_NONE;
}

static str capture(struct txn *t, unsigned group)
{
        const struct regex_captures *c = &t->match.caps;
        if (group >= c->n || c->g[group].so < 0)
                return STR_NONE;
        return str_of(t->path.norm.p + c->g[group].so, (size_t)(c->g[group].eo - c->g[group].so));
}

static str module_variable(struct txn *t, str name)
{
        for (struct txn_var *v = t->vars; v != NULL; v = v->next)
                if (str_eq(v->name, name))
                        return v->value;
        return STR_NONE;
}

static str iso8601(struct txn *t)
{
        time_t sec = (time_t)(t->r->loop->wall / SEC);
        struct tm tm;
        gmtime_r(&sec, &tm);
        return arena_printf(t->r->arena, "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ", tm.tm_year + 1900,
                            tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec,
                            (int)(t->r->loop->wall / MSEC % 1000));
}

static const struct tls_facts *facts_tls(struct txn *t)
{
        static const struct tls_facts none;
        return t->tls != NULL ? t->tls : &none;
}

static str port(struct txn *t)
{
        uint16_t p = t->port;
        if (p == 0 && t->listen != NULL)
                p = addr_port(&t->listen->addr);
        if (p == 0) /* the listener was removed, or is a path: the scheme's own */
                p = str_eq(t->scheme, STR("https")) ? 443 : 80;
        return number(t, p);
}

static str duration(struct txn *t)
{
        int64_t end = t->finished ? t->finished : t->r->loop->now;
        return number(t, (uint64_t)MAX(end - t->r->started, 0) / 1000);
}

static str upstream_name(struct txn *t)
{
        return t->upstream != NULL ? t->upstream->name : STR_NONE;
}

static bool visible(unsigned char c)
{
        return c > 0x20 && c < 0x7f;
}

static bool visible_but_hash(unsigned char c)
{
        return visible(c) && c != '#';
}

str vars_clean_uri(struct arena *a, str uri)
{
        return path_escape(a, uri, visible);
}

/* The route's rewrite; $uri inside it means the target before it, and brings its query along.  A
 * fragment has no place in a request's target, so '#' is encoded too. */
static str rewritten(struct txn *t)
{
        const struct route_conf *route = t->match.route;
        struct arena *a = t->r->arena;
        t->rewriting = true;
        str path = vars_expand(t, route->rewrite);
        t->rewriting = false;
        if (!str_starts(path, STR("/")))
                path = arena_cat(a, (str[]){STR("/"), path}, 2);
        if (!route->rewrite_query && t->path.query.p != NULL && str_chr(path, '?') < 0)
                path = arena_cat(a, (str[]){path, STR("?"), t->path.query}, 3);
        return path_escape(a, path, visible_but_hash);
}

str vars_uri(struct txn *t)
{
        if (t->uri.p != NULL)
                return t->uri;
        if (t->match.route != NULL && t->match.route->rewrite != NULL && !t->rewriting)
                return rewritten(t);
        if (t->path.query.p == NULL)
                return t->path.sent;
        /* The common case: nothing was taken out, so the target is the answer as it stands. */
        if (t->path.sent.p == t->r->req.target.p)
                return t->r->req.target;
        return arena_cat(t->r->arena, (str[]){t->path.sent, STR("?"), t->path.query}, 3);
}

str vars_get(struct txn *t, const struct template_op *op)
{
        switch ((enum variable)op->var) {
        case VAR_METHOD:
                return t->method.p ? t->method : t->r->req.method_text;
        case VAR_SCHEME:
                return t->scheme;
        case VAR_HOST:
                return t->host;
        case VAR_PORT:
                return port(t);
        case VAR_URI:
                return vars_uri(t);
        case VAR_PATH:
                return t->path.norm;
        case VAR_PATH_REST:
                return t->match.route ? str_from(t->path.norm, t->match.rest) : STR_NONE;
        case VAR_QUERY:
                return t->path.query;
        case VAR_CLIENT_IP:
                return t->client_ip;
        case VAR_CLIENT_PORT:
                return addr_port(&t->client) ? number(t, addr_port(&t->client)) : STR_NONE;
        case VAR_TLS_VERSION:
                return facts_tls(t)->version;
        case VAR_TLS_CIPHER:
                return facts_tls(t)->cipher;
        case VAR_CLIENT_CERTIFICATE_VERIFIED:
                return facts_tls(t)->client_verified ? STR("yes") : STR_NONE;
        case VAR_TLS_CLIENT_SUBJECT:
        case VAR_CLIENT_CERTIFICATE_SUBJECT:
                return tls_client_text(t->tls, TLS_CLIENT_SUBJECT);
        case VAR_CLIENT_CERTIFICATE_ISSUER:
                return tls_client_text(t->tls, TLS_CLIENT_ISSUER);
        case VAR_CLIENT_CERTIFICATE_SERIAL:
                return tls_client_text(t->tls, TLS_CLIENT_SERIAL);
        case VAR_CLIENT_CERTIFICATE_SAN:
                return tls_client_text(t->tls, TLS_CLIENT_SAN);
        case VAR_CLIENT_CERTIFICATE_FINGERPRINT:
                return tls_client_text(t->tls, TLS_CLIENT_FINGERPRINT);
        case VAR_CLIENT_CERTIFICATE_EXPIRES:
                return tls_client_text(t->tls, TLS_CLIENT_EXPIRES);
        case VAR_TLS_SNI:
                return facts_tls(t)->sni;
        case VAR_TLS_EARLY_DATA:
                return t->tls == NULL ? STR_NONE : t->early ? STR("yes") : STR("no");
        case VAR_PROXY_PROTOCOL_AUTHORITY:
        case VAR_PROXY_PROTOCOL_ALPN:
        case VAR_PROXY_PROTOCOL_UNIQUE_ID:
        case VAR_PROXY_PROTOCOL_SSL_VERSION:
        case VAR_PROXY_PROTOCOL_SSL_CN:
        case VAR_PROXY_PROTOCOL_SSL_VERIFIED:
        case VAR_PROXY_TLV:
                return vars_proxy(t, op);
        case VAR_ROUTE:
                return t->match.route ? t->match.route->label : STR_NONE;
        case VAR_UPSTREAM:
                return upstream_name(t);
        case VAR_SERVER:
                return t->server;
        case VAR_REQUEST_ID:
                return t->request_id;
        case VAR_TIME_ISO8601:
                return iso8601(t);
        case VAR_STATUS:
                return t->r->res.status ? number(t, (uint64_t)t->r->res.status) : STR_NONE;
        case VAR_BYTES_SENT:
                return number(t, t->r->bytes_out);
        case VAR_DURATION_MS:
                return duration(t);
        case VAR_UPSTREAM_DURATION_MS:
                return t->upstream_us >= 0 ? number(t, (uint64_t)t->upstream_us / 1000) : STR_NONE;
        case VAR_ATTEMPTS:
                return number(t, t->attempts);
        case VAR_REASON:
                return t->reason ? str_z(reason_word(t->reason)) : STR_NONE;
        case VAR_ARG:
                return vars_query_arg(t->r->arena, t->path.query, op->text);
        case VAR_HEADER:
                return field_value(t, &t->r->req.fields, op->text);
        case VAR_RESPONSE_HEADER:
                return field_value(t, &t->r->res.fields, op->text);
        case VAR_COOKIE:
                return cookie(t, op->text);
        case VAR_CAPTURE:
                return capture(t, op->group);
        case VAR_MODULE:
                return module_variable(t, op->text);
        }
        return STR_NONE;
}

str vars_lookup(void *ctx, const struct template_op *op)
{
        return vars_get(ctx, op);
}

/* header_x_request_id names the field x-request-id. */
static str dashed(struct txn *t, str name)
{
        char *copy = arena_dupz(t->r->arena, name);
        if (copy == NULL)
                return STR_NONE;
        for (size_t i = 0; i < name.n; i++)
                if (copy[i] == '_')
                        copy[i] = '-';
        return str_of(copy, name.n);
}

static bool family(str name, str prefix, str *rest)
{
        if (name.n <= prefix.n || !str_starts(name, prefix))
                return false;
        *rest = str_from(name, prefix.n);
        return true;
}

str vars_get_name(struct txn *t, str name)
{
        struct template_op op = {.text = name, .var = VAR_MODULE};
        str rest;
        uint64_t group;

        for (size_t i = 0; i < COUNT(names); i++) {
                if (str_eq(names[i].name, name)) {
                        op.var = (uint8_t)names[i].id;
                        return vars_get(t, &op);
                }
        }
        if (family(name, STR("arg_"), &rest))
                return vars_query_arg(t->r->arena, t->path.query, rest);
        if (family(name, STR("cookie_"), &rest))
                return cookie(t, rest);
        if (family(name, STR("proxy_protocol_tlv_"), &rest)) {
                op.var = VAR_PROXY_TLV;
                return template_tlv_type(rest, &op.group) ? vars_proxy(t, &op) : STR_NONE;
        }
        if (family(name, STR("header_"), &rest))
                return field_value(t, &t->r->req.fields, dashed(t, rest));
        if (family(name, STR("response_header_"), &rest))
                return field_value(t, &t->r->res.fields, dashed(t, rest));
        if (str_u64(name, REGEX_GROUPS_MAX, &group))
                return capture(t, (unsigned)group);
        if (t->match.route != NULL && t->match.route->regex != NULL) {
                int g = regex_group(t->match.route->regex, name);
                if (g >= 0)
                        return capture(t, (unsigned)g);
        }
        return module_variable(t, name);
}

/* ------------------------------------------------------------------ query parameters */

/* Decodes as forms do.  A broken escape stays as it is written, and so does that of a control: what
 * a client sends cannot break a line that a template makes of it. */
static str query_decode(struct arena *a, str s)
{
        if (str_chr(s, '%') < 0 && str_chr(s, '+') < 0)
                return s;
        char *out = arena_alloc(a, s.n + 1);
        if (out == NULL)
                return STR_NONE;
        size_t n = 0;
        for (size_t i = 0; i < s.n; i++) {
                int hi, lo;
                if (s.p[i] == '%' && i + 2 < s.n && (hi = str_hex_digit(s.p[i + 1])) >= 0 &&
                    (lo = str_hex_digit(s.p[i + 2])) >= 0 && (hi << 4 | lo) >= 0x20 &&
                    (hi << 4 | lo) != 0x7f) {
                        out[n++] = (char)(hi << 4 | lo);
                        i += 2;
                } else {
                        out[n++] = s.p[i] == '+' ? ' ' : s.p[i];
                }
        }
        return str_of(out, n);
}

str vars_query_arg(struct arena *a, str query, str name)
{
        str rest = query, pair, key, value;
        while (rest.p != NULL) {
                str_cut(rest, '&', &pair, &rest);
                if (!str_cut(pair, '=', &key, &value))
                        value = str_of("", 0);
                if (pair.n != 0 && str_eq(query_decode(a, key), name))
                        return query_decode(a, value);
        }
        return STR_NONE;
}

str vars_query_encode(struct arena *a, str value)
{
        return path_escape(a, value, path_is_unreserved);
}

/* ------------------------------------------------------------------ when */

static bool when_value(const struct when *w, str value, enum reason *refused)
{
        if (value.p == NULL)
                return false;
        if (w->op == WHEN_PRESENT)
                return true;
        if (w->op == WHEN_EQUAL)
                return str_eq(value, w->value);
        enum regex_result got = regex_match(w->regex, value, 0, NULL);
        if (got == REGEX_LIMIT)
                *refused = REASON_REGEX_LIMIT;
        return got == REGEX_YES;
}

static bool when_method(struct txn *t, const struct when *w)
{
        for (size_t i = 0; i < w->n_methods; i++)
                if (str_eq(w->methods[i], t->r->req.method_text))
                        return true;
        return false;
}

static bool when_client(struct txn *t, const struct when *w)
{
        for (size_t i = 0; i < w->n_nets; i++)
                if (cidr_has(&w->nets[i], &t->client))
                        return true;
        return false;
}

bool vars_when(void *txn, const struct route_conf *route, enum reason *refused)
{
        struct txn *t = txn;
        for (size_t i = 0; i < route->n_whens; i++) {
                const struct when *w = &route->whens[i];
                bool ok = false;
                switch (w->kind) {
                case WHEN_METHOD:
                        ok = when_method(t, w);
                        break;
                case WHEN_HEADER:
                        ok = when_value(w, field_value(t, &t->r->req.fields, w->name), refused);
                        break;
                case WHEN_QUERY:
                        ok = when_value(w, vars_query_arg(t->r->arena, t->path.query, w->name),
                                        refused);
                        break;
                case WHEN_CLIENT:
                        ok = when_client(t, w);
                        break;
                }
                if (!ok)
                        return false;
        }
        return true;
}
