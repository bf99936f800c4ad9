/*
 * Puts the words of a function into the struct that its module described.
 *
 * The difficulty: one value can be written in three ways (name=value, name value; and bare), lists
 * may be spread over lines, and a default or a template's captures may depend on other arguments.
 * So the words of every argument are collected first, and turned into values in the order of the
 * table after that; functions, and lines within them, are read by the same code.
 */
#include "conf/argument.h"

#include "conf/compile.h"
#include "conf/value.h"

#define NAMES_MAX 64

typedef VEC(struct word) words_vec;

/* A line of a LINE argument. */
struct line {
        size_t arg;
        const struct tree *tree;
        size_t first; /* of its words that is not its name */
};

/* Reading one struct: a function's or a line's. */
struct reader {
        struct conf *c;
        struct arena *a;
        const struct conf_handles *h;
        struct report *rep;
        struct function_conf *f;
        const struct tree *tree;
        const weir_arg *args;
        size_t n_args;
        char *base;
        const char *what; /* "headers", "set": what has no such parameter */
        words_vec *given; /* by argument */
        bool *seen;
        VEC(struct line) lines;
        const struct regex *regex; /* the last REGEX argument */
        bool regex_broken;
        bool in_line, lacking; /* of a line only the first word that is missing is named */
};

static void read_struct(struct reader *r, size_t first, bool top);

struct word argument_word(struct arena *a, str text, const struct conf_pos *pos)
{
        struct word_part *part = ARENA_NEW(a, struct word_part);

        *part = (struct word_part){0, false, *pos};
        return (struct word){.text = text,
                             .pos = *pos,
                             .parts = part,
                             .n_parts = 1,
                             .quoted = true,
                             .file = STR_NONE};
}

static weir_str to_weir(str s)
{
        return (weir_str){s.p, s.n};
}

static void place(struct reader *r, const void *from, size_t n, const struct word *w,
                  const weir_arg *arg)
{
        struct argument_places *p = r->f->places;
        struct argument_place one = {from, n, *w, arg == NULL, arg};

        *VEC_ADD(r->a, p) = one;
}

/* ------------------------------------------------------------------ scalars */

static bool in_bounds(struct reader *r, const weir_arg *arg, const struct word *w, int64_t v)
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
        report_error(r->rep, &w->pos, "%s must be between %s%.*s and %.*s", arg->name,
                     arg->min < 0 ? "-" : "", STR_ARG(min), STR_ARG(max));
        return false;
}

static void not_a(struct reader *r, const weir_arg *arg, const struct word *w, const char *what)
{
        if (arg->flags & WEIR_SECRET)
                report_error(r->rep, &w->pos, "%s is not %s", arg->name, what);
        else
                report_error(r->rep, &w->pos, "%s: \"%.*s\" is not %s", arg->name, STR_ARG(w->text),
                             what);
}

static void put_number(struct reader *r, const weir_arg *arg, const struct word *w, void *field,
                       bool bounded)
{
        int64_t v = 0;
        double number;
        weir_rate rate;

        if (arg->type == WEIR_T_NUMBER) {
                if (value_number(w->text, &number))
                        memcpy(field, &number, sizeof number);
                else
                        not_a(r, arg, w, "a number (such as 0.2 or 20%)");
        } else if (arg->type == WEIR_T_RATE) {
                if (!value_rate(w->text, &rate))
                        not_a(r, arg, w, "a rate (such as 100/s, 600/m, 20/60s)");
                else if (!bounded || in_bounds(r, arg, w, rate.count))
                        memcpy(field, &rate, sizeof rate);
        } else {
                bool ok = arg->type == WEIR_T_INT    ? value_int(w->text, &v)
                          : arg->type == WEIR_T_TIME ? value_time(w->text, &v)
                                                     : value_size(w->text, &v);
                if (!ok)
                        not_a(r, arg, w,
                              arg->type == WEIR_T_INT    ? "a whole number"
                              : arg->type == WEIR_T_TIME ? "a time (such as 250ms, 5s, 2m, 1h, 7d)"
                                                         : "a size (such as 512, 8k, 1m, 2g)");
                else if (!bounded || in_bounds(r, arg, w, v))
                        memcpy(field, &v, sizeof v);
        }
}

