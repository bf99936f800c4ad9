/*
 * Recycled objects of one size.  One slab belongs to one thread.  Freed objects are poisoned for
 * ASan and kept up to a bound; above it they go back to malloc.
 */
#ifndef BASE_SLAB_H
#define BASE_SLAB_H

#include "base/defs.h"

struct slab {
        void *free;    /* singly linked, behind a first word that is DEAD_MAGIC */
        uint32_t size; /* of an object, bytes, at least 16 */
        uint32_t kept, keep_max;
        uint64_t live; /* handed out and not returned */
};

void slab_init(struct slab *s, size_t size, uint32_t keep_max);
void *slab_get(struct slab *s);         /* zeroed; aborts when memory is out */
void slab_put(struct slab *s, void *p); /* p from slab_get of the same slab; NULL is fine */
void slab_end(struct slab *s);          /* frees what is kept */

#endif
