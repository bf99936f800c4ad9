/*
 * One word of a function's configuration as the value its module asked for.
 *
 * The difficulty: a mistake may be found much later, by the module's create, which knows only an
 * address in its struct.  So each value's place in the struct, and each string's bytes, are noted
 * with the word they came from.
 */
#include "conf/argument_value.h"

#include "conf/compile.h"
#include "conf/value.h"
#include "http/field.h" /* pure: which fields there are, and who may set them */
#include "module/desc.h"

static weir_str to_weir(str s)
{
        return (weir_str){s.p, s.n};
}

void argument_place(struct argument_env *e, const void *from, size_t n, const struct word *w,
                    const weir_arg *arg)
{
        struct argument_places *p = e->f->places;
        struct argument_place one = {from, n, *w, arg == NULL, arg};

        *VEC_ADD(e->a, p) = one;
}

/* ------------------------------------------------------------------ scalars */

static bool in_bounds(struct argument_env *e, const weir_arg *arg, const struct word *w, int64_t v)
{
        char low[VALUE_TEXT], high[VALUE_TEXT];
        str min = str_of(low, str_put_u64(low, (uint64_t)MAX(arg->min, 0)));
        str max = str_of(high, str_put_u64(high, (uint64_t)MAX(arg->max, 0)));

        if ((arg->min == 0 && arg->max == 0) || (v >= arg->min && v <= arg->max))
                return true;
        if (arg->type == WEIR_T_TIME) {
                min = value_time_text(MAX(arg->min, 0), low);
                max = value_time_text(MAX(arg->max, 0), high);
        } else if (arg->type == WEIR_T_SIZE) {
                min = value_size_text((uint64_t)MAX(arg->min, 0), low);
                max = value_size_text((uint64_t)MAX(arg->max, 0), high);
        }
        report_error(e->rep, &w->pos, "%s must be between %s%.*s and %.*s", arg->name,
                     arg->min < 0 ? "-" : "", STR_ARG(min), STR_ARG(max));
        return false;
}

static void not_a(struct argument_env *e, const weir_arg *arg, const struct word *w,
                  const char *what)
{
        if (arg->flags & WEIR_SECRET)
                report_error(e->rep, &w->pos, "%s is not %s", arg->name, what);
        else
                report_error(e->rep, &w->pos, "%s: \"%.*s\" is not %s", arg->name, STR_ARG(w->text),
                             what);
}

static void put_number(struct argument_env *e, const weir_arg *arg, const struct word *w,
                       void *field, bool bounded)
{
        int64_t v = 0;
        double number;
        weir_rate rate;

        if (arg->type == WEIR_T_NUMBER) {
                if (value_number(w->text, &number))
                        memcpy(field, &number, sizeof number);
                else
                        not_a(e, arg, w, "a number (such as 0.2 or 20%)");
        } else if (arg->type == WEIR_T_RATE) {
                if (!value_rate(w->text, &rate))
                        not_a(e, arg, w, "a rate (such as 100/s, 600/m, 20/60s)");
                else if (!bounded || in_bounds(e, arg, w, rate.count))
                        memcpy(field, &rate, sizeof rate);
        } else {
                bool ok = arg->type == WEIR_T_INT    ? value_int(w->text, &v)
                          : arg->type == WEIR_T_TIME ? value_time(w->text, &v)
                                                     : value_size(w->text, &v);
                if (!ok)
                        not_a(e, arg, w,
                              arg->type == WEIR_T_INT    ? "a whole number"
                              : arg->type == WEIR_T_TIME ? "a time (such as 250ms, 5s, 2m, 1h, 7d)"
                                                         : "a size (such as 512, 8k, 1m, 2g)");
                else if (!bounded || in_bounds(e, arg, w, v))
                        memcpy(field, &v, sizeof v);
        }
}

