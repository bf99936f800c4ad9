/*
 * A configuration after it was read: immutable structs, all in one arena, shared by all threads of
 * a process.
 *
 * Made by compile and link from the tree; nothing in it points to anything that changes. Functions'
 * arguments are filled in last (conf_link_functions), because modules are loaded only after the
 * checker dropped its privileges. Times in microseconds, 0 is off; sizes in bytes, 0 is no limit,
 * unless said otherwise.
 */
#ifndef CONF_MODEL_H
#define CONF_MODEL_H

#include "base/addr.h"
#include "base/constant.h"
#include "base/map.h"
#include "base/regex.h"
#include "conf/report.h"
#include "conf/template.h"

#include <weir/module.h>

struct chain_plan; /* proxy/instance.h */
struct instance;
struct argument_places; /* conf/argument.h */
struct conf_link;       /* conf/compile.h: what linking needs */
struct module;          /* module/module.h */
struct tree;            /* conf/tree.h */

/* ------------------------------------------------------------------ settings */

enum {
        RETRY_CONNECT_ERROR = 1,
        RETRY_RESET = 2,
        RETRY_TIMEOUT = 4,
        RETRY_502 = 8,
        RETRY_503 = 16,
        RETRY_504 = 32,
        RETRY_GRPC_CANCELLED = 64, /* grpc-status of an answer */
        RETRY_GRPC_UNKNOWN = 128,
        RETRY_GRPC_DEADLINE_EXCEEDED = 256,
        RETRY_GRPC_RESOURCE_EXHAUSTED = 512,
        RETRY_GRPC_ABORTED = 1024,
        RETRY_GRPC_INTERNAL = 2048,
        RETRY_GRPC_UNAVAILABLE = 4096,
        RETRY_GRPC = 8191 & ~63 /* any of them */
};

enum setting_id { /* bit numbers in settings.set */
                  SET_CLIENT_HEAD,
                  SET_CLIENT_BODY,
                  SET_CLIENT_SEND,
                  SET_CLIENT_IDLE,
                  SET_CONNECT,
                  SET_RESPONSE,
                  SET_RESPONSE_IDLE,
                  SET_IDLE,
                  SET_TUNNEL,
                  SET_REQUEST,
                  SET_QUEUE,
                  SET_RETRY_ATTEMPTS,
                  SET_RETRY_ON,
                  SET_RETRY_BUDGET,
                  SET_RETRY_NON_IDEMPOTENT,
                  SET_RETRY_REPLAY,
                  SET_BODY_MAX,
                  SET_HEADER_MAX,
                  SET_HEADER_FIELDS,
                  SET_HEADER_LINE,
                  SET_BUFFER_REQUEST,
                  SET_BUFFER_RESPONSE,
                  SET_ACCESS_LOG,
                  SET_ERROR_PAGES,
                  SET_UPGRADE,
                  SET_GRPC_WEB,
                  SET_REQUEST_MEMORY,
                  SET_WEBSOCKET_PING,
                  SETTINGS
};

struct access_log_conf {               /* unique per (path, format) in a configuration */
        str path;                      /* absolute, or "stdout" */
        str format_name;               /* "combined", "json", or a log_format */
        const struct template *format; /* NULL for the two built-in ones */
        uint32_t index;                /* in conf.access_logs */
};

struct error_page {
        uint16_t status;
        str body, content_type;
        str file; /* that it was read from; absent: written in the configuration */
};

/* Values of one scope; only those whose bit is in set were written there.  In an effective one all
 * are valid. */
struct settings {
        uint64_t set;
        int64_t client_head, client_body, client_send, client_idle, connect, response,
                response_idle, idle, tunnel, request, queue;
        uint32_t retry_attempts, retry_on; /* RETRY_* */
        double retry_budget;               /* share of requests, 0.2 */
        bool retry_non_idempotent;
        uint64_t retry_replay; /* bytes of a call of gRPC; 0: none */
        uint64_t body_max, header_max, header_fields, header_line;
        uint64_t buffer_request, buffer_response;
        const struct access_log_conf *access_log; /* NULL: off */
        const struct error_page *error_pages;
        size_t n_error_pages;
        bool upgrade, grpc_web;
        int64_t websocket_ping;
        uint64_t request_memory; /* arena of a request, functions included */
};

