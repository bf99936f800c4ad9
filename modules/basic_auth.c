/*
 * basic_auth: asks for a name and a password (RFC 7617), known by their crypt(5) hashes.
 *
 *     function basic_auth { users ${file:/etc/weir/htpasswd}; realm "Back office"; }
 *
 * Each line of the text is name:hash, as `htpasswd -B` and mkpasswd(1) write them; an empty line
 * and one that begins with # is left out.  $basic_auth_user is who it is.
 *
 * The difficulty: such hashes are slow by design, a tenth of a second, and a loop may not block.
 * So a few threads of this instance hash, one behind the other; at most `queue` requests wait, and
 * what has been right is believed for `ttl`.  Names that do not exist cost as much as those that
 * do.  What a hash costs stands in itself, so one that would take a thread for long is refused when
 * the file is read.
 */
#include <weir/module.h>

#include "credential.h"
#include "crypt_cost.h"

#include <crypt.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>

#define PASSWORD_MAX    512 /* of crypt(3) */
#define CREDENTIALS_MAX 2048
#define THREADS_MAX     16

enum { ACCEPTED, CACHED, REFUSED, MISSING, BUSY, RESULTS };

struct user {
        weir_str name;
        const char *hash;
};

/* One password to be tried.  Held by the request and by the pool; freed by whoever is last. */
struct job {
        _Atomic int refs;
        _Atomic int unwanted; /* the client has gone */
        weir_waiter *waiter;
        struct job *next;
        const char *hash; /* of the instance, which outlives the job: its waiter holds it */
        int known, genuine;
        size_t n;
        char password[];
};

/* Threads are made when there is work for them, and end with the instance. */
struct pool {
        pthread_mutex_t lock; /* of all below */
        pthread_cond_t work;
        struct job *head, **tail;
        int64_t queued, queue_max;
        int n_threads, n_max, idle, stop;
        pthread_t thread[THREADS_MAX];
};

struct conf {
        weir_text users;
        weir_str realm, variable;
        int64_t ttl, threads, queue, max_bcrypt, max_rounds, max_yescrypt;
        int32_t forward, weak;
        /* worked out by create */
        const struct user *user; /* sorted by name */
        size_t n_users;
        weir_str challenge;
        struct pool *pool;
        uint8_t key[32]; /* of the names in the cache: another one after each reload */
        weir_metric *metric[RESULTS];
};

struct ctx {
        weir_str user, cached; /* cached: its name in the local store */
        struct job *job;
};

static const weir_arg args[] = {
        WEIR_ARG(struct conf, users, TEXT, WEIR_REQUIRED | WEIR_SECRET, NULL,
                 "Lines of name:hash, such as ${file:/etc/weir/htpasswd}."),
        WEIR_ARG(struct conf, realm, STR, 0, "restricted", "What the browser shows."),
        WEIR_ARG(struct conf, variable, VAR, 0, "user", "Variable that receives the name."),
        WEIR_ARG(struct conf, forward, BOOL, 0, "off", "Whether the server sees the password."),
        WEIR_ARG(struct conf, ttl, TIME, 0, "5m",
                 "How long a password that was right is believed; 0s: not at all.", .min = 0,
                 .max = INT64_C(86400000000)),
        WEIR_ARG(struct conf, threads, INT, 0, "2", "How many passwords are tried at once.",
                 .min = 1, .max = THREADS_MAX),
        WEIR_ARG(struct conf, queue, INT, 0, "64",
                 "How many requests may wait for that; more are answered 503.", .min = 1,
                 .max = 10000),
        WEIR_ARG(struct conf, weak, BOOL, 0, "off",
                 "Also take hashes that can be guessed fast: MD5 and DES."),
        /* Each some 0.7 s of one core. */
        WEIR_ARG(struct conf, max_bcrypt, INT, 0, "13", "Highest cost of a bcrypt hash.", .min = 4,
                 .max = 31),
        WEIR_ARG(struct conf, max_rounds, INT, 0, "1000000", "Most rounds of a SHA hash.",
                 .min = 1000, .max = 999999999),
        WEIR_ARG(struct conf, max_yescrypt, SIZE, 0, "64m",
                 "Most memory that it takes to try a yescrypt hash.", .min = 65536,
                 .max = INT64_C(1) << 40),
};

