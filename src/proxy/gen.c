/*
 * Generations: building one, handing it to the loops, and letting the old one go.
 *
 * The difficulty is the end: code of a module may be unmapped only when no loop can return into it.
 * So the last request of a loop only schedules the acknowledgement, which is sent from the loop's
 * top level; the control thread counts acknowledgements.
 */
#include "proxy/gen.h"

#include "base/log.h"
#include "http/downstream.h"
#include "net/redis.h"
#include "proxy/cases.h"
#include "proxy/flow.h"
#include "proxy/txn.h"

#include <stdlib.h>
#include <time.h>

#define RECHECK (100 * MSEC) /* of a retired generation that background tasks still hold */

struct route_cells {
        metric_cell *status[6]; /* 1xx..5xx at 1..5; 0: none was sent */
        metric_cell *duration;
};

struct ack {
        struct loop_msg msg;
        struct gen *gen;
};

struct gen_end { /* a loop's goodbye: scheduled, then sent */
        struct loop_task task;
        struct deadline again;
        struct ack ack;
        struct gen_loop *gl;
};

/* ------------------------------------------------------------------ building */

static bool build_modules(struct gen *g, struct source *src, struct report *rep,
                          struct map *by_name)
{
        struct conf *c = g->conf;
        struct arena *a = c->arena;
        g->modules = ARENA_ARRAY(a, struct module *, MAX(c->n_modules, 1));
        for (size_t i = 0; i < c->n_modules; i++) {
                const struct module_conf *m = &c->modules[i];
                struct module_file file = {.name = m->name, .origin = m->path};
                str error = STR_NONE;
                if (!src->file(src, m->path, a, &file.bytes, &error)) {
                        report_error(rep, &m->pos, "module %.*s: %.*s: %.*s", STR_ARG(m->name),
                                     STR_ARG(m->path), STR_ARG(error));
                        continue;
                }
                file.path = g->house->module_path(g->house, m, file.bytes, a, &error);
                struct module *mod = file.path ? module_open(&file, &api_host, a, &error) : NULL;
                if (mod == NULL) {
                        report_error(rep, &m->pos, "%.*s", STR_ARG(error));
                        continue;
                }
                g->modules[g->n_modules++] = mod;
                map_put(by_name, m->name, mod);
                if (g->house->module_opened)
                        g->house->module_opened(g->house);
                if (g->house->checker)
                        cases_run(mod, &m->pos, rep);
        }
        return g->n_modules == c->n_modules;
}

static bool build_functions(struct gen *g, struct source *src, struct report *rep)
{
        struct map *by_name = map_new();
        bool ok = build_modules(g, src, rep, by_name);
        ok = conf_link_functions(g->conf, instances_handles(g->conf, by_name, g->conf->arena),
                                 rep) &&
             ok;
        map_free(by_name);
        return ok;
}

static const struct downstream_conf *refresh(struct loop *l, void *listener)
{
        return gen_downstream(l, &((struct flow_listener *)listener)->addr);
}

static void listener_conf(struct downstream_conf *h, const struct settings *s, str name,
                          struct arena *a)
{
        *h = (struct downstream_conf){
                .limits = {.head_max = (uint32_t)MIN(s->header_max, UINT32_MAX),
                           .line_max = (uint32_t)MIN(s->header_line, UINT32_MAX),
                           .fields_max = (uint32_t)MIN(s->header_fields, UINT32_MAX)},
                .head_us = s->client_head,
                .idle_us = s->client_idle,
                .body_us = s->client_body,
                .send_us = s->client_send,
                .flow = &flow_ops,
                .name = arena_dupz(a, name),
                .refresh = refresh,
                .h1 = true,
        };
}

static void listener_protocols(struct downstream_conf *h, const struct listen_conf *l)
{
        h->h1 = h->h2 = false;
        for (size_t i = 0; i < l->n_protocols; i++)
                *(str_eq(l->protocols[i], STR("http/1.1")) ? &h->h1 : &h->h2) = true;
        h->h2_limits = (struct h2_limits){.max_streams = l->h2_max_streams,
                                          .requests = l->h2_requests,
                                          .continuations = l->h2_continuations,
                                          .resets = l->h2_resets,
                                          .pings = l->h2_pings,
                                          .settings = l->h2_settings,
                                          .priorities = l->h2_priorities,
                                          .empty_data = l->h2_empty_data,
                                          .window_updates = l->h2_window_updates,
                                          .unknown = l->h2_unknown};
}

