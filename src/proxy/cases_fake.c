/*
 * What stands in for Redis and for upstreams while a module's test case runs: answers come from the
 * case, in the order in which things were asked.
 *
 * The difficulty is when: an answer may not come inside the call that asked, so calls wait in a
 * queue until the case has nothing else to do.
 */
#include "http/h1_parse.h"
#include "proxy/cases_play.h"

#include <stdlib.h>

/* ------------------------------------------------------------------ Redis */

static struct redis *fake_get(struct loop *l, const struct redis_conf *c)
{
        (void)l;
        return (struct redis *)(uintptr_t)c; /* a mark, never looked into */
}

static void fake_drop(struct redis *r)
{
        (void)r;
}

static struct redis_call *fake_command(struct redis *r, const str *argv, size_t argc,
                                       int64_t timeout_us, redis_fn *fn, void *arg)
{
        struct redis_call *call = calloc(1, sizeof(*call)), **at = &cases_play.calls;

        (void)r, (void)timeout_us;
        CHECK(call != NULL);
        *call = (struct redis_call){.loop = loop_self, .fn = fn, .arg = arg};
        while (*at != NULL)
                at = &(*at)->next;
        *at = call;
        for (size_t i = 0; i < argc; i++)
                buf_printf(&cases_play.commands, "%s%.*s", i ? " " : "", STR_ARG(argv[i]));
        buf_puts(&cases_play.commands, STR("\n"));
        return call;
}

static struct redis_call *fake_script(struct redis *r, str script, const char *sha, const str *argv,
                                      size_t n_keys, size_t argc, int64_t timeout_us, redis_fn *fn,
                                      void *arg)
{
        (void)script;
        buf_printf(&cases_play.commands, "EVALSHA %s %zu ", sha, n_keys);
        return fake_command(r, argv, argc, timeout_us, fn, arg);
}

static void fake_cancel(struct redis_call *call)
{
        struct redis_call **at = &cases_play.calls;

        while (*at != call)
                at = &(*at)->next;
        *at = call->next;
        free(call);
}

const struct redis_calls cases_redis = {fake_get, fake_drop, fake_command, fake_script,
                                        fake_cancel};

static struct redis_reply reply_of_line(struct play *p, str line);

/* "[1,$a,_]": elements as lines are, but without nesting and commas. */
static struct redis_reply array_of(struct play *p, str inner)
{
        struct redis_reply r = {.type = REDIS_ARRAY};
        VEC(struct redis_reply) elem = {0};
        str one;

        for (; inner.p != NULL && inner.n + elem.n != 0;) {
                uint64_t n;
                str_cut(inner, ',', &one, &inner);
                one = str_trim(one);
                if (str_u64(one, INT64_MAX, &n))
                        *VEC_ADD(p->a, &elem) =
                                (struct redis_reply){.type = REDIS_INTEGER, .integer = (int64_t)n};
                else
                        *VEC_ADD(p->a, &elem) = reply_of_line(p, one);
        }
        r.elem = elem.v;
        r.n = elem.n;
        return r;
}

static struct redis_reply reply_of_line(struct play *p, str line)
{
        struct redis_reply r = {
                .type = REDIS_FAIL, .fail = REDIS_UNAVAILABLE, .text = STR_INIT("no answer")};
        str rest = line.n ? str_from(line, 1) : STR("");
        uint64_t n;

        switch (line.n ? line.p[0] : '!') {
        case '$':
                return (struct redis_reply){.type = REDIS_STRING, .text = rest};
        case '_':
                return (struct redis_reply){.type = REDIS_NIL};
        case '-':
                return (struct redis_reply){.type = REDIS_ERROR, .text = rest};
        case '~':
                r.fail = REDIS_TIMEOUT;
                return r;
        case '[':
                return array_of(p, str_ends(rest, STR("]")) ? str_head(rest, rest.n - 1) : rest);
        case ':':
                if (str_u64(rest, INT64_MAX, &n))
                        return (struct redis_reply){.type = REDIS_INTEGER, .integer = (int64_t)n};
                cases_failed(p, line.p, "redis: no number: %.*s", STR_ARG(line));
                return r;
        case '!':
                return r;
        default:
                cases_failed(p, line.p, "redis: not understood: %.*s", STR_ARG(line));
                return r;
        }
}