/* ------------------------------------------------------------------ the hashes */

/* NULL, or what is wrong with it. */
static const char *fault_of(const char *hash, int weak)
{
        const struct crypt_form *f = crypt_form_of(hash);

        if (strncmp(hash, "$apr1$", 6) == 0)
                return "is Apache's own MD5, which crypt(3) does not know: use htpasswd -B";
        if (f == NULL && !(weak && crypt_is_weak(hash)))
                return "is no bcrypt ($2y$), yescrypt ($y$) or SHA ($5$, $6$) hash: use htpasswd "
                       "-B";
        if (crypt_checksalt(hash) == CRYPT_SALT_INVALID ||
            crypt_checksalt(hash) == CRYPT_SALT_METHOD_DISABLED)
                return "is no hash that crypt(3) knows";
        if (f == NULL)
                return NULL;
        if (!crypt_is_whole(hash, f))
                return "is a hash that is not whole";
        if (crypt_cost(hash, f) < 0)
                return "has parameters that nobody can judge the price of";
        return NULL;
}

/* Each try takes a thread for as long as the hash asks for, and of yescrypt the memory. */
static void check_cost(weir_conf *conf, const struct conf *c, const struct user *u, const char *at)
{
        static const struct {
                const char *name, *unit;
                int64_t of;
        } limits[CRYPT_KINDS] = {
                [CRYPT_BCRYPT] = {"max_bcrypt", "as its cost", 1},
                [CRYPT_ROUNDS] = {"max_rounds", "rounds", 1},
                [CRYPT_YESCRYPT] = {"max_yescrypt", "KiB", 1024},
        };
        const int64_t most[CRYPT_KINDS] = {c->max_bcrypt, c->max_rounds, c->max_yescrypt};
        const struct crypt_form *f = crypt_form_of(u->hash);
        int64_t cost = f ? crypt_cost(u->hash, f) : 0;

        if (f == NULL || cost <= most[f->kind])
                return;
        weir->conf_error(
                conf, at, "the hash of %.*s takes too long to try: it has %lld %s, and %s= is %lld",
                WEIR_S(u->name), (long long)(cost / limits[f->kind].of), limits[f->kind].unit,
                limits[f->kind].name, (long long)(most[f->kind] / limits[f->kind].of));
}

/* ------------------------------------------------------------------ create */

static int by_name(const void *a, const void *b)
{
        const weir_str *x = &((const struct user *)a)->name, *y = &((const struct user *)b)->name;
        int order = memcmp(x->p, y->p, x->n < y->n ? x->n : y->n);

        return order ? order : (x->n > y->n) - (x->n < y->n);
}

/* One line; 0 when it is empty. */
static int read_user(weir_conf *conf, const struct conf *c, weir_str line, struct user *u)
{
        const char *colon, *fault;
        weir_str hash;

        line = credential_trim(line);
        if (line.n > 0 && line.p[line.n - 1] == '\r')
                line.n--;
        if (line.n == 0 || line.p[0] == '#')
                return 0;
        colon = memchr(line.p, ':', line.n);
        if (colon == NULL || colon == line.p) {
                weir->conf_error(conf, line.p, "a line of users is name:hash");
                return 0;
        }
        hash = weir_bytes(colon + 1, line.n - (size_t)(colon + 1 - line.p));
        colon = memchr(hash.p, ':', hash.n); /* further columns are not ours */
        if (colon != NULL)
                hash.n = (size_t)(colon - hash.p);
        u->name = weir_bytes(line.p, (size_t)(hash.p - 1 - line.p));
        u->hash = weir->format(conf, "%.*s", WEIR_S(hash)).p;
        fault = fault_of(u->hash, c->weak);
        if (fault != NULL)
                weir->conf_error(conf, hash.p, "the hash of %.*s %s", WEIR_S(u->name), fault);
        else
                check_cost(conf, c, u, hash.p);
        return 1;
}

