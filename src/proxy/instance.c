/*
 * From the configuration's functions to living instances, and back.
 *
 *   create (control) -> loop_init (each loop) -> activate -> hooks -> retire -> loop_fini (each
 * loop) -> destroy (control)
 *
 * The difficulty: any step may fail, and then all that came before is undone in reverse, and
 * nothing else.
 */
#include "proxy/instance.h"

#include "base/crypto.h"
#include "base/log.h"
#include "conf/conf.h"
#include "net/redis.h"
#include "proxy/api.h"
#include "proxy/subrequest.h"
#include "proxy/work.h"

#include <stdlib.h>

#define WORK_MEMORY MIB /* of a background task whose function has no memory= */

static const char *const result_words[CALL_RESULTS] = {"continue", "respond", "error", "timeout",
                                                       "quarantined"};

const char *instance_result(unsigned result)
{
        return result_words[result];
}

/* ------------------------------------------------------------------ handles for arguments */

static weir_redis *redis_handle(void *ctx, const struct redis_store_conf *r)
{
        (void)ctx;
        return (weir_redis *)(uintptr_t)r; /* opaque, and never written through */
}

static weir_upstream *upstream_handle(void *ctx, const struct upstream_conf *u)
{
        (void)ctx;
        return (weir_upstream *)(uintptr_t)u;
}

static const weir_template *template_handle(void *ctx, const struct template *t)
{
        (void)ctx;
        return (const weir_template *)t;
}

static const struct module *find_module(void *ctx, str name, const weir_module **desc)
{
        const struct module *m = map_get(ctx, name);

        if (m != NULL)
                *desc = m->desc;
        return m;
}

const struct conf_handles *instances_handles(struct conf *c, struct map *modules, struct arena *a)
{
        struct conf_handles *h = ARENA_NEW(a, struct conf_handles);

        (void)c;
        *h = (struct conf_handles){.redis = redis_handle,
                                   .upstream = upstream_handle,
                                   .template = template_handle,
                                   .find = find_module,
                                   .ctx = modules};
        return h;
}

/* ------------------------------------------------------------------ calls in create */

weir_err instance_conf_error(weir_conf *t, const void *at, const char *fmt, ...)
{
        struct instance_set *s;
        va_list ap;
        str text;

        if (!task_valid(t, 1u << TASK_CONF, "conf_error"))
                return WEIR_E_PHASE;
        s = t->inst->set;
        va_start(ap, fmt);
        text = arena_vprintf(s->arena, fmt, ap);
        va_end(ap);
        conf_function_error(t->inst->conf, at, s->rep, arena_dupz(s->arena, text));
        return WEIR_E_INVAL;
}

weir_str instance_conf_name(weir_conf *t)
{
        if (!task_valid(t, 1u << TASK_CONF, "conf_name"))
                return (weir_str){NULL, 0};
        return api_weir(t->inst->conf->name);
}

static metric_cell *bind_metric(const weir_metric *m, const struct loop *l)
{
        static const enum metric_kind kinds[] = {[WEIR_COUNTER] = METRIC_COUNTER_REAL,
                                                 [WEIR_GAUGE] = METRIC_GAUGE_REAL,
                                                 [WEIR_HISTOGRAM] = METRIC_HISTOGRAM};

        if (l == NULL || l->metrics == NULL)
                return NULL;
        return metric_series_custom(l->metrics, m->name, kinds[m->kind], m->help, m->labels,
                                    m->bounds, m->n_bounds);
}

/* "requests_total{result="denied"}": the name, and the labels before function=. */
static str metric_labels(const struct instance *i, str name, str *bare)
{
        struct buf b = BUF_INIT;
        str rest, labels;

        if (str_cut(name, '{', bare, &rest) && str_ends(rest, STR("}")))
                buf_puts(&b, str_head(rest, rest.n - 1));
        metric_label(&b, "function", i->conf->name);
        labels = arena_dup(i->arena, buf_pullup(&b, b.n));
        buf_clear(&b);
        return labels;
}

