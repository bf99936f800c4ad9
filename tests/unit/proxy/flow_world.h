/*
 * A client's codec, an origin and functions that do what a test of flow says.
 *
 * What each test ends with, over(), is the contract: whatever happened, the request, its
 * generation, its counters and its log line were each let go of once.
 */
#ifndef UNIT_PROXY_FLOW_WORLD_H
#define UNIT_PROXY_FLOW_WORLD_H

#include "proxy/flow.c"

#include "../base/unit.h"
#include "../net/pump.h"

#include "base/log.h"
#include "http/reply.h"
#include "proxy/vars.h"

#include <stdlib.h>

enum { SCRIPT_MAX = 8 };

struct origin {
        bool running;
};

struct chain {
        bool waiting, logged;
};

struct filter {
        unsigned opened, came, rooms, framed, ended;
        enum chain_result how; /* when it is opened */
};

static struct metric_region *region;
static struct loop *loop;
static struct arena *notes; /* what is remembered of a request outlives it */

/* One test's world. */
static struct {
        struct gen gen;
        struct gen_loop gl;
        struct conf conf;
        struct listen_conf listen;
        struct host_conf host;
        struct route_conf route;
        struct settings eff;
        struct access_log_conf log;
        struct upstream_conf upstream;
        struct upstream *upstreams[1];
        struct proxy_target target;
        struct flow_listener listener;
        struct client_facts facts;
        struct tls_facts tls;
        struct function_conf *functions[1];
        enum reason route_why;
        str routed_path;
        enum gen_fit policy_fit;
        const struct host_conf *host_asked;

        struct request *r; /* NULL once it has ended */
        unsigned begun, ended, counted, logged, dropped;
        uint64_t open, bytes_in, bytes_out;
        int status; /* as logged */
        enum reason reason;

        /* the client */
        unsigned heads, interims, rooms, cuts;
        bool slow;  /* takes no response bytes */
        bool keeps; /* res_sent does not come by itself when all was taken */
        bool gone_in_head, gone_in_room;
        const char *body_in_room; /* comes when it is asked for */
        int head_status, interim_status;
        enum reason cut_why;
        enum framing framing;
        str location, retry_after, connection, content_type;
        bool close_after, outdated, tunnel;
        bool over_tls;
        struct buf got;

        /* the origin */
        struct origin origin;
        struct txn *t;
        const struct origin_user *user;
        struct msg *sent;
        unsigned starts, aborts, req_readies, res_rooms;
        enum reason abort_why;
        const char *body_in_res_room;

        /* functions */
        struct chain chain;
        enum chain_result request_script[SCRIPT_MAX], response_script[SCRIPT_MAX];
        unsigned requests, responses, cancels, chain_logs;
        const struct chain_user *chain_user;
        struct txn *chain_txn;
        bool filters[2];
        struct filter filter[2]; /* of bodies, where filters says so */

        /* limits */
        unsigned limits;
        uint64_t body_max;
        enum reason limits_why;
} w;

/* ------------------------------------------------------------------ the generation, as faked */

struct gen_loop *gen_current(struct loop *l)
{
        assert_ptr_equal(l, loop);
        return &w.gl;
}

void gen_drop(struct gen_loop *gl)
{
        assert_ptr_equal(gl, &w.gl);
        assert_true(gl->live > 0);
        gl->live--;
        w.dropped++;
}

const struct listen_conf *gen_listen(const struct gen *g, const struct addr *a)
{
        assert_ptr_equal(g, &w.gen);
        assert_ptr_equal(a, &w.listener.addr);
        return &w.listen;
}

enum gen_fit gen_policy_fits(const struct gen *g, const struct listen_conf *listen,
                             const struct host_conf *host, const struct tls_facts *tls)
{
        assert_ptr_equal(g, &w.gen);
        assert_ptr_equal(listen, &w.listen);
        assert_ptr_equal(tls, w.r->tls);
        w.host_asked = host;
        return w.policy_fit;
}

void gen_count_request(const struct txn *t)
{
        w.counted++;
        assert_true(t->finished >= t->r->started);
}

