/*
 * The region of in-flight counts (inflight.h).
 *
 * The one difficulty: workers find, take and give back places in it without the master's help, and
 * any of them may die in between.  Only control threads do that, and rarely, under a lock that
 * names its holder; the master clears the lock, the uses and the counts of a dead worker with one
 * call.  The counts themselves are never locked.
 */
#include "proxy/inflight.h"

#include "base/check.h"
#include "base/crypto.h"
#include "base/log.h"
#include "base/shm.h"
#include "proxy/upstream.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>

#define INFLIGHT_SERVERS 16384 /* address space; only pages in use are touched */

struct inflight_region {
        _Atomic uint32_t lock; /* worker + 1 of its holder, 0: free */
        uint32_t workers;
        uint32_t high; /* slots that were ever taken */
        uint8_t secret[16];
        uint64_t *keys; /* per slot, 0: free.  The pointers are equal in all workers: the region is
                           mapped before the fork */
        uint32_t *uses; /* per slot and worker */
        struct inflight_cell *cells;
};

struct inflight_region *inflight_region_new(unsigned workers)
{
        size_t head = (sizeof(struct inflight_region) + 63) / 64 * 64;
        size_t keys = INFLIGHT_SERVERS * sizeof(uint64_t);
        size_t uses = (size_t)INFLIGHT_SERVERS * workers * sizeof(uint32_t);
        size_t cells = (size_t)INFLIGHT_SERVERS * workers * sizeof(struct inflight_cell);
        char *p;
        struct inflight_region *r;

        CHECK(workers > 0);
        p = shm_new(head + keys + uses + cells);
        r = (struct inflight_region *)p;
        r->workers = workers;
        r->keys = (uint64_t *)(p + head);
        r->uses = (uint32_t *)(p + head + keys);
        r->cells = (struct inflight_cell *)(p + head + keys + uses);
        crypto_random(r->secret, sizeof(r->secret));
        return r;
}

void inflight_clear(struct inflight_region *r, unsigned worker)
{
        uint32_t holder = worker + 1;

        CHECK(worker < r->workers);
        for (uint32_t i = 0; i < r->high; i++) {
                r->uses[i * r->workers + worker] = 0;
                atomic_store_explicit(&r->cells[i * r->workers + worker].n, 0,
                                      memory_order_relaxed);
                atomic_store_explicit(&r->cells[i * r->workers + worker].idle, 0,
                                      memory_order_relaxed);
        }
        atomic_compare_exchange_strong(&r->lock, &holder, 0);
}

const uint8_t *inflight_secret(const struct inflight_region *r)
{
        static const uint8_t none[16];

        return r ? r->secret : none;
}

static void region_lock(struct inflight_region *r, unsigned worker)
{
        uint32_t none = 0;

        while (!atomic_compare_exchange_weak(&r->lock, &none, worker + 1)) {
                none = 0;
                sched_yield();
        }
}

static void region_unlock(struct inflight_region *r)
{
        atomic_store(&r->lock, 0);
}

static bool slot_used(const struct inflight_region *r, uint32_t slot)
{
        for (uint32_t w = 0; w < r->workers; w++)
                if (r->uses[slot * r->workers + w])
                        return true;
        return false;
}

/* The slot of key, or one that nobody uses; UINT32_MAX: full. */
static uint32_t slot_find(struct inflight_region *r, uint64_t key)
{
        uint32_t spare = UINT32_MAX;

        for (uint32_t i = 0; i < r->high; i++) {
                if (r->keys[i] == key)
                        return i;
                if (spare == UINT32_MAX && !slot_used(r, i))
                        spare = i;
        }
        if (spare == UINT32_MAX && r->high < INFLIGHT_SERVERS)
                spare = r->high++;
        if (spare != UINT32_MAX)
                r->keys[spare] = key;
        return spare;
}

static void open_private(struct inflight *f)
{
        struct inflight_cell *cell = aligned_alloc(64, sizeof(*cell));

        CHECK(cell != NULL);
        memset(cell, 0, sizeof(*cell));
        *f = (struct inflight){cell, 1, 0, UINT32_MAX};
}

void inflight_open(struct inflight *f, struct inflight_region *r, unsigned worker, uint64_t key)
{
        uint32_t slot;

        if (!r) {
                open_private(f);
                return;
        }
        CHECK(worker < r->workers);
        region_lock(r, worker);
        slot = slot_find(r, key ? key : 1);
        if (slot != UINT32_MAX)
                r->uses[slot * r->workers + worker]++;
        region_unlock(r);
        if (slot == UINT32_MAX) {
                log_warn(NULL,
                         "more than %d servers: requests in flight of the further ones are counted "
                         "per worker",
                         INFLIGHT_SERVERS);
                open_private(f);
                return;
        }
        *f = (struct inflight){&r->cells[(size_t)slot * r->workers], r->workers, worker, slot};
}

void inflight_close(struct inflight *f, struct inflight_region *r)
{
        if (f->slot == UINT32_MAX) {
                free(f->cells);
        } else {
                region_lock(r, f->self);
                if (--r->uses[f->slot * r->workers + f->self] == 0)
                        inflight_say_idle(f, 0);
                if (!slot_used(r, f->slot))
                        r->keys[f->slot] = 0;
                region_unlock(r);
        }
        f->cells = NULL;
}

/* Adding first and looking afterwards, in one order that all agree on: whoever sees a sum within
 * max is within it. */
bool inflight_try(const struct inflight *f, uint32_t max)
{
        uint32_t sum = 0;

        atomic_fetch_add(&f->cells[f->self].n, 1);
        for (uint32_t i = 0; i < f->workers; i++)
                sum += atomic_load(&f->cells[i].n);
        if (sum <= max)
                return true;
        atomic_fetch_sub(&f->cells[f->self].n, 1);
        return false;
}
