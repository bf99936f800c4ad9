/*
 * Bodies through functions (filter.h).
 *
 *    input -> now (the chunk it looks at) -> verdict -> emitted -> out = the next one's input
 *
 * The difficulty: each stage may wait, emit more than it was given, fail or answer, at any chunk,
 * while both ends come and go as they like.  So nothing is pushed: pump() goes over the row from
 * its end to its beginning, and again, until nothing moves; a stage takes a chunk only when there
 * is room behind it.  Every queue is bounded, and a producer that fills the first one stalls as it
 * would without functions.  What comes of it is told once the pump has come to rest, as the last
 * thing done.
 */
#include "proxy/filter.h"

#include "http/field.h"
#include "proxy/instance.h"

#define CHUNK_MAX    (16 * KIB)
#define QUEUE_HIGH   PIPE_HIGH
#define BUFFER_MAX   (8 * MIB) /* where neither the function nor `body max=` says how much */
#define FILTER_MAGIC UINT32_C(0x46494c54)

/* One function's part.  Lives in the request's arena until filter_end.  Invariant: waits while a
 * call has not come to its verdict; now holds its chunk until then. */
struct stage {
        struct weir_task task;
        struct filter *filter;
        struct stage *prev, *next;
        weir_rc (*fn)(weir_req *, const void *, void *, const weir_chunk *);
        int32_t mode;
        uint64_t max; /* BUFFER */
        struct buf now, emitted, out;
        weir_chunk chunk;
        bool whole;  /* gets the body in one call, before its head goes */
        bool called; /* at least once */
        bool last;   /* now is the last chunk */
        bool waits;  /* for its verdict */
        bool passes; /* no more calls: it has failed open, or has seen enough */
        bool ended;  /* nothing more comes out */
};

/* Owned by its txn.  Invariant: over once it was ended, or a stage has answered or failed closed.
 */
struct filter {
        uint32_t magic;
        struct txn *t;
        struct weir_task *head;
        const struct chain_user *user;
        filter_collected *collected;
        struct pipe pipe; /* the second pipe of this direction: at the server's end */
        struct pipe *from, *to;
        struct stage *first, *end;
        struct stage *decider; /* who answered */
        enum chain_result how; /* CONTINUE, or what a stage decided */
        struct loop_task task;
        bool response;
        bool open;       /* the consumer may have what comes out */
        bool collecting; /* the chain waits for the last stage's verdict */
        bool pumping, over;
        bool wanted; /* the consumer has asked, and nobody has told the producer */
};

static void stage_verdict(struct weir_task *t, weir_rc rc, bool timed_out);

static struct filter *filter_of(struct txn *t, bool response)
{
        return t->filter[response ? WEIR_RESPONSE : WEIR_REQUEST];
}

/* ------------------------------------------------------------------ verdicts */

static void stop(struct filter *f, struct stage *s, enum chain_result how)
{
        f->over = true;
        f->decider = s;
        f->how = how;
}

/* What the hook has looked at goes on as it came. */
static void keep_chunk(struct stage *s)
{
        if (s->now.n > 0)
                buf_move(&s->emitted, &s->now, s->now.n);
}

static COLD void failed(struct stage *s, bool timed_out)
{
        struct weir_task *t = &s->task;

        t->txn->failures++;
        task_count(t, timed_out ? CALL_TIMEOUT : CALL_ERROR);
        task_say_failed(t, timed_out ? "took longer than timeout=" : "failed");
        if (t->use->on_error == ON_ERROR_FAIL_OPEN) {
                buf_clear(&s->emitted); /* what was drained cannot be taken back */
                keep_chunk(s);
                s->passes = true;
                return;
        }
        t->txn->reason = timed_out ? REASON_FUNCTION_TIMEOUT : REASON_FUNCTION_ERROR;
        stop(s->filter, s, CHAIN_CUT);
}

