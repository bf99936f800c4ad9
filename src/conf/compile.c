/*
 * Reads blocks by the table of directives.
 *
 * The difficulty: a word is name=value only where the directive declares that name, so words are
 * sorted into plain ones and values here, once, and the functions of directives see only that.
 */
#include "conf/compile.h"

#include "base/check.h"
#include "conf/value.h"

void *compile_dup(struct arena *a, const void *v, size_t n, size_t size)
{
        void *p = arena_zalloc(a, n ? n * size : 1);

        if (n)
                memcpy(p, v, n * size);
        return p;
}

bool compile_is(const struct word *w, const char *text)
{
        return str_eq(w->text, str_z(text));
}

str compile_lower(struct arena *a, str s)
{
        char *p = arena_alloc(a, s.n + 1);

        for (size_t i = 0; i < s.n; i++)
                p[i] = str_lower(s.p[i]);
        return str_of(p, s.n);
}

/* ------------------------------------------------------------------ values */

static bool row_bounds(struct compile *c, const struct value_row *row, const char *name,
                       const struct word *w, int64_t v)
{
        char text[VALUE_TEXT];
        bool low = v < row->min, time = row->type == TYPE_TIME, size = row->type == TYPE_SIZE;
        int64_t bound = low ? row->min : row->max;

        if ((row->min == 0 && row->max == 0) || (!low && (row->max == 0 || v <= row->max)))
                return true;
        str s = time ? value_time_text(bound, text) : value_size_text((uint64_t)bound, text);
        if (!time && !size)
                s = str_of(text, str_put_u64(text, (uint64_t)bound));
        report_error(c->rep, &w->pos, "%s must be at %s %.*s%s", name, low ? "least" : "most",
                     STR_ARG(s), (row->flags & OFF) ? " (or off)" : "");
        return false;
}

static void put_integer(const struct value_row *row, void *base, int64_t v)
{
        char *p = (char *)base + row->offset;
        uint32_t small = (uint32_t)v;

        if (row->size == sizeof small)
                memcpy(p, &small, sizeof small);
        else
                memcpy(p, &v, sizeof v);
}

static bool word_integer(struct compile *c, const struct value_row *row, const char *name,
                         const struct word *w, void *base)
{
        int64_t v;
        bool ok = row->type == TYPE_TIME   ? value_time(w->text, &v)
                  : row->type == TYPE_SIZE ? value_size(w->text, &v)
                                           : value_int(w->text, &v) && v >= 0;

        if (((row->flags & OFF) && compile_is(w, "off")) ||
            ((row->flags & AUTO) && compile_is(w, "auto"))) {
                put_integer(row, base, 0);
                return true;
        }
        if (!ok) {
                report_error(c->rep, &w->pos, "%s: \"%.*s\" is not a %s%s%s", name,
                             STR_ARG(w->text),
                             row->type == TYPE_TIME   ? "time (such as 250ms, 5s, 2m, 1h, 7d)"
                             : row->type == TYPE_SIZE ? "size (such as 512, 8k, 1m, 2g)"
                                                      : "count",
                             (row->flags & OFF) ? ", nor off" : "",
                             (row->flags & AUTO) ? ", nor auto" : "");
                return false;
        }
        if (!row_bounds(c, row, name, w, v))
                return false;
        if (row->size == sizeof(uint32_t) && v > INT32_MAX) {
                report_error(c->rep, &w->pos, "%s must be at most %d", name, INT32_MAX);
                return false;
        }
        put_integer(row, base, v);
        return true;
}

/* In the order of their bits. */
const char *const compile_causes[COMPILE_CAUSES] = {
        "connect_error",
        "reset",
        "timeout",
        "502",
        "503",
        "504",
        "grpc_cancelled",
        "grpc_unknown",
        "grpc_deadline_exceeded",
        "grpc_resource_exhausted",
        "grpc_aborted",
        "grpc_internal",
        "grpc_unavailable",
};
_Static_assert(RETRY_GRPC_UNAVAILABLE == 1 << (COMPILE_CAUSES - 1), "a name for each bit");

