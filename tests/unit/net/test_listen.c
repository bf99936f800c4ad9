/*
 * Accepting: the budget and the reserve, stopping and resuming, the backlog of a listener that
 * ends, other loops, and making sockets.
 */
#include "net/listen.c"

#include "pump.h"

#include <arpa/inet.h>
#include <pthread.h>

static struct loop *l;
static struct addr at;
static int ls;

#define MAX_SEEN 256
static int seen[MAX_SEEN];
static _Atomic unsigned n_seen;
static struct addr last_peer;

static void on_connection(struct loop *loop, int fd, const struct addr *peer, void *arg)
{
        assert_ptr_equal(arg, &n_seen);
        assert_ptr_equal(loop, l);
        seen[n_seen++] = fd;
        last_peer = *peer;
}

static int new_listener(const char *text, struct addr *out)
{
        char err[200] = "";
        int fd;

        assert_true(addr_parse(str_z(text), out));
        fd = listen_socket(out, 100, false, false, false, err, sizeof(err));
        if (fd < 0)
                fail_msg("%s", err);
        out->len = sizeof(*out) - offsetof(struct addr, sa);
        assert_int_equal(getsockname(fd, &out->sa, &out->len), 0);
        return fd;
}

static int up(void **state UNUSED)
{
        l = loop_new(0, NULL);
        n_seen = 0;
        atomic_store(&budget_max, UINT64_MAX);
        atomic_store(&fd_ceiling, INT32_MAX);
        atomic_store(&fd_tight, false);
        ls = new_listener("127.0.0.1:0", &at);
        return 0;
}

static void close_one(unsigned i)
{
        close(seen[i]);
        listen_closed(l);
}

static int down(void **state UNUSED)
{
        close(ls);
        deadline_clear(&l->accept_retry);
        loop_free(l);
        assert_int_equal(listen_connections(), 0);
        return 0;
}

static int client(void)
{
        int fd = socket(AF_INET, SOCK_STREAM, 0);

        assert_int_equal(connect(fd, &at.sa, at.len), 0);
        return fd;
}

static void test_accepts(void **state UNUSED)
{
        struct listen_accept *a = listen_start(l, ls, &l, 1, on_connection, &n_seen);
        struct addr me = {.len = sizeof(me) - offsetof(struct addr, sa)};
        int c = client(), one = 0;
        socklen_t len = sizeof(one);

        PUMP_UNTIL(l, n_seen == 1);
        assert_int_equal(getsockname(c, &me.sa, &me.len), 0);
        assert_true(addr_equal(&me, &last_peer));
        assert_true(fcntl(seen[0], F_GETFL) & O_NONBLOCK);
        assert_true(fcntl(seen[0], F_GETFD) & FD_CLOEXEC);
        assert_int_equal(getsockopt(seen[0], IPPROTO_TCP, TCP_NODELAY, &one, &len), 0);
        assert_int_not_equal(one, 0);
        assert_int_equal(atomic_load(&l->connections), 1);
        assert_int_equal(listen_connections(), 1);
        close_one(0);
        assert_int_equal(atomic_load(&l->connections), 0);
        close(c);
        listen_stop(a);
}

static void test_a_turn_takes_sixteen(void **state UNUSED)
{
        struct listen_accept *a = listen_start(l, ls, &l, 1, on_connection, &n_seen);
        int c[20];

        for (size_t i = 0; i < COUNT(c); i++)
                c[i] = client();
        while (n_seen == 0)
                loop_turn(l, true);
        assert_int_equal(n_seen, PER_TURN);
        PUMP_UNTIL(l, n_seen == COUNT(c));
        for (unsigned i = 0; i < COUNT(c); i++) {
                close_one(i);
                close(c[i]);
        }
        listen_stop(a);
}

static void test_max_connections(void **state UNUSED)
{
        struct listen_accept *a = listen_start(l, ls, &l, 1, on_connection, &n_seen);
        int c[4];

        listen_budget(2);
        for (size_t i = 0; i < COUNT(c); i++)
                c[i] = client(); /* the kernel takes all of them */
        PUMP_UNTIL(l, l->accept_stopped);
        pump_turns(l, 20);
        assert_int_equal(n_seen, 2);
        close_one(0);
        assert_false(l->accept_stopped);
        PUMP_UNTIL(l, n_seen == 3 && l->accept_stopped);
        /* A connection of another loop closes: noticed by looking again. */
        close(seen[1]);
        connections_add(l, (uint32_t)-1);
        budget_give();
        PUMP_UNTIL(l, n_seen == 4);
        close_one(2);
        close_one(3);
        for (size_t i = 0; i < COUNT(c); i++)
                close(c[i]);
        listen_stop(a);
}

static void test_reserve_of_descriptors(void **state UNUSED)
{
        struct listen_accept *a = listen_start(l, ls, &l, 1, on_connection, &n_seen);
        int c[3], probe = dup(0);

        for (size_t i = 0; i < COUNT(c); i++)
                c[i] = client();
        close(probe);
        /* Room for one more below the reserve, whatever is open in this process. */
        atomic_store(&fd_ceiling, fcntl(ls, F_DUPFD, 0));
        close(atomic_load(&fd_ceiling));
        PUMP_UNTIL(l, l->accept_stopped);
        assert_int_equal(n_seen, 1); /* the one that showed it is served, no other taken */
        pump_turns(l, 20);
        assert_int_equal(n_seen, 1);
        atomic_store(&fd_ceiling, INT32_MAX);
        PUMP_UNTIL(l, n_seen == 3);
        assert_false(atomic_load(&fd_tight));
        for (unsigned i = 0; i < COUNT(c); i++) {
                close_one(i);
                close(c[i]);
        }
        listen_stop(a);
}

