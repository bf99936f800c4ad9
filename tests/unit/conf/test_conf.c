/* Whole configurations: the example of the language, includes, and that all mistakes are said at
 * once. */
#include "conf/conf.c"

#include "../base/unit.h"
#include "memory.h"

#include <stdlib.h>

static const struct memory_entry env[] = {
        {"NAME", "value"}, {"EMPTY", ""}, {"DOLLAR", "$host;}"}, {0}};

static const char example[] =
        "threads auto;                              # event loops per worker\n"
        "workers 1;\n"
        "user weir;\n"
        "error_log stderr level=info;\n"
        "access_log /var/log/weir/access.log format=json;\n"
        "admin 127.0.0.1:9901;\n"
        "\n"
        "module headers;                            # <module_path>/headers.so\n"
        "module ratelimit;\n"
        "\n"
        "redis main {\n"
        "    server 127.0.0.1:6379;\n"
        "    timeout connect=200ms command=50ms;\n"
        "}\n"
        "\n"
        "upstream users {\n"
        "    balance least_conn;\n"
        "    server 10.0.0.1:8080 weight=3;\n"
        "    server 10.0.0.2:8080;\n"
        "    server users.internal:8080;\n"
        "    server 10.0.0.9:8080 backup;\n"
        "    health_check path=/healthz interval=2s timeout=1s fall=3 rise=2 expect=200-399;\n"
        "    keepalive 64;\n"
        "    timeout connect=1s response=30s;\n"
        "}\n"
        "\n"
        "upstream users_v2 { server 10.0.1.1:8080; }\n"
        "\n"
        "listen 0.0.0.0:80;\n"
        "listen [::]:443 tls {\n"
        "    certificate certs/example.pem key=certs/example.key;\n"
        "    protocols http/1.1;\n"
        "    versions 1.2 1.3;\n"
        "}\n"
        "\n"
        "host api.example.com *.api.example.com {\n"
        "    function headers { set response Strict-Transport-Security \"max-age=63072000\"; "
        "remove response Server; }\n"
        "\n"
        "    route ~ '^/users/(?<id>\\d+)(?<rest>/.*)?$' {\n"
        "        when method GET HEAD;\n"
        "        function ratelimit rate=100/s burst=200 key=$client_ip store=main;\n"
        "        function headers { set request X-User-Id $id; }\n"
        "        rewrite /internal/users/$id$rest;\n"
        "        proxy users;\n"
        "    }\n"
        "    route = /healthz { respond 200 \"ok\\n\"; }\n"
        "    route /old/      { redirect 308 https://$host/new/$path_rest; }\n"
        "    route / {\n"
        "        proxy users weight=90;             # several proxy lines: split by weight\n"
        "        proxy users_v2 weight=10;\n"
        "    }\n"
        "}\n"
        "host * { route / { respond 404; } }\n";

static struct conf *read_text(const char *text, struct report *rep)
{
        const struct memory_entry files[] = {{"/etc/weir/weir.conf", text},
                                             {"/etc/weir/certs/example.pem", "CERT"},
                                             {"/etc/weir/certs/example.key", "KEY"},
                                             {0}};
        struct memory m = MEMORY(files, env);

        *rep = (struct report){0};
        return conf_read(&m.source, STR("/etc/weir/weir.conf"), STR("/etc/weir"), rep);
}

static void show(struct report *rep)
{
        str out = buf_pullup(&rep->out, rep->out.n);

        fprintf(stderr, "%.*s", STR_ARG(out));
}

