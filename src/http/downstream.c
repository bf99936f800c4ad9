/*
 * The life of a client's connection, whatever is spoken on it.
 *
 *      PROXY -> TLS -> FIRST -> IDLE <-> HEAD <-> BUSY      (from IDLE on: its codec)
 *        \-------\-------\--------\--------\--------\--> closed, lingering where the client may
 * still send
 *
 * The difficulty is the beginning: a PROXY header comes in the clear before TLS, so not a byte
 * behind it may be taken.  Connection objects are freed at the end of the turn in which they are
 * closed, because whoever closes one may have been called by it.
 */
#include "http/downstream_conn.h"

#include "base/log.h"
#include "net/listen.h"
#include "net/proxyproto.h"

#include <stdio.h>
#include <stdlib.h>

#define LINGER_US (2 * SEC)

static void on_deadline(struct deadline *d);

/* A conf is valid for a turn: the newest is asked for each time. */
const struct downstream_conf *downstream_conf_of(struct downstream *c)
{
        if (c->refresh)
                c->conf = c->refresh(c->io.loop, c->listener);
        return c->conf;
}

void downstream_arm(struct downstream *c, enum conn_timer what, int64_t us)
{
        c->timer = (uint8_t)what;
        deadline_set(c->io.loop, &c->deadline, us, on_deadline);
}

/* ---------------------------------------------------------------- the end of a connection */

static void bury(struct loop_task *t)
{
        struct downstream *c = CONTAINER_OF(t, struct downstream, task);
        struct loop *l = c->io.loop;
        if (c->codec && c->codec->bury)
                c->codec->bury(c);
        free((char *)c->tlvs.p);
        c->magic = DEAD_MAGIC;
        slab_put(&codecs(l)->servers, c);
}

static void leave(struct downstream *c)
{
        struct loop *l = c->io.loop;
        if (c->state == CONN_PROXY && c->preface) {
                buf_clear(c->preface);
                free(c->preface);
        }
        c->state = CONN_CLOSED;
        deadline_clear(&c->deadline);
        list_remove(&c->link);
        codecs(l)->n_connections--;
        metric_set(c->stats->open_cell, (int64_t)--c->stats->open);
        listen_closed(l);
        loop_defer(l, &c->task, bury);
}

void downstream_close(struct downstream *c, enum reason why)
{
        if (c->state == CONN_CLOSED)
                return;
        io_close(&c->io, why);
        leave(c);
}

void downstream_close_lingering(struct downstream *c, enum reason why)
{
        io_close_lingering(&c->io, why, LINGER_US);
        leave(c);
}

/* ---------------------------------------------------------------- deadlines */

static void on_deadline(struct deadline *d)
{
        struct downstream *c = CONTAINER_OF(d, struct downstream, deadline);
        CHECK_OBJ(c, CONN_MAGIC);
        enum conn_timer what = c->timer;
        c->timer = TIMER_NONE;
        if (what == TIMER_NONE)
                return;
        if (c->state == CONN_PROXY)
                downstream_close(c, REASON_PROXY_PROTOCOL);
        else if (c->state == CONN_TLS)
                downstream_close(c, REASON_TLS_TIMEOUT);
        else if (c->state == CONN_FIRST)
                downstream_close(c, REASON_CLIENT_HEAD);
        else
                c->codec->expired(c, what);
}

/* ---------------------------------------------------------------- the beginning of a connection */

static void shorten(struct short_addr *s, const struct addr *a)
{
        s->len = (uint8_t)MIN(a->len, sizeof(s->bytes));
        memcpy(s->bytes, &a->sa, s->len);
}

static void lengthen(struct addr *a, const struct short_addr *s)
{
        a->len = s->len;
        memcpy(&a->sa, s->bytes, s->len);
}

static void choose(struct downstream *c, const struct downstream_codec *codec)
{
        c->state = CONN_IDLE;
        c->codec = codec;
        c->io.owner = &codec->io;
        codec->begin(c);
}

/* A client that knows beforehand begins with this (RFC 9113 3.4). */
static const str h2_preface = STR_INIT("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");

