/*
 * What a function may see and change of the request: variables, the answer; templates and regular
 * expressions.  Fields are in api_field.c.
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

/* ------------------------------------------------------------------ variables */

int32_t api_var_get(weir_req *t, weir_str name, weir_str *value)
{
        size_t before;
        str v;

        if (!api_in_request(t, "var_get") || name.p == NULL)
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
                return t->responses && !api_streams(t) ? set_status(txn, v) : WEIR_E_PHASE;
        if (!str_eq(name, STR("method")) && !str_eq(name, STR("host")) &&
            !str_eq(name, STR("uri")) && !str_eq(name, STR("upstream")) &&
            !str_eq(name, STR("server")) && !str_starts(name, STR("arg_")))
                return WEIR_E_NOENT;
        if (t->responses || api_streams(t))
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

        if (!api_in_request(t, "var_set") || t->logging)
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

        if (!api_in_request(t, "var_del") || t->logging)
                return WEIR_E_PHASE;
        if (name.p == NULL)
                return WEIR_E_INVAL;
        if (str_starts(n, STR("arg_")))
                return t->responses || api_streams(t) ? WEIR_E_PHASE
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
        if (!api_in_request(t, "upstream_set") || t->logging || t->responses || api_streams(t))
                return WEIR_E_PHASE;
        if (u == NULL)
                return WEIR_E_INVAL;
        t->txn->upstream = (const struct upstream_conf *)u;
        return WEIR_OK;
}

weir_rc api_respond(weir_req *t, int32_t status, weir_str body)
{
        str copy;

        if (!api_in_request(t, "respond"))
                return WEIR_ERROR;
        if (t->logging || t->txn->r->res_head_sent || (t->responses && api_streams(t)) ||
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

static APART weir_str expand(struct weir_task *t, const struct template *tpl)
{
        struct replacing r = {.txn = t->txn};
        size_t before = arena_used(t->arena);
        str s = t->txn != NULL && tpl->n == 1 ? vars_get(t->txn, &tpl->op[0])
                                              : template_expand(tpl, t->arena, lookup, &r);

        if (!api_took_ok(t, before))
                return (weir_str){NULL, 0};
        t->expanded = s.p != NULL || tpl->n > 1 ? s : STR("");
        return api_weir(t->expanded);
}

weir_str api_expand(weir_task *t, const weir_template *handle)
{
        const struct template *tpl = (const struct template *)handle;

        if (!task_valid(t, ~0u, "expand") || tpl == NULL)
                return (weir_str){NULL, 0};
        return tpl->constant ? api_weir(template_constant(tpl)) : expand(t, tpl);
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
