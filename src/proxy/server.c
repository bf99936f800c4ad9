/*
 * A server's states, its numbers and its life (server.h).
 *
 * The one difficulty: failures are counted by every loop at once.  The count is one atomic; the
 * loop whose failure reaches the limit and then moves ejected_until by compare-and-swap has ejected
 * the server, once, and says so.
 */
#include "proxy/server.h"

#include "base/check.h"
#include "base/crypto.h"
#include "base/siphash.h"
#include "conf/model.h"
#include "proxy/pool.h"
#include "proxy/upstreams.h"

#include <stdlib.h>

#define SLOW_START_STEP (100 * MSEC)
#define HEAD_HALVES     (5 * SEC)
#define STREAMS_LIKELY  100 /* what a server of HTTP/2 takes on a connection, until it says so */

static const char *const result_words[SERVER_RESULTS] = {
        "1xx",           "2xx",     "3xx",   "4xx",          "5xx",
        "connect_error", "timeout", "reset", "bad_response", "aborted",
};
static const char *const connect_words[SERVER_CONNECTS] = {"ok", "failed", "timeout", "tls"};

/* ------------------------------------------------------------------ life */

char *server_subject(str upstream)
{
        char *s = malloc(sizeof("upstream ") + upstream.n);

        CHECK(s != NULL);
        memcpy(s, "upstream ", 9);
        memcpy(s + 9, upstream.p, upstream.n);
        s[9 + upstream.n] = '\0';
        return s;
}

static str dup_str(str s)
{
        return str_of(str_dupz(s), s.n);
}

/* Nobody can tell from it which server it is, and all workers make the same of it. */
static uint64_t sticky_value(const struct upstreams *us, const struct server_id *id)
{
        struct buf b = BUF_INIT;
        uint64_t v;

        buf_puts(&b, id->upstream);
        buf_put(&b, "", 1);
        buf_puts(&b, id->label);
        v = crypto_siphash(inflight_secret(us->inflight), buf_pullup(&b, b.n));
        buf_clear(&b);
        return v;
}

static struct server_loop *loops_new(struct server *s, struct upstreams *us)
{
        struct server_loop *loops = aligned_alloc(64, sizeof(*loops) * us->n_loops);

        CHECK(loops != NULL);
        memset(loops, 0, sizeof(*loops) * us->n_loops);
        for (unsigned i = 0; i < us->n_loops; i++) {
                loops[i].server = s;
                loops[i].loop = us->loops[i];
                list_init(&loops[i].idle);
                list_init(&loops[i].connecting);
                loops[i].likely = s->protocol == PROTOCOL_HTTP1 ? 1 : STREAMS_LIKELY;
        }
        return loops;
}

struct server *server_new(struct upstreams *us, const struct server_id *id)
{
        struct server *s = calloc(1, sizeof(*s));

        CHECK(s != NULL);
        s->magic = SERVER_MAGIC;
        s->us = us;
        s->n_loops = us->n_loops;
        s->protocol = id->protocol;
        s->proxy_version = id->proxy_version;
        s->proxy_tlvs = id->proxy_tlvs;
        s->loops = loops_new(s, us);
        s->key = dup_str(id->key);
        s->upstream = dup_str(id->upstream);
        s->label = dup_str(id->label);
        s->line = dup_str(id->line);
        s->host = dup_str(id->host);
        s->subject = server_subject(id->upstream);
        s->addr = id->addr;
        s->tls = id->tls ? tls_client_hold(id->tls) : NULL;
        s->sticky = sticky_value(us, id);
        s->hash = siphash(1, 3, 0, 0, id->label); /* equal in all workers and after a restart */
        inflight_open(&s->inflight, us->inflight, us->worker, siphash(2, 4, 1, 2, id->key));
        list_push(&us->servers, &s->link);
        return s;
}

void server_free(struct server *s)
{
        CHECK_OBJ(s, SERVER_MAGIC);
        if (list_linked(&s->link))
                list_remove(&s->link);
        inflight_close(&s->inflight, s->us->inflight);
        if (s->tls)
                tls_client_drop(s->tls);
        free((char *)s->key.p);
        free((char *)s->upstream.p);
        free((char *)s->label.p);
        free((char *)s->line.p);
        free((char *)s->host.p);
        free(s->subject);
        free(s->loops);
        s->magic = DEAD_MAGIC;
        free(s);
}

