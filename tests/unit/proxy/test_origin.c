/*
 * Attempts: kept connections, when a request is sent again and when never, the queue, the budget,
 * aborting.
 */
#include "proxy/origin.c"

#include "upstream_fixture.h"

static struct upstream *u;
static struct upstream_conf conf;
static struct server_conf lines[4];
static struct settings eff;
static unsigned made; /* requests ever made */

/* One request and what its user was told. */
struct call {
        struct txn t;
        struct request r;
        struct msg req;
        struct origin *o;
        unsigned heads, readies, rooms, failures, interims;
        enum reason why;
};

static struct call *call_of(struct txn *t)
{
        return CONTAINER_OF(t, struct call, t);
}

static bool inside_start;

static void told_interim(struct txn *t, const struct msg *res)
{
        assert_int_equal(res->status, 103);
        call_of(t)->interims++;
}

static void told_head(struct txn *t)
{
        assert_false(inside_start);
        call_of(t)->heads++;
}

static void told_ready(struct txn *t)
{
        call_of(t)->readies++;
}

static void told_room(struct txn *t)
{
        assert_false(inside_start);
        call_of(t)->rooms++;
}

static void told_failed(struct txn *t, enum reason why)
{
        assert_false(inside_start);
        call_of(t)->failures++;
        call_of(t)->why = why;
}

static const struct origin_user user = {told_interim, told_head, told_ready, told_room,
                                        told_failed};

static struct call *call_new(enum method m, str body)
{
        struct call *c = calloc(1, sizeof(*c));

        made++;
        c->r.magic = REQUEST_MAGIC;
        c->r.loop = loops[0];
        c->r.arena = arena_new(0);
        c->r.to_server = &c->r.req_body;
        c->r.from_server = &c->r.res_body;
        c->r.res_body.high = c->r.req_body.high = PIPE_HIGH;
        buf_puts(&c->r.req_body.data, body);
        c->r.req_body.end = true;
        c->t.r = &c->r;
        c->t.upstream = &conf;
        c->t.scheme = STR("https");
        c->req = (struct msg){
                .method = m, .framing = body.n ? FRAMING_LENGTH : FRAMING_NONE, .length = body.n};
        return c;
}

static struct call *call_start(struct call *c)
{
        inside_start = true;
        c->o = origin_start(&c->t, u, &eff, &c->req, &user);
        inside_start = false;
        return c;
}

static struct call *get(void)
{
        return call_start(call_new(METHOD_GET, STR("")));
}

static void call_end(struct call *c)
{
        origin_abort(c->o, REASON_CLIENT_GONE);
        buf_clear(&c->r.req_body.data);
        buf_clear(&c->r.res_body.data);
        arena_free(c->r.arena);
        free(c);
}

static void begin(unsigned servers, uint32_t max)
{
        for (unsigned i = 0; i < servers; i++) {
                static const char *const text[] = {"10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80",
                                                   "10.0.0.4:80"};
                lines[i] = line(text[i], 1);
                lines[i].max_connections = max;
        }
        conf.n_servers = servers;
        u = upstream_hold(us, &conf, NULL);
        upstream_loop_begin(u, loops[0]);
}

static int up(void **state)
{
        process_up(state);
        conf = (struct upstream_conf){
                .name = STR("users"), .servers = lines, .keepalive = 8, .eject_for = 10 * SEC};
        eff = (struct settings){
                .connect = SEC,
                .response = SEC,
                .idle = 60 * SEC,
                .queue = 10 * SEC,
                .retry_attempts = 3,
                .retry_on = RETRY_CONNECT_ERROR | RETRY_RESET | RETRY_TIMEOUT | RETRY_503,
                .retry_budget = 0.2,
                .header_max = 32 * KIB,
                .header_line = 16 * KIB,
                .header_fields = 128,
        };
        return 0;
}

static int down(void **state)
{
        for (uint32_t i = 0; i < u->set->n; i++)
                assert_int_equal(inflight_total(&u->set->m[i].inflight), 0);
        assert_int_equal(upstream_here(u, loops[0])->queued, 0);
        upstream_loop_end(u, loops[0]);
        upstream_drop(u);
        turn_all();
        return process_down(state);
}

