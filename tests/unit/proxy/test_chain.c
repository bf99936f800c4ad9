/* Order, verdicts, waiting, failing open and closed, and that on_log always comes once. */
#include "proxy/chain.c"

#include "function.h"

#include "base/crypto.h"

static char trace[256];
static weir_rc answers[RIG_FUNCTIONS]; /* what hook number n returns */

static void note(const char *what, const void *inst)
{
        snprintf(trace + strlen(trace), sizeof(trace) - strlen(trace), "%s%s", what,
                 (const char *)inst);
}

HOOK(on_request)
{
        (void)r, (void)ctx;
        note("q", inst);
        return answers[*(const char *)inst - '0'];
}
HOOK(on_response)
{
        (void)r, (void)ctx;
        note("s", inst);
        return WEIR_CONTINUE;
}
static void on_log(weir_req *r, const void *inst, void *ctx)
{
        (void)r, (void)ctx;
        note("l", inst);
}
static const weir_module plain = {
        .on_request = on_request, .on_response = on_response, .on_log = on_log};

static int begin(void **state)
{
        trace[0] = '\0';
        memset(answers, 0, sizeof(answers));
        return rig_begin(state);
}

static void in_order_and_in_reverse(void **state)
{
        (void)state;
        rig_function(plain, "1");
        rig_function((weir_module){.on_response = on_response}, "2");
        rig_function(plain, "3");
        rig_up();
        rig_request(0);
        assert_int_equal(chain_request(rig.chain), CHAIN_CONTINUE);
        assert_int_equal(chain_response(rig.chain), CHAIN_CONTINUE);
        rig_request_end();
        assert_string_equal(trace, "q1q3s3s2s1l1l3");
        assert_int_equal(rig_calls("continue"), 5);
}

static void no_hooks_no_chain(void **state)
{
        (void)state;
        rig_function((weir_module){.name = "none"}, NULL);
        rig_up();
        rig_request(0);
        assert_null(rig.chain);
        rig_request_end();
}

/* Under a used up memory limit functions are called all the same. */
static void full_arena(void **state)
{
        (void)state;
        rig_function(plain, "1");
        rig_up();
        rig_request(1);
        assert_non_null(rig.chain);
        assert_int_equal(chain_request(rig.chain), CHAIN_CONTINUE);
        rig_request_end();
        assert_string_equal(trace, "q1l1");
}

HOOK(respond_403)
{
        note("q", inst);
        (void)ctx;
        weir->header_set(r, WEIR_RESPONSE, WEIR_STR("X-Early"), WEIR_STR("1"));
        return weir->respond(r, 403, WEIR_STR("no\n"));
}

static void an_answer_ends_the_way_in(void **state)
{
        struct field *f;

        (void)state;
        rig_function(plain, "1");
        rig_function((weir_module){.on_request = respond_403, .on_response = on_response}, "2");
        rig_function(plain, "3");
        rig_up();
        rig_request(0);
        assert_int_equal(chain_request(rig.chain), CHAIN_RESPOND);
        assert_int_equal(rig.req.res.status, 403);
        assert_int_equal(rig.txn.reason, REASON_FUNCTION);
        ASSERT_STR(buf_front(&rig.req.res_body.data), "no\n");
        assert_int_equal(chain_response(rig.chain), CHAIN_CONTINUE);
        f = fields_find(&rig.req.res.fields, STR("x-early"));
        assert_non_null(f);
        ASSERT_STR(f->value, "1");
        rig_request_end();
        assert_string_equal(trace, "q1q2s2s1l1");
}

static void a_429_is_a_rate_limit(void **state);
HOOK(respond_429)
{
        (void)inst, (void)ctx;
        return weir->respond(r, 429, WEIR_STR(""));
}
static void a_429_is_a_rate_limit(void **state)
{
        (void)state;
        rig_function((weir_module){.on_request = respond_429}, NULL);
        rig_up();
        rig_request(0);
        assert_int_equal(chain_request(rig.chain), CHAIN_RESPOND);
        assert_int_equal(rig.txn.reason, REASON_RATE_LIMITED);
        rig_request_end();
}

