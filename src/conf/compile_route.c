/*
 * Hosts, routes, their conditions and actions.
 *
 * The difficulty: what a route's templates may name depends on its own regex, so the pattern is
 * compiled before the block is read.
 */
#include "conf/compile.h"

#include "http/field.h"
#include "http/path.h" /* pure, and the one place that knows the normal form of a path */

struct route_build {
        struct route_conf r;
        struct conf_pos action; /* of the first one */
        bool has_action;
};

static struct route_build *build_of(const struct scope *s)
{
        return s->object;
}

/* ------------------------------------------------------------------ patterns */

/* A capture must not hide a variable, or the other way round. */
static void check_groups(struct compile *c, const struct regex *re, const struct word *w)
{
        int group;

        for (uint32_t i = 0;; i++) {
                str name = regex_group_name(re, i, &group);
                if (!name.p)
                        return;
                if (template_reserved(name)) {
                        ptrdiff_t off = str_find(w->text, name);
                        struct conf_pos at = word_pos(w, off < 0 ? 0 : (size_t)off);
                        report_error(c->rep, &at, "the capture %.*s has the name of a variable",
                                     STR_ARG(name));
                }
        }
}

static void literal_pattern(struct compile *c, struct route_conf *r, const struct word *w)
{
        struct path path;
        ptrdiff_t query = str_chr(w->text, '?');

        if (!str_starts(w->text, STR("/"))) {
                report_error(c->rep, &w->pos,
                             "\"%.*s\" is not a path: it begins with \"/\" (a regex: route ~ "
                             "'^/...')",
                             STR_ARG(w->text));
        } else if (query >= 0) {
                struct conf_pos at = word_pos(w, (size_t)query);
                report_error(c->rep, &at, "a route sees no query: use when query NAME");
        } else if (!path_parse(c->a, w->text, &path)) {
                report_error(c->rep, &w->pos, "\"%.*s\" is not a path that a request can have",
                             STR_ARG(w->text));
        } else {
                r->pattern = arena_dup(c->a, path.norm);
        }
}

static void route_pattern(struct compile *c, struct route_conf *r, const struct args *a)
{
        const struct word *w = a->word[a->n - 1], *mark = a->n > 1 ? a->word[0] : NULL;

        r->pattern = STR("/");
        r->label = mark ? arena_printf(c->a, "%.*s %.*s", STR_ARG(mark->text), STR_ARG(w->text))
                        : w->text;
        if (mark && (compile_is(mark, "~") || compile_is(mark, "~*"))) {
                r->kind = ROUTE_REGEX;
                r->icase = mark->text.n == 2;
                r->pattern = w->text;
                r->regex = compile_regex(c->a, c->rep, w, r->icase, "");
                if (r->regex)
                        check_groups(c, r->regex, w);
                return;
        }
        if (mark && !compile_is(mark, "=")) {
                report_error(c->rep, &mark->pos, "\"%.*s\" is not one of =, ~ and ~*",
                             STR_ARG(mark->text));
                return;
        }
        literal_pattern(c, r, w);
        r->kind = mark                             ? ROUTE_EXACT
                  : str_ends(r->pattern, STR("/")) ? ROUTE_PREFIX
                                                   : ROUTE_SEGMENT;
}

/* ------------------------------------------------------------------ when */

static void when_methods(struct compile *c, const struct args *a, struct when *w)
{
        str *v = ARENA_ARRAY(c->a, str, a->n);

        for (size_t i = 1; i < a->n; i++) {
                v[i - 1] = a->word[i]->text;
                if (!field_name_ok(a->word[i]->text))
                        report_error(c->rep, &a->word[i]->pos, "\"%.*s\" is not a method",
                                     STR_ARG(a->word[i]->text));
        }
        w->methods = v;
        w->n_methods = a->n - 1;
}

