/*
 * Tunnels (tunnel.h).
 *
 * The one difficulty: a silent WebSocket may be well or dead, and only a PING tells; but a side in
 * whose direction a long frame is under way cannot be sent one, and must not be given up for that.
 * So a side is given up only if it left a PING that has gone unanswered, or if both are silent.
 *
 * A PING goes into the pipe to its side, its PONG comes through the pipe from there: each pipe's
 * tracker (http/websocket.h) puts in the one and leaves out the other.
 */
#include "proxy/tunnel.h"

#include "base/crypto.h"
#include "proxy/gen.h"

#define TICKS 4 /* within the shortest of the times */

enum tunnel_kind { KIND_WEBSOCKET, KIND_OTHER, KINDS };
enum tunnel_protocol { PROTOCOL_CLIENT_1, PROTOCOL_CLIENT_2, PROTOCOLS };

static const str kind_words[KINDS] = {STR_INIT("websocket"), STR_INIT("other")};
static const str protocol_words[PROTOCOLS] = {STR_INIT("http/1.1"), STR_INIT("h2")};

/* Loop times; 0: never. */
struct side {
        int64_t heard;           /* its last bytes */
        int64_t pinged;          /* when a PING last went into the pipe to it */
        int64_t asked;           /* the first one since it was heard */
        bool waiting;            /* one is to go there when the frame under way has ended */
        struct websocket frames; /* of the direction to it */
};

/* Invariant: user is set until tunnel_end.  The pipes point to frames only where ping_us is set. */
struct tunnel {
        struct txn *t;
        const struct tunnel_user *user;
        struct deadline deadline;
        int64_t idle_us, ping_us; /* 0: never */
        enum tunnel_kind kind;
        enum tunnel_protocol protocol;
        struct side side[2];
};

/* ------------------------------------------------------------------ counting */

static void put_labels(struct buf *b, enum tunnel_kind kind, enum tunnel_protocol protocol)
{
        metric_label(b, "upgrade", kind_words[kind]);
        metric_label(b, "protocol", protocol_words[protocol]);
}

/* One thread's, of one kind and protocol. */
struct counts {
        uint64_t open;
        metric_cell *shown, *idle;
};

static struct counts *counts_of(const struct tunnel *n)
{
        static _Thread_local struct counts all[KINDS][PROTOCOLS];
        struct counts *c = &all[n->kind][n->protocol];
        struct metric_slot *metrics = n->t->r->loop->metrics;
        struct buf b = BUF_INIT;

        if (LIKELY(c->shown != NULL))
                return c;
        put_labels(&b, n->kind, n->protocol);
        c->shown = metric_series(metrics, METRIC_TUNNELS, buf_pullup(&b, b.n));
        c->idle = metric_series(metrics, METRIC_TUNNELS_IDLE, buf_pullup(&b, b.n));
        buf_clear(&b);
        return c;
}

static void count_open(const struct tunnel *n, int by)
{
        struct counts *c = counts_of(n);

        c->open += (uint64_t)by;
        metric_set(c->shown, (int64_t)c->open);
}

void tunnel_status(struct metric_region *metrics, struct json_writer *w)
{
        uint64_t idle = 0;

        json_key(w, STR("websockets"));
        json_open(w, '{');
        for (enum tunnel_protocol p = 0; p < PROTOCOLS; p++) {
                struct buf b = BUF_INIT;
                put_labels(&b, KIND_WEBSOCKET, p);
                json_key(w, protocol_words[p]);
                json_u64(w, metric_sum(metrics, METRIC_TUNNELS, buf_pullup(&b, b.n)));
                idle += metric_sum(metrics, METRIC_TUNNELS_IDLE, buf_pullup(&b, b.n));
                buf_clear(&b);
        }
        json_key(w, STR("idle"));
        json_u64(w, idle);
        json_close(w);
}

/* ------------------------------------------------------------------ silence */

static struct pipe *pipe_to(const struct tunnel *n, enum tunnel_side side)
{
        struct request *r = n->t->r;

        return side == TUNNEL_SERVER ? &r->req_body : &r->res_body;
}

/* It has had its PING, and the time that is left of the timeout to answer it. */
static bool gave_no_answer(const struct tunnel *n, const struct side *s, int64_t now)
{
        int64_t wait = n->idle_us > n->ping_us ? n->idle_us - n->ping_us : n->idle_us;

        return s->asked != 0 && now - s->heard >= n->idle_us && now - s->asked >= wait;
}

static bool is_over(const struct tunnel *n, int64_t now)
{
        const struct side *c = &n->side[TUNNEL_CLIENT], *s = &n->side[TUNNEL_SERVER];

        if (n->idle_us == 0)
                return false;
        return now - MAX(c->heard, s->heard) >= n->idle_us || gave_no_answer(n, c, now) ||
               gave_no_answer(n, s, now);
}