static void test_budget_from_the_limit(void **state UNUSED)
{
        struct rlimit lim;

        listen_budget(0);
        assert_int_equal(getrlimit(RLIMIT_NOFILE, &lim), 0);
        assert_int_equal(lim.rlim_cur, lim.rlim_max);
        assert_true(atomic_load(&budget_max) >= 1 && atomic_load(&budget_max) <= lim.rlim_cur / 2);
        assert_true((uint64_t)atomic_load(&fd_ceiling) < lim.rlim_cur);
        listen_budget(5);
        assert_int_equal(atomic_load(&budget_max), 5);
}

static void test_stop_takes_the_backlog(void **state UNUSED)
{
        struct listen_accept *a = listen_start(l, ls, &l, 1, on_connection, &n_seen);
        int c[40];

        for (size_t i = 0; i < COUNT(c); i++)
                c[i] = client();
        assert_int_equal(n_seen, 0);
        listen_stop(a);
        assert_int_equal(n_seen, COUNT(c));
        int late = client();
        pump_turns(l, 10);
        assert_int_equal(n_seen, COUNT(c));
        close(late);
        for (unsigned i = 0; i < COUNT(c); i++) {
                close_one(i);
                close(c[i]);
        }
}

/* ---- two loops ---- */

static struct loop *other;
static _Atomic unsigned here, there;

static void on_either(struct loop *loop, int fd, const struct addr *peer, void *arg UNUSED)
{
        assert_int_not_equal(peer->len, 0);
        if (loop_self == other)
                assert_ptr_equal(loop, other);
        atomic_fetch_add(loop == other ? &there : &here, 1);
        close(fd);
        /* The connection counts on: the loads must even out. */
}

static void *run_other(void *arg UNUSED)
{
        loop_run(other);
        return NULL;
}

static void stop_other(struct loop_msg *m UNUSED)
{
        loop_stop(loop_self);
}

static void test_hands_over(void **state UNUSED)
{
        struct loop *both[2];
        struct listen_accept *a;
        struct loop_msg bye = {.fn = stop_other};
        pthread_t t;

        here = there = 0;
        other = loop_new(1, NULL);
        both[0] = l;
        both[1] = other;
        assert_int_equal(pthread_create(&t, NULL, run_other, NULL), 0);
        a = listen_start(l, ls, both, 2, on_either, NULL);
        for (unsigned i = 1; i <= 60; i++) {
                int c = client();
                PUMP_UNTIL(l, here + there == i);
                close(c);
        }
        listen_stop(a);
        loop_post(other, &bye);
        pthread_join(t, NULL);
        assert_true(there >= 15 && here >= 15);
        assert_int_equal(atomic_load(&l->connections), here);
        assert_int_equal(atomic_load(&other->connections), there);
        for (unsigned i = 0; i < here; i++)
                listen_closed(l);
        for (unsigned i = 0; i < there; i++)
                listen_closed(other);
        loop_free(other);
}

/* ---- sockets ---- */

static int try_socket(const struct addr *a, bool reuseport, bool ours, const char *why)
{
        char err[200] = "";
        int fd = listen_socket(a, 10, reuseport, false, ours, err, sizeof(err));

        if (fd < 0 && (why == NULL || strstr(err, why) == NULL))
                fail_msg("unexpected: %s", err);
        if (fd >= 0 && why != NULL)
                fail_msg("should have failed: %s", why);
        return fd;
}

static void test_address_in_use(void **state UNUSED)
{
        struct addr shared;
        int first, second;

        try_socket(&at, false, false, "Address already in use");
        try_socket(&at, true, false, "Address already in use");
        /* A stranger that would share the port is a stranger all the same. */
        assert_true(addr_parse(STR("127.0.0.1:0"), &shared));
        first = try_socket(&shared, true, false, NULL);
        assert_int_equal(getsockname(first, &shared.sa, &shared.len), 0);
        try_socket(&shared, true, false, "Address already in use");
        second = try_socket(&shared, true, true, NULL);
        close(first);
        close(second);
        assert_true(addr_parse(STR("203.0.113.7:80"), &shared));
        try_socket(&shared, false, false, "203.0.113.7:80: Cannot assign");
}

static void test_unix_sockets(void **state UNUSED)
{
        char dir[] = "/tmp/weir-test-XXXXXX", text[100];
        struct addr a;
        int fd, again;

        assert_non_null(mkdtemp(dir));
        snprintf(text, sizeof(text), "unix:%s/s", dir);
        assert_true(addr_parse(str_z(text), &a));
        fd = try_socket(&a, false, false, NULL);
        try_socket(&a, false, false, "Address already in use"); /* somebody listens */
        close(fd);
        again = try_socket(&a, false, false, NULL); /* the file of a dead one does not matter */
        close(again);
        unlink(a.un.sun_path);
        fd = open(a.un.sun_path, O_CREAT | O_WRONLY, 0600);
        close(fd);
        try_socket(&a, false, false, "Address already in use"); /* no socket: not ours to remove */
        assert_int_equal(unlink(a.un.sun_path), 0);
        assert_int_equal(rmdir(dir), 0);
}

#define T(f) cmocka_unit_test_setup_teardown(f, up, down)

int main(void)
{
        const struct CMUnitTest tests[] = {
                T(test_accepts),
                T(test_a_turn_takes_sixteen),
                T(test_max_connections),
                T(test_reserve_of_descriptors),
                T(test_budget_from_the_limit),
                T(test_stop_takes_the_backlog),
                T(test_hands_over),
                T(test_address_in_use),
                T(test_unix_sockets),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
