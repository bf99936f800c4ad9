/*
 * The Redis client against a scripted socket (what a bad server does) and against a real one (what
 * a good one does, stalls and restarts).
 */
#include "net/redis.c"
#include "net/redis_call.c"
#include "net/redis_name.c"

#include "pump.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static struct loop *l;
static struct redis *r;
static struct redis_conf conf;

/* ---- answers ---- */

struct seen {
        unsigned n;
        enum redis_type type;
        int fail;
        int64_t integer;
        char text[200];
        size_t elems;
};
static struct seen a, b, c;

static void see(const struct redis_reply *reply, void *arg)
{
        struct seen *s = arg;

        s->n++;
        s->type = reply->type;
        s->fail = reply->fail;
        s->integer = reply->integer;
        s->elems = reply->n;
        snprintf(s->text, sizeof(s->text), "%.*s", STR_ARG(reply->text));
}

static struct redis_call *cmd(struct seen *s, const char *words, int64_t timeout)
{
        str argv[16], rest = str_z(words);
        size_t n = 0;

        memset(s, 0, sizeof(*s));
        while (rest.n > 0)
                (void)str_cut(rest, ' ', &argv[n++], &rest);
        return redis_command(r, argv, n, timeout, see, s);
}

/* ---- a scripted server ---- */

static int ls = -1, fd = -1;
static char got[300000];
static size_t n_got;

static void fake_start(void)
{
        struct sockaddr_in sin = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        socklen_t len = sizeof(sin);

        ls = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        assert_int_equal(bind(ls, (struct sockaddr *)&sin, len), 0);
        assert_int_equal(listen(ls, 5), 0);
        assert_int_equal(getsockname(ls, (struct sockaddr *)&sin, &len), 0);
        memset(&conf.addr, 0, sizeof(conf.addr));
        conf.addr.in = sin;
        conf.addr.len = sizeof(sin);
}

static bool fake_accepted(void)
{
        fd = accept4(ls, NULL, NULL, SOCK_NONBLOCK);
        n_got = 0;
        return fd >= 0;
}

static bool fake_has(const char *bytes)
{
        ssize_t n = recv(fd, got + n_got, sizeof(got) - 1 - n_got, 0);

        if (n > 0)
                n_got += (size_t)n;
        got[n_got] = 0;
        return strstr(got, bytes) != NULL;
}

static void fake_expect(const char *bytes)
{
        PUMP_UNTIL(l, fake_has(bytes));
        n_got = 0;
}

static void fake_say(const char *bytes)
{
        assert_int_equal(send(fd, bytes, strlen(bytes), MSG_NOSIGNAL), strlen(bytes));
}

static void fake_hang_up(void)
{
        close(fd);
        fd = -1;
}

#define PING "*1\r\n$4\r\nPING\r\n"

static void fake_greet(void)
{
        PUMP_UNTIL(l, fake_accepted());
        fake_expect(PING);
        assert_false(redis_ready(r));
        fake_say("+PONG\r\n");
        PUMP_UNTIL(l, redis_ready(r));
}

static int up(void **state UNUSED)
{
        l = loop_new(0, NULL);
        conf = (struct redis_conf){
                .name = STR("main"), .connect_us = 5 * SEC, .command_us = 5 * SEC};
        return 0;
}

static int down(void **state UNUSED)
{
        if (r != NULL)
                redis_drop(r);
        r = NULL;
        PUMP_UNTIL(l, list_empty(&l->redises));
        loop_free(l);
        if (fd >= 0)
                close(fd);
        if (ls >= 0)
                close(ls);
        fd = ls = -1;
        redis_calls_thread_end();
        io_thread_end();
        arena_thread_end();
        buf_thread_end();
        return 0;
}

static void start(void)
{
        fake_start();
        r = redis_get(l, &conf);
        fake_greet();
}