enum reason route_find(const struct route_table *t, const struct listen_conf *listen, str host,
                       str path, route_when *when, void *ctx, struct route_match *out)
{
        (void)t, (void)ctx;
        assert_ptr_equal(listen, &w.listen);
        assert_ptr_equal(when, vars_when);
        assert_true(str_eq(host, STR("example.com")));
        w.routed_path = arena_dup(notes, path);
        if (w.route_why != REASON_NONE)
                return w.route_why;
        out->host = &w.host;
        out->route = &w.route;
        return REASON_NONE;
}

unsigned upstream_retry_after(struct upstream *u, const struct loop *l)
{
        assert_ptr_equal(u, w.upstreams[0]);
        assert_ptr_equal(l, loop);
        return 17;
}

void accesslog_write(struct txn *t, const struct access_log_conf *log)
{
        assert_ptr_equal(log, &w.log);
        w.logged++;
        w.status = t->r->res.status;
        w.reason = t->reason;
}

/* ------------------------------------------------------------------ the client's codec, as faked
 */

static struct {
        struct loop *loop;
        int fd;
        const struct downstream_conf *conf;
        void *listener;
} accepted;

static struct downstream_conf listener_conf;

void downstream_accept(struct loop *l, int fd, const struct addr *peer,
                       const struct downstream_conf *conf, void *listener)
{
        (void)peer;
        accepted.loop = l;
        accepted.fd = fd;
        accepted.conf = conf;
        accepted.listener = listener;
}

const struct downstream_conf *gen_downstream(struct loop *l, const struct addr *addr)
{
        (void)l;
        return addr == &w.listener.addr ? &listener_conf : NULL;
}

static void client_sent(void)
{
        struct request *r = w.r;

        r->client = NULL;
        r->flow->res_sent(r);
}

static void client_gone(enum reason why)
{
        struct request *r = w.r;

        r->client = NULL;
        r->flow->gone(r, why);
}

/* Takes what there is, and says when that was all. */
static void client_take(struct request *r)
{
        struct pipe *p = &r->res_body;

        if (w.slow)
                return;
        r->bytes_out += p->data.n;
        buf_move(&w.got, &p->data, p->data.n);
        if (pipe_done(p) && !w.keeps)
                client_sent();
}

static str note(struct request *r, enum field_id id)
{
        struct field *f = fields_get(&r->res.fields, id);

        return f ? arena_dup(notes, f->value) : STR("-");
}

static void client_head(struct request *r)
{
        assert_ptr_equal(r, w.r);
        assert_int_equal(w.heads++, 0);
        assert_true(r->res_head_sent);
        w.head_status = r->res.status;
        w.framing = r->res.framing;
        w.location = note(r, FIELD_LOCATION);
        w.retry_after = note(r, FIELD_RETRY_AFTER);
        w.connection = note(r, FIELD_CONNECTION);
        w.content_type = note(r, FIELD_CONTENT_TYPE);
        w.close_after = r->close_after;
        w.outdated = r->outdated;
        w.tunnel = r->tunnel;
        if (w.gone_in_head)
                client_gone(REASON_CLIENT_GONE);
        else
                client_take(r);
}

static void client_interim(struct request *r, const struct msg *res)
{
        assert_ptr_equal(r, w.r);
        assert_int_equal(w.heads, 0);
        w.interims++;
        w.interim_status = res->status;
}

static void client_res_ready(struct request *r)
{
        assert_ptr_equal(r, w.r);
        assert_int_equal(w.heads, 1);
        client_take(r);
}

static void client_body(const char *text, bool end);

static void client_req_room(struct request *r)
{
        assert_ptr_equal(r, w.r);
        w.rooms++;
        if (w.gone_in_room) {
                client_gone(REASON_CLIENT_GONE);
        } else if (w.body_in_room != NULL) {
                const char *text = w.body_in_room;
                w.body_in_room = NULL;
                client_body(text, true);
        }
}

