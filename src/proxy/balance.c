/*
 * Policies of balancing, and the candidates they choose from (balance.h).
 *
 * The one difficulty: a choice looks at every server, and each server's state is a cache line that
 * other threads write.  So a loop keeps its list of usable members until the epoch of all states
 * moves or a moment comes (an ejection ends, a slow start goes on); a policy then works on small
 * arrays of its own, and only those that want counts in flight read them.
 *
 * Consistent hashing is weighted rendezvous: no table to build or publish, exact weights, and only
 * the keys of a server that goes away move.  It looks at each candidate once.
 */
#include "proxy/balance.h"

#include "base/check.h"
#include "base/crypto.h"

#include <math.h>
#include <stdlib.h>

/* ------------------------------------------------------------------ sets */

static size_t candidates_bytes(uint32_t n)
{
        return 2 * sizeof(uint32_t) * n;
}

struct server_set *server_set_new(uint32_t n, uint32_t n_loops, const _Atomic uint64_t *epoch)
{
        struct server_set *set = calloc(1, sizeof(*set) + n * sizeof(set->m[0]));

        CHECK(set != NULL);
        set->n = n;
        set->n_loops = n_loops;
        set->epoch = epoch;
        set->loops = calloc(n_loops, sizeof(*set->loops));
        CHECK(set->loops != NULL);
        return set;
}

void server_set_free(struct server_set *set)
{
        if (!set)
                return;
        for (unsigned l = 0; l < set->n_loops; l++)
                free(set->loops[l].current);
        free(set->loops);
        free(set);
}

/* ------------------------------------------------------------------ candidates */

static bool was_tried(const struct tried *t, const struct server *s)
{
        for (uint32_t i = 0; t && i < t->n; i++)
                if (t->s[i] == s)
                        return true;
        return false;
}

static void candidate_add(struct candidates *c, uint32_t index, uint32_t weight)
{
        c->index[c->n] = index;
        c->weight[c->n] = weight;
        c->even = c->n == 0 || (c->even && weight == c->weight[0]);
        c->weight_sum += weight;
        c->n++;
}

static void candidates_clear(struct candidates *c)
{
        c->n = 0;
        c->weight_sum = 0;
        c->even = true;
}

/* Members of one tier that are up; ejected ones too when there is nobody else. */
static void gather(struct candidates *c, const struct server_set *set, bool backup,
                   bool ejected_too, const struct tried *tried, int64_t now, int64_t *until)
{
        candidates_clear(c);
        for (uint32_t i = 0; i < set->n; i++) {
                const struct member *m = &set->m[i];
                int64_t ejected =
                        atomic_load_explicit(&m->server->ejected_until, memory_order_relaxed);

                if (m->backup != backup || server_flags(m->server) || was_tried(tried, m->server))
                        continue;
                if (ejected > now)
                        *until = MIN(*until, ejected);
                if (ejected <= now || ejected_too)
                        candidate_add(c, i, server_weight(m->server, m->weight, now, until));
        }
}

/* Primaries, else backups; only if all of them are ejected those that are, since trying beats
 * refusing. */
static void gather_tiers(struct candidates *c, const struct server_set *set,
                         const struct tried *tried, int64_t now, int64_t *until)
{
        for (int tier = 0; tier < 4; tier++) {
                bool backup = tier & 1;
                if (backup && !set->backups)
                        continue;
                gather(c, set, backup, tier & 2, tried, now, until);
                if (c->n > 0)
                        return;
        }
}

static const struct candidates *usable(const struct balance_pick *p, struct balance_loop *b)
{
        uint64_t epoch = atomic_load_explicit(p->set->epoch, memory_order_acquire);

        if (UNLIKELY(b->epoch != epoch || p->now >= b->until)) {
                b->until = INT64_MAX;
                b->epoch = epoch;
                gather_tiers(&b->usable, p->set, NULL, p->now, &b->until);
        }
        return &b->usable;
}

/* Those of c that have room. */
static const struct candidates *with_room(const struct server_set *set, struct balance_loop *b,
                                          const struct candidates *c)
{
        struct candidates *out = &b->some;
        uint32_t n = c->n;

        candidates_clear(out);
        for (uint32_t i = 0; i < n; i++) {
                const struct member *m = &set->m[c->index[i]];
                if (m->max_connections == 0 || inflight_total(&m->inflight) < m->max_connections)
                        candidate_add(out, c->index[i], c->weight[i]);
        }
        return out;
}

/* ------------------------------------------------------------------ policies: a position in the
 * list of candidates */

struct choice {
        const struct server_set *set;
        struct balance_loop *b;
        const struct candidates *c; /* at least one */
        int64_t now;
        uint64_t key;
};
typedef uint32_t balance_policy(const struct choice *ch);

static uint64_t random_below(uint64_t n)
{
        return (uint64_t)(((unsigned __int128)crypto_fast_random() * n) >> 64);
}

