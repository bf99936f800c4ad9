/*
 * Upstreams and their servers.
 */
#include "conf/compile.h"
#include "http/field.h"

struct upstream_build {
        struct upstream_conf u;
        VEC(struct server_conf) servers;
        const struct word *name, *protocol, *proxy;
};

#define CHECK_SERVICE_MAX 255 /* bytes of a service's name */

/* The directives of the block see the upstream itself, which the build begins with. */
static struct upstream_build *build_of(const struct scope *s)
{
        return s->object;
}

void compile_server(struct compile *c, struct scope *s, const struct args *a)
{
        struct upstream_build *b = build_of(s);
        const struct word *w = a->word[0];
        struct server_conf server = {.pos = w->pos, .text = w->text};

        if (a->n > 1) {
                server.backup = compile_is(a->word[1], "backup");
                if (!server.backup)
                        compile_surplus(c, s->context, a, a->word[1]);
        }
        compile_keys(c, s, a, &server);
        /* Whether the port is tls's or not is known only when the block has ended. */
        if (!compile_address(c, w, 0, &server.addr, &server.host, &server.port))
                return;
        *VEC_ADD(c->a, &b->servers) = server;
}

void compile_balance(struct compile *c, struct scope *s, const struct args *a)
{
        static const str names[] = {STR_INIT("round_robin"), STR_INIT("least_conn"),
                                    STR_INIT("random"),      STR_INIT("p2c"),
                                    STR_INIT("least_time"),  STR_INIT("hash")};
        struct upstream_conf *u = &build_of(s)->u;
        const struct word *w = a->word[0];
        size_t i = 0;

        while (i < COUNT(names) && !str_eq(w->text, names[i]))
                i++;
        if (i == COUNT(names)) {
                report_unknown(c->rep, &w->pos, w->text, names, COUNT(names),
                               "\"%.*s\" is not a way to balance", STR_ARG(w->text));
                return;
        }
        u->balance = (enum balance)i;
        if ((u->balance == BALANCE_HASH) != (a->n == 2)) {
                report_error(c->rep, a->n == 2 ? &a->word[1]->pos : &a->node->end,
                             a->n == 2 ? "only hash takes a template"
                                       : "hash needs a template: balance hash $client_ip;");
                return;
        }
        if (a->n == 2)
                u->hash = compile_template(c, a->word[1], c->names_top);
}

/* "200" or "200-399" */
static void expect(struct compile *c, const struct word *w, struct upstream_conf *u)
{
        str low, high;
        uint64_t min, max;
        bool range = str_cut(w->text, '-', &low, &high);

        if (!str_u64(low, 599, &min) || !str_u64(range ? high : low, 599, &max) || min < 100 ||
            max < min) {
                report_error(c->rep, &w->pos, "expect: \"%.*s\" is not a range such as 200-399",
                             STR_ARG(w->text));
                return;
        }
        u->expect_min = (uint16_t)min;
        u->expect_max = (uint16_t)max;
}

static void check_by_grpc(struct compile *c, const struct args *a, struct upstream_conf *u)
{
        static const char *const others[] = {"path", "expect"};
        const struct word *service = compile_key(a, "service");

        u->check_grpc = true;
        u->check_pos = a->word[0]->pos;
        u->check_path = STR_NONE;
        for (size_t i = 0; i < COUNT(others); i++) {
                const struct word *w = compile_key(a, others[i]);
                if (w)
                        report_error(c->rep, &w->pos,
                                     "%s is for checks by GET: health_check grpc takes service",
                                     others[i]);
        }
        if (service && (str_has_ctl(service->text) || service->text.n > CHECK_SERVICE_MAX))
                report_error(c->rep, &service->pos,
                             "service: \"%.*s\" is not the name of a service",
                             STR_ARG(service->text));
}

