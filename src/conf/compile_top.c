/*
 * What stands at the top and is no block, and redis.
 */
#include "base/log.h"
#include "conf/compile.h"
#include "conf/value.h"

void compile_user(struct compile *c, struct scope *s, const struct args *a)
{
        struct conf *conf = c->conf;
        str group = a->n > 1 ? a->word[1]->text : STR("");

        (void)s;
        conf->user = a->word[0]->text;
        conf->group = a->n > 1 ? group : STR_NONE;
        conf->has_user = c->src->user(c->src, conf->user, group, &conf->uid, &conf->gid);
        if (conf->has_user)
                return;
        if (a->n > 1 && c->src->user(c->src, conf->user, STR(""), &conf->uid, &conf->gid))
                report_error(c->rep, &a->word[1]->pos, "there is no group \"%.*s\"",
                             STR_ARG(group));
        else
                report_error(c->rep, &a->word[0]->pos, "there is no user \"%.*s\"",
                             STR_ARG(conf->user));
}

void compile_error_log(struct compile *c, struct scope *s, const struct args *a)
{
        static const str levels[] = {STR_INIT("error"), STR_INIT("warn"), STR_INIT("info"),
                                     STR_INIT("debug")};
        const struct word *level = compile_key(a, "level");
        enum log_level value;

        (void)s;
        if (compile_is(a->word[0], "off")) { /* a file of that name is not what was meant */
                report_error(c->rep, &a->word[0]->pos,
                             "error_log cannot be off (level=error is the least)");
                return;
        }
        c->conf->error_log = compile_is(a->word[0], "stderr")
                                     ? a->word[0]->text
                                     : lex_path(c->a, c->conf->prefix, a->word[0]->text);
        if (!level)
                return;
        if (log_level_parse(level->text, &value))
                c->conf->log_level = value;
        else
                report_unknown(c->rep, &level->pos, level->text, levels, COUNT(levels),
                               "\"%.*s\" is not a level (error, warn, info, debug)",
                               STR_ARG(level->text));
}

void compile_control(struct compile *c, struct scope *s, const struct args *a)
{
        struct addr addr;
        str path;
        uint16_t port;
        const struct word *w = a->word[0];

        (void)s;
        if (!str_starts(w->text, STR("unix:")))
                report_error(c->rep, &w->pos, "control takes unix:PATH");
        else if (compile_address(c, w, 0, &addr, &path, &port))
                c->conf->control = path;
}

void compile_admin(struct compile *c, struct scope *s, const struct args *a)
{
        const struct word *w = a->word[0];

        (void)s;
        if (str_starts(w->text, STR("unix:")) || !addr_parse(w->text, &c->conf->admin) ||
            addr_port(&c->conf->admin) == 0) {
                report_error(c->rep, &w->pos, "\"%.*s\" is not ADDR:PORT (such as 127.0.0.1:9901)",
                             STR_ARG(w->text));
                return;
        }
        c->conf->has_admin = true;
        c->conf->admin_text = w->text;
}

void compile_module(struct compile *c, struct scope *s, const struct args *a)
{
        const struct word *w = a->word[0];
        str name = w->text;
        bool ok = name.n > 0 && name.n <= 48 && name.p[0] >= 'a' && name.p[0] <= 'z';

        (void)s;
        for (size_t i = 0; i < name.n; i++) {
                char ch = name.p[i];
                ok = ok && ((ch >= 'a' && ch <= 'z') || (ch >= '0' && ch <= '9') || ch == '_');
        }
        if (!ok) {
                report_error(c->rep, &w->pos,
                             "\"%.*s\" is not the name of a module (a-z, 0-9 and \"_\")",
                             STR_ARG(name));
                return;
        }
        if (compile_unique(c, "module", name, &w->pos))
                *VEC_ADD(c->a, &c->modules) = (struct module_conf){
                        .pos = w->pos,
                        .name = name,
                        .path = a->n > 1 ? lex_path(c->a, c->conf->prefix, a->word[1]->text)
                                         : STR_NONE};
}

static struct cidr *compile_nets(struct compile *c, struct word *const *word, size_t n)
{
        struct cidr *v = ARENA_ARRAY(c->a, struct cidr, n + 1);

        for (size_t i = 0; i < n; i++) {
                if (!cidr_parse(word[i]->text, &v[i]))
                        report_error(c->rep, &word[i]->pos,
                                     "\"%.*s\" is not a network (such as 10.0.0.0/8 or ::1)",
                                     STR_ARG(word[i]->text));
        }
        return v;
}

void compile_trusted(struct compile *c, struct scope *s, const struct args *a)
{
        (void)s;
        c->conf->trusted = compile_nets(c, a->word, a->n);
        c->conf->n_trusted = a->n;
}

bool compile_client_nets(struct compile *c, struct word *const *word, size_t n, struct when *out)
{
        unsigned before = c->rep->errors;

        out->nets = compile_nets(c, word, n);
        out->n_nets = n;
        return c->rep->errors == before;
}

