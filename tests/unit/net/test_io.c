/*
 * Plain streams over real sockets: transfers with back-pressure, half-close, resets seen while
 * paused, connect, lingering.
 */
#include "net/io.c"
#include "net/io_linger.c"

#include "pump.h"

#include <arpa/inet.h>
#include <fcntl.h>

static struct loop *l;

/* A peer under test: an io, what it has seen, and how it behaves. */
struct peer {
        struct io io;
        size_t want; /* bytes to read at a time; 0: read nothing */
        uint64_t hash, received;
        size_t to_send, sent; /* bytes of the pattern */
        enum io_result last;
        unsigned readables, draineds, readies;
        enum reason ready;
        bool close_in_readable;
        bool keep; /* leave in what was read */
        struct loop_task soon;
};

static char order[8]; /* readable() of the two peers, what they put off, and the turn's tasks */

static void note(char c)
{
        size_t n = strlen(order);

        if (n + 1 < sizeof(order))
                order[n] = c;
}

static void run_soon(struct loop_task *t UNUSED)
{
        note('s');
}

static void run_task(struct loop_task *t UNUSED)
{
        note('t');
}

/* FNV-1a over a stream: equal on both sides only if no byte was lost, doubled or moved. */
static uint64_t hash_bytes(uint64_t h, str s)
{
        for (size_t i = 0; i < s.n; i++)
                h = (h ^ (unsigned char)s.p[i]) * UINT64_C(1099511628211);
        return h;
}

static char pattern(size_t i)
{
        return (char)(i * 2654435761u >> 13);
}

static uint64_t hash_pattern(size_t n)
{
        uint64_t h = 0;

        for (size_t i = 0; i < n; i++) {
                char c = pattern(i);
                h = hash_bytes(h, str_of(&c, 1));
        }
        return h;
}

static void on_read(struct io *io)
{
        struct peer *p = (struct peer *)io;

        p->readables++;
        note('r');
        loop_soon(l, &p->soon, run_soon);
        if (p->close_in_readable) {
                io_close(io, REASON_DONE);
                return;
        }
        if (p->want == 0)
                return;
        p->last = io_read(io, p->want, NULL);
        if (p->keep)
                return;
        while (io->in.n > 0) {
                str s = buf_front(&io->in);
                p->hash = hash_bytes(p->hash, s);
                p->received += s.n;
                buf_drain(&io->in, s.n);
        }
}

/* Sends the pattern until the socket is full, with at most 256 KiB in out. */
static void feed(struct peer *p)
{
        char part[1000];

        while (p->sent < p->to_send && !p->io.writing && !p->io.failed) {
                while (p->sent < p->to_send && p->io.out.n < 256 * KIB) {
                        size_t n = MIN(sizeof(part), p->to_send - p->sent);
                        for (size_t i = 0; i < n; i++)
                                part[i] = pattern(p->sent + i);
                        buf_put(&p->io.out, part, n);
                        p->sent += n;
                }
                io_flush(&p->io);
        }
        if (p->sent == p->to_send)
                io_shutdown(&p->io);
}

static void on_drained(struct io *io)
{
        struct peer *p = (struct peer *)io;

        p->draineds++;
        assert_int_equal(io->out.n, 0);
        if (p->sent < p->to_send)
                feed(p);
}

static void on_ready(struct io *io, enum reason r)
{
        struct peer *p = (struct peer *)io;

        p->readies++;
        p->ready = r;
}

static const struct io_owner owner = {on_read, on_drained, on_ready};

static struct peer a, b;

static void set_nonblocking(int fd)
{
        assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
}

/* A connected TCP pair on loopback. */
static void tcp_pair(int fd[2])
{
        struct sockaddr_in sin = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        socklen_t len = sizeof(sin);
        int ls = socket(AF_INET, SOCK_STREAM, 0);

        assert_int_equal(bind(ls, (struct sockaddr *)&sin, len), 0);
        assert_int_equal(listen(ls, 1), 0);
        assert_int_equal(getsockname(ls, (struct sockaddr *)&sin, &len), 0);
        fd[0] = socket(AF_INET, SOCK_STREAM, 0);
        assert_int_equal(connect(fd[0], (struct sockaddr *)&sin, len), 0);
        fd[1] = accept(ls, NULL, NULL);
        assert_true(fd[1] >= 0);
        close(ls);
        set_nonblocking(fd[0]);
        set_nonblocking(fd[1]);
}

