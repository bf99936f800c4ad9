/*
 * A small weir around functions written in the test: one loop, one route, one request; a Redis that
 * the test answers for.
 *
 * Invariant: rig.calls holds what was asked of Redis and neither answered nor cancelled.
 */
#ifndef UNIT_PROXY_FUNCTION_H
#define UNIT_PROXY_FUNCTION_H

#include "../base/unit.h"

#include "base/shm.h"
#include "conf/conf.h"
#include "http/reply.h"
#include "net/redis.h"
#include "proxy/instance.h"

#include <stdlib.h>

#define RIG_FUNCTIONS 8

struct redis_call {
        struct redis_call *next;
        redis_fn *fn;
        void *arg;
        char text[512]; /* the command, its words separated by spaces */
};

static struct rig {
        struct loop *loop, *control;
        struct metric_region *region;
        struct store *store;
        struct conf conf;
        struct host_conf host;
        struct route_conf route;
        struct redis_store_conf redis_store;
        struct redis_conf redis;
        struct module mod;
        struct function_conf function[RIG_FUNCTIONS], *list[RIG_FUNCTIONS];
        weir_module desc[RIG_FUNCTIONS];
        struct instance_set *set;
        struct request req;
        struct txn txn;
        struct chain *chain;
        struct redis_call *calls;
        enum chain_result resumed; /* what chain_user was told */
        unsigned n_resumed, redis_held;
        unsigned ready[2], room[2], wanted, n_decided; /* of bodies, what chain_user was told */
        enum chain_result decided;
        enum reason wanted_why;
        bool quarantined;
        char said[256]; /* conf_function_error */
} rig;

/* ------------------------------------------------------------------ what the layers beside provide
 */

struct redis *redis_get(struct loop *l, const struct redis_conf *c)
{
        (void)l;
        assert_ptr_equal(c, &rig.redis);
        rig.redis_held++;
        return (struct redis *)&rig.redis;
}

void redis_drop(struct redis *r)
{
        (void)r;
        rig.redis_held--;
}

struct redis_call *redis_command(struct redis *r, const str *argv, size_t argc, int64_t timeout_us,
                                 redis_fn *fn, void *arg)
{
        struct redis_call *c = calloc(1, sizeof(*c)), **at = &rig.calls;

        (void)r;
        assert_int_equal(timeout_us, 0);
        c->fn = fn;
        c->arg = arg;
        for (size_t i = 0; i < argc; i++)
                snprintf(c->text + strlen(c->text), sizeof(c->text) - strlen(c->text), "%s%.*s",
                         i ? " " : "", STR_ARG(argv[i]));
        while (*at != NULL)
                at = &(*at)->next;
        *at = c;
        return c;
}

struct redis_call *redis_script(struct redis *r, str script, const char *sha, const str *argv,
                                size_t n_keys, size_t argc, int64_t timeout_us, redis_fn *fn,
                                void *arg)
{
        struct redis_call *c = redis_command(r, argv, argc, timeout_us, fn, arg);
        char args[512];

        (void)script;
        memcpy(args, c->text, sizeof(args));
        snprintf(c->text, sizeof(c->text), "%.8s %zu %.400s", sha, n_keys, args);
        return c;
}

void redis_cancel(struct redis_call *call)
{
        struct redis_call **at = &rig.calls;

        while (*at != call)
                at = &(*at)->next;
        *at = call->next;
        free(call);
}

/* Answers the oldest command. */
__attribute__((unused)) static void rig_answer(struct redis_reply reply)
{
        struct redis_call *c = rig.calls;

        assert_non_null(c);
        rig.calls = c->next;
        c->fn(&reply, c->arg);
        free(c);
}

void reply_fill(struct request *r, int status, enum reason why, str body, str content_type)
{
        (void)why;
        buf_clear(&r->res_body.data);
        r->res = (struct msg){.status = status, .framing = FRAMING_LENGTH, .length = body.n};
        buf_puts(&r->res_body.data, body);
        r->res_body.end = true;
        if (content_type.p != NULL)
                fields_set(r->arena, &r->res.fields, FIELD_CONTENT_TYPE, STR("Content-Type"),
                           content_type);
}

void conf_function_error(const struct function_conf *f, const void *at, struct report *rep,
                         const char *text)
{
        (void)f, (void)at;
        rep->errors++;
        snprintf(rig.said, sizeof(rig.said), "%s", text);
}

/* ------------------------------------------------------------------ the rig */

static void rig_resumed(struct txn *t, enum chain_result how)
{
        assert_ptr_equal(t, &rig.txn);
        rig.resumed = how;
        rig.n_resumed++;
}

static void rig_ready(struct txn *t, bool response)
{
        assert_ptr_equal(t, &rig.txn);
        rig.ready[response]++;
}

static void rig_room(struct txn *t, bool response)
{
        assert_ptr_equal(t, &rig.txn);
        rig.room[response]++;
}

static enum reason rig_wanted(struct txn *t)
{
        assert_ptr_equal(t, &rig.txn);
        rig.wanted++;
        return rig.wanted_why;
}

static void rig_decided(struct txn *t, enum chain_result how)
{
        assert_ptr_equal(t, &rig.txn);
        rig.decided = how;
        rig.n_decided++;
}

static const struct chain_user rig_user = {.resumed = rig_resumed,
                                           .ready = rig_ready,
                                           .room = rig_room,
                                           .wanted = rig_wanted,
                                           .decided = rig_decided};

static bool rig_quarantine(const uint8_t sha[32])
{
        (void)sha;
        return rig.quarantined;
}

