/*
 * Recycled objects of one size.
 *
 * The one difficulty: a stale pointer to a recycled object must be noticed.  The first word of a
 * free object is therefore DEAD_MAGIC, where CAST looks for the magic, and the link to the next
 * free object is behind it; under ASan the object cannot be touched at all.
 */
#include "base/slab.h"

#include "base/asan.h"
#include "base/check.h"

#include <stdlib.h>
#include <string.h>

struct freed {
        uint64_t dead;
        struct freed *next;
};

void slab_init(struct slab *s, size_t size, uint32_t keep_max)
{
        CHECK(size > 0 && size <= UINT32_MAX);
        *s = (struct slab){
                .size = (uint32_t)MAX(size, sizeof(struct freed)),
                .keep_max = keep_max,
        };
}

void *slab_get(struct slab *s)
{
        struct freed *f = s->free;

        s->live++;
        if (UNLIKELY(!f)) {
                void *p = calloc(1, s->size);
                CHECK(p != NULL);
                return p;
        }
        UNPOISON(f, s->size);
        CHECK(f->dead == DEAD_MAGIC);
        s->free = f->next;
        s->kept--;
        return memset(f, 0, s->size);
}

void slab_put(struct slab *s, void *p)
{
        struct freed *f = p;

        if (!p)
                return;
        CHECK(s->live > 0);
        s->live--;
        if (s->kept >= s->keep_max) {
                free(p);
                return;
        }
        *f = (struct freed){DEAD_MAGIC, s->free};
        s->free = f;
        s->kept++;
        POISON(p, s->size);
}

void slab_end(struct slab *s)
{
        while (s->free) {
                struct freed *f = s->free;
                UNPOISON(f, s->size);
                s->free = f->next;
                free(f);
        }
        s->kept = 0;
}
