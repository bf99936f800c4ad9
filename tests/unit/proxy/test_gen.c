/*
 * Generations: built from a configuration in memory and undone, and handed over on two loops that
 * run.  What belongs to other layers is counted: whatever happens, all of it is given back.
 */
#include "proxy/gen.c"

#include "../base/unit.h"
#include "../conf/memory.h"
#include "../net/pump.h"

#include <limits.h>
#include <pthread.h>

#define LOOPS 2

static struct metric_region *region;
static struct loop *control, *loops[LOOPS];
static pthread_t threads[LOOPS], main_thread;

/* What is out, and what shall fail. */
static struct {
        _Atomic int modules, servers, clients, sets, upstreams, begun[LOOPS];
        const char *bad_module, *bad_tls, *bad_client; /* a part of what names it */
        bool bad_create, bad_tickets, bad_path;
        _Atomic bool bad_loop[LOOPS];
        unsigned tickets, resolvers, promoted;
        uint64_t policy;
        struct instance_env env;
} out;

const struct flow_ops flow_ops;
const weir_host api_host;

/* ------------------------------------------------------------------ other layers, as faked */

static const weir_module desc = {.name = "echo", .version = "1"};

static bool names(str s, const char *part)
{
        return part != NULL && str_find(s, str_z(part)) >= 0;
}

struct module *module_open(const struct module_file *f, const weir_host *host, struct arena *a,
                           str *error)
{
        struct module *m;

        assert_ptr_equal(host, &api_host);
        assert_string_equal(f->path, "/copy.so");
        if (names(f->origin, out.bad_module)) {
                *error = arena_printf(a, "module %.*s: will not open", STR_ARG(f->name));
                return NULL;
        }
        m = calloc(1, sizeof(*m));
        m->desc = &desc;
        out.modules++;
        return m;
}

void cases_run(const struct module *m, const struct conf_pos *at, struct report *rep)
{
        (void)m, (void)at, (void)rep;
}

void module_drop(struct module *m)
{
        out.modules--;
        free(m);
}

static const char *module_path(struct house *h, const struct module_conf *m, str bytes,
                               struct arena *a, str *error)
{
        (void)h, (void)a;
        assert_true(str_starts(bytes, STR("\x7f"
                                          "ELF")));
        if (!out.bad_path)
                return "/copy.so";
        *error = arena_printf(a, "module %.*s: no room for a copy", STR_ARG(m->name));
        return NULL;
}

struct tls_server {
        uint64_t policy, strength;
        bool demands;
        const struct tls_host *hosts;
        size_t n_hosts;
};
struct tls_client {
        int n;
};

struct tls_server *tls_server_new(const struct tls_server_conf *c, struct arena *a, str *err)
{
        struct tls_server *s;

        (void)a;
        for (size_t i = 0; i < c->n_pairs; i++) {
                if (names(c->pairs[i].cert_pem, out.bad_tls)) {
                        *err = arena_printf(a, "%.*s: not a certificate",
                                            STR_ARG(c->pairs[i].cert_file));
                        return NULL;
                }
        }
        s = calloc(1, sizeof(*s));
        s->policy = out.policy + (uint64_t)c->client_certificate;
        s->strength = (uint64_t)c->version_min;
        s->demands = c->client_certificate == TLS_CLIENT_REQUIRED;
        s->hosts = c->hosts;
        s->n_hosts = c->n_hosts;
        out.servers++;
        return s;
}

bool tls_server_demands(const struct tls_server *s)
{
        return s->demands;
}

uint64_t tls_server_strength(const struct tls_server *s)
{
        return s->strength;
}

struct tls_server *tls_server_for(struct tls_server *s, str name)
{
        for (size_t i = 0; i < s->n_hosts; i++)
                if (str_eq(s->hosts[i].names[0], name))
                        return s->hosts[i].server ? s->hosts[i].server : s;
        return s;
}

void tls_server_drop(struct tls_server *s)
{
        if (s == NULL)
                return;
        out.servers--;
        free(s);
}

bool tls_server_unused(const struct tls_server *s, size_t pair)
{
        (void)s, (void)pair;
        return false;
}

uint64_t tls_server_policy(const struct tls_server *s)
{
        return s->policy;
}

struct tls_client *tls_client_new(const struct tls_client_conf *c, struct arena *a, str *err)
{
        if (names(c->name, out.bad_client)) {
                *err = arena_printf(a, "%.*s: not an authority", STR_ARG(c->name));
                return NULL;
        }
        out.clients++;
        return calloc(1, sizeof(struct tls_client));
}

void tls_client_drop(struct tls_client *c)
{
        out.clients--;
        free(c);
}

bool tls_tickets_file_ok(str content)
{
        out.tickets += content.n == 80;
        return content.n == 80 && !out.bad_tickets;
}

bool staple_prepare(struct staples *s, const struct listen_cert *cert, struct tls_pair *pair,
                    struct arena *a, struct report *rep)
{
        (void)s, (void)cert, (void)pair, (void)a, (void)rep;
        return true;
}

struct upstream {
        struct tls_client *tls;
        str name;
};

