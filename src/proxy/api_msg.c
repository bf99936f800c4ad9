/*
 * What a function may see and change of the request: fields, variables, the answer.
 *
 * The difficulty: a function must not be able to break framing or routing, whatever it was given;
 * so names and values are checked here, once for all, and what weir decides itself is refused.
 */
#include "http/field.h"
#include "http/reply.h"
#include "proxy/api.h"
#include "proxy/filter.h"
#include "proxy/instance.h"
#include "proxy/vars.h"

enum { EARLY_SET, EARLY_ADD, EARLY_DEL };

struct early_field {
        struct early_field *next;
        int verb;
        enum field_id id;
        str name, value;
};

static bool in_request(const struct weir_task *t, const char *call)
{
        return task_valid(t, 1u << TASK_REQUEST, call);
}

/* ------------------------------------------------------------------ fields */

/* Trailers are there with the last chunk of that body. */
static bool has_trailers(const struct weir_task *t, bool response)
{
        return t->logging ||
               (t->stage != NULL && t->responses == response && stage_has_last(t->stage));
}

/* A body hook whose message's head has gone, or may have. */
static bool streams(const struct weir_task *t)
{
        return t->stage != NULL && !stage_holds_head(t->stage);
}

/* NULL: there is no such message (yet). */
static struct fields *fields_of(const struct weir_task *t, int32_t where)
{
        if (where == WEIR_REQUEST)
                return &t->txn->r->req.fields;
        if (where == WEIR_RESPONSE && (t->responses || t->logging))
                return &t->txn->r->res.fields;
        if (where == WEIR_REQUEST_TRAILERS && has_trailers(t, false))
                return &t->txn->r->req.trailers;
        if (where == WEIR_RESPONSE_TRAILERS && has_trailers(t, true))
                return &t->txn->r->res.trailers;
        return NULL;
}

int32_t api_header_get(weir_req *t, int32_t where, weir_str name, weir_str *value)
{
        const struct fields *fs;
        enum field_id id;
        int32_t n = 0;

        if (!in_request(t, "header_get") || name.p == NULL || (fs = fields_of(t, where)) == NULL)
                return 0;
        id = field_id_of(api_str(name));
        FIELDS_EACH(f, fs)
        {
                if (field_is(f, id, api_str(name)) && n++ == 0 && value != NULL)
                        *value = api_weir(f->value);
        }
        return n;
}

int32_t api_header_at(weir_req *t, int32_t where, size_t i, weir_kv *out)
{
        const struct fields *fs;

        if (!in_request(t, "header_at") || (fs = fields_of(t, where)) == NULL)
                return 0;
        FIELDS_EACH(f, fs)
        {
                if (i-- == 0) {
                        *out = (weir_kv){api_weir(f->name), api_weir(f->value)};
                        return 1;
                }
        }
        return 0;
}

/* A body hook that cannot change the response's head: the body streams behind it, or it is the
 * request's and response hooks have begun. */
static bool too_late(const struct weir_task *t)
{
        if (t->stage == NULL)
                return false;
        return t->responses ? streams(t) : t->head->responses;
}

/* May fields of that name be changed there and now? */
static weir_err settable(const struct weir_task *t, int32_t where, str name, enum field_id *id)
{
        const struct request *r;
        bool trailers = where == WEIR_REQUEST_TRAILERS || where == WEIR_RESPONSE_TRAILERS;

        if (!in_request(t, "header_set") || t->logging)
                return WEIR_E_PHASE;
        r = t->txn->r;
        if ((where == WEIR_REQUEST && (t->responses || r->res_head_sent || streams(t))) ||
            (where == WEIR_RESPONSE && (r->res_head_sent || too_late(t))) ||
            (trailers && (fields_of(t, where) == NULL || !stage_replaces(t->stage))))
                return WEIR_E_PHASE;
        if (where < WEIR_REQUEST || where > WEIR_RESPONSE_TRAILERS || name.p == NULL ||
            !field_name_ok(name))
                return WEIR_E_INVAL;
        *id = field_id_of(name);
        if (trailers && (field_flags_of(*id) & FIELD_F_NOTRAILER))
                return WEIR_E_DENIED;
        return field_settable(*id) ? WEIR_OK : WEIR_E_DENIED;
}

static void apply(struct weir_task *t, struct fields *fs, int verb, enum field_id id, str name,
                  str value)
{
        struct arena *a = t->txn->r->arena;
        struct field *own = NULL;

        if (verb == EARLY_SET)
                own = fields_set(a, fs, id, name, value);
        else if (verb == EARLY_ADD)
                own = fields_add(a, fs, id, name, value);
        else if (verb == EARLY_DEL)
                fields_del(fs, name);
        if (own != NULL)
                own->flags |= FIELD_OWN;
}