static void reset(int fd)
{
        struct linger lin = {.l_onoff = 1, .l_linger = 0};

        assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &lin, sizeof(lin)), 0);
        close(fd);
}

static int up(void **state UNUSED)
{
        l = loop_new(0, NULL);
        memset(&a, 0, sizeof(a));
        memset(&b, 0, sizeof(b));
        a.want = b.want = IO_TURN_MAX;
        return 0;
}

static int down(void **state UNUSED)
{
        if (a.io.magic)
                io_close(&a.io, REASON_DONE);
        if (b.io.magic)
                io_close(&b.io, REASON_DONE);
        io_linger_end(l);
        loop_free(l);
        io_thread_end();
        buf_thread_end();
        return 0;
}

static void test_size(void **state UNUSED)
{
        assert_true(sizeof(struct io) < 350);
}

static void test_message_both_ways(void **state UNUSED)
{
        int fd[2];

        tcp_pair(fd);
        io_open(&a.io, l, fd[0], &owner);
        io_open(&b.io, l, fd[1], &owner);
        buf_puts(&a.io.out, STR("ping"));
        io_flush(&a.io);
        assert_null(a.io.out.first);
        PUMP_UNTIL(l, b.received == 4);
        assert_int_equal(b.hash, hash_bytes(0, STR("ping")));
        buf_puts(&b.io.out, STR("pong!"));
        io_flush(&b.io);
        PUMP_UNTIL(l, a.received == 5);
        assert_null(a.io.in.first); /* idle: no chunk is held */
        assert_false(a.io.writing);
        assert_int_equal(a.draineds, 0); /* nothing was ever short */
}

static void transfer(int fd[2], size_t n, size_t want)
{
        io_open(&a.io, l, fd[0], &owner);
        io_open(&b.io, l, fd[1], &owner);
        b.want = want;
        a.to_send = n;
        feed(&a);
        PUMP_UNTIL(l, b.last == IO_EOF);
        assert_int_equal(b.received, n);
        assert_int_equal(b.hash, hash_pattern(n));
        assert_true(a.io.shut);
        assert_int_equal(io_unsent(&a.io), 0);
}

static void test_large_transfer_tcp(void **state UNUSED)
{
        int fd[2];

        tcp_pair(fd);
        transfer(fd, 20 * MIB, IO_TURN_MAX);
        assert_true(a.draineds > 0);
}

static void test_large_transfer_small_reads(void **state UNUSED)
{
        int fd[2];

        tcp_pair(fd);
        transfer(fd, 1 * MIB + 17, 1000);
}

static void test_large_transfer_unix(void **state UNUSED)
{
        int fd[2];

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
        transfer(fd, 5 * MIB + 1, IO_TURN_MAX);
}

static void test_drained_flag(void **state UNUSED)
{
        int fd[2];
        bool drained = true;

        tcp_pair(fd);
        io_open(&a.io, l, fd[0], &owner);
        a.want = 0;
        assert_int_equal(write(fd[1], "0123456789", 10), 10);
        PUMP_UNTIL(l, a.readables > 0);
        assert_int_equal(io_read(&a.io, 4, &drained), IO_OK);
        assert_false(drained);
        assert_int_equal(io_read(&a.io, 4096, &drained), IO_OK);
        assert_true(drained);
        assert_int_equal(a.io.in.n, 10);
        assert_int_equal(io_read(&a.io, 4096, &drained), IO_AGAIN);
        assert_true(drained);
        close(fd[1]);
}

static void test_pause_stops_reading_and_resume_goes_on(void **state UNUSED)
{
        int fd[2];

        tcp_pair(fd);
        io_open(&a.io, l, fd[0], &owner);
        io_pause(&a.io);
        assert_int_equal(write(fd[1], "xyz", 3), 3);
        PUMP_UNTIL(l, a.io.watching);
        pump_turns(l, 10);
        assert_int_equal(a.readables, 0);
        io_resume(&a.io);
        PUMP_UNTIL(l, a.received == 3);
        assert_true(a.io.reading && !a.io.watching);
        /* The watch costs nothing where no input came meanwhile. */
        io_pause(&a.io);
        pump_turns(l, 3);
        assert_true(a.io.reading);
        io_resume(&a.io);
        close(fd[1]);
}

