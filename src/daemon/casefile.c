/*
 * Reads test cases.
 *
 * The difficulty: a case is handed on as the texts that a module would have written itself
 * (weir_case), with "--" between the parts of several exchanges, and yet every mistake in it must
 * be told with the line of the file.  So with each line of a text goes the number it had.
 */
#include "daemon/casefile.h"

#include "base/check.h"

#include <stddef.h>

#define CASES_MAX 10000

enum section_kind {
        SECTION_ONCE,  /* at most one in a case */
        SECTION_LINES, /* another one goes on where the last one ended */
        SECTION_PARTS  /* several, joined by "--": one for each request, or one for each answer */
};

/* Each text of weir_case: what a section of that name becomes.  Another one is a line more. */
static const struct section {
        str word;
        enum section_kind kind;
        bool raw; /* lines that begin with # are no comments, and the blank ones count */
        size_t field;
} sections[] = {
        {STR_INIT("config"), SECTION_ONCE, false, offsetof(weir_case, config)},
        {STR_INIT("request"), SECTION_PARTS, true, offsetof(weir_case, request)},
        {STR_INIT("expect"), SECTION_PARTS, false, offsetof(weir_case, expect)},
        {STR_INIT("redis"), SECTION_LINES, false, offsetof(weir_case, redis)},
        {STR_INIT("upstream"), SECTION_ONCE, true, offsetof(weir_case, upstream)},
        {STR_INIT("http"), SECTION_PARTS, true, offsetof(weir_case, http)},
};
#define REQUEST (&sections[1])
#define EXPECT  (&sections[2])

/* A text while it grows.  Invariant: lines.n is the number of lines in it. */
struct text {
        struct buf buf;
        VEC(uint32_t) lines;
        uint32_t parts, first; /* first: line of its first section */
};

struct casefile_text {
        str text;
        const uint32_t *lines;
};

struct reader {
        struct arena *a;
        struct report *rep;
        str file;
        uint32_t line;
        str text; /* of that line */
        VEC(struct casefile_case) cases;
        bool in_case;
        str name;
        uint32_t begun;     /* line of `case` */
        unsigned errors;    /* before it: what is missing is said of a case without other faults */
        uint32_t requested; /* line of the newest `request`, while nothing is expected of it */
        str gap;            /* of a `wait` that no request has followed yet */
        struct text texts[COUNT(sections)];
        const struct section *open; /* the section that indented lines belong to */
        bool skip;                  /* those of one that was refused */
        size_t indent;              /* of its lines; 0: not known yet */
        unsigned blanks;            /* blank lines since its last one */
};

static struct conf_pos place(const struct reader *r, uint32_t line, size_t at)
{
        return (struct conf_pos){.file = r->file,
                                 .line = line,
                                 .col = (uint32_t)at + 1,
                                 .text = line == r->line ? r->text : STR_NONE};
}

static void wrong(struct reader *r, uint32_t line, size_t at, const char *what)
{
        struct conf_pos pos = place(r, line, at);

        report_error(r->rep, &pos, "%s", what);
}

static bool is_blank(char c)
{
        return c == ' ' || c == '\t';
}

/* ------------------------------------------------------------------ texts */

static void put_line(struct reader *r, struct text *t, str line)
{
        if (t->lines.n > 0)
                buf_puts(&t->buf, STR("\n"));
        buf_puts(&t->buf, line);
        *VEC_ADD(r->a, &t->lines) = r->line;
}

/* A line of the open section, without its indentation. */
static void put(struct reader *r, str line)
{
        struct text *t = &r->texts[r->open - sections];

        if (!r->open->raw && str_starts(str_trim(line), STR("#")))
                return;
        if (r->open->kind == SECTION_PARTS && str_starts(line, STR("--"))) {
                wrong(r, r->line, 0, "a line of a request or an expectation cannot begin with --");
                return;
        }
        for (; r->blanks > 0 && r->open->raw; r->blanks--)
                put_line(r, t, STR(""));
        r->blanks = 0;
        put_line(r, t, line);
}

static void put_indented(struct reader *r, str line)
{
        size_t n = 0;

        while (n < line.n && is_blank(line.p[n]))
                n++;
        if (r->open == NULL && r->skip)
                return;
        if (r->open == NULL) {
                wrong(r, r->line, n, "an indented line belongs to a section, and none is open");
                return;
        }
        if (r->indent == 0)
                r->indent = n;
        if (n < r->indent)
                wrong(r, r->line, n, "is indented less than the section's first line");
        else
                put(r, str_from(line, r->indent));
}