/* Per key (of error_page: per status): route, then upstream, then host, then top, then the default.
 * Any may be NULL but top.  Pages of several scopes are put together in a. */
void settings_merge(struct arena *a, struct settings *out, const struct settings *route,
                    const struct settings *upstream, const struct settings *host,
                    const struct settings *top);

/* ------------------------------------------------------------------ functions */

enum { ON_ERROR_FAIL_CLOSED, ON_ERROR_FAIL_OPEN };

/* What is known of a string among a function's arguments. */
enum {
        CONSTANT_NAME = 1, /* a field's that a function may set; id is its enum field_id */
        CONSTANT_VALUE = 2 /* of a field, just as it is sent */
};

/* One `function` line (or one named block such as `limit NAME {}`): what becomes an instance. */
struct function_conf {
        struct conf_pos pos;
        str module; /* its name */
        str name;  /* name=, or the named block's, or made of route and place: stable across reloads
                    */
        str label; /* "ratelimit per-key (weir.conf:12)" for messages */
        int on_error;
        int64_t timeout, budget; /* default 5s, 10ms */
        uint64_t memory;         /* 0: the request's */
        uint32_t log_lines;      /* a second; 0: any number */
        uint32_t written;        /* which of these six were, for conf's own use */
        const struct tree *tree; /* its words and block, until linked */
        const struct template_scope *scope;
        struct argument_places *places; /* for conf_function_error */
        /* conf_link_functions: */
        const struct module *mod;
        const weir_module *desc;
        void *inst; /* desc->inst_size bytes, arguments filled in; create has not been called */
        const struct constants *constants; /* among them; NULL: not linked, or shared's */
        uint32_t index;                    /* in conf.functions */
        struct function_conf
                *shared; /* `function ratelimit NAME;`: the named block's; else itself */
        struct instance
                *instance; /* of shared ones: what instances_create made of it (proxy/instance.c) */
};

struct module_conf { /* `module NAME [path];` */
        struct conf_pos pos;
        str name, path; /* path: absolute */
};

/* ------------------------------------------------------------------ routes and hosts */

struct listen_conf;
struct upstream_conf;

enum route_kind { ROUTE_PREFIX, ROUTE_SEGMENT, ROUTE_EXACT, ROUTE_REGEX };
enum when_kind { WHEN_METHOD, WHEN_HEADER, WHEN_QUERY, WHEN_CLIENT };
enum when_op { WHEN_PRESENT, WHEN_EQUAL, WHEN_REGEX };

struct when {
        enum when_kind kind;
        enum when_op op;
        bool icase; /* of the regex */
        str name;   /* header or query parameter */
        str value;
        const struct regex *regex;
        const str *methods;
        size_t n_methods;
        const struct cidr *nets;
        size_t n_nets;
};

enum action_kind { ACTION_PROXY, ACTION_RESPOND, ACTION_REDIRECT, ACTION_FUNCTION };

struct proxy_target {
        const struct upstream_conf *upstream;
        uint32_t weight;
        const struct template *host; /* Host sent; NULL: the client's */
        struct settings eff;         /* effective for this route and upstream */
};

struct route_conf {
        struct conf_pos pos;
        uint32_t index; /* in its host, in the order written */
        enum route_kind kind;
        bool icase;
        str pattern; /* literal in normal form, or the regex */
        str label;   /* "~ ^/users/(?<id>\d+)" as written: $route, metrics */
        const struct regex *regex;
        const struct when *whens;
        size_t n_whens;
        enum action_kind action;
        struct proxy_target *targets;
        size_t n_targets;
        uint32_t weight_sum;
        int status;                     /* respond, redirect */
        const struct template *body;    /* respond body or redirect URL; NULL: none */
        const struct template *rewrite; /* path sent; NULL: none */
        bool rewrite_query;             /* the template holds a '?' */
        struct function_conf **functions;
        size_t n_functions; /* the host's first, then its own */
        const struct chain_plan
                *plan;       /* their hooks, worked out by instances_create; NULL: none has any */
        struct settings own; /* as written in the route */
        struct settings eff; /* effective without an upstream */
        const struct host_conf *host;
};