static void has_gone(struct side *s, int64_t now)
{
        s->waiting = false;
        s->pinged = now;
        s->asked = s->asked != 0 ? s->asked : now;
}

/* Returns whether a PING has gone into the pipe. */
static bool ping(struct tunnel *n, enum tunnel_side which, int64_t now)
{
        struct side *s = &n->side[which];
        struct pipe *p = pipe_to(n, which);
        uint32_t key = (uint32_t)crypto_fast_random();

        if (now - s->heard < n->ping_us) {
                s->frames.due = s->waiting = false;
                return false;
        }
        if (s->waiting && !s->frames.due) /* it has gone since */
                has_gone(s, now);
        if (s->waiting || now - s->pinged < n->ping_us || pipe_full(p) ||
            !websocket_ping(&s->frames, &p->data,
                            which == TUNNEL_SERVER ? (const uint8_t *)&key : NULL))
                return false;
        s->waiting = s->frames.due;
        if (!s->waiting)
                has_gone(s, now);
        return !s->waiting;
}

/* Once an end has finished, or said CLOSE, silence alone counts. */
static bool both_answer(const struct tunnel *n)
{
        for (enum tunnel_side i = TUNNEL_CLIENT; i <= TUNNEL_SERVER; i++)
                if (pipe_to(n, i)->end || n->side[i].frames.closing || n->side[i].frames.broken)
                        return false;
        return true;
}

static void arm(struct tunnel *n);

static void tick(struct deadline *d)
{
        struct tunnel *n = CONTAINER_OF(d, struct tunnel, deadline);
        struct request *r = n->t->r;
        int64_t now = r->loop->now;

        if (is_over(n, now)) {
                metric_add(counts_of(n)->idle, 1);
                n->user->idle(n->t);
                return;
        }
        arm(n);
        request_hold(r);
        for (enum tunnel_side i = TUNNEL_CLIENT; n->ping_us != 0 && i <= TUNNEL_SERVER; i++) {
                if (n->user != NULL && both_answer(n) && ping(n, i, now))
                        n->user->ready(n->t, i);
        }
        request_drop(r);
}

/* With PINGs a steady tick; without, the timeout itself, which bytes put off. */
static void arm(struct tunnel *n)
{
        int64_t us = n->idle_us;

        if (n->ping_us != 0)
                us = MAX((us != 0 ? MIN(us, n->ping_us) : n->ping_us) / TICKS, 1);
        deadline_set(n->t->r->loop, &n->deadline, us, tick);
}

void tunnel_heard(struct tunnel *n, enum tunnel_side from)
{
        n->side[from].heard = n->t->r->loop->now;
        n->side[from].asked = 0;
        if (n->ping_us == 0)
                arm(n);
}

/* ------------------------------------------------------------------ life */

/* From here on the pipe's frames are followed; what is in it already has begun to be one. */
static void follow(struct pipe *p, struct websocket *frames, const uint8_t *mark)
{
        struct buf come = p->data;

        websocket_begin(frames, mark);
        p->data = BUF_INIT;
        p->frames = frames;
        websocket_move(frames, &p->data, &come, come.n);
}

struct tunnel *tunnel_begin(struct txn *t, const struct tunnel_user *user)
{
        struct request *r = t->r;
        struct tunnel *n = ARENA_NEW(r->arena, struct tunnel);
        bool websocket = str_ieq(r->res.upgrade, STR("websocket"));
        uint8_t mark[WEBSOCKET_MARK];

        CHECK(n != NULL);
        n->t = t;
        n->user = user;
        n->kind = websocket ? KIND_WEBSOCKET : KIND_OTHER;
        n->protocol = r->req.version == 20 ? PROTOCOL_CLIENT_2 : PROTOCOL_CLIENT_1;
        n->idle_us = t->eff->tunnel;
        n->ping_us = websocket ? t->eff->websocket_ping : 0;
        for (enum tunnel_side i = TUNNEL_CLIENT; i <= TUNNEL_SERVER; i++)
                n->side[i].heard = r->loop->now;
        if (n->ping_us != 0) {
                crypto_random(mark, sizeof(mark));
                for (enum tunnel_side i = TUNNEL_CLIENT; i <= TUNNEL_SERVER; i++)
                        follow(pipe_to(n, i), &n->side[i].frames, mark);
        }
        count_open(n, 1);
        arm(n);
        return n;
}

void tunnel_end(struct tunnel *n)
{
        n->user = NULL;
        deadline_clear(&n->deadline);
        count_open(n, -1);
}