struct upstream *upstream_hold(struct upstreams *us, const struct upstream_conf *conf,
                               struct tls_client *tls)
{
        struct upstream *u = calloc(1, sizeof(*u));

        assert_non_null(us);
        u->tls = tls;
        u->name = conf->name;
        out.upstreams++;
        return u;
}

void upstream_drop(struct upstream *u)
{
        out.upstreams--;
        free(u);
}

void upstream_promote(struct upstream *u)
{
        CHECK(u != NULL);
        out.promoted++;
}

void upstreams_resolvers(struct upstreams *us, const str *servers, size_t n)
{
        (void)us, (void)servers;
        out.resolvers = (unsigned)n;
}

void upstream_loop_begin(struct upstream *u, struct loop *l)
{
        CHECK(u != NULL && loop_self == l);
        out.begun[l->index]++;
}

void upstream_loop_end(struct upstream *u, struct loop *l)
{
        CHECK(u != NULL && loop_self == l);
        out.begun[l->index]--;
}

enum { IS_NEW, IS_BEGUN, IS_ACTIVE, IS_RETIRED, IS_ENDED };

/* Checks the order of calls on each loop. */
struct instance_set {
        _Atomic int state[LOOPS];
        _Atomic uint32_t pending[LOOPS];
};

struct instance_set *instances_create(struct instance_env *env, struct conf *c, struct report *rep)
{
        if (out.bad_create) {
                report_error(rep, &c->functions[0]->pos, "will not be created");
                return NULL;
        }
        out.env = *env;
        out.sets++;
        return calloc(1, sizeof(struct instance_set));
}

void instances_destroy(struct instance_set *s)
{
        CHECK(pthread_equal(pthread_self(), main_thread));
        for (unsigned i = 0; i < LOOPS; i++)
                CHECK(s->state[i] == IS_NEW || s->state[i] == IS_ENDED);
        out.sets--;
        free(s);
}

bool instances_loop_begin(struct instance_set *s, struct loop *l)
{
        CHECK(loop_self == l && s->state[l->index] == IS_NEW);
        if (out.bad_loop[l->index])
                return false;
        s->state[l->index] = IS_BEGUN;
        return true;
}

void instances_loop_end(struct instance_set *s, struct loop *l)
{
        CHECK(loop_self == l);
        CHECK(s->state[l->index] == IS_BEGUN || s->state[l->index] == IS_RETIRED);
        CHECK(s->pending[l->index] == 0);
        s->state[l->index] = IS_ENDED;
}

void instances_activate(struct instance_set *s, struct loop *l)
{
        CHECK(loop_self == l && s->state[l->index] == IS_BEGUN);
        s->state[l->index] = IS_ACTIVE;
}

void instances_retire(struct instance_set *s, struct loop *l)
{
        CHECK(loop_self == l && s->state[l->index] == IS_ACTIVE);
        s->state[l->index] = IS_RETIRED;
}

uint32_t instances_pending(const struct instance_set *s, const struct loop *l)
{
        return s->pending[l->index];
}

static const struct module *find(void *ctx, str name, const weir_module **found)
{
        struct module *m = map_get(ctx, name);

        if (m != NULL)
                *found = m->desc;
        return m;
}

const struct conf_handles *instances_handles(struct conf *c, struct map *modules, struct arena *a)
{
        struct conf_handles *h = ARENA_NEW(a, struct conf_handles);

        (void)c;
        h->find = find;
        h->ctx = modules;
        return h;
}

/* ------------------------------------------------------------------ the house */

static struct gen *ended[64];
static unsigned n_ended;

static void gen_ended(struct gen *g)
{
        CHECK(pthread_equal(pthread_self(), main_thread));
        for (unsigned i = 0; i < n_ended; i++)
                CHECK(ended[i] != g);
        ended[n_ended++] = g;
}

static struct house house;

static void *loop_main(void *arg)
{
        loop_run(arg);
        regex_thread_end();
        arena_thread_end();
        buf_thread_end();
        return NULL;
}

static int program_begin(void **state)
{
        (void)state;
        region = metric_region_new(LOOPS + 1, 256 * KIB);
        main_thread = pthread_self();
        metric_slot_begin(metric_slot(region, LOOPS));
        control = loop_new(UINT_MAX, metric_slot(region, LOOPS));
        for (unsigned i = 0; i < LOOPS; i++) {
                metric_slot_begin(metric_slot(region, i));
                loops[i] = loop_new(i, metric_slot(region, i));
                assert_int_equal(pthread_create(&threads[i], NULL, loop_main, loops[i]), 0);
        }
        return 0;
}

/* Something done on a loop while the test waits for it. */
struct call {
        struct loop_msg msg;
        void (*fn)(struct call *c);
        unsigned loop;
        struct gen *g;
        struct gen_loop *gl;
        bool result;
        _Atomic bool done;
};

static void call_run(struct loop_msg *m)
{
        struct call *c = CONTAINER_OF(m, struct call, msg);

        if (c->fn != NULL)
                c->fn(c);
        c->done = true;
}

