/*
 * Memory by whole pages, beside malloc: what comes and goes in bursts would leave holes in the heap
 * that small things fill, and the memory of the burst would never go back.
 *
 * A mapping is a system call and a page fault, so users recycle what they have.  Any thread.
 */
#ifndef BASE_PAGE_H
#define BASE_PAGE_H

#include "base/defs.h"

#include <string.h>

#define PAGE_BYTES (4 * KIB)

void *page_map(size_t n); /* n bytes, zeroed, at a page's begin; aborts when memory is out */
void page_unmap(void *p, size_t n); /* the whole of what page_map(n) gave */

/* The free pages that malloc keeps go back to the system.  Takes malloc's locks one after the
 * other: not for each request. */
void page_trim_heap(void);

/* Recycled mappings of one size; belongs to one thread.  As many are kept as were in use at once,
 * until a trim finds that they are not needed: with a bound below what a load has in flight, each
 * request would map and unmap.  The first word of a kept one is the link to the next, the rest the
 * user may poison. */
struct page_pool {
        void *free;
        size_t bytes;    /* of each */
        unsigned n, low; /* kept now; the fewest since the last trim */
};

static inline void *page_pool_get(struct page_pool *p) /* its bytes are anything */
{
        void *m = p->free;
        if (UNLIKELY(!m))
                return page_map(p->bytes);
        memcpy(&p->free, m, sizeof(p->free));
        p->n--;
        p->low = MIN(p->low, p->n);
        return m;
}

static inline void page_pool_put(struct page_pool *p, void *m)
{
        memcpy(m, &p->free, sizeof(p->free));
        p->free = m;
        p->n++;
}

/* Called now and then: unmaps of those that were not needed since the call before as many as hold
 * nobody up; returns the bytes. */
size_t page_pool_trim(struct page_pool *p);
void page_pool_end(struct page_pool *p); /* unmaps all */

#endif
