/*
 * Test cases of modules: a configuration, requests, what Redis answers, and what must come of it.
 *
 *   weir_case -> a whole configuration -> instances on a loop that is not run -> each request
 * through its chain -> expectations
 *
 * The difficulty is that nothing may differ from real traffic but what is outside: so the
 * configuration is read, linked and created as always, and only the clock (loop_advance), Redis
 * (redis_calls), upstreams (subrequest_calls) and the codecs are stood in for.
 */
#include "proxy/cases_play.h"

#include "base/log.h"
#include "base/shm.h"
#include "conf/conf.h"
#include "http/h1_parse.h"
#include "http/reply.h"
#include "proxy/filter.h"

#include <stdio.h>
#include <stdlib.h>

#define CASE_FILE  "/case/weir.conf"
#define CASE_LINE  6 /* of it: where .config begins */
#define CASE_STORE (256 * KIB)
#define TURNS_MAX  10000 /* answers and deadlines until a hook must have come to its verdict */

struct play cases_play;

/* The first thing that is wrong counts.  at: where in the texts of the case, or NULL. */
void cases_failed(struct play *p, const char *at, const char *fmt, ...)
{
        va_list ap;

        if (p->out->why.p != NULL)
                return;
        va_start(ap, fmt);
        p->out->why = arena_vprintf(p->a, fmt, ap);
        va_end(ap);
        p->out->at = at;
}

str cases_next_line(str *rest)
{
        str line;

        str_cut(*rest, '\n', &line, rest);
        return line;
}

/* The part before the next line that begins with "--"; *gap is how much time passes after it. */
str cases_next_part(str *rest, str *gap)
{
        str all = *rest, line;
        size_t n = 0;

        *gap = STR_NONE;
        while (rest->p != NULL) {
                line = cases_next_line(rest);
                if (str_starts(line, STR("--"))) {
                        *gap = str_trim(str_from(line, 2));
                        return str_head(all, n);
                }
                n = rest->p ? (size_t)(rest->p - all.p) : all.n;
        }
        return all;
}

/* "\n" becomes "\r\n", and there is one empty line at the end; what follows that, without
 * the end of its last line, is the body. */
str cases_head(struct play *p, str text, str *body)
{
        struct buf b = BUF_INIT;
        str head;

        while (text.p != NULL) {
                str line = cases_next_line(&text);
                if (line.n == 0)
                        break;
                if (str_ends(line, STR("\r")))
                        line.n--;
                buf_puts(&b, line);
                buf_puts(&b, STR("\r\n"));
        }
        buf_puts(&b, STR("\r\n"));
        head = arena_dup(p->a, buf_pullup(&b, b.n));
        buf_clear(&b);
        *body = text.p == NULL              ? STR("")
                : str_ends(text, STR("\n")) ? str_head(text, text.n - 1)
                                            : text;
        return head;
}

/* ------------------------------------------------------------------ the configuration */

static bool source_file(struct source *s, str path, struct arena *a, str *content, str *error)
{
        (void)s, (void)a;
        if (!str_eq(path, STR(CASE_FILE))) {
                *error = STR("cases have no files");
                return false;
        }
        *content = cases_play.text;
        return true;
}

static bool source_glob(struct source *s, str pattern, struct arena *a, str **paths, size_t *n)
{
        (void)s, (void)pattern, (void)a, (void)paths;
        *n = 0;
        return true;
}

static bool source_env(struct source *s, str name, str *value)
{
        (void)s, (void)name, (void)value;
        return false;
}

static bool source_user(struct source *s, str user, str group, uint32_t *uid, uint32_t *gid)
{
        (void)s, (void)user, (void)group, (void)uid, (void)gid;
        return false;
}

static bool read_conf(struct play *p)
{
        str config = p->c->config ? str_z(p->c->config) : STR("");
        bool block = str_ends(str_trim(config), STR("}"));

        p->source = (struct source){source_file, source_glob, source_env, source_user};
        p->text = arena_printf(
                p->a,
                "module %.*s /case/module.so;\n"
                "redis main { server 127.0.0.1:1; }\n"
                "upstream main { server 127.0.0.1:1; }\n"
                "listen 127.0.0.1:1;\n"
                "host * { route / {\nfunction %.*s name=case %.*s%s\nproxy main;\n} }\n",
                STR_ARG(p->m->name), STR_ARG(p->m->name), STR_ARG(config), block ? "" : ";");
        p->conf = conf_read(&p->source, STR(CASE_FILE), STR("/case"), &p->rep);
        if (p->conf == NULL)
                return false;
        p->modules = map_new();
        map_put(p->modules, p->m->name, (void *)(uintptr_t)p->m);
        return conf_link_functions(p->conf, instances_handles(p->conf, p->modules, p->conf->arena),
                                   &p->rep);
}