static bool on(unsigned loop, void (*fn)(struct call *), struct gen *g, struct gen_loop *gl)
{
        struct call c = {.msg = {.fn = call_run}, .fn = fn, .loop = loop, .g = g, .gl = gl};

        loop_post(loops[loop], &c.msg);
        while (!c.done)
                sched_yield();
        return c.result;
}

static void stop(struct call *c)
{
        loop_stop(loops[c->loop]);
}

static int program_end(void **state)
{
        (void)state;
        for (unsigned i = 0; i < LOOPS; i++) {
                on(i, stop, NULL, NULL);
                pthread_join(threads[i], NULL);
                loop_free(loops[i]);
        }
        loop_free(control);
        metric_region_free(region);
        regex_thread_end();
        arena_thread_end();
        buf_thread_end();
        return 0;
}

static void forget(struct call *c)
{
        loops[c->loop]->slot[LOOP_SLOT_GEN] = NULL;
}

/* One key of 80 bytes; a test may cut it short. */
static char ticket_keys[81];

static int setup(void **state)
{
        (void)state;
        memset(ticket_keys, 'k', sizeof(ticket_keys) - 1);
        memset(&out, 0, sizeof(out));
        n_ended = 0;
        house = (struct house){.control = control,
                               .loops = loops,
                               .n_loops = LOOPS,
                               .upstreams = (struct upstreams *)&house, /* never looked into */
                               .module_path = module_path,
                               .gen_ended = gen_ended};
        return 0;
}

static void all_given_back(void)
{
        assert_int_equal(out.modules, 0);
        assert_int_equal(out.servers, 0);
        assert_int_equal(out.clients, 0);
        assert_int_equal(out.sets, 0);
        assert_int_equal(out.upstreams, 0);
        for (unsigned i = 0; i < LOOPS; i++)
                assert_int_equal(out.begun[i], 0);
}

static int teardown(void **state)
{
        (void)state;
        for (unsigned i = 0; i < LOOPS; i++)
                on(i, forget, NULL, NULL);
        all_given_back();
        return 0;
}

/* ------------------------------------------------------------------ the configuration */

static const char whole[] =
        "access_log off;\n"
        "resolver 192.0.2.53:53 192.0.2.54:53;\n"
        "module echo /m/echo.so;\n"
        "module other /m/other.so;\n"
        "timeout client_head=7s client_idle=8s client_body=9s client_send=10s;\n"
        "header max=20k fields=50 line=10k;\n"
        "redis plain { server 127.0.0.1:6379; user me; password secret; database 3; }\n"
        "redis safe { server 127.0.0.1:6380; tls name=redis.internal; }\n"
        "upstream a { server 10.0.0.1:80; }\n"
        "upstream b { server 10.0.0.2:443; tls name=b.internal; }\n"
        "listen 127.0.0.1:8080 { header line=2k; }\n"
        "listen 127.0.0.1:8443 tls { certificate /c.pem key=/c.key; ticket_keys /t.keys; }\n"
        "listen 127.0.0.1:8081 proxy_protocol;\n"
        "host a.example.com {\n"
        "    route /x { proxy a; }\n"
        "    route ~ '^/y' { proxy b; }\n"
        "}\n"
        "host * {\n"
        "    function echo name=e;\n"
        "    route / { respond 404; }\n"
        "}\n";

static struct gen *build_text(const char *text, uint32_t number, struct report *rep)
{
        const struct memory_entry files[] = {{"/etc/weir/weir.conf", text},
                                             {"/m/echo.so", "\x7f"
                                                            "ELF echo"},
                                             {"/m/other.so", "\x7f"
                                                             "ELF other"},
                                             {"/c.pem", "CERT"},
                                             {"/c.key", "KEY"},
                                             {"/t.keys", ticket_keys},
                                             {0}};
        struct memory m = MEMORY(files, NULL);

        *rep = (struct report){0};
        return gen_build(&house, number, &m.source, STR("/etc/weir/weir.conf"), STR("/etc/weir"),
                         rep);
}

static struct gen *build(const char *text)
{
        struct report rep;
        struct gen *g = build_text(text, 1, &rep);

        if (g == NULL || rep.errors)
                fail_msg("%.*s", STR_ARG(buf_pullup(&rep.out, rep.out.n)));
        buf_clear(&rep.out);
        return g;
}

/* It is refused, every one of these words is said, and all is undone. */
static void refused(const char *text, const char *const *says, size_t n)
{
        struct report rep;
        struct gen *g = build_text(text, 1, &rep);
        str said = buf_pullup(&rep.out, rep.out.n);

        assert_null(g);
        assert_int_not_equal(rep.errors, 0);
        for (size_t i = 0; i < n; i++)
                if (!names(said, says[i]))
                        fail_msg("\"%s\" is not in: %.*s", says[i], STR_ARG(said));
        buf_clear(&rep.out);
        all_given_back();
}
#define REFUSED(text, ...)                                                                         \
        refused(text, (const char *const[]){__VA_ARGS__},                                          \
                COUNT(((const char *const[]){__VA_ARGS__})))

/* ------------------------------------------------------------------ building */

