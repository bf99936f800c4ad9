/*
 * One byte stream to a peer: plain or TLS, with input and output queues, back-pressure and a
 * reason for its end.  The core never asks which it is.
 *
 *    socket -> io_read -> in  -> (owner parses, moves on)
 *    socket <- io_flush <- out <- (owner appends)
 *
 * The owner embeds struct io first thing in its connection object and gets three calls; each is the
 * last thing io does with the object in that turn, so the owner may io_close inside it.  Events are
 * persistent and level-triggered: reading stays registered; a reader that cannot take more says
 * io_pause and only a socket that then becomes readable is taken out; writing is registered only
 * after a short write.
 *
 * A peer's reset is noticed while reading is paused, and after its EOF too: readable() is then
 * called with io->failed set although the io is paused.  What had arrived before the reset can
 * still be read (after it io_read says IO_ERROR), so an owner may go on draining, or close at once.
 *
 * Invariant: in is filled only by io_read; after io_close nothing is called any more and the memory
 * may go in a loop_defer callback (h1_* do).  Belongs to one loop.
 */
#ifndef NET_IO_H
#define NET_IO_H

#include "base/addr.h"
#include "base/buf.h"
#include "base/reason.h"
#include "net/loop.h"

#include <event2/event_struct.h>

struct io;
struct io_type;  /* how bytes pass, net/io_type.h */
struct tls_peer; /* one TLS session, net/tls.h */

struct io_owner {
        void (*readable)(struct io *io); /* bytes, EOF or an error wait: call io_read */
        void (*drained)(
                struct io *io); /* out fell to empty after it had been short-written; may be NULL */
        void (*ready)(struct io *io,
                      enum reason r); /* connect and/or TLS handshake over: REASON_NONE, or why not
                                       * (io is then still open: the owner closes it) */
};

enum io_result {
        IO_OK,    /* at least one byte was added to in */
        IO_AGAIN, /* nothing now */
        IO_EOF,   /* orderly end (FIN; for TLS close_notify or FIN: see io->truncated) */
        IO_ERROR  /* reset or protocol failure; io->error has errno (0: TLS) */
};

struct io {
        uint32_t magic;
        int fd;
        const struct io_owner *owner;
        struct loop *loop;
        const struct io_type *type;
        struct tls_peer *tls; /* NULL: plain */
        struct buf in, out;
        struct event *ev_write; /* from a slab, only after a short write */
        struct event ev;        /* reading, or watching for a reset */
        struct loop_task task;  /* calls that are due at the end of this turn */
        int error;
        bool reading : 1;  /* ev is added, for input */
        bool watching : 1; /* ev is added, for a reset only */
        bool paused : 1;   /* the owner wants no input now */
        bool connecting : 1, handshaking : 1;
        bool eof : 1;       /* the peer has finished sending */
        bool truncated : 1; /* TLS: FIN without close_notify */
        bool failed : 1;    /* a write failed: out is dropped, the next read says why */
        bool writing : 1;   /* ev_write is added: out waits for the socket */
        bool step_due : 1;  /* connect or handshake go on in task */
        bool read_due : 1;  /* readable() is called in task */
        bool closed : 1;
        bool shut_due : 1; /* io_shutdown was asked for */
        bool shut : 1;     /* our side has sent FIN / close_notify */
        bool plenty : 1;   /* the last receive filled all the room it had: more is read at once */
        bool cut : 1;      /* the close must not look like an end */
};
#define IO_MAGIC UINT32_C(0x494f494f)

/* An accepted or otherwise connected socket (non-blocking, CLOEXEC).  Takes fd over.  Starts
 * reading. */
void io_open(struct io *io, struct loop *l, int fd, const struct io_owner *owner);
/* Starts a non-blocking connect; ready() follows, never from inside this call.  REASON_NONE or why
 * it failed at once (io is closed then, io->error has errno). */
MUST_CHECK enum reason io_connect(struct io *io, struct loop *l, const struct addr *to,
                                  const struct io_owner *owner);
/* From now on TLS; takes tls over.  ready() says how the handshake went (for a connect: after
 * both), never from inside this call.  Call before any read.  After REASON_HTTP_ON_TLS what is
 * written goes out plain. */
void io_start_tls(struct io *io, struct tls_peer *tls);

/* Goes out before anything else, in the clear even if the rest is TLS.  Right after io_connect (and
 * io_start_tls). */
void io_preface(struct io *io, str bytes);

/* Before any read and before TLS, for a PROXY protocol header: looks at up to n bytes without
 * taking them (how many there are; 0: none now; -1: EOF or an error), and takes n bytes that a look
 * has shown. */
MUST_CHECK ptrdiff_t io_peek(struct io *io, char *p, size_t n);
void io_skip(struct io *io, size_t n);

/* Adds up to want (>= 1) bytes to in, at most 64 KiB.  *drained (may be NULL) is set when the
 * socket is known to be empty (short read). */
MUST_CHECK enum io_result io_read(struct io *io, size_t want, bool *drained);
void io_pause(struct io *io);
void io_resume(struct io *io); /* bytes TLS already holds are reported too: readable() follows in
                                  this turn */
/* Writes out as far as it goes now.  A failure is reported by the next readable() (failed is set at
 * once). */
void io_flush(struct io *io);
/* FIN (after what is in out has gone); for TLS close_notify.  Reading goes on. */
void io_shutdown(struct io *io);
/* The peer shall see a reset at the close, not an end; what the kernel still holds is dropped. */
void io_reset_at_close(struct io *io);
/* The peer shall not take the close for an end: over TLS there is no close_notify (RFC 8446 6.1),
 * else a reset. */
void io_cut_at_close(struct io *io);
/* At once; drops both queues; counts the reason.  Again is fine.  (Where the kernel encrypts, what
 * it has taken and TCP not yet is still sent; io is closed for its owner all the same.) */
void io_close(struct io *io, enum reason why);

/* Puts the connection's socket and TLS session aside to flush what is in out, send FIN and read
 * what still comes, for at most timeout_us and 1 MiB, so that the last response is not lost to a
 * reset (RFC 9112 9.6).  io is closed for its owner. */
void io_close_lingering(struct io *io, enum reason why, int64_t timeout_us);

size_t io_unsent(const struct io *io);       /* bytes in out and in TLS */
uint32_t io_lingering(const struct loop *l); /* sockets of this loop in io_close_lingering */
void io_linger_end(struct loop *l);          /* closes them now (before loop_free) */
void io_thread_end(void);                    /* frees the calling thread's recycled objects */

#endif