static bool begin(struct play *p)
{
        struct instance_env env;

        if (!read_conf(p))
                return false;
        p->loop = loop_new(0, NULL);
        p->control = loop_new(UINT32_MAX, NULL);
        p->store = store_new(CASE_STORE);
        p->redises = ARENA_ARRAY(p->a, struct redis_conf, p->conf->n_redises + 1);
        p->upstreams = ARENA_ARRAY(p->a, struct upstream *, p->conf->n_upstreams + 1);
        env = (struct instance_env){.control = p->control,
                                    .loops = &p->loop,
                                    .n_loops = 1,
                                    .store = p->store,
                                    .redises = p->redises,
                                    .redis_calls = &cases_redis,
                                    .upstreams = p->upstreams,
                                    .subrequest_calls = &cases_subrequests};
        loop_self = p->control;
        p->set = instances_create(&env, p->conf, &p->rep);
        loop_self = p->loop;
        if (p->set == NULL)
                return false;
        if (!instances_loop_begin(p->set, p->loop)) {
                cases_failed(p, NULL, "its loop_init failed");
                instances_destroy(p->set);
                p->set = NULL;
                return true;
        }
        instances_activate(p->set, p->loop);
        return true;
}

/* Redis answers, or an upstream; false: nobody was asked. */
static bool answer_one(struct play *p)
{
        if (p->calls != NULL)
                cases_answer_redis(p);
        else if (p->subs != NULL)
                cases_answer_http(p);
        else
                return false;
        return true;
}

/* One step of time; what background work asks meanwhile is answered. */
static void step(struct play *p, int64_t us)
{
        loop_self = p->control;
        loop_advance(p->control, us);
        loop_self = p->loop;
        loop_advance(p->loop, us);
        for (int i = 0; i < TURNS_MAX && answer_one(p);)
                i++;
}

/* Time passes, in steps, so that what is periodic comes as often as it should. */
static void pass(struct play *p, int64_t us)
{
        int64_t most = MAX(5 * MSEC, us / 1000);

        for (; us > most; us -= most)
                step(p, most);
        step(p, us);
}

static void end(struct play *p)
{
        if (p->set != NULL) {
                instances_retire(p->set, p->loop);
                pass(p, 0);
                instances_loop_end(p->set, p->loop);
                loop_self = p->control;
                instances_destroy(p->set);
        }
        loop_self = NULL;
        if (p->loop != NULL) {
                loop_free(p->loop);
                loop_free(p->control);
                store_free(p->store);
        }
        if (p->modules != NULL)
                map_free(p->modules);
        conf_free(p->conf);
        buf_clear(&p->commands);
        buf_clear(&p->asked);
        buf_clear(&p->sent);
        buf_clear(&p->got);
        buf_clear(&p->rep.out);
}

/* ------------------------------------------------------------------ an exchange */

/* It is all there at once. */
static void put_body(struct pipe *p, struct msg *m, str body)
{
        if (m->framing == FRAMING_LENGTH) {
                body = str_head(body, MIN(body.n, m->length));
                m->length = body.n;
        } else if (body.n > 0 && m->framing == FRAMING_NONE) {
                m->framing = FRAMING_CHUNKED;
        }
        pipe_put(p, body);
        p->end = true;
}

static str host_of(struct play *p, str authority)
{
        char *host = arena_dupz(p->r->arena, authority);
        ptrdiff_t colon = str_rchr(authority, ':');
        size_t n = colon >= 0 ? (size_t)colon : authority.n;

        for (size_t i = 0; i < n; i++)
                host[i] = str_lower(host[i]);
        return str_of(host, n);
}

static bool request_begin(struct play *p, str text)
{
        struct route_conf *route = &p->conf->hosts[0].routes[0];
        struct txn *t = &p->txn;
        enum reason why;
        str body;

        p->r = request_new(p->loop, NULL, 0);
        why = h1_parse_request(p->r->arena, cases_head(p, text, &body), &p->r->req);
        put_body(&p->r->req_body, &p->r->req, body);
        *t = (struct txn){.r = p->r,
                          .client_ip = STR_INIT("192.0.2.1"),
                          .scheme = STR_INIT("http"),
                          .request_id = STR_INIT("case"),
                          .eff = &route->eff,
                          .listen = &p->conf->listens[0],
                          .upstream_us = -1};
        CHECK(addr_parse_ip(STR("192.0.2.1"), 0, &t->client));
        if (why != REASON_NONE || !path_parse(p->r->arena, p->r->req.target, &t->path)) {
                cases_failed(p, text.p, "its request is malformed: %s", reason_rows[why].text);
                return false;
        }
        t->host = p->r->req.authority.p ? host_of(p, p->r->req.authority) : STR_NONE;
        t->match.host = &p->conf->hosts[0];
        t->match.route = route;
        t->upstream = route->targets[0].upstream;
        return true;
}

