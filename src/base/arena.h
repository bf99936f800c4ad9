/*
 * Memory with one end: everything of a request (or of a configuration) is allocated from its arena
 * and goes away in one call.  What cannot live inside it is linked to it with arena_on_end.
 *
 * Invariant: belongs to one thread at a time.  Chunks of ARENA_CHUNK bytes are recycled through a
 * per-thread free list, so a request in steady state does not call malloc.  With
 * --enable-arena-malloc each allocation is a malloc of its own, so that sanitizers see inside.
 */
#ifndef BASE_ARENA_H
#define BASE_ARENA_H

#include "base/str.h"

#include <stdarg.h>

#define ARENA_CHUNK (8 * KIB) /* whole pages, which go back to the system; a plain request fits */

struct arena_head;
struct arena_hook;

/* Lives inside its own first chunk.  Its members are arena.c's; they stand here for arena_used,
 * which is asked around everything that counts against a bound.  Invariant: p..end is free and
 * inside one block of the list; used <= limit unless a call that cannot fail (arena_grow_,
 * arena_on_end) went over it.  Owned by whoever made it. */
struct arena {
        char *p, *end;
        size_t used, limit;
        struct arena_head *blocks;
        struct arena_hook *hooks; /* last added first */
};

/* limit: bytes after which allocation fails (NULL); 0 means none: then NULL never comes, the
 * process aborts when memory is out.  A string that found no room is absent.  Vectors and hooks
 * never fail: they may go over the limit, and whoever asks next is refused. */
struct arena *arena_new(size_t limit);
void arena_free(struct arena *a); /* runs on_end hooks, last added first; NULL is fine */

void *arena_alloc(struct arena *a, size_t n);  /* aligned to 16, not zeroed */
void *arena_zalloc(struct arena *a, size_t n); /* zeroed */
#define ARENA_NEW(a, type)      ((type *)arena_zalloc((a), sizeof(type)))
#define ARENA_ARRAY(a, type, n) ((type *)arena_zalloc((a), sizeof(type) * (n)))

str arena_dup(struct arena *a, str s);    /* absent stays absent; NUL follows the copy */
char *arena_dupz(struct arena *a, str s); /* the same as a C string */
str arena_printf(struct arena *a, const char *fmt, ...) PRINTF_LIKE(2, 3);
str arena_vprintf(struct arena *a, const char *fmt, va_list ap);
str arena_cat(struct arena *a, const str *parts, size_t n);

/* fn(arg) when the arena ends. */
void arena_on_end(struct arena *a, void (*fn)(void *), void *arg);
/* Asks the CPU for the first n bytes of an arena, at most ARENA_CHUNK: nothing is read, and nothing
 * waits.  For one that is not in its caches and will be worked on in a moment. */
static inline void arena_prefetch(const struct arena *a, size_t n)
{
        for (size_t i = 0; i < n; i += 64)
                __builtin_prefetch((const char *)a + i, 1);
}
static inline size_t arena_used(const struct arena *a)
{
        return a->used;
}

/* Growing array in an arena: VEC(struct foo) v = {0}; *VEC_ADD(arena, &v) = x; v.v[i], v.n */
#define VEC(type)                                                                                  \
        struct {                                                                                   \
                type *v;                                                                           \
                size_t n, cap;                                                                     \
        }
void *arena_grow_(struct arena *a, void *old, size_t n, size_t *cap, size_t size);
#define VEC_ADD(a, vec)                                                                            \
        ((vec)->n == (vec)->cap ? ((vec)->v = arena_grow_((a), (vec)->v, (vec)->n, &(vec)->cap,    \
                                                          sizeof(*(vec)->v)))                      \
                                : (vec)->v,                                                        \
         &(vec)->v[(vec)->n++])

/* Frees the calling thread's recycled chunks: at thread end and in tests. */
void arena_thread_end(void);
/* Called now and then: frees those that were not needed since the call before; returns the
 * bytes. */
size_t arena_thread_trim(void);
unsigned arena_thread_kept(void); /* how many there are */

#endif