/* Index of a choice; -1: none of them. */
static int32_t choice(const weir_arg *arg, str word, str *names, size_t *n)
{
        str rest = str_z(arg->choices), one;
        int32_t found = -1;

        *n = 0;
        while (rest.p && *n < NAMES_MAX) {
                (void)str_cut(rest, ' ', &one, &rest);
                if (one.n == 0)
                        continue;
                if (str_eq(one, word))
                        found = (int32_t)*n;
                names[(*n)++] = one;
        }
        return found;
}

static void put_enum(struct reader *r, const weir_arg *arg, const struct word *w, void *field)
{
        str names[NAMES_MAX];
        size_t n;
        int32_t v;
        bool b;

        if (arg->type == WEIR_T_BOOL) {
                if (!value_bool(w->text, &b)) {
                        not_a(r, arg, w, "on or off");
                        return;
                }
                v = b;
        } else {
                v = choice(arg, w->text, names, &n);
                if (v < 0) {
                        report_unknown(r->rep, &w->pos, w->text, names, n,
                                       "%s: \"%.*s\" is none of: %s", arg->name, STR_ARG(w->text),
                                       arg->choices);
                        return;
                }
        }
        memcpy(field, &v, sizeof v);
}

/* ------------------------------------------------------------------ strings */

/* Fields whose value weir alone decides on: framing, routing, and what is meant for one hop. */
static bool field_settable(str name)
{
        static const str fixed[] = {
                STR_INIT("connection"),        STR_INIT("content-length"),   STR_INIT("host"),
                STR_INIT("keep-alive"),        STR_INIT("proxy-connection"), STR_INIT("te"),
                STR_INIT("transfer-encoding"), STR_INIT("trailer"),          STR_INIT("upgrade")};

        for (size_t i = 0; i < COUNT(fixed); i++) {
                if (str_ieq(name, fixed[i]))
                        return false;
        }
        return true;
}

static void put_str(struct reader *r, const weir_arg *arg, const struct word *w, void *field)
{
        weir_str s = to_weir(w->text);

        if (arg->type == WEIR_T_FIELD && !compile_token(w->text)) {
                not_a(r, arg, w, "the name of a field");
                return;
        }
        if (arg->type == WEIR_T_FIELD && !field_settable(w->text)) {
                report_error(r->rep, &w->pos, "%s: weir itself decides on the field %.*s",
                             arg->name, STR_ARG(w->text));
                return;
        }
        memcpy(field, &s, sizeof s);
        place(r, s.p, s.n, w, NULL);
}

/* `sub as user` of jwt sets $jwt_user. */
static void put_var(struct reader *r, const weir_arg *arg, const struct word *w, void *field)
{
        str name = w->text;
        bool ok = name.n > 0 && name.n <= 64;

        for (size_t i = 0; i < name.n; i++) {
                char ch = str_lower(name.p[i]);
                ok = ok && ((ch >= 'a' && ch <= 'z') || ch == '_' || (ch >= '0' && ch <= '9'));
        }
        if (!ok) {
                not_a(r, arg, w, "the name of a variable (letters, digits and \"_\")");
                return;
        }
        str full = arena_printf(r->a, "%.*s_%.*s", STR_ARG(r->f->module), STR_ARG(name));
        if (template_reserved(full)) {
                report_error(r->rep, &w->pos, "$%.*s is a variable of weir's own", STR_ARG(full));
                return;
        }
        map_put(r->c->variables, full, r->f);
        weir_str s = to_weir(full);
        memcpy(field, &s, sizeof s);
}

static void put_text(struct reader *r, const struct word *w, void *field)
{
        weir_text t = {.text = to_weir(w->text), .file = to_weir(w->pos.file), .line = w->pos.line};

        if (w->file.p) {
                t.file = to_weir(w->file);
                t.line = 1;
        } else if (w->heredoc) {
                t.line = w->parts[0].pos.line;
        }
        memcpy(field, &t, sizeof t);
        place(r, w->text.p, w->text.n, w, NULL);
}

