/*
 * Functions and their modules, once modules are there: named blocks (limit NAME { }), arguments,
 * routes that only a function answers, and variables that functions set.
 *
 * The difficulty: which directive makes a named block only the modules know, so the blocks at the
 * top that no directive explains wait for them here.
 */
#include "conf/argument.h"
#include "conf/compile.h"

struct linking {
        struct conf *c;
        struct arena *a;
        const struct conf_handles *h;
        struct report *rep;
        struct map *named; /* "MODULE NAME" -> function_conf */
        function_vec all;
};

static const weir_module *find_desc(const struct linking *l, str name, const struct module **mod)
{
        const weir_module *desc = NULL;

        *mod = l->h->find(l->h->ctx, name, &desc);
        return desc;
}

static void instance(struct linking *l, struct function_conf *f, size_t first)
{
        f->inst = arena_zalloc(l->a, f->desc->inst_size ? f->desc->inst_size : 1);
        f->index = (uint32_t)l->all.n;
        argument_read(l->c, l->h, l->rep, f, first, f->inst);
        *VEC_ADD(l->a, &l->all) = f;
}

/* ------------------------------------------------------------------ named blocks */

static void unknown_block(struct linking *l, const struct tree *t)
{
        str names[DIRECTIVE_NAMES_MAX * 2];
        size_t n = directive_names(TOP, names, DIRECTIVE_NAMES_MAX);
        const struct module *mod;

        for (size_t i = 0; i < l->c->n_modules && n < COUNT(names); i++) {
                const weir_module *d = find_desc(l, l->c->modules[i].name, &mod);
                if (d && d->named)
                        names[n++] = str_z(d->named);
        }
        report_unknown(l->rep, &t->words[0].pos, tree_name(t), names, n,
                       "unknown directive \"%.*s\"", STR_ARG(tree_name(t)));
}

static void named_block(struct linking *l, const struct tree *t)
{
        struct compile c = {.conf = l->c, .a = l->a, .rep = l->rep};
        struct function_conf *f = ARENA_NEW(l->a, struct function_conf);
        const struct word *name = &t->words[1];
        size_t i = 0;

        for (; i < l->c->n_modules; i++) {
                f->module = l->c->modules[i].name;
                f->desc = find_desc(l, f->module, &f->mod);
                if (f->desc && f->desc->named && str_eq(tree_name(t), str_z(f->desc->named)))
                        break;
        }
        if (i == l->c->n_modules) {
                unknown_block(l, t);
                return;
        }
        f->pos = name->pos;
        f->name = name->text;
        f->tree = t;
        f->shared = f;
        f->timeout = FUNCTION_TIMEOUT;
        f->budget = FUNCTION_BUDGET;
        f->log_lines = FUNCTION_LOG_LINES;
        f->scope = compile_names(l->c, NULL, true);
        f->label = compile_function_label(l->a, f);
        str key = arena_printf(l->a, "%.*s %.*s", STR_ARG(f->module), STR_ARG(f->name));
        const struct function_conf *first = map_get(l->named, key);
        if (first) {
                report_error(l->rep, &name->pos, "%s %.*s exists already (line %u)", f->desc->named,
                             STR_ARG(f->name), first->pos.line);
                return;
        }
        compile_function_parameters(&c, f, t->n_words);
        if (!str_eq(f->name, name->text)) {
                report_error(l->rep, &name->pos, "the name of a %s stands before its block",
                             f->desc->named);
                f->name = name->text;
        }
        map_put(l->named, key, f);
        instance(l, f, t->n_words);
}

/* The one bare word of `function MODULE NAME;`, when the module has named blocks. */
static const struct word *use_of(const struct linking *l, const struct function_conf *f)
{
        const struct word *name = NULL;

        if (!f->desc->named)
                return NULL;
        for (size_t i = 2; i < f->tree->n_words; i++) {
                const struct word *w = &f->tree->words[i];
                if (w->value && !w->quoted)
                        continue;
                if (name)
                        report_error(l->rep, &w->pos, "one name of a %s is enough", f->desc->named);
                else
                        name = w;
        }
        return name;
}

static void check_use(const struct linking *l, const struct function_conf *f)
{
        for (size_t i = 2; i < f->tree->n_words; i++) {
                const struct word *w = &f->tree->words[i];
                if (w->value && !w->quoted &&
                    !compile_is_function_parameter(str_head(w->text, w->value - 1)))
                        report_error(l->rep, &w->pos, "arguments belong into the block %s %.*s",
                                     f->desc->named, STR_ARG(f->shared->name));
        }
        for (size_t i = 0; i < f->tree->n_children; i++) {
                const struct tree *t = f->tree->child[i];
                if (!compile_is_function_parameter(tree_name(t)))
                        report_error(l->rep, &t->words[0].pos,
                                     "arguments belong into the block %s %.*s", f->desc->named,
                                     STR_ARG(f->shared->name));
        }
}

