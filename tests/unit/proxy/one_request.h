/*
 * One request as the proxy sees it, without a socket, a codec or a server: what the tests of vars,
 * forward and accesslog begin with.
 */
#ifndef UNIT_PROXY_ONE_REQUEST_H
#define UNIT_PROXY_ONE_REQUEST_H

#include "../base/unit.h"
#include "conf/template.h"
#include "net/tls.h"
#include "proxy/gen.h"
#include "proxy/txn.h"

#include <stdlib.h>

#define WALL (INT64_C(1795428000) * SEC + 123 * MSEC) /* 2026-11-23T10:00:00.123Z */

static struct {
        struct metric_region *region;
        struct loop *loop;
        struct arena *arena;
        struct request r;
        struct txn t;
        struct gen gen;
        struct conf conf;
        struct gen_loop gl;
        struct listen_conf listen;
        struct client_facts facts;
        struct tls_facts tls;
        struct settings eff;
        struct host_conf host;
        struct route_conf route;
        struct regex *regex;
} one;

static const struct client_facts *one_facts(struct request *r)
{
        (void)r;
        return &one.facts;
}

static const struct client_ops one_client = {.facts = one_facts};

static struct addr addr_at(const char *text)
{
        struct addr a;

        assert_true(addr_parse(str_z(text), &a));
        return a;
}

/* The loop and its metrics, once for a program. */
static int one_begin(void **state)
{
        (void)state;
        one.region = metric_region_new(1, 256 * KIB);
        metric_slot_begin(metric_slot(one.region, 0));
        one.loop = loop_new(0, metric_slot(one.region, 0));
        return 0;
}

static int one_end(void **state)
{
        (void)state;
        loop_free(one.loop);
        metric_region_free(one.region);
        arena_thread_end();
        buf_thread_end();
        regex_thread_end();
        return 0;
}

/* A plain GET of / at example.com from 192.0.2.1:4711 that nobody has looked at yet. */
static int one_setup(void **state)
{
        (void)state;
        one.arena = arena_new(0);
        one.loop->now = 5 * SEC;
        one.loop->wall = WALL;
        one.conf = (struct conf){0};
        one.gen = (struct gen){.magic = GEN_MAGIC, .conf = &one.conf};
        one.gl = (struct gen_loop){.live = 1, .loop = one.loop, .gen = &one.gen};
        one.listen = (struct listen_conf){.addr = addr_at("192.0.2.80:8080")};
        one.facts = (struct client_facts){.peer = addr_at("192.0.2.1:4711"),
                                          .local = addr_at("192.0.2.80:8080")};
        one.tls = (struct tls_facts){0};
        one.eff = (struct settings){0};
        one.host = (struct host_conf){0};
        one.route = (struct route_conf){.host = &one.host};
        one.r = (struct request){.magic = REQUEST_MAGIC,
                                 .holds = 1,
                                 .loop = one.loop,
                                 .arena = one.arena,
                                 .client = &one_client,
                                 .started = 4 * SEC};
        one.r.to_server = &one.r.req_body;
        one.r.from_server = &one.r.res_body;
        one.r.req = (struct msg){.method = METHOD_GET,
                                 .method_text = STR("GET"),
                                 .target = STR("/"),
                                 .authority = STR("example.com"),
                                 .scheme = STR("http"),
                                 .version = 11};
        one.t = (struct txn){.r = &one.r,
                             .gen = &one.gen,
                             .gl = &one.gl,
                             .listen = &one.listen,
                             .eff = &one.eff,
                             .host = STR("example.com"),
                             .scheme = STR("http"),
                             .client = one.facts.peer,
                             .client_ip = STR("192.0.2.1"),
                             .request_id = STR("id-1"),
                             .upstream_us = -1};
        return 0;
}

static int one_teardown(void **state)
{
        (void)state;
        arena_free(one.arena);
        regex_free(one.regex);
        one.regex = NULL;
        return 0;
}

__attribute__((unused)) static void target(const char *text)
{
        one.r.req.target = arena_dup(one.arena, str_z(text));
        assert_true(path_parse(one.arena, one.r.req.target, &one.t.path));
}

static void put_field(struct fields *f, const char *name, const char *value)
{
        str n = arena_dup(one.arena, str_z(name));

        assert_non_null(fields_add(one.arena, f, field_id_of(n), n, str_z(value)));
}

__attribute__((unused)) static void req_field(const char *name, const char *value)
{
        put_field(&one.r.req.fields, name, value);
}

__attribute__((unused)) static void res_field(const char *name, const char *value)
{
        put_field(&one.r.res.fields, name, value);
}

__attribute__((unused)) static bool any_module_variable(void *ctx, str name)
{
        (void)ctx;
        return str_starts(name, STR("jwt_"));
}

/* A template with all that the log may name, and the route's captures. */
__attribute__((unused)) static struct template *template_of(const char *text)
{
        const char *error = NULL;
        size_t at = 0;
        struct template_scope scope = {
                .route_regex = one.regex, .response = true, .module_variable = any_module_variable};
        struct template *t = template_compile(one.arena, str_z(text), &scope, &error, &at);

        if (t == NULL)
                fail_msg("%s: %s", text, error);
        return t;
}

/* The route becomes a regex one and is matched. */
__attribute__((unused)) static void regex_route(const char *pattern)
{
        struct regex_error err;

        one.regex = regex_new(str_z(pattern), 0, &err);
        assert_non_null(one.regex);
        one.route.kind = ROUTE_REGEX;
        one.route.regex = one.regex;
        one.route.label = arena_printf(one.arena, "~ %s", pattern);
        one.t.match.route = &one.route;
        one.t.match.rest = one.t.path.norm.n;
        assert_int_equal(regex_match(one.regex, one.t.path.norm, 0, &one.t.match.caps), REGEX_YES);
}

#define ONE_TEST(f) cmocka_unit_test_setup_teardown(f, one_setup, one_teardown)

#endif
