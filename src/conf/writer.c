/*
 * Text of the configuration's language (writer.h).
 *
 * The difficulty: it must read back to the same, whatever words hold.  So every word passes through
 * one function that quotes it, and a word that only looks like name=value is quoted too.
 */
#include "conf/writer.h"

#include "conf/compile.h"
#include "conf/value.h"

/* ------------------------------------------------------------------ words */

static bool bare_byte(char c)
{
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               (c && strchr("_./:*@,+-%$^|~!?&>[]()", c));
}

static bool is_bare(str s)
{
        for (size_t i = 0; i < s.n; i++) {
                if (!bare_byte(s.p[i]))
                        return false;
        }
        return s.n > 0;
}

void writer_text(struct writer *d, str s)
{
        bool dollar = str_find(s, STR("${env:")) >= 0 || str_find(s, STR("${file:")) >= 0;

        if (is_bare(s)) {
                buf_puts(d->out, s);
                return;
        }
        if (dollar && str_chr(s, '\'') < 0) {
                buf_printf(d->out, "'");
                buf_puts(d->out, s);
                buf_printf(d->out, "'");
                return;
        }
        buf_printf(d->out, "\"");
        for (size_t i = 0; i < s.n; i++) {
                char c = s.p[i];
                if (c == '"' || c == '\\')
                        buf_put(d->out, "\\", 1);
                if (c == '\n')
                        buf_puts(d->out, STR("\\n"));
                else if (c == '\r')
                        buf_puts(d->out, STR("\\r"));
                else
                        buf_put(d->out, &c, 1);
        }
        buf_printf(d->out, "\"");
}

void writer_word(struct writer *d, str s)
{
        buf_puts(d->out, STR(" "));
        writer_text(d, s);
}

void writer_pair(struct writer *d, const char *key, str s)
{
        buf_printf(d->out, " %s=", key);
        writer_text(d, s);
}

void writer_begin(struct writer *d, const char *name)
{
        buf_printf(d->out, "%*s%s", (int)d->depth * 4, "", name);
}

void writer_end(struct writer *d)
{
        buf_puts(d->out, STR(";\n"));
}

void writer_open(struct writer *d)
{
        buf_puts(d->out, STR(" {\n"));
        d->depth++;
}

void writer_close(struct writer *d)
{
        d->depth--;
        buf_printf(d->out, "%*s}\n", (int)d->depth * 4, "");
}

void writer_line(struct writer *d, const char *name, str word)
{
        writer_begin(d, name);
        writer_word(d, word);
        writer_end(d);
}

void writer_words(struct writer *d, const char *name, const str *v, size_t n)
{
        if (n == 0)
                return;
        writer_begin(d, name);
        for (size_t i = 0; i < n; i++)
                writer_word(d, v[i]);
        writer_end(d);
}

/* ------------------------------------------------------------------ values of the table */

static uint64_t integer_of(const struct value_row *row, const void *p)
{
        uint32_t small;
        uint64_t v;

        if (row->size == sizeof small) {
                memcpy(&small, p, sizeof small);
                return small;
        }
        memcpy(&v, p, sizeof v);
        return v;
}

static void put_causes(struct writer *d, uint32_t bits)
{
        const char *comma = "";

        for (size_t i = 0; i < COMPILE_CAUSES; i++) {
                if (!(bits & (1u << i)))
                        continue;
                buf_printf(d->out, "%s%s", comma, compile_causes[i]);
                comma = ",";
        }
}

