/* http as modules see it: what they give, what they are told, whose memory it is, and when it is
 * dropped. */
#include "proxy/api_http.c"

#include "function.h"

/* What was asked for, and neither answered nor cancelled. */
struct subrequest {
        bool live;
        struct subrequest_ask ask;
        weir_http_req req;
};
static struct subrequest subs[4];
static unsigned n_subs, cancelled;

static struct subrequest *fake_start(const struct subrequest_ask *ask)
{
        struct subrequest *s = &subs[n_subs++];

        *s = (struct subrequest){.live = true, .ask = *ask, .req = *ask->req};
        return s;
}

static void fake_cancel(struct subrequest *s)
{
        assert_true(s->live);
        s->live = false;
        cancelled++;
}

static const struct subrequest_calls fakes = {fake_start, fake_cancel};
static struct upstream_conf upstream = {.name = STR_INIT("u")};
static struct upstream *upstreams[1];

static bool hold(unsigned i, size_t n)
{
        return subs[i].ask.user->room(subs[i].ask.arg, n);
}

static void answer(unsigned i, int status, size_t body)
{
        struct arena *a = arena_new(0);
        struct msg head = {.status = status};
        struct buf b = BUF_INIT;

        assert_true(subs[i].live);
        subs[i].live = false;
        fields_add(a, &head.fields, FIELD_OTHER, arena_dup(a, STR("X-A")), arena_dup(a, STR("1")));
        fields_add(a, &head.fields, FIELD_OTHER, STR("X-B"), STR("2"))->flags |= FIELD_DELETED;
        for (size_t k = 0; k < body; k++)
                buf_put(&b, "b", 1);
        subs[i].ask.user->done(subs[i].ask.arg,
                               &(struct subrequest_answer){.head = &head, .body = &b});
        buf_clear(&b);
        arena_free(a);
}

/* ------------------------------------------------------------------ functions */

static weir_http_req wants;
static weir_rc began, (*then)(weir_req *, const weir_http_res *);
static unsigned told;

static weir_rc done(weir_task *t, const void *inst, void *ctx, const weir_http_res *res, void *arg)
{
        (void)inst, (void)ctx;
        assert_ptr_equal(arg, &told);
        told++;
        return then(t, res);
}

static weir_rc ask(weir_task *t)
{
        return weir->http(t, (weir_upstream *)&upstream, &wants, done, &told);
}

HOOK(one)
{
        UNUSED_HOOK;
        began = ask(r);
        return began;
}

HOOK(two)
{
        UNUSED_HOOK;
        assert_int_equal(ask(r), WEIR_SUSPEND);
        return ask(r);
}

static void up_with(weir_rc (*hook)(weir_req *, const void *, void *))
{
        rig_function((weir_module){.on_request = hook}, NULL)->memory = 4096;
        rig_up();
        rig.set->env.subrequest_calls = &fakes;
        rig.set->env.upstreams = upstreams;
        rig_request(0);
}

static int begin(void **state)
{
        n_subs = cancelled = told = 0;
        wants = (weir_http_req){.size = sizeof(wants), .path = WEIR_STR("/p"), .max_body = 9};
        return rig_begin(state);
}

static int end(void **state)
{
        rig_request_end();
        for (unsigned i = 0; i < n_subs; i++)
                assert_false(subs[i].live);
        return rig_end(state);
}

/* ------------------------------------------------------------------ tests */

static const weir_http_res *kept;

static weir_rc look(weir_req *r, const weir_http_res *res)
{
        (void)r;
        kept = res;
        assert_int_equal(res->size, sizeof(*res));
        assert_int_equal(res->status, 201);
        assert_int_equal(res->error, WEIR_OK);
        return WEIR_CONTINUE;
}

static void an_answer_lives_as_long_as_the_task(void **state)
{
        (void)state;
        then = look;
        up_with(one);
        assert_int_equal(chain_request(rig.chain), CHAIN_WAIT);
        assert_ptr_equal(subs[0].ask.conf, &upstream);
        assert_ptr_equal(subs[0].ask.parent, &rig.txn);
        assert_int_equal(subs[0].req.max_body, 9);
        answer(0, 201, 3);
        assert_int_equal(rig.n_resumed, 1);
        assert_int_equal(rig.resumed, CHAIN_CONTINUE);
        ASSERT_STR(kept->body, "bbb");
        assert_int_equal(kept->body.p[3], '\0');
        assert_int_equal(kept->n_fields, 1);
        ASSERT_STR(weir_http_field(kept, WEIR_STR("x-a")), "1");
        assert_null(weir_http_field(kept, WEIR_STR("x-b")).p);
}

/* What an older or a newer module gives. */
static void a_request_is_read_by_its_size(void **state)
{
        (void)state;
        then = look;
        up_with(one);
        wants.size = offsetof(weir_http_req, max_body);
        assert_int_equal(chain_request(rig.chain), CHAIN_WAIT);
        assert_int_equal(subs[0].req.max_body, 0);
        ASSERT_STR(subs[0].req.path, "/p");
        answer(0, 201, 0);
        rig_request_end();
        rig_request(0);
        wants.size = sizeof(wants) + 64;
        wants.max_body = 7;
        assert_int_equal(chain_request(rig.chain), CHAIN_WAIT);
        assert_int_equal(subs[1].req.max_body, 7);
        answer(1, 201, 0);
}

static void what_is_no_request_is_an_error(void **state)
{
        (void)state;
        up_with(one);
        wants.size = 0;
        assert_int_equal(chain_request(rig.chain), CHAIN_RESPOND);
        assert_int_equal(began, WEIR_ERROR);
        assert_int_equal(n_subs, 0);
}