static void test_pipeline(void **state UNUSED)
{
        start();
        cmd(&a, "GET x", 0);
        cmd(&b, "INCR y", 0);
        cmd(&c, "KEYS *", 0);
        assert_int_equal(recv(fd, got, sizeof(got), 0),
                         -1); /* nothing before the end of the turn */
        loop_turn(l, false);
        /* One write for all: what has come is everything. */
        ssize_t n = recv(fd, got, sizeof(got), 0);
        assert_int_equal(n, strlen("*2\r\n$3\r\nGET\r\n$1\r\nx\r\n*2\r\n$4\r\nINCR\r\n$1\r\ny\r\n"
                                   "*2\r\n$4\r\nKEYS\r\n$1\r\n*\r\n"));
        assert_int_equal(a.n, 0);
        fake_say("$3\r\nabc\r\n:7\r\n*2\r\n$1\r\na\r\n$");
        PUMP_UNTIL(l, b.n == 1);
        assert_int_equal(a.type, REDIS_STRING);
        assert_string_equal(a.text, "abc");
        assert_int_equal(b.type, REDIS_INTEGER);
        assert_int_equal(b.integer, 7);
        assert_int_equal(c.n, 0);
        fake_say("1\r\nb\r\n");
        PUMP_UNTIL(l, c.n == 1);
        assert_int_equal(c.type, REDIS_ARRAY);
        assert_int_equal(c.elems, 2);
        assert_int_equal(r->n_sent, 0);
}

static void test_commands_wait_for_the_greeting(void **state UNUSED)
{
        conf.user = STR("me");
        conf.password = STR("secret");
        conf.database = 3;
        fake_start();
        r = redis_get(l, &conf);
        cmd(&a, "GET x", 0);
        PUMP_UNTIL(l, fake_accepted());
        fake_expect(PING);
        assert_string_equal(got, "*3\r\n$4\r\nAUTH\r\n$2\r\nme\r\n$6\r\nsecret\r\n"
                                 "*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\n" PING);
        fake_say("+OK\r\n+OK\r\n");
        pump_turns(l, 10);
        assert_false(fake_has("GET"));
        fake_say("+PONG\r\n");
        fake_expect("GET");
        fake_say("$-1\r\n");
        PUMP_UNTIL(l, a.n == 1);
        assert_int_equal(a.type, REDIS_NIL);
}

static void test_refused_greeting(void **state UNUSED)
{
        conf.password = STR("wrong");
        fake_start();
        r = redis_get(l, &conf);
        cmd(&a, "SET x 1", 0);
        PUMP_UNTIL(l, fake_accepted());
        fake_expect(PING);
        fake_say("-WRONGPASS invalid\r\n+OK\r\n");
        PUMP_UNTIL(l, a.n == 1);
        assert_int_equal(a.type, REDIS_FAIL);
        assert_int_equal(a.fail, REDIS_UNAVAILABLE);
        assert_true(strstr(a.text, "AUTH: WRONGPASS") != NULL);
        assert_false(fake_has("SET")); /* never sent without having been let in */
        /* The circuit is open: nobody waits, and not inside the call either. */
        cmd(&b, "GET y", 0);
        assert_int_equal(b.n, 0);
        loop_turn(l, false);
        assert_int_equal(b.n, 1);
        assert_int_equal(b.fail, REDIS_UNAVAILABLE);
}

static void test_timeout_keeps_the_order(void **state UNUSED)
{
        start();
        cmd(&a, "GET slow", 20 * MSEC);
        cmd(&b, "GET next", 0);
        fake_expect("next");
        PUMP_UNTIL(l, a.n == 1);
        assert_int_equal(a.fail, REDIS_TIMEOUT);
        assert_int_equal(b.n, 0);
        fake_say("$4\r\nlate\r\n$4\r\nnext\r\n");
        PUMP_UNTIL(l, b.n == 1);
        assert_string_equal(b.text, "next");
        assert_int_equal(a.n, 1); /* its late reply told nobody */
        assert_int_equal(call_slab.live, 0);
}

