/*
 * Compiles and expands templates.
 *
 * The difficulty: expansion runs for each request and must not copy what need not be copied, so a
 * template knows whether it is constant, and one that is a single variable hands on its value.
 */
#include "conf/template.h"

#include "conf/report.h"

struct builtin {
        str name;
        char when; /* 'r' or 'R' */
};

static const struct builtin builtins[] = {
#define VARIABLE(id, name, when, help) {STR_INIT(name), when},
#include "conf/variable.tbl"
#undef VARIABLE
};

struct family {
        str prefix;
        enum variable var;
        bool field;    /* its names are field names: '_' means '-' */
        bool response; /* known on the response side only */
};

static const struct family families[] = {
        {STR_INIT("arg_"), VAR_ARG, false, false},
        {STR_INIT("header_"), VAR_HEADER, true, false},
        {STR_INIT("response_header_"), VAR_RESPONSE_HEADER, true, true},
        {STR_INIT("cookie_"), VAR_COOKIE, false, false},
        {STR_INIT("proxy_protocol_tlv_"), VAR_PROXY_TLV, false, false},
};

bool template_reserved(str name)
{
        for (size_t i = 0; i < COUNT(builtins); i++) {
                if (str_eq(name, builtins[i].name))
                        return true;
        }
        for (size_t i = 0; i < COUNT(families); i++) {
                if (str_starts(name, families[i].prefix))
                        return true;
        }
        return false;
}

static str field_name(struct arena *a, str s)
{
        char *p = arena_alloc(a, s.n + 1);

        for (size_t i = 0; i < s.n; i++)
                p[i] = s.p[i] == '_' ? '-' : str_lower(s.p[i]);
        return str_of(p, s.n);
}

bool template_tlv_type(str text, uint16_t *type)
{
        uint64_t v;

        if (text.n != 4 || !str_starts(text, STR("0x")) || !str_hex64(str_from(text, 2), 255, &v))
                return false;
        *type = (uint16_t)v;
        return true;
}

static enum template_name find_family(struct arena *a, str name, const struct template_scope *scope,
                                      struct template_op *op)
{
        for (size_t i = 0; i < COUNT(families); i++) {
                const struct family *f = &families[i];
                if (!str_starts(name, f->prefix) || name.n == f->prefix.n)
                        continue;
                if (f->response && !scope->response)
                        return TEMPLATE_NAME_RESPONSE;
                str rest = str_from(name, f->prefix.n);
                if (f->var == VAR_PROXY_TLV && !template_tlv_type(rest, &op->group))
                        return TEMPLATE_NAME_UNKNOWN;
                op->var = (uint8_t)f->var;
                op->text = f->field ? field_name(a, rest) : rest;
                return TEMPLATE_NAME_OK;
        }
        return TEMPLATE_NAME_UNKNOWN;
}

enum template_name template_name(struct arena *a, str name, const struct template_scope *scope,
                                 struct template_op *op)
{
        *op = (struct template_op){.text = STR("")};
        if (name.n == 1 && name.p[0] >= '1' && name.p[0] <= '9') {
                op->var = VAR_CAPTURE;
                op->group = (uint16_t)(name.p[0] - '0');
                if (!scope->route_regex || op->group >= regex_groups(scope->route_regex))
                        return TEMPLATE_NAME_GROUP;
                return TEMPLATE_NAME_OK;
        }
        for (size_t i = 0; i < COUNT(builtins); i++) {
                if (!str_eq(name, builtins[i].name))
                        continue;
                op->var = (uint8_t)i;
                return builtins[i].when == 'R' && !scope->response ? TEMPLATE_NAME_RESPONSE
                                                                   : TEMPLATE_NAME_OK;
        }
        enum template_name rc = find_family(a, name, scope, op);
        if (rc != TEMPLATE_NAME_UNKNOWN)
                return rc;
        int group = scope->route_regex ? regex_group(scope->route_regex, name) : -1;
        if (group >= 0) {
                op->var = VAR_CAPTURE;
                op->group = (uint16_t)group;
                return TEMPLATE_NAME_OK;
        }
        if (scope->module_variable && scope->module_variable(scope->ctx, name)) {
                op->var = VAR_MODULE;
                op->text = name;
                return TEMPLATE_NAME_OK;
        }
        return TEMPLATE_NAME_UNKNOWN;
}

/* ------------------------------------------------------------------ compiling */

static bool name_byte(char c, bool first)
{
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
               (!first && c >= '0' && c <= '9');
}

/* The name behind the `$` at i: *end is behind it.  An absent one: *error. */
static str cut_name(str text, size_t i, size_t *end, const char **error)
{
        size_t from = i + 1, to = from;

        if (from < text.n && text.p[from] == '{') {
                ptrdiff_t close = str_chr(str_from(text, from), '}');
                *end = close < 0 ? text.n : from + (size_t)close + 1;
                if (close < 2) {
                        *error = close < 0 ? "\"${\" without its \"}\"" : "\"${}\" without a name";
                        return STR_NONE;
                }
                return str_of(text.p + from + 1, (size_t)close - 1);
        }
        if (from < text.n && text.p[from] >= '0' && text.p[from] <= '9')
                to++;
        else
                while (to < text.n && name_byte(text.p[to], to == from))
                        to++;
        *end = to;
        if (to == from) {
                *error = "\"$\" without a name (a dollar sign is written $$)";
                return STR_NONE;
        }
        return str_of(text.p + from, to - from);
}

