/*
 * Accepting: how many, on which loop, and when not.
 *
 * The difficulty is running out.  A process without descriptors can neither take a client nor reach
 * a server for one it has, and a listening socket that is readable but cannot be accepted from
 * spins.  So the last descriptors are kept from clients, and a loop that may not accept takes its
 * listeners out until a connection closes (here, or elsewhere: looked at every 50 ms).
 */
#include "net/listen.h"

#include "base/crypto.h"
#include "base/log.h"

#include <errno.h>
#include <event2/event_struct.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define PER_TURN  16
#define STOP_MAX  65536 /* accepted from a backlog when a listener ends */
#define RETRY     (50 * MSEC)
#define HANDSHAKE 4 /* a handshake weighs as much as so many connections */

/* One listening socket on one loop.  Invariant: linked in loop->acceptors; its event is added
 * unless loop->accept_stopped. */
struct listen_accept {
        struct list link;
        struct event ev;
        struct loop *loop;
        int fd;
        listen_fn *fn;
        void *arg;
        unsigned n_peers;
        struct loop *peers[];
};

/* A connection on its way to another loop. */
struct hand_over {
        struct loop_msg msg;
        struct loop *to;
        int fd;
        struct addr peer;
        listen_fn *fn;
        void *arg;
};

/* ---- budget ---- */

static _Atomic uint64_t budget_used;
static _Atomic uint64_t budget_max = UINT64_MAX;
static _Atomic int fd_ceiling = INT32_MAX; /* descriptors from here on are the reserve */
static _Atomic bool fd_tight;              /* the last one accepted was in it */

void listen_budget(uint64_t max)
{
        struct rlimit lim;
        uint64_t files, reserve;

        CHECK(getrlimit(RLIMIT_NOFILE, &lim) == 0);
        if (lim.rlim_cur < lim.rlim_max) {
                struct rlimit raised = {lim.rlim_max, lim.rlim_max};
                if (setrlimit(RLIMIT_NOFILE, &raised) == 0)
                        lim = raised;
        }
        files = MIN((uint64_t)lim.rlim_cur, (uint64_t)INT32_MAX);
        reserve = MIN(files / 8, 512);
        atomic_store(&fd_ceiling, (int)(files - reserve));
        atomic_store(&budget_max, max != 0 ? max : MAX((files - reserve) / 2, 1));
}

uint64_t listen_connections(void)
{
        return atomic_load_explicit(&budget_used, memory_order_relaxed);
}

static bool budget_take(void)
{
        uint64_t max = atomic_load_explicit(&budget_max, memory_order_relaxed);

        if (atomic_fetch_add_explicit(&budget_used, 1, memory_order_relaxed) < max)
                return true;
        atomic_fetch_sub_explicit(&budget_used, 1, memory_order_relaxed);
        return false;
}

static void budget_give(void)
{
        atomic_fetch_sub_explicit(&budget_used, 1, memory_order_relaxed);
}

/* Whether the next descriptor would be one for clients. */
static bool descriptors_left(int any_fd)
{
        int ceiling = atomic_load_explicit(&fd_ceiling, memory_order_relaxed), fd;

        if (!atomic_load_explicit(&fd_tight, memory_order_relaxed))
                return true;
        fd = fcntl(any_fd, F_DUPFD_CLOEXEC, 0);
        if (fd < 0)
                return false;
        close(fd);
        if (fd >= ceiling)
                return false;
        atomic_store_explicit(&fd_tight, false, memory_order_relaxed);
        return true;
}

/* ---- stopping and resuming ---- */

static void listen_on(struct listen_accept *a)
{
        CHECK(event_add(&a->ev, NULL) == 0);
}

static void resume(struct loop *l)
{
        if (!l->accept_stopped)
                return;
        l->accept_stopped = false;
        deadline_clear(&l->accept_retry);
        LIST_EACH (n, &l->acceptors) {
                listen_on(CONTAINER_OF(n, struct listen_accept, link));
        }
}

static void on_retry(struct deadline *d)
{
        resume(CONTAINER_OF(d, struct loop, accept_retry));
}

