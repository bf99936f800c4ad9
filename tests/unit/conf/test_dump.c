/* What -T prints reads back to the same, holds every default, and shows no secret. */
#include "conf/dump.c"

#include "conf/conf.h"

#include "../base/unit.h"
#include "memory.h"

#include <stdlib.h>

static const struct memory_entry env[] = {{"DOLLAR", "$host;}"}, {0}};

static const char text[] =
        "module echo;\n"
        "threads 2; workers 2; user weir www; pid_file run/weir.pid; control unix:ctl;\n"
        "error_log log/error.log level=warn; admin 127.0.0.1:9901; store_size 1m;\n"
        "trusted_proxies 10.0.0.0/8 fd00::/8 ::1; resolver 127.0.0.1 [::1]:5353;\n"
        "max_connections 1000; shutdown_timeout off; drain_delay 1500ms;\n"
        "log_format short '$client_ip \"$uri\" $$ ${status}x';\n"
        "access_log stdout format=short; retry attempts=3 on=reset,502,grpc_internal budget=12.5% "
        "replay=1k;\n"
        "timeout client_head=3s request=1h; body max=off; error_page 502 text=\"down\\n\";\n"
        "redis main { server redis.internal; user u; password ${file:secret}; database 3;\n"
        "    timeout command=20ms; tls verify=off; }\n"
        "redis sock { server unix:/run/redis.sock; }\n"
        "echo slow { word \"a b\"; key ${file:secret}; text '$x = \"1\"'; }\n"
        "upstream a { balance hash \"$header_x_a;\"; server [::1]:80 weight=2 max_connections=5;\n"
        "    server b.internal backup resolve=5s; server unix:/s; keepalive off; eject off;\n"
        "    health_check path=/h expect=200; tls ca=ca.pem certificate=c.pem key=k.pem;\n"
        "    sticky cookie=s; slow_start 3s; protocol h2; timeout connect=1s; access_log off; }\n"
        "upstream p { server [::1]:80; proxy_protocol v2 tlvs=ssl,authority; }\n"
        "upstream p1 { server [::1]:80; proxy_protocol v1; }\n"
        "upstream g { server g:1; protocol h2c; health_check grpc service=a.B interval=1s; }\n"
        "listen [::]:443 tls proxy_protocol backlog=7 { certificate c.pem key=k.pem;\n"
        "    client_certificate optional ca=ca.pem crl=l.crl depth=2 forward=on; versions 1.3; "
        "ciphers A:B; early_data on max=1k; kernel_tls on; ticket_keys k.pem;\n"
        "    hosts x.example; header max=16k; }\n"
        "listen unix:run/sock;\n"
        "host X.example *.x.example {\n"
        "    tls { certificate c.pem key=k.pem; versions 1.3; protocols h2; ciphers A;\n"
        "        client_certificate required ca=ca.pem depth=1; }\n"
        "    function echo word='${env:DOLLAR}' template=\"${env:DOLLAR}$host\";\n"
        "    route ~* '^/(?<id>[^\"]+)\"\\d{2}$' { when method GET PUT; when header A = \"b c\";\n"
        "        when query q ~* '^x'; when header b; when client 10.0.0.0/8 ::1;\n"
        "        function echo on_error=fail_open { key k; list a \"b c\"; }\n"
        "        rewrite \"/x;y${id}?a=$1\"; proxy a weight=3 host=$host; proxy a weight=0;\n"
        "        upgrade off; grpc_web on; request_memory 2m; timeout response=2s;\n"
        "        websocket ping=20s; }\n"
        "    route = /b { respond 200 \"${env:DOLLAR}$$\\t'\\\"\"; }\n"
        "    route /c%2fd { redirect 301 https://${host}$uri; }\n"
        "    route /e { function echo slow; respond 204; }\n"
        "}\n"
        "host y.example { tls { client_certificate off; } route / { respond 204; } }\n";

struct inst {
        weir_str word, key;
        weir_text text;
        const weir_template *template;
        weir_list list;
};

