/*
 * Memory shared by the master and all workers, and the local store in it.
 *
 *     store: [head][gate 0][gate 1]...[set 0][set 1]...
 *     set:   [hash of each way][entry of each way][granule 0][granule 1]...
 *
 * The difficulty: whoever holds a set's lock may be killed between any two instructions.  The lock
 * names the holder's process and the gate names the way that is being written; who breaks the lock
 * of a dead process drops that way, and nothing else can be half done: a record never moves, and
 * appears or goes with the store of its hash.
 */
#include "base/shm.h"

#include "base/check.h"
#include "base/map.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

void *shm_new(size_t bytes)
{
        void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                       MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

        CHECK(p != MAP_FAILED);
        return p;
}

void shm_free(void *p, size_t bytes)
{
        if (p)
                CHECK(munmap(p, bytes) == 0);
}

/* ------------------------------------------------------------------------- store */

#define SET_BYTES (16 * KIB)
#define WAYS      128u
#define GRANULE   64u
#define GRANULES                                                                                   \
        (unsigned)((SET_BYTES - WAYS * (sizeof(uint32_t) + sizeof(struct entry))) / GRANULE)
#define SPINS    200  /* before the processor is given away */
#define PATIENCE 1000 /* looks at a lock before its holder is asked for */

/* One record: count granules from start hold its value, aligned, and its key behind it. */
struct entry {
        int64_t expiry; /* 0: never */
        uint32_t stamp; /* the gate's clock when it was last used */
        uint16_t start, count, key_n, value_n;
        uint32_t unused;
};

/* Invariant, while no living process holds it: no two ways with a hash overlap in granules.
 * Lives outside the set, a cache line each, so that looking at all locks touches no set. */
struct gate {
        _Alignas(64) _Atomic int32_t holder; /* process id; 0: free */
        uint32_t writing;                    /* way + 1 that is being written; 0: none */
        uint32_t clock;                      /* uses of the set, wraps */
        _Atomic uint64_t evictions;
};

struct set {
        uint32_t hash[WAYS]; /* 0: the way is free */
        struct entry entry[WAYS];
        char granule[][GRANULE];
};

struct store {
        size_t bytes;
        uint32_t sets;
        struct gate gate[];
};

static int32_t self; /* getpid() without the system call */

static void learn_self(void)
{
        self = getpid();
}

static void learn_self_and_at_forks(void)
{
        learn_self();
        CHECK(pthread_atfork(NULL, NULL, learn_self) == 0);
}

struct store *store_new(size_t bytes)
{
        static pthread_once_t once = PTHREAD_ONCE_INIT;
        struct store *s;

        CHECK(bytes >= 64 * KIB);
        CHECK(pthread_once(&once, learn_self_and_at_forks) == 0);
        s = shm_new(bytes);
        s->bytes = bytes;
        s->sets = (uint32_t)MIN((bytes - sizeof(*s) - GRANULE) / (SET_BYTES + sizeof(struct gate)),
                                (size_t)UINT32_MAX);
        return s;
}

void store_free(struct store *s)
{
        if (s)
                shm_free(s, s->bytes);
}

/* The sets stand at the end of the mapping, so that they are aligned whatever the number of gates.
 */
static struct set *set_at(struct store *s, uint32_t i)
{
        char *end = (char *)s + s->bytes / GRANULE * GRANULE;

        return (struct set *)(end - (size_t)(i + 1) * SET_BYTES);
}

/* Which set a key is in, held by this process between enter and leave. */
struct place {
        struct gate *gate;
        struct set *set;
        uint32_t hash; /* of the key inside its set, never 0 */
};

/* Keeps the compiler from moving stores over it; a killed process has done all before, none after.
 */
static void in_order(void)
{
        atomic_signal_fence(memory_order_seq_cst);
}

static void begin_writing(struct place *at, uint32_t way)
{
        at->gate->writing = way + 1;
        in_order();
}

static void end_writing(struct place *at)
{
        in_order();
        at->gate->writing = 0;
}

/* The lock was of a dead process and is ours now. */
static void repair(struct gate *g, struct set *set)
{
        if (g->writing) {
                set->hash[g->writing - 1] = 0;
                in_order();
                g->writing = 0;
        }
}

