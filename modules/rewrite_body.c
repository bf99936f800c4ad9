/*
 * rewrite_body: replaces texts in bodies as they stream by.
 *
 *     function rewrite_body {
 *         replace http://internal.example/ https://www.example.com/;
 *         regex '<!--.*?-->' '';
 *         types "text/html";
 *     }
 *
 * Where several rules match, the leftmost match counts, of two at one place the rule written first;
 * what was put in is not looked at again.
 *
 * The one difficulty: a match may lie across the border of two chunks.  What could still become one
 * is held back: for a literal its length less one, for a regular expression what PCRE2 calls a
 * partial match, up to `window`; with it as many bytes before as the expression looks back at.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <weir/module.h>

#include <pcre2.h>
#include <stdlib.h>

enum { REPLACE, REGEX };
enum { OF_RESPONSE, OF_REQUEST };

#define RULES_MAX   64
#define WINDOW_MAX  32768
#define CHUNK_MAX   16384
#define TEXT_MAX    32768 /* of what is put in, captures and all */
#define MATCH_LIMIT 100000

struct rule {
        int32_t verb;
        weir_str what, with;
};
struct conf {
        weir_list rules, types;
        int32_t of;
        int64_t window;
        pcre2_code *code[RULES_MAX];
        uint32_t behind; /* bytes that expressions look back at */
        weir_metric *replaced;
};

static const weir_arg line[] = {
        WEIR_ARG(struct rule, verb, ENUM, WEIR_VERB, NULL, "", .choices = "replace regex"),
        WEIR_ARG(struct rule, what, STR, WEIR_BARE | WEIR_REQUIRED, NULL, "What is replaced."),
        WEIR_ARG(struct rule, with, STR, WEIR_BARE | WEIR_REQUIRED, NULL,
                 "What stands there then."),
};
static const weir_arg args[] = {
        WEIR_LINES("replace", struct conf, rules, 0, struct rule, line, 3, "Replaces a text."),
        WEIR_LINES("regex", struct conf, rules, 0, struct rule, line, 3,
                   "Replaces what a regular expression matches; $1 is its first capture."),
        WEIR_LIST(struct conf, types, STR, 0, "text/html", "Content types; a * is for all."),
        WEIR_ARG(struct conf, of, ENUM, 0, "response", "Of which message.",
                 .choices = "response request"),
        WEIR_ARG(struct conf, window, SIZE, 0, "8k", "The longest match across chunks.", .min = 64,
                 .max = WINDOW_MAX),
};

/* One body.  Owned by its ctx until on_log. */
struct stream {
        const struct conf *conf;
        pcre2_match_data *md;
        pcre2_match_context *mc;
        size_t n, at, upto;    /* of win: bytes, looked at so far, may be passed on */
        size_t n_text, resume; /* of text; where to go on behind the match */
        int matched, last, begun;
        char text[TEXT_MAX];
        char win[256 + WINDOW_MAX + 2 * CHUNK_MAX];
};

/* ------------------------------------------------------------------ matching */

struct found {
        size_t start, end, rule;
        int partial; /* from start on something may still become a match */
};

static void find_literal(const struct stream *s, const struct rule *r, size_t k, struct found *f)
{
        const char *p = memmem(s->win + s->at, s->n - s->at, r->what.p, r->what.n);
        size_t keep = r->what.n - 1;

        if (p && (size_t)(p - s->win) < f->start) {
                *f = (struct found){(size_t)(p - s->win), (size_t)(p - s->win) + r->what.n, k, 0};
                return;
        }
        /* The longest end of the window that the literal begins with. */
        for (; !s->last && keep > 0; keep--) {
                size_t from = s->n - keep;
                if (keep > s->n - s->at || from >= f->start)
                        continue;
                if (memcmp(s->win + from, r->what.p, keep) == 0) {
                        *f = (struct found){from, from, k, 1};
                        return;
                }
        }
}