static void errors_close_or_open(void **state)
{
        struct function_conf *f;

        (void)state;
        f = rig_function(plain, "1");
        rig_function(plain, "2");
        rig_up();
        answers[1] = WEIR_ERROR;
        rig_request(0);
        assert_int_equal(chain_request(rig.chain), CHAIN_RESPOND);
        assert_int_equal(rig.req.res.status, 503);
        assert_int_equal(rig.txn.reason, REASON_FUNCTION_ERROR);
        assert_int_equal(rig.txn.failures, 1);
        rig_request_end();
        assert_string_equal(trace, "q1l1");

        trace[0] = '\0';
        f->on_error = ON_ERROR_FAIL_OPEN;
        rig_request(0);
        assert_int_equal(chain_request(rig.chain), CHAIN_CONTINUE);
        assert_int_equal(rig.txn.failures, 1); /* also one that nobody sees */
        rig_request_end();
        assert_string_equal(trace, "q1q2l1l2");
        assert_int_equal(rig_calls("error"), 2);
}

/* What makes no sense is an error, not a hang or an answer nobody gave. */
static void impossible_verdicts_are_errors(void **state)
{
        static const weir_rc wrong[] = {WEIR_SUSPEND, WEIR_RESPOND, 17, -9};

        (void)state;
        rig_function(plain, "1");
        rig_up();
        for (size_t i = 0; i < COUNT(wrong); i++) {
                answers[1] = wrong[i];
                rig_request(0);
                assert_int_equal(chain_request(rig.chain), CHAIN_RESPOND);
                assert_int_equal(rig.txn.reason, REASON_FUNCTION_ERROR);
                rig_request_end();
        }
}

HOOK(fail_response)
{
        (void)r, (void)ctx;
        note("s", inst);
        return WEIR_ERROR;
}

static void a_failed_response_function_cuts_and_the_others_follow(void **state)
{
        (void)state;
        rig_function((weir_module){.on_response = on_response}, "1");
        rig_function((weir_module){.on_response = fail_response}, "2");
        rig_up();
        rig_request(0);
        assert_int_equal(chain_request(rig.chain), CHAIN_CONTINUE);
        assert_int_equal(chain_response(rig.chain), CHAIN_CUT);
        assert_int_equal(rig.txn.reason, REASON_FUNCTION_ERROR);
        assert_string_equal(trace, "s2");
        assert_int_equal(chain_response(rig.chain), CHAIN_CONTINUE);
        assert_string_equal(trace, "s2s1");
        rig_request_end();
}

/* ------------------------------------------------------------------ waiting */

static weir_rc got(weir_req *r, const void *inst, void *ctx, const weir_value *v, void *arg)
{
        (void)r, (void)ctx, (void)arg;
        note(v->type == WEIR_V_STRING ? "S" : v->type == WEIR_V_FAIL ? "F" : "?", inst);
        return v->type == WEIR_V_FAIL ? WEIR_ERROR : WEIR_CONTINUE;
}
HOOK(ask)
{
        (void)ctx;
        note("q", inst);
        return weir->redis(r, (weir_redis *)&rig.redis_store, got, NULL,
                           WEIR_ARGV(WEIR_STR("GET"), WEIR_STR("k")));
}

static void a_completion_is_the_verdict(void **state)
{
        (void)state;
        rig_function((weir_module){.on_request = ask}, "1");
        rig_function(plain, "2");
        rig_up();
        rig_request(0);
        assert_int_equal(chain_request(rig.chain), CHAIN_WAIT);
        assert_string_equal(rig.calls->text, "GET k");
        rig_answer((struct redis_reply){.type = REDIS_STRING, .text = STR_INIT("v")});
        assert_int_equal(rig.n_resumed, 1);
        assert_int_equal(rig.resumed, CHAIN_CONTINUE);
        rig_request_end();
        assert_string_equal(trace, "q1S1q2l2");

        trace[0] = '\0';
        rig_request(0);
        assert_int_equal(chain_request(rig.chain), CHAIN_WAIT);
        rig_answer((struct redis_reply){
                .type = REDIS_FAIL, .fail = REDIS_TIMEOUT, .text = STR_INIT("late")});
        assert_int_equal(rig.resumed, CHAIN_RESPOND);
        assert_int_equal(rig.txn.reason, REASON_FUNCTION_ERROR);
        rig_request_end();
        assert_string_equal(trace, "q1F1");
}

