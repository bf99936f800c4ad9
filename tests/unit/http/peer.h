/*
 * What the tests of both codecs share: the other end of a connection, scripted byte by byte, and
 * turning the loop until what it received is there.
 */
#ifndef TESTS_HTTP_PEER_H
#define TESTS_HTTP_PEER_H

#include "../base/unit.h"

#include "../net/pump.h"

#include "base/buf.h"
#include "net/io.h"
#include "net/listen.h"

#include <errno.h>
#include <sys/socket.h>

static struct loop *loop;
static unsigned closed_connections;

/* In place of the accepting side: counts what it is told. */
void listen_closed(struct loop *l UNUSED)
{
        closed_connections++;
}

/* The far end of a socket pair.  got: all bytes received; eof, reset: how it ended. */
struct peer {
        int fd;
        struct buf got;
        bool eof, reset;
        uint64_t total;
        bool discard; /* count bytes, do not keep them */
};

static void peer_read(struct peer *p, size_t most)
{
        char bytes[65536];
        while (most > 0 && !p->eof && !p->reset) {
                ssize_t n = recv(p->fd, bytes, MIN(most, sizeof(bytes)), MSG_DONTWAIT);
                if (n < 0 && errno == EAGAIN)
                        return;
                p->reset = n < 0;
                p->eof = n == 0;
                if (n <= 0)
                        return;
                if (!p->discard)
                        buf_put(&p->got, bytes, (size_t)n);
                p->total += (uint64_t)n;
                most -= (size_t)n;
        }
}

static UNUSED void peer_send(struct peer *p, str s)
{
        assert_int_equal(send(p->fd, s.p, s.n, MSG_NOSIGNAL), s.n);
}

#define SEND(p, lit) peer_send((p), str_of("" lit, sizeof(lit) - 1))

static str peer_text(struct peer *p)
{
        return buf_pullup(&p->got, p->got.n);
}

static UNUSED bool peer_has(struct peer *p, const char *text)
{
        peer_read(p, SIZE_MAX);
        return str_find(peer_text(p), str_z(text)) >= 0;
}

static UNUSED bool peer_ended(struct peer *p)
{
        peer_read(p, SIZE_MAX);
        return p->eof || p->reset;
}

/* Waits for text to arrive, and drops all up to its end. */
#define EXPECT(p, text)                                                                            \
        do {                                                                                       \
                PUMP_UNTIL(loop, peer_has((p), (text)) || peer_ended(p));                          \
                ptrdiff_t at_ = str_find(peer_text(p), str_z(text));                               \
                if (at_ < 0)                                                                       \
                        fail_msg("no \"%s\" in: %.*s", (text), STR_ARG(peer_text(p)));             \
                buf_drain(&(p)->got, (size_t)at_ + strlen(text));                                  \
        } while (0)

#define EXPECT_END(p) PUMP_UNTIL(loop, peer_ended(p))

static UNUSED void peer_close(struct peer *p)
{
        if (p->fd >= 0)
                close(p->fd);
        p->fd = -1;
        buf_clear(&p->got);
}

/* A connected pair over loopback TCP, so that resets and half-closes are real. */
static UNUSED void tcp_pair(int fd[2])
{
        struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
        socklen_t len = sizeof(a);
        int l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(bind(l, (struct sockaddr *)&a, len), 0);
        assert_int_equal(listen(l, 1), 0);
        getsockname(l, (struct sockaddr *)&a, &len);
        fd[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        assert_true(connect(fd[0], (struct sockaddr *)&a, len) == 0 || errno == EINPROGRESS);
        fd[1] = accept4(l, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        assert_true(fd[1] >= 0);
        close(l);
}

static UNUSED void peer_reset(struct peer *p)
{
        struct linger hard = {.l_onoff = 1};
        setsockopt(p->fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
        peer_close(p);
}

#endif