static void put_value(struct writer *d, const struct value_row *row, const void *base)
{
        const char *p = (const char *)base + row->offset;
        char text[VALUE_TEXT];
        uint64_t v;

        switch (row->type) {
        case TYPE_TIME:
        case TYPE_SIZE:
        case TYPE_COUNT:
                v = integer_of(row, p);
                if (v == 0 && (row->flags & (OFF | AUTO)))
                        writer_text(d, (row->flags & AUTO) ? STR("auto") : STR("off"));
                else if (row->type == TYPE_TIME)
                        writer_text(d, value_time_text((int64_t)v, text));
                else if (row->type == TYPE_SIZE)
                        writer_text(d, value_size_text(v, text));
                else
                        writer_text(d, str_of(text, str_put_u64(text, v)));
                break;
        case TYPE_BOOL:
                writer_text(d, *(const bool *)p ? STR("on") : STR("off"));
                break;
        case TYPE_SHARE:
                buf_printf(d->out, "%.10g%%", *(const double *)(const void *)p * 100);
                break;
        case TYPE_WORD:
        case TYPE_PATH:
                writer_text(d, (row->flags & SECRET) ? WRITER_MASK : *(const str *)(const void *)p);
                break;
        case TYPE_FILE:
                writer_text(d, ((const struct file_text *)(const void *)p)->file);
                break;
        case TYPE_CAUSES:
                put_causes(d, *(const uint32_t *)(const void *)p);
                break;
        case TYPE_NONE:
                break;
        }
}

/* A string that was not given. */
static bool is_absent(const struct value_row *row, const void *base)
{
        const char *p = (const char *)base + row->offset;

        if (row->type == TYPE_FILE)
                return !((const struct file_text *)(const void *)p)->file.p;
        return (row->type == TYPE_WORD || row->type == TYPE_PATH) &&
               !((const str *)(const void *)p)->p;
}

void writer_values(struct writer *d, unsigned context, const void *object)
{
        for (size_t i = 0; i < directives_n; i++) {
                const struct directive *row = &directives[i];
                if (!(row->contexts & context) || row->value.size == 0 || row->value.bit >= 0 ||
                    is_absent(&row->value, object))
                        continue;
                writer_begin(d, row->name);
                buf_puts(d->out, STR(" "));
                put_value(d, &row->value, object);
                writer_end(d);
        }
}

/* The keys of a directive that have a place in object. */
void writer_keys(struct writer *d, unsigned context, const char *directive, const void *object)
{
        for (size_t i = 0; i < directive_keys_n; i++) {
                const struct directive_key *k = &directive_keys[i];
                if (!(k->contexts & context) || strcmp(k->directive, directive) != 0 ||
                    k->value.size == 0 || k->value.bit >= 0 || is_absent(&k->value, object))
                        continue;
                buf_printf(d->out, " %s=", k->name);
                put_value(d, &k->value, object);
        }
}

/* ------------------------------------------------------------------ settings */

static void put_setting_keys(struct writer *d, unsigned context, const struct directive *row,
                             const struct settings *s)
{
        bool any = false;

        for (size_t i = 0; i < directive_keys_n; i++) {
                const struct directive_key *k = &directive_keys[i];
                if (k->value.bit < 0 || !(k->contexts & context) ||
                    strcmp(k->directive, row->name) != 0 ||
                    !(s->set & (UINT64_C(1) << k->value.bit)))
                        continue;
                if (!any)
                        writer_begin(d, row->name);
                any = true;
                buf_printf(d->out, " %s=", k->name);
                put_value(d, &k->value, s);
        }
        if (any)
                writer_end(d);
}

static void put_pages(struct writer *d, const struct settings *s)
{
        for (size_t i = 0; i < s->n_error_pages; i++) {
                const struct error_page *p = &s->error_pages[i];
                writer_begin(d, "error_page");
                buf_printf(d->out, " %u", p->status);
                writer_pair(d, p->file.p ? "file" : "text", p->file.p ? p->file : p->body);
                writer_end(d);
        }
}

void writer_settings(struct writer *d, unsigned context, const struct settings *s)
{
        for (size_t i = 0; i < directives_n; i++) {
                const struct directive *row = &directives[i];
                if (!(row->contexts & context))
                        continue;
                if (row->value.bit < 0) {
                        put_setting_keys(d, context, row, s);
                } else if (s->set & (UINT64_C(1) << row->value.bit)) {
                        writer_begin(d, row->name);
                        buf_puts(d->out, STR(" "));
                        put_value(d, &row->value, s);
                        writer_end(d);
                }
        }
        if (s->set & (UINT64_C(1) << SET_ACCESS_LOG)) {
                writer_begin(d, "access_log");
                writer_word(d, s->access_log ? s->access_log->path : STR("off"));
                if (s->access_log)
                        writer_pair(d, "format", s->access_log->format_name);
                writer_end(d);
        }
        put_pages(d, s);
}