/* Index of a choice; -1: none of them. */
int32_t argument_choice(const weir_arg *arg, str word, str names[ARGUMENT_NAMES], size_t *n)
{
        str rest = str_z(arg->choices), one;
        int32_t found = -1;

        *n = 0;
        while (rest.p && *n < ARGUMENT_NAMES) {
                (void)str_cut(rest, ' ', &one, &rest);
                if (one.n == 0)
                        continue;
                if (str_eq(one, word))
                        found = (int32_t)*n;
                names[(*n)++] = one;
        }
        return found;
}

static void put_enum(struct argument_env *e, const weir_arg *arg, const struct word *w, void *field)
{
        str names[ARGUMENT_NAMES];
        size_t n;
        int32_t v;
        bool b;

        if (arg->type == WEIR_T_BOOL) {
                if (!value_bool(w->text, &b)) {
                        not_a(e, arg, w, "on or off");
                        return;
                }
                v = b;
        } else {
                v = argument_choice(arg, w->text, names, &n);
                if (v < 0) {
                        report_unknown(e->rep, &w->pos, w->text, names, n,
                                       "%s: \"%.*s\" is none of: %s", arg->name, STR_ARG(w->text),
                                       arg->choices);
                        return;
                }
        }
        memcpy(field, &v, sizeof v);
}

/* ------------------------------------------------------------------ strings */

/* What is checked here need not be at each request. */
static void add_constant(struct argument_env *e, str s, unsigned flags, enum field_id id)
{
        if (s.n > 0 && s.n <= UINT32_MAX)
                *VEC_ADD(e->a, e->constants) =
                        (struct constant){s.p, (uint32_t)s.n, (uint16_t)flags, (uint16_t)id};
}

static void put_str(struct argument_env *e, const weir_arg *arg, const struct word *w, void *field)
{
        weir_str s = to_weir(w->text);

        if (arg->type == WEIR_T_FIELD && !field_name_ok(w->text)) {
                not_a(e, arg, w, "the name of a field");
                return;
        }
        if (arg->type == WEIR_T_FIELD && !field_settable(field_id_of(w->text))) {
                report_error(e->rep, &w->pos, "%s: weir itself decides on the field %.*s",
                             arg->name, STR_ARG(w->text));
                return;
        }
        memcpy(field, &s, sizeof s);
        argument_place(e, s.p, s.n, w, NULL);
        if (arg->type == WEIR_T_FIELD)
                add_constant(e, w->text, CONSTANT_NAME, field_id_of(w->text));
}

/* `sub as user` of jwt sets $jwt_user. */
static void put_var(struct argument_env *e, const weir_arg *arg, const struct word *w, void *field)
{
        str name = w->text;
        bool ok = name.n > 0 && name.n <= 64;

        for (size_t i = 0; i < name.n; i++) {
                char ch = str_lower(name.p[i]);
                ok = ok && ((ch >= 'a' && ch <= 'z') || ch == '_' || (ch >= '0' && ch <= '9'));
        }
        if (!ok) {
                not_a(e, arg, w, "the name of a variable (letters, digits and \"_\")");
                return;
        }
        str full = arena_printf(e->a, "%.*s_%.*s", STR_ARG(e->f->module), STR_ARG(name));
        if (template_reserved(full)) {
                report_error(e->rep, &w->pos, "$%.*s is a variable of weir's own", STR_ARG(full));
                return;
        }
        map_put(e->c->variables, full, e->f);
        weir_str s = to_weir(full);
        memcpy(field, &s, sizeof s);
}

static void put_text(struct argument_env *e, const struct word *w, void *field)
{
        weir_text t = {.text = to_weir(w->text), .file = to_weir(w->pos.file), .line = w->pos.line};

        if (w->file.p) {
                t.file = to_weir(w->file);
                t.line = 1;
        } else if (w->heredoc) {
                t.line = w->parts[0].pos.line;
        }
        memcpy(field, &t, sizeof t);
        argument_place(e, w->text.p, w->text.n, w, NULL);
}

static const char *prefix_of(struct argument_env *e, const weir_arg *arg)
{
        return arena_printf(e->a, "%s: ", arg->name).p;
}