static void test_cancel(void **state UNUSED)
{
        struct redis_call *sent, *unsent;

        fake_start();
        r = redis_get(l, &conf);
        unsent = cmd(&a, "SET gone 1", 0);
        redis_cancel(unsent);
        fake_greet();
        sent = cmd(&b, "GET b", 0);
        cmd(&c, "GET c", 0);
        loop_turn(l, false);
        redis_cancel(sent);
        fake_expect("$1\r\nc");
        assert_null(strstr(got, "gone"));
        fake_say("$1\r\n1\r\n$1\r\n2\r\n");
        PUMP_UNTIL(l, c.n == 1);
        assert_string_equal(c.text, "2");
        assert_int_equal(a.n + b.n, 0);
        /* One that has already failed but not been told. */
        r->open = true;
        unsent = cmd(&a, "GET a", 0);
        redis_cancel(unsent);
        pump_turns(l, 3);
        assert_int_equal(a.n, 0);
        r->open = false;
        assert_int_equal(call_slab.live, 0);
}

static void test_circuit_opens_on_timeouts_and_closes_again(void **state UNUSED)
{
        struct seen s[FAILURES_MAX];

        start();
        for (int i = 0; i < FAILURES_MAX; i++)
                cmd(&s[i], "GET x", 20 * MSEC);
        PUMP_UNTIL(l, r->open);
        PUMP_UNTIL(l, s[FAILURES_MAX - 1].n == 1);
        for (int i = 0; i < FAILURES_MAX; i++) {
                assert_int_equal(s[i].n, 1);
                assert_int_equal(s[i].fail, REDIS_TIMEOUT);
        }
        assert_false(redis_ready(r));
        cmd(&a, "GET x", 0);
        loop_turn(l, false);
        assert_int_equal(a.fail, REDIS_UNAVAILABLE);
        /* It comes back by itself, and the first failure then is enough. */
        close(fd);
        fake_greet();
        cmd(&a, "GET x", 20 * MSEC);
        PUMP_UNTIL(l, a.n == 1);
        assert_int_equal(a.fail, REDIS_TIMEOUT);
        assert_true(r->open);
        close(fd);
        fake_greet();
        cmd(&a, "GET x", 0);
        fake_expect("GET");
        fake_say(":1\r\n");
        PUMP_UNTIL(l, a.n == 1);
        assert_int_equal(a.integer, 1);
        assert_int_equal(r->failures, 0);
        assert_int_equal(r->backoff, 0);
}

static void test_half_of_many_opens_too(void **state UNUSED)
{
        start();
        l->now += 2 * WINDOW;
        for (int i = 0; i < 3; i++)
                redis_failed(r, "test");
        for (int i = 0; i < 14; i++) { /* never five in a row */
                redis_succeeded(r);
                redis_failed(r, "test");
                if (r->open)
                        break;
        }
        assert_true(r->open);
        assert_true(r->window_all >= WINDOW_MIN);
}

static void test_hang_up_ends_what_was_sent(void **state UNUSED)
{
        start();
        cmd(&a, "GET a", 0);
        fake_expect("GET");
        r->ready_at = INT64_MAX / 2; /* however long this test takes */
        fake_hang_up();
        PUMP_UNTIL(l, a.n == 1);
        assert_int_equal(a.fail, REDIS_CLOSED);
        assert_true(r->open); /* it did not live long */
        fake_greet();
        /* One that had lived is replaced at once, and what comes meanwhile waits for it. */
        r->ready_at -= 2 * REDIS_SETTLED;
        fake_hang_up();
        PUMP_UNTIL(l, r->state != READY);
        assert_false(r->open);
        cmd(&b, "GET b", 0);
        PUMP_UNTIL(l, fake_accepted());
        fake_expect(PING);
        fake_say("+PONG\r\n");
        fake_expect("GET");
        fake_say("+ok\r\n");
        PUMP_UNTIL(l, b.n == 1);
        assert_string_equal(b.text, "ok");
}