static bool seize(struct gate *g, struct set *set, int32_t from)
{
        if (!atomic_compare_exchange_strong_explicit(&g->holder, &from, self, memory_order_acquire,
                                                     memory_order_relaxed))
                return false;
        repair(g, set);
        return true;
}

static COLD void wait_for(struct gate *g, struct set *set)
{
        for (unsigned looks = 1;; looks++) {
                int32_t holder = atomic_load_explicit(&g->holder, memory_order_relaxed);
                if (holder == 0 && seize(g, set, 0))
                        return;
                if (looks < SPINS) {
#if defined(__x86_64__)
                        __builtin_ia32_pause();
#endif
                        continue;
                }
                sched_yield();
                /* the master clears a dead worker's locks; this is for when nobody does */
                if (looks % PATIENCE == 0 && holder != 0 && kill(holder, 0) != 0 &&
                    errno == ESRCH && seize(g, set, holder))
                        return;
        }
}

static struct place enter(struct store *s, str key)
{
        uint64_t hash = map_hash(key);
        uint32_t i = (uint32_t)((hash >> 32) * s->sets >> 32);
        struct place at = {&s->gate[i], set_at(s, i), (uint32_t)hash | 1};
        int32_t nobody = 0;

        if (!atomic_compare_exchange_strong_explicit(&at.gate->holder, &nobody, self,
                                                     memory_order_acquire, memory_order_relaxed))
                wait_for(at.gate, at.set);
        return at;
}

static void leave(struct place *at)
{
        atomic_store_explicit(&at->gate->holder, 0, memory_order_release);
}

static char *value_of(struct set *set, const struct entry *e)
{
        return set->granule[e->start];
}

static bool is_expired(const struct entry *e, int64_t now)
{
        return e->expiry != 0 && e->expiry <= now;
}

/* The way of the key, or WAYS; stamps it. */
static uint32_t find(struct place *at, str key)
{
        for (uint32_t i = 0; i < WAYS; i++) {
                struct entry *e = &at->set->entry[i];
                if (at->set->hash[i] != at->hash ||
                    !str_eq(str_of(value_of(at->set, e) + e->value_n, e->key_n), key))
                        continue;
                e->stamp = ++at->gate->clock;
                return i;
        }
        return WAYS;
}

static void sweep_expired(struct place *at, int64_t now)
{
        for (uint32_t i = 0; i < WAYS; i++)
                if (at->set->hash[i] && is_expired(&at->set->entry[i], now))
                        at->set->hash[i] = 0;
}

static void push_out_oldest(struct place *at)
{
        uint32_t oldest = WAYS, most = 0;

        for (uint32_t i = 0; i < WAYS; i++) {
                uint32_t age = at->gate->clock - at->set->entry[i].stamp;
                if (at->set->hash[i] && (oldest == WAYS || age > most)) {
                        oldest = i;
                        most = age;
                }
        }
        CHECK(oldest < WAYS);
        at->set->hash[oldest] = 0;
        atomic_fetch_add_explicit(&at->gate->evictions, 1, memory_order_relaxed);
}

/* The first of count free granules in a row; GRANULES when there is no such row. */
static unsigned free_run(struct place *at, unsigned count)
{
        bool taken[GRANULES];
        unsigned run = 0;

        memset(taken, 0, sizeof(taken));
        for (uint32_t i = 0; i < WAYS; i++)
                if (at->set->hash[i])
                        memset(taken + at->set->entry[i].start, 1, at->set->entry[i].count);
        for (unsigned i = 0; i < GRANULES; i++) {
                run = taken[i] ? 0 : run + 1;
                if (run == count)
                        return i + 1 - count;
        }
        return GRANULES;
}

static uint32_t free_way(struct place *at)
{
        uint32_t i = 0;

        while (i < WAYS && at->set->hash[i])
                i++;
        return i;
}

