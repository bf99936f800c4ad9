/*
 * Upstreams of the process: made from blocks, shared by generations, their sets of servers
 * published to the loops.
 *
 *    control thread: set_make -> publish -> (each loop: take_set) -> all have answered -> the old
 * set goes
 *
 * The one difficulty: loops read sets without counting or locking.  A set is therefore replaced by
 * a message to each loop and freed when each has answered; only one replacement is under way at a
 * time, and what changes meanwhile makes another one.
 */
#include "proxy/upstream.h"

#include "base/check.h"
#include "base/siphash.h"
#include "proxy/health.h"
#include "proxy/origin.h"
#include "proxy/pool.h"
#include "proxy/resolve.h"
#include "proxy/upstreams.h"

#include <stdlib.h>

#define TICK             (500 * MSEC)
#define CONNECTIONS_KEPT 256 /* records of connections, per loop */

static struct upstream *upstream_of(struct list *l)
{
        return CONTAINER_OF(l, struct upstream, link);
}

static struct server *server_of(struct list *l)
{
        return CONTAINER_OF(l, struct server, link);
}

/* ------------------------------------------------------------------ sets */

static str key_of(struct buf *b)
{
        return buf_pullup(b, b->n);
}

static void key_text(struct buf *b, str s)
{
        buf_printf(b, "%zu:", s.n);
        buf_puts(b, s);
}

static uint32_t admin_flags(const struct upstreams *us, str upstream, str server)
{
        struct buf b = BUF_INIT;
        uintptr_t flags;

        key_text(&b, upstream);
        key_text(&b, server);
        flags = (uintptr_t)map_get(us->admin, key_of(&b));
        buf_clear(&b);
        return (uint32_t)flags;
}

void upstreams_remember_admin(struct upstreams *us, str upstream, str server, uint32_t flags)
{
        struct buf b = BUF_INIT;

        key_text(&b, upstream);
        key_text(&b, server);
        if (flags)
                map_put(us->admin, key_of(&b), (void *)(uintptr_t)flags);
        else
                map_del(us->admin, key_of(&b));
        buf_clear(&b);
}

static bool known_upstream(const struct upstreams *us, str name, const struct upstream *but)
{
        LIST_EACH (l, &us->upstreams) {
                const struct upstream *u = upstream_of(l);
                if (u != but && u->set && str_eq(u->name, name))
                        return true;
        }
        return false;
}

/* The newest is the last in the list: what its block says counts for servers that older generations
 * use too. */
static bool is_newest(const struct upstream *u)
{
        for (const struct list *l = u->us->upstreams.prev; l != &u->us->upstreams; l = l->prev) {
                const struct upstream *other = CONTAINER_OF(l, const struct upstream, link);
                if (!other->trial && str_eq(other->name, u->name))
                        return other == u;
        }
        return false;
}

static void configure(struct server *s, const struct upstream *u)
{
        server_configure(s, &u->conf);
        health_configure(s, &u->conf);
}

/* The server of one address; it exists already if any set has it. */
static struct server *server_get(struct upstream *u, const struct server_conf *sc,
                                 const struct addr *addr, str label)
{
        struct upstreams *us = u->us;
        struct buf key = BUF_INIT;
        char text[ADDR_TEXT];
        struct server *s;

        key_text(&key, u->name);
        key_text(&key, label);
        key_text(&key, str_of(text, addr_print(addr, text)));
        buf_printf(&key, "%d", (int)u->conf.protocol);
        if (u->tls)
                buf_printf(&key, "%016llx", (unsigned long long)tls_client_key(u->tls));
        if (u->conf.proxy_version)
                buf_printf(&key, "P%u,%u", u->conf.proxy_version, u->conf.proxy_tlvs);
        s = map_get(us->by_key, key_of(&key));
        if (!s) {
                struct server_id id = {.upstream = u->name,
                                       .label = label,
                                       .line = sc->text,
                                       .host = sc->host,
                                       .addr = *addr,
                                       .tls = u->tls,
                                       .key = key_of(&key),
                                       .protocol = u->conf.protocol,
                                       .proxy_version = u->conf.proxy_version,
                                       .proxy_tlvs = u->conf.proxy_tlvs};
                uint32_t flags;
                if (!sc->host.n)
                        id.host = str_of(text, addr_print_ip(addr, text));
                s = server_new(us, &id);
                map_put(us->by_key, s->key, s);
                flags = admin_flags(us, u->name, label);
                if (!flags)
                        flags = admin_flags(us, u->name, sc->text);
                if (flags)
                        server_admin(s, flags, us->control->now);
                /* One that joins others starts slowly; those there from the start do not. */
                if (u->set || known_upstream(us, u->name, u))
                        atomic_store_explicit(&s->up_since, MAX(us->control->now, 1),
                                              memory_order_relaxed);
        }
        buf_clear(&key);
        if (is_newest(u) || s->uses == 0)
                configure(s, u);
        s->uses++;
        return s;
}