static void test_back_off_grows(void **state UNUSED)
{
        int64_t last = 0;

        fake_start();
        close(ls); /* nobody listens there now */
        ls = -1;
        r = redis_get(l, &conf);
        for (int i = 0; i < 3; i++) {
                PUMP_UNTIL(l, r->backoff > last);
                assert_int_equal(r->backoff, last ? last * 2 : BACKOFF_MIN);
                assert_true(deadline_armed(&r->retry_timer));
                assert_true(r->retry_timer.at - l->now <= r->backoff + 10 * MSEC);
                last = r->backoff;
        }
        r->backoff = BACKOFF_MAX;
        open_circuit(r);
        assert_int_equal(r->backoff, BACKOFF_MAX);
}

static void test_silent_server(void **state UNUSED)
{
        conf.connect_us = 30 * MSEC;
        fake_start();
        r = redis_get(l, &conf);
        cmd(&a, "GET a", 0);
        PUMP_UNTIL(l, a.n == 1);
        assert_int_equal(a.fail, REDIS_UNAVAILABLE);
        assert_true(strstr(a.text, "no answer to the greeting") != NULL);
}

static void test_script(void **state UNUSED)
{
        static const char sha[] = "0123456789012345678901234567890123456789";
        str words[] = {STR("key"), STR("arg")};

        start();
        memset(&a, 0, sizeof(a));
        redis_script(r, STR("return 1"), sha, words, 1, 2, 0, see, &a);
        fake_expect("*5\r\n$7\r\nEVALSHA\r\n$40\r\n0123456789012345678901234567890123456789\r\n"
                    "$1\r\n1\r\n$3\r\nkey\r\n$3\r\narg\r\n");
        fake_say("-NOSCRIPT No matching script.\r\n");
        fake_expect("*5\r\n$4\r\nEVAL\r\n$8\r\nreturn 1\r\n$1\r\n1\r\n$3\r\nkey\r\n$3\r\narg\r\n");
        assert_int_equal(a.n, 0);
        fake_say(":1\r\n");
        PUMP_UNTIL(l, a.n == 1);
        assert_int_equal(a.integer, 1);
        /* A server that does not know what it was just given is not asked for ever. */
        redis_script(r, STR("return 1"), sha, words, 1, 2, 0, see, &a);
        fake_expect("EVALSHA");
        fake_say("-NOSCRIPT No matching script.\r\n");
        fake_expect("EVAL\r\n$8");
        fake_say("-NOSCRIPT No matching script.\r\n");
        PUMP_UNTIL(l, a.n == 2);
        assert_int_equal(a.type, REDIS_ERROR);
}

static void test_nonsense(void **state UNUSED)
{
        start();
        cmd(&a, "GET a", 0);
        fake_expect("GET");
        fake_say("HTTP/1.1 400 Bad Request\r\n");
        PUMP_UNTIL(l, a.n == 1);
        assert_int_equal(a.fail, REDIS_CLOSED);
        fake_hang_up();
        fake_greet();
        fake_say("+unasked\r\n");
        PUMP_UNTIL(l, r->state == DOWN || r->state == CONNECTING);
        assert_true(strstr(r->why, "nobody asked for") != NULL);
}

static void test_readonly_connects_anew(void **state UNUSED)
{
        start();
        r->ready_at -= 2 * REDIS_SETTLED;
        cmd(&a, "SET a 1", 0);
        fake_expect("SET");
        fake_say("-READONLY You can't write against a read only replica.\r\n");
        PUMP_UNTIL(l, a.n == 1);
        assert_int_equal(a.type, REDIS_ERROR);
        fake_hang_up();
        fake_greet();
}

