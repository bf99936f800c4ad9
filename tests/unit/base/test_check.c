/* A bug must end the process and say where it is. */
#include "base/check.c"

#include "unit.h"

struct thing {
        uint32_t magic;
};
#define THING_MAGIC 0x1234u

static void break_check(void *arg)
{
        CHECK(arg != NULL);
}

static void break_cast(void *arg)
{
        struct thing *t = CAST(struct thing, THING_MAGIC, arg);

        t->magic = 0;
}

static void checks_abort(void **state)
{
        struct thing good = {THING_MAGIC}, stale = {DEAD_MAGIC};

        (void)state;
        ASSERT_ABORTS(break_check, NULL);
        assert_int_equal(in_child(break_check, &good), 0);
        ASSERT_ABORTS(break_cast, &stale);
        ASSERT_ABORTS(break_cast, NULL);
        assert_int_equal(in_child(break_cast, &good), 0);
}

static int out[2];

static void break_with_stderr(void *arg)
{
        dup2(out[1], STDERR_FILENO);
        break_check(arg);
}

static void break_with_log(void *arg)
{
        log_to_fd(dup(out[1]), LOG_ERROR);
        break_check(arg);
}

static void says_where(void **state)
{
        void (*const ways[])(void *) = {break_with_stderr, break_with_log};

        (void)state;
        for (size_t i = 0; i < COUNT(ways); i++) {
                char text[1024] = "";
                assert_int_equal(pipe(out), 0);
                ASSERT_ABORTS(ways[i], NULL);
                close(out[1]);
                assert_true(read(out[0], text, sizeof(text) - 1) > 0);
                close(out[0]);
                assert_non_null(strstr(text, "panic: "));
                assert_non_null(strstr(text, "test_check.c:"));
                assert_non_null(strstr(text, "break_check: arg != NULL\n"));
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(checks_abort),
                cmocka_unit_test(says_where),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
