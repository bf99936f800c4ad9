/*
 * Memory with one end: a bump pointer in recycled chunks.
 *
 *     arena -> [head|struct arena|xxxx....]   current: the chunk with the most room
 *          `-> [head|xxxxxxxxxxxx] -> [head|xxxxx] ...      all freed together
 *
 * The one difficulty: what does not fit the current chunk must neither waste the rest of it nor
 * go to malloc as long as it fits any chunk.  A new chunk becomes the current one only if it has
 * more room left than the old; what is larger than a chunk gets a block of its own.
 */
#include "base/arena.h"

#include "base/asan.h"
#include "base/check.h"
#include "base/page.h"

#include <stdio.h>
#include <stdlib.h>

#define ALIGN     ((size_t)16)
#define VEC_FIRST ((size_t)8)

/* In front of each chunk or single block; 16 bytes, so that what follows is aligned. */
struct arena_head {
        _Alignas(16) struct arena_head *next;
        size_t size; /* of the whole, this head included */
};

struct arena_hook {
        struct arena_hook *next;
        void (*fn)(void *);
        void *arg;
};

static _Thread_local struct page_pool recycled = {.bytes = ARENA_CHUNK};

static struct arena_head *block_new(size_t size)
{
        struct arena_head *h = size == ARENA_CHUNK ? page_pool_get(&recycled) : malloc(size);

        CHECK(h != NULL);
        h->size = size;
        POISON(h + 1, size - sizeof(*h));
        return h;
}

static void block_free(struct arena_head *h)
{
        if (h->size == ARENA_CHUNK) {
                /* not the head: the leak checker follows no link in poisoned memory */
                POISON(h + 1, ARENA_CHUNK - sizeof(*h));
                page_pool_put(&recycled, h);
                return;
        }
        UNPOISON(h, h->size);
        free(h);
}

static void blocks_free(struct arena_head *h)
{
        while (h) {
                struct arena_head *next = h->next;
                block_free(h);
                h = next;
        }
}

static size_t rounded(size_t n)
{
        CHECK(n <= SIZE_MAX / 2);
        return (n + (n == 0) + ALIGN - 1) & ~(ALIGN - 1);
}

struct arena *arena_new(size_t limit)
{
        size_t size = rounded(sizeof(struct arena));
        struct arena_head *h = block_new(ARENA_CHUNK);
        struct arena *a = (struct arena *)(h + 1);

        h->next = NULL;
        UNPOISON(a, size);
        *a = (struct arena){
                .p = (char *)a + size,
                .end = (char *)h + ARENA_CHUNK,
                .limit = limit ? limit : SIZE_MAX,
                .blocks = h,
        };
        return a;
}

void arena_free(struct arena *a)
{
        if (!a)
                return;
        while (a->hooks) { /* a hook may add another */
                struct arena_hook *h = a->hooks;
                a->hooks = h->next;
                h->fn(h->arg);
        }
        blocks_free(a->blocks);
}

/* A new block for size bytes; what is left of it is used on if that is more than we had. */
static COLD void *grow(struct arena *a, size_t size)
{
        size_t whole = size + sizeof(struct arena_head);
        struct arena_head *h;
        char *at;

#ifdef WEIR_ARENA_MALLOC
        bool chunk = false;
#else
        bool chunk = whole <= ARENA_CHUNK;
#endif
        h = block_new(chunk ? ARENA_CHUNK : whole);
        h->next = a->blocks;
        a->blocks = h;
        at = (char *)(h + 1);
        if (chunk && ARENA_CHUNK - whole > (size_t)(a->end - a->p)) {
                a->p = at + size;
                a->end = (char *)h + ARENA_CHUNK;
        }
        return at;
}

/* size is rounded; the limit is not looked at */
static inline void *take(struct arena *a, size_t size)
{
        void *p = a->p;

#ifdef WEIR_ARENA_MALLOC
        p = grow(a, size);
#else
        if (LIKELY(size <= (size_t)(a->end - a->p)))
                a->p += size;
        else
                p = grow(a, size);
#endif
        a->used += size;
        return p;
}

void *arena_alloc(struct arena *a, size_t n)
{
        size_t size = rounded(n);
        void *p;

        if (UNLIKELY(a->used > a->limit || size > a->limit - a->used))
                return NULL;
        p = take(a, size);
        UNPOISON(p, n);
        return p;
}

void *arena_zalloc(struct arena *a, size_t n)
{
        void *p = arena_alloc(a, n);

        if (p)
                memset(p, 0, n);
        return p;
}

char *arena_dupz(struct arena *a, str s)
{
        char *p = s.p ? arena_alloc(a, s.n + 1) : NULL;

        if (!p)
                return NULL;
        memcpy(p, s.p, s.n);
        p[s.n] = '\0';
        return p;
}

str arena_dup(struct arena *a, str s)
{
        char *p = arena_dupz(a, s);

        return p ? str_of(p, s.n) : STR_NONE;
}

str arena_vprintf(struct arena *a, const char *fmt, va_list ap)
{
        char first[256];
        va_list again;
        char *p;
        int n;

        va_copy(again, ap);
        n = vsnprintf(first, sizeof(first), fmt, ap);
        CHECK(n >= 0);
        p = arena_alloc(a, (size_t)n + 1);
        if (p && (size_t)n < sizeof(first))
                memcpy(p, first, (size_t)n + 1);
        else if (p)
                vsnprintf(p, (size_t)n + 1, fmt, again);
        va_end(again);
        return p ? str_of(p, (size_t)n) : STR_NONE;
}

str arena_printf(struct arena *a, const char *fmt, ...)
{
        va_list ap;
        str s;

        va_start(ap, fmt);
        s = arena_vprintf(a, fmt, ap);
        va_end(ap);
        return s;
}

str arena_cat(struct arena *a, const str *parts, size_t n)
{
        size_t sum = 0;
        char *p, *start;

        for (size_t i = 0; i < n; i++)
                sum += parts[i].n;
        start = p = arena_alloc(a, sum + 1);
        if (!p)
                return STR_NONE;
        for (size_t i = 0; i < n; i++) {
                if (parts[i].n)
                        memcpy(p, parts[i].p, parts[i].n);
                p += parts[i].n;
        }
        *p = '\0';
        return str_of(start, sum);
}

void arena_on_end(struct arena *a, void (*fn)(void *), void *arg)
{
        struct arena_hook *h = take(a, rounded(sizeof(*h)));

        UNPOISON(h, sizeof(*h));
        *h = (struct arena_hook){a->hooks, fn, arg};
        a->hooks = h;
}

void *arena_grow_(struct arena *a, void *old, size_t n, size_t *cap, size_t size)
{
        size_t more = MAX(*cap * 2, VEC_FIRST);
        void *p;

        CHECK(more <= SIZE_MAX / 4 / size);
        p = take(a, rounded(more * size));
        UNPOISON(p, more * size);
        if (n)
                memcpy(p, old, n * size);
        *cap = more;
        return p;
}

size_t arena_thread_trim(void)
{
        return page_pool_trim(&recycled);
}

unsigned arena_thread_kept(void)
{
        return recycled.n;
}

void arena_thread_end(void)
{
        page_pool_end(&recycled);
}