static void put_template(struct reader *r, const weir_arg *arg, const struct word *w, void *field)
{
        struct template_scope scope = *r->f->scope;
        const char *error;
        const uint32_t *map;
        size_t at;

        if ((arg->flags & WEIR_CAPTURES) && r->regex_broken)
                return; /* its groups are not known */
        if (arg->flags & WEIR_CAPTURES)
                scope.route_regex = r->regex;
        r->c->link->at = &w->pos;
        const struct template *t =
                template_compile(r->a, word_template(r->a, w, 0, NULL), &scope, &error, &at);
        if (!t) {
                (void)word_template(r->a, w, 0, &map);
                struct conf_pos pos = word_pos(w, map[at]);
                report_error(r->rep, &pos, "%s: %s", arg->name, error);
                return;
        }
        const weir_template *handle = r->h->template ? r->h->template(r->h->ctx, t)
                                                     : (const weir_template *)(const void *)t;
        memcpy(field, &handle, sizeof handle);
}

static void free_regex(void *re)
{
        regex_free(re);
}

static void put_regex(struct reader *r, const weir_arg *arg, const struct word *w, void *field)
{
        struct regex_error error;
        struct regex *re = regex_new(w->text, 0, &error);

        r->regex = re;
        r->regex_broken = !re;
        if (!re) {
                struct conf_pos at = word_pos(w, MIN(error.offset, w->text.n));
                report_error(r->rep, &at, "%s: the regex does not compile: %.*s", arg->name,
                             (int)sizeof error.text, error.text);
                return;
        }
        arena_on_end(r->a, free_regex, re);
        const weir_regex *handle = (const weir_regex *)(const void *)re;
        memcpy(field, &handle, sizeof handle);
}

/* ------------------------------------------------------------------ names of blocks */

static void put_redis(struct reader *r, const weir_arg *arg, const struct word *w, void *field)
{
        str names[NAMES_MAX];
        size_t n = 0;

        if (arg->type == WEIR_T_STORE && str_eq(w->text, STR("local")))
                return;
        for (size_t i = 0; i < r->c->n_redises; i++) {
                const struct redis_store_conf *s = &r->c->redises[i];
                if (str_eq(s->name, w->text)) {
                        weir_redis *handle = r->h->redis ? r->h->redis(r->h->ctx, s)
                                                         : (weir_redis *)(uintptr_t)s;
                        memcpy(field, &handle, sizeof handle);
                        return;
                }
                if (n < NAMES_MAX)
                        names[n++] = s->name;
        }
        report_unknown(r->rep, &w->pos, w->text, names, n, "%s: there is no redis %.*s", arg->name,
                       STR_ARG(w->text));
}

static void put_upstream(struct reader *r, const weir_arg *arg, const struct word *w, void *field)
{
        str names[NAMES_MAX];
        size_t n = 0;

        for (size_t i = 0; i < r->c->n_upstreams; i++) {
                const struct upstream_conf *u = &r->c->upstreams[i];
                if (str_eq(u->name, w->text)) {
                        weir_upstream *handle = r->h->upstream ? r->h->upstream(r->h->ctx, u)
                                                               : (weir_upstream *)(uintptr_t)u;
                        memcpy(field, &handle, sizeof handle);
                        return;
                }
                if (n < NAMES_MAX)
                        names[n++] = u->name;
        }
        report_unknown(r->rep, &w->pos, w->text, names, n, "%s: there is no upstream %.*s",
                       arg->name, STR_ARG(w->text));
}

static size_t field_size(uint32_t type)
{
        switch (type) {
        case WEIR_T_STR:
        case WEIR_T_FIELD:
        case WEIR_T_VAR:
                return sizeof(weir_str);
        case WEIR_T_TEXT:
                return sizeof(weir_text);
        case WEIR_T_ENUM:
        case WEIR_T_BOOL:
                return sizeof(int32_t);
        case WEIR_T_RATE:
                return sizeof(weir_rate);
        case WEIR_T_LITERAL:
                return 0;
        default: /* numbers of 8 bytes, and handles */
                return sizeof(int64_t);
        }
}