static const char *name_error(struct arena *a, enum template_name rc, str name,
                              const struct template_scope *scope)
{
        str names[COUNT(builtins) + REGEX_GROUPS_MAX], group, near;
        size_t n = 0;
        int number;

        if (rc == TEMPLATE_NAME_RESPONSE)
                return arena_printf(a, "$%.*s is not known before there is a response",
                                    STR_ARG(name))
                        .p;
        if (rc == TEMPLATE_NAME_GROUP)
                return arena_printf(
                               a,
                               scope->route_regex
                                       ? "$%.*s: the route's regex has no such group"
                                       : "$%.*s: only a regex route (route ~ ...) has captures",
                               STR_ARG(name))
                        .p;
        for (size_t i = 0; i < COUNT(builtins); i++)
                names[n++] = builtins[i].name;
        for (uint32_t i = 0; scope->route_regex && n < COUNT(names); i++) {
                group = regex_group_name(scope->route_regex, i, &number);
                if (!group.p)
                        break;
                names[n++] = group;
        }
        near = report_nearest(name, names, n);
        if (near.p)
                return arena_printf(a, "unknown variable $%.*s (did you mean \"$%.*s\"?)",
                                    STR_ARG(name), STR_ARG(near))
                        .p;
        return arena_printf(a, "unknown variable $%.*s", STR_ARG(name)).p;
}

typedef VEC(struct template_op) ops_vec;

static void add_literal(struct arena *a, ops_vec *ops, str text)
{
        if (text.n)
                *VEC_ADD(a, ops) = (struct template_op){.literal = true, .text = text};
}

/* Literals between variables; `$$` ends one literal behind its first dollar sign. */
static bool compile_ops(struct arena *a, str text, const struct template_scope *scope, ops_vec *ops,
                        const char **error, size_t *at)
{
        size_t i = 0, from = 0;

        while (i < text.n) {
                if (text.p[i] != '$') {
                        i++;
                        continue;
                }
                if (i + 1 < text.n && text.p[i + 1] == '$') {
                        add_literal(a, ops, str_of(text.p + from, i + 1 - from));
                        from = i += 2;
                        continue;
                }
                struct template_op op;
                size_t end;
                add_literal(a, ops, str_of(text.p + from, i - from));
                str name = cut_name(text, i, &end, error);
                *at = i;
                if (!name.p)
                        return false;
                enum template_name rc = template_name(a, name, scope, &op);
                if (rc != TEMPLATE_NAME_OK) {
                        *error = name_error(a, rc, name, scope);
                        return false;
                }
                *VEC_ADD(a, ops) = op;
                from = i = end;
        }
        add_literal(a, ops, str_from(text, from));
        return true;
}

/* Neighbouring literals become one. */
static void join_literals(struct arena *a, ops_vec *ops)
{
        size_t n = 0, end;
        str *parts = NULL;

        for (size_t i = 0; i < ops->n; i = end) {
                end = i + 1;
                while (ops->v[i].literal && end < ops->n && ops->v[end].literal)
                        end++;
                if (end - i > 1) {
                        if (!parts)
                                parts = ARENA_ARRAY(a, str, ops->n);
                        for (size_t k = i; k < end; k++)
                                parts[k - i] = ops->v[k].text;
                        ops->v[i].text = arena_cat(a, parts, end - i);
                }
                ops->v[n++] = ops->v[i];
        }
        ops->n = n;
}

struct template *template_compile(struct arena *a, str text, const struct template_scope *scope,
                                  const char **error, size_t *at)
{
        ops_vec ops = {0};
        const char *why = NULL;
        size_t where = 0;

        text = arena_dup(a, text.p ? text : STR(""));
        if (!compile_ops(a, text, scope, &ops, &why, &where)) {
                *error = why;
                *at = where;
                return NULL;
        }
        join_literals(a, &ops);
        struct template *t =
                arena_zalloc(a, sizeof *t + MAX(ops.n, 1) * sizeof(struct template_op));
        t->op[0] = (struct template_op){.literal = true, .text = STR("")};
        t->source = text;
        t->n = (uint32_t)ops.n;
        t->constant = ops.n == 0 || (ops.n == 1 && ops.v[0].literal);
        for (size_t i = 0; i < ops.n; i++)
                t->op[i] = ops.v[i];
        return t;
}

/* ------------------------------------------------------------------ expanding */

#define PARTS_ON_STACK 16

str template_expand(const struct template *t, struct arena *a, template_lookup *lookup, void *ctx)
{
        str few[PARTS_ON_STACK], *parts = few;

        if (t->constant)
                return template_constant(t);
        if (t->n == 1) {
                str one = lookup(ctx, &t->op[0]);
                return one.p ? one : STR("");
        }
        if (t->n > PARTS_ON_STACK) {
                parts = arena_alloc(a, t->n * sizeof *parts);
                if (!parts)
                        return STR_NONE;
        }
        for (uint32_t i = 0; i < t->n; i++) {
                str part = t->op[i].literal ? t->op[i].text : lookup(ctx, &t->op[i]);
                parts[i] = part.p ? part : STR("");
        }
        return arena_cat(a, parts, t->n);
}
