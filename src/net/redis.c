/*
 * A Redis client for one loop: one connection, commands in a pipeline, a deadline for each, a
 * circuit.
 *
 *     down --> connecting --> greeting --> ready
 *      ^           |             |          |
 *      `-- wait <--+-------------+----------'
 *
 * AUTH, SELECT and PING must have been answered before anybody's command is sent.
 *
 * The difficulty is a server that is slow, silent or away.  A caller waits for its deadline and
 * never longer; the command it gave up stays in its place of the pipeline, so that the replies
 * behind it find theirs.  When the circuit is open (no connection could be made, or commands keep
 * failing) nobody waits at all; it closes when a new connection has been greeted.
 */
#include "net/redis_type.h"

#include "base/crypto.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FAILURES_MAX 5         /* one after the other open the circuit */
#define WINDOW       (1 * SEC) /* as does half of at least so many within a second */
#define WINDOW_MIN   20
#define BACKOFF_MIN  (100 * MSEC)
#define BACKOFF_MAX  (5 * SEC)
#define CONNECT_US   (200 * MSEC)
#define COMMAND_US   (50 * MSEC)

static void end_of_turn(struct loop_task *t);
static void on_retry(struct deadline *d);

void redis_at_end_of_turn(struct redis *r)
{
        loop_defer(r->loop, &r->task, end_of_turn);
}

/* ---- the connection's end and the circuit ---- */

static void disconnect(struct redis *r)
{
        if (r->state == DOWN)
                return;
        io_close(&r->io, REASON_NONE);
        redis_wire_free(r->wire);
        r->wire = NULL;
        r->state = DOWN;
        r->stale = false;
        deadline_clear(&r->connect_timer);
        if (r->up != NULL)
                metric_set(r->up, 0);
        while (!list_empty(&r->sent))
                redis_call_fail(CONTAINER_OF(r->sent.next, struct redis_call, link), REDIS_CLOSED);
}

static void set_why(struct redis *r, const char *what, const char *detail)
{
        char at[ADDR_TEXT];

        addr_print(&r->addr, at);
        snprintf(r->why, sizeof(r->why), "%.60s: %.40s%s%.90s", at, what, *detail ? ": " : "",
                 detail);
}

/* No connection for some time: nobody waits for it. */
static void open_circuit(struct redis *r)
{
        disconnect(r);
        while (!list_empty(&r->waiting))
                redis_call_fail(CONTAINER_OF(r->waiting.next, struct redis_call, link),
                                REDIS_UNAVAILABLE);
        r->backoff = r->backoff ? MIN(r->backoff * 2, BACKOFF_MAX) : BACKOFF_MIN;
        if (!r->open)
                log_warn(r->subject, "%s; commands fail until it is back", r->why);
        r->open = true;
        redis_name_failed(r);
        /* Loops and machines that lost the same server shall not all come back at once. */
        deadline_set(r->loop, &r->retry_timer,
                     r->backoff / 2 + (int64_t)(crypto_fast_random() % (uint64_t)(r->backoff / 2)),
                     on_retry);
}

void redis_succeeded(struct redis *r)
{
        r->failures = 0;
        r->backoff = 0;
        r->window_all++;
}

/* A command failed: is it enough to give up on the connection? */
void redis_failed(struct redis *r, const char *what)
{
        if (r->loop->now - r->window > WINDOW) {
                r->window = r->loop->now;
                r->window_all = r->window_failed = 0;
        }
        r->window_all++;
        r->window_failed++;
        r->failures++;
        if (r->state == DOWN ||
            (r->failures < FAILURES_MAX &&
             (r->window_all < WINDOW_MIN || r->window_failed * 2 < r->window_all)))
                return;
        set_why(r, what, "");
        open_circuit(r);
}

/* The connection ended by itself. */
static void lost(struct redis *r, const char *what)
{
        bool settled = r->state == READY && r->loop->now - r->ready_at >= REDIS_SETTLED;

        set_why(r, what, "");
        if (!settled) {
                open_circuit(r);
                return;
        }
        log_info(r->subject, "%s", r->why);
        disconnect(r);
        r->connect_due = true;
        redis_at_end_of_turn(r);
}

static void reconnect(struct redis *r)
{
        disconnect(r);
        deadline_clear(&r->retry_timer);
        r->connect_due = true;
        redis_at_end_of_turn(r);
}

/* ---- the connection's beginning ---- */

static void on_connect_timeout(struct deadline *d)
{
        struct redis *r = CONTAINER_OF(d, struct redis, connect_timer);

        set_why(r, r->state == CONNECTING ? "connect timed out" : "no answer to the greeting", "");
        open_circuit(r);
}

static void io_readable(struct io *io);
static void io_ready(struct io *io, enum reason why);
static const struct io_owner owner = {io_readable, NULL, io_ready};

