/*
 * What a module's test case expects, line by line.
 *
 * The difficulty is to say what there is in place of what was wanted, so that nobody has to guess.
 */
#include "proxy/cases_play.h"
#include "proxy/vars.h"

/* ------------------------------------------------------------------ expectations */

/* Of each kind: whether it holds, and what there is in its place. */
struct expectation {
        str word; /* what its line begins with; what follows is its text */
        bool (*holds)(struct play *p, str text);
        str (*is)(struct play *p, str text);
};

static bool has_field(const struct fields *fs, str text)
{
        str name, value;

        if (str_starts(text, STR("-")))
                return fields_find(fs, str_from(text, 1)) == NULL;
        str_cut(text, ':', &name, &value);
        FIELDS_EACH(f, fs)
        {
                if (str_ieq(f->name, name) && str_eq(f->value, str_trim(value)))
                        return true;
        }
        return false;
}

static str fields_are(struct play *p, const struct fields *fs, const char *which, str text)
{
        str name, value, all = STR_NONE;

        if (str_starts(text, STR("-")))
                text = str_from(text, 1);
        str_cut(text, ':', &name, &value);
        FIELDS_EACH(f, fs)
        {
                if (str_ieq(f->name, name))
                        all = arena_printf(p->a, "%.*s%s%s %.*s: %.*s", STR_ARG(all),
                                           all.p ? ", " : "", which, STR_ARG(f->name),
                                           STR_ARG(f->value));
        }
        return all.p ? all : arena_printf(p->a, "%s -%.*s", which, STR_ARG(name));
}

static bool has_req(struct play *p, str text)
{
        return has_field(&p->r->req.fields, text);
}

static str req_is(struct play *p, str text)
{
        return fields_are(p, &p->r->req.fields, "req", text);
}

static bool has_res(struct play *p, str text)
{
        return has_field(&p->r->res.fields, text);
}

static str res_is(struct play *p, str text)
{
        return fields_are(p, &p->r->res.fields, "res", text);
}

static bool has_line(struct buf *lines, str text)
{
        str rest = buf_pullup(lines, lines->n);

        while (rest.p != NULL)
                if (str_eq(cases_next_line(&rest), text))
                        return true;
        return false;
}

static str lines_are(struct play *p, struct buf *lines, const char *which, const char *none)
{
        str rest = buf_pullup(lines, lines->n), all = STR_NONE;

        while (rest.n != 0) {
                str line = cases_next_line(&rest);
                all = arena_printf(p->a, "%.*s%s%s %.*s", STR_ARG(all), all.p ? ", " : "", which,
                                   STR_ARG(line));
        }
        return all.p ? all : str_z(none);
}

static bool has_variable(struct play *p, str text)
{
        str name, value, is;

        str_cut(text, '=', &name, &value);
        is = vars_get_name(&p->txn, name);
        return is.p != NULL && str_eq(is, value);
}

static str variable_is(struct play *p, str text)
{
        str name, value, is;

        str_cut(text, '=', &name, &value);
        is = vars_get_name(&p->txn, name);
        return arena_printf(p->a, is.p ? "var %.*s=%.*s" : "no variable %.*s%.*s", STR_ARG(name),
                            STR_ARG(is));
}

static str body_of(struct buf *b)
{
        str body = buf_pullup(b, b->n);

        if (str_ends(body, STR("\n")))
                body.n--;
        return body;
}

static bool has_body(struct play *p, str text)
{
        return str_eq(body_of(&p->got), text);
}

static str body_is(struct play *p, str text)
{
        (void)text;
        return arena_printf(p->a, "body %.*s", STR_ARG(body_of(&p->got)));
}

static bool has_sent(struct play *p, str text)
{
        return str_eq(body_of(&p->sent), text);
}

static str sent_is(struct play *p, str text)
{
        (void)text;
        return arena_printf(p->a, "req body %.*s", STR_ARG(body_of(&p->sent)));
}

static bool has_command(struct play *p, str text)
{
        return has_line(&p->commands, text);
}

static str commands_are(struct play *p, str text)
{
        (void)text;
        return lines_are(p, &p->commands, "redis", "no command to Redis");
}

static bool has_asked(struct play *p, str text)
{
        return has_line(&p->asked, text);
}

static str asked_is(struct play *p, str text)
{
        (void)text;
        return lines_are(p, &p->asked, "http", "no request of its own");
}

static bool has_verdict(struct play *p, str text)
{
        return str_eq(p->verdict, text);
}

static str verdict_is(struct play *p, str text)
{
        (void)text;
        return p->verdict;
}

static const struct expectation expectation_kinds[] = {
        {STR_INIT("req body "), has_sent, sent_is},
        {STR_INIT("req "), has_req, req_is},
        {STR_INIT("res "), has_res, res_is},
        {STR_INIT("var "), has_variable, variable_is},
        {STR_INIT("body "), has_body, body_is},
        {STR_INIT("redis "), has_command, commands_are},
        {STR_INIT("http "), has_asked, asked_is},
        {STR_INIT(""), has_verdict, verdict_is}, /* the last: takes what is left */
};

static void check_line(struct play *p, str line)
{
        const struct expectation *e = expectation_kinds;
        str text;

        while (!str_starts(line, e->word))
                e++;
        text = str_from(line, e->word.n);
        if (cases_is_wrong(p) || e->holds(p, text))
                return;
        p->out->wanted = line;
        p->out->got = arena_dup(p->a, e->is(p, text));
        cases_failed(p, line.p, "wanted \"%.*s\", got \"%.*s\"%s%.*s%s", STR_ARG(line),
                     STR_ARG(p->out->got), e->word.n ? "; the verdict was \"" : "",
                     STR_ARG(e->word.n ? p->verdict : STR("")), e->word.n ? "\"" : "");
}

void cases_expect(struct play *p, str expect)
{
        while (expect.p != NULL) {
                str line = str_trim(cases_next_line(&expect));
                if (line.n != 0)
                        check_line(p, line);
        }
}