struct host_conf {
        struct conf_pos pos;
        const str *names;
        size_t n_names; /* lower case: "api.example.com" "*.example.com" "*" */
        struct route_conf *routes;
        size_t n_routes;
        struct function_conf **functions;
        size_t n_functions; /* its own: the first of each route's */
        /* Its tls block; NULL: none.  Only what tells of TLS counts, and of that what is written:
         * the rest is 0 or absent, and the listener's holds. */
        const struct listen_conf *tls;
        uint32_t tls_index; /* among the hosts that have one */
        struct settings own;
        uint32_t index;
};

/* ------------------------------------------------------------------ upstreams */

enum balance {
        BALANCE_ROUND_ROBIN,
        BALANCE_LEAST_CONN,
        BALANCE_RANDOM,
        BALANCE_P2C,
        BALANCE_LEAST_TIME,
        BALANCE_HASH
};

struct server_conf {
        struct conf_pos pos;
        str text;         /* "users.internal:8080" as written: label of metrics */
        struct addr addr; /* len 0: host is a name */
        str host;
        uint16_t port;
        uint32_t weight;          /* 1..65535, default 1 */
        uint32_t max_connections; /* 0: none */
        bool backup;
        int64_t resolve; /* floor under the TTL */
};

struct file_text {
        str file, text;
}; /* a file that was read, under its name */

/* Values in the PROXY header that servers get. */
enum { PROXY_TLV_AUTHORITY = 1, PROXY_TLV_ALPN = 2, PROXY_TLV_UNIQUE_ID = 4, PROXY_TLV_SSL = 8 };

enum upstream_protocol { PROTOCOL_HTTP1, PROTOCOL_H2C, PROTOCOL_H2 };

struct upstream_conf {
        struct conf_pos pos;
        str name;
        uint32_t index;
        enum balance balance;
        const struct template *hash;
        const struct server_conf *servers;
        size_t n_servers;
        uint32_t keepalive; /* default 64 per server, divided among the loops */
        /* health_check; interval 0: none */
        bool check_grpc;               /* by grpc.health.v1; else a GET */
        str check_path, check_service; /* each where it is the one that counts */
        struct conf_pos check_pos;
        int64_t check_interval, check_timeout;
        uint32_t check_fall, check_rise;
        uint16_t expect_min, expect_max;
        uint32_t eject_failures;
        int64_t eject_for; /* eject off: failures 0 */
        int64_t slow_start;
        str sticky_cookie;
        enum upstream_protocol protocol;
        uint32_t proxy_version, proxy_tlvs; /* 0: no PROXY header; PROXY_TLV_* */
        bool tls, tls_verify;
        struct conf_pos tls_pos;
        struct file_text tls_ca, tls_cert, tls_key;
        str tls_name;
        struct settings own;
        struct settings eff; /* effective without a route: of requests that functions make */
};

/* ------------------------------------------------------------------ listeners */

enum listen_ocsp { LISTEN_OCSP_OFF, LISTEN_OCSP_FILE, LISTEN_OCSP_FETCH };

struct listen_cert {
        struct file_text cert, key;
        uint32_t index; /* in conf.certs */
        const struct listen_conf
                *of; /* where it stands: a listener, or (without addr) a host's block */
        struct conf_pos cert_pos, key_pos;
        enum listen_ocsp ocsp;
        struct file_text ocsp_file; /* a response in DER */
        struct conf_pos ocsp_pos;
};

