/*
 * Every directive: the example of its row compiles, and each way to get it wrong is shown at the
 * right place.  A directive without a wrong case fails the test.
 */
#include "conf/directive.c"

#include "conf/conf.h"

#include "../base/unit.h"
#include "memory.h"

static const struct memory_entry env[] = {{"NAME", "value"}, {"DOLLAR", "$host;}"}, {0}};

static struct conf *read_text(const char *text, struct report *rep)
{
        const struct memory_entry files[] = {{"/w/weir.conf", text},
                                             {"/w/certs/example.pem", "CERT"},
                                             {"/w/certs/example.key", "KEY"},
                                             {"/w/certs/clients.pem", "CA"},
                                             {"/w/certs/clients.crl", "CRL"},
                                             {"/w/certs/internal-ca.pem", "CA"},
                                             {"/w/certs/redis-ca.pem", "CA"},
                                             {"/etc/weir/tickets.key", "TICKETS"},
                                             {"/run/secrets/redis", "secret\n"},
                                             {"/w/errors/down.html", "<p>down"},
                                             {"/w/conf.d/b.conf", "workers 2;"},
                                             {"/w/conf.d/a.conf", "threads 3;"},
                                             {"/w/bad.inc", "\n  wrokers 2;"},
                                             {0}};
        struct memory m = MEMORY(files, env);

        *rep = (struct report){0};
        return conf_read(&m.source, STR("/w/weir.conf"), STR("/w"), rep);
}

/* Around a directive of a context. */
#define UPSTREAMS "upstream users { server 127.0.0.1:1; } "

static void in_context(unsigned context, const char *name, const char *text, char *out, size_t cap)
{
        if (context & TOP)
                snprintf(out, cap, "%s%s\n%s", strcmp(name, "upstream") ? UPSTREAMS : "",
                         strcmp(name, "module") ? "module headers;" : "", text);
        else if (context & LISTEN)
                snprintf(out, cap,
                         "listen 127.0.0.1:443 tls { %s\n%s }\nhost admin.example.com { }",
                         strcmp(name, "certificate")
                                 ? "certificate certs/example.pem key=certs/example.key;"
                                 : "",
                         text);
        else if ((context & HOST) && !strcmp(name, "tls"))
                snprintf(out, cap,
                         "listen 127.0.0.1:443 tls { certificate certs/example.pem "
                         "key=certs/example.key; } host a.example {\n%s }",
                         text);
        else if (context & HOST)
                snprintf(out, cap,
                         UPSTREAMS "listen [::1]:443 tls { certificate certs/example.pem "
                                   "key=certs/example.key; } module headers; host a.example.com "
                                   "{\n%s }",
                         text);
        else if (context & ROUTE)
                snprintf(out, cap,
                         UPSTREAMS "module headers; host * { route ~ '(?<id>.)' { %s\n%s } }",
                         !strcmp(name, "proxy") || !strcmp(name, "respond") ||
                                         !strcmp(name, "redirect")
                                 ? ""
                                 : "proxy users;",
                         text);
        else if (context & UPSTREAM)
                snprintf(out, cap, "upstream x { %s\n%s }",
                         strcmp(name, "server") ? "server 127.0.0.1:1;" : "", text);
        else
                snprintf(out, cap, "redis x { %s\n%s }",
                         strcmp(name, "server") ? "server 127.0.0.1;" : "", text);
}

static void examples(void **state)
{
        (void)state;
        for (size_t i = 0; i < directives_n; i++) {
                const struct directive *d = &directives[i];
                char text[2048];
                struct report rep;
                if (d->refused)
                        continue;
                in_context(d->contexts, d->name, d->example, text, sizeof text);
                struct conf *c = read_text(text, &rep);
                if (!c || rep.warnings)
                        fail_msg("%s\n%.*s", text, STR_ARG(buf_pullup(&rep.out, rep.out.n)));
                conf_free(c);
                buf_clear(&rep.out);
        }
}