static void builds_all_parts(void **state)
{
        struct gen *g = build(whole);

        (void)state;
        assert_int_equal(g->magic, GEN_MAGIC);
        assert_int_equal(g->number, 1);
        assert_true(g->made > INT64_C(1700000000) * SEC);
        assert_int_equal(g->n_modules, 2);
        assert_int_equal(out.modules, 2);
        assert_null(g->tls[0]);
        assert_non_null(g->tls[1]);
        assert_null(g->listens[0].tls);
        assert_ptr_equal(g->listens[1].tls, g->tls[1]);
        assert_false(g->listens[0].proxy_protocol);
        assert_true(g->listens[2].proxy_protocol);
        assert_ptr_equal(g->listens[0].flow, &flow_ops);
        assert_string_equal(g->listens[0].name, "127.0.0.1:8080");
        assert_int_equal(g->listens[0].limits.line_max, 2 * KIB);
        assert_int_equal(g->listens[1].limits.line_max, 10 * KIB);
        assert_int_equal(g->listens[3].limits.line_max, 10 * KIB);
        assert_int_equal(g->listens[0].limits.head_max, 20 * KIB);
        assert_int_equal(g->listens[0].limits.fields_max, 50);
        assert_int_equal(g->listens[0].head_us, 7 * SEC);
        assert_int_equal(g->listens[0].idle_us, 8 * SEC);
        assert_int_equal(g->listens[0].body_us, 9 * SEC);
        assert_int_equal(g->listens[0].send_us, 10 * SEC);
        assert_int_equal(out.upstreams, 2);
        assert_null(g->upstreams[0]->tls);
        assert_ptr_equal(g->upstreams[1]->tls, g->upstream_tls[1]);
        assert_int_equal(out.clients, 2); /* of an upstream and a store */
        assert_int_equal(out.resolvers, 2);
        assert_int_equal(out.tickets, 1);
        ASSERT_STR(g->redises[0].name, "plain");
        ASSERT_STR(g->redises[0].password, "secret");
        assert_int_equal(g->redises[0].database, 3);
        assert_null(g->redises[0].tls);
        assert_non_null(g->redises[1].tls);
        assert_int_equal(g->n_routes, 3);
        assert_int_equal(g->route_base[0], 0);
        assert_int_equal(g->route_base[1], 2);
        assert_ptr_equal(out.env.redises, g->redises);
        assert_ptr_equal(out.env.loops, loops);
        assert_int_equal(out.env.n_loops, LOOPS);
        assert_ptr_equal(out.env.control, control);
        gen_free(g);
        all_given_back();
}

static void smallest(void **state)
{
        struct gen *g = build("listen 127.0.0.1:80; host * { route / { respond 200; } }");

        (void)state;
        assert_int_equal(g->n_modules, 0);
        gen_free(g);
}

/* The checker has no upstreams and no network. */
static void in_the_checker(void **state)
{
        (void)state;
        house.upstreams = NULL;
        house.checker = true;
        struct gen *g = build(whole);
        assert_true(out.env.checker);
        assert_null(out.env.redises);
        assert_int_equal(out.upstreams, 0);
        assert_int_equal(out.tickets, 1);
        assert_null(g->upstreams[0]);
        gen_free(g);
        ticket_keys[79] = '\0';
        REFUSED(whole, "weir.conf:12:72: ticket_keys /t.keys");
}

static void mistakes_are_undone(void **state)
{
        (void)state;
        REFUSED("listen 127.0.0.1:80; nonsense;", "weir.conf:1:22", "nonsense");
        out.bad_module = "other";
        REFUSED(whole, "weir.conf:4:", "module other: will not open");
        out.bad_module = NULL;
        out.bad_path = true;
        REFUSED(whole, "module echo: no room for a copy", "module other: no room for a copy");
        out.bad_path = false;
        out.bad_tls = "CERT";
        REFUSED(whole, "weir.conf:12:41: /c.pem: not a certificate");
        out.bad_tls = NULL;
        out.bad_client = "b.internal";
        REFUSED(whole, "weir.conf:10:35: b.internal: not an authority");
        out.bad_client = "redis.internal";
        REFUSED(whole, "weir.conf:8:", "redis.internal: not an authority");
        out.bad_client = NULL;
        out.bad_tickets = true;
        REFUSED(whole, "weir.conf:12:72: ticket_keys /t.keys");
        out.bad_tickets = false;
        out.bad_create = true;
        REFUSED(whole, "weir.conf:19:", "will not be created");
        out.bad_create = false;
        gen_free(build(whole));
}

static void all_mistakes_in_one_run(void **state)
{
        (void)state;
        out.bad_module = "other";
        out.bad_tls = "CERT";
        out.bad_client = "internal";
        REFUSED(whole, "module other: will not open", "c.pem: not a certificate",
                "b.internal: not an authority", "redis.internal: not an authority");
        out.bad_tls = out.bad_client = NULL;
        REFUSED("listen 127.0.0.1:80;\n"
                "wrokers 2;\n"
                "module echo /m/echo.so;\n"
                "module gone /m/gone.so;\n"
                "module other /m/other.so;\n"
                "host * { function echo what=ever; route / { respond 200; } }\n",
                "weir.conf:2:1", "workers", "gone.so: No such file", "will not open", "what");
}

