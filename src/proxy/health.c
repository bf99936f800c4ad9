/*
 * Active checks (health.h).
 *
 *    due -> connect [-> TLS] -> GET path -> status line -> well or not -> due again
 *                               Health/Check -> message and grpc-status -'
 *
 * Only the status line is looked at: a server that answers is not judged by how it frames a body
 * that nobody wants.  Without a path a connection (and TLS) that comes about is enough.
 *
 * The one difficulty: a probe ends from inside calls of its io.  It only closes there; one deadline
 * paces probes and bounds each of them, so the probe's memory is never freed inside such a call but
 * after the turn.
 */
#include "proxy/health.h"

#include "base/check.h"
#include "base/crypto.h"
#include "conf/model.h"
#include "http/grpc.h"
#include "http/grpc_health.h"
#include "http/h2_probe.h"
#include "net/io.h"
#include "proxy/proxyhead.h"
#include "proxy/upstreams.h"

#include <stdlib.h>

#define STATUS_LINE_MAX (4 * KIB)
#define FIRST_WITHIN    (50 * MSEC)

#define HEALTH_MAGIC UINT32_C(0x48454c54)
struct health {
        struct io io; /* first: io's calls come with it */
        uint32_t magic;
        struct server *s; /* NULL: stopped, dies after this turn */
        struct loop *loop;
        bool probing;
        uint32_t fall, rise, failed, passed; /* counts in a row */
        uint16_t expect_min, expect_max;
        int64_t interval, timeout, began;
        bool grpc;
        str request; /* absent: connecting is enough */
        str path, service;
        struct h2_probe *h2;      /* while it probes a server of HTTP/2 */
        struct deadline deadline; /* due, or too late */
        struct loop_task task;
        char why[160];
};

static void probe_begin(struct health *h);

static struct health *health_of(struct io *io)
{
        struct health *h = (struct health *)io;

        CHECK_OBJ(h, HEALTH_MAGIC);
        return h;
}

static void probe_due(struct deadline *d)
{
        probe_begin(CONTAINER_OF(d, struct health, deadline));
}

/* The same moment for all servers would be a pulse: each interval is a tenth longer or shorter. */
static int64_t jitter(int64_t interval)
{
        return interval - interval / 10 +
               (int64_t)(crypto_fast_random() % (uint64_t)(interval / 5 + 1));
}

static void judge(struct health *h, bool well)
{
        if (well) {
                h->failed = 0;
                if (h->passed < h->rise && ++h->passed == h->rise)
                        server_check_up(h->s, h->loop->now);
        } else {
                h->passed = 0;
                if (h->failed < h->fall && ++h->failed == h->fall)
                        server_check_down(h->s, h->why);
        }
}

static void probe_next(struct health *h)
{
        int64_t wait = jitter(h->interval) - (h->loop->now - h->began);

        deadline_set(h->loop, &h->deadline, MAX(wait, 10 * MSEC), probe_due);
}

static void probe_end(struct health *h, bool well)
{
        h->probing = false;
        h2_probe_free(h->h2);
        h->h2 = NULL;
        io_close(&h->io, REASON_DONE);
        judge(h, well);
        probe_next(h);
}

static void probe_failed(struct health *h, const char *fmt, ...) PRINTF_LIKE(2, 3);
static void probe_failed(struct health *h, const char *fmt, ...)
{
        va_list ap;

        va_start(ap, fmt);
        vsnprintf(h->why, sizeof(h->why), fmt, ap);
        va_end(ap);
        probe_end(h, false);
}

static void probe_late(struct deadline *d)
{
        struct health *h = CONTAINER_OF(d, struct health, deadline);

        probe_failed(h, "health check timeout: no answer within %lld ms",
                     (long long)(h->timeout / MSEC));
}

static str authority_of(const struct server *s)
{
        return s->addr.sa.sa_family == AF_UNIX ? STR("localhost") : s->line;
}

static void check_status(struct health *h, unsigned status)
{
        if (status < h->expect_min || status > h->expect_max)
                probe_failed(h, "health check: status %u is not in %u-%u", status, h->expect_min,
                             h->expect_max);
        else
                probe_end(h, true);
}