/* 0: its match limit was hit. */
static int find_regex(const struct stream *s, size_t k, struct found *f)
{
        uint32_t options = PCRE2_NOTEMPTY | (s->begun ? PCRE2_NOTBOL : 0);
        int held = s->n - s->at > (size_t)s->conf->window, rc;
        const PCRE2_SIZE *v = pcre2_get_ovector_pointer(s->md);

        if (!s->last)
                options |= held ? PCRE2_NOTEOL : PCRE2_PARTIAL_HARD | PCRE2_NOTEOL;
        rc = pcre2_match(s->conf->code[k], (PCRE2_SPTR)s->win, s->n, s->at, options, s->md, s->mc);
        if (rc == PCRE2_ERROR_NOMATCH)
                return 1;
        if (rc < 0 && rc != PCRE2_ERROR_PARTIAL)
                return 0;
        if (v[0] < f->start && v[0] >= s->at && (v[1] > v[0] || rc == PCRE2_ERROR_PARTIAL))
                *f = (struct found){v[0], v[1], k, rc == PCRE2_ERROR_PARTIAL};
        return 1;
}

/* "$1" of a replacement, of the match in s->md. */
static int put_text(struct stream *s, weir_str with, int captures)
{
        const PCRE2_SIZE *v = captures ? pcre2_get_ovector_pointer(s->md) : NULL;
        uint32_t groups = captures ? pcre2_get_ovector_count(s->md) : 0;

        s->n_text = 0;
        for (size_t i = 0; i < with.n; i++) {
                const char *p = with.p + i;
                size_t n = 1;
                if (captures && *p == '$' && i + 1 < with.n && p[1] >= '0' && p[1] <= '9') {
                        uint32_t g = (uint32_t)(p[1] - '0');
                        i++;
                        if (g >= groups || v[2 * g] == PCRE2_UNSET)
                                continue;
                        p = s->win + v[2 * g];
                        n = v[2 * g + 1] - v[2 * g];
                } else if (captures && *p == '$' && i + 1 < with.n && p[1] == '$') {
                        i++;
                }
                if (n > TEXT_MAX - s->n_text)
                        return 0;
                memcpy(s->text + s->n_text, p, n);
                s->n_text += n;
        }
        return 1;
}

/* Finds the next match, or how far there is none: sets upto, matched, text, resume.  0: failed. */
static int look(struct stream *s)
{
        const struct rule *rules = s->conf->rules.v;
        struct found f = {.start = s->n, .end = s->n};
        int n;

        for (size_t k = 0; k < s->conf->rules.n; k++) {
                if (rules[k].verb == REPLACE)
                        find_literal(s, &rules[k], k, &f);
                else if (!find_regex(s, k, &f))
                        return 0;
        }
        s->upto = f.start;
        s->matched = f.start < s->n && !f.partial;
        if (!s->matched)
                return 1;
        s->resume = f.end;
        if (rules[f.rule].verb == REPLACE)
                return put_text(s, rules[f.rule].with, 0);
        /* Another rule may have been tried since: match once more, there, for its captures. */
        n = pcre2_match(s->conf->code[f.rule], (PCRE2_SPTR)s->win, s->n, f.start,
                        PCRE2_NOTEMPTY | (s->begun ? PCRE2_NOTBOL : 0) |
                                (s->last ? 0 : PCRE2_NOTEOL),
                        s->md, s->mc);
        return n > 0 && put_text(s, rules[f.rule].with, 1);
}

/* ------------------------------------------------------------------ streaming */

/* What was passed on goes, but for what expressions look back at. */
static void slide(struct stream *s)
{
        size_t keep = s->at < s->conf->behind ? s->at : s->conf->behind, gone = s->at - keep;

        if (gone == 0)
                return;
        memmove(s->win, s->win + gone, s->n - gone);
        s->n -= gone;
        s->at -= gone;
        s->begun = 1;
}