void cases_answer_redis(struct play *p)
{
        struct redis_call *call = p->calls;
        struct redis_reply r =
                reply_of_line(p, p->replies.p ? cases_next_line(&p->replies) : STR("!"));

        p->calls = call->next;
        loop_self = call->loop;
        call->fn(&r, call->arg);
        loop_self = p->loop;
        free(call);
}

/* ------------------------------------------------------------------ upstreams that functions ask
 */

static void note_asked(struct play *p, const weir_http_req *req, const struct msg *head)
{
        struct buf *b = &p->asked;

        buf_printf(b, "%.*s %.*s\n", STR_ARG(head->method_text), STR_ARG(head->target));
        buf_printf(b, "host: %.*s\n", STR_ARG(head->authority));
        FIELDS_EACH(f, &head->fields)
        {
                for (size_t i = 0; i < f->name.n; i++)
                        buf_printf(b, "%c", str_lower(f->name.p[i]));
                buf_printf(b, ": %.*s\n", STR_ARG(f->value));
        }
        if (req->body.p != NULL)
                buf_printf(b, "body %.*s\n", WEIR_S(req->body));
}

static struct subrequest *fake_start(const struct subrequest_ask *ask)
{
        struct subrequest *s = calloc(1, sizeof(*s)), **at = &cases_play.subs;
        struct txn t = {0};
        struct msg head;

        CHECK(s != NULL);
        *s = (struct subrequest){.user = ask->user, .arg = ask->arg};
        s->error = subrequest_head(ask, cases_play.a, &t, &head);
        s->method = head.method;
        s->max_body = ask->req->max_body ? ask->req->max_body : SUBREQUEST_BODY_MAX;
        if (s->error == WEIR_OK)
                note_asked(&cases_play, ask->req, &head);
        while (*at != NULL)
                at = &(*at)->next;
        *at = s;
        return s;
}

static void fake_abort(struct subrequest *s)
{
        struct subrequest **at = &cases_play.subs;

        while (*at != s)
                at = &(*at)->next;
        *at = s->next;
        free(s);
}

const struct subrequest_calls cases_subrequests = {fake_start, fake_abort};

/* What the upstream says next; its body is put into *body. */
static struct subrequest_answer next_answer(struct play *p, const struct subrequest *s,
                                            struct msg *head, struct buf *body)
{
        struct subrequest_answer a = {.error = WEIR_E_UNAVAIL, .why = STR_INIT("no answer")};
        str gap, text = p->answers.p ? cases_next_part(&p->answers, &gap) : STR("!"), first, rest;
        enum reason why;

        str_cut(text, '\n', &first, &rest);
        if (str_eq(first, STR("!")))
                return a;
        a.error = WEIR_E_TIMEOUT;
        if (str_eq(first, STR("~")))
                return a;
        why = h1_parse_response(p->a, cases_head(p, text, &rest), s->method, head);
        if (why != REASON_NONE)
                cases_failed(p, text.p, "http: its answer is malformed: %s", reason_rows[why].text);
        a.error = WEIR_E_FULL;
        if (rest.n > s->max_body)
                return a;
        buf_puts(body, rest);
        return (struct subrequest_answer){.head = head, .body = body};
}

void cases_answer_http(struct play *p)
{
        struct subrequest *s = p->subs;
        struct subrequest_answer a = {.error = s->error, .why = STR_INIT("it was refused")};
        struct msg head = {0};
        struct buf body = BUF_INIT;

        p->subs = s->next;
        if (s->error == WEIR_OK)
                a = next_answer(p, s, &head, &body);
        s->user->done(s->arg, &a);
        buf_clear(&body);
        free(s);
}
