/*
 * Tokens of a configuration file: words with their places, `;`, `{` and `}`.
 */
#ifndef CONF_LEX_H
#define CONF_LEX_H

#include "conf/report.h"
#include "conf/source.h"

enum token { TOKEN_END, TOKEN_WORD, TOKEN_SEMICOLON, TOKEN_OPEN, TOKEN_CLOSE };

/* A run of a word's text that stands in one piece in the file.  Of a raw one, which came from
 * ${env:} or
 * ${file:}, every byte has the same place. */
struct word_part {
        uint32_t off; /* of its first byte in the word's text */
        bool raw;     /* a template sees no variables in it */
        struct conf_pos pos;
};

/* Immutable, in the configuration's arena. */
struct word {
        str text;            /* without quotes and escapes, replacements made */
        struct conf_pos pos; /* of its first character, the quote included */
        uint32_t end_col;    /* behind its last character */
        const struct word_part *parts;
        uint32_t n_parts; /* at least one */
        uint32_t value;   /* offset of what follows "name=", when it begins so, unquoted; else 0 */
        bool quoted;      /* begins with a quote, or is a <<TAG block: never name=value */
        bool heredoc;     /* ends its directive */
        bool broken;      /* its quote never ends: the directive is not worth reading */
        str file;         /* the whole text (or value) is this file's content; else absent */
};

/* A word that grows.  Its memory is used again for the next one: words take exact copies. */
struct cutting {
        char *text;
        size_t n, cap;
        VEC(struct word_part) parts;
        bool joined; /* the next byte continues the last part */
};

/* One file being cut.  All mistakes go to rep; after one the lexer goes on at a sensible place. */
struct lex {
        struct arena *a;
        struct source *src;
        struct report *rep;
        str prefix; /* for relative paths in ${file:} */
        str file, text;
        size_t i; /* next byte */
        uint32_t line;
        size_t line_start;
        bool unended;        /* a quote never ended; it may have hidden what closes a block */
        str line_text;       /* without its end */
        struct conf_pos pos; /* of the last token */
        struct cutting cut, replaced;
};

/* a must outlive every word; text and file must live as long. */
void lex_init(struct lex *l, struct arena *a, struct source *src, struct report *rep, str prefix,
              str file, str text);
enum token lex_next(struct lex *l, struct word *w);

/* Place of the byte at off in the word's text. */
struct conf_pos word_pos(const struct word *w, size_t off);
/* The part of w from off on as a word of its own, with right places; len at most w->text.n - off.
 */
struct word word_slice(struct arena *a, const struct word *w, size_t off, size_t len);
/* What follows "name=" in a word that has a value. */
struct word word_value(struct arena *a, const struct word *w);
/* The text from off on as a template's: dollar signs that came from ${env:} or ${file:} are
 * doubled. map, when not NULL, gets for each of its bytes the offset in w->text. */
str word_template(struct arena *a, const struct word *w, size_t off, const uint32_t **map);

/* path against prefix, absolute. */
str lex_path(struct arena *a, str prefix, str path);

#endif