static weir_rc fits(weir_req *r, const weir_http_res *res)
{
        assert_int_equal(res->status, 201);
        assert_non_null(weir->alloc(r, 500));
        return --told ? WEIR_CONTINUE : WEIR_SUSPEND; /* the second decides */
}

static void what_is_under_way_is_memory(void **state)
{
        (void)state;
        then = fits;
        up_with(two);
        assert_int_equal(chain_request(rig.chain), CHAIN_WAIT);
        assert_true(hold(0, 1500));
        assert_true(hold(1, 1500));
        assert_false(hold(1, 3000));
        assert_true(hold(1, 1000));
        assert_true(hold(0, 2500));
        answer(0, 201, 100);
        assert_int_equal(rig.n_resumed, 0);
        assert_true(hold(1, 2000));
        told = 1;
        answer(1, 201, 100);
        assert_int_equal(rig.n_resumed, 1);
}

static weir_rc no_room(weir_req *r, const weir_http_res *res)
{
        (void)r;
        assert_int_equal(res->status, 0);
        assert_int_equal(res->error, WEIR_E_NOMEM);
        assert_true(res->body.n > 0);
        return WEIR_CONTINUE;
}

static void an_answer_that_does_not_fit(void **state)
{
        (void)state;
        then = no_room;
        up_with(one);
        assert_int_equal(chain_request(rig.chain), CHAIN_WAIT);
        answer(0, 201, 5000);
        assert_int_equal(rig.resumed, CHAIN_CONTINUE);
        assert_int_equal(told, 1);
}

static weir_rc go_on(weir_req *r, const weir_http_res *res)
{
        (void)r, (void)res;
        return WEIR_CONTINUE;
}

static void a_verdict_drops_what_is_outstanding(void **state)
{
        (void)state;
        then = go_on;
        up_with(two);
        assert_int_equal(chain_request(rig.chain), CHAIN_WAIT);
        answer(1, 200, 0);
        assert_int_equal(cancelled, 1);
        assert_false(subs[0].live);
        assert_int_equal(rig.n_resumed, 1);
}

static void a_client_that_goes_drops_it(void **state)
{
        (void)state;
        up_with(two);
        assert_int_equal(chain_request(rig.chain), CHAIN_WAIT);
        chain_cancel(rig.chain);
        assert_int_equal(cancelled, 2);
}

static void the_time_of_the_function_is_a_bound(void **state)
{
        (void)state;
        up_with(one);
        assert_int_equal(chain_request(rig.chain), CHAIN_WAIT);
        loop_advance(rig.loop, 100 * MSEC);
        assert_int_equal(cancelled, 1);
        assert_int_equal(rig.resumed, CHAIN_RESPOND);
        assert_int_equal(rig_calls("timeout"), 1);
}

/* ------------------------------------------------------------------ background */

static weir_rc work(weir_task *t, const void *inst, void *ctx, void *arg)
{
        (void)inst, (void)ctx, (void)arg;
        began = ask(t);
        return began;
}

static weir_err on_a_loop(weir_task *t, const void *inst, void *loop)
{
        (void)inst, (void)loop;
        assert_int_equal(ask(t), WEIR_ERROR); /* loop_init may not wait */
        return weir->spawn(t, 0, work, NULL, 0);
}

static weir_err on_control(weir_conf *t, void *inst)
{
        (void)inst;
        assert_int_equal(ask(t), WEIR_ERROR);
        return weir->spawn(t, 0, work, NULL, 0);
}

static weir_rc over(weir_req *r, const weir_http_res *res)
{
        (void)r;
        assert_int_equal(res->error, WEIR_E_NOMEM);
        return WEIR_DONE;
}

static void background_work_asks(void **state)
{
        (void)state;
        then = over;
        rig_function((weir_module){.loop_init = on_a_loop, .on_request = one}, NULL)->memory = 8192;
        rig_up();
        rig.set->env.subrequest_calls = &fakes;
        rig.set->env.upstreams = upstreams;
        assert_int_equal(n_subs, 0);
        loop_advance(rig.loop, 10 * MSEC);
        assert_int_equal(n_subs, 1);
        assert_null(subs[0].ask.parent);
        assert_true(hold(0, 4000));
        assert_false(hold(0, 8192));
        assert_int_equal(instances_pending(rig.set, rig.loop), 1);
        answer(0, 200, 10000);
        assert_int_equal(told, 1);
        assert_int_equal(instances_pending(rig.set, rig.loop), 0);
        rig_request(0);
}

static void there_is_none_on_the_control_thread(void **state)
{
        (void)state;
        began = WEIR_SUSPEND;
        rig_function((weir_module){.create = on_control, .on_request = one}, NULL);
        rig_up();
        rig.set->env.subrequest_calls = &fakes;
        rig.set->env.upstreams = upstreams;
        loop_self = rig.control;
        loop_advance(rig.control, 10 * MSEC);
        loop_self = rig.loop;
        assert_int_equal(began, WEIR_ERROR);
        assert_int_equal(n_subs, 0);
        rig_request(0);
}

int main(void)
{
#define T(t) cmocka_unit_test_setup_teardown(t, begin, end)
        const struct CMUnitTest tests[] = {
                T(an_answer_lives_as_long_as_the_task),
                T(a_request_is_read_by_its_size),
                T(what_is_no_request_is_an_error),
                T(what_is_under_way_is_memory),
                T(an_answer_that_does_not_fit),
                T(a_verdict_drops_what_is_outstanding),
                T(a_client_that_goes_drops_it),
                T(the_time_of_the_function_is_a_bound),
                T(background_work_asks),
                T(there_is_none_on_the_control_thread),
        };
        weir = &api_host;
        log_level = LOG_NONE;
        return cmocka_run_group_tests(tests, NULL, NULL);
}
