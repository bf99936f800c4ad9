/*
 * The admin listener: /metrics, /status, /livez, /readyz; read-only, on the control thread, so that
 * looking never costs a request anything.
 *
 * A small HTTP responder of its own: one request per connection, a bounded head, an answer with its
 * length, then the end.  The difficulty: a client that is slow or silent must cost little and not
 * for long.
 */
#include "daemon/worker.h"

#include "base/check.h"
#include "base/json.h"
#include "base/log.h"
#include "daemon/master.h"
#include "net/io.h"
#include "proxy/tunnel.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define CLIENTS_MAX 32
#define CLIENT_TIME (10 * SEC)
#define HEAD_MAX    (8 * KIB)

/* A socket that we accept from; counted in no connection budget. */
struct export_door {
        struct list link;
        uint64_t id;
        int fd;
        bool fresh, leaving; /* with the next commit */
        struct event ev;
        struct export *export;
};

/* One asker: reads its head, then writes the answer.  Owned by export.clients. */
struct export_client {
        struct list link;
        struct export *export;
        int fd;
        struct event ev;
        struct deadline late;
        bool answered;
        struct buf out;
        size_t n;
        char head[HEAD_MAX];
};

struct export
{
        struct worker *w;
        struct list doors, clients;
        unsigned n_clients;
};

/* ------------------------------------------------------------------ what is shown */

static bool is_ready(const struct worker *w)
{
        return w->current && w->serving && !w->not_ready;
}

static void say(_Atomic uint32_t *where, uint64_t what)
{
        atomic_store_explicit(where, (uint32_t)what, memory_order_relaxed);
}

static uint32_t said(const _Atomic uint32_t *where)
{
        return atomic_load_explicit(where, memory_order_relaxed);
}

static void news_gen(struct board_gen *b, const struct worker *w, const struct gen *g)
{
        uint64_t live = 0;

        for (unsigned i = 0; i < w->n_loops; i++)
                live += gen_live(&g->per_loop[i]);
        atomic_store_explicit(&b->number, g->number, memory_order_relaxed);
        atomic_store_explicit(&b->requests, live, memory_order_relaxed);
        atomic_store_explicit(&b->made_ms, (uint64_t)(g->made / MSEC), memory_order_relaxed);
}

void export_news(struct worker *w)
{
        struct board_news *news = board_news(w->board, w->index);
        uint64_t connections = 0;
        unsigned n_gens = 0;

        for (unsigned i = 0; i < w->n_loops; i++)
                connections +=
                        atomic_load_explicit(&w->loops[i]->connections, memory_order_relaxed);
        atomic_store_explicit(&news->connections, connections, memory_order_relaxed);
        LIST_EACH (n, &w->gens) {
                if (n_gens < BOARD_GENS)
                        news_gen(&news->gens[n_gens++], w,
                                 CONTAINER_OF(n, struct worker_gen, link)->gen);
        }
        functions_news(w);
        say(&news->n_gens, n_gens);
        say(&news->generation, w->current ? w->current->number : 0);
        say(&news->ready, is_ready(w));
        say(&news->draining, w->not_ready);
        say(&news->loops, w->n_loops);
        say(&news->leaked, module_leaked());
        say(&news->pid, (uint64_t)getpid());
        worker_canary_count(w);
        metric_set(w->ticket_age,
                   MAX(w->house.control->wall - tls_tickets_since(w->m->tickets), 0) / SEC);
        if (w->current) {
                staple_show(&w->current->staples, w->house.control->metrics,
                            w->house.control->wall / SEC);
                expiry_show(&w->current->expiry, w->current->conf, w->house.control->metrics);
        }
}

/* One line for each generation that is alive anywhere, with its requests over all workers. */
struct gen_line {
        uint64_t number, requests, made_ms;
};

static void add_gen(struct gen_line *lines, size_t *n, const struct board_gen *g)
{
        uint64_t number = atomic_load_explicit(&g->number, memory_order_relaxed);
        size_t i = 0;

        while (i < *n && lines[i].number != number)
                i++;
        if (i == *n)
                lines[(*n)++] = (struct gen_line){
                        .number = number,
                        .made_ms = atomic_load_explicit(&g->made_ms, memory_order_relaxed)};
        lines[i].requests += atomic_load_explicit(&g->requests, memory_order_relaxed);
}

static int by_number(const void *a, const void *b)
{
        const struct gen_line *x = a, *y = b;

        return (x->number > y->number) - (x->number < y->number);
}