static uint32_t in_flight(unsigned server)
{
        return inflight_total(&u->set->m[server].inflight);
}

/* ------------------------------------------------------------------ the plain way */

static void a_connection_is_kept_and_used_again(void **state)
{
        struct call *a, *b;

        (void)state;
        begin(1, 0);
        a = get();
        assert_int_equal(in_flight(0), 1);
        client_connected(1, REASON_NONE);
        client_head(1, 200);
        assert_int_equal(a->heads, 1);
        assert_int_equal(a->t.upstream_us, 1000);
        client_body_end(1, true);
        assert_int_equal(a->readies, 1);
        assert_int_equal(in_flight(0), 0);
        assert_true(client(1)->idle);
        assert_int_equal(client(1)->idle_us, 60 * SEC);
        assert_true(str_eq(a->t.server, STR("10.0.0.1:80")));
        b = get();
        assert_int_equal(connects, 1);
        assert_true(b->o->x.reused);
        client_head(1, 404);
        client_body_end(1, true);
        assert_int_equal(b->t.attempts, 1);
        assert_int_equal(metric_of(METRIC_UPSTREAM_REQUESTS,
                                   "upstream=\"users\",server=\"10.0.0.1:80\",result=\"2xx\""),
                         1);
        assert_int_equal(metric_of(METRIC_UPSTREAM_REQUESTS,
                                   "upstream=\"users\",server=\"10.0.0.1:80\",result=\"4xx\""),
                         1);
        assert_int_equal(metric_of(METRIC_UPSTREAM_CONNECTS,
                                   "upstream=\"users\",server=\"10.0.0.1:80\",result=\"ok\""),
                         1);
        call_end(a);
        call_end(b);
}

static void keepalive_is_a_bound(void **state)
{
        struct call *c[6];

        (void)state;
        conf.keepalive = 4; /* two on each loop */
        begin(1, 0);
        for (unsigned i = 0; i < 6; i++) {
                c[i] = get();
                client_connected(i + 1, REASON_NONE);
        }
        for (unsigned i = 0; i < 6; i++) {
                client_head(i + 1, 200);
                client_body_end(i + 1, true);
                call_end(c[i]);
        }
        assert_int_equal(clients_alive(), 2);
        assert_int_equal(u->set->m[0].server->loops[0].idle_n, 2);
}

static void an_idle_connection_that_closes_is_forgotten(void **state)
{
        struct call *c;

        (void)state;
        begin(1, 0);
        c = get();
        client_connected(1, REASON_NONE);
        client_head(1, 200);
        client_body_end(1, true);
        call_end(c);
        client_closed_idle(1);
        assert_int_equal(u->set->m[0].server->loops[0].idle_n, 0);
        c = get();
        assert_int_equal(connects, 2);
        call_end(c);
        assert_int_equal(clients_alive(), 0); /* it was still connecting */
}

static void messages_pass_through(void **state)
{
        struct call *c;
        struct exchange *x;

        (void)state;
        begin(1, 0);
        c = get();
        origin_req_ready(c->o); /* not yet sent: nothing to say */
        origin_res_room(c->o);
        assert_int_equal(req_readies + res_rooms, 0);
        client_connected(1, REASON_NONE);
        x = &c->o->x;
        x->interim.status = 103;
        x->user->interim(x);
        x->user->req_room(x);
        origin_req_ready(c->o);
        origin_res_room(c->o);
        assert_int_equal(c->interims, 1);
        assert_int_equal(c->rooms, 1);
        assert_int_equal(req_readies, 1);
        assert_int_equal(res_rooms, 1);
        client_head(1, 200);
        x->user->res_ready(x); /* more, not the end */
        assert_int_equal(in_flight(0), 1);
        client_body_end(1, true);
        assert_int_equal(c->readies, 2);
        origin_res_room(c->o); /* after the end: harmless */
        call_end(c);
}