void compile_health_check(struct compile *c, struct scope *s, const struct args *a)
{
        static const str names[] = {STR_INIT("grpc"), STR_INIT("off")};
        struct upstream_conf *u = &build_of(s)->u;
        const struct word *range = compile_key(a, "expect"), *path = compile_key(a, "path");
        const struct word *service = compile_key(a, "service");

        if (a->n == 1 && compile_is(a->word[0], "off")) {
                if (a->n_keyed)
                        report_error(c->rep, &a->word[0]->pos,
                                     "health_check off takes no parameters");
                return;
        }
        if (a->n == 1 && !compile_is(a->word[0], "grpc")) {
                report_unknown(c->rep, &a->word[0]->pos, a->word[0]->text, names, COUNT(names),
                               "health_check: \"%.*s\" is neither grpc nor off",
                               STR_ARG(a->word[0]->text));
                return;
        }
        compile_keys(c, s, a, u);
        if (a->n == 1) {
                check_by_grpc(c, a, u);
                return;
        }
        if (service)
                report_error(c->rep, &service->pos,
                             "service needs grpc: health_check grpc service=%.*s;",
                             STR_ARG(service->text));
        if (range)
                expect(c, range, u);
        if (path && (!str_starts(path->text, STR("/")) || str_has_ctl(path->text) ||
                     str_chr(path->text, ' ') >= 0))
                report_error(c->rep, &path->pos, "path: \"%.*s\" is not a path",
                             STR_ARG(path->text));
}

void compile_eject(struct compile *c, struct scope *s, const struct args *a)
{
        struct upstream_conf *u = &build_of(s)->u;

        if (a->n == 1)
                u->eject_failures = 0;
        else
                compile_keys(c, s, a, u);
}

void compile_upstream_protocol(struct compile *c, struct scope *s, const struct args *a)
{
        static const str names[] = {STR_INIT("http/1.1"), STR_INIT("h2c"), STR_INIT("h2")};
        struct upstream_build *b = build_of(s);
        const struct word *w = a->word[0];
        size_t i = 0;

        while (i < COUNT(names) && !str_eq(w->text, names[i]))
                i++;
        if (i == COUNT(names)) {
                report_unknown(c->rep, &w->pos, w->text, names, COUNT(names),
                               "\"%.*s\" is not a protocol (http/1.1, h2c or h2)",
                               STR_ARG(w->text));
                return;
        }
        b->u.protocol = (enum upstream_protocol)i;
        b->protocol = w;
}

/* Whether the servers are spoken to in TLS is known only when the block has ended. */
static void check_protocol(struct compile *c, const struct upstream_build *b)
{
        if (b->u.protocol == PROTOCOL_H2 && !b->u.tls)
                report_error(c->rep, &b->protocol->pos,
                             "protocol h2 needs tls; HTTP/2 without it is protocol h2c");
        if (b->u.protocol == PROTOCOL_H2C && b->u.tls)
                report_error(c->rep, &b->protocol->pos,
                             "protocol h2c is HTTP/2 without tls; with it, it is protocol h2");
        if (b->u.proxy_version && b->u.protocol != PROTOCOL_HTTP1)
                report_error(
                        c->rep, &b->proxy->pos,
                        "proxy_protocol says whose a connection is, and with HTTP/2 it is many "
                        "clients': take protocol http/1.1");
        if (b->u.protocol == PROTOCOL_HTTP1 && b->u.check_grpc)
                report_error(c->rep, &b->u.check_pos,
                             "health_check grpc needs HTTP/2: protocol h2c, or h2 with tls");
}

static uint32_t proxy_tlvs(struct compile *c, const struct word *w)
{
        static const str names[] = {STR_INIT("authority"), STR_INIT("alpn"), STR_INIT("unique_id"),
                                    STR_INIT("ssl")};
        uint32_t bits = 0;
        str rest = w->text, name;
        size_t i;

        while (rest.p != NULL) {
                str_cut(rest, ',', &name, &rest);
                for (i = 0; i < COUNT(names) && !str_eq(name, names[i]); i++)
                        ;
                if (i == COUNT(names))
                        report_unknown(
                                c->rep, &w->pos, name, names, COUNT(names),
                                "tlvs: \"%.*s\" is not one of authority, alpn, unique_id, ssl",
                                STR_ARG(name));
                else
                        bits |= UINT32_C(1) << i;
        }
        return bits;
}