static size_t line_addrs(const struct upstream *u, size_t line, const struct addr **addrs,
                         bool *answered)
{
        size_t n = 1;

        *answered = true;
        *addrs = &u->conf.servers[line].addr;
        if (u->name_uses[line].name)
                *addrs = resolve_addrs(&u->name_uses[line], &n, answered);
        return n;
}

static struct server_set *set_make(struct upstream *u)
{
        struct server_set *set;
        const struct addr *addrs;
        bool answered;
        uint32_t n = 0;

        for (size_t i = 0; i < u->conf.n_servers; i++)
                n += (uint32_t)line_addrs(u, i, &addrs, &answered);
        set = server_set_new(n, u->us->n_loops, &u->us->epoch);
        n = 0;
        for (size_t i = 0; i < u->conf.n_servers; i++) {
                const struct server_conf *sc = &u->conf.servers[i];
                size_t k = line_addrs(u, i, &addrs, &answered);
                set->unresolved += !answered;
                for (size_t j = 0; j < k; j++) {
                        struct addr a = addrs[j];
                        char ip[ADDR_TEXT];
                        struct buf label = BUF_INIT;
                        if (u->name_uses[i].name) {
                                addr_set_port(&a, sc->port);
                                buf_puts(&label, sc->host);
                                buf_puts(&label, STR("/"));
                                buf_put(&label, ip, addr_print(&a, ip));
                        } else {
                                buf_puts(&label, sc->text);
                        }
                        set->m[n++] = (struct member){
                                .server = server_get(u, sc, &a, buf_pullup(&label, label.n)),
                                .weight = sc->weight,
                                .max_connections = sc->max_connections,
                                .backup = sc->backup,
                        };
                        buf_clear(&label);
                }
        }
        server_set_ready(set);
        return set;
}

static void server_unuse(struct server *s)
{
        if (--s->uses > 0)
                return;
        map_del(s->us->by_key, s->key);
        health_stop(s);
        server_retire(s);
}

static void set_end(struct server_set *set)
{
        for (uint32_t i = 0; i < set->n; i++)
                server_unuse(set->m[i].server);
        server_set_free(set);
}

static void upstream_end(struct upstream *u);
static void publish(struct upstream *u);

static void set_taken(struct loop_msg *m) /* control thread */
{
        struct upstream *u = CAST(struct upstream, UPSTREAM_MAGIC,
                                  CONTAINER_OF(m, struct upstream_loop, msg)->u);

        if (--u->publishing > 0 || u->us->stopping)
                return;
        set_end(u->old);
        u->old = NULL;
        if (u->refs == 0)
                upstream_end(u);
        else if (u->stale)
                publish(u);
}

static void take_set(struct loop_msg *m) /* each loop */
{
        struct upstream_loop *ul = CONTAINER_OF(m, struct upstream_loop, msg);

        ul->set = ul->next;
        if (ul->begun)
                origin_serve(ul);
        m->fn = set_taken;
        loop_post(ul->u->us->control, m);
}

static void publish(struct upstream *u)
{
        u->stale = false;
        u->old = u->set;
        u->set = set_make(u);
        u->publishing = u->us->n_loops;
        for (unsigned i = 0; i < u->us->n_loops; i++) {
                u->loops[i].next = u->set;
                u->loops[i].msg.fn = take_set;
                loop_post(u->us->loops[i], &u->loops[i].msg);
        }
}

void upstream_changed(struct upstream *u)
{
        CHECK_OBJ(u, UPSTREAM_MAGIC);
        if (!u->set) /* still being made */
                return;
        u->stale = true;
        if (u->publishing == 0)
                publish(u);
}

/* ------------------------------------------------------------------ upstreams */