static void an_answer_in_one_piece_is_the_end(void **state)
{
        struct call *c;

        (void)state;
        begin(1, 0);
        c = get();
        client_connected(1, REASON_NONE);
        client_answers(1, 200);
        assert_int_equal(c->heads, 1);
        assert_int_equal(in_flight(0), 0);
        assert_true(client(1)->idle);
        origin_res_room(c->o);
        call_end(c);
        assert_int_equal(aborted, 0);
        /* One that is tried again leaves its connection to be used. */
        eff.retry_attempts = 2;
        c = get();
        client_answers(1, 503);
        assert_int_equal(c->heads, 0);
        client_answers(1, 200);
        assert_int_equal(c->heads, 1);
        assert_int_equal(c->t.attempts, 2);
        assert_int_equal(connects, 1);
        call_end(c);
}

static void the_body_is_asked_for_after_the_start(void **state)
{
        struct call *c;

        (void)state;
        begin(1, 0);
        c = get();
        client_connected(1, REASON_NONE);
        client_answers(1, 200);
        call_end(c);
        start_wants_body = true;
        c = get(); /* on the kept connection: at once */
        assert_int_equal(c->rooms, 0);
        loop_turn(loops[0], false);
        assert_int_equal(c->rooms, 1);
        call_end(c);
        c = get();
        client_connected(2, REASON_NONE); /* outside of the start: told as it comes */
        assert_int_equal(c->rooms, 1);
        client_answers(2, 200);
        call_end(c);
        c = get();
        client_answers(2, 200); /* over before it was told */
        call_end(c);
        loop_turn(loops[0], false);
}

/* ------------------------------------------------------------------ again? */

/* One failure of the first attempt, and whether a second one follows. */
struct retry_case {
        const char *what;
        enum method method;
        const char *body;
        uint64_t buffer; /* buffer request= */
        bool non_idempotent;
        enum reason why; /* NONE: a status */
        int status;
        bool connected, wrote;
        uint32_t on; /* 0: all */
        bool again;
};