static void whole_example(void **state)
{
        struct report rep;
        struct conf *c = read_text(example, &rep);

        (void)state;
        show(&rep);
        assert_non_null(c);
        assert_int_equal(rep.errors, 0);
        assert_int_equal(rep.warnings, 0);
        assert_int_equal(c->threads, 0);
        assert_int_equal(c->workers, 1);
        assert_true(c->has_user && c->uid == 123 && c->gid == 124);
        ASSERT_STR(c->admin_text, "127.0.0.1:9901");
        assert_int_equal(c->n_modules, 2);
        assert_true(str_ends(c->modules[0].path, STR("/headers.so")));
        assert_int_equal(c->n_redises, 1);
        assert_int_equal(c->redises[0].connect, 200 * MSEC);
        assert_int_equal(c->n_upstreams, 2);
        const struct upstream_conf *u = &c->upstreams[0];
        assert_int_equal(u->balance, BALANCE_LEAST_CONN);
        assert_int_equal(u->n_servers, 4);
        assert_int_equal(u->servers[0].weight, 3);
        assert_int_equal(u->servers[1].weight, 1);
        assert_int_equal(u->servers[2].addr.len, 0);
        ASSERT_STR(u->servers[2].host, "users.internal");
        assert_true(u->servers[3].backup);
        assert_int_equal(u->check_interval, 2 * SEC);
        assert_int_equal(u->eject_failures, 5);
        assert_int_equal(c->n_listens, 2);
        assert_false(c->listens[1].v6only);
        ASSERT_STR(c->listens[1].certs[0].key.text, "KEY");
        assert_int_equal(c->n_hosts, 2);
        const struct host_conf *h = &c->hosts[0];
        assert_int_equal(h->n_names, 2);
        assert_int_equal(h->n_routes, 4);
        const struct route_conf *r = &h->routes[0];
        assert_int_equal(r->kind, ROUTE_REGEX);
        ASSERT_STR(r->label, "~ ^/users/(?<id>\\d+)(?<rest>/.*)?$");
        assert_int_equal(r->n_functions, 3);
        assert_ptr_equal(r->functions[0], h->functions[0]);
        ASSERT_STR(r->functions[1]->module, "ratelimit");
        assert_int_equal(r->rewrite->n, 3);
        assert_int_equal(r->rewrite->op[1].var, VAR_CAPTURE);
        assert_ptr_equal(r->targets[0].upstream, u);
        assert_int_equal(r->targets[0].eff.connect, 1 * SEC);
        assert_int_equal(r->eff.connect, 5 * SEC);
        assert_non_null(r->eff.access_log);
        ASSERT_STR(r->eff.access_log->path, "/var/log/weir/access.log");
        assert_int_equal(h->routes[1].kind, ROUTE_EXACT);
        assert_int_equal(h->routes[2].kind, ROUTE_PREFIX);
        assert_int_equal(h->routes[2].status, 308);
        assert_int_equal(h->routes[3].weight_sum, 100);
        assert_int_equal(c->hosts[1].routes[0].status, 404);
        assert_null(c->hosts[1].routes[0].body);
        conf_free(c);
        buf_clear(&rep.out);
}

static struct conf *read_right(const char *text)
{
        struct report rep;
        struct conf *c = read_text(text, &rep);

        show(&rep);
        assert_non_null(c);
        buf_clear(&rep.out);
        return c;
}

static void scopes(void **state)
{
        struct conf *c = read_right(
                "timeout connect=1s response=1s queue=1s; error_page 502 503 text=top;\n"
                "listen 127.0.0.1:1 { timeout client_head=2s; header line=1k; }\n"
                "host a { timeout connect=2s response=2s; error_page 503 504 text=host;\n"
                "    route /r { timeout connect=4s; error_page 504 text=route; proxy u; }\n"
                "    route /x { proxy u; access_log off; } }\n"
                "access_log stdout; upstream u { server b; timeout connect=3s response=3s; }\n");
        const struct route_conf *r = &c->hosts[0].routes[0], *x = &c->hosts[0].routes[1];
        const struct settings *eff = &r->targets[0].eff;

        (void)state;
        assert_int_equal(eff->connect, 4 * SEC);
        assert_int_equal(eff->response, 3 * SEC);
        assert_int_equal(eff->queue, 1 * SEC);
        assert_int_equal(r->eff.response, 2 * SEC); /* without an upstream */
        assert_int_equal(x->targets[0].eff.connect, 3 * SEC);
        assert_int_equal(c->eff.connect, 1 * SEC);
        assert_int_equal(c->listens[0].eff.client_head, 2 * SEC);
        assert_int_equal(c->listens[0].eff.header_line, 1024);
        assert_int_equal(c->listens[0].eff.header_max, 32 * KIB);
        /* pages are taken one by one, the nearest first */
        assert_int_equal(eff->n_error_pages, 3);
        for (size_t i = 0; i < 3; i++) {
                const struct error_page *p = &eff->error_pages[i];
                const char *want = p->status == 504 ? "route" : p->status == 503 ? "host" : "top";
                assert_true(str_eq(p->body, str_z(want)));
        }
        assert_non_null(r->eff.access_log);
        assert_null(x->eff.access_log);
        conf_free(c);
}

static void listeners(void **state)
{
        struct conf *c =
                read_right("listen [::]:80; listen 10.0.0.1:80; listen [::]:81; listen *:82;\n"
                           "listen [::1]:83; listen unix:run/s;");

        (void)state;
        assert_true(c->listens[0].v6only); /* 10.0.0.1 has that port */
        assert_false(c->listens[2].v6only);
        assert_false(c->listens[3].v6only);
        assert_true(c->listens[4].v6only);
        ASSERT_STR(str_z(c->listens[5].addr.un.sun_path), "/etc/weir/run/s");
        conf_free(c);
}