static const weir_arg args[] = {
        WEIR_ARG(struct inst, word, STR, 0, NULL, ""),
        WEIR_ARG(struct inst, key, STR, WEIR_SECRET, NULL, ""),
        WEIR_ARG(struct inst, text, TEXT, 0, NULL, ""),
        WEIR_ARG(struct inst, template, TEMPLATE, 0, NULL, ""),
        WEIR_LIST(struct inst, list, STR, 0, NULL, ""),
};
static const weir_module echo = {.name = "echo",
                                 .version = "1",
                                 .args = args,
                                 .n_args = WEIR_COUNT(args),
                                 .inst_size = sizeof(struct inst),
                                 .named = "echo"};

static const struct module *find(void *ctx, str name, const weir_module **desc)
{
        (void)ctx;
        if (str_eq(name, STR("echo")))
                *desc = &echo;
        return NULL;
}

static const struct conf_handles handles = {.find = find};

static struct conf *read_linked(const char *conf)
{
        const struct memory_entry files[] = {{"/w/weir.conf", conf},
                                             {"/w/secret", "hunter2\n"},
                                             {"/w/ca.pem", "CA"},
                                             {"/w/c.pem", "C"},
                                             {"/w/k.pem", "K"},
                                             {"/w/l.crl", "L"},
                                             {0}};
        struct memory m = MEMORY(files, env);
        struct report rep = {0};
        struct conf *c = conf_read(&m.source, STR("/w/weir.conf"), STR("/w"), &rep);

        if (!c || !conf_link_functions(c, &handles, &rep) || rep.errors)
                fail_msg("%.*s", STR_ARG(buf_pullup(&rep.out, rep.out.n)));
        buf_clear(&rep.out);
        return c;
}

static char *dump(const struct conf *c)
{
        struct buf out = BUF_INIT;

        conf_dump(c, &out);
        char *z = str_dupz(buf_pullup(&out, out.n));
        buf_clear(&out);
        return z;
}

static void fixed_point(void **state)
{
        struct conf *c = read_linked(text);
        char *one = dump(c);
        struct conf *again = read_linked(one);
        char *two = dump(again);

        (void)state;
        assert_string_equal(one, two);
        assert_null(strstr(one, "hunter2"));
        assert_non_null(strstr(one, "********"));
        const struct route_conf *r = &again->hosts[0].routes[1], *was = &c->hosts[0].routes[1];
        assert_int_equal(r->body->n, was->body->n);
        ASSERT_STR(r->body->op[0].text, "$host;}$\t'\"");
        const struct inst *inst = again->hosts[0].functions[0]->inst;
        const struct template *t = (const struct template *)(const void *)inst->template;
        assert_int_equal(t->n, 2);
        ASSERT_STR(t->op[0].text, "$host;}");
        free(one);
        free(two);
        conf_free(c);
        conf_free(again);
}

/* Everything that has a default is there, though nothing was written. */
static void defaults(void **state)
{
        struct conf *c = read_linked("upstream a { server b; }");
        char *out = dump(c);
        static const char *const lines[] = {
                "threads auto;",
                "workers 1;",
                "store_size 16m;",
                "max_connections off;",
                "shutdown_timeout 30s;",
                "drain_delay off;",
                "error_log stderr level=info;",
                "control unix:/run/weir/control.sock;",
                "timeout client_head=10s client_idle=75s client_body=30s client_send=30s "
                "connect=5s "
                "response=1m response_idle=1m idle=1m tunnel=1h request=off queue=5s;",
                "retry attempts=2 on=connect_error,reset budget=20% non_idempotent=off replay=64k;",
                "body max=8m;",
                "header max=32k fields=128 line=16k;",
                "buffer request=off response=off;",
                "access_log off;",
                "upgrade on;",
                "websocket ping=off;",
                "grpc_web off;",
                "request_memory 1m;",
                "    balance round_robin;",
                "    server b weight=1 max_connections=off resolve=off;",
                "    keepalive 64;",
                "    eject failures=5 for=10s;",
        };

        (void)state;
        for (size_t i = 0; i < WEIR_COUNT(lines); i++) {
                if (!strstr(out, lines[i]))
                        fail_msg("no \"%s\" in\n%s", lines[i], out);
        }
        free(out);
        conf_free(c);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(fixed_point),
                cmocka_unit_test(defaults),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
