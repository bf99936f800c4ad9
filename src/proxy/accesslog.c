/*
 * Access logs: formatted on the loop, written by one thread.
 *
 * The difficulty: a disk or a pipe that stalls must cost lines, never time on a loop.  Each loop
 * fills a buffer of its own for each log; a full or old buffer is handed to the writer's queue,
 * which is bounded: what does not fit is dropped and counted.
 */
#include "proxy/accesslog.h"

#include "base/check.h"
#include "base/json.h"
#include "base/log.h"
#include "net/tls.h"
#include "proxy/vars.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define BATCH     (64 * KIB) /* a loop's buffer is handed over at this size, */
#define HAND_OVER SEC        /* or at this age */
#define QUEUE_MAX (8 * MIB)  /* of batches waiting for the writer, over all logs of the process */

/* One file.  Made on first mention, lives as long as the process; fd is swapped under the mutex. */
struct sink {
        struct sink *next;
        char *path;
        int fd;
};

/* Lines on their way: owned by a loop, then by the queue. */
struct batch {
        struct batch *next;
        struct sink *sink;
        size_t n;
        char data[BATCH];
};

/* A loop's buffers, one for each log it has written to. */
struct loop_log {
        struct loop_log *next;
        struct sink *sink;
        struct batch *batch;
        struct deadline age;
        struct loop *loop;
        metric_cell *dropped;
};

static struct {
        pthread_mutex_t lock;
        pthread_cond_t work;
        pthread_t thread;
        bool running, stop;
        struct sink *sinks;
        struct batch *first, **last;
        size_t queued;
} writer = {
        .lock = PTHREAD_MUTEX_INITIALIZER, .work = PTHREAD_COND_INITIALIZER, .last = &writer.first};

/* ------------------------------------------------------------------ the writer */

static struct sink *sink_of(str path) /* locked */
{
        for (struct sink *s = writer.sinks; s != NULL; s = s->next)
                if (str_eq(str_z(s->path), path))
                        return s;
        struct sink *s = calloc(1, sizeof *s);
        CHECK(s != NULL);
        s->path = str_dupz(path);
        s->fd = -1;
        s->next = writer.sinks;
        writer.sinks = s;
        return s;
}

void accesslog_set_fd(str path, int fd)
{
        pthread_mutex_lock(&writer.lock);
        struct sink *s = sink_of(path);
        int old = s->fd;
        s->fd = fd;
        pthread_mutex_unlock(&writer.lock);
        if (old >= 0)
                close(old);
}

static void write_all(int fd, const char *p, size_t n)
{
        while (n > 0) {
                ssize_t got = write(fd, p, n);
                if (got < 0 && errno == EINTR)
                        continue;
                if (got <= 0) {
                        static struct log_quota quota;
                        if (log_quota(&quota, 1))
                                log_error("access_log", "write: %s", strerror(errno));
                        return;
                }
                p += got;
                n -= (size_t)got;
        }
}

static void *writer_main(void *arg)
{
        (void)arg;
        pthread_mutex_lock(&writer.lock);
        for (;;) {
                struct batch *b = writer.first;
                if (b == NULL) {
                        if (writer.stop)
                                break;
                        pthread_cond_wait(&writer.work, &writer.lock);
                        continue;
                }
                writer.first = b->next;
                if (writer.first == NULL)
                        writer.last = &writer.first;
                writer.queued -= sizeof *b;
                /* A descriptor of our own, so that a reopen may close the sink's while this write
                 * waits for the disk. */
                int fd = b->sink->fd >= 0 ? dup(b->sink->fd) : -1;
                pthread_mutex_unlock(&writer.lock);
                if (fd >= 0) {
                        write_all(fd, b->data, b->n);
                        close(fd);
                }
                free(b);
                pthread_mutex_lock(&writer.lock);
        }
        pthread_mutex_unlock(&writer.lock);
        return NULL;
}

void accesslog_start(void)
{
        CHECK(!writer.running);
        writer.stop = false;
        CHECK(pthread_create(&writer.thread, NULL, writer_main, NULL) == 0);
        writer.running = true;
}