static const struct retry_case retry_cases[] = {
        {"GET, refused", METHOD_GET, "", 0, false, REASON_CONNECT_FAILED, 0, false, false, 0, true},
        {"POST, refused: nothing was sent", METHOD_POST, "x", 0, false, REASON_CONNECT_FAILED, 0,
         false, false, 0, true},
        {"POST, connect timeout", METHOD_POST, "x", 0, false, REASON_CONNECT_TIMEOUT, 0, false,
         false, 0, true},
        {"GET, TLS failed", METHOD_GET, "", 0, false, REASON_UPSTREAM_TLS, 0, false, false, 0,
         true},
        {"GET, refused, only resets asked", METHOD_GET, "", 0, false, REASON_CONNECT_FAILED, 0,
         false, false, RETRY_RESET, false},
        {"GET, connect timeout counts as timeout", METHOD_GET, "", 0, false, REASON_CONNECT_TIMEOUT,
         0, false, false, RETRY_TIMEOUT, true},
        {"GET, no descriptors", METHOD_GET, "", 0, false, REASON_NO_DESCRIPTORS, 0, false, false, 0,
         false},
        {"GET, reset", METHOD_GET, "", 0, false, REASON_UPSTREAM_RESET, 0, true, true, 0, true},
        {"PUT, reset", METHOD_PUT, "", 0, false, REASON_UPSTREAM_RESET, 0, true, true, 0, true},
        {"DELETE, reset", METHOD_DELETE, "", 0, false, REASON_UPSTREAM_RESET, 0, true, true, 0,
         true},
        {"POST, reset after writing", METHOD_POST, "", 0, false, REASON_UPSTREAM_RESET, 0, true,
         true, 0, false},
        {"PATCH, reset after writing", METHOD_PATCH, "", 0, false, REASON_UPSTREAM_RESET, 0, true,
         true, 0, false},
        {"unknown method, reset after writing", METHOD_OTHER, "", 0, false, REASON_UPSTREAM_RESET,
         0, true, true, 0, false},
        {"POST, reset after writing, allowed", METHOD_POST, "", 0, true, REASON_UPSTREAM_RESET, 0,
         true, true, 0, true},
        {"POST with a body, allowed, body gone", METHOD_POST, "x", 0, true, REASON_UPSTREAM_RESET,
         0, true, true, 0, false},
        {"POST with a body, allowed, body buffered", METHOD_POST, "x", 8, true,
         REASON_UPSTREAM_RESET, 0, true, true, 0, true},
        {"PUT with a body, body gone", METHOD_PUT, "x", 0, false, REASON_UPSTREAM_RESET, 0, true,
         true, 0, false},
        {"PUT with a body, body buffered", METHOD_PUT, "x", 8, false, REASON_UPSTREAM_RESET, 0,
         true, true, 0, true},
        {"PUT with a body larger than the buffer", METHOD_PUT, "123456789", 8, false,
         REASON_UPSTREAM_RESET, 0, true, true, 0, false},
        {"GET, response timeout", METHOD_GET, "", 0, false, REASON_RESPONSE_TIMEOUT, 0, true, true,
         0, true},
        {"GET, response timeout, not asked", METHOD_GET, "", 0, false, REASON_RESPONSE_TIMEOUT, 0,
         true, true, RETRY_RESET, false},
        {"POST, response timeout", METHOD_POST, "", 0, false, REASON_RESPONSE_TIMEOUT, 0, true,
         true, 0, false},
        {"GET, malformed head", METHOD_GET, "", 0, false, REASON_UPSTREAM_HEAD, 0, true, true, 0,
         false},
        {"GET, ambiguous framing", METHOD_GET, "", 0, false, REASON_UPSTREAM_FRAMING, 0, true, true,
         0, false},
        {"GET, 503 asked for", METHOD_GET, "", 0, false, REASON_NONE, 503, true, true, 0, true},
        {"GET, 502 not asked for", METHOD_GET, "", 0, false, REASON_NONE, 502, true, true,
         RETRY_503, false},
        {"GET, 504 asked for", METHOD_GET, "", 0, false, REASON_NONE, 504, true, true, RETRY_504,
         true},
        {"GET, 500 is an answer", METHOD_GET, "", 0, false, REASON_NONE, 500, true, true, 0, false},
        {"POST, 503", METHOD_POST, "", 0, false, REASON_NONE, 503, true, true, 0, false},
        {"POST, 503, allowed", METHOD_POST, "", 0, true, REASON_NONE, 503, true, true, 0, true},
};

static void check_retry_case(const struct retry_case *rc)
{
        struct call *c = call_new(rc->method, str_z(rc->body));
        unsigned first = connects + 1;
        uint64_t retries = metric_of(METRIC_RETRIES, "upstream=\"users\"");

        eff.retry_on = rc->on ? rc->on : UINT32_MAX;
        eff.buffer_request = rc->buffer;
        eff.retry_non_idempotent = rc->non_idempotent;
        call_start(c);
        if (rc->connected) {
                client_connected(first, REASON_NONE);
                if (rc->why)
                        client_fails(first, rc->why, rc->wrote);
                else
                        client_head(first, rc->status);
        } else {
                client_connected(first, rc->why);
        }
        if (connects - first != (rc->again ? 1 : 0))
                fail_msg("%s: %s", rc->what,
                         rc->again ? "it was not sent again" : "it was sent again");
        assert_int_equal(metric_of(METRIC_RETRIES, "upstream=\"users\"") - retries, rc->again);
        assert_int_equal(c->t.attempts, rc->again ? 2 : 1);
        assert_int_equal(c->failures, !rc->again && rc->why);
        assert_int_equal(c->heads, !rc->again && !rc->why);
        if (rc->again) {
                struct sockaddr_in last = client(first + 1)->to.in;
                assert_true(addr_equal(&u->set->m[1].server->addr, &u->set->m[0].server->addr) ==
                            false);
                assert_int_equal(in_flight(0) + in_flight(1), 1);
                assert_true(last.sin_addr.s_addr == (c->o->sl->server->addr.in.sin_addr.s_addr));
                assert_ptr_not_equal(c->o->tried.s[0], c->o->tried.s[1]); /* on another server */
                assert_int_equal(c->r.req_body.data.n, strlen(rc->body)); /* whole again */
                assert_int_equal(c->r.res.status, 0);
                client_connected(first + 1, REASON_NONE);
                client_head(first + 1, 200);
                assert_int_equal(c->heads, 1);
        }
        call_end(c);
        upstream_here(u, loops[0])->tokens = RETRY_TOKENS;
}

