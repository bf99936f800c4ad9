/*
 * Byte streams: events, connect, plain reading and writing, and the end.  What TLS does differently
 * is in tls_io.c.
 *
 * The difficulty is how little may be registered with epoll: each change is a system call.  So
 * reading stays registered through the whole life, and only where nobody can take input (paused, or
 * after EOF) does the socket change over to a watch for resets: an edge-triggered interest in
 * writing, which epoll reports once at the start and then only when the state of the connection
 * changes.  (Interest in EPOLLRDHUP alone would not do: libevent hands an error to no such event.)
 */
#include "net/io_type.h"

#include "base/log.h"
#include "base/slab.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define SLICES 64
#define PIECES 5 /* IO_TURN_MAX, begun in a chunk that has bytes already */

static _Thread_local struct slab event_slab;

static void on_readable(evutil_socket_t fd, short what, void *arg);
static void on_writable(evutil_socket_t fd, short what, void *arg);
static void on_watch(evutil_socket_t fd, short what, void *arg);
static void run_due(struct loop_task *t);

/* ---- registration ---- */

static void stop_input(struct io *io)
{
        if (io->reading || io->watching)
                event_del(&io->ev);
        io->reading = io->watching = false;
}

void io_start_reading(struct io *io)
{
        if (io->reading)
                return;
        stop_input(io);
        event_assign(&io->ev, io->loop->base, io->fd, EV_READ | EV_PERSIST, on_readable, io);
        CHECK(event_add(&io->ev, NULL) == 0);
        io->reading = true;
}

/* No input is wanted: only a reset is of interest.  A socket that waits for writing tells of it
 * anyway (and libevent does not mix edges and levels on one socket). */
static void start_watching(struct io *io)
{
        if (io->watching)
                return;
        stop_input(io);
        if (io->writing || io->failed)
                return;
        event_assign(&io->ev, io->loop->base, io->fd, EV_WRITE | EV_PERSIST | EV_ET, on_watch, io);
        CHECK(event_add(&io->ev, NULL) == 0);
        io->watching = true;
}

static void start_writing(struct io *io)
{
        if (io->writing)
                return;
        if (io->watching)
                stop_input(io);
        if (event_slab.size == 0)
                slab_init(&event_slab, sizeof(struct event), 256);
        io->ev_write = slab_get(&event_slab);
        event_assign(io->ev_write, io->loop->base, io->fd, EV_WRITE | EV_PERSIST, on_writable, io);
        CHECK(event_add(io->ev_write, NULL) == 0);
        io->writing = true;
}

static void stop_writing(struct io *io)
{
        if (!io->writing)
                return;
        event_del(io->ev_write);
        slab_put(&event_slab, io->ev_write);
        io->ev_write = NULL;
        io->writing = false;
        if (!io->reading && !io->connecting && !io->closed)
                start_watching(io);
}

static void at_end_of_turn(struct io *io)
{
        loop_defer(io->loop, &io->task, run_due);
}

/* ---- failure ---- */

/* The connection is broken for writing.  Told by a readable() in this turn. */
static void fail(struct io *io, int error)
{
        if (io->failed)
                return;
        io->failed = true;
        io->error = error;
        buf_clear(&io->out);
        stop_writing(io);
        io->read_due = true;
        at_end_of_turn(io);
}

static void on_watch(evutil_socket_t fd, short what UNUSED, void *arg)
{
        struct io *io = CAST(struct io, IO_MAGIC, arg);
        struct pollfd p = {.fd = fd, .events = 0};

        loop_woke(io->loop);
        /* A look that leaves the error where it is, for the reads that follow. */
        if (poll(&p, 1, 0) == 1 && (p.revents & POLLERR)) {
                stop_input(io);
                fail(io, ECONNRESET);
        }
}

/* ---- reading ---- */

static void on_readable(evutil_socket_t fd UNUSED, short what UNUSED, void *arg)
{
        struct io *io = CAST(struct io, IO_MAGIC, arg);
        struct loop *l = io->loop;

        loop_woke(l);
        if (io->handshaking) {
                io->step_due = true;
                run_due(&io->task);
        } else if (io->paused || io->eof) {
                start_watching(io);
        } else {
                io->owner->readable(io);
                loop_run_soon(l);
        }
}

