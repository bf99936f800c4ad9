/*
 * Commands of the Redis client: where each stands, and how its caller is told.
 *
 *     waiting (no connection yet) --> sent (in the pipeline) --> answered
 *          `-----------------------------`--> failing (told at the end of the turn)
 *
 * The difficulty is what a caller has given up: its command stays in its place of the pipeline,
 * without a caller, so that the replies behind it find theirs.
 */
#include "net/redis_type.h"

#include "base/slab.h"

#include <stdlib.h>

#define WAITING_MAX 1024  /* commands while a connection is made */
#define SENT_MAX    65536 /* commands without a reply */

static _Thread_local struct slab call_slab;

/* ---- ends ---- */

static void count(struct redis *r, enum redis_result what)
{
        if (r->count[what] != NULL)
                metric_add(r->count[what], 1);
}

static void call_unlink(struct redis_call *c)
{
        struct redis *r = c->redis;

        list_remove(&c->link);
        if (c->waiting)
                r->n_waiting--;
        else if (c->fail == 0)
                r->n_sent--;
}

static void call_free(struct redis_call *c)
{
        deadline_clear(&c->deadline);
        if (c->rest != c->small)
                free(c->rest);
        slab_put(&call_slab, c);
}

/* Its place is given up, then its caller told; c is gone. */
static void complete(struct redis_call *c, const struct redis_reply *reply)
{
        struct redis *r = c->redis;
        redis_fn *fn = c->fn;
        void *arg = c->arg;

        call_unlink(c);
        call_free(c);
        if (r->refs == 0)
                redis_at_end_of_turn(r);
        if (fn != NULL)
                fn(reply, arg);
}

/* To be told at the end of the turn. */
void redis_call_fail(struct redis_call *c, int fail)
{
        struct redis *r = c->redis;

        if (list_linked(&c->link))
                call_unlink(c);
        deadline_clear(&c->deadline);
        if (c->fn == NULL) {
                call_free(c);
                return;
        }
        c->waiting = false;
        c->fail = (uint8_t)fail;
        list_push(&r->failing, &c->link);
        redis_at_end_of_turn(r);
}

void redis_calls_deliver(struct redis *r)
{
        while (!list_empty(&r->failing)) {
                struct redis_call *c = CONTAINER_OF(r->failing.next, struct redis_call, link);
                struct redis_reply reply = {
                        .type = REDIS_FAIL, .fail = c->fail, .text = str_z(r->why)};

                count(r, c->fail == REDIS_UNAVAILABLE ? RESULT_UNAVAILABLE : RESULT_CLOSED);
                complete(c, &reply);
        }
}

/* ---- the pipeline ---- */

static void put_script(struct redis_call *c, bool by_sha)
{
        struct buf *out = &c->redis->io.out;

        redis_put_array(out, c->words);
        redis_put_word(out, by_sha ? STR("EVALSHA") : STR("EVAL"));
        redis_put_word(out, by_sha ? str_of(c->sha, sizeof(c->sha)) : c->script);
        buf_put(out, c->rest, c->rest_n);
}

static void now_sent(struct redis_call *c)
{
        struct redis *r = c->redis;

        c->waiting = false;
        list_push(&r->sent, &c->link);
        r->n_sent++;
        r->flush_due = true;
        redis_at_end_of_turn(r);
}

void redis_calls_send(struct redis *r)
{
        while (!list_empty(&r->waiting)) {
                struct redis_call *c = CONTAINER_OF(r->waiting.next, struct redis_call, link);
                call_unlink(c);
                if (c->script.p)
                        put_script(c, true);
                else
                        buf_put(&r->io.out, c->rest, c->rest_n);
                now_sent(c);
        }
}

void redis_calls_answered(struct redis *r, const struct redis_reply *reply)
{
        struct redis_call *c = CONTAINER_OF(r->sent.next, struct redis_call, link);
        bool error = reply->type == REDIS_ERROR;

        if (c->fn == NULL) { /* too late, or not wanted any more */
                complete(c, reply);
                return;
        }
        if (error && c->script.p && str_starts(reply->text, STR("NOSCRIPT"))) {
                call_unlink(c);
                put_script(c, false); /* which makes it known, too */
                c->script = STR_NONE; /* who does not know it even then is answered no third time */
                now_sent(c);
                return;
        }
        /* A master that has become a replica: whoever is the master now is found by connecting
         * anew. */
        if (error && str_starts(reply->text, STR("READONLY")) &&
            r->loop->now - r->ready_at >= REDIS_SETTLED)
                r->stale = true;
        redis_succeeded(r);
        count(r, error ? RESULT_ERROR : RESULT_OK);
        if (r->duration != NULL)
                metric_observe(r->duration, (uint64_t)(r->loop->now - c->begun));
        complete(c, reply);
}