static void test_back_pressure_bounds_the_sender(void **state UNUSED)
{
        int fd[2];
        uint64_t sent;

        tcp_pair(fd);
        io_open(&a.io, l, fd[0], &owner);
        io_open(&b.io, l, fd[1], &owner);
        io_pause(&b.io);
        a.to_send = 200 * MIB;
        feed(&a);
        PUMP_UNTIL(l, a.io.writing && b.io.watching);
        pump_turns(l, 50);
        sent = a.sent;
        pump_turns(l, 50);
        assert_int_equal(a.sent, sent);
        assert_true(a.sent < 64 * MIB);
        a.to_send = a.sent;
        io_resume(&b.io);
        PUMP_UNTIL(l, io_unsent(&a.io) == 0 && b.received == sent);
        assert_int_equal(b.hash, hash_pattern(sent));
}

static void test_half_close(void **state UNUSED)
{
        int fd[2];

        tcp_pair(fd);
        io_open(&a.io, l, fd[0], &owner);
        io_open(&b.io, l, fd[1], &owner);
        buf_puts(&a.io.out, STR("request"));
        io_shutdown(&a.io);
        PUMP_UNTIL(l, b.last == IO_EOF);
        assert_true(b.io.eof && !b.io.failed);
        assert_int_equal(b.received, 7);
        PUMP_UNTIL(l, b.io.watching); /* the level-triggered EOF does not spin */
        unsigned seen = b.readables;
        pump_turns(l, 20);
        assert_int_equal(b.readables, seen);
        buf_puts(&b.io.out, STR("answer"));
        io_flush(&b.io);
        PUMP_UNTIL(l, a.received == 6);
}

/* The peer resets: noticed while reading, while paused, and after its EOF. */
static void test_reset_while_reading(void **state UNUSED)
{
        int fd[2];

        tcp_pair(fd);
        io_open(&a.io, l, fd[0], &owner);
        reset(fd[1]);
        PUMP_UNTIL(l, a.readables > 0);
        assert_int_equal(a.last, IO_ERROR);
        assert_int_equal(a.io.error, ECONNRESET);
        assert_true(a.io.failed);
}

static void test_reset_while_paused(void **state UNUSED)
{
        int fd[2];

        tcp_pair(fd);
        io_open(&a.io, l, fd[0], &owner);
        io_pause(&a.io);
        assert_int_equal(write(fd[1], "data", 4), 4);
        PUMP_UNTIL(l, a.io.watching);
        pump_turns(l, 5);
        assert_int_equal(a.readables, 0);
        reset(fd[1]);
        PUMP_UNTIL(l, a.readables == 1);
        assert_true(a.io.failed);
        assert_int_equal(a.received, 4); /* what had come before is not lost */
        io_resume(&a.io);
        PUMP_UNTIL(l, a.last == IO_ERROR);
}

static void test_reset_after_eof(void **state UNUSED)
{
        int fd[2];

        tcp_pair(fd);
        io_open(&a.io, l, fd[0], &owner);
        assert_int_equal(shutdown(fd[1], SHUT_WR), 0);
        PUMP_UNTIL(l, a.last == IO_EOF && a.io.watching);
        unsigned seen = a.readables;
        reset(fd[1]);
        PUMP_UNTIL(l, a.readables > seen);
        assert_true(a.io.failed);
        assert_int_equal(a.last, IO_ERROR);
}

static void test_reset_while_paused_and_writing(void **state UNUSED)
{
        int fd[2];

        tcp_pair(fd);
        io_open(&a.io, l, fd[0], &owner);
        io_pause(&a.io);
        a.to_send = 200 * MIB;
        feed(&a);
        assert_int_equal(write(fd[1], "data", 4), 4);
        PUMP_UNTIL(l, a.io.writing && !a.io.reading);
        reset(fd[1]);
        PUMP_UNTIL(l, a.readables == 1);
        assert_true(a.io.failed);
        assert_null(a.io.out.first);
        assert_null(a.io.ev_write);
}

/* The server answered early and closed: our write fails, its answer is still read. */
static void test_early_answer_survives_a_failed_write(void **state UNUSED)
{
        int fd[2];

        tcp_pair(fd);
        io_open(&a.io, l, fd[0], &owner);
        io_pause(&a.io);
        assert_int_equal(write(fd[1], "413 too large", 13), 13);
        a.to_send = 4 * MIB;
        feed(&a);
        close(fd[1]); /* with unread bytes: a reset */
        PUMP_UNTIL(l, a.io.failed);
        io_resume(&a.io);
        PUMP_UNTIL(l, a.last == IO_ERROR);
        assert_int_equal(a.received, 13);
}