weir_metric *instance_conf_metric(weir_conf *t, int32_t kind, const char *name, const char *help,
                                  const double *bounds, size_t n)
{
        struct instance *i;
        struct weir_metric *m;
        str bare;

        if (!task_valid(t, 1u << TASK_CONF, "conf_metric") || kind < WEIR_COUNTER ||
            kind > WEIR_HISTOGRAM || (kind == WEIR_HISTOGRAM && (n == 0 || n > METRIC_BOUNDS_MAX)))
                return NULL;
        i = (struct instance *)(uintptr_t)t->inst; /* it is being created: this thread's */
        m = ARENA_NEW(i->arena, struct weir_metric);
        *m = (struct weir_metric){.next = i->metrics,
                                  .inst = i,
                                  .kind = kind,
                                  .help = arena_dup(i->arena, str_z(help))};
        m->labels = metric_labels(i, str_z(name), &bare);
        m->name = arena_printf(i->arena, "weir_%s_%.*s", i->desc->name, STR_ARG(bare));
        if (kind == WEIR_HISTOGRAM) {
                double *copy = ARENA_ARRAY(i->arena, double, n);
                memcpy(copy, bounds, n * sizeof(*copy));
                m->bounds = copy;
                m->n_bounds = n;
        }
        m->cells = ARENA_ARRAY(i->arena, metric_cell *, i->set->env.n_loops + 1);
        m->cells[i->set->env.n_loops] = bind_metric(m, i->set->env.control);
        i->metrics = m;
        return m;
}

weir_cell *instance_conf_cell(weir_conf *t, void (*drop)(void *value))
{
        struct instance *i;

        if (!task_valid(t, 1u << TASK_CONF, "conf_cell"))
                return NULL;
        i = (struct instance *)(uintptr_t)t->inst;
        i->cells = cell_new(i, drop, i->cells);
        return i->cells;
}

weir_script *instance_conf_script(weir_conf *t, weir_str text)
{
        struct weir_script *s;
        uint8_t sha[20];

        if (!task_valid(t, 1u << TASK_CONF, "conf_script") || text.p == NULL)
                return NULL;
        s = ARENA_NEW(t->arena, struct weir_script);
        s->text = arena_dup(t->arena, api_str(text));
        crypto_sha1(s->text, sha);
        crypto_hex(s->sha, sha, sizeof(sha));
        s->sha[40] = '\0';
        return s;
}

/* ------------------------------------------------------------------ a thread's part */

static void bind_results(struct instance_loop *il, struct metric_slot *metrics)
{
        const struct instance *i = il->inst;
        struct buf b = BUF_INIT;

        metric_label(&b, "function", i->conf->name);
        il->over = metric_series(metrics, METRIC_FUNCTION_OVER, buf_pullup(&b, b.n));
        il->lines_held = metric_series(metrics, METRIC_FUNCTION_LINES, buf_pullup(&b, b.n));
        for (unsigned r = 0; r < CALL_RESULTS; r++) {
                buf_clear(&b);
                metric_label(&b, "function", i->conf->name);
                metric_label(&b, "result", str_z(result_words[r]));
                il->results[r] = metric_series(metrics, METRIC_FUNCTION_CALLS, buf_pullup(&b, b.n));
        }
        buf_clear(&b);
}

void instance_observe(struct instance_loop *il, int64_t us)
{
        static const double bounds[] = {1e-6,   2e-6,   5e-6,   10e-6,  20e-6, 50e-6, 100e-6,
                                        200e-6, 500e-6, 1e-3,   2e-3,   5e-3,  10e-3, 20e-3,
                                        50e-3,  100e-3, 200e-3, 500e-3, 1.0};

        if (il->sl->loop->metrics == NULL)
                return;
        if (il->duration == NULL) {
                struct buf b = BUF_INIT;
                metric_label(&b, "function", il->inst->conf->name);
                il->duration = metric_series_custom(
                        il->sl->loop->metrics, STR(INSTANCE_DURATION), METRIC_HISTOGRAM,
                        STR("Time that calls of functions ran, by function; of each loop the first "
                            "64, then one in 64."),
                        buf_pullup(&b, b.n), bounds, COUNT(bounds));
                buf_clear(&b);
        }
        metric_custom_observe(il->duration, bounds, COUNT(bounds), (double)us / (double)SEC);
}