static void decide(struct stage *s, weir_rc rc, bool timed_out)
{
        s->waits = rc == WEIR_SUSPEND;
        switch (rc) {
        case WEIR_SUSPEND:
                return;
        case WEIR_CONTINUE:
                task_count(&s->task, CALL_CONTINUE);
                keep_chunk(s);
                break;
        case WEIR_REPLACED:
                task_count(&s->task, CALL_CONTINUE);
                buf_clear(&s->now);
                break;
        case WEIR_RESPOND:
                task_count(&s->task, CALL_RESPOND);
                stop(s->filter, s, CHAIN_RESPOND);
                break;
        default:
                failed(s, timed_out);
        }
        s->chunk.offset += s->chunk.data.n;
        s->chunk.data = (weir_str){NULL, 0};
}

/* ------------------------------------------------------------------ one stage */

static bool move_on(struct buf *to, size_t high, struct buf *from)
{
        size_t n = to->n < high ? MIN(from->n, high - to->n) : 0;

        if (n > 0)
                buf_move(to, from, n);
        return n > 0;
}

static struct buf *input(const struct stage *s)
{
        return s->prev != NULL ? &s->prev->out : &s->filter->from->data;
}

static bool input_ended(const struct stage *s)
{
        return s->prev != NULL ? s->prev->ended : s->filter->from->end;
}

static size_t high_of(const struct stage *s)
{
        return s->whole ? SIZE_MAX : QUEUE_HIGH;
}

static COLD void too_large(struct stage *s, uint64_t n)
{
        struct weir_task *t = &s->task;
        struct request *r = t->txn->r;

        t->txn->reason = t->responses ? REASON_FUNCTION_RESPONSE_MAX : REASON_FUNCTION_BODY_MAX;
        r->limit = s->max;
        r->measured = n;
        task_say_failed(t, t->responses ? "was to get a larger response body than it buffers"
                                        : "was to get a larger request body than it buffers");
        stop(s->filter, s, CHAIN_CUT);
}

/* The whole body, once it is here. */
static bool take_whole(struct stage *s)
{
        struct buf *in = input(s);

        if (in->n > 0)
                buf_move(&s->now, in, in->n);
        if (s->mode == WEIR_BODY_BUFFER && s->now.n > s->max) {
                too_large(s, s->now.n);
                return false;
        }
        s->last = input_ended(s);
        return s->last;
}

/* The next chunk into now; false: there is none yet, or no room for what comes of it. */
static bool take(struct stage *s)
{
        struct buf *in = input(s);
        size_t n = MIN(buf_front(in).n, CHUNK_MAX);

        if (s->whole)
                return take_whole(s);
        if (s->out.n >= QUEUE_HIGH)
                return false;
        if (n > 0)
                buf_move(&s->now, in, n);
        s->last = in->n == 0 && input_ended(s);
        return n > 0 || s->last;
}

static void call(struct stage *s)
{
        struct weir_task *t = &s->task;
        str data = buf_pullup(&s->now, s->now.n);
        int64_t stamp;
        weir_rc rc;

        s->chunk.size = sizeof(s->chunk);
        s->chunk.flags = (s->called ? 0 : WEIR_CHUNK_FIRST) | (s->last ? WEIR_CHUNK_LAST : 0);
        s->chunk.data = (weir_str){data.p, data.n};
        s->called = true;
        t->status = 0;
        stamp = task_enter(t, t->responses ? MODULE_RESPONSE_BODY : MODULE_REQUEST_BODY);
        rc = s->fn(t, t->inst->inst, t->ctx, &s->chunk);
        task_leave(t, stamp);
        decide(s, task_settle(t, rc), false);
}

/* It waits, perhaps for what it has emitted to be taken. */
static bool drain(struct stage *s)
{
        bool moved;

        if (!task_draining(&s->task))
                return false;
        moved = move_on(&s->out, QUEUE_HIGH, &s->emitted);
        if (s->emitted.n > 0 || s->out.n >= QUEUE_HIGH)
                return moved;
        task_drained(&s->task);
        return true;
}

static bool pass(struct stage *s)
{
        bool moved = move_on(&s->out, QUEUE_HIGH, input(s));

        s->ended = input_ended(s) && input(s)->n == 0;
        return moved || s->ended;
}

/* Whether anything has moved. */
static bool step(struct stage *s)
{
        bool moved = false;

        if (s->ended)
                return false;
        if (s->waits)
                return drain(s);
        if (s->emitted.n > 0) {
                moved = move_on(&s->out, high_of(s), &s->emitted);
                if (s->emitted.n > 0)
                        return moved;
        }
        if (s->last) {
                s->ended = true;
                return true;
        }
        if (s->passes)
                return pass(s) || moved;
        if (!take(s))
                return moved;
        call(s);
        return true;
}