static void client_cut(struct request *r, enum reason why)
{
        assert_ptr_equal(r, w.r);
        assert_int_equal(w.heads, 1);
        w.cuts++;
        w.cut_why = why;
        r->client = NULL;
}

static const struct client_facts *client_facts(struct request *r)
{
        assert_ptr_equal(r, w.r);
        return &w.facts;
}

static enum reason client_limits(struct request *r, int64_t body_us, int64_t send_us,
                                 uint64_t body_max)
{
        (void)body_us, (void)send_us;
        w.limits++;
        w.body_max = body_max;
        if (w.limits_why != REASON_NONE) {
                r->limit = body_max;
                r->measured = body_max + 1;
        }
        return w.limits_why;
}

static const struct client_ops client_ops = {
        .interim = client_interim,
        .head = client_head,
        .res_ready = client_res_ready,
        .req_room = client_req_room,
        .cut = client_cut,
        .limits = client_limits,
        .facts = client_facts,
};

static void client_body(const char *text, bool end)
{
        struct request *r = w.r;

        buf_puts(&r->req_body.data, str_z(text));
        r->req_body.passed += strlen(text);
        r->bytes_in = r->req_body.passed;
        r->req_body.end = end;
        r->flow->req_ready(r);
}

UNUSED static void client_failed(enum reason why)
{
        w.r->flow->req_failed(w.r, why);
}

/* ------------------------------------------------------------------ the origin, as faked */

struct origin *origin_start(struct txn *t, struct upstream *u, const struct settings *eff,
                            struct msg *req, const struct origin_user *user)
{
        assert_int_equal(w.starts++, 0);
        assert_ptr_equal(u, w.upstreams[0]);
        assert_ptr_equal(eff, t->eff);
        w.origin.running = true;
        w.t = t;
        w.sent = req;
        w.user = user;
        return &w.origin;
}

void origin_req_ready(struct origin *o)
{
        assert_true(o->running);
        w.req_readies++;
}

static void server_body(const char *text, bool end);

void origin_res_room(struct origin *o)
{
        assert_ptr_equal(o, &w.origin);
        w.res_rooms++;
        if (w.body_in_res_room != NULL) {
                const char *text = w.body_in_res_room;
                w.body_in_res_room = NULL;
                server_body(text, true);
        }
}

void origin_abort(struct origin *o, enum reason why)
{
        assert_ptr_equal(o, &w.origin);
        if (o->running) {
                w.aborts++;
                w.abort_why = why;
        }
        o->running = false;
}

static void server_put(const char *text, bool end)
{
        struct pipe *p = &w.t->r->res_body;

        buf_puts(&p->data, str_z(text));
        p->passed += strlen(text);
        p->end = end;
        if (end && !w.t->r->tunnel)
                w.origin.running = false;
}

static void server_body(const char *text, bool end)
{
        assert_true(w.origin.running);
        server_put(text, end);
        w.user->res_ready(w.t);
}

/* text NULL: the body comes later. */
static void server_head(int status, const char *text)
{
        struct request *r = w.t->r;

        assert_true(w.origin.running);
        r->res = (struct msg){.status = status, .version = 11, .framing = FRAMING_CHUNKED};
        fields_add(r->arena, &r->res.fields, FIELD_CONNECTION, STR("Connection"), STR("X-Hop"));
        fields_add(r->arena, &r->res.fields, FIELD_OTHER, STR("X-Hop"), STR("1"));
        if (text != NULL)
                server_put(text, true);
        w.user->head(w.t);
}

UNUSED static void server_failed(enum reason why)
{
        assert_true(w.origin.running);
        w.origin.running = false;
        w.user->failed(w.t, why);
}

/* ------------------------------------------------------------------ functions, as faked */

struct chain *chain_new(struct txn *t, struct function_conf *const *functions, size_t n,
                        const struct chain_user *user)
{
        assert_ptr_equal(functions, w.route.functions);
        w.chain_txn = t;
        w.chain_user = user;
        if (w.filters[WEIR_REQUEST])
                t->filter[WEIR_REQUEST] = &w.filter[WEIR_REQUEST];
        return n ? &w.chain : NULL;
}

