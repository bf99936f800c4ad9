/*
 * What the server is told about the client and its request.
 *
 * The difficulty is trust: what an untrusted client says of itself is replaced, what a trusted
 * proxy says is continued, and the client's address is the first one from the right that no trusted
 * proxy vouches for.
 */
#include "proxy/forward.h"

#include "base/crypto.h"
#include "http/field.h"
#include "http/grpc.h"
#include "net/tls.h"
#include "proxy/gen.h"
#include "proxy/vars.h"

static bool trusted(const struct conf *c, const struct addr *a)
{
        for (size_t i = 0; i < c->n_trusted; i++)
                if (cidr_has(&c->trusted[i], a))
                        return true;
        return false;
}

static str lower(struct arena *a, str s)
{
        size_t i = 0;
        while (i < s.n && str_lower(s.p[i]) == s.p[i])
                i++;
        if (i == s.n)
                return s;
        char *out = arena_dupz(a, s);
        for (; i < s.n; i++)
                out[i] = str_lower(s.p[i]);
        return str_of(out, s.n);
}

/* "name:80", "[::1]:80", "name" */
static void split_authority(str authority, str *host, uint16_t *port)
{
        uint64_t v = 0;
        ptrdiff_t colon = str_rchr(authority, ':'), bracket = str_rchr(authority, ']');
        *host = authority;
        *port = 0;
        if (colon < 0 || colon < bracket)
                return;
        *host = str_head(authority, (size_t)colon);
        if (str_u64(str_from(authority, (size_t)colon + 1), 65535, &v))
                *port = (uint16_t)v;
}

/* The address in an X-Forwarded-For element: with or without a port, v6 in brackets or bare. */
static bool reported_addr(str elem, struct addr *out)
{
        if (addr_parse_ip(elem, 0, out))
                return true;
        if (str_starts(elem, STR("[")) && str_ends(elem, STR("]")))
                return addr_parse_ip(str_of(elem.p + 1, elem.n - 2), 0, out);
        if (str_starts(elem, STR("*")) || !addr_parse(elem, out)) /* "*" is for listeners */
                return false;
        addr_set_port(out, 0);
        return out->sa.sa_family != AF_UNIX;
}

/* Walks the list from the right: the first address that is not a trusted proxy's is the client's.
 */
static void reported_client(const struct conf *c, struct request *r, struct addr *out)
{
        str list = fields_join(r->arena, &r->req.fields, FIELD_X_FORWARDED_FOR);
        while (list.n != 0) {
                ptrdiff_t comma = str_rchr(list, ',');
                str elem = str_trim(comma < 0 ? list : str_from(list, (size_t)comma + 1));
                struct addr a;
                list = comma < 0 ? STR_NONE : str_head(list, (size_t)comma);
                if (!reported_addr(elem, &a))
                        return;
                *out = a;
                if (!trusted(c, &a))
                        return;
        }
}

struct addr forward_address(const struct conf *c, struct request *r)
{
        struct addr a = r->client->facts(r)->peer;

        if (c->n_trusted != 0 && trusted(c, &a))
                reported_client(c, r, &a);
        return a;
}

static bool request_id_ok(str s)
{
        return s.n >= 1 && s.n <= 128 && field_value_ok(s) && str_chr(s, ' ') < 0;
}

static str new_request_id(struct arena *a)
{
        uint64_t id[2] = {crypto_fast_random(), crypto_fast_random()};
        char *out = arena_alloc(a, 32);
        crypto_hex(out, id, sizeof id);
        return str_of(out, 32);
}