/* The first bytes tell, and stay for the codec; usually there are enough of them at once. */
static void first_readable(struct downstream *c)
{
        switch (io_read(&c->io, BUF_CHUNK, NULL)) {
        case IO_OK:
                break;
        case IO_AGAIN:
                return;
        case IO_EOF:
        case IO_ERROR:
                downstream_close(c, c->io.in.n ? REASON_CLIENT_GONE : REASON_CLIENT_CLOSED);
                return;
        }
        str text = buf_pullup(&c->io.in, h2_preface.n);
        if (!str_starts(h2_preface, text))
                choose(c, &h1_codec);
        else if (text.n == h2_preface.n)
                choose(c, &h2_codec);
}

static void start_plain(struct downstream *c, const struct downstream_conf *conf)
{
        if (conf->h1 && conf->h2)
                c->state = CONN_FIRST;
        else
                choose(c, conf->h2 ? &h2_codec : &h1_codec);
}

/* ALPN has the word.  Who did not ask by it speaks HTTP/1.1 where that is spoken. */
static void start_in_tls(struct downstream *c)
{
        str agreed = tls_facts(c->io.tls)->alpn;
        bool h2 = agreed.n ? str_eq(agreed, STR("h2")) : !downstream_conf_of(c)->h1;
        choose(c, h2 ? &h2_codec : &h1_codec);
}

static void start_protocol(struct downstream *c)
{
        const struct downstream_conf *conf = downstream_conf_of(c);
        c->preface = NULL;
        if (!conf->tls) {
                start_plain(c, conf);
                return;
        }
        c->state = CONN_TLS;
        io_start_tls(&c->io, tls_accept_peer(conf->tls, c->io.fd));
}

/* Looks at what has come without taking more than the header: what follows it may be TLS. */
static void proxy_readable(struct downstream *c)
{
        char text[PROXYPROTO_MAX];
        struct proxyproto head = {0};
        size_t had = c->preface ? c->preface->n : 0;
        ptrdiff_t more = io_peek(&c->io, text + had, sizeof(text) - had);
        if (more == 0)
                return;
        int n = -1;
        if (more > 0) {
                if (had)
                        buf_copy_out(c->preface, 0, text, had);
                n = proxyproto_parse(str_of(text, had + (size_t)more), &head);
        }
        if (n < 0 || (n == 0 && had + (size_t)more == sizeof(text))) {
                downstream_close(c, REASON_PROXY_PROTOCOL);
                return;
        }
        if (n == 0) { /* taken, or the socket would stay readable and keep us turning */
                if (!c->preface)
                        c->preface = calloc(1, sizeof(*c->preface));
                CHECK(c->preface != NULL);
                buf_put(c->preface, text + had, (size_t)more);
                io_skip(&c->io, (size_t)more);
                return;
        }
        io_skip(&c->io, (size_t)n - had);
        if (c->preface) {
                buf_clear(c->preface);
                free(c->preface);
        }
        if (head.src.len)
                shorten(&c->peer, &head.src);
        if (head.dst.len) {
                shorten(&c->local, &head.dst);
                c->local_known = true;
        }
        if (head.tlvs.n)
                c->tlvs = str_of(str_dupz(head.tlvs), head.tlvs.n);
        start_protocol(c);
}

static void answer_plain_on_tls(struct downstream *c)
{
        buf_puts(&c->io.out, STR("HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\n"
                                 "Content-Length: 42\r\nConnection: close\r\n\r\n"
                                 "400: plain HTTP was sent to an HTTPS port\n"));
        metric_add(metric_series(c->io.loop->metrics, METRIC_LOCAL_REPLIES,
                                 STR("reason=\"http_on_tls\"")),
                   1);
        downstream_close_lingering(c, REASON_HTTP_ON_TLS);
}

/* A handshake that failed for the client's certificate is somebody who was kept out. */
static void say_refused(struct downstream *c)
{
        static _Thread_local struct log_quota quota;
        const struct tls_facts *f = tls_facts(c->io.tls);
        struct buf labels = BUF_INIT;
        struct addr peer = {0};
        char who[ADDR_TEXT + 8] = "client ", ip[ADDR_TEXT];

        if (f->refusal.p == NULL)
                return;
        metric_label(&labels, "reason", f->refusal);
        metric_add(metric_series(c->io.loop->metrics, METRIC_CLIENT_CERTIFICATES,
                                 buf_pullup(&labels, labels.n)),
                   1);
        buf_clear(&labels);
        if (!log_wants(LOG_WARN) || !log_quota(&quota, 10))
                return;
        lengthen(&peer, &c->peer);
        snprintf(who, sizeof(who), "client %.*s", (int)addr_print_ip(&peer, ip), ip);
        if (f->refused.n != 0)
                log_warn(who, "its certificate was refused: %.*s (%.*s)", STR_ARG(f->refusal),
                         STR_ARG(f->refused));
        else
                log_warn(who, "it was refused: %.*s", STR_ARG(f->refusal));
}

