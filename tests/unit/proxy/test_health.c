/*
 * Active checks against a server that does what the test says, over a real socket.
 */
#include "proxy/health.c"

#include "upstream_fixture.h"

#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

static struct upstream_conf conf;
static struct server *s;
static int listening = -1;
static pthread_t thread;
static const char *_Atomic answer; /* "": closes; NULL: says nothing */
static char asked[1024];
static _Atomic unsigned probes;

static void *serve(void *arg)
{
        int fd, quiet[64], n_quiet = 0;

        (void)arg;
        while ((fd = accept(listening, NULL, NULL)) >= 0) {
                const char *text = atomic_load(&answer);
                size_t n = 0;
                ssize_t r;

                if (!text && n_quiet < 64) {
                        quiet[n_quiet++] = fd;
                        atomic_fetch_add(&probes, 1);
                        continue;
                }
                while (n < sizeof(asked) - 1 &&
                       (r = read(fd, asked + n, sizeof(asked) - 1 - n)) > 0) {
                        n += (size_t)r;
                        asked[n] = '\0';
                        if (strstr(asked, "\r\n\r\n"))
                                break;
                }
                if (text && *text)
                        (void)!write(fd, text, strlen(text));
                close(fd);
                atomic_fetch_add(&probes, 1);
        }
        while (n_quiet > 0)
                close(quiet[--n_quiet]);
        return NULL;
}

static struct addr listen_somewhere(void)
{
        struct addr a;

        assert_true(addr_parse(STR("127.0.0.1:0"), &a));
        listening = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_true(listening >= 0);
        assert_int_equal(bind(listening, &a.sa, a.len), 0);
        assert_int_equal(listen(listening, 64), 0);
        assert_int_equal(getsockname(listening, &a.sa, &a.len), 0);
        return a;
}

static void server_goes(void)
{
        shutdown(listening, SHUT_RDWR);
        pthread_join(thread, NULL);
        close(listening);
        listening = -1;
}

static int up(void **state)
{
        char text[ADDR_TEXT];
        struct server_id id = {.upstream = STR("users")};

        process_up(state);
        id.addr = listen_somewhere();
        id.label = id.line = id.host = id.key = str_of(text, addr_print(&id.addr, text));
        atomic_store(&answer, "HTTP/1.1 200 OK\r\n\r\n");
        atomic_store(&probes, 0);
        assert_int_equal(pthread_create(&thread, NULL, serve, NULL), 0);
        s = server_new(us, &id);
        conf = (struct upstream_conf){
                .check_path = STR("/healthz?x=1"),
                .check_interval = 10 * MSEC,
                .check_timeout = 2 * SEC,
                .check_fall = 3,
                .check_rise = 2,
                .expect_min = 200,
                .expect_max = 399,
        };
        return 0;
}

static int down(void **state)
{
        health_stop(s);
        if (listening >= 0)
                server_goes();
        return process_down(state);
}

static bool is_down(void)
{
        return server_flags(s) & SERVER_CHECK_DOWN;
}

#define UNTIL(cond)                                                                                \
        do {                                                                                       \
                int64_t end_ = control->now + 10 * SEC;                                            \
                while (!(cond) && control->now < end_)                                             \
                        loop_turn(control, true);                                                  \
                assert_true(cond);                                                                 \
        } while (0)

static void it_falls_and_rises(void **state)
{
        (void)state;
        health_configure(s, &conf);
        UNTIL(probes >= 3);
        assert_false(is_down());
        assert_non_null(strstr(asked, "GET /healthz?x=1 HTTP/1.1\r\nHost: 127.0.0.1:"));
        assert_non_null(strstr(asked, "Connection: close\r\n\r\n"));
        atomic_store(&answer, "HTTP/1.1 500 Oh\r\n\r\n");
        UNTIL(is_down());
        assert_string_equal(s->health->why, "health check: status 500 is not in 200-399");
        assert_int_equal(s->health->failed, 3);
        atomic_store(&answer, "HTTP/1.0 204 No Content\r\n\r\n");
        UNTIL(!is_down());
        assert_int_equal(s->health->passed, 2);
}