static void stop(struct loop *l, const char *setting, uint64_t limit)
{
        static _Thread_local struct log_quota quota;

        if (l->accept_stopped)
                return;
        l->accept_stopped = true;
        LIST_EACH (n, &l->acceptors) {
                event_del(&CONTAINER_OF(n, struct listen_accept, link)->ev);
        }
        deadline_set(l, &l->accept_retry, RETRY, on_retry);
        if (l->metrics != NULL) {
                struct buf b = BUF_INIT;
                metric_label(&b, "setting", str_z(setting));
                metric_add(metric_series(l->metrics, METRIC_LIMIT_HITS, buf_pullup(&b, b.n)), 1);
                buf_clear(&b);
        }
        if (log_quota(&quota, 1))
                log_warn(NULL, "%s (%llu) is reached: accepting waits until a connection closes",
                         setting, (unsigned long long)limit);
}

/* ---- accepting ---- */

static uint32_t load(const struct loop *l)
{
        return atomic_load_explicit(&l->connections, memory_order_relaxed) +
               HANDSHAKE * atomic_load_explicit(&l->handshakes, memory_order_relaxed);
}

static void connections_add(struct loop *l, uint32_t n)
{
        atomic_store_explicit(&l->connections,
                              atomic_load_explicit(&l->connections, memory_order_relaxed) + n,
                              memory_order_relaxed);
}

static void deliver(struct loop *l, int fd, const struct addr *peer, listen_fn *fn, void *arg)
{
        connections_add(l, 1);
        fn(l, fd, peer, arg);
}

static void on_hand_over(struct loop_msg *m)
{
        struct hand_over h = *CONTAINER_OF(m, struct hand_over, msg);

        free(m);
        deliver(h.to, h.fd, &h.peer, h.fn, h.arg);
}

/* The better of two others, if this loop carries clearly more; else this one. */
static struct loop *choose(const struct listen_accept *a)
{
        struct loop *x, *y;
        uint32_t other;

        if (a->n_peers < 2)
                return a->loop;
        x = a->peers[crypto_fast_random() % a->n_peers];
        y = a->peers[crypto_fast_random() % a->n_peers];
        if (load(y) < load(x))
                x = y;
        other = load(x);
        return load(a->loop) > other + other / 4 + 4 ? x : a->loop;
}

static void place(struct listen_accept *a, int fd, const struct addr *peer)
{
        struct loop *to = choose(a);
        struct hand_over *h;

        if (to == a->loop) {
                deliver(to, fd, peer, a->fn, a->arg);
                return;
        }
        h = malloc(sizeof(*h));
        CHECK(h != NULL);
        *h = (struct hand_over){.msg = {.fn = on_hand_over},
                                .to = to,
                                .fd = fd,
                                .peer = *peer,
                                .fn = a->fn,
                                .arg = a->arg};
        loop_post(to, &h->msg);
}

/* Accepts one.  False: the backlog is empty, or accepting has stopped. */
static bool accept_one(struct listen_accept *a)
{
        struct addr peer = {.len = sizeof(peer) - offsetof(struct addr, sa)};
        int fd;

        if (!budget_take()) {
                stop(a->loop, "max_connections", atomic_load(&budget_max));
                return false;
        }
        if (!descriptors_left(a->fd)) {
                budget_give();
                stop(a->loop, "RLIMIT_NOFILE", (uint64_t)atomic_load(&fd_ceiling));
                return false;
        }
        fd = accept4(a->fd, &peer.sa, &peer.len, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
                if (fd >= atomic_load_explicit(&fd_ceiling, memory_order_relaxed))
                        atomic_store_explicit(&fd_tight, true, memory_order_relaxed);
                place(a, fd, &peer);
                return true;
        }
        budget_give();
        switch (errno) {
        case EAGAIN:
                return false;
        case EMFILE:
        case ENFILE:
        case ENOBUFS:
        case ENOMEM:
                stop(a->loop, "RLIMIT_NOFILE", (uint64_t)atomic_load(&fd_ceiling));
                return false;
        default: /* of the connection, not of the listener: ECONNABORTED and its kin (accept(2)) */
                return true;
        }
}

