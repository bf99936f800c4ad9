/*
 * Ticket keys in Redis (ticket_redis.h).
 *
 *   every eighth of a period: for the next and this one SET NX, then GET; for the three before GET
 *
 * The difficulty is a Redis that forgets or is away.  What is known here is put there again with
 * every SET NX, so that one that was emptied soon has the same keys; and without it the keys go
 * on: the next one, which is known already, then that one for as long as it takes.
 */
#include "daemon/ticket_redis.h"

#include "base/check.h"
#include "base/crypto.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>

#define LOOK_MIN   (100 * MSEC)
#define LOOK_MAX   (60 * SEC)
#define TEXT_BYTES ((size_t)2 * TLS_TICKET_KEY_BYTES)
#define PERIODS    (1 + 1 + TLS_TICKET_OLD) /* next, this, old ones */

struct keeper;

/* One question; reused for the same place in time. */
struct ask {
        struct keeper *keeper;
        int64_t from;
        bool waiting;
};

/* Lives as long as the process. */
struct keeper {
        struct loop *loop;
        struct redis *redis;
        struct tls_tickets *tickets;
        const char *subject;
        char *prefix;
        int64_t rotate;
        struct deadline look;
        struct ask asks[PERIODS];
        bool failing, refused; /* reading and putting keys; said so */
};

/* ------------------------------------------------------------------ the set */

static void insert(struct tls_ticket_set *set, int64_t from, const uint8_t *key)
{
        uint32_t i = 0, drop;

        while (i < set->n && set->v[i].from > from)
                i++;
        if (i == set->n || set->v[i].from != from) {
                drop = MIN(set->n, (uint32_t)TLS_TICKET_KEYS - 1);
                if (i > drop)
                        return; /* older than all that have room */
                memmove(&set->v[i + 1], &set->v[i], (drop - i) * sizeof(set->v[0]));
                set->n = drop + 1;
        }
        set->v[i].from = from;
        memcpy(set->v[i].key, key, TLS_TICKET_KEY_BYTES);
}

void ticket_set_merge(struct tls_ticket_set *set, int64_t from,
                      const uint8_t key[TLS_TICKET_KEY_BYTES], int64_t now)
{
        uint32_t old = 0, n;

        if (key)
                insert(set, from, key);
        set->seal = 0;
        while (set->seal + 1 < set->n && set->v[set->seal].from > now)
                set->seal++;
        for (n = set->seal + 1; n < set->n && old < TLS_TICKET_OLD; n++)
                old++;
        set->n = n;
}

/* ------------------------------------------------------------------ trouble */

static void complain(struct keeper *k, bool *said, const char *what, str detail)
{
        struct buf labels = BUF_INIT;

        metric_label(&labels, "source", STR("redis"));
        metric_add(metric_series(k->loop->metrics, METRIC_TICKET_FAILURES, buf_front(&labels)), 1);
        buf_clear(&labels);
        if (!*said)
                log_warn(k->subject, "%s%.*s; the keys that are known go on", what,
                         STR_ARG(detail));
        *said = true;
}

/* ------------------------------------------------------------------ keys */

static void take(struct keeper *k, int64_t from, const uint8_t *key)
{
        struct tls_ticket_set set;

        tls_tickets_get(k->tickets, &set);
        ticket_set_merge(&set, from, key, k->loop->wall);
        if (tls_tickets_put(k->tickets, &set) == TLS_TICKETS_ROTATED)
                metric_add(metric_series(k->loop->metrics, METRIC_TICKET_ROTATIONS, STR("")), 1);
        explicit_bzero(&set, sizeof(set));
}

static bool key_of(str text, uint8_t key[TLS_TICKET_KEY_BYTES])
{
        if (text.n != TEXT_BYTES)
                return false;
        for (size_t i = 0; i < TLS_TICKET_KEY_BYTES; i++) {
                int high = str_hex_digit(text.p[2 * i]), low = str_hex_digit(text.p[2 * i + 1]);
                if (high < 0 || low < 0)
                        return false;
                key[i] = (uint8_t)(high * 16 + low);
        }
        return true;
}

/* What is known of a period, or chance. */
static void candidate(struct keeper *k, int64_t from, char out[TEXT_BYTES])
{
        struct tls_ticket_set set;
        uint8_t key[TLS_TICKET_KEY_BYTES];

        tls_tickets_get(k->tickets, &set);
        crypto_random(key, sizeof(key));
        for (uint32_t i = 0; i < set.n; i++)
                if (set.v[i].from == from)
                        memcpy(key, set.v[i].key, sizeof(key));
        crypto_hex(out, key, sizeof(key));
        explicit_bzero(key, sizeof(key));
        explicit_bzero(&set, sizeof(set));
}

