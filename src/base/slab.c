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

/* The thread's slabs, and the bytes that are kept in them. */
static _Thread_local struct {
        struct list slabs;
        size_t kept;
} here;

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

static COLD void *fresh(struct slab *s)
{
        void *p = calloc(1, s->size);

        CHECK(p != NULL);
        if (!here.slabs.next)
                list_init(&here.slabs);
        if (!list_linked(&s->link))
                list_push(&here.slabs, &s->link);
        return p;
}

void *slab_get(struct slab *s)
{
        struct freed *f = s->free;

        s->live++;
        if (UNLIKELY(!f))
                return fresh(s);
        UNPOISON(f, s->size);
        CHECK(f->dead == DEAD_MAGIC);
        s->free = f->next;
        s->kept--;
        s->low = MIN(s->low, s->kept);
        here.kept -= s->size;
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
        here.kept += s->size;
        POISON(p, s->size);
}

static void free_kept(struct slab *s, uint32_t n)
{
        CHECK(n <= s->kept);
        here.kept -= (size_t)n * s->size;
        s->kept -= n;
        while (n-- > 0) {
                struct freed *f = s->free;
                UNPOISON(f, s->size);
                s->free = f->next;
                free(f);
        }
}

void slab_end(struct slab *s)
{
        free_kept(s, s->kept);
        s->low = 0;
        if (list_linked(&s->link))
                list_remove(&s->link);
}

size_t slab_thread_trim(void)
{
        size_t before = here.kept;

        if (!here.slabs.next)
                return 0;
        LIST_EACH (n, &here.slabs) {
                struct slab *s = CONTAINER_OF(n, struct slab, link);
                free_kept(s, s->low);
                s->low = s->kept;
        }
        return before - here.kept;
}

size_t slab_thread_kept(void)
{
        return here.kept;
}