static void the_deadline_is_an_error_and_drops_the_operation(void **state)
{
        (void)state;
        rig_function((weir_module){.on_request = ask, .on_log = on_log}, "1");
        rig_up();
        rig_request(0);
        assert_int_equal(chain_request(rig.chain), CHAIN_WAIT);
        rig_wait(&rig.n_resumed, 1);
        assert_int_equal(rig.resumed, CHAIN_RESPOND);
        assert_int_equal(rig.txn.reason, REASON_FUNCTION_TIMEOUT);
        assert_null(rig.calls);
        rig_request_end();
        assert_string_equal(trace, "q1l1");
        assert_int_equal(rig_calls("timeout"), 1);
}

static void a_client_that_goes_drops_completions_but_not_on_log(void **state)
{
        (void)state;
        rig_function((weir_module){.on_request = ask, .on_log = on_log}, "1");
        rig_up();
        rig_request(0);
        assert_int_equal(chain_request(rig.chain), CHAIN_WAIT);
        chain_cancel(rig.chain);
        assert_null(rig.calls);
        rig_request_end();
        assert_int_equal(rig.n_resumed, 0);
        assert_string_equal(trace, "q1l1");
}

/* Two at once: the first completion waits for the other, or ends the call and drops it. */
struct both {
        int left;
};
static weir_rc one_of_two(weir_req *r, const void *inst, void *ctx, const weir_value *v, void *arg)
{
        struct both *b = ctx;
        (void)r, (void)inst, (void)arg;
        if (v->type == WEIR_V_INTEGER)
                return WEIR_CONTINUE;
        return --b->left ? WEIR_SUSPEND : WEIR_CONTINUE;
}
HOOK(ask_twice)
{
        struct both *b = ctx;
        weir_redis *store = (weir_redis *)&rig.redis_store;
        (void)inst;
        b->left = 2;
        weir->redis(r, store, one_of_two, NULL, WEIR_ARGV(WEIR_STR("A")));
        return weir->redis(r, store, one_of_two, NULL, WEIR_ARGV(WEIR_STR("B")));
}

static void several_operations(void **state)
{
        (void)state;
        rig_function((weir_module){.on_request = ask_twice, .ctx_size = sizeof(struct both)}, NULL);
        rig_up();
        rig_request(0);
        assert_int_equal(chain_request(rig.chain), CHAIN_WAIT);
        rig_answer((struct redis_reply){.type = REDIS_NIL});
        assert_int_equal(rig.n_resumed, 0);
        rig_answer((struct redis_reply){.type = REDIS_NIL});
        assert_int_equal(rig.n_resumed, 1);
        rig_request_end();

        rig_request(0);
        assert_int_equal(chain_request(rig.chain), CHAIN_WAIT);
        rig_answer((struct redis_reply){.type = REDIS_INTEGER});
        assert_int_equal(rig.n_resumed, 1);
        assert_null(rig.calls);
        rig_request_end();
}

static unsigned fired;
static weir_rc tick(weir_task *t, const void *inst, void *ctx, void *arg)
{
        (void)t, (void)inst, (void)ctx;
        assert_string_equal(arg, "arg");
        fired++;
        return WEIR_CONTINUE;
}
HOOK(sleep_hook)
{
        UNUSED_HOOK;
        return weir->timer(r, 10000, tick, "arg");
}

static void timers(void **state)
{
        (void)state;
        fired = 0;
        rig_function((weir_module){.on_request = sleep_hook}, NULL);
        rig_up();
        rig_request(0);
        assert_int_equal(chain_request(rig.chain), CHAIN_WAIT);
        rig_wait(&rig.n_resumed, 1);
        assert_int_equal(fired, 1);
        assert_int_equal(rig.resumed, CHAIN_CONTINUE);
        rig_request_end();
}

static weir_waiter *waiter;
static unsigned dropped;
static void drop(void *result)
{
        assert_string_equal(result, "result");
        dropped++;
}
static weir_rc woke(weir_task *t, const void *inst, void *ctx, void *arg)
{
        (void)t, (void)inst, (void)ctx;
        assert_string_equal(arg, "result");
        fired++;
        return WEIR_CONTINUE;
}
HOOK(wait_hook)
{
        UNUSED_HOOK;
        return weir->wait(r, woke, drop, &waiter);
}

