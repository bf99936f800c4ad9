/*
 * Streams after their owner has left: what is in out is flushed, FIN is sent, and what still comes
 * is read and dropped, for a while.
 *
 * The difficulty: a socket that is closed while the peer still sends answers with a reset, which
 * takes the end of the response away from the peer (RFC 9112 9.6).  And a stream whose bytes are
 * not all TCP's yet when the owner closes it (io_type.tail) must not lose them.
 */
#include "net/io_type.h"

#include "base/slab.h"

#define LINGER_MAX   1024 /* of one loop; more are closed at once */
#define LINGER_BYTES MIB
#define LINGER_TAIL  (30 * SEC) /* for io_type.tail: TCP by itself would go on for longer */

/* A connection nobody owns any more.  Invariant: linked in loop->lingering; freed at the end of the
 * turn it closes in. */
struct linger_io {
        struct io io;
        struct list link;
        struct deadline deadline;
        struct loop_task bury;
        size_t budget;
};

static _Thread_local struct slab linger_slab;

static void linger_bury(struct loop_task *t)
{
        slab_put(&linger_slab, CONTAINER_OF(t, struct linger_io, bury));
}

static void linger_close(struct linger_io *g)
{
        struct loop *l = g->io.loop;

        deadline_clear(&g->deadline);
        list_remove(&g->link);
        l->n_lingering--;
        io_close_now(&g->io, REASON_NONE); /* counted when it was handed to us */
        loop_defer(l, &g->bury, linger_bury);
}

static void linger_readable(struct io *io)
{
        struct linger_io *g = CONTAINER_OF(io, struct linger_io, io);

        switch (io_read(io, IO_TURN_MAX, NULL)) {
        case IO_OK:
                if (io->in.n >= g->budget) {
                        linger_close(g);
                        return;
                }
                g->budget -= io->in.n;
                buf_clear(&io->in);
                return;
        case IO_AGAIN:
                return;
        case IO_EOF:
                if (io_unsent(io) == 0 && !io->writing)
                        linger_close(g);
                return;
        case IO_ERROR:
                linger_close(g);
                return;
        }
}

static void linger_drained(struct io *io)
{
        if (io->eof)
                linger_close(CONTAINER_OF(io, struct linger_io, io));
}

static void linger_expired(struct deadline *d)
{
        linger_close(CONTAINER_OF(d, struct linger_io, deadline));
}

static const struct io_owner linger_owner = {linger_readable, linger_drained, NULL};

static void put_aside(struct io *io, enum reason why, int64_t timeout_us)
{
        struct loop *l = io->loop;
        struct linger_io *g;

        if (l->n_lingering >= LINGER_MAX) {
                io_close_now(io, why);
                return;
        }
        io_count_close(l, why);
        io_detach(io);
        buf_clear(&io->in);

        if (linger_slab.size == 0)
                slab_init(&linger_slab, sizeof(struct linger_io), 64);
        g = slab_get(&linger_slab);
        io_init(&g->io, l, io->fd, &linger_owner);
        g->io.type = io->type;
        g->io.tls = io->tls;
        g->io.out = io->out;
        g->io.eof = io->eof;
        g->io.shut = io->shut;
        g->budget = LINGER_BYTES;
        io->fd = -1;
        io->tls = NULL;
        io->out = BUF_INIT;

        list_push(&l->lingering, &g->link);
        l->n_lingering++;
        deadline_set(l, &g->deadline, timeout_us, linger_expired);
        if (!g->io.eof)
                io_start_reading(&g->io);
        io_shutdown(&g->io); /* a failure is told by a readable() later in this turn */
        if (g->io.eof && g->io.shut)
                linger_close(g);
}

void io_close_lingering(struct io *io, enum reason why, int64_t timeout_us)
{
        CHECK_OBJ(io, IO_MAGIC);
        if (io->closed)
                return;
        if (io->failed || io->connecting || io->handshaking || timeout_us <= 0 ||
            (io->eof && io_unsent(io) == 0))
                io_close(io, why);
        else
                put_aside(io, why, timeout_us);
}

void io_close(struct io *io, enum reason why)
{
        CHECK_OBJ(io, IO_MAGIC);
        if (io->closed)
                return;
        if (io->type->tail != NULL && io->type->tail(io))
                put_aside(io, why, LINGER_TAIL);
        else
                io_close_now(io, why);
}

uint32_t io_lingering(const struct loop *l)
{
        return l->n_lingering;
}

void io_linger_end(struct loop *l)
{
        while (!list_empty(&l->lingering))
                linger_close(CONTAINER_OF(l->lingering.next, struct linger_io, link));
}

void io_linger_thread_end(void)
{
        if (linger_slab.size != 0)
                slab_end(&linger_slab);
}