static void patterns(void **state)
{
        static const struct {
                const char *written, *norm;
                enum route_kind kind;
        } cases[] = {{"/a", "/a", ROUTE_SEGMENT},       {"/a/", "/a/", ROUTE_PREFIX},
                     {"= /a", "/a", ROUTE_EXACT},       {"/%61%2f", "/a%2F", ROUTE_SEGMENT},
                     {"//a//b", "/a/b", ROUTE_SEGMENT}, {"/a/../b/", "/b/", ROUTE_PREFIX},
                     {"/", "/", ROUTE_PREFIX},          {"~ ^/A", "^/A", ROUTE_REGEX}};

        (void)state;
        for (size_t i = 0; i < COUNT(cases); i++) {
                char text[256];
                snprintf(text, sizeof text, "host * { route %s { respond 204; } }",
                         cases[i].written);
                struct conf *c = read_right(text);
                const struct route_conf *r = &c->hosts[0].routes[0];
                if (!str_eq(r->pattern, str_z(cases[i].norm)) || r->kind != cases[i].kind)
                        fail_msg("%s: %.*s, kind %d", cases[i].written, STR_ARG(r->pattern),
                                 r->kind);
                conf_free(c);
        }
}

static void names_of_functions(void **state)
{
        struct conf *c =
                read_right("host a b { function x; route /p { function x; function x;\n"
                           "function y; function x name=n; respond 204; } } module x; module y;");
        const struct route_conf *r = &c->hosts[0].routes[0];
        static const char *const want[] = {"a x", "a /p x", "a /p x 2", "a /p y", "n"};

        (void)state;
        assert_int_equal(r->n_functions, 5);
        for (size_t i = 0; i < 5; i++)
                assert_true(str_eq(r->functions[i]->name, str_z(want[i])));
        ASSERT_STR(r->functions[4]->label, "x n (weir.conf:2)");
        conf_free(c);
}

static void what_words_hold(void **state)
{
        struct conf *c = read_right("host * { route = / { respond 200 \"${env:DOLLAR}$method\"; }\n"
                                    "route ~ '${env:NAME}' { respond 200 '$host ${path}'; } }\n"
                                    "user ${env:EMPTY:-weir};");
        const struct template *body = c->hosts[0].routes[0].body;

        (void)state;
        assert_int_equal(body->n, 2);
        ASSERT_STR(body->op[0].text, "$host;}");
        assert_int_equal(body->op[1].var, VAR_METHOD);
        ASSERT_STR(c->hosts[0].routes[1].pattern, "${env:NAME}"); /* raw, and a regex */
        assert_int_equal(c->hosts[0].routes[1].body->n, 3);
        ASSERT_STR(c->user, "weir");
        conf_free(c);
}

static void read_despite_mistakes(void **state)
{
        const struct memory_entry files[] = {
                {"/f", "module m; threads x; host * { route / { proxy none; function m a=b; } }"},
                {0}};
        struct memory m = MEMORY(files, env);
        struct report rep = {0};
        struct conf *c = conf_read_all(&m.source, STR("/f"), STR("/"), &rep);

        (void)state;
        assert_non_null(c);
        assert_int_equal(rep.errors, 2);
        assert_int_equal(c->hosts[0].routes[0].n_functions, 1);
        conf_free(c);
        buf_clear(&rep.out);
        rep = (struct report){0};
        assert_null(conf_read(&m.source, STR("/none"), STR("/"), &rep));
        assert_int_equal(rep.errors, 1);
        buf_clear(&rep.out);
}

static void control_path(void **state)
{
        static const struct {
                const char *text, *path;
        } cases[] = {{"threads x; } control unix:run/c; {", "/p/run/c"},
                     {"control unix:/c;", "/c"},
                     {"control tcp;", NULL},
                     {"host * { control unix:/c; }", NULL},
                     {"include more;", "/more"},
                     {"", NULL}};

        (void)state;
        for (size_t i = 0; i < COUNT(cases); i++) {
                const struct memory_entry files[] = {
                        {"/p/f", cases[i].text}, {"/p/more", "control unix:/more;"}, {0}};
                struct memory m = MEMORY(files, env);
                struct arena *a = arena_new(0);
                str path = conf_control_path(&m.source, STR("/p/f"), STR("/p"), a);
                assert_int_equal(path.p != NULL, cases[i].path != NULL);
                assert_true(!path.p || str_eq(path, str_z(cases[i].path)));
                arena_free(a);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(whole_example),
                cmocka_unit_test(scopes),
                cmocka_unit_test(listeners),
                cmocka_unit_test(patterns),
                cmocka_unit_test(names_of_functions),
                cmocka_unit_test(what_words_hold),
                cmocka_unit_test(read_despite_mistakes),
                cmocka_unit_test(control_path),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