static bool build_listens(struct gen *g, struct report *rep)
{
        struct conf *c = g->conf;
        bool ok;
        g->tls = ARENA_ARRAY(c->arena, struct tls_server *, c->n_listens + 1);
        g->listens = ARENA_ARRAY(c->arena, struct downstream_conf, c->n_listens + 1);
        ok = gen_tls_prepare(g, rep);
        for (size_t i = 0; i < c->n_listens; i++) {
                const struct listen_conf *l = &c->listens[i];
                listener_conf(&g->listens[i], &l->eff, l->text, c->arena);
                listener_protocols(&g->listens[i], l);
                g->listens[i].proxy_protocol = l->proxy_protocol;
                if (!l->tls)
                        continue;
                g->tls[i] = g->listens[i].tls = gen_tls_listen(g, l, rep);
                ok = ok && g->tls[i] != NULL;
        }
        listener_conf(&g->listens[c->n_listens], &c->eff, STR("removed"), c->arena);
        return ok;
}

static struct tls_client *client_tls(const struct conf *c, const struct tls_client_conf *conf,
                                     const struct conf_pos *pos, struct report *rep)
{
        str error = STR_NONE;
        struct tls_client *t = tls_client_new(conf, c->arena, &error);
        if (t == NULL)
                report_error(rep, pos, "%.*s", STR_ARG(error));
        return t;
}

static bool build_upstream_tls(struct gen *g, struct report *rep)
{
        static const str alpn_h2 = STR_INIT("h2");
        struct conf *c = g->conf;
        bool ok = true;
        g->upstream_tls = ARENA_ARRAY(c->arena, struct tls_client *, MAX(c->n_upstreams, 1));
        for (size_t i = 0; i < c->n_upstreams; i++) {
                const struct upstream_conf *u = &c->upstreams[i];
                if (!u->tls)
                        continue;
                struct tls_client_conf conf = {.verify = u->tls_verify,
                                               .ca_pem = u->tls_ca.text,
                                               .ca_file = u->tls_ca.file,
                                               .name = u->tls_name,
                                               .cert_pem = u->tls_cert.text,
                                               .key_pem = u->tls_key.text,
                                               .cert_file = u->tls_cert.file,
                                               .key_file = u->tls_key.file,
                                               .alpn = &alpn_h2,
                                               .n_alpn = u->protocol == PROTOCOL_H2};
                g->upstream_tls[i] = client_tls(c, &conf, &u->tls_pos, rep);
                ok = ok && g->upstream_tls[i] != NULL;
        }
        return ok;
}

bool gen_redis_conf(const struct conf *c, const struct redis_store_conf *r, struct redis_conf *out,
                    struct report *rep)
{
        *out = (struct redis_conf){.name = r->name,
                                   .addr = r->addr,
                                   .host = r->host,
                                   .port = r->port,
                                   .resolvers = c->resolvers,
                                   .n_resolvers = c->n_resolvers,
                                   .user = r->user,
                                   .password = r->password,
                                   .database = r->database,
                                   .connect_us = r->connect,
                                   .command_us = r->command};
        if (!r->tls)
                return true;
        struct tls_client_conf conf = {.verify = r->tls_verify,
                                       .ca_pem = r->tls_ca.text,
                                       .ca_file = r->tls_ca.file,
                                       .name = r->tls_name,
                                       .cert_pem = r->tls_cert.text,
                                       .key_pem = r->tls_key.text,
                                       .cert_file = r->tls_cert.file,
                                       .key_file = r->tls_key.file};
        out->tls = client_tls(c, &conf, &r->tls_pos, rep);
        return out->tls != NULL;
}