static weir_err early(struct weir_task *t, int verb, enum field_id id, str name, str value)
{
        struct early_field *e = arena_zalloc(t->arena, sizeof(*e));

        if (e == NULL)
                return WEIR_E_NOMEM;
        if (t->head != NULL)
                t = t->head;
        *e = (struct early_field){.verb = verb, .id = id, .name = name, .value = value};
        *t->early_end = e;
        t->early_end = &e->next;
        return WEIR_OK;
}

static weir_err change(weir_req *t, int32_t where, int verb, weir_str name, weir_str value)
{
        str n = api_str(name), v = str_trim(api_str(value));
        enum field_id id;
        struct fields *fs;
        size_t before;
        char *copy;
        weir_err err = settable(t, where, n, &id);

        if (err != WEIR_OK)
                return err;
        if (value.p == NULL || !field_value_ok(v))
                return WEIR_E_INVAL;
        if (!api_room(t, n.n + v.n))
                return WEIR_E_NOMEM;
        before = arena_used(t->arena);
        copy = arena_alloc(t->arena, n.n + v.n);
        if (copy == NULL)
                return WEIR_E_NOMEM;
        memcpy(copy, n.p, n.n);
        memcpy(copy + n.n, v.p, v.n);
        n.p = copy;
        v.p = copy + n.n;
        fs = fields_of(t, where);
        if (fs != NULL)
                apply(t, fs, verb, id, n, v);
        else
                err = early(t, verb, id, n, v);
        api_took(t, before);
        return err;
}

weir_err api_header_set(weir_req *t, int32_t where, weir_str name, weir_str value)
{
        return change(t, where, EARLY_SET, name, value);
}

weir_err api_header_add(weir_req *t, int32_t where, weir_str name, weir_str value)
{
        return change(t, where, EARLY_ADD, name, value);
}

int32_t api_header_del(weir_req *t, int32_t where, weir_str name)
{
        enum field_id id;
        struct fields *fs;
        weir_err err = settable(t, where, api_str(name), &id);
        str copy;

        if (err != WEIR_OK)
                return err;
        fs = fields_of(t, where);
        if (fs != NULL)
                return (int32_t)fields_del(fs, api_str(name));
        copy = arena_dup(t->arena, api_str(name));
        err = copy.p ? early(t, EARLY_DEL, id, copy, STR_NONE) : WEIR_E_NOMEM;
        return err;
}

void api_apply_early(struct weir_task *t)
{
        for (struct early_field *e = t->early; e != NULL; e = e->next)
                apply(t, &t->txn->r->res.fields, e->verb, e->id, e->name, e->value);
}

/* ------------------------------------------------------------------ variables */

int32_t api_var_get(weir_req *t, weir_str name, weir_str *value)
{
        size_t before;
        str v;

        if (!in_request(t, "var_get") || name.p == NULL)
                return 0;
        before = arena_used(t->arena);
        v = vars_get_name(t->txn, api_str(name));
        /* It may have had to be decoded, or put together. */
        if (!api_took_ok(t, before) || v.p == NULL)
                return 0;
        *value = api_weir(v);
        return 1;
}

static bool no_space(str s)
{
        for (size_t i = 0; i < s.n; i++)
                if ((unsigned char)s.p[i] <= ' ' || (unsigned char)s.p[i] >= 0x7f)
                        return false;
        return s.n > 0;
}

static weir_err set_uri(struct txn *t, str v)
{
        str path, query;

        if (!no_space(v) || v.p[0] != '/' || str_chr(v, '#') >= 0)
                return WEIR_E_INVAL;
        str_cut(v, '?', &path, &query);
        t->uri = v;
        t->path.query = query;
        return WEIR_OK;
}

/* The query of the target without name's parameters, and with name=value at the end unless value is
 * absent. */
static weir_err set_arg(struct txn *t, str name, str value)
{
        struct arena *a = t->r->arena;
        str uri = vars_uri(t), path, query, pair, rest;
        VEC(str) parts = {0};
        bool first = true;

        str_cut(uri, '?', &path, &query);
        *VEC_ADD(a, &parts) = path;
        for (rest = query; rest.p != NULL;) {
                str_cut(rest, '&', &pair, &rest);
                if (vars_query_arg(a, pair, name).p != NULL)
                        continue;
                *VEC_ADD(a, &parts) = first ? STR("?") : STR("&");
                *VEC_ADD(a, &parts) = pair;
                first = false;
        }
        if (value.p != NULL) {
                *VEC_ADD(a, &parts) = first ? STR("?") : STR("&");
                *VEC_ADD(a, &parts) = vars_query_encode(a, name);
                *VEC_ADD(a, &parts) = STR("=");
                *VEC_ADD(a, &parts) = vars_query_encode(a, value);
        }
        uri = arena_cat(a, parts.v, parts.n);
        return uri.p ? set_uri(t, uri) : WEIR_E_NOMEM;
}