/* ------------------------------------------------------------------ the row */

static bool deliver(struct filter *f)
{
        struct pipe *to = f->to;
        struct buf *out = &f->end->out;
        size_t n = to->data.n < to->high ? MIN(out->n, to->high - to->data.n) : 0;

        if (n > 0)
                pipe_move(to, out, n);
        if (!f->end->ended || out->n > 0 || to->end)
                return n > 0;
        to->end = true;
        return true;
}

/* The producer goes on: something was taken of it, or the consumer asks. */
static void ask(struct filter *f, bool took)
{
        if (f->from->end || pipe_full(f->from) || !((took && f->from->stalled) || f->wanted))
                return;
        f->wanted = false;
        f->user->room(f->t, f->response);
}

/* Moves what can be moved.  Returns whether the consumer has something new. */
static bool pump(struct filter *f)
{
        size_t before = f->from->data.n;
        bool moved, news = false;

        f->pumping = true;
        do {
                moved = f->open && deliver(f);
                news |= moved;
                for (struct stage *s = f->end; s != NULL && !f->over; s = s->prev)
                        moved |= step(s);
        } while (moved && !f->over);
        f->pumping = false;
        if (f->over)
                return false;
        f->to->stalled = f->open && !f->to->end && pipe_full(f->to);
        ask(f, f->from->data.n < before);
        return news;
}

/* Whether the chain's question is answered: the function added last has come to its verdict. */
static bool collected(const struct filter *f)
{
        return f->over || (f->end->called && !f->end->waits);
}

/* Tells what has come of it; the last thing done. */
static void report(struct filter *f, bool news)
{
        enum chain_result how = f->how;

        if (f->collecting && !collected(f))
                return;
        if (how == CHAIN_RESPOND)
                how = f->t->r->res_head_sent ? CHAIN_CUT : chain_respond(&f->decider->task);
        if (f->collecting) {
                f->collecting = false;
                f->collected(f->head, how);
        } else if (how != CHAIN_CONTINUE) {
                f->user->decided(f->t, how);
        } else if (news) {
                f->user->ready(f->t, f->response);
        }
}

static void go_on(struct filter *f)
{
        struct request *r = f->t->r;

        CHECK_OBJ(f, FILTER_MAGIC);
        CHECK(!f->pumping);
        request_hold(r);
        report(f, pump(f));
        request_drop(r);
}

static void stage_verdict(struct weir_task *t, weir_rc rc, bool timed_out)
{
        struct stage *s = t->stage;

        CHECK(s->waits);
        decide(s, rc, timed_out);
        if (!s->filter->pumping) /* else it goes on anyway */
                go_on(s->filter);
}

static void go_on_task(struct loop_task *task)
{
        go_on(CONTAINER_OF(task, struct filter, task));
}

/* ------------------------------------------------------------------ life */

static bool no_body(const struct txn *t, bool response)
{
        const struct request *r = t->r;

        if (!response)
                return r->req.framing == FRAMING_NONE;
        return r->req.method == METHOD_HEAD || r->res.framing == FRAMING_NONE;
}

static struct filter *filter_new(struct weir_task *head, const struct chain_user *user,
                                 filter_collected *fn)
{
        struct txn *t = head->txn;
        struct request *r = t->r;
        struct filter *f = ARENA_NEW(r->arena, struct filter);

        if (f == NULL)
                return NULL;
        *f = (struct filter){.magic = FILTER_MAGIC,
                             .t = t,
                             .head = head,
                             .user = user,
                             .collected = fn,
                             .response = head->responses,
                             .pipe.high = PIPE_HIGH};
        if (f->response) { /* what is in the client's pipe has come through none of them */
                struct pipe empty = f->pipe;
                f->pipe = r->res_body;
                r->res_body = empty;
                f->from = r->from_server = &f->pipe;
                f->to = &r->res_body;
        } else {
                f->from = &r->req_body;
                f->to = r->to_server = &f->pipe;
        }
        t->filter[head->responses ? WEIR_RESPONSE : WEIR_REQUEST] = f;
        return f;
}

