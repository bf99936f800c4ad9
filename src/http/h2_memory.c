/*
 * Memory for nghttp2.
 *
 * The one difficulty: nghttp2 does not say how much it frees, so each piece has a head that does.
 */
#include "http/h2_memory.h"

#include "base/check.h"

#include <stdlib.h>
#include <string.h>

#define STEP 64
#define KEEP 2048 /* of each size, until a trim finds that fewer are needed */

/* In front of each piece; 16 bytes, so that what follows is aligned. */
struct head {
        _Alignas(16) size_t room; /* behind it, bytes */
};

static size_t class_of(size_t room)
{
        return (room + sizeof(struct head) - 1) / STEP;
}

/* Not zeroed unless that is asked for: of a session's large buffers many are hardly used. */
static void *large(size_t n, bool zeroed)
{
        size_t whole = sizeof(struct head) + n;
        struct head *h = whole < n ? NULL : zeroed ? calloc(1, whole) : malloc(whole);
        if (!h)
                return NULL;
        h->room = n;
        return h + 1;
}

static void *take(struct h2_memory *m, size_t n, bool zeroed)
{
        size_t class = n <= H2_MEMORY_CLASSES * STEP ? class_of(n) : H2_MEMORY_CLASSES;
        if (UNLIKELY(class >= H2_MEMORY_CLASSES))
                return large(n, zeroed);
        struct head *h = slab_get(&m->class[class]);
        h->room = (class + 1) * STEP - sizeof(*h);
        return h + 1;
}

static void *take_some(size_t n, void *arg)
{
        return take(arg, n, false);
}

static void *take_zeroed(size_t n, size_t size, void *arg)
{
        size_t whole;
        return __builtin_mul_overflow(n, size, &whole) ? NULL : take(arg, whole, true);
}

static void give(void *p, void *arg)
{
        struct h2_memory *m = arg;
        if (!p)
                return;
        struct head *h = (struct head *)p - 1;
        size_t class = class_of(h->room);
        if (UNLIKELY(class >= H2_MEMORY_CLASSES))
                free(h);
        else
                slab_put(&m->class[class], h);
}

static void *resize(void *p, size_t n, void *arg)
{
        size_t had = p ? ((struct head *)p - 1)->room : 0;
        if (p && n <= had)
                return p;
        void *new = take(arg, n, false);
        if (!new)
                return NULL;
        if (had)
                memcpy(new, p, had);
        give(p, arg);
        return new;
}

void h2_memory_init(struct h2_memory *m)
{
        for (size_t i = 0; i < H2_MEMORY_CLASSES; i++)
                slab_init(&m->class[i], (i + 1) * STEP, KEEP);
        m->mem = (nghttp2_mem){.mem_user_data = m,
                               .malloc = take_some,
                               .free = give,
                               .calloc = take_zeroed,
                               .realloc = resize};
}

void h2_memory_end(struct h2_memory *m)
{
        for (size_t i = 0; i < H2_MEMORY_CLASSES; i++) {
                CHECK(m->class[i].live == 0);
                slab_end(&m->class[i]);
        }
}