static bool word_causes(struct compile *c, const struct word *w, uint32_t *out)
{
        str rest = w->text, one, names[COMPILE_CAUSES];
        uint32_t bits = 0;
        bool ok = true;

        for (size_t i = 0; i < COUNT(names); i++)
                names[i] = str_z(compile_causes[i]);
        while (rest.p) {
                size_t off = (size_t)(rest.p - w->text.p), i = 0;
                (void)str_cut(rest, ',', &one, &rest);
                while (i < COUNT(names) && !str_eq(one, names[i]))
                        i++;
                if (i < COUNT(names)) {
                        bits |= UINT32_C(1) << i;
                        continue;
                }
                struct conf_pos at = word_pos(w, off);
                report_unknown(c->rep, &at, one, names, COUNT(names),
                               "on: \"%.*s\" is not a cause of retries", STR_ARG(one));
                ok = false;
        }
        if (ok)
                *out = bits;
        return ok;
}

bool compile_file(struct compile *c, const struct word *w, struct file_text *out)
{
        str path = lex_path(c->a, c->conf->prefix, w->text), text, error = STR_NONE;

        if (!c->src->file(c->src, path, c->a, &text, &error)) {
                report_error(c->rep, &w->pos, "cannot read %.*s: %.*s", STR_ARG(path),
                             STR_ARG(error));
                return false;
        }
        *out = (struct file_text){path, text};
        return true;
}

bool compile_word(struct compile *c, const struct value_row *row, const char *name,
                  const struct word *w, void *base)
{
        void *p = (char *)base + row->offset;
        double share;
        bool b;

        switch (row->type) {
        case TYPE_TIME:
        case TYPE_SIZE:
        case TYPE_COUNT:
                return word_integer(c, row, name, w, base);
        case TYPE_BOOL:
                if (!value_bool(w->text, &b)) {
                        report_error(c->rep, &w->pos, "%s: \"%.*s\" is neither on nor off", name,
                                     STR_ARG(w->text));
                        return false;
                }
                *(bool *)p = b;
                return true;
        case TYPE_SHARE:
                if (!value_number(w->text, &share) || share < 0 || share > 1) {
                        report_error(c->rep, &w->pos,
                                     "%s: \"%.*s\" is not a share between 0%% and 100%%", name,
                                     STR_ARG(w->text));
                        return false;
                }
                *(double *)p = share;
                return true;
        case TYPE_CAUSES:
                return word_causes(c, w, p);
        case TYPE_FILE:
                return compile_file(c, w, p);
        case TYPE_WORD:
        case TYPE_PATH:
                if (w->text.n == 0 || memchr(w->text.p, 0, w->text.n)) {
                        report_error(c->rep, &w->pos, "%s must not be empty", name);
                        return false;
                }
                *(str *)p =
                        row->type == TYPE_PATH ? lex_path(c->a, c->conf->prefix, w->text) : w->text;
                return true;
        case TYPE_NONE:
                break;
        }
        return true;
}

/* What the table says where nothing was written. */
static void row_default(struct compile *c, const struct value_row *row, void *base)
{
        struct word w = {.text = str_z(row->dflt)};
        struct value_row free = *row;

        if (!row->dflt || row->size == 0)
                return;
        free.min = free.max = 0;
        CHECK(compile_word(c, &free, "", &w, base));
}

void compile_defaults(struct compile *c, unsigned context, void *object)
{
        for (size_t i = 0; i < directives_n; i++) {
                if ((directives[i].contexts & context) && directives[i].value.bit < 0)
                        row_default(c, &directives[i].value, object);
        }
}