static void tell_held(struct instance_loop *il)
{
        uint32_t n = log_quota_missed(&il->lines);

        deadline_clear(&il->held);
        if (n > 0)
                log_warn(il->inst->subject, "%u of its lines were left out (log_lines=%u)", n,
                         il->inst->conf->log_lines);
}

static void held_due(struct deadline *d)
{
        tell_held(CONTAINER_OF(d, struct instance_loop, held));
}

bool instance_may_log(struct instance_loop *il, uint32_t lines)
{
        if (lines == 0 || log_quota_silent(&il->lines, lines))
                return true;
        if (il->lines_held != NULL)
                metric_add(il->lines_held, 1);
        if (!deadline_armed(&il->held))
                deadline_set(il->sl->loop, &il->held, SEC, held_due);
        return false;
}

static struct instance_loop *part_new(struct instance *i, struct set_loop *sl)
{
        struct instance_loop *il = calloc(1, sizeof(*il));

        CHECK(il != NULL);
        il->inst = i;
        il->sl = sl;
        list_init(&il->works);
        i->loops[set_index(i->set, sl->loop)] = il;
        if (sl->loop->metrics != NULL)
                bind_results(il, sl->loop->metrics);
        return il;
}

static void part_end(struct instance *i, const struct loop *l)
{
        unsigned at = set_index(i->set, l);
        struct instance_loop *il = i->loops[at];

        if (il == NULL)
                return;
        work_drop(il, true);
        tell_held(il);
        if (il->inited && i->desc->loop_fini != NULL) {
                crumb_enter(i->copy, i->index, MODULE_LOOP_FINI, &i->conf->label, NULL);
                i->desc->loop_fini(i->inst, il->data);
                crumb_leave();
        }
        for (struct weir_cell *c = i->cells; c != NULL; c = cell_next(c))
                cell_forget(c, at);
        free(il->data);
        arena_free(il->arena);
        free(il);
        i->loops[at] = NULL;
}

static bool part_init(struct instance_loop *il, struct loop *l)
{
        const struct instance *i = il->inst;
        struct weir_task t = {0};
        weir_err err = WEIR_OK;
        int64_t stamp;

        il->arena = arena_new(0);
        if (i->desc->loop_size != 0) {
                il->data = calloc(1, i->desc->loop_size);
                CHECK(il->data != NULL);
        }
        for (const struct weir_metric *m = i->metrics; m != NULL; m = m->next)
                m->cells[set_index(i->set, l)] = bind_metric(m, l);
        if (i->desc->loop_init != NULL) {
                task_init(&t, TASK_LOOP, i, l, il->arena);
                stamp = task_enter(&t, MODULE_LOOP_INIT);
                err = i->desc->loop_init(&t, i->inst, il->data);
                task_leave(&t, stamp);
                task_end(&t);
        }
        il->inited = err == WEIR_OK;
        if (err != WEIR_OK)
                log_error(i->subject, "its preparation on a loop failed (%d)", (int)err);
        return il->inited;
}

bool instances_loop_begin(struct instance_set *s, struct loop *l)
{
        struct set_loop *sl = &s->loops[set_index(s, l)];

        CHECK_OBJ(s, INSTANCE_SET_MAGIC);
        sl->loop = l;
        for (size_t k = 0; k < s->n; k++) {
                struct instance *i = s->v[k];
                struct instance_loop *il = part_new(i, sl);
                if (i->quarantined || part_init(il, l))
                        continue;
                instances_loop_end(s, l);
                return false;
        }
        return true;
}

void instances_loop_end(struct instance_set *s, struct loop *l)
{
        struct set_loop *sl = &s->loops[set_index(s, l)];

        for (size_t k = s->n; k-- > 0;)
                part_end(s->v[k], l);
        for (size_t k = 0; k < s->conf->n_redises; k++) {
                if (sl->redis[k] != NULL)
                        s->env.redis_calls->drop(sl->redis[k]);
                sl->redis[k] = NULL;
        }
}

/* ------------------------------------------------------------------ plans */

static bool has_hook(const struct instance *i)
{
        return i->desc->on_request != NULL || i->desc->on_response != NULL;
}

