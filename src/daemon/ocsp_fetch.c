/*
 * One responder, one question, one answer at a time:
 *
 *   due -> the name's addresses -> connect -> POST -> head -> body -> judged -> due again
 *
 * The difficulty: a try may end anywhere, from inside calls of its io or of the resolver.  So one
 * deadline paces the tries and bounds each of them, a try that ends only closes, and an answer of
 * the resolver that comes too late serves the next try.
 */
#include "daemon/ocsp_fetch.h"

#include "base/crypto.h"
#include "base/log.h"
#include "http/h1_body.h"
#include "net/dns.h"
#include "net/io.h"
#include "net/tls_staple.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define RETRY_MAX (3600 * SEC)
#define STAGGER   (20 * MSEC) /* between the first tries of two certificates */
#define QUOTA     10          /* lines of the log within a second */

enum fetch_state { IDLE, RESOLVING, CONNECTING, HEAD, BODY };

/* Lives as long as the process.  Invariant: io is open from CONNECTING on. */
struct fetch {
        struct io io; /* first: io's calls come with it */
        struct loop *loop;
        struct dns *dns;
        const char *subject; /* "ocsp FILE" */
        struct tls_ocsp *ocsp;
        struct tls_staple_ref place;
        struct ocsp_url url;
        int64_t timeout, retry, pause; /* pause: before the next try, while they fail */
        unsigned failures;             /* since the last good one */
        enum fetch_state state;
        bool asking;      /* the resolver has not answered yet */
        bool must_staple; /* the certificate asks clients to insist on a response */
        struct deadline deadline;
        struct h1_scan scan;
        struct h1_reader reader;
        struct pipe body;
        struct arena *arena; /* of one answer */
};

static const struct h1_limits limits = {
        .head_max = 16 * KIB, .line_max = 8 * KIB, .fields_max = 100};

static void fetch_due(struct deadline *d);

static struct fetch *fetch_of(struct io *io)
{
        return (struct fetch *)io;
}

/* ------------------------------------------------------------------ addresses */

bool ocsp_url_parse(str url, struct ocsp_url *out)
{
        str rest, port = STR_NONE;
        ptrdiff_t slash, colon;
        uint64_t number = 80;

        if (!str_istarts(url, STR("http://")) || str_has_ctl(url) || str_chr(url, ' ') >= 0)
                return false;
        rest = str_from(url, 7);
        (void)str_cut(rest, '#', &rest, &port);
        slash = str_chr(rest, '/');
        out->authority = slash < 0 ? rest : str_head(rest, (size_t)slash);
        out->path = slash < 0 ? STR("/") : str_from(rest, (size_t)slash);
        if (out->authority.n == 0 || !h1_authority_ok(out->authority))
                return false;
        out->host = out->authority;
        colon = str_rchr(out->authority, ':');
        if (colon >= 0 && str_chr(str_from(out->authority, (size_t)colon), ']') < 0) {
                out->host = str_head(out->authority, (size_t)colon);
                port = str_from(out->authority, (size_t)colon + 1);
                if (port.n > 0 && (!str_u64(port, UINT16_MAX, &number) || number == 0))
                        return false;
        }
        if (str_starts(out->host, STR("[")) && str_ends(out->host, STR("]")))
                out->host = str_of(out->host.p + 1, out->host.n - 2);
        out->port = (uint16_t)number;
        return out->host.n > 0;
}

/* ------------------------------------------------------------------ the end of a try */

static void count(struct fetch *f, const char *result)
{
        struct buf labels = BUF_INIT;

        metric_label(&labels, "result", str_z(result));
        metric_add(metric_series(f->loop->metrics, METRIC_OCSP_FETCHES, buf_front(&labels)), 1);
        buf_clear(&labels);
}

static void stop(struct fetch *f)
{
        if (f->state >= CONNECTING)
                io_close(&f->io, REASON_DONE);
        f->state = IDLE;
        buf_clear(&f->body.data);
        f->body = (struct pipe){.high = TLS_OCSP_MAX + 1};
        arena_free(f->arena);
        f->arena = NULL;
}

/* The clients of many machines lost the same responder: they shall not all come back at once. */
static int64_t jitter(int64_t t)
{
        return t - t / 10 + (int64_t)(crypto_fast_random() % (uint64_t)(t / 5 + 1));
}

static int64_t now_s(const struct fetch *f)
{
        return f->loop->wall / SEC;
}