__attribute__((unused)) static int rig_begin(void **state)
{
        (void)state;
        memset(&rig, 0, sizeof(rig));
        rig.region = metric_region_new(2, 256 * KIB);
        metric_slot_begin(metric_slot(rig.region, 0));
        metric_slot_begin(metric_slot(rig.region, 1));
        rig.loop = loop_new(0, metric_slot(rig.region, 0));
        rig.control = loop_new(UINT32_MAX, metric_slot(rig.region, 1));
        rig.store = store_new(256 * KIB);
        rig.mod = (struct module){.magic = MODULE_MAGIC, .copy = 7};
        rig.redis_store = (struct redis_store_conf){.name = STR_INIT("main")};
        return 0;
}

/* One more function of the route, made of *m. */
__attribute__((unused)) static struct function_conf *rig_function(weir_module m, void *inst)
{
        size_t i = rig.conf.n_functions++;
        struct function_conf *f = &rig.function[i];

        assert_true(i < RIG_FUNCTIONS);
        if (m.name == NULL)
                m.name = "mod";
        rig.desc[i] = m;
        *f = (struct function_conf){.name = STR_INIT("fn"),
                                    .label = STR_INIT("mod fn (weir.conf:1)"),
                                    .on_error = ON_ERROR_FAIL_CLOSED,
                                    .timeout = 50 * MSEC,
                                    .budget = 10 * MSEC,
                                    .mod = &rig.mod,
                                    .desc = &rig.desc[i],
                                    .inst = inst,
                                    .index = (uint32_t)i,
                                    .shared = f};
        rig.list[i] = f;
        return f;
}

/* Creates what rig_function described; NULL: it was refused. */
__attribute__((unused)) static struct instance_set *rig_create(struct report *rep)
{
        struct instance_env env = {.control = rig.control,
                                   .loops = &rig.loop,
                                   .n_loops = 1,
                                   .store = rig.store,
                                   .quarantined = rig_quarantine,
                                   .redises = &rig.redis};
        rig.conf.functions = rig.list;
        rig.conf.redises = &rig.redis_store;
        rig.conf.n_redises = 1;
        rig.route.functions = rig.list;
        rig.route.n_functions = rig.conf.n_functions;
        rig.host.routes = &rig.route;
        rig.host.n_routes = 1;
        rig.conf.hosts = &rig.host;
        rig.conf.n_hosts = 1;
        rig.set = instances_create(&env, &rig.conf, rep);
        return rig.set;
}

/* A request of the route, before its functions. */
__attribute__((unused)) static void rig_request(size_t memory)
{
        struct request *r = &rig.req;
        struct txn *t = &rig.txn;

        *r = (struct request){
                .magic = REQUEST_MAGIC, .holds = 1, .loop = rig.loop, .arena = arena_new(memory)};
        r->to_server = &r->req_body;
        r->from_server = &r->res_body;
        r->req_body.high = r->res_body.high = PIPE_HIGH;
        r->req_body.end = true;
        r->req.method = METHOD_GET;
        r->req.method_text = STR("GET");
        r->req.target = STR("/a?x=1");
        *t = (struct txn){.eff = &rig.route.eff,
                          .r = r,
                          .host = STR_INIT("example.com"),
                          .client_ip = STR_INIT("192.0.2.1"),
                          .request_id = STR_INIT("rid"),
                          .upstream_us = -1};
        t->path = (struct path){
                .norm = STR_INIT("/a"), .sent = STR_INIT("/a"), .query = STR_INIT("x=1")};
        t->match.route = &rig.route;
        rig.n_resumed = 0;
        rig.chain = chain_new(t, rig.route.functions, rig.route.n_functions, &rig_user);
}

__attribute__((unused)) static void rig_request_end(void)
{
        if (rig.chain != NULL)
                chain_log(rig.chain);
        buf_clear(&rig.req.res_body.data);
        buf_clear(&rig.req.req_body.data);
        arena_free(rig.req.arena);
        rig.chain = NULL;
}

/* Functions ready on the loop. */
__attribute__((unused)) static void rig_up(void)
{
        struct report rep = {.out = BUF_INIT};

        assert_non_null(rig_create(&rep));
        assert_int_equal(rep.errors, 0);
        loop_self = rig.loop;
        assert_true(instances_loop_begin(rig.set, rig.loop));
        instances_activate(rig.set, rig.loop);
        loop_turn(rig.control, false);
}

__attribute__((unused)) static int rig_end(void **state)
{
        (void)state;
        if (rig.set != NULL) {
                instances_retire(rig.set, rig.loop);
                loop_turn(rig.control, false);
                instances_loop_end(rig.set, rig.loop);
                instances_destroy(rig.set);
        }
        assert_null(rig.calls);
        assert_int_equal(rig.redis_held, 0);
        loop_free(rig.loop);
        loop_free(rig.control);
        store_free(rig.store);
        metric_region_free(rig.region);
        loop_self = NULL;
        return 0;
}

/* Turns the loop until *n is at least want; fails after five seconds. */
__attribute__((unused)) static void rig_wait(const unsigned *n, unsigned want)
{
        int64_t end = 0;

        while (*n < want) {
                loop_turn(rig.loop, true);
                if (end == 0)
                        end = rig.loop->now + 5 * SEC;
                assert_true(rig.loop->now < end);
        }
}

__attribute__((unused)) static uint64_t rig_calls(const char *result)
{
        char labels[128];

        snprintf(labels, sizeof(labels), "function=\"fn\",result=\"%s\"", result);
        return metric_sum(rig.region, METRIC_FUNCTION_CALLS, str_z(labels));
}

#define HOOK(name)  static weir_rc name(weir_req *r, const void *inst, void *ctx)
#define UNUSED_HOOK (void)r, (void)inst, (void)ctx

#endif
