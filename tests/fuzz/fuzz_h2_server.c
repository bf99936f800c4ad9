/*
 * Frames from a client, in any order and of any sense: what reaches flow is sound, every request
 * ends once, and nothing is left when the client has gone.
 */
#include "base/check.h"
#include "http/codecs.h"
#include "http/downstream.h"
#include "http/field.h"
#include "http/reply.h"

#include <sys/socket.h>
#include <unistd.h>

static unsigned live; /* requests that flow has */

static void check_message(const struct msg *m)
{
        CHECK(m->version == 20 && m->authority.n > 0 && m->method_text.n > 0);
        CHECK(m->target.p[0] == '/' || str_eq(m->target, STR("*")));
        CHECK(!str_has_ctl(m->target) && str_chr(m->target, ' ') < 0);
        CHECK(m->method != METHOD_CONNECT);
        FIELDS_EACH(f, &m->fields)
        {
                CHECK(field_name_ok(f->name) && field_value_ok(f->value));
                CHECK(f->id == field_id_of(f->name));
                CHECK(!(field_flags_of(f->id) & FIELD_F_HOP) || f->id == FIELD_TE ||
                      f->id == FIELD_HTTP2_SETTINGS);
        }
}

static void respond(struct request *r)
{
        int status = r->refused ? reason_rows[r->refused].status : 200;
        reply_fill(r, status, REASON_RESPOND, STR_NONE, STR_NONE);
        if (r->req.upgrade.p) {
                r->res.status = 101;
                r->res.framing = FRAMING_TUNNEL;
                r->res_body.end = false;
                r->tunnel = true;
        }
        r->res_head_sent = true;
        r->client->head(r);
}

static void take(struct request *r)
{
        struct pipe *in = &r->req_body, *out = &r->res_body;
        if (r->tunnel) {
                buf_move(&out->data, &in->data, in->data.n);
                out->end = in->end;
                r->client->res_ready(r);
        } else {
                buf_drain(&in->data, in->data.n);
        }
        if (r->client && !in->end)
                r->client->req_room(r);
        else if (r->client && !r->res_head_sent)
                respond(r);
}

static void begin(struct request *r)
{
        live++;
        CHECK(r->client->facts(r)->serial != 0);
        if (r->refused == REASON_NONE) {
                check_message(&r->req);
                if (r->client->limits(r, SEC, SEC, 100000) != REASON_NONE)
                        r->refused = REASON_BODY_MAX;
        }
        if (r->refused == REASON_NONE)
                r->client->interim(r, &(const struct msg){.status = 103});
        if (r->refused == REASON_NONE && !r->req.upgrade.p)
                take(r);
        else
                respond(r);
}

static void failed(struct request *r, enum reason why)
{
        r->refused = why;
        if (r->res_head_sent) {
                r->client->cut(r, why);
                live--;
                request_drop(r);
        } else {
                respond(r);
        }
}

static void room(struct request *r)
{
        (void)r;
}

static void sent(struct request *r)
{
        CHECK(!r->client);
        live--;
        request_drop(r);
}

static void gone(struct request *r, enum reason why)
{
        (void)why;
        sent(r);
}

static const struct flow_ops flow = {begin, take, failed, room, sent, gone};

static const struct downstream_conf conf = {
        .limits = {4096, 1024, 24},
        .h2_limits = {.max_streams = 20,
                      .requests = 50,
                      .continuations = 8,
                      .resets = 20,
                      .pings = 10,
                      .settings = 10,
                      .priorities = 20,
                      .empty_data = 10,
                      .window_updates = 50,
                      .unknown = 10},
        .h2 = true,
        .head_us = SEC,
        .idle_us = SEC,
        .body_us = SEC,
        .send_us = SEC,
        .flow = &flow,
        .name = "fuzz",
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0";
        struct loop *l = loop_new(0, NULL);
        struct addr peer = {.len = sizeof(struct sockaddr_in), .in = {.sin_family = AF_INET}};
        char out[65536];
        int fd[2];

        loop_turn(l, false);
        CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd) == 0);
        CHECK(write(fd[0], preface, sizeof(preface) - 1) == sizeof(preface) - 1);
        downstream_accept(l, fd[1], &peer, &conf, NULL);
        for (size_t at = 0; at < size;) {
                size_t n = MIN(size - at, 4096);
                if (write(fd[0], data + at, n) != (ssize_t)n)
                        break;
                at += n;
                loop_turn(l, false);
                while (read(fd[0], out, sizeof(out)) > 0)
                        ;
        }
        loop_turn(l, false);
        close(fd[0]);
        loop_turn(l, false);
        downstream_close_all(l, REASON_SHUTDOWN);
        loop_turn(l, false);
        io_linger_end(l);
        CHECK(live == 0 && codecs(l)->streams.live == 0 && codecs(l)->servers.live == 0);
        codecs_end(l);
        loop_free(l);
        return 0;
}