static void a_request_is_sent_again_only_where_it_may(void **state)
{
        (void)state;
        begin(2, 0);
        for (unsigned i = 0; i < COUNT(retry_cases); i++)
                check_retry_case(&retry_cases[i]);
}

/* A kept connection that the server had closed. */
struct stale_case {
        const char *what;
        enum method method;
        const char *body;
        bool wrote, again;
};
static const struct stale_case stale_cases[] = {
        {"GET", METHOD_GET, "", true, true},
        {"HEAD", METHOD_HEAD, "", true, true},
        {"POST, nothing had been written", METHOD_POST, "", false, true},
        {"POST, something had been written", METHOD_POST, "", true, false},
        {"DELETE, something had been written", METHOD_DELETE, "", true, false},
        {"OPTIONS with a body that is gone", METHOD_OPTIONS, "x", true, false},
};

static void check_stale_case(const struct stale_case *sc)
{
        struct call *a = get(), *b;
        unsigned first = connects;

        client_connected(first, REASON_NONE);
        client_head(first, 200);
        client_body_end(first, true);
        call_end(a);
        b = call_start(call_new(sc->method, str_z(sc->body)));
        assert_int_equal(connects, first);
        client_fails(first, REASON_UPSTREAM_RESET, sc->wrote);
        if (connects - first != (sc->again ? 1 : 0))
                fail_msg("%s: %s", sc->what,
                         sc->again ? "it was not sent again" : "it was sent again");
        assert_int_equal(b->t.attempts, 1);
        assert_int_equal(b->failures, !sc->again);
        if (sc->again) {
                assert_int_equal(u->set->m[0].server->failures, 0); /* nobody failed */
                client_connected(first + 1, REASON_NONE);
                assert_false(b->o->x.reused);
                client_fails(first + 1, REASON_UPSTREAM_RESET, true); /* a new one may fail */
                assert_int_equal(b->failures, 1);
                assert_int_equal(b->why, REASON_UPSTREAM_RESET);
        }
        call_end(b);
        server_succeeded(&u->set->m[0].server->loops[0], 1);
}

static void a_kept_connection_that_had_closed_is_free(void **state)
{
        (void)state;
        eff.retry_attempts = 1;
        conf.eject_failures = 5;
        begin(1, 0);
        for (unsigned i = 0; i < COUNT(stale_cases); i++)
                check_stale_case(&stale_cases[i]);
        assert_int_equal(metric_of(METRIC_RETRIES, "upstream=\"users\""), 3);
}

/* What a server gives back unprocessed is sent again whatever its method, once for nothing. */
static void what_is_given_back_is_sent_again(void **state)
{
        struct call *c;

        (void)state;
        begin(1, 0);
        eff.retry_attempts = 1;
        c = call_start(call_new(METHOD_POST, STR("")));
        client_connected(1, REASON_NONE);
        client(1)->x->refused = true;
        client_fails(1, REASON_UPSTREAM_REFUSED, true);
        assert_int_equal(connects, 2);
        assert_int_equal(c->t.attempts, 1);
        assert_int_equal(u->set->m[0].server->failures, 0);
        client_connected(2, REASON_NONE);
        client(2)->x->refused = true;
        client_fails(2, REASON_UPSTREAM_REFUSED, true);
        assert_int_equal(c->failures, 1);
        assert_int_equal(c->why, REASON_UPSTREAM_REFUSED);
        assert_int_equal(metric_of(METRIC_REFUSED, "upstream=\"users\""), 2);
        call_end(c);
}

