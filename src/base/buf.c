/*
 * A queue of bytes made of chunks.
 *
 *     first -> [..xxxx] -> [xxxxxx] -> [xxx...] <- last  -> spare -> spare
 *
 * The one difficulty is memory: many small pieces must not hold a chunk each, and large ones must
 * not be copied.  So whole chunks change hands, pieces below SMALL are copied to the tail when they
 * fit, and a small piece that starts a new tail begins at the front of its chunk.
 *
 * Room that was handed out and not yet committed may be chunks behind `last` (spares): they belong
 * to the buf but are not part of its bytes until the commit.
 */
#include "base/buf.h"

#include "base/asan.h"
#include "base/check.h"
#include "base/page.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define SMALL ((size_t)2048)
#define CAP   (BUF_HEADROOM + BUF_CHUNK)
#define WHOLE (sizeof(struct chunk) + CAP)

static _Thread_local struct page_pool recycled = {.bytes = WHOLE};

static struct chunk *chunk_new(size_t cap)
{
        struct chunk *c;

        cap += BUF_HEADROOM;
        if (cap <= CAP) {
                cap = CAP;
                c = page_pool_get(&recycled);
                UNPOISON(c->data, CAP);
        } else {
                CHECK(cap <= UINT32_MAX - sizeof(*c));
                c = page_map(sizeof(*c) + cap);
        }
        c->next = NULL;
        c->cap = (uint32_t)cap;
        c->off = c->end = BUF_HEADROOM;
        return c;
}

static void chunk_free(struct chunk *c)
{
        if (c->cap != CAP) {
                page_unmap(c, sizeof(*c) + c->cap);
                return;
        }
        POISON(c->data, CAP);
        page_pool_put(&recycled, c);
}

static inline size_t length(const struct chunk *c)
{
        return c->end - c->off;
}

static inline size_t room(const struct chunk *c)
{
        return c->cap - c->end;
}

/* Makes c the last chunk; spares, if any, stay behind it. */
static void append(struct buf *b, struct chunk *c)
{
        c->next = b->last ? b->last->next : NULL;
        if (b->last)
                b->last->next = c;
        else
                b->first = c;
        b->last = c;
}

static void drop_spares(struct buf *b)
{
        while (b->last && b->last->next) {
                struct chunk *c = b->last->next;
                b->last->next = c->next;
                chunk_free(c);
        }
}

static void drop_first(struct buf *b)
{
        struct chunk *c = b->first;

        if (c == b->last) {
                drop_spares(b);
                b->last = NULL;
        }
        b->first = c->next;
        chunk_free(c);
}

void buf_clear(struct buf *b)
{
        while (b->first)
                drop_first(b);
        b->n = 0;
}

static void fill(struct buf *b, struct chunk *c, const void *p, size_t n)
{
        memcpy(c->data + c->end, p, n);
        c->end += (uint32_t)n;
        b->n += n;
}

void buf_put(struct buf *b, const void *p, size_t n)
{
        const char *from = p;

        while (n > 0) {
                size_t some;
                if (!b->last || room(b->last) == 0)
                        append(b, chunk_new(0));
                some = MIN(n, room(b->last));
                fill(b, b->last, from, some);
                from += some;
                n -= some;
        }
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
        char text[1024], *p = text;
        va_list ap;
        int n;

        va_start(ap, fmt);
        n = vsnprintf(text, sizeof(text), fmt, ap);
        va_end(ap);
        CHECK(n >= 0);
        if ((size_t)n >= sizeof(text)) {
                p = malloc((size_t)n + 1);
                CHECK(p != NULL);
                va_start(ap, fmt);
                vsnprintf(p, (size_t)n + 1, fmt, ap);
                va_end(ap);
        }
        buf_put(b, p, (size_t)n);
        if (p != text)
                free(p);
}