static enum chain_result played(struct chain *c, enum chain_result how)
{
        struct txn *t = w.chain_txn;

        assert_false(c->waiting);
        assert_false(c->logged);
        c->waiting = how == CHAIN_WAIT;
        if (how == CHAIN_RESPOND) {
                t->reason = REASON_FUNCTION;
                reply_fill(t->r, 403, t->reason, STR("no"), STR_NONE);
        } else if (how == CHAIN_CUT) {
                t->reason = REASON_FUNCTION_ERROR;
        }
        return how;
}

enum chain_result chain_request(struct chain *c)
{
        return played(c, w.request_script[w.requests++]);
}

enum chain_result chain_response(struct chain *c)
{
        if (w.filters[WEIR_RESPONSE] && w.responses == 0)
                w.chain_txn->filter[WEIR_RESPONSE] = &w.filter[WEIR_RESPONSE];
        return played(c, w.response_script[w.responses++]);
}

void chain_cancel(struct chain *c)
{
        assert_false(c->logged);
        c->waiting = false;
        w.cancels++;
}

void chain_log(struct chain *c)
{
        assert_false(c->logged);
        c->logged = true;
        c->waiting = false;
        w.chain_logs++;
}

enum chain_result filter_open(struct filter *f)
{
        struct txn *t = w.chain_txn;

        f->opened++;
        if (f->how == CHAIN_CONTINUE)
                return f->how;
        filters_end(t);
        t->reason = f->how == CHAIN_CUT ? REASON_FUNCTION_ERROR : REASON_FUNCTION;
        if (f->how == CHAIN_RESPOND)
                reply_fill(t->r, 403, t->reason, STR("no"), STR_NONE);
        return f->how;
}

void filter_came(struct filter *f)
{
        f->came++;
}

void filter_room(struct filter *f)
{
        f->rooms++;
}

void filter_frame(const struct filter *f, struct msg *m)
{
        ((struct filter *)(uintptr_t)f)->framed++;
        m->framing = FRAMING_CLOSE; /* as a mark */
}

void filter_end(struct txn *t, bool response)
{
        struct filter **f = &t->filter[response ? WEIR_RESPONSE : WEIR_REQUEST];

        if (*f != NULL)
                (*f)->ended++;
        *f = NULL;
}

/* ------------------------------------------------------------------ one test */

static uint64_t metric(unsigned family)
{
        return metric_sum(region, family, STR(""));
}

UNUSED static uint64_t local_replies(enum reason why)
{
        struct buf labels = BUF_INIT;
        metric_label(&labels, "reason", str_z(reason_word(why)));
        uint64_t n = metric_sum(region, METRIC_LOCAL_REPLIES, buf_front(&labels));
        buf_clear(&labels);
        return n;
}

UNUSED static uint64_t limit_hits(enum reason why)
{
        struct buf labels = BUF_INIT;
        str setting, rest; /* the sentence of a limit begins with the setting */
        str_cut(str_z(reason_rows[why].text), ':', &setting, &rest);
        metric_label(&labels, "setting", setting);
        uint64_t n = metric_sum(region, METRIC_LIMIT_HITS, buf_front(&labels));
        buf_clear(&labels);
        return n;
}

static int setup(void **state)
{
        (void)state;
        memset(&w, 0, sizeof(w));
        notes = arena_new(0);
        loop_turn(loop, false);
        w.log = (struct access_log_conf){.path = STR("/log"), .format_name = STR("json")};
        w.eff = (struct settings){.access_log = &w.log, .upgrade = true, .body_max = 1000};
        w.conf.eff = w.listen.eff = w.route.eff = w.target.eff = w.eff;
        w.gen = (struct gen){.magic = GEN_MAGIC, .conf = &w.conf, .upstreams = w.upstreams};
        w.upstreams[0] = (struct upstream *)&w; /* never looked into */
        w.gl = (struct gen_loop){.loop = loop, .gen = &w.gen};
        w.upstream.name = STR("users");
        w.target.upstream = &w.upstream;
        w.target.weight = w.route.weight_sum = 1;
        w.route.action = ACTION_PROXY;
        w.route.targets = &w.target;
        w.route.n_targets = 1;
        w.route.host = &w.host;
        w.route.functions = w.functions;
        w.facts.listener = &w.listener;
        assert_true(addr_parse(STR("192.0.2.1:4711"), &w.facts.peer));
        flow_loop(loop)->requests = 0; /* whatever a test that failed has left */
        w.bytes_in = metric(METRIC_BYTES_IN);
        w.bytes_out = metric(METRIC_BYTES_OUT);
        return 0;
}