void server_configure(struct server *s, const struct upstream_conf *conf)
{
        uint32_t share = (conf->keepalive + s->n_loops - 1) / s->n_loops;

        atomic_store_explicit(&s->keepalive, share, memory_order_relaxed);
        atomic_store_explicit(&s->eject_failures, conf->eject_failures, memory_order_relaxed);
        atomic_store_explicit(&s->eject_for, conf->eject_for, memory_order_relaxed);
        atomic_store_explicit(&s->slow_start, conf->slow_start, memory_order_relaxed);
}

static void loop_has_let_go(struct loop_msg *m) /* control thread */
{
        struct server_loop *sl = CONTAINER_OF(m, struct server_loop, msg);
        struct server *s = sl->server;

        CHECK_OBJ(s, SERVER_MAGIC);
        if (++s->acks == s->n_loops && !s->us->stopping)
                server_free(s);
}

static void answer_if_unused(struct server_loop *sl)
{
        if (!sl->retired || sl->holds > 0)
                return;
        if (list_linked(&sl->link))
                list_remove(&sl->link);
        sl->msg.fn = loop_has_let_go;
        loop_post(sl->server->us->control, &sl->msg);
}

static void retire_here(struct loop_msg *m)
{
        struct server_loop *sl = CONTAINER_OF(m, struct server_loop, msg);

        sl->holds++; /* closing the last connection must not answer before this one does */
        sl->retired = true;
        pool_close_idle(sl, REASON_SERVER_CLOSED);
        server_drop(sl);
}

/* A server that has gone is neither up nor down. */
static void hide_gauges(struct server *s)
{
        struct buf labels = BUF_INIT;

        metric_label(&labels, "upstream", s->upstream);
        metric_label(&labels, "server", s->label);
        metric_retire(s->us->control->metrics, METRIC_SERVER_UP, buf_front(&labels));
        metric_retire(s->us->control->metrics, METRIC_SERVER_INFLIGHT, buf_front(&labels));
        buf_clear(&labels);
}

void server_retire(struct server *s)
{
        CHECK_OBJ(s, SERVER_MAGIC);
        CHECK(s->uses == 0);
        hide_gauges(s);
        list_remove(&s->link);
        list_push(&s->us->retired, &s->link);
        for (uint32_t i = 0; i < s->n_loops; i++) {
                s->loops[i].msg.fn = retire_here;
                loop_post(s->loops[i].loop, &s->loops[i].msg);
        }
}

void server_drop(struct server_loop *sl)
{
        CHECK(sl->holds > 0);
        sl->holds--;
        if (UNLIKELY(sl->retired))
                answer_if_unused(sl);
}

/* ------------------------------------------------------------------ numbers */

static metric_cell *series(struct server_loop *sl, unsigned family, const char *result)
{
        struct buf labels = BUF_INIT;
        metric_cell *cell;

        metric_label(&labels, "upstream", sl->server->upstream);
        metric_label(&labels, "server", sl->server->label);
        if (result)
                metric_label(&labels, "result", str_z(result));
        cell = metric_series(sl->loop->metrics, family, buf_pullup(&labels, labels.n));
        buf_clear(&labels);
        return cell;
}

void server_count(struct server_loop *sl, enum server_result r)
{
        if (UNLIKELY(!sl->requests[r]))
                sl->requests[r] = series(sl, METRIC_UPSTREAM_REQUESTS, result_words[r]);
        metric_add(sl->requests[r], 1);
}

void server_count_connect(struct server_loop *sl, enum server_connect r)
{
        if (UNLIKELY(!sl->connects[r]))
                sl->connects[r] = series(sl, METRIC_UPSTREAM_CONNECTS, connect_words[r]);
        metric_add(sl->connects[r], 1);
}

static metric_cell *control_series(struct server *s, unsigned family)
{
        struct server_loop at_control = {.server = s, .loop = s->us->control};

        return series(&at_control, family, NULL);
}

void server_gauges(struct server *s, int64_t now, bool write_up)
{
        bool ejected = server_ejected(s, now);
        uint32_t idle = 0;

        if (s->was_ejected && !ejected && !server_flags(s))
                log_info(s->subject, "server %.*s is up again: its ejection is over",
                         STR_ARG(s->label));
        s->was_ejected = ejected;
        metric_set(control_series(s, METRIC_SERVER_INFLIGHT), inflight_own(&s->inflight));
        for (unsigned i = 0; i < s->us->n_loops; i++)
                idle += atomic_load_explicit(&s->loops[i].idle_n, memory_order_relaxed);
        inflight_say_idle(&s->inflight, idle);
        if (write_up)
                metric_set(control_series(s, METRIC_SERVER_UP), !ejected && !server_flags(s));
}

