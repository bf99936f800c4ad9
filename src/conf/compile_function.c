/*
 * Functions: what weir itself understands of them.
 *
 * The difficulty: what their other words mean only the module says, which is loaded later.  So a
 * function is collected with its words untouched, and only weir's own parameters are read.
 */
#include "conf/compile.h"

#include "conf/value.h"

/* Parameters that every function has; the module's own are read when it is known. */
static const struct value_row function_time = {TYPE_TIME, 0, sizeof(int64_t), 1000, 0, 0, -1, NULL};
static const struct value_row function_size = {
        TYPE_SIZE, 0, sizeof(int64_t), 4096, INT64_C(1) << 30, 0, -1, NULL};

static const struct value_row function_count = {TYPE_COUNT, 0,   sizeof(uint32_t), 1, 1000000, OFF,
                                                -1,         NULL};

static void function_parameter(struct compile *c, struct function_conf *f, str name,
                               const struct word *w)
{
        static const str choices[] = {STR_INIT("fail_open"), STR_INIT("fail_closed")};

        f->written |= FUNCTION_WRITTEN(name);
        if (str_eq(name, STR("name"))) {
                if (value_name(w->text))
                        f->name = w->text;
                else
                        report_error(c->rep, &w->pos, "\"%.*s\" is not a name", STR_ARG(w->text));
        } else if (str_eq(name, STR("on_error"))) {
                if (compile_is(w, "fail_open"))
                        f->on_error = ON_ERROR_FAIL_OPEN;
                else if (compile_is(w, "fail_closed"))
                        f->on_error = ON_ERROR_FAIL_CLOSED;
                else
                        report_unknown(c->rep, &w->pos, w->text, choices, COUNT(choices),
                                       "on_error: \"%.*s\" is neither fail_open nor fail_closed",
                                       STR_ARG(w->text));
        } else if (str_eq(name, STR("timeout"))) {
                (void)compile_word(c, &function_time, "timeout", w, &f->timeout);
        } else if (str_eq(name, STR("budget"))) {
                (void)compile_word(c, &function_time, "budget", w, &f->budget);
        } else if (str_eq(name, STR("log_lines"))) {
                (void)compile_word(c, &function_count, "log_lines", w, &f->log_lines);
        } else {
                (void)compile_word(c, &function_size, "memory", w, &f->memory);
        }
}

bool compile_is_function_parameter(str name)
{
        static const str names[] = {STR_INIT("name"),    STR_INIT("on_error"),
                                    STR_INIT("timeout"), STR_INIT("budget"),
                                    STR_INIT("memory"),  STR_INIT("log_lines")};

        for (size_t i = 0; i < COUNT(names); i++) {
                if (str_eq(name, names[i]))
                        return true;
        }
        return false;
}

static void seen_twice(struct compile *c, str name, unsigned *seen, const struct conf_pos *at)
{
        unsigned bit = FUNCTION_WRITTEN(name);

        if (*seen & bit)
                report_error(c->rep, at, "%.*s is given twice", STR_ARG(name));
        *seen |= bit;
}

void compile_function_parameters(struct compile *c, struct function_conf *f, size_t first)
{
        const struct tree *t = f->tree;
        unsigned seen = 0;

        for (size_t i = first; i < t->n_words; i++) {
                struct word *w = &t->words[i];
                str name = w->value ? str_head(w->text, w->value - 1) : STR("");
                if (w->quoted || !compile_is_function_parameter(name))
                        continue;
                seen_twice(c, name, &seen, &w->pos);
                struct word value = word_value(c->a, w);
                function_parameter(c, f, name, &value);
        }
        for (size_t i = 0; i < t->n_children; i++) {
                const struct tree *line = t->child[i];
                if (!compile_is_function_parameter(tree_name(line)))
                        continue;
                seen_twice(c, tree_name(line), &seen, &line->words[0].pos);
                if (line->n_words == 2 && !line->has_block)
                        function_parameter(c, f, tree_name(line), &line->words[1]);
                else
                        report_error(c->rep, &line->end, "%.*s takes one word",
                                     STR_ARG(tree_name(line)));
        }
}

/* Made of the route and the place in it, so that it is the same after a reload. */
static str function_name(struct compile *c, const struct scope *s, str module)
{
        str host = s->host->n_names ? s->host->names[0] : STR("");
        str name = s->route ? arena_printf(c->a, "%.*s %.*s %.*s", STR_ARG(host),
                                           STR_ARG(s->route->label), STR_ARG(module))
                            : arena_printf(c->a, "%.*s %.*s", STR_ARG(host), STR_ARG(module));
        str unique = name;

        for (unsigned i = 2; map_get(c->names, arena_printf(c->a, "place %.*s", STR_ARG(unique)));
             i++)
                unique = arena_printf(c->a, "%.*s %u", STR_ARG(name), i);
        map_put(c->names, arena_printf(c->a, "place %.*s", STR_ARG(unique)), c);
        return unique;
}

static str base_name(str path)
{
        ptrdiff_t slash = str_rchr(path, '/');

        return slash < 0 ? path : str_from(path, (size_t)slash + 1);
}

str compile_function_label(struct arena *a, const struct function_conf *f)
{
        return arena_printf(a, "%.*s %.*s (%.*s:%u)", STR_ARG(f->module), STR_ARG(f->name),
                            STR_ARG(base_name(f->pos.file)), f->pos.line);
}

void compile_function(struct compile *c, struct scope *s, const struct args *a)
{
        const struct word *w = a->word[0];
        struct function_conf *f = ARENA_NEW(c->a, struct function_conf);
        str names[DIRECTIVE_NAMES_MAX];
        size_t n = 0, i = 0;

        *f = (struct function_conf){.pos = w->pos,
                                    .module = w->text,
                                    .timeout = FUNCTION_TIMEOUT,
                                    .budget = FUNCTION_BUDGET,
                                    .log_lines = FUNCTION_LOG_LINES,
                                    .tree = a->node,
                                    .shared = f};
        f->scope = compile_names(c->conf, s->route ? s->route->regex : NULL, true);
        while (i < c->conf->n_modules && !str_eq(c->conf->modules[i].name, w->text))
                i++;
        if (i == c->conf->n_modules) {
                while (n < MIN(COUNT(names), c->conf->n_modules)) {
                        names[n] = c->conf->modules[n].name;
                        n++;
                }
                report_unknown(c->rep, &w->pos, w->text, names, n,
                               "module %.*s is not loaded: module %.*s; at the top",
                               STR_ARG(w->text), STR_ARG(w->text));
                return;
        }
        compile_function_parameters(c, f, 2);
        if (!f->name.p)
                f->name = function_name(c, s, f->module);
        else if (!compile_unique(c, arena_printf(c->a, "function %.*s", STR_ARG(f->module)).p,
                                 f->name, &f->pos))
                return;
        f->label = compile_function_label(c->a, f);
        *VEC_ADD(c->a, s->functions) = f;
}