/* What is written in the block holds for its uses, unless they say otherwise. */
static void inherit(struct function_conf *f, const struct function_conf *shared)
{
        if (!(f->written & FUNCTION_WRITTEN(STR("on_error"))))
                f->on_error = shared->on_error;
        if (!(f->written & FUNCTION_WRITTEN(STR("timeout"))))
                f->timeout = shared->timeout;
        if (!(f->written & FUNCTION_WRITTEN(STR("budget"))))
                f->budget = shared->budget;
        if (!(f->written & FUNCTION_WRITTEN(STR("memory"))))
                f->memory = shared->memory;
        if (!(f->written & FUNCTION_WRITTEN(STR("log_lines"))))
                f->log_lines = shared->log_lines;
}

static void use_block(struct linking *l, struct function_conf *f, const struct word *w)
{
        str key = arena_printf(l->a, "%.*s %.*s", STR_ARG(f->module), STR_ARG(w->text));
        struct function_conf *shared = map_get(l->named, key), *other;
        VEC(str) names = {0};
        size_t cursor = 0;
        void *value;

        if (shared) {
                inherit(f, shared);
                f->shared = shared;
                f->inst = shared->inst;
                f->index = shared->index;
                check_use(l, f);
                return;
        }
        while (map_at(l->named, &cursor, &key, &value)) {
                other = value;
                if (str_eq(other->module, f->module))
                        *VEC_ADD(l->a, &names) = other->name;
        }
        report_unknown(l->rep, &w->pos, w->text, names.v, names.n, "there is no %s %.*s",
                       f->desc->named, STR_ARG(w->text));
}

/* ------------------------------------------------------------------ uses */

static void link_use(struct linking *l, struct function_conf *f)
{
        f->desc = find_desc(l, f->module, &f->mod);
        if (!f->desc) {
                report_error(l->rep, &f->pos, "module %.*s could not be loaded",
                             STR_ARG(f->module));
                return;
        }
        const struct word *name = use_of(l, f);
        if (name)
                use_block(l, f, name);
        else
                instance(l, f, 2);
}

static void check_answer(struct linking *l, const struct route_conf *r)
{
        if (r->action != ACTION_FUNCTION || r->n_functions == 0)
                return;
        for (size_t i = 0; i < r->n_functions; i++) {
                const weir_module *d = r->functions[i]->desc;
                if (!d || (d->flags & WEIR_ANSWERS))
                        return;
        }
        report_error(l->rep, &r->pos,
                     "the route has no action, and none of its functions always answers");
}

static void check_variables(struct linking *l)
{
        struct conf_link *link = l->c->link;
        VEC(str) names = {0};
        size_t cursor = 0;
        void *value;
        str key;

        while (map_at(l->c->variables, &cursor, &key, &value))
                *VEC_ADD(l->a, &names) = key;
        for (size_t i = 0; i < link->variables.n; i++) {
                const struct module_variable *v = &link->variables.v[i];
                if (!map_get(l->c->variables, v->name))
                        report_unknown(l->rep, &v->pos, v->name, names.v, names.n,
                                       "no function sets $%.*s", STR_ARG(v->name));
        }
}

bool conf_link_functions(struct conf *c, const struct conf_handles *h, struct report *rep)
{
        struct report ordered = {.a = c->arena};
        struct linking l = {.c = c, .a = c->arena, .h = h, .rep = &ordered, .named = map_new()};
        unsigned before = rep->errors;

        for (size_t i = 0; i < c->link->named.n; i++)
                named_block(&l, c->link->named.v[i]);
        for (size_t i = 0; i < c->n_hosts; i++) {
                struct host_conf *host = &c->hosts[i];
                for (size_t k = 0; k < host->n_functions; k++)
                        link_use(&l, host->functions[k]);
                for (size_t k = 0; k < host->n_routes; k++) {
                        struct route_conf *r = &host->routes[k];
                        for (size_t m = host->n_functions; m < r->n_functions; m++)
                                link_use(&l, r->functions[m]);
                        check_answer(&l, r);
                }
        }
        check_variables(&l);
        map_free(l.named);
        c->functions = COMPILE_TAKE(c->arena, l.all);
        c->n_functions = l.all.n;
        report_merge(rep, &ordered);
        return rep->errors == before;
}