const char *server_state(const struct server *s, int64_t now)
{
        uint32_t flags = server_flags(s);

        if (flags & SERVER_ADMIN_DOWN)
                return "admin_down";
        if (flags & SERVER_CHECK_DOWN)
                return "down";
        if (flags & SERVER_ADMIN_DRAIN)
                return "drain";
        return server_ejected(s, now) ? "ejected" : "up";
}

uint32_t server_weight(const struct server *s, uint32_t weight, int64_t now, int64_t *until)
{
        int64_t since = atomic_load_explicit(&s->up_since, memory_order_relaxed);
        int64_t slow = atomic_load_explicit(&s->slow_start, memory_order_relaxed);
        uint64_t full = (uint64_t)weight * SERVER_WEIGHT_ONE, now_weight;

        if (since == 0 || slow == 0 || now - since >= slow)
                return (uint32_t)full;
        *until = MIN(*until, now + SLOW_START_STEP);
        now_weight = full * (uint64_t)MAX(now - since, 0) / (uint64_t)slow;
        return (uint32_t)MAX(now_weight, MAX(full / 32, 1));
}

uint64_t server_head_us(const struct server *s, int64_t now)
{
        uint64_t us = atomic_load_explicit(&s->head_us, memory_order_relaxed);
        int64_t age = now - atomic_load_explicit(&s->head_at, memory_order_relaxed);

        if (us == 0 || age < HEAD_HALVES)
                return us;
        us >>= MIN(age / HEAD_HALVES, 31);
        return MAX(us, 1);
}

/* ------------------------------------------------------------------ states */

static void changed(struct server *s)
{
        atomic_fetch_add_explicit(&s->us->epoch, 1, memory_order_release);
}

static void set_flags(struct server *s, uint32_t clear, uint32_t set)
{
        uint32_t old = server_flags(s); /* the control thread alone writes them */

        atomic_store_explicit(&s->flags, (old & ~clear) | set, memory_order_relaxed);
        changed(s);
}

static void forget_failures(struct server *s, int64_t now)
{
        atomic_store_explicit(&s->failures, 0, memory_order_relaxed);
        atomic_store_explicit(&s->ejections, 0, memory_order_relaxed);
        atomic_store_explicit(&s->ejected_until, 0, memory_order_relaxed);
        atomic_store_explicit(&s->up_since, MAX(now, 1), memory_order_relaxed);
        s->was_ejected = false;
}

void server_check_down(struct server *s, const char *why)
{
        if (server_flags(s) & SERVER_CHECK_DOWN)
                return;
        set_flags(s, 0, SERVER_CHECK_DOWN);
        log_warn(s->subject, "server %.*s is down: %s", STR_ARG(s->label), why);
}

void server_check_up(struct server *s, int64_t now)
{
        if (!(server_flags(s) & SERVER_CHECK_DOWN))
                return;
        forget_failures(s, now);
        set_flags(s, SERVER_CHECK_DOWN, 0);
        log_info(s->subject, "server %.*s is up again", STR_ARG(s->label));
}

void server_admin(struct server *s, uint32_t flags, int64_t now)
{
        uint32_t all = SERVER_ADMIN_DOWN | SERVER_ADMIN_DRAIN;

        if ((server_flags(s) & all) == flags)
                return;
        if (!flags)
                forget_failures(s, now);
        set_flags(s, all, flags);
        log_info(s->subject, "server %.*s: %s by command", STR_ARG(s->label),
                 !flags                      ? "up"
                 : flags & SERVER_ADMIN_DOWN ? "down"
                                             : "drain");
}

void server_succeeded(struct server_loop *sl, int64_t head_us)
{
        struct server *s = sl->server;
        uint32_t sample = (uint32_t)MIN(MAX(head_us, 1), UINT32_MAX), old;

        /* Written only when they change something: the line is shared by all loops. */
        if (atomic_load_explicit(&s->failures, memory_order_relaxed))
                atomic_store_explicit(&s->failures, 0, memory_order_relaxed);
        old = (uint32_t)server_head_us(s, sl->loop->now);
        if (old != 0)
                sample = (uint32_t)((uint64_t)old - old / 8 + sample / 8);
        if (sample != old)
                atomic_store_explicit(&s->head_us, MAX(sample, 1), memory_order_relaxed);
        if (sl->loop->now - atomic_load_explicit(&s->head_at, memory_order_relaxed) > SEC)
                atomic_store_explicit(&s->head_at, sl->loop->now, memory_order_relaxed);
}