void compile_key_defaults(struct compile *c, unsigned context, const char *directive, void *object)
{
        for (size_t i = 0; i < directive_keys_n; i++) {
                const struct directive_key *k = &directive_keys[i];
                if ((k->contexts & context) && k->value.bit < 0 &&
                    strcmp(k->directive, directive) == 0)
                        row_default(c, &k->value, object);
        }
}

/* A setting written twice in one block is a mistake; the bit says that it was written. */
static void put_setting(struct compile *c, const struct value_row *row, const char *name,
                        const struct word *w, const struct conf_pos *at, struct settings *own)
{
        if (own->set & (UINT64_C(1) << row->bit)) {
                report_error(c->rep, at, "%s is given twice", name);
                return;
        }
        if (compile_word(c, row, name, w, own))
                own->set |= UINT64_C(1) << row->bit;
}

void compile_keys(struct compile *c, const struct scope *s, const struct args *a, void *object)
{
        for (size_t i = 0; i < a->n_keyed; i++) {
                const struct directive_key *k = a->keyed[i].key;
                if (k->value.size == 0)
                        continue;
                if (k->value.bit >= 0)
                        put_setting(c, &k->value, k->name, &a->keyed[i].value,
                                    &a->keyed[i].whole->pos, s->own);
                else if (object)
                        (void)compile_word(c, &k->value, k->name, &a->keyed[i].value, object);
        }
        for (size_t i = 0; object && i < directive_keys_n; i++) {
                const struct directive_key *k = &directive_keys[i];
                if ((k->contexts & s->context) && k->value.bit < 0 &&
                    strcmp(k->directive, a->d->name) == 0 && !compile_key(a, k->name))
                        row_default(c, &k->value, object);
        }
}

void compile_value(struct compile *c, struct scope *s, const struct args *a)
{
        const struct value_row *row = &a->d->value;

        if (row->bit >= 0)
                put_setting(c, row, a->d->name, a->word[0], &a->node->words[0].pos, s->own);
        else
                (void)compile_word(c, row, a->d->name, a->word[0], s->object);
}

const struct word *compile_key(const struct args *a, const char *name)
{
        for (size_t i = 0; i < a->n_keyed; i++) {
                if (strcmp(a->keyed[i].key->name, name) == 0)
                        return &a->keyed[i].value;
        }
        return NULL;
}

/* ------------------------------------------------------------------ one directive */

static void refuse(struct compile *c, const struct conf_pos *at, const char *name, const char *tail)
{
        report_error(c->rep, at, "%s%s is not part of this version of weir", name, tail);
}

static void unknown_key(struct compile *c, unsigned context, const struct args *a,
                        const struct word *w, str name)
{
        str names[DIRECTIVE_NAMES_MAX];
        size_t n = directive_key_names(a->d, context, names, COUNT(names));

        for (size_t i = 0; i < directive_keys_n; i++) {
                const struct directive_key *k = &directive_keys[i];
                if (strcmp(k->directive, a->d->name) == 0 && (k->contexts & a->d->contexts) &&
                    !k->refused && str_eq(name, str_z(k->name))) {
                        report_error(c->rep, &w->pos, "%s %s does not belong in %s, but in %s",
                                     a->d->name, k->name, directive_context_name(context),
                                     directive_context_name(k->contexts));
                        return;
                }
        }
        report_unknown(c->rep, &w->pos, name, names, n, "%s has no parameter \"%.*s\"", a->d->name,
                       STR_ARG(name));
}

static void key_word(struct compile *c, struct args *a, const struct directive_key *k,
                     struct word *w)
{
        if (k->refused) {
                refuse(c, &w->pos, k->name, "=");
                return;
        }
        if (compile_key(a, k->name)) {
                report_error(c->rep, &w->pos, "%s is given twice", k->name);
                return;
        }
        CHECK(a->n_keyed < ARGS_MAX);
        a->keyed[a->n_keyed].key = k;
        a->keyed[a->n_keyed].whole = w;
        a->keyed[a->n_keyed++].value = word_value(c->a, w);
}