void accesslog_stop(void)
{
        if (!writer.running)
                return;
        pthread_mutex_lock(&writer.lock);
        writer.stop = true;
        pthread_cond_signal(&writer.work);
        pthread_mutex_unlock(&writer.lock);
        pthread_join(writer.thread, NULL);
        writer.running = false;
        for (struct sink *s = writer.sinks, *next; s != NULL; s = next) {
                next = s->next;
                if (s->fd >= 0)
                        close(s->fd);
                free(s->path);
                free(s);
        }
        writer.sinks = NULL;
}

/* ------------------------------------------------------------------ on a loop */

static size_t lines(const struct batch *b)
{
        size_t n = 0;
        for (size_t i = 0; i < b->n; i++)
                n += b->data[i] == '\n';
        return n;
}

static void hand_over(struct loop_log *ll)
{
        struct batch *b = ll->batch;
        bool taken = false;
        ll->batch = NULL;
        deadline_clear(&ll->age);
        if (b == NULL)
                return;
        b->next = NULL;
        pthread_mutex_lock(&writer.lock);
        if (writer.queued + sizeof *b <= QUEUE_MAX) { /* its memory, however few lines it holds */
                writer.queued += sizeof *b;
                *writer.last = b;
                writer.last = &b->next;
                pthread_cond_signal(&writer.work);
                taken = true;
        }
        pthread_mutex_unlock(&writer.lock);
        if (taken)
                return;
        metric_add(ll->dropped, lines(b));
        free(b);
}

static void aged(struct deadline *d)
{
        hand_over(CONTAINER_OF(d, struct loop_log, age));
}

static struct loop_log *loop_log(struct loop *l, str path)
{
        struct loop_log *ll = l->slot[LOOP_SLOT_LOG];
        for (; ll != NULL; ll = ll->next)
                if (str_eq(str_z(ll->sink->path), path))
                        return ll;
        ll = calloc(1, sizeof *ll);
        CHECK(ll != NULL);
        pthread_mutex_lock(&writer.lock);
        ll->sink = sink_of(path);
        pthread_mutex_unlock(&writer.lock);
        ll->loop = l;
        ll->dropped = metric_series(l->metrics, METRIC_LOG_DROPPED, STR(""));
        ll->next = l->slot[LOOP_SLOT_LOG];
        l->slot[LOOP_SLOT_LOG] = ll;
        return ll;
}

static void append(struct loop_log *ll, str line)
{
        bool cut = line.n > BATCH; /* it ends here, and stays one line */
        if (cut)
                line.n = BATCH;
        if (ll->batch != NULL && ll->batch->n + line.n > BATCH)
                hand_over(ll);
        if (ll->batch == NULL) {
                ll->batch = malloc(sizeof *ll->batch); /* once for some hundred lines */
                CHECK(ll->batch != NULL);
                ll->batch->sink = ll->sink;
                ll->batch->n = 0;
                deadline_set(ll->loop, &ll->age, HAND_OVER, aged);
        }
        memcpy(ll->batch->data + ll->batch->n, line.p, line.n);
        ll->batch->n += line.n;
        if (cut)
                ll->batch->data[ll->batch->n - 1] = '\n';
}

void accesslog_flush(struct loop *l)
{
        for (struct loop_log *ll = l->slot[LOOP_SLOT_LOG]; ll != NULL; ll = ll->next)
                hand_over(ll);
}

void accesslog_loop_end(struct loop *l)
{
        for (struct loop_log *ll = l->slot[LOOP_SLOT_LOG], *next; ll != NULL; ll = next) {
                next = ll->next;
                hand_over(ll);
                free(ll);
        }
        l->slot[LOOP_SLOT_LOG] = NULL;
}

/* ------------------------------------------------------------------ formats */

/* Input in a line of text: quotes, backslashes, controls and bytes beyond ASCII become \xHH, so
 * that no client writes lines. */
static void put_safe(struct buf *out, str s)
{
        static const char hex[] = "0123456789abcdef";
        size_t from = 0;
        if (s.n == 0)
                buf_puts(out, STR("-"));
        for (size_t i = 0; i < s.n; i++) {
                unsigned char c = (unsigned char)s.p[i];
                if (c >= 0x20 && c < 0x7f && c != '"' && c != '\\')
                        continue;
                buf_put(out, s.p + from, i - from);
                buf_put(out, (char[]){'\\', 'x', hex[c >> 4], hex[c & 15]}, 4);
                from = i + 1;
        }
        buf_put(out, s.p + from, s.n - from);
}