/* All of a block that makes a difference here.  Settings come with each request. */
static void conf_key(struct buf *b, const struct upstream_conf *c, const struct tls_client *tls)
{
        key_text(b, c->name);
        buf_printf(b, "%d %d %u %u %u ", (int)c->protocol, (int)c->balance, c->keepalive,
                   c->proxy_version, c->proxy_tlvs);
        key_text(b, c->check_path);
        key_text(b, c->check_service);
        buf_printf(b, "%d %lld %lld %u %u %u %u %u %lld %lld ", c->check_grpc,
                   (long long)c->check_interval, (long long)c->check_timeout, c->check_fall,
                   c->check_rise, c->expect_min, c->expect_max, c->eject_failures,
                   (long long)c->eject_for, (long long)c->slow_start);
        key_text(b, c->sticky_cookie);
        if (tls)
                buf_printf(b, "%016llx ", (unsigned long long)tls_client_key(tls));
        for (size_t i = 0; i < c->n_servers; i++) {
                const struct server_conf *s = &c->servers[i];
                key_text(b, s->text);
                buf_printf(b, "%u %u %d %lld ", s->weight, s->max_connections, s->backup,
                           (long long)s->resolve);
        }
}

static void copy_conf(struct upstream *u, const struct upstream_conf *c)
{
        struct arena *a = u->arena = arena_new(0);
        struct server_conf *servers = ARENA_ARRAY(a, struct server_conf, c->n_servers);

        u->conf = (struct upstream_conf){
                .name = arena_dup(a, c->name),
                .protocol = c->protocol,
                .proxy_version = c->proxy_version,
                .proxy_tlvs = c->proxy_tlvs,
                .balance = c->balance,
                .n_servers = c->n_servers,
                .servers = servers,
                .keepalive = c->keepalive,
                .check_grpc = c->check_grpc,
                .check_path = arena_dup(a, c->check_path),
                .check_service = arena_dup(a, c->check_service),
                .check_interval = c->check_interval,
                .check_timeout = c->check_timeout,
                .check_fall = c->check_fall,
                .check_rise = c->check_rise,
                .expect_min = c->expect_min,
                .expect_max = c->expect_max,
                .eject_failures = c->eject_failures,
                .eject_for = c->eject_for,
                .slow_start = c->slow_start,
        };
        for (size_t i = 0; i < c->n_servers; i++) {
                servers[i] = c->servers[i];
                servers[i].pos = (struct conf_pos){0};
                servers[i].text = arena_dup(a, c->servers[i].text);
                servers[i].host = arena_dup(a, c->servers[i].host);
        }
        u->name = u->conf.name;
        u->balance = c->balance;
        if (c->sticky_cookie.n) {
                u->sticky_cookie = arena_dup(a, c->sticky_cookie);
                u->sticky_var = arena_printf(a, "cookie_%.*s", STR_ARG(c->sticky_cookie));
        }
}

static struct upstream *upstream_new(struct upstreams *us, const struct upstream_conf *conf,
                                     struct tls_client *tls, str key)
{
        struct upstream *u = calloc(1, sizeof(*u));

        CHECK(u != NULL);
        u->magic = UPSTREAM_MAGIC;
        u->us = us;
        u->trial = us->trial;
        copy_conf(u, conf);
        u->key = arena_dup(u->arena, key);
        u->subject = server_subject(u->name);
        u->tls = tls ? tls_client_hold(tls) : NULL;
        u->loops = aligned_alloc(64, sizeof(*u->loops) * us->n_loops);
        u->name_uses = calloc(conf->n_servers ? conf->n_servers : 1, sizeof(*u->name_uses));
        CHECK(u->loops != NULL && u->name_uses != NULL);
        memset(u->loops, 0, sizeof(*u->loops) * us->n_loops);
        list_push(&us->upstreams, &u->link);
        for (size_t i = 0; i < u->conf.n_servers; i++)
                if (u->conf.servers[i].addr.len == 0)
                        resolve_begin(&u->name_uses[i], u, u->conf.servers[i].host,
                                      u->conf.servers[i].resolve);
        u->set = set_make(u);
        for (unsigned i = 0; i < us->n_loops; i++) {
                u->loops[i].u = u;
                u->loops[i].loop = us->loops[i];
                u->loops[i].set = u->set;
                list_init(&u->loops[i].queue);
        }
        return u;
}

static void upstream_free(struct upstream *u)
{
        server_set_free(u->set);
        free(u->name_uses);
        free(u->loops);
        free(u->subject);
        if (u->tls)
                tls_client_drop(u->tls);
        arena_free(u->arena);
        u->magic = DEAD_MAGIC;
        free(u);
}

