/*
 * What a server of HTTP/2 may send: any frames, in any pieces, to a connection that carries a GET,
 * a POST whose body is still coming and a WebSocket.  Exchanges are told by the rules of the seam:
 * one head, nothing after the end, never more than a pipe holds.
 *
 * The first byte says how the rest is cut into reads; the SETTINGS that every server begins with
 * are there already.
 */
#include "http/h2_client.c"

#include "http/field.h"

#include <sys/socket.h>
#include <unistd.h>

#define EXCHANGES 3

static struct watched {
        struct request *r;
        struct exchange x;
        struct msg sent;
        bool head, over;
} w[EXCHANGES];

static struct watched *watched_of(struct exchange *x)
{
        struct watched *q = x->user_ctx;
        CHECK(&q->x == x && !q->over);
        return q;
}

static void check_fields(const struct fields *fs)
{
        FIELDS_EACH(f, fs)
        {
                CHECK(field_name_ok(f->name) && field_value_ok(f->value));
                CHECK(f->id != FIELD_TRANSFER_ENCODING && f->id != FIELD_CONNECTION);
        }
}

static void on_interim(struct exchange *x)
{
        CHECK(!watched_of(x)->head && x->interim.status >= 100 && x->interim.status < 200 &&
              x->interim.status != 101);
        check_fields(&x->interim.fields);
}

static void on_head(struct exchange *x)
{
        struct watched *q = watched_of(x);
        CHECK(!q->head && (x->res->status >= 200 || x->res->framing == FRAMING_TUNNEL));
        check_fields(&x->res->fields);
        q->head = true;
        q->over = x->phase == EXCHANGE_DONE;
        CHECK(!q->over || q->r->res_body.end);
}

static void on_body(struct exchange *x)
{
        struct watched *q = watched_of(x);
        CHECK(q->head && q->r->res_body.data.n <= PIPE_HIGH);
        if (x->res->framing == FRAMING_LENGTH)
                CHECK(q->r->res_body.passed <= x->res->length);
        q->over = x->phase == EXCHANGE_DONE;
        if (q->over && x->res->framing == FRAMING_LENGTH)
                CHECK(q->r->res_body.passed == x->res->length);
        check_fields(&x->res->trailers);
        if (q->r->res_body.data.n > 1000 && !q->over) {
                buf_clear(&q->r->res_body.data);
                x->ops->res_room(x);
        }
}

static void on_room(struct exchange *x)
{
        (void)watched_of(x);
}

static void on_failed(struct exchange *x, enum reason why)
{
        struct watched *q = watched_of(x);
        CHECK(why != REASON_NONE && x->ops == NULL);
        q->over = true;
}

static const struct exchange_user user = {on_interim, on_head, on_body, on_room, on_failed};

static void on_connected(struct client_conn *c UNUSED, enum reason why UNUSED)
{
}

static void on_change(struct client_conn *c UNUSED)
{
}

static void on_closed(struct client_conn *c UNUSED, enum reason why UNUSED)
{
}

static const struct client_pool pool = {on_connected, on_change, on_closed};
static const struct flow_ops no_flow;

static void begin(struct h2_client *c, struct loop *l, int i)
{
        struct watched *q = &w[i];
        *q = (struct watched){.r = request_new(l, &no_flow, 0)};
        q->sent = (struct msg){.method = i == 1 ? METHOD_POST : METHOD_GET,
                               .method_text = i == 1 ? STR("POST") : STR("GET"),
                               .target = STR("/"),
                               .authority = STR("h"),
                               .framing = i == 1 ? FRAMING_CHUNKED : FRAMING_NONE,
                               .upgrade = i == 2 ? STR("websocket") : STR_NONE};
        q->r->req_body.end = i != 1;
        q->x = (struct exchange){.magic = EXCHANGE_MAGIC,
                                 .r = q->r,
                                 .user = &user,
                                 .user_ctx = q,
                                 .req = &q->sent,
                                 .res = &q->r->res,
                                 .accept_upgrade = i == 2,
                                 .head_max = 4096,
                                 .line_max = 2048,
                                 .fields_max = 20};
        if (i == 1)
                buf_put(&q->r->req_body.data, "body", 4);
        client_bind(&c->conn, &q->x);
        q->x.ops->start(&q->x);
}

static struct h2_client *connection(struct loop *l, int fd)
{
        static const uint8_t settings[] = {0, 0, 12, 4, 0, 0, 0, 0, 0, 0, 3, 0,
                                           0, 0, 9,  0, 8, 0, 0, 0, 1, 0, 0};
        struct h2_client *c = slab_get(&h2_loop(l)->clients);
        static const struct io_owner owner = {readable, drained, ready};
        io_open(&c->io, l, fd, &owner);
        c->magic = H2_CLIENT_MAGIC;
        c->conn.ops = &conn_ops;
        c->conn.pool = &pool;
        list_init(&c->streams);
        list_init(&c->news);
        list_init(&c->dead);
        begin_session(c);
        buf_put(&c->io.in, settings, 21);
        feed(c);
        follow_up(c);
        CHECK(c->state == H2_OPEN);
        return c;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static struct loop *l;
        char waste[4096];
        int fd[2];
        if (size < 1)
                return 0;
        if (!l)
                l = loop_new(0, NULL);
        CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fd) == 0);
        struct h2_client *c = connection(l, fd[0]);
        size_t step = data[0] ? data[0] : size;
        for (int i = 0; i < EXCHANGES; i++)
                begin(c, l, i);
        loop_turn(l, false);
        for (size_t at = 1; at < size && c->state == H2_OPEN; at += step) {
                buf_put(&c->io.in, data + at, MIN(step, size - at));
                feed(c);
                follow_up(c);
                if (c->state == H2_OPEN) {
                        flush(c);
                        follow_up(c);
                }
                while (read(fd[1], waste, sizeof(waste)) > 0)
                        ;
        }
        bool open = c->state == H2_OPEN;
        for (int i = 0; i < EXCHANGES; i++)
                if (!w[i].over)
                        w[i].x.ops->abort(&w[i].x, REASON_CLIENT_GONE);
        if (open && c->state == H2_OPEN)
                client_close(&c->conn, REASON_DONE);
        loop_turn(l, false);
        loop_turn(l, false);
        for (int i = 0; i < EXCHANGES; i++)
                request_drop(w[i].r);
        close(fd[1]);
        h2_client_loop_end(l); /* nothing is left */
        return 0;
}