static void plan_route(struct instance_set *s, struct route_conf *r)
{
        struct chain_plan *p = ARENA_NEW(s->arena, struct chain_plan);
        struct chain_hook *request = ARENA_ARRAY(s->arena, struct chain_hook, r->n_functions + 1);
        struct chain_hook *response = ARENA_ARRAY(s->arena, struct chain_hook, r->n_functions + 1);
        struct chain_log_hook *log =
                ARENA_ARRAY(s->arena, struct chain_log_hook, r->n_functions + 1);

        p->n = (uint32_t)r->n_functions;
        for (uint32_t k = 0; k < p->n; k++) {
                const struct function_conf *use = r->functions[k];
                const struct instance *i = use->shared->instance;
                uint32_t ctx = (uint32_t)p->ctx_size;
                if (i->quarantined) {
                        if (has_hook(i) && use->on_error == ON_ERROR_FAIL_CLOSED)
                                request[p->n_request++] = (struct chain_hook){NULL, i, use, k, ctx};
                        continue;
                }
                p->ctx_size += (i->desc->ctx_size + 15) / 16 * 16;
                if (i->desc->on_request != NULL)
                        request[p->n_request++] =
                                (struct chain_hook){i->desc->on_request, i, use, k, ctx};
                if (i->desc->on_log != NULL)
                        log[p->n_log++] = (struct chain_log_hook){i->desc->on_log, i, use, k, ctx};
                if (i->desc->on_response != NULL) {
                        memmove(response + 1, response, p->n_response++ * sizeof(*response));
                        response[0] = (struct chain_hook){i->desc->on_response, i, use, k, ctx};
                }
        }
        p->request = request;
        p->response = response;
        p->log = log;
        r->plan = p->n_request + p->n_response + p->n_log ? p : NULL;
}

/* ------------------------------------------------------------------ create and destroy */

static struct instance *instance_new(struct instance_set *s, struct function_conf *f)
{
        struct instance *i = calloc(1, sizeof(*i));

        CHECK(i != NULL);
        *i = (struct instance){.magic = INSTANCE_MAGIC,
                               .index = f->index,
                               .copy = f->mod->copy,
                               .desc = f->desc,
                               .inst = f->inst,
                               .set = s,
                               .conf = f,
                               .constants = f->constants,
                               .arena = arena_new(0),
                               .memory = f->memory ? f->memory : WORK_MEMORY};
        if (i->constants == NULL)
                i->constants = constants_new(i->arena, NULL, 0);
        i->subject = arena_printf(i->arena, "function %.*s", STR_ARG(f->label)).p;
        i->loops = ARENA_ARRAY(i->arena, struct instance_loop *, s->env.n_loops + 1);
        i->quarantined = s->env.quarantined != NULL && s->env.quarantined(f->mod->sha);
        f->instance = i;
        return i;
}

static void instance_free(struct instance *i)
{
        for (struct weir_cell *c = i->cells; c != NULL; c = cell_next(c))
                cell_end(c);
        if (i->created && i->desc->destroy != NULL) {
                crumb_enter(i->copy, i->index, MODULE_DESTROY, &i->conf->label, NULL);
                i->desc->destroy(i->inst);
                crumb_leave();
        }
        arena_free(i->arena);
        i->magic = DEAD_MAGIC;
        free(i);
}

static bool call_create(struct instance *i)
{
        struct instance_set *s = i->set;
        unsigned errors = s->rep->errors;
        struct weir_task t = {0};
        weir_err err = WEIR_OK;
        int64_t stamp;

        if (i->quarantined) {
                log_warn(i->subject, "is not created: its module is quarantined");
                return true;
        }
        if (s->env.control != NULL)
                part_new(i, &s->loops[s->env.n_loops]);
        if (i->desc->create != NULL) {
                task_init(&t, TASK_CONF, i, s->env.control, i->arena);
                stamp = task_enter(&t, MODULE_CREATE);
                err = i->desc->create(&t, i->inst);
                task_leave(&t, stamp);
                task_end(&t);
        }
        if (err != WEIR_OK && s->rep->errors == errors)
                conf_function_error(i->conf, NULL, s->rep, "the function could not be created");
        i->created = err == WEIR_OK && s->rep->errors == errors;
        return i->created;
}