static void no_configuration_at_all(void **state)
{
        struct report rep = {0};
        struct memory m = MEMORY(NULL, NULL);

        (void)state;
        assert_null(gen_build(&house, 1, &m.source, STR("/none.conf"), STR("/"), &rep));
        assert_int_not_equal(rep.errors, 0);
        buf_clear(&rep.out);
}

/* ------------------------------------------------------------------ on the loops */

static void do_prepare(struct call *c)
{
        c->result = gen_prepare(c->g, loops[c->loop]);
}

static void do_commit(struct call *c)
{
        struct gen_loop *before = gen_current(loops[c->loop]);

        gen_commit(c->g, loops[c->loop]);
        c->result = gen_current(loops[c->loop]) == &c->g->per_loop[c->loop] &&
                    (before == NULL || !before->current);
}

static void do_abort(struct call *c)
{
        gen_abort(c->g, loops[c->loop]);
}

static void do_hold(struct call *c)
{
        gen_hold(gen_current(loops[c->loop]));
}

/* Is it still there after the drop, in the same callback? */
static void do_drop(struct call *c)
{
        gen_drop(c->gl);
        c->result = c->gl->gen->instances->state[c->loop] != IS_ENDED;
}

static void install(struct gen *g)
{
        for (unsigned i = 0; i < LOOPS; i++)
                assert_true(on(i, do_prepare, g, NULL));
        for (unsigned i = 0; i < LOOPS; i++)
                assert_true(on(i, do_commit, g, NULL));
}

static void do_leave(struct call *c)
{
        loops[c->loop]->slot[LOOP_SLOT_GEN] = NULL;
        instances_retire(c->g->instances, loops[c->loop]);
        gen_abort(c->g, loops[c->loop]);
}

/* The last one has no successor. */
static void uninstall(struct gen *g)
{
        for (unsigned i = 0; i < LOOPS; i++)
                on(i, do_leave, g, NULL);
        gen_free(g);
}

static int state_of(const struct gen *g, unsigned loop)
{
        on(loop, NULL, NULL, NULL); /* what was put off to the end of the turn is done */
        return g->instances->state[loop];
}

static bool has_ended(const struct gen *g)
{
        for (unsigned i = 0; i < n_ended; i++)
                if (ended[i] == g)
                        return true;
        return false;
}

#define ENDS(g)                                                                                    \
        do {                                                                                       \
                PUMP_UNTIL(control, has_ended(g));                                                 \
                gen_free(g);                                                                       \
        } while (0)

static void goes_live(void **state)
{
        struct gen *g = build(whole);

        (void)state;
        assert_null(gen_current(loops[0]));
        for (unsigned i = 0; i < LOOPS; i++) {
                assert_true(on(i, do_prepare, g, NULL));
                assert_int_equal(out.begun[i], 2);
                assert_int_equal(state_of(g, i), IS_BEGUN);
                assert_true(g->per_loop[i].prepared);
                assert_false(g->per_loop[i].current);
        }
        for (unsigned i = 0; i < LOOPS; i++) {
                assert_true(on(i, do_commit, g, NULL));
                assert_int_equal(state_of(g, i), IS_ACTIVE);
        }
        pump_turns(control, 3);
        assert_int_equal(n_ended, 0);
        uninstall(g);
}

static void aborted_everywhere(void **state)
{
        struct gen *old = build(whole), *g = build(whole);

        (void)state;
        install(old);
        assert_true(on(0, do_prepare, g, NULL));
        out.bad_loop[1] = true;
        assert_false(on(1, do_prepare, g, NULL));
        assert_int_equal(out.begun[0], 4);
        assert_int_equal(out.begun[1], 2); /* undone by itself */
        for (unsigned i = 0; i < LOOPS; i++)
                on(i, do_abort, g, NULL);
        assert_int_equal(out.begun[0], 2);
        assert_int_equal(out.begun[1], 2);
        assert_int_equal(state_of(g, 0), IS_ENDED);
        assert_int_equal(state_of(g, 1), IS_NEW);
        gen_free(g);
        for (unsigned i = 0; i < LOOPS; i++) /* the old one never noticed */
                assert_int_equal(state_of(old, i), IS_ACTIVE);
        assert_int_equal(n_ended, 0);
        uninstall(old);
}

static void an_idle_one_leaves_at_once(void **state)
{
        struct gen *old = build(whole), *g = build(whole);

        (void)state;
        install(old);
        install(g);
        ENDS(old);
        assert_int_equal(n_ended, 1);
        for (unsigned i = 0; i < LOOPS; i++)
                assert_int_equal(state_of(g, i), IS_ACTIVE);
        uninstall(g);
}

