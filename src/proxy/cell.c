/*
 * Cells: one pointer of a function that any thread sets and every loop reads.
 *
 * The difficulty: a reader keeps the value as long as its task, without an atomic operation for
 * each.  So a thread takes one reference on the newest value and counts its own readers of it; only
 * a new version touches the lock.
 */
#include "proxy/instance.h"

#include <pthread.h>
#include <stdlib.h>

/* A value.  refs: the cell's while it is the newest, and one for each thread that has it. */
struct cell_node {
        _Atomic uint32_t refs;
        void *value;
        const struct weir_cell *cell;
};

/* A thread's reference.  Freed when nobody of this thread reads it and a newer one is there. */
struct cell_local {
        struct cell_node *node;
        uint32_t users;
        bool newest;
};

struct cell_cache {
        uint64_t version;
        struct cell_local *local;
};

struct weir_cell {
        struct weir_cell *next;
        const struct instance *inst;
        pthread_mutex_t lock; /* of newest */
        struct cell_node *newest;
        _Atomic uint64_t version;
        void (*drop)(void *);
        unsigned n;
        struct cell_cache cache[]; /* by thread */
};

struct weir_cell *cell_new(const struct instance *i, void (*drop)(void *), struct weir_cell *next)
{
        unsigned n = i->set->env.n_loops + 1;
        struct weir_cell *c = arena_zalloc(i->arena, sizeof(*c) + n * sizeof(c->cache[0]));

        c->inst = i;
        c->next = next;
        c->drop = drop;
        c->n = n;
        CHECK(pthread_mutex_init(&c->lock, NULL) == 0);
        return c;
}

struct weir_cell *cell_next(const struct weir_cell *c)
{
        return c->next;
}

static void node_unref(struct cell_node *n)
{
        if (n == NULL || atomic_fetch_sub_explicit(&n->refs, 1, memory_order_acq_rel) != 1)
                return;
        if (n->cell->drop != NULL && n->value != NULL)
                instance_drop(n->cell->inst, n->cell->drop, n->value);
        free(n);
}

void cell_put(struct weir_cell *c, void *value)
{
        struct cell_node *n = calloc(1, sizeof(*n)), *old;

        CHECK(n != NULL);
        *n = (struct cell_node){.refs = 1, .value = value, .cell = c};
        pthread_mutex_lock(&c->lock);
        old = c->newest;
        c->newest = n;
        atomic_fetch_add_explicit(&c->version, 1, memory_order_release);
        pthread_mutex_unlock(&c->lock);
        node_unref(old);
}

static void local_end(struct cell_local *l)
{
        if (l == NULL || l->users != 0 || l->newest)
                return;
        node_unref(l->node);
        free(l);
}

static void refresh(struct weir_cell *c, struct cell_cache *cache)
{
        struct cell_local *l = calloc(1, sizeof(*l));

        CHECK(l != NULL);
        pthread_mutex_lock(&c->lock);
        cache->version = atomic_load_explicit(&c->version, memory_order_relaxed);
        l->node = c->newest;
        atomic_fetch_add_explicit(&l->node->refs, 1, memory_order_relaxed);
        pthread_mutex_unlock(&c->lock);
        l->newest = true;
        if (cache->local != NULL) {
                cache->local->newest = false;
                local_end(cache->local);
        }
        cache->local = l;
}

struct cell_local *cell_pick(struct weir_cell *c, unsigned loop)
{
        struct cell_cache *cache = &c->cache[loop];
        uint64_t version = atomic_load_explicit(&c->version, memory_order_acquire);

        if (version == 0)
                return NULL;
        if (UNLIKELY(version != cache->version))
                refresh(c, cache);
        cache->local->users++;
        return cache->local;
}

const void *cell_value(const struct cell_local *l)
{
        return l->node->value;
}

void cell_done(struct cell_local *l)
{
        CHECK(l->users > 0);
        l->users--;
        local_end(l);
}

void cell_forget(struct weir_cell *c, unsigned loop)
{
        struct cell_cache *cache = &c->cache[loop];

        if (cache->local == NULL)
                return;
        cache->local->newest = false;
        local_end(cache->local);
        *cache = (struct cell_cache){0};
}

void cell_end(struct weir_cell *c)
{
        for (unsigned i = 0; i < c->n; i++)
                cell_forget(c, i);
        node_unref(c->newest);
        c->newest = NULL;
        pthread_mutex_destroy(&c->lock);
}