static weir_rc go_on(weir_req *r, const void *inst, void *ctx, void *arg)
{
        struct stream *s = arg;
        weir_err err;

        for (;;) {
                if (s->upto > s->at) {
                        err = weir->body_emit(r, weir_bytes(s->win + s->at, s->upto - s->at));
                        if (err == WEIR_E_FULL)
                                return weir->body_drain(r, go_on, s);
                        if (err)
                                return WEIR_ERROR;
                        s->at = s->upto;
                }
                if (s->matched) {
                        err = weir->body_emit(r, weir_bytes(s->text, s->n_text));
                        if (err == WEIR_E_FULL)
                                return weir->body_drain(r, go_on, s);
                        if (err)
                                return WEIR_ERROR;
                        weir->metric_add(s->conf->replaced, 1);
                        s->at = s->upto = s->resume;
                        s->matched = 0;
                } else {
                        (void)inst, (void)ctx;
                        slide(s);
                        return WEIR_REPLACED;
                }
                if (!look(s))
                        return WEIR_ERROR;
        }
}

static weir_rc body(weir_req *r, const void *inst, void *ctx, const weir_chunk *c)
{
        struct stream *s = *(struct stream **)ctx;

        if (c->data.n > sizeof(s->win) - s->n)
                return WEIR_ERROR;
        memcpy(s->win + s->n, c->data.p, c->data.n);
        s->n += c->data.n;
        s->last = (c->flags & WEIR_CHUNK_LAST) != 0;
        s->upto = s->at;
        return look(s) ? go_on(r, inst, ctx, s) : WEIR_ERROR;
}

static void stream_end(struct stream *s)
{
        if (!s)
                return;
        pcre2_match_data_free(s->md);
        pcre2_match_context_free(s->mc);
        free(s);
}

static weir_rc begin(weir_req *r, const struct conf *c, struct stream **out)
{
        struct stream *s = calloc(1, sizeof(*s));

        *out = s;
        if (!s)
                return WEIR_ERROR;
        s->conf = c;
        s->md = pcre2_match_data_create(10, NULL);
        s->mc = pcre2_match_context_create(NULL);
        if (!s->md || !s->mc)
                return WEIR_ERROR;
        pcre2_set_match_limit(s->mc, MATCH_LIMIT);
        return weir->body_mode(r, WEIR_BODY_REWRITE, 0) ? WEIR_ERROR : WEIR_CONTINUE;
}

/* ------------------------------------------------------------------ heads */

static int wanted(weir_req *r, const struct conf *c, int32_t where)
{
        weir_str v, any = WEIR_STR("*");

        if (weir->header_get(r, where, WEIR_STR("content-encoding"), NULL) ||
            !weir->header_get(r, where, WEIR_STR("content-type"), &v))
                v = WEIR_STR("");
        for (size_t i = 0; i < v.n; i++)
                if (v.p[i] == ';' || v.p[i] == ' ')
                        v.n = i;
        WEIR_EACH (weir_str, type, c->types)
                if (v.n && (weir_eq(*type, any) || weir_eq_icase(v, *type)))
                        return 1;
        return 0;
}

static weir_rc request(weir_req *r, const void *inst, void *ctx)
{
        const struct conf *c = inst;

        if (c->of == OF_REQUEST)
                return wanted(r, c, WEIR_REQUEST) ? begin(r, c, ctx) : WEIR_CONTINUE;
        /* Parts and compressed bodies would pass by. */
        weir->header_del(r, WEIR_REQUEST, WEIR_STR("range"));
        weir->header_del(r, WEIR_REQUEST, WEIR_STR("if-range"));
        weir->header_del(r, WEIR_REQUEST, WEIR_STR("accept-encoding"));
        return WEIR_CONTINUE;
}

static weir_rc response(weir_req *r, const void *inst, void *ctx)
{
        const struct conf *c = inst;
        weir_str status = WEIR_STR("");

        weir->var_get(r, WEIR_STR("status"), &status);
        if (c->of != OF_RESPONSE || weir_eq(status, WEIR_STR("101")) ||
            !wanted(r, c, WEIR_RESPONSE))
                return WEIR_CONTINUE;
        return begin(r, c, ctx);
}

static void on_log(weir_req *r, const void *inst, void *ctx)
{
        (void)r, (void)inst;
        stream_end(*(struct stream **)ctx);
}