/* A word of the form name=: whether it was one of the directive's keys, or surely meant to be. */
static bool sort_pair(struct compile *c, unsigned context, struct args *a, struct word *w)
{
        str name = str_head(w->text, w->value - 1), names[DIRECTIVE_NAMES_MAX];
        size_t n = directive_key_names(a->d, context, names, COUNT(names));
        const struct directive_key *k = directive_key_find(a->d, context, name);

        if (k) {
                key_word(c, a, k, w);
                return true;
        }
        bool only_keys = a->d->words_max == 0 && !(a->d->flags & MANY_WORDS);
        if (n == 0 || !(only_keys || (a->d->flags & KEYS) || report_nearest(name, names, n).p))
                return false;
        unknown_key(c, context, a, w, name);
        return true;
}

void compile_surplus(struct compile *c, unsigned context, const struct args *a,
                     const struct word *w)
{
        const struct directive *next = directive_find(context, w->text);
        str line = str_trim(str_head(w->pos.text, w->pos.col - 1));

        if (next && line.n == 0)
                report_error(c->rep, &w->pos, "a \";\" is missing before this line");
        else if (w->value && !w->quoted)
                unknown_key(c, context, a, w, str_head(w->text, w->value - 1));
        else if (a->d->syntax)
                report_error(c->rep, &w->pos, "%s takes no \"%.*s\" here: %s %s", a->d->name,
                             STR_ARG(w->text), a->d->name, a->d->syntax);
        else
                report_error(c->rep, &w->pos, "%s takes one word", a->d->name);
}

static bool sort_words(struct compile *c, unsigned context, struct args *a)
{
        const struct tree *t = a->node;
        const struct directive *d = a->d;
        unsigned before = c->rep->errors;

        a->word = ARENA_ARRAY(c->a, struct word *, t->n_words + 1);
        for (size_t i = 1; i < t->n_words; i++) {
                struct word *w = &t->words[i];
                if (w->value && !w->quoted && !(d->flags & FREE) && sort_pair(c, context, a, w))
                        continue;
                if (a->n >= d->words_max && !(d->flags & MANY_WORDS)) {
                        compile_surplus(c, context, a, w);
                        break;
                }
                a->word[a->n++] = w;
        }
        if (c->rep->errors != before)
                return false;
        if ((d->flags & OFF) && a->n == 1 && !compile_is(a->word[0], "off"))
                compile_surplus(c, context, a, a->word[0]);
        else if ((d->flags & OFF) && a->n == 1 && a->n_keyed)
                report_error(c->rep, &a->word[0]->pos, "%s off takes no parameters", d->name);
        else if (a->n < d->words_min || ((d->flags & KEYS) && a->n + a->n_keyed == 0))
                report_error(c->rep, &t->end, "%s needs more: %s %s", d->name, d->name,
                             d->syntax ? d->syntax : "VALUE");
        return c->rep->errors == before;
}

static bool block_right(struct compile *c, const struct args *a)
{
        const struct tree *t = a->node;

        if (t->has_block && !(a->d->flags & (BLOCK | BLOCK_OPTIONAL))) {
                report_error(c->rep, &t->end, "%s takes no block", a->d->name);
                return false;
        }
        if (!t->has_block && (a->d->flags & BLOCK)) {
                report_error(c->rep, &t->end, "%s needs a block: %s %s", a->d->name, a->d->name,
                             a->d->syntax);
                return false;
        }
        return true;
}