void compile_upstream_proxy(struct compile *c, struct scope *s, const struct args *a)
{
        static const str names[] = {STR_INIT("off"), STR_INIT("v1"), STR_INIT("v2")};
        struct upstream_build *b = build_of(s);
        const struct word *w = a->word[0], *tlvs = compile_key(a, "tlvs");
        uint32_t i = 0;

        while (i < COUNT(names) && !str_eq(w->text, names[i]))
                i++;
        if (i == COUNT(names)) {
                report_unknown(c->rep, &w->pos, w->text, names, COUNT(names),
                               "\"%.*s\" is not off, v1 or v2", STR_ARG(w->text));
                return;
        }
        b->u.proxy_version = i;
        b->proxy = w;
        if (tlvs && i != 2)
                report_error(c->rep, &tlvs->pos, "tlvs= needs v2: v1 has addresses only");
        else if (tlvs)
                b->u.proxy_tlvs = proxy_tlvs(c, tlvs);
}

void compile_upstream_tls(struct compile *c, struct scope *s, const struct args *a)
{
        struct upstream_conf *u = &build_of(s)->u;

        if (a->n == 1) /* off */
                return;
        u->tls = true;
        u->tls_pos = a->node->words[0].pos;
        compile_keys(c, s, a, u);
        if (!compile_key(a, "certificate") != !compile_key(a, "key"))
                report_error(c->rep, &a->node->end, "certificate= and key= belong together");
}

void compile_sticky(struct compile *c, struct scope *s, const struct args *a)
{
        struct upstream_conf *u = &build_of(s)->u;
        const struct word *w = compile_key(a, "cookie");

        if (a->n == 1) /* off */
                return;
        compile_keys(c, s, a, u);
        if (w && !field_name_ok(w->text)) {
                report_error(c->rep, &w->pos, "\"%.*s\" is not the name of a cookie",
                             STR_ARG(w->text));
                u->sticky_cookie = STR_NONE;
        }
}

static void fill_ports(struct upstream_build *b)
{
        for (size_t i = 0; i < b->servers.n; i++) {
                struct server_conf *server = &b->servers.v[i];
                if (server->port || (server->addr.len && server->addr.sa.sa_family == AF_UNIX))
                        continue;
                server->port = b->u.tls ? 443 : 80;
                if (server->addr.len)
                        addr_set_port(&server->addr, server->port);
        }
}

static bool same_server(const struct server_conf *a, const struct server_conf *b)
{
        if (a->addr.len != 0 || b->addr.len != 0)
                return a->addr.len != 0 && b->addr.len != 0 && addr_equal(&a->addr, &b->addr);
        return a->port == b->port && str_ieq(a->host, b->host);
}

/* Once the ports are known: one server may be written in several ways. */
static void check_servers(struct compile *c, const struct upstream_build *b)
{
        for (size_t i = 0; i < b->servers.n; i++) {
                const struct server_conf *s = &b->servers.v[i], *first = b->servers.v;
                while (!same_server(first, s))
                        first++;
                if (first == s)
                        continue;
                if (str_eq(first->text, s->text))
                        report_error(c->rep, &s->pos, "server %.*s exists already (line %u)",
                                     STR_ARG(s->text), first->pos.line);
                else
                        report_error(c->rep, &s->pos,
                                     "server %.*s exists already as %.*s (line %u)",
                                     STR_ARG(s->text), STR_ARG(first->text), first->pos.line);
        }
}

void compile_upstream(struct compile *c, struct scope *s, const struct args *a)
{
        struct upstream_build b = {.name = a->word[0]};
        struct scope in = {
                .context = UPSTREAM, .object = &b, .own = &b.u.own, .names = c->names_top};

        (void)s;
        b.u.pos = a->node->words[0].pos;
        b.u.name = a->word[0]->text;
        b.u.expect_min = 200;
        b.u.expect_max = 399;
        b.u.eject_failures = 5;
        b.u.eject_for = 10 * SEC;
        (void)compile_block_name(c, a->word[0], "upstream");
        compile_defaults(c, UPSTREAM, &b.u);
        compile_block(c, a->node->child, a->node->n_children, &in);
        if (!tree_has(a->node, "server"))
                report_error(c->rep, &a->word[0]->pos, "upstream %.*s has no server",
                             STR_ARG(b.u.name));
        check_protocol(c, &b);
        fill_ports(&b);
        check_servers(c, &b);
        b.u.servers = COMPILE_TAKE(c->a, b.servers);
        b.u.n_servers = b.servers.n;
        b.u.index = (uint32_t)c->upstreams.n;
        *VEC_ADD(c->a, &c->upstreams) = b.u;
}
