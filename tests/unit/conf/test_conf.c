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

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(whole_example),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
