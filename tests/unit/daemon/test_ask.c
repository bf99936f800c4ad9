/* The words of the control socket, and the asking side against a scripted one. */
#include "daemon/ask.c"

#include "../base/unit.h"

#include <stdlib.h>

static void commands_are_understood(void **state)
{
        static const char *const words[] = {"reload", "reopen", "drain",     "quit",
                                            "stop",   "status", "functions", "functions json"};
        struct ask_words w;

        (void)state;
        for (size_t i = 0; i < COUNT(words); i++) {
                assert_true(ask_parse(str_z(words[i]), &w));
                assert_int_equal(w.verb, i);
        }
        assert_true(ask_parse(STR("reload"), &w));
        assert_int_equal(w.terms.share, 0);
        assert_true(ask_parse(STR("server users 10.0.0.1:80 drain"), &w));
        assert_int_equal(w.verb, ASK_SERVER);
        ASSERT_STR(w.upstream, "users");
        ASSERT_STR(w.server, "10.0.0.1:80");
        ASSERT_STR(w.state, "drain");
        assert_true(ask_parse(STR("functions clear jwt"), &w));
        assert_int_equal(w.verb, ASK_CLEAR);
        ASSERT_STR(w.name, "jwt");
}

static void terms_of_a_canary_arrive(void **state)
{
        struct canary_terms t = {.share = 50000, .period = 90 * SEC, .tolerance = 1};
        struct arena *a = arena_new(0);
        struct ask_words w;

        (void)state;
        assert_true(ask_parse(ask_canary_line(&t, a), &w));
        assert_int_equal(w.verb, ASK_RELOAD);
        assert_int_equal(w.terms.share, t.share);
        assert_int_equal(w.terms.period, t.period);
        assert_int_equal(w.terms.tolerance, t.tolerance);
        arena_free(a);
}

static void nonsense_is_refused(void **state)
{
        static const char *const lines[] = {"",
                                            "reload ",
                                            " reload",
                                            "RELOAD",
                                            "reloads",
                                            "reload canary",
                                            "reload canary ",
                                            "reload canary 50000",
                                            "reload canary 50000 1000000",
                                            "reload canary 0 1000000 0",
                                            "reload canary 1000000 1000000 0",
                                            "reload canary 50000 999999 0",
                                            "reload canary 50000 86400000001 0",
                                            "reload canary 50000 1000000 1000001",
                                            "reload canary 50000 1000000 0 0",
                                            "reload canary -1 1000000 0",
                                            "server",
                                            "server ",
                                            "server u",
                                            "server u a",
                                            "server u a sideways",
                                            "server  a up",
                                            "server u  up",
                                            "server u a up more",
                                            "server u\ta up",
                                            "functions ",
                                            "functions clear",
                                            "functions clear ",
                                            "functions clear a b",
                                            "functions clear\ta",
                                            "functions jsn",
                                            "\1"};
        struct ask_words w = {.verb = ASK_STOP};

        (void)state;
        for (size_t i = 0; i < COUNT(lines); i++) {
                assert_false(ask_parse(str_z(lines[i]), &w));
                assert_int_equal(w.verb, ASK_STOP);
        }
        assert_false(ask_parse(str_of("reload\0x", 8), &w));
}

/* Answers one connection on path with text, in a child; what it was asked must be line. */
static pid_t script(const char *path, const char *line, const char *text)
{
        struct sockaddr_un a = {.sun_family = AF_UNIX};
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);
        pid_t pid;

        strcpy(a.sun_path, path);
        assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
        assert_int_equal(listen(fd, 1), 0);
        fflush(NULL);
        pid = fork();
        if (pid == 0) {
                int c = accept(fd, NULL, NULL);
                char got[256] = "";
                size_t n = 0;
                while (!strchr(got, '\n') && n < sizeof(got) - 1)
                        n += (size_t)read(c, got + n, sizeof(got) - 1 - n);
                _exit(strcmp(got, line) == 0 &&
                                      write(c, text, strlen(text)) == (ssize_t)strlen(text)
                              ? 0
                              : 1);
        }
        close(fd);
        return pid;
}

static int asked(const char *answer)
{
        char folder[] = "/tmp/weir-control-XXXXXX", path[64];
        int status = 0, result, null = open("/dev/null", O_WRONLY), out = dup(1), err = dup(2);
        pid_t pid;

        assert_non_null(mkdtemp(folder));
        snprintf(path, sizeof(path), "%s/s", folder);
        pid = script(path, "reload\n", answer);
        fflush(NULL);
        dup2(null, 1);
        dup2(null, 2);
        result = ask_send(path, STR("reload"));
        fflush(NULL);
        dup2(out, 1);
        dup2(err, 2);
        close(null);
        close(out);
        close(err);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
        unlink(path);
        rmdir(folder);
        return result;
}

static void the_first_line_is_the_outcome(void **state)
{
        (void)state;
        assert_int_equal(asked("ok\n"), 0);
        assert_int_equal(asked("ok\nreload 2: done\n"), 0);
        assert_int_equal(asked("failed\nbecause\n"), 1);
        assert_int_equal(asked("rolled back\nbecause\n"), 2);
        assert_int_equal(asked("rolled\n"), 1);
        assert_int_equal(asked("okay\n"), 1);
        assert_int_equal(asked("ok"), 1); /* it died while it spoke */
        assert_int_equal(asked(""), 1);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(commands_are_understood),
                cmocka_unit_test(terms_of_a_canary_arrive),
                cmocka_unit_test(nonsense_is_refused),
                cmocka_unit_test(the_first_line_is_the_outcome),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
