/*
 * How bytes pass through an io: plain or TLS.  Private to net/io*.c and net/tls*.c.
 */
#ifndef NET_IO_TYPE_H
#define NET_IO_TYPE_H

#include "net/io.h"

enum io_sent {
        IO_SENT_ALL,   /* nothing is left, a close_notify that was due included */
        IO_SENT_SHORT, /* the socket is full */
        IO_SENT_FAILED /* io->error says why */
};

enum io_step { IO_STEP_DONE, IO_STEP_WAIT, IO_STEP_FAILED };

struct io_type {
        enum io_result (*read)(struct io *io, size_t want, bool *drained);
        enum io_sent (*send)(struct io *io);
        /* The handshake as far as it goes now; *why is set with IO_STEP_FAILED. */
        enum io_step (*handshake)(struct io *io, enum reason *why);
        bool (*pending)(const struct io *io);  /* input that the socket will not announce again */
        size_t (*unsent)(const struct io *io); /* bytes taken from out and not yet sent */
        bool (*tail)(const struct io *io); /* all has been taken, but a close now would lose some of
                                              it; NULL: never */
        void (*release)(struct io *io);    /* the io is about to close its socket */
};

#define IO_TURN_MAX (4 * BUF_CHUNK) /* read from one peer before others have their turn */

enum io_result io_plain_read(struct io *io, size_t want, bool *drained);
enum io_sent io_plain_send(struct io *io);
/* Receives up to want bytes (or as many as fit a few chunks: *room) at the end of to: their number,
 * 0 at the end of input, or -1 and errno. */
ssize_t io_receive(int fd, struct buf *to, size_t want, size_t *room);
/* Sends b on fd as far as it goes.  IO_SENT_FAILED: *error has errno. */
enum io_sent io_send_buf(int fd, struct buf *b, int *error);

/* io.c for io_linger.c: a new io that is in no event yet; out of the loop, with its socket open and
 * its queues kept; the close of an io that is open. */
void io_init(struct io *io, struct loop *l, int fd, const struct io_owner *owner);
void io_start_reading(struct io *io);
void io_detach(struct io *io);
void io_count_close(struct loop *l, enum reason why);
void io_close_now(struct io *io, enum reason why);
void io_linger_thread_end(void);

/* From here on bytes pass as type says.  The handshake begins when the connect is over. */
void io_set_type(struct io *io, const struct io_type *type, bool we_speak_first);

#endif