static void ready(struct io *io, enum reason why)
{
        struct downstream *c = downstream_of(io);
        if (why == REASON_TLS_FAILED)
                say_refused(c);
        if (why == REASON_NONE)
                start_in_tls(c);
        else if (why == REASON_HTTP_ON_TLS)
                answer_plain_on_tls(c);
        else
                downstream_close(c, why);
}

/* Until a codec has it. */
static void readable(struct io *io)
{
        struct downstream *c = downstream_of(io);
        if (c->state == CONN_FIRST) {
                first_readable(c);
                return;
        }
        CHECK(c->state == CONN_PROXY);
        proxy_readable(c);
}

static const struct io_owner young_owner = {.readable = readable, .ready = ready};

void downstream_accept(struct loop *l, int fd, const struct addr *peer,
                       const struct downstream_conf *conf, void *listener)
{
        struct codecs *h = codecs(l);
        struct downstream *c = slab_get(&h->servers);
        c->magic = CONN_MAGIC;
        c->conf = conf;
        c->refresh = conf->refresh;
        c->listener = listener;
        c->accepted = c->started = l->now;
        c->serial = (uint64_t)l->index << 40 | ++h->serial;
        shorten(&c->peer, peer);
        c->stats = codecs_listener(l, conf->name);
        metric_add(c->stats->total, 1);
        metric_set(c->stats->open_cell, (int64_t)++c->stats->open);
        h->n_connections++;
        list_push(&h->connections, &c->link);
        io_open(&c->io, l, fd, &young_owner);
        downstream_arm(c, TIMER_HEAD, conf->head_us);
        if (conf->proxy_protocol)
                c->state = CONN_PROXY;
        else
                start_protocol(c);
}

/* ---------------------------------------------------------------- what codecs ask */

static void learn_local(struct downstream *c)
{
        struct addr a = {.len = sizeof(a) - offsetof(struct addr, sa)};
        if (getsockname(c->io.fd, &a.sa, &a.len) == 0)
                shorten(&c->local, &a);
        c->local_known = true;
}

struct request *downstream_request(struct downstream *c, const struct downstream_conf *conf)
{
        struct request *r = request_new(c->io.loop, conf->flow, conf->request_memory);
        r->req.scheme = c->io.tls ? STR("https") : STR("http");
        r->tls = tls_facts_hold(c->io.tls);
        return r;
}

void downstream_facts(struct downstream *c, struct client_facts *f)
{
        if (!c->local_known)
                learn_local(c);
        lengthen(&f->peer, &c->peer);
        lengthen(&f->local, &c->local);
        f->proxy_tlvs = c->tlvs;
        f->listener = c->listener;
        f->accepted = c->accepted;
        f->serial = c->serial;
}

uint64_t downstream_limit_of(const struct h1_limits *limits, enum reason why)
{
        switch (why) {
        case REASON_HEADER_LINE:
        case REASON_FIELD_LINE:
                return limits->line_max;
        case REASON_HEADER_MAX:
                return limits->head_max;
        case REASON_HEADER_FIELDS:
                return limits->fields_max;
        default:
                return 0;
        }
}

/* ---------------------------------------------------------------- all connections of a loop */

uint32_t downstream_drain(struct loop *l, bool on)
{
        struct codecs *h = codecs(l);
        h->draining = on;
        if (on)
                LIST_EACH (n, &h->connections) {
                        struct downstream *c = CONTAINER_OF(n, struct downstream, link);
                        if (c->codec)
                                c->codec->drain(c);
                }
        return h->n_connections;
}

uint32_t downstream_count(struct loop *l)
{
        return codecs(l)->n_connections;
}

void downstream_close_all(struct loop *l, enum reason why)
{
        struct codecs *h = codecs(l);
        while (!list_empty(&h->connections)) {
                struct downstream *c = CONTAINER_OF(h->connections.next, struct downstream, link);
                if (c->codec)
                        c->codec->end(c, why);
                else
                        downstream_close(c, why);
        }
}