/* In this context, with the fault at the mark, says this and nothing else. */
static const struct {
        unsigned context;
        const char *name, *text, *message;
} wrong[] = {
        {TOP, "threads", "threads @0;", "threads must be at least 1"},
        {TOP, "threads", "threads @many;", "threads: \"many\" is not a count, nor auto"},
        {TOP, "threads", "threads 1; @threads 2;", "threads is given twice (first in line 2)"},
        {TOP, "threads", "threads@;", "threads needs more: threads VALUE"},
        {TOP, "threads", "threads 1 @2;", "threads takes one word"},
        {TOP, "threads", "threads@ { }", "threads takes no block"},
        {TOP, "watch_certificates", "watch_certificates @maybe;",
         "watch_certificates: \"maybe\" is neither on nor off"},
        {TOP, "workers", "workers @65;", "workers must be at most 64"},
        {TOP, "workers", "@wrokers 2;",
         "unknown directive \"wrokers\" (did you mean \"workers\"?)"},
        {TOP, "user", "user @nobody;", "there is no user \"nobody\""},
        {TOP, "user", "user weir @wheel;", "there is no group \"wheel\""},
        {TOP, "error_log", "error_log stderr level=@inof;",
         "\"inof\" is not a level (error, warn, info, debug) (did you mean \"info\"?)"},
        {TOP, "error_log", "error_log stderr @lvel=info;",
         "error_log has no parameter \"lvel\" (did you mean \"level\"?)"},
        {TOP, "pid_file", "pid_file @\"\";", "pid_file must not be empty"},
        {TOP, "control", "control @/run/x;", "control takes unix:PATH"},
        {TOP, "control", "control @unix:;", "\"unix:\": the path is empty or too long"},
        {TOP, "admin", "admin @9901;", "\"9901\" is not ADDR:PORT"},
        {TOP, "module_path", "module_path a @b;", "module_path takes one word"},
        {TOP, "module", "module @Headers;", "\"Headers\" is not the name of a module"},
        {TOP, "module", "module a; module @a;", "module a exists already (/w/weir.conf:2)"},
        {TOP, "store_size", "store_size @16q;", "store_size: \"16q\" is not a size"},
        {TOP, "store_size", "store_size @1k;", "store_size must be at least 64k"},
        {TOP, "max_connections", "max_connections @0;",
         "max_connections must be at least 1 (or off)"},
        {TOP, "shutdown_timeout", "shutdown_timeout @30;",
         "shutdown_timeout: \"30\" is not a time (such as 250ms, 5s, 2m, 1h, 7d), nor off"},
        {TOP, "drain_delay", "drain_delay @-1s;", "drain_delay: \"-1s\" is not a time"},
        {TOP, "trusted_proxies", "trusted_proxies ::1 @10.0.0.1/8;",
         "\"10.0.0.1/8\" is not a network"},
        {TOP, "resolver", "resolver @dns.example;", "\"dns.example\" is not the address"},
        {TOP, "log_format", "log_format x '@$staus';",
         "unknown variable $staus (did you mean \"$status\"?)"},
        {TOP, "log_format", "log_format @json '$status';", "log_format json is built in"},
        {TOP, "redis", "redis @local { server 127.0.0.1; }",
         "the store named local always exists; it is no redis"},
        {TOP, "redis", "redis @a { }", "redis a needs a server"},
        {TOP, "redis", "redis a@;", "redis needs a block: redis NAME { ... }"},
        {TOP, "upstream", "upstream @a { }", "upstream a has no server"},
        {TOP, "upstream", "upstream a { server b:1; } upstream @a { server b:1; }",
         "upstream a exists already (/w/weir.conf:2)"},
        {TOP, "upstream", "upstream @a/b { server 127.0.0.1:1; }", "\"a/b\" is not a name"},
        {TOP, "listen", "listen @80;", "\"80\" is not an address to listen on"},
        {TOP, "listen", "listen @127.0.0.1:0;", "\"127.0.0.1:0\" is not an address to listen on"},
        {TOP, "listen", "listen 127.0.0.1:80 @tsl;", "listen takes no \"tsl\" here"},
        {TOP, "listen", "listen 127.0.0.1:80 backlog=@0;", "backlog must be at least 1"},
        {TOP, "listen", "listen 127.0.0.1:80 @bcklog=5;",
         "listen has no parameter \"bcklog\" (did you mean \"backlog\"?)"},
        {TOP, "listen", "listen @127.0.0.1:443 tls;", "tls needs a certificate"},
        {TOP, "listen", "listen 127.0.0.1:80; listen @127.0.0.1:80;",
         "listen 127.0.0.1:80 exists already (line 2)"},
        {TOP, "host", "host @a:80 { }", "a host has no port"},
        {TOP, "host", "host @a/b { }", "\"a/b\" is not a host"},
        {TOP, "host", "host a @A { }", "host a exists already"},
        {TOP, "timeout", "timeout client_head=@10;", "client_head: \"10\" is not a time"},
        {TOP, "timeout", "timeout @conect=1s;",
         "timeout has no parameter \"conect\" (did you mean \"connect\"?)"},
        {TOP, "timeout", "timeout connect=1s @connect=2s;", "connect is given twice"},
        {TOP, "timeout", "timeout connect=1s; timeout @connect=2s;", "connect is given twice"},
        {TOP, "timeout", "timeout@;", "timeout needs more: timeout KEY=TIME..."},
        {TOP, "timeout", "timeout @5s;", "timeout takes no \"5s\" here: timeout KEY=TIME..."},
        {HOST, "timeout", "timeout @client_head=1s;",
         "timeout client_head does not belong in a host block, but in the top"},
        {LISTEN, "timeout", "timeout @connect=1s;",
         "timeout connect does not belong in a listen block, but in the top"},
        {TOP, "retry", "retry attempts=@17;", "attempts must be at most 16"},
        {TOP, "retry", "retry on=reset,@rest;",
         "on: \"rest\" is not a cause of retries (did you mean \"reset\"?)"},
        {TOP, "retry", "retry on=502,@grpc_unavialable;",
         "on: \"grpc_unavialable\" is not a cause of retries (did you mean \"grpc_unavailable\"?)"},
        {TOP, "retry", "retry replay=@17m;", "replay must be at most 16m (or off)"},
        {TOP, "retry", "retry budget=@120%;", "budget: \"120%\" is not a share"},
        {TOP, "retry", "retry @never;", "retry takes no \"never\" here"},
        {TOP, "retry", "retry @off attempts=2;", "retry off takes no parameters"},
        {TOP, "body", "body max=@8x;",
         "max: \"8x\" is not a size (such as 512, 8k, 1m, 2g), nor off"},
        {TOP, "header", "header fields=@4;", "fields must be at least 8"},
        {ROUTE, "header", "@header fields=40;",
         "header does not belong in a route block, but in the top"},
        {TOP, "buffer", "buffer request=@2g;", "request must be at most 1g (or off)"},
        {TOP, "access_log", "access_log stdout format=@jsn;",
         "there is no log_format jsn (did you mean \"json\"?)"},
        {TOP, "access_log", "access_log off format=@json;", "access_log off takes no parameters"},
        {TOP, "error_page", "error_page @200 text=x;",
         "\"200\" is not a status between 400 and 599"},
        {TOP, "error_page", "error_page 502@;", "error_page needs file=FILE or text=TEXT"},
        {TOP, "error_page", "error_page 502 @502 text=x;", "error_page 502 is given twice"},
        {TOP, "error_page", "error_page 502 file=@no.html;",
         "cannot read /w/no.html: No such file or directory"},
        {ROUTE, "upgrade", "upgrade @no;", "upgrade: \"no\" is neither on nor off"},
        {ROUTE, "upgrade", "upgrade on; @upgrade off;", "upgrade is given twice"},
        {ROUTE, "grpc_web", "grpc_web @text;", "grpc_web: \"text\" is neither on nor off"},
        {ROUTE, "websocket", "websocket@;", "websocket needs"},
        {ROUTE, "websocket", "websocket ping=@often;", "ping: \"often\" is not a time"},
        {HOST, "route", "websocket ping=1h; @route / { timeout tunnel=1m; proxy users; }",
         "websocket ping=1h is not shorter than timeout tunnel=1m here"},
        {ROUTE, "request_memory", "request_memory @1k;", "request_memory must be at least 64k"},
        {ROUTE, "function", "function @haeders;",
         "module haeders is not loaded: module haeders; at the top (did you mean \"headers\"?)"},
        {ROUTE, "function", "function @lua <<X\nX\n",
         "module lua is not loaded: module lua; at the top"},
        {ROUTE, "function", "function headers on_error=@maybe;", "on_error: \"maybe\" is neither"},
        {ROUTE, "function", "function headers budget=@0;", "budget must be at least 1ms"},
        {ROUTE, "function", "function headers log_lines=@few;",
         "log_lines: \"few\" is not a count, nor off"},
        {ROUTE, "function", "function headers log_lines=@0;", "log_lines must be at least 1"},
        {HOST, "tls", "tls { versions @1.1; }", "\"1.1\" is not a version of TLS"},
        {HOST, "route", "route @users { respond 204; }", "\"users\" is not a path"},
        {HOST, "route", "route @~~ /x { respond 204; }", "\"~~\" is not one of =, ~ and ~*"},
        {HOST, "route", "route /a@?b { respond 204; }", "a route sees no query"},
        {HOST, "route", "route @/a%zz { respond 204; }", "\"/a%zz\" is not a path that a request"},
        {HOST, "route", "route ~ '^/(@' { respond 204; }", "the regex does not compile"},
        {HOST, "route", "route ~ '(?<@path>.)' { respond 204; }",
         "the capture path has the name of a variable"},
        {HOST, "route", "@route /a { }", "the route has no action (proxy, respond or redirect)"},
        {HOST, "route", "route /a { respond 204; @respond 205; }",
         "respond is given twice (first in line 2)"},
        {HOST, "route", "route /a { respond 200 @\"x; }", "the quote is never closed"},
        {HOST, "route", "route /a { respond 204; @proxy users; }", "a route has one action"},
        {HOST, "route", "@proxy users;",
         "proxy does not belong in a host block, but in a route block"},
        {ROUTE, "when", "when @methd GET;",
         "\"methd\" is not method, header, query or client (did you mean \"method\"?)"},
        {ROUTE, "when", "when method @\"G T\";", "\"G T\" is not a method"},
        {ROUTE, "when", "when header @\"a b\";", "\"a b\" is not a name"},
        {ROUTE, "when", "when header a @== b;", "\"==\" is not one of =, ~ and ~*"},
        {ROUTE, "when", "when header a =@;", "one word is expected behind \"=\""},
        {ROUTE, "when", "when query a ~ '[@';", "the regex does not compile"},
        {ROUTE, "when", "when client @300.0.0.0/8;", "\"300.0.0.0/8\" is not a network"},
        {ROUTE, "when", "when client@;", "when needs more"},
        {ROUTE, "rewrite", "rewrite @x/$id;", "a path begins with \"/\""},
        {ROUTE, "rewrite", "rewrite /a/@$ix;", "unknown variable $ix (did you mean \"$id\"?)"},
        {ROUTE, "rewrite", "rewrite /a/@$2;", "$2: the route's regex has no such group"},
        {ROUTE, "rewrite", "rewrite /a/@$status;",
         "$status is not known before there is a response"},
        {ROUTE, "rewrite", "rewrite \"/\\n@$nope\";", "unknown variable $nope"},
        {ROUTE, "proxy", "proxy @uesrs;", "there is no upstream uesrs (did you mean \"users\"?)"},
        {ROUTE, "proxy", "proxy users weight=@-1;", "weight: \"-1\" is not a count"},
        {ROUTE, "proxy", "@proxy users weight=0;", "all weights of the route are 0"},
        {ROUTE, "proxy", "proxy users host=@$nope;", "unknown variable $nope"},
        {ROUTE, "respond", "respond @100;", "\"100\" is not a status between 200 and 599"},
        {ROUTE, "respond", "respond 204 @x;", "a 204 response has no body"},
        {ROUTE, "respond", "respond 200 \"a@$\";", "\"$\" without a name"},
        {ROUTE, "redirect", "redirect @200 /;", "\"200\" is not a status between 300 and 399"},
        {ROUTE, "redirect", "redirect @304 /;", "redirect takes 301, 302, 303, 307 or 308"},
        {ROUTE, "redirect", "redirect 308 https://@${nope}/;", "unknown variable $nope"},
        {UPSTREAM, "server", "server @10.0.0.1:99999;", "\"10.0.0.1:99999\" has no port between"},
        {UPSTREAM, "server", "server @10.0.0.300:80;", "\"10.0.0.300:80\" is not an address"},
        {UPSTREAM, "server", "server @a/b;", "\"a/b\" is not an address"},
        {UPSTREAM, "server", "server a:1; server @a:1;", "server a:1 exists already (line 2)"},
        {UPSTREAM, "server", "server 127.0.0.1:80; server @127.0.0.1;",
         "server 127.0.0.1 exists already as 127.0.0.1:80 (line 2)"},
        {UPSTREAM, "server", "server a.test; tls; server @A.test:443;",
         "server A.test:443 exists already as a.test (line 2)"},
        {UPSTREAM, "server", "server [::1]:81; server @[0:0::1]:81;",
         "server [0:0::1]:81 exists already as [::1]:81 (line 2)"},
        {UPSTREAM, "server", "server unix:/a; server unix:/b; server @unix:/a;",
         "server unix:/a exists already (line 2)"},
        {UPSTREAM, "server", "server a:1 weight=@0;", "weight must be at least 1"},
        {UPSTREAM, "server", "server a:1 @wieght=2;",
         "server has no parameter \"wieght\" (did you mean \"weight\"?)"},
        {UPSTREAM, "server", "server a:1 @zone=b;", "zone= is not part of this version of weir"},
        {UPSTREAM, "server", "server a:1 @bakcup;", "server takes no \"bakcup\" here"},
        {UPSTREAM, "balance", "balance @least_con;",
         "\"least_con\" is not a way to balance (did you mean \"least_conn\"?)"},
        {UPSTREAM, "balance", "balance hash@;", "hash needs a template"},
        {UPSTREAM, "balance", "balance p2c @x;", "only hash takes a template"},
        {UPSTREAM, "health_check", "health_check path=@x;", "path: \"x\" is not a path"},
        {UPSTREAM, "health_check", "health_check expect=@400-200;", "expect: \"400-200\" is not"},
        {UPSTREAM, "health_check", "health_check @off interval=1s;",
         "health_check off takes no parameters"},
        {UPSTREAM, "health_check", "protocol h2c; health_check @gprc;",
         "health_check: \"gprc\" is neither grpc nor off (did you mean \"grpc\"?)"},
        {UPSTREAM, "health_check", "health_check @grpc;",
         "health_check grpc needs HTTP/2: protocol h2c, or h2 with tls"},
        {UPSTREAM, "health_check", "protocol h2c; health_check grpc path=@/x;",
         "path is for checks by GET: health_check grpc takes service"},
        {UPSTREAM, "health_check", "protocol h2c; health_check grpc expect=@200;",
         "expect is for checks by GET"},
        {UPSTREAM, "health_check", "health_check service=@a.B;",
         "service needs grpc: health_check grpc service=a.B;"},
        {UPSTREAM, "eject", "eject failures=@0;", "failures must be at least 1"},
        {UPSTREAM, "eject", "eject off; @eject off;", "eject is given twice"},
        {UPSTREAM, "keepalive", "keepalive @0;", "keepalive must be at least 1 (or off)"},
        {UPSTREAM, "slow_start", "slow_start @x;", "slow_start: \"x\" is not a time"},
        {UPSTREAM, "protocol", "protocol @h2;", "protocol h2 needs tls; HTTP/2 without it is"},
        {UPSTREAM, "protocol", "tls; protocol @h2c;", "protocol h2c is HTTP/2 without tls"},
        {UPSTREAM, "protocol", "protocol @http/2;", "\"http/2\" is not a protocol"},
        {UPSTREAM, "proxy_protocol", "proxy_protocol @v3;", "\"v3\" is not off, v1 or v2"},
        {UPSTREAM, "proxy_protocol", "proxy_protocol v1 tlvs=@ssl;", "tlvs= needs v2"},
        {UPSTREAM, "proxy_protocol", "proxy_protocol v2 tlvs=@ssl,sni;",
         "tlvs: \"sni\" is not one of"},
        {UPSTREAM, "proxy_protocol", "proxy_protocol @v2; protocol h2c;",
         "proxy_protocol says whose"},
        {UPSTREAM, "proxy_protocol", "tls; protocol h2; proxy_protocol @v1;",
         "proxy_protocol says whose"},
        {UPSTREAM, "tls", "tls ca=@no.pem;", "cannot read /w/no.pem: No such file or directory"},
        {UPSTREAM, "tls", "tls certificate=certs/example.pem@;", "certificate= and key= belong"},
        {UPSTREAM, "sticky", "sticky cookie=\"@a b\";", "\"a b\" is not the name of a cookie"},
        {LISTEN, "hosts", "hosts @admn.example.com;",
         "there is no host admn.example.com (did you mean \"admin.example.com\"?)"},
        {LISTEN, "certificate", "certificate certs/example.pem@;", "certificate needs key=FILE"},
        {LISTEN, "certificate", "certificate certs/example.pem key=certs/example.key ocsp=@no.der;",
         "cannot read /w/no.der: No such file or directory"},
        {LISTEN, "certificate", "certificate certs/example.pem key=certs/example.key @ocps=fetch;",
         "certificate has no parameter \"ocps\" (did you mean \"ocsp\"?)"},
        {TOP, "ticket_keys", "ticket_keys@;", "ticket_keys needs FILE, redis= or rotate="},
        {TOP, "ticket_keys", "ticket_keys @no.key;", "cannot read /w/no.key"},
        {TOP, "ticket_keys", "ticket_keys rotate=@1ms;", "rotate must be at least 1s"},
        {TOP, "ticket_keys", "ticket_keys rotate=1h check=@1s;", "ticket_keys: check= is for FILE"},
        {TOP, "ticket_keys", "ticket_keys rotate=1h prefix=@x;",
         "ticket_keys: prefix= is for redis="},
        {TOP, "ticket_keys", "ticket_keys redis=@nobody;", "there is no redis nobody"},
        {TOP, "ticket_keys", "ticket_keys /etc/weir/tickets.key rotate=@1h;",
         "ticket_keys: rotate= is for keys that weir makes"},
        {TOP, "ticket_keys", "ticket_keys /etc/weir/tickets.key redis=@x;",
         "ticket_keys: redis= and FILE exclude each other"},
        {TOP, "ocsp_fetch", "ocsp_fetch timeout=@0;", "timeout must be at least 1ms"},
        {LISTEN, "protocols", "protocols @h2c http/1.1;", "h2c is without tls"},
        {LISTEN, "protocols", "protocols h2 @h2;", "h2 is given twice"},
        {LISTEN, "protocols", "protocols @h3;", "\"h3\" is not a protocol"},
        {LISTEN, "versions", "versions @1.1;", "\"1.1\" is not a version of TLS (1.2 or 1.3)"},
        {LISTEN, "ciphers", "ciphers a @b;", "ciphers takes no \"b\" here"},
        {LISTEN, "client_certificate", "client_certificate required@;",
         "client_certificate required needs ca=FILE"},
        {HOST, "tls", "tls@;", "tls needs a block: tls { ... }"},
        {HOST, "tls", "tls { @ticket_keys k; }",
         "ticket_keys does not belong in the tls block of a host, but in the top"},
        {LISTEN, "client_certificate", "client_certificate @off ca=certs/clients.pem;",
         "client_certificate off takes no parameters"},
        {LISTEN, "client_certificate",
         "client_certificate optional ca=certs/clients.pem crl=@no.crl;",
         "cannot read /w/no.crl: No such file or directory"},
        {LISTEN, "client_certificate",
         "client_certificate optional ca=certs/clients.pem depth=@33;", "depth must be at most 32"},
        {LISTEN, "client_certificate",
         "client_certificate optional ca=certs/clients.pem @forwards=on;",
         "client_certificate has no parameter \"forwards\" (did you mean \"forward\"?)"},
        {LISTEN, "client_certificate", "client_certificate @maybe;",
         "\"maybe\" is not off, optional"},
        {LISTEN, "early_data", "early_data @maybe;", "\"maybe\" is not on or off"},
        {LISTEN, "early_data", "early_data on max=@0;", "max must be at least 1"},
        {LISTEN, "early_data", "early_data @on; versions 1.2;", "early_data needs versions 1.3"},
        {LISTEN, "kernel_tls", "kernel_tls @onn;",
         "\"onn\" is not on or off (did you mean \"on\"?)"},
        {TOP, "listen", "listen 127.0.0.1:80 { @kernel_tls on; }",
         "kernel_tls makes no sense without tls"},
        {TOP, "listen",
         "listen unix:/run/s tls { certificate certs/example.pem key=certs/example.key; kernel_tls "
         "@on; }",
         "kernel_tls needs TCP: the kernel has no TLS for unix sockets"},
        {LISTEN, "ticket_keys", "ticket_keys @no.key;", "cannot read /w/no.key"},
        {LISTEN, "http2", "http2@;", "http2 needs more"},
        {LISTEN, "http2", "http2 max_streams=@0;", "max_streams"},
        {TOP, "listen", "listen 127.0.0.1:80 { @versions 1.2; }",
         "versions makes no sense without tls"},
        {TOP, "listen", "listen 127.0.0.1:80 { protocols @h2; }", "h2 needs tls"},
        {REDIS, "server", "server @127.0.0.1:x;",
         "\"127.0.0.1:x\" has no port between 1 and 65535"},
        {REDIS, "user", "user @\"\";", "user must not be empty"},
        {REDIS, "password", "password @\"\";", "password must not be empty"},
        {REDIS, "database", "database @x;", "database: \"x\" is not a count"},
        {REDIS, "timeout", "timeout command=@0;", "command must be at least 1ms"},
        {REDIS, "timeout", "timeout @respnse=1s;", "timeout has no parameter \"respnse\""},
        {REDIS, "tls", "tls verify=@yes;", "verify: \"yes\" is neither on nor off"},
};

