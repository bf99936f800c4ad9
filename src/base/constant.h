/*
 * Strings that are known by where they are: those of a configuration, which were looked at once
 * when it was read.
 *
 * As long as the memory of such a string is there, nothing else is at its address, and nobody
 * writes there.  So whoever is given it again need not look at its bytes, nor copy them.
 */
#ifndef BASE_CONSTANT_H
#define BASE_CONSTANT_H

#include "base/arena.h"

/* Its bytes outlive the table it is in. */
struct constant {
        const char *p; /* NULL: a free place of the table */
        uint32_t n;
        uint16_t flags, id; /* what its owner found out about it */
};

/* A hash table: each is at its hash's place or behind it, with no free place between; behind the
 * last place there are as many more as that can take.  Immutable; in its owner's arena. */
struct constants {
        unsigned shift; /* what leaves the place of a hash */
        struct constant v[];
};

/* Of all v; one that is there more than once has the flags of all. */
const struct constants *constants_new(struct arena *a, const struct constant *v, size_t n);

static inline size_t constants_place(const struct constants *all, const char *p)
{
        return (uint64_t)(uintptr_t)p * UINT64_C(0x9e3779b97f4a7c15) >> all->shift;
}

/* The string of n bytes at p; NULL: none of all, so nothing is known of it. */
static inline const struct constant *constants_find(const struct constants *all, const char *p,
                                                    size_t n)
{
        for (const struct constant *c = &all->v[constants_place(all, p)]; c->p != NULL; c++)
                if (LIKELY(c->p == p && c->n == n))
                        return c;
        return NULL;
}

#endif