static void test_write_after_close_raises_no_signal(void **state UNUSED)
{
        int fd[2];

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
        io_open(&a.io, l, fd[0], &owner);
        close(fd[1]);
        buf_puts(&a.io.out, STR("x"));
        io_flush(&a.io);
        assert_true(a.io.failed);
        assert_int_equal(a.io.error, EPIPE);
        assert_int_equal(a.readables, 0); /* told later, not from inside the call */
        PUMP_UNTIL(l, a.readables > 0);
        assert_int_equal(a.last, IO_ERROR);
        io_flush(&a.io); /* harmless */
}

/* What is to be done soon is done before the next socket has its turn. */
static void test_soon_comes_before_the_next_socket(void **state UNUSED)
{
        struct loop_task task = {0};
        int fd[2], other[2];

        tcp_pair(fd);
        tcp_pair(other);
        io_open(&a.io, l, fd[0], &owner);
        io_open(&b.io, l, other[0], &owner);
        a.want = b.want = 1;
        assert_int_equal(write(fd[1], "x", 1), 1);
        assert_int_equal(write(other[1], "x", 1), 1);
        memset(order, 0, sizeof(order));
        loop_turn(l, true);
        loop_defer(l, &task, run_task);
        loop_turn(l, false);
        assert_string_equal(order, "rsrst");
        io_close(&a.io, REASON_DONE);
        io_close(&b.io, REASON_DONE);
        close(fd[1]);
        close(other[1]);
}

static void test_close_in_callback(void **state UNUSED)
{
        int fd[2];

        tcp_pair(fd);
        io_open(&a.io, l, fd[0], &owner);
        a.close_in_readable = true;
        a.to_send = 200 * MIB;
        feed(&a); /* both events are registered */
        assert_int_equal(write(fd[1], "x", 1), 1);
        PUMP_UNTIL(l, a.io.closed);
        assert_int_equal(a.readables, 1);
        memset(&a.io, 0, sizeof(a.io)); /* nobody may look at it again */
        pump_turns(l, 5);
        close(fd[1]);
}

static void test_close_drops_due_calls(void **state UNUSED)
{
        int fd[2];

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
        io_open(&a.io, l, fd[0], &owner);
        close(fd[1]);
        buf_puts(&a.io.out, STR("x"));
        io_flush(&a.io);
        assert_true(list_linked(&a.io.task.link));
        io_close(&a.io, REASON_CLIENT_GONE);
        memset(&a.io, 0, sizeof(a.io));
        pump_turns(l, 3);
        assert_int_equal(a.readables, 0);
}

/* ---- connect ---- */

static int listen_tcp(struct addr *at)
{
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

        assert_true(addr_parse(STR("127.0.0.1:0"), at));
        assert_int_equal(bind(fd, &at->sa, at->len), 0);
        assert_int_equal(getsockname(fd, &at->sa, &at->len), 0);
        assert_int_equal(listen(fd, 8), 0);
        return fd;
}

static void test_connect(void **state UNUSED)
{
        struct addr at;
        int ls = listen_tcp(&at), fd, one = 0;
        socklen_t len = sizeof(one);

        assert_int_equal(io_connect(&a.io, l, &at, &owner), REASON_NONE);
        buf_puts(&a.io.out, STR("early")); /* goes with the connect */
        io_flush(&a.io);
        assert_int_equal(a.readies, 0);
        PUMP_UNTIL(l, a.readies == 1);
        assert_int_equal(a.ready, REASON_NONE);
        assert_int_equal(getsockopt(a.io.fd, IPPROTO_TCP, TCP_NODELAY, &one, &len), 0);
        assert_int_not_equal(one, 0);
        fd = accept(ls, NULL, NULL);
        set_nonblocking(fd);
        io_open(&b.io, l, fd, &owner);
        PUMP_UNTIL(l, b.received == 5);
        buf_puts(&b.io.out, STR("answer"));
        io_flush(&b.io);
        PUMP_UNTIL(l, a.received == 6);
        assert_int_equal(a.readies, 1);
        close(ls);
}

static void test_connect_refused(void **state UNUSED)
{
        struct addr at;
        enum reason r;

        close(listen_tcp(&at)); /* a port where nobody listens any more */
        r = io_connect(&a.io, l, &at, &owner);
        if (r == REASON_NONE) {
                PUMP_UNTIL(l, a.readies == 1);
                r = a.ready;
        }
        assert_int_equal(r, REASON_CONNECT_FAILED);
        assert_int_equal(a.io.error, ECONNREFUSED);
        io_close(&a.io, r);
        io_close(&a.io, r);
}