static void fail(struct fetch *f, const char *result, const char *fmt, ...) PRINTF_LIKE(3, 4);
static void fail(struct fetch *f, const char *result, const char *fmt, ...)
{
        static struct log_quota quota;
        struct tls_ocsp_times t = {0};
        int64_t left = tls_staple_times(&f->place, &t) ? t.next_update - now_s(f) : 0;
        char why[256], rest[96];
        va_list ap;

        va_start(ap, fmt);
        vsnprintf(why, sizeof(why), fmt, ap);
        va_end(ap);
        count(f, result);
        stop(f);
        f->failures++;
        f->pause = f->pause ? MIN(f->pause * 2, RETRY_MAX) : f->retry;
        snprintf(rest, sizeof(rest), "clients get none%s",
                 f->must_staple ? ", though the certificate is must-staple" : "");
        if (left > 0)
                snprintf(rest, sizeof(rest), "the one in use counts for another %lld s",
                         (long long)left);
        if (log_quota(&quota, QUOTA))
                log_warn(f->subject, "%.*s: %s; %s; next try in %lld s", STR_ARG(f->url.authority),
                         why, rest, (long long)((f->pause + SEC - 1) / SEC));
        deadline_set(f->loop, &f->deadline, jitter(f->pause), fetch_due);
}

static void plan_refresh(struct fetch *f, const struct tls_ocsp_times *t)
{
        int64_t wait = tls_ocsp_refresh(t, now_s(f), crypto_fast_random());

        deadline_set(f->loop, &f->deadline, wait * SEC, fetch_due);
}

static void succeed(struct fetch *f, str der, const struct tls_ocsp_times *t)
{
        struct tls_ocsp_times old;

        count(f, tls_ocsp_name(TLS_OCSP_GOOD));
        /* A cache on the way may hold an older answer than ours: that is no step forward. */
        if (!tls_staple_times(&f->place, &old) || t->next_update >= old.next_update)
                tls_staple_put(&f->place, der, t);
        log_info(f->subject, "a response was fetched from %.*s, good for %lld s",
                 STR_ARG(f->url.authority), (long long)(t->next_update - now_s(f)));
        stop(f);
        f->failures = 0;
        f->pause = 0;
        plan_refresh(f, t);
}

static void fetch_late(struct deadline *d)
{
        struct fetch *f = CONTAINER_OF(d, struct fetch, deadline);

        fail(f, "timeout", "no answer within %lld ms (ocsp_fetch timeout=)",
             (long long)(f->timeout / MSEC));
}

/* ------------------------------------------------------------------ the answer */

static void judge(struct fetch *f)
{
        struct tls_ocsp_times t;
        str der = buf_pullup(&f->body.data, f->body.data.n);
        enum tls_ocsp_verdict v = tls_ocsp_judge(f->ocsp, der, now_s(f), &t);

        if (v == TLS_OCSP_GOOD)
                succeed(f, der, &t);
        else
                fail(f, tls_ocsp_name(v), "%s", tls_ocsp_text(v));
}

static void read_body(struct fetch *f, bool eof)
{
        struct fields trailers = {0};
        enum reason why =
                h1_reader_take(&f->reader, &f->io.in, &f->body, f->arena, &trailers, &limits);

        if (why != REASON_NONE)
                fail(f, "http", "its answer is malformed (%s)", reason_rows[why].text);
        else if (f->body.data.n > TLS_OCSP_MAX)
                fail(f, "too_large", "its response has more than %u bytes", (unsigned)TLS_OCSP_MAX);
        else if (f->reader.done || (eof && h1_reader_eof(&f->reader, &f->body)))
                judge(f);
        else if (eof)
                fail(f, "closed", "it closed the connection within its answer");
}

/* The head, if it is all there: true when the body follows. */
static bool read_head(struct fetch *f)
{
        for (;;) {
                str in = buf_pullup(&f->io.in, f->io.in.n);
                enum reason why = REASON_NONE;
                uint64_t measured;
                ptrdiff_t n = h1_head_end(&f->scan, in, &limits, &why, &measured);
                struct msg m = {0};

                if (n == 0)
                        return false;
                if (n > 0) {
                        str head = arena_dup(f->arena, str_head(in, (size_t)n));
                        why = h1_parse_response(f->arena, head, METHOD_POST, &m);
                        buf_drain(&f->io.in, (size_t)n);
                }
                if (why != REASON_NONE) {
                        fail(f, "http", "its answer is not HTTP/1");
                        return false;
                }
                f->scan = (struct h1_scan){.kind = H1_RESPONSE};
                if (m.status >= 100 && m.status < 200 && m.status != 101)
                        continue;
                if (m.status != 200) {
                        fail(f, "http", "it answered with status %d", m.status);
                        return false;
                }
                h1_reader_begin(&f->reader, m.framing, m.length);
                f->state = BODY;
                return true;
        }
}

static void on_readable(struct io *io)
{
        struct fetch *f = fetch_of(io);
        enum io_result r = io_read(io, 16 * KIB, NULL);
        bool eof = r == IO_EOF;

        if (r == IO_ERROR) {
                fail(f, "closed", "%s", io->error ? strerror(io->error) : "the connection broke");
                return;
        }
        if (f->state == HEAD && !read_head(f)) {
                if (f->state == HEAD && eof)
                        fail(f, "closed", "it closed the connection without an answer");
                return;
        }
        read_body(f, eof);
}