char *buf_reserve(struct buf *b, size_t n)
{
        CHECK(n <= BUF_CHUNK);
        if (!b->last)
                append(b, chunk_new(0));
        if (room(b->last) >= n) {
                drop_spares(b);
                return b->last->data + b->last->end;
        }
        if (!b->last->next)
                b->last->next = chunk_new(0);
        return b->last->next->data + BUF_HEADROOM;
}

void buf_commit(struct buf *b, size_t n)
{
        struct chunk *c = b->last, *spare;

        CHECK(c != NULL);
        spare = c->next;
        if (spare) {
                CHECK(n <= room(spare));
                if (n < SMALL && n <= room(c)) {
                        fill(b, c, spare->data + spare->end, n);
                        drop_spares(b);
                } else {
                        spare->end += (uint32_t)n;
                        b->last = spare;
                        b->n += n;
                        drop_spares(b);
                }
        } else {
                CHECK(n <= room(c));
                c->end += (uint32_t)n;
                b->n += n;
        }
        if (b->n == 0)
                buf_clear(b);
}

int buf_read_iov(struct buf *b, size_t want, struct iovec *iov, int max)
{
        struct chunk *c;
        int n = 0;

        CHECK(want > 0 && max >= 2);
        if (!b->last)
                append(b, chunk_new(0));
        for (c = b->last;; c = c->next) {
                size_t some = MIN(room(c), want);
                if (some > 0)
                        iov[n++] = (struct iovec){c->data + c->end, some};
                want -= some;
                if (want == 0 || n == max)
                        return n;
                if (!c->next)
                        c->next = chunk_new(0);
        }
}

void buf_commit_iov(struct buf *b, size_t n)
{
        struct chunk *c = b->last;

        CHECK(c != NULL);
        b->n += n;
        while (n > 0) {
                size_t some = MIN(n, room(c));
                c->end += (uint32_t)some;
                b->last = c;
                n -= some;
                c = c->next;
                CHECK(n == 0 || c != NULL);
        }
        drop_spares(b);
        if (b->n == 0)
                buf_clear(b);
}

int buf_iov(const struct buf *b, struct iovec *iov, int max, size_t limit)
{
        int n = 0;

        limit = MIN(limit, b->n);
        for (struct chunk *c = b->first; n < max && limit > 0; c = c->next) {
                size_t some = MIN(length(c), limit);
                iov[n++] = (struct iovec){c->data + c->off, some};
                limit -= some;
        }
        return n;
}

/* Makes the first chunk, which is not the last, hold need contiguous bytes, its own included. */
static struct chunk *roomy_front(struct buf *b, size_t need)
{
        struct chunk *c = b->first, *big;

        if (need <= c->cap - c->off)
                return c;
        if (BUF_HEADROOM + need <= c->cap) {
                memmove(c->data + BUF_HEADROOM, c->data + c->off, length(c));
                c->end = (uint32_t)(BUF_HEADROOM + length(c));
                c->off = BUF_HEADROOM;
                return c;
        }
        big = chunk_new(need);
        memcpy(big->data + big->end, c->data + c->off, length(c));
        big->end += (uint32_t)length(c);
        big->next = c->next;
        b->first = big;
        chunk_free(c);
        return big;
}

str buf_pullup(struct buf *b, size_t n)
{
        struct chunk *c;

        n = MIN(n, b->n);
        if (n == 0)
                return str_of("", 0);
        drop_spares(b);
        if (length(b->first) < n) {
                c = roomy_front(b, n);
                while (length(c) < n) {
                        struct chunk *from = c->next;
                        size_t some = MIN(n - length(c), length(from));
                        memcpy(c->data + c->end, from->data + from->off, some);
                        c->end += (uint32_t)some;
                        from->off += (uint32_t)some;
                        if (length(from) == 0) {
                                c->next = from->next;
                                if (b->last == from)
                                        b->last = c;
                                chunk_free(from);
                        }
                }
        }
        return str_head(buf_front(b), n);
}

