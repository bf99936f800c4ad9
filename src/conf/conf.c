/*
 * The way from a file to a configuration, and its end.
 *
 * The difficulty: names may be used before they are written, so modules are read first, names
 * between blocks last; and whatever was wrong, the rest is read too.
 */
#include "conf/conf.h"

#include "base/log.h"
#include "conf/compile.h"

#ifndef WEIR_MODULE_PATH
#define WEIR_MODULE_PATH "/usr/local/lib/weir/modules"
#endif

static void free_map(void *m)
{
        map_free(m);
}

static struct conf *conf_new(str path, str prefix)
{
        struct arena *a = arena_new(0);
        struct conf *c = ARENA_NEW(a, struct conf);

        c->arena = a;
        c->file = arena_dup(a, path);
        c->prefix = arena_dup(a, prefix);
        c->link = ARENA_NEW(a, struct conf_link);
        c->variables = map_new();
        arena_on_end(a, free_map, c->variables);
        c->error_log = STR("stderr");
        c->log_level = LOG_INFO;
        c->control = STR(CONF_CONTROL_DEFAULT);
        c->module_path = STR(WEIR_MODULE_PATH);
        return c;
}

/* Modules first: which names templates may hold depends on them. */
static void read_modules(struct compile *c, const struct tree *root, struct tree **rest,
                         size_t *n_rest)
{
        VEC(struct tree *) early = {0};
        struct scope top = {.context = TOP, .object = c->conf, .own = &c->conf->top};

        *n_rest = 0;
        for (size_t i = 0; i < root->n_children; i++) {
                str name = tree_name(root->child[i]);
                if (str_eq(name, STR("module")) || str_eq(name, STR("module_path")))
                        *VEC_ADD(c->a, &early) = root->child[i];
                else
                        rest[(*n_rest)++] = root->child[i];
        }
        compile_block(c, early.v, early.n, &top);
        for (size_t i = 0; i < c->modules.n; i++) {
                struct module_conf *m = &c->modules.v[i];
                if (!m->path.p)
                        m->path = arena_printf(c->a, "%.*s/%.*s.so", STR_ARG(c->conf->module_path),
                                               STR_ARG(m->name));
        }
        c->conf->modules = COMPILE_TAKE(c->a, c->modules);
        c->conf->n_modules = c->modules.n;
}

static void take_blocks(struct compile *c)
{
        struct conf *conf = c->conf;

        compile_listens_done(c);
        conf->listens = COMPILE_TAKE(c->a, c->listens);
        conf->n_listens = c->listens.n;
        conf->hosts = COMPILE_TAKE(c->a, c->hosts);
        conf->n_hosts = c->hosts.n;
        conf->upstreams = COMPILE_TAKE(c->a, c->upstreams);
        conf->n_upstreams = c->upstreams.n;
        conf->redises = COMPILE_TAKE(c->a, c->redises);
        conf->n_redises = c->redises.n;
}

static void compile_conf(struct compile *c, const struct tree *root)
{
        struct scope top = {.context = TOP, .object = c->conf, .own = &c->conf->top};
        struct tree **rest = ARENA_ARRAY(c->a, struct tree *, root->n_children + 1);
        size_t n_rest;

        compile_defaults(c, TOP, c->conf);
        compile_key_defaults(c, TOP, "ocsp_fetch", c->conf);
        compile_key_defaults(c, TOP, "ticket_keys", c->conf);
        c->names_top = top.names = compile_names(c->conf, NULL, false);
        c->names_log = compile_names(c->conf, NULL, true);
        read_modules(c, root, rest, &n_rest);
        compile_block(c, rest, n_rest, &top);
        take_blocks(c);
        link_conf(c);
}

struct conf *conf_read_all(struct source *src, str path, str prefix, struct report *rep)
{
        struct conf *conf = conf_new(path, prefix);
        struct report ordered = {.a = conf->arena};
        struct compile c = {.conf = conf, .a = conf->arena, .src = src, .rep = &ordered};
        struct tree *root = tree_read(src, conf->arena, &ordered, conf->file, conf->prefix);

        if (root) {
                c.names = map_new();
                compile_conf(&c, root);
                map_free(c.names);
        }
        report_merge(rep, &ordered);
        if (root)
                return conf;
        conf_free(conf);
        return NULL;
}

struct conf *conf_read(struct source *src, str path, str prefix, struct report *rep)
{
        unsigned before = rep->errors;
        struct conf *c = conf_read_all(src, path, prefix, rep);

        if (c && rep->errors != before) {
                conf_free(c);
                return NULL;
        }
        return c;
}

void conf_free(struct conf *c)
{
        if (c)
                arena_free(c->arena);
}

str conf_control_path(struct source *src, str path, str prefix, struct arena *a)
{
        struct report ignored = {0};
        struct tree *root = tree_read(src, a, &ignored, path, prefix);
        str found = STR_NONE;

        buf_clear(&ignored.out);
        for (size_t i = 0; root && i < root->n_children && !found.p; i++) {
                const struct tree *t = root->child[i];
                if (t->n_words == 2 && str_eq(tree_name(t), STR("control")) &&
                    str_starts(t->words[1].text, STR("unix:")) && t->words[1].text.n > 5)
                        found = lex_path(a, prefix, str_from(t->words[1].text, 5));
        }
        return found;
}