static void connect_now(struct redis *r)
{
        char ip[ADDR_TEXT];

        if (r->addr.len == 0)
                return; /* redis_set_addr comes */
        CHECK(r->state == DOWN);
        if (io_connect(&r->io, r->loop, &r->addr, &owner) != REASON_NONE) {
                set_why(r, "connect", strerror(r->io.error));
                open_circuit(r);
                return;
        }
        r->state = CONNECTING;
        r->wire = redis_wire_new();
        deadline_set(r->loop, &r->connect_timer, r->connect_us, on_connect_timeout);
        if (r->tls == NULL)
                return;
        addr_print_ip(&r->addr, ip);
        io_start_tls(&r->io,
                     tls_connect_peer(r->tls, r->io.fd, r->host ? str_z(r->host) : str_z(ip)));
}

static void greet(struct redis *r, const char *name, const str *words, size_t n)
{
        r->greeting[r->greeting_n++] = name;
        redis_put_array(&r->io.out, n);
        for (size_t i = 0; i < n; i++)
                redis_put_word(&r->io.out, words[i]);
}

static void io_ready(struct io *io, enum reason why)
{
        struct redis *r = (struct redis *)io;
        str password = str_z(r->password), user = str_z(r->user);
        char number[20];

        if (why == REASON_CONNECT_FAILED) {
                set_why(r, "connect", strerror(io->error));
                open_circuit(r);
                return;
        }
        if (why != REASON_NONE) {
                set_why(r, "TLS",
                        tls_facts(io->tls)->error.n ? tls_facts(io->tls)->error.p : "failed");
                open_circuit(r);
                return;
        }
        r->state = GREETING;
        r->greeting_n = r->greeting_i = 0;
        if (user.n)
                greet(r, "AUTH", (str[]){STR("AUTH"), user, password}, 3);
        else if (password.n)
                greet(r, "AUTH", (str[]){STR("AUTH"), password}, 2);
        if (r->database)
                greet(r, "SELECT",
                      (str[]){STR("SELECT"), str_of(number, str_put_u64(number, r->database))}, 2);
        greet(r, "PING", (str[]){STR("PING")}, 1); /* LOADING and NOAUTH show here */
        io_flush(io);
}

static void ready(struct redis *r)
{
        deadline_clear(&r->connect_timer);
        r->state = READY;
        r->ready_at = r->loop->now;
        /* After an open circuit the first failure opens it again. */
        r->failures = r->open ? FAILURES_MAX - 1 : 0;
        r->window_all = r->window_failed = 0;
        if (r->open)
                log_info(r->subject, "connected again");
        r->open = false;
        if (r->up != NULL)
                metric_set(r->up, 1);
        redis_calls_send(r);
}

static void greeted(struct redis *r, const struct redis_reply *reply)
{
        const char *what = r->greeting[r->greeting_i++];
        char text[128];

        if (reply->type == REDIS_ERROR) {
                snprintf(text, sizeof(text), "%.*s", STR_ARG(reply->text));
                set_why(r, what, text);
                open_circuit(r);
                return;
        }
        if (r->greeting_i == r->greeting_n)
                ready(r);
}

/* ---- replies ---- */

/* Takes all whole replies.  False: the connection ended over it. */
static bool take_replies(struct redis *r)
{
        const struct redis_wire *wire = r->wire;
        const struct redis_reply *reply;
        const char *error;

        while ((reply = redis_wire_next(r->wire, &error)) != NULL) {
                if (r->state == GREETING) {
                        greeted(r, reply);
                } else if (r->n_sent > 0) {
                        redis_calls_answered(r, reply);
                } else {
                        lost(r, "a reply nobody asked for");
                        return false;
                }
                if (r->wire != wire)
                        return false;
        }
        if (error != NULL) {
                lost(r, error);
                return false;
        }
        return true;
}

static void io_readable(struct io *io)
{
        struct redis *r = (struct redis *)io;
        enum io_result got = io_read(io, 64 * KIB, NULL);

        while (io->in.n > 0) {
                str part = buf_front(&io->in);
                redis_wire_feed(r->wire, part);
                buf_drain(&io->in, part.n);
        }
        if (!take_replies(r))
                return;
        if (got == IO_EOF)
                lost(r, "the server closed the connection");
        else if (got == IO_ERROR)
                lost(r, io->error ? strerror(io->error) : "TLS failed");
        else if (r->stale && r->n_sent == 0)
                reconnect(r);
}

static void on_retry(struct deadline *d)
{
        connect_now(CONTAINER_OF(d, struct redis, retry_timer));
}

static void redis_free(struct redis *r)
{
        disconnect(r);
        deadline_clear(&r->retry_timer);
        redis_name_end(r);
        if (list_linked(&r->task.link))
                list_remove(&r->task.link);
        list_remove(&r->link);
        tls_client_drop(r->tls);
        free(r->name);
        free(r->host);
        free(r->user);
        free(r->password);
        free(r->subject);
        free(r);
        redis_calls_thread_end();
}