static void what_is_given_back_without_its_body_is_not(void **state)
{
        struct call *c;

        (void)state;
        begin(1, 0);
        c = call_start(call_new(METHOD_POST, STR("body")));
        client_connected(1, REASON_NONE);
        client(1)->x->refused = true; /* the body was taken, and is gone */
        client_fails(1, REASON_UPSTREAM_REFUSED, true);
        assert_int_equal(connects, 1);
        assert_int_equal(c->failures, 1);
        call_end(c);
}

static void nothing_is_sent_again_after_a_head(void **state)
{
        struct call *c;

        (void)state;
        begin(2, 0);
        c = get();
        client_connected(1, REASON_NONE);
        client_head(1, 200);
        client_fails(1, REASON_UPSTREAM_RESET, true);
        assert_int_equal(c->failures, 1);
        assert_int_equal(connects, 1);
        call_end(c);
}

static void attempts_are_a_bound(void **state)
{
        struct call *c;

        (void)state;
        begin(4, 0);
        c = get();
        for (unsigned i = 1; i <= 3; i++)
                client_connected(i, REASON_CONNECT_FAILED);
        assert_int_equal(connects, 3);
        assert_int_equal(c->t.attempts, 3);
        assert_int_equal(c->why, REASON_CONNECT_FAILED);
        assert_int_equal(metric_of(METRIC_RETRIES, "upstream=\"users\""), 2);
        call_end(c);
}

static void the_budget_is_a_bound(void **state)
{
        const unsigned requests = 200;
        uint64_t retries;

        (void)state;
        begin(2, 0);
        eff.retry_attempts = 2;
        for (unsigned i = 0; i < requests; i++) {
                struct call *c = get();
                while (c->failures == 0)
                        client_connected(connects, REASON_CONNECT_FAILED);
                assert_int_equal(c->why, REASON_CONNECT_FAILED);
                call_end(c);
        }
        retries = metric_of(METRIC_RETRIES, "upstream=\"users\"");
        assert_in_range(retries, requests / 5, requests / 5 + (unsigned)RETRY_TOKENS);
        assert_int_equal(metric_of(METRIC_LIMIT_HITS, "setting=\"retry budget\""),
                         requests - retries);
}

static void no_budget_is_no_retry(void **state)
{
        struct call *c;

        (void)state;
        eff.retry_budget = 0;
        begin(2, 0);
        c = get();
        client_connected(1, REASON_CONNECT_FAILED);
        assert_int_equal(c->failures, 1);
        assert_int_equal(connects, 1);
        call_end(c);
}

static void a_connect_that_fails_at_once_is_told_later(void **state)
{
        struct call *c;

        (void)state;
        begin(1, 0);
        eff.retry_attempts = 1;
        refuse_at_once = REASON_CONNECT_FAILED;
        c = get();
        assert_int_equal(c->failures, 0);
        loop_turn(loops[0], false);
        assert_int_equal(c->failures, 1);
        assert_int_equal(c->why, REASON_CONNECT_FAILED);
        call_end(c);
        c = get(); /* and may be aborted before */
        call_end(c);
        loop_turn(loops[0], false);
}

/* ------------------------------------------------------------------ nobody there, or too many */

static void no_server_is_said_quickly(void **state)
{
        struct call *c;

        (void)state;
        begin(2, 0);
        server_check_down(u->set->m[0].server, "test");
        server_check_down(u->set->m[1].server, "test");
        c = get();
        loop_turn(loops[0], false);
        assert_int_equal(c->why, REASON_NO_SERVER);
        assert_int_equal(c->t.attempts, 0);
        assert_int_equal(upstream_retry_after(u, loops[0]), 1);
        call_end(c);
}