static void test_connect_unix_absent(void **state UNUSED)
{
        struct addr at;

        assert_true(addr_parse(STR("unix:/nonexistent/socket"), &at));
        assert_int_equal(io_connect(&a.io, l, &at, &owner), REASON_CONNECT_FAILED);
        assert_true(a.io.closed);
        assert_int_equal(a.io.error, ENOENT);
        pump_turns(l, 3);
        assert_int_equal(a.readies, 0);
}

static void test_peek_and_skip(void **state UNUSED)
{
        int fd[2];
        char seen[32];

        tcp_pair(fd);
        io_open(&a.io, l, fd[0], &owner);
        a.want = 0;
        a.keep = true;
        assert_int_equal(io_peek(&a.io, seen, sizeof(seen)), 0);
        assert_int_equal(write(fd[1], "PROXY\r\nrest", 11), 11);
        PUMP_UNTIL(l, a.readables > 0);
        assert_int_equal(io_peek(&a.io, seen, sizeof(seen)), 11);
        assert_int_equal(io_peek(&a.io, seen, 4), 4);
        io_skip(&a.io, 7);
        assert_int_equal(io_read(&a.io, 100, NULL), IO_OK);
        assert_true(str_eq(buf_front(&a.io.in), STR("rest")));
        close(fd[1]);
        buf_clear(&a.io.in);
        PUMP_UNTIL(l, io_read(&a.io, 100, NULL) == IO_EOF);
}

/* ---- lingering ---- */

static void test_lingering_delivers_the_last_response(void **state UNUSED)
{
        int fd[2];
        size_t n = 3 * MIB;

        tcp_pair(fd);
        io_open(&b.io, l, fd[1], &owner);
        io_pause(&b.io);
        io_open(&a.io, l, fd[0], &owner);
        for (size_t i = 0; i < n; i++) {
                char c = pattern(i);
                buf_put(&a.io.out, &c, 1);
        }
        io_flush(&a.io);
        io_close_lingering(&a.io, REASON_BODY_MAX, 10 * SEC);
        assert_true(a.io.closed);
        assert_int_equal(io_lingering(l), 1);
        memset(&a.io, 0, sizeof(a.io));
        /* The client is still sending what nobody will read, which without lingering would be
         * answered by a reset. */
        buf_puts(&b.io.out, STR("more of the refused body"));
        io_flush(&b.io);
        pump_turns(l, 10);
        io_resume(&b.io);
        PUMP_UNTIL(l, b.last == IO_EOF);
        assert_int_equal(b.received, n);
        assert_int_equal(b.hash, hash_pattern(n));
        io_close(&b.io, REASON_DONE);
        PUMP_UNTIL(l, io_lingering(l) == 0);
}

static void test_lingering_ends_by_time(void **state UNUSED)
{
        int fd[2];

        tcp_pair(fd);
        io_open(&a.io, l, fd[0], &owner);
        io_close_lingering(&a.io, REASON_DONE, 30 * MSEC);
        assert_int_equal(io_lingering(l), 1);
        PUMP_UNTIL(l, io_lingering(l) == 0);
        close(fd[1]);
}

static void test_lingering_ends_by_bytes(void **state UNUSED)
{
        int fd[2];

        tcp_pair(fd);
        io_open(&a.io, l, fd[0], &owner);
        io_open(&b.io, l, fd[1], &owner);
        io_close_lingering(&a.io, REASON_DONE, 60 * SEC);
        b.to_send = 100 * MIB;
        feed(&b);
        PUMP_UNTIL(l, io_lingering(l) == 0);
        assert_true(b.sent < 64 * MIB);
}

static void test_lingering_after_eof_is_a_close(void **state UNUSED)
{
        int fd[2];

        tcp_pair(fd);
        io_open(&a.io, l, fd[0], &owner);
        shutdown(fd[1], SHUT_WR);
        PUMP_UNTIL(l, a.last == IO_EOF);
        io_close_lingering(&a.io, REASON_DONE, 60 * SEC);
        assert_int_equal(io_lingering(l), 0);
        assert_true(a.io.closed);
        close(fd[1]);
}

static void test_lingering_is_bounded(void **state UNUSED)
{
        struct io many;
        int fd[2];

        l->n_lingering = LINGER_MAX;
        tcp_pair(fd);
        io_open(&many, l, fd[0], &owner);
        io_close_lingering(&many, REASON_DONE, 60 * SEC);
        assert_true(many.closed);
        assert_int_equal(l->n_lingering, LINGER_MAX);
        l->n_lingering = 0;
        close(fd[1]);
}