static void on_accept(evutil_socket_t fd UNUSED, short what UNUSED, void *arg)
{
        struct listen_accept *a = arg;

        loop_woke(a->loop);
        for (int i = 0; i < PER_TURN && !a->loop->accept_stopped; i++)
                if (!accept_one(a))
                        return;
}

struct listen_accept *listen_start(struct loop *l, int fd, struct loop **peers, unsigned n_peers,
                                   listen_fn *fn, void *arg)
{
        struct listen_accept *a = calloc(1, sizeof(*a) + n_peers * sizeof(a->peers[0]));
        int flags = fcntl(fd, F_GETFL), one = 1;

        CHECK(a != NULL && flags >= 0 && n_peers >= 1);
        if (!(flags & O_NONBLOCK))
                CHECK(fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0);
        /* Inherited by what is accepted; a socket that weir did not make may lack it.  Fails on
         * unix sockets. */
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        a->loop = l;
        a->fd = fd;
        a->fn = fn;
        a->arg = arg;
        a->n_peers = n_peers;
        memcpy(a->peers, peers, n_peers * sizeof(peers[0]));
        list_push(&l->acceptors, &a->link);
        event_assign(&a->ev, l->base, fd, EV_READ | EV_PERSIST, on_accept, a);
        if (!l->accept_stopped)
                listen_on(a);
        return a;
}

void listen_stop(struct listen_accept *a)
{
        for (int i = 0; i < STOP_MAX && accept_one(a); i++)
                ;
        event_del(&a->ev);
        list_remove(&a->link);
        free(a);
}

void listen_closed(struct loop *l)
{
        connections_add(l, (uint32_t)-1);
        budget_give();
        resume(l);
}

/* ---- making sockets ---- */

static int refuse(int fd, const struct addr *a, const char *what, char *err, size_t err_cap)
{
        char text[ADDR_TEXT];
        int error = errno;

        addr_print(a, text);
        snprintf(err, err_cap, "%s: %s%s%s", text, what, *what ? ": " : "", strerror(error));
        if (fd >= 0)
                close(fd);
        return -1;
}

/* A socket file that nobody listens on any more is in the way of a bind. */
static bool clear_stale(const struct addr *a)
{
        struct stat st;
        int fd, r;

        if (a->un.sun_path[0] == 0 || lstat(a->un.sun_path, &st) != 0)
                return true;
        errno = EADDRINUSE;
        if (!S_ISSOCK(st.st_mode))
                return false;
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (fd < 0)
                return false;
        r = connect(fd, &a->sa, a->len) == 0 || errno != ECONNREFUSED ? -1 : 0;
        close(fd);
        if (r == 0 && unlink(a->un.sun_path) == 0)
                return true;
        errno = EADDRINUSE;
        return false;
}

static int bound_socket(const struct addr *a, bool reuseport, bool v6only)
{
        int on = 1, only = v6only;
        int fd = socket(a->sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

        if (fd < 0)
                return -1;
        if (a->sa.sa_family != AF_UNIX &&
            (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
             setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) != 0 ||
             (reuseport && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) != 0) ||
             (a->sa.sa_family == AF_INET6 &&
              setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only, sizeof(only)) != 0)))
                goto fail;
        if (bind(fd, &a->sa, a->len) == 0)
                return fd;
fail:;
        int error = errno;
        close(fd);
        errno = error;
        return -1;
}

int listen_socket(const struct addr *a, int backlog, bool reuseport, bool v6only, bool ours,
                  char *err, size_t err_cap)
{
        int fd;

        if (a->sa.sa_family == AF_UNIX) {
                if (!clear_stale(a))
                        return refuse(-1, a, "", err, err_cap);
        } else if (reuseport && !ours && addr_port(a) != 0) {
                /* SO_REUSEPORT would quietly share the port with a stranger of the same user. */
                fd = bound_socket(a, false, v6only);
                if (fd < 0)
                        return refuse(-1, a, "", err, err_cap);
                close(fd);
        }
        fd = bound_socket(a, reuseport, v6only);
        if (fd < 0)
                return refuse(-1, a, "", err, err_cap);
        if (listen(fd, backlog > 0 ? backlog : SOMAXCONN) != 0)
                return refuse(fd, a, "listen", err, err_cap);
        return fd;
}
