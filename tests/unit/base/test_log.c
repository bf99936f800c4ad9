/* The error log: what a line looks like, what it cannot contain, and a file that is swapped. */
#include "base/log.c"

#include "unit.h"

#include <pthread.h>
#include <stdlib.h>

static int out[2];
static str tapped;
static char tap_text[LOG_LINE];

static void tap(enum log_level level, str line)
{
        (void)level;
        memcpy(tap_text, line.p, line.n);
        tapped = str_of(tap_text, line.n);
}

/* One test, one pipe; the log ends in it. */
static int open_pipe(void **state)
{
        (void)state;
        assert_int_equal(pipe2(out, O_NONBLOCK), 0);
        log_to_fd(out[1], LOG_INFO);
        log_tap = tap;
        tapped = STR_NONE;
        return 0;
}

static int close_pipe(void **state)
{
        (void)state;
        close(out[0]);
        log_tap = NULL;
        return 0;
}

static char *line_read(void)
{
        static char text[2 * LOG_LINE];
        ssize_t n = read(out[0], text, sizeof(text) - 1);

        text[MAX(n, 0)] = '\0';
        return text;
}

static void looks_as_described(void **state)
{
        char *line;
        int y, mo, d, h, mi, s, ms, n = 0;
        time_t now = time(NULL);
        struct tm tm = {0};

        (void)state;
        log_warn("upstream users", "server %s is down", "10.0.0.1:8080");
        line = line_read();
        assert_int_equal(
                sscanf(line, "%4d-%2d-%2dT%2d:%2d:%2d.%3dZ %n", &y, &mo, &d, &h, &mi, &s, &ms, &n),
                7);
        assert_int_equal(n, 25);
        assert_string_equal(line + n, "warn  [upstream users] server 10.0.0.1:8080 is down\n");
        tm = (struct tm){.tm_year = y - 1900,
                         .tm_mon = mo - 1,
                         .tm_mday = d,
                         .tm_hour = h,
                         .tm_min = mi,
                         .tm_sec = s};
        assert_in_range(timegm(&tm), now - 1, now + 60);
        assert_memory_equal(tapped.p, line, tapped.n);
        assert_int_equal(line[tapped.n], '\n');
        log_error(NULL, "x");
        assert_string_equal(line_read() + 25, "error x\n");
}

static void levels(void **state)
{
        enum log_level level = LOG_ERROR;

        (void)state;
        log_debug(NULL, "not seen");
        assert_string_equal(line_read(), "");
        log_level = LOG_DEBUG;
        log_debug(NULL, "seen");
        assert_string_equal(line_read() + 25, "debug seen\n");
        assert_true(log_level_parse(STR("warn"), &level));
        assert_int_equal(level, LOG_WARN);
        assert_false(log_level_parse(STR("warning"), &level));
        assert_false(log_level_parse(STR(""), &level));
        assert_int_equal(level, LOG_WARN);
}

static void escapes_input(void **state)
{
        (void)state;
        log_info("client \n[x]", "a\r\nb\x1b[0m\x7f\tc \xc3\xa4");
        assert_string_equal(line_read() + 25,
                            "info  [client \\x0a[x]] a\\x0d\\x0ab\\x1b[0m\\x7f\\x09c \xc3\xa4\n");
}