/* A record for the key, its value not yet written; the way is marked as being written. */
static uint32_t record_new(struct place *at, str key, size_t value_n, int64_t now)
{
        unsigned count = (unsigned)MAX((key.n + value_n + GRANULE - 1) / GRANULE, (size_t)1), start;
        uint32_t way = free_way(at);
        struct entry *e;

        start = way < WAYS ? free_run(at, count) : GRANULES;
        if (start == GRANULES)
                sweep_expired(at, now);
        while ((way = free_way(at)) == WAYS || (start = free_run(at, count)) == GRANULES)
                push_out_oldest(at);
        begin_writing(at, way);
        e = &at->set->entry[way];
        *e = (struct entry){
                .stamp = ++at->gate->clock,
                .start = (uint16_t)start,
                .count = (uint16_t)count,
                .key_n = (uint16_t)key.n,
                .value_n = (uint16_t)value_n,
        };
        if (key.n)
                memcpy(value_of(at->set, e) + value_n, key.p, key.n);
        at->set->hash[way] = at->hash;
        return way;
}

/* The key's record with a value of n bytes, marked as being written; *fresh: it is a new one. */
static struct entry *open_record(struct place *at, str key, size_t n, int64_t now, bool *fresh)
{
        uint32_t way = find(at, key);
        struct entry *e = &at->set->entry[way < WAYS ? way : 0];

        *fresh = way == WAYS || is_expired(e, now) || e->value_n != n;
        if (!*fresh) {
                begin_writing(at, way);
                return e;
        }
        if (way < WAYS)
                at->set->hash[way] = 0;
        return &at->set->entry[record_new(at, key, n, now)];
}

static bool fits(str key, size_t n)
{
        return key.n <= STORE_KEY_MAX && n <= STORE_VALUE_MAX;
}

bool store_get(struct store *s, str key, int64_t now, struct arena *a, str *value)
{
        struct place at;
        str copy = STR_NONE;
        uint32_t way;

        if (!fits(key, 0))
                return false;
        at = enter(s, key);
        way = find(&at, key);
        if (way < WAYS && is_expired(&at.set->entry[way], now)) {
                at.set->hash[way] = 0;
        } else if (way < WAYS) {
                struct entry *e = &at.set->entry[way];
                copy = arena_dup(a, str_of(value_of(at.set, e), e->value_n));
        }
        leave(&at);
        if (copy.p)
                *value = copy;
        return copy.p != NULL;
}

bool store_set(struct store *s, str key, str value, int64_t now, int64_t ttl_us)
{
        struct place at;
        struct entry *e;
        bool fresh;

        if (!fits(key, value.n))
                return false;
        at = enter(s, key);
        e = open_record(&at, key, value.n, now, &fresh);
        if (value.n)
                memcpy(value_of(at.set, e), value.p, value.n);
        e->expiry = ttl_us ? now + ttl_us : 0;
        end_writing(&at);
        leave(&at);
        return true;
}

void store_del(struct store *s, str key)
{
        struct place at;
        uint32_t way;

        if (!fits(key, 0))
                return;
        at = enter(s, key);
        way = find(&at, key);
        if (way < WAYS)
                at.set->hash[way] = 0;
        leave(&at);
}

bool store_update(struct store *s, str key, size_t n, int64_t now, int64_t ttl_us,
                  void (*fn)(void *record, void *arg), void *arg)
{
        struct place at;
        struct entry *e;
        bool fresh;

        if (!fits(key, n))
                return false;
        at = enter(s, key);
        e = open_record(&at, key, n, now, &fresh);
        if (fresh)
                memset(value_of(at.set, e), 0, n);
        fn(value_of(at.set, e), arg);
        e->expiry = ttl_us ? now + ttl_us : 0;
        end_writing(&at);
        leave(&at);
        return true;
}

uint64_t store_evictions(const struct store *s)
{
        uint64_t sum = 0;

        for (uint32_t i = 0; i < s->sets; i++)
                sum += atomic_load_explicit(&s->gate[i].evictions, memory_order_relaxed);
        return sum;
}

void store_clear_dead(struct store *s, int pid)
{
        for (uint32_t i = 0; i < s->sets; i++) {
                struct gate *g = &s->gate[i];
                if (atomic_load_explicit(&g->holder, memory_order_relaxed) == pid &&
                    seize(g, set_at(s, i), pid))
                        atomic_store_explicit(&g->holder, 0, memory_order_release);
        }
}