static int teardown(void **state)
{
        (void)state;
        buf_clear(&w.got);
        arena_free(notes);
        return 0;
}

/* A fresh world in the middle of a test. */
UNUSED static void again(void)
{
        teardown(NULL);
        setup(NULL);
}

static void request_ended(void *arg)
{
        (void)arg;
        w.ended++;
        w.r = NULL;
}

static struct request *request(const char *method, const char *target)
{
        struct request *r = request_new(loop, &flow_ops, 0);

        r->client = &client_ops;
        r->tls = w.over_tls ? &w.tls : NULL;
        r->req = (struct msg){.method = method_of(str_z(method)),
                              .method_text = str_z(method),
                              .target = str_z(target),
                              .authority = STR("example.com"),
                              .version = 11};
        r->req_body.end = true;
        arena_on_end(r->arena, request_ended, NULL);
        w.r = r;
        return r;
}

static void begin_it(struct request *r)
{
        w.begun++;
        r->flow->begin(r);
}

static void get(const char *target)
{
        begin_it(request("GET", target));
}

/* A POST whose body is still to come. */
static void post(void)
{
        struct request *r = request("POST", "/x");

        r->req.framing = FRAMING_CHUNKED;
        r->req_body.end = false;
        begin_it(r);
}

static void with_function(enum chain_result request_, enum chain_result response)
{
        w.route.n_functions = 1;
        w.request_script[0] = request_;
        w.response_script[0] = response;
}

/* The request is over, and everything was let go of once. */
static void over(int status, enum reason why)
{
        assert_null(w.r);
        assert_int_equal(w.ended, 1);
        assert_int_equal(w.counted, 1);
        assert_int_equal(w.logged, 1);
        assert_int_equal(w.dropped, 1);
        assert_int_equal(w.gl.live, 0);
        assert_int_equal(flow_requests(loop), 0);
        assert_int_equal(metric(METRIC_REQUESTS_OPEN), 0);
        assert_int_equal(w.chain_logs, w.requests > 0);
        assert_false(w.chain.waiting);
        assert_false(w.origin.running);
        assert_int_equal(w.status, status);
        if (w.reason != why)
                fail_msg("reason %s, not %s", reason_word(w.reason), reason_word(why));
}

UNUSED static void still_open(void)
{
        assert_non_null(w.r);
        assert_int_equal(w.counted + w.logged + w.dropped, 0);
        assert_int_equal(w.gl.live, 1);
        assert_int_equal(flow_requests(loop), 1);
        assert_int_equal(metric(METRIC_REQUESTS_OPEN), 1);
}

static void client_got(int status, const char *body)
{
        str got = buf_pullup(&w.got, w.got.n);

        assert_int_equal(w.heads, 1);
        assert_int_equal(w.head_status, status);
        if (body != NULL && !str_eq(got, str_z(body)))
                fail_msg("the client got \"%.*s\"", STR_ARG(got));
}

/* ------------------------------------------------------------------ the program */

static int program_begin(void **state)
{
        (void)state;
        region = metric_region_new(1, 256 * KIB);
        metric_slot_begin(metric_slot(region, 0));
        loop = loop_new(0, metric_slot(region, 0));
        log_to_fd(open("/dev/null", O_WRONLY), LOG_INFO); /* refusals are said; elsewhere read */
        return 0;
}

static int program_end(void **state)
{
        (void)state;
        loop_free(loop);
        metric_region_free(region);
        arena_thread_end();
        buf_thread_end();
        return 0;
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

#endif