static void the_last_request_lets_go(void **state)
{
        struct gen *old = build(whole), *g = build(whole);
        struct gen_loop *gl = &old->per_loop[1];

        (void)state;
        install(old);
        on(1, do_hold, NULL, NULL);
        on(1, do_hold, NULL, NULL);
        install(g);
        assert_int_equal(state_of(old, 0), IS_ENDED);
        assert_int_equal(state_of(old, 1), IS_RETIRED);
        assert_true(on(1, do_drop, NULL, gl));
        assert_int_equal(state_of(old, 1), IS_RETIRED);
        pump_turns(control, 5);
        assert_int_equal(n_ended, 0);
        /* Not from inside the drop: a hook of a module may be on the stack. */
        assert_true(on(1, do_drop, NULL, gl));
        assert_int_equal(state_of(old, 1), IS_ENDED);
        ENDS(old);
        uninstall(g);
}

static void held_for_a_while(struct call *c)
{
        gen_hold(c->gl);
        gen_drop(c->gl);
        gen_hold(c->gl);
        gen_drop(c->gl);
}

/* What holds a current one and lets go leaves no trace. */
static void holds_of_a_current_one(void **state)
{
        struct gen *g = build(whole), *next = build(whole);

        (void)state;
        install(g);
        on(0, held_for_a_while, NULL, &g->per_loop[0]);
        assert_int_equal(state_of(g, 0), IS_ACTIVE);
        install(next);
        ENDS(g);
        uninstall(next);
}

static void background_tasks_hold_it(void **state)
{
        struct gen *old = build(whole), *g = build(whole);

        (void)state;
        install(old);
        old->instances->pending[0] = 1;
        install(g);
        assert_int_equal(state_of(old, 1), IS_ENDED);
        int64_t until = control->now + 2 * RECHECK;
        PUMP_UNTIL(control, control->now > until);
        assert_int_equal(state_of(old, 0), IS_RETIRED);
        assert_int_equal(n_ended, 0);
        old->instances->pending[0] = 0;
        ENDS(old);
        uninstall(g);
}

/* ------------------------------------------------------------------ canaries */

static void do_trial(struct call *c)
{
        static const struct trial_share half = {.then = TRIAL_ALL / 2}, all = {.then = TRIAL_ALL};

        gen_trial_begin(c->g, loops[c->loop], &half);
        gen_trial_share(c->g, loops[c->loop], &all);
        c->result = gen_current(loops[c->loop])->canary == &c->g->per_loop[c->loop] &&
                    c->g->per_loop[c->loop].trial &&
                    c->g->per_loop[c->loop].share.then == TRIAL_ALL;
}

static void do_trial_end(struct call *c)
{
        gen_trial_end(c->g, loops[c->loop]);
        c->result = gen_current(loops[c->loop])->canary == NULL;
}

static void do_hold_gl(struct call *c)
{
        gen_hold(c->gl);
}

static void try_it(struct gen *g)
{
        for (unsigned i = 0; i < LOOPS; i++)
                assert_true(on(i, do_prepare, g, NULL));
        for (unsigned i = 0; i < LOOPS; i++) {
                assert_true(on(i, do_trial, g, NULL));
                assert_int_equal(state_of(g, i), IS_ACTIVE);
                assert_int_equal(g->per_loop[i].tally->number, g->number);
        }
}

static void a_canary_is_promoted(void **state)
{
        struct gen *old = build(whole), *g = build(whole);

        (void)state;
        install(old);
        try_it(g);
        for (unsigned i = 0; i < LOOPS; i++)
                assert_int_equal(state_of(old, i), IS_ACTIVE);
        gen_promote(g);
        assert_int_equal(out.promoted, 2);
        for (unsigned i = 0; i < LOOPS; i++) {
                assert_true(on(i, do_commit, g, NULL)); /* not activated again: the fake looks */
                assert_false(g->per_loop[i].trial);
                assert_int_equal(state_of(g, i), IS_ACTIVE);
        }
        ENDS(old);
        uninstall(g);
}

/* It goes as a replaced one does: after its last request. */
static void a_canary_is_taken_back(void **state)
{
        struct gen *old = build(whole), *g = build(whole);
        struct gen_loop *gl = &g->per_loop[1];

        (void)state;
        install(old);
        for (int again = 0; again < 3; again++) { /* with the same old side */
                try_it(g);
                on(1, do_hold_gl, NULL, gl);
                for (unsigned i = 0; i < LOOPS; i++)
                        assert_true(on(i, do_trial_end, g, NULL));
                assert_int_equal(state_of(g, 0), IS_ENDED);
                assert_int_equal(state_of(g, 1), IS_RETIRED);
                pump_turns(control, 5);
                assert_false(has_ended(g));
                assert_true(on(1, do_drop, NULL, gl));
                ENDS(g);
                n_ended = 0;
                for (unsigned i = 0; i < LOOPS; i++)
                        assert_int_equal(state_of(old, i), IS_ACTIVE);
                g = build(whole);
                gl = &g->per_loop[1];
        }
        assert_int_equal(out.promoted, 0);
        gen_free(g);
        uninstall(old);
}