static bool expect_mistake(size_t i)
{
        char text[2048], marked[2048], want[512];
        struct report rep;

        in_context(wrong[i].context, wrong[i].name, wrong[i].text, marked, sizeof marked);
        const char *mark = strchr(marked, '@'), *start = mark;
        unsigned line = 1;
        while (start > marked && start[-1] != '\n')
                start--;
        for (const char *p = marked; p < mark; p++)
                line += *p == '\n';
        snprintf(text, sizeof text, "%.*s%s", (int)(mark - marked), marked, mark + 1);
        snprintf(want, sizeof want, "/w/weir.conf:%u:%d: %s", line, (int)(mark - start) + 1,
                 wrong[i].message);
        struct conf *c = read_text(text, &rep);
        str out = buf_pullup(&rep.out, rep.out.n);
        if (c || rep.errors != 1 || !str_starts(out, str_z(want)))
                print_error("%s\nwanted %s\n%u mistakes: %.*s\n", text, want, rep.errors,
                            STR_ARG(out));
        bool right = !c && rep.errors == 1 && str_starts(out, str_z(want));
        conf_free(c);
        buf_clear(&rep.out);
        return right;
}

static void mistakes(void **state)
{
        bool right = true;

        (void)state;
        for (size_t i = 0; i < COUNT(wrong); i++)
                right = expect_mistake(i) && right;
        assert_true(right);
        for (size_t i = 0; i < directives_n; i++) {
                size_t k = 0;
                while (k < COUNT(wrong) && !((wrong[k].context & directives[i].contexts) &&
                                             strcmp(wrong[k].name, directives[i].name) == 0))
                        k++;
                if (k == COUNT(wrong))
                        fail_msg("%s has no wrong case", directives[i].name);
        }
}