/* NAME [= V | ~ RE] */
static bool when_named(struct compile *c, const struct args *a, struct when *w)
{
        const struct word *name = a->word[1], *op = a->n > 2 ? a->word[2] : NULL;

        w->name = name->text;
        if (name->text.n == 0 || (w->kind == WHEN_HEADER && !field_name_ok(name->text))) {
                report_error(c->rep, &name->pos, "\"%.*s\" is not a name", STR_ARG(name->text));
                return false;
        }
        if (!op)
                return true;
        bool equal = compile_is(op, "="), icase = compile_is(op, "~*");
        if (!equal && !icase && !compile_is(op, "~")) {
                report_error(c->rep, &op->pos, "\"%.*s\" is not one of =, ~ and ~*",
                             STR_ARG(op->text));
                return false;
        }
        if (a->n != 4) {
                report_error(c->rep, a->n > 4 ? &a->word[4]->pos : &a->node->end,
                             "one word is expected behind \"%.*s\"", STR_ARG(op->text));
                return false;
        }
        w->op = equal ? WHEN_EQUAL : WHEN_REGEX;
        w->icase = icase;
        w->value = a->word[3]->text;
        if (!equal)
                w->regex = compile_regex(c->a, c->rep, a->word[3], icase, "");
        return equal || w->regex;
}

void compile_when(struct compile *c, struct scope *s, const struct args *a)
{
        static const str kinds[] = {STR_INIT("method"), STR_INIT("header"), STR_INIT("query"),
                                    STR_INIT("client")};
        const struct word *kind = a->word[0];
        struct when w = {.op = WHEN_PRESENT};
        size_t i = 0;

        (void)s;
        while (i < COUNT(kinds) && !str_eq(kind->text, kinds[i]))
                i++;
        if (i == COUNT(kinds)) {
                report_unknown(c->rep, &kind->pos, kind->text, kinds, COUNT(kinds),
                               "\"%.*s\" is not method, header, query or client",
                               STR_ARG(kind->text));
                return;
        }
        w.kind = (enum when_kind)i;
        if (w.kind == WHEN_METHOD)
                when_methods(c, a, &w);
        else if (w.kind == WHEN_CLIENT) {
                if (!compile_client_nets(c, a->word + 1, a->n - 1, &w))
                        return;
        } else if (!when_named(c, a, &w))
                return;
        *VEC_ADD(c->a, &c->whens) = w;
}

/* ------------------------------------------------------------------ actions */

/* One action, or several proxy lines. */
static bool first_action(struct compile *c, struct scope *s, const struct args *a,
                         enum action_kind kind)
{
        struct route_build *b = build_of(s);
        const struct conf_pos *at = &a->node->words[0].pos;

        if (b->has_action && (kind != ACTION_PROXY || b->r.action != ACTION_PROXY)) {
                report_error(c->rep, at, "a route has one action: another one is in line %u",
                             b->action.line);
                return false;
        }
        if (!b->has_action)
                b->action = *at;
        b->has_action = true;
        b->r.action = kind;
        return true;
}

void compile_proxy(struct compile *c, struct scope *s, const struct args *a)
{
        const struct word *host = compile_key(a, "host"), *name = a->word[0];
        struct proxy_target t = {0};

        if (!first_action(c, s, a, ACTION_PROXY))
                return;
        compile_keys(c, s, a, &t);
        if (host)
                t.host = compile_template(c, host, s->names);
        *VEC_ADD(c->a, &c->refs) = (struct reference){.name = name->text,
                                                      .pos = name->pos,
                                                      .kind = REF_PROXY,
                                                      .host = c->hosts.n,
                                                      .route = c->routes.n,
                                                      .target = c->targets.n};
        *VEC_ADD(c->a, &c->targets) = t;
}

void compile_respond(struct compile *c, struct scope *s, const struct args *a)
{
        struct route_conf *r = &build_of(s)->r;

        if (!first_action(c, s, a, ACTION_RESPOND))
                return;
        (void)compile_status(c, a->word[0], 200, 599, &r->status);
        if (a->n < 2)
                return;
        r->body = compile_template(c, a->word[1], s->names);
        if ((r->status == 204 || r->status == 205 || r->status == 304) && a->word[1]->text.n)
                report_error(c->rep, &a->word[1]->pos, "a %d response has no body", r->status);
}