/* Ejections that followed closely on one another, up to last_until. */
static uint32_t ejections_in_a_row(const struct server *s, int64_t last_until, int64_t now)
{
        int64_t base = atomic_load_explicit(&s->eject_for, memory_order_relaxed);

        if (last_until == 0 || now - last_until > 10 * base)
                return 0;
        return atomic_load_explicit(&s->ejections, memory_order_relaxed);
}

/* Doubled each time, up to a bound. */
static int64_t eject_time(const struct server *s, uint32_t in_a_row)
{
        int64_t base = atomic_load_explicit(&s->eject_for, memory_order_relaxed), time = base;

        while (in_a_row-- > 0 && time < SERVER_EJECT_MAX)
                time *= 2;
        return MAX(base, MIN(time, SERVER_EJECT_MAX));
}

void server_failed(struct server_loop *sl, const char *why)
{
        struct server *s = sl->server;
        int64_t now = sl->loop->now, time;
        int64_t until = atomic_load_explicit(&s->ejected_until, memory_order_relaxed);
        uint32_t limit = atomic_load_explicit(&s->eject_failures, memory_order_relaxed), n, row;

        if (limit == 0 || until > now)
                return;
        n = atomic_fetch_add_explicit(&s->failures, 1, memory_order_relaxed) + 1;
        if (n < limit)
                return;
        row = ejections_in_a_row(s, until, now);
        time = eject_time(s, row);
        if (!atomic_compare_exchange_strong(&s->ejected_until, &until, now + time))
                return;
        atomic_store_explicit(&s->ejections, row + 1, memory_order_relaxed);
        /* When it comes back one more failure is enough, until something succeeds. */
        atomic_store_explicit(&s->failures, limit - 1, memory_order_relaxed);
        atomic_store_explicit(&s->up_since, now + time, memory_order_relaxed);
        changed(s);
        if (!sl->ejections)
                sl->ejections = series(sl, METRIC_EJECTIONS, NULL);
        metric_add(sl->ejections, 1);
        log_warn(s->subject, "server %.*s is ejected for %llds after %u failure%s: %s",
                 STR_ARG(s->label), (long long)((time + SEC - 1) / SEC), n, n == 1 ? "" : "s", why);
}

void server_readmit(struct server_loop *sl)
{
        struct server *s = sl->server;

        if (!server_ejected(s, sl->loop->now))
                return;
        atomic_store_explicit(&s->ejected_until, 0, memory_order_relaxed);
        changed(s);
        log_info(s->subject, "server %.*s is up again: it answered", STR_ARG(s->label));
}

/* ------------------------------------------------------------------ what an end means */

enum server_result server_result_of(enum reason why)
{
        switch (why) {
        case REASON_CONNECT_FAILED:
        case REASON_UPSTREAM_TLS:
        case REASON_NO_DESCRIPTORS:
                return SERVER_CONNECT_ERROR;
        case REASON_CONNECT_TIMEOUT:
        case REASON_RESPONSE_TIMEOUT:
        case REASON_RESPONSE_IDLE:
        case REASON_UPSTREAM_PING:
                return SERVER_TIMEOUT;
        case REASON_UPSTREAM_RESET:
        case REASON_SERVER_CLOSED:
        case REASON_UPSTREAM_STREAM_RESET:
        case REASON_UPSTREAM_REFUSED:
                return SERVER_RESET;
        case REASON_TUNNEL_IDLE:
        case REASON_TUNNEL_END:
                return SERVER_1XX; /* the server did its part when it switched protocols */
        default:
                return SERVER_BAD_RESPONSE;
        }
}

enum server_result server_result_of_status(int status)
{
        return (enum server_result)(SERVER_1XX + MIN(MAX(status / 100, 1), 5) - 1);
}

bool server_to_blame(enum reason why)
{
        return why != REASON_NO_DESCRIPTORS && why != REASON_TUNNEL_IDLE &&
               why != REASON_TUNNEL_END && why != REASON_SHUTDOWN && why != REASON_INTERNAL &&
               why != REASON_UPSTREAM_NO_TUNNEL;
}