static bool build_redis(struct gen *g, struct report *rep)
{
        struct conf *c = g->conf;
        bool ok = true;
        g->redises = ARENA_ARRAY(c->arena, struct redis_conf, MAX(c->n_redises, 1));
        for (size_t i = 0; i < c->n_redises; i++)
                ok = gen_redis_conf(c, &c->redises[i], &g->redises[i], rep) && ok;
        return ok;
}

static void build_routes(struct gen *g)
{
        struct conf *c = g->conf;
        g->routes = route_table_new(c);
        g->route_base = ARENA_ARRAY(c->arena, uint32_t, MAX(c->n_hosts, 1));
        for (size_t i = 0; i < c->n_hosts; i++) {
                g->route_base[i] = g->n_routes;
                g->n_routes += (uint32_t)c->hosts[i].n_routes;
        }
}

static void build_upstreams(struct gen *g)
{
        struct conf *c = g->conf;
        if (g->house->upstreams == NULL)
                return;
        upstreams_resolvers(g->house->upstreams, c->resolvers, c->n_resolvers);
        for (size_t i = 0; i < c->n_upstreams; i++)
                g->upstreams[i] =
                        upstream_hold(g->house->upstreams, &c->upstreams[i], g->upstream_tls[i]);
}

/* The keys are the master's, who reads the file when the reload is certain: here it is only looked
 * whether it holds some. */
static bool check_tickets(const struct conf *c, struct report *rep)
{
        if (c->ticket_file.text.p == NULL || tls_tickets_file_ok(c->ticket_file.text))
                return true;
        report_error(rep, &c->ticket_pos, "ticket_keys %.*s: not one to five keys of 80 bytes",
                     STR_ARG(c->ticket_file.file));
        return false;
}

struct gen *gen_build(struct house *h, uint32_t number, struct source *src, str path, str prefix,
                      struct report *rep)
{
        unsigned mistakes = rep->errors;
        struct conf *c = conf_read_all(src, path, prefix, rep);
        if (c == NULL)
                return NULL;
        struct gen *g = calloc(1, sizeof *g);
        struct timespec now;
        CHECK(g != NULL);
        clock_gettime(CLOCK_REALTIME, &now);
        g->magic = GEN_MAGIC;
        g->number = number;
        g->house = h;
        g->conf = c;
        g->made = (int64_t)now.tv_sec * SEC + now.tv_nsec / 1000;
        g->per_loop = ARENA_ARRAY(c->arena, struct gen_loop, MAX(h->n_loops, 1));
        g->upstreams = ARENA_ARRAY(c->arena, struct upstream *, MAX(c->n_upstreams, 1));

        /* Every part is built even after a mistake, so that all of them are reported; but what is
         * made of files waits until those could be read. */
        bool read = rep->errors == mistakes, ok = build_functions(g, src, rep) && read;
        ok = read && build_listens(g, rep) && ok;
        ok = read && build_upstream_tls(g, rep) && ok;
        ok = read && build_redis(g, rep) && ok;
        ok = check_tickets(c, rep) && ok;
        if (ok && rep->errors == 0) {
                struct instance_env env = {.control = h->control,
                                           .loops = h->loops,
                                           .n_loops = h->n_loops,
                                           .store = h->store,
                                           .checker = h->checker,
                                           .quarantined = h->quarantined,
                                           .redises = h->checker ? NULL : g->redises,
                                           .upstreams = g->upstreams};
                g->instances = instances_create(&env, c, rep);
        }
        if (g->instances == NULL || rep->errors != 0) {
                gen_free(g);
                return NULL;
        }
        build_routes(g);
        build_upstreams(g);
        return g;
}