ssize_t io_receive(int fd, struct buf *to, size_t want, size_t *room)
{
        struct iovec iov[PIECES];
        int n = buf_read_iov(to, want, iov, PIECES);
        ssize_t r;

        *room = 0;
        for (int i = 0; i < n; i++)
                *room += iov[i].iov_len;
        do /* one piece is the rule, and costs the kernel less than a list of one */
                r = n == 1 ? recv(fd, iov[0].iov_base, iov[0].iov_len, 0) : readv(fd, iov, n);
        while (r < 0 && errno == EINTR);
        buf_commit_iov(to, r > 0 ? (size_t)r : 0);
        return r;
}

enum io_result io_plain_read(struct io *io, size_t want, bool *drained)
{
        size_t got = 0;

        want = MIN(want, IO_TURN_MAX);
        if (want > BUF_CHUNK)
                want -= want % BUF_CHUNK; /* no small piece behind whole chunks */
        while (got < want) {
                size_t room;
                ssize_t r = io_receive(io->fd, &io->in,
                                       io->plenty ? want - got : MIN(want - got, BUF_CHUNK), &room);

                if (r <= 0) {
                        if (r < 0 && errno == EAGAIN) {
                                if (drained)
                                        *drained = true;
                                return got > 0 ? IO_OK : IO_AGAIN;
                        }
                        if (got > 0) /* said again by the next read */
                                return IO_OK;
                        if (r < 0)
                                io->error = errno;
                        return r == 0 && !io->failed ? IO_EOF : IO_ERROR;
                }
                got += (size_t)r;
                io->plenty = (size_t)r == room;
                if (!io->plenty) {
                        if (drained)
                                *drained = true;
                        break;
                }
        }
        return IO_OK;
}

enum io_result io_read(struct io *io, size_t want, bool *drained)
{
        enum io_result r;

        CHECK_OBJ(io, IO_MAGIC);
        CHECK(!io->closed && !io->connecting && !io->handshaking);
        if (drained)
                *drained = false;
        if (io->eof)
                return io->failed ? IO_ERROR : IO_EOF;
        r = io->type->read(io, want, drained);
        if (r == IO_EOF || r == IO_ERROR) {
                io->eof = true;
                io->failed |= r == IO_ERROR;
        } else if (io->type->pending(io) && !io->paused) {
                io->read_due = true;
                at_end_of_turn(io);
        }
        return r;
}

void io_pause(struct io *io)
{
        io->paused = true;
}

void io_resume(struct io *io)
{
        if (!io->paused)
                return;
        io->paused = false;
        if (io->connecting || io->handshaking || io->eof)
                return;
        io_start_reading(io);
        if (io->type->pending(io)) {
                io->read_due = true;
                at_end_of_turn(io);
        }
}

ptrdiff_t io_peek(struct io *io, char *p, size_t n)
{
        ssize_t r;

        CHECK(io->tls == NULL && io->in.n == 0);
        do
                r = recv(io->fd, p, n, MSG_PEEK);
        while (r < 0 && errno == EINTR);
        if (r < 0 && errno == EAGAIN)
                return 0;
        return r == 0 ? -1 : r;
}

void io_skip(struct io *io, size_t n)
{
        char sink[4096];

        while (n > 0) {
                ssize_t r = recv(io->fd, sink, MIN(n, sizeof(sink)), 0);
                if (r < 0 && errno == EINTR)
                        continue;
                if (r <= 0) /* reset meanwhile: the next read says so */
                        return;
                n -= (size_t)r;
        }
}

/* ---- writing ---- */

enum io_sent io_send_buf(int fd, struct buf *b, int *error)
{
        while (b->n > 0) {
                struct iovec iov[SLICES];
                struct msghdr msg = {.msg_iov = iov};
                size_t asked = 0;
                ssize_t r;

                msg.msg_iovlen = (size_t)buf_iov(b, iov, SLICES, SIZE_MAX);
                for (size_t i = 0; i < msg.msg_iovlen; i++)
                        asked += iov[i].iov_len;
                r = msg.msg_iovlen == 1 ? send(fd, iov[0].iov_base, iov[0].iov_len, MSG_NOSIGNAL)
                                        : sendmsg(fd, &msg, MSG_NOSIGNAL);
                if (r < 0 && errno == EINTR)
                        continue;
                if (r < 0 && errno == EAGAIN)
                        return IO_SENT_SHORT;
                if (r < 0) {
                        *error = errno;
                        return IO_SENT_FAILED;
                }
                buf_drain(b, (size_t)r);
                if ((size_t)r < asked)
                        return IO_SENT_SHORT;
        }
        return IO_SENT_ALL;
}