static void upstream_end(struct upstream *u)
{
        set_end(u->set);
        u->set = NULL;
        upstream_free(u);
}

void upstreams_trial(struct upstreams *us, bool on)
{
        us->trial = on;
}

void upstream_promote(struct upstream *u)
{
        CHECK_OBJ(u, UPSTREAM_MAGIC);
        u->trial = false;
        list_remove(&u->link); /* the newest again */
        list_push(&u->us->upstreams, &u->link);
        for (uint32_t i = 0; i < u->set->n; i++)
                configure(u->set->m[i].server, u);
}

struct upstream *upstream_hold(struct upstreams *us, const struct upstream_conf *conf,
                               struct tls_client *tls)
{
        struct buf key = BUF_INIT;
        struct upstream *u;

        conf_key(&key, conf, tls);
        u = map_get(us->by_conf, key_of(&key));
        if (!u) {
                u = upstream_new(us, conf, tls, key_of(&key));
                map_put(us->by_conf, u->key, u);
        } else if (!us->trial) {
                upstream_promote(u);
        }
        buf_clear(&key);
        u->refs++;
        return u;
}

void upstream_drop(struct upstream *u)
{
        CHECK_OBJ(u, UPSTREAM_MAGIC);
        CHECK(u->refs > 0);
        if (--u->refs > 0)
                return;
        map_del(u->us->by_conf, u->key);
        list_remove(&u->link);
        for (size_t i = 0; i < u->conf.n_servers; i++)
                if (u->name_uses[i].name)
                        resolve_end(&u->name_uses[i]);
        if (u->publishing == 0)
                upstream_end(u);
}

static metric_cell *upstream_series(const struct upstream *u, struct loop *l, unsigned family)
{
        struct buf labels = BUF_INIT;
        metric_cell *cell;

        metric_label(&labels, "upstream", u->name);
        cell = metric_series(l->metrics, family, key_of(&labels));
        buf_clear(&labels);
        return cell;
}

void upstream_loop_begin(struct upstream *u, struct loop *l)
{
        struct upstream_loop *ul = upstream_here(u, l);

        CHECK_OBJ(u, UPSTREAM_MAGIC);
        u->us->per_loop[l->index].closing = false;
        if (ul->begun++ > 0)
                return;
        if (!ul->duration) {
                ul->duration = upstream_series(u, l, METRIC_UPSTREAM_DURATION);
                ul->retries = upstream_series(u, l, METRIC_RETRIES);
                ul->refused = upstream_series(u, l, METRIC_REFUSED);
                ul->tokens = RETRY_TOKENS;
        }
}

void upstream_loop_end(struct upstream *u, struct loop *l)
{
        struct upstream_loop *ul = upstream_here(u, l);

        CHECK_OBJ(u, UPSTREAM_MAGIC);
        CHECK(ul->begun > 0);
        if (--ul->begun > 0)
                return;
        CHECK(list_empty(&ul->queue));
        deadline_clear(&ul->poll);
        if (list_linked(&ul->serve.link))
                list_remove(&ul->serve.link);
}

unsigned upstream_retry_after(struct upstream *u, const struct loop *l)
{
        const struct server_set *set = upstream_here(u, l)->set;
        int64_t next = balance_next_change(set, l->now), wait = 0;

        if (next)
                wait = next - l->now;
        if (u->conf.check_interval && (wait == 0 || u->conf.check_interval < wait))
                wait = u->conf.check_interval;
        return (unsigned)MIN(MAX((wait + SEC - 1) / SEC, 1), 3600);
}

/* ------------------------------------------------------------------ all of them */

static void upstream_gauges(struct upstream *u)
{
        uint64_t idle = 0, connections = 0, streams = 0, queued = 0;

        for (unsigned i = 0; i < u->us->n_loops; i++) {
                queued += atomic_load_explicit(&u->loops[i].queued, memory_order_relaxed);
                for (uint32_t k = 0; k < u->set->n; k++) {
                        struct server_loop *sl = &u->set->m[k].server->loops[i];
                        idle += atomic_load_explicit(&sl->idle_n, memory_order_relaxed);
                        connections +=
                                atomic_load_explicit(&sl->connections_n, memory_order_relaxed);
                        streams += atomic_load_explicit(&sl->streams_n, memory_order_relaxed);
                }
        }
        if (!u->idle_cell) {
                u->idle_cell = upstream_series(u, u->us->control, METRIC_POOL_IDLE);
                u->connections_cell = upstream_series(u, u->us->control, METRIC_POOL_CONNECTIONS);
                u->streams_cell = upstream_series(u, u->us->control, METRIC_POOL_STREAMS);
                u->queued_cell = upstream_series(u, u->us->control, METRIC_QUEUED);
        }
        metric_set(u->idle_cell, (int64_t)idle);
        metric_set(u->connections_cell, (int64_t)connections);
        metric_set(u->streams_cell, (int64_t)streams);
        metric_set(u->queued_cell, (int64_t)queued);
}