void gen_free(struct gen *g)
{
        CHECK_OBJ(g, GEN_MAGIC);
        struct conf *c = g->conf;
        if (g->instances != NULL)
                instances_destroy(g->instances);
        for (size_t i = 0; g->upstreams != NULL && i < c->n_upstreams; i++)
                if (g->upstreams[i] != NULL)
                        upstream_drop(g->upstreams[i]);
        for (size_t i = 0; g->upstream_tls != NULL && i < c->n_upstreams; i++)
                if (g->upstream_tls[i] != NULL)
                        tls_client_drop(g->upstream_tls[i]);
        for (size_t i = 0; g->redises != NULL && i < c->n_redises; i++)
                if (g->redises[i].tls != NULL)
                        tls_client_drop(g->redises[i].tls);
        for (size_t i = 0; g->tls != NULL && i < c->n_listens; i++)
                if (g->tls[i] != NULL)
                        tls_server_drop(g->tls[i]);
        for (size_t i = 0; g->host_tls != NULL && i < c->n_listens * c->n_host_tls; i++)
                tls_server_drop(g->host_tls[i]);
        for (size_t i = 0; i < g->n_modules; i++)
                module_drop(g->modules[i]);
        for (unsigned i = 0; i < g->house->n_loops; i++) {
                free(g->per_loop[i].cells);
                free(g->per_loop[i].tally);
        }
        route_table_free(g->routes);
        conf_free(c);
        g->magic = DEAD_MAGIC;
        free(g);
}

/* ------------------------------------------------------------------ on the loops */

struct gen_loop *gen_current(struct loop *l)
{
        return l->slot[LOOP_SLOT_GEN];
}

static void end_upstreams(struct gen_loop *gl)
{
        for (size_t i = 0; i < gl->gen->conf->n_upstreams; i++)
                if (gl->gen->upstreams[i] != NULL)
                        upstream_loop_end(gl->gen->upstreams[i], gl->loop);
}

bool gen_prepare(struct gen *g, struct loop *l)
{
        struct gen_loop *gl = &g->per_loop[l->index];
        gl->loop = l;
        gl->gen = g;
        for (size_t i = 0; i < g->conf->n_upstreams; i++)
                if (g->upstreams[i] != NULL) /* the checker has none */
                        upstream_loop_begin(g->upstreams[i], l);
        if (instances_loop_begin(g->instances, l)) {
                gl->prepared = true;
                return true;
        }
        end_upstreams(gl);
        return false;
}

static void undo(struct gen_loop *gl)
{
        instances_loop_end(gl->gen->instances, gl->loop);
        end_upstreams(gl);
        gl->prepared = false;
}

void gen_abort(struct gen *g, struct loop *l)
{
        struct gen_loop *gl = &g->per_loop[l->index];
        if (gl->prepared)
                undo(gl);
}

static void acknowledged(struct loop_msg *m)
{
        struct ack *ack = CONTAINER_OF(m, struct ack, msg);
        struct gen *g = ack->gen;
        free(CONTAINER_OF(ack, struct gen_end, ack));
        if (++g->acks == g->house->n_loops)
                g->house->gen_ended(g);
}

static void end_now(struct loop_task *task);

static void end_again(struct deadline *d)
{
        struct gen_end *e = CONTAINER_OF(d, struct gen_end, again);
        end_now(&e->task);
}

/* From the loop's top level: no hook of this generation is on the stack. */
static void end_now(struct loop_task *task)
{
        struct gen_end *e = CONTAINER_OF(task, struct gen_end, task);
        struct gen_loop *gl = e->gl;
        CHECK(gen_live(gl) == 0 && gl->retired);
        if (instances_pending(gl->gen->instances, gl->loop) != 0) {
                deadline_set(gl->loop, &e->again, RECHECK, end_again);
                return;
        }
        undo(gl);
        e->ack.gen = gl->gen;
        e->ack.msg.fn = acknowledged;
        loop_post(gl->gen->house->control, &e->ack.msg);
}

static void schedule_end(struct gen_loop *gl)
{
        if (gl->acked)
                return;
        gl->acked = true;
        struct gen_end *e = calloc(1, sizeof *e);
        CHECK(e != NULL);
        e->gl = gl;
        loop_defer(gl->loop, &e->task, end_now);
}

void gen_drop(struct gen_loop *gl)
{
        uint32_t live = gen_live(gl) - 1;

        CHECK(live != UINT32_MAX);
        atomic_store_explicit(&gl->live, live, memory_order_relaxed);
        if (live == 0 && UNLIKELY(gl->retired))
                schedule_end(gl);
}

static void retire(struct gen_loop *gl)
{
        gl->current = gl->trial = false;
        gl->retired = true;
        instances_retire(gl->gen->instances, gl->loop);
        if (gen_live(gl) == 0)
                schedule_end(gl);
}

