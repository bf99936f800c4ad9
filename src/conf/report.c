/*
 * Prints mistakes.
 *
 * The difficulty is the caret: it must stand under the fault whatever the line holds, so tabs are
 * repeated as tabs, the later bytes of a UTF-8 character take no column, and of a very long line
 * only the surroundings of the fault are shown.
 */
#include "conf/report.h"

#include <stdio.h>
#include <stdlib.h>

#define LINE_SHOWN 160 /* bytes of a line that are printed */

/* Where a message begins in the text, and what it is about. */
struct report_mark {
        size_t off, serial;
        size_t file; /* order of the file's first message */
        struct conf_pos pos;
};

static void mark(struct report *r, const struct conf_pos *at)
{
        struct report_mark m = {.off = r->out.n, .serial = r->n_marks, .file = r->n_marks};

        if (!r->a)
                return;
        if (at)
                m.pos = *at;
        for (size_t i = r->n_marks; i-- > 0;) { /* mostly it is the last one's */
                if (str_eq(r->marks[i].pos.file, m.pos.file)) {
                        m.file = r->marks[i].file;
                        break;
                }
        }
        if (r->n_marks == r->cap_marks)
                r->marks = arena_grow_(r->a, r->marks, r->n_marks, &r->cap_marks, sizeof m);
        r->marks[r->n_marks++] = m;
}

static int mark_order(const void *a, const void *b)
{
        const struct report_mark *x = a, *y = b;

        if (x->file != y->file)
                return x->file < y->file ? -1 : 1;
        if (x->pos.line != y->pos.line)
                return x->pos.line < y->pos.line ? -1 : 1;
        if (x->pos.col != y->pos.col)
                return x->pos.col < y->pos.col ? -1 : 1;
        return x->serial < y->serial ? -1 : 1;
}

void report_merge(struct report *r, struct report *from)
{
        str text = buf_pullup(&from->out, from->out.n);
        size_t *end = ARENA_ARRAY(from->a, size_t, from->n_marks + 1);

        for (size_t i = 0; i < from->n_marks; i++)
                end[i] = i + 1 < from->n_marks ? from->marks[i + 1].off : text.n;
        if (from->n_marks)
                qsort(from->marks, from->n_marks, sizeof *from->marks, mark_order);
        for (size_t i = 0; i < from->n_marks; i++) {
                const struct report_mark *m = &from->marks[i];
                buf_put(&r->out, text.p + m->off, end[m->serial] - m->off);
        }
        r->errors += from->errors;
        r->warnings += from->warnings;
        buf_clear(&from->out);
}

static bool continues_character(char c)
{
        return ((unsigned char)c & 0xc0) == 0x80;
}

/* What would spoil the caret, or the terminal. */
static bool moves_cursor(char c)
{
        return (c >= 0x08 && c <= 0x0d && c != '\t') || c == 0x1b || c == 0x7f || c == 0;
}

static void put_line(struct buf *out, const struct conf_pos *at)
{
        size_t col = at->col > 0 ? at->col - 1 : 0, from = 0, end = at->text.n;

        if (!at->text.p)
                return;
        if (col > end)
                col = end;
        if (end > LINE_SHOWN) {
                from = col > LINE_SHOWN / 2 ? col - LINE_SHOWN / 2 : 0;
                end = MIN(at->text.n, from + LINE_SHOWN);
        }
        buf_puts(out, STR("    "));
        for (size_t i = from; i < end; i++) {
                char c = at->text.p[i];
                if (moves_cursor(c))
                        c = '?';
                buf_put(out, &c, 1);
        }
        buf_puts(out, STR("\n    "));
        for (size_t i = from; i < col; i++) {
                if (!continues_character(at->text.p[i]))
                        buf_put(out, at->text.p[i] == '\t' ? "\t" : " ", 1);
        }
        buf_puts(out, STR("^\n"));
}

static void put_message(struct report *r, const struct conf_pos *at, const char *kind, str nearest,
                        const char *fmt, va_list ap)
{
        char *text = NULL;

        mark(r, at);
        if (vasprintf(&text, fmt, ap) < 0)
                abort();
        if (at && at->file.p)
                buf_printf(&r->out, "%.*s:%u:%u: ", STR_ARG(at->file), at->line, at->col);
        buf_puts(&r->out, str_z(kind));
        for (const char *p = text; *p; p++) {
                char c = ((unsigned char)*p < 0x20 || *p == 0x7f) ? '?' : *p;
                buf_put(&r->out, &c, 1);
        }
        free(text);
        if (nearest.p)
                buf_printf(&r->out, " (did you mean \"%.*s\"?)", STR_ARG(nearest));
        buf_puts(&r->out, STR("\n"));
        if (at && at->file.p)
                put_line(&r->out, at);
}

void report_error(struct report *r, const struct conf_pos *at, const char *fmt, ...)
{
        va_list ap;

        r->errors++;
        va_start(ap, fmt);
        put_message(r, at, "", STR_NONE, fmt, ap);
        va_end(ap);
}

void report_warning(struct report *r, const struct conf_pos *at, const char *fmt, ...)
{
        va_list ap;

        r->warnings++;
        va_start(ap, fmt);
        put_message(r, at, "warning: ", STR_NONE, fmt, ap);
        va_end(ap);
}

/* Two neighbours changed places: one slip, though two changes. */
static bool swapped(str a, str b)
{
        size_t i = 0;

        while (a.n == b.n && i < a.n && a.p[i] == b.p[i])
                i++;
        return a.n == b.n && i + 1 < a.n && a.p[i] == b.p[i + 1] && a.p[i + 1] == b.p[i] &&
               str_eq(str_from(a, i + 2), str_from(b, i + 2));
}

str report_nearest(str word, const str *names, size_t n)
{
        unsigned best = word.n < 4 ? 1 : word.n < 8 ? 2 : 3;
        str found = STR_NONE;

        if (word.n == 0 || word.n > 64)
                return found;
        for (size_t i = 0; i < n; i++) {
                unsigned d = swapped(word, names[i]) ? 1 : str_distance(word, names[i], best);
                if (d < best || (d == best && !found.p)) {
                        best = d;
                        found = names[i];
                }
        }
        return found;
}

void report_unknown(struct report *r, const struct conf_pos *at, str word, const str *names,
                    size_t n, const char *fmt, ...)
{
        va_list ap;

        r->errors++;
        va_start(ap, fmt);
        put_message(r, at, "", report_nearest(word, names, n), fmt, ap);
        va_end(ap);
}