/* ------------------------------------------------------------------ cases */

static struct casefile_text keep_text(struct reader *r, struct text *t)
{
        struct casefile_text out = {.lines = t->lines.v};

        out.text = arena_dup(r->a, buf_pullup(&t->buf, t->buf.n));
        buf_clear(&t->buf);
        *t = (struct text){.buf = BUF_INIT};
        return out;
}

static void check_whole(struct reader *r)
{
        if (r->requested != 0)
                wrong(r, r->requested, 0, "nothing is expected of this request");
        else if (r->texts[EXPECT - sections].parts == 0)
                wrong(r, r->begun, 0, "the case expects nothing");
        else if (r->gap.p != NULL)
                wrong(r, r->line, 0, "after a wait there must be another request");
}

static void end_case(struct reader *r)
{
        struct casefile_case *c;

        if (!r->in_case)
                return;
        r->in_case = false;
        r->open = NULL;
        if (r->rep->errors == r->errors)
                check_whole(r);
        c = VEC_ADD(r->a, &r->cases);
        *c = (struct casefile_case){.c = {.name = r->name.p}, .line = r->begun};
        c->n_texts = COUNT(sections);
        c->texts = ARENA_ARRAY(r->a, struct casefile_text, COUNT(sections));
        for (size_t i = 0; i < COUNT(sections); i++) {
                bool there = r->texts[i].parts > 0;
                c->texts[i] = keep_text(r, &r->texts[i]);
                if (there)
                        *(const char **)((char *)&c->c + sections[i].field) = c->texts[i].text.p;
        }
        r->gap = STR_NONE;
        r->requested = 0;
}

static void begin_case(struct reader *r, str name)
{
        end_case(r);
        r->open = NULL;
        r->errors = r->rep->errors;
        if (name.n == 0) {
                wrong(r, r->line, 4, "a case has a name");
                name = STR("?");
        }
        for (size_t i = 0; i < r->cases.n; i++) {
                if (str_eq(str_z(r->cases.v[i].c.name), name)) {
                        struct conf_pos pos = place(r, r->line, (size_t)(name.p - r->text.p));
                        report_error(r->rep, &pos, "there is a case of that name (line %u)",
                                     r->cases.v[i].line);
                }
        }
        if (r->cases.n == CASES_MAX)
                wrong(r, r->line, 0, "there are too many cases");
        r->in_case = r->cases.n < CASES_MAX;
        r->name = arena_dup(r->a, name);
        r->begun = r->line;
}

/* What engines of cases understand: digits and a unit. */
static bool is_time(str s)
{
        static const str units[] = {STR_INIT("ms"), STR_INIT("s"), STR_INIT("m"), STR_INIT("h")};
        size_t digits = 0;

        while (digits < s.n && s.p[digits] >= '0' && s.p[digits] <= '9')
                digits++;
        for (size_t i = 0; digits > 0 && digits <= 6 && i < COUNT(units); i++)
                if (str_eq(str_from(s, digits), units[i]))
                        return true;
        return false;
}

static void take_wait(struct reader *r, str time)
{
        size_t at = time.n ? (size_t)(time.p - r->text.p) : 4;

        r->open = NULL;
        if (!is_time(time))
                wrong(r, r->line, at, "wants a time, as in 500ms, 30s, 5m or 1h");
        else if (r->texts[REQUEST - sections].parts == 0 || r->requested != 0 || r->gap.p != NULL)
                wrong(r, r->line, 0, "a wait stands between an expectation and the next request");
        else
                r->gap = time;
}

/* The "--" before the second part and those after it. */
static void begin_part(struct reader *r, const struct section *s)
{
        struct text *t = &r->texts[s - sections];
        str line = STR("--");

        if (s == REQUEST && r->gap.p != NULL)
                line = arena_printf(r->a, "-- %.*s", STR_ARG(r->gap));
        if (t->parts > 0)
                put_line(r, t, line);
        t->parts++;
        if (s == REQUEST)
                r->gap = STR_NONE;
}