static void resumed(struct txn *t, enum chain_result how)
{
        (void)t;
        cases_play.how = how;
        cases_play.resumed = true;
}

/* They answer, else time passes, until the functions have come to their verdict. */
static enum chain_result settle(struct play *p, enum chain_result how)
{
        if (how != CHAIN_WAIT)
                return how;
        p->resumed = false;
        for (int i = 0; i < TURNS_MAX && !p->resumed; i++) {
                if (!answer_one(p))
                        pass(p, 5 * MSEC);
        }
        if (p->resumed)
                return p->how;
        cases_failed(p, NULL, "its function never came to a verdict");
        chain_cancel(p->chain);
        return CHAIN_CUT;
}

static str verdict_of(struct play *p, enum chain_result how)
{
        switch (how) {
        case CHAIN_CONTINUE:
                return STR("continue");
        case CHAIN_RESPOND:
                if (p->txn.reason == REASON_FUNCTION || p->txn.reason == REASON_RATE_LIMITED)
                        return arena_printf(p->a, "respond %d", p->r->res.status);
                return STR("error");
        default:
                return STR("error");
        }
}

static void upstream_answers(struct play *p)
{
        str text = p->c->upstream ? str_z(p->c->upstream) : STR("HTTP/1.1 200 OK\n\n"), body;
        enum reason why = h1_parse_response(p->r->arena, cases_head(p, text, &body),
                                            p->r->req.method, &p->r->res);

        put_body(&p->r->res_body, &p->r->res, body);
        if (why != REASON_NONE)
                cases_failed(p, text.p, "its upstream's answer is malformed: %s",
                             reason_rows[why].text);
}

static void moved(struct txn *t, bool response)
{
        (void)t, (void)response; /* all that comes is there, and what goes is looked for */
}

static const struct chain_user case_user = {
        .resumed = resumed, .ready = moved, .room = moved, .decided = resumed};

/* The body of one message, through the functions that asked for it. */
static enum chain_result pass_body(struct play *p, bool response, struct buf *to)
{
        struct filter *f = p->txn.filter[response ? WEIR_RESPONSE : WEIR_REQUEST];
        struct pipe *pipe = response ? &p->r->res_body : p->r->to_server;
        enum chain_result how = f != NULL ? filter_open(f) : CHAIN_CONTINUE;

        p->resumed = false;
        for (int i = 0; i < TURNS_MAX && how == CHAIN_CONTINUE; i++) {
                if (pipe->data.n > 0)
                        buf_move(to, &pipe->data, pipe->data.n);
                if (pipe->end)
                        return how;
                filter_room(f);
                if (!answer_one(p))
                        pass(p, 5 * MSEC);
                how = p->resumed ? p->how : how;
        }
        if (how == CHAIN_CONTINUE)
                cases_failed(p, NULL, "its function never came to the end of a body");
        return how;
}

static enum chain_result request_functions(struct play *p)
{
        const struct route_conf *route = p->txn.match.route;
        enum chain_result how = CHAIN_CONTINUE;

        p->chain = chain_new(&p->txn, route->functions, route->n_functions, &case_user);
        if (p->chain != NULL)
                how = settle(p, chain_request(p->chain));
        return how == CHAIN_CONTINUE ? pass_body(p, false, &p->sent) : how;
}

static enum chain_result response_functions(struct play *p)
{
        enum chain_result how = CHAIN_CONTINUE;

        if (p->chain != NULL)
                how = settle(p, chain_response(p->chain));
        return how == CHAIN_CONTINUE ? pass_body(p, true, &p->got) : how;
}

static void functions(struct play *p)
{
        enum chain_result how = request_functions(p);

        p->verdict = verdict_of(p, how);
        if (how == CHAIN_CONTINUE) {
                upstream_answers(p);
        } else if (how == CHAIN_CUT) {
                chain_cancel(p->chain);
                reply_fill(p->r, reason_rows[p->txn.reason].status, p->txn.reason, STR_NONE,
                           STR_NONE);
        }
        how = response_functions(p);
        if (how != CHAIN_CONTINUE)
                p->verdict = verdict_of(p, how);
        if (how == CHAIN_RESPOND) /* for the functions that are left */
                (void)response_functions(p);
}