static uint64_t load_of(const struct choice *ch, uint32_t i) /* as it would be with this request */
{
        return (uint64_t)inflight_total(&ch->set->m[ch->c->index[i]].inflight) + 1;
}

/* Is a/wa less than b/wb? */
static bool less(uint64_t a, uint32_t wa, uint64_t b, uint32_t wb)
{
        return (unsigned __int128)a * wb < (unsigned __int128)b * wa;
}

/* Smooth: of 5, 1, 1 come a a b a c a a, not five a in a row. */
static uint32_t round_robin(const struct choice *ch)
{
        const struct candidates *c = ch->c;
        uint32_t best = 0;

        if (c->even) {
                uint32_t i = ch->b->cursor >= c->n ? 0 : ch->b->cursor;
                ch->b->cursor = i + 1;
                return i;
        }
        for (uint32_t i = 0; i < c->n; i++) {
                ch->b->current[c->index[i]] += c->weight[i];
                if (ch->b->current[c->index[i]] > ch->b->current[c->index[best]])
                        best = i;
        }
        ch->b->current[c->index[best]] -= (int64_t)c->weight_sum;
        return best;
}

/* The scan begins at another place each time, so that equals take turns. */
static uint32_t least_conn(const struct choice *ch)
{
        const struct candidates *c = ch->c;
        uint32_t i = ch->b->cursor % c->n, best = i;
        uint64_t best_load = load_of(ch, i);

        ch->b->cursor = i + 1;
        for (uint32_t left = c->n - 1; left > 0; left--) {
                uint64_t load;
                i = i + 1 == c->n ? 0 : i + 1;
                load = load_of(ch, i);
                if (less(load, c->weight[i], best_load, c->weight[best])) {
                        best = i;
                        best_load = load;
                }
        }
        return best;
}

static uint32_t random_weighted(const struct choice *ch)
{
        const struct candidates *c = ch->c;
        uint64_t at;
        uint32_t i = 0;

        if (c->even)
                return (uint32_t)random_below(c->n);
        for (at = random_below(c->weight_sum); at >= c->weight[i]; i++)
                at -= c->weight[i];
        return i;
}

/* Two different ones at random, the less loaded of them (Mitzenmacher 2001). */
static uint32_t two_choices(const struct choice *ch)
{
        const struct candidates *c = ch->c;
        uint32_t a, b;

        if (c->n == 1)
                return 0;
        a = (uint32_t)random_below(c->n);
        b = (uint32_t)random_below(c->n - 1);
        b += b >= a;
        return less(load_of(ch, b), c->weight[b], load_of(ch, a), c->weight[a]) ? b : a;
}

/* Time until the head, times what is in flight.  One that is not known yet counts as the fastest
 * known one. */
static uint32_t least_time(const struct choice *ch)
{
        const struct candidates *c = ch->c;
        uint64_t fastest = UINT64_MAX, best_cost = 0;
        uint32_t start = ch->b->cursor % c->n, best = start;

        ch->b->cursor = start + 1;
        for (uint32_t i = 0; i < c->n; i++) {
                uint64_t us = server_head_us(ch->set->m[c->index[i]].server, ch->now);
                if (us && us < fastest)
                        fastest = us;
        }
        if (fastest == UINT64_MAX)
                fastest = 1;
        for (uint32_t k = 0; k < c->n; k++) {
                uint32_t i = start + k >= c->n ? start + k - c->n : start + k;
                uint64_t us = server_head_us(ch->set->m[c->index[i]].server, ch->now);
                uint64_t cost = (us ? us : fastest) * load_of(ch, i);
                if (k == 0 || less(cost, c->weight[i], best_cost, c->weight[best])) {
                        best = i;
                        best_cost = cost;
                }
        }
        return best;
}

static uint64_t mix(uint64_t x) /* a finaliser: each bit of x moves half of the result's */
{
        x ^= x >> 32;
        x *= UINT64_C(0xd6e8feb86659fd93);
        x ^= x >> 32;
        x *= UINT64_C(0xd6e8feb86659fd93);
        return x ^ x >> 32;
}

/* Each candidate draws a number from key and its own hash; the highest wins, and who leaves changes
 * nothing for the rest. With weights w the draw is u^(1/w), compared as log(u)/w (Thaler and
 * Ravishankar 1998; weights: Schindelhauer 2005). */
static uint32_t rendezvous(const struct choice *ch)
{
        const struct candidates *c = ch->c;
        uint32_t best = 0;
        uint64_t top = 0;
        double top_score = -INFINITY;

        for (uint32_t i = 0; i < c->n; i++) {
                uint64_t draw = mix(ch->key ^ ch->set->m[c->index[i]].hash);
                double score;
                if (c->even) {
                        if (draw >= top) {
                                top = draw;
                                best = i;
                        }
                        continue;
                }
                score = log2(((double)(draw >> 11) + 0.5) * 0x1p-53) / c->weight[i];
                if (score > top_score) {
                        top_score = score;
                        best = i;
                }
        }
        return best;
}