static void unknown_directive(struct compile *c, unsigned context, struct tree *t)
{
        str names[DIRECTIVE_NAMES_MAX], name = tree_name(t);
        const struct word *w = &t->words[0];
        unsigned elsewhere = 0;

        if (context == TOP && t->n_words == 2 && t->has_block && c->conf->n_modules) {
                *VEC_ADD(c->a, &c->conf->link->named) = t;
                return;
        }
        for (size_t i = 0; i < directives_n; i++) {
                if (!directives[i].refused && str_eq(name, str_z(directives[i].name)))
                        elsewhere |= directives[i].contexts;
        }
        if (elsewhere) {
                report_error(c->rep, &w->pos, "%.*s does not belong in %s, but in %s",
                             STR_ARG(name), directive_context_name(context),
                             directive_context_name(elsewhere));
                return;
        }
        size_t n = directive_names(context, names, COUNT(names));
        report_unknown(c->rep, &w->pos, name, names, n, "unknown directive \"%.*s\"",
                       STR_ARG(name));
}

void compile_block(struct compile *c, struct tree *const *child, size_t n, struct scope *s)
{
        const struct tree *seen[DIRECTIVES_MAX] = {NULL};

        CHECK(directives_n <= DIRECTIVES_MAX);
        for (size_t i = 0; i < n; i++) {
                struct tree *t = child[i];
                const struct directive *d =
                        t->words[0].quoted ? NULL : directive_find(s->context, tree_name(t));
                struct args a = {.d = d, .node = t};
                if (t->broken)
                        continue;
                if (!d) {
                        unknown_directive(c, s->context, t);
                        continue;
                }
                if (d->refused) {
                        refuse(c, &t->words[0].pos, d->name, "");
                        continue;
                }
                const struct tree *first = seen[d - directives];
                if (first && !(d->flags & MANY) && d->fn != compile_settings && d->value.bit < 0) {
                        report_error(c->rep, &t->words[0].pos,
                                     "%s is given twice (first in line %u)", d->name,
                                     first->words[0].pos.line);
                        continue;
                }
                seen[d - directives] = t;
                if (block_right(c, &a) && sort_words(c, s->context, &a))
                        d->fn(c, s, &a);
        }
}

/* ------------------------------------------------------------------ shared by nouns */

static void free_regex(void *re)
{
        regex_free(re);
}

const struct regex *compile_regex(struct arena *a, struct report *rep, const struct word *w,
                                  bool icase, const char *what)
{
        struct regex_error error;
        struct regex *re = regex_new(w->text, icase ? REGEX_ICASE : 0, &error);

        if (re) {
                arena_on_end(a, free_regex, re);
                return re;
        }
        struct conf_pos at = word_pos(w, MIN(error.offset, w->text.n));
        report_error(rep, &at, "%sthe regex does not compile: %.*s", what, (int)sizeof error.text,
                     error.text);
        return NULL;
}

const struct template *compile_template_as(struct conf *c, struct report *rep, const struct word *w,
                                           const struct template_scope *names, const char *what)
{
        struct arena *a = c->arena;
        const char *error;
        const uint32_t *map;
        size_t at;

        c->link->at = &w->pos;
        struct template *t = template_compile(a, word_template(a, w, 0, NULL), names, &error, &at);
        if (t)
                return t;
        (void)word_template(a, w, 0, &map);
        struct conf_pos pos = word_pos(w, map[at]);
        report_error(rep, &pos, "%s%s", what, error);
        return NULL;
}

const struct template *compile_template(struct compile *c, const struct word *w,
                                        const struct template_scope *names)
{
        return compile_template_as(c->conf, c->rep, w, names, "");
}

bool compile_status(struct compile *c, const struct word *w, int min, int max, int *out)
{
        uint64_t v;

        if (w->text.n == 3 && str_u64(w->text, (uint64_t)max, &v) && v >= (uint64_t)min) {
                *out = (int)v;
                return true;
        }
        report_error(c->rep, &w->pos, "\"%.*s\" is not a status between %d and %d",
                     STR_ARG(w->text), min, max);
        return false;
}

static bool host_name_ok(str s)
{
        for (size_t i = 0; i < s.n; i++) {
                char ch = str_lower(s.p[i]);
                if (!((ch >= 'a' && ch <= 'z') || (ch >= '0' && ch <= '9') || ch == '-' ||
                      ch == '.' || ch == '_'))
                        return false;
        }
        return s.n > 0 && s.n <= 253 && s.p[0] != '.' && s.p[0] != '-';
}