enum io_sent io_plain_send(struct io *io)
{
        return io_send_buf(io->fd, &io->out, &io->error);
}

/* Sends what there is.  True: all has gone. */
static bool send_out(struct io *io)
{
        switch (io->type->send(io)) {
        case IO_SENT_ALL:
                if (io->shut_due && !io->shut) {
                        shutdown(io->fd, SHUT_WR);
                        io->shut = true;
                }
                return true;
        case IO_SENT_SHORT:
                start_writing(io);
                return false;
        case IO_SENT_FAILED:
                fail(io, io->error);
                return false;
        }
        UNREACHABLE();
}

void io_flush(struct io *io)
{
        CHECK_OBJ(io, IO_MAGIC);
        if (io->failed || io->closed || io->shut) {
                buf_clear(&io->out);
                return;
        }
        if (io->writing || io->connecting || io->handshaking)
                return;
        send_out(io);
}

void io_shutdown(struct io *io)
{
        if (io->shut_due || io->closed)
                return;
        io->shut_due = true;
        io_flush(io);
}

static void on_writable(evutil_socket_t fd UNUSED, short what UNUSED, void *arg)
{
        struct io *io = CAST(struct io, IO_MAGIC, arg);

        loop_woke(io->loop);
        if (io->connecting || io->handshaking) {
                io->step_due = true;
                run_due(&io->task);
                return;
        }
        if (!send_out(io))
                return;
        stop_writing(io);
        if (io->owner->drained)
                io->owner->drained(io);
}

size_t io_unsent(const struct io *io)
{
        return io->out.n + io->type->unsent(io);
}

/* ---- coming up ---- */

static void count_handshake(struct io *io, int n)
{
        atomic_store_explicit(&io->loop->handshakes,
                              atomic_load_explicit(&io->loop->handshakes, memory_order_relaxed) +
                                      (uint32_t)n,
                              memory_order_relaxed);
}

void io_set_type(struct io *io, const struct io_type *type, bool we_speak_first)
{
        CHECK_OBJ(io, IO_MAGIC);
        CHECK(!io->handshaking && io->in.n == 0);
        io->type = type;
        io->handshaking = true;
        count_handshake(io, 1);
        if (we_speak_first && !io->connecting) {
                io->step_due = true;
                at_end_of_turn(io);
        }
}

/* A burst of new connections must not hold up those that are through: a handshake takes as long as
 * many requests do, so in each turn of the loop only this much time goes into them, and the others
 * have theirs in later turns, first come, first served. */
#define HANDSHAKES_TURN (1 * MSEC)

static bool handshakes_over(struct io *io)
{
        if (LIKELY(io->loop->handshake_us < HANDSHAKES_TURN))
                return false;
        io->step_due = true;
        at_end_of_turn(io);
        return true;
}

static enum io_step handshake(struct io *io, enum reason *why)
{
        int64_t began = loop_clock(CLOCK_MONOTONIC);
        enum io_step s = io->type->handshake(io, why);

        io->loop->handshake_us += loop_clock(CLOCK_MONOTONIC) - began;
        return s;
}

/* Connect, then handshake, as far as they go now. */
static void step(struct io *io)
{
        enum reason why = REASON_NONE;

        if (io->connecting) {
                socklen_t len = sizeof(io->error);
                if (getsockopt(io->fd, SOL_SOCKET, SO_ERROR, &io->error, &len) < 0)
                        io->error = errno;
                if (io->error != 0) {
                        why = REASON_CONNECT_FAILED;
                        stop_writing(io);
                } else {
                        /* In this order one of the two is always registered.  A paused io too: it
                         * is taken out only if input comes. */
                        io_start_reading(io);
                        io->connecting = false;
                        stop_writing(io);
                }
        }
        if (io->handshaking && why == REASON_NONE) {
                if (handshakes_over(io))
                        return;
                enum io_step s = handshake(io, &why);
                if (s == IO_STEP_WAIT) {
                        if (io->type->unsent(io) > 0)
                                start_writing(io);
                        else
                                stop_writing(io);
                        return;
                }
                io->handshaking = false;
                count_handshake(io, -1);
                if (why == REASON_NONE && io->type->unsent(io) == 0)
                        stop_writing(io);
        }
        if (why == REASON_NONE) {
                /* Bytes that came with the end of the handshake. */
                if (io->type->pending(io) && !io->paused) {
                        io->read_due = true;
                        at_end_of_turn(io);
                }
                io_flush(io);
        }
        io->owner->ready(io, why);
}