static void on_call_timeout(struct deadline *d)
{
        struct redis_call *c = CONTAINER_OF(d, struct redis_call, deadline);
        struct redis *r = c->redis;
        redis_fn *fn = c->fn;
        void *arg = c->arg;
        struct redis_reply reply = {.type = REDIS_FAIL,
                                    .fail = REDIS_TIMEOUT,
                                    .text = STR("timeout command: no reply in time")};

        count(r, RESULT_TIMEOUT);
        c->fn = NULL;
        if (c->waiting) {
                call_unlink(c);
                call_free(c);
        } else {
                redis_failed(r, "commands time out"); /* c may be gone */
        }
        if (r->refs == 0)
                redis_at_end_of_turn(r);
        fn(&reply, arg);
}

bool redis_calls_wanted(const struct redis *r)
{
        if (r->n_waiting > 0 || !list_empty(&r->failing))
                return true;
        LIST_EACH (n, &r->sent) {
                if (CONTAINER_OF(n, struct redis_call, link)->fn != NULL)
                        return true;
        }
        return false;
}

/* ---- what callers call ---- */

/* A call in the place where it belongs now; rest is encoded already if it is needed. */
static void place(struct redis_call *c, int64_t timeout_us)
{
        struct redis *r = c->redis;

        if (r->open || r->n_sent >= SENT_MAX || r->n_waiting >= WAITING_MAX) {
                redis_call_fail(c, REDIS_UNAVAILABLE);
                return;
        }
        deadline_set(r->loop, &c->deadline, timeout_us ? timeout_us : r->command_us,
                     on_call_timeout);
        c->waiting = true;
        list_push(&r->waiting, &c->link);
        r->n_waiting++;
        if (r->state == READY && !r->stale)
                redis_calls_send(r);
}

static struct redis_call *call_new(struct redis *r, redis_fn *fn, void *arg)
{
        struct redis_call *c;

        if (call_slab.size == 0)
                slab_init(&call_slab, sizeof(struct redis_call), 256);
        c = slab_get(&call_slab);
        c->redis = r;
        c->fn = fn;
        c->arg = arg;
        c->begun = r->loop->now;
        c->rest = c->small;
        return c;
}

static void keep_rest(struct redis_call *c, struct buf *b)
{
        c->rest_n = b->n;
        if (b->n > sizeof(c->small)) {
                c->rest = malloc(b->n);
                CHECK(c->rest != NULL);
        }
        buf_copy_out(b, 0, c->rest, b->n);
        buf_clear(b);
}

struct redis_call *redis_command(struct redis *r, const str *argv, size_t argc, int64_t timeout_us,
                                 redis_fn *fn, void *arg)
{
        struct redis_call *c = call_new(r, fn, arg);
        struct buf b = BUF_INIT;

        CHECK(argc > 0 && fn != NULL);
        if (!r->open) {
                redis_put_array(&b, argc);
                for (size_t i = 0; i < argc; i++)
                        redis_put_word(&b, argv[i]);
                keep_rest(c, &b);
        }
        place(c, timeout_us);
        return c;
}

struct redis_call *redis_script(struct redis *r, str script, const char *sha,
                                const str *keys_and_args, size_t n_keys, size_t argc,
                                int64_t timeout_us, redis_fn *fn, void *arg)
{
        struct redis_call *c = call_new(r, fn, arg);
        struct buf b = BUF_INIT;
        char number[20];

        CHECK(n_keys <= argc && fn != NULL && script.p != NULL);
        c->script = script;
        memcpy(c->sha, sha, sizeof(c->sha));
        c->words = (uint32_t)(3 + argc);
        redis_put_word(&b, str_of(number, str_put_u64(number, n_keys)));
        for (size_t i = 0; i < argc; i++)
                redis_put_word(&b, keys_and_args[i]);
        keep_rest(c, &b);
        place(c, timeout_us);
        return c;
}

void redis_cancel(struct redis_call *c)
{
        if (c->redis->refs == 0)
                redis_at_end_of_turn(c->redis);
        c->fn = NULL;
        deadline_clear(&c->deadline);
        if (c->waiting || c->fail != 0) {
                call_unlink(c);
                call_free(c);
        }
}

void redis_calls_thread_end(void)
{
        if (call_slab.size != 0 && call_slab.live == 0)
                slab_end(&call_slab);
}