static weir_err set_upstream(const struct weir_task *t, str name)
{
        const struct conf *c = t->inst->set->conf;

        for (size_t i = 0; i < c->n_upstreams; i++) {
                if (str_eq(c->upstreams[i].name, name)) {
                        t->txn->upstream = &c->upstreams[i];
                        return WEIR_OK;
                }
        }
        return WEIR_E_NOENT;
}

static weir_err set_status(struct txn *t, str v)
{
        uint64_t status;

        if (v.n != 3 || !str_u64(v, 599, &status) || status < 200)
                return WEIR_E_INVAL;
        t->r->res.status = (int)status;
        t->r->res.phrase = STR_NONE;
        return WEIR_OK;
}

/* Those of weir's own that a function may set; E_NOENT: another name. */
static weir_err set_known(struct weir_task *t, str name, str v)
{
        struct txn *txn = t->txn;

        if (str_eq(name, STR("status")))
                return t->responses && !streams(t) ? set_status(txn, v) : WEIR_E_PHASE;
        if (!str_eq(name, STR("method")) && !str_eq(name, STR("host")) &&
            !str_eq(name, STR("uri")) && !str_eq(name, STR("upstream")) &&
            !str_eq(name, STR("server")) && !str_starts(name, STR("arg_")))
                return WEIR_E_NOENT;
        if (t->responses || streams(t))
                return WEIR_E_PHASE;
        if (str_starts(name, STR("arg_")))
                return set_arg(txn, str_from(name, 4), v);
        if (str_eq(name, STR("upstream")))
                return set_upstream(t, v);
        if (str_eq(name, STR("uri")))
                return set_uri(txn, v);
        if (str_eq(name, STR("server"))) {
                if (!no_space(v))
                        return WEIR_E_INVAL;
                txn->wanted_server = v;
                return WEIR_OK;
        }
        if (str_eq(name, STR("method"))) {
                if (!field_name_ok(v) || method_of(v) == METHOD_CONNECT)
                        return WEIR_E_INVAL;
                txn->method = v;
                return WEIR_OK;
        }
        if (!no_space(v) || str_chr(v, '/') >= 0 || str_chr(v, '@') >= 0)
                return WEIR_E_INVAL;
        txn->authority = v;
        return WEIR_OK;
}

/* $MODULE_x belongs to the functions of MODULE. */
static bool own(const struct weir_task *t, str name)
{
        str module = str_z(t->inst->desc->name);
        return name.n > module.n + 1 && str_starts(name, module) && name.p[module.n] == '_';
}

static struct txn_var **find_var(struct txn *t, str name)
{
        struct txn_var **at = &t->vars;
        while (*at != NULL && !str_eq((*at)->name, name))
                at = &(*at)->next;
        return at;
}

static weir_err set_own(struct weir_task *t, str name, str value)
{
        struct txn_var **at = find_var(t->txn, name);

        if (*at == NULL) {
                struct txn_var *v = arena_zalloc(t->arena, sizeof(*v));
                if (v == NULL || (v->name = arena_dup(t->arena, name)).p == NULL)
                        return WEIR_E_NOMEM;
                *at = v;
        }
        (*at)->value = value;
        return WEIR_OK;
}

weir_err api_var_set(weir_req *t, weir_str name, weir_str value)
{
        size_t before;
        weir_err err;
        str copy;

        if (!in_request(t, "var_set") || t->logging)
                return WEIR_E_PHASE;
        if (name.p == NULL || value.p == NULL)
                return WEIR_E_INVAL;
        if (!api_room(t, value.n + 1))
                return WEIR_E_NOMEM;
        before = arena_used(t->arena);
        copy = arena_dup(t->arena, api_str(value));
        if (copy.p == NULL)
                return WEIR_E_NOMEM;
        err = own(t, api_str(name)) ? set_own(t, api_str(name), copy)
                                    : set_known(t, api_str(name), copy);
        api_took(t, before);
        return err == WEIR_E_NOENT && !weir_eq(name, WEIR_STR("upstream")) ? WEIR_E_DENIED : err;
}

weir_err api_var_del(weir_req *t, weir_str name)
{
        str n = api_str(name);
        struct txn_var **at;

        if (!in_request(t, "var_del") || t->logging)
                return WEIR_E_PHASE;
        if (name.p == NULL)
                return WEIR_E_INVAL;
        if (str_starts(n, STR("arg_")))
                return t->responses || streams(t) ? WEIR_E_PHASE
                                                  : set_arg(t->txn, str_from(n, 4), STR_NONE);
        if (!own(t, n))
                return WEIR_E_DENIED;
        at = find_var(t->txn, n);
        if (*at == NULL)
                return WEIR_E_NOENT;
        *at = (*at)->next;
        return WEIR_OK;
}