static void run_due(struct loop_task *t)
{
        struct io *io = CAST(struct io, IO_MAGIC, CONTAINER_OF(t, struct io, task));

        if (io->step_due) {
                io->step_due = false;
                step(io);
        } else if (io->read_due) {
                io->read_due = false;
                if (io->failed || !io->paused)
                        io->owner->readable(io);
        }
}

static bool plain_pending(const struct io *io UNUSED)
{
        return false;
}

static size_t plain_unsent(const struct io *io UNUSED)
{
        return 0;
}

static void plain_release(struct io *io UNUSED)
{
}

static const struct io_type plain = {
        .read = io_plain_read,
        .send = io_plain_send,
        .pending = plain_pending,
        .unsent = plain_unsent,
        .release = plain_release,
};

void io_init(struct io *io, struct loop *l, int fd, const struct io_owner *owner)
{
        *io = (struct io){
                .magic = IO_MAGIC,
                .fd = fd,
                .owner = owner,
                .loop = l,
                .type = &plain,
        };
}

void io_open(struct io *io, struct loop *l, int fd, const struct io_owner *owner)
{
        io_init(io, l, fd, owner);
        io_start_reading(io);
}

enum reason io_connect(struct io *io, struct loop *l, const struct addr *to,
                       const struct io_owner *owner)
{
        int one = 1, fd, r;

        io_init(io, l, -1, owner);
        io->closed = true;
        fd = socket(to->sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (fd < 0) {
                io->error = errno;
                return errno == EMFILE || errno == ENFILE ? REASON_NO_DESCRIPTORS
                                                          : REASON_CONNECT_FAILED;
        }
        if (to->sa.sa_family != AF_UNIX)
                setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        r = connect(fd, &to->sa, to->len);
        if (r < 0 && errno != EINPROGRESS && errno != EINTR) {
                io->error = errno; /* EAGAIN of a unix socket: its backlog is full */
                close(fd);
                return REASON_CONNECT_FAILED;
        }
        io->fd = fd;
        io->closed = false;
        io->connecting = true;
        if (r == 0) {
                io->step_due = true;
                at_end_of_turn(io);
        } else {
                start_writing(io);
        }
        return REASON_NONE;
}

/* ---- the end ---- */

void io_count_close(struct loop *l, enum reason why)
{
        if (why == REASON_NONE || l->metrics == NULL)
                return;
        if (l->closes == NULL) {
                l->closes = calloc(REASONS, sizeof(*l->closes));
                CHECK(l->closes != NULL);
        }
        if (l->closes[why] == NULL) {
                struct buf labels = BUF_INIT;
                metric_label(&labels, "reason", str_z(reason_word(why)));
                l->closes[why] =
                        metric_series(l->metrics, METRIC_CLOSES, buf_pullup(&labels, labels.n));
                buf_clear(&labels);
        }
        metric_add(l->closes[why], 1);
}

void io_detach(struct io *io)
{
        io->closed = true;
        stop_input(io);
        stop_writing(io);
        if (list_linked(&io->task.link))
                list_remove(&io->task.link);
        if (io->handshaking)
                count_handshake(io, -1);
        io->handshaking = false;
}

void io_reset_at_close(struct io *io)
{
        struct linger reset = {.l_onoff = 1};

        CHECK_OBJ(io, IO_MAGIC);
        io->cut = true;
        setsockopt(io->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
}

void io_cut_at_close(struct io *io)
{
        io->cut = true;
        if (io->tls == NULL)
                io_reset_at_close(io);
}

void io_close_now(struct io *io, enum reason why)
{
        io_count_close(io->loop, why);
        io->type->release(io);
        io_detach(io);
        buf_clear(&io->in);
        buf_clear(&io->out);
        close(io->fd);
        io->fd = -1;
}

void io_thread_end(void)
{
        if (event_slab.size != 0)
                slab_end(&event_slab);
        io_linger_thread_end();
}