static void test_new_address(void **state UNUSED)
{
        struct addr to;
        int old;

        static const str nobody[] = {STR_INIT("127.0.0.1:9")};

        conf.host = STR("redis.test");
        conf.resolvers = nobody;
        conf.n_resolvers = 1;
        fake_start();
        conf.port = ntohs(conf.addr.in.sin_port);
        to = conf.addr;
        addr_set_port(&to, 0);
        memset(&conf.addr, 0, sizeof(conf.addr));
        r = redis_get(l, &conf);
        cmd(&a, "GET a", 0);
        loop_turn(l, false);
        assert_int_equal(a.fail, REDIS_UNAVAILABLE);
        assert_true(strstr(a.text, "redis.test ") != NULL);
        redis_set_addr(r, &to);
        cmd(&a, "GET a", 0); /* waits for the first connect */
        fake_greet();
        fake_expect("GET");
        /* The name moves while a command is out: it gets its answer, the next goes to the new
         * place. */
        old = fd;
        close(ls);
        fake_start();
        redis_set_addr(r, &conf.addr);
        cmd(&b, "GET b", 0);
        pump_turns(l, 5);
        fake_say("+old\r\n");
        PUMP_UNTIL(l, a.n == 1);
        assert_string_equal(a.text, "old");
        PUMP_UNTIL(l, fake_accepted());
        fake_expect(PING);
        fake_say("+PONG\r\n");
        fake_expect("GET");
        fake_say("+new\r\n");
        PUMP_UNTIL(l, b.n == 1);
        assert_string_equal(b.text, "new");
        close(old);
}

/* By name: found in the hosts file, whichever of its addresses the server has. */
static void test_by_name(void **state UNUSED)
{
        conf.host = STR("localhost");
        fake_start();
        conf.port = ntohs(conf.addr.in.sin_port);
        memset(&conf.addr, 0, sizeof(conf.addr));
        r = redis_get(l, &conf);
        fake_greet();
        assert_int_equal(addr_port(&r->addr), conf.port);
        assert_true(deadline_armed(&r->name_timer));
        cmd(&a, "GET a", 0);
        fake_expect("GET");
        fake_say("+1\r\n");
        PUMP_UNTIL(l, a.n == 1);
        /* It expires: asked for again, and the connection stays. */
        redis_name_failed(r);
        r->asked = INT64_MIN / 2;
        redis_name_failed(r);
        PUMP_UNTIL(l, !r->asking);
        assert_true(redis_ready(r));
}

static void test_name_that_does_not_resolve(void **state UNUSED)
{
        conf.host = STR("no such name");
        conf.port = 6379;
        r = redis_get(l, &conf);
        PUMP_UNTIL(l, r->name_retry != 0);
        assert_true(deadline_armed(&r->name_timer));
        cmd(&a, "GET a", 0);
        PUMP_UNTIL(l, a.n == 1);
        assert_int_equal(a.fail, REDIS_UNAVAILABLE);
        assert_true(strstr(a.text, "does not resolve") != NULL);
}

static void test_shared_and_dropped(void **state UNUSED)
{
        struct redis *again, *another;
        struct redis_conf other;

        start();
        again = redis_get(l, &conf);
        assert_ptr_equal(again, r);
        other = conf;
        other.database = 1;
        another = redis_get(l, &other);
        assert_ptr_not_equal(another, r);
        redis_drop(another);
        redis_drop(again);
        pump_turns(l, 3);
        assert_true(redis_ready(r));
        /* Dropped with a command out: it is answered first. */
        cmd(&a, "GET a", 0);
        cmd(&b, "GET b", 0);
        fake_expect("$1\r\nb");
        redis_drop(r);
        r = NULL;
        pump_turns(l, 3);
        assert_false(list_empty(&l->redises));
        fake_say("+1\r\n+2\r\n");
        PUMP_UNTIL(l, b.n == 1);
        PUMP_UNTIL(l, list_empty(&l->redises));
        assert_int_equal(a.n, 1);
}

static void drop_it(const struct redis_reply *reply UNUSED, void *arg)
{
        struct redis *mine = arg;

        ((struct seen *)&a)->n++;
        redis_drop(mine);
        r = NULL;
}

