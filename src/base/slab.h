/*
 * Recycled objects of one size.  One slab belongs to one thread: the one that takes from it.  Freed
 * objects are poisoned for ASan and kept up to a bound; above it, and when a trim finds that they
 * were not needed, they go back to malloc.
 */
#ifndef BASE_SLAB_H
#define BASE_SLAB_H

#include "base/list.h"

struct slab {
        struct list link;             /* with the thread's others, from the first slab_get on */
        void *free;                   /* singly linked, behind a first word that is DEAD_MAGIC */
        uint32_t size;                /* of an object, bytes, at least 16 */
        uint32_t kept, keep_max, low; /* low: the fewest kept since the last trim */
        uint64_t live;                /* handed out and not returned */
};

void slab_init(struct slab *s, size_t size, uint32_t keep_max);
void *slab_get(struct slab *s);         /* zeroed; aborts when memory is out */
void slab_put(struct slab *s, void *p); /* p from slab_get of the same slab; NULL is fine */
void slab_end(struct slab *s); /* frees what is kept; by the thread it belongs to.  It may go on:
                                  slab_get begins anew */

/* Called now and then: frees what the calling thread's slabs kept and did not need since the call
 * before; returns the bytes. */
size_t slab_thread_trim(void);
size_t slab_thread_kept(void); /* bytes that wait in them */

#endif