void compile_redirect(struct compile *c, struct scope *s, const struct args *a)
{
        struct route_conf *r = &build_of(s)->r;

        if (!first_action(c, s, a, ACTION_REDIRECT))
                return;
        if (compile_status(c, a->word[0], 300, 399, &r->status) && r->status != 301 &&
            r->status != 302 && r->status != 303 && r->status != 307 && r->status != 308)
                report_error(c->rep, &a->word[0]->pos, "redirect takes 301, 302, 303, 307 or 308");
        r->body = compile_template(c, a->word[1], s->names);
        if (str_has_ctl(a->word[1]->text) || a->word[1]->text.n == 0)
                report_error(c->rep, &a->word[1]->pos, "this cannot be a URL");
}

void compile_rewrite(struct compile *c, struct scope *s, const struct args *a)
{
        struct route_conf *r = &build_of(s)->r;
        const struct template *t = compile_template(c, a->word[0], s->names);

        if (!t)
                return;
        if (t->n == 0 || (t->op[0].literal && t->op[0].text.p[0] != '/'))
                report_error(c->rep, &a->word[0]->pos, "a path begins with \"/\"");
        for (uint32_t i = 0; i < t->n; i++) {
                if (!t->op[i].literal)
                        continue;
                r->rewrite_query = r->rewrite_query || str_chr(t->op[i].text, '?') >= 0;
                if (str_has_ctl(t->op[i].text) || str_chr(t->op[i].text, ' ') >= 0)
                        report_error(c->rep, &a->word[0]->pos, "a space must be written %%20");
        }
        r->rewrite = t;
}

/* ------------------------------------------------------------------ routes and hosts */

/* broken: there were mistakes in the block, so what is missing may only be wrong. */
static void check_action(struct compile *c, const struct route_build *b, bool broken)
{
        const struct route_conf *r = &b->r;

        if (r->rewrite && b->has_action && r->action != ACTION_PROXY)
                report_error(c->rep, &r->pos, "rewrite makes no sense without proxy");
        if (r->n_targets > 0 && r->weight_sum == 0 && !broken)
                report_error(c->rep, &b->action, "all weights of the route are 0");
}

void compile_route(struct compile *c, struct scope *s, const struct args *a)
{
        struct route_build b = {.r = {.pos = a->node->words[0].pos,
                                      .index = (uint32_t)c->routes.n,
                                      .action = ACTION_FUNCTION}};
        struct route_conf *r = &b.r;
        function_vec functions = {0};
        struct scope in = {.context = ROUTE,
                           .object = &b,
                           .own = &r->own,
                           .functions = &functions,
                           .host = s->host,
                           .route = r};

        unsigned before = c->rep->errors;

        c->whens.n = c->targets.n = 0;
        route_pattern(c, r, a);
        in.names = compile_names(c->conf, r->regex, false);
        compile_block(c, a->node->child, a->node->n_children, &in);
        r->whens = COMPILE_TAKE(c->a, c->whens);
        r->n_whens = c->whens.n;
        r->targets = COMPILE_TAKE(c->a, c->targets);
        r->n_targets = c->targets.n;
        for (size_t i = 0; i < r->n_targets; i++)
                r->weight_sum += r->targets[i].weight;
        r->functions = COMPILE_TAKE(c->a, functions);
        r->n_functions = functions.n;
        check_action(c, &b, c->rep->errors != before);
        if (!b.has_action && (c->rep->errors != before || tree_has(a->node, "respond") ||
                              tree_has(a->node, "redirect") || tree_has(a->node, "proxy")))
                r->action = ACTION_PROXY; /* so that no second mistake is made of it */
        *VEC_ADD(c->a, &c->routes) = *r;
}

static bool host_pattern_ok(str s)
{
        if (str_eq(s, STR("*")))
                return true;
        if (str_starts(s, STR("*.")))
                s = str_from(s, 2);
        for (size_t i = 0; i < s.n; i++) {
                char ch = str_lower(s.p[i]);
                if (!((ch >= 'a' && ch <= 'z') || (ch >= '0' && ch <= '9') || ch == '-' ||
                      ch == '.' || ch == '_' || ch == ':' || ch == '[' || ch == ']'))
                        return false;
        }
        return s.n > 0 && s.n <= 253 && s.p[0] != '.' && !str_ends(s, STR("."));
}