bool buf_prepend(struct buf *b, const void *p, size_t n)
{
        struct chunk *c = b->first;

        if (b->n == 0 || c->off < n)
                return false;
        c->off -= (uint32_t)n;
        memcpy(c->data + c->off, p, n);
        b->n += n;
        return true;
}

void buf_append(struct buf *dst, const struct buf *src, size_t n)
{
        CHECK(n <= src->n && dst != src);
        for (const struct chunk *c = src->first; n > 0; c = c->next) {
                size_t some = MIN(n, length(c));
                buf_put(dst, c->data + c->off, some);
                n -= some;
        }
}

void buf_drain(struct buf *b, size_t n)
{
        CHECK(n <= b->n);
        b->n -= n;
        while (n > 0) {
                size_t some = MIN(n, length(b->first));
                b->first->off += (uint32_t)some;
                n -= some;
                if (length(b->first) == 0)
                        drop_first(b);
        }
        if (b->n == 0)
                buf_clear(b);
}

/* The front chunk of src, all of its bytes, to the end of dst. */
static void move_chunk(struct buf *dst, struct buf *src)
{
        struct chunk *c = src->first;
        size_t n = length(c);

        if (n < SMALL && dst->last && n <= room(dst->last)) {
                fill(dst, dst->last, c->data + c->off, n);
                src->n -= n;
                drop_first(src);
                return;
        }
        if (c == src->last) {
                drop_spares(src);
                src->last = NULL;
        }
        src->first = c->next;
        src->n -= n;
        if (n < SMALL && c->off > BUF_HEADROOM) {
                memmove(c->data + BUF_HEADROOM, c->data + c->off, n);
                c->off = BUF_HEADROOM;
                c->end = (uint32_t)(BUF_HEADROOM + n);
        }
        append(dst, c);
        dst->n += n;
}

/* The first n bytes of the front chunk of src, which is longer: copies the smaller part. */
static void move_part(struct buf *dst, struct buf *src, size_t n)
{
        struct chunk *c = src->first, *rest;
        size_t left = length(c) - n;

        if (n <= left || n < SMALL || left > BUF_CHUNK) {
                buf_put(dst, c->data + c->off, n);
                c->off += (uint32_t)n;
                src->n -= n;
                return;
        }
        rest = chunk_new(0);
        memcpy(rest->data + rest->end, c->data + c->off + n, left);
        rest->end += (uint32_t)left;
        rest->next = c->next;
        if (src->last == c)
                src->last = rest;
        src->first = rest;
        src->n -= n;
        c->end -= (uint32_t)left;
        append(dst, c);
        dst->n += n;
}

void buf_move(struct buf *dst, struct buf *src, size_t n)
{
        CHECK(n <= src->n && dst != src);
        if (dst->n == 0)
                buf_clear(dst); /* with room that was handed out: no chunk in the middle is empty */
        else
                drop_spares(dst);
        while (n > 0) {
                size_t front = length(src->first);
                if (front <= n)
                        move_chunk(dst, src);
                else
                        move_part(dst, src, n);
                n -= MIN(n, front);
        }
        if (src->n == 0)
                buf_clear(src);
}

size_t buf_copy_out(const struct buf *b, size_t off, void *p, size_t n)
{
        size_t done = 0;

        if (off >= b->n)
                return 0;
        n = MIN(n, b->n - off);
        for (struct chunk *c = b->first; done < n; c = c->next) {
                size_t len = length(c), some;
                if (off >= len) {
                        off -= len;
                        continue;
                }
                some = MIN(n - done, len - off);
                memcpy((char *)p + done, c->data + c->off + off, some);
                done += some;
                off = 0;
        }
        return done;
}

size_t buf_held(const struct buf *b)
{
        size_t sum = 0;

        for (struct chunk *c = b->first; c; c = c->next)
                sum += c->cap;
        return sum;
}

size_t buf_thread_trim(void)
{
        return page_pool_trim(&recycled);
}

unsigned buf_thread_kept(void)
{
        return recycled.n;
}

void buf_thread_end(void)
{
        page_pool_end(&recycled);
}