void compile_resolver(struct compile *c, struct scope *s, const struct args *a)
{
        str *v = ARENA_ARRAY(c->a, str, a->n + 1);
        struct addr addr;

        (void)s;
        for (size_t i = 0; i < a->n; i++) {
                v[i] = a->word[i]->text;
                if (!addr_parse_ip(v[i], 53, &addr) &&
                    (str_starts(v[i], STR("unix:")) || !addr_parse(v[i], &addr)))
                        report_error(c->rep, &a->word[i]->pos,
                                     "\"%.*s\" is not the address of a name server", STR_ARG(v[i]));
        }
        c->conf->resolvers = v;
        c->conf->n_resolvers = a->n;
}

void compile_ocsp_fetch(struct compile *c, struct scope *s, const struct args *a)
{
        compile_keys(c, s, a, c->conf);
}

/* ------------------------------------------------------------------ ticket keys */

static bool one_source(struct compile *c, const struct conf_pos *at, str file, str redis)
{
        struct conf *conf = c->conf;

        if (!conf->has_tickets ||
            (str_eq(conf->ticket_file.file, file) && str_eq(conf->ticket_redis, redis))) {
                conf->has_tickets = true;
                conf->ticket_pos = *at;
                return true;
        }
        report_error(c->rep, at,
                     "ticket_keys: all listeners share the same keys, and line %u has others",
                     conf->ticket_pos.line);
        return false;
}

bool compile_ticket_file(struct compile *c, const struct word *w)
{
        return one_source(c, &w->pos, lex_path(c->a, c->conf->prefix, w->text), STR_NONE) &&
               compile_file(c, w, &c->conf->ticket_file);
}

/* key= belongs to another source of keys. */
static void ticket_stray(struct compile *c, const struct args *a, const char *key, const char *why)
{
        const struct word *w = compile_key(a, key);

        if (w)
                report_error(c->rep, &w->pos, "ticket_keys: %s= %s", key, why);
}

void compile_tickets(struct compile *c, struct scope *s, const struct args *a)
{
        const struct word *redis = compile_key(a, "redis");

        if (a->n == 0 && a->n_keyed == 0)
                report_error(c->rep, &a->node->end, "ticket_keys needs FILE, redis= or rotate=");
        compile_keys(c, s, a, c->conf);
        if (a->n > 0) {
                ticket_stray(c, a, "redis", "and FILE exclude each other");
                ticket_stray(c, a, "rotate",
                             "is for keys that weir makes; whoever writes FILE rotates these");
                (void)compile_ticket_file(c, a->word[0]);
        } else {
                ticket_stray(c, a, "check", "is for FILE");
                if (redis && one_source(c, &redis->pos, STR_NONE, redis->text))
                        c->conf->ticket_redis = redis->text;
        }
        if (!redis)
                ticket_stray(c, a, "prefix", "is for redis=");
}

/* ------------------------------------------------------------------ redis */

/* A secret read from a file mostly ends in a line end that nobody meant. */
static str without_line_end(str s)
{
        if (str_ends(s, STR("\n")))
                s.n--;
        if (str_ends(s, STR("\r")))
                s.n--;
        return s;
}

void compile_redis_server(struct compile *c, struct scope *s, const struct args *a)
{
        struct redis_store_conf *r = s->object;

        (void)compile_address(c, a->word[0], 6379, &r->addr, &r->host, &r->port);
}

void compile_redis_timeout(struct compile *c, struct scope *s, const struct args *a)
{
        compile_keys(c, s, a, s->object);
}

void compile_redis_tls(struct compile *c, struct scope *s, const struct args *a)
{
        struct redis_store_conf *r = s->object;

        if (a->n == 1) /* off */
                return;
        r->tls = true;
        r->tls_pos = a->node->words[0].pos;
        compile_keys(c, s, a, r);
        if (!compile_key(a, "certificate") != !compile_key(a, "key"))
                report_error(c->rep, &a->node->end, "certificate= and key= belong together");
}

void compile_redis(struct compile *c, struct scope *s, const struct args *a)
{
        struct redis_store_conf r = {.pos = a->node->words[0].pos,
                                     .name = a->word[0]->text,
                                     .connect = 200 * MSEC,
                                     .command = 50 * MSEC};
        struct scope in = {.context = REDIS, .object = &r, .names = c->names_top};

        (void)s;
        if (str_eq(r.name, STR("local")))
                report_error(c->rep, &a->word[0]->pos,
                             "the store named local always exists; it is no redis");
        else
                (void)compile_block_name(c, a->word[0], "redis");
        compile_defaults(c, REDIS, &r);
        compile_block(c, a->node->child, a->node->n_children, &in);
        if (!tree_has(a->node, "server"))
                report_error(c->rep, &a->word[0]->pos, "redis %.*s needs a server",
                             STR_ARG(r.name));
        r.user = without_line_end(r.user);
        r.password = without_line_end(r.password);
        r.index = (uint32_t)c->redises.n;
        *VEC_ADD(c->a, &c->redises) = r;
}
