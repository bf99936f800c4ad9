/*
 * Puts the words of a function into the struct that its module described.
 *
 * The difficulty: one value can be written in three ways (name=value, name value; and bare), lists
 * may be spread over lines, and a default or a template's captures may depend on other arguments.
 * So the words of every argument are collected first, and turned into values in the order of the
 * table after that; functions, and lines within them, are read by the same code.
 */
#include "conf/argument.h"

#include "conf/argument_value.h"
#include "conf/compile.h"
#include "module/desc.h"

typedef VEC(struct word) words_vec;

/* A line of a LINE argument. */
struct line {
        size_t arg;
        const struct tree *tree;
        size_t first; /* of its words that is not its name */
};

/* Reading one struct: a function's or a line's. */
struct reader {
        struct argument_env env;
        const struct tree *tree;
        const weir_arg *args;
        size_t n_args;
        char *base;
        const char *what; /* "headers", "set": what has no such parameter */
        words_vec *given; /* by argument */
        bool *seen;
        VEC(struct line) lines;
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
        str names[ARGUMENT_NAMES];
        size_t n = 0;

        for (size_t i = 0; i < r->n_args && n < ARGUMENT_NAMES; i++) {
                if (r->args[i].type != WEIR_T_LITERAL && !(r->args[i].flags & WEIR_VERB))
                        names[n++] = str_z(r->args[i].name);
        }
        report_unknown(r->env.rep, at, name, names, n, "%s has no parameter \"%.*s\"", r->what,
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
                report_error(r->env.rep, at, "%s is given twice", arg->name);
                return false;
        }
        if (!r->seen[k] && (arg->flags & WEIR_DEPRECATED))
                report_warning(r->env.rep, at, "%s is deprecated: %s", arg->name,
                               arg->help ? arg->help : "");
        r->seen[k] = true;
        return true;
}

static void add_line(struct reader *r, size_t k, const struct tree *t, size_t first)
{
        *VEC_ADD(r->env.a, &r->lines) = (struct line){k, t, first};
}

/* name=value */
static void collect_pair(struct reader *r, size_t k, const struct word *w)
{
        const weir_arg *arg = &r->args[k];
        struct word value = word_value(r->env.a, w);

        if (!note(r, k, &w->pos))
                return;
        if (arg->type == WEIR_T_LINE) {
                words_vec words = {0};
                struct tree *t = ARENA_NEW(r->env.a, struct tree);
                split(r->env.a, &value, &words);
                *t = (struct tree){.words = words.v, .n_words = words.n, .end = value.pos};
                add_line(r, k, t, 0);
        } else if (arg->flags & WEIR_MANY) {
                split(r->env.a, &value, &r->given[k]);
        } else {
                *VEC_ADD(r->env.a, &r->given[k]) = value;
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
                report_error(r->env.rep, &t->end, "%s takes no block", arg->name);
        else if (t->n_words < 2)
                report_error(r->env.rep, &t->end, "%s needs a value", arg->name);
        else if (t->n_words > 2 && !(arg->flags & WEIR_MANY))
                report_error(r->env.rep, &t->words[2].pos,
                             "%s takes one word (several go into quotes)", arg->name);
        else
                for (size_t i = 1; i < t->n_words; i++)
                        *VEC_ADD(r->env.a, &r->given[k]) = t->words[i];
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
                                report_error(r->env.rep, &w->pos, "%s takes no \"%.*s\" here",
                                             r->what, STR_ARG(w->text));
                        return;
                }
                const weir_arg *arg = &r->args[k];
                if (arg->type == WEIR_T_LITERAL) {
                        if (!str_eq(w->text, str_z(arg->name))) {
                                report_error(r->env.rep, &w->pos,
                                             "\"%s\" is expected in place of \"%.*s\"", arg->name,
                                             STR_ARG(w->text));
                                return;
                        }
                        k++;
                        continue;
                }
                (void)note(r, k, &w->pos);
                *VEC_ADD(r->env.a, &r->given[k]) = *w;
                if (!(arg->flags & WEIR_MANY))
                        k++;
        }
}

static void collect(struct reader *r, size_t first, bool top)
{
        const struct tree *t = r->tree;
        const struct word **bare = ARENA_ARRAY(r->env.a, const struct word *, t->n_words + 1);
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
        size_t size = desc_value_size(arg->type);
        char *v = arena_zalloc(r->env.a, words->n * size + 1);
        weir_list list = {v, words->n};

        if (words->n == 0)
                return;
        argument_place(&r->env, r->base + arg->offset, sizeof list, &words->v[0], arg);
        for (size_t i = 0; i < words->n; i++)
                argument_value(&r->env, arg, &words->v[i], v + i * size, bounded);
        memcpy(r->base + arg->offset, &list, sizeof list);
}

