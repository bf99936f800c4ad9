/*
 * Requests that functions make to upstreams (subrequest.h).
 *
 * The difficulty: origin serves a transaction of flow's.  So there is one here, with a request of
 * its own that has no client: its body is there from the start, and its answer gathers in the
 * response pipe, whose bound is the answer's.  Whoever asked is told last, for it may end
 * everything.
 */
#include "proxy/subrequest.h"

#include "base/check.h"
#include "http/field.h"
#include "proxy/origin.h"

#define SUBREQUEST_MAGIC UINT32_C(0x53554252)

/* Lives in its request's arena.  Invariant: origin is set while an exchange is under way; otherwise
 * it is about to be told of error. */
struct subrequest {
        uint32_t magic;
        struct txn t;
        struct origin *origin;
        struct msg sent;
        uint64_t max_body;
        struct deadline deadline;
        struct loop_task tell;
        weir_err error;
        const struct subrequest_user *user;
        void *arg;
};

static struct subrequest *subrequest_of(struct txn *t)
{
        struct subrequest *s = CONTAINER_OF(t, struct subrequest, t);

        CHECK_OBJ(s, SUBREQUEST_MAGIC);
        return s;
}

/* ------------------------------------------------------------------ the head */

static bool visible(str s)
{
        for (size_t i = 0; i < s.n; i++)
                if ((unsigned char)s.p[i] <= ' ' || (unsigned char)s.p[i] >= 0x7f)
                        return false;
        return s.n > 0;
}

static weir_err add_field(struct arena *a, struct msg *m, str name, str value)
{
        enum field_id id;

        value = str_trim(value);
        if (!field_name_ok(name) || value.p == NULL || !field_value_ok(value))
                return WEIR_E_INVAL;
        id = field_id_of(name);
        if (id == FIELD_HOST) {
                if (!visible(value) || str_chr(value, '/') >= 0 || str_chr(value, '@') >= 0)
                        return WEIR_E_INVAL;
                m->authority = arena_dup(a, value);
                return WEIR_OK;
        }
        if (!field_settable(id) || id == FIELD_EXPECT || id == FIELD_TRAILER)
                return WEIR_E_DENIED;
        fields_add(a, &m->fields, id, arena_dup(a, name), arena_dup(a, value));
        return WEIR_OK;
}

static weir_err add_fields(const struct subrequest_ask *ask, struct arena *a, struct msg *m)
{
        const struct txn *parent = ask->parent;
        weir_err err = WEIR_OK;

        m->authority = ask->conf->name;
        for (size_t i = 0; i < ask->req->n_fields && err == WEIR_OK; i++) {
                const weir_kv *kv = &ask->req->fields[i];
                err = add_field(a, m, str_of(kv->name.p, kv->name.n),
                                str_of(kv->value.p, kv->value.n));
        }
        if (err == WEIR_OK && parent && !fields_get(&m->fields, FIELD_X_REQUEST_ID))
                err = add_field(a, m, field_name_of(FIELD_X_REQUEST_ID), parent->request_id);
        return err;
}

/* What is known of the client is the request's it is made for; of the message, its own. */
static void fill_txn(const struct subrequest_ask *ask, const struct msg *m, struct txn *t)
{
        const struct txn *p = ask->parent;

        t->eff = &ask->conf->eff;
        t->upstream = ask->conf;
        t->host = m->authority;
        t->scheme = STR("http");
        t->upstream_us = -1;
        if (!p)
                return;
        t->listen = p->listen;
        t->client_ip = p->client_ip;
        t->client = p->client;
        t->trusted = p->trusted;
        t->trial = p->trial;
        t->tls = p->tls;
        t->request_id = p->request_id;
        t->vars = p->vars;
}

weir_err subrequest_head(const struct subrequest_ask *ask, struct arena *a, struct txn *t,
                         struct msg *head)
{
        const weir_http_req *req = ask->req;
        str path = str_of(req->path.p, req->path.n);
        weir_err err;

        *head = (struct msg){.version = 11, .method_text = STR_INIT("GET")};
        if (req->method.p)
                head->method_text = arena_dup(a, str_of(req->method.p, req->method.n));
        head->method = method_of(head->method_text);
        if (req->flags != 0 || req->timeout_us < 0 || (req->n_fields && !req->fields) ||
            !field_name_ok(head->method_text) || head->method == METHOD_CONNECT)
                return WEIR_E_INVAL;
        if (!visible(path) || path.p[0] != '/' || str_chr(path, '#') >= 0 ||
            !path_parse(a, arena_dup(a, path), &t->path))
                return WEIR_E_INVAL;
        err = add_fields(ask, a, head);
        if (err != WEIR_OK)
                return err;
        fill_txn(ask, head, t);
        head->target = t->path.sent;
        if (t->path.query.p)
                head->target = arena_cat(a, (str[]){t->path.sent, STR("?"), t->path.query}, 3);
        head->length = req->body.n;
        if (req->body.p || head->method == METHOD_POST || head->method == METHOD_PUT ||
            head->method == METHOD_PATCH) /* those say so when they have none (RFC 9110 8.6) */
                head->framing = FRAMING_LENGTH;
        return WEIR_OK;
}

/* ------------------------------------------------------------------ the end */

static void finish(struct subrequest *s, const struct subrequest_answer *a)
{
        struct request *r = s->t.r;

        deadline_clear(&s->deadline);
        s->user->done(s->arg, a);
        s->magic = DEAD_MAGIC;
        request_drop(r);
}