/* What the server says of the service, or why it says nothing. */
static void check_call(struct health *h, const struct h2_answer *a)
{
        enum grpc_health said;

        if (a->status != 200 || !a->is_grpc) {
                probe_failed(h, "health check: the answer is not gRPC (status %d)", a->status);
        } else if (a->grpc_status < 0) {
                probe_failed(h, "health check: the answer has no grpc-status");
        } else if (a->grpc_status != 0) {
                probe_failed(h, "health check: grpc-status %d %s%s%s", a->grpc_status,
                             grpc_status_name(a->grpc_status), *a->grpc_message ? ": " : "",
                             a->grpc_message);
        } else {
                said = grpc_health_answer(a->body);
                if (said == GRPC_HEALTH_SERVING)
                        probe_end(h, true);
                else if (said == GRPC_HEALTH_BROKEN)
                        probe_failed(h, "health check: the message is no HealthCheckResponse");
                else
                        probe_failed(h, "health check: %s", grpc_health_name(said));
        }
}

/* Both directions of a probe over HTTP/2. */
static void step_h2(struct health *h)
{
        switch (h2_probe_step(h->h2, &h->io.in, &h->io.out)) {
        case H2_PROBE_MORE:
                io_flush(&h->io);
                break;
        case H2_PROBE_THERE:
                if (h->grpc)
                        check_call(h, h2_probe_answer(h->h2));
                else
                        check_status(h, (unsigned)h2_probe_answer(h->h2)->status);
                break;
        case H2_PROBE_BAD:
                probe_failed(h, "health check: the answer is not HTTP/2");
        }
}

static void begin_h2(struct health *h)
{
        const struct server *s = h->s;
        str scheme = s->tls ? STR("https") : STR("http"), authority = authority_of(s);

        if (h->io.tls && !str_eq(tls_facts(h->io.tls)->alpn, STR("h2"))) {
                probe_failed(h, "health check: the server does not agree to h2 (ALPN)");
                return;
        }
        h->h2 = h->grpc ? h2_probe_call(scheme, authority, h->service, h->timeout)
                        : h2_probe_new(scheme, authority, h->path);
        step_h2(h);
}

static void on_ready(struct io *io, enum reason r)
{
        struct health *h = health_of(io);

        if (r == REASON_UPSTREAM_TLS || r == REASON_TLS_FAILED) {
                str words = io->tls ? tls_facts(io->tls)->error : STR_NONE;
                probe_failed(h, "health check: TLS failed: %.*s", STR_ARG(words));
        } else if (r != REASON_NONE) {
                probe_failed(h, "health check: connect: %s",
                             io->error ? strerror(io->error) : reason_rows[r].text);
        } else if (!h->request.n && !h->grpc) {
                probe_end(h, true);
        } else if (h->s->protocol != PROTOCOL_HTTP1) {
                begin_h2(h);
        } else {
                buf_puts(&io->out, h->request);
                io_flush(io);
        }
}

/* "HTTP/1.1 200 OK": the status, or 0 if it is no such line (RFC 9112 4). */
static unsigned status_of(str line)
{
        uint64_t status;
        bool version = str_starts(line, STR("HTTP/1.1 ")) || str_starts(line, STR("HTTP/1.0 "));

        if (!version || line.n < 12 || (line.n > 12 && line.p[12] != ' ') ||
            !str_u64(str_of(line.p + 9, 3), 999, &status))
                return 0;
        return (unsigned)status;
}

static void check_line(struct health *h, str line)
{
        unsigned status;

        if (str_ends(line, STR("\r")))
                line.n--;
        status = status_of(line);
        if (status == 0)
                probe_failed(h, "health check: the answer is not HTTP/1");
        else
                check_status(h, status);
}

static void on_readable(struct io *io)
{
        struct health *h = health_of(io);
        enum io_result r = io_read(io, STATUS_LINE_MAX, NULL);
        str in = STR(""), line;

        if (h->h2 && r == IO_OK) {
                step_h2(h);
                return;
        }
        in = buf_pullup(&io->in, MIN(io->in.n, STATUS_LINE_MAX));
        if (str_cut(in, '\n', &line, &in))
                check_line(h, line);
        else if (line.n >= STATUS_LINE_MAX)
                probe_failed(h, "health check: the answer is not HTTP/1");
        else if (r == IO_EOF || r == IO_ERROR)
                probe_failed(h, "health check: the server closed the connection%s%s",
                             io->error ? ": " : "", io->error ? strerror(io->error) : "");
}

