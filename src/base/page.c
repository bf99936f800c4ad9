/*
 * Memory by whole pages.
 *
 * The one difficulty: a process may have only so many mappings, and giving back one in the middle
 * of a run of them makes one more.
 */
#include "base/page.h"

#include "base/asan.h"
#include "base/check.h"

#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <sys/mman.h>

#ifdef WEIR_ASAN /* the leak checker looks for pointers in the heap alone */

void *page_map(size_t n)
{
        void *p = calloc(1, n);

        CHECK(p != NULL);
        return p;
}

void page_unmap(void *p, size_t n)
{
        (void)n;
        free(p);
}

#else

void *page_map(size_t n)
{
        void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        CHECK(p != MAP_FAILED);
        return p;
}

void page_unmap(void *p, size_t n)
{
        if (LIKELY(munmap(p, n) == 0))
                return;
        /* The process may not have one more mapping: the pages go back, the addresses stay. */
        CHECK(errno == ENOMEM && madvise(p, n, MADV_DONTNEED) == 0);
}

#endif

void page_trim_heap(void)
{
#ifndef WEIR_OTHER_HEAP /* asked at once by two threads, a heap never used crashes */
        malloc_trim(0);
#endif
}

#define TRIM_MAX 2048 /* a few ms */

static void unmap_kept(struct page_pool *p, unsigned n)
{
        while (n-- > 0) {
                void *m = page_pool_get(p);
                UNPOISON(m, p->bytes);
                page_unmap(m, p->bytes);
        }
        p->low = p->n;
}

size_t page_pool_trim(struct page_pool *p)
{
        unsigned n = MIN(p->low, TRIM_MAX);

        unmap_kept(p, n);
        return n * p->bytes;
}

void page_pool_end(struct page_pool *p)
{
        unmap_kept(p, p->n);
}