static void test_dropped_by_its_answer(void **state UNUSED)
{
        str get[] = {STR("GET"), STR("x")};

        start();
        a.n = 0;
        redis_command(r, get, 2, 0, drop_it, r);
        cmd(&b, "GET y", 30 * MSEC);
        fake_expect("$1\r\ny");
        fake_say("+1\r\n");
        PUMP_UNTIL(l, a.n == 1);
        PUMP_UNTIL(l, list_empty(&l->redises)); /* after b's deadline */
        assert_int_equal(b.n, 1);
        assert_int_equal(b.fail, REDIS_TIMEOUT);
}

static void test_waiting_is_bounded(void **state UNUSED)
{
        static struct seen many[WAITING_MAX + 1];

        conf.connect_us = 50 * MSEC;
        fake_start();
        r = redis_get(l, &conf);
        for (int i = 0; i <= WAITING_MAX; i++)
                cmd(&many[i], "GET x", 0);
        loop_turn(l, false);
        assert_int_equal(many[WAITING_MAX].n, 1);
        assert_int_equal(many[WAITING_MAX].fail, REDIS_UNAVAILABLE);
        assert_int_equal(many[0].n, 0);
}

/* ---- a real server ---- */

static char dir[] = "/tmp/weir-redis-XXXXXX";
static pid_t server;
static bool have_server;

static void server_start(void)
{
        char port[16], *argv[] = {"redis-server", "--port", port,    "--bind", "127.0.0.1",
                                  "--save",       "",       "--dir", dir,      "--loglevel",
                                  "warning",      NULL};

        snprintf(port, sizeof(port), "%u", addr_port(&conf.addr));
        server = fork();
        if (server == 0) {
                int null = open("/dev/null", O_WRONLY);
                dup2(null, 1);
                dup2(null, 2);
                execvp(argv[0], argv);
                _exit(127);
        }
        assert_true(server > 0);
}

static void server_kill(void)
{
        if (server > 0) {
                kill(server, SIGKILL);
                waitpid(server, NULL, 0);
        }
        server = 0;
}

static int real_up(void **state)
{
        up(state);
        fake_start(); /* for a free port */
        close(ls);
        ls = -1;
        conf.connect_us = 1 * SEC;
        conf.command_us = 2 * SEC;
        server_start();
        r = redis_get(l, &conf);
        PUMP_UNTIL(l, redis_ready(r));
        return 0;
}

static int real_down(void **state)
{
        server_kill();
        return down(state);
}

static void test_real_pipeline(void **state UNUSED)
{
        static unsigned char big[200000];
        str set[] = {STR("SET"), STR("big"), str_of(big, sizeof(big))};

        if (!have_server)
                skip();
        for (size_t i = 0; i < sizeof(big); i++)
                big[i] = (unsigned char)(i * 31);
        cmd(&a, "SET n 41", 0);
        cmd(&b, "INCR n", 0);
        cmd(&c, "NOSUCH command", 0);
        PUMP_UNTIL(l, c.n == 1);
        assert_string_equal(a.text, "OK");
        assert_int_equal(b.integer, 42);
        assert_int_equal(c.type, REDIS_ERROR);
        memset(&a, 0, sizeof(a));
        redis_command(r, set, 3, 0, see, &a);
        cmd(&b, "STRLEN big", 0);
        PUMP_UNTIL(l, b.n == 1);
        assert_int_equal(b.integer, sizeof(big));
        cmd(&a, "GET big", 0);
        PUMP_UNTIL(l, a.n == 1);
        assert_int_equal(a.type, REDIS_STRING);
}