static void only_what_comes_in_a_row_counts(void **state)
{
        static const struct {
                bool well, down;
        } steps[] = {
                {false, false}, {false, false}, {true, false},  {false, false},
                {false, false}, {false, true},  {true, true},   {false, true},
                {true, true},   {true, false},  {false, false},
        };

        (void)state;
        health_configure(s, &conf); /* fall=3 rise=2 */
        deadline_clear(&s->health->deadline);
        for (unsigned i = 0; i < COUNT(steps); i++) {
                judge(s->health, steps[i].well);
                assert_int_equal(is_down(), steps[i].down);
        }
}

struct bad {
        const char *says, *why;
};
static const struct bad bads[] = {
        {"HTTP/1.1 404 Not Found\r\n", "status 404 is not in"},
        {"HTTP/2 200\r\n", "not HTTP/1"},
        {"HTTP/1.1 2x0 OK\r\n", "not HTTP/1"},
        {"HTTP/1.1 2000 OK\r\n", "not HTTP/1"},
        {"SSH-2.0-OpenSSH\r\n", "not HTTP/1"},
        {"\n", "not HTTP/1"},
        {"HTTP/1.1 200", "closed the connection"},
        {"", "closed the connection"},
};

static void strange_answers_are_failures(void **state)
{
        (void)state;
        conf.check_fall = 1;
        conf.check_rise = 1;
        atomic_store(&answer, "HTTP/1.1 200 OK\r\n\r\n");
        health_configure(s, &conf);
        for (unsigned i = 0; i < COUNT(bads); i++) {
                UNTIL(s->health->passed == 1);
                atomic_store(&answer, bads[i].says);
                UNTIL(is_down());
                if (!strstr(s->health->why, bads[i].why))
                        fail_msg("%s: %s", bads[i].says, s->health->why);
                atomic_store(&answer, "HTTP/1.1 200 OK\r\n\r\n");
                UNTIL(!is_down());
        }
}

static void silence_has_an_end(void **state)
{
        (void)state;
        conf.check_fall = 1;
        conf.check_timeout = 20 * MSEC;
        atomic_store(&answer, NULL);
        health_configure(s, &conf);
        UNTIL(is_down());
        assert_string_equal(s->health->why, "health check timeout: no answer within 20 ms");
}

static void a_refused_connection_is_a_failure(void **state)
{
        (void)state;
        conf.check_fall = 1;
        server_goes();
        health_configure(s, &conf);
        UNTIL(is_down());
        assert_string_equal(s->health->why, "health check: connect: Connection refused");
}

static void without_a_path_connecting_is_enough(void **state)
{
        (void)state;
        conf.check_path = STR_NONE;
        conf.check_rise = 1;
        atomic_store(&answer, NULL);
        health_configure(s, &conf);
        UNTIL(s->health->passed == 1);
        assert_false(is_down());
}

static void taking_the_check_away_brings_it_up(void **state)
{
        (void)state;
        conf.check_fall = 1;
        atomic_store(&answer, "");
        health_configure(s, &conf);
        UNTIL(is_down());
        conf.check_interval = 0;
        health_configure(s, &conf);
        assert_null(s->health);
        assert_false(is_down());
}

static void it_stops_in_the_middle_of_a_probe(void **state)
{
        (void)state;
        atomic_store(&answer, NULL);
        health_configure(s, &conf);
        UNTIL(s->health->probing);
        health_stop(s);
        loop_turn(control, false);
        assert_null(s->health);
}

static void intervals_are_jittered(void **state)
{
        int64_t low = INT64_MAX, high = 0;

        (void)state;
        for (int i = 0; i < 1000; i++) {
                int64_t t = jitter(10 * SEC);
                low = MIN(low, t);
                high = MAX(high, t);
        }
        assert_true(low >= 9 * SEC && low < 9 * SEC + 200 * MSEC);
        assert_true(high <= 11 * SEC && high > 11 * SEC - 200 * MSEC);
}

#define HEALTH_TEST(f) cmocka_unit_test_setup_teardown(f, up, down)

int main(void)
{
        const struct CMUnitTest tests[] = {
                HEALTH_TEST(it_falls_and_rises),
                HEALTH_TEST(only_what_comes_in_a_row_counts),
                HEALTH_TEST(strange_answers_are_failures),
                HEALTH_TEST(silence_has_an_end),
                HEALTH_TEST(a_refused_connection_is_a_failure),
                HEALTH_TEST(without_a_path_connecting_is_enough),
                HEALTH_TEST(taking_the_check_away_brings_it_up),
                HEALTH_TEST(it_stops_in_the_middle_of_a_probe),
                HEALTH_TEST(intervals_are_jittered),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