void gen_commit(struct gen *g, struct loop *l)
{
        struct gen_loop *gl = &g->per_loop[l->index], *old = gen_current(l);
        CHECK(gl->prepared);
        gl->current = true;
        l->slot[LOOP_SLOT_GEN] = gl;
        if (!gl->trial)
                instances_activate(g->instances, l);
        gl->trial = false;
        if (old == NULL)
                return;
        CHECK(old->canary == NULL || old->canary == gl);
        old->canary = NULL;
        retire(old);
}

void gen_trial_begin(struct gen *g, struct loop *l, const struct trial_share *share)
{
        struct gen_loop *gl = &g->per_loop[l->index], *old = gen_current(l);
        CHECK(gl->prepared && old != NULL && old->canary == NULL);
        gl->trial = true;
        gl->share = *share;
        gl->tally = trial_tally_begin(gl->tally, g->number);
        old->tally = trial_tally_begin(old->tally, g->number);
        instances_activate(g->instances, l);
        old->canary = gl;
}

void gen_trial_share(struct gen *g, struct loop *l, const struct trial_share *share)
{
        g->per_loop[l->index].share = *share;
}

void gen_trial_end(struct gen *g, struct loop *l)
{
        struct gen_loop *gl = &g->per_loop[l->index], *old = gen_current(l);
        CHECK(old != NULL && old->canary == gl);
        old->canary = NULL;
        retire(gl);
}

void gen_promote(struct gen *g)
{
        const struct conf *c = g->conf;
        upstreams_resolvers(g->house->upstreams, c->resolvers, c->n_resolvers);
        for (size_t i = 0; i < c->n_upstreams; i++)
                upstream_promote(g->upstreams[i]);
}

/* ------------------------------------------------------------------ listeners */

static size_t listen_index(const struct gen *g, const struct addr *a)
{
        size_t i = 0;
        while (i < g->conf->n_listens && !addr_equal(&g->conf->listens[i].addr, a))
                i++;
        return i;
}

const struct listen_conf *gen_listen(const struct gen *g, const struct addr *a)
{
        size_t i = listen_index(g, a);
        return i < g->conf->n_listens ? &g->conf->listens[i] : NULL;
}

const struct downstream_conf *gen_downstream(struct loop *l, const struct addr *addr)
{
        struct gen_loop *gl = gen_current(l);
        return gl ? &gl->gen->listens[listen_index(gl->gen, addr)] : NULL;
}

/* ------------------------------------------------------------------ counting */

static void bind_cells(struct route_cells *rc, struct loop *l, const struct txn *t, unsigned class)
{
        static const char *const classes[6] = {"none", "1xx", "2xx", "3xx", "4xx", "5xx"};
        struct buf labels = BUF_INIT;
        metric_label(&labels, "route", t->match.route ? t->match.route->label : STR(""));
        if (rc->duration == NULL)
                rc->duration = metric_series(l->metrics, METRIC_DURATION, buf_front(&labels));
        metric_label(&labels, "code", str_z(classes[class]));
        rc->status[class] = metric_series(l->metrics, METRIC_REQUESTS, buf_front(&labels));
        buf_clear(&labels);
}

void gen_count_request(const struct txn *t)
{
        struct gen_loop *gl = t->gl;
        const struct route_conf *route = t->match.route;
        const struct gen *g = gl->gen;
        if (UNLIKELY(gl->cells == NULL)) {
                gl->cells = calloc(g->n_routes + 1, sizeof *gl->cells);
                CHECK(gl->cells != NULL);
        }
        uint32_t at = route ? g->route_base[route->host->index] + route->index : g->n_routes;
        struct route_cells *rc = &gl->cells[at];
        unsigned class = (unsigned)t->r->res.status / 100;
        if (class > 5)
                class = 0;
        if (UNLIKELY(rc->status[class] == NULL))
                bind_cells(rc, gl->loop, t, class);
        metric_add(rc->status[class], 1);
        metric_observe(rc->duration, (uint64_t)MAX(t->finished - t->r->started, 0));
}