/* [23/Nov/2026:10:00:00 +0000], made once a second. */
static str common_time(int64_t wall)
{
        static _Thread_local char text[32];
        static _Thread_local int64_t second = -1;
        static _Thread_local size_t n;
        if (second != wall / SEC) {
                time_t t = (time_t)(wall / SEC);
                struct tm tm;
                second = wall / SEC;
                gmtime_r(&t, &tm);
                n = strftime(text, sizeof text, "%d/%b/%Y:%H:%M:%S +0000", &tm);
        }
        return str_of(text, n);
}

static str header(struct txn *t, enum field_id id)
{
        struct field *f = fields_get(&t->r->req.fields, id);
        return f ? f->value : STR_NONE;
}

static void put_combined(struct buf *out, struct txn *t)
{
        struct request *r = t->r;
        put_safe(out, t->client_ip);
        buf_puts(out, STR(" - - ["));
        buf_puts(out, common_time(r->loop->wall));
        buf_puts(out, STR("] \""));
        put_safe(out, r->req.method_text);
        buf_puts(out, STR(" "));
        put_safe(out, r->req.target);
        buf_printf(out, " HTTP/%u.%u\" %d %llu \"", r->req.version / 10, r->req.version % 10,
                   r->res.status, (unsigned long long)r->bytes_out);
        put_safe(out, header(t, FIELD_REFERER));
        buf_puts(out, STR("\" \""));
        put_safe(out, header(t, FIELD_USER_AGENT));
        buf_puts(out, STR("\"\n"));
}

static void member(struct json_writer *w, const char *name, str value)
{
        if (value.p == NULL)
                return;
        json_key(w, str_z(name));
        json_str(w, value);
}

static void number(struct json_writer *w, const char *name, uint64_t value)
{
        json_key(w, str_z(name));
        json_u64(w, value);
}

static void put_json(struct buf *out, struct txn *t)
{
        struct request *r = t->r;
        struct json_writer w;
        json_begin(&w, out);
        json_open(&w, '{');
        member(&w, "time", vars_get_name(t, STR("time_iso8601")));
        member(&w, "request_id", t->request_id);
        member(&w, "client_ip", t->client_ip);
        member(&w, "method", r->req.method_text);
        member(&w, "scheme", t->scheme);
        member(&w, "host", t->host);
        member(&w, "uri", r->req.target);
        number(&w, "status", (uint64_t)r->res.status);
        number(&w, "bytes_received", r->bytes_in);
        number(&w, "bytes_sent", r->bytes_out);
        json_key(&w, STR("duration_ms"));
        json_double(&w, (double)MAX(t->finished - r->started, 0) / 1000.0);
        if (t->match.route != NULL)
                member(&w, "route", t->match.route->label);
        if (t->upstream != NULL) {
                member(&w, "upstream", t->upstream->name);
                member(&w, "server", t->server);
                number(&w, "attempts", t->attempts);
        }
        if (t->upstream_us >= 0) {
                json_key(&w, STR("upstream_duration_ms"));
                json_double(&w, (double)t->upstream_us / 1000.0);
        }
        member(&w, "referer", header(t, FIELD_REFERER));
        member(&w, "user_agent", header(t, FIELD_USER_AGENT));
        if (t->tls != NULL) {
                member(&w, "tls_version", t->tls->version);
                member(&w, "tls_sni", t->tls->sni);
        }
        if (t->reason != REASON_NONE)
                member(&w, "reason", str_z(reason_word(t->reason)));
        json_close(&w);
        buf_puts(out, STR("\n"));
}

static void put_template(struct buf *out, struct txn *t, const struct template *format)
{
        for (uint32_t i = 0; i < format->n; i++) {
                const struct template_op *op = &format->op[i];
                if (op->literal)
                        buf_puts(out, op->text);
                else
                        put_safe(out, vars_get(t, op));
        }
        buf_puts(out, STR("\n"));
}

void accesslog_write(struct txn *t, const struct access_log_conf *log)
{
        struct buf line = BUF_INIT;
        if (log->format != NULL)
                put_template(&line, t, log->format);
        else if (str_eq(log->format_name, STR("json")))
                put_json(&line, t);
        else
                put_combined(&line, t);
        append(loop_log(t->r->loop, log->path), buf_pullup(&line, line.n));
        buf_clear(&line);
}