void forward_client(struct txn *t)
{
        struct request *r = t->r;
        const struct client_facts *facts = r->client->facts(r);
        struct field *f;
        char text[ADDR_TEXT];

        split_authority(lower(r->arena, r->req.authority), &t->host, &t->port);
        if (t->host.n > 1 &&
            t->host.p[t->host.n - 1] == '.') /* the root's dot names the same host */
                t->host.n--;
        t->client = facts->peer;
        t->trusted = t->gen->conf->n_trusted != 0 && trusted(t->gen->conf, &facts->peer);
        t->scheme = r->tls ? STR("https") : STR("http");
        if (t->trusted) {
                reported_client(t->gen->conf, r, &t->client);
                f = fields_get(&r->req.fields, FIELD_X_FORWARDED_PROTO);
                if (f != NULL && str_ieq(f->value, STR("https")))
                        t->scheme = STR("https");
                else if (f != NULL && str_ieq(f->value, STR("http")))
                        t->scheme = STR("http");
        }
        t->client_ip = arena_dup(r->arena, str_of(text, addr_print_ip(&t->client, text)));
        f = t->trusted ? fields_get(&r->req.fields, FIELD_X_REQUEST_ID) : NULL;
        t->request_id = f != NULL && request_id_ok(f->value) ? f->value : new_request_id(r->arena);
}

enum reason forward_limits(struct txn *t)
{
        struct request *r = t->r;
        const struct settings *s = t->eff;
        bool unbounded = (r->req.upgrade.p != NULL && s->upgrade) || grpc_is_request(&r->req) ||
                         grpc_is_web(&r->req);
        if (r->client == NULL)
                return REASON_NONE;
        return r->client->limits(r, s->client_body, s->client_send, unbounded ? 0 : s->body_max);
}

/* The method alone does not tell: a tunnel may follow, and its bytes would be early too. */
bool forward_too_early(const struct txn *t)
{
        const struct request *r = t->r;
        if (method_safe(r->req.method) && r->req_body.end && r->req_body.passed == 0 &&
            r->req.upgrade.p == NULL)
                return false;
        metric_add(metric_series(r->loop->metrics, METRIC_EARLY_DATA, STR("result=\"too_early\"")),
                   1);
        return true;
}

bool forward_is_web(const struct txn *t)
{
        return t->eff->grpc_web && grpc_is_web(&t->r->req);
}

int64_t forward_patience(const struct txn *t)
{
        const struct msg *req = &t->r->req;
        const struct field *f;
        int64_t us = t->eff->request, said;

        if (!grpc_is_request(req) && !forward_is_web(t))
                return us;
        f = fields_find(&req->fields, STR("grpc-timeout"));
        if (f != NULL && grpc_timeout(f->value, &said))
                us = us != 0 ? MIN(us, said) : said;
        return us;
}

static const struct proxy_target *pick_target(const struct route_conf *route)
{
        if (route->n_targets == 1)
                return &route->targets[0];
        uint64_t at = crypto_fast_random() % MAX(route->weight_sum, 1);
        for (size_t i = 0; i < route->n_targets; i++) {
                if (at < route->targets[i].weight)
                        return &route->targets[i];
                at -= route->targets[i].weight;
        }
        return &route->targets[0];
}

void forward_target(struct txn *t)
{
        const struct route_conf *route = t->match.route;
        if (t->upstream == NULL) {
                t->target = pick_target(route);
                t->upstream = t->target->upstream;
                t->eff = &t->target->eff;
                return;
        }
        for (size_t i = 0; i < route->n_targets; i++) {
                if (route->targets[i].upstream == t->upstream) {
                        t->target = &route->targets[i];
                        t->eff = &t->target->eff;
                        return;
                }
        }
        /* A function chose an upstream that the route does not name. */
        struct settings *eff = ARENA_NEW(t->r->arena, struct settings);
        settings_merge(t->r->arena, eff, &route->own, &t->upstream->own, &route->host->own,
                       &t->gen->conf->top);
        t->eff = eff;
}

static str sent_host(struct txn *t)
{
        struct request *r = t->r;
        if (t->authority.p != NULL)
                return t->authority;
        if (t->target != NULL && t->target->host != NULL) {
                str h = vars_expand(t, t->target->host);
                if (h.n != 0 && !str_has_ctl(h) && str_chr(h, ' ') < 0)
                        return h;
        }
        return r->req.authority;
}

/* Who speaks to us, as text: what a trusted peer's list is continued with. */
static str peer_text(struct txn *t)
{
        char text[ADDR_TEXT];
        const struct client_facts *facts = t->r->client->facts(t->r);
        return arena_dup(t->r->arena, str_of(text, addr_print_ip(&facts->peer, text)));
}

