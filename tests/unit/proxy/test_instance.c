/* The life of instances: what is made, in which order it is unmade, and what goes on beside
 * requests. */
#include "proxy/instance.c"

#include "function.h"

static char trace[256];

static void note(const char *what, const void *inst)
{
        snprintf(trace + strlen(trace), sizeof(trace) - strlen(trace), "%s%s", what,
                 inst ? (const char *)inst : "");
}

static weir_err create(weir_conf *c, void *inst)
{
        ASSERT_STR(api_str(weir->conf_name(c)), "fn");
        note("c", inst);
        return WEIR_OK;
}
static weir_err refuse(weir_conf *c, void *inst)
{
        note("r", inst);
        return weir->conf_error(c, inst, "%s is wrong", "this");
}
static weir_err fail_create(weir_conf *c, void *inst)
{
        (void)c;
        note("f", inst);
        return WEIR_E_NOENT;
}
static void destroy(void *inst)
{
        note("d", inst);
}
static weir_err loop_init(weir_task *t, const void *inst, void *loop)
{
        assert_ptr_equal(weir->loop_data(t), loop);
        assert_int_equal(*(int *)loop, 0);
        *(int *)loop = 42;
        note("i", inst);
        return WEIR_OK;
}
static weir_err loop_fail(weir_task *t, const void *inst, void *loop)
{
        (void)t, (void)loop;
        note("x", inst);
        return WEIR_E_NOMEM;
}
static void loop_fini(const void *inst, void *loop)
{
        assert_int_equal(*(int *)loop, 42);
        note("e", inst);
}

static const weir_module whole = {.create = create,
                                  .destroy = destroy,
                                  .loop_init = loop_init,
                                  .loop_fini = loop_fini,
                                  .loop_size = sizeof(int)};

static int begin(void **state)
{
        trace[0] = '\0';
        return rig_begin(state);
}

static void a_life(void **state)
{
        rig_function(whole, "1");
        rig_function(whole, "2");
        rig_up();
        assert_int_equal(rig_end(state), 0);
        assert_string_equal(trace, "c1c2i1i2e2e1d2d1");
        rig_begin(state);
}

static void one_mistake_undoes_all(void **state)
{
        struct report rep = {.out = BUF_INIT};

        (void)state;
        rig_function(whole, "1");
        rig_function((weir_module){.create = refuse, .destroy = destroy}, "2");
        rig_function((weir_module){.create = fail_create, .destroy = destroy}, "3");
        assert_null(rig_create(&rep));
        assert_int_equal(rep.errors, 2);
        assert_string_equal(rig.said, "the function could not be created");
        assert_string_equal(trace, "c1r2f3d1");
}

static void a_loop_that_fails_is_undone(void **state)
{
        struct report rep = {.out = BUF_INIT};

        (void)state;
        rig_function(whole, "1");
        rig_function((weir_module){.loop_init = loop_fail, .loop_fini = loop_fini}, "2");
        assert_non_null(rig_create(&rep));
        assert_false(instances_loop_begin(rig.set, rig.loop));
        assert_string_equal(trace, "c1i1x2e1");
        instances_destroy(rig.set);
        rig.set = NULL;
}

/* ------------------------------------------------------------------ background work */

static unsigned works;
static weir_rc work(weir_task *t, const void *inst, void *ctx, void *arg)
{
        (void)inst;
        assert_int_equal(*(int *)arg, 7);
        assert_int_equal(*(int *)ctx, 0);
        assert_int_equal(*(int *)weir->loop_data(t), 42);
        if (++works < 3)
                assert_int_equal(weir->spawn(t, 1000, work, arg, sizeof(int)), WEIR_OK);
        return WEIR_DONE;
}
static weir_err spawn_init(weir_task *t, const void *inst, void *loop)
{
        int seven = 7;
        loop_init(t, inst, loop);
        return weir->spawn(t, 1000, work, &seven, sizeof(seven));
}

static void a_periodic_job(void **state)
{
        struct report rep = {.out = BUF_INIT};
        weir_module m = whole;

        (void)state;
        works = 0;
        m.loop_init = spawn_init;
        m.ctx_size = sizeof(int);
        rig_function(m, "1");
        assert_non_null(rig_create(&rep));
        loop_self = rig.loop;
        assert_true(instances_loop_begin(rig.set, rig.loop));
        for (int i = 0; i < 3; i++)
                loop_turn(rig.loop, false);
        assert_int_equal(works, 0); /* not before it is active */
        instances_activate(rig.set, rig.loop);
        rig_wait(&works, 3);
        assert_int_equal(instances_pending(rig.set, rig.loop), 0);
        assert_int_equal(rig_calls("continue"), 3);
}