static void fields(void **state)
{
        const struct log_field some[] = {
                {STR("path"), STR("/a/b.html")},
                {STR("absent"), STR_NONE},
                {STR("user agent"), STR("curl 7")},
                {STR("q"), STR("a\"b\\")},
                {STR("empty"), STR("")},
                {STR("nul"), str_of("\0", 1)},
                {STR("line"), STR("1\n2")},
                {STR("eq"), STR("a=b")},
                {STR("mail"), STR("a@b.test:25,c+d%")},
                {STR(""), STR("x")},
        };
        struct log_field many[200];
        char *line;

        (void)state;
        log_write_fields(LOG_WARN, "function f", STR("what\nwas"), some, COUNT(some));
        assert_string_equal(line_read() + 25,
                            "warn  [function f] what\\x0awas path=/a/b.html user_agent=\"curl 7\" "
                            "q=\"a\\\"b\\\\\" empty=\"\" nul=\"\\x00\" line=\"1\\x0a2\" "
                            "eq=\"a=b\" mail=a@b.test:25,c+d% =x\n");
        for (size_t i = 0; i < COUNT(many); i++)
                many[i] = (struct log_field){STR("name"), STR("two words")};
        log_write_fields(LOG_INFO, NULL, STR("m"), many, COUNT(many));
        line = line_read();
        assert_int_equal(strlen(line), LOG_LINE);
        assert_string_equal(line + LOG_LINE - 4, "...\n");
        log_write_fields(LOG_INFO, NULL, STR_NONE, many, 0);
        assert_string_equal(line_read() + 25, "info  \n");
}

static void cuts_long_lines(void **state)
{
        char text[3 * LOG_LINE], *line;

        (void)state;
        memset(text, 'x', sizeof(text) - 1);
        text[sizeof(text) - 1] = '\0';
        for (size_t from = sizeof(text) - LOG_LINE - 10; from < sizeof(text) - LOG_LINE + 60;
             from++) {
                size_t n, want = 25 + 6 + sizeof(text) - 1 - from;
                log_info(NULL, "%s", text + from);
                line = line_read();
                n = strlen(line);
                assert_true(n <= LOG_LINE);
                assert_int_equal(line[n - 1], '\n');
                assert_int_equal(strcmp(line + n - 4, "...\n") == 0, want + 1 > LOG_LINE);
                if (want + 1 <= LOG_LINE)
                        assert_int_equal(n, want + 1);
        }
        memset(text, '\n', LOG_LINE); /* each becomes four */
        log_info(text, "%s", text);
        line = line_read();
        assert_true(strlen(line) <= LOG_LINE);
        assert_string_equal(line + strlen(line) - 4, "...\n");
}

static void full_pipe_drops(void **state)
{
        uint64_t before = log_dropped();

        (void)state;
        for (int i = 0; i < 10000 && log_dropped() == before; i++)
                log_info(NULL, "%01000d", i);
        assert_true(log_dropped() > before);
        for (int i = 0; i < 5; i++)
                log_info(NULL, "more");
        assert_int_equal(log_dropped(), before + 6);
}

static void socket_does_not_block(void **state)
{
        uint64_t before = log_dropped();
        int pair[2];
        char byte;

        (void)state;
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
        log_to_fd(pair[0], LOG_INFO);
        log_info(NULL, "x");
        assert_int_equal(read(pair[1], &byte, 1), 1);
        for (int i = 0; i < 100000 && log_dropped() == before; i++)
                log_info(NULL, "%01000d", i);
        assert_true(log_dropped() > before);
        close(pair[1]);
        before = log_dropped();
        log_info(NULL, "nobody reads"); /* and no SIGPIPE */
        assert_int_equal(log_dropped(), before + 1);
}

/* In a child, whose standard error is the pipe: the log leaves it, comes back, and stays open. */
static void there_and_back(void *arg)
{
        FILE *file = tmpfile();

        (void)arg;
        dup2(target_fd, STDERR_FILENO); /* out[1] was taken over */
        target_fd = STDERR_FILENO;
        log_to_fd(STDERR_FILENO, LOG_INFO);
        if (!log_is_stderr())
                _exit(1);
        log_info(NULL, "one");
        log_to_fd(dup(fileno(file)), LOG_INFO);
        if (log_is_stderr())
                _exit(2);
        log_info(NULL, "two");
        log_to_fd(STDERR_FILENO, LOG_INFO);
        log_info(NULL, "three");
        if (fcntl(STDERR_FILENO, F_GETFD) < 0)
                _exit(3);
}