static void fail(struct subrequest *s, weir_err error, str why)
{
        finish(s, &(struct subrequest_answer){.error = error, .why = why});
}

/* More cannot be taken of it. */
static void give_up(struct subrequest *s, enum reason why, weir_err error, str text)
{
        origin_abort(s->origin, why);
        fail(s, error, text);
}

static void timed_out(struct deadline *d)
{
        struct subrequest *s = CONTAINER_OF(d, struct subrequest, deadline);

        CHECK_OBJ(s, SUBREQUEST_MAGIC);
        give_up(s, REASON_REQUEST_TIMEOUT, WEIR_E_TIMEOUT, STR("it took too long"));
}

static void cancel(struct subrequest *s)
{
        struct request *r = s->t.r;

        CHECK_OBJ(s, SUBREQUEST_MAGIC);
        deadline_clear(&s->deadline);
        if (list_linked(&s->tell.link))
                list_remove(&s->tell.link);
        if (s->origin)
                origin_abort(s->origin, REASON_SUBREQUEST_OVER);
        s->magic = DEAD_MAGIC;
        request_drop(r);
}

/* ------------------------------------------------------------------ the answer */

static bool room(struct subrequest *s)
{
        struct request *r = s->t.r;

        return s->user->room(s->arg, MAX(arena_used(r->arena), ARENA_CHUNK) + r->req_body.passed +
                                             r->res_body.data.n);
}

/* More of the answer, or all, is here. */
static void take(struct subrequest *s)
{
        struct request *r = s->t.r;

        if (r->res_body.data.n > s->max_body ||
            (r->res.framing == FRAMING_LENGTH && r->res.length > s->max_body)) {
                give_up(s, REASON_SUBREQUEST_OVER, WEIR_E_FULL,
                        STR("the answer's body is larger than max_body"));
        } else if (!room(s)) {
                give_up(s, REASON_SUBREQUEST_OVER, WEIR_E_NOMEM, STR("memory= is used up"));
        } else if (r->res_body.end) {
                field_strip_hop(&r->res.fields);
                origin_abort(s->origin, REASON_SUBREQUEST_OVER); /* it is over already */
                finish(s, &(struct subrequest_answer){.head = &r->res, .body = &r->res_body.data});
        }
}

static void on_interim(struct txn *t, const struct msg *res)
{
        (void)t, (void)res;
}

static void on_answer(struct txn *t)
{
        take(subrequest_of(t));
}

static void on_req_room(struct txn *t)
{
        (void)t; /* all of it is there */
}

static weir_err error_of(enum reason why)
{
        if (why == REASON_UPSTREAM_HEADER_MAX)
                return WEIR_E_FULL;
        return reason_rows[why].status == 504 ? WEIR_E_TIMEOUT : WEIR_E_UNAVAIL;
}

static void on_failed(struct txn *t, enum reason why)
{
        fail(subrequest_of(t), error_of(why), str_z(reason_rows[why].text));
}

static const struct origin_user origin_user = {
        .interim = on_interim,
        .head = on_answer,
        .res_ready = on_answer,
        .req_room = on_req_room,
        .failed = on_failed,
};

/* ------------------------------------------------------------------ the start */

static void tell(struct loop_task *task)
{
        struct subrequest *s = CONTAINER_OF(task, struct subrequest, tell);

        CHECK_OBJ(s, SUBREQUEST_MAGIC);
        fail(s, s->error,
             s->error == WEIR_E_NOMEM    ? STR("memory= is used up")
             : s->error == WEIR_E_DENIED ? STR("a field is weir's own to set")
                                         : STR("the request is malformed"));
}

static void run(struct subrequest *s, const struct subrequest_ask *ask)
{
        struct request *r = s->t.r;
        const struct settings *eff = s->t.eff;
        int64_t us = ask->req->timeout_us ? ask->req->timeout_us : eff->request;

        /* Nothing is held back: it is the bound that stops the server. */
        s->max_body =
                MIN(ask->req->max_body ? ask->req->max_body : SUBREQUEST_BODY_MAX, SIZE_MAX / 2);
        r->res_body.high = s->max_body + 2 * PIPE_HIGH;
        if (us) {
                s->t.deadline = ask->loop->now + us;
                deadline_set(ask->loop, &s->deadline, us, timed_out);
        }
        s->origin = origin_start(&s->t, ask->upstream, eff, &s->sent, &origin_user);
}

static struct subrequest *start(const struct subrequest_ask *ask)
{
        struct request *r = request_new(ask->loop, NULL, 0); /* room() is its bound */
        struct subrequest *s = ARENA_NEW(r->arena, struct subrequest);

        *s = (struct subrequest){
                .magic = SUBREQUEST_MAGIC, .user = ask->user, .arg = ask->arg, .t.r = r};
        s->error = subrequest_head(ask, r->arena, &s->t, &s->sent);
        if (s->error == WEIR_OK) {
                r->req = s->sent;
                pipe_put(&r->req_body, str_of(ask->req->body.p, ask->req->body.n));
                r->req_body.end = true;
                if (!room(s))
                        s->error = WEIR_E_NOMEM;
        }
        if (s->error == WEIR_OK)
                run(s, ask);
        else
                loop_defer(ask->loop, &s->tell, tell);
        return s;
}

const struct subrequest_calls subrequest_calls = {.start = start, .cancel = cancel};