static void status_gens(struct worker *w, struct json_writer *j)
{
        struct gen_line *lines = calloc((size_t)w->n_workers * BOARD_GENS, sizeof(*lines));
        size_t n = 0;

        CHECK(lines);
        for (unsigned i = 0; i < w->n_workers; i++) {
                const struct board_news *news = board_news(w->board, i);
                uint32_t count = said(&news->pid) ? MIN(said(&news->n_gens), BOARD_GENS) : 0;
                for (uint32_t k = 0; k < count; k++)
                        add_gen(lines, &n, &news->gens[k]);
        }
        qsort(lines, n, sizeof(*lines), by_number);
        json_key(j, STR("generations"));
        json_open(j, '[');
        for (size_t i = 0; i < n; i++) {
                json_open(j, '{');
                json_key(j, STR("number"));
                json_u64(j, lines[i].number);
                json_key(j, STR("requests"));
                json_u64(j, lines[i].requests);
                json_key(j, STR("made_ms"));
                json_u64(j, lines[i].made_ms);
                json_close(j);
        }
        json_close(j);
        free(lines);
}

static void status_worker(unsigned index, const struct board_news *news, struct json_writer *j)
{
        json_open(j, '{');
        json_key(j, STR("worker"));
        json_u64(j, index);
        json_key(j, STR("pid"));
        json_u64(j, said(&news->pid));
        json_key(j, STR("generation"));
        json_u64(j, said(&news->generation));
        json_key(j, STR("ready"));
        json_bool(j, said(&news->ready));
        json_key(j, STR("draining"));
        json_bool(j, said(&news->draining));
        json_key(j, STR("loops"));
        json_u64(j, said(&news->loops));
        json_key(j, STR("connections"));
        json_u64(j, atomic_load_explicit(&news->connections, memory_order_relaxed));
        json_close(j);
}

/* Those that are there: one that has just died is missing until its replacement speaks. */
static void status_workers(struct worker *w, struct json_writer *j)
{
        uint64_t connections = 0, leaked = 0;

        json_key(j, STR("workers"));
        json_open(j, '[');
        for (unsigned i = 0; i < w->n_workers; i++) {
                const struct board_news *news = board_news(w->board, i);
                if (said(&news->pid) == 0)
                        continue;
                connections += atomic_load_explicit(&news->connections, memory_order_relaxed);
                leaked += said(&news->leaked);
                status_worker(i, news, j);
        }
        json_close(j);
        json_key(j, STR("connections"));
        json_u64(j, connections);
        json_key(j, STR("modules_leaked"));
        json_u64(j, leaked);
}

static void status_side(struct json_writer *j, str name, const struct trial_sum *s)
{
        static const struct {
                str name;
                enum trial_cell cell;
        } counts[] = {{STR_INIT("requests"), TRIAL_REQUESTS},
                      {STR_INIT("answered"), TRIAL_ANSWERED},
                      {STR_INIT("errors"), TRIAL_ERRORS},
                      {STR_INIT("function_failures"), TRIAL_FAILED}};
        uint64_t n = s->cells[TRIAL_ANSWERED];

        json_key(j, name);
        json_open(j, '{');
        for (size_t i = 0; i < COUNT(counts); i++) {
                json_key(j, counts[i].name);
                json_u64(j, s->cells[counts[i].cell]);
        }
        json_key(j, STR("mean_ms"));
        json_double(j, n ? (double)s->cells[TRIAL_TIME] / (double)n / MSEC : 0);
        json_key(j, STR("p50_ms"));
        json_double(j, (double)trial_quantile(s, 500) / MSEC);
        json_key(j, STR("p90_ms"));
        json_double(j, (double)trial_quantile(s, 900) / MSEC);
        json_close(j);
}

/* The last one, whether it lasts or is over; null: there was none. */
static void status_canary(struct worker *w, struct json_writer *j)
{
        struct board_canary c;
        int64_t left;

        json_key(j, STR("canary"));
        if (!board_get_canary(w->board, &c)) {
                json_null(j);
                return;
        }
        left = c.over ? 0 : MAX(c.terms.period - c.elapsed, 0);
        json_open(j, '{');
        json_key(j, STR("generation"));
        json_u64(j, c.number);
        json_key(j, STR("state"));
        json_str(j, !c.over                       ? STR("running")
                    : c.verdict == CANARY_PROMOTE ? STR("promoted")
                                                  : STR("rolled_back"));
        json_key(j, STR("share"));
        json_double(j, (double)c.terms.share / TRIAL_PARTS);
        json_key(j, STR("tolerance"));
        json_double(j, (double)c.terms.tolerance / TRIAL_PARTS);
        json_key(j, STR("since_ms"));
        json_i64(j, c.since / MSEC);
        json_key(j, STR("seconds_left"));
        json_double(j, (double)(left / (SEC / 10)) / 10);
        json_key(j, STR("reason"));
        json_str(j, c.over ? str_z(c.reason) : STR_NONE);
        status_side(j, STR("old"), &c.sides[CANARY_OLD]);
        status_side(j, STR("new"), &c.sides[CANARY_NEW]);
        json_close(j);
}