static void host_name(struct compile *c, const struct word *w, str *out)
{
        str s = compile_lower(c->a, w->text);
        ptrdiff_t colon = str_rchr(s, ':'), bracket = str_rchr(s, ']');

        *out = s;
        if (colon > bracket && str_chr(s, ':') == colon)
                report_error(c->rep, &w->pos, "a host has no port: it is ignored for the choice");
        else if (!host_pattern_ok(s))
                report_error(c->rep, &w->pos,
                             "\"%.*s\" is not a host (example.com, *.example.com or *)",
                             STR_ARG(w->text));
        else
                (void)compile_unique(c, "host", s, &w->pos);
}

/* Every route before this one that certainly takes all of its requests. */
static const struct route_conf *shadowed_by(const struct map *seen, struct arena *a,
                                            const struct route_conf *r)
{
        const struct route_conf *first = map_get(seen, STR("prefix /"));

        if (first)
                return first;
        if (r->kind == ROUTE_REGEX)
                return map_get(seen,
                               arena_printf(a, "regex %d %.*s", r->icase, STR_ARG(r->pattern)));
        if (r->kind == ROUTE_EXACT) {
                first = map_get(seen, arena_printf(a, "exact %.*s", STR_ARG(r->pattern)));
                if (first)
                        return first;
        }
        for (size_t n = 1; n <= r->pattern.n && !first; n++) {
                bool end = n == r->pattern.n, slash = r->pattern.p[n - 1] == '/';
                str head = str_head(r->pattern, n);
                if (slash && !(end && r->kind == ROUTE_SEGMENT))
                        first = map_get(seen, arena_printf(a, "prefix %.*s", STR_ARG(head)));
                else if (end || r->pattern.p[n] == '/')
                        first = map_get(seen, arena_printf(a, "segment %.*s", STR_ARG(head)));
        }
        return first;
}

static void warn_shadowed(struct compile *c, struct route_conf *v, size_t n)
{
        static const char *const kinds[] = {"prefix", "segment", "exact", "regex"};
        struct map *seen = map_new();
        struct arena *a = arena_new(0);

        for (size_t i = 0; i < n; i++) {
                struct route_conf *r = &v[i];
                const struct route_conf *by = shadowed_by(seen, a, r);
                if (by)
                        report_warning(c->rep, &r->pos,
                                       "this route is never reached: route %.*s in line %u takes "
                                       "all of its requests",
                                       STR_ARG(by->label), by->pos.line);
                if (r->n_whens)
                        continue;
                str key = r->kind == ROUTE_REGEX
                                  ? arena_printf(a, "regex %d %.*s", r->icase, STR_ARG(r->pattern))
                                  : arena_printf(a, "%s %.*s", kinds[r->kind], STR_ARG(r->pattern));
                map_put(seen, key, r);
        }
        arena_free(a);
        map_free(seen);
}

void compile_host(struct compile *c, struct scope *s, const struct args *a)
{
        struct host_conf h = {.pos = a->node->words[0].pos, .index = (uint32_t)c->hosts.n};
        str *names = ARENA_ARRAY(c->a, str, a->n);
        function_vec functions = {0};
        struct scope in = {.context = HOST,
                           .object = &h,
                           .own = &h.own,
                           .names = c->names_top,
                           .functions = &functions,
                           .host = &h};

        (void)s;
        for (size_t i = 0; i < a->n; i++)
                host_name(c, a->word[i], &names[i]);
        h.names = names;
        h.n_names = a->n;
        c->routes.v = ARENA_ARRAY(c->a, struct route_conf, a->node->n_children + 1);
        c->routes.cap = a->node->n_children + 1;
        c->routes.n = 0;
        compile_block(c, a->node->child, a->node->n_children, &in);
        h.routes = c->routes.v;
        h.n_routes = c->routes.n;
        h.functions = COMPILE_TAKE(c->a, functions);
        h.n_functions = functions.n;
        warn_shadowed(c, h.routes, h.n_routes);
        *VEC_ADD(c->a, &c->hosts) = h;
}