static void all_at_once(void **state)
{
        struct report rep;
        struct conf *c = read_text("threads x;\n"
                                   "listen 127.0.0.1:80\n"
                                   "workers 2;\n"
                                   "user \"weir;\n"
                                   "upstream a { server 1.1.1.1; blance p2c; }\n"
                                   "include bad.inc;\n"
                                   "host * {\n"
                                   "    route / { proxy b; }\n"
                                   "}}\n",
                                   &rep);
        static const char want[] =
                "/w/weir.conf:1:9: threads: \"x\" is not a count, nor auto\n"
                "    threads x;\n"
                "            ^\n"
                "/w/weir.conf:3:1: a \";\" is missing before this line\n"
                "    workers 2;\n"
                "    ^\n"
                "/w/weir.conf:4:6: the quote is never closed\n"
                "    user \"weir;\n"
                "         ^\n"
                "/w/weir.conf:5:30: unknown directive \"blance\" (did you mean \"balance\"?)\n"
                "    upstream a { server 1.1.1.1; blance p2c; }\n"
                "                                 ^\n"
                "/w/weir.conf:8:21: there is no upstream b (did you mean \"a\"?)\n"
                "        route / { proxy b; }\n"
                "                        ^\n"
                "/w/weir.conf:9:2: \"}\" without its \"{\"\n"
                "    }}\n"
                "     ^\n"
                "/w/bad.inc:2:3: unknown directive \"wrokers\" (did you mean \"workers\"?)\n"
                "      wrokers 2;\n"
                "      ^\n";

        (void)state;
        assert_null(c);
        str out = buf_pullup(&rep.out, rep.out.n);
        if (!str_eq(out, str_z(want)))
                fail_msg("%.*s", STR_ARG(out));
        buf_clear(&rep.out);
}