static void put_value(struct reader *r, const weir_arg *arg, const struct word *w, void *field,
                      bool bounded)
{
        place(r, field, field_size(arg->type), w, arg);
        switch (arg->type) {
        case WEIR_T_STR:
        case WEIR_T_FIELD:
                put_str(r, arg, w, field);
                break;
        case WEIR_T_VAR:
                put_var(r, arg, w, field);
                break;
        case WEIR_T_TEXT:
                put_text(r, w, field);
                break;
        case WEIR_T_TEMPLATE:
                put_template(r, arg, w, field);
                break;
        case WEIR_T_REGEX:
                put_regex(r, arg, w, field);
                break;
        case WEIR_T_ENUM:
        case WEIR_T_BOOL:
                put_enum(r, arg, w, field);
                break;
        case WEIR_T_REDIS:
        case WEIR_T_STORE:
                put_redis(r, arg, w, field);
                break;
        case WEIR_T_UPSTREAM:
                put_upstream(r, arg, w, field);
                break;
        default:
                put_number(r, arg, w, field, bounded);
                break;
        }
}

/* ------------------------------------------------------------------ collecting */

static ptrdiff_t find_arg(const struct reader *r, str name)
{
        for (size_t i = 0; i < r->n_args; i++) {
                if (r->args[i].type != WEIR_T_LITERAL && !(r->args[i].flags & WEIR_VERB) &&
                    str_eq(name, str_z(r->args[i].name)))
                        return (ptrdiff_t)i;
        }
        return -1;
}

static void unknown(struct reader *r, const struct conf_pos *at, str name)
{
        str names[NAMES_MAX];
        size_t n = 0;

        for (size_t i = 0; i < r->n_args && n < NAMES_MAX; i++) {
                if (r->args[i].type != WEIR_T_LITERAL && !(r->args[i].flags & WEIR_VERB))
                        names[n++] = str_z(r->args[i].name);
        }
        report_unknown(r->rep, at, name, names, n, "%s has no parameter \"%.*s\"", r->what,
                       STR_ARG(name));
}

/* The words of one word, as a list in one word has them. */
static void split(struct arena *a, const struct word *w, words_vec *out)
{
        size_t i = 0, from;

        while (i < w->text.n) {
                while (i < w->text.n && strchr(" \t\r\n", w->text.p[i]) && w->text.p[i])
                        i++;
                from = i;
                while (i < w->text.n && !(strchr(" \t\r\n", w->text.p[i]) && w->text.p[i]))
                        i++;
                if (i > from)
                        *VEC_ADD(a, out) = word_slice(a, w, from, i - from);
        }
}

/* Notes that an argument is written here; false: it may not be. */
static bool note(struct reader *r, size_t k, const struct conf_pos *at)
{
        const weir_arg *arg = &r->args[k];

        if (r->seen[k] && !(arg->flags & WEIR_MANY)) {
                report_error(r->rep, at, "%s is given twice", arg->name);
                return false;
        }
        if (!r->seen[k] && (arg->flags & WEIR_DEPRECATED))
                report_warning(r->rep, at, "%s is deprecated: %s", arg->name,
                               arg->help ? arg->help : "");
        r->seen[k] = true;
        return true;
}

static void add_line(struct reader *r, size_t k, const struct tree *t, size_t first)
{
        *VEC_ADD(r->a, &r->lines) = (struct line){k, t, first};
}

/* name=value */
static void collect_pair(struct reader *r, size_t k, const struct word *w)
{
        const weir_arg *arg = &r->args[k];
        struct word value = word_slice(r->a, w, w->value, w->text.n - w->value);

        value.heredoc = w->heredoc;
        if (!note(r, k, &w->pos))
                return;
        if (arg->type == WEIR_T_LINE) {
                words_vec words = {0};
                struct tree *t = ARENA_NEW(r->a, struct tree);
                split(r->a, &value, &words);
                *t = (struct tree){.words = words.v, .n_words = words.n, .end = value.pos};
                add_line(r, k, t, 0);
        } else if (arg->flags & WEIR_MANY) {
                split(r->a, &value, &r->given[k]);
        } else {
                *VEC_ADD(r->a, &r->given[k]) = value;
        }
}