static void fill_line(struct reader *r, const struct line *line, char *base)
{
        const weir_arg *arg = &r->args[line->arg];
        struct reader in = {.env = r->env,
                            .tree = line->tree,
                            .args = arg->line,
                            .n_args = arg->n_line,
                            .base = base,
                            .what = arg->name,
                            .in_line = true};
        struct word name =
                argument_word(r->env.a, STR(""),
                              line->tree->n_words ? &line->tree->words[0].pos : &line->tree->end);

        in.env.regex = NULL;
        in.env.regex_broken = false;
        argument_place(&r->env, base, arg->line_size, &name, arg);
        read_struct(&in, line->first, false);
        for (size_t i = 0; i < in.n_args; i++) {
                str names[ARGUMENT_NAMES];
                size_t n;
                if (!(in.args[i].flags & WEIR_VERB))
                        continue;
                int32_t verb = argument_choice(&in.args[i], str_z(arg->name), names, &n);
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
        char *v = arena_zalloc(r->env.a, n * arg->line_size);
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
        struct word w = argument_word(r->env.a, str_z(arg->dflt), &r->env.f->pos);
        words_vec words = {0};

        if (arg->flags & WEIR_MANY) {
                split(r->env.a, &w, &words);
                fill_list(r, arg, &words, false);
        } else {
                argument_value(&r->env, arg, &w, r->base + arg->offset, false);
        }
}

static void fill(struct reader *r, size_t k)
{
        const weir_arg *arg = &r->args[k];

        if (arg->type == WEIR_T_LITERAL || (arg->flags & WEIR_VERB))
                return;
        if (!r->seen[k] && (arg->flags & WEIR_REQUIRED) && !(r->lacking && r->in_line)) {
                report_error(r->env.rep, &r->tree->end, "%s needs %s", r->what, arg->name);
                r->lacking = true;
        }
        if (arg->type == WEIR_T_LINE)
                fill_lines(r, k);
        else if (!r->seen[k] && arg->dflt)
                fill_default(r, arg);
        else if (arg->flags & WEIR_MANY)
                fill_list(r, arg, &r->given[k], true);
        else if (r->given[k].n)
                argument_value(&r->env, arg, &r->given[k].v[0], r->base + arg->offset, true);
}

static void read_struct(struct reader *r, size_t first, bool top)
{
        r->given = (words_vec *)arena_zalloc(r->env.a, (r->n_args + 1) * sizeof *r->given);
        r->seen = ARENA_ARRAY(r->env.a, bool, r->n_args + 1);
        collect(r, first, top);
        for (size_t k = 0; k < r->n_args; k++)
                fill(r, k);
}

void argument_read(struct conf *c, const struct conf_handles *h, struct report *rep,
                   struct function_conf *f, size_t first, void *inst)
{
        struct argument_constants constants = {0};
        struct reader r = {
                .env = {.c = c, .a = c->arena, .h = h, .rep = rep, .f = f, .constants = &constants},
                .tree = f->tree,
                .args = f->desc->args,
                .n_args = f->desc->n_args,
                .base = inst,
                .what = f->desc->name};

        f->places = ARENA_NEW(c->arena, struct argument_places);
        read_struct(&r, first, true);
        f->constants = constants_new(c->arena, constants.v, constants.n);
}

/* ------------------------------------------------------------------ mistakes found by create */

/* Of a byte of what ${file:FILE} brought in: its place in that file too. */
static void error_in_file(struct report *rep, const struct conf_pos *pos, str module,
                          const struct word *w, size_t off, const char *text)
{
        str before = str_head(w->text, off);
        ptrdiff_t line_end = str_rchr(before, '\n');
        unsigned line = 1;

        for (size_t i = 0; i < before.n; i++)
                line += before.p[i] == '\n';
        report_error(rep, pos, "%.*s: %.*s:%u:%zu: %s", STR_ARG(module), STR_ARG(w->file), line,
                     off - (size_t)(line_end + 1) + 1, text);
}

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
        if (best->bytes && best->word.file.p)
                error_in_file(rep, &pos, f->module, &best->word, (size_t)(q - best->from), text);
        else
                report_error(rep, &pos, "%.*s: %s", STR_ARG(f->module), text);
}
