/*
 * How many requests are in flight at each server, over all loops of all workers.
 *
 * The region is memory that the master makes before it forks.  A server is found in it by a key
 * that every worker computes alike. Each worker has a cell of its own (a cache line), written by
 * its loops with atomic additions and summed by whoever asks, so that the counts of a worker that
 * died can be taken out again.
 */
#ifndef PROXY_INFLIGHT_H
#define PROXY_INFLIGHT_H

#include "base/defs.h"

#include <stdatomic.h>

struct inflight_region;

struct inflight_cell {
        _Alignas(64) _Atomic uint32_t n;
        _Atomic uint32_t idle; /* connections kept, as its worker last said; for status */
};

/* One server's counts as seen by one worker; copied freely, valid until inflight_close. */
struct inflight {
        struct inflight_cell *cells; /* one for each worker */
        uint32_t workers, self;
        uint32_t slot; /* UINT32_MAX: the region had no room, cells is private */
};

/* Control thread.  region NULL: a count of this process alone.  Opening a key again adds a use of
 * the same cells. */
void inflight_open(struct inflight *f, struct inflight_region *region, unsigned worker,
                   uint64_t key);
void inflight_close(struct inflight *f, struct inflight_region *region);

/* 16 bytes made with the region: what sticky cookies are keyed with, equal in all workers. */
const uint8_t *inflight_secret(const struct inflight_region *r);

static inline uint32_t inflight_total(const struct inflight *f)
{
        uint32_t sum = 0;

        for (uint32_t i = 0; i < f->workers; i++)
                sum += atomic_load_explicit(&f->cells[i].n, memory_order_relaxed);
        return sum;
}

static inline uint32_t inflight_own(const struct inflight *f)
{
        return atomic_load_explicit(&f->cells[f->self].n, memory_order_relaxed);
}

static inline void inflight_add(const struct inflight *f)
{
        atomic_fetch_add_explicit(&f->cells[f->self].n, 1, memory_order_relaxed);
}

static inline void inflight_sub(const struct inflight *f)
{
        atomic_fetch_sub_explicit(&f->cells[f->self].n, 1, memory_order_relaxed);
}

static inline void inflight_say_idle(const struct inflight *f, uint32_t idle)
{
        atomic_store_explicit(&f->cells[f->self].idle, idle, memory_order_relaxed);
}

static inline uint32_t inflight_idle(const struct inflight *f)
{
        uint32_t sum = 0;

        for (uint32_t i = 0; i < f->workers; i++)
                sum += atomic_load_explicit(&f->cells[i].idle, memory_order_relaxed);
        return sum;
}

/* Adds one unless that makes more than max.  Never lets max be exceeded; of two that race for the
 * last place, both may lose. */
MUST_CHECK bool inflight_try(const struct inflight *f, uint32_t max);

#endif