static void stage_task(struct stage *s, struct weir_task *head)
{
        struct weir_task *t = &s->task;

        task_init(t, TASK_REQUEST, head->inst, head->loop, head->arena);
        t->txn = head->txn;
        t->responses = head->responses;
        t->phase = head->responses ? MODULE_RESPONSE_BODY : MODULE_REQUEST_BODY;
        t->use = head->use;
        t->ctx = head->ctx;
        t->used = head->used;
        t->head = head;
        t->route = head->route;
        t->stage = s;
        t->verdict = stage_verdict;
}

static uint64_t max_of(const struct weir_task *head)
{
        uint64_t route = head->txn->eff->body_max;

        return head->mode_max != 0 ? head->mode_max : route != 0 ? route : BUFFER_MAX;
}

static struct stage *stage_new(struct filter *f, struct weir_task *head)
{
        struct stage *s = ARENA_NEW(head->arena, struct stage);

        if (s == NULL)
                return NULL;
        stage_task(s, head);
        s->filter = f;
        s->fn = f->response ? head->inst->desc->on_response_body
                            : head->inst->desc->on_request_body;
        s->mode = head->mode;
        s->max = max_of(head);
        s->whole = s->mode == WEIR_BODY_BUFFER || no_body(f->t, f->response);
        s->prev = f->end;
        if (f->end != NULL)
                f->end->next = s;
        else
                f->first = s;
        f->end = s;
        return s;
}

/* The request's `memory` is used up: no function may be passed over for that. */
static COLD enum chain_result no_memory(struct weir_task *head)
{
        head->txn->reason = REASON_FUNCTION_ERROR;
        task_say_failed(head, "found no memory for its body hook");
        return CHAIN_CUT;
}

enum chain_result filter_add(struct weir_task *head, const struct chain_user *user,
                             filter_collected *fn)
{
        struct txn *t = head->txn;
        struct filter *f = filter_of(t, head->responses);
        struct stage *s;

        if (f == NULL)
                f = filter_new(head, user, fn);
        s = f != NULL ? stage_new(f, head) : NULL;
        if (s == NULL)
                return no_memory(head);
        if (!s->whole)
                return CHAIN_CONTINUE;
        if (!f->response && !f->from->end && user->wanted != NULL) {
                t->reason = user->wanted(t);
                if (t->reason != REASON_NONE)
                        return CHAIN_CUT;
        }
        (void)pump(f);
        if (!collected(f)) {
                f->collecting = true;
                return CHAIN_WAIT;
        }
        return f->how == CHAIN_RESPOND ? chain_respond(&f->decider->task) : f->how;
}

void filter_end(struct txn *t, bool response)
{
        struct filter *f = filter_of(t, response);
        struct request *r = t->r;

        if (f == NULL)
                return;
        CHECK_OBJ(f, FILTER_MAGIC);
        CHECK(!f->pumping);
        f->over = true;
        t->filter[response ? WEIR_RESPONSE : WEIR_REQUEST] = NULL;
        if (list_linked(&f->task.link))
                list_remove(&f->task.link);
        for (struct stage *s = f->first; s != NULL; s = s->next) {
                task_end(&s->task);
                buf_clear(&s->now);
                buf_clear(&s->emitted);
                buf_clear(&s->out);
        }
        if (response) {
                buf_clear(&r->res_body.data);
                r->res_body = f->pipe;
                r->from_server = &r->res_body;
        } else {
                buf_clear(&f->pipe.data);
                r->to_server = &r->req_body;
        }
        f->magic = DEAD_MAGIC;
}

/* ------------------------------------------------------------------ what flow says */

enum chain_result filter_open(struct filter *f)
{
        CHECK_OBJ(f, FILTER_MAGIC);
        if (f->open)
                return CHAIN_CONTINUE;
        f->open = true;
        (void)pump(f);
        return f->how == CHAIN_RESPOND ? chain_respond(&f->decider->task) : f->how;
}

void filter_came(struct filter *f)
{
        go_on(f);
}

/* Put off to the end of the turn: the consumer, who has just taken, is told within go_on. */
void filter_room(struct filter *f)
{
        CHECK_OBJ(f, FILTER_MAGIC);
        f->wanted = !f->response;
        loop_defer(f->t->r->loop, &f->task, go_on_task);
}

