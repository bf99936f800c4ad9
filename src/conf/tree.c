/*
 * Puts words into blocks, and the files that `include` names into their places.
 *
 * The difficulty is to go on after a mistake: each directive ends somewhere, so a missing `;` or
 * brace is said once and the next directive is read as if nothing had happened.
 */
#include "conf/tree.h"

#define DEPTH_MAX   32   /* blocks within blocks */
#define INCLUDE_MAX 16   /* files within files */
#define FILES_MAX   4096 /* of one configuration */

struct parse {
        struct lex lex;
        const struct parse *outer; /* the file that includes this one */
        unsigned depth;            /* how many there are around it */
        unsigned *files;           /* read so far, all in all */
        VEC(struct word) words;    /* of the directive being read, until it takes a copy */
};

typedef VEC(struct tree *) children_vec;

static void parse_block(struct parse *p, children_vec *out, unsigned depth,
                        const struct conf_pos *open);

static void parse_file(struct parse *outer, children_vec *out, unsigned depth, str path, str text)
{
        struct parse p = {.outer = outer, .depth = outer->depth + 1, .files = outer->files};
        struct lex *l = &outer->lex;

        lex_init(&p.lex, l->a, l->src, l->rep, l->prefix, path, text);
        parse_block(&p, out, depth, NULL);
}

static bool is_pattern(str s)
{
        return str_chr(s, '*') >= 0 || str_chr(s, '?') >= 0 || str_chr(s, '[') >= 0;
}

/* Not a file that is being read, and not without end. */
static bool may_read(const struct parse *p, const struct conf_pos *at, str path)
{
        struct report *rep = p->lex.rep;

        if (++*p->files > FILES_MAX) {
                if (*p->files == FILES_MAX + 1)
                        report_error(rep, at, "more than %d files are included", FILES_MAX);
                return false;
        }
        for (; p; p = p->outer) {
                if (str_eq(p->lex.file, path)) {
                        report_error(rep, at, "%.*s includes itself", STR_ARG(path));
                        return false;
                }
        }
        return true;
}

static void include(struct parse *p, children_vec *out, unsigned depth, const struct tree *t)
{
        struct lex *l = &p->lex;
        str *paths, one, text, error = STR_NONE;
        size_t n = 1;

        if (t->n_words != 2 || t->has_block) {
                report_error(l->rep, &t->words[0].pos,
                             "include takes one file or pattern: include \"conf.d/*.conf\";");
                return;
        }
        const struct conf_pos *at = &t->words[1].pos;
        if (p->depth >= INCLUDE_MAX) {
                report_error(l->rep, at, "more than %d files within each other", INCLUDE_MAX);
                return;
        }
        one = lex_path(l->a, l->prefix, t->words[1].text);
        paths = &one;
        if (is_pattern(one) && !l->src->glob(l->src, one, l->a, &paths, &n)) {
                report_error(l->rep, at, "cannot look for %.*s", STR_ARG(one));
                return;
        }
        for (size_t i = 0; i < n; i++) {
                if (!may_read(p, at, paths[i]))
                        return;
                if (l->src->file(l->src, paths[i], l->a, &text, &error))
                        parse_file(p, out, depth, paths[i], text);
                else
                        report_error(l->rep, at, "cannot read %.*s: %.*s", STR_ARG(paths[i]),
                                     STR_ARG(error));
        }
}

/* Behind the directive's last word. */
static struct conf_pos end_of(const struct word *w)
{
        struct conf_pos at = word_pos(w, w->text.n);

        if (w->parts[w->n_parts - 1].pos.line == w->pos.line)
                at.col = w->end_col;
        return at;
}

/* The rest of a directive whose first word was read.  Returns the token that came in place of its
 * end. */
static enum token parse_directive(struct parse *p, children_vec *out, struct word first,
                                  unsigned depth)
{
        struct lex *l = &p->lex;
        struct tree *t = ARENA_NEW(l->a, struct tree);
        children_vec children = {0};
        struct word w = first;
        enum token tok = TOKEN_WORD;
        bool heredoc = false, broken = false;

        p->words.n = 0;
        while (tok == TOKEN_WORD && !heredoc) {
                *VEC_ADD(l->a, &p->words) = w;
                heredoc = w.heredoc;
                broken = broken || w.broken;
                if (!heredoc)
                        tok = lex_next(l, &w);
        }
        t->n_words = p->words.n;
        t->words = arena_alloc(l->a, t->n_words * sizeof *t->words);
        memcpy(t->words, p->words.v, t->n_words * sizeof *t->words);
        t->end = end_of(&t->words[t->n_words - 1]);
        if (tok == TOKEN_OPEN) {
                struct conf_pos open = l->pos;
                t->has_block = true;
                parse_block(p, &children, depth + 1, &open);
                t->child = children.v;
                t->n_children = children.n;
        } else if (tok == TOKEN_CLOSE || tok == TOKEN_END) {
                report_error(l->rep, &t->end, "\";\" is missing here");
        }
        t->broken = broken;
        if (str_eq(first.text, STR("include")) && !first.quoted && !broken)
                include(p, out, depth, t);
        else
                *VEC_ADD(l->a, out) = t;
        return tok;
}

static void parse_block(struct parse *p, children_vec *out, unsigned depth,
                        const struct conf_pos *open)
{
        struct lex *l = &p->lex;

        if (depth > DEPTH_MAX) {
                report_error(l->rep, open, "more than %d blocks within each other", DEPTH_MAX);
                l->i = l->text.n; /* nothing sensible can follow */
                return;
        }
        for (;;) {
                struct word w;
                enum token tok = lex_next(l, &w);
                struct conf_pos at = l->pos;
                if (tok == TOKEN_WORD)
                        tok = parse_directive(p, out, w, depth);
                else if (tok == TOKEN_SEMICOLON)
                        report_error(l->rep, &at, "nothing stands before this \";\"");
                else if (tok == TOKEN_OPEN) {
                        children_vec nowhere = {0};
                        report_error(l->rep, &at, "a block needs a name before its \"{\"");
                        parse_block(p, &nowhere, depth + 1, &at);
                        continue;
                }
                if (tok == TOKEN_CLOSE) {
                        if (open)
                                return;
                        report_error(l->rep, &l->pos, "\"}\" without its \"{\"");
                } else if (tok == TOKEN_END) {
                        if (open && depth <= DEPTH_MAX && !l->unended)
                                report_error(l->rep, open, "\"{\" without its \"}\"");
                        return;
                }
        }
}

struct tree *tree_read(struct source *src, struct arena *a, struct report *rep, str path,
                       str prefix)
{
        unsigned files = 0;
        struct parse p = {.files = &files};
        children_vec children = {0};
        str text, error = STR_NONE;
        struct tree *root = ARENA_NEW(a, struct tree);

        if (!src->file(src, path, a, &text, &error)) {
                report_error(rep, NULL, "cannot read %.*s: %.*s", STR_ARG(path), STR_ARG(error));
                return NULL;
        }
        lex_init(&p.lex, a, src, rep, prefix, path, text);
        parse_block(&p, &children, 0, NULL);
        root->has_block = true;
        root->child = children.v;
        root->n_children = children.n;
        return root;
}

bool tree_has(const struct tree *t, const char *name)
{
        for (size_t i = 0; i < t->n_children; i++) {
                if (str_eq(tree_name(t->child[i]), str_z(name)))
                        return true;
        }
        return false;
}
