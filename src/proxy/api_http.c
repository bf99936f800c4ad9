/*
 * Sub-requests as the public header has them: what a module asks for, and what it is answered.
 *
 * The difficulty: the structs of the header grow, so what a module gives is read by its own size;
 * and an answer, which is outside of the task's memory, goes into it whole or not at all.
 */
#include "proxy/api.h"
#include "proxy/instance.h"
#include "proxy/subrequest.h"

bool api_http_ask(struct weir_task *t, const weir_upstream *u, const weir_http_req *req,
                  weir_http_req *whole, struct subrequest_ask *ask)
{
        const struct instance_env *env = &t->inst->set->env;
        const struct upstream_conf *conf = (const struct upstream_conf *)u;

        if (conf == NULL || req == NULL || req->size == 0) {
                task_complain(t->inst, "http() without an upstream or a request");
                return false;
        }
        if (set_index(t->inst->set, t->loop) == env->n_loops || env->upstreams == NULL) {
                task_complain(t->inst, "http() was called on the control thread, which has no "
                                       "connections to servers");
                return false;
        }
        *whole = (weir_http_req){0};
        memcpy(whole, req, MIN(req->size, sizeof(*whole)));
        ask->loop = t->loop;
        ask->conf = conf;
        ask->upstream = env->upstreams[conf->index];
        ask->parent = t->txn;
        ask->req = whole;
        return true;
}

static const weir_kv *fields_of(struct arena *a, const struct fields *from, size_t *n)
{
        weir_kv *v = arena_alloc(a, (from->n + 1) * sizeof(*v));

        *n = 0;
        if (v == NULL)
                return NULL;
        FIELDS_EACH(f, from)
        {
                str name = arena_dup(a, f->name), value = arena_dup(a, f->value);
                if (name.p == NULL || value.p == NULL)
                        return NULL;
                v[(*n)++] = (weir_kv){api_weir(name), api_weir(value)};
        }
        return v;
}

static size_t size_of(const struct subrequest_answer *a)
{
        size_t n = sizeof(weir_http_res) + a->body->n;

        FIELDS_EACH(f, &a->head->fields)
        {
                n += sizeof(weir_kv) + f->name.n + f->value.n;
        }
        return n;
}

/* NULL: it does not fit. */
static const weir_http_res *copy(struct weir_task *t, const struct subrequest_answer *a)
{
        struct arena *to = t->arena;
        weir_http_res *res;
        char *body;

        if (!api_room(t, size_of(a)))
                return NULL;
        res = arena_zalloc(to, sizeof(*res));
        body = arena_alloc(to, a->body->n + 1);
        if (res == NULL || body == NULL)
                return NULL;
        buf_copy_out(a->body, 0, body, a->body->n);
        body[a->body->n] = '\0';
        *res = (weir_http_res){
                .size = sizeof(*res), .status = a->head->status, .body = {body, a->body->n}};
        res->fields = fields_of(to, &a->head->fields, &res->n_fields);
        return res->fields != NULL ? res : NULL;
}

static const weir_http_res *failure(struct weir_task *t, weir_err error, str why)
{
        static const weir_http_res full = {
                .size = sizeof(full), .error = WEIR_E_NOMEM, .body = {"memory= is used up", 18}};
        weir_http_res *res = arena_zalloc(t->arena, sizeof(*res));

        if (res == NULL)
                return &full;
        *res = (weir_http_res){.size = sizeof(*res), .error = error, .body = api_weir(why)};
        return res;
}

const weir_http_res *api_http_res(struct weir_task *t, const struct subrequest_answer *a)
{
        size_t before = arena_used(t->arena);
        const weir_http_res *res = a->head ? copy(t, a) : failure(t, a->error, a->why);

        if (res == NULL)
                res = failure(t, WEIR_E_NOMEM, STR("memory= is used up"));
        api_took(t, before);
        return res;
}