/* false: the section cannot stand here. */
static bool begin_section(struct reader *r, const struct section *s)
{
        struct text *t = &r->texts[s - sections];

        if (s->kind == SECTION_ONCE && t->parts > 0) {
                struct conf_pos pos = place(r, r->line, 0);
                report_error(r->rep, &pos, "the case has its %.*s already (line %u)",
                             STR_ARG(s->word), t->first);
                return false;
        }
        if (s == REQUEST && r->requested != 0)
                wrong(r, r->requested, 0, "nothing is expected of this request");
        if (s == REQUEST && t->parts == 0 && r->texts[EXPECT - sections].parts > 0) {
                wrong(r, r->line, 0, "what is expected of a request stands after it");
                return false;
        }
        if (s == REQUEST)
                r->requested = r->line;
        if (t->parts == 0)
                t->first = r->line;
        if (s->kind == SECTION_PARTS && (s != EXPECT || r->requested != 0 || t->parts == 0))
                begin_part(r, s); /* a second `expect` of the same request goes on with the first */
        else if (s->kind != SECTION_PARTS)
                t->parts = 1;
        if (s == EXPECT)
                r->requested = 0;
        return true;
}

static void unknown(struct reader *r, str word)
{
        str names[COUNT(sections) + 2] = {STR("case"), STR("wait")};
        struct conf_pos pos = place(r, r->line, 0);

        for (size_t i = 0; i < COUNT(sections); i++)
                names[i + 2] = sections[i].word;
        report_unknown(r->rep, &pos, word, names, COUNT(names),
                       "\"%.*s\" is no section of a case (the lines of one are indented)",
                       STR_ARG(str_head(word, 40)));
}

/* A line that begins in the first column. */
static void take_word(struct reader *r)
{
        const struct section *s = sections, *end = sections + COUNT(sections);
        size_t n = 0;
        str word, rest;

        while (n < r->text.n && !is_blank(r->text.p[n]))
                n++;
        r->skip = false;
        word = str_head(r->text, n);
        rest = str_trim(str_from(r->text, n));
        if (str_eq(word, STR("case"))) {
                begin_case(r, rest);
                return;
        }
        while (s < end && !str_eq(word, s->word))
                s++;
        if (s == end && !str_eq(word, STR("wait"))) {
                r->open = NULL;
                r->skip = true;
                unknown(r, word);
        } else if (!r->in_case) {
                r->skip = true;
                wrong(r, r->line, 0, "a section belongs to a case: `case NAME` stands before it");
        } else if (s == end) {
                take_wait(r, rest);
        } else {
                r->skip = !begin_section(r, s);
                r->open = r->skip ? NULL : s;
                if (r->skip)
                        return;
                r->indent = 0;
                r->blanks = 0;
                if (rest.n > 0)
                        put(r, rest);
        }
}

static void take_line(struct reader *r)
{
        bool blank = str_trim(r->text).n == 0;

        if (memchr(r->text.p, 0, r->text.n) != NULL)
                wrong(r, r->line, 0, "has a NUL byte");
        else if (blank)
                r->blanks++;
        else if (r->text.p[0] == '#')
                return;
        else if (is_blank(r->text.p[0]))
                put_indented(r, r->text);
        else if (r->text.p[0] == '}' && r->open == sections)
                put(r, r->text); /* the end of a block of `config {` */
        else
                take_word(r);
}

bool casefile_parse(str file, str text, struct arena *a, struct casefile *out, struct report *rep)
{
        struct reader r = {.a = a, .rep = rep, .file = file, .gap = STR_NONE};
        unsigned before = rep->errors;

        while (text.n > 0) {
                r.line++;
                str_cut(text, '\n', &r.text, &text);
                if (str_ends(r.text, STR("\r")))
                        r.text.n--;
                take_line(&r);
        }
        end_case(&r);
        if (r.cases.n == 0 && rep->errors == before) {
                struct conf_pos pos = {.file = file, .line = 1, .col = 1};
                report_error(rep, &pos, "there is no case in it");
        }
        *out = (struct casefile){r.cases.v, r.cases.n};
        return rep->errors == before;
}

uint32_t casefile_line(const struct casefile_case *c, const char *at)
{
        for (size_t i = 0; at != NULL && i < c->n_texts; i++) {
                const struct casefile_text *t = &c->texts[i];
                size_t line = 0;
                if (at < t->text.p || at > t->text.p + t->text.n || t->lines == NULL)
                        continue;
                for (const char *p = t->text.p; p < at; p++)
                        line += *p == '\n';
                return t->lines[line];
        }
        return c->line;
}