weir_err api_upstream_set(weir_req *t, const weir_upstream *u)
{
        if (!in_request(t, "upstream_set") || t->logging || t->responses || streams(t))
                return WEIR_E_PHASE;
        if (u == NULL)
                return WEIR_E_INVAL;
        t->txn->upstream = (const struct upstream_conf *)u;
        return WEIR_OK;
}

weir_rc api_respond(weir_req *t, int32_t status, weir_str body)
{
        str copy;

        if (!in_request(t, "respond"))
                return WEIR_ERROR;
        if (t->logging || t->txn->r->res_head_sent || (t->responses && streams(t)) ||
            status < 200 || status > 599) {
                task_complain(t->inst, "respond(): too late, or the status is not 200 to 599");
                return WEIR_ERROR;
        }
        if (body.p == NULL || !api_room(t, body.n + 1))
                return WEIR_ERROR;
        copy = arena_dup(t->arena, api_str(body));
        if (copy.p == NULL)
                return WEIR_ERROR;
        t->body = copy;
        t->status = status;
        return WEIR_RESPOND;
}

/* ------------------------------------------------------------------ templates, regular expressions
 */

struct replacing {
        struct txn *txn; /* NULL: not in a request */
        str subject;
        const struct regex_captures *caps; /* NULL: the route's are meant */
};

static str lookup(void *ctx, const struct template_op *op)
{
        struct replacing *r = ctx;

        if (op->var == VAR_CAPTURE && r->caps != NULL) {
                if (op->group >= r->caps->n || r->caps->g[op->group].so < 0)
                        return STR_NONE;
                return str_of(r->subject.p + r->caps->g[op->group].so,
                              (size_t)(r->caps->g[op->group].eo - r->caps->g[op->group].so));
        }
        return r->txn ? vars_get(r->txn, op) : STR_NONE;
}

weir_str api_expand(weir_task *t, const weir_template *handle)
{
        const struct template *tpl = (const struct template *)handle;
        struct replacing r = {.txn = NULL};
        size_t before;
        str s;

        if (!task_valid(t, ~0u, "expand") || tpl == NULL)
                return (weir_str){NULL, 0};
        if (tpl->constant)
                return api_weir(template_constant(tpl));
        r.txn = t->txn;
        before = arena_used(t->arena);
        s = template_expand(tpl, t->arena, lookup, &r);
        return api_took_ok(t, before) ? api_weir(s) : (weir_str){NULL, 0};
}

int32_t api_regex_match(weir_task *t, const weir_regex *re, weir_str subject)
{
        if (!task_valid(t, ~0u, "regex_match") || re == NULL || subject.p == NULL)
                return WEIR_E_INVAL;
        switch (regex_match((const struct regex *)re, api_str(subject), 0, NULL)) {
        case REGEX_YES:
                return 1;
        case REGEX_NO:
                return 0;
        case REGEX_LIMIT:
                break;
        }
        return WEIR_E_FULL;
}

static str replace_all(struct weir_task *t, const struct regex *re, str subject,
                       const struct template *with)
{
        struct regex_captures caps;
        struct replacing r = {.txn = t->txn, .subject = subject, .caps = &caps};
        VEC(str) parts = {0};
        size_t at = 0, copied = 0, before = arena_used(t->arena);
        str all;

        while (at <= subject.n) {
                enum regex_result got = regex_match(re, subject, at, &caps);
                size_t so, eo;
                str value;
                if (got == REGEX_LIMIT)
                        return STR_NONE;
                if (got == REGEX_NO)
                        break;
                so = (size_t)caps.g[0].so;
                eo = (size_t)caps.g[0].eo;
                value = template_expand(with, t->arena, lookup, &r);
                api_took(t, before);
                if (value.p == NULL || !api_room(t, value.n)) /* it is needed once more below */
                        return STR_NONE;
                before = arena_used(t->arena);
                *VEC_ADD(t->arena, &parts) = str_of(subject.p + copied, so - copied);
                *VEC_ADD(t->arena, &parts) = value;
                copied = eo;
                at = eo > so ? eo : eo + 1; /* after an empty match: one byte on */
        }
        if (parts.n == 0)
                return subject;
        *VEC_ADD(t->arena, &parts) = str_from(subject, copied);
        all = arena_cat(t->arena, parts.v, parts.n);
        api_took(t, before);
        return all;
}

weir_str api_regex_replace(weir_task *t, const weir_regex *re, weir_str subject,
                           const weir_template *with)
{
        str s;

        if (!task_valid(t, ~0u, "regex_replace") || re == NULL || with == NULL || subject.p == NULL)
                return (weir_str){NULL, 0};
        s = replace_all(t, (const struct regex *)re, api_str(subject),
                        (const struct template *)with);
        return api_room(t, 0) ? api_weir(s) : (weir_str){NULL, 0};
}