/* All ejected is as good as all down, but it is tried, and so found out when it is over. */
static void all_ejected_are_tried_and_said_to_be_down(void **state)
{
        struct call *c;

        (void)state;
        conf.eject_failures = 1;
        begin(2, 0);
        eff.retry_attempts = 1;
        for (unsigned i = 1; i <= 3; i++) {
                c = get();
                client_connected(i, REASON_CONNECT_FAILED);
                assert_int_equal(c->why, i < 3 ? REASON_CONNECT_FAILED : REASON_NO_SERVER);
                call_end(c);
        }
        c = get();
        client_connected(4, REASON_NONE);
        client_head(4, 200);
        assert_int_equal(c->heads, 1);
        call_end(c);
        /* One that answers is back at once. */
        assert_int_equal(!!server_ejected(u->set->m[0].server, loops[0]->now) +
                                 !!server_ejected(u->set->m[1].server, loops[0]->now),
                         1);
}

static void failures_eject_and_others_serve(void **state)
{
        struct call *c;

        (void)state;
        conf.eject_failures = 2;
        begin(2, 0);
        for (unsigned i = 0; i < 8;
             i++) { /* the first server refuses, whoever is sent there goes on to the second */
                c = get();
                while (c->heads == 0) {
                        struct fake *k = client(connects);
                        bool good = addr_equal(&k->to, &u->set->m[1].server->addr);
                        client_connected(connects, good ? REASON_NONE : REASON_CONNECT_FAILED);
                        if (good)
                                client_head(connects, 200);
                }
                client_body_end(connects, false);
                call_end(c);
        }
        assert_string_equal(server_state(u->set->m[0].server, loops[0]->now), "ejected");
        assert_int_equal(
                metric_of(METRIC_UPSTREAM_REQUESTS,
                          "upstream=\"users\",server=\"10.0.0.1:80\",result=\"connect_error\""),
                2);
}

static void who_waits_is_served_in_order(void **state)
{
        struct call *c[4];

        (void)state;
        begin(1, 2);
        for (unsigned i = 0; i < 4; i++)
                c[i] = get();
        assert_int_equal(connects, 2);
        assert_int_equal(upstream_here(u, loops[0])->queued, 2);
        client_connected(1, REASON_NONE);
        client_connected(2, REASON_NONE);
        client_head(2, 200);
        client_body_end(2, true);
        loop_turn(loops[0], false);
        assert_int_equal(in_flight(0), 2);
        assert_int_equal(connects, 2); /* on the connection that became free */
        assert_ptr_equal(client(2)->x, &c[2]->o->x);
        client_head(1, 200);
        client_body_end(1, true);
        loop_turn(loops[0], false);
        assert_ptr_equal(client(1)->x, &c[3]->o->x);
        for (unsigned i = 0; i < 4; i++)
                call_end(c[i]);
}

/* A place that another loop gives back is found without a message. */
static void a_place_of_another_loop_is_found(void **state)
{
        struct call *c;
        int64_t end;

        (void)state;
        begin(1, 1);
        inflight_add(&u->set->m[0].inflight);
        c = get();
        assert_int_equal(connects, 0);
        inflight_sub(&u->set->m[0].inflight);
        for (end = loops[0]->now + 5 * SEC; connects == 0 && loops[0]->now < end;)
                loop_turn(loops[0], true);
        assert_int_equal(connects, 1);
        call_end(c);
}

static void waiting_ends(void **state)
{
        struct call *a, *b, *c;
        int64_t end;

        (void)state;
        begin(1, 1);
        a = get();
        c = get();
        eff.queue = 20 * MSEC;
        b = get();
        for (end = loops[0]->now + 5 * SEC; b->failures == 0 && loops[0]->now < end;)
                loop_turn(loops[0], true);
        assert_int_equal(b->why, REASON_QUEUE_TIMEOUT);
        assert_int_equal(c->failures, 0);
        assert_int_equal(upstream_here(u, loops[0])->queued, 1);
        call_end(c); /* gone while it waits */
        assert_int_equal(upstream_here(u, loops[0])->queued, 0);
        call_end(a);
        call_end(b);
}

/* ------------------------------------------------------------------ ends */