/* Of all workers, whichever answers: what the others do is at most a watchdog's look old.  The
 * states of servers are what this one thinks of them. */
static void status(struct worker *w, struct buf *out)
{
        struct json_writer j;

        export_news(w);
        json_begin(&j, out);
        json_open(&j, '{');
        json_key(&j, STR("version"));
        json_str(&j, STR(WEIR_VERSION));
        json_key(&j, STR("generation"));
        json_u64(&j, w->current ? w->current->number : 0);
        json_key(&j, STR("ready"));
        json_bool(&j, is_ready(w));
        json_key(&j, STR("draining"));
        json_bool(&j, w->not_ready);
        json_key(&j, STR("worker"));
        json_u64(&j, w->index);
        status_workers(w, &j);
        status_gens(w, &j);
        status_canary(w, &j);
        json_key(&j, STR("upstreams"));
        upstreams_status(w->house.upstreams, w->m->metrics, &j);
        tunnel_status(w->m->metrics, &j);
        functions_json(w, &j, SIZE_MAX);
        if (w->current) {
                json_key(&j, STR("certificates"));
                expiry_status(&w->current->expiry, w->current->conf, w->house.control->wall / SEC,
                              &j);
        }
        json_close(&j);
        buf_put(out, "\n", 1);
}

/* ------------------------------------------------------------------ answering */

static void client_free(struct export_client *c)
{
        event_del(&c->ev);
        deadline_clear(&c->late);
        close(c->fd);
        buf_clear(&c->out);
        list_remove(&c->link);
        c->export->n_clients--;
        free(c);
}

static void respond(struct export_client *c, const char *status_line, const char *type,
                    struct buf *body, bool head_only)
{
        size_t n = body->n;

        buf_printf(&c->out,
                   "HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n"
                   "Cache-Control: no-store\r\nConnection: close\r\n\r\n",
                   status_line, type, n);
        if (!head_only)
                buf_move(&c->out, body, n);
        buf_clear(body);
}

static void answer(struct export_client *c, str method, str path)
{
        static const char text[] = "text/plain; charset=utf-8";
        struct worker *w = c->export->w;
        struct buf body = BUF_INIT;
        bool head = str_eq(method, STR("HEAD"));
        const char *line = "200 OK", *type = text;

        if (!head && !str_eq(method, STR("GET"))) {
                line = "405 Method Not Allowed";
                buf_puts(&body, STR("this listener is read-only\n"));
        } else if (str_eq(path, STR("/metrics"))) {
                type = "text/plain; version=0.0.4; charset=utf-8";
                upstreams_gauges(w->house.upstreams);
                metric_export(w->m->metrics, &body);
        } else if (str_eq(path, STR("/status"))) {
                type = "application/json";
                status(w, &body);
        } else if (str_eq(path, STR("/livez"))) {
                buf_puts(&body, STR("ok\n"));
        } else if (str_eq(path, STR("/readyz"))) {
                bool ready = is_ready(w);
                line = ready ? line : "503 Service Unavailable";
                buf_puts(&body, ready          ? STR("ok\n")
                                : w->not_ready ? STR("draining\n")
                                               : STR("starting\n"));
        } else {
                line = "404 Not Found";
                buf_puts(&body, STR("/metrics /status /livez /readyz\n"));
        }
        respond(c, line, type, &body, head);
}

static void bad_request(struct export_client *c, const char *line)
{
        struct buf body = BUF_INIT;

        respond(c, line, "text/plain; charset=utf-8", &body, false);
}

/* METHOD SP TARGET SP HTTP/1.x, an end of head; fields do not matter here. */
static void parse(struct export_client *c)
{
        str head = str_of(c->head, c->n), line, method, target, version, query;

        str_cut(head, '\r', &line, &head);
        if (!str_cut(line, ' ', &method, &target) || !str_cut(target, ' ', &target, &version) ||
            !str_starts(version, STR("HTTP/1.")) || target.n == 0 || target.p[0] != '/') {
                bad_request(c, "400 Bad Request");
                return;
        }
        str_cut(target, '?', &target, &query);
        answer(c, method, target);
}

/* ------------------------------------------------------------------ sockets */

static void client_event(evutil_socket_t fd, short what, void *arg);

