/*
 * Cuts a file into words.
 *
 * The difficulty: what ${env:} and ${file:} hold must never become syntax, and yet a fault inside a
 * word must be shown where it stands in the file.  So a word is cut first, from the file's bytes
 * alone, and remembers of each run of its text where it came from; replacing comes after, run by
 * run, and marks its runs as raw.
 */
#include "conf/lex.h"

#include "base/check.h"

/* A new line begins at the cursor. */
static void lex_line(struct lex *l, uint32_t number)
{
        str line = str_from(l->text, l->i);
        ptrdiff_t end = str_chr(line, '\n');

        if (end >= 0)
                line.n = (size_t)end;
        if (line.n > 0 && line.p[line.n - 1] == '\r')
                line.n--;
        l->line = number;
        l->line_start = l->i;
        l->line_text = line;
}

void lex_init(struct lex *l, struct arena *a, struct source *src, struct report *rep, str prefix,
              str file, str text)
{
        *l = (struct lex){
                .a = a, .src = src, .rep = rep, .prefix = prefix, .file = file, .text = text};
        if (str_starts(text, STR("\xef\xbb\xbf"))) /* a byte order mark */
                l->i = 3;
        lex_line(l, 1);
}

static struct conf_pos lex_pos(const struct lex *l, size_t i)
{
        return (struct conf_pos){l->file, l->line, (uint32_t)(i - l->line_start + 1), l->line_text};
}

static bool lex_more(const struct lex *l)
{
        return l->i < l->text.n;
}

static char lex_at(const struct lex *l, size_t i)
{
        return i < l->text.n ? l->text.p[i] : '\0';
}

static void lex_step(struct lex *l)
{
        if (l->text.p[l->i++] == '\n')
                lex_line(l, l->line + 1);
}

static bool lex_is(const struct lex *l, size_t i, const char *word)
{
        return str_starts(str_from(l->text, MIN(i, l->text.n)), str_z(word));
}

/* ------------------------------------------------------------------ cutting */

static void cut_bytes(struct lex *l, struct cutting *c, const char *p, size_t n)
{
        if (c->n + n > c->cap) {
                size_t cap = MAX(c->cap * 2, c->n + n + 32);
                char *text = arena_alloc(l->a, cap);
                if (c->n)
                        memcpy(text, c->text, c->n);
                c->text = text;
                c->cap = cap;
        }
        if (n)
                memcpy(c->text + c->n, p, n);
        c->n += n;
}

static void cut_part(struct lex *l, struct cutting *c, struct conf_pos pos, bool raw)
{
        *VEC_ADD(l->a, &c->parts) = (struct word_part){(uint32_t)c->n, raw, pos};
}

static void cut_begin(struct cutting *c)
{
        c->n = c->parts.n = 0;
        c->joined = false;
}

/* What was cut as a word's text and parts.  Mostly the text is one piece of the file: then it is
 * not copied. */
static void cut_take(struct lex *l, struct cutting *c, struct word *w)
{
        if (c->parts.n == 0)
                cut_part(l, c, w->pos, false);
        const struct word_part *first = &c->parts.v[0];
        const char *at = first->pos.text.p + first->pos.col - 1;

        w->n_parts = (uint32_t)c->parts.n;
        struct word_part *parts = ARENA_ARRAY(l->a, struct word_part, w->n_parts);
        memcpy(parts, first, w->n_parts * sizeof *parts);
        w->parts = parts;
        if (c->n == 0)
                w->text = STR("");
        else if (w->n_parts == 1 && !first->raw && first->pos.col - 1 + c->n <= first->pos.text.n &&
                 memcmp(at, c->text, c->n) == 0)
                w->text = str_of(at, c->n);
        else
                w->text = arena_dup(l->a, str_of(c->text, c->n));
}