/* A hundred reloads while some requests last longer than others. */
static void many_reloads(void **state)
{
        struct gen *g = build(whole), *held[10] = {NULL};

        (void)state;
        install(g);
        for (int i = 0; i < 100; i++) {
                unsigned at = (unsigned)i % COUNT(held), l = (unsigned)i % LOOPS;
                if (held[at] != NULL) {
                        assert_false(has_ended(held[at]));
                        assert_true(on(1 - l, do_drop, NULL, &held[at]->per_loop[1 - l]));
                        ENDS(held[at]);
                        n_ended = 0;
                        held[at] = NULL;
                }
                struct gen *next = build(whole), *old = g;
                if (i % 3 == 0) {
                        held[at] = old;
                        on(1 - l, do_hold, NULL, NULL);
                }
                install(next);
                g = next;
                if (held[at] != old) {
                        ENDS(old);
                        n_ended = 0;
                }
        }
        for (unsigned i = 0; i < COUNT(held); i++) {
                if (held[i] == NULL)
                        continue;
                for (unsigned l = 0; l < LOOPS; l++)
                        if (held[i]->per_loop[l].live != 0)
                                assert_true(on(l, do_drop, NULL, &held[i]->per_loop[l]));
                ENDS(held[i]);
                n_ended = 0;
        }
        uninstall(g);
}

/* ------------------------------------------------------------------ listeners */

static struct addr addr_at(const char *text)
{
        struct addr a;

        assert_true(addr_parse(str_z(text), &a));
        return a;
}

static void listeners(void **state)
{
        struct addr first = addr_at("127.0.0.1:8080"), third = addr_at("127.0.0.1:8081"),
                    gone = addr_at("127.0.0.1:9999");
        struct flow_listener fl = {.addr = third};
        struct gen *g = build(whole);

        (void)state;
        assert_null(gen_downstream(loops[0], &first)); /* before the first generation */
        install(g);
        assert_ptr_equal(gen_listen(g, &first), &g->conf->listens[0]);
        assert_ptr_equal(gen_listen(g, &third), &g->conf->listens[2]);
        assert_null(gen_listen(g, &gone));
        assert_ptr_equal(gen_downstream(loops[0], &first), &g->listens[0]);
        assert_ptr_equal(gen_downstream(loops[1], &third), &g->listens[2]);
        assert_ptr_equal(gen_downstream(loops[0], &gone),
                         &g->listens[3]); /* removed: still served */
        assert_ptr_equal(g->listens[0].refresh(loops[0], &fl), &g->listens[2]);
        uninstall(g);
}

static void policies(void **state)
{
        struct tls_facts facts = {.policy = 5};

        (void)state;
        out.policy = 5;
        struct gen *g = build(whole);
        const struct listen_conf *plain = &g->conf->listens[0], *tls = &g->conf->listens[1];
        const struct host_conf *h = &g->conf->hosts[0];
        assert_int_equal(gen_policy_fits(g, plain, h, NULL), GEN_FITS);
        assert_int_equal(gen_policy_fits(g, tls, h, &facts), GEN_FITS);
        facts.policy = 6; /* it went through another verification, and has shown nothing */
        assert_int_equal(gen_policy_fits(g, tls, h, &facts), GEN_LAST);
        assert_int_equal(gen_policy_fits(g, tls, NULL, &facts), GEN_LAST);
        facts.client_verified = true; /* what it has shown is not what is believed now */
        assert_int_equal(gen_policy_fits(g, tls, h, &facts), GEN_OUTDATED);
        assert_int_equal(gen_policy_fits(g, tls, NULL, &facts), GEN_OUTDATED);
        /* or none: it is plain, from before a reload */
        assert_int_equal(gen_policy_fits(g, tls, h, NULL), GEN_OUTDATED);
        assert_int_equal(gen_policy_fits(g, plain, h, &facts), GEN_FITS);
        assert_int_equal(gen_policy_fits(g, NULL, h, &facts), GEN_FITS); /* it was removed */
        assert_int_equal(gen_policy_fits(g, NULL, h, NULL), GEN_FITS);
        gen_free(g);
}

static const char own_tls[] =
        "listen 127.0.0.1:8080;\n"
        "listen 127.0.0.1:8443 tls { certificate /c.pem key=/c.key; }\n"
        "listen 127.0.0.1:8444 tls { certificate /c.pem key=/c.key; hosts open.test; }\n"
        "host strict.test { tls { client_certificate required ca=/c.pem forward=on; }\n"
        "    route / { respond 204; } }\n"
        "host new.test { tls { versions 1.3; } route / { respond 204; } }\n"
        "host open.test { route / { respond 204; } }\n";

/* The name of the handshake, the host of the request, what becomes of it. */
static const struct {
        const char *sni;
        int host; /* -1: none was found */
        enum gen_fit fit;
} crossings[] = {
        {"strict.test", 0, GEN_FITS},       {"strict.test", 1, GEN_OTHER_NAME},
        {"strict.test", 2, GEN_OTHER_NAME}, {"strict.test", -1, GEN_FITS},
        {"new.test", 0, GEN_OTHER_NAME},    {"new.test", 1, GEN_FITS},
        {"new.test", 2, GEN_OTHER_NAME},    {"open.test", 0, GEN_OTHER_NAME},
        {"open.test", 1, GEN_OTHER_NAME},   {"open.test", 2, GEN_FITS},
        {NULL, 0, GEN_OTHER_NAME},          {NULL, 2, GEN_FITS},
};

