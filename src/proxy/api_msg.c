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

static inline bool is_here(const struct weir_task *t)
{
        return LIKELY(t != NULL && t == task_current && t->kind == TASK_REQUEST);
}

static inline bool in_request(const struct weir_task *t, const char *call)
{
        return is_here(t) || task_misused(t, call);
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
        struct field *f, *end;
        enum field_id id;
        int32_t n;

        if (!in_request(t, "header_get") || name.p == NULL || (fs = fields_of(t, where)) == NULL)
                return 0;
        id = field_id_of(api_str(name));
        end = fields_end(fs);
        f = fields_next(fs->v, end, id, api_str(name));
        if (f != end && value != NULL)
                *value = api_weir(f->value);
        for (n = 0; f != end; n++)
                f = fields_next(f + 1, end, id, api_str(name));
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

/* The fields that a change made now is made to; NULL: those of the response that is to come.
 * PHASE: it cannot be made now. */
static inline weir_err changeable(const struct weir_task *t, int32_t where, struct fields **fs)
{
        struct request *r;

        if (t->logging)
                return WEIR_E_PHASE;
        r = t->txn->r;
        if (where == WEIR_REQUEST) {
                *fs = &r->req.fields;
                return t->responses || r->res_head_sent || streams(t) ? WEIR_E_PHASE : WEIR_OK;
        }
        if (where == WEIR_RESPONSE) {
                *fs = t->responses ? &r->res.fields : NULL;
                return r->res_head_sent || too_late(t) ? WEIR_E_PHASE : WEIR_OK;
        }
        if (where != WEIR_REQUEST_TRAILERS && where != WEIR_RESPONSE_TRAILERS)
                return WEIR_E_INVAL;
        *fs = fields_of(t, where);
        return *fs == NULL || !stage_replaces(t->stage) ? WEIR_E_PHASE : WEIR_OK;
}

/* What the configuration knows of s: nothing, unless it is one of the function's arguments.  Then
 * it needs no copy either, for the request holds its configuration. */
static inline const struct constant *known(const struct weir_task *t, str s, unsigned flag)
{
        const struct constant *c = constants_find(t->inst->constants, s.p, s.n);

        return c != NULL && (c->flags & flag) ? c : NULL;
}

/* A field's name as a function has given it. */
struct given_name {
        str text;
        enum field_id id;
        bool constant;
};

/* May a field of that name be changed there?  What a function is configured with was checked. */
static inline weir_err settable(const struct weir_task *t, int32_t where, str name,
                                struct given_name *out)
{
        const struct constant *c = known(t, name, CONSTANT_NAME);

        out->text = name;
        out->constant = c != NULL;
        if (LIKELY(c != NULL)) {
                out->id = (enum field_id)c->id;
        } else {
                if (name.p == NULL || !field_name_ok(name))
                        return WEIR_E_INVAL;
                out->id = field_id_of(name);
                if (!field_settable(out->id))
                        return WEIR_E_DENIED;
        }
        if (where > WEIR_RESPONSE && (field_flags_of(out->id) & FIELD_F_NOTRAILER))
                return WEIR_E_DENIED;
        return WEIR_OK;
}

static weir_err apply(struct weir_task *t, struct fields *fs, int verb, enum field_id id, str name,
                      str value)
{
        struct arena *a = t->txn->r->arena;
        struct field *own;

        if (verb == EARLY_DEL) {
                fields_del_as(fs, id, name);
                return WEIR_OK;
        }
        own = verb == EARLY_SET ? fields_set(a, fs, id, name, value)
                                : fields_add(a, fs, id, name, value);
        if (own == NULL)
                return WEIR_E_NOMEM;
        own->flags |= FIELD_OWN;
        return WEIR_OK;
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

/* What expand() returned last is the request's memory, if not the configuration's. */
static inline bool is_expanded(const struct weir_task *t, str value)
{
        return value.p != NULL && value.p == t->expanded.p && value.n == t->expanded.n;
}

static bool check_value(str *v)
{
        if (LIKELY(field_value_ok(*v)))
                return true;
        *v = str_trim(*v);
        return field_value_ok(*v);
}

/* A copy of name and, behind it, of value that is the request's; NULL: there is no room. */
static char *copy_of(struct weir_task *t, str name, str value)
{
        size_t n = name.n + value.n;
        char *copy = api_room(t, n) ? arena_alloc(t->arena, n) : NULL;

        if (copy == NULL)
                return NULL;
        if (name.n != 0)
                memcpy(copy, name.p, name.n);
        if (value.n != 0)
                memcpy(copy + name.n, value.p, value.n);
        return copy;
}

static weir_err change(weir_req *t, int32_t where, int verb, weir_str name, weir_str value)
{
        struct given_name given;
        str v = api_str(value);
        bool stays; /* for as long as the request does: it needs no copy */
        struct fields *fs;
        size_t before;
        weir_err err;

        if (!in_request(t, "header_set"))
                return WEIR_E_PHASE;
        if ((err = changeable(t, where, &fs)) != WEIR_OK ||
            (err = settable(t, where, api_str(name), &given)) != WEIR_OK)
                return err;
        if (v.p == NULL)
                return WEIR_E_INVAL;
        stays = known(t, v, CONSTANT_VALUE) != NULL;
        if (!stays) {
                stays = is_expanded(t, v);
                if (!check_value(&v))
                        return WEIR_E_INVAL;
        }
        if (UNLIKELY(fs == NULL || fs->n == fs->cap) && !api_room(t, 0))
                return WEIR_E_NOMEM; /* it may take memory, though nothing is copied */
        before = arena_used(t->arena);
        if (!(stays && given.constant)) {
                str own = given.constant ? STR("") : given.text;
                char *copy = copy_of(t, own, stays ? STR("") : v);
                if (copy == NULL)
                        return WEIR_E_NOMEM;
                if (!given.constant)
                        given.text.p = copy;
                if (!stays)
                        v.p = copy + own.n;
        }
        err = fs != NULL ? apply(t, fs, verb, given.id, given.text, v)
                         : early(t, verb, given.id, given.text, v);
        api_took(t, before);
        return err;
}

/* The short way: what a head's hook changes in its own message.  NULL: it may not, or that takes a
 * closer look. */
static inline struct fields *head_fields(const struct weir_task *t, int32_t where)
{
        struct request *r;

        if (!is_here(t) || t->logging || t->stage != NULL || where != (int32_t)t->responses)
                return NULL;
        r = t->txn->r;
        if (UNLIKELY(r->res_head_sent))
                return NULL;
        return where == WEIR_REQUEST ? &r->req.fields : &r->res.fields;
}

static APART weir_err set_checked(struct fields *fs, enum field_id id, str name, str value)
{
        const struct field *end = fields_end(fs);
        struct field *f = fields_next(fs->v, end, id, name);

        f = f == end ? fields_append(fs, id, name, value) : fields_replace(f, end, id, name, value);
        f->flags |= FIELD_OWN;
        return WEIR_OK;
}

static APART weir_err set_expanded(struct fields *fs, enum field_id id, str name, str value)
{
        return check_value(&value) ? set_checked(fs, id, name, value) : WEIR_E_INVAL;
}

static APART weir_err set_field(weir_req *t, int32_t where, weir_str name, weir_str value)
{
        return change(t, where, EARLY_SET, name, value);
}

/* A name that the configuration knows, a value that stays, and room for them: there is nothing to
 * copy or to account for, and little to check. */
weir_err api_header_set(weir_req *t, int32_t where, weir_str name, weir_str value)
{
        str n = api_str(name), v = api_str(value);
        struct fields *fs = head_fields(t, where);
        const struct constant *c = fs ? known(t, n, CONSTANT_NAME) : NULL;

        if (c == NULL || fs->n == fs->cap)
                return set_field(t, where, name, value);
        if (known(t, v, CONSTANT_VALUE) != NULL)
                return set_checked(fs, (enum field_id)c->id, n, v);
        if (is_expanded(t, v))
                return set_expanded(fs, (enum field_id)c->id, n, v);
        return set_field(t, where, name, value);
}

weir_err api_header_add(weir_req *t, int32_t where, weir_str name, weir_str value)
{
        return change(t, where, EARLY_ADD, name, value);
}

static APART int32_t del_field(weir_req *t, int32_t where, weir_str name)
{
        struct given_name given;
        struct fields *fs;
        size_t before;
        weir_err err;

        if (!in_request(t, "header_del"))
                return WEIR_E_PHASE;
        if ((err = changeable(t, where, &fs)) != WEIR_OK ||
            (err = settable(t, where, api_str(name), &given)) != WEIR_OK)
                return err;
        if (fs != NULL)
                return (int32_t)fields_del_as(fs, given.id, given.text);
        before = arena_used(t->arena);
        if (!given.constant && (given.text.p = copy_of(t, given.text, STR(""))) == NULL)
                return WEIR_E_NOMEM;
        err = early(t, EARLY_DEL, given.id, given.text, STR_NONE);
        api_took(t, before);
        return err;
}

int32_t api_header_del(weir_req *t, int32_t where, weir_str name)
{
        struct fields *fs = head_fields(t, where);
        const struct constant *c = fs ? known(t, api_str(name), CONSTANT_NAME) : NULL;

        if (c == NULL)
                return del_field(t, where, name);
        return (int32_t)fields_del_as(fs, (enum field_id)c->id, api_str(name));
}

void api_apply_early(struct weir_task *t)
{
        for (struct early_field *e = t->early; e != NULL; e = e->next)
                (void)apply(t, &t->txn->r->res.fields, e->verb, e->id, e->name, e->value);
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
