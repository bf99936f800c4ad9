/*
 * Redis replies from bytes by hiredis' reader, built in an arena: no malloc for each element, one
 * end for all.
 *
 * The difficulty is that this reader has no limits of its own (one bulk string may claim gigabytes,
 * an array millions of elements), so both the bytes fed since the last whole reply and the elements
 * of an array are bounded here.
 */
#include "net/redis_wire.h"

#include <hiredis/hiredis.h>
#include <hiredis/read.h>
#include <stdlib.h>

#define ARENA_MAX (8 * MIB) /* what a reply within the limits may grow to */

#if HIREDIS_MAJOR >= 1
typedef size_t element_count;
#else
typedef int element_count;
#endif

struct redis_wire {
        redisReader *reader;
        struct arena *arena; /* of the reply under construction, or of the last one given */
        bool given;          /* the arena's reply was handed out */
        size_t fed;          /* bytes since the last whole reply */
};

/* ---- out ---- */

static void put_head(struct buf *out, char kind, size_t n)
{
        char head[24];
        size_t len;

        head[0] = kind;
        len = 1 + str_put_u64(head + 1, n);
        memcpy(head + len, "\r\n", 2);
        buf_put(out, head, len + 2);
}

void redis_put_array(struct buf *out, size_t n)
{
        put_head(out, '*', n);
}

void redis_put_word(struct buf *out, str s)
{
        put_head(out, '$', s.n);
        buf_puts(out, s);
        buf_put(out, "\r\n", 2);
}

/* ---- in: what the reader calls ---- */

/* Room for the reply of a task: its place in its parent, or fresh.  NULL tells the reader to give
 * up. */
static struct redis_reply *place(const redisReadTask *t)
{
        struct redis_wire *w = t->privdata;

        if (t->parent != NULL) {
                const struct redis_reply *up = t->parent->obj;
                return (struct redis_reply *)&up->elem[t->idx];
        }
        if (w->arena == NULL)
                w->arena = arena_new(ARENA_MAX);
        return ARENA_NEW(w->arena, struct redis_reply);
}

static void *make_string(const redisReadTask *t, char *p, size_t n)
{
        struct redis_wire *w = t->privdata;
        struct redis_reply *r = place(t);
        char *copy = r ? arena_alloc(w->arena, n + 1) : NULL;

        if (copy == NULL)
                return NULL;
        memcpy(copy, p, n);
        copy[n] = 0;
        r->text = str_of(copy, n);
        r->type = t->type == REDIS_REPLY_ERROR    ? REDIS_ERROR
                  : t->type == REDIS_REPLY_STATUS ? REDIS_STATUS
                                                  : REDIS_STRING;
        return r;
}

static void *make_array(const redisReadTask *t, element_count n)
{
        struct redis_wire *w = t->privdata;
        struct redis_reply *r = n <= REDIS_ELEMS_MAX ? place(t) : NULL;

        if (r == NULL)
                return NULL;
        r->type = REDIS_ARRAY;
        r->n = (size_t)n;
        r->elem = ARENA_ARRAY(w->arena, struct redis_reply, MAX(r->n, 1));
        return r->elem ? r : NULL;
}

static void *make_integer(const redisReadTask *t, long long v)
{
        struct redis_reply *r = place(t);

        if (r != NULL) {
                r->type = REDIS_INTEGER;
                r->integer = v;
        }
        return r;
}

static void *make_nil(const redisReadTask *t)
{
        struct redis_reply *r = place(t);

        if (r != NULL)
                r->type = REDIS_NIL;
        return r;
}

static void free_nothing(void *reply UNUSED)
{
}

static redisReplyObjectFunctions functions = {
        .createString = make_string,
        .createArray = make_array,
        .createInteger = make_integer,
        .createNil = make_nil,
        .freeObject = free_nothing,
};

/* ---- in ---- */

struct redis_wire *redis_wire_new(void)
{
        struct redis_wire *w = calloc(1, sizeof(*w));

        CHECK(w != NULL);
        w->reader = redisReaderCreateWithFunctions(&functions);
        CHECK(w->reader != NULL);
        w->reader->privdata = w;
        return w;
}

void redis_wire_free(struct redis_wire *w)
{
        if (w == NULL)
                return;
        redisReaderFree(w->reader);
        arena_free(w->arena);
        free(w);
}

void redis_wire_feed(struct redis_wire *w, str bytes)
{
        w->fed += bytes.n;
        if (w->fed <= REDIS_REPLY_MAX)
                redisReaderFeed(w->reader, bytes.p, bytes.n);
}

const struct redis_reply *redis_wire_next(struct redis_wire *w, const char **error)
{
        void *reply = NULL;

        *error = NULL;
        if (w->given) {
                arena_free(w->arena);
                w->arena = NULL;
                w->given = false;
        }
        if (w->fed > REDIS_REPLY_MAX) {
                *error = "a reply is larger than 1 MiB";
                return NULL;
        }
        if (redisReaderGetReply(w->reader, &reply) != REDIS_OK) {
                *error = w->reader->errstr;
                return NULL;
        }
        if (reply != NULL) {
                w->given = true;
                w->fed = w->reader->len - w->reader->pos;
        }
        return reply;
}