/* ------------------------------------------------------------------ handshakes */

#define BURST 4

static struct peer burst[BURST];
static unsigned handshaken[BURST], n_handshaken;

/* Takes all that a turn has, and is through. */
static enum io_step slow_handshake(struct io *io, enum reason *why UNUSED)
{
        io->loop->handshake_us += HANDSHAKES_TURN;
        handshaken[n_handshaken++] = (unsigned)((struct peer *)io - burst);
        return IO_STEP_DONE;
}

static const struct io_type slow = {
        .read = io_plain_read,
        .send = io_plain_send,
        .handshake = slow_handshake,
        .pending = plain_pending,
        .unsent = plain_unsent,
        .release = plain_release,
};

static void open_burst(int other[BURST])
{
        memset(burst, 0, sizeof(burst));
        n_handshaken = 0;
        for (int i = 0; i < BURST; i++) {
                int fd[2];
                tcp_pair(fd);
                io_open(&burst[i].io, l, fd[0], &owner);
                io_set_type(&burst[i].io, &slow, false);
                other[i] = fd[1];
                assert_int_equal(send(other[i], "hello", 5, 0), 5);
        }
}

static void close_burst(const int other[BURST])
{
        for (int i = 0; i < BURST; i++) {
                if (!burst[i].io.closed)
                        io_close(&burst[i].io, REASON_DONE);
                close(other[i]);
        }
}

/* A turn is for one of them and for all who are through; those that wait come in their order. */
static void test_a_burst_of_handshakes_holds_nobody_up(void **state UNUSED)
{
        int other[BURST], fd[2];
        unsigned served = 0;

        tcp_pair(fd);
        io_open(&a.io, l, fd[0], &owner);
        open_burst(other);
        for (unsigned turn = 0; turn < BURST; turn++) {
                assert_int_equal(send(fd[1], "x", 1, 0), 1);
                loop_turn(l, true);
                assert_int_equal(n_handshaken, turn + 1);
                assert_int_equal(a.received, ++served);
        }
        for (unsigned i = 1; i + 1 < BURST; i++) /* in the order that the first turn saw them */
                assert_int_equal(handshaken[i + 1], (handshaken[i] + 1) % BURST);
        for (int i = 0; i < BURST; i++)
                assert_int_equal(burst[i].readies, 1);
        assert_int_equal(l->handshakes, 0);
        close_burst(other);
        close(fd[1]);
}

static void test_a_handshake_that_waits_can_be_closed(void **state UNUSED)
{
        int other[BURST];

        open_burst(other);
        loop_turn(l, true);
        assert_int_equal(n_handshaken, 1);
        for (unsigned i = 0; i < BURST; i++)
                if (burst[i].readies == 0)
                        io_close(&burst[i].io, REASON_DONE);
        for (int i = 0; i < 3; i++)
                loop_turn(l, false);
        assert_int_equal(n_handshaken, 1);
        assert_int_equal(l->handshakes, 0);
        close_burst(other);
}

#define T(f) cmocka_unit_test_setup_teardown(f, up, down)

int main(void)
{
        const struct CMUnitTest tests[] = {
                T(test_size),
                T(test_message_both_ways),
                T(test_large_transfer_tcp),
                T(test_large_transfer_small_reads),
                T(test_large_transfer_unix),
                T(test_drained_flag),
                T(test_pause_stops_reading_and_resume_goes_on),
                T(test_back_pressure_bounds_the_sender),
                T(test_half_close),
                T(test_reset_while_reading),
                T(test_reset_while_paused),
                T(test_reset_after_eof),
                T(test_reset_while_paused_and_writing),
                T(test_early_answer_survives_a_failed_write),
                T(test_write_after_close_raises_no_signal),
                T(test_soon_comes_before_the_next_socket),
                T(test_close_in_callback),
                T(test_close_drops_due_calls),
                T(test_connect),
                T(test_connect_refused),
                T(test_connect_unix_absent),
                T(test_peek_and_skip),
                T(test_lingering_delivers_the_last_response),
                T(test_lingering_ends_by_time),
                T(test_lingering_ends_by_bytes),
                T(test_lingering_after_eof_is_a_close),
                T(test_lingering_is_bounded),
                T(test_a_burst_of_handshakes_holds_nobody_up),
                T(test_a_handshake_that_waits_can_be_closed),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