/* ------------------------------------------------------------------ create */

static void destroy(void *inst)
{
        struct conf *c = inst;

        for (size_t i = 0; i < RULES_MAX; i++)
                pcre2_code_free(c->code[i]);
}

static weir_err compile(weir_conf *conf, struct conf *c, size_t k, const struct rule *r)
{
        PCRE2_UCHAR why[128];
        PCRE2_SIZE at;
        uint32_t behind = 0;
        int error;

        if (r->what.n == 0 || r->what.n > 1024)
                return weir->conf_error(conf, &r->what, "1 to 1024 bytes are wanted here");
        if (r->verb == REPLACE)
                return WEIR_OK;
        c->code[k] =
                pcre2_compile((PCRE2_SPTR)r->what.p, r->what.n, PCRE2_NEVER_UTF, &error, &at, NULL);
        if (!c->code[k]) {
                pcre2_get_error_message(error, why, sizeof(why));
                return weir->conf_error(conf, &r->what, "%s", (const char *)why);
        }
        pcre2_jit_compile(c->code[k], PCRE2_JIT_COMPLETE | PCRE2_JIT_PARTIAL_HARD);
        pcre2_pattern_info(c->code[k], PCRE2_INFO_MAXLOOKBEHIND, &behind);
        if (behind > 255)
                return weir->conf_error(conf, &r->what, "it looks back at more than 255 bytes");
        c->behind = behind > c->behind ? behind : c->behind;
        return WEIR_OK;
}

static weir_err create(weir_conf *conf, void *inst)
{
        struct conf *c = inst;
        const struct rule *rules = c->rules.v;
        weir_err err = WEIR_OK;

        c->behind = 1;
        if (c->rules.n == 0 || c->rules.n > RULES_MAX)
                return weir->conf_error(conf, NULL,
                                        "1 to 64 lines `replace` or `regex` are wanted");
        for (size_t k = 0; k < c->rules.n && !err; k++)
                err = compile(conf, c, k, &rules[k]);
        if (err) {
                destroy(inst);
                return err;
        }
        c->replaced = weir->conf_metric(conf, WEIR_COUNTER, "replaced_total",
                                        "Matches that were replaced.", NULL, 0);
        return WEIR_OK;
}

#define OK(body) "HTTP/1.1 200 OK\ncontent-type: text/html; charset=utf-8\n\n" body
static const weir_case cases[] = {
        {.name = "literal",
         .config = "{ replace cat dog; replace c x; }",
         .upstream = OK("a cat c"),
         .expect = "continue\nbody a dog x"},
        {.name = "regex",
         .config = "{ regex '(\\d+)-(\\d+)' '$2-$1$$'; }",
         .upstream = OK("1-2 33-44"),
         .expect = "continue\nbody 2-1$ 44-33$"},
        {.name = "nothing twice",
         .config = "{ replace a b; replace b a; }",
         .upstream = OK("ab"),
         .expect = "continue\nbody ba"},
        {.name = "other types",
         .config = "{ replace a b; }",
         .upstream = "HTTP/1.1 200 OK\ncontent-type: text/plain\n\na",
         .expect = "continue\nbody a"},
        {.name = "requests",
         .config = "{ replace a b; of request; types *; }",
         .request = "POST / HTTP/1.1\nhost: a\ncontent-type: x/y\n\naa",
         .expect = "continue\nreq body bb"},
        {.name = "no parts",
         .config = "{ replace a b; }",
         .request = "GET / HTTP/1.1\nhost: a\nrange: bytes=0-1\naccept-encoding: gzip\n\n",
         .expect = "continue\nreq -range\nreq -accept-encoding"},
};

WEIR_MODULE(.name = "rewrite_body", .version = "1.0", WEIR_ARGS(struct conf, args),
            WEIR_CASES(cases), .ctx_size = sizeof(struct stream *), .create = create,
            .destroy = destroy, .on_request = request, .on_response = response, .on_log = on_log,
            .on_request_body = body, .on_response_body = body);