static void put_template(struct argument_env *e, const weir_arg *arg, const struct word *w,
                         void *field)
{
        struct template_scope scope = *e->f->scope;

        if ((arg->flags & WEIR_CAPTURES) && e->regex_broken)
                return; /* its groups are not known */
        if (arg->flags & WEIR_CAPTURES)
                scope.route_regex = e->regex;
        const struct template *t = compile_template_as(e->c, e->rep, w, &scope, prefix_of(e, arg));
        if (!t)
                return;
        if (t->constant && field_value_ok(template_constant(t)))
                add_constant(e, template_constant(t), CONSTANT_VALUE, FIELD_OTHER);
        const weir_template *handle = e->h->template ? e->h->template(e->h->ctx, t)
                                                     : (const weir_template *)(const void *)t;
        memcpy(field, &handle, sizeof handle);
}

static void put_regex(struct argument_env *e, const weir_arg *arg, const struct word *w,
                      void *field)
{
        e->regex = compile_regex(e->a, e->rep, w, false, prefix_of(e, arg));
        e->regex_broken = !e->regex;
        if (!e->regex)
                return;
        const weir_regex *handle = (const weir_regex *)(const void *)e->regex;
        memcpy(field, &handle, sizeof handle);
}

/* ------------------------------------------------------------------ names of blocks */

static void put_redis(struct argument_env *e, const weir_arg *arg, const struct word *w,
                      void *field)
{
        str names[ARGUMENT_NAMES];
        size_t n = 0;

        if (arg->type == WEIR_T_STORE && str_eq(w->text, STR("local")))
                return;
        for (size_t i = 0; i < e->c->n_redises; i++) {
                const struct redis_store_conf *s = &e->c->redises[i];
                if (str_eq(s->name, w->text)) {
                        weir_redis *handle = e->h->redis ? e->h->redis(e->h->ctx, s)
                                                         : (weir_redis *)(uintptr_t)s;
                        memcpy(field, &handle, sizeof handle);
                        return;
                }
                if (n < ARGUMENT_NAMES)
                        names[n++] = s->name;
        }
        report_unknown(e->rep, &w->pos, w->text, names, n, "%s: there is no redis %.*s", arg->name,
                       STR_ARG(w->text));
}

static void put_upstream(struct argument_env *e, const weir_arg *arg, const struct word *w,
                         void *field)
{
        str names[ARGUMENT_NAMES];
        size_t n = 0;

        for (size_t i = 0; i < e->c->n_upstreams; i++) {
                const struct upstream_conf *u = &e->c->upstreams[i];
                if (str_eq(u->name, w->text)) {
                        weir_upstream *handle = e->h->upstream ? e->h->upstream(e->h->ctx, u)
                                                               : (weir_upstream *)(uintptr_t)u;
                        memcpy(field, &handle, sizeof handle);
                        return;
                }
                if (n < ARGUMENT_NAMES)
                        names[n++] = u->name;
        }
        report_unknown(e->rep, &w->pos, w->text, names, n, "%s: there is no upstream %.*s",
                       arg->name, STR_ARG(w->text));
}

void argument_value(struct argument_env *e, const weir_arg *arg, const struct word *w, void *field,
                    bool bounded)
{
        argument_place(e, field, desc_value_size(arg->type), w, arg);
        switch (arg->type) {
        case WEIR_T_STR:
        case WEIR_T_FIELD:
                put_str(e, arg, w, field);
                break;
        case WEIR_T_VAR:
                put_var(e, arg, w, field);
                break;
        case WEIR_T_TEXT:
                put_text(e, w, field);
                break;
        case WEIR_T_TEMPLATE:
                put_template(e, arg, w, field);
                break;
        case WEIR_T_REGEX:
                put_regex(e, arg, w, field);
                break;
        case WEIR_T_ENUM:
        case WEIR_T_BOOL:
                put_enum(e, arg, w, field);
                break;
        case WEIR_T_REDIS:
        case WEIR_T_STORE:
                put_redis(e, arg, w, field);
                break;
        case WEIR_T_UPSTREAM:
                put_upstream(e, arg, w, field);
                break;
        default:
                put_number(e, arg, w, field, bounded);
                break;
        }
}