static void read_users(weir_conf *conf, struct conf *c)
{
        weir_str rest = c->users.text;
        struct user *v;
        size_t lines = 1;

        for (size_t i = 0; i < rest.n; i++)
                lines += rest.p[i] == '\n';
        v = weir->alloc(conf, lines * sizeof(*v));
        while (rest.n > 0) {
                const char *end = memchr(rest.p, '\n', rest.n);
                size_t n = end ? (size_t)(end - rest.p) : rest.n;
                c->n_users += (size_t)read_user(conf, c, weir_bytes(rest.p, n), &v[c->n_users]);
                rest = weir_bytes(rest.p + n + (end != NULL), rest.n - n - (end != NULL));
        }
        qsort(v, c->n_users, sizeof(*v), by_name);
        for (size_t i = 1; i < c->n_users; i++)
                if (by_name(&v[i - 1], &v[i]) == 0)
                        weir->conf_error(conf, v[i].name.p, "%.*s is there twice",
                                         WEIR_S(v[i].name));
        if (c->n_users == 0)
                weir->conf_error(conf, &c->users, "it holds no user");
        c->user = v;
}

static weir_err create(weir_conf *conf, void *inst)
{
        static const char *const names[RESULTS] = {
                "total{result=\"accepted\"}", "total{result=\"cached\"}",
                "total{result=\"refused\"}",  "total{result=\"missing\"}",
                "total{result=\"busy\"}",
        };
        struct conf *c = inst;

        read_users(conf, c);
        c->challenge = weir->format(conf, "Basic realm=%.*s, charset=\"UTF-8\"",
                                    WEIR_S(credential_quoted(conf, &c->realm)));
        for (int i = 0; i < RESULTS; i++)
                c->metric[i] =
                        weir->conf_metric(conf, WEIR_COUNTER, names[i],
                                          "Requests by what became of their password.", NULL, 0);
        weir->random(c->key, sizeof(c->key));
        c->pool = weir->alloc(conf, sizeof(*c->pool));
        *c->pool = (struct pool){
                .tail = &c->pool->head, .n_max = (int)c->threads, .queue_max = c->queue};
        pthread_mutex_init(&c->pool->lock, NULL);
        pthread_cond_init(&c->pool->work, NULL);
        return WEIR_OK;
}

/* ------------------------------------------------------------------ the pool */

static void job_unref(struct job *j)
{
        if (atomic_fetch_sub_explicit(&j->refs, 1, memory_order_acq_rel) != 1)
                return;
        explicit_bzero(j->password, j->n);
        free(j);
}

static void job_drop(void *result)
{
        job_unref(result);
}

static int matches(struct crypt_data *data, const struct job *j)
{
        const char *made = crypt_rn(j->password, j->hash, data, (int)sizeof(*data));

        return made != NULL &&
               weir->equal(weir_bytes(made, strlen(made)), weir_bytes(j->hash, strlen(j->hash)));
}

/* The next job, once there is one; NULL: the instance ends, and with it nobody waits any more. */
static struct job *take(struct pool *p)
{
        struct job *j;

        pthread_mutex_lock(&p->lock);
        p->idle++;
        while (p->head == NULL && !p->stop)
                pthread_cond_wait(&p->work, &p->lock);
        p->idle--;
        j = p->head;
        if (j != NULL) {
                p->head = j->next;
                p->queued--;
                if (p->head == NULL)
                        p->tail = &p->head;
        }
        pthread_mutex_unlock(&p->lock);
        return j;
}

static void *run(void *arg)
{
        struct crypt_data *data = calloc(1, sizeof(*data));
        struct job *j;

        while ((j = take(arg)) != NULL) {
                if (data != NULL && !atomic_load_explicit(&j->unwanted, memory_order_relaxed))
                        j->genuine = matches(data, j) && j->known;
                weir->wake(j->waiter, j);
        }
        if (data != NULL)
                explicit_bzero(data, sizeof(*data));
        free(data);
        return NULL;
}

