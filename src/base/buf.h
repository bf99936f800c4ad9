/*
 * A queue of bytes made of chunks, for everything that is read from or written to a socket.
 *
 * Chunks have one owner: a buf.  buf_move hands whole chunks from one buf to another, so a body
 * passes from the socket that was read to the one that is written without being copied; what is
 * small, or only part of a chunk, is copied.  An empty buf holds no chunk.
 *
 * Chunks of BUF_CHUNK bytes come from a per-thread free list (a read of a full chunk says that more
 * may wait).  Each has room before its bytes, so that what frames them can be put there without a
 * copy; chunk and frame together fit one TLS record.  A buf belongs to one thread.
 */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include "base/str.h"

#include <sys/uio.h>

#define BUF_HEADROOM ((size_t)32)
#define BUF_CHUNK    (16 * KIB - BUF_HEADROOM)

struct chunk {
        struct chunk *next;
        uint32_t off, end, cap; /* valid bytes are data[off..end) */
        _Alignas(16) char data[];
};

struct buf {
        struct chunk *first, *last;
        size_t n; /* bytes in all chunks */
};

#define BUF_INIT ((struct buf){NULL, NULL, 0})

void buf_clear(struct buf *b);                        /* drops all bytes, frees the chunks */
void buf_put(struct buf *b, const void *p, size_t n); /* copies n bytes to the end */
static inline void buf_puts(struct buf *b, str s)
{
        buf_put(b, s.p, s.n);
}
void buf_printf(struct buf *b, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* Room for at least n (<= BUF_CHUNK) contiguous bytes at the end; buf_commit says how many of
 * them were written.  The room, like that of buf_read_iov, is good until anything else is done with
 * the buffer; room that is never committed is used or given back by what comes next. */
char *buf_reserve(struct buf *b, size_t n);
void buf_commit(struct buf *b, size_t n);

/* Space to read want bytes into, or at least BUF_CHUNK of them: up to max (>= 2) iovecs; then
 * buf_commit_iov with what was read (0 gives fresh chunks back). */
int buf_read_iov(struct buf *b, size_t want, struct iovec *iov, int max);
void buf_commit_iov(struct buf *b, size_t n);

/* The bytes for writev, up to max slices and limit bytes (SIZE_MAX: all); returns the slices. */
int buf_iov(const struct buf *b, struct iovec *iov, int max, size_t limit);

/* The first contiguous piece; empty only when the buffer is. */
static inline str buf_front(const struct buf *b)
{
        return b->first ? str_of(b->first->data + b->first->off, b->first->end - b->first->off)
                        : str_of("", 0);
}

/* Makes the first min(n, b->n) bytes contiguous (may allocate one larger chunk), returns them. */
str buf_pullup(struct buf *b, size_t n);

/* Puts n bytes before all others if the first chunk has the room; false: nothing was done. */
bool buf_prepend(struct buf *b, const void *p, size_t n);
void buf_append(struct buf *dst, const struct buf *src, size_t n); /* a copy; n <= src->n */
void buf_drain(struct buf *b, size_t n);                           /* n <= b->n, from the front */
void buf_move(struct buf *dst, struct buf *src, size_t n); /* n <= src->n, from front to end */
size_t buf_copy_out(const struct buf *b, size_t off, void *p,
                    size_t n); /* peeks; returns how many */

/* Bytes of memory held, for bounds: capacity of the chunks. */
size_t buf_held(const struct buf *b);

/* Frees the calling thread's recycled chunks: at thread end and in tests. */
void buf_thread_end(void);
/* Called now and then: frees those that were not needed since the call before; returns the
 * bytes. */
size_t buf_thread_trim(void);
unsigned buf_thread_kept(void); /* how many there are */

#endif