static void test_real_script(void **state UNUSED)
{
        static const char text[] = "return redis.call('INCRBY', KEYS[1], ARGV[1])";
        uint8_t digest[20];
        char sha[40];
        str words[] = {STR("counter"), STR("5")};

        if (!have_server)
                skip();
        crypto_sha1(str_z(text), digest);
        crypto_hex(sha, digest, sizeof(digest));
        for (int64_t i = 1; i <= 3; i++) {
                memset(&a, 0, sizeof(a));
                redis_script(r, str_z(text), sha, words, 1, 2, 0, see, &a);
                PUMP_UNTIL(l, a.n == 1);
                assert_int_equal(a.type, REDIS_INTEGER);
                assert_int_equal(a.integer, 5 * i);
        }
        cmd(&b, "SCRIPT FLUSH", 0);
        memset(&a, 0, sizeof(a));
        redis_script(r, str_z(text), sha, words, 1, 2, 0, see, &a);
        PUMP_UNTIL(l, a.n == 1);
        assert_int_equal(a.integer, 20);
}

/* A stalled server: every caller is told at its deadline, the circuit opens, and closes when it
 * moves again. */
static void test_real_stall(void **state UNUSED)
{
        struct seen s[FAILURES_MAX + 2];

        if (!have_server)
                skip();
        cmd(&a, "PING", 0); /* a success: it takes all five failures from here */
        PUMP_UNTIL(l, a.n == 1);
        assert_int_equal(kill(server, SIGSTOP), 0);
        for (size_t i = 0; i < COUNT(s); i++)
                cmd(&s[i], "GET x", 30 * MSEC);
        for (size_t i = 0; i < COUNT(s); i++)
                PUMP_UNTIL(l, s[i].n == 1);
        assert_true(r->open);
        for (size_t i = 0; i < FAILURES_MAX; i++)
                assert_int_equal(s[i].fail, REDIS_TIMEOUT);
        cmd(&a, "GET x", 0);
        loop_turn(l, false);
        assert_int_equal(a.fail, REDIS_UNAVAILABLE);
        assert_int_equal(kill(server, SIGCONT), 0);
        PUMP_UNTIL(l, redis_ready(r));
        cmd(&a, "PING", 0);
        PUMP_UNTIL(l, a.n == 1);
        assert_string_equal(a.text, "PONG");
}

static void test_real_restart(void **state UNUSED)
{
        if (!have_server)
                skip();
        server_kill();
        PUMP_UNTIL(l, r->open);
        cmd(&a, "PING", 0);
        PUMP_UNTIL(l, a.n == 1);
        assert_int_equal(a.fail, REDIS_UNAVAILABLE);
        server_start();
        PUMP_UNTIL(l, redis_ready(r));
        cmd(&a, "PING", 0);
        PUMP_UNTIL(l, a.n == 1);
        assert_string_equal(a.text, "PONG");
}

#define T(f) cmocka_unit_test_setup_teardown(f, up, down)
#define REAL(f)                                                                                    \
        cmocka_unit_test_setup_teardown(f, have_server ? real_up : NULL,                           \
                                        have_server ? real_down : NULL)

int main(void)
{
        int failed_tests;

        have_server = system("command -v redis-server >/dev/null 2>&1") == 0;
        if (!have_server)
                print_message("redis-server is not installed: its tests are left out\n");
        if (mkdtemp(dir) == NULL)
                return 1;
        const struct CMUnitTest tests[] = {
                T(test_pipeline),
                T(test_commands_wait_for_the_greeting),
                T(test_refused_greeting),
                T(test_timeout_keeps_the_order),
                T(test_cancel),
                T(test_circuit_opens_on_timeouts_and_closes_again),
                T(test_half_of_many_opens_too),
                T(test_hang_up_ends_what_was_sent),
                T(test_back_off_grows),
                T(test_silent_server),
                T(test_script),
                T(test_nonsense),
                T(test_readonly_connects_anew),
                T(test_new_address),
                T(test_by_name),
                T(test_name_that_does_not_resolve),
                T(test_shared_and_dropped),
                T(test_dropped_by_its_answer),
                T(test_waiting_is_bounded),
                REAL(test_real_pipeline),
                REAL(test_real_script),
                REAL(test_real_stall),
                REAL(test_real_restart),
        };
        failed_tests = cmocka_run_group_tests(tests, NULL, NULL);
        rmdir(dir);
        return failed_tests;
}