static void client_write(struct export_client *c)
{
        struct iovec iov[16];

        while (c->out.n > 0) {
                struct msghdr msg = {.msg_iov = iov};
                ssize_t r;
                msg.msg_iovlen = (size_t)buf_iov(&c->out, iov, COUNT(iov), SIZE_MAX);
                r = sendmsg(c->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
                if (r < 0 && errno == EINTR)
                        continue;
                if (r < 0 && errno == EAGAIN)
                        return;
                if (r < 0) {
                        client_free(c);
                        return;
                }
                buf_drain(&c->out, (size_t)r);
        }
        /* What it still sends must not turn our last bytes into a reset: wait for its end. */
        (void)shutdown(c->fd, SHUT_WR);
        event_del(&c->ev);
        event_assign(&c->ev, c->export->w->house.control->base, c->fd, EV_READ | EV_PERSIST,
                     client_event, c);
        event_add(&c->ev, NULL);
}

static void client_answered(struct export_client *c)
{
        c->answered = true;
        event_del(&c->ev);
        event_assign(&c->ev, c->export->w->house.control->base, c->fd, EV_WRITE | EV_PERSIST,
                     client_event, c);
        event_add(&c->ev, NULL);
        client_write(c);
}

static void client_read(struct export_client *c)
{
        ssize_t r = read(c->fd, c->head + c->n, sizeof(c->head) - c->n);

        if (r < 0 && (errno == EAGAIN || errno == EINTR))
                return;
        if (r <= 0) {
                client_free(c);
                return;
        }
        c->n += (size_t)r;
        if (memmem(c->head, c->n, "\r\n\r\n", 4))
                parse(c);
        else if (c->n == sizeof(c->head))
                bad_request(c, "431 Request Header Fields Too Large");
        else
                return;
        client_answered(c);
}

static void client_event(evutil_socket_t fd, short what, void *arg)
{
        struct export_client *c = arg;
        char drop[1024];

        (void)fd;
        loop_woke(c->export->w->house.control);
        if (what & EV_WRITE) {
                client_write(c);
        } else if (!c->answered) {
                client_read(c);
        } else {
                ssize_t r = read(c->fd, drop, sizeof(drop));
                if (r == 0 || (r < 0 && errno != EAGAIN && errno != EINTR))
                        client_free(c);
        }
}

static void client_late(struct deadline *d)
{
        client_free(CONTAINER_OF(d, struct export_client, late));
}

static void door_event(evutil_socket_t fd, short what, void *arg)
{
        struct export_door *d = arg;
        struct export *e = d->export;
        struct loop *l = e->w->house.control;
        struct export_client *c;
        int peer = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

        (void)what;
        loop_woke(l);
        if (peer < 0)
                return;
        if (e->n_clients >= CLIENTS_MAX) {
                static struct log_quota quota;
                if (log_quota(&quota, 1))
                        log_warn("admin", "more than %d clients at a time", CLIENTS_MAX);
                close(peer);
                return;
        }
        c = calloc(1, sizeof(*c));
        CHECK(c);
        c->export = e;
        c->fd = peer;
        list_push(&e->clients, &c->link);
        e->n_clients++;
        event_assign(&c->ev, l->base, peer, EV_READ | EV_PERSIST, client_event, c);
        event_add(&c->ev, NULL);
        deadline_set(l, &c->late, CLIENT_TIME, client_late);
}

struct export *export_new(struct worker *w)
{
        struct export *e = calloc(1, sizeof(*e));

        CHECK(e);
        e->w = w;
        list_init(&e->doors);
        list_init(&e->clients);
        return e;
}

void export_listen(struct export *e, uint64_t id, int fd)
{
        struct export_door *d = calloc(1, sizeof(*d));

        CHECK(d);
        d->id = id;
        d->fd = fd;
        d->fresh = true;
        d->export = e;
        list_push(&e->doors, &d->link);
        event_assign(&d->ev, e->w->house.control->base, fd, EV_READ | EV_PERSIST, door_event, d);
}

void export_mark_leaving(struct export *e, uint64_t id)
{
        LIST_EACH (n, &e->doors) {
                struct export_door *d = CONTAINER_OF(n, struct export_door, link);
                if (d->id == id)
                        d->leaving = true;
        }
}

static void door_free(struct export_door *d)
{
        event_del(&d->ev);
        close(d->fd);
        list_remove(&d->link);
        free(d);
}

void export_settle(struct export *e)
{
        LIST_EACH (n, &e->doors) {
                struct export_door *d = CONTAINER_OF(n, struct export_door, link);
                if (d->fresh)
                        event_add(&d->ev, NULL);
                d->fresh = false;
                if (d->leaving)
                        door_free(d);
        }
}

void export_undo(struct export *e)
{
        LIST_EACH (n, &e->doors) {
                struct export_door *d = CONTAINER_OF(n, struct export_door, link);
                d->leaving = false;
                if (d->fresh)
                        door_free(d);
        }
}