static bool rewrites(const struct filter *f)
{
        for (const struct stage *s = f->first; s != NULL; s = s->next)
                if (s->mode != WEIR_BODY_READ)
                        return true;
        return false;
}

void filter_frame(const struct filter *f, struct msg *m)
{
        const struct request *r = f->t->r;
        const struct fields *trailers = f->response ? &r->res.trailers : &r->req.trailers;
        uint64_t known = f->to->passed + f->end->out.n;

        if (f->end->ended)
                m->expect_continue = false;
        if (!rewrites(f) || (f->response && m->framing == FRAMING_NONE))
                return;
        if (!f->end->ended || trailers->n > 0) {
                m->framing = FRAMING_CHUNKED;
        } else if (m->framing != FRAMING_NONE || known > 0) {
                m->framing = FRAMING_LENGTH;
                m->length = known;
        }
}

/* ------------------------------------------------------------------ host calls */

bool stage_holds_head(const struct stage *s)
{
        return s->whole;
}

bool stage_has_last(const struct stage *s)
{
        return s->last;
}

bool stage_replaces(const struct stage *s)
{
        return s->mode != WEIR_BODY_READ;
}

bool stage_streams(const struct stage *s)
{
        return stage_replaces(s) && !s->whole;
}

/* What is said of a body that will be another. */
static void drop_fields(struct request *r, bool response)
{
        static const str names[] = {STR_INIT("Content-Length"), STR_INIT("ETag"),
                                    STR_INIT("Accept-Ranges"),  STR_INIT("Content-MD5"),
                                    STR_INIT("Digest"),         STR_INIT("Content-Digest"),
                                    STR_INIT("Repr-Digest")};
        struct fields *fs = response ? &r->res.fields : &r->req.fields;

        for (size_t i = 0; i < COUNT(names); i++)
                fields_del(fs, names[i]);
}

/* The mode can be chosen now. */
static weir_err may_choose(const weir_req *t, int32_t mode)
{
        const weir_module *m = t->inst->desc;

        if (t->stage != NULL)
                return mode == WEIR_BODY_SKIP ? WEIR_OK : WEIR_E_PHASE;
        if (t->logging || (t->responses && t->txn->r->res.status == 101))
                return WEIR_E_PHASE;
        if (mode < WEIR_BODY_SKIP || mode > WEIR_BODY_BUFFER)
                return WEIR_E_INVAL;
        if (mode != WEIR_BODY_SKIP &&
            (t->responses ? m->on_response_body : m->on_request_body) == NULL) {
                task_complain(t->inst, "body_mode() without a hook for that body");
                return WEIR_E_INVAL;
        }
        return WEIR_OK;
}

weir_err filter_body_mode(weir_req *t, int32_t mode, uint64_t max)
{
        weir_err err;

        if (!task_valid(t, 1u << TASK_REQUEST, "body_mode"))
                return WEIR_E_PHASE;
        err = may_choose(t, mode);
        if (err != WEIR_OK)
                return err;
        if (t->stage != NULL) {
                t->stage->passes = true;
                return WEIR_OK;
        }
        t->mode = (uint8_t)mode;
        t->mode_max = max;
        if (mode == WEIR_BODY_REWRITE)
                drop_fields(t->txn->r, t->responses);
        return WEIR_OK;
}

weir_err filter_body_emit(weir_req *t, weir_str data)
{
        struct stage *s;
        uint64_t max;

        if (!task_valid(t, 1u << TASK_REQUEST, "body_emit") || t->stage == NULL ||
            !stage_replaces(t->stage))
                return WEIR_E_PHASE;
        if (data.p == NULL)
                return WEIR_E_INVAL;
        s = t->stage;
        max = s->mode == WEIR_BODY_BUFFER ? MAX(s->max, QUEUE_HIGH) : QUEUE_HIGH;
        if (data.n > max || s->emitted.n > max - data.n)
                return WEIR_E_FULL;
        if (s->mode == WEIR_BODY_BUFFER && s->emitted.n == 0)
                drop_fields(t->txn->r, t->responses);
        buf_put(&s->emitted, data.p, data.n);
        return WEIR_OK;
}