/* All digits and dots: meant as an address. */
static bool looks_numeric(str s)
{
        for (size_t i = 0; i < s.n; i++) {
                if (s.p[i] != '.' && (s.p[i] < '0' || s.p[i] > '9'))
                        return false;
        }
        return true;
}

bool compile_address(struct compile *c, const struct word *w, uint16_t port, struct addr *addr,
                     str *host, uint16_t *out_port)
{
        str text = w->text, name = text, digits;
        uint64_t number = port;

        *addr = (struct addr){0};
        *host = STR_NONE;
        if (str_starts(text, STR("unix:"))) {
                str path = lex_path(c->a, c->conf->prefix, str_from(text, 5));
                str parts[] = {STR("unix:"), path};
                if (text.n > 5 && addr_parse(arena_cat(c->a, parts, 2), addr)) {
                        *host = path;
                        *out_port = 0;
                        return true;
                }
                report_error(c->rep, &w->pos, "\"%.*s\": the path is empty or too long",
                             STR_ARG(text));
                return false;
        }
        ptrdiff_t colon = str_rchr(text, ':'), bracket = str_rchr(text, ']');
        if (colon > bracket) {
                name = str_head(text, (size_t)colon);
                digits = str_from(text, (size_t)colon + 1);
                if (!str_u64(digits, 65535, &number) || number == 0) {
                        report_error(c->rep, &w->pos, "\"%.*s\" has no port between 1 and 65535",
                                     STR_ARG(text));
                        return false;
                }
        }
        str ip = name;
        if (str_starts(ip, STR("[")) && str_ends(ip, STR("]")))
                ip = str_of(ip.p + 1, ip.n - 2);
        *out_port = (uint16_t)number;
        *host = name;
        if (addr_parse_ip(ip, (uint16_t)number, addr))
                return true;
        if (host_name_ok(name) && !looks_numeric(name))
                return true;
        report_error(c->rep, &w->pos,
                     "\"%.*s\" is not an address (10.0.0.1:80, [::1]:80, name:80, unix:/path)",
                     STR_ARG(text));
        return false;
}

bool compile_unique(struct compile *c, const char *kind, str name, const struct conf_pos *at)
{
        str key = arena_printf(c->a, "%s %.*s", kind, STR_ARG(name));
        struct conf_pos *mine = arena_alloc(c->a, sizeof *mine), *first = map_get(c->names, key);

        if (!first) {
                *mine = *at;
                map_put(c->names, key, mine);
                return true;
        }
        report_error(c->rep, at, "%s %.*s exists already (%.*s:%u)", kind, STR_ARG(name),
                     STR_ARG(first->file), first->line);
        return false;
}

bool compile_block_name(struct compile *c, const struct word *w, const char *kind)
{
        if (value_name(w->text))
                return compile_unique(c, kind, w->text, &w->pos);
        report_error(c->rep, &w->pos,
                     "\"%.*s\" is not a name (letters, digits, \"_\", \"-\" and \".\")",
                     STR_ARG(w->text));
        return false;
}

/* A name that a module may set: believed now, checked when the functions are linked. */
static bool module_variable(void *ctx, str name)
{
        struct conf *c = ctx;

        for (size_t i = 0; i < c->n_modules; i++) {
                str module = c->modules[i].name;
                if (name.n > module.n + 1 && str_starts(name, module) && name.p[module.n] == '_') {
                        *VEC_ADD(c->arena, &c->link->variables) =
                                (struct module_variable){name, *c->link->at};
                        return true;
                }
        }
        return false;
}

const struct template_scope *compile_names(struct conf *c, const struct regex *re, bool response)
{
        struct template_scope *s = ARENA_NEW(c->arena, struct template_scope);

        *s = (struct template_scope){re, response, module_variable, c};
        return s;
}