/* The byte under the cursor as it is. */
static void cut_here(struct lex *l)
{
        struct cutting *c = &l->cut;
        char ch = l->text.p[l->i];

        if (!c->joined)
                cut_part(l, c, lex_pos(l, l->i), false);
        cut_bytes(l, c, &ch, 1);
        c->joined = ch != '\n';
        lex_step(l);
}

/* "...": the cursor is on the opening quote.  false: it never ends. */
static bool cut_double(struct lex *l)
{
        struct cutting *c = &l->cut;

        lex_step(l);
        c->joined = false;
        while (lex_more(l)) {
                char ch = l->text.p[l->i];
                if (ch == '"') {
                        lex_step(l);
                        return true;
                }
                if (ch != '\\') {
                        cut_here(l);
                        continue;
                }
                char next = lex_at(l, l->i + 1);
                const char *known = next ? strchr("\"\\nrt", next) : NULL;
                struct conf_pos at = lex_pos(l, l->i);
                if (!known) {
                        report_error(l->rep, &at,
                                     "unknown escape in \"...\": only \\\" \\\\ \\n \\t \\r are "
                                     "known (a regex is best written in '...')");
                        cut_here(l);
                        continue;
                }
                cut_part(l, c, at, false);
                cut_bytes(l, c,
                          next == 'n'   ? "\n"
                          : next == 't' ? "\t"
                          : next == 'r' ? "\r"
                                        : &next,
                          1);
                lex_step(l);
                lex_step(l);
                c->joined = false;
        }
        return false;
}

static bool cut_single(struct lex *l)
{
        struct cutting *c = &l->cut;

        lex_step(l);
        c->joined = false;
        while (lex_more(l)) {
                if (l->text.p[l->i] == '\'') {
                        lex_step(l);
                        return true;
                }
                cut_here(l);
        }
        return false;
}