static void stderr_is_not_taken_over(void **state)
{
        char *text;

        (void)state;
        assert_int_equal(in_child(there_and_back, NULL), 0);
        text = line_read();
        assert_non_null(strstr(text, "info  one\n"));
        assert_null(strstr(text, "two"));
        assert_non_null(strstr(text, "info  three\n"));
}

static void *write_lines(void *arg)
{
        for (int i = 0; i < 5000; i++)
                log_info("thread", "%06d", *(int *)arg);
        return NULL;
}

static size_t lines_in(FILE *f)
{
        char line[LOG_LINE + 1];
        size_t n = 0;

        rewind(f);
        while (fgets(line, sizeof(line), f)) {
                assert_non_null(strstr(line, "Z info  [thread] 00000"));
                assert_int_equal(strlen(line), 25 + 6 + 9 + 6 + 1);
                n++;
        }
        return n;
}

/* No line is lost or torn while the file is replaced under the writers. */
static void reopened_while_writing(void **state)
{
        pthread_t threads[3];
        int ids[3] = {0, 1, 2};
        FILE *files[50];
        size_t n = 0;

        (void)state;
        log_tap = NULL;
        for (int i = 0; i < 50; i++)
                assert_non_null(files[i] = tmpfile());
        for (int i = 0; i < 50; i++)
                fcntl(fileno(files[i]), F_SETFL, O_APPEND);
        log_to_fd(dup(fileno(files[0])), LOG_INFO);
        for (int i = 0; i < 3; i++)
                assert_int_equal(pthread_create(&threads[i], NULL, write_lines, &ids[i]), 0);
        for (int i = 1; i < 50; i++)
                log_to_fd(dup(fileno(files[i])), LOG_INFO);
        for (int i = 0; i < 3; i++)
                pthread_join(threads[i], NULL);
        for (int i = 0; i < 50; i++) {
                n += lines_in(files[i]);
                fclose(files[i]);
        }
        assert_int_equal(n, 3 * 5000);
}

static void quota(void **state)
{
        struct log_quota q = {0};
        unsigned allowed = 0;

        (void)state;
        for (int i = 0; i < 50; i++)
                allowed += log_quota(&q, 10);
        assert_in_range(allowed, 10, 20); /* a second may have passed */
        assert_int_equal(line_read()[0] == '\0' || allowed > 10, 1);
        q = (struct log_quota){.window = -1, .dropped = 7};
        assert_true(log_quota(&q, 10));
        assert_non_null(strstr(line_read(), "7 lines like the next one were left out"));
        q = (struct log_quota){.window = -1, .dropped = 7};
        assert_true(log_quota_silent(&q, 1));
        assert_string_equal(line_read(), "");
        while (log_quota_silent(&q, 1)) /* a second may have passed */
                ;
        assert_int_equal(log_quota_missed(&q), 8);
        assert_int_equal(log_quota_missed(&q), 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(looks_as_described, open_pipe, close_pipe),
                cmocka_unit_test_setup_teardown(levels, open_pipe, close_pipe),
                cmocka_unit_test_setup_teardown(escapes_input, open_pipe, close_pipe),
                cmocka_unit_test_setup_teardown(fields, open_pipe, close_pipe),
                cmocka_unit_test_setup_teardown(fields, open_pipe, close_pipe),
                cmocka_unit_test_setup_teardown(cuts_long_lines, open_pipe, close_pipe),
                cmocka_unit_test_setup_teardown(full_pipe_drops, open_pipe, close_pipe),
                cmocka_unit_test_setup_teardown(socket_does_not_block, open_pipe, close_pipe),
                cmocka_unit_test_setup_teardown(stderr_is_not_taken_over, open_pipe, close_pipe),
                cmocka_unit_test_setup_teardown(quota, open_pipe, close_pipe),
                cmocka_unit_test_setup_teardown(reopened_while_writing, open_pipe, close_pipe),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