static void on_drained(struct io *io)
{
        (void)io;
}

static const struct io_owner probe_calls = {
        .readable = on_readable, .drained = on_drained, .ready = on_ready};

/* Not a client's connection. */
static void say_who(struct health *h)
{
        struct buf head = BUF_INIT;

        proxyhead_own(&head, h->s);
        io_preface(&h->io, buf_pullup(&head, head.n));
        buf_clear(&head);
}

static void probe_begin(struct health *h)
{
        enum reason r;

        h->began = h->loop->now;
        r = io_connect(&h->io, h->loop, &h->s->addr, &probe_calls);
        if (r != REASON_NONE) {
                snprintf(h->why, sizeof(h->why), "health check: connect: %s",
                         strerror(h->io.error));
                judge(h, false);
                probe_next(h);
                return;
        }
        h->probing = true;
        deadline_set(h->loop, &h->deadline, h->timeout, probe_late);
        if (h->s->tls)
                io_start_tls(&h->io, tls_connect_peer(h->s->tls, h->io.fd, h->s->host));
        if (h->s->proxy_version)
                say_who(h);
}

static str request_of(const struct server *s, str path)
{
        struct buf b = BUF_INIT;
        str host = authority_of(s), out;

        if (!path.n)
                return STR_NONE;
        buf_printf(&b, "GET %.*s HTTP/1.1\r\nHost: %.*s\r\n", STR_ARG(path), STR_ARG(host));
        buf_puts(&b, STR("User-Agent: weir-health\r\nAccept: */*\r\nConnection: close\r\n\r\n"));
        out = str_of(str_dupz(buf_pullup(&b, b.n)), b.n);
        buf_clear(&b);
        return out;
}

static void free_texts(struct health *h)
{
        free((char *)h->path.p);
        free((char *)h->service.p);
        free((char *)h->request.p);
}

const char *health_words(const struct server *s)
{
        return s->health && s->health->failed > 0 ? s->health->why : NULL;
}

void health_configure(struct server *s, const struct upstream_conf *conf)
{
        struct health *h = s->health;

        if (conf->check_interval == 0) {
                health_stop(s);
                server_check_up(s, s->us->control->now); /* nobody would ever say so again */
                return;
        }
        if (!h) {
                h = s->health = calloc(1, sizeof(*h));
                CHECK(h != NULL);
                h->magic = HEALTH_MAGIC;
                h->s = s;
                h->loop = s->us->control;
                deadline_set(h->loop, &h->deadline,
                             1 + (int64_t)(crypto_fast_random() % FIRST_WITHIN), probe_due);
        }
        h->fall = MAX(conf->check_fall, 1);
        h->rise = MAX(conf->check_rise, 1);
        h->expect_min = conf->expect_min;
        h->expect_max = conf->expect_max;
        h->interval = conf->check_interval;
        h->timeout = conf->check_timeout ? conf->check_timeout : conf->check_interval;
        h->grpc = conf->check_grpc;
        if (!h->path.p || !str_eq(h->path, conf->check_path) ||
            !str_eq(h->service, conf->check_service)) {
                free_texts(h);
                h->path = str_of(str_dupz(conf->check_path), conf->check_path.n);
                h->service = str_of(str_dupz(conf->check_service), conf->check_service.n);
                h->request = request_of(s, conf->check_path);
        }
}

static void health_free(struct loop_task *t)
{
        struct health *h = CONTAINER_OF(t, struct health, task);

        free_texts(h);
        h->magic = DEAD_MAGIC;
        free(h);
}

void health_stop(struct server *s)
{
        struct health *h = s->health;

        if (!h)
                return;
        s->health = NULL;
        h->s = NULL;
        deadline_clear(&h->deadline);
        if (h->probing)
                io_close(&h->io, REASON_SHUTDOWN);
        h2_probe_free(h->h2);
        h->h2 = NULL;
        loop_defer(h->loop, &h->task, health_free);
}