/* name value; */
static void collect_child(struct reader *r, const struct tree *t)
{
        const struct word *name = &t->words[0];
        ptrdiff_t k = name->quoted ? -1 : find_arg(r, name->text);

        if (k < 0) {
                unknown(r, &name->pos, name->text);
                return;
        }
        const weir_arg *arg = &r->args[k];
        if (!note(r, (size_t)k, &name->pos))
                return;
        if (arg->type == WEIR_T_LINE) {
                add_line(r, (size_t)k, t, 1);
                return;
        }
        if (t->has_block)
                report_error(r->rep, &t->end, "%s takes no block", arg->name);
        else if (t->n_words < 2)
                report_error(r->rep, &t->end, "%s needs a value", arg->name);
        else if (t->n_words > 2 && !(arg->flags & WEIR_MANY))
                report_error(r->rep, &t->words[2].pos, "%s takes one word (several go into quotes)",
                             arg->name);
        else
                for (size_t i = 1; i < t->n_words; i++)
                        *VEC_ADD(r->a, &r->given[k]) = t->words[i];
}

/* Bare words fill the arguments that may be bare, in the order of the table. */
static void collect_bare(struct reader *r, const struct word *const *bare, size_t n)
{
        size_t k = 0;

        for (size_t i = 0; i < n; i++) {
                const struct word *w = bare[i];
                while (k < r->n_args &&
                       (!(r->args[k].flags & WEIR_BARE) ||
                        (r->seen[k] && !(r->args[k].flags & WEIR_MANY && r->given[k].n))))
                        k++;
                if (k == r->n_args) {
                        if (w->value && !w->quoted)
                                unknown(r, &w->pos, str_head(w->text, w->value - 1));
                        else
                                report_error(r->rep, &w->pos, "%s takes no \"%.*s\" here", r->what,
                                             STR_ARG(w->text));
                        return;
                }
                const weir_arg *arg = &r->args[k];
                if (arg->type == WEIR_T_LITERAL) {
                        if (!str_eq(w->text, str_z(arg->name))) {
                                report_error(r->rep, &w->pos,
                                             "\"%s\" is expected in place of \"%.*s\"", arg->name,
                                             STR_ARG(w->text));
                                return;
                        }
                        k++;
                        continue;
                }
                (void)note(r, k, &w->pos);
                *VEC_ADD(r->a, &r->given[k]) = *w;
                if (!(arg->flags & WEIR_MANY))
                        k++;
        }
}

static void collect(struct reader *r, size_t first, bool top)
{
        const struct tree *t = r->tree;
        const struct word **bare = ARENA_ARRAY(r->a, const struct word *, t->n_words + 1);
        size_t n_bare = 0;

        for (size_t i = first; i < t->n_words; i++) {
                const struct word *w = &t->words[i];
                str name = w->value && !w->quoted ? str_head(w->text, w->value - 1) : STR("");
                ptrdiff_t k = name.n ? find_arg(r, name) : -1;
                if (name.n && top && compile_is_function_parameter(name))
                        continue;
                if (k >= 0)
                        collect_pair(r, (size_t)k, w);
                else
                        bare[n_bare++] = w;
        }
        for (size_t i = 0; i < t->n_children; i++) {
                if (!top || !compile_is_function_parameter(tree_name(t->child[i])))
                        collect_child(r, t->child[i]);
        }
        collect_bare(r, bare, n_bare);
}

/* ------------------------------------------------------------------ filling in */

static void fill_list(struct reader *r, const weir_arg *arg, const words_vec *words, bool bounded)
{
        size_t size = field_size(arg->type);
        char *v = arena_zalloc(r->a, words->n * size + 1);
        weir_list list = {v, words->n};

        if (words->n == 0)
                return;
        place(r, r->base + arg->offset, sizeof list, &words->v[0], arg);
        for (size_t i = 0; i < words->n; i++)
                put_value(r, arg, &words->v[i], v + i * size, bounded);
        memcpy(r->base + arg->offset, &list, sizeof list);
}

static void fill_line(struct reader *r, const struct line *line, char *base)
{
        const weir_arg *arg = &r->args[line->arg];
        struct reader in = {.c = r->c,
                            .a = r->a,
                            .h = r->h,
                            .rep = r->rep,
                            .f = r->f,
                            .tree = line->tree,
                            .args = arg->line,
                            .n_args = arg->n_line,
                            .base = base,
                            .what = arg->name,
                            .in_line = true};
        struct word name = argument_word(
                r->a, STR(""), line->tree->n_words ? &line->tree->words[0].pos : &line->tree->end);

        place(r, base, arg->line_size, &name, arg);
        read_struct(&in, line->first, false);
        for (size_t i = 0; i < in.n_args; i++) {
                str names[NAMES_MAX];
                size_t n;
                if (!(in.args[i].flags & WEIR_VERB))
                        continue;
                int32_t verb = choice(&in.args[i], str_z(arg->name), names, &n);
                memcpy(base + in.args[i].offset, &verb, sizeof verb);
        }
}