static weir_rc never(weir_task *t, const void *inst, void *ctx, void *arg)
{
        (void)t, (void)inst, (void)ctx, (void)arg;
        fail_msg("a task began that should have been dropped");
        return WEIR_DONE;
}
static weir_err spawn_late(weir_task *t, const void *inst, void *loop)
{
        loop_init(t, inst, loop);
        for (int i = 0; i < WORK_MAX; i++)
                assert_int_equal(weir->spawn(t, 5000, never, NULL, 0), WEIR_OK);
        return weir->spawn(t, 5000, never, NULL, 0) == WEIR_E_FULL ? WEIR_OK : WEIR_E_INVAL;
}

static void work_not_begun_is_dropped_when_replaced(void **state)
{
        weir_module m = whole;

        (void)state;
        m.loop_init = spawn_late;
        rig_function(m, "1");
        rig_up();
        instances_retire(rig.set, rig.loop);
        assert_int_equal(rig.function[0].instance->loops[0]->n_works, 0);
}

static weir_err spawn_control(weir_conf *c, void *inst)
{
        int seven = 7;
        (void)inst;
        return weir->spawn(c, 1000, never, &seven, sizeof(seven));
}

static void the_checker_has_no_background(void **state)
{
        struct instance_env env = {.control = rig.control, .checker = true};
        struct report rep = {.out = BUF_INIT};
        struct instance_set *s;

        (void)state;
        rig_function((weir_module){.create = spawn_control}, NULL);
        rig.conf.functions = rig.list;
        s = instances_create(&env, &rig.conf, &rep);
        assert_non_null(s);
        assert_int_equal(rig.function[0].instance->loops[0]->n_works, 0);
        instances_destroy(s);
}

/* ------------------------------------------------------------------ cells and metrics */

static weir_cell *cell;
static weir_metric *counter, *histogram;
static unsigned dropped;
static char *seen[2];

static void drop(void *value)
{
        (void)value;
        dropped++;
}
static weir_err make_shared(weir_conf *c, void *inst)
{
        static const double bounds[] = {1, 10};
        (void)inst;
        cell = weir->conf_cell(c, drop);
        counter = weir->conf_metric(c, WEIR_COUNTER, "seen_total{kind=\"x\"}", "Seen.", NULL, 0);
        histogram = weir->conf_metric(c, WEIR_HISTOGRAM, "size", "Size.", bounds, 2);
        assert_null(weir->conf_metric(c, WEIR_HISTOGRAM, "none", "No bounds.", NULL, 0));
        return WEIR_OK;
}
HOOK(read_cell)
{
        UNUSED_HOOK;
        seen[0] = (char *)(uintptr_t)weir->cell_get(r, cell);
        if (seen[0] != NULL) {
                weir->cell_set(cell, "newer");
                seen[1] = (char *)(uintptr_t)weir->cell_get(r, cell);
                assert_int_equal(dropped, 0); /* this task still has the old one */
                assert_ptr_equal(weir->cell_get(r, cell), seen[1]);
        }
        weir->metric_add(counter, 1.5);
        weir->metric_set(histogram, 5);
        return WEIR_CONTINUE;
}

static void cells_and_metrics(void **state)
{
        struct buf out = BUF_INIT;
        str text;

        (void)state;
        dropped = 0;
        rig_function((weir_module){.create = make_shared, .on_request = read_cell}, NULL);
        rig_up();
        rig_request(0);
        assert_int_equal(chain_request(rig.chain), CHAIN_CONTINUE);
        assert_null(seen[0]);
        rig_request_end();
        weir->cell_set(cell, "old");
        rig_request(0);
        assert_int_equal(chain_request(rig.chain), CHAIN_CONTINUE);
        assert_string_equal(seen[0], "old");
        assert_string_equal(seen[1], "newer");
        assert_int_equal(dropped, 0);
        rig_request_end();
        assert_int_equal(dropped, 1);
        metric_export(rig.region, &out);
        text = buf_pullup(&out, out.n);
        assert_true(str_find(text, STR("weir_mod_seen_total{kind=\"x\",function=\"fn\"} 3\n")) >=
                    0);
        assert_true(str_find(text, STR("weir_mod_size_bucket{function=\"fn\",le=\"10\"} 2\n")) >=
                    0);
        buf_clear(&out);
        instances_loop_end(rig.set, rig.loop);
        instances_destroy(rig.set);
        rig.set = NULL;
        assert_int_equal(dropped, 2);
}

int main(void)
{
#define T(t) cmocka_unit_test_setup_teardown(t, begin, rig_end)
        const struct CMUnitTest tests[] = {
                T(a_life),
                T(one_mistake_undoes_all),
                T(a_loop_that_fails_is_undone),
                T(a_periodic_job),
                T(work_not_begun_is_dropped_when_replaced),
                T(the_checker_has_no_background),
                T(cells_and_metrics),
        };
        weir = &api_host;
        crypto_init();
        log_level = LOG_ERROR;
        return cmocka_run_group_tests(tests, NULL, NULL);
}
