/*
 * What a function may see and change of a message's fields.
 *
 * The difficulty: a function must not be able to break framing or routing, whatever it was given;
 * so names and values are checked here, once for all, and what weir decides itself is refused.  And
 * nearly all that functions do to fields is known to be right since the configuration was read, or
 * needs little more than to be stored; for that there is a short way beside the long one.
 */
#include "http/field.h"
#include "proxy/api.h"
#include "proxy/filter.h"
#include "proxy/instance.h"

enum { EARLY_SET, EARLY_ADD, EARLY_DEL };

struct early_field {
        struct early_field *next;
        int verb;
        enum field_id id;
        str name, value;
};

/* Trailers are there with the last chunk of that body. */
static bool has_trailers(const struct weir_task *t, bool response)
{
        return t->logging ||
               (t->stage != NULL && t->responses == response && stage_has_last(t->stage));
}

bool api_streams(const struct weir_task *t)
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

        if (!api_in_request(t, "header_get") || name.p == NULL ||
            (fs = fields_of(t, where)) == NULL)
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

        if (!api_in_request(t, "header_at") || (fs = fields_of(t, where)) == NULL)
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
        return t->responses ? api_streams(t) : t->head->responses;
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
                return t->responses || r->res_head_sent || api_streams(t) ? WEIR_E_PHASE : WEIR_OK;
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

        if (!api_in_request(t, "header_set"))
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

        if (!api_is_here(t) || t->logging || t->stage != NULL || where != (int32_t)t->responses)
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

        if (!api_in_request(t, "header_del"))
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