/* ------------------------------------------------------------------ questions */

static int64_t period_of(const struct keeper *k, int64_t t)
{
        return t - t % k->rotate;
}

static void on_set(const struct redis_reply *r, void *arg)
{
        struct keeper *k = arg;

        if (r->type == REDIS_ERROR) /* a failure shows itself in the GET behind it too */
                complain(k, &k->refused, "the server refuses to keep a key: ", r->text);
        else if (r->type != REDIS_FAIL)
                k->refused = false;
}

static void on_get(const struct redis_reply *r, void *arg)
{
        struct ask *ask = arg;
        struct keeper *k = ask->keeper;
        bool wanted = ask->from >= period_of(k, k->loop->wall);
        uint8_t key[TLS_TICKET_KEY_BYTES];

        ask->waiting = false;
        if (r->type == REDIS_FAIL || r->type == REDIS_ERROR) {
                complain(k, &k->failing, "no key was read: ", r->text);
        } else if (r->type == REDIS_NIL) {
                if (wanted)
                        complain(k, &k->failing, "the key that was put there is not there",
                                 STR(""));
        } else if (r->type != REDIS_STRING || !key_of(r->text, key)) {
                complain(k, &k->failing, "what is there is no key of weir's", STR(""));
        } else {
                take(k, ask->from, key);
                explicit_bzero(key, sizeof(key));
                if (k->failing && wanted) {
                        log_info(k->subject, "keys are read again");
                        k->failing = false;
                }
        }
}

static void ask_for(struct keeper *k, struct ask *ask, int64_t from, bool put)
{
        char name[300], text[TEXT_BYTES], ttl[24];
        int64_t ends = from + (PERIODS + 1) * k->rotate;
        str words[] = {STR("SET"), STR_NONE,  str_of(text, sizeof(text)),
                       STR("NX"),  STR("PX"), STR_NONE};

        if (ask->waiting)
                return;
        *ask = (struct ask){.keeper = k, .from = from, .waiting = true};
        words[1] = str_of(name, (size_t)snprintf(name, sizeof(name), "%.200s:ticket_key:%lld",
                                                 k->prefix, (long long)(from / MSEC)));
        if (put) {
                candidate(k, from, text);
                words[5] =
                        str_of(ttl, (size_t)snprintf(ttl, sizeof(ttl), "%lld",
                                                     (long long)((ends - k->loop->wall) / MSEC)));
                (void)redis_command(k->redis, words, COUNT(words), 0, on_set, k);
                explicit_bzero(text, sizeof(text));
        }
        words[0] = STR("GET");
        (void)redis_command(k->redis, words, 2, 0, on_get, ask);
}

static bool known(struct keeper *k, int64_t from)
{
        struct tls_ticket_set set;
        bool found = false;

        tls_tickets_get(k->tickets, &set);
        for (uint32_t i = 0; i < set.n; i++)
                found = found || set.v[i].from == from;
        explicit_bzero(&set, sizeof(set));
        return found;
}

static void look(struct deadline *d)
{
        struct keeper *k = CONTAINER_OF(d, struct keeper, look);
        int64_t next = period_of(k, k->loop->wall) + k->rotate;
        int64_t wait = MAX(MIN(k->rotate / 8, LOOK_MAX), LOOK_MIN);

        take(k, 0, NULL); /* its time may have come */
        for (unsigned i = 0; i < PERIODS; i++) {
                int64_t from = next - i * k->rotate;
                if (i < 2 || !known(k, from))
                        ask_for(k, &k->asks[i], from, i < 2);
        }
        deadline_set(k->loop, &k->look,
                     wait - wait / 10 + (int64_t)(crypto_fast_random() % (uint64_t)(wait / 5 + 1)),
                     look);
}

void ticket_redis_start(struct loop *l, const struct redis_conf *store, str prefix, int64_t rotate,
                        struct tls_tickets *t)
{
        struct keeper *k = calloc(1, sizeof(*k));

        CHECK(k != NULL);
        k->loop = l;
        k->redis = redis_get(l, store);
        k->tickets = t;
        k->subject = "ticket_keys";
        k->prefix = str_dupz(prefix);
        k->rotate = rotate;
        deadline_set(l, &k->look, 1, look);
}