static void policies_of_hosts(void **state)
{
        (void)state;
        out.policy = 5;
        struct gen *g = build(own_tls);
        const struct listen_conf *l = g->conf->listens;
        const struct host_conf *h = g->conf->hosts;
        assert_int_equal(out.servers, 4); /* none for hosts that a listener does not serve */
        for (size_t i = 0; i < COUNT(crossings); i++) {
                bool strict = crossings[i].sni && strcmp(crossings[i].sni, "strict.test") == 0;
                struct tls_facts facts = {.sni = str_z(crossings[i].sni), .policy = strict ? 7 : 5};
                enum gen_fit fit = gen_policy_fits(
                        g, &l[1], crossings[i].host < 0 ? NULL : &h[crossings[i].host], &facts);
                if (fit != crossings[i].fit)
                        fail_msg("%s to host %d: %d", crossings[i].sni, crossings[i].host, fit);
                facts.policy = 9; /* from before a reload */
                assert_int_equal(gen_policy_fits(g, &l[1], &h[2], &facts),
                                 strict                               ? GEN_OUTDATED
                                 : str_eq(facts.sni, STR("new.test")) ? GEN_OTHER_NAME
                                                                      : GEN_LAST);
        }
        /* Without TLS nobody has shown a certificate; what another listener saw is not known. */
        struct tls_facts shown = {.policy = 7};
        assert_int_equal(gen_policy_fits(g, &l[0], &h[0], NULL), GEN_OTHER_NAME);
        assert_int_equal(gen_policy_fits(g, &l[0], &h[1], NULL), GEN_FITS);
        assert_int_equal(gen_policy_fits(g, NULL, &h[0], &shown), GEN_OTHER_NAME);
        gen_free(g);
        assert_int_equal(out.servers, 0);
}

/* ------------------------------------------------------------------ counting */

struct count {
        struct call call;
        const struct route_conf *route;
        int status;
        int64_t us;
};

static struct count count;

static void do_count(struct call *c)
{
        struct request r = {
                .loop = loops[c->loop], .started = SEC, .res = {.status = count.status}};
        struct txn t = {.r = &r,
                        .gen = c->g,
                        .gl = &c->g->per_loop[c->loop],
                        .match = {.route = count.route},
                        .finished = SEC + count.us};

        gen_count_request(&t);
}

static void count_on(unsigned loop, struct gen *g, const struct route_conf *route, int status,
                     int64_t us)
{
        count = (struct count){.route = route, .status = status, .us = us};
        on(loop, do_count, g, NULL);
}

static uint64_t requests(const char *labels)
{
        return metric_sum(region, METRIC_REQUESTS, str_z(labels));
}

static void counts_by_route_and_class(void **state)
{
        struct gen *g = build(whole);
        const struct route_conf *x = &g->conf->hosts[0].routes[0],
                                *y = &g->conf->hosts[0].routes[1];

        (void)state;
        install(g);
        count_on(0, g, x, 200, 1000);
        count_on(1, g, x, 204, 1000);
        count_on(0, g, x, 500, 1000);
        count_on(0, g, y, 101, 1000);
        count_on(0, g, NULL, 404, 1000);
        count_on(0, g, NULL, 0, -5); /* gone before anything was known; a clock that went back */
        count_on(0, g, NULL, 777, 1000);
        assert_int_equal(requests("route=\"/x\",code=\"2xx\""), 2);
        assert_int_equal(requests("route=\"/x\",code=\"5xx\""), 1);
        assert_int_equal(requests("route=\"~ ^/y\",code=\"1xx\""), 1);
        assert_int_equal(requests("route=\"\",code=\"4xx\""), 1);
        assert_int_equal(requests("route=\"\",code=\"none\""), 2);
        assert_int_equal(metric_sum(region, METRIC_DURATION, STR("route=\"/x\"")), 3);
        assert_int_equal(metric_sum(region, METRIC_DURATION, STR("route=\"\"")), 3);
        /* The counters belong to the process: the next generation goes on. */
        struct gen *next = build(whole);
        install(next);
        ENDS(g);
        count_on(0, next, &next->conf->hosts[0].routes[0], 200, 1000);
        assert_int_equal(requests("route=\"/x\",code=\"2xx\""), 3);
        uninstall(next);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(builds_all_parts),
                TEST(smallest),
                TEST(in_the_checker),
                TEST(mistakes_are_undone),
                TEST(all_mistakes_in_one_run),
                TEST(no_configuration_at_all),
                TEST(goes_live),
                TEST(aborted_everywhere),
                TEST(an_idle_one_leaves_at_once),
                TEST(the_last_request_lets_go),
                TEST(holds_of_a_current_one),
                TEST(background_tasks_hold_it),
                TEST(a_canary_is_promoted),
                TEST(a_canary_is_taken_back),
                TEST(many_reloads),
                TEST(listeners),
                TEST(policies),
                TEST(policies_of_hosts),
                TEST(counts_by_route_and_class),
        };

        return cmocka_run_group_tests(tests, program_begin, program_end);
}