struct listen_conf {
        struct conf_pos pos;
        struct addr addr;
        str text; /* as written: label */
        bool tls, proxy_protocol, v6only;
        int backlog; /* default 4096 */
        const str *hosts;
        size_t n_hosts; /* 0: all */
        struct listen_cert *certs;
        size_t n_certs;
        const str *protocols; /* "h2" (TLS), "h2c" (plain), "http/1.1", in order of preference */
        size_t n_protocols;
        uint32_t h2_max_streams, h2_requests, h2_continuations;
        uint32_t h2_resets, h2_pings, h2_settings, h2_priorities; /* in 10 s */
        uint32_t h2_empty_data, h2_window_updates, h2_unknown;    /* the same */
        int version_min, version_max;                             /* 12, 13 */
        str ciphers;
        int client_certificate; /* TLS_CLIENT_OFF OPTIONAL REQUIRED: 0 1 2 */
        bool client_written;    /* client_certificate stands in this block */
        struct file_text client_ca, client_crl;
        uint32_t client_depth;
        bool client_forward; /* servers get the certificate as Client-Cert */
        bool early_data;
        uint32_t max_early_data;
        struct conf_pos early_data_pos;
        bool kernel_tls;
        struct conf_pos kernel_tls_pos;
        struct conf_pos ciphers_pos, client_ca_pos, client_crl_pos;
        struct settings own; /* as written in its block */
        struct settings eff; /* client_* and header limits: its own, then the top's */
        uint32_t index;
};

/* A listener may serve some hosts only. */
static inline bool listen_serves(const struct listen_conf *l, const struct host_conf *h)
{
        for (size_t i = 0; i < l->n_hosts; i++)
                for (size_t k = 0; k < h->n_names; k++)
                        if (str_eq(l->hosts[i], h->names[k]))
                                return true;
        return l->n_hosts == 0;
}

struct redis_store_conf {
        struct conf_pos pos;
        str name, host;
        struct addr addr;
        uint16_t port;
        str user, password;
        uint32_t database;
        bool tls, tls_verify;
        struct conf_pos tls_pos;
        struct file_text tls_ca, tls_cert, tls_key;
        str tls_name;
        int64_t connect, command; /* default 200ms, 50ms */
        uint32_t index;
};

/* ------------------------------------------------------------------ all of it */

struct conf {
        struct arena *arena;
        str file;         /* main file, absolute */
        str prefix;       /* against which relative paths are taken, absolute */
        uint32_t threads; /* 0: auto */
        uint32_t workers;
        str user, group;
        bool has_user;
        uint32_t uid, gid;
        str error_log;
        int log_level;                      /* "stderr" or an absolute path; enum log_level */
        str pid_file, control, module_path; /* control: path of the unix socket, absolute */
        bool has_admin;
        struct addr admin;
        str admin_text;
        uint64_t store_size, max_connections;
        bool watch_certificates;
        int64_t shutdown_timeout, drain_delay;
        int64_t ocsp_timeout, ocsp_retry;
        /* ticket_keys: from a file, from a store (by name until linked), or made here. */
        bool has_tickets;
        struct conf_pos ticket_pos;
        struct file_text ticket_file;
        str ticket_redis, ticket_prefix;
        const struct redis_store_conf *ticket_store;
        int64_t ticket_rotate, ticket_check;
        const struct cidr *trusted;
        size_t n_trusted;
        const str *resolvers;
        size_t n_resolvers;

        struct listen_conf *listens;
        size_t n_listens;
        struct host_conf *hosts;
        size_t n_hosts, n_host_tls;       /* of these have a tls block */
        const struct listen_cert **certs; /* of listeners and hosts, those of one side by side */
        size_t n_certs;
        struct upstream_conf *upstreams;
        size_t n_upstreams;
        struct redis_store_conf *redises;
        size_t n_redises;
        struct module_conf *modules;
        size_t n_modules;
        struct function_conf **functions;
        size_t n_functions; /* every instance once, named blocks first */
        struct access_log_conf *access_logs;
        size_t n_access_logs;
        struct settings top;    /* as written at the top */
        struct settings eff;    /* the top's with defaults */
        struct map *variables;  /* names "MODULE_x" that some function sets (filled by linking) */
        struct conf_link *link; /* private to conf */
};

#endif