/* ------------------------------------------------------------------ a loop's part */

/* The same turn of the wheel everywhere would send every loop's first request to one server: each
 * starts some turns further. */
static void loop_begin(struct server_set *set, unsigned loop)
{
        struct balance_loop *b = &set->loops[loop];
        struct choice ch = {.set = set, .b = b, .c = &b->usable};
        size_t size = set->n * sizeof(int64_t) + 2 * candidates_bytes(set->n);
        /* Lists of different loops stay out of each other's cache lines. */
        char *p = aligned_alloc(64, (size + 64) / 64 * 64);
        int64_t until = 0;

        CHECK(p != NULL);
        memset(p, 0, size);
        b->current = (int64_t *)p;
        b->usable.index = (uint32_t *)(p + set->n * sizeof(int64_t));
        b->usable.weight = b->usable.index + set->n;
        b->some.index = b->usable.weight + set->n;
        b->some.weight = b->some.index + set->n;
        gather_tiers(&b->usable, set, NULL, 0, &until);
        for (unsigned turn = 0; b->usable.n > 0 && turn < loop; turn++)
                (void)round_robin(&ch);
        b->until = INT64_MIN; /* usable is to be made anew */
}

void server_set_ready(struct server_set *set)
{
        for (uint32_t i = 0; i < set->n; i++) {
                set->m[i].inflight = set->m[i].server->inflight;
                set->m[i].hash = set->m[i].server->hash;
                set->limited |= set->m[i].max_connections > 0;
                set->backups |= set->m[i].backup;
        }
        for (unsigned l = 0; l < set->n_loops; l++)
                loop_begin(set, l);
}

static balance_policy *const policies[] = {
        [BALANCE_ROUND_ROBIN] = round_robin, [BALANCE_LEAST_CONN] = least_conn,
        [BALANCE_RANDOM] = random_weighted,  [BALANCE_P2C] = two_choices,
        [BALANCE_LEAST_TIME] = least_time,   [BALANCE_HASH] = rendezvous,
};

/* ------------------------------------------------------------------ a pick */

static bool take(const struct member *m)
{
        if (m->max_connections)
                return inflight_try(&m->inflight, m->max_connections);
        inflight_add(&m->inflight);
        return true;
}

static bool is_wanted(const struct balance_pick *p, const struct server *s)
{
        return p->named.n > 0 ? str_eq(s->label, p->named) : s->sticky == p->sticky;
}

/* The server that a function or the client's cookie names, as long as it is alive; draining ones
 * serve the sessions they have. */
static const struct member *wanted_member(const struct balance_pick *p)
{
        for (uint32_t i = 0; i < p->set->n; i++) {
                const struct member *m = &p->set->m[i];
                if (is_wanted(p, m->server))
                        return (server_flags(m->server) & ~SERVER_ADMIN_DRAIN) ||
                                               server_ejected(m->server, p->now) ||
                                               was_tried(p->tried, m->server)
                                       ? NULL
                                       : m;
        }
        return NULL;
}

/* For a further attempt: those that were not tried, backups included; the tried ones again when
 * there is nobody else. */
static const struct candidates *untried(const struct balance_pick *p, struct balance_loop *b)
{
        int64_t until = INT64_MAX;

        gather_tiers(&b->some, p->set, p->tried, p->now, &until);
        if (b->some.n > 0)
                return &b->some;
        return usable(p, b);
}

enum balance_result balance_pick(const struct balance_pick *p, const struct member **out)
{
        struct balance_loop *b = &p->set->loops[p->loop];
        struct choice ch = {.set = p->set, .b = b, .now = p->now, .key = p->key};
        const struct member *m;

        if ((p->sticky || p->named.n > 0) && (m = wanted_member(p)) != NULL && take(m)) {
                *out = m;
                return BALANCE_OK;
        }
        ch.c = p->tried && p->tried->n ? untried(p, b) : usable(p, b);
        if (ch.c->n == 0)
                return BALANCE_NONE;
        /* A place may be lost to another thread between looking and taking: look again, each time
         * among fewer. */
        for (uint32_t again = ch.c->n;; again--) {
                if (p->set->limited)
                        ch.c = with_room(p->set, b, ch.c);
                if (ch.c->n == 0 || again == 0)
                        return BALANCE_FULL;
                m = &p->set->m[ch.c->index[policies[p->policy](&ch)]];
                if (take(m))
                        break;
        }
        *out = m;
        return BALANCE_OK;
}

int64_t balance_next_change(const struct server_set *set, int64_t now)
{
        int64_t next = 0;

        for (uint32_t i = 0; i < set->n; i++) {
                int64_t until = atomic_load_explicit(&set->m[i].server->ejected_until,
                                                     memory_order_relaxed);
                if (until > now && (next == 0 || until < next))
                        next = until;
        }
        return next;
}
