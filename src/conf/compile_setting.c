/*
 * Settings, and the two of them that are more than a word: access_log and error_page.
 */
#include "conf/compile.h"

void compile_settings(struct compile *c, struct scope *s, const struct args *a)
{
        if (a->n == 1) { /* retry off */
                if (s->own->set & (UINT64_C(1) << SET_RETRY_ATTEMPTS)) {
                        report_error(c->rep, &a->word[0]->pos, "attempts is given twice");
                        return;
                }
                s->own->set |= UINT64_C(1) << SET_RETRY_ATTEMPTS;
                s->own->retry_attempts = 1;
                return;
        }
        compile_keys(c, s, a, NULL);
}

void compile_access_log(struct compile *c, struct scope *s, const struct args *a)
{
        const struct word *w = a->word[0], *format = compile_key(a, "format");
        struct access_log_conf *log;

        s->own->set |= UINT64_C(1) << SET_ACCESS_LOG;
        if (compile_is(w, "off")) {
                if (format)
                        report_error(c->rep, &format->pos, "access_log off takes no parameters");
                return;
        }
        log = ARENA_NEW(c->a, struct access_log_conf);
        log->path = compile_is(w, "stdout") ? w->text : lex_path(c->a, c->conf->prefix, w->text);
        log->format_name = format ? format->text : STR("combined");
        *VEC_ADD(c->a, &c->logs) = (struct log_use){log, format ? format->pos : w->pos};
        s->own->access_log = log;
}

void compile_log_format(struct compile *c, struct scope *s, const struct args *a)
{
        (void)s;
        str name = a->word[0]->text;
        const struct template *t = compile_template(c, a->word[1], c->names_log);

        if (!compile_block_name(c, a->word[0], "log_format"))
                return;
        if (str_eq(name, STR("combined")) || str_eq(name, STR("json"))) {
                report_error(c->rep, &a->word[0]->pos, "log_format %.*s is built in",
                             STR_ARG(name));
                return;
        }
        if (t)
                *VEC_ADD(c->a, &c->formats) = (struct format_conf){name, t};
}

/* Made of a file's name. */
static str content_type(str file)
{
        static const struct {
                const char *end, *type;
        } types[] = {{".html", "text/html"},
                     {".htm", "text/html"},
                     {".json", "application/json"},
                     {".xml", "application/xml"}};

        for (size_t i = 0; i < COUNT(types); i++) {
                if (str_ends(file, str_z(types[i].end)))
                        return str_z(types[i].type);
        }
        return STR("text/plain");
}

static void add_page(struct compile *c, struct settings *own, struct error_page page)
{
        struct error_page *v = ARENA_ARRAY(c->a, struct error_page, own->n_error_pages + 1);

        if (own->n_error_pages)
                memcpy(v, own->error_pages, own->n_error_pages * sizeof *v);
        v[own->n_error_pages] = page;
        own->error_pages = v;
        own->n_error_pages++;
}

void compile_error_page(struct compile *c, struct scope *s, const struct args *a)
{
        const struct word *file = compile_key(a, "file"), *text = compile_key(a, "text");
        struct file_text body = {STR_NONE, text ? text->text : STR("")};
        int status;

        if (!file == !text) {
                report_error(c->rep, &a->node->end, "error_page needs file=FILE or text=TEXT");
                return;
        }
        if (file && !compile_file(c, file, &body))
                return;
        s->own->set |= UINT64_C(1) << SET_ERROR_PAGES;
        for (size_t i = 0; i < a->n; i++) {
                if (!compile_status(c, a->word[i], 400, 599, &status))
                        continue;
                for (size_t k = 0; k < s->own->n_error_pages; k++) {
                        if (s->own->error_pages[k].status == status)
                                report_error(c->rep, &a->word[i]->pos,
                                             "error_page %d is given twice", status);
                }
                add_page(c, s->own,
                         (struct error_page){(uint16_t)status, body.text, content_type(body.file),
                                             body.file});
        }
}