static const struct redis_calls real_redis = {redis_get, redis_drop, redis_command, redis_script,
                                              redis_cancel};

struct instance_set *instances_create(struct instance_env *env, struct conf *c, struct report *rep)
{
        struct arena *a = arena_new(0);
        struct instance_set *s = ARENA_NEW(a, struct instance_set);
        bool ok = true;

        *s = (struct instance_set){
                .magic = INSTANCE_SET_MAGIC, .env = *env, .conf = c, .arena = a, .rep = rep};
        if (s->env.redis_calls == NULL)
                s->env.redis_calls = &real_redis;
        if (s->env.subrequest_calls == NULL)
                s->env.subrequest_calls = &subrequest_calls;
        s->v = ARENA_ARRAY(a, struct instance *, c->n_functions + 1);
        s->loops = ARENA_ARRAY(a, struct set_loop, env->n_loops + 1);
        for (unsigned k = 0; k <= env->n_loops; k++) {
                s->loops[k].set = s;
                s->loops[k].redis = ARENA_ARRAY(a, struct redis *, c->n_redises + 1);
        }
        s->loops[env->n_loops].loop = env->control;
        for (size_t k = 0; k < c->n_functions; k++) {
                struct instance *i = instance_new(s, c->functions[k]);
                s->v[s->n++] = i;
                ok = call_create(i) &&
                     ok; /* all mistakes are reported, not the first function's only */
        }
        s->rep = NULL;
        if (!ok) {
                instances_destroy(s);
                return NULL;
        }
        for (size_t h = 0; h < c->n_hosts; h++)
                for (size_t r = 0; r < c->hosts[h].n_routes; r++)
                        plan_route(s, &c->hosts[h].routes[r]);
        return s;
}

void instances_destroy(struct instance_set *s)
{
        CHECK_OBJ(s, INSTANCE_SET_MAGIC);
        if (s->env.control != NULL)
                instances_loop_end(s, s->env.control);
        for (size_t k = s->n; k-- > 0;)
                instance_free(s->v[k]);
        s->magic = DEAD_MAGIC;
        arena_free(s->arena);
}

/* ------------------------------------------------------------------ active, replaced */

static void activate(struct set_loop *sl)
{
        struct instance_set *s = sl->set;

        sl->active = true;
        for (size_t k = 0; k < s->n; k++)
                if (s->v[k]->loops[sl - s->loops] != NULL)
                        work_activate(s->v[k]->loops[sl - s->loops]);
}

static void retire(struct set_loop *sl)
{
        struct instance_set *s = sl->set;

        sl->retired = true;
        for (size_t k = 0; k < s->n; k++)
                if (s->v[k]->loops[sl - s->loops] != NULL)
                        work_drop(s->v[k]->loops[sl - s->loops], false);
}

static void activate_control(struct loop_msg *m)
{
        struct instance_set *s = CONTAINER_OF(m, struct instance_set, activate);
        activate(&s->loops[s->env.n_loops]);
}

static void retire_control(struct loop_msg *m)
{
        struct instance_set *s = CONTAINER_OF(m, struct instance_set, retire);
        retire(&s->loops[s->env.n_loops]);
}

/* The first loop to say so tells the control thread, whose inbox is in order: before the end of
 * this generation can come there. */
static void tell_control(struct instance_set *s, _Atomic bool *told, struct loop_msg *m,
                         void (*fn)(struct loop_msg *))
{
        if (s->env.control == NULL || atomic_exchange(told, true))
                return;
        m->fn = fn;
        loop_post(s->env.control, m);
}

void instances_activate(struct instance_set *s, struct loop *l)
{
        activate(&s->loops[set_index(s, l)]);
        tell_control(s, &s->control_active, &s->activate, activate_control);
}

void instances_retire(struct instance_set *s, struct loop *l)
{
        retire(&s->loops[set_index(s, l)]);
        tell_control(s, &s->control_retired, &s->retire, retire_control);
}

uint32_t instances_pending(const struct instance_set *s, const struct loop *l)
{
        return atomic_load_explicit(&s->loops[set_index(s, l)].pending, memory_order_relaxed) +
               atomic_load_explicit(&s->loops[s->env.n_loops].pending, memory_order_acquire);
}