/* Signals are weir's own affair. */
static int start_thread(struct pool *p)
{
        sigset_t all, before;
        int err;

        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        err = pthread_create(&p->thread[p->n_threads], NULL, run, p);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        p->n_threads += err == 0;
        return p->n_threads > 0;
}

/* 0: too many wait already. */
static int submit(struct pool *p, struct job *j)
{
        int taken;

        pthread_mutex_lock(&p->lock);
        taken = p->queued < p->queue_max &&
                (p->idle > p->queued || p->n_threads == p->n_max || start_thread(p));
        if (taken) {
                *p->tail = j;
                p->tail = &j->next;
                p->queued++;
                pthread_cond_signal(&p->work);
        }
        pthread_mutex_unlock(&p->lock);
        return taken;
}

static void destroy(void *inst)
{
        struct pool *p = ((struct conf *)inst)->pool;

        pthread_mutex_lock(&p->lock);
        p->stop = 1;
        pthread_cond_broadcast(&p->work);
        pthread_mutex_unlock(&p->lock);
        for (int i = 0; i < p->n_threads; i++)
                pthread_join(p->thread[i], NULL);
        pthread_cond_destroy(&p->work);
        pthread_mutex_destroy(&p->lock);
}

/* ------------------------------------------------------------------ a request */

static weir_rc refuse(weir_req *r, const struct conf *c, int result)
{
        weir->metric_add(c->metric[result], 1);
        weir->header_set(r, WEIR_RESPONSE, WEIR_STR("WWW-Authenticate"), c->challenge);
        return weir->respond(r, 401, WEIR_STR("a name and a password are required\n"));
}

static weir_rc accept(weir_req *r, const struct conf *c, const struct ctx *x, int result)
{
        weir->metric_add(c->metric[result], 1);
        if (!c->forward && weir->header_del(r, WEIR_REQUEST, WEIR_STR("Authorization")) < 0)
                return WEIR_ERROR;
        return weir->var_set(r, c->variable, x->user) ? WEIR_ERROR : WEIR_CONTINUE;
}

static weir_rc tried(weir_task *r, const void *inst, void *ctx, void *arg)
{
        const struct conf *c = inst;
        struct ctx *x = ctx;
        struct job *j = arg;
        int genuine = j->genuine;

        job_unref(j);
        if (!genuine)
                return refuse(r, c, REFUSED);
        if (c->ttl > 0)
                weir->local_set(r, x->cached, WEIR_STR("1"), c->ttl);
        return accept(r, c, x, ACCEPTED);
}

/* Whose hash an unknown name is tried against: always the same one of it. */
static const struct user *stand_in(const struct conf *c, weir_str name)
{
        uint8_t md[32];
        uint32_t n;

        weir->hmac_sha256(weir_bytes(c->key, sizeof(c->key)), name, md);
        memcpy(&n, md, sizeof(n));
        return &c->user[n % c->n_users];
}

static weir_rc try_it(weir_req *r, const struct conf *c, struct ctx *x, weir_str password)
{
        struct user wanted = {.name = x->user};
        const struct user *u = bsearch(&wanted, c->user, c->n_users, sizeof(wanted), by_name);
        struct job *j = calloc(1, sizeof(*j) + password.n + 1);
        weir_rc rc;

        if (j == NULL)
                return WEIR_ERROR;
        atomic_init(&j->refs, 2);
        j->known = u != NULL;
        j->hash = (u ? u : stand_in(c, x->user))->hash;
        j->n = password.n;
        memcpy(j->password, password.p, password.n);
        rc = weir->wait(r, tried, job_drop, &j->waiter);
        if (rc != WEIR_SUSPEND) {
                free(j);
                return rc;
        }
        x->job = j;
        if (submit(c->pool, j))
                return rc;
        weir->wake(j->waiter, j); /* it must be woken all the same: the answer is given now */
        weir->metric_add(c->metric[BUSY], 1);
        weir->header_set(r, WEIR_RESPONSE, WEIR_STR("Retry-After"), WEIR_STR("1"));
        return weir->respond(r, 503, WEIR_STR("too many passwords are being tried\n"));
}