static void end_of_turn(struct loop_task *t)
{
        struct redis *r = CONTAINER_OF(t, struct redis, task);

        if (r->connect_due) {
                r->connect_due = false;
                if (r->state == DOWN)
                        connect_now(r);
        }
        if (r->flush_due && r->state == READY)
                io_flush(&r->io);
        r->flush_due = false;
        redis_calls_deliver(r);
        if (r->refs == 0 && !redis_calls_wanted(r)) /* else the last answer looks again */
                redis_free(r);
}

/* ---- what callers call ---- */

static char *copy_text(str s)
{
        return s.n ? str_dupz(s) : NULL;
}

static void make_metrics(struct redis *r)
{
        static const char *const words[REDIS_RESULTS] = {"ok", "error", "timeout", "unavailable",
                                                         "closed"};
        struct metric_slot *m = r->loop->metrics;
        struct buf b = BUF_INIT;

        if (m == NULL)
                return;
        metric_label(&b, "store", str_z(r->name));
        r->duration = metric_series(m, METRIC_REDIS_DURATION, buf_pullup(&b, b.n));
        r->up = metric_series(m, METRIC_REDIS_UP, buf_pullup(&b, b.n));
        for (int i = 0; i < REDIS_RESULTS; i++) {
                struct buf l = BUF_INIT;
                metric_label(&l, "store", str_z(r->name));
                metric_label(&l, "result", str_z(words[i]));
                r->count[i] = metric_series(m, METRIC_REDIS_COMMANDS, buf_pullup(&l, l.n));
                buf_clear(&l);
        }
        buf_clear(&b);
}

/* A digest of everything in c, so that generations with the same store share its connection. */
static void conf_key(const struct redis_conf *c, uint8_t key[32])
{
        char at[ADDR_TEXT];
        struct buf b = BUF_INIT;
        str texts[] = {c->name, c->host, c->user, c->password,
                       str_of(at, addr_print(&c->addr, at))};

        for (size_t i = 0; i < COUNT(texts); i++)
                redis_put_word(&b, texts[i]);
        for (size_t i = 0; i < c->n_resolvers; i++)
                redis_put_word(&b, c->resolvers[i]);
        buf_printf(&b, "%u %u %lld %lld %llx", c->port, c->database, (long long)c->connect_us,
                   (long long)c->command_us,
                   (unsigned long long)(c->tls ? tls_client_key(c->tls) : 0));
        crypto_sha256(buf_pullup(&b, b.n), key);
        buf_clear(&b);
}

struct redis *redis_get(struct loop *l, const struct redis_conf *c)
{
        struct redis *r;
        uint8_t key[32];
        struct buf b = BUF_INIT;

        conf_key(c, key);
        LIST_EACH (n, &l->redises) {
                r = CONTAINER_OF(n, struct redis, link);
                if (memcmp(r->key, key, sizeof(key)) == 0) {
                        r->refs++;
                        return r;
                }
        }
        r = calloc(1, sizeof(*r));
        CHECK(r != NULL);
        r->loop = l;
        r->refs = 1;
        memcpy(r->key, key, sizeof(key));
        r->name = str_dupz(c->name);
        r->host = copy_text(c->host);
        r->user = copy_text(c->user);
        r->password = copy_text(c->password);
        buf_printf(&b, "redis %s", r->name);
        r->subject = str_dupz(buf_pullup(&b, b.n));
        buf_clear(&b);
        r->addr = c->addr;
        r->port = c->port;
        r->database = c->database;
        r->tls = c->tls ? tls_client_hold(c->tls) : NULL;
        r->connect_us = c->connect_us ? c->connect_us : CONNECT_US;
        r->command_us = c->command_us ? c->command_us : COMMAND_US;
        list_init(&r->sent);
        list_init(&r->waiting);
        list_init(&r->failing);
        make_metrics(r);
        list_push(&l->redises, &r->link);
        if (r->addr.len == 0) {
                r->open = true;
                snprintf(r->why, sizeof(r->why), "%s has no address yet", r->host ? r->host : "it");
                if (r->host != NULL)
                        redis_name_begin(r, c->resolvers, c->n_resolvers);
        }
        r->connect_due = true;
        redis_at_end_of_turn(r);
        return r;
}

void redis_drop(struct redis *r)
{
        CHECK(r->refs > 0);
        if (--r->refs == 0)
                redis_at_end_of_turn(r);
}

void redis_set_addr(struct redis *r, const struct addr *a)
{
        struct addr to = *a;
        bool first = r->addr.len == 0;

        if (addr_port(&to) == 0)
                addr_set_port(&to, r->port);
        if (addr_equal(&to, &r->addr))
                return;
        r->addr = to;
        if (first)
                r->open = false; /* what comes now may wait for the first connect */
        if (r->state == READY && r->n_sent > 0)
                r->stale = true;
        else
                reconnect(r);
}

bool redis_ready(const struct redis *r)
{
        return r->state == READY && !r->open;
}