/* ------------------------------------------------------------------ cases */

static int64_t gap_us(struct play *p, str gap)
{
        uint64_t n;
        str digits = gap;

        while (digits.n != 0 && str_lower(digits.p[digits.n - 1]) >= 'a')
                digits.n--;
        str unit = str_from(gap, digits.n);
        if (gap.n == 0)
                return 0;
        if (!str_u64(digits, 1000000, &n))
                cases_failed(p, gap.p, "its request: \"-- %.*s\" is no time", STR_ARG(gap));
        else if (str_eq(unit, STR("ms")))
                return (int64_t)n * MSEC;
        else if (str_eq(unit, STR("s")))
                return (int64_t)n * SEC;
        else if (str_eq(unit, STR("m")))
                return (int64_t)n * 60 * SEC;
        else if (str_eq(unit, STR("h")))
                return (int64_t)n * 3600 * SEC;
        else
                cases_failed(p, gap.p, "its request: \"-- %.*s\" is no time", STR_ARG(gap));
        return 0;
}

static void exchange(struct play *p, str text, str expect)
{
        p->chain = NULL;
        buf_clear(&p->commands);
        buf_clear(&p->asked);
        buf_clear(&p->sent);
        buf_clear(&p->got);
        if (request_begin(p, text)) {
                functions(p);
                cases_expect(p, expect);
                if (p->chain != NULL)
                        chain_log(p->chain);
        }
        request_drop(p->r);
}

static void exchanges(struct play *p)
{
        str requests = p->c->request ? str_z(p->c->request) : STR("GET / HTTP/1.1\nhost: a\n\n");
        str expects = p->c->expect ? str_z(p->c->expect) : STR("continue");
        unsigned n = 0;

        p->replies = p->c->redis ? str_z(p->c->redis) : STR_NONE;
        p->answers = p->c->http ? str_z(p->c->http) : STR_NONE;
        while (requests.p != NULL && !cases_is_wrong(p)) {
                str gap, none, text = cases_next_part(&requests, &gap);
                n++;
                if (expects.p == NULL) {
                        cases_failed(p, text.p, "nothing is expected of its request %u", n);
                        return;
                }
                exchange(p, text, cases_next_part(&expects, &none));
                pass(p, gap_us(p, gap));
        }
        if (cases_is_wrong(p) && n > 1)
                p->out->why = arena_printf(p->a, "request %u: %.*s", n, STR_ARG(p->out->why));
}

/* Where in c->config a message that begins with FILE:LINE: points to. */
static const char *config_place(const struct play *p, str message)
{
        const char *at = p->c->config;
        str rest, number, line;
        uint64_t n;

        if (at == NULL || !str_starts(message, STR(CASE_FILE ":")) ||
            !str_cut(str_from(message, sizeof(CASE_FILE)), ':', &number, &rest) ||
            !str_u64(number, UINT32_MAX, &n))
                return at;
        rest = str_z(at);
        for (; n > CASE_LINE && rest.p != NULL; n--)
                str_cut(rest, '\n', &line, &rest);
        return rest.p ? rest.p : at;
}

static void refused(struct play *p)
{
        str text = buf_pullup(&p->rep.out, p->rep.out.n);

        cases_failed(p, config_place(p, text), "its configuration was refused:\n%.*s",
                     STR_ARG(text));
}

void cases_one(const struct module *m, const weir_case *c, struct arena *a, struct case_result *out)
{
        struct loop *self = loop_self;
        struct play *p = &cases_play;

        *out = (struct case_result){.why = STR_NONE};
        *p = (struct play){.c = c, .m = m, .a = a, .out = out};
        if (!begin(p))
                refused(p);
        else if (!cases_is_wrong(p))
                exchanges(p);
        end(p);
        loop_self = self;
}

void cases_run(const struct module *m, const struct conf_pos *at, struct report *rep)
{
        enum log_level before = log_level;

        log_level = LOG_NONE; /* cases provoke what would be worth a line elsewhere */
        for (size_t i = 0; i < m->desc->n_cases; i++) {
                const weir_case *c = &m->desc->cases[i];
                struct arena *a = arena_new(0);
                struct case_result r;
                cases_one(m, c, a, &r);
                if (r.why.p != NULL)
                        report_error(rep, at, "module %.*s: its case \"%s\" failed: %.*s",
                                     STR_ARG(m->name), c->name ? c->name : "?", STR_ARG(r.why));
                arena_free(a);
        }
        log_level = before;
}