void upstreams_gauges(struct upstreams *us)
{
        LIST_EACH (l, &us->servers) {
                server_gauges(server_of(l), us->control->now, us->worker == 0);
        }
        LIST_EACH (l, &us->upstreams) {
                upstream_gauges(upstream_of(l));
        }
}

static void tick(struct deadline *d)
{
        struct upstreams *us = CONTAINER_OF(d, struct upstreams, tick);

        upstreams_gauges(us);
        deadline_set(us->control, d, TICK, tick);
}

struct upstreams *upstreams_new(struct loop *control, struct loop **loops, unsigned n_loops,
                                struct inflight_region *inflight, unsigned worker)
{
        struct upstreams *us = calloc(1, sizeof(*us));

        CHECK(us != NULL && n_loops > 0);
        us->control = control;
        us->n_loops = n_loops;
        us->worker = worker;
        us->inflight = inflight;
        us->loops = calloc(n_loops, sizeof(struct loop *));
        us->per_loop = aligned_alloc(64, sizeof(*us->per_loop) * n_loops);
        CHECK(us->loops != NULL && us->per_loop != NULL);
        memset(us->per_loop, 0, sizeof(*us->per_loop) * n_loops);
        for (unsigned i = 0; i < n_loops; i++) {
                CHECK(loops[i]->index == i);
                us->loops[i] = loops[i];
                slab_init(&us->per_loop[i].connections, pool_conn_size(), CONNECTIONS_KEPT);
                list_init(&us->per_loop[i].active);
        }
        list_init(&us->upstreams);
        list_init(&us->servers);
        list_init(&us->retired);
        us->by_conf = map_new();
        us->by_key = map_new();
        us->admin = map_new();
        us->names = map_new();
        deadline_set(control, &us->tick, TICK, tick);
        return us;
}

static void free_servers(struct list *servers)
{
        struct list *l;

        while ((l = servers->next) != servers) {
                health_stop(server_of(l));
                server_free(server_of(l));
        }
}

void upstreams_free(struct upstreams *us)
{
        struct list *l;

        us->stopping = true;
        deadline_clear(&us->tick);
        loop_turn(us->control, false); /* answers of the loops point into what goes now */
        resolve_free(us);
        while ((l = list_pop(&us->upstreams)) != NULL) {
                server_set_free(upstream_of(l)->old);
                upstream_free(upstream_of(l));
        }
        free_servers(&us->servers);
        free_servers(&us->retired);
        for (unsigned i = 0; i < us->n_loops; i++)
                slab_end(&us->per_loop[i].connections);
        map_free(us->by_conf);
        map_free(us->by_key);
        map_free(us->admin);
        map_free(us->names);
        free((char *)us->resolvers.p);
        free(us->per_loop);
        free(us->loops);
        free(us);
}

void upstreams_resolvers(struct upstreams *us, const str *servers, size_t n)
{
        struct buf texts = BUF_INIT;

        if (us->trial)
                return;
        for (size_t i = 0; i < n; i++) {
                buf_puts(&texts, servers[i]);
                buf_put(&texts, "\n", 1);
        }
        if (!us->resolvers.p || !str_eq(us->resolvers, key_of(&texts))) {
                free((char *)us->resolvers.p);
                us->resolvers = str_of(str_dupz(key_of(&texts)), texts.n);
                resolve_servers(us, servers, n);
        }
        buf_clear(&texts);
}

void upstreams_close_idle(struct upstreams *us, struct loop *l)
{
        struct upstreams_loop *here = &us->per_loop[l->index];

        here->closing = true;
        LIST_EACH (n, &here->active) {
                pool_close_idle(CONTAINER_OF(n, struct server_loop, link), REASON_SHUTDOWN);
        }
}