static void waiters(void **state)
{
        (void)state;
        fired = dropped = 0;
        rig_function((weir_module){.on_request = wait_hook}, NULL);
        rig_up();
        rig_request(0);
        assert_int_equal(chain_request(rig.chain), CHAIN_WAIT);
        assert_int_equal(instances_pending(rig.set, rig.loop), 1);
        weir->wake(waiter, "result");
        assert_int_equal(rig.n_resumed, 0);
        rig_wait(&rig.n_resumed, 1);
        assert_int_equal(fired, 1);
        assert_int_equal(instances_pending(rig.set, rig.loop), 0);
        rig_request_end();

        rig_request(0);
        assert_int_equal(chain_request(rig.chain), CHAIN_WAIT);
        rig_request_end();
        assert_int_equal(instances_pending(rig.set, rig.loop), 1); /* still holds the generation */
        weir->wake(waiter, "result");
        rig_wait(&dropped, 1);
        assert_int_equal(fired, 1);
        assert_int_equal(instances_pending(rig.set, rig.loop), 0);
}

/* ------------------------------------------------------------------ quarantine, budget, crumbs */

static void quarantined_functions(void **state)
{
        struct function_conf *f;

        (void)state;
        rig.quarantined = true;
        f = rig_function(plain, "1");
        rig_up();
        rig_request(0);
        assert_int_equal(chain_request(rig.chain), CHAIN_RESPOND);
        assert_int_equal(rig.txn.reason, REASON_FUNCTION_QUARANTINED);
        assert_int_equal(rig.req.res.status, 503);
        assert_int_equal(chain_response(rig.chain), CHAIN_CONTINUE);
        rig_request_end();
        assert_string_equal(trace, "");
        assert_int_equal(rig_calls("quarantined"), 1);
        instances_loop_end(rig.set, rig.loop);
        instances_destroy(rig.set);

        f->on_error = ON_ERROR_FAIL_OPEN;
        rig_up();
        rig_request(0);
        assert_null(rig.chain);
        rig_request_end();
}

HOOK(spin)
{
        struct timespec a, b;
        uint64_t where = atomic_load(&crumb_self->where);

        UNUSED_HOOK;
        assert_int_equal(where >> 32, 7);
        assert_int_equal(where & 0xff, MODULE_REQUEST);
        clock_gettime(CLOCK_MONOTONIC, &a);
        do
                clock_gettime(CLOCK_MONOTONIC, &b);
        while ((b.tv_sec - a.tv_sec) * 1000000 + (b.tv_nsec - a.tv_nsec) / 1000 < 2000);
        return WEIR_CONTINUE;
}

static void budgets_are_watched(void **state)
{
        (void)state;
        rig_function((weir_module){.on_request = spin}, NULL)->budget = MSEC;
        rig_up();
        rig_request(0);
        assert_int_equal(chain_request(rig.chain), CHAIN_CONTINUE);
        assert_int_equal(atomic_load(&crumb_self->where), 0);
        rig_request_end();
        assert_int_equal(metric_sum(rig.region, METRIC_FUNCTION_OVER, STR("function=\"fn\"")), 1);
}

int main(void)
{
#define T(t) cmocka_unit_test_setup_teardown(t, begin, rig_end)
        const struct CMUnitTest tests[] = {
                T(in_order_and_in_reverse),
                T(no_hooks_no_chain),
                T(full_arena),
                T(an_answer_ends_the_way_in),
                T(a_429_is_a_rate_limit),
                T(errors_close_or_open),
                T(impossible_verdicts_are_errors),
                T(a_failed_response_function_cuts_and_the_others_follow),
                T(a_completion_is_the_verdict),
                T(the_deadline_is_an_error_and_drops_the_operation),
                T(a_client_that_goes_drops_completions_but_not_on_log),
                T(several_operations),
                T(timers),
                T(waiters),
                T(quarantined_functions),
                T(budgets_are_watched),
        };
        weir = &api_host;
        crypto_init();
        log_level = LOG_ERROR;
        return cmocka_run_group_tests(tests, NULL, NULL);
}