/* user-id ":" password in base64; 0: it is something else. */
static int credentials_of(weir_req *r, weir_str *user, weir_str *password)
{
        const struct credential_places where = {.header = WEIR_STR("Authorization"),
                                                .scheme = WEIR_STR("Basic")};
        weir_str coded, plain;
        const char *colon;

        if (credential_find(r, &where, &coded) != CREDENTIAL_FOUND || coded.n > CREDENTIALS_MAX)
                return 0;
        plain = weir->decode(r, WEIR_BASE64, coded);
        colon = plain.p ? memchr(plain.p, ':', plain.n) : NULL;
        if (colon == NULL || memchr(plain.p, '\0', plain.n) != NULL)
                return 0;
        *user = weir_bytes(plain.p, (size_t)(colon - plain.p));
        *password = weir_bytes(colon + 1, plain.n - user->n - 1);
        return password->n <= PASSWORD_MAX;
}

static weir_rc request(weir_req *r, const void *inst, void *ctx)
{
        const struct conf *c = inst;
        struct ctx *x = ctx;
        weir_str password, ignored;
        uint8_t md[32];

        if (!credentials_of(r, &x->user, &password))
                return refuse(r, c, MISSING);
        /* What is kept is no password, nor anything that one could be tried against. */
        weir->hmac_sha256(weir_bytes(c->key, sizeof(c->key)),
                          weir_bytes(x->user.p, x->user.n + 1 + password.n), md);
        x->cached = weir->dup(r, weir_bytes(md, sizeof(md)));
        if (x->cached.p == NULL)
                return WEIR_ERROR;
        if (c->ttl > 0 && weir->local_get(r, x->cached, &ignored))
                return accept(r, c, x, CACHED);
        return try_it(r, c, x, password);
}

static void on_log(weir_req *r, const void *inst, void *ctx)
{
        struct job *j = ((struct ctx *)ctx)->job;

        (void)r, (void)inst;
        if (j == NULL)
                return;
        atomic_store_explicit(&j->unwanted, 1, memory_order_relaxed);
        job_unref(j);
}

/* ------------------------------------------------------------------ cases */

/* The hash is of "secret". */
#define USERS                                                                                      \
        "{ realm \"a \\\"b\\\"\"; users \"# staff\n\nalice:$5$rounds=1000$abcdefghijklmnop$"       \
        "FzYoqjtuN.mjYqssIob4upmoKbZEpkdQMtytZuqNN/6:note\n\"; }"
#define WITH(fields) "GET / HTTP/1.1\nhost: a\n" fields "\n"
#define NOTHING      WITH("")
#define OTHER_SCHEME WITH("authorization: Bearer YTpi\n")
#define NO_COLON     WITH("authorization: Basic YWxp\n")
#define NOT_BASE64   WITH("authorization: Basic YTpi=\n")
#define WITH_NUL     WITH("authorization: Basic YQA6Yg==\n")
#define TWICE        WITH("authorization: Basic YTpi\nauthorization: Basic YTpi\n")
#define REFUSED_BY                                                                                 \
        "respond 401\nres www-authenticate: Basic realm=\"a \\\"b\\\"\", charset=\"UTF-8\""
static const weir_case cases[] = {
        {.name = "no credentials, or none that can be read",
         .config = USERS,
         .request = NOTHING "--\n" OTHER_SCHEME "--\n" NO_COLON "--\n" NOT_BASE64 "--\n" WITH_NUL
                            "--\n" TWICE,
         .expect = REFUSED_BY "\n--\n" REFUSED_BY "\n--\n" REFUSED_BY "\n--\n" REFUSED_BY
                              "\n--\n" REFUSED_BY "\n--\n" REFUSED_BY},
};

WEIR_MODULE(.name = "basic_auth", .version = "1.0", WEIR_ARGS(struct conf, args), WEIR_CASES(cases),
            .ctx_size = sizeof(struct ctx), .create = create, .destroy = destroy,
            .on_request = request, .on_log = on_log);