static bool is_space(char c)
{
        return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static bool ends_word(char c)
{
        return is_space(c) || c == ';' || c == '{' || c == '}';
}

/* "${" under the cursor: everything up to its brace belongs to the word. */
static void cut_braced(struct lex *l)
{
        struct conf_pos open = lex_pos(l, l->i);
        size_t end = l->i;

        while (end < l->text.n && l->text.p[end] != '}' && l->text.p[end] != '\n')
                end++;
        if (lex_at(l, end) != '}') {
                report_error(l->rep, &open, "\"${\" without its \"}\" on this line");
                while (lex_more(l) && !is_space(l->text.p[l->i]) && l->text.p[l->i] != ';')
                        cut_here(l);
                return;
        }
        while (l->i <= end)
                cut_here(l);
}

/* Whether what was cut so far is "name=", so that a value may follow in quotes. */
static bool cut_is_name(const struct cutting *c)
{
        if (c->n < 2 || c->text[c->n - 1] != '=')
                return false;
        for (size_t i = 0; i + 1 < c->n; i++) {
                char ch = c->text[i];
                if (!((ch >= 'a' && ch <= 'z') || ch == '_' || (i > 0 && ch >= '0' && ch <= '9')))
                        return false;
        }
        return true;
}

static bool heredoc_here(const struct lex *l)
{
        char c = lex_at(l, l->i + 2);

        return lex_is(l, l->i, "<<") &&
               ((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_');
}

static bool heredoc_tag_byte(char c)
{
        return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
               c == '_' || c == '-';
}

/* <<TAG under the cursor. */
static void cut_heredoc(struct lex *l)
{
        struct cutting *c = &l->cut;
        struct conf_pos open = lex_pos(l, l->i);
        size_t from = l->i + 2, to = from;

        while (to < l->text.n && heredoc_tag_byte(l->text.p[to]))
                to++;
        str tag = str_of(l->text.p + from, to - from);
        while (l->i < to)
                lex_step(l);
        while (lex_more(l) && l->text.p[l->i] != '\n') {
                if (!is_space(l->text.p[l->i])) {
                        struct conf_pos at = lex_pos(l, l->i);
                        report_error(l->rep, &at, "<<%.*s must be the last word on its line",
                                     STR_ARG(tag));
                        while (lex_more(l) && l->text.p[l->i] != '\n')
                                lex_step(l);
                        break;
                }
                lex_step(l);
        }
        if (lex_more(l))
                lex_step(l);
        c->joined = false;
        while (lex_more(l)) {
                str line = lex_pos(l, l->i).text;
                if (str_eq(line, tag)) {
                        while (lex_more(l) && l->text.p[l->i] != '\n')
                                lex_step(l);
                        return;
                }
                uint32_t here = l->line;
                while (lex_more(l) && l->line == here)
                        cut_here(l);
        }
        report_error(l->rep, &open, "<<%.*s never ends: no line holds only %.*s", STR_ARG(tag),
                     STR_ARG(tag));
}

/* ------------------------------------------------------------------ replacing */

str lex_path(struct arena *a, str prefix, str path)
{
        if (str_starts(path, STR("/")) || !prefix.p)
                return arena_dup(a, path);
        if (str_ends(prefix, STR("/")))
                prefix.n--;
        return arena_printf(a, "%.*s/%.*s", STR_ARG(prefix), STR_ARG(path));
}

/* inner: what stands between "${env:" and "}". */
static str replace_env(struct lex *l, str inner, const struct conf_pos *at)
{
        str name = inner, dflt = STR_NONE, value;
        ptrdiff_t i = str_find(inner, STR(":-"));

        if (i >= 0) {
                name = str_head(inner, (size_t)i);
                dflt = str_from(inner, (size_t)i + 2);
        }
        if (name.n == 0) {
                report_error(l->rep, at, "${env:} needs the name of a variable");
                return STR("");
        }
        if (l->src->env(l->src, name, &value) && (value.n > 0 || !dflt.p))
                return arena_dup(l->a, value);
        if (dflt.p)
                return dflt;
        report_error(l->rep, at,
                     "the environment has no variable %.*s (a default would be ${env:%.*s:-value})",
                     STR_ARG(name), STR_ARG(name));
        return STR("");
}

static str replace_file(struct lex *l, str inner, const struct conf_pos *at, str *file)
{
        str content, error = STR_NONE;

        if (inner.n == 0) {
                report_error(l->rep, at, "${file:} needs a path");
                return STR("");
        }
        *file = lex_path(l->a, l->prefix, inner);
        if (l->src->file(l->src, *file, l->a, &content, &error))
                return content;
        report_error(l->rep, at, "cannot read %.*s: %.*s", STR_ARG(*file), STR_ARG(error));
        return STR("");
}

/* Copies [from, to) of a cut word, with its places. */
static void replace_keep(struct lex *l, struct cutting *c, const struct word *w, size_t from,
                         size_t to)
{
        for (uint32_t i = 0; i < w->n_parts; i++) {
                size_t off = w->parts[i].off;
                size_t end = i + 1 < w->n_parts ? w->parts[i + 1].off : w->text.n;
                size_t begin = MAX(off, from), stop = MIN(end, to);
                if (begin >= stop)
                        continue;
                cut_part(l, c, word_pos(w, begin), false);
                cut_bytes(l, c, w->text.p + begin, stop - begin);
        }
}

static void replace(struct lex *l, struct word *w)
{
        struct cutting *c = &l->replaced;
        size_t kept = 0, i = 0;
        str file = STR_NONE, text = w->text;

        cut_begin(c);

        while (i + 1 < text.n) {
                bool env = str_starts(str_from(text, i), STR("${env:"));
                if (text.p[i] == '$' && text.p[i + 1] == '$') {
                        i += 2;
                        continue;
                }
                if (!env && !str_starts(str_from(text, i), STR("${file:"))) {
                        i++;
                        continue;
                }
                size_t from = i + (env ? 6 : 7);
                struct conf_pos at = word_pos(w, i);
                ptrdiff_t len = str_chr(str_from(text, from), '}');
                if (len < 0) {
                        report_error(l->rep, &at, "\"${\" without its \"}\"");
                        break;
                }
                str inner = str_of(text.p + from, (size_t)len);
                replace_keep(l, c, w, kept, i);
                cut_part(l, c, at, true);
                str value = env ? replace_env(l, inner, &at) : replace_file(l, inner, &at, &file);
                cut_bytes(l, c, value.p, value.n);
                if (!env && (i == 0 || i == w->value) && from + inner.n + 1 == text.n)
                        w->file = file;
                kept = i = from + inner.n + 1;
        }
        if (kept == 0)
                return;
        replace_keep(l, c, w, kept, text.n);
        cut_take(l, c, w);
}

/* ------------------------------------------------------------------ words */

/* A quote that never ends: the rest of its line is skipped, so that what follows is still read. */
static void unended(struct lex *l, const struct conf_pos *open)
{
        report_error(l->rep, open, "the quote is never closed");
        l->unended = true;
        l->i = (size_t)(open->text.p - l->text.p);
        lex_line(l, open->line);
        l->i += l->line_text.n;
        cut_begin(&l->cut);
}

static void bare(struct lex *l, struct word *w, bool *raw, bool *ended)
{
        struct cutting *c = &l->cut;

        while (lex_more(l)) {
                char ch = l->text.p[l->i];
                struct conf_pos at;
                if (ch == '$' && lex_at(l, l->i + 1) == '{') {
                        cut_braced(l);
                        continue;
                }
                if (ends_word(ch))
                        break;
                if ((ch == '"' || ch == '\'' || heredoc_here(l)) && cut_is_name(c)) {
                        at = lex_pos(l, l->i);
                        w->value = (uint32_t)c->n;
                        *raw = ch != '"';
                        w->heredoc = ch == '<';
                        if (w->heredoc)
                                cut_heredoc(l);
                        else if (!(ch == '"' ? cut_double(l) : cut_single(l))) {
                                unended(l, &at);
                                *ended = false;
                        }
                        return;
                }
                if (((unsigned char)ch < 0x20 || ch == 0x7f)) {
                        at = lex_pos(l, l->i);
                        report_error(l->rep, &at, "a control character (0x%02x)",
                                     (unsigned char)ch);
                        lex_step(l);
                        c->joined = false;
                        continue;
                }
                cut_here(l);
                if (!w->value && cut_is_name(c))
                        w->value = (uint32_t)c->n;
        }
}

static void lex_word(struct lex *l, struct word *w)
{
        struct cutting *c = &l->cut;
        char ch = l->text.p[l->i];
        bool raw = false, ended = true;

        cut_begin(c);
        *w = (struct word){.pos = l->pos, .quoted = ch == '"' || ch == '\'', .file = STR_NONE};
        if (ch == '"') {
                ended = cut_double(l);
        } else if (ch == '\'') {
                raw = true;
                ended = cut_single(l);
        } else if (heredoc_here(l)) {
                raw = w->quoted = w->heredoc = true;
                cut_heredoc(l);
        } else {
                bare(l, w, &raw, &ended);
        }
        if (!ended) {
                if (c->n || w->quoted)
                        unended(l, &w->pos);
                w->heredoc = w->broken = true; /* nothing more is expected of this directive */
        } else if (!w->heredoc && lex_more(l) && !ends_word(l->text.p[l->i])) {
                struct conf_pos at = lex_pos(l, l->i);
                report_error(l->rep, &at, "a space or \";\" is missing behind the quote");
        }
        cut_take(l, c, w);
        w->end_col = (uint32_t)(l->i - l->line_start + 1);
        if (w->value > w->text.n)
                w->value = 0;
        if (!raw && str_find(w->text, STR("${")) >= 0)
                replace(l, w);
}

enum token lex_next(struct lex *l, struct word *w)
{
        while (lex_more(l)) {
                char c = l->text.p[l->i];
                if (c == '#') {
                        while (lex_more(l) && l->text.p[l->i] != '\n')
                                lex_step(l);
                } else if (is_space(c)) {
                        lex_step(l);
                } else if (((unsigned char)c < 0x20 || c == 0x7f)) {
                        struct conf_pos at = lex_pos(l, l->i);
                        report_error(l->rep, &at, "a control character (0x%02x)", (unsigned char)c);
                        lex_step(l);
                } else {
                        break;
                }
        }
        l->pos = lex_pos(l, l->i);
        if (!lex_more(l))
                return TOKEN_END;
        switch (l->text.p[l->i]) {
        case ';':
                lex_step(l);
                return TOKEN_SEMICOLON;
        case '{':
                lex_step(l);
                return TOKEN_OPEN;
        case '}':
                lex_step(l);
                return TOKEN_CLOSE;
        default:
                lex_word(l, w);
                return TOKEN_WORD;
        }
}

/* ------------------------------------------------------------------ places */

static const struct word_part *part_of(const struct word *w, size_t off)
{
        uint32_t low = 0, high = w->n_parts; /* parts[low].off <= off < parts[high].off */

        CHECK(high > 0);
        while (high - low > 1) {
                uint32_t middle = low + (high - low) / 2;
                if (w->parts[middle].off <= off)
                        low = middle;
                else
                        high = middle;
        }
        return &w->parts[low];
}

struct conf_pos word_pos(const struct word *w, size_t off)
{
        const struct word_part *part = part_of(w, off);
        struct conf_pos pos = part->pos;

        if (!part->raw && off > part->off)
                pos.col += (uint32_t)(off - part->off);
        return pos;
}

struct word word_slice(struct arena *a, const struct word *w, size_t off, size_t len)
{
        struct word s = {.text = str_of(w->text.p + off, len),
                         .pos = word_pos(w, off),
                         .quoted = true,
                         .file = off == w->value && len == w->text.n - off ? w->file : STR_NONE};
        const struct word_part *from = part_of(w, off), *last = part_of(w, off + len - (len > 0));
        size_t n = (size_t)(last - from) + 1;
        struct word_part *parts = ARENA_ARRAY(a, struct word_part, n);

        for (size_t i = 0; i < n; i++) {
                size_t begin = MAX(from[i].off, off);
                parts[i] = (struct word_part){(uint32_t)(begin - off), from[i].raw,
                                              word_pos(w, begin)};
        }
        s.parts = parts;
        s.n_parts = (uint32_t)n;
        s.end_col = s.pos.col + (uint32_t)len;
        return s;
}

struct word word_value(struct arena *a, const struct word *w)
{
        struct word v = word_slice(a, w, w->value, w->text.n - w->value);

        v.heredoc = w->heredoc;
        return v;
}

str word_template(struct arena *a, const struct word *w, size_t off, const uint32_t **map)
{
        size_t n = w->text.n - off, extra = 0, out = 0;

        for (size_t i = off; i < w->text.n; i++)
                extra += w->text.p[i] == '$' && part_of(w, i)->raw;
        if (extra == 0 && !map)
                return str_from(w->text, off);
        char *text = arena_alloc(a, n + extra + 1);
        uint32_t *offsets = ARENA_ARRAY(a, uint32_t, n + extra + 1);
        for (size_t i = off; i < w->text.n; i++) {
                if (extra && w->text.p[i] == '$' && part_of(w, i)->raw) {
                        offsets[out] = (uint32_t)i;
                        text[out++] = '$';
                }
                offsets[out] = (uint32_t)i;
                text[out++] = w->text.p[i];
        }
        offsets[out] = (uint32_t)w->text.n;
        if (map)
                *map = offsets;
        return str_of(text, out);
}