/* All lines that go into the list at this argument's offset, in the order written. */
static void fill_lines(struct reader *r, size_t k)
{
        const weir_arg *arg = &r->args[k];
        size_t n = 0;

        for (size_t i = 0; i < k; i++) {
                if (r->args[i].type == WEIR_T_LINE && r->args[i].offset == arg->offset)
                        return; /* it was done with the first of them */
        }
        for (size_t i = 0; i < r->lines.n; i++)
                n += r->args[r->lines.v[i].arg].offset == arg->offset;
        if (n == 0)
                return;
        char *v = arena_zalloc(r->a, n * arg->line_size);
        weir_list list = {v, n};
        for (size_t i = 0; i < r->lines.n; i++) {
                if (r->args[r->lines.v[i].arg].offset != arg->offset)
                        continue;
                fill_line(r, &r->lines.v[i], v);
                v += arg->line_size;
        }
        memcpy(r->base + arg->offset, &list, sizeof list);
}

static void fill_default(struct reader *r, const weir_arg *arg)
{
        struct word w = argument_word(r->a, str_z(arg->dflt), &r->f->pos);
        words_vec words = {0};

        if (arg->flags & WEIR_MANY) {
                split(r->a, &w, &words);
                fill_list(r, arg, &words, false);
        } else {
                put_value(r, arg, &w, r->base + arg->offset, false);
        }
}

static void fill(struct reader *r, size_t k)
{
        const weir_arg *arg = &r->args[k];

        if (arg->type == WEIR_T_LITERAL || (arg->flags & WEIR_VERB))
                return;
        if (!r->seen[k] && (arg->flags & WEIR_REQUIRED) && !(r->lacking && r->in_line)) {
                report_error(r->rep, &r->tree->end, "%s needs %s", r->what, arg->name);
                r->lacking = true;
        }
        if (arg->type == WEIR_T_LINE)
                fill_lines(r, k);
        else if (!r->seen[k] && arg->dflt)
                fill_default(r, arg);
        else if (arg->flags & WEIR_MANY)
                fill_list(r, arg, &r->given[k], true);
        else if (r->given[k].n)
                put_value(r, arg, &r->given[k].v[0], r->base + arg->offset, true);
}

static void read_struct(struct reader *r, size_t first, bool top)
{
        r->given = (words_vec *)arena_zalloc(r->a, (r->n_args + 1) * sizeof *r->given);
        r->seen = ARENA_ARRAY(r->a, bool, r->n_args + 1);
        collect(r, first, top);
        for (size_t k = 0; k < r->n_args; k++)
                fill(r, k);
}

void argument_read(struct conf *c, const struct conf_handles *h, struct report *rep,
                   struct function_conf *f, size_t first, void *inst)
{
        struct reader r = {.c = c,
                           .a = c->arena,
                           .h = h,
                           .rep = rep,
                           .f = f,
                           .tree = f->tree,
                           .args = f->desc->args,
                           .n_args = f->desc->n_args,
                           .base = inst,
                           .what = f->desc->name};

        f->places = ARENA_NEW(c->arena, struct argument_places);
        read_struct(&r, first, true);
}

/* ------------------------------------------------------------------ mistakes found by create */

void conf_function_error(const struct function_conf *f, const void *at, struct report *rep,
                         const char *text)
{
        const struct argument_places *p = f->shared->places;
        const struct argument_place *best = NULL;
        const char *q = at;

        for (size_t i = 0; q && p && i < p->n; i++) {
                const struct argument_place *one = &p->v[i];
                if (q >= one->from && q < one->from + MAX(one->n, 1) && (!best || one->n < best->n))
                        best = one;
        }
        if (!best) {
                report_error(rep, &f->pos, "%.*s: %s", STR_ARG(f->module), text);
                return;
        }
        struct conf_pos pos =
                best->bytes ? word_pos(&best->word, (size_t)(q - best->from)) : best->word.pos;
        report_error(rep, &pos, "%.*s: %s", STR_ARG(f->module), text);
}