static void set(struct arena *a, struct msg *m, enum field_id id, str value)
{
        fields_set(a, &m->fields, id, field_name_of(id), value);
}

/* Continues what came in `from`: also what Connection nominated, for a list that weir answers for
 * is not the client's to take away. */
static void append(struct arena *a, struct msg *m, const struct msg *from, enum field_id id,
                   str value)
{
        str old = fields_join(a, &from->fields, id);
        if (old.n != 0)
                value = arena_cat(a, (str[]){old, STR(", "), value}, 3);
        set(a, m, id, value);
}

/* Is the server told the client's certificate?  The host's word counts before the listener's. */
static bool tells_client_cert(const struct txn *t)
{
        const struct host_conf *host = t->match.route != NULL ? t->match.route->host : NULL;
        if (host != NULL && host->tls != NULL && host->tls->client_written)
                return host->tls->client_forward;
        return t->listen != NULL && t->listen->client_forward;
}

/* The client's certificate (RFC 9440): an untrusted client's word for it is never passed on. */
static void client_cert(struct txn *t, struct msg *sent)
{
        str field = tells_client_cert(t) ? tls_client_text(t->tls, TLS_CLIENT_FIELD) : STR_NONE;

        if (t->trusted && fields_get(&sent->fields, FIELD_CLIENT_CERT) != NULL)
                return;
        fields_del_id(&sent->fields, FIELD_CLIENT_CERT);
        fields_del_id(&sent->fields, FIELD_CLIENT_CERT_CHAIN);
        if (field.n != 0)
                set(t->r->arena, sent, FIELD_CLIENT_CERT, field);
}

/* Whether the server may be seeing the request again (RFC 8470 5.1): what a trusted proxy says, and
 * what weir knows as long as the client's handshake goes on. */
static void say_early(struct txn *t, struct msg *sent)
{
        if (!t->trusted)
                fields_del_id(&sent->fields, FIELD_EARLY_DATA);
        if (UNLIKELY(t->early) && t->tls->early)
                set(t->r->arena, sent, FIELD_EARLY_DATA, STR("1"));
}

void forward_request(struct txn *t, struct msg *sent)
{
        struct request *r = t->r;
        struct arena *a = r->arena;
        bool keep = t->trusted;

        *sent = r->req;
        sent->fields.v = arena_alloc(a, (r->req.fields.n + 8) * sizeof(struct field));
        sent->fields.cap = r->req.fields.n + 8;
        sent->fields.n = 0;
        FIELDS_EACH(f, &r->req.fields)
        {
                sent->fields.v[sent->fields.n++] = *f;
        }
        field_strip_hop(&sent->fields);
        if (t->method.p != NULL) {
                sent->method_text = t->method;
                sent->method = method_of(t->method);
        }
        sent->target = vars_uri(t);
        sent->authority = sent_host(t);
        sent->version = 11;
        sent->expect_continue = r->req.expect_continue && r->req_body.passed == 0;

        if (keep) {
                append(a, sent, &r->req, FIELD_X_FORWARDED_FOR, peer_text(t));
        } else {
                set(a, sent, FIELD_X_FORWARDED_FOR, t->client_ip);
                fields_del_id(&sent->fields, FIELD_FORWARDED);
        }
        if (!keep || fields_get(&sent->fields, FIELD_X_FORWARDED_PROTO) == NULL)
                set(a, sent, FIELD_X_FORWARDED_PROTO, t->scheme);
        if (!keep || fields_get(&sent->fields, FIELD_X_FORWARDED_HOST) == NULL) {
                if (r->req.authority.n != 0)
                        set(a, sent, FIELD_X_FORWARDED_HOST, r->req.authority);
                else
                        fields_del_id(&sent->fields, FIELD_X_FORWARDED_HOST);
        }
        client_cert(t, sent);
        append(a, sent, &r->req, FIELD_VIA,
               r->req.version == 10   ? STR("1.0 weir")
               : r->req.version == 20 ? STR("2.0 weir")
                                      : STR("1.1 weir"));
        set(a, sent, FIELD_X_REQUEST_ID, t->request_id);
        say_early(t, sent);
}