static void warnings(void **state)
{
        static const struct {
                const char *routes;
                unsigned shadowed;
        } cases[] = {
                {"route / { respond 204; } route /a { respond 204; }", 1},
                {"route /a { respond 204; } route /a/b { respond 204; } route /ab { respond 204; }",
                 1},
                {"route /a/ { respond 204; } route /a { respond 204; } route = /a/b { respond 204; "
                 "}",
                 1},
                {"route = /a { respond 204; } route /a { respond 204; } route = /a { respond 204; "
                 "}",
                 1},
                {"route ~ a { respond 204; } route ~ a { respond 204; } route ~* a { respond 204; "
                 "}",
                 1},
                {"route /a { when method GET; respond 204; } route /a { respond 204; }", 0},
                {"route /a%2fb { respond 204; } route /a%2Fb { respond 204; }", 1},
        };

        (void)state;
        for (size_t i = 0; i < COUNT(cases); i++) {
                char text[512];
                struct report rep;
                snprintf(text, sizeof text, "host * { %s }", cases[i].routes);
                struct conf *c = read_text(text, &rep);
                assert_non_null(c);
                if (rep.warnings != cases[i].shadowed)
                        fail_msg("%s: %u", text, rep.warnings);
                conf_free(c);
                buf_clear(&rep.out);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(examples),
                cmocka_unit_test(mistakes),
                cmocka_unit_test(all_at_once),
                cmocka_unit_test(warnings),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