/* ------------------------------------------------------------------ the question */

static void on_ready(struct io *io, enum reason r)
{
        struct fetch *f = fetch_of(io);
        char der[TLS_OCSP_REQUEST_MAX];
        size_t n;

        if (r != REASON_NONE) {
                fail(f, "connect", "connect: %s",
                     io->error ? strerror(io->error) : reason_rows[r].text);
                return;
        }
        n = tls_ocsp_request(f->ocsp, der);
        f->state = HEAD;
        f->scan = (struct h1_scan){.kind = H1_RESPONSE};
        f->arena = arena_new(0);
        buf_printf(&io->out,
                   "POST %.*s HTTP/1.1\r\nHost: %.*s\r\nUser-Agent: weir\r\n"
                   "Content-Type: application/ocsp-request\r\n"
                   "Accept: application/ocsp-response\r\nContent-Length: %zu\r\n"
                   "Connection: close\r\n\r\n",
                   STR_ARG(f->url.path), STR_ARG(f->url.authority), n);
        buf_put(&io->out, der, n);
        io_flush(io);
}

static const struct io_owner fetch_calls = {.readable = on_readable, .ready = on_ready};

static void fetch_connect(struct fetch *f, const struct addr *to)
{
        enum reason r = io_connect(&f->io, f->loop, to, &fetch_calls);

        if (r == REASON_NONE)
                f->state = CONNECTING;
        else
                fail(f, "connect", "connect: %s", strerror(f->io.error));
}

static void resolved(const struct dns_answer *answer, void *arg)
{
        struct fetch *f = arg;
        struct addr to;

        f->asking = false;
        if (f->state != RESOLVING)
                return;
        if (!answer->ok || answer->n == 0) {
                f->state = IDLE;
                fail(f, "dns", "the name cannot be resolved: %s",
                     answer->error ? answer->error : "no address");
                return;
        }
        to = answer->a[f->failures % answer->n];
        addr_set_port(&to, f->url.port);
        f->state = IDLE;
        fetch_connect(f, &to);
}

static void fetch_due(struct deadline *d)
{
        struct fetch *f = CONTAINER_OF(d, struct fetch, deadline);
        struct addr to;

        deadline_set(f->loop, &f->deadline, f->timeout, fetch_late);
        if (addr_parse_ip(f->url.host, f->url.port, &to)) {
                fetch_connect(f, &to);
                return;
        }
        f->state = RESOLVING;
        if (f->asking)
                return;
        f->asking = true;
        dns_query(f->dns, f->url.host, resolved, f);
}

/* ------------------------------------------------------------------ all of them */

static void begin(struct loop *l, struct dns *dns, const struct conf *conf,
                  const struct listen_cert *cert, int64_t wait)
{
        struct fetch *f = calloc(1, sizeof(*f));
        struct tls_ocsp_times t;
        uint8_t id[32];
        str error;

        CHECK(f != NULL);
        f->loop = l;
        f->dns = dns;
        f->timeout = conf->ocsp_timeout;
        f->retry = conf->ocsp_retry;
        f->subject = arena_dupz(conf->arena,
                                arena_printf(conf->arena, "ocsp %.*s", STR_ARG(cert->cert.file)));
        f->must_staple = tls_ocsp_must_staple(cert->cert.text);
        tls_staple_id(cert->cert.text, id);
        f->place = tls_staple_find(id);
        f->ocsp = tls_ocsp_new(cert->cert.text, cert->cert.file, conf->arena, &error);
        if (f->ocsp == NULL || f->place.all == NULL ||
            !ocsp_url_parse(tls_ocsp_url(f->ocsp, conf->arena), &f->url)) {
                log_warn(f->subject, "no response is fetched: the certificate names no responder "
                                     "with a usable http address");
                tls_ocsp_free(f->ocsp);
                free(f);
                return;
        }
        stop(f);
        if (tls_staple_times(&f->place, &t) && t.next_update > now_s(f))
                plan_refresh(f, &t);
        else
                deadline_set(l, &f->deadline, wait, fetch_due);
}

static bool seen_before(const struct conf *conf, size_t cert)
{
        for (size_t i = 0; i < cert; i++)
                if (conf->certs[i]->ocsp == LISTEN_OCSP_FETCH &&
                    str_eq(conf->certs[i]->cert.text, conf->certs[cert]->cert.text))
                        return true;
        return false;
}

void ocsp_fetch_start(struct loop *l, const struct conf *conf)
{
        struct dns *dns = NULL;
        int64_t wait = STAGGER;

        for (size_t i = 0; i < conf->n_certs; i++) {
                const struct listen_cert *cert = conf->certs[i];
                if (cert->ocsp != LISTEN_OCSP_FETCH || seen_before(conf, i))
                        continue;
                if (dns == NULL)
                        dns = dns_new(l, conf->resolvers, conf->n_resolvers);
                begin(l, dns, conf, cert, wait);
                wait += STAGGER;
        }
}