static void aborting_frees_everything(void **state)
{
        struct call *c;

        (void)state;
        begin(1, 0);
        c = get(); /* while it connects */
        call_end(c);
        assert_int_equal(clients_alive(), 0);
        c = get(); /* while it waits for the answer */
        client_connected(2, REASON_NONE);
        call_end(c);
        assert_int_equal(aborted, 1);
        assert_int_equal(clients_alive(), 0);
        assert_int_equal(metric_of(METRIC_UPSTREAM_REQUESTS,
                                   "upstream=\"users\",server=\"10.0.0.1:80\",result=\"aborted\""),
                         2);
}

static void cookies_stick(void **state)
{
        struct call *c;
        struct field *f;
        char value[32];

        (void)state;
        conf.sticky_cookie = STR("SRV");
        begin(3, 0);
        c = get();
        client_connected(1, REASON_NONE);
        client_head(1, 200);
        f = fields_get(&c->r.res.fields, FIELD_SET_COOKIE);
        assert_non_null(f);
        assert_true(str_starts(f->value, STR("SRV=")));
        assert_true(str_find(f->value, STR("10.0.0.")) < 0); /* tells nobody where */
        assert_true(str_ends(f->value, STR("; Secure")));
        assert_true(str_copyz(value, sizeof(value), str_head(str_from(f->value, 4), 16)));
        client_body_end(1, false);
        call_end(c);
        variable = str_z(value);
        for (unsigned i = 2; i < 6; i++) {
                c = get();
                assert_true(addr_equal(&client(i)->to, &u->set->m[0].server->addr));
                client_connected(i, REASON_NONE);
                client_head(i, 200);
                assert_null(fields_get(&c->r.res.fields, FIELD_SET_COOKIE)); /* it has it */
                client_body_end(i, false);
                call_end(c);
        }
}

static void hashed_keys_stay_at_their_server(void **state)
{
        struct server *first = NULL;

        (void)state;
        conf.balance = BALANCE_HASH;
        conf.hash = (const struct template *)&conf; /* expands to what the fixture says */
        begin(4, 0);
        variable = STR("/users/7");
        for (unsigned i = 1; i < 6; i++) {
                struct call *c = get();
                if (!first)
                        first = c->o->sl->server;
                assert_ptr_equal(c->o->sl->server, first);
                call_end(c);
        }
}

#define ORIGIN_TEST(f) cmocka_unit_test_setup_teardown(f, up, down)

int main(void)
{
        const struct CMUnitTest tests[] = {
                ORIGIN_TEST(a_connection_is_kept_and_used_again),
                ORIGIN_TEST(keepalive_is_a_bound),
                ORIGIN_TEST(an_idle_connection_that_closes_is_forgotten),
                ORIGIN_TEST(messages_pass_through),
                ORIGIN_TEST(an_answer_in_one_piece_is_the_end),
                ORIGIN_TEST(the_body_is_asked_for_after_the_start),
                ORIGIN_TEST(a_request_is_sent_again_only_where_it_may),
                ORIGIN_TEST(a_kept_connection_that_had_closed_is_free),
                ORIGIN_TEST(what_is_given_back_is_sent_again),
                ORIGIN_TEST(what_is_given_back_without_its_body_is_not),
                ORIGIN_TEST(nothing_is_sent_again_after_a_head),
                ORIGIN_TEST(attempts_are_a_bound),
                ORIGIN_TEST(the_budget_is_a_bound),
                ORIGIN_TEST(no_budget_is_no_retry),
                ORIGIN_TEST(a_connect_that_fails_at_once_is_told_later),
                ORIGIN_TEST(no_server_is_said_quickly),
                ORIGIN_TEST(all_ejected_are_tried_and_said_to_be_down),
                ORIGIN_TEST(failures_eject_and_others_serve),
                ORIGIN_TEST(who_waits_is_served_in_order),
                ORIGIN_TEST(a_place_of_another_loop_is_found),
                ORIGIN_TEST(waiting_ends),
                ORIGIN_TEST(aborting_frees_everything),
                ORIGIN_TEST(cookies_stick),
                ORIGIN_TEST(hashed_keys_stay_at_their_server),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
